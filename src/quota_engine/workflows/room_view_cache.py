"""One engine's cached view of one waiting room. A single read of the store serves everyone who polls."""

from __future__ import annotations

__all__ = ["EnterResult", "RoomViewCache", "RoomViewSnapshot"]

import logging
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from quota_engine.admission.tickets import RoomTickets, TicketIndex
from quota_engine.catalog import Catalog
from quota_engine.domain.errors import UnknownName
from quota_engine.domain.model import Choice
from quota_engine.domain.validation import check_integer, check_name
from quota_engine.forks import call_in_child
from quota_engine.waiting_room.commands import RoomConfig
from quota_engine.waiting_room.order import RoomOrder
from quota_engine.waiting_room.results import RoomView
from quota_engine.waiting_room.ticket_status import (
    POSITION_LOST,
    POSITION_NONE,
    TicketPhase,
    TicketPositions,
    TicketStatus,
    TicketStatuses,
    pass_until_ms,
)
from quota_engine.waiting_room.transcript import contradictions, transcript_of
from quota_engine.workflows.request_builder import RequestBuilder
from quota_engine.workflows.room_config import room_choices

LockT = TypeVar("LockT")

REFRESH_MS: Final = 500
STALE_MS_MAX: Final = 10_000
"""While the store does not answer, polls are answered from a view up to this old."""
KNOWN_TICKETS_MAX: Final = 100_000
"""Tickets of a room whose signature and position are remembered between polls."""

_NEVER_MS: Final = -(2**62)
"""Time of the last read while there was none: the view is out of date by any clock."""

_log = logging.getLogger("quota_engine")


class EnterResult(msgspec.Struct, frozen=True, gc=False):
    """Result of :meth:`quota_engine.WaitingRoom.enter`.

    Args:
        ticket_status: status of the ticket.
        admission_pass: the pass if the ticket has its turn, otherwise ``""``.
        until_ms: when the pass ends, in milliseconds since 1970.
    """

    ticket_status: TicketStatus
    admission_pass: str = ""
    until_ms: int = 0

    @property
    def ok(self) -> bool:
        """True if there is a pass."""
        return self.ticket_status.phase is TicketPhase.CALLED


class _KnownTicket(msgspec.Struct, frozen=True, gc=False):
    """A ticket whose signature is valid. Many are kept, so the garbage collector does not track them.

    Attributes:
        index: index of the ticket, from 0.
        epoch: epoch of the ticket.
        position: its position, from 1; ``POSITION_NONE`` or ``POSITION_LOST`` if it had none at its last poll.
    """

    index: int
    epoch: int
    position: int


class RoomViewSnapshot:
    """A view of a room with everything that reads its tickets. A refresh replaces it as a whole."""

    __slots__ = ("_known_tickets", "_order", "_positions", "_requests", "_statuses", "_tickets", "view")

    def __init__(
        self,
        requests: RequestBuilder,
        view: RoomView,
        tickets: RoomTickets,
        order: RoomOrder,
        known_tickets: dict[str, _KnownTicket],
    ) -> None:
        self._requests = requests
        self.view = view
        self._tickets = tickets
        self._order = order
        self._positions = TicketPositions(view, order)
        self._statuses = TicketStatuses(view)
        self._known_tickets = known_tickets

    def with_view(self, view: RoomView) -> RoomViewSnapshot:
        """Return a snapshot of a later view with the same configuration and seed."""
        return RoomViewSnapshot(self._requests, view, self._tickets, self._order, self._known_tickets)

    def with_first_order(self, view: RoomView, order: RoomOrder) -> RoomViewSnapshot:
        """Return a snapshot of a later view with the same configuration. This one has no order yet.

        At the opening, all tickets get their positions. The signatures of tickets that were polled before need no
        second check then.
        """
        return RoomViewSnapshot(self._requests, view, self._tickets, order, self._known_tickets)

    def issue_ticket(self, index: int, epoch: int, applicant: str) -> str:
        """Return the signed ticket ``index`` of ``epoch`` for ``applicant`` (a keyed hash)."""
        config = self.view.config
        return self._tickets.ticket(index, epoch, applicant, config.closes_at_ms + config.turn_ms)

    def ticket_index(self, ticket: str, identity: str | None) -> TicketIndex:
        """Return index (from 0) and epoch of a ticket. The room may have lost it.

        Raises:
            InvalidRequest: the ticket is not valid, or belongs to another identity.
        """
        return self._tickets.read(ticket, self.view.now_ms, self._requests.owner_hash(identity, "identity"))

    def ticket_status(self, ticket: str, now_ms: int) -> TicketStatus | None:
        """Return the status of a ticket at ``now_ms``. Any bearer may ask.

        Returns:
            The status; ``None`` if the ticket is of a later epoch than this view, which is out of date then.

        Raises:
            InvalidRequest: the ticket is not valid.
        """
        known_tickets = self._known_tickets
        try:
            known = known_tickets.get(ticket)
        except TypeError:  # no text at all, as reading it finds
            known = None
        if known is None:
            index, epoch = self._tickets.read_fields(ticket, self.view.now_ms)
        elif known.position >= 0:
            return self._statuses.of(known.index + 1, known.position, now_ms)
        else:
            index, epoch = known.index, known.epoch
        position = self._positions.of(index, epoch)
        if position < 0 and epoch > self.view.epoch:
            return None
        if known is None or position != known.position:
            if len(known_tickets) >= KNOWN_TICKETS_MAX:
                known_tickets.clear()
            known_tickets[ticket] = _KnownTicket(index, epoch, position)
        return self._statuses.of(index + 1, position, now_ms)

    def lost_status(self, number: int, now_ms: int) -> TicketStatus:
        """Return the status of the ticket ``number`` (from 1), which the room has lost."""
        return self._statuses.of(number, POSITION_LOST, now_ms)

    def unordered_status(self, number: int, now_ms: int) -> TicketStatus:
        """Return the status of the ticket ``number`` (from 1), which has no position in this view."""
        return self._statuses.of(number, POSITION_NONE, now_ms)

    def issue_pass(self, index: TicketIndex, applicant: str, status: TicketStatus) -> EnterResult:
        """Return the pass of a ticket that has its turn: the same one each time.

        Args:
            index: index and epoch of the ticket.
            applicant: keyed hash of its applicant.
            status: status of the ticket in this view; its phase is ``CALLED``.
        """
        config = self.view.config
        until_ms = pass_until_ms(self.view, status.position)
        admission_pass = self._tickets.admission_pass(
            *index, applicant, config.office, config.first_day, config.last_day, until_ms
        )
        return EnterResult(status, admission_pass, until_ms)


class RoomViewCache:
    """One engine's view of one room, from its last read of the store.

    Its user runs one refresh at a time. Reading continues meanwhile.
    """

    def __init__(
        self, requests: RequestBuilder, room: str, local_ms: Callable[[], int], refresh_ms: int = REFRESH_MS
    ) -> None:
        """Create an empty cache.

        Args:
            requests: the engine's request builder.
            room: the room's name.
            local_ms: a clock of this process in milliseconds, to compute the age of a view.
            refresh_ms: age from which a view is read again, 1 to 10,000 ms.
        """
        check_name(room, "room")
        check_integer(refresh_ms, "refresh_ms", 1, STALE_MS_MAX)
        self.requests = requests
        self.room = room
        self.address = f"~room.{room}"
        self.local_ms = local_ms
        self._refresh_ms = refresh_ms
        self._snapshot: RoomViewSnapshot | None = None
        self._read_at_ms = _NEVER_MS
        self._failed_at_ms: int | None = None
        self._choices: tuple[Catalog, tuple[Choice, ...]] | None = None
        self._revealed: tuple[str, str] | None = None
        self._closed = ""
        self._lock: Any = None
        call_in_child(self._after_fork)

    def _after_fork(self) -> None:
        self._lock = None  # a thread of the parent may hold it

    def shared_lock(self, make: Callable[[], LockT]) -> LockT:
        """Return the lock of this cache's users, for one refresh at a time. ``make`` creates it for the first user."""
        if self._lock is None:
            self._lock = make()
        lock: LockT = self._lock
        return lock

    @property
    def is_known(self) -> bool:
        """True if the last read found the room."""
        return self._snapshot is not None

    def is_fresh(self, max_age_ms: int | None = None) -> bool:
        """Return True if no read is due.

        The view is younger than ``max_age_ms`` (``None``: than the refresh time); or the last read failed less than
        the refresh time ago, and an older view is still usable.
        """
        if self._age_ms() < (self._refresh_ms if max_age_ms is None else max_age_ms):
            return True
        failed_at_ms = self._failed_at_ms
        return failed_at_ms is not None and self.local_ms() - failed_at_ms < self._refresh_ms and self.is_usable()

    def poll(self, ticket: str) -> TicketStatus | None:
        """Return the status of a ticket; ``None`` if the room has to be read first. Any bearer may ask.

        Raises:
            InvalidRequest: the ticket is not valid.
        """
        snapshot = self._snapshot
        if snapshot is None:
            return None
        age_ms = self.local_ms() - self._read_at_ms
        if age_ms >= self._refresh_ms:
            return None
        return snapshot.ticket_status(ticket, snapshot.view.now_ms + age_ms)

    def is_usable(self) -> bool:
        """Return True if the view may still answer calls while another caller reads a new one."""
        return self._snapshot is not None and self._age_ms() < STALE_MS_MAX

    def _age_ms(self) -> int:
        return self.local_ms() - self._read_at_ms

    def store(self, view: RoomView | None, read_at_ms: int) -> None:
        """Answer from ``view`` from now on; ``None`` if the room is unknown. ``read_at_ms`` is local."""
        last = self._snapshot
        if view is None:
            self._snapshot = None
        elif last is not None and _follows(view, last.view):
            self._snapshot = last.with_view(view)
        else:
            if last is not None:
                self._report_changes(last.view, view)
            config = view.config
            closing_seed = view.closing_seed or self.closing_seed(config)
            order = RoomOrder(self.room, config.commitment, view.entropy, view.seed, closing_seed)
            if last is not None and view.config == last.view.config and not last.view.seed:
                self._snapshot = last.with_first_order(view, order)
            else:
                tickets = RoomTickets(self.requests.ticket_keys, self.room, config.commitment, config.key_id)
                self._snapshot = RoomViewSnapshot(self.requests, view, tickets, order, {})
        if view is not None and view.seed and self.revealed_entropy(view.config) is None:
            self._revealed = view.config.commitment, view.entropy
        if view is not None and view.closing_seed:
            self._closed = view.config.commitment
        self._read_at_ms, self._failed_at_ms = read_at_ms, None

    def revealed_entropy(self, config: RoomConfig) -> str | None:
        """Return the entropy with which the room was opened when this engine first saw it open, otherwise ``None``.

        A failover may lose the opening. The room is opened again with the same entropy, or not at all: the order has
        been published.
        """
        if self._revealed is None or self._revealed[0] != config.commitment:
            return None
        return self._revealed[1]

    def was_closed(self, config: RoomConfig) -> bool:
        """Return True if this engine has seen the room closed, so that its closing seed is public."""
        return self._closed == config.commitment

    def _report_changes(self, before: RoomView, view: RoomView) -> None:
        """Log what was fixed before and differs now. Only a store that lost changes makes such differences."""
        if before.now_ms >= before.config.forget_at_ms:
            return
        for finding in contradictions(transcript_of(self.room, view), transcript_of(self.room, before)):
            _log.error("room %s, epoch %d after %d: %s", self.room, view.epoch, before.epoch, finding)

    def store_failure(self) -> None:
        """Remember that the store did not answer."""
        self._failed_at_ms = self.local_ms()

    def snapshot(self) -> RoomViewSnapshot:
        """Return the last snapshot.

        Raises:
            UnknownName: the last read did not find the room.
        """
        if self._snapshot is None:
            raise UnknownName("room", "no such room, or its retention has ended", "the id of an existing room")
        return self._snapshot

    def now_ms(self, view: RoomView) -> int:
        """Return the store's time, estimated from the age of the view."""
        return view.now_ms + max(0, self._age_ms())

    def closing_seed(self, config: RoomConfig) -> str:
        """Return the secret seed of a room with this configuration.

        Raises:
            InvalidRequest: this engine does not have the room's key.
        """
        return self.requests.ticket_keys.derive_closing_seed(config.key_id, self.room, config.nonce)

    def choices(self, config: RoomConfig) -> tuple[Choice, ...]:
        """Return what applicants of the room can ask for; the places of these choices are the room's places."""
        catalog = self.requests.catalog
        if self._choices is None or self._choices[0] is not catalog:
            self._choices = catalog, room_choices(catalog, config)
        return self._choices[1]


def _follows(view: RoomView, before: RoomView) -> bool:
    """Return True if ``before`` can have become ``view`` without a loss, so that positions stay the same."""
    return (
        view.epoch == before.epoch
        and view.config == before.config
        and view.seed == before.seed
        and view.entropy == before.entropy
        and view.tickets >= before.tickets
        and view.windows[: len(before.windows)] == before.windows
    )
