"""The fingerprint of the identity key on real servers: kept by the first opening, in each namespace."""

from __future__ import annotations

import threading

import pytest

from quota_engine import AsyncQuotaEngine, QuotaEngine
from quota_engine.domain.errors import WrongIdentityKey
from quota_engine.stores.redis.keys import identity_key_key
from tests.stores.redis.conftest import cluster_url
from tests.support.server_groups import Cluster
from tests.support.servers import Server

KEY, OTHER = b"the key of the first opening", b"another key, of another house"


@pytest.fixture(params=["valkey_server", "redis_server"])
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(request.param)
    return found


def test_each_namespace_keeps_its_first_key(server: Server) -> None:
    for namespace, key in (("", KEY), ("north", KEY), ("south", OTHER)):
        url = f"{server.url}?namespace={namespace}" if namespace else server.url
        QuotaEngine.open(url, identity_key=key).close()
        with pytest.raises(WrongIdentityKey):
            QuotaEngine.open(url, identity_key=KEY if key is OTHER else OTHER)
        QuotaEngine.open(url, identity_key=key).close()
        assert server.ask("PTTL", identity_key_key(namespace)) == -1


async def test_the_async_engine_checks_the_same_key(server: Server) -> None:
    QuotaEngine.open(server.url, identity_key=KEY).close()
    with pytest.raises(WrongIdentityKey):
        await AsyncQuotaEngine.open(server.url, identity_key=OTHER)
    async with await AsyncQuotaEngine.open(server.url, identity_key=KEY):
        pass


def test_a_cluster_keeps_the_first_key(valkey_cluster: Cluster) -> None:
    url = f"{cluster_url(valkey_cluster)}?namespace=first-key"
    QuotaEngine.open(url, identity_key=KEY).close()
    with pytest.raises(WrongIdentityKey):
        QuotaEngine.open(url, identity_key=OTHER)
    QuotaEngine.open(url, identity_key=KEY).close()


def test_of_several_first_openings_one_key_wins(server: Server) -> None:
    keys = [bytes([number]) * 32 for number in range(6)]
    start, opened = threading.Barrier(len(keys)), []

    def open_with(key: bytes) -> None:
        start.wait()
        try:
            QuotaEngine.open(server.url, identity_key=key).close()
        except WrongIdentityKey:
            return
        opened.append(key)

    threads = [threading.Thread(target=open_with, args=(key,)) for key in keys]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(opened) == 1


def test_a_full_store_can_be_opened_again(server: Server) -> None:
    """The fingerprint is read first: a write would be refused when memory is out."""
    QuotaEngine.open(server.url, identity_key=KEY).close()
    server.ask("CONFIG", "SET", "maxmemory", "1")
    try:
        QuotaEngine.open(server.url, identity_key=KEY).close()
        with pytest.raises(WrongIdentityKey):
            QuotaEngine.open(server.url, identity_key=OTHER)
    finally:
        server.ask("CONFIG", "SET", "maxmemory", "0")
