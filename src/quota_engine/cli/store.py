"""``quota-engine store init|status|vacuum|key``: the tables of a PostgreSQL store, and the identity key of a store."""

from __future__ import annotations

__all__ = ["app"]

import os
import pathlib
import sys
from typing import Final

import msgspec
from cyclopts import App

from quota_engine.cli.output import BAD_FINDING, DONE, AsJson, print_json
from quota_engine.cli.reservation_access import find_key
from quota_engine.cli.store_access import STORE_VARIABLE, open_store
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.identity_key import fingerprint_of, source_of

app: Final = App(name="store", help="Make the tables of a PostgreSQL store, and compare keys.")


class KeyComparison(msgspec.Struct, frozen=True):
    """Result of ``store key``.

    Attributes:
        source: where the identity key came from.
        fingerprint: the fingerprint of this key.
        stored_fingerprint: the fingerprint that the store keeps; ``""`` if no engine has opened it.
        matches: False if they differ.
    """

    source: str
    fingerprint: str
    stored_fingerprint: str
    matches: bool


@app.command
def init(backend: str = "", *, grant_to: str = "", dry_run: bool = False) -> int:
    """Make the tables of a store, as a role that may create a schema.

    An engine makes missing tables itself at its first opening, if its role may. A role with the rights of --grant-to
    can do all else.

    Example:  quota-engine store init postgresql://db/quota --grant-to booking

    Args:
        backend: URL of the store, postgresql://…; default: the variable QUOTA_ENGINE_BACKEND.
        grant_to: role that receives the rights that an engine needs.
        dry_run: print the SQL, and connect to nothing.
    """
    from quota_engine.stores.sql.postgresql.administration import init_statements, initialize

    url = _url(backend)
    if dry_run:
        sys.stdout.write("".join(f"{statement};\n" for statement in init_statements(url, grant_to)))
    else:
        initialize(url, grant_to)
    return DONE


@app.command
def status(backend: str = "", *, as_json: AsJson = False) -> int:
    """Show the sizes of the tables and of each ledger. It counts all entries: avoid it during an opening.

    Example:  quota-engine store status postgresql://db/quota

    Args:
        backend: URL of the store, postgresql://…; default: the variable QUOTA_ENGINE_BACKEND.
        as_json: print the result as JSON, and nothing else.
    """
    from quota_engine.stores.sql.postgresql.administration import read_status

    found = read_status(_url(backend))
    if as_json:
        print_json(found)
        return DONE
    from rich.console import Console
    from rich.table import Column, Table

    standbys = found.synchronous_standby_names or "none"
    table = Table(
        Column("ledger", no_wrap=True),
        *("entries", "bytes", "last entry", "last event", "first kept", "snapshot"),
        title=f"PostgreSQL {found.server_version}, schema {found.schema}, synchronous standbys: {standbys}",
    )
    for ledger in found.ledgers:
        numbers = (ledger.entries, ledger.entry_bytes, ledger.last_number, ledger.last_event_number)
        table.add_row(ledger.address, *map(str, (*numbers, ledger.first_number, ledger.snapshot_number)))
    console = Console()
    console.print(table)
    console.print(_sizes(found.table_bytes))
    return DONE


@app.command
def vacuum(backend: str = "", *, as_json: AsJson = False) -> int:
    """Reclaim the space of dropped entries and old snapshots. The store may be in use.

    Example:  quota-engine store vacuum postgresql://db/quota

    Args:
        backend: URL of the store, postgresql://…, with the tables' owner; default: the variable QUOTA_ENGINE_BACKEND.
        as_json: print the result as JSON, and nothing else.
    """
    from quota_engine.stores.sql.postgresql.administration import vacuum as vacuum_tables

    sizes = vacuum_tables(_url(backend))
    if as_json:
        print_json({"table_bytes": sizes})
    else:
        sys.stdout.write(_sizes(sizes) + "\n")
    return DONE


@app.command
def key(backend: str = "", *, config: pathlib.Path | None = None, as_json: AsJson = False) -> int:
    """Compare the identity key with the one that the store was first opened with.

    It shows fingerprints, from which no key follows, and stores none. Exit code 0: the key is right, or the store has
    none yet; 1: the store has another key.

    Example:  quota-engine store key valkey://db/0?namespace=2027 --config quota.toml

    Args:
        backend: URL of the store; default: that of --config, or the variable QUOTA_ENGINE_BACKEND.
        config: configuration file of the services, with store and key; default: QUOTA_ENGINE_IDENTITY_KEY has the key.
        as_json: print the result as JSON, and nothing else.
    """
    from quota_engine.ports import CheckIdentityKey

    backend, secret = find_key(backend, config)
    fingerprint = fingerprint_of(secret)
    with open_store(backend) as opened:
        stored = opened.execute(CheckIdentityKey(""))
    found = KeyComparison(source_of(secret), fingerprint, stored, stored in ("", fingerprint))
    if as_json:
        print_json(found)
    else:
        said = "the same" if found.matches else "another key: do not start a service with this one"
        said = said if stored else "none: the first opening sets it"
        sys.stdout.write(f"{found.source}: {fingerprint}\nstore: {stored or '-'} ({said})\n")
    return DONE if found.matches else BAD_FINDING


def _url(backend: str) -> str:
    url = backend or os.environ.get(STORE_VARIABLE, "")
    if not url.startswith(("postgresql://", "postgres://")):
        raise InvalidRequest("backend", "not the URL of a PostgreSQL store", "postgresql://…")
    try:
        import psycopg  # noqa: F401
    except ImportError:
        raise InvalidRequest(
            "backend", "psycopg is not installed", "the extra postgresql: pip install 'quota-engine[postgresql]'"
        ) from None
    return url


def _sizes(table_bytes: dict[str, int]) -> str:
    return ", ".join(f"{table} {size} bytes" for table, size in table_bytes.items())
