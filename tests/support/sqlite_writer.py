"""A process that reserves places in a SQLite file, and prints each acknowledged id: ``python -m … url first count``."""

from __future__ import annotations

import sys
import threading

from quota_engine.clocks import ManualClock
from quota_engine.conformance.world import OFFICE, ONLINE, OPENS_AT_MS, reserve
from quota_engine.domain.outcomes import Status
from quota_engine.stores.sql.sqlite.factory import open_store

THREADS = 4


def main(url: str, first: int, count: int) -> None:
    """Reserve places with the ids ``k{first}`` and so on, by several threads, and print those that are held."""
    store = open_store(url, ManualClock(OPENS_AT_MS))
    lock = threading.Lock()

    def run(thread: int) -> None:
        for number in range(first + thread, first + count, THREADS):
            outcome = store.apply(OFFICE, reserve(f"k{number}", ONLINE))
            if outcome.status is Status.HELD:
                with lock:
                    sys.stdout.write(f"k{number}\n")
                    sys.stdout.flush()

    threads = [threading.Thread(target=run, args=(thread,)) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
