"""The number of random examples and seeds, by the profile of the run.

The environment variable ``HYPOTHESIS_PROFILE`` names the profile: ``gate`` (the default), ``thorough`` or ``long``. The
same seeds run in each gate, so more of them find little. ``make test-thorough`` runs more: see tests/README.md.
``QUOTA_ENGINE_SEEDS`` gives each test that uses :func:`seeds` another number.
"""

from __future__ import annotations

__all__ = ["PROFILE", "examples", "seeds"]

import os
from typing import Final

PROFILE: Final = os.environ.get("HYPOTHESIS_PROFILE", "gate")
LONG_EXAMPLES: Final = 5_000


def examples(gate: int, thorough: int) -> int:
    """Return the number of examples of a Hypothesis test.

    Args:
        gate: the number in the gate.
        thorough: the number in ``make test-thorough``.
    """
    return {"gate": gate, "thorough": thorough}.get(PROFILE, LONG_EXAMPLES)


def seeds(gate: int, thorough: int) -> range:
    """Return the seeds of a test.

    Args:
        gate: their number in the gate.
        thorough: their number in ``make test-thorough`` and in long campaigns without ``QUOTA_ENGINE_SEEDS``.
    """
    return range(int(os.environ.get("QUOTA_ENGINE_SEEDS", "0")) or (gate if PROFILE == "gate" else thorough))
