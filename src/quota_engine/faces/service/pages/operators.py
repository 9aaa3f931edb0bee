"""The operators' pages: the board, the queue list of a day, the last opening, the audit."""

from __future__ import annotations

__all__ = ["operator_routes"]

import csv
import datetime
import hashlib
import hmac
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from quota_engine.admission.token_bucket import Buckets, Charge, per_minute
from quota_engine.catalog import OfficeView
from quota_engine.domain.errors import InvalidRequest, QuotaEngineError, UnknownName
from quota_engine.domain.lifecycle import ACTIVE
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import DayView, Outcome, Status
from quota_engine.faces.looks import RoomLook, room_look
from quota_engine.faces.report_svg import Line, Plot, nice_ticks, render
from quota_engine.faces.service.access import Grant, Role
from quota_engine.faces.service.pages.board import Board
from quota_engine.faces.service.pages.forms import form_of, is_same_origin
from quota_engine.faces.service.pages.rendering import Pages
from quota_engine.faces.service.pages.visits import Visits
from quota_engine.faces.service.pages.words import Words, language_of
from quota_engine.faces.service.problems import Problem
from quota_engine.faces.service.streams import Stream, StreamEvent

if TYPE_CHECKING:
    from quota_engine.faces.service.application import Service

_COOKIE: Final = "operator"
_VISIT_MS: Final = 12 * 3_600_000
_DAYS_SHOWN: Final = 14
_PLOT_POINTS_MAX: Final = 400
_IN_PLOT_PERCENT: Final = 95
"""The plot ends when so much has been taken: single places that come back days later do not squeeze the rush."""
_LIVE_EVERY_MS: Final = 1_000
_TRIES: Final = per_minute(2, burst=10)
"""So often may one address try a token that is not known: ten times at once, and twice a minute from then on."""
_ADDRESSES_MAX: Final = 10_000
_CHANGES: Final = frozenset({Role.OPERATOR})
_STAFF: Final = frozenset({Role.OFFICE, Role.OPERATOR})
_READERS: Final = frozenset({Role.OPERATOR, Role.AUDITOR})
_CHECKERS: Final = frozenset({Role.AUDITOR, Role.OPERATOR})


class _Operators:
    """The handlers, and what they share."""

    def __init__(self, service: Service, pages: Pages, board: Board) -> None:
        self._service = service
        self._pages = pages
        self._board = board
        self._visits = Visits(bytes(service.configuration.identity_key))
        self._grants = {grant.name: grant for grant in service.configuration.grants}
        self._tries = Buckets(_ADDRESSES_MAX)

    # --- Coming and going ---

    async def login(self, request: Request) -> Response:
        """Take a token, and keep who it belongs to in a signed cookie of this browser."""
        words = self._words(request)
        fields = dict(await form_of(request) or ())
        token = fields.get("token", "").strip()
        address = request.client.host if request.client else ""
        charge = Charge(hashlib.blake2b(address.encode(), digest_size=16).hexdigest(), _TRIES)
        if not self._tries.take((charge,), self._service.now_ms()).taken:
            return self._pages.page("operator_login.html", words, 429, mistake=words("op_too_many_tries"))
        try:
            grant = self._service.access.grant(b"Bearer " + token.encode("ascii", "replace"))
        except Problem:
            return self._pages.page(
                "operator_login.html", words, 401, mistake=words("op_token_wrong") if fields else ""
            )
        self._tries.reset((charge.name,), self._service.now_ms())
        response = RedirectResponse("/operator", 303)
        value = self._visits.seal(f"{grant.name}:{grant.token_sha256}", self._service.now_ms() + _VISIT_MS)
        secure = request.url.scheme == "https"
        response.set_cookie(
            _COOKIE, value, max_age=_VISIT_MS // 1000, httponly=True, samesite="strict", secure=secure, path="/operator"
        )
        return response

    async def logout(self, request: Request) -> Response:
        """Forget who this browser is."""
        response = RedirectResponse("/operator", 303)
        response.delete_cookie(_COOKIE, path="/operator")
        return response

    # --- Looking ---

    async def board(self, request: Request) -> Response:
        """The counters of an office's days and its waiting room, kept up to date. Staff go on to their list."""
        grant = self._grant(request)
        if grant is not None and grant.role is Role.OFFICE:
            return RedirectResponse("/operator/queue", 303)
        return await self._page(request, "operator_board.html", _READERS, self._board_values)

    async def board_part(self, request: Request) -> Response:
        """The table alone."""
        return await self._page(request, "operator_days.html", _READERS, self._board_values)

    async def live(self, request: Request) -> Response | Stream:
        """Tells the page, as a server-sent event, that there is something new to fetch; worked out once for all."""
        words, grant, office = self._words(request), self._grant(request), self._office(request.query_params)
        if grant is None or not _allows(grant, _READERS, office):
            return self._refused(words, grant)

        async def look() -> bytes:
            _, views = await self._board.days(office)
            return msgspec.json.encode((views, await self._room(office)))

        async def show(state: bytes) -> StreamEvent:
            return StreamEvent("board", b'{"state":"%s"}' % hashlib.sha256(state).hexdigest()[:16].encode())

        try:
            return await self._service.streams.listen(("board", office.id), look, show, every_ms=_LIVE_EVERY_MS)
        except (Problem, QuotaEngineError):
            return Response(status_code=503)  # the page goes on asking now and then

    async def _room(self, office: OfficeView) -> RoomLook | None:
        """The waiting room of the release that is running, or of the next."""
        room = self._service.room_of(office.id)
        try:
            return None if room is None else room_look(room, await self._service.engine.room(room).view())
        except UnknownName:
            return None

    async def _board_values(self, request: Request, words: Words, office: OfficeView) -> dict[str, Any]:
        seen_ms, views = await self._board.days(office)
        return {
            "views": [(datetime.date.fromordinal(view.day), view) for view in views[:_DAYS_SHOWN]],
            "seen": words.time(_moment(seen_ms, office)),
            "room": await self._room(office),
        }

    async def queue(self, request: Request) -> Response:
        """Who is coming on a day, by queue number."""
        return await self._page(request, "operator_queue.html", _STAFF, self._queue_values)

    async def _queue_values(self, request: Request, words: Words, office: OfficeView) -> dict[str, Any]:
        day = self._day(request.query_params, office)
        records = await self._service.engine.reservations(office.id, day)
        active = [record for record in records if record.state in ACTIVE]
        return {
            "day": day,
            "records": active,
            "ended": len(records) - len(active),
            "session_names": _sessions(office, words),
        }

    async def queue_csv(self, request: Request) -> Response:
        """The same as a file: without identities."""
        words, grant, office = self._words(request), self._grant(request), self._office(request.query_params)
        if grant is None or not _allows(grant, _STAFF, office):
            return self._refused(words, grant)
        day = self._day(request.query_params, office)
        records = await self._service.engine.reservations(office.id, day)
        text = io.StringIO(newline="")
        table = csv.writer(text)
        table.writerow(("queue_numbers", "state", "people", "service", "session", "channel", "group", "reference"))
        table.writerows(_row(record) for record in records)
        name = f"{office.id}-{day.isoformat()}.csv"
        headers = {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
        return Response(text.getvalue(), headers=headers, media_type="text/csv")

    async def opening(self, request: Request) -> Response:
        """How the last opening went: places taken over time."""
        return await self._page(request, "operator_opening.html", _READERS, self._opening_values)

    async def _opening_values(self, request: Request, words: Words, office: OfficeView) -> dict[str, Any]:
        now_ms = self._service.now_ms()
        _, views = await self._board.days(office)
        opened = [view for view in views if view.opens_at_ms <= now_ms]
        if not opened:
            return {"plot": "", "text": words("op_opening_none")}
        opens_at_ms = max(view.opens_at_ms for view in opened)
        days = [view for view in opened if view.opens_at_ms == opens_at_ms]
        taken: list[tuple[int, int]] = []
        for view in days:
            records = await self._service.engine.reservations(office.id, view.day)
            taken += [(max(0, one.created_at_ms - opens_at_ms), one.units) for one in records if one.quotas]
        taken.sort()
        return _opening(words, office, days, taken, words.moment(_moment(opens_at_ms, office)))

    async def audit(self, request: Request) -> Response:
        """Work all counters out again, and say what differs."""
        return await self._page(request, "operator_audit.html", _CHECKERS, self._audit_values)

    async def _audit_values(self, request: Request, words: Words, office: OfficeView) -> dict[str, Any]:
        report = await self._service.engine.audit(office.id)
        return {"report": report}

    # --- Changing ---

    async def change(self, request: Request) -> Response:
        """One of the operators' commands, by the form's name for it."""
        words, grant = self._words(request), self._grant(request)
        fields = dict(await form_of(request) or ())
        office = self._office(fields)
        what = request.path_params["what"]
        roles = _STAFF if what in ("check-in", "no-show") else _CHANGES
        if grant is None or not fields or not _allows(grant, roles, office):
            return self._refused(words, grant)
        outcome: Outcome | None = None
        try:
            outcome = await self._carry_out(what, fields, office)
        except (InvalidRequest, ValueError):
            status = "BAD_REQUEST"
        except QuotaEngineError:
            status = "UNAVAILABLE"
        else:
            self._service.metrics.outcome(outcome.status)
            status = "" if outcome.ok else outcome.status
        self._board.forget(office.id)
        to = "/operator/queue" if what in ("check-in", "no-show") else "/operator"
        day = f"&day={self._day(fields, office).isoformat()}" if to != "/operator" else ""
        refused = f"&refused={status}" if status else ""
        return RedirectResponse(f"{to}?office={office.id}{day}{refused}", 303)

    async def _carry_out(self, what: str, fields: Mapping[str, str], office: OfficeView) -> Outcome:
        engine, day = self._service.engine, fields.get("day", "")
        match what:
            case "capacity":
                return await engine.set_capacity(office.id, day, fields.get("quota", ""), int(fields["capacity"]))
            case "close":
                return await engine.close_day(office.id, day)
            case "open":
                return await engine.open_day(office.id, day)
            case "room-close":
                await self._close_room(fields, office)
                return Outcome(Status.DONE)
            case "check-in":
                return await engine.check_in(self._reference(fields, office))
            case "no-show":
                return await engine.mark_no_show(self._reference(fields, office))
        raise InvalidRequest("what", what, "a command of the page")

    async def _close_room(self, fields: Mapping[str, str], office: OfficeView) -> None:
        room = self._service.room_of(office.id)
        if room is None or room != fields.get("room") or fields.get("sure") != "yes":
            raise InvalidRequest("room", "not the room of this office, or not sure", "the one that the page shows")
        await self._service.engine.room(room).close()

    @staticmethod
    def _reference(fields: Mapping[str, str], office: OfficeView) -> str:
        reference = fields.get("reference", "")
        if reference.partition("~")[0] != office.id:
            raise InvalidRequest("reference", "another office's", "one of the office")
        return reference

    # --- What they share ---

    async def _page(self, request: Request, template: str, roles: frozenset[Role], values: Any) -> Response:
        words, grant, office = self._words(request), self._grant(request), self._office(request.query_params)
        if grant is None or not _allows(grant, roles, office):
            return self._refused(words, grant)
        offices = [one for one in self._service.catalog.offices.values() if _allows(grant, roles, one)]
        refused = request.query_params.get("refused", "")
        return self._pages.page(
            template,
            words,
            office=office,
            offices=offices,
            today=self._today(office),
            may_change=_allows(grant, _CHANGES, office),
            refused=words("op_refused", status=refused) if refused.replace("_", "").isalpha() else "",
            **await values(request, words, office),
        )

    def _refused(self, words: Words, grant: Grant | None) -> Response:
        if grant is None:
            return self._pages.page("operator_login.html", words, 401, mistake="")
        return self._pages.page("operator_login.html", words, 403, mistake=words("op_not_allowed"))

    def _grant(self, request: Request) -> Grant | None:
        text = self._visits.read(request.cookies.get(_COOKIE, ""), self._service.now_ms())
        name, _, digest = text.partition(":")
        grant = self._grants.get(name)
        if grant is None or not hmac.compare_digest(grant.token_sha256, digest):
            return None
        return grant if request.method == "GET" or is_same_origin(request) else None

    def _words(self, request: Request) -> Words:
        chosen = request.query_params.get("lang") or request.cookies.get("lang", "")
        return Words(language_of(chosen, request.headers.get("accept-language", "")))

    def _office(self, fields: Mapping[str, str]) -> OfficeView:
        offices = self._service.catalog.offices
        return offices.get(fields.get("office", "")) or next(iter(offices.values()))

    def _today(self, office: OfficeView) -> datetime.date:
        return _moment(self._service.now_ms(), office).date()

    def _day(self, fields: Mapping[str, str], office: OfficeView) -> datetime.date:
        try:
            return datetime.date.fromisoformat(fields.get("day", ""))
        except ValueError:
            return self._today(office)


def _allows(grant: Grant, roles: frozenset[Role], office: OfficeView) -> bool:
    return grant.role in roles and (not grant.offices or office.id in grant.offices)


def _moment(at_ms: int, office: OfficeView) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(at_ms / 1000, tz=office.zone)


def _sessions(office: OfficeView, words: Words) -> dict[str, str]:
    return {one.id: f"{one.named(words.language)} {one.start:%H:%M}" for one in office.sessions.values()}


def _row(record: Reservation) -> tuple[str, ...]:
    choice = record.choice
    numbers = " ".join(map(str, record.queue_numbers))
    texts = (numbers, record.state, str(record.units), choice.service, choice.session, choice.channel, choice.group,
             record.reference)  # fmt: skip
    return tuple(_no_formula(text) for text in texts)


def _no_formula(text: str) -> str:
    """A text that a spreadsheet does not take for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _opening(
    words: Words, office: OfficeView, days: list[DayView], taken: list[tuple[int, int]], when: str
) -> dict[str, Any]:
    counted = _counted(office, days)
    places = sum(view.quotas[name].capacity for view in days for name in counted & view.quotas.keys())
    total = sum(units for _, units in taken)
    points, sum_units, half_ms = [(0.0, 0.0)], 0, 0
    for at_ms, units in taken:
        sum_units += units
        half_ms = half_ms or (at_ms if 2 * sum_units >= total else 0)
        points.append((at_ms / 1000, float(sum_units)))
    if not total:
        return {"plot": "", "text": words("op_opening_quiet", taken=0, places=places, when=when)}
    end_ms = max(1_000, taken[-(-len(taken) * _IN_PLOT_PERCENT // 100) - 1][0])
    points = [point for point in points if point[0] <= end_ms / 1000]
    # Nobody sees more points than a plot has pixels.
    points = [*points[:: max(1, len(points) // _PLOT_POINTS_MAX)], points[-1]]
    end_s = max(1.0, points[-1][0])
    y_max = max(places, total) * 1.08
    plot = Plot(
        name="opening",
        title=words("op_opening"),
        description=words("op_opening_quiet", taken=total, places=places, when=when),
        lines=[
            Line(words("op_plot_places"), "limit", [(0, places), (end_s, places)]),
            Line(words("op_plot_taken"), "engine", points, stepped=True),
        ],
        x_range=(0, end_s),
        x_ticks=_local_ticks(office, days[0].opens_at_ms, end_s),
        x_title=words("op_plot_x"),
        y_max=y_max,
        y_ticks=[(tick, f"{tick:g}") for tick in nice_ticks(0, y_max)],
    )
    half = _span(half_ms)
    text = words("op_opening_taken", taken=total, places=places, when=when, half=half)
    return {"plot": render(plot, 640, 320), "text": text}


def _span(span_ms: int) -> str:
    if span_ms < 90_000:
        return f"{span_ms / 1000:.1f} s"
    return f"{span_ms / 60_000:.0f} min" if span_ms < 5_400_000 else f"{span_ms / 3_600_000:.1f} h"


def _local_ticks(office: OfficeView, opens_at_ms: int, end_s: float) -> list[tuple[float, str]]:
    """Ticks of a plot that begins with the opening, as times of the office's clock; days, if it is long."""
    form = "%d/%m" if end_s > 2 * 86_400 else "%H:%M" if end_s > 600 else "%H:%M:%S"
    step_s = next((one for one in _STEPS_S if end_s / one <= 6), 86_400 * -(-int(end_s) // (6 * 86_400)))
    return [
        (float(at_s), f"{_moment(opens_at_ms + at_s * 1000, office):{form}}")
        for at_s in range(0, int(end_s) + 1, step_s)
    ]


_STEPS_S: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400)


def _counted(office: OfficeView, days: list[DayView]) -> set[str]:
    """The quotas whose capacities add up to the places that were opened: the allotments that somebody has taken of.
    What guards them counts the same people again.
    """
    quotas = {name for view in days for name in view.quotas}
    allotments = {allotment.id for allotment in office.allotments} & quotas or quotas
    taken = {name for view in days for name, quota in view.quotas.items() if quota.held + quota.confirmed}
    return allotments & taken or allotments


def operator_routes(service: Service, pages: Pages, board: Board) -> list[Route]:
    """The addresses of the operators' pages."""
    operators = _Operators(service, pages, board)
    return [
        Route("/operator", operators.board),
        Route("/operator/board", operators.board_part),
        Route("/operator/live", operators.live),
        Route("/operator/queue", operators.queue),
        Route("/operator/queue.csv", operators.queue_csv),
        Route("/operator/opening", operators.opening),
        Route("/operator/audit", operators.audit),
        Route("/operator/login", operators.login, methods=["POST"]),
        Route("/operator/logout", operators.logout, methods=["POST"]),
        Route("/operator/do/{what}", operators.change, methods=["POST"]),
    ]
