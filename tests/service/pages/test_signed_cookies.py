"""Signed texts are valid until they expire, and under their own key only."""

from __future__ import annotations

from quota_engine.service.pages.signed_cookies import CookieSigner


def test_a_text_is_readable_until_it_expires() -> None:
    signer = CookieSigner(b"a key for tests, and only them")
    value = signer.sign("surabaya~x", 1_000)
    assert signer.read(value, 999) == "surabaya~x"
    assert signer.read(value, 1_000) == ""


def test_another_key_or_purpose_cannot_read_a_text() -> None:
    key = b"a key for tests, and only them"
    value = CookieSigner(key).sign("surabaya~x", 1_000)
    assert CookieSigner(b"another key, as good as the first").read(value, 0) == ""
    assert CookieSigner(key, "operators").read(value, 0) == ""


def test_a_sealed_text_is_readable_with_its_own_key_only() -> None:
    key = b"a key for tests, and only them"
    signer = CookieSigner(key)
    for text in ("", "x", "surabaya~7K3M91XZ", "x" * 500):
        sealed = signer.seal(text)
        assert signer.unseal(sealed) == text
        assert sealed == CookieSigner(key).seal(text)
        assert len(text) < 5 or text not in sealed
    assert signer.seal("surabaya~7K3M91XZ")[22:] != signer.seal("surabaya~7K3M91XY")[22:]
    assert CookieSigner(key, "operators").seal("x") != signer.seal("x")
