"""Threads that reserve places while servers are killed, and the check of every acknowledged outcome afterwards."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Final, Self

from quota_engine.clocks import ManualClock
from quota_engine.conformance.world import DAY, OFFICE, ONLINE, OPENS_AT_MS, applicant, reserve, terms
from quota_engine.domain.commands import Confirm, Publish, Release
from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import DayTerms, QuotaTerms
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.ports import Audit, Lookup, ReadEvents, Store, View
from quota_engine.stores.sql.postgresql.factory import open_store

PLACES: Final = 1_000_000
RETRIES_S: Final = 60.0


def open_office(url: str) -> Store:
    """Open a store, and publish a day with :data:`PLACES` places."""
    store = open_store(url, ManualClock(OPENS_AT_MS))
    day = terms()
    quotas = (QuotaTerms("online", PLACES),)
    published = DayTerms(day.opens_at_ms, day.starts_at_ms, day.ends_at_ms, day.forget_at_ms, quotas)
    assert store.apply(OFFICE, Publish(DAY, published)).status is Status.DONE
    return store


class Load:
    """Threads that hold, confirm and release, and repeat each call under the same key until its outcome is known.

    Attributes:
        acknowledged: The last acknowledged state by key.
        errors: Errors that end a thread.
    """

    def __init__(self, store: Store, threads: int = 8) -> None:
        """Take the store, which is closed at the end."""
        self.store = store
        self.acknowledged: dict[str, State] = {}
        self.errors: list[Exception] = []
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()
        if self.errors and error is None:
            raise self.errors[0]

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
                number += 1
                key = f"t{thread}n{number}"
                held = self._apply(reserve(key, ONLINE))
                assert held.status is Status.HELD, held
                self.acknowledged[key] = State.HELD
                if number % 3:
                    last = self._apply(Confirm(key, applicant(key)) if number % 3 == 1 else Release(key))
                    assert last.reservation is not None, last
                    self.acknowledged[key] = last.reservation.state
        except Exception as error:  # raised again in the test's thread
            self.errors.append(error)

    def _apply(self, command: object) -> Outcome:
        deadline_s = time.monotonic() + RETRIES_S
        while True:
            try:
                outcome: Outcome = self.store.apply(OFFICE, command)
            except (BackendUnavailable, OutcomeUnknown):
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.01)
            else:
                return outcome


def check_acknowledged(url: str, acknowledged: dict[str, State]) -> int:
    """Check in a new store that all that was acknowledged is there, once. Return the number of events."""
    store = open_store(url, ManualClock(OPENS_AT_MS))
    try:
        assert store.execute(Audit(OFFICE)) == []
        lost = []
        for key, state in acknowledged.items():
            found = store.execute(Lookup(OFFICE, key))
            if found is None or found.state is not state:
                lost.append((key, state, found))
        assert not lost, f"{len(lost)} of {len(acknowledged)}, such as {lost[0]}"
        (view,) = store.execute(View(OFFICE, (DAY,)))
        counters = view.quotas["online"]
        held = [state for state in acknowledged.values() if state in (State.HELD, State.CONFIRMED)]
        assert counters.held + counters.confirmed == len(held)
        events = store.execute(ReadEvents(OFFICE, 0, 10_000_000))
        assert [event.number for event in events] == list(range(1, len(events) + 1))
        return len(events)
    finally:
        store.close()
