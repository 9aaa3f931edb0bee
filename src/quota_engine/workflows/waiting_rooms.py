"""Waiting rooms as an engine uses them: one look at the store serves all who poll, until it is ``refresh_ms`` old.

A :class:`RoomBook` is what one engine knows of one room. Flows ask the store; everything that a single ticket is told
is worked out from the book. Whoever refreshes also does what time has made due: opens the room, moves the mark, closes
it. So a room needs no process of its own, and stands still when nobody looks.
"""

from __future__ import annotations

__all__ = [
    "EnterResult",
    "JoinResult",
    "Moment",
    "RoomBook",
    "RoomSettings",
    "close",
    "create",
    "join",
    "moment_ms",
    "open_with",
    "refresh",
    "set_pace",
]

import contextlib
import datetime
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from quota_engine.admission.tickets import RoomTickets
from quota_engine.catalog import Catalog, choice_of, get_office
from quota_engine.domain.errors import (
    BackendUnavailable,
    InvalidRequest,
    OutcomeUnknown,
    QuotaEngineError,
    UnknownName,
)
from quota_engine.domain.model import Choice
from quota_engine.domain.validation import TIME_MS_MAX, check_integer, check_name
from quota_engine.ports import Query, View
from quota_engine.waiting_room.machine import (
    PLACES_LEFT_UNKNOWN,
    TICKETS_MAX,
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
from quota_engine.waiting_room.order import RoomOrder, commitment_of, seed_of
from quota_engine.waiting_room.pacing import count_places_left, next_pace
from quota_engine.waiting_room.ticket_status import (
    POSITION_NONE,
    TicketPhase,
    TicketStatus,
    pass_until_ms,
    position_of,
    ticket_status,
)
from quota_engine.waiting_room.transcript import RoomTranscript, transcript_of
from quota_engine.workflows.generator_drivers import Apply, Workflow
from quota_engine.workflows.request_builder import Day, RequestBuilder

Moment = int | str | datetime.datetime
"""Milliseconds since 1970 (UTC), or a time with its offset from UTC, such as ``2026-12-04T14:00:00+07:00``."""

REFRESH_MS: Final = 500
STALE_MS_MAX: Final = 10_000
"""While the store does not answer, polls are answered from a look up to this old."""
POSITIONS_MAX: Final = 100_000
"""So many tickets need not have their signature checked again, and their position worked out, at each poll."""
_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS


class RoomSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a room works, where the defaults do not do; 0 stands for what the comment says.

    ``window_ms``: who comes after the opening is shuffled with those of the same window. ``claim_ms``: how long a turn
    lasts. ``lease_ms``: how long after it a pass is good (0: as long as the office's holds; never less). The mark moves
    every ``step_ms`` at the earliest, by ``per_minute_min`` to ``per_minute_max`` tickets a minute, at most ``burst``
    at a time (0: twice what a step needs); slower when the store takes longer than ``latency_max_ms``; and for 100
    places left at most ``calls_per_100_places`` people have their turn at a time. ``units_max``: places that one ticket
    may take (0: the office's largest party). ``retention_ms``: how long after the close the room is known.
    """

    window_ms: int = 10_000
    step_ms: int = 1_000
    turn_ms: int = 300_000
    pass_grace_ms: int = 0
    per_minute_min: int = 60
    per_minute_max: int = 6_000
    burst: int = 0
    latency_max_ms: int = 200
    calls_per_100_places: int = 150
    units_max: int = 0
    tickets_max: int = TICKETS_MAX
    retention_ms: int = 30 * _DAY_MS


class JoinResult(msgspec.Struct, frozen=True, gc=False):
    """What a join came to. ``ticket`` is the signed text, or ``""``; ``replayed``: it had been given before."""

    status: RoomStatus
    ticket: str = ""
    replayed: bool = False
    retry_at_ms: int = 0

    @property
    def ok(self) -> bool:
        """Whether there is a ticket."""
        return self.status is RoomStatus.JOINED


class EnterResult(msgspec.Struct, frozen=True, gc=False):
    """What came of entering: the pass, good until ``until_ms``, if the ticket has its turn (``standing`` tells)."""

    ticket_status: TicketStatus
    admission_pass: str = ""
    until_ms: int = 0

    @property
    def ok(self) -> bool:
        """Whether there is a pass."""
        return self.ticket_status.phase is TicketPhase.CALLED


class _Seen(NamedTuple):
    """One look at a room, with what reads its tickets: taken over as a whole, so that nobody mixes two rooms up."""

    view: RoomView
    tickets: RoomTickets
    orders: RoomOrder
    positions: dict[str, int]


class RoomBook:
    """What one engine knows of one room, as of its last look at the store.

    Whoever drives the flows sees to it that one refresh runs at a time; reading goes on meanwhile.
    """

    def __init__(
        self, desk: RequestBuilder, room: str, local_ms: Callable[[], int], refresh_ms: int = REFRESH_MS
    ) -> None:
        """``local_ms``: a clock of this process, in milliseconds from anywhere, to tell how old a look is."""
        check_name(room, "room")
        check_integer(refresh_ms, "refresh_ms", 1, STALE_MS_MAX)
        self.desk = desk
        self.room = room
        self.place = f"~room.{room}"
        self.local_ms = local_ms
        self._refresh_ms = refresh_ms
        self._seen: _Seen | None = None
        self._looked_at_ms: int | None = None
        self._failed_at_ms: int | None = None
        self._choices: tuple[Catalog, tuple[Choice, ...]] | None = None

    # ------------------------------------------------------------------ how old it is

    @property
    def is_known(self) -> bool:
        """Whether there was such a room at the last look."""
        return self._seen is not None

    def is_fresh(self, max_age_ms: int | None = None) -> bool:
        """Whether no look is needed: one is young enough (``max_age_ms``; ``None``: as for all); or the last one failed
        just now, and an older one will do.
        """
        if self._age_ms() < (self._refresh_ms if max_age_ms is None else max_age_ms):
            return True
        failed_ms = self._failed_at_ms
        return failed_ms is not None and self.local_ms() - failed_ms < self._refresh_ms and self.will_do()

    def will_do(self) -> bool:
        """Whether the last look may still be answered from while somebody else gets a new one."""
        return self._seen is not None and self._age_ms() < STALE_MS_MAX

    def _age_ms(self) -> int:
        return STALE_MS_MAX if self._looked_at_ms is None else self.local_ms() - self._looked_at_ms

    def take(self, view: RoomView | None, looked_at_ms: int) -> None:
        """Answer from this view from now on; ``None``: there is no such room. ``looked_at_ms`` is local."""
        before = self._seen
        if view is None:
            self._seen = None
        elif before is not None and before.view.config == view.config and before.view.seed == view.seed:
            self._seen = before._replace(view=view)
        else:
            terms = view.config
            closing_seed = view.closing_seed or self.closing_seed(terms)
            tickets = RoomTickets(self.desk.ticket_keys, self.room, terms.commitment, terms.key_id)
            orders = RoomOrder(self.room, terms.commitment, view.entropy, view.seed, closing_seed)
            self._seen = _Seen(view, tickets, orders, {})
        self._looked_at_ms, self._failed_at_ms = looked_at_ms, None

    def failed(self) -> None:
        """The store did not answer."""
        self._failed_at_ms = self.local_ms()

    # ------------------------------------------------------------------ what it tells

    def closing_seed(self, terms: RoomConfig) -> str:
        """The late seed of a room with these terms. Raises :class:`InvalidRequest` if its key is not here."""
        return self.desk.ticket_keys.derive_closing_seed(terms.key_id, self.room, terms.nonce)

    def seen(self) -> _Seen:
        """The room as it was last seen, and what belongs to it.

        Raises:
            UnknownName: there is none.
        """
        if self._seen is None:
            raise UnknownName("room", f"there is no {self.room}, or it has been forgotten", "one that has been made")
        return self._seen

    def view(self) -> RoomView:
        """The room as it was last seen. Raises as :meth:`seen`."""
        return self.seen().view

    def now_ms(self, view: RoomView) -> int:
        """The store's time, as far as it can be told from here."""
        return view.now_ms + max(0, self._age_ms())

    def record(self) -> RoomTranscript:
        """The public record."""
        return transcript_of(self.room, self.view())

    def ticket(self, index: int, applicant: str) -> str:
        """The signed ticket of this number for this applicant (a keyed hash)."""
        seen = self.seen()
        terms = seen.view.config
        return seen.tickets.ticket(index, applicant, terms.closes_at_ms + terms.turn_ms)

    def read(self, ticket: str, identity: str | None) -> int:
        """The number on a ticket. Raises :class:`InvalidRequest` if it is not a good one, or not ``identity``'s."""
        seen = self.seen()
        return seen.tickets.read(ticket, seen.view.now_ms, self.desk.owner(identity))

    def standing(self, ticket: str) -> TicketStatus:
        """How a ticket stands, whosever it is. Raises as :meth:`read`."""
        view, tickets, orders, positions = self.seen()
        position = positions.get(ticket) if isinstance(ticket, str) else None
        if position is None:
            position = position_of(view, orders, tickets.read(ticket, view.now_ms))
            if position != POSITION_NONE:
                if len(positions) >= POSITIONS_MAX:
                    positions.clear()
                positions[ticket] = position
        return ticket_status(view, position, self.now_ms(view))

    def admission(self, ticket: str, identity: str) -> EnterResult:
        """The pass of a ticket that has its turn: the same one each time. Raises as :meth:`read`."""
        view, tickets, orders, _ = self.seen()
        applicant = self.desk.owner(identity)
        index = tickets.read(ticket, view.now_ms, applicant)
        found = ticket_status(view, position_of(view, orders, index), self.now_ms(view))
        if found.phase is not TicketPhase.CALLED:
            return EnterResult(found)
        terms = view.config
        until_ms = pass_until_ms(view, found.position)
        admission_pass = tickets.admission_pass(
            index, applicant, terms.office, terms.first_day, terms.last_day, until_ms
        )
        return EnterResult(found, admission_pass, until_ms)

    def choices(self, terms: RoomConfig) -> tuple[Choice, ...]:
        """What people of the room may want: its places are those that these come to."""
        catalog = self.desk.catalog
        if self._choices is None or self._choices[0] is not catalog:
            self._choices = catalog, _choices(catalog, terms)
        return self._choices[1]


# --- Flows ---------------------------------------------------------------------------------------------------------


def create(
    book: RoomBook,
    office: str,
    first_day: Day,
    last_day: Day | None,
    opens_at: Moment,
    closes_at: Moment | None,
    join_opens_at: Moment | None,
    entropy_source: str,
    channel: str,
    group: str,
    settings: RoomSettings,
) -> Workflow[RoomStatus]:
    """Make the room, or find it made as it should be: everything may be as asked for but the seed, which is the first
    maker's. See :meth:`quota_engine.Room.create`.
    """
    terms = _terms(
        book, office, first_day, last_day, opens_at, closes_at, join_opens_at, entropy_source, channel, group, settings
    )
    _choices(book.desk.catalog, terms)  # says what is wrong with channel and group
    local_ms = book.local_ms()
    answer: RoomResult = yield Apply(book.place, CreateRoom(terms))
    if answer.status is RoomStatus.CONFLICT:
        found: RoomResult = yield Query(book.place, ViewRoom())
        if found.view is None or _but_for_the_seed(found.view.config, terms) != terms:
            return RoomStatus.CONFLICT
        answer = found
    if answer.view is not None:
        book.take(answer.view, local_ms)
    return answer.status


def refresh(book: RoomBook) -> Workflow[None]:
    """Look at the room, and do what time has made due: open it, move the mark, close it."""
    local_ms = book.local_ms()
    answer: RoomResult
    try:
        answer = yield Query(book.place, ViewRoom())
    except QuotaEngineError:
        book.failed()
        raise
    view = answer.view
    if view is not None:
        # A store that can be looked at but takes nothing (out of memory, say) still answers polls: the mark stands.
        with contextlib.suppress(BackendUnavailable, OutcomeUnknown):
            view = yield from _moved_on(book, view, book.local_ms() - local_ms)
    book.take(view, local_ms)


def join(book: RoomBook, identity: str, replaces_ticket: str | None) -> Workflow[JoinResult]:
    """Take a ticket; see :meth:`quota_engine.Room.join`. The book must be fresh."""
    applicant = book.desk.owner(identity)
    index = -1
    if replaces_ticket is not None:
        index = book.read(replaces_ticket, identity)
        lost = book.standing(replaces_ticket)
        if lost.phase is not TicketPhase.TURN_MISSED:
            raise InvalidRequest("replaces_ticket", f"a ticket that is {lost.phase}", "one that has lost its turn")
    book.view()
    answer: RoomResult = yield Apply(book.place, JoinRoom(applicant, index))
    if not answer.ok:
        return JoinResult(answer.status, retry_at_ms=answer.retry_at_ms)
    return JoinResult(answer.status, book.ticket(answer.index, applicant), answer.replayed)


def open_with(book: RoomBook, entropy: str) -> Workflow[RoomResult]:
    """Open the room with what its public source of chance has said. The book must be fresh."""
    seed = seed_of(book.closing_seed(book.view().config))
    return (yield from _step(book, OpenRoom(seed, entropy)))


def close(book: RoomBook) -> Workflow[RoomResult]:
    """Close the room, and reveal the late seed. The book must be fresh."""
    return (yield from _step(book, CloseRoom(book.closing_seed(book.view().config))))


def set_pace(book: RoomBook, per_minute_min: int, per_minute_max: int) -> Workflow[RoomResult]:
    """Change the bounds of the room's pace. The book must be fresh."""
    book.view()
    return (yield from _step(book, SetPace(per_minute_min, per_minute_max)))


def _step(book: RoomBook, command: OpenRoom | CloseRoom | SetPace) -> Workflow[RoomResult]:
    local_ms = book.local_ms()
    answer: RoomResult = yield Apply(book.place, command)
    if answer.view is not None:
        book.take(answer.view, local_ms)
    return answer


def _moved_on(book: RoomBook, view: RoomView, latency_ms: int) -> Workflow[RoomView]:
    """The room after what time has made due. Others may be doing the same: each step finds it done, or too early."""
    terms = view.config
    if view.is_closed:
        if view.closed_at_ms:
            return view
        closed: RoomResult = yield Apply(book.place, CloseRoom(book.closing_seed(terms)))
        return closed.view or view
    if not view.seed:
        if view.now_ms < terms.opens_at_ms or terms.entropy_source:
            return view
        opened: RoomResult = yield Apply(book.place, OpenRoom(seed_of(book.closing_seed(terms))))
        view = opened.view or view
    if not view.seed or view.now_ms - view.last_step_at_ms < terms.step_ms:
        return view
    choices = book.choices(terms)
    left = PLACES_LEFT_UNKNOWN
    if choices:
        days = yield View(terms.office, tuple(range(terms.first_day, terms.last_day + 1)))
        left = count_places_left(days, choices, view.now_ms)
    per_minute, call_max = next_pace(view, left, latency_ms)
    served: RoomResult = yield Apply(book.place, CallTickets(per_minute, min(call_max, TICKETS_PER_CALL_MAX), left))
    return served.view or view


# --- Terms ---------------------------------------------------------------------------------------------------------


def _terms(
    book: RoomBook,
    office: str,
    first_day: Day,
    last_day: Day | None,
    opens_at: Moment,
    closes_at: Moment | None,
    joins_from: Moment | None,
    entropy_source: str,
    channel: str,
    group: str,
    settings: RoomSettings,
) -> RoomConfig:
    desk = book.desk
    rules = get_office(desk.catalog, office).rules
    first = desk.day_number(first_day)
    opens_at_ms = moment_ms(opens_at, "opens_at")
    closes_at_ms = opens_at_ms + 2 * _HOUR_MS if closes_at is None else moment_ms(closes_at, "closes_at")
    if not isinstance(settings, RoomSettings):
        raise InvalidRequest("settings", f"a {type(settings).__name__}", "RoomSettings")
    for name in RoomSettings.__struct_fields__:
        check_integer(getattr(settings, name), f"settings.{name}", 0, TIME_MS_MAX)
    if settings.pass_grace_ms and settings.pass_grace_ms < rules.hold_ttl_ms:
        problem = f"{settings.pass_grace_ms}: a pass would end before the hold that it is for"
        raise InvalidRequest(
            "settings.pass_grace_ms", problem, f"at least the office's hold_ttl_ms, {rules.hold_ttl_ms}"
        )
    nonce, key_id = desk.id_factory(), desk.ticket_keys.active
    closing_seed = desk.ticket_keys.derive_closing_seed(key_id, book.room, nonce)
    return RoomConfig(
        office=office,
        first_day=first,
        last_day=first if last_day is None else desk.day_number(last_day),
        join_opens_at_ms=0 if joins_from is None else moment_ms(joins_from, "join_opens_at"),
        opens_at_ms=opens_at_ms,
        closes_at_ms=closes_at_ms,
        forget_at_ms=closes_at_ms + settings.retention_ms,
        commitment=commitment_of(seed_of(closing_seed)),
        key_id=key_id,
        nonce=nonce,
        entropy_source=entropy_source,
        channel=channel,
        group=group,
        tickets_max=settings.tickets_max,
        window_ms=settings.window_ms,
        step_ms=settings.step_ms,
        turn_ms=settings.turn_ms,
        pass_grace_ms=settings.pass_grace_ms or rules.hold_ttl_ms,
        per_minute_min=settings.per_minute_min,
        per_minute_max=settings.per_minute_max,
        burst=settings.burst or -(-2 * settings.per_minute_max * settings.step_ms // 60_000),
        latency_max_ms=settings.latency_max_ms,
        calls_per_100_places=settings.calls_per_100_places,
        units_max=settings.units_max or rules.party_max,
    )


def _but_for_the_seed(terms: RoomConfig, wanted: RoomConfig) -> RoomConfig:
    """Terms with the seed, and what it comes from, of others."""
    return msgspec.structs.replace(terms, commitment=wanted.commitment, key_id=wanted.key_id, nonce=wanted.nonce)


def moment_ms(moment: Moment, where: str) -> int:
    """A moment in milliseconds since 1970. Raises :class:`InvalidRequest` if it can not be read."""
    expected = "milliseconds since 1970, or a time with its offset from UTC such as 2026-12-04T14:00:00+07:00"
    if isinstance(moment, str):
        try:
            moment = datetime.datetime.fromisoformat(moment)
        except ValueError:
            raise InvalidRequest(where, "no time that can be read", expected) from None
    if isinstance(moment, datetime.datetime):
        if moment.tzinfo is None:
            raise InvalidRequest(where, "a time without its offset from UTC", expected)
        moment = round(moment.timestamp() * 1_000)
    check_integer(moment, where, 0, TIME_MS_MAX)
    return moment


def _choices(catalog: Catalog, terms: RoomConfig) -> tuple[Choice, ...]:
    """All that can be wanted at the office in the room's channel and group.

    Raises:
        InvalidRequest: nothing can.
    """
    office = get_office(catalog, terms.office)
    found: dict[tuple[tuple[str, ...], ...], Choice] = {}
    problem: InvalidRequest | None = None
    for service in office.services:
        for unit in ("", *office.service_units):
            for session in ("", *office.sessions):
                try:
                    choice = choice_of(
                        catalog,
                        terms.office,
                        service=service,
                        service_unit=unit,
                        session=session,
                        channel=terms.channel,
                        group=terms.group,
                    )
                except InvalidRequest as error:
                    problem = problem or error
                else:
                    found.setdefault(choice.options, choice)
    if not found and problem is not None:
        raise problem
    return tuple(found.values())
