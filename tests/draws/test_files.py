"""Files of a draw: canonical forms and issues."""

from __future__ import annotations

import hashlib
import json
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quota_engine.domain.errors import CatalogError, InvalidRequest
from quota_engine.draws.files import (
    ISSUES_MAX,
    applications_of_csv,
    applications_of_lines,
    canonical_lines,
    capacities_of_json,
    digest_of,
    json_of_capacities,
    line_of_application,
    lines_of_result,
    pseudonym_of,
    result_head,
    result_of_lines,
)
from quota_engine.draws.lottery import Application, Capacities, Lot, allot, key_of, totals_of
from tests.support.draw_samples import COMMITMENT, DRAW, SEED, random_applications, random_capacities

KEY_BYTES = bytes(range(16))


def issues(caught: pytest.ExceptionInfo[CatalogError]) -> list[tuple[str, str]]:
    return [(one.key, one.value) for one in caught.value.issues]


def test_capacities_file_does_not_change() -> None:
    """Auditors compare the file's digest, so its indentation counts as well."""
    lines = json_of_capacities(Capacities("d", {("surabaya", 1): {"online": 2}}, {})).split(b"\n")
    assert lines[:3] == [b"{", b' "format": "quota-engine draw capacities 1",', b' "draw": "d",']
    assert lines[-2:] == [b"}", b""]


@given(st.integers(0, 10**6))
def test_files_round_trip(seed: int) -> None:
    """Capacities, applications in both formats and results keep their content and digest."""
    random = Random(seed)
    capacities = random_capacities(random)
    text = json_of_capacities(capacities)
    assert capacities_of_json(text, "f") == capacities
    applications = random_applications(random, capacities, random.randint(0, 9))
    lines = list(canonical_lines(applications))
    in_order = sorted(applications, key=lambda one: one.number)
    assert list(applications_of_lines(lines, "f")) == in_order
    rows = ["party,number,choices,applicants\n"] + [
        f"{one.units},{one.number},{' '.join(one.choices)},{' '.join(one.applicants)}\n" for one in applications
    ]
    assert digest_of(canonical_lines(list(applications_of_csv(rows, "f")))) == digest_of(lines)
    by_number = {one.number: one for one in applications}
    lots = allot(capacities, key_of(DRAW, SEED), applications)
    totals = totals_of(by_number, lots)
    head = result_head(capacities, COMMITMENT, SEED, "x", digest_of([text]), digest_of(lines), totals)
    result = list(lines_of_result(head, lots, by_number))
    read_head, read_lots = result_of_lines(result, "f")
    assert read_head == head
    assert [lot for lot, _ in read_lots] == sorted(lots, key=lambda lot: lot.number)
    for lot, choice in read_lots:
        assert choice == (by_number[lot.number].choices[lot.preference - 1] if lot.preference else "")


def test_canonical_line_is_json() -> None:
    line = line_of_application(Application(17, ("ab", "cd"), ("c1", "c2")))
    assert line == b'{"number":17,"party":2,"applicants":["ab","cd"],"choices":["c1","c2"]}\n'
    assert digest_of([line, line]) == hashlib.sha256(line + line).hexdigest()


def test_order_and_spaces_do_not_change_the_digest() -> None:
    tidy = [b'{"number":1,"party":1,"applicants":["a"],"choices":["c1"]}\n']
    tidy += [b'{"number":2,"party":1,"applicants":["b"],"choices":["c2"]}\n']
    untidy = [b'{ "choices": ["c2"], "applicants": ["b"], "number": 2 }\r\n', b"\n", b"  \n", tidy[0].rstrip()]
    assert list(canonical_lines(list(applications_of_lines(untidy, "f")))) == tidy


def test_capacities_are_sorted_in_canonical_form() -> None:
    """Empty names are omitted."""
    text = json_of_capacities(random_capacities(Random(5)))
    raw = json.loads(text)
    raw["days"].reverse()
    raw["choices"].reverse()
    for row in raw["days"]:
        row["quotas"] = dict(reversed(row["quotas"].items()))
    assert json_of_capacities(capacities_of_json(json.dumps(raw).encode(), "f")) == text
    assert b'"group"' not in text


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"{", "truncated"),
        (b"[]", "Expected `object`, got `array`"),
        (b'{"number":1}', "missing required field"),
        (b'{"number":"1","applicants":["a"],"choices":["c"]}', "Expected `int`, got `str`"),
        (b'{"number":0,"applicants":["a"],"choices":["c"]}', ">= 1"),
        (b'{"number":1.5,"applicants":["a"],"choices":["c"]}', "Expected `int`, got `float`"),
        (b'{"number":1,"applicants":[],"choices":["c"]}', "length >= 1"),
        (b'{"number":1,"applicants":["3578 0112"],"choices":["c"]}', "matching regex"),
        (b'{"number":1,"applicants":["a\\n"],"choices":["c"]}', "matching regex"),
        (b'{"number":1,"applicants":["a"],"choices":["c"],"name":"Ani"}', "unknown field"),
        (b'{"number":1,"party":2,"applicants":["a"],"choices":["c"]}', "2 for 1 applicants"),
        (b"\xff{}", "malformed"),
        (b" " * 70_000 + b"1", "70001 bytes"),
    ],
)
def test_invalid_lines_are_reported_with_their_number(line: bytes, problem: str) -> None:
    good = b'{"number":9,"applicants":["a"],"choices":["c"]}'
    with pytest.raises(CatalogError) as caught:
        list(applications_of_lines([good, line, good], "list.jsonl"))
    ((key, value),) = issues(caught)
    assert key.startswith("line 2")
    assert problem in value
    assert "3578" not in str(caught.value)
    assert "Ani" not in str(caught.value)


def test_reading_stops_at_the_last_reported_issue() -> None:
    read = []

    def lines() -> object:
        for index in range(1_000):
            read.append(index)
            yield b"?"

    with pytest.raises(CatalogError) as caught:
        list(applications_of_lines(lines(), "f"))  # type: ignore[arg-type]
    assert len(caught.value.issues) == ISSUES_MAX == len(read)


@pytest.mark.parametrize(
    ("rows", "place", "problem"),
    [
        ([], "line 1", ""),
        (["number,choices\n"], "line 1", "number,choices"),
        (["number,applicants,choices,name\n"], "line 1", "number,applicants,choices,name"),
        (["number,applicants,choices\n", "1,a\n"], "line 2, row", "2 cells"),
        (["number,applicants,choices\n", "1e3,a,c\n"], "line 2, number", "not a number"),
        (["number,applicants,choices\n", "²,a,c\n"], "line 2, number", "not a number"),
        (["number,applicants,choices\n", "1,,c\n"], "line 2", "length >= 1"),
        (["number,applicants,choices,party\n", "1,a b,c,3\n"], "line 2, party", "3 for 2 applicants"),
        (["number,applicants,choices\n", '1,"a"b,c\n'], "line 2", "expected after"),
    ],
)
def test_invalid_rows_are_reported_with_their_number(rows: list[str], place: str, problem: str) -> None:
    with pytest.raises(CatalogError) as caught:
        list(applications_of_csv(rows, "list.csv"))
    ((key, value),) = issues(caught)
    assert key == place
    assert problem in value


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda raw: raw.update(format="other"), "other"),
        (lambda raw: raw.update(draw="a b"), "matching regex"),
        (lambda raw: raw.update(more=1), "unknown field"),
        (lambda raw: raw["days"].append(raw["days"][0]), "twice"),
        (lambda raw: raw["choices"].append(raw["choices"][0]), "c1 twice"),
        (lambda raw: raw["days"][0].update(day="2026-02-30"), "Invalid"),
        (lambda raw: raw["days"][0]["quotas"].update(all=-1), ">= 0"),
        (lambda raw: raw["choices"][0].update(options=[]), "length >= 1"),
        (lambda raw: raw["choices"][0].update(options=[["nothing"]]), "the day has no quota"),
        (lambda raw: raw["choices"][0].update(options=[["all", "all"]]), "an alternative of 2 quotas"),
        (lambda raw: raw["choices"][0].update(channel="a b"), "not a valid id"),
    ],
)
def test_invalid_capacities_are_reported(change: object, problem: str) -> None:
    raw = json.loads(json_of_capacities(random_capacities(Random(5))))
    change(raw)  # type: ignore[operator]
    with pytest.raises(CatalogError) as caught:
        capacities_of_json(json.dumps(raw).encode(), "capacities.json")
    ((_, value),) = issues(caught)
    assert problem in value


@pytest.mark.parametrize(
    ("lines", "place"),
    [
        ([], "line 1"),
        ([b"{}"], "line 1"),
        ([b"HEAD", b"{}"], "line 2"),
        ([b"HEAD", b'{"number":1,"rank":0}'], "line 2"),
        ([b"OTHER"], "line 1, format"),
        ([b"ENTROPY"], "line 1, entropy"),
    ],
)
def test_invalid_results_are_reported(lines: list[bytes], place: str) -> None:
    capacities = random_capacities(Random(5))
    head = result_head(capacities, COMMITMENT, SEED, "", "0" * 64, "0" * 64, totals_of({}, []))
    (first,) = lines_of_result(head, [], {})
    texts = {
        b"HEAD": first,
        b"OTHER": first.replace(b"result 1", b"result 9"),
        b"ENTROPY": first.replace(b'"entropy":""', '"entropy":"é"'.encode()),
    }
    with pytest.raises(CatalogError) as caught:
        result_of_lines([texts.get(line, line) for line in lines], "result.jsonl")
    assert issues(caught)[0][0] == place


def test_pseudonym_is_constant_within_a_draw_only() -> None:
    one = pseudonym_of("a", DRAW, KEY_BYTES)
    assert one == pseudonym_of("a", DRAW, KEY_BYTES)
    assert (
        len(
            {
                one,
                pseudonym_of("b", DRAW, KEY_BYTES),
                pseudonym_of("a", "jan", KEY_BYTES),
                pseudonym_of("a", DRAW, b"k" * 16),
            }
        )
        == 4
    )
    assert len(one) == 32
    for key in (b"short", b"k" * 65, "k" * 16):
        with pytest.raises(InvalidRequest):
            pseudonym_of("a", DRAW, key)  # type: ignore[arg-type]


def test_line_without_a_place_is_short() -> None:
    """A result also lists a million applications that got nothing."""
    application = Application(5, ("a",), ("c1",))
    capacities = random_capacities(Random(5))
    head = result_head(capacities, COMMITMENT, SEED, "", "0" * 64, "0" * 64, totals_of({}, []))
    _, loser = lines_of_result(head, [Lot(5, 2)], {5: application})
    _, winner = lines_of_result(head, [Lot(5, 2, 1, 1)], {5: application})
    assert loser == b'{"number":5,"rank":2}\n'
    assert winner == b'{"number":5,"rank":2,"preference":1,"choice":"c1","option":1}\n'
