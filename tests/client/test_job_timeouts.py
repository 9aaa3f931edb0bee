"""Long calls that run out of time over HTTP: the problem document, and the error of the client."""

from __future__ import annotations

import json

import pytest

from quota_engine import InvalidRequest, JobTimeout
from quota_engine.client.call_protocol import Delay, HttpRequest, HttpResponse, Retries
from quota_engine.client.calls import Calls, DrawCalls
from quota_engine.client.calls import draws as draw_calls
from quota_engine.client.transport import _arguments
from quota_engine.generators import drive
from quota_engine.workflows.jobs import Checkpoint, JobRequest, JobTimer
from tests.support.client_parity import a_service, in_process
from tests.support.draw_runs import MONDAY


def let_time_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the time of each job end when its first step is done."""
    check = JobTimer.check

    def check_late(timer: JobTimer, request: JobRequest) -> None:
        if isinstance(request, Checkpoint) and request.done == 1:
            timer._ends_at_ms = timer._started_at_ms + 300
            timer._monotonic = lambda: timer._ends_at_ms
        check(timer, request)

    monkeypatch.setattr(JobTimer, "check", check_late)


async def test_the_response_says_how_far_the_call_came(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_service() as service:
        let_time_end(monkeypatch)
        response = await service.operate("POST", "/v1/publish", {"first_day": str(MONDAY), "last_day": str(MONDAY)})
        body = response.json()
        assert (response.status_code, body["type"]) == (503, "urn:quota-engine:problem:job-timeout")
        assert {name: body[name] for name in ("job", "done", "total", "unit", "timeout_ms")} == {
            "job": "publish", "done": 1, "total": 2, "unit": "offices", "timeout_ms": 300,
        }  # fmt: skip
        assert body["resume_with"] == {"offices": ["mlg"]}
        assert body["detail"].endswith("call it again with the last 1 offices to continue")
        audit = (await service.operate("GET", "/v1/audit")).json()
        assert (audit["job"], "resume_with" in audit) == ("audit", False)
        assert audit["detail"].endswith("audit office by office, or give it more time")


async def test_the_client_raises_the_error_of_the_engine_and_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_service() as service:
        let_time_end(monkeypatch)
        with pytest.raises(JobTimeout) as caught:
            await in_process(service).publish(MONDAY, timeout_ms=60_000)
        error = caught.value
        assert (error.job, error.done, error.total, error.resume_with) == ("publish", 1, 2, {"offices": ["mlg"]})
        assert (await in_process(service).publish(MONDAY, offices=error.resume_with["offices"])).offices == 1


def test_the_time_is_sent_and_bounds_the_wait() -> None:
    """The service gets the time, and the client waits a little longer for the response."""
    sent: list[HttpRequest] = []

    def handle(step: HttpRequest | Delay) -> HttpResponse:
        assert isinstance(step, HttpRequest)
        sent.append(step)
        return HttpResponse(200, {}, b'{"ok": true, "offices": 1, "findings": []}')

    drive(Calls(Retries()).audit(timeout_ms=90_500), handle)
    drive(Calls(Retries()).audit(), handle)
    assert [dict(one.headers) for one in sent] == [{"request-timeout": "90.500"}, {}]
    assert [_arguments(one).get("timeout") for one in sent] == [92.5, None]
    with pytest.raises(InvalidRequest, match="timeout_ms"):
        drive(Calls(Retries()).audit(timeout_ms=200), handle)


def test_parts_of_an_award_share_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request gets what is left. The error names the next winner, and has the report about the winners before."""
    times_ms = iter([0.0, 0.0, 40_000.0, 59_900.0])
    monkeypatch.setattr(draw_calls, "monotonic_ms", lambda: next(times_ms))
    waits: list[str] = []
    skipped: list[int] = []

    def handle(step: HttpRequest | Delay) -> HttpResponse:
        assert isinstance(step, HttpRequest)
        waits.append(step.headers["request-timeout"])
        skipped.append(json.loads(step.body or b"")["skip"])
        number = skipped[-1] + 1
        part = {
            "ok": True,
            "winners": 9,
            "references": [{"number": number, "reference": f"sby~{number}"}],
            "refusals": {},
            "refused": [],
        }
        return HttpResponse(200, {}, json.dumps({**part, "findings": [], "next_skip": number}).encode())

    with pytest.raises(JobTimeout) as caught:
        drive(DrawCalls(Retries(), "dec").award(timeout_ms=60_000), handle)
    assert (waits, skipped) == (["60.000", "20.000"], [0, 1])
    assert (caught.value.done, caught.value.resume_with) == (2, {"skip": 2})
    assert caught.value.report.references == {1: "sby~1", 2: "sby~2"}
