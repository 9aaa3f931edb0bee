"""How the engine's arguments are written in addresses, queries and bodies."""

from __future__ import annotations

__all__ = ["day_text", "given", "of_day", "of_office", "party_of", "wanted_of"]

import datetime
from collections.abc import Iterable, Sequence

from quota_engine.client.call_protocol import segment
from quota_engine.domain.errors import InvalidRequest
from quota_engine.workflows.arguments import Day, day_number


def day_text(day: Day) -> str:
    """A day as an ISO date. Raises as the engine does for what is no day."""
    return datetime.date.fromordinal(day_number(day)).isoformat()


def given(text: str | None, where: str) -> str:
    """What may be left out, which a service takes ``""`` for. Somebody who gives ``""`` means something, though.

    Raises:
        InvalidRequest: it is empty, and not left out.
    """
    if text == "":
        raise InvalidRequest(where, "empty", "a text, or nothing at all")
    return text or ""


def of_office(office: str, rest: str) -> str:
    """An address of an office."""
    return f"/v1/offices/{segment(office, 'office')}/{rest}"


def of_day(office: str, day: Day, rest: str) -> str:
    """An address of an office-day."""
    return of_office(office, f"days/{day_text(day)}/{rest}")


def party_of(applicants: str | Sequence[str]) -> object:
    """One identity, or a party of several, as a list."""
    if isinstance(applicants, str) or not isinstance(applicants, Iterable):
        return [applicants]
    return list(applicants)


def wanted_of(service: str, service_unit: str, session: str, channel: str, group: str) -> dict[str, object]:
    """What is asked for."""
    return {
        "service": service, "service_unit": service_unit, "session": session, "channel": channel, "group": group,
    }  # fmt: skip
