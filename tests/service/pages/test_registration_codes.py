"""Registration codes can be read out, and everything that a person types for one is understood."""

from __future__ import annotations

import pytest

from quota_engine.service.pages.registration_codes import code_of, format_code, new_code, read_code


def test_a_code_has_eight_characters_that_nobody_confuses() -> None:
    codes = {new_code() for _ in range(500)}
    assert len(codes) == 500
    for code in codes:
        assert len(code) == 8
        assert set(code) <= set("0123456789ABCDEFGHJKMNPQRSTVWXYZ")
        assert read_code(code) == code


@pytest.mark.parametrize(
    ("digest", "code"),
    [(b"\x00" * 5, "A0000000"), (b"\xff" * 5, "ZZZZZZZZ"), (b"\x00\x00\x00\x00\x0a", "0000000A")],
)
def test_a_code_follows_from_a_digest_and_has_a_letter(digest: bytes, code: str) -> None:
    assert code_of(digest + b"ignored") == code


@pytest.mark.parametrize("typed", ["7K3M-91XZ", "7k3m91xz", " 7K3M 9IXZ ", "7k3m\u20139lxz", "7-K-3-M-9-1-X-Z"])
def test_a_code_is_read_as_a_person_types_it(typed: str) -> None:
    assert read_code(typed) == "7K3M91XZ"


@pytest.mark.parametrize("typed", ["", "7K3M91X", "7K3M91XZZ", "7K3M91XU", "12345678", "7K3M91X\u00e9", "x" * 1_000])
def test_other_texts_are_no_codes(typed: str) -> None:
    assert read_code(typed) == ""


def test_a_code_is_shown_in_two_groups_and_another_id_as_it_is() -> None:
    assert format_code("7K3M91XZ") == "7K3M-91XZ"
    assert format_code("web-order-17") == "web-order-17"
    assert format_code("7k3m91xz") == "7k3m91xz"
