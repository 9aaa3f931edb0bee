"""The registry: what has to be known about a person, or about a reservation, over all offices at once.

An office's ledger knows its own reservations and no other's. Beside the offices stand :data:`SHARDS` shards of the
registry, each a ledger of its own with a place of its own. A shard keeps, for its share of the applicants, a
**claim**: the reference of the one reservation that the applicant may have or be about to make. And for its share of
the reservations a **move**: that this one is on its way to another office, or has gone there.

Both are pointers and nothing more: whether the reservation is there, and still active, the office says. That is why
nothing has to be done here when a hold is confirmed, cancelled or expires. Both carry a **lease**: until it is over,
whoever wrote them is at work, and the office may not know of the reservation yet. Both end by themselves.

:func:`apply` is pure, as the machine is: time is an argument.
"""

from __future__ import annotations

__all__ = [
    "PREFIX",
    "QUERY_ITEMS_MAX",
    "SHARDS",
    "SWEEP_MAX",
    "Claim",
    "ClaimEntry",
    "CloseMove",
    "Drop",
    "FindClaims",
    "FindMove",
    "FoundClaims",
    "MoveEntry",
    "OpenMove",
    "OpenMoves",
    "Registry",
    "RegistryResult",
    "RegistryStatus",
    "apply",
    "ask",
    "describe",
    "is_reference",
    "shard_of",
    "shards",
]

import enum
import re
import zlib
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.validation import DURATION_MS_MAX, TIME_MS_MAX, check_integer, check_name

PREFIX: Final = "~n"

SHARDS: Final = 4
"""Enough to spread over the nodes of a cluster, and so few that calls which meet share their way to the store: with 16
five hundred callers get two thirds as far. Never changed while a store lives: a claim would be looked for elsewhere.
"""

SWEEP_MAX: Final = 16
"""Claims, and moves, whose time is over that one command drops in passing."""

QUERY_ITEMS_MAX: Final = 1_000
"""The most applicants, or moves, in one question."""

NUMBER_MAX: Final = 2**53 - 1
_STALE_MAX: Final = 64

is_reference = re.compile(r"[A-Za-z0-9_-]{1,64}~[A-Za-z0-9_-]{1,64}").fullmatch
"""Matches ``office~id``."""


def shard_of(key: str) -> str:
    """The place of the shard that knows this applicant, or this reservation by its reference."""
    return f"{PREFIX}.{zlib.crc32(key.encode()) % SHARDS:02x}"


def shards() -> list[str]:
    """The places of all shards."""
    return [f"{PREFIX}.{number:02x}" for number in range(SHARDS)]


def _check_reference(value: object, where: str) -> None:
    if not isinstance(value, str) or is_reference(value) is None:
        raise InvalidRequest(where, "not a reference", "an office and an id with ~ between, as outcomes have it")


class Claim(msgspec.Struct, frozen=True, gc=False):
    """Let the applicant's claim point to ``reference``, if there is none in the way.

    One in the way is replaced if its number is ``instead_of``: whoever asks has looked it up, and knows that it stands
    for nothing any more. The same reference again renews the lease of ``lease_ms``. From ``forget_at_ms`` on the claim
    is gone. ``also`` is a second reservation that the claim stands for, as long as either of them is active: the one
    that is being moved. It stays with the reference; the reference itself as ``also`` is none.
    """

    applicant: str
    reference: str
    lease_ms: int
    forget_at_ms: int
    replaces_number: int = 0
    secondary_reference: str = ""

    def __post_init__(self) -> None:
        check_name(self.applicant, "applicant")
        _check_reference(self.reference, "reference")
        if self.secondary_reference:
            _check_reference(self.secondary_reference, "secondary_reference")
        check_integer(self.lease_ms, "lease_ms", 1, DURATION_MS_MAX)
        check_integer(self.forget_at_ms, "forget_at_ms", 1, TIME_MS_MAX)
        check_integer(self.replaces_number, "replaces_number", 0, NUMBER_MAX)


class Drop(msgspec.Struct, frozen=True, gc=False):
    """Take the applicant's claim back, if it is still the one of this number."""

    applicant: str
    number: int

    def __post_init__(self) -> None:
        check_name(self.applicant, "applicant")
        check_integer(self.number, "number", 1, NUMBER_MAX)


class OpenMove(msgspec.Struct, frozen=True, gc=False):
    """Write down that ``source`` (in its ``version``) is about to move to ``target``, unless another move of it is
    open.

    The same move again renews the lease; one that has been done says so (``done``).
    """

    source: str
    target: str
    version: int
    lease_ms: int
    forget_at_ms: int

    def __post_init__(self) -> None:
        _check_reference(self.source, "source")
        _check_reference(self.target, "target")
        check_integer(self.version, "version", 1, 2**31)
        check_integer(self.lease_ms, "lease_ms", 1, DURATION_MS_MAX)
        check_integer(self.forget_at_ms, "forget_at_ms", 1, TIME_MS_MAX)


class CloseMove(msgspec.Struct, frozen=True, gc=False):
    """The move to ``target`` is ``done``, and remembered as that; or has come to nothing, and is forgotten.

    With a ``number`` only if it is still the one of this number: nobody has begun it again.
    """

    source: str
    target: str
    done: bool
    number: int = 0

    def __post_init__(self) -> None:
        _check_reference(self.source, "source")
        _check_reference(self.target, "target")
        if not isinstance(self.done, bool):
            raise InvalidRequest("done", f"a {type(self.done).__name__}", "True or False")
        check_integer(self.number, "number", 0, NUMBER_MAX)


class FindClaims(msgspec.Struct, frozen=True, gc=False):
    """What do the claims of these applicants point to? The answer is a :class:`FoundClaims`."""

    applicants: tuple[str, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.applicants) <= QUERY_ITEMS_MAX:
            raise InvalidRequest("applicants", f"{len(self.applicants)} applicants", f"1 to {QUERY_ITEMS_MAX}")
        for applicant in self.applicants:
            check_name(applicant, "applicants")


class FindMove(msgspec.Struct, frozen=True, gc=False):
    """The move of this reservation, done or under way: a list of one, or of none."""

    source: str

    def __post_init__(self) -> None:
        _check_reference(self.source, "source")


class OpenMoves(msgspec.Struct, frozen=True, gc=False):
    """Up to ``limit`` open moves whose lease has been over for ``over_for_ms``; the longest waiting come first.

    One that is past its time is among them until it is swept.
    """

    limit: int
    over_for_ms: int = 0

    def __post_init__(self) -> None:
        check_integer(self.limit, "limit", 1, QUERY_ITEMS_MAX)
        check_integer(self.over_for_ms, "over_for_ms", 0, DURATION_MS_MAX)


class RegistryStatus(enum.StrEnum):
    """The answer in a word."""

    DONE = "DONE"
    """It is as it was asked for."""
    TAKEN = "TAKEN"
    """Something else is there, and stays."""
    OVERLOADED = "OVERLOADED"
    """Too many calls wait for the store: nothing was looked at."""


class RegistryResult(msgspec.Struct, frozen=True, gc=False):
    """The answer to one command.

    ``reference`` (a claim's, or a move's target), ``also``, ``number`` and ``lease_until_ms`` are of what is there
    now, be it the asker's or in the way; ``""`` and 0 if nothing is. ``now_ms`` is the time of the answer. ``renewed``
    says that it had been there before.
    """

    status: RegistryStatus
    reference: str = ""
    number: int = 0
    lease_until_ms: int = 0
    now_ms: int = 0
    done: bool = False
    renewed: bool = False
    secondary_reference: str = ""

    @property
    def ok(self) -> bool:
        """Whether it is as it was asked for."""
        return self.status is RegistryStatus.DONE

    @property
    def lease_is_over(self) -> bool:
        """Whether nobody can be at work on what is there any more."""
        return self.lease_until_ms <= self.now_ms


class FoundClaims(msgspec.Struct, frozen=True, gc=False):
    """One reference an applicant, in the order asked, ``""`` for who has none; what else their claims stand for, in the
    same order; and the time of the answer.
    """

    now_ms: int
    references: tuple[str, ...]
    secondary_references: tuple[str, ...]


class ClaimEntry(msgspec.Struct, frozen=True, gc=False):
    """A claim as it is kept. ``number`` counts the changes of the shard: no two states of any claim have the same."""

    reference: str
    number: int
    lease_until_ms: int
    forget_at_ms: int
    secondary_reference: str = ""


class MoveEntry(msgspec.Struct, frozen=True, gc=False):
    """A move as it is kept."""

    source: str
    target: str
    version: int
    number: int
    lease_until_ms: int
    forget_at_ms: int
    done: bool


class Registry:
    """All that one shard knows. Change it through :func:`apply` only."""

    __slots__ = ("address", "claims", "claims_due", "moves", "moves_due", "now_ms", "number")

    def __init__(self, place: str) -> None:
        self.address = place
        self.now_ms = 0
        """The time of the last change. No command is earlier."""
        self.number = 0
        """How many changes there have been."""
        self.claims: dict[str, ClaimEntry] = {}
        self.moves: dict[str, MoveEntry] = {}
        self.claims_due: list[tuple[int, str]] = []
        """A heap of ``(forget_at_ms, applicant)``; one that is not what the claim says any more is skipped."""
        self.moves_due: list[tuple[int, str]] = []


def apply(registry: Registry, command: Any, now_ms: int) -> RegistryResult:
    """Carry out one command at ``now_ms`` (milliseconds since 1970, UTC). A refused one changes nothing.

    Raises:
        KeyError: it is no command of a registry.
    """
    handler = _HANDLERS[type(command)]
    now_ms = max(now_ms, registry.now_ms)
    _sweep(registry, registry.claims, registry.claims_due, now_ms)
    _sweep(registry, registry.moves, registry.moves_due, now_ms)
    return handler(registry, command, now_ms)


def _sweep(registry: Registry, entries: dict[str, Any], due: list[tuple[int, str]], now_ms: int) -> None:
    dropped = 0
    while due and due[0][0] <= now_ms and dropped < SWEEP_MAX:
        forget_at_ms, key = heappop(due)
        entry = entries.get(key)
        if entry is not None and entry.forget_at_ms == forget_at_ms:
            del entries[key]
            dropped += 1
            registry.now_ms = now_ms


def _note_due(entries: dict[str, Any], due: list[tuple[int, str]], key: str, forget_at_ms: int) -> None:
    heappush(due, (forget_at_ms, key))
    # Claims that are made and dropped again leave theirs behind: refused applicants must not fill the memory.
    if len(due) > 2 * len(entries) + _STALE_MAX:
        due[:] = [(entry.forget_at_ms, one) for one, entry in entries.items()]
        heapify(due)


def _live(entries: dict[str, Any], key: str, now_ms: int) -> Any:
    """The entry, unless its time is over: whether or not a sweep has seen it."""
    entry = entries.get(key)
    return entry if entry is not None and entry.forget_at_ms > now_ms else None


def _next_number(registry: Registry, now_ms: int) -> int:
    registry.now_ms = now_ms
    registry.number += 1
    return registry.number


def _claim_result(
    status: RegistryStatus, entry: ClaimEntry | None, now_ms: int, *, renewed: bool = False
) -> RegistryResult:
    if entry is None:
        return RegistryResult(status, now_ms=now_ms)
    return RegistryResult(
        status, entry.reference, entry.number, entry.lease_until_ms, now_ms, False, renewed, entry.secondary_reference
    )


def _claim(registry: Registry, command: Claim, now_ms: int) -> RegistryResult:
    known: ClaimEntry | None = _live(registry.claims, command.applicant, now_ms)
    lease_until_ms, forget_at_ms = now_ms + command.lease_ms, max(command.forget_at_ms, now_ms + command.lease_ms)
    renewed = known is not None and known.reference == command.reference
    also = command.secondary_reference
    if known is not None:
        is_lost = not renewed or (known.secondary_reference != "" and also not in ("", known.secondary_reference))
        if is_lost and known.number != command.replaces_number:
            return _claim_result(RegistryStatus.TAKEN, known, now_ms)
        if renewed:
            also = also or known.secondary_reference
            lease_until_ms = max(lease_until_ms, known.lease_until_ms)
            forget_at_ms = max(forget_at_ms, known.forget_at_ms)

    if also == command.reference:
        also = ""

    # From here on it must succeed.
    number = _next_number(registry, now_ms)
    entry = ClaimEntry(command.reference, number, lease_until_ms, forget_at_ms, also)
    registry.claims[command.applicant] = entry
    if known is None or known.forget_at_ms != forget_at_ms:
        _note_due(registry.claims, registry.claims_due, command.applicant, forget_at_ms)
    return _claim_result(RegistryStatus.DONE, entry, now_ms, renewed=renewed)


def _drop(registry: Registry, command: Drop, now_ms: int) -> RegistryResult:
    known: ClaimEntry | None = _live(registry.claims, command.applicant, now_ms)
    if known is None:
        return _claim_result(RegistryStatus.DONE, None, now_ms)
    if known.number != command.number:
        return _claim_result(RegistryStatus.TAKEN, known, now_ms)

    # From here on it must succeed.
    _next_number(registry, now_ms)
    del registry.claims[command.applicant]
    return _claim_result(RegistryStatus.DONE, None, now_ms)


def _move_result(
    status: RegistryStatus, entry: MoveEntry | None, now_ms: int, *, renewed: bool = False
) -> RegistryResult:
    if entry is None:
        return RegistryResult(status, now_ms=now_ms)
    return RegistryResult(status, entry.target, entry.number, entry.lease_until_ms, now_ms, entry.done, renewed)


def _open_move(registry: Registry, command: OpenMove, now_ms: int) -> RegistryResult:
    known: MoveEntry | None = _live(registry.moves, command.source, now_ms)
    lease_until_ms, forget_at_ms = now_ms + command.lease_ms, max(command.forget_at_ms, now_ms + command.lease_ms)
    if known is not None:
        # One that has been done is in the way, too: who has made ready for another knew the source as it was before.
        if known.target != command.target:
            return _move_result(RegistryStatus.TAKEN, known, now_ms)
        if known.done:
            return _move_result(RegistryStatus.DONE, known, now_ms, renewed=True)
        lease_until_ms = max(lease_until_ms, known.lease_until_ms)
        forget_at_ms = max(forget_at_ms, known.forget_at_ms)

    # From here on it must succeed.
    number = _next_number(registry, now_ms)
    entry = MoveEntry(command.source, command.target, command.version, number, lease_until_ms, forget_at_ms, done=False)
    registry.moves[command.source] = entry
    if known is None or known.forget_at_ms != forget_at_ms:
        _note_due(registry.moves, registry.moves_due, command.source, forget_at_ms)
    return _move_result(RegistryStatus.DONE, entry, now_ms, renewed=known is not None)


def _close_move(registry: Registry, command: CloseMove, now_ms: int) -> RegistryResult:
    known: MoveEntry | None = _live(registry.moves, command.source, now_ms)
    if known is None:
        return _move_result(RegistryStatus.DONE, None, now_ms)
    if known.target != command.target or (command.number and command.number != known.number):
        return _move_result(RegistryStatus.TAKEN, known, now_ms)
    if known.done:
        # What is done is done: a late word that it came to nothing is of an earlier try.
        status = RegistryStatus.DONE if command.done else RegistryStatus.TAKEN
        return _move_result(status, known, now_ms)

    # From here on it must succeed.
    number = _next_number(registry, now_ms)
    if not command.done:
        del registry.moves[command.source]
        return _move_result(RegistryStatus.DONE, None, now_ms)
    entry = replace(known, number=number, done=True)
    registry.moves[command.source] = entry
    return _move_result(RegistryStatus.DONE, entry, now_ms)


_HANDLERS: Final[dict[type, Callable[[Registry, Any, int], RegistryResult]]] = {
    Claim: _claim,
    Drop: _drop,
    OpenMove: _open_move,
    CloseMove: _close_move,
}


def ask(registry: Registry, question: Any, now_ms: int) -> Any:
    """Answer a question at ``now_ms``; nothing changes.

    Returns:
        A :class:`FoundClaims` to :class:`FindClaims`, and a list of :class:`MoveEntry` to the others.

    Raises:
        KeyError: it is no question to a registry.
    """
    return _ANSWERS[type(question)](registry, question, max(now_ms, registry.now_ms))


def _find_claims(registry: Registry, question: FindClaims, now_ms: int) -> FoundClaims:
    nothing = ClaimEntry("", 0, 0, 0)
    entries = [_live(registry.claims, applicant, now_ms) or nothing for applicant in question.applicants]
    return FoundClaims(
        now_ms, tuple(one.reference for one in entries), tuple(one.secondary_reference for one in entries)
    )


def _find_move(registry: Registry, question: FindMove, now_ms: int) -> list[MoveEntry]:
    entry = _live(registry.moves, question.source, now_ms)
    return [] if entry is None else [entry]


def _open_moves(registry: Registry, question: OpenMoves, now_ms: int) -> list[MoveEntry]:
    over_until_ms = now_ms - question.over_for_ms
    waiting = [one for one in registry.moves.values() if not one.done and one.lease_until_ms <= over_until_ms]
    return sorted(waiting, key=lambda one: (one.lease_until_ms, one.source))[: question.limit]


_ANSWERS: Final[dict[type, Callable[[Registry, Any, int], Any]]] = {
    FindClaims: _find_claims,
    FindMove: _find_move,
    OpenMoves: _open_moves,
}


def describe(registry: Registry) -> dict[str, Any]:
    """Everything about the shard that can make a difference, as builtins: what two equal ones have in common."""
    return {
        "address": registry.address,
        "now_ms": registry.now_ms,
        "number": registry.number,
        "claims": {key: msgspec.to_builtins(entry) for key, entry in sorted(registry.claims.items())},
        "moves": {key: msgspec.to_builtins(entry) for key, entry in sorted(registry.moves.items())},
    }
