"""How a call is taken and answered: from an ASGI request to a handler's arguments, and back. Nothing here is about
places.
"""

from __future__ import annotations

__all__ = [
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
import base64
import json
import logging
import os
import re
from collections.abc import Awaitable, Callable
from itertools import chain
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl

import msgspec
from starlette.types import Receive, Scope, Send

from quota_engine.domain.errors import BackendUnavailable, InvalidRequest, OutcomeUnknown, UnknownName
from quota_engine.domain.outcomes import Status
from quota_engine.domain.values import is_name
from quota_engine.faces.service.access import Access, Grant, Role
from quota_engine.faces.service.downloads import Download
from quota_engine.faces.service.problems import TYPE_PREFIX, Problem
from quota_engine.faces.service.streams import Stream
from quota_engine.faces.service.tags import is_one_of, tag_of
from quota_engine.faces.service.wire.core import FieldProblem, ProblemBody, reservation_body

_logger = logging.getLogger("quota_engine.service")

_JSON: Final = b"application/json"
_PROBLEM: Final = b"application/problem+json"
_TOO_SLOW: Final = "the body did not come in time"
_NO_STORE: Final = (b"cache-control", b"no-store")
_ASK_AGAIN: Final = (b"cache-control", b"private, no-cache")
_NO_SNIFF: Final = (b"x-content-type-options", b"nosniff")
_QUERY_FIELDS_MAX: Final = 20
_many_digits = re.compile(r"[0-9]{6,}")
_strings = re.compile(rb'"([^"]*)"\s*(:?)').findall
"""The strings of JSON that has no backslash in it, each with the colon that makes it a name."""


class Limits(msgspec.Struct, frozen=True):
    """What a request may be at most, how long its body may take to come, and what streams there may be."""

    body_bytes_max: int = 65_536
    header_bytes_max: int = 16_384
    body_timeout_ms: int = 10_000
    streams_max: int = 5_000
    """In one process at a time."""
    stream_life_ms: int = 600_000
    """After so long a stream ends, and its reader connects anew."""


class Reply(msgspec.Struct, frozen=True):
    """What goes back: HTTP status, a body that becomes JSON (or bytes, as they are), and headers.

    With an ``etag`` (without quotes), whoever says in ``If-None-Match`` that they have it already gets 304 and no body.
    """

    http: int
    body: Any
    headers: tuple[tuple[str, str], ...] = ()
    content_type: bytes = _JSON
    etag: str = ""


def tagged_reply(body: Any) -> Reply:
    """A reply to somebody who polls: 200 with a body that becomes JSON, and the tag of what it says."""
    content = msgspec.json.encode(body)
    return Reply(200, content, etag=tag_of(content))


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

    def answered(self, endpoint: Endpoint, http: int) -> None:
        """Is told of each answer."""
        ...


Handler = Callable[[Any, Call], Awaitable[Reply | Stream | Download]]


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One call of the interface: what it takes, what it gives, and who may make it (``None``: everybody).

    ``statuses`` are the engine's refusals that it may answer with, ``problems`` the other problems besides those that
    every call may meet. ``streams``: the answer is a stream of events, whose data are of the type ``answer``.
    ``is_tagged``: answers have an ``ETag``, and may be 304. ``checks_office``: the address names no office, and the
    handler sees whether the token is good for the one that it is about.
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
    checks_office: bool = False


class Exchange:
    """An ASGI application that carries one endpoint's calls out."""

    def __init__(self, endpoint: Endpoint, service: Surroundings) -> None:
        self._endpoint = endpoint
        self._service = service
        self._decoder: msgspec.json.Decoder[Any] | None = None
        if endpoint.body is not None:
            self._decoder = msgspec.json.Decoder(endpoint.body)
        self._handler = endpoint.handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one request and answer it."""
        headers = dict(scope["headers"])
        request_id = request_id_of(headers)
        try:
            reply = await self._reply(scope, receive, headers, request_id)
        except Problem as error:
            reply = problem_reply(error, request_id)
        if isinstance(reply, Stream):
            self._service.answered(self._endpoint, 200)
            await reply.serve(scope, receive, send, ((b"x-request-id", request_id.encode()),))
            return
        if isinstance(reply, Download):
            self._service.answered(self._endpoint, reply.http)
            await reply.send(send, request_id, is_head=scope["method"] == "HEAD")
            return
        if reply.etag and is_one_of(reply.etag, headers.get(b"if-none-match", b"")):
            reply = Reply(304, b"", reply.headers, etag=reply.etag)
        await send_reply(send, reply, request_id, is_head=scope["method"] == "HEAD")
        self._service.answered(self._endpoint, reply.http)

    async def _reply(
        self, scope: Scope, receive: Receive, headers: dict[bytes, bytes], request_id: str
    ) -> Reply | Stream | Download:
        endpoint, service = self._endpoint, self._service
        if len(b"".join(chain.from_iterable(scope["headers"]))) > service.limits.header_bytes_max:
            raise Problem("headers-too-large", f"at most {service.limits.header_bytes_max} bytes of headers")
        path: dict[str, str] = scope["path_params"]
        grant = None
        if endpoint.roles is not None:
            grant = service.access.grant(headers.get(b"authorization", b""))
            office = path.get("office") or path.get("reference", "").partition("~")[0]
            service.access.check(grant, endpoint.roles, None if endpoint.checks_office else office)
        query = None if endpoint.query is None else _query(scope["query_string"], endpoint.query)
        body = None
        if self._decoder is not None:
            body = _decoded(await _body(receive, headers, service.limits), self._decoder)
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


def _decoded(content: bytes, decoder: msgspec.json.Decoder[Any]) -> Any:
    content = content or b"{}"
    try:
        body = decoder.decode(content)
    except msgspec.ValidationError as error:
        text = _many_digits.sub("…", str(error))
        message, _, where = text.partition(" - at `$")
        found = FieldProblem(where=where.strip("`.") or "body", problem=message, expected="see /openapi.json")
        raise Problem("unprocessable", text, errors=[found]) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        detail = _many_digits.sub("…", str(error)) if isinstance(error, msgspec.DecodeError) else "not JSON"
        raise Problem("bad-request", f"the body is not JSON: {detail}") from None
    # The decoder lets the last of two equal keys win: what another reader took for the body is not what we did. Most
    # bodies have each name once in all, which is told sooner.
    names = [name for name, colon in _strings(content) if colon]
    if b"\\" in content or len(set(names)) < len(names):
        json.loads(content, object_pairs_hook=_each_once)
    return body


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Problem("bad-request", "the body has a key twice")
    return found


def request_id_of(headers: dict[bytes, bytes]) -> str:
    """The caller's ``X-Request-Id``, if it is an id; otherwise a new one."""
    given = headers.get(b"x-request-id", b"")[:65].decode("latin-1")
    return given if is_name(given) else base64.urlsafe_b64encode(os.urandom(12)).decode()


async def _body(receive: Receive, headers: dict[bytes, bytes], limits: Limits) -> bytes:
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared[:20]) > limits.body_bytes_max:
        raise Problem("too-large", f"at most {limits.body_bytes_max} bytes")
    chunks: list[bytes] = []
    size = 0
    # Nearly every body is here already, so the time limit is one that costs little when it is not needed.
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
    content = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    if content and not headers.get(b"content-type", b"").startswith(_JSON):
        raise Problem("unsupported-media-type", "send  Content-Type: application/json")
    return content


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
    try:
        return msgspec.convert(fields, kind, strict=False)
    except msgspec.ValidationError as error:
        found = _many_digits.sub("…", str(error))
        message, _, where = found.partition(" - at `$")
        where = where.strip("`.") or "query"
        raise Problem(
            "unprocessable", found, errors=[FieldProblem(where=where, problem=message, expected="see /openapi.json")]
        ) from None


def _errors(error: InvalidRequest) -> list[FieldProblem]:
    return [FieldProblem(where=error.where, problem=error.problem, expected=error.expected)]


def problem_reply(problem: Problem, request_id: str) -> Reply:
    """The answer that a problem is."""
    more: dict[str, Any] = {}
    if problem.errors:
        more["errors"] = list(problem.errors)
    outcome = problem.outcome
    if outcome is not None:
        more["outcome"] = outcome.status
        if outcome.reason:
            more["reason"] = outcome.reason
        if outcome.retry_at_ms:
            more["retry_at_ms"] = outcome.retry_at_ms
        if outcome.reservation is not None:
            more["reservation"] = reservation_body(outcome.reservation)
    if problem.more is not None:
        more.update(problem.more)
    body = ProblemBody(
        type=TYPE_PREFIX + problem.kind.type,
        title=problem.kind.title,
        status=problem.kind.http,
        detail=problem.detail,
        instance=f"urn:quota-engine:request:{request_id}",
        **more,
    )
    headers = tuple(problem.headers)
    if problem.retry_after_s:
        headers += (("retry-after", str(problem.retry_after_s)),)
    return Reply(problem.kind.http, body, headers, _PROBLEM)


async def send_reply(send: Send, reply: Reply, request_id: str, *, is_head: bool = False) -> None:
    """Send an answer."""
    content = reply.body if isinstance(reply.body, bytes) else msgspec.json.encode(reply.body)
    headers = [_NO_SNIFF, (b"x-request-id", request_id.encode())]
    if reply.http != 304:  # which has no content, and says nothing of one
        headers += ((b"content-type", reply.content_type), (b"content-length", b"%d" % len(content)))
    if reply.etag:
        headers += (_ASK_AGAIN, (b"etag", b'"%s"' % reply.etag.encode()))
    else:
        headers.append(_NO_STORE)
    for name, value in reply.headers:
        headers.append((name.encode(), value.encode()))
    await send({"type": "http.response.start", "status": reply.http, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if is_head else content})
