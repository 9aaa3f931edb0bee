"""Where the keys are, when more than one server is there: behind Sentinels, and in a cluster.

Routers ask by the same generators as calls (see ``calls``), and so are written once for both kinds of connection.
"""

from __future__ import annotations

__all__ = ["ClusterRouter", "SentinelRouter"]

import abc
import threading
from collections import deque
from collections.abc import Sequence
from typing import Final

from redis.crc import key_slot
from redis.exceptions import AskError, BusyLoadingError, MovedError, NoPermissionError, ResponseError

from quota_engine.stores.redis.retrying_calls import Call, Node, NotSent, ReplyLost, Router, send_to

SLOTS: Final = 16384


class _DiscoveringRouter(Router, abc.ABC):
    """Learns from other servers where the keys are, when there is doubt. One call asks at a time, so that a failover
    does not bring a storm of questions; the others go on with what was known.
    """

    def __init__(self, informants: Sequence[Node]) -> None:
        """``informants``: whom to ask; one that answers is enough."""
        self._informants = deque(informants)
        self._is_doubtful = True
        self._asking = threading.Lock()  # only ever tried, never waited for

    def find(self, key: str) -> Call[Node | None]:
        """See :meth:`Router.find`."""
        reason: Exception | None = None
        if (self._is_doubtful or self._known(key) is None) and self._asking.acquire(blocking=False):
            try:
                reason = yield from self._learn()
            finally:
                self._asking.release()
        node = self._known(key)
        if node is None:
            raise NotSent(f"nobody knows a server for these keys: {reason or 'it is being asked for'}") from reason
        return node

    def invalidate(self) -> None:
        """See :meth:`Router.doubt`."""
        self._is_doubtful = True

    def _learn(self) -> Call[Exception | None]:
        """Ask one after the other until one answers. If none does, what was known may do; returns why none did."""
        self._is_doubtful = False  # before asking: what fails from now on is a doubt of its own
        reason: Exception | None = None
        for _ in range(len(self._informants)):
            informant = self._informants[0]
            self._informants.rotate(-1)  # another one the next time: this one may be cut off, and so be wrong for long
            try:
                yield from self._ask(informant)
            except NoPermissionError:
                raise
            except (NotSent, ReplyLost, ResponseError, BusyLoadingError) as error:
                reason = error
            else:
                return None
        return reason

    @abc.abstractmethod
    def _ask(self, informant: Node) -> Call[None]:
        """Learn from ``informant`` which servers there are."""

    @abc.abstractmethod
    def _known(self, key: str) -> Node | None:
        """The server that has ``key``, as far as is known."""


class SentinelRouter(_DiscoveringRouter):
    """Asks Sentinels who is the primary of a service."""

    def __init__(self, sentinels: Sequence[Node], service: str) -> None:
        """``service``: the name under which the Sentinels watch the primary."""
        super().__init__(sentinels)
        self._service = service
        self._primary: Node | None = None

    def _ask(self, informant: Node) -> Call[None]:
        request = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
        (address,) = yield from send_to(informant, (request,))
        if address is None:
            raise NotSent(f"the Sentinel {informant} does not watch any {self._service!r}")
        host, port = address
        self._primary = Node(host, int(port))

    def _known(self, key: str) -> Node | None:
        return self._primary


class ClusterRouter(_DiscoveringRouter):
    """Asks the nodes of a cluster who has which slots, and minds what they say besides when one is asked in vain."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        """``nodes``: some of the cluster, to start with."""
        super().__init__(nodes)
        self._first_nodes = tuple(nodes)
        self._owners: list[Node | None] = [None] * SLOTS

    def redirect_target(self, error: AskError, asked: Node | None) -> Node:
        """See :meth:`Router.redirected`."""
        node = Node(error.host or (asked.host if asked else ""), error.port)
        if isinstance(error, MovedError):
            self._owners[error.slot_id] = node
            self.invalidate()  # where one slot has moved, others have
        return node

    def _ask(self, informant: Node) -> Call[None]:
        (ranges,) = yield from send_to(informant, (("CLUSTER", "SLOTS"),))
        owners: list[Node | None] = [None] * SLOTS
        nodes: list[Node] = []
        for first, last, *servers in ranges:
            # A node that does not know its own address leaves it out: it is the one by which it was reached.
            primary, *replicas = (Node(host or informant.host, int(port)) for host, port, *_ in servers)
            owners[first : last + 1] = [primary] * (last + 1 - first)
            nodes += [primary, *replicas]
        self._owners = owners
        there = dict.fromkeys([*nodes, *self._first_nodes])
        in_turn = [node for node in self._informants if node in there]
        self._informants = deque(dict.fromkeys([*in_turn, *there]))

    def _known(self, key: str) -> Node | None:
        return self._owners[key_slot(key.encode())]
