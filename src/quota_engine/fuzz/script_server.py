"""A Redis server of the simulation: it runs the scripts with the Lua interpreter, and the few other commands."""

from __future__ import annotations

__all__ = ["SCRIPT_TEXTS", "ScriptServer"]

from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.exceptions import NoScriptError, ResponseError

from quota_engine.fuzz.keyspace import Refused
from quota_engine.fuzz.lua_server import LuaServer
from quota_engine.stores.redis import scripts
from quota_engine.stores.redis.scripts import Script

_SCRIPTS: Final = {one.sha1: one for one in vars(scripts).values() if isinstance(one, Script)}
_SHA1_OF: Final = {one.text: one.sha1 for one in _SCRIPTS.values()}
SCRIPT_TEXTS: Final = (*_SHA1_OF, scripts.FUNCTION_LIBRARY.text)
"""The long words that requests may have."""
_SHA1_OF_FUNCTION: Final = {one.function: one.sha1 for one in _SCRIPTS.values() if one.function}


class ScriptServer:
    """Answers requests one at a time.

    Attributes:
        lua: keys, values and scripts.
        counts: how many requests of each name it has answered, and how many it has refused as late.
        on_script: called after each script that ran, with the script, its keys, its arguments and its reply.
    """

    def __init__(
        self,
        lua: LuaServer,
        on_script: Callable[[Script, Sequence[str], Sequence[str], list[Any]], None] | None = None,
    ) -> None:
        self.lua = lua
        self.counts: dict[str, int] = {}
        self.on_script = on_script
        self._known: set[str] = set()
        self._has_functions = False

    def forget_scripts(self) -> None:
        """Forget all scripts and functions, as a restart or a promotion may do."""
        self._known.clear()
        self._has_functions = False

    def answer(self, words: Sequence[str], now_ms: int) -> Any:
        """Carry a request out; returns its reply, or the error that a client raises.

        Args:
            words: the request.
            now_ms: the time of the server's clock, milliseconds since 1970.
        """
        self.lua.time_ms = now_ms
        name, *texts = words
        self.counts[name] = self.counts.get(name, 0) + 1
        if name in ("EVALSHA", "EVAL", "FCALL", "FCALL_RO", "EVALSHA_RO", "EVAL_RO"):
            return self._run(name.removesuffix("_RO"), texts)
        if name == "FUNCTION":
            self._has_functions = True
            return "OK"
        if name == "TIME":
            return self.lua._do_time()  # noqa: SLF001
        if name in ("HGET", "HSETNX"):
            return getattr(self.lua, f"_do_{name.lower()}")(*texts)
        if name in ("ZREMRANGEBYSCORE", "ZADD", "PEXPIRE"):  # of the list of offices, which no script reads
            return 0
        raise AssertionError(f"the simulated server has no command {name}")

    def _run(self, name: str, texts: Sequence[str]) -> Any:
        code, count, *rest = texts
        if name == "EVALSHA" and code not in self._known:
            return NoScriptError("No matching script.")
        if name == "FCALL":
            if not self._has_functions:
                return ResponseError("Function not found")
            sha1 = _SHA1_OF_FUNCTION[code]
        else:
            sha1 = code if name == "EVALSHA" else _SHA1_OF[code]
            self._known.add(sha1)
        script, keys, arguments = _SCRIPTS[sha1], rest[: int(count)], rest[int(count) :]
        try:
            reply = self.lua.run(script, keys, arguments)
        except Refused as error:
            if str(error).startswith("LATE"):
                self.counts["late"] = self.counts.get("late", 0) + 1
            return ResponseError(str(error))
        if self.on_script is not None:
            self.on_script(script, keys, arguments, reply)
        return reply
