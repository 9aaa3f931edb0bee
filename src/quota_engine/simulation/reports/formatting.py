"""Metrics of a simulation as rows of text, for the terminal and for the HTML report."""

from __future__ import annotations

__all__ = ["NO_FINDINGS", "MetricRow", "duration", "headline", "metric_rows", "number", "opening_line"]

import dataclasses
import datetime
from collections.abc import Callable
from typing import Final

from quota_engine.simulation.metrics import Metrics
from quota_engine.simulation.simulation import SimulationResult
from quota_engine.simulation.supply import Supply

NO_FINDINGS: Final = "The audit has no findings: no place was sold twice, and none was lost."


@dataclasses.dataclass(frozen=True, slots=True)
class MetricRow:
    """One row of the table. ``baseline`` is empty if there was no baseline run; ``*_bad`` marks a defect."""

    section: str
    label: str
    engine: str
    baseline: str = ""
    engine_bad: bool = False
    baseline_bad: bool = False


def number(value: float) -> str:
    """Return a whole number with separators of thousands."""
    return f"{value:,.0f}"


def duration(milliseconds: float) -> str:
    """Return a duration in a suitable unit: ``87 ms``, ``2.4 s``, ``12 min``, ``3.4 h``."""
    if milliseconds < 999.5:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes = seconds / 60
    if minutes < 99.5:
        return f"{minutes:.1f} min" if minutes < 9.95 else f"{minutes:.0f} min"
    return f"{minutes / 60:.1f} h"


def _count(count: int, noun: str) -> str:
    return f"{number(count)} {noun}{'' if count == 1 else 's'}"


def headline(result: SimulationResult) -> str:
    """Return a line that says what was simulated."""
    return opening_line(result.engine.applicants, result.prepared.supply)


def opening_line(applicants: int, supply: Supply) -> str:
    """Return a line with the numbers of applicants and places, and the moment of the opening."""
    zone = datetime.timezone(datetime.timedelta(hours=7))
    opening = datetime.datetime.fromtimestamp(supply.opening_ms / 1000, zone)
    return (
        f"{_count(applicants, 'applicant')} for {_count(supply.capacity, 'place')} at "
        f"{_count(supply.offices, 'office')}, opened {opening:%A %d %B %Y, %H:%M} (UTC+7)"
    )


def metric_rows(result: SimulationResult) -> list[MetricRow]:
    """Return every metric of the engine's run, next to the baseline's."""

    def row(
        section: str, label: str, value: Callable[[Metrics], float], unit: str = "", bad: bool = False
    ) -> MetricRow:
        show = duration if unit == "us" else number
        scale = 1000 if unit == "us" else 1
        engine, baseline = value(result.engine), None if result.baseline is None else value(result.baseline)
        return MetricRow(
            section,
            label,
            show(engine / scale),
            "" if baseline is None else show(baseline / scale),
            bad and engine > 0,
            bad and baseline is not None and baseline > 0,
        )

    return [
        row("Places", "On sale", lambda run: run.capacity),
        row("Places", "Sold", lambda run: run.confirmed),
        row("Places", "Oversold", lambda run: run.oversold, bad=True),
        row("Places", "Unsold", lambda run: run.unsold),
        row("Applicants", "Got a place", lambda run: run.bookings),
        row("Applicants", "Refused", lambda run: run.refused),
        row("Applicants", "Abandoned their hold", lambda run: run.abandoned),
        row("Applicants", "Gave up without an answer", lambda run: run.gave_up, bad=True),
        row("Applicants", "Logged out at least once", lambda run: run.applicants_logged_out, bad=True),
        row("Applicants", "Booked twice by retrying", lambda run: run.double_booked, bad=True),
        row("Applicants", "Resumed their hold after a crash", lambda run: run.resumed),
        row("Requests", "Sent", lambda run: run.requests),
        row("Requests", "Without an answer (refused, timed out)", lambda run: run.errors, bad=True),
        row("Requests", "Deferred for a second", lambda run: run.overloaded),
        row("Requests", "Most answers in a second", lambda run: run.answers.peak),
        row("Requests", "Longest queue", lambda run: run.queue_max),
        row("Time to the first yes or no", "Median", lambda run: run.answer_us.percentile(0.5), "us"),
        row("Time to the first yes or no", "99th percentile", lambda run: run.answer_us.percentile(0.99), "us"),
        row("Time to the first yes or no", "Maximum", lambda run: run.answer_us.max, "us"),
        row("Time to the final answer", "Median", lambda run: run.final_us.percentile(0.5), "us"),
        row("Time to the final answer", "Last one, from the opening", lambda run: run.last_final_us, "us"),
    ]
