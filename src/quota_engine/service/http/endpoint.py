"""One endpoint of the API: its declaration, and the ASGI application that serves it.

The path of a request reads from top to bottom in :meth:`EndpointApp.__call__` and :meth:`EndpointApp._handle`:
authorize, decode the query, decode the body, call the handler, render the response.
"""

from __future__ import annotations

__all__ = ["Endpoint", "EndpointApp", "EndpointContext", "audited"]

import logging
from collections.abc import Awaitable, Callable
from time import perf_counter_ns
from typing import Any, Protocol

import msgspec
from starlette.types import Receive, Scope, Send

from quota_engine import typed_data
from quota_engine.api_schema.problems import FieldProblem
from quota_engine.domain.errors import BackendUnavailable, InvalidRequest, JobTimeout, OutcomeUnknown, UnknownName
from quota_engine.domain.outcomes import Status
from quota_engine.service.http.auth import AccessControl, Role, office_in_path
from quota_engine.service.http.buffered_request import SCOPE_KEY, BufferedRequest
from quota_engine.service.http.etag import matches_etag
from quota_engine.service.http.file_response import FileResponse
from quota_engine.service.http.last_moment import find_time_left_ms
from quota_engine.service.http.limits import RequestLimits
from quota_engine.service.http.problems import Problem
from quota_engine.service.http.request import ApiRequest, check_headers, decode_body, decode_query, receive_body
from quota_engine.service.http.responses import (
    ApiResponse,
    problem_response,
    render_head,
    request_id_from,
    send_response,
)
from quota_engine.service.http.sse import EventStream
from quota_engine.service.observability.audit_log import recorded

_logger = logging.getLogger("quota_engine.service")

Handler = Callable[[Any, ApiRequest], Awaitable[ApiResponse | EventStream | FileResponse]]
"""Takes the service's context and a request."""


class EndpointContext(Protocol):
    """The part of the service's context that an :class:`EndpointApp` needs."""

    access: AccessControl
    limits: RequestLimits

    def now_ms(self) -> int:
        """Return the time in milliseconds since 1970, UTC."""
        ...

    def with_timeout(self, timeout_ms: int) -> EndpointContext:
        """Return this context with an engine whose calls end by then; see :meth:`QuotaEngine.with_timeout`."""
        ...

    def record_response(self, endpoint: Endpoint, status: int, duration_ns: int) -> None:
        """Count a response. ``duration_ns`` is the time from the request to the start of the response."""
        ...


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The declaration of one endpoint.

    Attributes:
        response_type: type of the JSON body, or of an event's data if ``is_stream``.
        status: HTTP status of a usual success; ``other_statuses`` are those of other successes.
        roles: roles that may call; ``None`` stands for all callers.
        refusals: the engine's refusals that the endpoint may return.
        problems: problem types besides those that every endpoint may return.
        has_etag: responses have an ``ETag``, and may be 304.
        uses_store: the handler calls the store.
        is_write: the handler changes the store; ``None`` stands for every method but GET.
        handler_checks_office: the path names no office; the handler checks that the token covers it.
    """

    method: str
    path: str
    name: str
    summary: str
    handler: Handler
    response_type: Any
    status: int = 200
    other_statuses: tuple[int, ...] = ()
    roles: frozenset[Role] | None = None
    query_type: type | None = None
    body_type: type | None = None
    needs_idempotency_key: bool = False
    refusals: tuple[Status, ...] = ()
    problems: tuple[str, ...] = ()
    is_stream: bool = False
    has_etag: bool = False
    uses_store: bool = True
    is_write: bool | None = None
    handler_checks_office: bool = False

    @property
    def is_sheddable(self) -> bool:
        """True if the service refuses these requests above its concurrency limit.

        Steps of existing reservations and calls of operators and office staff get through: they finish work, or they
        are needed to end the overload.
        """
        is_step = self.method != "GET" and "{reference}" in self.path
        return self.uses_store and not is_step and (self.roles is None or Role.SERVICE in self.roles)


class EndpointApp:
    """ASGI application that serves the requests of one endpoint."""

    def __init__(self, endpoint: Endpoint, context: EndpointContext) -> None:
        self._endpoint = endpoint
        self._context = context
        self._decoder: typed_data.JsonDecoder[Any] | None = None
        if endpoint.body_type is not None:
            self._decoder = typed_data.json_decoder(endpoint.body_type)
        self._handler = endpoint.handler
        if endpoint.roles == frozenset({Role.OPERATOR}) and endpoint.method != "GET":
            self._handler = audited(endpoint.name, endpoint.handler)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        started_ns = perf_counter_ns()
        buffered: BufferedRequest | None = scope.get(SCOPE_KEY)
        headers: dict[bytes, bytes] = dict(scope["headers"]) if buffered is None else buffered.headers
        request_id = request_id_from(headers)
        context = self._context
        response: ApiResponse | EventStream | FileResponse
        try:
            response = await self._handle(scope, receive, buffered, headers, request_id)
        except Problem as problem:
            response = problem_response(problem, request_id)
        if isinstance(response, EventStream):
            context.record_response(self._endpoint, 200, perf_counter_ns() - started_ns)
            await response.serve(scope, receive, send, ((b"x-request-id", request_id.encode()),))
            return
        if isinstance(response, FileResponse):
            context.record_response(self._endpoint, response.status, perf_counter_ns() - started_ns)
            await response.send(send, request_id, is_head=scope["method"] == "HEAD")
            return
        if response.etag and matches_etag(response.etag, headers.get(b"if-none-match", b"")):
            response = ApiResponse(304, b"", response.headers, etag=response.etag)
        if buffered is None:
            await send_response(send, response, request_id, is_head=scope["method"] == "HEAD")
        else:
            buffered.respond(response.status, *render_head(response, request_id))
        context.record_response(self._endpoint, response.status, perf_counter_ns() - started_ns)

    async def _handle(
        self,
        scope: Scope,
        receive: Receive,
        buffered: BufferedRequest | None,
        headers: dict[bytes, bytes],
        request_id: str,
    ) -> ApiResponse | EventStream | FileResponse:
        endpoint, context = self._endpoint, self._context
        if buffered is None:
            check_headers(scope["headers"], context.limits.header_bytes_max)
        elif len(headers) < len(scope["headers"]):  # the connection has checked the size
            check_headers(scope["headers"], None)
        path: dict[str, str] = scope["path_params"]
        grant = None
        if endpoint.roles is not None:
            grant = context.access.authenticate(headers.get(b"authorization", b""))
            office = None if endpoint.handler_checks_office else office_in_path(path)
            context.access.authorize(grant, endpoint.roles, office)
        query = decode_query(scope["query_string"], endpoint.query_type)
        body = None
        if self._decoder is not None:
            content = await receive_body(receive, headers, context.limits) if buffered is None else buffered.body
            body = decode_body(content, headers, self._decoder)
        if endpoint.needs_idempotency_key and not headers.get(b"idempotency-key"):
            raise Problem("bad-request", "send an Idempotency-Key header: a new key for each booking")
        if not endpoint.is_stream:
            left_ms = find_time_left_ms(headers, is_read=endpoint.method == "GET")
            if left_ms is not None:
                context = context.with_timeout(left_ms)
        try:
            return await self._handler(context, ApiRequest(path, query, body, headers, grant, request_id))
        except UnknownName as error:
            raise Problem("unknown-name", str(error), errors=_field_problems(error)) from None
        except InvalidRequest as error:
            raise Problem("unprocessable", str(error), errors=_field_problems(error)) from None
        except BackendUnavailable as error:
            _logger.warning("request %s: %s", request_id, error)
            raise Problem("unavailable", "the store is unreachable; nothing was done", retry_after_s=1) from None
        except JobTimeout as error:
            _logger.warning("request %s: %s", request_id, error)
            raise Problem("job-timeout", str(error), members=_job_members(error)) from None
        except OutcomeUnknown as error:
            _logger.warning("request %s: %s", request_id, error)
            detail = "the command may have been applied, or may be applied yet; send it again with the same key"
            raise Problem("outcome-unknown", detail, retry_after_s=1) from None
        except Problem:
            raise
        except Exception:
            _logger.exception("request %s failed", request_id)
            raise Problem("internal", f"see the log for {request_id}") from None


def audited(command: str, handler: Handler) -> Handler:
    """Wrap a handler so that each call is recorded in the audit log under the name ``command``."""

    async def handle(context: Any, request: ApiRequest) -> Any:
        operator = "" if request.grant is None else request.grant.name
        subject = {**request.path, **_loggable_fields(request.body), "request": request.request_id}
        return await recorded(context.command_log, operator, command, subject, handler(context, request))

    return handle


def _loggable_fields(body: Any) -> dict[str, object]:
    """Return the integers and dates of a body: they never identify a person."""
    fields = msgspec.to_builtins(body) if isinstance(body, msgspec.Struct) else {}
    return {name: value for name, value in fields.items() if type(value) is int or name in ("first_day", "last_day")}


def _job_members(error: JobTimeout) -> dict[str, object]:
    """Return the members of a problem document that say how far a long call came."""
    members: dict[str, object] = {"job": error.job, "done": error.done, "unit": error.unit}
    members |= {"timeout_ms": error.timeout_ms}
    if error.total:
        members["total"] = error.total
    if error.resume_with:
        members["resume_with"] = error.resume_with
    return members


def _field_problems(error: InvalidRequest) -> list[FieldProblem]:
    return [FieldProblem(where=error.where, problem=error.problem, expected=error.expected)]
