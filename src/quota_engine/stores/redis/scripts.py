"""The Lua scripts: files of this package, joined into constant texts when the module is imported.

Servers know a script by the SHA-1 of its text, so the text must not depend on anything that changes at run time. Each
script begins with ``#!lua`` and flags: such a script is refused whole, or runs whole.

This module alone knows the order in which files are joined. Constants that Lua shares with Python are defined here from
the Python values, in front of the file that uses them.
"""

from __future__ import annotations

__all__ = [
    "BUCKET_COMMANDS",
    "BUCKET_QUERIES",
    "BUCKET_STATE",
    "CHECK_PERMISSIONS",
    "CONSUMER_GROUPS",
    "DRAW_COMMANDS",
    "DRAW_FREEING_COMMANDS",
    "DRAW_QUERIES",
    "DRAW_STATE",
    "FUNCTION_LIBRARY",
    "OFFICE_COMMANDS",
    "OFFICE_EVENTS",
    "OFFICE_FREEING_COMMANDS",
    "OFFICE_GUARDED_COMMANDS",
    "OFFICE_PARTS",
    "OFFICE_QUERIES",
    "OFFICE_STATE",
    "RECONCILE",
    "REGISTRY_COMMANDS",
    "REGISTRY_FREEING_COMMANDS",
    "REGISTRY_QUERIES",
    "REGISTRY_STATE",
    "ROOM_COMMANDS",
    "ROOM_QUERIES",
    "ROOM_STATE",
    "TAKE_OVER_BUCKETS",
    "TAKE_OVER_DRAW",
    "TAKE_OVER_REGISTRY",
    "TAKE_OVER_ROOM",
    "TOUCH",
    "FunctionLibrary",
    "Script",
]

import hashlib
from collections.abc import Mapping
from importlib import resources
from typing import Final, NamedTuple

import msgspec

from quota_engine.admission.token_bucket import BUCKETS_MAX, CAPACITY_TICKS_MAX, CHARGES_MAX, WINDOW_UNITS_MAX
from quota_engine.domain.clock_check import LEAP_MS_MIN
from quota_engine.domain.consumer_groups import GROUPS_MAX, PENDING_MAX
from quota_engine.domain.cross_office_registry import SWEEP_MAX
from quota_engine.domain.epochs import EPOCH_FIRST, EPOCH_STARTS_MAX
from quota_engine.domain.inventory import RECLAIM_MAX, SETTLE_MAX
from quota_engine.domain.model import ABANDONED_HOLDS_MAX, CANCELLATIONS_MAX, CLAIMS_MAX, FORMER_APPLICANTS_MAX, Rules
from quota_engine.domain.offers import DEMANDS_MAX, OFFERS_MAX, RESUME_MAX
from quota_engine.domain.reconcile import CLOCKS_DIFFER_MS
from quota_engine.domain.retention import PURGE_MAX
from quota_engine.domain.validation import APPLICANTS_MAX
from quota_engine.draws.ledger import OFFERED_DAYS_MAX
from quota_engine.draws.lottery import CHOICES_MAX, PREFERENCES_MAX
from quota_engine.stores.redis.codecs.office import STATE_OF_LETTER
from quota_engine.stores.redis.codecs.office_state import EVENT_NUMBERS, LETTER_OF_VERB
from quota_engine.stores.redis.codecs.office_terms import text_of_rules
from quota_engine.stores.redis.keys import (
    BUCKET_FENCE,
    DRAW_FENCE,
    LEDGER_RETENTION_MARGIN_MS,
    OFFICE_FENCE,
    REGISTRY_FENCE,
    ROOM_FENCE,
    SHORT_RETENTION_MARGIN_MS,
    FenceFields,
)
from quota_engine.stores.redis.office_reader import ENTRIES_MAX
from quota_engine.waiting_room.commands import RoomConfig

_Value = int | str | Mapping[str, str] | Mapping[str, bool] | tuple[str, ...]

_ROOM_FIELDS: Final = msgspec.structs.fields(RoomConfig)
_CONSTANTS: Final[dict[str, dict[str, _Value]]] = {
    "shared/call.lua": {"LEAP_MS_MIN": LEAP_MS_MIN},
    "office/codec.lua": {
        "STATE_OF_LETTER": {letter: str(state) for letter, state in STATE_OF_LETTER.items()},
        "LETTER_OF_VERB": {str(verb): letter for verb, letter in LETTER_OF_VERB.items()},
    },
    "office/ledger.lua": {
        "DEFAULT_RULES": text_of_rules(Rules()),
        "EVENT_NUMBERS": EVENT_NUMBERS,
        "CLAIMS_MAX": CLAIMS_MAX,
    },
    "office/party_commands.lua": {"FORMER_APPLICANTS_MAX": FORMER_APPLICANTS_MAX},
    "office/penalties.lua": {"CANCELLATIONS_MAX": CANCELLATIONS_MAX, "ABANDONED_HOLDS_MAX": ABANDONED_HOLDS_MAX},
    "office/inventory.lua": {"SETTLE_MAX": SETTLE_MAX, "RECLAIM_MAX": RECLAIM_MAX},
    "office/wait_list.lua": {"DEMANDS_MAX": DEMANDS_MAX, "OFFERS_MAX": OFFERS_MAX, "RESUME_MAX": RESUME_MAX},
    "office/apply_commands.lua": {"PURGE_MAX": PURGE_MAX, "RETENTION_MARGIN_MS": LEDGER_RETENTION_MARGIN_MS},
    "office/snapshot.lua": {"ENTRIES_MAX": ENTRIES_MAX},
    "shared/take_over.lua": {"CLOCKS_DIFFER_MS": CLOCKS_DIFFER_MS},
    "shared/fence.lua": {"LOSS_KEPT_MS": LEDGER_RETENTION_MARGIN_MS},
    "office/consumer_groups.lua": {"GROUPS_MAX": GROUPS_MAX, "PENDING_MAX": PENDING_MAX},
    "buckets/token_bucket.lua": {
        "BUCKETS_MAX": BUCKETS_MAX,
        "CHARGES_MAX": CHARGES_MAX,
        "WINDOW_UNITS_MAX": WINDOW_UNITS_MAX,
        "CAPACITY_TICKS_MAX": CAPACITY_TICKS_MAX,
    },
    "buckets/apply_commands.lua": {"RETENTION_MARGIN_MS": SHORT_RETENTION_MARGIN_MS},
    "registry/apply_commands.lua": {"SWEEP_MAX": SWEEP_MAX, "RETENTION_MARGIN_MS": LEDGER_RETENTION_MARGIN_MS},
    "waiting_room/room.lua": {
        "CONFIG_FIELDS": tuple(field.name for field in _ROOM_FIELDS),
        "TEXT_FIELDS": {field.name: True for field in _ROOM_FIELDS if field.type is str},
        "EPOCH_FIRST": EPOCH_FIRST,
        "EPOCH_STARTS_MAX": EPOCH_STARTS_MAX,
    },
    "waiting_room/apply_commands.lua": {"RETENTION_MARGIN_MS": SHORT_RETENTION_MARGIN_MS, "MINUTE_MS": 60_000},
    "draw/ledger.lua": {"EPOCH_FIRST": EPOCH_FIRST},
    "draw/apply_commands.lua": {
        "PREFERENCES_MAX": PREFERENCES_MAX,
        "OFFERED_DAYS_MAX": OFFERED_DAYS_MAX,
        "APPLICANTS_MAX": APPLICANTS_MAX,
        "CHOICES_MAX": CHOICES_MAX,
        "RETENTION_MARGIN_MS": LEDGER_RETENTION_MARGIN_MS,
    },
}
"""The constants of each file, as locals in front of its text."""


class Script(msgspec.Struct, frozen=True, eq=False):
    """A script, in the two forms in which a server can run it. Each script is one object.

    Attributes:
        text: Its text, for ``EVAL``.
        sha1: The SHA-1 by which servers know it, for ``EVALSHA``.
        function: The name of the same code in :data:`FUNCTION_LIBRARY`, for ``FCALL``; ``""`` if it is not there.
    """

    text: str
    sha1: str
    function: str = ""


class FunctionLibrary(NamedTuple):
    """Scripts that a server keeps as functions: it makes their Lua functions once, not in each call.

    Attributes:
        text: The text for ``FUNCTION LOAD``.
        version: The beginning of the text's SHA-256, which the names of library and functions contain.
        probe: A function without keys that does nothing, to find out whether the library is there.
    """

    text: str
    version: str
    probe: str


class _Function(NamedTuple):
    """Files that are the body of one Lua function, so that the functions in them are created when it is called."""

    header: str
    files: tuple[str, ...]


def _literal(value: _Value) -> str:
    """Return a Python constant as Lua source."""
    if isinstance(value, int):
        return "true" if value is True else str(value)
    if isinstance(value, str):
        return '"' + value.replace("\t", "\\t") + '"'
    if isinstance(value, tuple):
        return "{ " + ", ".join(map(_literal, value)) + " }"
    return "{ " + ", ".join(f"{name} = {_literal(one)}" for name, one in value.items()) + " }"


def _fence_constants(fields: FenceFields) -> dict[str, str]:
    names = {name: fields.prefix + name for name in ("epoch", "server", "mender")}
    names["ends_at_ms"] = f"{fields.prefix}ends" if fields.prefix else "ends_at_ms"
    traits = {"needs_repair": str(int(fields.needs_repair)), "may_be_lost": str(int(fields.may_be_lost))}
    traits |= {"time": fields.time, "steps": fields.steps}
    return {"head": str(fields.head), "known": fields.known, **names, **traits}


def _source(file: str | FenceFields) -> str:
    """Return a file's text with its constants in front. The fence's file has those of a kind of ledger."""
    constants: Mapping[str, _Value] = {}
    if isinstance(file, FenceFields):
        constants, file = {"FENCE": _fence_constants(file)}, "shared/fence.lua"
    constants = {**_CONSTANTS.get(file, {}), **constants}
    lines = [f"local {name} = {_literal(value)}" for name, value in constants.items()]
    body = (resources.files(__package__) / "lua" / file).read_text(encoding="utf-8")
    if file == "shared/fence.lua":
        return "\n".join(["local function load_fence()", *lines, body, "end"])
    return "\n".join([*lines, body])


def _lines(
    files: tuple[str | FenceFields, ...], main: tuple[str | _Function, ...], *, is_kept: bool = False
) -> list[str]:
    """Join files, and files that form the body of ``run()``; see :func:`_script`."""
    parts = [*map(_source, files)]
    if main:
        parts.append(f"local IS_KEPT = {'true' if is_kept else 'false'}")
        parts.append("local function run()")
        for part in main:
            if isinstance(part, _Function):
                parts += [part.header, *map(_source, part.files), "end"]
            else:
                parts.append(_source(part))
        if _MAIN in main:
            parts.append("return main")
        parts.append("end")
    return parts


def _script(
    flags: str, *files: str | FenceFields, main: tuple[str | _Function, ...] = (), function: str = ""
) -> Script:
    """Join files into a script.

    Args:
        flags: Flags of the shebang line; ``allow-oom`` runs when memory is out, ``no-writes`` only reads.
        files: Files under ``lua/``, in order. The fields of a kind of ledger stand for its fence.
        main: Files and functions that form the body of one function, which the script calls last. Lua finds captured
            variables of the surrounding function at once. Those of the same function it searches for, again for each
            function in each call. This order saves a seventh of the time of a lone call.
        function: Name of the same code in the function library.
    """
    call = "" if not main else "return run()()" if _MAIN in main else "return run()"
    text = "\n".join([f"#!lua flags={flags}", *_lines(files, main), call])
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), function)


def _function_library(*parts: tuple[tuple[str | _Function, ...], Mapping[str, str]]) -> FunctionLibrary:
    """Join command scripts of offices into a library.

    ``KEYS`` and ``ARGV`` are local variables there, which each call sets, so that the files are the same in both forms.
    The name of the library contains the version of its text: processes of several versions may share a server.

    Args:
        parts: Files that form the body of ``run()``, and the names of its functions with their flags.
    """
    probe = 'redis.register_function{function_name="quota_engine_probeVERSION", callback=function() return 1 end'
    lines = [f'{probe}, flags={{"no-writes"}}}}', "local KEYS, ARGV"]
    for main, functions in parts:
        lines += ["do", "local function load()", *_lines(_FENCED_OFFICE, main, is_kept=True), "return run()", "end"]
        # While a library is loaded, the server has not even the functions of strings. So the first call makes ours.
        lines += ["local main", "local function call(keys, arguments)", "KEYS, ARGV = keys, arguments"]
        lines += ["if not main then main = load() end", "return main()", "end"]
        for name, flag in functions.items():
            flags = f'"{flag}"' if flag else ""
            lines.append(f'redis.register_function{{function_name="{name}VERSION", callback=call, flags={{{flags}}}}}')
        lines.append("end")
    text = "\n".join(lines)
    version = hashlib.sha256(text.encode()).hexdigest()[:12]
    text = text.replace('VERSION", callback', f'_{version}", callback')
    return FunctionLibrary(f"#!lua name=quota_engine_{version}\n{text}", version, f"quota_engine_probe_{version}")


_CALL: Final = ("shared/text.lua", "shared/call.lua")

# --- Offices ---------------------------------------------------------------------------------------------------------

_FENCED_OFFICE: Final = (*_CALL, OFFICE_FENCE, "office/codec.lua")
_RARE_COMMANDS: Final = _Function(
    "function rare_commands(handlers, forms)",
    (
        "office/deadline_commands.lua",
        "office/hold_commands.lua",
        "office/moves.lua",
        "office/party_commands.lua",
        "office/operator_commands.lua",
    ),
)
_PENALTIES: Final = _Function("function load_penalties()", ("office/penalties.lua",))
_WAIT_LIST: Final = _Function("function load_wait_list()", ("office/wait_list.lua",))
_GUARDS: Final = _Function("function load_guards()", ("office/guards.lua",))
_PUBLICATION: Final = _Function("function load_publication()", ("office/publication.lua",))
_STATE_MACHINE: Final = (
    "office/ledger.lua",
    _GUARDS,
    "office/inventory.lua",
    _WAIT_LIST,
    _PENALTIES,
    "office/state_machine.lua",
    _RARE_COMMANDS,
    _PUBLICATION,
)
_NEW_HOLDS: Final = _Function("local function load_new_holds()", ("office/new_holds.lua",))
_MAIN: Final = _Function("local function main()", ("office/run_commands.lua",))
_APPLY_COMMANDS: Final = (*_STATE_MACHINE, _NEW_HOLDS, "office/apply_commands.lua", _MAIN)
_APPLY_GUARDED_COMMANDS: Final = (
    *_STATE_MACHINE,
    "buckets/token_bucket.lua",
    "office/guarded_command.lua",
    _NEW_HOLDS,
    "office/apply_commands.lua",
    _MAIN,
)

FUNCTION_LIBRARY: Final = _function_library(
    (_APPLY_COMMANDS, {"quota_engine_commands": "", "quota_engine_freeing_commands": "allow-oom"}),
    (_APPLY_GUARDED_COMMANDS, {"quota_engine_guarded_commands": ""}),
)
"""The command scripts of offices as functions."""

OFFICE_COMMANDS: Final = _script(
    "", *_FENCED_OFFICE, main=_APPLY_COMMANDS, function=f"quota_engine_commands_{FUNCTION_LIBRARY.version}"
)
"""Applies commands. The server refuses it whole when memory is out, on a read-only replica, or on a stale one."""

OFFICE_FREEING_COMMANDS: Final = _script(
    "allow-oom",
    *_FENCED_OFFICE,
    main=_APPLY_COMMANDS,
    function=f"quota_engine_freeing_commands_{FUNCTION_LIBRARY.version}",
)
"""The same for commands that return units: they must run when memory is out, or no memory would ever become free."""

OFFICE_GUARDED_COMMANDS: Final = _script(
    "",
    *_FENCED_OFFICE,
    main=_APPLY_GUARDED_COMMANDS,
    function=f"quota_engine_guarded_commands_{FUNCTION_LIBRARY.version}",
)
"""Applies all commands, guarded ones included. A separate script, so that a plain reserve pays nothing for admission.
"""

OFFICE_QUERIES: Final = _script(
    "no-writes",
    *_FENCED_OFFICE,
    main=("office/ledger.lua", _GUARDS, "office/inventory.lua", _WAIT_LIST, "office/queries.lua"),
)
"""Reads reservations, counters and lists."""

OFFICE_EVENTS: Final = _script("no-writes", *_CALL, OFFICE_FENCE, "office/events.lua")
"""Reads events."""

OFFICE_STATE: Final = _script("no-writes", "office/state.lua")
"""Reads everything at one moment, for audits of an office that does not hold still."""

OFFICE_PARTS: Final = _script("no-writes", "shared/text.lua", "office/snapshot.lua", "office/parts.lua")
"""Reads everything in parts, for audits."""

CONSUMER_GROUPS: Final = _script("allow-oom", *_CALL, OFFICE_FENCE, "office/consumer_groups.lua")
"""Reads, acknowledges and trims events. Runs when memory is out, because trimming frees memory."""

RECONCILE: Final = _script("allow-oom", *_CALL, OFFICE_FENCE, "office/snapshot.lua", "office/reconcile.lua")
"""Repairs a ledger after a failover. Runs when memory is out: a closed office could not return units."""

CHECK_PERMISSIONS: Final = _script("no-writes", "check_permissions.lua")
"""Reports which permissions are missing, when a store is opened."""

TOUCH: Final = _script("allow-oom", "shared/touch.lua")
"""Writes into the head of any ledger, so that WAIT waits. Runs when memory is out, as questions do."""

# --- Waiting rooms ---------------------------------------------------------------------------------------------------

_FENCED_ROOM: Final = (*_CALL, ROOM_FENCE)

ROOM_COMMANDS: Final = _script("", *_FENCED_ROOM, "waiting_room/room.lua", "waiting_room/apply_commands.lua")
"""Applies commands to a waiting room."""
ROOM_QUERIES: Final = _script("no-writes", *_FENCED_ROOM, "waiting_room/room.lua", "waiting_room/queries.lua")
"""Reads a waiting room."""
ROOM_STATE: Final = _script("no-writes", "shared/hash_state.lua")
"""Reads everything of a waiting room, for comparisons. Too much for a room with millions of tickets."""
TAKE_OVER_ROOM: Final = _script("allow-oom", *_FENCED_ROOM, "shared/take_over.lua")
"""Opens a waiting room after a failover."""

# --- Draws -----------------------------------------------------------------------------------------------------------

_FENCED_DRAW: Final = (*_CALL, DRAW_FENCE)
_APPLY_DRAW_COMMANDS: Final = (*_FENCED_DRAW, "draw/ledger.lua", "draw/apply_commands.lua")

DRAW_COMMANDS: Final = _script("", *_APPLY_DRAW_COMMANDS)
"""Applies commands to a draw."""
DRAW_FREEING_COMMANDS: Final = _script("allow-oom", *_APPLY_DRAW_COMMANDS)
"""The same for withdrawals, which must run when memory is out."""
DRAW_QUERIES: Final = _script("no-writes", *_FENCED_DRAW, "draw/ledger.lua", "draw/queries.lua")
"""Reads a draw."""
DRAW_STATE: Final = ROOM_STATE
"""Reads everything of a draw."""
TAKE_OVER_DRAW: Final = _script("allow-oom", *_FENCED_DRAW, "shared/take_over.lua")
"""Opens a draw after a failover."""

# --- Token buckets ---------------------------------------------------------------------------------------------------

_FENCED_BUCKETS: Final = (*_CALL, BUCKET_FENCE)
_APPLY_BUCKET_COMMANDS: Final = (*_FENCED_BUCKETS, "buckets/token_bucket.lua", "buckets/apply_commands.lua")

BUCKET_COMMANDS: Final = _script("", *_APPLY_BUCKET_COMMANDS)
"""Takes tokens and resets buckets, in a ledger that has only buckets."""
BUCKET_QUERIES: Final = _script("no-writes", *_APPLY_BUCKET_COMMANDS)
"""Reads the levels of buckets."""
BUCKET_STATE: Final = _script("no-writes", "buckets/state.lua")
"""Reads everything of a ledger of buckets."""
TAKE_OVER_BUCKETS: Final = _script("allow-oom", *_FENCED_BUCKETS, "shared/take_over.lua")
"""Opens a ledger of buckets after a failover."""

# --- The registry that spans offices ---------------------------------------------------------------------------------

_FENCED_REGISTRY: Final = (*_CALL, REGISTRY_FENCE)
_APPLY_REGISTRY_COMMANDS: Final = (*_FENCED_REGISTRY, "registry/ledger.lua", "registry/apply_commands.lua")

REGISTRY_COMMANDS: Final = _script("", *_APPLY_REGISTRY_COMMANDS)
"""Applies commands to a shard."""
REGISTRY_FREEING_COMMANDS: Final = _script("allow-oom", *_APPLY_REGISTRY_COMMANDS)
"""The same for commands that delete entries, which must run when memory is out."""
REGISTRY_QUERIES: Final = _script("no-writes", *_FENCED_REGISTRY, "registry/ledger.lua", "registry/queries.lua")
"""Reads a shard."""
REGISTRY_STATE: Final = _script("no-writes", "registry/state.lua")
"""Reads everything of a shard."""
TAKE_OVER_REGISTRY: Final = _script("allow-oom", *_FENCED_REGISTRY, "shared/take_over.lua")
"""Opens a shard after a failover."""
