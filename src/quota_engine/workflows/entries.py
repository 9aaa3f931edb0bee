"""The path of each command that takes a place: admission, then the national claims, then the office.

A reserve, a reschedule and a confirm that takes a new place are here. A move from another office takes the same steps,
with more around them (:mod:`quota_engine.workflows.office_moves`). No other workflow of an applicant takes a place: the
wait list offers places to parties that were admitted when they joined it.
"""

from __future__ import annotations

__all__ = ["confirm", "reschedule", "reserve"]

from typing import Final

from msgspec.structs import replace

from quota_engine.admission.policy import Caller
from quota_engine.domain.commands import Confirm, Reschedule, Reserve
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.generators import Request
from quota_engine.ports import Lookup
from quota_engine.workflows import national_claims
from quota_engine.workflows.admission_gate import AdmissionGate, ApplyCommand, CallAdmission, Entry, applied_plainly
from quota_engine.workflows.generator_drivers import Apply, Workflow
from quota_engine.workflows.request_builder import RequestBuilder

ATTEMPTS_MAX: Final = 3
"""Attempts to reschedule a reservation that other calls change meanwhile."""
_NO_VERSION: Final = 2**31
"""A version that no reservation has."""


def reserve(
    requests: RequestBuilder,
    gate: AdmissionGate | None,
    office: str,
    command: Reserve,
    caller: Caller | None,
    admission_pass: str,
) -> Workflow[Outcome] | Request[Outcome]:
    """Reserve: one command, unless policies or a national limit require more steps.

    Args:
        requests: the engine's request builder.
        gate: the engine's admission policies; ``None`` if it has none.
        office: the office.
        command: the reserve, as :meth:`RequestBuilder.reserve` built it.
        caller: the caller, for the policies.
        admission_pass: the caller's pass, or ``""``.

    Raises:
        InvalidRequest: a pass without policies, a caller or a pass that no policy can read.
    """
    admission = CallAdmission.of(requests, gate, caller, admission_pass)
    if admission.gate is None and not requests.has_national_limit:
        return Apply(office, command)
    return _reserve(requests, admission, office, command)


def _reserve(requests: RequestBuilder, admission: CallAdmission, office: str, command: Reserve) -> Workflow[Outcome]:
    admitted = admission.admit(Entry(office, command.day, command.applicants, command.choice))
    if isinstance(admitted, Outcome):
        return admitted
    if requests.has_national_limit:
        return (yield from national_claims.reserve(requests, office, command, admitted))
    return (yield from admitted(command))


def confirm(
    requests: RequestBuilder, admission: CallAdmission, office: str, command: Confirm
) -> Workflow[Outcome] | Request[Outcome]:
    """Confirm a hold. An expired one takes new places if ``command.reacquire`` is set, and asks like a reserve.

    A confirm of a hold that has not expired asks nothing.

    Args:
        requests: the engine's request builder.
        admission: the admission of the call.
        office: the office.
        command: the confirm.
    """
    if not command.reacquire or (admission.gate is None and not requests.has_national_limit):
        return Apply(office, command)
    return _reacquire(requests, admission, office, command)


def _reacquire(requests: RequestBuilder, admission: CallAdmission, office: str, command: Confirm) -> Workflow[Outcome]:
    outcome: Outcome = yield Apply(office, replace(command, reacquire=False))
    record = outcome.reservation
    if outcome.status is not Status.HOLD_EXPIRED or record is None:
        return outcome
    # An expired reservation keeps its day and choice, so nothing can change between this decision and the command.
    admitted = admission.admit(_entry_of(record))
    if isinstance(admitted, Outcome):
        return replace(admitted, reservation=record)
    if requests.has_national_limit:
        outcome = yield from national_claims.reacquire(requests, command, record, admitted)
    else:
        outcome = yield from admitted(command)
    return _with_record(outcome, record)


def reschedule(
    requests: RequestBuilder, admission: CallAdmission, office: str, command: Reschedule
) -> Workflow[Outcome] | Request[Outcome]:
    """Reschedule within an office: one command, unless policies or a national limit require more steps.

    Another day asks what a reserve of it asks. Another choice of the same day asks only if a policy decides differently
    about the new choice than about the present one.

    Args:
        requests: the engine's request builder.
        admission: the admission of the call.
        office: the office.
        command: the reschedule.
    """
    if admission.gate is None and not requests.has_national_limit:
        return Apply(office, command)
    return _reschedule(requests, admission, office, command)


def _reschedule(
    requests: RequestBuilder, admission: CallAdmission, office: str, command: Reschedule
) -> Workflow[Outcome]:
    outcome = Outcome(Status.STALE)
    for _ in range(ATTEMPTS_MAX):
        record: Reservation | None = yield Lookup(office, command.id)
        if record is None:
            return Outcome(Status.NOT_FOUND)
        sent, apply_command = command, applied_plainly(office)
        is_asked = admission.gate is not None and _is_asked(admission.gate, admission, record, command)
        if is_asked:
            admitted = admission.admit(Entry(office, command.day, record.applicants, command.choice))
            if isinstance(admitted, Outcome):
                return replace(admitted, reservation=record)
            apply_command = admitted
        elif admission.gate is not None:
            # The policies ask nothing of the reservation as it is now. The command must not find a later version of it.
            known = command.expected_version in (0, record.version)
            sent = replace(command, expected_version=record.version if known else _NO_VERSION)
        outcome = yield from _apply_reschedule(requests, office, sent, record, apply_command)
        if is_asked or command.expected_version or outcome.status is not Status.STALE:
            return _with_record(outcome, record)
    return outcome


def _apply_reschedule(
    requests: RequestBuilder, office: str, command: Reschedule, record: Reservation, apply_command: ApplyCommand
) -> Workflow[Outcome]:
    if requests.has_national_limit:
        return (yield from national_claims.reschedule(requests, command, record, apply_command))
    return (yield from apply_command(command))


def _is_asked(gate: AdmissionGate, admission: CallAdmission, record: Reservation, command: Reschedule) -> bool:
    """Return True if the policies have to admit a reschedule of ``record`` as it is now.

    That is not so if the office refuses the reschedule because of the reservation, or repeats an earlier one.
    """
    is_own = not command.owner or command.owner in record.applicants
    if not is_own or record.state not in (State.HELD, State.CONFIRMED):
        return False
    if command.expected_version not in (0, record.version):
        return False
    if record.day != command.day:
        return True
    if record.choice == command.choice:
        return False
    present = _entry_of(record)
    wanted = present._replace(choice=command.choice)
    return not gate.decides_alike(present, wanted, admission.caller, admission.admission_pass)


def _entry_of(record: Reservation) -> Entry:
    return Entry(record.office, record.day, record.applicants, record.choice)


def _with_record(outcome: Outcome, record: Reservation) -> Outcome:
    """Return the outcome with the reservation that stays as it is, if admission refused to change it."""
    refused = outcome.status in (Status.NOT_ADMITTED, Status.THROTTLED)
    return replace(outcome, reservation=record) if refused else outcome
