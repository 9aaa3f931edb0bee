"""The scripts: Lua files of the package, put together into two constant texts."""

from __future__ import annotations

__all__ = ["COMMANDS", "READS", "Script"]

import hashlib
from importlib import resources
from typing import Final, NamedTuple

from quota_engine.adapters.redis.codec import text_of_rules
from quota_engine.domain.model import Rules

_SHARED: Final = ("1_codec.lua", "2_ledger.lua", "3_units.lua")


class Script(NamedTuple):
    """A script and the name that servers know it by."""

    text: str
    sha1: str


def _script(flags: str, *files: str) -> Script:
    folder = resources.files(__package__) / "lua"
    # The rules of an office that nobody has given any: from the one place where they stand.
    defaults = text_of_rules(Rules()).replace("\t", "\\t")
    parts = [f"#!lua flags={flags}", f'local DEFAULT_RULES = "{defaults}"']
    parts += [(folder / file).read_text(encoding="utf-8") for file in files]
    text = "\n".join(parts)
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


COMMANDS: Final = _script("", *_SHARED, "4_machine.lua", "5_commands.lua")
"""Applies commands. Refused whole when memory is out, on a read-only replica, or on a stale one."""

READS: Final = _script("no-writes", *_SHARED, "6_reads.lua")
"""Looks, and writes nothing."""
