"""Output files of commands: checked before the work begins, and written completely or not at all."""

from __future__ import annotations

__all__ = ["check_file", "write_file", "write_lines"]

import hashlib
import os
import pathlib
from collections.abc import Iterable

from quota_engine.domain.errors import InvalidRequest


def check_file(path: pathlib.Path | None, option: str, suffix: str) -> None:
    """Check before a long run that its result can be written.

    Args:
        path: The file, or ``None`` if the option was not given.
        option: Name of the option, for messages.
        suffix: Required suffix, such as ``.html``.

    Raises:
        InvalidRequest: The suffix is another one, or the file cannot be written.
    """
    if path is None:
        return
    if path.suffix.lower() != suffix:
        raise InvalidRequest(option, repr(str(path)), f"a file that ends in {suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidRequest(option, f"{path.parent}: {error.strerror}", "a directory to write to") from None
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InvalidRequest(option, f"{path} cannot be written", "a writable file")


def write_file(path: pathlib.Path, text: str) -> None:
    """Replace the file's content, or leave the file unchanged."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_text(text, "utf-8", newline="\n")
        temporary.replace(path)
    except OSError as error:
        raise InvalidRequest(str(path), f"cannot be written: {error.strerror}", "a writable file") from None


def write_lines(path: pathlib.Path, lines: Iterable[bytes]) -> str:
    """Replace the file's content, or leave the file unchanged. Return the SHA-256 of the new content in hex."""
    temporary = path.with_name(f".{path.name}.part")
    digest = hashlib.sha256()
    try:
        with temporary.open("wb") as stream:
            for line in lines:
                digest.update(line)
                stream.write(line)
        temporary.replace(path)
    except OSError as error:
        raise InvalidRequest(str(path), f"cannot be written: {error.strerror}", "a writable file") from None
    return digest.hexdigest()
