"""Takes calls about token buckets: keys of callers become names of buckets, and answers are told by the limits."""

from __future__ import annotations

__all__ = ["BucketKeys", "BucketRequestBuilder", "TakeResult"]

import hashlib
from collections.abc import Mapping
from typing import Final

import msgspec

from quota_engine.admission.token_bucket import (
    CHARGES_MAX,
    BucketLevel,
    Charge,
    Limit,
    PeekTokens,
    ResetTokens,
    TakeOutcome,
    TakeTokens,
)
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.validation import check_name
from quota_engine.ports import Query
from quota_engine.workflows.generator_drivers import Apply

KEY_LENGTH_MAX: Final = 1024

BucketKeys = str | Mapping[str, str]
"""Whose buckets: one key, if there is one limit; or a key for each limit that is to be charged, by its name."""


class TakeResult(msgspec.Struct, frozen=True, gc=False):
    """What came of taking. If it is not ``ok`` nothing was taken, ``refused_by`` is the name of the first limit that it
    was too much for (``""`` if there is only one), and from ``retry_at_ms`` on it fits, unless somebody else is faster.
    ``unchecked`` says that the store was away and the caller was let through, because the buckets were opened so.
    """

    ok: bool
    refused_by: str = ""
    retry_at_ms: int = 0
    unchecked: bool = False


_OK: Final = TakeResult(True)


class BucketRequestBuilder:
    """Builds the requests of one :class:`quota_engine.TokenBuckets`. It holds the limits and a key, and no bucket."""

    def __init__(self, name: str, limits: Limit | Mapping[str, Limit], key: bytes) -> None:
        check_name(name, "name")
        if not isinstance(key, bytes) or not 16 <= len(key) <= 64:
            raise InvalidRequest("identity_key", "not a usable key", "16 to 64 secret bytes")
        self.address = f"~buckets.{name}"
        self._single = limits if isinstance(limits, Limit) else None
        by_name = {"": limits} if isinstance(limits, Limit) else dict(limits) if isinstance(limits, Mapping) else {}
        if not 1 <= len(by_name) <= CHARGES_MAX or not all(isinstance(limit, Limit) for limit in by_name.values()):
            raise InvalidRequest("limits", "not limits", f"a limit, or 1 to {CHARGES_MAX} of them by name")
        for limit_name in by_name:
            if self._single is None:
                check_name(limit_name, "limits: name")
        self._limits = by_name
        self._names = tuple(by_name)
        # What each hash begins with is taken in once: the key, and the name of the limit.
        self._hashers = {
            limit_name: hashlib.blake2b(f"{limit_name}\n".encode(), key=key, digest_size=12, person=b"buckets")
            for limit_name in by_name
        }

    def take(self, keys: BucketKeys, cost: int) -> Apply[TakeOutcome]:
        """The request to take ``cost`` tokens from the bucket of each key."""
        if type(keys) is str and self._single is not None:  # the usual case, without the detours
            return Apply(self.address, TakeTokens((Charge(self._bucket("", keys), self._single, cost),)))
        return Apply(self.address, TakeTokens(self._charges(keys, cost)))

    def take_result(self, keys: BucketKeys, answer: TakeOutcome) -> TakeResult:
        """What is told of the answer to :meth:`take`."""
        if answer.refused_by < 0:
            return _OK
        return TakeResult(False, self._named(keys)[answer.refused_by][0], answer.retry_at_ms)

    def peek(self, keys: BucketKeys) -> Query:
        """The request to look at the bucket of each key."""
        return Query(self.address, PeekTokens(self._charges(keys, 1)))

    def levels(self, keys: BucketKeys, answer: tuple[BucketLevel, ...]) -> dict[str, BucketLevel]:
        """What is told of the answer to :meth:`peek`."""
        return {name: level for (name, _), level in zip(self._named(keys), answer, strict=True)}

    def reset(self, keys: BucketKeys) -> Apply[int]:
        """The request to make the bucket of each key full."""
        return Apply(self.address, ResetTokens(tuple(self._bucket(name, key) for name, key in self._named(keys))))

    def _charges(self, keys: BucketKeys, cost: int) -> tuple[Charge, ...]:
        return tuple(Charge(self._bucket(name, key), self._limits[name], cost) for name, key in self._named(keys))

    def _named(self, keys: BucketKeys) -> list[tuple[str, str]]:
        if isinstance(keys, str):
            if self._single is None:
                raise InvalidRequest("keys", "one key for several limits", "a key for each of them, by its name")
            return [("", keys)]
        if (
            self._single is not None
            or not isinstance(keys, Mapping)
            or not keys
            or not keys.keys() <= self._limits.keys()
        ):
            expected = "a key" if self._single is not None else f"keys by the names {', '.join(self._names)}"
            raise InvalidRequest("keys", "not keys of these limits", expected)
        return [(name, keys[name]) for name in self._names if name in keys]

    def _bucket(self, name: str, key: str) -> str:
        if type(key) is not str or not 0 < len(key) <= KEY_LENGTH_MAX:
            raise InvalidRequest("keys", "not a usable key", f"a string of 1 to {KEY_LENGTH_MAX} characters")
        hasher = self._hashers[name].copy()
        hasher.update(key.encode("utf-8", "surrogatepass"))
        return hasher.hexdigest()
