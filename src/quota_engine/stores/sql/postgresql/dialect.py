"""The SQL of PostgreSQL. No text knows a rule; :class:`~quota_engine.stores.sql.steps.Dialect` lists the statements."""

from __future__ import annotations

__all__ = [
    "STORE_ID_NAME",
    "PostgresqlDialect",
    "begin_text",
    "quoted",
    "set_config_text",
    "store_id_text",
    "time_outs",
]

import math
from collections.abc import Mapping
from typing import Final

from quota_engine.stores.sql.postgresql import errors
from quota_engine.stores.sql.postgresql.url import CommitDurability, Settings

STORE_ID_NAME: Final = "store_id"
"""The row of ``meta`` with a random id, which a standby and a restored backup share."""
_ROW: Final = (
    "id, format, last_number, last_event_number, last_time_ms, trimmed_event_number, first_number, epoch, checksum,"
    " snapshot_number"
)
_NOW_MS: Final = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
_IDLE: Final = "idle_in_transaction_session_timeout"
_SHORTEN_IDLE: Final = (
    f"CASE WHEN current_setting('server_version_num')::int < 170000 AND current_setting('{_IDLE}') <> '0'"
    f" THEN set_config('{_IDLE}', greatest(1, (1000 * extract(epoch FROM current_setting('{_IDLE}')::interval"
    " - (clock_timestamp() - now())))::int)::text, true) END"
)
"""A server before PostgreSQL 17 cannot bound a whole transaction. So it takes the wait for the lock off the time for
which it waits for the commit. It is a part of the time's column, which is computed after the lock was granted.
"""

# ruff: noqa: S608  # the only part that is filled in is the schema, which the URL's check holds to letters and digits
# The outer query takes the time after the lock was granted. PostgreSQL does not merge a query that locks rows into the
# outer one; in the same query, the time would be that of the scan, before a wait.
_TEXTS: Final = {
    "read_ledger": f"SELECT {_ROW}, {_NOW_MS} FROM {{schema}}.ledgers WHERE address = $1",
    "lock_ledger": f"SELECT {_ROW}, CASE WHEN ({_SHORTEN_IDLE}) IS NULL THEN {_NOW_MS} ELSE {_NOW_MS} END FROM"
    f" (SELECT {_ROW} FROM {{schema}}.ledgers WHERE address = $1 FOR UPDATE) AS locked",
    "try_lock_ledger": f"SELECT {_ROW}, {_NOW_MS} FROM"
    f" (SELECT {_ROW} FROM {{schema}}.ledgers WHERE address = $1 FOR UPDATE SKIP LOCKED) AS locked",
    "create_ledger": "INSERT INTO {schema}.ledgers (address, kind, format) VALUES ($1, $2, $3)"
    " ON CONFLICT (address) DO NOTHING",
    "update_ledger": "UPDATE {schema}.ledgers SET last_number = $1, last_event_number = $2, last_time_ms = $3,"
    " checksum = $4 WHERE id = $5",
    "set_snapshot": "UPDATE {schema}.ledgers SET snapshot_number = $1 WHERE id = $2",
    "set_first_number": "UPDATE {schema}.ledgers SET first_number = $1 WHERE id = $2",
    "set_trimmed": "UPDATE {schema}.ledgers SET trimmed_event_number = $1 WHERE id = $2",
    "raise_epoch": "UPDATE {schema}.ledgers SET epoch = epoch + 1 WHERE id = $1",
    "insert_entry": "INSERT INTO {schema}.entries (ledger, number, first_event, events, body, checksum)"
    " VALUES ($1, $2, $3, $4, $5, $6)",
    "read_entries": "SELECT number, body, checksum FROM {schema}.entries"
    " WHERE ledger = $1 AND number > $2 ORDER BY number LIMIT $3",
    "read_entry_checksum": "SELECT checksum FROM {schema}.entries WHERE ledger = $1 AND number = $2",
    # Entries without events have the first event of the next entry with events. The inner query finds the entry that
    # contains the first wanted event.
    "read_event_entries": "SELECT number, first_event, events, body, checksum FROM {schema}.entries"
    " WHERE ledger = $1 AND first_event >= coalesce((SELECT max(first_event) FROM {schema}.entries"
    " WHERE ledger = $1 AND first_event <= $2::bigint + 1), 0) AND first_event + events > $2::bigint + 1"
    " AND events > 0 ORDER BY first_event, number LIMIT $3",
    "trim_entries": "DELETE FROM {schema}.entries WHERE ledger = $1 AND number <= $2",
    "insert_snapshot_part": "INSERT INTO {schema}.snapshots (ledger, number, part, body)"
    " SELECT id, $2::bigint, $3::bigint, $4::bytea FROM {schema}.ledgers WHERE id = $1"
    " ON CONFLICT (ledger, number, part) DO NOTHING",
    "read_snapshot_parts": "SELECT part, body FROM {schema}.snapshots"
    " WHERE ledger = $1 AND number = $2 AND part > $3 ORDER BY part LIMIT $4",
    "read_snapshot_digests": "SELECT part, substr(body, 1, 16) FROM {schema}.snapshots"
    " WHERE ledger = $1 AND number = $2 ORDER BY part",
    "delete_snapshots": "DELETE FROM {schema}.snapshots WHERE ledger = $1 AND number < $2",
    "read_groups": "SELECT name, body FROM {schema}.consumer_groups WHERE ledger = $1 ORDER BY name",
    "write_group": "INSERT INTO {schema}.consumer_groups (ledger, name, body) VALUES ($1, $2, $3)"
    " ON CONFLICT (ledger, name) DO UPDATE SET body = excluded.body",
    "delete_group": "DELETE FROM {schema}.consumer_groups WHERE ledger = $1 AND name = $2",
    "list_addresses": "SELECT address FROM {schema}.ledgers WHERE kind = $1",
    "list_ledgers": "SELECT id, address, snapshot_number, last_number FROM {schema}.ledgers",
    "read_meta": "SELECT value FROM {schema}.meta WHERE name = $1",
    "insert_meta": "INSERT INTO {schema}.meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
    "read_time": f"SELECT {_NOW_MS}",
    "notify": "SELECT pg_notify('{channel}', $1)",
}

_ARRAY_TEXTS: Final = {
    "try_lock_ledger": f"SELECT address, {_ROW}, {_NOW_MS} FROM (SELECT address, {_ROW} FROM {{schema}}.ledgers"
    " WHERE address = ANY($1::text[]) FOR UPDATE SKIP LOCKED) AS locked",
    "insert_entry": "INSERT INTO {schema}.entries (ledger, number, first_event, events, body, checksum)"
    " SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bytea[], $6::bytea[])",
    "update_ledger": "UPDATE {schema}.ledgers AS ledger SET last_number = new.last_number,"
    " last_event_number = new.last_event_number, last_time_ms = new.last_time_ms, checksum = new.checksum"
    " FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bytea[], $5::bigint[])"
    " AS new (last_number, last_event_number, last_time_ms, checksum, id) WHERE ledger.id = new.id",
}

_ORDER_MS: Final = 20
"""A lock's time-out is shorter than its statement's by this time, and a statement's than the transaction's."""


def quoted(schema: str) -> str:
    """Return a schema's name as an SQL identifier. The URL's check allows no quote in it."""
    return f'"{schema}"'


def store_id_text(schema: str) -> str:
    """Return the query for the id of the tables in a schema, which no other tables have."""
    return f"SELECT value FROM {quoted(schema)}.meta WHERE name = '{STORE_ID_NAME}'"


def begin_text() -> str:
    """Return the statement that begins a transaction, independent of the default isolation of the server and the role.

    Each statement must see what others have committed before it, so that a ledger's entries are read after its lock.
    """
    return "BEGIN ISOLATION LEVEL READ COMMITTED"


def set_config_text(settings: Settings, *, reads_store_id: bool) -> str:
    """Return the statement that sets time-outs and durability for one transaction.

    Settings of a session would leak to other clients of a pooler. The row has ``synchronous_standby_names``, and the id
    of the tables: a pooler may lead each transaction to another server. The parameters are those of :func:`time_outs`.

    Args:
        settings: The settings of the URL.
        reads_store_id: False before the tables exist; the id in the row is ``None`` then.
    """
    store_id = f"({store_id_text(settings.schema)})" if reads_store_id else "NULL::text"
    values = [
        "set_config('statement_timeout', $1, true)",
        "set_config('lock_timeout', $2, true)",
        # A client that stops in mid-transaction must not keep a ledger's lock.
        "set_config('idle_in_transaction_session_timeout', $3, true)",
        # PostgreSQL 17 and newer. An older server does not know the name, and the branch is not carried out there.
        "CASE WHEN $4 <> '0' AND current_setting('server_version_num')::int >= 170000"
        " THEN set_config('transaction_timeout', $4, true) END",
    ]
    if settings.durability is not CommitDurability.MEMORY:
        stronger = "CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END"
        values.append(f"set_config('synchronous_commit', {stronger}, true)")
    return f"SELECT current_setting('synchronous_standby_names'), {store_id}, {', '.join(values)}"


def time_outs(settings: Settings, left_ms: float) -> tuple[int, int, int, int]:
    """Return the time-outs of a transaction: of a statement, a lock, an idle client, and the whole transaction.

    No part of it takes longer than its call has. A server before PostgreSQL 17 bounds each part only. A lock ends first
    and the transaction last, because the end of a transaction costs the connection.

    Args:
        settings: The settings of the URL.
        left_ms: Time that is left for the call, in milliseconds; infinity without an end.

    Returns:
        Milliseconds; 0 for a transaction without a bound.
    """
    statement_ms, lock_ms, idle_ms = settings.statement_timeout_ms, settings.lock_timeout_ms, settings.timeout_ms
    if left_ms == math.inf:
        return statement_ms, lock_ms, idle_ms, 0
    whole_ms = max(1, int(left_ms))
    statement_ms = min(statement_ms, max(1, whole_ms - _ORDER_MS))
    lock_ms = min(lock_ms, max(1, whole_ms - 2 * _ORDER_MS))
    return statement_ms, lock_ms, min(idle_ms, whole_ms), whole_ms


class PostgresqlDialect:
    """See :class:`~quota_engine.stores.sql.steps.Dialect`; placeholders are ``$1``, ``$2`` …

    Attributes:
        array_texts: For some names of statements, a text that does the same for many ledgers. Each parameter is an
            array of the values of all ledgers. A row of the result begins with the first parameter of its ledger.
    """

    def __init__(self, schema: str) -> None:
        self._texts = {name: text.format(schema=quoted(schema), channel=schema) for name, text in _TEXTS.items()}
        self.array_texts: Mapping[str, str] = {
            name: text.format(schema=quoted(schema)) for name, text in _ARRAY_TEXTS.items()
        }

    @property
    def texts(self) -> Mapping[str, str]:
        """The SQL text of each statement by its name."""
        return self._texts

    def classify(self, error: Exception, *, commit_sent: bool) -> Exception:
        """See :func:`quota_engine.stores.sql.postgresql.errors.classify`."""
        return errors.classify(error, commit_sent=commit_sent)
