"""Hashes of a simulated server."""

from __future__ import annotations

__all__ = ["HashCommands"]

import zlib
from bisect import bisect_left
from typing import Any

from quota_engine.fuzz.keyspace import Keyspace, Refused


class HashCommands(Keyspace):
    """Commands of hashes. ``HSCAN`` returns few fields, so that five fields behave as thousands do on a server."""

    def __init__(self, scan_max: int) -> None:
        super().__init__()
        self._scan_max = scan_max
        self._scan_orders: dict[str, tuple[set[str], list[tuple[int, str]]]] = {}

    def _do_hget(self, key: str, field: str) -> str | None:
        return self._hash(key).get(field)

    def _do_hmget(self, key: str, *fields: str) -> list[str | bool]:
        value = self._hash(key)
        return [field in value and value[field] for field in fields]  # false stands for nil in a table of Lua

    def _hash(self, key: str) -> dict[str, str]:
        if key in self._values:
            value: Any = self._values[key]
            if type(value) is dict:
                return value
        return self._value(key, dict)

    def _do_hset(self, key: str, *pairs: str) -> int:
        value = self._hash(key)
        if not pairs or len(pairs) % 2:
            raise Refused("HSET takes pairs")
        before = len(value)
        value.update(zip(pairs[::2], pairs[1::2], strict=True))
        self._values[key] = value
        return len(value) - before

    def _do_hsetnx(self, key: str, field: str, text: str) -> int:
        value = self._hash(key)
        if field in value:
            return 0
        return self._do_hset(key, field, text)

    def _do_hdel(self, key: str, *fields: str) -> int:
        value = self._hash(key)
        gone = sum(value.pop(field, None) is not None for field in fields)
        self._store(key, value, not value)
        return gone

    def _do_hgetall(self, key: str) -> list[str]:
        return [text for pair in self._hash(key).items() for text in pair]

    def _do_hkeys(self, key: str) -> list[str]:
        return list(self._hash(key))

    def _do_hexists(self, key: str, field: str) -> int:
        return int(field in self._hash(key))

    def _do_hlen(self, key: str) -> int:
        return len(self._hash(key))

    def _do_hincrby(self, key: str, field: str, by: str) -> int:
        value = self._hash(key)
        total = int(value.get(field, "0")) + int(by)
        value[field] = str(total)
        self._values[key] = value
        return total

    def _do_hscan(self, key: str, cursor: str, word: str, count: str) -> list[Any]:
        """Return fields in the order of their checksums. The cursor is the next checksum, even if fields were deleted
        meanwhile.
        """
        if word != "COUNT":
            raise Refused(f"HSCAN {word}")
        value = self._hash(key)
        fields, ordered = self._scan_orders.get(key, (None, []))
        if value.keys() != fields:  # most scans go over a hash that has not changed since the last step
            ordered = sorted((1 + zlib.crc32(field.encode()), field) for field in value)
            self._scan_orders[key] = set(value), ordered
        start = bisect_left(ordered, (int(cursor), ""))
        end = start + min(int(count), self._scan_max)
        texts = [text for _, field in ordered[start:end] for text in (field, value[field])]
        return [str(ordered[end][0]) if end < len(ordered) else "0", texts]
