"""Write the engine's arguments into paths, queries and bodies."""

from __future__ import annotations

__all__ = ["day_path", "day_text", "office_path", "optional_text", "party_list", "selection_fields"]

import datetime
from collections.abc import Iterable, Sequence

from quota_engine.client.call_protocol import segment
from quota_engine.domain.errors import InvalidRequest
from quota_engine.workflows.arguments import Day, day_number


def day_text(day: Day) -> str:
    """Return a day as an ISO date.

    Raises:
        InvalidRequest: no such date exists.
    """
    return datetime.date.fromordinal(day_number(day)).isoformat()


def optional_text(text: str | None, where: str) -> str:
    """Return ``""`` for an omitted text. A service takes ``""`` for an omitted one.

    Raises:
        InvalidRequest: the text is given, but empty.
    """
    if text == "":
        raise InvalidRequest(where, "empty", "a text, or nothing at all")
    return text or ""


def office_path(office: str, rest: str) -> str:
    """Return a path below an office."""
    return f"/v1/offices/{segment(office, 'office')}/{rest}"


def day_path(office: str, day: Day, rest: str) -> str:
    """Return a path below an office-day."""
    return office_path(office, f"days/{day_text(day)}/{rest}")


def party_list(applicants: str | Sequence[str]) -> object:
    """Return one identity, or a party of several, as a list. The service checks its items."""
    if isinstance(applicants, str) or not isinstance(applicants, Iterable):
        return [applicants]
    return list(applicants)


def selection_fields(service: str, service_unit: str, session: str, channel: str, group: str) -> dict[str, object]:
    """Return the fields of a selection."""
    return {
        "service": service, "service_unit": service_unit, "session": session, "channel": channel, "group": group,
    }  # fmt: skip
