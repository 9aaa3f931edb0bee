"""The opening against the real engine."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import msgspec
import pytest

from quota_engine import InvalidRequest, QuotaEngine
from quota_engine.simulation.metrics import Metrics
from tests.support.simulated_openings import ForgetfulNetwork, LyingEngine, catalog_with_wait_list, run, scenario_with


def _check_consistency(measures: Metrics) -> None:
    assert measures.answered + measures.gave_up == measures.applicants
    assert measures.confirmed + measures.unsold == measures.capacity + measures.oversold
    assert measures.final_us.count == measures.applicants
    assert measures.arrivals.total == measures.requests
    assert measures.sold.total == measures.confirmed


def test_all_places_are_sold_and_all_applicants_answered() -> None:
    result = run(scenario_with(1_000))
    engine = result.engine
    _check_consistency(engine)
    assert result.ok
    assert (engine.capacity, engine.confirmed, engine.oversold, engine.errors) == (100, 100, 0, 0)
    assert engine.answered == engine.applicants == engine.answer_us.count
    # Crashed applicants resumed their holds, and no answer took long.
    assert engine.resumed > 0
    assert engine.answer_us.max < 5_000_000


def test_low_demand_leaves_places_unsold() -> None:
    result = run(scenario_with(30, agents={"abandon_share": 0.0}))
    assert "<tr><td>confirmed</td><td>30</td></tr>" in result._repr_html_()
    engine = result.engine
    _check_consistency(engine)
    assert (engine.confirmed, engine.unsold, engine.refused) == (30, 70, 0)


@pytest.mark.slow
def test_results_depend_on_the_seed_alone() -> None:
    first, again = (json.dumps(run(scenario_with(), baseline=True).as_dict()) for _ in range(2))
    other = json.dumps(run(msgspec.structs.replace(scenario_with(), seed=7), baseline=True).as_dict())
    assert first == again
    assert first != other


def test_the_baseline_does_not_change_the_engines_run() -> None:
    alone, beside = run(scenario_with()).as_dict(), run(scenario_with(), baseline=True).as_dict()
    assert beside.pop("baseline")
    assert alone == beside


def test_a_party_takes_a_place_for_each_member() -> None:
    engine = run(scenario_with(400, arrivals={"party_shares": (0.5, 0.3, 0.2)})).engine
    _check_consistency(engine)
    assert engine.oversold == 0
    assert engine.bookings < engine.confirmed <= 100


def test_several_days_are_sold_at_once() -> None:
    result = run(scenario_with(1_500, sale={"days": 5}))
    assert result.ok
    assert result.engine.capacity == 500
    assert result.engine.confirmed == 500


@pytest.mark.slow
def test_released_places_go_to_the_wait_list(tmp_path: pathlib.Path) -> None:
    """A third of the holds are abandoned: their places are offered to those who wait, and sold."""
    result = run(
        scenario_with(
            sale={"catalog": catalog_with_wait_list(tmp_path)},
            agents={
                "abandon_share": 0.3,
                "wait_list_share": 0.8,
                "retry_share": 0.0,
                "wait_list_patience_s_mean": 40_000.0,
            },
        )
    )
    engine = result.engine
    _check_consistency(engine)
    assert result.ok
    assert engine.waited > 100
    assert engine.offers_seen >= 25
    assert engine.confirmed == 100


@pytest.mark.slow
def test_declined_offers_go_to_the_next_applicant(tmp_path: pathlib.Path) -> None:
    """Half of the offers are declined. The engine and the applicants agree about every place all the same."""
    result = run(
        scenario_with(
            sale={"catalog": catalog_with_wait_list(tmp_path)},
            agents={
                "abandon_share": 0.3,
                "wait_list_share": 0.8,
                "retry_share": 0.0,
                "wait_list_patience_s_mean": 40_000.0,
                "decline_share": 0.5,
            },
        )
    )
    engine = result.engine
    _check_consistency(engine)
    assert result.ok
    assert engine.offers_declined >= 10
    assert engine.confirmed == 100


def test_late_forms_end_after_a_bounded_number_of_attempts(tmp_path: pathlib.Path) -> None:
    """The form takes longer than the hold, so nothing is sold, and attempts are bounded."""
    result = run(scenario_with(20, agents={"form_s_median": 1_000.0, "form_sigma": 0.0, "attempts_max": 3}))
    _check_consistency(result.engine)
    assert result.ok
    assert result.engine.confirmed == 0
    assert result.engine.holds_expired >= 20


def test_overload_defers_requests_and_loses_no_applicant() -> None:
    result = run(scenario_with(2_000, front_end={"workers": 1, "service_us": 5_000, "queue_max": 50}))
    engine = result.engine
    _check_consistency(engine)
    assert result.ok
    assert engine.overloaded > 1_000
    assert engine.queue_max <= 50
    assert (engine.confirmed, engine.gave_up, engine.errors) == (100, 0, 0)


def test_permanent_overload_counts_as_errors() -> None:
    engine = run(
        scenario_with(
            300, front_end={"workers": 1, "service_us": 1_000_000, "queue_max": 1}, agents={"attempts_max": 2}
        )
    ).engine
    _check_consistency(engine)
    assert engine.gave_up == engine.errors > 100


def test_lost_answers_are_retried() -> None:
    """A third of the answers is lost after the effect: no applicant gets two places, and no place is lost."""
    result = run(scenario_with(300), engine=ForgetfulNetwork)
    _check_consistency(result.engine)
    assert result.ok
    assert result.engine.errors > 100
    assert (result.engine.confirmed, result.engine.oversold) == (100, 0)


def test_an_oversell_is_a_finding() -> None:
    """The simulator counts the answers to applicants, not the engine's counters."""
    result = run(scenario_with(300, agents={"crash_share": 0.0}), engine=LyingEngine)
    assert result.engine.oversold > 50
    assert not result.ok
    assert "above capacity" in result.findings[0]


@pytest.mark.parametrize("kind", ["early_share", "burst_share", "refresher_share", "late_share"])
def test_each_kind_of_applicant_alone_sells_out(kind: str) -> None:
    shares = dict.fromkeys(("early_share", "burst_share", "refresher_share", "late_share"), 0.0)
    engine = run(scenario_with(300, arrivals=shares | {kind: 1.0}, agents={"abandon_share": 0.0})).engine
    _check_consistency(engine)
    assert engine.confirmed == 100
    assert ("NOT_OPEN" in engine.answers_by_status) == (kind in ("early_share", "refresher_share"))


class _InUse(QuotaEngine):
    """An engine on a store that has an office already."""

    def list_offices(self) -> list[str]:
        return ["surabaya"]

    def publish(self, *arguments: object, **options: object) -> Any:
        raise AssertionError("nothing may be changed there")


def test_a_store_in_use_is_rejected() -> None:
    with pytest.raises(InvalidRequest, match="the store has offices already"):
        run(scenario_with(10), engine=_InUse)
