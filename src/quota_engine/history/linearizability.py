"""Searches an order of calls that explains their answers, for a history without events.

Events have numbers, which order everything, so :mod:`quota_engine.history.checker` needs no search. A history of calls
alone has no such order. It is right if it is *linearizable* (Herlihy and Wing 1990): some order of the calls respects
real time and explains each answer.

The search is that of Wing and Gong ("Testing and verifying concurrent objects", 1993). It takes the calls one after the
other. A call can be next if no call that is left ended before it began. The search never visits the same set of calls
with the same state twice, as Lowe proposes ("Testing for linearizability", 2017). It divides the calls into parts that
share no reservation and no described day, and searches them one by one. Horn and Kroening describe this ("Faster
linearizability checking via P-compositionality", 2015).

The state follows ``docs/rules.md``, like :mod:`quota_engine.history.model`. Time is a part of it: a hold has ended if
its deadline lies before the moment at which a call is taken. A call without an answer may have had its effect or not.
A store's client repeats an attempt whose reply was lost, so a call may also have had its effect before its answer.

The search is exponential in the number of calls that are open at the same time and change something. It stops with
:class:`SearchTooLarge` after :data:`STATES_MAX` states.
"""

from __future__ import annotations

__all__ = ["STATES_MAX", "SearchTooLarge", "find_disorder"]

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from quota_engine.history.calls import ENDED, FOREVER_MS, MAY_REPEAT, NAMES_OF_KIND, NAMES_OF_VERB, CallRecord
from quota_engine.history.model import LIFE_CYCLE, ReservationState

STATES_MAX: Final = 200_000
"""The most pairs of a set of calls and a state that the search visits for a part of an office."""
_REPETITIONS_MAX: Final = 3
"""The most effects of one call before its answer, if other calls undo them in between."""
_SHOWN_MAX: Final = 3
"""The most calls that a finding names."""
_VERBS_OF_NAME: Final = {
    name: tuple(verb for verb, names in NAMES_OF_VERB.items() if name in names)
    for name in sorted({name for names in NAMES_OF_VERB.values() for name in names})
}
_IN_USE: Final = frozenset({"HELD", "CONFIRMED", "ATTENDED", "NO_SHOW"})
_STARTING: Final = frozenset({"reserve", "wait", "move_in", "move_in_confirmed"})
_TAKING: Final = frozenset({"reserve", "move_in", "move_in_confirmed", "reacquire", "reschedule"})
_NUMBERING: Final = frozenset({"confirm", "reacquire", "move_in_confirmed"})
_ON_AN_OPEN_DAY: Final = frozenset({"reserve", "wait", "move_in", "move_in_confirmed", "reacquire", "reschedule"})
_NOT_ON_A_CLOSED_DAY: Final = _ON_AN_OPEN_DAY | {"confirm", "extend", "decline", "mark_no_show", "replace_applicant"}
_CHANGES_DEADLINE: Final = frozenset({"reserve", "move_in", "extend", "decline", "undo_attendance"})


class SearchTooLarge(Exception):
    """Too many calls of an office are open at the same time for a search of their order."""


class _Record(NamedTuple):
    """A reservation; a field is ``None`` if no answer has shown it."""

    state: str
    day: int
    version: int
    units: int
    quotas: tuple[str, ...] | None
    deadline_at_ms: int | None
    queue_numbers: tuple[int, ...] | None


class _Day(NamedTuple):
    """The present state of a described day."""

    closed: bool
    capacities: tuple[tuple[str, int], ...]
    last_queue_number: int


class _State(NamedTuple):
    """An office, or a part of it, at a moment."""

    now_ms: int
    records: tuple[tuple[str, _Record], ...]
    days: tuple[tuple[int, _Day], ...]


def find_disorder(
    calls: Sequence[CallRecord], days: Mapping[int, Mapping[str, Any]], *, clock_is_real: bool = True
) -> Iterator[str]:
    """Yield a sentence for each part of an office whose answers no order of its calls explains.

    Args:
        calls: all calls of the office.
        days: the terms of days by ordinal, as a ``DayPublished`` event has them. They were published before the first
            call, and only the calls have changed them. Of a day that is not described, no capacity is known.
        clock_is_real: False if the store's clock was set; no answer is held against a time then.

    Raises:
        SearchTooLarge: The search would visit more than :data:`STATES_MAX` states.
    """
    able = [one for one in calls if one.status or one.is_unknown]
    for part in _parts_of(able, days):
        yield from _Search(part, days, clock_is_real=clock_is_real).run()


def _parts_of(calls: Sequence[CallRecord], days: Mapping[int, Any]) -> Iterator[list[CallRecord]]:
    """Divide calls into parts that share no reservation and no described day."""
    parents: dict[Any, Any] = {}

    def root_of(key: Any) -> Any:
        parents.setdefault(key, key)
        while parents[key] != key:
            parents[key] = key = parents[parents[key]]
        return key

    for call in calls:
        shown_day = call.shown.day if call.shown else 0
        keys: list[Any] = [("id", call.id)] if call.id else [("day", call.day)]
        keys += [("day", day) for day in (call.day, shown_day) if day in days]
        for key in keys[1:]:
            parents[root_of(key)] = root_of(keys[0])
    parts: dict[Any, list[CallRecord]] = {}
    for call in calls:
        parts.setdefault(root_of(("id", call.id) if call.id else ("day", call.day)), []).append(call)
    yield from parts.values()


class _Search:
    """The search for an order of the calls of one part."""

    def __init__(
        self, calls: Sequence[CallRecord], days: Mapping[int, Mapping[str, Any]], *, clock_is_real: bool
    ) -> None:
        self._calls = sorted(calls, key=lambda one: one.began_at_ms)
        last_ms = max((one.ended_at_ms for one in self._calls if one.status), default=0)
        self._rules = _Rules(days, last_ms, clock_is_real=clock_is_real)
        self._answered = sum(1 << index for index, one in enumerate(self._calls) if one.status)

    def run(self) -> Iterator[str]:
        start = (0, 0, self._rules.start({one.day for one in self._calls}))
        stack, seen = [start], {start}
        deepest = 0, [one for one in self._calls if one.status]
        while stack:
            done, effects, state = stack.pop()
            left = [one for index, one in enumerate(self._calls) if one.status and not done >> index & 1]
            if not left:
                return
            explained = (done & self._answered).bit_count()
            if explained >= deepest[0]:
                deepest = explained, left
            for following in self._following(done, effects, state):
                if following not in seen:
                    seen.add(following)
                    stack.append(following)
            if len(seen) > STATES_MAX:
                raise SearchTooLarge(
                    f"{self._calls[0].office}: more than {STATES_MAX} states; too many of its calls were open at the "
                    "same time: record its events as well, or a shorter history"
                )
        count, left = deepest
        names = "; ".join(map(str, left[:_SHOWN_MAX]))
        yield (
            f"{self._calls[0].office}: no order of {self._answered.bit_count()} calls explains their answers. The best "
            f"one explains {count}, and then none of: {names}"
        )

    def _following(self, done: int, effects: int, state: _State) -> Iterator[tuple[int, int, _State]]:
        """Yield what one more step leads to: an answer, an effect before the answer, or the end of a hold."""
        calls = self._calls
        latest_ms = min(one.ended_at_ms for index, one in enumerate(calls) if one.status and not done >> index & 1)
        open_calls = [
            index for index, one in enumerate(calls) if not done >> index & 1 and one.began_at_ms <= latest_ms
        ]
        ends_ms = [one.ended_at_ms for one in calls if one.is_unknown and one.ended_at_ms >= state.now_ms]
        first_end_ms = min(ends_ms, default=FOREVER_MS)
        for index in open_calls:
            call = calls[index]
            # An answer that is right now, changes nothing and lets no time pass can as well be taken first.
            if not call.status or call.may_act or call.began_at_ms > first_end_ms:
                continue
            if self._rules.is_still(state, call.began_at_ms):
                same = next(self._rules.answers(state, call, max(state.now_ms, call.began_at_ms)), None)
                if same is not None:
                    yield done | 1 << index, effects, same
                    return
        for after in self._rules.expiries(state):
            yield done, effects, after
        for index in open_calls:
            call = calls[index]
            end_ms = min(latest_ms, call.ended_at_ms)
            had = effects >> 2 * index & 3
            for now_ms in self._rules.moments(state, call.began_at_ms, end_ms):
                if call.status:
                    for after in self._rules.answers(state, call, now_ms):
                        yield done | 1 << index, effects, after
                if call.may_act and had < _effects_max(call):
                    for after in self._rules.effects(state, call, now_ms, None, is_answer=False):
                        yield done, effects + (1 << 2 * index), after


def _effects_max(call: CallRecord) -> int:
    """Return how often a call may take effect before its answer: with an attempt whose reply was lost."""
    if call.name in MAY_REPEAT:
        return _REPETITIONS_MAX
    return 0 if call.must_act else 1


class _Rules:
    """The rules of one office for calls in a given order."""

    def __init__(self, days: Mapping[int, Mapping[str, Any]], last_ms: int, *, clock_is_real: bool) -> None:
        self._terms = days
        self._clock_is_real = clock_is_real
        self._constant = {number: _constant_quotas(terms, last_ms) for number, terms in days.items()}
        self._simple = {number: _simple_quotas(terms) & self._constant[number] for number, terms in days.items()}

    def start(self, days: set[int]) -> _State:
        """Return the state before the first call."""
        described = (
            (number, _Day(False, tuple((one["name"], one["capacity"]) for one in self._terms[number]["quotas"]), 0))
            for number in sorted(days)
            if number in self._terms
        )
        return _State(0, (), tuple(described))

    # ------------------------------------------------------------------ time

    def moments(self, state: _State, began_at_ms: int, end_ms: int) -> Iterator[int]:
        """Yield the first moment of a call, and those until its end at which time changes something."""
        first_ms = max(state.now_ms, began_at_ms)
        if first_ms > end_ms:
            return
        yield first_ms
        yield from sorted(one for one in self._changes_ms(state) if first_ms < one <= end_ms)

    def is_still(self, state: _State, began_at_ms: int) -> bool:
        """Return True if no time passes, or nothing changes by it, until a call begins."""
        return not any(state.now_ms < one <= began_at_ms for one in self._changes_ms(state))

    def _changes_ms(self, state: _State) -> set[int]:
        if not self._clock_is_real:
            return set()
        deadlines = {one.deadline_at_ms for _, one in state.records if one.state == "HELD"}
        times = {
            self._terms[number][name]
            for number, _ in state.days
            for name in ("opens_at_ms", "starts_at_ms", "ends_at_ms", "forget_at_ms")
        }
        return {one for one in deadlines if one is not None} | times

    def _forms(self, record: _Record | None, now_ms: int) -> list[_Record | None]:
        """Return what a reservation may have become by time and the wait list alone."""
        if record is None:
            return [None]
        if self._clock_is_real and record.day in self._terms and self._terms[record.day]["forget_at_ms"] <= now_ms:
            return [None]
        if record.state == "WAITING":
            offered = record._replace(state="HELD", version=record.version + 1, quotas=None, deadline_at_ms=None)
            return [record, offered, offered._replace(state="EXPIRED", version=offered.version + 1)]
        if record.state != "HELD":
            return [record]
        expired = record._replace(state="EXPIRED", version=record.version + 1)
        if not self._clock_is_real:
            return [record, expired]
        is_overdue = record.deadline_at_ms is not None and record.deadline_at_ms <= now_ms
        return [expired if is_overdue else record]

    def expiries(self, state: _State) -> Iterator[_State]:
        """Yield the states in which one more hold has ended whose deadline no answer has shown."""
        for index, (key, record) in enumerate(state.records):
            if record.state == "HELD" and record.deadline_at_ms is None:
                expired = record._replace(state="EXPIRED", version=record.version + 1)
                yield state._replace(records=(*state.records[:index], (key, expired), *state.records[index + 1 :]))

    # ------------------------------------------------------------------ answers

    def answers(self, state: _State, call: CallRecord, now_ms: int) -> Iterator[_State]:
        """Yield the states that a call may lead to with its answer; none if the answer is wrong at this moment."""
        if call.must_act:
            yield from self.effects(state, call, now_ms, call.shown, is_answer=True)
        elif self._is_true(state, call, now_ms):
            yield state._replace(now_ms=now_ms)

    def _is_true(self, state: _State, call: CallRecord, now_ms: int) -> bool:
        """Return True if an answer without an effect is right."""
        record = dict(state.records).get(call.id)
        forms = self._forms(record, now_ms)
        number = call.day or (record.day if record else 0)
        day, terms = dict(state.days).get(number), self._terms.get(number)
        on_time = self._clock_is_real and terms is not None
        match call.status:
            case "HELD" | "WAITING" | "CONFIRMED" | "ATTENDED" | "NO_SHOW" | "RELEASED" | "CANCELLED" | "MOVED":
                if call.name == "reserve" and call.shown is None:
                    return True  # the answer shows the hold of another call
                return any(one is not None and _matches(one, call.status, call.shown) for one in forms)
            case "NOT_FOUND":
                return None in forms or not self._clock_is_real
            case "CONFLICT" if call.name in ("reserve", "move_in"):
                return record is not None
            case "HOLD_EXPIRED" if call.name != "move_in":
                return any(one is not None and one.state == "EXPIRED" for one in forms)
            case "RESERVATION_ENDED":
                return any(one is not None and one.state in ENDED for one in forms)
            case "SOLD_OUT":
                return day is None or not self._has_room(state, call, record, now_ms)
            case "DAY_CLOSED":
                return day is None or day.closed
            case "UNKNOWN_DAY":
                return not on_time or (terms is not None and terms["forget_at_ms"] <= now_ms)
            case "NOT_OPEN":
                return not on_time or (terms is not None and now_ms < terms["opens_at_ms"])
            case "DAY_OVER":
                return not on_time or (terms is not None and terms["ends_at_ms"] <= now_ms)
            case "DONE" if call.name == "set_capacity":
                return day is None or dict(day.capacities).get(call.quota, call.capacity) == call.capacity
            case "DONE" if call.name in ("close_day", "open_day"):
                return day is None or day.closed == (call.name == "close_day")
        return True

    def _has_room(self, state: _State, call: CallRecord, record: _Record | None, now_ms: int) -> bool:
        """Return True if an option certainly has room."""
        if not self._clock_is_real or not self._is_certain(state, call.day):
            return False
        own = (record.quotas or ()) if record and record.day == call.day and record.state in _IN_USE else ()
        units = record.units if record is not None and call.name == "reschedule" else call.units
        free = self._free(state, call.day, now_ms)
        simple = self._simple[call.day]
        return any(
            all(name in own or (name in simple and free.get(name, 0) >= units) for name in option)
            for option in call.options
        )

    def _is_certain(self, state: _State, number: int) -> bool:
        """Return True if the quotas of all reservations of a day are known, and none of them waits."""
        return not any(
            one.day == number and (one.state == "WAITING" or (one.state in _IN_USE and one.quotas is None))
            for _, one in state.records
        )

    def _first_option(self, state: _State, call: CallRecord, units: int, now_ms: int) -> tuple[str, ...] | None:
        """Return the first option of a call in which every quota has enough free units."""
        free = self._free(state, call.day, now_ms)
        return next((one for one in call.options if all(free.get(name, 0) >= units for name in one)), None)

    def _free(self, state: _State, number: int, now_ms: int) -> dict[str, int]:
        """Return the free units of a described day as far as the reservations are known; overdue holds are free."""
        free = dict(dict(state.days)[number].capacities)
        for _, one in state.records:
            if one.day != number or one.state not in _IN_USE or one.quotas is None:
                continue
            deadline_at_ms = FOREVER_MS if one.deadline_at_ms is None else one.deadline_at_ms
            is_overdue = one.state == "HELD" and self._clock_is_real and deadline_at_ms <= now_ms
            for name in () if is_overdue else one.quotas:
                free[name] = free.get(name, 0) - one.units
        return free

    # ------------------------------------------------------------------ effects

    def effects(
        self, state: _State, call: CallRecord, now_ms: int, shown: ReservationState | None, *, is_answer: bool
    ) -> Iterator[_State]:
        """Yield the states that an effect of a call may lead to; ``shown`` is the record that its answer shows."""
        if call.name in NAMES_OF_KIND.values():
            yield from self._change_day(state, call, now_ms)
            return
        for form in self._forms(dict(state.records).get(call.id), now_ms):
            for verb in _VERBS_OF_NAME[call.name]:
                if (form.state if form else "") in LIFE_CYCLE[verb][0]:
                    yield from self._step(state, call, verb, form, now_ms, shown, is_answer=is_answer)

    def _change_day(self, state: _State, call: CallRecord, now_ms: int) -> Iterator[_State]:
        """Yield the state after a call on a day; none if it would change nothing."""
        days = dict(state.days)
        day = days.get(call.day)
        if day is None:
            yield state._replace(now_ms=now_ms)
            return
        if call.name == "set_capacity":
            capacities = dict(day.capacities)
            if capacities.get(call.quota) == call.capacity:
                return
            capacities[call.quota] = call.capacity
            days[call.day] = day._replace(capacities=tuple(sorted(capacities.items())))
        else:
            if day.closed == (call.name == "close_day"):
                return
            days[call.day] = day._replace(closed=not day.closed)
        yield _State(now_ms, state.records, tuple(sorted(days.items())))

    def _step(
        self,
        state: _State,
        call: CallRecord,
        verb: str,
        old: _Record | None,
        now_ms: int,
        shown: ReservationState | None,
        *,
        is_answer: bool,
    ) -> Iterator[_State]:
        """Yield the state after a step of a reservation, if the rules allow it and the answer shows it."""
        new = self._new_record(state, call, verb, old, now_ms, shown)
        if new is None or (is_answer and call.status != new.state) or (verb == "wait" and not self._may_wait(call)):
            return
        if not self._is_in_time(state, verb, new.day, now_ms) or not self._fits(state, call.id, verb, old, new, now_ms):
            return
        days = dict(state.days)
        day = days.get(new.day)
        if day is not None and _assigns_numbers(verb, old, new):
            first = day.last_queue_number + 1
            numbers = tuple(range(first, first + new.units))
            if shown is not None and new.queue_numbers != numbers:
                return
            new = new._replace(queue_numbers=numbers)
            days[new.day] = day._replace(last_queue_number=first + new.units - 1)
        if shown is not None and not _follows(verb, old, new, shown):
            return
        records = {**dict(state.records), call.id: new}
        yield _State(now_ms, tuple(sorted(records.items(), key=lambda one: one[0])), tuple(sorted(days.items())))

    def _may_wait(self, call: CallRecord) -> bool:
        """Return True if a reserve that finds no place may join the wait list."""
        if call.day not in self._terms or not call.options:
            return True
        rules = _rules_of_quotas(self._terms[call.day])
        return any(rules.get(name) == "wait_list" for option in call.options for name in option)

    def _new_record(
        self,
        state: _State,
        call: CallRecord,
        verb: str,
        old: _Record | None,
        now_ms: int,
        shown: ReservationState | None,
    ) -> _Record | None:
        """Return a reservation after a step, with what its answer shows; ``None`` if no option of the call fits."""
        target = LIFE_CYCLE[verb][1] or (old.state if old else "")
        version = old.version + 1 if old else 1
        units = call.units if old is None else old.units - (verb == "remove_applicant")
        number = call.day if old is None or verb == "reschedule" else old.day
        if shown is not None:
            # A publication may rename the quotas of a day that is not described.
            quotas = shown.quotas if number in self._terms else None
            return _Record(target, number, version, units, quotas, shown.deadline_at_ms, shown.queue_numbers)
        quotas = old.quotas if old else None
        if verb in ("wait", "decline"):
            quotas = ()
        elif verb in _TAKING:
            quotas = None
            named = {name for option in call.options for name in option}
            is_known = bool(named) and named <= self._simple.get(number, frozenset()) and self._clock_is_real
            if is_known and old is None and self._is_certain(state, number):
                quotas = self._first_option(state, call, units, now_ms)
                if quotas is None:
                    return None
        deadline_at_ms = old.deadline_at_ms if old is not None and verb not in _CHANGES_DEADLINE else None
        keeps_numbers = old is not None and verb not in _NUMBERING and verb != "remove_applicant"
        return _Record(
            target, number, version, units, quotas, deadline_at_ms, old.queue_numbers if keeps_numbers and old else None
        )

    def _is_in_time(self, state: _State, verb: str, number: int, now_ms: int) -> bool:
        """Return True if the rules allow a step on its day at this moment."""
        day, terms = dict(state.days).get(number), self._terms.get(number)
        if day is None or terms is None:
            return True
        if day.closed and verb in _NOT_ON_A_CLOSED_DAY:
            return False
        if not self._clock_is_real:
            return True
        if verb in _ON_AN_OPEN_DAY and not terms["opens_at_ms"] <= now_ms < terms["ends_at_ms"]:
            return False
        if verb in ("confirm", "extend", "check_in") and now_ms >= terms["ends_at_ms"]:
            return False
        return verb not in ("check_in", "mark_no_show") or now_ms >= terms["starts_at_ms"]

    def _fits(
        self, state: _State, reservation_id: str, verb: str, old: _Record | None, new: _Record, now_ms: int
    ) -> bool:
        """Return False if a step takes units that are certainly not there."""
        if verb not in _TAKING or not new.quotas or new.day not in self._terms:
            return True
        if not self._clock_is_real:
            return True
        own = set(old.quotas or ()) if old is not None and old.day == new.day and old.state in _IN_USE else set()
        free = self._free(state, new.day, now_ms)
        taken = self._constant[new.day].intersection(new.quotas) - own
        return all(free.get(name, 0) >= new.units for name in taken)


def _constant_quotas(terms: Mapping[str, Any], last_ms: int) -> frozenset[str]:
    """Return the quotas of a day that take part in no reallocation until the last answer."""
    names = {one["name"] for one in terms["quotas"]}
    for one in terms["quotas"]:
        reallocation = one.get("reallocation")
        if reallocation and reallocation["at_ms"] <= last_ms:
            names -= {one["name"], reallocation["to"]}
    return frozenset(names)


def _simple_quotas(terms: Mapping[str, Any]) -> frozenset[str]:
    """Return the quotas whose free units follow from the reservations, because returned units are free at once."""
    if any(one.get("guard") for one in terms["quotas"]):
        return frozenset()
    return frozenset(name for name, rule in _rules_of_quotas(terms).items() if rule == "at_once")


def _rules_of_quotas(terms: Mapping[str, Any]) -> dict[str, str]:
    """Return the re-release rule of each quota of a day."""
    return {one["name"]: (one.get("re_release") or {}).get("rule", "at_once") for one in terms["quotas"]}


def _assigns_numbers(verb: str, old: _Record | None, new: _Record) -> bool:
    is_moved = verb == "reschedule" and new.state == "CONFIRMED" and old is not None and old.day != new.day
    return verb in _NUMBERING or is_moved


def _matches(record: _Record, status: str, shown: ReservationState | None) -> bool:
    """Return True if an answer shows this record, as far as it is known."""
    if record.state != status or shown is None:
        return record.state == status
    return (
        (shown.day, shown.version, shown.units) == (record.day, record.version, record.units)
        and (record.quotas is None or record.state not in _IN_USE or shown.quotas == record.quotas)
        and record.deadline_at_ms in (None, shown.deadline_at_ms)
        and record.queue_numbers in (None, shown.queue_numbers)
    )


def _follows(verb: str, old: _Record | None, new: _Record, shown: ReservationState) -> bool:
    """Return True if an answer shows a record that follows from the one before the step."""
    if not _matches(new, new.state, shown):
        return False
    if old is None:
        return True
    if old.state == "HELD" and verb not in _CHANGES_DEADLINE and old.deadline_at_ms not in (None, new.deadline_at_ms):
        return False
    keeps_numbers = old.queue_numbers is not None and verb not in (*_NUMBERING, "remove_applicant", "reschedule")
    return not keeps_numbers or old.queue_numbers == new.queue_numbers
