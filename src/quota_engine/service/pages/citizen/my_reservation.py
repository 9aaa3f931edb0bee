"""The pages of somebody's own place: its form and clock, its place on the wait list, its number, or its end."""

from __future__ import annotations

__all__ = ["Places"]

import datetime
from typing import Any, Final

import msgspec
import segno
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from quota_engine.catalog import next_release
from quota_engine.domain.errors import InvalidRequest, QuotaEngineError
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import DayView, WaitListPosition
from quota_engine.service.http.problems import Problem
from quota_engine.service.http.sse import StreamEvent
from quota_engine.service.pages.citizen.base import AWAY, NO_STORE, Asked, Site
from quota_engine.service.pages.citizen.status_texts import told_waiting
from quota_engine.service.pages.forms import form_of
from quota_engine.service.pages.i18n import Words

_KINDS: Final = {State.HELD: "held", State.WAITING: "waiting", State.CONFIRMED: "done"}
"""The pages of places that are not over."""
_LOOK_EVERY_MS: Final = 1_000
_LOOK_ANYWAY_MS: Final = 15_000


class Places:
    """The handlers."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def routes(self) -> list[Route]:
        """The addresses of the pages."""
        guarded = self._site.guarded
        return [
            Route("/place", guarded(self.place, gives_way=False)),
            Route("/place/state", guarded(self.state, gives_way=False)),
            Route("/place/stream", guarded(self.stream, gives_way=False)),
            Route("/place/confirm", guarded(self.confirm, gives_way=False), methods=["POST"]),
            Route("/place/release", guarded(self.release, gives_way=False), methods=["POST"]),
            Route("/place/cancel", guarded(self.cancel, gives_way=False), methods=["POST"]),
        ]

    async def kind(self, record: Reservation) -> str:
        """``held``, ``waiting`` or ``done``; ``ended`` when it is over, as also a wait is when its day is."""
        return (await self._stands(record))[0]

    async def _stands(self, record: Reservation) -> tuple[str, WaitListPosition | None]:
        kind, place = _KINDS.get(record.state, "ended"), None
        if kind == "waiting":
            place = await self._site.service.engine.wait_list_position(record.reference)
            if place is None:
                kind = "ended"
        return kind, place

    # --- Looking ---

    async def place(self, request: Request) -> Response:
        """The place that this browser has."""
        site = self._site
        words = site.words(request)
        record = await site.record(request)
        if record is None:
            return RedirectResponse("/", 303)
        kind, place = await self._stands(record)
        office = site.service.get_office(record.office)
        asked = Asked(office, record.choice.service, record.choice.group)
        session = office.sessions.get(record.choice.session)
        now_ms = site.service.now_ms()
        mistake = request.query_params.get("mistake") == "declare" and kind == "held"
        release = next_release(site.service.catalog, office.id, now_ms)
        return site.page(
            request,
            f"{kind}.html",
            words,
            422 if mistake else 200,
            here="/place?",
            asked=asked,
            record=record,
            phase=_phase(record, kind),
            told=told_waiting(words, place) if place else {},
            offer=words.duration(office.rules.offer_ttl_ms),
            end=_end(record),
            numbers=", ".join(str(number) for number in record.queue_numbers),
            day=words.date(datetime.date.fromordinal(record.day)),
            session=session.display_name(words.language) if session else "",
            hours=words.hours(session.start, session.end) if session else "",
            until=words.time(site.moment(record.deadline_at_ms, office)),
            clock=words.left(record.deadline_at_ms - now_ms),
            now_ms=now_ms,
            release=release and words.moment(site.moment(release[0], office)),
            release_days=release and words.dates(release[1]),
            mistakes=[("declare", words("declare_missing"))] if mistake else [],
            qr=segno.make(record.reference, error="m").svg_inline(scale=5, border=4) if kind == "done" else "",
        )

    async def state(self, request: Request) -> Response:
        """How it stands, for a page that keeps itself up to date by polls."""
        record = await self._site.record(request)
        state = await self._state(self._site.words(request), record)
        content = msgspec.json.encode({**state, "now_ms": self._site.service.now_ms()})
        return Response(content, headers=NO_STORE, media_type="application/json")

    async def stream(self, request: Request) -> Any:
        """The same as server-sent events, for whoever is on the wait list."""
        site = self._site
        record = await site.record(request)
        if record is None or await self.kind(record) != "waiting":
            return Response(status_code=204)  # tells an event source to come no more
        words, engine, now_ms = site.words(request), site.service.engine, site.service.now_ms
        office, reference = record.office, record.reference
        day = datetime.date.fromordinal(record.day)

        async def look() -> tuple[list[DayView], int] | None:
            try:
                # An overdue hold is none in these counters; and whoever is looked up on the list then moves it on.
                # Two changes at once may leave the counters as they were: now and then all are told anyway.
                return await engine.availability(office, day), now_ms() // _LOOK_ANYWAY_MS
            except QuotaEngineError:
                return None

        async def show(state: tuple[list[DayView], int] | None) -> StreamEvent:
            if state is None:
                return AWAY
            try:
                found = await self._state(words, await engine.lookup(reference))
                return StreamEvent("standing", msgspec.json.encode(found))
            except QuotaEngineError:
                return AWAY

        try:
            return await site.service.streams.open(
                ("page of a wait list", office, record.day), look, show, interval_ms=_LOOK_EVERY_MS
            )
        except Problem:
            return Response(status_code=503, headers=NO_STORE)

    async def _state(self, words: Words, record: Reservation | None) -> dict[str, Any]:
        if record is None:
            return {"phase": "", "state": "", "texts": {}}
        kind, place = await self._stands(record)
        return {
            "phase": _phase(record, kind),
            "state": record.state,
            "deadline_at_ms": record.deadline_at_ms,
            "texts": told_waiting(words, place) if place else {},
        }

    # --- Doing ---

    async def confirm(self, request: Request) -> Response:
        """The form is done: the hold becomes a place."""
        return await self._step(request, "confirm")

    async def release(self, request: Request) -> Response:
        """Give the hold, or the place on the wait list, up."""
        return await self._step(request, "release")

    async def cancel(self, request: Request) -> Response:
        """Give the place up."""
        return await self._step(request, "cancel")

    async def _step(self, request: Request, method: str) -> Response:
        site = self._site
        form, reference = await form_of(request), site.reference(request)
        if form is None or not reference:
            return RedirectResponse("/", 303)
        if method == "confirm" and dict(form).get("declare") != "yes":
            return RedirectResponse("/place?mistake=declare", 303)
        try:
            outcome = await getattr(site.service.engine, method)(reference)
        except InvalidRequest:
            return RedirectResponse("/", 303)
        except QuotaEngineError:
            # Where it had got to nobody knows; the page of the place tells as soon as the store is back.
            return RedirectResponse("/place", 303)
        site.service.metrics.record_outcome(outcome.status)
        return RedirectResponse("/place", 303)


def _phase(record: Reservation, kind: str) -> str:
    """What makes a page another one."""
    return f"{kind} {record.version}"


def _end(record: Reservation) -> str:
    """The name of the text for how it ended."""
    if record.state is State.WAITING:
        return "ended_unserved"
    if record.state is State.RELEASED and not record.quotas:
        return "ended_left"
    return f"ended_{record.state}"
