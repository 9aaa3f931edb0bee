"""Pseudonyms: keyed hashes of identities, and secrets for other purposes."""

from __future__ import annotations

import hashlib

import pytest

from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.identity import Pseudonyms


class TestPseudonyms:
    def test_the_hash_depends_on_identity_and_key_only(self) -> None:
        one, same, other = Pseudonyms(b"k" * 16), Pseudonyms(b"k" * 16), Pseudonyms(b"l" * 16)
        assert one.of("3578000000000001") == same.of("3578000000000001") != other.of("3578000000000001")
        assert one.jitter_seed == same.jitter_seed != other.jitter_seed

    def test_the_hash_is_keyed_blake2b_of_128_bits(self) -> None:
        expected = hashlib.blake2b(b"3578000000000001", key=b"k" * 16, digest_size=16).hexdigest()
        assert Pseudonyms(b"k" * 16).of("3578000000000001") == expected

    @pytest.mark.parametrize("identity", ["", "x" * 257, "35\n78", "\x00", "\ud800", 3578, None, ["3578"]])
    def test_a_bad_identity_is_refused_without_being_shown(self, identity: object) -> None:
        with pytest.raises(InvalidRequest) as caught:
            Pseudonyms(b"k" * 16).of(identity, "applicants[1]")  # type: ignore[arg-type]
        assert str(caught.value) == "applicants[1]: not a usable identity; expected 1 to 256 printable characters"


@pytest.mark.parametrize("text", ["", "x" * 257, "35\n78", 3578, None])
def test_a_bad_account_is_refused_without_being_shown(text: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Pseudonyms(b"k" * 16).of_key(text, "caller.account")  # type: ignore[arg-type]
    assert str(caught.value) == "caller.account: not a usable key; expected 1 to 256 printable characters"


def test_each_purpose_has_its_own_secret() -> None:
    """The secret depends on purpose and key only, and it is not the hash of an identity."""
    secret = Pseudonyms(b"k" * 16).secret_for("draw")
    assert secret == Pseudonyms(b"k" * 16).secret_for("draw")
    others = (Pseudonyms(b"k" * 16).secret_for("room"), Pseudonyms(b"l" * 16).secret_for("draw"))
    assert len({secret, *others}) == 3
    assert len(secret) == 32
    assert Pseudonyms(b"k" * 16).of("draw") not in secret.hex()
