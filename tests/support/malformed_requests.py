"""Malformed requests, generated from the OpenAPI document and a valid request of each endpoint."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from jsonschema_rs import Draft202012Validator

from quota_engine.service.api import API_SECTIONS, ENDPOINTS
from quota_engine.service.http.auth import Role
from quota_engine.service.http.endpoint import Endpoint
from quota_engine.service.openapi import openapi_document
from quota_engine.service.openapi_examples import BODY_EXAMPLES, QUERY_EXAMPLES
from tests.support.in_process_service import NIK, TOKENS

NAMED = "Budi-Santoso-of-Surabaya"
"""An identity without digits, which a filter for digits does not find."""
DOCUMENT = openapi_document(API_SECTIONS)
FORM = frozenset({400, 422})
"""Statuses of a malformed request."""
LOST = frozenset({400, 404, 422})
"""Statuses of a malformed request, or of an unknown name."""
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, 2**31 + 1, 2**53, 2**63, 2**64, 10**400, "", "x", "a b", "x" * 65, "x" * 257, "x" * 600,
    "2026-02-30", [], [1], [None], [[]], ["x"] * 2_000, {}, {"a": 1}, [{}], NIK, [NIK, 1],
)  # fmt: skip
DATES = (
    "",
    "heute",
    "2026-13-01",
    "2026-02-30",
    "0000-01-01",
    "10000-01-01",
    "20261207",
    "2026-12-7",
    "2026-12-07T00:00",
)
NOT_NAMES = (
    "a b",
    "a%00b",
    "a%0Ab",
    "%FF",
    "%C3%A9",
    "x" * 65,
    "a.b",
    "%2E%2E%2F%2E%2E%2Fetc",
    "a%2Fb",
    "%7B%7D",
    "a'--",
)
NOT_REFERENCES = ("x", "~", "surabaya~", "~x", "a~b~c", "surabaya~a%00", "surabaya~" + "x" * 65)
NOT_JSON: dict[str, bytes] = {
    "nothing of JSON": b"applicants=1",
    "cut off": b'{"applicants":["',
    "more behind it": b"{} {}",
    "a mark of the order of bytes": b"\xef\xbb\xbf{}",
    "UTF-16": '{"expected_version":1}'.encode("utf-16"),
    "bytes that are no UTF-8": b'{"x":"\xff\xfe"}',
    "NaN": b'{"x":NaN}',
    "a comment": b"{/* x */}",
    "quotes of another kind": b"{'x':1}",
    "a NUL": b"{}\x00",
    "an array": b"[]",
    "a string": b'"x"',
    "null": b"null",
    "a number": b"1",
    "a name that could be an identity": json.dumps({NAMED: 1, NIK: 2}).encode(),
    "depth": b'{"x":' + b"[" * 30_000,
    "depth that ends": b'{"x":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
}
NOT_JSON_TYPES = (
    "", "text/plain", "application/x-www-form-urlencoded", "application/jsonlines", "application/json, text/html",
    "application/json; charset=utf-16", "multipart/form-data; boundary=x",
)  # fmt: skip


class Attack(NamedTuple):
    """A malformed request, a description of its error, and the statuses that it may get."""

    what: str
    path: str
    statuses: frozenset[int]
    content: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    method: str = ""


class Good(NamedTuple):
    """A valid request of an endpoint."""

    endpoint: Endpoint
    names: Mapping[str, str]
    body: dict[str, Any] | None

    @property
    def query(self) -> str:
        """The query string with its question mark, or nothing."""
        found = urlencode(QUERY_EXAMPLES.get(self.endpoint.name, {}))
        return f"?{found}" if found else ""

    def path(self, **names: str) -> str:
        """Return the path without the query; ``names`` replace path parameters."""
        return self.endpoint.path.format(**{**self.names, **names})

    @property
    def url(self) -> str:
        """The path with the query."""
        return self.path() + self.query

    @property
    def content(self) -> bytes:
        """The encoded body."""
        return b"" if self.body is None else json.dumps(self.body).encode()

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """The headers of an operator's request."""
        found = (("content-type", "application/json"), ("authorization", f"Bearer {TOKENS[Role.OPERATOR]}"))
        return (*found, ("idempotency-key", "a-key-of-ones-own")) if self.endpoint.needs_idempotency_key else found

    def with_body(self, what: str, content: bytes, statuses: frozenset[int] = FORM) -> Attack:
        """Return the request with another body."""
        return Attack(what, self.url, statuses, content, self.headers)

    def with_headers(self, what: str, status: int, **headers: str) -> Attack:
        """Return the request with other headers; empty ones are left out."""
        sent = {**dict(self.headers), **{name.replace("_", "-"): value for name, value in headers.items()}}
        pairs = tuple((name, value) for name, value in sent.items() if value)
        return Attack(what, self.url, frozenset({status}), self.content, pairs)


def good(endpoint: Endpoint, names: Mapping[str, str], **body: Any) -> Good:
    """Return a valid request of an endpoint; ``body`` replaces fields that its example has."""
    found = None
    if endpoint.body_type is not None:
        found = {**BODY_EXAMPLES.get(endpoint.name, {})}
        found |= {name: value for name, value in body.items() if name in found}
    return Good(endpoint, names, found)


def attacks(request: Good) -> Iterator[Attack]:
    """Yield every malformed variant of a valid request."""
    yield from _addresses(request)
    yield from _queries(request)
    yield from _tokens(request)
    yield from _headers(request)
    if request.body is not None:
        yield from _bodies(request, request.body)


def _addresses(request: Good) -> Iterator[Attack]:
    bad = {"day": DATES[1:], "reference": NOT_REFERENCES, "number": ("x", "-1", "1.5", "9" * 20), "ticket": NOT_NAMES}
    for name in request.names:
        if f"{{{name}}}" in request.endpoint.path:
            for value in bad.get(name, NOT_NAMES):
                what = f"{name} {value[:20]}"
                yield Attack(
                    what, request.path(**{name: value}) + request.query, LOST, request.content, request.headers
                )
    for path in (request.path() + "/", request.path() + "/x", request.path().replace("/v1", "/v1/", 1), "/v1"):
        if path != request.path():
            yield Attack("an address that is not there", path, frozenset({404, 405}), b"", request.headers)
    taken = {one.method for one in ENDPOINTS if one.path == request.endpoint.path}
    for method in {"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"} - taken:
        yield Attack(f"the method {method}", request.path(), frozenset({405}), b"", request.headers, method)


def _queries(request: Good) -> Iterator[Attack]:
    def asked(what: str, query: str, statuses: frozenset[int] = FORM) -> Attack:
        return Attack(what, f"{request.path()}?{query}", statuses, request.content, request.headers)

    yield asked("a parameter that is not known", f"{request.query[1:]}&{NAMED}={NIK}".strip("&"))
    yield asked("a hundred parameters", "&".join(f"a{number}=1" for number in range(100)))
    operation = DOCUMENT["paths"][request.endpoint.path][request.endpoint.method.lower()]
    given = QUERY_EXAMPLES.get(request.endpoint.name, {})
    for parameter in operation["parameters"]:
        if parameter["in"] != "query":
            continue
        name, schema = parameter["name"], parameter["schema"]
        rest = {other: value for other, value in given.items() if other != name}
        kinds = {schema.get("type"), *(one.get("type") for one in schema.get("anyOf", ()))}
        values: tuple[str, ...] = ("x" * 65, NIK + " ", "\x00")
        if "integer" in kinds:
            values = ("x", "", "1.5", "-1", "1e3", "9" * 30, "٣", "0x1", "\x00")
        elif "format" in str(schema):
            values = DATES
        for value in values:
            yield asked(f"{name}={value[:20]}", urlencode({**rest, name: value}), LOST)
        yield asked(f"{name} twice", urlencode([*rest.items(), (name, "1"), (name, "1")]))
        yield asked(f"{name} as bytes", urlencode(rest) + f"&{quote(name)}=%FF%00", LOST)


def _tokens(request: Good) -> Iterator[Attack]:
    roles = request.endpoint.roles
    if roles is None:
        return
    secret = TOKENS[Role.OPERATOR]
    for value in (
        "", "Bearer", "Bearer x", f"Basic {secret}", secret, f"Bearer {secret[:-1]}", f"Bearer {secret}x",
        f"Bearer {secret}, Bearer {secret}", "Bearer " + "x" * 9_000,
    ):  # fmt: skip
        yield request.with_headers(f"the token {value[:12]}", 401, authorization=value)
    for role in set(Role) - roles - {Role.OPERATOR}:
        yield request.with_headers(f"the role {role}", 403, authorization=f"Bearer {TOKENS[role]}")


def _headers(request: Good) -> Iterator[Attack]:
    yield request.with_headers("a long header", 431, x_long="x" * 20_000)
    sent = request.with_headers("many headers", 431)
    yield sent._replace(headers=(*sent.headers, *((f"x-{number}", "x" * 10) for number in range(2_000))))
    doubled = ["authorization", *(["idempotency-key"] if request.endpoint.needs_idempotency_key else ())]
    for name in doubled:
        yield sent._replace(what=f"{name} twice", headers=(*sent.headers, (name, "another")), statuses=frozenset({400}))
    if request.endpoint.needs_idempotency_key:
        yield request.with_headers("no key", 400, idempotency_key="")
        for key in ("a b", "a~b", "x" * 65, "x" * 5_000, "a\tb"):
            yield request.with_headers("a key that is none", 422, idempotency_key=key)
    if request.body is not None:
        sent = sent._replace(content=request.content or b"{}", statuses=frozenset({415}))
        for kind in NOT_JSON_TYPES:
            headers = {**dict(request.headers), "content-type": kind}
            yield sent._replace(what=f"the type {kind}", headers=tuple(pair for pair in headers.items() if pair[1]))
        yield sent._replace(what="packed", headers=(*request.headers, ("content-encoding", "gzip")))


def _bodies(request: Good, body: dict[str, Any]) -> Iterator[Attack]:
    for what, content in NOT_JSON.items():
        yield request.with_body(what, content)
    yield request.with_body("a body that is too large", b'{"x":"' + b"x" * 70_000 + b'"}', frozenset({413}))
    operation = DOCUMENT["paths"][request.endpoint.path][request.endpoint.method.lower()]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    validator = Draft202012Validator({**schema, "components": DOCUMENT["components"]})
    assert validator.is_valid(body), request.endpoint.name
    fields = _fields(_whole(schema), ())
    for place, kind in fields:
        values = (*VALUES, *(DATES if kind.get("format") == "date" else ()))
        for value in values:
            changed = _changed(body, place, value)
            is_date = kind.get("format") == "date" and isinstance(value, str)
            if changed is not None and (is_date or not validator.is_valid(changed)):
                yield request.with_body(
                    f"{'.'.join(map(str, place))} {str(value)[:30]}", json.dumps(changed).encode(), LOST
                )
        if (marked := _changed(body, place, "\x00mark")) is not None and "string" in str(kind):
            text = json.dumps(marked).encode()
            for what, mark in (
                ("NUL", b"\\u0000"),
                ("half a surrogate", b"\\ud800"),
                ("half a surrogate", b"x\\udc00"),
            ):
                yield request.with_body(f"{place} with {what}", text.replace(b"\\u0000mark", mark), LOST)
    for place in {place[:-1] for place, _ in fields} | {()}:
        target = _found(body, place)
        if not isinstance(target, dict):
            continue
        yield request.with_body(f"unknown in {place}", json.dumps(_changed(body, (*place, NAMED), NIK)).encode())
        for name in target:
            marked = _changed(body, (*place, "mark"), target[name])
            twice = json.dumps(marked).replace('"mark"', json.dumps(name)).encode()
            yield request.with_body(f"{name} twice in {place}", twice, FORM)
            less = copy.deepcopy(body)
            del _found(less, place)[name]
            if not validator.is_valid(less):
                yield request.with_body(f"{name} missing in {place}", json.dumps(less).encode())


def _whole(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema that a reference points to."""
    for one in schema.get("anyOf", ()):
        if one.get("type") != "null":
            return _whole(one)
    if "$ref" not in schema:
        return schema
    found: dict[str, Any] = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found


def _fields(schema: dict[str, Any], place: tuple[str | int, ...]) -> list[tuple[tuple[str | int, ...], dict[str, Any]]]:
    """Return the places of all fields with their schemas; lists count with their first item."""
    found = []
    for name, of_name in schema.get("properties", {}).items():
        whole = _whole(of_name)
        found.append(((*place, name), whole))
        found += _fields(whole, (*place, name))
        if whole.get("type") == "array":
            item = _whole(whole["items"])
            found.append(((*place, name, 0), item))
            found += _fields(item, (*place, name, 0))
    return found


def _found(body: Any, place: tuple[str | int, ...]) -> Any:
    for step in place:
        if isinstance(body, dict):
            body = body.get(step, {})
        elif isinstance(body, list) and isinstance(step, int) and step < len(body):
            body = body[step]
        else:
            return None
    return body


def _changed(body: Any, place: tuple[str | int, ...], value: Any) -> Any:
    """Return a copy with another value in one place; ``None`` if there is no such place."""
    changed = copy.deepcopy(body)
    target: Any = changed
    for step in place[:-1]:
        if isinstance(target, dict):
            target = target.setdefault(step, {})
        elif isinstance(target, list) and isinstance(step, int) and step < len(target):
            target = target[step]
        else:
            return None
    last: Any = place[-1]
    if isinstance(target, dict) or (isinstance(target, list) and target):
        target[last] = value
        return changed
    return None
