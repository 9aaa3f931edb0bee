"""Cookies that the pages believe: what they gave away themselves, signed, for a time."""

from __future__ import annotations

__all__ = ["Visits"]

import base64
import hashlib
import hmac
from typing import Final

_MAC_BYTES: Final = 16
_TEXT_MAX: Final = 800


class Visits:
    """Signs texts, and reads them back. The key follows from the identity key, and is of no use for anything else."""

    def __init__(self, identity_key: bytes, purpose: str = "pages") -> None:
        """``purpose``: at most 13 ASCII letters. What was signed for one is worth nothing for another."""
        self._key = hashlib.blake2b(identity_key, person=f"qe {purpose}".encode(), digest_size=32).digest()

    def seal(self, text: str, until_ms: int) -> str:
        """A value for a cookie, good until then."""
        payload = f"{until_ms}.{text}"
        return f"{payload}.{self._mac(payload)}"

    def read(self, value: str, now_ms: int) -> str:
        """The text of a value that :meth:`seal` made and that is still good; otherwise ``""``."""
        payload, _, mac = value.rpartition(".")
        until, _, text = payload.partition(".")
        if len(value) > _TEXT_MAX or not value.isascii() or not hmac.compare_digest(mac, self._mac(payload)):
            return ""
        return text if until.isdigit() and int(until) > now_ms else ""

    def mark(self, text: str) -> str:
        """What only this site can make of a text; it tells nothing about it."""
        return self._mac(f"mark.{text}")

    def _mac(self, payload: str) -> str:
        digest = hashlib.blake2b(payload.encode(), key=self._key, digest_size=_MAC_BYTES).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
