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
    "CANCELLED": "brokers hand places over; in the simulation they do not",
    "HELD": "whoever comes back after a crash is told once more, and crashes are drawn anew",
    "SOLD_OUT": "who would look again after the test's window does not",
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
    market: Supply
    observations: Observations
    predicted: Metrics
    findings: tuple[CheckFinding, ...]
    limits: tuple[LimitCheck, ...]
    others: int = 0
    drawn: DrawRunResult | None = None

    @property
    def ok(self) -> bool:
        """True if there are no findings."""
        return not self.findings

    @property
    def headline(self) -> str:
        """One line about the opening."""
        return opening_line(len_of(self), self.market)

    def notes(self) -> list[str]:
        """Return notes that help to read the figures."""
        notes = []
        lag, lane = self.observations.lag_us.percentile(0.99), self.observations.user_wait_us.percentile(0.99)
        if lag > _LAG_US_FAIR:
            notes.append(
                f"The load generator itself was up to {duration(lag / 1000)} late, 99 of 100 requests: it has too "
                "little of a processor. Answers count from the moment at which people meant to press, so a faster one "
                "would show a shorter wait."
            )
        if lane > _LAG_US_FAIR:
            notes.append(
                f"99 of 100 requests waited up to {duration(lane / 1000)} for one of the {self.plan.options.users_max} "
                "lanes, while all carried one. That is a queue in front of the host, and counts as waiting: more "
                "lanes would let the same people wait inside it."
            )
        if self.plan.is_open:
            notes.append(
                "The days had been open before: second 0 is a moment of the test's own, and nobody came before it."
            )
        if self.plan.rooms:
            waiting = sum(count for name, count in self.observations.ends_by_role.items() if name.endswith("/waiting"))
            notes.append(
                f"People went through waiting rooms ({len(self.plan.rooms)}); the simulation has none, and shows the "
                f"same people without. {number(waiting)} were still waiting when the window ended, with their position."
            )
        if self.others:
            notes.append(f"{self.others} other reservations were made at the same offices meanwhile.")
        if self.drawn is not None:
            notes.append(
                f"Places were given away by the draw {self.plan.draw}. Its result was worked out again from the "
                "published files, and compared with what applicants were told. What was won is held for ten minutes."
            )
        if self.observations.capacities:
            notes.append("Operators changed capacities meanwhile; the simulation has the first ones throughout.")
        return notes

    def figures(self) -> list[ComparedFigure]:
        """Return every figure, with its prediction."""
        if self.drawn is not None:
            return self._figures_of_draw(self.drawn)
        measured, predicted, books = self.observations.metrics, self.predicted, self.observations
        capacity = self.market.capacity
        rows = [
            ComparedFigure("Places", "On sale", capacity, capacity),
            ComparedFigure("Places", "Sold", measured.confirmed, predicted.confirmed, why=self._why_sold()),
            ComparedFigure("Places", "Sold that do not exist", measured.oversold, predicted.oversold),
            ComparedFigure(
                "Places", "First told that all is gone after", measured.sold_out_us, predicted.sold_out_us, "us"
            ),
            ComparedFigure("People", "Came", len_of(self), predicted.applicants),
            ComparedFigure("People", "Got a place", measured.bookings, predicted.bookings),
            ComparedFigure("People", "Were refused", measured.refused, predicted.refused),
            ComparedFigure(
                "People", "Walked away from the form", measured.abandoned, predicted.abandoned, why="drawn anew"
            ),
            ComparedFigure(
                "People", "Crashed, and got the same hold back", measured.resumed, predicted.resumed, why="drawn anew"
            ),
            ComparedFigure(
                "People", "Have no final answer", books.unanswered_count + measured.gave_up, predicted.gave_up
            ),
            ComparedFigure("Requests", "Sent", measured.requests, predicted.requests, why=self._why_requests()),
            ComparedFigure("Requests", "Without an answer", measured.errors, predicted.errors),
            ComparedFigure("Requests", "Told to come back", measured.overloaded, predicted.overloaded),
            ComparedFigure("Requests", "Most answers in one second", measured.answers.peak, predicted.answers.peak),
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
        waiting = "Time from pressing to yes or no"
        why = self._why_waiting()
        for label, share in (("Half of all within", 0.5), ("99 of 100 within", 0.99), ("All within", 1.0)):
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

    def _figures_of_draw(self, drawn: DrawRunResult) -> list[ComparedFigure]:
        """Return the figures of a draw. Their predictions follow from the rules and the published files."""
        measured, receipts = self.observations.metrics, self.observations.receipts.values()
        totals, withdrawn = drawn.head.totals, sum(receipt.is_withdrawn for receipt in receipts)
        changed = sum(receipt.version > 1 and not receipt.is_withdrawn for receipt in receipts)
        rows = [
            ComparedFigure("Draw", "Places on sale", self.market.capacity, None),
            ComparedFigure("Draw", "People applied", len(receipts), None),
            ComparedFigure("Draw", "Changed what they applied for", changed, None),
            ComparedFigure("Draw", "Took it back", withdrawn, None),
            ComparedFigure("Draw", "Crashed, and found their application again", measured.resumed, None),
            ComparedFigure("Draw", "In the published list", totals.applications, len(receipts) - withdrawn),
            ComparedFigure("Draw", "Won", totals.winners, drawn.winners_again),
            ComparedFigure("Draw", "Winners who hold their place", len(drawn.references), totals.winners),
            ComparedFigure("Draw", "Got what they liked best", totals.by_preference[1] if totals.winners else 0, None),
            ComparedFigure("Requests", "Sent", measured.requests, None),
            ComparedFigure("Requests", "Without an answer", measured.errors, 0),
            ComparedFigure("Requests", "Told to come back", measured.overloaded, 0),
        ]
        rows += [
            ComparedFigure("Answers", status, count, None)
            for status, count in sorted(measured.answers_by_status.items())
        ]
        waiting = "Time from pressing to the receipt"
        rows += [
            ComparedFigure(waiting, label, measured.answer_us.percentile(share), None, "us")
            for label, share in (("Half of all within", 0.5), ("99 of 100 within", 0.99), ("All within", 1.0))
        ]
        return rows + self._figures_of_wire()

    def _figures_of_wire(self) -> list[ComparedFigure]:
        books, wire = self.observations, "Time of a request, and the load generator's lag"
        return [
            ComparedFigure(wire, "Request, half within", books.request_us.percentile(0.5), None, "us"),
            ComparedFigure(wire, "Request, p99", books.request_us.percentile(0.99), None, "us"),
            ComparedFigure(wire, "Sent late, p99", books.lag_us.percentile(0.99), None, "us"),
            ComparedFigure(wire, "Waited for a user, p99", books.user_wait_us.percentile(0.99), None, "us"),
        ]  # fmt: skip

    def _why_sold(self) -> str:
        if self.observations.metrics.confirmed == self.predicted.confirmed:
            return ""
        return "forms that are never sent, and crashes, are drawn anew; operators' changes are not simulated"

    def _why_requests(self) -> str:
        roles = {key.partition("/")[0] for key in self.observations.ends_by_role}
        extra = [f"{name}s" for name in ("bot", "broker") if name in roles]
        return f"{' and '.join(extra)} press as theirs do; in the simulation as applicants do" if extra else ""

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
                "GOOD    Nothing is wrong: no place was sold twice, none was lost, everybody has an answer.", "        "
            )
        return "\n".join(lines)


def len_of(verdict: LoadTestResult) -> int:
    """Return the number of people."""
    return verdict.predicted.applicants


def _wrapped(text: str, indent: str = "") -> list[str]:
    import textwrap

    return textwrap.wrap(text, WIDTH, subsequent_indent=indent)
