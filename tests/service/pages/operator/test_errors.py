"""Error pages: an unavailable store, refused commands, and unknown offices, days and forms."""

from __future__ import annotations

import html
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from quota_engine.domain.errors import BackendUnavailable, JobTimeout, OutcomeUnknown
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.service.http.auth import Role
from tests.support.form_browser import OperatorBrowser
from tests.support.in_process_service import DAY, Client
from tests.support.page_texts import operator_text


async def test_an_unavailable_store_has_a_page_that_retries(
    browser: OperatorBrowser, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await browser.sign_in(Role.OPERATOR)
    backend = client.service.engine._store

    async def fail(*_: object, **__: object) -> Any:
        raise BackendUnavailable("no route")

    with monkeypatch.context() as patched:
        patched.setattr(backend, "execute", fail)
        client.clock.advance_ms(2_000)
        for path in ("", "/dashboard", "/queue", "/opening", "/dashboard.csv"):
            response = await browser.http.get(f"/operator{path}")
            assert (response.status_code, response.headers["retry-after"]) == (503, "5"), path
            page = html.unescape(response.text)
            assert operator_text("store_unavailable") in page
            assert f'data-retry="/operator{path}"' in page
            assert '<noscript><meta http-equiv="refresh"' in page
            assert "no route" not in page
        assert (await browser.http.get("/operator/live")).status_code == 503
    assert (await browser.http.get("/operator")).status_code == 200


@pytest.mark.parametrize(
    ("result", "status", "key"),
    [
        (BackendUnavailable("x"), 503, "store_unavailable"),
        (OutcomeUnknown("x"), 503, "outcome_unknown"),
        (JobTimeout("relocate_day", 5, 0, 3, "parties", is_cut=True), 503, "outcome_unknown"),
        (Outcome(Status.OVERLOADED), 409, "why_OVERLOADED"),
    ],
)
async def test_a_failed_command_is_not_reported_as_done(
    browser: OperatorBrowser, client: Client, monkeypatch: pytest.MonkeyPatch, result: Any, status: int, key: str
) -> None:
    await browser.sign_in(Role.OPERATOR)

    async def fail(*_: object, **__: object) -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(client.service.engine, "set_capacity", fail)
    monkeypatch.setattr(client.service.engine, "close_day", fail)
    for form, fields in (("day/capacity", {"capacity-online": "200"}), ("day/close", {"confirm": "yes"})):
        response = await browser.submit(form, **fields)
        assert response.status_code == status
        assert operator_text(key) in html.unescape(response.text)


@pytest.mark.parametrize(
    ("status", "send"),
    [
        (404, lambda browser: browser.http.get("/operator?office=nix")),
        (404, lambda browser: browser.http.get("/operator/queue?office=nix")),
        (404, lambda browser: browser.http.get("/operator/day?day=2031-01-01")),
        (404, lambda browser: browser.http.get("/operator/day?day=2026-99-01")),
        (404, lambda browser: browser.http.get("/operator/queue?day=tomorrow")),
        (404, lambda browser: browser.submit("day/close", day="2026-99-01", confirm="yes")),
        (404, lambda browser: browser.submit("day/close", day="2031-01-01", confirm="yes")),
        (404, lambda browser: browser.submit("day/capacity", **{"capacity-a b": "1"})),
        (404, lambda browser: browser.submit("day/capacity", capacity="1")),
        (404, lambda browser: browser.submit("queue/no-show", number="nix", confirm="yes")),
        (404, lambda browser: browser.submit("room/pace", room="nix", per_minute_min="1", per_minute_max="2")),
        (404, lambda browser: browser.submit("nix")),
        (405, lambda browser: browser.http.get("/operator/day/close")),
        (403, lambda browser: browser.submit("day/close", confirm="yes", pad="x" * 20_000)),
    ],
)
async def test_an_unknown_name_changes_nothing(
    browser: OperatorBrowser, client: Client, status: int, send: Callable[[OperatorBrowser], Awaitable[Any]]
) -> None:
    await browser.sign_in(Role.OPERATOR)
    before = await client.service.engine.availability("surabaya", DAY)
    assert (await send(browser)).status_code == status
    assert await client.service.engine.availability("surabaya", DAY) == before
