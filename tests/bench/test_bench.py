"""``quota-engine bench`` on real stores: what it says, what it writes, and that it leaves nothing behind."""

from __future__ import annotations

import contextlib
import io
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import pytest

from quota_engine.bench.compare import compare_results
from quota_engine.bench.engine_workload import EngineWorkload
from quota_engine.bench.report import html_report
from quota_engine.cli import main
from tests.support.bench_results import case_with, result_with
from tests.support.paths import DOCS
from tests.support.servers import Server, valkey_server_binary

pytestmark = [pytest.mark.store, pytest.mark.slow]

_SVG = "{http://www.w3.org/2000/svg}"
_EMBEDDED = "valkey+embedded://"


class Ran(NamedTuple):
    """A run: its exit code, and what it wrote where."""

    code: int
    figures: dict[str, Any]
    report: str
    errors: str
    json_file: pathlib.Path


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A quick run on an embedded server and memory."""
    directory = tmp_path_factory.mktemp("bench")
    report, json_file = directory / "report.html", directory / "bench.json"
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        code = main.main(["bench", "--quick", "--round-ms", "4", "--json", "--report", str(report)])
    json_file.write_text(out.getvalue(), "utf-8")
    return Ran(code, json.loads(out.getvalue()), report.read_text("utf-8"), errors.getvalue(), json_file)


@pytest.fixture
def server() -> Iterator[Server]:
    """A server with another user."""
    with Server(valkey_server_binary(), tcp=True) as server:
        server.ask("SET", "theirs", "1")
        yield server


def tree_of(text: str) -> ET.Element:
    return ET.fromstring(text.removeprefix("<!DOCTYPE html>\n"))  # noqa: S314 - our own text


def test_every_case_has_results(ran: Ran) -> None:
    """Rates, latencies, and ratios to the yardsticks that its backend has."""
    assert ran.code == 0
    assert {case["backend"] for case in ran.figures["cases"]} == {_EMBEDDED, "memory://"}
    for case in ran.figures["cases"]:
        assert case["ops_per_s_min"] <= case["ops_per_s"] <= case["ops_per_s_max"]
        assert 0 < case["p50_us"] <= case["p99_us"]
        assert len(case["rounds"]) == ran.figures["settings"]["rounds"] == 5
        assert sum(count for _, count in case["histogram_us"]) > 0
        is_engine, is_memory = case["kind"] == "engine", case["backend"] == "memory://"
        has_limit = is_engine and (is_memory or case["concurrency"] > 1)
        has_by_hand = is_engine and not is_memory and case["batch"] == 1
        assert (case["ratio_to_limit"] is not None) == has_limit, case["name"]
        assert (case["ratio_to_handwritten"] is not None) == has_by_hand, case["name"]


def test_quick_run_has_the_expected_cases(ran: Ran) -> None:
    """Reserve by a lone caller, threads, tasks and batches, and all that is not a reserve; with their yardsticks."""
    named = {(case["name"], case["concurrency"]) for case in ran.figures["cases"] if case["backend"] == _EMBEDDED}
    engine = {
        ("reserve, lone", 1),
        ("reserve, threads", 16),
        ("reserve", 32),
        ("confirm", 32),
        ("refusal", 32),
        ("sold-out", 32),
        ("availability", 32),
        ("reserve, batch 128", 4),
    }
    limits = {(f"limit: {action}", 4) for action in ("reserve", "confirm", "refusal", "availability")}
    by_hand = {(f"by hand: {name}", n) for name, n in engine if "batch" not in name and name != "sold-out"}
    # The sold-out cache is compared with the dict, and with a refusal by hand.
    assert named == engine | limits | by_hand | {("a dict behind a lock", 32), ("bare DECR, batch 128", 4)}


def test_the_result_describes_the_machine(ran: Ran) -> None:
    """The pinning is part of it, but no host and no directory."""
    machine = ran.figures["machine"]
    assert machine["servers"][_EMBEDDED].startswith("valkey ")
    assert machine["pinned"] is (machine["client_core"] is not None and machine["server_core"] is not None)
    assert machine["pinned"] is False or machine["client_core"] != machine["server_core"]
    assert tempfile.gettempdir() not in json.dumps(ran.figures) + ran.report


def test_the_report_has_no_external_resources(ran: Ran) -> None:
    """One file; each plot has a title, a description and a table that says the same."""
    tree = tree_of(ran.report)
    plots = tree.findall(f".//{_SVG}svg")
    assert len(plots) == 2 * len(tree.findall(".//figure//table")) == 14  # for wide and for narrow screens
    ids = re.findall(r' id="([^"]+)"', ran.report)
    assert len(ids) == len(set(ids)) == 28
    assert set(re.findall(r"https?://[^\s\"'<]*", ran.report)) == {"http://www.w3.org/2000/svg"}
    outside = r"<(link|img|iframe)|@import|url\(|src=|href=(?!\"data:text/csv)|fetch|import\("
    assert not re.search(outside + r"|\bnan\b|\binf\b", ran.report)
    for path in tree.iter(f"{_SVG}path"):
        for x in re.findall(r"[ML](-?[\d.]+),", path.get("d") or ""):
            assert 0 <= float(x) <= 760


@pytest.mark.parametrize("rounds", [(1, 2), (5, 5, 5)])
def test_a_result_of_one_case_has_a_report(rounds: tuple[float, ...]) -> None:
    """One case, no yardsticks, names that are markup, and a comparison that finds something."""
    new = result_with(case_with(rounds, backend="my<store>://a&b", histogram_us=[(1.0, 1)]))
    old = result_with(case_with([each * 2 + 10 for each in rounds], backend="my<store>://a&b"), cores=1)
    text = html_report(new, compare_results(old, new))
    assert "my&lt;store&gt;://a&amp;b" in text
    assert "Slower than in the earlier run" in text
    assert "cores: 1, now 4" in text
    tree_of(text)
    tree_of(html_report(result_with()))


def test_other_keys_of_a_store_are_kept(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """The run uses a new namespace, and leaves no key, with several offices and with many reservations."""
    words = [
        "--backend",
        f"{server.url}?namespace=live",
        "--case",
        "reserve",
        "--offices",
        "3",
        "--reservations",
        "500",
    ]
    assert main.main(["bench", "--quick", "--round-ms", "3", "--json", *words]) == 0
    told = capsys.readouterr()
    cases = {case["name"]: case for case in json.loads(told.out)["cases"]}
    assert cases["reserve, 3 offices"]["offices"] == 3
    assert cases["reserve, 500 held"]["reservations"] == 500
    assert cases["limit: reserve, 500 held"]["reservations"] == 500
    assert server.ask("KEYS", "*") == ["theirs"]
    assert "stay in the store" not in told.err


def test_keys_are_removed_after_an_error(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong outcome exits with 1, and its keys are removed too."""
    looked = EngineWorkload.check

    def check(self: EngineWorkload) -> None:
        assert server.ask("DBSIZE") > 1
        self._done[0] += 1
        looked(self)

    monkeypatch.setattr(EngineWorkload, "check", check)
    words = ["--backend", server.url, "--case", "reserve", "--reservations", "9"]
    assert main.main(["bench", "--quick", *words]) == 1
    assert "expected 10" in capsys.readouterr().err.replace("101", "10")
    assert server.ask("KEYS", "*") == ["theirs"]


def test_keys_that_cannot_be_removed_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    """The least rights that the engine needs are enough to measure, and not to clean up."""
    page = (DOCS / "backends.md").read_text("utf-8")
    (rights,) = re.findall(r"ACL SETUSER engine (on .*?)```", page, re.DOTALL)
    rules = rights.replace("\\", " ")
    with Server(valkey_server_binary(), users={"engine": rules}) as server:
        url = server.url.replace("unix://", "unix://engine:secret@")
        assert main.main(["bench", "--quick", "--round-ms", "2", "--backend", url, "--case", "availability"]) == 0
        assert server.ask("DBSIZE") > 0
    told = capsys.readouterr()
    assert "stay in the store" in told.err
    assert "expire by themselves" in told.err
    assert "secret" not in told.out + told.err


def test_goals_preset_reports_every_goal(capsys: pytest.CaptureFixture[str]) -> None:
    """One command measures all that the project holds the engine to; here so little that no figure means anything."""
    little = {
        "concurrency": (2, 4, 8),
        "reservations": (50, 300),
        "offices": (3, 1_001),
        "rounds": (2,),
        "round-ms": (2,),
    }
    words = [word for name, values in little.items() for value in values for word in (f"--{name}", str(value))]
    assert main.main(["bench", "--preset", "goals", *words, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    goals = {goal["name"]: goal for goal in figures["goals"]}
    assert list(goals) == [
        "reserve, 4 callers: times by hand",
        "reserve, 4 callers: of the limit",
        "reserve, 8 callers against 4",
        "reserve, 2 callers: times by hand",
        "2 callers: p99 against by hand",
        "a lone caller: p50 against by hand",
        "16 threads: times by hand",
        "4 callers at 3 offices: times by hand",
        "4 callers at 3 offices against 1",
        "sold-out, 4 callers: a second",
        "fsync against memory, 4 callers",
        "rate with 300 held against 50",
        "rate in batches at 1,001 offices against 1",
    ]
    for goal in goals.values():
        assert goal["measured"] > 0
        met = goal["measured"] >= goal["wanted"] if goal["is_least"] else goal["measured"] <= goal["wanted"]
        assert goal["is_met"] is met
    durable = [case["name"] for case in figures["cases"] if case["backend"] == f"{_EMBEDDED} fsync"]
    assert sorted(durable) == ["bare DECR, batch 128", "by hand: reserve", "limit: reserve", "reserve"]
    # Cases with a long setup have no yardsticks.
    (spread,) = [case for case in figures["cases"] if case["offices"] == 1_001]
    assert (spread["batch"], spread["ratio_to_limit"], spread["kind"]) == (128, None, "engine")


def test_goals_are_printed_on_the_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of what is wanted, what was measured, and whether that is met; a preset is no quick look."""
    monkeypatch.setenv("COLUMNS", "80")
    words = ["--backend", _EMBEDDED, "--case", "sold-out", "--concurrency", "4", "--rounds", "2", "--round-ms", "2"]
    assert main.main(["bench", "--preset", "goals", *words]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "callers: a second" in line]
    assert "at least 300,000" in line
    assert line.split()[-1] in ("met", "missed")
    assert main.main(["bench", "--preset", "goals", "--quick"]) == 2


def test_a_regression_exits_with_1(
    ran: Ran, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Compared with runs that were so fast, or so slow, that no noise explains it; tables fit 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    for factor, code, verdict in ((1e6, 1, "slower"), (1e-6, 0, "faster")):
        old = json.loads(ran.json_file.read_text("utf-8"))
        for case in old["cases"]:
            case["rounds"] = [value * factor for value in case["rounds"]]
            case["ops_per_s"] *= factor
        file = tmp_path / "old.json"
        file.write_text(json.dumps(old), "utf-8")
        words = ["--backend", "memory://", "--case", "refusal", "--compare", str(file)]
        assert main.main(["bench", "--quick", *words]) == code
        told = capsys.readouterr().out
        assert re.search(rf"refusal, lone +1 .* {verdict}", told)
        assert ("1 regression." if code else "No regression.") in told
        assert max(map(len, told.splitlines())) <= 80


def test_the_json_has_the_comparison(ran: Ran, capsys: pytest.CaptureFixture[str]) -> None:
    """With the number of regressions, case by case."""
    words = ["--backend", "memory://", "--case", "availability", "--compare", str(ran.json_file), "--json"]
    assert main.main(["bench", "--quick", *words]) in (0, 1)
    comparison = msgspec.json.decode(capsys.readouterr().out)["comparison"]
    assert comparison["regressions"] in (0, 1)
    assert [change["verdict"] in ("same", "slower", "faster") for change in comparison["changes"]] == [True, True]
    assert "memory:// confirm, lone, 1 at once" in comparison["only_old"]


@pytest.mark.parametrize(
    "url",
    ["redis://store.example:6379", "rediss://u:secret@10.1.2.3", "redis://?host=10.1.2.3", "redis+cluster://localhost"],
)
def test_a_remote_store_needs_a_confirmation(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, before a connection is made, and how to do it all the same."""
    assert main.main(["bench", "--quick", "--backend", url]) == 2
    told = capsys.readouterr().err
    assert "may be on another machine" in told
    assert "--yes-really" in told
    assert "secret" not in told


def test_an_unreachable_store_exits_with_3(capsys: pytest.CaptureFixture[str]) -> None:
    """In a line, and with what was wrong."""
    assert main.main(["bench", "--quick", "--backend", "unix:///none/there?attempts_max=1"]) == 3
    assert "the store cannot be used" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--backend", "nowhere"], "not a URL"),
        (["--backend", "nowhere://x"], "no backend serves it"),
        (["--backend", "memory://", "--backend", "memory://"], "more than once"),
        (["--backend", "memory://here"], "memory:// alone"),
        (["--case", "sell"], "one of reserve, confirm, refusal, sold-out, availability"),
        (["--concurrency", "1"], "an integer from 2 to 5000"),
        (["--batch", "0"], "an integer from 2 to 1000"),
        (["--rounds", "0"], "--rounds"),
        (["--round-ms", "0"], "--round-ms: 0"),
        (["--offices", "0"], "--offices"),
        (["--reservations", "-1"], "--reservations"),
        (["--report", "report.pdf"], "a file that ends in .html"),
        (["--compare", "/none.json"], "No such file"),
        (["--compare", "/none.json", "--rounds", "4"], "at least 5"),
        (["--fast"], "--fast"),
    ],
)
def test_bad_usage_exits_with_2(words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is measured, in a line that says why."""
    assert main.main(["bench", *words]) == 2
    told = capsys.readouterr()
    assert complaint in told.err
    assert told.out == ""


def test_help_does_not_import_the_benchmark() -> None:
    """``--help`` stays quick, and so does ``import quota_engine``."""
    for code in ("import quota_engine", "from quota_engine.cli.main import main; main(['bench', '--help'])"):
        code = f"import sys; {code}; print([n for n in sys.modules if n.startswith('quota_engine.bench')])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "[]"
