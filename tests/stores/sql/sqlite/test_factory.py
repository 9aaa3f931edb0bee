"""Opening SQLite files: URLs, and files that cannot be used. Each error says what to do."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from quota_engine import QuotaEngine, WrongIdentityKey
from quota_engine.clocks import ManualClock
from quota_engine.conformance.world import OFFICE, ONLINE, OPENS_AT_MS, published, reserve
from quota_engine.domain.errors import BackendUnavailable, InvalidRequest
from quota_engine.domain.outcomes import Status
from quota_engine.ports import Lookup
from quota_engine.stores.sql.sqlite import connections, factory
from quota_engine.stores.sql.sync_store import SqlStore
from quota_engine.stores.sql.transactions import Attempts

CLOCK = ManualClock(OPENS_AT_MS)

URLS = {
    "sqlite://quota.db": "a relative path or a host's name",
    "sqlite:////": "names no file",
    "sqlite:///dir/": "names no file",
    "sqlite:///a/../b": "has '..' in its path",
    "sqlite:///a%00b": "names no file",
    "sqlite:///a#b": "has a part behind '#'",
    "sqlite:///a?mode=ro": "unknown option 'mode'",
    "sqlite:///a?durability=replicated": "durability=replicated",
    "sqlite:///a?cache_mb=0": "cache_mb=0",
    "sqlite:///a?cache_mb=1&cache_mb=2": "cache_mb more than once",
    "postgresql:///a": "not the URL of a SQLite file",
}


@pytest.mark.parametrize("url", URLS)
def test_invalid_urls_are_refused(url: str) -> None:
    with pytest.raises(InvalidRequest, match=URLS[url]):
        factory.open_store(url, None)


def not_a_database(path: Path) -> None:
    path.write_bytes(b"This is a text, and by no means a database. " * 100)


def newer(path: Path) -> None:
    factory.open_store(f"sqlite://{path}", None).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 2")


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE bookings (id)")


def newer_entries(path: Path) -> None:
    store = factory.open_store(f"sqlite://{path}", CLOCK)
    store.apply(OFFICE, published()[0])
    store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE ledgers SET format = 2")


FILES: dict[Callable[[Path], None], tuple[type[Exception], str]] = {
    not_a_database: (BackendUnavailable, "is not a database, or is damaged: restore it from a backup"),
    newer: (BackendUnavailable, "has tables of version 2, .* start every process with the newer version"),
    foreign: (InvalidRequest, "belongs to another application; expected a new file"),
    newer_entries: (BackendUnavailable, "format 2, .* start every process with the newer version"),
}


@pytest.mark.parametrize("prepare", FILES, ids=lambda prepare: prepare.__name__)
def test_files_that_cannot_be_used_are_refused(tmp_path: Path, prepare: Callable[[Path], None]) -> None:
    """In both forms, and without a change of the file."""
    path = tmp_path / "quota.db"
    prepare(path)
    kind, message = FILES[prepare]

    def use() -> None:
        factory.open_store(f"sqlite://{path}", CLOCK).execute(Lookup(OFFICE, "ani"))

    async def use_async() -> None:
        await (await factory.open_async_store(f"sqlite://{path}", CLOCK)).execute(Lookup(OFFICE, "ani"))

    with pytest.raises(kind, match=message):
        use()
    with pytest.raises(kind, match=message):
        asyncio.run(use_async())


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match=r"the directory of .*/no/quota.db does not exist: create it"):
        factory.open_store(f"sqlite://{tmp_path}/no/quota.db", None)


def test_a_directory_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match="cannot be opened: let this process read and write its directory"):
        factory.open_store(f"sqlite://{tmp_path}", None)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_BUSY_MS_MAX", 20)


def open_office(path: Path) -> SqlStore:
    file = connections.SqliteConnections(str(path), "OFF")
    store = SqlStore(file, CLOCK, attempts=Attempts(budget_ms=60, pause_ms=1))
    for command in published():
        store.apply(OFFICE, command)
    return store


@pytest.mark.usefixtures("impatient")
def test_a_locked_file_is_unavailable_until_it_is_free(tmp_path: Path) -> None:
    """Reads continue meanwhile."""
    store = open_office(tmp_path / "quota.db")
    locker = sqlite3.connect(tmp_path / "quota.db", isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    with pytest.raises(BackendUnavailable, match="is locked by another process: end the process"):
        store.apply(OFFICE, reserve("ani", ONLINE))
    assert store.execute(Lookup(OFFICE, "ani")) is None
    locker.execute("ROLLBACK")
    locker.close()
    assert store.apply(OFFICE, reserve("ani", ONLINE)).status is Status.HELD
    store.close()


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    """SQLite's own limit of pages has the same error. Reads continue, and so do writes once there is room."""
    store = open_office(tmp_path / "quota.db")
    (connection,) = store._connections._file._all
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    wide = tuple(f"{number:03}" + "x" * 3000 for number in range(2))
    with pytest.raises(BackendUnavailable, match=r"the disk of .* is full: free space, and repeat the call"):
        store.apply(OFFICE, reserve("ani", ONLINE, *wide))
    assert store.execute(Lookup(OFFICE, "ani")) is None
    connection.execute("PRAGMA max_page_count = 100000")
    assert store.apply(OFFICE, reserve("ani", ONLINE)).status is Status.HELD
    store.close()


def test_a_removed_file_is_noticed(tmp_path: Path) -> None:
    """Otherwise this process would write into a file that no other process sees."""
    store = open_office(tmp_path / "quota.db")
    (tmp_path / "quota.db").unlink()
    with pytest.raises(BackendUnavailable, match="was removed or replaced while it was open: restart every process"):
        store.apply(OFFICE, reserve("ani", ONLINE))
    store.close()


def test_missing_tables_are_named(tmp_path: Path) -> None:
    store = open_office(tmp_path / "quota.db")
    with sqlite3.connect(tmp_path / "quota.db") as connection:
        connection.execute("DROP TABLE entries")
    with pytest.raises(BackendUnavailable, match=r"lacks tables of quota_engine \(no such table: .*entries\)"):
        store.apply(OFFICE, reserve("ani", ONLINE))
    store.close()


def test_an_engine_opens_a_file_by_its_url(tmp_path: Path) -> None:
    """The file keeps the fingerprint of its first identity key."""
    url = f"sqlite://{tmp_path}/quota.db"
    QuotaEngine.open(url, identity_key=b"k" * 32).close()
    with pytest.raises(WrongIdentityKey):
        QuotaEngine.open(url, identity_key=b"l" * 32)
    with pytest.raises(InvalidRequest, match="identity_key: missing"):
        QuotaEngine.open(url)
