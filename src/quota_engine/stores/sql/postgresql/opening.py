"""The opening of a PostgreSQL store: checks of the server, and the tables."""

# ruff: noqa: S608  # the schema's name is checked by the URL, and every other part is a constant

from __future__ import annotations

__all__ = [
    "RoundTrips",
    "check_server",
    "check_server_step",
    "check_standbys",
    "check_store_id",
    "final_errors",
    "open_tables",
    "texts",
]

import contextlib
import re
from collections.abc import Generator, Iterator
from typing import Final, TypeVar

from quota_engine.domain.errors import BackendUnavailable
from quota_engine.stores.sql.postgresql.dialect import quoted, store_id_text
from quota_engine.stores.sql.postgresql.schema import (
    VERSION,
    VERSION_NAME,
    advisory_lock_key,
    create_statements,
)
from quota_engine.stores.sql.postgresql.url import CommitDurability, Settings
from quota_engine.stores.sql.steps import CommitUnknown, NotStarted, RolledBack, RoundTrip, Rows, Statement, Step

T = TypeVar("T")
RoundTrips = Generator[Step, list[Rows], T]
"""A call's steps without work for a thread; it returns the call's result."""

SERVER_VERSION_MIN: Final = 14


def texts(schema: str) -> dict[str, str]:
    """Return the SQL of this module by its names."""
    creations = create_statements(schema)
    return {
        "check_server": "SELECT current_setting('server_version_num')::int, current_setting('fsync'),"
        " current_setting('synchronous_standby_names')",
        "find_tables": f"SELECT to_regclass('{quoted(schema)}.meta') IS NOT NULL",
        "read_version": f"SELECT value FROM {quoted(schema)}.meta WHERE name = '{VERSION_NAME}'",
        "read_store_id": store_id_text(schema),
        "lock_tables": f"SELECT pg_advisory_xact_lock({advisory_lock_key(schema)})",
        **{f"create_{number}": text for number, text in enumerate(creations)},
    }


def check_server_step(store_id: str) -> RoundTrip:
    """Return the statements that are sent once on each new connection.

    Args:
        store_id: Id of the tables that this process has opened; empty before that.
    """
    return RoundTrip((Statement("check_server"), *((Statement("read_store_id"),) if store_id else ())))


def check_server(rows: list[Rows], settings: Settings, store_id: str) -> None:
    """Check the answer to :func:`check_server_step`.

    Raises:
        BackendUnavailable: The server is too old, or does not have the durability of the URL, or its tables are not
            those that this process has opened.
    """
    if store_id:
        check_store_id(rows[1][0][0] if rows[1] else None, store_id)
    version, fsync, standbys = rows[0][0]
    if version // 10_000 < SERVER_VERSION_MIN:
        raise BackendUnavailable(
            f"the server is PostgreSQL {version // 10_000}; the store needs {SERVER_VERSION_MIN} or newer"
        )
    if settings.durability is not CommitDurability.MEMORY and fsync != "on":
        raise BackendUnavailable(
            f"the server has fsync={fsync}, so a crash loses commits; set fsync=on, or open the store with "
            "durability=memory"
        )
    if settings.durability is CommitDurability.REPLICATED:
        check_standbys(standbys, settings.replicas)


def check_store_id(found: str | None, store_id: str) -> None:
    """Compare the id of the tables that a connection or transaction has found with that of the opened ones.

    Raises:
        BackendUnavailable: They differ.
    """
    if found != store_id:
        raise BackendUnavailable(
            "the URL leads to two databases: the tables of this connection or transaction are not those that this "
            "process has opened. Nothing was done. Name one database and its standbys in the URL; if the tables were "
            "made again, restart every process"
        )


def check_standbys(names: str, replicas: int) -> None:
    """Check a value of ``synchronous_standby_names``.

    Args:
        names: The value, such as ``ANY 1 (a, b)``.
        replicas: Standbys that must have each commit.

    Raises:
        BackendUnavailable: A commit waits for fewer standbys.
    """
    match = re.match(r"\s*(?:(?:FIRST|ANY)\s+)?(\d+)\s*\(", names, re.IGNORECASE)
    waits_for = int(match[1]) if match else int(bool(names.strip()))
    if waits_for < replicas:
        raise BackendUnavailable(
            f"durability=replicated with replicas={replicas}, but a commit waits for {waits_for} standbys: set "
            f"synchronous_standby_names = 'ANY {replicas} (*)' on the server"
        )


def open_tables(schema: str) -> RoundTrips[str]:
    """Make the tables if they are missing, and check their version. Returns their id.

    Processes that open at the same time make them one after the other, under an advisory lock.

    Raises:
        BackendUnavailable: The tables are of a newer version, or a right is missing.
    """
    (found,) = yield RoundTrip((Statement("find_tables"),))
    if not found[0][0]:
        yield from create_tables(schema)
    versions, ids = yield RoundTrip((Statement("read_version"), Statement("read_store_id")))
    if not versions:  # a program of another kind has made a table of this name
        raise BackendUnavailable(f'the schema "{schema}" has a table "meta" of another program; use another ?schema=')
    check_version(versions[0][0], schema)
    return ids[0][0] if ids else ""


def create_tables(schema: str) -> RoundTrips[None]:
    """Make what is missing, in one transaction."""
    names = ["lock_tables", *(f"create_{number}" for number in range(len(create_statements(schema))))]
    yield RoundTrip(tuple(Statement(name) for name in names), begin=True, end="commit")


def check_version(version: str, schema: str) -> None:
    """Check the version of the tables.

    Raises:
        BackendUnavailable: It is not the version of this program.
    """
    if version != str(VERSION):
        is_newer = version.isdigit() and int(version) > VERSION
        raise BackendUnavailable(
            f'the tables in the schema "{schema}" have version {version}, and this program needs version {VERSION}; '
            + ("upgrade quota_engine" if is_newer else "run `quota-engine store init`")
        )


@contextlib.contextmanager
def final_errors() -> Iterator[None]:
    """Raise the errors of the port as errors of the library: an opening is not tried again."""
    try:
        yield
    except (NotStarted, RolledBack, CommitUnknown) as error:
        raise BackendUnavailable(str(error)) from error
