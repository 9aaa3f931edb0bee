"""The identity key: its text form, its fingerprint, and the source that errors name."""

from __future__ import annotations

import base64
import pickle

import pytest

from quota_engine.domain.errors import InvalidRequest, WrongIdentityKey
from quota_engine.domain.identity_key import (
    IdentityKey,
    check_key,
    decode_identity_key,
    decode_secret,
    fingerprint_of,
    source_of,
)

KEY = b"a secret of tests, 32 bytes long"
TEXT = base64.b64encode(KEY).decode()


@pytest.mark.parametrize("text", [TEXT, f"{TEXT}\n", f"  {TEXT}\r\n"])
def test_base64_is_decoded_and_keeps_its_source(text: str) -> None:
    key = decode_identity_key(text, "QUOTA_ENGINE_IDENTITY_KEY")
    assert key == KEY
    assert source_of(key) == "QUOTA_ENGINE_IDENTITY_KEY"
    assert source_of(KEY) == "identity_key"


OTHER_TEXTS = [
    "a secret of tests, 32 bytes long",
    TEXT[:-1],
    TEXT.replace("=", ""),
    "c2hvcnQ=",
    "\N{GREEK SMALL LETTER PI}",
    base64.b64encode(b"x" * 65).decode(),
    f"{TEXT[:9]} {TEXT[9:]}",
]


@pytest.mark.parametrize("text", OTHER_TEXTS)
def test_other_text_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode_identity_key(text, "service.toml: identity_key")
    assert str(caught.value) == (
        "service.toml: identity_key: not a usable key; "
        "expected base64 of 16 to 64 random bytes: openssl rand -base64 32"
    )
    assert decode_secret(text) == b""


def test_missing_text_is_called_missing() -> None:
    with pytest.raises(InvalidRequest, match="--identity-key: missing; expected base64"):
        decode_identity_key(" \n", "--identity-key")


def test_a_key_is_not_shown_and_survives_pickling() -> None:
    """Worker processes get their settings pickled."""
    key = IdentityKey(KEY, "service.toml: identity_key")
    assert repr(key) == "IdentityKey(..., source='service.toml: identity_key')"
    copy = pickle.loads(pickle.dumps(key))  # noqa: S301
    assert (copy, copy.source) == (KEY, "service.toml: identity_key")


def test_a_bad_key_is_refused_with_its_source() -> None:
    with pytest.raises(InvalidRequest, match=r"key\.txt: not a usable key; expected 16 to 64 secret bytes"):
        check_key(IdentityKey(b"short", "key.txt"))
    with pytest.raises(InvalidRequest, match=r"^identity_key: not a usable key"):
        check_key("k" * 32)


def test_the_fingerprint_depends_on_the_key_only_and_does_not_contain_it() -> None:
    fingerprint = fingerprint_of(KEY)
    assert fingerprint == fingerprint_of(IdentityKey(KEY, "elsewhere")) != fingerprint_of(KEY[:-1])
    assert len(fingerprint) == 32
    assert KEY.hex()[:8] not in fingerprint


@pytest.mark.parametrize(("namespace", "within"), [("", ""), ("live", " in the namespace 'live'")])
def test_a_wrong_key_names_its_source_and_the_namespace(namespace: str, within: str) -> None:
    error = WrongIdentityKey("QUOTA_ENGINE_IDENTITY_KEY", namespace)
    assert str(error) == (
        f"QUOTA_ENGINE_IDENTITY_KEY: not the identity key that this store was first opened with{within}; "
        "expected that first key; another key needs another namespace or an empty store"
    )
    assert error.namespace == namespace
