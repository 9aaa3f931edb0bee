"""Pseudonyms: identities are replaced by keyed hashes before any other code sees them."""

from __future__ import annotations

__all__ = ["IDENTITY_LENGTH_MAX", "Pseudonyms"]

import hashlib
from typing import Final

from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.identity_key import check_key

IDENTITY_LENGTH_MAX: Final = 256
"""The most characters of an identity."""


class Pseudonyms:
    """Keyed hashes of identities, such as national numbers: BLAKE2b, 128 bits, as 32 hex digits.

    Without the key, a hash does not reveal the identity, even if an attacker tries all 16-digit numbers. With the same
    key, an identity has the same hash in every process, as the identity limits require.
    """

    __slots__ = ("_keyed", "jitter_seed", "key")

    def __init__(self, key: bytes) -> None:
        """Derive the hash function and the jitter seed from the key.

        Args:
            key: 16 to 64 secret bytes. All processes that share a store use the same key, and it never changes while
                the store lives.

        Raises:
            InvalidRequest: the key is not bytes of this length.
        """
        check_key(key)
        self._keyed = hashlib.blake2b(key=key, digest_size=16)
        self.key = key
        self.jitter_seed = hashlib.blake2b(b"jitter", key=key, digest_size=16, person=b"cooling").hexdigest()
        """The seed for the jitter of cooling times. It is the same in all processes, and as secret as the key."""

    def of(self, identity: str, where: str = "applicants") -> str:
        """Return the keyed hash of ``identity``.

        Case, spaces and dashes make different identities. Normalize an identity before hashing it.

        Args:
            identity: 1 to 256 printable characters.
            where: the name of the argument in an error message.

        Raises:
            InvalidRequest: not such a string. The message names ``where``, never the identity.
        """
        # isprintable() also excludes lone surrogates, which cannot be encoded.
        if type(identity) is not str or not identity.isprintable() or not 0 < len(identity) <= IDENTITY_LENGTH_MAX:
            raise InvalidRequest(where, "not a usable identity", f"1 to {IDENTITY_LENGTH_MAX} printable characters")
        keyed = self._keyed.copy()
        keyed.update(identity.encode())
        return keyed.hexdigest()

    def secret_for(self, purpose: str) -> bytes:
        """Return 32 secret bytes that are derived from the key, different for each ``purpose``.

        They are the same in all processes, and the key cannot be computed from them.
        """
        return hashlib.blake2b(purpose.encode(), key=self.key, digest_size=32, person=b"purpose").digest()
