"""The way between applicants and servers."""

from __future__ import annotations

__all__ = ["Latencies"]

from collections.abc import Sequence

from quota_engine.simulation.rng import lognormal_table, stream
from quota_engine.simulation.scenario import Network
from quota_engine.simulation.supply import Market


class Latencies:
    """One-way latencies by office-day: its province's, else its time zone's, else everywhere else's.

    One way of one request or answer, in microseconds, is ``tables[office_day][bits(TABLE_BITS)]``.
    """

    def __init__(self, networks: Sequence[Network], market: Market, seed: int) -> None:
        by_region = {
            network.region: lognormal_table(round(network.one_way_ms_median * 1000), network.sigma)
            for network in (Network(), *networks)
        }
        self.tables = [
            by_region.get(each.province) or by_region.get(each.time_zone) or by_region["*"]
            for each in market.office_days
        ]
        self.bits = stream(seed, "network").getrandbits
