"""What goes back: replies, problem documents, and their heads as bytes."""

from __future__ import annotations

__all__ = ["Reply", "head_of", "problem_reply", "refusal_reply", "request_id_of", "send_reply", "tagged_reply"]

import base64
import itertools
import os
from collections.abc import Callable
from typing import Any, Final

import msgspec
from starlette.types import Send

from quota_engine.api_schema.reservations import ProblemBody, reservation_body
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.domain.validation import is_name
from quota_engine.service.http.etag import tag_of
from quota_engine.service.http.problems import TYPE_PREFIX, Problem

_JSON: Final = b"application/json"
_PROBLEM: Final = b"application/problem+json"
_NO_CONTENT: Final = 304
_HEADS: Final = {
    kind: b"content-type: %b\r\ncache-control: no-store\r\nx-content-type-options: nosniff\r\n" % kind
    for kind in (_JSON, _PROBLEM)
}
"""Nearly all heads begin like this."""

# Only what is random about an id costs something, and ids need only be told apart.
_process_id: Final = base64.urlsafe_b64encode(os.urandom(6)).decode()
_numbers: Final = itertools.count()


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


def request_id_of(headers: dict[bytes, bytes]) -> str:
    """The caller's ``X-Request-Id``, if it is an id; otherwise a new one, of 16 characters."""
    given = headers.get(b"x-request-id")
    if given is not None:
        text = given[:65].decode("latin-1")
        if is_name(text):
            return text
    return f"{_process_id}{next(_numbers) & 0xFFFFFFFF:08x}"


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


_prepared: dict[Status, tuple[Reply, bytes, bytes]] = {}
_ANY_ID: Final = "~"  # is in nobody's id


def refusal_reply(outcome: Outcome, now_ms: Callable[[], int], request_id: str) -> Reply:
    """The answer that an engine's refusal is. One that has nothing to say but its status is always the same but for the
    request's id: thousands are told that all is sold out, in the second in which it happens.
    """
    if outcome.retry_at_ms or outcome.reservation is not None or outcome.reason:
        return problem_reply(Problem.of_outcome(outcome, now_ms()), request_id)
    found = _prepared.get(outcome.status)
    if found is None:
        reply = problem_reply(Problem.of_outcome(outcome, now_ms()), _ANY_ID)
        before, _, after = msgspec.json.encode(reply.body).partition(_ANY_ID.encode())
        found = _prepared[outcome.status] = reply, before, after
    reply, before, after = found
    return Reply(reply.http, b"%b%b%b" % (before, request_id.encode(), after), reply.headers, _PROBLEM)


def head_of(reply: Reply, request_id: str) -> tuple[bytes, bytes]:
    """The header lines of a reply, each with its end, and its content."""
    body = reply.body
    content: bytes = body if type(body) is bytes else msgspec.json.encode(body)
    id_line = b"x-request-id: %b\r\n" % request_id.encode()
    if reply.etag:
        # Who has it may keep it, and has to ask whether it is still so.
        head = b'cache-control: private, no-cache\r\nx-content-type-options: nosniff\r\netag: "%b"\r\n' % (
            reply.etag.encode()
        )
        if reply.http != _NO_CONTENT:
            head += b"content-type: %b\r\ncontent-length: %d\r\n" % (reply.content_type, len(content))
        head += id_line
    else:
        head = b"%bcontent-length: %d\r\n%b" % (_HEADS[reply.content_type], len(content), id_line)
    for name, value in reply.headers:
        if not value.isprintable():
            raise ValueError(f"{name}: not a header's value")
        head += b"%b: %b\r\n" % (name.encode(), value.encode())
    return head, content


async def send_reply(send: Send, reply: Reply, request_id: str, *, is_head: bool = False) -> None:
    """Send a reply through ASGI."""
    head, content = head_of(reply, request_id)
    headers = [tuple(line.split(b": ", 1)) for line in head.split(b"\r\n")[:-1]]
    await send({"type": "http.response.start", "status": reply.http, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if is_head else content})
