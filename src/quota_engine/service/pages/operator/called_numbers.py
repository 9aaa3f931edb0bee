"""Queue numbers that the office has called, for the counters and for the screen in the hall.

They are no part of a registration, and nothing follows from them. So they are lines of a file, which all workers of a
machine share; a folder in the configuration shares them between machines, and keeps them over a restart.
"""

from __future__ import annotations

__all__ = ["CALLS_SHOWN_MAX", "COUNTER_LENGTH_MAX", "CalledNumbers", "NumberCall"]

import asyncio
import contextlib
import datetime
from collections import defaultdict
from pathlib import Path
from typing import Final

import msgspec

from quota_engine.service.json_lines import append_line, read_last_lines

CALLS_SHOWN_MAX: Final = 5
COUNTER_LENGTH_MAX: Final = 10
"""Too short for an identity, because the hall sees it."""
_DAYS_KEPT: Final = 2
_IN_MEMORY_MAX: Final = 4_000


class NumberCall(msgspec.Struct, frozen=True):
    """One call.

    Attributes:
        number: Queue number.
        counter: Where to go, such as the number of a counter; ``""`` for none.
        at_ms: Time of the call in milliseconds since 1970 (UTC).
        again: True if the number is called once more. Otherwise, only the first call of a number counts.
    """

    number: int
    counter: str
    at_ms: int
    again: bool = False


class CalledNumbers:
    """The last calls of each office and day."""

    def __init__(self, folder: Path | None) -> None:
        """``folder``: an existing folder of the calls; ``None`` keeps them in this process."""
        self._folder = folder
        self._in_memory: defaultdict[str, list[NumberCall]] = defaultdict(list)

    async def add(self, office: str, day: datetime.date, call: NumberCall) -> bool:
        """Record a call.

        Returns:
            False if another counter has called the number before, and this is not a call once more.

        Raises:
            OSError: the file cannot be written.
        """
        if self._folder is None:
            calls = self._in_memory[f"{office} {day}"]
            calls.append(call)
            del calls[:-_IN_MEMORY_MAX]
        else:
            await asyncio.to_thread(self._append, office, day, call)
        # Each process reads the same order of lines, so that only one of two counters gets the number.
        return call in await self.last(office, day)

    async def last(self, office: str, day: datetime.date) -> list[NumberCall]:
        """Return the last calls of a day, the newest first and each number once."""
        if self._folder is None:
            calls = list(self._in_memory.get(f"{office} {day}", ()))
        else:
            calls = await asyncio.to_thread(read_last_lines, self._path(office, day), NumberCall)
        newest: dict[int, NumberCall] = {}
        for call in calls:
            if call.again or call.number not in newest:
                newest.pop(call.number, None)
                newest[call.number] = call
        return list(reversed(newest.values()))

    def _path(self, office: str, day: datetime.date) -> Path:
        assert self._folder is not None
        return self._folder / f"calls-{office}-{day.isoformat()}.jsonl"

    def _append(self, office: str, day: datetime.date, call: NumberCall) -> None:
        path = self._path(office, day)
        if not path.exists():
            self._delete_old(office, day)
        append_line(path, call)

    def _delete_old(self, office: str, day: datetime.date) -> None:
        assert self._folder is not None
        oldest = f"calls-{office}-{(day - datetime.timedelta(days=_DAYS_KEPT)).isoformat()}.jsonl"
        for path in self._folder.glob(f"calls-{office}-????-??-??.jsonl"):
            if path.name < oldest:
                with contextlib.suppress(OSError):
                    path.unlink()
