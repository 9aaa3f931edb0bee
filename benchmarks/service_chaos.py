"""Book places while workers, the store and the whole service are killed, and check the result.

Run it with ``python -m benchmarks.service_chaos --seconds 60 --seed 1``. Each round has a new store (a Valkey that
writes to disk before it answers). A service has several worker processes, and callers in threads retry with the same
key until they know the outcome. The seed decides about the kills and their times, but not about the machine's
scheduling. After each round the audit must have no findings, no quota may be oversold, and every acknowledged place
must exist with its queue number.
"""

from __future__ import annotations

__all__ = ["main"]

import argparse
import base64
import contextlib
import hashlib
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Final

from quota_engine.client import ServiceClient
from tests.service.test_runner import Served, served
from tests.support.concurrent_bookers import BookerThreads, check, open_day, set_places
from tests.support.servers import Server, valkey_server_binary

PLACES: Final = 1500
PEOPLE: Final = 1700
THREADS: Final = 16
TOKEN: Final = "a token for this campaign"  # noqa: S105 - of a service without other users
PAUSE_S: Final = (0.05, 0.6)
"""Between two kills."""
AWAY_S: Final = (0.0, 1.0)
"""Time for which the store is down."""


class Round:
    """One store, one service at a time, and a crowd."""

    def __init__(self, folder: Path, workers: int, random: Random, killed: Counter[str]) -> None:
        self._folder = folder
        self._workers = workers
        self._random = random
        self._killed = killed
        self._services = contextlib.ExitStack()

    def run(self) -> BookerThreads:
        """Run until all callers have an answer, and check the result."""
        random = self._random
        with Server(valkey_server_binary(), appendfsync="always") as store, self._services:
            service = self._services.enter_context(self._serving(store))
            with ServiceClient.open(service.url, TOKEN) as client:
                day = open_day(client)
                set_places(client, day, PLACES)
            crowd = BookerThreads(service.url, TOKEN, day, PEOPLE, threads=THREADS)
            crowd.start()
            while crowd.is_running:
                time.sleep(random.uniform(*PAUSE_S))
                what = random.choices(("worker", "store", "frozen store", "service"), (5, 3, 2, 1))[0]
                self._killed[what] += 1
                if what == "worker":
                    with contextlib.suppress(ProcessLookupError, IndexError):
                        os.kill(random.choice(service.workers()), signal.SIGKILL)
                elif what == "service":
                    service.process.terminate()
                    assert service.process.wait(60) == 0, service.lines
                    service = self._services.enter_context(self._serving(store))
                    crowd.switch_to(service.url)
                else:
                    self._take_away(store, frozen=what == "frozen store")
            crowd.finish()
            with ServiceClient.open(service.url, TOKEN) as client:
                check(client, crowd, PLACES)
            assert (len(crowd.confirmed), crowd.sold_out) == (PLACES, PEOPLE - PLACES)
        return crowd

    def _take_away(self, store: Server, *, frozen: bool) -> None:
        away_s = self._random.uniform(*AWAY_S)
        if frozen:
            store.pause()
            time.sleep(away_s)
            store.resume()
        else:
            store.kill()
            time.sleep(away_s)
            store.start()

    @contextlib.contextmanager
    def _serving(self, store: Server) -> Iterator[Served]:
        config = self._folder / "service.toml"
        digest = hashlib.sha256(TOKEN.encode()).hexdigest()
        config.write_text(f'[[tokens]]\nname = "all"\nrole = "operator"\nsha256 = "{digest}"\n')
        environment = {
            "QUOTA_ENGINE_BACKEND": f"{store.url}?durability=fsync&attempts_max=4&timeout_ms=1000",
            "QUOTA_ENGINE_IDENTITY_KEY": base64.b64encode(b"a key for this campaign alone").decode(),
        }
        with served(self._folder, "--workers", str(self._workers), "--config", str(config), **environment) as service:
            yield service


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign, print its results, and return 0. A violation raises an error."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service_chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="begin no round later than this")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(arguments)
    random = Random(options.seed)
    killed: Counter[str] = Counter()
    sums: Counter[str] = Counter()
    longest_s = 0.0
    began_s = time.monotonic()
    while not sums["rounds"] or time.monotonic() - began_s < options.seconds:
        with tempfile.TemporaryDirectory(prefix="service-kills-") as folder:
            crowd = Round(Path(folder), options.workers, random, killed).run()
        sums["rounds"] += 1
        sums["places"] += len(crowd.confirmed)
        sums["sold out"] += crowd.sold_out
        sums["calls"] += crowd.requests
        sums["asked again"] += crowd.retries
        longest_s = max(longest_s, crowd.longest_s)
        print(f"round {sums['rounds']}: {dict(killed)}, {len(crowd.confirmed)} places, {crowd.retries} asked again")
    print(f"{time.monotonic() - began_s:.0f} s with seed {options.seed}, {options.workers} workers")
    print("killed: " + ", ".join(f"{what} {count}" for what, count in sorted(killed.items())))
    print(", ".join(f"{what} {count}" for what, count in sums.items()))
    print(f"sold twice 0, acknowledged and lost 0, audits without a finding {sums['rounds']}")
    print(f"the longest that anybody was without an answer: {longest_s:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
