"""What a run is measured with: a histogram and a series over time, of bounded size whatever the number of requests."""

from __future__ import annotations

__all__ = ["SECONDS_MAX", "Histogram", "Series"]

from array import array
from collections.abc import Iterator, Mapping
from typing import Any, Final

_PRECISION_BITS: Final = 8
_HALF: Final = 1 << (_PRECISION_BITS - 1)

SECONDS_MAX: Final = 36 * 3600
"""A series has so many buckets of a second; whatever is earlier or later counts in the first or the last."""


class Histogram:
    """Counts of non-negative integers in buckets whose width is at most 1/128 of the values in them.

    Values below 256 have a bucket each and are exact. A value of ``b`` bits above that keeps its 8 leading ones, so
    that a percentile is never below the exact one, and above it by less than 0.8 % (``max`` and ``mean`` are exact).
    A value of 2**40 still needs fewer than 4,400 buckets.
    """

    def __init__(self) -> None:
        self._counts: list[int] = [0] * 256
        self.count = 0
        self.total = 0
        self.max = 0

    def record(self, value: int) -> None:
        """Count one value; a negative one counts as 0."""
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
        """Count all that another one has counted."""
        self._counts.extend([0] * (len(other._counts) - len(self._counts)))
        for bucket, count in enumerate(other._counts):
            self._counts[bucket] += count
        self.count += other.count
        self.total += other.total
        self.max = max(self.max, other.max)

    def to_builtins(self) -> dict[str, Any]:
        """What :meth:`from_builtins` makes the same histogram of: buckets that are not empty, total, and maximum."""
        counts = [[bucket, count] for bucket, count in enumerate(self._counts) if count]
        return {"counts": counts, "total": self.total, "max": self.max}

    @classmethod
    def from_builtins(cls, values: Mapping[str, Any]) -> Histogram:
        """The histogram that was written with :meth:`to_builtins`."""
        made = cls()
        for bucket, count in values["counts"]:
            made._counts.extend([0] * (bucket + 1 - len(made._counts)))
            made._counts[bucket] = count
            made.count += count
        made.total, made.max = values["total"], values["max"]
        return made

    @property
    def mean(self) -> float:
        """The exact mean; 0 without values."""
        return self.total / self.count if self.count else 0.0

    def percentile(self, share: float) -> int:
        """The smallest value that at least ``share`` (0 to 1) of all do not exceed, rounded up to its bucket's end."""
        rank = max(1, -(-self.count * round(share * 1_000_000) // 1_000_000))
        seen = 0
        for low, high, count in self.buckets():
            seen += count
            if seen >= rank:
                return min(high, self.max) if high > low else high
        return 0

    def buckets(self) -> Iterator[tuple[int, int, int]]:
        """The buckets that are not empty, as lowest value, highest value and count, in ascending order."""
        for bucket, count in enumerate(self._counts):
            if count:
                if bucket < 2 * _HALF:
                    yield bucket, bucket, count
                else:
                    shift = bucket // _HALF - 1
                    low = (bucket - shift * _HALF) << shift
                    yield low, low + (1 << shift) - 1, count


class Series:
    """Sums per second of simulated time, from ``start_s`` (relative to the opening) on."""

    def __init__(self, start_s: int) -> None:
        self.start_s = start_s
        self._sums = array("q", [0])

    def add(self, at_us: int, amount: int = 1) -> None:
        """Add ``amount`` to the second that ``at_us`` (microseconds from the opening) lies in."""
        index = at_us // 1_000_000 - self.start_s
        sums = self._sums
        if index >= len(sums):
            if index >= SECONDS_MAX:
                index = SECONDS_MAX - 1
            if index >= len(sums):
                sums.extend([0] * (index + 1 - len(sums)))
        sums[index if index > 0 else 0] += amount

    def put_max(self, at_us: int, value: int) -> None:
        """Keep the larger of ``value`` and what the second has."""
        self.add(at_us, 0)
        index = min(max(at_us // 1_000_000 - self.start_s, 0), SECONDS_MAX - 1)
        if value > self._sums[index]:
            self._sums[index] = value

    def merge(self, other: Series) -> None:
        """Add all that another one has, second by second."""
        for index, amount in enumerate(other._sums):
            if amount:
                self.add((other.start_s + index) * 1_000_000, amount)

    def to_builtins(self) -> dict[str, Any]:
        """What :meth:`from_builtins` makes the same series of."""
        return {"start_s": self.start_s, "sums": list(self._sums)}

    @classmethod
    def from_builtins(cls, values: Mapping[str, Any]) -> Series:
        """The series that was written with :meth:`to_builtins`."""
        made = cls(values["start_s"])
        made._sums = array("q", values["sums"])
        return made

    def window(self, first_s: int, end_s: int) -> list[int]:
        """The sums of the seconds from ``first_s`` to before ``end_s``; 0 where nothing was counted."""
        sums, start_s = self._sums, self.start_s
        return [sums[s - start_s] if 0 <= s - start_s < len(sums) else 0 for s in range(first_s, end_s)]

    @property
    def end_s(self) -> int:
        """The second after the last one that anything was counted in."""
        return self.start_s + len(self._sums)

    @property
    def peak(self) -> int:
        """The largest sum of one second."""
        return max(self._sums, default=0)

    @property
    def total(self) -> int:
        """The sum over the whole run."""
        return sum(self._sums)

    def second_of_share(self, share: float) -> int:
        """The first second by whose end ``share`` (0 to 1) of the total has been counted."""
        wanted, seen = self.total * share, 0
        for index, amount in enumerate(self._sums):
            seen += amount
            if seen >= wanted:
                return self.start_s + index
        return self.end_s
