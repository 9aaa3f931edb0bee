"""After a failover an office is closed until a client has reconciled it, on real servers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quota_engine.clocks import ManualClock
from quota_engine.conformance.world import DAY, OFFICE, ONLINE, OPENS_AT_MS, published, reserve
from quota_engine.domain.commands import Confirm, SetCapacity
from quota_engine.domain.errors import BackendUnavailable, InvalidRequest, OutcomeUnknown
from quota_engine.domain.outcomes import Status
from quota_engine.ports import ApplyMany, Audit, Clock, Describe, ReadConsumerGroup, ReadEvents, Reconcile, Store
from quota_engine.stores.redis import factory
from quota_engine.stores.redis.factory import open_async_store
from quota_engine.stores.redis.keys import keys_of
from quota_engine.stores.redis.reconciliation import LEASE_MS
from quota_engine.stores.redis.scripts import RECONCILE
from quota_engine.stores.redis.sync_store import RedisStore
from tests.stores.redis.conftest import cluster_url
from tests.stores.redis.test_outages import CLOCK
from tests.support.lossy_proxy import LossyProxy
from tests.support.server_groups import Cluster, Replicated, Sentinels
from tests.support.servers import HOST, Server, until

HEAD, DAYS = keys_of("", OFFICE)[:2]
PATIENT = "?durability=replicated&replicas=1&attempts_max=30"
HASTY = "?durability=replicated&replicas=1&wait_ms=100&attempts_max=2"
_opened: list[RedisStore] = []


@pytest.fixture(autouse=True)
def close_backends() -> Iterator[None]:
    """Close all stores of a test after it."""
    yield
    while _opened:
        _opened.pop().close()


def open_store(url: str, clock: Clock | None = CLOCK) -> RedisStore:
    _opened.append(factory.open_store(url, clock))
    return _opened[-1]


def set_up(backend: Store, capacity: int = 100) -> None:
    backend.execute(ApplyMany(OFFICE, (*published(), SetCapacity(DAY, "online", capacity))))


@pytest.fixture
def group(binary: Path) -> Iterator[Replicated]:
    """A primary and a replica that is in step."""
    with Replicated(binary) as group:
        yield group


def epoch_of(server: Server) -> int:
    return int(server.ask("HGET", HEAD, "epoch") or 0)


def online(backend: Store) -> dict[str, Any]:
    quota: dict[str, Any] = backend.execute(Describe(OFFICE))["days"][DAY]["quotas"]["online"]
    return quota


def test_acknowledged_places_survive_a_failover(group: Replicated) -> None:
    """A replica is cut off and takes over, and the primary dies. All acknowledged places exist, and calls in doubt get
    their outcome with the same key. The first call has reconciled the ledger before it sold anything.
    """
    replica = group.replicas[0]
    with LossyProxy(group.primary.socket_path) as proxy:
        backend = open_store(proxy.url + PATIENT)
        set_up(backend)
        assert epoch_of(group.primary) == 1
        acknowledged = [f"k{one}" for one in range(20)]
        for one in acknowledged:
            assert backend.apply(OFFICE, reserve(one, ONLINE)).status is Status.HELD
        group.promote(replica)  # the old primary does not know it yet
        hasty = open_store(proxy.url + HASTY)
        with pytest.raises(OutcomeUnknown, match="0 of 1 replicas have it"):
            hasty.apply(OFFICE, reserve("in-doubt", ONLINE))
        group.members[0].kill()
        proxy.switch_to(replica.socket_path)
        alone = open_store(replica.url + "?fence=auto")  # the new primary has no replica yet
        for one in acknowledged:
            assert alone.apply(OFFICE, Confirm(one)).status is Status.CONFIRMED
        in_doubt = alone.apply(OFFICE, reserve("in-doubt", ONLINE))
        assert (in_doubt.status, in_doubt.replayed) == (Status.HELD, False)  # it was lost
        assert epoch_of(replica) == 2
        assert online(alone)["free"] == 100 - 21
        assert alone.execute(Audit(OFFICE)) == []
        with pytest.raises(OutcomeUnknown):  # done here, but on no replica
            hasty.apply(OFFICE, reserve("new", ONLINE))


def test_manual_fence_stays_closed_until_reconcile(group: Replicated) -> None:
    """With fence=manual nothing is changed after a failover, and the refusal says what to do."""
    replica = group.replicas[0]
    set_up(open_store(group.primary.url + "?fence=manual"))
    group.wait_in_step()
    group.primary.kill()
    group.promote(replica)
    backend = open_store(replica.url + "?fence=manual")
    before = backend.execute(Describe(OFFICE))
    for command in (reserve("ani", ONLINE), Confirm("nobody")):
        with pytest.raises(BackendUnavailable, match=r"the office conformance is closed: .* call reconcile"):
            backend.apply(OFFICE, command)
    assert backend.execute(Describe(OFFICE)) == before
    found = backend.execute(Reconcile(OFFICE))
    assert (found.epoch, found.findings, found.repaired, found.restored) == (2, (), 0, 0)
    assert backend.apply(OFFICE, reserve("ani", ONLINE)).status is Status.HELD
    assert backend.execute(Reconcile(OFFICE)).epoch == 3


def test_lost_events_are_restored_from_a_consumer(group: Replicated) -> None:
    """Places that the failover lost exist again after their events are restored. After the office has continued without
    them, the events are refused.
    """
    replica = group.replicas[0]
    old = open_store(group.primary.url + "?fence=manual")
    set_up(old)
    group.wait_in_step()
    group.promote(replica)  # the old primary does not know it yet
    for one in ("ani", "budi"):
        old.apply(OFFICE, reserve(one, ONLINE))
    old.apply(OFFICE, Confirm("ani"))
    kept = old.execute(ReadEvents(OFFICE, 2, 1000))
    wanted = old.execute(Describe(OFFICE))
    group.members[0].kill()
    backend = open_store(replica.url + "?fence=manual")
    found = backend.execute(Reconcile(OFFICE, tuple(kept)))
    assert (found.epoch, found.repaired, found.restored) == (2, 0, 3)
    assert backend.execute(Describe(OFFICE)) == wanted
    assert backend.execute(Audit(OFFICE)) == []
    assert backend.apply(OFFICE, Confirm("ani")).replayed
    citra = backend.apply(OFFICE, reserve("citra", ONLINE)).reservation
    assert citra is not None
    with pytest.raises(InvalidRequest, match="another event here"):
        backend.execute(Reconcile(OFFICE, (kept[-1].__class__(kept[-1].number + 1, kept[-1].event),)))
    assert backend.apply(OFFICE, Confirm("citra")).status is Status.CONFIRMED


def test_damage_is_repaired_before_the_next_sale(server: Server) -> None:
    """Counters were changed by hand and the server was restarted: the first call finds and repairs them."""
    backend = open_store(server.url + "?fence=auto")
    set_up(backend)
    for one in ("ani", "budi"):
        backend.apply(OFFICE, reserve(one, ONLINE))
    before = backend.execute(Describe(OFFICE))
    rows = [row.split("\t") for row in server.ask("HGET", DAYS, DAY).split("\n")]
    (row,) = (row for row in rows if row[0] == "online" and len(row) > 3)
    row[2], row[3] = str(int(row[2]) + 5), "0"  # free, held
    server.ask("HSET", DAYS, DAY, "\n".join("\t".join(row) for row in rows))
    assert len(backend.execute(Audit(OFFICE))) == 3
    server.restart()
    assert backend.apply(OFFICE, Confirm("nobody")).status is Status.NOT_FOUND
    assert backend.execute(Describe(OFFICE)) == before
    assert backend.execute(Audit(OFFICE)) == []
    assert epoch_of(server) == 2


@pytest.fixture
def server(binary: Path) -> Iterator[Server]:
    """A server that keeps all of its data."""
    with Server(binary, appendfsync="always") as server:
        yield server


def test_old_primary_is_refused(group: Replicated) -> None:
    """It was cut off and returns. A client that has seen the new primary does not write on it."""
    old, new = group.primary, group.replicas[0]
    with LossyProxy(old.socket_path) as proxy:
        backend = open_store(proxy.url + "?fence=auto&attempts_max=3")
        set_up(backend)
        group.wait_in_step()
        new.ask("REPLICAOF", "NO", "ONE")
        proxy.switch_to(new.socket_path)
        assert backend.apply(OFFICE, reserve("ani", ONLINE)).status is Status.HELD
        assert (epoch_of(old), epoch_of(new)) == (1, 2)
        proxy.switch_to(old.socket_path)
        with pytest.raises(
            BackendUnavailable, match=r"at epoch 1 on this server, and .* at epoch 2: the server is an old primary"
        ):
            backend.apply(OFFICE, reserve("budi", ONLINE))
        proxy.switch_to(new.socket_path)
        assert backend.apply(OFFICE, reserve("budi", ONLINE)).status is Status.HELD
        old.restart()  # it thinks nothing of it, and has forgotten all
        proxy.switch_to(old.socket_path)
        with pytest.raises(
            BackendUnavailable, match="no record of the office conformance, which this process has seen at epoch 2"
        ):
            backend.apply(OFFICE, reserve("citra", ONLINE))
        assert backend.execute(Reconcile(OFFICE)).epoch == 0  # on request: the office begins again
        assert backend.apply(OFFICE, reserve("citra", ONLINE)).status is Status.UNKNOWN_DAY


def test_returning_primary_is_fenced(group: Replicated) -> None:
    """From one to the other and back, without a restart: each takes over with another history, and epochs grow."""
    one, other = group.primary, group.replicas[0]
    backend = open_store(one.url + "?fence=auto")
    set_up(backend)
    group.wait_in_step()
    for epoch, (new, old) in enumerate([(other, one), (one, other)], 2):
        new.ask("REPLICAOF", "NO", "ONE")
        old.ask("REPLICAOF", HOST, new.port)
        until(lambda old=old: old.info("replication")["master_link_status"] == "up", "the old primary to follow")  # type: ignore[misc]
        backend = open_store(new.url + "?fence=auto")
        assert backend.apply(OFFICE, reserve(f"k{epoch}", ONLINE)).status is Status.HELD
        assert epoch_of(new) == epoch
        until(lambda old=old, epoch=epoch: epoch_of(old) == epoch, "the replica to have it")  # type: ignore[misc]


def test_many_clients_meet_the_fence_and_one_reconciles(server: Server) -> None:
    """Each call is answered, and the office was taken over once."""
    set_up(open_store(server.url + "?fence=auto"))
    server.restart()
    backends = [open_store(server.url + "?fence=auto&attempts_max=30") for _ in range(4)]
    statuses: list[Status] = []
    start = threading.Barrier(8)

    def press(number: int) -> None:
        start.wait()
        statuses.append(backends[number % 4].apply(OFFICE, reserve(f"k{number}", ONLINE)).status)

    threads = [threading.Thread(target=press, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [Status.HELD] * 8
    assert epoch_of(server) == 2
    assert backends[0].execute(Audit(OFFICE)) == []


def test_dead_reconciling_client_is_replaced(server: Server) -> None:
    """While it is at it, the office is closed for others; after a minute without a sign the next one does it."""
    clock = ManualClock(OPENS_AT_MS)
    backend = open_store(server.url + "?fence=auto&attempts_max=2", clock)
    set_up(backend)
    keys = keys_of("", OFFICE)
    dead: tuple[str | int, ...] = (RECONCILE.text, len(keys), *keys, OPENS_AT_MS, "begin", "dead", "", "1")
    assert server.ask("EVAL", *dead, LEASE_MS)[0] == "GO"
    clock.advance_ms(LEASE_MS - 1)
    with pytest.raises(BackendUnavailable, match="is closed"):
        backend.apply(OFFICE, reserve("ani", ONLINE))
    clock.advance_ms(1)
    assert backend.apply(OFFICE, reserve("ani", ONLINE)).status is Status.HELD
    late: tuple[str | int, ...] = (RECONCILE.text, len(keys), *keys, OPENS_AT_MS)
    assert server.ask("EVAL", *late, "write", "dead", 4, "HSET", 1, "number", "0") == ["TAKEN"]
    assert server.ask("EVAL", *late, "open", "dead", 4, 0) == ["TAKEN"]
    assert backend.apply(OFFICE, Confirm("ani")).status is Status.CONFIRMED


def test_reconciliation_without_replicas_leaves_the_office_closed(group: Replicated) -> None:
    """The office stays closed, and the command that met it was not applied. When the replica returns, the same client
    continues at once.
    """
    set_up(open_store(group.primary.url))
    backend = open_store(group.primary.url + HASTY)
    group.replicas[0].pause()
    with pytest.raises(BackendUnavailable, match=r"is closed: .* not finished: 0 of 1 replicas have it; nothing"):
        backend.apply(OFFICE, reserve("ani", ONLINE))
    group.replicas[0].resume()
    group.wait_in_step()
    outcome = backend.apply(OFFICE, reserve("ani", ONLINE))
    assert (outcome.status, outcome.replayed) == (Status.HELD, False)


def test_answer_lost_before_the_fence_stays_unknown(server: Server) -> None:
    """The answer was lost on the previous server, and the office is closed on this one: the outcome is unknown."""
    with LossyProxy(server.socket_path) as proxy:
        backend = open_store(proxy.url + "?fence=manual&attempts_max=4")
        set_up(backend)
        restart = threading.Timer(0.0, server.restart)
        proxy.losses = 1
        proxy.on_loss = restart.run
        with pytest.raises(OutcomeUnknown, match="call reconcile"):
            backend.apply(OFFICE, reserve("ani", ONLINE))
        assert proxy.losses == 0
        backend.execute(Reconcile(OFFICE))
        assert backend.apply(OFFICE, reserve("ani", ONLINE)).replayed


def test_groups_receive_only_replicated_events(group: Replicated) -> None:
    """With durability=replicated no consumer has an event that a failover can lose."""
    patient = open_store(group.primary.url + PATIENT)
    set_up(patient)
    backend = open_store(group.primary.url + HASTY)
    assert len(patient.execute(ReadConsumerGroup(OFFICE, "mail", "w1", 100, 0))) == 4
    group.replicas[0].pause()
    with pytest.raises(OutcomeUnknown):
        backend.apply(OFFICE, reserve("ani", ONLINE))
    with pytest.raises(OutcomeUnknown, match="0 of 1 replicas have it"):
        backend.execute(ReadConsumerGroup(OFFICE, "mail", "w1", 100, 0))
    group.replicas[0].resume()
    assert len(patient.execute(ReadConsumerGroup(OFFICE, "mail", "w1", 100, 0))) == 5


async def test_async_store_reconciles(server: Server) -> None:
    """The same steps, awaited."""
    set_up(open_store(server.url + "?fence=auto"))
    server.restart()
    backend = await open_async_store(server.url + "?fence=auto", CLOCK)
    assert (await backend.apply(OFFICE, reserve("ani", ONLINE))).status is Status.HELD
    assert (await backend.execute(ApplyMany(OFFICE, (Confirm("ani"),))))[0].status is Status.CONFIRMED
    assert (await backend.execute(Reconcile(OFFICE))).epoch == 3
    await backend.close()


def test_call_behind_sentinels_survives_failover_and_reconciliation(sentinels: Sentinels) -> None:
    """The same backend, before and after: the epoch has grown by one."""
    backend = open_store(sentinels.url + "?fence=auto")
    set_up(backend)
    old = sentinels.primary
    before = epoch_of(old)
    sentinels.wait_in_step()
    # Until it learns of the failover, the old primary accepts writes that are lost. Only waiting for replicas helps.
    new = sentinels.fail_over()
    assert backend.apply(OFFICE, reserve("ani", ONLINE)).status is Status.HELD
    assert epoch_of(new) == before + 1
    assert backend.execute(Audit(OFFICE)) == []


def test_replica_in_a_cluster_takes_over(cluster: Cluster) -> None:
    """A planned failover without a loss closes the office, too, until the call has reconciled it."""
    backend = open_store(cluster_url(cluster) + "?fence=auto")
    set_up(backend)
    slot = cluster.slot_of(HEAD)
    old = cluster.owner_of(slot)
    replica = cluster.replica_of(old)
    cluster.fail_over(replica)
    assert backend.apply(OFFICE, reserve("ani", ONLINE)).status is Status.HELD
    assert epoch_of(replica) == 2
    cluster.wait_ok()
