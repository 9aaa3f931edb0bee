"""The OpenAPI 3.1 document, made from the table of endpoints and the types of their bodies: never drawn beside them."""

from __future__ import annotations

__all__ = ["document", "problems_of"]

import importlib.metadata
import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec

from quota_engine.api_schema.reservations import ProblemBody
from quota_engine.domain.outcomes import Status
from quota_engine.service.api import Chapter
from quota_engine.service.http.endpoint import Endpoint
from quota_engine.service.http.problems import KINDS, OF_STATUS, TYPE_PREFIX
from quota_engine.service.openapi_examples import BODIES, NAMES

_REF: Final = "#/components/schemas/{name}"
_ALWAYS: Final = ("bad-request", "headers-too-large", "unprocessable", "internal")
_OF_STORE: Final = ("unavailable",)
_OF_CHANGES: Final = ("outcome-unknown",)
_WITH_BODY: Final = ("request-timeout", "too-large", "unsupported-media-type")
_TOO_MANY: Final = ("too-many-streams",)
_WITH_TOKEN: Final = ("unauthorized", "forbidden")
_FULL: Final = (OF_STATUS[Status.OVERLOADED].type,)
_NAME: Final = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}
_HEADERS: Final[dict[str, dict[str, Any]]] = {
    name: {"description": description, "schema": {"type": kind}}
    for name, kind, description in (
        ("X-Request-Id", "string", "The caller's, if it was an id, or a new one; the log has it."),
        ("ETag", "string", "The tag of the content, to send back in If-None-Match."),
        ("Location", "string", "Where the new reservation is."),
        ("Retry-After", "integer", "After so many seconds it may be otherwise; it is there if that is known."),
        ("RateLimit", "string", 'The token bucket that had nothing left, as in `"network";r=0;t=1`.'),
        ("RateLimit-Policy", "string", 'How large that bucket is, as in `"network";q=20;w=20`.'),
        ("WWW-Authenticate", "string", "Bearer."),
    )
}
_MAY_COME_BACK: Final = (403, 409, 410, 429, 503, 504)
_PATH_PARAMETERS: Final[dict[str, dict[str, Any]]] = {
    "office": {"description": "An office of the catalog.", "schema": _NAME},
    "quota": {"description": "A quota of the day.", "schema": _NAME},
    "room": {"description": "A waiting room.", "schema": _NAME},
    "ticket": {
        "description": "A ticket as it was given.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,512}$"},
    },
    "group": {"description": "A group of consumers.", "schema": _NAME},
    "draw": {"description": "A draw.", "schema": _NAME},
    "file": {
        "description": "applications.jsonl, capacities.json, result.jsonl or proof.json.",
        "schema": {"enum": ["applications.jsonl", "capacities.json", "result.jsonl", "proof.json"]},
    },
    "number": {
        "description": "The number of an application, from its receipt.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 99_999_999},
    },
    "day": {"description": "An ISO date.", "schema": {"type": "string", "format": "date"}},
    "reference": {
        "description": "office~id, as an answer had it.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}~[A-Za-z0-9_-]{1,64}$"},
    },
}


def document(chapters: Sequence[Chapter]) -> dict[str, Any]:
    """The whole document, as JSON has it."""
    endpoints = [endpoint for chapter in chapters for endpoint in chapter.endpoints]
    kinds: list[Any] = [kind for one in endpoints for kind in (one.body, one.answer) if kind not in (None, bytes)]
    schemas, components = msgspec.json.schema_components((*kinds, ProblemBody), ref_template=_REF)
    of_kind = dict(zip((*kinds, ProblemBody), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for chapter in chapters:
        for endpoint in chapter.endpoints:
            operation = {"tags": [chapter.name], **_operation(endpoint, of_kind)}
            paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "quota_engine",
            "version": importlib.metadata.version("quota-engine"),
            "summary": "Reserves scarce places exactly and fairly.",
            "description": _description(),
        },
        "tags": [{"name": chapter.name, "description": chapter.summary} for chapter in chapters],
        "paths": paths,
        "components": {
            "schemas": components,
            "headers": _HEADERS,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The roles that a call takes are in `x-roles`; an operator may call all.",
                }
            },
        },
    }


def _description() -> str:
    rows = "\n".join(f"| `{kind.type}` | {kind.http} | {kind.title} |" for kind in KINDS.values())
    return (
        "Times are milliseconds since 1970 (UTC), days are ISO dates. No answer has an identity in it. Integers are "
        "written without a point or an exponent, and a body has each name once.\n\n"
        f"Problems are RFC 9457 documents; their `type` is `{TYPE_PREFIX}` and one of these:\n\n"
        f"| type | status | title |\n| --- | --- | --- |\n{rows}\n"
    )


def _operation(endpoint: Endpoint, of_kind: dict[Any, Any]) -> dict[str, Any]:
    answer: dict[str, Any]
    if endpoint.streams:
        # Whether a schema is of the whole or of each event is not agreed on: what the data are stands beside it.
        answer = {"content": {"text/event-stream": {"x-data": of_kind[endpoint.answer]}}}
    elif endpoint.answer is bytes:
        answer = {"content": {name: {} for name in ("application/json", "application/jsonl")}}
    else:
        answer = {"content": {"application/json": {"schema": of_kind[endpoint.answer]}}}
    responses: dict[str, Any] = {
        str(http): {
            "description": "Done." if http < 300 else "Not now.",
            "headers": _headers(endpoint, http),
            **answer,
        }
        for http in sorted({endpoint.http, *endpoint.also_http})
    }
    if endpoint.is_tagged:
        responses["304"] = {"description": "Nothing is new.", "headers": _headers(endpoint, 304)}
    by_http: dict[int, list[str]] = {}
    for name in problems_of(endpoint):
        by_http.setdefault(KINDS[name].http, []).append(name)
    for http, kinds in sorted(by_http.items()):
        if str(http) in responses:  # it is an answer, too: not ready
            responses[str(http)]["x-types"] = kinds
        else:
            responses[str(http)] = {
                "description": "; ".join(KINDS[name].title for name in kinds) + ".",
                "headers": _headers(endpoint, http),
                "content": {"application/problem+json": {"schema": of_kind[ProblemBody]}},
                "x-types": kinds,
            }
    operation: dict[str, Any] = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "parameters": [*_path_parameters(endpoint), *_query_parameters(endpoint), *_header_parameters(endpoint)],
        "responses": responses,
    }
    if endpoint.body is not None:
        # A body that is not there counts as one without fields.
        required = any(field.required for field in msgspec.structs.fields(endpoint.body))
        operation["requestBody"] = {
            "required": required,
            "content": {
                "application/json": {"schema": of_kind[endpoint.body], "example": BODIES.get(endpoint.name, {})}
            },
        }
    if endpoint.roles is not None:
        operation["security"] = [{"token": []}]
        operation["x-roles"] = sorted(endpoint.roles)
    return operation


def _headers(endpoint: Endpoint, http: int) -> dict[str, Any]:
    """The headers that an answer may have."""
    names = (
        ("ETag", endpoint.is_tagged and http in (200, 304)),
        ("Location", endpoint.needs_key and http in (201, 202)),
        ("Retry-After", http in _MAY_COME_BACK),
        ("RateLimit", http == HTTPStatus.TOO_MANY_REQUESTS),
        ("RateLimit-Policy", http == HTTPStatus.TOO_MANY_REQUESTS),
        ("WWW-Authenticate", http == HTTPStatus.UNAUTHORIZED),
        ("X-Request-Id", True),
    )
    return {name: {"$ref": f"#/components/headers/{name}"} for name, applies in names if applies}


def problems_of(endpoint: Endpoint) -> list[str]:
    """The types of all problems that a call may be answered with."""
    changes = endpoint.method != "GET" if endpoint.changes is None else endpoint.changes
    names = [*_ALWAYS, *endpoint.problems, *(OF_STATUS[status].type for status in endpoint.statuses)]
    for also, applies in (
        (_OF_STORE, endpoint.asks_store),
        (_OF_CHANGES, endpoint.asks_store and changes),
        (_TOO_MANY, endpoint.streams),
        (_WITH_BODY, endpoint.body is not None),
        (_FULL, endpoint.gives_way),
        (_WITH_TOKEN, endpoint.roles is not None),
    ):
        names += also if applies else ()
    return list(dict.fromkeys(names))


def _path_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, **_PATH_PARAMETERS[name], "example": _example(name)}
        for name in re.findall(r"{(\w+)}", endpoint.path)
    ]


def _example(name: str) -> str | int:
    return int(NAMES[name]) if name == "number" else NAMES[name]


def _query_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    if endpoint.query is None:
        return []
    _, components = msgspec.json.schema_components((endpoint.query,), ref_template=_REF)
    schema = components[endpoint.query.__name__]
    required = schema.get("required", ())
    return [
        {"name": name, "in": "query", "required": name in required, "schema": kind}
        for name, kind in schema["properties"].items()
    ]


def _header_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    if endpoint.is_tagged:
        return [_header("If-None-Match", "The ETag of what is known already.")]
    if endpoint.streams:
        return [_header("Last-Event-ID", "The id of the last event that came, when connecting anew.")]
    if not endpoint.needs_key:
        return []
    return [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": True,
            "description": "New for each wish, and hard to guess. Sent again it finds the same reservation.",
            "schema": _NAME,
        }
    ]


def _header(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": {"type": "string"}}
