"""Derive the domain's records from a catalog: an office's rules, a day's terms, a booking's choice.

All functions are pure. The same catalog and arguments give equal results, so that callers may cache them. A choice does
not depend on the day.
"""

from __future__ import annotations

__all__ = [
    "check_year",
    "choice_of",
    "day_terms",
    "extensions_left",
    "get_office",
    "last_day_to_publish",
    "next_release",
    "packed_places",
    "rules_of",
]

import datetime
import difflib
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from quota_engine.catalog.calendar import is_working_day, opens_at_ms, wall_time_ms
from quota_engine.catalog.resolved import Catalog, ResolvedOffice
from quota_engine.catalog.schema import Allotment, Guard, Session
from quota_engine.catalog.selection import Selection
from quota_engine.domain.errors import InvalidRequest, UnknownName
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import (
    Choice,
    DayTerms,
    GuardScope,
    QuotaTerms,
    Reallocation,
    Reservation,
    Rules,
    SessionTerms,
)
from quota_engine.domain.validation import TIME_MS_MAX, check_integer

_YEAR_MIN, _YEAR_MAX = 1972, 2098
"""In these years no schedule (up to 52 weeks ahead) and no retention (up to 10 years) exceeds the domain's times."""
_SEARCH_DAYS_MAX = 800
_MINUTE_MS = 60_000
_DIGITS_SHOWN_MAX = 8


def get_office(catalog: Catalog, office_id: str) -> ResolvedOffice:
    """Return the office of this id.

    Raises:
        UnknownName: the catalog has no such office.
    """
    office = catalog.offices.get(office_id)
    if office is None:
        raise _unknown("office", office_id, catalog.offices)
    return office


def extensions_left(catalog: Catalog, reservation: Reservation) -> int:
    """Return how often the catalog lets a hold be extended; 0 for other states, and for an office that has left."""
    office = catalog.offices.get(reservation.office)
    if office is None or reservation.state is not State.HELD:
        return 0
    return max(0, office.rules.extensions_max - reservation.extensions)


def rules_of(catalog: Catalog, office_id: str, *, jitter_seed: str = "") -> Rules:
    """Return the rules of an office.

    Args:
        catalog: the catalog.
        office_id: the office's id.
        jitter_seed: the seed of the cooling times' jitter, 1 to 64 characters of an id; ``""`` for none. It is secret
            and therefore not part of the file.

    Raises:
        UnknownName: the catalog has no such office.
    """
    rules = get_office(catalog, office_id).rules
    return msgspec.structs.replace(rules, jitter_seed=jitter_seed) if jitter_seed else rules


def day_terms(catalog: Catalog, office_id: str, day: datetime.date) -> DayTerms | None:
    """Return the terms of one office-day.

    The quotas are the guards followed by the allotments, in the order of the plan. The day opens by the release
    schedule, starts and ends with the office hours, and is forgotten ``retention_days`` after its end. Each session can
    be booked until its own time; one that a clock change skips cannot be booked.

    Returns:
        The terms, or ``None`` if the office does not work on that day, or a clock change skips all of its hours.

    Raises:
        UnknownName: the catalog has no such office.
        InvalidRequest: the day is before 1972 or after 2098.
    """
    office = get_office(catalog, office_id)
    check_year(day)
    if not _works_on(office, day):
        return None
    ends_at_ms = wall_time_ms(day, office.hours.end, office.zone)
    forget_on = day + datetime.timedelta(days=office.retention_days)
    return DayTerms(
        # A same-day schedule in another zone may open after the day's end. Such a day is valid and never open.
        opens_at_ms=min(opens_at_ms(office.schedule, office.zone, office.calendar, day), ends_at_ms),
        starts_at_ms=wall_time_ms(day, office.hours.start, office.zone),
        ends_at_ms=ends_at_ms,
        forget_at_ms=wall_time_ms(forget_on, office.hours.end, office.zone),
        quotas=(
            *(_guard_terms(office, quota) for quota in office.quotas),
            *(_allotment_terms(office, allotment, day) for allotment in office.allotments),
        ),
        sessions=tuple(_session_terms(office, session, day) for session in office.sessions.values()),
    )


def _session_terms(office: ResolvedOffice, session: Session, day: datetime.date) -> SessionTerms:
    """Return the terms of a session. The minutes before its start or end are elapsed time, also if clocks change."""
    starts_at_ms = wall_time_ms(day, session.start, office.zone)
    ends_at_ms = wall_time_ms(day, session.end, office.zone)
    settings, book_until_ms = session.book_until, ends_at_ms
    if starts_at_ms == ends_at_ms:  # a clock change skips the whole session
        book_until_ms = 0
    elif settings is not None and settings.before_start_min is not None:
        book_until_ms = starts_at_ms - settings.before_start_min * _MINUTE_MS
    elif settings is not None and settings.before_end_min is not None:
        book_until_ms = ends_at_ms - settings.before_end_min * _MINUTE_MS
    return SessionTerms(session.id, ends_at_ms, book_until_ms)


def check_year(day: datetime.date, where: str = "day") -> None:
    """Require a day of a year that catalogs can plan.

    Raises:
        InvalidRequest: the day is before 1972 or after 2098. The error names ``where``.
    """
    if not _YEAR_MIN <= day.year <= _YEAR_MAX:
        raise InvalidRequest(where, day.isoformat(), f"a day of the years {_YEAR_MIN} to {_YEAR_MAX}")


def _works_on(office: ResolvedOffice, day: datetime.date) -> bool:
    """Return True if the day is a working day and a clock change leaves something of its hours."""
    if not is_working_day(office.calendar, day):
        return False
    return wall_time_ms(day, office.hours.start, office.zone) != wall_time_ms(day, office.hours.end, office.zone)


def _guard_terms(office: ResolvedOffice, quota: Guard) -> QuotaTerms:
    scope = GuardScope(quota.service, quota.service_unit, quota.session)
    return QuotaTerms(quota.id, quota.capacity, office.re_releases[quota.id], None, scope, quota.renamed_from)


def _allotment_terms(office: ResolvedOffice, allotment: Allotment, day: datetime.date) -> QuotaTerms:
    return QuotaTerms(
        allotment.id,
        allotment.capacity,
        office.re_releases[allotment.id],
        _reallocation_of(office, allotment, day),
        None,
        allotment.renamed_from,
    )


def _reallocation_of(office: ResolvedOffice, allotment: Allotment, day: datetime.date) -> Reallocation | None:
    settings = allotment.reallocation
    if settings is None:
        return None
    if settings.at is None:
        schedule = office.schedules[settings.schedule]
        return Reallocation(settings.to, opens_at_ms(schedule, office.zone, office.calendar, day))
    date = day - datetime.timedelta(days=settings.days_before)
    return Reallocation(settings.to, wall_time_ms(date, settings.at, office.zone))


def next_release(catalog: Catalog, office_id: str, after_ms: int) -> tuple[int, tuple[datetime.date, ...]] | None:
    """Return the office's next release: its time, and the working days that it opens.

    Args:
        catalog: the catalog.
        office_id: the office's id.
        after_ms: milliseconds since 1970 (UTC). The release is later than this.

    Returns:
        The time in milliseconds since 1970 (UTC) and the days, or ``None`` if no day opens within 800 days.

    Raises:
        UnknownName: the catalog has no such office.
        InvalidRequest: the time is before 1972 or after 2098.
    """
    office = get_office(catalog, office_id)
    check_integer(after_ms, "after_ms", 0, TIME_MS_MAX)
    today = datetime.datetime.fromtimestamp(after_ms / 1_000, tz=office.zone).date()
    check_year(today, "after_ms")
    release_ms = 0
    days: list[datetime.date] = []
    # A same-day schedule in a zone far west of the office opens a day up to two dates after it.
    for days_ahead in range(-2, _SEARCH_DAYS_MAX):
        day = today + datetime.timedelta(days=days_ahead)
        if not _works_on(office, day):
            continue
        opening_ms = opens_at_ms(office.schedule, office.zone, office.calendar, day)
        if opening_ms <= after_ms:
            continue
        if days and opening_ms != release_ms:
            break
        release_ms = opening_ms
        days.append(day)
    return (release_ms, tuple(days)) if days else None


def last_day_to_publish(catalog: Catalog, office_id: str, now_ms: int, days: int) -> datetime.date:
    """Return the last day of an office that must be published now.

    A day that is published only after its release has opened appears without its waiting room, to those who are fastest
    at that moment. Therefore the result is never before the last day of the office's next release.

    Args:
        catalog: the catalog.
        office_id: the office's id.
        now_ms: milliseconds since 1970 (UTC).
        days: the days from the office's today, 1 or more, that are published in any case.

    Raises:
        UnknownName: the catalog has no such office.
        InvalidRequest: the time is before 1972 or after 2098.
    """
    zone = get_office(catalog, office_id).zone
    today = datetime.datetime.fromtimestamp(now_ms / 1_000, tz=zone).date()
    last_day = today + datetime.timedelta(days=days - 1)
    release = next_release(catalog, office_id, now_ms)
    return last_day if release is None else max(last_day, release[1][-1])


def choice_of(catalog: Catalog, office_id: str, selection: Selection) -> Choice:
    """Return the choice of a booking: the selection and the options that can serve it.

    Each option is one allotment that admits the booking, with all guards that match it. The first option has the first
    such allotment of the plan; its fallbacks follow. A service or a session may be ``""`` if the office has only one, a
    service unit unless a guard counts by unit.

    Args:
        catalog: the catalog.
        office_id: the office's id.
        selection: the selection of the booking.

    Raises:
        UnknownName: the catalog, or this office, has no such id. The error lists the known ones.
        InvalidRequest: an id is missing, or no allotment admits such a booking.
    """
    office = get_office(catalog, office_id)
    service, service_unit, session = selection.service, selection.service_unit, selection.session
    channel, group = selection.channel, selection.group
    _check_known("channel", channel, catalog.channels)
    if group:
        _check_known("group", group, catalog.groups)
    service = _given_or_only("service", service, office.services)
    if office.sessions and office.services[service].needs_session:
        session = _given_or_only("session", session, office.sessions)
    elif session:
        _check_known("session", session, office.sessions)
    if service_unit:
        _check_known("service_unit", service_unit, office.service_units)
    elif any(quota.service_unit for quota in office.quotas if quota.service in ("", service)):
        service_unit = _given_or_only("service_unit", service_unit, office.service_units)

    guards = tuple(quota.id for quota in office.quotas if _matches(quota, service, service_unit, session))
    admitting = [a for a in office.allotments if _admits(a, channel, group, service, session)]
    if office.allotments and not admitting:
        booking = f"channel {channel!r}, group {group or 'general public'!r}, service {service!r}"
        raise InvalidRequest("choice", f"no allotment of {office_id!r} admits {booking}", "a booking that one admits")
    if not admitting and not guards:
        raise InvalidRequest("choice", f"no quota of {office_id!r} covers it", "a booking that some quota covers")
    options = tuple((allotment, *guards) for allotment in _with_fallbacks(admitting)) or (guards,)
    return Choice(service, service_unit, session, channel, group, options)


def packed_places(options: Sequence[Sequence[str]], quotas: Mapping[str, int]) -> int:
    """Return how many parties of one applicant fit into the available units of a day.

    Args:
        options: a choice's options, filled in their order, as the engine does.
        quotas: the available units by quota name.
    """
    left = dict(quotas)
    places = 0
    for option in options:
        fits = min(left[name] for name in option)
        for name in option:
            left[name] -= fits
        places += fits
    return places


def _with_fallbacks(admitting: list[Allotment]) -> Iterable[str]:
    """Return the first allotment and then those of its fallbacks that admit the booking, in its order."""
    if not admitting:
        return ()
    admitted = {allotment.id for allotment in admitting}
    return (admitting[0].id, *(name for name in admitting[0].fallback if name in admitted))


def _admits(allotment: Allotment, channel: str, group: str, service: str, session: str) -> bool:
    return (
        allotment.bookable
        and (not allotment.channels or channel in allotment.channels)
        and (not allotment.groups or group in allotment.groups)
        and (not allotment.services or service in allotment.services)
        and (not allotment.sessions or session in allotment.sessions)
    )


def _matches(quota: Guard, service: str, service_unit: str, session: str) -> bool:
    return (
        quota.service in ("", service) and quota.service_unit in ("", service_unit) and quota.session in ("", session)
    )


def _given_or_only(where: str, given: str, known: Iterable[str]) -> str:
    names = list(known)
    if not given and len(names) == 1:
        return names[0]
    if not given:
        raise InvalidRequest(where, "missing", f"one of {_list_names(names)}")
    _check_known(where, given, names)
    return given


def _check_known(where: str, given: str, known: Iterable[str]) -> None:
    if given not in known:
        raise _unknown(where, given, known)


def _unknown(where: str, given: object, known: Iterable[str]) -> UnknownName:
    """Return an error that lists known names, at most 12 of them."""
    names = list(known)
    close = difflib.get_close_matches(str(given)[:64], names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    # A caller that confuses arguments may pass an identity as a name. An error must not print it.
    looks_private = sum(character.isdigit() for character in str(given)) >= _DIGITS_SHOWN_MAX
    shown = "name (hidden because it has many digits)" if looks_private else repr(str(given)[:64])
    return UnknownName(where, f"unknown {where.replace('_', ' ')} {shown}", f"one of {_list_names(names)}{hint}")


def _list_names(names: list[str], shown_max: int = 12) -> str:
    listed = ", ".join(names[:shown_max]) or "none"
    return f"{listed} and {len(names) - shown_max} more" if len(names) > shown_max else listed
