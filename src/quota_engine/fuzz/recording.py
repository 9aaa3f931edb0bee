"""Turns commands, outcomes and events into the lines of :mod:`quota_engine.history`."""

from __future__ import annotations

__all__ = ["call_of", "event_of", "note_answer", "state_of_record"]

from typing import Any, Final

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
from quota_engine.ports import RecordedEvent

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


def call_of(office: str, request: Any, began_at_ms: int) -> CallRecord | None:
    """Return the call of a command to an office; ``None`` if the history has no such calls."""
    command = request.command if isinstance(request, GuardedCommand) else request
    name = _NAMES.get(type(command))
    if name is None:
        return None
    choice = getattr(command, "choice", None)
    return CallRecord(
        name,
        office,
        getattr(command, "id", ""),
        getattr(command, "day", 0),
        getattr(command, "quota", ""),
        getattr(command, "capacity", 0),
        choice.options if choice is not None else (),
        len(getattr(command, "applicants", ())) or 1,
        began_at_ms,
    )


def note_answer(call: CallRecord, answer: Any) -> None:
    """Note the answer of a call."""
    outcome = answer.outcome if isinstance(answer, GuardedOutcome) else answer
    if not isinstance(outcome, Outcome):
        return
    call.status = str(outcome.status)
    call.repeats = outcome.replayed or outcome.resumed
    record = outcome.reservation
    if outcome.ok and record is not None and record.id == call.id and record.office == call.office:
        call.shown = state_of_record(record)


def state_of_record(record: Reservation) -> ReservationState:
    """Return a reservation as the history has it."""
    return ReservationState(
        record.id,
        record.day,
        str(record.state),
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
        place = state_of_record(event.reservation)
        fields = {name: getattr(place, name) for name in ReservationState.__slots__ if name != "id"}
        return {
            **line,
            "verb": str(event.verb),
            "reservation": {**fields, "reference": event.reservation.reference},
        }
    return {**line, "details": msgspec.to_builtins(event)}
