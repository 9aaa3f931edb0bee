"""Policies and chains as pure functions of a request."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quota_engine.admission import (
    ADMIT,
    AdmissionPass,
    BucketScope,
    Caller,
    ConstantPolicy,
    DecisionKind,
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
    room_pass,
    wait,
)
from quota_engine.admission.policy import bucket_name, network_prefix
from quota_engine.admission.tickets import RoomTickets, TicketKeys
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.model import Choice
from quota_engine.domain.validation import is_name

CHOICE = Choice("new", "", "morning", "online", "", (("online",),))
REQUEST = PolicyRequest("surabaya", 740_000, ("a" * 32, "b" * 32), CHOICE, "c" * 32, "d" * 32, "e" * 32, "", 1000)


class FailingPolicy:
    """A policy that raises an exception."""

    name = "broken"

    def decide(self, request: PolicyRequest) -> PolicyResult:
        raise OSError("no connection")


def changed(**fields: Any) -> PolicyRequest:
    return msgspec.structs.replace(REQUEST, **fields)


def showing(text: str) -> PolicyRequest:
    return changed(admission_pass=text)


def names(judged: PolicyResult) -> list[str]:
    return [need.policy for need in judged.charge_requirements]


def test_first_policy_that_does_not_admit_decides() -> None:
    """Requirements of earlier policies are dropped, and later policies are not evaluated."""
    asked: list[str] = []

    class Asked:
        name = "asked"

        def decide(self, request: PolicyRequest) -> PolicyResult:
            asked.append(request.office)
            return PolicyResult()

    limit = TokenBucketPolicy("limit", LimitKey.ACCOUNT, per_minute(1))
    full = PolicyChain((limit, ConstantPolicy("shut", deny("maintenance")), Asked()))
    judged = full.decide(REQUEST)
    assert (judged.decision, judged.charge_requirements, asked) == (deny("maintenance"), (), [])
    assert judged.records == (DecisionRecord("shut", deny("maintenance")),)
    assert PolicyChain((limit, Asked())).decide(REQUEST).decision == ADMIT
    assert asked == ["surabaya"]


def test_chains_nest() -> None:
    """The requirements of all policies are merged, and each decision is recorded once."""
    inner = PolicyChain(
        (
            TokenBucketPolicy("a", LimitKey.ACCOUNT, per_minute(1)),
            TokenBucketPolicy("n", LimitKey.NETWORK, per_minute(1)),
        ),
        "inner",
    )
    outer = PolicyChain(
        (
            TokenBucketPolicy("i", LimitKey.IDENTITY, per_day(1)),
            inner,
            TokenBucketPolicy("d", LimitKey.DEVICE, per_day(1)),
        ),
        "outer",
    )
    assert names(outer.decide(REQUEST)) == ["i", "i", "a", "n", "d"]
    refusing = PolicyChain((PolicyChain((ConstantPolicy("x", wait("busy", 5)),), "inner"),), "outer")
    assert refusing.decide(REQUEST).records == (DecisionRecord("x", wait("busy", 5)),)


@pytest.mark.parametrize(
    ("scope", "matches"),
    [
        ({}, True),
        ({"offices": frozenset({"surabaya"})}, True),
        ({"offices": frozenset({"batam"})}, False),
        ({"services": frozenset({"new"})}, True),
        ({"services": frozenset({"renewal"})}, False),
        ({"channels": frozenset({"online", "kiosk"})}, True),
        ({"channels": frozenset({"kiosk"})}, False),
        ({"groups": frozenset({"priority"})}, False),
        ({"days": (739_999, 740_000)}, True),
        ({"days": (740_001, 740_009)}, False),
        ({"offices": frozenset({"surabaya"}), "days": (1, 2)}, False),
    ],
)
def test_scoped_policy_applies_to_matching_requests_only(scope: dict[str, Any], matches: bool) -> None:
    policy = ScopedPolicy(ConstantPolicy("shut", deny("no")), **scope)
    assert policy.name == "shut"
    assert policy.decide(REQUEST).decision == (deny("no") if matches else ADMIT)


@pytest.mark.parametrize("by", [LimitKey.ACCOUNT, LimitKey.NETWORK, LimitKey.DEVICE])
def test_each_value_of_a_key_has_its_bucket(by: LimitKey) -> None:
    policy = TokenBucketPolicy("x", by, per_day(5))
    here, there = (policy.decide(request) for request in (REQUEST, changed(**{by.value: "f" * 32})))
    assert here.charge_requirements[0].charge.name != there.charge_requirements[0].charge.name


def test_each_key_has_its_bucket() -> None:
    """A party costs one token, or one for each applicant with ``per_applicant``."""
    assert len(TokenBucketPolicy("i", LimitKey.IDENTITY, per_day(1)).decide(REQUEST).charge_requirements) == 2
    for by in (LimitKey.ACCOUNT, LimitKey.NETWORK, LimitKey.DEVICE, LimitKey.ALL):
        (need,) = TokenBucketPolicy("x", by, per_day(5)).decide(REQUEST).charge_requirements
        assert (need.charge.cost, need.scope) == (1, BucketScope.STORE)
        (need,) = (
            TokenBucketPolicy("x", by, per_day(5), BucketScope.PROCESS, per_applicant=True)
            .decide(REQUEST)
            .charge_requirements
        )
        assert (need.charge.cost, need.scope) == (2, BucketScope.PROCESS)
    charges = [
        need.charge.name
        for by in LimitKey
        for need in TokenBucketPolicy("x", by, per_day(5)).decide(REQUEST).charge_requirements
    ] + [
        need.charge.name
        for need in TokenBucketPolicy("y", LimitKey.ALL, per_day(5)).decide(REQUEST).charge_requirements
    ]
    assert len(set(charges)) == len(charges)


def test_missing_key_is_denied_unless_optional() -> None:
    unknown = changed(account="")
    assert TokenBucketPolicy("a", LimitKey.ACCOUNT, per_day(1)).decide(unknown).decision == deny("no_account")
    assert TokenBucketPolicy("a", LimitKey.ACCOUNT, per_day(1), optional=True).decide(unknown) == PolicyResult()


def test_party_larger_than_the_burst_is_denied() -> None:
    """A ``WAIT`` would never end."""
    judged = TokenBucketPolicy("x" * 64, LimitKey.ACCOUNT, per_day(1), per_applicant=True).decide(REQUEST)
    assert (judged.decision.kind, judged.decision.reason) == (DecisionKind.DENY, "x" * 48 + "-party_too_large")


def test_pass_is_required_and_checked() -> None:

    def check(text: str, request: PolicyRequest) -> AdmissionPass | PolicyDecision:
        return AdmissionPass("p1", 5000) if text == f"for-{request.office}" else deny("forged")

    policy = PassRequiredPolicy("room", check)
    assert policy.decide(REQUEST).decision == deny("no_pass")
    assert policy.decide(showing("for-batam")).decision == deny("forged")
    (need,) = policy.decide(showing("for-surabaya")).pass_requirements
    assert (need.policy, need.admission_pass) == ("room", AdmissionPass("p1", 5000))


def test_room_pass_is_bound_to_applicant_office_and_days() -> None:
    """Every fault has the reason ``bad_pass``."""
    keys = TicketKeys("k1", {"k1": b"a secret of thirty-two bytes or so"})
    tickets = RoomTickets(keys, "opening", "0" * 64, "k1")
    text = tickets.admission_pass(7, 1, REQUEST.applicants[1], "surabaya", 739_999, 740_001, 5000)
    policy = room_pass(keys)
    (need,) = policy.decide(showing(text)).pass_requirements
    assert (need.policy, need.admission_pass.until_ms) == ("room", 5000)
    assert policy.decide(showing(text)).pass_requirements == (need,)
    for altered in (
        changed(admission_pass=text, office="batam"),
        changed(admission_pass=text, day=740_002),
        changed(admission_pass=text, applicants=("f" * 32,)),
        showing(text[:-1] + ("A" if text[-1] != "A" else "B")),
        showing("x"),
    ):
        assert policy.decide(altered) == PolicyResult(deny("bad_pass"))


def test_failing_policy_fails_closed_by_default() -> None:
    limit = TokenBucketPolicy("limit", LimitKey.ACCOUNT, per_minute(1))
    closed = PolicyChain((FailingPolicy(), limit)).decide(REQUEST)
    assert (closed.decision, closed.charge_requirements) == (wait("outage", 1000), ())
    assert closed.records == (DecisionRecord("broken", wait("outage", 1000)),)
    opened = PolicyChain((FailingPolicy(), limit), on_failure=ADMIT).decide(REQUEST)
    assert (opened.decision, names(opened)) == (ADMIT, ["limit"])
    assert opened.records == (DecisionRecord("broken", ADMIT),)
    denied = PolicyChain((FailingPolicy(),), on_failure=deny("outage"))
    assert denied.decide(REQUEST).decision == deny("outage")


def test_shadow_policy_records_decisions_and_failures() -> None:
    """Charges and passes are marked as shadow."""
    judged = PolicyChain((ShadowPolicy(ConstantPolicy("shut", deny("no"))), ShadowPolicy(FailingPolicy()))).decide(
        REQUEST
    )
    assert judged.decision == ADMIT
    assert judged.records == (
        DecisionRecord("shut", deny("no"), enforced=False),
        DecisionRecord("broken", deny("outage"), enforced=False),
    )
    inner = PolicyChain(
        (
            TokenBucketPolicy("a", LimitKey.ACCOUNT, per_minute(1)),
            PassRequiredPolicy("room", lambda *_: AdmissionPass("p", 5000)),
        ),
        "inner",
    )
    judged = ShadowPolicy(inner).decide(showing("x"))
    assert all(need.charge.shadow for need in judged.charge_requirements)
    assert [need.admission_pass.shadow for need in judged.pass_requirements] == [True]
    refusing = ShadowPolicy(PolicyChain((ConstantPolicy("x", deny("no")),), "inner")).decide(REQUEST)
    assert (refusing.decision, refusing.records) == (ADMIT, (DecisionRecord("x", deny("no"), enforced=False),))


@pytest.mark.parametrize(
    "policies",
    [
        (),
        tuple(ConstantPolicy(f"p{one}", ADMIT) for one in range(65)),
        (ConstantPolicy("a", ADMIT), ShadowPolicy(ConstantPolicy("a", ADMIT))),
        (ConstantPolicy("a", ADMIT), PolicyChain((ScopedPolicy(ConstantPolicy("a", ADMIT)),), "inner")),
    ],
    ids=["none", "too-many", "twice", "twice-inside"],
)
def test_invalid_chains_are_rejected(policies: tuple[Policy, ...]) -> None:
    """Two policies of the same name would share buckets. An empty chain would admit every caller."""
    with pytest.raises(InvalidRequest):
        PolicyChain(policies)


def test_too_many_charges_are_rejected() -> None:
    """A party of a hundred with three identity limits exceeds the charges of one step."""
    many = changed(applicants=tuple(f"a{one}" for one in range(100)))
    three = PolicyChain(tuple(TokenBucketPolicy(f"i{one}", LimitKey.IDENTITY, per_day(1)) for one in range(3)))
    with pytest.raises(InvalidRequest, match="fewer policies"):
        three.decide(many)
    with pytest.raises(InvalidRequest, match="fewer policies"):
        PolicyChain((three,), "outer").decide(many)


@pytest.mark.parametrize("reason", ["", "a b", "3578012345678901 is blocked", "x" * 65, None])
def test_reason_must_be_a_name(reason: Any) -> None:
    with pytest.raises(InvalidRequest):
        deny(reason)


@pytest.mark.parametrize(
    "make", [lambda: TokenBucketPolicy("a b", LimitKey.ALL, per_day(1)), lambda: ConstantPolicy("", ADMIT)]
)
def test_policy_name_must_be_a_name(make: Any) -> None:
    with pytest.raises(InvalidRequest):
        make()


# --- Keys that callers can write in more than one way -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("203.0.113.7", "203.0.113.200"),
        ("203.0.113.7", "::ffff:203.0.113.7"),
        ("203.0.113.0/24", "203.0.113.7"),
        ("2001:db8::1", "2001:DB8:0:0:ffff::2"),
        ("fe80::1%eth0", "fe80::2"),
        ("198.51.100.9/22", "198.51.100.0/22"),
    ],
)
def test_spellings_of_a_network_share_a_bucket(one: str, other: str) -> None:
    assert network_prefix(one) == network_prefix(other)


@pytest.mark.parametrize("value", ["", "unknown", "203.0.113", "203.0.113.7, 10.0.0.1", "1.2.3.4/33", "::1/a"])
def test_invalid_network_is_rejected(value: str) -> None:
    """Such as a list of proxies, which is an error of the calling service."""
    with pytest.raises(InvalidRequest, match=r"caller\.network"):
        network_prefix(value)


@pytest.mark.parametrize(("one", "other"), [("Ani", "ani"), (" ani ", "ani"), ("ａｎｉ", "ani"), ("STRASSE", "straße")])
def test_spellings_of_an_account_share_a_bucket(one: str, other: str) -> None:
    """Otherwise capitals, spaces and wide letters would avoid the limit."""
    assert Caller(account=one).canonical() == Caller(account=other).canonical()
    assert Caller(device=one).canonical() == Caller(device=other).canonical()


@pytest.mark.parametrize("value", ["\x00", "a\nb", " ", "x" * 257, 7, b"ani", "\ud800"])
def test_unusable_keys_are_rejected_and_not_shown(value: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"caller\.account") as caught:
        Caller(account=value).canonical()
    assert str(value) not in str(caught.value) or value in (7, " ")


def test_bucket_names_do_not_change() -> None:
    """A later version finds the buckets of an earlier one."""
    assert bucket_name("reserve", LimitKey.ACCOUNT, "a1") == "AYtZLu_BNkVIQDl6ofznZQ"


@pytest.mark.slow
@given(policy=st.from_regex(r"[a-z]{1,8}", fullmatch=True), value=st.text(max_size=40))
def test_bucket_names_have_one_length_and_alphabet(policy: str, value: str) -> None:
    name = bucket_name(policy, LimitKey.ACCOUNT, value.encode("utf-8", "replace").decode())
    assert is_name(name)
    assert len(name) == 22
