"""Workflows of a waiting room.

A refresh also does what time has made due: it opens the room, calls tickets, closes the room. So a room needs no
dedicated process, and makes no progress while no caller reads it.
"""

from __future__ import annotations

__all__ = [
    "JoinResult",
    "Refresh",
    "close",
    "create",
    "enter",
    "join",
    "open_with",
    "refresh",
    "set_pace",
    "ticket_status",
]

import contextlib

import msgspec

from quota_engine.domain.errors import BackendUnavailable, InvalidRequest, OutcomeUnknown, QuotaEngineError
from quota_engine.generators import Request
from quota_engine.ports import Query, View
from quota_engine.waiting_room.commands import (
    PLACES_LEFT_UNKNOWN,
    TICKETS_PER_CALL_MAX,
    CallTickets,
    CloseRoom,
    CreateRoom,
    FindTicket,
    JoinRoom,
    OpenRoom,
    RoomConfig,
    SetPace,
    ViewRoom,
)
from quota_engine.waiting_room.order import seed_of
from quota_engine.waiting_room.pacing import count_places_left, next_pace
from quota_engine.waiting_room.results import RoomResult, RoomStatus, RoomView
from quota_engine.waiting_room.ticket_status import TicketPhase, TicketStatus
from quota_engine.workflows.generator_drivers import Apply, Workflow
from quota_engine.workflows.room_config import RoomArguments, build_room_config
from quota_engine.workflows.room_view_cache import EnterResult, RoomViewCache, RoomViewSnapshot


class Refresh(Request[None], frozen=True, gc=False):
    """Request to read the room again, unless another caller does so already and an older view is usable.

    Attributes:
        max_age_ms: greatest age of a view that makes the read unnecessary; ``None`` for half a second.
    """

    max_age_ms: int | None


class JoinResult(msgspec.Struct, frozen=True, gc=False):
    """Result of :meth:`quota_engine.WaitingRoom.join`.

    Args:
        status: ``JOINED``, or the reason of the refusal.
        ticket: the signed ticket, or ``""``.
        number: number of the ticket in the order of the joins, from 1; 0 without a ticket. With it, anyone can verify
            the ticket's position after the opening.
        replayed: true if the identity had this ticket already.
        retry_at_ms: when a later call may succeed, in milliseconds since 1970; 0 if never.
    """

    status: RoomStatus
    ticket: str = ""
    number: int = 0
    replayed: bool = False
    retry_at_ms: int = 0

    @property
    def ok(self) -> bool:
        """True if there is a ticket."""
        return self.status is RoomStatus.JOINED


def create(cache: RoomViewCache, arguments: RoomArguments) -> Workflow[RoomStatus]:
    """Create the room, or find that it exists with the same configuration.

    The seed may differ if another key was active then: the first process that creates the room sets it.
    """
    config = build_room_config(cache.requests, cache.room, arguments)
    local_ms = cache.local_ms()
    result: RoomResult = yield Apply(cache.address, CreateRoom(config))
    if result.status is RoomStatus.CONFLICT:
        found: RoomResult = yield Query(cache.address, ViewRoom())
        if found.view is None or _with_seed_of(found.view.config, config) != config:
            return RoomStatus.CONFLICT
        result = found
    if result.view is not None:
        cache.store(result.view, local_ms)
    return result.status


def refresh(cache: RoomViewCache) -> Workflow[None]:
    """Read the room, and do what time has made due: open it, call tickets, close it."""
    local_ms = cache.local_ms()
    result: RoomResult
    try:
        result = yield Query(cache.address, ViewRoom())
    except QuotaEngineError:
        cache.store_failure()
        raise
    view = result.view
    if view is not None:
        # A store that can be read but not written (out of memory, say) still answers polls; it calls no tickets.
        with contextlib.suppress(BackendUnavailable, OutcomeUnknown):
            view = yield from _advance(cache, view, cache.local_ms() - local_ms)
    cache.store(view, local_ms)


def join(
    cache: RoomViewCache, snapshot: RoomViewSnapshot, identity: str, replaces_ticket: str | None
) -> Workflow[JoinResult]:
    """Issue a ticket. Arguments as for :meth:`quota_engine.WaitingRoom.join`; ``snapshot`` is fresh."""
    applicant = cache.requests.owner_hash(identity, "identity")
    command = JoinRoom(applicant)
    if replaces_ticket is not None:
        command = JoinRoom(applicant, *snapshot.ticket_index(replaces_ticket, identity))
        replaced = yield from ticket_status(cache, snapshot, replaces_ticket)
        if replaced.phase not in (TicketPhase.TURN_MISSED, TicketPhase.TICKET_LOST):
            expected = "one that has lost its turn, or that the room has lost"
            raise InvalidRequest("replaces_ticket", f"a ticket that is {replaced.phase}", expected)
    result: RoomResult = yield Apply(cache.address, command)
    if not result.ok:
        return JoinResult(result.status, retry_at_ms=result.retry_at_ms)
    ticket = snapshot.issue_ticket(result.index, result.epoch, applicant)
    return JoinResult(result.status, ticket, result.index + 1, result.replayed)


def ticket_status(cache: RoomViewCache, snapshot: RoomViewSnapshot, ticket: str) -> Workflow[TicketStatus]:
    """Return the status of a ticket. Reads the room again only if the ticket is of a later epoch than the snapshot."""
    status = snapshot.ticket_status(ticket, cache.now_ms(snapshot.view))
    if status is None:
        yield Refresh(0)
        current = cache.snapshot()
        now_ms = cache.now_ms(current.view)
        status = current.ticket_status(ticket, now_ms)
        if status is None:  # another caller is still reading the room; or it was lost together with this epoch
            number = current.ticket_index(ticket, None).number
            is_same = current is snapshot
            status = current.unordered_status(number, now_ms) if is_same else current.lost_status(number, now_ms)
    return status


def enter(cache: RoomViewCache, snapshot: RoomViewSnapshot, ticket: str, identity: str) -> Workflow[EnterResult]:
    """Return the pass of a ticket that has its turn. Arguments as for :meth:`quota_engine.WaitingRoom.enter`.

    The store decides if the room has this ticket: after a failover without a fence, two applicants may have tickets
    with one number. A ticket whose turn it is not costs no call of the store.
    """
    index = snapshot.ticket_index(ticket, identity)
    number = index.number
    status = yield from ticket_status(cache, snapshot, ticket)
    if status.phase is not TicketPhase.CALLED:
        return EnterResult(status)
    applicant = cache.requests.owner_hash(identity, "identity")
    found: RoomResult = yield Query(cache.address, FindTicket(applicant))
    current = cache.snapshot()
    if found.room_epoch != current.view.epoch:
        yield Refresh(0)  # the view is from before a failover: its positions and calls may not be the room's
        current = cache.snapshot()
    now_ms = cache.now_ms(current.view)
    if (found.index, found.epoch) != index:
        return EnterResult(current.lost_status(number, now_ms))
    status = current.ticket_status(ticket, now_ms) or current.unordered_status(number, now_ms)
    if found.room_epoch != current.view.epoch:
        status = current.unordered_status(number, now_ms)
    if status.phase is not TicketPhase.CALLED:
        return EnterResult(status)
    return current.issue_pass(index, applicant, status)


def open_with(cache: RoomViewCache, snapshot: RoomViewSnapshot, entropy: str, epoch: int) -> Workflow[RoomResult]:
    """Open the room with the text of its public entropy source. ``epoch``: see :class:`OpenRoom`.

    A room that this engine has seen open is not opened with another text, even if the store has lost the opening.
    """
    revealed = cache.revealed_entropy(snapshot.view.config)
    if revealed not in (None, entropy):
        return RoomResult(RoomStatus.CONFLICT)
    seed = seed_of(cache.closing_seed(snapshot.view.config))
    return (yield from _apply(cache, OpenRoom(seed, entropy, epoch)))


def close(cache: RoomViewCache, snapshot: RoomViewSnapshot) -> Workflow[RoomResult]:
    """Close the room and reveal its secret seed."""
    return (yield from _apply(cache, CloseRoom(cache.closing_seed(snapshot.view.config))))


def set_pace(cache: RoomViewCache, per_minute_min: int, per_minute_max: int) -> Workflow[RoomResult]:
    """Change the bounds of the room's pace."""
    return (yield from _apply(cache, SetPace(per_minute_min, per_minute_max)))


def _apply(cache: RoomViewCache, command: OpenRoom | CloseRoom | SetPace) -> Workflow[RoomResult]:
    local_ms = cache.local_ms()
    result: RoomResult = yield Apply(cache.address, command)
    if result.view is not None:
        cache.store(result.view, local_ms)
    return result


def _advance(cache: RoomViewCache, view: RoomView, latency_ms: int) -> Workflow[RoomView]:
    """Return the room after the steps that are due.

    Other engines may take the same steps: each finds its step done, or too early.
    """
    config = view.config
    if view.is_closed or cache.was_closed(config):  # a store may have lost a close; its closing seed is public
        if view.closed_at_ms:
            return view
        closed: RoomResult = yield Apply(cache.address, CloseRoom(cache.closing_seed(config)))
        return closed.view or view
    if not view.seed:
        # A store may have lost an opening with entropy; the same text opens the room again.
        entropy = cache.revealed_entropy(config) if config.entropy_source else ""
        if view.now_ms < config.opens_at_ms or entropy is None:
            return view
        opened: RoomResult = yield Apply(
            cache.address, OpenRoom(seed_of(cache.closing_seed(config)), entropy, view.epoch)
        )
        view = opened.view or view
    if not view.seed or view.now_ms - view.last_step_at_ms < config.step_ms:
        return view
    choices = cache.choices(config)
    places_left = PLACES_LEFT_UNKNOWN
    if choices:
        days = yield View(config.office, tuple(range(config.first_day, config.last_day + 1)))
        places_left = count_places_left(days, choices, view.now_ms)
    per_minute, call_max = next_pace(view, places_left, latency_ms)
    called: RoomResult = yield Apply(
        cache.address, CallTickets(per_minute, min(call_max, TICKETS_PER_CALL_MAX), places_left)
    )
    return called.view or view


def _with_seed_of(config: RoomConfig, other: RoomConfig) -> RoomConfig:
    return msgspec.structs.replace(config, commitment=other.commitment, key_id=other.key_id, nonce=other.nonce)
