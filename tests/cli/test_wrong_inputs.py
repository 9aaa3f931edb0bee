"""More than forty wrong inputs. Each error says where, what is wrong and what is right, in one line."""

from __future__ import annotations

import pathlib
import shlex

import pytest

from quota_engine.cli.main import main

_ISO = "expected an ISO date such as"
_NO_STORE = "expected the URL of a store, here or in QUOTA_ENGINE_BACKEND"
_NO_FILE = "cannot be read: No such file or directory; expected"
_TOKEN = "in QUOTA_ENGINE_TOKEN or by --token-file FILE"  # noqa: S105 - a part of a message

WRONG = [
    ("explode", 'Unknown command "explode". Available commands: simulate, bench, draw'),
    ("simulate stray", "'stray': more words than the command takes; expected options, or nothing"),
    ("simulate --fast", "Unknown option: --fast."),
    ("simulate --seed 1.5", "--seed: '1.5' is no integer; expected digits, such as 7"),
    ("simulate --applicants many", "--applicants: 'many' is no integer; expected digits, such as 7"),
    ("simulate --applicants 0", "--applicants: 0; expected an integer from 1 to 10000000"),
    (
        "simulate --policy lottery",
        '"lottery" for --policy. Choose from: "immediate", "bucket", "fifo", "shuffle", "draw"',
    ),
    ("simulate --demand huge", "--demand: 'huge'; expected low, high, or a number from 0.01 to 100000"),
    ("simulate --report report.pdf", "--report: 'report.pdf'; expected a file that ends in .html"),
    ("simulate --scenario none.toml", f"none.toml: file: {_NO_FILE} a file that exists and can be read"),
    ("simulate --trace empty.csv", "empty.csv: line 1: wrong header; expected time,applicant,office,day,channel,party"),
    ("simulate --backend nowhere://x", "url: no backend serves it; expected one of memory://, "),
    ("bench --concurrency 1", "--concurrency: 1; expected an integer from 2 to 5000"),
    ("bench --case speed", "--case: 'speed'; expected one of reserve, confirm, refusal, sold-out, availability"),
    ("bench --backend redis://10.0.0.1:6379", "expected a store on this machine, or --yes-really"),
    ("catalog check", "FILE: missing; expected a value"),
    ("catalog show atlantis", "no built-in catalog 'atlantis'; expected one of indonesia, surabaya, or a file"),
    ("catalog diff surabaya", "NEW: missing; expected a value"),
    ("catalog diff surabaya surabaya --days 500", "--days: 500; expected an integer from 1 to 400"),
    ("catalog diff surabaya surabaya --first-day tomorrow", f"--first-day: not a date; {_ISO} 2026-12-01"),
    ("status", f"BACKEND: missing; {_NO_STORE}"),
    ("status memory:// --office atlantis", "--office: 'atlantis'; expected an office; the store has none"),
    ("status memory:// --first-day 2026-02-30", f"--first-day: not a date; {_ISO} 2026-12-01"),
    ("status redis://127.0.0.1:1/0?speed=9", "url: unknown option 'speed'; expected redis://"),
    ("audit memory:// --timeout-s 0", "--timeout-s: 0; expected an integer from 1 to 3600"),
    ("watch", "BACKEND, --host: both missing; expected the URL of a store"),
    ("watch memory:// --every-ms 1", "--every-ms: 1; expected an integer from 100 to 3600000"),
    ("watch --host ftp://x", "--host: 'ftp://x'; expected the address of a service, such as https://booking.example"),
    (
        "watch --host http://127.0.0.1:1",
        f"the token: missing; expected one with the role auditor or operator, {_TOKEN}",
    ),
    ("room verify none.json", f"FILE: none.json {_NO_FILE} the transcript of a room"),
    ("room verify bad.json", "FILE, bad.json: JSON is malformed"),
    ("room pace december 1 2", "--host, --config: both missing; expected --host URL  of a service, or  --config FILE"),
    ('draw commit "a b" --seed-file s.txt', "draw: not a valid id; expected 1 to 64 characters of A-Z a-z 0-9 _ -"),
    ("draw verify none.jsonl --applications a.jsonl --capacities c.json", f"none.jsonl: {_NO_FILE} a readable file"),
    ("day relocate surabaya monday --host http://x", f"DAY: 'monday' is no date; {_ISO} 2026-12-14"),
    ("day relocate surabaya 2026-12-07", "--host: missing; expected the address of a service"),
    ("store status redis://x", "backend: not the URL of a PostgreSQL store; expected postgresql://…"),
    ("serve --port 99999", "--port: 99999; expected an integer from 0 to 65535"),
    (
        "serve --config bad.toml",
        "bad.toml: workers: 3 with the backend memory://; expected 1, or a store that processes",
    ),
    ("reservation show", "STORE: missing; expected a value"),
    ("reservation show memory:// surabaya", "reference: not a reference; expected an office and an id with ~ between"),
    (
        "reservation reschedule memory:// a~b --to now",
        "--to: 'now' is no date; expected an ISO date such as 2026-12-14",
    ),
    ("loadtest run --only mars", '"mars" for --only. Choose from: "surabaya", "indonesia", "draw"'),
    ("completion tcsh", '"tcsh" for SHELL. Choose from: "bash", "zsh", "fish"'),
]


@pytest.mark.parametrize(("line", "complaint"), WRONG, ids=[line for line, _ in WRONG])
def test_a_wrong_input_is_told_what_is_right(
    line: str,
    complaint: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("BACKEND", "TOKEN", "CATALOG", "IDENTITY_KEY", "PORT", "WORKERS", "HOST"):
        monkeypatch.delenv(f"QUOTA_ENGINE_{name}", raising=False)
    (tmp_path / "empty.csv").touch()
    (tmp_path / "bad.json").write_text("not json", "utf-8")
    (tmp_path / "bad.toml").write_text('workers = 3\nbackend = "memory://"\n', "utf-8")
    assert main(shlex.split(line)) == 2
    output = capsys.readouterr()
    assert (output.out, complaint in output.err.replace("\nquota-engine: ", "\n")) == ("", True), output.err
    assert "Traceback" not in output.err
    assert "unexpected keyword" not in output.err


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("catalog check", "catalog check "),
        ("loadtest run --only mars", "loadtest run "),
        ("simulate stray", "simulate "),
        ("explode", ""),
    ],
)
def test_a_usage_error_names_the_help_of_its_command(
    line: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(shlex.split(line)) == 2
    assert capsys.readouterr().err.endswith(f"quota-engine: Try  quota-engine {command}--help\n")
