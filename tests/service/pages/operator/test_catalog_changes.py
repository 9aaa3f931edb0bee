"""Operators' changes of the catalog: the preview, the change with its author, its removal, and other workers."""

from __future__ import annotations

import datetime
import html
import re
from pathlib import Path

from quota_engine.catalog import load_catalog
from quota_engine.service.app import create_app
from quota_engine.service.catalog_overlay import CatalogChange, CatalogOverlay, apply_changes
from quota_engine.service.http.auth import Role
from tests.support.form_browser import OperatorBrowser
from tests.support.in_process_service import DAY, NIK, OTHER, Client, configuration, running
from tests.support.page_texts import operator_text

NEXT = DAY + datetime.timedelta(days=1)
CLOSURE = {"kind": "closure", "first": str(DAY), "last": str(NEXT), "reason": "moving <house>"}


async def test_a_closure_is_previewed_with_its_people(browser: OperatorBrowser, client: Client) -> None:
    """The preview changes nothing. The change names its author and time, and its removal opens no closed day."""
    reference = (await client.reserve(NIK, OTHER)).json()["reservation"]["reference"]
    await client.step(reference, "confirm")
    await browser.sign_in(Role.OPERATOR)
    assert operator_text("catalog_no_changes", "en") in await browser.get("/operator/catalog?lang=en")
    preview = html.unescape((await browser.submit("catalog", **CLOSURE)).text)
    assert operator_text("catalog_people", "en", count=2) in preview
    assert "Monday, 7 December 2026: 2 people" in preview
    assert "<li>Tuesday, 8 December 2026</li>" in preview
    assert f"/operator/day/relocate?office=surabaya&day={DAY}" in preview
    assert not any(view.closed for view in await client.service.engine.availability("surabaya", DAY, NEXT))
    done = await browser.submit("catalog", **CLOSURE, confirm="yes")
    page = html.unescape(done.text)
    assert operator_text("done_change", "en") in page
    assert "moving &lt;house&gt;" in done.text
    assert "operator, Friday, 4 December 2026 14:00 WIB" in page
    views = await client.service.engine.availability("surabaya", DAY, DAY + datetime.timedelta(days=2))
    assert [view.closed for view in views] == [True, True, False]
    (change,) = re.findall(r'name="change" value="([^"]+)"', page)
    asked = html.unescape((await browser.submit("catalog/remove", change=change)).text)
    assert operator_text("change_opens", "en") in asked
    removed = await browser.submit("catalog/remove", change=change, confirm="yes")
    assert operator_text("catalog_no_changes", "en") in removed.text
    assert (await browser.submit("catalog/remove", change=change, confirm="yes")).status_code == 404
    assert (await client.service.engine.availability("surabaya", DAY))[0].closed


async def test_an_office_works_on_a_holiday(browser: OperatorBrowser, client: Client) -> None:
    christmas = {"kind": "working_day", "first": "2026-12-25"}
    await browser.sign_in(Role.OPERATOR)
    preview = html.unescape((await browser.submit("catalog", **christmas)).text)
    assert "<li>Jumat, 25 Desember 2026</li>" in preview
    await browser.submit("catalog", **christmas, confirm="yes")
    days = {"first_day": "2026-12-25", "last_day": "2026-12-25"}
    assert (await client.operate("POST", "/v1/publish", days)).json()["days_published"] == 1


async def test_new_capacities_count_for_days_that_are_published_later(browser: OperatorBrowser, client: Client) -> None:
    """Published days keep theirs, unless the operator changes them too; the people beyond them are counted."""
    await client.reserve(NIK, OTHER)
    await browser.sign_in(Role.OPERATOR)
    page = await browser.get("/operator/catalog?lang=en")
    form = page[page.index('value="capacities"') :]
    fields = dict(re.findall(r'name="(capacity-[a-z-]+)"[^>]*value="(\d+)"', form)) | {"kind": "capacities"}
    none = await browser.submit("catalog", **fields)
    assert (none.status_code, operator_text("change_none", "en") in none.text) == (422, True)
    wrong = await browser.submit("catalog", **{**fields, "capacity-online": "many"})
    assert (wrong.status_code, 'id="capacity-online-error"' in wrong.text) == (422, True)
    lower = {**fields, "capacity-online": "1"}
    assert operator_text("change_published_keep", "en") in (await browser.submit("catalog", **lower)).text
    asked = html.unescape((await browser.submit("catalog", **lower, published="yes")).text)
    assert operator_text("change_published", "en", count=5) in asked
    assert operator_text("change_overbooked_one", "en", count=1) in asked
    later = str(DAY + datetime.timedelta(days=7))
    await browser.submit("catalog", **lower, confirm="yes")
    await client.operate("POST", "/v1/publish", {"first_day": later, "last_day": later})
    views = await client.service.engine.availability("surabaya", DAY, later)
    assert [view.quotas["online"].capacity for view in views] == [100] * 5 + [1]
    await browser.submit("catalog", **{**lower, "capacity-online": "2"}, published="yes", confirm="yes")
    views = await client.service.engine.availability("surabaya", DAY, later)
    assert [view.quotas["online"].capacity for view in views] == [2] * 6


async def test_wrong_days_and_roles_are_refused(browser: OperatorBrowser) -> None:
    await browser.sign_in(Role.OPERATOR)
    for first, last in (("", ""), ("x", ""), ("2026-12-01", ""), (str(NEXT), str(DAY)), (str(DAY), "2030-01-01")):
        wrong = await browser.submit("catalog", kind="closure", first=first, last=last, confirm="yes")
        assert (wrong.status_code, 'id="closure-first-error"' in wrong.text) == (422, True), (first, last)
    for reason in (NIK, f"for {NIK[:4]} {NIK[4:8]}-{NIK[8:]}"):
        wrong = await browser.submit("catalog", **{**CLOSURE, "reason": reason})
        assert (wrong.status_code, NIK in wrong.text, 'id="closure-reason-error"' in wrong.text) == (422, False, True)
        assert reason not in (await browser.submit("catalog", **{**CLOSURE, "first": "x", "reason": reason})).text
    assert (await browser.submit("catalog", kind="nix")).status_code == 400
    assert (await browser.submit("catalog", kind="closure", first="2026-12-12")).status_code == 422, "a Saturday"
    await browser.sign_in(Role.AUDITOR)
    assert operator_text("change_preview") not in await browser.get("/operator/catalog")
    assert (await browser.submit("catalog", **CLOSURE, confirm="yes")).status_code == 403
    await browser.sign_in(Role.OFFICE)
    assert (await browser.http.get("/operator/catalog")).status_code == 403


async def test_a_wrong_form_keeps_what_was_typed(browser: OperatorBrowser) -> None:
    await browser.sign_in(Role.OPERATOR)
    page = (await browser.submit("catalog", **{**CLOSURE, "last": "2026-01-01"})).text
    for typed in (f'value="{DAY}"', 'value="2026-01-01"', 'value="moving &lt;house&gt;"'):
        assert page.count(typed) == 1, typed
    fields = {"kind": "capacities", "capacity-priority": "x", "capacity-online": "77", "published": "yes"}
    page = (await browser.submit("catalog", **fields)).text
    assert 'value="77"' in page
    assert 'name="published" value="yes" checked' in page


async def test_changes_outlive_the_service_and_reach_other_workers(tmp_path: Path) -> None:
    async with running(operator_folder=tmp_path) as client:
        other = create_app(configuration(operator_folder=tmp_path), clock=client.clock)
        async with other.lifespan():
            browser = OperatorBrowser(client)
            async with browser.http:
                await browser.sign_in(Role.OPERATOR)
                assert operator_text("catalog_not_kept") not in await browser.get("/operator/catalog")
                await browser.submit("catalog", **CLOSURE, confirm="yes")
            calendar = other.context.catalog.offices["surabaya"].calendar
            assert (DAY, NEXT) not in calendar.closures
            other.context.refresh_catalog()
            assert (DAY, NEXT) in other.context.catalog.offices["surabaya"].calendar.closures
    later = create_app(configuration(operator_folder=tmp_path), clock=client.clock)
    async with later.lifespan():
        assert (DAY, NEXT) in later.context.catalog.offices["surabaya"].calendar.closures


def test_damaged_lines_and_unknown_names_are_left_out(tmp_path: Path) -> None:
    overlay = CatalogOverlay(tmp_path)
    capacities = {"online": 7, "gone": 9}
    overlay.add(CatalogChange("a", "surabaya", "capacities", "ops", 1, capacities=capacities))
    overlay.add(CatalogChange("b", "gone", "closure", "ops", 2, str(DAY), str(DAY)))
    (path,) = tmp_path.iterdir()
    with path.open("ab") as file:
        file.write(b'{"id": "c"\n{"id":"d","office":"surabaya","kind":"closure","author":"o","at_ms":1,"first":"x"}\n')
    assert [change.id for change in CatalogOverlay(tmp_path).changes()] == ["a", "b"]
    assert overlay.changes() is overlay.changes()
    catalog = load_catalog("surabaya")
    changed = apply_changes(catalog, overlay.changes())
    assert {one.id: one.capacity for one in changed.offices["surabaya"].allotments}["online"] == 7
    assert changed.offices["surabaya"].calendar == catalog.offices["surabaya"].calendar
    assert apply_changes(catalog, ()) is catalog
