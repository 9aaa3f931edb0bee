"""How each kind of ledger is kept in the store: its keys, its scripts, and how its texts are written and read.

The counterpart of ``quota_engine.ledger_kinds``, which has the rules that the scripts mirror.
"""

from __future__ import annotations

__all__ = ["BUCKETS", "DRAW", "OFFICE", "REGISTRY", "ROOM", "LedgerFormat", "ReplyDecoder", "format_of"]

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol

from quota_engine.admission.token_bucket import TakeOutcome
from quota_engine.domain.cross_office_registry import PREFIX, RegistryResult, RegistryStatus
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.draws.ledger import DrawOutcome, DrawStatus, WithdrawApplication
from quota_engine.stores.redis.codecs import registry, rooms
from quota_engine.stores.redis.codecs.buckets import BucketDecoder, buckets_of_state, encode_bucket_command
from quota_engine.stores.redis.codecs.draws import (
    DRAW_HASHES,
    DRAW_KEY_NAMES,
    DrawDecoder,
    draw_of_state,
    encode_for_draw,
)
from quota_engine.stores.redis.codecs.office import OfficeDecoder, encode
from quota_engine.stores.redis.keys import BUCKET_KEY_NAMES, OFFICE_KEY_NAMES
from quota_engine.stores.redis.scripts import (
    BUCKET_READS,
    BUCKET_STATE,
    DRAW_COMMANDS,
    DRAW_FREEING_COMMANDS,
    DRAW_READS,
    DRAW_STATE,
    READS,
    STATE,
    Script,
    script_of,
)
from quota_engine.stores.redis.scripts import BUCKETS as BUCKET_COMMANDS
from quota_engine.stores.redis.state_decoder import HASHES, ledger_of_state
from quota_engine.waiting_room.machine import RoomResult, RoomStatus


class ReplyDecoder(Protocol):
    """Turns a place's lines into answers."""

    def outcome(self, command: Any, line: str) -> Any:
        """The answer to ``command``, whose line was ``line``."""
        ...


class LedgerFormat(NamedTuple):
    """One kind of ledger in the store.

    ``encode`` writes a command, or a question for the script ``reads``, as a line. ``answers(place)`` makes what reads
    the lines that come back; the one of a kind that takes questions has ``answer(question, line)`` besides.
    ``ledger(place, state)`` makes the pure state of what the script ``state`` returns, whose answers at the indexes
    ``hashes`` are hashes. ``overloaded`` is the answer when too many calls for the place wait already.
    """

    key_names: Sequence[str]
    script_of: Callable[[Any], Script]
    encode: Callable[[Any], str]
    decoder: Callable[[str], Any]
    reads: Script
    state: Script
    hash_indexes: frozenset[int]
    decode_ledger: Callable[[str, list[Any]], Any]
    overloaded: Any


OFFICE: Final = LedgerFormat(
    OFFICE_KEY_NAMES,
    script_of,
    encode,
    OfficeDecoder,
    READS,
    STATE,
    HASHES,
    ledger_of_state,
    Outcome(Status.OVERLOADED),
)

ROOM: Final = LedgerFormat(
    rooms.ROOM_KEY_NAMES,
    lambda _: rooms.COMMANDS,
    rooms.encode,
    rooms.RoomDecoder,
    rooms.READS,
    rooms.STATE,
    rooms.HASHES,
    rooms.room_of_state,
    RoomResult(RoomStatus.OVERLOADED),
)

DRAW: Final = LedgerFormat(
    DRAW_KEY_NAMES,
    lambda command: DRAW_FREEING_COMMANDS if type(command) is WithdrawApplication else DRAW_COMMANDS,
    encode_for_draw,
    DrawDecoder,
    DRAW_READS,
    DRAW_STATE,
    DRAW_HASHES,
    draw_of_state,
    DrawOutcome(DrawStatus.OVERLOADED),
)

BUCKETS: Final = LedgerFormat(
    BUCKET_KEY_NAMES,
    lambda _: BUCKET_COMMANDS,
    encode_bucket_command,
    BucketDecoder,
    BUCKET_READS,
    BUCKET_STATE,
    frozenset({1}),
    buckets_of_state,
    TakeOutcome(0, 0),
)

REGISTRY: Final = LedgerFormat(
    registry.REGISTRY_KEY_NAMES,
    registry.script_of,
    registry.encode,
    registry.RegistryDecoder,
    registry.READS,
    registry.STATE,
    frozenset({0, 1, 2}),
    registry.registry_of_state,
    RegistryResult(RegistryStatus.OVERLOADED),
)

_STORED: Final[dict[str, LedgerFormat]] = {
    "": OFFICE,
    "~room": ROOM,
    "~draw": DRAW,
    "~buckets": BUCKETS,
    PREFIX: REGISTRY,
}
"""By the prefixes of ``quota_engine.ledger_kinds``."""


def format_of(place: str) -> LedgerFormat:
    """How the ledger at ``place`` is kept. Raises ``KeyError`` if there is no such kind."""
    return _STORED[place.partition(".")[0]] if place.startswith("~") else OFFICE
