"""The part of ``QuotaEngine`` that a simulation uses: the calls of a booking service and of its operator."""

from __future__ import annotations

__all__ = ["AuditFindings", "SimulatedEngine", "publish_supply"]

import datetime
from collections.abc import Sequence
from typing import Protocol

from quota_engine.catalog import Catalog
from quota_engine.clocks import ManualClock
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import DayView, Outcome
from quota_engine.simulation.supply import Supply


class AuditFindings(Protocol):
    """Result of an audit."""

    @property
    def findings(self) -> Sequence[object]:
        """One entry for each finding."""
        ...


class SimulatedEngine(Protocol):
    """An engine on any backend, opened with the clock that the run sets. The methods are those of ``QuotaEngine``."""

    def list_offices(self) -> list[str]:
        """Return the offices that the store has a ledger of."""
        ...

    def publish(self, catalog: Catalog, first_day: datetime.date, last_day: datetime.date) -> object:
        """Publish the days of all offices."""
        ...

    def set_capacity(self, office: str, day: int, quota: str, capacity: int) -> Outcome:
        """Set the capacity of a quota, in places."""
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
        """Confirm a hold."""
        ...

    def release(self, reference: str, *, owner: str | None = None) -> Outcome:
        """Release a hold, or leave the wait list."""
        ...

    def decline(self, reference: str, *, owner: str | None = None, expected_version: int = 0) -> Outcome:
        """Decline an offer of the wait list, and keep the place on the list."""
        ...

    def cancel(self, reference: str, *, owner: str | None = None) -> Outcome:
        """Cancel a confirmed reservation."""
        ...

    def check_in(self, reference: str, *, owner: str | None = None) -> Outcome:
        """Record that the party attended."""
        ...

    def mark_no_show(self, reference: str, *, owner: str | None = None) -> Outcome:
        """Record that the party did not attend."""
        ...

    def release_parked(self, office: str, day: int, quota: str) -> Outcome:
        """Make the units that wait for the next draw available."""
        ...

    def availability(self, office: str, first_day: int) -> list[DayView]:
        """Return the counters of one day."""
        ...

    def lookup(self, reference: str) -> Reservation | None:
        """Return the current reservation, or ``None``."""
        ...

    def expire(self, office: str, day: int, limit: int = 100) -> Outcome:
        """Expire at most ``limit`` overdue holds of one day."""
        ...

    def audit(self) -> AuditFindings:
        """Check every ledger."""
        ...


def publish_supply(engine: SimulatedEngine, supply: Supply, clock: ManualClock, first_us: int) -> None:
    """Publish the office-days with their capacities, a minute before the run begins.

    Args:
        engine: An engine on an empty store. Ids are the same in each run, so a store that an earlier run has filled
            would replay that run.
        supply: The office-days.
        clock: The engine's clock, which is set.
        first_us: Beginning of the run, in microseconds from the opening.

    Raises:
        InvalidRequest: The store is not empty.
        BackendUnavailable: The store cannot be reached.
    """
    if engine.list_offices():
        raise InvalidRequest("backend", "the store has offices already", "an empty store, or a new namespace")
    clock.set_ms(supply.opening_ms + first_us // 1000 - 60_000)
    engine.publish(supply.catalog, supply.first_day, supply.last_day)
    for office_day in supply.office_days:
        for quota, capacity in office_day.overrides.items():
            engine.set_capacity(office_day.office, office_day.day, quota, capacity)
