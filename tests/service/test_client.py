"""The clients: the engine's methods over HTTP, with the engine's outcomes and errors, and retries that harm nobody."""

from __future__ import annotations

import datetime
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from quota_engine import AsyncQuotaEngine, BackendUnavailable, InvalidRequest, OutcomeUnknown, Status, UnknownName
from quota_engine.client import AsyncServiceClient, ServiceClient, ServiceRefused
from quota_engine.faces.client.talk import Retries
from quota_engine.faces.service.access import Role
from tests.service.serving import DAY, NIK, OTHER, TOKENS, Client
from tests.service.test_running import served

WANTED: dict[str, Any] = {"service": "new", "session": "morning"}
QUICK = Retries(attempts_max=3, pause_ms_min=1, pause_ms_max=2)


def over(client: Client, role: Role = Role.OPERATOR) -> AsyncServiceClient:
    headers = {"authorization": f"Bearer {TOKENS[role]}"}
    return AsyncServiceClient(
        httpx.AsyncClient(transport=client.http._transport, base_url="http://service", headers=headers), QUICK
    )


async def test_a_life_over_http(client: Client) -> None:
    """Every method, from the choice to the audit."""
    async with over(client) as service:
        assert [one.id for one in (await service.offices()).offices] == ["surabaya"]
        free = await service.availability("surabaya", DAY, **WANTED)
        assert (free.earliest_free_day, len(free.days)) == (DAY, 1)
        held = await service.reserve("surabaya", DAY, NIK, **WANTED)
        assert (held.status, held.ok) == (Status.HELD, True)
        confirmed = await service.confirm(held.reference, applicant=NIK, version=1)
        assert confirmed.reservation is not None
        assert confirmed.reservation.queue_numbers == [1]
        assert await service.lookup(held.reference) == confirmed.reservation
        assert await service.lookup("surabaya~nobody") is None
        moved = await service.reschedule(held.reference, "2026-12-08", **WANTED)
        assert moved.status is Status.CONFIRMED
        assert (await service.cancel(held.reference)).status is Status.CANCELLED
        other = await service.reserve("surabaya", DAY, [OTHER, f"{NIK}1"], wait=True, **WANTED)
        assert (await service.release(other.reference)).status is Status.RELEASED
        assert (await service.set_capacity("surabaya", DAY, "online", 0)).status is Status.DONE
        sold_out = await service.reserve("surabaya", DAY, OTHER, **WANTED)
        assert (sold_out.status, sold_out.ok, sold_out.reservation) == (Status.SOLD_OUT, False, None)
        assert (await service.check_in(other.reference)).status is Status.WRONG_STATE
        assert (await service.mark_no_show(other.reference)).status is Status.WRONG_STATE
        assert (await service.close_day("surabaya", DAY)).status is Status.DONE
        assert (await service.open_day("surabaya", DAY)).status is Status.DONE
        assert (await service.pass_on_unused("surabaya", DAY, "kiosk")).units == 30
        assert (await service.return_parked("surabaya", DAY, "online")).units == 0
        assert (await service.expire("surabaya", DAY, 5)).units == 0
        assert (await service.publish(DAY, DAY)).days_unchanged == 1
        events = await service.events("surabaya", limit=3)
        assert [one.number for one in events.events] == [1, 2, 3]
        assert await service.trim_events("surabaya", 3) > 0
        assert (await service.audit("surabaya")).ok


async def test_not_open_says_when(client: Client) -> None:
    """What an outcome carries comes through."""
    async with over(client) as service:
        await service.publish("2026-12-14", "2026-12-14")
        outcome = await service.reserve("surabaya", "2026-12-14", NIK, **WANTED)
        assert outcome.status is Status.NOT_OPEN
        assert outcome.retry_at_ms > client.clock.now_ms()


async def test_errors_are_the_engines(client: Client) -> None:
    """A call that can never be right, a name that is not known, a token that is not good for it."""
    async with over(client) as service:
        with pytest.raises(InvalidRequest, match="applicants"):
            await service.reserve("surabaya", DAY, [], **WANTED)
        with pytest.raises(UnknownName, match="office"):
            await service.reserve("nix", DAY, NIK, **WANTED)
        with pytest.raises(InvalidRequest, match="reference"):
            await service.confirm("a~b~c")
    async with over(client, Role.AUDITOR) as service:
        with pytest.raises(ServiceRefused) as refused:
            await service.reserve("surabaya", DAY, NIK, **WANTED)
        assert refused.value.kind == "forbidden"


def answering(
    *answers: Callable[[httpx.Request], httpx.Response] | httpx.TransportError,
) -> tuple[Any, list[httpx.Request]]:
    """A client of something that answers so, and the requests that it got."""
    seen: list[httpx.Request] = []
    left = iter(answers)

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        answer = next(left)
        if isinstance(answer, httpx.TransportError):
            raise answer
        return answer(request)

    http = httpx.Client(transport=httpx.MockTransport(handle), base_url="http://service")
    return ServiceClient(http, QUICK), seen


def problem(http: int, kind: str, **more: Any) -> Callable[[httpx.Request], httpx.Response]:
    body = {
        "type": f"urn:quota-engine:problem:{kind}",
        "title": "t",
        "status": http,
        "detail": "d",
        "instance": "i",
        **more,
    }
    headers = {"content-type": "application/problem+json"}
    return lambda _: httpx.Response(http, json=body, headers=headers)


def held(_: httpx.Request) -> httpx.Response:
    return httpx.Response(201, json={"status": "HELD"})


@pytest.mark.parametrize(
    "first",
    [
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
        problem(503, "unavailable"),
        problem(504, "outcome-unknown"),
        lambda _: httpx.Response(502, text="a proxy"),
    ],
)
def test_asked_again_with_the_same_key(first: Any) -> None:
    """Whatever went wrong, the same key goes out again, and finds what was done."""
    client, seen = answering(first, held)
    assert client.reserve("surabaya", DAY, NIK).status is Status.HELD
    keys = {request.headers["idempotency-key"] for request in seen}
    assert (len(seen), len(keys)) == (2, 1)


def test_when_no_answer_comes_at_all() -> None:
    """Nothing was sent: nothing was done. Something was sent: nobody knows. Looking changes nothing in any case."""
    client, seen = answering(*[httpx.ConnectError("refused")] * 3)
    with pytest.raises(BackendUnavailable):
        client.reserve("surabaya", DAY, NIK)
    assert len(seen) == 3
    client, _ = answering(httpx.ReadError("cut"), httpx.ConnectError("refused"), httpx.ConnectError("refused"))
    with pytest.raises(OutcomeUnknown, match="same key"):
        client.reserve("surabaya", DAY, NIK)
    client, _ = answering(*[httpx.ReadError("cut")] * 3)
    with pytest.raises(BackendUnavailable):
        client.lookup("surabaya~x")
    client, seen = answering(lambda _: httpx.Response(500, text="a bug"))
    with pytest.raises(OutcomeUnknown):
        client.confirm("surabaya~x")
    assert len(seen) == 1


def test_a_full_house_is_asked_again_unless_it_takes_long() -> None:
    """``OVERLOADED`` is tried again; a longer ``Retry-After`` is for the caller to wait."""
    full = problem(503, "overloaded", outcome="OVERLOADED")
    client, seen = answering(full, held)
    assert client.reserve("surabaya", DAY, NIK).status is Status.HELD

    def later(request: httpx.Request) -> httpx.Response:
        response = full(request)
        response.headers["retry-after"] = "60"
        return response

    client, seen = answering(later)
    assert client.reserve("surabaya", DAY, NIK).status is Status.OVERLOADED
    assert len(seen) == 1


def test_both_clients_and_the_engine_have_the_same_methods() -> None:
    """A method of one is a method of all; what the clients leave out is named here."""

    def methods(kind: type) -> set[str]:
        return {name for name, _ in inspect.getmembers(kind, inspect.isroutine) if not name.startswith("_")}

    assert methods(ServiceClient) == methods(AsyncServiceClient)
    for name in methods(ServiceClient) - {"open"}:
        one, other = (inspect.signature(getattr(kind, name)) for kind in (ServiceClient, AsyncServiceClient))
        assert one.parameters == other.parameters
    engine = methods(AsyncQuotaEngine)
    assert {"reserve", "confirm", "release", "cancel", "reschedule", "lookup", "availability", "audit"} <= engine
    assert methods(ServiceClient) - {"offices"} <= engine


@pytest.fixture
def service(tmp_path: Any) -> Iterator[tuple[str, str]]:
    with served(tmp_path, "--backend", "memory://") as running:
        yield running.url, running.token("operator")["authorization"].removeprefix("Bearer ")


def test_threads_share_a_client_of_a_real_service(service: tuple[str, str]) -> None:
    """Over a real connection: eight threads, one client, as many places as there are."""
    url, token = service
    with ServiceClient.open(url, token) as client:
        now = datetime.datetime.now(datetime.UTC)
        days = client.availability("surabaya", now.date(), now.date() + datetime.timedelta(days=14)).days
        # Today's may be over already, whatever the hour: one that is open for a minute more will do.
        day = next(one.day for one in days if one.opens_at_ms < now.timestamp() * 1000 < one.ends_at_ms - 60_000)
        client.set_capacity("surabaya", day, "online", 10)
        got: list[Status] = []

        def take(thread: int) -> None:
            got.extend(client.reserve("surabaya", day, f"{NIK}{thread}{one}", **WANTED).status for one in range(3))

        threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert got.count(Status.HELD) == 10
        assert set(got) == {Status.HELD, Status.SOLD_OUT}
        assert client.audit().ok
