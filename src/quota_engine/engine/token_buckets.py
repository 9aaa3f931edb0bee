"""Token buckets on any store, without an office: :class:`TokenBuckets` and :class:`AsyncTokenBuckets`."""

from __future__ import annotations

__all__ = ["AsyncTokenBuckets", "TokenBucketMethods", "TokenBuckets"]

from collections.abc import Mapping
from typing import Final, Self

from quota_engine.admission.token_bucket import BucketLevel, Limit
from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.engine.store_discovery import identity_key_for, open_async_store, open_store, store_factory
from quota_engine.method_binding import AsyncBound, AsyncResource, SyncBound, SyncResource, async_method, sync_method
from quota_engine.ports import AsyncStore, Clock, Store
from quota_engine.workflows.bucket_requests import BucketKeys, BucketRequestBuilder, TakeResult
from quota_engine.workflows.generator_drivers import Apply, Workflow, async_handler_of, call_handlers, handler_of

_UNCHECKED: Final = TakeResult(True, unchecked=True)


class TokenBucketMethods:
    """Methods of token buckets, written once for both classes."""

    def __init__(self, requests: BucketRequestBuilder, admit_in_outage: bool) -> None:
        self._requests = requests
        self._admit_in_outage = admit_in_outage

    def take(self, keys: BucketKeys, cost: int = 1) -> Workflow[TakeResult]:
        """Take tokens from the bucket of each key: from all of them, or from none.

        Args:
            keys: one key, such as an address; with several limits, a mapping from their names to keys. Limits that are
                left out are not charged. A key is a string of 1 to 1,024 characters; it is hashed at once.
            cost: number of tokens, 1 to the limit's burst.
        """
        request = self._requests.take(keys, cost)
        try:
            outcome = yield request
        except (BackendUnavailable, OutcomeUnknown):
            if self._admit_in_outage:
                return _UNCHECKED
            raise
        return self._requests.take_result(keys, outcome)

    def peek(self, keys: BucketKeys) -> Workflow[dict[str, BucketLevel]]:
        """Return the level of each key's bucket by the name of its limit (``""`` for a single one). Takes nothing.

        Args:
            keys: as for :meth:`take`.
        """
        levels = yield self._requests.peek(keys)
        return self._requests.levels(keys, levels)

    def reset(self, keys: BucketKeys) -> Apply[int]:
        """Fill the bucket of each key. Return how many were not full.

        Args:
            keys: as for :meth:`take`.
        """
        return self._requests.reset(keys)


class TokenBuckets(SyncBound[TokenBucketMethods], SyncResource):
    """Rate limits without an office. Safe to share between threads.

    A bucket starts full, holds ``burst`` tokens and refills evenly; it counts exactly, to the last fraction of a token.

    Raises:
        InvalidRequest: from every method, for a call that can never succeed.
        BackendUnavailable: the store was not reached; nothing was taken.
        OutcomeUnknown: the response was lost. The engine sends such a call again, so it may charge twice, never less.
    """

    def __init__(self, store: Store, requests: BucketRequestBuilder, *, admit_in_outage: bool = False) -> None:
        """Use a store of your own; :meth:`open` is the usual way."""
        handle = handler_of(store)
        super().__init__(TokenBucketMethods(requests, admit_in_outage), handle, call_handlers(store, handle))
        self._store = store

    @classmethod
    def open(
        cls,
        url: str,
        limits: Limit | Mapping[str, Limit],
        *,
        name: str = "default",
        identity_key: bytes | None = None,
        clock: Clock | None = None,
        admit_in_outage: bool = False,
    ) -> Self:
        """Open buckets on the store at ``url``.

        Args:
            url: as for :meth:`quota_engine.QuotaEngine.open`.
            limits: one limit, or several by name to charge several buckets of a caller at once.
            name: id of this set of buckets on the store. A set occupies one slot of a cluster.
            identity_key: 16 to 64 secret bytes that turn keys into names of buckets; the same for all processes on a
                store. Only ``memory://`` works without.
            clock: source of the time; ``None`` for the store's own clock.
            admit_in_outage: admit everyone while the store is unavailable, instead of raising.

        Raises:
            InvalidRequest: the URL, the limits, the name or the key is not valid.
            WrongIdentityKey: the store was first opened with another identity key.
            BackendUnavailable: no server answers there.
        """
        key = identity_key_for(url, identity_key)
        requests = BucketRequestBuilder(name, limits, key)
        return cls(open_store(store_factory(url), url, clock, key), requests, admit_in_outage=admit_in_outage)

    take = sync_method(TokenBucketMethods.take)
    peek = sync_method(TokenBucketMethods.peek)
    reset = sync_method(TokenBucketMethods.reset)

    def close(self) -> None:
        """Close the store. A second call does nothing."""
        self._store.close()


class AsyncTokenBuckets(AsyncBound[TokenBucketMethods], AsyncResource):
    """:class:`TokenBuckets` for asyncio: the same methods, awaited."""

    def __init__(self, store: AsyncStore, requests: BucketRequestBuilder, *, admit_in_outage: bool = False) -> None:
        """Use a store of your own; :meth:`open` is the usual way."""
        handle = async_handler_of(store)
        super().__init__(TokenBucketMethods(requests, admit_in_outage), handle, call_handlers(store, handle))
        self._store = store

    @classmethod
    async def open(
        cls,
        url: str,
        limits: Limit | Mapping[str, Limit],
        *,
        name: str = "default",
        identity_key: bytes | None = None,
        clock: Clock | None = None,
        admit_in_outage: bool = False,
    ) -> Self:
        """See :meth:`TokenBuckets.open`."""
        key = identity_key_for(url, identity_key)
        requests = BucketRequestBuilder(name, limits, key)
        store = await open_async_store(store_factory(url), url, clock, key)
        return cls(store, requests, admit_in_outage=admit_in_outage)

    take = async_method(TokenBucketMethods.take)
    peek = async_method(TokenBucketMethods.peek)
    reset = async_method(TokenBucketMethods.reset)

    async def close(self) -> None:
        """Close the store. A second call does nothing."""
        await self._store.close()
