"""The check of a store's clock against a second one, before it can expire, forget or open anything.

The rules are in ``docs/rules.md``, "A clock that leaps". ``stores/redis/lua/shared/call.lua`` has the same check.
"""

from __future__ import annotations

__all__ = ["LEAP_MS_DEFAULT", "LEAP_MS_LIMIT", "LEAP_MS_MIN", "explain_leap", "find_leap"]

import datetime
from typing import Final, Protocol

LEAP_MS_DEFAULT: Final = 86_400_000
"""By more than a day no two clocks differ that are both right."""
LEAP_MS_LIMIT: Final = 366 * 86_400_000
LEAP_MS_MIN: Final = 60_000
"""The lowest bound. Clocks of several machines differ by seconds, and a call may be in flight for as long."""


class TimedState(Protocol):
    """The state of a ledger of any kind.

    Attributes:
        now_ms: the time of its last event or change; 0 if it has none.
    """

    now_ms: int


def find_leap(state: TimedState, now_ms: int, caller_ms: int, leap_max_ms: int = LEAP_MS_DEFAULT) -> str:
    """Return why a command must be refused because the store's clock may be wrong, or ``""``.

    Args:
        state: the ledger. An office also has ``next_forget_ms``, the earliest time at which it forgets a day.
        now_ms: time of the store's clock, in milliseconds since 1970 (UTC).
        caller_ms: time of the caller's own clock.
        leap_max_ms: the bound, at least ``LEAP_MS_MIN``.
    """
    if abs(now_ms - caller_ms) <= leap_max_ms:
        return ""
    last_ms, forgets = state.now_ms, now_ms >= getattr(state, "next_forget_ms", now_ms + 1)
    if last_ms and abs(now_ms - last_ms) <= leap_max_ms and not forgets:
        return ""
    return explain_leap(now_ms, caller_ms, last_ms)


def explain_leap(now_ms: int, caller_ms: int, last_ms: int) -> str:
    """Return the refusal of such a command for its caller.

    Args:
        now_ms: time of the store's clock, in milliseconds since 1970 (UTC).
        caller_ms: time of the caller's own clock.
        last_ms: time of the ledger's last event; 0 if it has none.
    """
    last = f"the ledger's last event was at {_text(last_ms)}" if last_ms else "the ledger has no event yet"
    return (
        f"the store's clock shows {_text(now_ms)}, but this machine's clock shows {_text(caller_ms)}, and {last}: "
        "one of the clocks is wrong; nothing was applied; set it right, and see 'A clock is wrong' in docs/runbook.md"
    )


def _text(time_ms: int) -> str:
    try:
        return f"{datetime.datetime.fromtimestamp(time_ms / 1000, datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError):  # beyond the year 9999
        return f"{time_ms} ms"
