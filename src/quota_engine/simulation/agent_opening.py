"""An opening with agents: people, bots and brokers in front of one policy, in a discrete-event run.

Every place is held, confirmed, cancelled and attended through the real engine, and every request passes the policy
model (:mod:`.policy_models`). :mod:`.brokers` has the decisions of brokers and their customers, and
:mod:`.agent_metrics` the metrics. Moments are in microseconds from the opening of the run.
"""

from __future__ import annotations

__all__ = ["AgentOpening"]

import dataclasses
import datetime
import functools
import heapq
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from quota_engine.catalog import choice_of, day_terms, packed_places
from quota_engine.catalog.selection import Selection
from quota_engine.clocks import ManualClock
from quota_engine.domain.model import Choice, Reservation
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.simulation import brokers, policy_models
from quota_engine.simulation.agent_metrics import AgentMetrics
from quota_engine.simulation.agents import Agents, NextAction
from quota_engine.simulation.engine_port import SimulatedEngine, publish_supply
from quota_engine.simulation.event_queue import DONE, NEVER_US, PROGRESS_EVERY, ProgressObserver
from quota_engine.simulation.metrics import oversold_places
from quota_engine.simulation.people import People
from quota_engine.simulation.population_config import IdentityCheck, ReReleasePolicy
from quota_engine.simulation.rng import TABLE_BITS, lognormal_table, stream
from quota_engine.simulation.scenario import Scenario
from quota_engine.simulation.supply import BookingChoice, Supply

_TRY, _CONFIRM, _CANCEL = range(3)
_ACTIVE, _BOOKED, _REFUSED, _ABANDONED = range(4)
_WATCH_US: Final = 30_000_000
_HOUR_US: Final = 3_600_000_000
_BOT_REACTION_US: Final = 5_000
_HAND_OVER_STEPS_MAX: Final = 180


class AgentOpening:
    """One run of an opening with agents. Create one for each run.

    Every agent has at most one request in flight. An event is one integer: the moment of a request's arrival, shifted
    left, plus the sender's number. Numbers from the last identity's on are timed actions of the servers and brokers.

    Args:
        scenario: The scenario.
        supply: Office-days on sale.
        people: People and identities of brokers.
        plan: Identities with which brokers come.
        history: Results of earlier openings.
        re_release: When released places become available again.
        engine: A fresh engine that reads ``clock``.
        clock: Clock that the run sets.
    """

    def __init__(
        self,
        scenario: Scenario,
        supply: Supply,
        people: People,
        plan: brokers.BrokerPlan,
        history: brokers.MarketHistory,
        re_release: ReReleasePolicy,
        engine: SimulatedEngine,
        clock: ManualClock,
    ) -> None:
        count, seed = len(people), scenario.seed
        # A customer takes over the choice of the broker's place. The next run must not see that.
        people = dataclasses.replace(people, choice=bytearray(people.choice))
        self.scenario, self.supply, self.people, self.re_release = scenario, supply, people, re_release
        self._plan, self._history = plan, history
        self._engine, self._clock, self._opening_ms = engine, clock, supply.opening_ms
        self._config, self._checks_identity = scenario.population, scenario.identity is IdentityCheck.VERIFIED
        self._agents = Agents(scenario.agents, scenario.arrivals, people.population)
        self._latency_us = array("q", people.one_way_us)
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
            [
                functools.partial(reserve, each.office, each.day, **choice.as_arguments())
                for choice in self._booking_choices
            ]
            for each in supply.office_days
        ]
        self._choices = [
            [
                choice_of(supply.catalog, each.office, Selection(**choice.as_arguments()))
                for choice in self._booking_choices
            ]
            for each in supply.office_days
        ]
        self._options = [
            list(dict.fromkeys(option for choice in choices for option in choice.options)) for choices in self._choices
        ]
        self._end_us = self._service_begins_us()
        self._confirmed_quotas: list[dict[str, int]] = [{} for _ in supply.office_days]
        self._oversold = [0] * len(supply.office_days)
        self._events: list[int] = []
        self._actions: list[policy_models.TimedAction] = []
        self._bits = (count + 64).bit_length() + 1
        self._watchers: list[int] = []
        self._watch_phase = stream(seed, "contest/watch").random
        self._watch_phase_us: dict[int, int] = {}
        self._broker_watches: dict[int, int] = {}
        self._is_watching = False
        self._hand_overs: list[tuple[int, int]] = []
        self._customer_of: dict[int, int] = {}
        self._abandon_draw = stream(seed, "contest/fate").random
        self._return_draw = stream(seed, "contest/returns").random
        self._check_us = lognormal_table(
            round(self._config.draw.check_h_median * _HOUR_US), self._config.draw.check_sigma
        )
        self._check_bits = stream(seed, "contest/look").getrandbits
        self.metrics = AgentMetrics(scenario, supply, people, plan, re_release)
        self._policy = policy_models.create_policy_model(self)

    @property
    def _booking_choices(self) -> Sequence[BookingChoice]:
        return self.people.population.choices

    def run(self, observe: ProgressObserver | None = None) -> AgentMetrics:
        """Publish the days, process every request, hand places over, attend, and return the metrics.

        Raises:
            InvalidRequest: The store is not empty.
            BackendUnavailable: The store cannot be reached.
        """
        people, policy = self.people, self._policy
        firsts = [policy.first_us(index, 1, people.is_bot[index] != 0) for index in range(len(people))]
        actions = list(policy.timed_actions())
        publish_supply(self._engine, self.supply, self._clock, min(*firsts, *(at_us for at_us, _ in actions), 0))
        bits = self._bits
        for index, first_us in enumerate(firsts):
            self._first_us[index] = first_us
        # A bot opens its connection before it needs it.
        latencies = (2 * self._config.round_trips - 1, 1)
        self._events = [
            (first_us + self._travel_us(index) * latencies[people.is_bot[index]]) << bits | index
            for index, first_us in enumerate(firsts)
        ]
        heapq.heapify(self._events)
        later_rounds = range(2, self.rounds + 1)
        for number in later_rounds:
            # Actions of one moment run in the order of their numbers: parked units are released before the round.
            self._schedule(self.round_us(number), self._release_parked)
        for at_us, action in actions:
            self._schedule(at_us, action)
        hand_over_us = round(self._config.brokers.hand_over_after_h * _HOUR_US)
        self._watch_number = self._schedule(_WATCH_US, self._watch)
        self._is_watching = True
        self._hand_over_number = self._schedule(hand_over_us, self._take_orders)
        for number in later_rounds:
            starts_us = self.round_us(number) - round(self._config.rounds.every_h * _HOUR_US / 2)
            self._schedule(starts_us, functools.partial(self._start_round, number))
        self._run_events(observe)
        self._attend()
        self.metrics.polls += self._policy.polls
        self.metrics.oversold = sum(self._oversold)
        return self.metrics

    def _service_begins_us(self) -> int:
        """Return the beginning of the first service day. If that day opens on the day itself, return its end."""
        supply = self.supply
        terms = [
            day_terms(supply.catalog, each.office, datetime.date.fromordinal(each.day)) for each in supply.office_days
        ]
        begins_ms = min(each.starts_at_ms for each in terms if each is not None) - self._opening_ms
        ends_ms = min(each.ends_at_ms for each in terms if each is not None) - self._opening_ms
        return (begins_ms if begins_ms * 1000 > _HOUR_US else ends_ms - 1000) * 1000

    # State and actions that the policy model uses. See OpeningState for their documentation.

    @property
    def rounds(self) -> int:
        """Number of rounds: one, unless places are kept back for the next one."""
        if self.re_release is not ReReleasePolicy.NEXT_DRAW:
            return 1
        return sum(self.round_us(number) < self._end_us for number in range(1, self._config.rounds.count + 1)) or 1

    def round_us(self, number: int) -> int:
        """Return the moment of a round; the first is number 1."""
        return round((number - 1) * self._config.rounds.every_h * _HOUR_US)

    def choices(self) -> Sequence[Sequence[Choice]]:
        """Return the catalog's choices, by office-day and booking choice."""
        return self._choices

    def units_left(self) -> Mapping[tuple[str, int], Mapping[str, int]]:
        """Return the available units of every quota, by office and day."""
        return {
            (each.office, each.day): {
                name: quota.available
                for name, quota in self._engine.availability(each.office, each.day)[0].quotas.items()
            }
            for each in self.supply.office_days
        }

    def count_places(self) -> tuple[int, int]:
        """Return the available places, and those that may come back before the next round (held or cooling)."""
        available = coming = 0
        for each, options in zip(self.supply.office_days, self._options, strict=True):
            quotas = self._engine.availability(each.office, each.day)[0].quotas
            available += packed_places(options, {name: quota.available for name, quota in quotas.items()})
            if self.re_release is not ReReleasePolicy.NEXT_DRAW:
                coming += max(quotas[name].held + quotas[name].cooling for option in options for name in option)
        return available, coming

    def wake(self, index: int, at_us: int) -> None:
        """Let a waiting agent send a request at this moment."""
        self._step[index] = _TRY
        self._send(index, at_us)

    def refuse(self, index: int, at_us: int) -> None:
        """Answer a waiting agent that all places are sold out."""
        self._set_time(at_us)
        self.metrics.sold_out_us = self.metrics.sold_out_us or max(1, at_us)
        delay_us = self._refuse(index, at_us)
        if delay_us != DONE:
            self._send(index, at_us + delay_us)

    def award(self, index: int, at_us: int, hold_ttl_ms: int) -> None:
        """Hold a place for a winner of a draw, who learns of it later."""
        self._set_time(at_us)
        outcome = self._call_reserve(index, hold_ttl_ms)
        if outcome.status is not Status.HELD or outcome.reservation is None:
            self.refuse(index, at_us)
            return
        self._record_answer(index, at_us)
        self._holds[index] = outcome.reservation
        if self._is_automatic(index):
            look_us = _BOT_REACTION_US
        elif self._abandon_draw() < self.scenario.agents.abandon_share:
            self._status[index] = _ABANDONED
            return
        else:
            look_us = self._check_us[self._check_bits(TABLE_BITS)]
        self._step[index] = _CONFIRM
        self._send(index, at_us + look_us + self._form_us(index))

    # The run.

    def _schedule(self, at_us: int, action: policy_models.TimedAction) -> int:
        number = len(self.people) + len(self._actions)
        self._actions.append(action)
        heapq.heappush(self._events, at_us << self._bits | number)
        return number

    def _travel_us(self, index: int) -> int:
        return self._latency_us[index] * self._jitter[self._jitter_bits(TABLE_BITS)] // 1000

    def _send(self, index: int, at_us: int) -> None:
        heapq.heappush(self._events, (at_us + self._travel_us(index)) << self._bits | index)

    def _set_time(self, at_us: int) -> None:
        self._clock.set_ms(self._opening_ms + at_us // 1000)

    def _run_events(self, observe: ProgressObserver | None) -> None:
        front_end, metrics, events = self.scenario.front_end, self.metrics, self._events
        count, bits, mask = len(self.people), self._bits, (1 << self._bits) - 1
        serve = (self._try, self._confirm, self._cancel)
        service_us, workers = front_end.service_us, front_end.workers
        waits_us_max = front_end.queue_max * service_us // workers
        done_us, turn, requests = [NEVER_US] * workers, 0, 0
        while events:
            event = heapq.heappop(events)
            arrival_us, index = event >> bits, event & mask
            if arrival_us >= self._end_us:
                break
            if index >= count:
                self._set_time(arrival_us)
                again_us = self._actions[index - count](arrival_us)
                if again_us >= 0:
                    heapq.heappush(events, again_us << bits | index)
                continue
            requests += 1
            if observe is not None and not requests % PROGRESS_EVERY:
                observe(metrics.answered, requests)
            start_us = max(arrival_us, done_us[turn])
            if start_us - arrival_us > waits_us_max:
                metrics.overloaded += 1
                reply_us = arrival_us + self._travel_us(index)
                delay_us = self._retry(index, reply_us, round(front_end.retry_after_s * 1e6))
            else:
                done_us[turn] = start_us + service_us
                turn = turn + 1 if turn + 1 < workers else 0
                self._set_time(start_us)
                reply_us = start_us + service_us + self._travel_us(index)
                delay_us = serve[self._step[index]](index, start_us, reply_us)
            if delay_us != DONE:
                heapq.heappush(events, (reply_us + delay_us + self._travel_us(index)) << bits | index)
        metrics.requests = requests

    # Request handlers. Each returns the delay from the answer to the next request, or DONE if nothing more is sent or
    # the policy model decides when.

    def _try(self, index: int, now_us: int, reply_us: int) -> int:
        if self._checks_identity and index >= self.people.people_count + self._plan.borrowed:
            # The booking service checks the identity before it calls the engine, and finds no such person.
            self._status[index] = _ABANDONED
            return DONE
        decision = self._policy.decide(index, now_us)
        if decision == policy_models.WAIT:
            return DONE
        if decision == policy_models.SOLD_OUT:
            return self._refuse(index, reply_us)
        if decision == policy_models.NOT_OPEN:
            return self._wait_for_opening(index, reply_us, self._policy.opens_us)
        if decision != policy_models.ADMIT:
            self.metrics.throttled += 1
            # Retry-After is in whole seconds.
            return self._retry(index, reply_us, -(-max(decision, 1) // 1_000_000) * 1_000_000)
        self.metrics.count_store_call(now_us)
        outcome = self._call_reserve(index)
        if outcome.status is Status.NOT_OPEN:
            return self._wait_for_opening(index, reply_us, (outcome.retry_at_ms - self._opening_ms) * 1000)
        if outcome.status is not Status.HELD or outcome.reservation is None:
            self._policy.note_sold_out(index, now_us)
            self.metrics.sold_out_us = self.metrics.sold_out_us or max(1, now_us)
            return self._refuse(index, reply_us)
        self._record_answer(index, reply_us)
        self._holds[index] = outcome.reservation
        if not self._is_automatic(index) and self._abandon_draw() < self.scenario.agents.abandon_share:
            self._status[index] = _ABANDONED
            return DONE
        self._step[index] = _CONFIRM
        return self._form_us(index)

    def _call_reserve(self, index: int, hold_ttl_ms: int = 0) -> Outcome:
        reserve = self._reserve[self.people.office_day[index]][self.people.choice[index]]
        return reserve(self.people.identity(index), hold_ttl_ms=hold_ttl_ms)

    def _confirm(self, index: int, now_us: int, reply_us: int) -> int:
        self.metrics.count_store_call(now_us)
        hold = self._holds.pop(index)
        outcome = self._engine.confirm(hold.reference, owner=self.people.identity(index))
        if outcome.status is not Status.CONFIRMED or outcome.reservation is None:
            self._step[index] = _TRY
            return self._refuse(index, reply_us)
        self._references[index] = outcome.reference
        self._status[index] = _BOOKED
        self.metrics.record_booking(index, reply_us, by_broker=bool(self._brokered[index]))
        self._broker_watches.pop(index, None)
        self._count_confirmed(index, outcome.reservation, 1)
        return DONE

    def _cancel(self, index: int, now_us: int, reply_us: int) -> int:
        """Cancel a broker's place, and try to book it in the customer's name as soon as the answer arrives."""
        self.metrics.count_store_call(now_us)
        outcome = self._engine.cancel(self._references.pop(index), owner=self.people.identity(index))
        assert outcome.reservation is not None
        self._status[index] = _ABANDONED
        self._count_confirmed(index, outcome.reservation, -1)
        customer = self._customer_of.pop(index)
        self._broker_watches[customer] = reply_us + round(self._config.brokers.give_up_s * 1e6)
        self.wake(customer, reply_us)
        self._start_watching(reply_us)
        return DONE

    def _count_confirmed(self, index: int, reservation: Reservation, sign: int) -> None:
        """Count confirmed places by the answers to applicants, independently of the engine's counters."""
        number = self.people.office_day[index]
        office_day, quotas = self.supply.office_days[number], self._confirmed_quotas[number]
        for quota in reservation.quotas:
            quotas[quota] = quotas.get(quota, 0) + sign
        if any(quotas[quota] > office_day.quotas[quota] for quota in reservation.quotas):
            self._oversold[number] = max(self._oversold[number], oversold_places(office_day, quotas))

    def _wait_for_opening(self, index: int, reply_us: int, opens_us: int) -> int:
        if not self._is_automatic(index):
            return self._agents.delay_until_open_us(index, reply_us, opens_us)
        until_us = max(0, opens_us - reply_us)
        if self.people.class_of[index] == len(self.people.classes) - 1:
            return until_us + _BOT_REACTION_US
        return min(round(self._config.bot_every_s * 1e6), until_us + _BOT_REACTION_US)

    def _retry(self, index: int, reply_us: int, delay_us: int) -> int:
        """Handle a deferred request: retry at the time that was named, or give up."""
        if self._attempts[index] < 255:
            self._attempts[index] += 1
        if self._is_automatic(index):
            # A refused request costs a bot nothing, so it ignores Retry-After.
            return min(delay_us, round(self._config.bot_every_s * 1e6)) + _BOT_REACTION_US
        if self._attempts[index] >= self.scenario.agents.attempts_max:
            return self._refuse(index, reply_us)
        return delay_us + self._agents.reaction_us()

    def _refuse(self, index: int, reply_us: int) -> int:
        """Handle a sold-out answer: retry, watch, wait for the broker's place to come back, or accept it."""
        self._record_answer(index, reply_us)
        if self._brokered[index]:
            self._status[index] = _REFUSED
            self._start_watching(reply_us)
            return DONE
        if index < self.people.people_count and not self.people.is_bot[index]:
            following, delay_us = self._agents.after_refusal(index, reply_us)
            if following is NextAction.PRESS:
                return delay_us
        elif index < self.people.people_count and index not in self._watch_phase_us:
            self._watchers.append(index)
            self._watch_phase_us[index] = round(self._watch_phase() * self._config.bot_watch_s * 1e6)
            self._start_watching(reply_us)
        self._status[index] = _REFUSED
        return DONE

    def _record_answer(self, index: int, reply_us: int) -> None:
        if not self._answered[index]:
            self._answered[index] = 1
            self.metrics.record_answer(index, reply_us - self._first_us[index])

    def _is_automatic(self, index: int) -> bool:
        return bool(self.people.is_bot[index] or self._brokered[index])

    def _form_us(self, index: int) -> int:
        if index >= self.people.people_count or self._brokered[index]:
            return round(self._config.brokers.form_s * 1e6)
        return self._agents.form_us()

    # Timed actions of bots and brokers.

    def _start_watching(self, now_us: int) -> None:
        """Start to watch for places that come back."""
        if not self._is_watching and now_us >= 0:
            self._is_watching = True
            heapq.heappush(self._events, (now_us + 1_000_000) << self._bits | self._watch_number)

    def _watch(self, now_us: int) -> int:
        """Let bots and brokers look for places that come back. A poll that finds nothing is only counted."""
        waiting_customers = [
            index
            for index, until_us in self._broker_watches.items()
            if self._status[index] == _REFUSED and now_us < until_us
        ]
        watchers = [index for index in self._watchers if self._status[index] == _REFUSED and not self._brokered[index]]
        self._watchers = watchers
        if not waiting_customers and not watchers:
            self._is_watching = False
            return -1
        step_us = round(self._config.brokers.poll_s * 1e6) if waiting_customers else _WATCH_US
        watch_us = round(self._config.bot_watch_s * 1e6)
        self.metrics.polls += (1 if waiting_customers else 0) + len(watchers) * step_us // watch_us
        available, coming = self.count_places()
        if not available and not coming:
            self._is_watching = False
            return -1
        if available:
            for index in waiting_customers[:available]:
                self._status[index] = _ACTIVE
                self.wake(index, now_us + round(self._watch_phase() * step_us))
            for index in watchers:
                after_us = (self._watch_phase_us[index] - now_us) % watch_us
                if after_us < step_us:
                    self._status[index] = _ACTIVE
                    self.wake(index, now_us + after_us)
        return now_us + step_us

    def _take_orders(self, now_us: int) -> int:
        """Sell the places of the brokers to people without one, in a random order."""
        people = self.people
        held: dict[int, list[int]] = {}
        for index in range(people.people_count, len(people)):
            if self._status[index] == _BOOKED:
                held.setdefault(people.office_day[index], []).append(index)
        buyers = [
            index
            for index in range(people.people_count)
            if self._status[index] == _REFUSED and people.considers_brokers[index] and people.office_day[index] in held
        ]
        stream(self.scenario.seed, "contest/market").shuffle(buyers)
        ratio = self.supply.capacity / len(people)
        for index in buyers:
            places = held[people.office_day[index]]
            if places and self._history.would_buy(people.value[index], people.luck[index], ratio):
                self._hand_overs.append((places.pop(), index))
        self.metrics.orders = len(self._hand_overs)
        if not self._hand_overs:
            return -1
        self._hand_overs.reverse()
        self._actions[self._hand_over_number - len(people)] = self._hand_over
        self._hand_overs_per_step = -(-len(self._hand_overs) // _HAND_OVER_STEPS_MAX)
        return now_us

    def _hand_over(self, now_us: int) -> int:
        """Cancel places that were sold, so that they can be booked in the customers' names."""
        people = self.people
        for _ in range(min(self._hand_overs_per_step, len(self._hand_overs))):
            identity, customer = self._hand_overs.pop()
            if self._status[customer] != _REFUSED:
                continue  # The customer has found a place in the meantime.
            self._status[customer] = _ACTIVE
            self._customer_of[identity] = customer
            self._brokered[customer] = 1
            self._latency_us[customer] = self._latency_us[identity]
            people.choice[customer] = people.choice[identity]
            self._step[identity] = _CANCEL
            self._send(identity, now_us)
        return now_us + round(self._config.brokers.hand_over_every_s * 1e6) if self._hand_overs else -1

    def _start_round(self, number: int, now_us: int) -> int:
        """Halfway to the next round, decide which agents without a place take part in it."""
        people, share = self.people, self._config.rounds.return_share
        for index in range(len(people)):
            if self._status[index] != _REFUSED:
                continue
            automatic = self._is_automatic(index)
            if automatic or self._return_draw() < share:
                self._status[index] = _ACTIVE
                self._step[index] = _TRY
                self._send(index, max(now_us, self._policy.first_us(index, number, automatic)))
        return -1

    def _release_parked(self, now_us: int) -> int:
        """Release the parked units at the beginning of a round."""
        for each in self.supply.office_days:
            for quota in each.quotas:
                self._engine.release_parked(each.office, each.day, quota)
        return -1

    def _attend(self) -> None:
        """Record attendance on the service day. Identities of brokers never attend."""
        people, supply = self.people, self.supply
        starts_ms = {
            (each.office, each.day): self._engine.availability(each.office, each.day)[0].starts_at_ms
            for each in supply.office_days
        }
        for index, reference in sorted(self._references.items()):
            each = supply.office_days[people.office_day[index]]
            self._clock.set_ms(max(self._clock.now_ms(), starts_ms[each.office, each.day] + 60_000))
            identity = people.identity(index)
            if index < people.people_count:
                outcome = self._engine.check_in(reference, owner=identity)
            else:
                outcome = self._engine.mark_no_show(reference, owner=identity)
            self.metrics.record_attendance(index, outcome.status is Status.ATTENDED)
