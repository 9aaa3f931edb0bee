"""URLs of PostgreSQL stores, ``postgresql://…``: the store's own options, and the connection string for libpq."""

from __future__ import annotations

__all__ = ["SCHEMES", "CommitDurability", "Settings", "parse_url"]

import enum
from typing import Final
from urllib.parse import parse_qsl, quote, urlsplit

import msgspec
import psycopg
from psycopg import conninfo

from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.validation import check_name
from quota_engine.stores.call_end import CALL_TIMEOUT_MS, CALL_TIMEOUT_MS_BOUNDS, CALL_TIMEOUT_MS_WITH_FAILOVER
from quota_engine.stores.sql.ledger_cache import SOLD_OUT_MS_MAX

SCHEMES: Final = frozenset({"postgresql", "postgres"})
SCHEMA_DEFAULT: Final = "quota_engine"
SCHEMA_LENGTH_MAX: Final = 63
"""PostgreSQL cuts longer identifiers without an error."""
_FORM: Final = "postgresql://[user:password@]host[:port][,host:port]/database with options of libpq"
_OWN_OPTIONS: Final = frozenset(
    {
        "cache_mb",
        "call_timeout_ms",
        "connections_max",
        "durability",
        "lock_timeout_ms",
        "notify",
        "prepare",
        "replicas",
        "schema",
        "sold_out_ms",
        "statement_timeout_ms",
        "timeout_ms",
    }
)


class CommitDurability(enum.StrEnum):
    """The condition under which a commit counts as acknowledged."""

    MEMORY = "memory"
    """The server has applied it. Its settings ``fsync`` and ``synchronous_commit`` decide what a crash loses."""
    FSYNC = "fsync"
    """It is on the server's disk. ``fsync`` must be on, which is checked for every connection."""
    REPLICATED = "replicated"
    """It is on the disks of ``replicas`` synchronous standbys, too."""


class Settings(msgspec.Struct, frozen=True):
    """The settings of a URL.

    Args:
        conninfo: libpq's connection string.
        schema: The schema that has the tables.
        timeout_ms: The longest wait of the client for an answer, or for a connection.
        statement_timeout_ms: The longest time that the server works on a statement.
        lock_timeout_ms: The longest wait of the server for a ledger's lock.
        durability: See :class:`CommitDurability`.
        replicas: Standbys that must have a commit, if ``durability`` is ``replicated``; else 0.
        connections_max: Connections that one store opens at most.
        prepare: True to prepare the statements of each connection once.
        has_several_hosts: True if another host may be the writable one after a failover.
        cache_mb: Bound of the ledgers in memory, in megabytes; 0 for the default.
        call_timeout_ms: The time that a call has, with all attempts.
        sold_out_ms: A reserve that was sold out within this time is refused without the database; ``None`` for the
            default.
        notify: True to notify waiting consumers of new events.
    """

    conninfo: str
    schema: str = SCHEMA_DEFAULT
    timeout_ms: int = 5000
    statement_timeout_ms: int = 4000
    lock_timeout_ms: int = 3000
    durability: CommitDurability = CommitDurability.FSYNC
    replicas: int = 0
    connections_max: int = 16
    prepare: bool = True
    has_several_hosts: bool = False
    cache_mb: int = 0
    call_timeout_ms: int = CALL_TIMEOUT_MS
    sold_out_ms: int | None = None
    notify: bool = False


def parse_url(url: str) -> Settings:
    """Return the settings of a URL.

    Args:
        url: ``postgresql://…`` or ``postgres://…``.

    Raises:
        InvalidRequest: The URL does not have the form, or an option has an invalid value. The text has no part of the
            URL that could belong to a password.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise InvalidRequest("url", "not a URL", _FORM) from None
    if parts.scheme not in SCHEMES:
        raise InvalidRequest("url", f"this store has no scheme {parts.scheme}://", "postgresql://")
    if parts.fragment:
        raise InvalidRequest("url", "has a part behind '#'", "that character in a password encoded as %23")
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    options = dict(pairs)
    if len(options) < len(pairs):
        raise InvalidRequest("url", "has an option more than once", "each option once")
    own = {name: options.pop(name) for name in _OWN_OPTIONS if name in options}
    timeout_ms = _integer(own, "timeout_ms", 5000, 100, 600_000)
    statement_timeout_ms = _integer(own, "statement_timeout_ms", timeout_ms * 4 // 5, 1, 600_000)
    durability = _choice(own, "durability", CommitDurability.FSYNC, tuple(CommitDurability))
    has_several_hosts = "," in parts.netloc or "," in options.get("host", "")
    may_fail_over = has_several_hosts or durability == CommitDurability.REPLICATED
    call_timeout_ms = CALL_TIMEOUT_MS_WITH_FAILOVER if may_fail_over else CALL_TIMEOUT_MS
    return Settings(
        conninfo=_conninfo(url, options, timeout_ms),
        schema=_schema(own.get("schema", SCHEMA_DEFAULT)),
        timeout_ms=timeout_ms,
        statement_timeout_ms=statement_timeout_ms,
        lock_timeout_ms=_integer(own, "lock_timeout_ms", min(statement_timeout_ms, timeout_ms * 3 // 5), 1, 600_000),
        durability=CommitDurability(durability),
        replicas=_integer(own, "replicas", 1, 1, 100) if durability == CommitDurability.REPLICATED else 0,
        connections_max=_integer(own, "connections_max", 16, 1, 1000),
        prepare=_choice(own, "prepare", "on", ("on", "off")) == "on",
        has_several_hosts=has_several_hosts,
        cache_mb=_integer(own, "cache_mb", 0, 0, 1_000_000),
        call_timeout_ms=_integer(own, "call_timeout_ms", call_timeout_ms, *CALL_TIMEOUT_MS_BOUNDS),
        sold_out_ms=_integer(own, "sold_out_ms", 0, 0, SOLD_OUT_MS_MAX) if "sold_out_ms" in own else None,
        notify=_choice(own, "notify", "off", ("on", "off")) == "on",
    )


def _conninfo(url: str, options: dict[str, str], timeout_ms: int) -> str:
    """Return libpq's connection string, with keepalives that find a dead server in about ``timeout_ms``."""
    # libpq accepts lists of hosts, which urlsplit does not take apart. It parses the URL without the store's options.
    query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in options.items())
    try:
        fields = conninfo.conninfo_to_dict(url.partition("?")[0] + (f"?{query}" if query else ""))
    except psycopg.ProgrammingError:  # its text may contain a part of the password
        known = {field.keyword.decode() for field in psycopg.pq.Conninfo.get_defaults()}
        unknown = sorted(name for name in options if name not in known)
        problem = f"the unknown option {unknown[0][:40]!r}" if unknown else "libpq cannot read it"
        raise InvalidRequest("url", problem, _FORM) from None
    if not fields.get("dbname"):
        raise InvalidRequest("url", "names no database", _FORM)
    fields.setdefault("connect_timeout", str(max(2, round(timeout_ms / 1000))))
    fields.setdefault("application_name", "quota_engine")
    fields.setdefault("tcp_user_timeout", str(timeout_ms))
    fields.setdefault("keepalives_idle", "10")
    fields.setdefault("keepalives_interval", "2")
    fields.setdefault("keepalives_count", "3")
    return conninfo.make_conninfo("", **fields)


def _schema(name: str) -> str:
    check_name(name, "url, option schema")
    if len(name) > SCHEMA_LENGTH_MAX:
        raise InvalidRequest("url, option schema", "too long", f"at most {SCHEMA_LENGTH_MAX} characters")
    if name.startswith("pg_"):
        raise InvalidRequest("url, option schema", "begins with pg_, which PostgreSQL keeps for itself", "another name")
    return name


def _integer(options: dict[str, str], name: str, default: int, minimum: int, maximum: int) -> int:
    text = options.get(name, str(default))
    if not (text.isascii() and text.isdigit()) or not minimum <= int(text) <= maximum:
        raise InvalidRequest(f"url, option {name}", repr(text[:40]), f"an integer from {minimum} to {maximum}")
    return int(text)


def _choice(options: dict[str, str], name: str, default: str, choices: tuple[str, ...]) -> str:
    given = options.get(name, default)
    if given not in choices:
        raise InvalidRequest(f"url, option {name}", repr(given[:40]), f"one of {', '.join(choices)}")
    return given
