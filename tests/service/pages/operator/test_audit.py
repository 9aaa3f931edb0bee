"""The audit page."""

from __future__ import annotations

import html

from quota_engine.service.http.auth import Role
from tests.support.form_browser import OperatorBrowser
from tests.support.in_process_service import DAY, Client
from tests.support.page_texts import operator_text


async def test_an_audit_is_kept_until_an_operator_asks_again(browser: OperatorBrowser, client: Client) -> None:
    await browser.sign_in(Role.AUDITOR)
    assert operator_text("audit_ok") in await browser.get("/operator/audit")
    _lose_a_unit(client)
    client.clock.advance_ms(60_000)
    page = await browser.get("/operator/audit")
    assert operator_text("audit_ok") in page
    assert "14.00 WIB" in page
    again = html.unescape((await browser.submit("audit")).text)
    assert "quota online: free units are not capacity" in again
    assert "14.01 WIB" in again
    client.clock.advance_ms(600_000)
    assert "14.11 WIB" in await browser.get("/operator/audit")


def _lose_a_unit(client: Client) -> None:
    memory = client.service.engine._store._memory  # type: ignore[attr-defined]
    memory._ledgers["surabaya"].ledger.days[DAY.toordinal()].quotas["online"].free -= 1
