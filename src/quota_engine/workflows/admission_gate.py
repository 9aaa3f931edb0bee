"""Admission of entries: the decisions of an engine's policies, before the store and in the store's response."""

from __future__ import annotations

__all__ = [
    "AdmissionGate",
    "AdmittedEntry",
    "ApplyCommand",
    "CallAdmission",
    "Entry",
    "applied_plainly",
    "reject_unused_pass",
]

import functools
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Self

from msgspec.structs import replace

from quota_engine.admission.chain import PolicyChain, decides_alike
from quota_engine.admission.guarded_command import PASS_INDEX, EnteringCommand, GuardedCommand, GuardedOutcome
from quota_engine.admission.policy import (
    ADMIT,
    BucketScope,
    Caller,
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
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.model import Choice
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.domain.validation import DURATION_MS_MAX
from quota_engine.forks import call_in_child
from quota_engine.ports import Clock, Observer
from quota_engine.workflows.generator_drivers import Apply, Workflow
from quota_engine.workflows.request_builder import RequestBuilder

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


class Entry(NamedTuple):
    """Places that a command is about to take, with the arguments of a reserve of them."""

    office: str
    day: int
    applicants: tuple[str, ...]
    choice: Choice


class AdmittedEntry(NamedTuple):
    """Requirements that the store checks together with the command of an admitted entry."""

    office: str
    charges: tuple[ChargeRequirement, ...] = ()
    admission_pass: PassRequirement | None = None

    @property
    def is_guarded(self) -> bool:
        """True if the store has something to check."""
        return bool(self.charges) or self.admission_pass is not None


ApplyCommand = Callable[[Any], Workflow[Outcome]]
"""Applies the command of an entry to its office: plainly, or with the requirements of the policies."""


def applied_plainly(office: str) -> ApplyCommand:
    """Return the function that applies a command to ``office`` and requires nothing."""

    def apply_command(command: Any) -> Workflow[Outcome]:
        outcome: Outcome = yield Apply(office, command)
        return outcome

    return apply_command


class AdmissionGate:
    """Decides with the policies of an engine who may take a place. Safe to share between threads.

    It keeps the token buckets whose scope is this process.
    """

    def __init__(
        self,
        policy: Policy,
        observer: Observer | None,
        clock: Clock,
        opens_at_ms: Callable[[str, int], int] = lambda _office, _day: 0,
    ) -> None:
        """
        Args:
            policy: a policy, or a chain of them.
            observer: is notified of every decision; ``None`` for none.
            clock: the time of the decisions.
            opens_at_ms: returns when a day of an office opens, in milliseconds since 1970 (UTC).
        """
        self._chain = policy if isinstance(policy, PolicyChain) else PolicyChain((policy,))
        self._observer = observer
        self._now_ms = clock.now_ms
        self._opens_at_ms = opens_at_ms
        self._buckets = Buckets(PROCESS_KEYS_MAX)
        self._lock = threading.Lock()
        call_in_child(self._after_fork)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()

    def admit(self, entry: Entry, caller: tuple[str, str, str], admission_pass: str) -> AdmittedEntry | Outcome:
        """Decide about an entry without the store.

        Args:
            entry: the places that the command is about to take.
            caller: keyed hashes of account, network and device, or ``""`` for an unknown one.
            admission_pass: the caller's pass, or ``""``.

        Returns:
            The requirements to apply the command with (:meth:`apply`), or the outcome that refuses it.

        Raises:
            InvalidRequest: the pass is not a text of at most 4,096 characters, or the policies require more than one
                command can do.
        """
        now_ms = self._now_ms()
        office = entry.office
        result = self._chain.decide(self._request(entry, caller, admission_pass, now_ms))
        for record in result.records:
            self._notify(office, record)
        if not result.decision.admits:
            self._count_refusal(result.charge_requirements, now_ms)
            return _refusal(result.decision, now_ms)
        refusal = self._charge_process(office, result, now_ms)
        if refusal is not None:
            return refusal
        charges = tuple(one for one in result.charge_requirements if one.scope is BucketScope.STORE)
        if charges:
            check_charges(tuple(one.charge for one in charges))
        admitted = AdmittedEntry(office, charges, _single_pass(result.pass_requirements))
        if not admitted.is_guarded:
            self._notify(office, DecisionRecord(self._chain.name, ADMIT))
        return admitted

    def decides_alike(self, one: Entry, other: Entry, caller: tuple[str, str, str], admission_pass: str) -> bool:
        """Return True if each policy decides the same about both entries. Nothing is charged or recorded."""
        now_ms = self._now_ms()
        return decides_alike(
            self._chain,
            self._request(one, caller, admission_pass, now_ms),
            self._request(other, caller, admission_pass, now_ms),
        )

    def apply(self, admitted: AdmittedEntry, command: EnteringCommand) -> Workflow[Outcome]:
        """Apply the command of an admitted entry, with the charges and the pass that its policies require.

        Args:
            admitted: the result of :meth:`admit`.
            command: the command; a workflow may have set its ``valid_until_ms`` since.
        """
        office, charges, admission_pass = admitted
        if not admitted.is_guarded:
            plain: Outcome = yield Apply(office, command)
            return plain
        guarded = GuardedCommand(
            command,
            tuple(one.charge for one in charges),
            None if admission_pass is None else admission_pass.admission_pass,
        )
        answer: GuardedOutcome | Outcome = yield Apply(office, guarded)
        # A store whose queue is full answers OVERLOADED without looking at the charges.
        return self._conclude(admitted, answer) if isinstance(answer, GuardedOutcome) else answer

    def _request(self, entry: Entry, caller: tuple[str, str, str], admission_pass: str, now_ms: int) -> PolicyRequest:
        if type(admission_pass) is not str or len(admission_pass) > PASS_LENGTH_MAX:
            raise InvalidRequest("admission_pass", "not a usable pass", "the text that the caller was given")
        return PolicyRequest(*entry, *caller, admission_pass, now_ms, self._opens_at_ms(entry.office, entry.day))

    def _conclude(self, admitted: AdmittedEntry, answer: GuardedOutcome) -> Outcome:
        """Return the caller's outcome of a guarded command, and notify the observer of the decision."""
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

    def _record(self, admitted: AdmittedEntry, index: int, answer: GuardedOutcome) -> DecisionRecord:
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
        self._count_refusal(requirements, now_ms)
        policy = enforced[taken.refused_by].policy
        self._notify(office, DecisionRecord(policy, wait(policy, _wait_ms(taken.retry_at_ms, now_ms))))
        return Outcome(Status.THROTTLED, retry_at_ms=taken.retry_at_ms, reason=policy)

    def _count_refusal(self, requirements: Sequence[ChargeRequirement], now_ms: int) -> None:
        """Take each charge of this process that counts refusals, if it fits."""
        counting = [one.charge for one in requirements if one.charge.counts_refusals]
        if counting:
            with self._lock:
                for charge in counting:
                    self._buckets.take((charge,), now_ms)

    def _notify(self, office: str, record: DecisionRecord) -> None:
        if self._observer is None:
            return
        try:
            self._observer.on_decision(office, record)
        except Exception:  # an observer must not stop a call
            _log.exception("the observer failed")


class CallAdmission(NamedTuple):
    """The admission of one call: the engine's policies, and the facts that the caller gave them.

    Args:
        gate: the engine's policies; ``None`` if it has none.
        caller: keyed hashes of account, network and device, or ``""`` for an unknown one.
        admission_pass: the caller's pass, or ``""``.
    """

    gate: AdmissionGate | None
    caller: tuple[str, str, str]
    admission_pass: str

    @classmethod
    def of(
        cls, requests: RequestBuilder, gate: AdmissionGate | None, caller: Caller | None, admission_pass: str
    ) -> Self:
        """Return the admission of a call with these arguments.

        Raises:
            InvalidRequest: a pass without policies, or a caller that no policy can read.
        """
        if gate is None:
            reject_unused_pass(admission_pass)
            return cls(None, ("", "", ""), "")
        return cls(gate, requests.caller_hashes(caller), admission_pass)

    def admit(self, entry: Entry) -> ApplyCommand | Outcome:
        """Decide about an entry. Return the function that applies its command, or the outcome that refuses it."""
        if self.gate is None:
            return applied_plainly(entry.office)
        admitted = self.gate.admit(entry, self.caller, self.admission_pass)
        return admitted if isinstance(admitted, Outcome) else functools.partial(self.gate.apply, admitted)


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
