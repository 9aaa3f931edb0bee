"""The operators' pages that change something: a day's capacities, closing it, and a waiting room. What is wrong with a
form is said beside its field, and what was typed stays there.
"""

from __future__ import annotations

__all__ = ["Changes"]

import datetime
import re
from collections.abc import Awaitable
from typing import Any, Final

from starlette.responses import Response

from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.lifecycle import State
from quota_engine.domain.outcomes import DayView, Outcome, Status
from quota_engine.domain.validation import CAPACITY_MAX
from quota_engine.service.pages.operator.base import Look, Mistake, OperatorSite, Refused
from quota_engine.service.pages.operator.day_tables import day_rows
from quota_engine.waiting_room.machine import PER_MINUTE_MAX, RoomResult, RoomStatus
from quota_engine.waiting_room.summary import RoomPhase, RoomSummary

_is_count = re.compile(r"[0-9]{1,8}").fullmatch
_CLOSING_STATES: Final = (State.CONFIRMED, State.HELD, State.WAITING)


class Changes:
    """The handlers of a day and of a waiting room."""

    def __init__(self, site: OperatorSite) -> None:
        self._site = site
        self._board = site.board

    # --- A day ---

    async def day(self, look: Look) -> Response:
        """A day's figures with what can be changed of it; with ``ask=close`` what closing it would mean."""
        return await self._day_page(look)

    async def day_figures(self, look: Look) -> Response:
        """The figures alone."""
        return await self._day_page(look, template="operator_day_figures.html")

    async def capacity(self, look: Look) -> Response:
        """Set the capacity of a quota. Fewer places than are taken is asked back first."""
        day, view = await self._known_day(look)
        quota, typed = look.fields.get("quota", ""), look.fields.get("capacity", "").strip()
        if quota not in view.quotas:
            raise Refused(404, "op_no_quota")
        counters, field = view.quotas[quota], f"capacity-{quota}"
        if not _is_count(typed) or int(typed) > CAPACITY_MAX:
            text = look.words("op_capacity_wrong", most=look.words.number(CAPACITY_MAX))
            return await self._day_page(look, 422, mistake=Mistake(field, text, typed))
        capacity, taken = int(typed), counters.held + counters.confirmed + counters.cooling
        if capacity < taken and look.fields.get("sure") != "yes":
            return await self._day_page(look, sure=(quota, capacity, taken, taken - capacity))
        outcome = await self._done(look, day, self._engine.set_capacity(look.office.id, day, quota, capacity))
        if not outcome.ok:
            return await self._day_page(look, 409, mistake=Mistake(field, self._why(look, outcome.status), typed))
        return self._site.go(look, "/operator/day", day=day, done="capacity")

    async def close(self, look: Look) -> Response:
        """Close a day, if somebody who has read what that means is sure."""
        day, _ = await self._known_day(look)
        if look.fields.get("sure") != "yes":
            return self._site.go(look, "/operator/day", day=day, ask="close")
        return self._told(look, day, await self._done(look, day, self._engine.close_day(look.office.id, day)), "closed")

    async def open(self, look: Look) -> Response:
        """Take closing a day back."""
        day, _ = await self._known_day(look)
        return self._told(look, day, await self._done(look, day, self._engine.open_day(look.office.id, day)), "opened")

    @property
    def _engine(self) -> Any:
        return self._site.service.engine

    async def _known_day(self, look: Look) -> tuple[datetime.date, DayView]:
        day = self._site.day(look)
        _, view = await self._board.day(look.office, day)
        if view is None:
            raise Refused(404, "op_no_day")
        return day, view

    async def _done(self, look: Look, day: datetime.date, command: Awaitable[Outcome]) -> Outcome:
        try:
            outcome = await command
        finally:
            self._board.forget(look.office.id, day)
        self._site.service.metrics.record_outcome(outcome.status)
        return outcome

    def _told(self, look: Look, day: datetime.date, outcome: Outcome, done: str) -> Response:
        if not outcome.ok:
            raise Refused(409, "op_refused", why=self._why(look, outcome.status))
        return self._site.go(look, "/operator/day", day=day, done=done)

    @staticmethod
    def _why(look: Look, status: Status | RoomStatus) -> str:
        """Why not, in words; a status that nobody has words for says its name."""
        text = f"op_why_{status}"
        return look.words(text) if look.words.has(text) else str(status)

    async def _day_page(
        self,
        look: Look,
        status: int = 200,
        *,
        template: str = "operator_day.html",
        mistake: Mistake | None = None,
        sure: tuple[str, int, int, int] | None = None,
    ) -> Response:
        site, office, words = self._site, look.office, look.words
        day, view = await self._known_day(look)
        seen_ms, _ = await self._board.day(office, day)
        now_ms = site.service.now_ms()
        closing: dict[State, int] | None = None
        if look.fields.get("ask") == "close" and not view.closed:
            records = await self._board.records(office.id, day)
            closing = {state: sum(one.units for one in records if one.state is state) for state in _CLOSING_STATES}
        return site.page(
            look,
            template,
            "op_board",
            status,
            one=day_rows(words, office, view, now_ms),
            seen=site.seen(look, seen_ms),
            moment=lambda at_ms: words.moment(site.moment(at_ms, office)),
            query=site.query(look, "day"),
            closing=closing,
            sure=sure,
            mistake=mistake,
            done=site.done(look, "capacity", "closed", "opened"),
        )

    # --- A waiting room ---

    async def room(self, look: Look) -> Response:
        """A waiting room, and what operators can do with it."""
        return await self._room_page(look)

    async def room_figures(self, look: Look) -> Response:
        """Its figures alone."""
        return await self._room_page(look, template="operator_room_figures.html")

    async def pace(self, look: Look) -> Response:
        """Let a room's pace go between two bounds from now on."""
        room = await self._known_room(look)
        typed = {name: look.fields.get(name, "").strip() for name in ("per_minute_min", "per_minute_max")}
        for name, text in typed.items():
            if not _is_count(text) or not 1 <= int(text) <= PER_MINUTE_MAX:
                wrong = look.words("op_pace_wrong", most=look.words.number(PER_MINUTE_MAX))
                return await self._room_page(look, 422, mistake=Mistake(name, wrong, text), typed=typed)
        low, high = (int(text) for text in typed.values())
        if low > high:
            wrong = look.words("op_pace_order")
            mistake = Mistake("per_minute_max", wrong, typed["per_minute_max"])
            return await self._room_page(look, 422, mistake=mistake, typed=typed)
        answer = await self._engine.room(room.room).set_pace(low, high)
        return await self._room_told(look, room, answer, "pace", "per_minute_min", typed)

    async def open_room(self, look: Look) -> Response:
        """Open a room with what its public source of chance has said."""
        room = await self._known_room(look)
        entropy = look.fields.get("entropy", "").strip()
        if not entropy:
            mistake = Mistake("entropy", look.words("op_entropy_wrong"))
            return await self._room_page(look, 422, mistake=mistake)
        try:
            answer = await self._engine.room(room.room).open(entropy)
        except InvalidRequest:
            mistake = Mistake("entropy", look.words("op_entropy_wrong"), entropy[:300])
            return await self._room_page(look, 422, mistake=mistake)
        return await self._room_told(look, room, answer, "room-opened", "entropy", {"entropy": entropy})

    async def close_room(self, look: Look) -> Response:
        """End a room, if somebody is sure."""
        room = await self._known_room(look)
        if look.fields.get("sure") != "yes":
            return self._site.go(look, "/operator/room", room=room.room, ask="close")
        answer = await self._engine.room(room.room).close()
        return await self._room_told(look, room, answer, "room-closed", "close", {})

    async def _known_room(self, look: Look) -> RoomSummary:
        room = await self._site.room(look)
        if room is None or not look.fields.get("room"):
            raise Refused(404, "op_room_none")
        return room

    async def _room_told(
        self, look: Look, room: RoomSummary, answer: RoomResult, done: str, field: str, typed: dict[str, str]
    ) -> Response:
        if not answer.ok:
            mistake = Mistake(field, self._why(look, answer.status), typed.get(field, ""))
            return await self._room_page(look, 409, mistake=mistake, typed=typed)
        return self._site.go(look, "/operator/room", room=room.room, done=done)

    async def _room_page(
        self,
        look: Look,
        status: int = 200,
        *,
        template: str = "operator_room.html",
        mistake: Mistake | None = None,
        typed: dict[str, str] | None = None,
    ) -> Response:
        site, words, office = self._site, look.words, look.office
        room = await site.room(look)
        asked = look.fields.get("room", "").strip()
        if room is None and asked:
            status, mistake = 404, Mistake("room", words("op_room_none"), asked)
        now_ms = site.service.now_ms()
        return site.page(
            look,
            template,
            "op_room",
            status,
            room=room,
            asked=asked,
            query=site.query(look, "room"),
            can_open=room is not None and bool(room.entropy_source) and room.phase is RoomPhase.OPENING,
            can_end=room is not None and room.phase is not RoomPhase.CLOSED,
            asks_close=look.fields.get("ask") == "close",
            moment=lambda at_ms: words.moment(site.moment(at_ms, office)),
            seen=site.seen(look, now_ms),
            typed=typed or {},
            mistake=mistake,
            done=site.done(look, "pace", "room-opened", "room-closed"),
        )
