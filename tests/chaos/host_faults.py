"""Faults of hosts: full disks, a cut network, a moved clock, rights that are taken away, and a split brain.

Some need root, or a package of the system; see :class:`NotPossible`.
"""

from __future__ import annotations

__all__ = ["FAULTS"]

import itertools
import socket
import time
from contextlib import ExitStack
from typing import Final

import psycopg
import pytest

from tests.chaos.faults import CONSISTENT, FAULTS, Case, NotPossible, Strike, fault
from tests.support.acknowledged_load import Load, inspect, open_store
from tests.support.hosts import FullDisk, MovedClock, SeparateNetwork
from tests.support.lossy_proxy import LossyProxy
from tests.support.postgresql_servers import PostgresqlServer, wheel_programs
from tests.support.server_groups import Replicated
from tests.support.servers import HOST, Server, until, valkey_server_binary

_SCHEMA: Final = "chaos"
_PAUSE_S: Final = 1.0
_CUT_S: Final = 3.0
_HOURS: Final = (3, 0, -3, 0)


@fault("the disk of Valkey with `durability=fsync` is full, and it ends itself")
def full_disk(stack: ExitStack) -> Case:
    server = Server(valkey_server_binary(), appendfsync="always")
    disk = FullDisk(server.directory)
    _enter_disk(stack, server, disk, 64)

    def strike() -> Strike:
        disk.fill()
        until(lambda: not server.is_running, "a server that cannot keep what it acknowledges")
        disk.free()
        server.start()
        yield

    return Case(f"{server.url}?durability=fsync", strike)


@fault("the disk of PostgreSQL is full for a second")
def full_disk_of_postgresql(stack: ExitStack) -> Case:
    server = PostgresqlServer(wheel_programs())
    disk = FullDisk(server.directory)
    _enter_disk(stack, server, disk, 256)

    def strike() -> Strike:
        disk.fill()
        with pytest.raises(psycopg.OperationalError):
            server.query("CREATE TABLE filler AS SELECT generate_series(1, 100000)")
        time.sleep(_PAUSE_S)
        disk.free()
        if not server.is_running:
            server.start()
        yield

    return Case(server.url(schema=_SCHEMA), strike)


def _enter_disk(stack: ExitStack, server: Server | PostgresqlServer, disk: FullDisk, size_mb: int) -> None:
    """Start a server on a small disk. At the end the disk disappears first, because a mount cannot be removed."""
    mount = disk.mounted(size_mb)
    try:
        mount.__enter__()
    except OSError as error:
        server.close()
        raise NotPossible(str(error)) from error
    stack.push(server)
    stack.push(mount)
    server.start()


@fault("the host of Valkey is cut off for three seconds: packets disappear in both directions")
def cut_network(stack: ExitStack) -> Case:
    network = SeparateNetwork()
    try:
        stack.enter_context(network.connected())
    except OSError as error:
        raise NotPossible(str(error)) from error
    server = Server(valkey_server_binary(), tcp=True, settings=[("bind", network.address), ("protected-mode", "no")])
    server.launcher = network.launcher
    stack.enter_context(server)

    def strike() -> Strike:
        network.cut()
        with pytest.raises(OSError):
            socket.create_connection((network.address, server.port), 1)
        time.sleep(_CUT_S)
        network.join()
        yield

    return Case(server.url.replace(HOST, network.address), strike)


@fault("the clock of Valkey moves by three hours, forward and back")
def moved_clock(stack: ExitStack) -> Case:
    server = Server(valkey_server_binary())
    try:
        clock = MovedClock(server.directory)
    except OSError as error:
        server.close()
        raise NotPossible(str(error)) from error
    server.launcher = clock.launcher
    stack.enter_context(server)
    offsets = itertools.cycle(_HOURS)

    def strike() -> Strike:
        before_s = int(server.ask("TIME")[0])
        clock.move(next(offsets))
        until(lambda: abs(int(server.ask("TIME")[0]) - before_s) > 3600, "a clock that has moved")
        yield

    return Case(server.url, strike)


@fault("the rights on the tables of PostgreSQL are taken away for a second")
def lost_rights_of_postgresql(stack: ExitStack) -> Case:
    server = stack.enter_context(PostgresqlServer(wheel_programs()))
    server.query("CREATE ROLE booking LOGIN")
    server.query("GRANT CREATE ON DATABASE postgres TO booking")

    def strike() -> Strike:
        server.query(f"REVOKE ALL ON ALL TABLES IN SCHEMA {_SCHEMA} FROM booking")
        time.sleep(_PAUSE_S)
        server.query(f"GRANT ALL ON ALL TABLES IN SCHEMA {_SCHEMA} TO booking")
        yield

    return Case(server.url(schema=_SCHEMA, user="booking"), strike)


@fault(
    "clients write on both sides of a split brain, and the old primary then follows the new one", CONSISTENT, once=True
)
def split_brain_on_both_sides(stack: ExitStack) -> Case:
    group = stack.enter_context(Replicated(valkey_server_binary()))
    old, new = group.members
    proxy = stack.enter_context(LossyProxy(old.socket_path))
    new_url = f"{new.url}?fence=auto"

    def strike() -> Strike:
        group.wait_in_step()  # a replica gets nothing in the second after its first copy
        group.promote(new)
        store = open_store(new_url)
        with Load(store, 4, prefix="other") as other:
            other.wait_for(200)
            old.ask("REPLICAOF", HOST, new.port)
            proxy.switch_to(new.socket_path)
            yield
            other.wait_for(20)
        store.close()
        found = inspect(new_url, other.acknowledged)
        assert not found.lost, f"{len(found.lost)} reservations of the new primary are lost"

    return Case(f"{proxy.url}?fence=auto", strike, new_url)
