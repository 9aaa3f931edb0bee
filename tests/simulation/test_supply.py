"""Places on sale."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from quota_engine.catalog import packed_places
from quota_engine.simulation.metrics import oversold_places
from quota_engine.simulation.simulation import prepare
from quota_engine.simulation.supply import OfficeDay, scaled_quotas
from tests.support.simulated_openings import scenario_with

_OPTIONS = (("online", "morning"), ("online", "afternoon"))


def test_places_respect_all_quotas() -> None:
    assert packed_places(_OPTIONS, {"online": 100, "morning": 120, "afternoon": 80}) == 100
    assert packed_places(_OPTIONS, {"online": 100, "morning": 30, "afternoon": 40}) == 70
    assert packed_places((("priority",), ("online",)), {"online": 100, "priority": 20}) == 120


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 300), st.integers(0, 2000))
def test_scaled_quotas_admit_exactly_the_given_places(online: int, morning: int, afternoon: int, places: int) -> None:
    quotas = {"online": online, "morning": morning, "afternoon": afternoon, "walk-in": 50}
    scaled = scaled_quotas(_OPTIONS, quotas, places)
    assert packed_places(_OPTIONS, quotas | scaled) == places
    assert min(scaled.values()) >= 0


def test_the_capacity_of_a_sale_applies_to_each_office_day() -> None:
    market = prepare(scenario_with(sale={"capacity": 7, "days": 3}), "x").supply
    assert [each.places for each in market.office_days] == [7, 7, 7]
    assert market.capacity == 21


def test_offices_max_keeps_the_largest_in_catalog_order() -> None:
    market = prepare(scenario_with(1, sale={"catalog": "indonesia", "offices_max": 3}), "x").supply
    assert [(each.office, each.places) for each in market.office_days] == [
        ("jakarta-barat", 240),
        ("jakarta-pusat", 384),
        ("jakarta-selatan", 240),
    ]


def _office_day(quotas: dict[str, int], reallocation_targets: dict[str, str]) -> OfficeDay:
    return OfficeDay("o", 1, "", "", 0, quotas, {}, reallocation_targets, sum(quotas.values()), False)


def test_a_place_above_capacity_counts_once() -> None:
    """A place consumes several quotas: the worst of them counts."""
    day = _office_day({"online": 10, "morning": 12}, {})
    assert oversold_places(day, {"online": 10, "morning": 10}) == 0
    assert oversold_places(day, {"online": 13, "morning": 13}) == 3


def test_reallocated_capacity_is_not_oversold() -> None:
    day = _office_day({"priority": 5, "online": 10}, {"priority": "online"})
    assert oversold_places(day, {"online": 15}) == 0
    assert oversold_places(day, {"online": 14, "priority": 2}) == 1
