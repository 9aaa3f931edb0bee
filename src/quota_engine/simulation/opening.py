"""The opening itself: a discrete-event run in which every request calls the real engine at its virtual time."""

from __future__ import annotations

__all__ = ["PROGRESS_EVERY", "Observer", "Spike"]

import collections
import enum
import functools
import heapq
from array import array
from collections.abc import Callable
from typing import Final

from quota_engine.clocks import ManualClock
from quota_engine.domain.errors import InvalidRequest, OutcomeUnknown
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.simulation.agents import Agents, Next
from quota_engine.simulation.arrivals import Population
from quota_engine.simulation.engine_port import SimulatedEngine
from quota_engine.simulation.latency import Latencies
from quota_engine.simulation.metrics import Measures, oversold_places, series_start_s
from quota_engine.simulation.rng import TABLE_BITS
from quota_engine.simulation.scenario import Scenario
from quota_engine.simulation.supply import Market

PROGRESS_EVERY: Final = 8192

Observer = Callable[[int, int], None]
"""Is told now and then how many applicants have a final answer, and of how many requests."""

_FINAL: Final = -1
"""In place of a delay: this applicant sends nothing more."""
_SWEEP_LIMIT: Final = 1000


class _Step(enum.IntEnum):
    """What an applicant's next request is."""

    PRESS = 0
    PRESS_AND_WAIT = 1
    LOOK = 2
    CONFIRM = 3
    LEAVE = 4


class _End(enum.IntEnum):
    """How it ended for an applicant."""

    BOOKED = 0
    REFUSED = 1
    ABANDONED = 2
    GAVE_UP = 3


# Looked up a million times: attributes of an enum cost more than what they are compared in.
_NOT_OPEN: Final = Status.NOT_OPEN
_SOLD_OUT: Final = Status.SOLD_OUT
_PRESS: Final = _Step.PRESS
_PRESS_AND_WAIT: Final = _Step.PRESS_AND_WAIT
_ACCEPT: Final = Next.ACCEPT
_WAIT: Final = Next.WAIT
_REFUSED: Final = _End.REFUSED


class Spike:
    """One run. The engine must be fresh, and tell the time by ``clock``.

    Every applicant has at most one request under way. An event is one integer, the moment of a request's arrival at
    the front end above the applicant's number: events of one microsecond are in the order of the applicants. Numbers
    from the last applicant's on are the sweeps of the office-days.
    """

    def __init__(
        self, scenario: Scenario, market: Market, population: Population, engine: SimulatedEngine, clock: ManualClock
    ) -> None:
        count = len(population)
        self._scenario, self._market, self._population = scenario, market, population
        self._engine, self._clock = engine, clock
        self._agents = Agents(scenario.agents, scenario.arrivals, population)
        self._after_refusal = self._agents.after_refusal
        self._latencies = Latencies(scenario.network, market, population.seed)
        self._opening_ms = market.opening_ms
        self._places = [(each.office, each.day) for each in market.office_days]
        # What is asked for is decided before the run: only the office-day and the applicants are left to say.
        reserve: Callable[..., Outcome] = engine.reserve
        self._reserve = [
            [functools.partial(reserve, **wish.as_arguments(), join_wait_list=wait) for wish in population.wishes]
            for wait in (False, True)
        ]
        self._opens_us = [(each.opens_at_ms - market.opening_ms) * 1000 for each in market.office_days]
        self.measures = Measures(count, market.capacity, series_start_s(min(population.first_press_us)))
        self._steps = bytearray(count)
        self._failures = bytearray(count)
        self._answered = bytearray(count)
        # When the applicant pressed for the answer that is being measured.
        self._pressed_us = array("q", population.first_press_us)
        self._holds: dict[int, Reservation] = {}
        self._late: dict[int, int] = {}
        self._returning: set[int] = set()
        self._leaves_us: dict[int, int] = {}
        self._statuses: collections.Counter[str] = collections.Counter()
        self._confirmed_ids: set[str] = set()
        self._confirmed_quotas: list[dict[str, int]] = [{} for _ in market.office_days]
        self._left_to_answer = [0] * len(market.office_days)
        for office_day in population.office_day:
            self._left_to_answer[office_day] += 1
        self._has_wait_list = [each.has_wait_list for each in market.office_days]
        self._ends = [0] * len(_End)
        self._finals = 0

    def run(self, observe: Observer | None = None) -> Measures:
        """Publish the days, let everybody press, and return what came of it.

        Raises ``BackendUnavailable`` if the store cannot be reached.
        """
        self._publish()
        self._run_events(observe)
        measures = self.measures
        for office_day, confirmed in zip(self._market.office_days, self._confirmed_quotas, strict=True):
            measures.oversold += oversold_places(office_day, confirmed)
        measures.bookings, measures.refused, measures.abandoned, measures.gave_up = self._ends
        measures.errors += measures.gave_up
        measures.answers_by_status = dict(self._statuses)
        self._clock.set_ms(max(self._clock.now_ms(), self._opening_ms + measures.last_final_us // 1000))
        return measures

    def _publish(self) -> None:
        # A store in use would be played with, and one from an earlier run would replay it: the ids are the same.
        if self._engine.list_offices():
            raise InvalidRequest("backend", "the store has offices already", "an empty one, or a new namespace")
        market = self._market
        first_ms = min(min(self._population.first_press_us), 0) // 1000
        self._clock.set_ms(self._opening_ms + first_ms - 60_000)
        self._engine.publish(market.catalog, market.first_day, market.last_day)
        for each in market.office_days:
            for quota, capacity in each.overrides.items():
                self._engine.set_capacity(each.office, each.day, quota, capacity)

    def _run_events(self, observe: Observer | None) -> None:
        population, measures, front_end = self._population, self.measures, self._scenario.front_end
        count, office_day_of = len(population), population.office_day
        bits = (count + len(self._market.office_days)).bit_length()
        mask = (1 << bits) - 1
        way_us, way_bits = self._latencies.tables, self._latencies.bits
        steps, statuses = self._steps, self._statuses
        set_ms, opening_ms = self._clock.set_ms, self._opening_ms
        count_answer = measures.answers.add
        serve = (self._press, self._press_and_wait, self._look, self._confirm, self._leave)
        pop, push, replace = heapq.heappop, heapq.heappush, heapq.heapreplace

        # First presses are sorted once, which is faster than keeping all of them in the heap.
        presses = sorted(
            (press_us + way_us[office_day_of[index]][way_bits(TABLE_BITS)]) << bits | index
            for index, press_us in enumerate(population.first_press_us)
        )
        events = [
            (opens_us + int(front_end.sweep_s * 1e6)) << bits | (count + number)
            for number, opens_us in enumerate(self._opens_us)
        ]
        heapq.heapify(events)
        presses.reverse()

        # First come, first served with a constant service time: request k starts when request k - workers is done.
        service_us, workers = front_end.service_us, front_end.workers
        done_us = [-(2**62)] * workers
        turn = 0
        waits_us_max = front_end.queue_max * service_us // workers
        wait_us_max_seen = 0
        requests = counted = 0
        second_end_us = (measures.start_s + 1) * 1_000_000
        while presses or events:
            is_first = not events or (bool(presses) and presses[-1] < events[0])
            event = presses.pop() if is_first else events[0]
            arrival_us, index = event >> bits, event & mask
            if index >= count:
                again_us = self._sweep(index - count, arrival_us)
                if again_us == _FINAL:
                    pop(events)
                else:
                    replace(events, (arrival_us + again_us) << bits | index)
                continue
            requests += 1
            if observe is not None and not requests % PROGRESS_EVERY:
                observe(self._finals, requests)
            if arrival_us >= second_end_us:
                # Arrivals come in order: they are counted a second at a time.
                measures.arrivals.add(second_end_us - 1, requests - 1 - counted)
                counted, second_end_us = requests - 1, (arrival_us // 1_000_000 + 1) * 1_000_000
            office_day = office_day_of[index]
            ways_us = way_us[office_day]
            start_us = done_us[turn]
            if start_us < arrival_us:
                start_us = arrival_us
            wait_us = start_us - arrival_us
            if wait_us > wait_us_max_seen:
                wait_us_max_seen = min(wait_us, waits_us_max)
            if wait_us > waits_us_max:
                statuses["OVERLOADED"] += 1
                measures.overloaded += 1
                reply_us = arrival_us + ways_us[way_bits(TABLE_BITS)]
                delay_us = self._fail(index, office_day, reply_us)
            else:
                done_us[turn] = start_us + service_us
                turn = turn + 1 if turn + 1 < workers else 0
                set_ms(opening_ms + start_us // 1000)
                reply_us = start_us + service_us + ways_us[way_bits(TABLE_BITS)]
                try:
                    delay_us = serve[steps[index]](index, office_day, reply_us)
                except OutcomeUnknown:
                    statuses["UNKNOWN"] += 1
                    measures.errors += 1
                    delay_us = self._fail(index, office_day, reply_us)
                else:
                    count_answer(reply_us)
                    self._failures[index] = 0
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
        measures.requests = requests
        measures.queue_max = wait_us_max_seen * workers // service_us

    # What a request comes to. Each returns the delay from the answer to the applicant's next request, or _FINAL.

    def _press(self, index: int, office_day: int, reply_us: int, wait: bool = False) -> int:
        population = self._population
        office, day = self._places[office_day]
        outcome = self._reserve[wait][population.wish[index]](
            office,
            day,
            population.identity(index) if population.party[index] == 1 else population.party_identities(index),
        )
        status = outcome.status
        self._statuses[status] += 1
        if status is _NOT_OPEN:
            opens_us = (outcome.retry_at_ms - self._opening_ms) * 1000
            delay_us = self._agents.after_not_open_us(index, reply_us, opens_us)
            self._pressed_us[index] = reply_us + delay_us
            return delay_us
        if not self._answered[index]:
            self._answered[index] = 1
            self.measures.answer_us.record(reply_us - self._pressed_us[index])
        if index in self._returning:
            self._came_back(index, outcome)
        if status is _SOLD_OUT:
            return self._refused(index, office_day, reply_us)
        match status:
            case Status.HELD if outcome.reservation is not None:
                if not outcome.resumed:
                    self.measures.taken.add(reply_us, outcome.reservation.units)
                return self._held(index, office_day, reply_us, outcome.reservation)
            case Status.WAITING if outcome.reservation is not None:
                self.measures.waited += 1
                return self._waits(index, reply_us, outcome.reservation)
            case Status.CONFIRMED:
                return self._final(index, office_day, reply_us, _End.BOOKED)
            case _:
                return self._final(index, office_day, reply_us, _End.REFUSED)

    def _press_and_wait(self, index: int, office_day: int, reply_us: int) -> int:
        return self._press(index, office_day, reply_us, wait=True)

    def _refused(self, index: int, office_day: int, reply_us: int) -> int:
        if self.measures.sold_out_us is None or reply_us < self.measures.sold_out_us:
            self.measures.sold_out_us = reply_us
        following, delay_us = self._after_refusal(index, reply_us)
        if following is _ACCEPT or (following is _WAIT and not self._has_wait_list[office_day]):
            return self._final(index, office_day, reply_us, _REFUSED)
        self._steps[index] = _PRESS_AND_WAIT if following is _WAIT else _PRESS
        return delay_us

    def _held(self, index: int, office_day: int, reply_us: int, reservation: Reservation) -> int:
        """A place is won: fill in the form, unless the client crashes or the applicant walks away."""
        deadline_us = (reservation.deadline_at_ms - self._opening_ms) * 1000
        first_time = index not in self._holds
        self._holds[index] = reservation
        if first_time and self._agents.abandons():
            self.measures.taken.add(deadline_us, -reservation.units)
            return self._final(index, office_day, reply_us, _End.ABANDONED)
        away_us = self._agents.crash_us() if first_time else None
        if away_us is not None:
            self._returning.add(index)
            self._steps[index] = _Step.PRESS
            return away_us
        self._steps[index] = _Step.CONFIRM
        return self._agents.form_us()

    def _came_back(self, index: int, outcome: Outcome) -> None:
        """After a crash, under a new key: the same hold is due, unless its time has passed."""
        self._returning.discard(index)
        before, now = self._holds[index], outcome.reservation
        if now is not None and now.id == before.id:
            self.measures.resumed += 1
        elif self._clock.now_ms() < before.deadline_at_ms:
            self.measures.holds_lost += 1
        else:
            self._hold_expired(before)

    def _hold_expired(self, reservation: Reservation) -> None:
        self.measures.holds_expired += 1
        self.measures.taken.add((reservation.deadline_at_ms - self._opening_ms) * 1000, -reservation.units)

    def _confirm(self, index: int, office_day: int, reply_us: int) -> int:
        hold = self._holds[index]
        outcome = self._engine.confirm(hold.reference, owner=self._population.identity(index))
        self._statuses[outcome.status] += 1
        if outcome.status is not Status.CONFIRMED or outcome.reservation is None:
            # Too late: the hold is gone, and the applicant tries for another, though not for ever.
            self._hold_expired(hold)
            self._late[index] = late = self._late.get(index, 0) + 1
            if late >= self._scenario.agents.attempts_max:
                return self._final(index, office_day, reply_us, _End.ABANDONED)
            self._steps[index] = _Step.PRESS
            return self._agents.reaction_us()
        confirmed = outcome.reservation
        if confirmed.id not in self._confirmed_ids:
            self._confirmed_ids.add(confirmed.id)
            self.measures.confirmed += confirmed.units
            self.measures.sold.add(reply_us, confirmed.units)
            quotas = self._confirmed_quotas[office_day]
            for quota in confirmed.quotas:
                quotas[quota] = quotas.get(quota, 0) + confirmed.units
        return self._final(index, office_day, reply_us, _End.BOOKED)

    def _waits(self, index: int, reply_us: int, reservation: Reservation) -> int:
        self._holds[index] = reservation
        self._leaves_us[index] = reply_us + self._agents.wait_patience_us()
        self._steps[index] = _Step.LOOK
        return self._agents.pause_us(self._scenario.agents.wait_look_s_mean)

    def _look(self, index: int, office_day: int, reply_us: int) -> int:
        """Somebody on the wait list looks whether there is an offer."""
        reservation = self._engine.lookup(self._holds[index].reference)
        self._statuses["LOOKED"] += 1
        if reservation is None or reservation.state not in (State.WAITING, State.HELD):
            return self._final(index, office_day, reply_us, _End.REFUSED)
        if reservation.state is State.HELD:
            self.measures.offers_seen += 1
            offered_ms = (
                reservation.deadline_at_ms - self._market.catalog.offices[reservation.office].rules.offer_ttl_ms
            )
            self.measures.taken.add((offered_ms - self._opening_ms) * 1000, reservation.units)
            del self._holds[index]
            return self._held(index, office_day, reply_us, reservation)
        if reply_us >= self._leaves_us[index]:
            self._steps[index] = _Step.LEAVE
            return self._agents.reaction_us()
        return self._agents.pause_us(self._scenario.agents.wait_look_s_mean)

    def _leave(self, index: int, office_day: int, reply_us: int) -> int:
        outcome = self._engine.release(self._holds[index].reference, owner=self._population.identity(index))
        self._statuses[outcome.status] += 1
        return self._final(index, office_day, reply_us, _End.REFUSED)

    def _fail(self, index: int, office_day: int, reply_us: int) -> int:
        """No answer: press again after the time the server asked for, or give up."""
        self._failures[index] += 1
        if self._failures[index] >= self._scenario.agents.attempts_max:
            return self._final(index, office_day, reply_us, _End.GAVE_UP)
        return self._agents.pause_us(self._scenario.front_end.retry_after_s) + int(
            self._scenario.front_end.retry_after_s * 500_000
        )

    def _final(self, index: int, office_day: int, reply_us: int, how: _End) -> int:
        measures = self.measures
        self._ends[how] += 1
        measures.final_us.record(reply_us - self._pressed_us[index])
        if reply_us > measures.last_final_us:
            measures.last_final_us = reply_us
        self._holds.pop(index, None)
        self._finals += 1
        self._left_to_answer[office_day] -= 1
        return _FINAL

    def _sweep(self, office_day: int, now_us: int) -> int:
        """Sweep an office-day while anybody there is still waiting for something."""
        if not self._left_to_answer[office_day]:
            return _FINAL
        day = self._market.office_days[office_day]
        self._clock.set_ms(self._opening_ms + now_us // 1000)
        self._engine.expire(day.office, day.day, _SWEEP_LIMIT)
        return int(self._scenario.front_end.sweep_s * 1_000_000)
