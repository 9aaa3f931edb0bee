"""Days for tests in which a command or a service reads a store by the real time."""

from __future__ import annotations

__all__ = ["coming_monday"]

import datetime

from quota_engine.catalog import day_terms, load_catalog


def coming_monday() -> datetime.date:
    """Return the Monday of a week without holidays, at least a week ahead.

    The week has not opened yet, so by the real time no hold of its opening has expired, and nothing is forgotten.
    """
    today, catalog = datetime.datetime.now(datetime.UTC).date(), load_catalog("surabaya")
    monday = today + datetime.timedelta(days=14 - today.weekday())
    while any(day_terms(catalog, "surabaya", monday + datetime.timedelta(days=ahead)) is None for ahead in range(5)):
        monday += datetime.timedelta(days=7)
    return monday
