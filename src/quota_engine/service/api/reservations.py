"""Endpoints for reservations, from reserve to check-in."""

from __future__ import annotations

__all__ = ["RESERVATIONS"]

import datetime
from typing import Annotated, Any, Final

from msgspec import UNSET, Meta
from msgspec.structs import replace

from quota_engine.admission import Caller
from quota_engine.api_schema.reservations import (
    CallerBody,
    ConfirmBody,
    DayListBody,
    ExtendBody,
    MovedToBody,
    RemoveApplicantBody,
    ReplaceApplicantBody,
    RescheduleBody,
    ReservationBody,
    ReserveBody,
    StepBody,
    WaitListPositionBody,
    reservation_body,
)
from quota_engine.catalog import extensions_left
from quota_engine.domain.lifecycle import State
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.service.api.common import (
    DAY,
    OFFICES,
    OPERATORS,
    SERVICES,
    STAFF,
    STEP_REFUSALS,
    QueryParameters,
    get,
    outcome_response,
    post,
)
from quota_engine.service.context import ServiceContext
from quota_engine.service.http.auth import Role
from quota_engine.service.http.endpoint import Endpoint
from quota_engine.service.http.problems import Problem
from quota_engine.service.http.request import ApiRequest
from quota_engine.service.http.responses import ApiResponse

S = Status


class DayListQuery(QueryParameters, frozen=True, kw_only=True):
    """A page of a day's list: ``limit`` reservations after the first ``skip``."""

    skip: Annotated[int, Meta(ge=0, le=10_000_000)] = 0
    limit: Annotated[int, Meta(ge=1, le=1_000)] = 1_000


_UNKNOWN_CALLER: Final = Caller()


async def reserve(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    body: ReserveBody = request.body
    idempotency_key = request.headers.get(b"idempotency-key", b"").decode("latin-1")
    outcome = await context.engine.reserve(
        request.path["office"],
        request.path["day"],
        body.applicants,
        **body.selection(),
        idempotency_key=idempotency_key,
        join_wait_list=body.join_wait_list,
        hold_ttl_ms=body.hold_ttl_ms,
        admission_pass=body.admission_pass,
        caller=_caller(body.caller),
    )
    response = outcome_response(context, request, outcome)
    if outcome.replayed or outcome.resumed or not outcome.ok:
        return response
    status = 202 if outcome.status is Status.WAITING else 201
    return ApiResponse(status, response.body, (("location", f"/v1/reservations/{outcome.reference}"),))


def _caller(body: CallerBody) -> Caller | None:
    caller = Caller(body.account, body.network, body.device)
    return None if caller == _UNKNOWN_CALLER else caller


async def get_reservation(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    reservation = await context.engine.lookup(request.path["reference"])
    if reservation is None:
        raise Problem.from_outcome(Outcome(Status.NOT_FOUND), context.now_ms())
    body = reservation_body(reservation)
    if reservation.state is State.WAITING:
        position = await context.engine.wait_list_position(reservation.reference)
        if position is not None:
            position_body = WaitListPositionBody(ahead=position.ahead, waiting=position.waiting)
            body = replace(body, wait_list_position=position_body)
    elif reservation.state is State.HELD:
        body = replace(body, extensions_left=extensions_left(context.catalog, reservation) or UNSET)
    elif reservation.state is State.MOVED:
        body = replace(body, moved_to=await context.engine.find_moved(reservation.reference))
    return ApiResponse(200, body)


async def find_moved(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    return ApiResponse(200, MovedToBody(reference=await context.engine.find_moved(request.path["reference"])))


async def list_day(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    query: DayListQuery = request.query
    office, day = request.path["office"], request.path["day"]
    reservations = await context.engine.list_reservations(office, day)
    page = reservations[query.skip : query.skip + query.limit]
    body = DayListBody(
        office=office,
        day=datetime.date.fromisoformat(day),
        total=len(reservations),
        reservations=[reservation_body(reservation) for reservation in page],
    )
    return ApiResponse(200, body)


async def confirm(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    body: ConfirmBody = request.body
    outcome = await context.engine.confirm(
        request.path["reference"],
        owner=body.owner or None,
        expected_version=body.expected_version,
        reacquire=body.reacquire,
        admission_pass=body.admission_pass,
        caller=_caller(body.caller),
    )
    return outcome_response(context, request, outcome)


async def extend(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    body: ExtendBody = request.body
    outcome = await context.engine.extend(
        request.path["reference"], body.extension, owner=body.owner or None, expected_version=body.expected_version
    )
    return outcome_response(context, request, outcome)


async def remove_applicant(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    body: RemoveApplicantBody = request.body
    outcome = await context.engine.remove_applicant(
        request.path["reference"], body.applicant, owner=body.owner or None, expected_version=body.expected_version
    )
    return outcome_response(context, request, outcome)


async def replace_applicant(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    body: ReplaceApplicantBody = request.body
    outcome = await context.engine.replace_applicant(
        request.path["reference"], body.applicant, body.replacement, expected_version=body.expected_version
    )
    return outcome_response(context, request, outcome)


def _step(method: str) -> Any:
    """Return a handler that calls the engine's method with the reference, its owner and its expected version."""

    async def handle(context: ServiceContext, request: ApiRequest) -> ApiResponse:
        body: StepBody = request.body
        step = getattr(context.engine, method)
        outcome = await step(
            request.path["reference"], owner=body.owner or None, expected_version=body.expected_version
        )
        return outcome_response(context, request, outcome)

    return handle


async def reschedule(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    body: RescheduleBody = request.body
    if body.office and request.grant is not None:
        # The path names the office that the reservation leaves; the token has to cover the other one as well.
        context.access.authorize(request.grant, SERVICES, body.office)
    outcome = await context.engine.reschedule(
        request.path["reference"],
        body.day,
        office=body.office,
        **body.selection(),
        owner=body.owner or None,
        expected_version=body.expected_version,
        admission_pass=body.admission_pass,
        caller=_caller(body.caller),
    )
    return outcome_response(context, request, outcome)


_RESERVE_REFUSALS: Final = (
    S.OVERLOADED, S.CONFLICT, S.RESERVATION_ENDED, S.NOT_ADMITTED, S.THROTTLED, S.COMMAND_EXPIRED, S.UNKNOWN_DAY,
    S.UNKNOWN_QUOTA, S.DAY_CLOSED, S.DAY_OVER, S.SESSION_OVER, S.NOT_OPEN, S.PARTY_TOO_LARGE, S.BLOCKED,
    S.IDENTITY_LIMIT, S.SOLD_OUT, S.WAIT_LIST_FULL,
)  # fmt: skip
_RESCHEDULE_REFUSALS: Final = (
    *STEP_REFUSALS, S.NOT_ADMITTED, S.THROTTLED, S.UNKNOWN_DAY, S.UNKNOWN_QUOTA, S.DAY_CLOSED, S.DAY_OVER,
    S.SESSION_OVER, S.NOT_OPEN, S.TOO_LATE, S.MOVES_EXCEEDED, S.IDENTITY_LIMIT, S.SOLD_OUT, S.MOVING,
    S.COMMAND_EXPIRED, S.RESERVATION_ENDED, S.CONFLICT, S.PARTY_TOO_LARGE, S.BLOCKED,
)  # fmt: skip
_REPLACE_REFUSALS: Final = (
    S.OVERLOADED, S.COMMAND_EXPIRED, S.NOT_FOUND, S.NOT_IN_PARTY, S.HOLD_EXPIRED, S.STALE, S.WRONG_STATE, S.DAY_CLOSED,
    S.DAY_OVER, S.BLOCKED, S.IDENTITY_LIMIT,
)  # fmt: skip
_RESERVATION: Final = "/v1/reservations/{reference}"


def _step_endpoint(
    name: str, summary: str, handler: Any, roles: frozenset[Role], *refusals: Status, body_type: type = StepBody
) -> Endpoint:
    path = f"{_RESERVATION}/{name}"
    all_refusals = (*STEP_REFUSALS, *refusals)
    return post(path, name, summary, handler, roles=roles, body_type=body_type, refusals=all_refusals)


RESERVATIONS: Final = (
    post(
        DAY + "/reservations", "reserve", "Hold places for a party, all or nothing.", reserve,
        status=201, other_statuses=(200, 202), roles=SERVICES, body_type=ReserveBody, needs_idempotency_key=True,
        refusals=_RESERVE_REFUSALS, problems=("unknown-name",),
    ),
    _step_endpoint(
        "confirm", "Confirm a hold and assign queue numbers.", confirm, SERVICES, S.NOT_ADMITTED, S.THROTTLED,
        S.DAY_CLOSED, S.DAY_OVER, S.SESSION_OVER, body_type=ConfirmBody,
    ),
    get(
        _RESERVATION, "lookup", "Get a reservation.", get_reservation, ReservationBody, roles=STAFF,
        refusals=(S.NOT_FOUND,),
    ),
    get(
        _RESERVATION + "/moved-to", "moved-to", "Find the new reference of a reservation that moved to another office.",
        find_moved, MovedToBody, roles=STAFF,
    ),
    get(
        DAY + "/reservations", "reservations", "List the reservations of a day, for the office's staff.", list_day,
        DayListBody, roles=OFFICES, query_type=DayListQuery, problems=("unknown-name",),
    ),
    _step_endpoint(
        "extend", "Give a hold more time.", extend, SERVICES, S.DAY_CLOSED, S.DAY_OVER, S.SESSION_OVER,
        S.EXTENSIONS_EXCEEDED, body_type=ExtendBody,
    ),
    _step_endpoint(
        "remove-applicant", "Take one applicant out of a party.", remove_applicant, SERVICES, S.NOT_IN_PARTY,
        S.DAY_OVER, S.PARTY_TOO_SMALL, S.WAIT_LIST_FULL, body_type=RemoveApplicantBody,
    ),
    post(
        _RESERVATION + "/replace-applicant", "replace-applicant",
        "Put another applicant in the place of one of a party; for operators only.", replace_applicant,
        roles=OPERATORS, body_type=ReplaceApplicantBody, refusals=_REPLACE_REFUSALS,
    ),
    _step_endpoint("release", "Release a hold, or leave the wait list.", _step("release"), SERVICES),
    _step_endpoint(
        "decline", "Decline an offer of the wait list, and keep the place on the list.", _step("decline"), SERVICES,
        S.DAY_CLOSED, S.DAY_OVER, S.SESSION_OVER, S.DECLINES_EXCEEDED,
    ),
    _step_endpoint("cancel", "Cancel a confirmed reservation.", _step("cancel"), SERVICES, S.DAY_OVER),
    post(
        _RESERVATION + "/reschedule", "reschedule", "Move to another day or office, or keep the place.", reschedule,
        roles=SERVICES, body_type=RescheduleBody, refusals=_RESCHEDULE_REFUSALS, problems=("unknown-name",),
    ),
    _step_endpoint(
        "check-in", "Mark the party as attended.", _step("check_in"), STAFF, S.DAY_OVER, S.TOO_EARLY,
    ),
    _step_endpoint("no-show", "Mark the party as a no-show.", _step("mark_no_show"), STAFF, S.TOO_EARLY, S.DAY_CLOSED),
    _step_endpoint(
        "undo-attendance", "Undo a check-in or no-show that was recorded in error.", _step("undo_attendance"), STAFF,
        S.TOO_LATE,
    ),
)  # fmt: skip
