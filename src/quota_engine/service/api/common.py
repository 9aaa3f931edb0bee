"""Roles, refusals and constructors that the endpoint tables share."""

from __future__ import annotations

__all__ = [
    "AUDITORS",
    "DAY",
    "DAY_REFUSALS",
    "OFFICE",
    "OFFICES",
    "OPERATORS",
    "READERS",
    "SERVICES",
    "STAFF",
    "STEP_REFUSALS",
    "QueryParameters",
    "Token",
    "delete",
    "get",
    "outcome_response",
    "post",
    "put",
]

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from quota_engine.api_schema.base import NoFields
from quota_engine.api_schema.reservations import OutcomeBody, outcome_body
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.service.context import ServiceContext
from quota_engine.service.http.auth import Role
from quota_engine.service.http.endpoint import Endpoint
from quota_engine.service.http.request import ApiRequest
from quota_engine.service.http.responses import ApiResponse, refusal_response

OFFICES: Final = frozenset({Role.OFFICE})
SERVICES: Final = frozenset({Role.SERVICE})
STAFF: Final = frozenset({Role.SERVICE, Role.OFFICE})
OPERATORS: Final = frozenset({Role.OPERATOR})
READERS: Final = frozenset({Role.AUDITOR, Role.SERVICE})
AUDITORS: Final = frozenset({Role.AUDITOR})

OFFICE: Final = "/v1/offices/{office}"
DAY: Final = OFFICE + "/days/{day}"

STEP_REFUSALS: Final = (
    Status.OVERLOADED, Status.NOT_FOUND, Status.NOT_OWNER, Status.HOLD_EXPIRED, Status.STALE, Status.WRONG_STATE,
)  # fmt: skip
"""Refusals of every step of a reservation."""
DAY_REFUSALS: Final = (Status.OVERLOADED, Status.UNKNOWN_DAY)
"""Refusals of every command for a day."""

Token = Annotated[str, Meta(max_length=64)]


class QueryParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the query parameters of endpoints; unknown parameters are rejected."""


def outcome_response(context: ServiceContext, request: ApiRequest, outcome: Outcome) -> ApiResponse:
    """Return the engine's outcome as a 200 response, or its refusal as a problem document; count it in the metrics."""
    context.metrics.record_outcome(outcome.status)
    if outcome.ok:
        return ApiResponse(200, outcome_body(outcome))
    response = refusal_response(outcome, context.now_ms, request.request_id)
    if outcome.status is Status.THROTTLED:
        headers = (*response.headers, *_rate_limit_headers(context, outcome, response))
        response = msgspec.structs.replace(response, headers=headers)
    return response


def _rate_limit_headers(
    context: ServiceContext, outcome: Outcome, response: ApiResponse
) -> tuple[tuple[str, str], ...]:
    """Return the headers of the token bucket that refused. The levels of the other buckets are not known."""
    policy = context.rate_limit_policies.get(outcome.reason)
    if policy is None:
        return ()
    seconds = dict(response.headers).get("retry-after", "")
    limit = f'"{outcome.reason}";r=0' + (f";t={seconds}" if seconds else "")
    return ("ratelimit", limit), ("ratelimit-policy", policy)


def get(path: str, name: str, summary: str, handler: Any, response_type: Any, **options: Any) -> Endpoint:
    """Declare a GET endpoint."""
    return _endpoint("GET", path, name, summary, handler, response_type, **options)


def post(
    path: str, name: str, summary: str, handler: Any, response_type: Any = OutcomeBody, **options: Any
) -> Endpoint:
    """Declare a POST endpoint. Without ``body_type`` it takes an empty body."""
    return _endpoint("POST", path, name, summary, handler, response_type, **{"body_type": NoFields, **options})


def put(path: str, name: str, summary: str, handler: Any, response_type: Any = OutcomeBody, **options: Any) -> Endpoint:
    """Declare a PUT endpoint. Without ``body_type`` it takes an empty body."""
    return _endpoint("PUT", path, name, summary, handler, response_type, **{"body_type": NoFields, **options})


def delete(path: str, name: str, summary: str, handler: Any, response_type: Any, **options: Any) -> Endpoint:
    """Declare a DELETE endpoint."""
    return _endpoint("DELETE", path, name, summary, handler, response_type, **options)


def _endpoint(
    method: str, path: str, name: str, summary: str, handler: Any, response_type: Any, **options: Any
) -> Endpoint:
    return Endpoint(
        method=method,
        path=path,
        name=name,
        summary=summary,
        handler=handler,
        response_type=response_type,
        **options,
    )
