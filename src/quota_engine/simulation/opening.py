"""A simulated opening: a discrete-event run in which every request calls the real engine at its virtual time."""

from __future__ import annotations

__all__ = ["Opening"]

import collections
import enum
import functools
from array import array
from collections.abc import Callable
from typing import Final

from quota_engine.clocks import ManualClock
from quota_engine.domain.errors import OutcomeUnknown
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.simulation.agents import Agents, NextAction
from quota_engine.simulation.arrivals import Population
from quota_engine.simulation.engine_port import SimulatedEngine, publish_supply
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
from quota_engine.simulation.metrics import Metrics, oversold_places, series_start_s
from quota_engine.simulation.rng import TABLE_BITS
from quota_engine.simulation.scenario import Scenario
from quota_engine.simulation.supply import Supply

_SWEEP_LIMIT: Final = 1000
"""Holds that one sweep of an office-day expires at most."""


class _Step(enum.IntEnum):
    """Next request of an applicant."""

    PRESS = 0
    PRESS_AND_WAIT = 1
    CHECK_OFFER = 2
    CONFIRM = 3
    LEAVE = 4


class _End(enum.IntEnum):
    """Final result of an applicant."""

    BOOKED = 0
    REFUSED = 1
    ABANDONED = 2
    GAVE_UP = 3


# These are compared a million times, and the attribute of an enum costs more than the comparison.
_NOT_OPEN: Final = Status.NOT_OPEN
_SOLD_OUT: Final = Status.SOLD_OUT
_PRESS: Final = _Step.PRESS
_PRESS_AND_WAIT: Final = _Step.PRESS_AND_WAIT
_ACCEPT: Final = NextAction.ACCEPT
_JOIN_WAIT_LIST: Final = NextAction.JOIN_WAIT_LIST
_REFUSED: Final = _End.REFUSED


class Opening:
    """One run of an opening. Create one for each run.

    Every applicant has at most one request in flight. Event numbers from the last applicant's on are the sweeps of the
    office-days.

    Args:
        scenario: The scenario.
        supply: Office-days on sale.
        population: Applicants.
        engine: A fresh engine that reads ``clock``.
        clock: Clock that the run sets.
    """

    def __init__(
        self, scenario: Scenario, supply: Supply, population: Population, engine: SimulatedEngine, clock: ManualClock
    ) -> None:
        count = len(population)
        self._scenario, self._supply, self._population = scenario, supply, population
        self._engine, self._clock = engine, clock
        self._agents = Agents(scenario.agents, scenario.arrivals, population)
        self._after_refusal = self._agents.after_refusal
        self._latencies = LatencyTables(scenario.network, supply, population.seed)
        self._opening_ms = supply.opening_ms
        self._office_days = [(each.office, each.day) for each in supply.office_days]
        # The booking choice is known before the run, so a request passes only the office-day and the applicants.
        reserve: Callable[..., Outcome] = engine.reserve
        self._reserve = [
            [
                functools.partial(reserve, **choice.as_arguments(), join_wait_list=join_wait_list)
                for choice in population.choices
            ]
            for join_wait_list in (False, True)
        ]
        self._opens_us = [(each.opens_at_ms - supply.opening_ms) * 1000 for each in supply.office_days]
        self.metrics = Metrics(count, supply.capacity, series_start_s(min(population.first_press_us)))
        self._steps = bytearray(count)
        self._failures = bytearray(count)
        self._answered = bytearray(count)
        # Moment of the press whose answer is measured, by applicant.
        self._press_us = array("q", population.first_press_us)
        self._holds: dict[int, Reservation] = {}
        self._late_confirms: dict[int, int] = {}
        self._crashed: set[int] = set()
        self._leaves_us: dict[int, int] = {}
        self._statuses: collections.Counter[str] = collections.Counter()
        self._confirmed_ids: set[str] = set()
        self._confirmed_quotas: list[dict[str, int]] = [{} for _ in supply.office_days]
        self._unanswered = [0] * len(supply.office_days)
        for office_day in population.office_day:
            self._unanswered[office_day] += 1
        self._has_wait_list = [each.has_wait_list for each in supply.office_days]
        self._ends = [0] * len(_End)
        self._final_count = 0

    def run(self, observe: ProgressObserver | None = None) -> Metrics:
        """Publish the days, process every request, and return the metrics.

        Raises:
            InvalidRequest: The store is not empty.
            BackendUnavailable: The store cannot be reached.
        """
        publish_supply(self._engine, self._supply, self._clock, min(min(self._population.first_press_us), 0))
        self._run_events(observe)
        metrics = self.metrics
        for office_day, confirmed in zip(self._supply.office_days, self._confirmed_quotas, strict=True):
            metrics.oversold += oversold_places(office_day, confirmed)
        metrics.bookings, metrics.refused, metrics.abandoned, metrics.gave_up = self._ends
        metrics.errors += metrics.gave_up
        metrics.answers_by_status = dict(self._statuses)
        self._clock.set_ms(max(self._clock.now_ms(), self._opening_ms + metrics.last_final_us // 1000))
        return metrics

    def _run_events(self, observe: ProgressObserver | None) -> None:
        population, metrics, front_end = self._population, self.metrics, self._scenario.front_end
        count, office_day_of = len(population), population.office_day
        bits = (count + len(self._supply.office_days)).bit_length()
        latency_us, latency_bits = self._latencies.tables, self._latencies.bits
        sweeps = [
            (opens_us + int(front_end.sweep_s * 1e6)) << bits | (count + number)
            for number, opens_us in enumerate(self._opens_us)
        ]
        queue = EventQueue(bits, first_events(population, self._latencies, bits), sweeps)
        take, replace, mask = queue.take, queue.replace, queue.mask
        arrivals = ArrivalCounter(metrics.arrivals)
        steps, statuses = self._steps, self._statuses
        set_ms, opening_ms = self._clock.set_ms, self._opening_ms
        count_answer = metrics.answers.add
        serve = (self._press, self._press_and_wait, self._check_offer, self._confirm, self._leave)

        # With a constant service time, first-come order means that request k starts when request k - workers is done.
        service_us, workers = front_end.service_us, front_end.workers
        done_us = [NEVER_US] * workers
        worker = 0
        wait_us_max = front_end.queue_max * service_us // workers
        wait_us_seen = 0
        while (event := take()) is not None:
            arrival_us, index = event >> bits, event & mask
            if index >= count:
                sweep_after_us = self._sweep(index - count, arrival_us)
                replace(None if sweep_after_us == DONE else (arrival_us + sweep_after_us) << bits | index)
                continue
            arrivals.count(arrival_us)
            if observe is not None and not arrivals.requests % PROGRESS_EVERY:
                observe(self._final_count, arrivals.requests)
            office_day = office_day_of[index]
            office_latency_us = latency_us[office_day]
            start_us = done_us[worker]
            if start_us < arrival_us:
                start_us = arrival_us
            wait_us = start_us - arrival_us
            if wait_us > wait_us_seen:
                wait_us_seen = min(wait_us, wait_us_max)
            if wait_us > wait_us_max:
                statuses["OVERLOADED"] += 1
                metrics.overloaded += 1
                reply_us = arrival_us + office_latency_us[latency_bits(TABLE_BITS)]
                delay_us = self._fail(index, office_day, reply_us)
            else:
                done_us[worker] = start_us + service_us
                worker = worker + 1 if worker + 1 < workers else 0
                set_ms(opening_ms + start_us // 1000)
                reply_us = start_us + service_us + office_latency_us[latency_bits(TABLE_BITS)]
                try:
                    delay_us = serve[steps[index]](index, office_day, reply_us)
                except OutcomeUnknown:
                    statuses["UNKNOWN"] += 1
                    metrics.errors += 1
                    delay_us = self._fail(index, office_day, reply_us)
                else:
                    count_answer(reply_us)
                    self._failures[index] = 0
            if delay_us == DONE:
                replace(None)
            else:
                replace((reply_us + delay_us + office_latency_us[latency_bits(TABLE_BITS)]) << bits | index)
        arrivals.flush()
        metrics.requests = arrivals.requests
        metrics.queue_max = wait_us_seen * workers // service_us

    # Request handlers. Each returns the delay from the answer to the applicant's next request, or DONE.

    def _press(self, index: int, office_day: int, reply_us: int, join_wait_list: bool = False) -> int:
        population = self._population
        office, day = self._office_days[office_day]
        outcome = self._reserve[join_wait_list][population.choice[index]](
            office,
            day,
            population.identity(index) if population.party[index] == 1 else population.party_identities(index),
        )
        status = outcome.status
        self._statuses[status] += 1
        if status is _NOT_OPEN:
            opens_us = (outcome.retry_at_ms - self._opening_ms) * 1000
            delay_us = self._agents.delay_until_open_us(index, reply_us, opens_us)
            self._press_us[index] = reply_us + delay_us
            return delay_us
        if not self._answered[index]:
            self._answered[index] = 1
            self.metrics.answer_us.record(reply_us - self._press_us[index])
        if index in self._crashed:
            self._check_resumed_hold(index, outcome)
        if status is _SOLD_OUT:
            return self._refuse(index, office_day, reply_us)
        match status:
            case Status.HELD if outcome.reservation is not None:
                if not outcome.resumed:
                    self.metrics.taken.add(reply_us, outcome.reservation.units)
                return self._fill_in_form(index, office_day, reply_us, outcome.reservation)
            case Status.WAITING if outcome.reservation is not None:
                self.metrics.waited += 1
                return self._wait_for_offer(index, reply_us, outcome.reservation)
            case Status.CONFIRMED:
                return self._end(index, office_day, reply_us, _End.BOOKED)
            case _:
                return self._end(index, office_day, reply_us, _End.REFUSED)

    def _press_and_wait(self, index: int, office_day: int, reply_us: int) -> int:
        return self._press(index, office_day, reply_us, join_wait_list=True)

    def _refuse(self, index: int, office_day: int, reply_us: int) -> int:
        if self.metrics.sold_out_us is None or reply_us < self.metrics.sold_out_us:
            self.metrics.sold_out_us = reply_us
        action, delay_us = self._after_refusal(index, reply_us)
        if action is _ACCEPT or (action is _JOIN_WAIT_LIST and not self._has_wait_list[office_day]):
            return self._end(index, office_day, reply_us, _REFUSED)
        self._steps[index] = _PRESS_AND_WAIT if action is _JOIN_WAIT_LIST else _PRESS
        return delay_us

    def _fill_in_form(self, index: int, office_day: int, reply_us: int, reservation: Reservation) -> int:
        """Return the time that the form takes, unless the client crashes or the applicant abandons the hold."""
        deadline_us = (reservation.deadline_at_ms - self._opening_ms) * 1000
        first_time = index not in self._holds
        self._holds[index] = reservation
        if first_time and self._agents.abandons():
            self.metrics.taken.add(deadline_us, -reservation.units)
            return self._end(index, office_day, reply_us, _End.ABANDONED)
        crash_us = self._agents.crash_us() if first_time else None
        if crash_us is not None:
            self._crashed.add(index)
            self._steps[index] = _Step.PRESS
            return crash_us
        self._steps[index] = _Step.CONFIRM
        return self._agents.form_us()

    def _check_resumed_hold(self, index: int, outcome: Outcome) -> None:
        """Record whether a crashed applicant has the same hold again, although the key is new."""
        self._crashed.discard(index)
        before, now = self._holds[index], outcome.reservation
        if now is not None and now.id == before.id:
            self.metrics.resumed += 1
        elif self._clock.now_ms() < before.deadline_at_ms:
            self.metrics.holds_lost += 1
        else:
            self._record_expired_hold(before)

    def _record_expired_hold(self, reservation: Reservation) -> None:
        self.metrics.holds_expired += 1
        self.metrics.taken.add((reservation.deadline_at_ms - self._opening_ms) * 1000, -reservation.units)

    def _confirm(self, index: int, office_day: int, reply_us: int) -> int:
        hold = self._holds[index]
        outcome = self._engine.confirm(hold.reference, owner=self._population.identity(index))
        self._statuses[outcome.status] += 1
        if outcome.status is not Status.CONFIRMED or outcome.reservation is None:
            # The hold has expired. The applicant tries for another one, a bounded number of times.
            self._record_expired_hold(hold)
            self._late_confirms[index] = late = self._late_confirms.get(index, 0) + 1
            if late >= self._scenario.agents.attempts_max:
                return self._end(index, office_day, reply_us, _End.ABANDONED)
            self._steps[index] = _Step.PRESS
            return self._agents.reaction_us()
        confirmed = outcome.reservation
        if confirmed.id not in self._confirmed_ids:
            self._confirmed_ids.add(confirmed.id)
            self.metrics.confirmed += confirmed.units
            self.metrics.sold.add(reply_us, confirmed.units)
            quotas = self._confirmed_quotas[office_day]
            for quota in confirmed.quotas:
                quotas[quota] = quotas.get(quota, 0) + confirmed.units
        return self._end(index, office_day, reply_us, _End.BOOKED)

    def _wait_for_offer(self, index: int, reply_us: int, reservation: Reservation) -> int:
        self._holds[index] = reservation
        self._leaves_us[index] = reply_us + self._agents.wait_patience_us()
        self._steps[index] = _Step.CHECK_OFFER
        return self._agents.pause_us(self._scenario.agents.wait_check_s_mean)

    def _check_offer(self, index: int, office_day: int, reply_us: int) -> int:
        """Read the state of a wait list entry, and take the offer if there is one."""
        reservation = self._engine.lookup(self._holds[index].reference)
        self._statuses["CHECKED_OFFER"] += 1
        if reservation is None or reservation.state not in (State.WAITING, State.HELD):
            return self._end(index, office_day, reply_us, _End.REFUSED)
        if reservation.state is State.HELD:
            self.metrics.offers_seen += 1
            offered_ms = (
                reservation.deadline_at_ms - self._supply.catalog.offices[reservation.office].rules.offer_ttl_ms
            )
            self.metrics.taken.add((offered_ms - self._opening_ms) * 1000, reservation.units)
            if self._agents.declines() and self._decline(index, reply_us, reservation):
                return self._agents.pause_us(self._scenario.agents.wait_check_s_mean)
            del self._holds[index]
            return self._fill_in_form(index, office_day, reply_us, reservation)
        if reply_us >= self._leaves_us[index]:
            self._steps[index] = _Step.LEAVE
            return self._agents.reaction_us()
        return self._agents.pause_us(self._scenario.agents.wait_check_s_mean)

    def _decline(self, index: int, reply_us: int, offer: Reservation) -> bool:
        """Decline an offer. Return False if the office allows no more of them, so that the applicant takes it."""
        owner = self._population.identity(index)
        outcome = self._engine.decline(offer.reference, owner=owner, expected_version=offer.version)
        self._statuses[outcome.status] += 1
        if outcome.status is not Status.WAITING:
            return False
        self.metrics.offers_declined += 1
        self.metrics.taken.add(reply_us, -offer.units)
        return True

    def _leave(self, index: int, office_day: int, reply_us: int) -> int:
        outcome = self._engine.release(self._holds[index].reference, owner=self._population.identity(index))
        self._statuses[outcome.status] += 1
        return self._end(index, office_day, reply_us, _End.REFUSED)

    def _fail(self, index: int, office_day: int, reply_us: int) -> int:
        """Handle a request without an answer: retry after the time that the server named, or give up."""
        self._failures[index] += 1
        if self._failures[index] >= self._scenario.agents.attempts_max:
            return self._end(index, office_day, reply_us, _End.GAVE_UP)
        return self._agents.pause_us(self._scenario.front_end.retry_after_s) + int(
            self._scenario.front_end.retry_after_s * 500_000
        )

    def _end(self, index: int, office_day: int, reply_us: int, end: _End) -> int:
        metrics = self.metrics
        self._ends[end] += 1
        metrics.final_us.record(reply_us - self._press_us[index])
        if reply_us > metrics.last_final_us:
            metrics.last_final_us = reply_us
        self._holds.pop(index, None)
        self._final_count += 1
        self._unanswered[office_day] -= 1
        return DONE

    def _sweep(self, office_day: int, now_us: int) -> int:
        """Expire overdue holds of an office-day, and return the time to the next sweep while applicants remain."""
        if not self._unanswered[office_day]:
            return DONE
        office, day = self._office_days[office_day]
        self._clock.set_ms(self._opening_ms + now_us // 1000)
        self._engine.expire(office, day, _SWEEP_LIMIT)
        return int(self._scenario.front_end.sweep_s * 1_000_000)
