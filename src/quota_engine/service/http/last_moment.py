"""The time that a request has: its last moment, and the length of its wait.

After the last moment, the service refuses the request, and nothing of it takes effect.

A network may deliver a request late, after its caller has the response to a later copy. The caller names the last
moment by the service's clock, which it knows from responses. It is the system's clock, even if the engine has
another one. ``Request-Timeout`` is a length, which counts from the complete request, also for a copy that arrives
late.
"""

from __future__ import annotations

__all__ = ["TIME_LEFT_MS_MIN", "find_time_left_ms", "service_time_ms"]

import re
from collections.abc import Mapping
from typing import Final

from quota_engine.api_schema.headers import REQUEST_TIMEOUT_HEADER, REQUEST_TIMEOUT_PATTERN, VALID_UNTIL_HEADER
from quota_engine.clocks import SystemClock
from quota_engine.service.http.problems import Problem

TIME_LEFT_MS_MIN: Final = 250
"""Requests with less time left are refused: the store would hardly be reached in time."""
TIME_LEFT_MS_MAX: Final = 3_600_000

_NAME: Final = VALID_UNTIL_HEADER.encode()
_WAIT_NAME: Final = REQUEST_TIMEOUT_HEADER.encode()
_is_seconds = re.compile(REQUEST_TIMEOUT_PATTERN.encode()).fullmatch
_is_time = re.compile(rb"[0-9]{1,15}").fullmatch

service_time_ms: Final = SystemClock().now_ms
"""Returns the time that responses name and last moments refer to."""


def find_time_left_ms(headers: Mapping[bytes, bytes], *, is_read: bool) -> int | None:
    """Return the time that a request has, in milliseconds; ``None`` if it names none.

    Args:
        headers: The headers of the request.
        is_read: True if the request changes nothing. It has no last moment then.

    Raises:
        Problem: 400 if a header is malformed; 409 if the moment has passed, or will in less than 250 ms.
    """
    wait_text = headers.get(_WAIT_NAME)
    moment_text = None if is_read else headers.get(_NAME)
    if wait_text is None:
        return None if moment_text is None else _time_until_ms(moment_text)
    if not _is_seconds(wait_text):
        raise Problem("bad-request", "the header Request-Timeout is not a number of seconds from 0.3, such as 2 or 0.5")
    wait_ms = min(round(float(wait_text) * 1000), TIME_LEFT_MS_MAX)
    return wait_ms if moment_text is None else min(wait_ms, _time_until_ms(moment_text))


def _time_until_ms(text: bytes) -> int:
    if not _is_time(text):
        raise Problem("bad-request", f"the header {VALID_UNTIL_HEADER} is not a time in milliseconds since 1970")
    left_ms = int(text) - service_time_ms()
    if left_ms < TIME_LEFT_MS_MIN:
        raise Problem("request-expired", "nothing was done; send the request again with a later last moment")
    return min(left_ms, TIME_LEFT_MS_MAX)
