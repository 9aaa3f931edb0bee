"""Signed tickets and admission passes of waiting rooms. Neither is stored anywhere.

Both are bytes in base64url. They carry the id of a key, and a signature under it by keyed BLAKE2b of 128 bits
(RFC 7693). It takes a third of the time of an HMAC. New ones are signed with the active key. Old ones stay valid as
long as their key is kept. Each has exactly one spelling: another text that decodes to the same bytes is refused. An
applicant is bound by a keyed hash, from which the identity cannot be recovered.

=========  ==============================================================================
ticket     ``1``, key id, room, release (8 bytes of its commitment), index (4), epoch (4), expires_at_ms (6),
           applicant (10), signature (16)
pass       ``2``, key id, room, release, index (4), epoch (4), office, first day (3), last day (3), id (16),
           until_ms (6), applicant (10), signature (16)
=========  ==============================================================================

Numbers are big endian. A text is preceded by its length in one byte.

Index and epoch together name a ticket: after a failover, a room may give the index of a lost ticket again, in a later
epoch (:mod:`quota_engine.domain.epochs`).
"""

from __future__ import annotations

__all__ = ["PassContents", "RoomTickets", "TicketIndex", "TicketKeys", "read_pass", "read_ticket_index"]

import base64
import binascii
import hashlib
import hmac
import string
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.validation import check_name

KEYS_MAX: Final = 16
TEXT_LENGTH_MAX: Final = 512
_TICKET, _PASS = b"\x01", b"\x02"
_SIGNATURE_LENGTH: Final = 16
_APPLICANT_LENGTH: Final = 10
_RELEASE_LENGTH: Final = 8
_PASS_ID_LENGTH: Final = 16
_INDEX_LENGTH: Final = 4
_EPOCH_LENGTH: Final = 4
_DAY_LENGTH: Final = 3
_TIME_LENGTH: Final = 6
_FROM_BASE64URL: Final = bytes.maketrans(b"-_+/=", b"+/!!!")
"""Translates base64url to base64, and characters that only base64 has to one that neither has."""
_ALPHABET: Final = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
_LAST_CHARACTERS: Final = (_ALPHABET, "", _ALPHABET[::16], _ALPHABET[::4])
"""Characters with which a text can end, by its length modulo 4. No text has a length of 1 modulo 4."""
_from_base64 = binascii.a2b_base64
_PADDING: Final = (b"", b"", b"==", b"=")
"""Padding of a text in base64, by its length modulo 4."""


class TicketKeys:
    """The secrets that sign tickets and passes, by id. The active one signs new tickets and passes.

    To rotate keys, add the new key to all processes, then make it active. Remove the old key when all rooms that were
    created with it have closed, because a room's seeds are derived from the key that was active at its creation.
    """

    __slots__ = ("_derived", "active")

    def __init__(self, active: str, secrets: Mapping[str, bytes]) -> None:
        """Derive the keys for each use.

        Args:
            active: Id of the active secret.
            secrets: 1 to 16 secrets of 16 to 64 bytes, by id.

        Raises:
            InvalidRequest: An argument is out of its range.
        """
        if not isinstance(secrets, Mapping) or not 1 <= len(secrets) <= KEYS_MAX:
            raise InvalidRequest("ticket_keys", "not usable", f"1 to {KEYS_MAX} secrets by their ids")
        for key_id, secret in secrets.items():
            check_name(key_id, "ticket_keys, an id")
            if not isinstance(secret, bytes) or not 16 <= len(secret) <= 64:
                raise InvalidRequest(f"ticket_keys, {key_id}", "not a usable secret", "16 to 64 secret bytes")
        if active not in secrets:
            raise InvalidRequest("ticket_keys, the active one", "not among the secrets", "the id of one of them")
        self.active = active
        self._derived = {
            key_id: DerivedKeys(
                hashlib.blake2b(key=_derive(secret, b"ticket signing"), digest_size=_SIGNATURE_LENGTH),
                hashlib.blake2b(key=_derive(secret, b"ticket binding"), digest_size=_APPLICANT_LENGTH),
                _derive(secret, b"room seeding"),
                _derive(secret, b"pass ids"),
            )
            for key_id, secret in secrets.items()
        }

    def derive_closing_seed(self, key_id: str, room: str, nonce: str) -> str:
        """Return the closing seed of a room, in hex: HMAC-SHA-256 of the room's id and nonce.

        Args:
            key_id: Id of the key with which the room was created.
            room: Id of the room.
            nonce: Nonce of the room.

        Raises:
            InvalidRequest: The key is not known.
        """
        message = f"{room}\n{nonce}\n".encode()
        return hmac.digest(self.derived_keys(key_id).seed_key, message, "sha256").hex()

    def derived_keys(self, key_id: str) -> DerivedKeys:
        """Return the keys that are derived from a secret.

        Raises:
            InvalidRequest: The secret is not known.
        """
        derived = self._derived.get(key_id)
        if derived is None:
            raise InvalidRequest(
                "ticket_keys", "the key with which the room was created is missing", f"a key with the id {key_id}"
            )
        return derived

    def sign(self, body: bytes) -> str:
        """Return ``body`` with its signature under the active key, as text."""
        return _encode(body + _signature(self._derived[self.active], body))

    def verify(self, text: object, kind: bytes, where: str) -> tuple[bytes, int]:
        """Verify the signature of a ticket or pass.

        Args:
            text: The ticket or pass.
            kind: The first byte that it must have.
            where: Name of the text for the error.

        Returns:
            Its bytes, and the offset behind the key id.

        Raises:
            InvalidRequest: The signature is invalid, or the text is of another kind.
        """
        raw = _decode(text, where)
        return raw, self.verify_bytes(raw, kind, where)

    def verify_bytes(self, raw: bytes, kind: bytes, where: str) -> int:
        """Verify the signature of the bytes of a ticket or pass; return the offset behind the key id.

        Raises:
            InvalidRequest: The signature is invalid, or the bytes are of another kind.
        """
        key_id, start = _read_text(raw, 1) if raw[:1] == kind else ("", 0)
        if key_id not in self._derived or len(raw) < start + _SIGNATURE_LENGTH:
            raise InvalidRequest(where, "not signed with a known key", _expected(where))
        if not _is_signed(self._derived[key_id], raw):
            raise _altered(where)
        return start

    def hash_applicant(self, key_id: str, applicant: str) -> bytes:
        """Return the hash that binds a ticket or pass to an applicant.

        Args:
            key_id: Id of the key that signs the ticket or pass.
            applicant: Keyed hash of the applicant.
        """
        keyed = self._derived[key_id].applicant_hash.copy()
        keyed.update(applicant.encode())
        return keyed.digest()


class DerivedKeys(NamedTuple):
    """Keys that are derived from one secret, one for each use, so that a value made for one use fits no other.

    Attributes:
        signature_hash: Keyed hash for signatures, to be copied before use.
        applicant_hash: Keyed hash for applicants, to be copied before use.
        seed_key: Key for closing seeds.
        pass_id_key: Key for ids of passes.
    """

    signature_hash: hashlib.blake2b
    applicant_hash: hashlib.blake2b
    seed_key: bytes
    pass_id_key: bytes


def _derive(secret: bytes, use: bytes) -> bytes:
    return hashlib.blake2b(key=secret, digest_size=32, person=use).digest()


class TicketIndex(NamedTuple):
    """Names a ticket of a room: its index as ``offset`` (from 0), and the epoch in which the room gave it.

    The number of a ticket, which applicants see, is its index plus 1.
    """

    offset: int
    epoch: int

    @property
    def number(self) -> int:
        """Number of the ticket, from 1."""
        return self.offset + 1


class RoomTickets:
    """Makes and reads the tickets of one room, and makes its passes."""

    def __init__(self, keys: TicketKeys, room: str, commitment: str, key_id: str) -> None:
        """Create the tickets of a room.

        Args:
            keys: The keys.
            room: Id of the room.
            commitment: The room's commitment, in hex. It distinguishes releases whose rooms have the same id.
            key_id: Id of the key with which the room was created.

        Raises:
            InvalidRequest: The key is not known.
        """
        check_name(room, "room")
        self._keys = keys
        self._pass_id_key = keys.derived_keys(key_id).pass_id_key
        self._scope = _sized(room) + bytes.fromhex(commitment)[:_RELEASE_LENGTH]
        self._ticket_head = _TICKET + _sized(keys.active) + self._scope
        ticket_format = struct.Struct(f">{len(self._ticket_head)}x{_TICKET_TAIL.format[1:]}")
        self._unpack = ticket_format.unpack
        self._text_length = -(-4 * ticket_format.size // 3)
        self._padding, self._last_characters = _PADDING[self._text_length % 4], _LAST_CHARACTERS[self._text_length % 4]
        self._copy_signature_hash = keys.derived_keys(keys.active).signature_hash.copy

    def ticket(self, index: int, epoch: int, applicant: str, expires_at_ms: int) -> str:
        """Return a signed ticket.

        Args:
            index: Index of the ticket.
            epoch: Epoch in which the room gave it.
            applicant: Keyed hash of the applicant.
            expires_at_ms: Time at which the ticket expires, in milliseconds since 1970 (UTC).
        """
        keys = self._keys
        body = (
            self._ticket_head
            + index.to_bytes(_INDEX_LENGTH, "big")
            + epoch.to_bytes(_EPOCH_LENGTH, "big")
            + expires_at_ms.to_bytes(_TIME_LENGTH, "big")
            + keys.hash_applicant(keys.active, applicant)
        )
        return keys.sign(body)

    def read(self, ticket: object, now_ms: int, applicant: str = "") -> TicketIndex:
        """Return the index and the epoch of a ticket. The room may have lost it.

        Args:
            ticket: The ticket.
            now_ms: The store's time, in milliseconds since 1970 (UTC).
            applicant: Keyed hash of the applicant who must own the ticket. ``""`` accepts any owner.

        Raises:
            InvalidRequest: The text is not a ticket of this room and release, has been altered or has expired, or
                belongs to another applicant.
        """
        return TicketIndex(*self.read_fields(ticket, now_ms, applicant))

    def read_fields(self, ticket: object, now_ms: int, applicant: str = "") -> tuple[int, int]:
        """Do what :meth:`read` does, but return a plain tuple. It is for polls, because it takes less time."""
        # Nearly every ticket has the length and the head of those that are made now. For them, this is _decode() and
        # _is_signed() without their calls. A text of this length has as many bytes as they have.
        if isinstance(ticket, str) and len(ticket) == self._text_length and ticket[-1] in self._last_characters:
            try:
                raw = _from_base64(ticket.encode().translate(_FROM_BASE64URL) + self._padding, strict_mode=True)
            except ValueError:
                raise _malformed("ticket") from None
            has_current_head = raw.startswith(self._ticket_head)
        else:
            raw, has_current_head = _decode(ticket, "ticket"), False
        if has_current_head:
            index, epoch, expires_high, expires_low, owner, signature = self._unpack(raw)
            keyed = self._copy_signature_hash()
            keyed.update(raw[_SIGNED])
            if not _compare_digest(keyed.digest(), signature):
                raise _altered("ticket")
        else:
            index, epoch, expires_high, expires_low, owner, _ = self._read_other(raw)
        if expires_high << 32 | expires_low <= now_ms:
            raise InvalidRequest("ticket", "it has expired", "a ticket of a room that has not closed")
        if applicant and not _compare_digest(owner, self._keys.hash_applicant(_read_text(raw, 1)[0], applicant)):
            raise InvalidRequest("ticket", "another person's", "the applicant's own ticket")
        return index, epoch

    def _read_other(self, raw: bytes) -> tuple[Any, ...]:
        """Verify a ticket that is not signed with the active key, and return the values behind its release."""
        start = self._keys.verify_bytes(raw, _TICKET, "ticket")
        end = start + len(self._scope)
        if raw[start:end] != self._scope or len(raw) != end + _TICKET_TAIL.size:
            raise InvalidRequest("ticket", "of another room or release", "a ticket of this one")
        return _TICKET_TAIL.unpack_from(raw, end)

    def admission_pass(
        self, index: int, epoch: int, applicant: str, office: str, first_day: int, last_day: int, until_ms: int
    ) -> str:
        """Return the signed pass of a called ticket. The same arguments give the same pass.

        Args:
            index: Index of the ticket.
            epoch: Epoch in which the room gave it.
            applicant: Keyed hash of the applicant, who can make one reservation.
            office: Id of the office.
            first_day: First day for which the pass is valid (a date's ordinal).
            last_day: Last day for which the pass is valid (a date's ordinal).
            until_ms: Time at which the pass expires by the store's clock, in milliseconds since 1970 (UTC).
        """
        keys = self._keys
        # The id depends on the ticket and on the room's first key only, so each ticket has one pass for all time. It
        # depends on the applicant, too: a failover may leave two applicants with one index, and the pass that one of
        # them has used must not refuse the other one.
        number = index.to_bytes(_INDEX_LENGTH, "big") + epoch.to_bytes(_EPOCH_LENGTH, "big")
        ticket = self._scope + number + applicant.encode()
        body = (
            _PASS
            + _sized(keys.active)
            + self._scope
            + number
            + _sized(office)
            + first_day.to_bytes(_DAY_LENGTH, "big")
            + last_day.to_bytes(_DAY_LENGTH, "big")
            + hashlib.blake2b(ticket, key=self._pass_id_key, digest_size=_PASS_ID_LENGTH).digest()
            + until_ms.to_bytes(_TIME_LENGTH, "big")
            + keys.hash_applicant(keys.active, applicant)
        )
        return keys.sign(body)


_TICKET_TAIL: Final = struct.Struct(f">IIHI{_APPLICANT_LENGTH}s{_SIGNATURE_LENGTH}s")
"""The values behind a ticket's release. ``expires_at_ms`` is in two parts, of 2 and 4 bytes."""
_SIGNED: Final = slice(-_SIGNATURE_LENGTH)
"""The bytes of a ticket that its signature covers."""
_compare_digest = hmac.compare_digest


def read_ticket_index(ticket: object) -> TicketIndex:
    """Return index and epoch of a ticket of any room, without a key. The signature is not verified.

    Raises:
        InvalidRequest: The text does not have the form of a ticket.
    """
    raw = _decode(ticket, "ticket")
    _, at = _read_text(raw, 1)
    _, at = _read_text(raw, at)
    at += _RELEASE_LENGTH
    if raw[:1] != _TICKET or len(raw) != at + _TICKET_TAIL.size:
        raise InvalidRequest("ticket", "not a ticket", _expected("ticket"))
    epoch = at + _INDEX_LENGTH
    return TicketIndex(int.from_bytes(raw[at:epoch], "big"), int.from_bytes(raw[epoch : epoch + _EPOCH_LENGTH], "big"))


class PassContents(NamedTuple):
    """Contents of a pass that the store needs: its id, which can be used once, and the time at which it expires."""

    id: str
    until_ms: int


def read_pass(
    keys: TicketKeys, admission_pass: object, office: str, day: int, applicants: Sequence[str]
) -> PassContents:
    """Verify a pass and return its contents.

    The store decides whether the pass has expired or been used, in one step with the reserve.

    Args:
        keys: The keys.
        admission_pass: The pass.
        office: Id of the office for which the pass must be valid.
        day: Day for which the pass must be valid (a date's ordinal).
        applicants: Keyed hashes of applicants. The pass must belong to one of them.

    Raises:
        InvalidRequest: The signature is invalid, or the pass is for another office, other days or another applicant.
    """
    raw, start = keys.verify(admission_pass, _PASS, "admission_pass")
    key_id, _ = _read_text(raw, 1)
    at = _read_text(raw, start)[1] + _RELEASE_LENGTH + _INDEX_LENGTH + _EPOCH_LENGTH
    bound_office, at = _read_text(raw, at)
    if bound_office != office:
        raise InvalidRequest("admission_pass", "for another office", "one for this office")
    last = at + _DAY_LENGTH
    pass_id = last + _DAY_LENGTH
    expiry = pass_id + _PASS_ID_LENGTH
    owner = expiry + _TIME_LENGTH
    if not int.from_bytes(raw[at:last], "big") <= day <= int.from_bytes(raw[last:pass_id], "big"):
        raise InvalidRequest("admission_pass", "for other days", "one for this day")
    bound = raw[owner:-_SIGNATURE_LENGTH]
    if not any(_compare_digest(keys.hash_applicant(key_id, applicant), bound) for applicant in applicants):
        raise InvalidRequest("admission_pass", "another person's", "the pass of one of the applicants")
    return PassContents(_encode(raw[pass_id:expiry]), int.from_bytes(raw[expiry:owner], "big"))


def _decode(text: object, where: str) -> bytes:
    """Return the bytes of a base64url text. Of all spellings of the same bytes, only one is accepted."""
    if not isinstance(text, str) or not 0 < len(text) <= TEXT_LENGTH_MAX:
        raise _malformed(where)
    rest = len(text) % 4
    try:
        raw = _from_base64(text.encode().translate(_FROM_BASE64URL) + _PADDING[rest], strict_mode=True)
    except ValueError:  # a character that is not in the alphabet, or an impossible length
        raise _malformed(where) from None
    if text[-1] not in _LAST_CHARACTERS[rest]:  # the bits beyond the last byte must be zero
        raise InvalidRequest(where, "not in its canonical spelling", _expected(where))
    return raw


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _signature(derived: DerivedKeys, body: bytes) -> bytes:
    keyed = derived.signature_hash.copy()
    keyed.update(body)
    return keyed.digest()


def _is_signed(derived: DerivedKeys, raw: bytes) -> bool:
    """Return True if bytes end with their signature under the keys."""
    return _compare_digest(_signature(derived, raw[:-_SIGNATURE_LENGTH]), raw[-_SIGNATURE_LENGTH:])


def _malformed(where: str) -> InvalidRequest:
    return InvalidRequest(where, f"not a {where.replace('_', ' ')}", _expected(where))


def _altered(where: str) -> InvalidRequest:
    return InvalidRequest(where, "invalid signature: the text has been altered", _expected(where))


def _expected(where: str) -> str:
    return f"the {where.replace('_', ' ')} as it was given, unchanged"


def _sized(text: str) -> bytes:
    return bytes((len(text),)) + text.encode()


def _read_text(raw: bytes, at: int) -> tuple[str, int]:
    """Return a text that is preceded by its length, and the offset behind it. Past the end, the text is empty."""
    end = at + 1 + int.from_bytes(raw[at : at + 1], "big")
    return raw[at + 1 : end].decode("ascii", "replace"), end
