"""Office-days: what is free, what operators set, and whether all adds up."""

from __future__ import annotations

__all__ = ["DayCalls"]

import datetime
from collections.abc import Sequence

from quota_engine.api_schema.offices import AvailabilityBody, OfficesBody
from quota_engine.api_schema.operators import AuditBody, HoldRemainingBody, LedgersBody, PublishedBody, ReconciledBody
from quota_engine.client.call_protocol import Speaker, Talk, segment
from quota_engine.client.calls.common import day_text, of_day, of_office, wanted_of
from quota_engine.client.decoding import day_of
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.outcomes import DayView, Outcome
from quota_engine.domain.reconcile import Reconciliation
from quota_engine.workflows.arguments import Day
from quota_engine.workflows.day_workflows import AuditReport, PublishReport


class DayCalls(Speaker):
    """Looking, and what operators do."""

    def availability(self, office: str, first_day: Day, last_day: Day | None = None) -> Talk[list[DayView]]:
        """See :meth:`quota_engine.QuotaEngine.availability`."""
        query: dict[str, object] = {"first_day": day_text(first_day)}
        if last_day is not None:
            query["last_day"] = day_text(last_day)
        found = yield from self._ask("GET", of_office(office, "availability"), AvailabilityBody, query=query)
        return [day_of(one) for one in found.days]

    def earliest_available_day(
        self,
        office: str,
        first_day: Day,
        last_day: Day | None = None,
        *,
        units: int = 1,
        service: str = "",
        service_unit: str = "",
        session: str = "",
        channel: str = "online",
        group: str = "",
    ) -> Talk[datetime.date | None]:
        """The first of the days on which ``units`` places of what is asked for can be had now; ``None``: on none."""
        query: dict[str, object] = {
            "first_day": day_text(first_day),
            "units": units,
            **wanted_of(service, service_unit, session, channel, group),
        }
        if last_day is not None:
            query["last_day"] = day_text(last_day)
        found = yield from self._ask("GET", of_office(office, "availability"), AvailabilityBody, query=query)
        return found.earliest_available_day

    def list_offices(self) -> Talk[list[str]]:
        """See :meth:`quota_engine.QuotaEngine.offices`."""
        return (yield from self._ask("GET", "/v1/ledgers", LedgersBody)).offices

    def describe_offices(self) -> Talk[OfficesBody]:
        """The offices of the service's catalog, what they offer, and when they open next."""
        return self._ask("GET", "/v1/offices", OfficesBody)

    def hold_remaining_histogram(self, office: str, day: Day, bounds_ms: Sequence[int]) -> Talk[list[int]]:
        """See :meth:`quota_engine.QuotaEngine.hold_remaining_histogram`."""
        if not isinstance(bounds_ms, list | tuple) or not all(type(bound_ms) is int for bound_ms in bounds_ms):
            raise InvalidRequest("bounds_ms", "not such a list", "a list of at most 16 bounds that rise")
        query = {"bounds_ms": ",".join(map(str, bounds_ms))}
        return (
            yield from self._ask("GET", of_day(office, day, "hold-remaining"), HoldRemainingBody, query=query)
        ).holds

    def set_capacity(self, office: str, day: Day, quota: str, capacity: int) -> Talk[Outcome]:
        """See :meth:`quota_engine.QuotaEngine.set_capacity`."""
        return self._command("PUT", _of_quota(office, day, quota, "capacity"), {"capacity": capacity})

    def close_day(self, office: str, day: Day) -> Talk[Outcome]:
        """See :meth:`quota_engine.QuotaEngine.close_day`."""
        return self._command("POST", of_day(office, day, "close"))

    def open_day(self, office: str, day: Day) -> Talk[Outcome]:
        """See :meth:`quota_engine.QuotaEngine.open_day`."""
        return self._command("POST", of_day(office, day, "open"))

    def reallocate_unused(self, office: str, day: Day, quota: str) -> Talk[Outcome]:
        """See :meth:`quota_engine.QuotaEngine.reallocate_unused`."""
        return self._command("POST", _of_quota(office, day, quota, "reallocate-unused"))

    def release_parked(self, office: str, day: Day, quota: str) -> Talk[Outcome]:
        """See :meth:`quota_engine.QuotaEngine.release_parked`."""
        return self._command("POST", _of_quota(office, day, quota, "release-parked"))

    def expire(self, office: str, day: Day, limit: int = 100) -> Talk[Outcome]:
        """See :meth:`quota_engine.QuotaEngine.expire`."""
        return self._command("POST", of_day(office, day, "expire"), {"limit": limit})

    def publish(self, first_day: Day, last_day: Day | None = None) -> Talk[PublishReport]:
        """See :meth:`quota_engine.QuotaEngine.publish`; the catalog is the service's own."""
        first = day_text(first_day)
        body: dict[str, object] = {"first_day": first, "last_day": first if last_day is None else day_text(last_day)}
        found = yield from self._ask("POST", "/v1/publish", PublishedBody, body=body)
        return PublishReport(found.offices, found.days_published, found.days_unchanged, found.days_over)

    def audit(self, office: str | None = None) -> Talk[AuditReport]:
        """See :meth:`quota_engine.QuotaEngine.audit`."""
        query = {} if office is None else {"office": segment(office, "office")}
        found = yield from self._ask("GET", "/v1/audit", AuditBody, query=query)
        return AuditReport(found.offices, tuple(found.findings))

    def reconcile(self, office: str) -> Talk[Reconciliation]:
        """See :meth:`quota_engine.QuotaEngine.reconcile`. Lost events can not be given back through a service: those
        that it gave have no applicants in them.
        """
        found = yield from self._ask("POST", of_office(office, "reconcile"), ReconciledBody)
        return Reconciliation(found.office, found.epoch, tuple(found.findings), found.repaired)


def _of_quota(office: str, day: Day, quota: str, rest: str) -> str:
    return of_day(office, day, f"quotas/{segment(quota, 'quota')}/{rest}")
