"""A day for operators: its figures, its capacities, and closing or opening it."""

from __future__ import annotations

__all__ = ["DayPages"]

import datetime
from collections.abc import Awaitable
from typing import Any, Final, NamedTuple

from starlette.responses import Response

from quota_engine.domain.lifecycle import State
from quota_engine.domain.outcomes import DayView, Outcome, Status
from quota_engine.domain.validation import CAPACITY_MAX
from quota_engine.service.pages.operator.base import OperatorPages
from quota_engine.service.pages.operator.day_tables import day_table
from quota_engine.service.pages.operator.fields import is_count, refusal_reason
from quota_engine.service.pages.operator.request import FieldError, OperatorRequest, PageError
from quota_engine.workflows.catalog_changes import count_people

_AFFECTED_STATES: Final = (State.CONFIRMED, State.HELD, State.WAITING)


_FIELD: Final = "capacity-"


class _LowCapacity(NamedTuple):
    """A capacity below the places that are taken."""

    name: str
    capacity: int
    taken: int

    @property
    def overbooked(self) -> int:
        return self.taken - self.capacity


class _CapacityQuestion(NamedTuple):
    """New capacities of which some are below the places that are taken, so that the operator has to confirm them."""

    changes: dict[str, int]
    low: list[_LowCapacity]
    revision: int
    """The day's revision on the page where the operator entered the capacities."""


class DayPages:
    """Handlers of a day's page. A wrong field is reported beside it, with the submitted value."""

    def __init__(self, pages: OperatorPages) -> None:
        self._pages = pages
        self._cache = pages.cache

    async def day(self, request: OperatorRequest) -> Response:
        """Render a day; with ``ask=close`` also the people whom closing it affects."""
        return await self._render(request)

    async def figures(self, request: OperatorRequest) -> Response:
        """Render the figures alone, which the page's script refreshes."""
        return await self._render(request, template="day_figures.html")

    async def set_capacities(self, request: OperatorRequest) -> Response:
        """Set the capacities that differ. Capacities below the places that are taken have to be confirmed."""
        day, view = await self._known_day(request)
        entered = {name.removeprefix(_FIELD): name for name in request.fields if name.startswith(_FIELD)}
        if not entered or not entered.keys() <= view.quotas.keys():
            raise PageError(404, "unknown_quota")
        changes: dict[str, int] = {}
        for quota, field in entered.items():
            value = request.field(field)
            if not is_count(value) or int(value) > CAPACITY_MAX:
                text = request.translator("capacity_wrong", most=request.translator.number(CAPACITY_MAX))
                return await self._render(request, 422, error=FieldError(field, text, value))
            if int(value) != view.quotas[quota].capacity:
                changes[quota] = int(value)
        low = [_LowCapacity(quota, capacity, _taken(view, quota)) for quota, capacity in changes.items()]
        low = [one for one in low if one.overbooked > 0]
        if low and not request.is_confirmed:
            return await self._render(request, question=_CapacityQuestion(changes, low, request.revision))
        revision, done = request.revision, []
        for quota, capacity in changes.items():
            command = self._engine.set_capacity(request.office.id, day, quota, capacity, expected_revision=revision)
            outcome = await self._execute(request, day, command)
            field, value = f"{_FIELD}{quota}", str(capacity)
            if outcome.status is Status.STALE:
                _, view = await self._known_day(request)
                present = request.translator.number(view.quotas[quota].capacity)
                text = request.translator("capacity_stale", capacity=present)
                return await self._render(request, 409, error=FieldError(field, text, value))
            if not outcome.ok:
                reason = refusal_reason(request.translator, outcome.status)
                return await self._render(request, 409, error=FieldError(field, reason, value))
            revision = outcome.revision if revision else 0
            done.append(f"{quota}:{view.quotas[quota].capacity}:{capacity}")
        return self._pages.redirect(request, "/operator/day", day=day, done="capacity", changed=",".join(done))

    async def close(self, request: OperatorRequest) -> Response:
        """Close a day that the operator has confirmed; otherwise show whom closing it affects."""
        day, _ = await self._known_day(request)
        if not request.is_confirmed:
            return self._pages.redirect(request, "/operator/day", day=day, ask="close")
        command = self._engine.close_day(request.office.id, day, expected_revision=request.revision)
        return await self._answer(request, day, await self._execute(request, day, command), "closed")

    async def open(self, request: OperatorRequest) -> Response:
        """Open a closed day again."""
        day, _ = await self._known_day(request)
        command = self._engine.open_day(request.office.id, day, expected_revision=request.revision)
        return await self._answer(request, day, await self._execute(request, day, command), "opened")

    @property
    def _engine(self) -> Any:
        return self._pages.service.engine

    async def _known_day(self, request: OperatorRequest) -> tuple[datetime.date, DayView]:
        day = self._pages.day(request)
        _, view = await self._cache.day(request.office, day)
        if view is None:
            raise PageError(404, "unknown_day")
        return day, view

    async def _execute(self, request: OperatorRequest, day: datetime.date, command: Awaitable[Outcome]) -> Outcome:
        try:
            outcome = await command
        finally:
            self._cache.invalidate(request.office.id, day)
        self._pages.service.metrics.record_outcome(outcome.status)
        return outcome

    async def _answer(self, request: OperatorRequest, day: datetime.date, outcome: Outcome, done: str) -> Response:
        if outcome.status is Status.STALE:
            _, view = await self._known_day(request)
            text = request.translator("day_stale_closed" if view.closed else "day_stale_open")
            return await self._render(request, 409, stale=text)
        if not outcome.ok:
            raise PageError(409, "refused", why=refusal_reason(request.translator, outcome.status))
        return self._pages.redirect(request, "/operator/day", day=day, done=done)

    async def _render(
        self,
        request: OperatorRequest,
        status: int = 200,
        *,
        template: str = "day.html",
        error: FieldError | None = None,
        question: _CapacityQuestion | None = None,
        stale: str = "",
    ) -> Response:
        pages, office, translator = self._pages, request.office, request.translator
        day, view = await self._known_day(request)
        read_at_ms, _ = await self._cache.day(office, day)
        table = day_table(translator, pages.service.catalog, office, view, pages.service.now_ms())
        withdrawn_people: int | None = None
        if table.correction is not None:
            withdrawn_people = count_people(table.correction, await self._cache.reservations(office.id, day))
        affected: dict[State, int] | None = None
        if request.fields.get("ask") == "close" and not view.closed:
            reservations = await self._cache.reservations(office.id, day)
            affected = {
                state: sum(one.units for one in reservations if one.state is state) for state in _AFFECTED_STATES
            }
        return pages.render(
            request,
            template,
            "dashboard",
            status,
            day_table=table,
            withdrawn_people=withdrawn_people,
            updated_at=pages.updated_at(request, read_at_ms),
            moment=lambda at_ms: translator.moment(pages.local_time(at_ms, office)),
            query=request.query("day"),
            affected=affected,
            question=question,
            names={row.id: row.name for row in table.quotas},
            changed=request.changes("changed"),
            error=error,
            stale=stale,
            done=request.done("capacity", "closed", "opened"),
        )


def _taken(view: DayView, quota: str) -> int:
    counters = view.quotas[quota]
    return counters.held + counters.confirmed + counters.cooling
