"""Run the scripts without a server: Lua in this process, and only the store's commands that the scripts use. A seed
replays in milliseconds. The store is strict where a server is lenient or silent. Errors are: an unknown command, an
undeclared key, a write by a read-only script, a global variable, and an argument that is neither a string nor a number.
``HSCAN`` returns as few fields as it is configured to, so that five fields behave as thousands do on a server.
"""

from __future__ import annotations

__all__ = ["HalfDone", "LuaServer", "LuaStore", "Refused"]

import hashlib
import math
import zlib
from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from lupa import lua51  # type: ignore[import-untyped]

try:
    from lupa import luajit21
except ImportError:  # not on all platforms
    luajit21 = lua51

from quota_engine.domain.commands import Command, Publish, SetRules
from quota_engine.domain.model import Reservation
from quota_engine.domain.queries import sort_reservations
from quota_engine.ledger_kinds import kind_of
from quota_engine.ports import (
    Acknowledge,
    ApplyMany,
    Audit,
    CheckIdentityKey,
    Clock,
    CreateConsumerGroup,
    DeleteConsumerGroup,
    Describe,
    ListConsumerGroups,
    ListDay,
    ListOffices,
    Lookup,
    Query,
    ReadAbandonedHolds,
    ReadConsumerGroup,
    ReadEvents,
    ReadHoldRemainingHistogram,
    ReadWaitListPosition,
    Reconcile,
    RecordedEvent,
    StoreRequest,
    TrimEvents,
    View,
)
from quota_engine.stores.redis.codecs.office_state import event_of_text
from quota_engine.stores.redis.executor import Executor
from quota_engine.stores.redis.keys import OFFICE_KEY_NAMES, keys_of
from quota_engine.stores.redis.ledger_formats import format_of, office_script_of
from quota_engine.stores.redis.office_requests import OfficeRequests
from quota_engine.stores.redis.request_packing import words_of
from quota_engine.stores.redis.retrying_calls import Attempt, BlockingWork, Call, RetryPolicy, Router
from quota_engine.stores.redis.script_runner import ScriptRunner
from quota_engine.stores.redis.scripts import (
    CONSUMER_GROUPS,
    FUNCTION_LIBRARY,
    OFFICE_COMMANDS,
    OFFICE_EVENTS,
    OFFICE_GUARDED_COMMANDS,
    OFFICE_PARTS,
    OFFICE_QUERIES,
    OFFICE_STATE,
    RECONCILE,
    TAKE_OVER_BUCKETS,
    TAKE_OVER_DRAW,
    TAKE_OVER_REGISTRY,
    TAKE_OVER_ROOM,
    Script,
)
from quota_engine.stores.redis.sold_out_cache import SoldOutCache

T = TypeVar("T")

_SPREAD_MAX: Final = 4000
"""The most values that a function takes or returns at once here; ``unpack`` takes about 8,000."""
_IS_ERROR: Final = 1
"""The first of two results of a script that ended with an error reply. Two zeros are in front of an array."""
_REQUEST_SCRIPTS: Final = (
    CONSUMER_GROUPS,
    RECONCILE,
    OFFICE_EVENTS,
    OFFICE_PARTS,
    OFFICE_STATE,
    TAKE_OVER_BUCKETS,
    TAKE_OVER_DRAW,
    TAKE_OVER_REGISTRY,
    TAKE_OVER_ROOM,
)
_WRITES: Final = frozenset({"HSET", "HSETNX", "HDEL", "HINCRBY", "ZADD", "ZREM", "XADD", "XTRIM", "UNLINK", "PEXPIRE"})


class Refused(Exception):
    """The store does not carry out this command, as a server would not, or not as it is meant."""


class HalfDone(Exception):
    """A script ended with an error after it had written: on a server what it wrote would stay, and nothing else."""


class _SortedSet:
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

    def copy(self) -> _SortedSet:
        other = _SortedSet()
        other.scores, other.in_order = dict(self.scores), list(self.in_order)
        return other


class _Stream:
    """Entries by number, oldest first. The fields of an entry never change."""

    def __init__(self) -> None:
        self.last_number = 0
        self.entries: list[tuple[int, list[str]]] = []

    def copy(self) -> _Stream:
        other = _Stream()
        other.last_number, other.entries = self.last_number, list(self.entries)
        return other


def _copied(values: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of keys and values that shares their texts only."""
    return {key: dict(value) if type(value) is dict else value.copy() for key, value in values.items()}


class LuaServer:
    """Keys and their values, and the scripts that may touch them.

    Attributes:
        ttl_ms: what the last ``PEXPIRE`` of each key said.
        calls: how many commands scripts have given, by name.
        server: the id of its history, which a promotion changes.
    """

    def __init__(self, scan_max: int = 64, *, functions: bool = True, is_fast: bool = False) -> None:
        """
        Args:
            scan_max: the most fields that ``HSCAN`` returns, regardless of COUNT.
            functions: run scripts as functions, which outlive a call, where the library has them.
            is_fast: use the interpreter of LuaJIT, which has the language of Lua 5.1, the server's. Its compiler is
                off: the calls of commands interrupt what it could compile.
        """
        self.ttl_ms: dict[str, int] = {}
        self.calls: dict[str, int] = defaultdict(int)
        self.time_ms = 0
        self.server = "a" * 40
        self._scan_max = scan_max
        self._scan_orders: dict[str, tuple[set[str], list[tuple[int, str]]]] = {}
        self._values: dict[str, Any] = {}
        self._declared: frozenset[str] = frozenset()
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
        return stream.last_number if isinstance(stream, _Stream) else 0

    def members(self, key: str) -> list[str]:
        """Return the fields of a hash, or the members of a sorted set, sorted."""
        value = self._values.get(key, {})
        return sorted(value.scores if isinstance(value, _SortedSet) else value)

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

    def _value(self, key: str, kind: type[T]) -> T:
        """Return the value of a key, or an empty one that becomes it when something is written."""
        value = self._values.get(key)
        if value is None:
            return kind()
        if not isinstance(value, kind):
            raise Refused("WRONGTYPE")
        return value

    def _kept(self, key: str, value: Any, is_empty: bool) -> None:
        if is_empty:
            self._values.pop(key, None)
        else:
            self._values[key] = value

    # ------------------------------------------------------------------ hashes

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
        self._kept(key, value, not value)
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

    # ------------------------------------------------------------------ sorted sets

    def _set(self, key: str) -> _SortedSet:
        return self._value(key, _SortedSet)

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
        self._kept(key, value, not value.scores)
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

    # ------------------------------------------------------------------ streams and the rest

    def _do_xadd(self, key: str, entry_id: str, *fields: str) -> str:
        value = self._value(key, _Stream)
        number, _, sequence = entry_id.partition("-")  # a number alone stands for number-0
        if sequence not in ("", "0") or int(number) <= value.last_number:
            raise Refused(f"XADD of {entry_id} after {value.last_number}-0")
        value.last_number = int(number)
        value.entries.append((value.last_number, list(fields)))
        self._values[key] = value
        return f"{number}-0"

    def _do_xrange(self, key: str, first: str, last: str, *count: str) -> list[Any]:
        entries = self._value(key, _Stream).entries
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
        stream = self._value(key, _Stream)
        gone = bisect_left(stream.entries, (self._number(first), []))
        del stream.entries[:gone]
        return gone

    def _do_xlen(self, key: str) -> int:
        return len(self._value(key, _Stream).entries)

    def _number(self, entry_id: str) -> int:
        number, _, sequence = entry_id.partition("-")
        if sequence != "0":
            raise Refused(f"an entry's id {entry_id}")
        return int(number)

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
        return f"# Replication\r\nrole:master\r\nmaster_replid:{self.server}\r\nmaster_replid2:{'0' * 40}\r\n"

    def _do_time(self) -> list[str]:
        return [str(self.time_ms // 1000), str(self.time_ms % 1000 * 1000)]


class LuaStore:
    """The scripts as a backend: what a server and its client do, without either."""

    def __init__(self, clock: Clock | None, store: LuaServer | None = None, batch_max: int = 128) -> None:
        """Without a clock the scripts ask the store for its time."""
        self.store = store or LuaServer()
        self._clock = clock
        self._batch_max = batch_max
        self._offices: set[str] = set()
        self._key_fingerprint = ""
        self._places: dict[str, Any] = {}

    def apply(self, address: str, command: Any, *, ends_at_ms: float | None = None) -> Any:
        """See :meth:`quota_engine.ports.Store.send`."""
        return self._run(format_of(address).script_of(command), address, (command,))[0]

    def execute(self, request: StoreRequest[T], *, ends_at_ms: float | None = None) -> T:
        """See :meth:`quota_engine.ports.Store.perform`."""
        answer: T = self._answer(request)
        return answer

    def close(self) -> None:
        """Do nothing: this store holds no resources."""

    def _answer(self, request: StoreRequest[Any]) -> Any:
        match request:
            case Query(place, question):
                kind = format_of(place)
                (line,) = self.store.run(kind.queries, self._keys(place), [self._now(), kind.encode(question)])
                return self._answers(place).answer(question, line)
            case ApplyMany(office, commands):
                parts = [commands[at : at + self._batch_max] for at in range(0, len(commands), self._batch_max)]
                return [outcome for part in parts for outcome in self._run(self._script_of(part), office, part)]
            case Lookup(office, reservation_id):
                (line,) = self._look(office, f"lookup\t{reservation_id}")
                return self._answers(office).lookup(line)
            case ReadWaitListPosition(office, reservation_id):
                (line,) = self._look(office, f"wait_list_position\t{reservation_id}")
                return self._answers(office).wait_list_position(line)
            case ReadAbandonedHolds(office):
                return self._answers(office).answer(request, self._look(office, "abandoned_holds")[0])
            case View(office, days):
                lines = self._look(office, *(f"view\t{day}" for day in days))
                views = [self._answers(office).view(day, line) for day, line in zip(days, lines, strict=True)]
                return [one for one in views if one is not None]
            case ListDay(office, day):
                cursor = ""
                found: dict[str, Reservation] = {}
                while cursor != "0":
                    (text,) = self._look(office, f"list_day\t{day}\t{cursor or 0}")
                    cursor, *lines = text.split("\n")
                    records = [self._answers(office).lookup(line) for line in lines]
                    found |= {record.id: record for record in records if record is not None}
                return sort_reservations(found.values())
            case ReadEvents(office, after, limit):
                choices = self.store._hash(self._keys(office)[OFFICE_KEY_NAMES.index("choices")])  # noqa: SLF001
                return [
                    RecordedEvent(number, event_of_text(fields[1], self._answers(office), choices))
                    for number, fields in self.read_events(office).entries
                    if number > after
                ][:limit]
            case (
                ReadHoldRemainingHistogram()
                | TrimEvents()
                | ReadConsumerGroup()
                | Acknowledge()
                | CreateConsumerGroup()
                | DeleteConsumerGroup()
                | ListConsumerGroups()
                | Reconcile()
                | Audit()
            ):
                return self._drive(self._requests().execute(request))
            case CheckIdentityKey(fingerprint):
                self._key_fingerprint = self._key_fingerprint or fingerprint
                return self._key_fingerprint
            case ListOffices():
                return sorted(self._offices)
            case Describe(place):
                return kind_of(place).describe(self.read_ledger(place)[0])
        raise TypeError(f"no answer to a {type(request).__name__}")

    def _requests(self) -> OfficeRequests:
        """Return the requests of a store that has this one's clock."""
        cache = SoldOutCache(0)
        return OfficeRequests(Executor(ScriptRunner(self._clock, RetryPolicy(), "", Router()), cache), cache)

    def _drive(self, steps: Call[Any]) -> Any:
        """Run the script calls of a request here."""
        try:
            step = next(steps)
            while True:
                if isinstance(step, BlockingWork):
                    step.run()
                    step = steps.send([])
                    continue
                assert isinstance(step, Attempt)
                (name, *rest) = words_of(step.requests(None)[0])
                if name == "TIME":
                    step = steps.send([self.store._do_time()])  # noqa: SLF001
                    continue
                assert name == "EVALSHA"
                sha1, count, *words = rest
                script = next(one for one in _REQUEST_SCRIPTS if one.sha1 == sha1)
                step = steps.send([self.store.run(script, words[: int(count)], words[int(count) :])])
        except StopIteration as end:
            return end.value

    def _script_of(self, commands: Sequence[Command]) -> Script:
        scripts = {office_script_of(command) for command in commands}
        if len(scripts) == 1:
            return scripts.pop()
        return OFFICE_GUARDED_COMMANDS if OFFICE_GUARDED_COMMANDS in scripts else OFFICE_COMMANDS

    def _run(self, script: Script, place: str, commands: Sequence[Any]) -> list[Any]:
        if any(isinstance(command, Publish | SetRules) for command in commands):
            self._offices.add(place)
        encode = format_of(place).encode
        lines = self.store.run(script, self._keys(place), [self._now(), *map(encode, commands)])
        outcome = self._answers(place).outcome
        return [outcome(command, line) for command, line in zip(commands, lines, strict=True)]

    def _look(self, office: str, *lines: str) -> list[str]:
        return self.store.run(OFFICE_QUERIES, self._keys(office), [self._now(), *lines])

    def read_ledger(self, place: str) -> tuple[Any, int]:
        """Return a ledger as its keys have it, and the number of its last event."""
        kind = format_of(place)
        answers = self.store.run(kind.state, self._keys(place), [])
        state = [
            dict(zip(answer[::2], answer[1::2], strict=True)) if index in kind.hash_indexes else answer
            for index, answer in enumerate(answers)
        ]
        return kind.decode_ledger(place, state), int(state[0].get("number", 0)) if isinstance(state[0], dict) else 0

    def read_events(self, office: str) -> _Stream:
        """Return the stream of an office's events."""
        return self.store._value(self._keys(office)[OFFICE_KEY_NAMES.index("events")], _Stream)  # noqa: SLF001

    def _keys(self, place: str) -> tuple[str, ...]:
        return keys_of("", place, format_of(place).key_names)

    def _now(self) -> str:
        return "" if self._clock is None else str(self._clock.now_ms())

    def _answers(self, place: str) -> Any:
        answers = self._places.get(place)
        if answers is None:
            answers = self._places[place] = format_of(place).decoder(place)
        return answers
