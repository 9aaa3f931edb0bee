"""State machine of the waiting room of one release. Pure: the time and the seeds are arguments.

Theory of operation:

- Before the opening, each applicant gets one ticket, with the next free index, from 0. The number that the applicant
  sees is the index plus 1. These tickets are window 0. Their count is fixed when the store's clock reaches the
  opening time.
- After the opening, tickets fall into windows of ``window_ms``, each behind all windows before it.
- The order within a window is a permutation; see :mod:`quota_engine.waiting_room.order`. The machine does not compute
  it. The machine counts tickets and decides how many positions have been called.
- Positions count from 1. Those up to ``called_count`` have been called, in order. ``calls`` lists when. The turn of a
  called position ends ``turn_ms`` later, whether or not its applicant entered.
- Epochs separate the tickets from before and after a failover that lost the room's last joins. A store that takes the
  room over on another server raises the epoch. The tickets that the room still has then are all below the count at that
  moment, and lost ones are not. So the starts of the epochs give the epoch of each number, and a ticket with another
  epoch is a lost one; see :mod:`quota_engine.domain.epochs`.

:func:`apply` changes a room, and :func:`answer_query` reads it. Both return a :class:`RoomResult`. ``docs/rules.md``
states the rules.
"""

from __future__ import annotations

__all__ = [
    "RoomState",
    "answer_query",
    "apply",
    "describe",
    "tickets_ordered",
    "view_of",
    "window_at",
]

from typing import Any, Final

import msgspec

from quota_engine.domain.epochs import EPOCH_FIRST, AdvanceEpoch, EpochStart, add_epoch, epoch_of
from quota_engine.waiting_room.commands import (
    INDEX_NONE,
    MINUTE_MS,
    PLACES_LEFT_UNKNOWN,
    CallTickets,
    CloseRoom,
    CreateRoom,
    JoinRoom,
    OpenRoom,
    RoomCommand,
    RoomConfig,
    RoomQuery,
    SetPace,
    ViewRoom,
)
from quota_engine.waiting_room.order import commitment_of, seed_of
from quota_engine.waiting_room.results import RoomResult, RoomStatus, RoomView, TicketCall


class RoomState:
    """Mutable state of one room; see :class:`RoomView` for its fields.

    ``config`` is ``None`` until the room is created. ``now_ms`` is the time of the last change. ``identities`` maps
    the keyed hash of each applicant to the index of their ticket.
    """

    __slots__ = (
        "called_count",
        "calls",
        "closed_at_ms",
        "closing_seed",
        "config",
        "entropy",
        "epoch",
        "epoch_starts",
        "identities",
        "last_step_at_ms",
        "now_ms",
        "opened_at_ms",
        "pace_max",
        "pace_min",
        "per_minute",
        "places_left",
        "seed",
        "tickets",
        "tokens",
        "turns_ended",
        "windows",
    )

    def __init__(self, address: str = "") -> None:
        """Create the empty state of the ledger at ``address``, which a room does not need to know."""
        self.clear()

    def clear(self) -> None:
        """Reset everything, as before the room was created."""
        self.config: RoomConfig | None = None
        self.now_ms = 0
        self.identities: dict[str, int] = {}
        self.tickets = 0
        self.windows: list[tuple[int, int]] = []
        self.seed = ""
        self.entropy = ""
        self.opened_at_ms = 0
        self.called_count = 0
        self.turns_ended = 0
        self.calls: list[TicketCall] = []
        self.tokens = 0
        self.per_minute = 0
        self.last_step_at_ms = 0
        self.places_left = PLACES_LEFT_UNKNOWN
        self.closed_at_ms = 0
        self.closing_seed = ""
        self.pace_min = 0
        self.pace_max = 0
        self.epoch = EPOCH_FIRST
        self.epoch_starts: list[EpochStart] = []


def window_at(config: RoomConfig, now_ms: int) -> int:
    """Return the number of the window at a moment: 0 before the opening, then 1, 2 and so on."""
    return 0 if now_ms < config.opens_at_ms else 1 + (now_ms - config.opens_at_ms) // config.window_ms


def tickets_ordered(room: RoomState | RoomView, changed_at_ms: int) -> int:
    """Return how many tickets have a final position. Tickets are ordered once their window has ended.

    Args:
        room: The room.
        changed_at_ms: Time of a change of the room. The time of a mere read does not do: if the store's clock were set
            back after it, a ticket could still join a window that seemed to have ended.
    """
    assert room.config is not None
    if not room.windows or room.closed_at_ms or room.windows[-1][0] < window_at(room.config, changed_at_ms):
        return room.tickets
    return room.windows[-1][1]


def view_of(state: RoomState, now_ms: int) -> RoomView:
    """Return a view of a room that exists.

    Args:
        state: The room.
        now_ms: Time of the view. An earlier time than the last change counts as the time of that change.
    """
    assert state.config is not None
    return RoomView(
        max(now_ms, state.now_ms),
        state.now_ms,
        state.config,
        state.tickets,
        tuple(state.windows),
        state.seed,
        state.entropy,
        state.opened_at_ms,
        state.called_count,
        state.turns_ended,
        tuple(state.calls),
        state.tokens,
        state.per_minute,
        state.last_step_at_ms,
        state.places_left,
        state.closed_at_ms,
        state.closing_seed,
        state.pace_min,
        state.pace_max,
        state.epoch,
        tuple(state.epoch_starts),
    )


def describe(state: RoomState) -> dict[str, Any]:
    """Return the whole state as a dictionary, to compare stores."""
    if state.config is None:
        return {}
    described = msgspec.structs.asdict(view_of(state, 0))
    described["identities"] = dict(sorted(state.identities.items()))
    return described


# --- Rules ---------------------------------------------------------------------------------------------------------


def apply(state: RoomState, command: RoomCommand, now_ms: int) -> RoomResult:
    """Apply one command, or refuse it without a change.

    Args:
        state: The room. It is changed in place.
        command: The command.
        now_ms: The store's time, in milliseconds since 1970 (UTC). An earlier time than that of the last change counts
            as the time of that change.
    """
    now_ms = max(now_ms, state.now_ms)
    config = _forget_if_due(state, now_ms)
    if isinstance(command, JoinRoom):
        return _NOT_FOUND if config is None else _join(state, config, command, now_ms)
    if isinstance(command, CreateRoom):
        return _create(state, config, command, now_ms)
    if config is None:
        return _NOT_FOUND
    if isinstance(command, CallTickets):
        return _call_tickets(state, config, command, now_ms)
    if isinstance(command, OpenRoom):
        return _open(state, config, command, now_ms)
    if isinstance(command, SetPace):
        return _set_pace(state, config, command, now_ms)
    if isinstance(command, AdvanceEpoch):
        return _advance_epoch(state, command, now_ms)
    return _close(state, config, command, now_ms)


def answer_query(state: RoomState, query: RoomQuery, now_ms: int) -> RoomResult:
    """Answer a query without a change. See :func:`apply` for ``now_ms``.

    Returns:
        ``NOT_FOUND``; for a view, ``DONE`` with it; for a ticket, ``JOINED`` with it or ``NOT_JOINED``.
    """
    now_ms = max(now_ms, state.now_ms)
    if state.config is None or now_ms >= state.config.forget_at_ms:
        return _NOT_FOUND
    if isinstance(query, ViewRoom):
        return _done(state, now_ms)
    index = state.identities.get(query.applicant, INDEX_NONE)
    if index == INDEX_NONE:
        return RoomResult(RoomStatus.NOT_JOINED, room_epoch=state.epoch)
    epoch = epoch_of(state.epoch_starts, index)
    return RoomResult(RoomStatus.JOINED, index, epoch=epoch, room_epoch=state.epoch)


_NOT_FOUND: Final = RoomResult(RoomStatus.NOT_FOUND)
_CONFLICT: Final = RoomResult(RoomStatus.CONFLICT)
_ROOM_CLOSED: Final = RoomResult(RoomStatus.ROOM_CLOSED)
_FULL: Final = RoomResult(RoomStatus.FULL)


def _done(state: RoomState, now_ms: int, *, replayed: bool = False) -> RoomResult:
    return RoomResult(RoomStatus.DONE, replayed=replayed, view=view_of(state, now_ms))


def _forget_if_due(state: RoomState, now_ms: int) -> RoomConfig | None:
    """Return the settings, after clearing a room whose time to be deleted has come."""
    if state.config is not None and now_ms >= state.config.forget_at_ms:
        state.clear()
    return state.config


def _is_closed(state: RoomState, config: RoomConfig, now_ms: int) -> bool:
    return bool(state.closed_at_ms) or now_ms >= config.closes_at_ms


def _create(state: RoomState, config: RoomConfig | None, command: CreateRoom, now_ms: int) -> RoomResult:
    if config is not None:
        return _done(state, now_ms, replayed=True) if config == command.config else _CONFLICT
    if now_ms >= command.config.opens_at_ms:  # a creator who knows the tickets could choose a seed that favors some
        return _ROOM_CLOSED

    # From here on it must succeed.
    state.config, state.now_ms = command.config, now_ms
    return _done(state, now_ms)


def _join(state: RoomState, config: RoomConfig, command: JoinRoom, now_ms: int) -> RoomResult:
    known = state.identities.get(command.applicant, INDEX_NONE)
    # A lost ticket may have the number of the ticket that the applicant has now. It replaces nothing.
    known_epoch = epoch_of(state.epoch_starts, known)
    if known != INDEX_NONE and (known, known_epoch) != (command.replaces_ticket, command.replaces_epoch):
        return RoomResult(RoomStatus.JOINED, known, replayed=True, epoch=known_epoch)
    if _is_closed(state, config, now_ms):
        return _ROOM_CLOSED
    if now_ms < config.join_opens_at_ms:
        return RoomResult(RoomStatus.NOT_OPEN, retry_at_ms=config.join_opens_at_ms)
    if state.tickets >= config.tickets_max:
        return _FULL

    # From here on it must succeed.
    window = window_at(config, now_ms)
    if not state.windows or state.windows[-1][0] < window:
        state.windows.append((window, state.tickets))
    index = state.tickets
    state.identities[command.applicant] = index
    state.tickets += 1
    state.now_ms = now_ms
    return RoomResult(RoomStatus.JOINED, index, epoch=state.epoch)


def _open(state: RoomState, config: RoomConfig, command: OpenRoom, now_ms: int) -> RoomResult:
    if commitment_of(command.seed) != config.commitment or bool(command.entropy) != bool(config.entropy_source):
        return _CONFLICT
    if state.seed:
        return _done(state, now_ms, replayed=True) if command.entropy == state.entropy else _CONFLICT
    if _is_closed(state, config, now_ms):
        return _ROOM_CLOSED
    if now_ms < config.opens_at_ms:  # by the store's clock; a caller's clock may be fast
        return RoomResult(RoomStatus.NOT_OPEN, retry_at_ms=config.opens_at_ms)
    if config.entropy_source and state.epoch != (command.epoch or EPOCH_FIRST):
        return RoomResult(RoomStatus.EPOCH_CHANGED, room_epoch=state.epoch)

    # From here on it must succeed.
    state.seed, state.entropy = command.seed, command.entropy
    state.opened_at_ms = state.now_ms = now_ms
    # The tokens of one step are available at once, so that the first tickets are called at the opening.
    state.last_step_at_ms = now_ms - config.step_ms
    state.per_minute = state.pace_max or config.per_minute_max
    return _done(state, now_ms)


def _call_tickets(state: RoomState, config: RoomConfig, command: CallTickets, now_ms: int) -> RoomResult:
    elapsed_ms = now_ms - state.last_step_at_ms
    if not state.seed or _is_closed(state, config, now_ms) or elapsed_ms < config.step_ms:
        return _done(state, now_ms)

    # From here on it must succeed.
    pace_min, pace_max = state.pace_min or config.per_minute_min, state.pace_max or config.per_minute_max
    tokens = min(_burst(config, pace_max) * MINUTE_MS, state.tokens + elapsed_ms * state.per_minute)
    # After the time was corrected back, more tickets may be called already than are ordered.
    ordered = max(tickets_ordered(state, now_ms) - state.called_count, 0)
    count = min(tokens // MINUTE_MS, ordered, command.tickets_max)
    state.tokens = tokens - count * MINUTE_MS
    state.per_minute = min(max(command.per_minute, pace_min), pace_max)
    state.last_step_at_ms = state.now_ms = now_ms
    if command.places_left != PLACES_LEFT_UNKNOWN:
        state.places_left = command.places_left
    for at, call in enumerate(state.calls):
        if call.at_ms > now_ms:  # by a clock that was corrected back since: these turns begin now
            state.calls[at] = call._replace(at_ms=now_ms)
    if count:
        state.called_count += count
        state.calls.append(TicketCall(now_ms, state.called_count, state.places_left))
    ended = 0
    while ended < len(state.calls) and state.calls[ended].at_ms + config.turn_ms <= now_ms:
        ended += 1
    if ended:
        state.turns_ended = state.calls[ended - 1].called_count
        del state.calls[:ended]
    return _done(state, now_ms)


def _burst(config: RoomConfig, per_minute_max: int) -> int:
    """Return the most tickets of one call. An operator may raise the highest pace above what ``burst`` allows."""
    return max(config.burst, -(-per_minute_max * config.step_ms // MINUTE_MS))


def _set_pace(state: RoomState, config: RoomConfig, command: SetPace, now_ms: int) -> RoomResult:
    pace_min, pace_max = command.per_minute_min, command.per_minute_max
    if _is_closed(state, config, now_ms):
        return _ROOM_CLOSED
    if (pace_min, pace_max) == (state.pace_min or config.per_minute_min, state.pace_max or config.per_minute_max):
        return _done(state, now_ms, replayed=True)

    # From here on it must succeed.
    state.pace_min, state.pace_max, state.now_ms = pace_min, pace_max, now_ms
    state.tokens = min(state.tokens, _burst(config, pace_max) * MINUTE_MS)
    if state.seed:
        state.per_minute = min(max(state.per_minute, pace_min), pace_max)
    return _done(state, now_ms)


def _close(state: RoomState, config: RoomConfig, command: CloseRoom, now_ms: int) -> RoomResult:
    if commitment_of(seed_of(command.closing_seed)) != config.commitment:
        return _CONFLICT
    if state.closed_at_ms:
        return _done(state, now_ms, replayed=True)

    # From here on it must succeed.
    state.closed_at_ms = state.now_ms = now_ms
    state.closing_seed = command.closing_seed
    return _done(state, now_ms)


def _advance_epoch(state: RoomState, command: AdvanceEpoch, now_ms: int) -> RoomResult:
    state.epoch = max(state.epoch, command.epoch_min) + 1
    add_epoch(state.epoch_starts, state.epoch, state.tickets)
    return _done(state, now_ms)
