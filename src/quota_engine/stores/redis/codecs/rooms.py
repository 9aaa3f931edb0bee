"""The codec of waiting rooms; ``lua/waiting_room/room.lua`` has the same layouts."""

from __future__ import annotations

__all__ = ["RoomDecoder", "encode", "room_of_state"]

from typing import Any, Final

import msgspec

from quota_engine.domain.epochs import EPOCH_FIRST, AdvanceEpoch, EpochStart, add_epoch
from quota_engine.waiting_room.commands import (
    INDEX_NONE,
    PLACES_LEFT_UNKNOWN,
    CallTickets,
    CloseRoom,
    CreateRoom,
    FindTicket,
    JoinRoom,
    OpenRoom,
    RoomCommand,
    RoomConfig,
    RoomQuery,
    SetPace,
    ViewRoom,
)
from quota_engine.waiting_room.machine import RoomState
from quota_engine.waiting_room.order import commitment_of, seed_of
from quota_engine.waiting_room.results import RoomResult, RoomStatus, RoomView, TicketCall

_CONFIG_FIELDS: Final = tuple((field.name, field.type) for field in msgspec.structs.fields(RoomConfig))
_STATUS: Final = {str(status): status for status in RoomStatus}
_JOINED: Final = RoomStatus.JOINED


def encode(command: RoomCommand | RoomQuery) -> str:
    """Return a command or question as a line for the scripts."""
    if type(command) is JoinRoom:
        return f"join\t{command.applicant}\t{'' if command.replaces_ticket < 0 else _text_of_replaced(command)}"
    match command:
        case CallTickets(per_minute, call_max, places_left):
            return (
                f"call_tickets\t{per_minute}\t{call_max}\t{places_left if places_left != PLACES_LEFT_UNKNOWN else ''}"
            )
        case SetPace(low, high):
            return f"set_pace\t{low}\t{high}"
        case OpenRoom(seed, entropy, epoch):
            return f"open\t{seed}\t{commitment_of(seed)}\t{epoch}\t{entropy}"
        case CloseRoom(closing_seed):
            return f"close\t{closing_seed}\t{commitment_of(seed_of(closing_seed))}"
        case CreateRoom(config):
            return f"create\t{_text_of_config(config)}"
        case AdvanceEpoch(epoch_min):
            return f"advance_epoch\t{epoch_min}"
        case ViewRoom():
            return "view"
        case FindTicket(applicant):
            return f"ticket\t{applicant}"
    raise TypeError(f"a waiting room has no command or question {type(command).__name__}")


def _text_of_replaced(command: JoinRoom) -> str:
    number, epoch = command.replaces_ticket, command.replaces_epoch
    return str(number) if epoch == EPOCH_FIRST else f"{number}:{epoch}"


def _text_of_config(config: RoomConfig) -> str:
    return "\t".join(str(getattr(config, name)) for name, _ in _CONFIG_FIELDS)


def _config_of_fields(fields: list[str]) -> RoomConfig:
    values: dict[str, Any] = {
        name: field if kind is str else int(field) for (name, kind), field in zip(_CONFIG_FIELDS, fields, strict=True)
    }
    return RoomConfig(**values)


class RoomDecoder:
    """Decodes the replies of one room. Keeps the config that it decoded last, because a room's config never changes."""

    def __init__(self, place: str) -> None:
        self._config_text: list[str] = []
        self._config: RoomConfig | None = None

    def outcome(self, command: RoomCommand, line: str) -> RoomResult:
        """Return the result of a command from its reply line."""
        if line.isdigit():
            return RoomResult(_JOINED, int(line), epoch=EPOCH_FIRST)
        if line[0].isdigit():
            number, _, epoch = line.removesuffix("p").partition(":")
            return RoomResult(_JOINED, int(number), line[-1] == "p", epoch=int(epoch or EPOCH_FIRST))
        return self.answer(command, line)

    def answer(self, question: RoomCommand | RoomQuery, line: str) -> RoomResult:
        """Return the answer to a question from its reply line."""
        status, *rest = line.split("\t")
        if type(question) is FindTicket and rest:
            room_epoch, *ticket = map(int, rest)
            index, epoch = ticket or (INDEX_NONE, 0)
            return RoomResult(_STATUS[status], index, epoch=epoch, room_epoch=room_epoch)
        if status == RoomStatus.EPOCH_CHANGED:
            return RoomResult(RoomStatus.EPOCH_CHANGED, room_epoch=int(rest[0]))
        if len(rest) <= 1:
            return RoomResult(_STATUS[status], retry_at_ms=int(rest[0]) if rest else 0)
        return RoomResult(_STATUS[status], replayed=rest[0] == "p", view=self._view(rest))

    def _view(self, fields: list[str]) -> RoomView:
        numbers = [int(field) for field in fields[1:17]]
        seed, entropy, closing_seed, windows, calls, starts = fields[17:23]
        (
            now,
            changed,
            tickets,
            _,
            _,
            opened,
            called,
            turns_ended,
            tokens,
            per_minute,
            served,
            left,
            closed,
            low,
            high,
            epoch,
        ) = numbers
        if fields[23:] != self._config_text:
            self._config_text, self._config = fields[23:], _config_of_fields(fields[23:])
        assert self._config is not None
        return RoomView(
            now_ms=now,
            changed_at_ms=changed,
            config=self._config,
            tickets=tickets,
            windows=_pairs(windows),
            seed=seed,
            entropy=entropy,
            opened_at_ms=opened,
            called_count=called,
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
            epoch=epoch,
            epoch_starts=_pairs(starts),
        )


def _pairs(text: str) -> tuple[tuple[int, int], ...]:
    pairs = (pair.split(":") for pair in text.split(",") if pair)
    return tuple((int(number), int(first)) for number, first in pairs)


def _calls(text: str) -> tuple[TicketCall, ...]:
    return tuple(TicketCall(*map(int, call.split(":"))) for call in text.split(",") if call)


def room_of_state(place: str, state: list[Any]) -> RoomState:
    """Return the room from the replies of the state script, each hash as a dictionary."""
    head, identities = state
    room = RoomState(place)
    if "config" not in head:
        return room
    room.config = _config_of_fields(head["config"].split("\t"))
    room.windows = list(_pairs(head["windows"]))
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
        "pace_min",
        "pace_max",
        "epoch",
    ):
        setattr(room, name, int(head[name]))
    starts: list[EpochStart] = list(_pairs(head["epoch_starts"]))
    if room.epoch > EPOCH_FIRST and (not starts or starts[-1][0] != room.epoch):
        add_epoch(starts, room.epoch, room.tickets)  # as the next script does
    room.epoch_starts = starts
    room.identities = {applicant: int(index) for applicant, index in identities.items() if applicant != "~"}
    return room
