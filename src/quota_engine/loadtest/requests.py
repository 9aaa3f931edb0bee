"""Requests and responses of the load test, independent of the transport that carries them."""

from __future__ import annotations

__all__ = [
    "ApplyRequest",
    "CapacityRequest",
    "EncodedRequest",
    "EnterRequest",
    "FindApplicationRequest",
    "JoinRequest",
    "LoadRequest",
    "LoadResponse",
    "ReservationRequest",
    "ReserveRequest",
    "TicketStatusRequest",
    "WithdrawRequest",
    "encode_request",
    "lost_response",
    "response_of",
]

import urllib.parse
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from quota_engine import typed_data


class ReserveRequest(NamedTuple):
    """Reserve a place. ``selection`` has ids of the catalog; what is left out is up to the catalog."""

    office: str
    day: str
    applicants: tuple[str, ...]
    selection: Mapping[str, str]
    idempotency_key: str
    join_wait_list: bool = False
    admission_pass: str = ""


class ReservationRequest(NamedTuple):
    """Change a reservation; ``action`` is ``confirm``, ``release`` or ``cancel``."""

    action: str
    reference: str
    owner: str


class CapacityRequest(NamedTuple):
    """Set the capacity of a quota, in places, as an operator."""

    office: str
    day: str
    quota: str
    capacity: int


class JoinRequest(NamedTuple):
    """Join a waiting room. ``replaces_ticket`` is a ticket that missed its turn, or ``""``."""

    room: str
    identity: str
    replaces_ticket: str = ""


class TicketStatusRequest(NamedTuple):
    """Get the status of a ticket."""

    room: str
    ticket: str


class EnterRequest(NamedTuple):
    """Get the pass of a called ticket."""

    room: str
    ticket: str
    identity: str


class ApplyRequest(NamedTuple):
    """Submit an application to a draw, or change one.

    ``choices`` are in ranked order, each with office, day and selection.
    """

    draw: str
    applicants: tuple[str, ...]
    choices: tuple[Mapping[str, str], ...]
    expected_version: int = 0


class FindApplicationRequest(NamedTuple):
    """Find the application of an applicant."""

    draw: str
    applicant: str


class WithdrawRequest(NamedTuple):
    """Withdraw an application."""

    draw: str
    applicant: str
    expected_version: int


LoadRequest = (
    ReserveRequest
    | ReservationRequest
    | CapacityRequest
    | JoinRequest
    | TicketStatusRequest
    | EnterRequest
    | ApplyRequest
    | FindApplicationRequest
    | WithdrawRequest
)


class LoadResponse(NamedTuple):
    """Response to a :data:`LoadRequest`; fields that do not apply keep their defaults.

    Attributes:
        status: the engine's status. In a waiting room ``JOINED``, ``ADMITTED`` or the phase of a ticket; ``FOUND`` for
            an application that was looked up; ``""`` without a response.
        http: the HTTP status code, 0 without HTTP.
        lost: the reason why there was no response, or ``""``.
        retry_after_s: seconds to wait before the next try, if the service asked for it.
        resumed: True if an existing hold was returned.
        reference, units, quotas, queue_numbers, deadline_at_ms: of the reservation.
        ticket, admission_pass, poll_after_s: of a waiting room.
        places_left: places left behind the waiting room, -1 if unknown.
        number, version, tokens: of an application in a draw; the published list names its applicants by the tokens.
    """

    status: str = ""
    http: int = 0
    lost: str = ""
    retry_after_s: float = 0.0
    resumed: bool = False
    reference: str = ""
    units: int = 0
    quotas: tuple[str, ...] = ()
    queue_numbers: tuple[int, ...] = ()
    deadline_at_ms: int = 0
    ticket: str = ""
    admission_pass: str = ""
    poll_after_s: float = 0.0
    places_left: int = -1
    number: int = 0
    version: int = 0
    tokens: tuple[str, ...] = ()


class EncodedRequest(NamedTuple):
    """A request as HTTP; ``name`` is its name in the statistics."""

    method: str
    path: str
    name: str
    body: bytes
    headers: Mapping[str, str]


class _Record(msgspec.Struct):
    reference: str
    units: int
    quotas: tuple[str, ...]
    queue_numbers: tuple[int, ...]
    deadline_at_ms: int


class _Outcome(msgspec.Struct):
    """The fields that the load test reads, of a success and of a problem."""

    status: str | int = ""
    outcome: str = ""
    resumed: bool = False
    reservation: _Record | None = None
    phase: str = ""
    ticket: str = ""
    admission_pass: str = ""
    poll_after_ms: int = 0
    places_left: int = -1
    number: int = 0
    version: int = 0
    tokens: tuple[str, ...] = ()


_decode: Final = typed_data.json_decoder(_Outcome).decode
_encode: Final = msgspec.json.Encoder().encode
_RETRY_LATER: Final = frozenset({429, 503})


def encode_request(request: LoadRequest) -> EncodedRequest:
    """Return the HTTP request, without the token."""
    match request:
        case ReserveRequest():
            body: dict[str, object] = {"applicants": request.applicants, **request.selection}
            if request.join_wait_list:
                body["join_wait_list"] = True
            if request.admission_pass:
                body["admission_pass"] = request.admission_pass
            path = f"/v1/offices/{request.office}/days/{request.day}/reservations"
            return EncodedRequest("POST", path, "reserve", _encode(body), {"Idempotency-Key": request.idempotency_key})
        case ReservationRequest():
            body = {"owner": request.owner}
            path = f"/v1/reservations/{urllib.parse.quote(request.reference, safe='~')}/{request.action}"
            return EncodedRequest("POST", path, request.action, _encode(body), {})
        case CapacityRequest():
            path = f"/v1/offices/{request.office}/days/{request.day}/quotas/{request.quota}/capacity"
            return EncodedRequest("PUT", path, "set-capacity", _encode({"capacity": request.capacity}), {})
        case JoinRequest():
            body = {"identity": request.identity}
            if request.replaces_ticket:
                body["replaces_ticket"] = request.replaces_ticket
            return EncodedRequest("POST", f"/v1/rooms/{request.room}/tickets", "join", _encode(body), {})
        case TicketStatusRequest():
            return EncodedRequest("GET", f"/v1/rooms/{request.room}/tickets/{request.ticket}", "poll", b"", {})
        case EnterRequest():
            content = _encode({"ticket": request.ticket, "identity": request.identity})
            return EncodedRequest("POST", f"/v1/rooms/{request.room}/enter", "enter", content, {})
        case ApplyRequest():
            content = _encode(
                {
                    "applicants": request.applicants,
                    "choices": request.choices,
                    "expected_version": request.expected_version,
                }
            )
            return EncodedRequest("POST", f"/v1/draws/{request.draw}/applications", "apply", content, {})
        case FindApplicationRequest():
            content = _encode({"applicant": request.applicant})
            return EncodedRequest("POST", f"/v1/draws/{request.draw}/applications/find", "find", content, {})
        case WithdrawRequest():
            content = _encode({"applicant": request.applicant, "expected_version": request.expected_version})
            return EncodedRequest("POST", f"/v1/draws/{request.draw}/applications/withdraw", "withdraw", content, {})


def response_of(http: int, content: bytes | None, retry_after: str | None) -> LoadResponse:
    """Decode an HTTP response. A status of 5xx without ``Retry-After`` counts as no response.

    Args:
        http: the HTTP status code.
        content: the body, if there is one.
        retry_after: the header ``Retry-After``, in seconds.
    """
    try:
        body = _decode(content or b"{}")
    except msgspec.MsgspecError:
        return LoadResponse(http=http, lost=f"HTTP {http}, with an unknown body")
    if http < 400 and (body.phase or body.ticket or body.admission_pass):
        status = body.phase or ("ADMITTED" if body.admission_pass else "JOINED")
        return LoadResponse(
            status,
            http,
            ticket=body.ticket,
            admission_pass=body.admission_pass,
            poll_after_s=body.poll_after_ms / 1000,
            places_left=body.places_left,
        )
    status = body.outcome if http >= 400 else str(body.status) or "FOUND" * bool(body.number)
    if http in _RETRY_LATER:
        wait_s = float(retry_after) if retry_after and retry_after.isdigit() else 1.0
        return LoadResponse(status or "UNAVAILABLE", http, retry_after_s=max(wait_s, 0.1))
    if http >= 500 or not status:
        return LoadResponse(http=http, lost=f"HTTP {http}")
    record = body.reservation
    if record is None:
        return LoadResponse(status, http, number=body.number, version=body.version, tokens=body.tokens)
    return LoadResponse(
        status,
        http,
        resumed=body.resumed,
        reference=record.reference,
        units=record.units,
        quotas=record.quotas,
        queue_numbers=record.queue_numbers,
        deadline_at_ms=record.deadline_at_ms,
    )


def lost_response(reason: str) -> LoadResponse:
    """Return the response that stands for none."""
    return LoadResponse(lost=reason)
