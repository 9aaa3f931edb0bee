"""Find my registration: a visitor enters the NIK and the registration code."""

from __future__ import annotations

__all__ = ["FindPages"]

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.model import Reservation
from quota_engine.service.pages.citizen.base import CitizenPages
from quota_engine.service.pages.citizen.day_choice import DayChoice
from quota_engine.service.pages.citizen.my_reservation import is_code_of
from quota_engine.service.pages.citizen.selection import BookingSelection
from quota_engine.service.pages.forms import read_form
from quota_engine.service.pages.i18n import Translator
from quota_engine.service.pages.registration_codes import read_code

_PATH = "/find"
_CODE_LENGTH_MAX = 160


class FindPages:
    """Handlers of the form that finds a reservation again.

    It asks for the NIK beside the code, so that guessed codes lead to no other person's reservation.
    """

    def __init__(self, pages: CitizenPages, choice: DayChoice) -> None:
        self._pages = pages
        self._choice = choice

    def routes(self) -> list[Route]:
        """Return the routes of the handlers."""
        guarded = self._pages.guarded
        return [
            Route(_PATH, guarded(self.show, is_sheddable=False)),
            Route(_PATH, guarded(self.find, is_sheddable=False, form_retry_path=_PATH), methods=["POST"]),
        ]

    async def show(self, request: Request) -> Response:
        """Render the form."""
        pages = self._pages
        return self._render(request, pages.translator(request), pages.selection(request.query_params))

    async def find(self, request: Request) -> Response:
        """Redirect to the reservation that has this code and this applicant."""
        pages = self._pages
        translator, submitted = pages.translator(request), await read_form(request)
        if submitted is None:
            return RedirectResponse(_PATH, 303)
        fields = dict(submitted)
        selection, nik, code = pages.selection(fields), fields.get("nik", ""), fields.get("code", "").strip()
        errors = [] if pages.is_nik(nik) else [("nik", pages.nik_error(translator, nik))]
        if not 0 < len(code) <= _CODE_LENGTH_MAX:
            errors.append(("code", translator("error_code_missing")))
        reservation = None if errors else await self._lookup(selection, code)
        if reservation is not None and is_code_of(reservation, code) and pages.belongs_to(reservation, nik):
            response = RedirectResponse("/reservation", 303)
            pages.remember_reservation(request, response, reservation, is_owner=True)
            return response
        errors = errors or [("code", translator("error_not_found"))]
        return self._render(request, translator, selection, 422, errors=errors, nik=nik, code=code)

    async def _lookup(self, selection: BookingSelection, code: str) -> Reservation | None:
        """Return the reservation with a code, an id or a reference."""
        office, _, reservation_id = code.rpartition("~")
        try:
            reference = f"{office or selection.office.id}~{read_code(reservation_id) or reservation_id}"
            return await self._pages.service.engine.lookup(reference)
        except InvalidRequest:
            return None

    def _render(
        self,
        request: Request,
        translator: Translator,
        selection: BookingSelection,
        status: int = 200,
        *,
        errors: Sequence[tuple[str, str]] = (),
        nik: str = "",
        code: str = "",
    ) -> Response:
        return self._pages.render(
            request,
            "find.html",
            translator,
            status,
            here=f"{_PATH}?office={selection.office.id}&",
            selection=selection,
            office_options=self._choice.office_options(selection),
            errors=errors,
            nik=nik,
            code=code,
        )
