"""Entries and snapshots as bytes: their format, and the checksums that chain the entries of a ledger.

An entry has the effect of one batch of commands. A snapshot has the whole state after an entry, in several parts. Both
begin with the version of their format. This version of the library reads all versions up to its own.
"""

from __future__ import annotations

__all__ = ["FORMAT", "NO_CHECKSUM", "DamagedLedger", "decode", "encode", "entry_checksum", "open_part", "seal_part"]

import hashlib
from typing import Any, Final

import msgspec

from quota_engine import typed_data
from quota_engine.domain.errors import BackendUnavailable

FORMAT: Final = 1
"""The version of the format that this library writes."""
NO_CHECKSUM: Final = b""
"""The checksum before a ledger's first entry."""
_CHECKSUM_BYTES: Final = 16
PART_DIGEST_BYTES: Final = _CHECKSUM_BYTES
"""Bytes at the beginning of a part of a snapshot that identify its content."""

_encoder = msgspec.msgpack.Encoder()
_decoder = typed_data.msgpack_decoder()


class DamagedLedger(BackendUnavailable):
    """A stored entry or snapshot is missing, was altered, or cannot be read. Nothing was done."""


def entry_checksum(before: bytes, number: int, first_event: int, events: int, body: bytes) -> bytes:
    """Return the checksum of an entry.

    Args:
        before: Checksum of the entry before; :data:`NO_CHECKSUM` for the first one.
        number: Number of the entry.
        first_event: Number of its first event.
        events: Count of its events.
        body: Its content.
    """
    digest = hashlib.blake2b(before, digest_size=_CHECKSUM_BYTES)
    digest.update(f"|{number}|{first_event}|{events}|".encode())
    digest.update(body)
    return digest.digest()


def encode(*content: Any) -> bytes:
    """Return content in the present format."""
    return _encoder.encode((FORMAT, *content))


def decode(body: bytes | memoryview, what: str) -> list[Any]:
    """Return the content of :func:`encode`.

    Args:
        body: The bytes.
        what: Their name in an error, such as ``"entry 7 of ~room.december"``.

    Raises:
        DamagedLedger: The bytes cannot be read.
        BackendUnavailable: A newer version of the library wrote them.
    """
    try:
        version, *content = _decoder.decode(body)
    except (msgspec.DecodeError, TypeError, ValueError, RecursionError) as error:
        raise DamagedLedger(f"{what} cannot be read ({error}): restore the database from a backup") from None
    if version != FORMAT:
        raise BackendUnavailable(
            f"{what} has format {version}, and this version of quota_engine reads formats up to {FORMAT}: "
            "start every process with the newer version"
        )
    return list(content)


def seal_part(payload: bytes) -> bytes:
    """Return a part of a snapshot with its checksum in front."""
    return hashlib.blake2b(payload, digest_size=_CHECKSUM_BYTES).digest() + payload


def open_part(part: bytes, what: str) -> list[Any]:
    """Return the content of a sealed part.

    Raises:
        DamagedLedger: The part was altered.
    """
    digest, payload = part[:_CHECKSUM_BYTES], memoryview(part)[_CHECKSUM_BYTES:]  # a part has a megabyte: no copy
    if hashlib.blake2b(payload, digest_size=_CHECKSUM_BYTES).digest() != digest:
        raise DamagedLedger(f"{what} was altered: restore the database from a backup")
    return decode(payload, what)
