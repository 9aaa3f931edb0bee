"""Token buckets on any store, without an office: :class:`TokenBuckets` and :class:`AsyncTokenBuckets`.

What a method does stands once, at the sync one; the async one is the same with ``await``.
"""

from __future__ import annotations

__all__ = ["AsyncTokenBuckets", "TokenBuckets"]

import os
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

from quota_engine.admission.token_bucket import BucketLevel, Limit
from quota_engine.domain.errors import BackendUnavailable, InvalidRequest, OutcomeUnknown
from quota_engine.engine.quota_engine import backend_factory
from quota_engine.ports import AsyncStore, Clock, Store
from quota_engine.workflows.bucket_requests import BucketKeys, BucketRequestBuilder, TakeResult
from quota_engine.workflows.generator_drivers import run, run_async

_UNCHECKED: Final = TakeResult(True, unchecked=True)


def _desk(url: str, name: str, limits: Limit | Mapping[str, Limit], identity_key: bytes | None) -> BucketRequestBuilder:
    if identity_key is None:
        if url != "memory://":
            expected = "the secret bytes that all processes on this store share, 16 to 64 of them"
            raise InvalidRequest("identity_key", "missing", expected)
        identity_key = os.urandom(32)
    return BucketRequestBuilder(name, limits, identity_key)


class TokenBuckets:
    """Limits how often somebody may do something. Safe to share between threads.

    A bucket is full at first, holds ``burst`` tokens and fills evenly; it is exact to the last fraction of a token.
    Methods raise :class:`~quota_engine.InvalidRequest` for a call that can never be right,
    :class:`~quota_engine.BackendUnavailable` if the store was not reached, and :class:`~quota_engine.OutcomeUnknown` if
    its answer was lost. A call whose answer is lost is sent again, and may then have been charged twice: never less.
    """

    def __init__(self, backend: Store, desk: BucketRequestBuilder, *, admit_in_outage: bool = False) -> None:
        """Bring your own backend; :meth:`open` is the usual way."""
        self._backend = backend
        self._desk = desk
        self._admit_in_outage = admit_in_outage

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
        """Open buckets on the store that ``url`` names.

        Args:
            url: as for :meth:`quota_engine.QuotaEngine.open`.
            limits: one limit; or several by name, to charge several buckets of a caller at once.
            name: which buckets these are, on this store: an id. They share one slot of a cluster.
            identity_key: 16 to 64 secret bytes that turn keys into names of buckets; the same for all processes on a
                store. Only ``memory://`` can do without.
            clock: where the time comes from; ``None`` for the store's own clock.
            admit_in_outage: let everybody through when the store is away, instead of raising.
        """
        desk = _desk(url, name, limits, identity_key)
        return cls(backend_factory(url).open_store(url, clock), desk, admit_in_outage=admit_in_outage)

    def take(self, keys: BucketKeys, cost: int = 1) -> TakeResult:
        """Take ``cost`` tokens (1 to the burst) from the bucket of each key: from all of them, or from none.

        Args:
            keys: one key, such as an address; with several limits a mapping from their names to keys. Limits that are
                left out are not charged. Keys are any strings of 1 to 1024 characters, and hashed at once.
            cost: how many tokens.
        """
        request = self._desk.take(keys, cost)
        try:
            answer = run(request, self._backend)
        except (BackendUnavailable, OutcomeUnknown):
            if self._admit_in_outage:
                return _UNCHECKED
            raise
        return self._desk.take_result(keys, answer)

    def peek(self, keys: BucketKeys) -> dict[str, BucketLevel]:
        """What is in the bucket of each key, by the name of its limit (``""`` if there is only one). Takes nothing."""
        return self._desk.levels(keys, self._backend.execute(self._desk.peek(keys)))

    def reset(self, keys: BucketKeys) -> int:
        """Make the bucket of each key full; how many were not."""
        count: int = run(self._desk.reset(keys), self._backend)
        return count

    def close(self) -> None:
        """Give back what the buckets hold. Calling it twice is harmless."""
        self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncTokenBuckets:
    """:class:`TokenBuckets` for asyncio: the same methods, awaited. See there for what they do."""

    def __init__(self, backend: AsyncStore, desk: BucketRequestBuilder, *, admit_in_outage: bool = False) -> None:
        """Bring your own backend; :meth:`open` is the usual way."""
        self._backend = backend
        self._desk = desk
        self._admit_in_outage = admit_in_outage

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
        desk = _desk(url, name, limits, identity_key)
        backend = await backend_factory(url).open_async_store(url, clock)
        return cls(backend, desk, admit_in_outage=admit_in_outage)

    async def take(self, keys: BucketKeys, cost: int = 1) -> TakeResult:
        """See :meth:`TokenBuckets.take`."""
        request = self._desk.take(keys, cost)
        try:
            answer = await run_async(request, self._backend)
        except (BackendUnavailable, OutcomeUnknown):
            if self._admit_in_outage:
                return _UNCHECKED
            raise
        return self._desk.take_result(keys, answer)

    async def peek(self, keys: BucketKeys) -> dict[str, BucketLevel]:
        """See :meth:`TokenBuckets.peek`."""
        return self._desk.levels(keys, await self._backend.execute(self._desk.peek(keys)))

    async def reset(self, keys: BucketKeys) -> int:
        """See :meth:`TokenBuckets.reset`."""
        count: int = await run_async(self._desk.reset(keys), self._backend)
        return count

    async def close(self) -> None:
        """See :meth:`TokenBuckets.close`."""
        await self._backend.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
