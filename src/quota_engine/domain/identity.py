"""Identities become keyed hashes before anything else sees them."""

from __future__ import annotations

__all__ = ["IDENTITY_LENGTH_MAX", "Pseudonyms"]

import hashlib
from typing import Final

from quota_engine.domain.errors import InvalidRequest

IDENTITY_LENGTH_MAX: Final = 256


class Pseudonyms:
    """Turns identities (a national number, say) into keyed hashes: BLAKE2b, 128 bits, 32 hex digits.

    Without the key nobody can tell from a hash whose it is, not even by trying all 16-digit numbers. With the same key
    the
    same identity has the same hash in every process, which is what the identity limit needs.
    """

    __slots__ = ("_key", "_keyed", "jitter_seed")

    def __init__(self, key: bytes) -> None:
        """``key``: 16 to 64 secret bytes, the same for all processes that share a store, never changed while it lives.

        Raises:
            InvalidRequest: the key is of another type or length.
        """
        if not isinstance(key, bytes) or not 16 <= len(key) <= 64:
            raise InvalidRequest("identity_key", "not a usable key", "16 to 64 secret bytes")
        self._keyed = hashlib.blake2b(key=key, digest_size=16)
        self._key = key
        self.jitter_seed = hashlib.blake2b(b"jitter", key=key, digest_size=16, person=b"cooling").hexdigest()
        """A seed for the jitter of cooling times: the same in all processes, and as secret as the key."""

    def of(self, identity: str, where: str = "applicants") -> str:
        """The keyed hash of ``identity``: 1 to 256 printable characters, taken as they are.

        Upper and lower case, spaces and dashes make different identities: bring yours to one form before.

        Raises:
            InvalidRequest: not such a string; the message names ``where``, never the identity.
        """
        # Control characters, and halves of surrogate pairs, which could not be encoded, are not printable.
        if type(identity) is not str or not identity.isprintable() or not 0 < len(identity) <= IDENTITY_LENGTH_MAX:
            raise InvalidRequest(where, "not a usable identity", f"1 to {IDENTITY_LENGTH_MAX} printable characters")
        keyed = self._keyed.copy()
        keyed.update(identity.encode())
        return keyed.hexdigest()

    def secret_for(self, purpose: str) -> bytes:
        """32 secret bytes for another purpose: the same in all processes, as secret as the key, and no way back to it.

        ``purpose`` is any text; each has a secret of its own.
        """
        return hashlib.blake2b(purpose.encode(), key=self._key, digest_size=32, person=b"purpose").digest()
