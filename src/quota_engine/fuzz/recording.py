"""Turns commands, outcomes and events into the lines of :mod:`quota_engine.history`."""

from __future__ import annotations

__all__ = ["calls_of", "event_of", "note_answers", "state_of_record"]

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from quota_engine.admission.guarded_command import GuardedCommand, GuardedOutcome
from quota_engine.domain.commands import (
    Cancel,
    CheckIn,
    CloseDay,
    Confirm,
    Decline,
    Extend,
    MarkNoShow,
    MoveIn,
    MoveOut,
    OpenDay,
    Release,
    RemoveApplicant,
    ReplaceApplicant,
    Reschedule,
    Reserve,
    SetCapacity,
    Stay,
    UndoAttendance,
    UndoMove,
)
from quota_engine.domain.events import ReservationChanged
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import Outcome
from quota_engine.history.calls import CallRecord
from quota_engine.history.model import ReservationState
from quota_engine.ports import ApplyMany, RecordedEvent

_NAMES: Final[dict[type, str]] = {
    Reserve: "reserve",
    Confirm: "confirm",
    Extend: "extend",
    Decline: "decline",
    Release: "release",
    Cancel: "cancel",
    Reschedule: "reschedule",
    CheckIn: "check_in",
    MarkNoShow: "mark_no_show",
    UndoAttendance: "undo_attendance",
    RemoveApplicant: "remove_applicant",
    ReplaceApplicant: "replace_applicant",
    Stay: "stay",
    MoveIn: "move_in",
    MoveOut: "move_out",
    UndoMove: "undo_move",
    SetCapacity: "set_capacity",
    CloseDay: "close_day",
    OpenDay: "open_day",
}


class _Shape(NamedTuple):
    """The fields that a command has of those that a call shows."""

    name: str
    has_id: bool
    has_day: bool
    has_capacity: bool
    has_choice: bool
    has_applicants: bool


def _shape_of(command: type[Any], name: str) -> _Shape:
    fields = command.__struct_fields__
    return _Shape(name, *(field in fields for field in ("id", "day", "capacity", "choice", "applicants")))


_SHAPES: Final = {command: _shape_of(command, name) for command, name in _NAMES.items()}


def calls_of(office: str, request: Any, began_at_ms: int) -> list[CallRecord]:
    """Return the calls of a request to an office: one for each command that the history has."""
    if type(request) is ApplyMany:
        return [call for one in request.commands for call in calls_of(office, one, began_at_ms)]
    command: Any = request.command if type(request) is GuardedCommand else request
    shape = _SHAPES.get(type(command))
    if shape is None:
        return []
    return [
        CallRecord(
            shape.name,
            office,
            command.id if shape.has_id else "",
            command.day if shape.has_day else 0,
            command.quota if shape.has_capacity else "",
            command.capacity if shape.has_capacity else 0,
            command.choice.options if shape.has_choice else (),
            len(command.applicants) if shape.has_applicants else 1,
            began_at_ms,
        )
    ]


def note_answers(request: Any, calls: Sequence[CallRecord], answer: Any) -> None:
    """Note the answer of a request with its calls, as :func:`calls_of` has made them."""
    if type(request) is not ApplyMany:
        _note_answer(calls[0], answer)
        return
    left = iter(calls)
    for command, outcome in zip(request.commands, answer, strict=True):
        if type(command) in _SHAPES:
            _note_answer(next(left), outcome)


def _note_answer(call: CallRecord, answer: Any) -> None:
    outcome = answer.outcome if type(answer) is GuardedOutcome else answer
    if not isinstance(outcome, Outcome):
        return
    call.status = outcome.status.value
    call.repeats = outcome.replayed or outcome.resumed
    record = outcome.reservation
    if record is not None and outcome.ok and record.id == call.id and record.office == call.office:
        call.shown = state_of_record(record)


def state_of_record(record: Reservation) -> ReservationState:
    """Return a reservation as the history has it."""
    return ReservationState(
        record.id,
        record.day,
        record.state.value,
        record.version,
        record.units,
        tuple(record.quotas),
        record.deadline_at_ms,
        tuple(record.queue_numbers),
        record.undo_until_ms,
    )


def event_of(recorded: RecordedEvent, real_ms: int) -> dict[str, Any]:
    """Return an event in the form of the HTTP API, with the real time at which it was written."""
    event = recorded.event
    line: dict[str, Any] = {
        "number": recorded.number,
        "at_ms": event.at_ms,
        "real_ms": real_ms,
        "kind": type(event).__name__,
    }
    if isinstance(event, ReservationChanged):
        record = event.reservation
        line["verb"] = event.verb.value
        line["reservation"] = {
            "day": record.day,
            "state": record.state.value,
            "version": record.version,
            "units": record.units,
            "quotas": tuple(record.quotas),
            "deadline_at_ms": record.deadline_at_ms,
            "queue_numbers": tuple(record.queue_numbers),
            "undo_until_ms": record.undo_until_ms,
            "reference": record.reference,
        }
        return line
    return {**line, "details": msgspec.to_builtins(event)}
