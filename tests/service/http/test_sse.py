"""Event streams send each change once to all readers, and polls have ETags."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from starlette.types import Message, Scope

from quota_engine.api_schema.events import TrimmedBody
from quota_engine.domain.errors import BackendUnavailable, UnknownName
from quota_engine.service.api import ApiSection
from quota_engine.service.api.common import get
from quota_engine.service.app import ServiceApp, create_app
from quota_engine.service.http.endpoint import EndpointApp
from quota_engine.service.http.etag import etag_of, matches_etag
from quota_engine.service.http.limits import RequestLimits
from quota_engine.service.http.request import ApiRequest
from quota_engine.service.http.responses import ApiResponse, etag_response
from quota_engine.service.http.sse import EventStream, EventStreams, StreamEvent
from quota_engine.service.openapi import openapi_document
from tests.support.in_process_service import Raw, configuration, connected, listening

EVERY_MS = 5


class Counter:
    """An object to stream: a number, and the count of its reads."""

    def __init__(self) -> None:
        self.number = 0
        self.reads = 0
        self.error: Exception | None = None
        self._waiters: list[asyncio.Event] = []

    async def read(self) -> int:
        self.reads += 1
        for event in self._waiters:
            event.set()
        if self.error is not None:
            raise self.error
        return self.number

    async def wait_for_reads(self, times: int = 2) -> None:
        """Wait for ``times`` further reads."""
        wanted = self.reads + times
        while self.reads < wanted:
            event = asyncio.Event()
            self._waiters.append(event)
            await asyncio.wait_for(event.wait(), 20)
            self._waiters.remove(event)


def render_as(name: str = "") -> Callable[[int], Any]:
    """Return a renderer of the number as an event ``name``."""

    async def render(number: int) -> StreamEvent:
        if name == "odd":
            number -= number % 2  # skips every second change
        if name == "nobody":
            raise UnknownName("name", "is not known", "another")
        if number == 13:
            raise ZeroDivisionError
        return StreamEvent("number", json.dumps({"number": number, "for": name}).encode())

    return render


class Reader:
    """The ASGI server's side of one stream."""

    def __init__(
        self, stream: EventStream, *, method: str = "GET", headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        self.sent: asyncio.Queue[bytes] = asyncio.Queue()
        self.gone = asyncio.Event()
        self.may_continue = asyncio.Event()
        self.may_continue.set()
        self.start: Message = {}
        scope: Scope = {"type": "http", "method": method, "headers": list(headers)}
        self.task = asyncio.create_task(stream(scope, self._receive, self._send))

    async def _receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        await self.may_continue.wait()
        if message["type"] == "http.response.start":
            self.start = message
        elif message["body"] and not message["body"].startswith(b"retry"):
            self.sent.put_nowait(message["body"])
        elif message["body"]:
            ahead, _, rest = message["body"].partition(b"\n\n")
            assert int(ahead.split(b": ")[1]) >= 2000
            self.sent.put_nowait(rest)

    async def next(self) -> bytes:
        """Return the next part that is sent."""
        return await asyncio.wait_for(self.sent.get(), 20)

    async def number(self) -> int:
        """Return the number in the next event."""
        return int(json.loads((await self.next()).split(b"data: ")[1])["number"])

    async def ended(self) -> None:
        """Wait for the end of the stream."""
        await asyncio.wait_for(self.task, 20)


@contextlib.asynccontextmanager
async def open_readers(streams: EventStreams, counter: Counter, *names: str) -> AsyncIterator[list[Reader]]:
    found = [Reader(await streams.open("thing", counter.read, render_as(name), interval_ms=EVERY_MS)) for name in names]
    try:
        yield found
    finally:
        streams.drain()
        for one in found:
            one.may_continue.set()
            await one.ended()
        assert streams.count == 0


def create_streams(**changes: Any) -> EventStreams:
    settings = {"streams_max": 100, "lifetime_ms": 60_000, "random": lambda: 0.5, **changes}
    return EventStreams(**settings)


async def test_each_change_is_sent_once_to_all_readers() -> None:
    """One task reads, however many streams are open."""
    streams, counter = create_streams(), Counter()
    async with open_readers(streams, counter, "a", "b", "odd") as (one, other, odd):
        assert [await each.number() for each in (one, other, odd)] == [0, 0, 0]
        assert one.start["status"] == 200
        assert dict(one.start["headers"])[b"content-type"].startswith(b"text/event-stream")
        assert dict(one.start["headers"])[b"x-accel-buffering"] == b"no"
        reads = counter.reads
        await counter.wait_for_reads(3)
        assert counter.reads - reads <= 4
        for number in (1, 2):
            counter.number = number
            assert await one.number() == number
            assert await other.number() == number
        assert await odd.number() == 2
        assert one.sent.empty()
        assert odd.sent.empty()


async def test_slow_reader_skips_to_the_newest_state() -> None:
    """The other readers get every change meanwhile."""
    streams, counter = create_streams(), Counter()
    async with open_readers(streams, counter, "quick", "slow") as (quick, slow):
        assert await quick.number() == await slow.number() == 0
        slow.may_continue.clear()
        for number in range(1, 8):
            counter.number = number
            assert await quick.number() == number
        slow.may_continue.set()
        # The event in transit when the reader stopped, and the newest.
        assert [await slow.number(), await slow.number()] == [1, 7]
        assert slow.sent.empty()


async def test_disconnect_ends_the_stream_and_its_feed() -> None:
    streams, counter = create_streams(), Counter()
    one = Reader(await streams.open("thing", counter.read, render_as(), interval_ms=EVERY_MS))
    assert await one.number() == 0
    assert streams.count == 1
    feed = streams._feeds["thing"]
    one.gone.set()
    await one.ended()
    assert streams.count == 0
    assert not streams._feeds
    await asyncio.wait_for(feed.task, 20)


async def test_stream_ends_at_its_lifetime() -> None:
    streams, counter = create_streams(lifetime_ms=40), Counter()
    one = Reader(await streams.open("thing", counter.read, render_as(), interval_ms=EVERY_MS))
    assert await one.number() == 0
    await one.ended()


async def test_idle_stream_sends_heartbeats() -> None:
    streams, counter = create_streams(heartbeat_ms=20), Counter()
    async with open_readers(streams, counter, "") as (one,):
        assert await one.number() == 0
        assert await one.next() == b":\n\n"
        assert await one.next() == b":\n\n"


async def test_draining_ends_streams_and_new_ones_send_one_event() -> None:
    streams, counter = create_streams(), Counter()
    one = Reader(await streams.open("thing", counter.read, render_as(), interval_ms=EVERY_MS))
    assert await one.number() == 0
    streams.drain()
    await one.ended()
    late = Reader(await streams.open("thing", counter.read, render_as(), interval_ms=EVERY_MS))
    assert await late.number() == 0
    await late.ended()


async def test_reconnecting_reader_skips_a_known_state() -> None:
    """``Last-Event-ID`` is the ETag of the content."""
    streams, counter = create_streams(), Counter()
    event = await render_as()(0)
    stream = await streams.open("thing", counter.read, render_as(), interval_ms=EVERY_MS)
    back = Reader(stream, headers=((b"last-event-id", etag_of(event.data).encode()),))
    assert await back.next() == b""  # only the reconnection time
    counter.number = 1
    assert await back.number() == 1
    streams.drain()
    await back.ended()


async def test_store_outage_keeps_the_last_state(caplog: pytest.LogCaptureFixture) -> None:
    """The log has one warning, and the stream continues afterwards."""
    streams, counter = create_streams(), Counter()
    async with open_readers(streams, counter, "") as (one,):
        assert await one.number() == 0
        counter.error = BackendUnavailable("the store is away")
        await counter.wait_for_reads(4)
        counter.error, counter.number = None, 5
        assert await one.number() == 5
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_error_of_one_reader_ends_its_stream_only(caplog: pytest.LogCaptureFixture) -> None:
    streams, counter = create_streams(), Counter()
    async with open_readers(streams, counter, "", "odd") as (one, odd):
        assert await one.number() == await odd.number() == 0
        counter.number = 13
        await one.ended()
        assert await odd.number() == 12
    assert "ZeroDivisionError" in caplog.text


def create_counter_app(counter: Counter, **limits: int) -> ServiceApp:
    """Return the service with a streaming and a polling endpoint of a counter."""
    app = create_app(configuration(limits=RequestLimits(**limits)))
    service = app.context

    async def stream(_: Any, call: ApiRequest) -> EventStream:
        show = render_as(call.path["name"])
        return await service.streams.open("thing", counter.read, show, interval_ms=EVERY_MS)

    async def poll(_: Any, call: ApiRequest) -> ApiResponse:
        return etag_response(TrimmedBody(events_left=counter.number))

    for path, handler, more in (
        ("/v1/things/{name}/stream", stream, {"is_stream": True}),
        ("/v1/things/{name}", poll, {"has_etag": True}),
    ):
        endpoint = get(path, "thing", "A counter.", handler, TrimmedBody, **more)
        app.routes.add("GET", path, EndpointApp(endpoint, service))
    return app


async def events(raw: Raw) -> dict[str, Any]:
    """Return the data of the next event of a chunked stream."""
    found: dict[str, Any] = json.loads((await raw.until(b"\n\n\r\n")).split(b"data: ")[1])
    return found


async def test_stream_over_a_socket() -> None:
    """A browser's request gets changes, and the stream ends when the service drains."""
    counter = Counter()
    app = create_counter_app(counter)
    async with listening(app) as port, connected(port) as one, connected(port) as other:
        for name, raw in (("a", one), ("b", other)):
            await raw.send(b"GET /v1/things/%s/stream HTTP/1.1\r\nhost: x\r\n\r\n" % name.encode())
            head = await raw.until(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert b"x-request-id: " in head
            assert await events(raw) == {"number": 0, "for": name}
        counter.number = 1
        assert await events(one) == {"number": 1, "for": "a"}
        assert await events(other) == {"number": 1, "for": "b"}
        assert app.context.streams.count == 2
        other.close()
        while app.context.streams.count > 1:
            await counter.wait_for_reads()
        app.context.draining = True
        assert (await one.until(b"0\r\n\r\n")) == b"0\r\n\r\n"
    assert app.context.streams.count == 0


async def test_refusals_before_the_stream_are_problems() -> None:
    """HEAD opens no stream."""
    counter = Counter()
    app = create_counter_app(counter, streams_max=1)
    url = "/v1/things/a/stream"
    async with (
        listening(app) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
        http.stream("GET", url) as first,
    ):
        assert first.status_code == 200
        full = await http.get(url)
        assert full.status_code == 503
        assert full.json()["type"] == "urn:quota-engine:problem:too-many-streams"
        assert int(full.headers["retry-after"]) >= 1
    app = create_counter_app(counter)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
        assert (await http.get("/v1/things/nobody/stream")).status_code == 404
        head = await http.head(url)
        assert (head.status_code, head.content) == (200, b"")
        assert app.context.streams.count == 0


async def test_unchanged_poll_is_304() -> None:
    counter = Counter()
    transport = httpx.ASGITransport(app=create_counter_app(counter))
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
        first = await http.get("/v1/things/a")
        tag = first.headers["etag"]
        assert first.json() == {"events_left": 0}
        assert first.headers["cache-control"] == "private, no-cache"
        for known in (tag, f'"other", W/{tag}', "*"):
            same = await http.get("/v1/things/a", headers={"if-none-match": known})
            assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
            assert "content-length" not in same.headers
        counter.number = 1
        changed = await http.get("/v1/things/a", headers={"if-none-match": tag})
        assert (changed.status_code, changed.json()) == (200, {"events_left": 1})
        assert changed.headers["etag"] != tag


def test_etags_match_whole_and_quoted() -> None:
    tag = etag_of(b"content")
    assert tag != etag_of(b"another")
    assert not matches_etag(tag, b"")
    assert not matches_etag(tag, tag.encode())
    assert not matches_etag(tag, b'"%s' % tag[:-1].encode())


def test_document_describes_streams_and_etags() -> None:

    async def nothing(*_: Any) -> Any:
        raise AssertionError

    endpoints = (
        get("/v1/a", "a", "Streams.", nothing, TrimmedBody, is_stream=True),
        get("/v1/b", "b", "Is tagged.", nothing, TrimmedBody, has_etag=True),
    )
    described = openapi_document([ApiSection("both", "Of both kinds.", endpoints)])["paths"]
    streamed, tagged = described["/v1/a"]["get"], described["/v1/b"]["get"]
    assert list(streamed["responses"]["200"]["content"]) == ["text/event-stream"]
    assert "Too many event streams" in streamed["responses"]["503"]["description"]
    assert tagged["responses"]["304"]["description"] == "Not modified."
    headers = tagged["responses"]["304"]["headers"]
    assert headers.keys() == {"ETag", "X-Request-Id", "X-Quota-Engine-Time-Ms"}
    assert [one["name"] for one in tagged["parameters"]] == ["If-None-Match"]
