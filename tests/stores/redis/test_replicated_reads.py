"""With durability=replicated, an answer shows only a state that the replicas have, on real servers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from quota_engine import QuotaEngine, load_catalog
from quota_engine.admission.token_bucket import Charge, PeekTokens, TakeTokens, per_minute
from quota_engine.clocks import ManualClock
from quota_engine.conformance import random_draws as draws
from quota_engine.conformance import random_rooms as rooms
from quota_engine.conformance.world import DAY, OFFICE, ONLINE, OPENS_AT_MS, published, reserve
from quota_engine.domain.commands import Confirm
from quota_engine.domain.cross_office_registry import Claim, FindClaims
from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.draws.commands import CreateDraw, SubmitApplication
from quota_engine.draws.queries import ReadDraw
from quota_engine.ports import (
    ApplyMany,
    Audit,
    Describe,
    ListDay,
    Lookup,
    Query,
    ReadConsumerGroup,
    ReadEvents,
    ReadHoldRemainingHistogram,
    StoreRequest,
    View,
)
from quota_engine.stores.redis.factory import open_async_store, open_store
from quota_engine.stores.redis.sync_store import RedisStore
from quota_engine.waiting_room.commands import CreateRoom, JoinRoom, ViewRoom
from tests.support.server_groups import Replicated

PATIENT = "?durability=replicated&replicas=1&attempts_max=30"
HASTY = "?durability=replicated&replicas=1&wait_ms=100&attempts_max=2"
NOT_SAFE = "is not safe yet: 0 of 1 replicas have it, so a failover could lose it; nothing is lost now; ask again"
CHARGE = (Charge("reserve", per_minute(6, 3), 1),)
KEY = b"sixteen bytes or more"


class Question(NamedTuple):
    """A ledger, a command that changes it, and a request that shows the change."""

    address: str
    creating: tuple[Any, ...]
    command: Any
    request: StoreRequest[Any]
    now_ms: int = OPENS_AT_MS


ROOM, DRAW, REGISTRY, BUCKETS = "~room.december", "~draw.dec", "~n.00", "~buckets.door"
APPLICATION = SubmitApplication(("a" * 22,), draws.PREFERENCES[:1])
LEASE = Claim("a" * 22, "sby~one", 20_000, 100_000, 0)
QUESTIONS = {
    "lookup": Question(OFFICE, published(), reserve("ani", ONLINE), Lookup(OFFICE, "ani")),
    "view": Question(OFFICE, published(), reserve("ani", ONLINE), View(OFFICE, (DAY,))),
    "views": Question(OFFICE, published(), reserve("ani", ONLINE), View(OFFICE, (DAY, DAY + 1))),
    "list": Question(OFFICE, published(), reserve("ani", ONLINE), ListDay(OFFICE, DAY)),
    "holds": Question(OFFICE, published(), reserve("ani", ONLINE), ReadHoldRemainingHistogram(OFFICE, DAY, (1,))),
    "events": Question(OFFICE, published(), reserve("ani", ONLINE), ReadEvents(OFFICE, 0, 100)),
    "room": Question(
        ROOM, (CreateRoom(rooms.terms()),), JoinRoom("ani"), Query(ROOM, ViewRoom()), rooms.OPENS_AT_MS - 1
    ),
    "draw": Question(DRAW, (CreateDraw(draws.TERMS),), APPLICATION, Query(DRAW, ReadDraw()), draws.OPENS_AT_MS),
    "claims": Question(REGISTRY, (), LEASE, Query(REGISTRY, FindClaims(("a" * 22,))), 0),
    "buckets": Question(BUCKETS, (), TakeTokens(CHARGE), Query(BUCKETS, PeekTokens(CHARGE))),
}


@pytest.fixture
def group(binary: Path) -> Iterator[Replicated]:
    """A primary and a replica that is in step."""
    with Replicated(binary) as group:
        yield group


@pytest.fixture
def opened() -> Iterator[list[RedisStore]]:
    """Stores that the test closes."""
    stores: list[RedisStore] = []
    yield stores
    for store in stores:
        store.close()


@pytest.mark.parametrize("name", QUESTIONS)
def test_question_waits_for_the_replicas(group: Replicated, opened: list[RedisStore], name: str) -> None:
    """A command's outcome is unknown because no replica has it. No question shows its effect before one has."""
    address, creating, command, request, now_ms = QUESTIONS[name]
    patient, hasty = (open_store(group.url + options, ManualClock(now_ms)) for options in (PATIENT, HASTY))
    opened += [patient, hasty]
    for one in creating:
        assert patient.apply(address, one).ok
    before = patient.execute(request)
    group.replicas[0].pause()
    with pytest.raises(OutcomeUnknown, match="0 of 1 replicas have it"):
        hasty.apply(address, command)
    with pytest.raises(BackendUnavailable, match=NOT_SAFE):
        hasty.execute(request)
    group.replicas[0].resume()
    assert patient.execute(request) != before


def test_audit_and_description_show_the_primary_as_it_is(group: Replicated, opened: list[RedisStore]) -> None:
    """They are for operators who look for the reason, and promise nothing."""
    patient, hasty = (open_store(group.url + options, ManualClock(OPENS_AT_MS)) for options in (PATIENT, HASTY))
    opened += [patient, hasty]
    patient.execute(ApplyMany(OFFICE, published()))
    group.replicas[0].pause()
    assert hasty.execute(Audit(OFFICE)) == []
    assert DAY in hasty.execute(Describe(OFFICE))["days"]
    group.replicas[0].resume()


def test_lookup_never_shows_a_confirmation_that_a_failover_loses(group: Replicated, opened: list[RedisStore]) -> None:
    """Every confirm is unknown, and so is every lookup. After the failover the hold is not confirmed."""
    patient, hasty = (open_store(group.url + options, ManualClock(OPENS_AT_MS)) for options in (PATIENT, HASTY))
    opened += [patient, hasty]
    patient.execute(ApplyMany(OFFICE, published()))
    patient.apply(OFFICE, reserve("ani", ONLINE))
    group.promote(group.replicas[0])  # the old primary does not know it yet
    old, new = group.members
    for _ in range(2):
        with pytest.raises(OutcomeUnknown):
            hasty.apply(OFFICE, Confirm("ani"))
        with pytest.raises(BackendUnavailable, match=NOT_SAFE):
            hasty.execute(Lookup(OFFICE, "ani"))
        with pytest.raises(OutcomeUnknown, match="0 of 1 replicas have it"):
            hasty.execute(ReadConsumerGroup(OFFICE, "mail", "w1", 100, 0))
    old.kill()
    alone = open_store(new.url + "?fence=auto", ManualClock(OPENS_AT_MS))
    opened.append(alone)
    found = alone.execute(Lookup(OFFICE, "ani"))
    assert found is not None
    assert found.state == "HELD"


def test_position_is_shown_only_when_a_failover_keeps_it(group: Replicated, opened: list[RedisStore]) -> None:
    """Twenty applicants join while no replica follows. The room shows no order with them, and no state at all."""
    clock = ManualClock(OPENS_AT_MS - 1_000)
    options: dict[str, Any] = {"identity_key": KEY, "catalog": load_catalog("surabaya"), "clock": clock}
    with (
        QuotaEngine.open(group.url + PATIENT, **options) as patient,
        QuotaEngine.open(group.url + HASTY, **options) as hasty,
    ):
        patient.room("december").create("surabaya", 739_000, opens_at=OPENS_AT_MS)
        tickets = [patient.room("december").join(f"357801234567890{number}").ticket for number in range(5)]
        old, new = group.members
        group.promote(new)  # the old primary does not know it yet
        opened.append(open_store(old.url + "?fence=auto", clock))
        assert [opened[0].apply(ROOM, JoinRoom(f"lost-{number}")).index for number in range(20)] == list(range(5, 25))
        clock.set_ms(OPENS_AT_MS + 2_000)
        room = hasty.room("december")
        calls = (lambda: room.open(""), lambda: room.join("3578012345678909"), room.view, room.transcript)
        for call in (*calls, *(lambda ticket=ticket: room.status(ticket) for ticket in tickets)):
            with pytest.raises(BackendUnavailable, match=NOT_SAFE):
                call()
        old.kill()
    with QuotaEngine.open(new.url + "?fence=auto", **options) as alone:
        assert alone.room("december").view().tickets == 5


async def test_async_questions_share_one_wait(group: Replicated) -> None:
    """Questions of a batch wait for the replicas once."""
    store = await open_async_store(group.url + PATIENT, ManualClock(OPENS_AT_MS))
    await store.execute(ApplyMany(OFFICE, published()))
    before = waits(group)
    await asyncio.gather(*(store.execute(Lookup(OFFICE, f"k{one}")) for one in range(50)))
    assert waits(group) - before <= 5
    await store.close()


def waits(group: Replicated) -> int:
    return int(group.primary.info("commandstats")["cmdstat_wait"]["calls"])


def test_question_about_nothing_creates_nothing(group: Replicated, opened: list[RedisStore]) -> None:
    """The write behind a question needs a ledger that exists."""
    opened.append(open_store(group.url + PATIENT, ManualClock(OPENS_AT_MS)))
    assert opened[0].execute(Lookup("nowhere", "ani")) is None
    assert group.primary.ask("DBSIZE") == 0
