"""Endpoints for operators and auditors: capacities, closing days, publication, expiry, audits."""

from __future__ import annotations

__all__ = ["OPERATIONS"]

import datetime
from typing import Annotated, Any, Final

from msgspec import Meta

from quota_engine.api_schema.catalog import CatalogBody, catalog_body
from quota_engine.api_schema.operators import (
    AbandonedHoldsBody,
    AuditBody,
    DayCommandBody,
    ExpireBody,
    HoldRemainingBody,
    LedgersBody,
    MovesBody,
    PublishBody,
    PublishedBody,
    ReconciledBody,
    RecoverMovesBody,
    RelocateDayBody,
    RelocationBody,
    SetCapacityBody,
    relocation_body,
)
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.service.api.common import (
    AUDITORS,
    DAY,
    DAY_REFUSALS,
    OFFICE,
    OFFICES,
    OPERATORS,
    READERS,
    QueryParameters,
    Token,
    get,
    outcome_response,
    post,
    put,
)
from quota_engine.service.context import ServiceContext
from quota_engine.service.http.request import ApiRequest
from quota_engine.service.http.responses import ApiResponse


class AuditQuery(QueryParameters, frozen=True, kw_only=True):
    """The office to audit; without one, all."""

    office: Token = ""


class HoldRemainingQuery(QueryParameters, frozen=True, kw_only=True):
    """Upper bounds of the remaining time in milliseconds: ascending, separated by commas, at most 16."""

    bounds_ms: Annotated[str, Meta(pattern="^([0-9]{1,15}(,[0-9]{1,15}){0,15})?$")] = ""


async def hold_remaining_histogram(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    office, day = request.path["office"], request.path["day"]
    bounds_ms = [int(bound) for bound in request.query.bounds_ms.split(",") if bound]
    holds = await context.engine.hold_remaining_histogram(office, day, bounds_ms)
    date = datetime.date.fromisoformat(day)
    return ApiResponse(200, HoldRemainingBody(office=office, day=date, bounds_ms=bounds_ms, holds=holds))


async def abandoned_holds(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    office = request.path["office"]
    counts = await context.engine.abandoned_holds(office)
    body = AbandonedHoldsBody(office=office, released=counts.released, expired=counts.expired, blocks=counts.blocks)
    return ApiResponse(200, body)


async def list_ledgers(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    return ApiResponse(200, LedgersBody(offices=await context.engine.list_offices()))


async def set_capacity(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    path = request.path
    body: SetCapacityBody = request.body
    outcome = await context.engine.set_capacity(
        path["office"], path["day"], path["quota"], body.capacity, expected_revision=body.expected_revision
    )
    return outcome_response(context, request, outcome)


def _day_command(method: str, *, with_quota: bool = False) -> Any:
    """Return a handler that calls the engine's method with office, day and, if ``with_quota``, the quota."""

    async def handle(context: ServiceContext, request: ApiRequest) -> ApiResponse:
        path = request.path
        quota = (path["quota"],) if with_quota else ()
        body: DayCommandBody = request.body
        outcome = await getattr(context.engine, method)(
            path["office"], path["day"], *quota, expected_revision=body.expected_revision
        )
        return outcome_response(context, request, outcome)

    return handle


async def expire(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    outcome = await context.engine.expire(request.path["office"], request.path["day"], request.body.limit)
    return outcome_response(context, request, outcome)


async def publish(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    days: PublishBody = request.body
    report = await context.engine.publish(
        context.catalog, days.first_day, days.last_day, offices=days.offices, dry_run=days.dry_run
    )
    body = PublishedBody(
        offices=report.offices,
        days_published=report.days_published,
        days_unchanged=report.days_unchanged,
        days_over=report.days_over,
        problems=list(report.problems),
        days_closed=report.days_closed,
        quotas_removed=report.quotas_removed,
        people_affected=report.people_affected,
        days_refused=report.days_refused,
        overbooked=report.overbooked,
    )
    return ApiResponse(200, body)


async def relocate_day(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    plan: RelocateDayBody = request.body
    path = request.path
    for target in plan.targets:
        if target.office and request.grant is not None:
            # The path names the office of the closed day; the token has to cover the other ones as well.
            context.access.authorize(request.grant, OPERATORS, target.office)
    report = await context.engine.relocate_day(
        path["office"],
        path["day"],
        [(target.office or path["office"], target.day) for target in plan.targets],
        other_sessions=plan.other_sessions,
        after=plan.after,
        limit=plan.limit,
        dry_run=plan.dry_run,
    )
    if report.status is not Status.DONE:
        return outcome_response(context, request, Outcome(report.status))
    return ApiResponse(200, relocation_body(report))


async def audit(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    report = await context.engine.audit(request.query.office or None)
    return ApiResponse(200, AuditBody(ok=report.ok, offices=report.offices, findings=list(report.findings)))


async def recover_moves(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    body: RecoverMovesBody = request.body
    report = await context.engine.recover_moves(older_than_ms=body.older_than_ms, limit=body.limit)
    return ApiResponse(200, MovesBody(finished=report.finished, undone=report.undone))


async def reconcile(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    report = await context.engine.reconcile(request.path["address"])
    body = ReconciledBody(
        address=report.address,
        epoch=report.epoch,
        findings=list(report.findings),
        repaired=report.repaired,
        time_corrected_by_ms=report.time_corrected_by_ms,
    )
    return ApiResponse(200, body)


async def get_catalog(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    return ApiResponse(200, catalog_body(context.catalog))


_QUOTA: Final = DAY + "/quotas/{quota}"
_CHANGE_REFUSALS: Final = (*DAY_REFUSALS, Status.STALE)
_QUOTA_REFUSALS: Final = (*_CHANGE_REFUSALS, Status.UNKNOWN_QUOTA, Status.WRONG_STATE)
_OPERATION: Final[dict[str, Any]] = {"roles": OPERATORS, "problems": ("unknown-name",)}

OPERATIONS: Final = (
    put(
        _QUOTA + "/capacity", "set-capacity", "Set the capacity of a quota.", set_capacity,
        body_type=SetCapacityBody, refusals=_QUOTA_REFUSALS, **_OPERATION,
    ),
    post(
        _QUOTA + "/reallocate-unused", "reallocate-unused", "Move unused units of an allotment to the next one now.",
        _day_command("reallocate_unused", with_quota=True), body_type=DayCommandBody, refusals=_QUOTA_REFUSALS,
        **_OPERATION,
    ),
    post(
        _QUOTA + "/release-parked", "release-parked", "Make units that are parked for a draw available.",
        _day_command("release_parked", with_quota=True), body_type=DayCommandBody,
        refusals=(*_CHANGE_REFUSALS, Status.UNKNOWN_QUOTA), **_OPERATION,
    ),
    post(
        DAY + "/close", "close-day", "Close a day for booking.", _day_command("close_day"),
        body_type=DayCommandBody, refusals=_CHANGE_REFUSALS, **_OPERATION,
    ),
    post(
        DAY + "/open", "open-day", "Reopen a closed day.", _day_command("open_day"),
        body_type=DayCommandBody, refusals=_CHANGE_REFUSALS, **_OPERATION,
    ),
    post(
        DAY + "/relocate", "relocate-day", "Close a day and move its people to other days.", relocate_day,
        RelocationBody, roles=OPERATORS, body_type=RelocateDayBody, refusals=DAY_REFUSALS,
        problems=("unknown-name", "job-timeout"),
    ),
    post(
        DAY + "/expire", "expire", "Expire overdue holds of a day.", expire, body_type=ExpireBody,
        refusals=DAY_REFUSALS, **_OPERATION,
    ),
    post(
        "/v1/publish", "publish", "Publish the working days of offices.", publish, PublishedBody, roles=OPERATORS,
        body_type=PublishBody, problems=("unknown-name", "job-timeout"),
    ),
    get(
        "/v1/catalog", "catalog", "Get the catalog that the service uses.", get_catalog, CatalogBody, roles=AUDITORS,
        uses_store=False,
    ),
    post(
        "/v1/moves/recover", "recover-moves", "Finish cross-office moves whose caller died.", recover_moves, MovesBody,
        roles=OPERATORS, body_type=RecoverMovesBody, problems=("job-timeout",),
    ),
    post(
        "/v1/ledgers/{address}/reconcile", "reconcile",
        "Recompute an office's ledger and repair what differs, or open another ledger after a failover.", reconcile,
        ReconciledBody, **_OPERATION,
    ),
    get(
        DAY + "/hold-remaining", "hold-remaining", "Count the holds of a day by their remaining time.",
        hold_remaining_histogram, HoldRemainingBody, roles=OFFICES, query_type=HoldRemainingQuery,
        problems=("unknown-name",),
    ),
    get(
        OFFICE + "/abandoned-holds", "abandoned-holds", "Count the holds that ended without a confirm.",
        abandoned_holds, AbandonedHoldsBody, roles=OFFICES, problems=("unknown-name",),
    ),
    get(
        "/v1/ledgers", "ledgers", "List the offices that have a ledger in the store.", list_ledgers, LedgersBody,
        roles=READERS,
    ),
    get(
        "/v1/audit", "audit", "Recompute every counter and report what differs.", audit, AuditBody, roles=AUDITORS,
        query_type=AuditQuery, problems=("unknown-name", "job-timeout"),
    ),
)  # fmt: skip
