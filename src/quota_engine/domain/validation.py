"""Limits, and the checks of single values that every command goes through."""

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
APPLICANTS_MAX: Final = 100
"""The largest party any office may allow; each office sets its own limit below it."""
OPTIONS_MAX: Final = 16
QUOTAS_MAX: Final = 256
CAPACITY_MAX: Final = 10_000_000
TIME_MS_MAX: Final = 2**42
"""About the year 2109: the largest point in time, in milliseconds since 1970, UTC."""
DURATION_MS_MAX: Final = 10 * 366 * 86_400_000

is_name = re.compile(r"[A-Za-z0-9_-]{1,64}").fullmatch
"""Matches an id: the same characters everywhere, so that no id can break a key, a URL or a log line."""


def check_name(value: object, where: str) -> None:
    """Raise :class:`InvalidRequest` unless ``value`` is an id of 1 to 64 of ``A-Z a-z 0-9 _ -``."""
    if not isinstance(value, str) or is_name(value) is None:
        kind = "an empty id" if value == "" else "not a valid id"
        raise InvalidRequest(where, kind, f"1 to {NAME_LENGTH_MAX} characters of A-Z a-z 0-9 _ -")


def check_integer(value: object, where: str, minimum: int, maximum: int) -> None:
    """Raise :class:`InvalidRequest` unless ``value`` is an ``int`` (no ``bool``) within both bounds."""
    if type(value) is not int or not minimum <= value <= maximum:
        raise InvalidRequest(where, _shown(value), f"an integer from {minimum} to {maximum}")


def _shown(value: object) -> str:
    """A small number as it is, anything else by its kind only: it might be an identity, or a megabyte."""
    if isinstance(value, int) and value.bit_length() > 48:
        return "an integer of more than 48 bits"
    return repr(value) if isinstance(value, int | float) else f"a {type(value).__name__}"
