"""Names of the headers that the service and its client share, besides the standard ones."""

from __future__ import annotations

__all__ = ["REQUEST_TIMEOUT_HEADER", "REQUEST_TIMEOUT_PATTERN", "TIME_HEADER", "VALID_UNTIL_HEADER"]

from typing import Final

REQUEST_TIMEOUT_HEADER: Final = "request-timeout"
"""Request header: the longest time that the caller waits for the response, in seconds."""
REQUEST_TIMEOUT_PATTERN: Final = "(0[.][3-9][0-9]{0,2}|[1-9][0-9]{0,3}([.][0-9]{1,3})?)"
"""The form of that header: from 0.3 seconds, because the store would hardly be reached in less time."""
TIME_HEADER: Final = "x-quota-engine-time-ms"
"""Response header: the service's time, in milliseconds since 1970 (UTC)."""
VALID_UNTIL_HEADER: Final = "x-quota-engine-valid-until-ms"
"""Request header: the last moment at which the request may be carried out, by the service's time."""
