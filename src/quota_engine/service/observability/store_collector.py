"""What the store says about the days being sold and their waiting rooms: numbers for Prometheus that no process counts.

All workers would say the same, so they are not added up. The store is looked at only when somebody asks, and at most
once in :data:`LOOK_EVERY_S`, however many ask.
"""

from __future__ import annotations

__all__ = ["AGES_S", "LOOK_EVERY_S", "Survey"]

import asyncio
import datetime
import itertools
import logging
import time
from typing import TYPE_CHECKING, Final

from quota_engine.domain.errors import InvalidRequest, QuotaEngineError
from quota_engine.service.observability.metrics import Row

if TYPE_CHECKING:
    from quota_engine.service.app import Service

LOOK_EVERY_S: Final = 10.0
LOOK_MAX_S: Final = 3.0
"""A look that takes longer is given up: whoever asks does not wait for ever either."""
OFFICES_MAX: Final = 256
DAYS_MAX: Final = 31
AGES_S: Final = (0, 60, 300, 600, 900, 1800, 3600, 7200)
_AT_ONCE: Final = 8

_logger = logging.getLogger("quota_engine.service")


class Survey:
    """The last look at the store."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._rows: list[Row] = []
        self._looked_at_s = float("-inf")
        self._looking = asyncio.Lock()

    async def rows(self) -> list[Row]:
        """What the store said, at most :data:`LOOK_EVERY_S` ago; only ``store_up`` 0 if it did not answer."""
        async with self._looking:
            if time.monotonic() - self._looked_at_s >= LOOK_EVERY_S:
                try:
                    async with asyncio.timeout(LOOK_MAX_S):
                        found = await self._look()
                    self._rows = [*found, Row("quota_engine_store_up", (), (1,))]
                except (QuotaEngineError, TimeoutError) as error:
                    _logger.warning("no numbers from the store: %s", error or "it took too long")
                    self._rows = [Row("quota_engine_store_up", (), (0,))]
                self._looked_at_s = time.monotonic()
        return self._rows

    async def _look(self) -> list[Row]:
        offices = list(self._service.catalog.offices)[:OFFICES_MAX]
        found: list[Row] = []
        for start in range(0, len(offices), _AT_ONCE):
            for rows in await asyncio.gather(*(self._office(office) for office in offices[start : start + _AT_ONCE])):
                found += rows
        return found

    async def _office(self, office: str) -> list[Row]:
        service = self._service
        engine, now_ms = service.engine, service.now_ms()
        today = datetime.datetime.fromtimestamp(now_ms / 1000, tz=datetime.UTC).date() - datetime.timedelta(days=1)
        views = await engine.availability(office, today, today + datetime.timedelta(days=DAYS_MAX))
        sold = [view for view in views if view.opens_at_ms <= now_ms < view.ends_at_ms]
        ttl_ms = service.office(office).rules.hold_ttl_ms
        # A hold is as old as its time is used up: who has at most so much less than all of it left is that old.
        ages_s = [age_s for age_s in reversed(AGES_S) if age_s * 1000 < ttl_ms]
        bounds_ms = [ttl_ms - age_s * 1000 for age_s in ages_s]
        holds = [0] * len(ages_s)
        for view in sold:
            if any(quota.held for quota in view.quotas.values()):
                *counts, offered = await engine.hold_remaining_histogram(office, view.day, bounds_ms)
                counts[-1] += offered  # an offer from the wait list has more time than a hold
                for index, count in enumerate(itertools.accumulate(counts)):
                    holds[index] += count
        waiting = sum(view.waiting for view in sold)
        overbooked = sum(quota.overbooked for view in sold for quota in view.quotas.values())
        rows = [
            Row("quota_engine_holds", (office, str(age_s)), (count,))
            for age_s, count in zip(ages_s, holds, strict=True)
        ]
        rows.append(Row("quota_engine_wait_list_length", (office,), (waiting,)))
        rows.append(Row("quota_engine_overbooked_places", (office,), (overbooked,)))
        room = service.room_of(office)
        if room is not None:
            rows += await self._room(room)
        return rows

    async def _room(self, room: str) -> list[Row]:
        try:
            view = await self._service.engine.room(room).view()
        except InvalidRequest:  # it has not been made yet
            return []
        return [
            Row("quota_engine_room_tickets", (room,), (view.tickets,)),
            Row("quota_engine_room_called", (room,), (min(view.called_count, view.tickets),)),
            Row("quota_engine_room_length", (room,), (max(0, view.tickets - view.called_count),)),
            Row("quota_engine_room_rate_per_second", (room,), (view.per_minute / 60,)),
        ]
