"""Events of an office in a transaction of the consumer, so that their effects happen exactly once.

The position of the consumer group changes in the same transaction as the consumer's own tables. A transaction that is
undone, for example because its process died, leaves both unchanged. So no table of processed numbers is needed.
"""

from __future__ import annotations

__all__ = ["take_events", "wait_for_events"]

import time
from typing import Any, Final

import psycopg
from psycopg import pq, sql

from quota_engine.domain.consumer_groups import GROUPS_MAX
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.validation import check_integer, check_name
from quota_engine.ports import RecordedEvent
from quota_engine.stores.sql import office_codec
from quota_engine.stores.sql.entry_codec import decode, encode
from quota_engine.stores.sql.postgresql.url import SCHEMA_DEFAULT

LIMIT_MAX: Final = 10_000
_WAIT_MS_MAX: Final = 3_600_000
_ENTRIES_PAGE: Final = 100

_LEDGER: Final = "SELECT id, trimmed_event_number FROM {ledgers} WHERE address = %s"
_COUNT: Final = "SELECT count(*) FROM {groups} WHERE ledger = %s"
_CREATE: Final = "INSERT INTO {groups} (ledger, name, body) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
_LOCK: Final = "SELECT body FROM {groups} WHERE ledger = %s AND name = %s FOR UPDATE"
_MOVE: Final = "UPDATE {groups} SET body = %s WHERE ledger = %s AND name = %s"
_ENTRIES: Final = """
SELECT number, first_event, events, body FROM {entries}
WHERE ledger = %(ledger)s
    AND first_event >= coalesce(
        (SELECT max(first_event) FROM {entries} WHERE ledger = %(ledger)s AND first_event <= %(after)s + 1), 0)
    AND first_event + events > %(after)s + 1 AND events > 0
ORDER BY first_event, number LIMIT %(limit)s
"""


def take_events(
    connection: psycopg.Connection[Any],
    office: str,
    consumer_group: str,
    *,
    limit: int = 100,
    schema: str = SCHEMA_DEFAULT,
) -> list[RecordedEvent]:
    """Return the next events of a group, and move the group past them when the caller commits.

    The group is locked until the end of the transaction, so its consumers work one after the other, and each sees all
    events in order. The office itself is not locked. The group is created by the first call, at the oldest stored
    event. Use a group in this way only: :meth:`quota_engine.QuotaEngine.events` would overwrite its position.

    Args:
        connection: A connection to the store's database, in a transaction of the caller.
        office: The office.
        consumer_group: Name of the group.
        limit: Number of events at most, from 1 to 10,000.
        schema: The schema of the store.

    Returns:
        The events in order; empty if there is no new one.

    Raises:
        InvalidRequest: The connection is not in a transaction, a consumer outside a transaction has events of the
            group, or the office has as many groups as it may have.
    """
    check_name(office, "office")
    check_name(consumer_group, "consumer_group")
    check_integer(limit, "limit", 1, LIMIT_MAX)
    if connection.autocommit and connection.info.transaction_status == pq.TransactionStatus.IDLE:
        raise InvalidRequest("connection", "not in a transaction", "a block `with connection.transaction():`")
    names = {
        name: sql.Identifier(schema, table)
        for name, table in (("ledgers", "ledgers"), ("entries", "entries"), ("groups", "consumer_groups"))
    }

    def run(text: Any, parameters: Any) -> psycopg.Cursor[Any]:
        return connection.execute(sql.SQL(text).format(**names), parameters)

    ledger = run(_LEDGER, (office,)).fetchone()
    if ledger is None:
        return []
    ledger_id, trimmed = ledger
    position = run(_LOCK, (ledger_id, consumer_group)).fetchone()
    if position is None:
        count = run(_COUNT, (ledger_id,)).fetchone()
        if count is not None and count[0] >= GROUPS_MAX:
            raise InvalidRequest(
                "consumer_group",
                f"the office has {GROUPS_MAX} groups, which is the limit",
                "an existing group; delete one first to create another",
            )
        run(_CREATE, (ledger_id, consumer_group, encode(trimmed, [])))
        position = run(_LOCK, (ledger_id, consumer_group)).fetchone()
        assert position is not None
    after, leases = decode(bytes(position[0]), "a consumer group")
    if leases:
        raise InvalidRequest(
            "consumer_group", "consumers outside a transaction have events of it", "a group of its own for this use"
        )
    after = max(after, trimmed)
    events = _events(run, office, ledger_id, after, limit)
    if events:
        run(_MOVE, (encode(events[-1].number, []), ledger_id, consumer_group))
    return events


def wait_for_events(
    connection: psycopg.Connection[Any], office: str, *, timeout_ms: int = 1_000, schema: str = SCHEMA_DEFAULT
) -> bool:
    """Wait until an office has new events, or until the time is over. Take events in both cases.

    Stores with ``notify=on`` in their URL notify at each commit. Without it, or behind a pooler that gives each
    transaction another session, every wait lasts ``timeout_ms``. So does the first wait, if the events came before it:
    call it once with 1 millisecond before the first :func:`take_events`, or accept that delay.

    Args:
        connection: A connection in autocommit mode, outside a transaction. It listens from the first call on.
        office: The office.
        timeout_ms: The longest wait in milliseconds, from 1 to 3,600,000.
        schema: The schema of the store.

    Returns:
        True if the office has notified.

    Raises:
        InvalidRequest: The connection is in a transaction, or would begin one.
    """
    check_name(office, "office")
    check_integer(timeout_ms, "timeout_ms", 1, _WAIT_MS_MAX)
    if not connection.autocommit or connection.info.transaction_status != pq.TransactionStatus.IDLE:
        raise InvalidRequest("connection", "in a transaction", "autocommit mode, outside `connection.transaction()`")
    connection.execute(sql.SQL("LISTEN {channel}").format(channel=sql.Identifier(schema)))
    ends_at_s = time.monotonic() + timeout_ms / 1000
    while (left_s := ends_at_s - time.monotonic()) > 0:
        # All that arrived together are read, because those that are left would be lost.
        offices = [notice.payload for notice in connection.notifies(timeout=left_s, stop_after=1)]
        if office in offices:
            return True
    return False


def _events(run: Any, office: str, ledger_id: int, after: int, limit: int) -> list[RecordedEvent]:
    """Return up to ``limit`` events with numbers above ``after``."""
    found: list[RecordedEvent] = []
    last, table = after + limit, office_codec.ChoiceTable()
    while after < last:
        rows = run(_ENTRIES, {"ledger": ledger_id, "after": after, "limit": _ENTRIES_PAGE}).fetchall()
        for number, first_event, count, body in rows:
            events, _ = office_codec.decode_entry(office, bytes(body), table, f"entry {number} of {office}")
            found += [RecordedEvent(own, event) for own, event in enumerate(events, first_event) if after < own <= last]
            after = first_event + count - 1
            if after >= last:
                break
        if len(rows) < _ENTRIES_PAGE:
            break
    return found
