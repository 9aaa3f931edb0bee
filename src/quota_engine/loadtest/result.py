"""Result of a load test: findings, figures and their distance from the prediction, as text, JSON and CSV."""

from __future__ import annotations

__all__ = ["CheckFinding", "ComparedFigure", "LimitCheck", "LoadTestResult"]

import csv
import dataclasses
import io
import itertools
from typing import Any, Final, NamedTuple

import msgspec

from quota_engine.loadtest.draw_run import DrawRunResult
from quota_engine.loadtest.observations import Observations
from quota_engine.loadtest.plan import LoadTestPlan
from quota_engine.simulation.metrics import Metrics
from quota_engine.simulation.reports.formatting import duration, number, opening_line
from quota_engine.simulation.scenario import Scenario
from quota_engine.simulation.supply import Supply

WIDTH: Final = 80
_LAG_US_FAIR: Final = 50_000
_WHY_STATUS: Final = {
    "CANCELLED": "only the test's brokers hand places over",
    "HELD": "people who crashed get it twice; crashes are random, drawn again",
    "SOLD_OUT": "people who would retry after the window stop",
    "WAITING": "the simulation has no waiting room",
}


class CheckFinding(NamedTuple):
    """A violated promise: its kind (oversold, duplicate, leak …) and a sentence."""

    kind: str
    text: str


class LimitCheck(NamedTuple):
    """A limit of the scenario and the measured value, ``None`` if it never occurred."""

    name: str
    limit: float
    measured: float | None
    what: str

    @property
    def kept(self) -> bool:
        """True if the measured value is within the limit."""
        return self.measured is not None and self.measured <= self.limit

    def sentence(self) -> str:
        """Return the limit as a sentence."""
        measured = "never" if self.measured is None else f"{self.measured:.4g}"
        return f"{self.name} is {self.limit:g}, measured {measured} {self.what}"


class ComparedFigure(NamedTuple):
    """A figure of the report.

    ``predicted`` is ``None`` where the simulation has none; ``why`` explains a difference. ``kind`` is ``count``,
    ``us``
    (microseconds) or ``s`` (seconds).
    """

    section: str
    label: str
    measured: float | None
    predicted: float | None
    kind: str = "count"
    why: str = ""

    def shown(self, value: float | None) -> str:
        """Return a value with its unit."""
        if value is None:
            return "-"
        if self.kind == "us":
            return duration(value / 1000)
        return f"{value:g} s" if self.kind == "s" else number(value)


@dataclasses.dataclass(frozen=True, slots=True)
class LoadTestResult:
    """Everything known after a test. ``others`` counts reservations at the same offices that are not of the test."""

    plan: LoadTestPlan
    scenario: Scenario
    supply: Supply
    observations: Observations
    predicted: Metrics
    findings: tuple[CheckFinding, ...]
    limits: tuple[LimitCheck, ...]
    others: int = 0
    draw_result: DrawRunResult | None = None

    @property
    def ok(self) -> bool:
        """True if there are no findings."""
        return not self.findings

    @property
    def headline(self) -> str:
        """One line about the opening."""
        return opening_line(len_of(self), self.supply)

    def notes(self) -> list[str]:
        """Return notes that help to read the figures."""
        notes = []
        lag, user_wait = self.observations.lag_us.percentile(0.99), self.observations.user_wait_us.percentile(0.99)
        if lag > _LAG_US_FAIR:
            notes.append(
                f"The load generator was late: p99 {duration(lag / 1000)}. It needs more processor time. Response "
                "times start at the moment at which people meant to act, so a faster generator would show shorter ones."
            )
        if user_wait > _LAG_US_FAIR:
            notes.append(
                f"Wait for one of the {self.plan.options.users_max} users: p99 {duration(user_wait / 1000)}. "
                "This queue counts as waiting; with more users, people would wait in the target."
            )
        if self.plan.is_open:
            notes.append(
                "The days were open before the test: second 0 is the start of the test, and everyone came after it."
            )
        if self.plan.rooms:
            waiting = sum(count for name, count in self.observations.ends_by_role.items() if name.endswith("/waiting"))
            notes.append(
                f"People went through {len(self.plan.rooms)} waiting rooms; the simulation has none. "
                f"{number(waiting)} people still waited at the end of the window, with a position."
            )
        if self.others:
            notes.append(f"{self.others} other reservations changed at the same offices during the test.")
        if self.draw_result is not None:
            notes.append(
                f"The draw {self.plan.draw} gave the places away. The test computed its result again from the "
                "published files, and compared it with the receipts. The winners' holds last ten minutes."
            )
        if self.observations.capacities:
            notes.append("Operators changed capacities during the test; the simulation keeps the first ones.")
        return notes

    def figures(self) -> list[ComparedFigure]:
        """Return every figure, with its prediction."""
        if self.draw_result is not None:
            return self._figures_of_draw(self.draw_result)
        measured, predicted, observations = self.observations.metrics, self.predicted, self.observations
        capacity = self.supply.capacity
        rows = [
            ComparedFigure("Places", "On sale", capacity, capacity),
            ComparedFigure("Places", "Sold", measured.confirmed, predicted.confirmed, why=self._why_sold()),
            ComparedFigure("Places", "Sold above capacity", measured.oversold, predicted.oversold),
            ComparedFigure("Places", "First SOLD_OUT after", measured.sold_out_us, predicted.sold_out_us, "us"),
            ComparedFigure("People", "Took part", len_of(self), predicted.applicants),
            ComparedFigure("People", "Got a place", measured.bookings, predicted.bookings),
            ComparedFigure("People", "Refused", measured.refused, predicted.refused),
            ComparedFigure(
                "People", "Abandoned the form", measured.abandoned, predicted.abandoned, why="random, drawn again"
            ),
            ComparedFigure(
                "People", "Crashed and found their hold", measured.resumed, predicted.resumed, why="random, drawn again"
            ),
            ComparedFigure(
                "People", "Without a final answer", observations.unanswered_count + measured.gave_up, predicted.gave_up
            ),
            ComparedFigure("Requests", "Sent", measured.requests, predicted.requests, why=self._why_requests()),
            ComparedFigure("Requests", "Without a response", measured.errors, predicted.errors),
            ComparedFigure("Requests", "Told to retry later", measured.overloaded, predicted.overloaded),
            ComparedFigure("Requests", "Most responses in one second", measured.answers.peak, predicted.answers.peak),
        ]
        statuses = sorted({*measured.answers_by_status, *predicted.answers_by_status})
        rows += [
            ComparedFigure(
                "Answers",
                status,
                measured.answers_by_status.get(status, 0),
                predicted.answers_by_status.get(status, 0),
                why=_WHY_STATUS.get(status, ""),
            )
            for status in statuses
        ]
        waiting = "Time to the first answer"
        why = self._why_waiting()
        for label, share in (("Median", 0.5), ("p99", 0.99), ("Maximum", 1.0)):
            rows.append(
                ComparedFigure(
                    waiting,
                    label,
                    measured.answer_us.percentile(share),
                    predicted.answer_us.percentile(share),
                    "us",
                    why if share == 0.5 else "",
                )
            )
        return rows + self._figures_of_wire()

    def _figures_of_draw(self, draw_result: DrawRunResult) -> list[ComparedFigure]:
        """Return the figures of a draw. Their predictions follow from the rules and the published files."""
        measured, receipts = self.observations.metrics, self.observations.receipts.values()
        totals, withdrawn = draw_result.head.totals, sum(receipt.is_withdrawn for receipt in receipts)
        changed = sum(receipt.version > 1 and not receipt.is_withdrawn for receipt in receipts)
        rows = [
            ComparedFigure("Draw", "Places on sale", self.supply.capacity, None),
            ComparedFigure("Draw", "People applied", len(receipts), None),
            ComparedFigure("Draw", "Changed their application", changed, None),
            ComparedFigure("Draw", "Withdrew their application", withdrawn, None),
            ComparedFigure("Draw", "Crashed and found their application", measured.resumed, None),
            ComparedFigure("Draw", "In the published list", totals.applications, len(receipts) - withdrawn),
            ComparedFigure("Draw", "Won", totals.winners, draw_result.winners_again),
            ComparedFigure("Draw", "Winners who hold their place", len(draw_result.references), totals.winners),
            ComparedFigure(
                "Draw", "Got their first preference", totals.by_preference[1] if totals.winners else 0, None
            ),
            ComparedFigure("Requests", "Sent", measured.requests, None),
            ComparedFigure("Requests", "Without a response", measured.errors, 0),
            ComparedFigure("Requests", "Told to retry later", measured.overloaded, 0),
        ]
        rows += [
            ComparedFigure("Answers", status, count, None)
            for status, count in sorted(measured.answers_by_status.items())
        ]
        waiting = "Time to the receipt"
        rows += [
            ComparedFigure(waiting, label, measured.answer_us.percentile(share), None, "us")
            for label, share in (("Median", 0.5), ("p99", 0.99), ("Maximum", 1.0))
        ]
        return rows + self._figures_of_wire()

    def _figures_of_wire(self) -> list[ComparedFigure]:
        observations, wire = self.observations, "Request durations and lag of the load generator"
        return [
            ComparedFigure(wire, "Request, median", observations.request_us.percentile(0.5), None, "us"),
            ComparedFigure(wire, "Request, p99", observations.request_us.percentile(0.99), None, "us"),
            ComparedFigure(wire, "Sent late, p99", observations.lag_us.percentile(0.99), None, "us"),
            ComparedFigure(wire, "Waited for a user, p99", observations.user_wait_us.percentile(0.99), None, "us"),
        ]  # fmt: skip

    def _why_sold(self) -> str:
        if self.observations.metrics.confirmed == self.predicted.confirmed:
            return ""
        return "abandoned forms and crashes are random; capacity changes are not simulated"

    def _why_requests(self) -> str:
        roles = {key.partition("/")[0] for key in self.observations.ends_by_role}
        extra = [f"{name}s" for name in ("bot", "broker") if name in roles]
        return (
            f"{' and '.join(extra)} follow their own scripts; in the simulation they act as applicants" if extra else ""
        )

    def _why_waiting(self) -> str:
        ways_ms = 2 * self.scenario.network[0].one_way_ms_median
        service_ms = self.observations.request_us.percentile(0.5) / 1000
        assumed_ms = self.scenario.front_end.service_us / 1000
        return (
            f"predicted with {ways_ms:g} ms of network there and back, and {assumed_ms:g} ms for a request; "
            f"here a request takes {service_ms:.1f} ms, network included"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the result for JSON."""
        options = msgspec.to_builtins(self.plan.options)
        return {
            "title": self.scenario.title,
            "run": self.plan.options.run,
            "ok": self.ok,
            "findings": [finding._asdict() for finding in self.findings],
            "limits": [{**limit._asdict(), "kept": limit.kept} for limit in self.limits],
            "notes": self.notes(),
            "opens_at_ms": self.plan.opens_at_ms,
            "was_open": self.plan.is_open,
            "processes": self.plan.shares,
            "office_days": len(self.plan.days),
            "options": options,
            "measured": self.observations.metrics.as_dict(),
            "predicted": self.predicted.as_dict(),
            "ends_by_role": dict(sorted(self.observations.ends_by_role.items())),
            "lost_by_reason": dict(self.observations.lost_by_reason),
            "figures": [figure._asdict() for figure in self.figures()],
        }

    def as_csv(self) -> str:
        """Return all figures as CSV. Times are in milliseconds."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(("section", "figure", "unit", "measured", "predicted", "why"))
        for figure in self.figures():
            scale, unit = (1000, "ms") if figure.kind == "us" else (1, "s" if figure.kind == "s" else "")
            values = ["" if value is None else value / scale for value in (figure.measured, figure.predicted)]
            rows.writerow((figure.section, figure.label, unit, *values, figure.why))
        return text.getvalue()

    def text(self) -> str:
        """Return the result as text of at most 80 columns."""
        lines = ["", self.scenario.title, *_wrapped(f"{self.headline}. Run {self.plan.options.run}.")]
        first = len(lines)
        for section, rows in itertools.groupby(self.figures(), key=lambda figure: figure.section):
            head = f"{section:<48}"
            is_first = len(lines) == first
            lines += ["", f"{head}{'measured':>16}{'predicted':>16}" if is_first else section]
            for row in rows:
                label = row.label if len(row.label) <= 44 else row.label[:43] + "…"
                lines.append(f"  {label:<46}{row.shown(row.measured):>16}{row.shown(row.predicted):>16}")
        lines.append("")
        for limit in self.limits:
            lines += _wrapped(f"{'kept  ' if limit.kept else 'BROKEN'}  {limit.sentence()}", "        ")
        for note in self.notes():
            lines += _wrapped(f"note    {note}", "        ")
        for finding in self.findings:
            lines += _wrapped(f"FOUND   {finding.kind}: {finding.text}", "        ")
        if self.ok:
            lines += _wrapped(
                "GOOD    All checks passed: no place was sold twice, none was lost, everyone has an answer.", "        "
            )
        return "\n".join(lines)


def len_of(result: LoadTestResult) -> int:
    """Return the number of people."""
    return result.predicted.applicants


def _wrapped(text: str, indent: str = "") -> list[str]:
    import textwrap

    return textwrap.wrap(text, WIDTH, subsequent_indent=indent)
