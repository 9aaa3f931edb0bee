"""Tests of the checks: each broken promise is found, from the observations or from the target's state."""

from __future__ import annotations

import datetime
from typing import Any

import msgspec
import pytest

from quota_engine.draws.files import applications_of_lines, capacities_of_json, result_of_lines
from quota_engine.loadtest.checks import TargetState, check_draw, check_limits, check_observations, check_target_state
from quota_engine.loadtest.draw_run import DrawRunResult
from quota_engine.loadtest.observations import ApplicationReceipt, BookedPlace, Observations
from quota_engine.simulation.scenario import LoadTestLimits
from tests.support.loadtest_samples import QUOTAS, books_of, event, place, small_market, small_plan
from tests.support.paths import DOCS


def kinds(observations: Observations, view: TargetState | None = None, missing: int = 0) -> list[str]:
    plan = small_plan()
    supply = small_market(plan)
    found = check_observations(plan, supply, observations, missing)
    if view is not None:
        found += check_target_state(plan, supply, observations, view)
    return [finding.kind for finding in found]


def view_of(*events: dict[str, object], audit: tuple[str, ...] = ()) -> TargetState:
    return TargetState({"surabaya": list(events)}, list(audit), [])


def test_consistent_observations_have_no_finding() -> None:
    one, two = place(1, 1), place(2, 2)
    events = (event(one, 1, "HELD"), event(one, 2), event(two, 3, "HELD"), event(two, 4))
    assert kinds(books_of(one, two), view_of(*events)) == []


def test_a_double_queue_number_is_found() -> None:
    assert kinds(books_of(place(1, 7), place(2, 7))) == ["double number"]


def test_a_place_without_a_queue_number_is_found() -> None:
    without = place(1, 1)
    without.queue_numbers = ()
    assert kinds(books_of(without)) == ["double number"]


def test_one_identity_with_two_places_is_found() -> None:
    """A broker's customer (requests from number 900 on) is another identity."""
    assert kinds(books_of(place(1, 1), place(1, 2, selection=1))) == ["duplicate"]
    assert kinds(books_of(place(1, 1), place(1, 2, selection=900))) == []
    assert kinds(books_of(place(1, 1, "EXPIRED"), place(1, 2, selection=1))) == []


def test_places_above_capacity_are_found() -> None:
    """Places of a capacity that an operator raised are no finding."""
    places = [place(person, person) for person in range(1, 102)]
    events = [event(each, number) for number, each in enumerate(places, 1)]
    observations = books_of(*places)
    assert kinds(observations, view_of(*events)) == ["oversold", "oversold"]
    observations.capacities = {"0/online": 101, "0/morning": 120}
    assert kinds(observations, view_of(*events)) == []


def test_people_without_an_answer_are_found() -> None:
    observations = books_of()
    observations.record_unanswered(3, 0, "reserve")
    assert kinds(observations) == ["unanswered"]
    observations.metrics.gave_up = 1
    assert kinds(observations, missing=1) == ["unanswered"] * 3


def test_a_hold_lost_in_a_crash_is_found() -> None:
    observations = books_of()
    observations.metrics.holds_lost = 1
    assert kinds(observations) == ["lost"]


def test_a_refused_pass_is_found() -> None:
    observations, together = books_of(), books_of()
    observations.passes_refused = 2
    for page in observations.messages():
        together.add_message(page)
    assert kinds(together) == ["lost"]


def test_a_place_without_an_event_is_found() -> None:
    one, two = place(1, 1), place(2, 2)
    assert kinds(books_of(one), view_of()) == ["lost"]
    assert kinds(books_of(one, two), view_of(event(one, 1), event(two, 2, "EXPIRED"))) == ["lost"]
    held = place(3, state="HELD")
    assert kinds(books_of(held), view_of(event(held, 1, "EXPIRED"))) == []


def test_a_place_that_no_person_knows_is_found() -> None:
    """A reservation of another run is no finding."""
    stray = place(5, 5)
    assert kinds(books_of(), view_of(event(stray, 1))) == ["leak"]
    stray.reference = "surabaya~somebody-else"
    assert kinds(books_of(), view_of(event(stray, 1))) == []


def test_counters_that_do_not_add_up_are_found() -> None:
    quota = {"capacity": 10, "overbooked": 0, "available": 5, "held": 2, "confirmed": 2, "cooling": 0, "parked": 0}
    view = TargetState({}, [], [{"online": quota}])
    assert kinds(books_of(), view) == ["leak"]
    quota["cooling"] = 1
    assert kinds(books_of(), view) == []


def test_audit_findings_are_included() -> None:
    assert kinds(books_of(), view_of(audit=("day 1: counted 3, held 2",))) == ["audit"]


def test_limits_are_measured() -> None:
    """A limit that the scenario does not set is not checked."""
    observations = books_of()
    observations.metrics.requests = 100
    observations.metrics.errors, observations.metrics.overloaded = 1, 10
    observations.metrics.answer_us.record(2_000_000)
    strict = LoadTestLimits(p99_ms_max=1, max_ms_max=1, error_ratio_max=0, come_back_ratio_max=0.05, sold_out_s_max=1)
    found = check_limits(strict, observations, people=10, capacity=5)
    assert [limit.name for limit in found if not limit.kept] == [
        "p99_ms_max", "max_ms_max", "error_ratio_max", "come_back_ratio_max", "sold_out_s_max",
    ]  # fmt: skip
    mild = LoadTestLimits(
        p99_ms_max=5000, max_ms_max=5000, error_ratio_max=0.1, come_back_ratio_max=0.2, sold_out_s_max=1
    )
    assert all(limit.kept for limit in check_limits(mild, observations, people=5, capacity=5))
    assert check_limits(LoadTestLimits(), observations, people=10, capacity=5) == []


@pytest.mark.parametrize("shares", [1, 3])
def test_messages_of_several_processes_add_up(shares: int) -> None:
    """Messages have at most 1,000 places."""
    whole, parts = Observations.empty(0, 0, -5), [Observations.empty(0, 0, -5) for _ in range(shares)]
    together = Observations.empty(0, 0, -5)
    for person in range(2500):
        for observations in (whole, parts[person % shares]):
            observations.record_place(
                BookedPlace(person, 0, f"surabaya~loadtest-test-{person}-0", "CONFIRMED", person, 1, QUOTAS, (person,))
            )
            observations.metrics.confirmed += 1
            observations.metrics.answer_us.record(person * 37)
            observations.metrics.sold.add(person * 1000 - 3_000_000)
            observations.metrics.answers_by_status["CONFIRMED"] = (
                observations.metrics.answers_by_status.get("CONFIRMED", 0) + 1
            )
            observations.requests_by_name["reserve"] += 1
    for part in parts:
        for page in part.messages():
            assert len(page.get("places", ())) <= 1000
            together.add_message(page)
    assert together.places == whole.places
    assert together.metrics.as_dict() == whole.metrics.as_dict()
    assert together.metrics.sold.window(-5, 5) == whole.metrics.sold.window(-5, 5)
    assert together.requests_by_name == whole.requests_by_name


def test_one_reservation_of_two_people_is_found() -> None:
    together = Observations.empty(0, 0, 0)
    for person in (1, 2):
        observations = Observations.empty(0, 0, 0)
        observations.record_place(BookedPlace(person, 0, "surabaya~loadtest-test-1-0", "CONFIRMED", 0, 1, QUOTAS, (9,)))
        for page in observations.messages():
            together.add_message(page)
    assert kinds(together) == ["double number"]


def drawn_of(**changes: Any) -> DrawRunResult:
    """Return the draw of the documents as a result in which every winner holds a place."""
    folder = DOCS / "draw"
    applications = applications_of_lines((folder / "applications.jsonl").read_bytes().splitlines(), "applications")
    head, lots = result_of_lines((folder / "result.jsonl").read_bytes().splitlines(), "result")
    draw_result = DrawRunResult(
        capacities_of_json((folder / "capacities.json").read_bytes(), "capacities"),
        {one.number: one for one in applications},
        head,
        [lot for lot, _ in lots],
        (),
        {lot.number: f"surabaya~{lot.number}" for lot, _ in lots if lot.preference},
        0,
        head.totals.winners,
    )
    return msgspec.structs.replace(draw_result, **changes)


def receipts_of(draw_result: DrawRunResult) -> Observations:
    """Return the receipts of the applicants in the documents' draw."""
    observations = books_of()
    for number, one in draw_result.applications.items():
        preferences = [draw_result.capacities.preferences[name] for name in one.choices]
        choices = tuple(
            {
                "office": preference.office,
                "day": datetime.date.fromordinal(preference.day).isoformat(),
                "session": preference.choice.session,
            }
            for preference in preferences
        )
        observations.receipts[number] = ApplicationReceipt(number, number, 1, tuple(reversed(one.applicants)), choices)
    return observations


def test_a_consistent_draw_passes_and_each_defect_is_found() -> None:
    """One test for all findings, because each needs the whole draw of the documents."""
    draw_result, together = drawn_of(), books_of()
    for page in receipts_of(draw_result).messages():
        together.add_message(page)
    assert check_draw(together, draw_result) == []
    refused = drawn_of(references={}, refused=10, findings=("the seed is another",))
    texts = [finding.text for finding in check_draw(together, refused)]
    assert texts == ["the seed is another", "10 have won, 0 of them hold a place, and 10 were refused one"]
    for receipt in receipts_of(draw_result).receipts.values():
        observations = receipts_of(draw_result)
        wrong = [
            msgspec.structs.replace(receipt, tokens=("somebody else",)),
            msgspec.structs.replace(receipt, choices=({**receipt.choices[0], "day": "2026-12-09"},)),
            msgspec.structs.replace(receipt, is_withdrawn=True),
        ]
        for each in wrong:
            observations.receipts[receipt.number] = each
            assert [finding.kind for finding in check_draw(observations, draw_result)] == ["draw"]
    observations = receipts_of(draw_result)
    observations.receipts[8] = ApplicationReceipt(8, 8, 1, ("withdrawn",), (), is_withdrawn=True)
    assert check_draw(observations, draw_result) == []
    del observations.receipts[7]
    observations.receipts_changed = 1
    assert [finding.kind for finding in check_draw(observations, draw_result)] == ["draw", "draw"]
