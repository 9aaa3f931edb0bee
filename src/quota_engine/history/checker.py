"""Checks a history: the calls that clients made, against the events of the ledgers and the model of the rules.

The event numbers order everything. The checker goes once through the history, in real time:

1. Each event follows from the state before it (:mod:`quota_engine.history.model`).
2. Each event that a command caused lies within a call of that command: not before the call began, and not after its
   caller had a final answer. A call causes at most one event.
3. Each answer was true at some moment of its call. A success has its event, or repeats an earlier one.

The work grows with the length of the history, times the calls that are in flight on one day at the same time.

Without events there is no such order: :mod:`quota_engine.history.linearizability` searches one for each office.
"""

from __future__ import annotations

__all__ = ["History", "Loss", "check"]

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from quota_engine.history.calls import (
    ENDED,
    FOREVER_MS,
    MAY_REPEAT,
    NAMES_OF_KIND,
    NAMES_OF_VERB,
    SUCCESSES,
    CallRecord,
)
from quota_engine.history.linearizability import find_disorder
from quota_engine.history.model import DayModel, OfficeModel, ReservationState, day_of

_JUDGED: Final = SUCCESSES | {
    *("NOT_FOUND", "HOLD_EXPIRED", "RESERVATION_ENDED", "DAY_CLOSED", "UNKNOWN_DAY", "NOT_OPEN", "SOLD_OUT")
}
"""Answers whose truth is checked."""
_CHANGES_OF_PARTY: Final = ("replace_applicant", "remove_applicant")
_ANSWERS_ABOUT_A_DAY: Final = frozenset({"SOLD_OUT", "DAY_CLOSED", "UNKNOWN_DAY", "NOT_OPEN", "DONE"})
"""Answers that another reservation's step may make true. All others depend on the call's own reservation."""
_ATTRIBUTED: Final = frozenset({*NAMES_OF_KIND.values(), *(one for names in NAMES_OF_VERB.values() for one in names)})


@dataclasses.dataclass(frozen=True)
class Loss:
    """A store lost the last events of an office, as a failover to a replica that lags does.

    Attributes:
        office: the office.
        number: the number of the last event that was kept.
        at_ms: the real time.
    """

    office: str
    number: int
    at_ms: int


@dataclasses.dataclass
class History:
    """A run.

    Attributes:
        calls: all calls.
        events: by office, its events in order, each with ``real_ms`` or else ``at_ms`` as its real time. After a loss
            the numbers begin again.
        losses: the losses, in order.
        days: by office and ordinal, the terms of days that were published before the first call. They are read for
            offices without events only.
        clock_is_real: True if the stores' clocks show the real time. Otherwise no answer is held against a deadline.
    """

    calls: list[CallRecord] = dataclasses.field(default_factory=list)
    events: dict[str, list[Mapping[str, Any]]] = dataclasses.field(default_factory=dict)
    losses: list[Loss] = dataclasses.field(default_factory=list)
    days: dict[str, dict[int, Mapping[str, Any]]] = dataclasses.field(default_factory=dict)
    clock_is_real: bool = True


def check(history: History) -> list[str]:
    """Return a sentence for each thing that should not have happened.

    An office without events is searched for an order of its calls.

    Raises:
        SearchTooLarge: Too many calls of an office without events were open at the same time.
    """
    found: list[str] = []
    lost = {loss.office for loss in history.losses}
    for office in sorted({*history.events, *(call.office for call in history.calls)}):
        if office in history.events or office in lost:
            found += _OfficeChecker(history, office).run()
        else:
            calls = [call for call in history.calls if call.office == office]
            found += find_disorder(calls, history.days.get(office, {}), clock_is_real=history.clock_is_real)
    return found


class _OfficeChecker:
    """The pass through one office's part of a history."""

    def __init__(self, history: History, office: str) -> None:
        self._office = office
        self._model = OfficeModel(office)
        self._events = history.events.get(office, [])
        self._clock_is_real = history.clock_is_real
        self._calls = sorted((one for one in history.calls if one.office == office), key=lambda one: one.began_at_ms)
        self._losses = [one for one in history.losses if one.office == office]
        self._open_by_id: dict[str, list[CallRecord]] = {}
        self._open: dict[int, CallRecord] = {}
        self._caused: dict[int, Mapping[str, Any]] = {}
        self._excused: set[int] = set()
        self._false: dict[int, CallRecord] = {}
        """Calls whose answer was true at no moment so far."""
        self._false_by_day: dict[int, dict[int, CallRecord]] = {}
        """Those of them that name the day."""
        self._awaiting_change: dict[int, Mapping[str, Any]] = {}
        """By call: the event that only a later change of the party or of the day reconciles with its answer."""
        self._kept: list[Mapping[str, Any]] = []

    def run(self) -> Iterator[str]:
        moments: list[tuple[int, int, int, Any]] = []
        for index, call in enumerate(self._calls):
            moments.append((call.began_at_ms, 1, index, call))
            moments.append((call.ended_at_ms, 4, index, call))
        last_ms = 0
        for index, event in enumerate(self._events):
            last_ms = max(last_ms, event.get("real_ms", event["at_ms"]))  # the order of the numbers decides
            moments.append((last_ms, 2, index, event))
        for index, loss in enumerate(self._losses):
            moments.append((loss.at_ms, 3, index, loss))
        moments.sort()
        for at_ms, kind, _, what in moments:
            if kind == 1:
                self._begin(what, at_ms)
            elif kind == 2:
                yield from self._apply(what, at_ms)
            elif kind == 3:
                self._lose(what)
            else:
                yield from self._end(what, at_ms)

    def _begin(self, call: CallRecord, at_ms: int) -> None:
        self._open[id(call)] = call
        known = self._open_by_id.get(call.id)
        if known is None:
            known = self._open_by_id[call.id] = []
        known.append(call)
        if call.status in _JUDGED and not self._is_true(call, at_ms):
            self._false[id(call)] = call
            self._false_by_day.setdefault(call.day, {})[id(call)] = call

    def _end(self, call: CallRecord, at_ms: int) -> Iterator[str]:
        del self._open[id(call)]
        self._open_by_id[call.id].remove(call)
        if id(call) in self._false:
            self._judge(call, at_ms)
            if self._strike(call) and id(call) not in self._excused:
                yield f"{call}: the answer was true at no moment of the call"
        unexplained = self._awaiting_change.pop(id(call), None)
        if unexplained is not None and id(call) not in self._excused:
            yield self._orphaned(unexplained)
        if call.must_act and id(call) not in self._caused and _leaves_event(call) and id(call) not in self._excused:
            yield f"{call}: it has changed nothing"

    def _apply(self, event: Mapping[str, Any], at_ms: int) -> Iterator[str]:
        key = _id_of(event["reservation"]) if "reservation" in event else ""
        day = day_of(event["reservation"]) if key else event.get("details", {}).get("day", 0)
        concerned: list[CallRecord] = []
        if self._false and (key or day):
            concerned = [one for one in self._open_by_id.get(key, ()) if id(one) in self._false]
            concerned += [
                one
                for one in self._false_by_day.get(day, {}).values()
                if not key or (one.status in _ANSWERS_ABOUT_A_DAY and one.id != key)
            ]
            if not key:
                concerned += self._false_by_day.get(0, {}).values()  # they name a reservation, perhaps of this day
        for call in concerned:
            self._judge(call, at_ms)  # the last moment of the state before
        self._kept.append(event)
        yield from self._model.apply(event)
        yield from self._attribute(event, key, day, at_ms)
        for call in concerned:
            self._judge(call, at_ms)

    def _lose(self, loss: Loss) -> None:
        """Go back to the state after the last event that was kept. Calls so far may have lost their effect."""
        self._model = OfficeModel(self._office)
        self._kept = [one for one in self._kept if one["number"] <= loss.number]
        for event in self._kept:
            for _ in self._model.apply(event):
                pass
        self._caused = {call: one for call, one in self._caused.items() if one["number"] <= loss.number}
        self._awaiting_change.clear()
        self._excused.update(self._open)

    def _attribute(self, event: Mapping[str, Any], key: str, day: int, at_ms: int) -> Iterator[str]:
        """Give an event to the call that has caused it."""
        # The answer to a call that is open when its event is lost is about the state without it.
        number = event["number"]
        losses_ms = (one.at_ms for one in self._losses if one.at_ms >= at_ms and number > one.number)
        lost_at_ms = next(losses_ms, FOREVER_MS + 1)
        if self._awaiting_change and (event["verb"] in _CHANGES_OF_PARTY if key else event["kind"] == "DayPublished"):
            self._awaiting_change = {
                call: one
                for call, one in self._awaiting_change.items()
                if (_id_of(one["reservation"]) != key if key else day_of(one["reservation"]) != day)
            }
        if key:
            names = NAMES_OF_VERB.get(event["verb"])
            candidates: Sequence[CallRecord] = self._open_by_id.get(key, ())
        else:
            name = NAMES_OF_KIND.get(event["kind"])
            names = (name,) if name else None
            candidates = self._open_by_id.get("", ())
        if names is None or not self._calls:
            return
        details = {} if key else event["details"]
        wanted = details.get("quota", ""), details.get("capacity", 0)
        fitting = [
            one
            for one in candidates
            if one.name in names
            and (one.may_act or one.may_act_before_a_change or one.ended_at_ms >= lost_at_ms)
            and (id(one) not in self._caused or one.name in MAY_REPEAT)
            and (not one.day or event.get("verb") not in ("reserve", "wait", "reschedule") or one.day == day)
            and (key or (one.day == day and (one.quota, one.capacity) == wanted))
        ]
        if fitting:
            # Of equal calls that need an event, the one that ends first gets it: a longer one may get a later event.
            cause = max(
                fitting, key=lambda one: (one.must_act and id(one) not in self._caused, one.may_act, -one.ended_at_ms)
            )
            self._caused[id(cause)] = event
            if not cause.may_act and cause.ended_at_ms < lost_at_ms:
                self._awaiting_change[id(cause)] = event
        else:
            yield self._orphaned(event)

    def _orphaned(self, event: Mapping[str, Any]) -> str:
        return f"{self._model.name_of(event)} follows from no call whose answer was still open"

    def _judge(self, call: CallRecord, now_ms: int) -> None:
        """Strike a call from the false ones if its answer is true now."""
        if id(call) in self._false and self._is_true(call, now_ms):
            self._strike(call)

    def _strike(self, call: CallRecord) -> bool:
        """Strike a call from the false ones; returns True if it was one of them."""
        if self._false.pop(id(call), None) is None:
            return False
        del self._false_by_day[call.day][id(call)]
        return True

    def _is_true(self, call: CallRecord, now_ms: int) -> bool:
        place = self._model.places.get(call.id)
        number = call.day or (place.day if place else 0)
        day = self._model.days.get(number)
        if not self._clock_is_real:
            now_ms = FOREVER_MS
        is_overdue = place is not None and place.state == "HELD" and place.deadline_at_ms <= now_ms
        match call.status:
            case "HELD" | "WAITING" | "CONFIRMED" | "ATTENDED" | "NO_SHOW" | "RELEASED" | "CANCELLED" | "MOVED":
                # A reserve of a known id may name another day than its reservation has.
                shown_day = self._model.days.get(place.day) if place else None
                if call.shown is not None and place is not None and call.id in self._model.corrected:
                    shown = call.shown._replace(deadline_at_ms=place.deadline_at_ms, undo_until_ms=place.undo_until_ms)
                    return _is_shown(shown, place, shown_day)
                return call.shown is None or not call.id or _is_shown(call.shown, place, shown_day)
            case "NOT_FOUND":
                return place is None or not self._clock_is_real
            case "HOLD_EXPIRED" if call.name != "move_in":
                return is_overdue or (place is not None and place.state == "EXPIRED")
            case "RESERVATION_ENDED":
                return is_overdue or (place is not None and place.state in ENDED)
            case "DAY_CLOSED":
                return day is not None and day.closed
            case "UNKNOWN_DAY":
                return day is None or not self._clock_is_real
            case "NOT_OPEN":
                return day is not None and (not self._clock_is_real or now_ms < day.terms["opens_at_ms"])
            case "SOLD_OUT":
                return day is None or not self._has_room(call, day, place, now_ms)
            case "DONE" if call.name == "set_capacity":
                return (
                    day is None
                    or not day.is_simple
                    or call.quota not in day.quotas
                    or day.quotas[call.quota].capacity == call.capacity
                )
            case "DONE" if call.name in ("close_day", "open_day"):
                return day is not None and day.closed == (call.name == "close_day")
        return True

    def _has_room(self, call: CallRecord, day: DayModel, place: ReservationState | None, now_ms: int) -> bool:
        """Return True if an option certainly has room: no party waits, and each quota has enough units."""
        if not day.is_simple or day.waiting or not call.options or not self._clock_is_real:
            return False
        own = set(place.quotas) if place is not None and place.uses_units and place.day == call.day else set()
        units = place.units if place is not None and call.name == "reschedule" else call.units
        return any(
            all(name in day.quotas and (name in own or day.free_at(name, now_ms) >= units) for name in option)
            for option in call.options
        )


def _is_shown(shown: ReservationState, place: ReservationState | None, day: DayModel | None) -> bool:
    """Return True if an answer shows this record. A publication may have renamed its quotas."""
    if shown == place or place is None or day is None or day.is_simple:
        return shown == place
    return shown._replace(quotas=()) == place._replace(quotas=())


def _id_of(record: Mapping[str, Any]) -> str:
    return str(record["reference"]).partition("~")[2]


def _leaves_event(call: CallRecord) -> bool:
    """Return True if a success of this call leaves an event of a kind that is attributed."""
    return call.name in _ATTRIBUTED
