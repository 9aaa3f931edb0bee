"""A task that repeats one step at a fixed interval for as long as the service runs."""

from __future__ import annotations

__all__ = ["PeriodicTask"]

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from quota_engine.domain.errors import QuotaEngineError

_logger = logging.getLogger("quota_engine.service")


class PeriodicTask:
    """Runs ``step`` once at the start and then every ``interval_s`` seconds.

    The first run's errors reach the caller of :meth:`start`. Later errors are logged under ``name``, and the next run
    tries again.
    """

    def __init__(self, name: str, step: Callable[[], Awaitable[None]], interval_s: float) -> None:
        self._name = name
        self._step = step
        self._interval_s = interval_s
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Run the step, then start the task."""
        await self._step()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Cancel the task and wait for its end."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self._step()
            except QuotaEngineError as error:
                _logger.warning("%s: %s", self._name, error)
            except Exception:  # an unexpected error must not end the task: later runs are still needed
                _logger.exception("%s failed", self._name)
