"""Clients: outcomes, errors and types are the engine's."""

from __future__ import annotations

import asyncio
import datetime
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from quota_engine import InvalidRequest, ManualClock, QuotaEngine, Status, TicketPhase, UnknownName
from quota_engine.catalog import day_terms
from quota_engine.client import ServiceClient, ServiceRefused
from quota_engine.service.http.auth import Role
from tests.service.background.test_room_supervisor import HOUR_MS, ROOM, ROOMS
from tests.service.test_runner import served
from tests.support import client_booking
from tests.support.client_parity import in_process
from tests.support.concurrent_bookers import open_day, write_catalog
from tests.support.identities import nik
from tests.support.in_process_service import DAY, NIK, TOKENS, Client, listening, running

WANTED: dict[str, Any] = {"service": "new", "session": "morning"}


async def test_a_service_lists_its_offices_and_the_earliest_available_day(client: Client) -> None:
    async with in_process(client) as service:
        assert [one.id for one in (await service.describe_offices()).offices] == ["surabaya"]
        last = DAY + datetime.timedelta(days=4)
        assert await service.earliest_available_day("surabaya", DAY, last, **WANTED) == DAY
        await service.set_capacity("surabaya", DAY, "online", 1)
        assert await service.earliest_available_day("surabaya", DAY, last, units=2, **WANTED) == DAY.replace(day=8)
        assert await service.earliest_available_day("surabaya", DAY, units=2, **WANTED) is None


async def test_not_open_carries_retry_at_ms(client: Client) -> None:
    async with in_process(client) as service:
        await service.publish("2026-12-14")
        outcome = await service.reserve("surabaya", "2026-12-14", NIK, **WANTED)
        assert outcome.status is Status.NOT_OPEN
        assert outcome.retry_at_ms > client.clock.now_ms()


async def test_a_pass_from_a_waiting_room_admits_a_reserve() -> None:
    """A reserve without the pass is refused."""
    async with running(before_ms=HOUR_MS, waiting_rooms=ROOMS) as client, in_process(client, Role.SERVICE) as service:
        room = service.room(ROOM)
        joined = await room.join(NIK)
        early = await room.enter(joined.ticket, NIK)
        assert (early.ok, early.ticket_status.phase, early.admission_pass) == (False, TicketPhase.NOT_OPEN, "")
        client.clock.advance_ms(HOUR_MS)
        assert (await room.status(joined.ticket)).poll_after_ms == 0
        refused = await service.reserve("surabaya", DAY, NIK, **WANTED)
        assert (refused.status, refused.reason) == ("NOT_ADMITTED", "no_pass")
        entered = await room.enter(joined.ticket, NIK)
        held = await service.reserve("surabaya", DAY, NIK, admission_pass=entered.admission_pass, **WANTED)
        assert held.ok
        with pytest.raises(ServiceRefused) as error:
            await room.close()
        assert error.value.kind == "forbidden"


async def test_long_lists_take_several_calls(client: Client) -> None:
    """Events and reservations by the thousand are the engine's, and can be acknowledged at once."""
    engine = client.service.engine
    await engine.set_capacity("surabaya", DAY, "online", 1_200)
    await engine.set_capacity("surabaya", DAY, "morning", 1_200)
    for number in range(1_100):
        assert (await engine.reserve("surabaya", DAY, nik(number), idempotency_key=f"key-{number}", **WANTED)).ok
    async with in_process(client) as service:
        mine, theirs = await service.events("surabaya", 1, 2_000), await engine.events("surabaya", 1, 2_000)
        assert [one.number for one in mine] == [one.number for one in theirs]
        assert len(mine) > 1_000
        assert [one.number for one in await service.events("surabaya", 1, 1_001)] == list(range(2, 1_003))
        listed = await service.list_reservations("surabaya", DAY)
        assert [one.id for one in listed] == [one.id for one in await engine.list_reservations("surabaya", DAY)]
        for _ in range(2):
            await service.events("surabaya", consumer_group="mail", consumer="one", limit=1_000)
        (group,) = await service.list_consumer_groups("surabaya")
        more = await engine.events("surabaya", consumer_group="mail", consumer="two")
        numbers = range(1, 1_001 + len(more))
        assert await service.acknowledge("surabaya", "mail", numbers) == group.pending + len(more) == len(numbers)


async def test_a_client_raises_the_engines_errors(client: Client) -> None:
    """Invalid arguments, unknown names, and a token without the permission."""
    async with in_process(client) as service:
        with pytest.raises(InvalidRequest, match="applicants"):
            await service.reserve("surabaya", DAY, [], **WANTED)
        with pytest.raises(UnknownName, match="office"):
            await service.reserve("nix", DAY, NIK, **WANTED)
        with pytest.raises(InvalidRequest, match="reference"):
            await service.confirm("a~b~c")
    async with in_process(client, Role.AUDITOR) as service:
        with pytest.raises(ServiceRefused) as refused:
            await service.reserve("surabaya", DAY, NIK, **WANTED)
        assert refused.value.kind == "forbidden"


async def test_one_booking_service_runs_with_an_engine_or_a_client(client: Client) -> None:
    terms = day_terms(client.service.catalog, "surabaya", DAY)
    assert terms is not None
    clock = ManualClock(terms.opens_at_ms)

    def use(places: client_booking.Places) -> list[object]:
        return [
            client_booking.book(places, "surabaya", DAY, NIK, "a-wish"),
            client_booking.book(places, "surabaya", DAY, NIK, "another"),
            client_booking.left(places, "surabaya", DAY),
            client_booking.until_sure(places, "nonsense"),
            client_booking.consume(places, "surabaya"),
        ]

    with QuotaEngine.open(catalog=client.service.catalog, clock=clock) as engine:
        engine.publish(client.service.catalog, DAY, DAY + datetime.timedelta(days=4))
        said = use(engine)
    async with listening(client.app) as port:
        with ServiceClient.open(f"http://127.0.0.1:{port}", TOKENS[Role.OPERATOR]) as over_http:
            assert await asyncio.to_thread(use, over_http) == said
    assert said[:2] == [[1], []]
    async with in_process(client) as service:
        assert await client_booking.book_async(service, "surabaya", DAY, nik(1)) == [2]


@pytest.mark.slow
def test_a_missing_extra_is_named() -> None:
    """With the extra, the client imports nothing of the service."""
    code = "import sys; sys.modules['httpx'] = None\ntry: import quota_engine.client\nexcept ImportError as e: print(e)"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "pip install 'quota-engine[client]'" in process.stdout
    code = "import sys, quota_engine.client; print({'starlette', 'uvicorn', 'jinja2'} & set(sys.modules))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert process.stdout.strip() == "set()"


@pytest.fixture
def service(tmp_path: Any) -> Iterator[tuple[str, str]]:
    with served(tmp_path, "--backend", "memory://", "--catalog", str(write_catalog(tmp_path))) as running:
        yield running.url, running.token("operator")["authorization"].removeprefix("Bearer ")


@pytest.mark.slow
def test_threads_share_a_client(service: tuple[str, str]) -> None:
    """Eight threads, one client over a real connection, and as many places as there are."""
    url, token = service
    with ServiceClient.open(url, token) as client:
        day = open_day(client)
        client.set_capacity("surabaya", day, "online", 10)
        got: list[Status] = []

        def take(thread: int) -> None:
            got.extend(client.reserve("surabaya", day, nik(10 * thread + one), **WANTED).status for one in range(3))

        threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert got.count(Status.HELD) == 10
        assert set(got) == {Status.HELD, Status.SOLD_OUT}
        assert client.audit().ok
