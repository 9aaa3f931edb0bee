"""``Host`` and the request target on a real socket (RFC 9112, section 3)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from quota_engine.service.http import hosts
from tests.service.transport.test_bad_senders import problem_in
from tests.support.in_process_service import connected, listening, running

HOST = b"host: booking.example\r\n"


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with running() as client, listening(client.app) as found:
        yield found


async def _response(port: int, request: bytes) -> bytes:
    async with connected(port) as raw:
        await raw.send(request)
        return await raw.rest()


@pytest.mark.slow
@pytest.mark.parametrize(
    "hosts",
    [
        b"",
        HOST + HOST,
        HOST + b"host: other.example\r\n",
        HOST + b"x: y\r\nHOST: \r\n",
        b"host:\r\n",
        b"host: a b\r\n",
        b"host: a, b\r\n",
        b"host: booking.example/path\r\n",
        b"host: booking.example?x\r\n",
        b"host: user@booking.example\r\n",
        b"host: booking.example:65536\r\n",
        b"host: booking.example:80x\r\n",
        b"host: booking.example:-1\r\n",
        b"host: :80\r\n",
        b"host: [::1\r\n",
        b"host: [::1::]\r\n",
        b"host: [::1%eth0]\r\n",
        b"host: \xff\r\n",
        b"host: a%zz\r\n",
        b"host: " + b"a" * 300 + b"\r\n",
    ],
)
async def test_request_without_one_valid_host_is_refused(port: int, hosts: bytes) -> None:
    """The connection ends, because a proxy in front may have read another request."""
    for path in (b"/health/live", b"/"):
        answer = await _response(port, b"GET %b HTTP/1.1\r\n%b\r\n" % (path, hosts))
        assert problem_in(answer) == (400, "bad-request")


@pytest.mark.slow
@pytest.mark.parametrize(
    "host", [b"a", b"booking.example:", b"127.0.0.1:8000", b"[::1]:443", b"a_b.example:0", b"x%2Dy", b"A.Example:65535"]
)
async def test_valid_host_is_served(port: int, host: bytes) -> None:
    answer = await _response(port, b"GET /health/live HTTP/1.1\r\nhost: %b\r\nconnection: close\r\n\r\n" % host)
    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_http_1_0_may_omit_the_host_but_not_repeat_it(port: int) -> None:
    assert (await _response(port, b"GET /health/live HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    answer = await _response(port, b"GET /health/live HTTP/1.0\r\n" + HOST * 2 + b"\r\n")
    assert problem_in(answer) == (400, "bad-request")


@pytest.mark.slow
@pytest.mark.parametrize(
    "target",
    [
        b"http://user:word@booking.example/health/live",
        b"http:///health/live",
        b"http://booking.example:99999/",
        b"http://a b/",
        b"ftp://booking.example/",
        b"*",
        b"booking.example/x",
    ],
)
async def test_target_that_is_no_address_of_this_service_is_refused(port: int, target: bytes) -> None:
    answer = await _response(port, b"GET %b HTTP/1.1\r\n%b\r\n" % (target, HOST))
    assert problem_in(answer) == (400, "bad-request")
    tunnel = await _response(port, b"CONNECT booking.example:443 HTTP/1.1\r\n%b\r\n" % HOST)
    assert tunnel.startswith(b"HTTP/1.1 400 ")


async def test_host_of_an_absolute_target_replaces_the_header() -> None:
    """RFC 9112, section 3.2.2. The pages are served for the target's host only."""
    async with running(public_origins=("http://booking.example",)) as client, listening(client.app) as port:
        for target, host, status in (
            (b"http://booking.example", b"elsewhere", b"200"),
            (b"http://booking.example?lang=en", b"elsewhere", b"200"),
            (b"http://elsewhere/", b"booking.example", b"421"),
            (b"/", b"booking.example", b"200"),
            (b"/", b"elsewhere", b"421"),
        ):
            answer = await _response(port, b"GET %b HTTP/1.1\r\nhost: %b\r\nconnection: close\r\n\r\n" % (target, host))
            assert answer[9:12] == status, (target, host)
            assert (b'lang="en"' in answer.partition(b"<head>")[0]) is (b"lang=en" in target)
        refused = await _response(port, b"GET http://elsewhere/ HTTP/1.1\r\n\r\n")
        assert problem_in(refused) == (400, "bad-request")


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/reservation/", "/reservation"),
        ("/operator/?office=surabaya", "/operator?office=surabaya"),
        ("/operator///", "/operator"),
    ],
)
async def test_redirect_of_a_further_slash_names_no_host(port: int, target: str, location: str) -> None:
    request = f"GET {target} HTTP/1.1\r\nhost: attacker.example\r\nconnection: close\r\n\r\n"
    head = (await _response(port, request.encode())).partition(b"\r\n\r\n")[0].decode().lower()
    assert head.startswith("http/1.1 307 ")
    assert f"\r\nlocation: {location}\r\n" in f"{head}\r\n"
    assert "attacker" not in head


async def test_unknown_path_is_never_redirected(port: int) -> None:
    for path in (b"//attacker.example/", b"/nix/", b"/static/x/site.css/", b"/\\attacker.example/"):
        answer = await _response(port, b"GET %b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" % path)
        assert answer.startswith(b"HTTP/1.1 404 "), path
        assert b"\r\nlocation:" not in answer.lower()


def test_check_of_a_host_remembers_a_bounded_number_of_values() -> None:
    for number in range(1_000):
        assert hosts.is_host(b"host-%d" % number)
    info = hosts._is_host.cache_info()
    assert info.currsize <= 256
    assert not hosts.is_host(b"a" * 10_000)
    assert hosts._is_host.cache_info().misses == info.misses, "long values do not reach the cache"
