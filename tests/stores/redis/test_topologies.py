"""Sentinels and clusters: the rows of the table in docs/backends.md that are about them, on real servers."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import pytest

from quota_engine.conformance.world import DAY, OFFICE, ONLINE, published, reserve
from quota_engine.domain.commands import Command, Confirm, SetCapacity
from quota_engine.domain.errors import BackendUnavailable, InvalidRequest, OutcomeUnknown
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.engine.store_discovery import store_factory
from quota_engine.ports import ApplyMany, Audit, Clock, Describe, ListOffices, Lookup, Store
from quota_engine.stores.redis import factory
from quota_engine.stores.redis.async_store import AsyncRedisStore
from quota_engine.stores.redis.factory import open_async_store
from quota_engine.stores.redis.keys import keys_of, offices_key
from quota_engine.stores.redis.sync_store import RedisStore
from tests.stores.redis.conftest import cluster_url
from tests.support.paths import DOCS
from tests.support.server_groups import MONITORED, Cluster, Sentinels
from tests.support.servers import HOST, Server, redis_server_binary_or_skip, until

CAPACITY = 1_000_000
THREADS = 2
PATIENT = "?attempts_max=60&call_timeout_ms=60000"
"""Options of calls that outlast a failover on a slow machine: by default, a call ends after ten seconds."""


class Opened:
    """A clock within the opening hours of the conformance world."""

    def now_ms(self) -> int:
        return 1_000_000_000_000


CLOCK = Opened()
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


def set_up(url: str) -> RedisStore:
    backend = open_store(url)
    backend.execute(ApplyMany(OFFICE, (*published(), SetCapacity(DAY, "online", CAPACITY))))
    return backend


def held(backend: Store) -> int:
    online: int = backend.execute(Describe(OFFICE))["days"][DAY]["quotas"]["online"]["held"]
    return online


def slot_of_office(cluster: Cluster) -> int:
    return cluster.slot_of(keys_of("", OFFICE)[0])


def elsewhere(cluster: Cluster, slot: int) -> Server:
    """A primary that does not own the slot."""
    owner = cluster.owner_of(slot)
    primaries = [one for one in cluster.members if one.info("replication")["role"] == "master"]
    return next(one for one in primaries if one is not owner)


def move(cluster: Cluster, slot: int, target: Server) -> None:
    cluster.begin_move(slot, target)
    finish_move(cluster, slot, target)


def finish_move(cluster: Cluster, slot: int, target: Server) -> None:
    """Like :meth:`Cluster.finish_move`, for clusters whose primaries are others than at the start."""
    cluster.move_keys(slot, target)
    target_id, source = cluster.id_of(target), cluster.owner_of(slot)
    for node in (target, source):
        node.ask("CLUSTER", "SETSLOT", slot, "NODE", target_id)
    until(lambda: all(_names(one, slot, target) for one in cluster.members), "all to know the new owner")


def _names(member: Server, slot: int, owner: Server) -> bool:
    ranges = member.ask("CLUSTER", "SLOTS")
    return any(first <= slot <= last and port == owner.port for first, last, (_, port, *_), *_ in ranges)


def refusals(member: Server, code: str) -> int:
    """Return how often a server has answered with this error since it started."""
    return int(member.info("errorstats").get(f"errorstat_{code}", {"count": 0})["count"])


class TestCluster:
    """The redirections of a cluster."""

    def test_moved(self, cluster: Cluster) -> None:
        """MOVED: the call goes to the new owner at once, which is known from then on."""
        backend = set_up(cluster_url(cluster) + "?attempts_max=3")
        slot = slot_of_office(cluster)
        old = cluster.owner_of(slot)
        move(cluster, slot, elsewhere(cluster, slot))
        before = refusals(old, "MOVED")
        outcomes = [backend.apply(OFFICE, reserve(name, ONLINE)) for name in ("ani", "budi", "citra")]
        assert [(one.status, one.replayed) for one in outcomes] == [(Status.HELD, False)] * 3
        assert refusals(old, "MOVED") == before + 1
        assert backend.execute(Audit(OFFICE)) == []

    def test_ask(self, cluster: Cluster) -> None:
        """ASK: the call goes to the new owner at once, after ASKING, while the old one still owns the slot."""
        backend = set_up(cluster_url(cluster) + "?attempts_max=2")
        slot = cluster.slot_of(offices_key(""))
        source, target = cluster.owner_of(slot), elsewhere(cluster, slot)
        cluster.begin_move(slot, target)
        assert cluster.move_keys(slot, target) == 1
        before = refusals(source, "ASK")
        assert backend.execute(ListOffices()) == [OFFICE]
        assert backend.execute(ListOffices()) == [OFFICE]
        assert refusals(source, "ASK") == before + 2
        finish_move(cluster, slot, target)
        assert backend.execute(ListOffices()) == [OFFICE]

    def test_tryagain(self, cluster: Cluster) -> None:
        """TRYAGAIN halfway through a move: refused whole and repeated, and an error if it lasts too long."""
        backend = set_up(cluster_url(cluster) + PATIENT)
        slot = slot_of_office(cluster)
        target = elsewhere(cluster, slot)
        cluster.begin_move(slot, target)
        cluster.move_keys(slot, target, keys_max=1)
        with pytest.raises(BackendUnavailable):
            open_store(cluster_url(cluster) + "?attempts_max=2").apply(OFFICE, reserve("ani", ONLINE))
        back = threading.Timer(0.2, finish_move, (cluster, slot, target))
        back.start()
        outcome = backend.apply(OFFICE, reserve("ani", ONLINE))
        back.join()
        assert (outcome.status, outcome.replayed) == (Status.HELD, False)
        assert backend.execute(Audit(OFFICE)) == []

    def test_clusterdown(self, cluster: Cluster) -> None:
        """CLUSTERDOWN, here because a slot has no owner: refused whole and repeated, and an error if it lasts."""
        backend = set_up(cluster_url(cluster) + PATIENT)
        office = slot_of_office(cluster)
        owner = cluster.owner_of(office)
        # Another than the office's own, whose answer would be another: it may have moved to a node of higher slots.
        lost = next(slot for slot in cluster.slots_of(owner) if slot != office)
        owner.ask("CLUSTER", "DELSLOTS", lost)
        back = threading.Timer(0.2, owner.ask, ("CLUSTER", "ADDSLOTS", lost))
        try:
            with pytest.raises(BackendUnavailable, match="down"):
                open_store(cluster_url(cluster) + "?attempts_max=2").apply(OFFICE, reserve("ani", ONLINE))
        finally:
            back.start()
        outcome = backend.apply(OFFICE, reserve("ani", ONLINE))
        back.join()
        assert (outcome.status, outcome.replayed) == (Status.HELD, False)
        cluster.wait_ok()

    def test_a_slot_moves_under_load(self, cluster: Cluster) -> None:
        """Moved the old way, there and back again, while threads reserve: no error, nothing lost, nothing twice."""
        backend = set_up(cluster_url(cluster))
        slot = slot_of_office(cluster)
        with Load(backend) as load:
            for _ in range(4):
                load.wait_for_more(20)
                move(cluster, slot, elsewhere(cluster, slot))
            load.wait_for_more(20)
        assert load.errors == []
        assert held(backend) == len(load.done)
        assert all(outcome.replayed for outcome in load.send_again())
        assert load.all_is_held_once()

    def test_offices_are_spread_over_nodes(self, cluster: Cluster) -> None:
        """Each office is one slot, and the slots are spread."""
        backend = open_store(cluster_url(cluster) + "?namespace=test")
        offices = [f"office{number}" for number in range(12)]
        for office in offices:
            backend.execute(ApplyMany(office, published()))
        assert backend.execute(ListOffices()) == sorted(offices)
        primaries = [one for one in cluster.members if one.info("replication")["role"] == "master"]
        assert all(int(one.ask("DBSIZE")) > 0 for one in primaries)

    async def test_async_store_is_redirected(self, cluster: Cluster) -> None:
        """MOVED and TRYAGAIN, by asyncio."""
        await asyncio.to_thread(set_up, cluster_url(cluster))
        backend = await open_async_store(cluster_url(cluster) + PATIENT, CLOCK)
        slot = slot_of_office(cluster)
        target = elsewhere(cluster, slot)
        cluster.begin_move(slot, target)
        cluster.move_keys(slot, target, keys_max=2)
        waiting = [asyncio.ensure_future(backend.apply(OFFICE, reserve(f"a{n}", ONLINE))) for n in range(20)]
        await asyncio.sleep(0.05)
        await asyncio.to_thread(finish_move, cluster, slot, target)
        outcomes = await asyncio.gather(*waiting)
        assert [(one.status, one.replayed) for one in outcomes] == [(Status.HELD, False)] * 20
        assert await backend.execute(Audit(OFFICE)) == []
        await backend.close()
        await backend.close()

    def test_opened_as_one_server(self, cluster: Cluster) -> None:
        """The error names the right URL, as it does for a single server that is opened as a cluster."""
        other = elsewhere(cluster, cluster.slot_of(offices_key("")))
        backend = open_store(other.url)
        with pytest.raises(BackendUnavailable, match=r"redis\+cluster://"):
            backend.execute(ListOffices())

    def test_documented_permissions_suffice(self, cluster: Cluster) -> None:
        """The permissions for one server, and those that the documents list for a cluster."""
        documents = " ".join((DOCS / "backends.md").read_text(encoding="utf-8").split())
        rights = documents.partition("~{quota_engine:* ")[2].partition(" ```")[0].split()
        more = documents.partition("In a cluster, `")[2].partition("`")[0].split()
        assert len(rights) > 20
        assert more == ["+cluster|slots", "+asking", "+info"]
        for member in cluster.members:
            member.ask("ACL", "SETUSER", "engine", "reset", "on", ">secret", "~{quota_engine:*", *rights, *more)
        url = cluster_url(cluster).replace("//", "//engine:secret@")
        backend = set_up(url)
        slot = cluster.slot_of(offices_key(""))
        target = elsewhere(cluster, slot)
        cluster.begin_move(slot, target)
        cluster.move_keys(slot, target)
        assert backend.execute(ListOffices()) == [OFFICE]
        finish_move(cluster, slot, target)
        assert backend.apply(OFFICE, reserve("ani", ONLINE)).status is Status.HELD
        with pytest.raises(BackendUnavailable, match="invalid username-password"):
            open_store(url.replace("secret", "wrong"))


class TestFailover:
    """A primary dies while threads reserve. The last acknowledged places may be lost; the counters are right."""

    def test_in_a_cluster(self, cluster: Cluster) -> None:
        """The calls that meet it wait for the replica to take over. From threads on Valkey, by asyncio on Redis."""
        set_up(cluster_url(cluster))
        old = cluster.owner_of(slot_of_office(cluster))
        replica = cluster.replica_of(old)
        is_async = "redis" in old.binary.name
        with opened(cluster_url(cluster), is_async=is_async) as backend, Load(backend) as load:
            load.wait_for_more(20)
            old.kill()
            until(lambda: replica.info("replication")["role"] == "master", "the replica to take over")
            load.wait_for_more(20)
        assert load.errors == []
        assert load.all_is_held_once()
        old.start()
        until(lambda: old.info("replication").get("master_link_status") == "up", "the old primary to follow")
        cluster.wait_ok()

    def test_behind_sentinels(self, sentinels: Sentinels) -> None:
        """They wait until the Sentinels have agreed on the next. By asyncio on Valkey, from threads on Redis."""
        set_up(sentinels.url)
        old = sentinels.primary
        is_async = "valkey" in old.binary.name
        with opened(sentinels.url, is_async=is_async) as backend, Load(backend) as load:
            load.wait_for_more(20)
            old.kill()
            sentinels.wait_failed_over(old)
            load.wait_for_more(20)
        assert load.errors == []
        assert load.all_is_held_once()
        old.start()
        old.ask("REPLICAOF", HOST, sentinels.primary.port)  # the Sentinels would let ten seconds pass
        until(lambda: old.info("replication").get("master_link_status") == "up", "the old primary to follow")


class TestSentinels:
    """Behind Sentinels."""

    def test_planned_failover(self, sentinels: Sentinels) -> None:
        """A failover on request: calls continue at the new primary."""
        backend = set_up(sentinels.url)
        old = sentinels.primary
        with Load(backend) as load:
            load.wait_for_more(20)
            # Until the Sentinels make it a replica, the old primary acknowledges writes that it will lose.
            assert sentinels.fail_over() is not old
            load.wait_for_more(20)
        assert load.all_is_held_once()

    def test_without_sentinels_the_known_primary_serves(self, sentinels: Sentinels) -> None:
        """Sentinels are queried only after an error. Stopped Sentinels alone are not one."""
        backend = set_up(sentinels.url)
        addresses = f"{HOST}:1,{HOST}:2"
        with pytest.raises(BackendUnavailable, match="no server is known"):
            open_store(f"redis+sentinel://{addresses}/{MONITORED}?attempts_max=2")
        with pytest.raises(BackendUnavailable, match="does not watch a service 'other'"):
            open_store(sentinels.url.replace(MONITORED, "other") + "?attempts_max=1")
        assert backend.apply(OFFICE, reserve("ani", ONLINE)).status is Status.HELD
        assert open_store(sentinels.url.replace("//", f"//{addresses},")).execute(Lookup(OFFICE, "ani"))

    async def test_async_store_queries_sentinels(self, sentinels: Sentinels) -> None:
        """The same, by asyncio; a database besides the first."""
        await asyncio.to_thread(set_up, sentinels.url + "/3")
        backend = await open_async_store(sentinels.url + "/3", CLOCK)
        assert (await backend.apply(OFFICE, reserve("ani", ONLINE))).status is Status.HELD
        assert (await backend.apply(OFFICE, Confirm("ani"))).status is Status.CONFIRMED
        assert int(sentinels.primary.info("keyspace")["db3"]["keys"]) > 5
        await backend.close()


class Sends(Protocol):
    """As much of a backend as a load needs."""

    def apply(self, office: str, command: Command) -> Outcome: ...


class Load:
    """Threads that reserve one place after the other, and ask again with the same key until they know."""

    def __init__(self, backend: Sends) -> None:
        self.done: list[str] = []
        self.errors: list[Exception] = []
        self._backend = backend
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._reserve, args=(number,)) for number in range(THREADS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self, number: int) -> None:
        """Return when this many more calls have been acknowledged."""
        wanted = len(self.done) + number
        until(lambda: len(self.done) >= wanted or not any(one.is_alive() for one in self._threads), "progress")

    def send_again(self) -> list[Outcome]:
        """Repeat the acknowledged calls; return their outcomes."""
        return [_opened[0].apply(OFFICE, reserve(key, ONLINE)) for key in self.done]

    def all_is_held_once(self) -> bool:
        """After every key was sent again (an acknowledged one may have been lost with the old primary)."""
        assert {outcome.status for outcome in self.send_again()} == {Status.HELD}
        assert held(_opened[0]) == len(self.done) == len(set(self.done))
        assert _opened[0].execute(Audit(OFFICE)) == []
        return True

    def _reserve(self, thread: int) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            self._insist(f"{thread}-{number}")

    def _insist(self, key: str) -> None:
        for _ in range(20):
            try:
                outcome = self._backend.apply(OFFICE, reserve(key, ONLINE))
                assert outcome.status is Status.HELD
            except (BackendUnavailable, OutcomeUnknown) as error:
                self.errors.append(error)
            else:
                self.done.append(key)
                return


class SyncFace:
    """An asyncio store that threads can call, so that it passes the same tests."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._backend: AsyncRedisStore = self._run(open_async_store(url, CLOCK))

    def apply(self, office: str, command: Command) -> Outcome:
        outcome: Outcome = self._run(self._backend.apply(office, command))
        return outcome

    def close(self) -> None:
        self._run(self._backend.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)


@contextlib.contextmanager
def opened(url: str, *, is_async: bool) -> Iterator[Sends]:
    """A backend of either kind that tries for half a minute, which is enough on a slow machine."""
    url += PATIENT
    if not is_async:
        yield open_store(url)
        return
    face = SyncFace(url)
    try:
        yield face
    finally:
        face.close()


@pytest.mark.store
class TestTls:
    """Over TLS. Only Debian's Redis has it here."""

    async def test_one_server(self) -> None:
        """With the authority's file it works, both ways of calling; without it, the certificate is refused."""
        with Server(redis_server_binary_or_skip(), tls=True, requirepass="not a/secret") as server:
            assert server.url.startswith("rediss://")
            backend = await asyncio.to_thread(set_up, server.url)
            assert backend.apply(OFFICE, reserve("ani", ONLINE)).status is Status.HELD
            other = await open_async_store(server.url, CLOCK)
            assert (await other.apply(OFFICE, reserve("ani", ONLINE))).replayed
            await other.close()
            with pytest.raises(BackendUnavailable, match="certificate"):
                open_store(server.url.partition("?")[0] + "?attempts_max=1")

    @pytest.mark.slow
    def test_a_cluster(self) -> None:
        """A single node does not know its address, so the router uses the one of the URL."""
        with Cluster(
            redis_server_binary_or_skip(), primaries=1, tls=True, settings=[("tls-cluster", "yes")]
        ) as cluster:
            backend = set_up(cluster.url.replace("rediss://", "rediss+cluster://"))
            assert backend.apply(OFFICE, reserve("ani", ONLINE)).status is Status.HELD
            assert backend.execute(Audit(OFFICE)) == []

    def test_sentinels(self, tmp_path: Path) -> None:
        """The Sentinels are queried over TLS, too, with a separate password."""
        binary = redis_server_binary_or_skip()
        with Server(binary, tls=True, requirepass="secret") as primary:
            watched = ("sentinel", "monitor", MONITORED, HOST, str(primary.port), "2")
            with Server(binary, sentinel=True, tls=True, requirepass="other", settings=[watched]) as sentinel:
                authorities = tmp_path / "authorities.pem"
                paths = [one.directory / "authority.pem" for one in (primary, sentinel)]
                authorities.write_text("".join(path.read_text() for path in paths))
                url = f"rediss+sentinel://:secret@{HOST}:{sentinel.port}/{MONITORED}?ssl_ca_certs={quote(str(authorities))}"
                assert (
                    set_up(url + "&sentinel_password=other").apply(OFFICE, reserve("ani", ONLINE)).status is Status.HELD
                )
                with pytest.raises(BackendUnavailable):
                    open_store(url)


class TestUrls:
    """Errors in URLs of several servers."""

    @pytest.mark.parametrize(
        ("url", "message"),
        [
            ("redis+sentinel://localhost:26379", "no service"),
            ("redis+sentinel:///mymaster", "server 1 is"),
            ("redis+sentinel://localhost:26379,/mymaster", "server 2 is"),
            ("redis+sentinel://localhost:26379/mymaster/zero", "database is not a number"),
            ("redis+cluster://localhost:port", "server 1 is"),
            ("redis+cluster://localhost:1,:2", "server 2 is"),
            ("redis+cluster://user:secret/@localhost", "server 1 is"),
            ("redis+cluster://localhost/0", "which a cluster does not have"),
            ("redis+cluster://localhost?db=1", "which a cluster does not have"),
            ("redis+cluster://localhost?attempts_max=0", "option attempts_max"),
            ("redis+cluster://localhost?no_such_option=1", "redis-py"),
            ("unix+cluster:///socket", "has no scheme"),
            ("redis+magic://localhost", "has no scheme"),
        ],
    )
    def test_wrong_url_is_named(self, url: str, message: str) -> None:
        """An error in the URL is the caller's. The message names it, without the password."""
        with pytest.raises(InvalidRequest, match=message) as caught:
            open_store(url.replace("//", "//user:secret@"))
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize("scheme", ["redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"])
    def test_every_scheme_is_served(self, scheme: str) -> None:
        """By this adapter."""
        assert store_factory(f"{scheme}://localhost") is factory

    def test_urls_of_nodes_and_sentinels(self) -> None:
        """Logins, ports that are left out, addresses of the sixth version: each node has the right URL."""
        store = factory._target(
            "redis+sentinel://u%40:p@[::1]:5,two/a%2Fb/3?sentinel_password=x%2Fy&socket_keepalive=1"
        )
        sentinels = list(store.router._informants)  # type: ignore[attr-defined]
        assert [store.url_to(one) for one in sentinels] == [
            "redis://:x%2Fy@[::1]:5?socket_keepalive=1",
            "redis://:x%2Fy@two:26379?socket_keepalive=1",
        ]
        assert store.url == "redis://u%40:p@[::1]:5/3?socket_keepalive=1"
