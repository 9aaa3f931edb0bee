"""Public origins of the pages: other hosts are refused, and the origin decides on cookies and forms."""

from __future__ import annotations

import httpx
import pytest

from quota_engine.service.http.auth import Role
from tests.support.form_browser import DECLARED, CitizenBrowser
from tests.support.in_process_service import NIK, TOKENS, Client, running

ORIGIN = "https://booking.example"


async def _get(client: Client, path: str, host: str) -> httpx.Response:
    return await client.http.get(path, headers={"host": host})


async def test_pages_are_served_for_the_public_origins_only() -> None:
    async with running(public_origins=(ORIGIN, "http://[::1]:8000")) as client:
        for host in ("booking.example", "BOOKING.example", "booking.example:443", "[::1]:8000"):
            assert (await _get(client, "/", host)).status_code == 200, host
        for host in ("attacker.example", "booking.example:80", "booking.example.attacker.example", "[::1]", ""):
            for path in ("/", "/operator", "/nix"):
                refused = await _get(client, path, host)
                assert (refused.status_code, refused.json()["type"]) == (
                    421,
                    "urn:quota-engine:problem:misdirected-request",
                )
                assert "example" not in refused.text


async def test_api_health_and_metrics_are_served_for_every_host() -> None:
    """Machines call them by address, and no cookie opens them."""
    async with running(public_origins=(ORIGIN,)) as client:
        for path in ("/v1/offices", "/health/live", "/metrics", "/docs", "/openapi.json"):
            assert (await _get(client, path, "10.0.0.21:8000")).status_code == 200, path


async def test_https_origin_makes_cookies_secure() -> None:
    """Without a word from the proxy too."""
    for origins, is_secure in (((ORIGIN,), True), (("http://booking.example",), False), ((), False)):
        for proto in ("http", "gopher"):
            async with running(public_origins=origins) as client:
                response = await client.http.get(
                    "/operator", headers={"host": "booking.example", "x-forwarded-proto": proto}
                )
                assert ("secure" in response.headers["set-cookie"].lower()) is is_secure, origins


@pytest.mark.parametrize(
    ("origins", "host", "origin", "is_own"),
    [
        ((ORIGIN,), "booking.example", ORIGIN, True),
        ((ORIGIN,), "booking.example:443", ORIGIN, True),
        ((ORIGIN,), "booking.example", "http://booking.example", False),
        ((ORIGIN,), "booking.example", "https://booking.example:444", False),
        ((ORIGIN, "https://ops.example"), "booking.example", "https://ops.example", False),
        ((ORIGIN,), "booking.example", "null", False),
        ((), "booking.example", ORIGIN, True),
        ((), "Booking.Example", ORIGIN, True),
        ((), "booking.example", "https://attacker.example", False),
        ((), "booking.example", "null", False),
        ((), "", "null", False),
        ((), "booking.example", "https://[", False),
        ((), "booking.example", "ftp://booking.example", False),
        ((), "booking.example", "https://attacker.example://booking.example", False),
    ],
)
async def test_forms_are_accepted_from_the_own_origin_only(
    origins: tuple[str, ...], host: str, origin: str, is_own: bool
) -> None:
    async with running(public_origins=origins) as client:
        browser = CitizenBrowser(client)
        async with browser.http:
            headers = {"host": host, "origin": origin}
            form = {"office": "surabaya", "service": "new", "slot": "2026-12-07|morning", "nik": NIK}
            response = await browser.http.post("/reserve", data=form, headers=headers, follow_redirects=False)
            assert response.status_code == 303
            assert response.headers["location"] == ("/reservation" if is_own else "/")


async def test_every_redirect_of_the_pages_is_relative() -> None:
    async with running() as client:
        browser = CitizenBrowser(client)
        locations = []

        async def keep(response: httpx.Response) -> None:
            if response.is_redirect:
                locations.append(response.headers["location"])

        browser.http.event_hooks["response"] = [keep]
        async with browser.http:
            await browser.reserve()
            await browser.get("/")
            await browser.get("/reservation/?error=declaration")
            await browser.submit("/reservation/confirm", DECLARED)
            await browser.submit("/reservation/cancel")
            await browser.http.post("/operator/login", data={"token": TOKENS[Role.OPERATOR]})
            await browser.get("/operator/login")
    assert len(locations) >= 6
    assert all(location.startswith("/") and not location.startswith("//") for location in locations), locations


@pytest.mark.parametrize(("site", "is_own"), [("cross-site", False), ("same-site", False), ("same-origin", True)])
async def test_a_form_without_an_origin_is_accepted_from_the_own_site_only(site: str, is_own: bool) -> None:
    """A proxy may remove ``Origin`` and leave ``Sec-Fetch-Site``."""
    async with running() as client:
        browser = CitizenBrowser(client)
        async with browser.http:
            sent = await browser.http.post("/finish", headers={"sec-fetch-site": site}, follow_redirects=False)
            assert sent.headers["location"] == ("/finished" if is_own else "/")
            assert ("set-cookie" in sent.headers) == is_own
