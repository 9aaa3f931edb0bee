"""Guarded commands: a command that takes units, with a pass and token buckets, decided in one atomic step.

An office's ledger keeps **admission state** beside the reservations: buckets that are not full, and used passes that
have not expired. :func:`quota_engine.domain.ledger.describe` does not include it. It leaves no events and is forgotten
by time alone. The section on guarded commands in ``docs/rules.md`` states the rules.
"""

from __future__ import annotations

__all__ = [
    "PASS_INDEX",
    "AdmissionPass",
    "EnteringCommand",
    "GuardedCommand",
    "GuardedLedger",
    "GuardedOutcome",
    "apply",
    "describe_admission",
    "takes_new_units",
    "used_pass_name",
]

from typing import Any, Final

import msgspec

from quota_engine.admission.token_bucket import Buckets, Charge, check_charges
from quota_engine.admission.token_bucket import describe as describe_buckets
from quota_engine.domain import state_machine
from quota_engine.domain.commands import Confirm, MoveIn, Reschedule, Reserve
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.guards import is_same_choice
from quota_engine.domain.ledger import Ledger, known_reservation
from quota_engine.domain.lifecycle import State
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.domain.reserve_command import is_repeat
from quota_engine.domain.validation import TIME_MS_MAX, check_integer, check_name

PASS_INDEX: Final = -1
"""Stands for the pass among the indexes of charges."""

EnteringCommand = Reserve | Reschedule | Confirm | MoveIn
"""The commands that can take units which their party does not have: a confirm only with ``reacquire``."""


class AdmissionPass(msgspec.Struct, frozen=True, gc=False):
    """A pass for one reservation. A policy has already checked its applicant, office and days.

    Attributes:
        id: Id of the pass.
        until_ms: Time at which the pass expires, in milliseconds since 1970 (UTC).
        shadow: True in shadow mode: the pass is used up but never causes a refusal.
    """

    id: str
    until_ms: int
    shadow: bool = False


class GuardedCommand(msgspec.Struct, frozen=True, gc=False):
    """A command that is attempted only if its pass is valid and its charges fit. It returns a :class:`GuardedOutcome`.

    An attempt takes the charges even if its outcome is a refusal. A success uses up the pass. A command that takes no
    new units, such as a replay, needs neither; see :func:`takes_new_units`.

    Attributes:
        command: The command.
        charges: The charges, at most 256.
        admission_pass: The pass, if one is required.
    """

    command: EnteringCommand
    charges: tuple[Charge, ...] = ()
    admission_pass: AdmissionPass | None = None

    def check(self) -> None:
        """Validate the command. Like a ``Reserve``, it is not validated when it is created.

        Raises:
            InvalidRequest: A value is out of its range, or the command takes no units.
        """
        if type(self.command) is Reserve:
            self.command.check()  # the other commands have validated themselves
        elif not isinstance(self.command, Reschedule | Confirm | MoveIn):
            raise InvalidRequest("command", f"a {type(self.command).__name__}", "a command that takes units")
        if self.charges:
            check_charges(self.charges)
        if self.admission_pass is not None:
            check_name(self.admission_pass.id, "admission_pass.id")
            check_integer(self.admission_pass.until_ms, "admission_pass.until_ms", 0, TIME_MS_MAX)


class GuardedOutcome(msgspec.Struct, frozen=True, gc=False):
    """Outcome of a guarded command.

    Attributes:
        outcome: Outcome of the command.
        refused_by: Index of the charge that did not fit if the status is ``THROTTLED``, otherwise -1.
        shadow_refusals: Indexes of the charges in shadow mode that did not fit, and :data:`PASS_INDEX` for an invalid
            pass in shadow mode.
    """

    outcome: Outcome
    refused_by: int = -1
    shadow_refusals: tuple[int, ...] = ()

    @property
    def ok(self) -> bool:
        """True if the command succeeded."""
        return self.outcome.ok


class GuardedLedger(Ledger):
    """An office's ledger with its admission state."""

    __slots__ = ("admission",)

    def __init__(self, office: str) -> None:
        super().__init__(office)
        self.admission = Buckets()


_NOT_ADMITTED: Final = GuardedOutcome(Outcome(Status.NOT_ADMITTED))


def used_pass_name(pass_id: str) -> str:
    """Return the name of a used pass among the buckets. No bucket can have such a name."""
    return f"/{pass_id}"


def takes_new_units(ledger: Ledger, command: EnteringCommand, now_ms: int) -> bool:
    """Return True if ``command`` may take units, or a place on a wait list, that its party does not have yet.

    Changes nothing. Replays take none, and neither does a command that its reservation refuses: an unknown one, another
    owner's, one in another state or version.

    Args:
        ledger: The office's ledger.
        command: The command that is about to be applied.
        now_ms: Milliseconds since 1970 (UTC), not before the ledger's last event.
    """
    if isinstance(command, Reserve):
        return not is_repeat(ledger, command, now_ms)
    record = known_reservation(ledger, command.id)
    if isinstance(command, MoveIn):
        return record is None
    if record is None or (command.owner and command.owner not in record.applicants):
        return False
    overdue = record.state is State.HELD and record.deadline_at_ms <= now_ms
    if isinstance(command, Confirm):
        return command.reacquire and (overdue or record.state is State.EXPIRED)
    # An offer may turn an entry of the wait list into a hold in this very step, before the reschedule looks at it.
    if overdue or record.state not in (State.WAITING, State.HELD, State.CONFIRMED):
        return False
    if command.expected_version not in (0, record.version) and record.state is not State.WAITING:
        return False
    guards = ledger.days[record.day].guards
    return record.day != command.day or not is_same_choice(guards, record.choice, command.choice)


def _apply_guarded_command(ledger: Any, guarded: GuardedCommand, now_ms: int) -> GuardedOutcome:
    command, admission_pass = guarded.command, guarded.admission_pass
    admission: Buckets = ledger.admission
    if not takes_new_units(ledger, command, now_ms):
        return GuardedOutcome(state_machine.HANDLERS[type(command)](ledger, command, now_ms))
    admission_ms = max(now_ms, admission.now_ms)
    shadow_refusals: list[int] = []
    pass_name = ""
    pass_valid = False
    if admission_pass is not None:
        pass_name = used_pass_name(admission_pass.id)
        pass_valid = admission_ms < admission_pass.until_ms and not admission.has_marker(pass_name, admission_ms)
        if not pass_valid and not admission_pass.shadow:
            _count_refusal(admission, guarded.charges, admission_ms)
            return _NOT_ADMITTED
        if not pass_valid:
            shadow_refusals.append(PASS_INDEX)
    if guarded.charges:
        enforced = [index for index, charge in enumerate(guarded.charges) if not charge.shadow]
        if enforced:
            taken = admission.take(tuple(guarded.charges[index] for index in enforced), admission_ms)
            if not taken.taken:
                _count_refusal(admission, guarded.charges, admission_ms)
                throttled = Outcome(Status.THROTTLED, retry_at_ms=taken.retry_at_ms)
                return GuardedOutcome(throttled, enforced[taken.refused_by], tuple(shadow_refusals))
        for index, charge in enumerate(guarded.charges):
            if charge.shadow and not admission.take((charge,), admission_ms).taken:
                shadow_refusals.append(index)
    outcome = state_machine.HANDLERS[type(command)](ledger, command, now_ms)
    if admission_pass is not None and pass_valid and outcome.ok and not outcome.replayed:
        admission.put_marker(pass_name, admission_pass.until_ms, admission_ms)
    return GuardedOutcome(outcome, -1, tuple(shadow_refusals))


def _count_refusal(admission: Buckets, charges: tuple[Charge, ...], now_ms: int) -> None:
    """Take each charge that counts refusals, if it fits."""
    for charge in charges:
        if charge.counts_refusals:
            admission.take((charge,), now_ms)


apply: Final = state_machine.make_apply({**state_machine.HANDLERS, GuardedCommand: _apply_guarded_command})
"""Applies any command of an office, including guarded ones; see :func:`quota_engine.domain.state_machine.apply`."""


def describe_admission(ledger: GuardedLedger) -> dict[str, Any]:
    """Return the admission state of a ledger as a dictionary, to compare stores."""
    return describe_buckets(ledger.admission)
