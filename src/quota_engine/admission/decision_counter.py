"""Observer that counts the decisions of policies."""

from __future__ import annotations

__all__ = ["DecisionCounter"]

import threading
from collections import Counter
from typing import Final

from quota_engine.admission.policy import DecisionRecord
from quota_engine.forks import call_in_child

ROWS_MAX: Final = 10_000


class DecisionCounter:
    """Counts decisions by policy, kind, reason and enforcement.

    The counts show what a policy in shadow mode would refuse, before it is enforced. Threads and engines can share one
    counter. It keeps 10,000 different rows, and counts the rest as ``("", "", "other", True)``.
    """

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, str, bool]] = Counter()
        self._lock = threading.Lock()
        call_in_child(self._after_fork)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()

    def on_decision(self, office: str, record: DecisionRecord) -> None:
        """Count a decision. See :meth:`quota_engine.ports.Observer.on_decision`."""
        row = record.policy, str(record.decision.kind), record.decision.reason, record.enforced
        with self._lock:
            if row not in self._counts and len(self._counts) >= ROWS_MAX:
                row = "", "", "other", True
            self._counts[row] += 1

    def counts(self) -> dict[tuple[str, str, str, bool], int]:
        """Return the count of each combination of policy, kind, reason and enforcement, sorted."""
        with self._lock:
            return dict(sorted(self._counts.items()))
