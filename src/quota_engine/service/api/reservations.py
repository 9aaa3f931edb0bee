"""A reservation's life: from reserve to check-in."""

from __future__ import annotations

__all__ = ["RESERVATIONS"]

import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

from msgspec import Meta
from msgspec.structs import replace

from quota_engine.admission import Caller
from quota_engine.api_schema import reservations as wire
from quota_engine.api_schema.operators import DayListBody, MovedToBody
from quota_engine.domain.lifecycle import State
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.service.api.common import (
    DAY,
    OF_STEP,
    OFFICES,
    SERVICES,
    STAFF,
    QuerySettings,
    get,
    outcome_reply,
    post,
)
from quota_engine.service.auth import Role
from quota_engine.service.http.endpoint import Call, Endpoint, Reply
from quota_engine.service.http.problems import Problem

if TYPE_CHECKING:
    from quota_engine.service.app import Service

S = Status


class DayListQuery(QuerySettings, frozen=True, kw_only=True):
    """Which part of the list."""

    skip: Annotated[int, Meta(ge=0, le=10_000_000)] = 0
    limit: Annotated[int, Meta(ge=1, le=1_000)] = 1_000


_NOBODY: Final = Caller()


async def reserve(service: Service, call: Call) -> Reply:
    body: wire.ReserveBody = call.body
    key = call.headers.get(b"idempotency-key", b"").decode("latin-1")
    if not key:
        raise Problem("bad-request", "send  Idempotency-Key: a key that is new for each wish")
    outcome = await service.engine.reserve(
        call.path["office"],
        call.path["day"],
        body.applicants,
        service=body.service,
        service_unit=body.service_unit,
        session=body.session,
        channel=body.channel,
        group=body.group,
        idempotency_key=key,
        join_wait_list=body.join_wait_list,
        hold_ttl_ms=body.hold_ttl_ms,
        admission_pass=body.admission_pass,
        caller=_caller(body.caller),
    )
    reply = outcome_reply(service, call, outcome)
    if outcome.replayed or outcome.resumed or not outcome.ok:
        return reply
    http = 202 if outcome.status is Status.WAITING else 201
    return Reply(http, reply.body, (("location", f"/v1/reservations/{outcome.reference}"),))


def _caller(body: wire.CallerBody) -> Caller | None:
    caller = Caller(body.account, body.network, body.device)
    return None if caller == _NOBODY else caller


async def reservation(service: Service, call: Call) -> Reply:
    record = await service.engine.lookup(call.path["reference"])
    if record is None:
        raise Problem.of_outcome(Outcome(Status.NOT_FOUND), service.now_ms())
    body = wire.reservation_body(record)
    if record.state is State.WAITING:
        place = await service.engine.wait_list_position(record.reference)
        if place is not None:
            body = replace(body, wait_list_position=wire.WaitListPositionBody(ahead=place.ahead, waiting=place.waiting))
    elif record.state is State.MOVED:
        body = replace(body, moved_to=await service.engine.find_moved(record.reference))
    return Reply(200, body)


async def moved_to(service: Service, call: Call) -> Reply:
    return Reply(200, MovedToBody(reference=await service.engine.find_moved(call.path["reference"])))


async def day_list(service: Service, call: Call) -> Reply:
    asked: DayListQuery = call.query
    office, day = call.path["office"], call.path["day"]
    found = await service.engine.list_reservations(office, day)
    part = found[asked.skip : asked.skip + asked.limit]
    return Reply(
        200,
        DayListBody(
            office=office,
            day=datetime.date.fromisoformat(day),
            total=len(found),
            reservations=[wire.reservation_body(record) for record in part],
        ),
    )


async def confirm(service: Service, call: Call) -> Reply:
    body: wire.ConfirmBody = call.body
    engine, reference = service.engine, call.path["reference"]
    return outcome_reply(
        service,
        call,
        await engine.confirm(
            reference, owner=body.owner or None, expected_version=body.expected_version, reacquire=body.reacquire
        ),
    )


def _step(method: str) -> Any:
    async def step(service: Service, call: Call) -> Reply:
        body: wire.StepBody = call.body
        run = getattr(service.engine, method)
        outcome = await run(call.path["reference"], owner=body.owner or None, expected_version=body.expected_version)
        return outcome_reply(service, call, outcome)

    return step


async def reschedule(service: Service, call: Call) -> Reply:
    body: wire.MoveBody = call.body
    if body.office and call.grant is not None:
        # The address has the office that it leaves; a token has to be good for the one that it goes to as well.
        service.access.check(call.grant, SERVICES, body.office)
    outcome = await service.engine.reschedule(
        call.path["reference"],
        body.day,
        office=body.office,
        service=body.service,
        service_unit=body.service_unit,
        session=body.session,
        channel=body.channel,
        group=body.group,
        owner=body.owner or None,
        expected_version=body.expected_version,
    )
    return outcome_reply(service, call, outcome)


_OF_RESERVE: Final = (
    S.OVERLOADED, S.CONFLICT, S.RESERVATION_ENDED, S.NOT_ADMITTED, S.THROTTLED, S.COMMAND_EXPIRED, S.UNKNOWN_DAY, S.UNKNOWN_QUOTA, S.DAY_CLOSED,  # noqa: E501
    S.DAY_OVER, S.NOT_OPEN, S.PARTY_TOO_LARGE, S.BLOCKED, S.IDENTITY_LIMIT, S.SOLD_OUT, S.WAIT_LIST_FULL,
)  # fmt: skip
_OF_MOVE: Final = (
    *OF_STEP, S.UNKNOWN_DAY, S.UNKNOWN_QUOTA, S.DAY_CLOSED, S.DAY_OVER, S.NOT_OPEN, S.TOO_LATE, S.MOVES_EXCEEDED,
    S.IDENTITY_LIMIT, S.SOLD_OUT, S.MOVING, S.COMMAND_EXPIRED, S.RESERVATION_ENDED, S.CONFLICT, S.PARTY_TOO_LARGE, S.BLOCKED,  # noqa: E501
)  # fmt: skip
_RESERVATION: Final = "/v1/reservations/{reference}"


def _of_reservation(
    name: str, summary: str, handler: Any, roles: frozenset[Role], *more: Status, body: type = wire.StepBody
) -> Endpoint:
    path = f"{_RESERVATION}/{name}"
    return post(path, name, summary, handler, roles=roles, body=body, statuses=(*OF_STEP, *more))


RESERVATIONS: Final = (
    post(
        DAY + "/reservations", "reserve", "Hold places for a party, all or nothing.", reserve,
        http=201, also_http=(200, 202), roles=SERVICES, body=wire.ReserveBody, needs_key=True,
        statuses=_OF_RESERVE, problems=("unknown-name",),
    ),
    _of_reservation(
        "confirm", "Make a hold a place, and give it a queue number.", confirm, SERVICES, S.DAY_CLOSED, S.DAY_OVER,
        body=wire.ConfirmBody,
    ),
    get(_RESERVATION, "lookup", "A reservation as it stands now.", reservation, wire.ReservationBody, roles=STAFF,
        statuses=(S.NOT_FOUND,)),
    get(_RESERVATION + "/moved-to", "moved-to", "Where a reservation goes on that was moved to another office.",
        moved_to, MovedToBody, roles=STAFF),
    get(DAY + "/reservations", "reservations", "The list of a day, for the people at the office.", day_list,
        DayListBody, roles=OFFICES, query=DayListQuery, problems=("unknown-name",)),
    _of_reservation("release", "Give up a hold, or leave the wait list.", _step("release"), SERVICES),
    _of_reservation("cancel", "Give up a confirmed place.", _step("cancel"), SERVICES, S.DAY_OVER),
    post(_RESERVATION + "/reschedule", "reschedule", "Move to another day or office, or keep the place.", reschedule,
         roles=SERVICES, body=wire.MoveBody, statuses=_OF_MOVE, problems=("unknown-name",)),
    _of_reservation("check-in", "The party has come.", _step("check_in"), STAFF, S.DAY_OVER, S.TOO_EARLY),
    _of_reservation("no-show", "The party has not come.", _step("mark_no_show"), STAFF, S.TOO_EARLY),
)  # fmt: skip
