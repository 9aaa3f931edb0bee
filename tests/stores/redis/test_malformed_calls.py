"""Lines that no client of ours sends: refused at once, and whole."""

from __future__ import annotations

import pytest

from quota_engine.conformance.world import published
from quota_engine.fuzz.keyspace import Refused
from quota_engine.fuzz.lua_server import LuaServer
from quota_engine.stores.redis.codecs.office import encode
from quota_engine.stores.redis.keys import keys_of
from quota_engine.stores.redis.scripts import OFFICE_COMMANDS

GOOD = [encode(command) for command in published()]
DIGITS = "12345678"

LINES = [
    # A pattern that bounds the length of numbers would try millions of ways to match these.
    "\t".join(["set_rules", *[DIGITS] * 10, "x", "seed!"]),
    "\t".join(["move_in", "id", DIGITS, "ani", DIGITS, DIGITS, DIGITS, "a", "b", "c", "d", "e", "!"]),
    "\t".join(["reserve_until", DIGITS, "id", DIGITS, "ani", "0", DIGITS, "a", "b", "c", "d", "e", "!"]),
    # A number that is too long to be one.
    "\t".join(["expire", "7", "1" * 16]),
    "\t".join(["reserve", "id", "1" * 16, "ani", "0", "0", "a", "b", "c", "d", "e", "online"]),
    "\t".join(["reserve", "id", "7", "ani", "0", "1" * 16, "a", "b", "c", "d", "e", "online"]),
    "close_day\t",
    "close_day\t-1",
    "close_day\t1.5",
    "close_day\tnan",
    "nothing\t1",
    "",
]


@pytest.mark.parametrize("line", LINES)
def test_ill_formed_lines_are_refused_whole(line: str) -> None:
    """Nothing of the call is done, and it takes no longer than a good one would."""
    store = LuaServer()
    with pytest.raises(Refused, match=f"ILLFORMED command {len(GOOD) + 1} "):
        store.run(OFFICE_COMMANDS, keys_of("", "office"), ["1000", *GOOD, line])
    assert not store.keys()
