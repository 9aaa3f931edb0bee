"""The earliest day on which a booking is possible, from the counters of days."""

from __future__ import annotations

__all__ = ["earliest_available_day"]

import datetime
from collections.abc import Sequence

from quota_engine.catalog.planning import choice_of, get_office
from quota_engine.catalog.resolved import Catalog
from quota_engine.catalog.selection import Selection
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.outcomes import DayView


def earliest_available_day(
    catalog: Catalog,
    office: str,
    days: Sequence[DayView],
    *,
    now_ms: int,
    units: int = 1,
    service: str = "",
    service_unit: str = "",
    session: str = "",
    channel: str = "online",
    group: str = "",
) -> datetime.date | None:
    """Return the first day on which a reserve could succeed now.

    The day must be open for booking and not closed, the session not over, and all quotas of an option must have enough
    available units. Without any id except the channel ``online``, any quota with enough units is sufficient, even if
    the office has several services.

    Args:
        catalog: the catalog.
        office: the office's id.
        days: the days' counters, in the order of the search.
        now_ms: milliseconds since 1970 (UTC).
        units: units to reserve, 1 or more.
        service, service_unit, session, channel, group: the selection, as in
            :class:`~quota_engine.catalog.selection.Selection`.

    Returns:
        The day, or ``None`` if there is none.

    Raises:
        UnknownName: the catalog has no such office or id.
        InvalidRequest: the office has no allotment for this selection.
    """
    get_office(catalog, office)
    options: list[tuple[str, ...]]
    booked_session = ""
    try:
        choice = choice_of(
            catalog,
            office,
            Selection(service=service, service_unit=service_unit, session=session, channel=channel, group=group),
        )
        options, booked_session = list(choice.options), choice.session
    except InvalidRequest:
        if service or service_unit or session or group or channel != "online":
            raise
        options = [(name,) for name in dict.fromkeys(name for view in days for name in view.quotas)]
    for view in days:
        if not view.can_be_booked(booked_session, now_ms):
            continue
        for option in options:
            if all(name in view.quotas and view.quotas[name].bookable >= units for name in option):
                return datetime.date.fromordinal(view.day)
    return None
