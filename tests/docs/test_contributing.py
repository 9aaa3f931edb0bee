"""The examples of CONTRIBUTING.md work: the policy in an engine, the store in the whole conformance suite."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quota_engine import ManualClock
from quota_engine.conformance.plugin import OpenStore
from quota_engine.conformance.test_backend import *  # noqa: F403
from quota_engine.conformance.world import DAY, OFFICE, ONLINE, OPENS_AT_MS, published, reserve
from quota_engine.domain.outcomes import Status
from quota_engine.ports import Clock, Describe, Store

POLICY, STORE = re.findall(
    r"^```python\n(.*?)^```$", (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(), re.DOTALL | re.MULTILINE
)


def open_journal(path: Path, clock: Clock) -> Store:
    """Open the store of the example."""
    namespace: dict[str, Any] = {}
    exec(STORE, namespace)  # noqa: S102 - our own document
    store: Store = namespace["open_store"](f"journal://{path}", clock)
    return store


@pytest.fixture
def quota_engine_backend(tmp_path: Path) -> Iterator[OpenStore]:
    """Replaces the fixture of the suite."""
    opened: list[Store] = []

    def open_store(clock: Clock) -> Store:
        opened.append(open_journal(tmp_path / f"journal-{len(opened)}", clock))
        return opened[-1]

    yield open_store
    for store in opened:
        store.close()


def test_the_journal_survives_a_restart(tmp_path: Path) -> None:
    clock = ManualClock(OPENS_AT_MS - 1)
    store = open_journal(tmp_path / "journal", clock)
    for command in published():
        store.apply(OFFICE, command)
    clock.set_ms(OPENS_AT_MS)
    assert store.apply(OFFICE, reserve("ani", ONLINE, day=DAY)).status is Status.HELD
    before = store.execute(Describe(OFFICE))
    store.close()
    reopened = open_journal(tmp_path / "journal", clock)
    assert reopened.execute(Describe(OFFICE)) == before
    reopened.close()


def test_the_policy_decides() -> None:
    exec(POLICY, {"__name__": "example"})  # noqa: S102 - our own document
