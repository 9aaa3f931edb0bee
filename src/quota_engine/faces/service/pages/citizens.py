"""The citizens' pages: choose, take a place, fill in the form while it is held, and what came of it."""

from __future__ import annotations

__all__ = ["citizen_routes"]

import dataclasses
import datetime
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import segno
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from quota_engine.catalog import OfficeView, next_release
from quota_engine.domain.errors import InvalidRequest, QuotaEngineError
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.faces.service.pages.board import Board, slots_of
from quota_engine.faces.service.pages.forms import form_of, is_same_origin
from quota_engine.faces.service.pages.rendering import Pages
from quota_engine.faces.service.pages.visits import Visits
from quota_engine.faces.service.pages.words import Words, language_of
from quota_engine.flow.desk import random_id

if TYPE_CHECKING:
    from quota_engine.faces.service.application import Service

_PLACE: Final = "place"
_LANGUAGE: Final = "lang"
_VISIT_MS: Final = 120 * 86_400_000
_is_nik = re.compile(r"[0-9]{16}").fullmatch


@dataclasses.dataclass(frozen=True, slots=True)
class _Asked:
    """What somebody asks for, as far as the catalog knows it."""

    office: OfficeView
    service: str
    group: str

    @property
    def query(self) -> str:
        """The address of the choice."""
        return f"/?office={self.office.id}&service={self.service}&group={self.group}"


class _Citizens:
    """The handlers, and what they share."""

    def __init__(self, service: Service, pages: Pages, board: Board) -> None:
        self._service = service
        self._pages = pages
        self._visits = Visits(bytes(service.configuration.identity_key))
        self._board = board

    # --- Choosing ---

    async def choose(self, request: Request) -> Response:
        """The first page: office, service, days."""
        chosen = request.query_params.get(_LANGUAGE, "")
        words = self._words(request)
        asked = self._asked(request.query_params)
        page = await self._choice(words, asked, request)
        response = self._pages.page("choose.html", words, **page)
        if chosen in ("id", "en"):
            response.set_cookie(_LANGUAGE, chosen, max_age=_VISIT_MS // 1000, samesite="lax")
        return response

    async def days(self, request: Request) -> Response:
        """The table of days alone, for a page that keeps itself up to date."""
        words = self._words(request)
        return self._pages.page(
            "days.html", words, **await self._choice(words, self._asked(request.query_params), request)
        )

    async def _choice(self, words: Words, asked: _Asked, request: Request, **more: Any) -> dict[str, Any]:
        service = self._service
        now_ms = service.now_ms()
        seen_ms, views = await self._board.days(asked.office)
        slots = slots_of(service.catalog, asked.office, views, asked.service, asked.group, now_ms, words.language)
        return {
            "asked": asked,
            "offices": list(service.catalog.offices.values()),
            "groups": list(service.catalog.groups.values()),
            "days": _by_day(slots),
            "seen": words.time(self._moment(seen_ms, asked.office)),
            "when": lambda at_ms: words.moment(self._moment(at_ms, asked.office)),
            "wish": random_id(),
            "party_max": asked.office.rules.party_max,
            "has_place": bool(self._reference(request)),
            "niks": [],
            "slot": "",
            "mistake": "",
            **more,
        }

    async def reserve(self, request: Request) -> Response:
        """Take a place, and show it; or say honestly that there is none, and what else there is."""
        words = self._words(request)
        form = await form_of(request)
        if form is None:
            return RedirectResponse("/", 303)
        fields = dict(form)
        asked = self._asked(fields)
        niks = [value.replace(" ", "") for name, value in form if name == "nik" and value.strip()]
        day, _, session = fields.get("slot", "").partition("|")
        mistake = ""
        if not niks or not all(_is_nik(nik) for nik in niks):
            mistake = words("nik_wrong")
        elif len(set(niks)) < len(niks):
            mistake = words("nik_twice")
        elif not day:
            mistake = words("choose_session")
        if mistake:
            page = await self._choice(
                words,
                asked,
                request,
                niks=niks,
                slot=fields.get("slot", ""),
                mistake=mistake,
                wish=fields.get("wish", ""),
            )
            return self._pages.page("choose.html", words, 422, **page)
        try:
            outcome = await self._service.engine.reserve(
                asked.office.id,
                day,
                niks,
                service=asked.service,
                session=session,
                group=asked.group,
                key=fields.get("wish") or None,
                wait=fields.get("wait") == "yes",
            )
        except InvalidRequest:
            return RedirectResponse(asked.query, 303)
        except QuotaEngineError:
            return await self._sorry(words, asked, None, fields, niks)
        self._service.metrics.outcome(outcome.status)
        if outcome.reservation is not None and (outcome.ok or outcome.status in (Status.IDENTITY_LIMIT, Status.ENDED)):
            response = RedirectResponse("/place", 303)
            self._remember(request, response, outcome.reservation.reference)
            return response
        return await self._sorry(words, asked, outcome, fields, niks)

    async def _sorry(
        self, words: Words, asked: _Asked, outcome: Outcome | None, fields: Mapping[str, str], niks: Sequence[str]
    ) -> Response:
        """The last words: what is still free, the wait list if there is one, and the next release."""
        service, office = self._service, asked.office
        now_ms = service.now_ms()
        status = "store" if outcome is None else outcome.status
        slots = []
        if outcome is not None:
            _, views = await self._board.days(office)
            slots = slots_of(service.catalog, office, views, asked.service, asked.group, now_ms, words.language)
        release = next_release(service.catalog, office.id, now_ms)
        can_wait = outcome is not None and outcome.status is Status.SOLD_OUT and _has_wait_list(service, asked)
        retry_at_ms = outcome.retry_at_ms if outcome else 0
        return self._pages.page(
            "sorry.html",
            words,
            503 if outcome is None or outcome.status is Status.OVERLOADED else 409,
            asked=asked,
            text=words(
                f"sorry_{status}" if words.has(f"sorry_{status}") else "sorry_other",
                when=words.moment(self._moment(retry_at_ms, office)),
            ),
            free=[words.date(slot.day) for slot in slots if slot.state == "open"][:3],
            can_wait=can_wait,
            try_again=status in ("store", Status.OVERLOADED),
            fields=fields,
            niks=niks,
            release=release and words.moment(self._moment(release[0], office)),
            release_days=release and ", ".join(words.date(day) for day in release[1][:7]),
        )

    # --- A place ---

    async def place(self, request: Request) -> Response:
        """The place that this browser has: its form and clock, its place on the wait list, its number, or its end."""
        words = self._words(request)
        record = await self._record(request)
        if record is None:
            return RedirectResponse("/", 303)
        office = self._service.office(record.office)
        asked = _Asked(office, record.choice.service, record.choice.group)
        kind = {State.HELD: "held", State.WAITING: "waiting", State.CONFIRMED: "done"}.get(record.state, "ended")
        session = office.sessions.get(record.choice.session)
        return self._pages.page(
            f"{kind}.html",
            words,
            asked=asked,
            record=record,
            day=words.date(datetime.date.fromordinal(record.day)),
            session=f"{session.named(words.language)}, {session.start:%H:%M}–{session.end:%H:%M}" if session else "",
            until=words.time(self._moment(record.deadline_ms, office)),
            now_ms=self._service.now_ms(),
            qr=segno.make(record.reference, error="m").svg_inline(scale=5, border=2) if kind == "done" else "",
        )

    async def place_state(self, request: Request) -> Response:
        """How the place stands, for a page that keeps itself up to date."""
        record = await self._record(request)
        if record is None:
            return JSONResponse({"state": "", "version": 0})
        return JSONResponse(
            {
                "state": record.state,
                "version": record.version,
                "deadline_at_ms": record.deadline_ms,
                "now_ms": self._service.now_ms(),
            },
            headers={"cache-control": "no-store"},
        )

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
        reference = self._reference(request)
        if not is_same_origin(request) or not reference:
            return RedirectResponse("/", 303)
        try:
            outcome = await getattr(self._service.engine, method)(reference)
        except QuotaEngineError:
            words = self._words(request)
            record_office = self._service.office(reference.partition("~")[0])
            asked = _Asked(record_office, next(iter(record_office.services)), "")
            return await self._sorry(words, asked, None, {}, ())
        self._service.metrics.outcome(outcome.status)
        return RedirectResponse("/place", 303)

    # --- What they share ---

    def _words(self, request: Request) -> Words:
        chosen = request.query_params.get(_LANGUAGE) or request.cookies.get(_LANGUAGE, "")
        return Words(language_of(chosen, request.headers.get("accept-language", "")))

    def _asked(self, fields: Mapping[str, str]) -> _Asked:
        catalog = self._service.catalog
        office = catalog.offices.get(fields.get("office", "")) or next(iter(catalog.offices.values()))
        service = fields.get("service", "")
        group = fields.get("group", "")
        return _Asked(
            office,
            service if service in office.services else next(iter(office.services)),
            group if group in catalog.groups else "",
        )

    def _moment(self, at_ms: int, office: OfficeView) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(at_ms / 1000, tz=office.zone)

    def _remember(self, request: Request, response: Response, reference: str) -> None:
        value = self._visits.seal(reference, self._service.now_ms() + _VISIT_MS)
        secure = request.url.scheme == "https"
        response.set_cookie(_PLACE, value, max_age=_VISIT_MS // 1000, httponly=True, samesite="lax", secure=secure)

    def _reference(self, request: Request) -> str:
        return self._visits.read(request.cookies.get(_PLACE, ""), self._service.now_ms())

    async def _record(self, request: Request) -> Reservation | None:
        reference = self._reference(request)
        return await self._service.engine.lookup(reference) if reference else None


def _by_day(slots: Sequence[Any]) -> list[tuple[datetime.date, list[Any]]]:
    days: dict[datetime.date, list[Any]] = {}
    for slot in slots:
        days.setdefault(slot.day, []).append(slot)
    return list(days.items())


def _has_wait_list(service: Service, asked: _Asked) -> bool:
    return any(rule.rule == "wait_list" for rule in asked.office.re_releases.values())


def citizen_routes(service: Service, pages: Pages, board: Board) -> list[Route]:
    """The addresses of the citizens' pages."""
    citizens = _Citizens(service, pages, board)
    return [
        Route("/", citizens.choose),
        Route("/days", citizens.days),
        Route("/reserve", citizens.reserve, methods=["POST"]),
        Route("/place", citizens.place),
        Route("/place/state", citizens.place_state),
        Route("/place/confirm", citizens.confirm, methods=["POST"]),
        Route("/place/release", citizens.release, methods=["POST"]),
        Route("/place/cancel", citizens.cancel, methods=["POST"]),
    ]
