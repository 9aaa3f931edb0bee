"""Threads that reserve places while servers are killed, and the check of every acknowledged outcome afterwards."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Protocol, Self

from quota_engine.clocks import ManualClock
from quota_engine.conformance.world import DAY, OFFICE, ONLINE, OPENS_AT_MS, applicant, reserve, terms
from quota_engine.domain.commands import Confirm, Publish, Release
from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import DayTerms, QuotaTerms
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.engine.store_discovery import store_factory
from quota_engine.ports import Audit, Lookup, ReadEvents, Store, View

PLACES: Final = 1_000_000
RETRIES_S: Final = 60.0


def open_store(url: str) -> Store:
    """Open the store of a URL at the time when the day opens."""
    return store_factory(url).open_store(url, ManualClock(OPENS_AT_MS))


def open_office(url: str, offices: Sequence[str] = (OFFICE,)) -> Store:
    """Open a store, and publish a day with :data:`PLACES` places at each office."""
    store = open_store(url)
    day = terms()
    quotas = (QuotaTerms("online", PLACES),)
    published = DayTerms(day.opens_at_ms, day.starts_at_ms, day.ends_at_ms, day.forget_at_ms, quotas)
    for office in offices:
        assert store.apply(office, Publish(DAY, published)).status is Status.DONE
    return store


class Target(Protocol):
    """A store, or a client of a service, that carries out the commands of a load."""

    def apply(self, office: str, command: Any, /) -> Any:
        """Carry out a command, and return its outcome."""

    def close(self) -> None:
        """Close the connections."""


class Load:
    """Threads that hold, confirm and release, and repeat each call under the same key until its outcome is known.

    Attributes:
        acknowledged: The last acknowledged state by key.
        errors: Errors that end a thread.
    """

    def __init__(
        self, store: Target, threads: int = 8, *, prefix: str = "t", may_lose: bool = False, office: str = OFFICE
    ) -> None:
        """Take the store, which the caller closes.

        Args:
            store: The store, or a client of a service.
            threads: The number of threads.
            prefix: The beginning of each key; other processes on the same store use other ones.
            may_lose: True if the store may lose what it has acknowledged. A thread then continues without it.
            office: The office whose places are reserved.
        """
        self._office = office
        self.store = store
        self._may_lose = may_lose
        self._prefix = prefix
        self.acknowledged: dict[str, State] = {}
        self.errors: list[Exception] = []
        self._ends = threading.Event()
        self._goes = threading.Event()
        self._goes.set()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.set()
        self._goes.set()
        for thread in self._threads:
            thread.join()
        if self.errors and error is None:
            raise self.errors[0]

    def rest(self) -> None:
        """Let the threads make no more calls until :meth:`go_on`. Calls in flight finish."""
        self._goes.clear()

    def go_on(self) -> None:
        """Let the threads continue."""
        self._goes.set()

    def wait_for(self, calls: int, timeout_s: float = RETRIES_S) -> None:
        """Wait until ``calls`` more reservations are acknowledged."""
        wanted = len(self.acknowledged) + calls
        deadline_s = time.monotonic() + timeout_s
        while len(self.acknowledged) < wanted:
            assert not self.errors, self.errors
            assert time.monotonic() < deadline_s, f"{len(self.acknowledged)} of {wanted} calls"
            time.sleep(0.002)

    def _run(self, thread: int) -> None:
        number = 0
        try:
            while not self._ends.is_set():
                self._goes.wait()
                number += 1
                key = f"{self._prefix}{thread}n{number}"
                held = self._apply(reserve(key, ONLINE))
                assert held.status is Status.HELD, held
                self.acknowledged[key] = State.HELD
                if number % 3:
                    last = self._apply(Confirm(key, applicant(key)) if number % 3 == 1 else Release(key))
                    if last.reservation is not None:
                        self.acknowledged[key] = last.reservation.state
                    else:
                        assert self._may_lose, last
        except Exception as error:  # raised again in the test's thread
            self.errors.append(error)

    def _apply(self, command: object) -> Outcome:
        deadline_s = time.monotonic() + RETRIES_S
        while True:
            try:
                outcome: Outcome = self.store.apply(self._office, command)
            except (BackendUnavailable, OutcomeUnknown):
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.01)
            else:
                return outcome


@dataclasses.dataclass(frozen=True)
class Inspection:
    """The state after a load.

    Attributes:
        lost: Keys whose acknowledged state is not there.
        findings: Findings of the audit.
        events: The number of events.
        is_counted: True if the counters have at least what these reservations hold, and no event number is missing.
            The audit compares the counters with all reservations.
    """

    lost: list[str]
    findings: Sequence[object]
    events: int
    is_counted: bool


def inspect(url: str, acknowledged: dict[str, State], office: str = OFFICE, day: int = DAY) -> Inspection:
    """Compare what was acknowledged at an office with a new store at the same place."""
    store = open_store(url)
    try:
        findings = store.execute(Audit(office))
        found = {key: store.execute(Lookup(office, key)) for key in acknowledged}
        lost = [key for key, state in acknowledged.items() if (one := found[key]) is None or one.state is not state]
        (view,) = store.execute(View(office, (day,)))
        counters = view.quotas["online"]
        held = [one for one in found.values() if one is not None and one.state in (State.HELD, State.CONFIRMED)]
        events = store.execute(ReadEvents(office, 0, 10_000_000))
        in_order = [event.number for event in events] == list(range(1, len(events) + 1))
        return Inspection(lost, findings, len(events), in_order and counters.held + counters.confirmed >= len(held))
    finally:
        store.close()


def check_acknowledged(url: str, acknowledged: dict[str, State], office: str = OFFICE) -> int:
    """Check in a new store that all that was acknowledged is there, once. Return the number of events."""
    found = inspect(url, acknowledged, office)
    assert found.findings == []
    assert not found.lost, f"{len(found.lost)} of {len(acknowledged)}, such as {found.lost[0]}"
    assert found.is_counted
    return found.events
