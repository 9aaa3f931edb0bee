"""The last moment of a request: after it, the service refuses the request, and nothing of it takes effect.

A network may deliver a request late, after its caller has the response to a later copy. The caller names the last
moment by the service's clock, which it knows from responses. It is the system's clock, even if the engine has
another one.
"""

from __future__ import annotations

__all__ = ["TIME_LEFT_MS_MIN", "find_time_left_ms", "service_time_ms"]

import re
from collections.abc import Mapping
from typing import Final

from quota_engine.api_schema.headers import VALID_UNTIL_HEADER
from quota_engine.clocks import SystemClock
from quota_engine.service.http.problems import Problem

TIME_LEFT_MS_MIN: Final = 250
"""Requests with less time left are refused: the store would hardly be reached in time."""
TIME_LEFT_MS_MAX: Final = 3_600_000

_NAME: Final = VALID_UNTIL_HEADER.encode()
_is_time = re.compile(rb"[0-9]{1,15}").fullmatch

service_time_ms: Final = SystemClock().now_ms
"""Returns the time that responses name and last moments refer to."""


def find_time_left_ms(headers: Mapping[bytes, bytes]) -> int | None:
    """Return the time until the request's last moment in milliseconds; ``None`` if it names none.

    Raises:
        Problem: 400 if the header is malformed; 409 if the moment has passed, or will in less than 250 ms.
    """
    text = headers.get(_NAME)
    if text is None:
        return None
    if not _is_time(text):
        raise Problem("bad-request", f"the header {VALID_UNTIL_HEADER} is not a time in milliseconds since 1970")
    left_ms = int(text) - service_time_ms()
    if left_ms < TIME_LEFT_MS_MIN:
        raise Problem("request-expired", "nothing was done; send the request again with a later last moment")
    return min(left_ms, TIME_LEFT_MS_MAX)
