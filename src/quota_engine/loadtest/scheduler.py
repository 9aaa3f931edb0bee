"""Scheduler of one load process: it decides who sends a request when, in an open loop.

The scheduler queues due requests for the Locust users, each of which sends one request at a time. When all users are
busy, a due request waits, and its wait counts: response times start at the moment at which a person meant to act. So a
slow service cannot improve its figures by slowing the test down.
"""

from __future__ import annotations

__all__ = ["DueRequest", "Scheduler"]

import heapq
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import gevent
from gevent.event import Event
from gevent.lock import Semaphore

from quota_engine.loadtest.observations import Observations
from quota_engine.loadtest.population import PersonRole
from quota_engine.loadtest.requests import LoadRequest, LoadResponse
from quota_engine.loadtest.user_scripts import ReceivedResponse, Script, WaitUntil

_NO_RESPONSE = LoadResponse()
_SLEEP_S_MAX = 0.5
_BURST_US = 50_000
"""The rate limit holds over periods that are longer than this."""


class DueRequest(NamedTuple):
    """A request to send now, with the script that waits for its response.

    Times are microseconds from the opening. ``queued_at_us`` is when a Locust user could have taken it.
    """

    request: LoadRequest
    due_at_us: int
    person: int
    role: PersonRole
    script: Script
    queued_at_us: int = 0


_Entry = Callable[[int], Script] | Script | DueRequest
"""A person to start, a script to resume after a wait, or a request that the rate limit put off."""


class Scheduler:
    """Runs the scripts of this process's people."""

    def __init__(
        self,
        observations: Observations,
        *,
        opens_at_s: float,
        rate_max_per_s: float,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            observations: receives lag, waits and counts.
            opens_at_s: the opening, in seconds of ``clock_s``.
            rate_max_per_s: the most requests that become due in a second. Requests beyond it are put off, and count as
                lag of the load generator.
            clock_s: a clock that never goes back.
        """
        self._observations = observations
        self._opens_at_s, self._clock_s = opens_at_s, clock_s
        self._schedule: list[tuple[int, int, int, PersonRole, _Entry]] = []
        self._entries = 0
        self._due: dict[PersonRole, deque[DueRequest]] = {role: deque() for role in PersonRole}
        self._available = Semaphore(0)
        self._changed = Event()
        self._gap_us = round(1e6 / rate_max_per_s)
        self._next_free_us = -(2**62)
        self._pending: dict[int, str] = {}
        self.people = 0
        self.ended = 0
        self.closed = False

    def now_us(self) -> int:
        """Return the microseconds from the opening, negative before it."""
        return round((self._clock_s() - self._opens_at_s) * 1e6)

    def add_person(self, person: int, role: PersonRole, at_us: int, start: Callable[[int], Script]) -> None:
        """Schedule a person's first action.

        Args:
            person: index of the person.
            role: decides which Locust users send the person's requests.
            at_us: moment of the first action, in microseconds from the opening.
            start: makes the person's script, given that moment; called only when it is due.
        """
        self.people += 1
        self._push(at_us, person, role, start)

    @property
    def is_over(self) -> bool:
        """True if every script has ended."""
        return self.ended == self.people

    @property
    def waiting(self) -> int:
        """Number of due requests that no Locust user has taken yet."""
        return sum(map(len, self._due.values()))

    def dispatch(self) -> None:
        """Queue requests when they are due, until every script has ended or :meth:`close` is called."""
        while not self.closed and not self.is_over:
            self._changed.clear()
            now_us = self.now_us()
            while self._schedule and self._schedule[0][0] <= now_us:
                at_us, _, person, role, entry = heapq.heappop(self._schedule)
                self._resume(at_us, person, role, entry)
            wait_s = _SLEEP_S_MAX
            if self._schedule:
                wait_s = min(max((self._schedule[0][0] - self.now_us()) / 1e6, 0.0), _SLEEP_S_MAX)
            if wait_s > 0:
                self._changed.wait(wait_s)
            else:
                gevent.sleep(0)

    def take_due(self, role: PersonRole, timeout_s: float) -> DueRequest | None:
        """Return the next due request, preferring people of ``role``, else the one that has waited longest.

        Returns ``None`` after ``timeout_s`` without a due request.
        """
        if self.closed or not self._available.acquire(timeout=timeout_s):
            return None
        queue = self._due[role] or min(
            (queue for queue in self._due.values() if queue), key=lambda queue: queue[0].due_at_us
        )
        due = queue.popleft()
        now_us = self.now_us()
        self._observations.lag_us.record(max(due.queued_at_us - due.due_at_us, 0))
        self._observations.user_wait_us.record(now_us - due.queued_at_us)
        self._observations.metrics.requests += 1
        self._observations.metrics.arrivals.add(now_us)
        return due

    def complete(self, due: DueRequest, response: LoadResponse, duration_us: int) -> None:
        """Record a response and resume its script."""
        if self.closed:
            return
        at_us = self.now_us()
        observations = self._observations
        observations.request_us.record(duration_us)
        observations.requests_by_name[type(due.request).__name__.lower()] += 1
        if response.status:
            observations.metrics.answers.add(at_us)
        self._advance(due.script, ReceivedResponse(response, at_us), due.person, due.role, at_us)

    def close(self) -> None:
        """End the test. People who still wait count as unanswered."""
        if self.closed:
            return
        self.closed = True
        for _, _, person, _, entry in self._schedule:
            self._pending.setdefault(person, "first action" if callable(entry) else "later action")
        for person, waiting_for in self._pending.items():
            self._observations.record_unanswered(person, -1, waiting_for)
        self._changed.set()

    def _push(self, at_us: int, person: int, role: PersonRole, entry: _Entry) -> None:
        self._entries += 1
        heapq.heappush(self._schedule, (at_us, self._entries, person, role, entry))
        if self._schedule[0][1] == self._entries:
            self._changed.set()

    def _resume(self, at_us: int, person: int, role: PersonRole, entry: _Entry) -> None:
        if isinstance(entry, DueRequest):
            self._queue(entry)
        elif callable(entry):
            self._advance(entry(at_us), None, person, role, at_us)
        else:
            self._advance(entry, ReceivedResponse(_NO_RESPONSE, at_us), person, role, at_us)

    def _advance(
        self, script: Script, received: ReceivedResponse | None, person: int, role: PersonRole, at_us: int
    ) -> None:
        """Run a script to its next request or wait. A request that follows a response is due at once."""
        try:
            step = next(script) if received is None else script.send(received)
        except StopIteration:
            self.ended += 1
            self._pending.pop(person, None)
            if self.is_over:
                self._changed.set()
            return
        if isinstance(step, WaitUntil):
            self._pending[person] = "later action"
            self._push(step.until_us, person, role, script)
            return
        due = DueRequest(step, at_us, person, role, script)
        now_us = self.now_us()
        if now_us < self._next_free_us:
            # Above the rate limit: queue it later, but keep the moment at which it was due, so that the lag shows.
            self._push(self._next_free_us, person, role, due)
            self._next_free_us += self._gap_us
            return
        self._next_free_us = max(self._next_free_us, now_us - _BURST_US) + self._gap_us
        self._queue(due)

    def _queue(self, due: DueRequest) -> None:
        if self.closed:
            return
        self._pending[due.person] = type(due.request).__name__.lower()
        self._due[due.role].append(due._replace(queued_at_us=self.now_us()))
        self._available.release()
