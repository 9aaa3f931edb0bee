"""The converter on other types than a catalog's."""

from __future__ import annotations

import datetime
import enum
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from quota_engine.catalog import convert


class Color(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


class Inner(msgspec.Struct, frozen=True):
    rate: Annotated[float, Meta(gt=0, le=1.5)]
    color: Color = Color.RED


class Outer(msgspec.Struct, frozen=True, kw_only=True):
    name: Annotated[str, Meta(min_length=1, max_length=5)]
    inner: Inner | None = None
    items: list[Inner] = []
    table: dict[str, int] = {}
    day: datetime.date | None = None
    at: datetime.time | None = None
    mode: Literal["a", "b"] = "a"
    anything: Any = None

    def __post_init__(self) -> None:
        if self.name == "bad":
            raise ValueError("another name than bad")


def found(raw: object) -> list[tuple[str, str, str]]:
    value, mistakes = convert(raw, Outer, "f")
    assert (value is None) == bool(mistakes)
    return [(mistake.key, mistake.value, mistake.expected) for mistake in mistakes]


def test_valid_data_is_converted() -> None:
    raw = {
        "name": "x",
        "inner": {"rate": 1, "color": "blue"},
        "items": [{"rate": 0.5}],
        "table": {"a b": 1},
        "day": "2026-01-02",
        "at": datetime.time(9),
        "mode": "b",
        "anything": [1, {}],
    }
    assert convert(raw, Outer, "f") == (
        Outer(
            name="x",
            inner=Inner(1.0, Color.BLUE),
            items=[Inner(0.5)],
            table={"a b": 1},
            day=datetime.date(2026, 1, 2),
            at=datetime.time(9),
            mode="b",
            anything=[1, {}],
        ),
        [],
    )


def test_every_issue_is_reported() -> None:
    raw = {
        "name": "",
        "inner": {"rate": 0, "color": "rod"},
        "items": [{"rate": float("nan")}, {}, 3],
        "table": {"a b": True, "c": "1"},
        "day": datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
        "at": "09:00+07:00",
        "mode": [],
    }
    assert found(raw) == [
        ("name", "''", "a string of 1 to 5 characters"),
        ("inner.rate", "0", "a number above 0 of at most 1.5"),
        ("inner.color", "'rod'", "one of red, blue; did you mean 'red'?"),
        ("items[0].rate", "nan", "a number above 0 of at most 1.5"),
        ("items[1].rate", "missing", "a number above 0 of at most 1.5"),
        ("items[2]", "3", "a table"),
        ("table['a b']", "true", "an integer"),
        ("table.c", "'1'", "an integer"),
        ("day", "2026-01-02T00:00:00+00:00", 'a date such as "2026-08-17"'),
        ("at", "'09:00+07:00'", 'a time of the day such as "09:00"'),
        ("mode", "[]", "one of a, b"),
    ]


def test_an_error_of_post_init_is_reported() -> None:
    assert found({"name": "bad"}) == [("file", "invalid", "another name than bad")]


def test_an_unsupported_type_raises_type_error() -> None:
    with pytest.raises(TypeError, match="no conversion"):
        convert({"a": 1}, set[int], "f")


def test_a_long_value_is_abbreviated() -> None:
    ((_, value, _),) = found({"name": "x" * 10_000})
    assert len(value) <= 60


@given(
    st.dictionaries(st.sampled_from(["name", "inner", "items", "table", "day", "at", "mode"]), st.text() | st.none())
)
def test_the_converter_accepts_the_same_data_as_msgspec(raw: dict[str, Any]) -> None:
    """msgspec is the independent implementation. It stops at its first error."""
    try:
        expected = msgspec.convert(raw, Outer)
    except msgspec.ValidationError:
        expected = None
    assert convert(raw, Outer, "f")[0] == expected
