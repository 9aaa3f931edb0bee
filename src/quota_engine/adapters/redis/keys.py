"""The keys of a place. All of them share its hash tag, so that every command is one script in one slot."""

from __future__ import annotations

__all__ = ["KINDS", "keys_of", "offices_key"]

from collections.abc import Sequence
from typing import Final

KINDS: Final = (
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
)
"""In the order in which the scripts take them; ``lua/2_ledger.lua`` says what each holds."""


def keys_of(namespace: str, place: str, kinds: Sequence[str] = KINDS) -> tuple[str, ...]:
    """The keys of the ledger at ``place``: an office's, unless the ``kinds`` are others."""
    return tuple(f"{{quota_engine:{namespace}:{place}}}:{kind}" for kind in kinds)


def offices_key(namespace: str) -> str:
    """The offices that have a ledger, by the time until which they may have one, in a slot of its own."""
    return f"{{quota_engine:{namespace}}}:offices"
