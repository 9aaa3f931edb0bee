"""The whole oracle: it settles what time alone changes, and answers each command."""

from __future__ import annotations

import copy
from typing import assert_never

from quota_engine.domain.commands import (
    Cancel,
    CheckIn,
    CloseDay,
    Command,
    Confirm,
    Decline,
    Expire,
    Extend,
    MarkNoShow,
    MoveIn,
    MoveOut,
    OpenDay,
    PrepareMove,
    Publish,
    ReallocateUnused,
    Release,
    ReleaseParked,
    RemoveApplicant,
    ReplaceApplicant,
    Reschedule,
    Reserve,
    SetCapacity,
    SetRules,
    Stay,
    UndoAttendance,
    UndoMove,
)
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import DayView, Status
from tests.support.oracle.operators import Operators
from tests.support.oracle.records import Day, ExpectedOutcome, Record


class Oracle(Operators):
    """One office. ``clock_ms`` is the time of the last change.

    It does not implement the further expiries of a reserve that lacks units. If more holds are overdue than one command
    settles, pass a ``swept_max`` that is never reached.
    """

    def apply(self, command: Command, now_ms: int) -> ExpectedOutcome:
        """Apply one command and return its expected outcome."""
        self.forget_days(now_ms)
        for day in self._days_of(command):
            self._settle(day, command.limit if isinstance(command, Expire) else self.swept_max)
        expected = self._dispatch(command)
        for day in self.days.values():
            self._note_free_units(day)
        return expected

    def lookup(self, id: str, now_ms: int) -> Reservation | None:  # noqa: A002  (the name in the interface)
        self.now_ms = max(now_ms, self.clock_ms)
        record = self.records.get(id)
        if record is None or self.days[record.day].forget_at_ms <= now_ms:
            return None
        return self._as_reservation(record)

    def view(self, day_number: int, now_ms: int) -> DayView | None:
        """Return the settled day, without offers to the wait list."""
        self.now_ms = max(now_ms, self.clock_ms)
        if day_number not in self.days or self.days[day_number].forget_at_ms <= now_ms:
            return None
        # Only the day's records and counters can change. A deep copy takes longer than all other checks of a walk.
        projection = copy.copy(self)
        projection.records = {r.id: Record(**vars(r)) for r in self.records.values() if r.day == day_number}
        day = copy.copy(self.days[day_number])
        day.quotas = {name: copy.copy(quota) for name, quota in day.quotas.items()}
        day.cooling = list(day.cooling)
        projection._apply_due(day, limit=len(self.records))
        projection._note_free_units(day)
        return projection._day_view(day)

    def _day_view(self, day: Day) -> DayView:
        withheld = self._withheld_from_all(day)
        return DayView(
            day=day.number,
            opens_at_ms=day.opens_at_ms,
            starts_at_ms=day.starts_at_ms,
            ends_at_ms=day.ends_at_ms,
            closed=day.closed,
            waiting=len(self._waiting(day)),
            quotas={name: self._quota_view(day, name, withheld.get(name, 0)) for name in day.quotas},
            revision=day.revision,
            sessions=day.sessions,
        )

    def moments_ms(self) -> list[int]:
        """Return the times at which the state changes by time alone, in ascending order."""
        moments = {record.deadline_at_ms for record in self.records.values() if record.state is State.HELD}
        moments |= {until_ms for _, until_ms, _ in self.blocks}
        moments |= {record.undo_until_ms for record in self.records.values() if record.undo_until_ms}
        moments |= {at_ms + self.rules.abandoned_holds_window_ms for _, at_ms in self.abandoned}
        for day in self.days.values():
            moments |= {day.opens_at_ms, day.starts_at_ms, day.ends_at_ms, day.forget_at_ms}
            moments |= {moment for one in day.sessions for moment in (one.ends_at_ms, one.book_until_ms)}
            moments |= {cooling.due_at_ms for cooling in day.cooling if cooling.due_at_ms is not None}
            moments |= {quota.terms.reallocation.at_ms for quota in day.quotas.values() if quota.terms.reallocation}
            moments.add(day.starts_at_ms - self.rules.reschedule_before_ms)
            moments |= {one.free_since_ms + one.terms.re_release.blocks_ms for one in day.quotas.values()}
        moments |= {record.paused_until_ms for record in self.records.values() if record.paused_until_ms}
        return sorted(moments)

    def forget_days(self, now_ms: int) -> None:
        """Forget the days whose time has come, as every command does, even one that admission refuses."""
        self.now_ms = max(now_ms, self.clock_ms)
        for day in [day for day in self.days.values() if day.forget_at_ms <= now_ms]:
            del self.days[day.number]
            for record in [record for record in self.records.values() if record.day == day.number]:
                del self.records[record.id]
            self.last_forgotten_day = max(self.last_forgotten_day, day.number)
            self._changed()

    def _days_of(self, command: Command) -> list[Day]:
        """Return the days to settle: the reservation's if the id is known, otherwise the command's.

        A step on an unknown id settles nothing. Neither does a publish that comes too late.
        """
        if isinstance(command, SetRules):
            return []
        if isinstance(command, Publish) and self._too_late_to_publish(command):
            return []
        known = self.records.get(command.id) if hasattr(command, "id") else None
        numbers = set()
        if known is not None:
            numbers.add(known.day)
            if isinstance(command, Reschedule):
                numbers.add(command.day)
        elif isinstance(command, Reserve | MoveIn) and self._is_past(command.valid_until_ms):
            pass
        elif not isinstance(
            command,
            Confirm
            | Extend
            | RemoveApplicant
            | ReplaceApplicant
            | Release
            | Decline
            | Cancel
            | CheckIn
            | MarkNoShow
            | UndoAttendance
            | Reschedule
            | PrepareMove
            | Stay
            | MoveOut
            | UndoMove,
        ):
            numbers.add(command.day)
        return [self.days[number] for number in sorted(numbers) if number in self.days]

    def _settle(self, day: Day, limit: int) -> None:
        """Settle the day, and then offer free units to the wait list."""
        self._apply_due(day, limit)
        self._serve_wait_list(day)

    def _apply_due(self, day: Day, limit: int) -> None:
        self.expired_by_settling = 0
        overdue = [record for record in self._records_on(day) if record.is_overdue(self.now_ms)]
        for record in sorted(overdue, key=lambda record: (",".join(record.quotas), record.deadline_at_ms, record.id))[
            :limit
        ]:
            self._expire(record, day)
            self.expired_by_settling += 1
        due = [cooling for cooling in day.cooling if cooling.due_at_ms is not None and cooling.due_at_ms <= self.now_ms]
        for cooling in due:
            day.cooling.remove(cooling)
            self._changed()
        self._reallocate_due(day)

    def _dispatch(self, command: Command) -> ExpectedOutcome:
        match command:
            case Reserve():
                return self._reserve(command)
            case Confirm():
                return self._confirm(command)
            case Extend():
                return self._extend(command)
            case RemoveApplicant():
                return self._remove_applicant(command)
            case ReplaceApplicant():
                return self._replace_applicant(command)
            case Release():
                return self._release(command)
            case Decline():
                return self._decline(command)
            case Cancel():
                return self._cancel(command)
            case CheckIn() | MarkNoShow():
                return self._record_attendance(command)
            case UndoAttendance():
                return self._undo_attendance(command)
            case Reschedule():
                return self._reschedule(command)
            case Stay():
                return self._stay(command)
            case PrepareMove():
                return self._prepare_move(command)
            case MoveIn():
                return self._move_in(command)
            case MoveOut() | UndoMove():
                return self._move_out(command)
            case Publish():
                return self._publish(command)
            case SetRules():
                replayed = self.rules == command.rules
                if self.rules.jitter_seed and command.rules.jitter_seed not in ("", self.rules.jitter_seed):
                    return ExpectedOutcome(Status.CONFLICT)
                if not replayed:
                    self.rules = command.rules
                    self._changed()
                return ExpectedOutcome(Status.DONE, replayed=replayed)
            case Expire() | CloseDay() | OpenDay():
                day = self.days.get(command.day)
                if day is None:
                    return ExpectedOutcome(Status.UNKNOWN_DAY)
                if isinstance(command, Expire):
                    return ExpectedOutcome(Status.DONE, units=self.expired_by_settling)
                return self._close_or_open(day, command)
            case SetCapacity() | ReallocateUnused() | ReleaseParked():
                day = self.days.get(command.day)
                if day is None:
                    return ExpectedOutcome(Status.UNKNOWN_DAY)
                if command.quota not in day.quotas:
                    return ExpectedOutcome(Status.UNKNOWN_QUOTA)
                return self._on_quota(command, day)
            case _:
                assert_never(command)
