"""The day publisher publishes each coming day once, and retries after failures."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
from typing import Any

import pytest

from quota_engine import AsyncQuotaEngine, JobTimeout, ManualClock, PublishReport
from quota_engine.catalog import Catalog, catalog_from, day_terms, last_day_to_publish, load_catalog, next_release
from quota_engine.catalog.schema import Hours
from quota_engine.domain.errors import BackendUnavailable
from quota_engine.domain.events import DayPublished
from quota_engine.service.background import day_publisher as module
from quota_engine.service.background.day_publisher import DayPublisher
from quota_engine.stores.memory import MemoryStore
from tests.support.catalog_samples import sample
from tests.support.identities import nik
from tests.support.in_process_service import DAY, Client, running

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


async def known(client: Client) -> list[datetime.date]:
    """Return the days of the store from the first one on."""
    views = await client.service.engine.availability("surabaya", DAY, DAY + datetime.timedelta(days=40))
    return [datetime.date.fromordinal(view.day) for view in views]


async def published(client: Client) -> list[str]:
    """Return the day of every publication event."""
    events = await client.service.engine.events("surabaya", 0, 1_000)
    return [str(one.event.day) for one in events if isinstance(one.event, DayPublished)]


async def test_coming_days_are_published_once() -> None:
    """Two publishers run at the same time, and a changed capacity stays."""
    async with running(publish_days=8) as client:
        publisher = client.service.day_publisher
        assert publisher is not None
        before = await known(client)
        quota = f"/v1/offices/surabaya/days/{before[-1]}/quotas/online/capacity"
        assert (await client.operate("PUT", quota, {"capacity": 7})).status_code == 200
        other = DayPublisher(client.service.engine, client.service.catalog, 8, client.clock.now_ms)
        for _ in range(15):
            client.clock.advance_ms(DAY_MS)
            await asyncio.gather(publisher.tick(), other.tick())
        found = await known(client)
        today = datetime.datetime.fromtimestamp(client.clock.now_ms() / 1_000, tz=datetime.UTC).date()
        catalog = load_catalog("surabaya")
        last = max(
            today + datetime.timedelta(days=7), last_day_to_publish(catalog, "surabaya", client.clock.now_ms(), 8)
        )
        due = [DAY + datetime.timedelta(days=ahead) for ahead in range((last - DAY).days + 1)]
        assert found == [day for day in due if day_terms(catalog, "surabaya", day) is not None]
        assert len(found) > len(before) + 8
        names = await published(client)
        assert len(names) == len(set(names))
        (view,) = await client.service.engine.availability("surabaya", before[-1])
        assert view.quotas["online"].capacity == 7


def monthly_catalog() -> Catalog:
    """Return a catalog whose office opens each month on the last working day of the month before, at 09:00."""
    raw = sample()
    raw["offices"] = [{**raw["offices"][0], "schedule": "month"}]
    return catalog_from(raw)


@pytest.mark.slow
@pytest.mark.parametrize("publish_days", [1, 30])
@pytest.mark.parametrize("join_opens_before_ms", [0, HOUR_MS, 40 * DAY_MS])
async def test_next_release_is_published_before_its_room_opens(publish_days: int, join_opens_before_ms: int) -> None:
    """With any setting, every day of a month exists when its room opens, at four openings."""
    catalog = monthly_catalog()
    clock = ManualClock.at("2027-01-01T00:00:00Z")
    async with await AsyncQuotaEngine.open("memory://", catalog=catalog, clock=clock) as engine:
        publisher = DayPublisher(engine, catalog, publish_days, clock.now_ms, join_opens_before_ms=join_opens_before_ms)
        previous_ms = 0
        for _ in range(5):
            release = next_release(catalog, "west", max(previous_ms, clock.now_ms()))
            assert release is not None
            opens_at_ms, days = release
            # A room exists from the opening before its own on.
            room_opens_at_ms = max(opens_at_ms - join_opens_before_ms, previous_ms)
            while clock.now_ms() < room_opens_at_ms:
                await publisher.tick()
                left_ms = room_opens_at_ms - clock.now_ms()
                clock.advance_ms(12 * HOUR_MS if left_ms > 13 * HOUR_MS else min(HOUR_MS, left_ms))
            known = {view.day for view in await engine.availability("west", days[0], days[-1])}
            assert previous_ms == 0 or known >= {day.toordinal() for day in days}
            previous_ms = opens_at_ms


@pytest.mark.slow
async def test_start_publishes_a_release_that_opens_soon() -> None:
    """The built-in national catalog: each office's next release is complete after the first run."""
    catalog = load_catalog("indonesia")
    clock = ManualClock.at("2027-01-29T08:00:00+07:00")
    async with await AsyncQuotaEngine.open("memory://", catalog=catalog, clock=clock) as engine:
        await DayPublisher(engine, catalog, 30, clock.now_ms).tick()
        for office in catalog.offices:
            release = next_release(catalog, office, clock.now_ms())
            assert release is not None
            known = {view.day for view in await engine.availability(office, release[1][0], release[1][-1])}
            assert known == {day.toordinal() for day in release[1]}


async def test_following_release_is_not_published_during_an_opening() -> None:
    """People book then. Three hours later it is published."""
    catalog = monthly_catalog()
    opening = next_release(catalog, "west", ManualClock.at("2027-01-01T00:00:00Z").now_ms())
    assert opening is not None
    clock = ManualClock(opening[0])
    async with await AsyncQuotaEngine.open("memory://", catalog=catalog, clock=clock) as engine:
        publisher = DayPublisher(engine, catalog, 1, clock.now_ms)
        await publisher.tick()
        assert len(await engine.availability("west", opening[1][0], opening[1][-1])) == len(opening[1])
        assert await engine.availability("west", "2027-03-01", "2027-03-31") == []
        clock.advance_ms(4 * HOUR_MS)
        await publisher.tick()
        assert len(await engine.availability("west", "2027-03-01", "2027-03-31")) == 23


async def test_start_applies_a_changed_catalog(caplog: pytest.LogCaptureFixture) -> None:
    """A holiday is added while the service is down: the next start closes the day, and the log has its people."""
    clock = ManualClock.at("2026-12-04T14:00:00+07:00")
    catalog = load_catalog("surabaya")
    office = catalog.offices["surabaya"]
    calendar = dataclasses.replace(office.calendar, holidays=office.calendar.holidays | {DAY})
    changed = dataclasses.replace(catalog, offices={"surabaya": dataclasses.replace(office, calendar=calendar)})
    async with await AsyncQuotaEngine.open("memory://", catalog=catalog, clock=clock) as engine:
        await DayPublisher(engine, catalog, 8, clock.now_ms).tick()
        assert (await engine.reserve("surabaya", DAY, [nik(1), nik(2)], service="new", session="morning")).ok
        await DayPublisher(engine, changed, 8, clock.now_ms).tick()
        (view,) = await engine.availability("surabaya", DAY)
        assert view.closed
    assert "the catalog has changed: 1 published days closed, 0 quotas removed" in caplog.text


async def test_one_offices_mistake_stops_no_start(caplog: pytest.LogCaptureFixture) -> None:
    """The validation of a file rejects such an office, so the test makes one."""
    clock = ManualClock.at("2026-12-04T14:00:00+07:00")
    catalog = load_catalog("indonesia")
    first, *others = catalog.offices.values()
    wrong = dataclasses.replace(first, hours=Hours(start=datetime.time(16), end=datetime.time(8)))
    catalog = dataclasses.replace(catalog, offices={one.id: one for one in (wrong, *others)})
    async with await AsyncQuotaEngine.open("memory://", catalog=catalog, clock=clock) as engine:
        await DayPublisher(engine, catalog, 8, clock.now_ms).tick()
        assert len(await engine.list_offices()) == len(catalog.offices)
        last = others[-1].id
        assert len(await engine.availability(last, "2026-12-07", "2026-12-11")) == 5
        assert await engine.availability(first.id, "2026-12-07", "2026-12-11") == []
    assert f"publishing days: {first.id}: " in caplog.text


@pytest.mark.slow
async def test_an_unavailable_office_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """One may be closed after a failover. It is published as soon as it can be; the store's own outage is an error."""
    clock = ManualClock.at("2026-12-04T14:00:00+07:00")
    catalog = load_catalog("indonesia")
    closed = set(list(catalog.offices)[:2])
    execute = MemoryStore.execute

    def refuse_closed(store: MemoryStore, request: Any, **end: Any) -> Any:
        if getattr(request, "office", getattr(request, "address", "")) in closed:
            raise BackendUnavailable("the office is closed")
        return execute(store, request, **end)

    monkeypatch.setattr(MemoryStore, "execute", refuse_closed)
    async with await AsyncQuotaEngine.open("memory://", catalog=catalog, clock=clock) as engine:
        publisher = DayPublisher(engine, catalog, 8, clock.now_ms)
        await publisher.tick()
        assert set(await engine.list_offices()) == catalog.offices.keys() - closed
        closed.clear()
        await publisher.tick()
        assert set(await engine.list_offices()) == catalog.offices.keys()
        closed |= catalog.offices.keys()
        with pytest.raises(BackendUnavailable):
            await DayPublisher(engine, catalog, 8, clock.now_ms).tick()


async def test_a_publication_without_time_goes_on_with_the_other_offices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call has time for one office. All are published, each once."""
    clock = ManualClock.at("2026-12-04T14:00:00+07:00")
    catalog = load_catalog("indonesia")
    calls: list[list[str]] = []
    async with await AsyncQuotaEngine.open("memory://", catalog=catalog, clock=clock) as engine:
        publish = engine.publish

        async def publish_one(*days: Any, offices: list[str]) -> PublishReport:
            calls.append(offices)
            report = await publish(*days, offices=offices[:1])
            if len(offices) > 1:
                raise JobTimeout("publish", 5, 1, len(offices), "offices", resume_with={"offices": offices[1:]})
            return report

        monkeypatch.setattr(engine, "publish", publish_one)
        await DayPublisher(engine, catalog, 3, clock.now_ms).tick()
        assert sorted(offices[0] for offices in calls) == sorted(catalog.offices)
        assert sorted(await engine.list_offices()) == sorted(catalog.offices)


async def test_failed_publication_is_retried(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(module, "TICK_INTERVAL_S", 0.01)
    async with running(publish_days=8) as client:
        before = await known(client)
        failed = asyncio.Event()

        def away(*_: Any, **__: Any) -> None:
            failed.set()
            raise BackendUnavailable("away")

        with monkeypatch.context() as patch:
            patch.setattr(MemoryStore, "execute", away)
            patch.setattr(MemoryStore, "apply", away)
            client.clock.advance_ms(5 * DAY_MS)
            async with asyncio.timeout(60):
                await failed.wait()
        async with asyncio.timeout(60):
            while len(await known(client)) < len(before) + 2:
                await asyncio.sleep(0.01)
    assert "publishing days" in caplog.text
