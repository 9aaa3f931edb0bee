"""The room supervisor creates rooms of releases, and the service requires their passes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import pytest

from quota_engine import RoomSettings, Status, UnknownName
from quota_engine.admission import ShadowPolicy, TokenBucketPolicy, at_most, per_minute
from quota_engine.service.config.admission_settings import WaitingRoomsConfig
from quota_engine.service.config.settings import load_config
from quota_engine.waiting_room.releases import WaitingRoomSchedule
from tests.service.config.test_settings import KEY, TOKENS
from tests.support.identities import nik
from tests.support.in_process_service import DAY, DAY_PATH, NIK, OTHER, grants, running

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
OPENS_AT_MS = 1_796_367_600_000
"""2026-12-04 14:00 in Jakarta, 07:00 UTC."""
ROOM = "surabaya-20261204T0700"
ROOMS = WaitingRoomsConfig(WaitingRoomSchedule(("surabaya",)), RoomSettings(turn_ms=60_000))


async def test_reserve_without_a_pass_is_refused() -> None:
    """A pass works once, for its own applicant; kiosk and walk-in need none."""
    async with running(before_ms=HOUR_MS, waiting_rooms=ROOMS) as client:
        assert client.service.current_room("surabaya") == ROOM
        early = await client.reserve()
        assert early.json()["outcome"] == "NOT_OPEN"
        room = client.service.engine.room(ROOM)
        tickets = {identity: (await room.join(identity)).ticket for identity in (NIK, OTHER)}
        client.clock.advance_ms(HOUR_MS)
        await room.view()
        passes = {identity: (await room.enter(ticket, identity)).admission_pass for identity, ticket in tickets.items()}
        assert all(passes.values())

        without = await client.reserve()
        assert (without.status_code, without.json()["outcome"]) == (403, "NOT_ADMITTED")
        assert without.json()["reason"] == "no_pass"
        assert (await client.reserve(group="priority")).json()["reason"] == "no_pass"
        assert (await client.reserve(admission_pass=passes[OTHER])).json()["reason"] == "bad_pass"
        altered = passes[NIK][:-9] + ("A" if passes[NIK][-9] != "A" else "B") + passes[NIK][-8:]
        assert (await client.reserve(admission_pass=altered)).json()["reason"] == "bad_pass"
        held = await client.reserve(admission_pass=passes[NIK], key="mine")
        assert held.status_code == 201
        # The pass is used up; the place is still found by the key and by the identity.
        assert (await client.reserve(key="mine")).json()["replayed"]
        assert (await client.reserve(key="other")).json()["resumed"]
        other_day = DAY_PATH.replace("12-07", "12-08")
        again = await client.reserve(NIK, path=other_day, admission_pass=passes[NIK])
        assert again.json()["reason"] == "pass_used_or_over"
        assert (await client.reserve(nik(9), channel="kiosk")).status_code == 201
        assert (await client.reserve(nik(8), channel="walk-in")).status_code == 201
        view = (await client.service.engine.availability("surabaya", DAY))[0]
        assert (view.quotas["online"].held, view.quotas["kiosk"].held) == (1, 1)


async def test_change_into_a_release_needs_its_pass() -> None:
    """A reservation that needed no pass changes its channel and day only with one. A late confirm needs one, too."""
    online: dict[str, Any] = {"service": "new", "session": "morning", "channel": "online"}
    async with running(before_ms=HOUR_MS, waiting_rooms=ROOMS) as client:
        room = client.service.engine.room(ROOM)
        ticket = (await room.join(NIK)).ticket
        client.clock.advance_ms(HOUR_MS)
        await room.view()
        leave = (await room.enter(ticket, NIK)).admission_pass
        held = (await client.reserve(channel="kiosk")).json()["reservation"]["reference"]
        for day in ("2026-12-07", "2026-12-08"):
            refused = await client.step(held, "reschedule", day=day, **online)
            assert (refused.status_code, refused.json()["reason"]) == (403, "no_pass")
        moved = await client.step(held, "reschedule", day="2026-12-08", admission_pass=leave, **online)
        assert (moved.status_code, moved.json()["reservation"]["day"]) == (200, "2026-12-08")
        client.clock.advance_ms(HOUR_MS)
        late = await client.step(held, "confirm", reacquire=True, admission_pass=leave)
        assert (late.status_code, late.json()["reason"]) == (403, "pass_used_or_over")


async def test_closed_room_needs_no_pass() -> None:
    async with running(before_ms=HOUR_MS, waiting_rooms=ROOMS) as client:
        client.clock.advance_ms(3 * HOUR_MS)
        assert (await client.reserve()).status_code == 201
        assert client.service.current_room("surabaya") == "surabaya-20261211T0700"
    async with running(before_ms=HOUR_MS, waiting_rooms=ROOMS) as client:
        client.clock.advance_ms(HOUR_MS)
        assert (await client.reserve()).status_code == 403
        await client.service.engine.room(ROOM).close()
        supervisor = client.service.room_supervisor
        assert supervisor is not None
        await supervisor.tick()
        assert (await client.reserve()).status_code == 201


async def test_missing_room_needs_no_pass(caplog: pytest.LogCaptureFixture) -> None:
    """The service starts after the opening, and the log has a warning."""
    async with running(waiting_rooms=ROOMS) as client:
        assert (await client.reserve()).status_code == 201
        assert client.service.current_room("surabaya") == "surabaya-20261211T0700"
    assert f"waiting room {ROOM}: its opening time has passed" in caplog.text


async def test_missing_days_of_a_release_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Another process publishes (``publish_days = 0``) and has published one week only: the next one is missing."""
    async with running(before_ms=HOUR_MS, waiting_rooms=ROOMS) as client:
        supervisor = client.service.room_supervisor
        assert supervisor is not None
        client.clock.advance_ms(7 * DAY_MS)
        for _ in range(3):
            await supervisor.tick()
            client.clock.advance_ms(31_000)
    expected = "surabaya-20261211T0700: 5 days of its release are not published, from 2026-12-14 to 2026-12-18"
    assert caplog.text.count(expected) == 1


async def test_later_and_lost_rooms_are_created() -> None:
    async with running(before_ms=HOUR_MS, waiting_rooms=ROOMS) as client:
        engine, supervisor = client.service.engine, client.service.room_supervisor
        assert supervisor is not None
        client.clock.advance_ms(HOUR_MS)
        await supervisor.tick()
        following_room = engine.room("surabaya-20261211T0700")
        following = await following_room.view()
        assert following.config.opens_at_ms == OPENS_AT_MS + 7 * DAY_MS
        assert following.config.turn_ms == 60_000
        cast("Any", engine._store)._memory._ledgers.clear()
        client.clock.advance_ms(31_000)
        await supervisor.tick()
        with pytest.raises(UnknownName):
            await following_room.view()
        client.clock.advance_ms(1_000)
        await supervisor.tick()
        assert (await following_room.view()).config.opens_at_ms == following.config.opens_at_ms


async def test_supervisor_moves_rooms_on_without_polls() -> None:
    async with running(before_ms=HOUR_MS, waiting_rooms=ROOMS) as client:
        engine, supervisor = client.service.engine, client.service.room_supervisor
        assert supervisor is not None
        await engine.room(ROOM).join(NIK)
        client.clock.advance_ms(HOUR_MS)
        await supervisor.tick()
        await supervisor.tick()
        cache = engine.room(ROOM)._methods.cache
        assert cache.snapshot().view.called_count == 1


# --- Admission -----------------------------------------------------------------------------------------------------


async def test_documented_configuration_is_valid(tmp_path: Path) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", Path("docs/service.md").read_text(encoding="utf-8"), re.DOTALL)
    text = "\n".join(block for block in blocks if "waiting_rooms" in block or "[[admission]]" in block)
    file = tmp_path / "service.toml"
    file.write_text(f'backend = "memory://"\nidentity_key = "{KEY}"\npublish_days = 0\n{text}')
    found = load_config(file, {}, {}, grants=TOKENS)
    assert found.waiting_rooms is not None
    assert found.waiting_rooms.schedule.offices == ("surabaya",)
    assert found.waiting_rooms.settings.turn_ms == 180_000
    assert [policy.name for policy in found.admission] == ["load", "network", "device"]
    assert found.ticket_keys is not None
    assert found.ticket_keys.keys().active == "2027"
    assert "secret" not in repr(found.ticket_keys)
    changes = {name: getattr(found, name) for name in ("admission", "ticket_keys")}
    device = found.admission[2]
    assert isinstance(device, ShadowPolicy)
    assert isinstance(device.policy, TokenBucketPolicy)
    assert device.policy.limit == at_most(3, per_minute)
    async with running(grants=grants(), **changes) as client:
        missing = await client.reserve()
        assert (missing.status_code, missing.json()["reason"]) == (403, "no_network")
        caller = {"network": "203.0.113.7"}
        answers = [await client.reserve(nik(number), caller=caller) for number in range(21)]
        assert [answer.status_code for answer in answers] == [201] * 20 + [429]
        problem = answers[-1].json()
        assert (problem["outcome"], problem["reason"]) == (Status.THROTTLED, "network")
        assert answers[-1].headers["retry-after"] == "1"
        assert answers[-1].headers["ratelimit"] == '"network";r=0;t=1'
        assert answers[-1].headers["ratelimit-policy"] == '"network";q=20;w=20'
        assert "ratelimit" not in answers[0].headers
        assert problem["retry_at_ms"] == client.clock.now_ms() + 1_000
        # Another spelling of the same network is the same bucket; a kiosk has none.
        assert (await client.reserve(caller={"network": "203.0.113.99"})).status_code == 429
        assert (await client.reserve(channel="kiosk")).status_code == 201
        metrics = (await client.http.get("/metrics")).text
        assert (
            'quota_engine_policy_decisions_total{decision="wait",enforced="true",policy="network",reason="network"} 2.0'
            in (metrics)
        )
