"""The faults of a simulation. Each seed has its own rates, so that some seeds are calm and others hard."""

from __future__ import annotations

__all__ = [
    "CLUSTER_INCIDENTS",
    "INCIDENTS",
    "LATE_MS_MAX",
    "NO_FAULTS",
    "STORE_CLOCK_INCIDENTS",
    "FaultSource",
    "Faults",
    "held_delay_ms",
    "late_delay_ms",
    "usual_delay_ms",
]

from collections import Counter
from collections.abc import Callable, Collection
from random import Random
from typing import Final

import msgspec

LATE_MS_MAX: Final = 6_000
"""The longest delay of a request or a reply: longer than a client waits, and than an attempt is valid."""
_USUAL_MS_MAX: Final = 4
_RATES: Final = (0.0, 0.0, 0.0, 0.0, 0.005, 0.02, 0.05, 0.2)
_LATE_COPY_RATES: Final = (0.0, 0.0, 0.05, 0.1, 0.25)
_LATE_COPIES: Final = ("held_back", "copied_late")

INCIDENTS: Final = (
    "client_died",
    "server_restarted",
    "server_unreachable",
    "failed_over",
    "tail_lost",
    "clock_set_forward",
    "clock_set_back",
    "clock_leapt",
    "client_clock_wrong",
    "client_clock_leapt",
)
"""Faults that hit a whole process or server at a time; the schedule names their times."""
STORE_CLOCK_INCIDENTS: Final = frozenset({"clock_set_forward", "clock_set_back", "clock_leapt"})
CLUSTER_INCIDENTS: Final = ("slot_moved",)
"""Faults of clusters. A Lua store whose schedule has one is a cluster."""


class Faults(msgspec.Struct, frozen=True):
    """Rates of faults, each a probability for one exchange of requests and replies on a connection.

    Attributes:
        refused: a new connection is refused.
        request_lost: the requests never arrive; the client waits in vain.
        request_late: the requests arrive late, perhaps after the client has sent them again on another connection.
        reply_lost: the server carries the requests out; the replies never arrive.
        reply_late: the replies arrive late.
        cut: the connection breaks at any time; requests in flight arrive nevertheless.
        doubled: a request arrives twice in a row.
        scripts_forgotten: the server has forgotten its scripts and functions.
        server_busy: the server refuses a request, because it is busy.
        server_slow: the server answers after up to a second.
        cancelled: the caller gives the call up before it has an answer.
        commit_late: a commit takes effect after its client has lost the connection.
        lock_lost: the database ends a transaction that waits or has just begun.
        held_back: the requests arrive after the client has given them up, before or after their repetition.
        copied_late: a copy of a request arrives once more, after its last moment and often after its answer.
    """

    refused: float = 0.0
    request_lost: float = 0.0
    request_late: float = 0.0
    reply_lost: float = 0.0
    reply_late: float = 0.0
    cut: float = 0.0
    doubled: float = 0.0
    scripts_forgotten: float = 0.0
    server_busy: float = 0.0
    server_slow: float = 0.0
    cancelled: float = 0.0
    commit_late: float = 0.0
    lock_lost: float = 0.0
    held_back: float = 0.0
    copied_late: float = 0.0

    @classmethod
    def draw(cls, random: Random, late_copies: Random, without: Collection[str] = ()) -> Faults:
        """Draw the rates of a seed.

        Args:
            random: decides about all rates but those of late copies.
            late_copies: decides about those, so that the rest of a seed does not depend on them.
            without: faults that do not happen.
        """
        rates = {one.name: random.choice(_RATES) for one in msgspec.structs.fields(cls) if one.name not in _LATE_COPIES}
        rates |= {name: late_copies.choice(_LATE_COPY_RATES) for name in _LATE_COPIES}
        if random.random() < 0.3:
            rates = dict.fromkeys(rates, 0.0)  # a calm seed is fast, and finds errors that no fault hides
        return cls(**{name: 0.0 if name in without else rate for name, rate in rates.items()})


NO_FAULTS: Final = Faults()


class FaultSource:
    """Decides about the faults of a run, and counts them.

    Attributes:
        fired: how often each fault has happened.
        random: decides.
        happens: decides whether a fault happens now, and counts it.
    """

    __slots__ = ("_positive", "fired", "happens", "random")

    def __init__(self, random: Random, rates: Faults = NO_FAULTS) -> None:
        self.random = random
        self.fired: Counter[str] = Counter()
        self.set_rates(rates)

    def set_rates(self, rates: Faults) -> None:
        """Set the rates, which may be done at any time."""
        self._positive = {name: rate for name, rate in msgspec.structs.asdict(rates).items() if rate}
        # Without faults, no function of Python runs: a set without members contains none of them.
        self.happens: Callable[[str], bool] = self._happens if self._positive else frozenset[str]().__contains__

    def _happens(self, fault: str) -> bool:
        positive = self._positive
        if fault not in positive or self.random.random() >= positive[fault]:
            return False
        self.fired[fault] += 1
        return True


def usual_delay_ms(random: Random) -> float:
    """Draw the delay of a request or a reply without a fault."""
    return 0.1 + (_USUAL_MS_MAX - 0.1) * random.random()


def held_delay_ms(random: Random, timeout_ms: int) -> float:
    """Draw the delay of a request that arrives after its client has waited ``timeout_ms`` for the reply in vain."""
    return timeout_ms + (LATE_MS_MAX - timeout_ms) * random.random() ** 2


def late_delay_ms(random: Random) -> float:
    """Draw the delay of a late request or reply: short and long ones are equally likely on a logarithmic scale."""
    return float(_USUAL_MS_MAX * (LATE_MS_MAX / _USUAL_MS_MAX) ** random.random())
