"""The identity key: the secret of the keyed hashes, its one text form, and where it came from."""

from __future__ import annotations

__all__ = [
    "SECRET_EXPECTED",
    "IdentityKey",
    "check_key",
    "decode_identity_key",
    "decode_secret",
    "fingerprint_of",
    "source_of",
]

import base64
import binascii
import hashlib
from typing import Final

from quota_engine.domain.errors import InvalidRequest

SECRET_EXPECTED: Final = "base64 of 16 to 64 random bytes: openssl rand -base64 32"  # noqa: S105 - a recipe
"""The form of a secret in a file, an environment variable or an option."""
_KEY_EXPECTED: Final = "16 to 64 secret bytes"
_ARGUMENT: Final = "identity_key"


class IdentityKey(bytes):
    """An identity key that knows where it came from. ``repr`` does not show the key.

    Attributes:
        source: the argument, variable, option, or file and key that the key was read from. Errors name it.
    """

    source: str

    def __new__(cls, key: bytes, source: str = _ARGUMENT) -> IdentityKey:
        """Keep ``source`` with the bytes. ``key`` is not checked; see :func:`check_key`."""
        made = super().__new__(cls, key)
        made.source = source
        return made

    def __repr__(self) -> str:
        return f"IdentityKey(..., source={self.source!r})"


def source_of(key: bytes) -> str:
    """Return where a key came from; ``"identity_key"``, the argument's name, for plain bytes."""
    return key.source if isinstance(key, IdentityKey) else _ARGUMENT


def check_key(key: object) -> None:
    """Validate a key.

    Raises:
        InvalidRequest: not 16 to 64 bytes. The error names the key's source, never the key.
    """
    if not isinstance(key, bytes) or not 16 <= len(key) <= 64:
        where = source_of(key) if isinstance(key, bytes) else _ARGUMENT
        raise InvalidRequest(where, "not a usable key", _KEY_EXPECTED)


def fingerprint_of(key: bytes) -> str:
    """Return the fingerprint of a key: 32 hex digits, different for each key.

    The key cannot be computed from it, so a store may keep it.

    Raises:
        InvalidRequest: the key is not usable; see :func:`check_key`.
    """
    check_key(key)
    return hashlib.blake2b(b"fingerprint", key=key, digest_size=16, person=b"identity key").hexdigest()


def decode_secret(text: str) -> bytes:
    """Return the bytes of a secret in its one text form; ``b""`` if the text is anything else.

    Args:
        text: base64 (RFC 4648, section 4) of 16 to 64 bytes. White space around it is ignored.
    """
    try:
        secret = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        return b""
    return secret if 16 <= len(secret) <= 64 else b""


def decode_identity_key(text: str, source: str) -> IdentityKey:
    """Return the identity key that a text stands for. The text has the same form wherever it is read from.

    Args:
        text: as for :func:`decode_secret`.
        source: where the text was read: a variable, an option, or a file and a key. Later errors name it, too.

    Raises:
        InvalidRequest: not such a text. The error names ``source``, never the text.
    """
    secret = decode_secret(text)
    if not secret:
        raise InvalidRequest(source, "not a usable key" if text.strip() else "missing", SECRET_EXPECTED)
    return IdentityKey(secret, source)
