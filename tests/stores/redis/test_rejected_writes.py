"""A server that finishes loading its data while it works through one write rejects only the first request of it."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest
from redis.exceptions import AuthenticationError, BusyLoadingError

from quota_engine.clocks import ManualClock
from quota_engine.conformance.world import ONLINE, OPENS_AT_MS, published, reserve
from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.domain.outcomes import Status
from quota_engine.ports import ApplyMany, Lookup
from quota_engine.stores.redis import node_channel
from quota_engine.stores.redis.factory import open_async_store
from quota_engine.stores.redis.shared_write import may_still_run
from tests.support.batching import turns
from tests.support.lossy_proxy import LossyProxy
from tests.support.servers import Server

CLOCK = ManualClock(OPENS_AT_MS)
OFFICES = ("north", "east", "west")
LOADING = b"-LOADING the server is loading its data\r\n"


class LoadingProxy(LossyProxy):
    """Replaces the replies to one write with script calls, the ``rejected``-th, by a rejection.

    The server carries all requests of the write out. The client must not conclude that it carried out none.
    """

    rejected = 0

    def _back(self, server: socket.socket, client: socket.socket, state: dict[str, bool]) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 20):
                with self._lock:
                    rejects = state["script"] and self.scripts_seen == self.rejected
                client.sendall(LOADING if rejects else data)
        self._cut(client, server)


def test_only_scripts_behind_a_rejected_request_may_run() -> None:
    loading = BusyLoadingError("loading")
    script, wait = ("FCALL", "apply", "1"), ("WAIT", 1, 100)
    assert not may_still_run(loading, ())
    assert not may_still_run(loading, (wait,))
    assert may_still_run(loading, (script, wait))
    # Without a log-in, the server rejects each request of the connection.
    assert not may_still_run(AuthenticationError("NOAUTH"), (script,))


async def test_calls_behind_a_rejected_one_are_not_said_to_be_refused(
    valkey_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three offices share a write. Each call behind the first may have an effect, and here it has one."""
    monkeypatch.setattr(node_channel, "_WRITES_MAX", 1)
    with LoadingProxy(valkey_server.socket_path) as proxy:
        store = await open_async_store(f"{proxy.url}?attempts_max=1", CLOCK)
        for office in ("first", *OFFICES):
            await store.execute(ApplyMany(office, published()))
        valkey_server.pause()
        proxy.rejected = proxy.scripts_seen + 2
        # The first call is in flight alone. The calls that follow share the next write.
        first = asyncio.ensure_future(store.apply("first", reserve("k", ONLINE)))
        await turns()
        assert store._channels[None]._in_flight == 1
        others = [asyncio.ensure_future(store.apply(office, reserve("k", ONLINE))) for office in OFFICES]
        await turns()
        assert len(store._channels[None]._waiting) == len(OFFICES)
        valkey_server.resume()
        assert (await first).status is Status.HELD
        errors = await asyncio.gather(*others, return_exceptions=True)
        assert [type(error) for error in errors] == [BackendUnavailable, OutcomeUnknown, OutcomeUnknown]
        assert proxy.scripts_seen == proxy.rejected
        assert await store.execute(Lookup("west", "k")) is not None
        await store.close()
