"""The page that closes a day with a plan: the plan first, then the moves, and a table at the end."""

from __future__ import annotations

import html
import re

import httpx

from quota_engine.service.http.auth import Role
from tests.support.form_browser import OperatorBrowser
from tests.support.identities import nik
from tests.support.in_process_service import DAY, NIK, OTHER, Client
from tests.support.page_texts import operator_text

NEXT = DAY.replace(day=DAY.day + 1)


async def _confirmed(client: Client, *niks: str) -> list[str]:
    references = [(await client.reserve(one)).json()["reservation"]["reference"] for one in niks]
    for reference in references:
        await client.step(reference, "confirm")
    return references


def _table(response: httpx.Response) -> list[list[str]]:
    rows = re.findall(r"<tr role=\"row\"><th scope=\"row\".*?</tr>", response.text, re.DOTALL)
    return [
        [html.unescape(re.sub("<[^>]*>", "", cell)) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)] for row in rows
    ]


async def test_the_plan_comes_first_and_the_table_at_the_end(browser: OperatorBrowser, client: Client) -> None:
    """The plan changes nothing. One who has no place stays, and is listed with the reason."""
    first, second, third = await _confirmed(client, NIK, OTHER, nik(1))
    await client.operate("PUT", f"/v1/offices/surabaya/days/{NEXT}/quotas/online/capacity", {"capacity": 2})
    await browser.sign_in(Role.OPERATOR)
    asked = await browser.get(f"/operator/day?office=surabaya&day={DAY}&ask=close")
    assert f"/operator/day/relocate?office=surabaya&day={DAY}" in asked
    plan = await browser.http.get(f"/operator/day/relocate?office=surabaya&day={DAY}&targets={NEXT}")
    assert operator_text("relocate_planned", moved=2, left=1) in html.unescape(plan.text)
    assert [row[0] for row in _table(plan)] == ["1", "2", "3"]
    assert _table(plan)[0][1:4] == ["1 orang", "Pagi", "Selasa, 8 Desember 2026 · Pagi"]
    assert operator_text("relocate_stays", why=operator_text("why_SOLD_OUT")) in _table(plan)[2][3]
    unconfirmed = await browser.submit("day/relocate", targets=str(NEXT))
    assert operator_text("relocate_planned", moved=2, left=1) in html.unescape(unconfirmed.text)
    assert (await client.step(first, "confirm")).json()["reservation"]["day"] == str(DAY)
    done = await browser.submit("day/relocate", targets=str(NEXT), confirm="yes")
    assert operator_text("relocate_moved", moved=2, left=1) in html.unescape(done.text)
    assert [row[4] for row in _table(done)] == ["1", "2", ""]
    days = [(await client.step(one, "confirm")).json()["reservation"]["day"] for one in (first, second, third)]
    assert days == [str(NEXT), str(NEXT), str(DAY)]
    again = await browser.submit("day/relocate", targets=str(NEXT), confirm="yes")
    assert [row[0] for row in _table(again)] == ["3"]
    assert "/operator/day/relocate?" in await browser.get(f"/operator/day?office=surabaya&day={DAY}")


async def test_wrong_targets_and_roles_are_refused(browser: OperatorBrowser, client: Client) -> None:
    await browser.sign_in(Role.OPERATOR)
    for targets in ("tomorrow", "nix:2026-12-08", "2026-02-30"):
        wrong = await browser.submit("day/relocate", targets=targets, confirm="yes")
        assert wrong.status_code in (404, 422), targets
    assert (await browser.http.get("/operator/day/relocate?office=surabaya&day=2020-01-01")).status_code == 404
    await browser.sign_in(Role.AUDITOR)
    assert (await browser.http.get(f"/operator/day/relocate?office=surabaya&day={DAY}")).status_code == 403
    await client.reserve()
    assert (await browser.submit("day/relocate", confirm="yes")).status_code == 403
