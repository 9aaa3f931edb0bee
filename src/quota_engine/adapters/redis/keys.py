"""The keys of an office. All of them share its hash tag, so that every command is one script in one slot."""

from __future__ import annotations

__all__ = ["KINDS", "keys_of", "offices_key"]

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


def keys_of(namespace: str, office: str) -> tuple[str, ...]:
    """The eleven keys of one office's ledger."""
    return tuple(f"{{quota_engine:{namespace}:{office}}}:{kind}" for kind in KINDS)


def offices_key(namespace: str) -> str:
    """A set of the offices that have a ledger, in a slot of its own."""
    return f"{{quota_engine:{namespace}}}:offices"
