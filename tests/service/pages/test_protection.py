"""Headers, cookies and escaping of all pages at once."""

from __future__ import annotations

import re
from http.cookies import SimpleCookie

import pytest

from quota_engine.service.http.auth import Role
from tests.support.form_browser import DECLARED, CitizenBrowser, OperatorBrowser
from tests.support.in_process_service import DAY, NIK, Client, running

CITIZEN_PAGES = ("/", "/days", "/reservation", "/reservation/change", "/find", "/room", "/draw", "/check", "/finished")
OPERATOR_PAGES = (
    "/operator", "/operator/dashboard", "/operator/offices", "/operator/day", "/operator/room", "/operator/queue",
    "/operator/opening", "/operator/audit", "/operator/report", "/operator/catalog", "/operator/commands",
    "/operator/walk-in", "/operator/call", "/operator/screen",
)  # fmt: skip
INJECTED = "\"><script>alert(1)</script>'{{7*7}}"
PARAMETERS = ("lang", "office", "service", "group", "day", "number", "error", "next", "step", "show", "origin", "file")


def _check_headers(headers: dict[str, str], path: str) -> None:
    policy = dict(one.strip().partition(" ")[::2] for one in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'", path
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'", path
    assert policy["form-action"] == "'self'", path
    assert "unsafe" not in headers["content-security-policy"], path
    assert headers["x-content-type-options"] == "nosniff", path
    assert headers["referrer-policy"] == "same-origin", path
    assert "no-store" in headers["cache-control"], path


@pytest.mark.slow
async def test_every_page_has_the_headers_that_protect_it(client: Client) -> None:
    """Pages of errors have them too."""
    citizen, operator = CitizenBrowser(client), OperatorBrowser(client)
    async with citizen.http, operator.http:
        await citizen.reserve()
        await operator.sign_in(Role.OPERATOR)
        for browser, paths in ((citizen.http, CITIZEN_PAGES), (operator.http, OPERATOR_PAGES)):
            for path in paths:
                page = await browser.get(path)
                assert page.headers["content-type"].startswith("text/html"), path
                _check_headers(dict(page.headers), path)
        for response in (
            await client.http.get("/operator/day"),
            await citizen.http.post("/reserve", data={"nik": "x", "slot": "y"}),
            await operator.submit("day/capacity", quota="nix", capacity="x"),
        ):
            _check_headers(dict(response.headers), str(response.url))


async def test_every_other_response_is_not_sniffed(client: Client) -> None:
    for path in ("/v1/offices", "/v1/nix", "/openapi.json", "/metrics", "/health/live", "/reservation/state"):
        response = await client.http.get(path)
        if not response.is_redirect:
            assert response.headers["x-content-type-options"] == "nosniff", path


@pytest.mark.slow
async def test_text_of_an_address_or_form_is_never_code(client: Client) -> None:
    """Neither HTML nor a template."""
    citizen, operator = CitizenBrowser(client), OperatorBrowser(client)
    query = dict.fromkeys(PARAMETERS, INJECTED)
    async with citizen.http, operator.http:
        await operator.sign_in(Role.OPERATOR)
        for browser, paths in ((citizen.http, CITIZEN_PAGES), (operator.http, OPERATOR_PAGES)):
            for path in paths:
                page = (await browser.get(path, params=query)).text
                assert "<script>alert" not in page, path
                assert "'49" not in page, path
        fields = dict.fromkeys(("nik", "slot", "code", "office", "service", "token", "quota", "entropy"), INJECTED)
        for path in ("/reserve", "/find", "/room/join", "/draw/apply", "/reservation/code", "/operator/login"):
            page = (await citizen.http.post(path, data=fields)).text
            assert "<script>alert" not in page, path
        forms = (
            "day/capacity",
            "day/close",
            "queue/find",
            "queue/check-in",
            "room/open",
            "room/pace",
            "walk-in",
            "call",
        )
        for form in forms:
            assert "<script>alert" not in (await operator.submit(form, **fields)).text, form


async def test_every_cookie_is_for_the_server_and_the_own_site_only() -> None:
    """Over https it is secure. The language is no secret: the script of a page may read it.

    A cookie is deleted with the attributes and the path with which it was set.
    """
    seen: dict[str, str] = {}
    deleted: dict[str, str] = {}
    async with running(public_origins=("https://service",)) as client:
        citizen, operator = CitizenBrowser(client), OperatorBrowser(client)

        async def keep(response: object) -> None:
            for line in response.headers.get_list("set-cookie"):  # type: ignore[attr-defined]
                (deleted if "Max-Age=0" in line else seen)[line.partition("=")[0]] = line

        async with citizen.http, operator.http:
            for browser in (citizen.http, operator.http):
                browser.base_url = "https://service"
                browser.event_hooks["response"] = [keep]
            await citizen.get("/?lang=en")
            await citizen.reserve(NIK)
            await citizen.submit("/reservation/confirm", DECLARED)
            await operator.sign_in(Role.OPERATOR)
            await operator.get(f"/operator/queue?day={DAY}")
            await citizen.submit("/finish")
            await operator.submit("logout")
    assert {"operator", "operator-login", "reservation"} <= set(deleted)
    assert {"lang", "operator", "operator-login"} < set(seen)
    assert len(seen) >= 4
    for name, line in (*seen.items(), *deleted.items()):
        (cookie,) = SimpleCookie(line).values()
        assert cookie["path"] == ("/operator" if name.startswith("operator") else "/"), line
        assert cookie["secure"], line
        assert cookie["samesite"].lower() == ("strict" if name.startswith("operator") else "lax"), line
        assert bool(cookie["httponly"]) or name == "lang", line
        assert not cookie["domain"], line
        assert not re.search(r"[0-9]{16}", line), line
