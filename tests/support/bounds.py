"""The bounds of integer fields of a message, and its default values."""

from __future__ import annotations

__all__ = ["Bounds", "defaults_of", "find_wrong_bounds"]

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from quota_engine.domain.errors import InvalidRequest

Bounds = Mapping[str, tuple[int | None, int | None]]
"""By field, the smallest and the largest value that a message accepts; ``None`` if another field decides it."""


def find_wrong_bounds(example: Any, bounds: Bounds) -> list[str]:
    """Return a sentence for each bound that is not where it should be.

    Args:
        example: A valid message.
        bounds: The bounds of some of its fields.
    """
    found = []
    for field, (smallest, largest) in bounds.items():
        for bound, step, expected in (
            (smallest, -1, f"from {smallest} to \\d+"),
            (largest, 1, f"from \\d+ to {largest}"),
        ):
            if bound is None:
                continue
            problem = _problem_with(example, field, bound)
            if problem:
                found.append(f"{field} {bound} is refused: {problem}")
            problem = _problem_with(example, field, bound + step)
            if not re.fullmatch(f".*\\b{field}: .*; expected an integer {expected}", problem):
                found.append(f"{field} {bound + step} is not refused by its bounds: {problem!r}")
    return found


def defaults_of(message_type: Any) -> dict[str, Any]:
    """Return the default values of a message that are neither zero nor empty, by field.

    Args:
        message_type: The type of the message.
    """
    return {
        one.name: one.default
        for one in msgspec.structs.fields(message_type)
        if one.default is not msgspec.NODEFAULT and one.default
    }


def _problem_with(example: Any, field: str, value: int) -> str:
    fields = {one.name: getattr(example, one.name) for one in msgspec.structs.fields(example)}
    try:
        changed = type(example)(**{**fields, field: value})
        if hasattr(changed, "check"):  # a message of the hot path is not checked when it is created
            changed.check()
    except InvalidRequest as error:
        return str(error)
    return ""
