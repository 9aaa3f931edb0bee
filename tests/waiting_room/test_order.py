"""Seeds, commitments and positions over several windows."""

from __future__ import annotations

import hashlib

import pytest

from quota_engine.domain.errors import InvalidRequest
from quota_engine.waiting_room.order import RoomOrder, check_entropy, check_seed, commitment_of, seed_of, window_key

CLOSING_SEED = "5e" * 32
SEED = seed_of(CLOSING_SEED)
COMMITMENT = commitment_of(SEED)
WINDOWS = ((0, 0), (1, 100), (4, 130))
TICKETS = 135


def make_order(entropy: str = "", seed: str = SEED, closing_seed: str = CLOSING_SEED) -> RoomOrder:
    return RoomOrder("december", COMMITMENT, entropy, seed, closing_seed)


def test_seed_and_commitment_match_sha256() -> None:
    assert hashlib.sha256(f"quota_engine room seed 1\n{CLOSING_SEED}\n".encode()).hexdigest() == SEED
    assert hashlib.sha256(f"quota_engine room commitment 1\n{SEED}\n".encode()).hexdigest() == COMMITMENT


def test_positions_stay_within_their_window() -> None:
    found = [make_order().position(WINDOWS, TICKETS, index) for index in range(TICKETS)]
    assert sorted(found[:100], key=int) == list(range(1, 101))  # type: ignore[arg-type]
    assert sorted(found[100:130], key=int) == list(range(101, 131))  # type: ignore[arg-type]
    assert sorted(found[130:], key=int) == list(range(131, 136))  # type: ignore[arg-type]


def test_position_is_unknown_without_its_seed() -> None:
    assert make_order(seed="", closing_seed="").position(WINDOWS, TICKETS, 5) is None
    assert make_order(closing_seed="").position(WINDOWS, TICKETS, 5) is not None
    assert make_order(closing_seed="").position(WINDOWS, TICKETS, 101) is None


def test_order_depends_on_every_input() -> None:
    """Room, commitment, window, number of tickets, entropy and seed."""
    known = window_key("december", COMMITMENT, 0, 100, "7 13", SEED)
    others = {
        window_key("january", COMMITMENT, 0, 100, "7 13", SEED),
        window_key("december", CLOSING_SEED, 0, 100, "7 13", SEED),
        window_key("december", COMMITMENT, 1, 100, "7 13", SEED),
        window_key("december", COMMITMENT, 0, 101, "7 13", SEED),
        window_key("december", COMMITMENT, 0, 100, "7 14", SEED),
        window_key("december", COMMITMENT, 0, 100, "7 13", CLOSING_SEED),
    }
    assert len({known, *others}) == 7
    lines = f"quota_engine room order 1\ndecember\n{COMMITMENT}\n0\n100\n7 13\n{SEED}\n"
    assert known == hashlib.sha256(lines.encode()).digest()


@pytest.mark.slow
def test_number_of_cached_windows_is_bounded() -> None:
    windows = tuple((number, number * 10) for number in range(3_000))
    many = make_order()
    for index in range(0, 30_000, 10):
        assert many.position(windows, 30_000, index) is not None
    assert len(many._permutations) <= 256


@pytest.mark.parametrize("text", ["\n", "a\nb", "a\tb", "é", " a", "a ", "x" * 257, None, 5])
def test_invalid_entropy_is_rejected(text: object) -> None:
    """Entropy is one line of the hashed text."""
    with pytest.raises(InvalidRequest, match="here"):
        check_entropy(text, "here")


@pytest.mark.parametrize("text", ["", "5E" * 32, "5e" * 31, "5e" * 33, " " + "5e" * 32, "5e" * 32 + "\n", None])
def test_invalid_seed_is_rejected(text: object) -> None:
    with pytest.raises(InvalidRequest, match="here"):
        check_seed(text, "here")
    for fine in ("", "a", "7 13 21", "x" * 256):
        check_entropy(fine, "here")
