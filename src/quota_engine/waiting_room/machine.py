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
    "ACTIVE_CALLS_MAX",
    "INDEX_NONE",
    "OPEN_MS_MAX",
    "PLACES_LEFT_UNKNOWN",
    "TICKETS_MAX",
    "TICKETS_PER_CALL_MAX",
    "CallTickets",
    "CloseRoom",
    "CreateRoom",
    "FindTicket",
    "JoinRoom",
    "OpenRoom",
    "RoomCommand",
    "RoomConfig",
    "RoomQuery",
    "RoomResult",
    "RoomState",
    "RoomStatus",
    "RoomView",
    "SetPace",
    "TicketCall",
    "ViewRoom",
    "answer_query",
    "apply",
    "describe",
    "tickets_ordered",
    "view_of",
    "window_at",
]

import enum
from typing import Any, Final, NamedTuple

import msgspec

from quota_engine.domain.commands import DAY_MAX
from quota_engine.domain.epochs import EPOCH_FIRST, EPOCH_MAX, AdvanceEpoch, EpochStart, add_epoch, epoch_of
from quota_engine.domain.validation import CAPACITY_MAX, TIME_MS_MAX, check_integer, check_name
from quota_engine.waiting_room.order import check_entropy, check_seed, commitment_of, seed_of
from quota_engine.waiting_room.permutation import SIZE_MAX

TICKETS_MAX: Final = SIZE_MAX
OPEN_MS_MAX: Final = 7 * 86_400_000
"""The longest time from the opening to the close."""
WINDOWS_MAX: Final = 4096
WINDOW_MS_MIN: Final = 1_000
ACTIVE_CALLS_MAX: Final = 512
"""The most calls whose turns have not ended: the upper bound of ``turn_ms / step_ms``."""
PER_MINUTE_MAX: Final = 6_000_000
TICKETS_PER_CALL_MAX: Final = 1_000_000
DAYS_MAX: Final = 62
RETENTION_MS_MAX: Final = 366 * 86_400_000
PLACES_LEFT_MAX: Final = CAPACITY_MAX * DAYS_MAX
PLACES_LEFT_UNKNOWN: Final = -1
INDEX_NONE: Final = -1
_MINUTE_MS: Final = 60_000


class RoomConfig(msgspec.Struct, frozen=True):
    """Settings of a room. They are fixed when the room is created.

    Moments are in milliseconds since 1970 (UTC).

    Attributes:
        office: Id of the office that the room serves.
        first_day: First day that the room serves (a date's ordinal).
        last_day: Last day that the room serves (a date's ordinal). At most 62 days from the first.
        join_opens_at_ms: Time from which the room gives tickets.
        opens_at_ms: Time at which the room opens.
        closes_at_ms: Time at which the room closes. At most 7 days after the opening.
        forget_at_ms: Time at which the store deletes the room.
        commitment: Hash that commits to both seeds; see :mod:`quota_engine.waiting_room.order`.
        key_id: Id of the secret from which the seeds are derived.
        nonce: Id from which the seeds are derived. It follows from the settings that are public.
        entropy_source: Public source of entropy. The room opens only with a text from it. ``""``: no entropy is used.
        channel: Channel of the places that the room is for.
        group: Applicant group of the places that the room is for. ``""``: all applicants.
        tickets_max: The most tickets that the room gives.
        window_ms: Length of the windows into which tickets fall after the opening, in milliseconds.
        step_ms: The shortest time between two calls, in milliseconds (100 to 60,000).
        turn_ms: Length of a turn, in milliseconds.
        pass_grace_ms: Time for which a pass stays valid after its turn, in milliseconds.
        per_minute_min: Lowest pace, in tickets a minute.
        per_minute_max: Highest pace, in tickets a minute.
        burst: The most tickets of one call.
        latency_max_ms: Response time of the store above which the pace falls, in milliseconds.
        calls_per_100_places: Called tickets without a place that are allowed for 100 places left.
        units_max: The most places that one ticket can take (1 to 100).

    Raises:
        InvalidRequest: A value is out of its range.
    """

    office: str
    first_day: int
    last_day: int
    join_opens_at_ms: int
    opens_at_ms: int
    closes_at_ms: int
    forget_at_ms: int
    commitment: str
    key_id: str
    nonce: str
    entropy_source: str = ""
    channel: str = "online"
    group: str = ""
    tickets_max: int = TICKETS_MAX
    window_ms: int = 10_000
    step_ms: int = 1_000
    turn_ms: int = 300_000
    pass_grace_ms: int = 900_000
    per_minute_min: int = 60
    per_minute_max: int = 6_000
    burst: int = 200
    latency_max_ms: int = 200
    calls_per_100_places: int = 150
    units_max: int = 1

    def __post_init__(self) -> None:
        check_name(self.office, "office")
        check_integer(self.first_day, "first_day", 1, DAY_MAX)
        check_integer(self.last_day, "last_day", self.first_day, self.first_day + DAYS_MAX - 1)
        check_integer(self.join_opens_at_ms, "join_opens_at_ms", 0, TIME_MS_MAX)
        check_integer(self.opens_at_ms, "opens_at_ms", self.join_opens_at_ms, TIME_MS_MAX)
        check_integer(self.closes_at_ms, "closes_at_ms", self.opens_at_ms + 1, self.opens_at_ms + OPEN_MS_MAX)
        check_seed(self.commitment, "commitment")
        check_name(self.key_id, "key_id")
        check_name(self.nonce, "nonce")
        check_entropy(self.entropy_source, "entropy_source")
        check_name(self.channel, "channel")
        if self.group:
            check_name(self.group, "group")
        check_integer(self.tickets_max, "tickets_max", 1, TICKETS_MAX)
        window_ms_min = max(WINDOW_MS_MIN, -(-(self.closes_at_ms - self.opens_at_ms) // WINDOWS_MAX))
        check_integer(self.window_ms, "window_ms", window_ms_min, OPEN_MS_MAX)
        check_integer(self.step_ms, "step_ms", 100, 60_000)
        check_integer(self.turn_ms, "turn_ms", self.step_ms, self.step_ms * ACTIVE_CALLS_MAX)
        check_integer(self.pass_grace_ms, "pass_grace_ms", 1_000, OPEN_MS_MAX)
        check_integer(
            self.forget_at_ms,
            "forget_at_ms",
            self.closes_at_ms + self.turn_ms + self.pass_grace_ms,
            self.closes_at_ms + RETENTION_MS_MAX,
        )
        check_integer(self.per_minute_min, "per_minute_min", 1, PER_MINUTE_MAX)
        check_integer(self.per_minute_max, "per_minute_max", self.per_minute_min, PER_MINUTE_MAX)
        # A smaller burst could not keep up the highest pace from step to step.
        check_integer(self.burst, "burst", -(-self.per_minute_max * self.step_ms // _MINUTE_MS), TICKETS_PER_CALL_MAX)
        check_integer(self.latency_max_ms, "latency_max_ms", 1, 60_000)
        check_integer(self.calls_per_100_places, "calls_per_100_places", 1, 100_000)
        check_integer(self.units_max, "units_max", 1, 100)


# --- Commands, the query and results -------------------------------------------------------------------------------


class CreateRoom(msgspec.Struct, frozen=True):
    """Create the room. Replayed if it exists with the same settings."""

    config: RoomConfig


class JoinRoom(msgspec.Struct, frozen=True, gc=False):
    """Take a ticket. An applicant who has one gets the same ticket again.

    Attributes:
        applicant: Keyed hash of the applicant.
        replaces_ticket: Index of a ticket that missed its turn, to get a new one behind. ``INDEX_NONE`` otherwise.
        replaces_epoch: Epoch of that ticket.
    """

    applicant: str
    replaces_ticket: int = INDEX_NONE
    replaces_epoch: int = EPOCH_FIRST

    def __post_init__(self) -> None:
        check_name(self.applicant, "applicant")
        if self.replaces_ticket != INDEX_NONE:
            check_integer(self.replaces_ticket, "replaces_ticket", 0, TICKETS_MAX - 1)
            check_integer(self.replaces_epoch, "replaces_epoch", EPOCH_FIRST, EPOCH_MAX)


class OpenRoom(msgspec.Struct, frozen=True):
    """Open the room by revealing its seed.

    Attributes:
        seed: The seed, in hex.
        entropy: Text from the entropy source. ``""`` if the room uses none.
        epoch: Epoch of the room that the sender has seen. 0: the first one.
    """

    seed: str
    entropy: str = ""
    epoch: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed, "seed")
        check_entropy(self.entropy, "entropy")
        check_integer(self.epoch, "epoch", 0, EPOCH_MAX)


class CallTickets(msgspec.Struct, frozen=True, gc=False):
    """Call the next tickets and set the pace, if ``step_ms`` has passed since the last step.

    The pace up to now decides how many tickets are called.

    Attributes:
        per_minute: Pace from now on, in tickets a minute. The room's bounds limit it.
        tickets_max: The most tickets to call.
        places_left: Places left, or ``PLACES_LEFT_UNKNOWN``.
    """

    per_minute: int
    tickets_max: int = TICKETS_PER_CALL_MAX
    places_left: int = PLACES_LEFT_UNKNOWN

    def __post_init__(self) -> None:
        check_integer(self.per_minute, "per_minute", 0, PER_MINUTE_MAX)
        check_integer(self.tickets_max, "tickets_max", 0, TICKETS_PER_CALL_MAX)
        if self.places_left != PLACES_LEFT_UNKNOWN:
            check_integer(self.places_left, "places_left", 0, PLACES_LEFT_MAX)


class CloseRoom(msgspec.Struct, frozen=True):
    """Close the room and reveal its closing seed, in hex."""

    closing_seed: str

    def __post_init__(self) -> None:
        check_seed(self.closing_seed, "closing_seed")


class SetPace(msgspec.Struct, frozen=True, gc=False):
    """Replace the bounds of the pace, in tickets a minute. They take precedence over the room's settings."""

    per_minute_min: int
    per_minute_max: int

    def __post_init__(self) -> None:
        check_integer(self.per_minute_min, "per_minute_min", 1, PER_MINUTE_MAX)
        check_integer(self.per_minute_max, "per_minute_max", self.per_minute_min, PER_MINUTE_MAX)


RoomCommand = CreateRoom | JoinRoom | OpenRoom | CallTickets | CloseRoom | SetPace | AdvanceEpoch


class ViewRoom(msgspec.Struct, frozen=True, gc=False):
    """Query the state of the room."""


class FindTicket(msgspec.Struct, frozen=True, gc=False):
    """Query the ticket that the room has of an applicant, and the epoch of the room.

    Attributes:
        applicant: Keyed hash of the applicant.
    """

    applicant: str

    def __post_init__(self) -> None:
        check_name(self.applicant, "applicant")


RoomQuery = ViewRoom | FindTicket


class RoomStatus(enum.StrEnum):
    """Status of a result, in order of precedence: the first that applies."""

    __hash__ = str.__hash__

    OVERLOADED = "OVERLOADED"
    """The queue of calls for this room's store is full. The room was not read."""
    NOT_FOUND = "NOT_FOUND"
    """The room does not exist, or the store has deleted it."""
    CONFLICT = "CONFLICT"
    """The room exists with other settings, the seed does not match the commitment, or the entropy differs."""
    ROOM_CLOSED = "ROOM_CLOSED"
    """The room has closed."""
    NOT_OPEN = "NOT_OPEN"
    """The command is possible from ``retry_at_ms``."""
    EPOCH_CHANGED = "EPOCH_CHANGED"
    """The room's store has failed over, so an earlier opening may be lost. Open the room with the entropy of that
    opening, and name the present epoch."""
    FULL = "FULL"
    """The room has given all its tickets."""
    NOT_JOINED = "NOT_JOINED"
    """The applicant has no ticket."""
    JOINED = "JOINED"
    """The applicant has the ticket ``index`` of ``epoch``."""
    DONE = "DONE"
    """The command was carried out, or the query answered."""


class TicketCall(NamedTuple):
    """One call: the time, the called count after it, and the places left then (or ``PLACES_LEFT_UNKNOWN``)."""

    at_ms: int
    called_count: int
    places_left: int


class RoomView(msgspec.Struct, frozen=True):
    """State of a room at one moment. All polls of the room are answered from one view.

    Moments are in milliseconds since 1970 (UTC), and 0 if they have not come. Seeds are ``""`` until they are revealed.

    Attributes:
        now_ms: Time of the view.
        changed_at_ms: Time of the room's last change. No later change can have an earlier time.
        config: Settings of the room.
        tickets: Tickets given so far.
        windows: Number and first ticket index of each window that has tickets.
        seed: Seed that orders the tickets of window 0.
        entropy: Text from the entropy source.
        opened_at_ms: Time at which the room opened.
        called_count: Tickets called so far.
        turns_ended: Called tickets whose turn had ended at the last step.
        calls: Calls whose turns had not ended at the last step.
        tokens: Unused pace from before the last step, in 1/60,000 of a ticket.
        per_minute: Pace, in tickets a minute.
        last_step_at_ms: Time of the last ``CallTickets`` that took effect.
        places_left: Places left, or ``PLACES_LEFT_UNKNOWN``.
        closed_at_ms: Time at which the room was closed.
        closing_seed: Seed that orders the tickets of later windows.
        pace_min: Lowest pace that an operator set, or 0.
        pace_max: Highest pace that an operator set, or 0.
        epoch: Epoch of the room, from 1. It grows when the room may have lost its last changes.
        epoch_starts: Each epoch above 1, and the number of tickets at its start; without epochs that gave no ticket.
    """

    now_ms: int
    changed_at_ms: int
    config: RoomConfig
    tickets: int
    windows: tuple[tuple[int, int], ...]
    seed: str
    entropy: str
    opened_at_ms: int
    called_count: int
    turns_ended: int
    calls: tuple[TicketCall, ...]
    tokens: int
    per_minute: int
    last_step_at_ms: int
    places_left: int
    closed_at_ms: int
    closing_seed: str
    pace_min: int = 0
    pace_max: int = 0
    epoch: int = EPOCH_FIRST
    epoch_starts: tuple[EpochStart, ...] = ()

    @property
    def per_minute_min(self) -> int:
        """Lowest pace that is allowed, in tickets a minute."""
        return self.pace_min or self.config.per_minute_min

    @property
    def per_minute_max(self) -> int:
        """Highest pace that is allowed, in tickets a minute."""
        return self.pace_max or self.config.per_minute_max

    @property
    def is_closed(self) -> bool:
        """True if the room was closed, or if its closing time has passed."""
        return bool(self.closed_at_ms) or self.now_ms >= self.config.closes_at_ms


class RoomResult(msgspec.Struct, frozen=True, gc=False):
    """Result of a command or query.

    Attributes:
        status: The status.
        index: Index of the ticket, for ``JOINED``.
        replayed: True if an earlier command had the same effect.
        retry_at_ms: Time from which the command is possible, for ``NOT_OPEN``.
        view: The room after the command, for ``DONE``.
        epoch: Epoch in which the room gave the ticket, for ``JOINED``; otherwise 0.
        room_epoch: Epoch of the room, for ``FindTicket`` and ``EPOCH_CHANGED``; otherwise 0.
    """

    status: RoomStatus
    index: int = INDEX_NONE
    replayed: bool = False
    retry_at_ms: int = 0
    view: RoomView | None = None
    epoch: int = 0
    room_epoch: int = 0

    @property
    def ok(self) -> bool:
        """True if the command or query succeeded."""
        return self.status in (RoomStatus.JOINED, RoomStatus.DONE)


# --- State ---------------------------------------------------------------------------------------------------------


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
    tokens = min(_burst(config, pace_max) * _MINUTE_MS, state.tokens + elapsed_ms * state.per_minute)
    count = min(tokens // _MINUTE_MS, tickets_ordered(state, now_ms) - state.called_count, command.tickets_max)
    state.tokens = tokens - count * _MINUTE_MS
    state.per_minute = min(max(command.per_minute, pace_min), pace_max)
    state.last_step_at_ms = state.now_ms = now_ms
    if command.places_left != PLACES_LEFT_UNKNOWN:
        state.places_left = command.places_left
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
    return max(config.burst, -(-per_minute_max * config.step_ms // _MINUTE_MS))


def _set_pace(state: RoomState, config: RoomConfig, command: SetPace, now_ms: int) -> RoomResult:
    pace_min, pace_max = command.per_minute_min, command.per_minute_max
    if _is_closed(state, config, now_ms):
        return _ROOM_CLOSED
    if (pace_min, pace_max) == (state.pace_min or config.per_minute_min, state.pace_max or config.per_minute_max):
        return _done(state, now_ms, replayed=True)

    # From here on it must succeed.
    state.pace_min, state.pace_max, state.now_ms = pace_min, pace_max, now_ms
    state.tokens = min(state.tokens, _burst(config, pace_max) * _MINUTE_MS)
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
