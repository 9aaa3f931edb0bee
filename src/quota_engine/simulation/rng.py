"""Random numbers of the simulator: one seeded stream for each purpose, and tables of quantiles for frequent draws."""

from __future__ import annotations

__all__ = ["SEED_PREFIX", "TABLE_BITS", "lognormal_table", "stream"]

import functools
import math
import random
import statistics
from collections.abc import Sequence
from typing import Final

SEED_PREFIX: Final = ".".join(("quota_engine", "sim"))
"""Begins every seed text. It keeps the former name of this package, because a change would change every seeded run."""

TABLE_BITS: Final = 13
"""A table has ``2 ** TABLE_BITS`` entries, so ``getrandbits(TABLE_BITS)`` is an index."""


def stream(seed: int, purpose: str) -> random.Random:
    """Return a generator for one purpose, so that a change of one model does not shift the draws of another.

    A string seeds ``random.Random`` through SHA-512, so the stream does not depend on ``PYTHONHASHSEED``. Purposes are
    part of the results, like :data:`SEED_PREFIX`.
    """
    return random.Random(f"{SEED_PREFIX}/{seed}/{purpose}")


@functools.lru_cache(maxsize=64)
def lognormal_table(median: int, sigma: float) -> Sequence[int]:
    """Return the quantiles of a lognormal distribution in the middle of 8,192 equal shares. An index draws one.

    A draw costs a tenth of ``lognormvariate``. In exchange, nothing beyond the quantile 1 - 1/16,384 is ever drawn.
    Tables are cached, because runs use the same ones again and again.

    Args:
        median: Median in any unit. The entries have the same unit.
        sigma: Standard deviation of the logarithm.
    """
    entries = 2**TABLE_BITS
    normal = statistics.NormalDist()
    return tuple(round(median * math.exp(sigma * normal.inv_cdf((index + 0.5) / entries))) for index in range(entries))
