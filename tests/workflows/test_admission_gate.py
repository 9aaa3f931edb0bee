"""Admission of an entry: decisions before the store, and charges that travel with the command."""

from __future__ import annotations

import functools

import pytest

from quota_engine.admission import (
    ADMIT,
    AdmissionPass,
    BucketScope,
    ConstantPolicy,
    LimitKey,
    PassRequiredPolicy,
    Policy,
    PolicyChain,
    ShadowPolicy,
    TokenBucketPolicy,
    deny,
    per_minute,
)
from quota_engine.admission.guarded_command import GuardedCommand
from quota_engine.clocks import ManualClock
from quota_engine.conformance.world import DAY, OFFICE, ONLINE, OPENS_AT_MS, applicant, published, reserve
from quota_engine.domain.errors import BackendUnavailable
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.ports import ApplyMany, Lookup
from quota_engine.stores.memory import MemoryStore
from quota_engine.workflows.admission_gate import AdmissionGate, AdmittedEntry, Entry
from quota_engine.workflows.generator_drivers import Apply, Workflow, run

NO_CALLER = ("", "", "")
ONE_PER_MINUTE = TokenBucketPolicy("all", LimitKey.ALL, per_minute(1))


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore(ManualClock(OPENS_AT_MS))
    store.execute(ApplyMany(OFFICE, published()))
    return store


def gate_of(policy: Policy) -> AdmissionGate:
    return AdmissionGate(policy, None, ManualClock(OPENS_AT_MS))


def entry(name: str) -> Entry:
    return Entry(OFFICE, DAY, (applicant(name),), ONLINE)


def admitted_by(gate: AdmissionGate, key: str, admission_pass: str = "") -> AdmittedEntry:
    admitted = gate.admit(entry(key), NO_CALLER, admission_pass)
    assert isinstance(admitted, AdmittedEntry)
    return admitted


def reserve_with(gate: AdmissionGate, key: str, admission_pass: str = "") -> Workflow[Outcome]:
    return gate.apply(admitted_by(gate, key, admission_pass), reserve(key, ONLINE))


def test_charges_travel_with_the_reserve(store: MemoryStore) -> None:
    gate = gate_of(ONE_PER_MINUTE)
    first = run(reserve_with(gate, "ani"), store)
    second = run(reserve_with(gate, "budi"), store)
    assert first.status is Status.HELD
    assert (second.status, second.reason) == (Status.THROTTLED, "all")
    assert store.execute(Lookup(OFFICE, "budi")) is None


def test_a_reserve_without_charges_is_sent_plainly() -> None:
    workflow = reserve_with(gate_of(ConstantPolicy("open", ADMIT)), "ani")
    assert next(workflow) == Apply(OFFICE, reserve("ani", ONLINE))


def test_a_denied_reserve_never_reaches_the_store() -> None:
    gate = gate_of(ConstantPolicy("closed", deny("maintenance")))
    outcome = gate.admit(entry("ani"), NO_CALLER, "")
    assert isinstance(outcome, Outcome)
    assert (outcome.status, outcome.reason) == (Status.NOT_ADMITTED, "maintenance")


def test_an_error_of_the_store_reaches_the_workflow_around_a_guarded_command() -> None:
    gate = gate_of(ONE_PER_MINUTE)
    apply_command = functools.partial(gate.apply, admitted_by(gate, "ani"))
    caught: list[str] = []

    def reserve_and_look() -> Workflow[Outcome]:
        try:
            return (yield from apply_command(reserve("ani", ONLINE)))
        except BackendUnavailable as error:
            caught.append(str(error))
            yield Lookup(OFFICE, "ani")
            raise

    workflow = reserve_and_look()
    request = next(workflow)
    assert isinstance(request, Apply)
    assert isinstance(request.command, GuardedCommand)
    assert workflow.throw(BackendUnavailable("away")) == Lookup(OFFICE, "ani")
    with pytest.raises(BackendUnavailable):
        workflow.send(None)
    assert caught == ["away"]


@pytest.mark.parametrize(("counts", "refused_by"), [(True, "tries"), (False, "one")])
def test_a_bucket_of_the_process_counts_what_another_bucket_refuses(counts: bool, refused_by: str) -> None:
    tries = TokenBucketPolicy("tries", LimitKey.ALL, per_minute(3), BucketScope.PROCESS, counts_refusals=counts)
    one = TokenBucketPolicy("one", LimitKey.ALL, per_minute(1), BucketScope.PROCESS)
    gate = gate_of(PolicyChain((tries, one)))
    *_, last = [gate.admit(entry(f"a{number}"), NO_CALLER, "") for number in range(5)]
    assert isinstance(last, Outcome)
    assert (last.status, last.reason) == (Status.THROTTLED, refused_by)


@pytest.mark.parametrize("counts", [True, False])
def test_a_bucket_of_the_process_counts_what_a_later_policy_denies(counts: bool) -> None:
    tries = TokenBucketPolicy("tries", LimitKey.ALL, per_minute(3), BucketScope.PROCESS, counts_refusals=counts)
    gate = gate_of(PolicyChain((PolicyChain((tries,), "inner"), ConstantPolicy("closed", deny("closed")))))
    for number in range(2):
        outcome = gate.admit(entry(f"a{number}"), NO_CALLER, "")
        assert isinstance(outcome, Outcome)
        assert outcome.reason == "closed"
    assert len(gate._buckets.not_full()) == counts


def test_a_bucket_of_the_store_counts_what_a_pass_refuses(store: MemoryStore) -> None:
    """Without a pass the store refuses each try, and the bucket counts it: then a good pass does not help either."""
    passes = PassRequiredPolicy("room", lambda text, _: AdmissionPass(text, OPENS_AT_MS + 9), finds_existing=True)
    for counts, last in ((True, Status.THROTTLED), (False, Status.HELD)):
        tries = TokenBucketPolicy("tries", LimitKey.ALL, per_minute(2), counts_refusals=counts)
        gate = gate_of(PolicyChain((tries, passes)))
        for number in range(2):
            assert run(reserve_with(gate, f"x{number}"), store).status is Status.NOT_ADMITTED
        assert run(reserve_with(gate, "ani", "p1"), store).status is last
        store = MemoryStore(ManualClock(OPENS_AT_MS))
        store.execute(ApplyMany(OFFICE, published()))


def test_the_enforced_pass_is_used_up_before_one_in_shadow(store: MemoryStore) -> None:
    policies = (
        ShadowPolicy(PassRequiredPolicy("trial", lambda *_: AdmissionPass("p1", OPENS_AT_MS + 9))),
        PassRequiredPolicy("room", lambda *_: AdmissionPass("p2", OPENS_AT_MS + 9)),
    )
    gate = gate_of(PolicyChain(policies))
    assert run(reserve_with(gate, "ani", "x"), store).status is Status.HELD
    assert run(reserve_with(gate, "budi", "x"), store).status is Status.NOT_ADMITTED
