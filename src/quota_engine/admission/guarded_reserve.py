"""A reserve with conditions, decided with it in one step: a pass that it uses up, and buckets that it is charged to.

What stands beside an office's ledger for this is its **gate**: buckets that are not full, and passes that were used and
whose lease is not over. It is no part of what the ledger describes, leaves no events, and forgets by time alone.
``docs/rules.md`` has the rules, in the section on guarded reserves.
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
    """Leave to make one reservation until before ``until_ms``. Whose it is, and where and for which days, has been
    checked before it gets here. A pass ``in_shadow`` refuses nobody, and is used up all the same.
    """

    id: str
    until_ms: int
    shadow: bool = False


class GuardedReserve(msgspec.Struct, frozen=True, gc=False):
    """A reserve that is tried only if its pass is good and its charges fit. The answer is a :class:`Guarded`.

    The charges are taken when the reserve is tried, whatever it comes to; the pass is used up when it makes a
    reservation. Whoever asks for what they have already needs neither.
    """

    reserve: Reserve
    charges: tuple[Charge, ...] = ()
    admission_pass: AdmissionPass | None = None

    def check(self) -> None:
        """Raise :class:`InvalidRequest` unless it is well formed; like a ``Reserve``, it does not do so by itself."""
        self.reserve.check()
        if self.charges:
            check_charges(self.charges)
        if self.admission_pass is not None:
            check_name(self.admission_pass.id, "admission_pass.id")
            check_integer(self.admission_pass.until_ms, "admission_pass.until_ms", 0, TIME_MS_MAX)


class GuardedOutcome(msgspec.Struct, frozen=True, gc=False):
    """What a guarded reserve came to.

    ``refused_by`` is the index of the charge that was too much, if the status is ``THROTTLED``, and else -1.
    ``in_shadow`` are the indexes of the charges in shadow that would have refused it, and :data:`BY_PASS` for the pass.
    """

    outcome: Outcome
    refused_by: int = -1
    shadow_refusals: tuple[int, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the asker has what they asked for."""
        return self.outcome.ok


class GuardedLedger(Ledger):
    """An office's ledger with its gate."""

    __slots__ = ("gate",)

    def __init__(self, office: str) -> None:
        super().__init__(office)
        self.gate = Buckets()


_NOT_ADMITTED: Final = GuardedOutcome(Outcome(Status.NOT_ADMITTED))


def used_pass_name(pass_id: str) -> str:
    """A used pass among the buckets of a gate, under a name that no bucket can have."""
    return f"/{pass_id}"


def _guarded(ledger: Any, command: GuardedReserve, now_ms: int) -> GuardedOutcome:
    reserve, admission_pass = command.reserve, command.admission_pass
    gate: Buckets = ledger.gate
    if state_machine.is_repeat(ledger, reserve, now_ms):
        return GuardedOutcome(state_machine.apply(ledger, reserve, now_ms))
    gate_ms = max(now_ms, gate.now_ms)
    in_shadow: list[int] = []
    usable = False
    if admission_pass is not None:
        member = used_pass_name(admission_pass.id)
        usable = gate_ms < admission_pass.until_ms and not gate.has_marker(member, gate_ms)
        if not usable and not admission_pass.shadow:
            return _NOT_ADMITTED
        if not usable:
            in_shadow.append(PASS_INDEX)
    if command.charges:
        enforced = [index for index, charge in enumerate(command.charges) if not charge.shadow]
        if enforced:
            taking = gate.take(tuple(command.charges[index] for index in enforced), gate_ms)
            if not taking.taken:
                throttled = Outcome(Status.THROTTLED, retry_at_ms=taking.retry_at_ms)
                return GuardedOutcome(throttled, enforced[taking.refused_by], tuple(in_shadow))
        for index, charge in enumerate(command.charges):
            if charge.shadow and not gate.take((charge,), gate_ms).taken:
                in_shadow.append(index)
    outcome = state_machine.apply(ledger, reserve, now_ms)
    if admission_pass is not None and usable and outcome.ok:
        gate.put_marker(member, admission_pass.until_ms, gate_ms)
    return GuardedOutcome(outcome, -1, tuple(in_shadow))


apply: Final = state_machine.make_apply({**state_machine.HANDLERS, GuardedReserve: _guarded})
"""Carries out any command of an office, guarded reserves too: see :func:`quota_engine.domain.state_machine.apply`."""


def describe_admission(ledger: GuardedLedger) -> dict[str, Any]:
    """All that matters of the gate, for comparisons."""
    return describe_buckets(ledger.gate)
