"""Tags of what is shown: the same content has the same tag, so that nobody is sent what they have already."""

from __future__ import annotations

__all__ = ["is_one_of", "tag_of"]

import base64
import hashlib
from typing import Final

_BYTES: Final = 12  # 16 characters: that two contents in turn have one tag by chance is one in 10^28


def tag_of(content: bytes) -> str:
    """The tag of a content: 16 of ``A-Z a-z 0-9 _ -``."""
    return base64.urlsafe_b64encode(hashlib.blake2b(content, digest_size=_BYTES).digest()).decode()


def is_one_of(tag: str, if_none_match: bytes) -> bool:
    """Whether an ``If-None-Match`` header names the tag (RFC 9110, 13.1.2: weak comparison, ``*`` is any)."""
    quoted = b'"%s"' % tag.encode()
    if if_none_match == quoted:
        return True
    names = (name.strip().removeprefix(b"W/") for name in if_none_match.split(b","))
    return any(name in (quoted, b"*") for name in names)
