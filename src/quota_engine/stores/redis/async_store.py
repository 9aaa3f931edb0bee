"""The store, called from asyncio. Tasks that call at the same time share script calls."""

from __future__ import annotations

__all__ = ["AsyncRedisStore"]

import asyncio
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any, TypeVar

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import AuthenticationError, BusyLoadingError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from quota_engine.domain.commands import Reserve
from quota_engine.domain.errors import BackendUnavailable
from quota_engine.generators import drive_async
from quota_engine.ports import Clock, StoreObserver, StoreRequest
from quota_engine.stores.redis.batching import BATCH_QUEUES_MAX, BatchLimits, BatchQueue, copy_error
from quota_engine.stores.redis.executor import Executor, LedgerHandle
from quota_engine.stores.redis.observer_adapter import ObserverAdapter
from quota_engine.stores.redis.retrying_calls import (
    Attempt,
    Call,
    Node,
    NotSent,
    ReplyLost,
    RetryPause,
    RetryPolicy,
    Router,
)
from quota_engine.stores.redis.scripts import Script
from quota_engine.stores.redis.sold_out_cache import SoldOutCache

T = TypeVar("T")

_ANSWERED_AT_ONCE_MAX = 64
"""Answers from memory in a row before others in the loop get a turn: who is answered at once waits for nothing."""
_Way = tuple[LedgerHandle, Script]
"""A place and a script: what calls must have in common to travel together."""
_Waiting = tuple[Any, str, "asyncio.Future[Any]", Any]
"""A command, its line, who waits for the answer, and what an observer wants to have with it."""


class AsyncRedisStore:
    """A store in a Redis or Valkey server, for one event loop."""

    def __init__(
        self,
        pool: ConnectionPool,
        clock: Clock | None = None,
        *,
        limits: BatchLimits = BatchLimits(),  # noqa: B008 - immutable
        policy: RetryPolicy = RetryPolicy(),  # noqa: B008 - immutable
        namespace: str = "",
        router: Router = Router(),  # noqa: B008 - immutable
        pool_to: Callable[[Node], ConnectionPool] | None = None,
        on_close: Callable[[], None] | None = None,
        sold_out: SoldOutCache | None = None,
    ) -> None:
        """See :class:`quota_engine.stores.redis.sync_store.RedisStore`."""
        self._pools: dict[Node | None, ConnectionPool] = {None: pool}
        self._pool_to = pool_to
        self._on_close = on_close
        self._limits = limits
        self._sold_out_cache = sold_out or SoldOutCache(0)
        self._executor = Executor(clock, policy, namespace, router, self._sold_out_cache)
        self._observer: ObserverAdapter | None = None
        self._answered_at_once = 0
        self._queues: dict[_Way, BatchQueue[_Waiting]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._calls = 0
        self._ended = asyncio.Event()
        self._ended.set()
        self._closed = False

    def attach(self, observer: StoreObserver) -> None:
        """See :meth:`quota_engine.ports.Observable.watch`."""
        self._observer = ObserverAdapter(observer)

    async def apply(self, address: str, command: Any) -> Any:
        """See :meth:`quota_engine.ports.AsyncStore.send`. Calls that wait for others share their script call.

        Cancelling it while it waits for its turn leaves nothing; later, it leaves what the same id finds.
        """
        memory = self._sold_out_cache
        if type(command) is Reserve:
            known = memory.get(address, command)
            if known is not None:
                if memory.due_offices:
                    self._refresh()
                if self._observer is not None:
                    self._observer.on_sold_out(address)
                self._answered_at_once += 1
                if self._answered_at_once >= _ANSWERED_AT_ONCE_MAX:
                    self._answered_at_once = 0
                    await asyncio.sleep(0)
                return known
        try:
            outcome = await self._send(address, command)
        except BaseException:
            memory.record_unknown(address, command)
            raise
        memory.record_outcome(address, command, outcome)
        if memory.due_offices:
            self._refresh()
        return outcome

    async def execute(self, request: StoreRequest[T]) -> T:
        """See :meth:`quota_engine.ports.AsyncStore.perform`."""
        answer: T
        question = self._executor.question(request)
        self._begin()
        try:
            if question is not None:
                there = self._executor.handle(question[0])
                answer = await self._share(there, there.format.reads, question[1])
                return answer
            answer = await self._drive(self._executor.answer(request))
            return answer
        finally:
            self._end()

    async def _send(self, place: str, command: Any) -> Any:
        self._begin()
        try:
            if self._executor.must_register(place, command):
                await self._drive(self._executor.register(place, command))
            there = self._executor.handle(place)
            return await self._share(there, there.format.script_of(command), command)
        finally:
            self._end()

    async def _share(self, place: LedgerHandle, script: Script, command: Any) -> Any:
        """Let a command, or a question, travel with those that go the same way."""
        line = place.format.encode(command)
        way = place, script
        lane = self._lane(way)
        if lane.is_full():
            lane.drop_abandoned(_is_over)
            if lane.is_full():
                return self._executor.full(place, script)
        loop = asyncio.get_running_loop()
        mine: asyncio.Future[Any] = loop.create_future()
        lane.waiting.append((command, line, mine, None if self._observer is None else self._observer.on_enqueue()))
        if len(lane.waiting) == 1:
            # Those who call in the same turn of the loop come along; a lone call waits for nobody.
            loop.call_soon(self._set_out, way, lane)
        try:
            return await mine
        except asyncio.CancelledError:
            lane.has_abandoned = True
            raise

    async def check_server(self) -> None:
        """See that the server answers and is new enough. Raises :class:`BackendUnavailable` otherwise."""
        await self._drive(self._executor.check_server())

    async def close(self) -> None:
        """Wait for the calls that are under way, and close the connections. Later calls are refused."""
        self._closed = True
        self._sold_out_cache.close()
        await self._ended.wait()
        while self._tasks:  # the batches of calls that have been cancelled
            await asyncio.wait(self._tasks)
        for pool in list(self._pools.values()):
            await pool.disconnect()
        if self._on_close is not None:
            on_close, self._on_close = self._on_close, None
            await asyncio.to_thread(on_close)

    def _begin(self) -> None:
        if self._closed:
            raise BackendUnavailable("the engine has been closed")
        self._calls += 1
        self._ended.clear()

    def _end(self) -> None:
        self._calls -= 1
        if not self._calls:
            self._ended.set()

    def _refresh(self) -> None:
        """Have the sold-out memory of an office that is due refreshed, beside what else goes on."""
        office = self._sold_out_cache.due_offices.popleft()
        task = asyncio.get_running_loop().create_task(self._drive(self._executor.refresh(office)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _lane(self, way: _Way) -> BatchQueue[_Waiting]:
        lane = self._queues.get(way)
        if lane is None:
            if len(self._queues) >= BATCH_QUEUES_MAX:
                self._queues = {way: lane for way, lane in self._queues.items() if not lane.is_idle()}
            lane = self._queues[way] = BatchQueue(self._limits)
        return lane

    def _set_out(self, way: _Way, lane: BatchQueue[_Waiting]) -> None:
        while lane.can_send():
            batch = [one for one in lane.take_batch() if not one[2].done()]  # whoever has been cancelled stays behind
            if not batch:
                lane.batch_done()
                continue
            task = asyncio.get_running_loop().create_task(self._carry(way, lane, batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, way: _Way, lane: BatchQueue[_Waiting], batch: list[_Waiting]) -> None:
        """Send one batch, and give each caller its outcome."""
        place, script = way
        watch, failure = self._observer, None
        began_ns = 0 if watch is None else perf_counter_ns()
        try:
            lines = await self._drive(self._executor.run(script, place, [one[1] for one in batch]))
            outcome = self._executor.reader(place, script)
            for (command, _, caller, _), line in zip(batch, lines, strict=True):
                if not caller.done():
                    caller.set_result(outcome(command, line))
        except BaseException as error:
            failure = error
            for _, _, caller, _ in batch:
                if not caller.done():
                    caller.set_exception(copy_error(error, self._executor.lost(place, script)))
            if not isinstance(error, Exception):
                raise
        finally:
            if watch is not None:
                reads = script is place.format.reads
                watch.on_batch(place.address, began_ns, (one[3] for one in batch), failure, reads=reads)
            failure = None  # it knows this frame
            lane.batch_done()
            self._set_out(way, lane)

    async def _drive(self, call: Call[T]) -> T:
        """Run a call to its end and return its result."""
        return await drive_async(call, self._handle)

    async def _handle(self, step: Attempt | RetryPause) -> list[Any]:
        if isinstance(step, RetryPause):
            await asyncio.sleep(step.duration_ms / 1000)
            return []
        return await self._exchange(step)

    async def _exchange(self, attempt: Attempt) -> list[Any]:
        """Send requests on one connection, and take a reply for each, errors among them."""
        pool = self._pools.get(attempt.node)
        if pool is None:
            assert attempt.node is not None
            assert self._pool_to is not None
            pool = self._pools.setdefault(attempt.node, self._pool_to(attempt.node))
        try:
            connection = await pool.get_connection()
        except (AuthenticationError, BusyLoadingError):
            raise
        except (RedisConnectionError, RedisTimeoutError, OSError) as error:
            raise NotSent(str(error)) from error
        try:
            await connection.send_packed_command(connection.pack_commands(attempt.requests))
            return [await _reply(connection) for _ in attempt.requests]
        except (AuthenticationError, BusyLoadingError):
            await connection.disconnect()
            raise
        except (RedisError, OSError) as error:
            await connection.disconnect()
            raise ReplyLost(str(error)) from error
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        finally:
            await pool.release(connection)


def _is_over(waiting: _Waiting) -> bool:
    return waiting[2].done()


async def _reply(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error
