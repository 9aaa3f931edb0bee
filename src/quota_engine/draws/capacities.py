"""What a catalog offers on some days, as the capacities of a draw."""

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
    """All units of the quotas that bookings by this channel can use, and a choice for each such booking.

    Choices are named by office, day and what else tells them apart: ``surabaya-2026-12-07-renewal-morning``.
    ``offices`` empty means all. Whom an allotment does not admit has no choice of it.

    Raises:
        UnknownName: an office, the channel or a group is not in the catalog.
        InvalidRequest: no days, or more than :data:`DAYS_MAX`; or nothing is offered.
    """
    days = (last_day - first_day).days + 1
    if not 1 <= days <= DAYS_MAX:
        raise InvalidRequest("first_day, last_day", f"{days} days", f"1 to {DAYS_MAX}, first to last")
    units: dict[tuple[str, int], dict[str, int]] = {}
    wishes: dict[str, Preference] = {}
    for name in offices or catalog.offices:
        office = get_office(catalog, name)
        choices = list(_choices(catalog, office, channel, groups))
        used = {quota for _, choice in choices for option in choice.options for quota in option}
        for offset in range(days):
            day = first_day + datetime.timedelta(days=offset)
            terms = day_terms(catalog, name, day)
            if terms is None or not choices:
                continue
            units[name, day.toordinal()] = {quota.name: quota.capacity for quota in terms.quotas if quota.name in used}
            for words, choice in choices:
                title = "-".join((name, day.isoformat(), *words))
                if is_name(title) is None or title in wishes:
                    title = f"choice-{len(wishes) + 1}"
                wishes[title] = Preference(name, day.toordinal(), choice)
    if not wishes:
        raise InvalidRequest("catalog", "nothing is offered on these days", "days on which an office works")
    return Capacities(draw, units, wishes)


def _choices(
    catalog: Catalog, office: ResolvedOffice, channel: str, groups: Sequence[str]
) -> Iterator[tuple[tuple[str, ...], Choice]]:
    """What can be asked of an office on any day, with the words that tell one choice from the other."""
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
                    if error.where != "choice":  # an unknown name; a booking that no allotment admits is no mistake
                        raise
                else:
                    yield words, choice
