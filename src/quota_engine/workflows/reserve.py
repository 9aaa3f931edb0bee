"""The path of a reserve: admission, then the national claims, then the office."""

from __future__ import annotations

__all__ = ["reserve"]

import functools

from quota_engine.admission.policy import Caller
from quota_engine.domain.commands import Reserve
from quota_engine.domain.outcomes import Outcome
from quota_engine.generators import Request
from quota_engine.workflows import national_claims
from quota_engine.workflows.admission_gate import AdmissionGate, reject_unused_pass
from quota_engine.workflows.generator_drivers import Apply, Workflow
from quota_engine.workflows.request_builder import RequestBuilder


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
    if gate is not None:
        return _admit_and_reserve(requests, gate, office, command, requests.caller_hashes(caller), admission_pass)
    reject_unused_pass(admission_pass)
    if requests.has_national_limit:
        return national_claims.reserve(requests, office, command)
    return Apply(office, command)


def _admit_and_reserve(
    requests: RequestBuilder,
    gate: AdmissionGate,
    office: str,
    command: Reserve,
    caller: tuple[str, str, str],
    admission_pass: str,
) -> Workflow[Outcome]:
    admitted = gate.admit(office, command, caller, admission_pass)
    if isinstance(admitted, Outcome):
        return admitted
    apply_reserve = functools.partial(gate.apply, admitted)
    if requests.has_national_limit:
        return (yield from national_claims.reserve(requests, office, command, apply_reserve))
    return (yield from apply_reserve(command))
