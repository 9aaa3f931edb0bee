"""Policies in front of an engine's reserve: what callers and observers see, in memory and on a server."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

import pytest

from quota_engine import (
    AsyncQuotaEngine,
    Caller,
    DecisionCounter,
    InvalidRequest,
    Outcome,
    QuotaEngine,
    Status,
    load_catalog,
)
from quota_engine.admission import (
    ADMIT,
    AdmissionPass,
    BucketScope,
    ConstantPolicy,
    DecisionRecord,
    LimitKey,
    PassRequiredPolicy,
    Policy,
    PolicyChain,
    PolicyDecision,
    PolicyRequest,
    PolicyResult,
    ScopedPolicy,
    ShadowPolicy,
    TokenBucketPolicy,
    deny,
    per_day,
    per_minute,
    wait,
)
from quota_engine.catalog import day_terms
from quota_engine.clocks import ManualClock
from quota_engine.ports import Describe
from quota_engine.ports import StoreRequest as StoreRequest
from tests.support.servers import Server, valkey_server_binary

CATALOG = load_catalog("surabaya")
DAY = datetime.date(2026, 12, 7)
KEY = b"a key for tests, and only them"
_terms = day_terms(CATALOG, "surabaya", DAY)
assert _terms is not None
OPENS_AT_MS = _terms.opens_at_ms
NIKS = [f"{3578_0000_0000_0000 + number}" for number in range(50)]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(valkey_server_binary()) as one:
        yield one


@pytest.fixture(params=["memory", "valkey"])
def url(request: pytest.FixtureRequest) -> str:
    """Each store, empty."""
    if request.param == "memory":
        return "memory://"
    server: Server = request.getfixturevalue("server")
    server.ask("FLUSHALL")
    return server.url


def opened(url: str, policy: Policy | None, tally: Any = None) -> tuple[QuotaEngine, ManualClock]:
    clock = ManualClock(OPENS_AT_MS)
    engine = QuotaEngine.open(url, identity_key=KEY, clock=clock, admission=policy, observer=tally)
    engine.publish(CATALOG, DAY, DAY + datetime.timedelta(days=1))
    return engine, clock


def book(engine: QuotaEngine, who: Any, shown: str = "", **more: Any) -> Outcome:
    return engine.reserve("surabaya", DAY, who, service="new", session="morning", **{"admission_pass": shown, **more})


def test_the_store_throttles_an_account(url: str) -> None:
    """Three reserves a minute for an account in any spelling. The outcome names the policy and the time."""
    tally = DecisionCounter()
    engine, clock = opened(url, TokenBucketPolicy("per-account", LimitKey.ACCOUNT, per_minute(3)), tally)
    with engine:
        outcomes = [book(engine, NIKS[one], caller=Caller(account=("Ani", "ani ", "ANI")[one % 3])) for one in range(4)]
        assert [one.status for one in outcomes] == [Status.HELD] * 3 + [Status.THROTTLED]
        assert (outcomes[3].reason, outcomes[3].retry_at_ms) == ("per-account", OPENS_AT_MS + 20_000)
        assert not outcomes[3].ok
        assert book(engine, NIKS[9], caller=Caller(account="budi")).status is Status.HELD
        assert book(engine, NIKS[8]).reason == "no_account"
        clock.advance_ms(20_000)
        assert book(engine, NIKS[3], caller=Caller(account="ani")).status is Status.HELD
        assert engine.audit().ok
    assert tally.counts() == {
        ("chain", "admit", "", True): 5,
        ("per-account", "deny", "no_account", True): 1,
        ("per-account", "wait", "per-account", True): 1,
    }


def test_attempts_of_an_identity_are_limited(url: str) -> None:
    """Each applicant of a party is charged. If one is over the limit, the party is refused and no member is charged."""
    engine, _ = opened(url, TokenBucketPolicy("tries", LimitKey.IDENTITY, per_day(2)))
    with engine:
        for one in range(2):
            held = book(engine, NIKS[0], idempotency_key=f"try{one}")
            assert held.status is Status.HELD
            engine.release(held.reference)
        assert book(engine, [NIKS[0], NIKS[1]], idempotency_key="party").status is Status.THROTTLED
        for one in range(2):
            held = book(engine, NIKS[1], idempotency_key=f"other{one}")
            assert held.status is Status.HELD
            engine.release(held.reference)


def test_a_resumed_hold_costs_no_token(url: str) -> None:
    """A crash, a new login, a double click: the same hold, although the buckets are empty and the pass is used."""
    chain = PolicyChain(
        (
            TokenBucketPolicy("tries", LimitKey.IDENTITY, per_day(1)),
            PassRequiredPolicy("room", lambda *_: AdmissionPass("p1", OPENS_AT_MS + 9)),
        )
    )
    engine, clock = opened(url, chain)
    with engine:
        held = book(engine, NIKS[0], idempotency_key="k1", shown="x")
        again = book(engine, NIKS[0], idempotency_key="k1", shown="x")
        resumed = book(engine, NIKS[0], idempotency_key="k2", shown="x")
        assert (held.status, again.replayed, resumed.resumed) == (Status.HELD, True, True)
        clock.advance_ms(1000)
        assert book(engine, NIKS[0], idempotency_key="k3", shown="x").resumed
        refused = book(engine, NIKS[1], idempotency_key="k4", shown="x")
        assert (refused.status, refused.reason) == (Status.NOT_ADMITTED, "pass_used_or_over")


def test_a_pass_is_good_for_one_reservation(url: str) -> None:
    """A forged pass never reaches the store."""

    def check(text: str, request: PolicyRequest) -> AdmissionPass | PolicyDecision:
        name, _, signature = text.partition(".")
        return AdmissionPass(name, OPENS_AT_MS + 60_000) if signature == "good" else deny("forged")

    engine, clock = opened(url, PassRequiredPolicy("room", check))
    with engine:
        assert book(engine, NIKS[0]).reason == "no_pass"
        assert book(engine, NIKS[0], shown="p1.bad").reason == "forged"
        assert book(engine, NIKS[0], shown="p1.good").status is Status.HELD
        assert book(engine, NIKS[1], shown="p1.good").status is Status.NOT_ADMITTED
        clock.advance_ms(60_000)
        assert book(engine, NIKS[2], shown="p2.good").status is Status.NOT_ADMITTED


def test_a_reservation_is_found_again_without_its_pass(url: str) -> None:
    """By its key, and by the identity after a new login."""
    tally = DecisionCounter()
    policy = PassRequiredPolicy("room", lambda *_: AdmissionPass("p1", OPENS_AT_MS + 9), finds_existing=True)
    engine, _ = opened(url, policy, tally)
    with engine:
        assert book(engine, NIKS[0], idempotency_key="k1", shown="x").status is Status.HELD
        assert book(engine, NIKS[0], idempotency_key="k1").replayed
        assert book(engine, NIKS[0], idempotency_key="k2").resumed
        refused = book(engine, NIKS[1], idempotency_key="k3")
        assert (refused.status, refused.reason) == (Status.NOT_ADMITTED, "no_pass")
        assert engine.lookup("surabaya~k3") is None
    assert tally.counts()["room", "deny", "no_pass", True] == 1


def test_a_policy_in_shadow_counts_and_admits(url: str) -> None:
    tally = DecisionCounter()
    chain = PolicyChain(
        (
            ShadowPolicy(TokenBucketPolicy("accounts", LimitKey.ACCOUNT, per_day(2))),
            ShadowPolicy(PassRequiredPolicy("room", lambda *_: AdmissionPass("p1", OPENS_AT_MS + 9))),
            ShadowPolicy(TokenBucketPolicy("process", LimitKey.ALL, per_day(3), BucketScope.PROCESS)),
            ShadowPolicy(ConstantPolicy("shut", deny("maintenance"))),
        )
    )
    engine, _ = opened(url, chain, tally)
    with engine:
        for one in range(4):
            assert book(engine, NIKS[one], caller=Caller("ani"), shown="x").status is Status.HELD
    assert tally.counts() == {
        ("accounts", "wait", "accounts", False): 2,
        ("chain", "admit", "", True): 4,
        ("process", "wait", "process", False): 1,
        ("room", "deny", "pass_used_or_over", False): 3,
        ("shut", "deny", "maintenance", False): 4,
    }


def test_buckets_of_the_process_are_charged_before_the_store(url: str) -> None:
    """All enforced buckets are charged, or none."""
    chain = PolicyChain(
        (
            TokenBucketPolicy("all", LimitKey.ALL, per_minute(2), BucketScope.PROCESS),
            TokenBucketPolicy("network", LimitKey.NETWORK, per_minute(1), BucketScope.PROCESS),
            TokenBucketPolicy("store", LimitKey.NETWORK, per_day(9)),
        )
    )
    tally = DecisionCounter()
    engine, clock = opened(url, chain, tally)
    sent: list[object] = []
    apply = engine._store.apply

    def counted(address: str, command: Any, *, ends_at_ms: float | None = None) -> Any:
        sent.append(command)
        return apply(address, command, ends_at_ms=ends_at_ms)

    engine._store.apply = counted  # type: ignore[method-assign]
    with engine:
        here, there = Caller(network="203.0.113.7"), Caller(network="198.51.100.7")
        assert book(engine, NIKS[0], caller=here).status is Status.HELD
        refused = book(engine, NIKS[1], caller=here)
        assert (refused.status, refused.reason, refused.retry_at_ms) == (
            Status.THROTTLED,
            "network",
            OPENS_AT_MS + 60_000,
        )
        assert book(engine, NIKS[1], caller=there).status is Status.HELD  # the refusal above took nothing from "all"
        assert book(engine, NIKS[2], caller=Caller(network="192.0.2.7")).reason == "all"
        assert len(sent) == 2
        clock.advance_ms(60_000)
        assert book(engine, NIKS[2], caller=here).status is Status.HELD
    assert tally.counts()[("network", "wait", "network", True)] == 1


def test_per_office_and_release(url: str) -> None:
    """A policy for another release is not asked."""
    tomorrow = (DAY + datetime.timedelta(days=1)).toordinal()
    engine, _ = opened(url, ScopedPolicy(ConstantPolicy("shut", wait("later", 5000)), days=(tomorrow, tomorrow)))
    with engine:
        assert book(engine, NIKS[0]).status is Status.HELD
        refused = engine.reserve("surabaya", tomorrow, NIKS[1], service="new", session="morning")
        assert (refused.status, refused.reason, refused.retry_at_ms) == (Status.THROTTLED, "later", OPENS_AT_MS + 5000)


class _FirstMinute:
    """Denies reserves in the first minute after a day opens."""

    name = "first-minute"

    def decide(self, request: PolicyRequest) -> PolicyResult:
        since_ms = request.now_ms - request.opens_at_ms
        return PolicyResult(ADMIT if since_ms >= 60_000 else deny("first_minute"))


def test_policies_know_when_the_day_opens(url: str) -> None:
    """The catalog says when; 0 for a day off, so that the store refuses the unknown day."""
    engine, clock = opened(url, _FirstMinute())
    with engine:
        assert book(engine, NIKS[0]).reason == "first_minute"
        clock.advance_ms(60_000)
        assert book(engine, NIKS[0]).status is Status.HELD
        sunday = DAY - datetime.timedelta(days=1)
        off = engine.reserve("surabaya", sunday, NIKS[1], service="new", session="morning")
        assert off.status is Status.UNKNOWN_DAY


def test_an_outage_of_a_policy_lets_nobody_through(url: str) -> None:
    """It fails closed, also if the policy stands alone."""

    class Broken:
        name = "broken"

        def decide(self, request: PolicyRequest) -> PolicyResult:
            raise OSError("no connection")

    engine, _ = opened(url, Broken())
    with engine:
        refused = book(engine, NIKS[0])
        assert (refused.status, refused.reason, refused.retry_at_ms) == (
            Status.THROTTLED,
            "outage",
            OPENS_AT_MS + 1000,
        )


def test_no_identity_reaches_policies_observers_or_the_store(url: str, server: Server) -> None:
    """A policy sees keyed hashes, an observer words, and the store names of buckets."""
    seen: list[object] = []

    class Nosy:
        name = "nosy"

        def decide(self, request: PolicyRequest) -> PolicyResult:
            seen.append(request)
            return PolicyResult()

        def on_decision(self, office: str, record: DecisionRecord) -> None:
            seen.append((office, record))

    nosy = Nosy()
    chain = PolicyChain((nosy, *(TokenBucketPolicy(f"by-{by}", by, per_day(1)) for by in LimitKey)))
    engine, _ = opened(url, chain, nosy)
    with engine:
        account = "ani's account\u2028{}:'; DROP"
        for _ in range(2):
            book(engine, NIKS[0], caller=Caller("ani@example.org", "203.0.113.7", "device-7"))
        with pytest.raises(InvalidRequest) as caught:
            book(engine, NIKS[1], caller=Caller(account))
        assert account not in str(caught.value)
        state = repr(engine._store.execute(Describe("surabaya")))
    if url != "memory://":
        keys = [key for key in server.ask("KEYS", "*") if key.endswith(":gate")]
        state += repr([server.ask("ZRANGE", key, 0, -1) for key in keys])
        assert "by-" not in state
    for secret in (NIKS[0], "ani@example.org", "203.0.113", "device-7"):
        assert secret not in repr(seen)
        assert secret not in state


def test_a_failing_observer_is_logged_and_the_reserve_continues(url: str, caplog: pytest.LogCaptureFixture) -> None:
    class Failing:
        def on_decision(self, office: str, record: DecisionRecord) -> None:
            raise ValueError("not my day")

    engine, _ = opened(url, ConstantPolicy("all", PolicyDecision(wait("x", 1).kind.ADMIT)), Failing())
    with engine:
        assert book(engine, NIKS[0]).status is Status.HELD
    assert "the observer failed" in caplog.text


def test_invalid_passes_and_callers_are_rejected(url: str) -> None:
    """An engine without policies rejects a pass, and ignores a caller."""
    engine, _ = opened(url, None)
    with engine:
        with pytest.raises(InvalidRequest, match="admission_pass"):
            book(engine, NIKS[0], shown="x")
        assert book(engine, NIKS[0], caller=Caller("ani")).status is Status.HELD
    two = PolicyChain(
        tuple(
            PassRequiredPolicy(f"r{one}", lambda *_, one=one: AdmissionPass(f"p{one}", OPENS_AT_MS + 9))
            for one in range(2)
        )
    )
    engine, _ = opened(url, two)
    with engine:
        for problem in (
            {"admission_pass": 7},
            {"admission_pass": "x" * 5000},
            {"caller": "ani"},
            {"admission_pass": "x"},
        ):
            with pytest.raises(InvalidRequest):
                book(engine, NIKS[1], **problem)


async def test_the_async_engine_uses_the_same_gate(url: str) -> None:
    clock = ManualClock(OPENS_AT_MS)
    chain = PolicyChain(
        (
            TokenBucketPolicy("accounts", LimitKey.ACCOUNT, per_minute(2)),
            PassRequiredPolicy("room", lambda text, _: AdmissionPass(text, OPENS_AT_MS + 9)),
        )
    )
    async with await AsyncQuotaEngine.open(url, identity_key=KEY, clock=clock, admission=chain) as engine:
        await engine.publish(CATALOG, DAY)
        statuses = []
        for one, text in enumerate(("p1", "p1", "p2", "p3")):
            outcome = await engine.reserve(
                "surabaya", DAY, NIKS[one], service="new", session="morning", caller=Caller("ani"), admission_pass=text
            )
            statuses.append(outcome.status)
        assert statuses == [Status.HELD, Status.NOT_ADMITTED, Status.HELD, Status.THROTTLED]
    shown: Any = {"admission_pass": "x"}
    async with await AsyncQuotaEngine.open(url, identity_key=KEY, clock=clock, catalog=CATALOG) as engine:
        with pytest.raises(InvalidRequest, match="admission_pass"):
            await engine.reserve("surabaya", DAY, NIKS[0], service="new", session="morning", **shown)


def test_the_decision_counter_is_bounded() -> None:
    tally = DecisionCounter()
    for one in range(10_050):
        tally.on_decision("surabaya", DecisionRecord("p", deny(f"r{one}")))
    counts = tally.counts()
    assert len(counts) == 10_001
    assert counts["", "", "other", True] == 50
