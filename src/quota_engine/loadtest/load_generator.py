"""Lean load generator for one question: how many requests a second does a service answer?

Locust measures more and takes ten times the processor time for each request. The loop is open: the due moments are
drawn before the start, independent of the service. A connection carries one request at a time. A due request waits here
while all connections are busy, as in a proxy, and its time counts from the moment at which it was due.
"""

from __future__ import annotations

__all__ = ["CONNECTIONS", "LoadGeneratorResult", "SecondStatistics", "due_times", "generate_load"]

import asyncio
import gc
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from random import Random
from typing import Final, NamedTuple, cast

from quota_engine.reporting.statistics import Histogram

CONNECTIONS: Final = 256
_NOT_YET: Final = -1
_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length: "


class SecondStatistics(NamedTuple):
    """Statistics of one second of a run: due requests, their median and p99, and the HTTP status codes."""

    due: int
    p50_ms: float
    p99_ms: float
    statuses: Counter[int]


class LoadGeneratorResult(NamedTuple):
    """Result of a run. ``lost`` requests have no response; ``lag_us`` is the lag of this process."""

    answer_us: Histogram
    statuses: Counter[int]
    lost: int
    lag_us: Histogram
    seconds: list[SecondStatistics]
    took_s: float


def due_times(rates: Sequence[tuple[float, float]], seed: int) -> list[float]:
    """Return due moments of independent arrivals, in seconds from the start, for each (rate a second, seconds) in
    turn.
    """
    random = Random(seed)
    moments, start_s = [], 0.0
    for rate, duration_s in rates:
        at_s = start_s
        while True:
            at_s += random.expovariate(rate)
            if at_s >= start_s + duration_s:
                break
            moments.append(at_s)
        start_s += duration_s
    return moments


class _Connection(asyncio.Protocol):
    """Carries one request at a time and reports its response."""

    def __init__(self, pumping: _LoadRun) -> None:
        self._pumping = pumping
        self._buffer = b""
        self.transport: asyncio.Transport | None = None
        self.number = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's transport is no subclass of asyncio's

    def send(self, number: int, content: bytes) -> None:
        """Send the request with this number."""
        assert self.transport is not None
        self.number = number
        self.transport.write(content)

    def data_received(self, data: bytes) -> None:
        self._buffer = buffer = self._buffer + data if self._buffer else data
        head = buffer.find(_HEAD_END)
        if head < 0:
            return
        at = buffer.find(_LENGTH, 0, head)
        length = int(buffer[at + len(_LENGTH) : buffer.find(b"\r", at)]) if at >= 0 else 0
        if len(buffer) < head + 4 + length:
            return
        self._buffer = b""
        number, self.number = self.number, -1
        self._pumping.answered(number, int(buffer[9:12]), self)

    def connection_lost(self, error: Exception | None) -> None:
        self._pumping.lost_connection(self)


class _LoadRun:
    def __init__(self, due_s: Sequence[float], request: Callable[[int], bytes]) -> None:
        self._due_s, self._request = due_s, request
        self._free: list[_Connection] = []
        self._waiting: deque[int] = deque()
        self._answers: list[tuple[int, int]] = [(_NOT_YET, 0)] * len(due_s)
        """HTTP status and duration in microseconds of each request."""
        self._left = len(due_s)
        self._lost = 0
        self._start_s = 0.0
        self._lag_us = Histogram()
        self._done = asyncio.Event()

    async def run(self, host: str, port: int, connections: int, patience_s: float) -> LoadGeneratorResult:
        loop = asyncio.get_running_loop()
        made = [(await loop.create_connection(lambda: _Connection(self), host, port))[1] for _ in range(connections)]
        self._free = list(made)
        self._start_s = time.perf_counter()
        next_number = 0
        due_s, count = self._due_s, len(self._due_s)
        while next_number < count:
            now_s = time.perf_counter() - self._start_s
            while next_number < count and due_s[next_number] <= now_s:
                self._lag_us.record(round((now_s - due_s[next_number]) * 1e6))
                if self._free:
                    self._free.pop().send(next_number, self._request(next_number))
                else:
                    self._waiting.append(next_number)
                next_number += 1
            if next_number < count:
                await asyncio.sleep(max(due_s[next_number] - (time.perf_counter() - self._start_s), 0))
        try:
            await asyncio.wait_for(self._done.wait(), patience_s)
        except TimeoutError:
            self._lost += self._left
        took_s = time.perf_counter() - self._start_s
        for connection in made:
            if connection.transport is not None:
                connection.transport.abort()
        return self._pumped(took_s)

    def answered(self, number: int, status: int, connection: _Connection) -> None:
        now_s = time.perf_counter() - self._start_s
        self._answers[number] = (status, round((now_s - self._due_s[number]) * 1e6))
        self._left -= 1
        if self._waiting:
            following = self._waiting.popleft()
            connection.send(following, self._request(following))
        else:
            self._free.append(connection)
        if not self._left:
            self._done.set()

    def lost_connection(self, connection: _Connection) -> None:
        if connection.number >= 0:
            self._lost += 1
            self._left -= 1
            connection.number = -1
            if not self._left:
                self._done.set()
        if connection in self._free:
            self._free.remove(connection)

    def _pumped(self, took_s: float) -> LoadGeneratorResult:
        answer_us, statuses = Histogram(), Counter[int]()
        by_second: dict[int, tuple[Histogram, Counter[int]]] = {}
        for due_s, (status, took_us) in zip(self._due_s, self._answers, strict=True):
            if status == _NOT_YET:
                continue
            answer_us.record(took_us)
            statuses[status] += 1
            histogram, counts = by_second.setdefault(int(due_s), (Histogram(), Counter()))
            histogram.record(took_us)
            counts[status] += 1
        seconds = [
            SecondStatistics(
                histogram.count, histogram.percentile(0.5) / 1000, histogram.percentile(0.99) / 1000, counts
            )
            for _, (histogram, counts) in sorted(by_second.items())
        ]
        return LoadGeneratorResult(answer_us, statuses, self._lost, self._lag_us, seconds, took_s)


def generate_load(
    host: str,
    port: int,
    due_s: Sequence[float],
    request: Callable[[int], bytes],
    *,
    connections: int = CONNECTIONS,
    patience_s: float = 60.0,
) -> LoadGeneratorResult:
    """Send ``request(n)`` at the n-th of the moments ``due_s``, and return the result.

    Args:
        host, port: address of the service.
        due_s: moments in seconds from the start, ascending.
        request: returns a whole HTTP/1.1 request for a number.
        connections: connections to open.
        patience_s: seconds to wait for responses after the last moment.
    """
    import uvloop

    gc.collect()
    gc.freeze()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_LoadRun(due_s, request).run(host, port, connections, patience_s))
    finally:
        gc.unfreeze()
