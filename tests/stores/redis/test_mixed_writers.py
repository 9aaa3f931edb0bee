"""Real servers whose functions know an office, while all other kinds of writers change it.

The writers are functions of two versions, guarded ones, and scripts. In between, an older copy of the keys is restored,
and functions are loaded again. A server in this process without functions gets the same calls, and reads everything in
each of them. Replies and stored data must be equal.
"""

from __future__ import annotations

from random import Random
from typing import Any, Final

import pytest

from quota_engine.conformance.world import OPENS_AT_MS
from quota_engine.fuzz.lua_server import LuaServer
from quota_engine.stores.redis.scripts import (
    FUNCTION_LIBRARY,
    OFFICE_COMMANDS,
    OFFICE_FREEING_COMMANDS,
    OFFICE_GUARDED_COMMANDS,
    Script,
)
from tests.stores.redis.test_new_holds import DAYS, HEAD, KEYS, batches, opening, stored
from tests.support.effort import seeds
from tests.support.servers import Server
from tests.support.stored_offices import comparable_keys

OTHER_VERSION: Final = "0" * len(FUNCTION_LIBRARY.version)
LIBRARIES: Final = (
    FUNCTION_LIBRARY.text,
    FUNCTION_LIBRARY.text.replace(FUNCTION_LIBRARY.version, OTHER_VERSION),
)
SCRIPTS: Final = (OFFICE_COMMANDS, OFFICE_GUARDED_COMMANDS)
FUNCTIONS: Final = tuple(
    script.function.replace(FUNCTION_LIBRARY.version, version)
    for script in (*SCRIPTS, OFFICE_FREEING_COMMANDS)
    for version in (FUNCTION_LIBRARY.version, OTHER_VERSION)
)


def load(client: Any) -> None:
    """Load both versions of the library."""
    for text in LIBRARIES:
        client.function_load(text, replace=True)


def stored_on(client: Any) -> dict[str, Any]:
    """Return the hashes and the events of a real server in a form in which equal offices are equal."""
    found: dict[str, Any] = {}
    for key in KEYS:
        kind = client.type(key)
        if kind == "hash":
            found[key] = client.hgetall(key)
        elif kind == "stream":
            found[key] = [event["e"] for _, event in client.xrange(key)]
        elif kind == "zset":
            found[key] = dict(client.zrange(key, 0, -1, withscores=True))
    return comparable_keys(found, HEAD, DAYS)


def stored_here(server: LuaServer) -> dict[str, Any]:
    """Return what :func:`stored` returns, with sorted sets and events as :func:`stored_on` has them."""
    found = stored(server)
    for key, value in found.items():
        if "scores" in value:
            found[key] = value["scores"]
        elif "entries" in value:
            found[key] = [fields[1] for _, fields in value["entries"]]
    return found


class Mixture:
    """A real server and one in this process, which get the same calls."""

    def __init__(self, server: Server, random: Random) -> None:
        self.client: Any = server.client()
        self.raw: Any = server.client(decode_responses=False)
        self.general, self.random = LuaServer(functions=False), random
        self.copy: tuple[dict[str, bytes | None], Any] | None = None
        self.usual = random.choice(FUNCTIONS)
        self.others_percent = random.choice((3, 10, 40))
        server.ask("FLUSHALL")
        load(self.client)

    def run(self, now_ms: int, lines: list[str]) -> None:
        """Run a call on both, and compare the replies."""
        random, words = self.random, [str(now_ms), *lines]
        is_other = random.randrange(100) < self.others_percent
        if is_other and random.randrange(2):
            reply = self.client.eval(random.choice(SCRIPTS).text, len(KEYS), *KEYS, *words)
        else:
            reply = self.client.fcall(random.choice(FUNCTIONS) if is_other else self.usual, len(KEYS), *KEYS, *words)
        assert reply == self.general.run(Script(OFFICE_COMMANDS.text, OFFICE_COMMANDS.sha1), KEYS, words), lines

    def disturb(self) -> None:
        """Sometimes copy the keys, restore the last copy, or load the functions again."""
        step = self.random.randrange(60)
        if step == 0:
            self.copy = {key: self.raw.dump(key) for key in KEYS}, self.general.save()
        elif step == 1 and self.copy:
            self.client.flushall()
            for key, dumped in self.copy[0].items():
                if dumped is not None:
                    self.raw.restore(key, 0, dumped)
            self.general.restore(self.copy[1])
        elif step == 2:
            self.client.function_flush()
            load(self.client)
        elif step == 3:
            self.raw.function_restore(self.raw.function_dump(), "FLUSH")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["valkey_server", "redis_server"])
def test_no_writer_is_missed(name: str, request: pytest.FixtureRequest) -> None:
    """Functions believe what they know only until anything else has written."""
    server: Server = request.getfixturevalue(name)
    for seed in seeds(12, 60):
        random, now_ms = Random(2000 + seed), OPENS_AT_MS
        mixture = Mixture(server, random)
        for lines in batches(random, list(opening(random)), (1, 1, 2, 5)):
            now_ms += random.choice((0, 0, 1, 7, 40, -3))
            mixture.run(now_ms, lines)
            if random.randrange(10) == 0:
                assert stored_on(mixture.client) == stored_here(mixture.general), (seed, lines)
            mixture.disturb()
        assert stored_on(mixture.client) == stored_here(mixture.general), seed
    server.ask("FUNCTION", "FLUSH")
