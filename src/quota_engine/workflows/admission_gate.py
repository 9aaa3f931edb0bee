"""The door: what an engine asks its policies before it sends a reserve, and what it makes of the store's answer."""

from __future__ import annotations

__all__ = ["AdmissionGate", "reject_unused_pass"]

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
from quota_engine.domain.errors import InvalidRequest, QuotaEngineError
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.domain.validation import DURATION_MS_MAX
from quota_engine.ports import Apply, Clock, Observer
from quota_engine.workflows.generator_drivers import Workflow

PROCESS_KEYS_MAX: Final = 100_000
"""Buckets in this process that are not full; a caller who would need another one is told to wait."""

_log = logging.getLogger("quota_engine.admission")


def reject_unused_pass(admission_pass: str) -> None:
    """See that nobody brings a pass to an engine that would not look at it. Raises :class:`InvalidRequest`."""
    if admission_pass:
        raise InvalidRequest("admission_pass", "given, but no policy looks at it", "open(..., admission=...)")


class Entry(NamedTuple):
    """A reserve that may be sent, and what its policies wanted for it."""

    office: str
    command: Reserve | GuardedReserve
    needs: tuple[ChargeRequirement, ...]
    pass_need: PassRequirement | None


class AdmissionGate:
    """Asks the policies. It holds the buckets that are kept in this process, and is safe to share between threads."""

    def __init__(self, policy: Policy, observer: Observer | None, clock: Clock) -> None:
        self._chain = policy if isinstance(policy, PolicyChain) else PolicyChain((policy,))
        self._observer = observer
        self._now_ms = clock.now_ms
        self._buckets = Buckets(PROCESS_KEYS_MAX)
        self._lock = threading.Lock()

    def reserve(
        self,
        office: str,
        reserve: Reserve,
        caller: tuple[str, str, str],
        admission_pass: str,
        flow: Workflow[Outcome] | None = None,
    ) -> Workflow[Outcome]:
        """Reserve, if the policies admit it.

        Args:
            office, reserve: what is asked for.
            caller: the keyed hashes of :class:`Caller`, or ``""``.
            admission_pass: what the caller brought.
            flow: what reserves, where that takes more than one step; the guards go with the ``Reserve`` that it sends.

        Raises:
            InvalidRequest: the pass is no text, or the policies want more than one step can do.
        """
        entry = self._judge(office, reserve, caller, admission_pass)
        if isinstance(entry, Outcome):
            return entry
        if flow is not None:
            return (yield from self._guarding(entry, flow))
        answer = yield Apply(office, entry.command)
        return self._conclude(entry, answer) if isinstance(answer, GuardedOutcome) else answer

    def _guarding(self, entry: Entry, flow: Workflow[Outcome]) -> Workflow[Outcome]:
        """Run a flow, and let its reserves be guarded ones, which it does not notice."""
        guarded = entry.command
        try:
            request = next(flow)
            while True:
                if isinstance(request, Apply) and type(request.command) is Reserve and type(guarded) is GuardedReserve:
                    request = Apply(request.address, replace(guarded, reserve=request.command))
                try:
                    answer = yield request
                except QuotaEngineError as error:
                    request = flow.throw(error)
                else:
                    request = flow.send(self._conclude(entry, answer) if isinstance(answer, GuardedOutcome) else answer)
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome
        finally:
            flow.close()

    def _judge(
        self, office: str, reserve: Reserve, caller: tuple[str, str, str], admission_pass: str
    ) -> Entry | Outcome:
        """What to send, or the outcome if the reserve is turned away here."""
        if type(admission_pass) is not str or len(admission_pass) > 4096:
            raise InvalidRequest("admission_pass", "not a usable pass", "the text that the caller was given")
        now_ms = self._now_ms()
        account, network, device = caller
        request = PolicyRequest(
            office, reserve.day, reserve.applicants, reserve.choice, account, network, device, admission_pass, now_ms
        )
        judged = self._chain.decide(request)
        for finding in judged.records:
            self._tell(office, finding)
        if not judged.decision.admits:
            return _refusal(judged.decision, now_ms)
        refusal = self._charge_here(office, judged, now_ms)
        if refusal is not None:
            return refusal
        needs = tuple(need for need in judged.charge_requirements if need.scope is BucketScope.STORE)
        pass_need = _only_pass(judged.pass_requirements)
        if not needs and pass_need is None:
            self._tell(office, DecisionRecord(self._chain.name, ADMIT))
            return Entry(office, reserve, (), None)
        charges = tuple(need.charge for need in needs)
        if charges:
            check_charges(charges)
        used_up = pass_need.admission_pass if pass_need is not None else None
        return Entry(office, GuardedReserve(reserve, charges, used_up), needs, pass_need)

    def _conclude(self, entry: Entry, answer: GuardedOutcome) -> Outcome:
        """The outcome for the caller, of the store's answer to a guarded reserve; the observer is told of it."""
        for index in answer.shadow_refusals:
            self._tell(entry.office, replace(self._finding(entry, index, answer), enforced=False))
        outcome = answer.outcome
        if outcome.status is Status.NOT_ADMITTED:
            finding = self._finding(entry, PASS_INDEX, answer)
        elif outcome.status is Status.THROTTLED:
            finding = self._finding(entry, answer.refused_by, answer)
        else:
            self._tell(entry.office, DecisionRecord(self._chain.name, ADMIT))
            return outcome
        self._tell(entry.office, finding)
        return replace(outcome, reason=finding.decision.reason)

    def _finding(self, entry: Entry, index: int, answer: GuardedOutcome) -> DecisionRecord:
        """Whose charge (or pass) it was that refused, and what it said."""
        if index == PASS_INDEX:
            assert entry.pass_need is not None
            return DecisionRecord(entry.pass_need.policy, deny(entry.pass_need.reason))
        policy = entry.needs[index].policy
        return DecisionRecord(policy, wait(policy, _from_now(answer.outcome.retry_at_ms, self._now_ms())))

    def _charge_here(self, office: str, judged: PolicyResult, now_ms: int) -> Outcome | None:
        """Charge the buckets of this process: all that count, or none; then those in shadow, each for itself."""
        needs = [need for need in judged.charge_requirements if need.scope is BucketScope.PROCESS]
        if not needs:
            return None
        enforced = [need for need in needs if not need.charge.shadow]
        charges = tuple(need.charge for need in enforced)
        if charges:
            check_charges(charges)
        with self._lock:
            taking = self._buckets.take(charges, now_ms) if charges else None
            tried: list[tuple[ChargeRequirement, int]] = []
            if taking is None or taking.taken:
                for need in needs:
                    if need.charge.shadow:
                        answer = self._buckets.take((need.charge,), now_ms)
                        if not answer.taken:
                            tried.append((need, answer.retry_at_ms))
        for need, retry_at_ms in tried:
            self._tell(
                office, DecisionRecord(need.policy, wait(need.policy, _from_now(retry_at_ms, now_ms)), enforced=False)
            )
        if taking is None or taking.taken:
            return None
        policy = enforced[taking.refused_by].policy
        verdict = wait(policy, _from_now(taking.retry_at_ms, now_ms))
        self._tell(office, DecisionRecord(policy, verdict))
        return Outcome(Status.THROTTLED, retry_at_ms=taking.retry_at_ms, reason=policy)

    def _tell(self, office: str, finding: DecisionRecord) -> None:
        if self._observer is None:
            return
        try:
            self._observer.on_decision(office, finding)
        except Exception:  # whoever looks on must not stop a reserve
            _log.exception("the observer failed")


def _refusal(verdict: PolicyDecision, now_ms: int) -> Outcome:
    if verdict.kind is DecisionKind.WAIT:
        return Outcome(Status.THROTTLED, retry_at_ms=now_ms + verdict.retry_after_ms, reason=verdict.reason)
    return Outcome(Status.NOT_ADMITTED, reason=verdict.reason)


def _from_now(at_ms: int, now_ms: int) -> int:
    return min(max(0, at_ms - now_ms), DURATION_MS_MAX)


def _only_pass(pass_needs: tuple[PassRequirement, ...]) -> PassRequirement | None:
    """The pass to use up: one that counts, rather than one in shadow."""
    counting = [need for need in pass_needs if not need.admission_pass.shadow]
    if len({need.admission_pass.id for need in counting}) > 1:
        raise InvalidRequest("admission", "two policies want a pass of their own", "one pass for one reserve")
    return next(iter(counting or pass_needs), None)
