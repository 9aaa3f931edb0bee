"""The state of one office, and the functions that events change it with.

:func:`evolve` is the only code that changes a ledger's reservations and counters. The state machine decides which
events happen and passes them to ``evolve`` one by one. :func:`rebuild` passes the same events later and therefore
arrives at the same state.
"""

from __future__ import annotations

__all__ = [
    "Day",
    "Ledger",
    "Quota",
    "ReturnedUnits",
    "active_claims",
    "describe",
    "evolve",
    "guards_of",
    "known_reservation",
    "let_wait_lists_be_served",
    "purge",
    "rebuild",
    "renamed_quotas",
    "set_invariant_checks",
    "split_returned_units",
]

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heappop, heappush
from typing import Any, Final, NamedTuple

import msgspec
from msgspec.structs import replace

from quota_engine.domain.due_queue import DueQueue
from quota_engine.domain.events import (
    CapacitySet,
    Cooled,
    DayClosed,
    DayForgotten,
    DayOpened,
    DayPublished,
    Event,
    ParkedReleased,
    ReservationChanged,
    RulesSet,
    TimeCorrected,
    UnitsReallocated,
)
from quota_engine.domain.guards import matching_guards, rewrite_choice, rewrite_option
from quota_engine.domain.lifecycle import ACTIVE, State, Verb
from quota_engine.domain.model import (
    Choice,
    DayTerms,
    GuardScope,
    QuotaTerms,
    Reallocation,
    ReRelease,
    ReReleaseRule,
    Reservation,
    Rules,
    find_session,
)
from quota_engine.domain.outcomes import AbandonedHolds
from quota_engine.domain.penalties import PenaltyRecord, update_penalties
from quota_engine.domain.wait_list import WaitQueues

# Attribute access on an enum class costs as much as a call on Python 3.11, and each event reads these members.
_HELD: Final = State.HELD
_WAITING: Final = State.WAITING
_NO_SHOW: Final = State.NO_SHOW
_CANCEL: Final = Verb.CANCEL
_EXPIRE: Final = Verb.EXPIRE
_MARK_NO_SHOW: Final = Verb.MARK_NO_SHOW
_REACQUIRE: Final = Verb.REACQUIRE
_CONSUMING: Final = frozenset({State.HELD, State.CONFIRMED, State.ATTENDED, State.NO_SHOW})
_ABANDONING: Final = frozenset({Verb.RELEASE, Verb.EXPIRE})
"""Verbs that abandon a hold. A move is not among them: the hold continues at another office, with the same deadline."""
_PARTY_CHANGES: Final = frozenset({Verb.REMOVE_APPLICANT, Verb.REPLACE_APPLICANT})
_REWRITTEN: Final = ACTIVE | {State.EXPIRED}
"""States in which a reservation's choice may still be used. A late confirm can bring an expired hold back."""
_NEVER_MS: Final = 2**62


class Quota:
    """The counters of one quota on one day, in units.

    Always ``free == capacity - held - confirmed - cooling``. A negative ``free`` is an overbooking: the operator has
    lowered the capacity below the units in use. ``cooling`` includes ``parked``.
    """

    __slots__ = (
        "capacity",
        "confirmed",
        "cooling",
        "cooling_due",
        "free",
        "free_since_ms",
        "guard",
        "held",
        "parked",
        "re_release",
        "reallocation",
    )

    def __init__(self, terms: QuotaTerms) -> None:
        self.capacity = terms.capacity
        self.free = terms.capacity
        self.free_since_ms = 0
        """The time at which the quota last had a free unit again after it had none; 0 if it never ran out."""
        self.held = 0
        self.confirmed = 0
        self.cooling = 0
        self.parked = 0
        self.cooling_due: list[tuple[int, int]] = []
        """A heap of ``(due_at_ms, units)``, without the parked units."""
        self.guard: GuardScope | None = terms.guard
        self.re_release: ReRelease = terms.re_release
        self.reallocation: Reallocation | None = terms.reallocation

    def add_free(self, units: int, now_ms: int) -> None:
        """Add free units, and note when the first one is there. ``units`` is negative if there are fewer."""
        if self.free <= 0 < self.free + units:
            self.free_since_ms = now_ms
        self.free += units


class Day:
    """One published office-day."""

    __slots__ = (
        "closed",
        "departed",
        "due",
        "guards",
        "last_complete_choice",
        "last_queue_number",
        "last_valid_choice",
        "last_valid_until_ms",
        "last_wait_list_number",
        "next_due_ms",
        "number",
        "quotas",
        "reservation_ids",
        "revision",
        "terms",
        "wait_queues",
        "waiting",
    )

    def __init__(self, number: int, terms: DayTerms) -> None:
        self.number = number
        self.terms = terms
        self.closed = False
        self.departed = 0
        """Confirmed units that have left the day since it was closed last."""
        self.quotas: dict[str, Quota] = {quota.name: Quota(quota) for quota in terms.quotas}
        self.guards = guards_of(self.quotas)
        """The scopes of the quotas that are guards, in the order of the quotas."""
        self.due: dict[tuple[str, ...], DueQueue] = {}
        """Holds by the set of quotas they consume: a reserve that lacks units of a quota expires holds on it first."""
        self.waiting: dict[str, int] = {}
        """The wait list: the numbers of its parties by id. They are served in the order of the numbers."""
        self.wait_queues = WaitQueues()
        """The same parties by what they want."""
        self.last_wait_list_number = 0
        self.last_valid_choice: Choice | None = None
        """The last choice whose quotas all exist on this day. During an opening most reserves have the same choice."""
        self.last_complete_choice: Choice | None = None
        """The same choice with the day's guards added."""
        self.last_valid_until_ms = 0
        """:meth:`book_until_ms` of that choice's session."""
        self.last_queue_number = 0
        self.reservation_ids: list[str] = []
        """The ids of all reservations that were ever on this day. :func:`purge` frees them with the day."""
        self.revision = 1
        """The number of operators' changes, the first publication included."""
        self.next_due_ms = 0
        """Nothing on this day is due before this time. It may be too early, never too late."""

    def book_until_ms(self, session: str) -> int:
        """Return the time from which a choice of ``session`` can no longer be booked. ``session`` may be ``""``."""
        terms = find_session(self.terms.sessions, session)
        return self.terms.ends_at_ms if terms is None else terms.book_until_ms

    def push_due(self, record: Reservation) -> None:
        """Schedule the expiry of a hold."""
        deadline_ms = record.deadline_at_ms
        queue = self.due.get(record.quotas)
        if queue is None:
            queue = self.due[record.quotas] = DueQueue()
        if record.extensions:
            queue.push_out_of_order(record)
        else:
            queue.push(record, deadline_ms)
        if deadline_ms < self.next_due_ms:
            self.next_due_ms = deadline_ms


def guards_of(quotas: dict[str, Quota]) -> dict[str, GuardScope]:
    """Return the scopes of the quotas that are guards."""
    return {name: quota.guard for name, quota in quotas.items() if quota.guard is not None}


class Ledger:
    """All state of one office. Only :func:`quota_engine.domain.state_machine.apply` may change it."""

    __slots__ = (
        "abandoned",
        "claims",
        "days",
        "events",
        "forgotten_day_max",
        "forgotten_days",
        "next_forget_ms",
        "now_ms",
        "office",
        "penalties",
        "reservations",
        "rules",
    )

    def __init__(self, office: str) -> None:
        self.office = office
        self.rules = Rules()
        self.now_ms = 0
        """The time of the last event. A command never has an earlier time."""
        self.days: dict[int, Day] = {}
        self.reservations: dict[str, Reservation] = {}
        self.claims: dict[str, str | tuple[str, ...]] = {}
        """The ids of an applicant's active reservations. A single id is stored bare, which saves 56 bytes per place."""
        self.penalties: dict[str, PenaltyRecord] = {}
        self.abandoned = AbandonedHolds()
        self.events: list[Event] = []
        self.forgotten_days: list[Day] = []
        """Forgotten days with records that :func:`purge` has not freed yet."""
        self.forgotten_day_max = 0
        self.next_forget_ms = _NEVER_MS
        """No day has to be forgotten before this time. It is 0 while records wait to be purged."""


def known_reservation(ledger: Ledger, reservation_id: str) -> Reservation | None:
    """Return the reservation of this id, or ``None``. Reservations of forgotten days do not count."""
    record = ledger.reservations.get(reservation_id)
    return record if record is not None and record.day in ledger.days else None


def active_claims(ledger: Ledger, applicant: str, now_ms: int) -> Iterator[Reservation]:
    """Yield the applicant's reservations that count against the identity limits at ``now_ms``.

    These are the active ones, except for overdue holds, entries on the wait list of a day or session that is over, and
    reservations on a closed day. An overdue hold does not count, even if no sweep has expired it yet.
    """
    ids = ledger.claims.get(applicant)
    if ids is None:
        return
    for reservation_id in (ids,) if isinstance(ids, str) else ids:
        record = known_reservation(ledger, reservation_id)
        if record is None or (record.state is _HELD and record.deadline_at_ms <= now_ms):
            continue
        day = ledger.days[record.day]
        if not day.closed and (record.state is not _WAITING or now_ms < day.book_until_ms(record.choice.session)):
            yield record


def _claim(ledger: Ledger, record: Reservation, newcomers: Sequence[str] = ()) -> None:
    """Add the claims of all applicants, or of ``newcomers`` alone."""
    claims, reservation_id = ledger.claims, record.id
    for applicant in newcomers or record.applicants:
        others = claims.get(applicant)
        if others is None:
            claims[applicant] = reservation_id
        else:
            claims[applicant] = (*((others,) if isinstance(others, str) else others), reservation_id)


def _unclaim(ledger: Ledger, record: Reservation, leaving: Sequence[str] = ()) -> None:
    """Delete the claims of all applicants, or of those ``leaving`` alone."""
    claims = ledger.claims
    for applicant in leaving or record.applicants:
        ids = claims[applicant]
        left = () if isinstance(ids, str) else tuple(other for other in ids if other != record.id)
        if not left:
            del claims[applicant]
        else:
            claims[applicant] = left if len(left) > 1 else left[0]


class ReturnedUnits(NamedTuple):
    """The counters that returned units are added to. ``cooling`` includes ``parked``.

    ``due_at_ms`` is the end of the cooling time of the units that are not parked.
    """

    free: int
    cooling: int
    due_at_ms: int
    parked: int


def split_returned_units(
    quota: Quota, name: str, units: int, record: Reservation, at_ms: int, seed: str
) -> ReturnedUnits:
    """Split returned units by the quota's re-release rule.

    Units that reduce an overbooking become free at once. No applicant can reserve them, so they need no cooling time.

    Args:
        quota: the quota, before the units are returned.
        name: its name.
        units: the number of returned units, 1 or more.
        record: the new version of the reservation that returns them.
        at_ms: the time of the return, milliseconds since 1970 (UTC): for an expired hold its deadline.
        seed: the office's ``jitter_seed``.

    Returns:
        The split. The cooling time is ``cooling_ms`` plus the first 12 hex digits of
        ``sha1("{seed}:{id}:{version}:{name}")`` modulo ``jitter_ms + 1``. The Lua scripts use the same formula.
    """
    worked_off = min(units, max(0, -quota.free))
    rest = units - worked_off
    rule = quota.re_release
    if not rest or rule.rule in (ReReleaseRule.AT_ONCE, ReReleaseRule.WAIT_LIST):
        return ReturnedUnits(units, 0, 0, 0)
    if rule.rule is ReReleaseRule.NEXT_DRAW:
        return ReturnedUnits(worked_off, rest, 0, rest)
    digest = hashlib.sha1(f"{seed}:{record.id}:{record.version}:{name}".encode(), usedforsecurity=False).hexdigest()
    jitter_ms = int(digest[:12], 16) % (rule.jitter_ms + 1)
    return ReturnedUnits(worked_off, rest, at_ms + rule.cooling_ms + jitter_ms, 0)


def _give_back(ledger: Ledger, day: Day, name: str, units: int, record: Reservation, at_ms: int) -> None:
    quota = day.quotas[name]
    split = split_returned_units(quota, name, units, record, at_ms, ledger.rules.jitter_seed)
    quota.add_free(split.free, ledger.now_ms)
    quota.cooling += split.cooling
    quota.parked += split.parked
    if split.cooling > split.parked:
        heappush(quota.cooling_due, (split.due_at_ms, split.cooling))
        if split.due_at_ms < day.next_due_ms:
            day.next_due_ms = split.due_at_ms


def _add_units(quota: Quota, state: State, units: int) -> None:
    if state is _HELD:
        quota.held += units
    else:
        quota.confirmed += units


def _reservation_changed(ledger: Ledger, event: ReservationChanged) -> None:
    new = event.reservation
    reservations = ledger.reservations
    old = reservations.setdefault(new.id, new)
    day = ledger.days[new.day]
    if old is not new:
        reservations[new.id] = new
        if old.day in ledger.days:
            _existing_reservation_changed(ledger, day, old, event)
            return
        if old.state in ACTIVE:  # a record of a forgotten day that is not purged yet counts as unknown
            _unclaim(ledger, old)
    day.reservation_ids.append(new.id)
    applicants = new.applicants
    if len(applicants) == 1 and applicants[0] not in ledger.claims:
        ledger.claims[applicants[0]] = new.id
    else:
        _claim(ledger, new)
    if new.state is _HELD:
        units = len(applicants)
        quotas = day.quotas
        for name in new.quotas:
            quota = quotas[name]
            quota.free -= units
            quota.held += units
        day.push_due(new)
    elif new.state is _WAITING:
        day.waiting[new.id] = day.last_wait_list_number = new.wait_list_number
        day.wait_queues.add(new)
    else:  # moved in from another office, where it was already confirmed
        for name in new.quotas:
            day.quotas[name].free -= new.units
            day.quotas[name].confirmed += new.units
        day.last_queue_number = new.queue_number + new.units - 1


def _existing_reservation_changed(ledger: Ledger, day: Day, old: Reservation, event: ReservationChanged) -> None:
    new = event.reservation
    old_day = ledger.days[old.day]
    units, old_units = len(new.applicants), len(old.applicants)
    old_quotas = old.quotas if old.state in _CONSUMING else ()
    new_quotas = new.quotas if new.state in _CONSUMING else ()
    # A quota that the reservation keeps must not see its units returned and taken again: the re-release rule would
    # cool units that the applicant never gave up.
    kept = frozenset(old_quotas) & frozenset(new_quotas) if old_day is day else frozenset()
    for name in new_quotas:
        quota = day.quotas[name]
        _add_units(quota, new.state, units)
        if name not in kept:
            quota.free -= units
    # A hold ends at its deadline, not when a later sweep expires it.
    ended_at_ms = old.deadline_at_ms if event.verb is _EXPIRE else event.at_ms
    for name in old_quotas:
        _add_units(old_day.quotas[name], old.state, -old_units)
        returned = old_units - units if name in kept else old_units
        if returned:
            _give_back(ledger, old_day, name, returned, new, ended_at_ms)

    if old.state is _WAITING:
        old_day.wait_queues.discard(old)
        if new.state is not _WAITING:
            del old_day.waiting[new.id]
    if new.state is _WAITING:
        day.waiting[new.id] = new.wait_list_number
        day.wait_queues.add(new)
    if new.state is _HELD:
        day.push_due(new)
    if old_day is not day:
        day.reservation_ids.append(new.id)
    if new.queue_number:
        day.last_queue_number = max(day.last_queue_number, new.queue_numbers[-1])
    if old.state in ACTIVE and new.state not in ACTIVE:
        _unclaim(ledger, old)
    elif new.state in ACTIVE and old.state not in ACTIVE:
        _claim(ledger, new)
    elif event.verb in _PARTY_CHANGES:
        _party_changed(ledger, day, old, event)
        return
    if old.state is _NO_SHOW:  # undone, also on a closed day: the no-show counted before the office closed it
        _update_penalties(ledger, new, new.applicants, event.verb, event.at_ms, event.at_ms)
        return
    if old_day.closed:  # the office has ended the reservation: no step counts against the applicants
        if old.state in _CONSUMING and old.state is not _HELD and (old_day is not day or new.state not in _CONSUMING):
            old_day.departed += units
        return
    if event.verb in (_CANCEL, _MARK_NO_SHOW):
        _update_penalties(ledger, new, new.applicants, event.verb, event.at_ms, event.at_ms)
    elif old.state is _HELD and event.verb in _ABANDONING:
        _count_abandoned_hold(ledger, event.verb)
        if ledger.rules.abandoned_holds_max:
            _update_penalties(ledger, new, new.applicants, event.verb, event.at_ms, ended_at_ms)
    elif event.verb is _REACQUIRE and ledger.rules.abandoned_holds_max:
        _update_penalties(ledger, new, new.applicants, event.verb, event.at_ms, old.deadline_at_ms)


def _party_changed(ledger: Ledger, day: Day, old: Reservation, event: ReservationChanged) -> None:
    new, at_ms = event.reservation, event.at_ms
    leaving = tuple(one for one in old.applicants if one not in new.applicants)
    _unclaim(ledger, old, leaving)
    if event.verb is Verb.REPLACE_APPLICANT:
        _claim(ledger, new, tuple(one for one in new.applicants if one not in old.applicants))
        return
    if day.closed:
        day.departed += len(leaving) if old.state is State.CONFIRMED else 0
    elif old.state is State.CONFIRMED:
        _update_penalties(ledger, new, leaving, Verb.CANCEL, at_ms, at_ms)
    elif old.state is _HELD and ledger.rules.abandoned_holds_max:
        _update_penalties(ledger, new, leaving, Verb.RELEASE, at_ms, at_ms)


def _count_abandoned_hold(ledger: Ledger, verb: Verb) -> None:
    counts = ledger.abandoned
    if verb is Verb.RELEASE:
        ledger.abandoned = replace(counts, released=counts.released + 1)
    else:
        ledger.abandoned = replace(counts, expired=counts.expired + 1)


def _update_penalties(
    ledger: Ledger, record: Reservation, applicants: Sequence[str], verb: Verb, at_ms: int, ended_at_ms: int
) -> None:
    blocks = update_penalties(ledger.penalties, record, applicants, verb, at_ms, ended_at_ms, ledger.rules)
    if blocks and verb in _ABANDONING:
        ledger.abandoned = replace(ledger.abandoned, blocks=ledger.abandoned.blocks + blocks)


def _rules_set(ledger: Ledger, event: RulesSet) -> None:
    ledger.rules = event.rules


def _day_published(ledger: Ledger, event: DayPublished) -> None:
    day = ledger.days.get(event.day)
    if day is None:
        ledger.days[event.day] = Day(event.day, event.terms)
    else:
        _replace_quotas(ledger, day, event.terms)
        day.terms = event.terms
        day.last_valid_choice = None
        day.revision += 1
        day.next_due_ms = 0
    ledger.next_forget_ms = _next_forget_ms(ledger)


def renamed_quotas(day: Day, terms: DayTerms) -> dict[str, str]:
    """Return the new names of the day's quotas that ``terms`` rename, by their old names."""
    return {quota.renamed_from: quota.name for quota in terms.quotas if quota.renamed_from in day.quotas}


def _replace_quotas(ledger: Ledger, day: Day, terms: DayTerms) -> None:
    """Give a known day the quotas of new terms. Known ones keep their capacity, and renamed ones their people."""
    renamed = renamed_quotas(day, terms)
    wanted = {quota.name: quota for quota in terms.quotas}
    quotas: dict[str, Quota] = {}
    for name, quota in day.quotas.items():
        new_name = renamed.get(name, name)
        joins_another = new_name != name and new_name in day.quotas
        if new_name in wanted and not joins_another:
            quotas[new_name] = quota
    for name, quota_terms in wanted.items():
        quota = quotas.setdefault(name, Quota(quota_terms))
        quota.re_release, quota.reallocation, quota.guard = (
            quota_terms.re_release,
            quota_terms.reallocation,
            quota_terms.guard,
        )
    for old_name, name in renamed.items():
        old = day.quotas[old_name]
        if quotas[name] is not old:  # its people join a quota that exists already
            quotas[name].parked += old.parked
            quotas[name].cooling += old.cooling
            for entry in old.cooling_due:
                heappush(quotas[name].cooling_due, entry)
    guards, known_guards = guards_of(quotas), day.guards
    day.quotas, day.guards = quotas, guards
    if renamed or any(known_guards.get(name) != scope for name, scope in guards.items()):
        _rewrite_reservations(ledger, day, renamed)


def _rewrite_reservations(ledger: Ledger, day: Day, renamed: dict[str, str]) -> None:
    """Give the day's reservations the new names of their quotas and all guards that count them, and count again.

    This is no step of a reservation: it keeps its version.
    """
    for quota in day.quotas.values():
        quota.held = quota.confirmed = 0
    choices: dict[Choice, Choice] = {}  # equal choices stay one object
    for reservation_id in dict.fromkeys(day.reservation_ids):
        record = ledger.reservations.get(reservation_id)  # None if it moved to a day that is forgotten by now
        if record is None or record.day != day.number or record.state not in _REWRITTEN:
            continue
        choice = choices.get(record.choice)
        if choice is None:
            choice = choices[record.choice] = rewrite_choice(renamed, day.guards, record.choice)
        if choice is not record.choice:
            matching = matching_guards(day.guards, choice)
            option = rewrite_option(renamed, matching, record.quotas) if record.quotas else ()
            if record.state is _WAITING:
                day.wait_queues.discard(record)
            record = ledger.reservations[reservation_id] = replace(record, choice=choice, quotas=option)
            if record.state is _HELD:
                day.push_due(record)
            elif record.state is _WAITING:
                day.wait_queues.add(record)
        for name in record.quotas if record.state in _CONSUMING else ():
            _add_units(day.quotas[name], record.state, record.units)
    for quota in day.quotas.values():
        free = quota.capacity - quota.held - quota.confirmed - quota.cooling
        quota.add_free(free - quota.free, ledger.now_ms)


def _next_forget_ms(ledger: Ledger) -> int:
    if ledger.forgotten_days:
        return 0
    return min((known.terms.forget_at_ms for known in ledger.days.values()), default=_NEVER_MS)


def _capacity_set(ledger: Ledger, event: CapacitySet) -> None:
    day = ledger.days[event.day]
    day.revision += 1
    quota = day.quotas[event.quota]
    quota.add_free(event.capacity - quota.capacity, event.at_ms)
    quota.capacity = event.capacity


def _day_closed(ledger: Ledger, event: DayClosed) -> None:
    day = ledger.days[event.day]
    day.closed = True
    day.departed = 0
    day.revision += 1


def _day_opened(ledger: Ledger, event: DayOpened) -> None:
    day = ledger.days[event.day]
    day.closed = False
    day.revision += 1


def _day_forgotten(ledger: Ledger, event: DayForgotten) -> None:
    ledger.forgotten_days.append(ledger.days.pop(event.day))
    ledger.forgotten_day_max = max(ledger.forgotten_day_max, event.day)
    ledger.next_forget_ms = 0


def _units_reallocated(ledger: Ledger, event: UnitsReallocated) -> None:
    day = ledger.days[event.day]
    day.revision += event.by_operator
    quotas = day.quotas
    for name, units in ((event.from_quota, -event.units), (event.to_quota, event.units)):
        quotas[name].capacity += units
        quotas[name].add_free(units, event.at_ms)


def _cooled(ledger: Ledger, event: Cooled) -> None:
    quota = ledger.days[event.day].quotas[event.quota]
    heappop(quota.cooling_due)
    quota.cooling -= event.units
    quota.add_free(event.units, event.at_ms)


def _parked_released(ledger: Ledger, event: ParkedReleased) -> None:
    day = ledger.days[event.day]
    day.revision += 1
    quota = day.quotas[event.quota]
    quota.parked -= event.units
    quota.cooling -= event.units
    quota.add_free(event.units, event.at_ms)


def _time_corrected(ledger: Ledger, event: TimeCorrected) -> None:
    longest_ms = max(ledger.rules.hold_ttl_ms, ledger.rules.offer_ttl_ms)
    for old in tuple(ledger.reservations.values()):
        day = ledger.days.get(old.day)
        if day is None:
            continue
        undo_until_ms = min(old.undo_until_ms, event.at_ms + ledger.rules.undo_window_ms)
        new = replace(old, created_at_ms=min(old.created_at_ms, event.at_ms), undo_until_ms=undo_until_ms)
        if old.state is _HELD:
            was_made_later = old.created_at_ms > event.at_ms
            length_ms = old.deadline_at_ms - old.created_at_ms if was_made_later else longest_ms
            new = replace(new, deadline_at_ms=min(old.deadline_at_ms, event.at_ms + length_ms))
        if new != old:
            ledger.reservations[new.id] = new
            if new.state is _HELD:
                day.due[new.quotas].push_out_of_order(new)
    for day in ledger.days.values():
        day.next_due_ms = 0


_EVENT_HANDLERS: Final[dict[type, Callable[[Ledger, Any], None]]] = {
    ReservationChanged: _reservation_changed,
    RulesSet: _rules_set,
    DayPublished: _day_published,
    CapacitySet: _capacity_set,
    DayClosed: _day_closed,
    DayOpened: _day_opened,
    DayForgotten: _day_forgotten,
    UnitsReallocated: _units_reallocated,
    Cooled: _cooled,
    ParkedReleased: _parked_released,
    TimeCorrected: _time_corrected,
}


def evolve(ledger: Ledger, event: Event) -> None:
    """Append ``event`` to the ledger's events and apply it to the state. An event cannot be refused.

    Args:
        ledger: the office's ledger; changed in place.
        event: one of :data:`~quota_engine.domain.events.Event`, not earlier than the
            ledger's last one, except ``TimeCorrected``.

    Raises:
        KeyError, IndexError: the event does not fit the ledger, as with damaged or reordered events.
    """
    ledger.events.append(event)
    ledger.now_ms = event.at_ms
    _EVENT_HANDLERS[type(event)](ledger, event)


def let_wait_lists_be_served(ledger: Ledger) -> None:
    """Let the next command of each day with a wait list serve it, after events of another process were replayed.

    Events do not show when a pause ends, when a party no longer blocks units, or if more offers follow.
    The process that made them knew, and this one has perhaps settled the day before them.
    """
    for day in ledger.days.values():
        if day.waiting:
            day.next_due_ms = 0


_UNCHECKED_HANDLERS: Final = dict(_EVENT_HANDLERS)


def set_invariant_checks(enabled: bool) -> None:
    """Turn the assertion of conservation in :func:`evolve` on or off, for the whole process. It is off by default.

    The tests of the domain and the conformance suite turn it on. The switch exchanges the event handlers, so that it
    costs nothing while it is off. While it is on, each event costs time in proportion to the days of the ledger.
    """
    for event_type, handler in _UNCHECKED_HANDLERS.items():
        _EVENT_HANDLERS[event_type] = _checked(handler) if enabled else handler


def _checked(handler: Callable[[Ledger, Any], None]) -> Callable[[Ledger, Any], None]:
    def handle(ledger: Ledger, event: Any) -> None:
        handler(ledger, event)
        for day in ledger.days.values():
            for name, quota in day.quotas.items():
                if not _is_conserved(quota):
                    counters = {field: getattr(quota, field) for field in Quota.__slots__}
                    raise AssertionError(f"{ledger.office}, day {day.number}, quota {name}: {counters} after {event}")

    return handle


def _is_conserved(quota: Quota) -> bool:
    """Return True if no unit of the quota is missing, invented or counted twice."""
    return (
        quota.free == quota.capacity - quota.held - quota.confirmed - quota.cooling
        and quota.cooling == quota.parked + sum(units for _, units in quota.cooling_due)
        and min(quota.held, quota.confirmed, quota.cooling, quota.parked) >= 0
    )


def rebuild(office: str, events: Iterable[Event]) -> Ledger:
    """Return the ledger that ``events`` lead to.

    Args:
        office: the office's id.
        events: all events of the office, in order.

    Raises:
        KeyError, IndexError: the events do not fit together.
    """
    ledger = Ledger(office)
    for event in events:
        evolve(ledger, event)
    return ledger


def purge(ledger: Ledger, records_max: int) -> None:
    """Free the memory of up to ``records_max`` records of forgotten days. No outcome or read depends on it."""
    for _ in range(records_max):
        if not ledger.forgotten_days:
            ledger.next_forget_ms = _next_forget_ms(ledger)
            return
        day = ledger.forgotten_days[-1]
        if not day.reservation_ids:
            ledger.forgotten_days.pop()
            continue
        record = ledger.reservations.get(day.reservation_ids.pop())
        # A reservation that was rescheduled away is still listed here, and one that came back is listed twice.
        if record is not None and record.day == day.number:
            del ledger.reservations[record.id]
            if record.state in ACTIVE:
                _unclaim(ledger, record)


def describe(ledger: Ledger, *, records: bool = True) -> dict[str, Any]:
    """Return the ledger's state as builtins. Two ledgers behave the same if their descriptions are equal.

    Forgotten days, caches and event logs are left out. ``records=False`` leaves out the reservations, too.
    """
    known = {key: record for key, record in ledger.reservations.items() if record.day in ledger.days}
    claims: dict[str, list[str]] = {}
    for applicant, ids in ledger.claims.items():
        left = [one for one in ((ids,) if isinstance(ids, str) else ids) if one in known]
        if left:
            claims[applicant] = sorted(left) if len(left) > 1 else left
    return {
        "office": ledger.office,
        "now_ms": ledger.now_ms,
        "rules": msgspec.to_builtins(ledger.rules),
        "forgotten_day_max": ledger.forgotten_day_max,
        "days": {
            day.number: {
                "terms": msgspec.to_builtins(day.terms),
                "closed": day.closed,
                "departed": day.departed,
                "revision": day.revision,
                "last_queue_number": day.last_queue_number,
                "last_wait_list_number": day.last_wait_list_number,
                "waiting": sorted(day.waiting, key=lambda one: (day.waiting[one], one)),
                "quotas": {
                    name: {
                        "capacity": quota.capacity,
                        "free": quota.free,
                        "free_since_ms": quota.free_since_ms,
                        "held": quota.held,
                        "confirmed": quota.confirmed,
                        "cooling": quota.cooling,
                        "parked": quota.parked,
                        "cooling_due": sorted(quota.cooling_due),
                        "guard": msgspec.to_builtins(quota.guard),
                        "re_release": msgspec.to_builtins(quota.re_release),
                        "reallocation": msgspec.to_builtins(quota.reallocation),
                    }
                    for name, quota in sorted(day.quotas.items())
                },
            }
            for day in sorted(ledger.days.values(), key=lambda day: day.number)
        },
        "reservations": {key: msgspec.to_builtins(record) for key, record in sorted(known.items()) if records},
        "claims": dict(sorted(claims.items())),
        "abandoned": msgspec.to_builtins(ledger.abandoned),
        "penalties": {key: msgspec.to_builtins(value) for key, value in sorted(ledger.penalties.items())},
    }
