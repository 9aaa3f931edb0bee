"""What the tables of calls have in common: roles, statuses, and short ways to say what an endpoint is."""

from __future__ import annotations

__all__ = [
    "AUDITORS",
    "DAY",
    "OFFICE",
    "OFFICES",
    "OF_DAY",
    "OF_STEP",
    "OPERATORS",
    "READERS",
    "SERVICES",
    "STAFF",
    "QuerySettings",
    "Token",
    "delete",
    "get",
    "outcome_reply",
    "post",
    "put",
]

from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from msgspec import Meta

from quota_engine.api_schema import reservations as wire
from quota_engine.api_schema.base import NoFields
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.service.auth import Role
from quota_engine.service.http.endpoint import Call, Endpoint, Reply
from quota_engine.service.http.responses import refusal_reply

if TYPE_CHECKING:
    from quota_engine.service.app import Service

OFFICES: Final = frozenset({Role.OFFICE})
SERVICES: Final = frozenset({Role.SERVICE})
STAFF: Final = frozenset({Role.SERVICE, Role.OFFICE})
OPERATORS: Final = frozenset({Role.OPERATOR})
READERS: Final = frozenset({Role.AUDITOR, Role.SERVICE})
AUDITORS: Final = frozenset({Role.AUDITOR})

OFFICE: Final = "/v1/offices/{office}"
DAY: Final = OFFICE + "/days/{day}"

OF_STEP: Final = (
    Status.OVERLOADED, Status.NOT_FOUND, Status.NOT_OWNER, Status.HOLD_EXPIRED, Status.STALE, Status.WRONG_STATE,
)  # fmt: skip
"""What every step of a reservation's life may be refused with."""
OF_DAY: Final = (Status.OVERLOADED, Status.UNKNOWN_DAY)
"""What every command for a day may be refused with."""

Token = Annotated[str, Meta(max_length=64)]


class QuerySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of an address: one that is not known is a mistake."""


def outcome_reply(service: Service, call: Call, outcome: Outcome) -> Reply:
    """What the engine said: an outcome, or the problem that its refusal is."""
    service.metrics.outcome(outcome.status)
    if not outcome.ok:
        reply = refusal_reply(outcome, service.now_ms, call.request_id)
        if outcome.status is Status.THROTTLED:
            reply = msgspec.structs.replace(reply, headers=(*reply.headers, *_rate_headers(service, outcome, reply)))
        return reply
    return Reply(200, wire.outcome_body(outcome))


def _rate_headers(service: Service, outcome: Outcome, reply: Reply) -> tuple[tuple[str, str], ...]:
    """Which token bucket has nothing left, when that will be otherwise, and how large it is: nothing is said of buckets
    that had enough, because nobody has looked how much that was.
    """
    policy = service.rate_policies.get(outcome.reason)
    if policy is None:
        return ()
    seconds = dict(reply.headers).get("retry-after", "")
    limit = f'"{outcome.reason}";r=0' + (f";t={seconds}" if seconds else "")
    return ("ratelimit", limit), ("ratelimit-policy", policy)


def get(path: str, name: str, summary: str, handler: Any, answer: Any, **more: Any) -> Endpoint:
    """An endpoint that is looked at."""
    return Endpoint(method="GET", path=path, name=name, summary=summary, handler=handler, answer=answer, **more)


def post(path: str, name: str, summary: str, handler: Any, answer: Any = wire.OutcomeBody, **more: Any) -> Endpoint:
    """An endpoint that does something."""
    more.setdefault("body", NoFields)
    return Endpoint(method="POST", path=path, name=name, summary=summary, handler=handler, answer=answer, **more)


def delete(path: str, name: str, summary: str, handler: Any, answer: Any, **more: Any) -> Endpoint:
    """An endpoint that makes something be no more."""
    return Endpoint(method="DELETE", path=path, name=name, summary=summary, handler=handler, answer=answer, **more)


def put(path: str, name: str, summary: str, handler: Any, answer: Any = wire.OutcomeBody, **more: Any) -> Endpoint:
    """An endpoint that makes something as it is said to be."""
    more.setdefault("body", NoFields)
    return Endpoint(method="PUT", path=path, name=name, summary=summary, handler=handler, answer=answer, **more)
