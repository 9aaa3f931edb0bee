"""Waiting rooms: :class:`WaitingRoom` and :class:`AsyncWaitingRoom`, as ``engine.room("id")`` returns them."""

from __future__ import annotations

__all__ = ["AsyncWaitingRoom", "RoomMethods", "WaitingRoom"]

import threading
from typing import Any

from quota_engine.clocks import monotonic_ms
from quota_engine.domain.errors import BackendUnavailable
from quota_engine.generators import Request, drive, drive_async
from quota_engine.method_binding import AsyncBound, SyncBound, async_method, sync_method
from quota_engine.ports import AsyncStore, Store
from quota_engine.waiting_room.results import RoomResult, RoomStatus, RoomView
from quota_engine.waiting_room.ticket_status import TicketStatus
from quota_engine.waiting_room.transcript import RoomTranscript, transcript_of
from quota_engine.workflows import waiting_rooms
from quota_engine.workflows.arguments import Day, Moment
from quota_engine.workflows.generator_drivers import Workflow, async_handler_of, call_handlers, handler_of
from quota_engine.workflows.room_config import RoomArguments, RoomSettings
from quota_engine.workflows.room_view_cache import EnterResult, RoomViewCache, RoomViewSnapshot
from quota_engine.workflows.waiting_rooms import JoinResult, Refresh

_DEFAULT_SETTINGS = RoomSettings()
_OVERDUE_ERROR = "the call's time is over while another caller reads the room; nothing was applied"


class RoomMethods:
    """Methods of a waiting room, written once for both classes. Only ``status`` is written out in both, for its speed.

    Every method but :meth:`create` begins with a fresh snapshot of the room, and passes it on.
    """

    def __init__(self, cache: RoomViewCache) -> None:
        self.cache = cache

    def create(
        self,
        office: str,
        first_day: Day,
        last_day: Day | None = None,
        *,
        opens_at: Moment,
        closes_at: Moment | None = None,
        join_opens_at: Moment | None = None,
        entropy_source: str = "",
        channel: str = "online",
        group: str = "",
        settings: RoomSettings = _DEFAULT_SETTINGS,
    ) -> Workflow[RoomStatus]:
        """Create the room before it opens. Safe to repeat from any number of processes. All derive the same seed.

        Args:
            office: the office whose places the room is about.
            first_day: the first day that a pass is valid for.
            last_day: the last such day, at most 62 days after the first; ``None`` for the first.
            opens_at: when the room fixes the order, reveals it and calls the first tickets.
            closes_at: when the room closes, at most 7 days later; ``None`` for 2 hours later.
            join_opens_at: when applicants may join; ``None`` for at once.
            entropy_source: a public source of randomness that is known only after the opening. The room then waits for
                :meth:`open`. Without it, the room opens by itself.
            channel: the channel whose places the room counts.
            group: the applicant group whose places the room counts; ``""`` for the general public.
            settings: pace, limits and retention.

        Returns:
            ``DONE``; ``CONFLICT`` if a room of this name exists with another configuration; ``ROOM_CLOSED`` if the
            opening has passed.

        Raises:
            UnknownName: the catalog does not have the office, the channel or the group.
            InvalidRequest: a moment, a day or a setting is out of range.
        """
        arguments = RoomArguments(
            office, first_day, last_day, opens_at, closes_at, join_opens_at, entropy_source, channel, group, settings
        )
        return waiting_rooms.create(self.cache, arguments)

    def join(self, identity: str, *, replaces_ticket: str | None = None) -> Workflow[JoinResult]:
        """Issue a ticket to ``identity``, or return the ticket that it has.

        Args:
            identity: the applicant's identity in clear; hashed at once.
            replaces_ticket: a ticket of the same identity that missed its turn, or that the room has lost. The new
                ticket goes to the end, and before the opening to the other tickets.

        Returns:
            ``JOINED`` with the ticket; otherwise ``NOT_OPEN`` with ``retry_at_ms``, ``ROOM_CLOSED``, ``FULL`` or
            ``OVERLOADED`` without a ticket.

        Raises:
            InvalidRequest: ``replaces_ticket`` is not valid, or is not in one of these phases.
        """
        snapshot = yield from self._fresh_snapshot()
        return (yield from waiting_rooms.join(self.cache, snapshot, identity, replaces_ticket))

    def read_status(self, ticket: str, identity: str | None) -> Workflow[TicketStatus]:
        """Do what :meth:`WaitingRoom.status` does if the view at hand does not suffice."""
        snapshot = yield from self._fresh_snapshot()
        if identity is not None:
            snapshot.ticket_index(ticket, identity)
        return (yield from waiting_rooms.ticket_status(self.cache, snapshot, ticket))

    def enter(self, ticket: str, identity: str) -> Workflow[EnterResult]:
        """Return the pass to reserve with, if the ticket has its turn. A repeated call returns the same pass.

        For a ticket that has its turn, the engine asks the store if the room has it. A ticket that the room lost in a
        failover gets no pass, but the phase ``TICKET_LOST``: its applicant joins again.

        Args:
            ticket: the signed ticket.
            identity: the identity that owns it.

        Raises:
            InvalidRequest: the ticket is not valid, or belongs to another identity.
        """
        snapshot = yield from self._fresh_snapshot()
        return (yield from waiting_rooms.enter(self.cache, snapshot, ticket, identity))

    def open(self, entropy: str, *, epoch: int = 0) -> Workflow[RoomResult]:
        """Open a room that has an ``entropy_source``.

        Args:
            entropy: the public text of that source.
            epoch: the room's present epoch, after ``EPOCH_CHANGED``; 0 otherwise.

        Returns:
            ``DONE``; ``NOT_OPEN`` with ``retry_at_ms`` before the opening time; ``CONFLICT`` if it was opened with
            another text; ``ROOM_CLOSED``; ``EPOCH_CHANGED`` with ``room_epoch`` if the room's store has failed over.
            Then check if the room was open before. If so, open it with the same text.
        """
        snapshot = yield from self._fresh_snapshot()
        return (yield from waiting_rooms.open_with(self.cache, snapshot, entropy, epoch))

    def set_pace(self, per_minute_min: int, per_minute_max: int) -> Workflow[RoomResult]:
        """Set the bounds of the pace from now on, also while the room runs. The order does not change.

        Args:
            per_minute_min: least tickets called a minute, 1 to 6,000,000, while tickets and places last.
            per_minute_max: most tickets called a minute, up to 6,000,000.

        Returns:
            ``DONE``, replayed if the bounds are set already; ``ROOM_CLOSED``.
        """
        yield from self._fresh_snapshot()
        return (yield from waiting_rooms.set_pace(self.cache, per_minute_min, per_minute_max))

    def close(self) -> Workflow[RoomResult]:
        """Close the room for everyone now, and reveal its secret seed. A room closes by itself at ``closes_at``."""
        snapshot = yield from self._fresh_snapshot()
        return (yield from waiting_rooms.close(self.cache, snapshot))

    def view(self, *, max_age_ms: int | None = None) -> Workflow[RoomView]:
        """Return the room's state.

        Args:
            max_age_ms: greatest age of the view in milliseconds; ``None`` for half a second.
        """
        return (yield from self._fresh_snapshot(max_age_ms)).view

    def transcript(self) -> Workflow[RoomTranscript]:
        """Return the record to publish: before the opening, after it, and when the room has closed."""
        snapshot = yield from self._fresh_snapshot()
        return transcript_of(self.cache.room, snapshot.view)

    def _fresh_snapshot(self, max_age_ms: int | None = None) -> Workflow[RoomViewSnapshot]:
        if not self.cache.is_fresh(max_age_ms):
            yield Refresh(max_age_ms)
        return self.cache.snapshot()


class WaitingRoom(SyncBound[RoomMethods]):
    """The waiting room of one release. Safe to share between threads.

    All polls share one view of the room, which is at most half a second old. All methods raise
    :class:`~quota_engine.UnknownName` if the room does not exist, and the errors of the engine's methods.
    """

    def __init__(self, store: Store, cache: RoomViewCache) -> None:
        super().__init__(RoomMethods(cache), self._answer, call_handlers(store, self._answer))
        self._poll = cache.poll
        self._answer_from_store = handler_of(store)
        self._ends_at_ms: float | None = getattr(store, "ends_at_ms", None)

    create = sync_method(RoomMethods.create)
    join = sync_method(RoomMethods.join)
    enter = sync_method(RoomMethods.enter)
    open = sync_method(RoomMethods.open)
    set_pace = sync_method(RoomMethods.set_pace)
    close = sync_method(RoomMethods.close)
    view = sync_method(RoomMethods.view)
    transcript = sync_method(RoomMethods.transcript)

    def status(self, ticket: str, *, identity: str | None = None) -> TicketStatus:
        """Return a ticket's phase, position, waiting time and chance. Most polls do not reach the store.

        Args:
            ticket: the signed ticket.
            identity: the identity that must own the ticket; ``None`` accepts any bearer.

        Raises:
            InvalidRequest: the ticket is not valid, or belongs to another identity.
        """
        # The hot path: one poll, without the cost of a workflow.
        known = self._poll(ticket) if identity is None else None
        return drive(self._methods.read_status(ticket, identity), self._begin()) if known is None else known

    def _answer(self, request: Request[Any], ends_at_ms: float | None = None) -> Any:
        if isinstance(request, Refresh):
            self._refresh(request, self._ends_at_ms if ends_at_ms is None else ends_at_ms)
            return None
        return self._answer_from_store(request, ends_at_ms)

    def _refresh(self, request: Refresh, ends_at_ms: float | None) -> None:
        cache = self._methods.cache
        refreshing = cache.shared_lock(threading.Lock)
        waits = not cache.is_usable()
        wait_s = -1.0 if ends_at_ms is None or not waits else max(0.0, ends_at_ms - monotonic_ms()) / 1000
        if not refreshing.acquire(waits, wait_s):
            if waits:
                raise BackendUnavailable(_OVERDUE_ERROR)
            return
        try:
            if not cache.is_fresh(request.max_age_ms):  # another thread may have read it while this one waited
                drive(waiting_rooms.refresh(cache), lambda one: self._answer_from_store(one, ends_at_ms))
        finally:
            refreshing.release()


class AsyncWaitingRoom(AsyncBound[RoomMethods]):
    """:class:`WaitingRoom` for asyncio: the same methods, awaited."""

    def __init__(self, store: AsyncStore, cache: RoomViewCache) -> None:
        import asyncio  # its caller has an event loop; synchronous callers never import it

        super().__init__(RoomMethods(cache), self._answer, call_handlers(store, self._answer))
        self._poll = cache.poll
        self._answer_from_store = async_handler_of(store)
        self._ends_at_ms: float | None = getattr(store, "ends_at_ms", None)
        self._refreshing: asyncio.Lock = cache.shared_lock(asyncio.Lock)

    create = async_method(RoomMethods.create)
    join = async_method(RoomMethods.join)
    enter = async_method(RoomMethods.enter)
    open = async_method(RoomMethods.open)
    set_pace = async_method(RoomMethods.set_pace)
    close = async_method(RoomMethods.close)
    view = async_method(RoomMethods.view)
    transcript = async_method(RoomMethods.transcript)

    async def status(self, ticket: str, *, identity: str | None = None) -> TicketStatus:
        """See :meth:`WaitingRoom.status`."""
        known = self._poll(ticket) if identity is None else None
        if known is None:
            known = await drive_async(self._methods.read_status(ticket, identity), self._begin())
        return known

    async def _answer(self, request: Request[Any], ends_at_ms: float | None = None) -> Any:
        if isinstance(request, Refresh):
            await self._refresh(request, self._ends_at_ms if ends_at_ms is None else ends_at_ms)
            return None
        return await self._answer_from_store(request, ends_at_ms)

    async def _refresh(self, request: Refresh, ends_at_ms: float | None) -> None:
        import asyncio  # its caller has an event loop; synchronous callers never import it

        cache = self._methods.cache
        if self._refreshing.locked() and cache.is_usable():
            return
        left_s = None if ends_at_ms is None else max(0.0, ends_at_ms - monotonic_ms()) / 1000
        try:
            async with asyncio.timeout(left_s):
                await self._refreshing.acquire()
        except TimeoutError:
            raise BackendUnavailable(_OVERDUE_ERROR) from None
        try:
            if not cache.is_fresh(request.max_age_ms):  # another task may have read it while this one waited
                await drive_async(waiting_rooms.refresh(cache), lambda one: self._answer_from_store(one, ends_at_ms))
        finally:
            self._refreshing.release()
