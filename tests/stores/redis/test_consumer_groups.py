"""Groups of consumers on real servers, and their script without one: always what the model and memory say."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quota_engine.clocks import ManualClock
from quota_engine.conformance.world import OFFICE, ONLINE, OPENS_AT_MS, published, reserve
from quota_engine.domain.commands import Confirm
from quota_engine.domain.consumer_groups import PENDING_MAX, ConsumerGroupView, Lease
from quota_engine.domain.outcomes import Status
from quota_engine.fuzz.lua_server import LuaServer
from quota_engine.fuzz.lua_store import LuaStore
from quota_engine.ports import (
    Acknowledge,
    ApplyMany,
    CreateConsumerGroup,
    DeleteConsumerGroup,
    ListConsumerGroups,
    ReadConsumerGroup,
    ReadEvents,
    Store,
    StoreRequest,
    TrimEvents,
)
from quota_engine.stores.memory import MemoryStore
from quota_engine.stores.redis.factory import open_async_store, open_store
from tests.stores.redis.test_outages import CLOCK
from tests.support.effort import examples
from tests.support.lossy_proxy import LossyProxy
from tests.support.servers import Server, until

_offices = (f"groups{number}" for number in count())

NUMBERS = st.integers(0, 40)
GROUPS = st.sampled_from(["mail", "Billing", "_"])
CONSUMERS = st.sampled_from(["w1", "w2", "W-3"])
REQUESTS = st.one_of(
    st.builds(ReadConsumerGroup, st.just(""), GROUPS, CONSUMERS, st.integers(0, 12), st.integers(0, 5)),
    st.builds(ReadConsumerGroup, st.just(""), GROUPS, CONSUMERS, st.integers(0, 12), st.integers(0, 5)),
    st.builds(Acknowledge, st.just(""), GROUPS, st.lists(NUMBERS, max_size=12).map(tuple)),
    st.builds(Acknowledge, st.just(""), GROUPS, st.tuples(NUMBERS).map(lambda one: tuple(range(one[0])))),
    st.builds(CreateConsumerGroup, st.just(""), GROUPS, NUMBERS),
    st.builds(TrimEvents, st.just(""), NUMBERS),
    st.builds(DeleteConsumerGroup, st.just(""), GROUPS),
)
STEPS = st.lists(st.tuples(st.integers(-1, 4), st.one_of(st.none(), REQUESTS, REQUESTS, REQUESTS)), max_size=40)
"""A time step in milliseconds and a request; no request adds an event."""


def play(backend: Store, clock: ManualClock, steps: list[tuple[int, StoreRequest[object] | None]]) -> None:
    """The same requests at the same times to a backend and to memory; every answer and the groups after it."""
    office = next(_offices)
    memory = MemoryStore(clock)
    clock.set_ms(OPENS_AT_MS)
    for each in (backend, memory):
        each.execute(ApplyMany(office, published()))
    for number, (later_ms, step) in enumerate(steps):
        clock.set_ms(clock.now_ms() + later_ms)
        if step is None:
            for each in (backend, memory):
                each.apply(office, reserve(f"k{number}", ONLINE))
            continue
        request = type(step)(office, *(getattr(step, field) for field in step.__struct_fields__[1:]))
        assert backend.execute(request) == memory.execute(request), request
        assert backend.execute(ListConsumerGroups(office)) == memory.execute(ListConsumerGroups(office)), request
    assert backend.execute(ReadEvents(office, 0, 100)) == memory.execute(ReadEvents(office, 0, 100))


@pytest.mark.slow
@settings(max_examples=examples(100, 300))
@given(steps=STEPS)
def test_scripts_match_the_model(steps: list[tuple[int, StoreRequest[object] | None]]) -> None:
    """Without a server: any requests, at times that may also run backwards."""
    clock = ManualClock(OPENS_AT_MS)
    play(LuaStore(clock), clock, steps)


@pytest.mark.parametrize("kind", ["valkey", "redis"])
def test_server_matches_the_model(kind: str, request: pytest.FixtureRequest) -> None:
    """The same on real servers."""
    clock = ManualClock(OPENS_AT_MS)
    backend = open_store(request.getfixturevalue(f"{kind}_server").url, clock)

    @settings(max_examples=25)
    @given(steps=STEPS)
    def on_server(steps: list[tuple[int, StoreRequest[object] | None]]) -> None:
        play(backend, clock, steps)

    on_server()
    backend.close()


@pytest.mark.slow
def test_scripts_have_the_limits_of_the_model() -> None:
    """At the most open numbers, each second one acknowledged, nothing new is given; the group's text stays small."""
    clock = ManualClock(OPENS_AT_MS)
    for backend in (MemoryStore(clock), LuaStore(clock, LuaServer())):
        rules = tuple(published(hold_ttl_ms=1000 + one)[0] for one in range(PENDING_MAX + 20))
        backend.execute(ApplyMany(OFFICE, rules))  # an event each
        assert len(backend.execute(ReadConsumerGroup(OFFICE, "mail", "w1", PENDING_MAX, 0))) == PENDING_MAX
        assert backend.execute(ReadConsumerGroup(OFFICE, "mail", "w2", 10, 60_000)) == []
        assert backend.execute(Acknowledge(OFFICE, "mail", tuple(range(2, PENDING_MAX + 1, 2)))) == PENDING_MAX // 2
        (group,) = backend.execute(ListConsumerGroups(OFFICE))
        assert (group.pending, group.acknowledged, len(group.leases)) == (PENDING_MAX // 2, 0, PENDING_MAX // 2)
        assert len(backend.execute(ReadConsumerGroup(OFFICE, "mail", "w2", 10, 60_000))) == 10


def set_up(url: str) -> Store:
    backend = open_store(url, CLOCK)
    backend.execute(ApplyMany(OFFICE, published()))
    backend.apply(OFFICE, reserve("ani", ONLINE))
    return backend


def numbers(backend: Store, consumer: str, min_idle_ms: int = 60_000) -> list[int]:
    return [one.number for one in backend.execute(ReadConsumerGroup(OFFICE, "mail", consumer, 10, min_idle_ms))]


def test_groups_survive_the_server(binary: Path) -> None:
    """Killed and started again from its append-only file, it knows who has what."""
    with Server(binary, appendfsync="always") as server:
        backend = set_up(server.url)
        assert numbers(backend, "w1") == [1, 2, 3, 4]
        assert backend.execute(Acknowledge(OFFICE, "mail", (1, 3))) == 2
        server.kill()
        server.start()
        assert backend.execute(ListConsumerGroups(OFFICE)) == [
            ConsumerGroupView("mail", 1, 4, 2, 0, (Lease(2, 2, "w1", OPENS_AT_MS), Lease(4, 4, "w1", OPENS_AT_MS)))
        ]
        assert numbers(backend, "w2") == []
        assert numbers(backend, "w1") == [2, 4]
        backend.close()


def test_lost_answers_lose_no_event(binary: Path) -> None:
    """The script ran, its answer did not arrive: asked again, it gives the same events, and closes the same ones."""
    with Server(binary) as server, LossyProxy(server.socket_path) as proxy:
        set_up(server.url).close()
        backend = open_store(proxy.url, CLOCK)
        proxy.losses = 2
        assert numbers(backend, "w1") == [1, 2, 3, 4]
        proxy.losses = 1
        assert backend.execute(Acknowledge(OFFICE, "mail", (1, 2))) == 0  # the first time it was 2
        assert numbers(backend, "w1") == [3, 4]
        assert proxy.losses == 0
        backend.close()


def test_events_trimmed_by_hand_do_not_block_consumers(binary: Path) -> None:
    """XTRIM past the engine leaves a gap: what is gone is not waited for, and the groups go on behind it."""
    with Server(binary) as server:
        backend = set_up(server.url)
        assert numbers(backend, "w1") == [1, 2, 3, 4]
        backend.apply(OFFICE, Confirm("ani"))
        (events,) = (key for key in server.ask("KEYS", "*") if key.endswith(":events"))
        server.ask("XTRIM", events, "MINID", "4-0")
        assert numbers(backend, "w1") == [4, 5]
        server.ask("XTRIM", events, "MAXLEN", "0")
        (group,) = backend.execute(ListConsumerGroups(OFFICE))
        assert (group.acknowledged, group.pending, group.lag) == (5, 0, 0)
        assert backend.execute(TrimEvents(OFFICE, 5)) == 0
        backend.close()


def test_consumers_continue_out_of_memory_and_trimming_frees_it(binary: Path) -> None:
    """OOM: what has been read can be acknowledged and trimmed."""
    with Server(binary) as server:
        backend = set_up(server.url)
        server.ask("CONFIG", "SET", "maxmemory", "1mb")
        assert numbers(backend, "w1") == [1, 2, 3, 4]
        assert backend.execute(Acknowledge(OFFICE, "mail", (1, 2, 3, 4))) == 4
        assert backend.execute(TrimEvents(OFFICE, 4)) == 0
        backend.close()


def test_leases_age_by_the_servers_time_without_a_clock(binary: Path) -> None:
    """min_idle_ms goes by the server's time."""
    with Server(binary) as server:
        backend = open_store(server.url, None)
        backend.execute(ApplyMany(OFFICE, published()[:1]))
        assert numbers(backend, "w1") == [1]
        assert numbers(backend, "w2", min_idle_ms=60_000) == []
        until(lambda: numbers(backend, "w2", min_idle_ms=1) == [1], "a lease of a millisecond to be over")
        backend.close()


async def test_async_store_has_consumer_groups(binary: Path) -> None:
    """The same requests, awaited."""
    with Server(binary) as server:
        set_up(server.url).close()
        backend = await open_async_store(server.url, CLOCK)
        found = await backend.execute(ReadConsumerGroup(OFFICE, "mail", "w1", 2, 0))
        assert [one.number for one in found] == [1, 2]
        assert await backend.execute(Acknowledge(OFFICE, "mail", (1, 2))) == 2
        assert await backend.execute(TrimEvents(OFFICE, 9)) == 2
        assert (await backend.apply(OFFICE, Confirm("ani"))).status is Status.CONFIRMED
        await backend.close()
