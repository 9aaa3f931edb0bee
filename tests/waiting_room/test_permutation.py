"""The permutation of tickets: bijective, uniform and unchanged over time."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quota_engine.domain.errors import InvalidRequest
from quota_engine.waiting_room.permutation import SIZE_MAX, Permutation
from tests.support.effort import PROFILE, examples


def key_of(number: int) -> bytes:
    return hashlib.sha256(b"test %d" % number).digest()


def reference_position(key: bytes, size: int, number: int) -> int:
    """Return a position by the documented construction, without tables."""

    def value(round_number: int, argument: int) -> int:
        block, group = divmod(argument, 4)
        digest = hashlib.sha256(key + bytes([round_number]) + block.to_bytes(4, "big")).digest()
        return int.from_bytes(digest[8 * group : 8 * group + 8], "big")

    rows = 2
    while rows * rows < size:
        rows += 2
    columns = math.ceil(size / rows)
    while True:
        left, right = number // columns, number % columns
        for round_number in range(24):
            if round_number % 2 == 0:
                left = (left + value(round_number, right)) % rows
            else:
                right = (right + value(round_number, left)) % columns
        number = left * columns + right
        if number < size:
            return number


def chi_square(counts: Iterable[int], expected: float) -> float:
    return sum((count - expected) ** 2 / expected for count in counts)


def chi_square_bound(degrees: int) -> float:
    """Return the value that chi-square exceeds once in 30,000 times (4 standard deviations; Wilson, Hilferty 1931)."""
    return degrees * (1 - 2 / (9 * degrees) + 4 * math.sqrt(2 / (9 * degrees))) ** 3


@given(st.binary(min_size=32, max_size=32), st.integers(1, 700))
@settings(max_examples=examples(25, 60), deadline=None)
def test_permutation_is_bijective(key: bytes, size: int) -> None:
    order = Permutation(key, size)
    found = [order.position(number) for number in range(size)]
    assert sorted(found) == list(range(size))
    assert [order.number(position) for position in found] == list(range(size))


@given(st.binary(min_size=32, max_size=32), st.integers(1, 3_000_000), st.data())
@settings(max_examples=examples(25, 60), deadline=None)
def test_permutation_matches_its_description(key: bytes, size: int, data: st.DataObject) -> None:
    number = data.draw(st.integers(0, size - 1))
    assert Permutation(key, size).position(number) == reference_position(key, size, number)


def test_known_positions_do_not_change() -> None:
    """Old transcripts must still verify."""
    order = Permutation(bytes(range(32)), 1_000_000)
    assert [order.position(number) for number in (0, 1, 2, 999_999)] == KNOWN
    assert [Permutation(bytes(32), 5).position(number) for number in range(5)] == KNOWN_OF_FIVE


KNOWN = [732153, 381101, 603800, 396395]
KNOWN_OF_FIVE = [0, 4, 3, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3, 100] if PROFILE == "gate" else [2, 3, 10, 97, 100])
def test_positions_are_uniform_over_ten_thousand_rooms(size: int) -> None:
    """Chi-square over the positions of the first, a middle and the last ticket (G9)."""
    numbers = {0, size // 2, size - 1}
    counts = {number: Counter[int]() for number in numbers}
    for room in range(10_000):
        order = Permutation(key_of(room), size)
        for number in numbers:
            counts[number][order.position(number)] += 1
    for number in numbers:
        assert chi_square((counts[number][position] for position in range(size)), 10_000 / size) < chi_square_bound(
            size - 1
        )


@pytest.mark.slow
@pytest.mark.parametrize("size", [3, 4, 5])
def test_whole_orders_are_uniform_in_the_smallest_rooms(size: int) -> None:
    """Every order is equally likely, not only every position."""
    rooms = 6_000 if PROFILE == "gate" else 12_000
    orders = Counter(
        tuple(order.position(number) for number in range(size))
        for order in (Permutation(key_of(room), size) for room in range(rooms))
    )
    everything = list(itertools.permutations(range(size)))
    assert chi_square((orders[one] for one in everything), rooms / len(everything)) < chi_square_bound(
        len(everything) - 1
    )


@pytest.mark.slow
def test_positions_are_independent_of_arrival() -> None:
    """Chi-square of 20 classes of arrival against 20 classes of position, with 100,000 tickets."""
    size, classes = 100_000, 20
    order = Permutation(key_of(0), size)
    table = Counter((number * classes // size, order.position(number) * classes // size) for number in range(size))
    assert chi_square(
        (table[one, other] for one in range(classes) for other in range(classes)), size / classes**2
    ) < chi_square_bound((classes - 1) ** 2)


def test_neighbors_do_not_stay_together() -> None:
    size = 100_000
    order = Permutation(key_of(1), size)
    found = [order.position(number) for number in range(size)]
    mean = size / 2
    together = sum((one - mean) * (other - mean) for one, other in itertools.pairwise(found))
    assert abs(together / sum((one - mean) ** 2 for one in found)) < 4 / math.sqrt(size)


def test_another_key_gives_another_order() -> None:
    """Of 1,000 tickets about one keeps its position by chance."""
    one, other = Permutation(key_of(2), 1_000), Permutation(key_of(3), 1_000)
    assert sum(one.position(number) == other.position(number) for number in range(1_000)) < 10


@pytest.mark.parametrize(("key", "size"), [(b"short", 5), ("x" * 32, 5), (bytes(32), 0), (bytes(32), SIZE_MAX + 1)])
def test_invalid_key_or_size_is_rejected(key: bytes, size: int) -> None:
    with pytest.raises(InvalidRequest):
        Permutation(key, size)


@pytest.mark.parametrize("number", [-1, 5, 5.0])
def test_numbers_and_positions_out_of_range_are_rejected(number: int) -> None:
    order = Permutation(bytes(32), 5)
    with pytest.raises(InvalidRequest):
        order.position(number)
    with pytest.raises(InvalidRequest):
        order.number(number)


def test_memory_is_independent_of_the_tickets_read() -> None:
    """A hundred million tickets need 24 tables of ten thousand numbers, each repeated 1 to 13 times."""
    order = Permutation(bytes(32), SIZE_MAX)
    before = sum(map(len, order._rounds))
    assert before == 168 * 10_000
    assert 0 <= order.position(SIZE_MAX - 1) < SIZE_MAX
    assert sum(map(len, order._rounds)) == before
