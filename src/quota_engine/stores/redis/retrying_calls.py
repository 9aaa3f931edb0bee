"""Retries of calls to a store; written once, as generators, for both kinds of connection.

redis-py's own retries are off, because a command must not be sent twice without the engine's knowledge. The engine
itself may repeat a command: the id or the state in it makes a repetition harmless. ``docs/backends.md`` has the table.

A network may deliver an attempt whose reply was lost late, after later attempts and other callers' commands. So each
attempt of a call that writes carries its **last moment** by the server's clock, and the server refuses it whole later.
After a lost reply, neither another attempt nor the end of the call comes before that moment has passed. An answer is
therefore final: no earlier copy of the call can run after it.
"""

from __future__ import annotations

__all__ = [
    "NO_FUNCTION",
    "Attempt",
    "Behind",
    "BlockingWork",
    "Call",
    "Durability",
    "Fence",
    "Fenced",
    "Header",
    "LedgerClosed",
    "Node",
    "NotReplicated",
    "NotSent",
    "ReplyLost",
    "RetryPause",
    "RetryPolicy",
    "Router",
    "ScriptCall",
    "Step",
    "call_plain",
    "call_script",
    "run_blocking",
    "send_to",
]

import abc
import enum
from collections.abc import Callable, Generator, Sequence
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

from quota_engine.domain.clock_check import LEAP_MS_DEFAULT, explain_leap
from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.stores.call_end import CallEnd
from quota_engine.stores.clock_alarm import report_leap
from quota_engine.stores.redis.request_packing import Requests, ScriptKeys, ScriptRequest
from quota_engine.stores.redis.scripts import FUNCTION_LIBRARY, TOUCH, Script
from quota_engine.stores.redis.server_clock import LastMoment, ServerClocks

T = TypeVar("T")


class NotSent(Exception):
    """The store was not reached: nothing was sent, so nothing was done."""


class ReplyLost(Exception):
    """A request was sent and no reply arrived: it may have been carried out, or may be later."""


class NotReplicated(ReplyLost):
    """The primary has carried out the request, and too few replicas have it. It is not in flight any more."""


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
    """The treatment of a ledger after a failover, or after any other change of the server that it is written on."""

    OFF = "off"
    """Nothing: commands are applied at once."""
    AUTO = "auto"
    """It is closed until a client has opened it; the first client that meets it does. An office is reconciled first."""
    MANUAL = "manual"
    """It is closed until an operator calls ``reconcile``."""


class LedgerClosed(Exception):
    """The ledger's fence refused this attempt.

    Attributes:
        is_unknown: True if an earlier attempt may have been applied, on the previous server.
    """

    def __init__(self, reason: Exception, *, is_unknown: bool) -> None:
        super().__init__(str(reason))
        self.is_unknown = is_unknown


class Fenced(LedgerClosed):
    """Another server has taken over."""


class Behind(LedgerClosed):
    """The server has an older state than this process has seen, and no attempt found a newer one."""


class RetryPolicy(msgspec.Struct, frozen=True):
    """The retries of a call, and the condition under which it counts as acknowledged.

    Attributes:
        attempts_max: Attempts of one call, at least 1.
        pause_ms_min: The first pause between two attempts, in milliseconds. Pauses double.
        pause_ms_max: The longest pause.
        durability: The condition of an acknowledgment.
        replicas: Replicas that must have a command; 0 except with ``REPLICATED``.
        wait_ms: The time that each attempt waits for them, in milliseconds.
        fence: The treatment of a ledger after a failover.
        attempt_valid_ms: The time that an attempt that writes has from its sending to its start on the server, at
            least 1. After a lost reply the call waits until it has passed.
        functions: True to run scripts as functions where the server allows it.
        clock_leap_max_ms: By how much the server's clock may differ from the caller's and from a ledger's last event.
    """

    attempts_max: int = 8
    pause_ms_min: int = 10
    pause_ms_max: int = 500
    durability: Durability = Durability.MEMORY
    replicas: int = 0
    wait_ms: int = 1000
    fence: Fence = Fence.OFF
    attempt_valid_ms: int = 1000
    functions: bool = False
    clock_leap_max_ms: int = LEAP_MS_DEFAULT


class Node(NamedTuple):
    """The address of a server."""

    host: str
    port: int
    is_sentinel: bool = False

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Attempt:
    """A step of a call: send these requests on one connection to a node.

    The driver sends the list of replies back in, errors among them. If there are none, it throws :class:`NotSent`,
    :class:`ReplyLost`, or the error with which the server rejects the connection.

    Attributes:
        node: The server; ``None`` is the only one.
    """

    __slots__ = ("_make", "node")

    def __init__(self, node: Node | None, make: Callable[[CallEnd | None], Requests]) -> None:
        """Take the server, and the function behind :meth:`requests`."""
        self.node, self._make = node, make

    def requests(self, end: CallEnd | None) -> Requests:
        """Return the requests.

        The driver calls it once it holds a connection, just before it sends: the words may contain a moment that counts
        from the sending.

        Args:
            end: The end of the calls that the attempt is for, if they have one.
        """
        return self._make(end)


class RetryPause(NamedTuple):
    """A step of a call: wait before the next attempt."""

    duration_ms: int


class BlockingWork(NamedTuple):
    """A step of a call: run a function that may take seconds. The asyncio driver runs it in a thread."""

    run: Callable[[], None]


Step = Attempt | RetryPause | BlockingWork
"""A step of a call."""

Call = Generator[Step, list[Any], T]
"""The steps of a call, which a driver runs; returns a ``T``."""


def run_blocking(work: Callable[[], T]) -> Call[T]:
    """Run a function that may take seconds beside the event loop; returns its result, or raises its error."""
    results: list[T] = []
    yield BlockingWork(lambda: results.append(work()))
    return results[0]


class Router:
    """Finds the server of a key. This one has a single server for all keys.

    Attributes:
        is_settled: True if :meth:`find` would return ``None`` without a query.
    """

    is_settled = True

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
_TRANSIENT_CODES: Final = ("BEHIND", "BUSY", "LATE", "LEAP", "NOREPLICAS", "MISCONF", "UNKILLABLE")
NO_FUNCTION: Final = "Function not found"
"""Beginning of the error of a server that does not have the functions."""
_REFUSED_CODES: Final = ("ILLFORMED", "NOAUTH", "ERR unknown command", "ERR wrong number")
_REMEDIES: Final[tuple[tuple[type[Exception], str], ...]] = (
    (OutOfMemoryError, "the server's memory is full: raise maxmemory, and keep maxmemory-policy at noeviction"),
    (ReadOnlyError, "the server is a replica: connect to the primary"),
    (NoPermissionError, "docs/backends.md lists the permissions that are needed"),
)


class Header(msgspec.Struct, frozen=True, gc=False):
    """The first argument of a script, except the last moment of the attempt; see ``lua/shared/call.lua``.

    Attributes:
        time: The time and the flag of the script, or ``""``.
        fence: ``@`` and the fence as the caller saw it last, to check the ledger's fence, or ``""``.
        witness: ``=``, the time of the caller's own clock, ``:`` and the bound, to check the server's clock, or ``""``.
    """

    time: str = ""
    fence: str = ""
    witness: str = ""

    def text(self, valid_until_ms: int | None) -> str:
        """Return the argument of an attempt with this last moment by the server's clock; ``None`` sets none."""
        if valid_until_ms is None:
            return f"{self.time}{self.witness}{self.fence}"
        return f"{self.time}<{valid_until_ms}{self.witness}{self.fence}"


def call_script(
    script: Script,
    keys: ScriptKeys,
    header: Header,
    lines: Sequence[str],
    policy: RetryPolicy,
    router: Router,
    clocks: ServerClocks,
    *,
    writes: bool,
    shown_head: str = "",
    as_function: bool = False,
) -> Call[list[Any]]:
    """Run a script until it is answered or the policy is used up; returns its reply.

    If it writes, no attempt takes effect any more when the call has ended, however it ends. If the policy names
    replicas, the reply waits until they have the state that it shows. A small write after a question gives them
    something to acknowledge: the replicas receive all changes in one order.

    Args:
        script: The script.
        keys: The keys that it declares.
        header: Its first argument.
        lines: Its other arguments.
        policy: Attempts, pauses and acknowledgment.
        router: Finds the server.
        clocks: The clocks of the servers.
        writes: True if it may change something.
        shown_head: The head of the ledger whose state a question shows; ``""`` to show it without waiting.
        as_function: True to run it as a function, if the library has it.

    Raises:
        BackendUnavailable: The script was not applied, or only reads (``writes=False``) and was not answered, or its
            answer is not on the replicas.
        OutcomeUnknown: A reply was lost, and no later attempt was answered.
        LedgerClosed: The script checks the ledger's fence, which is closed.
    """
    return ScriptCall(
        script,
        keys,
        header,
        lines,
        policy,
        router,
        LastMoment(clocks, policy.attempt_valid_ms) if writes else None,
        shown_head,
        as_function,
    ).steps()


def call_plain(
    commands: Sequence[Sequence[str | int]], policy: RetryPolicy, router: Router, key: str, *, waits: bool = False
) -> Call[list[Any]]:
    """Run plain commands one after the other on the server of a key; returns their replies.

    The commands must be harmless to repeat, and harmless if a copy of them arrives at any later time.

    Args:
        commands: Each command as words.
        policy: Attempts and pauses.
        router: Finds the server.
        key: A key that decides the server.
        waits: True to wait until the policy's replicas have what the commands wrote.

    Raises:
        BackendUnavailable: They were not carried out, or their replies were lost, or the replicas do not have them.
    """
    waits = waits and bool(policy.replicas)
    requests = (*commands, ("WAIT", policy.replicas, policy.wait_ms)) if waits else commands
    replies = yield from _call_with_retries(_PlainAttempt(requests), policy, router, key, waits=waits)
    return replies[:-1] if waits else replies


class _RepeatedAttempt(Attempt):
    """The attempts of a call, of which one is in flight at a time. One object serves all of them.

    Attributes:
        last_moment: Stamps each attempt of a call that writes; ``None`` for a call whose lost reply is no unknown
            outcome.
        by_text: True to send the text of a script that the server does not know.
        asking: True if the node does not own the slot yet. ASKING precedes each request then.
        refreshes: True to ask for the server's time first.
    """

    __slots__ = ("asking", "by_text", "last_moment", "refreshes")

    def __init__(self, last_moment: LastMoment | None) -> None:
        self.node, self.last_moment = None, last_moment
        self.by_text = self.asking = self.refreshes = False

    def requests(self, end: CallEnd | None) -> Requests:
        last_moment = self.last_moment
        made = self.make(None if last_moment is None else last_moment.stamp(self.node, end))
        if self.refreshes:
            made = (("TIME",), *made)
        return [one for request in made for one in (("ASKING",), request)] if self.asking else made

    @abc.abstractmethod
    def make(self, valid_until_ms: int | None) -> Requests:
        """Return the requests of the call.

        Args:
            valid_until_ms: The last moment of the attempt by the server's clock; ``None`` if it has none.
        """


class _PlainAttempt(_RepeatedAttempt):
    """Plain commands."""

    __slots__ = ("_commands",)

    def __init__(self, commands: Requests) -> None:
        super().__init__(None)
        self._commands = commands

    def make(self, valid_until_ms: int | None) -> Requests:
        return self._commands


class ScriptCall(_RepeatedAttempt):
    """A call that runs a script; for the arguments see :func:`call_script`."""

    __slots__ = ("_as_function", "_header", "_keys", "_lines", "_policy", "_router", "_script", "_shown_head", "_waits")

    def __init__(
        self,
        script: Script,
        keys: ScriptKeys,
        header: Header,
        lines: Sequence[str],
        policy: RetryPolicy,
        router: Router,
        last_moment: LastMoment | None,
        shown_head: str,
        as_function: bool,
    ) -> None:
        _RepeatedAttempt.__init__(self, last_moment)  # super() takes more time, for each batch
        self._script, self._keys, self._header, self._lines = script, keys, header, lines
        self._policy, self._router, self._shown_head, self._as_function = policy, router, shown_head, as_function
        self._waits = bool(policy.replicas and (last_moment is not None or shown_head))

    def is_ready(self) -> bool:
        """Return True if the first attempt needs nothing before it. Then it may be sent before :meth:`steps` begin."""
        last_moment = self.last_moment
        return self._router.is_settled and (last_moment is None or not last_moment.clocks.is_due(None))

    def steps(self, *, is_sent: bool = False) -> Call[list[Any]]:
        """Return the steps of the call, whose first one is an attempt that has been sent already if ``is_sent``."""
        return _call_with_retries(
            self, self._policy, self._router, self._keys[0], waits=self._waits, first_only=True, is_sent=is_sent
        )

    def make(self, valid_until_ms: int | None) -> Requests:
        script = self._script
        if self.by_text:
            name, code = "EVAL", script.text
        elif self._as_function and script.function:
            name, code = "FCALL", script.function
        else:
            name, code = "EVALSHA", script.sha1
        header = self._header.text(valid_until_ms)
        request = ScriptRequest(name, self._keys.beginning(name, code), header, self._lines)
        if not self._waits:
            return (request,)
        # On the same connection, because WAIT waits only for writes of the same connection.
        policy = self._policy
        touches: Requests = ()
        if self.last_moment is None:
            name, code = ("EVAL", TOUCH.text) if self.by_text else ("EVALSHA", TOUCH.sha1)
            touches = ((name, code, "1", self._shown_head),)
        return (request, *touches, ("WAIT", policy.replicas, policy.wait_ms))


def _call_with_retries(
    attempt: _RepeatedAttempt,
    policy: RetryPolicy,
    router: Router,
    key: str,
    *,
    waits: bool,
    first_only: bool = False,
    is_sent: bool = False,
) -> Call[list[Any]]:
    """Send requests until they are answered or the policy is used up.

    Args:
        attempt: The attempts, which it changes before each of them.
        policy: Attempts and pauses.
        router: Finds the server.
        key: A key that decides the server.
        waits: True if the last request is WAIT, and too few replicas are a failure.
        first_only: True to return the first reply, which is a list, in place of all replies.
        is_sent: True if the first attempt has been sent before these steps, with nothing before it.
    """
    last_moment = attempt.last_moment
    unknown: Exception | None = None  # the reason why an attempt may have been applied
    reason: Exception | None = None
    pause_ms = policy.pause_ms_min
    node: Node | None = None
    redirected: Node | None = None
    was_redirected = has_loaded = False
    attempts = 0
    while attempts < policy.attempts_max:
        attempts += 1
        try:
            if not is_sent:
                node = redirected or (None if router.is_settled else (yield from router.find(key)))
                refreshes = False
                if last_moment is not None:
                    clocks = last_moment.clocks
                    refreshes = clocks.is_due(node)
                    if refreshes and not clocks.of(node).is_usable(clocks.now_ms()):
                        yield from _read_clock(node, clocks)
                        refreshes = clocks.is_due(node)
                # Without a separate generator: each one between the driver and this attempt costs every call.
                attempt.node, attempt.refreshes = node, refreshes
            is_sent = False
            replies = yield attempt
            _raise_error(replies)
            if attempt.asking:
                replies = replies[1::2]
            if last_moment is not None and attempt.refreshes:
                last_moment.clocks.record(node, replies.pop(0))
            if waits and replies[-1] < policy.replicas:
                # The primary has applied it and keeps it, but a failover may lose it.
                raise NotReplicated(f"{replies[-1]} of {policy.replicas} replicas have it")
            return replies[0] if first_only else replies
        except NoScriptError:
            # A restart, promotion or flush lost the script. Its text makes it known again, without a pause. The attempt
            # does not count, unless the server forgets scripts as soon as it receives them.
            if last_moment is not None:
                last_moment.record_refused()
            attempts -= not attempt.by_text
            attempt.by_text = True
            continue
        except AskError as error:  # the base class of MovedError
            if last_moment is not None:
                last_moment.record_refused()
            reason = error
            try:
                redirected = router.redirect_target(error, node)
            except BackendUnavailable:
                if unknown is None:
                    raise
                break  # an earlier attempt may have been applied
            attempt.asking = not isinstance(error, MovedError)
            if not was_redirected:
                was_redirected = True
                continue
            # The second redirection in a row: while a move is announced, two nodes may name each other. Pause.
        except (NotSent, ReplyLost) as error:
            is_lost = last_moment is not None and isinstance(error, ReplyLost)
            unknown, reason = error if is_lost else unknown, error
            if last_moment is not None:
                if is_lost:
                    last_moment.record_unknown()
                if not isinstance(error, NotReplicated):
                    last_moment.clocks.of(node).forget()
                    if is_lost:
                        last_moment.record_lost()
        except (AuthenticationError, NoPermissionError, OutOfMemoryError) as error:
            reason = error
            break  # retrying does not help
        except (ResponseError, BusyLoadingError) as error:
            if last_moment is not None:
                last_moment.record_refused()
            if str(error).startswith("FENCED"):
                raise Fenced(error, is_unknown=unknown is not None) from error
            if str(error).startswith(NO_FUNCTION):
                # A new server, or a flush. The attempt does not count, unless the server does not take the functions.
                attempts -= not has_loaded
                attempt.by_text = has_loaded or not (yield from _load_functions(node))
                has_loaded = True
                continue
            reason = error
            if not isinstance(error, _TRANSIENT) and not str(error).startswith(_TRANSIENT_CODES):
                # No script expects this error, and it may have come after the first write.
                if last_moment is not None and not str(error).startswith(_REFUSED_CODES):
                    unknown = error
                    last_moment.record_unknown()
                break
            if last_moment is not None and str(error).startswith("LATE"):
                last_moment.clocks.of(node).record(float(str(error).split()[1]), last_moment.clocks.now_ms())
            if last_moment is not None and str(error).startswith("LEAP"):
                # If the clock is corrected meanwhile, an attempt with a last moment by it would be valid for months.
                last_moment.clocks.of(node).forget()
        if not isinstance(reason, TryAgainError) and not str(reason).startswith(
            ("LATE", "LEAP")
        ):  # they come from the owner
            router.invalidate()
        attempt.by_text = attempt.asking = was_redirected = has_loaded = False
        redirected = None
        yield RetryPause(max(pause_ms, 0 if last_moment is None else last_moment.wait_ms()))
        pause_ms = min(2 * pause_ms, policy.pause_ms_max)
    if str(reason).startswith("BEHIND"):
        assert reason is not None
        raise Behind(reason, is_unknown=unknown is not None) from reason
    if unknown is not None:
        raise OutcomeUnknown(_explain_unknown(unknown, reason)) from reason
    raise BackendUnavailable(_explain_unavailable(reason, writes=last_moment is not None)) from reason


def _load_functions(node: Node | None) -> Call[bool]:
    """Send the functions to a server; returns False if it does not take them."""
    try:
        yield from send_to(node, lambda _: (("FUNCTION", "LOAD", FUNCTION_LIBRARY.text),))
    except (ResponseError, AuthenticationError, BusyLoadingError, NotSent, ReplyLost) as error:
        return "already exists" in str(error)  # the next attempt, by text, meets any other reason again
    return True


def _read_clock(node: Node | None, clocks: ServerClocks) -> Call[None]:
    """Ask a server for its time.

    Raises:
        NotSent: The server was not reached, or did not return its time.
    """
    try:
        (reply,) = yield from send_to(node, lambda _: (("TIME",),))
    except ReplyLost as error:
        raise NotSent(str(error)) from error
    clocks.record(node, reply)


def send_to(node: Node | None, requests: Callable[[CallEnd | None], Requests]) -> Call[list[Any]]:
    """Send requests to a node once; returns the replies, or raises the first error among them.

    Args:
        node: The server.
        requests: Returns the requests; see :class:`Attempt`.
    """
    replies = yield Attempt(node, requests)
    _raise_error(replies)
    return replies


def _raise_error(replies: Sequence[Any]) -> None:
    """Raise the first error among replies."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply


def _explain_unavailable(error: Exception | None, *, writes: bool) -> str:
    """Return why a call was not answered, and the remedy if there is a known one."""
    if isinstance(error, NotReplicated):
        return (
            f"the state behind this answer is not safe yet: {error}, so a failover could lose it; "
            "nothing is lost now; ask again in a moment, and check the replicas if this persists"
        )
    if str(error).startswith("LEAP"):
        text = explain_leap(*map(int, str(error).split()[1:4]))
        report_leap(text)
        return text
    remedy = next((remedy for kind, remedy in _REMEDIES if isinstance(error, kind)), "")
    if str(error).startswith("LATE"):
        remedy = "every attempt reached the server too late: relieve the server, or raise attempt_valid_ms"
    text = f"the store cannot be used: {_text_of(error)}" + (f" ({remedy})" if remedy else "")
    return f"{text}; nothing was applied" if writes else text


def _explain_unknown(unknown: Exception, last: Exception | None) -> str:
    """Return what is known of a command that may have been applied, and the remedy.

    Args:
        unknown: The reason why it may have been applied.
        last: The error of the last attempt.
    """
    if isinstance(unknown, NotReplicated):
        known = f"the primary has applied the command, but {unknown}, so a failover could lose it"
    elif isinstance(unknown, ReplyLost):
        known = f"the command was sent and its answer was lost ({_text_of(unknown)}), so it may have been applied"
    else:
        known = f"the store failed while it ran the command ({_text_of(unknown)}), so a part may have been applied"
    if last is unknown:
        now = ""
    elif isinstance(last, NotSent):
        now = f"the store cannot be reached now ({_text_of(last)}); "
    else:
        now = f"the store does not accept it now ({_text_of(last)}); "
    return f"{known}; {now}repeat the call with the same key"


def _text_of(error: Exception | None) -> str:
    """Return the text of an error without its full stop, or its name if it has none."""
    return str(error).rstrip(".") or type(error).__name__
