"""The actors of the simulation: visitors who want a place, and an operator, on engines of several processes."""

from __future__ import annotations

__all__ = ["SeedReport", "run_seed"]

import asyncio
import datetime
import functools
from collections.abc import Awaitable
from random import Random
from typing import Any, Final

import msgspec

from quota_engine.catalog import Catalog, catalog_from, day_terms
from quota_engine.clocks import MARGIN_MS
from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.engine.bounded_store import AsyncBoundedStore
from quota_engine.engine.quota_engine import AsyncQuotaEngine
from quota_engine.ports import Audit, ReadEvents
from quota_engine.stores.redis.async_store import AsyncRedisStore
from quota_engine.stores.redis.retrying_calls import RetryPolicy
from quota_engine.workflows.request_builder import RequestBuilder
from tests.support.lua_store import LuaServer, LuaStore
from tests.support.simulator.faults import LATE_MS_MAX, Faults, late_delay_ms
from tests.support.simulator.history import Call, Name, find_violations, text_of
from tests.support.simulator.network import VirtualNetwork
from tests.support.simulator.script_server import ScriptServer
from tests.support.simulator.virtual_loop import VirtualLoop

_OFFICE: Final = "surabaya"
_DAYS: Final = (datetime.date(2026, 12, 7), datetime.date(2026, 12, 8))
_HOLD_TTL_MS: Final = 60_000
_KEY: Final = b"a key for tests, and only them"
_NO_FAULTS: Final = Faults(*(0.0,) * len(msgspec.structs.fields(Faults)))
_METHOD_OF: Final[dict[Name, str]] = {"reacquire": "confirm", "close": "close_day", "open": "open_day"}
_PROCESSES: Final = 2
_REPETITIONS_MAX: Final = 3
_VISITORS: Final = 4
_VISITS_MAX: Final = 2
_OPERATIONS_MAX: Final = 4


class SeedReport(msgspec.Struct, frozen=True):
    """The result of one seed.

    Attributes:
        seed: the seed.
        operations: calls of the actors.
        faults: how often each fault happened; ``late`` counts the copies that the server refused.
        violations: a sentence for each thing that should not have happened.
        history: the calls and events as text, in order.
    """

    seed: int
    operations: int
    faults: dict[str, int]
    violations: tuple[str, ...]
    history: tuple[str, ...]


@functools.cache
def _catalog() -> Catalog:
    return catalog_from(
        {
            "services": [{"id": "new"}],
            "schedules": [
                {"id": "weekly", "kind": "weekly", "weekday": "friday", "at": "14:00", "zone": "Asia/Jakarta"}
            ],
            "rules": {"identity_limits": [], "hold_ttl_s": _HOLD_TTL_MS // 1000, "reschedules_max": 9},
            "plans": [{"id": "plan", "allotments": [{"id": "online", "capacity": 1}]}],
            "offices": [{"id": _OFFICE, "name": "Surabaya", "time_zone": "Asia/Jakarta"}],
        }
    )


def run_seed(seed: int, lua: LuaServer | None = None) -> SeedReport:
    """Run the simulation of one seed. The same seed always has the same history.

    Args:
        seed: decides everything that happens.
        lua: the server's scripts, compiled for an earlier seed; the keys are deleted.
    """
    lua = lua or LuaServer()
    lua.clear()
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        return runner.run(_Run(loop, seed, lua).run())


class _Run:
    """One run: a server, the engines of some processes, and the calls of all actors."""

    def __init__(self, loop: VirtualLoop, seed: int, lua: LuaServer) -> None:
        self._loop = loop
        self._seed = seed
        self._random = Random(f"simulator {seed}")
        self._catalog = _catalog()
        terms = day_terms(self._catalog, _OFFICE, _DAYS[0])
        assert terms is not None
        self._server = ScriptServer(lua)
        self._policy = RetryPolicy(
            attempts_max=self._random.randint(1, 5), attempt_valid_ms=self._random.choice((100, 1000))
        )
        self._network = VirtualNetwork(
            loop, self._server, self._random, _NO_FAULTS, epoch_ms=terms.opens_at_ms, timeout_ms=1500
        )
        self._calls: list[Call] = []

    async def run(self) -> SeedReport:
        """Publish the days, let the actors act, wait until nothing is in flight, and check the history."""
        random = self._random
        stores = [
            AsyncRedisStore(self._network.pool(), policy=self._policy, monotonic=self._loop.now_ms)
            for _ in range(_PROCESSES)
        ]
        requests = RequestBuilder(_KEY, self._catalog, lambda: "unused")
        await AsyncQuotaEngine(stores[0], requests).publish(self._catalog, *_DAYS)
        self._network.faults = Faults.draw(random)
        clients = [_Client(self._loop, self._network, self._policy, store, requests, self._calls) for store in stores]
        visitors = [_visitor(clients[number % _PROCESSES], f"visitor-{number}", random) for number in range(_VISITORS)]
        await asyncio.gather(_operator(clients[-1], random), *visitors)
        await asyncio.sleep(4 * LATE_MS_MAX / 1000)
        for store in stores:
            await store.close()
        return self._check()

    def _check(self) -> SeedReport:
        self._server.lua.time_ms = self._network.server_ms()
        direct = LuaStore(None, self._server.lua)
        events = [one.event for one in direct.execute(ReadEvents(_OFFICE, 0, 10**6))]
        violations = find_violations(self._calls, events) + direct.execute(Audit(_OFFICE))
        faults = dict(sorted({**self._network.fired, "late": self._server.counts.get("late", 0)}.items()))
        history = tuple(sorted([*map(str, self._calls), *map(text_of, events)]))
        return SeedReport(self._seed, len(self._calls), faults, tuple(violations), history)


class _Client:
    """The engine of one process. Its calls are noted, and made on the network with faults."""

    def __init__(
        self,
        loop: VirtualLoop,
        network: VirtualNetwork,
        policy: RetryPolicy,
        store: AsyncRedisStore,
        requests: RequestBuilder,
        calls: list[Call],
    ) -> None:
        self._loop = loop
        self._network = network
        self._policy = policy
        self._store = store
        self._requests = requests
        self._calls = calls

    async def call(
        self,
        name: Name,
        *arguments: Any,
        key: str = "",
        day: datetime.date | None = None,
        capacity: int = 0,
        **options: Any,
    ) -> Outcome | None:
        """Make a call and note it; returns its outcome, or ``None`` if the caller does not know it.

        Args:
            name: the command.
            arguments: the arguments of the engine's method.
            key: the reservation, for the history.
            day: the day that the call names, for the history.
            capacity: the new capacity, for the history.
            options: the keyword arguments of the engine's method.
        """
        network = self._network
        call = Call(name, key, day.toordinal() if day else 0, capacity, network.server_ms())
        self._calls.append(call)
        work = getattr(self._engine(), _METHOD_OF.get(name, name))(*arguments, **options)
        task = self._loop.create_task(_awaited(work))
        if network.happens("cancelled"):
            self._loop.call_later(late_delay_ms(network.random) / 1000, task.cancel)
        settles_ms = 0
        try:
            call.answer = await task
        except BackendUnavailable:
            call.answer = None
        except OutcomeUnknown:
            call.answer = "unknown"
        except asyncio.CancelledError:
            call.answer = "unknown"
            settles_ms = self._policy.attempt_valid_ms + MARGIN_MS  # as AsyncRedisStore.apply documents it
        call.ended_at_ms = network.server_ms() + settles_ms
        return call.answer if isinstance(call.answer, Outcome) else None

    async def repeat(self, name: Name, *arguments: Any, **options: Any) -> Outcome | None:
        """Make a call, and repeat it a few times while its outcome is not known."""
        for _ in range(_REPETITIONS_MAX):
            outcome = await self.call(name, *arguments, **options)
            if outcome is not None:
                return outcome
        return None

    def _engine(self) -> AsyncQuotaEngine:
        """Return an engine for the next call: some calls have a time-out."""
        random = self._network.random
        if random.random() < 0.7:
            return AsyncQuotaEngine(self._store, self._requests)
        ends_at_ms = self._loop.now_ms() + random.randint(200, 4000)
        return AsyncQuotaEngine(AsyncBoundedStore(self._store, ends_at_ms), self._requests)


async def _visitor(client: _Client, name: str, random: Random) -> None:
    """Want a place and give it back, in several visits, each with a new key."""
    for number in range(random.randint(1, _VISITS_MAX)):
        await _pause(random, 3000)
        await _visit(client, f"{name}-{number}", random)


async def _visit(client: _Client, key: str, random: Random) -> None:
    """Reserve, and then some of: move away and back, release, confirm in time or too late, cancel."""
    day, other_day = random.sample(_DAYS, 2)
    reference = f"{_OFFICE}~{key}"
    outcome = await client.repeat("reserve", _OFFICE, day, f"{key} identity", idempotency_key=key, key=key, day=day)
    if outcome is None or outcome.status is not Status.HELD:
        return
    await _pause(random, 1500)
    if random.random() < 0.4:
        for target in (other_day, day):
            await client.repeat("reschedule", reference, target, key=key, day=target)
    if random.random() < 0.25:
        await client.repeat("release", reference, key=key)
        return
    if random.random() < 0.5:
        await client.repeat("confirm", reference, key=key)
    else:
        await asyncio.sleep(_HOLD_TTL_MS / 1000)
        await client.repeat("reacquire", reference, reacquire=True, key=key)
    await _pause(random, 3000)
    if random.random() < 0.6:
        await client.repeat("cancel", reference, key=key)


async def _operator(client: _Client, random: Random) -> None:
    """Set capacities that are all different, close days and open them again."""
    for units in range(1, 1 + random.randint(0, _OPERATIONS_MAX)):
        await _pause(random, 20_000)
        day = random.choice(_DAYS)
        if random.random() < 0.5:
            await client.call("set_capacity", _OFFICE, day, "online", units, day=day, capacity=units)
        else:
            await client.call("close", _OFFICE, day, day=day)
            await client.call("open", _OFFICE, day, day=day)


async def _pause(random: Random, ms_max: int) -> None:
    await asyncio.sleep(random.uniform(0, ms_max) / 1000)


async def _awaited(call: Awaitable[Any]) -> Any:
    return await call
