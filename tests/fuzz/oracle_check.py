"""The oracle of the rules beside every command of an office: a step check of the simulation."""

from __future__ import annotations

__all__ = ["OracleCheck"]

from typing import Any

from quota_engine.admission.guarded_command import GuardedCommand
from quota_engine.ledger_kinds import OFFICE, kind_of
from tests.support.oracle import Oracle


class OracleCheck:
    """Applies each command of an office to an oracle as well. It stops at the first guarded command, or failover."""

    def __init__(self) -> None:
        self._oracles: dict[str, Oracle | None] = {}

    def __call__(self, address: str, command: Any, now_ms: int, outcome: Any) -> str:
        """Return the differences of an outcome from what the rules say, or ``""``."""
        if kind_of(address) is not OFFICE:
            return ""
        oracle = self._oracles.setdefault(address, Oracle(address))
        if oracle is None:
            return ""
        if isinstance(command, GuardedCommand):
            self._oracles[address] = None
            return ""
        difference = oracle.apply(command, now_ms).difference_from(outcome)
        if difference:
            self._oracles[address] = None
        return difference
