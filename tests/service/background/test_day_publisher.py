"""The day publisher publishes each coming day once, and retries after failures."""

from __future__ import annotations

import asyncio
import datetime
from typing import Any

import pytest

from quota_engine.catalog import day_terms, load_catalog
from quota_engine.domain.errors import BackendUnavailable
from quota_engine.domain.events import DayPublished
from quota_engine.service.background import day_publisher as module
from quota_engine.service.background.day_publisher import DayPublisher
from quota_engine.stores.memory import MemoryStore
from tests.support.in_process_service import DAY, Client, running

DAY_MS = 86_400_000


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
        due = [DAY + datetime.timedelta(days=ahead) for ahead in range((today - DAY).days + 8)]
        assert found == [day for day in due if day_terms(catalog, "surabaya", day) is not None]
        assert len(found) > len(before) + 8
        names = await published(client)
        assert len(names) == len(set(names))
        (view,) = await client.service.engine.availability("surabaya", before[-1])
        assert view.quotas["online"].capacity == 7


async def test_failed_publication_is_retried(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(module, "TICK_INTERVAL_S", 0.01)
    async with running(publish_days=8) as client:
        before = await known(client)
        failed = asyncio.Event()

        def away(*_: Any) -> None:
            failed.set()
            raise BackendUnavailable("away")

        with monkeypatch.context() as patch:
            patch.setattr(MemoryStore, "execute", away)
            patch.setattr(MemoryStore, "apply", away)
            client.clock.advance_ms(5 * DAY_MS)
            async with asyncio.timeout(10):
                await failed.wait()
        async with asyncio.timeout(10):
            while len(await known(client)) < len(before) + 2:
                await asyncio.sleep(0.01)
    assert "publishing days" in caplog.text
