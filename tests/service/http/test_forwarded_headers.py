"""Headers of proxies: trusted from configured addresses only, and reported when the proxy is not among them."""

from __future__ import annotations

import httpx
import pytest

from tests.support.form_browser import OperatorBrowser, csrf_token_of
from tests.support.in_process_service import Client, running

PROXY = "127.0.0.1"  # the address that httpx's ASGI transport reports


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "trusted_proxies" in record.getMessage()]


async def _try_tokens(client: Client, attempts: int, forwarded_for: str) -> list[int]:
    browser = OperatorBrowser(client)
    async with browser.http:
        csrf_token = csrf_token_of((await browser.http.get("/operator")).text)
        form = {"csrf_token": csrf_token, "token": "wrong"}
        headers = {"x-forwarded-for": forwarded_for}
        return [
            (await browser.http.post("/operator/login", data=form, headers=headers)).status_code
            for _ in range(attempts)
        ]


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded"])
async def test_first_request_of_an_untrusted_proxy_is_logged_once(
    header: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(trusted_proxies=("10.0.0.5",)) as client:
        await client.http.get("/")
        assert _warnings(caplog) == []
        for number in range(3):
            assert (await client.http.get("/", headers={header: f"for=203.0.113.{number}"})).status_code == 200
        (line,) = _warnings(caplog)
    assert line.startswith(f"{PROXY} sent X-Forwarded-For or Forwarded and is not in trusted_proxies")


async def test_lockout_names_the_untrusted_proxy_and_the_setting(caplog: pytest.LogCaptureFixture) -> None:
    """Two visitors behind it share one limit."""
    async with running(trusted_proxies=("10.0.0.5",)) as client:
        assert await _try_tokens(client, 10, "203.0.113.1") == [401] * 10
        assert await _try_tokens(client, 1, "203.0.113.2") == [429]
    first, lockout = _warnings(caplog)
    assert "ignore" in first
    assert f"too many unknown tokens from {PROXY}, which sent X-Forwarded-For" in lockout
    assert "add it there" in lockout


@pytest.mark.parametrize("trusted", ["127.0.0.1", "127.0.0.0/8", "*"])
async def test_visitors_behind_a_trusted_proxy_have_limits_of_their_own(
    trusted: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(trusted_proxies=(trusted,)) as client:
        assert await _try_tokens(client, 11, "203.0.113.1") == [401] * 10 + [429]
        assert await _try_tokens(client, 1, "203.0.113.2") == [401]
    assert _warnings(caplog) == []
    assert "too many unknown tokens from 203.0.113.1;" in caplog.text


async def test_untrusted_proxy_decides_neither_on_address_nor_on_scheme() -> None:
    async with running(trusted_proxies=()) as client:
        response = await client.http.get("/operator", headers={"x-forwarded-proto": "https"})
        assert "secure" not in response.headers["set-cookie"].lower()
        transport = httpx.ASGITransport(app=client.app, client=("10.0.0.5", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
            response = await http.get("/operator", headers={"x-forwarded-proto": "https"})
        assert "secure" not in response.headers["set-cookie"].lower()
