"""What operators do stands in the log: who, what, about what, and what it came to. What people type does not."""

from __future__ import annotations

import logging
import re

import pytest

from quota_engine.service.http.auth import Role
from quota_engine.service.observability.audit_log import LOGGER_NAME, record
from tests.support.form_browser import Desk
from tests.support.in_process_service import DAY, DAY_PATH, NIK, Client


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [
        re.sub(r" request=\S+:", ":", record.getMessage()) for record in caplog.records if record.name == LOGGER_NAME
    ]
    caplog.clear()
    return found


async def test_each_command_of_an_operator_leaves_a_line(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """Also one that is refused; looking leaves none, and neither does what applicants do."""
    caplog.set_level(logging.INFO, LOGGER_NAME)
    assert (await client.operate("PUT", f"{DAY_PATH}/quotas/online/capacity", {"capacity": 7})).status_code == 200
    assert (await client.operate("POST", f"{DAY_PATH}/close")).status_code == 200
    assert (await client.operate("POST", "/v1/offices/nix/days/2026-12-07/close")).status_code == 404
    assert lines(caplog) == [
        f"operator: set-capacity office=surabaya day={DAY} quota=online capacity=7: 200",
        f"operator: close-day office=surabaya day={DAY}: 200",
        f"operator: close-day office=nix day={DAY}: UnknownName",
    ]
    await client.reserve(NIK)
    assert (await client.call("GET", "/v1/audit", role=Role.OPERATOR)).status_code == 200
    assert (await client.call("POST", f"{DAY_PATH}/open", role=Role.SERVICE)).status_code == 403
    assert lines(caplog) == []


async def test_the_pages_leave_lines_too(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """Of forms that are sent, by the token that somebody has signed in with; not of looking, nor of another's form."""
    caplog.set_level(logging.INFO, LOGGER_NAME)
    desk = Desk(client)
    await desk.sign_in(Role.OPERATOR)
    await desk.get("/operator")
    assert (await desk.do("day/capacity", quota="online", capacity="9")).status_code == 200
    await desk.do("day/capacity", quota="online", capacity="many")
    await desk.do("day/capacity", quota="online", capacity="3", mark="another's")
    about = f"/operator/day/capacity office=surabaya day={DAY} quota=online"
    assert lines(caplog) == [f"operator: {about} capacity=9: 303", f"operator: {about} capacity=many: 422"]


async def test_seeds_and_entropies_are_no_business_of_the_log(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """A seed that came too early is not known to who reads the log."""
    caplog.set_level(logging.INFO, LOGGER_NAME)
    body = {"seed": "ab" * 32, "entropy": "7,123.45"}
    assert (await client.operate("POST", "/v1/draws/january/run", body)).status_code == 404
    assert (await client.operate("POST", "/v1/rooms/nix/open", {"entropy": "7,123.45"})).status_code == 404
    text = " ".join(lines(caplog))
    assert text.startswith("operator: run-draw draw=january")
    assert "abab" not in text
    assert "123" not in text


def test_nobody_writes_lines_of_their_own(caplog: pytest.LogCaptureFixture) -> None:
    """What is no name is left out, and what may be a national number."""
    caplog.set_level(logging.INFO, LOGGER_NAME)
    record("ops", "close-day", {"office": "a\nops: open-day", "quota": NIK, "day": DAY}, 200)
    assert lines(caplog) == [f"ops: close-day day={DAY}: 200"]
