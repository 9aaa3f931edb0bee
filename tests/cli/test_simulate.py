"""``simulate`` with agents: what it prints, writes and refuses."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import xml.etree.ElementTree as ET
from typing import Any

import msgspec
import pytest

from quota_engine.cli import main
from quota_engine.simulation.policy_comparison import PolicyComparison
from quota_engine.simulation.reports.policy_comparison import html_report, picture
from quota_engine.simulation.scenario import PolicyName
from tests.support.simulated_openings import compare_in_memory, scenario_with

_SVG = "{http://www.w3.org/2000/svg}"
_SMALL = ("--applicants", "150", "--capacity", "15")


def _json(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main.main(["simulate", "--json", *words]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert isinstance(figures, dict)
    return figures


@pytest.mark.slow
def test_compare_runs_every_policy_with_the_same_people(capsys: pytest.CaptureFixture[str]) -> None:
    figures = _json(capsys, "--compare", *_SMALL)
    assert (figures["applicants"], figures["capacity"], figures["findings"]) == (150, 15, [])
    policies = figures["policies"]
    assert [each["policy"] for each in policies] == ["immediate", "bucket", "fifo", "shuffle", "draw"]
    wanted = {
        "policy",
        "confirmed",
        "oversold",
        "latency_success_correlation",
        "broker_profit",
        "broker_places_held",
        "broker_places_delivered",
        "idle_places",
        "classes",
    }
    for each in policies:
        assert wanted <= each.keys()
        assert each["oversold"] == 0
        assert -1 <= each["latency_success_correlation"] <= 1
    people = [{one["class"]: one["people"] for one in each["classes"]} for each in policies]
    for each in people:
        each.pop("brokers' identities", None)
    assert all(each == people[0] for each in people)
    assert sum(people[0].values()) == 150
    assert policies[0]["broker_profit"] > 0 >= policies[-1]["broker_profit"]


def test_one_policy_has_top_level_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    figures = _json(capsys, "--policy", "shuffle", "--re-release", "cooling", "--identity", "verified", *_SMALL)
    assert {name: figures[name] for name in ("policy", "re_release", "identity", "capacity")} == {
        "policy": "shuffle",
        "re_release": "cooling",
        "identity": "verified",
        "capacity": 15,
    }
    assert "policies" not in figures


@pytest.mark.parametrize(("demand", "applicants"), [("low", 10), ("high", 200), ("2.5", 50), ("0.01", 1)])
def test_demand_sets_applicants_for_each_place(
    demand: str, applicants: int, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = _json(capsys, "--demand", demand, "--capacity", "20")
    assert (figures["applicants"], figures["policy"]) == (applicants, "immediate")


def test_a_scenario_policy_adds_agents(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "draw.toml"
    text = 'policy = "draw"\nre_release = "immediate"\napplicants = 100\n[population.brokers]\nentry = "never"\n'
    file.write_text(text, "utf-8")
    figures = _json(capsys, "--scenario", str(file))
    assert (figures["policy"], figures["re_release"], figures["broker_identities"]) == ("draw", "immediate", 0)


@pytest.mark.slow
def test_two_runs_write_the_same_bytes(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = []
    for name in ("first", "second"):
        files = [tmp_path / f"{name}.html", tmp_path / f"{name}.svg"]
        words = ["simulate", "--json", "--compare", *_SMALL, "--report", str(files[0]), "--picture", str(files[1])]
        assert main.main(words) == 0
        written.append([capsys.readouterr().out, *(file.read_text("utf-8") for file in files)])
    assert written[0] == written[1]


@pytest.mark.store
def test_an_embedded_server_gives_the_same_result_as_memory(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hand-overs, parked places, awards and attendance, on a real server."""
    words = ("--policy", "draw", "--applicants", "60", "--capacity", "8")
    memory = _json(capsys, *words)
    server = _json(capsys, *words, "--backend", f"valkey+embedded://{tmp_path}/store")
    assert memory.pop("backend") != server.pop("backend")
    assert memory == server


@pytest.mark.slow
def test_tables_fit_80_columns_without_color_codes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main.main(["simulate", "--compare", *_SMALL]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "\x1b" not in out
    assert "correlation with latency" in out
    assert "The audit has no findings" in out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--demand", "much"], "--demand: 'much'; expected low, high, or a number"),
        (["--demand", "0"], "expected low, high, or a number"),
        (["--demand", "nan"], "expected low, high, or a number"),
        (["--demand", "100000", "--capacity", "1000"], "at most 10000000"),
        (["--demand", "high", "--applicants", "5"], "--demand: given together with --applicants"),
        (["--demand", "high", "--trace", "none.csv"], "--demand: given together with --trace"),
        (["--policy", "draw", "--trace", "none.csv"], "--trace: given together with agents"),
        (["--compare", "--baseline"], "--baseline: given together with agents"),
        (["--compare", "--policy", "draw"], "--policy: given together with agents"),
        (["--compare", "--backend", "redis://127.0.0.1:1/"], "--backend: given together with agents"),
        (["--policy", "first"], "first"),
        (["--re-release", "never"], "never"),
        (["--identity", "strong"], "strong"),
        (["--policy", "draw", "--offices", "126"], "at most 125"),
    ],
)
def test_conflicting_options_exit_with_2(words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["simulate", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert complaint in " ".join(re.sub(r"[│╭╮╰╯─]", " ", captured.err).split())


# The report.


@pytest.fixture(scope="module")
def comparison() -> PolicyComparison:
    return compare_in_memory(scenario_with(200, sale={"capacity": 20}))


def _tree(text: str) -> ET.Element:
    return ET.fromstring(text.removeprefix("<!DOCTYPE html>\n"))  # noqa: S314 - our own text


@pytest.mark.slow
@pytest.mark.slow
def test_the_report_has_no_external_resources(comparison: PolicyComparison) -> None:
    for text in (html_report(comparison), picture(comparison)):
        tree = _tree(text)
        assert set(re.findall(r"https?://[^\s\"'<]*", text)) == {"http://www.w3.org/2000/svg"}
        assert not re.search(r"<(link|img|iframe)|@import|url\(|src=|href=(?!\"data:text/csv)|fetch|import\(", text)
        plots = [tree] if tree.tag == f"{_SVG}svg" else tree.findall(f".//{_SVG}svg")
        assert len(plots) in (1, 6)
        ids = re.findall(r' id="([^"]+)"', text)
        assert len(ids) == len(set(ids)) == 2 * len(plots)
        for plot in plots:
            title, description = plot.find(f"{_SVG}title"), plot.find(f"{_SVG}desc")
            assert title is not None
            assert description is not None
            assert title.text
            assert description.text


@pytest.mark.slow
@pytest.mark.slow
def test_all_bars_have_the_same_length(comparison: PolicyComparison) -> None:
    tree = _tree(picture(comparison))
    ends: dict[str, float] = {}
    for part in tree.findall(f"{_SVG}rect"):
        if part.get("height") == "28":
            row, end = part.get("y") or "", float(part.get("x") or 0) + float(part.get("width") or 0)
            ends[row] = max(ends.get(row, 0), end)
    assert len(ends) == 1 + len(PolicyName)
    assert max(ends.values()) - min(ends.values()) <= 1.5
    assert max(ends.values()) <= 760


@pytest.mark.slow
def test_the_report_lists_findings(comparison: PolicyComparison) -> None:
    first, *others = comparison.runs
    bad = dataclasses.replace(first, findings=("7 places were confirmed <above> capacity",))
    text = html_report(dataclasses.replace(comparison, runs=(bad, *others)))
    assert "immediate: 7 places were confirmed &lt;above&gt; capacity" in text
    _tree(text)


def test_a_minimal_report_is_well_formed() -> None:
    scenario = msgspec.structs.replace(scenario_with(1, sale={"capacity": 1}), title="<b>&</b>")
    comparison = compare_in_memory(scenario)
    _tree(html_report(comparison))
    _tree(picture(comparison))
