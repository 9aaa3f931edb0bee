"""The dashboard: counters as pages, as a file and as a stream."""

from __future__ import annotations

import csv
import io
import re

import pytest

from quota_engine.service.http.auth import Role
from tests.support.form_browser import OperatorBrowser
from tests.support.in_process_service import DAY, NIK, Client, connected, listening
from tests.support.page_texts import operator_text
from tests.support.seeded_service import DRAW, seeded_service


async def test_the_csv_has_a_row_for_each_day_and_quota(browser: OperatorBrowser, client: Client) -> None:
    await client.reserve()
    await browser.sign_in(Role.AUDITOR)
    file = await browser.http.get("/operator/dashboard.csv")
    assert file.headers["content-disposition"] == 'attachment; filename="surabaya-dashboard.csv"'
    rows = list(csv.DictReader(io.StringIO(file.text)))
    (online,) = [row for row in rows if (row["day"], row["quota"]) == (str(DAY), "online")]
    assert {name: online[name] for name in ("capacity", "held", "available", "closed")} == {
        "capacity": "100",
        "held": "1",
        "available": "99",
        "closed": "false",
    }


async def test_names_are_in_the_operators_language(browser: OperatorBrowser, client: Client) -> None:
    reference = (await client.reserve(NIK)).json()["reservation"]["reference"]
    await client.step(reference, "confirm")
    await browser.sign_in(Role.OPERATOR)
    for language, quota, session, service in (
        ("id", "Sesi pagi", "Pagi 08.00–12.00", "Paspor baru"),
        ("en", "Morning session", "Morning 08:00–12:00", "New passport"),
    ):
        page = await browser.get(f"/operator?lang={language}")
        assert f">{quota}</th>" in page
        assert f'href="/operator?lang={"en" if language == "id" else "id"}"' in page, "the link leads to another page"
        page = await browser.get(f"/operator/queue?day={DAY}&lang={language}")
        assert session in page
        assert service in page


async def test_the_stream_reports_changes_to_readers_only(client: Client) -> None:
    browser = OperatorBrowser(client)
    async with browser.http, listening(client.app) as port:
        await browser.sign_in(Role.OPERATOR)
        cookie = f"operator={browser.http.cookies['operator']}"
        async with connected(port) as raw:
            await raw.send(f"GET /operator/live HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\n\r\n".encode())
            assert b"text/event-stream" in await raw.until(b"\r\n\r\n")
            await raw.until(b"event: changed\ndata: ")
            first = await raw.until(b"\n\n")
            await client.reserve()
            client.clock.advance_ms(2_000)
            await raw.until(b"event: changed\ndata: ")
            assert await raw.until(b"\n\n") != first
        await browser.sign_in(Role.OFFICE)
        assert (await browser.http.get("/operator/live")).status_code == 403


@pytest.mark.slow
async def test_every_kind_of_figure_is_shown_at_once() -> None:
    """Dashboard, draw, queue list, opening and audit of a service on which all of these have happened."""
    async with seeded_service() as client:
        browser = OperatorBrowser(client)
        async with browser.http:
            await browser.sign_in(Role.OPERATOR)
            dashboard = await browser.get(f"/operator?draw={DRAW}&lang=en")
            for key in ("room_phase_OPEN", "draw_phase_open", "day_state_CLOSED", "day_state_OPEN"):
                assert f">{operator_text(key, 'en')}<" in dashboard
            assert 'class="overbooked alarm"' in dashboard
            assert operator_text("draw_unknown", "en") in await browser.get("/operator?draw=nix")
            assert "<path" in await browser.get("/operator/opening")
            assert re.findall(r"<b>([0-9]+)</b>", await browser.get("/operator/queue")) == ["14", "21", "2"]
            assert operator_text("audit_ok", "en") in await browser.get("/operator/audit")
