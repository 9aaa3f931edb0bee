"""A generator of random numbers for simulations: as Python's, with cheaper draws of small integers."""

from __future__ import annotations

__all__ = ["SeededRandom"]

from collections.abc import Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")


class SeededRandom(Random):
    """Draws from the random bits of one ``random()``, where :class:`random.Random` rejects and repeats.

    The bias is below one in 2**40, and a simulation draws tens of numbers for each operation.
    """

    def choice(self, seq: Sequence[T]) -> T:  # type: ignore[override]
        """See :meth:`random.Random.choice`."""
        return seq[int(self.random() * len(seq))]

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        """See :meth:`random.Random.randrange`."""
        if stop is None:
            return int(self.random() * start)
        return start + step * int(self.random() * ((stop - start + step - 1) // step))

    def randint(self, a: int, b: int) -> int:
        """See :meth:`random.Random.randint`."""
        return a + int(self.random() * (b - a + 1))
