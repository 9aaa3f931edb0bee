"""Methods of an engine about one reservation, from reserve to check-in."""

from __future__ import annotations

__all__ = ["ReservationMethods"]

from quota_engine.admission.policy import Caller
from quota_engine.catalog import Selection
from quota_engine.domain.commands import Cancel, CheckIn, Confirm, Decline, Extend, MarkNoShow, Release, UndoAttendance
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import Outcome, WaitListPosition
from quota_engine.generators import Request
from quota_engine.ports import StoreRequest
from quota_engine.workflows import day_workflows, entries, office_moves, party_changes
from quota_engine.workflows.admission_gate import AdmissionGate, CallAdmission
from quota_engine.workflows.arguments import Day
from quota_engine.workflows.generator_drivers import Apply, Workflow
from quota_engine.workflows.jobs import job
from quota_engine.workflows.office_moves import MovesReport
from quota_engine.workflows.request_builder import RequestBuilder


class ReservationMethods:
    """Reservations. ``reserve`` itself is in the engine classes, whose hot path it is."""

    def __init__(self, requests: RequestBuilder, gate: AdmissionGate | None) -> None:
        self.requests = requests
        self.gate = gate

    def confirm(
        self,
        reference: str,
        *,
        owner: str | None = None,
        expected_version: int = 0,
        reacquire: bool = False,
        caller: Caller | None = None,
        admission_pass: str = "",
    ) -> Workflow[Outcome] | Request[Outcome]:
        """Confirm a hold and assign queue numbers.

        Args:
            reference: ``outcome.reference``, such as ``surabaya~9f2c``.
            owner: identity of one of its applicants; the call is refused if the reservation is not theirs. ``None``
                does not check.
            expected_version: the version that the caller knows; the call is refused with ``STALE`` if the reservation
                has changed since. 0 does not check.
            reacquire: if the hold has expired, take new units if there are any, instead of ``HOLD_EXPIRED``. The
                admission policies decide about them as about a reserve, so a used pass is not enough. A hold that has
                not expired asks nothing.
            caller: the caller, for the admission policies; hashed at once.
            admission_pass: the caller's pass, for the admission policies.

        Returns:
            ``CONFIRMED``. Refusals, in this order: ``NOT_FOUND``, ``NOT_OWNER``, ``STALE``, ``WRONG_STATE``,
            ``HOLD_EXPIRED``, ``NOT_ADMITTED`` and ``THROTTLED`` instead of new units, and those of the day, as for
            :meth:`reserve`.
        """
        request = self.requests.reservation_command(Confirm, reference, owner, expected_version, reacquire)
        if not reacquire and not admission_pass:
            return request
        admission = CallAdmission.of(self.requests, self.gate, caller, admission_pass)
        return entries.confirm(self.requests, admission, request.address, request.command)

    def extend(
        self, reference: str, extension: int, *, owner: str | None = None, expected_version: int = 0
    ) -> Apply[Outcome]:
        """Give a hold more time, while its party fills in a form or pays.

        ``outcome.extensions_left`` of the hold says how often. ``extension`` makes the call safe to repeat: the same
        number has one effect.

        Args:
            reference: as for :meth:`confirm`.
            extension: the number of the extension, from 1: ``reservation.extensions + 1`` for the next one.
            owner: as for :meth:`confirm`.
            expected_version: as for :meth:`confirm`.

        Returns:
            ``HELD`` with the new deadline. Refusals, in this order: those of :meth:`confirm`, ``STALE`` also if
            ``extension`` is not the next one, ``DAY_CLOSED``, ``DAY_OVER``, ``EXTENSIONS_EXCEEDED``.
        """
        return self.requests.reservation_command(Extend, reference, owner, expected_version, extension)

    def remove_applicant(
        self, reference: str, applicant: str, *, owner: str | None = None, expected_version: int = 0
    ) -> Workflow[Outcome] | Request[Outcome]:
        """Take one applicant out of a party. It returns their units. The rest keep their places and numbers.

        It counts for that applicant as a cancellation, or as a hold that was let go.

        Args:
            reference: as for :meth:`confirm`.
            applicant: identity of the applicant who leaves.
            owner: as for :meth:`confirm`; it may be the applicant who leaves.
            expected_version: as for :meth:`confirm`.

        Returns:
            The reservation's state. Refusals, in this order: ``NOT_FOUND``, ``NOT_OWNER``, ``NOT_IN_PARTY``,
            ``HOLD_EXPIRED``, ``STALE``, ``WRONG_STATE``, ``DAY_OVER``, ``PARTY_TOO_SMALL`` for the last applicant, and
            ``WAIT_LIST_FULL``.
        """
        return party_changes.remove_applicant(self.requests, reference, applicant, owner, expected_version)

    def replace_applicant(
        self, reference: str, applicant: str, replacement: str, *, expected_version: int = 0
    ) -> Workflow[Outcome] | Request[Outcome]:
        """Put another applicant in the place of one of a party, with their queue number.

        For operators only. A booking service must never offer it to applicants: with it, a broker could sell places.

        Args:
            reference: as for :meth:`confirm`.
            applicant: identity of the applicant who leaves.
            replacement: identity of the applicant who takes their place.
            expected_version: as for :meth:`confirm`.

        Returns:
            The reservation's state. Refusals, in this order: ``NOT_FOUND``, ``COMMAND_EXPIRED`` (the call took too
            long), ``NOT_IN_PARTY``, ``HOLD_EXPIRED``, ``STALE``, ``WRONG_STATE``, ``DAY_CLOSED``, ``DAY_OVER``, and
            ``BLOCKED`` and ``IDENTITY_LIMIT`` of the replacement.
        """
        return party_changes.replace_applicant(self.requests, reference, applicant, replacement, expected_version)

    def release(self, reference: str, *, owner: str | None = None, expected_version: int = 0) -> Apply[Outcome]:
        """Release a hold, or leave the wait list.

        Args:
            reference: as for :meth:`confirm`.
            owner: as for :meth:`confirm`.
            expected_version: as for :meth:`confirm`.

        Returns:
            ``RELEASED``, or a refusal as for :meth:`confirm`.
        """
        return self.requests.reservation_command(Release, reference, owner, expected_version)

    def decline(self, reference: str, *, owner: str | None = None, expected_version: int = 0) -> Apply[Outcome]:
        """Decline an offer of the wait list, and keep the place on the list.

        The offer goes to the next party. The list passes over this one for the office's ``decline_pause_ms``.

        Args:
            reference: as for :meth:`confirm`.
            owner: as for :meth:`confirm`.
            expected_version: as for :meth:`confirm`. Give it: an offer that the caller has not seen must not be
                declined.

        Returns:
            ``WAITING``, or a refusal as for :meth:`confirm`. ``WRONG_STATE`` if it is not an offer of the wait list,
            ``DECLINES_EXCEEDED`` if the party has declined as many offers as the office allows.
        """
        return self.requests.reservation_command(Decline, reference, owner, expected_version)

    def cancel(self, reference: str, *, owner: str | None = None, expected_version: int = 0) -> Apply[Outcome]:
        """Cancel a confirmed reservation.

        Args:
            reference: as for :meth:`confirm`.
            owner: as for :meth:`confirm`.
            expected_version: as for :meth:`confirm`.

        Returns:
            ``CANCELLED``, or a refusal as for :meth:`confirm`.
        """
        return self.requests.reservation_command(Cancel, reference, owner, expected_version)

    def check_in(self, reference: str, *, owner: str | None = None, expected_version: int = 0) -> Apply[Outcome]:
        """Record that the party attends.

        Args:
            reference: as for :meth:`confirm`.
            owner: as for :meth:`confirm`.
            expected_version: as for :meth:`confirm`.

        Returns:
            ``ATTENDED``, or a refusal as for :meth:`confirm`.
        """
        return self.requests.reservation_command(CheckIn, reference, owner, expected_version)

    def mark_no_show(self, reference: str, *, owner: str | None = None, expected_version: int = 0) -> Apply[Outcome]:
        """Record that the party did not attend.

        Args:
            reference: as for :meth:`confirm`.
            owner: as for :meth:`confirm`.
            expected_version: as for :meth:`confirm`.

        Returns:
            ``NO_SHOW``, or a refusal as for :meth:`confirm`.
        """
        return self.requests.reservation_command(MarkNoShow, reference, owner, expected_version)

    def undo_attendance(self, reference: str, *, owner: str | None = None, expected_version: int = 0) -> Apply[Outcome]:
        """Undo a check-in or no-show that was recorded in error: the party is confirmed again.

        The record's ``undo_until_ms`` is the last moment; the office's rules set it. A no-show that is undone blocks
        no applicant.

        Args:
            reference: as for :meth:`confirm`.
            owner: as for :meth:`confirm`.
            expected_version: as for :meth:`confirm`. Give the version after the check-in, so that a late copy of the
                call cannot undo another one.

        Returns:
            ``CONFIRMED``, or a refusal as for :meth:`confirm`. ``TOO_LATE`` after ``undo_until_ms``.
        """
        return self.requests.reservation_command(UndoAttendance, reference, owner, expected_version)

    def reschedule(
        self,
        reference: str,
        day: Day,
        *,
        office: str = "",
        service: str = "",
        service_unit: str = "",
        session: str = "",
        channel: str = "online",
        group: str = "",
        owner: str | None = None,
        expected_version: int = 0,
        caller: Caller | None = None,
        admission_pass: str = "",
    ) -> Workflow[Outcome] | Request[Outcome]:
        """Move a reservation to another day, session or office. It always keeps the old place or has the new one.

        Within the office, the move is one step. To another ``office`` it takes several steps: the new reservation has a
        new reference, which the outcome returns, and the old one ends as ``MOVED``. A call that is cut short may
        leave both places for a while; the same call again, or :meth:`recover_moves`, finishes the move.

        Another day or office asks what a reserve of it asks: the admission policies decide about it, and the pass of a
        waiting room is used up. Another choice of the same day asks only if a policy decides differently about it.

        Args:
            reference: as for :meth:`confirm`.
            day: the new day.
            office: the new office; ``""`` for the same one.
            service: id of the service, as for :meth:`reserve`.
            service_unit: id of the service unit, as for :meth:`reserve`.
            session: id of the session, as for :meth:`reserve`.
            channel: id of the channel, as for :meth:`reserve`.
            group: id of the applicant group, as for :meth:`reserve`.
            owner: as for :meth:`confirm`.
            expected_version: as for :meth:`confirm`.
            caller: the caller, for the admission policies; hashed at once.
            admission_pass: the caller's pass for the new day, for the admission policies.

        Returns:
            The reservation's state, with its new record. Refusals, in this order: those of :meth:`confirm`,
            ``NOT_ADMITTED`` and ``THROTTLED`` by a policy (see ``outcome.reason``), ``TOO_LATE``, ``MOVES_EXCEEDED``.
            Then ``MOVING`` while another move of it is in progress, and those of the new office as for :meth:`reserve`.

            ``COMMAND_EXPIRED``: the call took too long, and nothing was done. ``STALE`` without ``expected_version``:
            other calls kept changing the reservation; repeat the call.
        """
        selection = Selection(service, service_unit, session, channel, group)
        admission = CallAdmission.of(self.requests, self.gate, caller, admission_pass)
        return office_moves.reschedule(
            self.requests, admission, reference, day, office, selection, owner, expected_version
        )

    def recover_moves(
        self, *, older_than_ms: int = 0, limit: int = 1000, timeout_ms: int | None = None
    ) -> Workflow[MovesReport]:
        """Finish cross-office moves whose caller died. Call periodically.

        Safe to call at any time from any number of processes. A move is left alone for half a minute, while its caller
        may still be at work.

        Args:
            older_than_ms: milliseconds to wait beyond that half minute.
            limit: most moves to finish, 1 to 10,000.
            timeout_ms: time of the whole call in milliseconds, 200 to 3,600,000; ``None`` for the ``job_timeout_ms`` of
                the engine.

        Raises:
            JobTimeout: the time is over between two moves. ``report`` counts the moves before. Call it again.
        """
        return job("recover_moves", timeout_ms, office_moves.recover_moves(self.requests, older_than_ms, limit))

    def find_moved(self, reference: str) -> Workflow[str]:
        """Return the new reference of a reservation that is ``MOVED``; ``""`` if it is unknown.

        Args:
            reference: the reference before the move.
        """
        return office_moves.find_moved(self.requests, reference)

    def lookup(self, reference: str) -> Workflow[Reservation | None]:
        """Return the current reservation; ``None`` if it is unknown, or its day is long over.

        Args:
            reference: as for :meth:`confirm`.
        """
        return day_workflows.lookup(self.requests, reference)

    def wait_list_position(self, reference: str) -> StoreRequest[WaitListPosition | None]:
        """Return how many wait before a reservation and how many wait in all.

        Args:
            reference: as for :meth:`confirm`.

        Returns:
            The position; ``None`` if the reservation is not ``WAITING``, or its day is over.
        """
        return self.requests.wait_list_position(reference)
