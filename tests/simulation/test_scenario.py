"""Scenario files: the built-in ones, and errors with their positions."""

from __future__ import annotations

import pathlib

import pytest

from quota_engine.domain.errors import CatalogError
from quota_engine.simulation.scenario import BUILT_IN, Scenario, load_scenario
from quota_engine.simulation.simulation import prepare


def test_surabayas_file_has_the_default_values() -> None:
    assert load_scenario("surabaya") == Scenario()


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_scenarios_can_be_prepared(name: str) -> None:
    prepared = prepare(load_scenario(name), name)
    assert len(prepared.population) == prepared.scenario.applicants
    assert prepared.supply.capacity >= 100


def test_all_offices_open_in_the_same_second() -> None:
    market = prepare(load_scenario("indonesia"), "indonesia").supply
    assert market.offices == 125
    assert {each.opens_at_ms for each in market.office_days} == {market.opening_ms}


def test_surabaya_opens_on_friday_at_14_western_time() -> None:
    market = prepare(Scenario(applicants=1), "x").supply
    assert market.opening_ms == 1_796_367_600_000  # 2026-12-04 07:00 UTC
    assert market.capacity == 100


def _mistakes(tmp_path: pathlib.Path, text: str) -> list[str]:
    file = tmp_path / "scenario.toml"
    file.write_text(text, "utf-8")
    with pytest.raises(CatalogError) as caught:
        prepare(load_scenario(file), str(file))
    return [str(mistake).removeprefix(f"{file}: ") for mistake in caught.value.issues]


@pytest.mark.parametrize(
    ("text", "where", "expected"),
    [
        ("applicants = 0", "applicants", "an integer from 1 to 10000000"),
        ("applicants = '5000'", "applicants", "an integer"),
        ("seed = -1", "seed", "an integer from 0"),
        ("policy = 'first'", "policy", "immediate"),
        ("aplicants = 5", "aplicants", "did you mean 'applicants'?"),
        ("[agents]\ncrash_share = 1.5", "agents.crash_share", "a number from 0 to 1"),
        ("[agents]\nwait_list_share = 0.9\nretry_share = 0.9", "agents", "wait_list_share and retry_share that add up"),
        ("[arrivals]\nearly_share = 0.9", "arrivals", "that add up to 1"),
        ("[arrivals]\nparty_shares = [0.5, 0.4]", "arrivals", "party_shares that add up to 1"),
        ("[sale]\ncatalog = 'nowhere'", "nowhere", "one of"),
        ("[sale]\nfirst_day = '2026-02-30'", "sale.first_day", "a date"),
        ("[sale]\noffices = ['atlantis']", "sale.offices", "offices of the catalog 'surabaya'"),
        ("[sale]\nschedule = 'never'", "sale.schedule", "one of friday"),
        ("[[bookings]]\nservice = 'visa'", "bookings[0].service, for surabaya", "one of new, renewal"),
        ("[[bookings]]\nweight = 0", "bookings[0].weight", "a number above 0"),
        ("[front_end]\nworkers = 0", "front_end.workers", "an integer from 1"),
        ("[baseline]\nqueue_max = 1.5", "baseline.queue_max", "an integer"),
        ("applicants = ", "line 1", "valid TOML"),
    ],
)
def test_an_error_names_file_key_and_expected_value(
    tmp_path: pathlib.Path, text: str, where: str, expected: str
) -> None:
    (mistake,) = _mistakes(tmp_path, text)
    assert where in mistake
    assert expected in mistake


def test_every_error_is_reported(tmp_path: pathlib.Path) -> None:
    text = "applicants = 0\nseed = 'x'\n[agents]\ncrash_share = 2\n[front_end]\nworkers = 0\nspeed = 3"
    assert len(_mistakes(tmp_path, text)) == 5


def test_a_missing_file_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(CatalogError, match="cannot be read"):
        load_scenario(tmp_path / "none.toml")


def test_a_catalog_path_is_relative_to_the_scenario(tmp_path: pathlib.Path) -> None:
    from tests.support.simulated_openings import catalog_with_wait_list

    catalog_with_wait_list(tmp_path)
    file = tmp_path / "scenario.toml"
    file.write_text("[sale]\ncatalog = 'wait-list.toml'", "utf-8")
    market = prepare(load_scenario(file), str(file)).supply
    assert market.office_days[0].has_wait_list
