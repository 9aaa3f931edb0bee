"""How an opening went: when places were taken, confirmed and given back, and who waited, from the office's events."""

from __future__ import annotations

__all__ = [
    "EVENTS_MAX",
    "Opening",
    "Step",
    "Window",
    "opening_from_events",
    "opening_from_records",
    "read_opening",
    "window_of",
]

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from quota_engine.catalog import Catalog, ResolvedOffice, choice_of, packed_places
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.events import ReservationChanged
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import DayView
from quota_engine.engine.quota_engine import AsyncQuotaEngine
from quota_engine.ports import RecordedEvent

EVENTS_MAX: Final = 50_000
"""Of a longer story only so much of the beginning is read."""
_PAGE: Final = 5_000
_CHANNEL: Final = "online"
_TAKEN: Final = frozenset({State.HELD, State.CONFIRMED, State.ATTENDED, State.NO_SHOW})
_CONFIRMED: Final = _TAKEN - {State.HELD}
_IN_WINDOW_PERCENT: Final = 95
_WINDOW_MS_MIN: Final = 1_000
_SECOND_MS: Final = 1_000


class Step(NamedTuple):
    """At ``at_ms`` so many places are taken (held or confirmed), so many of them confirmed, so many have been given
    back since the opening, and so many people stand on the wait list.
    """

    at_ms: int
    taken: int
    confirmed: int
    given_back: int
    waiting: int


class Opening(msgspec.Struct, frozen=True):
    """The days that opened together at ``opens_at_ms``, and what became of their ``places``.

    ``places`` are those that single applicants can have online at the capacities of now. ``steps`` are in order of
    time. ``sold`` counts every place that was taken, also if it was given back and taken again; ``sold_at_ms`` when
    each was. ``fill_ms_median``: from a place to its confirmation, -1 if nobody has confirmed.
    ``from_records``: the events are gone, and records tell only of places that are still taken, none of when they
    were confirmed. ``is_cut``: there is more than was read.
    """

    opens_at_ms: int
    days: tuple[int, ...]
    places: int
    steps: tuple[Step, ...]
    sold_at_ms: tuple[int, ...]
    fill_ms_median: int
    from_records: bool = False
    is_cut: bool = False

    @property
    def sold(self) -> int:
        """Places taken, each time that they were."""
        return len(self.sold_at_ms)

    @property
    def taken(self) -> int:
        """Places held or confirmed in the end."""
        return self.steps[-1].taken if self.steps else 0

    @property
    def confirmed(self) -> int:
        """Places confirmed in the end."""
        return self.steps[-1].confirmed if self.steps else 0

    @property
    def given_back(self) -> int:
        """Places that were given back, or whose time ran out."""
        return self.steps[-1].given_back if self.steps else 0

    @property
    def waiting_max(self) -> int:
        """The most people who stood on the wait list."""
        return max((step.waiting for step in self.steps), default=0)

    @property
    def half_ms(self) -> int:
        """How long after the opening half of what was sold was; -1 if nothing was."""
        return self.sold_at_ms[(self.sold - 1) // 2] - self.opens_at_ms if self.sold else -1

    @property
    def full_ms(self) -> int:
        """How long after the opening all places were taken for the first time; -1 if they never were."""
        first = next((step.at_ms for step in self.steps if step.taken >= self.places > 0), -1)
        return first - self.opens_at_ms if first >= 0 else -1

    @property
    def busiest(self) -> int:
        """The most places sold within a second."""
        most, start = 0, 0
        for index, at_ms in enumerate(self.sold_at_ms):
            while self.sold_at_ms[start] <= at_ms - _SECOND_MS:
                start += 1
            most = max(most, index - start + 1)
        return most


class Window(NamedTuple):
    """The part of a story that a plot shows, and how many places were sold behind it."""

    start_ms: int
    end_ms: int
    sold_later: int


def window_of(opening: Opening) -> Window:
    """From the opening (or the first sale, if that came long after it) until 95 of 100 of the places were sold: single
    places that come back days later do not squeeze the rush into a line.
    """
    sold = opening.sold_at_ms
    last = sold[-(-len(sold) * _IN_WINDOW_PERCENT // 100) - 1]
    start = opening.opens_at_ms
    if sold[0] - start > 2 * (last - sold[0]) + _WINDOW_MS_MIN:
        start = sold[0]
    end = last + max(_WINDOW_MS_MIN, (last - start) // 20)
    return Window(start, end, len(sold) - bisect_right(sold, end))


async def read_opening(
    engine: AsyncQuotaEngine, catalog: Catalog, office: ResolvedOffice, views: Sequence[DayView], now_ms: int
) -> Opening | None:
    """The last opening among the days in ``views``; ``None`` if none has opened. Reads at most :data:`EVENTS_MAX`
    events. What its errors are, the engine says.
    """
    opened = [view for view in views if view.opens_at_ms <= now_ms]
    if not opened:
        return None
    opens_at_ms = max(view.opens_at_ms for view in opened)
    days = tuple(view for view in opened if view.opens_at_ms == opens_at_ms)
    channel = _CHANNEL if _CHANNEL in catalog.channels else ""
    places = sum(_places(catalog, office, view, channel) for view in days)
    after, are_there = await _before(engine, office.id, opens_at_ms)
    if not are_there:
        records = [one for view in days for one in await engine.list_reservations(office.id, view.day)]
        return opening_from_records(records, opens_at_ms, [view.day for view in days], channel, places)
    events: list[RecordedEvent] = []
    while len(events) < EVENTS_MAX:
        page = await engine.events(office.id, after, _PAGE)
        events += page
        if len(page) < _PAGE:
            break
        after = page[-1].number
    story = opening_from_events(
        (one.event for one in events), opens_at_ms, [view.day for view in days], channel, places
    )
    return msgspec.structs.replace(story, is_cut=len(events) >= EVENTS_MAX)


async def _before(engine: AsyncQuotaEngine, office: str, at_ms: int) -> tuple[int, bool]:
    """The number of an event before which nothing from ``at_ms`` on happened, and whether all events since are there.

    Numbers and times of events both go up, so it is looked for in halves.
    """

    async def is_early(number: int) -> bool:
        found = await engine.events(office, number - 1, 1)
        return bool(found) and found[0].event.at_ms < at_ms

    kept = await engine.events(office, 0, 1)
    if not kept:
        return 0, False  # the publishing of the days left some
    first = kept[0].number
    if kept[0].event.at_ms >= at_ms:
        return first - 1, first == 1
    step = 1
    while await is_early(first + step):
        step *= 2
    low, high = first + step // 2, first + step  # the event of ``low`` is early, that of ``high`` is not, or not there
    while high - low > 1:
        middle = (low + high) // 2
        if await is_early(middle):
            low = middle
        else:
            high = middle
    return low, True


def opening_from_events(
    events: Iterable[object], opens_at_ms: int, days: Sequence[int], channel: str, places: int
) -> Opening:
    """Follow every reservation of the days, as the events tell it. ``channel``: of those only; ``""``: of all."""
    wanted = frozenset(days)
    seen: dict[str, _Counts] = {}
    held_at_ms: dict[str, int] = {}
    fills_ms: list[int] = []
    steps: list[Step] = []
    sold: list[int] = []
    taken = confirmed = given_back = waiting = 0
    for event in events:
        if not isinstance(event, ReservationChanged):
            continue
        record, at_ms = event.reservation, event.at_ms
        before = seen.get(record.id, _NOTHING)
        now = _counts(record) if record.day in wanted and channel in ("", record.choice.channel) else _NOTHING
        if now == before:
            continue
        seen[record.id] = now
        sold += [at_ms] * max(0, now.taken - before.taken)
        given_back += max(0, before.taken - now.taken)
        if now.taken > before.taken:
            held_at_ms[record.id] = at_ms
        if now.confirmed > before.confirmed and at_ms > held_at_ms.get(record.id, at_ms):
            fills_ms.append(at_ms - held_at_ms[record.id])
        taken += now.taken - before.taken
        confirmed += now.confirmed - before.confirmed
        waiting += now.waiting - before.waiting
        steps.append(Step(at_ms, taken, confirmed, given_back, waiting))
    fills_ms.sort()
    median = fills_ms[len(fills_ms) // 2] if fills_ms else -1
    return Opening(opens_at_ms, tuple(days), places, tuple(steps), tuple(sold), median)


class _Counts(NamedTuple):
    """What one reservation adds to each line."""

    taken: int
    confirmed: int
    waiting: int


_NOTHING: Final = _Counts(0, 0, 0)


def _counts(record: Reservation) -> _Counts:
    units, state = record.units, record.state
    return _Counts(
        units if state in _TAKEN else 0,
        units if state in _CONFIRMED else 0,
        units if state is State.WAITING else 0,
    )


def opening_from_records(
    records: Iterable[Reservation], opens_at_ms: int, days: Sequence[int], channel: str, places: int
) -> Opening:
    """What is left to tell when the events are gone: when each place that is taken now was asked for."""
    steps: list[Step] = []
    sold: list[int] = []
    kept = [one for one in records if one.state in _TAKEN and channel in ("", one.choice.channel)]
    taken = confirmed = 0
    for one in sorted(kept, key=lambda each: each.created_at_ms):
        taken += one.units
        confirmed += one.units if one.state in _CONFIRMED else 0
        steps.append(Step(one.created_at_ms, taken, confirmed, 0, 0))
        sold += [one.created_at_ms] * one.units
    return Opening(opens_at_ms, tuple(days), places, tuple(steps), tuple(sold), -1, from_records=True)


def _places(catalog: Catalog, office: ResolvedOffice, view: DayView, channel: str) -> int:
    """How many single applicants could have a place of a day, one service and session after the other."""
    options: list[tuple[str, ...]] = []
    for service in office.services:
        for session in office.sessions or ("",):
            for group in (*catalog.groups, ""):
                for one in (channel,) if channel else catalog.channels:
                    try:
                        choice = choice_of(
                            catalog, office.id, service=service, session=session, channel=one, group=group
                        )
                    except InvalidRequest:
                        continue
                    options += [option for option in choice.options if option not in options]
    capacities = {name: quota.capacity for name, quota in view.quotas.items()}
    return packed_places([option for option in options if set(option) <= capacities.keys()], capacities)
