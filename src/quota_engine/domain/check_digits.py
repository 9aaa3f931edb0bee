"""Check digits: algorithms by which the last digit of a number confirms the digits before it."""

from __future__ import annotations

__all__ = ["CHECK_DIGITS", "luhn", "mod11_10", "verhoeff"]

from collections.abc import Callable
from typing import Final

_VERHOEFF_STEP: Final = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)
"""The permutation that Verhoeff's method applies once more for each position."""


def luhn(digits: str) -> bool:
    """Return True if the last digit is right by Luhn's algorithm (ISO/IEC 7812-1, annex B).

    Args:
        digits: ASCII digits, the check digit last.
    """
    total = 0
    for index, digit in enumerate(reversed(digits)):
        number = int(digit) << (index & 1)
        total += number - 9 if number > 9 else number
    return total % 10 == 0


def verhoeff(digits: str) -> bool:
    """Return True if the last digit is right by Verhoeff's algorithm, as India's Aadhaar has it.

    Args:
        digits: ASCII digits, the check digit last.
    """
    state = 0
    for index, digit in enumerate(reversed(digits)):
        number = int(digit)
        for _ in range(index % 8):
            number = _VERHOEFF_STEP[number]
        state = _dihedral_product(state, number)
    return state == 0


def _dihedral_product(one: int, other: int) -> int:
    """Multiply in the dihedral group of order 10: 0 to 4 are rotations, 5 to 9 reflections."""
    if one < 5:
        return (one + other) % 5 + (0 if other < 5 else 5)
    return (one - other) % 5 + (5 if other < 5 else 0)


def mod11_10(digits: str) -> bool:
    """Return True if the last digit is right by ISO/IEC 7064, MOD 11,10, as in Germany's tax number.

    Args:
        digits: ASCII digits, the check digit last.
    """
    product = 10
    for digit in digits[:-1]:
        total = (product + int(digit)) % 10 or 10
        product = total * 2 % 11
    return (11 - product) % 10 == int(digits[-1])


CHECK_DIGITS: Final[dict[str, Callable[[str], bool]]] = {"luhn": luhn, "verhoeff": verhoeff, "mod11_10": mod11_10}
"""The algorithms by the names that a catalog uses."""
