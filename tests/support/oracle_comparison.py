"""Comparison of the state machine with the oracle after each command, and checks of invariants."""

from __future__ import annotations

from collections.abc import Iterable

from quota_engine.domain.audit import audit
from quota_engine.domain.commands import Command, Publish, SetCapacity
from quota_engine.domain.event_handlers import rebuild
from quota_engine.domain.events import Cooled, DayForgotten, Event, ReservationChanged, UnitsReallocated
from quota_engine.domain.ledger import Ledger, describe
from quota_engine.domain.lifecycle import TRANSITIONS, Verb
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import DayView, Outcome, QuotaView
from quota_engine.domain.queries import abandoned_holds, lookup, view
from quota_engine.domain.state_machine import apply
from tests.support.command_source import Step, format_steps
from tests.support.oracle import Oracle

OFFICE = "SBY"
REPLAYED_EVERY = 8
"""Commands from one replay of all events to the next. The last command is followed by one, too."""


class OracleComparison:
    """Applies commands to both and compares outcomes, events and reads."""

    def __init__(self) -> None:
        self.ledger = Ledger(OFFICE)
        self.oracle = Oracle(OFFICE)
        self.steps: list[Step] = []
        self._ids: set[str] = set()
        self._days: set[int] = set()
        self.last_records: dict[str, Reservation] = {}
        """The newest record by id, without those of forgotten days."""
        self.queue_numbers_given: dict[int, set[int]] = {}

    def apply(self, now_ms: int, command: Command) -> Outcome:
        """Apply the command to both, compare, and check the invariants."""
        self.steps.append((now_ms, command))
        self._ids |= {command.id} if hasattr(command, "id") else set()
        self._days |= {command.day} if hasattr(command, "day") else set()
        events_before = len(self.ledger.events)
        overbooked_before = self._overbooked(now_ms)
        answer = self.oracle.apply(command, now_ms)
        outcome = apply(self.ledger, command, now_ms)
        objection = answer.difference_from(outcome)
        assert not objection, self._report(objection)
        self._check_events(self.ledger.events[events_before:], outcome)
        views = self._check_reads(now_ms)
        # Reads change nothing, so they are also compared at the next time at which the state changes by itself.
        self._check_reads(next((ms for ms in self.oracle.moments_ms() if ms > now_ms), now_ms + 1))
        self._check_balance(views, command, overbooked_before)
        counts = abandoned_holds(self.ledger)
        assert counts == self.oracle.abandoned_counts, self._report(f"{counts}, not {self.oracle.abandoned_counts}")
        # To replay all events after each command would take a third of the time of a walk. A later replay repeats all.
        self._check_audit(from_events=len(self.steps) % REPLAYED_EVERY == 0)
        return outcome

    def _check_audit(self, *, from_events: bool) -> None:
        findings = audit(self.ledger, from_events=from_events)
        assert findings == [], self._report(f"the audit finds {findings}")

    def check_rebuild(self) -> None:
        """Check that the events alone rebuild the ledger."""
        self._check_audit(from_events=True)
        again = rebuild(OFFICE, self.ledger.events)
        assert describe(again) == describe(self.ledger), self._report("the events rebuild a different ledger")

    # ------------------------------------------------------------------ after each step

    def _check_events(self, events: Iterable[Event], outcome: Outcome) -> None:
        own = 0
        for event in events:
            if isinstance(event, DayForgotten):
                self.last_records = {r.id: r for r in self.last_records.values() if r.day != event.day}
            elif isinstance(event, ReservationChanged):
                self._check_change(event)
                own += event.verb not in (Verb.EXPIRE, Verb.OFFER)
            elif not isinstance(event, Cooled | UnitsReallocated):
                own += 1
        if not outcome.ok or outcome.replayed or outcome.resumed:
            assert own == 0, self._report(f"{outcome.status} changed something: {self.ledger.events[-1]!r}")
        else:
            assert own <= 1, self._report("one command has two effects")
        times_ms = [event.at_ms for event in self.ledger.events]
        assert times_ms == sorted(times_ms), self._report("the events are not in order of time")
        last_ms = times_ms[-1] if times_ms else 0
        assert last_ms == self.oracle.clock_ms, self._report(
            f"the last change was at {last_ms} instead of {self.oracle.clock_ms}"
        )

    def _check_change(self, event: ReservationChanged) -> None:
        new = event.reservation
        old = self.last_records.get(new.id)
        step = (old.state if old else None, event.verb)
        assert TRANSITIONS.get(step) is new.state, self._report(f"no such step: {step} to {new.state}")
        assert new.version == (old.version if old else 0) + 1, self._report(f"a version is missing: {new!r}")
        self.last_records[new.id] = new
        if event.verb in (Verb.REMOVE_APPLICANT, Verb.REPLACE_APPLICANT):
            assert old is not None
            self._check_party_change(old, new)
        elif new.queue_number and (old is None or (old.day, old.queue_number) != (new.day, new.queue_number)):
            given = self.queue_numbers_given.setdefault(new.day, set())
            assert given.isdisjoint(new.queue_numbers), self._report(f"a queue number is given twice: {new!r}")
            given.update(new.queue_numbers)

    def _check_party_change(self, old: Reservation, new: Reservation) -> None:
        """Check that one applicant has left, and that all remaining ones keep their queue numbers."""
        before = dict(zip(old.applicants, old.queue_numbers, strict=False))
        after = dict(zip(new.applicants, new.queue_numbers, strict=False))
        stayed = set(old.applicants) & set(new.applicants)
        assert len(stayed) == len(old.applicants) - 1, self._report(f"not one applicant left: {new!r}")
        assert all(before.get(one) == after.get(one) for one in stayed), self._report(f"a number moved: {new!r}")
        assert set(after.values()) <= set(before.values()), self._report(f"a number is new: {new!r}")

    def _check_reads(self, now_ms: int) -> list[DayView]:
        """Compare all reads, and return the views of the ledger's days."""
        views: list[DayView] = []
        events_before = len(self.ledger.events)
        for name in sorted(self._ids):
            expected = self.oracle.lookup(name, now_ms)
            found = lookup(self.ledger, name, now_ms)
            assert found == expected, self._report(f"lookup {name!r} finds {found!r} instead of {expected!r}")
        for day in sorted(self._days):
            seen = view(self.ledger, day, now_ms)
            wanted = self.oracle.view(day, now_ms)
            assert seen == wanted, self._report(f"view {day} is {seen!r} instead of {wanted!r}")
            views += [seen] if seen else []
        assert len(self.ledger.events) == events_before, self._report("a read has changed the ledger")
        return views

    def _check_balance(
        self, views: list[DayView], command: Command, overbooked_before: dict[tuple[int, str], int]
    ) -> None:
        for seen in views:
            day = seen.day
            for name, quota in seen.quotas.items():
                self._check_quota(day, name, quota)
                # Only a lowered capacity may overbook, and a publication whose guards count earlier bookings.
                lowered = isinstance(command, SetCapacity) and (command.day, command.quota) == (day, name)
                declared = lowered or (isinstance(command, Publish) and command.day == day)
                assert declared or quota.overbooked <= overbooked_before.get((day, name), 0), self._report(
                    f"oversold: {day} {name} {quota!r}"
                )

    def _overbooked(self, now_ms: int) -> dict[tuple[int, str], int]:
        views = [seen for day in sorted(self._days) if (seen := view(self.ledger, day, now_ms))]
        return {(seen.day, name): quota.overbooked for seen in views for name, quota in seen.quotas.items()}

    def _check_quota(self, day: int, name: str, quota: QuotaView) -> None:
        where = f"{day} {name} {quota!r}"
        numbers = (
            quota.capacity,
            quota.available,
            quota.held,
            quota.confirmed,
            quota.cooling,
            quota.parked,
            quota.overbooked,
        )
        assert min(numbers) >= 0, self._report(f"a counter is negative: {where}")
        ends = quota.available + quota.held + quota.confirmed + quota.cooling
        assert quota.capacity + quota.overbooked == ends, self._report(f"conservation is violated: {where}")
        assert quota.parked <= quota.cooling, self._report(f"more parked than cooling: {where}")
        assert not (quota.available and quota.overbooked), self._report(f"sells while overbooked: {where}")

    # ------------------------------------------------------------------ helpers

    def _report(self, what: str) -> str:
        return f"{what}\n{format_steps(self.steps)}"


def check_steps(steps: Iterable[Step]) -> OracleComparison:
    """Apply the steps to an empty ledger with all checks, and rebuild the ledger after the last step."""
    side_by_side = OracleComparison()
    for now_ms, command in steps:
        side_by_side.apply(now_ms, command)
    side_by_side.check_rebuild()
    return side_by_side


def failure_report(steps: Iterable[Step]) -> str:
    """Return the failure of these steps, with the steps as a test, or ``""``."""
    try:
        check_steps(steps)
    except AssertionError as error:
        return str(error)
    return ""
