"""Options of a store's URL that belong to the store. redis-py knows the rest."""

from __future__ import annotations

__all__ = ["STORE_OPTIONS"]

from typing import Final

STORE_OPTIONS: Final = frozenset(
    {
        "namespace",
        "timeout_ms",
        "call_timeout_ms",
        "attempts_max",
        "attempt_valid_ms",
        "clock_leap_max_ms",
        "durability",
        "replicas",
        "wait_ms",
        "sold_out_ms",
        "fence",
        "functions",
    }
)
