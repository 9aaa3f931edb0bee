"""What is said to the service, and what is made of its answers: for both clients, without a connection."""

from __future__ import annotations

__all__ = ["Ask", "Heard", "Pause", "Retries", "ServiceRefused", "Talk", "Unheard", "ask", "asked", "command"]

from collections.abc import Generator, Mapping
from typing import Final, NamedTuple, NoReturn, TypeVar

import msgspec

from quota_engine.domain.errors import BackendUnavailable, InvalidRequest, OutcomeUnknown, QuotaEngineError, UnknownName
from quota_engine.domain.outcomes import Status
from quota_engine.faces.service.wire import OutcomeBody, ProblemBody

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
    """How often a call is tried, and how long is waited between; a longer ``Retry-After`` is not waited for."""

    attempts_max: int = 4
    pause_ms_min: int = 100
    pause_ms_max: int = 2_000


Talk = Generator[Ask | Pause, Heard, T]
"""What a client runs; returns a ``T``."""

_PROBLEM: Final = msgspec.json.Decoder(ProblemBody)
_OUTCOME: Final = msgspec.json.Decoder(OutcomeBody)
_NOT_DONE: Final = frozenset({"unavailable", "overloaded"})
_UNKNOWN: Final = frozenset({"outcome-unknown", "internal"})


def ask(
    retries: Retries,
    method: str,
    path: str,
    answer: type[T],
    *,
    query: Mapping[str, object] | None = None,
    body: Mapping[str, object] | None = None,
) -> Talk[T]:
    """Ask something that is no command, and return the answer's body."""
    heard = yield from _heard(retries, method, path, query or {}, body, {}, may_change=method != "GET")
    if heard.http >= 400:
        _refuse(heard)
    return msgspec.json.decode(heard.content, type=answer)


def asked(
    retries: Retries, method: str, path: str, answer: type[T], *, body: Mapping[str, object] | None = None
) -> Talk[T | ProblemBody]:
    """Ask for something that may be refused: the answer's body, or the problem that says with what outcome."""
    heard = yield from _heard(retries, method, path, {}, body, {}, may_change=True)
    if heard.http < 400:
        return msgspec.json.decode(heard.content, type=answer)
    problem = _problem(heard)
    if problem is None or isinstance(problem.outcome, msgspec.UnsetType):
        _refuse(heard)
    return problem


def command(
    retries: Retries,
    method: str,
    path: str,
    body: Mapping[str, object] | None = None,
    *,
    key: str = "",
) -> Talk[OutcomeBody]:
    """Carry a command out. A refusal by the engine is an outcome, as it is there; other problems are errors."""
    headers = {"idempotency-key": key} if key else {}
    heard = yield from _heard(retries, method, path, {}, body, headers, may_change=True)
    if heard.http < 400:
        return _OUTCOME.decode(heard.content)
    problem = _problem(heard)
    if problem is None or isinstance(problem.outcome, msgspec.UnsetType):
        _refuse(heard)
    return OutcomeBody(
        status=Status(problem.outcome),
        reservation=problem.reservation or None,
        retry_at_ms=problem.retry_at_ms or 0,
        reason=problem.reason or "",
    )


def _heard(
    retries: Retries,
    method: str,
    path: str,
    query: Mapping[str, object],
    body: Mapping[str, object] | None,
    headers: Mapping[str, str],
    *,
    may_change: bool,
) -> Talk[Heard]:
    """An answer that says something. Asked again where that is harmless: every command carries what makes it so."""
    content = None if body is None else msgspec.json.encode(body)
    given = {name: str(value) for name, value in query.items() if value != ""}
    request = Ask(method, path, given, content, headers)
    pause_ms = retries.pause_ms_min
    doubt = False
    reason = ""
    for attempt in range(retries.attempts_max):
        if attempt:
            yield Pause(pause_ms)
            pause_ms = min(2 * pause_ms, retries.pause_ms_max)
        try:
            heard = yield request
        except Unheard as error:
            doubt = doubt or (error.sent and may_change)
            reason = str(error)
            continue
        kind = _kind(heard)
        if kind not in _NOT_DONE | _UNKNOWN or kind == "internal":
            return heard
        doubt = doubt or (kind in _UNKNOWN and may_change)
        reason = kind
        wait_s = heard.headers.get("retry-after", "")
        if wait_s.isdigit() and int(wait_s) * 1000 > retries.pause_ms_max:
            return heard
    if doubt:
        raise OutcomeUnknown(f"the service's answer is not known; ask again with the same key ({reason})")
    raise BackendUnavailable(f"the service can not be used: {reason}")


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
    return problem.type.rpartition(":")[2] if problem else {502: "unavailable", 503: "unavailable"}.get(
        heard.http, "outcome-unknown" if heard.http == 504 else "internal"
    )  # fmt: skip


def _refuse(heard: Heard) -> NoReturn:
    problem, kind = _problem(heard), _kind(heard)
    detail = problem.detail if problem else f"HTTP status {heard.http}"
    if problem and not isinstance(problem.errors, msgspec.UnsetType) and problem.errors:
        first = problem.errors[0]
        error = UnknownName if kind == "unknown-name" else InvalidRequest
        raise error(first.where, first.problem, first.expected)
    if kind == "unavailable":
        raise BackendUnavailable(detail)
    if kind in _UNKNOWN:
        raise OutcomeUnknown(detail)
    raise ServiceRefused(kind, detail)
