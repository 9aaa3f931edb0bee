"""Slow and malformed senders on a real socket get problems where HTTP allows it, and delay no other client."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import re
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from quota_engine.ports import Describe
from quota_engine.service.app import ServiceApp
from quota_engine.service.http.auth import Role
from quota_engine.service.http.buffered_request import BufferedRequest
from quota_engine.service.http.limits import RequestLimits
from tests.support.form_browser import csrf_token_of
from tests.support.in_process_service import DAY_PATH, NIK, TOKENS, connected, listening, running

pytestmark = pytest.mark.slow

LIMITS = RequestLimits(
    header_timeout_ms=20_000, body_timeout_ms=20_000, write_timeout_ms=20_000, header_bytes_max=2_048
)
"""Time-outs that no test reaches, also on a machine that is busy."""
SHORT_LIMITS = RequestLimits(
    header_timeout_ms=400, body_timeout_ms=400, write_timeout_ms=400, header_bytes_max=LIMITS.header_bytes_max
)
"""For tests that wait for a time-out."""
LIVE = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"
BODY = json.dumps({"applicants": [NIK], "service": "new", "session": "morning"}).encode()
HEAD = (
    f"POST {DAY_PATH}/reservations HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKENS[Role.SERVICE]}\r\n"
    "content-type: application/json\r\nidempotency-key: wish\r\n"
).encode()
WHOLE = HEAD + b"content-length: %d\r\n\r\n%b" % (len(BODY), BODY)


class Served:
    """A service on a socket, with a check for changes."""

    def __init__(self, app: ServiceApp, port: int) -> None:
        self.app = app
        self.port = port

    async def state(self) -> Any:
        return await self.app.context.engine._store.execute(Describe("surabaya"))

    async def still_serves(self) -> None:
        async with connected(self.port) as raw:
            await raw.send(WHOLE)
            assert (await raw.until(b"\r\n\r\n")).startswith((b"HTTP/1.1 201 ", b"HTTP/1.1 200 "))


@contextlib.asynccontextmanager
async def serving(limits: RequestLimits, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Served]:
    """Yield a service, and check afterwards that it serves and that the log has no traceback."""
    async with running(limits=limits) as client, listening(client.app) as port:
        found = Served(client.app, port)
        yield found
        await found.still_serves()
    assert not [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR]
    assert NIK not in caplog.text


@pytest.fixture
async def served(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Served]:
    async with serving(LIMITS, caplog) as found:
        yield found


@pytest.fixture
async def impatient(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Served]:
    async with serving(SHORT_LIMITS, caplog) as found:
        yield found


def problem_in(answer: bytes) -> tuple[int, str]:
    """Return status and type of the problem in a response that ends the connection."""
    head, _, content = answer.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in lines[1:])
    assert fields[b"content-type"] == b"application/problem+json"
    assert fields[b"connection"] == b"close"
    assert int(fields[b"content-length"]) == len(content)
    found = json.loads(content)
    status = int(lines[0].split(b" ")[1])
    assert found["status"] == status
    return status, found["type"].rpartition(":")[2]


BAD: dict[str, tuple[list[bytes], int, str]] = {
    "a head without end": ([b"GET / HTTP/1.1\r\n", *[b"x-%d: y\r\n" % number for number in range(500)]], 431,
                           "headers-too-large"),
    "one header without end": ([b"GET / HTTP/1.1\r\nx: ", b"y" * 20_000], 431, "headers-too-large"),
    "an address without end": ([b"GET /" + b"y" * 20_000], 431, "headers-too-large"),
    "a large head at once": ([b"GET / HTTP/1.1\r\nx: " + b"y" * 20_000 + b"\r\n\r\n"], 431, "headers-too-large"),
    "a body that is announced too large": ([HEAD + b"content-length: 99999999\r\n\r\n"], 413, "too-large"),
    "a number that is none": ([HEAD + b"content-length: 9" + b"9" * 100 + b"\r\n\r\n"], 400, "bad-request"),
    "chunks without end": ([HEAD + b"transfer-encoding: chunked\r\n\r\n", *[b"4000\r\n" + b" " * 0x4000 + b"\r\n"] * 5],
                           413, "too-large"),
    "framing without end": ([HEAD + b"transfer-encoding: chunked\r\n\r\n1;", *[b"x" * 65_536] * 10], 413, "too-large"),
    "two lengths": ([HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\n"], 400, "bad-request"),
    "a length and chunks": ([HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n"], 400, "bad-request"),
    "a negative length": ([HEAD + b"content-length: -5\r\n\r\n"], 400, "bad-request"),
    "a chunk that is none": ([HEAD + b"transfer-encoding: chunked\r\n\r\nxyz\r\n"], 400, "bad-request"),
    "another protocol": ([b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"], 400, "bad-request"),
    "garbage": ([b"\r\nhello there\r\n\r\n"], 400, "bad-request"),
    "a header that is none": ([b"GET / HTTP/1.1\r\nno colon here\r\n\r\n"], 400, "bad-request"),
    "a folded header with a zero": ([b"GET / HTTP/1.1\r\nx: a\x00b\r\n\r\n"], 400, "bad-request"),
    "an address that is none": ([b"GET http://[ HTTP/1.1\r\n\r\n"], 400, "bad-request"),
    "a later HTTP": ([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], 400, "bad-request"),
}  # fmt: skip


STALLED: dict[str, bytes] = {
    "a head that stops": b"GET /health/live HTTP/1.1\r\nhost",
    "a body that stops": HEAD + b"content-length: 99\r\n\r\n{",
    "a body shorter than it says": HEAD + b"content-length: %d\r\n\r\n%b" % (len(BODY) + 1, BODY),
    "chunks that stop": HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\n{",
}


@pytest.mark.parametrize("case", STALLED)
async def test_stalled_requests_time_out_and_close(impatient: Served, case: str) -> None:
    """Nothing changes in the store."""
    before = await impatient.state()
    async with connected(impatient.port) as raw:
        await raw.send(STALLED[case])
        assert problem_in(await raw.rest()) == (408, "request-timeout")
    assert await impatient.state() == before


@pytest.mark.parametrize("case", BAD)
async def test_malformed_bytes_get_a_problem_and_close(served: Served, case: str) -> None:
    """Nothing changes in the store."""
    parts, status, kind = BAD[case]
    before = await served.state()
    async with connected(served.port) as raw:
        for part in parts:
            await raw.send(part)
            await asyncio.sleep(0)
        assert problem_in(await raw.rest()) == (status, kind)
    assert await served.state() == before


async def test_silent_connection_closes_without_a_response(impatient: Served) -> None:
    async with connected(impatient.port) as raw:
        assert await raw.rest() == b""


async def test_trickling_headers_do_not_extend_the_timeout(impatient: Served) -> None:
    async with connected(impatient.port) as raw:
        for byte in HEAD + b"x: " + b"y" * 200:
            await raw.send(bytes([byte]))
            await asyncio.sleep(0.005)
            if raw.reader._buffer:  # type: ignore[attr-defined]
                break
        assert problem_in(await raw.rest()) == (408, "request-timeout")


@pytest.mark.parametrize("size", [1, 7])
async def test_request_in_small_pieces_is_the_same_request(served: Served, size: int) -> None:
    """In chunks too, and the next request on the connection as well."""
    chunked = HEAD + b"transfer-encoding: chunked\r\n\r\n3\r\n%b\r\n%x\r\n%b\r\n0\r\nx-trailer: y\r\n\r\n" % (
        BODY[:3], len(BODY) - 3, BODY[3:],
    )  # fmt: skip
    async with connected(served.port) as raw:
        for whole, status in ((chunked, b"201"), (WHOLE, b"200")):
            for start in range(0, len(whole), size):
                await raw.send(whole[start : start + size])
            head = await raw.until(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 " + status)
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            assert json.loads(await raw.reader.readexactly(length))["status"] == "HELD"


async def test_pipelined_requests_are_answered_in_order(served: Served) -> None:
    """Garbage behind them is answered last."""
    async with connected(served.port) as raw:
        await raw.send(LIVE * 3 + WHOLE + LIVE + b"nonsense\r\n\r\n")
        answer = await raw.rest()
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"200", b"200", b"201", b"200", b"400"]
    assert problem_in(answer[answer.rindex(b"HTTP/1.1 400") :]) == (400, "bad-request")


async def test_half_closed_connection_gets_its_response(served: Served) -> None:
    for sent, status in ((WHOLE, b"201"), (HEAD, b"400"), (b"", b"")):
        async with connected(served.port) as raw:
            await raw.send(sent)
            raw.writer.write_eof()
            assert (await raw.rest())[9:12] == status


async def test_keep_alive_follows_the_request(served: Served) -> None:
    """``Connection: close`` and HTTP/1.0 close; HTTP/1.0 with keep-alive does not."""
    for version, field, is_kept in (
        (b"1.1", b"connection: close", False),
        (b"1.0", b"x: y", False),
        (b"1.0", b"connection: keep-alive", True),
    ):
        async with connected(served.port) as raw:
            request = b"GET /health/live HTTP/%b\r\nhost: x\r\n%b\r\n\r\n" % (version, field)
            await raw.send(request)
            head = await raw.until(b"\r\n\r\n")
            assert (b"connection: close" in head) is not is_kept
            if is_kept:
                await raw.send(request)
                assert b"HTTP/1.1 200" in await raw.until(b"\r\n\r\n")
            else:
                assert await raw.rest() == b'{"status":"live"}'


async def test_other_http_features(served: Served) -> None:
    """HEAD, absolute-form targets, ``Expect``, a declined upgrade, and an unknown path."""
    async with connected(served.port) as raw:
        await raw.send(b"HEAD /health/live HTTP/1.1\r\nhost: x\r\n\r\n" + LIVE)
        assert b"content-length: 17" in await raw.until(b"\r\n\r\n")
        assert (await raw.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")  # at once: HEAD had no body
        assert await raw.reader.readexactly(17) == b'{"status":"live"}'
        await raw.send(
            b"GET http://x/v1/offices/surabaya/availability?first_day=2026%2D12-07#b HTTP/1.1\r\nhost: x\r\n\r\n"
        )
        head = await raw.until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        assert json.loads(await raw.reader.readexactly(int(length)))["days"][0]["day"] == "2026-12-07"
        await raw.send(HEAD + b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n" % len(BODY))
        assert await raw.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await raw.send(BODY)
        assert (await raw.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 201")
    async with connected(served.port) as raw:
        await raw.send(
            b"GET /v1/nix HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n\x81\x05hello"
        )
        assert problem_in(await raw.rest()) == (404, "unknown-path")


async def test_slow_senders_delay_no_other_client(impatient: Served) -> None:
    """A hundred trickling connections all end."""
    async with contextlib.AsyncExitStack() as stack:
        slow = []
        for number in range(100):
            slow.append(await stack.enter_async_context(connected(impatient.port)))
            await slow[-1].send((HEAD, HEAD + b"content-length: 50\r\n\r\n{", b"")[number % 3])
        for _ in range(10):
            async with connected(impatient.port) as raw:
                await raw.send(LIVE)
                assert (await raw.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        answers = [await raw.rest() for raw in slow]
    assert [answer[9:12] for answer in answers] == [(b"408", b"408", b"")[number % 3] for number in range(100)]


async def test_client_that_does_not_read_is_aborted(impatient: Served) -> None:
    """Memory does not grow meanwhile."""
    many = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n" * 200
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", impatient.port))

        async def send_until_cut_off() -> None:
            while True:
                await loop.sock_sendall(sock, many)
                await asyncio.sleep(0.02)
                sock.getpeername()

        with pytest.raises(OSError, match=r"reset|not connected|[Bb]roken") as error:
            await asyncio.wait_for(send_until_cut_off(), 20)
    assert not isinstance(error.value, TimeoutError)


async def test_failing_application_is_a_problem_or_a_closed_connection(caplog: pytest.LogCaptureFixture) -> None:
    async with running(limits=LIMITS) as client:
        app = client.app

        async def fails(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["query_string"]:
                start = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]}
                await send(start)
                await send({"type": "http.response.body", "body": b"abc", "more_body": True})
            raise ZeroDivisionError(NIK)

        app.routes.add("GET", "/v1/fails", fails)
        async with listening(app) as port:
            for query, status in ((b"", b"500"), (b"?a", b"200")):
                async with connected(port) as raw:
                    await raw.send(b"GET /v1/fails%b HTTP/1.1\r\nhost: x\r\n\r\n" % query)
                    answer = await raw.rest()
                    assert answer[9:12] == status
                    assert NIK.encode() not in answer
            async with connected(port) as raw:
                await raw.send(LIVE)
                assert (await raw.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    assert "ZeroDivisionError" in caplog.text


async def test_request_leaves_no_reference_cycle(served: Served) -> None:
    async with connected(served.port) as raw:
        gc.collect()
        gc.disable()
        try:
            for _ in range(50):
                await raw.send(LIVE)
                await raw.until(b'{"status":"live"}')
            # `type`, not `isinstance`: a lazy object of another library computes its class when asked for it
            left = [one for one in gc.get_objects() if type(one) is BufferedRequest]
        finally:
            gc.enable()
    assert len(left) <= 1


async def test_invalid_requests_are_counted(served: Served) -> None:
    async with connected(served.port) as raw:
        await raw.send(b"nonsense\r\n\r\n")
        await raw.rest()
    async with connected(served.port) as raw:
        await raw.send(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert b'quota_engine_http_requests_total{endpoint="invalid-request",status="400"} 1.0' in await raw.rest()


async def test_every_response_has_one_staging_header() -> None:
    async with running(staging=True) as client, listening(client.app) as port:
        for path in (b"/health/live", b"/", b"/v1/nix"):
            async with connected(port) as raw:
                await raw.send(b"GET %b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" % path)
                assert (await raw.rest()).lower().count(b"x-quota-engine-staging: true") == 1


async def test_trusted_proxy_decides_on_secure_cookies() -> None:
    async with running() as client, listening(client.app) as port, httpx.AsyncClient() as browser:
        for proto in ("http", "https"):
            browser.cookies.clear()
            login_page = await browser.get(f"http://127.0.0.1:{port}/operator")
            signed_in = await browser.post(
                f"http://127.0.0.1:{port}/operator/login",
                data={"csrf_token": csrf_token_of(login_page.text), "token": TOKENS[Role.OPERATOR]},
                headers={"x-forwarded-proto": proto},
            )
            assert signed_in.status_code == 303
            assert ("secure" in signed_in.headers["set-cookie"].lower()) is (proto == "https")


async def test_http_1_0_stream_ends_with_the_connection() -> None:
    """A stopping server completes responses in progress."""
    async with running(limits=LIMITS) as client:
        app = client.app
        goes_on = asyncio.Event()
        has_begun = asyncio.Event()

        async def in_two_parts(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"one,", "more_body": True})
            has_begun.set()
            await goes_on.wait()
            await send({"type": "http.response.body", "body": b"two"})

        app.routes.add("GET", "/v1/parts", in_two_parts)
        async with contextlib.AsyncExitStack() as connections:
            async with listening(app) as port:
                old, new, idle = [await connections.enter_async_context(connected(port)) for _ in range(3)]
                await idle.send(LIVE)
                await idle.until(b'{"status":"live"}')
                for raw, version in ((old, b"1.0"), (new, b"1.1")):
                    has_begun.clear()
                    await raw.send(b"GET /v1/parts HTTP/%b\r\nhost: x\r\n\r\n" % version)
                    await has_begun.wait()
                asyncio.get_running_loop().call_later(0.3, goes_on.set)  # the server is stopping by then
            assert await idle.rest() == b""
            head, _, content = (await old.rest()).partition(b"\r\n\r\n")
            assert (content, b"connection: close" in head, b"chunked" in head) == (b"one,two", True, False)
            assert (await new.rest()).endswith(b"4\r\none,\r\n3\r\ntwo\r\n0\r\n\r\n")
