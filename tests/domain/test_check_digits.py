"""Check digits: published examples, and that single errors are found."""

from __future__ import annotations

import pytest

from quota_engine.domain.check_digits import CHECK_DIGITS


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("luhn", "79927398713"),  # Luhn's patent application
        ("luhn", "4539578763621486"),
        ("verhoeff", "2363"),
        ("verhoeff", "758722"),
        ("mod11_10", "07945"),  # ISO/IEC 7064
        ("mod11_10", "86095742719"),  # the example of Germany's tax office
    ],
)
def test_published_numbers_are_right_and_every_other_last_digit_is_wrong(name: str, number: str) -> None:
    is_right = CHECK_DIGITS[name]
    assert [digit for digit in "0123456789" if is_right(number[:-1] + digit)] == [number[-1]]


@pytest.mark.parametrize("name", sorted(CHECK_DIGITS))
def test_each_wrong_digit_is_found(name: str) -> None:
    is_right = CHECK_DIGITS[name]
    (number,) = [f"35780123456{digit}" for digit in "0123456789" if is_right(f"35780123456{digit}")]
    for index in range(len(number)):
        others = [number[:index] + digit + number[index + 1 :] for digit in "0123456789" if digit != number[index]]
        assert not any(map(is_right, others))
