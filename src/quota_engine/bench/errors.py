"""Errors of a measurement."""

from __future__ import annotations

__all__ = ["WrongOutcome"]

from quota_engine.domain.errors import QuotaEngineError


class WrongOutcome(QuotaEngineError):
    """A measurement had a wrong effect, so its speed means nothing."""
