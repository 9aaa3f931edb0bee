"""The keys of a ledger. All of them share a hash tag, so that every command is one script in one slot."""

from __future__ import annotations

__all__ = [
    "BUCKET_FENCE",
    "BUCKET_KEY_NAMES",
    "DRAW_FENCE",
    "DRAW_KEY_NAMES",
    "LEDGER_RETENTION_MARGIN_MS",
    "OFFICE_FENCE",
    "OFFICE_KEY_NAMES",
    "REGISTRY_FENCE",
    "REGISTRY_KEY_NAMES",
    "ROOM_FENCE",
    "ROOM_KEY_NAMES",
    "SHORT_RETENTION_MARGIN_MS",
    "FenceFields",
    "identity_key_key",
    "keys_of",
    "offices_key",
]

from collections.abc import Sequence
from typing import Final, NamedTuple

from quota_engine.stores.redis.request_packing import ScriptKeys

OFFICE_KEY_NAMES: Final = (
    "head",
    "days",
    "records",
    "claims",
    "penalties",
    "due",
    "cooling",
    "waiting",
    "events",
    "choices",
    "updated",
    "gate",
    "ticks",
)
"""In the order of ``KEYS`` in the scripts; ``lua/office/ledger.lua`` describes each. The two of the token buckets come
last, as they do in a ledger that has only buckets.
"""

BUCKET_KEY_NAMES: Final = ("gate", "ticks")
"""The keys of a ledger that has only token buckets; ``lua/buckets/token_bucket.lua`` describes them."""

ROOM_KEY_NAMES: Final = ("head", "identities")
"""The keys of a waiting room; ``lua/waiting_room/room.lua`` describes them."""

DRAW_KEY_NAMES: Final = ("head", "applications", "applicants", "preferences", "offered")
"""The keys of a draw; ``lua/draw/ledger.lua`` describes them."""

REGISTRY_KEY_NAMES: Final = ("head", "claims", "claims_due", "moves", "moves_due", "moves_open")
"""The keys of a shard of the registry; ``lua/registry/ledger.lua`` describes them."""


class FenceFields(NamedTuple):
    """The fence of one kind of ledger, for ``lua/shared/fence.lua``.

    Attributes:
        known: A field of the head that every ledger of the kind has.
        head: Number of the head's key, from 1.
        prefix: Precedes the names of the fields.
        needs_repair: True if a client must reconcile a ledger that has no server, before it is written.
        time: The field of the head that has the time of the last change.
        steps: A field with the time of a step that the next one waits for, or ``""``.
        may_be_lost: True if the loss of the whole ledger does no harm, so that a new one begins by itself.
    """

    known: str
    head: int = 1
    prefix: str = ""
    needs_repair: bool = False
    may_be_lost: bool = False
    time: str = "now_ms"
    steps: str = ""


OFFICE_FENCE: Final = FenceFields("number", needs_repair=True)
ROOM_FENCE: Final = FenceFields("config", steps="last_step_at_ms")
DRAW_FENCE: Final = FenceFields("config")
BUCKET_FENCE: Final = FenceFields("~", head=2, prefix="~", may_be_lost=True, time="~")
"""A lost set of buckets is one whose buckets are full. It breaks no promise."""
REGISTRY_FENCE: Final = FenceFields("now_ms")

LEDGER_RETENTION_MARGIN_MS: Final = 30 * 86_400_000
"""The time by which the keys of an office, a draw or a shard outlive their last entry."""

SHORT_RETENTION_MARGIN_MS: Final = 86_400_000
"""The same for waiting rooms and token buckets."""


def keys_of(namespace: str, address: str, key_names: Sequence[str] = OFFICE_KEY_NAMES) -> ScriptKeys:
    """Return the keys of the ledger at an address, in the order of ``key_names``."""
    return ScriptKeys(f"{{quota_engine:{namespace}:{address}}}:{name}" for name in key_names)


def offices_key(namespace: str) -> str:
    """Return the key of the list of offices that have a ledger, which has its own slot.

    The list is a sorted set: each office, by the time until which it may have a ledger.
    """
    return f"{{quota_engine:{namespace}}}:offices"


def identity_key_key(namespace: str) -> str:
    """Return the key that keeps the fingerprint of the namespace's identity key, in the slot of the list of offices.

    It is a hash with the field ``fingerprint``, and has no TTL: it lives as long as the namespace.
    """
    return f"{{quota_engine:{namespace}}}:identity_key"
