"""Change a confirmed reservation to another day or time, with a turn of the waiting room where the day needs one."""

from __future__ import annotations

__all__ = ["ChangePages"]

import datetime
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from quota_engine.catalog import name_of
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.service.pages.citizen.base import CitizenPages
from quota_engine.service.pages.citizen.day_choice import DayChoice
from quota_engine.service.pages.citizen.selection import BookingSelection
from quota_engine.service.pages.citizen.slots import WAIT
from quota_engine.service.pages.citizen.waiting_room import WaitingRoomPages
from quota_engine.service.pages.forms import read_form
from quota_engine.service.pages.i18n import Translator

_PATH = "/reservation/change"


class ChangePages:
    """Handlers of the form that changes a confirmed reservation.

    A day whose release has a waiting room needs a turn of it. The form then leads to the room, and the page of the turn
    leads back here. The present place stays until the new one is taken.
    """

    def __init__(self, pages: CitizenPages, choice: DayChoice, rooms: WaitingRoomPages) -> None:
        self._pages = pages
        self._choice = choice
        self._rooms = rooms

    def routes(self) -> list[Route]:
        """Return the routes of the handlers."""
        guarded = self._pages.guarded
        return [
            Route(_PATH, guarded(self.show, is_sheddable=False)),
            Route(_PATH, guarded(self.change, is_sheddable=False, form_retry_path=_PATH), methods=["POST"]),
        ]

    async def show(self, request: Request) -> Response:
        """Render the days and times to choose from."""
        reservation = await self._changeable(request)
        if reservation is None:
            return RedirectResponse("/reservation", 303)
        return await self._render(request, self._pages.translator(request), reservation)

    async def change(self, request: Request) -> Response:
        """Change the reservation and redirect to it, or render the reason why it stays as it is."""
        pages = self._pages
        translator = pages.translator(request)
        submitted, reservation = await read_form(request), await self._changeable(request)
        if submitted is None or reservation is None:
            return RedirectResponse("/reservation", 303)
        fields = dict(submitted)
        is_turn = fields.get("turn") == "yes"
        nik = fields.get("nik", "")
        errors = [] if fields.get("slot") else [("slot", translator("error_no_slot"))]
        if is_turn and not pages.is_nik(nik):
            errors.append(("nik", pages.nik_error(translator, nik)))
        admission_pass = ""
        if is_turn and not errors:
            try:
                admission_pass = await self._pass(request, nik)
            except InvalidRequest:
                errors.append(("nik", translator("error_nik_other")))
        if errors and is_turn:
            slot = fields.get("slot", "").removesuffix(f"|{WAIT}")
            return await self._rooms.render_ticket(request, translator, 422, errors=errors, niks=[nik], slot=slot)
        if errors:
            return await self._render(request, translator, reservation, 422, errors=errors)
        try:
            outcome = await self._reschedule(reservation, fields, admission_pass)
        except InvalidRequest:
            return RedirectResponse(_PATH, 303)  # no form has such a day
        pages.service.metrics.record_outcome(outcome.status)
        if outcome.ok and outcome.reservation is not None:
            response = RedirectResponse("/reservation", 303)
            pages.remember_reservation(request, response, outcome.reservation, is_owner=True)
            return response
        if outcome.status is Status.OVERLOADED:
            return pages.unavailable(request, _PATH)
        reason = await self._reason(translator, reservation, outcome)
        return await self._render(request, translator, reservation, 409, reason=reason)

    async def _changeable(self, request: Request) -> Reservation | None:
        """Return this browser's reservation if it can be changed, and this browser may do so."""
        if not self._pages.visit(request).is_owner:
            return None
        reservation = await self._pages.reservation(request)
        is_open = reservation is not None and await self._pages.can_change(reservation)
        return reservation if is_open else None

    async def _pass(self, request: Request, nik: str) -> str:
        """Return the pass of this browser's ticket, or ``""`` if it has none or is not called.

        Raises:
            InvalidRequest: the ticket is another person's.
        """
        session = self._pages.room_session(request)
        if session is None:
            return ""
        return (await self._pages.waiting_room(session.room).enter(session.ticket, nik)).admission_pass

    async def _reschedule(self, reservation: Reservation, fields: Mapping[str, str], admission_pass: str) -> Outcome:
        choice = reservation.choice
        day, session, *_ = (*fields["slot"].split("|"), "", "")
        return await self._pages.service.engine.reschedule(
            reservation.reference,
            day,
            service=choice.service,
            service_unit=choice.service_unit,
            session=session,
            channel=choice.channel,
            group=choice.group,
            admission_pass=admission_pass,
        )

    async def _reason(self, translator: Translator, reservation: Reservation, outcome: Outcome) -> str:
        pages = self._pages
        office = pages.service.get_office(reservation.office)
        if outcome.status is Status.NOT_ADMITTED and (room := await pages.current_room(office)) is not None:
            closes = pages.local_time(room[1].config.closes_at_ms, office)
            return translator("change_needs_turn", when=translator.moment(closes))
        key = f"refusal_{outcome.status}"
        when = translator.moment(pages.local_time(outcome.retry_at_ms, office))
        return translator(key if translator.has(key) else "refusal_other", when=when)

    async def _render(
        self, request: Request, translator: Translator, reservation: Reservation, status: int = 200, **overrides: Any
    ) -> Response:
        pages, choice = self._pages, reservation.choice
        office = pages.service.get_office(reservation.office)
        selection = BookingSelection(office, choice.service, choice.group)
        session = office.sessions.get(choice.session)
        variables = {
            **await self._choice.variables(translator, selection, request),
            "reservation": reservation,
            "day": translator.date(datetime.date.fromordinal(reservation.day)),
            "session": name_of(office.sessions, choice.session, translator.language),
            "time_range": translator.time_range(session.start, session.end) if session else "",
            "reason": "",
            "reload_url": _PATH,
            **overrides,
        }
        return pages.render(request, "change.html", translator, status, here=f"{_PATH}?", **variables)
