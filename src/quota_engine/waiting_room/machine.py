"""The waiting room of one release: who came, in which window, and how far they have been called. One pure machine.

Before the opening everybody who comes gets a ticket with the next number, one per identity. When the store's clock says
that it opens, these tickets are window 0, and their number is fixed; who comes later is in a window of ``window_ms``,
behind all earlier windows. Within a window the order is a permutation (see ``room_order``), which is no business of
this machine: it counts, and moves the mark. Positions below the **mark** have been called, in order, at the moments
that ``calls`` tells; a call is over ``claim_ms`` later, whether or not anybody came.

``apply(state, command, now_ms)`` changes a room, ``ask(state, question, now_ms)`` looks at it. Both answer with a
:class:`RoomResult`. The rules stand in ``docs/rules.md``.
"""

from __future__ import annotations

__all__ = [
    "ACTIVE_CALLS_MAX",
    "INDEX_NONE",
    "PLACES_LEFT_UNKNOWN",
    "TICKETS_MAX",
    "TICKETS_PER_CALL_MAX",
    "CallTickets",
    "CloseRoom",
    "CreateRoom",
    "JoinRoom",
    "OpenRoom",
    "RoomCommand",
    "RoomConfig",
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
from quota_engine.domain.validation import CAPACITY_MAX, TIME_MS_MAX, check_integer, check_name
from quota_engine.waiting_room.order import check_entropy, check_seed, commitment_of, seed_of
from quota_engine.waiting_room.permutation import SIZE_MAX

TICKETS_MAX: Final = SIZE_MAX
OPEN_MS_MAX: Final = 7 * 86_400_000
"""The longest time from opening to close."""
WINDOWS_MAX: Final = 4096
ACTIVE_CALLS_MAX: Final = 512
"""The most calls that can be going on at a time: ``claim_ms / step_ms``."""
PER_MINUTE_MAX: Final = 6_000_000
TICKETS_PER_CALL_MAX: Final = 1_000_000
DAYS_MAX: Final = 62
RETENTION_MS_MAX: Final = 366 * 86_400_000
PLACES_LEFT_MAX: Final = CAPACITY_MAX * DAYS_MAX
PLACES_LEFT_UNKNOWN: Final = -1
INDEX_NONE: Final = -1
_MINUTE_MS: Final = 60_000


class RoomConfig(msgspec.Struct, frozen=True):
    """What is fixed when a room is made.

    It serves one office's days from ``first_day`` to ``last_day`` (ordinals). Tickets are given from
    ``join_opens_at_ms``;
    it opens at ``opens_at_ms`` and closes at ``closes_at_ms``; at ``forget_at_ms`` it is gone. ``commitment`` commits
    to its seeds (see ``room_order``), which come from the secret ``key_id`` and ``nonce``; if ``entropy_source`` names
    a public source of chance, the room opens only with what that said. Later tickets are shuffled within
    ``window_ms``. ``channel`` and ``group`` (``""``: everybody) say which places it is about.

    The mark moves every ``step_ms`` at the earliest, by ``per_minute_min`` to ``per_minute_max`` tickets a minute and
    at most ``burst`` at a time. Whoever is called has ``claim_ms`` to come, and a pass that is good for ``lease_ms``
    longer. ``latency_max_ms``, ``calls_per_100_places`` and ``units_max`` are for ``serving``: how slow the store may
    get, how many people are called for the places left, and how many places one ticket may take.
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
        shortest_ms = max(1_000, -(-(self.closes_at_ms - self.opens_at_ms) // WINDOWS_MAX))
        check_integer(self.window_ms, "window_ms", shortest_ms, OPEN_MS_MAX)
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
        # With less, the fastest pace could not be kept from step to step.
        check_integer(self.burst, "burst", -(-self.per_minute_max * self.step_ms // _MINUTE_MS), TICKETS_PER_CALL_MAX)
        check_integer(self.latency_max_ms, "latency_max_ms", 1, 60_000)
        check_integer(self.calls_per_100_places, "calls_per_100_places", 1, 100_000)
        check_integer(self.units_max, "units_max", 1, 100)


# --- Commands, questions, answers ----------------------------------------------------------------------------------


class CreateRoom(msgspec.Struct, frozen=True):
    """Make the room, or find it made with the same terms."""

    config: RoomConfig


class JoinRoom(msgspec.Struct, frozen=True, gc=False):
    """Take a ticket, or get the one again that this applicant (a keyed hash) has.

    ``instead_of`` is the index of a ticket that has lost its turn, if this asks for a new one behind.
    """

    applicant: str
    replaces_ticket: int = INDEX_NONE

    def __post_init__(self) -> None:
        check_name(self.applicant, "applicant")
        if self.replaces_ticket != INDEX_NONE:
            check_integer(self.replaces_ticket, "replaces_ticket", 0, TICKETS_MAX - 1)


class OpenRoom(msgspec.Struct, frozen=True):
    """Reveal the seed, with the public entropy if the terms name a source of it."""

    seed: str
    entropy: str = ""

    def __post_init__(self) -> None:
        check_seed(self.seed, "seed")
        check_entropy(self.entropy, "entropy")


class CallTickets(msgspec.Struct, frozen=True, gc=False):
    """Move the mark on, if a step has passed, by what the pace so far allows and at most ``call_max``; go on at the
    pace of ``per_minute``, within the room's bounds. ``left``: places left, or ``PLACES_LEFT_UNKNOWN``.
    """

    per_minute: int
    tickets_max: int = TICKETS_PER_CALL_MAX
    places_left: int = PLACES_LEFT_UNKNOWN

    def __post_init__(self) -> None:
        check_integer(self.per_minute, "per_minute", 0, PER_MINUTE_MAX)
        check_integer(self.tickets_max, "call_max", 0, TICKETS_PER_CALL_MAX)
        if self.places_left != PLACES_LEFT_UNKNOWN:
            check_integer(self.places_left, "places_left", 0, PLACES_LEFT_MAX)


class CloseRoom(msgspec.Struct, frozen=True):
    """End the room, and reveal the late seed."""

    closing_seed: str

    def __post_init__(self) -> None:
        check_seed(self.closing_seed, "closing_seed")


class SetPace(msgspec.Struct, frozen=True, gc=False):
    """Let the pace go between these bounds from now on, in tickets a minute, whatever the terms say."""

    per_minute_min: int
    per_minute_max: int

    def __post_init__(self) -> None:
        check_integer(self.per_minute_min, "per_minute_min", 1, PER_MINUTE_MAX)
        check_integer(self.per_minute_max, "per_minute_max", self.per_minute_min, PER_MINUTE_MAX)


RoomCommand = CreateRoom | JoinRoom | OpenRoom | CallTickets | CloseRoom | SetPace


class ViewRoom(msgspec.Struct, frozen=True, gc=False):
    """How the room stands; changes nothing."""


class RoomStatus(enum.StrEnum):
    """The answer in a word, in order of precedence: the first that applies."""

    __hash__ = str.__hash__

    OVERLOADED = "OVERLOADED"
    """Too many calls wait for this room's store: turned away before anything was looked at."""
    NOT_FOUND = "NOT_FOUND"
    """No such room, or it has been forgotten."""
    CONFLICT = "CONFLICT"
    """The room exists with other terms; or the seed is not the one it is committed to, or comes with other entropy."""
    ROOM_CLOSED = "ROOM_CLOSED"
    """The room has closed."""
    NOT_OPEN = "NOT_OPEN"
    """Not before ``retry_at_ms``."""
    FULL = "FULL"
    """All tickets have been given."""
    JOINED = "JOINED"
    """There is a ticket: its number is ``index``."""
    DONE = "DONE"


class TicketCall(NamedTuple):
    """One move of the mark: at ``at_ms`` it came to ``mark``, when ``left`` places were left (or
    ``PLACES_LEFT_UNKNOWN``)."""

    at_ms: int
    called_count: int
    places_left: int


class RoomView(msgspec.Struct, frozen=True):
    """A room as it stands at ``now_ms``; the one thing that everybody who polls is answered from.

    ``changed_at_ms`` is when it last changed: what is final goes by that, since no later change can be earlier.
    ``windows`` are the numbers of the windows that have tickets, and the first index of each. Positions below
    ``lapsed`` have been called longer than ``claim_ms`` ago; ``calls`` tells when the others below ``mark`` were.
    ``tokens`` are in 1/60,000 of a ticket. ``pace_min`` and ``pace_max`` are an operator's bounds, 0 if not set.
    Seeds are ``""`` until they are revealed, moments 0 until they have come.
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

    @property
    def per_minute_min(self) -> int:
        """The least pace, as an operator or else the terms have it."""
        return self.pace_min or self.config.per_minute_min

    @property
    def per_minute_max(self) -> int:
        """The highest pace, as an operator or else the terms have it."""
        return self.pace_max or self.config.per_minute_max

    @property
    def is_closed(self) -> bool:
        """Whether it has closed, or its time is up."""
        return bool(self.closed_at_ms) or self.now_ms >= self.config.closes_at_ms


class RoomResult(msgspec.Struct, frozen=True, gc=False):
    """What a command or question came to. ``view`` comes with what was asked of the room as a whole."""

    status: RoomStatus
    index: int = INDEX_NONE
    replayed: bool = False
    retry_at_ms: int = 0
    view: RoomView | None = None

    @property
    def ok(self) -> bool:
        """Whether the asker has what they asked for."""
        return self.status in (RoomStatus.JOINED, RoomStatus.DONE)


# --- State ---------------------------------------------------------------------------------------------------------


class RoomState:
    """All that is known about one room. ``terms`` is ``None`` until it is made; ``now_ms`` is when it last changed."""

    __slots__ = (
        "called_count",
        "calls",
        "closed_at_ms",
        "closing_seed",
        "config",
        "entropy",
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

    def __init__(self, place: str = "") -> None:
        self.clear()

    def clear(self) -> None:
        """As if it had never been."""
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


def window_at(terms: RoomConfig, now_ms: int) -> int:
    """The window of a moment: 0 before the opening, then 1, 2 …"""
    return 0 if now_ms < terms.opens_at_ms else 1 + (now_ms - terms.opens_at_ms) // terms.window_ms


def tickets_ordered(room: RoomState | RoomView, changed_at_ms: int) -> int:
    """How many tickets are in windows that have ended, so that they have a position: all below this index.

    ``changed_at_ms`` is the time of a change of the room. A look is not enough: were the store's clock then set back, a
    ticket could still come into a window that had been seen to end.
    """
    assert room.config is not None
    if not room.windows or room.closed_at_ms or room.windows[-1][0] < window_at(room.config, changed_at_ms):
        return room.tickets
    return room.windows[-1][1]


def view_of(state: RoomState, now_ms: int) -> RoomView:
    """The room as it stands. There must be one."""
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
    )


def describe(state: RoomState) -> dict[str, Any]:
    """The whole state, for comparisons."""
    if state.config is None:
        return {}
    described = msgspec.structs.asdict(view_of(state, 0))
    described["identities"] = dict(sorted(state.identities.items()))
    return described


# --- Rules ---------------------------------------------------------------------------------------------------------


def apply(state: RoomState, command: RoomCommand, now_ms: int) -> RoomResult:
    """Carry out one command at ``now_ms`` (which never runs backwards); see ``docs/rules.md``."""
    now_ms = max(now_ms, state.now_ms)
    terms = _settled(state, now_ms)
    if isinstance(command, JoinRoom):
        return _NOT_FOUND if terms is None else _join(state, terms, command, now_ms)
    if isinstance(command, CreateRoom):
        return _create(state, terms, command, now_ms)
    if terms is None:
        return _NOT_FOUND
    if isinstance(command, CallTickets):
        return _serve(state, terms, command, now_ms)
    if isinstance(command, OpenRoom):
        return _open(state, terms, command, now_ms)
    if isinstance(command, SetPace):
        return _set_pace(state, terms, command, now_ms)
    return _close(state, terms, command, now_ms)


def answer_query(state: RoomState, question: ViewRoom, now_ms: int) -> RoomResult:
    """Look at the room at ``now_ms``: ``DONE`` with its view, or ``NOT_FOUND``."""
    now_ms = max(now_ms, state.now_ms)
    if state.config is None or now_ms >= state.config.forget_at_ms:
        return _NOT_FOUND
    return _seen(state, now_ms)


_NOT_FOUND: Final = RoomResult(RoomStatus.NOT_FOUND)
_CONFLICT: Final = RoomResult(RoomStatus.CONFLICT)
_OVER: Final = RoomResult(RoomStatus.ROOM_CLOSED)
_FULL: Final = RoomResult(RoomStatus.FULL)


def _seen(state: RoomState, now_ms: int, *, replayed: bool = False) -> RoomResult:
    return RoomResult(RoomStatus.DONE, replayed=replayed, view=view_of(state, now_ms))


def _settled(state: RoomState, now_ms: int) -> RoomConfig | None:
    """The terms; of a room whose time to be forgotten has come, nothing is left."""
    if state.config is not None and now_ms >= state.config.forget_at_ms:
        state.clear()
    return state.config


def _is_over(state: RoomState, terms: RoomConfig, now_ms: int) -> bool:
    return bool(state.closed_at_ms) or now_ms >= terms.closes_at_ms


def _create(state: RoomState, terms: RoomConfig | None, command: CreateRoom, now_ms: int) -> RoomResult:
    if terms is not None:
        return _seen(state, now_ms, replayed=True) if terms == command.config else _CONFLICT
    if now_ms >= command.config.opens_at_ms:  # whoever saw the tickets first could choose a seed to their liking
        return _OVER

    # From here on it must succeed.
    state.config, state.now_ms = command.config, now_ms
    return _seen(state, now_ms)


def _join(state: RoomState, terms: RoomConfig, command: JoinRoom, now_ms: int) -> RoomResult:
    known = state.identities.get(command.applicant, INDEX_NONE)
    if known not in (INDEX_NONE, command.replaces_ticket):
        return RoomResult(RoomStatus.JOINED, known, replayed=True)
    if _is_over(state, terms, now_ms):
        return _OVER
    if now_ms < terms.join_opens_at_ms:
        return RoomResult(RoomStatus.NOT_OPEN, retry_at_ms=terms.join_opens_at_ms)
    if state.tickets >= terms.tickets_max:
        return _FULL

    # From here on it must succeed.
    window = window_at(terms, now_ms)
    if not state.windows or state.windows[-1][0] < window:
        state.windows.append((window, state.tickets))
    index = state.tickets
    state.identities[command.applicant] = index
    state.tickets += 1
    state.now_ms = now_ms
    return RoomResult(RoomStatus.JOINED, index)


def _open(state: RoomState, terms: RoomConfig, command: OpenRoom, now_ms: int) -> RoomResult:
    if commitment_of(command.seed) != terms.commitment or bool(command.entropy) != bool(terms.entropy_source):
        return _CONFLICT
    if state.seed:
        return _seen(state, now_ms, replayed=True) if command.entropy == state.entropy else _CONFLICT
    if _is_over(state, terms, now_ms):
        return _OVER
    if now_ms < terms.opens_at_ms:  # by the store's clock, whatever the caller's says
        return RoomResult(RoomStatus.NOT_OPEN, retry_at_ms=terms.opens_at_ms)

    # From here on it must succeed.
    state.seed, state.entropy = command.seed, command.entropy
    state.opened_at_ms = state.now_ms = now_ms
    # One step's worth is there at once, so that the first are called at the opening.
    state.last_step_at_ms = now_ms - terms.step_ms
    state.per_minute = state.pace_max or terms.per_minute_max
    return _seen(state, now_ms)


def _serve(state: RoomState, terms: RoomConfig, command: CallTickets, now_ms: int) -> RoomResult:
    elapsed_ms = now_ms - state.last_step_at_ms
    if not state.seed or _is_over(state, terms, now_ms) or elapsed_ms < terms.step_ms:
        return _seen(state, now_ms)

    # From here on it must succeed.
    low, high = state.pace_min or terms.per_minute_min, state.pace_max or terms.per_minute_max
    tokens = min(_burst(terms, high) * _MINUTE_MS, state.tokens + elapsed_ms * state.per_minute)
    calls = min(tokens // _MINUTE_MS, tickets_ordered(state, now_ms) - state.called_count, command.tickets_max)
    state.tokens = tokens - calls * _MINUTE_MS
    state.per_minute = min(max(command.per_minute, low), high)
    state.last_step_at_ms = state.now_ms = now_ms
    if command.places_left != PLACES_LEFT_UNKNOWN:
        state.places_left = command.places_left
    if calls:
        state.called_count += calls
        state.calls.append(TicketCall(now_ms, state.called_count, state.places_left))
    over = 0
    while over < len(state.calls) and state.calls[over].at_ms + terms.turn_ms <= now_ms:
        over += 1
    if over:
        state.turns_ended = state.calls[over - 1].called_count
        del state.calls[:over]
    return _seen(state, now_ms)


def _burst(terms: RoomConfig, per_minute_max: int) -> int:
    """The most that are called at a time: with less than this, a pace that was raised could not be kept."""
    return max(terms.burst, -(-per_minute_max * terms.step_ms // _MINUTE_MS))


def _set_pace(state: RoomState, terms: RoomConfig, command: SetPace, now_ms: int) -> RoomResult:
    low, high = command.per_minute_min, command.per_minute_max
    if _is_over(state, terms, now_ms):
        return _OVER
    if (low, high) == (state.pace_min or terms.per_minute_min, state.pace_max or terms.per_minute_max):
        return _seen(state, now_ms, replayed=True)

    # From here on it must succeed.
    state.pace_min, state.pace_max, state.now_ms = low, high, now_ms
    state.tokens = min(state.tokens, _burst(terms, high) * _MINUTE_MS)
    if state.seed:
        state.per_minute = min(max(state.per_minute, low), high)
    return _seen(state, now_ms)


def _close(state: RoomState, terms: RoomConfig, command: CloseRoom, now_ms: int) -> RoomResult:
    if commitment_of(seed_of(command.closing_seed)) != terms.commitment:
        return _CONFLICT
    if state.closed_at_ms:
        return _seen(state, now_ms, replayed=True)

    # From here on it must succeed.
    state.closed_at_ms = state.now_ms = now_ms
    state.closing_seed = command.closing_seed
    return _seen(state, now_ms)
