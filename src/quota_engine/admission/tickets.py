"""Signed tickets of waiting rooms, and the passes of those who are admitted. Nothing is remembered for either.

Both are bytes in base64url, signed by keyed BLAKE2b of 128 bits (RFC 7693; a third of the time of an HMAC) under one of
several keys, whose id they carry: new ones are signed with the active key, and old ones stay good for as long as their
key is kept. There is exactly one
spelling of each: what decodes to the same bytes, but is written in another way, is refused. An applicant is bound in
by a keyed hash, and can not be read out of it.

=========  ==============================================================================
a ticket   ``1``, key id, room, release (8 bytes of its commitment), index (4), expires_at_ms (6), applicant (10),
           signature (16)
a pass     ``2``, key id, room, release, office, first day (3), last day (3), id (16), until_ms (6), applicant (10),
           signature (16)
=========  ==============================================================================

Numbers are big endian; a text has its length in front, in one byte.
"""

from __future__ import annotations

__all__ = ["PassContents", "RoomTickets", "TicketKeys", "read_pass", "read_ticket_number"]

import base64
import binascii
import hashlib
import hmac
import re
import string
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.validation import check_name

KEYS_MAX: Final = 16
TEXT_LENGTH_MAX: Final = 512
_TICKET, _PASS = b"\x01", b"\x02"
_SIGNATURE: Final = 16
_BINDING: Final = 10
_RELEASE: Final = 8
_ID: Final = 16
_is_base64url = re.compile(r"[A-Za-z0-9_-]+").fullmatch
_ALPHABET: Final = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
_LAST_LETTERS: Final = (_ALPHABET, "", _ALPHABET[::16], _ALPHABET[::4])
"""What a text may end with, by the rest of its length when divided by 4: there are no texts with a rest of 1."""


class TicketKeys:
    """The secrets that tickets and passes are signed with, by their ids. One of them is active, and signs new ones.

    To change keys: add the new one everywhere, then make it active, and drop the old one when no room that began with
    it is open any more (a room's order comes from the key that was active when it was made).
    """

    __slots__ = ("_derived", "active")

    def __init__(self, active: str, secrets: Mapping[str, bytes]) -> None:
        """``secrets``: 16 to 64 secret bytes by id, at most 16 of them. ``active``: the id of one.

        Raises:
            InvalidRequest: anything else.
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
                hashlib.blake2b(key=_derived(secret, b"ticket signing"), digest_size=_SIGNATURE),
                hashlib.blake2b(key=_derived(secret, b"ticket binding"), digest_size=_BINDING),
                _derived(secret, b"room seeding"),
                _derived(secret, b"pass ids"),
            )
            for key_id, secret in secrets.items()
        }

    def derive_closing_seed(self, key_id: str, room: str, nonce: str) -> str:
        """The late seed, in hex, of the room with this ``nonce`` that began under the key ``key_id``.

        Raises:
            InvalidRequest: the key is not here (any more).
        """
        message = f"{room}\n{nonce}\n".encode()
        return hmac.digest(self.derived_keys(key_id).seed_key, message, "sha256").hex()

    def derived_keys(self, key_id: str) -> DerivedKeys:
        """What is derived from one of the secrets.

        Raises:
            InvalidRequest: it is not here (any more).
        """
        derived = self._derived.get(key_id)
        if derived is None:
            raise InvalidRequest("ticket_keys", "the key that the room began with is not there", f"one of id {key_id}")
        return derived

    def sign(self, body: bytes) -> str:
        """``body`` with its signature under the active key, as text."""
        return _text_of(body + _signature(self._derived[self.active], body))

    def verify(self, text: object, kind: bytes, what: str) -> tuple[bytes, int]:
        """The bytes of a text with a good signature, and where what follows its key id begins.

        Raises:
            InvalidRequest: the signature is not good, or the text not of this ``kind`` (its first byte).
        """
        raw = _decoded(text, what)
        key_id, start = _text(raw, 1) if raw[:1] == kind else ("", 0)
        derived = self._derived.get(key_id)
        if derived is None or len(raw) < start + _SIGNATURE:
            raise InvalidRequest(what, f"no {what} under any key known here", _expected(what))
        if not hmac.compare_digest(_signature(derived, raw[:-_SIGNATURE]), raw[-_SIGNATURE:]):
            raise InvalidRequest(what, "the signature does not fit: it has been altered", _expected(what))
        return raw, start

    def hash_applicant(self, key_id: str, applicant: str) -> bytes:
        """What stands for an applicant (a keyed hash) in what is signed under the key ``key_id``."""
        keyed = self._derived[key_id].applicant_hash.copy()
        keyed.update(applicant.encode())
        return keyed.digest()


class DerivedKeys(NamedTuple):
    """One secret, taken apart for its uses, so that nothing made for one can serve another. The first two are keyed
    hashes that have read nothing yet, to be copied.
    """

    signature_hash: hashlib.blake2b
    applicant_hash: hashlib.blake2b
    seed_key: bytes
    pass_id_key: bytes


def _derived(secret: bytes, use: bytes) -> bytes:
    return hashlib.blake2b(key=secret, digest_size=32, person=use).digest()


class RoomTickets:
    """Makes and reads the tickets of one room, and makes its passes."""

    def __init__(self, keys: TicketKeys, room: str, commitment: str, key_id: str) -> None:
        """``commitment``: the room's, in hex. It tells this release from any other of a room of the same name.
        ``key_id``: the key that the room began with.

        Raises:
            InvalidRequest: that key is not here (any more).
        """
        check_name(room, "room")
        self._keys = keys
        self._passing = keys.derived_keys(key_id).pass_id_key
        self._scope = _sized(room) + bytes.fromhex(commitment)[:_RELEASE]
        self._before_index = _TICKET + _sized(keys.active) + self._scope

    def ticket(self, index: int, applicant: str, expires_at_ms: int) -> str:
        """The ticket of the applicant (a keyed hash) with the number ``index``."""
        keys = self._keys
        body = (
            self._before_index
            + index.to_bytes(4, "big")
            + expires_at_ms.to_bytes(6, "big")
            + keys.hash_applicant(keys.active, applicant)
        )
        return keys.sign(body)

    def read(self, ticket: object, now_ms: int, applicant: str = "") -> int:
        """The index on a ticket of this room. ``applicant``: whose it has to be, if that is to be checked.

        Raises:
            InvalidRequest: it is not a ticket of this room and release, in its one spelling, or was altered, has
                expired, or is another person's.
        """
        raw, start = self._keys.verify(ticket, _TICKET, "ticket")
        end = start + len(self._scope)
        if raw[start:end] != self._scope or len(raw) != end + 4 + 6 + _BINDING + _SIGNATURE:
            raise InvalidRequest("ticket", "of another room or release", "a ticket of this one")
        if int.from_bytes(raw[end + 4 : end + 10], "big") <= now_ms:
            raise InvalidRequest("ticket", "it has expired", "one of a room that is not over")
        if applicant:
            key_id = _text(raw, 1)[0]
            bound = self._keys.hash_applicant(key_id, applicant)
            if not hmac.compare_digest(raw[end + 10 : end + 10 + _BINDING], bound):
                raise InvalidRequest("ticket", "another person's", "the ticket of whoever asks")
        return int.from_bytes(raw[end : end + 4], "big")

    def admission_pass(
        self, index: int, applicant: str, office: str, first_day: int, last_day: int, until_ms: int
    ) -> str:
        """The pass of an admitted ticket: one reservation of the applicant at ``office``, on a day (an ordinal) from
        ``first_day`` to ``last_day``, until ``until_ms`` by the store's clock. The same arguments give the same pass.
        """
        keys = self._keys
        # Of the ticket alone, by the room's first key: whatever is changed meanwhile, a ticket is worth one pass.
        identity = self._scope + index.to_bytes(4, "big")
        body = (
            _PASS
            + _sized(keys.active)
            + self._scope
            + _sized(office)
            + first_day.to_bytes(3, "big")
            + last_day.to_bytes(3, "big")
            + hashlib.blake2b(identity, key=self._passing, digest_size=_ID).digest()
            + until_ms.to_bytes(6, "big")
            + keys.hash_applicant(keys.active, applicant)
        )
        return keys.sign(body)


def read_ticket_number(ticket: object) -> int:
    """The index on a ticket of any room, as anybody can read it, without a key: nothing says that it is genuine.

    Raises:
        InvalidRequest: it has not the form of a ticket.
    """
    raw = _decoded(ticket, "ticket")
    _, at = _text(raw, 1)
    _, at = _text(raw, at)
    at += _RELEASE
    if raw[:1] != _TICKET or len(raw) != at + 4 + 6 + _BINDING + _SIGNATURE:
        raise InvalidRequest("ticket", "not a ticket", _expected("ticket"))
    return int.from_bytes(raw[at : at + 4], "big")


class PassContents(NamedTuple):
    """What the store has to know of a pass: its id, by which it is used up once, and the end of its lease."""

    id: str
    until_ms: int


def read_pass(
    keys: TicketKeys, admission_pass: object, office: str, day: int, applicants: Sequence[str]
) -> PassContents:
    """Check that a pass is genuine, and for this office, day (an ordinal), and one of the applicants (keyed hashes).

    Whether its lease is over, and whether it has been used, is for the store to say, in the reserve's own script.

    Raises:
        InvalidRequest: it is not; the message says which.
    """
    raw, start = keys.verify(admission_pass, _PASS, "admission_pass")
    key_id, _ = _text(raw, 1)
    at = _text(raw, start)[1] + _RELEASE
    bound_office, at = _text(raw, at)
    if bound_office != office:
        raise InvalidRequest("admission_pass", "for another office", "one for this office")
    first_day, last_day = int.from_bytes(raw[at : at + 3], "big"), int.from_bytes(raw[at + 3 : at + 6], "big")
    if not first_day <= day <= last_day:
        raise InvalidRequest("admission_pass", "for other days", "one for this day")
    bound = raw[at + 6 + _ID + 6 : -_SIGNATURE]
    if not any(hmac.compare_digest(keys.hash_applicant(key_id, one), bound) for one in applicants):
        raise InvalidRequest("admission_pass", "another person's", "the pass of one of the applicants")
    return PassContents(
        _text_of(raw[at + 6 : at + 6 + _ID]), int.from_bytes(raw[at + 6 + _ID : at + 6 + _ID + 6], "big")
    )


def _decoded(text: object, what: str) -> bytes:
    """The bytes of a text in the one spelling that base64url allows for them."""
    if not isinstance(text, str) or len(text) > TEXT_LENGTH_MAX or _is_base64url(text) is None:
        raise InvalidRequest(what, f"not a {what.replace('_', ' ')}", _expected(what))
    rest = len(text) % 4
    if text[-1] not in _LAST_LETTERS[rest]:  # what it has in bits beyond the last byte must be zero
        raise InvalidRequest(what, "not in its one spelling", _expected(what))
    return binascii.a2b_base64(text.replace("-", "+").replace("_", "/") + "=="[: -rest % 4])


def _text_of(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _signature(derived: DerivedKeys, body: bytes) -> bytes:
    keyed = derived.signature_hash.copy()
    keyed.update(body)
    return keyed.digest()


def _expected(what: str) -> str:
    return f"the {what.replace('_', ' ')} as it was given, unchanged"


def _sized(text: str) -> bytes:
    return bytes((len(text),)) + text.encode()


def _text(raw: bytes, at: int) -> tuple[str, int]:
    """A text with its length in front, and where the next thing begins. Past the end there is the empty text."""
    end = at + 1 + int.from_bytes(raw[at : at + 1], "big")
    return raw[at + 1 : end].decode("ascii", "replace"), end
