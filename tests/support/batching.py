"""Stores whose batches are counted, threads that call them, and what waits in them."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable

from redis.asyncio.connection import BlockingConnectionPool
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff

from quota_engine.clocks import ManualClock
from quota_engine.conformance.world import DAY, OFFICE, ONLINE, OPENS_AT_MS, published, reserve
from quota_engine.domain.commands import Command, Confirm, Release, Reserve, SetCapacity
from quota_engine.domain.outcomes import Outcome
from quota_engine.ports import ApplyMany, Store
from quota_engine.stores.batching import BatchLimits
from quota_engine.stores.redis.async_store import AsyncRedisStore
from quota_engine.stores.redis.retrying_calls import RetryPolicy
from quota_engine.stores.redis.sync_store import RedisStore
from tests.support.servers import Server

CLOCK = ManualClock(OPENS_AT_MS)
WAIT_S = 60.0
"""A longer wait is a deadlock."""
ONE_BY_ONE = BatchLimits(in_flight_max=1)
LONG_VALID = RetryPolicy(attempt_valid_ms=60_000)
"""For calls that wait for a paused server, however long a busy machine takes to let it continue."""


def batches(server: Server) -> list[int]:
    """Return the number of commands of each script call since the last query, oldest first."""
    entries = server.ask("SLOWLOG", "GET", "-1")
    server.ask("SLOWLOG", "RESET")
    sizes = []
    for entry in reversed(entries):
        words = [str(word) for word in entry["command"].split()] if isinstance(entry, dict) else entry[3]
        if words[0] not in ("EVALSHA", "EVAL", "FCALL"):
            continue
        more = re.search(r"\((\d+) more arguments\)", str(words[-1]))
        arguments = len(words) - 1 + int(more[1]) if more else len(words)
        sizes.append(arguments - 3 - int(words[2]) - 1)  # its name, the script, how many keys; the keys; the time
    return sizes


def script_calls(server: Server) -> int:
    """Return the number of scripts that the server has run, by its own count."""
    statistics = server.info("commandstats")
    return sum(statistics.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval", "fcall"))


class Opened:
    """Backends of one server, closed at the end of the test."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.backends: list[RedisStore] = []
        self.async_backends: list[AsyncRedisStore] = []

    def sync(self, limits: BatchLimits = BatchLimits(), policy: RetryPolicy = RetryPolicy()) -> RedisStore:  # noqa: B008 - immutable
        """A backend, in an office that has 300 places, and whose script is known and counted no more."""
        pool = self.server.client(socket_timeout=WAIT_S).connection_pool
        backend = RedisStore(pool, CLOCK, limits=limits, policy=policy)
        self.backends.append(backend)
        backend.execute(ApplyMany(OFFICE, (*published(), SetCapacity(DAY, "online", 300))))
        backend.apply(OFFICE, Release("nobody"))
        batches(self.server)
        return backend

    async def asyncio(
        self,
        limits: BatchLimits = BatchLimits(),  # noqa: B008
        policy: RetryPolicy = RetryPolicy(),  # noqa: B008
    ) -> AsyncRedisStore:
        """The same for asyncio; it has a connection already."""
        self.sync()
        pool = BlockingConnectionPool.from_url(
            self.server.url,
            decode_responses=True,
            socket_timeout=WAIT_S,
            max_connections=8,
            retry=AsyncRetry(NoBackoff(), 0),
        )
        backend = AsyncRedisStore(pool, CLOCK, limits=limits, policy=policy)
        self.async_backends.append(backend)
        await backend.apply(OFFICE, Confirm("nobody"))
        batches(self.server)
        return backend


class Caller(threading.Thread):
    """A thread that makes one call, and keeps its outcome or error."""

    def __init__(self, call: Callable[[], Outcome]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self.outcome: Outcome | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.outcome = self._call()
        except BaseException as error:
            self.error = error


def calling(backend: Store, *commands: Command) -> list[Caller]:
    """A thread for each command, started."""
    callers = [Caller(lambda command=command: backend.apply(OFFICE, command)) for command in commands]  # type: ignore[misc]
    for caller in callers:
        caller.start()
    return callers


def joined(callers: list[Caller]) -> bool:
    """Return True if all threads have ended in time."""
    deadline_s = time.monotonic() + WAIT_S
    for caller in callers:
        caller.join(max(deadline_s - time.monotonic(), 0))
    return not any(caller.is_alive() for caller in callers)


def waiting(backend: RedisStore | AsyncRedisStore) -> int:
    """Return the number of queued calls."""
    return sum(len(queue.waiting) for queue in backend._queues.values())


def in_flight(backend: RedisStore | AsyncRedisStore) -> int:
    """Return the number of batches in flight."""
    return sum(queue.in_flight for queue in backend._queues.values())


async def turns(number: int = 20) -> None:
    """Run this many iterations of the event loop. Everything that needs no input from outside is done then."""
    for _ in range(number):
        await asyncio.sleep(0)


def reserves(number: int, prefix: str = "k") -> list[Reserve]:
    return [reserve(f"{prefix}{index}", ONLINE) for index in range(number)]
