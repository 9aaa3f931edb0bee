"""The door: what an engine asks its policies before it sends a reserve, and what it makes of the store's answer."""

from __future__ import annotations

__all__ = ["Door", "shut"]

import logging
import threading
from typing import Final, NamedTuple

from msgspec.structs import replace

from quota_engine.admission.chain import Chain
from quota_engine.admission.guarded_reserve import BY_PASS, Guarded, GuardedReserve
from quota_engine.admission.policy import (
    ADMIT,
    Decision,
    Finding,
    Judgement,
    Need,
    PassNeed,
    Policy,
    Request,
    Verdict,
    Where,
    deny,
    wait,
)
from quota_engine.admission.token_bucket import Buckets, check_charges
from quota_engine.domain.commands import Reserve
from quota_engine.domain.errors import InvalidRequest, QuotaEngineError
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.domain.validation import DURATION_MS_MAX
from quota_engine.ports import Clock, Observer, Send
from quota_engine.workflows.generator_drivers import Flow

PROCESS_KEYS_MAX: Final = 100_000
"""Buckets in this process that are not full; a caller who would need another one is told to wait."""

_log = logging.getLogger("quota_engine.admission")


def shut(admission_pass: str) -> None:
    """See that nobody brings a pass to an engine that would not look at it. Raises :class:`InvalidRequest`."""
    if admission_pass:
        raise InvalidRequest("admission_pass", "given, but no policy looks at it", "open(..., admission=...)")


class Entry(NamedTuple):
    """A reserve that may be sent, and what its policies wanted for it."""

    office: str
    command: Reserve | GuardedReserve
    needs: tuple[Need, ...]
    pass_need: PassNeed | None


class Door:
    """Asks the policies. It holds the buckets that are kept in this process, and is safe to share between threads."""

    def __init__(self, policy: Policy, observer: Observer | None, clock: Clock) -> None:
        self._chain = policy if isinstance(policy, Chain) else Chain((policy,))
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
        flow: Flow[Outcome] | None = None,
    ) -> Flow[Outcome]:
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
        answer = yield Send(office, entry.command)
        return self._conclude(entry, answer) if isinstance(answer, Guarded) else answer

    def _guarding(self, entry: Entry, flow: Flow[Outcome]) -> Flow[Outcome]:
        """Run a flow, and let its reserves be guarded ones, which it does not notice."""
        guarded = entry.command
        try:
            request = next(flow)
            while True:
                if isinstance(request, Send) and type(request.command) is Reserve and type(guarded) is GuardedReserve:
                    request = Send(request.place, replace(guarded, reserve=request.command))
                try:
                    answer = yield request
                except QuotaEngineError as error:
                    request = flow.throw(error)
                else:
                    request = flow.send(self._conclude(entry, answer) if isinstance(answer, Guarded) else answer)
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
        request = Request(
            office, reserve.day, reserve.applicants, reserve.choice, account, network, device, admission_pass, now_ms
        )
        judged = self._chain.judge(request)
        for finding in judged.findings:
            self._tell(office, finding)
        if not judged.verdict.admits:
            return _refusal(judged.verdict, now_ms)
        refusal = self._charge_here(office, judged, now_ms)
        if refusal is not None:
            return refusal
        needs = tuple(need for need in judged.needs if need.where is Where.STORE)
        pass_need = _only_pass(judged.pass_needs)
        if not needs and pass_need is None:
            self._tell(office, Finding(self._chain.name, ADMIT))
            return Entry(office, reserve, (), None)
        charges = tuple(need.charge for need in needs)
        if charges:
            check_charges(charges)
        used_up = pass_need.admission_pass if pass_need is not None else None
        return Entry(office, GuardedReserve(reserve, charges, used_up), needs, pass_need)

    def _conclude(self, entry: Entry, answer: Guarded) -> Outcome:
        """The outcome for the caller, of the store's answer to a guarded reserve; the observer is told of it."""
        for index in answer.in_shadow:
            self._tell(entry.office, replace(self._finding(entry, index, answer), enforced=False))
        outcome = answer.outcome
        if outcome.status is Status.NOT_ADMITTED:
            finding = self._finding(entry, BY_PASS, answer)
        elif outcome.status is Status.THROTTLED:
            finding = self._finding(entry, answer.refused_by, answer)
        else:
            self._tell(entry.office, Finding(self._chain.name, ADMIT))
            return outcome
        self._tell(entry.office, finding)
        return replace(outcome, reason=finding.verdict.reason)

    def _finding(self, entry: Entry, index: int, answer: Guarded) -> Finding:
        """Whose charge (or pass) it was that refused, and what it said."""
        if index == BY_PASS:
            assert entry.pass_need is not None
            return Finding(entry.pass_need.policy, deny(entry.pass_need.reason))
        policy = entry.needs[index].policy
        return Finding(policy, wait(policy, _from_now(answer.outcome.retry_at_ms, self._now_ms())))

    def _charge_here(self, office: str, judged: Judgement, now_ms: int) -> Outcome | None:
        """Charge the buckets of this process: all that count, or none; then those in shadow, each for itself."""
        needs = [need for need in judged.needs if need.where is Where.PROCESS]
        if not needs:
            return None
        enforced = [need for need in needs if not need.charge.in_shadow]
        charges = tuple(need.charge for need in enforced)
        if charges:
            check_charges(charges)
        with self._lock:
            taking = self._buckets.take(charges, now_ms) if charges else None
            tried: list[tuple[Need, int]] = []
            if taking is None or taking.taken:
                for need in needs:
                    if need.charge.in_shadow:
                        answer = self._buckets.take((need.charge,), now_ms)
                        if not answer.taken:
                            tried.append((need, answer.retry_at_ms))
        for need, retry_at_ms in tried:
            self._tell(office, Finding(need.policy, wait(need.policy, _from_now(retry_at_ms, now_ms)), enforced=False))
        if taking is None or taking.taken:
            return None
        policy = enforced[taking.refused_by].policy
        verdict = wait(policy, _from_now(taking.retry_at_ms, now_ms))
        self._tell(office, Finding(policy, verdict))
        return Outcome(Status.THROTTLED, retry_at_ms=taking.retry_at_ms, reason=policy)

    def _tell(self, office: str, finding: Finding) -> None:
        if self._observer is None:
            return
        try:
            self._observer.on_verdict(office, finding)
        except Exception:  # whoever looks on must not stop a reserve
            _log.exception("the observer failed")


def _refusal(verdict: Verdict, now_ms: int) -> Outcome:
    if verdict.decision is Decision.WAIT:
        return Outcome(Status.THROTTLED, retry_at_ms=now_ms + verdict.retry_after_ms, reason=verdict.reason)
    return Outcome(Status.NOT_ADMITTED, reason=verdict.reason)


def _from_now(at_ms: int, now_ms: int) -> int:
    return min(max(0, at_ms - now_ms), DURATION_MS_MAX)


def _only_pass(pass_needs: tuple[PassNeed, ...]) -> PassNeed | None:
    """The pass to use up: one that counts, rather than one in shadow."""
    counting = [need for need in pass_needs if not need.admission_pass.in_shadow]
    if len({need.admission_pass.id for need in counting}) > 1:
        raise InvalidRequest("admission", "two policies want a pass of their own", "one pass for one reserve")
    return next(iter(counting or pass_needs), None)
