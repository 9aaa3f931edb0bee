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

    __slots__ = ("arguments", "callback", "context", "is_cancelled", "when_s")

    def __init__(
        self, callback: Callable[..., Any], arguments: Sequence[Any], context: contextvars.Context, when_s: float
    ) -> None:
        self.callback, self.arguments, self.context, self.when_s = callback, arguments, context, when_s
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True
        self.arguments = ()  # a timer that was cancelled stays in the heap until its time, its objects need not

    def cancelled(self) -> bool:
        return self.is_cancelled

    def when(self) -> float:
        return self.when_s


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs coroutines in a fixed order. It has no sockets and no threads, so nothing but its timers can wake it.

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

    def time(self) -> float:
        """Return the virtual time in seconds, from 0."""
        return self.now_s

    def now_ms(self) -> float:
        """Return the virtual time in milliseconds, from 0."""
        return self.now_s * 1000

    def call_soon(self, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:  # type: ignore[override]
        """See :meth:`asyncio.loop.call_soon`. Without a context, the loop's own is used."""
        handle = _Handle(callback, args, context or self._context, self.now_s)
        self._waiting.append(handle)
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:  # type: ignore[override]
        """See :meth:`asyncio.loop.call_later`."""
        return self.call_at(self.now_s + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:  # type: ignore[override]
        """See :meth:`asyncio.loop.call_at`. Timers of the same time fire in the order in which they were set."""
        handle = _Handle(callback, args, context or self._context, when)
        self._timers_made += 1
        heappush(self._timers, (when, self._timers_made, handle))
        return handle

    def create_task(self, coro: Coroutine[Any, Any, Any], **options: Any) -> Any:  # type: ignore[override]
        """See :meth:`asyncio.loop.create_task`. Names are ignored."""
        return asyncio.Task(coro, loop=self, context=options.get("context"))

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
            while not waiting:
                if not timers:
                    raise RuntimeError("every task of the simulation waits, and no timer is set")
                when_s, _, handle = heappop(timers)
                if not handle.is_cancelled:
                    if when_s > self.now_s:
                        self.now_s = when_s
                    waiting.append(handle)
            handle = waiting.popleft()
            if handle.is_cancelled:
                continue
            try:
                handle.context.run(handle.callback, *handle.arguments)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self.call_exception_handler({"message": f"exception in {handle.callback}", "exception": error})

    def _process_events(self, event_list: Sequence[Any]) -> None:
        """Do nothing: there are no sockets."""

    def _write_to_self(self) -> None:
        """Do nothing: there are no other threads to wake the loop."""
