"""Policies in front of the reserve. Each model runs one of the engine's own admission modules.

A model decides on every request that reaches the servers: it goes on to the engine, is deferred, or waits until the
model wakes its sender. Moments are in microseconds from the opening of the run.
"""

from __future__ import annotations

__all__ = ["ADMIT", "NOT_OPEN", "SOLD_OUT", "WAIT", "OpeningState", "PolicyModel", "TimedAction", "create_policy_model"]

import hashlib
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from quota_engine.admission import token_bucket
from quota_engine.domain.model import Choice
from quota_engine.draws import lottery
from quota_engine.simulation.people import People
from quota_engine.simulation.rng import SEED_PREFIX, stream
from quota_engine.simulation.scenario import PolicyName, Scenario
from quota_engine.simulation.supply import Supply
from quota_engine.waiting_room import machine, order, pacing
from quota_engine.waiting_room.commands import CallTickets, CloseRoom, CreateRoom, JoinRoom, OpenRoom, RoomConfig
from quota_engine.waiting_room.results import RoomStatus

ADMIT: Final = -1
"""The request goes on to the engine."""
WAIT: Final = -2
"""The sender waits until the model wakes it."""
SOLD_OUT: Final = -3
"""All places are gone."""
NOT_OPEN: Final = -4
"""The policy opens at ``opens_us``."""

_STORE_LATENCY_MS: Final = 1
"""A constant, because the store of a simulation is never slow."""
_SOLD_OUT_CACHE_US: Final = 250_000
"""Lifetime of an entry of the sold-out cache."""
_PAUSE_US: Final = 5_000_000
_QUIET_US: Final = 600_000_000
"""A room closes after this time without waiting tickets."""
_ROOM_OPEN_H: Final = 4
_FIRST_COME_WINDOW_MS: Final = 4_000
"""A first-come room ignores windows. With this length, a room of four hours stays within the limit of windows."""

TimedAction = Callable[[int], int]
"""An action of the servers at a set time. It takes the current moment, and returns its next moment; negative: none."""


class OpeningState(Protocol):
    """State of the run that a policy model reads, and actions that it takes."""

    @property
    def scenario(self) -> Scenario:
        """Scenario of the run."""
        ...

    @property
    def supply(self) -> Supply:
        """Office-days on sale."""
        ...

    @property
    def people(self) -> People:
        """People and identities of brokers."""
        ...

    @property
    def rounds(self) -> int:
        """Number of rounds: one, unless places are kept back for the next one."""
        ...

    def round_us(self, number: int) -> int:
        """Return the moment of a round; the first is number 1."""
        ...

    def count_places(self) -> tuple[int, int]:
        """Return the available places, and those that may come back before the next round (held or cooling)."""
        ...

    def units_left(self) -> Mapping[tuple[str, int], Mapping[str, int]]:
        """Return the available units of every quota, by office and day."""
        ...

    def choices(self) -> Sequence[Sequence[Choice]]:
        """Return the catalog's choices, by office-day and booking choice."""
        ...

    def wake(self, index: int, at_us: int) -> None:
        """Let a waiting agent send a request at this moment."""
        ...

    def refuse(self, index: int, at_us: int) -> None:
        """Answer a waiting agent that all places are sold out."""
        ...

    def award(self, index: int, at_us: int, hold_ttl_ms: int) -> None:
        """Hold a place for a winner of a draw, who learns of it later."""
        ...


class PolicyModel(Protocol):
    """A policy during one run."""

    polls: int
    """Requests of waiting clients. One cached number answers them, so they are counted and not simulated."""
    opens_us: int
    """Moment at which requests that were ``NOT_OPEN`` can be repeated."""

    def first_us(self, index: int, round_number: int, automatic: bool) -> int:
        """Return the moment at which an agent sends the first request of a round, given the published rules.

        Args:
            index: The agent.
            round_number: Number of the round, from 1.
            automatic: True if a bot or a broker's program sends it.
        """
        ...

    def decide(self, index: int, now_us: int) -> int:
        """Return ``ADMIT``, ``WAIT``, ``SOLD_OUT``, ``NOT_OPEN``, or the microseconds after which to retry."""
        ...

    def note_sold_out(self, index: int, now_us: int) -> None:
        """Record that the engine had no place for an agent."""
        ...

    def timed_actions(self) -> Sequence[tuple[int, TimedAction]]:
        """Return the model's timed actions with their first moments."""
        ...


def create_policy_model(opening: OpeningState) -> PolicyModel:
    """Return the model of the scenario's policy."""
    policy = opening.scenario.policy
    if policy is PolicyName.DRAW:
        return _DrawModel(opening)
    if policy in (PolicyName.FIFO, PolicyName.SHUFFLE):
        return _WaitingRoomModel(opening, shuffled=policy is PolicyName.SHUFFLE)
    return _BucketModel(opening) if policy is PolicyName.BUCKET else _ImmediateModel(opening)


def _seed_of(seed: int, purpose: str) -> str:
    return hashlib.sha256(f"{SEED_PREFIX}/{seed}/{purpose}".encode()).hexdigest()


class _ImmediateModel:
    """``immediate``: every request goes on to the engine."""

    def __init__(self, opening: OpeningState) -> None:
        self._opening = opening
        self.polls = self.opens_us = 0

    def first_us(self, index: int, round_number: int, automatic: bool) -> int:
        """Return the moment of the arrival model, because only the first second counts."""
        people = self._opening.people
        press_us = people.press_us[index]
        if round_number == 1:
            return press_us
        if press_us < 0:
            # Early applicants know the moment of the opening from the round before.
            press_us = round(people.arrival_fraction[index] * (20_000 if automatic else 1_000_000))
        return press_us + self._opening.round_us(round_number)

    def decide(self, index: int, now_us: int) -> int:
        return ADMIT

    def note_sold_out(self, index: int, now_us: int) -> None:
        pass

    def timed_actions(self) -> Sequence[tuple[int, TimedAction]]:
        return ()


class _BucketModel(_ImmediateModel):
    """``bucket``: token buckets for all requests, each identity and each address. A refusal takes no tokens.

    A sold-out cache comes first, as in front of a store. Otherwise requests would wait for tokens in vain.
    """

    def __init__(self, opening: OpeningState) -> None:
        super().__init__(opening)
        settings = opening.scenario.population.bucket
        self._opening_ms = opening.supply.opening_ms
        self._buckets = token_bucket.Buckets()
        self._total = token_bucket.Charge(
            "all", token_bucket.per_second(settings.requests_per_s, settings.requests_burst)
        )
        self._by_address = token_bucket.per_second(settings.address_per_s, settings.address_burst)
        self._by_identity = token_bucket.Limit(1, settings.identity_every_s * 1000, settings.identity_burst)
        self._sold_out_us: dict[tuple[int, int], int] = {}

    def note_sold_out(self, index: int, now_us: int) -> None:
        people = self._opening.people
        self._sold_out_us[people.office_day[index], people.choice[index]] = now_us

    def decide(self, index: int, now_us: int) -> int:
        people = self._opening.people
        known_us = self._sold_out_us.get((people.office_day[index], people.choice[index]))
        if known_us is not None and now_us - known_us < _SOLD_OUT_CACHE_US:
            return SOLD_OUT
        charges = (
            token_bucket.Charge(f"identity-{index}", self._by_identity),
            token_bucket.Charge(f"address-{people.address[index]}", self._by_address),
            self._total,
        )
        now_ms = self._opening_ms + now_us // 1000
        taking = self._buckets.take(charges, now_ms)
        return ADMIT if taking.taken else max(0, taking.retry_at_ms - now_ms) * 1000


class _WaitingRoomModel(_ImmediateModel):
    """``fifo`` and ``shuffle``: a waiting room for each round. With ``fifo`` the position is the ticket number."""

    def __init__(self, opening: OpeningState, *, shuffled: bool) -> None:
        super().__init__(opening)
        self._shuffled = shuffled
        self._settings = opening.scenario.population.waiting_room
        seed = opening.scenario.seed
        unaware = stream(seed, "room/unaware").random
        self._unaware = bytearray(unaware() < self._settings.unaware_share for _ in range(opening.people.people_count))
        self._poll_phase = stream(seed, "room/poll").random
        self._state = machine.RoomState()
        self._orders = order.RoomOrder("", "", "", "", "")
        self._is_open = False
        self._admitted = bytearray(len(opening.people))
        self._agent_of_ticket: list[int] = []
        self._joined_us: dict[int, int] = {}
        self._ordered_agents: list[int] = []
        self._ordered = self._called = self._busy_us = 0
        self._seed = self._late_seed = ""

    def first_us(self, index: int, round_number: int, automatic: bool) -> int:
        people = self._opening.people
        knows = index >= len(self._unaware) or automatic or not self._unaware[index]
        if not self._shuffled or not people.aims_at_opening[index] or not knows:
            return super().first_us(index, round_number, automatic)
        # The published rules say that the moment of a join makes no difference, so people come at any time.
        before_us = self._settings.join_before_s * 1e6 * people.arrival_fraction[index]
        return self._opening.round_us(round_number) - round(before_us)

    def timed_actions(self) -> Sequence[tuple[int, TimedAction]]:
        rounds = self._opening.rounds
        before_us = round(self._settings.join_before_s * 1e6)
        made = [
            (self._opening.round_us(number) - before_us - 1_000_000, self._room_creation(number))
            for number in range(1, rounds + 1)
        ]
        return [*made, *((self._opening.round_us(number), self._advance) for number in range(1, rounds + 1))]

    def _room_creation(self, number: int) -> TimedAction:
        def create(now_us: int) -> int:
            self._create_room(number, now_us)
            return -1

        return create

    def _create_room(self, number: int, now_us: int) -> None:
        opening, settings = self._opening, self._settings
        supply = opening.supply
        self.opens_us = opening.round_us(number)
        opens_ms = supply.opening_ms + self.opens_us // 1000
        self._late_seed = _seed_of(opening.scenario.seed, f"room/{number}")
        self._seed = order.seed_of(self._late_seed)
        commitment = order.commitment_of(self._seed)
        closes_ms = opens_ms + _ROOM_OPEN_H * 3_600_000
        turn_ms = round(settings.turn_s * 1000)
        room_config = RoomConfig(
            office=supply.office_days[0].office,
            first_day=min(each.day for each in supply.office_days),
            last_day=max(each.day for each in supply.office_days),
            join_opens_at_ms=opens_ms - round(settings.join_before_s * 1000) if self._shuffled else opens_ms,
            opens_at_ms=opens_ms,
            closes_at_ms=closes_ms,
            forget_at_ms=closes_ms + 3_600_000 + turn_ms,
            commitment=commitment,
            key_id="sim",
            nonce=f"round-{number}",
            window_ms=round(settings.window_s * 1000) if self._shuffled else _FIRST_COME_WINDOW_MS,
            turn_ms=turn_ms,
            per_minute_max=settings.per_s * 60,
            burst=settings.per_s,
        )
        self._state = machine.RoomState()
        machine.apply(self._state, CreateRoom(room_config), supply.opening_ms + now_us // 1000)
        self._orders = order.RoomOrder(f"sim-{number}", commitment, "", self._seed, self._late_seed)
        self._is_open = True
        self._agent_of_ticket, self._joined_us = [], {}
        self._ordered_agents = []
        self._ordered = self._called = 0
        self._busy_us = self.opens_us
        self._admitted = bytearray(len(opening.people))

    def decide(self, index: int, now_us: int) -> int:
        if not self._is_open or self._admitted[index]:
            return ADMIT
        now_ms = self._opening.supply.opening_ms + now_us // 1000
        result = machine.apply(self._state, JoinRoom(f"p{index}"), now_ms)
        if result.status is RoomStatus.NOT_OPEN:
            return NOT_OPEN
        if result.status is not RoomStatus.JOINED:
            return SOLD_OUT
        if not result.replayed:
            self._agent_of_ticket.append(index)
            self._joined_us[index] = now_us
        return WAIT

    def _advance(self, now_us: int) -> int:
        """Call tickets at the operator's pace, and close the room when all places are gone."""
        opening, state, opening_ms = self._opening, self._state, self._opening.supply.opening_ms
        now_ms = opening_ms + now_us // 1000
        if not state.seed:
            machine.apply(state, OpenRoom(self._seed), now_ms)
        places_left, places_coming = opening.count_places()
        if state.called_count < state.tickets:
            self._busy_us = now_us
        is_quiet = now_us - self._busy_us >= _QUIET_US
        if places_left + places_coming == 0 or is_quiet or now_ms >= state.config.closes_at_ms - 1000:  # type: ignore[union-attr]
            self._close(now_ms, now_us)
            return -1
        pace = pacing.next_pace(machine.view_of(state, now_ms), places_left, _STORE_LATENCY_MS)
        machine.apply(state, CallTickets(pace.per_minute, pace.tickets_max, places_left), now_ms)
        self._append_ordered(now_ms)
        while self._called < min(state.called_count, len(self._ordered_agents)):
            index = self._ordered_agents[self._called]
            self._called += 1
            self._admitted[index] = 1
            poll_us = round(self._poll_phase() * self._settings.poll_s * 1e6)
            self.polls += self._count_polls(index, now_us)
            opening.wake(index, now_us + poll_us)
        # Without places the called count cannot grow, so the next look at the places can be later.
        return now_us + (1_000_000 if places_left else _PAUSE_US)

    def _append_ordered(self, now_ms: int) -> None:
        """Append the tickets of the windows that have ended since the last call."""
        state = self._state
        ordered = machine.tickets_ordered(state, now_ms)
        if ordered == self._ordered:
            return
        places = array("q", bytes(8 * ordered))
        for number in range(self._ordered, ordered):
            position = self._orders.position(state.windows, state.tickets, number) if self._shuffled else number + 1
            assert position is not None
            places[position - 1] = self._agent_of_ticket[number]
        self._ordered_agents.extend(places[self._ordered :])
        self._ordered = ordered

    def _close(self, now_ms: int, now_us: int) -> None:
        machine.apply(self._state, CloseRoom(self._late_seed), now_ms)
        self._is_open = False
        for index in self._agent_of_ticket:
            if not self._admitted[index]:
                self.polls += self._count_polls(index, now_us)
                self._opening.refuse(index, now_us + round(self._poll_phase() * self._settings.poll_s * 1e6))

    def _count_polls(self, index: int, now_us: int) -> int:
        """Return the polls of an agent's client. Clients poll from the opening on, because they know its moment."""
        since_us = max(self._joined_us[index], self.opens_us)
        return max(0, int((now_us - since_us) / (self._settings.poll_s * 1e6)))


class _DrawModel(_ImmediateModel):
    """``draw``: applications get a number on arrival, and wait for the next draw."""

    def __init__(self, opening: OpeningState) -> None:
        super().__init__(opening)
        self._settings = opening.scenario.population.draw
        self._rounds = opening.rounds
        self._round = 1
        self._application_of: dict[int, int] = {}

    def first_us(self, index: int, round_number: int, automatic: bool) -> int:
        # The published rules say that the moment of an application makes no difference, so people come at any time.
        collect_h = self._settings.collect_h
        if round_number > 1:
            collect_h = min(collect_h, self._opening.scenario.population.rounds.every_h / 2)
        before_us = (collect_h * 3600e6 - 60e6) * self._opening.people.arrival_fraction[index] + 30e6
        return self._opening.round_us(round_number) - round(before_us)

    def decide(self, index: int, now_us: int) -> int:
        if self._round > self._rounds:
            # After the last draw, the remaining places can be booked directly.
            return ADMIT
        self._application_of.setdefault(index, len(self._application_of) + 1)
        return WAIT

    def timed_actions(self) -> Sequence[tuple[int, TimedAction]]:
        return [(self._opening.round_us(number), self._draw) for number in range(1, self._rounds + 1)]

    def _draw(self, now_us: int) -> int:
        opening, people = self._opening, self._opening.people
        draw = f"draw-{self._round}"
        preferences = {
            f"{number}-{index}": lottery.Preference(office_day.office, office_day.day, choice)
            for number, office_day in enumerate(opening.supply.office_days)
            for index, choice in enumerate(opening.choices()[number])
        }
        applications = [
            lottery.Application(number, (f"p{index}",), (f"{people.office_day[index]}-{people.choice[index]}",))
            for index, number in self._application_of.items()
        ]
        key = lottery.key_of(draw, _seed_of(opening.scenario.seed, draw))
        lots = lottery.allot(lottery.Capacities(draw, opening.units_left(), preferences), key, applications)
        agent_of = {number: index for index, number in self._application_of.items()}
        self._application_of = {}
        self._round += 1
        for lot in lots:
            if lot.preference:
                opening.award(agent_of[lot.number], now_us, round(self._settings.confirm_within_h * 3_600_000))
            else:
                opening.refuse(agent_of[lot.number], now_us)
        return -1
