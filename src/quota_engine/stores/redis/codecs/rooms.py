"""How waiting rooms are written down for their scripts; ``lua/9_room.lua`` is the other side."""

from __future__ import annotations

__all__ = ["COMMANDS", "HASHES", "READS", "ROOM_KEY_NAMES", "STATE", "RoomDecoder", "encode", "room_of_state"]

import hashlib
from importlib import resources
from typing import Any, Final

import msgspec

from quota_engine.stores.redis.scripts import Script
from quota_engine.waiting_room.machine import (
    PLACES_LEFT_UNKNOWN,
    CallTickets,
    CloseRoom,
    CreateRoom,
    JoinRoom,
    OpenRoom,
    RoomCommand,
    RoomConfig,
    RoomResult,
    RoomState,
    RoomStatus,
    RoomView,
    SetPace,
    TicketCall,
    ViewRoom,
)
from quota_engine.waiting_room.order import commitment_of, seed_of

ROOM_KEY_NAMES: Final = ("head", "identities")
HASHES: Final = frozenset({0, 1})
"""Which answers of ``9_room_state.lua`` are hashes."""


def _script(flags: str, *files: str) -> Script:
    folder = resources.files("quota_engine.stores.redis") / "lua"
    text = "\n".join([f"#!lua flags={flags}", *((folder / file).read_text(encoding="utf-8") for file in files)])
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


COMMANDS: Final = _script("", "9_room.lua", "9_room_commands.lua")
"""Applies commands. Refused whole when memory is out, on a read-only replica, or on a stale one."""

READS: Final = _script("no-writes", "9_room.lua", "9_room_reads.lua")
"""Looks, and writes nothing."""

STATE: Final = _script("no-writes", "9_room_state.lua")
"""Tells everything, for comparisons."""

_TERMS: Final = tuple((field.name, field.type) for field in msgspec.structs.fields(RoomConfig))
_STATUS: Final = {str(status): status for status in RoomStatus}
_JOINED: Final = RoomStatus.JOINED


def encode(command: RoomCommand | ViewRoom) -> str:
    """A command or question as a line."""
    if type(command) is JoinRoom:
        return f"join\t{command.applicant}\t{command.replaces_ticket if command.replaces_ticket >= 0 else ''}"
    match command:
        case CallTickets(per_minute, call_max, left):
            return f"serve\t{per_minute}\t{call_max}\t{left if left != PLACES_LEFT_UNKNOWN else ''}"
        case SetPace(low, high):
            return f"pace\t{low}\t{high}"
        case OpenRoom(seed, entropy):
            return f"open\t{seed}\t{commitment_of(seed)}\t{entropy}"
        case CloseRoom(closing_seed):
            return f"close\t{closing_seed}\t{commitment_of(seed_of(closing_seed))}"
        case CreateRoom(terms):
            return f"create\t{_text_of_terms(terms)}"
        case ViewRoom():
            return "look"
    raise TypeError(f"no line for a {type(command).__name__}")


def _text_of_terms(terms: RoomConfig) -> str:
    return "\t".join(str(getattr(terms, name)) for name, _ in _TERMS)


def _terms_of_fields(fields: list[str]) -> RoomConfig:
    values: dict[str, Any] = {
        name: field if kind is str else int(field) for (name, kind), field in zip(_TERMS, fields, strict=True)
    }
    return RoomConfig(**values)


class RoomDecoder:
    """Reads the lines of one room. Keeps the last terms: they do not change."""

    def __init__(self, place: str) -> None:
        self._terms_text: list[str] = []
        self._terms: RoomConfig | None = None

    def outcome(self, command: RoomCommand, line: str) -> RoomResult:
        """The answer to a command."""
        if line.isdigit():
            return RoomResult(_JOINED, int(line))
        if line[0].isdigit():
            return RoomResult(_JOINED, int(line[:-1]), replayed=True)
        return self.answer(command, line)

    def answer(self, question: RoomCommand | ViewRoom, line: str) -> RoomResult:
        """The answer to a question."""
        status, *rest = line.split("\t")
        if len(rest) <= 1:
            return RoomResult(_STATUS[status], retry_at_ms=int(rest[0]) if rest else 0)
        return RoomResult(_STATUS[status], replayed=rest[0] == "p", view=self._view(rest))

    def _view(self, fields: list[str]) -> RoomView:
        numbers, (seed, entropy, closing_seed, windows, calls) = [int(field) for field in fields[1:16]], fields[16:21]
        now, changed, tickets, _, _, opened, mark, turns_ended, tokens, per_minute, served, left, closed, low, high = (
            numbers
        )
        if fields[21:] != self._terms_text:
            self._terms_text, self._terms = fields[21:], _terms_of_fields(fields[21:])
        assert self._terms is not None
        return RoomView(
            now_ms=now,
            changed_at_ms=changed,
            config=self._terms,
            tickets=tickets,
            windows=_windows(windows),
            seed=seed,
            entropy=entropy,
            opened_at_ms=opened,
            called_count=mark,
            turns_ended=turns_ended,
            calls=_calls(calls),
            tokens=tokens,
            per_minute=per_minute,
            last_step_at_ms=served,
            places_left=left,
            closed_at_ms=closed,
            closing_seed=closing_seed,
            pace_min=low,
            pace_max=high,
        )


def _windows(text: str) -> tuple[tuple[int, int], ...]:
    pairs = (window.split(":") for window in text.split(",") if window)
    return tuple((int(number), int(first)) for number, first in pairs)


def _calls(text: str) -> tuple[TicketCall, ...]:
    return tuple(TicketCall(*map(int, call.split(":"))) for call in text.split(",") if call)


def room_of_state(place: str, state: list[Any]) -> RoomState:
    """The room that the answers of ``9_room_state.lua`` come to."""
    head, identities = state
    room = RoomState(place)
    if "terms" not in head:
        return room
    room.config = _terms_of_fields(head["terms"].split("\t"))
    room.windows = list(_windows(head["windows"]))
    room.calls = list(_calls(head["calls"]))
    room.seed, room.entropy, room.closing_seed = head["seed"], head["entropy"], head["closing_seed"]
    for name in (
        "now_ms",
        "tickets",
        "opened_at_ms",
        "called_count",
        "turns_ended",
        "tokens",
        "per_minute",
        "last_step_at_ms",
        "places_left",
        "closed_at_ms",
    ):
        setattr(room, name, int(head[name]))
    for name in ("pace_min", "pace_max"):  # which rooms of an earlier version do not have
        setattr(room, name, int(head.get(name, 0)))
    room.identities = {applicant: int(index) for applicant, index in identities.items() if applicant != "~"}
    return room
