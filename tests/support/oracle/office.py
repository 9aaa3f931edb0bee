"""The state of the oracle's office, and the numbers that are counted from its records."""

from __future__ import annotations

from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import Reservation, Rules
from quota_engine.domain.outcomes import AbandonedHolds, QuotaView, Status
from tests.support.oracle.records import COUNTED_AS_CONFIRMED, SETTLED_HOLDS_MAX, Day, ExpectedOutcome, Record


class Office:
    """One office. ``clock_ms`` is the time of the last change."""

    def __init__(self, office: str, swept_max: int = SETTLED_HOLDS_MAX) -> None:
        self.office = office
        self.swept_max = swept_max
        self.rules = Rules()
        self.clock_ms = 0
        self.now_ms = 0
        self.days: dict[int, Day] = {}
        self.records: dict[str, Record] = {}
        """In the order of creation."""
        self.last_forgotten_day = 0
        self.blocks: list[tuple[str, int, str]] = []
        """The applicant and the end of each block, and the reservation of a no-show."""
        self.cancellations: list[tuple[str, int]] = []
        self.abandoned: list[tuple[str, int]] = []
        self.abandoned_counts = AbandonedHolds()

    def _step(self, record: Record, state: State) -> None:
        record.state = state
        record.version += 1
        self._changed()

    def _changed(self) -> None:
        self.clock_ms = self.now_ms

    def _note_free_units(self, day: Day) -> None:
        """Note which quotas have free units, and since when. Called after each change of them is complete."""
        for name, quota in day.quotas.items():
            has_free_unit = self._free(day, name) > 0
            if has_free_unit and not quota.had_free_unit:
                quota.free_since_ms = self.now_ms
            quota.had_free_unit = has_free_unit

    def _records_on(self, day: Day) -> list[Record]:
        return [record for record in self.records.values() if record.day == day.number]

    def _waiting(self, day: Day) -> list[Record]:
        waiting = [record for record in self._records_on(day) if record.state is State.WAITING]
        return sorted(waiting, key=lambda record: record.wait_list_number)

    def _held(self, day: Day, name: str) -> int:
        return sum(r.units for r in self._records_on(day) if name in r.quotas and r.state is State.HELD)

    def _confirmed(self, day: Day, name: str) -> int:
        return sum(r.units for r in self._records_on(day) if name in r.quotas and r.state in COUNTED_AS_CONFIRMED)

    def _cooling(self, day: Day, name: str) -> int:
        return sum(cooling.units for cooling in day.cooling if cooling.quota == name)

    def _free(self, day: Day, name: str) -> int:
        """Return the free units. A negative number is an overbooking."""
        taken = sum(
            r.units
            for r in self.records.values()
            if r.day == day.number and name in r.quotas and (r.state is State.HELD or r.state in COUNTED_AS_CONFIRMED)
        )
        return day.quotas[name].capacity - taken - self._cooling(day, name)

    def _overbooked(self, day: Day) -> int:
        return sum(max(-self._free(day, name), 0) for name in day.quotas)

    def _people_on(self, day: Day, name: str) -> int:
        """Return the units of people who hold, have confirmed or wait for a quota."""
        waiting = sum(r.units for r in self._waiting(day) if any(name in option for option in r.choice.options))
        return self._held(day, name) + self._confirmed(day, name) + waiting

    def _quota_view(self, day: Day, name: str, withheld: int) -> QuotaView:
        held, confirmed, cooling = self._held(day, name), self._confirmed(day, name), self._cooling(day, name)
        free = day.quotas[name].capacity - held - confirmed - cooling
        return QuotaView(
            capacity=day.quotas[name].capacity,
            available=max(free, 0),
            held=held,
            confirmed=confirmed,
            cooling=cooling,
            parked=sum(c.units for c in day.cooling if c.quota == name and c.due_at_ms is None),
            overbooked=max(-free, 0),
            withheld=min(max(free, 0), withheld),
        )

    def _as_reservation(self, record: Record) -> Reservation:
        """Return the record. An overdue hold is shown as expired, with the next version."""
        overdue = record.is_overdue(self.now_ms)
        return Reservation(
            office=self.office,
            id=record.id,
            day=record.day,
            applicants=record.applicants,
            choice=record.choice,
            quotas=record.quotas,
            state=State.EXPIRED if overdue else record.state,
            version=record.version + overdue,
            created_at_ms=record.created_at_ms,
            deadline_at_ms=record.deadline_at_ms,
            queue_number=record.numbers[0] if record.numbers else 0,
            moves=record.moves,
            forced_moves=record.forced_moves,
            extensions=record.extensions,
            wait_list_number=record.wait_list_number,
            declines=record.declines,
            paused_until_ms=record.paused_until_ms,
            undo_until_ms=record.undo_until_ms,
            former_applicants=record.former_applicants,
            queue_offsets=self._offsets(record.numbers),
        )

    def _offsets(self, numbers: tuple[int, ...]) -> tuple[int, ...]:
        """Return the distances to the first number, if there is a gap between the numbers."""
        has_gap = bool(numbers) and numbers[-1] - numbers[0] >= len(numbers)
        return tuple(number - numbers[0] for number in numbers) if has_gap else ()

    def _expect(
        self, status: Status, *records: Record, or_none: bool = False, replayed: bool = False, resumed: bool = False
    ) -> ExpectedOutcome:
        """Return an expected outcome that shows one of these records."""
        shown: tuple[Reservation | None, ...] = tuple(self._as_reservation(record) for record in records)
        left = max(self.rules.extensions_max - records[0].extensions, 0) if status is Status.HELD else 0
        return ExpectedOutcome(
            status,
            (*shown, None) if or_none or not shown else shown,
            replayed=replayed,
            resumed=resumed,
            extensions_left=left,
        )

    def _is_past(self, valid_until_ms: int) -> bool:
        return 0 < valid_until_ms < self.now_ms
