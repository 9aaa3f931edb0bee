"""Entity tags: equal content has an equal tag, so that a client does not download content it already has."""

from __future__ import annotations

__all__ = ["etag_of", "matches_etag"]

import base64
import hashlib
from typing import Final

_DIGEST_BYTES: Final = 12  # 16 characters: two given contents share a tag with a probability of 1 in 10^28


def etag_of(content: bytes) -> str:
    """Return the tag of a content: 16 characters of ``A-Z a-z 0-9 _ -``."""
    return base64.urlsafe_b64encode(hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest()).decode()


def matches_etag(etag: str, if_none_match: bytes) -> bool:
    """Return True if an ``If-None-Match`` header names the tag.

    RFC 9110, section 13.1.2: the comparison is weak, and ``*`` matches all.
    """
    quoted = b'"%s"' % etag.encode()
    if if_none_match == quoted:
        return True
    candidates = (candidate.strip().removeprefix(b"W/") for candidate in if_none_match.split(b","))
    return any(candidate in (quoted, b"*") for candidate in candidates)
