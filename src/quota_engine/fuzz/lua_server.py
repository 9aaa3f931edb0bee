"""A server without a process: Lua in this process, and only the commands that the scripts use.

A seed replays in milliseconds. The server is strict where a real one is lenient or silent. Errors are: an unknown
command, an undeclared key, a write by a read-only script, a global variable, and an argument that is neither a string
nor a number.
"""

from __future__ import annotations

__all__ = ["HalfDone", "LuaServer"]

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Final

from lupa import lua51  # type: ignore[import-untyped]

try:
    from lupa import luajit21
except ImportError:  # not on all platforms
    luajit21 = lua51

from quota_engine.fuzz.hash_commands import HashCommands
from quota_engine.fuzz.keyspace import Refused
from quota_engine.fuzz.sorted_set_commands import SortedSet, SortedSetCommands
from quota_engine.fuzz.stream_commands import Stream, StreamCommands
from quota_engine.stores.redis.scripts import FUNCTION_LIBRARY, Script

_SPREAD_MAX: Final = 4000
"""The most values that a function takes or returns at once here; ``unpack`` takes about 8,000."""
_IS_ERROR: Final = 1
"""The first of two results of a script that ended with an error reply. Two zeros are in front of an array."""
_WRITES: Final = frozenset({"HSET", "HSETNX", "HDEL", "HINCRBY", "ZADD", "ZREM", "XADD", "XTRIM", "UNLINK", "PEXPIRE"})


class HalfDone(Exception):
    """A script ended with an error after its first write. A server would keep those writes, and make no others."""


def _copied(values: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of keys and values that shares their texts only."""
    return {key: dict(value) if type(value) is dict else value.copy() for key, value in values.items()}


class LuaServer(HashCommands, SortedSetCommands, StreamCommands):
    """Keys and their values, and the scripts that may touch them.

    Attributes:
        calls: number of server commands that scripts have called, by the name of the command.
    """

    def __init__(self, scan_max: int = 64, *, functions: bool = True, is_fast: bool = False) -> None:
        """
        Args:
            scan_max: the most fields that ``HSCAN`` returns, regardless of COUNT.
            functions: run scripts as functions, which outlive a call, where the library has them.
            is_fast: use the interpreter of LuaJIT, which has the language of Lua 5.1, the server's. Its compiler is
                off: the calls of commands interrupt what it could compile.
        """
        super().__init__(scan_max)
        self.calls: dict[str, int] = defaultdict(int)
        self._may_write = False
        self._writes = 0
        module = luajit21 if is_fast else lua51
        self._type_of, self._error = module.lua_type, module.LuaError
        self._lua = module.LuaRuntime(unpack_returned_tuples=True, register_eval=False)
        self._lua.execute("if jit then jit.off() end")
        self._spread = self._lua.execute("return function(array) return 0, 0, unpack(array) end")
        self._key_tables: dict[tuple[str, ...], tuple[frozenset[str], Any]] = {}
        self._chunks: dict[str, Any] = {}
        self._functions: dict[str, Any] = {}
        self._has_functions = functions
        self._commands: dict[str, Callable[..., Any]] = {
            name.removeprefix("_do_").upper(): getattr(self, name) for name in dir(self) if name.startswith("_do_")
        }
        # Arrays cross as several values: a table that Python makes or reads costs more than the command.
        # On a server, reading or writing an undefined global variable is an error.
        self._make = self._lua.execute(
            """
            local call, sha1hex, spread_max = ...
            local function collect(first, ...)
              if first == true then return { ... } end
              return first
            end
            local redis = { sha1hex = sha1hex }
            function redis.call(...) return collect(call(...)) end
            function redis.error_reply(text) return { err = text } end
            -- A script may end with an error reply. Its table would lose its text on the way to Python.
            local function raise(problem, level)
              if type(problem) == "table" then error(problem.err, 0) end
              error(problem, (level or 1) + 1)
            end
            local function spread(reply)
              if type(reply) ~= "table" then return reply end
              if reply.err ~= nil then return 1, reply.err end
              if #reply > spread_max then return reply end
              return 0, 0, unpack(reply)
            end
            local function spreading(callback)
              return function(keys, arguments, ...) return spread(callback(keys, arguments or { ... })) end
            end
            return function(text, name, register)
              local chunk, problem = loadstring(text, name)
              if not chunk then error(problem) end
              local globals = { redis = redis, KEYS = false, ARGV = false, error = raise }
              if register then
                redis.register_function = function(it) register(it.function_name, spreading(it.callback)) end
              end
              for _, known in ipairs({ "string", "table", "math", "ipairs", "pairs", "tonumber", "tostring", "unpack",
                  "type", "next", "select", "setmetatable", "rawget" }) do
                globals[known] = _G[known]
              end
              local function refuse(_, field) error("global variable " .. tostring(field)) end
              setmetatable(globals, { __index = refuse })
              setfenv(chunk, setmetatable({}, { __index = globals, __newindex = refuse }))
              return spreading(function(keys, arguments)
                globals.KEYS, globals.ARGV = keys, arguments
                return chunk()
              end)
            end
            """,
            self._call,
            lambda text: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(),
            _SPREAD_MAX,
        )

    def run(self, script: Script, keys: Sequence[str], arguments: Sequence[str]) -> list[Any]:
        """Run a script as ``EVALSHA`` or ``FCALL`` would; returns its reply.

        Raises:
            Refused: by a command of the script, before anything was written; so are errors of Lua.
            HalfDone: the same, after something was written.
        """
        chunk: Any
        if self._has_functions and script.function:
            if not self._functions:
                library = FUNCTION_LIBRARY.text.partition("\n")[2]
                self._make("\n" + library, "@user_function", self._functions.__setitem__)(None, None)
            chunk = self._functions[script.function]
        else:
            chunk = self._chunks.get(script.sha1)
        if chunk is None:
            chunk = self._chunks[script.sha1] = self._make("\n" + script.text.partition("\n")[2], "@script", None)
        self._may_write = script.text.find("no-writes", 0, script.text.find("\n")) < 0
        self._writes = 0
        declared = self._key_tables.get(tuple(keys))
        if declared is None:
            declared = self._key_tables[tuple(keys)] = frozenset(keys), self._lua.table_from(list(keys))
        self._declared, key_table = declared
        try:
            if len(arguments) <= _SPREAD_MAX:
                reply = chunk(key_table, None, *arguments)
            else:
                reply = chunk(key_table, self._lua.table_from(list(arguments)))
            if type(reply) is tuple and reply[0] == _IS_ERROR:
                raise Refused(reply[1])
        except (self._error, Refused) as error:
            if self._writes:
                raise HalfDone(f"after {self._writes} writes: {error}") from error
            raise Refused(str(error)) from error
        if type(reply) is not tuple:
            whole: list[Any] = self._from_lua(reply)
            return whole
        return [one if type(one) is str else self._from_lua(one) for one in reply[2:]]

    def clear(self) -> None:
        """Delete all keys. The compiled scripts stay, which take longer than most tests."""
        self._values.clear()
        self._key_tables.clear()
        self.ttl_ms.clear()
        self.calls.clear()

    def save(self) -> Any:
        """Return a copy of all keys, for :meth:`restore`."""
        return _copied(self._values)

    def restore(self, saved: Any) -> None:
        """Replace all keys by a copy that :meth:`save` made. The copy can be restored again."""
        self._values = _copied(saved)

    def epochs(self, saved: Any = None) -> dict[tuple[str, str], str]:
        """Return the epochs after the first one, by key and field, of all ledgers or of a copy of :meth:`save`."""
        values = self._values if saved is None else saved
        return {
            (key, field): text
            for key, value in values.items()
            if type(value) is dict
            for field, text in value.items()
            if field.endswith("epoch") and text != "1"
        }

    def keys(self) -> frozenset[str]:
        """Return all keys."""
        return frozenset(self._values)

    def last_number(self, key: str) -> int:
        """Return the number of the last entry of a stream; 0 if it has none."""
        stream = self._values.get(key)
        return stream.last_number if isinstance(stream, Stream) else 0

    def members(self, key: str) -> list[str]:
        """Return the fields of a hash, or the members of a sorted set, sorted."""
        value = self._values.get(key, {})
        return sorted(value.scores if isinstance(value, SortedSet) else value)

    # ------------------------------------------------------------------ between Lua and the commands

    def _call(self, name: str, *arguments: Any) -> Any:
        command = self._commands.get(name)
        if command is None:
            raise Refused(f"{name} is not among the commands that are used")
        self.calls[name] += 1
        for one in arguments:
            if type(one) is not str:
                arguments = (*[one if type(one) is str else self._text(one) for one in arguments],)
                break
        if arguments and arguments[0] not in self._declared and name != "INFO":
            raise Refused(f"{name} of the key {arguments[0]}, which was not declared")
        if name in _WRITES:
            if not self._may_write:
                raise Refused(f"{name} in a script that only looks")
            self._writes += 1
        result = command(*arguments)
        if type(result) is not list:
            return False if result is None else result
        if len(result) > _SPREAD_MAX:
            return self._to_lua(result)
        for one in result:
            if type(one) is list:
                return (True, *[self._to_lua(one) for one in result])
        return (True, *result)

    def _text(self, argument: Any) -> str:
        if type(argument) is int or type(argument) is float:
            return f"{argument:.17g}"
        raise Refused(f"an argument of type {type(argument).__name__}")

    def _to_lua(self, value: Any) -> Any:
        if value is None:
            return False
        if isinstance(value, list):
            return self._lua.table_from([one if type(one) is str else self._to_lua(one) for one in value])
        return value

    def _from_lua(self, value: Any) -> Any:
        """Convert as a server does: numbers become integers, ``false`` is nil, an array ends before its first nil."""
        if self._type_of(value) == "table":
            if len(value) > _SPREAD_MAX:
                return [self._from_lua(value[at]) for at in range(1, len(value) + 1)]
            _, _, *found = self._spread(value)
            return [one if type(one) is str else self._from_lua(one) for one in found]
        if isinstance(value, bool):
            return 1 if value else None
        return int(value) if isinstance(value, float) else value
