"""Files of JSON lines that several processes add to, and of which pages show the end."""

from __future__ import annotations

__all__ = ["append_line", "read_last_lines"]

import contextlib
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from quota_engine import typed_data

T = TypeVar("T")
_TAIL_BYTES: Final = 262_144


def append_line(path: Path, value: msgspec.Struct) -> None:
    """Add a line to a file, which is made if it is missing.

    Raises:
        OSError: the file cannot be written.
    """
    # One write of less than a page: lines of two processes do not mix.
    with path.open("ab", buffering=0) as file:
        file.write(msgspec.json.encode(value) + b"\n")


def read_last_lines(path: Path, kind: type[T], bytes_max: int = _TAIL_BYTES) -> list[T]:
    """Return the values of the last lines of a file, in its order. A missing file and unreadable lines are left out.

    Args:
        path: the file.
        kind: the type of its lines.
        bytes_max: bytes at the end of the file that are read.
    """
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            start = max(0, file.tell() - bytes_max)
            file.seek(start)
            lines = file.read().splitlines()
    except OSError:
        return []
    values: list[T] = []
    for line in lines[1 if start else 0 :]:
        with contextlib.suppress(msgspec.DecodeError):
            values.append(typed_data.decode_json(line, kind))
    return values
