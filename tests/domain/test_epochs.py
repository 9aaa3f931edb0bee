"""Starts of epochs: which epoch a number was given in."""

from __future__ import annotations

from quota_engine.domain.epochs import EPOCH_STARTS_MAX, add_epoch


def test_an_epoch_that_gave_no_number_is_removed() -> None:
    """Of two epochs that begin at the same number, or of one whose numbers are lost, the later one stays."""
    starts: list[tuple[int, int]] = []
    for epoch, count in ((2, 10), (3, 10), (4, 30), (5, 20)):
        add_epoch(starts, epoch, count)
    assert starts == [(3, 10), (5, 20)]


def test_starts_are_bounded() -> None:
    """The oldest ones are forgotten."""
    starts: list[tuple[int, int]] = []
    for epoch in range(2, EPOCH_STARTS_MAX + 10):
        add_epoch(starts, epoch, epoch)
    assert len(starts) == EPOCH_STARTS_MAX
    assert starts[-1] == (EPOCH_STARTS_MAX + 9, EPOCH_STARTS_MAX + 9)
