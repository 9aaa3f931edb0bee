"""Size of a large ledger in the database and in memory, and the time to read it.

Run it with ``python -m benchmarks.sql_ledger sqlite:///file`` or ``postgresql://…``. It reserves and confirms places of
one office-day in batches of 500, and vacuums. A new process reads the ledger then. The file, or the schema of the URL,
must be one that you can drop.

The time to insert the same number of new keys into two empty dicts is printed as well, because the reading cannot be
faster than that. It shows how slow the machine is at the moment.
"""

from __future__ import annotations

__all__ = ["main"]

import argparse
import hashlib
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from quota_engine.clocks import ManualClock
from quota_engine.conformance.world import DAY, OFFICE, OPENS_AT_MS, choice, terms
from quota_engine.domain.commands import Command, Confirm, Publish, Reserve
from quota_engine.domain.model import DayTerms, QuotaTerms
from quota_engine.engine.store_discovery import store_factory
from quota_engine.ports import ApplyMany, View
from quota_engine.stores.sql.postgresql.administration import vacuum

_BATCH: Final = 500
_CALL_MS: Final = 3_600_000


def _hash(text: str, size: int) -> str:
    return hashlib.blake2b(text.encode(), digest_size=size).hexdigest()


def _fill(url: str, reservations: int) -> None:
    store = store_factory(url).open_store(url, ManualClock(OPENS_AT_MS))
    day = terms()
    quotas = (QuotaTerms("online", reservations),)
    store.apply(
        OFFICE, Publish(DAY, DayTerms(day.opens_at_ms, day.starts_at_ms, day.ends_at_ms, day.forget_at_ms, quotas))
    )
    online = choice(("online",))
    for start in range(0, reservations, _BATCH):
        numbers = range(start, min(start + _BATCH, reservations))
        ids = [_hash(f"id {number}", 11) for number in numbers]
        reserves: list[Command] = [
            Reserve(one, DAY, (_hash(f"applicant {number}", 12),), online)
            for one, number in zip(ids, numbers, strict=True)
        ]
        store.execute(ApplyMany(OFFICE, tuple(reserves)))
        store.execute(ApplyMany(OFFICE, tuple(Confirm(one) for one in ids)))
    store.close()


def _vacuum(url: str) -> int:
    """Reclaim unused space, and return the bytes of the database with its indexes."""
    if not url.startswith("sqlite"):
        return sum(vacuum(url).values())
    path = Path(url.removeprefix("sqlite://").partition("?")[0])
    connection = sqlite3.connect(path)
    connection.execute("VACUUM")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return path.stat().st_size


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def _read(url: str, reservations: int) -> None:
    """Open the store in this process, read the ledger, and print what it took."""
    store = store_factory(url).open_store(url, ManualClock(OPENS_AT_MS))
    before, began_s = _resident_bytes(), time.process_time()
    (view,) = store.execute(View(OFFICE, (DAY,)), ends_at_ms=time.monotonic() * 1000 + _CALL_MS)
    taken_s = time.process_time() - began_s
    assert view.quotas["online"].confirmed == reservations
    size = (_resident_bytes() - before) / reservations
    print(f"read in {taken_s:.2f} s of processor time, {size:,.0f} bytes of the process for each")
    store.close()
    print(f"two dicts of as many keys: {_dicts_s(reservations):.2f} s of processor time")


def _dicts_s(count: int) -> float:
    """Return the processor time that inserts new keys into two empty dicts, in seconds."""
    names = [[_hash(f"{name} {number}", 11) for number in range(count)] for name in ("id", "applicant")]
    began_s = time.process_time()
    dicts: list[dict[str, str]] = [{}, {}]
    for one, keys in zip(dicts, names, strict=True):
        one.update(zip(keys, keys, strict=True))
    return time.process_time() - began_s


def main(arguments: Sequence[str] | None = None) -> None:
    """Fill, vacuum, and read in a new process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--reservations", type=int, default=1_000_000)
    parser.add_argument("--read", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.read:
        _read(options.url, options.reservations)
        return
    _fill(options.url, options.reservations)
    size = _vacuum(options.url) / options.reservations
    print(f"{options.reservations:,} confirmed reservations: {size:,.0f} bytes of the database for each", flush=True)
    command = [sys.executable, "-m", "benchmarks.sql_ledger", options.url, "--read"]
    subprocess.run([*command, "--reservations", str(options.reservations)], check=True)  # noqa: S603


if __name__ == "__main__":
    main()
