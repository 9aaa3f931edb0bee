"""One fault under load, and the inspection of everything that was acknowledged."""

from __future__ import annotations

__all__ = ["Result", "run"]

import dataclasses
import time
from contextlib import ExitStack
from random import Random
from typing import Any

from tests.chaos.faults import KEPT, Fault
from tests.support.acknowledged_load import Load, inspect, open_office


@dataclasses.dataclass(frozen=True)
class Result:
    """The outcome of a fault.

    Attributes:
        fault: The fault.
        strikes: The number of strikes.
        acknowledged: Reservations that were acknowledged.
        lost: Those of them that are not there as acknowledged.
        recovery_ms: For each strike, the time from the moment at which the store could serve again, or its primary
            died, to the next acknowledgment.
        problem: The broken promise, or "".
    """

    fault: Fault
    strikes: int
    acknowledged: int
    lost: int
    recovery_ms: list[float]
    problem: str

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {**dataclasses.asdict(self), "fault": self.fault.name, "promised": self.fault.promised}


def run(fault: Fault, strikes: int, threads: int, random: Random, *, rests: bool = False) -> Result:
    """Strike ``strikes`` times under load, each time after a random number of calls.

    Args:
        fault: The fault.
        strikes: The number of strikes.
        threads: The threads that reserve.
        random: Decides the number of calls before each strike.
        rests: True to let the threads rest after each strike, until the servers are as before.

    Raises:
        NotPossible: This machine lacks something that the fault needs.
    """
    each, times = (1, strikes) if fault.once else (strikes, 1)
    rounds = [_run(fault, each, threads, random, rests=rests) for _ in range(times)]
    return Result(
        fault,
        strikes,
        sum(one.acknowledged for one in rounds),
        sum(one.lost for one in rounds),
        [ms for one in rounds for ms in one.recovery_ms],
        "; ".join(one.problem for one in rounds if one.problem),
    )


def _run(fault: Fault, strikes: int, threads: int, random: Random, *, rests: bool) -> Result:
    """The same with one set of servers."""
    recovery_ms: list[float] = []
    with ExitStack() as stack:
        case = fault.open(stack)
        store = case.load or open_office(case.url)
        with Load(store, threads, may_lose=True, office=case.office) as load:
            for _ in range(strikes):
                load.wait_for(random.randint(20, 120))
                strike = case.strike()
                next(strike)
                began_s = time.monotonic()
                load.wait_for(1)
                recovery_ms.append((time.monotonic() - began_s) * 1000)
                load.wait_for(20)
                if rests:
                    load.rest()
                for _ in strike:
                    raise AssertionError(f"{fault.name} yields once")
                load.go_on()
                load.wait_for(20)
        store.close()
        found = inspect(case.check_url or case.url, load.acknowledged, case.office, case.day)
    problems = []
    if found.findings or not found.is_counted:
        problems.append(f"the audit has {len(found.findings)} findings, counters right: {found.is_counted}")
    if found.lost and fault.promised is KEPT:
        problems.append(f"{len(found.lost)} of {len(load.acknowledged)} acknowledged reservations are lost")
    return Result(fault, strikes, len(load.acknowledged), len(found.lost), recovery_ms, "; ".join(problems))
