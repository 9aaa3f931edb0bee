"""Latency between applicants and servers."""

from __future__ import annotations

__all__ = ["LatencyTables"]

from collections.abc import Sequence

from quota_engine.simulation.rng import lognormal_table, stream
from quota_engine.simulation.scenario import Network
from quota_engine.simulation.supply import Supply


class LatencyTables:
    """One-way latencies by office-day: those of its province, else of its time zone, else of region ``*``.

    Draw the latency of one request or answer, in microseconds, with ``tables[office_day][bits(TABLE_BITS)]``.
    """

    def __init__(self, networks: Sequence[Network], supply: Supply, seed: int) -> None:
        by_region = {
            network.region: lognormal_table(round(network.one_way_ms_median * 1000), network.sigma)
            for network in (Network(), *networks)
        }
        self.tables = [
            by_region.get(each.province) or by_region.get(each.time_zone) or by_region["*"]
            for each in supply.office_days
        ]
        self.bits = stream(seed, "network").getrandbits
