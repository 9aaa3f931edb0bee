"""The servers that tests run on: each topology starts, answers, fails over or moves, and leaves nothing behind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from tests.support import servers
from tests.support.server_groups import Cluster, Replicated, Sentinels
from tests.support.servers import Server, redis_server_binary_or_skip, until, valkey_server_binary

pytestmark = pytest.mark.store


def assert_gone(*members: tuple[int, Path]) -> None:
    for pid, directory in members:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        assert not directory.exists()


def traces(*members: Server) -> list[tuple[int, Path]]:
    return [(member.pid, member.directory) for member in members]


def test_one_server(binary: Path) -> None:
    """It answers at its URL, survives a crash with all acknowledged data, pauses and continues."""
    with Server(binary, appendfsync="always") as server:
        traced = traces(server)
        client = server.client()
        assert server.url.startswith("unix:///")
        assert client.set("kept", "1")
        server.kill()
        assert not server.is_running
        with pytest.raises(redis.ConnectionError):
            client.ping()
        server.start()
        assert client.get("kept") == "1"
        server.restart()
        assert client.get("kept") == "1"
        traced += traces(server)
        server.pause()
        with pytest.raises(redis.TimeoutError):
            server.client(socket_timeout=0.1).ping()
        server.resume()
        assert client.ping()
    assert_gone(*traced)


def test_one_server_with_a_port_and_limits(binary: Path) -> None:
    """Passwords, users, a bound on memory, a port that stays the same; the URL alone is enough to get in."""
    with Server(
        binary,
        tcp=True,
        requirepass="not a/secret",
        users={"reader": "on >word ~* +get"},
        maxmemory_bytes=1,
    ) as server:
        url = server.url
        with redis.Redis.from_url(url) as client:
            assert client.ping()
            with pytest.raises(redis.exceptions.OutOfMemoryError):
                client.set("a", "b")
        with pytest.raises(redis.exceptions.NoPermissionError):
            server.client(username="reader", password="word").set("a", "b")  # noqa: S106
        with pytest.raises(redis.AuthenticationError):
            server.client(password="wrong").ping()  # noqa: S106
        server.restart()
        assert server.url == url
        assert server.client().ping()


def test_tls() -> None:
    """A client that trusts the authority gets in, over the URL too; one that does not is refused."""
    with Server(redis_server_binary_or_skip(), tls=True) as server:
        assert server.client().ping()
        assert server.url.startswith("rediss://127.0.0.1:")
        stranger = redis.Redis(host="127.0.0.1", port=server.port, ssl=True, retry=Retry(ConstantBackoff(0), 0))
        with stranger, pytest.raises(redis.ConnectionError, match="certificate"):
            stranger.ping()


def test_a_primary_and_its_replicas(binary: Path) -> None:
    """The replicas have what the primary wrote, and one of them takes over."""
    with Replicated(binary, replicas=2) as group:
        traced = traces(*group.members)
        assert len(traced) == 3
        group.client().set("a", "1")
        group.wait_in_step()
        old = group.primary
        old.kill()
        group.promote(group.replicas[0])
        assert group.primary is not old
        group.client().incr("a")
        until(lambda: group.replicas[0].ask("GET", "a") == "2", "the other replica to follow")
    assert_gone(*traced)


def test_a_cluster_moves_a_slot(binary: Path) -> None:
    """Three nodes share the slots. A slot moves with its keys, and halfway a command with two of them gets TRYAGAIN."""
    with Cluster(binary) as cluster:
        traced = traces(*cluster.members)
        client = cluster.client()
        for number in range(30):
            client.set(f"key{number}", number)
        assert all(int(node.ask("DBSIZE")) > 0 for node in cluster.nodes)

        slot = cluster.slot_of("{moved}")
        for name in ("{moved}a", "{moved}b"):
            client.set(name, name)
        source = cluster.owner_of(slot)
        target = next(node for node in cluster.nodes if node is not source)
        cluster.begin_move(slot, target)
        assert cluster.move_keys(slot, target, keys_max=1) == 1
        with pytest.raises(redis.exceptions.TryAgainError):
            source.ask("MGET", "{moved}a", "{moved}b")
        cluster.finish_move(slot, target)
        until(lambda: cluster.owner_of(slot) is target, "all to know the new owner")
        assert client.mget("{moved}a", "{moved}b") == ["{moved}a", "{moved}b"]
    assert_gone(*traced)


def test_a_cluster_fails_over(binary: Path) -> None:
    """A primary that is killed is replaced by its replica, which has the keys; when it comes back, it follows."""
    with Cluster(binary, replicas_each=1, appendfsync="everysec") as cluster:
        traced = traces(*cluster.members)
        client = cluster.client(retry=Retry(ConstantBackoff(0.1), 100))
        slot = cluster.slot_of("kept")
        old = cluster.owner_of(slot)
        replica = cluster.replica_of(old)
        client.set("kept", "1")
        assert old.client().wait(1, 5000) in (0, 1)
        until(lambda: replica.info("keyspace"), "the key on the replica")
        old.kill()
        until(lambda: replica.info("replication")["role"] == "master", "the replica to take over")
        cluster.wait_ok()
        assert client.get("kept") == "1"
        old.start()
        until(lambda: old.info("replication")["role"] == "slave", "the old primary to follow")
    assert_gone(*traced)


def test_sentinels_fail_over(binary: Path) -> None:
    """Three Sentinels agree on a new primary, and their client finds it."""
    with Sentinels(binary) as group:
        traced = traces(*group.members)
        assert len(traced) == 5
        old = group.primary
        assert old is group.data.primary
        assert group.url.startswith("redis+sentinel://127.0.0.1:")
        client = group.client(retry=Retry(ConstantBackoff(0.1), 100))
        client.set("kept", "1")
        group.data.wait_in_step()
        old.kill()
        assert group.wait_failed_over(old) is group.data.replicas[0]
        assert client.get("kept") == "1"
        client.close()
    assert_gone(*traced)


def test_taken_port_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes another one."""
    with Server(valkey_server_binary(), tcp=True) as first:
        answers = [[first.port, 0], servers.free_ports(2)]
        monkeypatch.setattr(servers, "free_ports", lambda number: answers.pop(0))
        with Server(valkey_server_binary(), tcp=True) as second:
            assert second.client().ping()
            assert answers == []
            assert second.port != first.port


def test_a_server_that_does_not_start() -> None:
    """The error has its last lines, and nothing is left."""
    server = Server(valkey_server_binary(), settings=[("no-such-setting", "1")])
    with pytest.raises(RuntimeError, match="no-such-setting"), server:
        pytest.fail("it started")
    assert not server.directory.exists()


def test_no_redis_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A skip that names the package, and an error where the gate runs."""
    monkeypatch.setattr(servers, "redis_server_binary", lambda: None)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(FileNotFoundError, match="redis-server"):
        redis_server_binary_or_skip()
    monkeypatch.delenv("CI")
    skipped: Any = pytest.skip.Exception
    with pytest.raises(skipped, match="redis-server"):
        redis_server_binary_or_skip()
