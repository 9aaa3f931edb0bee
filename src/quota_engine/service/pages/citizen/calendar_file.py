"""The confirmed reservation as an iCalendar file (RFC 5545)."""

from __future__ import annotations

__all__ = ["calendar_file"]

import datetime
from typing import Final

from quota_engine.catalog import ResolvedOffice, name_of, wall_time_ms
from quota_engine.domain.model import Reservation
from quota_engine.service.pages.i18n import Translator
from quota_engine.service.pages.registration_codes import format_code

_LINE_BYTES_MAX: Final = 73
_ESCAPES: Final = str.maketrans({"\\": "\\\\", ";": "\\;", ",": "\\,", "\n": "\\n", "\r": None})


def calendar_file(
    translator: Translator,
    office: ResolvedOffice,
    reservation: Reservation,
    *,
    uid: str,
    now_ms: int,
    with_code: bool,
) -> str:
    """Return the file, which has one event.

    Args:
        translator: Language of the texts.
        office: Office of the reservation.
        reservation: A confirmed reservation.
        uid: Name of the event, from which the registration code cannot be computed.
        now_ms: Time of the file, in milliseconds since 1970 (UTC).
        with_code: True to add the registration code.
    """
    choice, day = reservation.choice, datetime.date.fromordinal(reservation.day)
    window = office.sessions.get(choice.session) or office.hours
    service = office.services.get(choice.service)
    notes = [f"{translator('service')}: {name_of(office.services, choice.service, translator.language)}"]
    if with_code:
        notes.append(f"{translator('reference')}: {format_code(reservation.id)}")
    if service is not None and service.bring_in(translator.language):
        notes.append(f"{translator('next_bring')} {', '.join(service.bring_in(translator.language))}")
    numbers = ", ".join(map(str, reservation.queue_numbers))
    title = f"{translator('site_title')}: {translator('queue_number')} {numbers}"
    lines = (
        "BEGIN:VCALENDAR",
        "VERSION:2.0",
        "PRODID:-//quota_engine//pages//",
        "BEGIN:VEVENT",
        f"UID:{uid}@quota_engine",
        f"DTSTAMP:{_utc(now_ms)}",
        f"DTSTART:{_utc(wall_time_ms(day, window.start, office.zone))}",
        f"DTEND:{_utc(wall_time_ms(day, window.end, office.zone))}",
        f"SUMMARY:{_escaped(title)}",
        f"LOCATION:{_escaped(', '.join(part for part in (office.name, office.address) if part))}",
        f"DESCRIPTION:{_escaped(chr(10).join(notes))}",
        "END:VEVENT",
        "END:VCALENDAR",
    )
    return "".join(f"{_folded(line)}\r\n" for line in lines)


def _utc(at_ms: int) -> str:
    return f"{datetime.datetime.fromtimestamp(at_ms / 1000, tz=datetime.UTC):%Y%m%dT%H%M%SZ}"


def _escaped(text: str) -> str:
    return text.translate(_ESCAPES)


def _folded(line: str) -> str:
    """Return a line in parts of at most 75 bytes, as the format demands."""
    parts, part = [], ""
    for character in line:
        if len((part + character).encode()) > _LINE_BYTES_MAX:
            parts.append(part)
            part = ""
        part += character
    return "\r\n ".join((*parts, part))
