"""Problems (RFC 9457): what is said when a request can not be done. Each kind has a stable type and one HTTP status."""

from __future__ import annotations

__all__ = ["KINDS", "OF_DRAW_STATUS", "OF_ROOM_STATUS", "OF_STATUS", "TYPE_PREFIX", "Kind", "Problem"]

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from quota_engine.api_schema.reservations import FieldProblem
from quota_engine.api_schema.tickets import TicketStatusBody
from quota_engine.domain.outcomes import SUCCESSES, Outcome, Status
from quota_engine.draws.ledger import DrawOutcome, DrawStatus
from quota_engine.waiting_room.machine import RoomStatus
from quota_engine.waiting_room.ticket_status import TicketPhase

TYPE_PREFIX: Final = "urn:quota-engine:problem:"


class Kind(NamedTuple):
    """A kind of problem: ``type`` without the prefix, the HTTP status, and a title that does not change."""

    type: str
    http: int
    title: str


_OF_REQUEST: Final = {
    kind.type: kind
    for kind in (
        Kind("bad-request", 400, "The request is not well formed"),
        Kind("unauthorized", 401, "A bearer token is needed"),
        Kind("forbidden", 403, "The token does not allow this"),
        Kind("no-such-address", 404, "There is nothing at this address"),
        Kind("unknown-name", 404, "There is nothing of this name"),
        Kind("method-not-allowed", 405, "The address does not take this method"),
        Kind("request-timeout", 408, "The body did not come in time"),
        Kind("too-large", 413, "The body is too large"),
        Kind("unsupported-media-type", 415, "The body is not JSON"),
        Kind("unprocessable", 422, "The request can never be right"),
        Kind("headers-too-large", 431, "The headers are too large"),
        Kind("draw-not-run", 409, "The draw has not been carried out yet"),
        Kind("internal", 500, "Something went wrong here"),
        Kind("too-many-streams", 503, "Too many streams are open"),
        Kind("unavailable", 503, "The store can not be reached; nothing was done"),
        Kind("outcome-unknown", 504, "The answer was lost; ask again with the same key"),
    )
}

_TITLES: Final = {
    Status.OVERLOADED: (503, "Too many calls are waiting already"),
    Status.CONFLICT: (422, "The idempotency key was used for something else"),
    Status.RESERVATION_ENDED: (410, "The reservation of this key has ended"),
    Status.NOT_ADMITTED: (403, "Leave to try is missing, used up, or over"),
    Status.THROTTLED: (429, "Too many tries; come back later"),
    Status.COMMAND_EXPIRED: (409, "It came after its last moment; ask again"),
    Status.MOVING: (409, "It is being moved to another office"),
    Status.NOT_FOUND: (404, "There is no such reservation"),
    Status.UNKNOWN_DAY: (404, "The day is not on offer"),
    Status.UNKNOWN_QUOTA: (404, "The day has no such quota"),
    Status.NOT_OWNER: (403, "The reservation is not this applicant's"),
    Status.HOLD_EXPIRED: (410, "The hold has ended"),
    Status.STALE: (412, "The reservation has changed since"),
    Status.WRONG_STATE: (409, "The reservation is not in a state for this"),
    Status.DAY_CLOSED: (409, "The office has closed this day"),
    Status.DAY_OVER: (410, "The day is over"),
    Status.NOT_OPEN: (409, "The quota has not opened yet"),
    Status.TOO_EARLY: (409, "The day has not started"),
    Status.TOO_LATE: (409, "The last moment for this has passed"),
    Status.MOVES_EXCEEDED: (409, "It has been moved as often as the office allows"),
    Status.PARTY_TOO_LARGE: (422, "The party is larger than the office takes"),
    Status.BLOCKED: (403, "An applicant is blocked for a time"),
    Status.IDENTITY_LIMIT: (409, "An applicant has as many places as allowed"),
    Status.SOLD_OUT: (409, "Sold out"),
    Status.WAIT_LIST_FULL: (409, "Sold out, and the wait list is full"),
}


def _draw_type(status: DrawStatus) -> str:
    word = status.lower().replace("_", "-")
    return word if "draw" in word.split("-") else f"draw-{word}"


OF_STATUS: Final = {
    status: Kind(status.lower().replace("_", "-"), *_TITLES[status]) for status in Status if status not in SUCCESSES
}
"""The problem that each refusal of the engine is."""

_DRAW_TITLES: Final = {
    DrawStatus.UNKNOWN_DRAW: (404, "There is no such draw"),
    DrawStatus.DRAW_OVER: (410, "The draw would be forgotten at once"),
    DrawStatus.NOT_OPEN: (409, "The draw does not take applications yet"),
    DrawStatus.APPLICATIONS_CLOSED: (409, "The time to apply is over"),
    DrawStatus.STILL_OPEN: (409, "The draw still takes applications"),
    DrawStatus.NOT_CLOSED: (409, "The draw has not been closed"),
    DrawStatus.NOT_FROZEN: (409, "The applications have not been frozen yet"),
    DrawStatus.CONFLICT: (409, "It is not what was committed to, or has been done otherwise"),
    DrawStatus.FROZEN: (409, "What the draw gives away is fixed"),
    DrawStatus.PARTY_TOO_LARGE: (422, "The party is larger than the draw takes"),
    DrawStatus.TOO_MANY_CHOICES: (422, "More choices than the draw takes"),
    DrawStatus.NOT_IN_DRAW: (422, "A day that is not among those of the draw"),
    DrawStatus.NOT_FOUND: (404, "This applicant has no application"),
    DrawStatus.ALREADY_APPLIED: (409, "An applicant is in another application"),
    DrawStatus.STALE: (412, "The application has changed since"),
    DrawStatus.DRAW_FULL: (409, "The draw takes no more applications"),
}

OF_DRAW_STATUS: Final = {
    DrawStatus.OVERLOADED: OF_STATUS[Status.OVERLOADED],
    **{status: Kind(_draw_type(status), *title) for status, title in _DRAW_TITLES.items()},
}
"""The problem that each refusal of a draw is."""

OF_ROOM_STATUS: Final = {
    RoomStatus.OVERLOADED: OF_STATUS[Status.OVERLOADED],
    RoomStatus.CONFLICT: Kind("room-conflict", 409, "The room is another one, or was opened with something else"),
    RoomStatus.ROOM_CLOSED: Kind("room-over", 410, "The room has closed, or should have opened already"),
    RoomStatus.NOT_OPEN: Kind("room-not-open", 409, "It is too early"),
    RoomStatus.FULL: Kind("room-full", 409, "All tickets have been given"),
}
"""The problem that each refusal of a waiting room is; a room that is not there is an unknown name."""

_OF_PHASE: Final = {
    TicketPhase.ROOM_CLOSED: OF_ROOM_STATUS[RoomStatus.ROOM_CLOSED],
    TicketPhase.TURN_MISSED: Kind("room-turn-lapsed", 409, "The ticket has lost its turn; a new one goes behind"),
}
_NOT_CALLED: Final = Kind("room-not-called", 409, "The ticket has not been called yet")

KINDS: Final = {
    **_OF_REQUEST,
    **{
        kind.type: kind
        for kind in (
            *OF_STATUS.values(),
            *OF_DRAW_STATUS.values(),
            *OF_ROOM_STATUS.values(),
            *_OF_PHASE.values(),
            _NOT_CALLED,
        )
    },
}
"""All kinds by their type."""


class Problem(Exception):
    """Ends a request. ``outcome`` is the engine's, if it was the engine that refused; ``more`` are further members of
    the document.
    """

    def __init__(
        self,
        kind: str,
        detail: str,
        *,
        errors: Sequence[FieldProblem] = (),
        outcome: Outcome | None = None,
        headers: Sequence[tuple[str, str]] = (),
        retry_after_s: int = 0,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = KINDS[kind]
        self.detail = detail
        self.errors = errors
        self.outcome = outcome
        self.headers = headers
        self.retry_after_s = retry_after_s
        self.more = more

    @classmethod
    def of_outcome(cls, outcome: Outcome, now_ms: int) -> Problem:
        """The problem that a refusal is; ``now_ms`` turns its ``retry_at_ms`` into seconds from now."""
        kind = OF_STATUS[outcome.status]
        retry_after_s = _retry_after_s(outcome.status, outcome.retry_at_ms, now_ms)
        return cls(kind.type, kind.title, outcome=outcome, retry_after_s=retry_after_s)

    @classmethod
    def of_draw(cls, outcome: DrawOutcome, now_ms: int) -> Problem:
        """The problem that a draw's refusal is. The asker's application comes along, if it has a number."""
        kind = OF_DRAW_STATUS[outcome.status]
        found = {"retry_at_ms": outcome.retry_at_ms, "number": outcome.number, "version": outcome.version}
        more = {"outcome": outcome.status, **{name: value for name, value in found.items() if value}}
        retry_after_s = _retry_after_s(outcome.status, outcome.retry_at_ms, now_ms)
        return cls(kind.type, kind.title, retry_after_s=retry_after_s, more=more)

    @classmethod
    def of_room(cls, status: RoomStatus, retry_at_ms: int, now_ms: int) -> Problem:
        """The problem that a room's refusal is."""
        kind = OF_ROOM_STATUS[status]
        more = {"outcome": status, **({"retry_at_ms": retry_at_ms} if retry_at_ms else {})}
        return cls(kind.type, kind.title, retry_after_s=_retry_after_s(status, retry_at_ms, now_ms), more=more)

    @classmethod
    def of_standing(cls, standing: TicketStatusBody, now_ms: int) -> Problem:
        """The problem that it is to enter with a ticket that has not its turn."""
        kind = _OF_PHASE.get(standing.phase, _NOT_CALLED)
        more: dict[str, Any] = {"outcome": standing.phase, "ticket_status": standing}
        retry_after_s = 0
        if kind is _NOT_CALLED:
            more["retry_at_ms"] = now_ms + standing.poll_after_ms
            retry_after_s = _retry_after_s(standing.phase, more["retry_at_ms"], now_ms)
        return cls(kind.type, kind.title, retry_after_s=retry_after_s, more=more)


def _retry_after_s(status: str, retry_at_ms: int, now_ms: int) -> int:
    if retry_at_ms:
        return max(1, -((now_ms - retry_at_ms) // 1000))
    return 1 if status == Status.OVERLOADED else 0
