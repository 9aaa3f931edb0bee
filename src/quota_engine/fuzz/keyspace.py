"""Keys of a simulated server: their values, and the commands that every type has."""

from __future__ import annotations

__all__ = ["Keyspace", "Refused"]

from typing import Any, TypeVar

T = TypeVar("T")


class Refused(Exception):
    """A command is refused. A real server refuses it, too, or does something else than the scripts need."""


class Keyspace:
    """Keys and their values. Each type has a separate class for its commands.

    A method ``_do_name`` is the command ``NAME``.

    Attributes:
        ttl_ms: the duration of each key's last ``PEXPIRE``, in milliseconds.
        time_ms: the server's time, in milliseconds since 1970 (UTC).
        replication_id: the id of the server's history, which a promotion changes: 40 hexadecimal digits.
    """

    def __init__(self) -> None:
        self.ttl_ms: dict[str, int] = {}
        self.time_ms = 0
        self.replication_id = "a" * 40
        self._values: dict[str, Any] = {}
        self._declared: frozenset[str] = frozenset()

    def _value(self, key: str, kind: type[T]) -> T:
        """Return the value of a key, or an empty one that becomes it when something is written."""
        value = self._values.get(key)
        if value is None:
            return kind()
        if not isinstance(value, kind):
            raise Refused("WRONGTYPE")
        return value

    def _store(self, key: str, value: Any, is_empty: bool) -> None:
        """Store a value, or delete its key if it is empty, as a server does."""
        if is_empty:
            self._values.pop(key, None)
        else:
            self._values[key] = value

    def _do_unlink(self, *keys: str) -> int:
        undeclared = [key for key in keys if key not in self._declared]
        if undeclared:
            raise Refused(f"UNLINK of the key {undeclared[0]}, which was not declared")
        return sum(self._values.pop(key, None) is not None for key in keys)

    def _do_pexpire(self, key: str, duration_ms: str) -> int:
        if int(duration_ms) < 0:
            raise Refused("PEXPIRE to the past")
        if key not in self._values:
            return 0
        if int(duration_ms) == 0:
            del self._values[key]
            return 1
        self.ttl_ms[key] = int(duration_ms)
        return 1

    def _do_info(self, section: str) -> str:
        if section != "replication":
            raise Refused(section)
        return f"# Replication\r\nrole:master\r\nmaster_replid:{self.replication_id}\r\nmaster_replid2:{'0' * 40}\r\n"

    def _do_time(self) -> list[str]:
        return [str(self.time_ms // 1000), str(self.time_ms % 1000 * 1000)]
