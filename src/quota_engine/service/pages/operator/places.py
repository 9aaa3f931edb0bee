"""Places on the coming days that a booking could take, for forms of operators."""

from __future__ import annotations

__all__ = ["FreePlaces", "list_places", "read_place"]

import datetime
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from quota_engine.catalog import Catalog, ResolvedOffice, Selection, choice_of, packed_places
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.outcomes import DayView


class FreePlaces(NamedTuple):
    """A day and a session with their available places.

    Attributes:
        day: Date of the day.
        session: Id of the session, or ``""`` for the whole day.
        places: Single applicants who can get a place now.
    """

    day: datetime.date
    session: str
    places: int

    @property
    def value(self) -> str:
        """Value of a form field: ``2026-12-07~morning``."""
        return f"{self.day.isoformat()}~{self.session}"


def list_places(
    catalog: Catalog, office: ResolvedOffice, selection: Selection, views: Iterable[DayView], now_ms: int
) -> list[FreePlaces]:
    """Return the days and sessions that can be booked now, also those that are full, by day.

    Args:
        catalog: Catalog of the service.
        office: Office of the days.
        selection: Choice of the booking. Each session of the office replaces its session, if the service needs one.
        views: Days of the office.
        now_ms: Current time in milliseconds since 1970 (UTC).
    """
    service = office.services.get(selection.service)
    needs_session = bool(office.sessions) and (service is None or service.needs_session)
    found: list[FreePlaces] = []
    for view in views:
        for session in office.sessions if needs_session else ("",):
            if not view.can_be_booked(session, now_ms):
                continue
            try:
                choice = choice_of(catalog, office.id, msgspec.structs.replace(selection, session=session))
            except InvalidRequest:
                continue
            needed = {name for option in choice.options for name in option}
            if needed <= view.quotas.keys():
                places = packed_places(choice.options, {name: view.quotas[name].bookable for name in needed})
                found.append(FreePlaces(datetime.date.fromordinal(view.day), session, places))
    return found


def read_place(value: str) -> tuple[str, str]:
    """Return the day and the session of a form field. Both are checked by the engine."""
    day, _, session = value.partition("~")
    return day, session
