"""Token buckets in integer arithmetic, exact to the fraction of a token.

Model. A bucket holds up to ``burst`` tokens and refills evenly, by ``amount`` tokens every ``per_ms`` milliseconds. A
token is divided into ``per_ms`` **ticks**, so exactly ``amount`` ticks come back each millisecond, and no rate needs
rounding.

State. A bucket that is not full is stored as two numbers. ``full_at_ms`` is the first whole millisecond in which it is
full. ``early`` is the number of ticks by which it is full before that (less than ``amount``). At ``now_ms`` it lacks
``(full_at_ms - now_ms) * amount - early`` ticks. This is the generic cell rate algorithm (ITU-T I.371, "virtual
scheduling") with a theoretical arrival time in mixed units. A full bucket is not stored, and time alone fills a bucket.

Charge. A charge of ``cost`` tokens fits from the first millisecond ``t`` for which
``(full_at_ms - t) * amount - early + cost * per_ms <= burst * per_ms``. This is
``full_at_ms - floor(((burst - cost) * per_ms + early) / amount)``.

Bounds. With ``amount`` and ``per_ms`` in lowest terms, :class:`Limit` ensures ``burst * per_ms <= 2**52`` and
``amount <= 10**9``. A bucket lacks at most ``burst * per_ms`` ticks, also after a charge that fits. So no number is
above ``2**52 + 10**9``. Doubles represent every integer up to ``2**53``, and Lua computes the same results.

Division. Each dividend is an integer ``a <= 2**52 + 10**9``, and each divisor is ``b = amount``. The floor of the
double ``a / b`` is right. If ``q`` is the next integer above ``a / b``, it is at least ``1 / b`` away. Doubles just
below ``q`` are at most ``q / 2**53`` apart, and ``q * b <= a + b < 2**53``, so the quotient is not rounded up to ``q``.
"""

from __future__ import annotations

__all__ = [
    "BUCKETS_MAX",
    "CHARGES_MAX",
    "WINDOW_UNITS_MAX",
    "BucketLevel",
    "Buckets",
    "Charge",
    "Limit",
    "PeekTokens",
    "ResetTokens",
    "SlidingWindow",
    "TakeOutcome",
    "TakeTokens",
    "answer_query",
    "apply",
    "at_most",
    "check_bucket_names",
    "check_charges",
    "describe",
    "per_day",
    "per_hour",
    "per_minute",
    "per_second",
]

import math
from collections.abc import Callable
from heapq import heapify, heappop, heappush, heapreplace
from typing import Any, Final

import msgspec

from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.validation import DURATION_MS_MAX, check_integer, check_name, is_name

AMOUNT_MAX: Final = 10**9
PER_MS_MAX: Final = 366 * 86_400_000
CAPACITY_TICKS_MAX: Final = 2**52
CHARGES_MAX: Final = 256
"""The most buckets of one step: enough for a party of 100 with its account, network and device."""
BUCKETS_MAX: Final = 1_000_000
"""The most buckets of one ledger that are not full. A step that needs more has to wait until one of them is full."""
WINDOW_UNITS_MAX: Final = 100
"""The most units of a sliding window. Each of them that is in use takes as much memory as a bucket."""
SWEPT_PER_STEP_MAX: Final = 8
_STALE_ENTRIES_SPARE: Final = 64


class Limit(msgspec.Struct, frozen=True, gc=False):
    """Limit of a token bucket.

    It is stored in lowest terms, so equivalent limits are equal: ``Limit(10, 1000, 5) == Limit(1, 100, 5)``.

    Attributes:
        amount: Tokens that come back every ``per_ms`` (1 to 1,000,000,000).
        per_ms: Period in milliseconds (1 to 366 days).
        burst: The most tokens that the bucket holds (1 to 1,000,000,000).

    Raises:
        InvalidRequest: A value is out of its range, or an empty bucket would take more than 10 years to fill.
    """

    amount: int
    per_ms: int
    burst: int

    def __post_init__(self) -> None:
        check_integer(self.amount, "limit.amount", 1, AMOUNT_MAX)
        check_integer(self.per_ms, "limit.per_ms", 1, PER_MS_MAX)
        check_integer(self.burst, "limit.burst", 1, AMOUNT_MAX)
        divisor = math.gcd(self.amount, self.per_ms)
        msgspec.structs.force_setattr(self, "amount", self.amount // divisor)
        msgspec.structs.force_setattr(self, "per_ms", self.per_ms // divisor)
        if self.burst * self.per_ms > CAPACITY_TICKS_MAX or self.refill_ms > DURATION_MS_MAX:
            raise InvalidRequest(
                "limit.burst", "the bucket would take too long to fill", "a smaller burst or a higher rate"
            )

    @property
    def refill_ms(self) -> int:
        """Time that an empty bucket takes to fill, in milliseconds, rounded up."""
        return -(-self.burst * self.per_ms // self.amount)


class SlidingWindow(Limit, frozen=True, gc=False):
    """Exact limit: at most ``amount`` units in any ``per_ms`` milliseconds, all of them at once if they are free.

    It stores the time of each unit, where a token bucket stores one time in all. Windows with the same rate and other
    periods differ, so they are not reduced to lowest terms.

    Attributes:
        amount: The most units in the period (1 to 100).
        per_ms: Period in milliseconds (1 to 366 days).
        burst: Always ``amount``.

    Raises:
        InvalidRequest: A value is out of its range.
    """

    def __post_init__(self) -> None:
        check_integer(self.amount, "limit.amount", 1, WINDOW_UNITS_MAX)
        check_integer(self.per_ms, "limit.per_ms", 1, PER_MS_MAX)
        check_integer(self.burst, "limit.burst", self.amount, self.amount)

    @property
    def refill_ms(self) -> int:
        """Time after which all units are free if none is taken: the period."""
        return self.per_ms


def at_most(amount: int, period: Callable[[int], Limit]) -> SlidingWindow:
    """Return an exact limit: at most ``amount`` units in any period, such as ``at_most(3, per_minute)``.

    Args:
        amount: The most units in the period (1 to 100).
        period: :func:`per_second`, :func:`per_minute`, :func:`per_hour` or :func:`per_day`.

    Raises:
        InvalidRequest: ``amount`` is out of range.
    """
    return SlidingWindow(amount, period(1).per_ms, amount)


def per_second(amount: int, burst: int = 0) -> Limit:
    """Return a limit of ``amount`` tokens a second that holds ``burst`` tokens, or ``amount`` if ``burst`` is 0.

    A full bucket lets up to ``burst + amount - 1`` calls through in its first period, because it refills meanwhile:
    ``per_second(3)`` lets 5 through. ``at_most(3, per_second)`` is exact.
    """
    return Limit(amount, 1000, burst or amount)


def per_minute(amount: int, burst: int = 0) -> Limit:
    """Return a limit of ``amount`` tokens a minute that holds ``burst`` tokens, or ``amount`` if ``burst`` is 0.

    A full bucket lets up to ``burst + amount - 1`` calls through in its first period, because it refills meanwhile:
    ``per_minute(3)`` lets 5 through. ``at_most(3, per_minute)`` is exact.
    """
    return Limit(amount, 60_000, burst or amount)


def per_hour(amount: int, burst: int = 0) -> Limit:
    """Return a limit of ``amount`` tokens an hour that holds ``burst`` tokens, or ``amount`` if ``burst`` is 0.

    A full bucket lets up to ``burst + amount - 1`` calls through in its first period, because it refills meanwhile:
    ``per_hour(3)`` lets 5 through. ``at_most(3, per_hour)`` is exact.
    """
    return Limit(amount, 3_600_000, burst or amount)


def per_day(amount: int, burst: int = 0) -> Limit:
    """Return a limit of ``amount`` tokens in 24 hours that holds ``burst`` tokens, or ``amount`` if ``burst`` is 0.

    A full bucket lets up to ``burst + amount - 1`` calls through in its first period, because it refills meanwhile:
    ``per_day(3)`` lets 5 through. ``at_most(3, per_day)`` is exact.
    """
    return Limit(amount, 86_400_000, burst or amount)


class Charge(msgspec.Struct, frozen=True, gc=False):
    """A charge of one bucket.

    Attributes:
        name: Name of the bucket. A value from outside must be hashed with a key.
        limit: Limit of the bucket.
        cost: Tokens to take (1 to ``limit.burst``).
        shadow: True in shadow mode: the charge never causes a refusal. It is recorded, and tokens are taken if the
            bucket has enough.
        counts_refusals: True if a guarded command also takes the charge, if it fits, when something else refuses it.
    """

    name: str
    limit: Limit
    cost: int = 1
    shadow: bool = False
    counts_refusals: bool = False


def check_charges(charges: tuple[Charge, ...], where: str = "charges") -> None:
    """Reject anything but 1 to 256 valid charges of different buckets.

    Args:
        charges: The charges.
        where: Name of the charges for the error.

    Raises:
        InvalidRequest: There are no or too many charges, one is invalid, or two charge the same bucket.
    """
    if len(charges) == 1:  # the usual case, without function calls
        charge = charges[0]
        name, cost = charge.name, charge.cost
        if type(name) is str and is_name(name) and type(cost) is int and 1 <= cost <= charge.limit.burst:
            return
    if not 1 <= len(charges) <= CHARGES_MAX:
        raise InvalidRequest(where, f"{len(charges)} buckets", f"1 to {CHARGES_MAX}")
    for charge in charges:
        check_name(charge.name, f"{where}: name")
        check_integer(charge.cost, f"{where}: cost", 1, charge.limit.burst)
    if len(charges) > 1 and len({charge.name for charge in charges}) != len(charges):
        raise InvalidRequest(where, "one bucket twice", "each bucket once, with the whole cost")


def check_bucket_names(names: tuple[str, ...]) -> None:
    """Reject anything but 1 to 256 valid names of buckets.

    Raises:
        InvalidRequest: There are no or too many names, or one is invalid.
    """
    if not 1 <= len(names) <= CHARGES_MAX:
        raise InvalidRequest("names", f"{len(names)} buckets", f"1 to {CHARGES_MAX}")
    for name in names:
        check_name(name, "names")


class TakeTokens(msgspec.Struct, frozen=True, gc=False):
    """Take tokens from all buckets of the charges, or from none. Returns a :class:`TakeOutcome`.

    With ``with_levels``, the outcome has the level of each bucket after the step.
    """

    charges: tuple[Charge, ...]
    with_levels: bool = False


class PeekTokens(msgspec.Struct, frozen=True, gc=False):
    """Query the levels of buckets. Returns a :class:`BucketLevel` for each charge."""

    charges: tuple[Charge, ...]


class ResetTokens(msgspec.Struct, frozen=True, gc=False):
    """Fill buckets. Returns how many of them were not full."""

    names: tuple[str, ...]


class BucketLevel(msgspec.Struct, frozen=True, gc=False):
    """Level of a bucket: its whole tokens, and the time at which it will be full (0: it is full)."""

    available: int
    full_at_ms: int


class TakeOutcome(msgspec.Struct, frozen=True, gc=False):
    """Outcome of taking tokens.

    Attributes:
        refused_by: Index of the first charge that did not fit, or -1. If one does not fit, nothing is taken.
        retry_at_ms: Time from which all charges fit if no other charge takes tokens, in milliseconds since 1970 (UTC).
        levels: Level of each charge's bucket after the step; empty if the command did not ask for levels.
    """

    refused_by: int = -1
    retry_at_ms: int = 0
    levels: tuple[BucketLevel, ...] = ()

    @property
    def taken(self) -> bool:
        """True if the tokens were taken."""
        return self.refused_by < 0


_TAKEN: Final = TakeOutcome()


class Buckets:
    """The buckets of one ledger that are not full.

    Time never runs backwards: a ``now_ms`` before that of the last step counts as the time of that step.
    """

    __slots__ = ("_by_name", "_full_heap", "_stale_entries", "buckets_max", "now_ms")

    def __init__(self, buckets_max: int = BUCKETS_MAX) -> None:
        """Create an empty set.

        Args:
            buckets_max: The most buckets that are not full.
        """
        self.now_ms = 0
        self.buckets_max = buckets_max
        self._by_name: dict[str, tuple[int, int]] = {}
        """``(full_at_ms, early)`` by name. It contains full buckets until they are swept."""
        self._full_heap: list[tuple[int, str]] = []
        """One entry for each bucket: a time at which it is full, or was to be full before more was taken from it."""
        self._stale_entries = 0
        """Upper bound of the heap's entries whose buckets were reset."""

    @classmethod
    def restore(cls, now_ms: int, by_name: dict[str, tuple[int, int]]) -> Buckets:
        """Return buckets in a stored state.

        Args:
            now_ms: Time of the last step, in milliseconds since 1970 (UTC).
            by_name: ``(full_at_ms, early)`` by name.
        """
        buckets = cls()
        buckets.now_ms = now_ms
        buckets._by_name = dict(by_name)
        buckets._rebuild_heap()
        return buckets

    def take(self, charges: tuple[Charge, ...], now_ms: int) -> TakeOutcome:
        """Take tokens from all buckets of the charges, or from none. A refusal changes nothing.

        Args:
            charges: Valid charges of different buckets.
            now_ms: The time, in milliseconds since 1970 (UTC).
        """
        if now_ms < self.now_ms:
            now_ms = self.now_ms
        by_name = self._by_name
        refused_by, retry_at_ms, new = -1, 0, 0
        for index, charge in enumerate(charges):
            if type(charge.limit) is SlidingWindow:
                free, ready_at_ms = self._window(charge, now_ms)
                new += min(charge.cost, len(free))
                if ready_at_ms > now_ms:
                    refused_by = index if refused_by < 0 else refused_by
                    retry_at_ms = max(retry_at_ms, ready_at_ms)
                continue
            stored = by_name.get(charge.name)
            if stored is None or stored[0] <= now_ms:
                new += 1
            else:
                ready_at_ms = _ready_at_ms(charge, stored)
                if ready_at_ms > now_ms:
                    refused_by = index if refused_by < 0 else refused_by
                    retry_at_ms = max(retry_at_ms, ready_at_ms)
        if refused_by >= 0:
            return TakeOutcome(refused_by, retry_at_ms)
        if new and len(by_name) + new > self.buckets_max:
            self._forget_full(now_ms)
            if len(by_name) + new > self.buckets_max:
                return TakeOutcome(0, self._full_heap[0][0] if self._full_heap else now_ms + 1)

        # From here on it must succeed.
        self.now_ms = now_ms
        for charge in charges:
            name, limit = charge.name, charge.limit
            if type(limit) is SlidingWindow:
                for place in self._window(charge, now_ms)[0][: charge.cost]:
                    if place not in by_name:
                        heappush(self._full_heap, (now_ms + limit.per_ms, place))
                    by_name[place] = now_ms + limit.per_ms, 0
                continue
            amount = limit.amount
            stored = by_name.get(name)
            ticks = charge.cost * limit.per_ms
            if stored is None:
                heappush(self._full_heap, (now_ms - (-ticks // amount), name))
            elif stored[0] > now_ms:
                ticks += (stored[0] - now_ms) * amount - min(stored[1], amount - 1)
            full_in_ms = -(-ticks // amount)
            by_name[name] = now_ms + full_in_ms, full_in_ms * amount - ticks
        if self._full_heap[0][0] <= now_ms:
            self._sweep(now_ms, SWEPT_PER_STEP_MAX)
        return _TAKEN

    def peek(self, charges: tuple[Charge, ...], now_ms: int) -> tuple[BucketLevel, ...]:
        """Return the levels of the buckets of the charges, whose costs do not matter.

        Args:
            charges: Valid charges.
            now_ms: The time, in milliseconds since 1970 (UTC).
        """
        now_ms = max(now_ms, self.now_ms)
        levels: list[BucketLevel] = []
        for charge in charges:
            if type(charge.limit) is SlidingWindow:
                free, _ = self._window(charge, now_ms)
                until_ms = max(stored[0] for stored in self._places(charge))
                levels.append(BucketLevel(len(free), until_ms if len(free) < charge.limit.amount else 0))
                continue
            stored, limit = self._by_name.get(charge.name), charge.limit
            if stored is None or stored[0] <= now_ms:
                levels.append(BucketLevel(limit.burst, 0))
            else:
                levels.append(BucketLevel(_available(limit, stored, now_ms), stored[0]))
        return tuple(levels)

    def reset(self, names: tuple[str, ...], now_ms: int) -> int:
        """Fill buckets.

        Args:
            names: Names of the buckets.
            now_ms: The time, in milliseconds since 1970 (UTC).

        Returns:
            The number of these buckets that were not full.
        """
        now_ms = max(now_ms, self.now_ms)
        count = 0
        for name in names:
            was_full = True
            for part in (name, *(_place(name, number) for number in range(WINDOW_UNITS_MAX))):
                stored = self._by_name.get(part)
                if stored is not None and stored[0] > now_ms:
                    del self._by_name[part]
                    self._stale_entries += 1
                    was_full = False
            count += not was_full
        if self._stale_entries > len(self._by_name) + _STALE_ENTRIES_SPARE:
            self._rebuild_heap()
            self._stale_entries = 0
        return count

    def put_marker(self, name: str, until_ms: int, now_ms: int) -> None:
        """Store a marker among the buckets until its time has passed. Used passes are markers.

        Args:
            name: Name of the marker. No bucket may have it.
            until_ms: Time at which the marker is forgotten, in milliseconds since 1970 (UTC).
            now_ms: The time, in milliseconds since 1970 (UTC).
        """
        self.now_ms = max(now_ms, self.now_ms)
        if name not in self._by_name:
            heappush(self._full_heap, (until_ms, name))
        self._by_name[name] = until_ms, 0

    def has_marker(self, name: str, now_ms: int) -> bool:
        """Return True if a marker is stored and its time has not passed."""
        stored = self._by_name.get(name)
        return stored is not None and stored[0] > max(now_ms, self.now_ms)

    def not_full(self) -> dict[str, tuple[int, int]]:
        """Return ``(full_at_ms, early)`` of the buckets that are not full, by name."""
        return {name: stored for name, stored in sorted(self._by_name.items()) if stored[0] > self.now_ms}

    def _window(self, charge: Charge, now_ms: int) -> tuple[list[str], int]:
        """Return the free places of a sliding window, and the time from which the charge fits (0: it fits)."""
        free: list[str] = []
        taken: list[int] = []
        for number, (until_ms, _) in enumerate(self._places(charge)):
            if until_ms <= now_ms:
                free.append(_place(charge.name, number))
            else:
                taken.append(until_ms)
        missing = charge.cost - len(free)
        return free, sorted(taken)[missing - 1] if missing > 0 else 0

    def _places(self, charge: Charge) -> list[tuple[int, int]]:
        """Return what is stored of each place of a sliding window, or zeros."""
        names = (_place(charge.name, number) for number in range(charge.limit.amount))
        return [self._by_name.get(name, (0, 0)) for name in names]

    def _rebuild_heap(self) -> None:
        self._full_heap = [(stored[0], name) for name, stored in self._by_name.items()]
        heapify(self._full_heap)

    def _sweep(self, now_ms: int, steps_max: int) -> None:
        """Forget full buckets, in the order of the heap."""
        heap, by_name = self._full_heap, self._by_name
        for _ in range(steps_max):
            if not heap or heap[0][0] > now_ms:
                return
            name = heap[0][1]
            stored = by_name.get(name)
            if stored is not None and stored[0] > now_ms:
                heapreplace(heap, (stored[0], name))  # more was taken after the entry was written
            else:
                heappop(heap)
                by_name.pop(name, None)

    def _forget_full(self, now_ms: int) -> None:
        """Forget all full buckets, and make the first entry of the heap the bucket that will be full first.

        The time is bounded: each entry is replaced at most once for each time that tokens were taken.
        """
        self.now_ms = now_ms  # a forgotten bucket must not be charged at an earlier time
        heap, by_name = self._full_heap, self._by_name
        self._sweep(now_ms, 2 * len(heap) + 1)
        while heap:
            at_ms, name = heap[0]
            stored = by_name.get(name)
            if stored is None:
                heappop(heap)
            elif stored[0] > at_ms:
                heapreplace(heap, (stored[0], name))
            else:
                return


def _place(name: str, number: int) -> str:
    """Return the name under which a place of a sliding window is stored. No bucket has it: names have no points."""
    return f"{name}.{number}"


def _ready_at_ms(charge: Charge, stored: tuple[int, int]) -> int:
    """Return the time from which a charge fits into a bucket that is not full, if no other charge takes tokens."""
    limit = charge.limit
    spare = (limit.burst - charge.cost) * limit.per_ms + min(stored[1], limit.amount - 1)
    return stored[0] - spare // limit.amount


def _available(limit: Limit, stored: tuple[int, int], now_ms: int) -> int:
    """Return the whole tokens in a bucket that is not full."""
    full_in_ms = min(stored[0] - now_ms, limit.refill_ms)  # longer if the bucket was charged with another limit
    lacking = full_in_ms * limit.amount - min(stored[1], limit.amount - 1)
    return max(0, limit.burst * limit.per_ms - lacking) // limit.per_ms


def apply(buckets: Buckets, command: TakeTokens | ResetTokens, now_ms: int) -> TakeOutcome | int:
    """Apply one command to the buckets of a ledger.

    Args:
        buckets: The buckets. They are changed in place.
        command: The command. Its class states what is returned.
        now_ms: The store's time, in milliseconds since 1970 (UTC).

    Raises:
        InvalidRequest: The command is invalid.
    """
    if type(command) is TakeTokens:
        check_charges(command.charges)
        outcome = buckets.take(command.charges, now_ms)
        if command.with_levels:
            return TakeOutcome(outcome.refused_by, outcome.retry_at_ms, buckets.peek(command.charges, now_ms))
        return outcome
    assert type(command) is ResetTokens
    check_bucket_names(command.names)
    return buckets.reset(command.names, now_ms)


def answer_query(buckets: Buckets, query: PeekTokens, now_ms: int) -> tuple[BucketLevel, ...]:
    """Return the levels that a query asks for, without a change. Arguments and errors are those of :func:`apply`."""
    check_charges(query.charges)
    return buckets.peek(query.charges, now_ms)


def describe(buckets: Buckets) -> dict[str, Any]:
    """Return the state of the buckets as a dictionary, to compare stores."""
    return {"now_ms": buckets.now_ms, "buckets": buckets.not_full()}
