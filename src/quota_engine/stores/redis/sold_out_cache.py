"""What this process knows to be sold out, so that those who lose need not ask the store. No I/O: both backends use it.

When a rush is over in a second, nearly everybody who comes is told ``SOLD_OUT``, and the store could go on telling it
to each of them. Here it tells the process, by one question for all, what is sold out *at this moment* and who must not
be told so: whoever is in a record, has a claim or a standing. For a stated time (the *bound*, 250 ms) counted from
before the question was sent, anybody else is answered from that. So each such answer is the one that the store would
have given at a moment at most the bound ago, by the rules' precedence; and a place that comes back is seen within the
bound.

Names are never forgotten by release or expiry, only added: whoever is in doubt asks the store. Between questions they
follow the office's events (the number of the last one is the epoch); if that thread is lost, by trimming or by a
failover to a server that has another history, all names are read anew.
"""

from __future__ import annotations

__all__ = ["BOUND_MS_DEFAULT", "BOUND_MS_MAX", "RefreshQuery", "SoldOutCache"]

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations, cycle, islice
from typing import Any, Final, NamedTuple

import msgspec

from quota_engine.admission.guarded_reserve import GuardedOutcome, GuardedReserve
from quota_engine.domain.commands import CheckIn, Confirm, Expire, MarkNoShow, PrepareMove, Reserve
from quota_engine.domain.model import Choice
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.stores.redis.codecs.office import applicant_of_text, names_of_event, text_of_choice

BOUND_MS_DEFAULT: Final = 250
BOUND_MS_MAX: Final = 60_000


class CacheLimits(msgspec.Struct, frozen=True):
    """How much is remembered, and how much the store is asked for it. Times are parts of the bound."""

    offices_max: int = 512
    questions_max: int = 64
    """Of one office: kinds of reserves (day, choice, number of applicants, with or without waiting)."""
    names_max: int = 100_000
    """Of one office with more, nothing is remembered."""
    names_total_max: int = 1_000_000
    events_max: int = 2_000
    """If more have happened since the last question, all names are read anew."""
    refresh_after: float = 0.6
    """From this age on, whoever is answered from memory has it refreshed; the others go on being answered."""
    rest_after_names: float = 50.0
    """Before all names are read again there is a rest of so many times as long as that took, and at least the bound."""


_SOLD_OUT: Final = Outcome(Status.SOLD_OUT)
_STATUS_SOLD_OUT: Final = Status.SOLD_OUT
_TAKING: Final = (Reserve, Confirm, CheckIn, MarkNoShow, PrepareMove)
"""Commands that give no units back. After any other, known here or not, what was sold out need not be so any more."""

_MARKS: Final = tuple(sum(1 << bit for bit in bits) for bits in islice(cycle(combinations(range(8), 3)), 64))
_SLOTS_A_NAME: Final = 16
_SLOTS_MIN: Final = 16384

_Key = tuple[int, int, int, bool]
"""A kind of reserve: the choice (its ``id()``, which lasts because the choice is kept), day, applicants, wait."""


class NameFilter:
    """A set of names that takes 8 to 32 bytes each, and now and then claims to have one that it has not (one in 400 if
    it is full), who then asks the store. Nothing is taken out. A name sets three of the eight bits of a slot.
    """

    __slots__ = ("count", "mask", "table")

    def __init__(self, count: int) -> None:
        """``count``: how many there will be at first."""
        slots = _SLOTS_MIN
        while slots < _SLOTS_A_NAME * count:
            slots *= 2
        self.table = bytearray(slots)
        self.mask = slots - 1
        self.count = 0

    def add(self, names: Iterable[str]) -> None:
        """Put them in."""
        table, mask = self.table, self.mask
        for name in names:
            digest = hash(name)
            mark = _MARKS[digest >> 40 & 63]
            if table[digest & mask] & mark != mark:
                table[digest & mask] |= mark
                self.count += 1

    def is_full(self) -> bool:
        """Whether it is time for a larger one."""
        return self.count > 2 * len(self.table) // _SLOTS_A_NAME


class _Seen(NamedTuple):
    """What the store said at one moment after ``asked_s``, and the table of who is known. Never changed but for names
    that are added, so that threads need no lock to look at it.
    """

    asked_s: float
    refresh_s: float
    until_s: float
    sold_out: frozenset[_Key]
    table: bytearray
    mask: int


class _Office:
    """What is known of one office, and the thread of its events."""

    __slots__ = (
        "at",
        "is_asking",
        "mark",
        "names",
        "number",
        "questions",
        "quiet_until_s",
        "rest_until_s",
        "seen",
        "sold_out_s",
        "version",
        "whispers",
    )

    def __init__(self) -> None:
        self.seen: _Seen | None = None
        self.questions: dict[_Key, tuple[Choice, str]] = {}
        self.names: NameFilter | None = None
        self.number = 0
        self.at = ""
        self.mark = ""
        self.is_asking = False
        self.version = 0
        self.rest_until_s = float("-inf")
        self.quiet_until_s = float("-inf")
        self.sold_out_s = float("-inf")
        self.whispers: list[str] = []


class RefreshQuery(NamedTuple):
    """``lines`` for the script that looks; the rest is for :meth:`SoldOut.learn`. ``is_for_all``: it asks who is known,
    not what is new. It keeps the choices that it asks about, whose ``id()`` no other one can have meanwhile.
    """

    office: str
    lines: Sequence[str]
    here: _Office
    kinds: Sequence[tuple[_Key, Choice]]
    is_for_all: bool
    version: int
    asked_s: float


class SoldOutCache:
    """The memory of one backend. Safe to use from several threads.

    A backend asks :meth:`answer` before it goes to the store and tells :meth:`saw` what the store said; when an office
    is in :attr:`due`, it takes it out, puts the lines of :meth:`ask` to the store and hands the reply to :meth:`learn`.
    """

    def __init__(
        self,
        bound_ms: int = BOUND_MS_DEFAULT,
        now_s: Callable[[], float] = time.monotonic,
        bounds: CacheLimits = CacheLimits(),  # noqa: B008 - immutable
    ) -> None:
        """``bound_ms`` 0 switches it off. ``now_s`` is only compared with itself; if it goes back, nothing is known."""
        self.due_offices: deque[str] = deque()
        """Offices that someone should ask about, now."""
        self._bound_s = bound_ms / 1000
        self._now_s = now_s
        self._bounds = bounds
        self._offices: dict[str, _Office] = {}
        self._lock = threading.Lock()

    def get(self, office: str, command: Reserve) -> Outcome | None:
        """``SOLD_OUT``, if it was that at a moment less than the bound ago for this command; else ``None``."""
        here = self._offices.get(office)
        seen = here.seen if here is not None else None
        if here is None or seen is None:
            return None
        asked_s, refresh_s, until_s, sold_out, table, mask = seen
        applicants = command.applicants
        if (id(command.choice), command.day, len(applicants), command.join_wait_list) not in sold_out:
            return None
        now_s = self._now_s()
        if not asked_s <= now_s < until_s or command.valid_until_ms:
            return None
        # As ``Names`` has them: most slots are empty.
        digest = hash(command.id)
        if (slot := table[digest & mask]) and slot & (mark := _MARKS[digest >> 40 & 63]) == mark:
            return None
        for name in applicants:
            digest = hash(name)
            if (slot := table[digest & mask]) and slot & (mark := _MARKS[digest >> 40 & 63]) == mark:
                return None
        if now_s >= refresh_s and not here.is_asking:
            self._want(office, here, now_s)
        return _SOLD_OUT

    def record_outcome(self, office: str, command: Any, outcome: Any) -> None:
        """The store has answered ``command`` so."""
        if isinstance(outcome, GuardedOutcome):  # a reserve with conditions: what it came to is as true
            command, outcome = command.reserve, outcome.outcome
        here = self._offices.get(office)
        if type(command) is Reserve and outcome.status is _STATUS_SOLD_OUT:
            self._was_sold_out(office, here, command)
        elif here is not None and outcome.ok:
            record = outcome.reservation
            if record is not None:
                self._note(here, record.id, *record.applicants)
            if type(command) not in _TAKING and not outcome.replayed and (type(command) is not Expire or outcome.units):
                self._drop(here)

    def record_unknown(self, office: str, command: Any) -> None:
        """``command`` may have been carried out, or be yet: whoever sent it must be told the truth when they ask."""
        here = self._offices.get(office)
        if here is None:
            return
        if type(command) is GuardedReserve:
            command = command.reserve
        if type(command) is Reserve:
            self._note(here, command.id, *command.applicants)
        else:
            self._drop(here)

    def begin_refresh(self, office: str) -> RefreshQuery | None:
        """What to ask the store about the office, before anything else is done; ``None`` if it is not known any more.

        When it has been answered, or never will be, :meth:`done` must be called.
        """
        with self._lock:
            here = self._offices.get(office)
            return None if here is None else self._question(office, here)

    def apply_reply(self, question: RefreshQuery, lines: Sequence[str]) -> RefreshQuery | None:
        """Take in the store's reply; returns what else has to be asked: all names, if it can't be told who is new."""
        with self._lock:
            here, now_s = question.here, self._now_s()
            if self._offices.get(question.office) is not here:
                return None
            head, *answers = lines
            if question.is_for_all:
                self._take_all(here, head, question.asked_s, now_s)
            elif here.names is None or not _follow(here, head):
                here.seen = here.names = None
                return self._question(question.office, here) if now_s >= here.rest_until_s else None
            if here.names is None or question.version != here.version:
                return None
            sold_out = set()
            for (key, _), answer in zip(question.kinds, answers, strict=True):
                if answer != "1":
                    here.questions.pop(key, None)
                elif key in here.questions:
                    sold_out.add(key)
            asked_s, bound_s = question.asked_s, self._bound_s
            refresh_s = asked_s + self._bounds.refresh_after * bound_s
            table, mask = here.names.table, here.names.mask
            here.seen = _Seen(asked_s, refresh_s, asked_s + bound_s, frozenset(sold_out), table, mask)
            self._offices[question.office] = self._offices.pop(question.office)
            return None

    def end_refresh(self, question: RefreshQuery, *, is_away: bool) -> None:
        """The question, or the last of several, has been answered or never will be."""
        with self._lock:
            here = question.here
            here.is_asking = False
            here.whispers.clear()
            if is_away:
                here.quiet_until_s = self._now_s() + self._bound_s

    def close(self) -> None:
        """Forget all, and remember nothing from now on."""
        with self._lock:
            self._bound_s = 0.0
            self._offices = {}
            self.due_offices.clear()

    def _want(self, office: str, here: _Office, now_s: float) -> None:
        with self._lock:
            may_ask = now_s >= here.quiet_until_s and (here.names is not None or now_s >= here.rest_until_s)
            if may_ask and not here.is_asking and self._bound_s:
                here.is_asking = True
                self.due_offices.append(office)

    def _was_sold_out(self, office: str, here: _Office | None, command: Reserve) -> None:
        if not self._bound_s:
            return
        choice, units = command.choice, len(command.applicants)
        key = (id(choice), command.day, units, command.join_wait_list)
        now_s = self._now_s()
        with self._lock:
            if here is None:
                here = self._offices.get(office) or self._make(office)
            seen = here.seen
            if seen is not None and key in seen.sold_out and seen.asked_s <= now_s < seen.until_s:
                return  # only in doubt whether they are known
            if key not in here.questions:
                if len(here.questions) >= self._bounds.questions_max:
                    oldest = next(iter(here.questions))
                    del here.questions[oldest]
                    if seen is not None:
                        here.seen = seen._replace(sold_out=seen.sold_out - {oldest})
                line = f"sold_out\t{command.day}\t{units}\t{int(command.join_wait_list)}\t{text_of_choice(choice)}"
                here.questions[key] = choice, line
            # One who looks in now and then is not worth a question of our own; two within the bound are a rush.
            is_rush = 0 <= now_s - here.sold_out_s < self._bound_s
            here.sold_out_s = now_s
        if is_rush and not here.is_asking:
            self._want(office, here, now_s)

    def _note(self, here: _Office, *names: str) -> None:
        """Whoever has a place, or may have one, is known from this moment on, whatever an answer under way says."""
        with self._lock:
            if here.names is not None:
                here.names.add(names)
            if here.is_asking:
                here.whispers.extend(names)

    def _drop(self, here: _Office) -> None:
        with self._lock:
            here.seen = None
            here.version += 1

    def _make(self, office: str) -> _Office:
        here = self._offices[office] = _Office()
        while len(self._offices) > self._bounds.offices_max:
            del self._offices[next(iter(self._offices))]
        return here

    def _question(self, office: str, here: _Office) -> RefreshQuery:
        names, bounds, now_s = here.names, self._bounds, self._now_s()
        is_for_all = names is None or (names.is_full() and now_s >= here.rest_until_s)
        first = f"names\t{bounds.names_max}" if is_for_all else f"news\t{here.number}\t{bounds.events_max + 1}"
        lines = [first, *(line for _, line in here.questions.values())]
        kinds = [(key, choice) for key, (choice, _) in here.questions.items()]
        return RefreshQuery(office, lines, here, kinds, is_for_all, here.version, now_s)

    def _take_all(self, here: _Office, text: str, asked_s: float, now_s: float) -> None:
        """All names, and the event to follow from."""
        here.seen = here.names = None
        here.rest_until_s = asked_s + max(self._bound_s, self._bounds.rest_after_names * (now_s - asked_s))
        if not text:
            return  # too many
        head, mark, ids, *rows = text.split("\n")
        number, at = head.split("\t")
        applicants = [one for row in rows for one in row.split("\t")]
        names = ids.split("\t")
        here.number, here.at, here.mark = int(number), at, mark
        here.names = NameFilter(len(names) + len(applicants))
        here.names.add(names)
        here.names.add(map(applicant_of_text, applicants))
        here.names.add(here.whispers)
        self._make_room(here)

    def _make_room(self, here: _Office) -> None:
        """Forget the names of the offices that were asked about longest ago, until all are within bounds."""
        total = sum(one.names.count for one in self._offices.values() if one.names is not None)
        for one in self._offices.values():
            if total <= self._bounds.names_total_max:
                return
            if one is not here and one.names is not None:
                total -= one.names.count
                one.seen = one.names = None
                one.version += 1


def _follow(here: _Office, text: str) -> bool:
    """Take in the names of what has happened since; ``False`` if it can not be told whether that is all."""
    assert here.names is not None
    head, *rows = text.split("\n")
    number_text, at = head.split("\t")
    number = int(number_text)
    events = [row.partition("\t") for row in rows]
    if events and events[0][0] == str(here.number):
        if events[0][2] != here.mark:
            return False  # another history: a server has taken over that had never heard of ours
        events = events[1:]
    elif (number, at) != (here.number, here.at):
        return False  # trimmed: nothing tells whether what follows is of the same history
    if number - here.number != len(events):
        return False
    for _, _, event in events:
        here.names.add(names_of_event(event))
    if events:
        here.mark = events[-1][2]
    here.number, here.at = number, at
    return True
