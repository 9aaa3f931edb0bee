"""The meaning of an acknowledgment, by the durability of the store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from quota_engine.conformance.world import OFFICE, ONLINE, published, reserve
from quota_engine.domain.commands import Confirm
from quota_engine.domain.errors import BackendUnavailable, InvalidRequest, OutcomeUnknown
from quota_engine.domain.outcomes import Status
from quota_engine.ports import ApplyMany, Audit
from quota_engine.stores.redis.factory import open_async_store, open_store
from quota_engine.stores.redis.sync_store import RedisStore
from tests.stores.redis.test_outages import CLOCK
from tests.support.server_groups import Replicated
from tests.support.servers import Server


def opened(url: str) -> RedisStore:
    backend = open_store(url, CLOCK)
    backend.execute(ApplyMany(OFFICE, published()))
    return backend


@pytest.fixture
def group(binary: Path) -> Iterator[Replicated]:
    """A primary and a replica that is in step."""
    with Replicated(binary) as group:
        group.wait_in_step()
        yield group


def test_fsync_requires_a_server_with_fsync(binary: Path, tmp_path: Path) -> None:
    """A server that answers before it has written is refused when it is opened; one that writes first is not."""
    too_lazy = pytest.raises(BackendUnavailable, match="appendfsync always, but it has appendonly yes, appendfsync e")
    with Server(binary, appendfsync="everysec") as server, too_lazy:
        open_store(server.url + "?durability=fsync", CLOCK)
    with Server(binary, appendfsync="always") as server:
        opened(server.url + "?durability=fsync").close()
    opened(f"valkey+embedded://{tmp_path}/store?durability=fsync").close()
    with pytest.raises(BackendUnavailable):
        open_store(f"valkey+embedded://{tmp_path}/other?durability=fsync&appendfsync=everysec", CLOCK)


def test_replicated_command_is_acknowledged_by_the_replica(group: Replicated) -> None:
    """Every acknowledged place is on the replica at that moment: promoted, it knows them all."""
    backend = opened(group.primary.url + "?durability=replicated&replicas=1&attempts_max=30")
    for one in ("ani", "budi"):
        assert backend.apply(OFFICE, reserve(one, ONLINE)).status is Status.HELD
        assert backend.apply(OFFICE, Confirm(one)).status is Status.CONFIRMED
    replica = group.replicas[0]
    group.primary.kill()
    backend.close()
    group.promote(replica)
    other = open_store(replica.url, CLOCK)
    for one in ("ani", "budi"):
        assert other.apply(OFFICE, Confirm(one)).replayed
    assert other.execute(Audit(OFFICE)) == []
    other.close()


def test_missing_replica_makes_the_outcome_unknown(group: Replicated) -> None:
    """A write that no replica has is never acknowledged, because a failover may lose it. A replay waits for the
    replica, too.
    """
    options = "?durability=replicated&replicas=1&wait_ms=50&attempts_max=2"
    opened(group.primary.url + "?fence=auto").close()
    backend = open_store(group.primary.url + options, CLOCK)
    group.replicas[0].pause()
    for _ in range(2):  # the second is a replay, which changes nothing, and must not be acknowledged for that
        with pytest.raises(OutcomeUnknown, match="0 of 1 replicas have it"):
            backend.apply(OFFICE, reserve("ani", ONLINE))
    group.replicas[0].resume()
    patient = open_store(group.primary.url + "?durability=replicated&replicas=1&attempts_max=30", CLOCK)
    outcome = patient.apply(OFFICE, reserve("ani", ONLINE))
    assert (outcome.status, outcome.replayed) == (Status.HELD, True)
    patient.close()
    backend.close()


async def test_async_store_waits_for_replicas(group: Replicated) -> None:
    """The same for asyncio, and once a batch: fifty calls need a few WAITs."""
    opened(group.primary.url + "?fence=auto").close()
    backend = await open_async_store(group.primary.url + "?durability=replicated&attempts_max=30", CLOCK)
    outcomes = await asyncio.gather(*(backend.apply(OFFICE, Confirm(f"nobody{one}")) for one in range(50)))
    assert {one.status for one in outcomes} == {Status.NOT_FOUND}
    waits = int(group.primary.info("commandstats")["cmdstat_wait"]["calls"])
    assert waits <= 5
    await backend.close()


@pytest.mark.parametrize("options", ["durability=some", "durability=replicated&replicas=0", "wait_ms=soon"])
def test_wrong_option_is_named(options: str) -> None:
    """An error in the URL is named."""
    with pytest.raises(InvalidRequest, match="url, option"):
        open_store(f"redis://127.0.0.1:1/0?{options}", None)
