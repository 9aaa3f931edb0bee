"""An asyncio event loop on a virtual clock: if nothing can run, the clock jumps to the next timer.

Most of a simulation's time goes to callbacks and timers. So the loop has its own handles. Those of asyncio copy a
context and look for the debug mode each time.
"""

from __future__ import annotations

__all__ = ["VirtualLoop"]

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from heapq import heappop, heappush
from typing import Any


class _Handle(list[Any]):
    """A callback that waits for its turn, with the part of :class:`asyncio.TimerHandle` that asyncio uses.

    It has the time in seconds, the number of the timer, the callback and its arguments. A list is made and compared
    without a function of Python.
    """

    __slots__ = ()

    def cancel(self) -> None:
        self[2] = None
        self[3] = ()  # a timer that was cancelled stays in the heap until its time, its objects need not

    def cancelled(self) -> bool:
        return self[2] is None

    def when(self) -> float:
        when_s: float = self[0]
        return when_s


def _end_pause(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_result(None)


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs coroutines in a fixed order. It has no sockets and no threads, so nothing but its timers can wake it.

    All callbacks share the context of the code that runs the loop: nothing in a simulation needs another context.

    Attributes:
        now_s: the virtual time in seconds, from 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self._waiting: deque[_Handle] = deque()
        self._timers: list[_Handle] = []
        self._timers_made = 0
        self._context = contextvars.copy_context()

    get_debug = bool  # type: ignore[assignment]  # False: asyncio asks for each future and task

    def time(self) -> float:
        """Return the virtual time in seconds, from 0."""
        return self.now_s

    def now_ms(self) -> float:
        """Return the virtual time in milliseconds, from 0."""
        return self.now_s * 1000

    def call_soon(self, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:  # type: ignore[override]
        """See :meth:`asyncio.loop.call_soon`. The context is ignored."""
        handle = _Handle((self.now_s, 0, callback, args))
        self._waiting.append(handle)
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:  # type: ignore[override]
        """See :meth:`asyncio.loop.call_later`. The context is ignored."""
        self._timers_made = number = self._timers_made + 1
        handle = _Handle((self.now_s + delay, number, callback, args))
        heappush(self._timers, handle)
        return handle

    def call_at(self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:  # type: ignore[override]
        """See :meth:`asyncio.loop.call_at`. Timers of the same time fire in the order in which they were set."""
        self._timers_made = number = self._timers_made + 1
        handle = _Handle((when, number, callback, args))
        heappush(self._timers, handle)
        return handle

    def pause(self, delay_s: float) -> asyncio.Future[Any]:
        """Return a future that is done after a time; as :func:`asyncio.sleep`, without a coroutine."""
        future: asyncio.Future[Any] = asyncio.Future(loop=self)
        self.call_later(delay_s, _end_pause, future)
        return future

    def create_future(self) -> asyncio.Future[Any]:
        """See :meth:`asyncio.loop.create_future`."""
        return asyncio.Future(loop=self)

    def create_task(self, coro: Coroutine[Any, Any, Any], **options: Any) -> Any:  # type: ignore[override]
        """See :meth:`asyncio.loop.create_task`. Names and contexts are ignored."""
        return asyncio.Task(coro, loop=self, name="", context=self._context)  # asyncio would make a name

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        """Run a function at once, instead of in a thread."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def _run_once(self) -> None:
        """Run callbacks until the loop is stopped; if none waits, let the virtual time pass until the next timer.

        Raises:
            RuntimeError: No timer is set: every task waits for another one.
        """
        waiting, timers = self._waiting, self._timers
        while not self._stopping:  # type: ignore[attr-defined]
            if waiting:
                _, _, callback, arguments = waiting.popleft()
                if callback is None:
                    continue
            elif timers:
                when_s, _, callback, arguments = heappop(timers)
                if callback is None:
                    continue
                if when_s > self.now_s:
                    self.now_s = when_s
            else:
                raise RuntimeError("every task of the simulation waits, and no timer is set")
            try:
                callback(*arguments)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self.call_exception_handler({"message": f"exception in {callback}", "exception": error})

    def _process_events(self, event_list: Sequence[Any]) -> None:
        """Do nothing: there are no sockets."""

    def _write_to_self(self) -> None:
        """Do nothing: there are no other threads to wake the loop."""
