"""The queue list of a day: check in, mark no-shows, search and export."""

from __future__ import annotations

import csv
import dataclasses
import html
import io
import logging
import re

import pytest

from quota_engine.service.http.auth import Role
from quota_engine.service.observability.audit_log import LOGGER_NAME
from quota_engine.service.pages.operator.csv_export import escape_formula
from quota_engine.service.pages.registration_codes import format_code
from tests.support.form_browser import OperatorBrowser
from tests.support.identities import nik
from tests.support.in_process_service import DAY, DAY_PATH, NIK, OTHER, Client
from tests.support.page_texts import operator_text


async def _start_day(client: Client) -> None:
    client.clock.set_ms((await client.service.engine.availability("surabaya", DAY))[0].starts_at_ms)


async def _confirmed(client: Client, *niks: str) -> list[str]:
    references = [(await client.reserve(nik)).json()["reservation"]["reference"] for nik in niks]
    for reference in references:
        await client.step(reference, "confirm")
    return references


async def test_the_list_has_queue_numbers_and_no_identities(browser: OperatorBrowser, client: Client) -> None:
    _, _, third = await _confirmed(client, NIK, OTHER, nik(1))
    await client.step(third, "cancel")
    await browser.sign_in(Role.OFFICE)
    page = await browser.get(f"/operator/queue?day={DAY}")
    assert re.findall(r'class="big">([0-9]+)</th>', page) == ["1", "2"]
    assert operator_text("ended_hidden_one", count=1) in page
    assert "check-in" not in page, "the day has not started"
    assert NIK not in page


def _undo_values(page: str) -> list[str]:
    """Return the values of the buttons that undo a check-in or no-show."""
    return re.findall(r'form="row-undo" name="number" value="([^"]+)"', page)


async def test_check_in_and_no_show_can_be_undone_for_some_minutes(browser: OperatorBrowser, client: Client) -> None:
    first, second = await _confirmed(client, NIK, OTHER)
    await _start_day(client)
    await browser.sign_in(Role.OFFICE)
    assert _undo_values(await browser.get(f"/operator/queue?day={DAY}")) == []
    checked_in = await browser.submit("queue/check-in", number="1")
    assert _undo_values(checked_in.text) == [f"{first}@3", f"{first}@3"], "one beside the message, one in the row"
    undone = await browser.submit("queue/undo", number=f"{first}@3")
    assert operator_text("done_undone", number=1) in undone.text
    assert _undo_values(undone.text) == []
    assert f'value="{first}"' in undone.text, "the party can be checked in again"
    again = await browser.submit("queue/undo", number=f"{first}@3")
    assert operator_text("number_state", number=1, state=operator_text("state_CONFIRMED")) in html.unescape(again.text)
    marked = await browser.submit("queue/no-show", number=second, confirm="yes")
    assert f"{second}@3" in _undo_values(marked.text)
    page = await browser.get(f"/operator/reservation?day={DAY}&number={second}")
    assert _undo_values(page) == [f"{second}@3"]
    client.clock.advance_ms(600_000)
    assert _undo_values(await browser.get(f"/operator/queue?day={DAY}")) == []
    assert _undo_values(await browser.get(f"/operator/reservation?day={DAY}&number={second}")) == []
    late = await browser.submit("queue/undo", number=f"{second}@3")
    assert operator_text("why_TOO_LATE") in html.unescape(late.text)
    assert (await browser.submit("queue/undo", number="surabaya~nobody@3")).status_code == 404


async def test_check_in_and_no_show_are_listed_and_exported(browser: OperatorBrowser, client: Client) -> None:
    first, second, third = await _confirmed(client, NIK, OTHER, nik(1))
    await client.step(third, "cancel")
    await _start_day(client)
    await browser.sign_in(Role.OFFICE)
    checked_in = await browser.submit("queue/check-in", number="1")
    assert operator_text("done_check-in", number=1) in checked_in.text
    question = html.unescape((await browser.http.get(f"/operator/queue/no-show?day={DAY}&number={second}")).text)
    assert operator_text("no_show_question", number=2) in question
    assert operator_text("no_show_block", count=7) in question
    assert operator_text("no_show_undo", time=operator_text("minutes", count=10)) in question
    unconfirmed = await browser.submit("queue/no-show", number=second)
    assert operator_text("no_show_question", number=2) in html.unescape(unconfirmed.text)
    marked = await browser.submit("queue/no-show", number=second, confirm="yes")
    assert operator_text("done_no-show", number=2) in marked.text
    file = await browser.http.get(f"/operator/queue.csv?day={DAY}&lang=en")
    assert file.headers["content-disposition"] == f'attachment; filename="surabaya-{DAY}.csv"'
    rows = list(csv.DictReader(io.StringIO(file.text.removeprefix("\ufeff"))))
    states = [operator_text(f"state_{state}", "en") for state in ("ATTENDED", "NO_SHOW", "CANCELLED")]
    assert [row["State"] for row in rows] == states
    assert [row["Queue number"] for row in rows] == ["1", "2", "3"]
    codes = [format_code(reference.partition("~")[2]) for reference in (first, second, third)]
    assert [row["Registration code"] for row in rows] == codes
    assert NIK not in file.text


async def test_the_file_for_a_spreadsheet_has_a_row_for_each_person(browser: OperatorBrowser, client: Client) -> None:
    """In the reader's language, with a mark of the encoding, and the separator of that language's spreadsheets."""
    party = (await client.reserve(NIK, OTHER)).json()["reservation"]["reference"]
    await client.step(party, "confirm")
    await client.reserve(nik(1))
    await browser.sign_in(Role.OFFICE)
    text = (await browser.http.get(f"/operator/queue.csv?day={DAY}&lang=id")).content.decode()
    assert text.startswith("\ufeffKantor;Hari;")
    rows = list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff")), delimiter=";"))
    assert [(row["Nomor antrean"], row["Jumlah orang dalam rombongan"]) for row in rows] == [
        ("1", "2"),
        ("2", "2"),
        ("", "1"),
    ]
    assert {(row["Hari"], row["Kantor"]) for row in rows} == {
        (str(DAY), client.service.catalog.offices["surabaya"].name)
    }
    assert all("08.00" in row["Jam"] for row in rows)


async def test_list_shows_ids_of_what_has_left_the_catalog(browser: OperatorBrowser, client: Client) -> None:
    """Service, session, group and allotments: in the list, the question, the file, the board, and the events."""
    reference = (await client.reserve(group="priority")).json()["reservation"]["reference"]
    await client.step(reference, "confirm")
    old = client.service.catalog
    office = old.offices["surabaya"]
    services = {name: service for name, service in office.services.items() if name != "new"}
    kept = dataclasses.replace(office, services=services, sessions={}, allotments=(), quotas=(), re_releases={})
    client.service.catalog = dataclasses.replace(old, offices={"surabaya": kept}, groups={})
    await _start_day(client)
    await browser.sign_in(Role.OPERATOR)
    page = await browser.get(f"/operator/queue?day={DAY}")
    assert '<td role="cell">morning</td>' in page
    assert '<td role="cell">new <span class="tag">priority</span></td>' in page
    question = await browser.get(f"/operator/queue/no-show?day={DAY}&number={reference}")
    assert " · morning · new · " in question
    file = (await browser.http.get(f"/operator/queue.csv?day={DAY}&lang=en")).text
    (row,) = csv.DictReader(io.StringIO(file.removeprefix("\ufeff")))
    assert (row["Service"], row["Time"], row["Group"]) == ("new", "morning", "priority")
    assert (await browser.counters("priority"))[1] == 1
    events = (await client.operate("GET", "/v1/offices/surabaya/events")).json()["events"]
    assert any("morning" in str(event) for event in events)


async def test_a_number_that_cannot_be_checked_in_says_why(browser: OperatorBrowser, client: Client) -> None:
    """Too early, twice, unknown, of another office, or of another day."""
    references = await _confirmed(client, NIK, OTHER)
    tomorrow = DAY_PATH.replace("-07", "-08")
    later = (await client.reserve(nik(1), path=tomorrow)).json()["reservation"]["reference"]
    await client.step(later, "confirm")
    await browser.sign_in(Role.OFFICE)
    early = await browser.submit("queue/check-in", number="1")
    assert early.status_code == 409
    assert operator_text("refused", why=operator_text("why_TOO_EARLY")) in html.unescape(early.text)
    await _start_day(client)
    await browser.sign_in(Role.OFFICE)
    scanned = await browser.submit("queue/check-in", number=references[1])
    assert operator_text("done_check-in", number=2) in scanned.text
    unknown = operator_text("number_unknown")
    confirmed = operator_text("state_CONFIRMED")
    for number, status, message in (
        ("2", 409, operator_text("number_state", number=2, state=operator_text("state_ATTENDED"))),
        ("77", 422, unknown),
        ("malang~x", 422, unknown),
        ("surabaya~!", 422, unknown),
        (later, 422, operator_text("number_other_day", day="Selasa, 8 Desember 2026", state=confirmed)),
        ("'=1+1", 422, unknown),
        ("", 422, operator_text("number_missing")),
    ):
        response = await browser.submit("queue/check-in", number=number)
        is_shown = f'id="number-error" role="alert">{message}<' in html.unescape(response.text)
        assert (response.status_code, is_shown) == (status, True), number
    attended = await browser.http.get(f"/operator/queue/no-show?day={DAY}&number=2")
    assert attended.status_code == 409


async def test_the_list_can_be_searched_filtered_and_paged(browser: OperatorBrowser, client: Client) -> None:
    references = await _confirmed(client, *(f"{3578010000000000 + number}" for number in range(12)))
    await client.reserve(NIK)
    await _start_day(client)
    await browser.sign_in(Role.OPERATOR)
    await browser.submit("queue/check-in", number="3")

    async def numbers(query: str) -> list[str]:
        return re.findall(r'class="big">([^<]+)</th>', await browser.get(f"/operator/queue?day={DAY}&{query}"))

    assert await numbers("q=7") == ["7"]
    assert await numbers(f"q={references[4]}") == ["5"]
    assert await numbers("q=999") == []
    assert await numbers("show=attended") == ["3"]
    assert len(await numbers("show=expected")) == 11
    assert len(await numbers("show=nix")) == 12
    assert await numbers("session=afternoon") == []
    assert len(await numbers("session=morning&show=expected")) == 11
    assert await numbers("from=10") == ["11", "12"]
    assert await numbers("from=-1") == await numbers("")


async def test_a_registration_code_checks_in_as_a_person_says_it(browser: OperatorBrowser, client: Client) -> None:
    """The code of another day is named with its day."""
    reserved = await client.reserve(NIK, key="7K3M91XZ")
    await client.step(reserved.json()["reservation"]["reference"], "confirm")
    later = await client.reserve(OTHER, key="7K3M91XY", path=DAY_PATH.replace("-07", "-08"))
    await client.step(later.json()["reservation"]["reference"], "confirm")
    await _start_day(client)
    await browser.sign_in(Role.OFFICE)
    assert 'class="big">1</th>' in await browser.get(f"/operator/queue?day={DAY}&q=7k3m-91xz")
    other = await browser.submit("queue/check-in", number="7k3m-91xy")
    confirmed = operator_text("state_CONFIRMED")
    why = operator_text("number_other_day", day="Selasa, 8 Desember 2026", state=confirmed)
    assert why in html.unescape(other.text)
    done = await browser.submit("queue/check-in", number="7k3m-9lxz")
    assert operator_text("done_check-in", number=1) in done.text


async def test_a_person_is_found_by_nik_on_any_day_and_the_log_has_no_nik(
    browser: OperatorBrowser, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """The office helps an applicant who has lost the code. The NIK is in no address and on no page."""
    caplog.set_level(logging.INFO, LOGGER_NAME)
    later = await client.reserve(NIK, key="7K3M91XZ", path=DAY_PATH.replace("-07", "-09"))
    await browser.sign_in(Role.OFFICE)
    spelled = f"{NIK[:4]} {NIK[4:8]}-{NIK[8:]}"
    found = await browser.submit("queue/find", nik=spelled)
    assert found.status_code == 200
    assert found.url.path == "/operator/reservation"
    assert "day=2026-12-09" in str(found.url)
    assert "<dd>7K3M-91XZ</dd>" in found.text
    for text, status, key in ((OTHER, 404, "nik_unknown"), ("12", 422, "nik_expected")):
        missing = await browser.submit("queue/find", nik=text)
        assert missing.status_code == status
        assert operator_text(key, expected="16 angka") in html.unescape(missing.text)
        assert OTHER not in missing.text
    await client.step(later.json()["reservation"]["reference"], "release")
    client.clock.advance_ms(5_000)
    assert (await browser.submit("queue/find", nik=NIK)).status_code == 404, "a registration that has ended"
    said = " ".join(record.getMessage() for record in caplog.records)
    assert "office: /operator/queue/find office=surabaya" in said
    for nik_or_part in (NIK, spelled, OTHER):
        assert nik_or_part not in said + str(found.url) + found.text


async def test_an_operator_cancels_a_registration_after_a_confirmation(
    browser: OperatorBrowser, client: Client
) -> None:
    """A confirmed one is canceled, a hold is released. The role office may not do it."""
    (confirmed,) = await _confirmed(client, NIK)
    held = (await client.reserve(OTHER)).json()["reservation"]["reference"]
    await browser.sign_in(Role.OFFICE)
    assert "queue/cancel" not in await browser.get(f"/operator/reservation?number={confirmed}")
    assert (await browser.submit("queue/cancel", number=confirmed, confirm="yes")).status_code == 403
    await browser.sign_in(Role.OPERATOR)
    assert "queue/cancel" in await browser.get(f"/operator/reservation?number={confirmed}")
    for reference, number, state in ((confirmed, "1", "CANCELLED"), (held, "–", "RELEASED")):
        asked = await browser.submit("queue/cancel", number=reference)
        assert operator_text("cancel_question", number=number) in html.unescape(asked.text)
        done = await browser.submit("queue/cancel", number=reference, confirm="yes")
        assert done.status_code == 200
        found = await client.service.engine.lookup(reference)
        assert found is not None
        assert found.state == state
        assert (await browser.http.get(f"/operator/queue/cancel?day={DAY}&number={reference}")).status_code == 409
    assert (await browser.submit("queue/cancel", number="77", confirm="yes")).status_code == 404


async def test_an_operator_replaces_a_person(browser: OperatorBrowser, client: Client) -> None:
    """The page shows no identity, and names the field that is wrong."""
    (reference,) = await _confirmed(client, NIK)
    await browser.sign_in(Role.OFFICE)
    assert "queue/replace" not in await browser.get(f"/operator/reservation?number={reference}")
    forbidden = await browser.submit("queue/replace", number=reference, applicant=NIK, replacement=OTHER)
    assert forbidden.status_code == 403
    await browser.sign_in(Role.OPERATOR)
    assert "/operator/queue/replace?office=surabaya" in await browser.get(f"/operator/reservation?number={reference}")
    form = await browser.get(f"/operator/queue/replace?office=surabaya&day={DAY}&number={reference}")
    assert operator_text("replace_question", number=1) in form
    for applicant, replacement, text in (
        (OTHER, nik(1), operator_text("refused", why=operator_text("why_NOT_IN_PARTY"))),
        (NIK, NIK, operator_text("replace_niks")),
        ("", nik(1), operator_text("replace_niks")),
    ):
        wrong = await browser.submit("queue/replace", number=reference, applicant=applicant, replacement=replacement)
        assert (wrong.status_code, text in html.unescape(wrong.text)) == (409, True), text
        assert NIK not in wrong.text
    done = await browser.submit("queue/replace", number=reference, applicant=NIK, replacement=OTHER)
    assert operator_text("done_replaced", number=1) in html.unescape(done.text)
    assert (await client.step(reference, "cancel", owner=NIK)).status_code == 403
    unknown = await browser.submit("queue/replace", number="77", applicant=NIK, replacement=OTHER)
    assert unknown.status_code == 404


def test_no_cell_of_a_file_is_a_formula() -> None:
    texts = ("=1+1", "-a", "@x", "+1", "\tx", "-12", "12 13", "")
    assert [escape_formula(text) for text in texts] == ["'=1+1", "'-a", "'@x", "'+1", "'\tx", "-12", "12 13", ""]
