"""The benchmark of waiting rooms runs: a transcript that it makes is one that verifies."""

from __future__ import annotations

import pytest

from benchmarks.waiting_rooms import answers, order


def test_order_of_a_benchmark_verifies() -> None:
    """The benchmark replaces the tickets of a transcript, and with them its digest."""
    assert order(100)["tickets"] == 100


@pytest.mark.slow
def test_polls_of_a_benchmark_are_answered() -> None:
    rates = answers(50, 1)
    assert rates, "the benchmark measures no case"
