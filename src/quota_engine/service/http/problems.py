"""Problem documents (RFC 9457). Each problem type has a stable name, one HTTP status and a title."""

from __future__ import annotations

__all__ = [
    "DRAW_STATUS_PROBLEMS",
    "PROBLEM_TYPES",
    "ROOM_STATUS_PROBLEMS",
    "STATUS_PROBLEMS",
    "TYPE_PREFIX",
    "Problem",
    "ProblemType",
]

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from quota_engine.api_schema.problems import FieldProblem
from quota_engine.api_schema.tickets import TicketStatusBody
from quota_engine.domain.outcomes import SUCCESSES, Outcome, Status
from quota_engine.draws.outcomes import DrawOutcome, DrawStatus
from quota_engine.waiting_room.results import RoomStatus
from quota_engine.waiting_room.ticket_status import TicketPhase

TYPE_PREFIX: Final = "urn:quota-engine:problem:"


class ProblemType(NamedTuple):
    """A kind of problem. ``name`` is the type URI without :data:`TYPE_PREFIX`; the title never changes."""

    name: str
    status: int
    title: str


_REQUEST_PROBLEMS: Final = {
    kind.name: kind
    for kind in (
        ProblemType("bad-request", 400, "The request is malformed"),
        ProblemType("unauthorized", 401, "A bearer token is required"),
        ProblemType("forbidden", 403, "The token does not permit this call"),
        ProblemType("unknown-path", 404, "No endpoint has this path"),
        ProblemType("unknown-name", 404, "No object has this name"),
        ProblemType("method-not-allowed", 405, "The endpoint does not support this method"),
        ProblemType("request-timeout", 408, "The request took too long to arrive"),
        ProblemType("request-expired", 409, "The request arrived after its last moment; nothing was done"),
        ProblemType("too-large", 413, "The body is too large"),
        ProblemType("unsupported-media-type", 415, "The body is not JSON"),
        ProblemType("misdirected-request", 421, "The service does not serve this host"),
        ProblemType("unprocessable", 422, "The request is invalid"),
        ProblemType("headers-too-large", 431, "The headers are too large"),
        ProblemType("draw-not-run", 409, "The draw has not been run yet"),
        ProblemType("internal", 500, "Internal error"),
        ProblemType("too-many-streams", 503, "Too many event streams are open"),
        ProblemType("unavailable", 503, "The store is unreachable; nothing was done"),
        ProblemType("job-timeout", 503, "The call has used up its time; what is done is kept"),
        ProblemType("outcome-unknown", 504, "The result is unknown; send the request again with the same key"),
    )
}

_TITLES: Final = {
    Status.OVERLOADED: (503, "The service is overloaded"),
    Status.CONFLICT: (422, "The idempotency key was used with another request"),
    Status.RESERVATION_ENDED: (410, "The reservation of this key has ended"),
    Status.NOT_ADMITTED: (403, "An admission pass is missing, used up or expired"),
    Status.THROTTLED: (429, "Too many attempts; try again later"),
    Status.COMMAND_EXPIRED: (409, "The command arrived after its deadline; send a new one"),
    Status.MOVING: (409, "The reservation is being moved to another office"),
    Status.NOT_FOUND: (404, "No such reservation"),
    Status.UNKNOWN_DAY: (404, "The day is not published"),
    Status.UNKNOWN_QUOTA: (404, "The day has no such quota"),
    Status.NOT_OWNER: (403, "The reservation belongs to another applicant"),
    Status.NOT_IN_PARTY: (422, "The applicant does not belong to the reservation"),
    Status.HOLD_EXPIRED: (410, "The hold has expired"),
    Status.STALE: (412, "The reservation or the day has changed; read it again"),
    Status.WRONG_STATE: (409, "The state does not allow this step"),
    Status.DAY_CLOSED: (409, "The office has closed this day"),
    Status.DAY_OVER: (410, "The day is over"),
    Status.SESSION_OVER: (410, "The session is over, or can no longer be booked"),
    Status.NOT_OPEN: (409, "The quota is not open yet"),
    Status.TOO_EARLY: (409, "The day has not started"),
    Status.TOO_LATE: (409, "The deadline for this step has passed"),
    Status.MOVES_EXCEEDED: (409, "The reservation has been moved as often as the office allows"),
    Status.EXTENSIONS_EXCEEDED: (409, "The hold has been extended as often as the office allows"),
    Status.DECLINES_EXCEEDED: (409, "The party has declined as many offers as the office allows"),
    Status.PARTY_TOO_LARGE: (422, "The party is larger than the office allows"),
    Status.PARTY_TOO_SMALL: (409, "The party would have no applicant left"),
    Status.BLOCKED: (403, "An applicant is blocked for a time"),
    Status.IDENTITY_LIMIT: (409, "An applicant already has as many places as allowed"),
    Status.SOLD_OUT: (409, "Sold out"),
    Status.WAIT_LIST_FULL: (409, "Sold out, and the wait list is full"),
    Status.QUOTA_IN_USE: (409, "The new terms lack a quota that people have"),
}

STATUS_PROBLEMS: Final = {
    status: ProblemType(status.lower().replace("_", "-"), *_TITLES[status])
    for status in Status
    if status not in SUCCESSES
}
"""Problem type of each refusal of the engine."""

_DRAW_TITLES: Final = {
    DrawStatus.UNKNOWN_DRAW: (404, "No such draw"),
    DrawStatus.DRAW_OVER: (410, "The draw's retention would end at once"),
    DrawStatus.NOT_OPEN: (409, "The draw is not open for applications yet"),
    DrawStatus.APPLICATIONS_CLOSED: (409, "The draw is closed for applications"),
    DrawStatus.STILL_OPEN: (409, "The draw is still open for applications"),
    DrawStatus.NOT_CLOSED: (409, "The draw has not been closed"),
    DrawStatus.NOT_FROZEN: (409, "The applications have not been frozen yet"),
    DrawStatus.CONFLICT: (409, "The value differs from the commitment, or from an earlier call"),
    DrawStatus.EPOCH_CHANGED: (409, "The draw's store has failed over; name the present epoch"),
    DrawStatus.FROZEN: (409, "The capacities of the draw are frozen"),
    DrawStatus.PARTY_TOO_LARGE: (422, "The party is larger than the draw allows"),
    DrawStatus.TOO_MANY_CHOICES: (422, "More choices than the draw allows"),
    DrawStatus.NOT_IN_DRAW: (422, "A day does not belong to the draw"),
    DrawStatus.NOT_FOUND: (404, "The applicant has no application"),
    DrawStatus.ALREADY_APPLIED: (409, "An applicant is in another application"),
    DrawStatus.APPLICATION_LOST: (409, "The draw lost this version of the application in a failover of its store"),
    DrawStatus.STALE: (412, "The application has changed; read it again"),
    DrawStatus.DRAW_FULL: (409, "The draw accepts no more applications"),
}


def _draw_problem_name(status: DrawStatus) -> str:
    name = status.lower().replace("_", "-")
    return name if "draw" in name.split("-") else f"draw-{name}"


DRAW_STATUS_PROBLEMS: Final = {
    DrawStatus.OVERLOADED: STATUS_PROBLEMS[Status.OVERLOADED],
    **{status: ProblemType(_draw_problem_name(status), *title) for status, title in _DRAW_TITLES.items()},
}
"""Problem type of each refusal of a draw."""

ROOM_STATUS_PROBLEMS: Final = {
    RoomStatus.OVERLOADED: STATUS_PROBLEMS[Status.OVERLOADED],
    RoomStatus.CONFLICT: ProblemType(
        "room-conflict", 409, "The room exists with other values, or was opened with others"
    ),
    RoomStatus.ROOM_CLOSED: ProblemType("room-closed", 410, "The room is closed, or its opening time has passed"),
    RoomStatus.NOT_OPEN: ProblemType("room-not-open", 409, "The room is not open yet"),
    RoomStatus.EPOCH_CHANGED: ProblemType(
        "room-epoch-changed", 409, "The room's store has failed over; name the present epoch"
    ),
    RoomStatus.FULL: ProblemType("room-full", 409, "The room has issued all its tickets"),
}
"""Problem type of each refusal of a waiting room. A room that does not exist is ``unknown-name``."""

_TICKET_PHASE_PROBLEMS: Final = {
    TicketPhase.ROOM_CLOSED: ROOM_STATUS_PROBLEMS[RoomStatus.ROOM_CLOSED],
    TicketPhase.TURN_MISSED: ProblemType(
        "room-turn-missed", 409, "The ticket missed its turn; join again for a new one"
    ),
    TicketPhase.TICKET_LOST: ProblemType(
        "room-ticket-lost", 409, "The room lost the ticket in a failover of its store; join again for a new one"
    ),
}
_NOT_CALLED: Final = ProblemType("room-not-called", 409, "The ticket has not been called yet")

PROBLEM_TYPES: Final = {
    **_REQUEST_PROBLEMS,
    **{
        kind.name: kind
        for kind in (
            *STATUS_PROBLEMS.values(),
            *DRAW_STATUS_PROBLEMS.values(),
            *ROOM_STATUS_PROBLEMS.values(),
            *_TICKET_PHASE_PROBLEMS.values(),
            _NOT_CALLED,
        )
    },
}
"""All problem types by name."""


class Problem(Exception):
    """Ends a request with a problem document.

    Attributes:
        detail: text about this occurrence.
        errors: the invalid parts of the request.
        outcome: the engine's outcome, if the engine refused.
        retry_after_s: seconds for ``Retry-After``; 0 for no header.
        members: further members of the document.
    """

    def __init__(
        self,
        name: str,
        detail: str,
        *,
        errors: Sequence[FieldProblem] = (),
        outcome: Outcome | None = None,
        headers: Sequence[tuple[str, str]] = (),
        retry_after_s: int = 0,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        """``name`` is a key of :data:`PROBLEM_TYPES`."""
        super().__init__(detail)
        self.type = PROBLEM_TYPES[name]
        self.detail = detail
        self.errors = errors
        self.outcome = outcome
        self.headers = headers
        self.retry_after_s = retry_after_s
        self.members = members

    @classmethod
    def from_outcome(cls, outcome: Outcome, now_ms: int) -> Problem:
        """Return the problem of an engine's refusal."""
        kind = STATUS_PROBLEMS[outcome.status]
        retry_after_s = _retry_after_s(outcome.status, outcome.retry_at_ms, now_ms)
        return cls(kind.name, kind.title, outcome=outcome, retry_after_s=retry_after_s)

    @classmethod
    def from_draw_outcome(cls, outcome: DrawOutcome, now_ms: int) -> Problem:
        """Return the problem of a draw's refusal, with what the draw has of the caller's application."""
        kind = DRAW_STATUS_PROBLEMS[outcome.status]
        values = {name: getattr(outcome, name) for name in ("retry_at_ms", "number", "version", "epoch")}
        members = {"outcome": outcome.status, **{name: value for name, value in values.items() if value}}
        retry_after_s = _retry_after_s(outcome.status, outcome.retry_at_ms, now_ms)
        return cls(kind.name, kind.title, retry_after_s=retry_after_s, members=members)

    @classmethod
    def from_room_status(cls, status: RoomStatus, retry_at_ms: int, now_ms: int, epoch: int = 0) -> Problem:
        """Return the problem of a waiting room's refusal. ``epoch``: of the room, or 0."""
        kind = ROOM_STATUS_PROBLEMS[status]
        values = {"retry_at_ms": retry_at_ms, "epoch": epoch}
        members = {"outcome": status, **{name: value for name, value in values.items() if value}}
        retry_after_s = _retry_after_s(status, retry_at_ms, now_ms)
        return cls(kind.name, kind.title, retry_after_s=retry_after_s, members=members)

    @classmethod
    def from_ticket_status(cls, ticket_status: TicketStatusBody, now_ms: int) -> Problem:
        """Return the problem of entering with a ticket whose turn it is not."""
        kind = _TICKET_PHASE_PROBLEMS.get(ticket_status.phase, _NOT_CALLED)
        members: dict[str, Any] = {"outcome": ticket_status.phase, "ticket_status": ticket_status}
        retry_after_s = 0
        if kind is _NOT_CALLED:
            members["retry_at_ms"] = now_ms + ticket_status.poll_after_ms
            retry_after_s = _retry_after_s(ticket_status.phase, members["retry_at_ms"], now_ms)
        return cls(kind.name, kind.title, retry_after_s=retry_after_s, members=members)


def _retry_after_s(status: str, retry_at_ms: int, now_ms: int) -> int:
    """Return whole seconds from now until ``retry_at_ms``, at least 1; 0 if there is nothing to wait for."""
    if retry_at_ms:
        return max(1, -((now_ms - retry_at_ms) // 1000))
    return 1 if status == Status.OVERLOADED else 0
