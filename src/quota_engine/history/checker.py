"""Checks a history: the calls that clients made, against the events of the ledgers and the model of the rules.

The event numbers order everything. The checker goes once through the history, in real time:

1. Each event follows from the state before it (:mod:`quota_engine.history.model`).
2. Each event that a command caused lies within a call of that command: not before the call began, and not after its
   caller had a final answer. A call causes at most one event.
3. Each answer was true at some moment of its call. A success has its event, or repeats an earlier one.

The work grows with the length of the history, times the calls that are in flight on one day at the same time.
"""

from __future__ import annotations

__all__ = ["CallRecord", "History", "Loss", "check"]

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from quota_engine.history.model import DayModel, OfficeModel, ReservationState, day_of, place_of

NAMES_OF_VERB: Final[dict[str, tuple[str, ...]]] = {
    "reserve": ("reserve",),
    "wait": ("reserve",),
    "confirm": ("confirm",),
    "reacquire": ("confirm",),
    "extend": ("extend",),
    "decline": ("decline",),
    "release": ("release",),
    "cancel": ("cancel",),
    "reschedule": ("reschedule",),
    "check_in": ("check_in",),
    "mark_no_show": ("mark_no_show",),
    "undo_attendance": ("undo_attendance",),
    "remove_applicant": ("remove_applicant",),
    "replace_applicant": ("replace_applicant",),
    "stay": ("stay",),
    "move_in": ("move_in",),
    "move_in_confirmed": ("move_in",),
    "move_out": ("move_out",),
    "undo_move": ("undo_move",),
}
"""By verb: the calls that can cause it. Time and the wait list cause all other events."""
NAMES_OF_KIND: Final = {"CapacitySet": "set_capacity", "DayClosed": "close_day", "DayOpened": "open_day"}
SUCCESSES: Final = frozenset(
    {"HELD", "WAITING", "CONFIRMED", "ATTENDED", "NO_SHOW", "RELEASED", "CANCELLED", "MOVED", "DONE"}
)
_REPLAYED_FOREVER: Final = frozenset({"reserve", "confirm", "release", "cancel", "extend"})
"""Calls whose effect nothing undoes but a later step, so that most refusals prove that no attempt took effect."""
_ATTENDANCE: Final = frozenset({"check_in", "mark_no_show", "undo_attendance"})
_MAY_REPEAT: Final = _ATTENDANCE | {"decline", "stay", "reschedule", "replace_applicant", *NAMES_OF_KIND.values()}
"""Calls that may take effect once with each attempt, if other calls undo the effect in between."""
_ENDED: Final = ("RELEASED", "EXPIRED", "CANCELLED", "MOVED")
_FOREVER_MS: Final = 2**53


@dataclasses.dataclass(eq=False)
class CallRecord:
    """A call of a client. Times are milliseconds of the history's real time.

    Attributes:
        name: the command, as in :data:`NAMES_OF_VERB` or :data:`NAMES_OF_KIND`.
        office: the office.
        id: the reservation's id; ``""`` for a call on a day.
        day: the ordinal of the day that it names, or 0.
        quota, capacity: the quota and the new capacity of ``set_capacity``.
        options: the quotas of each alternative of a reserve or reschedule.
        units: applicants of a reserve.
        began_at_ms: the time of the call.
        ended_at_ms: the time after which nothing of it may take effect.
        status: the status of the answer; ``""`` without one.
        is_unknown: True if there is no answer and the call may have taken effect.
        repeats: True if the answer says that an earlier call had the effect.
        shown: the record that the answer shows, if any.
    """

    name: str
    office: str
    id: str = ""
    day: int = 0
    quota: str = ""
    capacity: int = 0
    options: tuple[tuple[str, ...], ...] = ()
    units: int = 1
    began_at_ms: int = 0
    ended_at_ms: int = _FOREVER_MS
    status: str = ""
    is_unknown: bool = False
    repeats: bool = False
    shown: ReservationState | None = None

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> CallRecord:
        """Return a call from a line of a history file."""
        fields = {**line, "options": tuple(map(tuple, line.get("options", ())))}
        if fields.get("shown"):
            fields["shown"] = place_of(fields["shown"])
        return cls(**fields)

    def __str__(self) -> str:
        answer = self.status + " again" * self.repeats if self.status else "unknown" if self.is_unknown else "no effect"
        what = self.id or f"day {self.day}"
        return f"{self.began_at_ms} to {self.ended_at_ms}: {self.office}: {self.name} {what}: {answer}"

    @property
    def may_act(self) -> bool:
        """True if the answer allows an effect, perhaps of an earlier attempt."""
        if not self.status:
            return self.is_unknown
        # A call that has taken effect may find, with its next attempt, that other calls have changed more since.
        return (
            self.status in SUCCESSES
            or self.status in ("RESERVATION_ENDED", "HOLD_EXPIRED", "WRONG_STATE", "STALE")
            or self.name not in _REPLAYED_FOREVER
        )

    @property
    def must_act(self) -> bool:
        """True if the answer says that this call had an effect."""
        return self.status in SUCCESSES and not self.repeats


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
        clock_is_real: True if the stores' clocks show the real time. Otherwise no answer is held against a deadline.
    """

    calls: list[CallRecord] = dataclasses.field(default_factory=list)
    events: dict[str, list[Mapping[str, Any]]] = dataclasses.field(default_factory=dict)
    losses: list[Loss] = dataclasses.field(default_factory=list)
    clock_is_real: bool = True


def check(history: History) -> list[str]:
    """Return a sentence for each thing that should not have happened."""
    found: list[str] = []
    for office in sorted({*history.events, *(call.office for call in history.calls)}):
        found += _OfficeChecker(history, office).run()
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
        self._open_by_day: dict[int, list[CallRecord]] = {}
        self._open: dict[int, CallRecord] = {}
        self._caused: dict[int, Mapping[str, Any]] = {}
        self._excused: set[int] = set()
        self._false: dict[int, CallRecord] = {}
        """Calls whose answer was true at no moment so far."""
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
        moments.sort(key=lambda one: one[:3])
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
        self._open_by_id.setdefault(call.id, []).append(call)
        if call.status:
            self._false[id(call)] = call
            self._open_by_day.setdefault(call.day, []).append(call)
            self._judge(call, at_ms)

    def _end(self, call: CallRecord, at_ms: int) -> Iterator[str]:
        del self._open[id(call)]
        self._open_by_id[call.id].remove(call)
        if call.status:
            self._judge(call, at_ms)
            self._open_by_day[call.day].remove(call)
        if self._false.pop(id(call), None) is not None and id(call) not in self._excused:
            yield f"{call}: the answer was true at no moment of the call"
        if call.must_act and id(call) not in self._caused and _leaves_event(call) and id(call) not in self._excused:
            yield f"{call}: it has changed nothing"

    def _apply(self, event: Mapping[str, Any], at_ms: int) -> Iterator[str]:
        key = event["reservation"]["reference"].partition("~")[2] if "reservation" in event else ""
        day = day_of(event["reservation"]) if key else event.get("details", {}).get("day", 0)
        concerned = [*self._open_by_id.get(key, ()), *self._open_by_day.get(day, ())] if key or day else []
        for call in concerned:
            self._judge(call, at_ms)  # the last moment of the state before
        self._kept.append(event)
        yield from self._model.apply(event)
        yield from self._attribute(event, key, day)
        for call in concerned:
            self._judge(call, at_ms)

    def _lose(self, loss: Loss) -> None:
        """Go back to the state after the last event that was kept. Calls so far may have lost their effect."""
        self._model = OfficeModel(self._office)
        self._kept = [one for one in self._kept if one["number"] <= loss.number]
        for event in self._kept:
            for _ in self._model.apply(event):
                pass
        self._excused.update(self._open)

    def _attribute(self, event: Mapping[str, Any], key: str, day: int) -> Iterator[str]:
        """Give an event to the call that has caused it."""
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
            and one.may_act
            and (id(one) not in self._caused or one.name in _MAY_REPEAT)
            and (not one.day or event.get("verb") not in ("reserve", "wait", "reschedule") or one.day == day)
            and (key or (one.day == day and (one.quota, one.capacity) == wanted))
        ]
        if fitting:
            # Of equal calls that need an event, the one that ends first gets it: a longer one may get a later event.
            cause = max(fitting, key=lambda one: (one.must_act and id(one) not in self._caused, -one.ended_at_ms))
            self._caused[id(cause)] = event
        else:
            yield f"{self._model.name_of(event)} follows from no call whose answer was still open"

    def _judge(self, call: CallRecord, now_ms: int) -> None:
        """Strike a call from the false ones if its answer is true now."""
        if id(call) in self._false and self._is_true(call, now_ms):
            del self._false[id(call)]

    def _is_true(self, call: CallRecord, now_ms: int) -> bool:
        place = self._model.places.get(call.id)
        number = call.day or (place.day if place else 0)
        day = self._model.days.get(number)
        if not self._clock_is_real:
            now_ms = _FOREVER_MS
        is_overdue = place is not None and place.state == "HELD" and place.deadline_at_ms <= now_ms
        match call.status:
            case "HELD" | "WAITING" | "CONFIRMED" | "ATTENDED" | "NO_SHOW" | "RELEASED" | "CANCELLED" | "MOVED":
                return call.shown is None or not call.id or _is_shown(call.shown, place, day)
            case "NOT_FOUND":
                return place is None or not self._clock_is_real
            case "HOLD_EXPIRED" if call.name != "move_in":
                return is_overdue or (place is not None and place.state == "EXPIRED")
            case "RESERVATION_ENDED":
                return is_overdue or (place is not None and place.state in _ENDED)
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
    return dataclasses.replace(shown, quotas=()) == dataclasses.replace(place, quotas=())


def _leaves_event(call: CallRecord) -> bool:
    """Return True if a success of this call leaves an event of a kind that is attributed."""
    return call.name in NAMES_OF_KIND.values() or any(call.name in names for names in NAMES_OF_VERB.values())
