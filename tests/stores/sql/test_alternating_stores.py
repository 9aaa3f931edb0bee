"""Walks of random commands that alternate between stores on one file: each replays the entries of the other stores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from quota_engine.admission.guarded_command import describe_admission
from quota_engine.clocks import ManualClock
from quota_engine.ledger_kinds import OFFICE as OFFICE_KIND
from quota_engine.ledger_kinds import kind_of
from quota_engine.ports import Audit, Describe, TrimEvents
from quota_engine.stores.sql import transactions
from quota_engine.stores.sql.sqlite import factory
from quota_engine.stores.sql.sync_store import SqlStore
from tests.stores.sql.test_ledger_state import KINDS, walk


class Stores:
    """Three stores on one file, one of which is closed and opened again at random times."""

    def __init__(self, path: Path, random: Random) -> None:
        self._url = f"sqlite://{path}/quota.db?durability=memory"
        self._random = random
        self.clock = ManualClock(0)
        self._stores = [self._open() for _ in range(3)]

    def _open(self) -> SqlStore:
        return factory.open_store(self._url, self.clock)

    def next(self) -> SqlStore:
        """Return one of the stores."""
        index = self._random.randrange(3)
        if self._random.random() < 0.03:
            self._stores[index].close()
            self._stores[index] = self._open()
        return self._stores[index]

    def close(self) -> None:
        """Close all stores."""
        for store in self._stores:
            store.close()


@pytest.fixture
def stores(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Stores]:
    it = Stores(tmp_path, Random(str(request.node.name)))
    yield it
    it.close()


@pytest.mark.slow
@pytest.mark.usefixtures("invariant_checks")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("walk_seed", [1])
def test_outcomes_do_not_depend_on_the_store(
    stores: Stores, kind: str, walk_seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outcomes and state equal those of one pure state, with snapshots every few entries and trimmed events."""
    monkeypatch.setattr(transactions, "_SNAPSHOT_BYTES_MIN", 2000)
    address, commands = walk(kind, walk_seed)
    rules = kind_of(address)
    reference: Any = rules.new(address)
    for number, (now_ms, command) in enumerate(commands):
        stores.clock.set_ms(now_ms)
        assert stores.next().apply(address, command) == rules.apply(reference, command, now_ms), (number, command)
        if number % 20 == 0:
            assert stores.next().execute(Describe(address)) == rules.describe(reference)
        if number % 101 == 100 and rules is OFFICE_KIND:
            stores.next().execute(TrimEvents(address, number))
    store = stores.next()
    assert store.execute(Describe(address)) == rules.describe(reference)
    if rules is OFFICE_KIND:
        assert store.execute(Audit(address)) == []
        ledger = store._transactions.cache.get(address)
        assert ledger is not None
        assert describe_admission(ledger.state.state) == describe_admission(reference)
