"""Epochs of a ledger: they separate the numbers from before and after a failover that lost the last changes.

A store that takes a ledger over on another server raises its epoch. The numbers that the ledger still has then were
given before. Numbers are given in order and without gaps, so the count at the start of each epoch gives the epoch of
every number that the ledger knows. The same number with another epoch was lost.
"""

from __future__ import annotations

__all__ = ["EPOCH_FIRST", "EPOCH_MAX", "EPOCH_STARTS_MAX", "AdvanceEpoch", "EpochStart", "add_epoch", "epoch_of"]

from collections.abc import Sequence
from typing import Final

import msgspec

from quota_engine.domain.validation import check_integer

EPOCH_FIRST: Final = 1
"""Epoch of a new ledger."""
EPOCH_MAX: Final = 2**31
EPOCH_STARTS_MAX: Final = 256
"""The most starts that a ledger remembers. It forgets the oldest one; the numbers of that epoch then count as lost."""

EpochStart = tuple[int, int]
"""An epoch above the first, and how many numbers the ledger had given at its start."""


class AdvanceEpoch(msgspec.Struct, frozen=True, gc=False):
    """Raise the epoch: the last changes before this moment may be lost. A store does so when it takes the ledger over.

    Attributes:
        epoch_min: Highest epoch of the ledger that is known elsewhere. The new epoch is above it.
    """

    epoch_min: int = 0

    def __post_init__(self) -> None:
        check_integer(self.epoch_min, "epoch_min", 0, EPOCH_MAX - 1)


def add_epoch(starts: list[EpochStart], epoch: int, count: int) -> None:
    """Begin an epoch. Starts of epochs that gave no number, or only lost ones, are removed.

    Args:
        starts: Starts of the epochs so far, in order. It is changed in place.
        epoch: The new epoch.
        count: Numbers that the ledger has given.
    """
    while starts and starts[-1][1] >= count:
        starts.pop()
    starts.append((epoch, count))
    del starts[:-EPOCH_STARTS_MAX]


def epoch_of(starts: Sequence[EpochStart], index: int) -> int:
    """Return the epoch in which the number ``index`` (from 0) was given, or would be given now.

    Args:
        starts: Starts of the ledger's epochs, in order.
        index: The number, counted from 0.
    """
    for epoch, first in reversed(starts):
        if index >= first:
            return epoch
    return EPOCH_FIRST
