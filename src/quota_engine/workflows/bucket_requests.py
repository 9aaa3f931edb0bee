"""Build the requests of token buckets: keys of callers become names of buckets."""

from __future__ import annotations

__all__ = ["BucketKeys", "BucketRequestBuilder", "LimitLevel", "TakeResult"]

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
from quota_engine.domain.identity_key import check_key
from quota_engine.domain.validation import check_name
from quota_engine.ports import Query
from quota_engine.workflows.generator_drivers import Apply

KEY_LENGTH_MAX: Final = 1024

BucketKeys = str | Mapping[str, str]
"""One key if there is one limit; otherwise a key for each limit to charge, by its name."""


class LimitLevel(msgspec.Struct, frozen=True, gc=False):
    """Level of one limit after a take, as the ``RateLimit`` headers need it.

    Args:
        limit: the most tokens that the bucket holds, or the units of a sliding window.
        remaining: whole tokens or units that are left.
        reset_at_ms: when all of them are there again if none is taken, in milliseconds since 1970 (UTC); 0: they are.
    """

    limit: int
    remaining: int
    reset_at_ms: int


class TakeResult(msgspec.Struct, frozen=True):
    """Result of :meth:`quota_engine.TokenBuckets.take`.

    Args:
        ok: true if the tokens were taken; otherwise none was.
        refused_by: name of the first limit that refused; ``""`` if there is one limit.
        retry_at_ms: when the bucket has enough tokens, in milliseconds since 1970, if no other caller takes them.
        unchecked: true if the store was unavailable and the call was admitted because of ``admit_in_outage``.
        levels: the level of each charged limit by its name (``""`` for a single one); empty if unchecked.
    """

    ok: bool
    refused_by: str = ""
    retry_at_ms: int = 0
    unchecked: bool = False
    levels: Mapping[str, LimitLevel] = {}


class BucketRequestBuilder:
    """Builds the requests of one :class:`quota_engine.TokenBuckets`. Holds the limits and a key, and no bucket."""

    def __init__(self, name: str, limits: Limit | Mapping[str, Limit], key: bytes) -> None:
        check_name(name, "name")
        check_key(key)
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
        # The key and the name of the limit, which each hash starts with, are hashed once.
        self._hashers = {
            limit_name: hashlib.blake2b(f"{limit_name}\n".encode(), key=key, digest_size=12, person=b"buckets")
            for limit_name in by_name
        }

    def take(self, keys: BucketKeys, cost: int) -> Apply[TakeOutcome]:
        """Return the request to take ``cost`` tokens from the bucket of each key."""
        if type(keys) is str and self._single is not None:  # the common case
            return Apply(self.address, TakeTokens((Charge(self._bucket("", keys), self._single, cost),), True))
        return Apply(self.address, TakeTokens(self._charges(keys, cost), with_levels=True))

    def take_result(self, keys: BucketKeys, answer: TakeOutcome) -> TakeResult:
        """Return the result of the outcome of :meth:`take`."""
        names = [name for name, _ in self._named(keys)]
        levels = {
            name: LimitLevel(self._limits[name].burst, level.available, level.full_at_ms)
            for name, level in zip(names, answer.levels, strict=True)
        }
        if answer.refused_by < 0:
            return TakeResult(True, levels=levels)
        return TakeResult(False, names[answer.refused_by], answer.retry_at_ms, levels=levels)

    def peek(self, keys: BucketKeys) -> Query:
        """Return the request to read the bucket of each key."""
        return Query(self.address, PeekTokens(self._charges(keys, 1)))

    def levels(self, keys: BucketKeys, answer: tuple[BucketLevel, ...]) -> dict[str, BucketLevel]:
        """Return the levels of the answer to :meth:`peek`, by the name of the limit."""
        return {name: level for (name, _), level in zip(self._named(keys), answer, strict=True)}

    def reset(self, keys: BucketKeys) -> Apply[int]:
        """Return the request to fill the bucket of each key."""
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
