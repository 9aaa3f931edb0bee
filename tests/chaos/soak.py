"""A long run of mixed load with random faults, which samples memory and open files.

The run has rounds. Each round opens a store, loads one office while faults strike, checks everything, closes the store,
and removes all data. So client and server should have as much memory and as many open files after the last round as
after the first ones.
"""

from __future__ import annotations

__all__ = ["BACKENDS", "Sample", "Soak", "main", "soak"]

import abc
import argparse
import contextlib
import dataclasses
import gc
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from random import Random
from types import TracebackType
from typing import Any, Final, Self

import msgspec
import psutil

from quota_engine.conformance.world import DAY, OFFICE, ONLINE, reserve
from quota_engine.domain.commands import Extend, Release
from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.domain.lifecycle import State
from quota_engine.fuzz.recording import event_of
from quota_engine.history.checker import History, check
from quota_engine.ports import Audit, ListDay, Lookup, ReadEvents, Store, View
from tests.support.acknowledged_load import Load, inspect, open_office, open_store
from tests.support.lossy_proxy import LossyProxy
from tests.support.postgresql_servers import PostgresqlServer, wheel_programs
from tests.support.servers import Server, until, valkey_server_binary

_SCHEMA: Final = "soak"
_WARM_UP: Final = 3
"""Rounds at the beginning that do not count: caches and pools fill."""
_FILES_MORE_MAX: Final = 8
_MEMORY_MORE_MAX: Final = 1.25
"""The last third may have a quarter more memory than the first one: allocators keep pages."""
_SHOWN_MAX: Final = 10
_STRIKE_CALLS: Final = (75, 225)


class Sample(msgspec.Struct, frozen=True):
    """Memory and open files after a round, when nothing runs.

    Attributes:
        client_mb: Resident memory of this process.
        client_files: Its open files and sockets.
        server_mb: Memory of the server: what Valkey has allocated, or what PostgreSQL's processes have for themselves.
        server_files: Open files of the server's processes.
    """

    client_mb: float
    client_files: int
    server_mb: float
    server_files: int


@dataclasses.dataclass
class Soak:
    """The result of a run.

    Attributes:
        backend: ``valkey`` or ``postgresql``.
        seed: The seed of the faults.
        minutes: The duration.
        rounds: The number of rounds.
        acknowledged: Reservations that were acknowledged.
        events: Events that the history checker has read.
        faults: Strikes by name.
        samples: One for each round.
        problems: Everything that was wrong.
    """

    backend: str
    seed: int
    minutes: float
    rounds: int = 0
    acknowledged: int = 0
    events: int = 0
    faults: dict[str, int] = dataclasses.field(default_factory=dict)
    samples: list[Sample] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)

    def thirds(self) -> tuple[Sample, Sample]:
        """Return the medians of the first and of the last third of the samples, without the warm-up."""
        counted = self.samples[_WARM_UP:] or self.samples
        size = max(1, len(counted) // 3)
        return _median(counted[:size]), _median(counted[-size:])

    def check_growth(self) -> None:
        """Note a problem if memory or open files have grown."""
        first, last = self.thirds()
        for name in Sample.__struct_fields__:
            before, after = getattr(first, name), getattr(last, name)
            limit = before + _FILES_MORE_MAX if name.endswith("files") else before * _MEMORY_MORE_MAX
            if after > limit:
                self.problems.append(f"{name} grew from {before:.0f} to {after:.0f}")


def _median(samples: list[Sample]) -> Sample:
    return Sample(*(statistics.median(getattr(one, name) for one in samples) for name in Sample.__struct_fields__))


class _Reader:
    """A thread that asks, extends and cancels what a load has acknowledged, and records no state."""

    def __init__(self, store: Store, load: Load, random: Random) -> None:
        self._store, self._load, self._random = store, load, random
        self._ends = threading.Event()
        self.errors: list[Exception] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.set()
        self._thread.join()
        if self.errors and error is None:
            raise self.errors[0]

    def _run(self) -> None:
        number = 0
        while not self._ends.is_set():
            number += 1
            try:
                self._step(number)
            except (BackendUnavailable, OutcomeUnknown):
                time.sleep(0.01)
            except Exception as error:  # raised again in the thread of the run
                self.errors.append(error)
                return

    def _step(self, number: int) -> None:
        known = list(self._load.acknowledged)[-50:]
        match number % 6:
            case 0:
                self._store.execute(View(OFFICE, (DAY,)))
            case 1 if known:
                self._store.execute(Lookup(OFFICE, self._random.choice(known)))
            case 2:
                self._store.execute(ReadEvents(OFFICE, 0, 100))
            case 3 if number % 60 == 3:
                self._store.execute(ListDay(OFFICE, DAY))
            case 4:
                self._store.apply(OFFICE, reserve(f"own{number}", ONLINE))
            case _:
                self._store.apply(OFFICE, Extend(f"own{number - 1}"))
                self._store.apply(OFFICE, Release(f"own{number - 1}"))


class _Backend(abc.ABC):
    """A server, its faults, and how to measure and empty it."""

    url: str
    check_url: str
    faults: dict[str, Callable[[], None]]

    def begin_round(self, stack: ExitStack) -> None:  # noqa: B027 - most servers last for the whole run
        """Start what lives for one round."""

    @abc.abstractmethod
    def empty(self) -> None:
        """Remove all data."""

    @abc.abstractmethod
    def sample(self) -> tuple[float, int]:
        """Return the server's memory in megabytes and its open files."""


def _process_faults(server: Server | PostgresqlServer) -> dict[str, Callable[[], None]]:
    """Return the faults of the processes of any server: they are killed, or stop for half a second."""

    def kill() -> None:
        server.kill()
        server.start()

    def stop() -> None:
        server.pause()
        time.sleep(0.5)
        server.resume()

    return {"kill": kill, "stop": stop}


class _Valkey(_Backend):
    def __init__(self, stack: ExitStack) -> None:
        self._server = server = stack.enter_context(Server(valkey_server_binary(), appendfsync="always"))
        self.check_url = f"{server.url}?durability=fsync"

        def cut() -> None:
            server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

        def forget() -> None:
            server.ask("FUNCTION", "FLUSH")
            server.ask("SCRIPT", "FLUSH")

        def lose() -> None:
            proxy = self._proxy
            proxy.losses = 3
            until(lambda: proxy.losses == 0, "lost replies")

        def delay() -> None:
            proxy = self._proxy
            proxy.holds = 3
            until(lambda: proxy.holds == 0, "held requests")
            with contextlib.suppress(OSError):  # the server has closed the connection of a held request
                proxy.deliver_late()

        self.faults = {**_process_faults(server), "cut": cut, "forget": forget, "lose": lose, "delay": delay}

    def begin_round(self, stack: ExitStack) -> None:
        """Start a proxy, which is in this process and keeps its sockets until it ends."""
        self._proxy = stack.enter_context(LossyProxy(self._server.socket_path))
        self.url = f"{self._proxy.url}?durability=fsync"

    def empty(self) -> None:
        self._server.ask("FLUSHALL")
        self._server.ask("BGREWRITEAOF")
        until(lambda: not self._server.info("persistence")["aof_rewrite_in_progress"], "a short append-only file")

    def sample(self) -> tuple[float, int]:
        process = psutil.Process(self._server.pid)
        return self._server.info("memory")["used_memory"] / 2**20, process.num_fds()


class _Postgresql(_Backend):
    def __init__(self, stack: ExitStack) -> None:
        self._server = server = stack.enter_context(PostgresqlServer(wheel_programs()))
        self.url = self.check_url = server.url(schema=_SCHEMA)

        def end_sessions() -> None:
            server.query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )

        self.faults = {**_process_faults(server), "end sessions": end_sessions}

    def empty(self) -> None:
        self._server.query(f"DROP SCHEMA {_SCHEMA} CASCADE")
        self._server.query("CHECKPOINT")

    def sample(self) -> tuple[float, int]:
        postmaster = psutil.Process(self._server.pid)
        processes = [postmaster, *postmaster.children(recursive=True)]
        own = sum(one.memory_full_info().uss for one in processes)
        return own / 2**20, sum(one.num_fds() for one in processes)


BACKENDS: Final[dict[str, Callable[[ExitStack], _Backend]]] = {"valkey": _Valkey, "postgresql": _Postgresql}


def soak(
    backend: str, minutes: float, seed: int, report: Callable[[str], None] = lambda _: None, *, strikes: int = 4
) -> Soak:
    """Run rounds for some minutes.

    Args:
        backend: One of :data:`BACKENDS`.
        minutes: The duration; the last round is finished, and there is at least one.
        seed: Decides the faults and their moments.
        report: Called with a line for each round.
        strikes: Faults in each round.
    """
    result, random = Soak(backend, seed, minutes), Random(f"{seed} {backend}")
    with ExitStack() as stack:
        servers = BACKENDS[backend](stack)
        ends_s = time.monotonic() + minutes * 60
        while not result.rounds or (time.monotonic() < ends_s and not result.problems):
            _round(servers, result, random, strikes)
            result.rounds += 1
            report(f"round {result.rounds}: {result.acknowledged:,} acknowledged, {result.samples[-1]}")
    result.check_growth()
    return result


def _round(servers: _Backend, result: Soak, random: Random, strikes: int) -> None:
    with ExitStack() as stack:
        servers.begin_round(stack)
        store = open_office(servers.url)
        with Load(store, 6, may_lose=False) as load, _Reader(store, load, random):
            for _ in range(strikes):
                load.wait_for(random.randint(*_STRIKE_CALLS))
                name = random.choice(sorted(servers.faults))
                servers.faults[name]()
                result.faults[name] = result.faults.get(name, 0) + 1
                load.wait_for(20)
        store.close()
    found = inspect(servers.check_url, load.acknowledged)
    if found.lost or found.findings or not found.is_counted:
        result.problems.append(
            f"round {result.rounds + 1}: {len(found.lost)} lost, findings {found.findings}, counted {found.is_counted}"
        )
    result.problems += _check_history(servers.check_url, load.acknowledged, result)
    result.acknowledged += len(load.acknowledged)
    servers.empty()
    gc.collect()
    own = psutil.Process()
    result.samples.append(Sample(own.memory_info().rss / 2**20, own.num_fds(), *servers.sample()))


def _check_history(url: str, acknowledged: dict[str, State], result: Soak) -> list[str]:
    """Replay the events on the model that is written from the rules alone."""
    store = open_store(url)
    try:
        recorded = store.execute(ReadEvents(OFFICE, 0, 10_000_000))
        problems: list[Any] = list(store.execute(Audit(OFFICE)))
    finally:
        store.close()
    result.events += len(recorded)
    return [
        *map(str, problems),
        *check(History(events={OFFICE: [event_of(one, one.event.at_ms) for one in recorded]})),
    ][:10]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m tests.chaos soak``; returns 1 if something was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="duration (default 60)")
    parser.add_argument("--backend", choices=sorted(BACKENDS), default="valkey")
    parser.add_argument("--seed", type=int, default=1, help="seed of the faults (default 1)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    report = _report if not options.json else _be_silent
    result = soak(options.backend, options.minutes, options.seed, report)
    first, last = result.thirds()
    if options.json:
        seen = {**dataclasses.asdict(result), "samples": None, "first": first, "last": last}
        sys.stdout.write(json.dumps(msgspec.to_builtins(seen), indent=2) + "\n")
    else:
        strikes = ", ".join(f"{name} {times}" for name, times in sorted(result.faults.items()))
        _report(f"{result.rounds} rounds, {result.acknowledged:,} acknowledged, {result.events:,} events; {strikes}")
        _report(f"first third {first}")
        _report(f"last third  {last}")
        _report("; ".join(result.problems) or "no problem")
    return int(bool(result.problems))


def _report(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _be_silent(_: str) -> None:
    """Report nothing."""
