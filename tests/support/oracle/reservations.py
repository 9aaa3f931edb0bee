"""Commands of applicants and staff on one reservation."""

from __future__ import annotations

import dataclasses

from quota_engine.domain.commands import (
    Cancel,
    CheckIn,
    Confirm,
    Decline,
    Extend,
    MarkNoShow,
    MoveIn,
    Release,
    RemoveApplicant,
    ReplaceApplicant,
    Reserve,
    UndoAttendance,
)
from quota_engine.domain.lifecycle import State
from quota_engine.domain.outcomes import Status
from tests.support.oracle.identities import Identities
from tests.support.oracle.records import COUNTED_AS_CONFIRMED, ENDED, Day, ExpectedOutcome, Record


class Reservations(Identities):
    """An office that answers commands on one reservation."""

    def _reserve(self, command: Reserve) -> ExpectedOutcome:
        known = self.records.get(command.id)
        party = frozenset(command.applicants)
        units = len(party)
        if known is not None:
            return self._replay(known, command)
        if self._is_past(command.valid_until_ms):
            return ExpectedOutcome(Status.COMMAND_EXPIRED)
        day = self.days.get(command.day)
        if day is None:
            return ExpectedOutcome(Status.UNKNOWN_DAY)
        if not all(name in day.quotas for option in command.choice.options for name in option):
            return ExpectedOutcome(Status.UNKNOWN_QUOTA)
        if day.closed:
            return ExpectedOutcome(Status.DAY_CLOSED)
        if day.ends_at_ms <= self.now_ms:
            return ExpectedOutcome(Status.DAY_OVER)
        if day.booking_ended(command.choice, self.now_ms):
            return ExpectedOutcome(Status.SESSION_OVER)
        if self.now_ms < day.opens_at_ms:
            return ExpectedOutcome(Status.NOT_OPEN, retry_at_ms=day.opens_at_ms)
        if units > self.rules.party_max:
            return ExpectedOutcome(Status.PARTY_TOO_LARGE)
        self._expire_own_holds(party)
        if blocked_until_ms := self._blocked_until(party):
            return ExpectedOutcome(Status.BLOCKED, retry_at_ms=blocked_until_ms)
        own = [
            record
            for record in self._records_on(day)
            if record.party == party and record.state in (State.WAITING, State.HELD) and record.is_claim(self.now_ms)
            if not self._waits_in_vain(record)
        ]
        if own:
            # There is more than one only after a hold was rescheduled to this day. Status and record belong together.
            state = own[0].state
            expected = self._expect(Status(state), *(record for record in own if record.state is state), resumed=True)
            return self._announce(expected, own[0]) if state is State.HELD else expected
        if conflicting := self._conflicting_claims(party, day):
            same_party = [record for record in conflicting if record.party == party]
            return self._expect(Status.IDENTITY_LIMIT, *same_party, or_none=len(same_party) < len(conflicting))

        choice = day.completed(command.choice)
        record = Record(command.id, day.number, command.applicants, choice, created_at_ms=self.now_ms)
        option = self._first_for_newcomer(day, choice, units)
        if option is not None:
            record.state = State.HELD
            record.quotas = option
            record.deadline_at_ms = self.now_ms + (command.hold_ttl_ms or self.rules.hold_ttl_ms)
        elif not command.join_wait_list or not self._can_wait_for(day, choice):
            return ExpectedOutcome(Status.SOLD_OUT)
        elif len(self._waiting(day)) >= self.rules.wait_list_max or self._has_too_many_demands(
            day, command.choice, units
        ):
            return ExpectedOutcome(Status.WAIT_LIST_FULL)
        else:
            day.last_wait_list_number += 1
            record.wait_list_number = day.last_wait_list_number
        self.records[record.id] = record
        self._changed()
        expected = self._expect(Status(record.state), record)
        return self._announce(expected, record) if record.state is State.HELD else expected

    def _replay(self, known: Record, command: Reserve | MoveIn) -> ExpectedOutcome:
        party = frozenset(command.applicants)
        was_of_party = bool(known.former_applicants) and party <= known.party | frozenset(known.former_applicants)
        if known.party != party and not was_of_party:
            return ExpectedOutcome(Status.CONFLICT)
        same = known.choice in (command.choice, self.days[known.day].completed(command.choice))
        if known.moves == 0 and not (same and known.day == command.day):
            return self._expect(Status.CONFLICT, known, or_none=True)
        if known.state in ENDED or known.is_overdue(self.now_ms):
            return self._expect(Status.RESERVATION_ENDED, known, replayed=True)
        expected = self._expect(Status(known.state), known, replayed=True)
        if known.state is State.HELD:
            self._expire_own_holds(known.applicants)
            return self._announce(expected, known)
        return expected

    def _confirm(self, command: Confirm) -> ExpectedOutcome:
        record = self.records.get(command.id)
        if record is None:
            return ExpectedOutcome(Status.NOT_FOUND)
        day = self.days[record.day]
        if command.owner and command.owner not in record.applicants:
            return ExpectedOutcome(Status.NOT_OWNER)
        if record.state is State.CONFIRMED:
            return self._expect(Status.CONFIRMED, record, replayed=True)
        if record.state is State.EXPIRED or record.is_overdue(self.now_ms):
            if command.reacquire and self._is_past(command.valid_until_ms):
                return self._expect(Status.COMMAND_EXPIRED, record)
            if command.reacquire:
                self._expire_own_holds(record.applicants)
            is_known = all(name in day.quotas for option in record.choice.options for name in option)
            option = self._first_for_newcomer(day, record.choice, record.units) if is_known else None
            if (
                command.reacquire
                and day.opens_at_ms <= self.now_ms < day.ends_at_ms
                and not day.booking_ended(record.choice, self.now_ms)
                and not day.closed
                and not self._blocked_until(record.applicants)
                and not self._conflicting_claims(record.applicants, day)
                and option is not None
            ):
                record.quotas = option
                for applicant in record.applicants if self.rules.abandoned_holds_max else ():
                    if (applicant, record.deadline_at_ms) in self.abandoned:
                        self.abandoned.remove((applicant, record.deadline_at_ms))
                return self._confirm_record(record, day)
            return self._expect(Status.HOLD_EXPIRED, record)
        if command.expected_version and command.expected_version != record.version:
            return self._expect(Status.STALE, record)
        if record.state is not State.HELD:
            return self._expect(Status.WRONG_STATE, record)
        if day.closed:
            return self._expect(Status.DAY_CLOSED, record)
        if day.ends_at_ms <= self.now_ms:
            return self._expect(Status.DAY_OVER, record)
        if day.session_ended(record.choice, self.now_ms):
            return self._expect(Status.SESSION_OVER, record)
        return self._confirm_record(record, day)

    def _confirm_record(self, record: Record, day: Day) -> ExpectedOutcome:
        self._step(record, State.CONFIRMED)
        self._assign_queue_numbers(record, day)
        return self._expect(Status.CONFIRMED, record)

    def _assign_queue_numbers(self, record: Record, day: Day) -> None:
        record.numbers = tuple(range(day.queue_number_next, day.queue_number_next + record.units))
        day.queue_number_next += record.units

    def _extend(self, command: Extend) -> ExpectedOutcome:
        record = self.records.get(command.id)
        if record is None:
            return ExpectedOutcome(Status.NOT_FOUND)
        day = self.days[record.day]
        if command.owner and command.owner not in record.applicants:
            return ExpectedOutcome(Status.NOT_OWNER)
        self._expire_own_holds(record.applicants)
        is_held = record.state is State.HELD and not record.is_overdue(self.now_ms)
        if is_held and record.extensions >= command.extension:
            return self._announce(self._expect(Status.HELD, record, replayed=True), record)
        if record.state is State.EXPIRED or record.is_overdue(self.now_ms):
            return self._expect(Status.HOLD_EXPIRED, record)
        if command.expected_version not in (0, record.version) or command.extension - record.extensions > 1:
            return self._expect(Status.STALE, record)
        if not is_held:
            return self._expect(Status.WRONG_STATE, record)
        if day.closed:
            return self._expect(Status.DAY_CLOSED, record)
        if day.ends_at_ms <= self.now_ms:
            return self._expect(Status.DAY_OVER, record)
        if day.session_ended(record.choice, self.now_ms):
            return self._expect(Status.SESSION_OVER, record)
        if command.extension > self.rules.extensions_max:
            return self._expect(Status.EXTENSIONS_EXCEEDED, record)
        record.deadline_at_ms += self.rules.extension_ms
        record.extensions = command.extension
        self._step(record, State.HELD)
        return self._announce(self._expect(Status.HELD, record), record)

    def _remove_applicant(self, command: RemoveApplicant) -> ExpectedOutcome:
        record = self.records.get(command.id)
        if record is None:
            return ExpectedOutcome(Status.NOT_FOUND)
        day, applicant = self.days[record.day], command.applicant
        has_left = applicant in record.former_applicants and applicant not in record.applicants
        owners = {*record.applicants, applicant} if has_left else record.party
        if command.owner and command.owner not in owners:
            return ExpectedOutcome(Status.NOT_OWNER)
        is_active = record.state not in ENDED and not record.is_overdue(self.now_ms)
        if has_left and is_active:
            return self._expect(Status(record.state), record, replayed=True)
        if applicant not in record.applicants:
            return self._expect(Status.NOT_IN_PARTY, record)
        if refusal := self._refuse_party_change(record, command.expected_version):
            return refusal
        if record.state is State.CONFIRMED and day.ends_at_ms <= self.now_ms and not day.closed:
            return self._expect(Status.DAY_OVER, record)
        if len(record.applicants) == 1:
            return self._expect(Status.PARTY_TOO_SMALL, record)
        if record.state is State.WAITING and self._has_too_many_demands(day, record.choice, record.units - 1):
            return self._expect(Status.WAIT_LIST_FULL, record)
        if record.numbers:
            pairs = zip(record.applicants, record.numbers, strict=True)
            record.numbers = tuple(number for one, number in pairs if one != applicant)
        record.applicants = tuple(one for one in record.applicants if one != applicant)
        self._has_left(record, applicant)
        self._step(record, record.state)
        self._return_units(record, day, record.quotas, self.now_ms, units=1)
        if day.closed:
            day.departed += record.state is State.CONFIRMED
        elif record.state is State.CONFIRMED:
            self.cancellations.append((applicant, self.now_ms))
            self._block_if_cancelled_too_often(applicant)
        elif record.state is State.HELD:
            self._abandon(record, self.now_ms, (applicant,))
        self._distribute(day)
        return self._expect(Status(record.state), record)

    def _refuse_party_change(self, record: Record, expected_version: int) -> ExpectedOutcome | None:
        if record.state is State.EXPIRED or record.is_overdue(self.now_ms):
            return self._expect(Status.HOLD_EXPIRED, record)
        if expected_version not in (0, record.version):
            return self._expect(Status.STALE, record)
        if record.state not in (State.WAITING, State.HELD, State.CONFIRMED):
            return self._expect(Status.WRONG_STATE, record)
        return None

    def _has_left(self, record: Record, applicant: str, newcomer: str = "") -> None:
        others = [one for one in record.former_applicants if one not in (applicant, newcomer)]
        record.former_applicants = (*others, applicant)[-100:]

    def _replace_applicant(self, command: ReplaceApplicant) -> ExpectedOutcome:
        record = self.records.get(command.id)
        if record is None:
            return ExpectedOutcome(Status.NOT_FOUND)
        day, applicant, newcomer = self.days[record.day], command.applicant, command.replacement
        has_left = applicant in record.former_applicants and applicant not in record.applicants
        is_active = record.state not in ENDED and not record.is_overdue(self.now_ms)
        if has_left and is_active and newcomer in record.applicants:
            return self._expect(Status(record.state), record, replayed=True)
        if self._is_past(command.valid_until_ms):
            return self._expect(Status.COMMAND_EXPIRED, record)
        if applicant not in record.applicants:
            return self._expect(Status.NOT_IN_PARTY, record)
        self._expire_own_holds((newcomer,))
        if refusal := self._refuse_party_change(record, command.expected_version):
            return refusal
        if day.closed:
            return self._expect(Status.DAY_CLOSED, record)
        if day.ends_at_ms <= self.now_ms:
            return self._expect(Status.DAY_OVER, record)
        if blocked_until_ms := self._blocked_until((newcomer,)):
            return dataclasses.replace(self._expect(Status.BLOCKED, record), retry_at_ms=blocked_until_ms)
        if newcomer in record.applicants or self._conflicting_claims((newcomer,), day, except_record=record):
            return self._expect(Status.IDENTITY_LIMIT, record)
        record.applicants = tuple(newcomer if one == applicant else one for one in record.applicants)
        self._has_left(record, applicant, newcomer)
        self._step(record, record.state)
        if record.state is State.WAITING:
            self._distribute(day)
        return self._expect(Status(record.state), record)

    def _release(self, command: Release) -> ExpectedOutcome:
        record = self.records.get(command.id)
        if record is None:
            return ExpectedOutcome(Status.NOT_FOUND)
        day = self.days[record.day]
        if command.owner and command.owner not in record.applicants:
            return ExpectedOutcome(Status.NOT_OWNER)
        self._expire_own_holds(record.applicants)
        if record.state is State.RELEASED:
            return self._announce(self._expect(Status.RELEASED, record, replayed=True), record)
        if record.state is State.EXPIRED or record.is_overdue(self.now_ms):
            return self._expect(Status.HOLD_EXPIRED, record)
        if command.expected_version and command.expected_version != record.version:
            return self._expect(Status.STALE, record)
        if record.state not in (State.HELD, State.WAITING):
            return self._expect(Status.WRONG_STATE, record)
        was_held = record.state is State.HELD
        self._step(record, State.RELEASED)
        self._return_units(record, day, record.quotas, self.now_ms)
        if was_held and not day.closed:
            self._abandon(record, self.now_ms)
        answer = self._announce(self._expect(Status.RELEASED, record), record)
        self._distribute(day)
        return answer

    def _decline(self, command: Decline) -> ExpectedOutcome:
        record = self.records.get(command.id)
        if record is None:
            return ExpectedOutcome(Status.NOT_FOUND)
        day = self.days[record.day]
        if command.owner and command.owner not in record.applicants:
            return ExpectedOutcome(Status.NOT_OWNER)
        if record.state is State.WAITING:
            return self._expect(Status.WAITING, record, replayed=True)
        if record.state is State.EXPIRED or record.is_overdue(self.now_ms):
            return self._expect(Status.HOLD_EXPIRED, record)
        if command.expected_version and command.expected_version != record.version:
            return self._expect(Status.STALE, record)
        if record.state is not State.HELD or not record.wait_list_number:
            return self._expect(Status.WRONG_STATE, record)
        if day.closed:
            return self._expect(Status.DAY_CLOSED, record)
        if day.ends_at_ms <= self.now_ms:
            return self._expect(Status.DAY_OVER, record)
        if day.session_ended(record.choice, self.now_ms):
            return self._expect(Status.SESSION_OVER, record)
        if record.declines >= self.rules.declines_max:
            return self._expect(Status.DECLINES_EXCEEDED, record)
        quotas, record.quotas, record.deadline_at_ms, record.extensions = record.quotas, (), 0, 0
        record.declines += 1
        record.paused_until_ms = self.now_ms + self.rules.decline_pause_ms
        self._step(record, State.WAITING)
        self._return_units(record, day, quotas, self.now_ms)
        answer = self._expect(Status.WAITING, record)
        self._distribute(day)
        return answer

    def _cancel(self, command: Cancel) -> ExpectedOutcome:
        record = self.records.get(command.id)
        if record is None:
            return ExpectedOutcome(Status.NOT_FOUND)
        day = self.days[record.day]
        if command.owner and command.owner not in record.applicants:
            return ExpectedOutcome(Status.NOT_OWNER)
        if record.state is State.CANCELLED:
            return self._expect(Status.CANCELLED, record, replayed=True)
        if record.state is State.EXPIRED or record.is_overdue(self.now_ms):
            return self._expect(Status.HOLD_EXPIRED, record)
        if command.expected_version and command.expected_version != record.version:
            return self._expect(Status.STALE, record)
        if record.state is not State.CONFIRMED:
            return self._expect(Status.WRONG_STATE, record)
        if day.ends_at_ms <= self.now_ms and not day.closed:
            return self._expect(Status.DAY_OVER, record)
        self._depart(record, day)
        self._step(record, State.CANCELLED)
        self._return_units(record, day, record.quotas, self.now_ms)
        for applicant in () if day.closed else record.applicants:
            self.cancellations.append((applicant, self.now_ms))
            self._block_if_cancelled_too_often(applicant)
        answer = self._expect(Status.CANCELLED, record)
        self._distribute(day)
        return answer

    def _depart(self, record: Record, day: Day) -> None:
        """Count a confirmed party that leaves a closed day."""
        if day.closed and record.state in COUNTED_AS_CONFIRMED:
            day.departed += record.units

    def _record_attendance(self, command: CheckIn | MarkNoShow) -> ExpectedOutcome:
        goal = State.ATTENDED if isinstance(command, CheckIn) else State.NO_SHOW
        record = self.records.get(command.id)
        if record is None:
            return ExpectedOutcome(Status.NOT_FOUND)
        day = self.days[record.day]
        if command.owner and command.owner not in record.applicants:
            return ExpectedOutcome(Status.NOT_OWNER)
        if record.state is goal:
            return self._expect(Status(goal), record, replayed=True)
        if record.state is State.EXPIRED or record.is_overdue(self.now_ms):
            return self._expect(Status.HOLD_EXPIRED, record)
        if command.expected_version and command.expected_version != record.version:
            return self._expect(Status.STALE, record)
        if record.state is not State.CONFIRMED:
            return self._expect(Status.WRONG_STATE, record)
        if goal is State.ATTENDED and day.ends_at_ms <= self.now_ms:
            return self._expect(Status.DAY_OVER, record)
        if goal is State.NO_SHOW and day.closed:
            return self._expect(Status.DAY_CLOSED, record)
        if self.now_ms < day.starts_at_ms:
            return self._expect(Status.TOO_EARLY, record)
        record.undo_until_ms = self.now_ms + self.rules.undo_window_ms
        self._step(record, goal)
        if goal is State.NO_SHOW and self.rules.no_show_block_ms:
            for applicant in record.applicants:
                self._block(applicant, self.rules.no_show_block_ms, record.id)
        return self._expect(Status(goal), record)

    def _undo_attendance(self, command: UndoAttendance) -> ExpectedOutcome:
        record = self.records.get(command.id)
        if record is None:
            return ExpectedOutcome(Status.NOT_FOUND)
        if command.owner and command.owner not in record.applicants:
            return ExpectedOutcome(Status.NOT_OWNER)
        if record.state is State.CONFIRMED:
            return self._expect(Status.CONFIRMED, record, replayed=True)
        if record.state is State.EXPIRED or record.is_overdue(self.now_ms):
            return self._expect(Status.HOLD_EXPIRED, record)
        if command.expected_version and command.expected_version != record.version:
            return self._expect(Status.STALE, record)
        if record.state not in (State.ATTENDED, State.NO_SHOW):
            return self._expect(Status.WRONG_STATE, record)
        if record.undo_until_ms <= self.now_ms:
            return self._expect(Status.TOO_LATE, record)
        record.undo_until_ms = 0
        self._step(record, State.CONFIRMED)
        self.blocks = [block for block in self.blocks if block[2] != record.id]
        return self._expect(Status.CONFIRMED, record)
