"""Copies the events of one office into a SQLite database, each exactly once, by several consumers that may be killed.

    python examples/events_to_sqlite.py --store unix:///run/valkey.sock --office surabaya --catalog surabaya \\
        --into bookings.db --consumer w1

Start it as often as you like, with another --consumer each time: they are one group and share the work. Whoever is
started again goes on with what it had; what a consumer has had for longer than --claim-idle-ms goes to another.

The store gives every event a number and hands it out at least once. What makes the effect exactly once is that it is
written in one SQLite transaction with that number: a number that stands there already has had its effect. Only then is
the event acknowledged. Whoever dies between the two gets it again, and finds the number.

The identity key must be the one of the booking service; here it is read from QUOTA_ENGINE_IDENTITY_KEY in the
environment.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import time

from quota_engine import QuotaEngine, RecordedEvent, ReservationChanged, load_catalog

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
    """Write a page of events, and what it comes to, in one transaction."""
    database.execute("BEGIN IMMEDIATE")
    with database:
        for recorded in events:
            if not isinstance(recorded.event, ReservationChanged):
                continue
            verb, record = recorded.event.verb, recorded.event.reservation
            values = (
                office,
                recorded.number,
                recorded.event.at_ms,
                verb,
                record.id,
                record.day,
                record.state,
                record.units,
                record.queue_number,
            )
            new = database.execute("INSERT OR IGNORE INTO changes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values).rowcount
            if new:  # whatever an event leads to belongs here: this is reached once for each number
                database.execute(
                    "INSERT INTO steps_of_day VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET units = units + ?",
                    (office, record.day, verb, record.units, record.units),
                )


def copy_page(
    engine: QuotaEngine, office: str, database: sqlite3.Connection, consumer: str, min_idle_ms: int = 60_000
) -> int:
    """Take over the next events, at most a page; returns how many there were."""
    events = engine.events(office, limit=PAGE, consumer_group=GROUP, consumer=consumer, min_idle_ms=min_idle_ms)
    if events:
        write(database, office, events)
        engine.acknowledge(office, GROUP, [recorded.number for recorded in events])
    return len(events)


def main() -> None:
    """Copy until interrupted, or with --once until there is nothing new."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True)
    parser.add_argument("--office", required=True)
    parser.add_argument("--catalog", required=True)
    parser.add_argument("--into", required=True)
    parser.add_argument("--consumer", required=True)
    parser.add_argument("--claim-idle-ms", type=int, default=60_000)
    parser.add_argument("--once", action="store_true")
    options = parser.parse_args()
    key = os.environ["QUOTA_ENGINE_IDENTITY_KEY"].encode()
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
