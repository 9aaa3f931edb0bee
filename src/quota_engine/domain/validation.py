"""Limits, and the validation of single values in commands."""

from __future__ import annotations

__all__ = [
    "APPLICANTS_MAX",
    "CAPACITY_MAX",
    "DURATION_MS_MAX",
    "NAME_LENGTH_MAX",
    "OPTIONS_MAX",
    "QUOTAS_MAX",
    "TIME_MS_MAX",
    "check_integer",
    "check_name",
    "is_name",
]

import re
from typing import Final

from quota_engine.domain.errors import InvalidRequest

NAME_LENGTH_MAX: Final = 64
"""The most characters of an id."""
APPLICANTS_MAX: Final = 100
"""The largest ``party_max`` that an office may set."""
OPTIONS_MAX: Final = 16
"""The most alternatives of a choice."""
QUOTAS_MAX: Final = 256
"""The most quotas of a day."""
CAPACITY_MAX: Final = 10_000_000
"""The largest capacity of a quota, in units."""
TIME_MS_MAX: Final = 2**42
"""The latest time, in milliseconds since 1970 (UTC): about the year 2109."""
DURATION_MS_MAX: Final = 10 * 366 * 86_400_000
"""The longest duration: 10 years, in milliseconds."""

is_name = re.compile(r"[A-Za-z0-9_-]{1,64}").fullmatch
"""Matches an id. Only these characters are allowed, so that an id cannot break a store's key, a URL or a log line."""


def check_name(value: object, where: str) -> None:
    """Validate an id: 1 to 64 characters of ``A-Z a-z 0-9 _ -``.

    Args:
        value: the value.
        where: the name of the field in the error message.

    Raises:
        InvalidRequest: ``value`` is not an id.
    """
    if not isinstance(value, str) or is_name(value) is None:
        kind = "an empty id" if value == "" else "not a valid id"
        raise InvalidRequest(where, kind, f"1 to {NAME_LENGTH_MAX} characters of A-Z a-z 0-9 _ -")


def check_integer(value: object, where: str, minimum: int, maximum: int) -> None:
    """Validate an integer within bounds, both included. A ``bool`` is not an integer here.

    Args:
        value: the value.
        where: the name of the field in the error message.
        minimum, maximum: the bounds.

    Raises:
        InvalidRequest: ``value`` is not an ``int`` or is out of bounds.
    """
    if type(value) is not int or not minimum <= value <= maximum:
        raise InvalidRequest(where, _shown(value), f"an integer from {minimum} to {maximum}")


def _shown(value: object) -> str:
    """Return a small number as it is, and any other value by its type only, because it might be an identity."""
    if isinstance(value, int) and value.bit_length() > 48:
        return "an integer of more than 48 bits"
    return repr(value) if isinstance(value, int | float) else f"a {type(value).__name__}"
