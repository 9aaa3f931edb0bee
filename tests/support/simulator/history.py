"""Checks a history: the calls that clients made, against the events of the ledger and a plain model of the rules.

The events are the order of everything. The model replays them, and knows only what ``docs/rules.md`` says about holds,
capacities and closed days. It checks this:

1. Each event follows from the state before it.
2. Each event that a command caused lies within a call of that command: not before the call began, and not after its
   caller had a final answer. A call causes at most one.
3. Each answer is true at some moment of its call: a success has its event or repeats an earlier one, and the reason of
   a refusal held.
"""

from __future__ import annotations

__all__ = ["Call", "Name", "find_violations", "text_of"]

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Final, Literal

from quota_engine.domain.events import (
    CapacitySet,
    DayClosed,
    DayOpened,
    DayPublished,
    Event,
    ReservationChanged,
    RulesSet,
)
from quota_engine.domain.lifecycle import State, Verb
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import Outcome, Status

Name = Literal["reserve", "confirm", "reacquire", "release", "cancel", "reschedule", "set_capacity", "close", "open"]
_NAMES_OF_VERB: Final[dict[Verb, tuple[Name, ...]]] = {
    Verb.RESERVE: ("reserve",),
    Verb.CONFIRM: ("confirm", "reacquire"),
    Verb.REACQUIRE: ("reacquire",),
    Verb.RELEASE: ("release",),
    Verb.CANCEL: ("cancel",),
    Verb.RESCHEDULE: ("reschedule",),
}
_STATE_OF_VERB: Final = {
    Verb.RESERVE: State.HELD,
    Verb.CONFIRM: State.CONFIRMED,
    Verb.REACQUIRE: State.CONFIRMED,
    Verb.RELEASE: State.RELEASED,
    Verb.EXPIRE: State.EXPIRED,
    Verb.CANCEL: State.CANCELLED,
}
_FROM: Final[dict[Name, State]] = {
    "confirm": State.HELD,
    "reacquire": State.HELD,
    "release": State.HELD,
    "cancel": State.CONFIRMED,
}
"""The only state from which a step leads on."""


@dataclasses.dataclass
class Call:
    """A call of a client. Times are milliseconds by the server's clock.

    Attributes:
        name: the name of the command.
        key: the reservation; ``""`` if the call is for a day.
        day: the day that it names, or 0.
        capacity: the new capacity of ``set_capacity``.
        began_at_ms: the time of the call.
        ended_at_ms: the time after which nothing of it may take effect.
        answer: the outcome; ``None`` if nothing was done, according to the answer, ``"unknown"`` if something may have
            been done.
        event: the event that it caused.
    """

    name: Name
    key: str
    day: int
    capacity: int
    began_at_ms: int
    ended_at_ms: int = 0
    answer: Outcome | Literal["unknown"] | None = None
    event: Event | None = None

    def __str__(self) -> str:
        names = [self.key or self.name, *([f"day {self.day}"] if self.day else []), f"capacity {self.capacity}"]
        if self.key:
            names[-1] = self.name
        answer = self.answer
        text = (
            f"{answer.status}{' again' * answer.replayed}" if isinstance(answer, Outcome) else answer or "unavailable"
        )
        return f"{self.began_at_ms} to {self.ended_at_ms}: {', '.join(names)}: {text}"

    @property
    def may_act(self) -> bool:
        """True if the answer allows an effect, perhaps of an earlier attempt."""
        if isinstance(self.answer, Outcome):
            # A reserve that has taken effect may find, with its next attempt, that its hold has ended meanwhile.
            return self.answer.ok or self.answer.status in (Status.RESERVATION_ENDED, Status.HOLD_EXPIRED)
        return self.answer == "unknown"

    @property
    def must_act(self) -> bool:
        """True if the answer says that this call had an effect."""
        return isinstance(self.answer, Outcome) and self.answer.ok and not (self.answer.replayed or self.answer.resumed)


@dataclasses.dataclass
class _Hold:
    state: State
    day: int
    deadline_at_ms: int
    version: int


@dataclasses.dataclass
class _State:
    """The state from one event to the next."""

    from_ms: int = 0
    to_ms: int = 2**53
    capacity: dict[int, int] = dataclasses.field(default_factory=dict)
    closed: frozenset[int] = frozenset()
    holds: dict[str, _Hold] = dataclasses.field(default_factory=dict)

    def free(self, day: int, now_ms: int = 0) -> int:
        """Return the free units of a day. Holds that are overdue at ``now_ms`` count as free."""
        taken = [one for one in self.holds.values() if one.day == day]
        return self.capacity[day] - sum(
            one.state is State.CONFIRMED or (one.state is State.HELD and one.deadline_at_ms > now_ms) for one in taken
        )

    def sells(self, day: int) -> bool:
        return day not in self.closed and self.free(day) > 0

    def after(self, event: Event) -> _State:
        """Return the state after an event."""
        new = dataclasses.replace(self, from_ms=event.at_ms, capacity=dict(self.capacity), holds=dict(self.holds))
        match event:
            case DayPublished(_, day, terms):
                new.capacity[day] = terms.quotas[0].capacity
            case CapacitySet(_, day, _, capacity):
                new.capacity[day] = capacity
            case DayClosed(_, day):
                new.closed = self.closed | {day}
            case DayOpened(_, day):
                new.closed = self.closed - {day}
            case ReservationChanged(_, verb, record):
                old = self.holds.get(record.id)
                state = _STATE_OF_VERB.get(verb, old.state if old else State.HELD)
                version = old.version + 1 if old else 1
                new.holds[record.id] = _Hold(state, record.day, record.deadline_at_ms, version)
        return new

    def objection(self, event: ReservationChanged) -> str:
        """Return why a reservation cannot make a step in this state, or ``""``."""
        old, day, at_ms = self.holds.get(event.reservation.id), event.reservation.day, event.at_ms
        is_due = old is not None and old.deadline_at_ms <= at_ms
        state = old.state if old else None
        match event.verb:
            case Verb.RESERVE:
                follows = old is None and self.sells(day)
            case Verb.CONFIRM:
                follows = state is State.HELD and not is_due and day not in self.closed
            case Verb.REACQUIRE:
                follows = state is State.EXPIRED and self.sells(day)
            case Verb.RELEASE:
                follows = state is State.HELD and not is_due
            case Verb.EXPIRE:
                follows = state is State.HELD and is_due
            case Verb.CANCEL:
                follows = state is State.CONFIRMED
            case Verb.RESCHEDULE:
                follows = (
                    state in (State.HELD, State.CONFIRMED) and self.sells(day) and not (state is State.HELD and is_due)
                )
            case _:
                return f"nobody asked for {event.verb}"
        return "" if follows else f"{event.verb} of {event.reservation.id} at {at_ms} does not follow from the state"


def text_of(event: Event) -> str:
    """Return an event in a few words."""
    match event:
        case ReservationChanged(at_ms, verb, record):
            return f"{at_ms}: event {record.id}, day {record.day}, {verb}, version {record.version}"
        case CapacitySet(at_ms, day, _, capacity):
            return f"{at_ms}: event set_capacity, day {day}, capacity {capacity}"
        case DayClosed(at_ms, day) | DayOpened(at_ms, day) | DayPublished(at_ms, day):
            return f"{at_ms}: event {type(event).__name__}, day {day}"
    return f"{event.at_ms}: event {type(event).__name__}"


def find_violations(calls: Sequence[Call], events: Sequence[Event]) -> list[str]:
    """Return a sentence for each thing that should not have happened."""
    states = [_State()]
    found: list[str] = []
    for event in events:
        if isinstance(event, ReservationChanged):
            found += filter(None, [states[-1].objection(event)])
        elif not isinstance(event, RulesSet | DayPublished | CapacitySet | DayClosed | DayOpened):
            found.append(f"nobody asked for {text_of(event)}")
        found += _attribute(event, calls)
        states[-1].to_ms = event.at_ms
        states.append(states[-1].after(event))
        states[-1].to_ms = 2**53
        if isinstance(event, ReservationChanged):
            hold, record = states[-1].holds[event.reservation.id], event.reservation
            if (hold.state, hold.version) != (record.state, record.version):
                found.append(f"{text_of(event)} has another record than the model: {hold}")
    for call in calls:
        found += _judge_answer(call, states)
    return found


def _attribute(event: Event, calls: Sequence[Call]) -> Iterator[str]:
    """Give an event to the call that has caused it."""
    match event:
        case ReservationChanged(at_ms, verb, record) if verb in _NAMES_OF_VERB:
            day = record.day if verb in (Verb.RESERVE, Verb.RESCHEDULE) else 0
            candidates = [
                one
                for one in calls
                if one.name in _NAMES_OF_VERB[verb] and one.key == record.id and (not day or one.day == day)
            ]
        case CapacitySet(at_ms, day, _, capacity):
            candidates = [one for one in calls if (one.name, one.day, one.capacity) == ("set_capacity", day, capacity)]
        case DayClosed(at_ms, day):
            candidates = [one for one in calls if (one.name, one.day) == ("close", day)]
        case DayOpened(at_ms, day):
            candidates = [one for one in calls if (one.name, one.day) == ("open", day)]
        case _:
            return
    fitting = [
        one for one in candidates if one.began_at_ms <= at_ms <= one.ended_at_ms and one.may_act and one.event is None
    ]
    if fitting:
        max(fitting, key=lambda one: one.must_act).event = event
    else:
        yield f"{text_of(event)} follows from no call whose answer was still open"


def _judge_answer(call: Call, states: Sequence[_State]) -> Iterator[str]:
    if call.must_act and call.event is None:
        yield f"{call} has changed nothing"
    if not isinstance(call.answer, Outcome):
        return
    if (
        isinstance(call.event, ReservationChanged)
        and call.must_act
        and call.answer.reservation != call.event.reservation
    ):
        yield f"{call} shows another record than its event"
    if not any(_is_true(call, call.answer, one) for one in _during(call, states)):
        yield f"{call} has an answer that was true at no moment of the call"


def _during(call: Call, states: Sequence[_State]) -> Iterator[_State]:
    for one in states:
        if one.to_ms >= call.began_at_ms and one.from_ms <= call.ended_at_ms:
            yield one


def _is_true(call: Call, outcome: Outcome, state: _State) -> bool:
    """Return True if an answer is true in a state, at some moment of the call."""
    first_ms, last_ms = max(call.began_at_ms, state.from_ms), min(call.ended_at_ms, state.to_ms)
    hold = state.holds.get(call.key)
    record: Reservation | None = outcome.reservation
    has_expired = hold is not None and (
        hold.state is State.EXPIRED or (hold.state is State.HELD and hold.deadline_at_ms <= last_ms)
    )
    day = call.day or (hold.day if hold else 0)
    match outcome.status:
        case Status.DONE:
            return {
                "set_capacity": state.capacity.get(call.day) == call.capacity,
                "close": call.day in state.closed,
                "open": call.day not in state.closed,
            }[call.name]
        case Status.HELD | Status.CONFIRMED | Status.RELEASED | Status.CANCELLED:
            assert record is not None
            return hold is not None and (hold.state, hold.day, hold.version) == (
                record.state,
                record.day,
                record.version,
            )
        case Status.SOLD_OUT:
            return day not in state.closed and state.free(day, first_ms) < 1
        case Status.DAY_CLOSED:
            return day in state.closed
        case Status.HOLD_EXPIRED if call.name == "reacquire":
            return has_expired and (day in state.closed or state.free(day, first_ms) < 1)
        case Status.HOLD_EXPIRED:
            return has_expired
        case Status.RESERVATION_ENDED:
            return has_expired or (hold is not None and hold.state in (State.RELEASED, State.CANCELLED))
        case Status.NOT_FOUND:
            return hold is None
        case Status.WRONG_STATE:
            return hold is not None and hold.state is not _FROM[call.name]
    return False
