"""Copy the events of one office into a SQLite database, each exactly once, with consumers that may be killed.

    python examples/events_to_sqlite.py --store unix:///run/valkey.sock --office surabaya --catalog surabaya \
        --into bookings.db --consumer w1

Start any number of them, each with another --consumer: they are one consumer group and share the work. A restarted
consumer continues with its events. Events that a consumer has kept for longer than --min-idle-ms go to another one.

The store gives every event a number and delivers it at least once. This program makes the effect exactly once: one
SQLite transaction writes the effect together with the number, and skips a number that is already stored. Only then
does it acknowledge the event. A consumer that dies in between gets the event again, and finds the number.

The identity key must be the booking service's; this program reads it from QUOTA_ENGINE_IDENTITY_KEY (base64).
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import time

from quota_engine import QuotaEngine, RecordedEvent, ReservationChanged, decode_identity_key, load_catalog

SCHEMA = """
CREATE TABLE IF NOT EXISTS changes (
    office TEXT NOT NULL, number INTEGER NOT NULL, at_ms INTEGER NOT NULL, verb TEXT NOT NULL,
    reservation TEXT NOT NULL, day INTEGER NOT NULL, state TEXT NOT NULL, units INTEGER NOT NULL,
    queue_number INTEGER NOT NULL,
    PRIMARY KEY (office, number)
);
CREATE TABLE IF NOT EXISTS steps_of_day (
    office TEXT NOT NULL, day INTEGER NOT NULL, verb TEXT NOT NULL, units INTEGER NOT NULL,
    PRIMARY KEY (office, day, verb)
);
"""
GROUP = "sqlite"
PAGE = 100


def write(database: sqlite3.Connection, office: str, events: list[RecordedEvent]) -> None:
    """Write a page of events and their effects in one transaction."""
    database.execute("BEGIN IMMEDIATE")
    with database:
        for recorded in events:
            if not isinstance(recorded.event, ReservationChanged):
                continue
            verb, record = recorded.event.verb, recorded.event.reservation
            change = (office, recorded.number, recorded.event.at_ms, verb)
            state = (record.id, record.day, record.state, record.units, record.queue_number)
            insert = "INSERT OR IGNORE INTO changes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
            new = database.execute(insert, change + state).rowcount
            if new:  # put the effects of an event here: the program runs this once for each number
                database.execute(
                    "INSERT INTO steps_of_day VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET units = units + ?",
                    (office, record.day, verb, record.units, record.units),
                )


def copy_page(
    engine: QuotaEngine, office: str, database: sqlite3.Connection, consumer: str, min_idle_ms: int = 60_000
) -> int:
    """Copy the next page of events and return its size."""
    events = engine.events(office, limit=PAGE, consumer_group=GROUP, consumer=consumer, min_idle_ms=min_idle_ms)
    if events:
        write(database, office, events)
        engine.acknowledge(office, GROUP, [recorded.number for recorded in events])
    return len(events)


def main() -> None:
    """Copy until interrupted, or with --once until there are no new events."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True)
    parser.add_argument("--office", required=True)
    parser.add_argument("--catalog", required=True)
    parser.add_argument("--into", required=True)
    parser.add_argument("--consumer", required=True)
    parser.add_argument("--min-idle-ms", type=int, default=60_000)
    parser.add_argument("--once", action="store_true")
    options = parser.parse_args()
    key = decode_identity_key(os.environ["QUOTA_ENGINE_IDENTITY_KEY"], "QUOTA_ENGINE_IDENTITY_KEY")
    database = sqlite3.connect(options.into, timeout=30, isolation_level=None)
    database.executescript(SCHEMA)
    with QuotaEngine.open(options.store, identity_key=key, catalog=load_catalog(options.catalog)) as engine:
        while True:
            copied = copy_page(engine, options.office, database, options.consumer, options.min_idle_ms)
            if not copied:
                if options.once:
                    break
                time.sleep(0.2)
    database.close()


if __name__ == "__main__":
    main()
