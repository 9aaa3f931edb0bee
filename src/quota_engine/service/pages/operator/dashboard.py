"""The operators' pages that look: the board, an office's waiting room, the last opening, the audit. What changes
something stands in ``operator_changes``, and the list of a day in ``queue_list``.
"""

from __future__ import annotations

__all__ = ["operator_routes"]

import asyncio
import datetime
import hashlib
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import Response
from starlette.routing import Route

from quota_engine.domain.day_summary import DayState, day_state
from quota_engine.domain.errors import QuotaEngineError
from quota_engine.domain.outcomes import QuotaView
from quota_engine.service.http.auth import Role
from quota_engine.service.http.problems import Problem
from quota_engine.service.http.sse import EventStream, StreamEvent
from quota_engine.service.pages.dashboard_cache import DAYS_SHOWN_MAX, Board
from quota_engine.service.pages.operator.actions import Changes
from quota_engine.service.pages.operator.base import CHANGES, READERS, STAFF, Look, Mistake, OperatorSite
from quota_engine.service.pages.operator.csv_export import csv_file
from quota_engine.service.pages.operator.day_tables import COUNTERS, day_rows, totals
from quota_engine.service.pages.operator.opening_plot import COLUMNS, opening_plot, opening_rows, span
from quota_engine.service.pages.operator.opening_report import window_of
from quota_engine.service.pages.operator.queue_list import QueueList
from quota_engine.service.pages.rendering import Pages

if TYPE_CHECKING:
    from quota_engine.service.context import ServiceContext

_DAYS_SHOWN: Final = 10
_OFFICES_SHOWN_MAX: Final = 500
_LIVE_EVERY_MS: Final = 1_000
_PLOT_SIZES: Final = (("wide", (1000, 380)), ("narrow", (360, 320)))
"""One picture for screens and one for phones: text in a picture that is made smaller can not be read."""


class _Operators:
    """The handlers, and what they share."""

    def __init__(self, site: OperatorSite) -> None:
        self._site = site
        self._board = site.board

    # --- The board ---

    async def board(self, look: Look) -> Response:
        """The counters of an office's days, its waiting room, and a draw that is named. Staff go on to their list."""
        if look.grant.role is Role.OFFICE:
            return self._site.go(look, "/operator/queue")
        return await self._boarded(look, "operator_board.html")

    async def board_part(self, look: Look) -> Response:
        """The figures alone."""
        return await self._boarded(look, "operator_days.html")

    async def _boarded(self, look: Look, template: str) -> Response:
        site, office, words = self._site, look.office, look.words
        seen_ms, views = await self._board.days(office)
        all_days = look.fields.get("days") == "all"
        shown = views[: DAYS_SHOWN_MAX if all_days else _DAYS_SHOWN]
        now_ms = site.service.now_ms()
        draw = await site.draw(look)
        mistake = None
        if look.fields.get("draw") and draw is None:
            mistake = Mistake("draw", words("op_draw_none"), look.fields["draw"])
        return site.page(
            look,
            template,
            "op_board",
            days=[day_rows(words, office, view, now_ms) for view in shown],
            tiles=totals(office, [view for view in shown if day_state(view, now_ms) is DayState.OPEN]),
            days_more=len(views) - len(shown),
            seen=site.seen(look, seen_ms),
            moment=lambda at_ms: words.moment(site.moment(at_ms, office)),
            time=lambda at_ms: words.time(site.moment(at_ms, office)),
            room=await site.room(look),
            draw=draw,
            draw_asked=look.fields.get("draw", ""),
            query=site.query(look, "days", "room", "draw"),
            mistake=mistake,
        )

    async def offices(self, look: Look) -> Response:
        """All offices at a glance: what their days that sell come to, in all."""
        return await self._officed(look, "operator_offices.html")

    async def offices_part(self, look: Look) -> Response:
        """The figures alone."""
        return await self._officed(look, "operator_offices_rows.html")

    async def _officed(self, look: Look, template: str) -> Response:
        site = self._site
        now_ms = site.service.now_ms()
        offices = site.offices(look.grant)[:_OFFICES_SHOWN_MAX]
        found = await asyncio.gather(*(self._board.days(office) for office in offices))
        rows = []
        for office, (_, views) in zip(offices, found, strict=True):
            selling = [view for view in views if day_state(view, now_ms) is DayState.OPEN]
            closed = sum(day_state(view, now_ms) is DayState.CLOSED for view in views)
            later = [view.opens_at_ms for view in views if day_state(view, now_ms) is DayState.NOT_OPEN]
            opens = look.words.moment(site.moment(min(later), office)) if later else ""
            rows.append((office, len(selling), closed, opens, totals(office, selling)))
        return site.page(
            look,
            template,
            "op_offices",
            rows=rows,
            names=COUNTERS,
            seen=site.seen(look, now_ms),
        )

    async def live(self, look: Look) -> Response | EventStream:
        """Tells the page, as a server-sent event, that there is something new to fetch; worked out once for all."""
        office = look.office
        names = look.fields.get("room", ""), look.fields.get("draw", "")

        async def state() -> bytes:
            _, views = await self._board.days(office)
            return msgspec.json.encode((views, await self._site.room(look), await self._site.draw(look)))

        async def show(found: bytes) -> StreamEvent:
            return StreamEvent("board", b'{"state":"%s"}' % hashlib.sha256(found).hexdigest()[:16].encode())

        try:
            streams = self._site.service.streams
            return await streams.open(("board", office.id, *names), state, show, interval_ms=_LIVE_EVERY_MS)
        except (Problem, QuotaEngineError):
            return Response(status_code=503)  # the page goes on asking now and then

    # --- The last opening ---

    async def opening(self, look: Look) -> Response:
        """How the last opening went."""
        site, office, words = self._site, look.office, look.words
        opening = await self._board.opening(office)
        values: dict[str, Any] = {"opening": opening, "plots": [], "figures": [], "when": "", "days": "", "later": 0}
        if opening is not None:
            values["when"] = words.moment(site.moment(opening.opens_at_ms, office))
            values["days"] = words.dates([datetime.date.fromordinal(day) for day in opening.days])
            values["later"] = window_of(opening).sold_later if opening.sold else 0
            values["plots"] = [
                (name, opening_plot(words, office, opening, size, f"opening-{name}"))
                for name, size in _PLOT_SIZES
                if opening.sold
            ]
            number = words.number
            values["figures"] = [
                ("op_places", number(opening.places)),
                ("op_plot_taken", number(opening.taken)),
                *(
                    []
                    if opening.from_records
                    else [
                        ("op_plot_confirmed", number(opening.confirmed)),
                        ("op_plot_given_back", number(opening.given_back)),
                        ("op_waiting_max", number(opening.waiting_max)),
                        ("op_fill", span(words, opening.fill_ms_median)),
                    ]
                ),
                ("op_half", span(words, opening.half_ms)),
                ("op_full", span(words, opening.full_ms)),
                ("op_busiest", number(opening.busiest)),
            ]
        return site.page(look, "operator_opening.html", "op_opening", **values)

    async def opening_csv(self, look: Look) -> Response:
        """What the plot is drawn from, all of it."""
        opening = await self._board.opening(look.office)
        rows = opening_rows(opening, look.office.zone) if opening is not None else ()
        return csv_file(f"{look.office.id}-opening.csv", COLUMNS, rows)

    async def board_csv(self, look: Look) -> Response:
        """The counters of the days as a file."""
        _, views = await self._board.days(look.office)
        rows = [
            (
                datetime.date.fromordinal(view.day).isoformat(),
                name,
                *map(str, msgspec.structs.astuple(quota)),
                str(view.waiting),
                str(view.closed).lower(),
            )
            for view in views
            for name, quota in view.quotas.items()
        ]
        columns = ("day", "quota", *QuotaView.__struct_fields__, "wait_list", "closed")
        return csv_file(f"{look.office.id}-board.csv", columns, rows)

    # --- The audit ---

    async def audit(self, look: Look) -> Response:
        """Work all counters out again, and say what differs, and when that was."""
        site, words = self._site, look.words
        is_all = look.fields.get("scope") == "all" and not look.grant.offices
        since = look.fields.get("since", "")
        since_ms = min(int(since), site.service.now_ms()) if since.isdecimal() and len(since) < 16 else 0
        verdict = await self._board.audit(None if is_all else look.office.id, since_ms)
        return site.page(
            look,
            "operator_audit.html",
            "op_audit",
            verdict=verdict,
            when=words.moment(site.moment(verdict.at_ms, look.office)),
            is_all=is_all,
            can_all=not look.grant.offices and len(site.service.catalog.offices) > 1,
        )

    async def audit_again(self, look: Look) -> Response:
        """Do it now, whatever was found a moment ago."""
        more = {"scope": "all"} if look.fields.get("scope") == "all" else {}
        return self._site.go(look, "/operator/audit", since=self._site.service.now_ms(), **more)


def operator_routes(service: ServiceContext, pages: Pages, board: Board) -> list[Route]:
    """The addresses of the operators' pages."""
    site = OperatorSite(service, pages, board)
    operators = _Operators(site)
    changes, queue = Changes(site), QueueList(site)
    shown = site.shown

    def page(path: str, handle: Any, roles: Any, *, posts: bool = False) -> Route:
        return Route(f"/operator{path}", shown(handle, roles), methods=["POST"] if posts else ["GET"])

    return [
        page("", operators.board, READERS | STAFF),
        page("/board", operators.board_part, READERS),
        page("/board.csv", operators.board_csv, READERS),
        page("/offices", operators.offices, READERS),
        page("/offices/rows", operators.offices_part, READERS),
        page("/live", operators.live, READERS),
        page("/day", changes.day, READERS),
        page("/day/figures", changes.day_figures, READERS),
        page("/day/capacity", changes.capacity, CHANGES, posts=True),
        page("/day/close", changes.close, CHANGES, posts=True),
        page("/day/open", changes.open, CHANGES, posts=True),
        page("/room", changes.room, READERS),
        page("/room/figures", changes.room_figures, READERS),
        page("/room/pace", changes.pace, CHANGES, posts=True),
        page("/room/open", changes.open_room, CHANGES, posts=True),
        page("/room/close", changes.close_room, CHANGES, posts=True),
        page("/queue", queue.list, STAFF),
        page("/queue/rows", queue.rows, STAFF),
        page("/queue.csv", queue.csv, STAFF),
        page("/queue/check-in", queue.check_in, STAFF, posts=True),
        page("/queue/no-show", queue.ask_no_show, STAFF),
        page("/queue/no-show", queue.no_show, STAFF, posts=True),
        page("/opening", operators.opening, READERS),
        page("/opening.csv", operators.opening_csv, READERS),
        page("/audit", operators.audit, READERS),
        page("/audit", operators.audit_again, READERS, posts=True),
        Route("/operator/login", site.login_again, methods=["GET"]),
        Route("/operator/login", site.login, methods=["POST"]),
        Route("/operator/logout", site.logout, methods=["POST"]),
    ]
