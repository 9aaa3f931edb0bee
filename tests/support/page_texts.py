"""Texts that the pages show, for assertions."""

from __future__ import annotations

__all__ = ["citizen_text", "operator_text"]

from quota_engine.service.pages.i18n import CITIZEN_TEXTS, OPERATOR_TEXTS, Translator


def citizen_text(key: str, language: str = "id", **gaps: object) -> str:
    """Return a text of the citizens' pages."""
    return Translator(language, CITIZEN_TEXTS)(key, **gaps)


def operator_text(key: str, language: str = "id", **gaps: object) -> str:
    """Return a text of the operators' pages."""
    return Translator(language, OPERATOR_TEXTS)(key, **gaps)
