"""Alerts above the figures: a slow store, days oversold by hand, abandoned holds, and workers that hung."""

from __future__ import annotations

__all__ = ["Alert", "Alerts"]

from collections.abc import Sequence
from typing import Final, NamedTuple

from quota_engine.domain.outcomes import DayView
from quota_engine.service.observability.recent_increase import RecentIncrease
from quota_engine.service.pages.operator.base import OperatorPages
from quota_engine.service.pages.operator.day_tables import sum_counters
from quota_engine.service.pages.operator.request import OperatorRequest

_SLOW_S: Final = 0.25
"""The alert of the monitoring documents: the time of a batch to the store and back."""
_SLOW_BATCHES_MIN: Final = 3
_SLOW_SHARE: Final = 20
"""Every twentieth batch has to be slow."""
_STORE_WINDOW_MS: Final = 60_000
_HOLDS_WINDOW_MS: Final = 15 * 60_000
_ABANDONED_MIN: Final = 20
_HUNG_WINDOW_MS: Final = 24 * 3_600_000
_OFFICES_MAX: Final = 1_000


class Alert(NamedTuple):
    """An alert: its text in the operator's language, and the page that shows more, or ``""``."""

    kind: str
    text: str
    url: str = ""


class Alerts:
    """Finds the alerts of the service and of an office. Each process watches its own calls of the store."""

    def __init__(self, pages: OperatorPages) -> None:
        self._pages = pages
        self._store = RecentIncrease(_STORE_WINDOW_MS, 1, pages.service.now_ms)
        self._holds = RecentIncrease(_HOLDS_WINDOW_MS, _OFFICES_MAX, pages.service.now_ms)

    def of_service(self, request: OperatorRequest) -> list[Alert]:
        """Return the alerts that concern every office."""
        service, translator = self._pages.service, request.translator
        found: list[Alert] = []
        batches, slow = self._store.of("store", service.metrics.store_batches(_SLOW_S))
        if slow >= _SLOW_BATCHES_MIN and slow * _SLOW_SHARE >= batches:
            text = translator("alert_store", slow=translator.number(slow), all=translator.number(batches))
            found.append(Alert("store", text))
        hung = service.hung_workers(service.now_ms() - _HUNG_WINDOW_MS)
        if hung:
            when = translator.moment(self._pages.local_time(hung[-1], request.office))
            found.append(Alert("worker", translator.count("alert_worker", len(hung), when=when)))
        return found

    async def of_office(self, request: OperatorRequest, views: Sequence[DayView]) -> list[Alert]:
        """Return the alerts of the service and of the request's office.

        Args:
            request: Request of the operator.
            views: The office's coming days.
        """
        translator, office = request.translator, request.office
        found = self.of_service(request)
        oversold = [view for view in views if any(quota.overbooked for quota in view.quotas.values())]
        if oversold:
            units = sum_counters(office, oversold)["overbooked"]
            units = units or max(quota.overbooked for view in oversold for quota in view.quotas.values())
            days = translator.dates([self._pages.date(view.day) for view in oversold])
            url = f"/operator/day?office={office.id}&day={self._pages.date(oversold[0].day)}"
            found.append(Alert("oversold", translator.count("alert_oversold", units, days=days), url))
        ends = await self._pages.cache.abandoned_holds(office.id)
        abandoned, blocks = self._holds.of(office.id, (ends.released + ends.expired, ends.blocks))
        if abandoned >= _ABANDONED_MIN or blocks:
            text = translator.count("alert_abandoned", abandoned, blocks=translator.number(blocks))
            found.append(Alert("abandoned", text))
        return found
