"""Field types of a scenario file, with their bounds."""

from __future__ import annotations

__all__ = [
    "ConfigTable",
    "Count",
    "Hours",
    "Interval",
    "Milliseconds",
    "Rupiah",
    "Seconds",
    "Share",
    "Sigma",
    "Workers",
    "add_up_to_1",
]

from typing import Annotated

import msgspec

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=864_000)]
Interval = Annotated[float, msgspec.Meta(ge=0.001, le=864_000)]
"""Seconds between repetitions, which cannot be 0."""
Milliseconds = Annotated[float, msgspec.Meta(gt=0, le=60_000)]
Hours = Annotated[float, msgspec.Meta(gt=0, le=240)]
Sigma = Annotated[float, msgspec.Meta(ge=0, le=3)]
Count = Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]
Workers = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
Rupiah = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]


class ConfigTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of a scenario file. Every key has a default, and an unknown key is an error."""


def add_up_to_1(*shares: float) -> bool:
    """Return True if the shares add up to 1. A share out of bounds is reported elsewhere, so it counts as valid."""
    return abs(sum(shares) - 1) < 1e-6 or not all(0 <= share <= 1 for share in shares)
