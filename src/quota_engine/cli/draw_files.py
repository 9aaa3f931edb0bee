"""The files of a draw, read from disk within bounds."""

from __future__ import annotations

__all__ = ["Ticks", "read_applications", "read_capacities", "read_result", "read_secret"]

import contextlib
import pathlib
from collections.abc import Callable, Iterator
from typing import IO, Any, Final

from quota_engine.domain.errors import CatalogError, InvalidRequest, ValidationIssue
from quota_engine.draws.files import (
    LINE_BYTES_MAX,
    ResultHead,
    applications_of_csv,
    applications_of_lines,
    capacities_of_json,
    result_of_lines,
)
from quota_engine.draws.lottery import Application, Capacities, Lot

CAPACITIES_BYTES_MAX: Final = 256 * 1024 * 1024
SECRET_BYTES_MAX: Final = 4_096
_TICK_LINES: Final = 10_000

Ticks = Callable[[int, int], None]
"""Told how many bytes of a file have been read, and how many it has."""


def read_capacities(path: pathlib.Path) -> Capacities:
    """The capacities in a JSON file.

    Raises:
        InvalidRequest: it can not be read.
        CatalogError: it is not such a file.
    """
    with _opened(path) as stream:
        text = stream.read(CAPACITIES_BYTES_MAX + 1)
    if len(text) > CAPACITIES_BYTES_MAX:
        problem = f"more than {CAPACITIES_BYTES_MAX} bytes"
        raise CatalogError((ValidationIssue(str(path), "", problem, f"at most {CAPACITIES_BYTES_MAX} bytes"),))
    return capacities_of_json(text, str(path))


def read_applications(path: pathlib.Path, ticks: Ticks) -> list[Application]:
    """The applications in a file of JSON Lines, or of CSV if its name ends so. Raises as :func:`read_capacities`."""
    with _opened(path) as stream:
        if path.suffix.lower() != ".csv":
            return list(applications_of_lines(_lines(stream, ticks), str(path)))
        try:
            return list(applications_of_csv((line.decode("utf-8-sig") for line in _lines(stream, ticks)), str(path)))
        except UnicodeDecodeError:
            raise CatalogError((ValidationIssue(str(path), "", "bytes that are no UTF-8", "text in UTF-8"),)) from None


def read_result(path: pathlib.Path, ticks: Ticks) -> tuple[ResultHead, list[tuple[Lot, str]]]:
    """A result. Raises as :func:`read_capacities`."""
    with _opened(path) as stream:
        return result_of_lines(_lines(stream, ticks), str(path))


def read_secret(path: pathlib.Path) -> str:
    """The one line of a file that holds a secret, without blanks around it. Raises as :func:`read_capacities`."""
    with _opened(path) as stream:
        content = stream.read(SECRET_BYTES_MAX)
    try:
        return content.decode("ascii").strip()
    except UnicodeDecodeError:
        raise InvalidRequest(str(path), "not such a file", "one line of digits") from None


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[IO[bytes]]:
    try:
        with path.open("rb") as stream:
            yield stream
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidRequest | CatalogError | UnicodeDecodeError):
            raise
        reason = getattr(error, "strerror", None) or "not a path"
        raise InvalidRequest(str(path), f"cannot be read: {reason}", "a file that exists and can be read") from None


def _lines(stream: IO[bytes], ticks: Ticks) -> Iterator[bytes]:
    """Line by line, none longer than may be: a file without line ends must not fill the memory."""
    size: Any = stream.seek(0, 2)
    stream.seek(0)
    index = done = 0
    while line := stream.readline(LINE_BYTES_MAX + 1):
        index += 1
        done += len(line)
        if index % _TICK_LINES == 0:
            ticks(done, size)
        yield line
