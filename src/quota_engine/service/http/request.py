"""A request as a handler gets it, and the checks that turn bytes into it: headers, query and JSON body."""

from __future__ import annotations

__all__ = ["ApiRequest", "check_headers", "decode_body", "decode_query", "receive_body"]

import asyncio
import functools
import json
import re
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec
from starlette.types import Receive

from quota_engine import typed_data
from quota_engine.api_schema.headers import REQUEST_TIMEOUT_HEADER, VALID_UNTIL_HEADER
from quota_engine.api_schema.problems import FieldProblem
from quota_engine.service.http.auth import Grant
from quota_engine.service.http.limits import RequestLimits
from quota_engine.service.http.problems import Problem

_UNIQUE_HEADERS: Final = (
    b"authorization",
    b"content-encoding",
    b"content-type",
    b"idempotency-key",
    b"if-none-match",
    REQUEST_TIMEOUT_HEADER.encode(),
    VALID_UNTIL_HEADER.encode(),
)
"""Headers that the service reads. A proxy in front might use the other one of two."""
_TIMED_OUT: Final = "body timeout"
_QUERY_FIELDS_MAX: Final = 20
_EXACT_INTEGER_MAX: Final = 2**53
"""Beyond it a float may be another integer than the one in the text."""
_is_json = re.compile(rb'application/json[ \t]*(?:;[ \t]*charset="?utf-8"?[ \t]*)?', re.IGNORECASE).fullmatch
_is_integer = re.compile(r"-?[0-9]{1,20}").fullmatch
_many_digits = re.compile(r"[0-9]{6,}")
_unknown_field = re.compile(r"(?<=unknown field `).*(?=`(?: - at `\$|$))", re.DOTALL)
_is_field_name = re.compile(r"[a-z_]{1,40}").fullmatch
_find_names = re.compile(rb'"([^"]*)"\s*:').findall
"""Finds all names in JSON without backslashes; it may also match text between two strings."""


class ApiRequest(msgspec.Struct, frozen=True):
    """A request whose form has been checked: path, query and body have the right types."""

    path: dict[str, str]
    query: Any
    body: Any
    headers: dict[bytes, bytes]
    grant: Grant | None
    request_id: str


def check_headers(headers: Iterable[tuple[bytes, bytes]], bytes_max: int | None) -> None:
    """Check the total size of raw headers, unless ``bytes_max`` is ``None``, and reject repeated ones.

    Only headers that the service reads may not be repeated.

    Raises:
        Problem: 431 or 400.
    """
    if bytes_max is not None and len(b"".join(chain.from_iterable(headers))) > bytes_max:
        raise Problem("headers-too-large", f"at most {bytes_max} bytes of headers")
    names = [name for name, _ in headers]
    for name in _UNIQUE_HEADERS:
        if names.count(name) > 1:
            raise Problem("bad-request", f"the header {name.decode()} occurs twice")


async def receive_body(receive: Receive, headers: Mapping[bytes, bytes], limits: RequestLimits) -> bytes:
    """Receive a body through ASGI, within its size and time limits.

    Raises:
        Problem: 413 or 408; 400 if the client disconnects.
    """
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared[:20]) > limits.body_bytes_max:
        raise Problem("too-large", f"at most {limits.body_bytes_max} bytes")
    chunks: list[bytes] = []
    size = 0
    task = asyncio.current_task()
    assert task is not None
    timer = asyncio.get_running_loop().call_later(limits.body_timeout_ms / 1000, task.cancel, _TIMED_OUT)
    try:
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise Problem("bad-request", "the client disconnected")
            chunk: bytes = message.get("body", b"")
            size += len(chunk)
            if size > limits.body_bytes_max:
                raise Problem("too-large", f"at most {limits.body_bytes_max} bytes")
            chunks.append(chunk)
            if not message.get("more_body", False):
                break
    except asyncio.CancelledError as error:
        if error.args != (_TIMED_OUT,):
            raise
        task.uncancel()
        raise Problem("request-timeout", f"the body took longer than {limits.body_timeout_ms} ms") from None
    finally:
        timer.cancel()
    return b"".join(chunks)


def decode_body(content: bytes, headers: Mapping[bytes, bytes], decoder: typed_data.JsonDecoder[Any]) -> Any:
    """Decode a JSON body. An empty one counts as ``{}``.

    A number without a fraction is an integer, however it is written: 109.0 and 1.09e2 are 109, as in JSON Schema.

    Raises:
        Problem: 415, 400 or 422. Its text never contains an identity from the body.
    """
    if content:
        _check_media_type(headers)
    content = content or b"{}"
    try:
        body = _decode_json(content, decoder)
    except msgspec.ValidationError as error:
        raise _validation_problem(error, "body") from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        detail = _many_digits.sub("…", str(error)) if isinstance(error, msgspec.DecodeError) else "not JSON"
        raise Problem("bad-request", f"the body is not JSON: {detail}") from None
    # The decoder keeps the last of two equal keys, and another reader of the same body may keep the first. Most
    # bodies use each name once; only bodies with a repeated name are parsed again.
    names = _find_names(content)
    if b"\\" in content or len(set(names)) < len(names):
        json.loads(content, object_pairs_hook=_reject_repeated_keys)
    return body


def _decode_json(content: bytes, decoder: typed_data.JsonDecoder[Any]) -> Any:
    try:
        return decoder.decode(content)
    except msgspec.ValidationError as error:
        # Some languages write every number with a point. The second parse costs nothing to bodies without one.
        if "got `float`" not in str(error):
            raise
    return typed_data.convert(_with_integers(typed_data.decode_json(content)), decoder.type)


def _with_integers(value: Any) -> Any:
    """Return JSON data in which each float that is exactly an integer is an ``int``."""
    match value:
        case float():
            return int(value) if value.is_integer() and abs(value) <= _EXACT_INTEGER_MAX else value
        case dict():
            return {name: _with_integers(item) for name, item in value.items()}
        case list():
            return [_with_integers(item) for item in value]
    return value


def decode_query(text: bytes, query_type: type | None) -> Any:
    """Decode a query string; return ``None`` for an endpoint without parameters.

    Raises:
        Problem: 400 or 422.
    """
    if query_type is None:
        if text:
            problem = FieldProblem(where="query", problem="this endpoint has no parameters", expected="none")
            raise Problem("unprocessable", "this endpoint has no parameters", errors=[problem])
        return None
    try:
        pairs = parse_qsl(
            text.decode("ascii"), keep_blank_values=True, strict_parsing=bool(text), max_num_fields=_QUERY_FIELDS_MAX
        )
    except ValueError:
        raise Problem("bad-request", "the query is malformed") from None
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise Problem("bad-request", "the query has a parameter twice")
    for name in _integer_fields(query_type):
        # The lax conversion would accept 1e3 and 1.0. A query is text, and its integers are digits.
        if _is_integer(fields.get(name, "0")) is None:
            problem = FieldProblem(where=name, problem="not an integer", expected="digits")
            raise Problem("unprocessable", f"{name}: not an integer", errors=[problem])
    try:
        return typed_data.convert(fields, query_type, strict=False)
    except msgspec.ValidationError as error:
        raise _validation_problem(error, "query") from None


def _check_media_type(headers: Mapping[bytes, bytes]) -> None:
    media_type = headers.get(b"content-type", b"")
    if media_type != b"application/json" and _is_json(media_type) is None:
        raise Problem("unsupported-media-type", "send  Content-Type: application/json  (in UTF-8)")
    if b"content-encoding" in headers and headers[b"content-encoding"].lower() != b"identity":
        raise Problem("unsupported-media-type", "send the body without Content-Encoding")


def _validation_problem(error: msgspec.ValidationError, default_where: str) -> Problem:
    """Turn a validation error into a problem, without the parts of msgspec's text that may hold an identity."""
    text = _unknown_field.sub(lambda found: found[0] if _is_field_name(found[0]) else "…", str(error))
    text = _many_digits.sub("…", text)
    message, at, where = text.rpartition(" - at `$")
    message, where = (message, where.strip("`.")) if at else (text, "")
    problem = FieldProblem(where=where or default_where, problem=message, expected="see /openapi.json")
    return Problem("unprocessable", text, errors=[problem])


def _reject_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise Problem("bad-request", "the body has a key twice")
    return fields


@functools.cache
def _integer_fields(query_type: type) -> tuple[str, ...]:
    fields = msgspec.inspect.type_info(query_type).fields  # type: ignore[attr-defined]
    return tuple(field.name for field in fields if isinstance(field.type, msgspec.inspect.IntType))
