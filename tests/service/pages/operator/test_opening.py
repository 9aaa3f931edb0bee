"""The page of an opening: the last one, or a past one."""

from __future__ import annotations

import csv
import datetime
import io
import re

from quota_engine.service.http.auth import Role
from tests.support.form_browser import OperatorBrowser
from tests.support.identities import nik
from tests.support.in_process_service import DAY, Client
from tests.support.page_texts import operator_text

_OPENS_MS = 1_796_367_600_000  # 2026-12-04T14:00+07:00


async def test_an_opening_is_shown_in_figures_in_a_plot_and_as_a_file(browser: OperatorBrowser, client: Client) -> None:
    await browser.sign_in(Role.AUDITOR)
    empty = await browser.get("/operator/opening?lang=en")
    assert operator_text("opening_no_sales", "en", places=600) in empty
    references = []
    for number in range(3):
        client.clock.advance_ms(2_000)
        references.append((await client.reserve(nik(number))).json()["reservation"]["reference"])
    client.clock.advance_ms(2_000)
    await client.step(references[0], "confirm")
    await client.step(references[1], "release")
    client.clock.advance_ms(6_000)
    page = await browser.get("/operator/opening?lang=en")
    figures = dict(re.findall(r"<dt>([^<]+)</dt><dd>([^<]+)</dd>", page))
    expected = {
        "places_online": "600",
        "plot_taken": "2",
        "plot_confirmed": "1",
        "plot_returned": "1",
        "half_taken_after": "4.0 s",
        "form_time_median": "6.0 s",
    }
    assert {key: figures[operator_text(key, "en")] for key in expected} == expected
    assert page.count('<svg class="plot"') == 2
    assert "after the end of the plot" not in page
    rows = list(csv.DictReader(io.StringIO((await browser.http.get("/operator/opening.csv")).text)))
    assert [(row["after_ms"], row["taken"], row["confirmed"], row["returned"]) for row in rows] == [
        ("2000", "1", "0", "0"),
        ("4000", "2", "0", "0"),
        ("6000", "3", "0", "0"),
        ("8000", "3", "1", "0"),
        ("8000", "2", "1", "1"),
    ]
    assert rows[0]["at"] == "2026-12-04T14:00:02.000+07:00"


async def test_sales_after_the_end_of_the_plot_are_counted(browser: OperatorBrowser, client: Client) -> None:
    await browser.sign_in(Role.AUDITOR)
    client.clock.advance_ms(2_000)
    for number in range(20):
        await client.reserve(nik(50 + number))
    client.clock.advance_ms(600_000)
    await client.reserve(nik(7))
    client.clock.advance_ms(6_000)
    assert operator_text("plot_sold_later_one", "en", count=1) in await browser.get("/operator/opening?lang=en")


async def test_a_past_opening_can_be_chosen(browser: OperatorBrowser, client: Client) -> None:
    await client.reserve(nik(1))
    next_week = DAY + datetime.timedelta(days=7)
    client.clock.set_ms(client.clock.now_ms() + 86_400_000)
    days = {"first_day": str(next_week), "last_day": str(next_week)}
    assert (await client.operate("POST", "/v1/publish", days)).status_code == 200
    await browser.sign_in(Role.AUDITOR)
    assert "<select" not in await browser.get("/operator/opening?lang=en"), "there is only one"
    later_ms = _OPENS_MS + 7 * 86_400_000
    client.clock.set_ms(later_ms + 5)
    await browser.sign_in(Role.AUDITOR)  # the session has ended
    for number in range(2, 5):
        await client.reserve(nik(number), path=f"/v1/offices/surabaya/days/{next_week}")
    client.clock.advance_ms(6_000)
    taken = operator_text("plot_taken", "en")
    for path, count, selected in (("", "3", later_ms), (f"&at={_OPENS_MS}", "1", _OPENS_MS)):
        page = await browser.get(f"/operator/opening?lang=en{path}")
        assert dict(re.findall(r"<dt>([^<]+)</dt><dd>([^<]+)</dd>", page))[taken] == count
        assert re.findall(r'<option value="([0-9]+)" selected>', page) == [str(selected)]
        assert f"opening.csv?office=surabaya&at={selected}" in page
    assert (await browser.http.get(f"/operator/opening.csv?at={_OPENS_MS}")).text.count("\n") == 2
    for wrong in ("x", "-1", "12345", "9" * 16):
        assert (await browser.http.get(f"/operator/opening?at={wrong}")).status_code == 404
