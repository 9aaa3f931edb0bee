"""Errors of a store say what is known, what is not, and what to do, on real servers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from quota_engine.clocks import ManualClock
from quota_engine.conformance.world import OFFICE, ONLINE, OPENS_AT_MS, published, reserve
from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.ports import ApplyMany, Lookup
from quota_engine.stores.redis.factory import open_store
from quota_engine.stores.redis.sync_store import RedisStore
from tests.support.lossy_proxy import LossyProxy
from tests.support.server_groups import Replicated
from tests.support.servers import Server

HASTY = "?attempts_max=3&timeout_ms=500"


@pytest.fixture
def server(binary: Path) -> Iterator[Server]:
    """A server of each kind."""
    with Server(binary) as server:
        yield server


def opened(url: str) -> RedisStore:
    store = open_store(url, ManualClock(OPENS_AT_MS))
    store.execute(ApplyMany(OFFICE, published()))
    return store


def test_refused_connection_after_a_lost_answer_is_not_all_that_is_said(server: Server) -> None:
    """The message does not read as if nothing was done: the first attempt may have been applied."""
    with LossyProxy(server.socket_path) as proxy:
        store = opened(proxy.url + HASTY)
        proxy.losses = 1
        proxy.on_loss = server.kill
        with pytest.raises(OutcomeUnknown) as caught:
            store.apply(OFFICE, reserve("ani", ONLINE))
        store.close()
    known = r"the command was sent and its answer was lost \(.+\), so it may have been applied; "
    assert re.fullmatch(known + r"(.+ now \(.+\); )?repeat the call with the same key", str(caught.value))


def test_connection_refused_without_a_lost_answer_says_that_nothing_was_applied(server: Server) -> None:
    """A command that was never sent had no effect. A question has none in any case."""
    store = opened(server.url + HASTY)
    server.kill()
    with pytest.raises(BackendUnavailable, match=r"the store cannot be used: .+; nothing was applied$"):
        store.apply(OFFICE, reserve("ani", ONLINE))
    with pytest.raises(BackendUnavailable, match=r"the store cannot be used: [^;]+$"):
        store.execute(Lookup(OFFICE, "ani"))
    store.close()


def test_missing_replica_is_named(binary: Path) -> None:
    """The primary has applied the command. Only a failover could lose it."""
    with Replicated(binary) as group:
        opened(group.url + "?fence=auto").close()
        store = open_store(group.url + "?durability=replicated&wait_ms=50&attempts_max=2", ManualClock(OPENS_AT_MS))
        group.replicas[0].pause()
        known = "the primary has applied the command, but 0 of 1 replicas have it, so a failover could lose it; "
        with pytest.raises(OutcomeUnknown, match=known + "repeat the call with the same key"):
            store.apply(OFFICE, reserve("ani", ONLINE))
        group.replicas[0].resume()
        store.close()
