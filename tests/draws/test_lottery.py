"""The lottery: its order, its allotment, and its incentive to rank truthfully."""

from __future__ import annotations

import hashlib
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quota_engine.domain.errors import InvalidRequest, UnknownName
from quota_engine.draws.lottery import (
    Application,
    Capacities,
    Lot,
    Preference,
    allot,
    check_entropy,
    commitment_of,
    key_of,
    lot_of,
    order_of,
    totals_of,
)
from tests.support.draw_samples import DAY, DRAW, SEED, make_preference, random_applications, random_capacities

KEY = key_of(DRAW, SEED)


def expected_results(
    capacities: Capacities, key: str, applications: list[Application]
) -> dict[int, tuple[int, int, int]]:
    """Return the result of the rule as carried out by hand, on a table of the units left."""
    left = {(place, quota): units for place, quotas in capacities.days.items() for quota, units in quotas.items()}
    drawn = sorted(applications, key=lambda one: hashlib.sha256(f"{key} {one.number}".encode()).hexdigest())
    result: dict[int, tuple[int, int, int]] = {}
    for rank, one in enumerate(drawn, 1):
        ways = [
            (preference, index, [((asked.office, asked.day), quota) for quota in option])
            for preference, asked in enumerate((capacities.preferences[name] for name in one.choices), 1)
            for index, option in enumerate(asked.choice.options, 1)
        ]
        fitting = [way for way in ways if all(left[quota] >= len(one.applicants) for quota in way[2])]
        result[one.number] = (rank, 0, 0)
        if fitting:
            preference, index, quotas = fitting[0]
            result[one.number] = (rank, preference, index)
            for quota in quotas:
                left[quota] -= len(one.applicants)
    return result


def by_number(lots: list[Lot]) -> dict[int, Lot]:
    return {lot.number: lot for lot in lots}


# --- Seed, commitment, order -----------------------------------------------------------------------------------------


def test_commitment_key_and_lot_match_sha256sum() -> None:
    assert commitment_of("a", "0" * 64) == hashlib.sha256(b"a " + b"0" * 64).hexdigest()
    key = key_of("a", "0" * 64, "IHSG 7,123.45")
    assert key == hashlib.sha256(b"a " + b"0" * 64 + b" IHSG 7,123.45").hexdigest()
    assert lot_of(key)(17).hex() == hashlib.sha256(f"{key} 17".encode()).hexdigest()
    # Computed with sha256sum.
    assert commitment_of("dec-2026", "0" * 64) == "a922a1bdbee43b5f391c677e82803b33c61507e52a58e8727116a681a548c632"
    assert key_of("dec-2026", "0" * 64) == "53477c2706c7d98010aca1cfef110b3afb39bfa8028dd494a69f7052fc95de0d"


def test_order_depends_on_draw_seed_and_entropy() -> None:
    numbers = range(1, 200)
    orders = {
        tuple(order_of(key, numbers))
        for key in (KEY, key_of("other", SEED), key_of(DRAW, "1" * 64), key_of(DRAW, SEED, "7,123.45"))
    }
    assert len(orders) == 4
    assert all(sorted(order) == list(numbers) for order in orders)


def test_each_number_is_equally_likely_to_come_first() -> None:
    """Over 4,000 seeds, chi-square with 19 degrees of freedom stays below its 99.9 % quantile."""
    first = [0] * 20
    for seed in range(4_000):
        first[order_of(key_of(DRAW, f"{seed:064x}"), range(1, 21))[0] - 1] += 1
    assert sum((count - 200) ** 2 / 200 for count in first) < 43.8


def test_number_and_rank_are_uncorrelated() -> None:
    """Early applicants have low numbers, and no advantage from them."""
    total = 0.0
    for seed in range(100):
        order = order_of(key_of(DRAW, f"{seed:064x}"), range(1, 1_001))
        spread = sum((rank - 499.5) * (number - 500.5) for rank, number in enumerate(order))
        total += spread / (1_000 * (1_000**2 - 1) / 12)
    assert abs(total / 100) < 0.0126  # four standard errors of 100 means of a correlation among 1,000


# --- Allotting -------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10**6))
def test_allot_matches_the_rule_carried_out_by_hand(seed: int) -> None:
    random = Random(seed)
    capacities = random_capacities(random)
    applications = random_applications(random, capacities, random.randint(0, 14))
    lots = allot(capacities, KEY, applications)
    assert [lot.rank for lot in lots] == list(range(1, len(applications) + 1))
    found = {lot.number: (lot.rank, lot.preference, lot.option) for lot in lots}
    assert found == expected_results(capacities, KEY, applications)


@given(st.integers(0, 10**6))
def test_no_quota_is_oversold(seed: int) -> None:
    random = Random(seed)
    capacities = random_capacities(random)
    applications = random_applications(random, capacities, 14)
    given_by_number = {one.number: one for one in applications}
    taken: dict[tuple[str, int, str], int] = {}
    for lot in allot(capacities, KEY, applications):
        if lot.preference:
            one = given_by_number[lot.number]
            asked = capacities.preferences[one.choices[lot.preference - 1]]
            for quota in asked.choice.options[lot.option - 1]:
                place = (asked.office, asked.day, quota)
                taken[place] = taken.get(place, 0) + one.units
    assert all(capacities.days[office, day][quota] >= units for (office, day, quota), units in taken.items())


@given(st.integers(0, 10**6), st.data())
def test_untruthful_ranking_brings_no_gain(seed: int, data: st.DataObject) -> None:
    """Replace one true ranking by any other. By the true ranking, the result is no better.

    Both draws have the same seed, so the statement holds for each order and not only on average.
    """
    random = Random(seed)
    capacities = random_capacities(random)
    applications = random_applications(random, capacities, random.randint(1, 12))
    index = data.draw(st.integers(0, len(applications) - 1), label="index")
    truth = applications[index]
    false = data.draw(st.lists(st.sampled_from(sorted(capacities.preferences)), min_size=1, unique=True), label="false")
    untrue = Application(truth.number, truth.applicants, tuple(false))
    manipulated = [*applications[:index], untrue, *applications[index + 1 :]]
    honest = by_number(allot(capacities, KEY, applications))[truth.number]
    strategic = by_number(allot(capacities, KEY, manipulated))[truth.number]
    assert honest.rank == strategic.rank
    rank_of = {choice: rank for rank, choice in enumerate(truth.choices, 1)}
    nothing = len(truth.choices) + 1
    honest_rank = honest.preference or nothing
    strategic_rank = rank_of.get(false[strategic.preference - 1], nothing) if strategic.preference else nothing
    assert honest_rank <= strategic_rank


@given(st.integers(0, 10**6))
def test_sequence_of_applications_does_not_matter(seed: int) -> None:
    random = Random(seed)
    capacities = random_capacities(random)
    applications = random_applications(random, capacities, 12)
    mixed = random.sample(applications, len(applications))
    assert allot(capacities, KEY, mixed) == allot(capacities, KEY, applications)


@given(st.integers(0, 10**6))
def test_later_ranks_do_not_affect_earlier_ones(seed: int) -> None:
    random = Random(seed)
    capacities = random_capacities(random)
    applications = random_applications(random, capacities, 12)
    lots = allot(capacities, KEY, applications)
    without = [one for one in applications if one.number != lots[-1].number]
    assert allot(capacities, KEY, without) == lots[:-1]


def test_large_party_gets_nothing_and_smaller_one_behind_it_is_allotted() -> None:
    capacities = Capacities(DRAW, {("sby", DAY): {"all": 2}}, {"c1": make_preference("sby", ("all",))})
    first, second = order_of(KEY, (1, 2))
    applications = [Application(first, ("a", "b", "c"), ("c1",)), Application(second, ("d", "e"), ("c1",))]
    assert allot(capacities, KEY, applications) == [Lot(first, 1), Lot(second, 2, 1, 1)]


def test_group_falls_back_on_general_places_but_not_the_reverse() -> None:
    capacities = Capacities(
        DRAW,
        {("sby", DAY): {"priority": 1, "online": 1}},
        {"general": make_preference("sby", ("online",)), "old": make_preference("sby", ("priority",), ("online",))},
    )
    order = order_of(KEY, (1, 2, 3, 4))
    choices = ("general", "general", "old", "old")
    applications = [
        Application(number, (f"a{number}",), (choice,)) for number, choice in zip(order, choices, strict=True)
    ]
    assert [lot.preference for lot in allot(capacities, KEY, applications)] == [1, 0, 1, 0]
    choices = ("old", "old", "general", "old")
    applications = [
        Application(number, (f"a{number}",), (choice,)) for number, choice in zip(order, choices, strict=True)
    ]
    assert [(lot.preference, lot.option) for lot in allot(capacities, KEY, applications)] == [
        (1, 1),
        (1, 2),
        (0, 0),
        (0, 0),
    ]


def test_totals_count_applications_applicants_and_places() -> None:
    capacities = Capacities(
        DRAW,
        {("sby", DAY): {"all": 3}, ("mlg", DAY): {"all": 1}},
        {"c1": make_preference("sby", ("all",)), "c2": make_preference("mlg", ("all",))},
    )
    first, second, third = order_of(KEY, (1, 2, 3))
    applications = {
        first: Application(first, ("a", "b"), ("c1",)),
        second: Application(second, ("c", "d"), ("c1", "c2")),
        third: Application(third, ("e",), ("c2", "c1")),
    }
    totals = totals_of(applications, allot(capacities, KEY, applications.values()))
    assert (totals.applications, totals.applicants, totals.winners, totals.places) == (3, 5, 2, 3)
    assert totals.by_preference == (1, 2)


# --- Refusals --------------------------------------------------------------------------------------------------------

ONE = Capacities(
    DRAW, {("sby", DAY): {"all": 3}}, {"c1": make_preference("sby", ("all",)), "c2": make_preference("sby", ("all",))}
)


@pytest.mark.parametrize(
    ("application", "where"),
    [
        (Application(0, ("a",), ("c1",)), "number"),
        (Application(10_000_001, ("a",), ("c1",)), "number"),
        (Application(1, (), ("c1",)), "application 1"),
        (Application(1, tuple(f"a{index}" for index in range(101)), ("c1",)), "application 1"),
        (Application(1, ("a b",), ("c1",)), "application 1: applicants"),
        (Application(1, ("a", "a"), ("c1",)), "application 1"),
        (Application(1, ("a",), ()), "application 1"),
        (Application(1, ("a",), tuple(f"c{index}" for index in range(51))), "application 1"),
        (Application(1, ("a",), ("c1", "c1")), "application 1"),
        (Application(1, ("a",), ("c9",)), "application 1"),
        (Application(1, ("a",), ("c 9",)), "application 1: choices"),
    ],
)
def test_invalid_applications_are_rejected(application: Application, where: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        allot(ONE, KEY, [application])
    assert caught.value.where == where


def test_duplicate_number_or_applicant_is_rejected() -> None:
    """The message does not contain the applicant's hash."""
    one = Application(1, ("secret1", "secret2"), ("c1",))
    with pytest.raises(InvalidRequest, match="number 1 occurs twice"):
        allot(ONE, KEY, [one, Application(1, ("b",), ("c1",))])
    with pytest.raises(InvalidRequest, match="an applicant is in application 1, too") as caught:
        allot(ONE, KEY, [one, Application(2, ("secret2",), ("c1",))])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("seed", ["", "0" * 63, "0" * 65, "G" + "0" * 63, "A" + "0" * 63, "0" * 63 + "\n", 7])
def test_invalid_seed_is_rejected_and_not_shown(seed: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        commitment_of(DRAW, seed)  # type: ignore[arg-type]
    assert str(seed) not in str(caught.value) or seed in ("", 7)


@pytest.mark.parametrize("entropy", ["a" * 257, "a\nb", "é", "\x00", None])
def test_invalid_entropy_is_rejected(entropy: object) -> None:
    with pytest.raises(InvalidRequest):
        check_entropy(entropy)


def test_invalid_capacities_are_rejected() -> None:
    with pytest.raises(UnknownName, match="the day has no quota pm"):
        Capacities(DRAW, {("sby", DAY): {"am": 1}}, {"c1": make_preference("sby", ("pm",))})
    with pytest.raises(UnknownName, match="choice c1"):
        Capacities(DRAW, {("sby", DAY): {"am": 1}}, {"c1": make_preference("sby", ("am",), day=DAY + 1)})
    choices = dict.fromkeys((f"c{index}" for index in range(200_001)), make_preference("sby", ("am",)))
    with pytest.raises(InvalidRequest, match="200001 choices"):
        Capacities(DRAW, {("sby", DAY): {"am": 1}}, choices)
    with pytest.raises(InvalidRequest, match="days: units"):
        Capacities(DRAW, {("sby", DAY): {"am": -1}}, {"c1": make_preference("sby", ("am",))})
    with pytest.raises(InvalidRequest, match="at most 256"):
        Capacities(
            DRAW, {("sby", DAY): {f"q{index}": 1 for index in range(257)}}, {"c1": make_preference("sby", ("q0",))}
        )
    with pytest.raises(InvalidRequest, match=r"preference\.day"):
        Preference("sby", 0, make_preference("sby", ("am",)).choice)
