"""Readers for the files of a draw. The size of a file or of its lines is bounded."""

from __future__ import annotations

__all__ = ["ReadProgress", "digest_of_file", "read_applications", "read_capacities", "read_result", "read_secret"]

import contextlib
import hashlib
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
_LINES_PER_UPDATE: Final = 10_000
_PART_BYTES: Final = 1 << 20

ReadProgress = Callable[[int, int], None]
"""Called with the bytes of a file that have been read, and its size."""


def read_capacities(path: pathlib.Path) -> Capacities:
    """Read the capacities in a JSON file.

    Raises:
        InvalidRequest: The file cannot be read.
        CatalogError: The content is invalid.
    """
    with _opened(path) as stream:
        text = stream.read(CAPACITIES_BYTES_MAX + 1)
    if len(text) > CAPACITIES_BYTES_MAX:
        problem = f"more than {CAPACITIES_BYTES_MAX} bytes"
        raise CatalogError((ValidationIssue(str(path), "", problem, f"at most {CAPACITIES_BYTES_MAX} bytes"),))
    return capacities_of_json(text, str(path))


def read_applications(path: pathlib.Path, progress: ReadProgress) -> list[Application]:
    """Read applications from JSON Lines, or from CSV if the name ends in ``.csv``.

    Raises like :func:`read_capacities`.
    """
    with _opened(path) as stream:
        if path.suffix.lower() != ".csv":
            return list(applications_of_lines(_lines(stream, progress), str(path)))
        try:
            return list(applications_of_csv((line.decode("utf-8-sig") for line in _lines(stream, progress)), str(path)))
        except UnicodeDecodeError:
            raise CatalogError((ValidationIssue(str(path), "", "not UTF-8", "text in UTF-8"),)) from None


def digest_of_file(path: pathlib.Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex, as ``sha256sum`` prints it. Raises like :func:`read_capacities`."""
    digest = hashlib.sha256()
    with _opened(path) as stream:
        while part := stream.read(_PART_BYTES):
            digest.update(part)
    return digest.hexdigest()


def read_result(path: pathlib.Path, progress: ReadProgress) -> tuple[ResultHead, list[tuple[Lot, str]]]:
    """Read the result of a draw. Raises like :func:`read_capacities`."""
    with _opened(path) as stream:
        return result_of_lines(_lines(stream, progress), str(path))


def read_secret(path: pathlib.Path) -> str:
    """Read the only line of a file with a secret, stripped. Raises like :func:`read_capacities`."""
    with _opened(path) as stream:
        content = stream.read(SECRET_BYTES_MAX)
    try:
        return content.decode("ascii").strip()
    except UnicodeDecodeError:
        raise InvalidRequest(str(path), "not a secret", "one line of hex digits") from None


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[IO[bytes]]:
    try:
        with path.open("rb") as stream:
            yield stream
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidRequest | CatalogError | UnicodeDecodeError):
            raise
        reason = getattr(error, "strerror", None) or "not a path"
        raise InvalidRequest(str(path), f"cannot be read: {reason}", "a readable file") from None


def _lines(stream: IO[bytes], progress: ReadProgress) -> Iterator[bytes]:
    """Yield lines of bounded length, because a file without line ends must not fill the memory."""
    size: Any = stream.seek(0, 2)
    stream.seek(0)
    index = done = 0
    while line := stream.readline(LINE_BYTES_MAX + 1):
        index += 1
        done += len(line)
        if index % _LINES_PER_UPDATE == 0:
            progress(done, size)
        yield line
