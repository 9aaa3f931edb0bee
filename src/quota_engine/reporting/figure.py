"""Figures of a report: a picture for wide and for narrow screens, its sentence, and the values behind it."""

from __future__ import annotations

__all__ = ["FIGURE_STYLE", "NARROW_PX", "READOUT_SCRIPT", "figure", "plot_figure", "plot_values"]

import bisect
import csv
import dataclasses
import html
import io
import urllib.parse
from collections.abc import Iterable, Sequence
from typing import Final

from quota_engine.reporting.svg_plot import Plot, PlotLine, render

NARROW_PX: Final = 300
"""Width of the picture for a phone, in user units. The text is then never below 12 pixels on 320 pixels."""
_NARROW_HEIGHT: Final = 250

FIGURE_STYLE: Final = (
    "figure .narrow{display:none}figure .narrow svg{max-width:420px}figure .wide svg{max-width:820px}"
    "@media(max-width:480px){figure .narrow{display:block}figure .wide{display:none}}"
    "@media(max-width:720px){figure.large .narrow{display:block}figure.large .wide{display:none}}"
    ".readout{min-height:1.5em;margin:4px 0 0;font-size:.9rem;font-variant-numeric:tabular-nums}"
    "figure svg{touch-action:pan-y}figure svg:focus-visible,figure [data-value]:focus-visible{outline:2px solid "
    "var(--engine);outline-offset:1px}.plot .cursor{stroke:var(--soft);stroke-width:1;stroke-dasharray:2 2}"
    "a[download]{color:inherit}"
)
"""CSS of figures, in addition to ``svg_plot.STYLE``."""

# No "<" and no "&": the page is well-formed XML, too.
READOUT_SCRIPT: Final = """
for (const figure of document.querySelectorAll("figure.chart")) {
  const readout = figure.querySelector(".readout");
  const link = figure.querySelector("a[download]");
  for (const part of figure.querySelectorAll("[data-value]")) {
    const show = () => { readout.textContent = part.dataset.value; };
    part.addEventListener("pointerenter", show);
    part.addEventListener("focus", show);
  }
  const plots = figure.querySelectorAll("svg[data-box]");
  if (plots.length === 0) continue;
  const text = decodeURIComponent(link.href.slice(link.href.indexOf(",") + 1));
  const [heads, ...rows] = text.trim().split("\\r\\n").map((line) => line.split(","));
  const format = (cell) => cell === "" ? "none" : Number(cell).toLocaleString("en", {maximumFractionDigits: 3});
  for (const plot of plots) {
    const [left, right, top, bottom] = plot.dataset.box.split(" ").map(Number);
    const scale = plot.dataset.scale === "log" ? (x) => Math.log(Math.max(x, 1e-9)) : (x) => x;
    const [low, high] = plot.dataset.range.split(" ").map((end) => scale(Number(end)));
    const places = rows.map((row) => left + (right - left) * (scale(Number(row[0])) - low) / (high - low));
    const cursor = document.createElementNS("http://www.w3.org/2000/svg", "path");
    cursor.setAttribute("class", "cursor");
    plot.append(cursor);
    let at = 0;
    const show = (index) => {
      at = Math.min(Math.max(index, 0), rows.length - 1);
      cursor.setAttribute("d", `M${places[at]},${top}V${bottom}`);
      readout.textContent = heads.map((head, column) => `${head} ${format(rows[at][column])}`).join(" \\u00b7 ");
    };
    plot.addEventListener("pointermove", (event) => {
      const box = plot.getBoundingClientRect();
      const x = (event.clientX - box.left) / box.width * plot.viewBox.baseVal.width;
      let nearest = 0;
      places.forEach((place, index) => {
        if (Math.abs(places[nearest] - x) > Math.abs(place - x)) nearest = index;
      });
      show(nearest);
    });
    plot.setAttribute("tabindex", "0");
    plot.addEventListener("focus", () => show(at));
    plot.addEventListener("keydown", (event) => {
      const steps = {ArrowRight: 1, ArrowLeft: -1, PageDown: 10, PageUp: -10, Home: -1e9, End: 1e9};
      if (!(event.key in steps)) return;
      event.preventDefault();
      show(at + steps[event.key]);
    });
  }
}
"""
"""Shows the values of a figure below it, at the pointer or the keyboard's focus. A page works without it."""


def figure(
    name: str,
    title: str,
    sentence: str,
    pictures: tuple[str, str],
    values: Iterable[Sequence[str]],
    table: str,
    *,
    is_large: bool = False,
) -> str:
    """Return a figure as HTML.

    Args:
        name: Name of the file of the values, without the suffix.
        title: Title, as text.
        sentence: One or two sentences that say what the picture shows.
        pictures: The SVG elements for wide and for narrow screens.
        values: Rows of the file of the values; the first one has the heads.
        table: The values as an HTML table, for people who cannot see the picture.
        is_large: The wide picture needs 720 pixels, and not 480.
    """
    wide, narrow = pictures
    text = io.StringIO()
    csv.writer(text).writerows(values)
    address = "data:text/csv;charset=utf-8," + urllib.parse.quote(text.getvalue(), safe=",/:;()*!@")
    return (
        f'<figure class="chart{" large" if is_large else ""}"><figcaption><b>{html.escape(title)}</b>'
        f'<span class="quiet">{html.escape(sentence)}</span></figcaption>'
        f'<div class="wide">{wide}</div><div class="narrow">{narrow}</div>'
        '<p class="readout" aria-live="polite"></p>'
        f"<details><summary>Show as a table</summary>{table}"
        f'<p><a download="{name}.csv" href="{address}">Save the values as a CSV file</a></p></details></figure>'
    )


def plot_figure(plot: Plot, table: str) -> str:
    """Return a plot as a figure. ``table`` has its values as HTML."""
    narrow = dataclasses.replace(plot, name=f"{plot.name}-narrow")
    pictures = (render(plot), render(narrow, NARROW_PX, _NARROW_HEIGHT))
    return figure(plot.name, plot.title, plot.description, pictures, plot_values(plot), table)


def plot_values(plot: Plot) -> list[list[str]]:
    """Return the heads, then a row of values for every x at which a line has a point.

    A stepped line has a value from its first point on; any other line has values at its points, and is empty elsewhere.
    """
    # The script of the page splits at commas.
    heads = [_head(plot.x_title, plot.x_unit), *(_head(line.label, plot.y_unit) for line in plot.lines)]
    columns = [([x for x, _ in line.points], line) for line in plot.lines]
    at = sorted({x for line in plot.lines for x, _ in line.points})
    return [heads, *([f"{x:.10g}", *(_value(places, line, x) for places, line in columns)] for x in at)]


def _head(text: str, unit: str) -> str:
    plain = text.replace(",", "")
    return f"{plain} ({unit})" if unit else plain


def _value(places: list[float], line: PlotLine, x: float) -> str:
    after = bisect.bisect_right(places, x)
    is_constant = len({y for _, y in line.points}) == 1
    if after and (line.stepped or is_constant or places[after - 1] == x):
        return f"{line.points[after - 1][1]:.6g}"
    return ""
