"""The registry in the store: how its commands, answers and state are written down; ``lua/8_registry.lua`` is the other
side.
"""

from __future__ import annotations

__all__ = [
    "COMMANDS",
    "FREEING_COMMANDS",
    "READS",
    "REGISTRY_KEY_NAMES",
    "STATE",
    "RegistryDecoder",
    "encode",
    "registry_of_state",
    "script_of",
]

import hashlib
from collections.abc import Callable
from importlib import resources
from typing import Any, Final

from quota_engine.domain.cross_office_registry import (
    Claim,
    ClaimEntry,
    CloseMove,
    Drop,
    FindClaims,
    FindMove,
    FoundClaims,
    MoveEntry,
    OpenMove,
    OpenMoves,
    Registry,
    RegistryResult,
    RegistryStatus,
)
from quota_engine.stores.redis.scripts import Script

REGISTRY_KEY_NAMES: Final = ("head", "claims", "claims_due", "moves", "moves_due", "moves_open")
"""In the order in which the scripts take them; ``lua/8_registry.lua`` says what each holds."""


def _script(flags: str, *files: str) -> Script:
    folder = resources.files("quota_engine.stores.redis") / "lua"
    text = "\n".join((f"#!lua flags={flags}", *((folder / file).read_text(encoding="utf-8") for file in files)))
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


COMMANDS: Final = _script("", "8_registry.lua", "9_registry_commands.lua")
"""Changes a shard. Refused whole when memory is out."""

FREEING_COMMANDS: Final = _script("allow-oom", "8_registry.lua", "9_registry_commands.lua")
"""The same for what gives back."""

READS: Final = _script("no-writes", "8_registry.lua", "9_registry_reads.lua")
"""Looks, and writes nothing."""

STATE: Final = _script("no-writes", "9_registry_state.lua")
"""Tells everything."""

_STATUS: Final = {str(status): status for status in RegistryStatus}


def script_of(command: Any) -> Script:
    """The script that a command goes to: what only gives back must still run when memory is out."""
    return FREEING_COMMANDS if type(command) in (Drop, CloseMove) else COMMANDS


_ENCODE: Final[dict[type, Callable[[Any], str]]] = {
    Claim: lambda one: (
        f"claim\t{one.applicant}\t{one.reference}\t{one.lease_ms}\t{one.forget_at_ms}\t{one.replaces_number}\t{one.secondary_reference}"
    ),
    Drop: lambda one: f"drop\t{one.applicant}\t{one.number}",
    OpenMove: lambda one: f"open_move\t{one.source}\t{one.target}\t{one.version}\t{one.lease_ms}\t{one.forget_at_ms}",
    CloseMove: lambda one: f"close_move\t{one.source}\t{one.target}\t{one.done:d}\t{one.number}",
    FindClaims: lambda one: "\t".join(("find_claims", *one.applicants)),
    FindMove: lambda one: f"find_move\t{one.source}",
    OpenMoves: lambda one: f"open_moves\t{one.limit}\t{one.over_for_ms}",
}


def encode(command: Any) -> str:
    """A command or a question as a line for the scripts."""
    return _ENCODE[type(command)](command)


class RegistryDecoder:
    """Makes objects of a shard's lines."""

    def __init__(self, place: str) -> None:
        self._place = place

    def outcome(self, command: Any, line: str) -> RegistryResult:
        """The answer to a command."""
        status, reference, number, lease_until_ms, now_ms, done, renewed, also = line.split("\t")
        return RegistryResult(
            _STATUS[status],
            reference,
            int(number),
            int(lease_until_ms),
            int(now_ms),
            done == "1",
            renewed == "1",
            also,
        )

    def answer(self, question: Any, line: str) -> Any:
        """The answer to a question."""
        fields = line.split("\t") if line else []
        if isinstance(question, FindClaims):
            return FoundClaims(int(fields[0]), tuple(fields[1::2]), tuple(fields[2::2]))
        return [_move_of_fields(*fields[start : start + 7]) for start in range(0, len(fields), 7)]


def _move_of_fields(
    source: str, target: str, version: str, number: str, lease_until_ms: str, forget_at_ms: str, done: str
) -> MoveEntry:
    return MoveEntry(
        source, target, int(version), int(number), int(lease_until_ms), int(forget_at_ms), done=done == "1"
    )


def registry_of_state(place: str, state: list[Any]) -> Registry:
    """The shard that the answers of :data:`STATE` come to (hashes as dicts)."""
    head, claims, moves = state
    registry = Registry(place)
    registry.now_ms, registry.number = int(head.get("now_ms", 0)), int(head.get("number", 0))
    for applicant, text in claims.items():
        if applicant != "~":
            reference, number, lease_until_ms, forget_at_ms, also = text.split("\t")
            entry = ClaimEntry(reference, int(number), int(lease_until_ms), int(forget_at_ms), also)
            registry.claims[applicant] = entry
    for source, text in moves.items():
        if source != "~":
            registry.moves[source] = _move_of_fields(source, *text.split("\t"))
    return registry
