"""Bodies for operators and auditors: capacities, publication, expiry, moves, audits, health."""

from __future__ import annotations

__all__ = [
    "AbandonedHoldsBody",
    "AuditBody",
    "DayCommandBody",
    "ExpireBody",
    "HealthBody",
    "HoldRemainingBody",
    "LedgersBody",
    "MovesBody",
    "PublishBody",
    "PublishedBody",
    "ReconciledBody",
    "RecoverMovesBody",
    "RelocateDayBody",
    "RelocatedPartyBody",
    "RelocationBody",
    "RelocationTargetBody",
    "SetCapacityBody",
    "relocation_body",
]

import datetime
from typing import Annotated

from msgspec import Meta

from quota_engine.api_schema.base import OptionalId, RequestBody, ResponseBody, Revision
from quota_engine.catalog.schema import OFFICES_MAX
from quota_engine.domain.outcomes import Status
from quota_engine.domain.validation import DURATION_MS_MAX
from quota_engine.workflows.relocation import PARTIES_MAX, TARGETS_MAX, RelocationReport


class SetCapacityBody(RequestBody, frozen=True, kw_only=True):
    """The new capacity of a quota, and the revision of the day that the operator has seen."""

    capacity: Annotated[int, Meta(ge=0, le=10_000_000)]
    expected_revision: Revision = 0


class DayCommandBody(RequestBody, frozen=True, kw_only=True):
    """The revision of the day that the operator has seen."""

    expected_revision: Revision = 0


class ExpireBody(RequestBody, frozen=True, kw_only=True):
    """The most overdue holds to expire in one call."""

    limit: Annotated[int, Meta(ge=1, le=10_000)] = 100


class PublishBody(RequestBody, frozen=True, kw_only=True):
    """The range of days to publish, both ends included, and the offices; without ``offices``, all of the catalog."""

    first_day: datetime.date
    last_day: datetime.date
    offices: Annotated[list[str], Meta(max_length=OFFICES_MAX)] | None = None
    dry_run: Annotated[bool, Meta(description="Change nothing, and say what would change.")] = False


class RelocationTargetBody(RequestBody, frozen=True, kw_only=True):
    """A day to move people to; without ``office``, of the same office."""

    day: datetime.date
    office: OptionalId = ""


class RelocateDayBody(RequestBody, frozen=True, kw_only=True):
    """The plan for a day that is to be closed. See :meth:`quota_engine.QuotaEngine.relocate_day`.

    ``targets`` are in order of preference; without any, the 60 days after the closed one. ``after`` and ``limit``
    select the parties by queue number.
    """

    targets: Annotated[list[RelocationTargetBody], Meta(max_length=TARGETS_MAX)] = []
    other_sessions: bool = False
    after: Annotated[int, Meta(ge=0, le=2**31)] = 0
    limit: Annotated[int, Meta(ge=1, le=PARTIES_MAX)] = 100
    dry_run: Annotated[bool, Meta(description="Change nothing, and say where each party would go.")] = False


class RelocatedPartyBody(ResponseBody, frozen=True, kw_only=True):
    """A party of the closed day. One that stays has no ``target_day``, and ``status`` is the last refusal."""

    reference: str
    units: int
    queue_number: int
    session: str
    status: Status
    target_office: str = ""
    target_day: datetime.date | None = None
    target_session: str = ""
    target_opens_at_ms: int = 0
    target_reference: str = ""
    target_queue_number: int = 0


class RelocationBody(ResponseBody, frozen=True, kw_only=True):
    """The parties of a closed day, and their new days. Call again with ``after`` = ``next_after`` until that is 0."""

    office: str
    day: datetime.date
    dry_run: bool
    people_moved: int
    people_left: int
    next_after: int
    parties: list[RelocatedPartyBody]


class RecoverMovesBody(RequestBody, frozen=True, kw_only=True):
    """The moves to finish: those untouched for ``older_than_ms``, at most ``limit``."""

    older_than_ms: Annotated[int, Meta(ge=0, le=DURATION_MS_MAX)] = 0
    limit: Annotated[int, Meta(ge=1, le=1_000)] = 100


class PublishedBody(ResponseBody, frozen=True, kw_only=True):
    """The result of a publication, counted in office-days.

    ``problems`` has a sentence for each office with days that cannot be published; all other days are. Published days
    that are no working days of the catalog any more are ``days_closed``. Quotas that the catalog lacks are
    ``quotas_removed``. While people are on them, their days are ``days_refused`` and keep their terms.
    ``people_affected`` counts the confirmed, held and waiting people of closed days and of such quotas. ``overbooked``
    counts the units by which the publication overbooked days.
    """

    offices: int
    days_published: int
    days_unchanged: int
    days_over: int
    problems: list[str] = []
    days_closed: int = 0
    quotas_removed: int = 0
    people_affected: int = 0
    days_refused: int = 0
    overbooked: int = 0


class AuditBody(ResponseBody, frozen=True, kw_only=True):
    """The findings of an audit; none if all counters are right."""

    ok: bool
    offices: int
    findings: list[str]


class MovesBody(ResponseBody, frozen=True, kw_only=True):
    """The numbers of moves that were finished, and of moves that were undone."""

    finished: int
    undone: int


class ReconciledBody(ResponseBody, frozen=True, kw_only=True):
    """The result of a reconciliation; see :class:`quota_engine.Reconciliation`."""

    address: str
    epoch: int
    findings: list[str]
    repaired: int
    time_corrected_by_ms: int


class HoldRemainingBody(ResponseBody, frozen=True, kw_only=True):
    """Holds of a day by remaining time: at most the first of ``bounds_ms``, at most the second, and so on.

    The last number counts the holds above the last bound, so ``holds`` has one number more than there are bounds.
    """

    office: str
    day: datetime.date
    bounds_ms: list[int]
    holds: list[int]


class AbandonedHoldsBody(ResponseBody, frozen=True, kw_only=True):
    """Holds of an office that ended without a confirm since its ledger exists: released, or expired.

    ``blocks`` counts how often the limit on such holds blocked an applicant, or extended a block.
    """

    office: str
    released: int
    expired: int
    blocks: int


class LedgersBody(ResponseBody, frozen=True, kw_only=True):
    """The offices that have a ledger in the store, sorted; some may no longer be in the catalog."""

    offices: list[str]


class HealthBody(ResponseBody, frozen=True, kw_only=True):
    """The health of the service: ``live``, ``ready``, ``draining`` or ``store unavailable``."""

    status: str


def relocation_body(report: RelocationReport) -> RelocationBody:
    """Return the body of a report."""
    return RelocationBody(
        office=report.office,
        day=datetime.date.fromordinal(report.day),
        dry_run=report.dry_run,
        people_moved=report.people_moved,
        people_left=report.people_left,
        next_after=report.next_after,
        parties=[
            RelocatedPartyBody(
                reference=party.reference,
                units=party.units,
                queue_number=party.queue_number,
                session=party.session,
                status=party.status,
                target_office=party.target.office if party.target else "",
                target_day=datetime.date.fromordinal(party.target.day) if party.target else None,
                target_session=party.target_session,
                target_opens_at_ms=party.target_opens_at_ms,
                target_reference=party.target_reference,
                target_queue_number=party.target_queue_number,
            )
            for party in report.parties
        ],
    )
