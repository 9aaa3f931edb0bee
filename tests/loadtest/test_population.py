"""Tests of the population: arrivals, roles and identities."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from quota_engine.domain.errors import CatalogError
from quota_engine.loadtest.plan import LoadTestPlan, PlanError, accelerated, days_on_sale, scenario_of
from quota_engine.loadtest.population import IDENTITY_PREFIX, PersonRole, identity_of, key_of, load_population
from quota_engine.simulation.scenario import Scenario, load_scenario
from quota_engine.simulation.simulation import prepare
from tests.support.loadtest_samples import DAY, small_market, small_plan


def test_identities_and_keys_have_the_prefix() -> None:
    names = {identity_of(run, index, companion) for run in "ab" for index in range(500) for companion in range(5)}
    assert len(names) == 5000
    assert all(len(name) == 16 and name.isdigit() and name.startswith("00") for name in names)
    assert key_of("evening", 17, 2) == f"{IDENTITY_PREFIX}evening-17-2"


def test_applicants_are_those_of_the_simulation() -> None:
    plan = small_plan(lead_s=3600, window_s=36_000)
    scenario = scenario_of(plan.options)
    participants = load_population(plan, scenario, small_market(plan))
    simulated = prepare(scenario, "surabaya").population
    assert participants.population.first_press_us[: len(simulated)] == simulated.first_press_us
    assert participants.population.choice[: len(simulated)] == simulated.choice
    roles = {role: participants.roles.count(role) for role in PersonRole}
    assert roles[PersonRole.BOT] == 100
    assert roles[PersonRole.BROKER] == 10
    assert roles[PersonRole.REFRESHER] == sum(kind == 2 for kind in simulated.kind)
    assert roles[PersonRole.KIOSK] > 10
    assert participants.supply.capacity == 120  # the kiosks' booking is one more


def test_arrivals_stay_within_the_window() -> None:
    plan = small_plan(lead_s=5, window_s=20)
    scenario = scenario_of(plan.options)
    presses = load_population(plan, scenario, small_market(plan)).population.first_press_us
    assert -5_000_000 <= min(presses) < 0 < max(presses) <= 20_000_000
    is_open = msgspec.structs.replace(plan, is_open=True)
    presses = load_population(is_open, scenario, small_market(plan)).population.first_press_us
    assert min(presses) >= 0


def test_speed_leaves_reactions_unchanged() -> None:
    slow = Scenario()
    fast = accelerated(slow, 20)
    assert fast.agents.form_s_median == slow.agents.form_s_median / 20
    assert fast.arrivals.late_s_mean == slow.arrivals.late_s_mean / 20
    assert fast.arrivals.reaction_s_median == slow.arrivals.reaction_s_median
    assert fast.agents.refresh_s_mean == slow.agents.refresh_s_mean


def trace_plan(path: Path, speed: float = 1.0) -> LoadTestPlan:
    return small_plan(trace=str(path), speed=speed, window_s=60)


def test_a_trace_plays_at_the_chosen_speed(tmp_path: Path) -> None:
    """Recorded identities are replaced."""
    path = tmp_path / "trace.csv"
    path.write_text(
        "time,applicant,office,day,channel,party\n"
        f"-4,3578012345678901,surabaya,{DAY},,1\n2,3578012345678901,surabaya,{DAY},,1\n"
        f"8,3578012345678902,surabaya,{DAY},kiosk,2\n"
    )
    plan = trace_plan(path, speed=4)
    participants = load_population(plan, scenario_of(plan.options), small_market(plan))
    people = participants.population
    assert list(people.first_press_us) == [-1_000_000, 2_000_000]
    assert people.later_presses_us == {0: (500_000,)}
    assert list(people.party) == [1, 2]
    assert people.identities == ("0", "1")
    assert set(participants.roles) == {PersonRole.CITIZEN}
    path.write_text("time,applicant,office,day,channel,party\n1,x,nowhere,2026-12-07,,1\n")
    with pytest.raises(CatalogError, match="an office of the scenario"):
        load_population(plan, scenario_of(plan.options), small_market(plan))


def office(opens_at_ms: int | None) -> dict[str, object]:
    return {"id": "surabaya", "next_opening_at_ms": opens_at_ms, "next_opening_days": [DAY.isoformat()]}


def day_view(opens_at_ms: int, available: int = 5) -> dict[str, object]:
    quotas = [{"name": name, "capacity": 10, "available": available} for name in ("online", "morning")]
    return {
        "day": DAY.isoformat(),
        "opens_at_ms": opens_at_ms,
        "starts_at_ms": 10**13,
        "closed": False,
        "quotas": quotas,
    }


def test_the_next_opening_wins_over_open_days() -> None:
    scenario = load_scenario("surabaya")
    soon, is_open = days_on_sale(scenario, [office(50_000)], lambda *_: [day_view(50_000)], 0, 900)
    assert (soon[0].available, soon[0].sold, is_open) == (
        {"online": 5, "morning": 5},
        {"online": 5, "morning": 5},
        False,
    )
    _, is_open = days_on_sale(scenario, [office(10**9)], lambda *_: [day_view(-5)], 0, 900)
    assert is_open
    with pytest.raises(PlanError, match="nothing on sale"):
        days_on_sale(scenario, [office(None)], lambda *_: [day_view(-5, available=0)], 0, 900)
