"""Two services share one Valkey in real time, and only holders of passes get places."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import json
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from quota_engine.client import AsyncServiceClient
from quota_engine.service.http.auth import Role
from tests.service.test_runner import Served, served
from tests.support.in_process_service import TOKENS, grants
from tests.support.servers import Server, valkey_server_binary

pytestmark = pytest.mark.store

PEOPLE = 24
PLACES = 12
POLL_S = 0.5
STARTED_BEFORE_S = 3.0
"""Services that have started this long before an opening create its room in time."""


def configure(folder: Path, store: Server, opens_at: datetime.datetime) -> None:
    """Write the configuration of both services, with places that open at this moment."""
    weekdays = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
    catalog = {
        "services": [{"id": "new", "name": "New"}],
        "schedules": [{"id": "daily", "kind": "days_ahead", "days": 1, "at": f"{opens_at:%H:%M:%S}", "zone": "UTC"}],
        "plans": [{"id": "p", "quotas": [{"id": "all", "capacity": PLACES}], "working_weekdays": weekdays}],
        "offices": [{"id": "sby", "name": "Surabaya", "time_zone": "UTC"}],
    }
    (folder / "catalog.json").write_text(json.dumps(catalog))
    configuration = {
        "backend": store.url,
        "catalog": "catalog.json",
        "identity_key": base64.b64encode(b"a key that both of them have").decode(),
        "publish_days": 3,
        "tokens": [{"name": grant.name, "role": grant.role, "sha256": grant.token_sha256} for grant in grants()],
        "waiting_rooms": {"offices": ["*"], "settings": {"per_minute_max": 6_000, "calls_per_100_places": 200}},
    }
    (folder / "service.json").write_text(json.dumps(configuration))


@contextlib.contextmanager
def two_services(folder: Path) -> Iterator[tuple[Served, Served, datetime.datetime]]:
    """Run two services with an opening soon, or with a later one if a busy machine took that long to start them."""
    for opens_in_s in (10 + os.getloadavg()[0], 90):
        opens_at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=opens_in_s)
        with Server(valkey_server_binary()) as store:
            configure(folder, store, opens_at)
            with (
                served(folder, "--config", "service.json") as first,
                served(folder, "--config", "service.json") as second,
            ):
                if datetime.datetime.now(datetime.UTC) < opens_at - datetime.timedelta(seconds=STARTED_BEFORE_S):
                    yield first, second, opens_at
                    return
    raise AssertionError("no service started before its opening")


async def wait_until(moment: datetime.datetime) -> None:
    await asyncio.sleep((moment - datetime.datetime.now(datetime.UTC)).total_seconds())


async def test_two_services_admit_pass_holders_only(tmp_path: Path) -> None:
    """24 applicants with tickets and 12 without try for 12 places; ticket holders hold all 12.

    Each asks once before the opening, and again from the opening on.
    """
    with two_services(tmp_path) as (first, second, opens_at):
        day = opens_at.date() + datetime.timedelta(days=1)
        clients = [await AsyncServiceClient.open(one.url, TOKENS[Role.SERVICE]) for one in (first, second)]
        room = f"sby-{opens_at:%Y%m%dT%H%M}"

        async def without(number: int) -> str:
            client = clients[number % 2]
            for moment_s in (0.0, 0.0, 1.0, 2.0, 3.0):
                outcome = await client.reserve("sby", day, f"broker-{number}", service="new")
                if outcome.reason != "no_pass":
                    break
                await wait_until(opens_at + datetime.timedelta(seconds=moment_s))
            return f"{outcome.status} {outcome.reason}"

        async def one(number: int) -> str:
            joining, entering = clients[number % 2].room(room), clients[(number + 1) % 2]
            ticket = (await joining.join(f"person-{number}")).ticket
            await wait_until(opens_at)
            async with asyncio.timeout(120):
                while not (entered := await entering.room(room).enter(ticket, f"person-{number}")).ok:
                    (now,) = await entering.availability("sby", day)
                    if not now.quotas["all"].available:
                        return "SOLD_OUT"  # a room calls no applicant when no place is left
                    await asyncio.sleep(POLL_S)
            outcome = await entering.reserve(
                "sby", day, f"person-{number}", service="new", admission_pass=entered.admission_pass
            )
            return str(outcome.status)

        outcomes = await asyncio.gather(
            *(without(number) for number in range(PLACES)), *(one(number) for number in range(PEOPLE))
        )
        (seen,) = await clients[0].availability("sby", day)
        for client in clients:
            await client.close()
        assert httpx.get(f"{second.url}/v1/rooms/{room}", timeout=30).json()["tickets"] == PEOPLE
    assert set(outcomes[:PLACES]) == {"NOT_ADMITTED no_pass"}
    assert sorted(outcomes[PLACES:]) == ["HELD"] * PLACES + ["SOLD_OUT"] * (PEOPLE - PLACES)
    assert (seen.quotas["all"].held, seen.quotas["all"].available) == (PLACES, 0)
