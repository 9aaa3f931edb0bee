"""Patterns of identities: which parts they may have, and that no text makes a match slow."""

from __future__ import annotations

import re

import pytest

from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.identity_pattern import WAYS_MAX, PatternBounds, can_match, check_pattern


@pytest.mark.parametrize(
    ("pattern", "bounds"),
    [
        (r"\d{16}", (16, 16, 1)),
        (r"[A-Z]{1,2}\d{6,8}", (7, 10, 6)),
        (r"[A-Z]\d{7}|\d{16}", (8, 16, 2)),
        (r"(?:AB|C)?\d{3}", (3, 5, 3)),
        (r"((a?b){2}){2}", (4, 8, 16)),
        (r"\d{9}[0-9X\]]\.\\", (12, 12, 1)),
        (r"[^ \]-]{2}", (2, 2, 1)),
        ("é{2}", (2, 2, 1)),
    ],
)
def test_bounds_follow_from_the_parts(pattern: str, bounds: tuple[int, int, int]) -> None:
    assert check_pattern(pattern, "pattern")[:3] == bounds
    assert PatternBounds(*bounds) == check_pattern(pattern, "pattern")._replace(atoms=frozenset())


@pytest.mark.parametrize(
    "pattern",
    [
        "", "a" * 201, r"\d*", r"\d+", ".", "^a", "a$", "(a+)+b", r"(a)\1", "(?=a)a", "(?P<x>a)", "(?i)a", r"\w",
        r"\b", r"\D", "a{2}{3}", "a??", "a{2}?", "a{,3}", "a{3,}", "a{4,2}", "{3}", "(a", "a)", "[a", "[", "[[a]]",
        "[b-a]", "[a--b]", "a\\", "a?", "()",
        "a{257}", "(a{99}){99}", "(" * 9 + "a" + ")" * 9,
        r"(a?){30}", r"(a|aa){30}", r"\d{0,30}\d{0,30}\d{0,30}", "(a{0,9}){9}", r"(\d{1,200}\d{1,200}){1}",
    ],
)  # fmt: skip
def test_other_parts_and_slow_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(InvalidRequest, match=r"identity\.pattern"):
        check_pattern(pattern, "identity.pattern")


def test_a_pattern_with_the_most_ways_is_fast() -> None:
    """The worst text makes the matcher try all ways, each with at most one step a character."""
    pattern = r"(\d{1,9}){3}x"
    assert WAYS_MAX // 2 < check_pattern(pattern, "pattern").ways <= WAYS_MAX
    for _ in range(100):
        assert re.fullmatch(pattern, "1" * 256) is None


def test_can_match_knows_the_characters_of_a_pattern() -> None:
    bounds = check_pattern(r"(?:[A-C]|\d){3}-?", "pattern")
    assert [one for one in "ABCD5- .\uff15" if can_match(bounds, one)] == ["A", "B", "C", "5", "-"]
