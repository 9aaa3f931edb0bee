"""The assertion of conservation after every event. It is off by default."""

from __future__ import annotations

__all__ = ["set_invariant_checks"]

from collections.abc import Callable
from typing import Any, Final

from quota_engine.domain.event_handlers import EVENT_HANDLERS
from quota_engine.domain.ledger import Ledger, Quota

_UNCHECKED_HANDLERS: Final = dict(EVENT_HANDLERS)


def set_invariant_checks(enabled: bool) -> None:
    """Turn the assertion of conservation after each event on or off, for the whole process. It is off by default.

    The tests of the domain and the conformance suite turn it on. The switch exchanges the event handlers, so that it
    costs nothing while it is off. While it is on, each event costs time in proportion to the days of the ledger.
    """
    for event_type, handler in _UNCHECKED_HANDLERS.items():
        EVENT_HANDLERS[event_type] = _checked(handler) if enabled else handler


def _checked(handler: Callable[[Ledger, Any], None]) -> Callable[[Ledger, Any], None]:
    def handle(ledger: Ledger, event: Any) -> None:
        handler(ledger, event)
        for day in ledger.days.values():
            for name, quota in day.quotas.items():
                if not _is_conserved(quota):
                    counters = {field: getattr(quota, field) for field in Quota.__slots__}
                    raise AssertionError(f"{ledger.office}, day {day.number}, quota {name}: {counters} after {event}")

    return handle


def _is_conserved(quota: Quota) -> bool:
    """Return True if no unit of the quota is missing, invented or counted twice."""
    return (
        quota.free == quota.capacity - quota.held - quota.confirmed - quota.cooling
        and quota.held >= 0
        and quota.confirmed >= 0
        and quota.cooling >= 0
        and quota.parked >= 0
        and quota.cooling == quota.parked + (sum(units for _, units in quota.cooling_due) if quota.cooling_due else 0)
    )
