"""Measure the service's HTTP connections beside uvicorn's protocol: ``python -m benchmarks.http_connections``.

Two servers run the same service in memory, one on ``service/transport``, one on uvicorn's own httptools protocol.
They take turns on one core. The load has 64 connections on another core, each with one request at a time. The figure
is the processor time that the server takes for an answer, as the median of the rounds. It does not depend on the
speed of the load, so a Python client is fast enough, and other work on the machine does little harm.
"""

from __future__ import annotations

__all__ = ["main", "measure"]

import argparse
import asyncio
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.service_server import DAYS, OFFICE, ROOM, TOKEN, _configuration, _prepare
from quota_engine.bench.host_info import usable_cores
from quota_engine.service.app import create_app
from quota_engine.service.server import create_server, tune_garbage_collector

CONNECTIONS: Final = 64
PROTOCOLS: Final = ("uvicorn", "own")


class _Case(NamedTuple):
    """A request that is sent again and again, and the status of each answer."""

    name: str
    path: str
    status: int
    is_reserve: bool = False


_CASES: Final = (
    _Case("reserve", f"/v1/offices/{OFFICE}/days/{DAYS[0]}/reservations", 201, is_reserve=True),
    _Case("sold out", f"/v1/offices/{OFFICE}/days/{DAYS[1]}/reservations", 409, is_reserve=True),
    _Case("room", f"/v1/rooms/{ROOM}", 200),
)


def _request(case: _Case, number: int) -> bytes:
    if not case.is_reserve:
        return f"GET {case.path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()
    body = f'{{"applicants":["{number:016d}"],"service":"new","session":"morning"}}'
    return (
        f"POST {case.path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {TOKEN}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        f"Idempotency-Key: key-{number:016d}\r\n\r\n{body}"
    ).encode()


class _Client(asyncio.Protocol):
    """One connection. Sends the next request when the answer to the last one is complete, until the time is over."""

    def __init__(self, case: _Case, numbers: Iterator[int], until_s: float) -> None:
        self.done = asyncio.get_running_loop().create_future()
        self.answers = 0
        self._case = case
        self._numbers = numbers
        self._until_s = until_s
        self._buffer = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._transport.write(_request(self._case, next(self._numbers)))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        if len(body) < length:
            return
        if int(head[9:12]) != self._case.status:
            self.done.set_exception(RuntimeError(f"{self._case.path}: {head[:200]!r} {body[:200]!r}"))
            self._transport.close()
            return
        self._buffer = b""
        self.answers += 1
        if time.monotonic() < self._until_s:
            self._send()
        else:
            self._transport.close()
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(RuntimeError(f"{self._case.path}: the connection was lost"))


async def _load(port: int, case: _Case, numbers: Iterator[int], seconds: float) -> int:
    """Return the number of answers."""
    loop = asyncio.get_running_loop()
    until_s = time.monotonic() + seconds
    clients = []
    for _ in range(CONNECTIONS):
        _, client = await loop.create_connection(lambda: _Client(case, numbers, until_s), "127.0.0.1", port)
        clients.append(client)
    await asyncio.gather(*(client.done for client in clients))
    return sum(client.answers for client in clients)


def _processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def _served(protocol: str, core: int) -> Iterator[dict[str, Any]]:
    """Run a server in another process, and yield its port and process id."""
    command = [sys.executable, "-m", "benchmarks.http_connections", "--serve", protocol, "--core", str(core)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.stdin.close()
            process.wait(60)


def _serve(protocol: str, core: int) -> None:
    """Serve until standard input ends."""
    os.sched_setaffinity(0, {core})
    app = create_app(_configuration("memory://"))
    opened = app._starlette.router.lifespan_context  # noqa: SLF001 - the service's lifespan, and the days and the room

    @contextlib.asynccontextmanager
    async def lifespan(scope: Any) -> Any:
        async with opened(scope) as state:
            await _prepare(app)
            yield state

    app._starlette.router.lifespan_context = lifespan  # noqa: SLF001
    tune_garbage_collector()
    server = create_server(app)
    if protocol == "uvicorn":
        server.config.http = "httptools"
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]

        def watch() -> None:
            while not server.started:
                time.sleep(0.02)
            print(json.dumps({"port": port, "pid": os.getpid()}), flush=True)
            sys.stdin.read()
            server.should_exit = True

        threading.Thread(target=watch, daemon=True).start()
        server.run(sockets=[listener])


def measure(rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """Return the median microseconds of the server's processor for an answer, by case and protocol."""
    cores = usable_cores()
    if cores is None:
        raise SystemExit("two cores are needed")
    load_core, server_core = cores
    os.sched_setaffinity(0, {load_core})
    numbers = count()
    found: dict[str, dict[str, list[float]]] = {case.name: {name: [] for name in PROTOCOLS} for case in _CASES}
    with contextlib.ExitStack() as undo:
        servers = {name: undo.enter_context(_served(name, server_core)) for name in PROTOCOLS}
        for _ in range(rounds):
            for case in _CASES:
                for name, server in servers.items():
                    before_s = _processor_s(server["pid"])
                    answers = asyncio.run(_load(server["port"], case, numbers, seconds))
                    took_s = _processor_s(server["pid"]) - before_s
                    found[case.name][name].append(took_s / answers * 1e6)
    return {
        case: {name: round(statistics.median(values), 1) for name, values in by_protocol.items()}
        for case, by_protocol in found.items()
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures as a table, or as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.http_connections", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each case in a round")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", choices=PROTOCOLS, help=argparse.SUPPRESS)
    parser.add_argument("--core", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        _serve(options.serve, options.core)
        return 0
    found = measure(options.rounds, options.seconds)
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    print(f"{'µs of the processor':22}{'uvicorn':>10}{'own':>10}{'less':>8}")
    for case, by_protocol in found.items():
        plain, own = by_protocol["uvicorn"], by_protocol["own"]
        print(f"{case:22}{plain:>10.1f}{own:>10.1f}{1 - own / plain:>8.0%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
