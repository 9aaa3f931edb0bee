"""Responses of the API: JSON bodies, problem documents, and their header lines as bytes."""

from __future__ import annotations

__all__ = [
    "ApiResponse",
    "etag_response",
    "problem_response",
    "refusal_response",
    "render_head",
    "request_id_from",
    "send_response",
]

import base64
import itertools
import os
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

import msgspec
from starlette.types import Send

from quota_engine.api_schema.headers import TIME_HEADER
from quota_engine.api_schema.problems import ProblemBody
from quota_engine.api_schema.reservations import reservation_body
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.domain.validation import is_name
from quota_engine.service.http.etag import etag_of
from quota_engine.service.http.problems import TYPE_PREFIX, Problem

_JSON: Final = b"application/json"
_PROBLEM_JSON: Final = b"application/problem+json"
_COMMON_HEADS: Final = {
    media_type: b"content-type: %b\r\ncache-control: no-store\r\nx-content-type-options: nosniff\r\n" % media_type
    for media_type in (_JSON, _PROBLEM_JSON)
}
"""First header lines of nearly all responses."""

_TIME_HEADER: Final = TIME_HEADER.encode()

# Random bytes are drawn once: ids only have to differ, and drawing them for each request costs time.
_process_id: Final = base64.urlsafe_b64encode(os.urandom(6)).decode()
_numbers: Final = itertools.count()


class ApiResponse(msgspec.Struct, frozen=True):
    """A response to send.

    Attributes:
        body: bytes to send as they are, or an object to encode as JSON.
        etag: entity tag without quotes; a request whose ``If-None-Match`` names it gets 304 without a body.
    """

    status: int
    body: Any
    headers: tuple[tuple[str, str], ...] = ()
    content_type: bytes = _JSON
    etag: str = ""


def etag_response(body: Any) -> ApiResponse:
    """Return a 200 response with a JSON body and its ETag, for clients that poll."""
    content = msgspec.json.encode(body)
    return ApiResponse(200, content, etag=etag_of(content))


def request_id_from(headers: dict[bytes, bytes]) -> str:
    """Return the caller's ``X-Request-Id`` if it is well formed, otherwise a new id of 16 characters."""
    given = headers.get(b"x-request-id")
    if given is not None:
        text = given[:65].decode("latin-1")
        if is_name(text):
            return text
    return f"{_process_id}{next(_numbers) & 0xFFFFFFFF:08x}"


def problem_response(problem: Problem, request_id: str) -> ApiResponse:
    """Return the problem document of a problem."""
    members: dict[str, Any] = {}
    if problem.errors:
        members["errors"] = list(problem.errors)
    outcome = problem.outcome
    if outcome is not None:
        members["outcome"] = outcome.status
        if outcome.reason:
            members["reason"] = outcome.reason
        if outcome.retry_at_ms:
            members["retry_at_ms"] = outcome.retry_at_ms
        if outcome.revision:
            members["revision"] = outcome.revision
        if outcome.reservation is not None:
            members["reservation"] = reservation_body(outcome.reservation)
    if problem.members is not None:
        members.update(problem.members)
    body = ProblemBody(
        type=TYPE_PREFIX + problem.type.name,
        title=problem.type.title,
        status=problem.type.status,
        detail=problem.detail,
        instance=f"urn:quota-engine:request:{request_id}",
        **members,
    )
    headers = tuple(problem.headers)
    if problem.retry_after_s:
        headers += (("retry-after", str(problem.retry_after_s)),)
    return ApiResponse(problem.type.status, body, headers, _PROBLEM_JSON)


_encoded_refusals: dict[Status, tuple[ApiResponse, bytes, bytes]] = {}
_ID_MARK: Final = "~"  # occurs in no request id


def refusal_response(outcome: Outcome, now_ms: Callable[[], int], request_id: str) -> ApiResponse:
    """Return the problem document of an engine's refusal.

    A refusal that has only a status differs from the next one in the request id alone. Its JSON is encoded once and
    reused, because thousands of callers get SOLD_OUT in the second in which a quota sells out.
    """
    if outcome.retry_at_ms or outcome.reservation is not None or outcome.reason or outcome.revision:
        return problem_response(Problem.from_outcome(outcome, now_ms()), request_id)
    encoded = _encoded_refusals.get(outcome.status)
    if encoded is None:
        response = problem_response(Problem.from_outcome(outcome, now_ms()), _ID_MARK)
        before, _, after = msgspec.json.encode(response.body).partition(_ID_MARK.encode())
        encoded = _encoded_refusals[outcome.status] = response, before, after
    response, before, after = encoded
    body = b"%b%b%b" % (before, request_id.encode(), after)
    return ApiResponse(response.status, body, response.headers, _PROBLEM_JSON)


def render_head(response: ApiResponse, request_id: str) -> tuple[bytes, bytes]:
    """Return the header lines of a response, each with its line end, and its content.

    Raises:
        ValueError: a header's value is not printable.
    """
    body = response.body
    content: bytes = body if type(body) is bytes else msgspec.json.encode(body)
    id_line = b"x-request-id: %b\r\n%b: %d\r\n" % (request_id.encode(), _TIME_HEADER, time.time_ns() // 1_000_000)
    if response.etag:
        # A client may keep the response but must revalidate it before each use.
        head = b'cache-control: private, no-cache\r\nx-content-type-options: nosniff\r\netag: "%b"\r\n' % (
            response.etag.encode()
        )
        if response.status != HTTPStatus.NOT_MODIFIED:
            head += b"content-type: %b\r\ncontent-length: %d\r\n" % (response.content_type, len(content))
        head += id_line
    else:
        head = b"%bcontent-length: %d\r\n%b" % (_COMMON_HEADS[response.content_type], len(content), id_line)
    for name, value in response.headers:
        if not value.isprintable():
            raise ValueError(f"header {name}: the value is not printable")
        head += b"%b: %b\r\n" % (name.encode(), value.encode())
    return head, content


async def send_response(send: Send, response: ApiResponse, request_id: str, *, is_head: bool = False) -> None:
    """Send a response through ASGI; without its body if ``is_head``."""
    head, content = render_head(response, request_id)
    headers = [tuple(line.split(b": ", 1)) for line in head.split(b"\r\n")[:-1]]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if is_head else content})
