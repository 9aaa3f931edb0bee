"""The scripts: Lua files of the package, put together into constant texts."""

from __future__ import annotations

__all__ = [
    "BUCKETS",
    "BUCKET_READS",
    "BUCKET_STATE",
    "COMMANDS",
    "CONSUMERS",
    "DRAW_COMMANDS",
    "DRAW_FREEING_COMMANDS",
    "DRAW_READS",
    "DRAW_STATE",
    "FREEING_COMMANDS",
    "GUARDED_COMMANDS",
    "READS",
    "RECONCILE",
    "STATE",
    "TRIAL",
    "Script",
    "script_of",
]

import hashlib
from importlib import resources
from typing import Any, Final, NamedTuple

from quota_engine.admission.guarded_reserve import GuardedReserve
from quota_engine.admission.token_bucket import BUCKETS_MAX, CHARGES_MAX
from quota_engine.domain.commands import Cancel, Expire, MoveOut, Release, UndoMove
from quota_engine.domain.model import Rules
from quota_engine.stores.redis.codecs.office import text_of_rules

_SHARED: Final = ("1_codec.lua", "2_ledger.lua", "3_units.lua")
_MACHINE: Final = ("4_machine.lua", "4_operators.lua")
_FUNCTIONS: Final = {"4_operators.lua": "operators"}
"""Files that are the body of a function, by its name: what it makes is made only when it is called."""
_FIRST_INSIDE: Final = "2_ledger.lua"
"""From this file on all is the body of a function. What a function takes from the one around it, it finds at once; what
it takes from where it stands, Lua searches for among all that others have taken, and that for each function in each
call: so it saves a seventh of a lone call's time.
"""


class Script(NamedTuple):
    """A script and the name that servers know it by."""

    text: str
    sha1: str


def _script(flags: str, *files: str) -> Script:
    folder = resources.files(__package__) / "lua"
    # The rules of an office that nobody has given any: from the one place where they stand.
    defaults = text_of_rules(Rules()).replace("\t", "\\t")
    parts = [f"#!lua flags={flags}", f'local DEFAULT_RULES = "{defaults}"']
    if "8_buckets.lua" in files:
        parts.append(f"local KEYS_MAX, CHARGES_MAX = {BUCKETS_MAX}, {CHARGES_MAX}")
    for file in files:
        body = (folder / file).read_text(encoding="utf-8")
        if file == _FIRST_INSIDE:
            parts.append("local function run()")
        parts.append(f"function {_FUNCTIONS[file]}()\n{body}end" if file in _FUNCTIONS else body)
    if _FIRST_INSIDE in files:
        parts.append("end\nreturn run()")
    text = "\n".join(parts)
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


COMMANDS: Final = _script("", "0_fence.lua", *_SHARED, *_MACHINE, "5_commands.lua")
"""Applies commands. Refused whole when memory is out, on a read-only replica, or on a stale one."""

FREEING_COMMANDS: Final = _script("allow-oom", "0_fence.lua", *_SHARED, *_MACHINE, "5_commands.lua")
"""The same for commands that give back: they must still run when memory is out, or it would stay so."""

GUARDED_COMMANDS: Final = _script(
    "", "0_fence.lua", *_SHARED, *_MACHINE, "8_buckets.lua", "9_guarded.lua", "5_commands.lua"
)
"""Applies commands, guarded reserves too. A script of its own: a reserve without guards pays nothing for them."""

READS: Final = _script("no-writes", *_SHARED, "6_reads.lua")
"""Looks, and writes nothing."""

STATE: Final = _script("no-writes", "7_state.lua")
"""Tells everything, for audits."""

_DRAW_FILES: Final = ("1_codec.lua", "draw_1_ledger.lua", "draw_2_commands.lua")
DRAW_COMMANDS: Final = _script("", *_DRAW_FILES)
"""Applies commands to a draw."""
DRAW_FREEING_COMMANDS: Final = _script("allow-oom", *_DRAW_FILES)
"""The same when memory is out, for those that take back."""
DRAW_READS: Final = _script("no-writes", "1_codec.lua", "draw_1_ledger.lua", "draw_3_reads.lua")
"""Looks at a draw."""
DRAW_STATE: Final = _script("no-writes", "draw_4_state.lua")
"""Tells everything of a draw."""

CONSUMERS: Final = _script("allow-oom", "1_codec.lua", "9_consumers.lua")
"""Groups of consumers, and trimming. Runs when memory is out, too: what has been read can be trimmed, which frees some.
"""

RECONCILE: Final = _script("allow-oom", "0_fence.lua", "10_reconcile.lua")
"""Puts a ledger right after a failover. Runs when memory is out, too, or an office that is closed could give nothing
back.
"""

TRIAL: Final = _script("no-writes", "11_trial.lua")
"""Tells which rights are missing, when a store is opened."""


BUCKETS: Final = _script("", "1_codec.lua", "8_buckets.lua", "8_take.lua")
"""Takes from the buckets of a place that has nothing else."""

BUCKET_READS: Final = _script("no-writes", "1_codec.lua", "8_buckets.lua", "8_take.lua")
"""Looks at them, and writes nothing."""

BUCKET_STATE: Final = _script("no-writes", "8_bucket_state.lua")
"""Tells everything about them."""

_SCRIPTS: Final[dict[type, Script]] = {
    Release: FREEING_COMMANDS,
    Cancel: FREEING_COMMANDS,
    MoveOut: FREEING_COMMANDS,
    UndoMove: FREEING_COMMANDS,
    Expire: FREEING_COMMANDS,
    GuardedReserve: GUARDED_COMMANDS,
}


def script_of(command: Any) -> Script:
    """The script that an office's command goes to."""
    return _SCRIPTS.get(type(command), COMMANDS)
