"""Limits of one process on requests, connections and streams."""

from __future__ import annotations

__all__ = ["RequestLimits"]

import msgspec


class RequestLimits(msgspec.Struct, frozen=True):
    """Sizes, timeouts and concurrency that one process allows."""

    body_bytes_max: int = 65_536
    header_bytes_max: int = 16_384
    header_timeout_ms: int = 10_000
    """Time for the request line and headers, from the connection's start or the first byte of a later request."""
    body_timeout_ms: int = 10_000
    write_timeout_ms: int = 20_000
    """Time that the client may take no data before the connection is aborted."""
    streams_max: int = 5_000
    """Open event streams in one process."""
    stream_lifetime_ms: int = 600_000
    """Age at which a stream ends; its reader reconnects."""
    requests_max: int = 500
    """Requests in progress in one process. Above it, sheddable endpoints get 503."""
