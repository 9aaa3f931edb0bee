"""Work of an operator on the tables of a PostgreSQL store: make them, show their sizes, and reclaim their space."""

from __future__ import annotations

__all__ = ["LedgerSize", "StoreStatus", "init_statements", "initialize", "read_server_time_ms", "read_status", "vacuum"]

import contextlib
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import psycopg
from psycopg import sql

from quota_engine.domain.errors import BackendUnavailable
from quota_engine.stores.sql.postgresql import opening
from quota_engine.stores.sql.postgresql.dialect import quoted
from quota_engine.stores.sql.postgresql.errors import classify, classify_connect
from quota_engine.stores.sql.postgresql.schema import TABLES, advisory_lock_key, create_statements, grant_statements
from quota_engine.stores.sql.postgresql.url import Settings, parse_url

_LEDGERS: Final = """
SELECT address, last_number, last_event_number, first_number, snapshot_number,
    coalesce(entries, 0), coalesce(bytes, 0)
FROM {schema}.ledgers
LEFT JOIN (
    SELECT ledger, count(*) AS entries, sum(octet_length(body))::bigint AS bytes FROM {schema}.entries GROUP BY ledger
) AS sizes ON sizes.ledger = ledgers.id
ORDER BY address
"""


class LedgerSize(msgspec.Struct, frozen=True):
    """One ledger's numbers.

    Args:
        address: The office, or the address of another ledger.
        last_number: Number of its last entry.
        last_event_number: Number of its last event.
        first_number: Number of the first entry that is kept.
        snapshot_number: Number of the last entry in its snapshot; 0 without one.
        entries: Number of entries that are kept.
        entry_bytes: Bytes of their bodies.
    """

    address: str
    last_number: int
    last_event_number: int
    first_number: int
    snapshot_number: int
    entries: int
    entry_bytes: int


class StoreStatus(msgspec.Struct, frozen=True):
    """The state of a store's tables and of its server.

    Args:
        server_version: PostgreSQL's version, such as ``15.18``.
        schema: The schema with the tables.
        schema_version: Version of the tables.
        synchronous_standby_names: The server's setting; empty if a commit waits for no standby.
        table_bytes: Bytes on disk by table, with indexes.
        ledgers: Every ledger, by address.
    """

    server_version: str
    schema: str
    schema_version: str
    synchronous_standby_names: str
    table_bytes: dict[str, int]
    ledgers: list[LedgerSize]


def init_statements(url: str, role: str = "") -> list[str]:
    """Return the statements that make the tables, and give ``role`` the least rights if it is not empty.

    Raises:
        InvalidRequest: The URL is not of the form.
    """
    schema = parse_url(url).schema
    return [*create_statements(schema), *(grant_statements(schema, role) if role else [])]


def initialize(url: str, role: str = "") -> None:
    """Make the tables if they are missing, and give ``role`` the least rights if it is not empty.

    Raises:
        BackendUnavailable: No server answers, the login is refused, or a right is missing.
    """
    settings = parse_url(url)
    with _connection(settings) as connection, connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (advisory_lock_key(settings.schema),))
        for statement in init_statements(url, role):
            connection.execute(statement.encode())
        opening.check_version(_version(connection, settings.schema), settings.schema)


def read_status(url: str) -> StoreStatus:
    """Return the state of the tables. It counts all entries, and changes nothing.

    Raises:
        BackendUnavailable: No server answers, or the tables are missing.
    """
    settings = parse_url(url)
    with _connection(settings) as connection, connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        setting = connection.execute("SELECT current_setting('synchronous_standby_names')").fetchone() or ("",)
        sizes = {
            table: _one(connection, "SELECT pg_total_relation_size(%s)", f"{quoted(settings.schema)}.{table}")
            for table in TABLES
        }
        rows = connection.execute(sql.SQL(_LEDGERS).format(schema=sql.Identifier(settings.schema))).fetchall()
        return StoreStatus(
            server_version=str(connection.info.parameter_status("server_version")),
            schema=settings.schema,
            schema_version=_version(connection, settings.schema),
            synchronous_standby_names=setting[0],
            table_bytes=sizes,
            ledgers=[LedgerSize(*row) for row in rows],
        )


def read_server_time_ms(url: str) -> int:
    """Return the time of the server's clock in milliseconds since 1970.

    Raises:
        BackendUnavailable: No server answers.
    """
    with _connection(parse_url(url)) as connection:
        return _one(connection, "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")


def vacuum(url: str) -> dict[str, int]:
    """Reclaim the space of dropped rows for new ones, and return the bytes by table afterwards.

    Raises:
        BackendUnavailable: No server answers, or the tables are missing.
    """
    settings = parse_url(url)
    with _connection(settings) as connection:
        for table in TABLES:
            connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(sql.Identifier(settings.schema, table)))
    return read_status(url).table_bytes


def _version(connection: psycopg.Connection[Any], schema: str) -> str:
    query = sql.SQL("SELECT value FROM {} WHERE name = 'schema_version'").format(sql.Identifier(schema, "meta"))
    row = connection.execute(query).fetchone()
    return str(row[0]) if row else ""


def _one(connection: psycopg.Connection[Any], query: str, *parameters: Any) -> int:
    row = connection.execute(query.encode(), parameters).fetchone()
    return int(row[0]) if row else 0


@contextlib.contextmanager
def _connection(settings: Settings) -> Iterator[psycopg.Connection[Any]]:
    """Open a connection in autocommit mode, and raise the errors of the database as errors of the library."""
    try:
        connection = psycopg.connect(settings.conninfo, autocommit=True)
    except psycopg.Error as error:
        raise BackendUnavailable(str(classify_connect(error))) from error
    with contextlib.closing(connection):
        try:
            yield connection
        except psycopg.Error as error:
            raise BackendUnavailable(str(classify(error, commit_sent=False))) from error
