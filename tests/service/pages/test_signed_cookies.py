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
