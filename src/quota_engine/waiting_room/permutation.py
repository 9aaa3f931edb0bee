"""The order of a waiting room: a keyed permutation, worked out ticket by ticket.

Nothing is shuffled and nothing is remembered for a ticket: its position follows from its number, how many there are,
and a key. The construction, ``CONSTRUCTION`` 1, is a Feistel network (Luby and Rackoff 1988) over a rectangle, with
cycle walking (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"):

- ``rows`` is the smallest even number whose square is at least ``size``, ``columns`` the smallest number with
  ``rows * columns >= size``. A number ``x`` is ``left = x // columns`` and ``right = x % columns``.
- In the rounds 0, 2, 4 … 22 ``left`` becomes ``(left + F(round, right)) % rows``; in the rounds 1, 3 … 23 ``right``
  becomes ``(right + F(round, left)) % columns``.
- ``F(round, value)`` comes from SHA-256 of the key (32 bytes), the round (1 byte) and ``value // 4`` (4 bytes, big
  endian): of its four groups of 8 bytes, big endian, number ``value % 4``.
- The result ``left * columns + right`` goes through all rounds again for as long as it is not below ``size``.

Luby and Rackoff show that such networks are as good as their round functions for large domains; a room may be tiny,
where four rounds are not enough, so there are 24: the tests look at whole orders of the smallest rooms. ``rows`` is
even, because rotations of odd length alone would reach only half of all orders. The round functions take as many values
as there are rows or columns, about the square root of ``size``, and are worked out once for all tickets.
"""

from __future__ import annotations

__all__ = ["CONSTRUCTION", "SIZE_MAX", "Permutation"]

import hashlib
import math
from typing import Final

from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.validation import check_integer

CONSTRUCTION: Final = 1
"""Its number; another construction gets another one, and records name theirs."""
SIZE_MAX: Final = 100_000_000
KEY_LENGTH: Final = 32
_ROUNDS: Final = 24


class Permutation:
    """One order of the numbers from 0 to ``size - 1``. Holds about ``24 * sqrt(size)`` integers, whatever is asked."""

    __slots__ = ("_columns", "_pairs", "_rows", "size")

    def __init__(self, key: bytes, size: int) -> None:
        """``key``: 32 bytes. ``size``: 1 to 100,000,000.

        Raises:
            InvalidRequest: one of them is something else.
        """
        if not isinstance(key, bytes) or len(key) != KEY_LENGTH:
            raise InvalidRequest("key", "not a usable key", f"{KEY_LENGTH} bytes")
        check_integer(size, "size", 1, SIZE_MAX)
        self.size = size
        rows = math.isqrt(size - 1) + 1
        self._rows = rows + rows % 2
        self._columns = -(-size // self._rows)
        rounds = [
            _round_function(key, number, *((self._rows, self._columns) if number % 2 else (self._columns, self._rows)))
            for number in range(_ROUNDS)
        ]
        self._pairs = tuple(zip(rounds[::2], rounds[1::2], strict=True))

    def position(self, number: int) -> int:
        """Where ``number`` (0 to ``size - 1``) stands in the order: a different place from 0 to ``size - 1`` for each.

        Raises:
            InvalidRequest: there is no such number.
        """
        if not 0 <= number < self.size:
            check_integer(number, "number", 0, self.size - 1)
        rows, columns = self._rows, self._columns
        while True:  # in a permutation of the rectangle the way from a number below size leads back below it
            left, right = divmod(number, columns)
            for of_right, of_left in self._pairs:
                left = (left + of_right[right]) % rows
                right = (right + of_left[left]) % columns
            number = left * columns + right
            if number < self.size:
                return number

    def number(self, position: int) -> int:
        """Whose ``position`` (0 to ``size - 1``) it is: the other way round.

        Raises:
            InvalidRequest: there is no such position.
        """
        check_integer(position, "position", 0, self.size - 1)
        rows, columns = self._rows, self._columns
        while True:
            left, right = divmod(position, columns)
            for of_right, of_left in reversed(self._pairs):
                right = (right - of_left[left]) % columns
                left = (left - of_right[right]) % rows
            position = left * columns + right
            if position < self.size:
                return position


def _round_function(key: bytes, number: int, arguments: int, values: int) -> list[int]:
    """``F(number, value) % values`` of all values from 0 to ``arguments - 1``."""
    keyed = hashlib.sha256(key + bytes((number,)))
    table: list[int] = []
    for block in range(-(-arguments // 4)):
        hashed = keyed.copy()
        hashed.update(block.to_bytes(4, "big"))
        digest = hashed.digest()
        table += [int.from_bytes(digest[start : start + 8], "big") % values for start in (0, 8, 16, 24)]
    del table[arguments:]
    return table
