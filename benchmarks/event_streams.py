"""Measure memory and delay of event streams: ``python -m benchmarks.event_streams``.

The service runs in a separate process on one core. This process opens 2,000 streams of a waiting room and of tickets,
on the other core. It measures the growth of the server's memory, and the delay of a change: an operator closes the
room. The delay until the last reader begins when the store has the change, so it includes the time until the service
reads the room again. The delay from the first reader to the last one is measured too. With ``--elsewhere`` another
process on the same store closes the room, and the first process must detect it.
"""

from __future__ import annotations

__all__ = ["main", "measure"]

import argparse
import asyncio
import contextlib
import json
import os
import random
import resource
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any, Final

from benchmarks.server_memory import _valkey_server
from benchmarks.service import served
from benchmarks.service_server import ROOM, TOKEN
from quota_engine.bench.host_info import describe_machine, pinned, usable_cores

GOALS: Final = {"growth_mib": 100, "update_ms": 500}
_AT_ONCE: Final = 100


class _Reader:
    """One stream: how many events have come, and when the last of them did."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.events = 0
        self.last_s = 0.0
        self.first = asyncio.Event()
        self.last = b""

    async def read(self) -> None:
        """Until it ends."""
        while line := await self._reader.readline():
            if line.startswith(b"data: "):
                self.last_s = time.perf_counter()
                self.last = line
                self.events += 1
                self.first.set()

    def close(self) -> None:
        self._writer.close()


async def _open(port: int, path: str) -> _Reader:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4_096)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return _Reader(reader, writer)


def _resident_mib(process: int) -> float:
    fields = Path(f"/proc/{process}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _close_room(port: int) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/rooms/{ROOM}/close", method="POST", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        answer.read()


async def _measured(served: dict[str, Any], changer: int, streams: int, of_tickets: float) -> dict[str, Any]:
    port, process, tickets = served["port"], served["pid"], served["tickets"]
    warm = await _open(port, f"/v1/rooms/{ROOM}/stream")
    warming = asyncio.create_task(warm.read())
    await warm.first.wait()
    before = _resident_mib(process)
    readers: list[_Reader] = []
    tasks: list[asyncio.Task[None]] = [warming]
    started_s = time.perf_counter()
    for start in range(0, streams, _AT_ONCE):
        paths = [
            f"/v1/rooms/{ROOM}/tickets/{tickets[number % len(tickets)]}/stream"
            if number < of_tickets * streams
            else f"/v1/rooms/{ROOM}/stream"
            for number in range(start, min(start + _AT_ONCE, streams))
        ]
        some = await asyncio.gather(*(_open(port, path) for path in paths))
        readers += some
        tasks += [asyncio.create_task(one.read()) for one in some]
        await asyncio.gather(*(one.first.wait() for one in some))
    opened_s = time.perf_counter() - started_s
    grown = _resident_mib(process) - before
    events = sum(one.events for one in readers)
    await asyncio.sleep(2)
    steady = sum(one.events for one in readers) - events
    await asyncio.sleep(random.random())  # at any moment between two looks
    changed_s = time.perf_counter()
    await asyncio.to_thread(_close_room, changer)
    told_s = time.perf_counter()
    deadline_s = told_s + 20
    while not all(b'CLOSED"' in one.last for one in readers) and time.perf_counter() < deadline_s:
        await asyncio.sleep(0.05)
    assert all(b'CLOSED"' in one.last for one in readers), "a reader missed the change"
    times = sorted(one.last_s for one in readers)
    peak = _resident_mib(process) - before
    for one in (warm, *readers):
        one.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return {
        "streams": streams,
        "of_tickets": of_tickets,
        "opened_s": round(opened_s, 2),
        "growth_mib": round(max(grown, peak), 1),
        "kib_a_stream": round(max(grown, peak) * 1024 / streams, 1),
        "events_a_second_while_the_room_runs": round(steady / 2),
        "update_ms": round((times[-1] - changed_s) * 1000),
        "update_median_ms": round((times[len(times) // 2] - changed_s) * 1000),
        "from_first_to_last_ms": round((times[-1] - times[0]) * 1000),
    }


def measure(streams: int, of_tickets: float, *, elsewhere: bool = False) -> dict[str, Any]:
    """Open the streams, close the room (``elsewhere``: in another process), and measure when all readers know."""
    cores = usable_cores()
    if cores is None:
        raise SystemExit("two cores are needed")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * streams + 500)), hard))
    with contextlib.ExitStack() as undo:
        backend = "memory://"
        if elsewhere:
            with pinned(0, cores[0]):
                backend = undo.enter_context(_valkey_server())
        service = undo.enter_context(served("service", cores[1], backend))
        other = undo.enter_context(served("service", cores[0], backend)) if elsewhere else service
        undo.enter_context(pinned(0, cores[0]))
        return asyncio.run(_measured(service, other["port"], streams, of_tickets))


def main(arguments: list[str] | None = None) -> int:
    """Print the figures as JSON; returns 1 if a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.event_streams", description=__doc__)
    parser.add_argument("--streams", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=3, help="of which each has a new server")
    parser.add_argument("--of-tickets", type=float, default=0.5, help="the share of streams that are a ticket's")
    parser.add_argument("--elsewhere", action="store_true", help="another process changes the room")
    options = parser.parse_args(arguments)
    rounds = [measure(options.streams, options.of_tickets, elsewhere=options.elsewhere) for _ in range(options.rounds)]
    print(json.dumps({"machine": describe_machine(), "goals": GOALS, "rounds": rounds}, indent=2))
    return int(any(one[name] > goal for one in rounds for name, goal in GOALS.items()))


if __name__ == "__main__":
    sys.exit(main())
