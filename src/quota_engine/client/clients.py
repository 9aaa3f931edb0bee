"""The clients: the engine's methods, over HTTP. What a method does stands at :class:`quota_engine.QuotaEngine`."""

from __future__ import annotations

__all__ = [
    "AsyncServiceClient",
    "AsyncServiceDraw",
    "AsyncServiceWaitingRoom",
    "ServiceClient",
    "ServiceDraw",
    "ServiceWaitingRoom",
]

from types import TracebackType
from typing import Any, Final, Self

import httpx

from quota_engine.client.call_protocol import Retries
from quota_engine.client.calls import Calls, DrawCalls, RoomCalls
from quota_engine.client.method_binding import AsyncFace, AsyncLine, Face, Line, awaited, done
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.validation import check_integer
from quota_engine.draws.lottery import commitment_of

_TIMEOUT_MS: Final = 10_000
_RETRIES: Final = Retries()


def _settings(url: str, token: str, timeout_ms: int) -> dict[str, Any]:
    check_integer(timeout_ms, "timeout_ms", 1, 3_600_000)
    if not _is_address(url):
        raise InvalidRequest("url", "not the address of a service", "http://… or https://…")
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise InvalidRequest("token", "not a bearer token", "printable ASCII characters")
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return {"base_url": url, "headers": headers, "timeout": timeout_ms / 1000}


def _is_address(url: str) -> bool:
    try:
        parts = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        return False
    return parts.scheme in ("http", "https") and bool(parts.host)


class ServiceWaitingRoom(Face[RoomCalls]):
    """A waiting room, as ``client.room("id")`` gives it. The methods are those of :class:`quota_engine.Room`."""

    create = done(RoomCalls.create)
    join = done(RoomCalls.join)
    status = done(RoomCalls.status)
    enter = done(RoomCalls.enter)
    open = done(RoomCalls.open)
    set_pace = done(RoomCalls.set_pace)
    close = done(RoomCalls.close)
    view = done(RoomCalls.view)
    transcript = done(RoomCalls.transcript)


class AsyncServiceWaitingRoom(AsyncFace[RoomCalls]):
    """The same for asyncio."""

    create = awaited(RoomCalls.create)
    join = awaited(RoomCalls.join)
    status = awaited(RoomCalls.status)
    enter = awaited(RoomCalls.enter)
    open = awaited(RoomCalls.open)
    set_pace = awaited(RoomCalls.set_pace)
    close = awaited(RoomCalls.close)
    view = awaited(RoomCalls.view)
    transcript = awaited(RoomCalls.transcript)


class ServiceDraw(Face[DrawCalls]):
    """A draw, as ``client.draw("id")`` gives it. The methods are those of :class:`quota_engine.Draw`."""

    def __init__(self, retries: Retries, draw: str, line: Line) -> None:
        super().__init__(DrawCalls(retries, draw), line)
        self.id = draw

    def commitment(self, seed: str) -> str:
        """See :meth:`quota_engine.Draw.commitment`. Nothing is sent."""
        return commitment_of(self.id, seed)

    create = done(DrawCalls.create)
    view = done(DrawCalls.view)
    apply = done(DrawCalls.apply)
    withdraw = done(DrawCalls.withdraw)
    find = done(DrawCalls.find)
    close = done(DrawCalls.close)
    run = done(DrawCalls.run)
    files = done(DrawCalls.files)
    award = done(DrawCalls.award)


class AsyncServiceDraw(AsyncFace[DrawCalls]):
    """The same for asyncio."""

    def __init__(self, retries: Retries, draw: str, line: AsyncLine) -> None:
        super().__init__(DrawCalls(retries, draw), line)
        self.id = draw

    def commitment(self, seed: str) -> str:
        """See :meth:`quota_engine.Draw.commitment`. Nothing is sent."""
        return commitment_of(self.id, seed)

    create = awaited(DrawCalls.create)
    view = awaited(DrawCalls.view)
    apply = awaited(DrawCalls.apply)
    withdraw = awaited(DrawCalls.withdraw)
    find = awaited(DrawCalls.find)
    close = awaited(DrawCalls.close)
    run = awaited(DrawCalls.run)
    files = awaited(DrawCalls.files)
    award = awaited(DrawCalls.award)


class ServiceClient(Face[Calls]):
    """Reserves places through a service. Safe to share between threads; the methods are the engine's.

    They return what the engine's return, a refusal as an outcome. What a service tells nobody is missing: a record has
    as many empty hashes as there are applicants. Errors are the engine's too: :class:`~quota_engine.InvalidRequest`,
    :class:`~quota_engine.BackendUnavailable` (nothing was done) and :class:`~quota_engine.OutcomeUnknown` (ask again
    with the same key); and :class:`ServiceRefused`, if the token does not allow it.
    """

    def __init__(self, http: httpx.Client, retries: Retries = _RETRIES) -> None:
        """Bring your own ``http``, with base URL and token; :meth:`open` is the usual way."""
        super().__init__(Calls(retries), Line(http))
        self._retries = retries

    @classmethod
    def open(cls, url: str, token: str = "", *, timeout_ms: int = _TIMEOUT_MS, retries: Retries = _RETRIES) -> Self:
        """A client of a service.

        Args:
            url: where the service is: ``http://…`` or ``https://…``.
            token: the bearer token; ``""`` for what everybody may ask.
            timeout_ms: how long one try waits for a connection, and for each part of an answer.
            retries: how often a call is tried, and how long is waited in between. So no call takes longer than
                ``attempts_max`` times the timeout and the pause, as long as answers come in one part.
        """
        return cls(httpx.Client(**_settings(url, token, timeout_ms)), retries)

    def close(self) -> None:
        """Close the connections. Calling it twice is harmless."""
        self._line.http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def room(self, room: str) -> ServiceWaitingRoom:
        """See :meth:`quota_engine.QuotaEngine.room`."""
        return ServiceWaitingRoom(RoomCalls(self._retries, room), self._line)

    def draw(self, draw: str) -> ServiceDraw:
        """See :meth:`quota_engine.QuotaEngine.draw`."""
        return ServiceDraw(self._retries, draw, self._line)

    reserve = done(Calls.reserve)
    confirm = done(Calls.confirm)
    release = done(Calls.release)
    cancel = done(Calls.cancel)
    check_in = done(Calls.check_in)
    mark_no_show = done(Calls.mark_no_show)
    reschedule = done(Calls.reschedule)
    recover_moves = done(Calls.recover_moves)
    find_moved = done(Calls.find_moved)
    lookup = done(Calls.lookup)
    wait_list_position = done(Calls.wait_list_position)
    list_reservations = done(Calls.list_reservations)

    availability = done(Calls.availability)
    earliest_available_day = done(Calls.earliest_available_day)
    list_offices = done(Calls.list_offices)
    describe_offices = done(Calls.describe_offices)
    hold_remaining_histogram = done(Calls.hold_remaining_histogram)
    set_capacity = done(Calls.set_capacity)
    close_day = done(Calls.close_day)
    open_day = done(Calls.open_day)
    reallocate_unused = done(Calls.reallocate_unused)
    release_parked = done(Calls.release_parked)
    expire = done(Calls.expire)
    publish = done(Calls.publish)
    audit = done(Calls.audit)
    reconcile = done(Calls.reconcile)

    events = done(Calls.events)
    trim_events = done(Calls.trim_events)
    list_consumer_groups = done(Calls.list_consumer_groups)
    create_consumer_group = done(Calls.create_consumer_group)
    delete_consumer_group = done(Calls.delete_consumer_group)
    acknowledge = done(Calls.acknowledge)


class AsyncServiceClient(AsyncFace[Calls]):
    """:class:`ServiceClient` for asyncio: the same methods, awaited."""

    def __init__(self, http: httpx.AsyncClient, retries: Retries = _RETRIES) -> None:
        """Bring your own ``http``, with base URL and token; :meth:`open` is the usual way."""
        super().__init__(Calls(retries), AsyncLine(http))
        self._retries = retries

    @classmethod
    async def open(
        cls, url: str, token: str = "", *, timeout_ms: int = _TIMEOUT_MS, retries: Retries = _RETRIES
    ) -> Self:
        """See :meth:`ServiceClient.open`."""
        return cls(httpx.AsyncClient(**_settings(url, token, timeout_ms)), retries)

    async def close(self) -> None:
        """Close the connections. Calling it twice is harmless."""
        await self._line.http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def room(self, room: str) -> AsyncServiceWaitingRoom:
        """See :meth:`quota_engine.QuotaEngine.room`."""
        return AsyncServiceWaitingRoom(RoomCalls(self._retries, room), self._line)

    def draw(self, draw: str) -> AsyncServiceDraw:
        """See :meth:`quota_engine.QuotaEngine.draw`."""
        return AsyncServiceDraw(self._retries, draw, self._line)

    reserve = awaited(Calls.reserve)
    confirm = awaited(Calls.confirm)
    release = awaited(Calls.release)
    cancel = awaited(Calls.cancel)
    check_in = awaited(Calls.check_in)
    mark_no_show = awaited(Calls.mark_no_show)
    reschedule = awaited(Calls.reschedule)
    recover_moves = awaited(Calls.recover_moves)
    find_moved = awaited(Calls.find_moved)
    lookup = awaited(Calls.lookup)
    wait_list_position = awaited(Calls.wait_list_position)
    list_reservations = awaited(Calls.list_reservations)

    availability = awaited(Calls.availability)
    earliest_available_day = awaited(Calls.earliest_available_day)
    list_offices = awaited(Calls.list_offices)
    describe_offices = awaited(Calls.describe_offices)
    hold_remaining_histogram = awaited(Calls.hold_remaining_histogram)
    set_capacity = awaited(Calls.set_capacity)
    close_day = awaited(Calls.close_day)
    open_day = awaited(Calls.open_day)
    reallocate_unused = awaited(Calls.reallocate_unused)
    release_parked = awaited(Calls.release_parked)
    expire = awaited(Calls.expire)
    publish = awaited(Calls.publish)
    audit = awaited(Calls.audit)
    reconcile = awaited(Calls.reconcile)

    events = awaited(Calls.events)
    trim_events = awaited(Calls.trim_events)
    list_consumer_groups = awaited(Calls.list_consumer_groups)
    create_consumer_group = awaited(Calls.create_consumer_group)
    delete_consumer_group = awaited(Calls.delete_consumer_group)
    acknowledge = awaited(Calls.acknowledge)
