"""Retries of calls to a store; written once, as generators, for both kinds of connection.

redis-py's own retries are off, because a command must not be sent twice without the engine's knowledge. The engine
itself may repeat a command: the id or the state in it makes a second time harmless. ``docs/backends.md`` has the table.
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
    """The store was not reached: nothing was sent, so nothing was done."""


class ReplyLost(Exception):
    """A request was sent and no reply arrived: it may have been carried out, or may be later."""


class Durability(enum.StrEnum):
    """The condition under which a command counts as acknowledged."""

    MEMORY = "memory"
    """The server has applied it. The server's settings decide what a crash loses."""
    FSYNC = "fsync"
    """It is on the server's disk. The server must write before it answers, which is checked when the store is opened.
    """
    REPLICATED = "replicated"
    """``replicas`` replicas have it, too."""


class Fence(enum.StrEnum):
    """The treatment of an office after a failover, or after any other change of the server that it is written on."""

    OFF = "off"
    """Nothing: commands are applied at once."""
    AUTO = "auto"
    """It is closed until a client has reconciled it; the first client that meets it does."""
    MANUAL = "manual"
    """It is closed until an operator calls ``reconcile``."""


class Fenced(Exception):
    """The office is closed because another server has taken over. This attempt was not applied.

    Attributes:
        is_unknown: True if an earlier attempt may have been applied, on the previous server.
    """

    def __init__(self, reason: Exception, *, is_unknown: bool) -> None:
        super().__init__(str(reason))
        self.is_unknown = is_unknown


class RetryPolicy(msgspec.Struct, frozen=True):
    """The retries of a call, and the condition under which it counts as acknowledged.

    Attributes:
        attempts_max: Attempts of one call, at least 1.
        pause_ms_min: The first pause between two attempts, in milliseconds. Pauses double.
        pause_ms_max: The longest pause.
        durability: The condition of an acknowledgment.
        replicas: Replicas that must have a command; 0 except with ``REPLICATED``.
        wait_ms: The time that each attempt waits for them, in milliseconds.
        fence: The treatment of an office after a failover.
    """

    attempts_max: int = 8
    pause_ms_min: int = 10
    pause_ms_max: int = 500
    durability: Durability = Durability.MEMORY
    replicas: int = 0
    wait_ms: int = 1000
    fence: Fence = Fence.OFF


class Node(NamedTuple):
    """The address of a server."""

    host: str
    port: int
    is_sentinel: bool = False

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Attempt(NamedTuple):
    """A step of a call: send these requests on one connection to a node.

    The driver sends the list of replies back in, errors among them. If there are none, it throws :class:`NotSent`,
    :class:`ReplyLost`, or the error with which the server rejects the connection.

    Attributes:
        node: The server; ``None`` is the only one.
        requests: Each request as words.
    """

    node: Node | None
    requests: Sequence[Sequence[str | int]]


class RetryPause(NamedTuple):
    """A step of a call: wait before the next attempt."""

    duration_ms: int


Call = Generator[Attempt | RetryPause, list[Any], T]
"""The steps of a call, which a driver runs; returns a ``T``."""


class Router:
    """Finds the server of a key. This one has a single server for all keys."""

    def find(self, key: str) -> Call[Node | None]:
        """Return the server of ``key``. Other servers may be queried for it first.

        Raises:
            NotSent: No server is known.
        """
        yield from ()
        return None

    def invalidate(self) -> None:
        """Note that an attempt failed, so the known servers may be wrong. The next call queries for them again."""

    def redirect_target(self, error: AskError, asked: Node | None) -> Node:
        """Return the server that a redirection names.

        Args:
            error: ASK redirects this call, MOVED this call and all later ones.
            asked: The server that sent the redirection.

        Raises:
            BackendUnavailable: There should be only one server.
        """
        raise BackendUnavailable("the server is a node of a cluster: open it with redis+cluster://") from error


# The server refuses the script whole with these errors, and may accept it in a moment.
_TRANSIENT: Final = (BusyLoadingError, ClusterDownError, MasterDownError, ReadOnlyError, TryAgainError)
_TRANSIENT_CODES: Final = ("BEHIND", "BUSY", "NOREPLICAS", "MISCONF", "UNKILLABLE")
_REFUSED_CODES: Final = ("ILLFORMED", "NOAUTH", "ERR unknown command", "ERR wrong number")
_REMEDIES: Final[tuple[tuple[type[Exception], str], ...]] = (
    (OutOfMemoryError, "the server's memory is full: raise maxmemory, and keep maxmemory-policy at noeviction"),
    (ReadOnlyError, "the server is a replica: connect to the primary"),
    (NoPermissionError, "docs/backends.md lists the permissions that are needed"),
)


def call_script(
    script: Script, keys: Sequence[str], arguments: Sequence[str], policy: RetryPolicy, router: Router, *, writes: bool
) -> Call[list[Any]]:
    """Run a script until it is answered or the policy is used up; returns its reply.

    Raises:
        BackendUnavailable: The script was not applied, or only reads (``writes=False``).
        OutcomeUnknown: A reply was lost, and no later attempt was answered.
        Fenced: The script checks the office's fence, which is closed.
    """
    count = str(len(keys))
    # On the same connection, because WAIT waits only for writes of the same connection.
    wait = (("WAIT", policy.replicas, policy.wait_ms),) if writes and policy.replicas else ()
    by_sha1 = (("EVALSHA", script.sha1, count, *keys, *arguments), *wait)
    by_text = (("EVAL", script.text, count, *keys, *arguments), *wait)
    replies = yield from _call_with_retries(by_sha1, by_text, policy, router, keys[0], writes=writes)
    reply: list[Any] = replies[0]
    return reply


def call_plain(
    commands: Sequence[Sequence[str | int]], policy: RetryPolicy, router: Router, key: str
) -> Call[list[Any]]:
    """Run plain commands one after the other on the server of a key; returns their replies.

    The commands must be harmless to repeat.

    Raises:
        BackendUnavailable: They were not carried out, or their replies were lost.
    """
    return (yield from _call_with_retries(commands, commands, policy, router, key, writes=False))


def _call_with_retries(
    requests: Sequence[Sequence[str | int]],
    requests_if_unknown: Sequence[Sequence[str | int]],
    policy: RetryPolicy,
    router: Router,
    key: str,
    *,
    writes: bool,
) -> Call[list[Any]]:
    """Send requests until they are answered or the policy is used up.

    Args:
        requests: The requests.
        requests_if_unknown: Requests to send instead if the server does not know the script.
        policy: Attempts and pauses.
        router: Finds the server.
        key: A key that decides the server.
        writes: True if a lost reply is an unknown outcome.
    """
    is_unknown = False
    reason: Exception | None = None
    pause_ms = policy.pause_ms_min
    current = requests
    node: Node | None = None
    redirected: Node | None = None
    asking = was_redirected = False
    attempts = 0
    while attempts < policy.attempts_max:
        attempts += 1
        try:
            node = redirected or (yield from router.find(key))
            replies = yield from send_to(node, current, asking=asking)
            if writes and policy.replicas and replies[-1] < policy.replicas:
                # The primary has applied it and keeps it, but a failover may lose it.
                raise ReplyLost(f"{replies[-1]} of {policy.replicas} replicas have it")
            return replies
        except NoScriptError:
            # A restart, promotion or flush lost the script. Its text makes it known again, without a pause. The attempt
            # does not count, unless the server forgets scripts as soon as it receives them.
            attempts -= current is requests
            current = requests_if_unknown
            continue
        except AskError as error:  # the base class of MovedError
            reason, redirected = error, router.redirect_target(error, node)
            asking = not isinstance(error, MovedError)
            if not was_redirected:
                was_redirected = True
                continue
            # The second redirection in a row: while a move is announced, two nodes may name each other. Pause.
        except NotSent as error:
            reason = error
        except ReplyLost as error:
            is_unknown, reason = writes, error
        except (AuthenticationError, NoPermissionError, OutOfMemoryError) as error:
            reason = error
            break  # retrying does not help
        except (ResponseError, BusyLoadingError) as error:
            if str(error).startswith("FENCED"):
                raise Fenced(error, is_unknown=is_unknown) from error
            reason = error
            if not isinstance(error, _TRANSIENT) and not str(error).startswith(_TRANSIENT_CODES):
                # No script expects this error, and it may have come after the first write.
                is_unknown = is_unknown or (writes and not str(error).startswith(_REFUSED_CODES))
                break
        if not isinstance(reason, TryAgainError):  # TRYAGAIN comes from the right server
            router.invalidate()
        current, redirected, asking, was_redirected = requests, None, False, False
        yield RetryPause(pause_ms)
        pause_ms = min(2 * pause_ms, policy.pause_ms_max)
    if is_unknown:
        raise OutcomeUnknown(f"the store's answer was lost; repeat the call with the same key ({reason})") from reason
    raise BackendUnavailable(_explained(reason)) from reason


def send_to(node: Node | None, requests: Sequence[Sequence[str | int]], *, asking: bool = False) -> Call[list[Any]]:
    """Send requests to a node once; returns the replies, or raises the first error among them.

    Args:
        node: The server.
        requests: Each request as words.
        asking: True if the node does not own the slot yet. ASKING precedes each request then.
    """
    if asking:
        requests = [one for request in requests for one in (("ASKING",), request)]
    replies = yield Attempt(node, requests)
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies[1::2] if asking else replies


def _explained(error: Exception | None) -> str:
    """Return the text of an error, with its remedy if there is a known one."""
    text = str(error) or type(error).__name__
    remedy = next((remedy for kind, remedy in _REMEDIES if isinstance(error, kind)), "")
    return f"the store cannot be used: {text}" + (f" ({remedy})" if remedy else "")
