"""Copies the events of one office into a SQLite table, each exactly once, however often it is killed.

    python examples/events_to_sqlite.py --store unix:///run/valkey.sock --office surabaya --catalog surabaya \\
        --into bookings.db

The store gives every event a number and hands events out at least once. What makes the effect exactly once is that rows
and the number of the last event are written in one SQLite transaction: either both are there, or neither. Several
copies may run: one copies, the others wait for the database and go on where it left off.

The identity key must be the one of the booking service; here it is read from QUOTA_ENGINE_IDENTITY_KEY in the
environment.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import time

from quota_engine import QuotaEngine, ReservationChanged, load_catalog

SCHEMA = """
CREATE TABLE IF NOT EXISTS changes (
    office TEXT NOT NULL, number INTEGER NOT NULL, at_ms INTEGER NOT NULL, verb TEXT NOT NULL,
    reservation TEXT NOT NULL, day INTEGER NOT NULL, state TEXT NOT NULL, units INTEGER NOT NULL,
    queue_number INTEGER NOT NULL,
    PRIMARY KEY (office, number)
);
CREATE TABLE IF NOT EXISTS read_up_to (office TEXT PRIMARY KEY, number INTEGER NOT NULL);
"""
PAGE = 500


def copy_page(engine: QuotaEngine, office: str, database: sqlite3.Connection) -> int:
    """Copy the next events, at most a page, in one transaction; returns how many there were."""
    database.execute("BEGIN IMMEDIATE")  # how far it goes is read under the lock under which it is written
    with database:
        row = database.execute("SELECT number FROM read_up_to WHERE office = ?", (office,)).fetchone()
        events = engine.events(office, after=row[0] if row else 0, limit=PAGE)
        for recorded in events:
            if isinstance(recorded.event, ReservationChanged):
                record = recorded.event.reservation
                values = (
                    office,
                    recorded.number,
                    recorded.event.at_ms,
                    recorded.event.verb,
                    record.id,
                    record.day,
                    record.state,
                    record.units,
                    record.queue_number,
                )
                database.execute("INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        if events:
            database.execute("INSERT OR REPLACE INTO read_up_to VALUES (?, ?)", (office, events[-1].number))
    return len(events)


def main() -> None:
    """Copy until interrupted, or with --once until there is nothing new."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True)
    parser.add_argument("--office", required=True)
    parser.add_argument("--catalog", required=True)
    parser.add_argument("--into", required=True)
    parser.add_argument("--once", action="store_true")
    options = parser.parse_args()
    key = os.environ["QUOTA_ENGINE_IDENTITY_KEY"].encode()
    database = sqlite3.connect(options.into, timeout=30, isolation_level=None)
    database.executescript(SCHEMA)
    with QuotaEngine.open(options.store, identity_key=key, catalog=load_catalog(options.catalog)) as engine:
        while True:
            copied = copy_page(engine, options.office, database)
            if not copied:
                if options.once:
                    break
                time.sleep(0.2)
    database.close()


if __name__ == "__main__":
    main()
