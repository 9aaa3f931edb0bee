"""Texts of a ticket and of a wait-list position: the same for the page, its polls and its stream."""

from __future__ import annotations

__all__ = ["ticket_texts", "wait_list_texts"]

from typing import Final

from quota_engine.domain.outcomes import WaitListPosition
from quota_engine.service.pages.i18n import Translator
from quota_engine.waiting_room.ticket_status import TicketPhase, TicketStatus

_ANNOUNCED_EXACTLY_BELOW: Final = 10


def ticket_texts(translator: Translator, status: TicketStatus) -> dict[str, str]:
    """Return the texts of a ticket by the name of their element.

    ``progress`` is a whole number of per cent. ``announce`` is for screen readers. It rounds the people ahead to tens,
    so that a reader is not interrupted every second.
    """
    people = max(1, status.tickets)  # the count can be half a second older than the ticket
    texts = {
        "people": translator.count("room_people", people),
        "ticket_number": translator("room_ticket_number", number=translator.number(status.number)),
        "title": translator(f"room_title_{status.phase}"),
    }
    if status.phase is not TicketPhase.WAITING:
        return texts
    ahead = status.ahead
    texts["position"] = translator.number(status.position)
    texts["ahead_number"] = translator.number(ahead)
    texts["ahead"] = translator.count("people_ahead", ahead) if ahead else translator("next_in_line")
    texts["wait_time"] = _wait_time(translator, status)
    texts["places_left"] = translator.count("places_left", status.places_left) if status.places_left > 0 else ""
    texts["chance"] = translator(f"chance_{status.chance}")
    texts["progress"] = str(100 * (status.position - 1 - ahead) // max(1, status.position - 1))
    texts["title"] = translator("room_title_ahead", count=translator.number(ahead))
    rounded = ahead if ahead < _ANNOUNCED_EXACTLY_BELOW else -(-ahead // 10) * 10
    texts["announce"] = f"{_ahead(translator, rounded)} {texts['chance']}"
    return texts


def wait_list_texts(translator: Translator, position: WaitListPosition) -> dict[str, str]:
    """Return the texts of a wait-list position by the name of their element."""
    number = translator.number(position.ahead + 1)
    ahead = position.ahead
    announced = translator.count("wait_list_ahead", ahead) if ahead else translator("next_in_line")
    return {
        "position": number,
        "ahead_number": translator.number(ahead),
        "ahead": translator.count("applicants_ahead", ahead) if ahead else translator("next_in_line"),
        "length": translator.count("wait_list_length", position.waiting),
        "title": translator("wait_list_title", position=number),
        "announce": announced,
    }


def _ahead(translator: Translator, ahead: int) -> str:
    return translator.count("room_ahead", ahead) if ahead else translator("next_in_line")


def _wait_time(translator: Translator, status: TicketStatus) -> str:
    """Return the expected and the shortest wait. One of them alone would read like a promise."""
    if status.wait_ms_min < 0:
        return translator("wait_time_unknown")
    soonest = translator.duration(status.wait_ms_min)
    if status.wait_ms < 0:
        return translator("wait_time_min", soonest=soonest)
    expected = translator.duration(status.wait_ms)
    if expected == soonest:
        return translator("wait_time_expected", expected=expected)
    return translator("wait_time_expected_and_min", expected=expected, soonest=soonest)
