"""Sessions of days that a booking can ask for, with their places and their state."""

from __future__ import annotations

__all__ = ["WAIT", "Slot", "SlotState", "group_by_day", "list_slots", "wait_list_sessions"]

import contextlib
import dataclasses
import datetime
import enum
from collections.abc import Iterable, Sequence
from typing import Final

from quota_engine.catalog import Catalog, choice_of, packed_places
from quota_engine.catalog.selection import Selection
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.model import ReReleaseRule
from quota_engine.domain.outcomes import DayView
from quota_engine.service.pages.citizen.selection import BookingSelection

WAIT: Final = "wait"
"""Ends the value of a slot that has a wait list only."""


class SlotState(enum.StrEnum):
    """State of a slot, also the CSS class of its field."""

    CLOSED = "closed"
    """The office closed the day."""
    OVER = "over"
    """The session is over, or can no longer be booked."""
    NOT_OPEN = "not-open"
    """The day opens later."""
    OPEN = "open"
    """The slot has a place now."""
    WAIT_LIST = "wait-list"
    """The slot is full, and has a wait list."""
    FULL = "full"
    """The slot is full."""


@dataclasses.dataclass(frozen=True, slots=True)
class Slot:
    """A day and a session that a booking can ask for.

    Attributes:
        day: Date of the day.
        session: Id of the session, or ``""`` for the whole day.
        session_name: Name of the session in the reader's language, or ``""``.
        time_range: Start and end of the session, or ``None``.
        places: Single applicants who can get a place now.
        state: State of the slot.
        opens_at_ms: Time at which the day opens, in milliseconds since 1970 (UTC).
    """

    day: datetime.date
    session: str
    session_name: str
    time_range: tuple[datetime.time, datetime.time] | None
    places: int
    state: SlotState
    opens_at_ms: int

    @property
    def value(self) -> str:
        """Value of the slot in a form: ``2026-12-07|morning``; with ``|wait`` if it asks for the wait list."""
        value = f"{self.day.isoformat()}|{self.session}"
        return f"{value}|{WAIT}" if self.state is SlotState.WAIT_LIST else value

    @property
    def can_be_chosen(self) -> bool:
        """True if a form may ask for the slot."""
        return self.state in (SlotState.OPEN, SlotState.WAIT_LIST)


def list_slots(
    catalog: Catalog, selection: BookingSelection, views: Iterable[DayView], now_ms: int, language: str
) -> list[Slot]:
    """Return the slots of a selection on some days, by day and then in the order of the office's sessions.

    Days that lack a quota of the selection have no slots.

    Args:
        catalog: Catalog of the service.
        selection: Office, service and applicant group of the booking.
        views: Days of the office.
        now_ms: Current time in milliseconds since 1970 (UTC).
        language: Language of the session names.
    """
    office = selection.office
    with_wait_list = wait_list_sessions(catalog, selection)
    slots: list[Slot] = []
    for session_id in selection.sessions:
        session = office.sessions[session_id] if session_id else None
        try:
            choice = choice_of(
                catalog, office.id, Selection(service=selection.service, session=session_id, group=selection.group)
            )
        except InvalidRequest:
            continue
        needed = {name for option in choice.options for name in option}
        name, time_range = (session.display_name(language), (session.start, session.end)) if session else ("", None)
        for view in views:
            if needed <= view.quotas.keys():
                places = packed_places(choice.options, {quota: view.quotas[quota].bookable for quota in needed})
                state = _state(view, session_id, places, now_ms, has_wait_list=session_id in with_wait_list)
                day = datetime.date.fromordinal(view.day)
                slots.append(Slot(day, session_id, name, time_range, places, state, view.opens_at_ms))
    order = {session_id: index for index, session_id in enumerate(selection.sessions)}
    return sorted(slots, key=lambda slot: (slot.day, order[slot.session]))


def _state(view: DayView, session: str, places: int, now_ms: int, *, has_wait_list: bool) -> SlotState:
    if view.closed:
        return SlotState.CLOSED
    if now_ms >= view.ends_at_ms or view.is_session_over(session, now_ms):
        return SlotState.OVER
    if now_ms < view.opens_at_ms:
        return SlotState.NOT_OPEN
    if places:
        return SlotState.OPEN
    return SlotState.WAIT_LIST if has_wait_list else SlotState.FULL


def group_by_day(slots: Sequence[Slot]) -> list[tuple[datetime.date, list[Slot]]]:
    """Return the days of some slots with their slots, in the order of the slots."""
    days: dict[datetime.date, list[Slot]] = {}
    for slot in slots:
        days.setdefault(slot.day, []).append(slot)
    return list(days.items())


def wait_list_sessions(catalog: Catalog, selection: BookingSelection) -> set[str]:
    """Return the sessions of a selection that have a wait list; ``""`` stands for the whole day."""
    office = selection.office
    found = set()
    for session in selection.sessions:
        with contextlib.suppress(InvalidRequest):
            choice = choice_of(
                catalog, office.id, Selection(service=selection.service, session=session, group=selection.group)
            )
            rules = {office.re_releases[name].rule for option in choice.options for name in option}
            if ReReleaseRule.WAIT_LIST in rules:
                found.add(session)
    return found
