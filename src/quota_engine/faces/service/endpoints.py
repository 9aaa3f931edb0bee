"""All calls of the interface, in one table, with their handlers. A handler turns a call into one of the engine's
methods, and its answer into a body; it decides nothing.
"""

from __future__ import annotations

__all__ = ["ENDPOINTS"]

import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from msgspec import Meta

from quota_engine.catalog import OfficeView, next_release
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.events import Event, ReservationChanged
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.faces.service import wire
from quota_engine.faces.service.access import Role
from quota_engine.faces.service.http import Call, Endpoint, Reply, problem_reply
from quota_engine.faces.service.problems import Problem

if TYPE_CHECKING:
    from quota_engine.faces.service.application import Service

S = Status
_APPLICANTS: Final = frozenset({Role.SERVICE})
_STAFF: Final = frozenset({Role.SERVICE, Role.OFFICE})
_OPERATORS: Final = frozenset({Role.OPERATOR})
_READERS: Final = frozenset({Role.AUDITOR, Role.SERVICE})
_AUDITORS: Final = frozenset({Role.AUDITOR})

Token = Annotated[str, Meta(max_length=64)]


class _Query(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class DaysQuery(_Query, frozen=True, kw_only=True):
    """A range of days, and what is asked for on them."""

    first_day: datetime.date
    last_day: datetime.date | None = None
    service: Token = ""
    service_unit: Token = ""
    session: Token = ""
    channel: Token = "online"
    group: Token = ""
    units: Annotated[int, Meta(ge=1, le=100)] = 1


class EventsQuery(_Query, frozen=True, kw_only=True):
    """From which event on, and how many."""

    after: Annotated[int, Meta(ge=0, le=2**53 - 1)] = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class AuditQuery(_Query, frozen=True, kw_only=True):
    """Which office; empty: all."""

    office: Token = ""


# --- Looking -------------------------------------------------------------------------------------------------------


async def offices(service: Service, call: Call) -> Reply:
    catalog = service.catalog
    found = [_office(service, view) for view in catalog.offices.values()]
    return Reply(200, wire.OfficesBody(title=catalog.title, offices=found))


async def office(service: Service, call: Call) -> Reply:
    return Reply(200, _office(service, service.office(call.path["office"])))


def _office(service: Service, view: OfficeView) -> wire.OfficeBody:
    release = next_release(service.catalog, view.id, service.now_ms())
    return wire.OfficeBody(
        id=view.id,
        name=view.name,
        city=view.city,
        province=view.province,
        time_zone=view.zone.key,
        services=[wire.NamedBody(id=one.id, name=one.name) for one in view.services.values()],
        service_units=[wire.NamedBody(id=one.id, name=one.name) for one in view.service_units.values()],
        sessions=[
            wire.SessionBody(
                id=one.id, name=one.name, start=one.start.isoformat("minutes"), end=one.end.isoformat("minutes")
            )
            for one in view.sessions.values()
        ],
        party_max=view.rules.party_max,
        hold_ttl_ms=view.rules.hold_ttl_ms,
        next_opening_at_ms=release[0] if release else None,
        next_opening_days=list(release[1]) if release else [],
    )


async def availability(service: Service, call: Call) -> Reply:
    asked: DaysQuery = call.query
    name = call.path["office"]
    views = await service.engine.availability(name, asked.first_day, asked.last_day)
    earliest = service.earliest_free(name, views, asked, asked.units)
    return Reply(
        200,
        wire.AvailabilityBody(office=name, earliest_free_day=earliest, days=[wire.day_body(view) for view in views]),
    )


# --- Reservations --------------------------------------------------------------------------------------------------


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
    )
    reply = _outcome(service, call, outcome)
    if outcome.replayed or outcome.resumed or not outcome.ok:
        return reply
    http = 202 if outcome.status is Status.WAITING else 201
    return Reply(http, reply.body, (("location", f"/v1/reservations/{outcome.reference}"),))


async def reservation(service: Service, call: Call) -> Reply:
    record = await service.engine.lookup(call.path["reference"])
    if record is None:
        raise Problem.of_outcome(Outcome(Status.NOT_FOUND), service.now_ms())
    return Reply(200, wire.reservation_body(record))


async def confirm(service: Service, call: Call) -> Reply:
    body: wire.StepBody = call.body
    engine, reference = service.engine, call.path["reference"]
    return _outcome(
        service,
        call,
        await engine.confirm(
            reference, applicant=body.applicant or None, version=body.version, reacquire=body.reacquire
        ),
    )


def _step(method: str) -> Any:
    async def step(service: Service, call: Call) -> Reply:
        body: wire.StepBody = call.body
        if body.reacquire:
            raise InvalidRequest("reacquire", "true", "false: it is only for confirm")
        run = getattr(service.engine, method)
        outcome = await run(call.path["reference"], applicant=body.applicant or None, version=body.version)
        return _outcome(service, call, outcome)

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
    return _outcome(service, call, outcome)


def _outcome(service: Service, call: Call, outcome: Outcome) -> Reply:
    service.metrics.outcome(outcome.status)
    if not outcome.ok:
        return problem_reply(Problem.of_outcome(outcome, service.now_ms()), call.request_id)
    return Reply(200, wire.outcome_body(outcome))


# --- Operators -----------------------------------------------------------------------------------------------------


async def set_capacity(service: Service, call: Call) -> Reply:
    path = call.path
    outcome = await service.engine.set_capacity(path["office"], path["day"], path["quota"], call.body.capacity)
    return _outcome(service, call, outcome)


def _on_day(method: str, *, with_quota: bool = False) -> Any:
    async def on_day(service: Service, call: Call) -> Reply:
        path = call.path
        rest = (path["quota"],) if with_quota else ()
        return _outcome(service, call, await getattr(service.engine, method)(path["office"], path["day"], *rest))

    return on_day


async def expire(service: Service, call: Call) -> Reply:
    return _outcome(service, call, await service.engine.expire(call.path["office"], call.path["day"], call.body.limit))


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


async def events(service: Service, call: Call) -> Reply:
    name, asked = call.path["office"], call.query
    found = await service.engine.events(name, asked.after, asked.limit)
    return Reply(
        200,
        wire.EventsBody(
            office=name,
            next_after=found[-1].number if found else asked.after,
            events=[_event(one.number, one.event) for one in found],
        ),
    )


def _event(number: int, event: Event) -> wire.EventBody:
    kind = type(event).__name__
    if isinstance(event, ReservationChanged):
        record = wire.reservation_body(event.reservation)
        return wire.EventBody(number=number, at_ms=event.at_ms, kind=kind, verb=event.verb, reservation=record)
    details = msgspec.to_builtins(event)
    for name in ("type", "at_ms"):
        details.pop(name, None)
    details.get("rules", {}).pop("jitter_seed", None)  # a secret: with it cooling times could be foretold
    return wire.EventBody(number=number, at_ms=event.at_ms, kind=kind, details=details)


async def trim_events(service: Service, call: Call) -> Reply:
    left = await service.engine.trim_events(call.path["office"], call.body.through)
    return Reply(200, wire.TrimmedBody(events_left=left))


# --- Health --------------------------------------------------------------------------------------------------------


async def live(service: Service, call: Call) -> Reply:
    return Reply(200, wire.HealthBody(status="live"))


async def ready(service: Service, call: Call) -> Reply:
    state = await service.readiness()
    return Reply(200 if state == "ready" else 503, wire.HealthBody(status=state))


_OF_RESERVE: Final = (
    S.OVERLOADED, S.CONFLICT, S.ENDED, S.LAPSED, S.UNKNOWN_DAY, S.UNKNOWN_QUOTA, S.CLOSED, S.OVER, S.NOT_OPEN,
    S.PARTY_TOO_LARGE, S.BLOCKED, S.IDENTITY_LIMIT, S.SOLD_OUT, S.WAIT_LIST_FULL,
)  # fmt: skip
_OF_STEP: Final = (S.OVERLOADED, S.NOT_FOUND, S.NOT_OWNER, S.EXPIRED, S.STALE, S.WRONG_STATE)
_OF_MOVE: Final = (
    *_OF_STEP, S.UNKNOWN_DAY, S.UNKNOWN_QUOTA, S.CLOSED, S.OVER, S.NOT_OPEN, S.TOO_LATE, S.MOVES_EXCEEDED,
    S.IDENTITY_LIMIT, S.SOLD_OUT,
)  # fmt: skip
_OF_DAY: Final = (S.OVERLOADED, S.UNKNOWN_DAY)
_OF_QUOTA: Final = (*_OF_DAY, S.UNKNOWN_QUOTA, S.WRONG_STATE)
_OFFICE: Final = "/v1/offices/{office}"
_DAY: Final = _OFFICE + "/days/{day}"
_QUOTA: Final = _DAY + "/quotas/{quota}"
_RESERVATION: Final = "/v1/reservations/{reference}"


def _get(path: str, name: str, summary: str, handler: Any, answer: Any, **more: Any) -> Endpoint:
    return Endpoint(method="GET", path=path, name=name, summary=summary, handler=handler, answer=answer, **more)


def _post(path: str, name: str, summary: str, handler: Any, answer: Any = wire.OutcomeBody, **more: Any) -> Endpoint:
    return Endpoint(method="POST", path=path, name=name, summary=summary, handler=handler, answer=answer, **more)


def _of_reservation(name: str, summary: str, handler: Any, roles: frozenset[Role], *more: Status) -> Endpoint:
    path = f"{_RESERVATION}/{name}"
    return _post(path, name, summary, handler, roles=roles, body=wire.StepBody, statuses=(*_OF_STEP, *more))


ENDPOINTS: Final = (
    # The busiest first: the router looks through them in this order.
    _post(
        _DAY + "/reservations", "reserve", "Hold places for a party, all or nothing.", reserve,
        http=201, also_http=(200, 202), roles=_APPLICANTS, body=wire.ReserveBody, needs_key=True,
        statuses=_OF_RESERVE, problems=("unknown-name",),
    ),
    _of_reservation(
        "confirm", "Make a hold a place, and give it a queue number.", confirm, _APPLICANTS, S.CLOSED, S.OVER
    ),
    _get(_RESERVATION, "lookup", "A reservation as it stands now.", reservation, wire.ReservationBody, roles=_STAFF,
         statuses=(S.NOT_FOUND,)),
    _get(_OFFICE + "/availability", "availability", "An office's days, and the first with a place.", availability,
         wire.AvailabilityBody, query=DaysQuery, problems=("unknown-name",)),
    _of_reservation("release", "Give up a hold, or leave the wait list.", _step("release"), _APPLICANTS),
    _of_reservation("cancel", "Give up a confirmed place.", _step("cancel"), _APPLICANTS, S.OVER),
    _post(_RESERVATION + "/reschedule", "reschedule", "Move to another day or session, or keep the place.", reschedule,
          roles=_APPLICANTS, body=wire.MoveBody, statuses=_OF_MOVE, problems=("unknown-name",)),
    _of_reservation("check-in", "The party has come.", _step("check_in"), _STAFF, S.OVER, S.TOO_EARLY),
    _of_reservation("no-show", "The party has not come.", _step("mark_no_show"), _STAFF, S.TOO_EARLY),
    _get("/v1/offices", "offices", "The offices, what they offer, and when they open next.", offices, wire.OfficesBody),
    _get(_OFFICE, "office", "One office.", office, wire.OfficeBody, problems=("unknown-name",)),
    _get(_OFFICE + "/events", "events", "What has happened at an office, in order.", events, wire.EventsBody,
         roles=_READERS, query=EventsQuery, problems=("unknown-name",)),
    _post(_OFFICE + "/events/trim", "trim-events", "Drop events that all who need them have read.", trim_events,
          wire.TrimmedBody, roles=_OPERATORS, body=wire.TrimBody, problems=("unknown-name",)),
    Endpoint(method="PUT", path=_QUOTA + "/capacity", name="set-capacity", summary="Set a quota's capacity.",
             handler=set_capacity, answer=wire.OutcomeBody, roles=_OPERATORS, body=wire.CapacityBody,
             statuses=_OF_QUOTA, problems=("unknown-name",)),
    _post(_QUOTA + "/pass-on", "pass-on", "Pass an allotment's unused places on now.",
          _on_day("pass_on_unused", with_quota=True), roles=_OPERATORS, statuses=_OF_QUOTA, problems=("unknown-name",)),
    _post(_QUOTA + "/return-parked", "return-parked", "Make places that wait for the next draw available.",
          _on_day("return_parked", with_quota=True), roles=_OPERATORS, statuses=_OF_QUOTA, problems=("unknown-name",)),
    _post(_DAY + "/close", "close-day", "Stop a day: nothing more is sold.", _on_day("close_day"), roles=_OPERATORS,
          statuses=_OF_DAY, problems=("unknown-name",)),
    _post(_DAY + "/open", "open-day", "Take closing a day back.", _on_day("open_day"), roles=_OPERATORS,
          statuses=_OF_DAY, problems=("unknown-name",)),
    _post(_DAY + "/expire", "expire", "Sweep a day's overdue holds.", expire, roles=_OPERATORS, body=wire.ExpireBody,
          statuses=_OF_DAY, problems=("unknown-name",)),
    _post("/v1/publish", "publish", "Make the working days of the catalog's offices known.", publish,
          wire.PublishedBody, roles=_OPERATORS, body=wire.PublishBody),
    _get("/v1/audit", "audit", "Work every counter out again, and say what differs.", audit, wire.AuditBody,
         roles=_AUDITORS, query=AuditQuery, problems=("unknown-name",)),
    _get("/health/live", "live", "Whether the process runs.", live, wire.HealthBody),
    _get("/health/ready", "ready", "Whether it serves: false while it drains, or the store is away.", ready,
         wire.HealthBody, also_http=(503,)),
)  # fmt: skip
