"""Token buckets, sync and async, on the store in memory and on a server."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from quota_engine import AsyncTokenBuckets, BackendUnavailable, InvalidRequest, LimitLevel, TakeResult, TokenBuckets
from quota_engine.admission import BucketLevel, Limit, per_day, per_minute, per_second
from quota_engine.clocks import ManualClock
from tests.support.servers import Server, valkey_server_binary

START_MS = 1_700_000_000_000
KEY = b"a key for tests, and only them"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(valkey_server_binary()) as one:
        yield one


@pytest.fixture(params=["memory", "valkey"])
def url(request: pytest.FixtureRequest) -> str:
    """Each store, empty."""
    if request.param == "memory":
        return "memory://"
    server: Server = request.getfixturevalue("server")
    server.ask("FLUSHALL")
    return server.url


def opened(url: str, limits: Any, **more: Any) -> tuple[TokenBuckets, ManualClock]:
    clock = ManualClock(START_MS)
    return TokenBuckets.open(url, limits, identity_key=KEY, clock=clock, **more), clock


def test_one_limit(url: str) -> None:
    """Take until it is empty, look, wait, reset."""
    buckets, clock = opened(url, per_second(2, burst=3))
    with buckets:
        assert [buckets.take("203.0.113.7").ok for _ in range(4)] == [True, True, True, False]
        empty = {"": LimitLevel(3, 0, START_MS + 1500)}
        assert buckets.take("203.0.113.7") == TakeResult(False, "", START_MS + 500, levels=empty)
        assert buckets.take("203.0.113.8", cost=3).ok
        assert buckets.peek("203.0.113.7") == {"": BucketLevel(0, START_MS + 1500)}
        clock.advance_ms(500)
        assert buckets.take("203.0.113.7").ok
        assert buckets.reset("203.0.113.7") == 1
        assert buckets.peek("203.0.113.7") == {"": BucketLevel(3, 0)}


def test_several_limits_at_once(url: str) -> None:
    """All or nothing; the answer names the limit, and when all will do. Limits that are left out are not charged."""
    buckets, clock = opened(url, {"account": per_minute(2), "network": per_minute(1), "device": per_day(1)})
    with buckets:
        keys = {"network": "203.0.113.0/24", "account": "ani"}
        levels = {"account": LimitLevel(2, 1, START_MS + 30_000), "network": LimitLevel(1, 0, START_MS + 60_000)}
        assert buckets.take(keys) == TakeResult(True, levels=levels)
        assert buckets.take(keys) == TakeResult(False, "network", START_MS + 60_000, levels=levels)
        assert buckets.peek(keys) == {
            "account": BucketLevel(1, START_MS + 30_000),
            "network": BucketLevel(0, START_MS + 60_000),
        }
        assert buckets.take({"device": "ani"}).ok  # the same key is another bucket under another limit
        assert buckets.reset(keys) == 2
        clock.advance_ms(1)
        assert buckets.take(keys).ok


def test_processes_share_what_has_the_same_name(server: Server) -> None:
    """The store has the buckets, by name and key; another key or name makes others."""
    server.ask("FLUSHALL")
    first, _ = opened(server.url, per_day(1))
    second, _ = opened(server.url, per_day(1))
    other, _ = opened(server.url, per_day(1), name="other")
    with first, second, other:
        assert first.take("ani").ok
        assert not second.take("ani").ok
        assert other.take("ani").ok


@pytest.mark.parametrize("key", ["\x00\n\t|:,{}~/", "é\u2028\ud800", "~", "a" * 1024, " ", "k\tk"])
def test_any_string_is_a_key(url: str, key: str) -> None:
    """Keys may be what users typed: they are hashed, and no character of them means anything."""
    buckets, _ = opened(url, per_day(1))
    with buckets:
        assert buckets.take(key).ok
        assert not buckets.take(key).ok
        assert buckets.take(key[1:] + "x").ok


@pytest.mark.parametrize(
    ("limits", "keys", "cost"),
    [
        (per_day(1), "", 1),
        (per_day(1), "a" * 1025, 1),
        (per_day(1), 7, 1),
        (per_day(1), {"a": "b"}, 1),
        (per_day(1), "ani", 0),
        (per_day(1), "ani", 2),
        (per_day(1), "ani", True),
        ({"a": per_day(1)}, "ani", 1),
        ({"a": per_day(1)}, {}, 1),
        ({"a": per_day(1)}, {"b": "ani"}, 1),
        ({"a": per_day(1)}, {"a": 7}, 1),
    ],
)
def test_bad_calls(url: str, limits: Any, keys: Any, cost: Any) -> None:
    """Told at once, without the key, and nothing is taken."""
    buckets, _ = opened(url, limits)
    with buckets:
        with pytest.raises(InvalidRequest) as caught:
            buckets.take(keys, cost)
        assert "ani" not in str(caught.value)


@pytest.mark.parametrize(
    ("limits", "more"),
    [
        ("limit", {}),
        ({}, {}),
        ({"a b": per_day(1)}, {}),
        ({"a": "b"}, {}),
        (per_day(1), {"name": "a.b"}),
        (per_day(1), {"identity_key": b"short"}),
    ],
)
def test_open_rejects_invalid_limits(limits: Any, more: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        TokenBuckets.open("memory://", limits, **more)


def test_a_shared_store_requires_an_identity_key() -> None:
    """Without it, every process would have separate buckets."""
    with pytest.raises(InvalidRequest, match="identity_key"):
        TokenBuckets.open("redis://127.0.0.1:1", per_day(1))
    with TokenBuckets.open("memory://", per_day(1)) as buckets:
        assert buckets.take("ani").ok


async def test_the_async_face(url: str) -> None:
    """The same, awaited; many at once get what the bucket has, and no more."""
    clock = ManualClock(START_MS)
    async with await AsyncTokenBuckets.open(url, per_second(100, burst=10), identity_key=KEY, clock=clock) as buckets:
        answers = await asyncio.gather(*(buckets.take("ani") for _ in range(40)))
        assert sum(answer.ok for answer in answers) == 10
        assert await buckets.peek("ani") == {"": BucketLevel(0, START_MS + 100)}
        assert await buckets.reset("ani") == 1
        assert (await buckets.take("ani", 10)).ok


@pytest.mark.store
@pytest.mark.parametrize("admit", [False, True])
async def test_an_outage_raises_unless_it_admits(admit: bool) -> None:
    """With admit_in_outage, the result says that it is unchecked."""
    with Server(valkey_server_binary()) as server:
        url = f"{server.url}?attempts_max=1"
        buckets = TokenBuckets.open(url, per_day(1), identity_key=KEY, admit_in_outage=admit)
        also = await AsyncTokenBuckets.open(url, per_day(1), identity_key=KEY, admit_in_outage=admit)
        assert buckets.take("ani").ok
        server.kill()
        if admit:
            assert buckets.take("ani") == await also.take("ani") == TakeResult(True, unchecked=True)
        else:
            with pytest.raises(BackendUnavailable):
                buckets.take("ani")
            with pytest.raises(BackendUnavailable):
                await also.take("ani")
        with pytest.raises(BackendUnavailable):
            buckets.peek("ani")
        buckets.close()
        await also.close()


def test_the_async_class_has_the_same_signatures() -> None:
    def methods(kind: type) -> dict[str, str]:
        return {
            name: str(inspect.signature(member)).replace("Async", "")
            for name, member in inspect.getmembers(kind, callable)
            if not name.startswith("_")
        }

    assert methods(TokenBuckets) == methods(AsyncTokenBuckets)
    assert per_minute(1) == Limit(1, 60_000, 1)
