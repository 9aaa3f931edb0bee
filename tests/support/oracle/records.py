"""The records of the oracle, and the outcomes that it expects."""

from __future__ import annotations

import dataclasses

from msgspec.structs import replace

from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import Choice, QuotaTerms, Reservation, SessionTerms
from quota_engine.domain.outcomes import Outcome, Status

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
