"""The faults, each with its servers.

A fault is a function that starts servers and returns a :class:`Case`. The case's ``strike`` harms the servers in the
middle of a load; it yields when the store could serve again, and cleans up after that.
"""

from __future__ import annotations

__all__ = ["CONSISTENT", "FAULTS", "KEPT", "Case", "Fault", "NotPossible", "Strike", "fault"]

import dataclasses
import functools
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from quota_engine.conformance.world import DAY, OFFICE
from quota_engine.stores.redis.keys import keys_of
from tests.stores.redis.conftest import cluster_url
from tests.support.acknowledged_load import Target
from tests.support.lossy_proxy import LossyProxy
from tests.support.paths import ROOT
from tests.support.pgbouncer import PgBouncer
from tests.support.postgresql_proxy import PostgresqlProxy
from tests.support.postgresql_servers import PostgresqlPair, PostgresqlServer, wheel_programs
from tests.support.server_groups import Cluster, Replicated, Sentinels
from tests.support.servers import HOST, Server, until, valkey_server_binary

KEPT: Final = "nothing acknowledged is lost"
CONSISTENT: Final = "no place is sold twice; the last moments before it may be lost"
_REPLICATED: Final = "?durability=replicated&replicas=1&attempts_max=30"
_SCHEMA: Final = "chaos"
_PAUSE_S: Final = 1.0
_LAG_S: Final = 0.5
_STOPPED_S: Final = 2.0
_LOST_CHANGES: Final = 500
"""Changes that the old primary loses: tens of reservations, because each of them changes several keys."""
_DOWN_AFTER_MS: Final = 1_500
"""Longer than the second for which a Sentinel may not connect to a primary that was promoted just now."""

Strike = Generator[None, None, None]


@dataclasses.dataclass(frozen=True)
class Case:
    """A fault with running servers.

    Attributes:
        url: The URL of the store that the load uses.
        strike: Harms the servers once; see the module.
        check_url: The URL for the inspection afterwards; "" for ``url``.
        load: Takes the calls of the load; ``None`` for a store of ``url``, at which a day is published first.
        office: The office of the load.
        day: Its day, as an ordinal.
    """

    url: str
    strike: Callable[[], Strike]
    check_url: str = ""
    load: Target | None = None
    office: str = OFFICE
    day: int = DAY


@dataclasses.dataclass(frozen=True)
class Fault:
    """A row of the table.

    Attributes:
        name: Its name, for ``--fault``.
        title: The fault in words.
        promised: The promise, :data:`KEPT` or :data:`CONSISTENT`.
        once: True if its servers can take one strike; each strike has new ones then.
        open: Starts the servers, which end with the stack, and returns the case.
    """

    name: str
    title: str
    promised: str
    once: bool
    open: Callable[[ExitStack], Case]


FAULTS: Final[list[Fault]] = []


class NotPossible(Exception):
    """The fault needs something that this machine does not have or allow."""


def fault(
    title: str, promised: str = KEPT, *, once: bool = False
) -> Callable[[Callable[[ExitStack], Case]], Callable[[ExitStack], Case]]:
    """Register a function as a fault."""

    def add(function: Callable[[ExitStack], Case]) -> Callable[[ExitStack], Case]:
        FAULTS.append(Fault(function.__name__.replace("_", "-"), title, promised, once, function))
        return function

    return add


# --- Valkey ----------------------------------------------------------------------------------------------------------


@fault("Valkey with `durability=fsync` is killed (SIGKILL) and started again")
def killed_server(stack: ExitStack) -> Case:
    server = stack.enter_context(Server(valkey_server_binary(), appendfsync="always"))

    def strike() -> Strike:
        server.kill()
        server.start()
        yield

    return Case(f"{server.url}?durability=fsync", strike)


@fault("the last bytes of Valkey's append-only file are torn off", CONSISTENT)
def torn_file(stack: ExitStack) -> Case:
    server = stack.enter_context(Server(valkey_server_binary(), appendfsync="always"))

    def strike() -> Strike:
        server.kill()
        (log,) = (server.directory / "appendonlydir").glob("*.incr.aof")
        os.truncate(log, max(0, log.stat().st_size - 700))
        server.start()
        yield

    return Case(f"{server.url}?fence=auto", strike)


@fault("Valkey stands still for a second (SIGSTOP)")
def stopped_server(stack: ExitStack) -> Case:
    server = stack.enter_context(Server(valkey_server_binary()))

    def strike() -> Strike:
        server.pause()
        time.sleep(_PAUSE_S)
        server.resume()
        yield

    return Case(server.url, strike)


@fault("all connections to Valkey are cut")
def cut_connections(stack: ExitStack) -> Case:
    server = stack.enter_context(Server(valkey_server_binary()))

    def strike() -> Strike:
        server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        yield

    return Case(server.url, strike)


@fault("Valkey forgets its scripts and functions")
def forgotten_scripts(stack: ExitStack) -> Case:
    server = stack.enter_context(Server(valkey_server_binary()))

    def strike() -> Strike:
        server.ask("FUNCTION", "FLUSH")
        server.ask("SCRIPT", "FLUSH")
        yield

    return Case(server.url, strike)


@fault("Valkey has no memory left for a second")
def full_memory(stack: ExitStack) -> Case:
    server = stack.enter_context(Server(valkey_server_binary()))

    def strike() -> Strike:
        server.ask("CONFIG", "SET", "maxmemory", 1)
        time.sleep(_PAUSE_S)
        server.ask("CONFIG", "SET", "maxmemory", 0)
        yield

    return Case(server.url, strike)


@fault("the right to run scripts is taken away for a second")
def lost_rights(stack: ExitStack) -> Case:
    server = stack.enter_context(Server(valkey_server_binary()))

    def strike() -> Strike:
        server.ask("ACL", "SETUSER", "default", "-fcall", "-evalsha", "-eval")
        time.sleep(_PAUSE_S)
        server.ask("ACL", "SETUSER", "default", "+fcall", "+evalsha", "+eval")
        yield

    return Case(server.url, strike)


@fault("ten replies of Valkey are lost on the way, and their connections cut")
def lost_replies(stack: ExitStack) -> Case:
    server = stack.enter_context(Server(valkey_server_binary()))
    proxy = stack.enter_context(LossyProxy(server.socket_path))

    def strike() -> Strike:
        proxy.losses = 10
        until(lambda: proxy.losses == 0, "ten lost replies")
        yield

    return Case(proxy.url, strike, server.url)


@fault("ten requests to Valkey arrive after their repetition")
def late_requests(stack: ExitStack) -> Case:
    server = stack.enter_context(Server(valkey_server_binary()))
    proxy = stack.enter_context(LossyProxy(server.socket_path))

    def strike() -> Strike:
        proxy.holds = 10
        until(lambda: proxy.holds == 0, "ten requests that are held")
        yield
        proxy.deliver_late()

    return Case(proxy.url, strike, server.url)


def _follow_new_primary(group: Sentinels, old: Server) -> None:
    """Wait for the failover, and let the old primary come back as a replica."""
    group.wait_failed_over(old)
    old.start()
    old.ask("REPLICAOF", HOST, group.primary.port)
    until(lambda: old.info("replication").get("master_link_status") == "up", "the old primary to follow")
    group.wait_ready()


@fault("the primary behind Sentinels is killed; `durability=replicated`")
def failover(stack: ExitStack) -> Case:
    # A command is replicated if one replica has it, so a promoted replica needs another one to acknowledge any.
    group = stack.enter_context(Sentinels(valkey_server_binary(), replicas=2, down_after_ms=_DOWN_AFTER_MS))

    def strike() -> Strike:
        old = group.primary
        old.kill()
        yield
        _follow_new_primary(group, old)

    return Case(group.url + _REPLICATED, strike)


@fault("the primary behind Sentinels is killed while its replica is half a second behind; `fence=auto`", CONSISTENT)
def failover_with_lag(stack: ExitStack) -> Case:
    group = stack.enter_context(Sentinels(valkey_server_binary(), down_after_ms=_DOWN_AFTER_MS))

    def strike() -> Strike:
        old = group.primary
        (replica,) = [one for one in group.data.members if one is not old]
        if old is group.data.primary:
            group.data.wait_in_step()  # a replica gets nothing in the second after its first copy
        replica.pause()
        time.sleep(_LAG_S)
        old.kill()
        replica.resume()
        yield
        _follow_new_primary(group, old)

    return Case(f"{group.url}?fence=auto&attempts_max=30", strike)


def _changes(server: Server) -> int:
    """Return how often the server has changed its data."""
    return int(server.info("persistence")["rdb_changes_since_last_save"])


@fault("a replica is promoted while the old primary goes on acknowledging (split brain)", CONSISTENT, once=True)
def split_brain(stack: ExitStack) -> Case:
    group = stack.enter_context(Replicated(valkey_server_binary()))
    old, new = group.members
    proxy = stack.enter_context(LossyProxy(old.socket_path))

    def strike() -> Strike:
        group.wait_in_step()  # a replica gets nothing in the second after its first copy
        group.promote(new)
        before = _changes(old)
        until(lambda: _changes(old) > before + _LOST_CHANGES, "changes that will be lost")
        proxy.switch_to(new.socket_path)
        yield

    return Case(f"{proxy.url}?fence=auto", strike, f"{new.url}?fence=auto")


@fault("a primary of a cluster is killed; `durability=replicated`")
def cluster_failover(stack: ExitStack) -> Case:
    cluster = stack.enter_context(Cluster(valkey_server_binary(), replicas_each=2))

    def strike() -> Strike:
        old = cluster.owner_of(cluster.slot_of(keys_of("", OFFICE)[0]))
        others = [one for one in cluster.members if one is not old]
        primaries = [one for one in others if one.info("replication")["role"] == "master"]
        old.kill()
        yield
        until(
            lambda: sum(one.info("replication")["role"] == "master" for one in others) > len(primaries),
            "a replica to take over",
        )
        old.start()
        until(lambda: old.info("replication").get("master_link_status") == "up", "the old primary to follow")
        cluster.wait_ok()

    return Case(cluster_url(cluster) + _REPLICATED, strike)


@fault("a primary of a cluster is killed while its replica gets nothing for half a second; `fence=auto`", CONSISTENT)
def cluster_failover_with_lag(stack: ExitStack) -> Case:
    cluster = stack.enter_context(Cluster(valkey_server_binary(), replicas_each=1))

    def strike() -> Strike:
        old = cluster.owner_of(cluster.slot_of(keys_of("", OFFICE)[0]))
        replica = cluster.replica_of(old)
        # A replica that only stands still reads on what its primary has sent. This one may not ask for it again.
        old.ask("ACL", "SETUSER", "default", "-psync", "-sync")
        old.ask("CLIENT", "KILL", "TYPE", "replica")
        time.sleep(_LAG_S)
        old.kill()
        yield
        until(lambda: replica.info("replication")["role"] == "master", "a replica to take over")
        old.start()
        until(lambda: old.info("replication").get("master_link_status") == "up", "the old primary to follow")
        cluster.wait_ok()

    return Case(f"{cluster_url(cluster)}?fence=auto&attempts_max=30", strike)


@fault("the slot of the office moves to another node")
def moved_slot(stack: ExitStack) -> Case:
    cluster = stack.enter_context(Cluster(valkey_server_binary()))
    slot = cluster.slot_of(keys_of("", OFFICE)[0])

    def strike() -> Strike:
        target = next(one for one in cluster.members if one is not cluster.owner_of(slot))
        cluster.begin_move(slot, target)
        cluster.finish_move(slot, target)
        yield

    return Case(cluster_url(cluster), strike)


# --- PostgreSQL and SQLite -------------------------------------------------------------------------------------------


def _postgresql(stack: ExitStack) -> PostgresqlServer:
    return stack.enter_context(PostgresqlServer(wheel_programs()))


@fault("all processes of PostgreSQL are killed (SIGKILL), and it is started again")
def killed_postgresql(stack: ExitStack) -> Case:
    server = _postgresql(stack)

    def strike() -> Strike:
        server.kill()
        server.start()
        yield

    return Case(server.url(schema=_SCHEMA), strike)


@fault("PostgreSQL stands still for a second (SIGSTOP)")
def stopped_postgresql(stack: ExitStack) -> Case:
    server = _postgresql(stack)

    def strike() -> Strike:
        server.pause()
        time.sleep(_PAUSE_S)
        server.resume()
        yield

    return Case(server.url(schema=_SCHEMA), strike)


@fault("PostgreSQL ends all sessions of the store")
def ended_sessions(stack: ExitStack) -> Case:
    server = _postgresql(stack)

    def strike() -> Strike:
        server.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        yield

    return Case(server.url(schema=_SCHEMA), strike)


@fault("the answers to five commits of PostgreSQL are lost")
def lost_commits(stack: ExitStack) -> Case:
    server = _postgresql(stack)
    proxy = stack.enter_context(PostgresqlProxy(server))

    def strike() -> Strike:
        proxy.losses = 5
        until(lambda: proxy.losses == 0, "five lost answers")
        yield

    url = f"postgresql://postgres@{HOST}:{proxy.port}/postgres?schema={_SCHEMA}"
    return Case(url, strike, server.url(schema=_SCHEMA))


@fault("PostgreSQL's primary is killed and a synchronous standby promoted; `durability=replicated`", once=True)
def promotion(stack: ExitStack) -> Case:
    pair = stack.enter_context(PostgresqlPair(wheel_programs(), synchronous=True))

    def strike() -> Strike:
        pair.fail_over()
        yield

    return Case(pair.url(schema=_SCHEMA), strike)


@fault("PgBouncer in front of PostgreSQL is killed and started again")
def killed_pooler(stack: ExitStack) -> Case:
    pooler = stack.enter_context(PgBouncer(_postgresql(stack)))

    def strike() -> Strike:
        pooler.kill()
        pooler.start()
        yield

    return Case(pooler.url(_SCHEMA), strike)


# --- Clients ---------------------------------------------------------------------------------------------------------

_processes = itertools.count(1)
_OTHER_CLIENT = """
import sys
from tests.support.acknowledged_load import Load, open_store
with Load(open_store(sys.argv[1]), prefix=sys.argv[2]) as load:
    print("begun", flush=True)
    load.wait_for(1_000_000)
"""


def _other_client(url: str) -> subprocess.Popen[bytes]:
    """Start another process that reserves; returns it in the middle of its calls."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "src", ROOT)))}
    client = subprocess.Popen(
        [sys.executable, "-c", _OTHER_CLIENT, url, f"p{next(_processes)}t"],
        stdout=subprocess.PIPE,
        env=environment,
        cwd=ROOT,
    )
    assert client.stdout is not None
    assert client.stdout.readline() == b"begun\n"
    time.sleep(_PAUSE_S)
    return client


def _killed_client(url: str) -> Strike:
    with _other_client(url) as client:
        client.send_signal(signal.SIGKILL)
    yield


def _stopped_client(url: str) -> Strike:
    """It stands still for longer than its requests are valid, and then sends on."""
    with _other_client(url) as client:
        client.send_signal(signal.SIGSTOP)
        try:
            yield
            time.sleep(_STOPPED_S)
            client.send_signal(signal.SIGCONT)
            time.sleep(_PAUSE_S)
        finally:
            client.send_signal(signal.SIGKILL)


@fault("another process that reserves on the same SQLite file is killed")
def killed_client_of_sqlite(stack: ExitStack) -> Case:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
    url = f"sqlite://{folder}/chaos.db"
    return Case(url, functools.partial(_killed_client, url))


@fault("another process that reserves on the same PostgreSQL is killed")
def killed_client_of_postgresql(stack: ExitStack) -> Case:
    url = _postgresql(stack).url(schema=_SCHEMA)
    return Case(url, functools.partial(_killed_client, url))


@fault("another process that reserves on the same Valkey stands still (SIGSTOP), and then sends on")
def stopped_client_of_valkey(stack: ExitStack) -> Case:
    server = stack.enter_context(Server(valkey_server_binary()))
    return Case(server.url, functools.partial(_stopped_client, server.url))


@fault("another process that reserves on the same PostgreSQL stands still (SIGSTOP), and then sends on")
def stopped_client_of_postgresql(stack: ExitStack) -> Case:
    url = _postgresql(stack).url(schema=_SCHEMA)
    return Case(url, functools.partial(_stopped_client, url))
