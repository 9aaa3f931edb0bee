"""The oracle: a naive implementation of one office, written from ``docs/rules.md`` and not from the code.

It keeps no counter and no index. It computes free units, claims and the wait list from all records each time. It shares
commands, terms and outcomes with the library, but no rules.

If the rules allow several equal records to be shown, :class:`ExpectedOutcome` has all of them.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Iterable
from typing import assert_never

from msgspec.structs import replace

from quota_engine.domain.commands import (
    Cancel,
    CheckIn,
    CloseDay,
    Command,
    Confirm,
    Decline,
    Expire,
    Extend,
    MarkNoShow,
    MoveIn,
    MoveOut,
    OpenDay,
    PrepareMove,
    Publish,
    ReallocateUnused,
    Release,
    ReleaseParked,
    RemoveApplicant,
    ReplaceApplicant,
    Reschedule,
    Reserve,
    SetCapacity,
    SetRules,
    Stay,
    UndoAttendance,
    UndoMove,
)
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import (
    Choice,
    IdentityLimit,
    QuotaTerms,
    ReReleaseRule,
    Reservation,
    Rules,
    SessionTerms,
)
from quota_engine.domain.outcomes import AbandonedHolds, DayView, Outcome, QuotaView, Status

SETTLED_HOLDS_MAX = 64
"""The most overdue holds that one command expires while it settles its day."""
OFFERS_MAX = 64
DEMANDS_MAX = 256

ENDED = (State.RELEASED, State.EXPIRED, State.CANCELLED, State.MOVED)
COUNTED_AS_CONFIRMED = (State.CONFIRMED, State.ATTENDED, State.NO_SHOW)


@dataclasses.dataclass
class Record:
    """A mutable reservation."""

    id: str
    day: int
    applicants: tuple[str, ...]
    choice: Choice
    created_at_ms: int
    quotas: tuple[str, ...] = ()
    state: State = State.WAITING
    version: int = 1
    deadline_at_ms: int = 0
    moves: int = 0
    forced_moves: int = 0
    extensions: int = 0
    wait_list_number: int = 0
    declines: int = 0
    paused_until_ms: int = 0
    undo_until_ms: int = 0
    former_applicants: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()
    """The queue numbers of the applicants."""

    @property
    def units(self) -> int:
        return len(self.applicants)

    @property
    def party(self) -> frozenset[str]:
        return frozenset(self.applicants)

    def is_overdue(self, now_ms: int) -> bool:
        return self.state is State.HELD and self.deadline_at_ms <= now_ms

    def is_claim(self, now_ms: int) -> bool:
        return self.state not in ENDED and not self.is_overdue(now_ms)


@dataclasses.dataclass
class Cooling:
    """Returned units that are not available yet. Units without a time are parked for the next draw."""

    quota: str
    units: int
    due_at_ms: int | None


@dataclasses.dataclass
class Quota:
    terms: QuotaTerms
    capacity: int
    free_since_ms: int = 0
    """The time at which it last had a free unit again after it had none."""
    had_free_unit: bool = True


def _is_counted_by(terms: QuotaTerms, choice: Choice) -> bool:
    if terms.guard is None:
        return False
    wanted = [
        (terms.guard.service, choice.service),
        (terms.guard.service_unit, choice.service_unit),
        (terms.guard.session, choice.session),
    ]
    return all(not name or name == own for name, own in wanted)


@dataclasses.dataclass
class Day:
    number: int
    opens_at_ms: int
    starts_at_ms: int
    ends_at_ms: int
    forget_at_ms: int
    quotas: dict[str, Quota]
    """In the order of the terms. Quotas that were added later follow."""
    sessions: tuple[SessionTerms, ...] = ()
    cooling: list[Cooling] = dataclasses.field(default_factory=list)
    closed: bool = False
    departed: int = 0
    revision: int = 0
    """Operators' changes, the publications included."""
    queue_number_next: int = 1
    last_wait_list_number: int = 0

    def session_ended(self, choice: Choice, now_ms: int) -> bool:
        return any(one.name == choice.session and one.ends_at_ms <= now_ms for one in self.sessions)

    def completed(self, choice: Choice) -> Choice:
        """Return the choice as it is stored: the guards that count it come last in each option."""
        counting = [name for name, quota in self.quotas.items() if _is_counted_by(quota.terms, choice)]
        if not counting or all(list(option[-len(counting) :]) == counting for option in choice.options):
            return choice
        options: list[tuple[str, ...]] = []
        for option in choice.options:
            full = (*[name for name in option if name not in counting], *counting)
            if full not in options:
                options.append(full)
        return replace(choice, options=tuple(options))

    def booking_ended(self, choice: Choice, now_ms: int) -> bool:
        return any(one.name == choice.session and one.book_until_ms <= now_ms for one in self.sessions)


@dataclasses.dataclass(frozen=True)
class ExpectedOutcome:
    """The outcome that the rules require. ``reservations`` are the permitted records, in most cases one."""

    status: Status
    reservations: tuple[Reservation | None, ...] = (None,)
    replayed: bool = False
    resumed: bool = False
    retry_at_ms: int = 0
    units: int = 0
    overbooked: int = 0
    revision: int = 0
    abandoned_holds_left: int | None = None
    blocked_until_ms: int = 0
    extensions_left: int = 0
    blocks_after_deadline_ms: int | None = None
    """If given, the block that is announced ends this long after the deadline of the shown hold."""

    def difference_from(self, outcome: Outcome) -> str:
        """Return the differences to the outcome in words, or ``""``."""
        wrong = [
            f"{field}={getattr(outcome, field)!r} instead of {getattr(self, field)!r}"
            for field in (
                "status",
                "replayed",
                "resumed",
                "retry_at_ms",
                "units",
                "overbooked",
                "revision",
                "abandoned_holds_left",
                "extensions_left",
            )
            if getattr(outcome, field) != getattr(self, field)
        ]
        blocked_until_ms = self.blocked_until_ms
        if self.blocks_after_deadline_ms is not None:
            blocked_until_ms = outcome.deadline_at_ms + self.blocks_after_deadline_ms
        if outcome.blocked_until_ms != blocked_until_ms:
            wrong.append(f"blocked_until_ms={outcome.blocked_until_ms} instead of {blocked_until_ms}")
        if outcome.reservation not in self.reservations:
            permitted = " or ".join(map(repr, self.reservations))
            wrong.append(f"reservation={outcome.reservation!r} instead of {permitted}")
        return "; ".join(wrong)


class Oracle:
    """One office. ``clock_ms`` is the time of the last change.

    It does not implement the further expiries of a reserve that lacks units. If more holds are overdue than one command
    settles, pass a ``swept_max`` that is never reached.
    """

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

    # ------------------------------------------------------------------ public methods

    def apply(self, command: Command, now_ms: int) -> ExpectedOutcome:
        """Apply one command and return its expected outcome."""
        self.forget_days(now_ms)
        for day in self._days_of(command):
            self._settle(day, command.limit if isinstance(command, Expire) else self.swept_max)
        expected = self._dispatch(command)
        for day in self.days.values():
            self._note_free_units(day)
        return expected

    def lookup(self, id: str, now_ms: int) -> Reservation | None:  # noqa: A002  (the name in the interface)
        self.now_ms = max(now_ms, self.clock_ms)
        record = self.records.get(id)
        if record is None or self.days[record.day].forget_at_ms <= now_ms:
            return None
        return self._as_reservation(record)

    def view(self, day_number: int, now_ms: int) -> DayView | None:
        """Return the settled day, without offers to the wait list."""
        self.now_ms = max(now_ms, self.clock_ms)
        if day_number not in self.days or self.days[day_number].forget_at_ms <= now_ms:
            return None
        # Only the day's records and counters can change. A deep copy takes longer than all other checks of a walk.
        projection = copy.copy(self)
        projection.records = {r.id: Record(**vars(r)) for r in self.records.values() if r.day == day_number}
        day = dataclasses.replace(self.days[day_number])
        day.quotas = {name: dataclasses.replace(quota) for name, quota in day.quotas.items()}
        day.cooling = list(day.cooling)
        projection._apply_due(day, limit=len(self.records))
        projection._note_free_units(day)
        return projection._day_view(day)

    def _day_view(self, day: Day) -> DayView:
        withheld = self._withheld_from_all(day)
        return DayView(
            day=day.number,
            opens_at_ms=day.opens_at_ms,
            starts_at_ms=day.starts_at_ms,
            ends_at_ms=day.ends_at_ms,
            closed=day.closed,
            waiting=len(self._waiting(day)),
            quotas={name: self._quota_view(day, name, withheld.get(name, 0)) for name in day.quotas},
            revision=day.revision,
            sessions=day.sessions,
        )

    def moments_ms(self) -> list[int]:
        """Return the times at which the state changes by time alone, in ascending order."""
        moments = {record.deadline_at_ms for record in self.records.values() if record.state is State.HELD}
        moments |= {until_ms for _, until_ms, _ in self.blocks}
        moments |= {record.undo_until_ms for record in self.records.values() if record.undo_until_ms}
        moments |= {at_ms + self.rules.abandoned_holds_window_ms for _, at_ms in self.abandoned}
        for day in self.days.values():
            moments |= {day.opens_at_ms, day.starts_at_ms, day.ends_at_ms, day.forget_at_ms}
            moments |= {moment for one in day.sessions for moment in (one.ends_at_ms, one.book_until_ms)}
            moments |= {cooling.due_at_ms for cooling in day.cooling if cooling.due_at_ms is not None}
            moments |= {quota.terms.reallocation.at_ms for quota in day.quotas.values() if quota.terms.reallocation}
            moments.add(day.starts_at_ms - self.rules.reschedule_before_ms)
            moments |= {one.free_since_ms + one.terms.re_release.blocks_ms for one in day.quotas.values()}
        moments |= {record.paused_until_ms for record in self.records.values() if record.paused_until_ms}
        return sorted(moments)

    # ------------------------------------------------------------------ time

    def forget_days(self, now_ms: int) -> None:
        """Forget the days whose time has come, as every command does, even one that admission refuses."""
        self.now_ms = max(now_ms, self.clock_ms)
        for day in [day for day in self.days.values() if day.forget_at_ms <= now_ms]:
            del self.days[day.number]
            for record in [record for record in self.records.values() if record.day == day.number]:
                del self.records[record.id]
            self.last_forgotten_day = max(self.last_forgotten_day, day.number)
            self._changed()

    def _days_of(self, command: Command) -> list[Day]:
        """Return the days to settle: the reservation's if the id is known, otherwise the command's.

        A step on an unknown id settles nothing. Neither does a publish that comes too late.
        """
        if isinstance(command, SetRules):
            return []
        if isinstance(command, Publish) and self._too_late_to_publish(command):
            return []
        known = self.records.get(command.id) if hasattr(command, "id") else None
        numbers = set()
        if known is not None:
            numbers.add(known.day)
            if isinstance(command, Reschedule):
                numbers.add(command.day)
        elif isinstance(command, Reserve | MoveIn) and self._is_past(command.valid_until_ms):
            pass
        elif not isinstance(
            command,
            Confirm
            | Extend
            | RemoveApplicant
            | ReplaceApplicant
            | Release
            | Decline
            | Cancel
            | CheckIn
            | MarkNoShow
            | UndoAttendance
            | Reschedule
            | PrepareMove
            | Stay
            | MoveOut
            | UndoMove,
        ):
            numbers.add(command.day)
        return [self.days[number] for number in sorted(numbers) if number in self.days]

    def _settle(self, day: Day, limit: int) -> None:
        """Settle the day, and then offer free units to the wait list."""
        self._apply_due(day, limit)
        self._serve_wait_list(day)

    def _apply_due(self, day: Day, limit: int) -> None:
        self.expired_by_settling = 0
        overdue = [record for record in self._records_on(day) if record.is_overdue(self.now_ms)]
        for record in sorted(overdue, key=lambda record: (",".join(record.quotas), record.deadline_at_ms, record.id))[
            :limit
        ]:
            self._expire(record, day)
            self.expired_by_settling += 1
        due = [cooling for cooling in day.cooling if cooling.due_at_ms is not None and cooling.due_at_ms <= self.now_ms]
        for cooling in due:
            day.cooling.remove(cooling)
            self._changed()
        self._reallocate_due(day)

    def _expire(self, record: Record, day: Day) -> None:
        self._step(record, State.EXPIRED)
        self._return_units(record, day, record.quotas, record.deadline_at_ms)
        if not day.closed:
            self._abandon(record, record.deadline_at_ms)

    def _changed(self) -> None:
        self.clock_ms = self.now_ms

    def _note_free_units(self, day: Day) -> None:
        """Note which quotas have free units, and since when. Called after each change of them is complete."""
        for name, quota in day.quotas.items():
            has_free_unit = self._free(day, name) > 0
            if has_free_unit and not quota.had_free_unit:
                quota.free_since_ms = self.now_ms
            quota.had_free_unit = has_free_unit

    # ------------------------------------------------------------------ counting

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
        taken = self._held(day, name) + self._confirmed(day, name) + self._cooling(day, name)
        return day.quotas[name].capacity - taken

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

    # ------------------------------------------------------------------ units that move

    def _step(self, record: Record, state: State) -> None:
        record.state = state
        record.version += 1
        self._changed()

    def _return_units(
        self, record: Record, day: Day, quotas: Iterable[str], from_ms: int, units: int | None = None
    ) -> None:
        """Return units of ``quotas``: they reduce the overbooking first, and the quota's rule applies to the rest."""
        units = record.units if units is None else units
        for name in quotas:
            overbooked_before = max(-(self._free(day, name) - units), 0)
            rest = units - min(units, overbooked_before)
            re_release = day.quotas[name].terms.re_release
            if rest and re_release.rule is ReReleaseRule.COOLING:
                key = f"{self.rules.jitter_seed}:{record.id}:{record.version}:{name}"
                digest = hashlib.sha1(key.encode(), usedforsecurity=False).hexdigest()
                jitter_ms = int(digest[:12], 16) % (re_release.jitter_ms + 1)
                day.cooling.append(Cooling(name, rest, from_ms + re_release.cooling_ms + jitter_ms))
            elif rest and re_release.rule is ReReleaseRule.NEXT_DRAW:
                day.cooling.append(Cooling(name, rest, None))

    def _distribute(self, day: Day) -> None:
        """Reallocate free units that are due, and then serve the wait list."""
        self._reallocate_due(day)
        self._serve_wait_list(day)

    def _reallocate_due(self, day: Day) -> None:
        for name, quota in day.quotas.items():
            if quota.terms.reallocation is not None and quota.terms.reallocation.at_ms <= self.now_ms:
                self._reallocate(day, name)

    def _serve_wait_list(self, day: Day) -> None:
        self._note_free_units(day)
        offers = 0
        withheld: dict[str, int] = {}
        for record in self._served(day):
            option = self._first_fitting(day, record.choice, record.units, (), withheld)
            if option is None:
                self._withhold(day, record, withheld)
            elif offers < OFFERS_MAX:
                offers += 1
                record.quotas = option
                record.deadline_at_ms = self.now_ms + self.rules.offer_ttl_ms
                record.paused_until_ms = 0
                self._step(record, State.HELD)
                self._note_free_units(day)

    def _served(self, day: Day) -> list[Record]:
        """Return the waiting parties that can get an offer now, in their order."""
        if not day.opens_at_ms <= self.now_ms < day.ends_at_ms or day.closed:
            return []
        return [
            record
            for record in self._waiting(day)
            if record.paused_until_ms <= self.now_ms
            and self._can_wait_for(day, record.choice)
            and not day.booking_ended(record.choice, self.now_ms)
        ]

    def _withhold(self, day: Day, record: Record, withheld: dict[str, int]) -> None:
        """Withhold units for a party that does not fit."""
        for name in {name for option in record.choice.options for name in option}:
            quota = day.quotas[name]
            if name not in withheld and self.now_ms < quota.free_since_ms + quota.terms.re_release.blocks_ms:
                withheld[name] = record.units

    def _withheld_from_all(self, day: Day) -> dict[str, int]:
        """Return the units that only their party gets. Offers that are still due withhold nothing here."""
        withheld: dict[str, int] = {}
        for record in self._served(day):
            if self._first_fitting(day, record.choice, record.units, (), withheld) is not None:
                return {}
            self._withhold(day, record, withheld)
        return withheld

    def _first_for_newcomer(
        self, day: Day, choice: Choice, units: int, owned: tuple[str, ...] = ()
    ) -> tuple[str, ...] | None:
        """Return the first option with units that no waiting party can use, and that are withheld for none."""
        for record in self._served(day):
            if self._first_fitting(day, record.choice, record.units, (), self._withheld_before(day, record)):
                return None
        return self._first_fitting(day, choice, units, owned, self._withheld_from_all(day))

    def _withheld_before(self, day: Day, party: Record) -> dict[str, int]:
        withheld: dict[str, int] = {}
        for record in self._served(day):
            if record is party:
                break
            self._withhold(day, record, withheld)
        return withheld

    def _reallocate(self, day: Day, name: str) -> int:
        reallocation = day.quotas[name].terms.reallocation
        units = max(self._free(day, name), 0)
        if reallocation is None or not units:
            return 0
        day.quotas[name].capacity -= units
        day.quotas[reallocation.to].capacity += units
        self._changed()
        return units

    def _first_fitting(
        self, day: Day, choice: Choice, units: int, owned: tuple[str, ...], withheld: dict[str, int]
    ) -> tuple[str, ...] | None:
        for option in choice.options:
            if all(name in owned or self._free(day, name) - withheld.get(name, 0) >= units for name in option):
                return option
        return None

    def _can_wait_for(self, day: Day, choice: Choice) -> bool:
        names = {name for option in choice.options for name in option}
        return any(day.quotas[name].terms.re_release.rule is ReReleaseRule.WAIT_LIST for name in names)

    # ------------------------------------------------------------------ identities

    def _conflicting_claims(
        self, applicants: Iterable[str], day: Day, except_record: Record | None = None
    ) -> list[Record]:
        """Return the claims that use up a limit of one of the applicants, or an empty list."""
        conflicting = []
        for applicant in applicants:
            # A hundred claims at the office reach the limit under any rules.
            for limit in (IdentityLimit(100, 0), *self.rules.identity_limits):
                claims = [
                    record
                    for record in self.records.values()
                    if record is not except_record
                    and applicant in record.applicants
                    and record.is_claim(self.now_ms)
                    and not self.days[record.day].closed
                    and not self._waits_in_vain(record)
                    and (limit.span_days == 0 or abs(record.day - day.number) < limit.span_days)
                ]
                if len(claims) >= limit.places_max:
                    conflicting += claims
        return conflicting

    def _waits_in_vain(self, record: Record) -> bool:
        """Return True if the party waits for a day that is over, or for a session that can no longer be booked."""
        day = self.days[record.day]
        is_over = day.ends_at_ms <= self.now_ms or day.booking_ended(record.choice, self.now_ms)
        return record.state is State.WAITING and is_over

    def _blocked_until(self, applicants: Iterable[str]) -> int:
        """Return the end of the latest block of the applicants; 0 if none is blocked."""
        ends = [until_ms for who, until_ms, _ in self.blocks if who in applicants]
        return max((end for end in ends if self.now_ms < end), default=0)

    def _block(self, applicant: str, duration_ms: int, no_show: str = "") -> None:
        self.blocks.append((applicant, self.now_ms + duration_ms, no_show))

    def _abandon(self, record: Record, ended_at_ms: int, leaving: tuple[str, ...] = ()) -> None:
        """Count a hold that ended without a confirm."""
        counts, rules = self.abandoned_counts, self.rules
        if leaving:
            pass  # the hold continues without the applicant
        elif record.state is State.EXPIRED:
            self.abandoned_counts = replace(counts, expired=counts.expired + 1)
        else:
            self.abandoned_counts = replace(counts, released=counts.released + 1)
        if not rules.abandoned_holds_max:
            return
        # New lists, because the projection of a view shares the old ones.
        forgotten_ms = self.now_ms - rules.abandoned_holds_window_ms - rules.abandoned_holds_block_ms
        for applicant in leaving or record.applicants:
            kept = [(who, at) for who, at in self.abandoned if who != applicant or at > forgotten_ms]
            self.abandoned = [*kept, (applicant, ended_at_ms)]
            ends_ms = [at_ms for who, at_ms in self.abandoned if who == applicant]
            before_ms = max((until_ms for who, until_ms, _ in self.blocks if who == applicant), default=0)
            blocks_ms = [
                end_ms + rules.abandoned_holds_block_ms
                for end_ms in ends_ms
                if end_ms >= ended_at_ms
                and sum(end_ms - rules.abandoned_holds_window_ms < one <= end_ms for one in ends_ms)
                > rules.abandoned_holds_max
            ]
            self.blocks = [*self.blocks, *((applicant, until_ms, "") for until_ms in blocks_ms)]
            if max(blocks_ms, default=0) > before_ms:
                self.abandoned_counts = replace(self.abandoned_counts, blocks=self.abandoned_counts.blocks + 1)

    def _expire_own_holds(self, applicants: Iterable[str]) -> None:
        """Expire the overdue holds of these applicants on all days, so that time decides about their block."""
        if not self.rules.abandoned_holds_max:
            return
        party = set(applicants)
        own = [record for record in self.records.values() if record.is_overdue(self.now_ms) and party & record.party]
        for record in sorted(own, key=lambda record: (record.deadline_at_ms, record.id)):
            self._expire(record, self.days[record.day])
        for number in sorted({record.day for record in own}):
            self._distribute(self.days[number])

    def _announce(self, expected: ExpectedOutcome, record: Record) -> ExpectedOutcome:
        """Add how many more holds the party may abandon, if one of them has abandoned any within the window."""
        limit = self.rules.abandoned_holds_max
        window_starts_at_ms = self.now_ms - self.rules.abandoned_holds_window_ms
        recent = [who for who, at_ms in self.abandoned if window_starts_at_ms < at_ms <= self.now_ms]
        counts = [recent.count(applicant) for applicant in record.applicants]
        if not limit or not any(counts):
            return expected
        left = max(limit - max(counts), 0)
        if record.state is State.HELD:
            block_ms = None if left else self.rules.abandoned_holds_block_ms
            return dataclasses.replace(expected, abandoned_holds_left=left, blocks_after_deadline_ms=block_ms)
        until_ms = self._blocked_until(record.applicants)
        return dataclasses.replace(expected, abandoned_holds_left=left, blocked_until_ms=until_ms)

    # ------------------------------------------------------------------ answers

    def _dispatch(self, command: Command) -> ExpectedOutcome:
        match command:
            case Reserve():
                return self._reserve(command)
            case Confirm():
                return self._confirm(command)
            case Extend():
                return self._extend(command)
            case RemoveApplicant():
                return self._remove_applicant(command)
            case ReplaceApplicant():
                return self._replace_applicant(command)
            case Release():
                return self._release(command)
            case Decline():
                return self._decline(command)
            case Cancel():
                return self._cancel(command)
            case CheckIn() | MarkNoShow():
                return self._record_attendance(command)
            case UndoAttendance():
                return self._undo_attendance(command)
            case Reschedule():
                return self._reschedule(command)
            case Stay():
                return self._stay(command)
            case PrepareMove():
                return self._prepare_move(command)
            case MoveIn():
                return self._move_in(command)
            case MoveOut() | UndoMove():
                return self._move_out(command)
            case Publish():
                return self._publish(command)
            case SetRules():
                replayed = self.rules == command.rules
                if self.rules.jitter_seed and command.rules.jitter_seed not in ("", self.rules.jitter_seed):
                    return ExpectedOutcome(Status.CONFLICT)
                if not replayed:
                    self.rules = command.rules
                    self._changed()
                return ExpectedOutcome(Status.DONE, replayed=replayed)
            case Expire() | CloseDay() | OpenDay():
                day = self.days.get(command.day)
                if day is None:
                    return ExpectedOutcome(Status.UNKNOWN_DAY)
                if isinstance(command, Expire):
                    return ExpectedOutcome(Status.DONE, units=self.expired_by_settling)
                return self._close_or_open(day, command)
            case SetCapacity() | ReallocateUnused() | ReleaseParked():
                day = self.days.get(command.day)
                if day is None:
                    return ExpectedOutcome(Status.UNKNOWN_DAY)
                if command.quota not in day.quotas:
                    return ExpectedOutcome(Status.UNKNOWN_QUOTA)
                return self._on_quota(command, day)
            case _:
                assert_never(command)

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

    def _reserve(self, command: Reserve) -> ExpectedOutcome:
        known = self.records.get(command.id)
        party = frozenset(command.applicants)
        units = len(party)
        if known is not None:
            return self._replay(known, command)
        if self._is_past(command.valid_until_ms):
            return ExpectedOutcome(Status.COMMAND_EXPIRED)
        day = self.days.get(command.day)
        if day is None:
            return ExpectedOutcome(Status.UNKNOWN_DAY)
        if not all(name in day.quotas for option in command.choice.options for name in option):
            return ExpectedOutcome(Status.UNKNOWN_QUOTA)
        if day.closed:
            return ExpectedOutcome(Status.DAY_CLOSED)
        if day.ends_at_ms <= self.now_ms:
            return ExpectedOutcome(Status.DAY_OVER)
        if day.booking_ended(command.choice, self.now_ms):
            return ExpectedOutcome(Status.SESSION_OVER)
        if self.now_ms < day.opens_at_ms:
            return ExpectedOutcome(Status.NOT_OPEN, retry_at_ms=day.opens_at_ms)
        if units > self.rules.party_max:
            return ExpectedOutcome(Status.PARTY_TOO_LARGE)
        self._expire_own_holds(party)
        if blocked_until_ms := self._blocked_until(party):
            return ExpectedOutcome(Status.BLOCKED, retry_at_ms=blocked_until_ms)
        own = [
            record
            for record in self._records_on(day)
            if record.party == party and record.state in (State.WAITING, State.HELD) and record.is_claim(self.now_ms)
            if not self._waits_in_vain(record)
        ]
        if own:
            # There is more than one only after a hold was rescheduled to this day. Status and record belong together.
            state = own[0].state
            expected = self._expect(Status(state), *(record for record in own if record.state is state), resumed=True)
            return self._announce(expected, own[0]) if state is State.HELD else expected
        if conflicting := self._conflicting_claims(party, day):
            same_party = [record for record in conflicting if record.party == party]
            return self._expect(Status.IDENTITY_LIMIT, *same_party, or_none=len(same_party) < len(conflicting))

        choice = day.completed(command.choice)
        record = Record(command.id, day.number, command.applicants, choice, created_at_ms=self.now_ms)
        option = self._first_for_newcomer(day, choice, units)
        if option is not None:
            record.state = State.HELD
            record.quotas = option
            record.deadline_at_ms = self.now_ms + (command.hold_ttl_ms or self.rules.hold_ttl_ms)
        elif not command.join_wait_list or not self._can_wait_for(day, choice):
            return ExpectedOutcome(Status.SOLD_OUT)
        elif len(self._waiting(day)) >= self.rules.wait_list_max or self._has_too_many_demands(
            day, command.choice, units
        ):
            return ExpectedOutcome(Status.WAIT_LIST_FULL)
        else:
            day.last_wait_list_number += 1
            record.wait_list_number = day.last_wait_list_number
        self.records[record.id] = record
        self._changed()
        expected = self._expect(Status(record.state), record)
        return self._announce(expected, record) if record.state is State.HELD else expected

    def _is_wait_list_full(self, day: Day) -> bool:
        return len(self._waiting(day)) >= self.rules.wait_list_max

    def _has_too_many_demands(self, day: Day, choice: Choice, units: int) -> bool:
        demands = {(one.choice, one.units) for one in self._waiting(day) if one.paused_until_ms <= self.now_ms}
        return len(demands) >= DEMANDS_MAX and (day.completed(choice), units) not in demands

    def _replay(self, known: Record, command: Reserve | MoveIn) -> ExpectedOutcome:
        party = frozenset(command.applicants)
        was_of_party = bool(known.former_applicants) and party <= known.party | frozenset(known.former_applicants)
        if known.party != party and not was_of_party:
            return ExpectedOutcome(Status.CONFLICT)
        same = known.choice in (command.choice, self.days[known.day].completed(command.choice))
        if known.moves == 0 and not (same and known.day == command.day):
            return self._expect(Status.CONFLICT, known, or_none=True)
        if known.state in ENDED or known.is_overdue(self.now_ms):
            return self._expect(Status.RESERVATION_ENDED, known, replayed=True)
        expected = self._expect(Status(known.state), known, replayed=True)
        if known.state is State.HELD:
            self._expire_own_holds(known.applicants)
            return self._announce(expected, known)
        return expected

    def _is_past(self, valid_until_ms: int) -> bool:
        return 0 < valid_until_ms < self.now_ms

    def _prepare_move(self, command: PrepareMove) -> ExpectedOutcome:
        record = self.records.get(command.id)
        if record is None:
            return ExpectedOutcome(Status.NOT_FOUND)
        if command.owner and command.owner not in record.applicants:
            return ExpectedOutcome(Status.NOT_OWNER)
        if record.state is State.EXPIRED or record.is_overdue(self.now_ms):
            return self._expect(Status.HOLD_EXPIRED, record)
        if command.expected_version and command.expected_version != record.version:
            return self._expect(Status.STALE, record)
        if record.state not in (State.HELD, State.CONFIRMED):
            return self._expect(Status.WRONG_STATE, record)
        return self._expect(self._move_refusal(record) or Status(record.state), record)

    def _stay(self, command: Stay) -> ExpectedOutcome:
        record = self.records.get(command.id)
        if record is None:
            return ExpectedOutcome(Status.NOT_FOUND)
        if command.owner and command.owner not in record.applicants:
            return ExpectedOutcome(Status.NOT_OWNER)
        if record.state is State.EXPIRED or record.is_overdue(self.now_ms):
            return self._expect(Status.HOLD_EXPIRED, record)
        if command.expected_version not in (0, record.version):
            return self._expect(Status.STALE, record)
        if record.state is not State.CONFIRMED or not self.days[record.day].closed:
            return self._expect(Status.WRONG_STATE, record)
        self._step(record, State.CONFIRMED)
        return self._expect(Status.CONFIRMED, record)

    def _move_refusal(self, record: Record) -> Status | None:
        """Return the status that keeps a reservation on its day. Nothing keeps it on a closed one."""
        day = self.days[record.day]
        if day.closed:
            return None
        if record.state is State.CONFIRMED and self.now_ms > day.starts_at_ms - self.rules.reschedule_before_ms:
            return Status.TOO_LATE
        counted = record.moves - record.forced_moves
        return Status.MOVES_EXCEEDED if counted >= self.rules.reschedules_max else None

    def _move_in(self, command: MoveIn) -> ExpectedOutcome:
        known = self.records.get(command.id)
        if known is not None:
            return self._replay(known, command)
        if self._is_past(command.valid_until_ms):
            return ExpectedOutcome(Status.COMMAND_EXPIRED)
        day = self.days.get(command.day)
        if day is None:
            return ExpectedOutcome(Status.UNKNOWN_DAY)
        if not all(name in day.quotas for option in command.choice.options for name in option):
            return ExpectedOutcome(Status.UNKNOWN_QUOTA)
        confirmed = command.deadline_at_ms == 0
        if not confirmed and command.deadline_at_ms <= self.now_ms:
            return ExpectedOutcome(Status.HOLD_EXPIRED)
        if day.closed:
            return ExpectedOutcome(Status.DAY_CLOSED)
        if day.ends_at_ms <= self.now_ms:
            return ExpectedOutcome(Status.DAY_OVER)
        if day.booking_ended(command.choice, self.now_ms):
            return ExpectedOutcome(Status.SESSION_OVER)
        if self.now_ms < day.opens_at_ms:
            return ExpectedOutcome(Status.NOT_OPEN, retry_at_ms=day.opens_at_ms)
        party = frozenset(command.applicants)
        if len(party) > self.rules.party_max:
            return ExpectedOutcome(Status.PARTY_TOO_LARGE)
        self._expire_own_holds(party)
        if blocked_until_ms := self._blocked_until(party):
            return ExpectedOutcome(Status.BLOCKED, retry_at_ms=blocked_until_ms)
        if conflicting := self._conflicting_claims(party, day):
            same_party = [record for record in conflicting if record.party == party]
            return self._expect(Status.IDENTITY_LIMIT, *same_party, or_none=len(same_party) < len(conflicting))
        choice = day.completed(command.choice)
        option = self._first_for_newcomer(day, choice, len(party))
        if option is None:
            return ExpectedOutcome(Status.SOLD_OUT)
        record = Record(
            command.id,
            day.number,
            command.applicants,
            choice,
            self.now_ms,
            option,
            State.CONFIRMED if confirmed else State.HELD,
            deadline_at_ms=command.deadline_at_ms,
            moves=command.moves,
            forced_moves=command.forced_moves,
            extensions=command.extensions,
        )
        if confirmed:
            self._assign_queue_numbers(record, day)
        self.records[record.id] = record
        self._changed()
        return self._expect(Status(record.state), record)

    def _move_out(self, command: MoveOut | UndoMove) -> ExpectedOutcome:
        goal = State.MOVED if isinstance(command, MoveOut) else State.RELEASED
        record = self.records.get(command.id)
        if record is None:
            return ExpectedOutcome(Status.NOT_FOUND)
        if command.owner and command.owner not in record.applicants:
            return ExpectedOutcome(Status.NOT_OWNER)
        if record.state is goal:
            return self._expect(Status(goal), record, replayed=True)
        if record.state is State.EXPIRED or record.is_overdue(self.now_ms):
            return self._expect(Status.HOLD_EXPIRED, record)
        if command.expected_version and command.expected_version != record.version:
            return self._expect(Status.STALE, record)
        if record.state not in (State.HELD, State.CONFIRMED):
            return self._expect(Status.WRONG_STATE, record)
        day = self.days[record.day]
        self._depart(record, day)
        self._step(record, goal)
        self._return_units(record, day, record.quotas, self.now_ms)
        answer = self._expect(Status(goal), record)
        self._distribute(day)
        return answer

    def _confirm(self, command: Confirm) -> ExpectedOutcome:
        record = self.records.get(command.id)
        if record is None:
            return ExpectedOutcome(Status.NOT_FOUND)
        day = self.days[record.day]
        if command.owner and command.owner not in record.applicants:
            return ExpectedOutcome(Status.NOT_OWNER)
        if record.state is State.CONFIRMED:
            return self._expect(Status.CONFIRMED, record, replayed=True)
        if record.state is State.EXPIRED or record.is_overdue(self.now_ms):
            if command.reacquire and self._is_past(command.valid_until_ms):
                return self._expect(Status.COMMAND_EXPIRED, record)
            if command.reacquire:
                self._expire_own_holds(record.applicants)
            is_known = all(name in day.quotas for option in record.choice.options for name in option)
            option = self._first_for_newcomer(day, record.choice, record.units) if is_known else None
            if (
                command.reacquire
                and day.opens_at_ms <= self.now_ms < day.ends_at_ms
                and not day.booking_ended(record.choice, self.now_ms)
                and not day.closed
                and not self._blocked_until(record.applicants)
                and not self._conflicting_claims(record.applicants, day)
                and option is not None
            ):
                record.quotas = option
                for applicant in record.applicants if self.rules.abandoned_holds_max else ():
                    if (applicant, record.deadline_at_ms) in self.abandoned:
                        self.abandoned.remove((applicant, record.deadline_at_ms))
                return self._confirm_record(record, day)
            return self._expect(Status.HOLD_EXPIRED, record)
        if command.expected_version and command.expected_version != record.version:
            return self._expect(Status.STALE, record)
        if record.state is not State.HELD:
            return self._expect(Status.WRONG_STATE, record)
        if day.closed:
            return self._expect(Status.DAY_CLOSED, record)
        if day.ends_at_ms <= self.now_ms:
            return self._expect(Status.DAY_OVER, record)
        if day.session_ended(record.choice, self.now_ms):
            return self._expect(Status.SESSION_OVER, record)
        return self._confirm_record(record, day)

    def _confirm_record(self, record: Record, day: Day) -> ExpectedOutcome:
        self._step(record, State.CONFIRMED)
        self._assign_queue_numbers(record, day)
        return self._expect(Status.CONFIRMED, record)

    def _assign_queue_numbers(self, record: Record, day: Day) -> None:
        record.numbers = tuple(range(day.queue_number_next, day.queue_number_next + record.units))
        day.queue_number_next += record.units

    def _extend(self, command: Extend) -> ExpectedOutcome:
        record = self.records.get(command.id)
        if record is None:
            return ExpectedOutcome(Status.NOT_FOUND)
        day = self.days[record.day]
        if command.owner and command.owner not in record.applicants:
            return ExpectedOutcome(Status.NOT_OWNER)
        self._expire_own_holds(record.applicants)
        is_held = record.state is State.HELD and not record.is_overdue(self.now_ms)
        if is_held and record.extensions >= command.extension:
            return self._announce(self._expect(Status.HELD, record, replayed=True), record)
        if record.state is State.EXPIRED or record.is_overdue(self.now_ms):
            return self._expect(Status.HOLD_EXPIRED, record)
        if command.expected_version not in (0, record.version) or command.extension - record.extensions > 1:
            return self._expect(Status.STALE, record)
        if not is_held:
            return self._expect(Status.WRONG_STATE, record)
        if day.closed:
            return self._expect(Status.DAY_CLOSED, record)
        if day.ends_at_ms <= self.now_ms:
            return self._expect(Status.DAY_OVER, record)
        if day.session_ended(record.choice, self.now_ms):
            return self._expect(Status.SESSION_OVER, record)
        if command.extension > self.rules.extensions_max:
            return self._expect(Status.EXTENSIONS_EXCEEDED, record)
        record.deadline_at_ms += self.rules.extension_ms
        record.extensions = command.extension
        self._step(record, State.HELD)
        return self._announce(self._expect(Status.HELD, record), record)

    def _remove_applicant(self, command: RemoveApplicant) -> ExpectedOutcome:
        record = self.records.get(command.id)
        if record is None:
            return ExpectedOutcome(Status.NOT_FOUND)
        day, applicant = self.days[record.day], command.applicant
        has_left = applicant in record.former_applicants and applicant not in record.applicants
        owners = {*record.applicants, applicant} if has_left else record.party
        if command.owner and command.owner not in owners:
            return ExpectedOutcome(Status.NOT_OWNER)
        is_active = record.state not in ENDED and not record.is_overdue(self.now_ms)
        if has_left and is_active:
            return self._expect(Status(record.state), record, replayed=True)
        if applicant not in record.applicants:
            return self._expect(Status.NOT_IN_PARTY, record)
        if refusal := self._refuse_party_change(record, command.expected_version):
            return refusal
        if record.state is State.CONFIRMED and day.ends_at_ms <= self.now_ms and not day.closed:
            return self._expect(Status.DAY_OVER, record)
        if len(record.applicants) == 1:
            return self._expect(Status.PARTY_TOO_SMALL, record)
        if record.state is State.WAITING and self._has_too_many_demands(day, record.choice, record.units - 1):
            return self._expect(Status.WAIT_LIST_FULL, record)
        if record.numbers:
            pairs = zip(record.applicants, record.numbers, strict=True)
            record.numbers = tuple(number for one, number in pairs if one != applicant)
        record.applicants = tuple(one for one in record.applicants if one != applicant)
        self._has_left(record, applicant)
        self._step(record, record.state)
        self._return_units(record, day, record.quotas, self.now_ms, units=1)
        if day.closed:
            day.departed += record.state is State.CONFIRMED
        elif record.state is State.CONFIRMED:
            self.cancellations.append((applicant, self.now_ms))
            self._block_if_cancelled_too_often(applicant)
        elif record.state is State.HELD:
            self._abandon(record, self.now_ms, (applicant,))
        self._distribute(day)
        return self._expect(Status(record.state), record)

    def _refuse_party_change(self, record: Record, expected_version: int) -> ExpectedOutcome | None:
        if record.state is State.EXPIRED or record.is_overdue(self.now_ms):
            return self._expect(Status.HOLD_EXPIRED, record)
        if expected_version not in (0, record.version):
            return self._expect(Status.STALE, record)
        if record.state not in (State.WAITING, State.HELD, State.CONFIRMED):
            return self._expect(Status.WRONG_STATE, record)
        return None

    def _has_left(self, record: Record, applicant: str, newcomer: str = "") -> None:
        others = [one for one in record.former_applicants if one not in (applicant, newcomer)]
        record.former_applicants = (*others, applicant)[-100:]

    def _replace_applicant(self, command: ReplaceApplicant) -> ExpectedOutcome:
        record = self.records.get(command.id)
        if record is None:
            return ExpectedOutcome(Status.NOT_FOUND)
        day, applicant, newcomer = self.days[record.day], command.applicant, command.replacement
        has_left = applicant in record.former_applicants and applicant not in record.applicants
        is_active = record.state not in ENDED and not record.is_overdue(self.now_ms)
        if has_left and is_active and newcomer in record.applicants:
            return self._expect(Status(record.state), record, replayed=True)
        if self._is_past(command.valid_until_ms):
            return self._expect(Status.COMMAND_EXPIRED, record)
        if applicant not in record.applicants:
            return self._expect(Status.NOT_IN_PARTY, record)
        self._expire_own_holds((newcomer,))
        if refusal := self._refuse_party_change(record, command.expected_version):
            return refusal
        if day.closed:
            return self._expect(Status.DAY_CLOSED, record)
        if day.ends_at_ms <= self.now_ms:
            return self._expect(Status.DAY_OVER, record)
        if blocked_until_ms := self._blocked_until((newcomer,)):
            return dataclasses.replace(self._expect(Status.BLOCKED, record), retry_at_ms=blocked_until_ms)
        if newcomer in record.applicants or self._conflicting_claims((newcomer,), day, except_record=record):
            return self._expect(Status.IDENTITY_LIMIT, record)
        record.applicants = tuple(newcomer if one == applicant else one for one in record.applicants)
        self._has_left(record, applicant, newcomer)
        self._step(record, record.state)
        if record.state is State.WAITING:
            self._distribute(day)
        return self._expect(Status(record.state), record)

    def _release(self, command: Release) -> ExpectedOutcome:
        record = self.records.get(command.id)
        if record is None:
            return ExpectedOutcome(Status.NOT_FOUND)
        day = self.days[record.day]
        if command.owner and command.owner not in record.applicants:
            return ExpectedOutcome(Status.NOT_OWNER)
        self._expire_own_holds(record.applicants)
        if record.state is State.RELEASED:
            return self._announce(self._expect(Status.RELEASED, record, replayed=True), record)
        if record.state is State.EXPIRED or record.is_overdue(self.now_ms):
            return self._expect(Status.HOLD_EXPIRED, record)
        if command.expected_version and command.expected_version != record.version:
            return self._expect(Status.STALE, record)
        if record.state not in (State.HELD, State.WAITING):
            return self._expect(Status.WRONG_STATE, record)
        was_held = record.state is State.HELD
        self._step(record, State.RELEASED)
        self._return_units(record, day, record.quotas, self.now_ms)
        if was_held and not day.closed:
            self._abandon(record, self.now_ms)
        answer = self._announce(self._expect(Status.RELEASED, record), record)
        self._distribute(day)
        return answer

    def _decline(self, command: Decline) -> ExpectedOutcome:
        record = self.records.get(command.id)
        if record is None:
            return ExpectedOutcome(Status.NOT_FOUND)
        day = self.days[record.day]
        if command.owner and command.owner not in record.applicants:
            return ExpectedOutcome(Status.NOT_OWNER)
        if record.state is State.WAITING:
            return self._expect(Status.WAITING, record, replayed=True)
        if record.state is State.EXPIRED or record.is_overdue(self.now_ms):
            return self._expect(Status.HOLD_EXPIRED, record)
        if command.expected_version and command.expected_version != record.version:
            return self._expect(Status.STALE, record)
        if record.state is not State.HELD or not record.wait_list_number:
            return self._expect(Status.WRONG_STATE, record)
        if day.closed:
            return self._expect(Status.DAY_CLOSED, record)
        if day.ends_at_ms <= self.now_ms:
            return self._expect(Status.DAY_OVER, record)
        if day.session_ended(record.choice, self.now_ms):
            return self._expect(Status.SESSION_OVER, record)
        if record.declines >= self.rules.declines_max:
            return self._expect(Status.DECLINES_EXCEEDED, record)
        quotas, record.quotas, record.deadline_at_ms, record.extensions = record.quotas, (), 0, 0
        record.declines += 1
        record.paused_until_ms = self.now_ms + self.rules.decline_pause_ms
        self._step(record, State.WAITING)
        self._return_units(record, day, quotas, self.now_ms)
        answer = self._expect(Status.WAITING, record)
        self._distribute(day)
        return answer

    def _cancel(self, command: Cancel) -> ExpectedOutcome:
        record = self.records.get(command.id)
        if record is None:
            return ExpectedOutcome(Status.NOT_FOUND)
        day = self.days[record.day]
        if command.owner and command.owner not in record.applicants:
            return ExpectedOutcome(Status.NOT_OWNER)
        if record.state is State.CANCELLED:
            return self._expect(Status.CANCELLED, record, replayed=True)
        if record.state is State.EXPIRED or record.is_overdue(self.now_ms):
            return self._expect(Status.HOLD_EXPIRED, record)
        if command.expected_version and command.expected_version != record.version:
            return self._expect(Status.STALE, record)
        if record.state is not State.CONFIRMED:
            return self._expect(Status.WRONG_STATE, record)
        if day.ends_at_ms <= self.now_ms and not day.closed:
            return self._expect(Status.DAY_OVER, record)
        self._depart(record, day)
        self._step(record, State.CANCELLED)
        self._return_units(record, day, record.quotas, self.now_ms)
        for applicant in () if day.closed else record.applicants:
            self.cancellations.append((applicant, self.now_ms))
            self._block_if_cancelled_too_often(applicant)
        answer = self._expect(Status.CANCELLED, record)
        self._distribute(day)
        return answer

    def _depart(self, record: Record, day: Day) -> None:
        """Count a confirmed party that leaves a closed day."""
        if day.closed and record.state in COUNTED_AS_CONFIRMED:
            day.departed += record.units

    def _block_if_cancelled_too_often(self, applicant: str) -> None:
        window_starts_at_ms = self.now_ms - self.rules.cancellations_window_ms
        # Cancellations outside the window are forgotten, even if the window becomes longer later.
        self.cancellations = [
            (who, at) for who, at in self.cancellations if who != applicant or at > window_starts_at_ms
        ]
        recent = [at_ms for who, at_ms in self.cancellations if who == applicant]
        if self.rules.cancellations_max and len(recent) > self.rules.cancellations_max:
            self._block(applicant, self.rules.cancellations_block_ms)

    def _record_attendance(self, command: CheckIn | MarkNoShow) -> ExpectedOutcome:
        goal = State.ATTENDED if isinstance(command, CheckIn) else State.NO_SHOW
        record = self.records.get(command.id)
        if record is None:
            return ExpectedOutcome(Status.NOT_FOUND)
        day = self.days[record.day]
        if command.owner and command.owner not in record.applicants:
            return ExpectedOutcome(Status.NOT_OWNER)
        if record.state is goal:
            return self._expect(Status(goal), record, replayed=True)
        if record.state is State.EXPIRED or record.is_overdue(self.now_ms):
            return self._expect(Status.HOLD_EXPIRED, record)
        if command.expected_version and command.expected_version != record.version:
            return self._expect(Status.STALE, record)
        if record.state is not State.CONFIRMED:
            return self._expect(Status.WRONG_STATE, record)
        if goal is State.ATTENDED and day.ends_at_ms <= self.now_ms:
            return self._expect(Status.DAY_OVER, record)
        if goal is State.NO_SHOW and day.closed:
            return self._expect(Status.DAY_CLOSED, record)
        if self.now_ms < day.starts_at_ms:
            return self._expect(Status.TOO_EARLY, record)
        record.undo_until_ms = self.now_ms + self.rules.undo_window_ms
        self._step(record, goal)
        if goal is State.NO_SHOW and self.rules.no_show_block_ms:
            for applicant in record.applicants:
                self._block(applicant, self.rules.no_show_block_ms, record.id)
        return self._expect(Status(goal), record)

    def _undo_attendance(self, command: UndoAttendance) -> ExpectedOutcome:
        record = self.records.get(command.id)
        if record is None:
            return ExpectedOutcome(Status.NOT_FOUND)
        if command.owner and command.owner not in record.applicants:
            return ExpectedOutcome(Status.NOT_OWNER)
        if record.state is State.CONFIRMED:
            return self._expect(Status.CONFIRMED, record, replayed=True)
        if record.state is State.EXPIRED or record.is_overdue(self.now_ms):
            return self._expect(Status.HOLD_EXPIRED, record)
        if command.expected_version and command.expected_version != record.version:
            return self._expect(Status.STALE, record)
        if record.state not in (State.ATTENDED, State.NO_SHOW):
            return self._expect(Status.WRONG_STATE, record)
        if record.undo_until_ms <= self.now_ms:
            return self._expect(Status.TOO_LATE, record)
        record.undo_until_ms = 0
        self._step(record, State.CONFIRMED)
        self.blocks = [block for block in self.blocks if block[2] != record.id]
        return self._expect(Status.CONFIRMED, record)

    def _reschedule(self, command: Reschedule) -> ExpectedOutcome:
        record = self.records.get(command.id)
        if record is None:
            return ExpectedOutcome(Status.NOT_FOUND)
        source = self.days[record.day]
        target = self.days.get(command.day)
        own = not command.owner or command.owner in record.applicants
        # The target is checked before the owner, so the first two refusals must show no record to another caller.
        shown = [record] if own else []
        if target is None:
            return self._expect(Status.UNKNOWN_DAY, *shown, or_none=True)
        if not all(name in target.quotas for option in command.choice.options for name in option):
            return self._expect(Status.UNKNOWN_QUOTA, *shown, or_none=True)
        if command.owner and command.owner not in record.applicants:
            return ExpectedOutcome(Status.NOT_OWNER)
        is_held = record.state is State.HELD and not record.is_overdue(self.now_ms)
        is_confirmed = record.state is State.CONFIRMED
        choice = target.completed(command.choice)
        if (is_held or is_confirmed) and target is source and record.choice in (choice, command.choice):
            return self._expect(Status(record.state), record, replayed=True)
        if record.state is State.EXPIRED or record.is_overdue(self.now_ms):
            return self._expect(Status.HOLD_EXPIRED, record)
        if command.expected_version and command.expected_version != record.version:
            return self._expect(Status.STALE, record)
        if not is_held and not is_confirmed:
            return self._expect(Status.WRONG_STATE, record)
        if target.closed:
            return self._expect(Status.DAY_CLOSED, record)
        if target.ends_at_ms <= self.now_ms:
            return self._expect(Status.DAY_OVER, record)
        if target.booking_ended(command.choice, self.now_ms):
            return self._expect(Status.SESSION_OVER, record)
        if self.now_ms < target.opens_at_ms:
            return dataclasses.replace(self._expect(Status.NOT_OPEN, record), retry_at_ms=target.opens_at_ms)
        if refusal := self._move_refusal(record):
            return self._expect(refusal, record)
        if self._conflicting_claims(record.applicants, target, except_record=record):
            return self._expect(Status.IDENTITY_LIMIT, record)
        owned = record.quotas if target is source else ()
        option = self._first_for_newcomer(target, choice, record.units, owned)
        if option is None:
            return self._expect(Status.SOLD_OUT, record)

        self._depart(record, source)
        left = [name for name in record.quotas if target is not source or name not in option]
        record.day = target.number
        record.choice = choice
        record.quotas = option
        record.moves += 1
        record.forced_moves += source.closed
        record.wait_list_number = record.declines = 0
        self._step(record, record.state)
        if is_confirmed and target is not source:
            self._assign_queue_numbers(record, target)
        self._return_units(record, source, left, self.now_ms)
        answer = self._expect(Status(record.state), record)
        self._distribute(source)
        return answer

    # ------------------------------------------------------------------ operators

    def _publish(self, command: Publish) -> ExpectedOutcome:
        terms = command.terms
        if self._too_late_to_publish(command):
            return ExpectedOutcome(Status.DAY_OVER)
        known = self.days.get(command.day)
        day = known or Day(command.day, 0, 0, 0, 0, {})
        kept = {name for quota in terms.quotas for name in (quota.name, quota.renamed_from)}
        lacking = day.quotas.keys() - kept
        if people := sum(self._people_on(day, name) for name in lacking):
            return ExpectedOutcome(Status.QUOTA_IN_USE, units=people)
        self.days[command.day] = day
        before, overbooked_before = self._published(day), self._overbooked(day)
        self._rename(day, {quota.renamed_from: quota.name for quota in terms.quotas if quota.renamed_from})
        for name in lacking:
            del day.quotas[name]
            day.cooling = [one for one in day.cooling if one.quota != name]
        day.opens_at_ms = terms.opens_at_ms
        day.starts_at_ms = terms.starts_at_ms
        day.ends_at_ms = terms.ends_at_ms
        day.forget_at_ms = terms.forget_at_ms
        day.sessions = terms.sessions
        for quota_terms in terms.quotas:
            if quota_terms.name in day.quotas:
                day.quotas[quota_terms.name].terms = quota_terms
            else:
                day.quotas[quota_terms.name] = Quota(quota_terms, quota_terms.capacity)
        if self._published(day) == before:
            return ExpectedOutcome(Status.DONE, replayed=True)
        for record in self._records_on(day):
            if record.state not in (State.RELEASED, State.CANCELLED, State.MOVED):
                option = None if not record.quotas else day.completed(replace(record.choice, options=(record.quotas,)))
                record.choice = day.completed(record.choice)
                record.quotas = () if option is None else option.options[0]
        self._changed()
        day.revision += 1
        overbooked = max(0, self._overbooked(day) - overbooked_before)
        if known is not None:
            self._distribute(day)
        return ExpectedOutcome(Status.DONE, overbooked=overbooked)

    def _people_on(self, day: Day, name: str) -> int:
        """Return the units of people who hold, have confirmed or wait for a quota."""
        waiting = sum(r.units for r in self._waiting(day) if any(name in option for option in r.choice.options))
        return self._held(day, name) + self._confirmed(day, name) + waiting

    def _overbooked(self, day: Day) -> int:
        return sum(max(-self._free(day, name), 0) for name in day.quotas)

    def _rename(self, day: Day, renamed: dict[str, str]) -> None:
        """Give quotas of the day another name; the people of one whose new name is taken join that quota."""
        renamed = {old: new for old, new in renamed.items() if old in day.quotas}
        joining = {old for old, new in renamed.items() if new in day.quotas}
        day.quotas = {renamed.get(name, name): one for name, one in day.quotas.items() if name not in joining}
        day.cooling = [dataclasses.replace(one, quota=renamed.get(one.quota, one.quota)) for one in day.cooling]
        for record in self._records_on(day):
            if renamed and record.state not in (State.RELEASED, State.CANCELLED, State.MOVED):
                options = [tuple(dict.fromkeys(renamed.get(n, n) for n in option)) for option in record.choice.options]
                record.choice = replace(record.choice, options=tuple(dict.fromkeys(options)))
                record.quotas = tuple(dict.fromkeys(renamed.get(name, name) for name in record.quotas))

    def _too_late_to_publish(self, command: Publish) -> bool:
        return command.terms.forget_at_ms <= self.now_ms or command.day <= self.last_forgotten_day

    def _published(self, day: Day) -> object:
        """Return everything that publishing the day again can change."""
        rules = {
            name: (quota.terms.re_release, quota.terms.reallocation, quota.terms.guard)
            for name, quota in day.quotas.items()
        }
        return (day.opens_at_ms, day.starts_at_ms, day.ends_at_ms, day.forget_at_ms, day.sessions, rules)

    def _close_or_open(self, day: Day, command: CloseDay | OpenDay) -> ExpectedOutcome:
        closed = isinstance(command, CloseDay)
        if day.closed == closed:
            return ExpectedOutcome(
                Status.DONE, replayed=True, units=0 if closed else day.departed, revision=day.revision
            )
        if command.expected_revision not in (0, day.revision):
            return ExpectedOutcome(Status.STALE, revision=day.revision)
        day.closed = closed
        if closed:
            day.departed = 0
        day.revision += 1
        self._changed()
        self._distribute(day)
        return ExpectedOutcome(Status.DONE, units=0 if closed else day.departed, revision=day.revision)

    def _on_quota(self, command: SetCapacity | ReallocateUnused | ReleaseParked, day: Day) -> ExpectedOutcome:
        quota = day.quotas[command.quota]
        if command.expected_revision not in (0, day.revision) and self._would_change(command, day):
            return ExpectedOutcome(Status.STALE, revision=day.revision)
        match command:
            case SetCapacity():
                if quota.terms.reallocation is not None and quota.terms.reallocation.at_ms <= self.now_ms:
                    return ExpectedOutcome(Status.WRONG_STATE)
                replayed = quota.capacity == command.capacity
                if not replayed:
                    quota.capacity = command.capacity
                    day.revision += 1
                    self._changed()
                    self._distribute(day)
                overbooked = max(-self._free(day, command.quota), 0)
                return ExpectedOutcome(Status.DONE, replayed=replayed, overbooked=overbooked, revision=day.revision)
            case ReallocateUnused():
                if quota.terms.reallocation is None:
                    return ExpectedOutcome(Status.WRONG_STATE)
                units = self._reallocate(day, command.quota)
                day.revision += units > 0
            case ReleaseParked():
                parked = [c for c in day.cooling if c.quota == command.quota and c.due_at_ms is None]
                units = sum(cooling.units for cooling in parked)
                day.revision += units > 0
                for cooling in parked:
                    day.cooling.remove(cooling)
                    self._changed()
        self._distribute(day)
        return ExpectedOutcome(Status.DONE, units=units, revision=day.revision)

    def _would_change(self, command: SetCapacity | ReallocateUnused | ReleaseParked, day: Day) -> bool:
        """Return True unless the effect of the command exists already."""
        quota = day.quotas[command.quota]
        match command:
            case SetCapacity():
                return quota.capacity != command.capacity
            case ReallocateUnused():
                return quota.terms.reallocation is None or self._free(day, command.quota) > 0
            case ReleaseParked():
                return any(c.quota == command.quota and c.due_at_ms is None for c in day.cooling)
