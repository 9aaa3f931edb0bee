"""Files that commands write: seen to before the long work, and written whole or not at all."""

from __future__ import annotations

__all__ = ["check_file", "write_file", "write_lines"]

import hashlib
import os
import pathlib
from collections.abc import Iterable

from quota_engine.domain.errors import InvalidRequest


def check_file(path: pathlib.Path | None, option: str, suffix: str) -> None:
    """Find out before a long run whether its result can be written."""
    if path is None:
        return
    if path.suffix.lower() != suffix:
        raise InvalidRequest(option, repr(str(path)), f"a file that ends in {suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidRequest(option, f"{path.parent}: {error.strerror}", "a directory to write to") from None
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InvalidRequest(option, f"{path} cannot be written", "a file that can")


def write_file(path: pathlib.Path, text: str) -> None:
    """Write all of it, or leave what was there."""
    beside = path.with_name(f".{path.name}.part")
    try:
        beside.write_text(text, "utf-8", newline="\n")
        beside.replace(path)
    except OSError as error:
        raise InvalidRequest(str(path), f"cannot be written: {error.strerror}", "a file that can") from None


def write_lines(path: pathlib.Path, lines: Iterable[bytes]) -> str:
    """Write all of them, or leave what was there; returns the SHA-256 of what the file has now, in hex."""
    beside = path.with_name(f".{path.name}.part")
    digest = hashlib.sha256()
    try:
        with beside.open("wb") as stream:
            for line in lines:
                digest.update(line)
                stream.write(line)
        beside.replace(path)
    except OSError as error:
        raise InvalidRequest(str(path), f"cannot be written: {error.strerror}", "a file that can") from None
    return digest.hexdigest()
