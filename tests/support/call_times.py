"""Calls that must end within their time."""

from __future__ import annotations

__all__ = ["SLACK_MS", "TimedBookings", "error_of"]

import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

import pytest

from quota_engine.clocks import monotonic_ms
from quota_engine.conformance.world import OFFICE, ONLINE, reserve
from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.ports import Store

SLACK_MS: Final = 15_000
"""For a busy machine. A call without the bound takes a minute and more."""


def error_of(call: Callable[[], object], time_ms: int) -> Exception:
    """Return the error of a call, which ends within its time."""
    began_ms = monotonic_ms()
    with pytest.raises((BackendUnavailable, OutcomeUnknown)) as caught:
        call()
    took_ms = monotonic_ms() - began_ms
    assert took_ms < time_ms + SLACK_MS, caught.value
    return caught.value


class TimedBookings:
    """Reserves of several people at the same time, each in a thread and with an end.

    Attributes:
        results: The status of each person, or the type of the error.
    """

    def __init__(self, store: Store, times_ms: Mapping[str, int]) -> None:
        """Take a store, and the time of each person's call in milliseconds; :meth:`start` calls."""
        self._store = store
        self._times_ms = times_ms
        self._threads = {person: threading.Thread(target=self._book, args=(person,)) for person in times_ms}
        self._took_ms: dict[str, float] = {}
        self.results: dict[str, Any] = {}

    def start(self) -> None:
        """Start all calls."""
        for thread in self._threads.values():
            thread.start()

    def join(self, *people: str) -> None:
        """Wait for the calls of these people, or of all, and check that each ended within its time."""
        for person in people or self._times_ms:
            self._threads[person].join(60)
            assert self._took_ms[person] < self._times_ms[person] + SLACK_MS

    def _book(self, person: str) -> None:
        began_ms = monotonic_ms()
        try:
            ends_at_ms = began_ms + self._times_ms[person]
            outcome = self._store.apply(OFFICE, reserve(person, ONLINE), ends_at_ms=ends_at_ms)
            self.results[person] = outcome.status
        except (BackendUnavailable, OutcomeUnknown) as error:
            self.results[person] = type(error)
        self._took_ms[person] = monotonic_ms() - began_ms
