"""Pace of a waiting room, computed from the places left, the store's response time and the room's bounds. Pure."""

from __future__ import annotations

__all__ = ["Pace", "count_places_left", "next_pace"]

from collections.abc import Sequence
from typing import Final, NamedTuple

from quota_engine.domain.model import Choice
from quota_engine.domain.outcomes import DayView
from quota_engine.waiting_room.commands import PLACES_LEFT_UNKNOWN, TICKETS_PER_CALL_MAX
from quota_engine.waiting_room.results import RoomView

_RAISES_TO_MAX: Final = 16
"""Steps in which the pace rises from its lower to its upper bound."""


class Pace(NamedTuple):
    """Pace from now on, in tickets a minute, and the most tickets that can be called now."""

    per_minute: int
    tickets_max: int


def next_pace(view: RoomView, places_left: int, latency_ms: int) -> Pace:
    """Return the pace of a room for its next step.

    The speed follows the store by additive increase and multiplicative decrease (Chiu and Jain 1989). It is halved if
    the response time was above the room's ``latency_max_ms``. Otherwise it rises by a sixteenth of the distance
    between its bounds.

    The number of tickets follows the places. For each 100 places left, at most ``calls_per_100_places`` tickets can be
    called without having taken a place. The fall of ``places_left`` since their call is the number that took one.

    Args:
        view: The room.
        places_left: Places left now, or ``PLACES_LEFT_UNKNOWN`` for no limit on the number of tickets.
        latency_ms: The store's last response time, in milliseconds.
    """
    config = view.config
    pace_min, pace_max = view.per_minute_min, view.per_minute_max
    if latency_ms > config.latency_max_ms:
        per_minute = max(pace_min, view.per_minute // 2)
    else:
        per_minute = min(pace_max, view.per_minute + -(-(pace_max - pace_min) // _RAISES_TO_MAX))
    if places_left == PLACES_LEFT_UNKNOWN:
        return Pace(per_minute, TICKETS_PER_CALL_MAX)
    called_max = -(-places_left * config.calls_per_100_places // 100)
    return Pace(per_minute, min(TICKETS_PER_CALL_MAX, max(0, called_max - _called_without_place(view, places_left))))


def _called_without_place(view: RoomView, places_left: int) -> int:
    """Return the tickets whose turn has not ended, less the places that were taken since they were called."""
    turns_ended, ended_calls = view.turns_ended, 0
    for call in view.calls:
        if call.at_ms + view.config.turn_ms > view.now_ms:
            break
        turns_ended, ended_calls = call.called_count, ended_calls + 1
    called = view.called_count - turns_ended
    if not called or view.calls[ended_calls].places_left == PLACES_LEFT_UNKNOWN:
        return called
    taken = view.calls[ended_calls].places_left - places_left
    return max(0, called - max(0, taken))


def count_places_left(days: Sequence[DayView], choices: Sequence[Choice], now_ms: int) -> int:
    """Return a lower bound of the places that applicants can still take on the days that are open.

    Options are filled one after the other, each up to its scarcest quota. A place that several quotas or choices share
    counts once. The result can be obtained, but another sequence of options might give more.

    Args:
        days: The days.
        choices: The choices that the applicants can make.
        now_ms: The store's time, in milliseconds since 1970 (UTC).
    """
    places_left = 0
    for day in days:
        if not day.can_be_booked("", now_ms):
            continue
        available = {name: quota.bookable for name, quota in day.quotas.items()}
        for choice in choices:
            if day.is_session_over(choice.session, now_ms):
                continue
            for option in choice.options:
                places = min(available.get(name, 0) for name in option)
                places_left += places
                for name in option:
                    if places:
                        available[name] -= places
    return places_left
