"""Read access to a store without its catalog or key, for ``status``, ``audit`` and ``watch``."""

from __future__ import annotations

__all__ = ["STORE_VARIABLE", "OfficeIds", "day_ordinals", "open_store", "select_offices"]

import contextlib
import datetime
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.validation import check_integer

if TYPE_CHECKING:
    from quota_engine.ports import Store

STORE_VARIABLE: Final = "QUOTA_ENGINE_BACKEND"
"""Environment variable with the URL of the store, which keeps its password off the command line."""

_DAYS_MAX: Final = 400
_NAMES_SHOWN: Final = 12

OfficeIds = tuple[str, ...]
"""Type of the option ``--office``; empty selects all offices."""


@contextlib.contextmanager
def open_store(url: str) -> Iterator[Store]:
    """Open a store, and close it at the end.

    Args:
        url: URL of the store; ``""`` takes it from :data:`STORE_VARIABLE`.

    Raises:
        InvalidRequest: There is no URL, or no backend serves it.
        BackendUnavailable: The store cannot be reached.
    """
    url = url or os.environ.get(STORE_VARIABLE, "")
    if not url:
        raise InvalidRequest("BACKEND", "missing", f"the URL of a store, here or in {STORE_VARIABLE}")
    from quota_engine.engine.store_discovery import store_factory  # it imports the engine, which no help needs

    store = store_factory(url).open_store(url, None)
    try:
        yield store
    finally:
        store.close()


def day_ordinals(first_day: str, days: int) -> tuple[int, ...]:
    """Return the ordinals of ``days`` days (1 to 400) from an ISO date on; ``""`` is today (UTC).

    Raises:
        InvalidRequest: The date is invalid, or the number out of range.
    """
    check_integer(days, "--days", 1, _DAYS_MAX)
    try:
        first = datetime.date.fromisoformat(first_day) if first_day else datetime.datetime.now(datetime.UTC).date()
    except ValueError:
        raise InvalidRequest("--first-day", "not a date", "an ISO date such as 2026-12-01") from None
    return tuple(range(first.toordinal(), first.toordinal() + days))


def select_offices(store: Store, wanted: OfficeIds) -> list[str]:
    """Return the offices that the store has a ledger of, or those of them that are wanted.

    Raises:
        InvalidRequest: The store has no such office.
    """
    from quota_engine.ports import ListOffices

    known = store.execute(ListOffices())
    for name in wanted:
        if name not in known:
            expected = f"one of {', '.join(known[:_NAMES_SHOWN])}" if known else "an office; the store has none"
            raise InvalidRequest("--office", repr(name[:64]), expected)
    return [name for name in known if not wanted or name in wanted]
