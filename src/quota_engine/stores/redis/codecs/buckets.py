"""How commands on buckets, and the guards of a reserve, are written down for the scripts; ``lua/8_buckets.lua`` is the
other side.
"""

from __future__ import annotations

__all__ = ["BucketDecoder", "buckets_of_state", "encode_bucket_command", "text_of_charges", "text_of_guards"]

from typing import Any

from quota_engine.admission.guarded_reserve import GuardedReserve
from quota_engine.admission.token_bucket import (
    BucketLevel,
    Buckets,
    Charge,
    PeekTokens,
    ResetTokens,
    TakeOutcome,
    TakeTokens,
    check_bucket_names,
    check_charges,
)

_TAKEN = TakeOutcome()


def text_of_charges(charges: tuple[Charge, ...]) -> str:
    """Charges with commas between: ``name:amount:per_ms:burst:cost:in_shadow``."""
    return ",".join(
        [
            f"{one.name}:{one.limit.amount}:{one.limit.per_ms}:{one.limit.burst}:{one.cost}:{one.shadow:d}"
            for one in charges
        ]
    )


def text_of_guards(command: GuardedReserve) -> str:
    """What stands in front of the reserve's own line."""
    one = command.admission_pass
    start = f"guarded\t{one.id}\t{one.until_ms}\t{one.shadow:d}" if one is not None else "guarded\t\t0\t0"
    return f"{start}\t{text_of_charges(command.charges)}\t"


def encode_bucket_command(command: TakeTokens | PeekTokens | ResetTokens) -> str:
    """One command as a line for ``8_take.lua``. Raises :class:`InvalidRequest` for one that is not well formed."""
    if type(command) is ResetTokens:
        check_bucket_names(command.names)
        return f"reset\t{','.join(command.names)}"
    assert not isinstance(command, ResetTokens)
    check_charges(command.charges)
    return f"{'take' if type(command) is TakeTokens else 'peek'}\t{text_of_charges(command.charges)}"


class BucketDecoder:
    """Reads the lines that come back from a place of buckets."""

    def __init__(self, place: str) -> None:
        """One reader serves all places."""

    def outcome(self, command: TakeTokens | ResetTokens, line: str) -> TakeOutcome | int:
        """The answer to a command."""
        if type(command) is ResetTokens:
            return int(line)
        if line == "-1\t0":
            return _TAKEN
        refused_by, retry_at_ms = line.split("\t")
        return TakeOutcome(int(refused_by), int(retry_at_ms))

    def answer(self, question: PeekTokens, line: str) -> tuple[BucketLevel, ...]:
        """The answer to a question."""
        pairs = (level.split(":") for level in line.split(","))
        return tuple(BucketLevel(int(available), int(full_at_ms)) for available, full_at_ms in pairs)


def buckets_of_state(place: str, state: list[Any]) -> Buckets:
    """The buckets that the answer of ``8_bucket_state.lua`` (the hash as a dict) comes to."""
    scored, ticks = state
    by_name: dict[str, tuple[int, int]] = {}
    for name, score in zip(scored[::2], scored[1::2], strict=True):
        if name != "~":
            full_at_ms = int(float(score))
            early, _, at_ms = ticks.get(name, "0@0").partition("@")
            by_name[name] = full_at_ms, int(early) if int(at_ms) == full_at_ms else 0
    return Buckets.restore(int(ticks.get("~") or 0), by_name)
