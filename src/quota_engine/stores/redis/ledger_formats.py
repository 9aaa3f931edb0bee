"""The stored form of each kind of ledger: its keys, its scripts, and the codec of its lines.

The counterpart of ``quota_engine.ledger_kinds``, which has the rules that the scripts mirror.
"""

from __future__ import annotations

__all__ = [
    "BUCKETS",
    "DRAW",
    "OFFICE",
    "REGISTRY",
    "ROOM",
    "LedgerFormat",
    "ReplyDecoder",
    "format_of",
    "office_script_of",
]

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import msgspec

from quota_engine.admission.guarded_command import GuardedCommand
from quota_engine.admission.token_bucket import TakeOutcome
from quota_engine.domain.commands import Cancel, Decline, Expire, MoveOut, Release, RemoveApplicant, UndoMove
from quota_engine.domain.cross_office_registry import PREFIX, CloseMove, Drop, RegistryResult, RegistryStatus
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.draws.commands import WithdrawApplication
from quota_engine.draws.outcomes import DrawOutcome, DrawStatus
from quota_engine.stores.redis import keys, scripts
from quota_engine.stores.redis.codecs import buckets, draws, office, registry, rooms
from quota_engine.stores.redis.scripts import Script
from quota_engine.stores.redis.state_decoder import HASH_INDEXES, ledger_of_state
from quota_engine.waiting_room.results import RoomResult, RoomStatus


class ReplyDecoder(Protocol):
    """Decodes the lines that a ledger's scripts return. One of a kind with questions also has ``answer``."""

    def outcome(self, command: Any, line: str) -> Any:
        """Return the outcome of ``command`` from its reply line."""
        ...


class LedgerFormat(msgspec.Struct, frozen=True, eq=False):
    """The stored form of one kind of ledger.

    Attributes:
        key_names: Names of its keys, in the order of ``KEYS``.
        script_of: Returns the script that applies a command.
        encode: Writes a command, or a question for ``queries``, as a line.
        decoder: Makes the decoder of a ledger's replies from its address.
        queries: The script that answers questions and writes nothing.
        state: The script that reads everything.
        hash_indexes: Indexes of the replies of ``state`` that are hashes.
        decode_ledger: Makes the pure state from an address and the replies of ``state``, each hash as a dictionary.
        overloaded: The outcome of a command when the ledger's queue is full.
        parts: The script that reads everything in parts; ``None`` if ``state`` is quick enough.
        head: Index of the key that has the fence.
        take_over: The script that opens a ledger after a failover; ``None`` for offices, which are reconciled.
    """

    key_names: Sequence[str]
    script_of: Callable[[Any], Script]
    encode: Callable[[Any], str]
    decoder: Callable[[str], Any]
    queries: Script
    state: Script
    hash_indexes: frozenset[int]
    decode_ledger: Callable[[str, list[Any]], Any]
    overloaded: Any
    parts: Script | None = None
    head: int = 0
    take_over: Script | None = None


_OFFICE_SCRIPTS: Final[dict[type, Script]] = {
    **dict.fromkeys(
        (Release, RemoveApplicant, Decline, Cancel, MoveOut, UndoMove, Expire), scripts.OFFICE_FREEING_COMMANDS
    ),
    GuardedCommand: scripts.OFFICE_GUARDED_COMMANDS,
}


def office_script_of(command: Any) -> Script:
    """Return the script that applies an office's command."""
    return _OFFICE_SCRIPTS.get(type(command), scripts.OFFICE_COMMANDS)


def _draw_script_of(command: Any) -> Script:
    return scripts.DRAW_FREEING_COMMANDS if type(command) is WithdrawApplication else scripts.DRAW_COMMANDS


def _registry_script_of(command: Any) -> Script:
    return scripts.REGISTRY_FREEING_COMMANDS if type(command) in (Drop, CloseMove) else scripts.REGISTRY_COMMANDS


OFFICE: Final = LedgerFormat(
    key_names=keys.OFFICE_KEY_NAMES,
    script_of=office_script_of,
    encode=office.encode,
    decoder=office.OfficeDecoder,
    queries=scripts.OFFICE_QUERIES,
    state=scripts.OFFICE_STATE,
    hash_indexes=HASH_INDEXES,
    decode_ledger=ledger_of_state,
    overloaded=Outcome(Status.OVERLOADED),
    parts=scripts.OFFICE_PARTS,
)

ROOM: Final = LedgerFormat(
    key_names=keys.ROOM_KEY_NAMES,
    script_of=lambda _: scripts.ROOM_COMMANDS,
    encode=rooms.encode,
    decoder=rooms.RoomDecoder,
    queries=scripts.ROOM_QUERIES,
    state=scripts.ROOM_STATE,
    hash_indexes=frozenset({0, 1}),
    decode_ledger=rooms.room_of_state,
    overloaded=RoomResult(RoomStatus.OVERLOADED),
    take_over=scripts.TAKE_OVER_ROOM,
)

DRAW: Final = LedgerFormat(
    key_names=keys.DRAW_KEY_NAMES,
    script_of=_draw_script_of,
    encode=draws.encode,
    decoder=draws.DrawDecoder,
    queries=scripts.DRAW_QUERIES,
    state=scripts.DRAW_STATE,
    hash_indexes=frozenset(range(5)),
    decode_ledger=draws.draw_of_state,
    overloaded=DrawOutcome(DrawStatus.OVERLOADED),
    take_over=scripts.TAKE_OVER_DRAW,
)

BUCKETS: Final = LedgerFormat(
    key_names=keys.BUCKET_KEY_NAMES,
    script_of=lambda _: scripts.BUCKET_COMMANDS,
    encode=buckets.encode,
    decoder=buckets.BucketDecoder,
    queries=scripts.BUCKET_QUERIES,
    state=scripts.BUCKET_STATE,
    hash_indexes=frozenset({1}),
    decode_ledger=buckets.buckets_of_state,
    overloaded=TakeOutcome(0, 0),
    head=keys.BUCKET_FENCE.head - 1,
    take_over=scripts.TAKE_OVER_BUCKETS,
)

REGISTRY: Final = LedgerFormat(
    key_names=keys.REGISTRY_KEY_NAMES,
    script_of=_registry_script_of,
    encode=registry.encode,
    decoder=registry.RegistryDecoder,
    queries=scripts.REGISTRY_QUERIES,
    state=scripts.REGISTRY_STATE,
    hash_indexes=frozenset({0, 1, 2}),
    decode_ledger=registry.registry_of_state,
    overloaded=RegistryResult(RegistryStatus.OVERLOADED),
    take_over=scripts.TAKE_OVER_REGISTRY,
)

_FORMATS: Final[dict[str, LedgerFormat]] = {
    "": OFFICE,
    "~room": ROOM,
    "~draw": DRAW,
    "~buckets": BUCKETS,
    PREFIX: REGISTRY,
}
"""By the prefixes of ``quota_engine.ledger_kinds``."""


def format_of(address: str) -> LedgerFormat:
    """Return how the ledger at an address is stored.

    Raises:
        KeyError: No kind of ledger has the address's prefix.
    """
    return _FORMATS[address.partition(".")[0]] if address.startswith("~") else OFFICE
