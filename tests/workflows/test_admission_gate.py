"""The door around a reserve of several steps, and around one."""

from __future__ import annotations

from typing import Any

import pytest

from quota_engine.admission import (
    ADMIT,
    AdmissionPass,
    ConstantPolicy,
    LimitKey,
    PassRequiredPolicy,
    Policy,
    PolicyChain,
    TokenBucketPolicy,
    deny,
    per_minute,
)
from quota_engine.admission.guarded_reserve import GuardedReserve
from quota_engine.clocks import ManualClock
from quota_engine.conformance.world import OFFICE, ONLINE, OPENS_AT_MS, published, reserve
from quota_engine.domain.errors import BackendUnavailable
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.ports import Apply, ApplyMany, Lookup
from quota_engine.stores.memory import MemoryStore
from quota_engine.workflows.admission_gate import AdmissionGate
from quota_engine.workflows.generator_drivers import Workflow, run

NOBODY = ("", "", "")
LIMITED = TokenBucketPolicy("all", LimitKey.ALL, per_minute(1))


@pytest.fixture
def backend() -> MemoryStore:
    backend = MemoryStore(ManualClock(OPENS_AT_MS))
    backend.execute(ApplyMany(OFFICE, published()))
    return backend


def door(policy: Policy) -> AdmissionGate:
    return AdmissionGate(policy, None, ManualClock(OPENS_AT_MS))


def in_steps(key: str, told: list[Any]) -> Workflow[Outcome]:
    """Look first, then reserve, then look again: three steps, of which one is to be guarded."""
    told.append((yield Lookup(OFFICE, key)))
    outcome: Outcome = yield Apply(OFFICE, reserve(key, ONLINE))
    told.append(outcome)
    told.append((yield Lookup(OFFICE, key)))
    return outcome


def test_the_guards_go_with_the_reserve(backend: MemoryStore) -> None:
    """A flow of several steps notices nothing: it gets an outcome, and may clean up after a refusal."""
    guarded = door(LIMITED)
    told: list[Any] = []
    first = run(guarded.reserve(OFFICE, reserve("ani", ONLINE), NOBODY, "", in_steps("ani", told)), backend)
    assert (first.status, told) == (Status.HELD, [None, first, first.reservation])
    told.clear()
    second = run(guarded.reserve(OFFICE, reserve("budi", ONLINE), NOBODY, "", in_steps("budi", told)), backend)
    assert (second.status, second.reason, told) == (Status.THROTTLED, "all", [None, second, None])


def test_without_guards_the_flow_goes_as_it_is(backend: MemoryStore) -> None:
    """If the policies want nothing of the store, a plain reserve is sent."""
    flow = door(ConstantPolicy("open", ADMIT)).reserve(OFFICE, reserve("ani", ONLINE), NOBODY, "", in_steps("ani", []))
    next(flow)
    assert flow.send(None) == Apply(OFFICE, reserve("ani", ONLINE))
    plain = door(ConstantPolicy("open", ADMIT)).reserve(OFFICE, reserve("ani", ONLINE), NOBODY, "")
    assert run(plain, backend).status is Status.HELD


def test_a_flow_that_is_not_admitted_never_starts(backend: MemoryStore) -> None:
    """What is turned away here costs no step at all."""
    told: list[Any] = []
    shut = door(ConstantPolicy("shut", deny("maintenance")))
    outcome = run(shut.reserve(OFFICE, reserve("ani", ONLINE), NOBODY, "", in_steps("ani", told)), backend)
    assert (outcome.status, told) == (Status.NOT_ADMITTED, [])


def test_errors_reach_the_flow() -> None:
    """A store that is away is the flow's to deal with, guarded or not."""
    caught: list[str] = []

    def careful() -> Workflow[Outcome]:
        try:
            outcome: Outcome = yield Apply(OFFICE, reserve("ani", ONLINE))
        except BackendUnavailable as error:
            caught.append(str(error))
            yield Lookup(OFFICE, "ani")
            raise
        return outcome

    flow = door(LIMITED).reserve(OFFICE, reserve("ani", ONLINE), NOBODY, "", careful())
    request = next(flow)
    assert isinstance(request, Apply)
    assert isinstance(request.command, GuardedReserve)
    assert flow.throw(BackendUnavailable("away")) == Lookup(OFFICE, "ani")
    with pytest.raises(BackendUnavailable):
        flow.send(None)
    assert caught == ["away"]


def test_one_pass_for_a_reserve(backend: MemoryStore) -> None:
    """Of a pass that counts and one in shadow, the one that counts is used up."""
    from quota_engine.admission import ShadowPolicy

    policies = (
        ShadowPolicy(PassRequiredPolicy("trial", lambda *_: AdmissionPass("p1", OPENS_AT_MS + 9))),
        PassRequiredPolicy("room", lambda *_: AdmissionPass("p2", OPENS_AT_MS + 9)),
    )
    guarded = door(PolicyChain(policies))
    assert run(guarded.reserve(OFFICE, reserve("ani", ONLINE), NOBODY, "x"), backend).status is Status.HELD
    assert run(guarded.reserve(OFFICE, reserve("budi", ONLINE), NOBODY, "x"), backend).status is Status.NOT_ADMITTED
