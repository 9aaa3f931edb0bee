"""``quota-engine watch``: what the operators' page shows, on a terminal."""

from __future__ import annotations

__all__ = ["watch"]

import contextlib
import datetime
import itertools
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from quota_engine.cli.status import STORE_VARIABLE, AsJson, Office, days_of, opened, table_of
from quota_engine.cli.watch_sources import ServiceSource, StoreSource, WatchSelection, WatchSnapshot, WatchSource
from quota_engine.clocks import SystemClock
from quota_engine.domain.audit_summary import AuditSummary
from quota_engine.domain.errors import InvalidRequest, QuotaEngineError
from quota_engine.domain.validation import check_integer, check_name
from quota_engine.draws.ledger import DrawPhase
from quota_engine.draws.summary import DrawSummary
from quota_engine.waiting_room.machine import PLACES_LEFT_UNKNOWN
from quota_engine.waiting_room.summary import RoomPhase, RoomSummary

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

_DONE, _BAD_FINDING = 0, 1
_JOIN_S: Final = 2
"""An audit that is under way when watching ends is not waited for any longer."""
_FINDINGS_SHOWN: Final = 5


def watch(
    backend: str = "",
    *,
    host: str = "",
    token_file: str = "",
    office: Office = (),
    room: tuple[str, ...] = (),
    draw: tuple[str, ...] = (),
    first_day: str = "",
    days: int = 7,
    every_ms: int = 1000,
    audit_every_s: int = 300,
    times: int = 0,
    once: bool = False,
    as_json: AsJson = False,
) -> int:
    """Show what the operators' page shows, and keep it up to date until interrupted: the counters of offices and days,
    how long the waiting rooms are and how fast they go, draws, and the audit's verdict.

    It looks at a store (BACKEND), or over HTTP at a running service (--host, with a token of an auditor or operator).

    Exit code 0: done; 1: the last audit found something; 2: bad usage; 3: the store or the service was not reached.

    Args:
        backend: the URL of the store; without one, and without a host, what the variable QUOTA_ENGINE_BACKEND says.
        host: the address of a service, instead of a store.
        token_file: a file with the token for the service, and nothing else; without it the token is taken from the
            variable QUOTA_ENGINE_TOKEN.
        office: only these offices (may be given several times); otherwise all that there are.
        room: the id of a waiting room to show besides those of the offices' releases (may be given several times).
        draw: the id of a draw to show (may be given several times).
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
    for name, where in (*((one, "--room") for one in room), *((one, "--draw") for one in draw)):
        check_name(name, where)
    subject = WatchSelection(office, room, draw, days_of(first_day, days))
    with _opened(backend, host, token_file, subject) as watched:
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


@contextlib.contextmanager
def _opened(backend: str, host: str, token_file: str, subject: WatchSelection) -> Iterator[WatchSource]:
    now_ms = SystemClock().now_ms
    if backend.startswith(("http://", "https://")):
        raise InvalidRequest("BACKEND", "the address of a service", f"a store's URL; or watch --host {backend}")
    if backend and host:
        raise InvalidRequest("BACKEND, --host", "both", "the URL of a store, or  --host URL  of a service")
    if not host:
        if not backend and STORE_VARIABLE not in os.environ:
            expected = f"the URL of a store (here or in {STORE_VARIABLE}), or  --host URL  of a service"
            raise InvalidRequest("BACKEND, --host", "neither", expected)
        with opened(backend) as store:
            yield StoreSource(store, subject, now_ms)
        return
    from quota_engine.cli.service_client import connected

    with connected(host, token_file, "auditor or operator") as client:
        yield ServiceSource(client, subject, now_ms)


class _Show(Protocol):
    """Puts a look before somebody's eyes: the last one that there is, what auditing came to, and what is amiss."""

    def __call__(self, look: WatchSnapshot | None, auditor: _Auditor, problem: str) -> None: ...


class _Auditor:
    """Audits now and then, beside the looks: a large store takes its time."""

    def __init__(self, watched: WatchSource, every_s: int) -> None:
        self._watched = watched
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.verdict: AuditSummary | None = None
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


def _once(watched: WatchSource, auditor: _Auditor, show: _Show) -> None:
    look = watched.take_snapshot()
    if auditor.is_wanted:
        auditor.audit()
    show(look, auditor, "")


def _go_on(watched: WatchSource, auditor: _Auditor, show: _Show, times: int, every_ms: int) -> None:
    look: WatchSnapshot | None = None
    for count in itertools.count(1):
        problem = ""
        try:
            look = watched.take_snapshot()
        except InvalidRequest:
            raise
        except QuotaEngineError as error:
            problem = f"the {watched.noun} does not answer, looking again: {error}"
        show(look, auditor, problem)
        if count == times:
            return
        time.sleep(every_ms / 1000)


@contextlib.contextmanager
def _lines() -> Iterator[_Show]:
    """A line of JSON a look."""

    def show(look: WatchSnapshot | None, auditor: _Auditor, problem: str) -> None:
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

    def show(look: WatchSnapshot | None, auditor: _Auditor, problem: str) -> None:
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


def _content(look: WatchSnapshot | None, auditor: _Auditor, problem: str) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = []
    if problem:
        parts.append(Text(problem, style="bold red"))
    if look is None:
        return Group(*parts)
    head = Text(f"{_time(look.at_ms)}  ", style="bold")
    head.append_text(_verdict(auditor))
    parts.append(head)
    for one in look.offices:
        parts += [_room(room) for room in one.rooms]
    parts += [_draw(draw) for draw in look.draws]
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
    RoomPhase.SCHEDULED: "nobody can join yet",
    RoomPhase.JOINING: "people join",
    RoomPhase.OPENING: "has to be opened with its entropy",
    RoomPhase.OPEN: "runs",
    RoomPhase.CLOSED: "is over",
}


def _room(room: RoomSummary) -> Text:
    """A waiting room in three lines at most."""
    from rich.text import Text

    text = Text()
    text.append(f"room {room.room}", style="bold")
    text.append(f"  {_PHASES[room.phase]}", style="bold red" if room.phase is RoomPhase.OPENING else "")
    if room.phase is RoomPhase.SCHEDULED:
        text.append(f"\n  people join from {_time(room.join_opens_at_ms)}, opens {_time(room.opens_at_ms)}")
        return text
    if room.phase in (RoomPhase.JOINING, RoomPhase.OPENING):
        text.append(f", opens {_time(room.opens_at_ms)}")
    elif room.phase is RoomPhase.OPEN:
        text.append(f" since {_time(room.opened_at_ms)}, until {_time(room.closes_at_ms)}")
    else:
        text.append(f" since {_time(room.ended_at_ms)}")
    text.append(f"\n  tickets {room.tickets:,}   waiting {room.waiting:,}   called {room.called:,}")
    if room.phase is RoomPhase.OPEN:
        left = "not counted" if room.places_left == PLACES_LEFT_UNKNOWN else f"{room.places_left:,}"
        text.append(f"   have their turn {room.in_turn:,}   places left {left}")
        text.append(f"\n  rate {room.rate_per_minute:,}/min   set to {room.per_minute:,}/min")
        text.append(f" (between {room.per_minute_min:,} and {room.per_minute_max:,})")
        if room.waiting and room.wait_ms >= 0:
            text.append(f"   the last waits {_span(room.wait_ms)}")
    return text


def _draw(draw: DrawSummary) -> Text:
    """A draw in two lines."""
    from rich.text import Text

    text = Text()
    text.append(f"draw {draw.draw}", style="bold")
    match draw.phase:
        case DrawPhase.ANNOUNCED:
            text.append(f"  people apply from {_time(draw.opens_at_ms)}")
        case DrawPhase.OPEN:
            text.append(f"  people apply, until {_time(draw.closes_at_ms)}")
        case DrawPhase.CLOSED:
            text.append("  has to be closed: it takes no more applications", style="bold red")
        case DrawPhase.FROZEN:
            text.append("  has to be run, with its seed" + (" and its entropy" if draw.entropy_source else ""))
        case DrawPhase.REVEALED:
            text.append(f"  has been run; forgotten {_time(draw.forget_at_ms)}")
    text.append(f"\n  applications {draw.applications:,}   people {draw.applicants:,}")
    text.append(f"   days {draw.first_day} to {draw.last_day}")
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
