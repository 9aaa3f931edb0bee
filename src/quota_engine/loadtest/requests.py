"""What people ask the service, and what they hear: apart from how it travels, so that every transport says the same."""

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


class ReserveRequest(NamedTuple):
    """A press of the button. ``wish`` are the catalog's names, without those that are left to it."""

    office: str
    day: str
    applicants: tuple[str, ...]
    selection: Mapping[str, str]
    idempotency_key: str
    join_wait_list: bool = False
    admission_pass: str = ""


class ReservationRequest(NamedTuple):
    """A step of a reservation's life: ``confirm``, ``release`` or ``cancel``."""

    action: str
    reference: str
    owner: str


class CapacityRequest(NamedTuple):
    """An operator sets a quota's capacity, in places."""

    office: str
    day: str
    quota: str
    capacity: int


class JoinRequest(NamedTuple):
    """Take a ticket of a waiting room; ``instead_of`` one that has lost its turn."""

    room: str
    identity: str
    replaces_ticket: str = ""


class TicketStatusRequest(NamedTuple):
    """Ask how a ticket stands."""

    room: str
    ticket: str


class EnterRequest(NamedTuple):
    """Take the turn of a ticket that is called: the pass to reserve with."""

    room: str
    ticket: str
    identity: str


class ApplyRequest(NamedTuple):
    """Apply in a draw, or change what was applied for: the best choice first, each with office, day and wish."""

    draw: str
    applicants: tuple[str, ...]
    choices: tuple[Mapping[str, str], ...]
    expected_version: int = 0


class FindApplicationRequest(NamedTuple):
    """Ask for the application that somebody is in."""

    draw: str
    applicant: str


class WithdrawRequest(NamedTuple):
    """Take an application back."""

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
    """What was heard.

    ``status`` is the engine's, or ``""``; ``lost`` says why there was no answer at all, and ``retry_after_s`` when to
    come back if that was asked for. Of a reservation: its reference, units, quotas, queue numbers and deadline
    (milliseconds since 1970 by the service's clock). In a waiting room ``status`` is ``JOINED``, the phase of a ticket,
    or ``ADMITTED``; ``left`` are the places left, -1 if nobody has counted them. Of an application in a draw: its
    number, version, and the tokens by which the published list names its applicants; ``status`` is ``FOUND`` if it was
    asked for.
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
    """An ask as HTTP; ``name`` is what statistics call it."""

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
    """The body of a success, and of a problem: what a caller goes by."""

    status: str | int = ""
    outcome: str = ""
    resumed: bool = False
    reservation: _Record | None = None
    phase: str = ""
    ticket: str = ""
    admission_pass: str = ""
    poll_after_ms: int = 0
    left: int = -1
    number: int = 0
    version: int = 0
    tokens: tuple[str, ...] = ()


_decode: Final = msgspec.json.Decoder(_Outcome).decode
_encode: Final = msgspec.json.Encoder().encode
_COME_BACK: Final = frozenset({429, 503})


def encode_request(ask: LoadRequest) -> EncodedRequest:
    """The request that an ask is, without the token."""
    match ask:
        case ReserveRequest():
            body: dict[str, object] = {"applicants": ask.applicants, **ask.selection}
            if ask.join_wait_list:
                body["join_wait_list"] = True
            if ask.admission_pass:
                body["admission_pass"] = ask.admission_pass
            path = f"/v1/offices/{ask.office}/days/{ask.day}/reservations"
            return EncodedRequest("POST", path, "reserve", _encode(body), {"Idempotency-Key": ask.idempotency_key})
        case ReservationRequest():
            body = {"applicant": ask.owner}
            path = f"/v1/reservations/{urllib.parse.quote(ask.reference, safe='~')}/{ask.action}"
            return EncodedRequest("POST", path, ask.action, _encode(body), {})
        case CapacityRequest():
            path = f"/v1/offices/{ask.office}/days/{ask.day}/quotas/{ask.quota}/capacity"
            return EncodedRequest("PUT", path, "set-capacity", _encode({"capacity": ask.capacity}), {})
        case JoinRequest():
            body = {"identity": ask.identity}
            if ask.replaces_ticket:
                body["replaces_ticket"] = ask.replaces_ticket
            return EncodedRequest("POST", f"/v1/rooms/{ask.room}/tickets", "join", _encode(body), {})
        case TicketStatusRequest():
            return EncodedRequest("GET", f"/v1/rooms/{ask.room}/tickets/{ask.ticket}", "poll", b"", {})
        case EnterRequest():
            content = _encode({"ticket": ask.ticket, "identity": ask.identity})
            return EncodedRequest("POST", f"/v1/rooms/{ask.room}/enter", "enter", content, {})
        case ApplyRequest():
            content = _encode({"applicants": ask.applicants, "choices": ask.choices, "version": ask.expected_version})
            return EncodedRequest("POST", f"/v1/draws/{ask.draw}/applications", "apply", content, {})
        case FindApplicationRequest():
            content = _encode({"applicant": ask.applicant})
            return EncodedRequest("POST", f"/v1/draws/{ask.draw}/applications/find", "find", content, {})
        case WithdrawRequest():
            content = _encode({"applicant": ask.applicant, "version": ask.expected_version})
            return EncodedRequest("POST", f"/v1/draws/{ask.draw}/applications/withdraw", "withdraw", content, {})


def response_of(http: int, content: bytes | None, retry_after: str | None) -> LoadResponse:
    """What an HTTP answer says. A status of 5xx that does not ask to come back is no answer."""
    try:
        body = _decode(content or b"{}")
    except msgspec.MsgspecError:
        return LoadResponse(http=http, lost=f"HTTP {http}, with a body that is none of ours")
    if http < 400 and (body.phase or body.ticket or body.admission_pass):
        status = body.phase or ("ADMITTED" if body.admission_pass else "JOINED")
        return LoadResponse(
            status,
            http,
            ticket=body.ticket,
            admission_pass=body.admission_pass,
            poll_after_s=body.poll_after_ms / 1000,
            places_left=body.left,
        )
    status = body.outcome if http >= 400 else str(body.status) or "FOUND" * bool(body.number)
    if http in _COME_BACK:
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
    """No answer came."""
    return LoadResponse(lost=reason)
