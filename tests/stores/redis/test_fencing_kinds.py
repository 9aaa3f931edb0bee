"""Waiting rooms, draws, bucket sets and the registry have a fence as offices have, on real servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from quota_engine.admission.token_bucket import Charge, PeekTokens, ResetTokens, TakeOutcome, TakeTokens, per_minute
from quota_engine.clocks import ManualClock
from quota_engine.conformance import random_draws as draws
from quota_engine.conformance import random_rooms as rooms
from quota_engine.conformance.world import DAY, OFFICE, ONLINE, OPENS_AT_MS, published, reserve
from quota_engine.domain.commands import Confirm
from quota_engine.domain.cross_office_registry import Claim, Drop, FindClaims
from quota_engine.domain.errors import BackendUnavailable, InvalidRequest
from quota_engine.domain.reconcile import Reconciliation
from quota_engine.draws.commands import CloseDraw, CreateDraw
from quota_engine.draws.outcomes import DrawStatus
from quota_engine.draws.queries import ReadDraw
from quota_engine.ports import (
    ApplyMany,
    Audit,
    CreateConsumerGroup,
    ListConsumerGroups,
    ListDay,
    Lookup,
    Query,
    ReadConsumerGroup,
    ReadEvents,
    Reconcile,
    RecordedEvent,
    StoreRequest,
    TrimEvents,
    View,
)
from quota_engine.stores.redis.factory import open_store
from quota_engine.stores.redis.keys import keys_of
from quota_engine.stores.redis.ledger_formats import format_of
from quota_engine.stores.redis.scripts import RECONCILE
from quota_engine.stores.redis.sync_store import RedisStore
from quota_engine.waiting_room.commands import CreateRoom, JoinRoom, ViewRoom
from quota_engine.waiting_room.results import RoomStatus
from tests.support.lossy_proxy import LossyProxy
from tests.support.server_groups import Replicated
from tests.support.servers import Server

CHARGE = (Charge("reserve", per_minute(6, 3), 1),)
LOST = "this store has no record of the {name}, which this process has seen at epoch 1: the store was wiped"


class Kind(NamedTuple):
    """A kind of ledger.

    Attributes:
        address: Of one ledger.
        name: Its name in messages.
        creating: A command that creates it.
        command: A command that succeeds in it, and any number of times.
        question: A question about it.
        now_ms: The time of the test.
        epoch_field: The field of its head that has the epoch.
    """

    address: str
    name: str
    creating: Any
    command: Any
    question: Any
    now_ms: int
    epoch_field: str = "epoch"


KINDS = {
    "room": Kind(
        "~room.december",
        "waiting room december",
        CreateRoom(rooms.terms()),
        JoinRoom("ani"),
        ViewRoom(),
        rooms.OPENS_AT_MS - 1,
    ),
    "draw": Kind("~draw.dec", "draw dec", CreateDraw(draws.TERMS), CloseDraw(), ReadDraw(), draws.CLOSES_AT_MS),
    "registry": Kind(
        "~n.00",
        "registry shard 00",
        Claim("a" * 22, "sby~one", 20_000, 10**9, 0),
        Drop("b" * 22, 1),
        FindClaims(("a" * 22,)),
        1_000,
    ),
    "buckets": Kind(
        "~buckets.door",
        "bucket set door",
        TakeTokens(CHARGE),
        ResetTokens(("other",)),
        PeekTokens(CHARGE),
        OPENS_AT_MS,
        "~epoch",
    ),
}
KEEPING = ("room", "draw", "registry")
"""The kinds whose loss does harm."""


@pytest.fixture
def group(binary: Path) -> Iterator[Replicated]:
    """A primary and a replica that is in step."""
    with Replicated(binary) as group:
        yield group


@pytest.fixture(params=["valkey_server", "redis_server"])
def server(request: pytest.FixtureRequest) -> Server:
    """An empty server of each kind."""
    found: Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def opened() -> Iterator[list[RedisStore]]:
    """Stores that the test closes."""
    stores: list[RedisStore] = []
    yield stores
    for store in stores:
        store.close()


def epoch_of(server: Server, kind: Kind) -> int:
    stored = format_of(kind.address)
    head = keys_of("", kind.address, stored.key_names)[stored.head]
    return int(server.ask("HGET", head, kind.epoch_field) or 0)


def fail_over(server: Server, kind: Kind) -> None:
    """Let the ledger look as if another server had written it last."""
    stored = format_of(kind.address)
    head = keys_of("", kind.address, stored.key_names)[stored.head]
    server.ask("HSET", head, kind.epoch_field.replace("epoch", "server"), "a" * 40)


@pytest.mark.parametrize("name", KINDS)
def test_first_call_after_a_failover_takes_the_ledger_over(
    group: Replicated, opened: list[RedisStore], name: str
) -> None:
    """A command or a question opens the ledger on the new primary at the next epoch, and is answered."""
    kind = KINDS[name]
    opened.append(open_store(group.url + "?fence=auto", ManualClock(kind.now_ms)))
    opened[0].apply(kind.address, kind.creating) if name != "draw" else create_draw(group.url)
    assert epoch_of(group.primary, kind) == 1
    group.wait_in_step()
    new = group.replicas[0]
    group.primary.kill()
    group.promote(new)
    after = open_store(new.url + "?fence=auto", ManualClock(kind.now_ms))
    opened.append(after)
    after.execute(Query(kind.address, kind.question))
    assert epoch_of(new, kind) == 2
    after.apply(kind.address, kind.command)
    assert epoch_of(new, kind) == 2


def create_draw(url: str) -> None:
    """Create the draw before its close, at which the tests begin."""
    store = open_store(url + "?fence=auto", ManualClock(draws.OPENS_AT_MS))
    assert store.apply("~draw.dec", KINDS["draw"].creating).ok
    store.close()


@pytest.mark.parametrize("name", ["room", "draw"])
def test_old_primary_is_refused_after_a_failover_with_lag(
    group: Replicated, opened: list[RedisStore], name: str
) -> None:
    """A client that has seen the new primary accepts no answer of the old one."""
    kind, old, new = KINDS[name], group.primary, group.replicas[0]
    with LossyProxy(old.socket_path) as proxy:
        store = open_store(proxy.url + "?fence=auto&attempts_max=2", ManualClock(draws.OPENS_AT_MS))
        opened.append(store)
        create = (kind.creating, KINDS["room"].creating)[name == "room"]
        assert store.apply(kind.address, create).ok
        group.wait_in_step()
        new.ask("REPLICAOF", "NO", "ONE")  # the old primary does not know it
        proxy.switch_to(new.socket_path)
        assert store.execute(Query(kind.address, kind.question)) is not None
        assert (epoch_of(old, kind), epoch_of(new, kind)) == (1, 2)
        proxy.switch_to(old.socket_path)
        wanted = f"{kind.name} is at epoch 1 on this server, .* old primary"
        with pytest.raises(BackendUnavailable, match=wanted):
            store.apply(kind.address, kind.command)
        with pytest.raises(BackendUnavailable, match=wanted):
            store.execute(Query(kind.address, kind.question))
        proxy.switch_to(new.socket_path)
        assert store.apply(kind.address, kind.command) is not None


@pytest.mark.parametrize("name", KINDS)
def test_manual_fence_stays_closed_until_the_operator_opens_it(
    server: Server, opened: list[RedisStore], name: str
) -> None:
    """The refusal names the call that opens the ledger, by its address."""
    kind = KINDS[name]
    store = open_store(server.url + "?fence=manual", ManualClock(draws.OPENS_AT_MS if name == "draw" else kind.now_ms))
    opened.append(store)
    store.apply(kind.address, kind.creating)
    assert store.execute(Reconcile(kind.address)) == Reconciliation(kind.address, 1)  # it is open
    fail_over(server, kind)
    wanted = rf"{kind.name} is closed: another server wrote it last \(epoch 1\)"
    with pytest.raises(BackendUnavailable, match=f"{wanted}.*; nothing was applied; call reconcile.'{kind.address}'"):
        store.apply(kind.address, kind.command)
    with pytest.raises(BackendUnavailable, match=f"{wanted}.*; call reconcile"):
        store.execute(Query(kind.address, kind.question))
    assert store.execute(Reconcile(kind.address)) == Reconciliation(kind.address, 2)
    assert store.apply(kind.address, kind.command) is not None
    assert store.execute(Query(kind.address, kind.question)) is not None
    with pytest.raises(InvalidRequest, match="has none"):
        store.execute(Reconcile(kind.address, (RecordedEvent(1, None),)))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", KEEPING)
def test_wiped_store_is_reported_by_questions_as_by_commands(
    server: Server, opened: list[RedisStore], name: str
) -> None:
    """The ledger begins again after an operator's call, for all clients that knew it."""
    kind = KINDS[name]
    clock = ManualClock(draws.OPENS_AT_MS if name == "draw" else kind.now_ms)
    store, other = (open_store(server.url + "?fence=auto&attempts_max=2", clock) for _ in range(2))
    opened += [store, other]
    store.apply(kind.address, kind.creating)
    other.execute(Query(kind.address, kind.question))
    server.ask("FLUSHALL")
    for client in (store, other):
        with pytest.raises(BackendUnavailable, match=f"{LOST.format(name=kind.name)}.*call reconcile.*{kind.address}"):
            client.execute(Query(kind.address, kind.question))
        with pytest.raises(BackendUnavailable, match=LOST.format(name=kind.name) + ".*; nothing was applied; "):
            client.apply(kind.address, kind.creating)
    assert store.execute(Reconcile(kind.address)).epoch == 0
    for client in (other, store):
        client.apply(kind.address, kind.creating)
    assert epoch_of(server, kind) == 2
    assert other.execute(Query(kind.address, kind.question)) is not None


def test_lost_buckets_are_full_again(server: Server, opened: list[RedisStore]) -> None:
    """Their loss breaks no promise, so they begin again at a later epoch."""
    kind = KINDS["buckets"]
    stores = [open_store(server.url + "?fence=auto&attempts_max=2", ManualClock(kind.now_ms)) for _ in range(2)]
    opened += stores
    for store in stores:
        assert store.apply(kind.address, kind.creating) == TakeOutcome()
    server.ask("FLUSHALL")
    assert stores[0].execute(Query(kind.address, kind.question))[0].available == 3
    for store in stores:
        assert store.apply(kind.address, kind.creating) == TakeOutcome()
    assert epoch_of(server, kind) == 2


def test_ended_room_is_not_a_lost_one(server: Server, opened: list[RedisStore]) -> None:
    """A room ends by itself. Its id is free again, and a client that knew it is not refused."""
    clock = ManualClock(rooms.OPENS_AT_MS - 1)
    one, other = (open_store(server.url + "?fence=auto&attempts_max=2", clock) for _ in range(2))
    opened += [one, other]
    address = "~room.december"
    assert one.apply(address, CreateRoom(rooms.terms())).ok
    fail_over(server, KINDS["room"])
    assert one.apply(address, JoinRoom("ani")).ok
    assert epoch_of(server, KINDS["room"]) == 2
    other.execute(Query(address, ViewRoom()))
    clock.set_ms(rooms.terms().forget_at_ms)
    assert one.apply(address, JoinRoom("ani")).status is RoomStatus.NOT_FOUND
    assert server.ask("DBSIZE") == 0
    assert other.execute(Query(address, ViewRoom())).status is RoomStatus.NOT_FOUND
    again = {"opens_at_ms": 600_000, "closes_at_ms": 3_600_000, "forget_at_ms": 9_000_000, "join_opens_at_ms": 0}
    later = rooms.terms(**{field: clock.now_ms() + after_ms for field, after_ms in again.items()})
    assert one.apply(address, CreateRoom(later)).ok
    assert other.execute(Query(address, ViewRoom())).ok
    assert epoch_of(server, KINDS["room"]) == 1
    assert one.apply(address, JoinRoom("ani")).ok
    server.ask("FLUSHALL")  # and this one is lost
    for store in (one, other):
        with pytest.raises(BackendUnavailable, match=LOST.format(name="waiting room december")):
            store.execute(Query(address, ViewRoom()))


def test_ended_draw_is_not_a_lost_one(server: Server, opened: list[RedisStore]) -> None:
    """A forgotten draw may still be stored. A new one of its name begins at the first epoch."""
    clock = ManualClock(draws.OPENS_AT_MS)
    store = open_store(server.url + "?fence=auto&attempts_max=2", clock)
    opened.append(store)
    store.apply("~draw.dec", CreateDraw(draws.TERMS))
    fail_over(server, KINDS["draw"])
    assert store.execute(Query("~draw.dec", ReadDraw())) is not None
    assert epoch_of(server, KINDS["draw"]) == 2
    clock.set_ms(draws.FORGET_AT_MS)
    assert store.apply("~draw.dec", CloseDraw()).status is DrawStatus.UNKNOWN_DRAW
    terms = msgspec.structs.replace(draws.TERMS, closes_at_ms=1_000, forget_at_ms=2_000)
    assert store.apply("~draw.dec", CreateDraw(terms)).ok
    assert epoch_of(server, KINDS["draw"]) == 1
    assert store.execute(Query("~draw.dec", ReadDraw())) is not None


def test_ledger_of_clients_without_a_fence_is_adopted(server: Server, opened: list[RedisStore]) -> None:
    """Nothing shows that a server was lost since, so the epoch stays."""
    kind = KINDS["room"]
    without, store = (open_store(server.url + f"?fence={one}", ManualClock(kind.now_ms)) for one in ("off", "auto"))
    opened += [without, store]
    without.apply(kind.address, kind.creating)
    assert store.execute(Query(kind.address, kind.question)).ok
    assert store.apply(kind.address, kind.command).ok
    assert epoch_of(server, kind) == 1
    assert (
        server.ask("HGET", keys_of("", kind.address, ("head",))[0], "server")
        == server.info("replication")["master_replid"]
    )


OFFICE_REQUESTS: tuple[StoreRequest[Any], ...] = (
    Lookup(OFFICE, "ani"),
    View(OFFICE, (DAY,)),
    View(OFFICE, (DAY, DAY + 1)),
    ListDay(OFFICE, DAY),
    ReadEvents(OFFICE, 0, 10),
    ReadConsumerGroup(OFFICE, "mail", "w1", 10, 0),
    CreateConsumerGroup(OFFICE, "other", 0),
    ListConsumerGroups(OFFICE),
    TrimEvents(OFFICE, 1),
    Audit(OFFICE),
)


def test_wiped_office_is_reported_by_every_request(server: Server, opened: list[RedisStore]) -> None:
    """A lookup does not return None where a confirm says that the store has lost the office."""
    stores = [open_store(server.url + "?fence=auto&attempts_max=2", ManualClock(OPENS_AT_MS)) for _ in range(2)]
    opened += stores
    store, other = stores
    store.execute(ApplyMany(OFFICE, published()))
    store.apply(OFFICE, reserve("ani", ONLINE))
    assert other.execute(Lookup(OFFICE, "ani")) is not None
    server.ask("FLUSHALL")
    lost = LOST.format(name=f"office {OFFICE}")
    for client in stores:
        for request in OFFICE_REQUESTS:
            with pytest.raises(BackendUnavailable, match=f"{lost}.*restore the data, or call reconcile.'{OFFICE}'"):
                client.execute(request)
        with pytest.raises(BackendUnavailable, match=f"{lost}.*; nothing was applied; restore the data"):
            client.apply(OFFICE, Confirm("ani"))
    assert store.execute(Reconcile(OFFICE)) == Reconciliation(OFFICE, 0)
    assert other.execute(Lookup(OFFICE, "ani")) is None
    other.execute(ApplyMany(OFFICE, published()))
    assert store.apply(OFFICE, reserve("ani", ONLINE)).ok
    assert server.ask("HGET", keys_of("", OFFICE)[0], "epoch") == "2"


def test_questions_reconcile_an_office_as_commands_do(server: Server, opened: list[RedisStore]) -> None:
    """The first call after a failover may be a lookup."""
    store = open_store(server.url + "?fence=auto", ManualClock(OPENS_AT_MS))
    opened.append(store)
    store.execute(ApplyMany(OFFICE, published()))
    store.apply(OFFICE, reserve("ani", ONLINE))
    head = keys_of("", OFFICE)[0]
    for epoch, request in enumerate(OFFICE_REQUESTS[:-1], 2):
        server.ask("HSET", head, "server", "a" * 40)  # as after a failover
        store.execute(request)
        assert server.ask("HGET", head, "epoch") == str(epoch)


def test_refusal_says_that_another_client_reconciles(server: Server, opened: list[RedisStore]) -> None:
    """The caller hears since when, that its call was not applied, and that it can try again."""
    store = open_store(server.url + "?fence=auto&attempts_max=2", ManualClock(OPENS_AT_MS))
    opened.append(store)
    store.execute(ApplyMany(OFFICE, published()))
    keys = keys_of("", OFFICE)
    assert (
        server.ask("EVAL", RECONCILE.text, len(keys), *keys, OPENS_AT_MS, "begin", "other", "", "1", 60_000)[0] == "GO"
    )
    reason = f"the office {OFFICE} is closed: another client has been reconciling it since 2001-09-09 01:46:40 UTC; "
    with pytest.raises(BackendUnavailable, match=reason + "nothing was applied; try again in a moment"):
        store.apply(OFFICE, reserve("ani", ONLINE))
    with pytest.raises(BackendUnavailable, match=reason + "try again in a moment"):
        store.execute(Lookup(OFFICE, "ani"))
