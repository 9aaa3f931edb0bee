"""The audit log records operators' commands, without identities, seeds or other text that people type."""

from __future__ import annotations

import logging
import re

import pytest

from quota_engine.service.http.auth import Role
from quota_engine.service.observability.audit_log import LOGGER_NAME, record
from tests.support.form_browser import OperatorBrowser
from tests.support.in_process_service import DAY, DAY_PATH, NIK, Client


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [
        re.sub(r" request=\S+:", ":", record.getMessage()) for record in caplog.records if record.name == LOGGER_NAME
    ]
    caplog.clear()
    return found


async def test_api_commands_of_operators_are_recorded(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """A refused command is recorded too; reads and the applicants' requests are not."""
    caplog.set_level(logging.INFO, LOGGER_NAME)
    assert (await client.operate("PUT", f"{DAY_PATH}/quotas/online/capacity", {"capacity": 7})).status_code == 200
    assert (await client.operate("POST", f"{DAY_PATH}/close")).status_code == 200
    assert (await client.operate("POST", "/v1/offices/nix/days/2026-12-07/close")).status_code == 404
    assert lines(caplog) == [
        f"operator: set-capacity office=surabaya day={DAY} quota=online capacity=7 expected_revision=0: 200",
        f"operator: close-day office=surabaya day={DAY} expected_revision=0: 200",
        f"operator: close-day office=nix day={DAY} expected_revision=0: UnknownName",
    ]
    await client.reserve(NIK)
    assert (await client.call("GET", "/v1/audit", role=Role.OPERATOR)).status_code == 200
    assert (await client.call("POST", f"{DAY_PATH}/open", role=Role.SERVICE)).status_code == 403
    assert lines(caplog) == []


async def test_forms_of_operators_are_recorded(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """The line names the token of the session. Reads and forged forms leave no line."""
    caplog.set_level(logging.INFO, LOGGER_NAME)
    browser = OperatorBrowser(client)
    await browser.sign_in(Role.OPERATOR)
    await browser.get("/operator")
    assert (await browser.submit("day/capacity", **{"capacity-online": "9"})).status_code == 200
    await browser.submit("day/capacity", **{"capacity-online": "many"})
    await browser.submit("day/capacity", csrf_token="forged", **{"capacity-online": "3"})  # noqa: S106
    about = f"/operator/day/capacity office=surabaya day={DAY}"
    assert lines(caplog) == [
        f"operator: {about} capacity-online=9: 303",
        f"operator: {about} capacity-online=many: 422",
    ]


async def test_seeds_and_entropy_are_not_recorded(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """A reader of the log must not learn a seed that was sent too early."""
    caplog.set_level(logging.INFO, LOGGER_NAME)
    body = {"seed": "ab" * 32, "entropy": "7,123.45"}
    assert (await client.operate("POST", "/v1/draws/january/run", body)).status_code == 404
    assert (await client.operate("POST", "/v1/rooms/nix/open", {"entropy": "7,123.45"})).status_code == 404
    text = " ".join(lines(caplog))
    assert text.startswith("operator: run-draw draw=january")
    assert "abab" not in text
    assert "123" not in text


def test_values_that_are_not_names_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """A line break could forge a line, and 16 digits could be a national identity number."""
    caplog.set_level(logging.INFO, LOGGER_NAME)
    record("ops", "close-day", {"office": "a\nops: open-day", "quota": NIK, "day": DAY}, 200)
    assert lines(caplog) == [f"ops: close-day day={DAY}: 200"]


def test_fields_with_other_names_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """A form may choose the name of a field: a line break in it could forge a line."""
    caplog.set_level(logging.INFO, LOGGER_NAME)
    forged = "capacity-x\nops: open-day"
    record("ops", "capacity", {forged: "1", f"capacity-{NIK}": "2", "capacity-online": "3"}, 303)
    assert lines(caplog) == ["ops: capacity capacity-online=3: 303"]


@pytest.mark.parametrize("separator", [".", "-", "_", "~", "--"])
def test_identity_in_groups_is_left_out(caplog: pytest.LogCaptureFixture, separator: str) -> None:
    """People write the number in groups of four."""
    caplog.set_level(logging.INFO, LOGGER_NAME)
    grouped = separator.join(re.findall("....", NIK))
    for value in (grouped, f"surabaya~{grouped}", f"{NIK[0]}{separator}{NIK[1:]}"):
        record("ops", "no-show", {"number": value, "room": "surabaya-20261204T0700"}, 404)
        assert lines(caplog) == ["ops: no-show room=surabaya-20261204T0700: 404"]
