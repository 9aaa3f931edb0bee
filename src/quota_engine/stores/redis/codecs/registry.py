"""The codec of the registry that spans offices; ``lua/registry/ledger.lua`` has the same layouts."""

from __future__ import annotations

__all__ = ["RegistryDecoder", "encode", "registry_of_state"]

from collections.abc import Callable
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

_STATUS: Final = {str(status): status for status in RegistryStatus}


_ENCODE: Final[dict[type, Callable[[Any], str]]] = {
    Claim: lambda one: (
        f"claim\t{one.applicant}\t{one.reference}\t{one.lease_ms}\t{one.forget_at_ms}\t{one.replaces_number}\t{one.secondary_reference}"
    ),
    Drop: lambda one: f"drop\t{one.applicant}\t{one.number}\t{one.reference}",
    OpenMove: lambda one: f"open_move\t{one.source}\t{one.target}\t{one.version}\t{one.lease_ms}\t{one.forget_at_ms}",
    CloseMove: lambda one: f"close_move\t{one.source}\t{one.target}\t{one.done:d}\t{one.number}",
    FindClaims: lambda one: "\t".join(("find_claims", *one.applicants)),
    FindMove: lambda one: f"find_move\t{one.source}",
    OpenMoves: lambda one: f"open_moves\t{one.limit}\t{one.over_for_ms}",
}


def encode(command: Any) -> str:
    """Return a command or question as a line for the scripts."""
    return _ENCODE[type(command)](command)


class RegistryDecoder:
    """Decodes the replies of one shard."""

    def __init__(self, address: str) -> None:
        """Accept the address, as the other decoders do. Replies of all shards look alike."""

    def outcome(self, command: Any, line: str) -> RegistryResult:
        """Return the result of a command from its reply line."""
        status, reference, number, lease_until_ms, now_ms, done, renewed, secondary = line.split("\t")
        return RegistryResult(
            _STATUS[status],
            reference,
            int(number),
            int(lease_until_ms),
            int(now_ms),
            done == "1",
            renewed == "1",
            secondary,
        )

    def answer(self, question: Any, line: str) -> Any:
        """Return the answer to a question from its reply line."""
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


def registry_of_state(address: str, state: list[Any]) -> Registry:
    """Return a shard from the replies of the state script, each hash as a dictionary."""
    head, claims, moves = state
    registry = Registry(address)
    registry.now_ms, registry.number = int(head.get("now_ms", 0)), int(head.get("number", 0))
    for applicant, text in claims.items():
        if applicant != "~":
            reference, number, lease_until_ms, forget_at_ms, secondary = text.split("\t")
            entry = ClaimEntry(reference, int(number), int(lease_until_ms), int(forget_at_ms), secondary)
            registry.claims[applicant] = entry
    for source, text in moves.items():
        if source != "~":
            registry.moves[source] = _move_of_fields(source, *text.split("\t"))
    return registry
