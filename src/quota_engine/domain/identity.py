"""Pseudonyms: identities are replaced by keyed hashes before any other code sees them."""

from __future__ import annotations

__all__ = ["Pseudonyms"]

import hashlib

from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.identity_format import ANY_FORM, IDENTITY_LENGTH_MAX, IdentityFormat
from quota_engine.domain.identity_key import check_key


class Pseudonyms:
    """Keyed hashes of identities, such as national numbers: BLAKE2b, 128 bits, as 32 hex digits.

    Without the key, a hash does not reveal the identity, even if an attacker tries all 16-digit numbers. With the same
    key, an identity has the same hash in every process and in every spelling, as the identity limits require.
    """

    __slots__ = ("_is_plain", "_keyed", "_matches_normalized", "identity_format", "jitter_seed", "key")

    def __init__(self, key: bytes, identity_format: IdentityFormat = ANY_FORM) -> None:
        """Derive the hash function and the jitter seed from the key.

        Args:
            key: 16 to 64 secret bytes. All processes that share a store use the same key, and it never changes while
                the store lives.
            identity_format: the form of the identities. All processes that share a store use the same one.

        Raises:
            InvalidRequest: the key is not bytes of this length.
        """
        check_key(key)
        self._keyed = hashlib.blake2b(key=key, digest_size=16)
        self.key = key
        self.identity_format = identity_format
        self._is_plain = identity_format.is_plain
        self._matches_normalized = identity_format.matches_normalized
        self.jitter_seed = hashlib.blake2b(b"jitter", key=key, digest_size=16, person=b"cooling").hexdigest()
        """The seed for the jitter of cooling times. It is the same in all processes, and as secret as the key."""

    def with_format(self, identity_format: IdentityFormat) -> Pseudonyms:
        """Return pseudonyms with the same key for identities of another form."""
        return Pseudonyms(self.key, identity_format)

    def of(self, identity: str, where: str = "applicants") -> str:
        """Return the keyed hash of ``identity``, the same for every spelling of it.

        Args:
            identity: an identity of the form that the pseudonyms were made with.
            where: the name of the argument in an error message.

        Raises:
            InvalidRequest: not such an identity. The message names ``where``, never the identity.
        """
        # Nearly all identities are normalized already. These checks take a tenth of the time of the hash.
        if self._is_plain:
            if not (
                type(identity) is str
                and identity.isascii()
                and identity.isprintable()
                and identity == identity.strip()
                and identity
                and len(identity) <= IDENTITY_LENGTH_MAX
            ):
                identity = self.identity_format.normalize(identity, where)
        elif (
            (matches := self._matches_normalized) is None
            or type(identity) is not str
            or not identity.isascii()
            or matches(identity) is None
        ):
            identity = self.identity_format.normalize(identity, where)
        keyed = self._keyed.copy()
        keyed.update(identity.encode())
        return keyed.hexdigest()

    def of_key(self, text: str, where: str) -> str:
        """Return the keyed hash of text such as an account, which is not an identity. It is hashed as it is.

        Args:
            text: 1 to 256 printable characters.
            where: the name of the argument in an error message.

        Raises:
            InvalidRequest: not such a string. The message names ``where``, never the text.
        """
        if type(text) is not str or not text.isprintable() or not 0 < len(text) <= IDENTITY_LENGTH_MAX:
            raise InvalidRequest(where, "not a usable key", f"1 to {IDENTITY_LENGTH_MAX} printable characters")
        keyed = self._keyed.copy()
        keyed.update(text.encode())
        return keyed.hexdigest()

    def secret_for(self, purpose: str) -> bytes:
        """Return 32 secret bytes that are derived from the key, different for each ``purpose``.

        They are the same in all processes, and the key cannot be computed from them.
        """
        return hashlib.blake2b(purpose.encode(), key=self.key, digest_size=32, person=b"purpose").digest()
