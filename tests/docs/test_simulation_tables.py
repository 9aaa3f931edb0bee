"""The tables of parameters in ``docs/simulation.md`` and ``docs/fairness.md`` and the code say the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from quota_engine.simulation.scenario import Scenario
from tests.support.paths import DOCS

_UNDOCUMENTED = re.compile(r"title|bookings\[\d\]\.(service|service_unit|session|channel|group)|network\[0\]\.region")


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _flat(item, f"{key}.{name}" if key else name)
    elif isinstance(value, list | tuple) and value and isinstance(value[0], dict):
        for index, item in enumerate(value):
            yield from _flat(item, f"{key}[{index}]")
    elif isinstance(value, list | tuple):
        yield key, ", ".join(map(str, value)) or ("none" if key.startswith("load_test.") else "all")
    elif value is None:
        yield key, "none" if key.startswith("limits.") else "by the policy"
    else:
        yield key, str(value) or "each office's own"


def test_every_parameter_stands_in_a_table_with_its_default() -> None:
    text = "".join((DOCS / f"{page}.md").read_text("utf-8") for page in ("simulation", "fairness"))
    rows = re.findall(r"^\| `([a-z_.\[\]0-9]+)` \| ([^|]*) \|", text, re.MULTILINE)
    expected = [row for row in _flat(msgspec.to_builtins(Scenario())) if not _UNDOCUMENTED.fullmatch(row[0])]
    keys = {key for key, _ in expected}
    assert sorted(row for row in rows if row[0] in keys or "." in row[0]) == sorted(row for row in expected)
