"""A Redis server of the simulation: it runs the scripts with the Lua interpreter, and the few other commands."""

from __future__ import annotations

__all__ = ["ScriptServer"]

from collections.abc import Sequence
from typing import Any, Final

from redis.exceptions import NoScriptError, ResponseError

from quota_engine.stores.redis import scripts
from quota_engine.stores.redis.scripts import Script
from tests.support.lua_store import LuaServer, Refused

_SCRIPTS: Final = {one.sha1: one for one in vars(scripts).values() if isinstance(one, Script)}
_SHA1_OF: Final = {one.text: one.sha1 for one in _SCRIPTS.values()}


class ScriptServer:
    """Answers requests one at a time.

    Attributes:
        lua: keys, values and scripts.
        counts: how many requests of each name it has answered, and how many it has refused as late.
    """

    def __init__(self, lua: LuaServer) -> None:
        self.lua = lua
        self.counts: dict[str, int] = {}
        self._known: set[str] = set()

    def forget_scripts(self) -> None:
        """Forget all scripts, as a restart or a promotion does."""
        self._known.clear()

    def answer(self, words: Sequence[str | int], now_ms: int) -> Any:
        """Carry a request out; returns its reply, or the error that a client raises.

        Args:
            words: the request.
            now_ms: the time of the server's clock, milliseconds since 1970.
        """
        self.lua.time_ms = now_ms
        name, *texts = map(str, words)
        self.counts[name] = self.counts.get(name, 0) + 1
        if name in ("EVALSHA", "EVAL"):
            return self._run(name, texts)
        if name == "TIME":
            return self.lua._do_time()
        if name in ("HGET", "HSETNX"):
            return getattr(self.lua, f"_do_{name.lower()}")(*texts)
        if name in ("ZREMRANGEBYSCORE", "ZADD", "PEXPIRE"):  # of the list of offices, which no script reads
            return 0
        raise AssertionError(f"the simulated server has no command {name}")

    def _run(self, name: str, texts: Sequence[str]) -> Any:
        code, count, *rest = texts
        if name == "EVALSHA" and code not in self._known:
            return NoScriptError("No matching script.")
        sha1 = code if name == "EVALSHA" else _SHA1_OF[code]
        self._known.add(sha1)
        try:
            return self.lua.run(_SCRIPTS[sha1], rest[: int(count)], rest[int(count) :])
        except Refused as error:
            if str(error).startswith("LATE"):
                self.counts["late"] = self.counts.get("late", 0) + 1
            return ResponseError(str(error))
