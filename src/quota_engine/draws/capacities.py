"""Capacities of a draw from the days of a catalog."""

from __future__ import annotations

__all__ = ["DAYS_MAX", "capacities_of_catalog"]

import datetime
from collections.abc import Iterator, Sequence
from typing import Final

from quota_engine.catalog import Catalog, ResolvedOffice, Selection, choice_of, day_terms, get_office
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.model import Choice
from quota_engine.domain.validation import is_name
from quota_engine.draws.lottery import Capacities, Preference

DAYS_MAX: Final = 400


def capacities_of_catalog(
    catalog: Catalog,
    draw: str,
    first_day: datetime.date,
    last_day: datetime.date,
    *,
    offices: Sequence[str] = (),
    channel: str = "online",
    groups: Sequence[str] = ("",),
) -> Capacities:
    """Return the quotas that bookings by a channel can use, and a choice for each such booking.

    The name of a choice consists of the office, the day and the words that distinguish it, such as
    ``surabaya-2026-12-07-renewal-morning``. A group without an allotment of a service has no choice of it.

    Args:
        catalog: The catalog.
        draw: Id of the draw.
        first_day: First day of the draw.
        last_day: Last day of the draw. At most 400 days.
        offices: Ids of the offices. Empty: all offices.
        channel: Channel of the bookings.
        groups: Applicant groups of the bookings. ``""``: applicants of no group.

    Raises:
        UnknownName: The catalog has no such office, channel or group.
        InvalidRequest: There are no or too many days, or no office works on any of them.
    """
    day_count = (last_day - first_day).days + 1
    if not 1 <= day_count <= DAYS_MAX:
        raise InvalidRequest("first_day, last_day", f"{day_count} days", f"1 to {DAYS_MAX}, first to last")
    units: dict[tuple[str, int], dict[str, int]] = {}
    preferences: dict[str, Preference] = {}
    for office_id in offices or catalog.offices:
        office = get_office(catalog, office_id)
        choices = list(_choices(catalog, office, channel, groups))
        used = {quota for _, choice in choices for option in choice.options for quota in option}
        for offset in range(day_count):
            day = first_day + datetime.timedelta(days=offset)
            terms = day_terms(catalog, office_id, day)
            if terms is None or not choices:
                continue
            units[office_id, day.toordinal()] = {
                quota.name: quota.capacity for quota in terms.quotas if quota.name in used
            }
            for words, choice in choices:
                name = "-".join((office_id, day.isoformat(), *words))
                if is_name(name) is None or name in preferences:
                    name = f"choice-{len(preferences) + 1}"
                preferences[name] = Preference(office_id, day.toordinal(), choice)
    if not preferences:
        raise InvalidRequest("catalog", "no office works on these days", "days on which an office works")
    return Capacities(draw, units, preferences)


def _choices(
    catalog: Catalog, office: ResolvedOffice, channel: str, groups: Sequence[str]
) -> Iterator[tuple[tuple[str, ...], Choice]]:
    """Yield the choices at an office on any day, each with the words that distinguish it."""
    several = len(office.services) > 1
    for service, settings in office.services.items():
        sessions = list(office.sessions) if settings.needs_session else [""]
        for session in sessions or [""]:
            for group in groups:
                words = tuple(word for word in (service if several else "", session, group) if word)
                try:
                    choice = choice_of(
                        catalog, office.id, Selection(service=service, session=session, channel=channel, group=group)
                    )
                except InvalidRequest as error:
                    if error.where != "choice":  # an unknown name; a group without an allotment is no error
                        raise
                else:
                    yield words, choice
