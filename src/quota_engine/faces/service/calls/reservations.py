"""A reservation's life: from reserve to check-in."""

from __future__ import annotations

__all__ = ["RESERVATIONS"]

from typing import TYPE_CHECKING, Any, Final

from quota_engine.admission import Caller
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.faces.service import wire
from quota_engine.faces.service.access import Role
from quota_engine.faces.service.calls.common import DAY, OF_STEP, SERVICES, STAFF, get, outcome_reply, post
from quota_engine.faces.service.http import Call, Endpoint, Reply
from quota_engine.faces.service.problems import Problem

if TYPE_CHECKING:
    from quota_engine.faces.service.application import Service

S = Status
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
        key=key,
        wait=body.wait,
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
    return Reply(200, wire.reservation_body(record))


async def confirm(service: Service, call: Call) -> Reply:
    body: wire.ConfirmBody = call.body
    engine, reference = service.engine, call.path["reference"]
    return outcome_reply(
        service,
        call,
        await engine.confirm(
            reference, applicant=body.applicant or None, version=body.version, reacquire=body.reacquire
        ),
    )


def _step(method: str) -> Any:
    async def step(service: Service, call: Call) -> Reply:
        body: wire.StepBody = call.body
        run = getattr(service.engine, method)
        outcome = await run(call.path["reference"], applicant=body.applicant or None, version=body.version)
        return outcome_reply(service, call, outcome)

    return step


async def reschedule(service: Service, call: Call) -> Reply:
    body: wire.MoveBody = call.body
    outcome = await service.engine.reschedule(
        call.path["reference"],
        body.day,
        service=body.service,
        service_unit=body.service_unit,
        session=body.session,
        channel=body.channel,
        group=body.group,
        applicant=body.applicant or None,
        version=body.version,
    )
    return outcome_reply(service, call, outcome)


_OF_RESERVE: Final = (
    S.OVERLOADED, S.CONFLICT, S.ENDED, S.NOT_ADMITTED, S.THROTTLED, S.LAPSED, S.UNKNOWN_DAY, S.UNKNOWN_QUOTA, S.CLOSED,
    S.OVER, S.NOT_OPEN, S.PARTY_TOO_LARGE, S.BLOCKED, S.IDENTITY_LIMIT, S.SOLD_OUT, S.WAIT_LIST_FULL,
)  # fmt: skip
_OF_MOVE: Final = (
    *OF_STEP, S.UNKNOWN_DAY, S.UNKNOWN_QUOTA, S.CLOSED, S.OVER, S.NOT_OPEN, S.TOO_LATE, S.MOVES_EXCEEDED,
    S.IDENTITY_LIMIT, S.SOLD_OUT,
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
        "confirm", "Make a hold a place, and give it a queue number.", confirm, SERVICES, S.CLOSED, S.OVER,
        body=wire.ConfirmBody,
    ),
    get(_RESERVATION, "lookup", "A reservation as it stands now.", reservation, wire.ReservationBody, roles=STAFF,
        statuses=(S.NOT_FOUND,)),
    _of_reservation("release", "Give up a hold, or leave the wait list.", _step("release"), SERVICES),
    _of_reservation("cancel", "Give up a confirmed place.", _step("cancel"), SERVICES, S.OVER),
    post(_RESERVATION + "/reschedule", "reschedule", "Move to another day or session, or keep the place.", reschedule,
         roles=SERVICES, body=wire.MoveBody, statuses=_OF_MOVE, problems=("unknown-name",)),
    _of_reservation("check-in", "The party has come.", _step("check_in"), STAFF, S.OVER, S.TOO_EARLY),
    _of_reservation("no-show", "The party has not come.", _step("mark_no_show"), STAFF, S.TOO_EARLY),
)  # fmt: skip
