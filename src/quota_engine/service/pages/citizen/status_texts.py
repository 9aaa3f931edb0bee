"""What somebody in a waiting room or on a wait list is told: the same words for the page, its polls and its stream."""

from __future__ import annotations

__all__ = ["told", "told_waiting"]

from quota_engine.domain.outcomes import WaitListPosition
from quota_engine.service.pages.i18n import Words
from quota_engine.waiting_room.ticket_status import TicketPhase, TicketStatus


def told(words: Words, standing: TicketStatus) -> dict[str, str]:
    """The texts of a page, by their places in it; ``progress`` is a whole number of per cent.

    What a screen reader is told (``announce``) is rounder than what is seen, so that it is not told every second.
    """
    tickets = max(1, standing.tickets)  # the count may be half a second older than the ticket
    texts = {"tickets": words.count("room_tickets", tickets), "title": words(f"room_title_{standing.phase}")}
    if standing.phase is TicketPhase.CALLED:
        texts["title"] = words("room_turn_title")
    if standing.phase is not TicketPhase.WAITING:
        return texts
    ahead = standing.ahead
    texts["position"] = words.number(standing.position + 1)
    texts["ahead"] = words.count("room_ahead", ahead) if ahead else words("room_next")
    texts["wait"] = _wait(words, standing)
    texts["left"] = words.count("room_left", standing.places_left) if standing.places_left > 0 else ""
    texts["chance"] = words(f"room_chance_{standing.chance}")
    texts["progress"] = str(100 * (standing.position - ahead) // max(1, standing.position))
    texts["title"] = words("room_title_ahead", count=words.number(ahead))
    rounded = standing.ahead if ahead < 10 else -(-ahead // 10) * 10
    told_ahead = words.count("room_ahead", rounded) if rounded else words("room_next")
    texts["announce"] = f"{told_ahead} {texts['chance']}"
    return texts


def told_waiting(words: Words, place: WaitListPosition) -> dict[str, str]:
    """The same for a place on the wait list of a day."""
    ahead = words.count("waiting_ahead", place.ahead) if place.ahead else words("room_next")
    return {
        "position": words.number(place.ahead + 1),
        "ahead": ahead,
        "waiting": words.count("wait_list_waiting", place.waiting),
        "title": words("waiting_title_position", position=words.number(place.ahead + 1)),
        "announce": ahead,
    }


def _wait(words: Words, standing: TicketStatus) -> str:
    """The time at the present pace, and the soonest that is possible: one alone would be taken for a promise."""
    if standing.wait_ms_min < 0:
        return words("room_wait_unknown")
    soonest = words.duration(standing.wait_ms_min)
    if standing.wait_ms < 0:
        return words("room_wait_min", soonest=soonest)
    expected = words.duration(standing.wait_ms)
    if expected == soonest:
        return words("room_wait", expected=expected)
    return words("room_wait_both", expected=expected, soonest=soonest)
