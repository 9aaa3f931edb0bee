"""Findings of ``docs/fairness.md`` at the size of a test, from runs of agents against the real engine.

The seeds are the first ones, and the same for each finding; ``python -m benchmarks.fairness`` runs many more.
"""

from __future__ import annotations

import functools
import json
import statistics
from typing import Any

import msgspec
import pytest

from quota_engine import InvalidRequest, QuotaEngine
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.simulation.agent_metrics import correlation
from quota_engine.simulation.brokers import (
    MarketHistory,
    TrialOpening,
    earlier_failures,
    expected_chance,
    prefers_broker,
)
from quota_engine.simulation.policy_comparison import AgentResult
from quota_engine.simulation.population_config import (
    BrokerConfig,
    BrokerEntry,
    IdentityCheck,
    PopulationConfig,
    ReReleasePolicy,
    RoundConfig,
)
from quota_engine.simulation.scenario import PolicyName, Scenario
from tests.support.effort import PROFILE
from tests.support.simulated_openings import LyingEngine, compare_in_memory, run_with_agents, scenario_with

pytestmark = pytest.mark.slow

SEEDS = range(8)
GATE_SEEDS = range(3) if PROFILE == "gate" else SEEDS
"""Seeds of findings that three openings show as well as eight."""
HIGH, LOW = 300, 15
"""People for 30 places."""


def _scenario(people: int = HIGH, *, seed: int = 0, brokers: dict[str, Any] | None = None, **keys: Any) -> Scenario:
    scenario = scenario_with(people, sale={"capacity": 30})
    config = msgspec.structs.replace(scenario.population, brokers=BrokerConfig(**(brokers or {})))
    return msgspec.structs.replace(scenario, seed=seed, population=config, **keys)


@functools.cache
def _runs(
    policy: PolicyName,
    people: int = HIGH,
    re_release: ReReleasePolicy | None = None,
    identity: IdentityCheck = IdentityCheck.WEAK,
    identities: int = 0,
    seeds: range = GATE_SEEDS,
) -> tuple[dict[str, Any], ...]:
    """The results of one setting for each seed; with ``identities``, brokers always come with this number."""
    brokers = {"entry": BrokerEntry.ALWAYS, "identities": identities} if identities else {}
    runs = []
    for seed in seeds:
        opened = run_with_agents(
            _scenario(people, seed=seed, brokers=brokers, policy=policy, re_release=re_release, identity=identity)
        )
        assert opened.findings == ()
        runs.append(opened.as_dict())
    return tuple(runs)


def _mean(runs: tuple[dict[str, Any], ...], key: str) -> float:
    return statistics.fmean(run[key] for run in runs)


def _check_consistency(opened: AgentResult) -> None:
    figures, measures = opened.as_dict(), opened.metrics
    assert figures["confirmed"] + figures["unsold"] == figures["capacity"] + figures["oversold"]
    assert figures["attended"] + figures["idle_places"] == figures["capacity"]
    assert figures["idle_places"] == figures["unsold"] + figures["idle_places_of_brokers"]
    classes = figures["classes"]
    people = [each for each in classes if each["class"] != "brokers' identities"]
    assert sum(each["people"] for each in people) == figures["applicants"]
    assert abs(sum(each["share_of_people"] for each in classes) - 1) < 1e-5
    own, bought = (sum(each[key] for each in people) for key in ("places_won", "places_bought"))
    assert bought == figures["broker_places_delivered"] <= figures["broker_orders"] <= figures["broker_places_held"]
    assert own + bought + figures["idle_places_of_brokers"] == figures["confirmed"]
    assert sum(point.people for point in measures.latency_curve()) == figures["applicants"]
    assert measures.wait_us.count <= len(measures.people)


@pytest.mark.parametrize("re_release", list(ReReleasePolicy))
@pytest.mark.parametrize("policy", list(PolicyName))
def test_counts_are_consistent_for_every_policy_and_re_release(policy: PolicyName, re_release: ReReleasePolicy) -> None:
    opened = run_with_agents(_scenario(60, policy=policy, re_release=re_release))
    _check_consistency(opened)
    assert opened.findings == ()
    assert opened.metrics.confirmed >= 27


def test_high_demand_brings_brokers_to_an_immediate_opening_and_low_demand_does_not() -> None:
    """Finding 1."""
    high, low = _runs(PolicyName.IMMEDIATE), _runs(PolicyName.IMMEDIATE, LOW)
    assert all(run["broker_profit"] > 0 for run in high)
    assert all(run["broker_places_delivered"] > 0 for run in high)
    assert all(run["broker_identities"] == run["broker_profit"] == 0 for run in low)


@pytest.mark.parametrize("people", [HIGH, LOW])
def test_a_draw_with_next_draw_leaves_no_profit(people: int) -> None:
    """Finding 2."""
    runs = _runs(PolicyName.DRAW, people)
    assert _mean(runs, "broker_profit") <= 0
    assert _mean(runs, "broker_places_delivered") < 0.5


def test_a_draw_with_immediate_re_release_allows_hand_over() -> None:
    """Finding 3: the same draw, the same people, and only the rule for cancelled places is another."""
    runs = _runs(PolicyName.DRAW, re_release=ReReleasePolicy.IMMEDIATE, seeds=SEEDS)
    assert _mean(runs, "broker_profit") > 100_000
    delivered, ordered = (sum(run[key] for run in runs) for key in ("broker_places_delivered", "broker_orders"))
    assert delivered == ordered >= 5


def test_false_identities_win_their_share_and_never_attend() -> None:
    """Finding 4: 100 false identities beside 300 people take about a quarter of 30 places; checked, they take none."""
    runs = _runs(PolicyName.DRAW, identities=100, seeds=SEEDS)
    share = statistics.fmean(run["broker_places_held"] / run["capacity"] for run in runs)
    assert share == pytest.approx(100 / 400, abs=0.07)
    # Only places with a customer are cancelled, and go to the next draw. The rest is not attended.
    assert all(run["idle_places_of_brokers"] == run["broker_places_held"] - run["broker_orders"] for run in runs)
    assert _mean(runs, "idle_places_of_brokers") / 30 > 0.15


def test_verification_rejects_fabricated_identities() -> None:
    """Of the same 100 identities the 6 that people have lent are left, which win what 6 people win."""
    runs = _runs(PolicyName.DRAW, identity=IdentityCheck.VERIFIED, identities=100, seeds=SEEDS)
    assert 0 < _mean(runs, "broker_places_held") < 2
    assert all(run["broker_cost"] == 6 * 150_000 + 94 * 5_000 for run in runs)
    assert all(run["idle_places_of_brokers"] <= run["broker_places_held"] for run in runs)


def test_a_shuffled_room_removes_the_advantage_of_latency() -> None:
    """Finding 5, first half: over 6,000 people the correlation is within 0.02 of nothing."""
    brokers = {"entry": BrokerEntry.NEVER}
    found = [
        run_with_agents(_scenario(2_000, seed=seed, brokers=brokers, policy=PolicyName.SHUFFLE)).metrics.correlation
        for seed in GATE_SEEDS
    ]
    assert abs(statistics.fmean(found)) < 0.02


def test_a_shuffled_room_keeps_the_advantage_of_many_identities() -> None:
    """Finding 5, second half: places by the number of identities, and a profit."""
    runs = _runs(PolicyName.SHUFFLE, identities=100)
    share = statistics.fmean(run["broker_places_held"] / run["capacity"] for run in runs)
    # A little more than 100 of 400: programs are never late.
    assert 0.2 < share < 0.4
    assert _mean(runs, "broker_profit") > 0


@pytest.mark.parametrize("policy", [PolicyName.FIFO, PolicyName.BUCKET])
def test_a_first_come_room_and_a_bucket_limit_only_the_load(policy: PolicyName) -> None:
    """Finding 6."""
    runs, open_door = _runs(policy), _runs(PolicyName.IMMEDIATE)
    shuffled = _runs(PolicyName.SHUFFLE)
    assert _mean(runs, "store_calls_per_s_max") < 0.8 * _mean(open_door, "store_calls_per_s_max")
    assert _mean(runs, "latency_success_correlation") < -0.08
    assert _mean(runs, "broker_profit") > 0.7 * _mean(open_door, "broker_profit")
    assert _mean(runs, "broker_places_held") > 3 * _mean(shuffled, "broker_places_held")


def test_without_customers_brokers_lose_the_identity_costs() -> None:
    """Profits come from customers, not from the policy."""
    scenario = _scenario(policy=PolicyName.IMMEDIATE, brokers={"entry": BrokerEntry.ALWAYS})
    config = msgspec.structs.replace(scenario.population, considers_brokers_share=0.0)
    figures = run_with_agents(msgspec.structs.replace(scenario, population=config)).as_dict()
    assert figures["broker_places_held"] == figures["idle_places_of_brokers"] == figures["broker_identities"] == 12
    assert figures["broker_profit"] == -12 * 5_000
    # And so they do not come again.
    stays_away = _scenario(policy=PolicyName.IMMEDIATE)
    stays_away = msgspec.structs.replace(stays_away, population=msgspec.structs.replace(config, brokers=BrokerConfig()))
    assert run_with_agents(stays_away).as_dict()["broker_identities"] == 0


def test_slow_brokers_win_no_more_than_their_share() -> None:
    """Their advantage in an immediate opening is their latency and their clocks."""
    slow = {"entry": BrokerEntry.ALWAYS, "one_way_ms": 400.0, "clock_error_ms": 2_000.0}
    held = [
        run_with_agents(_scenario(seed=seed, policy=PolicyName.IMMEDIATE, brokers=slow)).as_dict()["broker_places_held"]
        for seed in GATE_SEEDS
    ]
    assert statistics.fmean(held) < 4


def test_policies_face_the_same_people() -> None:
    first, again = (compare_in_memory(_scenario(60)) for _ in range(2))
    assert json.dumps(first.as_dict()) == json.dumps(again.as_dict())
    people = [opened.metrics.people for opened in first.runs]
    assert len({(bytes(each.class_of[:60]), each.one_way_us[:60].tobytes()) for each in people}) == 1
    assert [opened.metrics.scenario.policy for opened in first.runs] == list(PolicyName)
    for opened in first.runs:
        _check_consistency(opened)


def test_an_oversell_is_a_finding() -> None:
    opened = run_with_agents(
        _scenario(policy=PolicyName.IMMEDIATE, brokers={"entry": BrokerEntry.NEVER}), engine=LyingEngine
    )
    assert opened.metrics.oversold > 50
    assert "above capacity" in opened.findings[0]


def test_bots_retry_sooner_than_people_after_a_full_queue() -> None:
    scenario = _scenario(600, policy=PolicyName.IMMEDIATE, brokers={"entry": BrokerEntry.NEVER})
    front_end = msgspec.structs.replace(scenario.front_end, workers=1, service_us=5_000, queue_max=20)
    opened = run_with_agents(msgspec.structs.replace(scenario, front_end=front_end))
    _check_consistency(opened)
    assert opened.metrics.overloaded > 50
    assert opened.metrics.confirmed == 30


def test_late_forms_release_the_place() -> None:
    scenario = _scenario(60, policy=PolicyName.IMMEDIATE, brokers={"entry": BrokerEntry.NEVER})
    agents = msgspec.structs.replace(scenario.agents, form_s_median=1_000.0, form_sigma=0.0)
    opened = run_with_agents(msgspec.structs.replace(scenario, agents=agents))
    _check_consistency(opened)
    assert opened.metrics.confirmed == 0


class _Stingy(QuotaEngine):
    """An engine that refuses winners of a draw."""

    def reserve(self, *arguments: Any, **keywords: Any) -> Outcome:
        return Outcome(Status.SOLD_OUT) if keywords.get("hold_ttl_ms") else super().reserve(*arguments, **keywords)


def test_winners_of_a_draw_without_a_place_are_refused() -> None:
    opened = run_with_agents(
        _scenario(60, policy=PolicyName.DRAW, brokers={"entry": BrokerEntry.NEVER}), engine=_Stingy
    )
    _check_consistency(opened)
    assert opened.metrics.confirmed < 30


def test_progress_is_reported() -> None:
    told: list[tuple[int, int]] = []
    run_with_agents(
        _scenario(6_000, policy=PolicyName.IMMEDIATE, brokers={"entry": BrokerEntry.NEVER}),
        observe=lambda finals, requests: told.append((finals, requests)),
    )
    assert told == sorted(told)
    assert told


class _InUse(QuotaEngine):
    def list_offices(self) -> list[str]:
        return ["surabaya"]

    def publish(self, *arguments: object, **options: object) -> Any:
        raise AssertionError("nothing may be changed there")


def test_a_store_in_use_is_rejected() -> None:
    with pytest.raises(InvalidRequest, match="the store has offices already"):
        run_with_agents(_scenario(10, brokers={"entry": BrokerEntry.NEVER}), engine=_InUse)


@pytest.mark.parametrize("policy", list(PolicyName))
def test_one_applicant_gets_the_only_place(policy: PolicyName) -> None:
    scenario = scenario_with(1, sale={"capacity": 1}, agents={"abandon_share": 0.0})
    opened = run_with_agents(msgspec.structs.replace(scenario, policy=policy))
    _check_consistency(opened)
    assert opened.metrics.attended == 1


def test_rounds_end_before_the_service_day() -> None:
    """Ten draws a day apart do not fit between Friday and Monday: the day finds what three of them have left."""
    scenario = _scenario(100, policy=PolicyName.DRAW)
    rounds = RoundConfig(count=10, return_share=1.0)
    scenario = msgspec.structs.replace(scenario, population=msgspec.structs.replace(scenario.population, rounds=rounds))
    opened = run_with_agents(scenario)
    _check_consistency(opened)
    assert opened.metrics.attended == opened.metrics.confirmed >= 28


# Decisions of brokers and customers.


def test_customers_buy_if_the_expected_gain_is_higher() -> None:
    assert prefers_broker(400_000, 300_000, trust=1.0, chance=0.2)
    assert not prefers_broker(400_000, 300_000, trust=1.0, chance=0.3)
    assert not prefers_broker(400_000, 300_000, trust=0.1, chance=0.1)
    assert not prefers_broker(200_000, 300_000, trust=1.0, chance=0.0)


def test_expected_chance_falls_with_failures() -> None:
    assert expected_chance(0, 0.1, 10.0) == pytest.approx(0.1)
    assert expected_chance(10, 0.1, 10.0) == pytest.approx(0.05)
    assert expected_chance(0, 3.0, 10.0) == 1.0


def test_earlier_failures_follow_from_luck() -> None:
    assert earlier_failures(0.5, 1.0, 6) == 0
    assert earlier_failures(0.5, 0.5, 6) == 1
    assert earlier_failures(0.99, 0.5, 6) == 0
    assert earlier_failures(0.5, 0.0, 6) == earlier_failures(1e-9, 0.1, 6) == 6


def _trial(share: float, profit: int, orders: int = 0, delivered: int = 0) -> TrialOpening:
    return TrialOpening(share, orders, delivered, profit, 0.1)


def test_brokers_choose_the_most_profitable_share() -> None:
    experience = MarketHistory(PopulationConfig(), IdentityCheck.WEAK)
    assert experience.plan(100).identities == 0
    experience.trials += [_trial(0.1, 900), _trial(0.4, 500), _trial(0.1, 100)]
    assert experience.plan(100).identities == 40
    experience.trials += [_trial(0.4, -1)]
    assert experience.plan(100).identities == 10


def test_shares_are_bounded_by_borrowed_names() -> None:
    assert MarketHistory(PopulationConfig(), IdentityCheck.WEAK).shares == (0.1, 0.2, 0.4)
    verified = MarketHistory(PopulationConfig(), IdentityCheck.VERIFIED)
    assert verified.shares == (0.1, 0.2)
    plan = verified.plan_of(50, 100)
    assert (plan.borrowed, plan.cost) == (20, 20 * 150_000 + 30 * 5_000)
    assert MarketHistory(PopulationConfig(), IdentityCheck.WEAK).plan_of(50, 100).borrowed == 0


def test_brokers_give_up_after_their_stop_loss() -> None:
    experience = MarketHistory(PopulationConfig(brokers=BrokerConfig(stop_loss=100)), IdentityCheck.WEAK)
    experience.trials += [_trial(0.1, 900), _trial(0.2, -60)]
    assert not experience.has_given_up
    experience.trials += [_trial(0.2, 10), _trial(0.2, -60), _trial(0.4, -60)]
    assert experience.has_given_up
    assert experience.plan(100).identities == 0


def test_trust_is_the_share_of_delivered_orders() -> None:
    experience = MarketHistory(PopulationConfig(), IdentityCheck.WEAK)
    assert experience.trust == 1.0
    experience.trials += [_trial(0.1, 0, orders=9, delivered=4)]
    assert experience.trust == 0.5


def test_correlation_of_known_sequences() -> None:
    assert correlation([1, 2, 3], [2, 4, 6]) == pytest.approx(1.0)
    assert correlation([1, 2, 3], [1, 1, 1]) == 0.0
    assert correlation([], []) == 0.0
