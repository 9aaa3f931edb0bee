"""The page that closes a day with a plan: the plan first, which changes nothing, then the moves with their table."""

from __future__ import annotations

__all__ = ["RelocationPages"]

import datetime
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from starlette.responses import Response

from quota_engine.catalog import name_of
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.outcomes import Status
from quota_engine.service.pages.operator.base import OperatorPages
from quota_engine.service.pages.operator.fields import is_count, refusal_reason
from quota_engine.service.pages.operator.request import (
    CHANGE_ROLES,
    FieldError,
    OperatorRequest,
    PageError,
    is_allowed,
)
from quota_engine.workflows.relocation import RelocatedParty, RelocationReport

_LIMIT: Final = 200
"""Parties that one request moves. The page offers to continue, so that no request takes too long."""
_TARGETS_LENGTH_MAX: Final = 2_000


class _Row(NamedTuple):
    """A party in the table, with its texts."""

    queue_number: int
    units: int
    session: str
    goes_to: str
    new_number: str
    stays: bool


class RelocationPages:
    """Handlers of the plan of a day that closes. Only a form with a confirmation changes anything."""

    def __init__(self, pages: OperatorPages) -> None:
        self._pages = pages

    async def plan(self, request: OperatorRequest) -> Response:
        """Render where each party would go. Nothing is changed."""
        return await self._run(request, dry_run=True)

    async def run(self, request: OperatorRequest) -> Response:
        """Close the day, move its people, and render where each party went; without a confirmation only the plan."""
        return await self._run(request, dry_run=not request.is_confirmed)

    async def _run(self, request: OperatorRequest, *, dry_run: bool) -> Response:
        day = self._pages.day(request)
        after = request.field("after")
        try:
            report: RelocationReport = await self._pages.service.engine.relocate_day(
                request.office.id,
                day,
                self._targets(request),
                other_sessions=request.fields.get("other_sessions") == "yes",
                after=int(after) if is_count(after) else 0,
                limit=_LIMIT,
                dry_run=dry_run,
            )
        except InvalidRequest:
            error = FieldError("targets", request.translator("relocate_targets_wrong"), request.field("targets"))
            return self._render(request, day, None, 422, error)
        finally:
            if not dry_run:
                self._pages.cache.invalidate(request.office.id, day)
        if report.status is not Status.DONE:
            raise PageError(404, "unknown_day")
        return self._render(request, day, report)

    def _targets(self, request: OperatorRequest) -> list[str | tuple[str, str]]:
        """Return the days of the field, separated by spaces. ``OFFICE:DAY`` names another office.

        Raises:
            PageError: the operator may not change that office.
        """
        targets: list[str | tuple[str, str]] = []
        for text in request.field("targets")[:_TARGETS_LENGTH_MAX].split():
            office, colon, day = text.rpartition(":")
            if colon and not is_allowed(request.grant, CHANGE_ROLES, office):
                raise PageError(403, "not_allowed")
            targets.append((office, day) if colon else day)
        return targets

    def _render(
        self,
        request: OperatorRequest,
        day: datetime.date,
        report: RelocationReport | None,
        status: int = 200,
        error: FieldError | None = None,
    ) -> Response:
        parties: Sequence[RelocatedParty] = () if report is None else report.parties
        return self._pages.render(
            request,
            "relocation.html",
            "dashboard",
            status,
            day=day,
            report=report,
            rows=[self._row(request, party) for party in parties],
            targets=request.field("targets"),
            other_sessions=request.fields.get("other_sessions") == "yes",
            error=error,
            here=f"/operator?office={request.office.id}&",
        )

    def _row(self, request: OperatorRequest, party: RelocatedParty) -> _Row:
        translator, offices = request.translator, self._pages.service.catalog.offices
        target = party.target
        if target is None:
            goes_to = translator("relocate_stays", why=refusal_reason(translator, party.status))
        else:
            session = name_of(offices[target.office].sessions, party.target_session, translator.language)
            texts: list[Any] = [translator.date(datetime.date.fromordinal(target.day)), session]
            if target.office != request.office.id:
                texts.insert(0, offices[target.office].name)
            goes_to = " · ".join(text for text in texts if text)
        new_number = str(party.target_queue_number or "")
        session = name_of(request.office.sessions, party.session, translator.language)
        return _Row(party.queue_number, party.units, session, goes_to, new_number, target is None)
