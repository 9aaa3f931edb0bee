"""No way around admission: every call that takes a place of a release asks what a reserve of it asks."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

import pytest

from quota_engine import AsyncQuotaEngine, Caller, InvalidRequest, Outcome, QuotaEngine, RoomSettings, State, Status
from quota_engine.admission import (
    AdmissionPass,
    ConstantPolicy,
    LimitKey,
    PassRequiredPolicy,
    Policy,
    PolicyChain,
    ScopedPolicy,
    TokenBucketPolicy,
    deny,
    per_day,
    room_pass,
)
from quota_engine.admission.tickets import TicketKeys
from quota_engine.catalog import Catalog
from quota_engine.clocks import ManualClock
from quota_engine.waiting_room.releases import ReleasePassPolicy, Releases, WaitingRoomSchedule
from quota_engine.waiting_room.ticket_status import TicketPhase
from tests.support.daily_releases import DULL, OPENS_AT_MS, PLACES, RELEASE, catalog_of
from tests.support.servers import Server, redis_server_binary_or_skip, valkey_server_binary

KEY = b"a key for tests, and only them"
KEYS = TicketKeys("k", {"k": b"sixteen bytes or more"})
HOUR_MS = 3_600_000
ROOM = "east-20261204T0700"


@pytest.fixture(scope="module")
def valkey() -> Iterator[Server]:
    with Server(valkey_server_binary()) as one:
        yield one


@pytest.fixture(scope="module")
def redis() -> Iterator[Server]:
    with Server(redis_server_binary_or_skip()) as one:
        yield one


@pytest.fixture(params=["memory", "valkey", "redis"])
def url(request: pytest.FixtureRequest) -> str:
    """Each store, empty."""
    if request.param == "memory":
        return "memory://"
    server: Server = request.getfixturevalue(request.param)
    server.ask("FLUSHALL")
    return server.url


def release_policy(catalog: Catalog) -> Policy:
    return ReleasePassPolicy(Releases(catalog, WaitingRoomSchedule(("east",))), KEYS)


def shown(admission_pass: str) -> dict[str, Any]:
    return {"admission_pass": admission_pass}


class Opening:
    """An engine five minutes before the release of the office ``east`` opens."""

    def __init__(self, url: str, policy: Policy | None = None, *, national: bool = False) -> None:
        self.catalog = catalog_of(national=national)
        self.clock = ManualClock(OPENS_AT_MS - 300_000)
        self.engine = QuotaEngine.open(
            url,
            identity_key=KEY,
            catalog=self.catalog,
            clock=self.clock,
            admission=policy or release_policy(self.catalog),
            ticket_keys=KEYS,
        )
        self.engine.publish(self.catalog, DULL, RELEASE)

    def hold(self, who: str, day: datetime.date = DULL, office: str = "east", **more: Any) -> Outcome:
        return self.engine.reserve(office, day, who, **{"session": "morning", **more})

    def change(self, held: Outcome, day: datetime.date = RELEASE, **more: Any) -> Outcome:
        return self.engine.reschedule(held.reference, day, **{"session": "morning", **more})

    def passes(self, *people: str) -> list[str]:
        """Let people join the room of the release, open it, and return the passes that they get."""
        room = self.engine.room(ROOM)
        settings = RoomSettings(per_minute_min=6_000, per_minute_max=60_000, step_ms=1_000)
        room.create("east", RELEASE, opens_at=OPENS_AT_MS, join_opens_at=OPENS_AT_MS - HOUR_MS, settings=settings)
        tickets = [room.join(who).ticket for who in people]
        self.clock.set_ms(OPENS_AT_MS)
        for _ in range(60):
            if all(room.status(ticket).phase is TicketPhase.CALLED for ticket in tickets):
                break
            self.clock.advance_ms(1_000)
        return [room.enter(ticket, who).admission_pass for ticket, who in zip(tickets, people, strict=True)]

    def available(self, day: datetime.date = RELEASE, office: str = "east") -> int:
        (view,) = self.engine.availability(office, day)
        return view.quotas["online"].available


@pytest.mark.parametrize("national", [False, True], ids=["plain", "national"])
def test_held_dull_days_get_no_place_of_a_release_with_a_room(url: str, national: bool) -> None:
    """Brokers hold the day before and change to the release at its opening. All places go to the ticket holders."""
    opening = Opening(url, national=national)
    with opening.engine:
        brokers = [opening.hold(f"broker {number}") for number in range(PLACES)]
        assert {held.status for held in brokers} == {Status.HELD}
        people = [f"person {number}" for number in range(PLACES)]
        passes = opening.passes(*people)
        for held in brokers:
            refused = opening.change(held)
            assert (refused.status, refused.reason) == (Status.NOT_ADMITTED, "no_pass")
            assert refused.reservation == held.reservation
        served = [opening.hold(who, RELEASE, admission_pass=leave) for who, leave in zip(people, passes, strict=True)]
        assert [one.status for one in served] == [Status.HELD] * PLACES
        assert opening.engine.audit().ok


@pytest.mark.parametrize("national", [False, True], ids=["plain", "national"])
def test_the_pass_of_the_room_changes_a_hold(url: str, national: bool) -> None:
    """The pass is used up by the change, and a repeated call finds the change without it."""
    opening = Opening(url, national=national)
    with opening.engine:
        ani, budi = opening.hold("ani"), opening.hold("budi")
        (leave,) = opening.passes("ani")
        assert opening.change(budi, admission_pass=leave).reason == "bad_pass"
        moved = opening.change(ani, admission_pass=leave)
        assert (moved.status, moved.reference) == (Status.HELD, ani.reference)
        assert moved.reservation is not None
        assert moved.reservation.day == RELEASE.toordinal()
        again = opening.change(ani)
        assert (again.status, again.replayed) == (Status.HELD, True)
        assert opening.change(moved, DULL).status is Status.HELD
        back = opening.change(moved, admission_pass=leave)
        assert (back.status, back.reason) == (Status.NOT_ADMITTED, "pass_used_or_over")
        opening.clock.set_ms(OPENS_AT_MS + 2 * HOUR_MS)
        late = opening.hold("citra")
        assert opening.change(late).status is Status.HELD  # the room has ended


@pytest.mark.parametrize("national", [False, True], ids=["plain", "national"])
def test_a_move_from_another_office_needs_the_pass(url: str, national: bool) -> None:
    """A refused move leaves the old place and no open move."""
    opening = Opening(url, national=national)
    with opening.engine:
        held = opening.hold("ani", office="west")
        confirmed = opening.engine.confirm(opening.hold("budi", office="west").reference)
        leave, other = opening.passes("ani", "budi")
        for one in (held, confirmed):
            refused = opening.change(one, office="east")
            assert (refused.status, refused.reason) == (Status.NOT_ADMITTED, "no_pass")
            assert refused.reservation == one.reservation
        assert opening.available() == PLACES
        moved = opening.change(held, office="east", admission_pass=leave)
        assert moved.status is Status.HELD
        assert opening.change(held, office="east").reference == moved.reference
        assert opening.hold("budi", RELEASE, admission_pass=leave).reason == "bad_pass"
        opening.clock.advance_ms(60_000)
        assert opening.engine.recover_moves().undone == 0
        assert opening.change(confirmed, office="east", admission_pass=other).status is Status.CONFIRMED
        assert opening.available() == PLACES - 2
        assert opening.engine.audit().ok


def test_a_policy_of_ones_own_decides_about_a_change(url: str) -> None:
    days = (RELEASE.toordinal(), RELEASE.toordinal())
    opening = Opening(url, ScopedPolicy(ConstantPolicy("shut", deny("members_only")), days=days))
    with opening.engine:
        here, there = opening.hold("ani"), opening.hold("budi", office="west")
        opening.clock.set_ms(OPENS_AT_MS)
        for held, office in ((here, ""), (there, "east")):
            refused = opening.change(held, office=office)
            assert (refused.status, refused.reason) == (Status.NOT_ADMITTED, "members_only")
        assert opening.available() == PLACES


def test_a_change_is_charged_like_a_reserve(url: str) -> None:
    """The bucket of an account pays for its reserves, changes and moves alike."""
    opening = Opening(url, TokenBucketPolicy("tries", LimitKey.ACCOUNT, per_day(3)))
    caller = Caller(account="ani")
    with opening.engine:
        held = opening.hold("ani", caller=caller)
        away = opening.hold("budi", office="west", caller=Caller(account="budi"))
        opening.clock.set_ms(OPENS_AT_MS)
        assert opening.change(held).reason == "no_account"
        assert opening.change(held, caller=caller).status is Status.HELD
        assert opening.change(held, caller=caller).replayed  # costs nothing
        assert opening.change(held, DULL, caller=caller).status is Status.HELD
        for one, office in ((held, ""), (away, "east")):
            refused = opening.change(one, office=office, caller=caller)
            assert (refused.status, refused.reason) == (Status.THROTTLED, "tries")
        assert refused.retry_at_ms > OPENS_AT_MS


def test_a_late_confirm_needs_a_new_pass(url: str) -> None:
    """The pass of the hold is used up. A confirm of a live hold asks nothing, even with ``reacquire``."""
    opening = Opening(url)
    with opening.engine:
        (leave, other) = opening.passes("ani", "budi")
        ani = opening.hold("ani", RELEASE, admission_pass=leave)
        budi = opening.hold("budi", RELEASE, admission_pass=other)
        assert opening.engine.confirm(budi.reference, reacquire=True).status is Status.CONFIRMED
        opening.clock.advance_ms(900_000)
        for shown in ("", leave):
            refused = opening.engine.confirm(ani.reference, reacquire=True, admission_pass=shown)
            assert refused.status is Status.NOT_ADMITTED
            assert refused.reservation is not None
            assert refused.reservation.state is State.EXPIRED
        assert opening.available() == PLACES - 1
        opening.clock.set_ms(OPENS_AT_MS + 2 * HOUR_MS)
        assert opening.engine.confirm(ani.reference, reacquire=True).status is Status.CONFIRMED


@pytest.mark.parametrize("national", [False, True], ids=["plain", "national"])
def test_a_late_confirm_is_charged_like_a_reserve(url: str, national: bool) -> None:
    opening = Opening(url, TokenBucketPolicy("tries", LimitKey.IDENTITY, per_day(2)), national=national)
    with opening.engine:
        held = opening.hold("ani")
        assert opening.engine.confirm(opening.hold("budi").reference, reacquire=True).ok
        opening.clock.advance_ms(900_000)
        assert opening.engine.confirm(held.reference).status is Status.HOLD_EXPIRED
        assert opening.engine.confirm(held.reference, reacquire=True).status is Status.CONFIRMED
        again = opening.hold("budi", RELEASE) if national else opening.hold("ani", RELEASE)
        assert again.status is (Status.IDENTITY_LIMIT if national else Status.THROTTLED)


def test_another_session_of_the_same_day_asks_nothing(url: str) -> None:
    """The reservation is in the release already. Its pass is used up, and its account has no token left."""
    catalog = catalog_of()
    buckets = TokenBucketPolicy("tries", LimitKey.IDENTITY, per_day(1))
    opening = Opening(url, PolicyChain((release_policy(catalog), buckets)))
    with opening.engine:
        (leave,) = opening.passes("ani")
        held = opening.hold("ani", RELEASE, admission_pass=leave)
        assert opening.change(held, session="afternoon").status is Status.HELD


@pytest.mark.parametrize("is_denied", [False, True])
def test_another_channel_of_the_same_day_needs_a_pass(url: str, is_denied: bool) -> None:
    """A place of the kiosk needs no pass, so it must not become an online place without one.

    A policy in front that denies every request must not hide the difference.
    """
    room = release_policy(catalog_of())
    first = ConstantPolicy("first", deny("maintenance"))
    kiosk = ScopedPolicy(first, channels=frozenset({"online"}))
    opening = Opening(url, PolicyChain((kiosk, room)) if is_denied else room)
    with opening.engine:
        opening.clock.set_ms(OPENS_AT_MS)
        held = opening.hold("ani", RELEASE, channel="kiosk")
        assert held.status is Status.HELD
        refused = opening.change(held, channel="online")
        assert (refused.status, refused.reason) == (Status.NOT_ADMITTED, "maintenance" if is_denied else "no_pass")
        assert opening.change(held, channel="kiosk", session="afternoon").status is Status.HELD


def test_an_offer_of_the_wait_list_asks_nothing(url: str) -> None:
    """The party was admitted when it joined the wait list."""
    opening = Opening(url)
    with opening.engine:
        people = [f"person {number}" for number in range(PLACES + 1)]
        passes = opening.passes(*people)
        held = [
            opening.hold(who, RELEASE, admission_pass=leave, join_wait_list=True)
            for who, leave in zip(people, passes, strict=True)
        ]
        assert held[-1].status is Status.WAITING
        assert opening.hold("broker", RELEASE, join_wait_list=True).status is Status.NOT_ADMITTED
        opening.engine.release(held[0].reference)
        offered = opening.engine.lookup(held[-1].reference)
        assert offered is not None
        assert offered.state is State.HELD
        assert opening.engine.confirm(held[-1].reference).status is Status.CONFIRMED


def test_refusals_of_the_reservation_precede_admission(url: str) -> None:
    """An unknown reservation, another owner, a stale version: the answers are those without policies."""
    opening = Opening(url, room_pass(KEYS))
    with opening.engine:
        held = QuotaEngine(opening.engine._store, opening.engine._methods.requests).reserve(
            "east", DULL, "ani", session="morning"
        )
        opening.clock.set_ms(OPENS_AT_MS)
        assert opening.engine.reschedule("east~nothing", RELEASE, session="morning").status is Status.NOT_FOUND
        assert opening.change(held, owner="budi").status is Status.NOT_OWNER
        assert opening.change(held, expected_version=7).status is Status.STALE
        assert opening.change(held, DULL).replayed
        assert opening.change(held).reason == "no_pass"
        assert opening.engine.confirm("east~nothing", reacquire=True).status is Status.NOT_FOUND


def test_an_engine_without_policies_rejects_a_pass() -> None:
    clock = ManualClock(OPENS_AT_MS)
    with QuotaEngine.open("memory://", catalog=catalog_of(), clock=clock) as engine:
        for call in (engine.confirm, lambda reference, **more: engine.reschedule(reference, DULL, **more)):
            with pytest.raises(InvalidRequest, match="admission_pass"):
                call("east~x", **shown("x"))


async def test_the_async_engine_asks_the_same() -> None:
    clock, catalog = ManualClock(OPENS_AT_MS), catalog_of()
    policy = ScopedPolicy(
        PassRequiredPolicy("pass", lambda text, _: AdmissionPass(text, OPENS_AT_MS + HOUR_MS)),
        days=(RELEASE.toordinal(), RELEASE.toordinal()),
    )
    async with await AsyncQuotaEngine.open("memory://", catalog=catalog, clock=clock, admission=policy) as engine:
        await engine.publish(catalog, DULL, RELEASE)
        held = await engine.reserve("east", DULL, "ani", session="morning")
        assert (await engine.reschedule(held.reference, RELEASE, session="morning")).reason == "no_pass"
        moved = await engine.reschedule(held.reference, RELEASE, session="morning", **shown("p1"))
        assert moved.status is Status.HELD
        clock.advance_ms(900_000)
        late = await engine.confirm(held.reference, reacquire=True, **shown("p1"))
        assert (late.status, late.reason) == (Status.NOT_ADMITTED, "pass_used_or_over")
        assert (await engine.confirm(held.reference, reacquire=True, **shown("p2"))).status is Status.CONFIRMED
