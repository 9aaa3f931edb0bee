"""Chain of policies: the first that does not admit decides."""

from __future__ import annotations

__all__ = ["PolicyChain", "decides_alike"]

from typing import Final

import msgspec

from quota_engine.admission.policy import (
    BucketScope,
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
    """Policies that are evaluated in order. A chain is a policy itself.

    The first policy that does not admit decides, and the requirements of those before it are dropped. Only charges of
    the process that count refusals stay. If all admit, the store decides all their requirements in one step.

    Attributes:
        policies: The policies (1 to 64).
        name: Name of the chain, for decision records.
        on_failure: Decision if a policy raises an exception. By default the chain fails closed: the caller has to wait
            a second. ``ADMIT`` skips the failed policy; the policies after it still apply. An
            :class:`InvalidRequest` is a fault of the call, and is raised.

    Raises:
        InvalidRequest: There are no or too many policies, or two have the same name and would share buckets.
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
            raise InvalidRequest("policies", "two policies of the same name", "unique names")

    def decide(self, request: PolicyRequest) -> PolicyResult:
        """Decide on a request; see :meth:`quota_engine.admission.policy.Policy.decide`.

        Raises:
            InvalidRequest: A policy rejects the call, or the policies charge more than 256 buckets.
        """
        records: list[DecisionRecord] = []
        charge_requirements: list[ChargeRequirement] = []
        pass_requirements: list[PassRequirement] = []
        for policy in self.policies:
            try:
                result = policy.decide(request)
            except InvalidRequest:
                raise  # the call is invalid; the policy works
            except Exception:
                result = PolicyResult(self.on_failure, records=(DecisionRecord(policy.name, self.on_failure),))
            records += result.records
            if not result.decision.admits:
                if not any(record.enforced for record in result.records):
                    records.append(DecisionRecord(policy.name, result.decision))
                counting = tuple(
                    one
                    for one in (*charge_requirements, *result.charge_requirements)
                    if one.charge.counts_refusals and one.scope is BucketScope.PROCESS
                )
                return PolicyResult(result.decision, charge_requirements=counting, records=tuple(records))
            charge_requirements += result.charge_requirements
            pass_requirements += result.pass_requirements
        if len(charge_requirements) > CHARGES_MAX:
            raise InvalidRequest(
                "applicants",
                f"{len(charge_requirements)} buckets to charge",
                f"at most {CHARGES_MAX}: use a smaller party or fewer policies",
            )
        return PolicyResult(
            charge_requirements=tuple(charge_requirements),
            pass_requirements=tuple(pass_requirements),
            records=tuple(records),
        )


def decides_alike(policy: Policy, one: PolicyRequest, other: PolicyRequest) -> bool:
    """Return True if a policy, and each policy in it, decides the same about both requests.

    A chain's result hides the policies behind the first that does not admit, so the members are compared one by one. A
    policy that raises an exception decides nothing, so the answer is False.

    Args:
        policy: The policy. A policy of another kind that combines others is compared by its results.
        one: A request.
        other: Another request.
    """
    if isinstance(policy, PolicyChain):
        return all(decides_alike(member, one, other) for member in policy.policies)
    if isinstance(policy, ScopedPolicy):
        if policy.matches(one) != policy.matches(other):
            return False
        return not policy.matches(one) or decides_alike(policy.policy, one, other)
    if isinstance(policy, ShadowPolicy):
        return decides_alike(policy.policy, one, other)
    try:
        return policy.decide(one) == policy.decide(other)
    except Exception:
        return False


def _names(policy: Policy) -> list[str]:
    """Return the names of all policies in a policy that can have buckets."""
    if isinstance(policy, PolicyChain):
        return [name for member in policy.policies for name in _names(member)]
    if isinstance(policy, ScopedPolicy | ShadowPolicy):
        return _names(policy.policy)
    return [policy.name]
