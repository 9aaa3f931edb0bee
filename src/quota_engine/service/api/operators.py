"""What operators and auditors ask for: capacities, closing days, publishing, sweeping, audits."""

from __future__ import annotations

__all__ = ["OPERATIONS"]

import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

from msgspec import Meta

from quota_engine.api_schema import reservations as wire
from quota_engine.api_schema.operators import (
    CatalogBody,
    HoldRemainingBody,
    LedgersBody,
    MovesBody,
    ReconciledBody,
    RecoverMovesBody,
    catalog_body,
)
from quota_engine.domain.outcomes import Status
from quota_engine.service.api.common import (
    AUDITORS,
    DAY,
    OF_DAY,
    OFFICE,
    OFFICES,
    OPERATORS,
    READERS,
    QuerySettings,
    Token,
    get,
    outcome_reply,
    post,
    put,
)
from quota_engine.service.http.endpoint import Call, Reply

if TYPE_CHECKING:
    from quota_engine.service.app import Service


class AuditQuery(QuerySettings, frozen=True, kw_only=True):
    """Which office; empty: all."""

    office: Token = ""


class HoldsQuery(QuerySettings, frozen=True, kw_only=True):
    """Bounds of how much time is left, in milliseconds, rising, with commas between them."""

    bounds_ms: Annotated[str, Meta(pattern="^([0-9]{1,15}(,[0-9]{1,15}){0,15})?$")] = ""


async def hold_remaining_histogram(service: Service, call: Call) -> Reply:
    office, day = call.path["office"], call.path["day"]
    bounds = [int(bound) for bound in call.query.bounds_ms.split(",") if bound]
    holds = await service.engine.hold_remaining_histogram(office, day, bounds)
    return Reply(
        200, HoldRemainingBody(office=office, day=datetime.date.fromisoformat(day), bounds_ms=bounds, holds=holds)
    )


async def ledgers(service: Service, call: Call) -> Reply:
    return Reply(200, LedgersBody(offices=await service.engine.list_offices()))


async def set_capacity(service: Service, call: Call) -> Reply:
    path = call.path
    outcome = await service.engine.set_capacity(path["office"], path["day"], path["quota"], call.body.capacity)
    return outcome_reply(service, call, outcome)


def _on_day(method: str, *, with_quota: bool = False) -> Any:
    async def on_day(service: Service, call: Call) -> Reply:
        path = call.path
        rest = (path["quota"],) if with_quota else ()
        outcome = await getattr(service.engine, method)(path["office"], path["day"], *rest)
        return outcome_reply(service, call, outcome)

    return on_day


async def expire(service: Service, call: Call) -> Reply:
    return outcome_reply(
        service, call, await service.engine.expire(call.path["office"], call.path["day"], call.body.limit)
    )


async def publish(service: Service, call: Call) -> Reply:
    report = await service.engine.publish(service.catalog, call.body.first_day, call.body.last_day)
    return Reply(
        200,
        wire.PublishedBody(
            offices=report.offices,
            days_published=report.days_published,
            days_unchanged=report.days_unchanged,
            days_over=report.days_over,
        ),
    )


async def audit(service: Service, call: Call) -> Reply:
    report = await service.engine.audit(call.query.office or None)
    return Reply(200, wire.AuditBody(ok=report.ok, offices=report.offices, findings=list(report.findings)))


async def recover_moves(service: Service, call: Call) -> Reply:
    body: RecoverMovesBody = call.body
    report = await service.engine.recover_moves(older_than_ms=body.older_than_ms, limit=body.limit)
    return Reply(200, MovesBody(finished=report.finished, undone=report.undone))


async def reconcile(service: Service, call: Call) -> Reply:
    found = await service.engine.reconcile(call.path["office"])
    return Reply(
        200,
        ReconciledBody(office=found.office, epoch=found.epoch, findings=list(found.findings), repaired=found.repaired),
    )


async def catalog(service: Service, call: Call) -> Reply:
    return Reply(200, catalog_body(service.catalog))


_QUOTA: Final = DAY + "/quotas/{quota}"
_OF_QUOTA: Final = (*OF_DAY, Status.UNKNOWN_QUOTA, Status.WRONG_STATE)

OPERATIONS: Final = (
    put(_QUOTA + "/capacity", "set-capacity", "Set a quota's capacity.", set_capacity, roles=OPERATORS,
        body=wire.CapacityBody, statuses=_OF_QUOTA, problems=("unknown-name",)),
    post(_QUOTA + "/pass-on", "pass-on", "Pass an allotment's unused places on now.",
         _on_day("reallocate_unused", with_quota=True), roles=OPERATORS, statuses=_OF_QUOTA, problems=("unknown-name",)),  # noqa: E501
    post(_QUOTA + "/return-parked", "return-parked", "Make places that wait for the next draw available.",
         _on_day("release_parked", with_quota=True), roles=OPERATORS,
         statuses=(*OF_DAY, Status.UNKNOWN_QUOTA), problems=("unknown-name",)),
    post(DAY + "/close", "close-day", "Stop a day: nothing more is sold.", _on_day("close_day"), roles=OPERATORS,
         statuses=OF_DAY, problems=("unknown-name",)),
    post(DAY + "/open", "open-day", "Take closing a day back.", _on_day("open_day"), roles=OPERATORS,
         statuses=OF_DAY, problems=("unknown-name",)),
    post(DAY + "/expire", "expire", "Sweep a day's overdue holds.", expire, roles=OPERATORS, body=wire.ExpireBody,
         statuses=OF_DAY, problems=("unknown-name",)),
    post("/v1/publish", "publish", "Make the working days of the catalog's offices known.", publish,
         wire.PublishedBody, roles=OPERATORS, body=wire.PublishBody),
    get("/v1/catalog", "catalog", "The catalog that the service works with.", catalog, CatalogBody, roles=AUDITORS,
        asks_store=False),
    post("/v1/moves/finish", "finish-moves", "Bring moves to their end whose callers have died on the way.",
         recover_moves, MovesBody, roles=OPERATORS, body=RecoverMovesBody),
    post(OFFICE + "/reconcile", "reconcile", "Look an office's ledger through, and put right what is wrong.",
         reconcile, ReconciledBody, roles=OPERATORS, problems=("unknown-name",)),
    get(DAY + "/holds", "count-holds", "How many holds of a day have how much of their time left.", hold_remaining_histogram,  # noqa: E501
        HoldRemainingBody, roles=OFFICES, query=HoldsQuery, problems=("unknown-name",)),
    get("/v1/ledgers", "ledgers", "The offices that the store has a ledger of.", ledgers, LedgersBody, roles=READERS),
    get("/v1/audit", "audit", "Work every counter out again, and say what differs.", audit, wire.AuditBody,
        roles=AUDITORS, query=AuditQuery, problems=("unknown-name",)),
)  # fmt: skip
