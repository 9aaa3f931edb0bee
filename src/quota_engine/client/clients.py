"""The clients of the HTTP service. They have the engine's methods: see :class:`quota_engine.QuotaEngine`."""

from __future__ import annotations

__all__ = [
    "AsyncServiceClient",
    "AsyncServiceDraw",
    "AsyncServiceWaitingRoom",
    "ServiceClient",
    "ServiceDraw",
    "ServiceWaitingRoom",
]

from typing import Any, Final, Self

import httpx

from quota_engine.client.call_protocol import Retries
from quota_engine.client.calls import Calls, DrawCalls, RoomCalls
from quota_engine.client.service_clock import ServiceClock
from quota_engine.client.transport import AsyncTransport, Transport
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.validation import check_integer
from quota_engine.draws.lottery import commitment_of
from quota_engine.method_binding import AsyncBound, AsyncResource, SyncBound, SyncResource, async_method, sync_method

_TIMEOUT_MS: Final = 10_000
_RETRIES: Final = Retries()


def _http_arguments(url: str, token: str, timeout_ms: int) -> dict[str, Any]:
    check_integer(timeout_ms, "timeout_ms", 1, 3_600_000)
    if not _is_url(url):
        raise InvalidRequest("url", "not the address of a service", "http://… or https://…")
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise InvalidRequest("token", "not a bearer token", "printable ASCII characters")
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return {"base_url": url, "headers": headers, "timeout": timeout_ms / 1000}


def _is_url(url: str) -> bool:
    try:
        parts = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        return False
    return parts.scheme in ("http", "https") and bool(parts.host)


class ServiceWaitingRoom(SyncBound[RoomCalls]):
    """A waiting room of a service, with the methods of :class:`quota_engine.WaitingRoom`."""

    create = sync_method(RoomCalls.create)
    join = sync_method(RoomCalls.join)
    status = sync_method(RoomCalls.status)
    enter = sync_method(RoomCalls.enter)
    open = sync_method(RoomCalls.open)
    set_pace = sync_method(RoomCalls.set_pace)
    close = sync_method(RoomCalls.close)
    view = sync_method(RoomCalls.view)
    transcript = sync_method(RoomCalls.transcript)


class AsyncServiceWaitingRoom(AsyncBound[RoomCalls]):
    """:class:`ServiceWaitingRoom` for asyncio: the same methods, awaited."""

    create = async_method(RoomCalls.create)
    join = async_method(RoomCalls.join)
    status = async_method(RoomCalls.status)
    enter = async_method(RoomCalls.enter)
    open = async_method(RoomCalls.open)
    set_pace = async_method(RoomCalls.set_pace)
    close = async_method(RoomCalls.close)
    view = async_method(RoomCalls.view)
    transcript = async_method(RoomCalls.transcript)


class ServiceDraw(SyncBound[DrawCalls]):
    """A draw of a service, with the methods of :class:`quota_engine.Draw`."""

    def __init__(self, retries: Retries, draw: str, transport: Transport, clock: ServiceClock) -> None:
        super().__init__(DrawCalls(retries, draw, clock), transport.handle)
        self.id = draw

    def commitment(self, seed: str) -> str:
        """See :meth:`quota_engine.Draw.commitment`. Sends nothing."""
        return commitment_of(self.id, seed)

    create = sync_method(DrawCalls.create)
    view = sync_method(DrawCalls.view)
    apply = sync_method(DrawCalls.apply)
    withdraw = sync_method(DrawCalls.withdraw)
    check_receipt = sync_method(DrawCalls.check_receipt)
    find = sync_method(DrawCalls.find)
    close = sync_method(DrawCalls.close)
    run = sync_method(DrawCalls.run)
    files = sync_method(DrawCalls.files)
    award = sync_method(DrawCalls.award)


class AsyncServiceDraw(AsyncBound[DrawCalls]):
    """:class:`ServiceDraw` for asyncio: the same methods, awaited."""

    def __init__(self, retries: Retries, draw: str, transport: AsyncTransport, clock: ServiceClock) -> None:
        super().__init__(DrawCalls(retries, draw, clock), transport.handle)
        self.id = draw

    def commitment(self, seed: str) -> str:
        """See :meth:`quota_engine.Draw.commitment`. Sends nothing."""
        return commitment_of(self.id, seed)

    create = async_method(DrawCalls.create)
    view = async_method(DrawCalls.view)
    apply = async_method(DrawCalls.apply)
    withdraw = async_method(DrawCalls.withdraw)
    check_receipt = async_method(DrawCalls.check_receipt)
    find = async_method(DrawCalls.find)
    close = async_method(DrawCalls.close)
    run = async_method(DrawCalls.run)
    files = async_method(DrawCalls.files)
    award = async_method(DrawCalls.award)


class ServiceClient(SyncBound[Calls], SyncResource):
    """Reserves places through a service. Safe to share between threads; the methods are the engine's.

    They return what the engine returns, and a refusal is an outcome. A service does not disclose applicants, so a
    record has one empty hash for each of them.

    Raises:
        InvalidRequest: from every method, for a call that can never succeed.
        BackendUnavailable: nothing was done.
        OutcomeUnknown: the response was lost. Repeat the call with the same key or reference.
        ServiceRefused: the token does not allow the call.
    """

    def __init__(self, http: httpx.Client, retries: Retries = _RETRIES) -> None:
        """Use an HTTP client of your own, with base URL and token; :meth:`open` is the usual way."""
        self._transport = Transport(http)
        self._clock = ServiceClock()
        super().__init__(Calls(retries, self._clock), self._transport.handle)
        self._retries = retries

    @classmethod
    def open(cls, url: str, token: str = "", *, timeout_ms: int = _TIMEOUT_MS, retries: Retries = _RETRIES) -> Self:
        """Create a client of the service at ``url``. Sends nothing.

        A call takes at most ``attempts_max`` times the pause and the timeout, or ``attempt_valid_ms`` if that is longer
        and responses are lost, if responses arrive in one part.

        Args:
            url: ``http://…`` or ``https://…``.
            token: the bearer token; ``""`` for the public calls.
            timeout_ms: time that one attempt waits for a connection, and for each part of a response; 1 to 3,600,000.
            retries: number of attempts, and the pauses between them.

        Raises:
            InvalidRequest: an argument is not valid.
        """
        return cls(httpx.Client(**_http_arguments(url, token, timeout_ms)), retries)

    def close(self) -> None:
        """Close the connections. A second call does nothing."""
        self._transport.http.close()

    def room(self, room: str) -> ServiceWaitingRoom:
        """See :meth:`quota_engine.QuotaEngine.room`."""
        return ServiceWaitingRoom(RoomCalls(self._retries, room, self._clock), self._transport.handle)

    def draw(self, draw: str) -> ServiceDraw:
        """See :meth:`quota_engine.QuotaEngine.draw`."""
        return ServiceDraw(self._retries, draw, self._transport, self._clock)

    reserve = sync_method(Calls.reserve)
    confirm = sync_method(Calls.confirm)
    extend = sync_method(Calls.extend)
    remove_applicant = sync_method(Calls.remove_applicant)
    replace_applicant = sync_method(Calls.replace_applicant)
    release = sync_method(Calls.release)
    decline = sync_method(Calls.decline)
    cancel = sync_method(Calls.cancel)
    check_in = sync_method(Calls.check_in)
    mark_no_show = sync_method(Calls.mark_no_show)
    undo_attendance = sync_method(Calls.undo_attendance)
    reschedule = sync_method(Calls.reschedule)
    recover_moves = sync_method(Calls.recover_moves)
    find_moved = sync_method(Calls.find_moved)
    lookup = sync_method(Calls.lookup)
    wait_list_position = sync_method(Calls.wait_list_position)
    list_reservations = sync_method(Calls.list_reservations)

    availability = sync_method(Calls.availability)
    earliest_available_day = sync_method(Calls.earliest_available_day)
    list_offices = sync_method(Calls.list_offices)
    describe_offices = sync_method(Calls.describe_offices)
    hold_remaining_histogram = sync_method(Calls.hold_remaining_histogram)
    abandoned_holds = sync_method(Calls.abandoned_holds)
    set_capacity = sync_method(Calls.set_capacity)
    close_day = sync_method(Calls.close_day)
    relocate_day = sync_method(Calls.relocate_day)
    open_day = sync_method(Calls.open_day)
    reallocate_unused = sync_method(Calls.reallocate_unused)
    release_parked = sync_method(Calls.release_parked)
    expire = sync_method(Calls.expire)
    publish = sync_method(Calls.publish)
    audit = sync_method(Calls.audit)
    reconcile = sync_method(Calls.reconcile)

    events = sync_method(Calls.events)
    trim_events = sync_method(Calls.trim_events)
    list_consumer_groups = sync_method(Calls.list_consumer_groups)
    create_consumer_group = sync_method(Calls.create_consumer_group)
    delete_consumer_group = sync_method(Calls.delete_consumer_group)
    acknowledge = sync_method(Calls.acknowledge)


class AsyncServiceClient(AsyncBound[Calls], AsyncResource):
    """:class:`ServiceClient` for asyncio: the same methods, awaited."""

    def __init__(self, http: httpx.AsyncClient, retries: Retries = _RETRIES) -> None:
        """Use an HTTP client of your own, with base URL and token; :meth:`open` is the usual way."""
        self._transport = AsyncTransport(http)
        self._clock = ServiceClock()
        super().__init__(Calls(retries, self._clock), self._transport.handle)
        self._retries = retries

    @classmethod
    async def open(
        cls, url: str, token: str = "", *, timeout_ms: int = _TIMEOUT_MS, retries: Retries = _RETRIES
    ) -> Self:
        """See :meth:`ServiceClient.open`."""
        return cls(httpx.AsyncClient(**_http_arguments(url, token, timeout_ms)), retries)

    async def close(self) -> None:
        """Close the connections. A second call does nothing."""
        await self._transport.http.aclose()

    def room(self, room: str) -> AsyncServiceWaitingRoom:
        """See :meth:`quota_engine.QuotaEngine.room`."""
        return AsyncServiceWaitingRoom(RoomCalls(self._retries, room, self._clock), self._transport.handle)

    def draw(self, draw: str) -> AsyncServiceDraw:
        """See :meth:`quota_engine.QuotaEngine.draw`."""
        return AsyncServiceDraw(self._retries, draw, self._transport, self._clock)

    reserve = async_method(Calls.reserve)
    confirm = async_method(Calls.confirm)
    extend = async_method(Calls.extend)
    remove_applicant = async_method(Calls.remove_applicant)
    replace_applicant = async_method(Calls.replace_applicant)
    release = async_method(Calls.release)
    decline = async_method(Calls.decline)
    cancel = async_method(Calls.cancel)
    check_in = async_method(Calls.check_in)
    mark_no_show = async_method(Calls.mark_no_show)
    undo_attendance = async_method(Calls.undo_attendance)
    reschedule = async_method(Calls.reschedule)
    recover_moves = async_method(Calls.recover_moves)
    find_moved = async_method(Calls.find_moved)
    lookup = async_method(Calls.lookup)
    wait_list_position = async_method(Calls.wait_list_position)
    list_reservations = async_method(Calls.list_reservations)

    availability = async_method(Calls.availability)
    earliest_available_day = async_method(Calls.earliest_available_day)
    list_offices = async_method(Calls.list_offices)
    describe_offices = async_method(Calls.describe_offices)
    hold_remaining_histogram = async_method(Calls.hold_remaining_histogram)
    abandoned_holds = async_method(Calls.abandoned_holds)
    set_capacity = async_method(Calls.set_capacity)
    close_day = async_method(Calls.close_day)
    relocate_day = async_method(Calls.relocate_day)
    open_day = async_method(Calls.open_day)
    reallocate_unused = async_method(Calls.reallocate_unused)
    release_parked = async_method(Calls.release_parked)
    expire = async_method(Calls.expire)
    publish = async_method(Calls.publish)
    audit = async_method(Calls.audit)
    reconcile = async_method(Calls.reconcile)

    events = async_method(Calls.events)
    trim_events = async_method(Calls.trim_events)
    list_consumer_groups = async_method(Calls.list_consumer_groups)
    create_consumer_group = async_method(Calls.create_consumer_group)
    delete_consumer_group = async_method(Calls.delete_consumer_group)
    acknowledge = async_method(Calls.acknowledge)
