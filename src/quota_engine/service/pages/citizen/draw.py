"""The draw of an office: apply with ranked choices, see the receipt and the result, and claim the place."""

from __future__ import annotations

__all__ = ["DrawPages", "DrawReceipt"]

import asyncio
import contextlib
import datetime
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from quota_engine.api_schema.draws import ApplicationResultBody
from quota_engine.catalog import ResolvedOffice, Selection, choice_of, name_of, working_days
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.identity import Pseudonyms
from quota_engine.domain.model import Reservation
from quota_engine.draws.outcomes import DrawOutcome, DrawStatus
from quota_engine.draws.queries import DrawPhase, DrawView
from quota_engine.service.pages.citizen.base import CitizenPages
from quota_engine.service.pages.citizen.selection import BookingSelection
from quota_engine.service.pages.forms import read_form
from quota_engine.service.pages.i18n import Translator
from quota_engine.workflows.draws import DrawChoice, award_id

_PATH: Final = "/draw"
_CHOICES_SHOWN_MAX: Final = 5
_OPTIONS_MAX: Final = 120
_COOKIE: Final = "draw"
Errors = Sequence[tuple[str, str]]


class DrawReceipt(NamedTuple):
    """The receipt of the application that this browser has sent. ``token`` is a pseudonym in the published files."""

    draw: str
    number: int
    version: int
    epoch: int
    token: str


class DrawPages:
    """Handlers of the draw's page.

    The browser that applied keeps the receipt in a signed cookie. Only with it can the application be changed or
    withdrawn, and its place be claimed: the NIK alone suffices for none of these.
    """

    def __init__(self, pages: CitizenPages) -> None:
        self._pages = pages

    def routes(self) -> list[Route]:
        """Return the routes of the handlers."""
        handlers = (("apply", self.apply), ("withdraw", self.withdraw), ("claim", self.claim))
        guarded = self._pages.guarded
        return [
            Route(_PATH, guarded(self.show)),
            *(Route(f"{_PATH}/{name}", guarded(handler), methods=["POST"]) for name, handler in handlers),
        ]

    # --- Read ---

    async def show(self, request: Request) -> Response:
        """Render the draw of an office in its phase."""
        pages = self._pages
        return await self._render(request, pages.translator(request), pages.selection(request.query_params))

    async def _render(
        self,
        request: Request,
        translator: Translator,
        selection: BookingSelection,
        status: int = 200,
        *,
        errors: Errors = (),
        reason: str = "",
        fields: Mapping[str, str] | None = None,
        niks: Sequence[str] = (),
    ) -> Response:
        pages, office = self._pages, selection.office
        view = await self._view(office)
        if view is None:
            return RedirectResponse(selection.url, 303)
        config, now_ms = view.config, pages.service.now_ms()
        receipt = self._receipt(request, view)
        result = await self._result(view, receipt)
        at_ms = config.opens_at_ms if view.phase is DrawPhase.ANNOUNCED else config.closes_at_ms
        options = self._options(translator, selection, view) if view.phase is DrawPhase.OPEN else []
        return pages.render(
            request,
            "draw.html",
            translator,
            status,
            here=f"{_PATH}?office={office.id}&",
            selection=selection,
            view=view,
            phase=view.phase.name,
            now_ms=now_ms,
            at_ms=at_ms,
            when=translator.moment(pages.local_time(at_ms, office)),
            countdown=translator.countdown(at_ms - now_ms),
            receipt=receipt,
            result=result,
            won=self._choice_text(translator, result) if result is not None and result.preference else "",
            can_claim=await self._awarded(receipt, result) is not None,
            options=options,
            ranks=range(1, min(config.choices_max, _CHOICES_SHOWN_MAX, len(options)) + 1),
            groups=list(pages.service.catalog.groups.values()),
            party_max=config.party_max,
            fields=fields or {},
            niks=niks,
            errors=errors,
            reason=reason,
        )

    async def _view(self, office: ResolvedOffice) -> DrawView | None:
        """Return the draw that the catalog names for an office, or ``None``."""
        view = await self._pages.service.engine.draw(office.draw).view() if office.draw else None
        if view is not None:
            self._pages.service.publications.check_draw(view)
        return view

    def _receipt(self, request: Request, view: DrawView) -> DrawReceipt | None:
        """Return this browser's receipt of a draw, or ``None``."""
        parts = self._pages.signed_cookie(request, _COOKIE).split("|")
        if len(parts) != 5 or parts[0] != view.draw:
            return None
        draw, number, version, epoch, token = parts
        return DrawReceipt(draw, int(number), int(version), int(epoch), token)

    async def _result(self, view: DrawView, receipt: DrawReceipt | None) -> ApplicationResultBody | None:
        """Return the result of the receipt's application; ``None`` before the draw, or if a failover has lost it."""
        if receipt is None or view.phase is not DrawPhase.REVEALED:
            return None
        service = self._pages.service
        published = await service.draw_files.get(
            service.engine.draw(view.draw), view, service.publications.check_draw(view)
        )
        result = await asyncio.to_thread(published.find_result, receipt.number)
        return result if result is not None and receipt.token in result.tokens else None

    async def _awarded(self, receipt: DrawReceipt | None, result: ApplicationResultBody | None) -> Reservation | None:
        """Return the reservation that the office holds for a winner, or ``None`` before the award."""
        if receipt is None or result is None or not result.preference:
            return None
        secrets = Pseudonyms(bytes(self._pages.service.config.identity_key))
        office = result.choices[result.preference - 1].office
        reference = f"{office}~{award_id(secrets, receipt.draw, receipt.number)}"
        return await self._pages.service.engine.lookup(reference)

    def _choice_text(self, translator: Translator, result: ApplicationResultBody) -> str:
        choice = result.choices[result.preference - 1]
        office = self._pages.service.catalog.offices.get(choice.office)
        session = name_of(office.sessions, choice.session, translator.language) if office else choice.session
        return ", ".join(part for part in (translator.date(choice.day), session) if part)

    def _options(self, translator: Translator, selection: BookingSelection, view: DrawView) -> list[tuple[str, str]]:
        """Return the days and sessions to rank, as value and text."""
        office, catalog = selection.office, self._pages.service.catalog
        first, last = map(datetime.date.fromordinal, (view.config.first_day, view.config.last_day))
        sessions: list[tuple[str, str]] = []
        for session in selection.sessions:
            with contextlib.suppress(InvalidRequest):
                choice_of(
                    catalog,
                    office.id,
                    Selection(
                        service=selection.service,
                        session=session,
                        channel=office.draw_channel,
                        group=selection.group,
                    ),
                )
                sessions.append((session, name_of(office.sessions, session, translator.language)))
        options = [
            (f"{day.isoformat()}|{session}", ", ".join(part for part in (translator.date(day), name) if part))
            for day in working_days(office.calendar, first, last)
            for session, name in sessions
        ]
        return options[:_OPTIONS_MAX]

    # --- Change ---

    async def apply(self, request: Request) -> Response:
        """Send the application, or change it with the receipt of this browser."""
        pages = self._pages
        translator, submitted = pages.translator(request), await read_form(request)
        if submitted is None:
            return RedirectResponse("/", 303)
        fields = dict(submitted)
        selection = pages.selection(fields)
        view = await self._view(selection.office)
        if view is None:
            return RedirectResponse(selection.url, 303)
        niks = [value for name, value in submitted if name == "nik" and value.strip()]
        ranked = {name: fields.get(name, "") for name in (f"choice{rank}" for rank in range(1, _CHOICES_SHOWN_MAX + 1))}
        chosen = [value for value in ranked.values() if value]
        errors = pages.nik_errors(translator, niks)
        if not chosen:
            errors.insert(0, ("choice1", translator("draw_error_choice")))
        for index, (name, value) in enumerate(ranked.items()):
            if value and value in list(ranked.values())[:index]:
                errors.insert(0, (name, translator("draw_error_twice")))
        if errors:
            return await self._render(request, translator, selection, 422, errors=errors, fields=fields, niks=niks)
        receipt = self._receipt(request, view)
        try:
            outcome = await pages.service.engine.draw(view.draw).apply(
                niks,
                [self._choice(selection, value) for value in chosen],
                expected_version=receipt.version if receipt else 0,
                expected_epoch=receipt.epoch if receipt else 0,
            )
        except InvalidRequest:
            return RedirectResponse(f"{_PATH}?office={selection.office.id}", 303)  # no form has such a choice
        pages.service.metrics.record_draw_outcome(outcome.status)
        if outcome.ok and (receipt is not None or not outcome.replayed):
            response = RedirectResponse(f"{_PATH}?office={selection.office.id}", 303)
            self._remember(request, response, view, outcome)
            return response
        if outcome.status is DrawStatus.OVERLOADED:
            return pages.unavailable(request, f"{_PATH}?office={selection.office.id}")
        reason = self._reason(translator, outcome)
        return await self._render(request, translator, selection, 409, reason=reason, fields=fields, niks=niks)

    async def withdraw(self, request: Request) -> Response:
        """Withdraw the application of this browser's receipt. Its party's NIK confirms it."""
        pages = self._pages
        translator, submitted = pages.translator(request), await read_form(request)
        fields = dict(submitted or ())
        selection = pages.selection(fields)
        view = await self._view(selection.office)
        receipt = self._receipt(request, view) if view is not None else None
        if view is None or receipt is None or submitted is None:
            return RedirectResponse(selection.url, 303)
        nik = fields.get("nik", "")
        if not pages.is_nik(nik):
            errors = [("withdraw-nik", pages.nik_error(translator, nik))]
            return await self._render(request, translator, selection, 422, errors=errors)
        outcome = await pages.service.engine.draw(view.draw).withdraw(
            nik, expected_version=receipt.version, expected_epoch=receipt.epoch
        )
        pages.service.metrics.record_draw_outcome(outcome.status)
        if outcome.status is DrawStatus.OVERLOADED:
            return pages.unavailable(request, f"{_PATH}?office={selection.office.id}")
        if not outcome.ok:
            return await self._render(
                request, translator, selection, 409, errors=[("withdraw-nik", self._reason(translator, outcome))]
            )
        response = RedirectResponse(f"{_PATH}?office={selection.office.id}", 303)
        pages.delete_cookie(request, response, _COOKIE)
        return response

    async def claim(self, request: Request) -> Response:
        """Lead the browser of a winner's receipt to the place that the office holds."""
        pages = self._pages
        submitted = await read_form(request)
        selection = pages.selection(dict(submitted or ()))
        view = await self._view(selection.office)
        receipt = self._receipt(request, view) if view is not None else None
        result = await self._result(view, receipt) if view is not None else None
        reservation = await self._awarded(receipt, result)
        if submitted is None or reservation is None:
            return RedirectResponse(f"{_PATH}?office={selection.office.id}", 303)
        response = RedirectResponse("/reservation", 303)
        pages.remember_reservation(request, response, reservation, is_owner=True)
        return response

    def _choice(self, selection: BookingSelection, value: str) -> DrawChoice:
        day, _, session = value.partition("|")
        office = selection.office
        return DrawChoice(
            office.id,
            day,
            service=selection.service,
            session=session,
            channel=office.draw_channel,
            group=selection.group,
        )

    def _remember(self, request: Request, response: Response, view: DrawView, outcome: DrawOutcome) -> None:
        token = outcome.tokens[0] if outcome.tokens else ""
        text = f"{view.draw}|{outcome.number}|{outcome.version}|{outcome.epoch}|{token}"
        self._pages.set_signed_cookie(request, response, _COOKIE, text, view.config.forget_at_ms)

    def _reason(self, translator: Translator, outcome: DrawOutcome) -> str:
        """Return why a draw has refused. An application that is there belongs to the browser that sent it."""
        is_there = outcome.ok or outcome.status in (DrawStatus.ALREADY_APPLIED, DrawStatus.STALE)
        key = "draw_refusal_ALREADY_APPLIED" if is_there else f"draw_refusal_{outcome.status}"
        return translator(key if translator.has(key) else "refusal_other")
