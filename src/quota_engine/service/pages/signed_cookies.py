"""Sign texts for cookies, and read them back until they expire."""

from __future__ import annotations

__all__ = ["CookieSigner"]

import base64
import hashlib
import hmac
from typing import Final

_MAC_BYTES: Final = 16
_VALUE_LENGTH_MAX: Final = 800


class CookieSigner:
    """Signs texts with a key derived from the identity key, so that every worker accepts the same cookies."""

    def __init__(self, identity_key: bytes, purpose: str = "pages") -> None:
        """Derive the key of a purpose.

        Args:
            identity_key: Identity key of the store.
            purpose: At most 13 ASCII letters. A text that is signed for one purpose is invalid for another.
        """
        self._key = hashlib.blake2b(identity_key, person=f"qe {purpose}".encode(), digest_size=32).digest()

    def sign(self, text: str, expires_at_ms: int) -> str:
        """Return a cookie value with the text, its expiry time and a signature."""
        payload = f"{expires_at_ms}.{text}"
        return f"{payload}.{self._mac(payload)}"

    def read(self, value: str, now_ms: int) -> str:
        """Return the text of a value that :meth:`sign` made; ``""`` if it is forged or expired."""
        payload, _, mac = value.rpartition(".")
        expires_at, _, text = payload.partition(".")
        if len(value) > _VALUE_LENGTH_MAX or not value.isascii() or not hmac.compare_digest(mac, self._mac(payload)):
            return ""
        return text if expires_at.isdigit() and int(expires_at) > now_ms else ""

    def fingerprint(self, text: str) -> str:
        """Return a keyed hash of a text. It reveals nothing about the text."""
        return self._mac(f"mark.{text}")

    def _mac(self, payload: str) -> str:
        digest = hashlib.blake2b(payload.encode(), key=self._key, digest_size=_MAC_BYTES).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
