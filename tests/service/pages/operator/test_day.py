"""A day's page: its capacities, and closing or opening it."""

from __future__ import annotations

import dataclasses
import datetime
import html
import re

from quota_engine.service.http.auth import Role
from tests.support.form_browser import OperatorBrowser
from tests.support.identities import nik
from tests.support.in_process_service import DAY, NIK, OTHER, Client
from tests.support.page_texts import operator_text


async def test_a_capacity_below_the_taken_places_has_to_be_confirmed(browser: OperatorBrowser, client: Client) -> None:
    assert (await browser.sign_in(Role.OPERATOR)).url.path == "/operator"
    assert await browser.counters("Online") == [100, 0, 0, 0, 100, 0]
    await client.reserve()
    await client.reserve(OTHER)
    client.clock.advance_ms(1_000)
    assert await browser.counters("Online") == [100, 0, 2, 0, 98, 0]
    question = html.unescape((await browser.submit("day/capacity", **{"capacity-online": "1"})).text)
    assert operator_text("capacity_too_low_text", "en", capacity=1, taken=2, over=1) in question
    assert await browser.counters("Online") == [100, 0, 2, 0, 98, 0], "changed without confirmation"
    changed = await browser.submit("day/capacity", confirm="yes", **{"capacity-online": "1"})
    assert operator_text("done_capacity", "en") in changed.text
    assert await browser.counters("Online") == [1, 0, 2, 0, 0, 1]
    assert 'class="overbooked alarm"' in await browser.get("/operator/dashboard")
    raised = await browser.submit("day/capacity", **{"capacity-online": "150"})
    assert operator_text("done_capacity", "en") in raised.text
    assert await browser.counters("Online") == [150, 0, 2, 0, 148, 0]


async def test_a_wrong_capacity_is_reported_beside_its_field(browser: OperatorBrowser) -> None:
    await browser.sign_in(Role.OPERATOR)
    message = operator_text("capacity_wrong", most="10.000.000")
    for capacity in ("-1", "many", "", "1.5", "10000001", "99999999999999999999", "１２x"):
        response = await browser.submit("day/capacity", **{"capacity-online": capacity})
        assert response.status_code == 422
        page = html.unescape(response.text)
        assert f'<p class="field-error" id="capacity-online-error" role="alert">{message}' in page
        (field,) = re.findall(r'<input id="capacity-online"[^>]*>', page)
        assert f'value="{capacity}"' in field
        assert 'aria-invalid="true"' in field
        assert 'aria-describedby="capacity-online-error capacity-hint"' in field
    assert await browser.counters("Online") == [100, 0, 0, 0, 100, 0]


async def test_a_day_closes_after_the_operator_has_seen_who_is_affected(
    browser: OperatorBrowser, client: Client
) -> None:
    confirmed = (await client.reserve(NIK)).json()["reservation"]["reference"]
    await client.step(confirmed, "confirm")
    await client.reserve(OTHER, nik(1))
    await browser.sign_in(Role.OPERATOR)
    question = html.unescape((await browser.submit("day/close")).text)
    assert operator_text("close_day_confirmed_one", count=1) in question
    assert operator_text("close_day_held", count=2) in question
    assert operator_text("close_day_waiting", count=0) in question
    assert (await client.reserve(nik(2))).status_code == 201
    closed = await browser.submit("day/close", confirm="yes")
    assert operator_text("done_closed") in closed.text
    assert operator_text("open_day") in closed.text
    assert operator_text("day_state_CLOSED") in await browser.get("/operator")
    assert (await client.reserve(nik(3))).json()["outcome"] == "DAY_CLOSED"
    opened = await browser.submit("day/open")
    assert operator_text("done_opened") in opened.text
    assert (await client.reserve(nik(3))).status_code == 201


async def test_a_day_off_by_the_catalog_is_marked_with_its_people(browser: OperatorBrowser, client: Client) -> None:
    """An operator sees what the next publication will do, before it does so."""
    reference = (await client.reserve(NIK, OTHER)).json()["reservation"]["reference"]
    await client.step(reference, "confirm")
    await client.reserve(nik(1))
    await browser.sign_in(Role.OPERATOR)
    assert operator_text("not_in_catalog") not in await browser.get("/operator")
    old = client.service.catalog
    office = old.offices["surabaya"]
    calendar = dataclasses.replace(office.calendar, holidays=office.calendar.holidays | {DAY})
    changed = dataclasses.replace(office, calendar=calendar)
    client.service.catalog = dataclasses.replace(old, offices={"surabaya": changed})
    client.clock.advance_ms(1_000)
    assert (await browser.get("/operator")).count(f">{operator_text('not_in_catalog')}<") == 1
    page = await browser.get(f"/operator/day?day={DAY}")
    assert f"{operator_text('catalog_closes_day')} {operator_text('catalog_people', count=3)}" in page
    days = {"first_day": str(DAY), "last_day": str(DAY)}
    dry = await client.operate("POST", "/v1/publish", {**days, "dry_run": True})
    assert (dry.json()["days_closed"], dry.json()["people_affected"]) == (1, 3)
    assert (await client.reserve(nik(2))).status_code == 201
    published = await client.operate("POST", "/v1/publish", {**days, "offices": ["surabaya"]})
    assert (published.json()["days_closed"], published.json()["people_affected"]) == (1, 4)
    client.clock.advance_ms(1_000)
    assert operator_text("not_in_catalog") not in await browser.get("/operator")
    assert operator_text("day_state_CLOSED") in await browser.get(f"/operator/day?day={DAY}")


async def test_withdrawn_quotas_are_named_with_their_people(browser: OperatorBrowser, client: Client) -> None:
    await client.reserve(NIK)
    await browser.sign_in(Role.OPERATOR)
    old = client.service.catalog
    office = old.offices["surabaya"]
    kept = tuple(one for one in office.allotments if one.id != "online")
    client.service.catalog = dataclasses.replace(
        old, offices={"surabaya": dataclasses.replace(office, allotments=kept)}
    )
    page = await browser.get(f"/operator/day?day={DAY}")
    assert operator_text("catalog_withdraws", quotas="online") in page
    assert operator_text("catalog_people_one", count=1) in page


async def test_a_change_of_another_worker_shows_after_the_redirect(browser: OperatorBrowser, client: Client) -> None:
    """The worker that renders the result still caches the figures from before the change."""
    reference = (await client.reserve(NIK)).json()["reservation"]["reference"]
    await client.step(reference, "confirm")
    client.clock.set_ms((await client.service.engine.availability("surabaya", DAY))[0].starts_at_ms)
    await browser.sign_in(Role.OPERATOR)
    day, queue = f"/operator/day?day={DAY}", f"/operator/queue?day={DAY}"
    assert 'value="100"' in await browser.get(day)
    assert operator_text("state_CONFIRMED") in await browser.get(queue)
    await client.service.engine.set_capacity("surabaya", DAY, "online", 140)
    await client.service.engine.check_in(reference)
    assert 'value="140"' not in await browser.get(day), "the cached figures were read again"
    assert 'value="140"' in await browser.get(f"{day}&done=capacity")
    assert f">{operator_text('state_ATTENDED')}<" in await browser.get(f"{queue}&done=check-in&number=1")


async def test_a_day_that_is_over_takes_no_shows_only(browser: OperatorBrowser, client: Client) -> None:
    reference = (await client.reserve(NIK)).json()["reservation"]["reference"]
    await client.step(reference, "confirm")
    client.clock.advance_ms(round(datetime.timedelta(days=4).total_seconds() * 1000))
    await browser.sign_in(Role.OPERATOR)
    page = await browser.get(f"/operator/day?day={DAY}")
    assert operator_text("day_state_OVER") in page
    assert "day/capacity" not in page
    page = await browser.get(f"/operator/queue?day={DAY}")
    assert "queue/no-show" in page
    assert "queue/check-in" not in page


async def test_two_operators_cannot_undo_each_other_unseen(browser: OperatorBrowser, client: Client) -> None:
    """The second form was loaded before the first one was sent. It changes nothing, and says what the day is now."""
    await browser.sign_in(Role.OPERATOR)
    page = await browser.get(f"/operator/day?office=surabaya&day={DAY}&lang=en")
    revisions = set(re.findall(r'name="revision" value="(\d+)"', page))
    assert revisions == {"1"}
    first = await browser.submit("day/capacity", revision="1", **{"capacity-online": "120"})
    assert operator_text("done_capacity", "en") in first.text
    second = await browser.submit("day/capacity", revision="1", **{"capacity-online": "90"})
    assert second.status_code == 409
    assert operator_text("capacity_stale", "en", capacity=120) in html.unescape(second.text)
    assert await browser.counters("Online") == [120, 0, 0, 0, 120, 0]
    closing = await browser.submit("day/close", confirm="yes", revision="1")
    assert closing.status_code == 409
    assert operator_text("day_stale_open", "en") in html.unescape(closing.text)
    assert operator_text("done_closed", "en") in (await browser.submit("day/close", confirm="yes", revision="2")).text
    # The doubled form finds its effect, and changes nothing.
    assert operator_text("done_closed", "en") in (await browser.submit("day/close", confirm="yes", revision="2")).text
    opening = await browser.submit("day/open", revision="2")
    assert operator_text("day_stale_closed", "en") in html.unescape(opening.text)
    assert operator_text("done_opened", "en") in (await browser.submit("day/open", revision="3")).text


async def test_a_low_capacity_is_confirmed_for_the_revision_that_was_seen(
    browser: OperatorBrowser, client: Client
) -> None:
    """Another operator's change between the form and its confirmation is not undone."""
    await browser.sign_in(Role.OPERATOR)
    await browser.get("/operator?lang=en")
    await client.reserve()
    client.clock.advance_ms(1_000)
    question = html.unescape((await browser.submit("day/capacity", revision="1", **{"capacity-online": "0"})).text)
    assert '<input type="hidden" name="revision" value="1">' in question
    await browser.submit("day/capacity", revision="1", **{"capacity-online": "120"})
    late = await browser.submit("day/capacity", revision="1", confirm="yes", **{"capacity-online": "0"})
    assert late.status_code == 409
    assert await browser.counters("Online") == [120, 0, 1, 0, 119, 0]


async def test_one_save_sets_all_capacities_and_says_what_they_were(browser: OperatorBrowser, client: Client) -> None:
    """The form sends every capacity. Only those that differ are set, and a stale form changes none."""
    await browser.sign_in(Role.OPERATOR)
    page = await browser.get(f"/operator/day?day={DAY}&lang=en")
    (form,) = re.findall(r'<form method="post" action="/operator/day/capacity">.*?</form>', page, re.DOTALL)
    assert form.count("<button") == 1
    fields = dict(re.findall(r'name="(capacity-[a-z-]+)"[^>]*value="(\d+)"', form))
    assert len(fields) == 6
    fields |= {"capacity-online": "120", "capacity-kiosk": "10"}
    done = await browser.submit("day/capacity", **fields, revision="1")
    text = re.sub("<[^>]*>", "", html.unescape(done.text))
    assert "OnlineBefore: 100 → After: 120" in text
    assert "Office PCsBefore: 30 → After: 10" in text
    assert text.count("Before: ") == 2
    assert (await browser.counters("Online"))[0] == 120
    stale = await browser.submit("day/capacity", **{**fields, "capacity-online": "90"}, revision="1")
    assert stale.status_code == 409
    assert (await browser.counters("Online"))[0] == 120
    unknown = await browser.submit("day/capacity", **{"capacity-online": "90", "capacity-nix": "1"})
    assert unknown.status_code == 404
    assert (await browser.counters("Online"))[0] == 120
