"""The protocol between a client and a service, without a connection: requests, retries, and decoding of responses.

A call is a generator. It yields an HTTP request, or a delay before the next attempt; it receives the response, and
returns what the engine would return. So each call is written once, and both clients run it.

A network may deliver a request late, after the caller has an answer to a later copy. So each request that changes
something carries its last moment by the service's clock. After a lost response, neither the next attempt nor the end of
the call comes before that moment has passed. An answer is therefore final.
"""

from __future__ import annotations

__all__ = [
    "CallBase",
    "CallFlow",
    "Delay",
    "HttpRequest",
    "HttpResponse",
    "NoResponse",
    "Retries",
    "ServiceRefused",
    "segment",
]

import re
from collections.abc import Generator, Mapping
from enum import StrEnum
from typing import Final, NamedTuple, NoReturn, TypeVar

import msgspec

from quota_engine import typed_data
from quota_engine.api_schema.headers import REQUEST_TIMEOUT_HEADER, TIME_HEADER, VALID_UNTIL_HEADER
from quota_engine.api_schema.problems import ProblemBody
from quota_engine.api_schema.reservations import OutcomeBody
from quota_engine.client.decoding import outcome_of, reservation_of
from quota_engine.client.service_clock import LastMoments, ServiceClock
from quota_engine.domain.errors import (
    BackendUnavailable,
    InvalidRequest,
    JobTimeout,
    OutcomeUnknown,
    QuotaEngineError,
    UnknownName,
)
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.domain.validation import check_integer

T = TypeVar("T")


class ServiceRefused(QuotaEngineError):
    """The token does not allow the call, or the service does not know its subject. :attr:`kind` names the problem."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{detail} ({kind})")
        self.kind = kind


class NoResponse(Exception):
    """No response arrived. ``sent`` is true if the request may have been sent, and so may have taken effect."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.sent = sent


class HttpRequest(NamedTuple):
    """Request to send. The driver sends in an :class:`HttpResponse`, or throws in :class:`NoResponse`."""

    method: str
    path: str
    query: Mapping[str, str]
    body: bytes | None
    headers: Mapping[str, str]
    timeout_ms: int | None = None
    """Time that the service has for the call; the driver waits longer for the response. ``None``: the client's own."""


class HttpResponse(NamedTuple):
    """Response of the service, or of a proxy before it."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Delay(NamedTuple):
    """Time to wait before the next attempt."""

    duration_ms: int


class Retries(msgspec.Struct, frozen=True):
    """Number of attempts of a call, and the pauses between them.

    Pauses double from ``pause_ms_min`` to ``pause_ms_max``. A client waits for a ``Retry-After`` up to
    ``pause_ms_max``; a longer one ends the call with the service's response.

    Args:
        attempts_max: attempts in all, 1 to 100.
        pause_ms_min: first pause, 0 to 60,000 ms.
        pause_ms_max: longest pause, ``pause_ms_min`` to 600,000 ms.
        attempt_valid_ms: time that the service has for an attempt that changes something, from its sending; 300 to
            3,600,000 ms. After a lost response the client waits until it has passed.
        long_attempt_valid_ms: the same for calls of operators that take many steps, such as ``publish``.
    """

    attempts_max: int = 4
    pause_ms_min: int = 100
    pause_ms_max: int = 2_000
    attempt_valid_ms: int = 3_000
    long_attempt_valid_ms: int = 10_000

    def __post_init__(self) -> None:
        check_integer(self.attempts_max, "attempts_max", 1, 100)
        check_integer(self.pause_ms_min, "pause_ms_min", 0, 60_000)
        check_integer(self.pause_ms_max, "pause_ms_max", self.pause_ms_min, 600_000)
        check_integer(self.attempt_valid_ms, "attempt_valid_ms", 300, 3_600_000)
        check_integer(self.long_attempt_valid_ms, "long_attempt_valid_ms", 300, 3_600_000)


CallFlow = Generator[HttpRequest | Delay, HttpResponse | None, T]
"""Generator that a transport drives; returns a ``T``."""

TIME_PATH: Final = "/health/live"
"""A cheap call, whose response names the service's time."""

_TIMEOUT_MS_MIN: Final = 300
_TIMEOUT_MS_MAX: Final = 3_600_000
_PROBLEM: Final = typed_data.json_decoder(ProblemBody)
_NOT_DONE: Final = frozenset({"unavailable", "overloaded", "too-many-streams", "request-expired"})
_UNKNOWN: Final = frozenset({"outcome-unknown", "internal"})
_is_segment: Final = re.compile(r"[A-Za-z0-9_~-]{1,512}").fullmatch
_KIND_OF_PROXY_STATUS: Final = {502: "outcome-unknown", 503: "unavailable", 504: "outcome-unknown"}
"""A proxy answers 502 also if the service's connection broke after the proxy had sent the request."""


def segment(text: str, where: str) -> str:
    """Return ``text`` as a segment of a path: a name, a reference or a ticket.

    Raises:
        UnknownName: an office whose text is not a name.
        InvalidRequest: any other text that would change the path.
    """
    if isinstance(text, str) and _is_segment(text):
        return text
    error = UnknownName if where == "office" else InvalidRequest
    raise error(where, "none that can be", "1 to 64 of A-Z a-z 0-9 _ -, in a reference two of them around a ~")


class CallBase:
    """Base of a class of calls. It checks nothing that the service checks."""

    def __init__(self, retries: Retries, clock: ServiceClock | None = None) -> None:
        """Take the clock of the service, for last moments; ``None`` sends none."""
        self._retries = retries
        self._clock = clock

    def _request(
        self,
        method: str,
        path: str,
        answer: type[T],
        *,
        query: Mapping[str, object] | None = None,
        body: Mapping[str, object] | None = None,
        is_long: bool = False,
        timeout_ms: int | None = None,
    ) -> CallFlow[T]:
        """Return the body of a call that has no refusals. ``timeout_ms`` is the service's time for it."""
        response = yield from self._exchange(method, path, query, body, is_long=is_long, timeout_ms=timeout_ms)
        if response.status >= 400:
            _refuse(response, may_change=method != "GET")
        return _decoded(response, answer, may_change=method != "GET")

    def _request_or_problem(
        self,
        method: str,
        path: str,
        answer: type[T],
        statuses: type[StrEnum],
        *,
        body: Mapping[str, object] | None = None,
        is_long: bool = False,
        timeout_ms: int | None = None,
    ) -> CallFlow[T | ProblemBody]:
        """Return the body of a call, or the problem that refuses it with one of ``statuses``."""
        response = yield from self._exchange(method, path, None, body, is_long=is_long, timeout_ms=timeout_ms)
        if response.status < 400:
            return _decoded(response, answer, may_change=method != "GET")
        problem = _problem(response)
        if problem is None or problem.outcome not in statuses.__members__.values():
            _refuse(response, may_change=method != "GET")
        return problem

    def _command(
        self, method: str, path: str, body: Mapping[str, object] | None = None, *, key: str = ""
    ) -> CallFlow[Outcome]:
        """Return the outcome of a command. A refusal by the engine is an outcome; other problems are errors."""
        response = yield from self._exchange(method, path, None, body, {"idempotency-key": key} if key else {})
        if response.status < 400:
            return outcome_of(_decoded(response, OutcomeBody, may_change=True))
        problem = _problem(response)
        if problem is None or problem.outcome not in Status.__members__.values():
            _refuse(response, may_change=True)
        return Outcome(
            Status(str(problem.outcome)),
            reservation_of(problem.reservation) if problem.reservation else None,
            retry_at_ms=problem.retry_at_ms or 0,
            reason=problem.reason or "",
            revision=problem.revision or 0,
        )

    def _file(self, path: str, timeout_ms: int | None = None) -> CallFlow[bytes]:
        """Return the content of a file."""
        response = yield from self._exchange("GET", path, None, None, timeout_ms=timeout_ms)
        if response.status >= 400:
            _refuse(response, may_change=False)
        return response.content

    def _exchange(
        self,
        method: str,
        path: str,
        query: Mapping[str, object] | None,
        body: Mapping[str, object] | None,
        headers: Mapping[str, str] | None = None,
        *,
        is_long: bool = False,
        timeout_ms: int | None = None,
    ) -> CallFlow[HttpResponse]:
        """Return a conclusive response.

        The call is repeated until there is one. A key, a version or a state makes the repetition harmless, and a last
        moment makes a late copy harmless.

        Raises:
            BackendUnavailable: all attempts failed, and none took effect.
            OutcomeUnknown: all attempts failed, and one of them may have taken effect. None does so any more.
        """
        retries, may_change = self._retries, method != "GET"
        given = {name: str(value) for name, value in (query or {}).items() if value != ""}
        sent_headers = dict(headers or {})
        if timeout_ms is not None:
            check_integer(timeout_ms, "timeout_ms", _TIMEOUT_MS_MIN, _TIMEOUT_MS_MAX)
            sent_headers[REQUEST_TIMEOUT_HEADER] = f"{timeout_ms / 1000:.3f}"
        encoded = None if body is None else _encoded(body)
        request = HttpRequest(method, path, given, encoded, sent_headers, timeout_ms)
        valid_ms = timeout_ms or (retries.long_attempt_valid_ms if is_long else retries.attempt_valid_ms)
        moments = LastMoments(self._clock, valid_ms) if may_change and self._clock is not None else None
        pause_ms = retries.pause_ms_min
        wait_ms = 0
        is_in_doubt = False
        reason = ""
        overloaded: HttpResponse | None = None
        for attempt in range(retries.attempts_max):
            if attempt:
                yield Delay(max(pause_ms, wait_ms))
                pause_ms = min(2 * pause_ms, retries.pause_ms_max)
                wait_ms = 0
            overloaded = None
            try:
                if moments is None:
                    response = yield request
                else:
                    response = yield from _send_stamped(request, moments)
            except NoResponse as error:
                is_in_doubt = is_in_doubt or (error.sent and may_change)
                reason = str(error)
                if moments is not None:
                    wait_ms = moments.wait_ms() if error.sent else moments.settle()
                continue
            assert response is not None, "a transport answers a request with a response"
            kind = _kind(response)
            if kind == "internal" or kind not in _NOT_DONE | _UNKNOWN:
                if kind == "internal" and moments is not None and moments.wait_ms():
                    yield Delay(moments.wait_ms())  # it is a proxy's, and the service may still get the request
                return response
            is_in_doubt = is_in_doubt or (kind in _UNKNOWN and may_change)
            reason = kind
            overloaded = response if kind == "overloaded" else None
            wait_s = response.headers.get("retry-after", "")
            wait_ms = int(wait_s[:9]) * 1000 if wait_s.isascii() and wait_s.isdigit() else 0
            if wait_ms > retries.pause_ms_max:
                if not is_in_doubt:
                    return response
                wait_ms = 0
                break  # an earlier attempt may have taken effect
            if moments is not None:  # a proxy may have given up, and the service may still get the request
                wait_ms = max(wait_ms, moments.wait_ms() if kind in _UNKNOWN else moments.settle())
        if moments is not None and moments.wait_ms():
            yield Delay(moments.wait_ms())
        if is_in_doubt:
            raise OutcomeUnknown(f"the service's answer is not known; ask again with the same key ({reason})")
        if overloaded is not None:
            return overloaded  # becomes an outcome where the call has outcomes
        raise BackendUnavailable(f"the service cannot be used: {reason}")


def _send_stamped(request: HttpRequest, moments: LastMoments) -> CallFlow[HttpResponse]:
    """Send a request with its last moment; ask the service for its time before, if it is not known.

    Raises:
        NoResponse: no response arrived.
    """
    if not moments.clock.is_usable():
        try:
            answer = yield HttpRequest("GET", TIME_PATH, {}, None, {})
        except NoResponse as error:
            raise NoResponse(str(error), sent=False) from error
        assert answer is not None, "a transport answers a request with a response"
        moments.clock.take_sample(answer.headers)
    stamp = moments.stamp()
    headers = {**request.headers, VALID_UNTIL_HEADER: stamp} if stamp else request.headers
    response = yield request._replace(headers=headers)
    assert response is not None, "a transport answers a request with a response"
    if TIME_HEADER in response.headers:
        moments.clock.take_sample(response.headers)
        moments.settle()
    return response


def _encoded(body: Mapping[str, object]) -> bytes:
    try:
        return msgspec.json.encode(body)
    except (TypeError, ValueError, RecursionError, OverflowError):
        raise InvalidRequest("arguments", "something that JSON has no word for", "text, numbers, and lists") from None


def _decoded(response: HttpResponse, answer: type[T], *, may_change: bool) -> T:
    try:
        return typed_data.decode_json(response.content, answer)
    except msgspec.MsgspecError:
        error = OutcomeUnknown if may_change else BackendUnavailable
        raise error(f"what came back is no answer of the service (HTTP status {response.status})") from None


def _problem(response: HttpResponse) -> ProblemBody | None:
    if not response.headers.get("content-type", "").startswith("application/problem+json"):
        return None
    try:
        return _PROBLEM.decode(response.content)
    except msgspec.MsgspecError:
        return None


def _kind(response: HttpResponse) -> str:
    if response.status < 400:
        return ""
    problem = _problem(response)
    # A proxy may have answered that could not reach the service, or gave up waiting for it.
    return problem.type.rpartition(":")[2] if problem else _KIND_OF_PROXY_STATUS.get(response.status, "internal")


def _job_timeout(problem: ProblemBody) -> JobTimeout:
    return JobTimeout(
        problem.job or "the call",
        problem.timeout_ms or 0,
        problem.done or 0,
        problem.total or 0,
        problem.unit or "steps",
        resume_with=msgspec.to_builtins(problem.resume_with) if problem.resume_with else None,
        detail=problem.detail,
    )


def _refuse(response: HttpResponse, *, may_change: bool) -> NoReturn:
    problem, kind = _problem(response), _kind(response)
    detail = problem.detail if problem else f"HTTP status {response.status}"
    if problem and not isinstance(problem.errors, msgspec.UnsetType) and problem.errors:
        first = problem.errors[0]
        error = UnknownName if kind == "unknown-name" else InvalidRequest
        raise error(first.where, first.problem, first.expected)
    if kind in _NOT_DONE or (kind in _UNKNOWN and not may_change):
        raise BackendUnavailable(detail)
    if kind in _UNKNOWN:
        raise OutcomeUnknown(detail)
    if problem and kind == "job-timeout":
        raise _job_timeout(problem)
    raise ServiceRefused(kind, detail)
