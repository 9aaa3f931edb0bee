"""Count the confirmed places of each day in a table of one's own, exactly once, with consumers that may be killed.

    python examples/events_in_one_transaction.py --database postgresql://u@localhost/quota --office surabaya

The store and the table are in the same PostgreSQL. One transaction takes the events and changes the table, so a killed
consumer leaves both unchanged, and no table of processed numbers is needed. Start any number of them: they work one
after the other. --schema is the store's schema.
"""

from __future__ import annotations

import argparse
from typing import Any

import psycopg

from quota_engine import ReservationChanged
from quota_engine.stores.sql.postgresql.transactional_events import take_events, wait_for_events

TABLE = """
CREATE TABLE IF NOT EXISTS places_by_day (
    office text NOT NULL, day integer NOT NULL, verb text NOT NULL, units integer NOT NULL,
    PRIMARY KEY (office, day, verb)
)
"""
COUNT = """
INSERT INTO places_by_day VALUES (%s, %s, %s, %s)
ON CONFLICT (office, day, verb) DO UPDATE SET units = places_by_day.units + excluded.units
"""
GROUP = "places-by-day"


def count_page(connection: psycopg.Connection[Any], office: str, schema: str, limit: int = 100) -> int:
    """Take a page of events, and count them in the same transaction. Return the size of the page."""
    with connection.transaction():
        events = take_events(connection, office, GROUP, limit=limit, schema=schema)
        for recorded in events:
            if isinstance(recorded.event, ReservationChanged):
                record = recorded.event.reservation
                connection.execute(COUNT, (office, record.day, recorded.event.verb, record.units))
    return len(events)


def main() -> None:
    """Count until interrupted, or with --once until there are no new events."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", required=True)
    parser.add_argument("--office", required=True)
    parser.add_argument("--schema", default="quota_engine")
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--once", action="store_true")
    options = parser.parse_args()
    with psycopg.connect(options.database, autocommit=True) as connection:
        connection.execute(TABLE)
        while True:
            if not count_page(connection, options.office, options.schema, options.limit):
                if options.once:
                    return
                wait_for_events(connection, options.office, timeout_ms=200, schema=options.schema)


if __name__ == "__main__":
    main()
