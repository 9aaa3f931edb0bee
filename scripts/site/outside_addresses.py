"""Find parts of a built site that a browser would load from another host."""

from __future__ import annotations

__all__ = ["find_outside_addresses"]

import re
from pathlib import Path
from typing import Final

_LOADED: Final = {
    ".html": re.compile(
        r"<(?:script|img|link|iframe|source|video|object)\b[^>]*?(?:src|href|data)=\"((?:https?:)?//[^\"]*)"
    ),
    ".css": re.compile(r"(?:url\(\s*['\"]?|@import\s+['\"])((?:https?:)?//[^'\")]*)"),
}


def find_outside_addresses(folder: Path) -> list[str]:
    """Return ``file: address`` for each script, style, picture, font or frame from another host.

    A link that a reader clicks is none of them.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        pattern = _LOADED.get(path.suffix)
        if pattern is not None:
            text = path.read_text(encoding="utf-8")
            found += [f"{path.relative_to(folder).as_posix()}: {address}" for address in pattern.findall(text)]
    return found
