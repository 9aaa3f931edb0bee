"""Several real servers for tests: a primary with replicas, a cluster, a trio of Sentinels.

Each is a context manager that cleans up after itself, as one server does (:mod:`tests.support.servers`).
"""

from __future__ import annotations

import abc
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import redis
from redis.cluster import RedisCluster
from redis.sentinel import Sentinel

from tests.support.servers import HOST, START_TIMEOUT_S, Server, ServerContext, until

SLOTS = 16384
MONITORED = "mymaster"
_FAILOVER_MAX_S = 6
"""Time of a planned failover in a cluster: the servers give it up after 5 s."""
_SENTINEL_FAILOVER_MAX_S = 10
"""The same for Sentinels, which give up after their ``failover-timeout`` of 3 s, and refuse the next one for 6 s."""
SENTINEL_PERIODS = (("publish-period", 2000), ("info-period", 10_000), ("tilt-trigger", 20_000))
SENTINEL_SHORT_PERIODS = (("publish-period", 200), ("info-period", 1000), ("tilt-trigger", 20_000))
"""Periods of a Sentinel in ms. It stops its work for 30 s if the machine delays it for longer than its tilt-trigger."""


class Group(ServerContext):
    """Several servers that start and stop together."""

    def __init__(self) -> None:
        """Subclasses fill ``members``, and build the topology in :meth:`start`."""
        self.members: list[Server] = []

    @abc.abstractmethod
    def start(self) -> None:
        """Start the members, and return when the group is ready."""

    def kill(self) -> None:
        """Kill all members (SIGKILL)."""
        for member in self.members:
            member.kill()

    def stop(self) -> None:
        """Shut all members down, one after the other."""
        for member in self.members:
            member.stop()

    def restart(self) -> None:
        """Stop all members, and start them again with their data."""
        self.stop()
        for member in self.members:
            member.start()

    def pause(self) -> None:
        """Pause all members, so that they answer nothing."""
        for member in self.members:
            member.pause()

    def resume(self) -> None:
        """Let all paused members continue."""
        for member in self.members:
            member.resume()

    def close(self) -> None:
        """End the members, and remove their files."""
        for member in self.members:
            member.close()

    def log_tail(self) -> str:
        """See :meth:`ServerContext.log_tail`."""
        return "\n".join(member.log_tail() for member in self.members)


class Replicated(Group):
    """A primary and its replicas.

    Attributes:
        primary, replicas: the servers, as they were at the start or after :meth:`promote`.
    """

    def __init__(self, binary: Path, *, replicas: int = 1, **options: Any) -> None:
        """``options``: those of :class:`Server`, for each member."""
        super().__init__()
        self._binary = binary
        self._options = {"tcp": True, **options}
        self._replicas_wanted = replicas
        self.primary = Server(binary, **self._options)
        self.replicas: list[Server] = []
        self.members.append(self.primary)

    def start(self) -> None:
        """See :meth:`Group.start`: ready means that all replicas are in step."""
        self.primary.start()
        settings = [*self._options.pop("settings", ()), ("replicaof", HOST, str(self.primary.port))]
        for _ in range(self._replicas_wanted):
            replica = Server(self._binary, settings=settings, **self._options)
            self.replicas.append(replica)
            self.members.append(replica)
            replica.start()
        self.wait_in_step()

    @property
    def url(self) -> str:
        """URL of the primary."""
        return self.primary.url

    def client(self, **kwargs: Any) -> redis.Redis:
        """A client of the primary; see :meth:`Server.client`."""
        return self.primary.client(**kwargs)

    def wait_in_step(self) -> None:
        """Wait until every replica has all writes of the primary."""
        _wait_in_step(self.primary, self.replicas)

    def promote(self, replica: Server) -> None:
        """Make a replica the primary of all other members, except for the old primary, which gets no command."""
        replica.ask("REPLICAOF", "NO", "ONE")
        old = self.primary
        self.primary = replica
        self.replicas = [one for one in self.members if one not in (old, replica)]
        for one in self.replicas:
            one.ask("REPLICAOF", HOST, replica.port)


def _wait_in_step(primary: Server, replicas: Sequence[Server]) -> None:
    primary.ask("PUBLISH", "in step", "")  # A replica is in step only if it gets what is written from now on.

    def in_step() -> bool:
        offset = primary.info("replication")["master_repl_offset"]
        infos = [replica.info("replication") for replica in replicas]
        return all(i.get("master_link_status") == "up" and i["slave_repl_offset"] >= offset for i in infos)

    until(in_step, "replicas in step")


class Cluster(Group):
    """A cluster of some primaries, with or without replicas. ``nodes`` are the primaries of the start."""

    def __init__(self, binary: Path, *, primaries: int = 3, replicas_each: int = 0, **options: Any) -> None:
        """``options``: those of :class:`Server`, for each member."""
        super().__init__()
        settings = [
            *options.pop("settings", ()),
            ("cluster-node-timeout", "1000"),
            # Members without work take half the processor time that they take with 10. A lost member is found as fast.
            ("hz", "3"),
            ("cluster-allow-replica-migration", "no"),
        ]
        number = primaries * (1 + replicas_each)
        self.members += [Server(binary, cluster=True, settings=settings, **options) for _ in range(number)]
        self.nodes = self.members[:primaries]
        self._replicas_each = replicas_each
        self._cluster_clients: list[RedisCluster] = []

    def start(self) -> None:
        """See :meth:`Group.start`. The cluster is ready when every member knows all others and has
        ``cluster_state:ok``.
        """
        for epoch, member in enumerate(self.members, 1):
            member.start()
            # Different from the start, so that the members need not sort that out among themselves.
            member.ask("CLUSTER", "SET-CONFIG-EPOCH", epoch)
        bounds = [SLOTS * index // len(self.nodes) for index in range(len(self.nodes) + 1)]
        for node, first, end in zip(self.nodes, bounds, bounds[1:], strict=False):
            node.ask("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
        for member in self.members[1:]:
            self.members[0].ask("CLUSTER", "MEET", HOST, member.port, member.bus_port)
        until(self._all_know_all, "members that know each other")
        for index, member in enumerate(self.members[len(self.nodes) :]):
            member.ask("CLUSTER", "REPLICATE", self.id_of(self.nodes[index % len(self.nodes)]))
        self.wait_ok()
        if self._replicas_each:
            until(self._all_linked, "replicas in step")

    def restart(self) -> None:
        """See :meth:`Group.restart`; returns when the cluster is whole again."""
        super().restart()
        self.wait_ok()

    def close(self) -> None:
        """See :meth:`Group.close`."""
        for client in self._cluster_clients:
            client.close()
        super().close()

    @property
    def url(self) -> str:
        """URL of the first node."""
        return self.nodes[0].url

    def client(self, **kwargs: Any) -> RedisCluster:
        """Return a cluster client that decodes replies; :meth:`close` closes it."""
        client = RedisCluster.from_url(self.url, **{"decode_responses": True, **kwargs})
        self._cluster_clients.append(client)
        return client

    def wait_ok(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until every running member says ``cluster_state:ok``, and keeps to it for a moment."""

        def is_ok() -> bool:
            running = [member for member in self.members if member.is_running]
            return all("cluster_state:ok" in member.ask("CLUSTER", "INFO") for member in running)

        until(is_ok, "cluster_state:ok", timeout_s)

    def id_of(self, member: Server) -> str:
        """Return the member's id in the cluster."""
        return str(member.ask("CLUSTER", "MYID"))

    def slot_of(self, key: str) -> int:
        """Return the slot of a key."""
        return int(self._running().ask("CLUSTER", "KEYSLOT", key))

    def owner_of(self, slot: int) -> Server:
        """Return the member that serves the slot, as the first running member sees it."""
        for first, last, (_, port, *_), *_ in self._running().ask("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(member for member in self.members if member.port == port)
        raise LookupError(f"nobody serves slot {slot}")

    def slots_of(self, member: Server) -> list[int]:
        """Return the slots that a member serves, as the first running member sees it."""
        ranges = self._running().ask("CLUSTER", "SLOTS")
        return [
            slot for first, last, (_, port, *_), *_ in ranges if port == member.port for slot in range(first, last + 1)
        ]

    def replica_of(self, member: Server) -> Server:
        """Return one replica of a primary."""
        primary_port = member.port
        for other in self.members:
            info = other.info("replication")
            if info["role"] == "slave" and int(info["master_port"]) == primary_port:
                return other
        raise LookupError("no replica")

    def fail_over(self, replica: Server) -> None:
        """Let a replica take over without a loss. A failover that the servers gave up is begun again."""
        again_at_s = 0.0

        def has_taken_over() -> bool:
            nonlocal again_at_s
            if replica.info("replication")["role"] == "master":
                return True
            if time.monotonic() >= again_at_s and replica.ask("CLUSTER", "FAILOVER") == "OK":
                again_at_s = time.monotonic() + _FAILOVER_MAX_S
            return False

        until(has_taken_over, "the replica to take over")

    def begin_move(self, slot: int, target: Server) -> None:
        """Begin to move a slot the old way, without any key yet. Commands for its keys can get ``TRYAGAIN`` now."""
        source = self.owner_of(slot)
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", self.id_of(source))
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", self.id_of(target))

    def move_keys(self, slot: int, target: Server, keys_max: int = 1_000_000) -> int:
        """Move up to ``keys_max`` keys of a slot whose move has begun; returns the number of moved keys."""
        source = self.owner_of(slot)
        moved = 0
        while moved < keys_max:
            keys = source.ask("CLUSTER", "GETKEYSINSLOT", slot, min(100, keys_max - moved))
            if not keys:
                break
            source.ask("MIGRATE", HOST, target.port, "", 0, 5000, "KEYS", *keys)
            moved += len(keys)
        return moved

    def finish_move(self, slot: int, target: Server) -> None:
        """Move the remaining keys, and announce the slot's new owner to every primary."""
        self.move_keys(slot, target)
        target_id = self.id_of(target)
        source = self.owner_of(slot)
        for node in (target, source, *(node for node in self.nodes if node not in (target, source))):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", target_id)

    def _running(self) -> Server:
        return next(member for member in self.members if member.is_running)

    def _all_know_all(self) -> bool:
        wanted = f"cluster_known_nodes:{len(self.members)}\r"
        return all(wanted in member.ask("CLUSTER", "INFO") for member in self.members)

    def _all_linked(self) -> bool:
        infos = [member.info("replication") for member in self.members[len(self.nodes) :]]
        return all(info["role"] == "slave" and info["master_link_status"] == "up" for info in infos)


class Sentinels(Group):
    """A primary with replicas, watched by Sentinels under the name :data:`MONITORED`.

    Attributes:
        data: the watched servers; ``data.primary`` is the primary of the start.
        sentinels: the Sentinels' processes.
    """

    def __init__(
        self, binary: Path, *, sentinels: int = 3, replicas: int = 1, down_after_ms: int = 1_500, **options: Any
    ) -> None:
        """Create the servers, which start when the ``with`` block is entered.

        Args:
            binary: The server program.
            sentinels: The number of Sentinels.
            replicas: The number of replicas.
            down_after_ms: The silence after which a server counts as dead. A Sentinel connects to a server at most once
                a second, so a shorter time counts a primary as dead that was promoted just now. A busy machine delays
                a server for about as long.
            options: Those of :class:`Server`, for the watched servers.
        """
        super().__init__()
        self.data = Replicated(binary, replicas=replicas, **options)
        self._down_after_ms = down_after_ms
        self.sentinels: list[Server] = []
        self._binary = binary
        self._number = sentinels
        self._sentinel_clients: list[Sentinel] = []

    def start(self) -> None:
        """See :meth:`Group.start`: ready means that the Sentinels know each other and the replicas."""
        self.members = self.data.members
        self.data.start()
        settings = [
            ("sentinel", "monitor", MONITORED, HOST, str(self.data.primary.port), str(self._number // 2 + 1)),
            ("sentinel", "down-after-milliseconds", MONITORED, str(self._down_after_ms)),
            ("sentinel", "failover-timeout", MONITORED, "3000"),
        ]
        for _ in range(self._number):
            self.sentinels.append(Server(self._binary, sentinel=True, settings=settings))
            self.members = [*self.data.members, *self.sentinels]
            self.sentinels[-1].start()
        self.set_periods(SENTINEL_SHORT_PERIODS)
        until(self._all_know_all, "Sentinels that know each other")
        self.set_periods(SENTINEL_PERIODS)

    def close(self) -> None:
        """See :meth:`Group.close`."""
        for client in self._sentinel_clients:
            for one in client.sentinels:
                one.close()
        super().close()

    def set_periods(self, periods: Iterable[tuple[str, int]]) -> None:
        """Set how often the Sentinels publish themselves, and ask servers for their state, which takes processor time.

        With the short periods they know each other in half a second, and not in three. After a failover they make the
        old primary a replica in a second, and not in ten.
        """
        for sentinel in self.sentinels:
            if sentinel.is_running:
                sentinel.ask("SENTINEL", "DEBUG", *(word for pair in periods for word in pair))

    @property
    def url(self) -> str:
        """``redis+sentinel://host:port,…/name``."""
        return f"redis+sentinel://{','.join(f'{HOST}:{one.port}' for one in self.sentinels)}/{MONITORED}"

    @property
    def primary(self) -> Server:
        """Return the primary according to the first running Sentinel."""
        sentinel = next(one for one in self.sentinels if one.is_running)
        _, port = sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MONITORED)
        return next(member for member in self.data.members if member.port == int(port))

    def sentinel(self, **kwargs: Any) -> Sentinel:
        """Return redis-py's client of the Sentinels, with these options for servers; :meth:`close` closes it."""
        options = {"decode_responses": True, **kwargs}
        addresses = [(HOST, one.port) for one in self.sentinels]
        sentinel = Sentinel(addresses, **options)
        self._sentinel_clients.append(sentinel)
        return sentinel

    def client(self, **kwargs: Any) -> redis.Redis:
        """A client that asks the Sentinels for the primary at each connection. Close it."""
        client: redis.Redis = self.sentinel(**kwargs).master_for(MONITORED)
        return client

    def wait_failed_over(self, old: Server, timeout_s: float = START_TIMEOUT_S) -> Server:
        """Wait until all running Sentinels name another primary than ``old``, and it takes writes; returns it."""

        def failed_over() -> bool:
            ports = {
                int(one.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MONITORED)[1])
                for one in self.sentinels
                if one.is_running
            }
            return len(ports) == 1 and old.port not in ports and self.primary.info("replication")["role"] == "master"

        until(failed_over, "a new primary", timeout_s)
        return self.primary

    def fail_over(self) -> Server:
        """Fail over without a fault; returns the new primary, which the old one follows.

        Sentinels refuse it as long as they know no good replica. If they give it up, this begins another one.
        """
        old, again_at_s = self.primary, 0.0

        def has_begun_and_ended() -> bool:
            nonlocal again_at_s
            if time.monotonic() >= again_at_s and self.primary is old:
                self.sentinels[0].ask("SENTINEL", "FAILOVER", MONITORED)
                again_at_s = time.monotonic() + _SENTINEL_FAILOVER_MAX_S
            return bool(old.info("replication")["role"] == "slave")

        until(has_begun_and_ended, "the old primary to follow")
        return self.wait_failed_over(old)

    def wait_in_step(self) -> None:
        """Wait until each replica has all writes of the present primary, which an earlier test may have chosen."""
        primary = self.primary
        _wait_in_step(primary, [one for one in self.data.members if one is not primary])

    def wait_ready(self) -> None:
        """Wait until every Sentinel sees all replicas follow the primary, so that it could fail over again."""

        def is_ready() -> bool:
            seen = [one.ask("SENTINEL", "REPLICAS", MONITORED) for one in self.sentinels if one.is_running]
            states = [(one["flags"], one["master-link-status"]) for replicas in seen for one in replicas]
            wanted = len(seen) * (len(self.data.members) - 1)
            return len(states) == wanted and all(state == ("slave", "ok") for state in states)

        until(is_ready, "replicas that all Sentinels see in step")

    def _all_know_all(self) -> bool:
        seen = [one.ask("SENTINEL", "MASTER", MONITORED) for one in self.sentinels]
        return all(
            int(one["num-other-sentinels"]) == self._number - 1 and int(one["num-slaves"]) == len(self.data.replicas)
            for one in seen
        )
