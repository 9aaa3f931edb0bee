"""The entries of ledgers without events: the commands of a batch that changed the ledger, with their times.

The machines are deterministic, so the same commands at the same times lead another copy to the same state.
"""

from __future__ import annotations

__all__ = ["change_marker", "decode_entry", "encode_entry", "is_accepted"]

from collections.abc import Callable, Sequence
from typing import Any, Final, get_args

import msgspec

from quota_engine import typed_data
from quota_engine.admission.token_bucket import Buckets, ResetTokens, TakeOutcome, TakeTokens
from quota_engine.domain.cross_office_registry import Claim, CloseMove, Drop, OpenMove, Registry
from quota_engine.draws.commands import DrawCommand
from quota_engine.draws.ledger import DrawLedger
from quota_engine.stores.sql.entry_codec import DamagedLedger, decode, encode
from quota_engine.stores.sql.office_codec import decode_charges, encode_charges
from quota_engine.waiting_room.commands import RoomCommand
from quota_engine.waiting_room.machine import RoomState

TimedCommand = tuple[int, Any]
"""A time in milliseconds since 1970 (UTC), and a command."""

_COMMANDS: Final[dict[str, type[msgspec.Struct]]] = {
    command.__name__: command
    for command in (
        *get_args(RoomCommand),
        *get_args(DrawCommand),
        Claim,
        Drop,
        OpenMove,
        CloseMove,
        TakeTokens,
        ResetTokens,
    )
}

_MARKERS: Final[dict[type, Callable[[Any], tuple[Any, ...]]]] = {
    RoomState: lambda room: (
        room.now_ms,
        room.tickets,
        room.epoch,
        room.config is None,
        room.seed,
        room.last_step_at_ms,
        room.pace_min,
        room.pace_max,
        room.closed_at_ms,
    ),
    DrawLedger: lambda draw: (draw.now_ms, draw.epoch, draw.last_number),
    Registry: lambda registry: (registry.now_ms, registry.number, len(registry.claims), len(registry.moves)),
    Buckets: lambda buckets: (buckets.now_ms,),
}


def change_marker(state: Any) -> tuple[Any, ...]:
    """Return a value that differs after most commands that changed the ledger.

    It finds each change of a room and of the registry. In a draw and in buckets it finds the changes of refused
    commands, which remove what its time has ended.
    """
    return _MARKERS[type(state)](state)


def is_accepted(outcome: Any) -> bool:
    """Return True if an outcome says that its command changed the ledger."""
    if type(outcome) is TakeOutcome:
        return outcome.taken
    if type(outcome) is int:
        return outcome > 0  # the buckets that a reset has filled
    return bool(outcome.ok) and not getattr(outcome, "replayed", False)


def encode_entry(base_ms: int, commands: Sequence[TimedCommand]) -> bytes:
    """Return an entry.

    Args:
        base_ms: Time of the batch. Times are stored relative to it.
        commands: The commands in order, each with its time.
    """
    return encode(base_ms, [(type(one).__name__, at_ms - base_ms, *_values(one)) for at_ms, one in commands])


def _values(command: Any) -> list[Any]:
    if type(command) is TakeTokens:
        return [encode_charges(command.charges)]
    return [getattr(command, field) for field in command.__struct_fields__]


def decode_entry(body: bytes, what: str) -> list[TimedCommand]:
    """Return the commands of an entry, each with its time.

    Raises:
        DamagedLedger: The entry cannot be read.
        BackendUnavailable: A newer version of the library wrote it.
    """
    try:
        base_ms, rows = decode(body, what)
        return [(base_ms + at_ms, _command(name, values)) for name, at_ms, *values in rows]
    except (ValueError, TypeError, LookupError) as error:
        raise DamagedLedger(f"{what} cannot be read ({error}): restore the database from a backup") from None


def _command(name: str, values: list[Any]) -> Any:
    if name == "TakeTokens":
        return TakeTokens(decode_charges(values[0]))
    command = _COMMANDS[name]
    # A field that a later version adds has its default in an entry of an earlier one.
    return typed_data.convert(dict(zip(command.__struct_fields__, values, strict=False)), command)
