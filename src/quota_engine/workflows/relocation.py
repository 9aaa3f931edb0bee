"""Close a day with a plan: move its people to other days or offices, in the order of their queue numbers.

Each move is an ordinary reschedule, with its events, and each party that stays leaves an event as well. A call moves a
bounded number of parties and returns where the next one continues. Repeating a call moves no party twice, because a
party that has moved is no longer on the day.
"""

from __future__ import annotations

__all__ = [
    "PARTIES_MAX",
    "TARGETS_MAX",
    "RelocatedParty",
    "RelocationReport",
    "RelocationTarget",
    "relocate_day",
    "targets_of",
]

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from quota_engine.catalog import Selection, get_office
from quota_engine.domain.commands import CloseDay, Stay
from quota_engine.domain.errors import InvalidRequest, JobTimeout
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import Choice, Reservation
from quota_engine.domain.outcomes import DayView, Outcome, Status
from quota_engine.domain.validation import check_integer
from quota_engine.generators import Request
from quota_engine.ports import ListDay, View
from quota_engine.workflows import office_moves
from quota_engine.workflows.admission_gate import CallAdmission
from quota_engine.workflows.arguments import Day, day_number
from quota_engine.workflows.generator_drivers import Apply, Workflow, execute
from quota_engine.workflows.jobs import Checkpoint
from quota_engine.workflows.request_builder import RequestBuilder

PARTIES_MAX: Final = 500
"""Most parties that one call moves."""
TARGETS_MAX: Final = 60
"""Most days to move to. Without given ones, these many days after the closed one are tried."""
_QUEUE_NUMBER_MAX: Final = 2**31

_NO_ADMISSION: Final = CallAdmission(None, ("", "", ""), "")
"""An operator moves people who were admitted when they booked. No policy decides again."""
_TARGET_REFUSED: Final = frozenset({Status.UNKNOWN_DAY, Status.DAY_CLOSED, Status.DAY_OVER, Status.NOT_OPEN})
"""Refusals that hold for every party, so the day is not tried again."""
_HAS_LEFT: Final = frozenset({Status.NOT_FOUND, Status.STALE, Status.WRONG_STATE, Status.HOLD_EXPIRED})
"""Refusals of a reservation that its party has changed meanwhile."""


class RelocationTarget(msgspec.Struct, frozen=True):
    """A day to move people to: the office's id and the day's ordinal."""

    office: str
    day: int


class RelocatedParty(msgspec.Struct, frozen=True):
    """A party of the closed day, and where it goes.

    Args:
        reference: the reservation on the closed day.
        units: number of people.
        queue_number: its first queue number on the closed day.
        session: its session on the closed day, or ``""``.
        status: ``CONFIRMED`` if it has moved, or would move in a dry run. Otherwise the last refusal, such as
            ``SOLD_OUT`` if no target has room.
        target: office and day that it moved to; ``None`` if it stays.
        target_session: its session there, or ``""``.
        target_opens_at_ms: when the target opens for booking. Before that time no party can move there, which a dry run
            does not check.
        target_reference: the reservation there; ``""`` if it stays, and in a dry run.
        target_queue_number: its first queue number there; 0 if it stays, and in a dry run.
    """

    reference: str
    units: int
    queue_number: int
    session: str
    status: Status
    target: RelocationTarget | None = None
    target_session: str = ""
    target_opens_at_ms: int = 0
    target_reference: str = ""
    target_queue_number: int = 0


class RelocationReport(msgspec.Struct, frozen=True):
    """Result of :func:`relocate_day`.

    Args:
        office: the office's id.
        day: the closed day's ordinal.
        status: ``DONE``; or ``UNKNOWN_DAY``, and nothing was done.
        dry_run: True if nothing was changed.
        parties: the parties that this call looked at, by queue number.
        next_after: the argument ``after`` of the next call; 0 if no party is left to look at.
    """

    office: str
    day: int
    status: Status
    dry_run: bool
    parties: tuple[RelocatedParty, ...] = ()
    next_after: int = 0

    @property
    def people_moved(self) -> int:
        """The number of people that have moved, or would."""
        return sum(party.units for party in self.parties if party.target is not None)

    @property
    def people_left(self) -> int:
        """The number of people that stay on the closed day."""
        return sum(party.units for party in self.parties if party.target is None)


def targets_of(
    requests: RequestBuilder, office: str, targets: Sequence[Day | tuple[str, Day]]
) -> list[RelocationTarget]:
    """Return the targets that an operator names: days of the same office, or pairs of office and day.

    Raises:
        InvalidRequest: too many of them, or one that is neither.
        UnknownName: the catalog does not have an office.
    """
    if not isinstance(targets, list | tuple) or len(targets) > TARGETS_MAX:
        raise InvalidRequest("targets", "not such a list", f"at most {TARGETS_MAX} days, or pairs of office and day")
    found = []
    for target in targets:
        name, day = target if isinstance(target, tuple) and len(target) == 2 else (office, target)
        found.append(RelocationTarget(requests.known_office(name), day_number(day)))
    return found


def relocate_day(
    requests: RequestBuilder,
    office: str,
    day: int,
    targets: list[RelocationTarget],
    *,
    other_sessions: bool,
    after: int,
    limit: int,
    dry_run: bool,
) -> Workflow[RelocationReport]:
    """Close a day, and move its confirmed parties. Arguments as for :meth:`quota_engine.QuotaEngine.relocate_day`."""
    check_integer(after, "after", 0, _QUEUE_NUMBER_MAX)
    check_integer(limit, "limit", 1, PARTIES_MAX)
    if not dry_run:
        closed: Outcome = yield Apply(office, CloseDay(day))
        if not closed.ok:
            return RelocationReport(office, day, closed.status, dry_run)
    elif not (yield View(office, (day,))):
        return RelocationReport(office, day, Status.UNKNOWN_DAY, dry_run)
    listed: list[Reservation] = yield ListDay(office, day)
    waiting = [one for one in listed if one.state is State.CONFIRMED and one.queue_number > after]
    rooms = yield from _Rooms.read(targets or _next_days(office, day))
    parties = []
    looked = 0
    for record in waiting[:limit]:
        try:
            yield Checkpoint(looked, len(waiting), "parties")
        except JobTimeout:
            if not looked:
                raise
            break  # the report says where the next call continues
        looked += 1
        party = yield from _relocate(requests, rooms, record, other_sessions=other_sessions, dry_run=dry_run)
        if party is not None:
            parties.append(party)
    next_after = waiting[looked - 1].queue_number if len(waiting) > looked else 0
    return RelocationReport(office, day, Status.DONE, dry_run, tuple(parties), next_after)


def _next_days(office: str, day: int) -> list[RelocationTarget]:
    return [RelocationTarget(office, day + distance) for distance in range(1, TARGETS_MAX + 1)]


class _Rooms:
    """The targets that may have room, and how much. The counters save calls; the target's office decides."""

    def __init__(self) -> None:
        self.available: dict[RelocationTarget, dict[str, int]] = {}
        self.opens_at_ms: dict[RelocationTarget, int] = {}

    @classmethod
    def read(cls, targets: Sequence[RelocationTarget]) -> Workflow[_Rooms]:
        """Read the counters of the targets. Unknown, closed and repeated days are left out."""
        rooms = cls()
        for office in dict.fromkeys(target.office for target in targets):
            days = tuple(dict.fromkeys(target.day for target in targets if target.office == office))
            views: list[DayView] = yield View(office, days)
            for view in views:
                if not view.closed:
                    counters = {name: quota.bookable for name, quota in view.quotas.items()}
                    target = RelocationTarget(office, view.day)
                    rooms.available[target], rooms.opens_at_ms[target] = counters, view.opens_at_ms
        rooms.available = {target: rooms.available[target] for target in targets if target in rooms.available}
        return rooms

    def find(self, target: RelocationTarget, choice: Choice, units: int) -> tuple[str, ...] | None:
        """Return the first option with room for these units, or ``None``."""
        counters = self.available[target]
        for option in choice.options:
            if all(counters.get(name, 0) >= units for name in option):
                return option
        return None

    def take(self, target: RelocationTarget, option: Sequence[str], units: int) -> None:
        """Count units of an option as taken."""
        for name in option:
            self.available[target][name] -= units


def _relocate(
    requests: RequestBuilder, rooms: _Rooms, record: Reservation, *, other_sessions: bool, dry_run: bool
) -> Workflow[RelocatedParty | None]:
    """Move one party to the first target that takes it. Return ``None`` if it has left the day itself."""
    status = Status.SOLD_OUT
    for target in list(rooms.available):
        for selection, choice in _choices(requests, record, target, other_sessions=other_sessions):
            option = rooms.find(target, choice, record.units)
            if option is None:
                continue
            if dry_run:
                rooms.take(target, option, record.units)
                return _moved(record, target, selection.session, None, rooms.opens_at_ms[target])
            work = office_moves.reschedule(
                requests, _NO_ADMISSION, record.reference, target.day, target.office, selection, None, record.version
            )
            outcome: Outcome = yield from execute(work) if isinstance(work, Request) else work
            if outcome.ok or outcome.status is Status.SOLD_OUT:  # others have taken what the counters promised
                rooms.take(target, option, record.units)
            if outcome.ok:
                return _moved(record, target, selection.session, outcome.reservation, rooms.opens_at_ms[target])
            if outcome.status in _HAS_LEFT:
                return None
            status = outcome.status
            if status in _TARGET_REFUSED:
                del rooms.available[target]
                break
    if not dry_run:
        # The event lets a consumer inform the party. A repeated copy is stale and leaves no second event.
        noted: Outcome = yield Apply(record.office, Stay(record.id, expected_version=record.version))
        if noted.status in _HAS_LEFT and not _has_stayed(noted, record):
            return None
    return _stays(record, status)


def _has_stayed(noted: Outcome, record: Reservation) -> bool:
    """Return True if the first copy of the command, whose answer was lost, has left the event."""
    present = noted.reservation
    return present is not None and present == replace(record, version=record.version + 1)


def _choices(
    requests: RequestBuilder, record: Reservation, target: RelocationTarget, *, other_sessions: bool
) -> Iterator[tuple[Selection, Choice]]:
    """Yield what the party can get on the target: the same selection first, then other sessions if they are allowed."""
    own = record.choice
    sessions = [own.session]
    if other_sessions:
        sessions += [name for name in get_office(requests.catalog, target.office).sessions if name != own.session]
    for session in sessions:
        selection = Selection(own.service, own.service_unit, session, own.channel, own.group)
        try:
            _, choice = requests.plan(target.office, target.day, selection)
        except InvalidRequest:  # the target's office has no such service, session or allotment
            continue
        yield selection, choice


def _moved(
    record: Reservation, target: RelocationTarget, session: str, moved: Reservation | None, opens_at_ms: int
) -> RelocatedParty:
    return RelocatedParty(
        record.reference,
        record.units,
        record.queue_number,
        record.choice.session,
        Status.CONFIRMED,
        target,
        session,
        opens_at_ms,
        "" if moved is None else moved.reference,
        0 if moved is None else moved.queue_number,
    )


def _stays(record: Reservation, status: Status) -> RelocatedParty:
    return RelocatedParty(record.reference, record.units, record.queue_number, record.choice.session, status)
