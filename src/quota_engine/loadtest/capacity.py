"""Capacity of a service: the highest rate that it answers in time, and its behavior above that rate.

``quota-engine loadtest measure`` runs it. The service (one worker) and its store have one core, the load generator the
other. An arrival is one reserve by a new identity with a new key, or one join of a waiting room. Reserves go to
offices
all over the country, on days that no earlier step used, with as many places as the national scenario has for them.
"""

from __future__ import annotations

__all__ = ["BurstResult", "Capacity", "RateStep", "burst", "find_capacity", "measure", "measure_to_files"]

import contextlib
import json
import pathlib
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple, TextIO

from quota_engine.bench.host_info import describe_machine, pinned, usable_cores
from quota_engine.loadtest.capacity_plots import plots
from quota_engine.loadtest.load_generator import CONNECTIONS, SecondStatistics, due_times
from quota_engine.loadtest.staging_server import StagingServer, staging_server
from quota_engine.loadtest.workloads import SCENARIO, JoinWorkload, ReserveWorkload, Workload
from quota_engine.simulation.arrivals import draw_population
from quota_engine.simulation.baseline import BaselineApplication
from quota_engine.simulation.scenario import Arrivals, Scenario
from quota_engine.simulation.supply import build_supply

P99_MS_MAX: Final = 250.0
FACTORS: Final = (2, 5, 10)
OWN_CONNECTIONS: Final = 4_000
"""From this number on, each person has a connection; no proxy shares them."""
OLD_PEOPLE: Final = (500, 5_000, 20_000)
_QUIET_SHARE: Final = 0.25
_BEFORE_S, _BURST_S, _AFTER_S = 2, 1, 13
_IN_A_ROW: Final = 3
_ARRIVALS_MAX: Final = 36_000
"""Most arrivals in one step: a staging service has a limited number of places."""
_GOOD: Final = frozenset({200, 201, 202, 409})
"""Successful responses: a place, or sold out."""
_TRIES: Final = 2
"""A rate is too high if it fails as often as this; single failures happen on a busy machine."""
_STEPS_MAX: Final = 24
_CLOSE_ENOUGH: Final = 0.05
_LOOK_S: Final = 0.5


class RateStep(NamedTuple):
    """One rate: arrivals a second, their p99, the failed share, and the lag of the load generator."""

    rate: float
    p99_ms: float
    failed: int
    requests: int
    lag_p99_ms: float

    @property
    def is_good(self) -> bool:
        """True if every request succeeded in time."""
        return self.p99_ms <= P99_MS_MAX and not self.failed


class Capacity(NamedTuple):
    """The highest good rate, and all steps on the way to it."""

    rate: float
    steps: list[RateStep]


class BurstResult(NamedTuple):
    """A second at a multiple of the capacity, between quiet seconds.

    ``connections`` carry the requests. ``by_status`` counts the responses to requests of that second. ``lag_ms`` is
    the
    p99 of the load generator's lag. ``recovered_s`` is the time until three seconds in a row are good again, ``None``
    if
    that did not happen. Memory of service and store is in MiB, twice a second.
    """

    factor: float
    rate: float
    connections: int
    p50_ms: float
    p99_ms: float
    by_status: dict[str, int]
    lost: int
    lag_ms: float
    recovered_s: int | None
    seconds_p99_ms: list[float]
    service_mib: list[float]
    store_mib: list[float]


def find_capacity(target: Workload, *, first: float, step_s: float) -> Capacity:
    """Double the rate until it is too high, then halve the gap, to within 5 %."""
    steps: list[RateStep] = []
    good, bad, rate, tries = 0.0, 0.0, first, 0
    while len(steps) < _STEPS_MAX and not (bad and bad - good <= _CLOSE_ENOUGH * bad):
        due_s = due_times([(rate, min(step_s, _ARRIVALS_MAX / rate))], len(steps))
        pumped = target.run(due_s, len(due_s) / target.people_per_place)
        failed = pumped.lost + sum(count for status, count in pumped.statuses.items() if status not in _GOOD)
        p99_ms, lag_ms = pumped.answer_us.percentile(0.99) / 1000, pumped.lag_us.percentile(0.99) / 1000
        step = RateStep(rate, p99_ms, failed, len(due_s), lag_ms)
        steps.append(step)
        tries += 1
        if step.is_good:
            good, tries = rate, 0
            rate = (good + bad) / 2 if bad else rate * 2
        elif tries == _TRIES:
            bad, tries = rate, 0
            rate = (good + bad) / 2
    return Capacity(good, steps)


def burst(
    target: Workload,
    capacity: float,
    factor: float,
    *,
    connections: int = CONNECTIONS,
    memory_mib: Callable[[], tuple[float, float]],
) -> BurstResult:
    """Run two quiet seconds at a quarter of the capacity, one at ``factor`` times it, and thirteen quiet ones.

    There are places for everyone who comes before the burst, and then for one second at the capacity.
    """
    quiet = capacity * _QUIET_SHARE
    due_s = due_times([(quiet, _BEFORE_S), (capacity * factor, _BURST_S), (quiet, _AFTER_S)], round(factor))
    places = quiet * _BEFORE_S + capacity * _BURST_S / target.people_per_place
    with _memory_over_time(memory_mib) as memory:
        pumped = target.run(due_s, places, connections)
    end = _BEFORE_S + _BURST_S
    rush = pumped.seconds[_BEFORE_S:end]
    statuses = sum((second.statuses for second in rush), Counter[int]())
    return BurstResult(
        factor,
        capacity * factor,
        connections,
        max((second.p50_ms for second in rush), default=0.0),
        max((second.p99_ms for second in rush), default=0.0),
        {str(status): count for status, count in sorted(statuses.items())},
        pumped.lost,
        pumped.lag_us.percentile(0.99) / 1000,
        _recovered_s(pumped.seconds[end:]),
        [round(second.p99_ms, 1) for second in pumped.seconds],
        [service for service, _ in memory],
        [store for _, store in memory],
    )


def _recovered_s(after: Sequence[SecondStatistics]) -> int | None:
    """Return the number of seconds until several in a row are good. Later bad seconds have other causes."""
    good = [second.p99_ms <= P99_MS_MAX and _GOOD.issuperset(second.statuses) for second in after]
    return next((index for index in range(len(good) - _IN_A_ROW + 1) if all(good[index : index + _IN_A_ROW])), None)


@contextlib.contextmanager
def _memory_over_time(memory_mib: Callable[[], tuple[float, float]]) -> Iterator[list[tuple[float, float]]]:
    """Yield a list that receives the memory twice a second; its first and last values are from before and after."""
    found = [memory_mib()]
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(_LOOK_S):
            found.append(memory_mib())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()
        found.append(memory_mib())


class _Memory:
    """Memory of the staging service's processes, from Linux's ``/proc``."""

    def __init__(self, here: StagingServer) -> None:
        self._service = here.pid
        self._store = 0
        for cwd in pathlib.Path("/proc").glob("[0-9]*/cwd"):  # the store is a daemon, not a child of the service
            with contextlib.suppress(OSError):
                if cwd.readlink() == pathlib.Path(here.directory) / "store":
                    self._store = int(cwd.parent.name)

    def mib(self) -> tuple[float, float]:
        """Return the memory of the service with its workers, and of the store, in MiB; 0 if a process is not found."""
        pids, kib = [self._service], 0
        while pids:
            each = pids.pop()
            kib += self._kib(each)
            with contextlib.suppress(OSError):
                for children in pathlib.Path(f"/proc/{each}/task").glob("*/children"):
                    pids += map(int, children.read_text().split())
        return round(kib / 1024, 1), round(self._kib(self._store) / 1024, 1)

    @staticmethod
    def _kib(pid: int) -> int:
        try:
            lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            return 0
        return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS")), 0)


_ROOMS: Final = '[waiting_rooms]\noffices = ["*"]\n'
_PINNED: Final = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
os.execv(sys.argv[2], sys.argv[2:])
"""


@contextlib.contextmanager
def _somewhere(kind: str, core: int | None) -> Iterator[tuple[StagingServer, Workload]]:
    """Start a staging service with one worker on one core, and yield the workload for it."""
    by_room = kind == "room"
    with staging_server(
        SCENARIO,
        opens_in_s=25 if by_room else -60,
        workers=1,
        command=() if core is None else (sys.executable, "-c", _PINNED, str(core)),
        settings=_ROOMS if by_room else "",
    ) as here:
        target: Workload = JoinWorkload(here) if by_room else ReserveWorkload(here)
        if by_room:
            time.sleep(max(here.opens_at_s + 3 - time.time(), 0))
        target.run(due_times([(300, 1.0)], 99), 30)  # warm up
        yield here, target


def measure(step_s: float, first: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure with and without the waiting room, and return the figures as JSON data."""
    cores = usable_cores()
    client, server = cores or (None, None)
    result: dict[str, Any] = {"machine": describe_machine(), "step_s": step_s, "is_pinned": cores is not None}
    with pinned(0, client):
        for kind in ("press", "room"):
            with _somewhere(kind, server) as (_, target):
                capacity = find_capacity(target, first=first, step_s=step_s)
            say(f"{kind}: {capacity.rate:,.0f} a second")
            bursts = []
            for connections in (CONNECTIONS, OWN_CONNECTIONS):
                with _somewhere(kind, server) as (here, target):
                    memory = _Memory(here)
                    for factor in FACTORS:
                        found = burst(target, capacity.rate, factor, connections=connections, memory_mib=memory.mib)
                        bursts.append(found)
                        say(
                            f"  {factor} times: p99 {found.p99_ms:,.0f} ms, {found.by_status}, lost {found.lost}, "
                            f"good again after {found.recovered_s} s, lag {found.lag_ms:.0f} ms"
                        )
            result[kind] = {
                "capacity": capacity.rate,
                "steps": [step._asdict() for step in capacity.steps],
                "bursts": [one._asdict() for one in bursts],
            }
    result["old"] = [_old_application(people) for people in OLD_PEOPLE]
    return result


def _old_application(people: int) -> dict[str, Any]:
    """Return figures of the simulated old application for the same numbers of people. Nothing of it runs for real."""
    scenario = Scenario(
        applicants=people,
        arrivals=Arrivals(early_share=0.0, burst_share=1.0, refresher_share=0.0, late_share=0.0),
    )
    supply = build_supply(scenario, "surabaya")
    metrics = BaselineApplication(scenario, supply, draw_population(scenario, supply)).run()
    return {
        "people": people,
        "p50_ms": metrics.answer_us.percentile(0.5) / 1000,
        "p99_ms": metrics.answer_us.percentile(0.99) / 1000,
        "requests": metrics.requests,
        "errors": metrics.errors,
        "oversold": metrics.oversold,
        "elapsed_s": metrics.last_final_us / 1e6,
    }


def _say_on(output: TextIO) -> Callable[[str], None]:
    """Return a function that writes a line of the progress."""

    def say(line: str) -> None:
        output.write(line + "\n")
        output.flush()

    return say


def write_documents(found: dict[str, Any], docs: pathlib.Path) -> None:
    """Write the data, the pictures and the generated tables of the documents."""
    (docs / "data" / "load.json").write_text(json.dumps(found, indent=1) + "\n")
    for name, picture in plots(found).items():
        (docs / "images" / f"{name}.svg").write_text(picture)
    subprocess.run([sys.executable, str(docs / "generate.py")], check=True)  # noqa: S603 - our own


def measure_to_files(
    step_s: float, first_per_s: float, out: pathlib.Path, docs: pathlib.Path | None, *, as_json: bool = False
) -> None:
    """Measure, and write the figures as JSON and, for ``docs``, into the documents.

    Args:
        step_s: seconds to try each rate.
        first_per_s: the first rate to try, in requests a second.
        out: JSON file for the figures.
        docs: the repository's docs folder, or ``None``.
        as_json: print the figures as JSON, and the progress on standard error.
    """
    began_s = time.monotonic()
    say = _say_on(sys.stderr if as_json else sys.stdout)
    found = measure(step_s, first_per_s, say)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n")
    if docs is not None:
        write_documents(found, docs)
    say(f"measured in {time.monotonic() - began_s:.0f} s")
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
