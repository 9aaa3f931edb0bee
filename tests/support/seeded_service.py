"""A service whose state fills every operators' page. A manual clock and a seed make it the same each time."""

from __future__ import annotations

__all__ = ["DRAW", "NOW", "TODAY", "seeded_service", "two_offices"]

import contextlib
import datetime
import random
import tomllib
from collections.abc import AsyncIterator
from importlib import resources
from zoneinfo import ZoneInfo

from quota_engine.catalog import Catalog, catalog_from
from quota_engine.draws.commands import DrawConfig
from quota_engine.draws.lottery import commitment_of
from quota_engine.service.config.admission_settings import WaitingRoomsConfig
from quota_engine.waiting_room.releases import WaitingRoomSchedule
from quota_engine.workflows.room_config import RoomSettings
from tests.support.in_process_service import Client, running

ZONE = ZoneInfo("Asia/Jakarta")
TODAY = datetime.date(2026, 12, 4)
NOW = datetime.datetime(2026, 12, 4, 14, 4, tzinfo=ZONE)
"""A Friday. The next week opened at 14:00, and its waiting room is still open."""
DRAW = "december"
_WEEK = [datetime.date(2026, 12, day) for day in range(7, 12)]
_QUEUE, _TICKETS = 34, 420


@contextlib.asynccontextmanager
async def seeded_service() -> AsyncIterator[Client]:
    """Run a service with a half-finished queue list, an opening in progress and a draw.

    The week of the opening has held, confirmed and cooling places, an overbooked day and a closed day.
    """
    rooms = WaitingRoomsConfig(WaitingRoomSchedule(("surabaya",)), RoomSettings(per_minute_min=60, per_minute_max=90))
    async with running(day=TODAY, waiting_rooms=rooms, catalog=two_offices()) as client:
        rng = random.Random(7)
        days = {"first_day": "2026-12-04", "last_day": "2026-12-18"}
        assert (await client.operate("POST", "/v1/publish", days)).status_code == 200
        await _fill_todays_list(client, rng)
        await _run_opening(client, rng)
        await _create_draw(client)
        yield client


def two_offices() -> Catalog:
    """Return Surabaya's catalog with a second office that has a long name."""
    text = (resources.files("quota_engine.catalog.data") / "surabaya.toml").read_text(encoding="utf-8")
    raw = tomllib.loads(text)
    raw["offices"] += [{**raw["offices"][0], "id": "other", "name": "Unit Layanan Paspor di Kantor Imigrasi Kelas II"}]
    return catalog_from(raw)


def _ms(moment: datetime.datetime) -> int:
    return round(moment.timestamp() * 1000)


async def _fill_todays_list(client: Client, rng: random.Random) -> None:
    """Confirm reservations of today a week ahead; check most of the first twenty in, and mark two no-shows."""
    engine = client.service.engine
    client.clock.set_ms(_ms(datetime.datetime(2026, 11, 28, 9, tzinfo=ZONE)))
    references = []
    for number in range(_QUEUE):
        client.clock.advance_ms(rng.randrange(20_000, 90_000))
        party = [f"{3578010000000000 + 10 * number + member}" for member in range(1 + (number % 9 == 0))]
        found = await engine.reserve(
            "surabaya",
            TODAY,
            party,
            service=rng.choice(("new", "renewal")),
            session=rng.choice(("morning", "afternoon")),
            channel="online",
            group="priority" if number % 7 == 0 else "",
            idempotency_key=f"{number:02}ab-XkL9_qWmZr7TyB3pQ",
        )
        assert found.reservation is not None, found
        assert (await engine.confirm(found.reservation.reference)).ok
        references.append(found.reservation.reference)
    assert (await engine.cancel(references[-1])).ok
    client.clock.set_ms(_ms(datetime.datetime(2026, 12, 4, 9, tzinfo=ZONE)))
    for index, reference in enumerate(references[:20]):
        step = engine.mark_no_show if index in (4, 11) else engine.check_in
        assert (await step(reference)).ok


async def _run_opening(client: Client, rng: random.Random) -> None:
    """Let applicants join the waiting room at 13:30, and take places of the next week from 14:00."""
    engine = client.service.engine
    client.clock.set_ms(_ms(datetime.datetime(2026, 12, 4, 13, 30, tzinfo=ZONE)))
    assert client.service.room_supervisor is not None
    await client.service.room_supervisor.tick()
    room = client.service.current_room("surabaya")
    assert room is not None
    waiting_room = engine.room(room)
    identities = [f"{3578020000000000 + number}" for number in range(_TICKETS)]
    tickets = {identity: (await waiting_room.join(identity)).ticket for identity in identities}
    opens_at_ms, end_ms = _ms(datetime.datetime(2026, 12, 4, 14, tzinfo=ZONE)), _ms(NOW)
    client.clock.set_ms(opens_at_ms)
    waiting, held, confirmed = list(identities), [], []
    while client.clock.now_ms() < end_ms:
        client.clock.advance_ms(2_000)
        await waiting_room.view()
        for identity in waiting[:]:
            found = await waiting_room.enter(tickets[identity], identity)
            if not found.ok or rng.random() < 0.5:
                continue
            waiting.remove(identity)
            outcome = await engine.reserve(
                "surabaya",
                rng.choice(_WEEK[:4]),
                [identity],
                service="new",
                session=rng.choice(("morning", "afternoon")),
                channel="online",
                idempotency_key=f"week-{identity}",
                admission_pass=found.admission_pass,
            )
            if outcome.reservation is not None:
                held.append(outcome.reservation.reference)
        for reference in held[:-30]:
            if rng.random() < 0.08:
                held.remove(reference)
                confirmed.append(reference)
                assert (await engine.confirm(reference)).ok
            elif rng.random() < 0.01:
                held.remove(reference)
                assert (await engine.release(reference)).ok
        if confirmed and rng.random() < 0.08:
            assert (await engine.cancel(confirmed.pop(0))).ok
    assert (await engine.set_capacity("surabaya", _WEEK[0], "online", 20)).overbooked
    assert (await engine.close_day("surabaya", _WEEK[4])).ok


async def _create_draw(client: Client) -> None:
    now_ms = client.clock.now_ms()
    config = DrawConfig(
        opens_at_ms=now_ms - 1,
        closes_at_ms=now_ms + 86_400_000,
        forget_at_ms=now_ms + 30 * 86_400_000,
        first_day=datetime.date(2026, 12, 14).toordinal(),
        last_day=datetime.date(2026, 12, 18).toordinal(),
        commitment=commitment_of(DRAW, "ab" * 32),
    )
    assert (await client.service.engine.draw(DRAW).create(config)).status == "DONE"
