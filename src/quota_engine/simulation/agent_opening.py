"""An opening with agents: people, programs and brokers before one policy, a discrete-event run against the real engine.

Every place is held, confirmed, cancelled and attended through the engine, and every request passes the policy's gate
(:mod:`.gates`). What brokers and their customers decide stands in :mod:`.brokers`, and what is counted in
:mod:`.contest_measures`. Moments are in microseconds from the opening of the run.
"""

from __future__ import annotations

__all__ = ["Contest"]

import dataclasses
import datetime
import functools
import heapq
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from quota_engine.catalog import choice_of, day_terms, packed_places
from quota_engine.clocks import ManualClock
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.model import Choice, Reservation
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.simulation import brokers, policy_models
from quota_engine.simulation.agent_metrics import ContestMeasures
from quota_engine.simulation.agents import Agents, Next
from quota_engine.simulation.engine_port import SimulatedEngine
from quota_engine.simulation.metrics import oversold_places
from quota_engine.simulation.opening import PROGRESS_EVERY, Observer
from quota_engine.simulation.people import People
from quota_engine.simulation.population_config import Identity, ReRelease
from quota_engine.simulation.rng import TABLE_BITS, lognormal_table, stream
from quota_engine.simulation.scenario import Scenario
from quota_engine.simulation.supply import Market, Wish

_FINAL: Final = -1
"""In place of a delay: nothing more is sent, or the gate will say when."""
_ASK, _CONFIRM, _CANCEL = range(3)
_ACTIVE, _BOOKED, _REFUSED, _ABANDONED = range(4)
_PULSE_US: Final = 30_000_000
_HOUR_US: Final = 3_600_000_000
_BOT_REACTION_US: Final = 5_000
_HAND_OVERS_MAX: Final = 180
"""Into so many steps all hand-overs are put, at the most."""


class Contest:
    """One run. The engine must be fresh, and tell the time by ``clock``.

    Everybody has at most one request under way. An event is one integer, the moment of a request's arrival above the
    number of who sent it; the numbers from the last identity's on are what the servers and the brokers do by the clock.
    """

    def __init__(
        self,
        scenario: Scenario,
        market: Market,
        people: People,
        plan: brokers.Plan,
        experience: brokers.Experience,
        rerelease: ReRelease,
        engine: SimulatedEngine,
        clock: ManualClock,
    ) -> None:
        count, seed = len(people), scenario.seed
        # A customer takes over the wish that goes with the broker's place; the next run has its own.
        people = dataclasses.replace(people, wish=bytearray(people.wish))
        self.scenario, self.market, self.people, self.rerelease = scenario, market, people, rerelease
        self._plan, self._experience = plan, experience
        self._engine, self._clock, self._opening_ms = engine, clock, market.opening_ms
        self._society, self._checks = scenario.society, scenario.identity is Identity.VERIFIED
        self._agents = Agents(scenario.agents, scenario.arrivals, people.population)
        self._way_us = array("q", people.one_way_us)
        self._jitter = lognormal_table(1000, 0.2)
        self._jitter_bits = stream(seed, "contest/jitter").getrandbits
        self._step = bytearray(count)
        self._status = bytearray(count)
        self._brokered = bytearray(count)
        self._attempts = bytearray(count)
        self._answered = bytearray(count)
        self._first_us = array("q", bytes(8 * count))
        self._holds: dict[int, Reservation] = {}
        self._references: dict[int, str] = {}
        reserve: Callable[..., Outcome] = engine.reserve
        self._reserve = [
            [functools.partial(reserve, each.office, each.day, **wish.as_arguments()) for wish in self._wishes]
            for each in market.office_days
        ]
        self._choices = [
            [choice_of(market.catalog, each.office, **wish.as_arguments()) for wish in self._wishes]
            for each in market.office_days
        ]
        self._options = [
            list(dict.fromkeys(option for choice in choices for option in choice.options)) for choices in self._choices
        ]
        self._end_us = self._day_begins_us()
        self._confirmed_quotas: list[dict[str, int]] = [{} for _ in market.office_days]
        self._oversold = [0] * len(market.office_days)
        self._events: list[int] = []
        self._controls: list[policy_models.Control] = []
        self._bits = (count + 64).bit_length() + 1
        self._watchers: list[int] = []
        self._watch_phase = stream(seed, "contest/watch").random
        self._phase_us: dict[int, int] = {}
        self._scouts: dict[int, int] = {}
        self._is_pulsing = False
        self._hand_overs: list[tuple[int, int]] = []
        self._customer_of: dict[int, int] = {}
        self._fate = stream(seed, "contest/fate").random
        self._returns = stream(seed, "contest/returns").random
        self._look_us = lognormal_table(
            round(self._society.drawing.look_h_median * _HOUR_US), self._society.drawing.look_sigma
        )
        self._look_bits = stream(seed, "contest/look").getrandbits
        self.measures = ContestMeasures(scenario, market, people, plan, rerelease)
        self._gate = policy_models.open_gate(self)

    @property
    def _wishes(self) -> Sequence[Wish]:
        return self.people.population.wishes

    def run(self, observe: Observer | None = None) -> ContestMeasures:
        """Publish the days, let everybody try, hand over, attend, and return what came of it.

        Raises ``InvalidRequest`` for a store that is in use, ``BackendUnavailable`` if it cannot be reached.
        """
        people, gate = self.people, self._gate
        firsts = [gate.first_us(index, 1, people.is_bot[index] != 0) for index in range(len(people))]
        controls = list(gate.controls())
        self._publish(min(*firsts, *(at_us for at_us, _ in controls), 0))
        bits = self._bits
        for index, first_us in enumerate(firsts):
            self._first_us[index] = first_us
        # A program has its connection before it needs it.
        ways = (2 * self._society.round_trips - 1, 1)
        self._events = [
            (first_us + self._travel_us(index) * ways[people.is_bot[index]]) << bits | index
            for index, first_us in enumerate(firsts)
        ]
        heapq.heapify(self._events)
        later_rounds = range(2, self.rounds + 1)
        for number in later_rounds:
            # Of one moment's controls the first to be added is the first: what was kept back is there for the round.
            self._add_control(self.round_us(number), self._return_parked)
        for at_us, control in controls:
            self._add_control(at_us, control)
        market_us = round(self._society.brokers.hand_over_after_h * _HOUR_US)
        self._pulse_number = self._add_control(_PULSE_US, self._pulse)
        self._is_pulsing = True
        self._hand_over_number = self._add_control(market_us, self._take_orders)
        for number in later_rounds:
            muster_us = self.round_us(number) - round(self._society.rounds.every_h * _HOUR_US / 2)
            self._add_control(muster_us, functools.partial(self._muster, number))
        self._run_events(observe)
        self._day()
        self.measures.polls += self._gate.polls
        self.measures.oversold = sum(self._oversold)
        return self.measures

    def _day_begins_us(self) -> int:
        """When the first of the days begins; where it is opened on the day itself, when the first of them ends."""
        market = self.market
        terms = [
            day_terms(market.catalog, each.office, datetime.date.fromordinal(each.day)) for each in market.office_days
        ]
        begins_ms = min(each.starts_at_ms for each in terms if each is not None) - self._opening_ms
        ends_ms = min(each.ends_at_ms for each in terms if each is not None) - self._opening_ms
        return (begins_ms if begins_ms * 1000 > _HOUR_US else ends_ms - 1000) * 1000

    # What the gate sees and does.

    @property
    def rounds(self) -> int:
        """How many rounds there are: one, unless places are kept back for the next."""
        if self.rerelease is not ReRelease.NEXT_DRAW:
            return 1
        return sum(self.round_us(number) < self._end_us for number in range(1, self._society.rounds.count + 1)) or 1

    def round_us(self, number: int) -> int:
        """When the round of this number (from 1) is."""
        return round((number - 1) * self._society.rounds.every_h * _HOUR_US)

    def choices(self) -> Sequence[Sequence[Choice]]:
        """The choice that a wish comes to, by office-day and wish."""
        return self._choices

    def units_left(self) -> Mapping[tuple[str, int], Mapping[str, int]]:
        """What is available of every quota, by office and day."""
        return {
            (each.office, each.day): {
                name: quota.available
                for name, quota in self._engine.availability(each.office, each.day)[0].quotas.items()
            }
            for each in self.market.office_days
        }

    def places(self) -> tuple[int, int]:
        """Places that can be had now, and those that may come back before the next round: held, or cooling."""
        available = coming = 0
        for each, options in zip(self.market.office_days, self._options, strict=True):
            quotas = self._engine.availability(each.office, each.day)[0].quotas
            available += packed_places(options, {name: quota.available for name, quota in quotas.items()})
            if self.rerelease is not ReRelease.NEXT_DRAW:
                coming += max(quotas[name].held + quotas[name].cooling for option in options for name in option)
        return available, coming

    def wake(self, index: int, at_us: int) -> None:
        """Let somebody who waits ask again, with a request that they send at this moment."""
        self._step[index] = _ASK
        self._send(index, at_us)

    def refuse(self, index: int, at_us: int) -> None:
        """Tell somebody who waits that all is gone."""
        self._set_time(at_us)
        self.measures.sold_out_us = self.measures.sold_out_us or max(1, at_us)
        delay_us = self._is_refused(index, at_us)
        if delay_us != _FINAL:
            self._send(index, at_us + delay_us)

    def award(self, index: int, at_us: int, hold_ttl_ms: int) -> None:
        """Hold a place for somebody who waits, in their absence."""
        self._set_time(at_us)
        outcome = self._call_reserve(index, hold_ttl_ms)
        if outcome.status is not Status.HELD or outcome.reservation is None:
            self.refuse(index, at_us)
            return
        self._answer(index, at_us)
        self._holds[index] = outcome.reservation
        if self._is_automatic(index):
            look_us = _BOT_REACTION_US
        elif self._fate() < self.scenario.agents.abandon_share:
            self._status[index] = _ABANDONED
            return
        else:
            look_us = self._look_us[self._look_bits(TABLE_BITS)]
        self._step[index] = _CONFIRM
        self._send(index, at_us + look_us + self._form_us(index))

    # The run.

    def _publish(self, first_us: int) -> None:
        if self._engine.list_offices():
            raise InvalidRequest("backend", "the store has offices already", "an empty one, or a new namespace")
        market = self.market
        self._clock.set_ms(self._opening_ms + first_us // 1000 - 60_000)
        self._engine.publish(market.catalog, market.first_day, market.last_day)
        for each in market.office_days:
            for quota, capacity in each.overrides.items():
                self._engine.set_capacity(each.office, each.day, quota, capacity)

    def _add_control(self, at_us: int, control: policy_models.Control) -> int:
        number = len(self.people) + len(self._controls)
        self._controls.append(control)
        heapq.heappush(self._events, at_us << self._bits | number)
        return number

    def _travel_us(self, index: int) -> int:
        return self._way_us[index] * self._jitter[self._jitter_bits(TABLE_BITS)] // 1000

    def _send(self, index: int, at_us: int) -> None:
        heapq.heappush(self._events, (at_us + self._travel_us(index)) << self._bits | index)

    def _set_time(self, at_us: int) -> None:
        self._clock.set_ms(self._opening_ms + at_us // 1000)

    def _run_events(self, observe: Observer | None) -> None:
        front_end, measures, events = self.scenario.front_end, self.measures, self._events
        count, bits, mask = len(self.people), self._bits, (1 << self._bits) - 1
        serve = (self._ask, self._confirm, self._cancel)
        service_us, workers = front_end.service_us, front_end.workers
        waits_us_max = front_end.queue_max * service_us // workers
        done_us, turn, requests = [-(2**62)] * workers, 0, 0
        while events:
            event = heapq.heappop(events)
            arrival_us, index = event >> bits, event & mask
            if arrival_us >= self._end_us:
                break
            if index >= count:
                self._set_time(arrival_us)
                again_us = self._controls[index - count](arrival_us)
                if again_us >= 0:
                    heapq.heappush(events, again_us << bits | index)
                continue
            requests += 1
            if observe is not None and not requests % PROGRESS_EVERY:
                observe(measures.final, requests)
            start_us = max(arrival_us, done_us[turn])
            if start_us - arrival_us > waits_us_max:
                measures.overloaded += 1
                reply_us = arrival_us + self._travel_us(index)
                delay_us = self._try_again(index, reply_us, round(front_end.retry_after_s * 1e6))
            else:
                done_us[turn] = start_us + service_us
                turn = turn + 1 if turn + 1 < workers else 0
                self._set_time(start_us)
                reply_us = start_us + service_us + self._travel_us(index)
                delay_us = serve[self._step[index]](index, start_us, reply_us)
            if delay_us != _FINAL:
                heapq.heappush(events, (reply_us + delay_us + self._travel_us(index)) << bits | index)
        measures.requests = requests

    # What a request comes to. Each returns the delay from the answer to the next request, or _FINAL.

    def _ask(self, index: int, now_us: int, reply_us: int) -> int:
        if self._checks and index >= self.people.people + self._plan.borrowed:
            # The booking service looks the identity up before it asks the engine: nobody has it.
            self._status[index] = _ABANDONED
            return _FINAL
        verdict = self._gate.ask(index, now_us)
        if verdict == policy_models.WAIT:
            return _FINAL
        if verdict == policy_models.OVER:
            return self._is_refused(index, reply_us)
        if verdict == policy_models.EARLY:
            return self._came_early(index, reply_us, self._gate.opens_us)
        if verdict != policy_models.ADMIT:
            self.measures.throttled += 1
            # Retry-After is in whole seconds.
            return self._try_again(index, reply_us, -(-max(verdict, 1) // 1_000_000) * 1_000_000)
        self.measures.count_store_call(now_us)
        outcome = self._call_reserve(index)
        if outcome.status is Status.NOT_OPEN:
            return self._came_early(index, reply_us, (outcome.retry_at_ms - self._opening_ms) * 1000)
        if outcome.status is not Status.HELD or outcome.reservation is None:
            self._gate.sold_out(index, now_us)
            self.measures.sold_out_us = self.measures.sold_out_us or max(1, now_us)
            return self._is_refused(index, reply_us)
        self._answer(index, reply_us)
        self._holds[index] = outcome.reservation
        if not self._is_automatic(index) and self._fate() < self.scenario.agents.abandon_share:
            self._status[index] = _ABANDONED
            return _FINAL
        self._step[index] = _CONFIRM
        return self._form_us(index)

    def _call_reserve(self, index: int, hold_ttl_ms: int = 0) -> Outcome:
        reserve = self._reserve[self.people.office_day[index]][self.people.wish[index]]
        return reserve(self.people.identity(index), hold_ttl_ms=hold_ttl_ms)

    def _confirm(self, index: int, now_us: int, reply_us: int) -> int:
        self.measures.count_store_call(now_us)
        hold = self._holds.pop(index)
        outcome = self._engine.confirm(hold.reference, owner=self.people.identity(index))
        if outcome.status is not Status.CONFIRMED or outcome.reservation is None:
            self._step[index] = _ASK
            return self._is_refused(index, reply_us)
        self._references[index] = outcome.reference
        self._status[index] = _BOOKED
        self.measures.booked(index, reply_us, by_broker=bool(self._brokered[index]))
        self._scouts.pop(index, None)
        self._count_confirmed(index, outcome.reservation, 1)
        return _FINAL

    def _cancel(self, index: int, now_us: int, reply_us: int) -> int:
        """A broker gives a place up, and asks for it in the customer's name as soon as the answer is there."""
        self.measures.count_store_call(now_us)
        outcome = self._engine.cancel(self._references.pop(index), owner=self.people.identity(index))
        assert outcome.reservation is not None
        self._status[index] = _ABANDONED
        self._count_confirmed(index, outcome.reservation, -1)
        customer = self._customer_of.pop(index)
        self._scouts[customer] = reply_us + round(self._society.brokers.give_up_s * 1e6)
        self.wake(customer, reply_us)
        self._arm(reply_us)
        return _FINAL

    def _count_confirmed(self, index: int, reservation: Reservation, sign: int) -> None:
        """Count what applicants have been told, quota by quota, whatever the engine says of itself."""
        number = self.people.office_day[index]
        office_day, quotas = self.market.office_days[number], self._confirmed_quotas[number]
        for quota in reservation.quotas:
            quotas[quota] = quotas.get(quota, 0) + sign
        if any(quotas[quota] > office_day.quotas[quota] for quota in reservation.quotas):
            self._oversold[number] = max(self._oversold[number], oversold_places(office_day, quotas))

    def _came_early(self, index: int, reply_us: int, opens_us: int) -> int:
        if not self._is_automatic(index):
            return self._agents.after_not_open_us(index, reply_us, opens_us)
        until_us = max(0, opens_us - reply_us)
        if self.people.class_of[index] == len(self.people.classes) - 1:
            return until_us + _BOT_REACTION_US
        return min(round(self._society.bot_every_s * 1e6), until_us + _BOT_REACTION_US)

    def _try_again(self, index: int, reply_us: int, delay_us: int) -> int:
        """No answer yet: come back when it was said, or give up."""
        if self._attempts[index] < 255:
            self._attempts[index] += 1
        if self._is_automatic(index):
            # A request that is turned away costs a program nothing: it does not wait for as long as it was told.
            return min(delay_us, round(self._society.bot_every_s * 1e6)) + _BOT_REACTION_US
        if self._attempts[index] >= self.scenario.agents.attempts_max:
            return self._is_refused(index, reply_us)
        return delay_us + self._agents.reaction_us()

    def _is_refused(self, index: int, reply_us: int) -> int:
        """All is gone: look again, watch, wait with the broker for the place to come back, or accept it."""
        self._answer(index, reply_us)
        if self._brokered[index]:
            self._status[index] = _REFUSED
            self._arm(reply_us)
            return _FINAL
        if index < self.people.people and not self.people.is_bot[index]:
            following, delay_us = self._agents.after_refusal(index, reply_us)
            if following is Next.PRESS:
                return delay_us
        elif index < self.people.people and index not in self._phase_us:
            self._watchers.append(index)
            self._phase_us[index] = round(self._watch_phase() * self._society.bot_watch_s * 1e6)
            self._arm(reply_us)
        self._status[index] = _REFUSED
        return _FINAL

    def _answer(self, index: int, reply_us: int) -> None:
        if not self._answered[index]:
            self._answered[index] = 1
            self.measures.answered(index, reply_us - self._first_us[index])

    def _is_automatic(self, index: int) -> bool:
        return bool(self.people.is_bot[index] or self._brokered[index])

    def _form_us(self, index: int) -> int:
        if index >= self.people.people or self._brokered[index]:
            return round(self._society.brokers.form_s * 1e6)
        return self._agents.form_us()

    # What programs and brokers do by the clock.

    def _arm(self, now_us: int) -> None:
        """There is somebody to look, and perhaps something to see."""
        if not self._is_pulsing and now_us >= 0:
            self._is_pulsing = True
            heapq.heappush(self._events, (now_us + 1_000_000) << self._bits | self._pulse_number)

    def _pulse(self, now_us: int) -> int:
        """Programs look for places that come back. A look that finds nothing changes nothing: it is only counted."""
        scouts = [
            index for index, until_us in self._scouts.items() if self._status[index] == _REFUSED and now_us < until_us
        ]
        watchers = [index for index in self._watchers if self._status[index] == _REFUSED and not self._brokered[index]]
        self._watchers = watchers
        if not scouts and not watchers:
            self._is_pulsing = False
            return -1
        step_us = round(self._society.brokers.poll_s * 1e6) if scouts else _PULSE_US
        watch_us = round(self._society.bot_watch_s * 1e6)
        self.measures.polls += (1 if scouts else 0) + len(watchers) * step_us // watch_us
        available, coming = self.places()
        if not available and not coming:
            self._is_pulsing = False
            return -1
        if available:
            for index in scouts[:available]:
                self._status[index] = _ACTIVE
                self.wake(index, now_us + round(self._watch_phase() * step_us))
            for index in watchers:
                after_us = (self._phase_us[index] - now_us) % watch_us
                if after_us < step_us:
                    self._status[index] = _ACTIVE
                    self.wake(index, now_us + after_us)
        return now_us + step_us

    def _take_orders(self, now_us: int) -> int:
        """Brokers offer what they hold to those who got nothing, in the order in which these happen to ask."""
        people = self.people
        held: dict[int, list[int]] = {}
        for index in range(people.people, len(people)):
            if self._status[index] == _BOOKED:
                held.setdefault(people.office_day[index], []).append(index)
        askers = [
            index
            for index in range(people.people)
            if self._status[index] == _REFUSED and people.considers[index] and people.office_day[index] in held
        ]
        stream(self.scenario.seed, "contest/market").shuffle(askers)
        ratio = self.market.capacity / len(people)
        for index in askers:
            places = held[people.office_day[index]]
            if places and self._experience.would_buy(people.value[index], people.luck[index], ratio):
                self._hand_overs.append((places.pop(), index))
        self.measures.orders = len(self._hand_overs)
        if not self._hand_overs:
            return -1
        self._hand_overs.reverse()
        self._controls[self._hand_over_number - len(people)] = self._hand_over
        self._at_once = -(-len(self._hand_overs) // _HAND_OVERS_MAX)
        return now_us

    def _hand_over(self, now_us: int) -> int:
        """Cancel what was sold, and book it again in the customer's name."""
        people = self.people
        for _ in range(min(self._at_once, len(self._hand_overs))):
            identity, customer = self._hand_overs.pop()
            if self._status[customer] != _REFUSED:
                continue  # has found a place after all
            self._status[customer] = _ACTIVE
            self._customer_of[identity] = customer
            self._brokered[customer] = 1
            self._way_us[customer] = self._way_us[identity]
            people.wish[customer] = people.wish[identity]
            self._step[identity] = _CANCEL
            self._send(identity, now_us)
        return now_us + round(self._society.brokers.hand_over_every_s * 1e6) if self._hand_overs else -1

    def _muster(self, number: int, now_us: int) -> int:
        """Half-way to the next round: who still wants a place comes to it; whoever was kept back returns with it."""
        people, share = self.people, self._society.rounds.return_share
        for index in range(len(people)):
            if self._status[index] != _REFUSED:
                continue
            automatic = self._is_automatic(index)
            if automatic or self._returns() < share:
                self._status[index] = _ACTIVE
                self._step[index] = _ASK
                self._send(index, max(now_us, self._gate.first_us(index, number, automatic)))
        return -1

    def _return_parked(self, now_us: int) -> int:
        """A round begins: what was kept back for it is available."""
        for each in self.market.office_days:
            for quota in each.quotas:
                self._engine.release_parked(each.office, each.day, quota)
        return -1

    def _day(self) -> None:
        """The day has come. People come to what is in their name; nobody comes for a broker's identity."""
        people, market = self.people, self.market
        starts_ms = {
            (each.office, each.day): self._engine.availability(each.office, each.day)[0].starts_at_ms
            for each in market.office_days
        }
        for index, reference in sorted(self._references.items()):
            each = market.office_days[people.office_day[index]]
            self._clock.set_ms(max(self._clock.now_ms(), starts_ms[each.office, each.day] + 60_000))
            identity = people.identity(index)
            if index < people.people:
                outcome = self._engine.check_in(reference, owner=identity)
            else:
                outcome = self._engine.mark_no_show(reference, owner=identity)
            self.measures.came(index, outcome.status is Status.ATTENDED)
