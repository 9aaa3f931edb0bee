"""A visitor's own reservation: its form, its wait-list position, its queue number, or its end."""

from __future__ import annotations

__all__ = ["ReservationPages", "is_code_of"]

import datetime
import hmac
from typing import Any, Final

import msgspec
import segno
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from quota_engine.catalog import departed_office, extensions_left, name_of
from quota_engine.domain.errors import InvalidRequest, QuotaEngineError
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import DayView, Status, WaitListPosition
from quota_engine.service.http.problems import Problem
from quota_engine.service.http.sse import StreamEvent
from quota_engine.service.pages.citizen.base import NO_STORE_HEADERS, STORE_UNAVAILABLE, CitizenPages
from quota_engine.service.pages.citizen.calendar_file import calendar_file
from quota_engine.service.pages.citizen.selection import BookingSelection
from quota_engine.service.pages.citizen.status_texts import wait_list_texts
from quota_engine.service.pages.forms import read_form
from quota_engine.service.pages.i18n import Translator
from quota_engine.service.pages.registration_codes import format_code, read_code

_PATH: Final = "/reservation"
_PAGES_BY_STATE: Final = {State.HELD: "held", State.WAITING: "waiting", State.CONFIRMED: "confirmed"}
"""Pages of reservations that have not ended, named like their templates."""
_STREAM_EVERY_MS: Final = 1_000
_DIGITS_MAX: Final = 9
_STREAM_ANYWAY_MS: Final = 15_000
_ANYBODY: Final = ("confirm", "extend")
"""Steps that lose nothing, so that the NIK alone suffices. The other steps need the visit's cookie or the code."""


class ReservationPages:
    """Handlers of the pages of one reservation. They are answered above the concurrency limit too."""

    def __init__(self, pages: CitizenPages) -> None:
        self._pages = pages

    def routes(self) -> list[Route]:
        """Return the routes of the handlers."""
        handlers = (
            ("", self.reservation, "GET"),
            ("/state", self.state, "GET"),
            ("/calendar.ics", self.calendar, "GET"),
            ("/stream", self.stream, "GET"),
            ("/confirm", self.confirm, "POST"),
            ("/extend", self.extend, "POST"),
            ("/leave-party", self.leave_party, "POST"),
            ("/release", self.release, "POST"),
            ("/decline", self.decline, "POST"),
            ("/cancel", self.cancel, "POST"),
            ("/code", self.enter_code, "POST"),
        )
        guarded = self._pages.guarded
        return [
            Route(f"{_PATH}{path}", guarded(handler, is_sheddable=False, form_retry_path=_PATH), methods=[method])
            for path, handler, method in handlers
        ]

    async def status(self, reservation: Reservation) -> str:
        """Return ``held``, ``waiting``, ``confirmed`` or ``ended``. A wait ends with its day."""
        return (await self._status(reservation))[0]

    async def _status(self, reservation: Reservation) -> tuple[str, WaitListPosition | None]:
        status, position = _PAGES_BY_STATE.get(reservation.state, "ended"), None
        if status == "waiting":
            position = await self._pages.service.engine.wait_list_position(reservation.reference)
            if position is None:
                status = "ended"
        return status, position

    # --- Read ---

    async def reservation(self, request: Request) -> Response:
        """Render the reservation of this browser."""
        pages = self._pages
        translator = pages.translator(request)
        reservation = await pages.reservation(request)
        if reservation is None:
            return RedirectResponse("/", 303)
        status, position = await self._status(reservation)
        offices, session_id = pages.service.catalog.offices, reservation.choice.session
        office = offices.get(reservation.office) or departed_office(reservation.office)
        session, service = office.sessions.get(session_id), office.services.get(reservation.choice.service)
        now_ms = pages.service.now_ms()
        errors = _errors(translator, request.query_params.get("error", ""), status)
        is_confirmed = status == "confirmed"
        notice = pages.notice(request, reservation)
        heading = f"ended_heading_{reservation.state}"
        response = pages.render(
            request,
            f"{status}.html",
            translator,
            422 if errors else 200,
            here=f"{_PATH}?",
            selection=BookingSelection(office, reservation.choice.service, reservation.choice.group),
            reservation=reservation,
            bring=service.bring_in(translator.language) if service is not None else (),
            is_already_there="already" in request.query_params,
            is_owner=pages.visit(request).is_owner,
            code=format_code(reservation.id),
            draft=pages.mark(reservation.reference),
            phase=_phase(reservation, status),
            texts=wait_list_texts(translator, position) if position else {},
            offer=translator.duration(office.rules.offer_ttl_ms),
            declines_left=max(0, office.rules.declines_max - reservation.declines),
            decline_pause=translator.duration(office.rules.decline_pause_ms),
            paused_until=translator.moment(pages.local_time(reservation.paused_until_ms, office))
            if reservation.paused_until_ms > now_ms
            else "",
            end_text=_end_text(reservation),
            end_heading=heading if translator.has(heading) else "ended_heading",
            block_notice=notice.sentence(translator, reservation, now_ms, lambda at_ms: pages.local_time(at_ms, office))
            if notice is not None
            else "",
            queue_numbers=", ".join(str(number) for number in reservation.queue_numbers),
            day=translator.date(datetime.date.fromordinal(reservation.day)),
            session=name_of(office.sessions, session_id, translator.language),
            time_range=translator.time_range(session.start, session.end) if session else "",
            until=translator.time(pages.local_time(reservation.deadline_at_ms, office)),
            countdown=translator.countdown(reservation.deadline_at_ms - now_ms),
            now_ms=now_ms,
            extensions_left=extensions_left(pages.service.catalog, reservation),
            extension=translator.duration(office.rules.extension_ms),
            errors=errors,
            can_change=await pages.can_change(reservation),
            is_day_closed=is_confirmed and await pages.is_day_closed(reservation),
            qr_code=segno.make(reservation.reference, error="m").svg_inline(scale=5, border=4) if is_confirmed else "",
            **pages.next_release_texts(translator, office),
        )
        pages.renew_reservation(request, response, reservation)
        return response

    async def calendar(self, request: Request) -> Response:
        """Return the confirmed reservation as a file for the visitor's calendar."""
        pages = self._pages
        visit, reservation = pages.visit(request), await pages.reservation(request)
        if reservation is None or reservation.state is not State.CONFIRMED:
            return RedirectResponse(_PATH, 303)
        translator = pages.translator(request)
        office = pages.service.catalog.offices.get(reservation.office) or departed_office(reservation.office)
        content = calendar_file(
            translator,
            office,
            reservation,
            uid=pages.mark(f"calendar {reservation.reference}"),
            now_ms=pages.service.now_ms(),
            with_code=visit.is_owner,
        )
        headers = {**NO_STORE_HEADERS, "content-disposition": 'attachment; filename="antrean.ics"'}
        return Response(content, headers=headers, media_type="text/calendar; charset=utf-8")

    async def state(self, request: Request) -> Response:
        """Return the state of the reservation as JSON, for a page that polls."""
        reservation = await self._pages.reservation(request)
        state = await self._state(self._pages.translator(request), reservation)
        content = msgspec.json.encode({**state, "now_ms": self._pages.service.now_ms()})
        return Response(content, headers=NO_STORE_HEADERS, media_type="application/json")

    async def stream(self, request: Request) -> Any:
        """Return the state of a wait-list position as server-sent events."""
        pages = self._pages
        reservation = await pages.reservation(request)
        if reservation is None or await self.status(reservation) != "waiting":
            return Response(status_code=204)  # makes an EventSource stop reconnecting
        translator, engine, now_ms = pages.translator(request), pages.service.engine, pages.service.now_ms
        office, reference = reservation.office, reservation.reference
        day = datetime.date.fromordinal(reservation.day)

        async def read() -> tuple[list[DayView], int] | None:
            try:
                # The counters leave overdue holds out, and each lookup of a position moves the wait list on. Two
                # changes can cancel out in the counters, so the time makes every listener read again every 15 seconds.
                return await engine.availability(office, day), now_ms() // _STREAM_ANYWAY_MS
            except QuotaEngineError:
                return None

        async def event(counters: tuple[list[DayView], int] | None) -> StreamEvent:
            if counters is None:
                return STORE_UNAVAILABLE
            try:
                state = await self._state(translator, await engine.lookup(reference))
                return StreamEvent("state", msgspec.json.encode(state))
            except QuotaEngineError:
                return STORE_UNAVAILABLE

        try:
            return await pages.service.streams.open(
                ("wait-list page", office, reservation.day), read, event, interval_ms=_STREAM_EVERY_MS
            )
        except Problem:
            return Response(status_code=503, headers=NO_STORE_HEADERS)

    async def _state(self, translator: Translator, reservation: Reservation | None) -> dict[str, Any]:
        if reservation is None:
            return {"phase": "", "state": "", "texts": {}}
        status, position = await self._status(reservation)
        return {
            "phase": _phase(reservation, status),
            "state": reservation.state,
            "deadline_at_ms": reservation.deadline_at_ms,
            "texts": wait_list_texts(translator, position) if position else {},
        }

    # --- Change ---

    async def confirm(self, request: Request) -> Response:
        """Confirm the hold."""
        return await self._execute(request, "confirm")

    async def extend(self, request: Request) -> Response:
        """Give the hold more time. The form has the extension's number, so that a second click has no effect."""
        return await self._execute(request, "extend")

    async def release(self, request: Request) -> Response:
        """Give up the hold or the wait-list position."""
        return await self._execute(request, "release")

    async def decline(self, request: Request) -> Response:
        """Decline the offer of the wait list that the page has shown, and stay on the list."""
        return await self._execute(request, "decline")

    async def cancel(self, request: Request) -> Response:
        """Cancel the confirmed reservation."""
        return await self._execute(request, "cancel")

    async def leave_party(self, request: Request) -> Response:
        """Take the person with the submitted NIK out of the party. This page puts no other person in their place."""
        pages = self._pages
        form, (reference, is_owner) = await read_form(request), pages.visit(request)
        if form is None or not reference:
            return RedirectResponse("/", 303)
        if not is_owner:
            return RedirectResponse(f"{_PATH}?error=code_needed", 303)
        try:
            outcome = await pages.service.engine.remove_applicant(reference, dict(form).get("nik", ""))
        except InvalidRequest:
            return RedirectResponse(f"{_PATH}?error=member", 303)
        pages.service.metrics.record_outcome(outcome.status)
        if outcome.status is Status.OVERLOADED:
            return pages.unavailable(request, _PATH)
        is_unknown = outcome.status is Status.NOT_IN_PARTY
        return RedirectResponse(f"{_PATH}?error=member" if is_unknown else _PATH, 303)

    async def enter_code(self, request: Request) -> Response:
        """Let this browser change the reservation that it shows, if the submitted registration code is right."""
        pages = self._pages
        form, reservation = await read_form(request), await pages.reservation(request)
        if form is None or reservation is None:
            return RedirectResponse("/", 303)
        if not is_code_of(reservation, dict(form).get("code", "")):
            return RedirectResponse(f"{_PATH}?error=code", 303)
        response = RedirectResponse(_PATH, 303)
        pages.remember_reservation(request, response, reservation, is_owner=True)
        return response

    async def _execute(self, request: Request, method: str) -> Response:
        """Call a method of the engine for this browser's reservation, and redirect to the reservation.

        If the store fails, the response is the 503 page. A redirect would look like a step that was done as soon as
        the store answers again. The page's script then sends the form again; each step is safe to repeat.
        """
        pages = self._pages
        form, (reference, is_owner) = await read_form(request), pages.visit(request)
        if form is None or not reference:
            return RedirectResponse("/", 303)
        if not is_owner and method not in _ANYBODY:
            return RedirectResponse(f"{_PATH}?error=code_needed", 303)
        if method == "confirm" and dict(form).get("declaration") != "yes":
            return RedirectResponse(f"{_PATH}?error=declaration", 303)
        # A later offer, which this page has not shown, must not be declined by a second click.
        version = _number(dict(form).get("version", ""))
        checks = {"expected_version": version} if version else {}
        try:
            arguments = (_number(dict(form).get("extension", "")),) if method == "extend" else ()
            outcome = await getattr(pages.service.engine, method)(reference, *arguments, **checks)
        except InvalidRequest:
            return RedirectResponse("/", 303)
        pages.service.metrics.record_outcome(outcome.status)
        if outcome.status is Status.OVERLOADED:
            return pages.unavailable(request, _PATH)
        response = RedirectResponse(_PATH, 303)
        if method in ("release", "extend"):
            pages.remember_notice(request, response, outcome)
        return response


def is_code_of(reservation: Reservation, text: str) -> bool:
    """Return True if a person has typed a reservation's registration code, its id or its reference."""
    typed = text.strip().removeprefix(f"{reservation.office}~")
    return any(hmac.compare_digest(one.encode(), reservation.id.encode()) for one in (typed, read_code(typed)))


def _errors(translator: Translator, error: str, status: str) -> list[tuple[str, str]]:
    """Return the errors of the reservation's page as field and text."""
    if error == "declaration" and status == "held":
        return [("declaration", translator("error_not_declared"))]
    if error == "member" and status in ("held", "confirmed"):
        return [("member", translator("error_not_member"))]
    if error in ("code", "code_needed"):
        return [("code", translator(f"error_{error}"))]
    return []


def _number(text: str) -> int:
    """Return the number that a form has; 0, which no command accepts, for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX else 0


def _phase(reservation: Reservation, status: str) -> str:
    """Return a text that changes when the page must be loaded again."""
    return f"{status} {reservation.version}"


def _end_text(reservation: Reservation) -> str:
    """Return the key of the text that says how a reservation ended."""
    if reservation.state is State.WAITING:
        return "ended_without_offer"
    if reservation.state is State.RELEASED and not reservation.quotas:
        return "ended_left_wait_list"
    return f"ended_{reservation.state}"
