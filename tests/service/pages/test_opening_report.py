"""The report of an opening, the part of it that a plot shows, and the ticks of the plot."""

from __future__ import annotations

import datetime
from zoneinfo import ZoneInfo

import pytest

from quota_engine.domain.events import ReservationChanged
from quota_engine.domain.lifecycle import State, Verb
from quota_engine.domain.model import Choice, Reservation
from quota_engine.service.pages.i18n import OPERATOR_TEXTS, Translator
from quota_engine.service.pages.opening_report import (
    OpeningReport,
    OpeningStep,
    opening_from_events,
    opening_from_records,
    plot_window,
    read_opening,
)
from quota_engine.service.pages.operator.opening_plot import POINTS_MAX, opening_plot, time_ticks
from tests.support.identities import nik
from tests.support.in_process_service import DAY, NIK, Client

OPENS_MS = 1_796_367_600_000  # 2026-12-04T14:00+07:00
JAKARTA = ZoneInfo("Asia/Jakarta")
_DAY = DAY.toordinal()
_VERBS = {
    State.HELD: Verb.RESERVE,
    State.CONFIRMED: Verb.CONFIRM,
    State.RELEASED: Verb.RELEASE,
    State.WAITING: Verb.WAIT,
}


def _event(
    after_ms: int, name: str, state: State, *, units: int = 1, day: int = _DAY, channel: str = "online"
) -> ReservationChanged:
    applicants = tuple(f"{name}{number}" for number in range(units))
    choice = Choice("new", "", "morning", channel, "", (("online",),))
    at_ms = OPENS_MS + after_ms
    record = Reservation("surabaya", name, day, applicants, choice, ("online",), state, 1, at_ms, at_ms + 900_000, 0, 0)
    return ReservationChanged(at_ms, _VERBS.get(state, Verb.EXPIRE), record)


def _report(*after_ms: int) -> OpeningReport:
    """Return a report with one sale at each of these times."""
    times = tuple(OPENS_MS + one for one in sorted(after_ms))
    steps = tuple(OpeningStep(at_ms, count, 0, 0, 0) for count, at_ms in enumerate(times, 1))
    return OpeningReport(OPENS_MS, (_DAY,), 100, steps, times, -1)


def test_a_report_counts_the_events_of_its_days_and_channel() -> None:
    report = opening_from_events(
        [
            _event(100, "a", State.HELD, units=2),
            _event(200, "k", State.HELD, channel="kiosk"),
            _event(300, "b", State.HELD),
            _event(400, "o", State.HELD, day=_DAY + 7),
            _event(500, "w", State.WAITING),
            _event(700, "a", State.CONFIRMED, units=2),
            _event(800, "b", State.EXPIRED),
            _event(900, "w", State.HELD),
            object(),
        ],
        OPENS_MS, [_DAY], "online", 3,
    )  # fmt: skip
    assert [(step.at_ms - OPENS_MS, *step[1:]) for step in report.steps] == [
        (100, 2, 0, 0, 0),
        (300, 3, 0, 0, 0),
        (500, 3, 0, 0, 1),
        (700, 3, 2, 0, 1),
        (800, 2, 2, 1, 1),
        (900, 3, 2, 1, 0),
    ]
    assert (report.taken, report.confirmed, report.returned, report.waiting_max, report.sold) == (3, 2, 1, 1, 4)
    assert (report.half_ms, report.full_ms, report.form_time_median_ms, report.busiest_second) == (100, 300, 600, 4)


def test_a_report_from_records_counts_places_that_are_still_taken() -> None:
    records = [_event(at, name, state).reservation for at, name, state in (
        (900, "b", State.CONFIRMED), (100, "a", State.HELD), (300, "c", State.CANCELLED)
    )]  # fmt: skip
    report = opening_from_records(records, OPENS_MS, [_DAY], "online", 100)
    assert [(step.at_ms - OPENS_MS, step.taken, step.confirmed) for step in report.steps] == [(100, 1, 0), (900, 2, 1)]
    assert (report.from_records, report.full_ms, report.form_time_median_ms) == (True, -1, -1)


def test_a_report_without_sales_has_no_times() -> None:
    empty = _report()
    assert (empty.half_ms, empty.full_ms, empty.busiest_second, empty.taken) == (-1, -1, 0, 0)


@pytest.mark.parametrize(
    ("after_ms", "start_ms", "end_ms", "sold_later"),
    [
        ([10], 0, 1_010, 0),
        (range(0, 60_000, 600), 0, 59_400 - 3_000 + 56_400 // 20, 1),
        ([*range(0, 9_600, 100), *(86_400_000 * day for day in range(1, 5))], 0, 9_400 + 1_000, 4),
        ([3_600_000, 3_600_500, 3_601_000], 3_600_000, 3_602_000, 0),
        ([0, 0, 0], 0, 1_000, 0),
    ],
)
def test_the_plot_ends_after_95_percent_of_the_sales(
    after_ms: list[int], start_ms: int, end_ms: int, sold_later: int
) -> None:
    """It starts at the first sale if that came long after the opening."""
    window = plot_window(_report(*after_ms))
    assert (window.start_ms - OPENS_MS, window.end_ms - OPENS_MS, window.sold_later) == (start_ms, end_ms, sold_later)


@pytest.mark.parametrize(
    ("start", "end", "labels"),
    [
        ("2026-12-04T14:00:00", "2026-12-04T14:00:05", ["00", "01", "02", "03", "04", "05"]),
        ("2026-12-04T14:00:01", "2026-12-04T14:00:59", ["10", "20", "30", "40", "50"]),
        ("2026-12-04T13:59:58", "2026-12-04T14:09:00", ["14:00", "14:02", "14:04", "14:06", "14:08"]),
        ("2026-12-04T14:00:00", "2026-12-05T13:00:00", ["18:00", "00:00", "06:00", "12:00"]),
        ("2026-12-04T14:00:00", "2026-12-31T14:00:00", ["08/12", "13/12", "18/12", "23/12", "28/12"]),
    ],
)
def test_ticks_are_round_local_times(start: str, end: str, labels: list[str]) -> None:
    start_ms, end_ms = (
        round(datetime.datetime.fromisoformat(one).replace(tzinfo=JAKARTA).timestamp() * 1000) for one in (start, end)
    )

    def label(moment: datetime.datetime, step_ms: int) -> str:
        form = "%d/%m" if step_ms >= 86_400_000 else "%H:%M" if step_ms >= 60_000 else "%S"
        return f"{moment:{form}}"

    ticks = time_ticks(start_ms, end_ms, JAKARTA, label)
    assert [text for _, text in ticks] == labels
    assert all(start_ms <= at_ms <= end_ms for at_ms, _ in ticks)


@pytest.mark.parametrize("span_ms", [1_000, 61_000, 3_599_999, 86_400_001, 31 * 86_400_000, 400 * 86_400_000])
@pytest.mark.parametrize("zone", ["Asia/Jayapura", "Asia/Kathmandu"])
def test_every_span_has_between_one_and_seven_ticks(span_ms: int, zone: str) -> None:
    ticks = time_ticks(OPENS_MS, OPENS_MS + span_ms, ZoneInfo(zone), lambda *_: "")
    assert 1 <= len(ticks) <= 7


async def test_a_plot_of_many_sales_stays_small(client: Client) -> None:
    office = client.service.catalog.offices["surabaya"]
    report = _report(*range(0, 600_000, 20))
    svg = opening_plot(Translator("id", OPERATOR_TEXTS), office, report, (1000, 380), "x")
    assert svg.count("H") <= 2 * POINTS_MAX + 20
    assert len(svg) < 20_000
    assert "14.02" in svg
    assert opening_plot(Translator("en", OPERATOR_TEXTS), office, _report(), (1000, 380), "x") == ""


async def test_the_last_opening_is_read_from_events_or_from_records(client: Client) -> None:
    """Events of an earlier opening are skipped. The records replace events that were trimmed."""
    engine, catalog = client.service.engine, client.service.catalog
    office = catalog.offices["surabaya"]
    for number in range(40):  # for the first week, which opened a moment ago
        await client.reserve(nik(number))
    next_week = DAY + datetime.timedelta(days=7)
    client.clock.set_ms(client.clock.now_ms() + 86_400_000)
    days = {"first_day": str(next_week), "last_day": str(next_week)}
    assert (await client.operate("POST", "/v1/publish", days)).status_code == 200
    client.clock.set_ms(OPENS_MS + 7 * 86_400_000 + 5)
    path = f"/v1/offices/surabaya/days/{next_week}"
    reference = (await client.reserve(NIK, path=path)).json()["reservation"]["reference"]
    await client.step(reference, "confirm")

    async def read() -> OpeningReport:
        views = await engine.availability("surabaya", DAY, next_week)
        report = await read_opening(engine, catalog, office, views, client.clock.now_ms())
        assert report is not None
        return report

    report = await read()
    assert (report.opens_at_ms, report.days) == (OPENS_MS + 7 * 86_400_000, (next_week.toordinal(),))
    assert (report.sold, report.confirmed, report.places, report.from_records) == (1, 1, 120, False)
    numbers = [event.number for event in await engine.events("surabaya", limit=1_000)]
    await engine.trim_events("surabaya", numbers[-1])
    trimmed = await read()
    assert (trimmed.sold, trimmed.confirmed, trimmed.from_records) == (1, 1, True)
