"""The log's line about a clock that leaps. Every call meets it, so the log has one line a minute."""

from __future__ import annotations

__all__ = ["report_leap"]

import logging
from typing import Final

from quota_engine.clocks import monotonic_ms

_PAUSE_MS: Final = 60_000
_log = logging.getLogger("quota_engine")
_logged_at_ms = -float(_PAUSE_MS)


def report_leap(text: str) -> None:
    """Log a refusal of :func:`quota_engine.domain.clock_check.find_leap`, at most once a minute in this process."""
    global _logged_at_ms
    now_ms = monotonic_ms()
    if now_ms - _logged_at_ms >= _PAUSE_MS:
        _logged_at_ms = now_ms
        _log.error("%s", text)
