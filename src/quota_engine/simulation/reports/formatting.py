"""The figures of a simulation in words and units, once for the terminal and for the HTML report."""

from __future__ import annotations

__all__ = ["MetricRow", "comparison", "duration", "headline", "number", "opening_line"]

import dataclasses
import datetime
from collections.abc import Callable

from quota_engine.simulation.metrics import Metrics
from quota_engine.simulation.simulation import SimulationResult
from quota_engine.simulation.supply import Supply


@dataclasses.dataclass(frozen=True, slots=True)
class MetricRow:
    """One line of the comparison. ``old`` is empty without ``--baseline``; ``*_bad`` marks what should not be."""

    section: str
    label: str
    engine: str
    baseline: str = ""
    engine_bad: bool = False
    baseline_bad: bool = False


def number(value: float) -> str:
    """A whole number with thousands apart."""
    return f"{value:,.0f}"


def duration(milliseconds: float) -> str:
    """A duration in the unit that suits it: ``87 ms``, ``2.4 s``, ``12 min``, ``3.4 h``."""
    if milliseconds < 999.5:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes = seconds / 60
    if minutes < 99.5:
        return f"{minutes:.1f} min" if minutes < 9.95 else f"{minutes:.0f} min"
    return f"{minutes / 60:.1f} h"


def _many(count: int, noun: str) -> str:
    return f"{number(count)} {noun}{'' if count == 1 else 's'}"


def headline(result: SimulationResult) -> str:
    """What was simulated, in a sentence."""
    return opening_line(result.engine.applicants, result.prepared.supply)


def opening_line(applicants: int, supply: Supply) -> str:
    """How many come for how many places, where and when."""
    zone = datetime.timezone(datetime.timedelta(hours=7))
    opening = datetime.datetime.fromtimestamp(supply.opening_ms / 1000, zone)
    return (
        f"{_many(applicants, 'applicant')} for {_many(supply.capacity, 'place')} at "
        f"{_many(supply.offices, 'office')}, opened {opening:%A %d %B %Y, %H:%M} (UTC+7)"
    )


def comparison(result: SimulationResult) -> list[MetricRow]:
    """Every figure of the engine's run, and beside it the old application's."""

    def row(
        section: str, label: str, value: Callable[[Metrics], float], kind: str = "", bad: bool = False
    ) -> MetricRow:
        show = duration if kind == "us" else number
        scale = 1000 if kind == "us" else 1
        engine, old = value(result.engine), None if result.baseline is None else value(result.baseline)
        return MetricRow(
            section,
            label,
            show(engine / scale),
            "" if old is None else show(old / scale),
            bad and engine > 0,
            bad and old is not None and old > 0,
        )

    return [
        row("Places", "On sale", lambda run: run.capacity),
        row("Places", "Sold", lambda run: run.confirmed),
        row("Places", "Sold that do not exist", lambda run: run.oversold, bad=True),
        row("Places", "Left over", lambda run: run.unsold),
        row("Applicants", "Got a place", lambda run: run.bookings),
        row("Applicants", "Were refused", lambda run: run.refused),
        row("Applicants", "Walked away from the form", lambda run: run.abandoned),
        row("Applicants", "Gave up without an answer", lambda run: run.gave_up, bad=True),
        row("Applicants", "Were logged out at least once", lambda run: run.applicants_logged_out, bad=True),
        row("Applicants", "Booked twice, by pressing again", lambda run: run.double_booked, bad=True),
        row("Applicants", "Crashed, and got the same hold back", lambda run: run.resumed),
        row("Requests", "Sent", lambda run: run.requests),
        row("Requests", "Without an answer: refused or timed out", lambda run: run.errors, bad=True),
        row("Requests", "Asked to come back in a second", lambda run: run.overloaded),
        row("Requests", "Most answers in one second", lambda run: run.answers.peak),
        row("Requests", "Longest queue", lambda run: run.queue_max),
        row("Time to a yes or no", "Half of all within", lambda run: run.answer_us.percentile(0.5), "us"),
        row("Time to a yes or no", "99 of 100 within", lambda run: run.answer_us.percentile(0.99), "us"),
        row("Time to a yes or no", "All within", lambda run: run.answer_us.max, "us"),
        row("Time to the end", "Half of all within", lambda run: run.final_us.percentile(0.5), "us"),
        row("Time to the end", "Last of all after", lambda run: run.last_final_us, "us"),
    ]
