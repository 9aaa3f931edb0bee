"""The tables of a PostgreSQL store: their SQL, the least rights, and the version."""

# ruff: noqa: S608  # the schema's name is checked by the URL, and every other part is a constant

from __future__ import annotations

__all__ = [
    "TABLES",
    "VERSION",
    "VERSION_NAME",
    "advisory_lock_key",
    "create_statements",
    "grant_statements",
]

import hashlib
from typing import Final

from quota_engine.stores.sql.postgresql.dialect import STORE_ID_NAME, quoted

VERSION: Final = 1
"""Version of the tables. A program refuses tables of a newer version."""
VERSION_NAME: Final = "schema_version"
"""The row of ``meta`` with the version."""

_RIGHTS: Final = {
    "meta": "SELECT, INSERT",
    "ledgers": "SELECT, INSERT, UPDATE",
    "entries": "SELECT, INSERT, DELETE",
    "snapshots": "SELECT, INSERT, UPDATE, DELETE",
    "consumer_groups": "SELECT, INSERT, UPDATE, DELETE",
}
"""All that the store does to a table that exists."""
TABLES: Final = tuple(_RIGHTS)
"""The tables, in the order of their creation."""


def create_statements(schema: str) -> list[str]:
    """Return the statements that make what is missing, in order. Each may run again."""
    name = quoted(schema)
    return [
        f"CREATE SCHEMA IF NOT EXISTS {name}",
        f"CREATE TABLE IF NOT EXISTS {name}.meta (name text PRIMARY KEY, value text NOT NULL)",
        # A batch updates one row, whose new version fits in the free half of its page.
        f"""CREATE TABLE IF NOT EXISTS {name}.ledgers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    address text COLLATE "C" NOT NULL UNIQUE,
    kind text COLLATE "C" NOT NULL,
    format bigint NOT NULL,
    last_number bigint NOT NULL DEFAULT 0,
    last_event_number bigint NOT NULL DEFAULT 0,
    trimmed_event_number bigint NOT NULL DEFAULT 0,
    first_number bigint NOT NULL DEFAULT 1,
    last_time_ms bigint NOT NULL DEFAULT 0,
    epoch bigint NOT NULL DEFAULT 0,
    checksum bytea NOT NULL DEFAULT '',
    snapshot_number bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50)""",
        f"""CREATE TABLE IF NOT EXISTS {name}.entries (
    ledger bigint NOT NULL REFERENCES {name}.ledgers (id),
    number bigint NOT NULL,
    first_event bigint NOT NULL,
    events bigint NOT NULL,
    body bytea NOT NULL,
    checksum bytea NOT NULL,
    PRIMARY KEY (ledger, number)
)""",
        f"CREATE INDEX IF NOT EXISTS entries_by_event ON {name}.entries (ledger, first_event, number)",
        f"""CREATE TABLE IF NOT EXISTS {name}.snapshots (
    ledger bigint NOT NULL REFERENCES {name}.ledgers (id),
    number bigint NOT NULL,
    part bigint NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (ledger, number, part)
)""",
        f"""CREATE TABLE IF NOT EXISTS {name}.consumer_groups (
    ledger bigint NOT NULL REFERENCES {name}.ledgers (id),
    name text COLLATE "C" NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (ledger, name)
)""",
        f"INSERT INTO {name}.meta (name, value) VALUES ('{VERSION_NAME}', '{VERSION}') ON CONFLICT (name) DO NOTHING",
        f"INSERT INTO {name}.meta (name, value) VALUES ('{STORE_ID_NAME}', gen_random_uuid()::text)"
        " ON CONFLICT (name) DO NOTHING",
    ]


def grant_statements(schema: str, role: str) -> list[str]:
    """Return the statements that give a role the least rights.

    Args:
        schema: The schema.
        role: Name of the role; any text, which is quoted here.
    """
    name, grantee = quoted(schema), '"' + role.replace('"', '""') + '"'
    return [
        f"GRANT USAGE ON SCHEMA {name} TO {grantee}",
        *(f"GRANT {rights} ON {name}.{table} TO {grantee}" for table, rights in _RIGHTS.items()),
    ]


def advisory_lock_key(schema: str) -> int:
    """Return the key of the advisory lock under which tables are made: signed, 64 bits."""
    return int.from_bytes(hashlib.sha256(f"quota_engine schema {schema}".encode()).digest()[:8], "big", signed=True)
