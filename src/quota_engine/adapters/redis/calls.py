"""What a call does when the store does not simply answer: written once, as a generator, for both kinds of connection.

redis-py's own retries are switched off: a command must not be sent twice behind the engine's back. Here it may be,
because
every command carries the id or the state that makes a second time harmless. ``docs/backends.md`` has the table.
"""

from __future__ import annotations

__all__ = ["Attempt", "Call", "Lost", "NotSent", "Pause", "Policy", "call_plain", "call_script"]

from collections.abc import Generator, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

from quota_engine.adapters.redis.scripts import Script
from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown

T = TypeVar("T")


class NotSent(Exception):
    """The store was not reached: nothing was sent, so nothing has been done."""


class Lost(Exception):
    """Something was sent and no answer came: it may have been done, or be done yet."""


class Policy(msgspec.Struct, frozen=True):
    """How long a call is tried. The pauses double from ``pause_ms_min`` to ``pause_ms_max``."""

    attempts_max: int = 8
    pause_ms_min: int = 10
    pause_ms_max: int = 500


class Attempt(NamedTuple):
    """Send these requests on one connection, and send the list of their replies back in; or throw in :class:`NotSent`,
    :class:`Lost`, or the server's error."""

    requests: Sequence[Sequence[str | int]]


class Pause(NamedTuple):
    """Wait as long before going on."""

    duration_ms: int


Call = Generator[Attempt | Pause, list[Any], T]
"""What a driver runs; returns a ``T``."""

# The server says so instead of running the script: nothing was done, and it may be well in a moment.
_PASSING = (BusyLoadingError, ClusterDownError, MasterDownError, ReadOnlyError, TryAgainError)
_PASSING_CODES = ("BUSY", "NOREPLICAS", "MISCONF", "UNKILLABLE")
_HINTS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (OutOfMemoryError, "the server's memory is full: raise maxmemory, and keep maxmemory-policy at noeviction"),
    (ReadOnlyError, "the server is a replica: connect to the primary"),
    (NoPermissionError, "docs/backends.md lists the rights that are needed"),
)


def call_script(
    script: Script, keys: Sequence[str], arguments: Sequence[str], policy: Policy, *, writes: bool
) -> Call[list[Any]]:
    """Run a script until it is answered or ``policy`` is used up; returns its reply.

    Raises:
        BackendUnavailable: it has certainly not been carried out (or only looked, ``writes=False``).
        OutcomeUnknown: an answer was lost, and asking again has not brought one.
    """
    count = str(len(keys))
    by_name = (("EVALSHA", script.sha1, count, *keys, *arguments),)
    by_text = (("EVAL", script.text, count, *keys, *arguments),)
    replies = yield from _insist(by_name, by_text, policy, writes=writes)
    reply: list[Any] = replies[0]
    return reply


def call_plain(commands: Sequence[Sequence[str | int]], policy: Policy) -> Call[list[Any]]:
    """Run plain commands, which must be harmless to repeat, one after the other; returns their answers.

    Raises:
        BackendUnavailable: they have not been carried out, or their answers were lost.
    """
    return (yield from _insist(commands, commands, policy, writes=False))


def _insist(
    requests: Sequence[Sequence[str | int]],
    requests_if_unknown: Sequence[Sequence[str | int]],
    policy: Policy,
    *,
    writes: bool,
) -> Call[list[Any]]:
    lost = False
    reason: Exception | None = None
    pause_ms = policy.pause_ms_min
    attempt = Attempt(requests)
    for _ in range(policy.attempts_max):
        try:
            return (yield attempt)
        except NoScriptError:
            # Restarted, promoted or flushed: give it the text, which also makes it known. No need to wait.
            attempt = Attempt(requests_if_unknown)
            continue
        except NotSent as error:
            reason = error
        except Lost as error:
            lost, reason = writes, error
        except (AuthenticationError, NoPermissionError, OutOfMemoryError) as error:
            raise BackendUnavailable(_explained(error)) from error
        except (ResponseError, BusyLoadingError) as error:
            if not isinstance(error, _PASSING) and not str(error).startswith(_PASSING_CODES):
                raise
            reason = error
        attempt = Attempt(requests)
        yield Pause(pause_ms)
        pause_ms = min(2 * pause_ms, policy.pause_ms_max)
    if lost:
        raise OutcomeUnknown("the store's answer was lost; ask again with the same key") from reason
    raise BackendUnavailable(_explained(reason)) from reason


def _explained(error: Exception | None) -> str:
    text = str(error) or type(error).__name__
    hint = next((hint for kind, hint in _HINTS if isinstance(error, kind)), "")
    return f"the store can not be used: {text}" + (f" ({hint})" if hint else "")
