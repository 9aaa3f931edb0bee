"""Publishes the coming days: when the service starts, and each day from then on, however long it runs."""

from __future__ import annotations

__all__ = ["TICK_S", "DayKeeper"]

import asyncio
import contextlib
import datetime
import logging
from collections.abc import Callable
from typing import Final

from quota_engine.catalog import Catalog
from quota_engine.domain.errors import QuotaEngineError
from quota_engine.engine.quota_engine import AsyncQuotaEngine

TICK_S: Final = 60.0

_logger = logging.getLogger("quota_engine.service")


class DayKeeper:
    """Sees that the days from today on are known, ``days`` of them.

    Any number of processes may do the same: a day is published once, whoever comes first, and one that is known keeps
    the capacities that operators have set. What fails is logged, and tried again a minute later.
    """

    def __init__(self, engine: AsyncQuotaEngine, catalog: Catalog, days: int, now_ms: Callable[[], int]) -> None:
        self._engine = engine
        self._catalog = catalog
        self._days = days
        self._now_ms = now_ms
        self._last: datetime.date | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Publish now, and go on in a task."""
        await self.tick()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End the task."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def tick(self) -> None:
        """Publish the days that have come within reach since the last time."""
        today = datetime.datetime.fromtimestamp(self._now_ms() / 1_000, tz=datetime.UTC).date()
        last = today + datetime.timedelta(days=self._days - 1)
        if self._last is not None and last <= self._last:
            return
        first = today if self._last is None else max(today, self._last + datetime.timedelta(days=1))
        report = await self._engine.publish(self._catalog, first, last)
        self._last = last
        if report.days_published:
            _logger.info("published %d days of offices, to %s", report.days_published, last)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            try:
                await self.tick()
            except QuotaEngineError as error:
                _logger.warning("days to publish: %s", error)
            except Exception:  # whatever it was, the days after it must still be published
                _logger.exception("days to publish: it failed")
