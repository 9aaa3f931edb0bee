"""Summary of an audit for operators: its time, its extent and its findings."""

from __future__ import annotations

__all__ = ["AuditSummary"]

from typing import Any

import msgspec


class AuditSummary(msgspec.Struct, frozen=True):
    """Result of an audit.

    Attributes:
        at_ms: The time at which the audit began, in milliseconds since 1970 (UTC).
        offices: The number of offices that were audited.
        findings: One sentence for each discrepancy. Empty if the audit found none.
    """

    at_ms: int
    offices: int
    findings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """True if the audit found no discrepancy."""
        return not self.findings

    def to_builtins(self) -> dict[str, Any]:
        """Return the summary as a dictionary for JSON."""
        return {"ok": self.ok, "at_ms": self.at_ms, "offices": self.offices, "findings": list(self.findings)}
