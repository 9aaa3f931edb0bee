"""Admission of reserves: the decisions of an engine's policies, before the store and in the store's response."""

from __future__ import annotations

__all__ = ["AdmissionGate", "AdmittedReserve", "reject_unused_pass"]

import logging
import threading
from typing import Final, NamedTuple

from msgspec.structs import replace

from quota_engine.admission.chain import PolicyChain
from quota_engine.admission.guarded_reserve import PASS_INDEX, GuardedOutcome, GuardedReserve
from quota_engine.admission.policy import (
    ADMIT,
    BucketScope,
    ChargeRequirement,
    DecisionKind,
    DecisionRecord,
    PassRequirement,
    Policy,
    PolicyDecision,
    PolicyRequest,
    PolicyResult,
    deny,
    wait,
)
from quota_engine.admission.token_bucket import Buckets, check_charges
from quota_engine.domain.commands import Reserve
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.domain.validation import DURATION_MS_MAX
from quota_engine.forks import call_in_child
from quota_engine.ports import Clock, Observer
from quota_engine.workflows.generator_drivers import Apply, Workflow

PROCESS_KEYS_MAX: Final = 100_000
"""Buckets of this process that are not full. A caller who needs another bucket has to wait."""

PASS_LENGTH_MAX: Final = 4096

_log = logging.getLogger("quota_engine.admission")


def reject_unused_pass(admission_pass: str) -> None:
    """Reject ``admission_pass`` when no policy is configured.

    Raises:
        InvalidRequest: ``admission_pass`` is not empty.
    """
    if admission_pass:
        raise InvalidRequest("admission_pass", "given, but no policy looks at it", "open(..., admission=...)")


class AdmittedReserve(NamedTuple):
    """Requirements that the store checks together with an admitted reserve."""

    office: str
    charges: tuple[ChargeRequirement, ...] = ()
    admission_pass: PassRequirement | None = None

    @property
    def is_guarded(self) -> bool:
        """True if the store has something to check."""
        return bool(self.charges) or self.admission_pass is not None


class AdmissionGate:
    """Decides with the policies of an engine who may reserve. Safe to share between threads.

    It keeps the token buckets whose scope is this process.
    """

    def __init__(self, policy: Policy, observer: Observer | None, clock: Clock) -> None:
        self._chain = policy if isinstance(policy, PolicyChain) else PolicyChain((policy,))
        self._observer = observer
        self._now_ms = clock.now_ms
        self._buckets = Buckets(PROCESS_KEYS_MAX)
        self._lock = threading.Lock()
        call_in_child(self._after_fork)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()

    def admit(
        self, office: str, reserve: Reserve, caller: tuple[str, str, str], admission_pass: str
    ) -> AdmittedReserve | Outcome:
        """Decide about a reserve without the store.

        Args:
            office: the office of the reserve.
            reserve: the command.
            caller: keyed hashes of account, network and device, or ``""`` for an unknown one.
            admission_pass: the caller's pass, or ``""``.

        Returns:
            The requirements to apply it with (:meth:`apply`), or the outcome that refuses it.

        Raises:
            InvalidRequest: the pass is not a text of at most 4,096 characters, or the policies require more than one
                command can do.
        """
        if type(admission_pass) is not str or len(admission_pass) > PASS_LENGTH_MAX:
            raise InvalidRequest("admission_pass", "not a usable pass", "the text that the caller was given")
        now_ms = self._now_ms()
        account, network, device = caller
        request = PolicyRequest(
            office, reserve.day, reserve.applicants, reserve.choice, account, network, device, admission_pass, now_ms
        )
        result = self._chain.decide(request)
        for record in result.records:
            self._notify(office, record)
        if not result.decision.admits:
            return _refusal(result.decision, now_ms)
        refusal = self._charge_process(office, result, now_ms)
        if refusal is not None:
            return refusal
        charges = tuple(one for one in result.charge_requirements if one.scope is BucketScope.STORE)
        if charges:
            check_charges(tuple(one.charge for one in charges))
        admitted = AdmittedReserve(office, charges, _single_pass(result.pass_requirements))
        if not admitted.is_guarded:
            self._notify(office, DecisionRecord(self._chain.name, ADMIT))
        return admitted

    def apply(self, admitted: AdmittedReserve, reserve: Reserve) -> Workflow[Outcome]:
        """Apply an admitted reserve, with the charges and the pass that its policies require.

        Args:
            admitted: the result of :meth:`admit`.
            reserve: the command; a workflow may have set its ``valid_until_ms`` since.
        """
        office, charges, admission_pass = admitted
        if not admitted.is_guarded:
            plain: Outcome = yield Apply(office, reserve)
            return plain
        guarded = GuardedReserve(
            reserve,
            tuple(one.charge for one in charges),
            None if admission_pass is None else admission_pass.admission_pass,
        )
        answer: GuardedOutcome | Outcome = yield Apply(office, guarded)
        # A store whose queue is full answers OVERLOADED without looking at the charges.
        return self._conclude(admitted, answer) if isinstance(answer, GuardedOutcome) else answer

    def _conclude(self, admitted: AdmittedReserve, answer: GuardedOutcome) -> Outcome:
        """Return the caller's outcome of a guarded reserve, and notify the observer of the decision."""
        for index in answer.shadow_refusals:
            self._notify(admitted.office, replace(self._record(admitted, index, answer), enforced=False))
        outcome = answer.outcome
        if outcome.status is Status.NOT_ADMITTED:
            record = self._record(admitted, PASS_INDEX, answer)
        elif outcome.status is Status.THROTTLED:
            record = self._record(admitted, answer.refused_by, answer)
        else:
            self._notify(admitted.office, DecisionRecord(self._chain.name, ADMIT))
            return outcome
        self._notify(admitted.office, record)
        return replace(outcome, reason=record.decision.reason)

    def _record(self, admitted: AdmittedReserve, index: int, answer: GuardedOutcome) -> DecisionRecord:
        """Return the decision of the policy whose charge (by index) or pass (``PASS_INDEX``) refused."""
        if index == PASS_INDEX:
            assert admitted.admission_pass is not None
            return DecisionRecord(admitted.admission_pass.policy, deny(admitted.admission_pass.reason))
        policy = admitted.charges[index].policy
        return DecisionRecord(policy, wait(policy, _wait_ms(answer.outcome.retry_at_ms, self._now_ms())))

    def _charge_process(self, office: str, result: PolicyResult, now_ms: int) -> Outcome | None:
        """Charge the buckets of this process: all enforced ones or none, then each one in shadow by itself."""
        requirements = [one for one in result.charge_requirements if one.scope is BucketScope.PROCESS]
        if not requirements:
            return None
        enforced = [one for one in requirements if not one.charge.shadow]
        charges = tuple(one.charge for one in enforced)
        if charges:
            check_charges(charges)
        with self._lock:
            taken = self._buckets.take(charges, now_ms) if charges else None
            refused_in_shadow: list[tuple[ChargeRequirement, int]] = []
            if taken is None or taken.taken:
                for requirement in requirements:
                    if requirement.charge.shadow:
                        answer = self._buckets.take((requirement.charge,), now_ms)
                        if not answer.taken:
                            refused_in_shadow.append((requirement, answer.retry_at_ms))
        for requirement, retry_at_ms in refused_in_shadow:
            decision = wait(requirement.policy, _wait_ms(retry_at_ms, now_ms))
            self._notify(office, DecisionRecord(requirement.policy, decision, enforced=False))
        if taken is None or taken.taken:
            return None
        policy = enforced[taken.refused_by].policy
        self._notify(office, DecisionRecord(policy, wait(policy, _wait_ms(taken.retry_at_ms, now_ms))))
        return Outcome(Status.THROTTLED, retry_at_ms=taken.retry_at_ms, reason=policy)

    def _notify(self, office: str, record: DecisionRecord) -> None:
        if self._observer is None:
            return
        try:
            self._observer.on_decision(office, record)
        except Exception:  # an observer must not stop a reserve
            _log.exception("the observer failed")


def _refusal(decision: PolicyDecision, now_ms: int) -> Outcome:
    if decision.kind is DecisionKind.WAIT:
        return Outcome(Status.THROTTLED, retry_at_ms=now_ms + decision.retry_after_ms, reason=decision.reason)
    return Outcome(Status.NOT_ADMITTED, reason=decision.reason)


def _wait_ms(at_ms: int, now_ms: int) -> int:
    return min(max(0, at_ms - now_ms), DURATION_MS_MAX)


def _single_pass(requirements: tuple[PassRequirement, ...]) -> PassRequirement | None:
    """Return the pass to use up: an enforced one before one in shadow."""
    enforced = [one for one in requirements if not one.admission_pass.shadow]
    if len({one.admission_pass.id for one in enforced}) > 1:
        raise InvalidRequest("admission", "two policies want a pass of their own", "one pass for one reserve")
    return next(iter(enforced or requirements), None)
