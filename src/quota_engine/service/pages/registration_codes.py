"""Registration codes: eight characters that a person can read out, and that are the id of a reservation.

The characters are those of Crockford's base 32, which has no I, L, O and U. A code has 40 random bits. It is unique
in its office, because it is the idempotency key of the reserve. A person who knows it may change the reservation.
"""

from __future__ import annotations

__all__ = ["code_of", "format_code", "new_code", "read_code"]

import os
import re
from typing import Final

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LETTERS: Final = _ALPHABET[10:]
_LENGTH: Final = 8
_BYTES: Final = 5
_PATTERN: Final = re.compile(f"[{_ALPHABET}]{{{_LENGTH}}}")
_ALIKE: Final = str.maketrans("ILO", "110", " -\u2010\u2011\u2012\u2013\u2014\t\n\r")
_TEXT_LENGTH_MAX: Final = 40


def new_code() -> str:
    """Return a new random code."""
    return code_of(os.urandom(_BYTES))


def code_of(digest: bytes) -> str:
    """Return the code of the first five bytes of a digest.

    It has a letter, so that it is never taken for a queue number.
    """
    number = int.from_bytes(digest[:_BYTES])
    code = "".join(_ALPHABET[number >> 5 * index & 31] for index in reversed(range(_LENGTH)))
    return _LETTERS[number % len(_LETTERS)] + code[1:] if code.isdigit() else code


def read_code(text: str) -> str:
    """Return the code that a person has typed, or ``""`` if the text is not a code.

    Small letters, spaces and dashes are accepted. I and L stand for 1, and O for 0.
    """
    code = text[:_TEXT_LENGTH_MAX].upper().translate(_ALIKE)
    return code if _PATTERN.fullmatch(code) and not code.isdigit() else ""


def format_code(reservation_id: str) -> str:
    """Return a code in two groups, such as ``7K3M-9QXZ``; any other id of a reservation as it is."""
    is_code = read_code(reservation_id) == reservation_id
    return f"{reservation_id[:4]}-{reservation_id[4:]}" if is_code else reservation_id
