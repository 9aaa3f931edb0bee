"""The page of one reservation for the office and its operators: its members, its history, and what can be changed."""

from __future__ import annotations

__all__ = ["RegistrationPages"]

import datetime
from typing import Any, Final, NamedTuple

import segno
from starlette.responses import Response

from quota_engine.catalog import Selection, extensions_left, name_of
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.lifecycle import State, Verb
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.service.pages.operator.base import OperatorPages
from quota_engine.service.pages.operator.fields import is_count, queue_number, refusal_reason
from quota_engine.service.pages.operator.places import list_places, read_place
from quota_engine.service.pages.operator.request import (
    CHANGE_ROLES,
    FieldError,
    OperatorRequest,
    PageError,
    is_allowed,
)
from quota_engine.service.pages.operator.reservation_lookup import (
    find_anywhere,
    find_on_day,
    queue_numbers_text,
    service_names,
    session_names,
    state_text,
)
from quota_engine.service.pages.registration_codes import format_code
from quota_engine.service.pages.reservation_history import HistoryStep

_PATH: Final = "/operator/reservation"
_CHANGEABLE: Final = frozenset({State.CONFIRMED, State.HELD, State.WAITING})
_MOVABLE: Final = frozenset({State.CONFIRMED, State.HELD})
_DAYS_SHOWN: Final = 14
_DONE: Final = ("moved", "extended", "removed", "replaced", "walk-in", "already")


class _HistoryRow(NamedTuple):
    """A change with its time, its name, and each difference as (name, before, after)."""

    when: str
    verb: str
    differences: list[tuple[str, str, str]]


class RegistrationPages:
    """Handlers of a reservation's page. Each form carries the version that its page has shown."""

    def __init__(self, pages: OperatorPages) -> None:
        self._pages = pages
        self._cache = pages.cache

    # --- Read ---

    async def show(self, request: OperatorRequest) -> Response:
        """Render a reservation that is found by code, reference, or queue number of the day."""
        return await self._render(request, await self._find(request))

    async def ticket(self, request: OperatorRequest) -> Response:
        """Render tickets to print, one for each member of the party."""
        found = await self._find(request)
        if not found.queue_numbers:
            raise PageError(409, "refused", why=state_text(request, found))
        return self._pages.render(
            request,
            "ticket.html",
            "queue",
            **self._details(request, found),
            qr_code=segno.make(found.reference, error="m").svg_inline(scale=4, border=4),
        )

    # --- Change ---

    async def extend(self, request: OperatorRequest) -> Response:
        """Give a hold more time."""
        found = await self._find(request)
        outcome = await self._pages.service.engine.extend(
            found.reference, found.extensions + 1, expected_version=_version(request)
        )
        return await self._finish(request, found, outcome, "extended")

    async def remove(self, request: OperatorRequest) -> Response:
        """Take one member out of a party."""
        found = await self._find(request)
        try:
            outcome = await self._pages.service.engine.remove_applicant(
                found.reference, request.field("applicant"), expected_version=_version(request)
            )
        except InvalidRequest:
            return await self._render(request, found, 422, FieldError("applicant", request.translator("nik_missing")))
        return await self._finish(request, found, outcome, "removed", "applicant")

    async def choose_move(self, request: OperatorRequest) -> Response:
        """Render the days and sessions to which a reservation can move."""
        return await self._render_move(request, await self._movable(request))

    async def move(self, request: OperatorRequest) -> Response:
        """Move a reservation to another day, session or office, after a confirmation that shows both places."""
        found = await self._movable(request)
        target, (day, session) = self._target(request), read_place(request.field("place"))
        try:
            date = datetime.date.fromisoformat(day)
        except ValueError:
            error = FieldError("place", request.translator("move_choose"))
            return await self._render_move(request, found, 422, error)
        if not request.is_confirmed:
            return self._pages.render(
                request,
                "move_question.html",
                "queue",
                **self._details(request, found),
                target=target,
                place=request.field("place"),
                target_day=date,
                target_session=name_of(target.sessions, session, request.translator.language),
            )
        choice = found.choice
        outcome = await self._pages.service.engine.reschedule(
            found.reference,
            date,
            office="" if target.id == found.office else target.id,
            service=choice.service,
            service_unit=choice.service_unit if target.id == found.office else "",
            session=session,
            channel=choice.channel,
            group=choice.group,
            expected_version=_version(request),
        )
        self._cache.invalidate(found.office, datetime.date.fromordinal(found.day))
        self._cache.invalidate(target.id, date)
        self._pages.service.metrics.record_outcome(outcome.status)
        if not outcome.ok or outcome.reservation is None:
            text = request.translator("refused", why=refusal_reason(request.translator, outcome.status))
            return await self._render_move(request, found, 409, FieldError("place", text))
        return self._pages.redirect(
            request, _PATH, office=target.id, number=outcome.reservation.reference, done="moved"
        )

    # --- Parts ---

    async def _find(self, request: OperatorRequest) -> Reservation:
        """Return the reservation of the request.

        Raises:
            PageError: the office has no such number or code.
        """
        text = request.field("number")
        found = None if queue_number(text) is not None else await find_anywhere(self._pages, request, text)
        if found is None:
            found = await find_on_day(self._pages, request, self._pages.day(request), text)
        if found is None:
            raise PageError(404, "number_unknown")
        return found

    async def _movable(self, request: OperatorRequest) -> Reservation:
        found = await self._find(request)
        if found.state not in _MOVABLE:
            raise PageError(409, "refused", why=state_text(request, found))
        return found

    def _target(self, request: OperatorRequest) -> Any:
        """Return the office to move to. Raises :class:`PageError` if the operator may not change it."""
        name = request.field("to") or request.office.id
        offices = self._pages.service.catalog.offices
        if name not in offices:
            raise PageError(404, "unknown_office")
        if not is_allowed(request.grant, CHANGE_ROLES, name):
            raise PageError(403, "not_allowed")
        return offices[name]

    async def _finish(
        self, request: OperatorRequest, found: Reservation, outcome: Outcome, done: str, field: str = "change"
    ) -> Response:
        self._cache.invalidate(found.office, datetime.date.fromordinal(found.day))
        self._pages.service.metrics.record_outcome(outcome.status)
        if outcome.ok:
            return self._pages.redirect(request, _PATH, number=found.reference, done=done)
        if outcome.status is Status.WRONG_STATE:
            text = state_text(request, outcome.reservation or found)
        else:
            text = request.translator("refused", why=refusal_reason(request.translator, outcome.status))
        return await self._render(request, found, 409, FieldError(field, text))

    def _details(self, request: OperatorRequest, found: Reservation) -> dict[str, Any]:
        """Return the variables that name a reservation."""
        pages, translator, catalog = self._pages, request.translator, self._pages.service.catalog
        return {
            "reservation": found,
            "day": datetime.date.fromordinal(found.day),
            "number": queue_numbers_text(found),
            "code": format_code(found.id),
            "session": session_names(request).get(found.choice.session, found.choice.session),
            "service": service_names(request).get(found.choice.service, found.choice.service),
            "group": name_of(catalog.groups, found.choice.group, translator.language),
            "channel": name_of(catalog.channels, found.choice.channel, translator.language),
            "moment": lambda at_ms: translator.moment(pages.local_time(at_ms, request.office)),
        }

    async def _render(
        self, request: OperatorRequest, found: Reservation, status: int = 200, error: FieldError | None = None
    ) -> Response:
        pages, now_ms = self._pages, self._pages.service.now_ms()
        today = pages.today(request.office)
        day = datetime.date.fromordinal(found.day)
        is_confirmed = found.state is State.CONFIRMED
        history = await self._cache.history(found)
        is_held = found.state is State.HELD and now_ms < found.deadline_at_ms
        return pages.render(
            request,
            "reservation.html",
            "queue",
            status,
            **self._details(request, found),
            members=list(found.queue_numbers) or [0] * found.units,
            history=[self._history_row(request, step) for step in history.steps],
            is_complete=history.is_complete,
            is_held=is_held,
            extensions_left=extensions_left(pages.service.catalog, found) if is_held else 0,
            can_check_in=is_confirmed and day == today,
            can_mark=is_confirmed and day <= today,
            can_undo=found.undo_until_ms > now_ms,
            can_move=found.state in _MOVABLE,
            is_changeable=found.state in _CHANGEABLE,
            error=error,
            done=request.done(*_DONE),
        )

    def _history_row(self, request: OperatorRequest, step: HistoryStep) -> _HistoryRow:
        translator = request.translator
        moment = self._pages.local_time(step.at_ms, request.office)
        sessions = session_names(request)

        def texts(record: Reservation) -> dict[str, str]:
            return {
                "state": translator(f"state_{record.state}"),
                "day": translator.date(datetime.date.fromordinal(record.day)),
                "session": sessions.get(record.choice.session, record.choice.session),
                "queue_number": queue_numbers_text(record),
                "people": str(record.units),
            }

        after = texts(step.after)
        before = texts(step.before) if step.before is not None else {}
        if step.verb is Verb.EXTEND and step.before is not None:
            before["deadline"] = translator.time(self._pages.local_time(step.before.deadline_at_ms, request.office))
            after["deadline"] = translator.time(self._pages.local_time(step.after.deadline_at_ms, request.office))
        return _HistoryRow(
            translator.moment(moment),
            translator(f"verb_{step.verb}"),
            [
                (translator(name), before.get(name, ""), text)
                for name, text in after.items()
                if before.get(name, "–") != text
            ],
        )

    async def _render_move(
        self, request: OperatorRequest, found: Reservation, status: int = 200, error: FieldError | None = None
    ) -> Response:
        pages, target, translator = self._pages, self._target(request), request.translator
        choice = found.choice
        _, views = await self._cache.days(target)
        selection = Selection(
            service=choice.service,
            service_unit=choice.service_unit if target.id == found.office else "",
            channel=choice.channel,
            group=choice.group,
        )
        places = list_places(pages.service.catalog, target, selection, views, pages.service.now_ms())
        days = dict.fromkeys(place.day for place in places)
        shown = set(list(days)[:_DAYS_SHOWN])
        here = (found.office, datetime.date.fromordinal(found.day), choice.session)
        return pages.render(
            request,
            "move.html",
            "queue",
            status,
            **self._details(request, found),
            target=target,
            targets=[office for office in pages.offices(request.grant) if choice.service in office.services],
            places=[
                (
                    place,
                    name_of(target.sessions, place.session, translator.language),
                    (target.id, place.day, place.session) == here,
                )
                for place in places
                if place.day in shown
            ],
            chosen=request.field("place"),
            error=error,
        )


def _version(request: OperatorRequest) -> int:
    """Return the version that the page of the form has shown; 0 if it has shown none."""
    value = request.fields.get("version", "")
    return int(value) if is_count(value) else 0
