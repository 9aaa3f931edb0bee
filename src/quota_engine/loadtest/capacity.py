"""How many people a second a service takes, and what it does when many more come: ``quota-engine loadtest measure``.

The service (one worker) and its store have one core, the load the other. An arrival is one press of the button (a
reserve, by somebody with an identity and a key of their own), or one join of a waiting room. They press all over the
country, for as many places as the national scenario has for so many people, on days that nobody has pressed for before.
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
from typing import Any, Final, NamedTuple

from quota_engine.bench.host_info import describe_machine, pinned, usable_cores
from quota_engine.loadtest.capacity_plots import plots
from quota_engine.loadtest.load_generator import CONNECTIONS, SecondStatistics, due_times
from quota_engine.loadtest.staging_server import StagingServer, staging_server
from quota_engine.loadtest.workloads import SCENARIO, JoinWorkload, ReserveWorkload, Workload
from quota_engine.simulation.arrivals import draw_population
from quota_engine.simulation.baseline import OldApplication
from quota_engine.simulation.scenario import Arrivals, Scenario
from quota_engine.simulation.supply import open_market

P99_MS_MAX: Final = 250.0
FACTORS: Final = (2, 5, 10)
OWN_CONNECTIONS: Final = 4_000
"""So many people have connections of their own, where no proxy gathers them."""
OLD_PEOPLE: Final = (500, 5_000, 20_000)
_QUIET_SHARE: Final = 0.25
_BEFORE_S, _BURST_S, _AFTER_S = 2, 1, 13
_IN_A_ROW: Final = 3
_ARRIVALS_MAX: Final = 36_000
"""In one step: a staging has only so many places to press for."""
_GOOD: Final = frozenset({200, 201, 202, 409})
"""A place, or sold out: answers, both."""
_TRIES: Final = 2
"""A rate is too much if it is so as often as this: a machine has its moments."""
_STEPS_MAX: Final = 24
_CLOSE_ENOUGH: Final = 0.05
_LOOK_S: Final = 0.5


class RateStep(NamedTuple):
    """One rate: arrivals a second, what 99 of 100 waited, how many were not answered well, and the load's own lag."""

    rate: float
    p99_ms: float
    failed: int
    requests: int
    lag_p99_ms: float

    @property
    def is_good(self) -> bool:
        """Whether everybody was answered in time."""
        return self.p99_ms <= P99_MS_MAX and not self.failed


class Capacity(NamedTuple):
    """The highest rate that is good, and all steps on the way."""

    rate: float
    steps: list[RateStep]


class BurstResult(NamedTuple):
    """A second of so many times the capacity, between quiet seconds.

    ``connections`` is over how many they come. ``by_status`` are the answers to what was due in the burst.
    ``lag_ms`` is how late the generator itself was, 99 of 100. ``recovered_s`` is how long it is after the burst until
    three seconds in a row are good again, ``None`` if that did not happen. Memory, of the service and of the store, is
    in MiB, twice a second.
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
    """Double the rate until it is too much, then halve the gap, to within 5 %."""
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
    """Two quiet seconds at a quarter of the capacity, a second of ``factor`` times it, and thirteen quiet seconds.

    There are places for all who come before it, and then as many as for a second at the capacity.
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
    """How many seconds it is until several in a row are good: later ones have bad moments that are not the burst's."""
    good = [second.p99_ms <= P99_MS_MAX and _GOOD.issuperset(second.statuses) for second in after]
    return next((index for index in range(len(good) - _IN_A_ROW + 1) if all(good[index : index + _IN_A_ROW])), None)


@contextlib.contextmanager
def _memory_over_time(memory_mib: Callable[[], tuple[float, float]]) -> Iterator[list[tuple[float, float]]]:
    """A list that gets what is found each half second; the first and the last are of before and after."""
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
    """The memory of a staging's processes, as Linux tells it."""

    def __init__(self, here: StagingServer) -> None:
        self._service = here.pid
        self._store = 0
        for cwd in pathlib.Path("/proc").glob("[0-9]*/cwd"):  # it is nobody's child
            with contextlib.suppress(OSError):
                if cwd.readlink() == pathlib.Path(here.directory) / "store":
                    self._store = int(cwd.parent.name)

    def mib(self) -> tuple[float, float]:
        """Of the service with its workers, and of the store, in MiB; 0 where there is none to be seen."""
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
    """A new staging with one worker on a core, and what is sent to it."""
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
        target.run(due_times([(300, 1.0)], 99), 30)  # warm
        yield here, target


def measure(step_s: float, first: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Everything, without and with the waiting room, as the JSON that the tables are made of."""
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
    """The model of the old application, when so many press in the seconds after the opening. Nothing of it is run."""
    scenario = Scenario(
        applicants=people,
        arrivals=Arrivals(early_share=0.0, burst_share=1.0, refresher_share=0.0, late_share=0.0),
    )
    market = open_market(scenario, "surabaya")
    measures = OldApplication(scenario, market, draw_population(scenario, market)).run()
    return {
        "people": people,
        "p50_ms": measures.answer_us.percentile(0.5) / 1000,
        "p99_ms": measures.answer_us.percentile(0.99) / 1000,
        "requests": measures.requests,
        "errors": measures.errors,
        "oversold": measures.oversold,
        "elapsed_s": measures.last_final_us / 1e6,
    }


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def write_documents(found: dict[str, Any], docs: pathlib.Path) -> None:
    """The data, the pictures, and the tables that are made of them."""
    (docs / "data" / "load.json").write_text(json.dumps(found, indent=1) + "\n")
    for name, picture in plots(found).items():
        (docs / "images" / f"{name}.svg").write_text(picture)
    subprocess.run([sys.executable, str(docs / "generate.py")], check=True)  # noqa: S603 - our own


def measure_to_files(step_s: float, first_per_s: float, out: pathlib.Path, docs: pathlib.Path | None) -> None:
    """Measure, and write the figures as JSON and, for ``docs``, into the documents.

    Args:
        step_s: seconds to try each rate.
        first_per_s: the first rate to try, in requests a second.
        out: JSON file for the figures.
        docs: the repository's docs folder, or ``None``.
    """
    began_s = time.monotonic()
    found = measure(step_s, first_per_s, _say)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n")
    if docs is not None:
        write_documents(found, docs)
    _say(f"measured in {time.monotonic() - began_s:.0f} s")
