"""Server-sent events: one task reads a changing object, and every reader of its stream gets the changes.

A handler returns the :class:`EventStream` that :meth:`EventStreams.open` makes. While an object (a room, say) has
readers, one feed polls its state and wakes the readers on a change. Each reader renders the state into its own event,
such as the status of its ticket, and sends the event if it differs from the last one it sent. A slow reader skips to
the newest state; no events are queued for it.
"""

from __future__ import annotations

__all__ = ["EventStream", "EventStreams", "StreamEvent"]

import asyncio
import logging
import random as random_module
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

from starlette.types import Receive, Scope, Send

from quota_engine.domain.errors import QuotaEngineError
from quota_engine.service.http.etag import etag_of
from quota_engine.service.http.problems import Problem

T = TypeVar("T")

POLL_INTERVAL_MS: Final = 250
"""Time between two reads of an object that has readers."""
HEARTBEAT_MS: Final = 10_000
"""Time without an event after which a comment is sent, so that proxies do not close the connection as idle."""
_RECONNECT_MS: Final = 2_000
_FULL_RETRY_S: Final = 5
_WAKE_BATCH: Final = 64
"""Readers to wake before other tasks run."""

_logger = logging.getLogger("quota_engine.service")
_HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # without it nginx buffers events
    (b"x-content-type-options", b"nosniff"),
)


class StreamEvent(NamedTuple):
    """An event: its type, of ``a-z_``, and its data, JSON without line breaks. Its id is the ETag of the data."""

    name: str
    data: bytes

    def encode(self, etag: str) -> bytes:
        """Return the event in the format of ``text/event-stream``."""
        return b"id: %s\nevent: %s\ndata: %s\n\n" % (etag.encode(), self.name.encode(), self.data)


class _Feed(Generic[T]):
    """The newest state of one object, and the task that polls it while it has readers."""

    __slots__ = ("_interval_s", "_is_failing", "_read", "state", "streams", "task", "version")

    def __init__(self, read: Callable[[], Awaitable[T]], interval_s: float, state: T) -> None:
        self.state = state
        self.version = 0
        self.streams: set[EventStream] = set()
        self._read = read
        self._interval_s = interval_s
        self._is_failing = False
        self.task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        now_s = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(self._interval_s)
            if not self.streams:
                return
            has_changed = await self._poll()
            woken = 0
            for stream in tuple(self.streams):
                if has_changed or stream.due_s <= now_s():
                    stream.wake()
                    woken += 1
                    if woken % _WAKE_BATCH == 0:
                        await asyncio.sleep(0)

    async def _poll(self) -> bool:
        """Read the state; return True if it has changed."""
        try:
            state = await self._read()
        except Exception as error:  # readers keep the last state until the store answers again
            if not self._is_failing:
                _logger.warning(
                    "an event stream cannot read its state: %s",
                    error,
                    exc_info=not isinstance(error, QuotaEngineError),
                )
            self._is_failing = True
            return False
        self._is_failing = False
        if state == self.state:
            return False
        self.state = state
        self.version += 1
        return True


class EventStreams:
    """The open event streams of one process, and their feeds."""

    def __init__(
        self,
        streams_max: int,
        lifetime_ms: int,
        *,
        heartbeat_ms: int = HEARTBEAT_MS,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        """
        Args:
            streams_max: most streams that may be open at a time.
            lifetime_ms: age at which a stream ends at the latest, and three quarters of it at the earliest. Its reader
                reconnects, so readers spread over workers and machines again.
            heartbeat_ms: see :data:`HEARTBEAT_MS`.
            random: returns a number from 0 to 1, so that readers do not all reconnect at one moment.
        """
        self.streams_max = streams_max
        self.lifetime_s = lifetime_ms / 1000
        self.heartbeat_s = heartbeat_ms / 1000
        self.random = random
        self.count = 0
        self.draining = False
        self._feeds: dict[Hashable, _Feed[Any]] = {}

    async def open(
        self,
        key: Hashable,
        read: Callable[[], Awaitable[T]],
        render: Callable[[T], Awaitable[StreamEvent]],
        *,
        interval_ms: int = POLL_INTERVAL_MS,
    ) -> EventStream:
        """Open a stream of one object's changes.

        Args:
            key: identifies the object; streams with an equal key share a feed. Never an identity, since it is kept.
            read: returns the object's state. Two equal states count as no change.
            render: returns this reader's event for a state. It is called once here, so that what it raises becomes a
                problem document.
            interval_ms: time between two reads, if this stream starts the feed.

        Returns:
            The stream, which the handler returns as its response.

        Raises:
            Problem: 503, if ``streams_max`` streams are open.
        """
        self._check_capacity()
        feed = self._feeds.get(key)
        state = await read() if feed is None else feed.state
        await render(state)
        self._check_capacity()  # others may have opened while this one awaited
        return EventStream(self, key, read, render, interval_ms / 1000, state)

    def drain(self) -> None:
        """End all streams. A stream opened later sends one event and ends."""
        self.draining = True
        for feed in self._feeds.values():
            for stream in feed.streams:
                stream.end()

    def attach(self, stream: EventStream) -> _Feed[Any]:
        """Count a stream that starts, and return its feed."""
        feed = self._feeds.get(stream.key)
        if feed is None:
            feed = self._feeds[stream.key] = _Feed(stream.read, stream.interval_s, stream.state)
        stream.state = None  # the feed holds the state from here on
        feed.streams.add(stream)
        self.count += 1
        return feed

    def detach(self, stream: EventStream) -> None:
        """Uncount a stream that has ended, and drop its feed if it was the last."""
        feed = self._feeds[stream.key]
        feed.streams.discard(stream)
        if not feed.streams:
            del self._feeds[stream.key]
        self.count -= 1

    def _check_capacity(self) -> None:
        if self.count >= self.streams_max:
            raise Problem("too-many-streams", f"at most {self.streams_max} in a process", retry_after_s=_FULL_RETRY_S)


class EventStream:
    """The stream of one reader. An ASGI application, as Starlette's responses are."""

    __slots__ = ("_is_ending", "_render", "_streams", "_waiter", "due_s", "interval_s", "key", "read", "state")

    def __init__(
        self,
        streams: EventStreams,
        key: Hashable,
        read: Callable[[], Awaitable[Any]],
        render: Callable[[Any], Awaitable[StreamEvent]],
        interval_s: float,
        state: Any,
    ) -> None:
        self.key = key
        self.read = read
        self.interval_s = interval_s
        self.state = state
        self.due_s = 0.0
        """Time of the loop's clock at which a heartbeat or the end is due."""
        self._streams = streams
        self._render = render
        self._is_ending = False
        self._waiter: asyncio.Future[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the reader disconnects, the stream's lifetime is over, or the service drains."""
        await self.serve(scope, receive, send, ())

    async def serve(self, scope: Scope, receive: Receive, send: Send, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Send events as :meth:`__call__` does, with additional response headers."""
        await send({"type": "http.response.start", "status": 200, "headers": [*_HEADERS, *headers]})
        if scope["method"] != "HEAD":
            feed = self._streams.attach(self)
            watcher = asyncio.get_running_loop().create_task(self._end_on_disconnect(receive))
            try:
                await self._run(feed, send, _last_event_id(scope))
            finally:
                watcher.cancel()
                self._streams.detach(self)
        await send({"type": "http.response.body", "body": b""})

    def wake(self) -> None:
        """Resume the stream, because its state has changed or it is due."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def end(self) -> None:
        """End the stream soon."""
        self._is_ending = True
        self.wake()

    async def _end_on_disconnect(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.end()

    async def _run(self, feed: _Feed[Any], send: Send, sent_etag: str) -> None:
        streams = self._streams
        loop = asyncio.get_running_loop()
        heartbeat_s = streams.heartbeat_s
        ends_s = loop.time() + streams.lifetime_s * (1 - streams.random() / 4)
        preamble = b"retry: %d\n\n" % int(_RECONNECT_MS * (1 + streams.random()))
        version = -1
        while True:
            text = preamble
            if version != feed.version:
                version = feed.version
                event = await self._rendered(feed.state)
                if event is None:
                    return
                etag = etag_of(event.data)
                if etag != sent_etag:
                    sent_etag = etag
                    text += event.encode(etag)
            now_s = loop.time()
            if not text and now_s >= self.due_s:
                text = b":\n\n"
            if text:
                await send({"type": "http.response.body", "body": text, "more_body": True})
                preamble = b""
                self.due_s = min(ends_s, loop.time() + heartbeat_s)
            if self._is_ending or streams.draining or loop.time() >= ends_s:
                return
            if version == feed.version and loop.time() < self.due_s:
                self._waiter = loop.create_future()
                await self._waiter
                self._waiter = None

    async def _rendered(self, state: Any) -> StreamEvent | None:
        try:
            return await self._render(state)
        except QuotaEngineError as error:
            _logger.info("an event stream has ended: %s", error)
        except Exception:
            _logger.exception("an event stream has ended")
        return None


def _last_event_id(scope: Scope) -> str:
    """Return the id of the last event that a reconnecting reader has seen; ``""`` if none."""
    for name, value in scope["headers"]:
        if name == b"last-event-id":
            last: str = value.decode("latin-1")
            return last
    return ""
