"""What the simulator needs of an engine: the part of ``QuotaEngine`` that a booking service and its operator use."""

from __future__ import annotations

__all__ = ["AuditReport", "SimulatedEngine"]

import datetime
from collections.abc import Sequence
from typing import Protocol

from quota_engine.catalog import Catalog
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import DayView, Outcome


class AuditReport(Protocol):
    """What an audit found."""

    @property
    def findings(self) -> Sequence[object]:
        """One entry a finding; empty is good."""
        ...


class SimulatedEngine(Protocol):
    """An engine on any backend, opened with the clock that the run sets."""

    def list_offices(self) -> list[str]:
        """The offices that the store knows already."""
        ...

    def publish(self, catalog: Catalog, first_day: datetime.date, last_day: datetime.date) -> object:
        """Make the days of all offices known."""
        ...

    def set_capacity(self, office: str, day: int, quota: str, capacity: int) -> Outcome:
        """Set a quota's capacity in places."""
        ...

    def reserve(
        self,
        office: str,
        day: int,
        applicants: str | Sequence[str],
        *,
        service: str = "",
        service_unit: str = "",
        session: str = "",
        channel: str = "online",
        group: str = "",
        join_wait_list: bool = False,
        hold_ttl_ms: int = 0,
    ) -> Outcome:
        """Hold places for a party of raw identities."""
        ...

    def confirm(self, reference: str, *, owner: str | None = None) -> Outcome:
        """Make a hold a place."""
        ...

    def release(self, reference: str, *, owner: str | None = None) -> Outcome:
        """Give up a hold, or leave the wait list."""
        ...

    def cancel(self, reference: str, *, owner: str | None = None) -> Outcome:
        """Give up a place."""
        ...

    def check_in(self, reference: str, *, owner: str | None = None) -> Outcome:
        """The party has come."""
        ...

    def mark_no_show(self, reference: str, *, owner: str | None = None) -> Outcome:
        """The party has not come."""
        ...

    def release_parked(self, office: str, day: int, quota: str) -> Outcome:
        """Make the units that wait for the next draw available."""
        ...

    def availability(self, office: str, first_day: int) -> list[DayView]:
        """The counters of one day."""
        ...

    def lookup(self, reference: str) -> Reservation | None:
        """The reservation as it stands now."""
        ...

    def expire(self, office: str, day: int, limit: int = 100) -> Outcome:
        """Sweep one day."""
        ...

    def audit(self) -> AuditReport:
        """Check every ledger."""
        ...
