"""Operators' commands as lines of a file, for the page that shows who did what.

A line has the fields of the audit log: names, ids and numbers, and no other text that a person has typed.
"""

from __future__ import annotations

__all__ = ["COMMANDS_MAX", "CommandLog", "OperatorCommand"]

import asyncio
import datetime
import logging
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from quota_engine.service.json_lines import append_line, read_last_lines

COMMANDS_MAX: Final = 2_000
"""Commands that are kept without a folder, and commands of a month that a page can reach."""
_BYTES_MAX: Final = 1_000_000
_logger = logging.getLogger(__name__)


class OperatorCommand(msgspec.Struct, frozen=True):
    """One command.

    Attributes:
        at_ms: Time of its end in milliseconds since 1970 (UTC).
        operator: Name of the token's owner.
        command: Name of the API call, or path of the page.
        subject: Names and numbers of the call: office, day, reference and numbers.
        result: HTTP status, or name of an error.
    """

    at_ms: int
    operator: str
    command: str
    subject: dict[str, str]
    result: str

    @property
    def is_done(self) -> bool:
        """True if the command was carried out, or led to a question."""
        return self.result[:1] in ("2", "3")


class CommandLog:
    """The commands of all workers of a machine, a file a month; a shared folder has those of all machines."""

    def __init__(self, folder: Path | None, now_ms: Callable[[], int]) -> None:
        """``folder``: an existing folder; ``None`` keeps the last :data:`COMMANDS_MAX` commands in this process."""
        self._folder = folder
        self._now_ms = now_ms
        self._in_memory: deque[OperatorCommand] = deque(maxlen=COMMANDS_MAX)

    async def add(self, operator: str, command: str, subject: Mapping[str, str], result: str) -> None:
        """Record a command. A file that cannot be written costs the line and not the command; the log has a warning."""
        entry = OperatorCommand(self._now_ms(), operator, command, dict(subject), result)
        if self._folder is None:
            self._in_memory.append(entry)
            return
        try:
            await asyncio.to_thread(append_line, self._path(self._folder, self._month()), entry)
        except OSError as error:
            _logger.warning("the command of an operator was not recorded in the operator folder: %s", error.strerror)

    async def of_month(self, month: str = "") -> list[OperatorCommand]:
        """Return the commands of a month, the newest first, at most :data:`COMMANDS_MAX`.

        Args:
            month: A month in UTC, such as ``2026-12``; ``""`` for the present one.
        """
        wanted = month or self._month()
        if self._folder is None:
            found = [one for one in self._in_memory if _month_of(one.at_ms) == wanted]
        else:
            path = self._path(self._folder, wanted)
            found = await asyncio.to_thread(read_last_lines, path, OperatorCommand, _BYTES_MAX)
        return found[: -COMMANDS_MAX - 1 : -1]

    def _month(self) -> str:
        return _month_of(self._now_ms())

    @staticmethod
    def _path(folder: Path, month: str) -> Path:
        return folder / f"commands-{month}.jsonl"


def _month_of(at_ms: int) -> str:
    return f"{datetime.datetime.fromtimestamp(at_ms / 1000, tz=datetime.UTC):%Y-%m}"
