"""The lines and the JSON of ``quota-engine catalog diff``."""

from __future__ import annotations

__all__ = ["diff_lines", "diff_to_builtins"]

import dataclasses
import datetime
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from quota_engine.catalog import OfficeChanges
from quota_engine.workflows.catalog_changes import OfficeImpact

_DAYS_SHOWN_MAX = 8


def diff_to_builtins(changes: OfficeChanges, impact: OfficeImpact | None) -> dict[str, Any]:
    """Return one office for JSON. ``people`` is null without a store, or if the store has no such office."""
    fields = dataclasses.asdict(changes)
    for name in ("days_closed", "days_opened", "days_retimed"):
        fields[name] = [str(day) for day in fields[name]]
    fields["capacities"] = {name: {"old": old, "new": new} for name, (old, new) in changes.capacities.items()}
    fields["people"] = None
    if impact is not None:
        fields["people"] = {
            "affected": impact.people,
            "days_published": impact.days,
            "days_closed": {str(datetime.date.fromordinal(day)): people for day, people in impact.closed.items()},
            "days_retimed": impact.retimed,
            "quotas": dict(impact.quotas),
            "guards": dict(impact.guards),
            "overbooked": impact.overbooked,
            "services": dict(impact.services),
            "sessions": dict(impact.sessions),
        }
    return fields


def diff_lines(changes: OfficeChanges, impact: OfficeImpact | None) -> Iterator[str]:
    """Yield the lines about one office: its id with the people affected, and one indented line for each change."""
    yield changes.office if impact is None else f"{changes.office}: {_people(impact.people)} affected"
    if changes.is_new:
        yield "  the office is new"
    if changes.is_gone:
        yield "  the office is gone: its days stay as they are, and no service offers them"
    closed: Mapping[int, int] = {day.toordinal(): 0 for day in changes.days_closed}
    if impact is not None:
        # A day may be closed already, or never have been published.
        closed = impact.closed
        unpublished = sum(day.toordinal() not in closed for day in changes.days_closed)
        if unpublished:
            yield f"  days off that are closed already or not published: {unpublished}"
    for day, people in closed.items():
        date = datetime.date.fromordinal(day)
        yield f"  closes {date}" if impact is None else f"  closes {date}: {_people(people)}"
    if changes.days_opened:
        yield f"  new working days: {_days(changes.days_opened)}; a day that is closed stays closed"
    if changes.days_retimed:
        people_text = "" if impact is None else f": {_people(impact.retimed)}"
        yield f"  other opening, start or end: {_days(changes.days_retimed)}{people_text}"
    for quota in changes.quotas_removed:
        yield _line(f"quota {quota} vanishes", quota, impact.quotas if impact else None)
        if impact is not None and impact.quotas.get(quota):
            yield "    their days refuse the new catalog, until they have gone or another quota has renamed_from"
    for old_name, name in changes.quotas_renamed.items():
        yield f"  quota {old_name} is renamed to {name}, with its people"
    for quota, units in changes.quotas_added.items():
        text = f"quota {quota} appears with {units:,} places a day"
        counted = impact.guards.get(quota, 0) if impact is not None else 0
        yield f"  {text} and counts {_people(counted)} who booked before" if counted else f"  {text}"
    if impact is not None and impact.overbooked:
        yield f"  published days are overbooked by {impact.overbooked:,}"
    for quota, (old, new) in changes.capacities.items():
        yield f"  quota {quota} has {new:,} places instead of {old:,}; published days keep theirs"
    for service in changes.services_removed:
        yield _line(f"service {service} is no longer offered", service, impact.services if impact else None)
    for session in changes.sessions_removed:
        yield _line(f"session {session} vanishes", session, impact.sessions if impact else None)
    for session in changes.sessions_retimed:
        yield _line(f"session {session} has other times", session, impact.sessions if impact else None)


def _line(text: str, name: str, people: Mapping[str, int] | None) -> str:
    return f"  {text}" if people is None else f"  {text}: {_people(people.get(name, 0))}"


def _people(count: int) -> str:
    return f"{count:,} {'person' if count == 1 else 'people'}"


def _days(days: Sequence[datetime.date]) -> str:
    shown = ", ".join(map(str, days[:_DAYS_SHOWN_MAX]))
    return f"{shown} and {len(days) - _DAYS_SHOWN_MAX} more" if len(days) > _DAYS_SHOWN_MAX else shown
