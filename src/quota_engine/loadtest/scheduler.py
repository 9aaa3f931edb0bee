"""The timetable of one process: who is due when, open loop.

A dispatcher hands what is due to lanes, each of which carries one request at a time. When all lanes are busy what is
due waits, and its wait counts: answers are measured from the moment at which somebody meant to press, so that a slow
service can not make the test look better by slowing it down.
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

_NOTHING = LoadResponse()
_SLEEP_S_MAX = 0.5
_BURST_US = 50_000
"""A bound on the rate holds over times that are longer than this."""


class DueRequest(NamedTuple):
    """A request to be made now, for the script that it is part of; ``handed_us`` is when the lanes were told of it."""

    request: LoadRequest
    due_us: int
    person: int
    role: PersonRole
    script: Script
    handed_us: int = 0


_What = Callable[[int], Script] | Script | DueRequest


class Scheduler:
    """Plays the scripts of this process's people.

    ``opens_s`` is the moment of the opening on ``clock_s``. ``start`` makes the script of a person who presses first at
    a moment in microseconds from the opening. No more than ``rate_max`` requests become due in a second: what is
    beyond that is put off, and counts as the load generator's lag.
    """

    def __init__(
        self,
        books: Observations,
        *,
        opens_s: float,
        rate_max: float,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._books = books
        self._opens_s, self._clock_s = opens_s, clock_s
        self._timetable: list[tuple[int, int, int, PersonRole, _What]] = []
        self._numbers = 0
        self._due: dict[PersonRole, deque[DueRequest]] = {role: deque() for role in PersonRole}
        self._waiting = Semaphore(0)
        self._changed = Event()
        self._gap_us = round(1e6 / rate_max)
        self._free_us = -(2**62)
        self._on_stage: dict[int, str] = {}
        self.people = 0
        self.ended = 0
        self.closed = False

    def now_us(self) -> int:
        """Microseconds from the opening."""
        return round((self._clock_s() - self._opens_s) * 1e6)

    def enter(self, person: int, role: PersonRole, at_us: int, start: Callable[[int], Script]) -> None:
        """Put somebody on the timetable; their script is not made before they are due."""
        self.people += 1
        self._put(at_us, person, role, start)

    @property
    def is_over(self) -> bool:
        """Whether everybody's evening has ended."""
        return self.ended == self.people

    @property
    def waiting(self) -> int:
        """Requests that are due and have no lane yet."""
        return sum(map(len, self._due.values()))

    def dispatch(self) -> None:
        """Hand over what is due when it is due, until everything is over or :meth:`close` is called."""
        while not self.closed and not self.is_over:
            self._changed.clear()
            now_us = self.now_us()
            while self._timetable and self._timetable[0][0] <= now_us:
                at_us, _, person, role, what = heapq.heappop(self._timetable)
                self._resume(at_us, person, role, what)
            wait_s = _SLEEP_S_MAX
            if self._timetable:
                wait_s = min(max((self._timetable[0][0] - self.now_us()) / 1e6, 0.0), _SLEEP_S_MAX)
            if wait_s > 0:
                self._changed.wait(wait_s)
            else:
                gevent.sleep(0)

    def take_due(self, role: PersonRole, timeout_s: float) -> DueRequest | None:
        """The next request that is due: of somebody of this role if there is one, otherwise whoever has waited longest.

        ``None`` after ``timeout_s`` without any.
        """
        if self.closed or not self._waiting.acquire(timeout=timeout_s):
            return None
        own = self._due[role]
        queue = own or min((queue for queue in self._due.values() if queue), key=lambda queue: queue[0].due_us)
        due = queue.popleft()
        now_us = self.now_us()
        self._books.lag_us.record(max(due.handed_us - due.due_us, 0))
        self._books.lane_us.record(now_us - due.handed_us)
        self._books.measures.requests += 1
        self._books.measures.arrivals.add(now_us)
        return due

    def complete(self, due: DueRequest, answer: LoadResponse, took_us: int) -> None:
        """What came back for a request; the script goes on."""
        if self.closed:
            return
        at_us = self.now_us()
        books = self._books
        books.request_us.record(took_us)
        books.requests_by_name[type(due.request).__name__.lower()] += 1
        if answer.status:
            books.measures.answers.add(at_us)
        self._advance(due.script, ReceivedResponse(answer, at_us), due.person, due.role, at_us)

    def close(self) -> None:
        """End the test: who is still waiting has no answer."""
        if self.closed:
            return
        self.closed = True
        for _, _, person, _, what in self._timetable:
            self._on_stage.setdefault(person, "their turn" if callable(what) else "a later moment")
        for person, what_for in self._on_stage.items():
            self._books.left_unanswered(person, -1, what_for)
        self._changed.set()

    def _put(self, at_us: int, person: int, role: PersonRole, what: _What) -> None:
        self._numbers += 1
        heapq.heappush(self._timetable, (at_us, self._numbers, person, role, what))
        if self._timetable[0][1] == self._numbers:
            self._changed.set()

    def _resume(self, at_us: int, person: int, role: PersonRole, what: _What) -> None:
        if isinstance(what, DueRequest):
            self._hand_over(what)
        elif callable(what):
            self._advance(what(at_us), None, person, role, at_us)
        else:
            self._advance(what, ReceivedResponse(_NOTHING, at_us), person, role, at_us)

    def _advance(
        self, script: Script, heard: ReceivedResponse | None, person: int, role: PersonRole, at_us: int
    ) -> None:
        """Run a script up to its next request or wait. A request that follows an answer is due at once."""
        try:
            following = next(script) if heard is None else script.send(heard)
        except StopIteration:
            self.ended += 1
            self._on_stage.pop(person, None)
            if self.is_over:
                self._changed.set()
            return
        if isinstance(following, WaitUntil):
            self._on_stage[person] = "a later moment"
            self._put(following.until_us, person, role, script)
            return
        due = DueRequest(following, at_us, person, role, script)
        now_us = self.now_us()
        if now_us < self._free_us:
            # Above the bound: put off, though it is due at the same moment as before.
            self._put(self._free_us, person, role, due)
            self._free_us += self._gap_us
            return
        self._free_us = max(self._free_us, now_us - _BURST_US) + self._gap_us
        self._hand_over(due)

    def _hand_over(self, due: DueRequest) -> None:
        if self.closed:
            return
        self._on_stage[due.person] = type(due.request).__name__.lower()
        self._due[due.role].append(due._replace(handed_us=self.now_us()))
        self._waiting.release()
