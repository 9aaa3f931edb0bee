"""Changes of the catalog by operators: first a preview with the people affected, then the change with its author."""

from __future__ import annotations

__all__ = ["CatalogPages"]

import datetime
import os
import re
from typing import Final, NamedTuple

from starlette.responses import Response

from quota_engine.catalog import Catalog, OfficeChanges, ResolvedOffice, diff_catalogs, last_day_to_publish
from quota_engine.domain.day_summary import DayState, day_state
from quota_engine.domain.lifecycle import State
from quota_engine.domain.outcomes import DayView
from quota_engine.domain.validation import CAPACITY_MAX
from quota_engine.service.catalog_overlay import CatalogChange, apply_changes
from quota_engine.service.pages.operator.base import OperatorPages
from quota_engine.service.pages.operator.fields import is_count
from quota_engine.service.pages.operator.request import FieldError, OperatorRequest, PageError

_PATH: Final = "/operator/catalog"
_FIELD: Final = "capacity-"
_DAYS_MAX: Final = 370
_DAYS_LISTED_MAX: Final = 60
_REASON_LENGTH_MAX: Final = 200
_has_long_number: Final = re.compile(r"(?:[0-9][ .-]?){10}").search
"""Ten digits may be an identity, which the file and the page must not keep."""
_AFFECTED: Final = (State.CONFIRMED, State.HELD, State.WAITING)


class _Preview(NamedTuple):
    """The effects of a change: days that close with their people, days that open, and capacities."""

    closed: list[tuple[datetime.date, int]]
    opened: list[datetime.date]
    capacities: list[tuple[str, int, int]]
    people: int
    published_days: int
    """Published days that get the new capacities as well."""
    overbooked: int


class CatalogPages:
    """Handlers of the page that changes closures, holidays and capacities of coming days. A preview changes nothing."""

    def __init__(self, pages: OperatorPages) -> None:
        self._pages = pages

    async def show(self, request: OperatorRequest) -> Response:
        """Render the changes that count, and the forms for new ones."""
        return self._render(request)

    async def change(self, request: OperatorRequest) -> Response:
        """Show what a change does; with a confirmation, make it."""
        change = self._read(request)
        if isinstance(change, FieldError):
            return self._render(request, 422, change)
        return await self._preview_or_do(request, change)

    async def remove(self, request: OperatorRequest) -> Response:
        """Show what the removal of a change does; with a confirmation, remove it."""
        found = next((one for one in self._changes(request) if one.id == request.field("change")), None)
        if found is None:
            raise PageError(404, "change_unknown")
        now_ms = self._pages.service.now_ms()
        removal = CatalogChange(
            os.urandom(8).hex(), found.office, found.kind, request.grant.name, now_ms, removes=found.id
        )
        return await self._preview_or_do(request, removal, found)

    # --- Parts ---

    def _changes(self, request: OperatorRequest) -> list[CatalogChange]:
        overlay = self._pages.service.catalog_overlay
        return [one for one in overlay.changes() if one.office == request.office.id]

    def _read(self, request: OperatorRequest) -> CatalogChange | FieldError:
        """Return the change of the form, or its wrong field."""
        translator, office = request.translator, request.office
        change_id, author, at_ms = os.urandom(8).hex(), request.grant.name, self._pages.service.now_ms()
        kind = request.field("kind")
        if kind == "capacities":
            present = _capacities(office)
            capacities: dict[str, int] = {}
            for name in present:
                value = request.field(f"{_FIELD}{name}")
                if not is_count(value) or int(value) > CAPACITY_MAX:
                    text = translator("capacity_wrong", most=translator.number(CAPACITY_MAX))
                    return FieldError(f"{_FIELD}{name}", text, value)
                if int(value) != present[name]:
                    capacities[name] = int(value)
            if not capacities:
                return FieldError("capacities", translator("change_none"))
            return CatalogChange(change_id, office.id, "capacities", author, at_ms, capacities=capacities)
        if kind not in ("closure", "working_day"):
            raise PageError(400, "bad_request")
        try:
            first = datetime.date.fromisoformat(request.field("first"))
            last = datetime.date.fromisoformat(request.field("last") or request.field("first"))
        except ValueError:
            return FieldError(f"{kind}-first", translator("change_dates"))
        today = self._pages.today(office)
        if not today <= first <= last <= today + datetime.timedelta(days=_DAYS_MAX - 1):
            return FieldError(f"{kind}-first", translator("change_dates"))
        reason = request.field("reason")[:_REASON_LENGTH_MAX]
        if _has_long_number(reason):
            return FieldError(f"{kind}-reason", translator("change_reason"), "")
        return CatalogChange(
            change_id,
            office.id,
            "closure" if kind == "closure" else "working_day",
            author,
            at_ms,
            first.isoformat(),
            last.isoformat(),
            reason,
        )

    async def _preview_or_do(
        self, request: OperatorRequest, change: CatalogChange, removed: CatalogChange | None = None
    ) -> Response:
        service, office = self._pages.service, request.office
        changes = service.catalog_overlay.changes()
        kept = tuple(one for one in changes if one.id != change.removes)
        new = apply_changes(service.config.catalog, kept if change.removes else (*kept, change))
        if not request.is_confirmed:
            preview = await self._preview(request, new, change)
            if not (preview.closed or preview.opened or preview.capacities):
                return self._render(request, 422, FieldError("capacities", request.translator("change_none")))
            return self._pages.render(
                request,
                "catalog_question.html",
                "catalog",
                preview=preview,
                change=change,
                subject=removed or change,
                days_max=_DAYS_LISTED_MAX,
                fields={name: value for name, value in request.fields.items() if _is_kept(name)},
                names=self._names(request),
            )
        service.catalog_overlay.add(change)
        service.refresh_catalog()
        views = await self._views(request)
        today = self._pages.today(office)
        last = max([today, *(self._pages.date(view.day) for view in views)])
        if service.day_publisher is not None:
            last = max(last, last_day_to_publish(service.catalog, office.id, service.now_ms(), 1))
        await service.engine.publish(service.catalog, today, last, offices=[office.id])
        if change.capacities and request.field("published") == "yes":
            await self._set_published(request, change, views)
        self._pages.cache.invalidate(office.id)
        return self._pages.redirect(request, _PATH, done="change-removed" if change.removes else "change")

    async def _set_published(self, request: OperatorRequest, change: CatalogChange, views: list[DayView]) -> None:
        """Give the published days that are not over the new capacities."""
        engine = self._pages.service.engine
        for view in views:
            for name, capacity in change.capacities.items():
                if name in view.quotas and view.quotas[name].capacity != capacity:
                    day = self._pages.date(view.day)
                    outcome = await engine.set_capacity(request.office.id, day, name, capacity)
                    self._pages.service.metrics.record_outcome(outcome.status)

    async def _preview(self, request: OperatorRequest, new: Catalog, change: CatalogChange) -> _Preview:
        service, office = self._pages.service, request.office
        today = self._pages.today(office)
        last = today + datetime.timedelta(days=_DAYS_MAX - 1)
        old = apply_changes(service.config.catalog, service.catalog_overlay.changes())
        found = diff_catalogs(old, new, today, last)
        changes = next((one for one in found if one.office == office.id), OfficeChanges(office.id))
        views = await self._views(request)
        by_day = {view.day: view for view in views}
        closed: list[tuple[datetime.date, int]] = []
        for day in changes.days_closed:
            people = 0
            if (view := by_day.get(day.toordinal())) is not None and not view.closed:
                reservations = await self._pages.cache.reservations(office.id, day)
                people = sum(one.units for one in reservations if one.state in _AFFECTED)
            closed.append((day, people))
        coming = [view for view in views if day_state(view, service.now_ms()) is not DayState.OVER]
        overbooked = sum(
            max(0, counters.held + counters.confirmed + counters.cooling - capacity)
            for view in coming
            for name, capacity in change.capacities.items()
            if (counters := view.quotas.get(name)) is not None
        )
        return _Preview(
            closed,
            list(changes.days_opened),
            [(name, before, after) for name, (before, after) in changes.capacities.items()],
            sum(people for _, people in closed),
            len(coming) if change.capacities else 0,
            overbooked,
        )

    async def _views(self, request: OperatorRequest) -> list[DayView]:
        """Return the published days of the coming year."""
        today = self._pages.today(request.office)
        last = today + datetime.timedelta(days=_DAYS_MAX - 1)
        return await self._pages.service.engine.availability(request.office.id, today, last)

    def _names(self, request: OperatorRequest) -> dict[str, str]:
        office, language = request.office, request.translator.language
        return {one.id: one.display_name(language) for one in (*office.allotments, *office.quotas)}

    def _render(self, request: OperatorRequest, status: int = 200, error: FieldError | None = None) -> Response:
        pages, office, translator = self._pages, request.office, request.translator
        today = pages.today(office)
        last = today + datetime.timedelta(days=_DAYS_MAX - 1)
        holidays = [day for day in office.calendar.holidays if today <= day <= last]
        return pages.render(
            request,
            "catalog.html",
            "catalog",
            status,
            changes=self._changes(request),
            moment=lambda at_ms: translator.moment(pages.local_time(at_ms, office)),
            has_holidays=bool(holidays),
            days_off=sorted(
                [*((day, day) for day in holidays), *(one for one in office.calendar.closures if one[1] >= today)]
            ),
            capacities=list(_capacities(office).items()),
            names=self._names(request),
            is_kept=pages.service.config.operator_folder is not None,
            typed=_typed(request) if error else {},
            error=error,
            done=request.done("change", "change-removed"),
        )


def _capacities(office: ResolvedOffice) -> dict[str, int]:
    """Return the capacities by quota, those of the allotments first."""
    found = {one.id: one.capacity for one in office.allotments}
    return found | {one.id: one.capacity for one in office.quotas}


def _typed(request: OperatorRequest) -> dict[str, str]:
    """Return what the operator has typed, for the form with the error; a reason never with an identity."""
    fields = {name: value for name, value in request.fields.items() if _is_kept(name)}
    return {**fields, "reason": ""} if _has_long_number(fields.get("reason", "")) else fields


def _is_kept(name: str) -> bool:
    """Return True for a field that the confirmation repeats."""
    return name in ("kind", "first", "last", "reason", "change", "published") or name.startswith(_FIELD)
