"""Observers: what is done with what the engine notices."""

from __future__ import annotations

__all__ = ["DecisionCounter"]

import threading
from collections import Counter
from typing import Final

from quota_engine.admission.policy import DecisionRecord

ROWS_MAX: Final = 10_000


class DecisionCounter:
    """Counts verdicts: how often each policy said what, for which reason, and whether it counted or was in shadow.

    Enough to decide whether a policy in shadow can be let loose. Safe to share between threads and engines. It keeps
    10,000 different rows and counts the rest in one, ``("", "", "other", True)``.
    """

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, str, bool]] = Counter()
        self._lock = threading.Lock()

    def on_decision(self, office: str, record: DecisionRecord) -> None:
        """See :meth:`quota_engine.ports.Observer.on_decision`."""
        row = record.policy, str(record.decision.kind), record.decision.reason, record.enforced
        with self._lock:
            if row not in self._counts and len(self._counts) >= ROWS_MAX:
                row = "", "", "other", True
            self._counts[row] += 1

    def counts(self) -> dict[tuple[str, str, str, bool], int]:
        """How often, by policy, decision, reason and whether it was enforced; in that order."""
        with self._lock:
            return dict(sorted(self._counts.items()))
