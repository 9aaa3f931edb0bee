"""The OpenAPI 3.1 document, generated from the endpoint table and the types of the bodies."""

from __future__ import annotations

__all__ = ["openapi_document", "problem_names"]

import importlib.metadata
import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec

from quota_engine.api_schema.headers import REQUEST_TIMEOUT_PATTERN
from quota_engine.api_schema.problems import ProblemBody
from quota_engine.domain.outcomes import Status
from quota_engine.ledger_kinds import KINDS
from quota_engine.service.api import ApiSection
from quota_engine.service.http.endpoint import Endpoint
from quota_engine.service.http.problems import PROBLEM_TYPES, STATUS_PROBLEMS, TYPE_PREFIX
from quota_engine.service.openapi_examples import BODY_EXAMPLES, PATH_EXAMPLES

_REF: Final = "#/components/schemas/{name}"
_COMMON_PROBLEMS: Final = ("bad-request", "headers-too-large", "unprocessable", "internal")
_STORE_PROBLEMS: Final = ("unavailable",)
_WRITE_PROBLEMS: Final = ("outcome-unknown",)
_LAST_MOMENT_PROBLEMS: Final = ("request-expired",)
_BODY_PROBLEMS: Final = ("request-timeout", "too-large", "unsupported-media-type")
_STREAM_PROBLEMS: Final = ("too-many-streams",)
_TOKEN_PROBLEMS: Final = ("unauthorized", "forbidden")
_SHEDDING_PROBLEMS: Final = (STATUS_PROBLEMS[Status.OVERLOADED].name,)
_NAME: Final = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}
_HEADERS: Final[dict[str, dict[str, Any]]] = {
    name: {"description": description, "schema": {"type": schema_type}}
    for name, schema_type, description in (
        ("X-Request-Id", "string", "The id of the request: the caller's if it is well formed, otherwise a new one."),
        ("X-Quota-Engine-Time-Ms", "integer", "The service's time, in milliseconds since 1970 (UTC)."),
        ("ETag", "string", "The tag of the content, to send back in If-None-Match."),
        ("Location", "string", "The path of the new reservation."),
        ("Retry-After", "integer", "Seconds after which a retry may succeed; absent if unknown."),
        ("RateLimit", "string", 'The empty token bucket, such as `"network";r=0;t=1`.'),
        ("RateLimit-Policy", "string", 'The size of that token bucket, such as `"network";q=20;w=20`.'),
        ("WWW-Authenticate", "string", "Always `Bearer`."),
    )
}
_RETRYABLE_STATUSES: Final = (403, 409, 410, 429, 503, 504)
_PATH_PARAMETERS: Final[dict[str, dict[str, Any]]] = {
    "office": {"description": "An office of the catalog.", "schema": _NAME},
    "address": {
        "description": "An office, or the address of another ledger as a refusal names it, such as `~room.december`.",
        "schema": {"type": "string", "pattern": f"^(({'|'.join(filter(None, KINDS))})[.])?[A-Za-z0-9_-]{{1,64}}$"},
    },
    "quota": {"description": "A quota of the day.", "schema": _NAME},
    "room": {"description": "A waiting room.", "schema": _NAME},
    "ticket": {
        "description": "A ticket as the service issued it.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,512}$"},
    },
    "consumer_group": {"description": "A consumer group.", "schema": _NAME},
    "draw": {"description": "A draw.", "schema": _NAME},
    "file": {
        "description": "The name of a published file.",
        "schema": {"enum": ["applications.jsonl", "capacities.json", "result.jsonl", "proof.json"]},
    },
    "number": {
        "description": "The number of an application, from its receipt.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 99_999_999},
    },
    "day": {"description": "An ISO date.", "schema": {"type": "string", "format": "date"}},
    "reference": {
        "description": "The reference of a reservation: `office~id`.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}~[A-Za-z0-9_-]{1,64}$"},
    },
}


def openapi_document(sections: Sequence[ApiSection]) -> dict[str, Any]:
    """Return the document as JSON-compatible objects."""
    endpoints = [endpoint for section in sections for endpoint in section.endpoints]
    body_types: list[Any] = [
        body_type
        for endpoint in endpoints
        for body_type in (endpoint.body_type, endpoint.response_type)
        if body_type not in (None, bytes)
    ]
    schemas, components = msgspec.json.schema_components((*body_types, ProblemBody), ref_template=_REF)
    schema_of = dict(zip((*body_types, ProblemBody), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for section in sections:
        for endpoint in section.endpoints:
            operation = {"tags": [section.name], **_operation(endpoint, schema_of)}
            paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "quota_engine",
            "version": importlib.metadata.version("quota-engine"),
            "summary": "Reserves scarce places exactly and fairly.",
            "description": _description(),
        },
        "tags": [{"name": section.name, "description": section.summary} for section in sections],
        "paths": paths,
        "components": {
            "schemas": components,
            "headers": _HEADERS,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "`x-roles` lists the roles that may call an endpoint; an operator may call all.",
                }
            },
        },
    }


def _description() -> str:
    rows = "\n".join(f"| `{kind.name}` | {kind.status} | {kind.title} |" for kind in PROBLEM_TYPES.values())
    return (
        "Times are milliseconds since 1970 (UTC); days are ISO dates. No response contains an identity. A body has "
        "each name once; a number without a fraction is an integer there, so 109.0 is 109. In a path or a query, an "
        "integer consists of digits.\n\n"
        f"Problems are RFC 9457 documents. Their `type` is `{TYPE_PREFIX}` followed by one of these names:\n\n"
        f"| type | status | title |\n| --- | --- | --- |\n{rows}\n"
    )


def _operation(endpoint: Endpoint, schema_of: dict[Any, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "parameters": [*_path_parameters(endpoint), *_query_parameters(endpoint), *_header_parameters(endpoint)],
        "responses": _responses(endpoint, schema_of),
    }
    if endpoint.body_type is not None:
        # An absent body counts as one without fields.
        required = any(field.required for field in msgspec.structs.fields(endpoint.body_type))
        example = BODY_EXAMPLES.get(endpoint.name, {})
        operation["requestBody"] = {
            "required": required,
            "content": {"application/json": {"schema": schema_of[endpoint.body_type], "example": example}},
        }
    if endpoint.roles is not None:
        operation["security"] = [{"token": []}]
        operation["x-roles"] = sorted(endpoint.roles)
    return operation


def _responses(endpoint: Endpoint, schema_of: dict[Any, Any]) -> dict[str, Any]:
    responses: dict[str, Any] = {
        str(status): {
            "description": "Success." if status < 300 else "Not ready.",
            "headers": _headers(endpoint, status),
            **_success_content(endpoint, schema_of),
        }
        for status in sorted({endpoint.status, *endpoint.other_statuses})
    }
    if endpoint.has_etag:
        responses["304"] = {"description": "Not modified.", "headers": _headers(endpoint, 304)}
    names_by_status: dict[int, list[str]] = {}
    for name in problem_names(endpoint):
        names_by_status.setdefault(PROBLEM_TYPES[name].status, []).append(name)
    for status, names in sorted(names_by_status.items()):
        if str(status) in responses:  # the status has a usual body as well: 503 of the readiness check
            responses[str(status)]["x-types"] = names
        else:
            responses[str(status)] = {
                "description": "; ".join(PROBLEM_TYPES[name].title for name in names) + ".",
                "headers": _headers(endpoint, status),
                "content": {"application/problem+json": {"schema": schema_of[ProblemBody]}},
                "x-types": names,
            }
    return responses


def _success_content(endpoint: Endpoint, schema_of: dict[Any, Any]) -> dict[str, Any]:
    if endpoint.is_stream:
        # OpenAPI 3.1 does not say if a stream's schema describes the whole body or each event, so the type of an
        # event's data has a separate member.
        return {"content": {"text/event-stream": {"x-data": schema_of[endpoint.response_type]}}}
    if endpoint.response_type is bytes:
        return {"content": {name: {} for name in ("application/json", "application/jsonl")}}
    return {"content": {"application/json": {"schema": schema_of[endpoint.response_type]}}}


def _headers(endpoint: Endpoint, status: int) -> dict[str, Any]:
    """Return references to the headers that a response with this status may have."""
    names = (
        ("ETag", endpoint.has_etag and status in (200, 304)),
        ("Location", endpoint.needs_idempotency_key and status in (201, 202)),
        ("Retry-After", status in _RETRYABLE_STATUSES),
        ("RateLimit", status == HTTPStatus.TOO_MANY_REQUESTS),
        ("RateLimit-Policy", status == HTTPStatus.TOO_MANY_REQUESTS),
        ("WWW-Authenticate", status == HTTPStatus.UNAUTHORIZED),
        ("X-Request-Id", True),
        ("X-Quota-Engine-Time-Ms", status >= 400 or (not endpoint.is_stream and endpoint.response_type is not bytes)),
    )
    return {name: {"$ref": f"#/components/headers/{name}"} for name, applies in names if applies}


def problem_names(endpoint: Endpoint) -> list[str]:
    """Return the names of all problem types that an endpoint may respond with."""
    is_write = endpoint.method != "GET" if endpoint.is_write is None else endpoint.is_write
    names = [*_COMMON_PROBLEMS, *endpoint.problems, *(STATUS_PROBLEMS[status].name for status in endpoint.refusals)]
    for further, applies in (
        (_STORE_PROBLEMS, endpoint.uses_store),
        (_WRITE_PROBLEMS, endpoint.uses_store and is_write),
        (_LAST_MOMENT_PROBLEMS, endpoint.method != "GET"),
        (_STREAM_PROBLEMS, endpoint.is_stream),
        (_BODY_PROBLEMS, endpoint.body_type is not None),
        (_SHEDDING_PROBLEMS, endpoint.is_sheddable),
        (_TOKEN_PROBLEMS, endpoint.roles is not None),
    ):
        names += further if applies else ()
    return list(dict.fromkeys(names))


def _path_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, **_PATH_PARAMETERS[name], "example": _path_example(name)}
        for name in re.findall(r"{(\w+)}", endpoint.path)
    ]


def _path_example(name: str) -> str | int:
    return int(PATH_EXAMPLES[name]) if name == "number" else PATH_EXAMPLES[name]


def _query_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    if endpoint.query_type is None:
        return []
    _, components = msgspec.json.schema_components((endpoint.query_type,), ref_template=_REF)
    schema = components[endpoint.query_type.__name__]
    required = schema.get("required", ())
    return [
        {"name": name, "in": "query", "required": name in required, "schema": parameter}
        for name, parameter in schema["properties"].items()
    ]


def _header_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    if endpoint.has_etag:
        return [_optional_header("If-None-Match", "The ETag of a response that the caller already has.")]
    if endpoint.is_stream:
        return [_optional_header("Last-Event-ID", "The id of the last event received, when reconnecting.")]
    parameters = []
    if endpoint.needs_idempotency_key:
        parameters.append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": True,
                "description": (
                    "A new, unguessable key for each booking. A retry with the same key at the same office finds the "
                    "reservation. Each office has its own keys: the same key at another office makes another one."
                ),
                "schema": _NAME,
            }
        )
    if endpoint.method != "GET":
        description = (
            "The last moment at which the request may be carried out, by the service's time of "
            "`X-Quota-Engine-Time-Ms`. Nothing of the request takes effect later."
        )
        parameter = _optional_header("X-Quota-Engine-Valid-Until-Ms", description)
        parameters.append({**parameter, "schema": {"type": "string", "pattern": "^[0-9]{1,15}$"}})
    description = (
        "The longest time that the caller waits, in seconds from 0.3; more than 3600 count as 3600. It counts from the "
        "complete request. "
        "Nothing of the request takes effect later."
    )
    parameter = _optional_header("Request-Timeout", description)
    return [*parameters, {**parameter, "schema": {"type": "string", "pattern": f"^{REQUEST_TIMEOUT_PATTERN}$"}}]


def _optional_header(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": {"type": "string"}}
