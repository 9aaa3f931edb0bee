"""Steps of transactions on a PostgreSQL store's tables, for tests of connections without a store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from quota_engine.stores.sql.postgresql.connections import Connections
from quota_engine.stores.sql.postgresql.opening import RoundTrips
from quota_engine.stores.sql.postgresql.url import parse_url
from quota_engine.stores.sql.steps import LedgerRow, RoundTrip, Statement
from tests.support.postgresql_servers import PostgresqlServer

ADDRESS = "jakarta"


def create_ledger(address: str = ADDRESS) -> RoundTrips[None]:
    """Create a ledger without entries."""
    yield RoundTrip((Statement("create_ledger", (address, "", 1)),))


def append_entry(body: bytes, address: str = ADDRESS) -> RoundTrips[int]:
    """Append an entry with one event, as a batch does: in two round trips. Return its number."""
    (rows,) = yield RoundTrip((Statement("lock_ledger", (address,)),), begin=True)
    row = LedgerRow(*rows[0])
    number, checksum = row.last_number + 1, b"checksum"
    yield RoundTrip(
        (
            Statement("insert_entry", (row.id, number, number, 1, body, checksum)),
            Statement("update_ledger", (number, number, row.now_ms, checksum, row.id)),
        ),
        end="commit",
    )
    return number


def read_bodies(address: str = ADDRESS) -> RoundTrips[list[bytes]]:
    """Return the bodies of all entries."""
    (rows,) = yield RoundTrip((Statement("read_ledger", (address,)),))
    (entries,) = yield RoundTrip((Statement("read_entries", (rows[0][0], 0, 1_000_000)),))
    return [body for _, body, _ in entries]


@contextmanager
def opened(server: PostgresqlServer, schema: str, **options: Any) -> Iterator[Connections]:
    """Open connections whose schema has one ledger. Its tables are made without the options, such as time-outs."""
    durability = {name: value for name, value in options.items() if name == "durability"}
    first = Connections(parse_url(server.url(schema=schema, **durability)))
    try:
        first.open()
        first.run(create_ledger())
    finally:
        first.close()
    connections = Connections(parse_url(server.url(schema=schema, **options)))
    try:
        connections.open()
        yield connections
    finally:
        connections.close()
