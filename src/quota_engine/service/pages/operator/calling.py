"""Call the next number, and show the called numbers on a screen in the hall."""

from __future__ import annotations

__all__ = ["CallingPages"]

import datetime
from collections.abc import Sequence
from typing import Any, Final

from starlette.responses import Response

from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import Reservation
from quota_engine.service.pages.operator.base import OperatorPages
from quota_engine.service.pages.operator.called_numbers import (
    CALLS_SHOWN_MAX,
    COUNTER_LENGTH_MAX,
    CalledNumbers,
    NumberCall,
)
from quota_engine.service.pages.operator.fields import queue_number
from quota_engine.service.pages.operator.request import FieldError, OperatorRequest
from quota_engine.service.pages.operator.reservation_lookup import session_names

_NEXT_SHOWN: Final = 8
_RECENT_MS: Final = 15_000
"""A call is marked as new on the screen for this long."""


class CallingPages:
    """Handlers of the calls. All of them are about today."""

    def __init__(self, pages: OperatorPages) -> None:
        self._pages = pages
        self._calls = CalledNumbers(pages.service.operator_folder)

    async def show(self, request: OperatorRequest) -> Response:
        """Render the next number to call, and the numbers that were called and are still expected."""
        return await self._render(request, "call.html")

    async def parts(self, request: OperatorRequest) -> Response:
        """Render the numbers alone, which the page's script refreshes."""
        return await self._render(request, "call_rows.html")

    async def call(self, request: OperatorRequest) -> Response:
        """Call a number, or call it again. Two counters that press at once call two numbers."""
        office, today = request.office, self._pages.today(request.office)
        number = queue_number(request.field("number"))
        counter = request.field("counter")[:COUNTER_LENGTH_MAX]
        expected = await self._expected(request, today)
        if number is None or number not in expected:
            error = FieldError("number", request.translator("call_unknown"))
            return await self._render(request, "call.html", 409, error)
        call = NumberCall(number, counter, self._pages.service.now_ms(), again=request.field("again") == "yes")
        if not await self._calls.add(office.id, today, call):
            error = FieldError("number", request.translator("call_taken", number=number))
            return await self._render(request, "call.html", 409, error)
        chosen = {name: value for name in ("session",) if (value := request.field(name))}
        return self._pages.redirect(request, "/operator/call", counter=counter, **chosen)

    async def screen(self, request: OperatorRequest) -> Response:
        """Render the page for a screen in the hall. It has queue numbers only."""
        return await self._render(request, "screen.html")

    async def screen_parts(self, request: OperatorRequest) -> Response:
        """Render the numbers of the screen alone, which its script refreshes."""
        return await self._render(request, "screen_rows.html")

    async def _last(self, request: OperatorRequest) -> list[NumberCall]:
        return await self._calls.last(request.office.id, self._pages.today(request.office))

    async def _expected(self, request: OperatorRequest, day: datetime.date) -> dict[int, Reservation]:
        """Return the confirmed registrations of a day by their first number, in the order of the numbers."""
        reservations: Sequence[Reservation] = await self._pages.cache.reservations(request.office.id, day)
        return {one.queue_number: one for one in reservations if one.state is State.CONFIRMED}

    async def _render(
        self, request: OperatorRequest, template: str, status: int = 200, error: FieldError | None = None
    ) -> Response:
        pages, office = self._pages, request.office
        today, now_ms = pages.today(office), pages.service.now_ms()
        expected, last, names = await self._expected(request, today), await self._last(request), session_names(request)
        session = request.field("session") if request.field("session") in names else ""
        called = {call.number for call in last}
        waiting: list[Any] = [
            one for number, one in expected.items() if number not in called and session in ("", one.choice.session)
        ]
        return pages.render(
            request,
            template,
            "call",
            status,
            day=today,
            next=waiting[:_NEXT_SHOWN],
            waiting_count=len(waiting),
            open_calls=[(call, expected[call.number]) for call in last if call.number in expected],
            shown_calls=[(call, now_ms - call.at_ms < _RECENT_MS) for call in last[:CALLS_SHOWN_MAX]],
            sessions=names,
            session=session,
            counter=request.field("counter")[:COUNTER_LENGTH_MAX],
            query=request.query("session", "counter"),
            time=pages.local_time(now_ms, office),
            updated_at=pages.updated_at(request, now_ms),
            error=error,
        )
