"""Any content gives a catalog or a ``CatalogError``."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quota_engine.catalog import catalog_from
from quota_engine.domain.errors import CatalogError, ValidationIssue
from tests.support.catalog_samples import sample

_KEYS = st.sampled_from(
    ["services", "channels", "groups", "schedules", "plans", "offices", "rules", "holidays", "id", "kind", "x"]
)
_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates() | st.times()
_JSON = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS | st.text(max_size=3), inner, max_size=4),
)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(deeper for name, item in entries for deeper in _paths(item, (*path, name)))]


_PATHS = _paths(sample())[1:]


@pytest.mark.slow
@given(_JSON)
def test_arbitrary_data_raises_only_catalog_errors(raw: Any) -> None:
    with pytest.raises(CatalogError):
        catalog_from(raw)


@pytest.mark.slow
@given(st.lists(st.tuples(st.sampled_from(_PATHS), _JSON), min_size=1, max_size=4))
def test_a_valid_file_with_arbitrary_parts_raises_only_catalog_errors(changes: list[tuple[Any, Any]]) -> None:
    raw = sample()
    for path, value in changes:
        place: Any = raw
        try:
            for part in path[:-1]:
                place = place[part]
            place[path[-1]] = value
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change has replaced this part
    mistakes: tuple[ValidationIssue, ...] = ()
    try:
        catalog_from(raw)
    except CatalogError as error:
        mistakes = error.issues
    assert all(len(mistake.value) <= 200 and mistake.key and mistake.expected for mistake in mistakes)
