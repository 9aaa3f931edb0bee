"""Build the variables of pages on which a visitor chooses a day and a session."""

from __future__ import annotations

__all__ = ["DayChoice", "OfficeFigures", "room_dates", "serves_day"]

import datetime
import math
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from markupsafe import Markup, escape
from starlette.requests import Request

from quota_engine.catalog import ResolvedOffice
from quota_engine.domain.outcomes import DayView
from quota_engine.service.pages.citizen.base import CitizenPages
from quota_engine.service.pages.citizen.selection import BookingSelection
from quota_engine.service.pages.citizen.slots import Slot, SlotState, group_by_day, list_slots, wait_list_sessions
from quota_engine.service.pages.i18n import Translator
from quota_engine.service.pages.registration_codes import new_code
from quota_engine.waiting_room.commands import RoomConfig
from quota_engine.waiting_room.results import RoomView

_DAYS_EXPANDED: Final = 5
"""Days that the page shows at first. A collapsed part has the rest."""
_FREE_DAYS_LISTED: Final = 3
_RELOAD_S_MAX: Final = 3_600
"""Time after which a page without script reloads before an opening, at the latest."""


class OfficeFigures(NamedTuple):
    """Figures of an office that its pages show. They follow from the store alone, and visitors share them.

    Attributes:
        read_at_ms: Time of the days' figures, in milliseconds since 1970 (UTC).
        views: Days of the office.
        room: Id and view of its waiting room, or ``None``.
    """

    read_at_ms: int
    views: list[DayView]
    room: tuple[str, RoomView] | None

    @property
    def sources(self) -> tuple[object, ...]:
        """The objects from which a shared page is made."""
        return self.views, self.room and self.room[1]


class DayChoice:
    """Builds the variables of the start page, of a turn, and of the refreshed list of days."""

    def __init__(self, pages: CitizenPages) -> None:
        self._pages = pages

    async def figures(self, office: ResolvedOffice) -> OfficeFigures:
        """Return the figures of an office, which are at most a second old."""
        read_at_ms, views = await self._pages.cache.days(office)
        return OfficeFigures(read_at_ms, views, await self._pages.current_room(office))

    async def variables(
        self,
        translator: Translator,
        selection: BookingSelection,
        request: Request | None,
        *,
        is_turn: bool = False,
        **overrides: Any,
    ) -> dict[str, Any]:
        """Return the template variables of a selection; see :meth:`variables_of`."""
        figures = await self.figures(selection.office)
        return self.variables_of(figures, translator, selection, request, is_turn=is_turn, **overrides)

    def variables_of(
        self,
        figures: OfficeFigures,
        translator: Translator,
        selection: BookingSelection,
        request: Request | None,
        *,
        is_turn: bool = False,
        **overrides: Any,
    ) -> dict[str, Any]:
        """Return the template variables of a selection.

        Args:
            figures: Figures of the office.
            translator: Texts of the page.
            selection: Office, service and applicant group.
            request: Request whose ticket decides what the page says about the waiting room; ``None`` for no ticket.
            is_turn: True for the days of the waiting room, False for the office's other days.
            **overrides: Variables that replace the defaults, such as the fields of a form with errors.
        """
        pages, office = self._pages, selection.office
        service = pages.service
        read_at_ms, _, room = figures
        slots = self.slots(figures, selection, translator.language, is_turn=is_turn)
        days = group_by_day([slot for slot in slots if slot.state is not SlotState.NOT_OPEN])
        free = [day for day, each in days if any(slot.state is SlotState.OPEN for slot in each)]
        can_choose = any(slot.can_be_chosen for slot in slots)
        opening = min((slot.opens_at_ms for slot in slots if slot.state is SlotState.NOT_OPEN), default=0)
        room_texts = None if room is None else self._room(translator, selection, room, request)
        expanded = set(free[:_DAYS_EXPANDED] or [day for day, _ in days[:_DAYS_EXPANDED]])
        return {
            "selection": selection,
            "office_options": self.office_options(selection),
            "groups": list(service.catalog.groups.values()),
            "days": [each for each in days if each[0] in expanded],
            "more_days": (more_days := [each for each in days if each[0] not in expanded]),
            "more_days_text": _more_days_text(translator, more_days),
            "openings": self._openings(translator, selection, slots),
            "earliest": free[0] if free else None,
            "free_days": [translator.date(day) for day in free[:_FREE_DAYS_LISTED]],
            "can_choose": can_choose,
            "can_wait": any(slot.state is SlotState.WAIT_LIST for slot in slots),
            "offer": _offer(room_texts, opening, can_choose=can_choose),
            "opening": self._opening(translator, selection, opening) if opening and not can_choose else None,
            "updated_at": translator.time(pages.local_time(read_at_ms, office)),
            "idempotency_key": new_code(),
            "party_max": office.rules.party_max,
            "is_turn": is_turn,
            "has_wait_list": bool(wait_list_sessions(service.catalog, selection)),
            "room": room_texts,
            **pages.next_release_texts(translator, office),
            "registration": "",
            "niks": [],
            "join_nik": "",
            "join_error": "",
            "slot": "",
            "errors": [],
            **overrides,
        }

    def slots(self, figures: OfficeFigures, selection: BookingSelection, language: str, *, is_turn: bool) -> list[Slot]:
        """Return the slots to choose from: those of the waiting room for a turn, or all other slots."""
        service, room = self._pages.service, figures.room
        slots = list_slots(service.catalog, selection, figures.views, service.now_ms(), language)
        return [slot for slot in slots if room is None or serves_day(room[1].config, slot.day) is is_turn]

    def office_options(self, selection: BookingSelection) -> Markup:
        """Return the options of all offices; none if there is only one office."""
        offices = self._pages.service.catalog.offices
        if len(offices) == 1:
            return Markup()

        def make() -> tuple[str, float]:
            options = (f'<option value="{escape(one.id)}">{escape(one.name)}</option>' for one in offices.values())
            return "\n".join(options), math.inf

        start = f'<option value="{escape(selection.office.id)}"'
        options = self._pages.texts.get("office options", (offices,), make)
        return Markup(options.replace(start, f"{start} selected", 1))  # noqa: S704 - its parts are escaped

    def _openings(
        self, translator: Translator, selection: BookingSelection, slots: Iterable[Slot]
    ) -> list[tuple[str, str]]:
        """Return the opening times of days that open later, each with its days."""
        openings: dict[int, dict[datetime.date, None]] = {}
        for slot in slots:
            if slot.state is SlotState.NOT_OPEN:
                openings.setdefault(slot.opens_at_ms, {})[slot.day] = None
        return [
            (translator.moment(self._pages.local_time(at_ms, selection.office)), translator.dates(list(days)))
            for at_ms, days in sorted(openings.items())
        ]

    def _opening(self, translator: Translator, selection: BookingSelection, opens_at_ms: int) -> dict[str, Any]:
        """Return the variables of the countdown to the next opening."""
        remaining_ms = opens_at_ms - self._pages.service.now_ms()
        return {
            "opens_at_ms": opens_at_ms,
            "now_ms": self._pages.service.now_ms(),
            "countdown": translator.countdown(remaining_ms),
            "when": translator.moment(self._pages.local_time(opens_at_ms, selection.office)),
            "reload_s": min(_RELOAD_S_MAX, max(2, remaining_ms // 1000 + 2)),
        }

    def _room(
        self, translator: Translator, selection: BookingSelection, room: tuple[str, RoomView], request: Request | None
    ) -> dict[str, Any]:
        """Return the variables of the waiting room's part of the start page."""
        room_id, view = room
        config, now_ms = view.config, self._pages.service.now_ms()
        session = self._pages.room_session(request) if request is not None else None

        def moment(at_ms: int) -> str:
            return translator.moment(self._pages.local_time(at_ms, selection.office))

        return {
            "days": translator.dates(room_dates(config)),
            "opens": moment(config.opens_at_ms),
            "join_opens": moment(config.join_opens_at_ms),
            "can_join": now_ms >= config.join_opens_at_ms,
            "is_open": now_ms >= config.opens_at_ms,
            "has_ticket": session is not None and session.room == room_id,
            "now_ms": now_ms,
            "opens_at_ms": config.opens_at_ms,
            "countdown": translator.countdown(config.opens_at_ms - now_ms),
        }


def _more_days_text(translator: Translator, days: Sequence[tuple[datetime.date, Sequence[Slot]]]) -> str:
    """Return the label of the days that a collapsed part has. It says if they are full, and have a wait list."""
    slots = [slot for _, each in days for slot in each]
    if any(slot.state is SlotState.OPEN for slot in slots):
        return translator.count("more_days", len(days))
    has_wait_list = any(slot.state is SlotState.WAIT_LIST for slot in slots)
    if has_wait_list or all(slot.state is SlotState.FULL for slot in slots):
        return translator.count("full_days_wait_list" if has_wait_list else "full_days", len(days))
    return translator.count("more_days", len(days))


def _offer(room: dict[str, Any] | None, opens_at_ms: int, *, can_choose: bool) -> str:
    """Return a text that changes when a page of the days must follow as a whole: when something becomes possible."""
    state = "" if room is None else f"room {room['can_join']:d}{room['is_open']:d}"
    return f"{'choose' if can_choose else ''} {state} {opens_at_ms}"


def room_dates(config: RoomConfig) -> list[datetime.date]:
    """Return the days that a waiting room serves."""
    return [datetime.date.fromordinal(day) for day in range(config.first_day, config.last_day + 1)]


def serves_day(config: RoomConfig, day: datetime.date) -> bool:
    """Return True if a waiting room serves the day."""
    return config.first_day <= day.toordinal() <= config.last_day
