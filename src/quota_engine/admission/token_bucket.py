"""Token buckets, exact to the last fraction of a token, in integers only.

A bucket holds up to ``burst`` tokens and gets ``amount`` of them back every ``per_ms`` milliseconds, evenly. Here one
token is cut into ``per_ms`` **ticks**, so that exactly ``amount`` ticks come back each millisecond: nothing is ever
rounded, whatever the rate. A bucket that is not full is written down as two numbers, the first whole millisecond in
which it will be full (``full_at_ms``) and by how many ticks it will be full before that (``early``, less than
``amount``). So what it lacks at ``now_ms`` is ``(full_at_ms - now_ms) * amount - early`` ticks: the generic cell rate
algorithm (ITU-T I.371, "virtual scheduling"), with its theoretical arrival time in mixed units. A full bucket is not
written down at all, and time alone fills one: nothing has to come by for that.

A charge of ``cost`` tokens fits from the first millisecond ``t`` on for which ``(full_at_ms - t) * amount - early +
cost * per_ms <= burst * per_ms``, which is ``full_at_ms - floor(((burst - cost) * per_ms + early) / amount)``.

Bounds. With ``amount`` and ``per_ms`` in lowest terms, :class:`Limit` sees to ``burst * per_ms <= 2**52`` and ``amount
<= 10**9``. What a bucket lacks, also with a charge that fits, is at most ``burst * per_ms`` ticks; so no number is
above ``2**52 + 10**9``, every integer up to ``2**53`` is a double, and Lua computes the same. What is divided is an
integer ``a <= 2**52 + 10**9`` by ``b = amount``, rounded down. A double's quotient has the right floor: if ``q`` is
the next integer above ``a / b``, it is at least ``1 / b`` away, while doubles just below ``q`` are at most ``q /
2**53`` apart, and ``q * b <= a + b < 2**53``; so the quotient is not rounded up to ``q``.
"""

from __future__ import annotations

__all__ = [
    "BUCKETS_MAX",
    "CHARGES_MAX",
    "BucketLevel",
    "Buckets",
    "Charge",
    "Limit",
    "PeekTokens",
    "ResetTokens",
    "TakeOutcome",
    "TakeTokens",
    "answer_query",
    "apply",
    "check_bucket_names",
    "check_charges",
    "describe",
    "per_day",
    "per_hour",
    "per_minute",
    "per_second",
]

import math
from heapq import heapify, heappop, heappush, heapreplace
from typing import Any, Final

import msgspec

from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.validation import DURATION_MS_MAX, check_integer, check_name, is_name

AMOUNT_MAX: Final = 10**9
PER_MS_MAX: Final = 366 * 86_400_000
CAPACITY_TICKS_MAX: Final = 2**52
CHARGES_MAX: Final = 256
"""The most buckets that one step can charge: more than a party of 100 with its account, network and device."""
BUCKETS_MAX: Final = 1_000_000
"""Buckets that are not full in one place; a step that would make more waits until one of them is."""
SWEPT_PER_STEP_MAX: Final = 8


class Limit(msgspec.Struct, frozen=True, gc=False):
    """``amount`` tokens come back every ``per_ms`` milliseconds (1 to 366 days), and ``burst`` can be there at once.

    It is kept in lowest terms, so limits that mean the same are equal: ``Limit(10, 1000, 5) == Limit(1, 100, 5)``.

    Raises:
        InvalidRequest: a number is out of range, or an empty bucket would take more than 10 years to fill.
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
                "limit.burst", "a bucket that takes too long to fill", "a smaller burst, or more often"
            )

    @property
    def refill_ms(self) -> int:
        """How long an empty bucket takes to be full, in milliseconds, rounded up."""
        return -(-self.burst * self.per_ms // self.amount)


def per_second(amount: int, burst: int = 0) -> Limit:
    """So many a second; ``burst`` at once, or ``amount`` if it is 0."""
    return Limit(amount, 1000, burst or amount)


def per_minute(amount: int, burst: int = 0) -> Limit:
    """So many a minute; ``burst`` at once, or ``amount`` if it is 0."""
    return Limit(amount, 60_000, burst or amount)


def per_hour(amount: int, burst: int = 0) -> Limit:
    """So many an hour; ``burst`` at once, or ``amount`` if it is 0."""
    return Limit(amount, 3_600_000, burst or amount)


def per_day(amount: int, burst: int = 0) -> Limit:
    """So many in 24 hours; ``burst`` at once, or ``amount`` if it is 0."""
    return Limit(amount, 86_400_000, burst or amount)


class Charge(msgspec.Struct, frozen=True, gc=False):
    """Take ``cost`` tokens from the bucket ``name``, which fills by ``limit``.

    ``name`` is an id: a keyed hash, if what it stands for came from outside. A charge ``in_shadow`` refuses nobody:
    what it would have done is told, and the tokens are taken if they are there.
    """

    name: str
    limit: Limit
    cost: int = 1
    shadow: bool = False


def check_charges(charges: tuple[Charge, ...], where: str = "charges") -> None:
    """Raise :class:`InvalidRequest` unless there are 1 to 256 well-formed charges, on a bucket each."""
    if len(charges) == 1:  # the usual case, without the calls
        one = charges[0]
        if type(one.name) is str and is_name(one.name) and type(one.cost) is int and 1 <= one.cost <= one.limit.burst:
            return
    if not 1 <= len(charges) <= CHARGES_MAX:
        raise InvalidRequest(where, f"{len(charges)} buckets", f"1 to {CHARGES_MAX}")
    for charge in charges:
        check_name(charge.name, f"{where}: name")
        check_integer(charge.cost, f"{where}: cost", 1, charge.limit.burst)
    if len(charges) > 1 and len({charge.name for charge in charges}) != len(charges):
        raise InvalidRequest(where, "one bucket twice", "each bucket once, with the whole cost")


def check_bucket_names(names: tuple[str, ...]) -> None:
    """Raise :class:`InvalidRequest` unless there are 1 to 256 names of buckets."""
    if not 1 <= len(names) <= CHARGES_MAX:
        raise InvalidRequest("names", f"{len(names)} buckets", f"1 to {CHARGES_MAX}")
    for name in names:
        check_name(name, "names")


class TakeTokens(msgspec.Struct, frozen=True, gc=False):
    """Take from all these buckets, or from none. The answer is a :class:`Taking`."""

    charges: tuple[Charge, ...]


class PeekTokens(msgspec.Struct, frozen=True, gc=False):
    """Look at these buckets. The answer is a :class:`Level` each."""

    charges: tuple[Charge, ...]


class ResetTokens(msgspec.Struct, frozen=True, gc=False):
    """Make these buckets full again. The answer is how many of them were not."""

    names: tuple[str, ...]


class TakeOutcome(msgspec.Struct, frozen=True, gc=False):
    """What came of taking. If tokens were missing nothing was taken: ``refused_by`` is the index of the first charge
    that was too much (-1: none), and from ``retry_at_ms`` on all of them fit, unless somebody else takes before.
    """

    refused_by: int = -1
    retry_at_ms: int = 0

    @property
    def taken(self) -> bool:
        """Whether the tokens were there."""
        return self.refused_by < 0


class BucketLevel(msgspec.Struct, frozen=True, gc=False):
    """What is in a bucket: whole tokens, and when it will be full (0: it is)."""

    available: int
    full_at_ms: int


_TAKEN: Final = TakeOutcome()


class Buckets:
    """The buckets of one place that are not full, and the time of the last step that took from one.

    Time never runs backwards here: an earlier ``now_ms`` counts as that of the last step.
    """

    __slots__ = ("_by_name", "_due", "_orphans", "keys_max", "now_ms")

    def __init__(self, keys_max: int = BUCKETS_MAX) -> None:
        self.now_ms = 0
        self.keys_max = keys_max
        self._by_name: dict[str, tuple[int, int]] = {}
        """``(full_at_ms, early)`` by the bucket's name; full ones may still be among them, until they are swept."""
        self._due: list[tuple[int, str]] = []
        """A heap with an entry a bucket: when it is full, or was to be before more was taken from it."""
        self._orphans = 0
        """How many entries of the heap may be of buckets that were reset."""

    @classmethod
    def restore(cls, now_ms: int, by_name: dict[str, tuple[int, int]]) -> Buckets:
        """The buckets that were so at ``now_ms``: ``(full_at_ms, early)`` by name."""
        buckets = cls()
        buckets.now_ms = now_ms
        buckets._by_name = dict(by_name)
        buckets._due = [(known[0], name) for name, known in by_name.items()]
        heapify(buckets._due)
        return buckets

    def take(self, charges: tuple[Charge, ...], now_ms: int) -> TakeOutcome:
        """Take from all these buckets or from none; they must be different ones. A refusal changes nothing."""
        if now_ms < self.now_ms:
            now_ms = self.now_ms
        by_name = self._by_name
        refused_by, retry_at_ms, new = -1, 0, 0
        for index, charge in enumerate(charges):
            known = by_name.get(charge.name)
            if known is None or known[0] <= now_ms:
                new += 1
            else:
                ready_at_ms = _ready_at_ms(charge, known)
                if ready_at_ms > now_ms:
                    refused_by = index if refused_by < 0 else refused_by
                    retry_at_ms = max(retry_at_ms, ready_at_ms)
        if refused_by >= 0:
            return TakeOutcome(refused_by, retry_at_ms)
        if new and len(by_name) + new > self.keys_max:
            self._forget_full(now_ms)
            if len(by_name) + new > self.keys_max:
                return TakeOutcome(0, now_ms + 1 if not self._due else self._due[0][0])

        # From here on it must succeed.
        self.now_ms = now_ms
        for charge in charges:
            name, limit = charge.name, charge.limit
            amount = limit.amount
            known = by_name.get(name)
            ticks = charge.cost * limit.per_ms
            if known is None:
                heappush(self._due, (now_ms - (-ticks // amount), name))
            elif known[0] > now_ms:
                ticks += (known[0] - now_ms) * amount - min(known[1], amount - 1)
            full_in_ms = -(-ticks // amount)
            by_name[name] = now_ms + full_in_ms, full_in_ms * amount - ticks
        if self._due[0][0] <= now_ms:
            self._sweep(now_ms, SWEPT_PER_STEP_MAX)
        return _TAKEN

    def peek(self, charges: tuple[Charge, ...], now_ms: int) -> tuple[BucketLevel, ...]:
        """What is in the buckets of these charges; their costs do not matter. Changes nothing."""
        now_ms = max(now_ms, self.now_ms)
        levels: list[BucketLevel] = []
        for charge in charges:
            known, limit = self._by_name.get(charge.name), charge.limit
            if known is None or known[0] <= now_ms:
                levels.append(BucketLevel(limit.burst, 0))
            else:
                levels.append(BucketLevel(_available(limit, known, now_ms), known[0]))
        return tuple(levels)

    def reset(self, names: tuple[str, ...], now_ms: int) -> int:
        """Make these buckets full; how many were not."""
        now_ms = max(now_ms, self.now_ms)
        count = 0
        for name in names:
            known = self._by_name.get(name)
            if known is not None and known[0] > now_ms:
                del self._by_name[name]
                self._orphans += 1
                count += 1
        if self._orphans > len(self._by_name) + 64:
            self._due = [(known[0], name) for name, known in self._by_name.items()]
            heapify(self._due)
            self._orphans = 0
        return count

    def put_marker(self, name: str, until_ms: int, now_ms: int) -> None:
        """Let something that is no bucket stand among them until its time is over; see ``guarded``."""
        self.now_ms = max(now_ms, self.now_ms)
        if name not in self._by_name:
            heappush(self._due, (until_ms, name))
        self._by_name[name] = until_ms, 0

    def has_marker(self, name: str, now_ms: int) -> bool:
        """Whether it stands there, and its time is not over."""
        known = self._by_name.get(name)
        return known is not None and known[0] > max(now_ms, self.now_ms)

    def not_full(self) -> dict[str, tuple[int, int]]:
        """``(full_at_ms, early)`` of the buckets that are not full now, by name."""
        return {name: known for name, known in sorted(self._by_name.items()) if known[0] > self.now_ms}

    def _sweep(self, now_ms: int, steps_max: int) -> None:
        """Forget buckets that are full, the first of the heap first."""
        due, by_name = self._due, self._by_name
        for _ in range(steps_max):
            if not due or due[0][0] > now_ms:
                return
            name = due[0][1]
            known = by_name.get(name)
            if known is not None and known[0] > now_ms:
                heapreplace(due, (known[0], name))  # more has been taken since it was put there
            else:
                heappop(due)
                by_name.pop(name, None)

    def _forget_full(self, now_ms: int) -> None:
        """Forget all that are full, and see that the first of the heap is the one that will be first.

        As long as it may take: each entry is put back at most once for each time that something was taken.
        """
        self.now_ms = now_ms  # what is forgotten at a time must not be asked for at an earlier one
        due, by_name = self._due, self._by_name
        self._sweep(now_ms, 2 * len(due) + 1)
        while due:
            at_ms, name = due[0]
            known = by_name.get(name)
            if known is None:
                heappop(due)
            elif known[0] > at_ms:
                heapreplace(due, (known[0], name))
            else:
                return


def _ready_at_ms(charge: Charge, known: tuple[int, int]) -> int:
    """From when on a bucket that is not full has what the charge asks for, if nobody takes from it before."""
    limit = charge.limit
    spare = (limit.burst - charge.cost) * limit.per_ms + min(known[1], limit.amount - 1)
    return known[0] - spare // limit.amount


def _available(limit: Limit, known: tuple[int, int], now_ms: int) -> int:
    """Whole tokens in a bucket that is not full."""
    ahead_ms = min(known[0] - now_ms, limit.refill_ms)  # a moment worked out by another limit may be later
    lacking = ahead_ms * limit.amount - min(known[1], limit.amount - 1)
    return max(0, limit.burst * limit.per_ms - lacking) // limit.per_ms


def apply(buckets: Buckets, command: TakeTokens | ResetTokens, now_ms: int) -> TakeOutcome | int:
    """Carry out one command on the buckets of a place at ``now_ms``; the command says what the answer is.

    Raises:
        InvalidRequest: it is not well formed.
    """
    if type(command) is TakeTokens:
        check_charges(command.charges)
        return buckets.take(command.charges, now_ms)
    assert type(command) is ResetTokens
    check_bucket_names(command.names)
    return buckets.reset(command.names, now_ms)


def answer_query(buckets: Buckets, question: PeekTokens, now_ms: int) -> tuple[BucketLevel, ...]:
    """Answer a question about the buckets of a place, and change nothing. Raises as :func:`apply` does."""
    check_charges(question.charges)
    return buckets.peek(question.charges, now_ms)


def describe(buckets: Buckets) -> dict[str, Any]:
    """All that matters of the buckets, for comparisons."""
    return {"now_ms": buckets.now_ms, "buckets": buckets.not_full()}
