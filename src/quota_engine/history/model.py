"""A model of one office, written from ``docs/rules.md`` alone: it follows the events and objects to wrong ones.

It knows a reservation's life cycle, the counters of a quota, the times of a day, and queue numbers. It shares no code
with the domain, so an error of the state machine is not repeated here. Events have the form of the HTTP API: they
have ``number``, ``at_ms``, ``kind``, and ``verb`` with ``reservation``, or ``details``.
"""

from __future__ import annotations

__all__ = ["DayModel", "OfficeModel", "QuotaModel", "ReservationState"]

import dataclasses
import datetime
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

Event = Mapping[str, Any]

LIFE_CYCLE: Final[dict[str, tuple[tuple[str, ...], str]]] = {
    "reserve": (("",), "HELD"),
    "wait": (("",), "WAITING"),
    "move_in": (("",), "HELD"),
    "move_in_confirmed": (("",), "CONFIRMED"),
    "offer": (("WAITING",), "HELD"),
    "decline": (("HELD",), "WAITING"),
    "confirm": (("HELD",), "CONFIRMED"),
    "reacquire": (("EXPIRED",), "CONFIRMED"),
    "extend": (("HELD",), "HELD"),
    "remove_applicant": (("WAITING", "HELD", "CONFIRMED"), ""),
    "replace_applicant": (("WAITING", "HELD", "CONFIRMED"), ""),
    "release": (("HELD", "WAITING"), "RELEASED"),
    "expire": (("HELD",), "EXPIRED"),
    "cancel": (("CONFIRMED",), "CANCELLED"),
    "reschedule": (("HELD", "CONFIRMED"), ""),
    "check_in": (("CONFIRMED",), "ATTENDED"),
    "mark_no_show": (("CONFIRMED",), "NO_SHOW"),
    "undo_attendance": (("ATTENDED", "NO_SHOW"), "CONFIRMED"),
    "stay": (("CONFIRMED",), "CONFIRMED"),
    "move_out": (("HELD", "CONFIRMED"), "MOVED"),
    "undo_move": (("HELD", "CONFIRMED"), "RELEASED"),
}
"""By verb: the states from which the step leads on, and its target; ``""`` as a target means the same state."""

_TAKING: Final = frozenset({"reserve", "move_in", "move_in_confirmed", "offer", "reacquire", "reschedule"})
"""Steps that take units: no quota may have more units in use than its capacity after one of them."""
_CONFIRMING: Final = frozenset({"confirm", "reacquire", "move_in_confirmed"})
_ON_AN_OPEN_DAY: Final = frozenset(
    {"reserve", "wait", "move_in", "move_in_confirmed", "offer", "reacquire", "reschedule"}
)
_NOT_ON_A_CLOSED_DAY: Final = frozenset({"confirm", "extend", "decline", "mark_no_show", "replace_applicant"})
_BEFORE_THE_DEADLINE: Final = frozenset(
    {"confirm", "extend", "decline", "release", "reschedule", "remove_applicant", "replace_applicant"}
)
_IN_USE: Final = frozenset({"HELD", "CONFIRMED", "ATTENDED", "NO_SHOW"})


class ReservationState(NamedTuple):
    """A reservation after its last event.

    Attributes:
        id: its id at its office.
        day: the booked day, a date's ordinal.
        state: its state.
        version: its version.
        units: applicants of the party.
        quotas: the quotas of which it has units.
        deadline_at_ms: the end of its latest hold.
        queue_numbers: its queue numbers.
        undo_until_ms: when its check-in or no-show can no longer be undone; 0 in other states.
    """

    id: str
    day: int
    state: str
    version: int
    units: int
    quotas: tuple[str, ...]
    deadline_at_ms: int
    queue_numbers: tuple[int, ...]
    undo_until_ms: int = 0

    @property
    def uses_units(self) -> bool:
        """True if it counts as held or confirmed."""
        return self.state in _IN_USE


@dataclasses.dataclass(slots=True)
class QuotaModel:
    """A quota of a day, in units.

    Attributes:
        capacity: its capacity.
        used: units of reservations that are held or confirmed.
        cooling: returned units that are not free yet, the parked ones included.
        rule: its re-release rule.
    """

    capacity: int
    used: int = 0
    cooling: int = 0
    rule: str = "at_once"

    @property
    def free(self) -> int:
        """Free units; negative if the quota is overbooked."""
        return self.capacity - self.used - self.cooling

    def give_back(self, units: int) -> None:
        """Take units back: they reduce an overbooking first, and then follow the re-release rule."""
        overbooked = min(units, max(-self.free, 0))
        self.used -= units
        if self.rule in ("cooling", "next_draw"):
            self.cooling += units - overbooked


@dataclasses.dataclass(slots=True)
class DayModel:
    """A published day.

    Attributes:
        terms: its times and quotas, as they were published last.
        quotas: its quotas by name.
        closed: True if an operator has closed it.
        is_simple: False after a publication that renames quotas, or with guards: the counters are not checked then.
        last_queue_number: the last queue number that was assigned.
        held: holds by id with their deadlines.
        waiting: entries of the wait list.
    """

    terms: Mapping[str, Any]
    quotas: dict[str, QuotaModel]
    closed: bool = False
    is_simple: bool = True
    last_queue_number: int = 0
    held: dict[str, ReservationState] = dataclasses.field(default_factory=dict)
    waiting: set[str] = dataclasses.field(default_factory=set)

    def free_at(self, quota: str, now_ms: int) -> int:
        """Return the free units of a quota, those of overdue holds included."""
        overdue = sum(one.units for one in self.held.values() if quota in one.quotas and one.deadline_at_ms <= now_ms)
        return self.quotas[quota].free + overdue


class OfficeModel:
    """One office as its events leave it.

    Attributes:
        places: the reservations by id.
        days: the published days by ordinal.
        number: the number of the last event.
        at_ms: the time of the last event.
        corrected: ids of reservations whose times a correction of the ledger's time may have changed since their last
            event. Such an event does not show them.
    """

    def __init__(self, office: str) -> None:
        self.office = office
        self.corrected: set[str] = set()
        self.places: dict[str, ReservationState] = {}
        self.days: dict[int, DayModel] = {}
        self.number = 0
        self.at_ms = 0

    def apply(self, event: Event) -> Iterator[str]:
        """Follow an event, and yield a sentence for each thing that should not have happened."""
        at_ms, kind = event["at_ms"], event["kind"]
        if event["number"] != self.number + 1:
            yield f"{self.name_of(event)} follows event {self.number}"
        if at_ms < self.at_ms and kind != "TimeCorrected":
            yield f"{self.name_of(event)} is at {at_ms}, before {self.at_ms}"
        self.number, self.at_ms = event["number"], at_ms
        if kind == "ReservationChanged":
            yield from self._change(event, event["verb"], at_ms)
        else:
            yield from self._apply_to_day(event, kind, event["details"], at_ms)

    def name_of(self, event: Event) -> str:
        """Return an event in a few words."""
        verb = event.get("verb")
        what = f"{verb} of {_id_of(event['reservation'])}" if verb else event["kind"]
        return f"{self.office}: event {event['number']} ({what}) at {event['at_ms']}"

    # ------------------------------------------------------------------ reservations

    def _change(self, event: Event, verb: str, at_ms: int) -> Iterator[str]:
        name, record = self.name_of(event), event["reservation"]
        new = place_of(record)
        old = self.places.get(new.id)
        if old is not None and new.id in self.corrected:
            self.corrected.discard(new.id)
            old = old._replace(
                deadline_at_ms=min(new.deadline_at_ms, at_ms) if verb == "expire" else new.deadline_at_ms,
                undo_until_ms=max(old.undo_until_ms, at_ms + 1) if verb == "undo_attendance" else new.undo_until_ms,
            )
        state = old.state if old else ""
        sources, target = LIFE_CYCLE[verb]
        if state not in sources:
            yield f"{name}: there is no such step from {state or 'nothing'}"
        if new.state != (target or state):
            yield f"{name} leads to {new.state}"
        if new.version != (old.version if old else 0) + 1:
            yield f"{name} has version {new.version} after {old.version if old else 0}"
        yield from self._check_time(name, verb, old, new, at_ms)
        yield from self._check_party(name, verb, old, new)
        day = self.days.get(new.day)
        if day is None:
            yield f"{name} is for a day that is not published"
            self.places[new.id] = new
            return
        yield from self._check_queue_numbers(name, verb, old, new, day)
        self._count(old, new)
        self.places[new.id] = new
        if verb in _TAKING and day.is_simple:
            taken = set(new.quotas) - (set(old.quotas) if old and old.uses_units and old.day == new.day else set())
            for quota in sorted(taken):
                counter = day.quotas.get(quota)
                if counter is None:
                    yield f"{name} takes units of the unknown quota {quota}"
                elif counter.free < 0:
                    yield f"{name} oversells {quota} of day {new.day}: {counter}"

    def _check_time(
        self, name: str, verb: str, old: ReservationState | None, new: ReservationState, at_ms: int
    ) -> Iterator[str]:
        day = self.days.get(new.day)
        if old is not None and old.state == "HELD":
            is_overdue = old.deadline_at_ms <= at_ms
            if verb in _BEFORE_THE_DEADLINE and is_overdue:
                yield f"{name} comes after the deadline {old.deadline_at_ms}"
            if verb == "expire" and not is_overdue:
                yield f"{name} comes before the deadline {old.deadline_at_ms}"
        if verb == "undo_attendance" and old is not None and old.undo_until_ms <= at_ms:
            yield f"{name} comes after the undo window, which ended at {old.undo_until_ms}"
        if new.state == "HELD" and verb in ("reserve", "offer", "move_in", "extend") and new.deadline_at_ms <= at_ms:
            yield f"{name} has the deadline {new.deadline_at_ms}"
        keeps = verb in ("confirm", "reschedule", "replace_applicant", "remove_applicant")
        if keeps and old is not None and old.state == "HELD" and new.deadline_at_ms != old.deadline_at_ms:
            yield f"{name} changes the deadline from {old.deadline_at_ms} to {new.deadline_at_ms}"
        if day is None:
            return
        if verb in _ON_AN_OPEN_DAY | _NOT_ON_A_CLOSED_DAY and day.closed and verb != "reacquire":
            yield f"{name} is for a closed day"
        if verb in _ON_AN_OPEN_DAY:
            if day.closed and verb == "reacquire":
                yield f"{name} is for a closed day"
            if not day.terms["opens_at_ms"] <= at_ms < day.terms["ends_at_ms"]:
                yield f"{name} is outside the times of the day"
        if verb in ("confirm", "extend", "check_in") and at_ms >= day.terms["ends_at_ms"]:
            yield f"{name} is after the end of the day"
        if verb in ("check_in", "mark_no_show") and at_ms < day.terms["starts_at_ms"]:
            yield f"{name} is before the start of the day"

    def _check_party(self, name: str, verb: str, old: ReservationState | None, new: ReservationState) -> Iterator[str]:
        expected = None if old is None else old.units - (verb == "remove_applicant")
        if expected is not None and new.units != expected:
            yield f"{name} has {new.units} applicants, not {expected}"
        if new.units < 1:
            yield f"{name} has no applicant"
        if new.uses_units != bool(new.quotas) and new.state in (*_IN_USE, "WAITING"):
            yield f"{name} is {new.state} with the quotas {new.quotas}"

    def _check_queue_numbers(
        self, name: str, verb: str, old: ReservationState | None, new: ReservationState, day: DayModel
    ) -> Iterator[str]:
        assigns = verb in _CONFIRMING or (
            verb == "reschedule" and new.state == "CONFIRMED" and old is not None and old.day != new.day
        )
        if assigns:
            first = day.last_queue_number + 1
            if new.queue_numbers != tuple(range(first, first + new.units)):
                yield f"{name} has the queue numbers {new.queue_numbers} after {day.last_queue_number}"
            day.last_queue_number = max(day.last_queue_number, *new.queue_numbers, 0)
        elif old is not None and not set(new.queue_numbers) <= set(old.queue_numbers):
            yield f"{name} changes the queue numbers {old.queue_numbers} to {new.queue_numbers}"
        elif new.state == "CONFIRMED" and len(new.queue_numbers) != new.units:
            yield f"{name} has {len(new.queue_numbers)} queue numbers for {new.units} applicants"

    def _count(self, old: ReservationState | None, new: ReservationState) -> None:
        """Take the units of a step, and give those back that it no longer uses."""
        kept: frozenset[str] = frozenset()
        if old is not None:
            self._forget(old)
            if old.uses_units:
                same = old.day == new.day and new.uses_units and old.units >= new.units
                kept = frozenset(old.quotas) & frozenset(new.quotas) if same else frozenset()
                day = self.days.get(old.day)
                for quota in old.quotas if day else ():
                    counter = day.quotas.get(quota) if day else None
                    if counter is not None:
                        counter.give_back(old.units - (new.units if quota in kept else 0))
        if new.uses_units:
            day = self.days[new.day]
            for quota in new.quotas:
                if quota not in kept and quota in day.quotas:
                    day.quotas[quota].used += new.units
        day = self.days.get(new.day)
        if day is not None and new.state == "HELD":
            day.held[new.id] = new
        elif day is not None and new.state == "WAITING":
            day.waiting.add(new.id)

    def _forget(self, place: ReservationState) -> None:
        day = self.days.get(place.day)
        if day is not None:
            day.held.pop(place.id, None)
            day.waiting.discard(place.id)

    # ------------------------------------------------------------------ days

    def _apply_to_day(self, event: Event, kind: str, details: Mapping[str, Any], at_ms: int) -> Iterator[str]:
        if kind == "TimeCorrected":
            self.corrected.update(self.places)
        if kind in ("RulesSet", "TimeCorrected"):
            return
        number = details["day"]
        day = self.days.get(number)
        if kind == "DayPublished":
            self._publish(number, day, details["terms"])
            return
        if day is None:
            yield f"{self.name_of(event)} is for a day that is not published"
            return
        match kind:
            case "CapacitySet":
                day.quotas[details["quota"]].capacity = details["capacity"]
            case "DayClosed" | "DayOpened":
                if day.closed == (kind == "DayClosed"):
                    yield f"{self.name_of(event)} changes nothing"
                day.closed = kind == "DayClosed"
            case "DayForgotten":
                if at_ms < day.terms["forget_at_ms"]:
                    yield f"{self.name_of(event)} comes before {day.terms['forget_at_ms']}"
                del self.days[number]
                self.places = {one.id: one for one in self.places.values() if one.day != number}
            case "UnitsReallocated":
                source, target = day.quotas[details["from_quota"]], day.quotas[details["to_quota"]]
                if day.is_simple and not 0 < details["units"] <= source.free:
                    yield f"{self.name_of(event)} moves {details['units']} units of {source}"
                source.capacity -= details["units"]
                target.capacity += details["units"]
            case "Cooled" | "ParkedReleased":
                counter = day.quotas[details["quota"]]
                if day.is_simple and not 0 < details["units"] <= counter.cooling:
                    yield f"{self.name_of(event)} frees {details['units']} units of {counter}"
                if kind == "Cooled" and details["due_at_ms"] > at_ms:
                    yield f"{self.name_of(event)} comes before {details['due_at_ms']}"
                counter.cooling -= details["units"]

    def _publish(self, number: int, day: DayModel | None, terms: Mapping[str, Any]) -> None:
        quotas = {one["name"]: one for one in terms["quotas"]}
        has_guards = any(one.get("guard") for one in quotas.values())
        if day is None:
            counters = {
                name: QuotaModel(one["capacity"], rule=(one.get("re_release") or {}).get("rule", "at_once"))
                for name, one in quotas.items()
            }
            self.days[number] = DayModel(terms, counters, is_simple=not has_guards)
            return
        renamed = any(one.get("renamed_from") in day.quotas for one in quotas.values())
        day.is_simple = day.is_simple and not has_guards and not renamed
        day.terms = terms
        for name, one in quotas.items():
            counter = day.quotas.setdefault(name, QuotaModel(one["capacity"]))
            counter.rule = (one.get("re_release") or {}).get("rule", "at_once")
        for name in [name for name in day.quotas if name not in quotas]:
            del day.quotas[name]


def _id_of(record: Mapping[str, Any]) -> str:
    return str(record["reference"]).partition("~")[2]


def day_of(record: Mapping[str, Any]) -> int:
    """Return the ordinal of a reservation's day from its body in the HTTP API."""
    day: Any = record["day"]
    if isinstance(day, int):
        return day
    return (datetime.date.fromisoformat(day) if isinstance(day, str) else day).toordinal()


def place_of(record: Mapping[str, Any]) -> ReservationState:
    """Return a reservation from its body in the HTTP API."""
    numbers: Sequence[int] = record["queue_numbers"]
    return ReservationState(
        _id_of(record),
        day_of(record),
        str(record["state"]),
        record["version"],
        record["units"],
        tuple(record["quotas"]),
        record["deadline_at_ms"],
        tuple(numbers),
        record.get("undo_until_ms", 0),
    )
