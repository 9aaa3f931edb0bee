"""What a call does when the store does not simply answer: written once, as a generator, for both kinds of connection.

redis-py's own retries are switched off: a command must not be sent twice behind the engine's back. Here it may be,
because every command carries the id or the state that makes a second time harmless. ``docs/backends.md`` has the table.
"""

from __future__ import annotations

__all__ = [
    "Attempt",
    "Call",
    "Durability",
    "Fence",
    "Fenced",
    "Node",
    "NotSent",
    "ReplyLost",
    "RetryPause",
    "RetryPolicy",
    "Router",
    "call_plain",
    "call_script",
    "send_to",
]

import enum
from collections.abc import Generator, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.stores.redis.scripts import Script

T = TypeVar("T")


class NotSent(Exception):
    """The store was not reached: nothing was sent, so nothing has been done."""


class ReplyLost(Exception):
    """Something was sent and no answer came: it may have been done, or be done yet."""


class Durability(enum.StrEnum):
    """What has to be true before a command counts as acknowledged."""

    MEMORY = "memory"
    """The server has carried it out; what it loses when it dies is as its settings say."""
    FSYNC = "fsync"
    """It is on the server's disk, which must write before it answers (checked when the store is opened)."""
    REPLICATED = "replicated"
    """``replicas`` replicas have it, too."""


class Fence(enum.StrEnum):
    """What happens to an office after a failover, or any other change of the server that it is written on."""

    OFF = "off"
    """Nothing: it is written on as it is."""
    AUTO = "auto"
    """It stays closed until a client has looked through it; the first that meets it does."""
    MANUAL = "manual"
    """It stays closed until somebody calls ``reconcile``."""


class Fenced(Exception):
    """The office is closed since another server has taken over. This command has not been carried out; ``lost`` says
    whether an earlier attempt may have been, on the server before.
    """

    def __init__(self, reason: Exception, *, lost: bool) -> None:
        super().__init__(str(reason))
        self.lost = lost


class RetryPolicy(msgspec.Struct, frozen=True):
    """How long a call is tried, and when it counts as done. The pauses double from ``pause_ms_min`` to
    ``pause_ms_max``; for its replicas a call waits ``wait_ms`` each time.
    """

    attempts_max: int = 8
    pause_ms_min: int = 10
    pause_ms_max: int = 500
    durability: Durability = Durability.MEMORY
    replicas: int = 0
    wait_ms: int = 1000
    fence: Fence = Fence.OFF


class Node(NamedTuple):
    """A server by its address."""

    host: str
    port: int
    is_sentinel: bool = False

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Attempt(NamedTuple):
    """Send these requests to this node on one connection, and send the list of their replies back in, errors among
    them; or throw in :class:`NotSent`, :class:`Lost`, or the error with which the server turns the connection away.
    ``node`` ``None`` is the only server that there is.
    """

    node: Node | None
    requests: Sequence[Sequence[str | int]]


class RetryPause(NamedTuple):
    """Wait as long before going on."""

    duration_ms: int


Call = Generator[Attempt | RetryPause, list[Any], T]
"""What a driver runs; returns a ``T``."""


class Router:
    """Knows which server has a key. This one knows a single server, which has them all."""

    def find(self, key: str) -> Call[Node | None]:
        """The server that has ``key``; others may have to be asked for it first.

        Raises:
            NotSent: nobody knows.
        """
        yield from ()
        return None

    def invalidate(self) -> None:
        """An attempt failed: what is known may hold no longer. It is asked for again when it is needed next."""

    def redirect_target(self, error: AskError, asked: Node | None) -> Node:
        """The server that ``asked`` names instead of itself, for this time (ASK) or from now on (MOVED).

        Raises:
            BackendUnavailable: there should be only one.
        """
        raise BackendUnavailable("the server is a node of a cluster: open it with redis+cluster://") from error


# The server says so instead of running the script: nothing was done, and it may be well in a moment.
_PASSING = (BusyLoadingError, ClusterDownError, MasterDownError, ReadOnlyError, TryAgainError)
_PASSING_CODES = ("BEHIND", "BUSY", "NOREPLICAS", "MISCONF", "UNKILLABLE")
_REFUSED_CODES: Final = ("ILLFORMED", "NOAUTH", "ERR unknown command", "ERR wrong number")
_HINTS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (OutOfMemoryError, "the server's memory is full: raise maxmemory, and keep maxmemory-policy at noeviction"),
    (ReadOnlyError, "the server is a replica: connect to the primary"),
    (NoPermissionError, "docs/backends.md lists the rights that are needed"),
)


def call_script(
    script: Script, keys: Sequence[str], arguments: Sequence[str], policy: RetryPolicy, router: Router, *, writes: bool
) -> Call[list[Any]]:
    """Run a script until it is answered or ``policy`` is used up; returns its reply.

    Raises:
        BackendUnavailable: it has certainly not been carried out (or only looked, ``writes=False``).
        OutcomeUnknown: an answer was lost, and asking again has not brought one.
        Fenced: the script minds the fence, and there is one.
    """
    count = str(len(keys))
    # On the same connection, because it waits for what this connection has written.
    wait = (("WAIT", policy.replicas, policy.wait_ms),) if writes and policy.replicas else ()
    by_name = (("EVALSHA", script.sha1, count, *keys, *arguments), *wait)
    by_text = (("EVAL", script.text, count, *keys, *arguments), *wait)
    replies = yield from _insist(by_name, by_text, policy, router, keys[0], writes=writes)
    reply: list[Any] = replies[0]
    return reply


def call_plain(
    commands: Sequence[Sequence[str | int]], policy: RetryPolicy, router: Router, key: str
) -> Call[list[Any]]:
    """Run plain commands, which must be harmless to repeat, one after the other where ``key`` is; returns their
    answers.

    Raises:
        BackendUnavailable: they have not been carried out, or their answers were lost.
    """
    return (yield from _insist(commands, commands, policy, router, key, writes=False))


def _insist(
    requests: Sequence[Sequence[str | int]],
    requests_if_unknown: Sequence[Sequence[str | int]],
    policy: RetryPolicy,
    router: Router,
    key: str,
    *,
    writes: bool,
) -> Call[list[Any]]:
    lost = False
    reason: Exception | None = None
    pause_ms = policy.pause_ms_min
    now = requests
    node: Node | None = None
    redirected: Node | None = None
    asking = was_redirected = False
    attempts = 0
    while attempts < policy.attempts_max:
        attempts += 1
        try:
            node = redirected or (yield from router.find(key))
            replies = yield from send_to(node, now, asking=asking)
            if writes and policy.replicas and replies[-1] < policy.replicas:
                # It is done here, and nothing takes it back; but a failover might.
                raise ReplyLost(f"{replies[-1]} of {policy.replicas} replicas have it")
            return replies
        except NoScriptError:
            # Restarted, promoted or flushed: give it the text, which also makes it known. No need to wait.
            # It costs no attempt, but for a server that forgets scripts as soon as it is told them.
            attempts -= now is requests
            now = requests_if_unknown
            continue
        except AskError as error:  # MOVED is one, too
            reason, redirected, asking = error, router.redirect_target(error, node), not isinstance(error, MovedError)
            if not was_redirected:
                was_redirected = True
                continue
            # Twice, while word of a move gets round: nodes may name each other, so do not run to and fro.
        except NotSent as error:
            reason = error
        except ReplyLost as error:
            lost, reason = writes, error
        except (AuthenticationError, NoPermissionError, OutOfMemoryError) as error:
            reason = error
            break  # it will not be better in a moment
        except (ResponseError, BusyLoadingError) as error:
            if str(error).startswith("FENCED"):
                raise Fenced(error, lost=lost) from error
            reason = error
            if not isinstance(error, _PASSING) and not str(error).startswith(_PASSING_CODES):
                # Nothing that the scripts foresee, and not necessarily before the first write.
                lost = lost or (writes and not str(error).startswith(_REFUSED_CODES))
                break
        if not isinstance(reason, TryAgainError):  # that one says itself that all is well but for a moment
            router.invalidate()
        now, redirected, asking, was_redirected = requests, None, False, False
        yield RetryPause(pause_ms)
        pause_ms = min(2 * pause_ms, policy.pause_ms_max)
    if lost:
        raise OutcomeUnknown(f"the store's answer is not known; ask again with the same key ({reason})") from reason
    raise BackendUnavailable(_explained(reason)) from reason


def send_to(node: Node | None, requests: Sequence[Sequence[str | int]], *, asking: bool = False) -> Call[list[Any]]:
    """Send requests to a node, once; returns the replies, or raises the first error among them.

    ``asking``: the node does not own the slot yet, and has to be asked to answer all the same, each time anew.
    """
    if asking:
        requests = [one for request in requests for one in (("ASKING",), request)]
    replies = yield Attempt(node, requests)
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies[1::2] if asking else replies


def _explained(error: Exception | None) -> str:
    text = str(error) or type(error).__name__
    hint = next((hint for kind, hint in _HINTS if isinstance(error, kind)), "")
    return f"the store can not be used: {text}" + (f" ({hint})" if hint else "")
