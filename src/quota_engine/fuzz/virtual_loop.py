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


class _Handle:
    """A callback that waits for its turn, with the part of :class:`asyncio.TimerHandle` that asyncio uses."""

    __slots__ = ("arguments", "callback", "when_s")

    def __init__(self, callback: Callable[..., Any], arguments: Sequence[Any], when_s: float) -> None:
        self.callback: Callable[..., Any] | None = callback
        self.arguments, self.when_s = arguments, when_s

    def cancel(self) -> None:
        self.callback = None
        self.arguments = ()  # a timer that was cancelled stays in the heap until its time, its objects need not

    def cancelled(self) -> bool:
        return self.callback is None

    def when(self) -> float:
        return self.when_s


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
        self._timers: list[tuple[float, int, _Handle]] = []
        self._timers_made = 0
        self._context = contextvars.copy_context()

    get_debug = bool  # False: asyncio asks for each future and task

    def time(self) -> float:
        """Return the virtual time in seconds, from 0."""
        return self.now_s

    def now_ms(self) -> float:
        """Return the virtual time in milliseconds, from 0."""
        return self.now_s * 1000

    def call_soon(self, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:  # type: ignore[override]
        """See :meth:`asyncio.loop.call_soon`. The context is ignored."""
        handle = _Handle(callback, args, self.now_s)
        self._waiting.append(handle)
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:  # type: ignore[override]
        """See :meth:`asyncio.loop.call_later`. The context is ignored."""
        when_s = self.now_s + delay
        handle = _Handle(callback, args, when_s)
        self._timers_made += 1
        heappush(self._timers, (when_s, self._timers_made, handle))
        return handle

    def call_at(self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:  # type: ignore[override]
        """See :meth:`asyncio.loop.call_at`. Timers of the same time fire in the order in which they were set."""
        handle = _Handle(callback, args, when)
        self._timers_made += 1
        heappush(self._timers, (when, self._timers_made, handle))
        return handle

    def pause(self, delay_s: float) -> asyncio.Future[Any]:
        """Return a future that is done after a time; as :func:`asyncio.sleep`, without a coroutine."""
        future: asyncio.Future[Any] = asyncio.Future(loop=self)
        when_s = self.now_s + delay_s
        self._timers_made += 1
        heappush(self._timers, (when_s, self._timers_made, _Handle(_end_pause, (future,), when_s)))
        return future

    def create_future(self) -> asyncio.Future[Any]:
        """See :meth:`asyncio.loop.create_future`."""
        return asyncio.Future(loop=self)

    def create_task(self, coro: Coroutine[Any, Any, Any], **options: Any) -> Any:  # type: ignore[override]
        """See :meth:`asyncio.loop.create_task`. Names and contexts are ignored."""
        return asyncio.Task(coro, loop=self, name="", context=self._context)

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
                handle = waiting.popleft()
            elif timers:
                when_s, _, handle = heappop(timers)
                if handle.callback is None:
                    continue
                if when_s > self.now_s:
                    self.now_s = when_s
            else:
                raise RuntimeError("every task of the simulation waits, and no timer is set")
            callback = handle.callback
            if callback is None:
                continue
            try:
                callback(*handle.arguments)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self.call_exception_handler({"message": f"exception in {callback}", "exception": error})

    def _process_events(self, event_list: Sequence[Any]) -> None:
        """Do nothing: there are no sockets."""

    def _write_to_self(self) -> None:
        """Do nothing: there are no other threads to wake the loop."""
