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

    def seal(self, text: str) -> str:
        """Return a text that only :meth:`unseal` reads. It is the same for the same text; :meth:`sign` protects it."""
        content = text.encode()
        nonce = self._digest(b"nonce." + content)
        return base64.urlsafe_b64encode(nonce + self._masked(nonce, content)).rstrip(b"=").decode()

    def unseal(self, sealed: str) -> str:
        """Return the text that :meth:`seal` hid. The caller has checked the signature."""
        content = base64.urlsafe_b64decode(sealed + "=" * (-len(sealed) % 4))
        return self._masked(content[:_MAC_BYTES], content[_MAC_BYTES:]).decode()

    def fingerprint(self, text: str) -> str:
        """Return a keyed hash of a text. It reveals nothing about the text."""
        return self._mac(f"mark.{text}")

    def secret_digest(self, text: str) -> bytes:
        """Return a keyed hash of a text as 16 bytes. It needs the key."""
        return self._digest(f"digest.{text}".encode())

    def _mac(self, payload: str) -> str:
        return base64.urlsafe_b64encode(self._digest(payload.encode())).rstrip(b"=").decode()

    def _digest(self, content: bytes) -> bytes:
        return hashlib.blake2b(content, key=self._key, digest_size=_MAC_BYTES).digest()

    def _masked(self, nonce: bytes, content: bytes) -> bytes:
        """Combine a content with the keyed hashes of a nonce and a counter; twice gives the content again."""
        blocks = range(-(-len(content) // _MAC_BYTES))
        mask = b"".join(self._digest(b"mask." + nonce + bytes((block,))) for block in blocks)
        return bytes(one ^ other for one, other in zip(content, mask, strict=False))
