"""The citizens' first page: choose, and take a place. What becomes of it is in ``places``."""

from __future__ import annotations

__all__ = ["citizen_routes"]

import contextlib
import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from quota_engine.catalog import Catalog, choice_of, next_release
from quota_engine.domain.errors import InvalidRequest, QuotaEngineError
from quota_engine.domain.model import ReReleaseRule
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.service.pages.citizen.base import Asked, Site, is_nik
from quota_engine.service.pages.citizen.my_reservation import Places
from quota_engine.service.pages.citizen.waiting_room import WaitingRooms, turn_key
from quota_engine.service.pages.dashboard_cache import Board, Slot, slots_of
from quota_engine.service.pages.forms import form_of
from quota_engine.service.pages.i18n import Words
from quota_engine.service.pages.rendering import Pages
from quota_engine.waiting_room.machine import RoomConfig, RoomView
from quota_engine.workflows.request_builder import random_id

if TYPE_CHECKING:
    from quota_engine.service.context import ServiceContext

_DAYS_SEEN: Final = 5
"""So many days are seen at once; the others are a click away."""

Days = list[tuple[datetime.date, list[Slot]]]


class _Citizens:
    """The handlers, and what they share."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.rooms = WaitingRooms(site, self.choice)
        self.places = Places(site)

    # --- Choosing ---

    async def choose(self, request: Request) -> Response:
        """The first page: office, service, days; or the waiting room. Whoever is in the middle of something is led
        back to it.
        """
        site = self._site
        words, asked = site.words(request), site.asked(request.query_params)
        record = await site.record(request)
        kind = await self.places.kind(record) if record is not None else ""
        if not set(request.query_params) - {"lang"}:
            if kind in ("held", "waiting"):
                return RedirectResponse("/place", 303)
            if record is None and await self.rooms.is_waiting(request):
                return RedirectResponse("/room", 303)
        page = await self.choice(words, asked, request)
        page["place"] = kind if kind != "ended" else ""
        return site.page(request, "choose.html", words, **page)

    async def days(self, request: Request) -> Response:
        """The table of days alone, for a page that keeps itself up to date."""
        site = self._site
        words, asked = site.words(request), site.asked(request.query_params)
        is_turn = request.query_params.get("turn") == "yes"
        return site.page(request, "days.html", words, **await self.choice(words, asked, None, is_turn=is_turn))

    async def choice(
        self, words: Words, asked: Asked, request: Request | None, *, is_turn: bool = False, **more: Any
    ) -> dict[str, Any]:
        """What the pages need on which somebody chooses. ``is_turn``: the days of the waiting room, and they only."""
        site, office = self._site, asked.office
        service = site.service
        now_ms = service.now_ms()
        seen_ms, views = await site.board.days(office)
        slots = slots_of(service.catalog, office, views, asked.service, asked.group, now_ms, words.language)
        found = await site.room_of(office)
        if found is not None:
            terms = found[1].config
            slots = [slot for slot in slots if _is_of(terms, slot.day) is is_turn]
        listed = _sessions_with_wait_lists(service.catalog, asked)
        slots = [
            dataclasses.replace(one, state="wait") if one.state == "full" and one.session in listed else one
            for one in slots
        ]
        days = _by_day([slot for slot in slots if slot.state != "early"])
        free = [day for day, each in days if any(slot.state == "open" for slot in each)]
        seen = set(free[:_DAYS_SEEN] or [day for day, _ in days[:_DAYS_SEEN]])
        release = next_release(service.catalog, office.id, now_ms)
        return {
            "asked": asked,
            "offices": list(service.catalog.offices.values()),
            "groups": list(service.catalog.groups.values()),
            "days": [each for each in days if each[0] in seen],
            "more_days": [each for each in days if each[0] not in seen],
            "later": self._later(words, asked, slots),
            "earliest": free[0] if free else None,
            "free_days": [words.date(day) for day in free[:3]],
            "can_choose": any(slot.state in ("open", "wait") for slot in slots),
            "seen": words.time(site.moment(seen_ms, office)),
            "wish": random_id(),
            "party_max": office.rules.party_max,
            "is_turn": is_turn,
            "has_wait_list": bool(listed),
            "room": None if found is None else self._room(words, asked, found, request),
            "release": release and words.moment(site.moment(release[0], office)),
            "release_days": release and words.dates(release[1]),
            "place": "",
            "niks": [],
            "joining_nik": "",
            "joining_mistake": "",
            "slot": "",
            "mistakes": [],
            **more,
        }

    def _later(self, words: Words, asked: Asked, slots: Sequence[Slot]) -> list[tuple[str, str]]:
        """The days that are not open yet, by when they open."""
        found: dict[int, dict[datetime.date, None]] = {}
        for slot in slots:
            if slot.state == "early":
                found.setdefault(slot.opens_at_ms, {})[slot.day] = None
        return [
            (words.moment(self._site.moment(at_ms, asked.office)), words.dates(list(days)))
            for at_ms, days in sorted(found.items())
        ]

    def _room(self, words: Words, asked: Asked, found: tuple[str, RoomView], request: Request | None) -> dict[str, Any]:
        """What the first page says of the office's waiting room."""
        room, view = found
        terms, now_ms = view.config, self._site.service.now_ms()
        seat = self._site.seat(request) if request is not None else None
        return {
            "days": words.dates(_days_of(terms)),
            "opens": words.moment(self._site.moment(terms.opens_at_ms, asked.office)),
            "joins_from": words.moment(self._site.moment(terms.join_opens_at_ms, asked.office)),
            "may_join": now_ms >= terms.join_opens_at_ms,
            "is_open": now_ms >= terms.opens_at_ms,
            "has_seat": seat is not None and seat.room == room,
            "now_ms": now_ms,
            "opens_at_ms": terms.opens_at_ms,
            "clock": words.left(terms.opens_at_ms - now_ms),
        }

    # --- Taking a place ---

    async def reserve(self, request: Request) -> Response:
        """Take a place, and show it; or say honestly that there is none, and what else there is."""
        site = self._site
        words = site.words(request)
        form = await form_of(request)
        if form is None:
            return RedirectResponse("/", 303)
        fields = dict(form)
        asked = site.asked(fields)
        niks = [value.replace(" ", "") for name, value in form if name == "nik" and value.strip()]
        day, _, session = fields.get("slot", "").partition("|")
        mistakes = _mistakes(words, fields, niks)
        if mistakes:
            return await self._again(request, words, asked, fields, niks, mistakes)
        try:
            found = await site.room_of(asked.office)
            terms = found[1].config if found is not None and _is_in(found[1].config, day) else None
            seat = site.seat(request)
            if found is None or terms is None or seat is None or seat.room != found[0]:
                seat = None
            key, admission_pass = fields.get("wish") or None, ""
            if seat is not None:
                key = turn_key(seat)
                try:
                    admission_pass = (await site.room(seat.room).enter(seat.ticket, niks[0])).admission_pass
                except InvalidRequest:
                    return await self._again(request, words, asked, fields, niks, [("nik", words("nik_other"))])
            outcome = await site.service.engine.reserve(
                asked.office.id,
                day,
                niks,
                service=asked.service,
                session=session,
                group=asked.group,
                idempotency_key=key,
                join_wait_list=fields.get("wait") == "yes",
                admission_pass=admission_pass,
            )
            reference = ""
            if outcome.status in (Status.NOT_ADMITTED, Status.CONFLICT) and terms is not None and seat is not None:
                reference = await self.rooms.place_of(asked, terms, seat, niks[0])
        except InvalidRequest:
            return RedirectResponse(asked.query, 303)
        except QuotaEngineError:
            return await self._sorry(request, words, asked, None, fields, niks)
        site.service.metrics.record_outcome(outcome.status)
        if outcome.reservation is not None and (
            outcome.ok or outcome.status in (Status.IDENTITY_LIMIT, Status.RESERVATION_ENDED)
        ):
            reference = outcome.reservation.reference
        if reference:
            response = RedirectResponse("/place", 303)
            site.remember(request, response, reference)
            return response
        return await self._sorry(request, words, asked, outcome, fields, niks)

    async def _again(
        self,
        request: Request,
        words: Words,
        asked: Asked,
        fields: Mapping[str, str],
        niks: Sequence[str],
        mistakes: Sequence[tuple[str, str]],
    ) -> Response:
        """The form as it was filled in, with what is wrong beside the fields."""
        filled: dict[str, Any] = {
            "niks": niks,
            "slot": fields.get("slot", ""),
            "wish": fields.get("wish", ""),
            "mistakes": mistakes,
        }
        if fields.get("turn") == "yes":
            return await self.rooms.turn(request, words, 422, **filled)
        page = await self.choice(words, asked, request, **filled)
        return self._site.page(request, "choose.html", words, 422, here=f"{asked.query}&", **page)

    async def _sorry(
        self,
        request: Request,
        words: Words,
        asked: Asked,
        outcome: Outcome | None,
        fields: Mapping[str, str],
        niks: Sequence[str],
    ) -> Response:
        """The last words: what is still free, the wait list if there is one, and the next release."""
        site, office = self._site, asked.office
        status = "store" if outcome is None else outcome.status
        is_turn = fields.get("turn") == "yes"
        day, _, session = fields.get("slot", "").partition("|")
        free, waiting = [], 0
        if outcome is not None:
            free = (await self.choice(words, asked, None, is_turn=is_turn))["free_days"]
            _, views = await site.board.days(office)
            waiting = sum(view.waiting for view in views if str(datetime.date.fromordinal(view.day)) == day)
        can_wait = status is Status.SOLD_OUT and session in _sessions_with_wait_lists(site.service.catalog, asked)
        release = next_release(site.service.catalog, office.id, site.service.now_ms())
        retry_at_ms = outcome.retry_at_ms if outcome else 0
        return site.page(
            request,
            "sorry.html",
            words,
            503 if outcome is None or outcome.status is Status.OVERLOADED else 409,
            here=f"{asked.query}&",
            asked=asked,
            text=words(
                f"sorry_{status}" if words.has(f"sorry_{status}") else "sorry_other",
                when=words.moment(site.moment(retry_at_ms, office)),
            ),
            free=free,
            can_wait=can_wait,
            waiting=words.count("wait_list_waiting", waiting) if waiting else words("wait_list_empty"),
            offer=words.duration(office.rules.offer_ttl_ms),
            try_again=status in ("store", Status.OVERLOADED),
            is_turn=is_turn,
            fields=fields,
            niks=niks,
            release=release and words.moment(site.moment(release[0], office)),
            release_days=release and words.dates(release[1]),
        )


def _mistakes(words: Words, fields: Mapping[str, str], niks: Sequence[str]) -> list[tuple[str, str]]:
    """What is wrong with a form, by the fields in their order."""
    found = []
    if not fields.get("slot", ""):
        found.append(("slot", words("choose_session")))
    if not niks or not all(is_nik(nik) for nik in niks):
        found.append(("nik", words("nik_wrong")))
    elif len(set(niks)) < len(niks):
        found.append(("nik", words("nik_twice")))
    return found


def _by_day(slots: Sequence[Slot]) -> Days:
    days: dict[datetime.date, list[Slot]] = {}
    for slot in slots:
        days.setdefault(slot.day, []).append(slot)
    return list(days.items())


def _days_of(terms: RoomConfig) -> list[datetime.date]:
    return [datetime.date.fromordinal(day) for day in range(terms.first_day, terms.last_day + 1)]


def _is_of(terms: RoomConfig, day: datetime.date) -> bool:
    return terms.first_day <= day.toordinal() <= terms.last_day


def _is_in(terms: RoomConfig, day: str) -> bool:
    """The same for a day as a form has it."""
    try:
        return _is_of(terms, datetime.date.fromisoformat(day))
    except ValueError:
        return False


def _sessions_with_wait_lists(catalog: Catalog, asked: Asked) -> set[str]:
    """The sessions (``""`` for the whole day) whose places are offered to a wait list when they come back."""
    office = asked.office
    needs_session = bool(office.sessions) and office.services[asked.service].needs_session
    found = set()
    for session in office.sessions if needs_session else ("",):
        with contextlib.suppress(InvalidRequest):
            choice = choice_of(catalog, office.id, service=asked.service, session=session, group=asked.group)
            rules = {office.re_releases[name].rule for option in choice.options for name in option}
            if ReReleaseRule.WAIT_LIST in rules:
                found.add(session)
    return found


def citizen_routes(service: ServiceContext, pages: Pages, board: Board) -> list[Route]:
    """The addresses of the citizens' pages."""
    site = Site(service, pages, board)
    citizens = _Citizens(site)
    guarded = site.guarded
    return [
        Route("/", guarded(citizens.choose)),
        Route("/days", guarded(citizens.days)),
        Route("/reserve", guarded(citizens.reserve), methods=["POST"]),
        *citizens.places.routes(),
        *citizens.rooms.routes(),
    ]
