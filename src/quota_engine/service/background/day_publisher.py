"""Publishes the coming days when the service starts, and then each day as it comes within reach."""

from __future__ import annotations

__all__ = ["TICK_INTERVAL_S", "DayPublisher"]

import asyncio
import datetime
import logging
from collections import defaultdict
from collections.abc import Callable
from typing import Final

from quota_engine.catalog import Catalog, last_day_to_publish
from quota_engine.domain.errors import BackendUnavailable, JobTimeout, OutcomeUnknown
from quota_engine.engine.quota_engine import AsyncQuotaEngine
from quota_engine.service.background.periodic_task import PeriodicTask
from quota_engine.workflows.day_workflows import DAYS_MAX

TICK_INTERVAL_S: Final = 60.0
_HOUR_MS: Final = 3_600_000
_QUIET_MS: Final = 3 * _HOUR_MS
"""Time after an opening in which the days of the following release are not published, because people book then."""
_RELEASE_INTERVAL_MS_MIN: Final = 22 * _HOUR_MS
"""Releases of an office are at least one date apart: 24 hours, or less when clocks go forward."""
_FAILURES_MAX: Final = 3
"""Offices that may fail before a call gives up: each of them may have waited for the store as long as a call may."""
_ONE_DAY: Final = datetime.timedelta(days=1)

_logger = logging.getLogger("quota_engine.service")


class DayPublisher(PeriodicTask):
    """Keeps the next ``days`` days of each office published, counted from its local date, and its next release.

    A release is published before people can join its waiting room, so that all of its days open at once. Any number of
    processes may run a publisher: publishing a day again changes nothing, and a published day keeps the capacities that
    operators have set.
    """

    def __init__(
        self,
        engine: AsyncQuotaEngine,
        catalog: Catalog,
        days: int,
        now_ms: Callable[[], int],
        *,
        join_opens_before_ms: int = 0,
    ) -> None:
        """
        Args:
            days: days to keep published in any case, 1 or more.
            join_opens_before_ms: how long before an opening people can join its waiting room, in milliseconds.
        """
        super().__init__("publishing days", self.tick, TICK_INTERVAL_S)
        self._engine = engine
        self._catalog = catalog
        self._days = days
        self._now_ms = now_ms
        # A room exists from the opening before its own on, so that a longer time to join changes nothing.
        until_join_ms = max(0, _RELEASE_INTERVAL_MS_MIN - join_opens_before_ms)
        self._quiet_ms = min(_QUIET_MS, until_join_ms - _HOUR_MS)  # an hour early, because a tick checks each hour once
        self._published_to: dict[str, datetime.date] = {}
        self._checked_hour: int | None = None
        self._failing: dict[str, BackendUnavailable | OutcomeUnknown] = {}
        """Offices that the last call could not publish. The next call tries them after all other offices."""

    def use(self, catalog: Catalog) -> None:
        """Publish by another catalog from now on: all days within reach at the next tick."""
        self._catalog = catalog
        self._published_to.clear()
        self._checked_hour = None

    async def tick(self) -> None:
        """Publish the days that have come within reach since the last call."""
        now_ms = self._now_ms()
        hour = now_ms // _HOUR_MS
        if hour == self._checked_hour:
            return
        failed_before = self._failing
        offices: dict[tuple[datetime.date, datetime.date], list[str]] = defaultdict(list)
        for office in self._catalog.offices:
            for days in self._list_due(office, now_ms):
                offices[days].append(office)
            await asyncio.sleep(0)  # a catalog has up to 10,000 offices, and requests must not wait for all of them
        self._failing = {}
        attempted = 0
        for (first, last), names in sorted(offices.items()):
            attempted += len(names)
            possible = [office for office in names if office not in self._failing]  # an earlier range of it failed
            await self._publish(first, last, sorted(possible, key=failed_before.__contains__))
        for office, error in self._failing.items():
            if len(self._failing) == attempted:
                raise error
            _logger.warning("publishing days of %s: %s", office, error)
        if not self._failing:
            self._checked_hour = hour

    async def _publish(self, first: datetime.date, last: datetime.date, offices: list[str]) -> None:
        """Publish a range of days, or note which offices fail. An office may be closed after a failover, for example.

        Raises:
            BackendUnavailable, OutcomeUnknown: several offices fail, so that the store may be unavailable.
        """
        try:
            report = await self._engine.publish(self._catalog, first, last, offices=offices)
        except JobTimeout as error:
            left = error.resume_with.get("offices", offices)
            if len(left) == len(offices):
                raise
            for office in offices[: len(offices) - len(left)]:
                self._published_to[office] = last
            await self._publish(first, last, left)
            return
        except (BackendUnavailable, OutcomeUnknown) as error:
            if len(offices) == 1:
                self._failing[offices[0]] = error
                if len(self._failing) >= _FAILURES_MAX:
                    raise
                return
            for office in offices:
                await self._publish(first, last, [office])
            return
        for office in offices:
            self._published_to[office] = last
        if report.days_published:
            _logger.info("published %d office-days, up to %s", report.days_published, last)
        if report.days_closed or report.quotas_removed or report.overbooked or report.days_refused:
            _logger.warning(
                "the catalog has changed: %d published days closed, %d quotas removed, %d units overbooked, "
                "%d days refused, %d people affected",
                report.days_closed,
                report.quotas_removed,
                report.overbooked,
                report.days_refused,
                report.people_affected,
            )
        for problem in report.problems:
            _logger.error("publishing days: %s", problem)

    def _list_due(self, office: str, now_ms: int) -> list[tuple[datetime.date, datetime.date]]:
        """Return the ranges of days of an office that are not published yet, in ascending order."""
        zone = self._catalog.offices[office].zone
        first = datetime.datetime.fromtimestamp(now_ms / 1_000, tz=zone).date()
        release_end = last_day_to_publish(self._catalog, office, now_ms - self._quiet_ms, 1)
        last = max(first + (self._days - 1) * _ONE_DAY, release_end)
        if office in self._published_to:
            first = max(first, self._published_to[office] + _ONE_DAY)
        ranges: list[tuple[datetime.date, datetime.date]] = []
        while first <= last:
            end = min(last, first + (DAYS_MAX - 1) * _ONE_DAY)
            ranges.append((first, end))
            first = end + _ONE_DAY
        return ranges
