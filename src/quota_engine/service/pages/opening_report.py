"""Report of an opening: when places were taken, confirmed and returned, and how many people waited."""

from __future__ import annotations

__all__ = [
    "EVENTS_MAX",
    "OpeningReport",
    "OpeningStep",
    "PlotWindow",
    "opening_from_events",
    "opening_from_records",
    "plot_window",
    "read_opening",
]

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from quota_engine.catalog import Catalog, ResolvedOffice, choice_of, packed_places
from quota_engine.catalog.selection import Selection
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.events import ReservationChanged
from quota_engine.domain.lifecycle import CONSUMING, State
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import DayView
from quota_engine.engine.quota_engine import AsyncQuotaEngine
from quota_engine.ports import RecordedEvent

EVENTS_MAX: Final = 50_000
"""Events of an opening that are read; later ones are left out."""
_PAGE: Final = 5_000
_CHANNEL: Final = "online"
_CONFIRMED: Final = CONSUMING - {State.HELD}
_WINDOW_PERCENT: Final = 95
_WINDOW_MARGIN_MS_MIN: Final = 1_000
_SECOND_MS: Final = 1_000


class OpeningStep(NamedTuple):
    """Counters of an opening after one event.

    Attributes:
        at_ms: Time of the event in milliseconds since 1970 (UTC).
        taken: Places held or confirmed.
        confirmed: Places confirmed.
        returned: Places released, expired or cancelled since the opening.
        waiting: People on the wait list.
    """

    at_ms: int
    taken: int
    confirmed: int
    returned: int
    waiting: int


class OpeningReport(msgspec.Struct, frozen=True):
    """The days that opened together, and what happened to their places.

    Attributes:
        opens_at_ms: Time of the opening in milliseconds since 1970 (UTC).
        days: The days, as ordinals.
        places: Places that single applicants can take online at the present capacities.
        steps: Counters after each event, in order of time.
        sold_at_ms: Time of each sale, in order. A place that was returned and taken again counts twice.
        form_time_median_ms: Median time from a hold to its confirmation, -1 if none was confirmed.
        from_records: True if the events are gone. The reservations then show only places that are still taken, and
            not when they were confirmed.
        is_truncated: True if the opening has more than :data:`EVENTS_MAX` events.
    """

    opens_at_ms: int
    days: tuple[int, ...]
    places: int
    steps: tuple[OpeningStep, ...]
    sold_at_ms: tuple[int, ...]
    form_time_median_ms: int
    from_records: bool = False
    is_truncated: bool = False

    @property
    def sold(self) -> int:
        """Number of sales."""
        return len(self.sold_at_ms)

    @property
    def taken(self) -> int:
        """Places held or confirmed at the end."""
        return self.steps[-1].taken if self.steps else 0

    @property
    def confirmed(self) -> int:
        """Places confirmed at the end."""
        return self.steps[-1].confirmed if self.steps else 0

    @property
    def returned(self) -> int:
        """Places released, expired or cancelled."""
        return self.steps[-1].returned if self.steps else 0

    @property
    def waiting_max(self) -> int:
        """Most people on the wait list at one time."""
        return max((step.waiting for step in self.steps), default=0)

    @property
    def half_ms(self) -> int:
        """Time from the opening until half of the sales, or -1 without sales."""
        return self.sold_at_ms[(self.sold - 1) // 2] - self.opens_at_ms if self.sold else -1

    @property
    def full_ms(self) -> int:
        """Time from the opening until all places were taken for the first time, or -1 if they never were."""
        first = next((step.at_ms for step in self.steps if step.taken >= self.places > 0), -1)
        return first - self.opens_at_ms if first >= 0 else -1

    @property
    def busiest_second(self) -> int:
        """Most sales within a second."""
        most, start = 0, 0
        for index, at_ms in enumerate(self.sold_at_ms):
            while self.sold_at_ms[start] <= at_ms - _SECOND_MS:
                start += 1
            most = max(most, index - start + 1)
        return most


class PlotWindow(NamedTuple):
    """Part of an opening that a plot shows, and the number of sales after it."""

    start_ms: int
    end_ms: int
    sold_later: int


def plot_window(report: OpeningReport) -> PlotWindow:
    """Return the time span from the opening to 95 % of the sales, so that late sales do not squeeze the first ones.

    The window starts at the first sale if that came long after the opening. The report must have a sale.
    """
    sold = report.sold_at_ms
    last = sold[-(-len(sold) * _WINDOW_PERCENT // 100) - 1]
    start = report.opens_at_ms
    if sold[0] - start > 2 * (last - sold[0]) + _WINDOW_MARGIN_MS_MIN:
        start = sold[0]
    end = last + max(_WINDOW_MARGIN_MS_MIN, (last - start) // 20)
    return PlotWindow(start, end, len(sold) - bisect_right(sold, end))


async def read_opening(
    engine: AsyncQuotaEngine, catalog: Catalog, office: ResolvedOffice, views: Sequence[DayView], now_ms: int
) -> OpeningReport | None:
    """Read the last opening of some days from at most :data:`EVENTS_MAX` events.

    Args:
        engine: Engine that has the events.
        catalog: Catalog of the service.
        office: Office of the days.
        views: Days among which the last opening is searched.
        now_ms: Current time in milliseconds since 1970 (UTC).

    Returns:
        ``None`` if none of the days has opened.

    Raises:
        QuotaEngineError: the store did not answer.
    """
    opened = [view for view in views if view.opens_at_ms <= now_ms]
    if not opened:
        return None
    opens_at_ms = max(view.opens_at_ms for view in opened)
    days = tuple(view for view in opened if view.opens_at_ms == opens_at_ms)
    channel = _CHANNEL if _CHANNEL in catalog.channels else ""
    places = sum(_places(catalog, office, view, channel) for view in days)
    after, is_complete = await _last_number_before(engine, office.id, opens_at_ms)
    if not is_complete:
        records = [one for view in days for one in await engine.list_reservations(office.id, view.day)]
        return opening_from_records(records, opens_at_ms, [view.day for view in days], channel, places)
    events: list[RecordedEvent] = []
    while len(events) < EVENTS_MAX:
        page = await engine.events(office.id, after, _PAGE)
        events += page
        if len(page) < _PAGE:
            break
        after = page[-1].number
    report = opening_from_events(
        (one.event for one in events), opens_at_ms, [view.day for view in days], channel, places
    )
    return msgspec.structs.replace(report, is_truncated=len(events) >= EVENTS_MAX)


async def _last_number_before(engine: AsyncQuotaEngine, office: str, at_ms: int) -> tuple[int, bool]:
    """Return the number of the last event before ``at_ms``, and True if all events since then still exist.

    Numbers and times of events increase together, so a binary search finds it.
    """

    async def is_before(number: int) -> bool:
        found = await engine.events(office, number - 1, 1)
        return bool(found) and found[0].event.at_ms < at_ms

    oldest = await engine.events(office, 0, 1)
    if not oldest:
        return 0, False  # publishing a day leaves an event, so the events were trimmed
    first = oldest[0].number
    if oldest[0].event.at_ms >= at_ms:
        return first - 1, first == 1
    step = 1
    while await is_before(first + step):
        step *= 2
    low, high = first + step // 2, first + step  # event ``low`` is before ``at_ms``; ``high`` is not, or is missing
    while high - low > 1:
        middle = (low + high) // 2
        if await is_before(middle):
            low = middle
        else:
            high = middle
    return low, True


def opening_from_events(
    events: Iterable[object], opens_at_ms: int, days: Sequence[int], channel: str, places: int
) -> OpeningReport:
    """Follow every reservation of some days through the events.

    Args:
        events: Events of the office in order of time. Events other than changes of reservations are skipped.
        opens_at_ms: Time of the opening in milliseconds since 1970 (UTC).
        days: Days that opened, as ordinals.
        channel: Channel whose reservations count; ``""`` for all.
        places: Places that the days offer.
    """
    counted_days = frozenset(days)
    counts_by_id: dict[str, _Counts] = {}
    held_at_ms: dict[str, int] = {}
    form_times_ms: list[int] = []
    steps: list[OpeningStep] = []
    sold: list[int] = []
    taken = confirmed = returned = waiting = 0
    for event in events:
        if not isinstance(event, ReservationChanged):
            continue
        record, at_ms = event.reservation, event.at_ms
        before = counts_by_id.get(record.id, _NO_COUNTS)
        counts_here = record.day in counted_days and channel in ("", record.choice.channel)
        now = _counts(record) if counts_here else _NO_COUNTS
        if now == before:
            continue
        counts_by_id[record.id] = now
        sold += [at_ms] * max(0, now.taken - before.taken)
        returned += max(0, before.taken - now.taken)
        if now.taken > before.taken:
            held_at_ms[record.id] = at_ms
        if now.confirmed > before.confirmed and at_ms > held_at_ms.get(record.id, at_ms):
            form_times_ms.append(at_ms - held_at_ms[record.id])
        taken += now.taken - before.taken
        confirmed += now.confirmed - before.confirmed
        waiting += now.waiting - before.waiting
        steps.append(OpeningStep(at_ms, taken, confirmed, returned, waiting))
    form_times_ms.sort()
    median = form_times_ms[len(form_times_ms) // 2] if form_times_ms else -1
    return OpeningReport(opens_at_ms, tuple(days), places, tuple(steps), tuple(sold), median)


class _Counts(NamedTuple):
    """Units that one reservation adds to each counter."""

    taken: int
    confirmed: int
    waiting: int


_NO_COUNTS: Final = _Counts(0, 0, 0)


def _counts(record: Reservation) -> _Counts:
    units, state = record.units, record.state
    return _Counts(
        units if state in CONSUMING else 0,
        units if state in _CONFIRMED else 0,
        units if state is State.WAITING else 0,
    )


def opening_from_records(
    records: Iterable[Reservation], opens_at_ms: int, days: Sequence[int], channel: str, places: int
) -> OpeningReport:
    """Build a report without events, from the times at which the places that are still taken were reserved.

    The arguments are those of :func:`opening_from_events`, with the reservations of the days instead of the events.
    """
    steps: list[OpeningStep] = []
    sold: list[int] = []
    counted = [one for one in records if one.state in CONSUMING and channel in ("", one.choice.channel)]
    taken = confirmed = 0
    for record in sorted(counted, key=lambda one: one.created_at_ms):
        taken += record.units
        confirmed += record.units if record.state in _CONFIRMED else 0
        steps.append(OpeningStep(record.created_at_ms, taken, confirmed, 0, 0))
        sold += [record.created_at_ms] * record.units
    return OpeningReport(opens_at_ms, tuple(days), places, tuple(steps), tuple(sold), -1, from_records=True)


def _places(catalog: Catalog, office: ResolvedOffice, view: DayView, channel: str) -> int:
    """Return how many single applicants a day could take, over all services, sessions and groups."""
    options: list[tuple[str, ...]] = []
    for service in office.services:
        for session in office.sessions or ("",):
            for group in (*catalog.groups, ""):
                for one in (channel,) if channel else catalog.channels:
                    try:
                        choice = choice_of(
                            catalog, office.id, Selection(service=service, session=session, channel=one, group=group)
                        )
                    except InvalidRequest:
                        continue
                    options += [option for option in choice.options if option not in options]
    capacities = {name: quota.capacity for name, quota in view.quotas.items()}
    return packed_places([option for option in options if set(option) <= capacities.keys()], capacities)
