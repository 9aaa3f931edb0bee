"""Methods of an engine about office-days: availability, capacities, and the operators' commands."""

from __future__ import annotations

__all__ = ["DayMethods"]

from collections.abc import Sequence

from quota_engine.catalog import Catalog
from quota_engine.domain.commands import CloseDay, Expire, OpenDay, ReallocateUnused, ReleaseParked, SetCapacity
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import AbandonedHolds, DayView, Outcome
from quota_engine.domain.reconcile import Reconciliation
from quota_engine.ports import ListOffices, RecordedEvent, StoreRequest
from quota_engine.workflows import day_workflows, relocation
from quota_engine.workflows.arguments import Day, day_number
from quota_engine.workflows.day_workflows import AuditReport, PublishReport
from quota_engine.workflows.generator_drivers import Apply, Workflow
from quota_engine.workflows.jobs import job
from quota_engine.workflows.relocation import RelocationReport
from quota_engine.workflows.request_builder import RequestBuilder


class DayMethods:
    """Office-days."""

    requests: RequestBuilder

    def publish(
        self,
        catalog: Catalog,
        first_day: Day,
        last_day: Day | None = None,
        *,
        offices: Sequence[str] | None = None,
        dry_run: bool = False,
        timeout_ms: int | None = None,
    ) -> Workflow[PublishReport]:
        """Publish the working days of offices of a catalog, and use the catalog from now on.

        Safe to repeat from any number of processes. A published day keeps the capacities that operators have set.
        Publish each office at least to its :func:`~quota_engine.catalog.last_day_to_publish`.

        A published day of the range is closed if the office does not work on it any more. A quota that the catalog
        lacks gets the capacity 0. Their reservations stay, and the report counts the people. A closed day stays closed.

        Args:
            catalog: the offices.
            first_day: the first day.
            last_day: the last day, at most 400 days in all; ``None`` for the first.
            offices: ids of the offices to publish; ``None`` for all.
            dry_run: change nothing, keep the present catalog, and return the report.
            timeout_ms: time of the whole call in milliseconds, 200 to 3,600,000; ``None`` for the ``job_timeout_ms`` of
                the engine.

        Raises:
            InvalidRequest: the range is empty or too long, or the store was created with another identity key.
            UnknownName: the catalog does not have one of ``offices``.
            JobTimeout: the time is over between two offices. ``resume_with`` names the offices that are left.
        """
        work = day_workflows.publish(self.requests, catalog, first_day, last_day, offices, dry_run)
        return job("publish", timeout_ms, work)

    def availability(self, office: str, first_day: Day, last_day: Day | None = None) -> Workflow[list[DayView]]:
        """Return the counters of the published days from ``first_day`` to ``last_day``.

        Args:
            office: id of the office.
            first_day: the first day.
            last_day: the last day, at most 400 days in all; ``None`` for the first.
        """
        return day_workflows.view(self.requests, office, first_day, last_day)

    def list_reservations(self, office: str, day: Day) -> StoreRequest[list[Reservation]]:
        """Return all reservations of a day by queue number, then those without one.

        For the staff of the office. Scans the whole office; avoid during an opening.

        Args:
            office: id of the office.
            day: the day.
        """
        return self.requests.list_day(office, day)

    def hold_remaining_histogram(self, office: str, day: Day, bounds_ms: Sequence[int]) -> StoreRequest[list[int]]:
        """Count a day's holds by remaining time. Cheap enough to read during an opening.

        Args:
            office: id of the office.
            day: the day.
            bounds_ms: at most 16 rising bounds in milliseconds.

        Returns:
            One count for each bound, and one more. The first counts holds with at most the first bound left. Each other
            one counts holds with more than the bound before and at most its own. The last has no upper bound.
        """
        return self.requests.hold_remaining_histogram(office, day, bounds_ms)

    def abandoned_holds(self, office: str) -> StoreRequest[AbandonedHolds]:
        """Return how many of an office's holds ended without a confirm, and how many blocks followed.

        The numbers only grow. Cheap enough to read during an opening.

        Args:
            office: id of the office.
        """
        return self.requests.abandoned_holds(office)

    def set_capacity(
        self, office: str, day: Day, quota: str, capacity: int, *, expected_revision: int = 0
    ) -> Apply[Outcome]:
        """Set the capacity of one quota.

        Units taken beyond a lowered capacity are ``outcome.overbooked``; the quota sells nothing until they are freed.

        Args:
            office: id of the office.
            day: the day.
            quota: id of the quota.
            capacity: units, 0 or more.
            expected_revision: the ``DayView.revision`` that the operator has seen. If the day has another one, the call
                is refused with ``STALE``, and ``outcome.revision`` is the present one. 0: do not check.
        """
        return self.requests.day_command(SetCapacity, office, day, quota, capacity, expected_revision)

    def close_day(self, office: str, day: Day, *, expected_revision: int = 0) -> Apply[Outcome]:
        """Close a day: it accepts no reserve, confirm or offer. Its reservations can be released, cancelled or moved.

        Args:
            office: id of the office.
            day: the day.
            expected_revision: the ``DayView.revision`` that the operator has seen. If the day has another one, the call
                is refused with ``STALE``, and ``outcome.revision`` is the present one. 0: do not check.
        """
        return self.requests.day_command(CloseDay, office, day, expected_revision)

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
    ) -> Workflow[RelocationReport]:
        """Close a day, and move its confirmed parties to other days in the order of their queue numbers.

        A party moves as a whole to the first target that has room, with the same service, channel and group. The move
        asks no admission policy and does not count against the party. A party that fits nowhere keeps its reservation
        on the closed day. Repeating a call moves no party twice.

        Args:
            office: id of the office.
            day: the day to close.
            targets: at most 60 days of the office, or pairs of an office and a day, in order of preference; empty for
                the 60 days after the closed one.
            other_sessions: try other sessions of a target if the same session has no room.
            after: look at queue numbers above this one; 0 for all.
            limit: most parties to look at, 1 to 500.
            dry_run: change nothing, and return where each party would go.
            timeout_ms: time of the whole call in milliseconds, 200 to 3,600,000; ``None`` for the ``job_timeout_ms`` of
                the engine.

        Returns:
            The report. Call again with ``after=report.next_after`` until that is 0. A call whose time is over between
            two parties returns the report about those before.

        Raises:
            UnknownName: the catalog does not have an office.
            InvalidRequest: an argument is not valid.
            JobTimeout: the time was over before the first party, or the store did not answer in time.
        """
        requests = self.requests
        work = relocation.relocate_day(
            requests,
            requests.known_office(office),
            day_number(day),
            relocation.targets_of(requests, office, targets),
            other_sessions=other_sessions,
            after=after,
            limit=limit,
            dry_run=dry_run,
        )
        return job("relocate_day", timeout_ms, work)

    def open_day(self, office: str, day: Day, *, expected_revision: int = 0) -> Apply[Outcome]:
        """Reopen a closed day.

        Args:
            office: id of the office.
            day: the day.
            expected_revision: the ``DayView.revision`` that the operator has seen. If the day has another one, the call
                is refused with ``STALE``, and ``outcome.revision`` is the present one. 0: do not check.
        """
        return self.requests.day_command(OpenDay, office, day, expected_revision)

    def reallocate_unused(self, office: str, day: Day, quota: str, *, expected_revision: int = 0) -> Apply[Outcome]:
        """Reallocate an allotment's unused units now; ``outcome.units`` of them.

        Args:
            office: id of the office.
            day: the day.
            quota: id of the allotment.
            expected_revision: the ``DayView.revision`` that the operator has seen. If the day has another one, the call
                is refused with ``STALE``, and ``outcome.revision`` is the present one. 0: do not check.
        """
        return self.requests.day_command(ReallocateUnused, office, day, quota, expected_revision)

    def release_parked(self, office: str, day: Day, quota: str, *, expected_revision: int = 0) -> Apply[Outcome]:
        """Make the units that are parked for the next draw available; ``outcome.units`` of them.

        Args:
            office: id of the office.
            day: the day.
            quota: id of the quota.
            expected_revision: the ``DayView.revision`` that the operator has seen. If the day has another one, the call
                is refused with ``STALE``, and ``outcome.revision`` is the present one. 0: do not check.
        """
        return self.requests.day_command(ReleaseParked, office, day, quota, expected_revision)

    def expire(self, office: str, day: Day, limit: int = 100) -> Apply[Outcome]:
        """Expire overdue holds now.

        An overdue hold is refused and its units are available without this. The sweep only brings the wait list and the
        events forward.

        Args:
            office: id of the office.
            day: the day.
            limit: most holds to expire.
        """
        return self.requests.day_command(Expire, office, day, limit)

    def list_offices(self) -> StoreRequest[list[str]]:
        """Return the offices that the store has a ledger of, sorted."""
        return ListOffices()

    def audit(self, office: str | None = None, *, timeout_ms: int | None = None) -> Workflow[AuditReport]:
        """Recompute every counter from records and events, and report the differences.

        Args:
            office: id of the office; ``None`` for all offices of the store.
            timeout_ms: time of the whole call in milliseconds, 200 to 3,600,000; ``None`` for the ``job_timeout_ms`` of
                the engine.

        Raises:
            JobTimeout: the time is over. ``report`` has the findings about the offices before. Audit office by office,
                or give the call more time.
        """
        return job("audit", timeout_ms, day_workflows.audit(self.requests, office))

    def reconcile(self, address: str, events: Sequence[RecordedEvent] = ()) -> StoreRequest[Reconciliation]:
        """Check an office's ledger and repair it, after a failover or any damage, or open another ledger.

        With ``fence=auto``, the first call after a failover does so by itself. With ``fence=manual``, the ledger stays
        closed until an operator does. An office is closed for fenced engines meanwhile.

        Args:
            address: id of the office; or the address of a waiting room, a draw or another ledger, as the refusal of a
                call names it, such as ``~room.december``. Such a ledger has nothing to repair: it is opened.
            events: at most 1,000 events that the store has lost, in order, as a consumer received them. Those with
                numbers above the store's last one happen again. Earlier events of the same history may precede them.

        Raises:
            InvalidRequest: ``address`` is of no ledger, or the ledger has no events.
            InvalidRequest: ``events`` do not follow the store's events, because the store has later events
                already, or there is a gap. Nothing was restored.
        """
        return self.requests.reconcile(address, events)
