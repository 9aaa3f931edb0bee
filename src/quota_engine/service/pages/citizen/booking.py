"""The start page, and the form that reserves a place."""

from __future__ import annotations

__all__ = ["BookingPages"]

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from quota_engine.domain.errors import InvalidRequest, QuotaEngineError
from quota_engine.domain.lifecycle import ACTIVE
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.service.pages.citizen.base import CitizenPages, RoomSession
from quota_engine.service.pages.citizen.day_choice import DayChoice, serves_day
from quota_engine.service.pages.citizen.my_reservation import ReservationPages
from quota_engine.service.pages.citizen.selection import BookingSelection
from quota_engine.service.pages.citizen.slots import WAIT, Slot, SlotState, wait_list_sessions
from quota_engine.service.pages.citizen.waiting_room import TURN_CODES_MAX, WaitingRoomPages
from quota_engine.service.pages.forms import read_form
from quota_engine.service.pages.i18n import Translator
from quota_engine.service.pages.registration_codes import new_code, read_code
from quota_engine.workflows.arguments import random_id

_KEY_MARK: Final = random_id()
"""Stands for the idempotency key in a page that visitors share."""
_FREE_DAYS_LISTED: Final = 3
_DAY_REFUSALS: Final = frozenset(
    {
        Status.SOLD_OUT,
        Status.WAIT_LIST_FULL,
        Status.NOT_OPEN,
        Status.DAY_CLOSED,
        Status.DAY_OVER,
        Status.SESSION_OVER,
    }
)
"""Refusals that are about the day or the session, so that another one may have a place."""


@dataclasses.dataclass(frozen=True, slots=True)
class _ReserveForm:
    """The submitted form of a booking."""

    fields: Mapping[str, str]
    selection: BookingSelection
    niks: Sequence[str]
    day: str
    session: str
    is_wait: bool
    """True if the applicant has chosen the wait list of a full day."""

    @property
    def is_turn(self) -> bool:
        return self.fields.get("turn") == "yes"


class BookingPages:
    """Handlers of the start page and of the reserve form."""

    def __init__(
        self, pages: CitizenPages, choice: DayChoice, rooms: WaitingRoomPages, reservations: ReservationPages
    ) -> None:
        self._pages = pages
        self._choice = choice
        self._rooms = rooms
        self._reservations = reservations

    def routes(self) -> list[Route]:
        """Return the routes of the handlers."""
        guarded = self._pages.guarded
        return [
            Route("/", guarded(self.start)),
            Route("/days", guarded(self.days)),
            Route("/reserve", guarded(self.reserve), methods=["POST"]),
        ]

    # --- Choose ---

    async def start(self, request: Request) -> Response:
        """Render the start page: office, service and days, or the waiting room.

        Without a selection in the address, a visitor with a hold, a wait-list position or a ticket is redirected to it.
        """
        pages = self._pages
        translator, selection = pages.translator(request), pages.selection(request.query_params)
        reservation = await pages.reservation(request)
        status = await self._reservations.status(reservation) if reservation is not None else ""
        has_selection = bool(set(request.query_params) - {"lang"})
        if not has_selection:
            if status in ("held", "waiting"):
                return RedirectResponse("/reservation", 303)
            if reservation is None and await self._rooms.has_open_ticket(request):
                return RedirectResponse("/room", 303)
        here = f"{selection.url}&" if has_selection else "/?"
        figures = await self._choice.figures(selection.office)
        if status in ("", "ended") and pages.room_session(request) is None:
            return pages.render_shared(
                request,
                "start.html",
                translator,
                (selection.url, here),
                figures.sources,
                lambda: self._choice.variables_of(
                    figures, translator, selection, None, here=here, idempotency_key=_KEY_MARK
                ),
                {_KEY_MARK: new_code()},
            )
        registration = status if status != "ended" else ""
        variables = self._choice.variables_of(figures, translator, selection, request, registration=registration)
        return pages.render(request, "start.html", translator, here=here, **variables)

    async def days(self, request: Request) -> Response:
        """Render the list of days alone, which the page's script refreshes."""
        pages = self._pages
        translator, selection = pages.translator(request), pages.selection(request.query_params)
        is_turn = request.query_params.get("turn") == "yes"
        figures = await self._choice.figures(selection.office)
        return pages.render_shared(
            request,
            "days.html",
            translator,
            (selection.url, is_turn),
            figures.sources,
            lambda: self._choice.variables_of(figures, translator, selection, None, is_turn=is_turn),
        )

    # --- Reserve ---

    async def reserve(self, request: Request) -> Response:
        """Reserve a place and redirect to it, or render the reason why there is none."""
        pages = self._pages
        translator = pages.translator(request)
        submitted = await read_form(request)
        if submitted is None:
            return RedirectResponse("/", 303)
        form = self._parse(submitted)
        errors = self._form_errors(translator, form)
        if errors:
            return await self._form_again(request, translator, form, errors)
        try:
            room_session = await self._room_session(request, form)
            admission_pass = ""
            if room_session is not None:
                try:
                    entered = await pages.waiting_room(room_session.room).enter(room_session.ticket, form.niks[0])
                except InvalidRequest:
                    other = [("nik", translator("error_nik_other"))]
                    return await self._form_again(request, translator, form, other)
                admission_pass = entered.admission_pass
            outcome, own = await self._reserve(form, room_session, admission_pass)
            reservation = own or _reservation(outcome)
            is_owner = own is not None or (outcome.ok and not outcome.resumed)
            if room_session is not None:
                is_new = outcome.ok and not outcome.replayed and not outcome.resumed
                is_owner = is_owner and (room_session.is_first or is_new)
                if outcome.status is Status.NOT_ADMITTED:
                    reservation = await self._rooms.reservation_of_turn(form.selection, room_session, form.niks[0])
                    is_owner = room_session.is_first
        except InvalidRequest:
            return RedirectResponse(form.selection.url, 303)
        except QuotaEngineError:
            return await self._refusal(request, translator, form, None)
        pages.service.metrics.record_outcome(outcome.status)
        if reservation is not None:
            is_refused = outcome.status is Status.IDENTITY_LIMIT
            response = RedirectResponse("/reservation?already=yes" if is_refused else "/reservation", 303)
            pages.remember_reservation(request, response, reservation, is_owner=is_owner)
            if outcome.ok:
                pages.remember_notice(request, response, outcome)
            return response
        return await self._refusal(request, translator, form, outcome)

    async def _reserve(
        self, form: _ReserveForm, room_session: RoomSession | None, admission_pass: str
    ) -> tuple[Outcome, Reservation | None]:
        """Reserve under the code of the form, or of the ticket.

        Another reservation may have the code: an ended one of this applicant, or by chance another applicant's. A
        second code is tried then.

        Returns:
            The outcome; and the applicant's own active reservation of another choice, if it has the code.

        Raises:
            InvalidRequest: no form has such fields.
        """
        code = form.fields.get("idempotency_key") or new_code()
        if read_code(code) != code:
            raise InvalidRequest("idempotency_key", "not a registration code", "the code of the form")
        for attempt in range(TURN_CODES_MAX):
            if room_session is not None:
                code = self._rooms.turn_code(room_session, attempt)
            elif attempt:
                code = new_code()
            outcome = await self._pages.service.engine.reserve(
                form.selection.office.id,
                form.day,
                form.niks,
                service=form.selection.service,
                session=form.session,
                group=form.selection.group,
                idempotency_key=code,
                join_wait_list=form.is_wait,
                admission_pass=admission_pass,
            )
            if outcome.status is not Status.CONFLICT:
                break
            found = await self._pages.service.engine.lookup(f"{form.selection.office.id}~{code}")
            if found is not None and found.state in ACTIVE and self._pages.belongs_to(found, form.niks[0]):
                return outcome, found
        return outcome, None

    def _parse(self, submitted: Sequence[tuple[str, str]]) -> _ReserveForm:
        fields = dict(submitted)
        niks = [value for name, value in submitted if name == "nik" and value.strip()]
        day, session, wait, *_ = (*fields.get("slot", "").split("|"), "", "", "")
        is_wait = wait == WAIT or fields.get("join_wait_list") == "yes"
        return _ReserveForm(fields, self._pages.selection(fields), niks, day, session, is_wait)

    def _form_errors(self, translator: Translator, form: _ReserveForm) -> list[tuple[str, str]]:
        """Return the errors of a form as field and text, in the order of the fields."""
        errors = [] if form.fields.get("slot", "") else [("slot", translator("error_no_slot"))]
        return errors + self._pages.nik_errors(translator, form.niks)

    async def _room_session(self, request: Request, form: _ReserveForm) -> RoomSession | None:
        """Return the ticket of this browser, if it belongs to the waiting room that serves the day of the form."""
        room = await self._pages.current_room(form.selection.office)
        session = self._pages.room_session(request)
        if room is None or session is None or session.room != room[0]:
            return None
        try:
            day = datetime.date.fromisoformat(form.day)
        except ValueError:
            return None
        return session if serves_day(room[1].config, day) else None

    async def _form_again(
        self, request: Request, translator: Translator, form: _ReserveForm, errors: Sequence[tuple[str, str]]
    ) -> Response:
        """Render the form as it was submitted, with the errors beside its fields."""
        filled: dict[str, Any] = {
            "niks": form.niks,
            "slot": f"{form.day}|{form.session}" if form.day else "",
            "idempotency_key": form.fields.get("idempotency_key", ""),
            "errors": errors,
        }
        if form.is_turn:
            return await self._rooms.render_ticket(request, translator, 422, **filled)
        variables = await self._choice.variables(translator, form.selection, request, **filled)
        return self._pages.render(request, "start.html", translator, 422, here=f"{form.selection.url}&", **variables)

    async def _refusal(
        self, request: Request, translator: Translator, form: _ReserveForm, outcome: Outcome | None
    ) -> Response:
        """Render the reason why there is no place, free days, the wait list and the next release.

        ``outcome`` is ``None`` if the store did not answer.
        """
        pages, selection = self._pages, form.selection
        office = selection.office
        status = "unavailable" if outcome is None else outcome.status
        free_days, waiting, slots = [], 0, list[Slot]()
        if outcome is not None:
            figures = await self._choice.figures(office)
            slots = self._choice.slots(figures, selection, translator.language, is_turn=form.is_turn)
            free_days = _free_days(translator, slots, form, outcome)
            waiting = sum(
                view.waiting for view in figures.views if str(datetime.date.fromordinal(view.day)) == form.day
            )
        has_wait_list = form.session in wait_list_sessions(pages.service.catalog, selection)
        when = translator.moment(pages.local_time(outcome.retry_at_ms if outcome else 0, office))
        return pages.render(
            request,
            "refusal.html",
            translator,
            503 if outcome is None or outcome.status is Status.OVERLOADED else 409,
            here=f"{selection.url}&",
            selection=selection,
            reason=_reason(translator, form, str(status), slots, when),
            can_find=status is Status.IDENTITY_LIMIT,
            free_days=free_days,
            can_join_wait_list=status is Status.SOLD_OUT and has_wait_list,
            wait_list_length=(
                translator.count("wait_list_length", waiting) if waiting else translator("wait_list_empty")
            ),
            offer=translator.duration(office.rules.offer_ttl_ms),
            can_retry=status in ("unavailable", Status.OVERLOADED),
            is_turn=form.is_turn,
            fields=form.fields,
            niks=form.niks,
            **pages.next_release_texts(translator, office),
        )


def _free_days(translator: Translator, slots: Sequence[Slot], form: _ReserveForm, outcome: Outcome) -> list[str]:
    """Return the first days on which the same people would get a place; none if another day would be refused, too."""
    if outcome.status not in _DAY_REFUSALS:
        return []
    refused = f"{form.day}|{form.session}"
    days = [
        slot.day
        for slot in slots
        if slot.state is SlotState.OPEN and slot.places >= len(form.niks) and slot.value != refused
    ]
    return [translator.date(day) for day in dict.fromkeys(days)][:_FREE_DAYS_LISTED]


def _reason(translator: Translator, form: _ReserveForm, status: str, slots: Sequence[Slot], when: str) -> str:
    """Return the sentence that says why there is no place."""
    units = len(form.niks)
    if status == Status.SOLD_OUT and units > 1:
        places = next((slot.places for slot in slots if slot.value == f"{form.day}|{form.session}"), 0)
        if 0 < places < units:
            return translator.count("refusal_too_few", places, needed=translator.number(units))
        if places:
            return translator("refusal_not_enough", needed=translator.number(units))
    key = f"refusal_{status}"
    if not translator.has(key):
        return translator("refusal_other")
    party_max = translator.number(form.selection.office.rules.party_max)
    return translator(f"{key}_one" if units == 1 and translator.has(f"{key}_one") else key, when=when, max=party_max)


def _reservation(outcome: Outcome) -> Reservation | None:
    """Return the applicant's reservation, new or existing, or ``None``."""
    shown = outcome.ok or outcome.status in (Status.IDENTITY_LIMIT, Status.RESERVATION_ENDED)
    return outcome.reservation if shown else None
