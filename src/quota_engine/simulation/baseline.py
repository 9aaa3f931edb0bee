"""A model of the application that the engine replaces: log in, fill in the form, submit it, then learn the result.

Workers take one request at a time from one bounded queue. A submitted form reads the quota when a worker starts on it
and writes the booking when the worker is done. A request that starts between the two reads a stale quota, and the place
is sold again. Nothing else in the model oversells: with one worker, or at low load, it never happens.
"""

from __future__ import annotations

__all__ = ["BaselineApplication"]

import collections
import enum
import heapq
from array import array
from typing import Final

from quota_engine.simulation.agents import Agents, NextAction
from quota_engine.simulation.arrivals import Population
from quota_engine.simulation.event_queue import (
    DONE,
    NEVER_US,
    PROGRESS_EVERY,
    ArrivalCounter,
    EventQueue,
    ProgressObserver,
    first_events,
)
from quota_engine.simulation.latency import LatencyTables
from quota_engine.simulation.metrics import Metrics, series_start_s
from quota_engine.simulation.rng import TABLE_BITS, lognormal_table, stream
from quota_engine.simulation.scenario import Scenario
from quota_engine.simulation.supply import Supply

_LOGOUTS_MAX: Final = 255
"""A byte counts the logouts of an applicant."""


class _Step(enum.IntEnum):
    """Next request of an applicant."""

    LOG_IN = 0
    OPEN_FORM = 1
    SUBMIT = 2


class BaselineApplication:
    """One run with the same population as the engine's run.

    Requests start in the order in which they arrive. The start and the end of each are therefore known on its arrival,
    and every write that ends by that start belongs to a request that arrived earlier.
    """

    def __init__(self, scenario: Scenario, supply: Supply, population: Population) -> None:
        count = len(population)
        self._scenario, self._population = scenario, population
        self._agents = Agents(scenario.agents, scenario.arrivals, population)
        self._latencies = LatencyTables(scenario.network, supply, population.seed)
        self._opens_us = [(each.opens_at_ms - supply.opening_ms) * 1000 for each in supply.office_days]
        self._places = [each.places for each in supply.office_days]
        self.metrics = Metrics(count, supply.capacity, series_start_s(min(population.first_press_us)))
        self._steps = bytearray(count)
        self._failures = bytearray(count)
        self._answered = bytearray(count)
        self._logouts = bytearray(count)
        self._has_seen_form = bytearray(count)
        self._bookings_written = bytearray(count)
        self._knows_booking = bytearray(count)
        self._press_us = array("q", population.first_press_us)
        self._last_request_us = array("q", [NEVER_US]) * count
        self._booked = [0] * len(supply.office_days)
        self._pending_writes: list[tuple[int, int]] = []
        self._statuses: collections.Counter[str] = collections.Counter()
        # The purposes of random streams keep their text: they are part of the seed.
        self._session_loss = stream(population.seed, "old_application/session").random
        self._attempts_max = scenario.agents.attempts_max
        self._loss_share = scenario.baseline.session_loss_share
        self._retry_s_mean = scenario.baseline.retry_s_mean
        self._final_count = 0

    def run(self, observe: ProgressObserver | None = None) -> Metrics:
        """Process every request, and return the metrics."""
        self._run_events(observe)
        self._write_until(-NEVER_US)
        metrics = self.metrics
        metrics.confirmed = sum(self._booked)
        metrics.oversold = sum(
            max(booked - places, 0) for booked, places in zip(self._booked, self._places, strict=True)
        )
        metrics.double_booked = sum(written - 1 for written in self._bookings_written if written > 1)
        metrics.booked_unknowingly = sum(
            written and not known for written, known in zip(self._bookings_written, self._knows_booking, strict=True)
        )
        metrics.applicants_logged_out = sum(map(bool, self._logouts))
        metrics.answers_by_status = dict(+self._statuses)
        metrics.errors += metrics.gave_up
        return metrics

    def _run_events(self, observe: ProgressObserver | None) -> None:
        population, metrics, model = self._population, self.metrics, self._scenario.baseline
        office_day_of, steps, failures = population.office_day, self._steps, self._failures
        bits = len(population).bit_length()
        latency_us, latency_bits = self._latencies.tables, self._latencies.bits
        page_us = lognormal_table(round(model.page_s_median * 1e6), model.service_sigma)
        submit_us = lognormal_table(round(model.submit_s_median * 1e6), model.service_sigma)
        service_us = (page_us, page_us, submit_us)
        service_bits = stream(population.seed, "old_application/service").getrandbits
        timeout_us, queue_max = int(model.client_timeout_s * 1e6), model.queue_max
        count_answer = metrics.answers.add
        serve = (self._log_in, self._open_form, self._submit)

        queue = EventQueue(bits, first_events(population, self._latencies, bits))
        take, replace, mask = queue.take, queue.replace, queue.mask
        arrivals = ArrivalCounter(metrics.arrivals)
        free_us = [NEVER_US] * model.workers
        # Starts of the requests in the queue: ascending, because they are served in order.
        starts_us: collections.deque[int] = collections.deque()
        queue_max_seen = refused = timed_out = 0
        while (event := take()) is not None:
            arrival_us, index = event >> bits, event & mask
            arrivals.count(arrival_us)
            if observe is not None and not arrivals.requests % PROGRESS_EVERY:
                observe(self._final_count, arrivals.requests)
            office_day = office_day_of[index]
            office_latency_us = latency_us[office_day]
            while starts_us and starts_us[0] <= arrival_us:
                starts_us.popleft()
            if len(starts_us) >= queue_max:
                refused += 1
                reply_us = arrival_us + office_latency_us[latency_bits(TABLE_BITS)]
                delay_us = self._fail(index, reply_us)
            else:
                start_us = free_us[0]
                if start_us <= arrival_us:
                    start_us = arrival_us
                else:
                    starts_us.append(start_us)
                    if len(starts_us) > queue_max_seen:
                        queue_max_seen = len(starts_us)
                step = steps[index]
                end_us = start_us + service_us[step][service_bits(TABLE_BITS)]
                heapq.heapreplace(free_us, end_us)
                reply_us = end_us + office_latency_us[latency_bits(TABLE_BITS)]
                in_time = reply_us - arrival_us <= timeout_us
                # The server finishes a request whose client has stopped waiting.
                self._write_until(start_us)
                delay_us = serve[step](index, office_day, start_us, end_us, reply_us, in_time)
                if in_time:
                    count_answer(reply_us)
                    failures[index] = 0
                else:
                    timed_out += 1
                    reply_us = arrival_us + timeout_us
                    delay_us = self._fail(index, reply_us)
            if delay_us == DONE:
                replace(None)
            else:
                replace((reply_us + delay_us + office_latency_us[latency_bits(TABLE_BITS)]) << bits | index)
        arrivals.flush()
        metrics.requests, metrics.queue_max = arrivals.requests, queue_max_seen
        metrics.errors = refused + timed_out
        self._statuses["REFUSED_CONNECTION"], self._statuses["TIMED_OUT"] = refused, timed_out

    def _write_until(self, now_us: int) -> None:
        """Write the bookings of the requests that have ended by now."""
        writes = self._pending_writes
        while writes and writes[0][0] <= now_us:
            end_us, index = heapq.heappop(writes)
            units = self._population.party[index]
            self._booked[self._population.office_day[index]] += units
            self._bookings_written[index] += 1
            self.metrics.sold.add(end_us, units)
            self.metrics.taken.add(end_us, units)

    # Request handlers. If the answer is in time, each returns the delay from it to the next request, or DONE.

    def _log_in(self, index: int, office_day: int, start_us: int, end_us: int, reply_us: int, in_time: bool) -> int:
        if not in_time:
            return 0
        self._statuses["LOGGED_IN"] += 1
        self._last_request_us[index] = end_us
        self._steps[index] = _Step.OPEN_FORM
        return self._agents.reaction_us()

    def _open_form(self, index: int, office_day: int, start_us: int, end_us: int, reply_us: int, in_time: bool) -> int:
        if not in_time:
            return 0
        if self._session_expired(index, start_us):
            return self._log_out(index, reply_us)
        self._last_request_us[index] = end_us
        if start_us < self._opens_us[office_day]:
            self._statuses["NOT_OPEN"] += 1
            delay_us = self._agents.delay_until_open_us(index, reply_us, self._opens_us[office_day])
            self._press_us[index] = reply_us + delay_us
            return delay_us
        if self._is_full(index, office_day):
            return self._refuse(index, reply_us)
        self._statuses["FORM"] += 1
        first_time = not self._has_seen_form[index]
        self._has_seen_form[index] = 1
        if first_time and self._agents.abandons():
            return self._end(index, reply_us, "abandoned")
        crash_us = self._agents.crash_us() if first_time else None
        if crash_us is not None:
            self._steps[index] = _Step.LOG_IN
            self._count_logout(index)
            return crash_us
        self._steps[index] = _Step.SUBMIT
        return self._agents.form_us()

    def _submit(self, index: int, office_day: int, start_us: int, end_us: int, reply_us: int, in_time: bool) -> int:
        if self._session_expired(index, start_us):
            return self._log_out(index, reply_us) if in_time else 0
        self._last_request_us[index] = end_us
        if self._bookings_written[index]:
            return self._book(index, reply_us) if in_time else 0
        if self._is_full(index, office_day):
            return self._refuse(index, reply_us) if in_time else 0
        # The check has passed. Until the request ends, other requests pass the same check.
        heapq.heappush(self._pending_writes, (end_us, index))
        return self._book(index, reply_us) if in_time else 0

    def _is_full(self, index: int, office_day: int) -> bool:
        return self._booked[office_day] + self._population.party[index] > self._places[office_day]

    def _book(self, index: int, reply_us: int) -> int:
        self._statuses["BOOKED"] += 1
        self._knows_booking[index] = 1
        self._record_first_answer(index, reply_us)
        return self._end(index, reply_us, "bookings")

    def _refuse(self, index: int, reply_us: int) -> int:
        self._statuses["SOLD_OUT"] += 1
        self._record_first_answer(index, reply_us)
        action, delay_us = self._agents.after_refusal(index, reply_us)
        self._steps[index] = _Step.OPEN_FORM
        # This application has no wait list.
        return delay_us if action is NextAction.PRESS else self._end(index, reply_us, "refused")

    def _session_expired(self, index: int, start_us: int) -> bool:
        return start_us - self._last_request_us[index] > self._scenario.baseline.session_s * 1_000_000

    def _log_out(self, index: int, reply_us: int) -> int:
        """Answer with the login page. The applicant's input is lost."""
        self._statuses["LOGGED_OUT"] += 1
        self._count_logout(index)
        if self._logouts[index] >= self._scenario.agents.attempts_max:
            return self._end(index, reply_us, "gave_up")
        self._steps[index] = _Step.LOG_IN
        return self._agents.reaction_us()

    def _count_logout(self, index: int) -> None:
        self.metrics.logged_out += 1
        self._logouts[index] = min(self._logouts[index] + 1, _LOGOUTS_MAX)

    def _fail(self, index: int, reply_us: int) -> int:
        """Handle a request without an answer in time: retry, perhaps after the session was lost, or give up."""
        failed = self._failures[index] + 1
        if failed >= self._attempts_max:
            return self._end(index, reply_us, "gave_up")
        self._failures[index] = failed
        if self._steps[index] and self._session_loss() < self._loss_share:
            self._count_logout(index)
            self._steps[index] = _Step.LOG_IN
        return self._agents.pause_us(self._retry_s_mean)

    def _record_first_answer(self, index: int, reply_us: int) -> None:
        if not self._answered[index]:
            self._answered[index] = 1
            self.metrics.answer_us.record(reply_us - self._press_us[index])

    def _end(self, index: int, reply_us: int, counter: str) -> int:
        """Count the end of an applicant in the metric named ``counter``."""
        metrics = self.metrics
        setattr(metrics, counter, getattr(metrics, counter) + 1)
        metrics.final_us.record(reply_us - self._press_us[index])
        if reply_us > metrics.last_final_us:
            metrics.last_final_us = reply_us
        self._final_count += 1
        return DONE
