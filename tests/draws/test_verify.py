"""Verification of published draws."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from quota_engine.draws.files import (
    ResultHead,
    canonical_lines,
    digest_of,
    json_of_capacities,
    lines_of_result,
    result_head,
    result_of_lines,
)
from quota_engine.draws.lottery import Application, Capacities, Lot, allot, key_of, totals_of
from quota_engine.draws.verify import FINDINGS_MAX, NOTHING_NOTED, Expected, check_draw
from tests.support.draw_samples import COMMITMENT, DRAW, SEED, random_applications, random_capacities


class Published(NamedTuple):
    """Everything that is published about a draw."""

    head: ResultHead
    lots: list[tuple[Lot, str]]
    capacities: Capacities
    applications: list[Application]

    def findings(self, expected: Expected = NOTHING_NOTED) -> list[str]:
        return check_draw(
            self.head,
            self.lots,
            self.capacities,
            self.applications,
            digest_of([json_of_capacities(self.capacities)]),
            digest_of(canonical_lines(self.applications)),
            expected,
        )


def published(seed: int, entropy: str = "") -> Published:
    random = Random(seed)
    capacities = random_capacities(random)
    applications = sorted(random_applications(random, capacities, 12), key=lambda one: one.number)
    by_number = {one.number: one for one in applications}
    lots = allot(capacities, key_of(DRAW, SEED, entropy), applications)
    head = result_head(
        capacities,
        COMMITMENT,
        SEED,
        entropy,
        digest_of([json_of_capacities(capacities)]),
        digest_of(canonical_lines(applications)),
        totals_of(by_number, lots),
    )
    return Published(*result_of_lines(lines_of_result(head, lots, by_number), "f"), capacities, applications)


@given(st.integers(0, 10**6), st.sampled_from(["", "7,123.45"]))
def test_unchanged_draw_has_no_findings(seed: int, entropy: str) -> None:
    draw = published(seed, entropy)
    assert draw.findings() == []
    noted = Expected(COMMITMENT, draw.head.applications_digest, draw.head.capacities_digest, entropy)
    assert draw.findings(noted) == []


@given(st.integers(0, 10**6), st.data())
def test_any_change_of_the_result_is_found(seed: int, data: st.DataObject) -> None:
    """Exchange ranks, change a choice or an option, or remove, duplicate or invent a line."""
    draw = published(seed)
    at = data.draw(st.integers(0, len(draw.lots) - 1))
    lot, choice = draw.lots[at]
    other, other_choice = draw.lots[at - 1]
    changes: dict[str, list[tuple[Lot, str]]] = {
        "rank": [(replace(lot, rank=other.rank), choice), (replace(other, rank=lot.rank), other_choice)],
        "preference": [(replace(lot, preference=lot.preference + 1), choice), (other, other_choice)],
        "choice": [(lot, choice + "x"), (other, other_choice)],
        "option": [(replace(lot, option=lot.option + 1), choice), (other, other_choice)],
        "missing": [(other, other_choice)],
        "twice": [(lot, choice), (lot, choice), (other, other_choice)],
        "made up": [(lot, choice), (other, other_choice), (Lot(9_999_999, 13), "")],
    }
    change = data.draw(st.sampled_from(sorted(changes)))
    rest = [one for index, one in enumerate(draw.lots) if index not in (at, (at - 1) % len(draw.lots))]
    assert draw._replace(lots=[*rest, *changes[change]]).findings(), change


def test_unearned_choice_is_reported_with_the_right_one() -> None:
    draw = published(3)
    loser = next(index for index, (lot, _) in enumerate(draw.lots) if not lot.preference)
    lot, _ = draw.lots[loser]
    application = next(one for one in draw.applications if one.number == lot.number)
    lots = list(draw.lots)
    lots[loser] = (replace(lot, preference=1, option=1), application.choices[0])
    findings = draw._replace(lots=lots).findings()
    expected = f"application {lot.number} (rank {lot.rank}): got choice 1 ({application.choices[0]}, option 1)"
    assert any(finding.startswith(expected) and finding.endswith("was nothing") for finding in findings)


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda draw: draw._replace(head=replace(draw.head, seed="1" * 64)), "the seed does not match the commitment"),
        (lambda draw: draw._replace(head=replace(draw.head, entropy="9")), "but its lot has rank"),
        (lambda draw: draw._replace(head=replace(draw.head, draw="other")), "the result is of draw other"),
        (lambda draw: draw._replace(applications=draw.applications[1:]), "the applications have the digest"),
        (lambda draw: draw._replace(applications=draw.applications[1:]), "but not among the applications"),
        (
            lambda draw: draw._replace(applications=[*draw.applications, draw.applications[0]]),
            "the number occurs twice",
        ),
        (
            lambda draw: draw._replace(
                applications=[*draw.applications, replace(draw.applications[0], number=5_000_000)]
            ),
            "an applicant is in application",
        ),
        (
            lambda draw: draw._replace(applications=[replace(one, choices=("zz",)) for one in draw.applications]),
            "its choice zz is not among those",
        ),
        (
            lambda draw: draw._replace(
                capacities=replace(
                    draw.capacities, days={place: dict.fromkeys(day, 9) for place, day in draw.capacities.days.items()}
                )
            ),
            "the capacities have the digest",
        ),
        (lambda draw: draw._replace(applications=draw.applications[::-1]), "its line comes after that of application"),
        (lambda draw: draw._replace(lots=draw.lots[::-1]), "its line in the result comes after"),
        (
            lambda draw: draw._replace(head=replace(draw.head, totals=replace(draw.head.totals, winners=0))),
            "the totals in the head",
        ),
        (
            lambda draw: draw._replace(head=replace(draw.head, totals=replace(draw.head.totals, by_preference=(12,)))),
            "the totals by preference",
        ),
    ],
)
def test_each_change_is_reported(change: Callable[[Published], Published], finding: str) -> None:
    assert any(finding in one for one in change(published(3)).findings())


@pytest.mark.parametrize(
    ("expected", "finding"),
    [
        (Expected(commitment="0" * 64), "but 0000"),
        (Expected(applications_digest="0" * 64), "the applications have the digest"),
        (Expected(capacities_digest="0" * 64), "the capacities have the digest"),
        (Expected(entropy="7,123.45"), "the entropy is not the expected text"),
    ],
)
def test_noted_values_expose_a_consistent_forgery(expected: Expected, finding: str) -> None:
    """All files match each other, but not the values that were published before the draw."""
    (found,) = published(3).findings(expected)
    assert finding in found


def test_findings_are_bounded() -> None:
    draw = published(3)
    capacities = random_capacities(Random(1))
    many = [Application(number, (f"a{number}",), (min(capacities.preferences),)) for number in range(1, 200)]
    assert len(draw._replace(applications=many, capacities=capacities).findings()) == FINDINGS_MAX
