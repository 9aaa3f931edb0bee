"""What stands in front of the reserve, by policy: each gate is one of the engine's own admission modules, at work.

A gate is asked for every request that reaches the servers, and says whether it may go on to the engine, is to come back
later, or waits. Whoever waits is woken by the gate. Moments are in microseconds from the opening of the run.
"""

from __future__ import annotations

__all__ = ["ADMIT", "EARLY", "OVER", "WAIT", "Control", "Gate", "World", "open_gate"]

import hashlib
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from quota_engine.admission import token_bucket
from quota_engine.domain.model import Choice
from quota_engine.draws import lottery
from quota_engine.simulation.people import People
from quota_engine.simulation.rng import SEED_PREFIX, stream
from quota_engine.simulation.scenario import Policy, Scenario
from quota_engine.simulation.supply import Market
from quota_engine.waiting_room import machine, order, pacing

ADMIT: Final = -1
"""Go on to the engine."""
WAIT: Final = -2
"""Wait to be woken."""
OVER: Final = -3
"""All is gone, and will be for long."""
EARLY: Final = -4
"""The gate opens at ``opens_us``."""

_STORE_LATENCY_MS: Final = 1
"""The store of a simulation is never slow."""
_SOLD_OUT_US: Final = 250_000
"""How long it is remembered that something was sold out."""
_PAUSE_US: Final = 5_000_000
_QUIET_US: Final = 600_000_000
"""A room in which nobody has waited for so long is not needed any more."""
_ROOM_OPEN_H: Final = 4
_FIRST_COME_WINDOW_MS: Final = 4_000
"""A first-come room has no use for windows; for one of four hours they do not get shorter."""

Control = Callable[[int], int]
"""Something that the servers do by themselves: told the time, it says when it is due again; negative: never."""


class World(Protocol):
    """What a gate can see of the run, and do to it."""

    @property
    def scenario(self) -> Scenario:
        """The scenario."""
        ...

    @property
    def market(self) -> Market:
        """What is on sale."""
        ...

    @property
    def people(self) -> People:
        """Everybody."""
        ...

    @property
    def rounds(self) -> int:
        """How many rounds there are: one, unless places are kept back for the next."""
        ...

    def round_us(self, number: int) -> int:
        """When the round of this number (from 1) is."""
        ...

    def places(self) -> tuple[int, int]:
        """Places that can be had now, and those that may come back before the next round: held, or cooling."""
        ...

    def units_left(self) -> Mapping[tuple[str, int], Mapping[str, int]]:
        """What is available of every quota, by office and day."""
        ...

    def choices(self) -> Sequence[Sequence[Choice]]:
        """The choice that a wish comes to, by office-day and wish."""
        ...

    def wake(self, index: int, at_us: int) -> None:
        """Let somebody who waits ask again, with a request that they send at this moment."""
        ...

    def refuse(self, index: int, at_us: int) -> None:
        """Tell somebody who waits that all is gone."""
        ...

    def award(self, index: int, at_us: int, hold_ttl_ms: int) -> None:
        """Hold a place for somebody who waits, in their absence."""
        ...


class Gate(Protocol):
    """A policy at work."""

    polls: int
    """Requests of those who wait. They are answered from one cached number, and are counted, not simulated."""
    opens_us: int
    """When it opens, for those who were ``EARLY``."""

    def first_us(self, index: int, round_number: int, automatic: bool) -> int:
        """When somebody who wants a place in this round sends the first request, by what everybody has been told.

        ``automatic``: a program does it, its own or a broker's.
        """
        ...

    def ask(self, index: int, now_us: int) -> int:
        """``ADMIT``, ``WAIT``, ``OVER``, ``EARLY``, or the microseconds after which to come back."""
        ...

    def sold_out(self, index: int, now_us: int) -> None:
        """The engine has told somebody that it has no place for them."""
        ...

    def controls(self) -> Sequence[tuple[int, Control]]:
        """What the gate has to do at certain moments."""
        ...


def open_gate(world: World) -> Gate:
    """The gate of the scenario's policy."""
    policy = world.scenario.policy
    if policy is Policy.DRAW:
        return _DrawGate(world)
    if policy in (Policy.FIFO, Policy.SHUFFLE):
        return _RoomGate(world, shuffled=policy is Policy.SHUFFLE)
    return _BucketGate(world) if policy is Policy.BUCKET else _OpenGate(world)


def _seed_of(seed: int, purpose: str) -> str:
    return hashlib.sha256(f"{SEED_PREFIX}/{seed}/{purpose}".encode()).hexdigest()


class _OpenGate:
    """``immediate``: everybody goes on."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.polls = self.opens_us = 0

    def first_us(self, index: int, round_number: int, automatic: bool) -> int:
        """As the arrival model has it: it is the first second that counts."""
        people = self._world.people
        press_us = people.press_us[index]
        if round_number == 1:
            return press_us
        if press_us < 0:
            # The opening before has shown everybody who was early what the moment is.
            press_us = round(people.door[index] * (20_000 if automatic else 1_000_000))
        return press_us + self._world.round_us(round_number)

    def ask(self, index: int, now_us: int) -> int:
        return ADMIT

    def sold_out(self, index: int, now_us: int) -> None:
        pass

    def controls(self) -> Sequence[tuple[int, Control]]:
        return ()


class _BucketGate(_OpenGate):
    """``bucket``: one bucket for all, one an identity, one an address; a refusal takes from none.

    Before it stands a memory of what is sold out, as in front of a store: or everybody would queue for nothing.
    """

    def __init__(self, world: World) -> None:
        super().__init__(world)
        settings = world.scenario.society.bucket
        self._opening_ms = world.market.opening_ms
        self._buckets = token_bucket.Buckets()
        self._all = token_bucket.Charge(
            "all", token_bucket.per_second(settings.requests_per_s, settings.requests_burst)
        )
        self._by_address = token_bucket.per_second(settings.address_per_s, settings.address_burst)
        self._by_identity = token_bucket.Limit(1, settings.identity_every_s * 1000, settings.identity_burst)
        self._sold_out_us: dict[tuple[int, int], int] = {}

    def sold_out(self, index: int, now_us: int) -> None:
        people = self._world.people
        self._sold_out_us[people.office_day[index], people.wish[index]] = now_us

    def ask(self, index: int, now_us: int) -> int:
        people = self._world.people
        known_us = self._sold_out_us.get((people.office_day[index], people.wish[index]))
        if known_us is not None and now_us - known_us < _SOLD_OUT_US:
            return OVER
        charges = (
            token_bucket.Charge(f"identity-{index}", self._by_identity),
            token_bucket.Charge(f"address-{people.address[index]}", self._by_address),
            self._all,
        )
        now_ms = self._opening_ms + now_us // 1000
        taking = self._buckets.take(charges, now_ms)
        return ADMIT if taking.taken else max(0, taking.retry_at_ms - now_ms) * 1000


class _RoomGate(_OpenGate):
    """``fifo`` and ``shuffle``: a waiting room a round. Without the permutation a position is the index of arrival."""

    def __init__(self, world: World, *, shuffled: bool) -> None:
        super().__init__(world)
        self._shuffled = shuffled
        self._settings = world.scenario.society.room
        seed = world.scenario.seed
        unaware = stream(seed, "room/unaware").random
        self._unaware = bytearray(unaware() < self._settings.unaware_share for _ in range(world.people.people))
        self._phase = stream(seed, "room/poll").random
        self._state = machine.RoomState()
        self._orders = order.RoomOrder("", "", "", "", "")
        self._is_open = False
        self._admitted = bytearray(len(world.people))
        self._index_of: dict[int, int] = {}
        self._person_at: list[int] = []
        self._joined_us: dict[int, int] = {}
        self._queue: list[int] = []
        self._ordered = self._called = self._busy_us = 0
        self._seed = self._late_seed = ""

    def first_us(self, index: int, round_number: int, automatic: bool) -> int:
        people = self._world.people
        knows = index >= len(self._unaware) or automatic or not self._unaware[index]
        if not self._shuffled or not people.aims[index] or not knows:
            return super().first_us(index, round_number, automatic)
        # Who comes when makes no difference, and that has been told.
        before_us = self._settings.join_before_s * 1e6 * people.door[index]
        return self._world.round_us(round_number) - round(before_us)

    def controls(self) -> Sequence[tuple[int, Control]]:
        rounds = self._world.rounds
        before_us = round(self._settings.join_before_s * 1e6)
        made = [
            (self._world.round_us(number) - before_us - 1_000_000, self._maker(number))
            for number in range(1, rounds + 1)
        ]
        return [*made, *((self._world.round_us(number), self._serve) for number in range(1, rounds + 1))]

    def _maker(self, number: int) -> Control:
        def make(now_us: int) -> int:
            self._make(number, now_us)
            return -1

        return make

    def _make(self, number: int, now_us: int) -> None:
        world, settings = self._world, self._settings
        market = world.market
        self.opens_us = world.round_us(number)
        opens_ms = market.opening_ms + self.opens_us // 1000
        self._late_seed = _seed_of(world.scenario.seed, f"room/{number}")
        self._seed = order.seed_of(self._late_seed)
        commitment = order.commitment_of(self._seed)
        closes_ms = opens_ms + _ROOM_OPEN_H * 3_600_000
        claim_ms = round(settings.claim_s * 1000)
        terms = machine.RoomConfig(
            office=market.office_days[0].office,
            first_day=min(each.day for each in market.office_days),
            last_day=max(each.day for each in market.office_days),
            join_opens_at_ms=opens_ms - round(settings.join_before_s * 1000) if self._shuffled else opens_ms,
            opens_at_ms=opens_ms,
            closes_at_ms=closes_ms,
            forget_at_ms=closes_ms + 3_600_000 + claim_ms,
            commitment=commitment,
            key_id="sim",
            nonce=f"round-{number}",
            window_ms=round(settings.window_s * 1000) if self._shuffled else _FIRST_COME_WINDOW_MS,
            turn_ms=claim_ms,
            per_minute_max=settings.per_s * 60,
            burst=settings.per_s,
        )
        self._state = machine.RoomState()
        machine.apply(self._state, machine.CreateRoom(terms), market.opening_ms + now_us // 1000)
        self._orders = order.RoomOrder(f"sim-{number}", commitment, "", self._seed, self._late_seed)
        self._is_open = True
        self._index_of, self._person_at, self._joined_us = {}, [], {}
        self._queue = []
        self._ordered = self._called = 0
        self._busy_us = self.opens_us
        self._admitted = bytearray(len(world.people))

    def ask(self, index: int, now_us: int) -> int:
        if not self._is_open or self._admitted[index]:
            return ADMIT
        now_ms = self._world.market.opening_ms + now_us // 1000
        answer = machine.apply(self._state, machine.JoinRoom(f"p{index}"), now_ms)
        if answer.status is machine.RoomStatus.NOT_OPEN:
            return EARLY
        if answer.status is not machine.RoomStatus.JOINED:
            return OVER
        if not answer.replayed:
            self._person_at.append(index)
            self._joined_us[index] = now_us
        return WAIT

    def _serve(self, now_us: int) -> int:
        """A step of the operator's: move the mark, call whoever it passes, and close the room when all is gone."""
        world, state, opening_ms = self._world, self._state, self._world.market.opening_ms
        now_ms = opening_ms + now_us // 1000
        if not state.seed:
            machine.apply(state, machine.OpenRoom(self._seed), now_ms)
        left, coming = world.places()
        if state.called_count < state.tickets:
            self._busy_us = now_us
        is_quiet = now_us - self._busy_us >= _QUIET_US
        if left + coming == 0 or is_quiet or now_ms >= state.config.closes_at_ms - 1000:  # type: ignore[union-attr]
            self._close(now_ms, now_us)
            return -1
        pace = pacing.next_pace(machine.view_of(state, now_ms), left, _STORE_LATENCY_MS)
        machine.apply(state, machine.CallTickets(pace.per_minute, pace.tickets_max, left), now_ms)
        self._put_in_order(now_ms)
        while self._called < min(state.called_count, len(self._queue)):
            index = self._queue[self._called]
            self._called += 1
            self._admitted[index] = 1
            poll_us = round(self._phase() * self._settings.poll_s * 1e6)
            self.polls += self._polls(index, now_us)
            world.wake(index, now_us + poll_us)
        # As long as nothing is left the mark cannot move: what comes back is seen a little later.
        return now_us + (1_000_000 if left else _PAUSE_US)

    def _put_in_order(self, now_ms: int) -> None:
        """Append the windows that have ended since to the order."""
        state = self._state
        ordered = machine.tickets_ordered(state, now_ms)
        if ordered == self._ordered:
            return
        places = array("q", bytes(8 * ordered))
        for number in range(self._ordered, ordered):
            position = self._orders.position(state.windows, state.tickets, number) if self._shuffled else number
            assert position is not None
            places[position] = self._person_at[number]
        self._queue.extend(places[self._ordered :])
        self._ordered = ordered

    def _close(self, now_ms: int, now_us: int) -> None:
        machine.apply(self._state, machine.CloseRoom(self._late_seed), now_ms)
        self._is_open = False
        for index in self._person_at:
            if not self._admitted[index]:
                self.polls += self._polls(index, now_us)
                self._world.refuse(index, now_us + round(self._phase() * self._settings.poll_s * 1e6))

    def _polls(self, index: int, now_us: int) -> int:
        """Nobody has to ask before the room opens: it has been told when it does."""
        since_us = max(self._joined_us[index], self.opens_us)
        return max(0, int((now_us - since_us) / (self._settings.poll_s * 1e6)))


class _DrawGate(_OpenGate):
    """``draw``: applications are numbered as they come, and wait for the next draw."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._settings = world.scenario.society.drawing
        self._rounds = world.rounds
        self._round = 1
        self._applied: dict[int, int] = {}
        self._has = bytearray(len(world.people))

    def first_us(self, index: int, round_number: int, automatic: bool) -> int:
        # When somebody applies makes no difference, and that has been told: they come when it suits them.
        collect_h = self._settings.collect_h
        if round_number > 1:
            collect_h = min(collect_h, self._world.scenario.society.rounds.every_h / 2)
        before_us = (collect_h * 3600e6 - 60e6) * self._world.people.door[index] + 30e6
        return self._world.round_us(round_number) - round(before_us)

    def ask(self, index: int, now_us: int) -> int:
        if self._round > self._rounds:
            # After the last draw the office has nothing more to draw: what is left can be booked.
            return ADMIT
        self._applied.setdefault(index, len(self._applied) + 1)
        return WAIT

    def controls(self) -> Sequence[tuple[int, Control]]:
        return [(self._world.round_us(number), self._draw) for number in range(1, self._rounds + 1)]

    def _draw(self, now_us: int) -> int:
        world, people = self._world, self._world.people
        name = f"draw-{self._round}"
        choices, office_days = world.choices(), world.market.office_days
        days = world.units_left()
        wishes = {
            f"{office_day}-{wish}": lottery.Preference(
                office_days[office_day].office, office_days[office_day].day, choice
            )
            for office_day, of_day in enumerate(choices)
            for wish, choice in enumerate(of_day)
        }
        applications = [
            lottery.Application(number, (f"p{index}",), (f"{people.office_day[index]}-{people.wish[index]}",))
            for index, number in self._applied.items()
        ]
        key = lottery.key_of(name, _seed_of(world.scenario.seed, name))
        lots = lottery.allot(lottery.Capacities(name, days, wishes), key, applications)
        person_of = {number: index for index, number in self._applied.items()}
        self._applied = {}
        self._round += 1
        for lot in lots:
            if lot.preference:
                world.award(person_of[lot.number], now_us, round(self._settings.claim_h * 3_600_000))
            else:
                world.refuse(person_of[lot.number], now_us)
        return -1
