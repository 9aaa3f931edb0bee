"""Routers that find the server of a key: an embedded one, behind Sentinels, and in a cluster.

Routers query other servers by the same generators as calls (see ``retrying_calls``), and so are written once for both
kinds of connection.
"""

from __future__ import annotations

__all__ = ["ClusterRouter", "EmbeddedRouter", "SentinelRouter"]

import abc
import threading
from collections import deque
from collections.abc import Sequence
from typing import Final

from redis.crc import key_slot
from redis.exceptions import AskError, BusyLoadingError, MovedError, NoPermissionError, ResponseError

from quota_engine.domain.errors import BackendUnavailable
from quota_engine.forks import call_in_child
from quota_engine.stores.embedded import EmbeddedServer
from quota_engine.stores.redis.retrying_calls import BlockingWork, Call, Node, NotSent, ReplyLost, Router, send_to

SLOTS: Final = 16384
EMBEDDED_WAIT_MS: Final = 2_000
"""The time that one attempt waits for an embedded server that starts again or loads its data."""


class _DiscoveringRouter(Router, abc.ABC):
    """Queries other servers for the owner of a key, after an attempt has failed.

    One call queries at a time, so that a failover does not cause a storm of queries. The other calls use the last known
    owner meanwhile.
    """

    is_settled = False

    def __init__(self, informants: Sequence[Node]) -> None:
        """Take the servers to query; one that answers is enough."""
        self._informants = deque(informants)
        self._is_stale = True
        self._discovering = threading.Lock()  # callers try it and never wait for it
        call_in_child(self._after_fork)

    def _after_fork(self) -> None:
        self._discovering = threading.Lock()

    def find(self, key: str) -> Call[Node | None]:
        """See :meth:`Router.find`."""
        reason: Exception | None = None
        if (self._is_stale or self._known(key) is None) and self._discovering.acquire(blocking=False):
            try:
                reason = yield from self._discover()
            finally:
                self._discovering.release()
        node = self._known(key)
        if node is None:
            why = reason or "another call is querying for it"
            raise NotSent(f"no server is known for these keys: {why}") from reason
        return node

    def invalidate(self) -> None:
        """See :meth:`Router.doubt`."""
        self._is_stale = True

    def _discover(self) -> Call[Exception | None]:
        """Query one server after the other until one answers; returns the last error if none does."""
        self._is_stale = False  # before the query: a later failure makes it stale again
        reason: Exception | None = None
        for _ in range(len(self._informants)):
            informant = self._informants[0]
            self._informants.rotate(-1)  # this one may be partitioned and wrong for long: query another one next
            try:
                yield from self._query(informant)
            except NoPermissionError:
                raise
            except (NotSent, ReplyLost, ResponseError, BusyLoadingError) as error:
                reason = error
            else:
                return None
        return reason

    @abc.abstractmethod
    def _query(self, informant: Node) -> Call[None]:
        """Learn the owners of keys from one server."""

    @abc.abstractmethod
    def _known(self, key: str) -> Node | None:
        """Return the last known server of ``key``, or ``None``."""


class EmbeddedRouter(Router):
    """Starts the embedded server again after an attempt has failed because the server had ended."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server
        self.is_settled = True

    def find(self, key: str) -> Call[Node | None]:
        """See :meth:`Router.find`.

        Raises:
            NotSent: The server could not be started.
        """
        if not self.is_settled:
            self.is_settled = True
            try:
                yield BlockingWork(lambda: self._server.ensure_running(EMBEDDED_WAIT_MS))
            except BackendUnavailable as error:
                self.is_settled = False
                raise NotSent(str(error)) from error
        return None

    def invalidate(self) -> None:
        """See :meth:`Router.invalidate`."""
        self.is_settled = False


class SentinelRouter(_DiscoveringRouter):
    """Queries Sentinels for the primary of a service."""

    def __init__(self, sentinels: Sequence[Node], service: str) -> None:
        """Take the Sentinels, and the name under which they watch the primary."""
        super().__init__(sentinels)
        self._service = service
        self._primary: Node | None = None

    def _query(self, informant: Node) -> Call[None]:
        request = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
        (address,) = yield from send_to(informant, lambda _: (request,))
        if address is None:
            raise NotSent(
                f"the Sentinel {informant} does not watch a service {self._service!r}: check the name in the URL"
            )
        host, port = address
        self._primary = Node(host, int(port))

    def _known(self, key: str) -> Node | None:
        return self._primary


class ClusterRouter(_DiscoveringRouter):
    """Queries the nodes of a cluster for the owners of slots, and follows their redirections."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        """Take some nodes of the cluster. The router discovers the remaining ones."""
        super().__init__(nodes)
        self._first_nodes = tuple(nodes)
        self._owners: list[Node | None] = [None] * SLOTS

    def redirect_target(self, error: AskError, asked: Node | None) -> Node:
        """See :meth:`Router.redirected`."""
        node = Node(error.host or (asked.host if asked else ""), error.port)
        if isinstance(error, MovedError):
            self._owners[error.slot_id] = node
            self.invalidate()  # other slots may have moved, too
        return node

    def _query(self, informant: Node) -> Call[None]:
        (ranges,) = yield from send_to(informant, lambda _: (("CLUSTER", "SLOTS"),))
        owners: list[Node | None] = [None] * SLOTS
        nodes: list[Node] = []
        for first, last, *servers in ranges:
            # A node that does not know its own address leaves it out: use the address by which it was reached.
            primary, *replicas = (Node(host or informant.host, int(port)) for host, port, *_ in servers)
            owners[first : last + 1] = [primary] * (last + 1 - first)
            nodes += [primary, *replicas]
        self._owners = owners
        existing = dict.fromkeys([*nodes, *self._first_nodes])
        in_rotation = [node for node in self._informants if node in existing]
        self._informants = deque(dict.fromkeys([*in_rotation, *existing]))

    def _known(self, key: str) -> Node | None:
        return self._owners[key_slot(key.encode())]
