"""Routes of the citizens' pages."""

from __future__ import annotations

__all__ = ["citizen_routes"]

from starlette.routing import Route

from quota_engine.service.pages.citizen.base import CitizenPages
from quota_engine.service.pages.citizen.booking import BookingPages
from quota_engine.service.pages.citizen.change import ChangePages
from quota_engine.service.pages.citizen.day_choice import DayChoice
from quota_engine.service.pages.citizen.draw import DrawPages
from quota_engine.service.pages.citizen.find import FindPages
from quota_engine.service.pages.citizen.finish import FinishPages
from quota_engine.service.pages.citizen.my_reservation import ReservationPages
from quota_engine.service.pages.citizen.verify import VerifyPages
from quota_engine.service.pages.citizen.waiting_room import WaitingRoomPages


def citizen_routes(pages: CitizenPages) -> list[Route]:
    """Return the routes of all citizens' pages."""
    choice = DayChoice(pages)
    rooms, reservations = WaitingRoomPages(pages, choice), ReservationPages(pages)
    changes = ChangePages(pages, choice, rooms)
    return [
        *BookingPages(pages, choice, rooms, reservations).routes(),
        *reservations.routes(),
        *changes.routes(),
        *rooms.routes(),
        *FindPages(pages, choice).routes(),
        *FinishPages(pages).routes(),
        *DrawPages(pages).routes(),
        *VerifyPages(pages).routes(),
    ]
