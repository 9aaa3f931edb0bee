"""The stored data of an office, in a form in which equal offices are equal."""

from __future__ import annotations

from typing import Any


def comparable_keys(found: dict[str, Any], head: str, days: str) -> dict[str, Any]:
    """Return the values of an office's keys without the id of the last write, which differs on purpose.

    The second row of a day is a set, whose order means nothing: it is that of a table of Lua.

    Args:
        found: The values by key; they are changed.
        head: The key of the head.
        days: The key of the days.
    """
    found.get(head, {}).pop("write_id", None)
    for number, text in found.get(days, {}).items():
        first, *rows = text.split("\n")
        if number.isdigit():
            found[days][number] = [first, sorted(rows[0].split("\t")), *rows[1:]]
    return found
