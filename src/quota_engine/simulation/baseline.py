"""A model of the application before: log in, fill in the form, send it, and only then hear whether there is a place.

Workers take one request at a time from one bounded queue. A submitted form reads the quota when a worker starts on it
and writes the booking when the worker is done: whoever is between the two at the moment of the last place is sold one
as well. Nothing else here sells a place twice; with one worker, or with nobody about, it never happens.
"""

from __future__ import annotations

__all__ = ["OldApplication"]

import collections
import enum
import heapq
from array import array
from typing import Final

from quota_engine.simulation.agents import Agents, Next
from quota_engine.simulation.arrivals import Population
from quota_engine.simulation.latency import Latencies
from quota_engine.simulation.metrics import Measures, series_start_s
from quota_engine.simulation.opening import PROGRESS_EVERY, Observer
from quota_engine.simulation.rng import TABLE_BITS, lognormal_table, stream
from quota_engine.simulation.scenario import Scenario
from quota_engine.simulation.supply import Market

_FINAL: Final = -1
_NEVER_US: Final = -(2**62)


class _Step(enum.IntEnum):
    """What an applicant's next request is."""

    LOG_IN = 0
    OPEN_FORM = 1
    SUBMIT = 2


class OldApplication:
    """One run of the same population as the engine's. Events are numbered as in
    :class:`quota_engine.simulation.opening.Spike`.

    Requests start in the order in which they arrive, so the start and the end of each are known on its arrival, and
    every write that ends by that start belongs to a request that arrived earlier.
    """

    def __init__(self, scenario: Scenario, market: Market, population: Population) -> None:
        count = len(population)
        self._scenario, self._population = scenario, population
        self._agents = Agents(scenario.agents, scenario.arrivals, population)
        self._latencies = Latencies(scenario.network, market, population.seed)
        self._opens_us = [(each.opens_at_ms - market.opening_ms) * 1000 for each in market.office_days]
        self._places = [each.places for each in market.office_days]
        self.measures = Measures(count, market.capacity, series_start_s(min(population.first_press_us)))
        self._steps = bytearray(count)
        self._failures = bytearray(count)
        self._answered = bytearray(count)
        self._times_logged_out = bytearray(count)
        self._in_form = bytearray(count)
        self._rows = bytearray(count)
        self._told = bytearray(count)
        self._pressed_us = array("q", population.first_press_us)
        self._seen_us = array("q", [_NEVER_US]) * count
        self._booked = [0] * len(market.office_days)
        self._writes: list[tuple[int, int]] = []
        self._statuses: collections.Counter[str] = collections.Counter()
        self._loss = stream(population.seed, "old_application/session").random
        self._attempts_max = scenario.agents.attempts_max
        self._loss_share = scenario.old_application.session_loss_share
        self._retry_s_mean = scenario.old_application.retry_s_mean
        self._finals = 0

    def run(self, observe: Observer | None = None) -> Measures:
        """Let everybody press, and return what came of it."""
        self._run_events(observe)
        self._commit_until(2**62)
        measures = self.measures
        measures.confirmed = sum(self._booked)
        measures.oversold = sum(
            max(booked - places, 0) for booked, places in zip(self._booked, self._places, strict=True)
        )
        measures.double_booked = sum(rows - 1 for rows in self._rows if rows > 1)
        measures.booked_unknowingly = sum(rows and not told for rows, told in zip(self._rows, self._told, strict=True))
        measures.applicants_logged_out = sum(map(bool, self._times_logged_out))
        measures.answers_by_status = dict(+self._statuses)
        measures.errors += measures.gave_up
        return measures

    def _run_events(self, observe: Observer | None) -> None:
        population, measures, model = self._population, self.measures, self._scenario.old_application
        office_day_of, steps, failures = population.office_day, self._steps, self._failures
        bits = len(population).bit_length()
        mask = (1 << bits) - 1
        way_us, way_bits = self._latencies.tables, self._latencies.bits
        page_us = lognormal_table(round(model.page_s_median * 1e6), model.service_sigma)
        submit_us = lognormal_table(round(model.submit_s_median * 1e6), model.service_sigma)
        service_us = (page_us, page_us, submit_us)
        service_bits = stream(population.seed, "old_application/service").getrandbits
        timeout_us, queue_max = int(model.client_timeout_s * 1e6), model.queue_max
        count_answer = measures.answers.add
        serve = (self._log_in, self._open_form, self._submit)
        pop, push, replace = heapq.heappop, heapq.heappush, heapq.heapreplace

        presses = sorted(
            (press_us + way_us[office_day_of[index]][way_bits(TABLE_BITS)]) << bits | index
            for index, press_us in enumerate(population.first_press_us)
        )
        presses.reverse()
        events: list[int] = []
        free_us = [_NEVER_US] * model.workers
        # When those in the queue will start: ascending, since they are served in order.
        starts_us: collections.deque[int] = collections.deque()
        requests = counted = queue_max_seen = refused = timed_out = 0
        second_end_us = (measures.start_s + 1) * 1_000_000
        while presses or events:
            is_first = not events or (bool(presses) and presses[-1] < events[0])
            event = presses.pop() if is_first else events[0]
            arrival_us, index = event >> bits, event & mask
            requests += 1
            if observe is not None and not requests % PROGRESS_EVERY:
                observe(self._finals, requests)
            if arrival_us >= second_end_us:
                # Arrivals come in order: they are counted a second at a time.
                measures.arrivals.add(second_end_us - 1, requests - 1 - counted)
                counted, second_end_us = requests - 1, (arrival_us // 1_000_000 + 1) * 1_000_000
            office_day = office_day_of[index]
            ways_us = way_us[office_day]
            while starts_us and starts_us[0] <= arrival_us:
                starts_us.popleft()
            if len(starts_us) >= queue_max:
                refused += 1
                reply_us = arrival_us + ways_us[way_bits(TABLE_BITS)]
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
                replace(free_us, end_us)
                reply_us = end_us + ways_us[way_bits(TABLE_BITS)]
                in_time = reply_us - arrival_us <= timeout_us
                # The server does its work whether or not anybody still waits for it.
                self._commit_until(start_us)
                delay_us = serve[step](index, office_day, start_us, end_us, reply_us, in_time)
                if in_time:
                    count_answer(reply_us)
                    failures[index] = 0
                else:
                    timed_out += 1
                    reply_us = arrival_us + timeout_us
                    delay_us = self._fail(index, reply_us)
            # One event gives way to the next of the same applicant, which is cheaper in one step than in two.
            if delay_us != _FINAL:
                following = (reply_us + delay_us + ways_us[way_bits(TABLE_BITS)]) << bits | index
                if is_first:
                    push(events, following)
                else:
                    replace(events, following)
            elif not is_first:
                pop(events)
        measures.arrivals.add(second_end_us - 1, requests - counted)
        measures.requests, measures.queue_max = requests, queue_max_seen
        measures.errors = refused + timed_out
        self._statuses["REFUSED_CONNECTION"], self._statuses["TIMED_OUT"] = refused, timed_out

    def _commit_until(self, now_us: int) -> None:
        """Write the bookings whose requests have ended by now."""
        writes = self._writes
        while writes and writes[0][0] <= now_us:
            end_us, index = heapq.heappop(writes)
            units = self._population.party[index]
            self._booked[self._population.office_day[index]] += units
            self._rows[index] += 1
            self.measures.sold.add(end_us, units)
            self.measures.taken.add(end_us, units)

    # What a request comes to. If the answer is in time, each returns the delay from it to the next request, or _FINAL.

    def _log_in(self, index: int, office_day: int, start_us: int, end_us: int, reply_us: int, in_time: bool) -> int:
        if not in_time:
            return 0
        self._statuses["LOGGED_IN"] += 1
        self._seen_us[index] = end_us
        self._steps[index] = _Step.OPEN_FORM
        return self._agents.reaction_us()

    def _open_form(self, index: int, office_day: int, start_us: int, end_us: int, reply_us: int, in_time: bool) -> int:
        if not in_time:
            return 0
        if self._session_is_over(index, start_us):
            return self._log_out(index, reply_us)
        self._seen_us[index] = end_us
        if start_us < self._opens_us[office_day]:
            self._statuses["NOT_OPEN"] += 1
            delay_us = self._agents.after_not_open_us(index, reply_us, self._opens_us[office_day])
            self._pressed_us[index] = reply_us + delay_us
            return delay_us
        if self._is_full(index, office_day):
            return self._sold_out(index, reply_us)
        self._statuses["FORM"] += 1
        first_time = not self._in_form[index]
        self._in_form[index] = 1
        if first_time and self._agents.abandons():
            return self._final(index, reply_us, "abandoned")
        away_us = self._agents.crash_us() if first_time else None
        if away_us is not None:
            self._steps[index] = _Step.LOG_IN
            self._count_log_out(index)
            return away_us
        self._steps[index] = _Step.SUBMIT
        return self._agents.form_us()

    def _submit(self, index: int, office_day: int, start_us: int, end_us: int, reply_us: int, in_time: bool) -> int:
        if self._session_is_over(index, start_us):
            return self._log_out(index, reply_us) if in_time else 0
        self._seen_us[index] = end_us
        if self._rows[index]:
            return self._booking(index, reply_us) if in_time else 0
        if self._is_full(index, office_day):
            return self._sold_out(index, reply_us) if in_time else 0
        # The check has passed; from here to the end of the request others pass it as well.
        heapq.heappush(self._writes, (end_us, index))
        return self._booking(index, reply_us) if in_time else 0

    def _is_full(self, index: int, office_day: int) -> bool:
        return self._booked[office_day] + self._population.party[index] > self._places[office_day]

    def _booking(self, index: int, reply_us: int) -> int:
        self._statuses["BOOKED"] += 1
        self._told[index] = 1
        self._first_answer(index, reply_us)
        return self._final(index, reply_us, "bookings")

    def _sold_out(self, index: int, reply_us: int) -> int:
        self._statuses["SOLD_OUT"] += 1
        self._first_answer(index, reply_us)
        following, delay_us = self._agents.after_refusal(index, reply_us)
        self._steps[index] = _Step.OPEN_FORM
        # There is no wait list to join.
        return delay_us if following is Next.PRESS else self._final(index, reply_us, "refused")

    def _session_is_over(self, index: int, start_us: int) -> bool:
        return start_us - self._seen_us[index] > self._scenario.old_application.session_s * 1_000_000

    def _log_out(self, index: int, reply_us: int) -> int:
        """The answer is the login page; what was filled in is gone."""
        self._statuses["LOGGED_OUT"] += 1
        self._count_log_out(index)
        if self._times_logged_out[index] >= self._scenario.agents.attempts_max:
            return self._final(index, reply_us, "gave_up")
        self._steps[index] = _Step.LOG_IN
        return self._agents.reaction_us()

    def _count_log_out(self, index: int) -> None:
        self.measures.logged_out += 1
        self._times_logged_out[index] = min(self._times_logged_out[index] + 1, 255)

    def _fail(self, index: int, reply_us: int) -> int:
        """No answer, or none in time: press again, perhaps after the app has closed and the session is gone."""
        failed = self._failures[index] + 1
        if failed >= self._attempts_max:
            return self._final(index, reply_us, "gave_up")
        self._failures[index] = failed
        if self._steps[index] and self._loss() < self._loss_share:
            self._count_log_out(index)
            self._steps[index] = _Step.LOG_IN
        return self._agents.pause_us(self._retry_s_mean)

    def _first_answer(self, index: int, reply_us: int) -> None:
        if not self._answered[index]:
            self._answered[index] = 1
            self.measures.answer_us.record(reply_us - self._pressed_us[index])

    def _final(self, index: int, reply_us: int, how: str) -> int:
        measures = self.measures
        setattr(measures, how, getattr(measures, how) + 1)
        measures.final_us.record(reply_us - self._pressed_us[index])
        if reply_us > measures.last_final_us:
            measures.last_final_us = reply_us
        self._finals += 1
        return _FINAL
