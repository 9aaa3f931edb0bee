"""The codec of token buckets, and of the charges and pass of a guarded command.

``lua/buckets/token_bucket.lua`` has the same layouts.
"""

from __future__ import annotations

__all__ = ["BucketDecoder", "buckets_of_state", "encode", "text_of_charges", "text_of_guards"]

from typing import Any

from quota_engine.admission.guarded_command import GuardedCommand
from quota_engine.admission.token_bucket import (
    BucketLevel,
    Buckets,
    Charge,
    PeekTokens,
    ResetTokens,
    SlidingWindow,
    TakeOutcome,
    TakeTokens,
    check_bucket_names,
    check_charges,
)

_TAKEN = TakeOutcome()


def text_of_charges(charges: tuple[Charge, ...]) -> str:
    """Return charges as text: ``name:amount:per_ms:burst:cost:flags``, with commas between.

    A sliding window has the burst 0. The flags are 1 for a charge in shadow, plus 2 if it counts refusals.
    """
    return ",".join([_text_of_charge(one) for one in charges])


def _text_of_charge(charge: Charge) -> str:
    limit, flags = charge.limit, charge.shadow + 2 * charge.counts_refusals
    burst = 0 if type(limit) is SlidingWindow else limit.burst
    return f"{charge.name}:{limit.amount}:{limit.per_ms}:{burst}:{charge.cost}:{flags}"


def text_of_guards(command: GuardedCommand) -> str:
    """Return the part of a guarded command's line that precedes the command."""
    one = command.admission_pass
    start = f"guarded\t{one.id}\t{one.until_ms}\t{one.shadow:d}" if one is not None else "guarded\t\t0\t0"
    return f"{start}\t{text_of_charges(command.charges)}\t"


def encode(command: TakeTokens | PeekTokens | ResetTokens) -> str:
    """Return a command or question as a line for the scripts.

    Raises:
        InvalidRequest: The charges or names are not well formed.
    """
    if type(command) is ResetTokens:
        check_bucket_names(command.names)
        return f"reset\t{','.join(command.names)}"
    assert not isinstance(command, ResetTokens)
    check_charges(command.charges)
    text = text_of_charges(command.charges)
    if isinstance(command, PeekTokens):
        return f"peek\t{text}"
    return f"takelevels\t{text}" if command.with_levels else f"take\t{text}"


class BucketDecoder:
    """Decodes the replies of a ledger of buckets."""

    def __init__(self, address: str) -> None:
        """Accept the address, as the other decoders do. Replies of all ledgers look alike."""

    def outcome(self, command: TakeTokens | ResetTokens, line: str) -> TakeOutcome | int:
        """Return the result of a command from its reply line."""
        if type(command) is ResetTokens:
            return int(line)
        if line == "-1\t0":
            return _TAKEN
        refused_by, retry_at_ms, *levels = line.split("\t")
        return TakeOutcome(int(refused_by), int(retry_at_ms), _levels(levels[0]) if levels else ())

    def answer(self, question: PeekTokens, line: str) -> tuple[BucketLevel, ...]:
        """Return the answer to a question from its reply line."""
        return _levels(line)


def _levels(text: str) -> tuple[BucketLevel, ...]:
    pairs = (level.split(":") for level in text.split(","))
    return tuple(BucketLevel(int(available), int(full_at_ms)) for available, full_at_ms in pairs)


def buckets_of_state(address: str, state: list[Any]) -> Buckets:
    """Return the buckets from the replies of the state script, the hash as a dictionary."""
    scored, ticks = state
    by_name: dict[str, tuple[int, int]] = {}
    for name, score in zip(scored[::2], scored[1::2], strict=True):
        if name != "~":
            full_at_ms = int(float(score))
            early, _, at_ms = ticks.get(name, "0@0").partition("@")
            by_name[name] = full_at_ms, int(early) if int(at_ms) == full_at_ms else 0
    return Buckets.restore(int(ticks.get("~") or 0), by_name)
