"""A store and a policy of third parties: the store in the whole conformance suite, both with processes that book."""

from __future__ import annotations

import importlib
import os
import pickle
import secrets
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from quota_engine import BackendUnavailable, InvalidRequest, ManualClock, QuotaEngine, Status, load_catalog
from quota_engine.conformance import test_backend as suite
from quota_engine.conformance.async_facade import AsyncStoreFacade
from quota_engine.conformance.plugin import OpenStore
from quota_engine.conformance.test_backend import *  # noqa: F403
from quota_engine.conformance.world import DAY, OFFICE, ONLINE, OPENS_AT_MS, published, reserve
from quota_engine.engine.store_discovery import store_factory
from quota_engine.ports import Clock, Describe, Store
from tests.support.paths import ROOT

EXAMPLES = ROOT / "examples"
KEY = b"a key of the recipes' tests"
PEOPLE, PLACES = 300, 50


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as an installation of the store leaves it: metadata with its entry point."""
    folder = tmp_path_factory.mktemp("installed")
    metadata = folder / "journal_store-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: journal-store\nVersion: 1.0\n", encoding="utf-8")
    (metadata / "entry_points.txt").write_text(
        "[quota_engine.backends]\njournal = third_party_store\n", encoding="utf-8"
    )
    return folder


@pytest.fixture(scope="module")
def on_path(installed: Path) -> Iterator[None]:
    """Make the entry point and the examples importable for all tests of this file: a change of the path is slow."""
    with pytest.MonkeyPatch.context() as patch:
        for folder in (installed, EXAMPLES):
            patch.syspath_prepend(str(folder))
        yield


def journal_url(folder: Path) -> str:
    """Return the URL of a new journal."""
    return f"journal://{folder / secrets.token_hex(8)}"


@pytest.fixture
def quota_engine_backend(tmp_path: Path, on_path: None) -> Iterator[OpenStore]:
    """Replaces the fixture of the suite: finds the store by its entry point."""
    factory = store_factory("journal://")
    opened: list[Store] = []

    def open_store(clock: Clock) -> Store:
        opened.append(factory.open_store(journal_url(tmp_path), clock))
        return opened[-1]

    yield open_store
    for store in opened:
        store.close()


class TestAsyncForm:
    """The form for asyncio calls the other one in threads, so that a part of the suite suffices."""

    @pytest.fixture
    def quota_engine_backend(self, tmp_path: Path, on_path: None) -> Iterator[OpenStore]:
        """Replaces the fixture of the module."""
        factory = store_factory("journal://")
        facades: list[AsyncStoreFacade] = []

        def open_store(clock: Clock) -> Store:
            facades.append(AsyncStoreFacade(lambda: factory.open_async_store(journal_url(tmp_path), clock)))
            return facades[-1]

        yield open_store
        for facade in facades:
            facade.stop()

    test_offices = staticmethod(suite.test_offices_are_independent)
    test_threads = staticmethod(suite.test_concurrent_reserves_sell_each_place_once)
    test_events = staticmethod(suite.test_events_are_read_in_pages_and_trimmed)


@pytest.fixture
def journal(tmp_path: Path, on_path: None) -> Iterator[tuple[Path, ManualClock, Store]]:
    """A store with a published day, its file and its clock."""
    clock = ManualClock(OPENS_AT_MS - 1)
    store = store_factory("journal://").open_store(f"journal://{tmp_path / 'journal'}", clock)
    for command in published():
        store.apply(OFFICE, command)
    clock.set_ms(OPENS_AT_MS)
    yield tmp_path / "journal", clock, store
    store.close()


def test_journal_is_shared_and_survives_a_torn_end(journal: tuple[Path, ManualClock, Store]) -> None:
    path, clock, store = journal
    other = store_factory("journal://").open_store(f"journal://{path}", clock)
    assert store.apply(OFFICE, reserve("ani", ONLINE, day=DAY)).status is Status.HELD
    assert other.apply(OFFICE, reserve("budi", ONLINE, day=DAY)).status is Status.HELD
    assert store.execute(Describe(OFFICE)) == other.execute(Describe(OFFICE))
    before = path.stat().st_size
    with path.open("ab") as file:
        file.write(pickle.dumps((clock.now_ms(), "apply", (OFFICE, reserve("citra", ONLINE, day=DAY))))[:-7])
    described = other.execute(Describe(OFFICE))
    assert "citra" not in str(described)
    other.close()
    reopened = store_factory("journal://").open_store(f"journal://{path}", clock)
    assert reopened.execute(Describe(OFFICE)) == described
    assert path.stat().st_size > before
    reopened.close()


def test_journal_that_cannot_be_written_does_nothing(
    journal: tuple[Path, ManualClock, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that takes half of an entry is full."""
    path, _, store = journal
    inner: Any = store
    before, size = store.execute(Describe(OFFICE)), path.stat().st_size

    class FullDisk:
        """Writes the first half only."""

        def __init__(self, file: Any) -> None:
            self._file = file

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

        def write(self, content: bytes) -> int:
            return int(self._file.write(content[: len(content) // 2]))

    with monkeypatch.context() as patch:
        patch.setattr(inner, "_file", FullDisk(inner._file))
        with pytest.raises(BackendUnavailable):
            store.apply(OFFICE, reserve("ani", ONLINE, day=DAY))
    assert path.stat().st_size == size
    assert store.execute(Describe(OFFICE)) == before


def variables(installed: Path, backend: str) -> dict[str, str]:
    """Return the variables of a process that books."""
    paths = [str(installed), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    key = b64encode(KEY).decode()
    own = {"QUOTA_ENGINE_BACKEND": backend, "QUOTA_ENGINE_IDENTITY_KEY": key, "PYTHONPATH": os.pathsep.join(paths)}
    return {**os.environ, **own}


@pytest.mark.slow
def test_two_processes_confirm_exactly_the_places_of_store_and_policy(
    installed: Path, on_path: None, tmp_path: Path
) -> None:
    """Both book for the same people, on the journal, one of them under the policy. Its head start is over."""
    backend = f"journal://{tmp_path / 'journal'}"
    day = datetime.now(UTC).date() + timedelta(days=3)
    people = "\n".join(f"person-{n}" for n in range(PEOPLE))
    processes = [
        subprocess.Popen(
            [sys.executable, str(EXAMPLES / name), day.isoformat()],
            env=variables(installed, backend), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for name in ("booking_threads.py", "third_party_policy.py")
    ]  # fmt: skip
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(people)
        process.stdin.close()
        process.stdin = None
    outputs = [process.communicate(timeout=100)[0] for process in processes]
    assert outputs == [f"CONFIRMED {PLACES}\nSOLD_OUT {PEOPLE - PLACES}\n"] * 2
    catalog = load_catalog(EXAMPLES / "clinic.toml")
    with QuotaEngine.open(backend, identity_key=KEY, catalog=catalog) as engine:
        assert engine.audit().ok
        (found,) = engine.availability("clinic", day)
        assert found.quotas["online"].confirmed == PLACES


def test_policy_gives_groups_a_head_start(on_path: None) -> None:
    policy = importlib.import_module("third_party_policy")
    catalog = load_catalog("surabaya")
    clock = ManualClock.at("2026-12-04T14:00:00+07:00")
    with QuotaEngine.open("memory://", catalog=catalog, clock=clock, admission=policy.ADMISSION) as engine:
        engine.publish(catalog, "2026-12-07", "2026-12-07")
        request = engine.reserve("surabaya", "2026-12-07", "3578012345678901", service="new", session="morning")
        assert (request.status, request.reason) == (Status.THROTTLED, "head_start")
        assert request.retry_at_ms == clock.now_ms() + 600_000
        clock.set_ms(request.retry_at_ms)
        assert engine.reserve("surabaya", "2026-12-07", "3578012345678901", service="new", session="morning").ok
    with pytest.raises(InvalidRequest):
        policy.HeadStartPolicy("head_start", frozenset(), -1)
