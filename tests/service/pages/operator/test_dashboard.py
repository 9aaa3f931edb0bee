"""The dashboard: counters as pages, as a file and as a stream."""

from __future__ import annotations

import csv
import datetime
import io
import re
from pathlib import Path

import pytest

from quota_engine.ports import Batch
from quota_engine.service.http.auth import Role
from quota_engine.service.observability.worker_metrics import record_hung_worker
from tests.support.form_browser import OperatorBrowser
from tests.support.identities import nik
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
        page = await browser.get(f"/operator?open={DAY}&lang={language}")
        assert f">{quota}</th>" in page
        assert f'href="/operator?open={DAY}&lang={"en" if language == "id" else "id"}"' in page, (
            "the link leads to another page"
        )
        page = await browser.get(f"/operator/queue?day={DAY}&lang={language}")
        assert session in page
        assert service in page


@pytest.mark.slow
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


async def test_a_day_is_one_row_that_opens_on_demand(browser: OperatorBrowser, client: Client) -> None:
    """The quotas of one day are shown below its row, without JavaScript, and the row says whether it is open."""
    await client.reserve()
    await browser.sign_in(Role.OPERATOR)
    page = await browser.get("/operator?lang=en")
    assert page.count('class="dayrow"') == 5
    assert ">Morning session</th>" not in page
    assert await _row(browser, DAY) == [200, 0, 1, 0, 199, 0]
    opened = await browser.get(f"/operator?open={DAY}")
    assert opened.count('class="part"') == 6
    assert f'id="open-{DAY}" href="/operator?office=surabaya&first={DAY}#open-{DAY}" aria-expanded="true"' in opened
    assert len(page.encode()) < 40_000


async def test_the_calendar_leads_to_every_day(browser: OperatorBrowser, client: Client) -> None:
    last = DAY + datetime.timedelta(days=25)
    await client.operate("POST", "/v1/publish", {"first_day": str(DAY), "last_day": str(last)})
    await client.service.engine.close_day("surabaya", DAY)
    await browser.sign_in(Role.AUDITOR)
    page = await browser.get("/operator?lang=en")
    assert page.count('class="dayrow"') == 10
    assert f">Monday, 7 December 2026: {operator_text('day_CLOSED', 'en')}</span>" in page
    assert ">Tuesday, 8 December 2026: 200 places available</span>" in page
    days = re.findall(r'<a class="[^"]*" href="/operator\?office=surabaya&open=([0-9-]+)#', page)
    assert (len(days), days[0], days[-1]) == (18, str(DAY), "2026-12-31")
    assert len(page.encode()) < 31_000, "the list of 125 offices needs 9 kB more"
    late = await browser.get(f"/operator?open={days[-1]}&lang=en")
    assert re.findall(r'id="open-([0-9-]+)"', late)[-1] == "2026-12-31"
    assert late.count('class="part"') == 6
    later = re.findall(r'id="later" href="([^"]+)"', page)[0]
    assert re.findall(r'id="open-([0-9-]+)"', await browser.get(later))[0] == days[10]


async def test_the_board_is_filtered_by_session(browser: OperatorBrowser, client: Client) -> None:
    await client.reserve()
    await browser.sign_in(Role.OPERATOR)
    assert await _row(browser, DAY, "morning") == [120, 0, 1, 0, 119, 0]
    assert await _row(browser, DAY, "afternoon") == [80, 0, 0, 0, 80, 0]
    page = await browser.get("/operator?session=morning&lang=en")
    assert 'id="session-morning" href="/operator?office=surabaya&session=morning" aria-current="true"' in page
    assert await _row(browser, DAY, "no-such") == [200, 0, 1, 0, 199, 0]


async def test_alerts_are_above_the_figures(browser: OperatorBrowser, client: Client, tmp_path: Path) -> None:
    """A slow store, a day oversold by hand, abandoned holds and a worker that hung; none without a cause."""
    await browser.sign_in(Role.OPERATOR)
    page = await browser.get("/operator?lang=en")
    assert operator_text("alerts", "en") not in page
    slow = Batch("surabaya", reads=True, size=1, duration_us=300_000, error="", callers=())
    for _ in range(5):
        client.service.metrics.on_batch(slow)
    for number in range(20):
        held = await client.reserve(nik(number))
        assert (await client.step(held.json()["reservation"]["reference"], "release")).status_code == 200
    await client.step((await client.reserve(NIK)).json()["reservation"]["reference"], "confirm")
    await client.service.engine.set_capacity("surabaya", DAY, "online", 0)
    record_hung_worker(tmp_path, client.clock.now_ms() - 60_000)
    client.service._worker_directory = tmp_path
    client.clock.advance_ms(11_000)
    page = await browser.get("/operator?lang=en")
    assert set(re.findall(r'id="alert-(\w+)"', page)) == {"store", "oversold", "abandoned", "worker"}
    assert f'<a href="/operator/day?office=surabaya&day={DAY}">' in page
    assert operator_text("alert_abandoned", "en", count=20, blocks=0) in page
    offices = await browser.get("/operator/offices?lang=en")
    assert set(re.findall(r'id="alert-(\w+)"', offices)) == {"store", "worker"}
    client.clock.advance_ms(3 * 900_000)
    page = await browser.get("/operator?lang=en")
    assert set(re.findall(r'id="alert-(\w+)"', page)) == {"oversold", "worker"}


async def _row(browser: OperatorBrowser, day: datetime.date, session: str = "") -> list[int]:
    """Return the counters of a day's row."""
    page = await browser.get(f"/operator/dashboard?lang=en&session={session}")
    found = re.search(rf'id="open-{day}".*?</th>(.*?)</tr>', page, re.DOTALL)
    assert found, page
    return [int(number) for number in re.findall(r"<span>([0-9]+)</span>", found[1])]


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
