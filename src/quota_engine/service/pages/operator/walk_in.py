"""Book a place for people at the counter of an office."""

from __future__ import annotations

__all__ = ["WalkInPages"]

from typing import Any, Final

from starlette.responses import Response

from quota_engine.catalog import Selection
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.outcomes import Outcome
from quota_engine.service.pages.operator.base import OperatorPages
from quota_engine.service.pages.operator.fields import refusal_reason
from quota_engine.service.pages.operator.places import list_places
from quota_engine.service.pages.operator.request import FieldError, OperatorRequest
from quota_engine.service.pages.operator.reservation_lookup import service_names, session_names
from quota_engine.service.pages.registration_codes import new_code, read_code

_ONLINE: Final = "online"
_PREFERRED: Final = "walk-in"
_PEOPLE_MAX: Final = 10
"""Fields for members of a party. A larger party is booked through the API."""


class WalkInPages:
    """Handlers of a booking at the counter. It reserves and confirms in one step, through a channel of the office."""

    def __init__(self, pages: OperatorPages) -> None:
        self._pages = pages

    async def form(self, request: OperatorRequest) -> Response:
        """Render the form."""
        return await self._render(request)

    async def book(self, request: OperatorRequest) -> Response:
        """Reserve and confirm. The same form sent twice has one effect."""
        office, day, engine = request.office, self._pages.day(request), self._pages.service.engine
        niks = [nik for number in range(1, _PEOPLE_MAX + 1) if (nik := request.field(f"nik-{number}"))]
        channel, code = request.field("channel"), read_code(request.field("key"))
        if not niks or channel not in self._channels() or not code:
            return await self._render(request, 422, FieldError("nik-1", request.translator("walk_in_niks")))
        try:
            outcome = await engine.reserve(
                office.id,
                day,
                niks,
                service=request.field("service"),
                session=request.field("session"),
                channel=channel,
                group=request.field("group"),
                idempotency_key=code,
            )
        except InvalidRequest:
            return await self._render(request, 422, FieldError("nik-1", request.translator("walk_in_niks")))
        if outcome.resumed:  # the person took this hold before, perhaps elsewhere, and may not want it confirmed
            return self._pages.redirect(request, "/operator/reservation", number=outcome.reference, done="already")
        if outcome.ok and not outcome.queue_numbers:
            confirmed = await engine.confirm(outcome.reference)
            self._pages.service.metrics.record_outcome(confirmed.status)
            if not confirmed.ok:
                await engine.release(outcome.reference)
            outcome = confirmed
        self._pages.cache.invalidate(office.id, day)
        self._pages.service.metrics.record_outcome(outcome.status)
        if not outcome.ok:
            return await self._render(request, 409, FieldError("nik-1", self._reason(request, outcome)))
        return self._pages.redirect(request, "/operator/reservation", number=outcome.reference, done="walk-in")

    def _reason(self, request: OperatorRequest, outcome: Outcome) -> str:
        return request.translator("refused", why=refusal_reason(request.translator, outcome.status))

    def _channels(self) -> list[str]:
        """Return the channels of the office itself: all but the online one, with the walk-in queue first."""
        channels = [name for name in self._pages.service.catalog.channels if name != _ONLINE]
        return sorted(channels, key=lambda name: name != _PREFERRED)

    async def _render(self, request: OperatorRequest, status: int = 200, error: FieldError | None = None) -> Response:
        pages, office, language = self._pages, request.office, request.translator.language
        catalog, day = pages.service.catalog, pages.day(request)
        channels = self._channels()
        service = request.field("service")
        service = service if service in office.services else next(iter(office.services))
        channel = request.field("channel") if request.field("channel") in channels else next(iter(channels), "")
        _, view = await pages.cache.day(office, day)
        selection = Selection(service=service, channel=channel, group=request.field("group"))
        places: list[Any] = []
        if view is not None and channel:
            places = list_places(catalog, office, selection, [view], pages.service.now_ms())
        return pages.render(
            request,
            "walk_in.html",
            "walk_in",
            status,
            day=day,
            services=service_names(request),
            service=service,
            session_names=session_names(request),
            places=places,
            session=request.field("session"),
            channels=[(name, catalog.channels[name].display_name(language)) for name in channels],
            channel=channel,
            groups=[(one.id, one.display_name(language)) for one in catalog.groups.values()],
            group=request.field("group"),
            people_max=min(_PEOPLE_MAX, office.rules.party_max),
            key=new_code(),
            error=error,
        )
