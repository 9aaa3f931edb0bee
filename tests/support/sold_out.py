"""A store with a cache of what is sold out, and one without beside it, for tests of the cache."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from quota_engine.clocks import ManualClock
from quota_engine.conformance.world import OFFICE, ONLINE, OPENS_AT_MS, published, reserve
from quota_engine.domain.commands import Command
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.stores.memory import MemoryStore
from quota_engine.stores.redis.async_store import AsyncRedisStore
from quota_engine.stores.redis.factory import open_store
from quota_engine.stores.redis.sold_out_cache import SoldOutCache
from quota_engine.stores.redis.sync_store import RedisStore
from tests.support.servers import Server

BOUND_MS = 250
ON = f"?sold_out_ms={BOUND_MS}"
SOLD_OUT = Status.SOLD_OUT


class Scene:
    """A store, its clock, and stores with a cache; ``machine`` gets the same commands and has no cache."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.clock = ManualClock(OPENS_AT_MS)
        self.machine = MemoryStore(self.clock)
        self.opened: list[RedisStore] = []
        self._strangers = 0

    def open(self, options: str = ON) -> RedisStore:
        """One more process."""
        self.opened.append(open_store(self.server.url + options, self.clock))
        return self.opened[-1]

    def set_up(self, *commands: Command) -> RedisStore:
        """The first process, which publishes the office, gives these commands, and sells both places on line."""
        backend = self.open()
        for command in (*published(), *commands, reserve("ani", ONLINE), reserve("budi", ONLINE)):
            self.both(backend, command)
        return backend

    def both(self, backend: RedisStore, command: Command) -> Outcome:
        """Return the outcome of the store, after comparing it with that of the state machine."""
        outcome: Outcome = backend.apply(OFFICE, command)
        assert outcome == self.machine.apply(OFFICE, command)
        return outcome

    def stranger(self, backend: RedisStore, wanted: Any = ONLINE, **more: Any) -> Outcome:
        """Reserve for an unknown applicant."""
        self._strangers += 1
        outcome: Outcome = backend.apply(OFFICE, reserve(f"s{self._strangers}", wanted, **more))
        return outcome

    def rush(self, backend: RedisStore) -> None:
        """Two who find that all is gone: from then on there is a memory of it."""
        assert [self.stranger(backend).status for _ in range(2)] == [SOLD_OUT, SOLD_OUT]
        assert self.calls(lambda: self.stranger(backend)) == 0

    def calls(self, what: Callable[[], object]) -> int:
        """Return the number of scripts that the server runs for a call."""
        before = self._scripts()
        what()
        return self._scripts() - before

    def _scripts(self) -> int:
        statistics = self.server.info("commandstats")
        return sum(statistics.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval", "fcall"))


def cache_of(backend: RedisStore) -> SoldOutCache:
    return backend._sold_out_cache


async def run_losers(clock: ManualClock, lose: Callable[[str], Awaitable[None]]) -> tuple[int, int]:
    """Let 100 tasks lose 150 times each, and as often again when a refresh is due.

    Args:
        clock: The clock of the store.
        lose: Makes one call, whose key and identity are the argument.

    Returns:
        The most outcomes in one iteration of the loop, and the most by which two tasks differed.
    """
    answered = [0] * 100
    outcomes_max = difference_max = 0

    async def run(loser: int, first: int) -> None:
        for number in range(first, first + 150):
            await lose(f"b{loser}-{number}")
            answered[loser] += 1

    async def watch() -> None:
        nonlocal outcomes_max, difference_max
        while True:
            before = sum(answered)
            await asyncio.sleep(0)
            outcomes_max = max(outcomes_max, sum(answered) - before)
            difference_max = max(difference_max, max(answered) - min(answered))

    watching = asyncio.create_task(watch())
    for first in (0, 150):
        await asyncio.gather(*(run(loser, first) for loser in range(len(answered))))
        clock.advance_ms(200)
    watching.cancel()
    return outcomes_max, difference_max


async def settled(backend: AsyncRedisStore) -> None:
    """Wait until no task and no write is in flight."""
    while backend._tasks or backend._calls:
        await asyncio.sleep(0)
