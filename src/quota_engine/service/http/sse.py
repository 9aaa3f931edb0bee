"""Server-sent events: what changes is sent to all who look at it, and is worked out once for all of them.

A handler returns what :meth:`Streams.listen` gives it instead of a :class:`~quota_engine.service.http.endpoint.Reply`.
While anybody listens to a thing (a room, say), one task looks at it again and again, and wakes all listeners when it
has changed. Each turns the state into its own event (how a ticket stands), and sends it if it is not the one it sent
last. A listener whose reader is slow takes the newest state when it gets that far: nothing is kept for it meanwhile.
"""

from __future__ import annotations

__all__ = ["Stream", "StreamEvent", "Streams"]

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

from starlette.types import Receive, Scope, Send

from quota_engine.domain.errors import QuotaEngineError
from quota_engine.service.http.etag import tag_of
from quota_engine.service.http.problems import Problem

T = TypeVar("T")

LOOK_EVERY_MS: Final = 250
"""How often what is listened to is looked at."""
BEAT_MS: Final = 10_000
"""After so long without an event a comment is sent, so that nobody on the way takes the connection for dead."""
_RETRY_MS: Final = 2_000
_FULL_RETRY_S: Final = 5
_SLICE: Final = 64
"""So many listeners are woken before other work has its turn."""

_logger = logging.getLogger("quota_engine.service")
_HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # or a proxy in front would collect events
    (b"x-content-type-options", b"nosniff"),
)


class StreamEvent(NamedTuple):
    """An event: its type, of ``a-z``, and its data (JSON without line breaks). Its id is the tag of the data."""

    kind: str
    data: bytes

    def text(self, tag: str) -> bytes:
        """As it goes over the wire."""
        return b"id: %s\nevent: %s\ndata: %s\n\n" % (tag.encode(), self.kind.encode(), self.data)


class _Feed(Generic[T]):
    """What several listen to: its newest state, and the task that looks at it while anybody listens."""

    __slots__ = ("_every_s", "_is_failing", "_look", "listeners", "state", "task", "version")

    def __init__(self, look: Callable[[], Awaitable[T]], every_s: float, state: T) -> None:
        self.state = state
        self.version = 0
        self.listeners: set[Stream] = set()
        self._look = look
        self._every_s = every_s
        self._is_failing = False
        self.task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        now_s = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(self._every_s)
            if not self.listeners:
                return
            is_new = await self._is_new()
            woken = 0
            for listener in tuple(self.listeners):
                if is_new or listener.due_s <= now_s():
                    listener.wake()
                    woken += 1
                    if woken % _SLICE == 0:
                        await asyncio.sleep(0)

    async def _is_new(self) -> bool:
        try:
            state = await self._look()
        except Exception as error:  # listeners stay with what they have, and hear when it is back
            if not self._is_failing:
                _logger.warning(
                    "a stream sees nothing new: %s", error, exc_info=not isinstance(error, QuotaEngineError)
                )
            self._is_failing = True
            return False
        self._is_failing = False
        if state == self.state:
            return False
        self.state = state
        self.version += 1
        return True


class Streams:
    """The streams of one process, and what they are about."""

    def __init__(
        self,
        streams_max: int,
        life_ms: int,
        *,
        beat_ms: int = BEAT_MS,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """
        Args:
            streams_max: how many may be open at a time.
            life_ms: after so long at most (and three quarters of it at least) a stream ends, and its reader connects
                anew: so that readers spread over workers and machines again, and nothing is open for ever.
            beat_ms: see :data:`BEAT_MS`.
            chance: a number from 0 to 1, so that not all come back at the same moment.
        """
        self.streams_max = streams_max
        self.life_s = life_ms / 1000
        self.beat_s = beat_ms / 1000
        self.chance = chance
        self.count = 0
        self.draining = False
        self._feeds: dict[Hashable, _Feed[Any]] = {}

    async def listen(
        self,
        key: Hashable,
        look: Callable[[], Awaitable[T]],
        show: Callable[[T], Awaitable[StreamEvent]],
        *,
        every_ms: int = LOOK_EVERY_MS,
    ) -> Stream:
        """Listen to a thing.

        Args:
            key: what it is, the same for all who listen to it. Not an identity: it is never shown, but kept.
            look: gets its state; two that are equal are the same. Called once here, and by one task for all.
            show: the event that a state is for this listener. Called once here, so that what it raises is a problem.
            every_ms: how often to look, if nobody listens to it yet.

        Returns:
            what the handler has to return.

        Raises:
            Problem: 503, there are too many streams already.
        """
        self._see_that_there_is_room()
        feed = self._feeds.get(key)
        state = await look() if feed is None else feed.state
        await show(state)
        self._see_that_there_is_room()
        return Stream(self, key, look, show, every_ms / 1000, state)

    def drain(self) -> None:
        """End all streams; those that come from now on get one event, and end."""
        self.draining = True
        for feed in self._feeds.values():
            for listener in feed.listeners:
                listener.end()

    def join(self, stream: Stream) -> _Feed[Any]:
        """Count a stream that begins, and find what it listens to."""
        feed = self._feeds.get(stream.key)
        if feed is None:
            feed = self._feeds[stream.key] = _Feed(stream.look, stream.every_s, stream.state)
        stream.state = None  # from now on it is the feed's
        feed.listeners.add(stream)
        self.count += 1
        return feed

    def leave(self, stream: Stream) -> None:
        """A stream has ended; a thing that nobody listens to is not looked at any more."""
        feed = self._feeds[stream.key]
        feed.listeners.discard(stream)
        if not feed.listeners:
            del self._feeds[stream.key]
        self.count -= 1

    def _see_that_there_is_room(self) -> None:
        if self.count >= self.streams_max:
            raise Problem("too-many-streams", f"at most {self.streams_max} in a process", retry_after_s=_FULL_RETRY_S)


class Stream:
    """One who listens. An ASGI application, as Starlette's responses are."""

    __slots__ = ("_is_over", "_show", "_streams", "_waiter", "due_s", "every_s", "key", "look", "state")

    def __init__(
        self,
        streams: Streams,
        key: Hashable,
        look: Callable[[], Awaitable[Any]],
        show: Callable[[Any], Awaitable[StreamEvent]],
        every_s: float,
        state: Any,
    ) -> None:
        self.key = key
        self.look = look
        self.every_s = every_s
        self.state = state
        self.due_s = 0.0
        """When it has something to do even if nothing is new."""
        self._streams = streams
        self._show = show
        self._is_over = False
        self._waiter: asyncio.Future[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the reader has gone, the life of a stream is over, or the service drains."""
        await self.serve(scope, receive, send, ())

    async def serve(self, scope: Scope, receive: Receive, send: Send, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """The same, with more headers."""
        await send({"type": "http.response.start", "status": 200, "headers": [*_HEADERS, *headers]})
        if scope["method"] != "HEAD":
            feed = self._streams.join(self)
            watcher = asyncio.get_running_loop().create_task(self._end_when_gone(receive))
            try:
                await self._run(feed, send, _last_id(scope))
            finally:
                watcher.cancel()
                self._streams.leave(self)
        await send({"type": "http.response.body", "body": b""})

    def wake(self) -> None:
        """There is something new, or to do."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def end(self) -> None:
        """Let it come to its end."""
        self._is_over = True
        self.wake()

    async def _end_when_gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.end()

    async def _run(self, feed: _Feed[Any], send: Send, tag_sent: str) -> None:
        streams = self._streams
        loop = asyncio.get_running_loop()
        beat_s = streams.beat_s
        ends_s = loop.time() + streams.life_s * (1 - streams.chance() / 4)
        ahead = b"retry: %d\n\n" % int(_RETRY_MS * (1 + streams.chance()))
        version = -1
        while True:
            text = ahead
            if version != feed.version:
                version = feed.version
                event = await self._event(feed.state)
                if event is None:
                    return
                tag = tag_of(event.data)
                if tag != tag_sent:
                    tag_sent = tag
                    text += event.text(tag)
            now_s = loop.time()
            if not text and now_s >= self.due_s:
                text = b":\n\n"
            if text:
                await send({"type": "http.response.body", "body": text, "more_body": True})
                ahead = b""
                self.due_s = min(ends_s, loop.time() + beat_s)
            if self._is_over or streams.draining or loop.time() >= ends_s:
                return
            if version == feed.version and loop.time() < self.due_s:
                self._waiter = loop.create_future()
                await self._waiter
                self._waiter = None

    async def _event(self, state: Any) -> StreamEvent | None:
        try:
            return await self._show(state)
        except QuotaEngineError as error:
            _logger.info("a stream has ended: %s", error)
        except Exception:
            _logger.exception("a stream has ended")
        return None


def _last_id(scope: Scope) -> str:
    """What a reader that connects anew has had already."""
    for name, value in scope["headers"]:
        if name == b"last-event-id":
            found: str = value.decode("latin-1")
            return found
    return ""
