"""Find a reservation by queue number, code or reference, and name its session and service."""

from __future__ import annotations

__all__ = [
    "SEARCH_LENGTH_MAX",
    "find_anywhere",
    "find_in",
    "find_on_day",
    "queue_numbers_text",
    "service_names",
    "session_names",
    "state_text",
]

import contextlib
import datetime
from collections.abc import Sequence
from typing import Final

from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.lifecycle import ACTIVE
from quota_engine.domain.model import Reservation
from quota_engine.service.pages.operator.base import OperatorPages
from quota_engine.service.pages.operator.fields import queue_number
from quota_engine.service.pages.operator.request import OperatorRequest
from quota_engine.service.pages.registration_codes import read_code

SEARCH_LENGTH_MAX: Final = 160


async def find_on_day(
    pages: OperatorPages, request: OperatorRequest, day: datetime.date, text: str
) -> Reservation | None:
    """Return the reservation of the day with this queue number, reference, id or code."""
    text = text.strip()[:SEARCH_LENGTH_MAX]
    found = find_in(await pages.cache.reservations(request.office.id, day), text)
    if found is None and text:
        pages.cache.invalidate(request.office.id, day)  # the cached list may lack a new confirmation
        found = find_in(await pages.cache.reservations(request.office.id, day), text)
    return found


async def find_anywhere(pages: OperatorPages, request: OperatorRequest, text: str) -> Reservation | None:
    """Return the reservation of the request's office with this reference or code, on any day."""
    office, _, reservation_id = text.strip()[:SEARCH_LENGTH_MAX].rpartition("~")
    code = read_code(text)
    if office == request.office.id or code:
        with contextlib.suppress(InvalidRequest):
            found: Reservation | None = await pages.service.engine.lookup(
                f"{request.office.id}~{reservation_id if office else code}"
            )
            return found
    return None


def find_in(reservations: Sequence[Reservation], text: str) -> Reservation | None:
    """Return the reservation with this queue number, reference, id or code."""
    number = queue_number(text)
    if number is not None:
        return next((one for one in reservations if number in one.queue_numbers and one.state in ACTIVE), None)
    code = read_code(text)
    return next((one for one in reservations if text and (text in (one.reference, one.id) or code == one.id)), None)


def queue_numbers_text(reservation: Reservation) -> str:
    """Return the queue numbers of a party, or a dash."""
    return ", ".join(map(str, reservation.queue_numbers)) or "–"


def state_text(request: OperatorRequest, reservation: Reservation) -> str:
    """Return the queue numbers and the state of a reservation in words."""
    translator = request.translator
    state = translator(f"state_{reservation.state}")
    return translator("number_state", number=queue_numbers_text(reservation), state=state)


def session_names(request: OperatorRequest) -> dict[str, str]:
    """Return the names of the office's sessions with their times, by id."""
    translator = request.translator
    return {
        one.id: f"{one.display_name(translator.language)} {translator.time_range(one.start, one.end)}"
        for one in request.office.sessions.values()
    }


def service_names(request: OperatorRequest) -> dict[str, str]:
    """Return the names of the office's services by id."""
    return {one.id: one.display_name(request.translator.language) for one in request.office.services.values()}
