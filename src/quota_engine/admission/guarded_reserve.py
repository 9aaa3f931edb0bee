"""Guarded reserve: a reserve with a pass and token buckets, decided in one atomic step.

An office's ledger keeps **admission state** beside the reservations: buckets that are not full, and used passes that
have not expired. :func:`quota_engine.domain.ledger.describe` does not include it. It leaves no events and is forgotten
by time alone. The section on guarded reserves in ``docs/rules.md`` states the rules.
"""

from __future__ import annotations

__all__ = [
    "PASS_INDEX",
    "AdmissionPass",
    "GuardedLedger",
    "GuardedOutcome",
    "GuardedReserve",
    "apply",
    "describe_admission",
    "used_pass_name",
]

from typing import Any, Final

import msgspec

from quota_engine.admission.token_bucket import Buckets, Charge, check_charges
from quota_engine.admission.token_bucket import describe as describe_buckets
from quota_engine.domain import state_machine
from quota_engine.domain.commands import Reserve
from quota_engine.domain.ledger import Ledger
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.domain.validation import TIME_MS_MAX, check_integer, check_name

PASS_INDEX: Final = -1
"""Stands for the pass among the indexes of charges."""


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


class GuardedReserve(msgspec.Struct, frozen=True, gc=False):
    """A reserve that is attempted only if its pass is valid and its charges fit. It returns a :class:`GuardedOutcome`.

    An attempt takes the charges even if its outcome is a refusal. A reservation that is made uses up the pass. A
    replay of an earlier reserve needs neither.

    Attributes:
        reserve: The reserve.
        charges: The charges, at most 256.
        admission_pass: The pass, if one is required.
    """

    reserve: Reserve
    charges: tuple[Charge, ...] = ()
    admission_pass: AdmissionPass | None = None

    def check(self) -> None:
        """Validate the command. Like a ``Reserve``, it is not validated when it is created.

        Raises:
            InvalidRequest: A value is out of its range.
        """
        self.reserve.check()
        if self.charges:
            check_charges(self.charges)
        if self.admission_pass is not None:
            check_name(self.admission_pass.id, "admission_pass.id")
            check_integer(self.admission_pass.until_ms, "admission_pass.until_ms", 0, TIME_MS_MAX)


class GuardedOutcome(msgspec.Struct, frozen=True, gc=False):
    """Outcome of a guarded reserve.

    Attributes:
        outcome: Outcome of the reserve.
        refused_by: Index of the charge that did not fit if the status is ``THROTTLED``, otherwise -1.
        shadow_refusals: Indexes of the charges in shadow mode that did not fit, and :data:`PASS_INDEX` for an invalid
            pass in shadow mode.
    """

    outcome: Outcome
    refused_by: int = -1
    shadow_refusals: tuple[int, ...] = ()

    @property
    def ok(self) -> bool:
        """True if the reserve succeeded."""
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


def _apply_guarded_reserve(ledger: Any, command: GuardedReserve, now_ms: int) -> GuardedOutcome:
    reserve, admission_pass = command.reserve, command.admission_pass
    admission: Buckets = ledger.admission
    if state_machine.is_repeat(ledger, reserve, now_ms):
        return GuardedOutcome(state_machine.apply(ledger, reserve, now_ms))
    admission_ms = max(now_ms, admission.now_ms)
    shadow_refusals: list[int] = []
    pass_name = ""
    pass_valid = False
    if admission_pass is not None:
        pass_name = used_pass_name(admission_pass.id)
        pass_valid = admission_ms < admission_pass.until_ms and not admission.has_marker(pass_name, admission_ms)
        if not pass_valid and not admission_pass.shadow:
            return _NOT_ADMITTED
        if not pass_valid:
            shadow_refusals.append(PASS_INDEX)
    if command.charges:
        enforced = [index for index, charge in enumerate(command.charges) if not charge.shadow]
        if enforced:
            taken = admission.take(tuple(command.charges[index] for index in enforced), admission_ms)
            if not taken.taken:
                throttled = Outcome(Status.THROTTLED, retry_at_ms=taken.retry_at_ms)
                return GuardedOutcome(throttled, enforced[taken.refused_by], tuple(shadow_refusals))
        for index, charge in enumerate(command.charges):
            if charge.shadow and not admission.take((charge,), admission_ms).taken:
                shadow_refusals.append(index)
    outcome = state_machine.apply(ledger, reserve, now_ms)
    if admission_pass is not None and pass_valid and outcome.ok:
        admission.put_marker(pass_name, admission_pass.until_ms, admission_ms)
    return GuardedOutcome(outcome, -1, tuple(shadow_refusals))


apply: Final = state_machine.make_apply({**state_machine.HANDLERS, GuardedReserve: _apply_guarded_reserve})
"""Applies any command of an office, including guarded reserves; see :func:`quota_engine.domain.state_machine.apply`."""


def describe_admission(ledger: GuardedLedger) -> dict[str, Any]:
    """Return the admission state of a ledger as a dictionary, to compare stores."""
    return describe_buckets(ledger.admission)
