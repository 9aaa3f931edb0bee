"""Plots of ``docs/load-testing.md``, from the data that :mod:`quota_engine.loadtest.capacity` writes."""

from __future__ import annotations

__all__ = ["plots"]

from typing import Any, Final

from quota_engine.reporting.svg_plot import Plot, PlotLine, axis_end, nice_ticks, render

_LIMIT_MS: Final = 250
_BEFORE_S: Final = 2
_OWN: Final = 1_000
"""Label for one connection for each person, where the service itself sheds load."""
_STYLES: Final = ("engine thin", "engine", "old")
_RATES: Final = tuple(count * scale for scale in (100, 1000, 10_000, 100_000) for count in (1, 2, 5))


def plots(result: dict[str, Any]) -> dict[str, str]:
    """Return SVG pictures by name, without the suffix."""
    found = {"load-capacity": _capacity(result), "load-memory": _memory(result)}
    for kind, what in (("press", "press"), ("room", "join a waiting room")):
        found[f"load-bursts-{kind}"] = _bursts(result, kind, what)
    return {name: render(plot, 760, 340, standalone=True) + "\n" for name, plot in found.items()}


def _capacity(result: dict[str, Any]) -> Plot:
    rates = [step["rate"] for kind in ("press", "room") for step in result[kind]["steps"]]
    low, high = min(rates) * 0.9, max(rates) * 1.1
    lines = []
    for kind, label, style in (("press", "presses", "engine"), ("room", "joins of a waiting room", "old")):
        best: dict[float, float] = {}
        for step in result[kind]["steps"]:
            best[step["rate"]] = min(step["p99_ms"], best.get(step["rate"], step["p99_ms"]))
        lines.append(PlotLine(label, style, sorted(best.items())))
    lines.append(PlotLine("250 ms", "limit", [(low, _LIMIT_MS), (high, _LIMIT_MS)]))
    return Plot(
        name="load-capacity",
        title="How long 99 of 100 wait for their answer, by how many come each second",
        description="One worker and its store on one core.",
        lines=lines,
        x_range=(low, high),
        x_ticks=[(rate, f"{rate:,}") for rate in _RATES if low <= rate <= high],
        x_title="arrivals a second",
        y_max=1000,
        y_ticks=[(value, f"{value} ms") for value in (0, _LIMIT_MS, 500, 750, 1000)],
        x_is_log=True,
    )


def _bursts(result: dict[str, Any], kind: str, what: str) -> Plot:
    lines, most = [], 0.5
    bursts = [one for one in result[kind]["bursts"] if one["connections"] >= _OWN]
    for style, one in zip(_STYLES, bursts, strict=True):
        points = [(second - float(_BEFORE_S), p99 / 1000) for second, p99 in enumerate(one["seconds_p99_ms"])]
        most = max(most, *(value for _, value in points))
        lines.append(PlotLine(f"{one['factor']:g} times as many", style, points, stepped=True))
    last = len(bursts[0]["seconds_p99_ms"]) - _BEFORE_S
    return Plot(
        name=f"load-bursts-{kind}",
        title=f"A second in which 2, 5 and 10 times as many {what}",
        description="How long 99 of 100 wait of those who come in each second.",
        lines=lines,
        x_range=(-_BEFORE_S, last),
        x_ticks=[(second, f"{second}") for second in (-2, 0, 1, 5, 10) if second <= last],
        x_title="seconds since the burst began, at which they came",
        y_max=axis_end(most, 5),
        y_ticks=[(value, f"{value:g} s") for value in nice_ticks(0, axis_end(most, 5), 5)],
    )


def _memory(result: dict[str, Any]) -> Plot:
    lines, most, longest = [], 1.0, 1.0
    for kind, label, style in (("press", "presses", "engine"), ("room", "joins of a waiting room", "old")):
        bursts = [one for one in result[kind]["bursts"] if one["connections"] >= _OWN]
        values = [mib for one in bursts for mib in one["service_mib"]]
        points = [(number / 2, mib) for number, mib in enumerate(values)]
        most, longest = max(most, *values), max(longest, points[-1][0])
        lines.append(PlotLine(label, style, points))
    return Plot(
        name="load-memory",
        title="Memory of the service, over the three bursts in turn",
        description="The process that serves; the store has its own memory.",
        lines=lines,
        x_range=(0, longest),
        x_ticks=[(second, f"{second:g}") for second in nice_ticks(0, longest, 6)],
        x_title="seconds",
        y_max=axis_end(most),
        y_ticks=[(value, f"{value:g} MiB") for value in nice_ticks(0, axis_end(most), 4)],
    )
