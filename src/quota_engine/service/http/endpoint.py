"""How a call is taken and answered: from an ASGI request to a handler's arguments, and back. Nothing here is about
places.
"""

from __future__ import annotations

__all__ = [
    "INCOMING",
    "Call",
    "Endpoint",
    "Exchange",
    "Limits",
    "Reply",
    "problem_reply",
    "request_id_of",
    "send_reply",
    "tagged_reply",
]

import asyncio
import functools
import json
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from itertools import chain
from time import perf_counter_ns
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl

import msgspec
from starlette.types import Receive, Scope, Send

from quota_engine.api_schema.reservations import FieldProblem
from quota_engine.domain.errors import BackendUnavailable, InvalidRequest, OutcomeUnknown, UnknownName
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.service.auth import Access, Grant, Role
from quota_engine.service.http.etag import is_one_of
from quota_engine.service.http.file_response import Download
from quota_engine.service.http.problems import Problem
from quota_engine.service.http.responses import (
    Reply,
    head_of,
    problem_reply,
    refusal_reply,
    request_id_of,
    send_reply,
    tagged_reply,
)
from quota_engine.service.http.sse import Stream
from quota_engine.service.observability.audit_log import with_a_line

_logger = logging.getLogger("quota_engine.service")

_is_json = re.compile(rb'application/json[ \t]*(?:;[ \t]*charset="?utf-8"?[ \t]*)?', re.IGNORECASE).fullmatch
FULL: Final = Outcome(Status.OVERLOADED)
"""What a call hears that came while as many as may be were being answered."""
_ONCE: Final = (b"authorization", b"content-encoding", b"content-type", b"idempotency-key", b"if-none-match")
"""Headers that say something here: of two, another reader (a proxy, say) might believe the other one."""
_TOO_SLOW: Final = "the body did not come in time"
_QUERY_FIELDS_MAX: Final = 20
_is_integer = re.compile(r"-?[0-9]{1,20}").fullmatch
_many_digits = re.compile(r"[0-9]{6,}")
_unknown_field = re.compile(r"(?<=unknown field `).*(?=`(?: - at `\$|$))", re.DOTALL)
_is_field = re.compile(r"[a-z_]{1,40}").fullmatch
_names = re.compile(rb'"([^"]*)"\s*:').findall
"""The names in JSON that has no backslash in it; and perhaps something more, from between two strings."""


INCOMING: Final = "quota_engine.incoming"
"""Where in the scope a request of our own connections stands, with all of its body and a way to answer at once."""


class Limits(msgspec.Struct, frozen=True):
    """What a request may be at most, how long its parts may take to come, and what streams there may be."""

    body_bytes_max: int = 65_536
    header_bytes_max: int = 16_384
    header_timeout_ms: int = 10_000
    """From the connection's begin, or the first byte of a later request, to the end of its head."""
    body_timeout_ms: int = 10_000
    write_timeout_ms: int = 20_000
    """How long the other side may take nothing of what is sent to it."""
    streams_max: int = 5_000
    """In one process at a time."""
    stream_life_ms: int = 600_000
    """After so long a stream ends, and its reader connects anew."""
    requests_max: int = 500
    """That are being answered in one process at a time; who comes then is turned away at once."""


class Call(msgspec.Struct, frozen=True):
    """A request as its handler sees it; path and query have been checked for their form only."""

    path: dict[str, str]
    query: Any
    body: Any
    headers: dict[bytes, bytes]
    grant: Grant | None
    request_id: str


class Surroundings(Protocol):
    """What the exchange needs of the service."""

    access: Access
    limits: Limits

    def now_ms(self) -> int:
        """Milliseconds since 1970, UTC."""
        ...

    def answered(self, endpoint: Endpoint, http: int, duration_ns: int) -> None:
        """Is told of each answer, and how long after its request it began."""
        ...

    def is_full(self, scope: Scope) -> bool:
        """Whether this request came while as many as may be were being answered."""
        ...


Handler = Callable[[Any, Call], Awaitable[Reply | Stream | Download]]


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One call of the interface: what it takes, what it gives, and who may make it (``None``: everybody).

    ``statuses`` are the engine's refusals that it may answer with, ``problems`` the other problems besides those that
    every call may meet. ``streams``: the answer is a stream of events, whose data are of the type ``answer``.
    ``is_tagged``: answers have an ``ETag``, and may be 304. ``checks_office``: the address names no office, and the
    handler sees whether the token is good for the one that it is about. ``asks_store``, ``changes``: whether it asks
    the store, and whether it changes something there (``None``: unless it is a GET).
    """

    method: str
    path: str
    name: str
    summary: str
    handler: Handler
    answer: Any
    http: int = 200
    also_http: tuple[int, ...] = ()
    roles: frozenset[Role] | None = None
    query: type | None = None
    body: type | None = None
    needs_key: bool = False
    statuses: tuple[Status, ...] = ()
    problems: tuple[str, ...] = ()
    streams: bool = False
    is_tagged: bool = False
    asks_store: bool = True
    changes: bool | None = None
    checks_office: bool = False

    @property
    def gives_way(self) -> bool:
        """Whether it is turned away while as many as may be are being answered already: what asks the store. Whoever
        has a place goes on with it, and those who run the whole must get through just then.
        """
        goes_on = self.method != "GET" and "{reference}" in self.path
        return self.asks_store and not goes_on and (self.roles is None or Role.SERVICE in self.roles)


class Exchange:
    """An ASGI application that carries one endpoint's calls out."""

    def __init__(self, endpoint: Endpoint, service: Surroundings) -> None:
        self._endpoint = endpoint
        self._service = service
        self._gives_way = endpoint.gives_way
        self._decoder: msgspec.json.Decoder[Any] | None = None
        if endpoint.body is not None:
            self._decoder = msgspec.json.Decoder(endpoint.body)
        self._handler = endpoint.handler
        if endpoint.roles == frozenset({Role.OPERATOR}) and endpoint.method != "GET":
            self._handler = with_a_line(endpoint.name, endpoint.handler)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one request and answer it."""
        began_ns = perf_counter_ns()
        incoming = scope.get(INCOMING)
        headers: dict[bytes, bytes] = dict(scope["headers"]) if incoming is None else incoming.headers
        request_id = request_id_of(headers)
        service = self._service
        reply: Reply | Stream | Download
        if self._gives_way and service.is_full(scope):
            reply = refusal_reply(FULL, service.now_ms, request_id)
        else:
            try:
                reply = await self._reply(scope, receive, headers, request_id)
            except Problem as error:
                reply = problem_reply(error, request_id)
        if isinstance(reply, Stream):
            service.answered(self._endpoint, 200, perf_counter_ns() - began_ns)
            await reply.serve(scope, receive, send, ((b"x-request-id", request_id.encode()),))
            return
        if isinstance(reply, Download):
            service.answered(self._endpoint, reply.http, perf_counter_ns() - began_ns)
            await reply.send(send, request_id, is_head=scope["method"] == "HEAD")
            return
        if reply.etag and is_one_of(reply.etag, headers.get(b"if-none-match", b"")):
            reply = Reply(304, b"", reply.headers, etag=reply.etag)
        if incoming is None:
            await send_reply(send, reply, request_id, is_head=scope["method"] == "HEAD")
        else:
            incoming.answer(reply.http, *head_of(reply, request_id))
        service.answered(self._endpoint, reply.http, perf_counter_ns() - began_ns)

    async def _reply(
        self, scope: Scope, receive: Receive, headers: dict[bytes, bytes], request_id: str
    ) -> Reply | Stream | Download:
        endpoint, service = self._endpoint, self._service
        incoming = scope.get(INCOMING)
        if incoming is None and _size_of(scope["headers"]) > service.limits.header_bytes_max:
            raise Problem("headers-too-large", f"at most {service.limits.header_bytes_max} bytes of headers")
        if len(headers) < len(scope["headers"]):
            _see_that_all_are_once(scope["headers"])
        path: dict[str, str] = scope["path_params"]
        grant = None
        if endpoint.roles is not None:
            grant = service.access.grant(headers.get(b"authorization", b""))
            office = path.get("office") or path.get("reference", "").partition("~")[0]
            service.access.check(grant, endpoint.roles, None if endpoint.checks_office else office)
        query = None
        if endpoint.query is not None:
            query = _query(scope["query_string"], endpoint.query)
        elif scope["query_string"]:
            found = FieldProblem(where="query", problem="the address takes no parameters", expected="none")
            raise Problem("unprocessable", "the address takes no parameters", errors=[found])
        body = None
        if self._decoder is not None:
            content = await _body(receive, headers, service.limits) if incoming is None else incoming.body
            if content:
                _see_that_it_is_json(headers)
            body = _decoded(content, self._decoder)
        try:
            return await self._handler(service, Call(path, query, body, headers, grant, request_id))
        except UnknownName as error:
            raise Problem("unknown-name", str(error), errors=_errors(error)) from None
        except InvalidRequest as error:
            raise Problem("unprocessable", str(error), errors=_errors(error)) from None
        except BackendUnavailable as error:
            _logger.warning("request %s: %s", request_id, error)
            raise Problem("unavailable", "the store can not be reached", retry_after_s=1) from None
        except OutcomeUnknown as error:
            _logger.warning("request %s: %s", request_id, error)
            detail = "it may have been done, or be done yet; the same key asked again gives the truth"
            raise Problem("outcome-unknown", detail, retry_after_s=1) from None
        except Problem:
            raise
        except Exception:
            _logger.exception("request %s failed", request_id)
            raise Problem("internal", f"the log has more under {request_id}") from None


def _see_that_all_are_once(headers: Iterable[tuple[bytes, bytes]]) -> None:
    names = [name for name, _ in headers]
    for name in _ONCE:
        if names.count(name) > 1:
            raise Problem("bad-request", f"the header {name.decode()} is there twice")


def _see_that_it_is_json(headers: Mapping[bytes, bytes]) -> None:
    kind = headers.get(b"content-type", b"")
    if kind != b"application/json" and _is_json(kind) is None:
        raise Problem("unsupported-media-type", "send  Content-Type: application/json  (in UTF-8)")
    if b"content-encoding" in headers and headers[b"content-encoding"].lower() != b"identity":
        raise Problem("unsupported-media-type", "send it as it is, without Content-Encoding")


def _size_of(headers: Iterable[tuple[bytes, bytes]]) -> int:
    return len(b"".join(chain.from_iterable(headers)))


def _invalid(error: msgspec.ValidationError, whole: str) -> Problem:
    """What is wrong with a part, without what could be an identity: msgspec says what it did not expect."""
    text = _unknown_field.sub(lambda found: found[0] if _is_field(found[0]) else "…", str(error))
    text = _many_digits.sub("…", text)
    message, at, where = text.rpartition(" - at `$")
    message, where = (message, where.strip("`.")) if at else (text, "")
    found = FieldProblem(where=where or whole, problem=message, expected="see /openapi.json")
    return Problem("unprocessable", text, errors=[found])


def _decoded(content: bytes, decoder: msgspec.json.Decoder[Any]) -> Any:
    content = content or b"{}"
    try:
        body = decoder.decode(content)
    except msgspec.ValidationError as error:
        raise _invalid(error, "body") from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        detail = _many_digits.sub("…", str(error)) if isinstance(error, msgspec.DecodeError) else "not JSON"
        raise Problem("bad-request", f"the body is not JSON: {detail}") from None
    # The decoder lets the last of two equal keys win: what another reader took for the body is not what we did. Most
    # bodies have each name once in all, which is told sooner.
    names = _names(content)
    if b"\\" in content or len(set(names)) < len(names):
        json.loads(content, object_pairs_hook=_each_once)
    return body


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Problem("bad-request", "the body has a key twice")
    return found


async def _body(receive: Receive, headers: dict[bytes, bytes], limits: Limits) -> bytes:
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared[:20]) > limits.body_bytes_max:
        raise Problem("too-large", f"at most {limits.body_bytes_max} bytes")
    chunks: list[bytes] = []
    size = 0
    task = asyncio.current_task()
    assert task is not None
    limit = asyncio.get_running_loop().call_later(limits.body_timeout_ms / 1000, task.cancel, _TOO_SLOW)
    try:
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise Problem("bad-request", "the caller has gone")
            chunk: bytes = message.get("body", b"")
            size += len(chunk)
            if size > limits.body_bytes_max:
                raise Problem("too-large", f"at most {limits.body_bytes_max} bytes")
            chunks.append(chunk)
            if not message.get("more_body", False):
                break
    except asyncio.CancelledError as error:
        if error.args != (_TOO_SLOW,):
            raise
        task.uncancel()
        raise Problem("request-timeout", f"the body took longer than {limits.body_timeout_ms} ms") from None
    finally:
        limit.cancel()
    return b"".join(chunks)


def _query(text: bytes, kind: type) -> Any:
    try:
        pairs = parse_qsl(
            text.decode("ascii"), keep_blank_values=True, strict_parsing=bool(text), max_num_fields=_QUERY_FIELDS_MAX
        )
    except ValueError:
        raise Problem("bad-request", "the query is not well formed") from None
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise Problem("bad-request", "the query has a parameter twice")
    for name in _integers(kind):
        # What is converted would take 1e3 and 1.0, too, which no body may have.
        if _is_integer(fields.get(name, "0")) is None:
            found = FieldProblem(where=name, problem="not an integer", expected="digits")
            raise Problem("unprocessable", f"{name}: not an integer", errors=[found])
    try:
        return msgspec.convert(fields, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _invalid(error, "query") from None


@functools.cache
def _integers(kind: type) -> tuple[str, ...]:
    fields = msgspec.inspect.type_info(kind).fields  # type: ignore[attr-defined]
    return tuple(field.name for field in fields if isinstance(field.type, msgspec.inspect.IntType))


def _errors(error: InvalidRequest) -> list[FieldProblem]:
    return [FieldProblem(where=error.where, problem=error.problem, expected=error.expected)]
