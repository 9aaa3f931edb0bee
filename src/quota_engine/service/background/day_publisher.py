"""Publishes the coming days when the service starts, and then each day as it comes within reach."""

from __future__ import annotations

__all__ = ["TICK_INTERVAL_S", "DayPublisher"]

import datetime
import logging
from collections.abc import Callable
from typing import Final

from quota_engine.catalog import Catalog
from quota_engine.engine.quota_engine import AsyncQuotaEngine
from quota_engine.service.background.periodic_task import PeriodicTask

TICK_INTERVAL_S: Final = 60.0

_logger = logging.getLogger("quota_engine.service")


class DayPublisher(PeriodicTask):
    """Keeps the next ``days`` days published, counted from today in UTC.

    Any number of processes may run one: publishing a day again changes nothing, and a published day keeps the
    capacities that operators have set.
    """

    def __init__(self, engine: AsyncQuotaEngine, catalog: Catalog, days: int, now_ms: Callable[[], int]) -> None:
        super().__init__("publishing days", self.tick, TICK_INTERVAL_S)
        self._engine = engine
        self._catalog = catalog
        self._days = days
        self._now_ms = now_ms
        self._published_to: datetime.date | None = None

    async def tick(self) -> None:
        """Publish the days that have come within reach since the last call."""
        today = datetime.datetime.fromtimestamp(self._now_ms() / 1_000, tz=datetime.UTC).date()
        last = today + datetime.timedelta(days=self._days - 1)
        if self._published_to is not None and last <= self._published_to:
            return
        first = today
        if self._published_to is not None:
            first = max(today, self._published_to + datetime.timedelta(days=1))
        report = await self._engine.publish(self._catalog, first, last)
        self._published_to = last
        if report.days_published:
            _logger.info("published %d office-days, up to %s", report.days_published, last)
