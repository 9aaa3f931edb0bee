"""Moves of a reservation, within the office and to another one."""

from __future__ import annotations

import dataclasses

from quota_engine.domain.commands import MoveIn, MoveOut, PrepareMove, Reschedule, Stay, UndoMove
from quota_engine.domain.lifecycle import State
from quota_engine.domain.outcomes import Status
from tests.support.oracle.records import ExpectedOutcome, Record
from tests.support.oracle.reservations import Reservations


class Moves(Reservations):
    """An office that answers moves."""

    def _prepare_move(self, command: PrepareMove) -> ExpectedOutcome:
        record = self.records.get(command.id)
        if record is None:
            return ExpectedOutcome(Status.NOT_FOUND)
        if command.owner and command.owner not in record.applicants:
            return ExpectedOutcome(Status.NOT_OWNER)
        if record.state is State.EXPIRED or record.is_overdue(self.now_ms):
            return self._expect(Status.HOLD_EXPIRED, record)
        if command.expected_version and command.expected_version != record.version:
            return self._expect(Status.STALE, record)
        if record.state not in (State.HELD, State.CONFIRMED):
            return self._expect(Status.WRONG_STATE, record)
        return self._expect(self._move_refusal(record) or Status(record.state), record)

    def _stay(self, command: Stay) -> ExpectedOutcome:
        record = self.records.get(command.id)
        if record is None:
            return ExpectedOutcome(Status.NOT_FOUND)
        if command.owner and command.owner not in record.applicants:
            return ExpectedOutcome(Status.NOT_OWNER)
        if record.state is State.EXPIRED or record.is_overdue(self.now_ms):
            return self._expect(Status.HOLD_EXPIRED, record)
        if command.expected_version not in (0, record.version):
            return self._expect(Status.STALE, record)
        if record.state is not State.CONFIRMED or not self.days[record.day].closed:
            return self._expect(Status.WRONG_STATE, record)
        self._step(record, State.CONFIRMED)
        return self._expect(Status.CONFIRMED, record)

    def _move_refusal(self, record: Record) -> Status | None:
        """Return the status that keeps a reservation on its day. Nothing keeps it on a closed one."""
        day = self.days[record.day]
        if day.closed:
            return None
        if record.state is State.CONFIRMED and self.now_ms > day.starts_at_ms - self.rules.reschedule_before_ms:
            return Status.TOO_LATE
        counted = record.moves - record.forced_moves
        return Status.MOVES_EXCEEDED if counted >= self.rules.reschedules_max else None

    def _move_in(self, command: MoveIn) -> ExpectedOutcome:
        known = self.records.get(command.id)
        if known is not None:
            return self._replay(known, command)
        if self._is_past(command.valid_until_ms):
            return ExpectedOutcome(Status.COMMAND_EXPIRED)
        day = self.days.get(command.day)
        if day is None:
            return ExpectedOutcome(Status.UNKNOWN_DAY)
        if not all(name in day.quotas for option in command.choice.options for name in option):
            return ExpectedOutcome(Status.UNKNOWN_QUOTA)
        confirmed = command.deadline_at_ms == 0
        if not confirmed and command.deadline_at_ms <= self.now_ms:
            return ExpectedOutcome(Status.HOLD_EXPIRED)
        if day.closed:
            return ExpectedOutcome(Status.DAY_CLOSED)
        if day.ends_at_ms <= self.now_ms:
            return ExpectedOutcome(Status.DAY_OVER)
        if day.booking_ended(command.choice, self.now_ms):
            return ExpectedOutcome(Status.SESSION_OVER)
        if self.now_ms < day.opens_at_ms:
            return ExpectedOutcome(Status.NOT_OPEN, retry_at_ms=day.opens_at_ms)
        party = frozenset(command.applicants)
        if len(party) > self.rules.party_max:
            return ExpectedOutcome(Status.PARTY_TOO_LARGE)
        self._expire_own_holds(party)
        if blocked_until_ms := self._blocked_until(party):
            return ExpectedOutcome(Status.BLOCKED, retry_at_ms=blocked_until_ms)
        if conflicting := self._conflicting_claims(party, day):
            same_party = [record for record in conflicting if record.party == party]
            return self._expect(Status.IDENTITY_LIMIT, *same_party, or_none=len(same_party) < len(conflicting))
        choice = day.completed(command.choice)
        option = self._first_for_newcomer(day, choice, len(party))
        if option is None:
            return ExpectedOutcome(Status.SOLD_OUT)
        record = Record(
            command.id,
            day.number,
            command.applicants,
            choice,
            self.now_ms,
            option,
            State.CONFIRMED if confirmed else State.HELD,
            deadline_at_ms=command.deadline_at_ms,
            moves=command.moves,
            forced_moves=command.forced_moves,
            extensions=command.extensions,
        )
        if confirmed:
            self._assign_queue_numbers(record, day)
        self.records[record.id] = record
        self._changed()
        return self._expect(Status(record.state), record)

    def _move_out(self, command: MoveOut | UndoMove) -> ExpectedOutcome:
        goal = State.MOVED if isinstance(command, MoveOut) else State.RELEASED
        record = self.records.get(command.id)
        if record is None:
            return ExpectedOutcome(Status.NOT_FOUND)
        if command.owner and command.owner not in record.applicants:
            return ExpectedOutcome(Status.NOT_OWNER)
        if record.state is goal:
            return self._expect(Status(goal), record, replayed=True)
        if record.state is State.EXPIRED or record.is_overdue(self.now_ms):
            return self._expect(Status.HOLD_EXPIRED, record)
        if command.expected_version and command.expected_version != record.version:
            return self._expect(Status.STALE, record)
        if record.state not in (State.HELD, State.CONFIRMED):
            return self._expect(Status.WRONG_STATE, record)
        day = self.days[record.day]
        self._depart(record, day)
        self._step(record, goal)
        self._return_units(record, day, record.quotas, self.now_ms)
        answer = self._expect(Status(goal), record)
        self._distribute(day)
        return answer

    def _reschedule(self, command: Reschedule) -> ExpectedOutcome:
        record = self.records.get(command.id)
        if record is None:
            return ExpectedOutcome(Status.NOT_FOUND)
        source = self.days[record.day]
        target = self.days.get(command.day)
        own = not command.owner or command.owner in record.applicants
        # The target is checked before the owner, so the first two refusals must show no record to another caller.
        shown = [record] if own else []
        if target is None:
            return self._expect(Status.UNKNOWN_DAY, *shown, or_none=True)
        if not all(name in target.quotas for option in command.choice.options for name in option):
            return self._expect(Status.UNKNOWN_QUOTA, *shown, or_none=True)
        if command.owner and command.owner not in record.applicants:
            return ExpectedOutcome(Status.NOT_OWNER)
        is_held = record.state is State.HELD and not record.is_overdue(self.now_ms)
        is_confirmed = record.state is State.CONFIRMED
        choice = target.completed(command.choice)
        if (is_held or is_confirmed) and target is source and record.choice in (choice, command.choice):
            return self._expect(Status(record.state), record, replayed=True)
        if record.state is State.EXPIRED or record.is_overdue(self.now_ms):
            return self._expect(Status.HOLD_EXPIRED, record)
        if command.expected_version and command.expected_version != record.version:
            return self._expect(Status.STALE, record)
        if not is_held and not is_confirmed:
            return self._expect(Status.WRONG_STATE, record)
        if target.closed:
            return self._expect(Status.DAY_CLOSED, record)
        if target.ends_at_ms <= self.now_ms:
            return self._expect(Status.DAY_OVER, record)
        if target.booking_ended(command.choice, self.now_ms):
            return self._expect(Status.SESSION_OVER, record)
        if self.now_ms < target.opens_at_ms:
            return dataclasses.replace(self._expect(Status.NOT_OPEN, record), retry_at_ms=target.opens_at_ms)
        if refusal := self._move_refusal(record):
            return self._expect(refusal, record)
        if self._conflicting_claims(record.applicants, target, except_record=record):
            return self._expect(Status.IDENTITY_LIMIT, record)
        owned = record.quotas if target is source else ()
        option = self._first_for_newcomer(target, choice, record.units, owned)
        if option is None:
            return self._expect(Status.SOLD_OUT, record)

        self._depart(record, source)
        left = [name for name in record.quotas if target is not source or name not in option]
        record.day = target.number
        record.choice = choice
        record.quotas = option
        record.moves += 1
        record.forced_moves += source.closed
        record.wait_list_number = record.declines = 0
        self._step(record, record.state)
        if is_confirmed and target is not source:
            self._assign_queue_numbers(record, target)
        self._return_units(record, source, left, self.now_ms)
        answer = self._expect(Status(record.state), record)
        self._distribute(source)
        return answer
