"""The command line: exit codes, what goes to which stream, and what never goes anywhere."""

from __future__ import annotations

import importlib.metadata
import json
import pathlib
import re
import subprocess
import sys
import time
from typing import Any

import pytest

from quota_engine.cli import main
from quota_engine.domain.errors import BackendUnavailable
from quota_engine.engine.quota_engine import QuotaEngine
from tests.support.catalog_samples import sample
from tests.support.simulated_openings import LyingEngine

_HEADER = "time,applicant,office,day,channel,party\n"
_IDENTITY = "3578011203850007"


def _json(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main.main(["simulate", "--json", *words]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert isinstance(figures, dict)
    return figures


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--version"]) == 0
    assert capsys.readouterr().out == f"quota-engine {importlib.metadata.version('quota-engine')}\n"
    assert main.main(["--help"]) == 0
    assert "simulate" in capsys.readouterr().out
    assert main.main(["simulate", "--help"]) == 0
    assert "byte for byte" in capsys.readouterr().out


@pytest.mark.slow
def test_simulate_without_options_runs_surabaya(capsys: pytest.CaptureFixture[str]) -> None:
    figures = _json(capsys)
    assert {name: figures[name] for name in ("seed", "policy", "backend", "applicants", "capacity", "confirmed")} == {
        "seed": 2020,
        "policy": "immediate",
        "backend": "memory://",
        "applicants": 5000,
        "capacity": 100,
        "confirmed": 100,
    }
    assert (figures["oversold"], figures["unsold"], figures["errors"], figures["answered"]) == (0, 0, 0, 5000)
    assert figures["refused"] + figures["confirmed"] + figures["abandoned"] == 5000
    assert 0 < figures["answer_ms"]["p50"] < figures["answer_ms"]["p99"] < figures["answer_ms"]["max"] < 2000
    assert figures["elapsed_s"] > 60


def test_simulate_options_override_the_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    figures = _json(capsys, "--applicants", "300", "--capacity", "7", "--offices", "4", "--seed", "9")
    assert (figures["applicants"], figures["capacity"], figures["offices"], figures["seed"]) == (300, 28, 4, 9)
    assert figures["confirmed"] == 28


@pytest.mark.slow
def test_two_runs_write_the_same_bytes(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = []
    for name in ("first", "second"):
        words = ["simulate", "--json", "--baseline", "--applicants", "800"]
        files = [tmp_path / f"{name}.html", tmp_path / f"{name}.svg"]
        assert main.main([*words, "--report", str(files[0]), "--picture", str(files[1])]) == 0
        written.append([capsys.readouterr().out, *(file.read_text("utf-8") for file in files)])
    assert written[0] == written[1]


@pytest.mark.slow
def test_two_processes_print_the_same_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    """The result does not depend on the hash seed or on the environment."""
    words = ["simulate", "--json", "--baseline", "--applicants", "500"]
    assert main.main(words) == 0
    here = capsys.readouterr().out
    code = "import sys; from quota_engine.cli.main import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "77"}
    )
    assert done.stdout == here
    assert done.stderr.startswith("took ")


def test_tables_fit_80_columns_without_color_codes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main.main(["simulate", "--baseline", "--applicants", "400"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "\x1b" not in out
    assert "Oversold" in out
    assert "Next: quota-engine simulate --compare  shows who gets the places under each" in out
    assert "The audit has no findings" in out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["simulate", "--applicants", "0"], "--applicants: 0; expected an integer from 1 to 10000000"),
        (["simulate", "--applicants", "many"], "--applicants"),
        (["simulate", "--capacity", "-1"], "--capacity"),
        (["simulate", "--offices", "0"], "--offices"),
        (["simulate", "--offices", "126"], "at most 125"),
        (["simulate", "--seed", "-1"], "--seed"),
        (["simulate", "--scenario", "none.toml"], "none.toml"),
        (["simulate", "--trace", "none.csv"], "none.csv"),
        (["simulate", "--trace", "none.csv", "--applicants", "3"], "given together with --trace"),
        (["simulate", "--backend", "nowhere://x"], "no backend serves it"),
        (["simulate", "--report", "report.pdf"], "a file that ends in .html"),
        (["simulate", "--picture", "picture.png"], "a file that ends in .svg"),
        (["simulate", "--report", "/dev/null/x.html"], "a directory to write to"),
        (["simulate", "--fast"], "--fast"),
        (["simulate", "stray"], "stray"),
        (["explode"], "explode"),
        (["catalog", "check"], "file"),
        (["catalog", "show", "atlantis"], "no built-in catalog"),
    ],
)
def test_bad_usage_exits_with_2_and_names_the_error(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(words) == 2
    output = capsys.readouterr()
    assert complaint.lower() in output.err.lower()
    assert "Traceback" not in output.err
    assert output.out == ""


def test_scenario_errors_are_printed_one_a_line(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "scenario.toml"
    file.write_text("applicants = 0\nseed = 'x'", "utf-8")
    assert main.main(["simulate", "--scenario", str(file)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_an_oversell_exits_with_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A terminal shows the defect and the next step in red."""
    monkeypatch.setattr("quota_engine.engine.quota_engine.QuotaEngine", LyingEngine)
    assert main.main(["simulate", "--applicants", "300"]) == 1
    shown = capsys.readouterr().out
    assert "above capacity" in shown
    assert "Next: this must never happen: report it with the output of --json." in shown
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert main.main(["simulate", "--applicants", "300"]) == 1
    colored = capsys.readouterr().out
    for shown in ("FINDING: ", "Next: this must never happen"):
        assert f"\x1b[1;31m{shown}" in colored, shown


@pytest.mark.slow
def test_an_oversell_of_the_baseline_exits_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    figures = _json(capsys, "--baseline", "--applicants", "3000")
    assert figures["baseline"]["oversold"] > 0
    assert figures["findings"] == []


def test_an_unreachable_backend_exits_with_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_arguments: object, **_keywords: object) -> None:
        raise BackendUnavailable("nobody answers")

    monkeypatch.setattr(QuotaEngine, "reserve", fail)
    assert main.main(["simulate", "--applicants", "10"]) == 3
    assert "nobody answers" in capsys.readouterr().err


def test_credentials_of_a_backend_are_not_shown() -> None:
    from quota_engine.cli.simulate import _without_credentials

    assert _without_credentials("redis://user:secret@host:6379/0?password=x") == "redis://host:6379/0"
    assert _without_credentials("memory://") == "memory://"


def test_no_output_contains_an_identity(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tables, JSON, report and errors are checked."""
    trace = tmp_path / "trace.csv"
    row = "{time},{who},surabaya,2026-12-07,online,{party}\n"
    trace.write_text(
        _HEADER + "".join(row.format(time=at / 10, who=f"{_IDENTITY}{at}", party=at % 3 + 1) for at in range(150)),
        "utf-8",
    )
    report, picture = tmp_path / "report.html", tmp_path / "picture.svg"
    files = ["--report", str(report), "--picture", str(picture)]
    shown = []
    for words in (["--json", "--baseline", *files], []):
        assert main.main(["simulate", "--trace", str(trace), *words]) == 0
        output = capsys.readouterr()
        shown += [output.out, output.err]
    trace.write_text(_HEADER + f"{_IDENTITY},{_IDENTITY},{_IDENTITY},{_IDENTITY},{_IDENTITY},{_IDENTITY}\n", "utf-8")
    assert main.main(["simulate", "--trace", str(trace)]) == 2
    shown += [capsys.readouterr().err, report.read_text("utf-8"), picture.read_text("utf-8")]
    assert all(_IDENTITY not in text for text in shown)


def test_a_failed_run_keeps_an_older_report(tmp_path: pathlib.Path) -> None:
    report = tmp_path / "report.html"
    report.write_text("older", "utf-8")
    assert main.main(["simulate", "--report", str(report), "--scenario", "none.toml"]) == 2
    assert report.read_text("utf-8") == "older"
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "cyclopts", None)
    assert main.main(["simulate"]) == 2
    assert "pip install 'quota-engine[cli]'" in capsys.readouterr().err


def test_catalog_check_reports_every_error(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["catalog", "check", "indonesia"]) == 0
    assert "125 offices" in capsys.readouterr().out
    file = tmp_path / "catalog.toml"
    file.write_text("title = 5", "utf-8")
    assert main.main(["catalog", "check", str(file), "--json"]) == 2
    result = json.loads(capsys.readouterr().out)
    assert result["ok"] is False
    assert {issue["key"] for issue in result["issues"]} >= {"title", "services", "offices"}
    assert main.main(["catalog", "check", str(file)]) == 2
    assert "services: missing" in capsys.readouterr().out


def test_catalog_check_warns_of_clock_changes(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A warning is no error: the exit code is 0."""
    raw = sample()
    raw["plans"][0] |= {"hours": {"start": "02:30", "end": "16:00"}, "working_weekdays": ["sunday", "monday"]}
    raw["offices"][0]["time_zone"] = "Europe/Berlin"
    file = tmp_path / "catalog.json"
    file.write_text(json.dumps(raw), "utf-8")
    assert main.main(["catalog", "check", str(file)]) == 0
    output = capsys.readouterr().out
    warnings = output.count(f"{file}: warning: west: hours.start: 02:30 on ")
    assert warnings in (4, 5)  # two changes a year; the last Sunday of a month is not on the same date each year
    assert output.endswith("no errors, 2 offices\n")
    assert main.main(["catalog", "check", str(file), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["ok"] is True
    assert [one["offices"] for one in result["warnings"]] == [["west"]] * warnings


def test_catalog_show_lists_offices(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["catalog", "show"]) == 0
    shown = capsys.readouterr().out
    assert "online 100" in shown
    assert re.search(r"next: \d{4}-\d\d-\d\d 14:00 WIB, \d{4}-\d\d-\d\d to \d{4}-\d\d-\d\d", shown)
    assert main.main(["catalog", "show", "indonesia", "--json"]) == 0
    offices = json.loads(capsys.readouterr().out)["offices"]
    assert len(offices) == 125
    assert offices[0]["sessions"]["morning"] == {"id": "Pagi", "en": "Morning"}
    assert offices[0]["next_opens_at_ms"] > time.time() * 1_000
    assert all(len(day) == 10 for day in offices[0]["next_opening_days"])


@pytest.mark.slow
def test_a_closed_pipe_exits_without_a_traceback() -> None:
    """The exit code is 0 or 141, so it is not mistaken for a finding; a full device gives 2."""
    code = "import sys; from quota_engine.cli.main import main; sys.exit(main())"
    command = f"{sys.executable} -c '{code}' simulate --applicants 50 --json"
    ran = subprocess.run(
        ["/bin/bash", "-c", f"{command} | true; echo ${{PIPESTATUS[0]}}"], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() in ("0", "141")
    assert "Traceback" not in ran.stderr
    full = subprocess.run(["/bin/bash", "-c", f"{command} > /dev/full"], capture_output=True, text=True, check=False)
    assert full.returncode == 2
    assert "cannot be written" in full.stderr
