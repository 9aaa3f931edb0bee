"""One place over all offices, and moves between them, on real servers: in clusters, through kills, by many processes.

Run as a program, this file is one of those processes.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from quota_engine import AsyncQuotaEngine, BackendUnavailable, InvalidRequest, OutcomeUnknown, Status
from quota_engine.clocks import ManualClock
from quota_engine.engine.quota_engine import QuotaEngine
from quota_engine.ports import Store
from quota_engine.stores.redis.factory import open_async_store, open_store
from quota_engine.workflows import office_moves
from quota_engine.workflows.office_moves import MOVE_LEASE_MS
from quota_engine.workflows.request_builder import RequestBuilder
from tests.stores.redis.conftest import cluster_url, empty_members
from tests.stores.redis.test_outages import RIGHTS
from tests.support.forked_clients import ForkedClients, run_forked_clients, wait_for_start
from tests.support.multi_office import (
    ANI,
    ANY_SELECTION,
    DAY,
    KEY,
    NEXT_DAY,
    NO_ADMISSION,
    OFFICES,
    Nation,
    RandomInterleaving,
    SteppedWorkflow,
    nation,
)
from tests.support.server_groups import Cluster
from tests.support.servers import Server

PEOPLE: Final = tuple(f"person{number}" for number in range(12))

Opener = Callable[[ManualClock], Store]


@pytest.fixture(params=["valkey", "redis", "cluster"])
def url(request: pytest.FixtureRequest) -> str:
    """Where an empty store is: alone, or in a cluster, where offices and claims are on three servers."""
    if request.param == "cluster":
        cluster: Cluster = request.getfixturevalue("valkey_cluster")
        empty_members(cluster.members)
        return cluster_url(cluster)
    server: Server = request.getfixturevalue(f"{request.param}_server")
    return server.url


@pytest.mark.parametrize("seed", range(1000, 1003))
def test_no_person_ever_has_two_places(url: str, seed: int) -> None:
    """The interleaving that is played in memory comes to the same answers here, step by step, and to as few places."""
    in_memory, here = RandomInterleaving(seed), RandomInterleaving(seed, lambda clock: open_store(url, clock))
    try:
        in_memory.run(60)
        here.run(60)
        assert here.results == in_memory.results
    finally:
        here.nation.backend.close()


async def test_concurrent_reserves_at_many_offices(url: str) -> None:
    """Ninety people reserve at three offices at the same moment: no person gets two places, and no place is lost."""
    there = Nation(places=40, open_store=lambda clock: open_store(url, clock))
    engine = AsyncQuotaEngine(await open_async_store(url, there.clock), there.requests)
    try:
        people = [f"person{number}" for number in range(90)]
        outcomes = await asyncio.gather(*(engine.reserve(office, DAY, one) for office in OFFICES for one in people))
        won = Counter(one.reservation.applicants for one in outcomes if one.ok and one.reservation)
        assert set(won.values()) == {1}
        await asyncio.gather(*(engine.reserve(office, DAY, one) for office in OFFICES[:1] for one in people))
        await asyncio.gather(*(engine.reserve(office, DAY, one) for office in OFFICES[1:2] for one in people))
        await asyncio.gather(*(engine.reserve(office, DAY, one) for office in OFFICES[2:] for one in people))
        assert len(there.active()) == 90
        assert (await engine.audit()).findings == ()
    finally:
        await engine.close()
        there.backend.close()


async def test_concurrent_moves(url: str) -> None:
    """Forty confirmed places are each moved to two offices at the same moment: each person has one place in the end."""
    there = Nation(places=50, open_store=lambda clock: open_store(url, clock))
    engine = AsyncQuotaEngine(await open_async_store(url, there.clock), there.requests)
    try:
        held = await asyncio.gather(*(engine.reserve("east", DAY, f"person{number}") for number in range(40)))
        await asyncio.gather(*(engine.confirm(one.reference) for one in held))
        outcomes = await asyncio.gather(
            *(engine.reschedule(one.reference, DAY, office=office) for one in held for office in ("west", "north"))
        )
        assert {one.status for one in outcomes} <= {Status.CONFIRMED, Status.MOVING, Status.WRONG_STATE}
        there.clock.advance_ms(MOVE_LEASE_MS)
        await engine.recover_moves()
        assert Counter(one.applicants for one in there.active()) == {
            one.reservation.applicants: 1 for one in held if one.reservation
        }
        assert (await engine.audit()).findings == ()
    finally:
        await engine.close()
        there.backend.close()


@pytest.mark.parametrize("national", [False, True])
def test_killed_server_in_a_move_loses_no_place(binary: Path, national: bool) -> None:
    """SIGKILL after each of the steps, with ``appendfsync always``: another client finishes the move."""
    with Server(binary, appendfsync="always") as server:
        for steps in range(8):
            server.ask("FLUSHALL")
            there = Nation(national=national, open_store=lambda clock: open_store(server.url, clock))
            source = there.engine.confirm(there.engine.reserve("east", DAY, ANI).reference).reference
            move = SteppedWorkflow(
                office_moves.reschedule(there.requests, NO_ADMISSION, source, DAY, "west", ANY_SELECTION, None, 0),
                there.backend,
            )
            move.run(steps)
            move.abandon()
            server.kill()
            server.start()
            assert 1 <= len(there.active()) <= 2
            there.clock.advance_ms(MOVE_LEASE_MS)
            there.engine.recover_moves()
            assert len(there.active()) == 1
            there.check()
            there.backend.close()


def test_documented_permissions_are_enough(valkey_server: Server) -> None:
    """A user with just those reserves, moves and finishes."""
    valkey_server.ask("ACL", "SETUSER", "engine", "reset", "on", ">secret", "~{quota_engine:*", *RIGHTS.split())
    path = valkey_server.socket_path
    there = Nation(open_store=lambda clock: open_store(f"unix://engine:secret@{path}", clock))
    first = there.engine.reserve("east", DAY, ANI)
    assert there.engine.reserve("west", DAY, ANI).status is Status.IDENTITY_LIMIT
    assert there.engine.reschedule(first.reference, NEXT_DAY, office="west").ok
    there.engine.recover_moves()
    there.check()
    there.backend.close()


# --- Processes that are killed -------------------------------------------------------------------------------------


def muddle_along(engine: QuotaEngine, seed: int) -> None:
    """Reserve, confirm, give up and move, all over the country, until the process is killed."""
    random = Random(seed)
    references: list[str] = []
    while True:
        try:
            if not references or random.random() < 0.5:
                outcome = engine.reserve(random.choice(OFFICES), random.choice((DAY, NEXT_DAY)), random.choice(PEOPLE))
            else:
                reference = random.choice(references)
                step: Any = random.choice((engine.confirm, engine.cancel, engine.release, engine.reschedule))
                if step == engine.reschedule:
                    outcome = engine.reschedule(
                        reference, random.choice((DAY, NEXT_DAY)), office=random.choice(OFFICES)
                    )
                else:
                    outcome = step(reference)
            if outcome.reference:
                references = [*references[-5:], outcome.reference]
        except (BackendUnavailable, OutcomeUnknown, InvalidRequest):
            continue


def run_client(url: str, now_ms: str, seed: str) -> None:
    """One process: four threads on one engine."""
    clock = ManualClock(int(now_ms))
    engine = QuotaEngine(
        open_store(url, clock), RequestBuilder(KEY, nation(national=True, places=20, reschedules_max=900))
    )
    threads = [
        threading.Thread(target=muddle_along, args=(engine, 10 * int(seed) + number), daemon=True)
        for number in range(4)
    ]
    wait_for_start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_killed_processes_leave_each_person_one_place(url: str) -> None:
    """Three processes move and book for the same dozen people. They die at the same time, and a later one recovers."""
    there = Nation(places=20, open_store=lambda clock: open_store(url, clock), reschedules_max=900)
    clients = [(url, str(there.clock.now_ms()), str(seed)) for seed in range(3)]
    with ForkedClients(__spec__.name, clients) as crowd:
        crowd.start()
        moved = 0
        while moved < 25:
            moved = sum(one.done for one in there.moves())
    there.moves()  # Each server has then handled what the processes had sent before they died.
    there.clock.advance_ms(MOVE_LEASE_MS)
    there.engine.recover_moves()
    assert max(Counter(who for one in there.active() for who in one.applicants).values()) == 1
    assert [one for one in there.moves() if not one.done] == []
    there.check()
    for person in PEOPLE:  # a person without a place can get one
        outcome = there.engine.reserve("east", DAY, person)
        assert outcome.ok or outcome.status is Status.IDENTITY_LIMIT
    assert len(there.active()) == len(PEOPLE)
    there.check()
    there.backend.close()


if __name__ == "__main__":
    run_forked_clients(run_client)
