"""Opening a store with the identity key of its first opening, or another one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from quota_engine import AsyncQuotaEngine, AsyncTokenBuckets, QuotaEngine, TokenBuckets
from quota_engine.admission.token_bucket import per_day
from quota_engine.clocks import ManualClock
from quota_engine.domain.errors import WrongIdentityKey
from quota_engine.domain.identity_key import IdentityKey
from quota_engine.stores.memory import AsyncMemoryStore, MemoryStore

KEY = b"the key of the first opening"
OTHER = IdentityKey(b"another key, of another house", "QUOTA_ENGINE_IDENTITY_KEY")
URL = "shared://place?namespace=north"


class SharedStore(MemoryStore):
    """A memory store that counts how often it was closed."""

    closed = 0

    def close(self) -> None:
        self.closed += 1


class SharedStoreFactory:
    """Opens the same store each time."""

    def __init__(self) -> None:
        self.store = SharedStore(ManualClock(0))

    def open_store(self, url: str, clock: Any) -> MemoryStore:
        return self.store

    async def open_async_store(self, url: str, clock: Any) -> AsyncMemoryStore:
        return AsyncMemoryStore(self.store)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> SharedStore:
    factory = SharedStoreFactory()
    for module in ("quota_engine", "token_buckets"):
        monkeypatch.setattr(f"quota_engine.engine.{module}.store_factory", lambda url: factory)
    return factory.store


def test_open_refuses_another_key_and_names_its_source(store: SharedStore) -> None:
    QuotaEngine.open(URL, identity_key=KEY)
    with pytest.raises(WrongIdentityKey) as caught:
        QuotaEngine.open(URL, identity_key=OTHER)
    assert str(caught.value) == (
        "QUOTA_ENGINE_IDENTITY_KEY: not the identity key that this store was first opened with in the namespace "
        "'north'; expected that first key; another key needs another namespace or an empty store"
    )
    assert caught.value.namespace == "north"
    with pytest.raises(WrongIdentityKey, match=r"^identity_key: not the identity key"):
        QuotaEngine.open(URL, identity_key=bytes(OTHER))
    QuotaEngine.open(URL, identity_key=KEY)


def test_every_class_that_has_a_key_checks_it(store: SharedStore) -> None:
    """A refused opening closes the store, so that nothing is left half open."""
    QuotaEngine.open(URL, identity_key=KEY)
    for opening in (
        lambda: QuotaEngine.open(URL, identity_key=OTHER),
        lambda: asyncio.run(AsyncQuotaEngine.open(URL, identity_key=OTHER)),
        lambda: TokenBuckets.open(URL, per_day(1), identity_key=OTHER),
        lambda: asyncio.run(AsyncTokenBuckets.open(URL, per_day(1), identity_key=OTHER)),
    ):
        store.closed = 0
        with pytest.raises(WrongIdentityKey):
            opening()
        assert store.closed == 1
    TokenBuckets.open(URL, per_day(1), identity_key=KEY)
    asyncio.run(AsyncQuotaEngine.open(URL, identity_key=KEY))
