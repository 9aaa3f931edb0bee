"""Collects the parts in which an office is read; see ``lua/office/snapshot.lua``."""

from __future__ import annotations

__all__ = ["ENTRIES_MAX", "OfficeReader"]

from collections.abc import Sequence
from typing import Any, Final

ENTRIES_MAX: Final = 2_000
"""Entries that one script reads: about ten milliseconds, in which the server does nothing else."""

_HASHES: Final = frozenset({0, 1, 2, 3, 4, 8})
"""Indexes of the parts that are hashes."""
_PARTS: Final = 11
_WAITING: Final = 6


class OfficeReader:
    """An office that is read part by part.

    Attributes:
        cursor: Where to continue, as two words for the script; ``None`` if everything has been read.
    """

    def __init__(self) -> None:
        self.cursor: tuple[str, str] | None = ("1", "0")
        self._parts: list[Any] = [{} if index in _HASHES else [] for index in range(_PARTS)]

    def add(self, reply: Sequence[Any]) -> None:
        """Take a reply of the script: where to continue, and for each part its number and its entries."""
        part, cursor, *parts = reply
        self.cursor = None if part == "0" else (part, cursor)
        for number, entries in zip(parts[::2], parts[1::2], strict=True):
            kept = self._parts[number - 1]
            if isinstance(kept, dict):
                kept.update(zip(entries[::2], entries[1::2], strict=True))  # a scan may return a field twice
            else:
                kept += entries

    def state(self) -> list[Any]:
        """Return the replies of ``lua/office/state.lua``, each hash as a dictionary, and two more.

        These are the members of ``due``, and those of ``waiting`` and their scores alternating.
        """
        *parts, due = self._parts
        waiting = parts[_WAITING]
        return [*parts[:_WAITING], waiting[::2], *parts[_WAITING + 1 :], due, waiting]
