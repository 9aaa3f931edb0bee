"""Keyed permutation that orders the tickets of a window, computed ticket by ticket.

Nothing is shuffled or stored for a ticket: its position follows from its number, the size of the window and a key.
The construction, ``CONSTRUCTION`` 1, is a Feistel network (Luby and Rackoff 1988, "How to construct pseudorandom
permutations from pseudorandom functions") over a rectangle. It uses cycle walking (Black and Rogaway 2002, "Ciphers
with arbitrary finite domains"):

- ``rows`` is the smallest even number whose square is at least ``size``. ``columns`` is the smallest number with
  ``rows * columns >= size``. A number ``x`` is split into ``left = x // columns`` and ``right = x % columns``.
- In the rounds 0, 2, 4 … 22 ``left`` becomes ``(left + F(round, right)) % rows``. In the rounds 1, 3 … 23 ``right``
  becomes ``(right + F(round, left)) % columns``.
- ``F(round, value)`` comes from the SHA-256 of the key (32 bytes), the round (1 byte) and ``value // 4`` (4 bytes, big
  endian). It is number ``value % 4`` of the hash's four groups of 8 bytes, big endian.
- The result ``left * columns + right`` goes through all rounds again until it is below ``size``.

Luby and Rackoff show that a network of four rounds is as good as its round functions for large domains. A window can
be tiny, so there are 24 rounds; the tests compare whole orders of the smallest windows with chance. ``rows`` is even
because rotations of odd length alone reach only half of all orders. Each round function has as many values as there
are rows or columns, about the square root of ``size``. They are computed once for all tickets.
"""

from __future__ import annotations

__all__ = ["CONSTRUCTION", "SIZE_MAX", "Permutation"]

import hashlib
import math
import struct
from typing import Final

from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.validation import check_integer

CONSTRUCTION: Final = 1
"""Number of the construction. Transcripts contain it, so that another construction gets another number."""
SIZE_MAX: Final = 100_000_000
KEY_LENGTH: Final = 32
_ROUNDS: Final = 24
_GROUPS: Final = struct.Struct(">4Q")


class Permutation:
    """One order of the numbers from 0 to ``size - 1``. Holds about ``168 * sqrt(size)`` references to integers."""

    __slots__ = ("_columns", "_rounds", "_rows", "size")

    def __init__(self, key: bytes, size: int) -> None:
        """Compute the round functions.

        Args:
            key: 32 bytes.
            size: Count of the numbers (1 to 100,000,000).

        Raises:
            InvalidRequest: An argument is out of its range.
        """
        if not isinstance(key, bytes) or len(key) != KEY_LENGTH:
            raise InvalidRequest("key", "not a usable key", f"{KEY_LENGTH} bytes")
        check_integer(size, "size", 1, SIZE_MAX)
        self.size = size
        rows = math.isqrt(size - 1) + 1
        self._rows = rows + rows % 2
        self._columns = -(-size // self._rows)
        # All tables share one object for each value. Positions in a large window then take about half the time, because
        # the processor's caches hold the values.
        of_rows = list(range(self._rows))
        of_columns = of_rows[: self._columns]
        rounds = [
            _round_function(key, number, *((of_rows, of_columns) if number % 2 else (of_columns, of_rows)))
            for number in range(_ROUNDS)
        ]
        # Each table repeats itself, so that position() need not reduce its sums before the end: 24 divisions less.
        self._rounds = tuple(table * ((number + 1) // 2 + 1) for number, table in enumerate(rounds))

    def position(self, number: int) -> int:
        """Return the position of a number. No two numbers have the same position.

        Args:
            number: The number (0 to ``size - 1``).

        Returns:
            The position (0 to ``size - 1``).

        Raises:
            InvalidRequest: The number is out of its range.
        """
        if not 0 <= number < self.size:
            check_integer(number, "number", 0, self.size - 1)
        f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18, f19, f20, f21, f22, f23 = (
            self._rounds
        )
        rows, columns = self._rows, self._columns
        while True:  # ends, because a cycle of the rectangle that starts below size leads back below it
            left, right = divmod(number, columns)
            # Written out, because a loop over the rounds takes a fifth longer.
            left += f0[right]
            right += f1[left]
            left += f2[right]
            right += f3[left]
            left += f4[right]
            right += f5[left]
            left += f6[right]
            right += f7[left]
            left += f8[right]
            right += f9[left]
            left += f10[right]
            right += f11[left]
            left += f12[right]
            right += f13[left]
            left += f14[right]
            right += f15[left]
            left += f16[right]
            right += f17[left]
            left += f18[right]
            right += f19[left]
            left += f20[right]
            right += f21[left]
            left += f22[right]
            right += f23[left]
            number = left % rows * columns + right % columns
            if number < self.size:
                return number

    def number(self, position: int) -> int:
        """Return the number at a position: the inverse of :meth:`position`.

        Args:
            position: The position (0 to ``size - 1``).

        Raises:
            InvalidRequest: The position is out of its range.
        """
        check_integer(position, "position", 0, self.size - 1)
        rows, columns = self._rows, self._columns
        while True:
            left, right = divmod(position, columns)
            for of_right, of_left in zip(self._rounds[-2::-2], self._rounds[::-2], strict=True):
                right = (right - of_left[left]) % columns
                left = (left - of_right[right]) % rows
            position = left * columns + right
            if position < self.size:
                return position


def _round_function(key: bytes, number: int, arguments: list[int], values: list[int]) -> list[int]:
    """Return ``F(number, argument) % len(values)`` for all arguments. The results are objects of ``values``.

    Args:
        key: 32 bytes.
        number: Number of the round.
        arguments: The integers from 0.
        values: The integers from 0.
    """
    count = len(values)
    keyed = hashlib.sha256(key + bytes((number,)))
    table: list[int] = []
    for block in range(-(-len(arguments) // 4)):
        block_hash = keyed.copy()
        block_hash.update(block.to_bytes(4, "big"))
        digest = block_hash.digest()
        table += [values[group % count] for group in _GROUPS.unpack(digest)]
    del table[len(arguments) :]
    return table
