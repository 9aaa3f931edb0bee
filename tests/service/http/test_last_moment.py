"""The time that a request has."""

from __future__ import annotations

import pytest

from quota_engine.service.context import ServiceContext
from quota_engine.service.http import last_moment
from quota_engine.service.http.auth import Role
from quota_engine.service.http.last_moment import find_time_left_ms
from quota_engine.service.http.problems import Problem
from tests.service.api.test_reservations import problem
from tests.support.in_process_service import DAY_PATH, NIK, Client


@pytest.mark.parametrize(
    ("wait", "moment_ms", "left_ms", "left_of_read_ms"),
    [
        (None, None, None, None),
        (b"2", None, 2_000, 2_000),
        (b"0.3", None, 300, 300),
        (b"9999.999", None, 3_600_000, 3_600_000),
        (b"2.5", 1_000, 1_000, 2_500),
        (b"2.5", 9_000, 2_500, 2_500),
        (None, 9_000, 9_000, None),
    ],
)
def test_shorter_time_counts(
    wait: bytes | None,
    moment_ms: int | None,
    left_ms: int | None,
    left_of_read_ms: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A read has no last moment."""
    monkeypatch.setattr(last_moment, "service_time_ms", lambda: 1_000_000)
    headers = {} if wait is None else {b"request-timeout": wait}
    if moment_ms is not None:
        headers[b"x-quota-engine-valid-until-ms"] = b"%d" % (1_000_000 + moment_ms)
    assert find_time_left_ms(headers, is_read=False) == left_ms
    assert find_time_left_ms(headers, is_read=True) == left_of_read_ms


@pytest.mark.parametrize("text", [b"", b"0", b"0.29", b"10000", b"02", b"2s", b"-1", b"1e3", b"nan", b"1.2345", b" 2"])
def test_invalid_waits_are_rejected(text: bytes) -> None:
    with pytest.raises(Problem) as caught:
        find_time_left_ms({b"request-timeout": text}, is_read=True)
    assert caught.value.type.status == 400


async def test_request_timeout_bounds_reads_and_changes(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine gets the time."""
    waits_ms: list[int] = []
    with_timeout = ServiceContext.with_timeout

    def recorded(context: ServiceContext, timeout_ms: int) -> ServiceContext:
        waits_ms.append(timeout_ms)
        return with_timeout(context, timeout_ms)

    monkeypatch.setattr(ServiceContext, "with_timeout", recorded)
    assert (await client.http.get("/v1/offices", headers={"request-timeout": "2"})).status_code == 200
    body = {"applicants": [NIK], "session": "morning", "service": "new"}
    headers = {"request-timeout": "0.5", "idempotency-key": "one"}
    assert (await client.call("POST", f"{DAY_PATH}/reservations", body, Role.SERVICE, **headers)).status_code == 201
    problem(await client.http.get("/v1/offices", headers={"request-timeout": "soon"}), 400, "bad-request")
    assert waits_ms == [2_000, 500]
