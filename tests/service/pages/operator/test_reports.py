"""Reports by day, week and month."""

from __future__ import annotations

import csv
import datetime
import io
import itertools
import re

import pytest

from quota_engine.domain.lifecycle import State
from quota_engine.service.http.auth import Role
from quota_engine.service.pages.dashboard_cache import DashboardCache
from quota_engine.service.pages.operator.reports import PERIODS_SHOWN, first_day_of, report_rows
from tests.support.form_browser import OperatorBrowser
from tests.support.identities import nik
from tests.support.in_process_service import DAY, Client
from tests.support.page_texts import operator_text

_MONDAY = datetime.date(2026, 12, 7)


def test_periods_start_on_monday_and_on_the_first_of_the_month() -> None:
    sunday = datetime.date(2026, 12, 6)
    assert first_day_of("week", sunday) == datetime.date(2026, 11, 30)
    assert first_day_of("month", sunday) == datetime.date(2026, 12, 1)
    assert first_day_of("day", sunday) == sunday


@pytest.mark.parametrize("kind", list(PERIODS_SHOWN))
def test_each_day_counts_in_one_period(kind: str) -> None:
    days = range(datetime.date(2026, 11, 20).toordinal(), _MONDAY.toordinal() + 1)
    people = {day: {State.ATTENDED: 2, State.NO_SHOW: 1, State.CANCELLED: 4, State.EXPIRED: 9} for day in days}
    first = first_day_of(kind, datetime.date.fromordinal(days[0]))
    rows = report_rows(kind, first, _MONDAY, dict.fromkeys(days, 10), people)
    assert [row.first for row in rows] == sorted((row.first for row in rows), reverse=True)
    assert all(later.first == earlier.last + datetime.timedelta(days=1) for later, earlier in itertools.pairwise(rows))
    counts = [sum(column) for column in zip(*(row.counts for row in rows), strict=True)]
    assert counts == [len(days), 10 * len(days), 3 * len(days), 2 * len(days), len(days), 4 * len(days)]
    assert rows[0].no_show_percent == 33


def test_a_period_without_days_is_empty() -> None:
    (row,) = report_rows("week", _MONDAY, _MONDAY, {}, {})
    assert row.counts == (0, 0, 0, 0, 0, 0)
    assert row.no_show_percent == 0


async def _day_with_people(client: Client) -> None:
    """A party of two that came, an absent person, one who canceled, and a day that has ended."""
    engine = client.service.engine
    references = []
    for niks in ((nik(1), nik(2)), (nik(3),), (nik(4),)):
        references.append((await client.reserve(*niks)).json()["reservation"]["reference"])
        await client.step(references[-1], "confirm")
    await client.step(references[2], "cancel")
    (view,) = await engine.availability("surabaya", DAY)
    client.clock.set_ms(view.starts_at_ms)
    assert (await engine.check_in(references[0])).ok
    assert (await engine.mark_no_show(references[1])).ok
    client.clock.set_ms(view.ends_at_ms + 1)


@pytest.mark.parametrize("kind", list(PERIODS_SHOWN))
async def test_a_report_has_what_became_of_the_people(browser: OperatorBrowser, client: Client, kind: str) -> None:
    await _day_with_people(client)
    await browser.sign_in(Role.AUDITOR)
    page = await browser.get(f"/operator/report?lang=en&by={kind}")
    (first,) = re.findall(r'<tr role="row"><th scope="row" role="rowheader">.*?</tr>', page, re.DOTALL)[:1]
    values = re.findall(r"<span>([0-9,]+)", first)
    assert values[2:] == ["3", "2", "1", "1"]
    assert "(33\u00a0%)" in first
    text = (await browser.http.get(f"/operator/report.csv?lang=id&by={kind}")).content.decode()
    rows = list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff")), delimiter=";"))
    assert len(rows) == PERIODS_SHOWN[kind]
    assert rows[0][operator_text("report_booked", "id")] == "3"
    assert sum(int(row[operator_text("report_attended", "id")]) for row in rows) == 2


async def test_earlier_periods_follow_without_a_gap(browser: OperatorBrowser, client: Client) -> None:
    await browser.sign_in(Role.AUDITOR)
    page = await browser.get("/operator/report?by=week")
    (earlier,) = re.findall(r'id="earlier" href="([^"]+)"', page)
    assert "until=" in earlier
    dates = list(csv.reader(io.StringIO((await browser.http.get("/operator/report.csv?lang=en")).text)))
    until = datetime.date.fromisoformat(earlier.rpartition("=")[2])
    assert until == datetime.date.fromisoformat(dates[-1][0]) - datetime.timedelta(days=1)
    assert (await browser.http.get(earlier.replace("&amp;", "&"))).status_code == 200


async def test_unknown_periods_and_days_are_not_found(browser: OperatorBrowser) -> None:
    await browser.sign_in(Role.AUDITOR)
    for query in ("by=year", "until=2026-13-01", "until=x"):
        for path in ("report", "report.csv"):
            assert (await browser.http.get(f"/operator/{path}?{query}")).status_code == 404, query


async def test_an_ended_day_is_read_once_in_ten_minutes(client: Client) -> None:
    """The store reads the whole office for a day."""
    await _day_with_people(client)
    engine, office = client.service.engine, client.service.catalog.offices["surabaya"]
    (view,) = await engine.availability("surabaya", DAY)
    cache = DashboardCache(lambda: engine, client.clock.now_ms, client.service.catalog)
    before = await cache.people_of_day(office, view)
    assert before == {State.ATTENDED: 2, State.NO_SHOW: 1, State.CANCELLED: 1}
    client.clock.advance_ms(599_000)
    assert await cache.people_of_day(office, view) is before
    client.clock.advance_ms(2_000)
    again = await cache.people_of_day(office, view)
    assert again is not before
    assert again == before
