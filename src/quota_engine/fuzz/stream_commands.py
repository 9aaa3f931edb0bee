"""Streams of a simulated server."""

from __future__ import annotations

__all__ = ["Stream", "StreamCommands"]

from bisect import bisect_left
from typing import Any

from quota_engine.fuzz.keyspace import Keyspace, Refused


class Stream:
    """Entries by number, oldest first. The fields of an entry never change."""

    def __init__(self) -> None:
        self.last_number = 0
        self.entries: list[tuple[int, list[str]]] = []

    def copy(self) -> Stream:
        other = Stream()
        other.last_number, other.entries = self.last_number, list(self.entries)
        return other


class StreamCommands(Keyspace):
    """Commands of streams."""

    def _do_xadd(self, key: str, entry_id: str, *fields: str) -> str:
        value = self._value(key, Stream)
        number, _, sequence = entry_id.partition("-")  # a number alone stands for number-0
        if sequence not in ("", "0") or int(number) <= value.last_number:
            raise Refused(f"XADD of {entry_id} after {value.last_number}-0")
        value.last_number = int(number)
        value.entries.append((value.last_number, list(fields)))
        self._values[key] = value
        return f"{number}-0"

    def _do_xrange(self, key: str, first: str, last: str, *count: str) -> list[Any]:
        entries = self._value(key, Stream).entries
        if first != "-":
            after = self._number(first.removeprefix("(")) + first.startswith("(")
            entries = entries[bisect_left(entries, (after, [])) :]
        if last != "+":
            entries = entries[: bisect_left(entries, (self._number(last) + 1, []))]
        if count and count[0] != "COUNT":
            raise Refused(count[0])
        return [[f"{number}-0", fields] for number, fields in entries[: int(count[1]) if count else None]]

    def _do_xtrim(self, key: str, word: str, first: str) -> int:
        if word != "MINID":
            raise Refused(word)
        stream = self._value(key, Stream)
        gone = bisect_left(stream.entries, (self._number(first), []))
        del stream.entries[:gone]
        return gone

    def _do_xlen(self, key: str) -> int:
        return len(self._value(key, Stream).entries)

    def _number(self, entry_id: str) -> int:
        number, _, sequence = entry_id.partition("-")
        if sequence != "0":
            raise Refused(f"an entry's id {entry_id}")
        return int(number)
