"""Calls about office-days: availability, capacities, and the operators' commands."""

from __future__ import annotations

__all__ = ["DayCalls"]

import datetime
from collections.abc import Sequence

from quota_engine.api_schema.offices import AvailabilityBody, OfficesBody
from quota_engine.api_schema.operators import (
    AbandonedHoldsBody,
    AuditBody,
    HoldRemainingBody,
    LedgersBody,
    PublishedBody,
    ReconciledBody,
    RelocationBody,
)
from quota_engine.client.call_protocol import CallBase, CallFlow, segment
from quota_engine.client.calls.common import day_path, day_text, office_path, selection_fields
from quota_engine.client.decoding import day_of, relocation_of
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.outcomes import AbandonedHolds, DayView, Outcome, Status
from quota_engine.domain.reconcile import Reconciliation
from quota_engine.ledger_kinds import check_address
from quota_engine.workflows.arguments import Day, day_number
from quota_engine.workflows.day_workflows import AuditReport, PublishReport
from quota_engine.workflows.relocation import RelocationReport


class DayCalls(CallBase):
    """Office-days."""

    def availability(self, office: str, first_day: Day, last_day: Day | None = None) -> CallFlow[list[DayView]]:
        """See :meth:`quota_engine.QuotaEngine.availability`."""
        query: dict[str, object] = {"first_day": day_text(first_day)}
        if last_day is not None:
            query["last_day"] = day_text(last_day)
        found = yield from self._request("GET", office_path(office, "availability"), AvailabilityBody, query=query)
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
    ) -> CallFlow[datetime.date | None]:
        """Return the first day on which ``units`` places of a selection are available now; ``None`` if there is none.

        The other arguments are those of :meth:`quota_engine.QuotaEngine.availability` and
        :meth:`quota_engine.QuotaEngine.reserve`.
        """
        query: dict[str, object] = {
            "first_day": day_text(first_day),
            "units": units,
            **selection_fields(service, service_unit, session, channel, group),
        }
        if last_day is not None:
            query["last_day"] = day_text(last_day)
        found = yield from self._request("GET", office_path(office, "availability"), AvailabilityBody, query=query)
        return found.earliest_available_day

    def list_offices(self) -> CallFlow[list[str]]:
        """See :meth:`quota_engine.QuotaEngine.list_offices`."""
        return (yield from self._request("GET", "/v1/ledgers", LedgersBody)).offices

    def describe_offices(self) -> CallFlow[OfficesBody]:
        """Return the offices of the service's catalog, their services and sessions, and their next opening."""
        return self._request("GET", "/v1/offices", OfficesBody)

    def hold_remaining_histogram(self, office: str, day: Day, bounds_ms: Sequence[int]) -> CallFlow[list[int]]:
        """See :meth:`quota_engine.QuotaEngine.hold_remaining_histogram`."""
        if not isinstance(bounds_ms, list | tuple) or not all(type(bound_ms) is int for bound_ms in bounds_ms):
            raise InvalidRequest("bounds_ms", "not such a list", "a list of at most 16 bounds that rise")
        query = {"bounds_ms": ",".join(map(str, bounds_ms))}
        return (
            yield from self._request("GET", day_path(office, day, "hold-remaining"), HoldRemainingBody, query=query)
        ).holds

    def abandoned_holds(self, office: str) -> CallFlow[AbandonedHolds]:
        """See :meth:`quota_engine.QuotaEngine.abandoned_holds`."""
        found = yield from self._request("GET", office_path(office, "abandoned-holds"), AbandonedHoldsBody)
        return AbandonedHolds(found.released, found.expired, found.blocks)

    def set_capacity(
        self, office: str, day: Day, quota: str, capacity: int, *, expected_revision: int = 0
    ) -> CallFlow[Outcome]:
        """See :meth:`quota_engine.QuotaEngine.set_capacity`."""
        return self._command(
            "PUT",
            _quota_path(office, day, quota, "capacity"),
            {"capacity": capacity, "expected_revision": expected_revision},
        )

    def close_day(self, office: str, day: Day, *, expected_revision: int = 0) -> CallFlow[Outcome]:
        """See :meth:`quota_engine.QuotaEngine.close_day`."""
        return self._command("POST", day_path(office, day, "close"), {"expected_revision": expected_revision})

    def open_day(self, office: str, day: Day, *, expected_revision: int = 0) -> CallFlow[Outcome]:
        """See :meth:`quota_engine.QuotaEngine.open_day`."""
        return self._command("POST", day_path(office, day, "open"), {"expected_revision": expected_revision})

    def reallocate_unused(self, office: str, day: Day, quota: str, *, expected_revision: int = 0) -> CallFlow[Outcome]:
        """See :meth:`quota_engine.QuotaEngine.reallocate_unused`."""
        return self._command(
            "POST", _quota_path(office, day, quota, "reallocate-unused"), {"expected_revision": expected_revision}
        )

    def release_parked(self, office: str, day: Day, quota: str, *, expected_revision: int = 0) -> CallFlow[Outcome]:
        """See :meth:`quota_engine.QuotaEngine.release_parked`."""
        return self._command(
            "POST", _quota_path(office, day, quota, "release-parked"), {"expected_revision": expected_revision}
        )

    def expire(self, office: str, day: Day, limit: int = 100) -> CallFlow[Outcome]:
        """See :meth:`quota_engine.QuotaEngine.expire`."""
        return self._command("POST", day_path(office, day, "expire"), {"limit": limit})

    def publish(
        self,
        first_day: Day,
        last_day: Day | None = None,
        *,
        offices: Sequence[str] | None = None,
        dry_run: bool = False,
        timeout_ms: int | None = None,
    ) -> CallFlow[PublishReport]:
        """See :meth:`quota_engine.QuotaEngine.publish`. The service publishes its own catalog."""
        first = day_text(first_day)
        body: dict[str, object] = {"first_day": first, "last_day": first if last_day is None else day_text(last_day)}
        if offices is not None:
            body["offices"] = list(offices)
        if dry_run:
            body["dry_run"] = True
        found = yield from self._request(
            "POST", "/v1/publish", PublishedBody, body=body, is_long=True, timeout_ms=timeout_ms
        )
        return PublishReport(
            found.offices,
            found.days_published,
            found.days_unchanged,
            found.days_over,
            tuple(found.problems),
            found.days_closed,
            found.quotas_removed,
            found.people_affected,
            found.days_refused,
            found.overbooked,
        )

    def relocate_day(
        self,
        office: str,
        day: Day,
        targets: Sequence[Day | tuple[str, Day]] = (),
        *,
        other_sessions: bool = False,
        after: int = 0,
        limit: int = 100,
        dry_run: bool = False,
        timeout_ms: int | None = None,
    ) -> CallFlow[RelocationReport]:
        """See :meth:`quota_engine.QuotaEngine.relocate_day`."""
        if not isinstance(targets, list | tuple):
            raise InvalidRequest("targets", "not a list", "days, or pairs of office and day")
        pairs = [one if isinstance(one, tuple) else ("", one) for one in targets]
        body = {
            "targets": [{"office": name, "day": day_text(target)} for name, target in pairs],
            "other_sessions": other_sessions,
            "after": after,
            "limit": limit,
            "dry_run": dry_run,
        }
        path = day_path(office, day, "relocate")
        found = yield from self._request_or_problem(
            "POST", path, RelocationBody, Status, body=body, is_long=True, timeout_ms=timeout_ms
        )
        if isinstance(found, RelocationBody):
            return relocation_of(found)
        return RelocationReport(office, day_number(day), Status(str(found.outcome)), dry_run)

    def audit(self, office: str | None = None, *, timeout_ms: int | None = None) -> CallFlow[AuditReport]:
        """See :meth:`quota_engine.QuotaEngine.audit`."""
        query = {} if office is None else {"office": segment(office, "office")}
        found = yield from self._request("GET", "/v1/audit", AuditBody, query=query, timeout_ms=timeout_ms)
        return AuditReport(found.offices, tuple(found.findings))

    def reconcile(self, address: str) -> CallFlow[Reconciliation]:
        """See :meth:`quota_engine.QuotaEngine.reconcile`.

        A service cannot restore lost events, because its events contain no applicants.
        """
        path = f"/v1/ledgers/{_address_segment(address)}/reconcile"
        found = yield from self._request("POST", path, ReconciledBody, is_long=True)
        return Reconciliation(
            found.address,
            found.epoch,
            tuple(found.findings),
            found.repaired,
            time_corrected_by_ms=found.time_corrected_by_ms,
        )


def _address_segment(address: str) -> str:
    """Return the address of a ledger as a segment of a path."""
    if isinstance(address, str) and address.startswith("~"):
        check_address(address, "address")
        return address
    return segment(address, "office")


def _quota_path(office: str, day: Day, quota: str, rest: str) -> str:
    return day_path(office, day, f"quotas/{segment(quota, 'quota')}/{rest}")
