"""Opens ``sqlite:///file``: the factory of the entry point."""

from __future__ import annotations

__all__ = ["open_async_store", "open_store"]

import re
import sqlite3
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from quota_engine.clocks import SteadyClock, SystemClock, monotonic_ms
from quota_engine.domain.errors import BackendUnavailable, InvalidRequest
from quota_engine.ports import Clock
from quota_engine.stores.call_end import CALL_TIMEOUT_MS, CALL_TIMEOUT_MS_BOUNDS, CallEnd
from quota_engine.stores.sql.async_store import AsyncSqlStore
from quota_engine.stores.sql.ledger_cache import CACHE_BYTES_MAX, SOLD_OUT_MS, SOLD_OUT_MS_MAX
from quota_engine.stores.sql.sqlite.connections import AsyncSqliteConnections, SqliteConnections, Synchronous
from quota_engine.stores.sql.sync_store import SqlStore

SCHEME: Final = "sqlite"
EXAMPLE: Final = f"{SCHEME}:///var/lib/quota/quota.db"
VERSION_MIN: Final = (3, 24)
"""The first SQLite with ``ON CONFLICT``."""
_SYNCHRONOUS: Final[dict[str, Synchronous]] = {"fsync": "FULL", "memory": "OFF"}
_has_drive = re.compile(r"/[A-Za-z]:/").match


class _Target(NamedTuple):
    path: str
    synchronous: Synchronous
    cache_bytes_max: int
    sold_out_ms: int
    call_timeout_ms: int

    @property
    def end(self) -> CallEnd:
        """The end of an opening that begins now."""
        return CallEnd(monotonic_ms() + self.call_timeout_ms)


def _target(url: str, clock: Clock | None) -> _Target:
    parts = urlsplit(url) if isinstance(url, str) else urlsplit("")
    if parts.scheme != SCHEME or not url.startswith(f"{SCHEME}://"):
        raise InvalidRequest("url", "not the URL of a SQLite file", EXAMPLE)
    if parts.netloc:
        raise InvalidRequest(
            "url", "a relative path or a host's name", f"three slashes and an absolute path: {EXAMPLE}"
        )
    if parts.fragment:
        raise InvalidRequest("url", "has a part behind '#'", "that character in a path encoded as %23")
    path = unquote(parts.path, errors="surrogateescape")
    if "\0" in path or path.strip("/") == "" or path.endswith("/"):
        raise InvalidRequest("url", "names no file", EXAMPLE)
    if ".." in path.split("/"):
        raise InvalidRequest("url", "has '..' in its path", EXAMPLE)
    synchronous, cache_mb = _SYNCHRONOUS["fsync"], CACHE_BYTES_MAX // 1_000_000
    sold_out_ms = SOLD_OUT_MS if clock is None else 0
    call_timeout_ms = CALL_TIMEOUT_MS
    seen: set[str] = set()
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in seen:
            raise InvalidRequest("url", f"{name} more than once", f"{name} once")
        seen.add(name)
        if name == "durability":
            if value not in _SYNCHRONOUS:
                raise InvalidRequest("url", f"durability={value}", "durability=fsync or durability=memory")
            synchronous = _SYNCHRONOUS[value]
        elif name == "cache_mb":
            if not value.isdecimal() or not 1 <= int(value) <= 1_000_000:
                raise InvalidRequest("url", f"cache_mb={value}", "1 to 1000000")
            cache_mb = int(value)
        elif name == "sold_out_ms":
            if not value.isdecimal() or int(value) > SOLD_OUT_MS_MAX:
                raise InvalidRequest("url", f"sold_out_ms={value}", f"0 to {SOLD_OUT_MS_MAX}")
            sold_out_ms = int(value)
        elif name == "call_timeout_ms":
            least, most = CALL_TIMEOUT_MS_BOUNDS
            if not value.isdecimal() or not least <= int(value) <= most:
                raise InvalidRequest("url", f"call_timeout_ms={value}", f"{least} to {most}")
            call_timeout_ms = int(value)
        else:
            expected = "durability, cache_mb, sold_out_ms, call_timeout_ms, or none"
            raise InvalidRequest("url", f"the unknown option {name!r}", expected)
    path = path[1:] if _has_drive(path) else path
    return _Target(path, synchronous, cache_mb * 1_000_000, sold_out_ms, call_timeout_ms)


def _check_version() -> None:
    if sqlite3.sqlite_version_info < VERSION_MIN:
        least = ".".join(map(str, VERSION_MIN))
        raise BackendUnavailable(
            f"Python's SQLite is {sqlite3.sqlite_version}, and this store needs {least} or newer: use a newer Python"
        )


def _second(clock: Clock | None) -> Clock | None:
    """Return a clock that the system's clock is checked against."""
    return SteadyClock() if clock is None else None


def open_store(url: str, clock: Clock | None) -> SqlStore:
    """Open the store in a file, which is created if it does not exist.

    Args:
        url: ``sqlite:///file``, with an absolute path.
        clock: Source of the time; ``None`` for the system's clock.

    Raises:
        InvalidRequest: The URL has another form, or the file belongs to another application.
        BackendUnavailable: The file cannot be used.
    """
    target = _target(url, clock)
    _check_version()
    connections = SqliteConnections(target.path, target.synchronous, target.end)
    return SqlStore(
        connections,
        clock or SystemClock(),
        cache_bytes_max=target.cache_bytes_max,
        sold_out_ms=target.sold_out_ms,
        second_clock=_second(clock),
        call_timeout_ms=target.call_timeout_ms,
    )


async def open_async_store(url: str, clock: Clock | None) -> AsyncSqlStore:
    """Open the store in a file for asyncio. See :func:`open_store`."""
    target = _target(url, clock)
    _check_version()
    connections = AsyncSqliteConnections(target.path, target.synchronous)
    try:
        await connections.open(target.end)
    except BaseException:
        await connections.close()
        raise
    return AsyncSqlStore(
        connections,
        clock or SystemClock(),
        cache_bytes_max=target.cache_bytes_max,
        sold_out_ms=target.sold_out_ms,
        second_clock=_second(clock),
        call_timeout_ms=target.call_timeout_ms,
    )
