"""Summaries of audits."""

from __future__ import annotations

from quota_engine.domain.audit_summary import AuditSummary


def test_audit_without_findings_is_ok() -> None:
    assert AuditSummary(5, 1, ()).to_builtins() == {"ok": True, "at_ms": 5, "offices": 1, "findings": []}


def test_audit_with_findings_is_not_ok() -> None:
    assert not AuditSummary(5, 1, ("a unit is missing",)).ok
