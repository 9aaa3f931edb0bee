"""Bounds of the memory of what is sold out: names, events, offices, kinds of reserves and threads."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from msgspec.structs import replace

from quota_engine.clocks import ManualClock
from quota_engine.conformance.world import DAY, OFFICE, ONLINE, choice, published, reserve, terms
from quota_engine.domain.commands import Publish, Release, SetCapacity, SetRules
from quota_engine.domain.model import Rules
from quota_engine.domain.outcomes import Status
from quota_engine.ports import ApplyMany
from quota_engine.stores.redis import sold_out_cache
from quota_engine.stores.redis.factory import open_store
from quota_engine.stores.redis.sold_out_cache import CacheLimits, SoldOutCache
from quota_engine.stores.redis.sync_store import RedisStore
from tests.support.servers import Server
from tests.support.sold_out import BOUND_MS, SOLD_OUT, Scene


def with_limits(backend: RedisStore, clock: ManualClock, **limits: Any) -> SoldOutCache:
    """Give a backend a memory with other bounds."""
    cache = SoldOutCache(BOUND_MS, lambda: clock.now_ms() / 1000, CacheLimits(**limits))
    backend._sold_out_cache = backend._executor._sold_out_cache = backend._requests._sold_out_cache = cache
    return cache


@pytest.mark.slow
def test_name_filter_has_few_false_positives() -> None:
    """The filter finds every added name, full or not, and few other names."""
    for count in (1, 1000, 50_000):
        names = sold_out_cache.NameFilter(count)
        names.add(f"in{number}" for number in range(count))
        assert not names.is_full()
        names.add(f"in{number}" for number in range(count))
        assert names.count <= count  # no name counts twice
        added = count
        while not names.is_full():
            names.add([f"in{added}"])
            added += 1
        assert added >= 2 * count

        def has(name: str, names: sold_out_cache.NameFilter = names) -> bool:
            mark = sold_out_cache._MARKS[hash(name) >> 40 & 63]
            return names.table[hash(name) & names.mask] & mark == mark

        assert all(has(f"in{number}") for number in range(added))
        assert sum(has(f"out{number}") for number in range(20_000)) <= 20_000 / 100
        assert len(names.table) <= 32 * added + sold_out_cache._SLOTS_MIN


def test_office_with_too_many_names_is_not_cached(scene: Scene) -> None:
    """An office with many names has no cache: the store answers, and is rarely queried for names."""
    backend = scene.set_up()
    cache = with_limits(backend, scene.clock, names_max=3)
    for _ in range(10):
        assert scene.stranger(backend).status is SOLD_OUT
        scene.clock.advance_ms(10)
    assert cache.offices[OFFICE].snapshot is None
    assert scene.calls(lambda: [scene.stranger(backend) for _ in range(20)]) == 20
    scene.clock.advance_ms(BOUND_MS)
    assert scene.calls(lambda: [scene.stranger(backend) for _ in range(20)]) == 21


def test_too_many_events_or_a_full_filter_read_all_names(scene: Scene) -> None:
    """When more has happened than is read as news, or the table of names is full, all names are read again."""
    backend, other = scene.set_up(), scene.open()
    cache = with_limits(backend, scene.clock, events_max=3)
    scene.rush(backend)
    other.apply(OFFICE, SetCapacity(DAY, "online", 6))
    for number in range(4):
        assert other.apply(OFFICE, reserve(f"n{number}", ONLINE)).ok
    scene.clock.advance_ms(BOUND_MS)
    scene.rush(backend)
    table = cache.offices[OFFICE].names
    for number in range(4):
        assert backend.apply(OFFICE, reserve("again", ONLINE, f"n{number}")).resumed
    assert table is not None
    table.count = len(table.table)
    scene.clock.advance_ms(BOUND_MS)
    scene.rush(backend)
    assert cache.offices[OFFICE].names is not table
    assert backend.apply(OFFICE, reserve("again", ONLINE, "n3")).resumed


def test_cache_is_bounded(valkey_server: Server) -> None:
    """The oldest go: offices, kinds of reserves in one, and names in all."""
    scene = Scene(valkey_server)
    backend = scene.set_up()
    cache = with_limits(backend, scene.clock, offices_max=2, kinds_max=2, names_total_max=1)
    for wanted in (ONLINE, choice(("online", "morning")), choice(("online", "fast"))):
        for number in range(3):
            command = reserve(f"w{wanted.options[0][-1]}{number}", wanted)
            assert backend.apply(OFFICE, command).status is SOLD_OUT
    here = cache.offices[OFFICE]
    assert here.snapshot is not None
    assert len(here.kinds) == 2
    assert set(here.snapshot[3]) == set(here.kinds)
    for office in ("second", "third"):
        backend.execute(ApplyMany(office, (*published(), SetCapacity(DAY, "online", 0))))
        for number in range(3):
            assert backend.apply(office, reserve(f"o{number}", ONLINE)).status is SOLD_OUT
    assert set(cache.offices) == {"second", "third"}
    assert cache.offices["second"].names is None
    assert cache.offices["third"].names is not None
    assert not cache.due_offices
    backend.close()


def test_threads(valkey_server: Server) -> None:
    """Eight threads and the real clock, places coming and going: nothing fails, and each thread's holder is known."""
    server_time = open_store(valkey_server.url, None)
    far = replace(terms(), opens_at_ms=0, starts_at_ms=2**42, ends_at_ms=2**42, forget_at_ms=2**42)
    server_time.execute(ApplyMany(OFFICE, (SetRules(Rules()), Publish(DAY, far))))
    problems: list[object] = []

    def press(thread: int) -> None:
        for number in range(300):
            mine = server_time.apply(OFFICE, reserve(f"t{thread}-{number}", ONLINE))
            if mine.status is Status.HELD:
                again = server_time.apply(OFFICE, reserve(f"t{thread}-{number}-2", ONLINE, f"t{thread}-{number}"))
                if not again.resumed:
                    problems.append(again)
                if number % 3 == 0:
                    server_time.apply(OFFICE, Release(f"t{thread}-{number}"))
            elif mine.status is not SOLD_OUT:
                problems.append(mine)

    threads = [threading.Thread(target=press, args=(number,)) for number in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert problems == []
    server_time.close()
