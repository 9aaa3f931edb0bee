"""What can be seen of a store from outside: how days stand, how waiting rooms go, and what the audit says.

The operators' page and ``quota-engine watch`` show the same: what they show is worked out here, once, from what the
store answered. Nothing here asks a store, or needs a catalog.
"""

from __future__ import annotations

__all__ = [
    "PLACES_LEFT_UNKNOWN",
    "AuditSummary",
    "DayState",
    "DrawSummary",
    "RoomPhase",
    "RoomSummary",
    "day_state",
    "openings",
    "plain_day",
    "summarize_draw",
    "summarize_room",
]

import datetime
import enum
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from quota_engine.domain.outcomes import DayView
from quota_engine.draws.ledger import DrawPhase, DrawView
from quota_engine.waiting_room.machine import OPEN_MS_MAX, PLACES_LEFT_UNKNOWN, RoomView

_MINUTE_MS: Final = 60_000


class DayState(enum.StrEnum):
    """Whether a day sells."""

    CLOSED = "CLOSED"
    """The office has closed it."""
    OVER = "OVER"
    EARLY = "EARLY"
    """Its quota opens later."""
    OPEN = "OPEN"


def day_state(view: DayView, now_ms: int) -> DayState:
    """Whether a day sells at ``now_ms``."""
    if view.closed:
        return DayState.CLOSED
    if now_ms >= view.ends_at_ms:
        return DayState.OVER
    return DayState.EARLY if now_ms < view.opens_at_ms else DayState.OPEN


def plain_day(view: DayView) -> dict[str, Any]:
    """A day for JSON: its date as an ISO date, its moments in milliseconds since 1970 (UTC), and its counters."""
    plain: dict[str, Any] = msgspec.to_builtins(view)
    return {**plain, "day": datetime.date.fromordinal(view.day).isoformat()}


def openings(views: Iterable[DayView], now_ms: int) -> list[int]:
    """The moments at which days have opened, the next one and those whose waiting room may still be going on, in order;
    in milliseconds since 1970.
    """
    moments = sorted({view.opens_at_ms for view in views})
    going_on = [moment for moment in moments if now_ms - OPEN_MS_MAX < moment <= now_ms]
    return [*going_on[-1:], *[moment for moment in moments if moment > now_ms][:1]]


class RoomPhase(enum.StrEnum):
    """How far a waiting room is."""

    EARLY = "EARLY"
    """Nobody can join yet."""
    JOINING = "JOINING"
    """People take tickets; the order does not exist yet."""
    DUE = "DUE"
    """Its time has come, and it has not been opened: it waits for its entropy."""
    RUNNING = "RUNNING"
    """People are called."""
    OVER = "OVER"


class RoomSummary(msgspec.Struct, frozen=True):
    """How a waiting room goes.

    ``tickets`` are all so far: ``called`` of them have had their turn, or have it now (``in_turn``), and ``waiting``
    have not. ``rate_per_minute`` is how many were called in the last minute (or as long as the room has run), and
    ``per_minute`` what it is set to now, between its two bounds. ``left`` are the places left,
    ``PLACES_LEFT_UNKNOWN`` (-1) if
    nobody has counted them. ``wait_ms``: how long the last one in line waits at this rate, -1 if that can not be said.
    Moments are in milliseconds since 1970 (UTC), 0 for what has not come.
    """

    room: str
    office: str
    first_day: datetime.date
    last_day: datetime.date
    phase: RoomPhase
    tickets: int
    waiting: int
    called: int
    in_turn: int
    rate_per_minute: int
    per_minute: int
    per_minute_min: int
    per_minute_max: int
    places_left: int
    wait_ms: int
    join_opens_at_ms: int
    opens_at_ms: int
    closes_at_ms: int
    opened_at_ms: int
    ended_at_ms: int
    entropy_source: str


def summarize_room(room: str, view: RoomView) -> RoomSummary:
    """How the room of this id goes, from one view of it."""
    terms = view.config
    phase = _phase(view)
    waiting = view.tickets - view.called_count
    rate = _rate_per_minute(view)
    pace = rate or view.per_minute
    return RoomSummary(
        room=room,
        office=terms.office,
        first_day=datetime.date.fromordinal(terms.first_day),
        last_day=datetime.date.fromordinal(terms.last_day),
        phase=phase,
        tickets=view.tickets,
        waiting=waiting,
        called=view.called_count,
        in_turn=view.called_count - view.lapsed if phase is RoomPhase.RUNNING else 0,
        rate_per_minute=rate,
        per_minute=view.per_minute,
        per_minute_min=view.per_minute_min,
        per_minute_max=view.per_minute_max,
        places_left=view.places_left,
        wait_ms=waiting * _MINUTE_MS // pace if phase is RoomPhase.RUNNING and pace else -1,
        join_opens_at_ms=terms.join_opens_at_ms,
        opens_at_ms=terms.opens_at_ms,
        closes_at_ms=terms.closes_at_ms,
        opened_at_ms=view.opened_at_ms,
        ended_at_ms=(view.closed_at_ms or terms.closes_at_ms) if phase is RoomPhase.OVER else 0,
        entropy_source=terms.entropy_source,
    )


def _phase(view: RoomView) -> RoomPhase:
    if view.is_over:
        return RoomPhase.OVER
    if view.seed:
        return RoomPhase.RUNNING
    if view.now_ms >= view.config.opens_at_ms:
        return RoomPhase.DUE
    return RoomPhase.JOINING if view.now_ms >= view.config.join_opens_at_ms else RoomPhase.EARLY


def _rate_per_minute(view: RoomView) -> int:
    """The view knows the calls of the last ``claim_ms``, as of when the room last served."""
    if not view.seed or view.is_over:
        return 0
    span_ms = min(_MINUTE_MS, view.config.turn_ms, max(view.now_ms - view.opened_at_ms, view.config.step_ms))
    before = [call.called_count for call in view.calls if call.at_ms <= view.now_ms - span_ms]
    called = view.called_count - (before[-1] if before else view.lapsed)
    return called * _MINUTE_MS // span_ms


class DrawSummary(msgspec.Struct, frozen=True):
    """How a draw goes: how many have applied, for how many people, and until when. Moments are in milliseconds since
    1970 (UTC).
    """

    draw: str
    phase: DrawPhase
    applications: int
    applicants: int
    opens_at_ms: int
    closes_at_ms: int
    forget_at_ms: int
    first_day: datetime.date
    last_day: datetime.date
    entropy_source: str


def summarize_draw(view: DrawView) -> DrawSummary:
    """How a draw goes, from one view of it."""
    terms = view.config
    return DrawSummary(
        draw=view.draw,
        phase=view.phase,
        applications=view.applications,
        applicants=view.applicants,
        opens_at_ms=terms.opens_at_ms,
        closes_at_ms=terms.closes_at_ms,
        forget_at_ms=terms.forget_at_ms,
        first_day=datetime.date.fromordinal(terms.first_day),
        last_day=datetime.date.fromordinal(terms.last_day),
        entropy_source=terms.entropy_source,
    )


class AuditSummary(msgspec.Struct, frozen=True):
    """What an audit of ``offices`` offices came to at ``at_ms``: a sentence a finding, none if all adds up."""

    at_ms: int
    offices: int
    findings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether everything adds up."""
        return not self.findings

    def plain(self) -> dict[str, Any]:
        """It as JSON."""
        return {"ok": self.ok, "at_ms": self.at_ms, "offices": self.offices, "findings": list(self.findings)}
