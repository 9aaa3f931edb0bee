"""Late copies over HTTP: a network delivers a request after its caller has a final answer from a later attempt.

A proxy between the client and the service keeps the first copy. It arrives when everything is over, and the service
refuses it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from quota_engine import BackendUnavailable, Outcome, OutcomeUnknown, State, Status
from quota_engine.api_schema.headers import TIME_HEADER, VALID_UNTIL_HEADER
from quota_engine.client import AsyncServiceClient, Retries, ServiceClient
from quota_engine.client.call_protocol import Delay, HttpRequest, HttpResponse, NoResponse
from quota_engine.client.calls import Calls
from quota_engine.client.service_clock import ServiceClock
from quota_engine.clocks import MARGIN_MS
from quota_engine.domain.commands import SetRules
from quota_engine.domain.model import Rules
from quota_engine.engine.quota_engine import AsyncQuotaEngine
from quota_engine.generators import drive
from quota_engine.ports import ApplyMany
from quota_engine.service.http.auth import Role
from tests.support.in_process_service import DAY, DAY_PATH, NIK, OTHER, TOKENS, Client, listening, running
from tests.support.lossy_proxy import LossyProxy

VALID_MS = 600
RETRIES = Retries(attempts_max=3, pause_ms_min=10, pause_ms_max=20, attempt_valid_ms=VALID_MS)
HOLD_TTL_MS = 15 * 60_000
NEXT_DAY = DAY.replace(day=DAY.day + 1)
SELECTION: Any = {"service": "new", "session": "morning"}


class World:
    """A service on one place a day, and a client whose requests may be held by a proxy.

    Attributes:
        engine: the service's engine, as another caller uses it.
        proxy: holds requests of the client.
    """

    def __init__(self, service: Client, proxy: LossyProxy, kind: str) -> None:
        self.engine: AsyncQuotaEngine = service.service.engine
        self.proxy = proxy
        self.clock = service.clock
        url, token = f"http://127.0.0.1:{proxy.port}", TOKENS[Role.OPERATOR]
        self._sync = ServiceClient.open(url, token, retries=RETRIES) if kind == "sync" else None
        self._opening = None if self._sync else AsyncServiceClient.open(url, token, retries=RETRIES)
        self._async: AsyncServiceClient | None = None

    async def call(self, name: str, *arguments: Any, **named: Any) -> Any:
        """Call a method of the client."""
        if self._sync is not None:
            return await asyncio.to_thread(getattr(self._sync, name), *arguments, **named)
        if self._async is None:
            assert self._opening is not None
            self._async = await self._opening
        return await getattr(self._async, name)(*arguments, **named)

    async def call_with_late_copy(self, marker: str, name: str, *arguments: Any, **named: Any) -> Any:
        """Call a method whose first request, which contains ``marker``, is held."""
        self.proxy.marker = marker.encode()
        self.proxy.holds = 1
        result = await self.call(name, *arguments, **named)
        assert self.proxy.holds == 0
        return result

    async def deliver_late(self) -> None:
        """Deliver the held copy; the service must refuse it."""
        (reply,) = await asyncio.to_thread(self.proxy.deliver_late)
        assert b" 409 " in reply.partition(b"\r\n")[0]
        assert b"request-expired" in reply
        assert (await self.engine.audit()).findings == ()

    async def close(self) -> None:
        if self._sync is not None:
            self._sync.close()
        if self._async is not None:
            await self._async.close()


@pytest.fixture(params=["sync", "async"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with running() as service, listening(service.app) as port:
        with LossyProxy(("127.0.0.1", port)) as proxy:
            world = World(service, proxy, request.param)
            await world.engine.set_capacity("surabaya", DAY, "online", 1)
            yield world
            await world.close()


async def book(world: World, identity: str, key: str) -> Outcome:
    """Reserve directly at the service's engine."""
    return await world.engine.reserve("surabaya", DAY, identity, idempotency_key=key, **SELECTION)


@pytest.mark.slow
async def test_sold_out_stays_sold_out(world: World) -> None:
    await book(world, OTHER, "other")
    outcome = await world.call_with_late_copy(
        "/reservations", "reserve", "surabaya", DAY, NIK, idempotency_key="mine", **SELECTION
    )
    assert outcome.status is Status.SOLD_OUT
    await world.engine.set_capacity("surabaya", DAY, "online", 2)
    await world.deliver_late()
    assert await world.engine.lookup("surabaya~mine") is None
    assert (await book(world, NIK[:-1] + "9", "next")).status is Status.HELD


@pytest.mark.slow
async def test_expired_hold_is_not_confirmed_later(world: World) -> None:
    await book(world, NIK, "mine")
    world.clock.advance_ms(HOLD_TTL_MS)
    await book(world, OTHER, "other")
    outcome = await world.call_with_late_copy("/confirm", "confirm", "surabaya~mine", reacquire=True)
    assert outcome.status is Status.HOLD_EXPIRED
    await world.engine.set_capacity("surabaya", DAY, "online", 2)
    await world.deliver_late()
    record = await world.engine.lookup("surabaya~mine")
    assert record is not None
    assert record.state is State.EXPIRED


@pytest.mark.slow
async def test_reservation_stays_where_it_was_moved_last(world: World) -> None:
    await world.engine._store.execute(ApplyMany("surabaya", (SetRules(Rules(reschedules_max=9)),)))
    await world.engine.set_capacity("surabaya", DAY, "online", 2)  # a unit that is left cools
    await book(world, NIK, "mine")
    moved = await world.call_with_late_copy("/reschedule", "reschedule", "surabaya~mine", NEXT_DAY, **SELECTION)
    assert moved.status is Status.HELD
    assert (await world.call("reschedule", "surabaya~mine", DAY, **SELECTION)).status is Status.HELD
    await world.deliver_late()
    record = await world.engine.lookup("surabaya~mine")
    assert record is not None
    assert record.day == DAY.toordinal()


@pytest.mark.slow
async def test_capacity_stays_as_it_was_set_last(world: World) -> None:
    first = await world.call_with_late_copy("/capacity", "set_capacity", "surabaya", DAY, "online", 40)
    assert first.status is Status.DONE
    assert (await world.call("set_capacity", "surabaya", DAY, "online", 5)).status is Status.DONE
    await world.deliver_late()
    (view,) = await world.engine.availability("surabaya", DAY)
    assert view.quotas["online"].capacity == 5


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [("close", "open"), ("open", "close")])
async def test_day_stays_as_it_was_left(world: World, first: str, second: str) -> None:
    if first == "open":
        await world.engine.close_day("surabaya", DAY)
    outcome = await world.call_with_late_copy(f"/{first} ", f"{first}_day", "surabaya", DAY)
    assert outcome.status is Status.DONE
    await world.call(f"{second}_day", "surabaya", DAY)
    await world.deliver_late()
    (view,) = await world.engine.availability("surabaya", DAY)
    assert view.closed is (second == "close")


@pytest.mark.slow
async def test_unknown_outcome_is_settled_when_it_is_reported(world: World) -> None:
    """All attempts are held; after the error, none of them can be carried out."""
    world.proxy.marker, world.proxy.holds = b"/capacity", 3
    began = time.monotonic()
    with pytest.raises(OutcomeUnknown):
        await world.call("set_capacity", "surabaya", DAY, "online", 40)
    assert time.monotonic() - began >= 3 * VALID_MS / 1000
    replies = await asyncio.to_thread(world.proxy.deliver_late)
    assert [b"request-expired" in reply for reply in replies] == [True] * 3
    (view,) = await world.engine.availability("surabaya", DAY)
    assert view.quotas["online"].capacity == 1


class TestService:
    """The header, for any client."""

    async def test_responses_name_the_time(self) -> None:
        before_ms = time.time_ns() // 1_000_000
        async with running() as service:
            for response in (
                await service.call("GET", "/health/live"),
                await service.operate("POST", f"{DAY_PATH}/close"),
                await service.operate("GET", "/v1/nothing"),
            ):
                assert before_ms <= int(response.headers[TIME_HEADER]) <= time.time_ns() // 1_000_000

    @pytest.mark.parametrize(
        ("moment", "status"),
        [("1", 409), ("-5", 400), ("soon", 400), ("1764000000000.5", 400), ("9" * 15, 200), ("9" * 16, 400), ("", 400)],
    )
    async def test_last_moment_is_checked(self, moment: str, status: int) -> None:
        """A request that is refused has no effect."""
        async with running() as service:
            headers = {VALID_UNTIL_HEADER: moment}
            response = await service.call("POST", f"{DAY_PATH}/close", None, Role.OPERATOR, **headers)
            assert response.status_code == status
            (view,) = await service.service.engine.availability("surabaya", DAY)
            assert view.closed is (status == 200)

    async def test_reads_have_no_last_moment(self) -> None:
        async with running() as service:
            headers: Any = {VALID_UNTIL_HEADER: "1"}
            assert (await service.call("GET", "/v1/offices", **headers)).status_code == 200

    async def test_engine_has_only_the_time_that_is_left(self, monkeypatch: pytest.MonkeyPatch) -> None:
        timeouts_ms: list[int] = []
        with_timeout = AsyncQuotaEngine.with_timeout

        def noted(engine: AsyncQuotaEngine, timeout_ms: int) -> AsyncQuotaEngine:
            timeouts_ms.append(timeout_ms)
            return with_timeout(engine, timeout_ms)

        async with running() as service:
            monkeypatch.setattr(AsyncQuotaEngine, "with_timeout", noted)
            began_ms = time.time_ns() // 1_000_000
            headers = {VALID_UNTIL_HEADER: str(began_ms + 5_000)}
            response = await service.call("POST", f"{DAY_PATH}/close", None, Role.OPERATOR, **headers)
            took_ms = time.time_ns() // 1_000_000 - began_ms
            assert response.status_code == 200
            assert 5_000 - took_ms - 1 <= timeouts_ms[0] <= 5_000


class Wire:
    """Drives a call with scripted answers and a manual clock.

    Attributes:
        now_ms: the client's monotonic clock.
        did: the path of each request with its last moment, and each delay.
    """

    SERVICE_AHEAD_MS = 1_764_000_000_000

    def __init__(self) -> None:
        self.now_ms = 1_000.0
        self.clock = ServiceClock(lambda: self.now_ms)
        self.did: list[str] = []

    def run(self, *answers: HttpResponse | NoResponse) -> Any:
        """Run a call that changes something."""
        left = iter(answers)

        def handle(step: HttpRequest | Delay) -> HttpResponse | None:
            if isinstance(step, Delay):
                self.did.append(f"delay {step.duration_ms}")
                self.now_ms += step.duration_ms
                return None
            moment = step.headers.get(VALID_UNTIL_HEADER, "")
            self.did.append(f"{step.path} {int(moment) - self.SERVICE_AHEAD_MS if moment else '-'}")
            answer = next(left)
            if isinstance(answer, NoResponse):
                raise answer
            return answer

        return drive(Calls(RETRIES, self.clock).close_day("surabaya", DAY), handle)

    def response(self, status: int = 200, content: bytes = b'{"status": "DONE"}') -> HttpResponse:
        """A response of the service at the present time."""
        headers = {"content-type": "application/json", TIME_HEADER: str(int(self.now_ms) + self.SERVICE_AHEAD_MS)}
        return HttpResponse(status, headers, content)


PATH = f"{DAY_PATH}/close"
BY_PROXY = HttpResponse(504, {"content-type": "text/html"}, b"<html>")


class TestWaiting:
    """The waiting rule of the client, step by step."""

    def test_first_change_asks_for_the_time(self) -> None:
        wire = Wire()
        wire.run(wire.response(), wire.response())
        wire.run(wire.response())
        assert wire.did == ["/health/live -", f"{PATH} {1000 + VALID_MS}", f"{PATH} {1000 + VALID_MS}"]

    @pytest.mark.parametrize("lost", [NoResponse("cut", sent=True), BY_PROXY, BY_PROXY._replace(status=502)])
    def test_lost_response_is_waited_for(self, lost: HttpResponse | NoResponse) -> None:
        wire = Wire()
        wire.run(wire.response(), lost, wire.response())
        assert wire.did[2:] == [f"delay {VALID_MS + MARGIN_MS}", f"{PATH} {1000 + 2 * VALID_MS + MARGIN_MS}"]

    def test_end_is_waited_for(self) -> None:
        """An unknown outcome is reported when no request can be carried out any more."""
        wire = Wire()
        cut = NoResponse("cut", sent=True)
        with pytest.raises(OutcomeUnknown):
            wire.run(wire.response(), cut, cut, cut)
        assert wire.did[-1] == f"delay {VALID_MS + MARGIN_MS}"

    @pytest.mark.parametrize("failure", [NoResponse("refused", sent=False), BY_PROXY._replace(status=503)])
    def test_certain_failure_is_not_waited_for(self, failure: HttpResponse | NoResponse) -> None:
        wire = Wire()
        with pytest.raises(BackendUnavailable):
            wire.run(wire.response(), failure, failure, failure)
        assert [step for step in wire.did if step.startswith("delay")] == ["delay 10", "delay 20"]

    def test_service_without_the_header_gets_none(self) -> None:
        """A proxy may remove it; the client asks again a minute later."""
        wire = Wire()
        plain = HttpResponse(200, {"content-type": "application/json"}, b'{"status": "DONE"}')
        wire.run(plain, plain)
        wire.run(plain)
        wire.now_ms += 60_000
        wire.run(plain, plain)
        assert wire.did == ["/health/live -", f"{PATH} -", f"{PATH} -", "/health/live -", f"{PATH} -"]

    def test_expired_request_is_sent_again(self) -> None:
        """Its response names the service's time."""
        wire = Wire()
        expired = HttpResponse(
            409,
            {"content-type": "application/problem+json", TIME_HEADER: str(wire.SERVICE_AHEAD_MS + 91_000)},
            b'{"type": "urn:quota-engine:problem:request-expired", "title": "", "status": 409, "detail": "",'
            b' "instance": ""}',
        )
        wire.run(wire.response(), expired, wire.response())
        assert wire.did[2:] == ["delay 10", f"{PATH} {91_000 + 10 + VALID_MS}"]
