"""Metrics about days open for booking and their waiting rooms, read from the store.

Every worker would read the same values, so they are not added up. The store is read only when metrics are requested,
and at most once in :data:`COLLECT_INTERVAL_S`, however many clients request them.
"""

from __future__ import annotations

__all__ = ["COLLECT_INTERVAL_S", "HOLD_AGES_S", "StoreCollector"]

import asyncio
import datetime
import itertools
import logging
import time
from collections.abc import Callable
from typing import Final

from quota_engine.catalog import Catalog, get_office
from quota_engine.domain.errors import InvalidRequest, QuotaEngineError
from quota_engine.engine.quota_engine import AsyncQuotaEngine
from quota_engine.service.observability.metric_families import Sample

COLLECT_INTERVAL_S: Final = 10.0
COLLECT_TIMEOUT_S: Final = 3.0
"""Time after which a collection is given up, because the client that requested the metrics has a timeout too."""
OFFICES_MAX: Final = 256
DAYS_MAX: Final = 31
HOLD_AGES_S: Final = (0, 60, 300, 600, 900, 1800, 3600, 7200)
_CONCURRENT_OFFICES: Final = 8

_logger = logging.getLogger("quota_engine.service")


class StoreCollector:
    """Reads the metrics and caches them for :data:`COLLECT_INTERVAL_S`."""

    def __init__(
        self,
        engine: AsyncQuotaEngine,
        catalog: Catalog,
        now_ms: Callable[[], int],
        current_room: Callable[[str], str | None],
    ) -> None:
        """``current_room`` returns the id of an office's running or next waiting room, or ``None``."""
        self._engine = engine
        self._catalog = catalog
        self._now_ms = now_ms
        self._current_room = current_room
        self._samples: list[Sample] = []
        self._collected_at_s = float("-inf")
        self._lock = asyncio.Lock()

    async def samples(self) -> list[Sample]:
        """Return values at most :data:`COLLECT_INTERVAL_S` old; only ``store_up`` 0 if the store did not answer."""
        async with self._lock:
            if time.monotonic() - self._collected_at_s >= COLLECT_INTERVAL_S:
                try:
                    async with asyncio.timeout(COLLECT_TIMEOUT_S):
                        samples = await self._collect()
                    self._samples = [*samples, Sample("quota_engine_store_up", (), (1,))]
                except (QuotaEngineError, TimeoutError) as error:
                    _logger.warning("no metrics from the store: %s", error or "timeout")
                    self._samples = [Sample("quota_engine_store_up", (), (0,))]
                self._collected_at_s = time.monotonic()
        return self._samples

    async def _collect(self) -> list[Sample]:
        offices = list(self._catalog.offices)[:OFFICES_MAX]
        found: list[Sample] = []
        for start in range(0, len(offices), _CONCURRENT_OFFICES):
            batch = offices[start : start + _CONCURRENT_OFFICES]
            for samples in await asyncio.gather(*(self._collect_office(office) for office in batch)):
                found += samples
        return found

    async def _collect_office(self, office: str) -> list[Sample]:
        engine, now_ms = self._engine, self._now_ms()
        yesterday = datetime.datetime.fromtimestamp(now_ms / 1000, tz=datetime.UTC).date() - datetime.timedelta(days=1)
        views = await engine.availability(office, yesterday, yesterday + datetime.timedelta(days=DAYS_MAX))
        open_days = [view for view in views if view.opens_at_ms <= now_ms < view.ends_at_ms]
        ttl_ms = get_office(self._catalog, office).rules.hold_ttl_ms
        # The age of a hold is its TTL less its remaining time: an upper bound on the rest is a lower one on the age.
        ages_s = [age_s for age_s in reversed(HOLD_AGES_S) if age_s * 1000 < ttl_ms]
        bounds_ms = [ttl_ms - age_s * 1000 for age_s in ages_s]
        holds = [0] * len(ages_s)
        for view in open_days:
            if any(quota.held for quota in view.quotas.values()):
                *counts, offers = await engine.hold_remaining_histogram(office, view.day, bounds_ms)
                counts[-1] += offers  # an offer of the wait list has a longer TTL than a hold
                for index, count in enumerate(itertools.accumulate(counts)):
                    holds[index] += count
        waiting = sum(view.waiting for view in open_days)
        overbooked = sum(quota.overbooked for view in open_days for quota in view.quotas.values())
        samples = [
            Sample("quota_engine_holds", (office, str(age_s)), (count,))
            for age_s, count in zip(ages_s, holds, strict=True)
        ]
        samples.append(Sample("quota_engine_wait_list_length", (office,), (waiting,)))
        samples.append(Sample("quota_engine_overbooked_units", (office,), (overbooked,)))
        ends = await engine.abandoned_holds(office)
        samples.append(Sample("quota_engine_abandoned_holds", (office, "released"), (ends.released,)))
        samples.append(Sample("quota_engine_abandoned_holds", (office, "expired"), (ends.expired,)))
        samples.append(Sample("quota_engine_abandoned_hold_blocks", (office,), (ends.blocks,)))
        room = self._current_room(office)
        if room is not None:
            samples += await self._collect_room(room)
        return samples

    async def _collect_room(self, room: str) -> list[Sample]:
        try:
            view = await self._engine.room(room).view()
        except InvalidRequest:  # the room has not been created yet
            return []
        return [
            Sample("quota_engine_room_tickets", (room,), (view.tickets,)),
            Sample("quota_engine_room_called_tickets", (room,), (min(view.called_count, view.tickets),)),
            Sample("quota_engine_room_waiting_tickets", (room,), (max(0, view.tickets - view.called_count),)),
            Sample("quota_engine_room_rate_per_second", (room,), (view.per_minute / 60,)),
        ]
