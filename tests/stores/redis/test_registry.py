"""The registry's scripts against its pure form: the same commands and times, answers and whole state compared."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from quota_engine.clocks import ManualClock
from quota_engine.conformance.random_registry import registry_questions, registry_walk
from quota_engine.domain.cross_office_registry import (
    Claim,
    CloseMove,
    Drop,
    FindClaims,
    OpenMove,
    OpenMoves,
    Registry,
    RegistryStatus,
    apply,
    ask,
    describe,
)
from quota_engine.fuzz.keyspace import Refused
from quota_engine.fuzz.lua_server import LuaServer
from quota_engine.ports import Describe, Query, Store
from quota_engine.stores.redis.codecs import registry as codec
from quota_engine.stores.redis.factory import open_async_store, open_store
from quota_engine.stores.redis.keys import keys_of
from quota_engine.stores.redis.ledger_formats import REGISTRY
from quota_engine.stores.redis.scripts import REGISTRY_COMMANDS
from tests.support.effort import seeds
from tests.support.servers import Server

SHARD = "~n.03"
KEYS = keys_of("", SHARD, REGISTRY.key_names)


@pytest.fixture(params=["valkey_server", "redis_server"])
def server(request: pytest.FixtureRequest) -> Server:
    """An empty server of each kind."""
    found: Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_000)


@pytest.fixture
def backend(server: Server, clock: ManualClock) -> Iterator[Store]:
    opened = open_store(server.url, clock)
    yield opened
    opened.close()


@pytest.mark.parametrize("seed", range(6))
def test_walks_on_a_server(backend: Store, clock: ManualClock, seed: int) -> None:
    """Each answer, each question's answer, and the whole state after each command are those of the pure registry."""
    random, registry = Random(seed), Registry(SHARD)
    for now_ms, command in registry_walk(random, 150):
        clock.set_ms(now_ms)
        assert backend.apply(SHARD, command) == apply(registry, command, now_ms), command
        assert backend.execute(Describe(SHARD)) == describe(registry), command
        for question in registry_questions(random):
            assert backend.execute(Query(SHARD, question)) == ask(registry, question, now_ms), question


class LuaShard:
    """One shard in the scripts without a server."""

    def __init__(self) -> None:
        self.store = LuaServer()
        self.answers = codec.RegistryDecoder(SHARD)

    def send(self, now_ms: int, *commands: Any) -> list[Any]:
        lines = self.store.run(REGISTRY_COMMANDS, KEYS, [str(now_ms), *map(codec.encode, commands)])
        return [self.answers.outcome(command, line) for command, line in zip(commands, lines, strict=True)]

    def ask(self, now_ms: int, question: Any) -> Any:
        (line,) = self.store.run(REGISTRY.queries, KEYS, [str(now_ms), codec.encode(question)])
        return self.answers.answer(question, line)

    def describe(self) -> dict[str, Any]:
        state = [dict(zip(one[::2], one[1::2], strict=True)) for one in self.store.run(REGISTRY.state, KEYS, [])]
        return describe(codec.registry_of_state(SHARD, state))


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 7])
def test_walks_without_a_server(size: int) -> None:
    """Thousands of commands, alone and in batches: nothing undeclared is touched, no script ends half done."""
    for seed in seeds(20, 60):
        random, registry, shard = Random(1_000 + seed), Registry(SHARD), LuaShard()
        steps = list(registry_walk(random, 140))
        for start in range(0, len(steps), size):
            now_ms, commands = steps[start][0], [command for _, command in steps[start : start + size]]
            assert shard.send(now_ms, *commands) == [apply(registry, command, now_ms) for command in commands]
            assert shard.describe() == describe(registry)
        for question in registry_questions(random):
            assert shard.ask(now_ms, question) == ask(registry, question, now_ms)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "claim",
        "claim\tani\ta~1\t1\t1",
        "claim\tani\ta\t1\t1\t0\t",
        "claim\ta i\ta~1\t1\t1\t0\t",
        "drop\tani\t-1",
        "drop\tani\tnan",
        "open_move\ta~1\tb~2\t1\t1\t1e9",
        "close_move\ta~1\tb~2\t2\t0",
        "keys\t1",
        "claim\tani\ta~1\t1\t1\t0",
        "claim\tani\ta~1\t1\t1\t0\t*",
    ],
)
def test_call_with_an_ill_formed_command_is_refused_whole(line: str) -> None:
    """The claim in front of it is not made either."""
    store = LuaServer()
    with pytest.raises(Refused, match="ILLFORMED command 2"):
        store.run(REGISTRY_COMMANDS, KEYS, ["1000", "claim\tbudi\ta~1\t10\t2000\t0\t", line])
    assert store.keys() == frozenset()


def test_all_keys_exist_and_expire(server: Server, backend: Store) -> None:
    """From the first claim on, however few there are, so that no slot on the move refuses half of them."""
    backend.apply(SHARD, Claim("ani", "a~1", 10, 5_000))
    with server.client() as client:
        assert sorted(client.keys()) == sorted(KEYS)
        assert all(30 * 86_400_000 <= client.pttl(key) <= 31 * 86_400_000 for key in KEYS)


def test_commands_without_an_entry_store_nothing(server: Server, backend: Store) -> None:
    """Releasing or querying an unknown claim costs the store no memory; nor does a refusal."""
    assert backend.apply(SHARD, Drop("ani", 1)).ok
    assert backend.apply(SHARD, CloseMove("a~1", "b~2", done=False)).ok
    assert backend.execute(Query(SHARD, FindClaims(("ani",)))).references == ("",)
    assert backend.execute(Query(SHARD, OpenMoves(5))) == []
    assert server.ask("DBSIZE") == 0
    backend.apply(SHARD, Claim("ani", "a~1", 10, 5_000))
    before = everything(server)
    assert backend.apply(SHARD, Claim("ani", "b~1", 10, 5_000)).status is RegistryStatus.TAKEN
    number = backend.apply(SHARD, Claim("budi", "b~1", 10, 5_000)).number
    backend.apply(SHARD, Drop("budi", number))
    assert everything(server) == before


def everything(server: Server) -> list[Any]:
    """Return all that the keys hold, except for the head, which counts the changes."""
    hashes = [server.ask("HGETALL", key) for key in (KEYS[1], KEYS[3])]
    return hashes + [server.ask("ZRANGE", key, 0, -1, "WITHSCORES") for key in (KEYS[2], KEYS[4], KEYS[5])]


def test_server_time_counts_without_a_clock(server: Server) -> None:
    """The lease is counted from what the server's clock says."""
    backend = open_store(server.url, None)
    try:
        seconds, microseconds = map(int, server.ask("TIME"))
        answer = backend.apply(SHARD, Claim("ani", "a~1", 60_000, 1))
        assert 0 <= answer.now_ms - (seconds * 1000 + microseconds // 1000) < 60_000
        assert answer.lease_until_ms == answer.now_ms + 60_000
    finally:
        backend.close()


async def test_one_of_many_concurrent_callers_gets_the_claim(server: Server, clock: ManualClock) -> None:
    """Three hundred callers for ten people share a few script calls, and each person is claimed once."""
    backend = await open_async_store(server.url, clock)
    try:
        server.ask("CONFIG", "RESETSTAT")
        claims = [Claim(f"p{number % 10}", f"a~{number}", 10, 5_000) for number in range(300)]
        answers = await asyncio.gather(*(backend.apply(SHARD, claim) for claim in claims))
        winners = [claim.applicant for claim, answer in zip(claims, answers, strict=True) if answer.ok]
        assert sorted(winners) == [f"p{number}" for number in range(10)]
        calls = {name: entry["calls"] for name, entry in server.info("commandstats").items()}
        assert sum(calls.get(f"cmdstat_{name}", 0) for name in ("eval", "evalsha", "fcall")) < 60
    finally:
        await backend.close()


def test_releasing_works_out_of_memory(server: Server, backend: Store) -> None:
    """A full server refuses new claims, whole, and lets old ones go."""
    number = backend.apply(SHARD, Claim("ani", "a~1", 10, 5_000)).number
    backend.apply(SHARD, OpenMove("a~1", "b~2", 1, 10, 5_000))
    server.ask("CONFIG", "SET", "maxmemory", "1")
    try:
        assert backend.apply(SHARD, Drop("ani", number)).ok
        assert backend.apply(SHARD, CloseMove("a~1", "b~2", done=True)).done
        with pytest.raises(Exception, match="memory is full"):
            backend.apply(SHARD, Claim("ani", "a~1", 10, 5_000))
    finally:
        server.ask("CONFIG", "SET", "maxmemory", "0")
    assert backend.execute(Query(SHARD, FindClaims(("ani",)))).references == ("",)
