"""Names of the headers that the service and its client share, besides the standard ones."""

from __future__ import annotations

__all__ = ["TIME_HEADER", "VALID_UNTIL_HEADER"]

from typing import Final

TIME_HEADER: Final = "x-quota-engine-time-ms"
"""Response header: the service's time, in milliseconds since 1970 (UTC)."""
VALID_UNTIL_HEADER: Final = "x-quota-engine-valid-until-ms"
"""Request header: the last moment at which the request may be carried out, by the service's time."""
