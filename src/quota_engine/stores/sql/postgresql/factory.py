"""Opens ``postgresql://``, ``postgres://`` and ``postgresql+embedded://``: the factory of the entry points."""

from __future__ import annotations

__all__ = ["open_async_store", "open_store"]

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, urlencode

from quota_engine.clocks import monotonic_ms
from quota_engine.ports import Clock
from quota_engine.stores.call_end import CallEnd
from quota_engine.stores.sql.async_store import AsyncSqlStore
from quota_engine.stores.sql.ledger_cache import CACHE_BYTES_MAX, SOLD_OUT_MS
from quota_engine.stores.sql.postgresql.connections import AsyncConnections, Connections
from quota_engine.stores.sql.postgresql.embedded import SCHEME, EmbeddedPostgresql, open_embedded_postgresql
from quota_engine.stores.sql.postgresql.url import Settings, parse_url
from quota_engine.stores.sql.sync_store import SqlStore

RESTART_TIMEOUT_MS: Final = 10_000
"""The longest wait of a call for an embedded server that starts again."""
_TRANSACTIONS_MAX: Final = 4
"""Transactions of batches at a time. More of them do not raise the rate, because commits wait for one disk."""


class _Target(NamedTuple):
    settings: Settings
    embedded: EmbeddedPostgresql | None

    def restart(self) -> None:
        """Start the embedded server again."""
        assert self.embedded is not None
        self.embedded.ensure_running(RESTART_TIMEOUT_MS)

    @property
    def cache_bytes_max(self) -> int:
        return self.settings.cache_mb * 1_000_000 or CACHE_BYTES_MAX

    def sold_out_ms(self, clock: Clock | None) -> int:
        """Return the time for which the store remembers that a reserve was sold out."""
        given = self.settings.sold_out_ms
        return given if given is not None else SOLD_OUT_MS if clock is None else 0

    @property
    def end(self) -> CallEnd:
        """The end of an opening that begins now."""
        return CallEnd(monotonic_ms() + self.settings.call_timeout_ms)


def open_store(url: str, clock: Clock | None) -> SqlStore:
    """Open the store in a database, and make its tables if they are missing.

    Options of the URL, besides those of libpq:

    - ``schema``: the schema with the tables (``quota_engine``);
    - ``call_timeout_ms``: the longest time of a call (5000; 10000 with several hosts or ``durability=replicated``);
    - ``timeout_ms``: the longest wait for an answer or a connection (5000);
    - ``statement_timeout_ms``, ``lock_timeout_ms``: the longest time that the server works on a statement (4/5 of
      ``timeout_ms``), or waits for a ledger's lock (3/5);
    - ``durability``: ``fsync`` (the default), ``replicated`` with ``replicas``, or ``memory``;
    - ``connections_max``: connections of one store (16);
    - ``sold_out_ms``: the time for which a refused reserve is refused again without the database (250; 0 with a clock);
    - ``cache_mb``: bound of the ledgers in memory;
    - ``prepare``: ``on`` or ``off``;
    - ``notify``: ``on`` to notify consumers that wait for events; ``off`` is the default.

    Args:
        url: The URL.
        clock: Source of the time; ``None`` for the database's time.

    Raises:
        InvalidRequest: The URL is not of this form.
        BackendUnavailable: No server answers, or it does not qualify, or the login is refused.
    """
    target = _open_target(url)
    connections = Connections(target.settings, target.restart if target.embedded else None)
    with _closed_on_error(target):
        connections.open(target.end)
    return SqlStore(
        connections,
        clock,
        cache_bytes_max=target.cache_bytes_max,
        sold_out_ms=target.sold_out_ms(clock),
        on_close=target.embedded.close if target.embedded else None,
        call_timeout_ms=target.settings.call_timeout_ms,
        notifies=target.settings.notify,
        transactions_max=_TRANSACTIONS_MAX,
    )


async def open_async_store(url: str, clock: Clock | None) -> AsyncSqlStore:
    """Open the store in a database for asyncio. See :func:`open_store`."""
    target = await asyncio.to_thread(_open_target, url)
    connections = AsyncConnections(target.settings, target.restart if target.embedded else None)
    with _closed_on_error(target):
        await connections.open(target.end)
    return AsyncSqlStore(
        connections,
        clock,
        cache_bytes_max=target.cache_bytes_max,
        sold_out_ms=target.sold_out_ms(clock),
        on_close=target.embedded.close if target.embedded else None,
        call_timeout_ms=target.settings.call_timeout_ms,
        notifies=target.settings.notify,
        transactions_max=_TRANSACTIONS_MAX,
    )


def _open_target(url: str) -> _Target:
    """Return the settings of a URL, and start the embedded server if the URL names one."""
    scheme, _, rest = url.partition("://")
    if scheme != SCHEME:
        return _Target(parse_url(url), None)
    path, _, query = rest.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    parse_url(f"postgresql:///postgres?{urlencode(pairs)}")  # an error is found before a server is started
    embedded = open_embedded_postgresql(f"{SCHEME}://{path}")
    return _Target(parse_url(f"{embedded.url}&{urlencode(pairs)}" if pairs else embedded.url), embedded)


@contextlib.contextmanager
def _closed_on_error(target: _Target) -> Iterator[None]:
    """Close the embedded server if the store cannot be opened."""
    try:
        yield
    except BaseException:
        if target.embedded is not None:
            target.embedded.close()
        raise
