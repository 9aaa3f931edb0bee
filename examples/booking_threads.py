"""Book from plain threads, which share one engine, in several processes.

python examples/booking_threads.py 2026-12-07 < identities.txt
"""

from __future__ import annotations

import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from booking_settings import OFFICE, SERVICE, open_engine


def main() -> None:
    """Book a place of one day for each line of the input, and print how many got which answer."""
    day, people = sys.argv[1], sys.stdin.read().split()
    with open_engine() as engine, ThreadPoolExecutor(32) as threads:

        def book(identity: str) -> str:
            # The same key for the same person: a second run of the program has no second effect.
            held = engine.reserve(OFFICE, day, identity, service=SERVICE, idempotency_key=f"{day}-{identity}")
            return engine.confirm(held.reference, owner=identity).status if held.ok else held.status

        answers = Counter(threads.map(book, people))
    for status, count in sorted(answers.items()):
        sys.stdout.write(f"{status} {count}\n")


if __name__ == "__main__":
    main()
