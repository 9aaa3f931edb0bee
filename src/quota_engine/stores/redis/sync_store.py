"""The store, called synchronously. Threads that call at the same time share script calls."""

from __future__ import annotations

__all__ = ["RedisStore"]

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from time import perf_counter_ns
from typing import Any, Final, TypeVar

from redis.connection import Connection, ConnectionPool
from redis.exceptions import AuthenticationError, BusyLoadingError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from quota_engine.domain.commands import Reserve
from quota_engine.domain.errors import BackendUnavailable
from quota_engine.generators import drive
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

_Way = tuple[LedgerHandle, Script]
"""A place and a script: what calls must have in common to travel together."""
_PENDING: Final = object()
"""What stands in the place of an answer that has not come; ``None`` is one."""


class _Waiting:
    """One thread's call. It sleeps until it has its outcome, or until it is its turn to carry a batch."""

    __slots__ = ("command", "error", "line", "mark", "outcome", "woken")

    def __init__(self, command: Any, line: str, mark: Any) -> None:
        self.command = command
        self.line = line
        self.mark = mark
        self.woken = threading.Event()
        self.outcome: Any = _PENDING
        self.error: BaseException | None = None

    def is_done(self) -> bool:
        return self.outcome is not _PENDING or self.error is not None


class RedisStore:
    """A store in a Redis or Valkey server. Safe to use from several threads."""

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
        """``pool``: connections that decode responses and do not retry. ``clock`` ``None`` is the server's time.

        With a ``router`` goes ``pool_to``, which makes such connections to the nodes that it names; ``pool`` is unused
        then. ``namespace`` stands in front of all keys. ``on_close`` is called once the connections are closed, to end
        what was started for this backend alone. ``sold_out`` remembers what is sold out; without, nothing does.
        """
        self._pools: dict[Node | None, ConnectionPool] = {None: pool}
        self._pool_to = pool_to
        self._on_close = on_close
        self._limits = limits
        self._sold_out_cache = sold_out or SoldOutCache(0)
        self._executor = Executor(clock, policy, namespace, router, self._sold_out_cache)
        self._observer: ObserverAdapter | None = None
        self._queues: dict[_Way, BatchQueue[_Waiting]] = {}
        self._lock = threading.Lock()
        self._ended = threading.Condition(self._lock)
        self._calls = 0
        self._closed = False

    def attach(self, observer: StoreObserver) -> None:
        """See :meth:`quota_engine.ports.Observable.watch`."""
        self._observer = ObserverAdapter(observer)

    def apply(self, address: str, command: Any) -> Any:
        """See :meth:`quota_engine.ports.Backend.send`. Calls that wait for others share their script call."""
        memory = self._sold_out_cache
        if type(command) is Reserve:
            known = memory.get(address, command)
            if known is not None:
                if memory.due_offices:
                    self._refresh()
                if self._observer is not None:
                    self._observer.on_sold_out(address)
                return known
        try:
            outcome = self._send(address, command)
        except BaseException:
            memory.record_unknown(address, command)
            raise
        memory.record_outcome(address, command, outcome)
        if memory.due_offices:
            self._refresh()
        return outcome

    def execute(self, request: StoreRequest[T]) -> T:
        """See :meth:`quota_engine.ports.Backend.perform`."""
        answer: T
        question = self._executor.question(request)
        with self._call():
            if question is not None:
                there = self._executor.handle(question[0])
                answer = self._share(there, there.format.reads, question[1])
                return answer
            answer = self._drive(self._executor.answer(request))
            return answer

    def _send(self, place: str, command: Any) -> Any:
        with self._call():
            if self._executor.must_register(place, command):
                self._drive(self._executor.register(place, command))
            there = self._executor.handle(place)
            return self._share(there, there.format.script_of(command), command)

    def _share(self, place: LedgerHandle, script: Script, command: Any) -> Any:
        """Let a command, or a question, travel with those that go the same way."""
        mine = _Waiting(
            command, place.format.encode(command), None if self._observer is None else self._observer.on_enqueue()
        )
        way = place, script
        with self._lock:
            lane = self._lane(way)
            if lane.is_full():
                return self._executor.full(place, script)
            lane.waiting.append(mine)
        try:
            self._see_through(way, lane, mine)
        except BaseException:
            # Interrupted while it waited, perhaps just as it had been woken up to carry a batch: pass that on.
            with self._lock:
                if mine in lane.waiting:
                    lane.waiting.remove(mine)
                heir = lane.waiting[0] if lane.can_send() else None
            if heir is not None:
                heir.woken.set()
            raise
        if mine.error is not None:
            raise mine.error
        return mine.outcome

    def check_server(self) -> None:
        """See that the server answers and is new enough.

        Raises:
            BackendUnavailable: it does not, or is not.
        """
        self._drive(self._executor.check_server())

    def close(self) -> None:
        """Wait for the calls that are under way, and close the connections. Later calls are refused."""
        with self._lock:
            self._closed = True
        self._sold_out_cache.close()
        with self._lock:
            self._ended.wait_for(lambda: not self._calls)
        for pool in list(self._pools.values()):
            pool.disconnect()
        if self._on_close is not None:
            on_close, self._on_close = self._on_close, None
            on_close()

    def _refresh(self) -> None:
        """Refresh the sold-out memory of an office that is due. Other threads go on with what it knows meanwhile."""
        with contextlib.suppress(IndexError, BackendUnavailable):  # another thread was quicker; closed just now
            office = self._sold_out_cache.due_offices.popleft()
            with self._call():
                self._drive(self._executor.refresh(office))

    @contextlib.contextmanager
    def _call(self) -> Iterator[None]:
        with self._lock:
            if self._closed:
                raise BackendUnavailable("the engine has been closed")
            self._calls += 1
        try:
            yield
        finally:
            with self._lock:
                self._calls -= 1
                self._ended.notify_all()

    def _lane(self, way: _Way) -> BatchQueue[_Waiting]:
        lane = self._queues.get(way)
        if lane is None:
            if len(self._queues) >= BATCH_QUEUES_MAX:
                self._queues = {way: lane for way, lane in self._queues.items() if not lane.is_idle()}
            lane = self._queues[way] = BatchQueue(self._limits)
        return lane

    def _see_through(self, way: _Way, lane: BatchQueue[_Waiting], mine: _Waiting) -> None:
        """Carry batches, or wait for others to, until ``mine`` is done."""
        while not mine.is_done():
            with self._lock:
                batch = lane.take_batch() if lane.can_send() else None
                mine.woken.clear()
            if batch is not None:
                self._carry(way, lane, batch, mine)
            elif not mine.is_done():
                mine.woken.wait()

    def _carry(self, way: _Way, lane: BatchQueue[_Waiting], batch: list[_Waiting], mine: _Waiting) -> None:
        """Send one batch and wake up those whose calls were in it, and the first who still waits: to carry the next."""
        place, script = way
        watch, failure = self._observer, None
        began_ns = 0 if watch is None else perf_counter_ns()
        try:
            lines = self._drive(self._executor.run(script, place, [one.line for one in batch]))
            outcome = self._executor.reader(place, script)
            for one, line in zip(batch, lines, strict=True):
                one.outcome = outcome(one.command, line)
        except BaseException as error:
            failure = error
            for one in batch:
                if one.outcome is _PENDING:
                    one.error = error if one is mine else copy_error(error, self._executor.lost(place, script))
            if mine not in batch and not isinstance(error, Exception):
                raise  # an interrupt is for this thread, whosever calls it carried
        finally:
            with self._lock:
                lane.batch_done()
                heir = lane.waiting[0] if lane.can_send() else None
            for one in batch:
                one.woken.set()
            if heir is not None:
                heir.woken.set()
            if watch is not None:
                reads = script is place.format.reads
                watch.on_batch(place.address, began_ns, (one.mark for one in batch), failure, reads=reads)
            failure = None  # it knows this frame

    def _drive(self, call: Call[T]) -> T:
        """Run a call to its end and return its result."""
        return drive(call, self._handle)

    def _handle(self, step: Attempt | RetryPause) -> list[Any]:
        if isinstance(step, RetryPause):
            time.sleep(step.duration_ms / 1000)
            return []
        return self._exchange(step)

    def _exchange(self, attempt: Attempt) -> list[Any]:
        """Send requests on one connection, and take a reply for each, errors among them."""
        pool = self._pools.get(attempt.node)
        if pool is None:
            assert attempt.node is not None
            assert self._pool_to is not None
            pool = self._pools.setdefault(attempt.node, self._pool_to(attempt.node))
        try:
            connection = pool.get_connection()
        except (AuthenticationError, BusyLoadingError):
            raise
        except (RedisConnectionError, RedisTimeoutError, OSError) as error:
            raise NotSent(str(error)) from error
        try:
            connection.send_packed_command(connection.pack_commands(attempt.requests))
            return [_reply(connection) for _ in attempt.requests]
        except (AuthenticationError, BusyLoadingError):
            connection.disconnect()
            raise
        except (RedisError, OSError) as error:
            connection.disconnect()
            raise ReplyLost(str(error)) from error
        except BaseException:
            connection.disconnect()
            raise
        finally:
            pool.release(connection)


def _reply(connection: Connection) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        return error
