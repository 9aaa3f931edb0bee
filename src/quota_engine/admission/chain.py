"""Policies in a row: the first that does not admit decides."""

from __future__ import annotations

__all__ = ["PolicyChain"]

from typing import Final

import msgspec

from quota_engine.admission.policy import (
    ChargeRequirement,
    DecisionRecord,
    PassRequirement,
    Policy,
    PolicyDecision,
    PolicyRequest,
    PolicyResult,
    ScopedPolicy,
    ShadowPolicy,
    wait,
)
from quota_engine.admission.token_bucket import CHARGES_MAX
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.validation import check_name

POLICIES_MAX: Final = 64


class PolicyChain(msgspec.Struct, frozen=True):
    """Ask ``policies`` in order. The first that does not admit decides; what those before it wanted to charge or to use
    up is then left alone. If all admit, everything they want is decided in one step. A chain is a policy, too.

    ``outage`` is the verdict if a policy fails: by default nobody gets through, and may try again after a second.
    ``ADMIT`` in its place lets everybody through while it lasts; the policies behind it are still asked. (An
    :class:`InvalidRequest` is no failure of the policy: it is about the call, and the caller's to hear.)

    Raises:
        InvalidRequest: none or too many policies, or two of one name, whose buckets would be the same.
    """

    policies: tuple[Policy, ...]
    name: str = "chain"
    on_failure: PolicyDecision = wait("outage", 1000)

    def __post_init__(self) -> None:
        check_name(self.name, "policy.name")
        names = _names(self)
        if not 1 <= len(self.policies) <= POLICIES_MAX:
            raise InvalidRequest("policies", f"{len(self.policies)} policies", f"1 to {POLICIES_MAX}")
        if len(set(names)) != len(names):
            raise InvalidRequest("policies", "two of one name", "names that are unique")

    def decide(self, request: PolicyRequest) -> PolicyResult:
        """See :meth:`quota_engine.admission.policy.Policy.judge`."""
        findings: list[DecisionRecord] = []
        needs: list[ChargeRequirement] = []
        pass_needs: list[PassRequirement] = []
        for policy in self.policies:
            try:
                judged = policy.decide(request)
            except InvalidRequest:
                raise  # the call is wrong, not the policy
            except Exception:
                judged = PolicyResult(self.on_failure, records=(DecisionRecord(policy.name, self.on_failure),))
            findings += judged.records
            if not judged.decision.admits:
                if not any(finding.enforced for finding in judged.records):
                    findings.append(DecisionRecord(policy.name, judged.decision))
                return PolicyResult(judged.decision, records=tuple(findings))
            needs += judged.charge_requirements
            pass_needs += judged.pass_requirements
        if len(needs) > CHARGES_MAX:
            raise InvalidRequest(
                "applicants", f"{len(needs)} buckets to charge", f"at most {CHARGES_MAX}: fewer policies"
            )
        return PolicyResult(
            charge_requirements=tuple(needs), pass_requirements=tuple(pass_needs), records=tuple(findings)
        )


def _names(policy: Policy) -> list[str]:
    """The names of all policies in it that may have buckets."""
    if isinstance(policy, PolicyChain):
        return [name for one in policy.policies for name in _names(one)]
    if isinstance(policy, ScopedPolicy | ShadowPolicy):
        return _names(policy.policy)
    return [policy.name]
