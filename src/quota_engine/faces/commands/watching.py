"""``quota-engine watch``: what the operators' page shows, on a terminal."""

from __future__ import annotations

__all__ = ["watch"]

import contextlib
import datetime
import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from quota_engine.adapters.clocks import SystemClock
from quota_engine.admission.room import LookRoom, RoomStatus
from quota_engine.domain.errors import InvalidRequest, QuotaEngineError
from quota_engine.domain.outcomes import DayView
from quota_engine.domain.values import check_integer, check_name
from quota_engine.faces.commands.looking import AsJson, Office, days_of, offices_of, opened, table_of
from quota_engine.faces.looks import LEFT_UNKNOWN, RoomLook, RoomPhase, Verdict, openings, plain_day, room_look
from quota_engine.faces.service.releases import room_id
from quota_engine.ports import Ask, Audit, Backend, View

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

_DONE, _BAD_FINDING = 0, 1
_ROOM_DAYS: Final = 62
"""Waiting rooms are looked for among the openings of so many days."""
_JOIN_S: Final = 2
"""An audit that is under way when watching ends is not waited for any longer."""
_FINDINGS_SHOWN: Final = 5


class OfficeLook(msgspec.Struct, frozen=True):
    """One office: its days, and its waiting rooms as far as there are any."""

    office: str
    days: tuple[DayView, ...]
    rooms: tuple[RoomLook, ...]


class Look(msgspec.Struct, frozen=True):
    """Everything that is watched, at a moment."""

    at_ms: int
    offices: tuple[OfficeLook, ...]

    def plain(self, verdict: Verdict | None) -> dict[str, Any]:
        """It as JSON, with the verdict of the last audit."""
        return {
            "at_ms": self.at_ms,
            "offices": [
                {
                    "office": one.office,
                    "days": [plain_day(view) for view in one.days],
                    "rooms": [msgspec.to_builtins(room) for room in one.rooms],
                }
                for one in self.offices
            ],
            "verdict": verdict.plain() if verdict else None,
        }


class _Watched(Protocol):
    """Where looks come from."""

    def look(self) -> Look:
        """Look now."""
        ...

    def audit(self) -> Verdict:
        """Work everything out again. Takes its time, and may run beside a look."""
        ...


class _Store:
    """A store, looked at directly: needs no catalog, and moves no waiting room on."""

    def __init__(
        self,
        store: Backend,
        offices: Office,
        rooms: tuple[str, ...],
        days: tuple[int, ...],
        now_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._wanted = offices
        self._rooms = rooms
        self._days = days
        self._now_ms = now_ms

    def look(self) -> Look:
        now_ms = self._now_ms()
        offices = [self._office(office, now_ms) for office in offices_of(self._store, self._wanted)]
        known = {room.room for one in offices for room in one.rooms}
        named = [room for room in (self._room(name) for name in self._rooms if name not in known) if room is not None]
        missing = set(self._rooms) - known - {room.room for room in named}
        if missing:
            raise InvalidRequest("--room", repr(sorted(missing)[0]), "the id of a waiting room that the store has")
        return Look(now_ms, tuple(_with_rooms(one, named) for one in offices))

    def _office(self, office: str, now_ms: int) -> OfficeLook:
        first = min(self._days[0], datetime.datetime.fromtimestamp(now_ms / 1000, tz=datetime.UTC).toordinal())
        last = max(self._days[-1], first + _ROOM_DAYS - 1)
        views = self._store.perform(View(office, tuple(range(first, last + 1))))
        found = [self._room(room_id(office, moment)) for moment in openings(views, now_ms)]
        days = tuple(view for view in views if self._days[0] <= view.day <= self._days[-1])
        return OfficeLook(office, days, tuple(room for room in found if room is not None))

    def _room(self, room: str) -> RoomLook | None:
        answer = self._store.perform(Ask(f"~room.{room}", LookRoom()))
        return None if answer.status is RoomStatus.NOT_FOUND or answer.view is None else room_look(room, answer.view)

    def audit(self) -> Verdict:
        offices = offices_of(self._store, self._wanted)
        at_ms = self._now_ms()
        return Verdict(at_ms, len(offices), tuple(line for one in offices for line in self._store.perform(Audit(one))))


def _with_rooms(one: OfficeLook, named: list[RoomLook]) -> OfficeLook:
    return OfficeLook(one.office, one.days, (*one.rooms, *(room for room in named if room.office == one.office)))


def watch(
    backend: str,
    *,
    office: Office = (),
    room: tuple[str, ...] = (),
    first_day: str = "",
    days: int = 7,
    every_ms: int = 1000,
    audit_every_s: int = 300,
    times: int = 0,
    once: bool = False,
    as_json: AsJson = False,
) -> int:
    """Show what the operators' page shows, and keep it up to date until interrupted: the counters of offices and days,
    how long the waiting rooms are and how fast they go, and the audit's verdict.

    Exit code 0: done; 1: the last audit found something; 2: bad usage; 3: the store was not reached.

    Args:
        backend: the URL of the store.
        office: only these offices (may be given several times); otherwise all that the store has.
        room: the id of a waiting room to show besides those of the offices' releases (may be given several times).
        first_day: an ISO date; today if not given.
        days: how many days from the first on.
        every_ms: how long to wait between two looks, in milliseconds.
        audit_every_s: how long after an audit the next one begins, in seconds; 0: none at all.
        times: how often to look; 0: until interrupted.
        once: look once, audit once (unless told not to), print it, and end.
        as_json: print a line of JSON a look, and nothing else.
    """
    check_integer(every_ms, "--every-ms", 100, 3_600_000)
    check_integer(times, "--times", 0, 10**9)
    check_integer(audit_every_s, "--audit-every-s", 0, 86_400)
    for name in room:
        check_name(name, "--room")
    numbers = days_of(first_day, days)
    with opened(backend) as store:
        watched = _Store(store, office, room, numbers, SystemClock().now_ms)
        auditor = _Auditor(watched, audit_every_s)
        with _lines() if as_json else _screen() as show:
            try:
                if once:
                    _once(watched, auditor, show)
                else:
                    with auditor:
                        _go_on(watched, auditor, show, times, every_ms)
            except KeyboardInterrupt:
                pass  # this is how watching ends
    return _DONE if auditor.verdict is None or auditor.verdict.ok else _BAD_FINDING


class _Show(Protocol):
    """Puts a look before somebody's eyes: the last one that there is, what auditing came to, and what is amiss."""

    def __call__(self, look: Look | None, auditor: _Auditor, problem: str) -> None: ...


class _Auditor:
    """Audits now and then, beside the looks: a large store takes its time."""

    def __init__(self, watched: _Watched, every_s: int) -> None:
        self._watched = watched
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.verdict: Verdict | None = None
        self.problem = ""

    @property
    def is_wanted(self) -> bool:
        """Whether there will ever be a verdict."""
        return bool(self._every_s)

    def audit(self) -> None:
        """Audit once, here."""
        self.verdict, self.problem = self._watched.audit(), ""

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.audit()
            except QuotaEngineError as error:
                self.problem = str(error)
            self._stop.wait(self._every_s)

    def __enter__(self) -> None:
        if self.is_wanted:
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self.is_wanted:
            self._thread.join(_JOIN_S)


def _once(watched: _Watched, auditor: _Auditor, show: _Show) -> None:
    look = watched.look()
    if auditor.is_wanted:
        auditor.audit()
    show(look, auditor, "")


def _go_on(watched: _Watched, auditor: _Auditor, show: _Show, times: int, every_ms: int) -> None:
    look: Look | None = None
    for count in itertools.count(1):
        problem = ""
        try:
            look = watched.look()
        except InvalidRequest:
            raise
        except QuotaEngineError as error:
            problem = str(error)
        show(look, auditor, problem)
        if count == times:
            return
        time.sleep(every_ms / 1000)


@contextlib.contextmanager
def _lines() -> Iterator[_Show]:
    """A line of JSON a look."""

    def show(look: Look | None, auditor: _Auditor, problem: str) -> None:
        plain = look.plain(auditor.verdict) if look and not problem else {"problem": problem}
        sys.stdout.write(msgspec.json.encode(plain).decode() + "\n")
        sys.stdout.flush()

    yield show


@contextlib.contextmanager
def _screen() -> Iterator[_Show]:
    """On a terminal a screen of its own, whose last state is left standing; elsewhere one look below the other."""
    from rich.console import Console
    from rich.live import Live
    from rich.segment import Segment, Segments

    console = Console()
    last: list[RenderableType] = []

    def show(look: Look | None, auditor: _Auditor, problem: str) -> None:
        content = _content(look, auditor, problem)
        if live is None:
            console.print(content)
            return
        last[:] = [content]
        lines = console.render_lines(content, pad=False)
        if len(lines) > console.height:
            hidden = len(lines) - console.height + 1
            lines = [*lines[: console.height - 1], [Segment(f"… {hidden} more lines: --office shows fewer offices")]]
        live.update(Segments([each for line in lines for each in (*line, Segment.line())]), refresh=True)

    with contextlib.ExitStack() as stack:
        live = (
            stack.enter_context(Live(console=console, auto_refresh=False, screen=True)) if console.is_terminal else None
        )
        yield show
    for content in last:
        console.print(content)


def _content(look: Look | None, auditor: _Auditor, problem: str) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = []
    if problem:
        parts.append(Text(f"The store does not answer, looking again: {problem}", style="bold red"))
    if look is None:
        return Group(*parts)
    head = Text(f"{_time(look.at_ms)}  ", style="bold")
    head.append_text(_verdict(auditor))
    parts.append(head)
    for one in look.offices:
        parts += [_room(room) for room in one.rooms]
    parts.append(table_of({one.office: list(one.days) for one in look.offices}, look.at_ms))
    return Group(*parts)


def _verdict(auditor: _Auditor) -> Text:
    from rich.text import Text

    verdict = auditor.verdict
    if auditor.problem:
        return Text(f"audit: {auditor.problem}", style="red")
    if verdict is None:
        return Text("audit: under way" if auditor.is_wanted else "audit: none", style="dim")
    text = f"audit {_time(verdict.at_ms)}: "
    if verdict.ok:
        return Text(f"{text}everything adds up")
    lines = [f"{text}{len(verdict.findings)} findings", *verdict.findings[:_FINDINGS_SHOWN]]
    if len(verdict.findings) > _FINDINGS_SHOWN:
        lines.append(f"and {len(verdict.findings) - _FINDINGS_SHOWN} more: quota-engine audit")
    return Text("\n  ".join(lines), style="bold red")


_PHASES: Final = {
    RoomPhase.EARLY: "nobody can join yet",
    RoomPhase.JOINING: "people join",
    RoomPhase.DUE: "has to be opened with its entropy",
    RoomPhase.RUNNING: "runs",
    RoomPhase.OVER: "is over",
}


def _room(room: RoomLook) -> Text:
    """A waiting room in three lines at most."""
    from rich.text import Text

    text = Text()
    text.append(f"room {room.room}", style="bold")
    text.append(f"  {_PHASES[room.phase]}", style="bold red" if room.phase is RoomPhase.DUE else "")
    if room.phase is RoomPhase.EARLY:
        text.append(f" (from {_time(room.joins_from_at_ms)}), opens {_time(room.opens_at_ms)}")
    elif room.phase in (RoomPhase.JOINING, RoomPhase.DUE):
        text.append(f", opens {_time(room.opens_at_ms)}")
    elif room.phase is RoomPhase.RUNNING:
        text.append(f" since {_time(room.opened_at_ms)}, until {_time(room.closes_at_ms)}")
    else:
        text.append(f" since {_time(room.ended_at_ms)}")
    text.append(f"\n  tickets {room.tickets:,}   waiting {room.waiting:,}   called {room.called:,}")
    if room.phase is RoomPhase.RUNNING:
        left = "not counted" if room.left == LEFT_UNKNOWN else f"{room.left:,}"
        text.append(f"   have their turn {room.in_turn:,}   places left {left}")
        text.append(f"\n  rate {room.rate_per_minute:,}/min   set to {room.per_minute:,}/min")
        text.append(f" (between {room.per_minute_min:,} and {room.per_minute_max:,})")
        if room.waiting and room.wait_ms >= 0:
            text.append(f"   the last waits {_span(room.wait_ms)}")
    return text


def _time(at_ms: int) -> str:
    """A moment by this machine's clock and zone; with its date, unless that is today."""
    moment = datetime.datetime.fromtimestamp(at_ms / 1000).astimezone()
    today = datetime.datetime.now().astimezone().date()
    return f"{moment:%H:%M:%S %Z}" if moment.date() == today else f"{moment:%Y-%m-%d %H:%M %Z}"


def _span(span_ms: int) -> str:
    seconds = -(-span_ms // 1000)
    if seconds < 90:
        return f"{seconds} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
