"""Workflows of a waiting room.

A refresh also does what time has made due: it opens the room, calls tickets, closes the room. So a room needs no
dedicated process, and makes no progress while no caller reads it.
"""

from __future__ import annotations

__all__ = ["JoinResult", "close", "create", "join", "open_with", "refresh", "set_pace"]

import contextlib

import msgspec

from quota_engine.domain.errors import BackendUnavailable, InvalidRequest, OutcomeUnknown, QuotaEngineError
from quota_engine.ports import Query, View
from quota_engine.waiting_room.machine import (
    PLACES_LEFT_UNKNOWN,
    TICKETS_PER_CALL_MAX,
    CallTickets,
    CloseRoom,
    CreateRoom,
    JoinRoom,
    OpenRoom,
    RoomConfig,
    RoomResult,
    RoomStatus,
    RoomView,
    SetPace,
    ViewRoom,
)
from quota_engine.waiting_room.order import seed_of
from quota_engine.waiting_room.pacing import count_places_left, next_pace
from quota_engine.waiting_room.ticket_status import TicketPhase
from quota_engine.workflows.generator_drivers import Apply, Workflow
from quota_engine.workflows.room_config import RoomArguments, build_room_config
from quota_engine.workflows.room_view_cache import RoomViewCache, RoomViewSnapshot


class JoinResult(msgspec.Struct, frozen=True, gc=False):
    """Result of :meth:`quota_engine.WaitingRoom.join`.

    Args:
        status: ``JOINED``, or the reason of the refusal.
        ticket: the signed ticket, or ``""``.
        replayed: true if the identity had this ticket already.
        retry_at_ms: when a later call may succeed, in milliseconds since 1970; 0 if never.
    """

    status: RoomStatus
    ticket: str = ""
    replayed: bool = False
    retry_at_ms: int = 0

    @property
    def ok(self) -> bool:
        """True if there is a ticket."""
        return self.status is RoomStatus.JOINED


def create(cache: RoomViewCache, arguments: RoomArguments) -> Workflow[RoomStatus]:
    """Create the room, or find that it exists with the same configuration.

    The seed may differ: the first process that creates the room sets it.
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
    replaced_number = -1
    if replaces_ticket is not None:
        replaced_number = snapshot.ticket_number(replaces_ticket, identity)
        replaced = snapshot.ticket_status(replaces_ticket, cache.now_ms(snapshot.view))
        if replaced.phase is not TicketPhase.TURN_MISSED:
            raise InvalidRequest("replaces_ticket", f"a ticket that is {replaced.phase}", "one that has lost its turn")
    result: RoomResult = yield Apply(cache.address, JoinRoom(applicant, replaced_number))
    if not result.ok:
        return JoinResult(result.status, retry_at_ms=result.retry_at_ms)
    return JoinResult(result.status, snapshot.issue_ticket(result.index, applicant), result.replayed)


def open_with(cache: RoomViewCache, snapshot: RoomViewSnapshot, entropy: str) -> Workflow[RoomResult]:
    """Open the room with the text of its public entropy source."""
    seed = seed_of(cache.closing_seed(snapshot.view.config))
    return (yield from _apply(cache, OpenRoom(seed, entropy)))


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
    if view.is_closed:
        if view.closed_at_ms:
            return view
        closed: RoomResult = yield Apply(cache.address, CloseRoom(cache.closing_seed(config)))
        return closed.view or view
    if not view.seed:
        if view.now_ms < config.opens_at_ms or config.entropy_source:
            return view
        opened: RoomResult = yield Apply(cache.address, OpenRoom(seed_of(cache.closing_seed(config))))
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
