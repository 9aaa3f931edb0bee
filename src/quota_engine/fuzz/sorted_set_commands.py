"""Sorted sets of a simulated server."""

from __future__ import annotations

__all__ = ["SortedSet", "SortedSetCommands"]

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence

from quota_engine.fuzz.keyspace import Keyspace, Refused


class SortedSet:
    """Members with their scores, and in the order of both."""

    def __init__(self) -> None:
        self.scores: dict[str, float] = {}
        self.in_order: list[tuple[float, str]] = []

    def add(self, member: str, score: float) -> int:
        if math.isnan(score):
            raise Refused("a score that is no number")
        old = self.scores.get(member)
        if old is not None:
            del self.in_order[bisect_left(self.in_order, (old, member))]
        self.scores[member] = score
        insort(self.in_order, (score, member))
        return old is None

    def remove(self, member: str) -> int:
        score = self.scores.pop(member, None)
        if score is None:
            return 0
        del self.in_order[bisect_left(self.in_order, (score, member))]
        return 1

    def copy(self) -> SortedSet:
        other = SortedSet()
        other.scores, other.in_order = dict(self.scores), list(self.in_order)
        return other


class SortedSetCommands(Keyspace):
    """Commands of sorted sets."""

    def _set(self, key: str) -> SortedSet:
        return self._value(key, SortedSet)

    def _do_zadd(self, key: str, *pairs: str) -> int:
        value = self._set(key)
        if not pairs or len(pairs) % 2:
            raise Refused("ZADD takes pairs")
        added = sum(value.add(member, float(score)) for score, member in zip(pairs[::2], pairs[1::2], strict=True))
        self._values[key] = value
        return added

    def _do_zrem(self, key: str, *members: str) -> int:
        value = self._set(key)
        gone = sum(map(value.remove, members))
        self._store(key, value, not value.scores)
        return gone

    def _do_zrange(self, key: str, first: str, last: str, *options: str) -> list[str]:
        if options not in ((), ("WITHSCORES",)) or int(first) < 0 or int(last) < -1:
            raise Refused("ZRANGE other than by ranks from the lowest")
        in_order = self._set(key).in_order[int(first) : None if last == "-1" else int(last) + 1]
        if not options:
            return [member for _, member in in_order]
        return [text for score, member in in_order for text in (member, f"{score:.17g}")]

    def _do_zscore(self, key: str, member: str) -> str | None:
        score = self._set(key).scores.get(member)
        return None if score is None else f"{score:.17g}"

    def _do_zcard(self, key: str) -> int:
        return len(self._set(key).scores)

    def _do_zcount(self, key: str, first: str, last: str) -> int:
        return len(self._do_zrangebyscore(key, first, last))

    def _do_zrangebylex(self, key: str, first: str, last: str, *limit: str) -> list[str]:
        in_order = self._set(key).in_order
        if in_order and in_order[0][0] != in_order[-1][0]:
            raise Refused("ZRANGEBYLEX of members with different scores")
        if first[:1] not in ("[", "(") or last[:1] != "(":
            raise Refused("ZRANGEBYLEX other than from one, or behind one, up to before another")
        score = in_order[0][0] if in_order else 0.0
        find = bisect_left if first[0] == "[" else bisect_right
        start, end = find(in_order, (score, first[1:])), bisect_left(in_order, (score, last[1:]))
        return self._limited([member for _, member in in_order[start:end]], limit)

    def _do_zrangebyscore(self, key: str, first: str, last: str, *limit: str) -> list[str]:
        after, above = float(first.lstrip("(")), first.startswith("(")
        return self._limited(
            [
                member
                for score, member in self._set(key).in_order
                if (score > after if above else score >= after) and score <= float(last)
            ],
            limit,
        )

    def _limited(self, members: list[str], limit: Sequence[str]) -> list[str]:
        if not limit:
            return members
        word, skipped, count = limit
        if word != "LIMIT":
            raise Refused(word)
        return members[int(skipped) :][: int(count)]
