"""What is said to the service, and what is made of its answers: for both clients, without a connection.

A call is a generator: it yields what to send and how long to wait, is sent what came back, and returns what the engine
would return. So each is written once, and either client runs it.
"""

from __future__ import annotations

__all__ = ["Ask", "Heard", "Pause", "Retries", "ServiceRefused", "Speaker", "Talk", "Unheard", "segment"]

import re
from collections.abc import Generator, Mapping
from enum import StrEnum
from typing import Final, NamedTuple, NoReturn, TypeVar

import msgspec

from quota_engine.api_schema.problems import ProblemBody
from quota_engine.api_schema.reservations import OutcomeBody
from quota_engine.client.decoding import outcome_of, reservation_of
from quota_engine.domain.errors import BackendUnavailable, InvalidRequest, OutcomeUnknown, QuotaEngineError, UnknownName
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.domain.validation import check_integer

T = TypeVar("T")


class ServiceRefused(QuotaEngineError):
    """The service does not do this for this token, or does not know what was asked: see :attr:`kind`."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{detail} ({kind})")
        self.kind = kind


class Unheard(Exception):
    """No answer came. ``sent``: something may have been sent, and so have been done."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.sent = sent


class Ask(NamedTuple):
    """A request: send it, and send a :class:`Heard` back in, or throw in :class:`Unheard`."""

    method: str
    path: str
    query: Mapping[str, str]
    body: bytes | None
    headers: Mapping[str, str]


class Heard(NamedTuple):
    """An answer."""

    http: int
    headers: Mapping[str, str]
    content: bytes


class Pause(NamedTuple):
    """Wait as long before going on."""

    duration_ms: int


class Retries(msgspec.Struct, frozen=True):
    """How often a call is tried in all, and how long is waited in between.

    Pauses double from ``pause_ms_min`` to ``pause_ms_max``. A ``Retry-After`` that is longer than the pause is waited
    for; one that is longer than ``pause_ms_max`` is not: the call ends, and says what the service said.
    """

    attempts_max: int = 4
    pause_ms_min: int = 100
    pause_ms_max: int = 2_000

    def __post_init__(self) -> None:
        check_integer(self.attempts_max, "attempts_max", 1, 100)
        check_integer(self.pause_ms_min, "pause_ms_min", 0, 60_000)
        check_integer(self.pause_ms_max, "pause_ms_max", self.pause_ms_min, 600_000)


Talk = Generator[Ask | Pause, Heard, T]
"""What a client runs; returns a ``T``."""

_PROBLEM: Final = msgspec.json.Decoder(ProblemBody)
_NOT_DONE: Final = frozenset({"unavailable", "overloaded", "too-many-streams"})
_UNKNOWN: Final = frozenset({"outcome-unknown", "internal"})
_is_segment: Final = re.compile(r"[A-Za-z0-9_~-]{1,512}").fullmatch
_OF_PROXY: Final = {502: "unavailable", 503: "unavailable", 504: "outcome-unknown"}


def segment(text: str, where: str) -> str:
    """A part of an address: a name, a reference or a ticket.

    Raises:
        InvalidRequest: it is none, and would make another address of it. (An office that is none is not known.)
    """
    if isinstance(text, str) and _is_segment(text):
        return text
    error = UnknownName if where == "office" else InvalidRequest
    raise error(where, "none that can be", "1 to 64 of A-Z a-z 0-9 _ -, in a reference two of them around a ~")


class Speaker:
    """Asks a service. Nothing is checked here that the service checks."""

    def __init__(self, retries: Retries) -> None:
        self._retries = retries

    def _ask(
        self,
        method: str,
        path: str,
        answer: type[T],
        *,
        query: Mapping[str, object] | None = None,
        body: Mapping[str, object] | None = None,
    ) -> Talk[T]:
        """Ask something that has no refusals, and return the answer's body."""
        heard = yield from self._heard(method, path, query, body)
        if heard.http >= 400:
            _refuse(heard, may_change=method != "GET")
        return _decoded(heard, answer, may_change=method != "GET")

    def _asked(
        self,
        method: str,
        path: str,
        answer: type[T],
        words: type[StrEnum],
        *,
        body: Mapping[str, object] | None = None,
    ) -> Talk[T | ProblemBody]:
        """Ask for something that may be refused in one of ``words``: the answer's body, or the problem that says it."""
        heard = yield from self._heard(method, path, None, body)
        if heard.http < 400:
            return _decoded(heard, answer, may_change=method != "GET")
        problem = _problem(heard)
        if problem is None or problem.outcome not in words.__members__.values():
            _refuse(heard, may_change=method != "GET")
        return problem

    def _command(
        self, method: str, path: str, body: Mapping[str, object] | None = None, *, key: str = ""
    ) -> Talk[Outcome]:
        """Carry a command out. A refusal by the engine is an outcome, as it is there; other problems are errors."""
        heard = yield from self._heard(method, path, None, body, {"idempotency-key": key} if key else {})
        if heard.http < 400:
            return outcome_of(_decoded(heard, OutcomeBody, may_change=True))
        problem = _problem(heard)
        if problem is None or problem.outcome not in Status.__members__.values():
            _refuse(heard, may_change=True)
        return Outcome(
            Status(str(problem.outcome)),
            reservation_of(problem.reservation) if problem.reservation else None,
            retry_at_ms=problem.retry_at_ms or 0,
            reason=problem.reason or "",
        )

    def _file(self, path: str) -> Talk[bytes]:
        """The content of a file."""
        heard = yield from self._heard("GET", path, None, None)
        if heard.http >= 400:
            _refuse(heard, may_change=False)
        return heard.content

    def _heard(
        self,
        method: str,
        path: str,
        query: Mapping[str, object] | None,
        body: Mapping[str, object] | None,
        headers: Mapping[str, str] | None = None,
    ) -> Talk[Heard]:
        """An answer that says something. Asked again where that is harmless: every command carries what makes it so."""
        retries, may_change = self._retries, method != "GET"
        given = {name: str(value) for name, value in (query or {}).items() if value != ""}
        request = Ask(method, path, given, None if body is None else _encoded(body), headers or {})
        pause_ms = retries.pause_ms_min
        wait_ms = 0
        doubt = False
        reason = ""
        full: Heard | None = None
        for attempt in range(retries.attempts_max):
            if attempt:
                yield Pause(max(pause_ms, wait_ms))
                pause_ms = min(2 * pause_ms, retries.pause_ms_max)
                wait_ms = 0
            full = None
            try:
                heard = yield request
            except Unheard as error:
                doubt = doubt or (error.sent and may_change)
                reason = str(error)
                continue
            kind = _kind(heard)
            if kind == "internal" or kind not in _NOT_DONE | _UNKNOWN:
                return heard
            doubt = doubt or (kind in _UNKNOWN and may_change)
            reason = kind
            full = heard if kind == "overloaded" else None
            wait_s = heard.headers.get("retry-after", "")
            wait_ms = int(wait_s[:9]) * 1000 if wait_s.isascii() and wait_s.isdigit() else 0
            if wait_ms > retries.pause_ms_max:
                if not doubt:
                    return heard
                break  # what was done before is not known, whatever this says
        if doubt:
            raise OutcomeUnknown(f"the service's answer is not known; ask again with the same key ({reason})")
        if full is not None:
            return full  # which is an outcome, where there are any
        raise BackendUnavailable(f"the service can not be used: {reason}")


def _encoded(body: Mapping[str, object]) -> bytes:
    try:
        return msgspec.json.encode(body)
    except (TypeError, ValueError, RecursionError, OverflowError):
        raise InvalidRequest("arguments", "something that JSON has no word for", "text, numbers, and lists") from None


def _decoded(heard: Heard, answer: type[T], *, may_change: bool) -> T:
    try:
        return msgspec.json.decode(heard.content, type=answer)
    except msgspec.MsgspecError:
        error = OutcomeUnknown if may_change else BackendUnavailable
        raise error(f"what came back is no answer of the service (HTTP status {heard.http})") from None


def _problem(heard: Heard) -> ProblemBody | None:
    if not heard.headers.get("content-type", "").startswith("application/problem+json"):
        return None
    try:
        return _PROBLEM.decode(heard.content)
    except msgspec.MsgspecError:
        return None


def _kind(heard: Heard) -> str:
    if heard.http < 400:
        return ""
    problem = _problem(heard)
    # What stands between us may have answered: a proxy that could not reach the service, or gave it up.
    return problem.type.rpartition(":")[2] if problem else _OF_PROXY.get(heard.http, "internal")


def _refuse(heard: Heard, *, may_change: bool) -> NoReturn:
    problem, kind = _problem(heard), _kind(heard)
    detail = problem.detail if problem else f"HTTP status {heard.http}"
    if problem and not isinstance(problem.errors, msgspec.UnsetType) and problem.errors:
        first = problem.errors[0]
        error = UnknownName if kind == "unknown-name" else InvalidRequest
        raise error(first.where, first.problem, first.expected)
    if kind in _NOT_DONE or (kind in _UNKNOWN and not may_change):
        raise BackendUnavailable(detail)
    if kind in _UNKNOWN:
        raise OutcomeUnknown(detail)
    raise ServiceRefused(kind, detail)
