"""No request hides in another one: bytes whose framing two servers could read differently are refused.

If a proxy and this service disagree about the end of a request, a stranger can put a request in front of the next
visitor's (RFC 9112, section 11.2).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest

from tests.support.in_process_service import connected, listening, running

HIDDEN = b"GET /health/ready HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST /finish HTTP/1.1\r\nhost: x\r\n"
CHUNKS = b"0\r\n\r\n"
REFUSED: dict[str, bytes] = {
    "length and chunks": POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n" + CHUNKS,
    "chunks and length": POST + b"transfer-encoding: chunked\r\ncontent-length: 44\r\n\r\n" + CHUNKS,
    "chunks that are not last": POST + b"transfer-encoding: chunked, identity\r\n\r\n" + CHUNKS,
    "an unknown coding": POST + b"transfer-encoding: xchunked\r\n\r\n" + CHUNKS,
    "a coding with a control character": POST + b"transfer-encoding: \x0bchunked\r\n\r\n" + CHUNKS,
    "two codings": POST + b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n" + CHUNKS,
    "two lengths": POST + b"content-length: 0\r\ncontent-length: 44\r\n\r\n",
    "a list of lengths": POST + b"content-length: 0, 44\r\n\r\n",
    "a length with a sign": POST + b"content-length: +0\r\n\r\n",
    "a length in hex": POST + b"content-length: 0x0\r\n\r\n",
    "a length with a space": POST + b"content-length: 0 0\r\n\r\n",
    "a space before the colon": POST + b"content-length : 0\r\n\r\n",
    "a name with a tab": POST + b"transfer-encoding\t: chunked\r\n\r\n" + CHUNKS,
    "a folded line": POST + b"x: a\r\n content-length: 44\r\n\r\n",
    "a NUL in a value": POST + b"x: a\x00b\r\n\r\n",
    "a lone carriage return": POST + b"x: a\rcontent-length: 44\r\n\r\n",
    "a line feed in a chunk's extension": POST + b"transfer-encoding: chunked\r\n\r\n0;x\n\r\n\r\n",
    "a chunk's size with a sign": POST + b"transfer-encoding: chunked\r\n\r\n-0\r\n\r\n",
    "a chunk's size above 64 bits": POST + b"transfer-encoding: chunked\r\n\r\n10000000000000000\r\n\r\n",
    "a length in a trailer": POST + b"transfer-encoding: chunked\r\n\r\n0\r\ncontent-length: 44\r\n\r\n",
    "a chunk without its end": POST + b"transfer-encoding: chunked\r\n\r\n1\r\nab0\r\n\r\n",
}


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with running() as client, listening(client.app) as port:
        yield port


async def statuses(port: int, sent: bytes) -> list[bytes]:
    """Return the statuses of all responses until the connection closes."""
    async with connected(port) as raw:
        await raw.send(sent)
        raw.writer.write_eof()
        return re.findall(rb"HTTP/1\.1 (\d+) ", await raw.rest())


@pytest.mark.slow
async def test_ambiguous_framing_is_refused_with_all_that_follows(port: int) -> None:
    """The request behind it is never answered."""
    for case, sent in REFUSED.items():
        assert await statuses(port, sent + HIDDEN) == [b"400"], case


async def test_request_inside_a_body_is_not_answered(port: int) -> None:
    """In a body with a length, in a chunk and in a trailer."""
    length = POST + b"content-length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN
    chunk = POST + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)
    trailer = POST + b"transfer-encoding: chunked\r\n\r\n0\r\nhost: y\r\n\r\n"
    for sent in (length, chunk, trailer):
        assert len(await statuses(port, sent)) == 1
        assert await statuses(port, sent + HIDDEN) == [b"303", b"200"]


async def test_line_break_in_a_value_adds_no_header_to_a_response(port: int) -> None:
    """Nothing of a request splits a response: address, request id, language."""
    injected = "%0d%0aset-cookie:%20a=b"
    for target in (f"/?lang=en{injected}", f"/v1/offices/x{injected}", f"/operator/login?next=/operator{injected}"):
        async with connected(port) as raw:
            request_id = f"x-request-id: a{injected}\r\n"
            await raw.send(f"GET {target} HTTP/1.1\r\nhost: x\r\n{request_id}connection: close\r\n\r\n".encode())
            head = (await raw.rest()).partition(b"\r\n\r\n")[0]
        assert b"\r\nset-cookie: a=b" not in head.lower()
        assert b"a=b" not in b"".join(line for line in head.split(b"\r\n") if line.lower().startswith(b"set-cookie"))
