"""Random numbers of the simulator: one seeded stream per purpose, and tables for what is drawn per request."""

from __future__ import annotations

__all__ = ["SEED_PREFIX", "TABLE_BITS", "lognormal_table", "stream"]

import functools
import math
import random
import statistics
from collections.abc import Sequence
from typing import Final

SEED_PREFIX: Final = "quota_engine.sim"
"""Begins every seed text. It is part of the results: a change of it changes every seeded run."""

TABLE_BITS: Final = 13
"""A table of draws has ``2 ** TABLE_BITS`` entries: an index is ``getrandbits(TABLE_BITS)``."""


def stream(seed: int, purpose: str) -> random.Random:
    """A generator of its own for one purpose, so that a change of one model does not shift the draws of another.

    A string seeds ``random.Random`` through SHA-512: the stream does not depend on ``PYTHONHASHSEED``.
    """
    return random.Random(f"{SEED_PREFIX}/{seed}/{purpose}")


@functools.lru_cache(maxsize=64)
def lognormal_table(median: int, sigma: float) -> Sequence[int]:
    """The quantiles of a lognormal distribution in the middle of 8,192 equal shares; drawing one is an index.

    ``median`` is in any unit, and so are the entries. A draw costs a tenth of ``lognormvariate``; the price is that
    nothing beyond the quantile 1 - 1/16,384 is ever drawn. Tables are kept: the same ones are needed again and
    again.
    """
    entries = 2**TABLE_BITS
    normal = statistics.NormalDist()
    return tuple(round(median * math.exp(sigma * normal.inv_cdf((index + 0.5) / entries))) for index in range(entries))
