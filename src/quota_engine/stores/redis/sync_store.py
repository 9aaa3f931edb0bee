"""The store, called synchronously. Threads that call at the same time share script calls."""

from __future__ import annotations

__all__ = ["RedisStore"]

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from time import perf_counter_ns
from typing import Any, Final, TypeVar, cast

from redis.connection import Connection, ConnectionPool
from redis.exceptions import AuthenticationError, BusyLoadingError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from quota_engine.domain.commands import Command, Reserve
from quota_engine.domain.errors import BackendUnavailable
from quota_engine.domain.outcomes import Outcome
from quota_engine.ports import Apply, Clock, StoreObserver, StoreRequest
from quota_engine.stores.redis.batching import LANES_MAX, BatchLimits, Lane, told
from quota_engine.stores.redis.executor import Place, Worker
from quota_engine.stores.redis.observer_adapter import Watch
from quota_engine.stores.redis.retrying_calls import Attempt, Call, Lost, Node, NotSent, Pause, RetryPolicy, Router
from quota_engine.stores.redis.scripts import Script
from quota_engine.stores.redis.sold_out_cache import SoldOut

T = TypeVar("T")

_Way = tuple[Place, Script]
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
        sold_out: SoldOut | None = None,
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
        self._sold_out = sold_out or SoldOut(0)
        self._worker = Worker(clock, policy, namespace, router, self._sold_out)
        self._watch: Watch | None = None
        self._lanes: dict[_Way, Lane[_Waiting]] = {}
        self._lock = threading.Lock()
        self._ended = threading.Condition(self._lock)
        self._calls = 0
        self._closed = False

    def attach(self, observer: StoreObserver) -> None:
        """See :meth:`quota_engine.ports.Observable.watch`."""
        self._watch = Watch(observer)

    def apply(self, office: str, command: Command) -> Outcome:
        """See :meth:`quota_engine.ports.Backend.send`. Calls that wait for others share their script call."""
        memory = self._sold_out
        if type(command) is Reserve:
            known = memory.answer(office, command)
            if known is not None:
                if memory.due:
                    self._refresh()
                if self._watch is not None:
                    self._watch.sold_out(office)
                return known
        try:
            outcome: Outcome = self._send(office, command)
        except BaseException:
            memory.lost(office, command)
            raise
        memory.saw(office, command, outcome)
        if memory.due:
            self._refresh()
        return outcome

    def execute(self, request: StoreRequest[T]) -> T:
        """See :meth:`quota_engine.ports.Backend.perform`."""
        answer: T
        if isinstance(request, Apply):
            answer = cast("T", self.apply(request.address, request.command))
            return answer
        question = self._worker.question(request)
        with self._call():
            if question is not None:
                there = self._worker.place(question[0])
                answer = self._share(there, there.kind.reads, question[1])
                return answer
            answer = self._drive(self._worker.answer(request))
            return answer

    def _send(self, place: str, command: Any) -> Any:
        with self._call():
            if self._worker.must_register(place, command):
                self._drive(self._worker.register(place, command))
            there = self._worker.place(place)
            return self._share(there, there.kind.script_of(command), command)

    def _share(self, place: Place, script: Script, command: Any) -> Any:
        """Let a command, or a question, travel with those that go the same way."""
        mine = _Waiting(command, place.kind.encode(command), None if self._watch is None else self._watch.call())
        way = place, script
        with self._lock:
            lane = self._lane(way)
            if lane.is_full():
                return self._worker.full(place, script)
            lane.waiting.append(mine)
        try:
            self._see_through(way, lane, mine)
        except BaseException:
            # Interrupted while it waited, perhaps just as it had been woken up to carry a batch: pass that on.
            with self._lock:
                if mine in lane.waiting:
                    lane.waiting.remove(mine)
                heir = lane.waiting[0] if lane.may_go() else None
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
        self._drive(self._worker.check_server())

    def close(self) -> None:
        """Wait for the calls that are under way, and close the connections. Later calls are refused."""
        with self._lock:
            self._closed = True
        self._sold_out.close()
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
            office = self._sold_out.due.popleft()
            with self._call():
                self._drive(self._worker.refresh(office))

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

    def _lane(self, way: _Way) -> Lane[_Waiting]:
        lane = self._lanes.get(way)
        if lane is None:
            if len(self._lanes) >= LANES_MAX:
                self._lanes = {way: lane for way, lane in self._lanes.items() if not lane.is_idle()}
            lane = self._lanes[way] = Lane(self._limits)
        return lane

    def _see_through(self, way: _Way, lane: Lane[_Waiting], mine: _Waiting) -> None:
        """Carry batches, or wait for others to, until ``mine`` is done."""
        while not mine.is_done():
            with self._lock:
                batch = lane.set_out() if lane.may_go() else None
                mine.woken.clear()
            if batch is not None:
                self._carry(way, lane, batch, mine)
            elif not mine.is_done():
                mine.woken.wait()

    def _carry(self, way: _Way, lane: Lane[_Waiting], batch: list[_Waiting], mine: _Waiting) -> None:
        """Send one batch and wake up those whose calls were in it, and the first who still waits: to carry the next."""
        place, script = way
        watch, failure = self._watch, None
        began_ns = 0 if watch is None else perf_counter_ns()
        try:
            lines = self._drive(self._worker.run(script, place, [one.line for one in batch]))
            outcome = self._worker.reader(place, script)
            for one, line in zip(batch, lines, strict=True):
                one.outcome = outcome(one.command, line)
        except BaseException as error:
            failure = error
            for one in batch:
                if one.outcome is _PENDING:
                    one.error = error if one is mine else told(error, self._worker.lost(place, script))
            if mine not in batch and not isinstance(error, Exception):
                raise  # an interrupt is for this thread, whosever calls it carried
        finally:
            with self._lock:
                lane.arrived()
                heir = lane.waiting[0] if lane.may_go() else None
            for one in batch:
                one.woken.set()
            if heir is not None:
                heir.woken.set()
            if watch is not None:
                reads = script is place.kind.reads
                watch.batch(place.name, began_ns, (one.mark for one in batch), failure, reads=reads)
            failure = None  # it knows this frame

    def _drive(self, steps: Call[T]) -> T:
        """Run a call to its end, and return what it returns."""
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    time.sleep(step.duration_ms / 1000)
                    step = steps.send([])
                    continue
                try:
                    replies = self._exchange(step)
                except (NotSent, Lost, RedisError) as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(replies)
        except StopIteration as end:
            value: T = end.value
            return value
        finally:
            steps.close()  # given up half way, it lets go of what it holds now, not when it is collected

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
            raise Lost(str(error)) from error
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
