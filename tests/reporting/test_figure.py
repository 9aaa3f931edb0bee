"""Figures of reports: their values, and the pictures for wide and narrow screens."""

from __future__ import annotations

import re
import urllib.parse
import xml.etree.ElementTree as ET

import pytest

from quota_engine.reporting.figure import READOUT_SCRIPT, figure, plot_figure, plot_values
from quota_engine.reporting.page import page
from quota_engine.reporting.svg_bars import Bar, BarChart, BarPart, render_bars
from quota_engine.reporting.svg_plot import Plot, PlotLine, axis_end, nice_ticks, render
from quota_engine.reporting.svg_ranges import RangeChart, RangeRow, render_ranges
from quota_engine.reporting.table import Cell, render_table

_SVG = "{http://www.w3.org/2000/svg}"


def plot_with(*lines: PlotLine, **changes: object) -> Plot:
    values: dict[str, object] = {
        "name": "rate",
        "title": "Rate",
        "description": "The rate falls, and rises.",
        "lines": lines,
        "x_range": (0, 10),
        "x_ticks": [(x, f"{x} seconds") for x in range(11)],
        "x_title": "seconds, since the start",
        "y_max": 10,
        "y_ticks": [(0, "0"), (10, "10")],
    }
    return Plot(**{**values, **changes})  # type: ignore[arg-type]


def texts_of(svg: str) -> list[ET.Element]:
    return list(ET.fromstring(svg).iter(f"{_SVG}text"))  # noqa: S314 - our own text


def test_values_have_a_row_for_every_point() -> None:
    lines = (
        PlotLine("stepped", "engine", [(2, 5), (4, 7)], stepped=True),
        PlotLine("points", "old", [(0, 1), (4, 2)]),
        PlotLine("limit", "limit", [(0, 9), (10, 9)]),
    )
    assert plot_values(plot_with(*lines, y_unit="%")) == [
        ["seconds since the start", "stepped (%)", "points (%)", "limit (%)"],
        ["0", "", "1", "9"],
        ["2", "5", "", "9"],
        ["4", "7", "2", "9"],
        ["10", "7", "", "9"],
    ]


def test_a_figure_carries_its_values_as_a_csv_file() -> None:
    text = plot_figure(plot_with(PlotLine("a", "engine", [(0, 1.5), (1, 2)])), "<table></table>")
    link = ET.fromstring(text).find(".//a")  # noqa: S314 - our own text
    assert link is not None
    assert link.get("download") == "rate.csv"
    _, _, values = (link.get("href") or "").partition(",")
    assert urllib.parse.unquote(values) == "seconds since the start,a\r\n0,1.5\r\n1,2\r\n"


def test_the_narrow_picture_has_ids_of_its_own_and_leaves_out_labels_that_touch() -> None:
    plot = plot_with(PlotLine("a", "engine", [(0, 1), (10, 2)]))
    text = plot_figure(plot, "")
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids)) == 4
    wide, narrow = (len(texts_of(render(plot, width))) for width in (1400, 300))
    assert wide == 15  # 11 and 2 ticks, the axis, the legend
    assert narrow < 10


def test_error_bars_span_the_range() -> None:
    line = PlotLine("a", "engine", [(5, 4)], ranges=[(5, 2, 8)])
    found = re.search(r'class="range engine" d="M([\d.]+),([\d.]+)V([\d.]+)', render(plot_with(line), 480, 290))
    assert found is not None
    _, low, high = (float(each) for each in found.groups())
    heights = re.findall(r'class="grid" d="M[\d.]+,([\d.]+)H', render(plot_with(line), 480, 290))
    zero, top = (float(each) for each in heights)
    assert low == pytest.approx(zero + (top - zero) * 0.2, abs=0.1)
    assert high == pytest.approx(zero + (top - zero) * 0.8, abs=0.1)


@pytest.mark.parametrize("highest", [0.3, 1, 7, 99, 100, 101, 2_361, 81_234.5])
def test_the_last_tick_of_an_axis_is_not_below_the_highest_value(highest: float) -> None:
    end = axis_end(highest)
    assert highest <= end <= 2 * highest + 1e-9
    assert nice_ticks(0, end, 4)[-1] == pytest.approx(end)


def test_an_axis_of_nothing_ends_at_one() -> None:
    assert axis_end(0) == 1


def test_bars_of_a_narrow_picture_have_their_labels_above() -> None:
    chart = BarChart("bars", "Bars", "Two kinds.", ["one", "two"], [Bar("first", [BarPart(0, 0.25), BarPart(1, 0.75)])])
    for width, above in ((760, False), (300, True)):
        svg = render_bars(chart, width)
        (label,) = [text for text in texts_of(svg) if text.text == "first"]
        bar = re.search(r'<rect class="fill0" x="[\d.]+" y="(\d+)" width="([\d.]+)" height="28"', svg)
        assert bar is not None
        assert (float(label.get("y") or 0) < float(bar[1])) is above
        assert 'data-value="first, one: 25.0%"' in svg
        assert float(bar[2]) > 0.2 * width  # a quarter of what the label leaves


def test_ranges_stay_inside_the_picture() -> None:
    rows = [
        RangeRow("lone & first", "p50 5", 1, 5, 9, density=[(1, 4, 10), (4, 9, 40)]),
        RangeRow("beyond", "p50 50", 0.001, 50, 1e6, "old"),
    ]
    chart = RangeChart("ranges", "Ranges", "Two rows.", rows, (0.5, 100), [(1, "1"), (10, "10")], "ms", reference=1)
    for width in (760, 300):
        svg = render_ranges(chart, width)
        tree = ET.fromstring(svg)  # noqa: S314 - our own text
        assert [group.get("data-value") for group in tree.iter(f"{_SVG}g")] == ["lone & first: p50 5", "beyond: p50 50"]
        assert len(list(tree.iter(f"{_SVG}polygon"))) == 1
        for x in re.findall(r"(?:[MH]|points=\"| )([\d.]+),", svg):
            assert 0 <= float(x) <= width


def test_a_table_names_the_column_of_each_value() -> None:
    rows: list[list[str | Cell]] = [["Section"], ["first", "1 < 2", Cell("bad one", "bad")]]
    text = render_table(["", "value & unit", "verdict"], rows)
    tree = ET.fromstring(text)  # noqa: S314 - our own text
    assert [(cell.get("data-head"), cell.get("class"), cell.text) for cell in tree.findall(".//tbody//td")] == [
        ("value & unit", None, "1 < 2"),
        ("verdict", "bad", "bad one"),
    ]
    section = tree.find(".//tbody/tr/th")
    assert section is not None
    assert section.get("colspan") == "3"


def test_a_page_is_well_formed_with_its_script() -> None:
    svg = '<svg xmlns="http://www.w3.org/2000/svg"/>'
    text = page("Report", figure("f", "A & B", "It rises.", (svg, svg), [["x"], ["1"]], ""))
    tree = ET.fromstring(text.removeprefix("<!DOCTYPE html>\n"))  # noqa: S314 - our own text
    assert tree.find(".//script") is not None
    assert not set("<&") & set(READOUT_SCRIPT)
