"""Above the concurrency limit the service refuses sheddable requests at once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator

import httpx
import pytest

from quota_engine.domain.commands import Command
from quota_engine.domain.outcomes import Outcome
from quota_engine.service.api import ENDPOINTS
from quota_engine.service.http.auth import Role
from quota_engine.service.http.limits import RequestLimits
from quota_engine.stores.memory import AsyncMemoryStore
from tests.service.api.test_malformed_requests import furnish
from tests.support.in_process_service import DAY, NIK, Client, Raw, connected, listening, overloaded, running
from tests.support.malformed_requests import good

PEOPLE = [f"35780987654321{number:02}" for number in range(40)]
FEW = RequestLimits(requests_max=8)
LIVE = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"


@contextlib.asynccontextmanager
async def served() -> AsyncIterator[Client]:
    """Yield a client of a service on a socket with a limit of eight requests."""
    async with running(limits=FEW) as client, listening(client.app) as port:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", limits=limits, timeout=60) as http:
            yield Client(http, client.app, client.clock)


@pytest.mark.slow
async def test_requests_above_the_limit_get_503_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight requests succeed when the store responds again; the refused ones have changed nothing."""
    go_on = asyncio.Event()
    send = AsyncMemoryStore.apply

    async def slow(self: AsyncMemoryStore, office: str, command: Command) -> Outcome:
        await go_on.wait()
        outcome: Outcome = await send(self, office, command)
        return outcome

    async with served() as client:
        holder = (await client.reserve(NIK)).json()["reservation"]
        monkeypatch.setattr(AsyncMemoryStore, "apply", slow)
        asked = [asyncio.create_task(client.reserve(person, key=f"k-{person}")) for person in PEOPLE]
        done, waiting = await asyncio.wait(asked, timeout=30, return_when=asyncio.FIRST_COMPLETED)
        while len(done) < len(PEOPLE) - FEW.requests_max:
            more, waiting = await asyncio.wait(waiting, timeout=30, return_when=asyncio.FIRST_COMPLETED)
            assert more, "a request above the limit is waiting"
            done |= more
        for task in done:
            answer = task.result()
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert answer.json()["outcome"] == "OVERLOADED"
        # A page is refused as well; a confirmation and an operator's request are served.
        page = await client.http.get("/?office=surabaya")
        assert (page.status_code, page.headers["retry-after"]) == (503, "10")
        reference = holder["reference"]
        confirm = asyncio.create_task(client.step(reference, "confirm", owner=NIK, expected_version=holder["version"]))
        operator = await client.operate("GET", "/v1/audit?office=surabaya")
        assert operator.status_code == 200
        go_on.set()
        assert (await confirm).status_code == 200
        assert [(await task).status_code for task in waiting] == [201] * FEW.requests_max
        # The refused requests succeed with the same keys.
        refused = [person for person, task in zip(PEOPLE, asked, strict=True) if task in done]
        for person in refused:
            assert (await client.reserve(person, key=f"k-{person}")).status_code == 201
        audit = (await client.operate("GET", "/v1/audit?office=surabaya")).json()
        assert audit["ok"]
        assert (await client.service.engine.availability("surabaya", DAY))[0].quotas["online"].held == len(PEOPLE)


async def test_open_streams_do_not_count() -> None:
    async with served() as client, contextlib.AsyncExitStack() as open_streams:
        names = await furnish(client)
        for _ in range(2 * FEW.requests_max):
            stream = client.http.stream("GET", f"/v1/rooms/{names['room']}/stream")
            answer = await open_streams.enter_async_context(stream)
            assert answer.status_code == 200
            await anext(answer.aiter_lines())
        assert (await client.reserve(PEOPLE[0])).status_code == 201


async def test_simultaneous_requests_are_counted_before_they_run() -> None:
    async with served() as client:
        request = b"GET /v1/offices/surabaya/availability?first_day=2026-12-07 HTTP/1.1\r\nhost: x\r\n\r\n"
        async with contextlib.AsyncExitStack() as stack:
            port = client.http.base_url.port
            assert port is not None
            raws = [await stack.enter_async_context(connected(port)) for _ in PEOPLE]
            for raw in raws:  # the server has accepted each connection before any of the many requests
                await raw.send(LIVE)
                assert await status_of(raw) == b"200"
            for raw in raws:
                raw.writer.write(request)  # the server reads after all have been written
            time.sleep(0.2)  # the server runs in this loop
            seen = Counter([await status_of(raw) for raw in raws])
            assert seen == {b"200": FEW.requests_max, b"503": len(PEOPLE) - FEW.requests_max}
            for raw in raws:  # the connections are still usable
                await raw.send(request)
                assert await status_of(raw) == b"200"


async def status_of(raw: Raw) -> bytes:
    """Return the status of a response, after reading all of it."""
    head = await raw.until(b"\r\n\r\n")
    await raw.reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
    return head[9:12]


@pytest.mark.slow
async def test_sheddable_endpoints_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of reservations and operators' requests are served."""
    async with running() as client:
        names = await furnish(client)
        shed = set()
        async with overloaded(client, monkeypatch) as shedding:
            for endpoint in ENDPOINTS:
                request = good(endpoint, names, ticket=names["ticket"])
                response = await shedding.http.request(
                    endpoint.method, request.url, content=request.content, headers=dict(request.headers)
                )
                if response.status_code == 503 and response.json()["type"].endswith("overloaded"):
                    shed.add(endpoint.name)
        assert shed == {endpoint.name for endpoint in ENDPOINTS if endpoint.is_sheddable}
        assert {"reserve", "join", "availability"} <= shed, shed
        assert not {"confirm", "release", "cancel", "check-in", "set-capacity", "close-day", "live"} & shed
        assert all(Role.SERVICE in (one.roles or {Role.SERVICE}) for one in ENDPOINTS if one.is_sheddable)
