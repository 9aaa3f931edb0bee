"""The SQL of SQLite, and the meaning of its errors. No text knows a rule."""

from __future__ import annotations

__all__ = ["APPLICATION_ID", "SCHEMA", "SCHEMA_VERSION", "SqliteDialect"]

import sqlite3
from collections.abc import Mapping
from typing import Final

from quota_engine.domain.errors import BackendUnavailable
from quota_engine.stores.sql.steps import CommitUnknown, NotStarted, RolledBack

APPLICATION_ID: Final = 0x51454E47
"""Marks the files of this library: "QENG"."""
SCHEMA_VERSION: Final = 1
"""Version of the tables, in the file's ``user_version``."""

SCHEMA: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE ledgers (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    address TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    format INTEGER NOT NULL,
    last_number INTEGER NOT NULL DEFAULT 0,
    last_event_number INTEGER NOT NULL DEFAULT 0,
    last_time_ms INTEGER NOT NULL DEFAULT 0,
    trimmed_event_number INTEGER NOT NULL DEFAULT 0,
    first_number INTEGER NOT NULL DEFAULT 1,
    epoch INTEGER NOT NULL DEFAULT 0,
    checksum BLOB NOT NULL DEFAULT x'',
    snapshot_number INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE entries (
    ledger INTEGER NOT NULL REFERENCES ledgers (id),
    number INTEGER NOT NULL,
    first_event INTEGER NOT NULL,
    events INTEGER NOT NULL,
    body BLOB NOT NULL,
    checksum BLOB NOT NULL,
    PRIMARY KEY (ledger, number)
);
CREATE INDEX entries_by_event ON entries (ledger, first_event);
CREATE TABLE snapshots (
    ledger INTEGER NOT NULL REFERENCES ledgers (id),
    number INTEGER NOT NULL,
    part INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (ledger, number, part)
);
CREATE TABLE consumer_groups (
    ledger INTEGER NOT NULL REFERENCES ledgers (id),
    name TEXT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (ledger, name)
) WITHOUT ROWID;
"""

_READ_TIME: Final = "SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"
_READ_LEDGER: Final = (
    "SELECT id, format, last_number, last_event_number, last_time_ms, trimmed_event_number, first_number, epoch,"
    " checksum, snapshot_number, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"
    " FROM ledgers WHERE address = ?"
)
_TEXTS: Final = {
    "read_ledger": _READ_LEDGER,
    "lock_ledger": _READ_LEDGER,  # BEGIN IMMEDIATE has locked the whole file
    "try_lock_ledger": _READ_LEDGER,
    "create_ledger": "INSERT INTO ledgers (address, kind, format) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
    "update_ledger": "UPDATE ledgers SET last_number = ?, last_event_number = ?, last_time_ms = ?, checksum = ?"
    " WHERE id = ?",
    "set_snapshot": "UPDATE ledgers SET snapshot_number = ? WHERE id = ?",
    "set_first_number": "UPDATE ledgers SET first_number = ? WHERE id = ?",
    "set_trimmed": "UPDATE ledgers SET trimmed_event_number = ? WHERE id = ?",
    "raise_epoch": "UPDATE ledgers SET epoch = epoch + 1 WHERE id = ?",
    "insert_entry": "INSERT INTO entries (ledger, number, first_event, events, body, checksum)"
    " VALUES (?, ?, ?, ?, ?, ?)",
    "read_entries": "SELECT number, body, checksum FROM entries WHERE ledger = ? AND number > ?"
    " ORDER BY number LIMIT ?",
    "read_entry_checksum": "SELECT checksum FROM entries WHERE ledger = ? AND number = ?",
    # The inner query finds the entry that contains the first wanted event.
    "read_event_entries": "SELECT number, first_event, events, body, checksum FROM entries WHERE ledger = ?1"
    " AND first_event >="
    " coalesce((SELECT max(first_event) FROM entries WHERE ledger = ?1 AND first_event <= ?2 + 1), 0)"
    " AND first_event + events > ?2 + 1 AND events > 0 ORDER BY first_event, number LIMIT ?3",
    "trim_entries": "DELETE FROM entries WHERE ledger = ? AND number <= ?",
    "insert_snapshot_part": "INSERT INTO snapshots (ledger, number, part, body) SELECT id, ?2, ?3, ?4 FROM ledgers"
    " WHERE id = ?1 ON CONFLICT (ledger, number, part) DO NOTHING",
    "read_snapshot_parts": "SELECT part, body FROM snapshots WHERE ledger = ? AND number = ? AND part > ?"
    " ORDER BY part LIMIT ?",
    "read_snapshot_digests": "SELECT part, substr(body, 1, 16) FROM snapshots WHERE ledger = ? AND number = ?"
    " ORDER BY part",
    "delete_snapshots": "DELETE FROM snapshots WHERE ledger = ? AND number < ?",
    "read_groups": "SELECT name, body FROM consumer_groups WHERE ledger = ? ORDER BY name",
    "write_group": "INSERT INTO consumer_groups (ledger, name, body) VALUES (?, ?, ?)"
    " ON CONFLICT (ledger, name) DO UPDATE SET body = excluded.body",
    "delete_group": "DELETE FROM consumer_groups WHERE ledger = ? AND name = ?",
    "list_addresses": "SELECT address FROM ledgers WHERE kind = ?",
    "list_ledgers": "SELECT id, address, snapshot_number, last_number FROM ledgers",
    "read_meta": "SELECT value FROM meta WHERE name = ?",
    "insert_meta": "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING",
    "read_time": _READ_TIME,
}


class SqliteDialect:
    """SQLite's SQL and errors."""

    def __init__(self, path: str) -> None:
        """Create the dialect of one file, which its errors name."""
        self._path = path

    @property
    def texts(self) -> Mapping[str, str]:
        """See :attr:`quota_engine.stores.sql.steps.Dialect.texts`."""
        return _TEXTS

    def classify(self, error: Exception, *, commit_sent: bool) -> Exception:
        """See :meth:`quota_engine.stores.sql.steps.Dialect.classify`."""
        # The extended code has the primary one in its lower byte.
        code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        path = self._path
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return RolledBack(f"{path} is locked by another process: end the process that keeps it locked")
        if code == sqlite3.SQLITE_FULL:
            return RolledBack(f"the disk of {path} is full: free space, and repeat the call")
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return BackendUnavailable(f"{path} is not a database, or is damaged: restore it from a backup")
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
            return BackendUnavailable(f"{path} cannot be written: let this process write the file and its directory")
        if code == sqlite3.SQLITE_CANTOPEN:
            return BackendUnavailable(f"{path} cannot be opened: let this process read and write its directory")
        if isinstance(error, sqlite3.OperationalError) and str(error).startswith("no such table"):
            return BackendUnavailable(f"{path} lacks tables of quota_engine ({error}): restore it from a backup")
        if commit_sent:
            return CommitUnknown(f"{path}: {error}")
        if code == sqlite3.SQLITE_IOERR:
            return RolledBack(f"the disk of {path} reported an error ({error}): check the disk")
        return NotStarted(f"{path}: {error}")
