"""The report of an opening: one valid file without external resources."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from quota_engine.reporting.svg_plot import nice_ticks
from quota_engine.simulation.reports.formatting import duration
from quota_engine.simulation.reports.opening import html_report, picture
from quota_engine.simulation.simulation import SimulationResult
from tests.support.simulated_openings import LyingEngine, run, scenario_with

_SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def result() -> SimulationResult:
    return run(scenario_with(1_500), baseline=True)


def _tree(text: str) -> ET.Element:
    return ET.fromstring(text.removeprefix("<!DOCTYPE html>\n"))  # noqa: S314 - our own text


def test_the_report_has_four_plots_with_tables(result: SimulationResult) -> None:
    tree = _tree(html_report(result))
    plots = tree.findall(f".//{_SVG}svg")
    assert len(plots) == 2 * len(tree.findall(".//figure//table")) == 8  # for wide and for narrow screens
    for plot in plots:
        assert plot.get("role") == "img"
        title, description = plot.find(f"{_SVG}title"), plot.find(f"{_SVG}desc")
        assert title is not None
        assert description is not None
        assert plot.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
        assert title.text
        assert description.text


def test_the_report_has_no_external_resources(result: SimulationResult) -> None:
    for text in (html_report(result), picture(result)):
        assert set(re.findall(r"https?://[^\s\"'<]*", text)) == {"http://www.w3.org/2000/svg"}
        assert not re.search(r"<(link|img|iframe)|@import|url\(|src=|href=(?!\"data:text/csv)|fetch|import\(", text)


def test_element_ids_are_unique(result: SimulationResult) -> None:
    ids = re.findall(r' id="([^"]+)"', html_report(result))
    assert len(ids) == len(set(ids)) == 16


def test_the_table_has_the_baseline_next_to_the_engine(result: SimulationResult) -> None:
    assert result.baseline is not None
    text = html_report(result)
    for figure in (
        result.baseline.oversold,
        result.baseline.errors,
        result.baseline.applicants_logged_out,
        result.engine.confirmed,
    ):
        assert re.search(rf'data-head="(quota_engine|Baseline)">{figure:,}</td>', text)


def test_findings_are_listed() -> None:
    text = html_report(run(scenario_with(300), engine=LyingEngine))
    assert "Findings of the audit:" in text
    assert "above capacity" in text
    _tree(text)


def test_a_run_of_one_applicant_has_a_report() -> None:
    for scenario in (scenario_with(1), scenario_with(1, sale={"capacity": 1}, agents={"abandon_share": 1.0})):
        result = run(scenario)
        assert "old application" not in html_report(result).lower()
        _tree(html_report(result))
        _tree(picture(result))


def test_titles_are_escaped() -> None:
    import msgspec

    result = run(msgspec.structs.replace(scenario_with(5), title="<b>&</b>"))
    assert "&lt;b&gt;&amp;&lt;/b&gt;" in html_report(result)
    _tree(html_report(result))


def test_plot_points_are_inside_the_picture(result: SimulationResult) -> None:
    tree = _tree(picture(result))
    assert (tree.get("width"), tree.get("height")) == ("760", "380")
    for path in tree.findall(f"{_SVG}path"):
        for command, numbers in re.findall(r"([MHVL])([-\d.,]+)", path.get("d") or ""):
            values = [float(number) for number in numbers.split(",")]
            limits = {"M": (760, 380), "L": (760, 380), "H": (760,), "V": (380,)}[command]
            assert all(0 <= value <= limit for value, limit in zip(values, limits, strict=True))


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0 ms"),
        (87.4, "87 ms"),
        (999.6, "1.0 s"),
        (2_400, "2.4 s"),
        (42_000, "42 s"),
        (160_000, "2.7 min"),
        (720_000, "12 min"),
        (12_240_000, "3.4 h"),
    ],
)
def test_durations_have_a_suitable_unit(milliseconds: float, text: str) -> None:
    assert duration(milliseconds) == text


def test_ticks_are_round() -> None:
    assert nice_ticks(-60, 160) == [-50, 0, 50, 100, 150]
    assert nice_ticks(0, 108, 4) == [0, 50, 100]
