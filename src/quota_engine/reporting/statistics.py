"""A histogram and a time series whose sizes do not depend on the number of values."""

from __future__ import annotations

__all__ = ["SECONDS_MAX", "Histogram", "Series"]

from array import array
from collections.abc import Iterator, Mapping
from typing import Any, Final

_PRECISION_BITS: Final = 8
_HALF: Final = 1 << (_PRECISION_BITS - 1)

SECONDS_MAX: Final = 36 * 3600
"""Seconds of a series. Earlier and later values count in the first and the last one."""


class Histogram:
    """Counts of non-negative integers in buckets whose width is at most 1/128 of the values in them.

    Values below 256 have their own bucket and are exact. Larger values keep their 8 leading bits, so a percentile is
    never below the exact one, and less than 0.8 % above it. ``max`` and ``mean`` are exact. A value of 2**40 needs
    fewer than 4,400 buckets.
    """

    def __init__(self) -> None:
        self._counts: list[int] = [0] * 256
        self.count = 0
        self.total = 0
        self.max = 0

    def record(self, value: int) -> None:
        """Count one value. A negative value counts as 0."""
        if value < 0:
            value = 0
        shift = value.bit_length() - _PRECISION_BITS
        bucket = value if shift <= 0 else shift * _HALF + (value >> shift)
        try:
            self._counts[bucket] += 1
        except IndexError:
            self._counts.extend([0] * (bucket + 1 - len(self._counts)))
            self._counts[bucket] += 1
        self.count += 1
        self.total += value
        if value > self.max:
            self.max = value

    def merge(self, other: Histogram) -> None:
        """Add the counts of another histogram."""
        self._counts.extend([0] * (len(other._counts) - len(self._counts)))
        for bucket, count in enumerate(other._counts):
            self._counts[bucket] += count
        self.count += other.count
        self.total += other.total
        self.max = max(self.max, other.max)

    def to_builtins(self) -> dict[str, Any]:
        """Return the non-empty buckets, the total and the maximum, for :meth:`from_builtins`."""
        counts = [[bucket, count] for bucket, count in enumerate(self._counts) if count]
        return {"counts": counts, "total": self.total, "max": self.max}

    @classmethod
    def from_builtins(cls, values: Mapping[str, Any]) -> Histogram:
        """Return the histogram that :meth:`to_builtins` has written."""
        made = cls()
        for bucket, count in values["counts"]:
            made._counts.extend([0] * (bucket + 1 - len(made._counts)))
            made._counts[bucket] = count
            made.count += count
        made.total, made.max = values["total"], values["max"]
        return made

    @property
    def mean(self) -> float:
        """Exact mean; 0 without values."""
        return self.total / self.count if self.count else 0.0

    def percentile(self, share: float) -> int:
        """Return the smallest value that a ``share`` (0 to 1) of all values does not exceed.

        It is rounded up to the end of its bucket.
        """
        rank = max(1, -(-self.count * round(share * 1_000_000) // 1_000_000))
        seen = 0
        for low, high, count in self.buckets():
            seen += count
            if seen >= rank:
                return min(high, self.max) if high > low else high
        return 0

    def buckets(self) -> Iterator[tuple[int, int, int]]:
        """Yield the non-empty buckets in ascending order, as lowest value, highest value and count."""
        for bucket, count in enumerate(self._counts):
            if count:
                if bucket < 2 * _HALF:
                    yield bucket, bucket, count
                else:
                    shift = bucket // _HALF - 1
                    low = (bucket - shift * _HALF) << shift
                    yield low, low + (1 << shift) - 1, count


class Series:
    """Sums per second, from second ``start_s`` (relative to the opening) on."""

    def __init__(self, start_s: int) -> None:
        self.start_s = start_s
        self._sums = array("q", [0])

    def add(self, at_us: int, amount: int = 1) -> None:
        """Add ``amount`` to the second of the moment ``at_us`` (microseconds from the opening)."""
        index = at_us // 1_000_000 - self.start_s
        sums = self._sums
        if index >= len(sums):
            if index >= SECONDS_MAX:
                index = SECONDS_MAX - 1
            if index >= len(sums):
                sums.extend([0] * (index + 1 - len(sums)))
        sums[index if index > 0 else 0] += amount

    def put_max(self, at_us: int, value: int) -> None:
        """Raise the second's sum to ``value`` if it is smaller."""
        self.add(at_us, 0)
        index = min(max(at_us // 1_000_000 - self.start_s, 0), SECONDS_MAX - 1)
        if value > self._sums[index]:
            self._sums[index] = value

    def merge(self, other: Series) -> None:
        """Add another series, second by second."""
        for index, amount in enumerate(other._sums):
            if amount:
                self.add((other.start_s + index) * 1_000_000, amount)

    def to_builtins(self) -> dict[str, Any]:
        """Return the start and the sums, for :meth:`from_builtins`."""
        return {"start_s": self.start_s, "sums": list(self._sums)}

    @classmethod
    def from_builtins(cls, values: Mapping[str, Any]) -> Series:
        """Return the series that :meth:`to_builtins` has written."""
        made = cls(values["start_s"])
        made._sums = array("q", values["sums"])
        return made

    def window(self, first_s: int, end_s: int) -> list[int]:
        """Return the sums from second ``first_s`` to before ``end_s``, 0 where nothing was counted."""
        sums, start_s = self._sums, self.start_s
        return [sums[s - start_s] if 0 <= s - start_s < len(sums) else 0 for s in range(first_s, end_s)]

    @property
    def end_s(self) -> int:
        """Second after the last one with a count."""
        return self.start_s + len(self._sums)

    @property
    def peak(self) -> int:
        """Largest sum of one second."""
        return max(self._sums, default=0)

    @property
    def total(self) -> int:
        """Sum of the whole series."""
        return sum(self._sums)

    def second_of_share(self, share: float) -> int:
        """Return the first second by whose end a ``share`` (0 to 1) of the total was counted."""
        wanted, seen = self.total * share, 0
        for index, amount in enumerate(self._sums):
            seen += amount
            if seen >= wanted:
                return self.start_s + index
        return self.end_s
