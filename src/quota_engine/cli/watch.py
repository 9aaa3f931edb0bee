"""``quota-engine watch``: the operators' dashboard on a terminal."""

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

from quota_engine.cli.day_table import day_table
from quota_engine.cli.output import BAD_FINDING, DONE, AsJson
from quota_engine.cli.store_access import STORE_VARIABLE, OfficeIds, day_ordinals, open_store
from quota_engine.cli.watch_sources import ServiceSource, StoreSource, WatchSelection, WatchSnapshot, WatchSource
from quota_engine.clocks import SystemClock
from quota_engine.domain.audit_summary import AuditSummary
from quota_engine.domain.errors import InvalidRequest, QuotaEngineError
from quota_engine.domain.validation import check_integer, check_name
from quota_engine.draws.queries import DrawPhase
from quota_engine.draws.summary import DrawSummary
from quota_engine.waiting_room.commands import PLACES_LEFT_UNKNOWN
from quota_engine.waiting_room.summary import RoomPhase, RoomSummary

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

_AUDIT_JOIN_S: Final = 2
"""Time for which the end of the command waits for a running audit."""
_FINDINGS_SHOWN: Final = 5


def watch(
    backend: str = "",
    *,
    host: str = "",
    token_file: str = "",
    office: OfficeIds = (),
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
    """Show counters, waiting rooms, draws and audit results, and refresh them until interrupted.

    The source is a store (BACKEND), or a running service (--host, with the token of an auditor or operator).

    Exit code 0: done; 1: the last audit has findings; 2: bad usage; 3: the store or service cannot be reached.

    Example:  quota-engine watch redis://127.0.0.1 --office surabaya

    Args:
        backend: URL of the store; default without --host: the variable QUOTA_ENGINE_BACKEND.
        host: address of a service, in place of a store.
        token_file: file with the token of the service, and nothing else; default: the variable QUOTA_ENGINE_TOKEN.
        office: id of an office; repeat it for more. Default: all offices.
        room: id of a waiting room to show besides those of the offices' releases; repeat it for more.
        draw: id of a draw to show; repeat it for more.
        first_day: first day as an ISO date; default: today (UTC).
        days: number of days, 1 to 400.
        every_ms: time between two refreshes in milliseconds, 100 to 3,600,000.
        audit_every_s: time between two audits in seconds, 0 to 86,400; 0: no audits.
        times: number of refreshes; 0: until interrupted.
        once: print one snapshot and one audit (unless --audit-every-s is 0), and exit.
        as_json: print a line of JSON for each refresh, and nothing else.
    """
    check_integer(every_ms, "--every-ms", 100, 3_600_000)
    check_integer(times, "--times", 0, 10**9)
    check_integer(audit_every_s, "--audit-every-s", 0, 86_400)
    for name, where in (*((one, "--room") for one in room), *((one, "--draw") for one in draw)):
        check_name(name, where)
    selection = WatchSelection(office, room, draw, day_ordinals(first_day, days))
    with _open_source(backend, host, token_file, selection) as source:
        auditor = _Auditor(source, audit_every_s)
        # An interrupt is the normal end of this command.
        with _json_lines() if as_json else _screen() as show, contextlib.suppress(KeyboardInterrupt):
            if once:
                _show_once(source, auditor, show)
            else:
                with auditor:
                    _refresh(source, auditor, show, times, every_ms)
    return DONE if auditor.result is None or auditor.result.ok else BAD_FINDING


@contextlib.contextmanager
def _open_source(backend: str, host: str, token_file: str, selection: WatchSelection) -> Iterator[WatchSource]:
    now_ms = SystemClock().now_ms
    if backend.startswith(("http://", "https://")):
        raise InvalidRequest("BACKEND", "the address of a service", f"the URL of a store; or watch --host {backend}")
    if backend and host:
        raise InvalidRequest("BACKEND, --host", "both given", "the URL of a store, or  --host URL  of a service")
    if not host:
        if not backend and STORE_VARIABLE not in os.environ:
            expected = f"the URL of a store (here or in {STORE_VARIABLE}), or  --host URL  of a service"
            raise InvalidRequest("BACKEND, --host", "both missing", expected)
        with open_store(backend) as store:
            yield StoreSource(store, selection, now_ms)
        return
    from quota_engine.cli.service_client import connect

    with connect(host, token_file, "auditor or operator") as client:
        yield ServiceSource(client, selection, now_ms)


class _Show(Protocol):
    """Prints a snapshot (the last one that was taken), the audit, and a problem (``""`` if there is none)."""

    def __call__(self, snapshot: WatchSnapshot | None, auditor: _Auditor, problem: str) -> None: ...


class _Auditor:
    """Audits periodically in a thread, because the audit of a large store takes longer than a refresh."""

    def __init__(self, source: WatchSource, every_s: int) -> None:
        self._source = source
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.result: AuditSummary | None = None
        self.problem = ""

    @property
    def is_enabled(self) -> bool:
        """True if audits take place."""
        return bool(self._every_s)

    def audit(self) -> None:
        """Audit once in the calling thread."""
        self.result, self.problem = self._source.audit(), ""

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.audit()
            except QuotaEngineError as error:
                self.problem = str(error)
            self._stop.wait(self._every_s)

    def __enter__(self) -> None:
        if self.is_enabled:
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self.is_enabled:
            self._thread.join(_AUDIT_JOIN_S)


def _show_once(source: WatchSource, auditor: _Auditor, show: _Show) -> None:
    snapshot = source.take_snapshot()
    if auditor.is_enabled:
        auditor.audit()
    show(snapshot, auditor, "")


def _refresh(source: WatchSource, auditor: _Auditor, show: _Show, times: int, every_ms: int) -> None:
    snapshot: WatchSnapshot | None = None
    for count in itertools.count(1):
        problem = ""
        try:
            snapshot = source.take_snapshot()
        except InvalidRequest:
            raise
        except QuotaEngineError as error:
            problem = f"the {source.noun} does not answer, retrying: {error}"
        show(snapshot, auditor, problem)
        if count == times:
            return
        time.sleep(every_ms / 1000)


@contextlib.contextmanager
def _json_lines() -> Iterator[_Show]:
    """Print a line of JSON for each snapshot."""

    def show(snapshot: WatchSnapshot | None, auditor: _Auditor, problem: str) -> None:
        line = snapshot.to_builtins(auditor.result) if snapshot and not problem else {"problem": problem}
        sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
        sys.stdout.flush()

    yield show


@contextlib.contextmanager
def _screen() -> Iterator[_Show]:
    """Use a full screen on a terminal, and leave its last content there. Elsewhere print the snapshots in sequence."""
    from rich.console import Console
    from rich.live import Live
    from rich.segment import Segment, Segments

    console = Console()
    last: list[RenderableType] = []

    def show(snapshot: WatchSnapshot | None, auditor: _Auditor, problem: str) -> None:
        content = _content(snapshot, auditor, problem)
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


def _content(snapshot: WatchSnapshot | None, auditor: _Auditor, problem: str) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = []
    if problem:
        parts.append(Text(problem, style="bold red"))
    if snapshot is None:
        return Group(*parts)
    head = Text(f"{_time(snapshot.at_ms)}  ", style="bold")
    head.append_text(_audit_text(auditor))
    parts.append(head)
    for one in snapshot.offices:
        parts += [_room(room) for room in one.rooms]
    parts += [_draw(draw) for draw in snapshot.draws]
    parts.append(day_table({one.office: list(one.days) for one in snapshot.offices}, snapshot.at_ms))
    return Group(*parts)


def _audit_text(auditor: _Auditor) -> Text:
    from rich.text import Text

    result = auditor.result
    if auditor.problem:
        return Text(f"audit: {auditor.problem}", style="red")
    if result is None:
        return Text("audit: running" if auditor.is_enabled else "audit: none", style="dim")
    text = f"audit {_time(result.at_ms)}: "
    if result.ok:
        return Text(f"{text}no findings")
    lines = [f"{text}{len(result.findings)} findings", *result.findings[:_FINDINGS_SHOWN]]
    if len(result.findings) > _FINDINGS_SHOWN:
        lines.append(f"and {len(result.findings) - _FINDINGS_SHOWN} more: quota-engine audit")
    return Text("\n  ".join(lines), style="bold red")


_PHASES: Final = {
    RoomPhase.SCHEDULED: "scheduled",
    RoomPhase.JOINING: "accepts joins",
    RoomPhase.OPENING: "waits for its entropy: quota-engine room open",
    RoomPhase.OPEN: "open",
    RoomPhase.CLOSED: "closed",
}


def _room(room: RoomSummary) -> Text:
    """Return a waiting room in at most three lines."""
    from rich.text import Text

    text = Text()
    text.append(f"room {room.room}", style="bold")
    text.append(f"  {_PHASES[room.phase]}", style="bold red" if room.phase is RoomPhase.OPENING else "")
    if room.phase is RoomPhase.SCHEDULED:
        text.append(f"\n  joins from {_time(room.join_opens_at_ms)}, opens {_time(room.opens_at_ms)}")
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
        text.append(f"   in their turn {room.in_turn:,}   places left {left}")
        text.append(f"\n  rate {room.rate_per_minute:,}/min   target {room.per_minute:,}/min")
        text.append(f" ({room.per_minute_min:,} to {room.per_minute_max:,})")
        if room.waiting and room.wait_ms >= 0:
            text.append(f"   wait {_span(room.wait_ms)}")
    return text


def _draw(draw: DrawSummary) -> Text:
    """Return a draw in two lines."""
    from rich.text import Text

    text = Text()
    text.append(f"draw {draw.draw}", style="bold")
    match draw.phase:
        case DrawPhase.ANNOUNCED:
            text.append(f"  accepts applications from {_time(draw.opens_at_ms)}")
        case DrawPhase.OPEN:
            text.append(f"  accepts applications until {_time(draw.closes_at_ms)}")
        case DrawPhase.CLOSED:
            text.append("  past its closing time: close it next", style="bold red")
        case DrawPhase.FROZEN:
            text.append("  closed: run it next, with its seed" + (" and its entropy" if draw.entropy_source else ""))
        case DrawPhase.REVEALED:
            text.append(f"  drawn, deleted {_time(draw.forget_at_ms)}")
    text.append(f"\n  applications {draw.applications:,}   applicants {draw.applicants:,}")
    text.append(f"   days {draw.first_day} to {draw.last_day}")
    return text


def _time(at_ms: int) -> str:
    """Return a moment in this machine's time zone, with its date unless that is today."""
    moment = datetime.datetime.fromtimestamp(at_ms / 1000).astimezone()
    today = datetime.datetime.now().astimezone().date()
    return f"{moment:%H:%M:%S %Z}" if moment.date() == today else f"{moment:%Y-%m-%d %H:%M %Z}"


def _span(span_ms: int) -> str:
    seconds = -(-span_ms // 1000)
    if seconds < 90:
        return f"{seconds} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
