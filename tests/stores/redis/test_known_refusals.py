"""Engines on a store that knows what is sold out: they refuse without a command, and never change an outcome."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from quota_engine import AsyncQuotaEngine, InvalidRequest, Outcome, QuotaEngine, Status, UnknownName
from quota_engine.admission import ConstantPolicy, deny
from quota_engine.bench.engine_workload import benchmark_catalog
from quota_engine.clocks import ManualClock
from quota_engine.stores.redis.factory import open_async_store, open_store
from quota_engine.stores.redis.sync_store import RedisStore
from quota_engine.stores.task_batching import _KNOWN_IN_A_ROW, _KNOWN_IN_A_TURN, _TURNS_IN_AN_ITERATION
from quota_engine.workflows.admission_gate import AdmissionGate
from quota_engine.workflows.request_builder import RequestBuilder
from tests.support.servers import Server
from tests.support.sold_out import BOUND_MS, ON, run_losers, settled

KEY = b"a key for tests, and only them"
OFFICE, DAY = "east", "2026-12-07"
OPENING = "2026-12-01T08:00:00+07:00"
CATALOG = benchmark_catalog([OFFICE], 2)
ANI, BUDI, CITRA = "3578012345678901", "3578012345678902", "3578012345678903"
SOLD_OUT = Status.SOLD_OUT


class Observer:
    """Counts refusals from the cache."""

    def __init__(self) -> None:
        self.sold_out = 0

    def on_decision(self, office: str, record: Any) -> None: ...

    def on_enqueue(self) -> Any: ...

    def on_batch(self, batch: Any) -> None: ...

    def on_sold_out(self, office: str) -> None:
        assert office == OFFICE
        self.sold_out += 1


class World:
    """An engine whose two places are held, and whose store knows that all is sold out."""

    def __init__(self, server: Server) -> None:
        self.clock = ManualClock.at(OPENING)
        self.store: RedisStore = open_store(server.url + ON, self.clock)
        self.observer = Observer()
        self.store.attach(self.observer)
        self.requests = RequestBuilder(KEY, CATALOG)
        self.engine = QuotaEngine(self.store, self.requests)
        self.engine.publish(CATALOG, DAY)
        self.ends_at_ms: list[float | None] = []
        for identity in (ANI, BUDI):
            assert self.engine.reserve(OFFICE, DAY, identity, idempotency_key=identity).status is Status.HELD
        assert [self.stranger() for _ in range(3)] == [SOLD_OUT] * 3
        self.observer.sold_out = 0
        self._applied = self.store.apply
        self.store.apply = self._apply  # type: ignore[method-assign]

    def _apply(self, address: str, command: Any, *, ends_at_ms: float | None = None) -> Any:
        self.ends_at_ms.append(ends_at_ms)
        return self._applied(address, command, ends_at_ms=ends_at_ms)

    _strangers = 0

    def stranger(self, engine: QuotaEngine | None = None, **more: Any) -> Status:
        """Reserve for an unknown applicant."""
        World._strangers += 1
        number = self._strangers
        outcome = (engine or self.engine).reserve(OFFICE, DAY, f"s{number}", idempotency_key=f"k{number}", **more)
        return outcome.status

    def applied(self) -> int:
        """Return the number of commands since the last call."""
        count = len(self.ends_at_ms)
        self.ends_at_ms.clear()
        return count


@pytest.fixture
def world(valkey_server: Server) -> Iterator[World]:
    world = World(valkey_server)
    yield world
    world.engine.close()


def test_unknown_applicants_are_refused_without_a_command(world: World) -> None:
    """The name filter takes few of them for known ones. The observer counts each other refusal once."""
    assert {world.stranger() for _ in range(400)} == {SOLD_OUT}
    applied = world.applied()
    assert applied < 20
    assert world.observer.sold_out == 400 - applied


def test_known_applicants_and_keys_get_the_outcome_of_the_store(world: World) -> None:
    def reserve(identity: str, key: str) -> Outcome:
        return world.engine.reserve(OFFICE, DAY, identity, idempotency_key=key)

    assert reserve(ANI, ANI).replayed
    assert reserve(ANI, "another").resumed
    assert reserve(CITRA, BUDI).status is Status.CONFLICT
    world.engine.release(f"{OFFICE}~{ANI}")
    assert reserve(ANI, ANI).status is Status.RESERVATION_ENDED
    assert reserve(CITRA, "c").status is Status.HELD
    assert world.observer.sold_out == 0


def test_arguments_are_validated_although_all_is_sold_out(world: World) -> None:
    wrong: list[tuple[type[Exception], dict[str, Any]]] = [
        (InvalidRequest, {"idempotency_key": "no key"}),
        (InvalidRequest, {"idempotency_key": 7}),
        (InvalidRequest, {"join_wait_list": 1}),
        (InvalidRequest, {"join_wait_list": ""}),
        (InvalidRequest, {"hold_ttl_ms": -1}),
        (InvalidRequest, {"day": "2026-13-01"}),
        (InvalidRequest, {"day": ["2026-12-07"]}),
        (InvalidRequest, {"applicants": ""}),
        (InvalidRequest, {"applicants": [CITRA, CITRA]}),
        (UnknownName, {"office": "west"}),
        (UnknownName, {"channel": "offline"}),
        (InvalidRequest, {"group": ["a"]}),
    ]
    for error, changed in wrong:
        with pytest.raises(error):
            world.engine.reserve(
                **{"office": OFFICE, "day": DAY, "applicants": CITRA, "idempotency_key": "c", **changed}
            )
    assert (world.applied(), world.observer.sold_out) == (0, 0)


def test_a_party_and_a_wait_list_are_kinds_of_their_own(world: World) -> None:
    """Units that no lone applicant finds are not there for a party, but the cache does not conclude that."""
    for number, wait in enumerate((True, False)):
        party = [f"p{number}", f"q{number}"]
        world.applied()
        world.engine.reserve(OFFICE, DAY, party, idempotency_key=f"party{number}", join_wait_list=wait)
        assert world.applied() == 1
    assert world.stranger(join_wait_list=True) is SOLD_OUT
    assert world.applied() == 1
    assert {world.stranger(join_wait_list=True) for _ in range(100)} == {SOLD_OUT}
    assert world.applied() < 20


def test_policies_precede_the_cache(world: World) -> None:
    gate = AdmissionGate(ConstantPolicy("closed", deny("closed")), None, world.clock, world.requests.opens_at_ms)
    engine = QuotaEngine(world.store, world.requests, gate)
    assert world.stranger(engine) is Status.NOT_ADMITTED
    with pytest.raises(InvalidRequest, match="admission_pass"):
        world.stranger(admission_pass="a pass")  # noqa: S106
    assert world.observer.sold_out == 0


def test_an_engine_with_an_end_refuses_too(world: World) -> None:
    """A refresh that a call makes due ends by the end of the call."""
    bounded = world.engine.with_timeout(5_000).with_timeout(4_000)
    assert {world.stranger(bounded) for _ in range(100)} == {SOLD_OUT}
    assert world.applied() < 10
    world.clock.advance_ms(BOUND_MS * 2 // 3)
    while not world.applied():
        assert world.stranger(bounded) is SOLD_OUT
        assert None not in world.ends_at_ms
    world.clock.advance_ms(BOUND_MS * 2 // 3)
    assert {world.stranger(bounded) for _ in range(100)} == {SOLD_OUT}, "refreshed, although the first answer is old"
    assert world.applied() < 10


def test_no_refusal_is_older_than_the_bound(world: World) -> None:
    world.clock.advance_ms(BOUND_MS)
    assert world.stranger() is SOLD_OUT
    assert world.applied() == 1
    world.clock.advance_ms(-BOUND_MS - 1)
    assert world.stranger() is SOLD_OUT
    assert world.applied() == 1


def test_a_place_that_this_engine_adds_is_found_at_once(world: World) -> None:
    assert world.engine.set_capacity(OFFICE, DAY, "online", 3).ok
    assert world.stranger() is Status.HELD
    assert world.stranger() is SOLD_OUT


async def sold_out_engine(server: Server, clock: ManualClock) -> AsyncQuotaEngine:
    engine = AsyncQuotaEngine(await open_async_store(server.url + ON, clock), RequestBuilder(KEY, CATALOG))
    await engine.publish(CATALOG, DAY)
    for number in range(5):
        await engine.reserve(OFFICE, DAY, f"a{number}", idempotency_key=f"a{number}")
    await settled(engine._store)  # type: ignore[arg-type]
    return engine


async def test_losing_tasks_let_the_loop_run_in_turns(valkey_server: Server) -> None:
    """Hundreds of tasks that lose get a bounded number of outcomes in one iteration of the loop, also in a refresh."""
    clock = ManualClock.at(OPENING)
    engine = await sold_out_engine(valkey_server, clock)

    async def lose(name: str) -> None:
        assert (await engine.reserve(OFFICE, DAY, name, idempotency_key=name)).status is SOLD_OUT

    outcomes_max, _ = await run_losers(clock, lose)
    assert 100 < outcomes_max <= _TURNS_IN_AN_ITERATION * (_KNOWN_IN_A_TURN + 1) + 2 * _KNOWN_IN_A_ROW
    await engine.close()


async def test_a_call_that_finds_a_refresh_due_starts_it(valkey_server: Server) -> None:
    clock = ManualClock.at(OPENING)
    engine = await sold_out_engine(valkey_server, clock)
    refreshed = 0
    for number in range(20):
        clock.advance_ms(100)
        assert (await engine.reserve(OFFICE, DAY, f"b{number}", idempotency_key=f"b{number}")).status is SOLD_OUT
        refreshed += bool(engine._store._tasks)  # type: ignore[attr-defined]
        await settled(engine._store)  # type: ignore[arg-type]
    assert 8 <= refreshed <= 12
    bounded = engine.with_timeout(5_000)
    assert (await bounded.reserve(OFFICE, DAY, "c", idempotency_key="c")).status is SOLD_OUT
    await engine.close()
