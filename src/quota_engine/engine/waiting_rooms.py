"""Waiting rooms in Python: :class:`Room` and :class:`AsyncWaitingRoom`, as ``engine.room("id")`` gives them.

What a method does stands once, at the sync one; the async one is the same with ``await``.
"""

from __future__ import annotations

__all__ = ["AsyncWaitingRoom", "WaitingRoom"]

import threading

from quota_engine.ports import AsyncStore, Store
from quota_engine.waiting_room.machine import RoomResult, RoomStatus, RoomView
from quota_engine.waiting_room.ticket_status import TicketStatus
from quota_engine.waiting_room.transcript import RoomTranscript
from quota_engine.workflows import waiting_rooms
from quota_engine.workflows.generator_drivers import run, run_async
from quota_engine.workflows.request_builder import Day
from quota_engine.workflows.waiting_rooms import EnterResult, JoinResult, Moment, RoomBook, RoomSettings

_DEFAULT_SETTINGS = RoomSettings()


class WaitingRoom:
    """The waiting room of one release. Safe to share between threads.

    Whoever polls is answered from one look at the store, which is at most half a second old; so is everybody else. All
    methods raise :class:`~quota_engine.UnknownName` if there is no such room,
    :class:`~quota_engine.InvalidRequest` for a ticket that is not a good one, and what the engine's methods raise.
    """

    def __init__(self, backend: Store, book: RoomBook) -> None:
        self._backend = backend
        self._book = book
        self._refreshing = threading.Lock()

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
    ) -> RoomStatus:
        """Make the room, before it opens. Safe to repeat, from any number of processes: the first one's seed counts.

        Args:
            office: whose places it is about.
            first_day: the first of the days that a pass is good for.
            last_day: the last of them, at most 62 days from the first; the same if left out.
            opens_at: when the number of tickets is fixed and the order revealed, and the first are called.
            closes_at: when it ends, at most 7 days later; 2 hours if left out.
            join_opens_at: when people may join; at once if left out.
            entropy_source: a public source of chance that will have spoken after the opening, named for all to read;
                the room then waits for :meth:`open`. Left out, it opens by itself.
            channel: the channel of the places left.
            group: the group of the places left; ``""`` for everybody.
            settings: how it works.

        Returns:
            ``DONE``; ``CONFLICT`` if there is a room of this name that is different; ``OVER`` if it should have opened
            already.
        """
        return run(
            waiting_rooms.create(
                self._book,
                office,
                first_day,
                last_day,
                opens_at,
                closes_at,
                join_opens_at,
                entropy_source,
                channel,
                group,
                settings,
            ),
            self._backend,
        )

    def join(self, identity: str, *, replaces_ticket: str | None = None) -> JoinResult:
        """Take a ticket for ``identity`` (in clear; hashed at once), or get again the one that it has.

        ``instead_of``: a ticket of the same identity that has lost its turn, to go behind with a new one.

        Returns:
            ``JOINED`` with the ticket; otherwise ``NOT_OPEN`` with ``retry_at_ms``, ``OVER``, ``FULL`` or
            ``OVERLOADED`` without one.
        """
        self._see_to_it()
        return run(waiting_rooms.join(self._book, identity, replaces_ticket), self._backend)

    def status(self, ticket: str, *, identity: str | None = None) -> TicketStatus:
        """How a ticket stands: phase, position, time, and chances. Costs no call of the store.

        ``identity``: whose it has to be; left out, whoever has the ticket is told.
        """
        self._see_to_it()
        if identity is not None:
            self._book.read(ticket, identity)
        return self._book.standing(ticket)

    def enter(self, ticket: str, identity: str) -> EnterResult:
        """Take the turn of ``identity``: the pass to reserve with, if the ticket has been called. Twice is the same."""
        self._see_to_it()
        return self._book.admission(ticket, identity)

    def open(self, entropy: str) -> RoomResult:
        """Open a room that has been made with an ``entropy_source``, with what that has said.

        Returns:
            ``DONE``; ``NOT_OPEN`` with ``retry_at_ms`` if it is too early by the store's clock; ``CONFLICT`` if it was
            opened with something else; ``OVER``.
        """
        self._see_to_it()
        return run(waiting_rooms.open_with(self._book, entropy), self._backend)

    def set_pace(self, per_minute_min: int, per_minute_max: int) -> RoomResult:
        """Let the pace go between these bounds from now on (1 to 6,000,000 tickets a minute), also while it runs.

        The mark then moves no faster, and no slower if the tickets and the places left allow it. What was fixed when
        the room was made, and the order, stay as they are.

        Returns:
            ``DONE``, replayed if they are so already; ``OVER``.
        """
        self._see_to_it()
        return run(waiting_rooms.set_pace(self._book, per_minute_min, per_minute_max), self._backend)

    def close(self) -> RoomResult:
        """End the room now, for all at once, and reveal what is left to reveal. At ``closes_at`` it ends by itself."""
        self._see_to_it()
        return run(waiting_rooms.close(self._book), self._backend)

    def view(self, *, max_age_ms: int | None = None) -> RoomView:
        """The room as everybody is answered from it; ``max_age_ms``: not older than this, for one who watches it for
        many.
        """
        self._see_to_it(max_age_ms)
        return self._book.view()

    def transcript(self) -> RoomTranscript:
        """The record to publish: before the opening, after it, and when the room has closed."""
        self._see_to_it()
        return self._book.record()

    def _see_to_it(self, max_age_ms: int | None = None) -> None:
        """See that the book is fresh. One thread looks; the others go on with the last look, as long as it will do."""
        book = self._book
        if book.is_fresh(max_age_ms):
            return
        if not self._refreshing.acquire(blocking=not book.will_do()):
            return
        try:
            if not book.is_fresh(max_age_ms):
                run(waiting_rooms.refresh(book), self._backend)
        finally:
            self._refreshing.release()


class AsyncWaitingRoom:
    """The same for asyncio."""

    def __init__(self, backend: AsyncStore, book: RoomBook) -> None:
        import asyncio  # whoever has an event loop has imported it

        self._backend = backend
        self._book = book
        self._refreshing = asyncio.Lock()

    async def create(
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
    ) -> RoomStatus:
        """See :meth:`Room.create`."""
        return await run_async(
            waiting_rooms.create(
                self._book,
                office,
                first_day,
                last_day,
                opens_at,
                closes_at,
                join_opens_at,
                entropy_source,
                channel,
                group,
                settings,
            ),
            self._backend,
        )

    async def join(self, identity: str, *, replaces_ticket: str | None = None) -> JoinResult:
        """See :meth:`Room.join`."""
        await self._see_to_it()
        return await run_async(waiting_rooms.join(self._book, identity, replaces_ticket), self._backend)

    async def status(self, ticket: str, *, identity: str | None = None) -> TicketStatus:
        """See :meth:`Room.status`."""
        await self._see_to_it()
        if identity is not None:
            self._book.read(ticket, identity)
        return self._book.standing(ticket)

    async def enter(self, ticket: str, identity: str) -> EnterResult:
        """See :meth:`Room.enter`."""
        await self._see_to_it()
        return self._book.admission(ticket, identity)

    async def open(self, entropy: str) -> RoomResult:
        """See :meth:`Room.open`."""
        await self._see_to_it()
        return await run_async(waiting_rooms.open_with(self._book, entropy), self._backend)

    async def set_pace(self, per_minute_min: int, per_minute_max: int) -> RoomResult:
        """See :meth:`Room.set_pace`."""
        await self._see_to_it()
        return await run_async(waiting_rooms.set_pace(self._book, per_minute_min, per_minute_max), self._backend)

    async def close(self) -> RoomResult:
        """See :meth:`Room.close`."""
        await self._see_to_it()
        return await run_async(waiting_rooms.close(self._book), self._backend)

    async def view(self, *, max_age_ms: int | None = None) -> RoomView:
        """See :meth:`Room.view`."""
        await self._see_to_it(max_age_ms)
        return self._book.view()

    async def transcript(self) -> RoomTranscript:
        """See :meth:`Room.record`."""
        await self._see_to_it()
        return self._book.record()

    async def _see_to_it(self, max_age_ms: int | None = None) -> None:
        """See :meth:`Room._see_to_it`: one task looks."""
        book = self._book
        if book.is_fresh(max_age_ms) or (self._refreshing.locked() and book.will_do()):
            return
        async with self._refreshing:
            if not book.is_fresh(max_age_ms):
                await run_async(waiting_rooms.refresh(book), self._backend)
