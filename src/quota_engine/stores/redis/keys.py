"""The keys of a place. All of them share its hash tag, so that every command is one script in one slot."""

from __future__ import annotations

__all__ = ["BUCKET_KEY_NAMES", "OFFICE_KEY_NAMES", "keys_of", "offices_key"]

from collections.abc import Sequence
from typing import Final

OFFICE_KEY_NAMES: Final = (
    "head",
    "days",
    "records",
    "claims",
    "standings",
    "due",
    "cooling",
    "waiting",
    "events",
    "choices",
    "updated",
    "gate",
    "ticks",
)
"""In the order in which the scripts take them; ``lua/2_ledger.lua`` says what each holds. The gate's two come last, as
they do at a place of buckets.
"""

BUCKET_KEY_NAMES: Final = ("gate", "ticks")
"""The keys of a place that has buckets and nothing else."""


def keys_of(namespace: str, address: str, key_names: Sequence[str] = OFFICE_KEY_NAMES) -> tuple[str, ...]:
    """The keys of the ledger at ``place``: an office's, unless the ``kinds`` are others."""
    return tuple(f"{{quota_engine:{namespace}:{address}}}:{kind}" for kind in key_names)


def offices_key(namespace: str) -> str:
    """The offices that have a ledger, by the time until which they may have one, in a slot of its own."""
    return f"{{quota_engine:{namespace}}}:offices"
