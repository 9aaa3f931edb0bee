"""The registry over all offices: national claims of applicants, and moves of reservations between offices.

An office's ledger knows only its own reservations. The registry consists of :data:`SHARDS` shards. Each shard is a
ledger with its own address and keeps two kinds of entries:

- A **claim** holds the reference of the one reservation that an applicant has or is about to make.
- A **move** records that a reservation is moving to another office, or has moved there.

Both are pointers. Only the office knows if the reservation exists and is active, so the registry needs no update when a
hold is confirmed, cancelled or expires. Both have a **lease**: until it ends, the writer is still at work, and the
office may not know the reservation yet. Both are forgotten at a set time.

:func:`apply` is pure: time is an argument, in milliseconds since 1970 (UTC).
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
"""The prefix of the shards' addresses."""

SHARDS: Final = 4
"""The number of shards. It spreads load over the nodes of a cluster, and is small enough that concurrent calls share
batches: with 16 shards, 500 callers reach two thirds of the throughput. It never changes while a store lives, because a
claim would be searched in another shard.
"""

SWEEP_MAX: Final = 16
"""The most forgotten claims, and the most forgotten moves, that one command deletes."""

QUERY_ITEMS_MAX: Final = 1_000
"""The most applicants, or moves, in one query."""

NUMBER_MAX: Final = 2**53 - 1
"""The largest number of a change: the largest integer that Lua represents exactly."""
_STALE_MAX: Final = 64

is_reference = re.compile(r"[A-Za-z0-9_-]{1,64}~[A-Za-z0-9_-]{1,64}").fullmatch
"""Matches ``office~id``."""


def shard_of(key: str) -> str:
    """Return the address of the shard for an applicant, or for a reservation's reference."""
    return f"{PREFIX}.{zlib.crc32(key.encode()) % SHARDS:02x}"


def shards() -> list[str]:
    """Return the addresses of all shards."""
    return [f"{PREFIX}.{number:02x}" for number in range(SHARDS)]


def _check_reference(value: object, where: str) -> None:
    if not isinstance(value, str) or is_reference(value) is None:
        raise InvalidRequest(where, "not a reference", "office~id, as in Outcome.reference")


class Claim(msgspec.Struct, frozen=True, gc=False):
    """Set an applicant's claim, unless another reservation has it.

    Attributes:
        applicant: the applicant's keyed hash.
        reference: the reservation that the claim points to. The same reference again renews the lease.
        lease_ms: length of the lease, 1 ms to 10 years.
        forget_at_ms: the claim is forgotten at this time, or at the end of the lease if that is later.
        replaces_number: replace an existing claim of this number, because the caller has found that its reservation is
            no longer active. 0 replaces none.
        secondary_reference: a second reservation that the claim also stands for, while one moves to the other. ``""``
            keeps the present one of the same reference, and the reference itself removes it.
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
    """Delete an applicant's claim.

    Attributes:
        applicant: the applicant's keyed hash.
        number: delete it if it still has this number; 0 with a reference.
        reference: delete it if it points to this reservation alone and its lease has ended. A claim with a lease may
            belong to a caller who is about to put the applicant into the reservation.
    """

    applicant: str
    number: int = 0
    reference: str = ""

    def __post_init__(self) -> None:
        check_name(self.applicant, "applicant")
        if self.reference:
            _check_reference(self.reference, "reference")
            check_integer(self.number, "number", 0, 0)
        else:
            check_integer(self.number, "number", 1, NUMBER_MAX)


class OpenMove(msgspec.Struct, frozen=True, gc=False):
    """Record that ``source`` is about to move to ``target``, unless another move of it exists.

    The same move again renews the lease. If that move has been completed, the result has ``done`` set.

    Attributes:
        source, target: references of the reservations.
        version: the source's version.
        lease_ms, forget_at_ms: as for :class:`Claim`.
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
    """Close a move: remember it as completed, or delete it because it failed.

    Attributes:
        source, target: references of the reservations.
        done: True if the move was completed.
        number: close the move only if it still has this number, that is, if no caller has started it again; 0 for any.
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
    """Query the claims of 1 to 1,000 applicants. The result is a :class:`FoundClaims`."""

    applicants: tuple[str, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.applicants) <= QUERY_ITEMS_MAX:
            raise InvalidRequest("applicants", f"{len(self.applicants)} applicants", f"1 to {QUERY_ITEMS_MAX}")
        for applicant in self.applicants:
            check_name(applicant, "applicants")


class FindMove(msgspec.Struct, frozen=True, gc=False):
    """Query the move of a reservation, open or completed. The result is a list of one or no :class:`MoveEntry`."""

    source: str

    def __post_init__(self) -> None:
        _check_reference(self.source, "source")


class OpenMoves(msgspec.Struct, frozen=True, gc=False):
    """Query open moves whose lease has ended, as a list of :class:`MoveEntry`. The earliest end comes first.

    Attributes:
        limit: the most moves, 1 to 1,000. Moves that should be forgotten are included until they are swept.
        over_for_ms: the lease must have ended at least this long ago.
    """

    limit: int
    over_for_ms: int = 0

    def __post_init__(self) -> None:
        check_integer(self.limit, "limit", 1, QUERY_ITEMS_MAX)
        check_integer(self.over_for_ms, "over_for_ms", 0, DURATION_MS_MAX)


class RegistryStatus(enum.StrEnum):
    """The name of a result."""

    DONE = "DONE"
    """The entry is as requested."""
    TAKEN = "TAKEN"
    """Another entry exists and stays."""
    OVERLOADED = "OVERLOADED"
    """The queue of calls to the store is full. The command was rejected before it was sent."""


class RegistryResult(msgspec.Struct, frozen=True, gc=False):
    """The result of one command.

    Attributes:
        status: the name of the result.
        reference: the reference of the present claim, or the target of the present move; ``""`` if there is none.
        number: the number of the present entry, or 0.
        lease_until_ms: the end of its lease, or 0.
        now_ms: the time of the result.
        done: True if the present move has been completed.
        renewed: True if the requested entry existed before.
        secondary_reference: the second reservation of the present claim, or ``""``.
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
        """True if the entry is as requested."""
        return self.status is RegistryStatus.DONE

    @property
    def lease_is_over(self) -> bool:
        """True if the writer of the present entry is no longer at work."""
        return self.lease_until_ms <= self.now_ms


class FoundClaims(msgspec.Struct, frozen=True, gc=False):
    """The claims of several applicants, in the order of the query.

    Attributes:
        now_ms: the time of the result.
        references: one reference per applicant; ``""`` for an applicant without a claim.
        secondary_references: the claims' second reservations, or ``""``.
    """

    now_ms: int
    references: tuple[str, ...]
    secondary_references: tuple[str, ...]


class ClaimEntry(msgspec.Struct, frozen=True, gc=False):
    """A stored claim. ``number`` counts the changes of the shard, so each state of a claim has another number."""

    reference: str
    number: int
    lease_until_ms: int
    forget_at_ms: int
    secondary_reference: str = ""


class MoveEntry(msgspec.Struct, frozen=True, gc=False):
    """A stored move."""

    source: str
    target: str
    version: int
    number: int
    lease_until_ms: int
    forget_at_ms: int
    done: bool


class Registry:
    """The state of one shard. Only :func:`apply` may change it."""

    __slots__ = ("address", "claims", "claims_due", "moves", "moves_due", "now_ms", "number")

    def __init__(self, place: str) -> None:
        self.address = place
        self.now_ms = 0
        """The time of the last change. A command never has an earlier time."""
        self.number = 0
        """The count of changes so far."""
        self.claims: dict[str, ClaimEntry] = {}
        self.moves: dict[str, MoveEntry] = {}
        self.claims_due: list[tuple[int, str]] = []
        """A heap of ``(forget_at_ms, applicant)``. Entries that differ from the claim are stale and are skipped."""
        self.moves_due: list[tuple[int, str]] = []


def apply(registry: Registry, command: Any, now_ms: int) -> RegistryResult:
    """Apply one command and return its result. A refused command changes nothing.

    Args:
        registry: the shard; changed in place.
        command: :class:`Claim`, :class:`Drop`, :class:`OpenMove` or :class:`CloseMove`.
        now_ms: milliseconds since 1970 (UTC). A time before the last change counts as the time of that change.

    Raises:
        KeyError: any other command.
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
    # Claims that are set and deleted again leave stale entries. Refused applicants must not fill the memory with them.
    if len(due) > 2 * len(entries) + _STALE_MAX:
        due[:] = [(entry.forget_at_ms, one) for one, entry in entries.items()]
        heapify(due)


def _live(entries: dict[str, Any], key: str, now_ms: int) -> Any:
    """Return the entry, or ``None`` if its time has ended, even if no sweep has deleted it yet."""
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
    secondary = command.secondary_reference
    if known is not None:
        is_lost = not renewed or (known.secondary_reference != "" and secondary not in ("", known.secondary_reference))
        if is_lost and known.number != command.replaces_number:
            return _claim_result(RegistryStatus.TAKEN, known, now_ms)
        if renewed:
            secondary = secondary or known.secondary_reference
            lease_until_ms = max(lease_until_ms, known.lease_until_ms)
            forget_at_ms = max(forget_at_ms, known.forget_at_ms)

    if secondary == command.reference:
        secondary = ""

    # From here on it must succeed.
    number = _next_number(registry, now_ms)
    entry = ClaimEntry(command.reference, number, lease_until_ms, forget_at_ms, secondary)
    registry.claims[command.applicant] = entry
    if known is None or known.forget_at_ms != forget_at_ms:
        _note_due(registry.claims, registry.claims_due, command.applicant, forget_at_ms)
    return _claim_result(RegistryStatus.DONE, entry, now_ms, renewed=renewed)


def _drop(registry: Registry, command: Drop, now_ms: int) -> RegistryResult:
    known: ClaimEntry | None = _live(registry.claims, command.applicant, now_ms)
    if known is None:
        return _claim_result(RegistryStatus.DONE, None, now_ms)
    is_unused = (
        known.reference == command.reference and not known.secondary_reference and known.lease_until_ms <= now_ms
    )
    if not (is_unused if command.reference else known.number == command.number):
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
        # A completed move conflicts, too: a caller that starts another one has read the source as it was before.
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
        # A completed move stays completed. A late report of its failure belongs to an earlier attempt.
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
    """Return the result of a query. Changes nothing.

    Args:
        registry: the shard.
        question: :class:`FindClaims`, :class:`FindMove` or :class:`OpenMoves`.
        now_ms: milliseconds since 1970 (UTC).

    Returns:
        A :class:`FoundClaims` for :class:`FindClaims`, and a list of :class:`MoveEntry` for the other queries.

    Raises:
        KeyError: any other query.
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
    """Return the shard's state as builtins. Two shards behave the same if their descriptions are equal."""
    return {
        "address": registry.address,
        "now_ms": registry.now_ms,
        "number": registry.number,
        "claims": {key: msgspec.to_builtins(entry) for key, entry in sorted(registry.claims.items())},
        "moves": {key: msgspec.to_builtins(entry) for key, entry in sorted(registry.moves.items())},
    }
