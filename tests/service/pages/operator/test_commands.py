"""The page that shows who did what."""

from __future__ import annotations

import csv
import io
import re

import pytest

from quota_engine.service.http.auth import Role
from tests.support.form_browser import OperatorBrowser
from tests.support.in_process_service import DAY, DAY_PATH, NIK, Client
from tests.support.page_texts import operator_text


def _rows(page: str) -> list[list[str]]:
    rows = re.findall(r'<tr role="row"><th scope="row".*?</tr>', page, re.DOTALL)
    return [[re.sub("<[^>]+>", "", cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)] for row in rows]


async def test_commands_of_pages_and_api_are_listed_the_newest_first(browser: OperatorBrowser, client: Client) -> None:
    await browser.sign_in(Role.OPERATOR)
    none = await browser.get("/operator/commands?lang=en&month=2020-01")
    assert operator_text("commands_none", "en") in none
    assert _rows(none) == []
    assert (await client.operate("PUT", f"{DAY_PATH}/quotas/online/capacity", {"capacity": 7})).status_code == 200
    client.clock.advance_ms(1_000)
    await browser.submit("day/capacity", **{"capacity-online": "many"})
    client.clock.advance_ms(1_000)
    await browser.submit("queue/find", nik=NIK)
    page = await browser.get("/operator/commands?lang=en")
    assert NIK not in page
    rows = _rows(page)
    assert [(row[2], row[4]) for row in rows] == [
        ("queue/find", "refused (404)"),
        ("day/capacity", "refused (422)"),
        ("set-capacity", "done"),
        ("publish", "done"),
    ]
    assert {row[1] for row in rows} == {"operator"}
    assert rows[2][3] == f"office=surabaya day={DAY} quota=online capacity=7 expected_revision=0"
    text = (await browser.http.get("/operator/commands.csv?lang=en")).content.decode()
    assert [row[2] for row in csv.reader(io.StringIO(text))][1:] == [row[2] for row in rows]


async def test_commands_can_be_chosen_by_operator_and_month(browser: OperatorBrowser, client: Client) -> None:
    await browser.sign_in(Role.OPERATOR)
    for number in range(60):
        await client.service.command_log.add("anna" if number % 2 else "budi", "x", {"office": "surabaya"}, "200")
    assert len(_rows(await browser.get("/operator/commands"))) == 50
    assert len(_rows(await browser.get("/operator/commands?from=50"))) == 11  # with the publication
    assert {row[1] for row in _rows(await browser.get("/operator/commands?who=anna"))} == {"anna"}
    for wrong in ("2026", "2026-13", "../../etc"):
        assert (await browser.http.get(f"/operator/commands?month={wrong}")).status_code == 404


@pytest.mark.parametrize("subject", [{"office": "malang"}, {"reference": "malang~1"}])
async def test_commands_of_other_offices_are_not_listed(
    browser: OperatorBrowser, client: Client, subject: dict[str, str]
) -> None:
    await client.service.command_log.add("anna", "cancel", subject, "200")
    await client.service.command_log.add("anna", "cancel", {"reference": "surabaya~1"}, "200")
    await client.service.command_log.add("anna", "publish", {"request": "1"}, "200")
    await browser.sign_in(Role.AUDITOR)
    assert [row[2] for row in _rows(await browser.get("/operator/commands"))] == ["publish", "cancel", "publish"]
