"""How fast a waiting room is let in. Pure: a function of what is left, how the store answers, and the room's bounds."""

from __future__ import annotations

__all__ = ["Pace", "count_places_left", "next_pace"]

from collections.abc import Sequence
from typing import NamedTuple

from quota_engine.domain.model import Choice
from quota_engine.domain.outcomes import DayView
from quota_engine.waiting_room.machine import PLACES_LEFT_UNKNOWN, TICKETS_PER_CALL_MAX, RoomView


class Pace(NamedTuple):
    """What to serve with: the tickets a minute from now on, and how many may be called now at most."""

    per_minute: int
    tickets_max: int


def next_pace(view: RoomView, left: int, latency_ms: int) -> Pace:
    """The pace for a room as it stands.

    Args:
        view: the room.
        left: places left now, or ``PLACES_LEFT_UNKNOWN``, which limits nothing.
        latency_ms: how long the store has just taken to answer.

    The speed follows the store: halved whenever it took longer than the room's ``latency_max_ms``, and otherwise raised
    by a sixteenth of the way between the bounds (additive increase, multiplicative decrease: Chiu and Jain 1989). The
    number follows the places: for 100 places left, at most ``calls_per_100_places`` people may be called and not yet
    have taken one. How many of those called have one is told by how far ``left`` has fallen since.
    """
    terms = view.config
    low, high = view.per_minute_min, view.per_minute_max
    if latency_ms > terms.latency_max_ms:
        per_minute = max(low, view.per_minute // 2)
    else:
        per_minute = min(high, view.per_minute + -(-(high - low) // 16))
    if left == PLACES_LEFT_UNKNOWN:
        return Pace(per_minute, TICKETS_PER_CALL_MAX)
    may_be_called = -(-left * terms.calls_per_100_places // 100)
    return Pace(per_minute, min(TICKETS_PER_CALL_MAX, max(0, may_be_called - _outstanding(view, left))))


def _outstanding(view: RoomView, left: int) -> int:
    """People who have been called lately and, as far as the places tell, have not taken one."""
    lapsed, going_on = view.turns_ended, 0
    for call in view.calls:
        if call.at_ms + view.config.turn_ms > view.now_ms:
            break
        lapsed, going_on = call.called_count, going_on + 1
    called = view.called_count - lapsed
    if not called or view.calls[going_on].places_left == PLACES_LEFT_UNKNOWN:
        return called
    taken = view.calls[going_on].places_left - left
    return max(0, called - max(0, taken))


def count_places_left(days: Sequence[DayView], choices: Sequence[Choice], now_ms: int) -> int:
    """How many places people with one of these choices could still take, at least, on the days that are open.

    Options are filled one after the other, each as far as its scarcest quota goes, so that a place that several quotas
    guard, or several choices want, counts once: it is a number that can be had, and may be less than the largest.
    """
    left = 0
    for day in days:
        if day.closed or not day.opens_at_ms <= now_ms < day.ends_at_ms:
            continue
        available = {name: quota.available for name, quota in day.quotas.items()}
        for choice in choices:
            for option in choice.options:
                places = min(available.get(name, 0) for name in option)
                left += places
                for name in option:
                    if places:
                        available[name] -= places
    return left
