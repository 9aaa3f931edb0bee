"""A cache of what is sold out, so that a process can refuse reserves without a call to the store. No I/O.

When all places are gone in a second, nearly every later reserve ends as ``SOLD_OUT``, and the store would spend its
time on refusals. Instead, one query for all callers asks the store what is sold out at this moment. It also asks which
ids and applicants may have another outcome, because a record, a claim or a penalty has their name. For a stated
time (the *bound*, 250 ms), counted from before the query was sent, the process refuses all other reserves itself.

Each such outcome is the one that the store would have given at a moment at most the bound ago, by the precedence of
the rules. A place that becomes free is seen within the bound.

Names are only added, never removed by a release or an expiry, so a caller in doubt goes to the store. Between queries
the process follows the office's events, and the number of the last one is the epoch. All names are read again if
events are missing, because they were trimmed or because a server with another history took over.
"""

from __future__ import annotations

__all__ = ["BOUND_MS_DEFAULT", "BOUND_MS_MAX", "CacheLimits", "NameFilter", "RefreshQuery", "SoldOutCache"]

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations, cycle, islice
from typing import Any, Final, NamedTuple

import msgspec

from quota_engine.admission.guarded_command import GuardedCommand, GuardedOutcome
from quota_engine.domain.commands import (
    CheckIn,
    Confirm,
    Expire,
    Extend,
    MarkNoShow,
    PrepareMove,
    Reserve,
    Stay,
    UndoAttendance,
)
from quota_engine.domain.model import Choice
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.forks import call_in_child
from quota_engine.ports import ReserveKind
from quota_engine.stores.redis.codecs.office import applicant_of_text, text_of_choice
from quota_engine.stores.redis.codecs.office_state import names_of_event

BOUND_MS_DEFAULT: Final = 250
BOUND_MS_MAX: Final = 60_000


class CacheLimits(msgspec.Struct, frozen=True):
    """Limits of a cache's memory and of its queries to the store.

    Attributes:
        offices_max: Offices; the one that was queried longest ago is dropped first.
        kinds_max: Kinds of reserves of one office: day, choice, number of applicants, with or without a wait list.
        names_max: Names of one office. An office with more is not cached.
        names_total_max: Names of all offices.
        events_max: Events since the last query. With more, all names are read again.
        refresh_after: Age from which an outcome from the cache causes a refresh, as a part of the bound.
        rest_after_names: Pause before all names are read again, as a multiple of the time that reading them took. It is
            at least the bound.
    """

    offices_max: int = 512
    kinds_max: int = 64
    names_max: int = 100_000
    names_total_max: int = 1_000_000
    events_max: int = 2_000
    refresh_after: float = 0.6
    rest_after_names: float = 50.0


_SOLD_OUT: Final = Outcome(Status.SOLD_OUT)
_STATUS_SOLD_OUT: Final = Status.SOLD_OUT
_NOT_RETURNING: Final = (Reserve, Confirm, CheckIn, Extend, MarkNoShow, UndoAttendance, Stay, PrepareMove)
"""Commands that return no units. After any other command, what was sold out may have become free."""

_MARKS: Final = tuple(sum(1 << bit for bit in bits) for bits in islice(cycle(combinations(range(8), 3)), 64))
_SLOTS_PER_NAME: Final = 16
_SLOTS_MIN: Final = 16384


class NameFilter:
    """A Bloom filter of names, of 8 to 32 bytes each.

    It sometimes contains a name that was never added: one in 400 when it is full. That caller goes to the store. Names
    are never removed. A name sets three of the eight bits of one slot, so a lookup reads one byte.
    """

    __slots__ = ("count", "mask", "table")

    def __init__(self, count: int) -> None:
        """Create a filter with room for ``count`` names at least."""
        slots = _SLOTS_MIN
        while slots < _SLOTS_PER_NAME * count:
            slots *= 2
        self.table = bytearray(slots)
        self.mask = slots - 1
        self.count = 0

    def add(self, names: Iterable[str]) -> None:
        """Add names."""
        table, mask = self.table, self.mask
        for name in names:
            digest = hash(name)
            mark = _MARKS[digest >> 40 & 63]
            if table[digest & mask] & mark != mark:
                table[digest & mask] |= mark
                self.count += 1

    def is_full(self) -> bool:
        """Return True if a larger filter is due."""
        return self.count > 2 * len(self.table) // _SLOTS_PER_NAME


def _has_mark(slot: int, name: str) -> bool:
    """Return True if a name has left its mark in its slot of a filter."""
    mark = _MARKS[hash(name) >> 40 & 63]
    return slot & mark == mark


_Snapshot = tuple[float, float, float, frozenset[ReserveKind], bytearray, int]
"""The store's reply to one query, and the filter of known names.

It has three times in seconds: those of the query, from which a refresh is due, and until which it is used. The kinds of
reserves that are sold out follow, then table and mask of the filter. Each reserve unpacks it, and unpacking a named
tuple takes several times longer. Threads read it without a lock: only the filter's table changes, and only by added
names.
"""


class _OfficeCache:
    """The state of one office in the cache."""

    __slots__ = (
        "is_refreshing",
        "kinds",
        "last_event",
        "last_event_at",
        "last_event_number",
        "names",
        "pending_names",
        "quiet_until_s",
        "rest_until_s",
        "snapshot",
        "sold_out_s",
        "version",
    )

    def __init__(self) -> None:
        self.snapshot: _Snapshot | None = None
        self.kinds: dict[ReserveKind, tuple[Choice, str]] = {}
        """The choice of each kind, kept so that its ``id()`` stays unique, and its line for the script."""
        self.names: NameFilter | None = None
        self.last_event_number = 0
        self.last_event_at = ""
        self.last_event = ""
        self.is_refreshing = False
        self.version = 0
        self.rest_until_s = float("-inf")
        self.quiet_until_s = float("-inf")
        self.sold_out_s = float("-inf")
        self.pending_names: list[str] = []
        """Names that became known while a refresh is in flight."""


class RefreshQuery(NamedTuple):
    """A query to the store.

    Attributes:
        office: The office.
        lines: Questions for the script of queries.
        cached: The state of the office in the cache.
        kinds: The kinds of reserves that it asks about. It keeps their choices, so that their ``id()`` stays unique.
        is_for_all: True if it asks for all names instead of new events.
        version: The office's version when it was made; a later version makes the reply useless.
        asked_s: When it was made.
    """

    office: str
    lines: Sequence[str]
    cached: _OfficeCache
    kinds: Sequence[tuple[ReserveKind, Choice]]
    is_for_all: bool
    version: int
    asked_s: float


class SoldOutCache:
    """The sold-out cache of one store. Safe to use from several threads.

    The store asks :meth:`get` before a call and reports the outcome with :meth:`record_outcome`. When an office is in
    :attr:`due_offices`, the store removes it there, sends the query of :meth:`begin_refresh`, hands the reply to
    :meth:`apply_reply`, and calls :meth:`end_refresh`.

    The cache refuses plain reserves only. It cannot answer a guarded reserve, because ``NOT_ADMITTED`` and
    ``THROTTLED`` precede ``SOLD_OUT``. Only the store knows whether a pass has been used and whether tokens are left,
    and a reserve that ends as ``SOLD_OUT`` still takes its tokens. Nor does the cache answer a reserve with
    ``valid_until_ms``, because the store's clock decides ``COMMAND_EXPIRED``.
    """

    def __init__(
        self,
        bound_ms: int = BOUND_MS_DEFAULT,
        now_s: Callable[[], float] = time.monotonic,
        limits: CacheLimits = CacheLimits(),  # noqa: B008 - immutable
    ) -> None:
        """Create a cache.

        Args:
            bound_ms: The time for which it answers from one query, 0 to ``BOUND_MS_MAX`` milliseconds; 0 disables it.
            now_s: Returns seconds, which are compared with each other only. If they go back, nothing is known.
            limits: Limits of its memory.
        """
        self.due_offices: deque[str] = deque()
        """Offices whose refresh is due now."""
        self._bound_s = bound_ms / 1000
        self._now_s = now_s
        self._limits = limits
        self.offices: dict[str, _OfficeCache] = {}
        """The state of each office. While it is empty, only ``SOLD_OUT`` is worth a report."""
        self._lock = threading.Lock()
        call_in_child(self._after_fork)

    def _after_fork(self) -> None:
        """Forget everything: a thread of the parent may have been in the middle of a change."""
        self.due_offices = deque()
        self.offices = {}
        self._lock = threading.Lock()

    def get(self, office: str, command: Reserve) -> Outcome | None:
        """Return ``SOLD_OUT`` if the store had it for this reserve at most the bound ago, or ``None``."""
        if command.valid_until_ms:
            return None
        kind = id(command.choice), command.day, len(command.applicants), command.join_wait_list
        return self.find(office, kind, command.id, command.applicants)

    def find(self, office: str, kind: ReserveKind, id_: str, applicants: tuple[str, ...]) -> Outcome | None:
        """Return what :meth:`get` returns for a reserve of this kind."""
        cached = self.offices.get(office)
        if cached is None or (snapshot := cached.snapshot) is None:
            return None
        asked_s, refresh_s, until_s, sold_out, table, mask = snapshot
        if kind not in sold_out:
            return None
        now_s = self._now_s()
        if not asked_s <= now_s < until_s:
            return None
        # Most slots are empty.
        if (slot := table[hash(id_) & mask]) and _has_mark(slot, id_):
            return None
        for name in applicants:
            if (slot := table[hash(name) & mask]) and _has_mark(slot, name):
                return None
        if now_s >= refresh_s and not cached.is_refreshing:
            self._request_refresh(office, cached, now_s)
        return _SOLD_OUT

    def record_outcome(self, office: str, command: Any, outcome: Any) -> None:
        """Learn from the store's outcome of a command."""
        if isinstance(outcome, GuardedOutcome):
            command, outcome = command.command, outcome.outcome
        cached = self.offices.get(office)
        if type(command) is Reserve and outcome.status is _STATUS_SOLD_OUT:
            self._record_sold_out(office, cached, command)
        elif cached is not None and outcome.ok:
            record = outcome.reservation
            if record is not None:
                self._add_names(cached, record.id, *record.applicants)
            returns_units = type(command) not in _NOT_RETURNING and not outcome.replayed
            if returns_units and (type(command) is not Expire or outcome.units):
                self._invalidate(cached)

    def record_unknown(self, office: str, command: Any) -> None:
        """Learn that a command may have been applied, or may be later. Its caller must get the store's answer next."""
        cached = self.offices.get(office)
        if cached is None:
            return
        if type(command) is GuardedCommand:
            command = command.command
        if type(command) is Reserve:
            self._add_names(cached, command.id, *command.applicants)
        else:
            self._invalidate(cached)

    def begin_refresh(self, office: str) -> RefreshQuery | None:
        """Return the query for an office, or ``None`` if it was dropped from the cache.

        Call :meth:`end_refresh` when it has been answered, or cannot be any more.
        """
        with self._lock:
            cached = self.offices.get(office)
            return None if cached is None else self._query(office, cached)

    def apply_reply(self, query: RefreshQuery, lines: Sequence[str]) -> RefreshQuery | None:
        """Apply the store's reply; returns a query for all names if the reply does not show which names are new."""
        with self._lock:
            cached, now_s = query.cached, self._now_s()
            if self.offices.get(query.office) is not cached:
                return None
            head, *answers = lines
            if query.is_for_all:
                self._apply_names(cached, head, query.asked_s, now_s)
            elif cached.names is None or not _follow_events(cached, head):
                cached.snapshot = cached.names = None
                return self._query(query.office, cached) if now_s >= cached.rest_until_s else None
            if cached.names is None or query.version != cached.version:
                return None
            sold_out = set()
            for (kind, _), answer in zip(query.kinds, answers, strict=True):
                if answer != "1":
                    cached.kinds.pop(kind, None)
                elif kind in cached.kinds:
                    sold_out.add(kind)
            asked_s, bound_s = query.asked_s, self._bound_s
            refresh_s = asked_s + self._limits.refresh_after * bound_s
            table, mask = cached.names.table, cached.names.mask
            cached.snapshot = asked_s, refresh_s, asked_s + bound_s, frozenset(sold_out), table, mask
            self.offices[query.office] = self.offices.pop(query.office)
            return None

    def end_refresh(self, query: RefreshQuery, *, is_unavailable: bool) -> None:
        """End a refresh, answered or not. After an unavailable store the office rests for the bound."""
        with self._lock:
            cached = query.cached
            cached.is_refreshing = False
            cached.pending_names.clear()
            if is_unavailable:
                cached.quiet_until_s = self._now_s() + self._bound_s

    def close(self) -> None:
        """Forget everything, and remember nothing from now on."""
        with self._lock:
            self._bound_s = 0.0
            self.offices = {}
            self.due_offices.clear()

    def _request_refresh(self, office: str, cached: _OfficeCache, now_s: float) -> None:
        """Make a refresh due, unless one is in flight or the office rests."""
        with self._lock:
            is_resting = now_s < cached.quiet_until_s or (cached.names is None and now_s < cached.rest_until_s)
            if not is_resting and not cached.is_refreshing and self._bound_s:
                cached.is_refreshing = True
                self.due_offices.append(office)

    def _record_sold_out(self, office: str, cached: _OfficeCache | None, command: Reserve) -> None:
        """Remember a kind of reserve that the store refused. The second refusal within the bound starts a refresh."""
        if not self._bound_s:
            return
        choice, units = command.choice, len(command.applicants)
        kind = (id(choice), command.day, units, command.join_wait_list)
        now_s = self._now_s()
        with self._lock:
            if cached is None:
                cached = self.offices.get(office) or self._add_office(office)
            snapshot = cached.snapshot
            if snapshot is not None:
                asked_s, _, until_s, sold_out, _, _ = snapshot
                if kind in sold_out and asked_s <= now_s < until_s:
                    return  # known already: the caller's name was in the filter
            if kind not in cached.kinds:
                if len(cached.kinds) >= self._limits.kinds_max:
                    oldest = next(iter(cached.kinds))
                    del cached.kinds[oldest]
                    if snapshot is not None:
                        cached.snapshot = (*snapshot[:3], snapshot[3] - {oldest}, *snapshot[4:])
                line = f"sold_out\t{command.day}\t{units}\t{int(command.join_wait_list)}\t{text_of_choice(choice)}"
                cached.kinds[kind] = choice, line
            # A single refusal is not worth a query; two within the bound are a load spike.
            is_spike = 0 <= now_s - cached.sold_out_s < self._bound_s
            cached.sold_out_s = now_s
        if is_spike and not cached.is_refreshing:
            self._request_refresh(office, cached, now_s)

    def _add_names(self, cached: _OfficeCache, *names: str) -> None:
        """Add names that have a place, or may have one. A reply in flight does not remove them."""
        with self._lock:
            if cached.names is not None:
                cached.names.add(names)
            if cached.is_refreshing:
                cached.pending_names.extend(names)

    def _invalidate(self, cached: _OfficeCache) -> None:
        """Forget what is sold out. A reply in flight does not restore it."""
        with self._lock:
            cached.snapshot = None
            cached.version += 1

    def _add_office(self, office: str) -> _OfficeCache:
        cached = self.offices[office] = _OfficeCache()
        while len(self.offices) > self._limits.offices_max:
            del self.offices[next(iter(self.offices))]
        return cached

    def _query(self, office: str, cached: _OfficeCache) -> RefreshQuery:
        names, limits, now_s = cached.names, self._limits, self._now_s()
        is_for_all = names is None or (names.is_full() and now_s >= cached.rest_until_s)
        if is_for_all:
            first = f"all_names\t{limits.names_max}"
        else:
            first = f"events_since\t{cached.last_event_number}\t{limits.events_max + 1}"
        lines = [first, *(line for _, line in cached.kinds.values())]
        kinds = [(kind, choice) for kind, (choice, _) in cached.kinds.items()]
        return RefreshQuery(office, lines, cached, kinds, is_for_all, cached.version, now_s)

    def _apply_names(self, cached: _OfficeCache, text: str, asked_s: float, now_s: float) -> None:
        """Replace all names, and follow events from the last one of the reply."""
        cached.snapshot = cached.names = None
        cached.rest_until_s = asked_s + max(self._bound_s, self._limits.rest_after_names * (now_s - asked_s))
        if not text:
            return  # more than names_max
        head, last_event, ids, *rows = text.split("\n")
        number, at = head.split("\t")
        applicants = [one for row in rows for one in row.split("\t")]
        names = ids.split("\t")
        cached.last_event_number, cached.last_event_at, cached.last_event = int(number), at, last_event
        cached.names = NameFilter(len(names) + len(applicants))
        cached.names.add(names)
        cached.names.add(map(applicant_of_text, applicants))
        cached.names.add(cached.pending_names)
        self._drop_excess_names(cached)

    def _drop_excess_names(self, cached: _OfficeCache) -> None:
        """Forget the names of the offices that were queried longest ago, until the total is within its limit."""
        total = sum(one.names.count for one in self.offices.values() if one.names is not None)
        for one in self.offices.values():
            if total <= self._limits.names_total_max:
                return
            if one is not cached and one.names is not None:
                total -= one.names.count
                one.snapshot = one.names = None
                one.version += 1


def _follow_events(cached: _OfficeCache, text: str) -> bool:
    """Add the names of new events; returns False if the reply does not show that they are complete.

    The reply begins with the last known event, if it is still stored. Another event with its number belongs to another
    history: a server took over that never had ours.
    """
    assert cached.names is not None
    head, *rows = text.split("\n")
    number_text, at = head.split("\t")
    number = int(number_text)
    events = [row.partition("\t") for row in rows]
    if events and events[0][0] == str(cached.last_event_number):
        if events[0][2] != cached.last_event:
            return False
        events = events[1:]
    elif (number, at) != (cached.last_event_number, cached.last_event_at):
        return False  # trimmed: the events that follow may belong to another history
    if number - cached.last_event_number != len(events):
        return False
    for _, _, event in events:
        cached.names.add(names_of_event(event))
    if events:
        cached.last_event = events[-1][2]
    cached.last_event_number, cached.last_event_at = number, at
    return True
