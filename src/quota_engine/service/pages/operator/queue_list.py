"""The queue list of a day: check applicants in and mark no-shows, by queue number and without identities."""

from __future__ import annotations

__all__ = ["QueueListPages"]

import datetime
from collections.abc import Iterator, Sequence
from typing import Final

from starlette.responses import Response

from quota_engine.catalog import name_of
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.identity import Pseudonyms
from quota_engine.domain.lifecycle import ACTIVE, State
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.service.pages.operator.base import OperatorPages
from quota_engine.service.pages.operator.csv_export import people_csv
from quota_engine.service.pages.operator.fields import is_count, queue_number, refusal_reason
from quota_engine.service.pages.operator.request import FieldError, OperatorRequest, PageError
from quota_engine.service.pages.operator.reservation_lookup import (
    SEARCH_LENGTH_MAX,
    find_anywhere,
    find_on_day,
    service_names,
    session_names,
    state_text,
)
from quota_engine.service.pages.registration_codes import format_code, read_code

_ROWS_PER_PAGE: Final = 30
"""Rows of a page. With more of them, the page would exceed 40 kB."""
_ROWS_PER_SHEET: Final = 150
_FILTERS: Final = {
    "expected": State.CONFIRMED,
    "attended": State.ATTENDED,
    "no_show": State.NO_SHOW,
    "held": State.HELD,
    "waiting": State.WAITING,
}
_LIST_FIELDS: Final = ("day", "show", "session", "q", "from")
_CANCELLABLE: Final = frozenset({State.CONFIRMED, State.HELD, State.WAITING})
_COLUMNS: Final = (
    "office", "day", "session", "queue_number", "person_state", "service", "group", "channel", "party_size", "reference"
)  # fmt: skip


class QueueListPages:
    """Handlers of the queue list."""

    def __init__(self, pages: OperatorPages) -> None:
        self._pages = pages
        self._cache = pages.cache

    # --- Read ---

    async def list(self, request: OperatorRequest) -> Response:
        """Render the list of a day, filtered or searched."""
        return await self._render(request)

    async def rows(self, request: OperatorRequest) -> Response:
        """Render the rows alone. The page's script refreshes them, because several operators work on one list."""
        return await self._render(request, template="queue_rows.html")

    async def csv(self, request: OperatorRequest) -> Response:
        """Return the people of a day as a file for a spreadsheet, one row a person, with ended places."""
        day, translator = self._pages.day(request), request.translator
        reservations = await self._cache.reservations(request.office.id, day)
        rows = [row for one in reservations for row in self._people_rows(request, day, one)]
        name = f"{request.office.id}-{day.isoformat()}.csv"
        return people_csv(translator, name, [translator(column) for column in _COLUMNS], rows)

    def _people_rows(
        self, request: OperatorRequest, day: datetime.date, reservation: Reservation
    ) -> Iterator[tuple[str, ...]]:
        """Yield a row for each person of a party, without identities."""
        choice, catalog, language = reservation.choice, self._pages.service.catalog, request.translator.language
        numbers = [str(number) for number in reservation.queue_numbers] or [""] * reservation.units
        for number in numbers:
            yield (
                request.office.name,
                day.isoformat(),
                session_names(request).get(choice.session, choice.session),
                number,
                request.translator(f"state_{reservation.state}"),
                service_names(request).get(choice.service, choice.service),
                name_of(catalog.groups, choice.group, language),
                name_of(catalog.channels, choice.channel, language),
                str(reservation.units),
                format_code(reservation.id),
            )

    async def print_list(self, request: OperatorRequest) -> Response:
        """Render the list of a day to print, with those who are expected, came, or did not come."""
        return await self._render(request, template="day_list.html", rows=_ROWS_PER_SHEET)

    # --- Change ---

    async def check_in(self, request: OperatorRequest) -> Response:
        """Check in the reservation whose queue number or reference was typed or scanned."""
        day, number = self._pages.day(request), request.field("number")
        reservation = await self._find(request, day, number)
        if reservation is None:
            text = await self._not_found_reason(request, number) if number else request.translator("number_missing")
            return await self._render(request, 422, FieldError("number", text, number))
        outcome = await self._pages.service.engine.check_in(reservation.reference)
        return await self._finish(request, day, reservation, outcome, "check-in", number)

    async def find_person(self, request: OperatorRequest) -> Response:
        """Show the reservation of a person whose NIK was typed: on the shown day, or on another published day.

        The NIK is hashed at once. It is in no address, in no log line and on no page.
        """
        nik, office = request.field("nik"), request.office
        catalog, key = self._pages.service.catalog, bytes(self._pages.service.config.identity_key)
        try:
            applicant = Pseudonyms(key, catalog.identity_format).of(nik)
        except InvalidRequest:
            expected = catalog.identity_format.expected_in(request.translator.language)
            text = request.translator("nik_expected" if expected else "nik_missing", expected=expected)
            return await self._render(request, 422, FieldError("nik", text))
        shown, (_, views) = self._pages.day(request), await self._cache.days(office)
        days = dict.fromkeys((shown, *(datetime.date.fromordinal(view.day) for view in views)))
        for day in days:
            for reservation in await self._cache.reservations(office.id, day):
                if applicant in reservation.applicants and reservation.state in ACTIVE:
                    return self._pages.redirect(request, "/operator/reservation", day=day, number=reservation.reference)
        return await self._render(request, 404, FieldError("nik", request.translator("nik_unknown")))

    async def ask_cancel(self, request: OperatorRequest) -> Response:
        """Ask the operator to confirm a cancellation."""
        day = self._pages.day(request)
        reservation = await self._find(request, day, request.fields.get("number", ""))
        if reservation is None:
            raise PageError(404, "number_unknown")
        if reservation.state not in _CANCELLABLE:
            raise PageError(409, "refused", why=state_text(request, reservation))
        return self._pages.render(
            request,
            "cancel.html",
            "queue",
            day=day,
            reservation=reservation,
            session=session_names(request).get(reservation.choice.session, reservation.choice.session),
            service=service_names(request).get(reservation.choice.service, reservation.choice.service),
        )

    async def cancel(self, request: OperatorRequest) -> Response:
        """Cancel a confirmed reservation, or release a hold or a wait-list position, after a confirmation."""
        day = self._pages.day(request)
        reservation = await self._find(request, day, request.fields.get("number", ""))
        if reservation is None:
            raise PageError(404, "number_unknown")
        if not request.is_confirmed:
            return await self.ask_cancel(request)
        engine = self._pages.service.engine
        is_confirmed = reservation.state is State.CONFIRMED
        outcome = await (engine.cancel if is_confirmed else engine.release)(reservation.reference)
        return await self._finish(request, day, reservation, outcome, "canceled", "")

    async def ask_no_show(self, request: OperatorRequest) -> Response:
        """Ask the operator to confirm a no-show, and show its consequences."""
        day = self._pages.day(request)
        reservation = await self._find(request, day, request.fields.get("number", ""))
        if reservation is None:
            raise PageError(404, "number_unknown")
        if reservation.state is not State.CONFIRMED:
            raise PageError(409, "refused", why=state_text(request, reservation))
        return self._pages.render(
            request,
            "no_show.html",
            "queue",
            day=day,
            reservation=reservation,
            session=session_names(request).get(reservation.choice.session, reservation.choice.session),
            service=service_names(request).get(reservation.choice.service, reservation.choice.service),
            block_days=-(-request.office.rules.no_show_block_ms // 86_400_000),
            undo_time=request.translator.duration(request.office.rules.undo_window_ms),
        )

    async def no_show(self, request: OperatorRequest) -> Response:
        """Mark a confirmed no-show."""
        day = self._pages.day(request)
        reservation = await self._find(request, day, request.fields.get("number", ""))
        if reservation is None:
            raise PageError(404, "number_unknown")
        if not request.is_confirmed:
            return await self.ask_no_show(request)
        outcome = await self._pages.service.engine.mark_no_show(reservation.reference)
        return await self._finish(request, day, reservation, outcome, "no-show", "")

    async def undo(self, request: OperatorRequest) -> Response:
        """Undo a check-in or no-show. The number of the button is ``REFERENCE@VERSION``, as the page has shown it."""
        day = self._pages.day(request)
        number, _, version = request.field("number").partition("@")
        reservation = await self._find(request, day, number)
        if reservation is None:
            raise PageError(404, "number_unknown")
        outcome = await self._pages.service.engine.undo_attendance(
            reservation.reference, expected_version=int(version) if is_count(version) else 0
        )
        return await self._finish(request, day, reservation, outcome, "undone", "")

    async def ask_replace(self, request: OperatorRequest) -> Response:
        """Ask the operator who leaves the party of a reservation, and who takes their place."""
        return await self._render_replace(request)

    async def replace(self, request: OperatorRequest) -> Response:
        """Put another person in the place of one of a party."""
        day = self._pages.day(request)
        reservation = await self._find(request, day, request.fields.get("number", ""))
        if reservation is None:
            raise PageError(404, "number_unknown")
        leaving, newcomer = request.field("applicant"), request.field("replacement")
        try:
            outcome = await self._pages.service.engine.replace_applicant(
                reference=reservation.reference, applicant=leaving, replacement=newcomer
            )
        except InvalidRequest:
            return await self._render_replace(
                request, FieldError("replacement", request.translator("replace_niks"), "")
            )
        self._cache.invalidate(request.office.id, day)
        self._pages.service.metrics.record_outcome(outcome.status)
        if not outcome.ok:
            text = request.translator("refused", why=refusal_reason(request.translator, outcome.status))
            field = "applicant" if outcome.status is Status.NOT_IN_PARTY else "replacement"
            return await self._render_replace(request, FieldError(field, text, ""))
        return self._pages.redirect(request, "/operator/reservation", number=reservation.reference, done="replaced")

    async def _render_replace(self, request: OperatorRequest, error: FieldError | None = None) -> Response:
        """Render the form. It never shows an identity again, not even the one that was just entered."""
        day = self._pages.day(request)
        reservation = await self._find(request, day, request.fields.get("number", ""))
        if reservation is None:
            raise PageError(404, "number_unknown")
        status = 200 if error is None else 409
        return self._pages.render(
            request, "replace.html", "queue", status, day=day, reservation=reservation, error=error
        )

    async def _find(self, request: OperatorRequest, day: datetime.date, text: str) -> Reservation | None:
        return await find_on_day(self._pages, request, day, text)

    async def _not_found_reason(self, request: OperatorRequest, text: str) -> str:
        """Return why the day has no such number or code: the code may belong to another day."""
        translator = request.translator
        found = await find_anywhere(self._pages, request, text)
        if found is not None:
            day = translator.date(datetime.date.fromordinal(found.day))
            return translator("number_other_day", day=day, state=translator(f"state_{found.state}"))
        return translator("number_unknown")

    async def _finish(
        self,
        request: OperatorRequest,
        day: datetime.date,
        reservation: Reservation,
        outcome: Outcome,
        done: str,
        number: str,
    ) -> Response:
        """Redirect to the list after a success; otherwise render the reason beside the field of the number."""
        self._cache.invalidate(request.office.id, day)
        self._pages.service.metrics.record_outcome(outcome.status)
        if outcome.ok and not outcome.replayed and request.fields.get("next") == "call":
            chosen = {name: value for name in ("session", "counter") if (value := request.field(name))}
            return self._pages.redirect(request, "/operator/call", **chosen)
        if outcome.ok and not outcome.replayed:
            return self._pages.redirect(
                request,
                "/operator/queue",
                day=day,
                **{name: request.fields[name] for name in ("show", "session") if request.fields.get(name)},
                done=done,
                number=reservation.queue_number,
            )
        if outcome.ok or outcome.status is Status.WRONG_STATE:
            text = state_text(request, outcome.reservation or reservation)
        else:
            text = request.translator("refused", why=refusal_reason(request.translator, outcome.status))
        return await self._render(request, 409, FieldError("number", text, number))

    async def _render(
        self,
        request: OperatorRequest,
        status: int = 200,
        error: FieldError | None = None,
        *,
        template: str = "queue.html",
        rows: int = _ROWS_PER_PAGE,
    ) -> Response:
        pages, translator, day = self._pages, request.translator, self._pages.day(request)
        reservations = await self._cache.reservations(request.office.id, day)
        active = [one for one in reservations if one.state in ACTIVE]
        search = "" if request.is_post else request.field("q")[:SEARCH_LENGTH_MAX]
        show = request.fields.get("show", "")
        names = session_names(request)
        session = request.field("session") if request.field("session") in names else ""
        of_session = [one for one in active if session in ("", one.choice.session)]
        listed = [one for one in active if _matches(one, search)] if search else _filtered(of_session, show)
        start = queue_number(request.fields.get("from", "")) or 0
        end = start + rows
        today = pages.today(request.office)
        done, number = request.done("check-in", "no-show", "undone", "canceled"), request.fields.get("number", "")
        now_ms = pages.service.now_ms()
        chosen = queue_number(number) if done else None
        return pages.render(
            request,
            template,
            "queue",
            status,
            day=day,
            day_before=day - datetime.timedelta(days=1),
            day_after=day + datetime.timedelta(days=1),
            reservations=listed[start:end],
            start=start,
            next_start=end if len(listed) > end else 0,
            previous_start=max(0, start - rows),
            count=len(listed),
            ended_count=len(reservations) - len(active),
            query=request.query(*(("day", "show", "session") if request.is_post else _LIST_FIELDS)),
            updated_at=pages.updated_at(request, now_ms),
            people={state: sum(one.units for one in of_session if one.state is state) for state in _FILTERS.values()},
            filters=list(_FILTERS.items()),
            show=show if show in _FILTERS and not search else "",
            search=search,
            sessions=names,
            session=session,
            services=service_names(request),
            groups={one.id: one.display_name(translator.language) for one in pages.service.catalog.groups.values()},
            can_check_in=day == today,
            can_mark=day <= today,
            number=number if chosen is not None else "",
            now_ms=now_ms,
            recorded=next((one for one in active if chosen in one.queue_numbers and one.undo_until_ms > now_ms), None),
            error=error,
            done=done,
            format_code=format_code,
        )


def _filtered(reservations: Sequence[Reservation], show: str) -> Sequence[Reservation]:
    return [one for one in reservations if one.state is _FILTERS[show]] if show in _FILTERS else reservations


def _matches(reservation: Reservation, text: str) -> bool:
    number = queue_number(text)
    if number is not None:
        return number in reservation.queue_numbers
    return text == reservation.reference or reservation.id.startswith(text) or reservation.id == read_code(text)
