"""The faults of a simulated network. Each seed has its own rates, so that some seeds are calm and others hard."""

from __future__ import annotations

__all__ = ["LATE_MS_MAX", "Faults"]

from random import Random
from typing import Final

import msgspec

LATE_MS_MAX: Final = 6_000
"""The longest delay of a request or a reply: longer than a client waits, and than an attempt is valid."""
_USUAL_MS_MAX: Final = 4
_RATES: Final = (0.0, 0.03, 0.1, 0.3)


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
        scripts_forgotten: the server has forgotten its scripts.
        cancelled: the caller gives the call up before it has an answer.
    """

    refused: float
    request_lost: float
    request_late: float
    reply_lost: float
    reply_late: float
    cut: float
    doubled: float
    scripts_forgotten: float
    cancelled: float

    @classmethod
    def draw(cls, random: Random) -> Faults:
        """Draw the rates of a seed."""
        return cls(*(random.choice(_RATES) for _ in msgspec.structs.fields(cls)))


def usual_delay_ms(random: Random) -> float:
    """Draw the delay of a request or a reply without a fault."""
    return random.uniform(0.1, _USUAL_MS_MAX)


def late_delay_ms(random: Random) -> float:
    """Draw the delay of a late request or reply: short and long ones are equally likely on a logarithmic scale."""
    return float(_USUAL_MS_MAX * (LATE_MS_MAX / _USUAL_MS_MAX) ** random.random())
