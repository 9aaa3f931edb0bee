"""Scripts as functions: a server keeps them, loses them, or refuses them, and nothing of it changes an outcome."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis.exceptions import ResponseError

from quota_engine.clocks import ManualClock
from quota_engine.conformance.random_commands import random_commands
from quota_engine.conformance.world import DAY, OFFICE, ONLINE, OPENS_AT_MS, published, reserve
from quota_engine.domain.commands import SetCapacity
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.outcomes import Status
from quota_engine.fuzz.lua_server import LuaServer
from quota_engine.fuzz.lua_store import LuaStore
from quota_engine.ports import ApplyMany, Audit, Describe, Lookup
from quota_engine.stores.redis.codecs.office import encode
from quota_engine.stores.redis.factory import open_store
from quota_engine.stores.redis.keys import OFFICE_KEY_NAMES, keys_of
from quota_engine.stores.redis.scripts import (
    FUNCTION_LIBRARY,
    OFFICE_COMMANDS,
    OFFICE_FREEING_COMMANDS,
    OFFICE_GUARDED_COMMANDS,
)
from quota_engine.stores.redis.sync_store import RedisStore
from tests.stores.redis.conftest import cluster_url
from tests.stores.redis.test_outages import RIGHTS
from tests.support.server_groups import Cluster
from tests.support.servers import Server

CLOCK = ManualClock(OPENS_AT_MS)


def function_calls(server: Server) -> int:
    """Return how many functions the server has run."""
    return int(server.info("commandstats").get("cmdstat_fcall", {"calls": 0})["calls"])


def opened(url: str) -> RedisStore:
    """Return a store with a published office."""
    store = open_store(url, CLOCK)
    store.execute(ApplyMany(OFFICE, (*published(), SetCapacity(DAY, "online", 300))))
    return store


def holds(store: RedisStore, key: str) -> bool:
    """Return True if a reserve with this key succeeds."""
    return store.apply(OFFICE, reserve(key, ONLINE)).status is Status.HELD


def test_a_store_runs_commands_as_functions(valkey_server: Server) -> None:
    """The first opening sends the library, a later one finds it."""
    valkey_server.ask("FUNCTION", "FLUSH")
    valkey_server.ask("CONFIG", "RESETSTAT")
    store = opened(valkey_server.url)
    before = function_calls(valkey_server)
    assert holds(store, "a")
    assert function_calls(valkey_server) == before + 1
    (library,) = valkey_server.client().function_list()
    assert FUNCTION_LIBRARY.version in str(library)
    store.close()
    again = open_store(valkey_server.url, CLOCK)
    assert valkey_server.info("commandstats")["cmdstat_function|load"]["calls"] == 1
    again.close()


def test_lost_functions_are_sent_again(valkey_server: Server, redis_server: Server) -> None:
    """A flush, as a new server, costs the next call one more request and nothing else."""
    for server in (valkey_server, redis_server):
        store = opened(server.url)
        server.ask("FUNCTION", "FLUSH")
        assert holds(store, "a")
        before = function_calls(server)
        assert holds(store, "b")
        assert function_calls(server) == before + 1
        assert store.execute(Audit(OFFICE)) == []
        store.close()


def test_a_user_without_the_rights_for_functions_runs_scripts(binary: Path) -> None:
    """The opening finds out; the least rights are enough as before."""
    with Server(binary, users={"engine": f"on >secret ~{{quota_engine:* {RIGHTS}"}) as server:
        store = opened(server.url.replace("unix://", "unix://engine:secret@"))
        assert holds(store, "a")
        assert function_calls(server) == 0
        store.close()


def test_a_user_that_may_not_load_functions_runs_scripts_after_a_flush(binary: Path) -> None:
    """Another user has loaded them before; then they are lost, and this user cannot bring them back."""
    with Server(binary, users={"engine": f"on >secret ~{{quota_engine:* {RIGHTS} +fcall"}) as server:
        opened(server.url).close()
        store = opened(server.url.replace("unix://", "unix://engine:secret@"))
        assert function_calls(server) > 0
        server.ask("FUNCTION", "FLUSH")
        assert holds(store, "a")
        assert holds(store, "b")
        store.close()


def test_functions_can_be_turned_off(valkey_server: Server) -> None:
    """By an option of the URL; another value is refused."""
    before = function_calls(valkey_server)
    store = opened(f"{valkey_server.url}?functions=off")
    assert holds(store, "a")
    assert function_calls(valkey_server) == before
    store.close()
    with pytest.raises(InvalidRequest, match="auto or off"):
        open_store(f"{valkey_server.url}?functions=maybe", CLOCK)


def test_each_primary_of_a_cluster_gets_the_functions(valkey_cluster: Cluster) -> None:
    """The opening sends them to one; each other primary gets them with its first command."""
    store = open_store(cluster_url(valkey_cluster), CLOCK)
    for number in range(12):
        store.execute(ApplyMany(f"office-{number}", published()))
    assert sum(function_calls(member) > 0 for member in valkey_cluster.members) >= 3
    store.close()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_both_forms_have_the_same_outcomes(seed: int) -> None:
    """A function outlives a call, and a script does not: nothing of an earlier call may show, at any office."""
    clock = ManualClock(OPENS_AT_MS)
    forms = [LuaStore(clock, LuaServer(functions=functions)) for functions in (True, False)]
    walks = [[(office, *step) for step in random_commands(10 * seed + place, 250)] for place, office in enumerate("ab")]
    for office, now_ms, command in sorted((step for walk in walks for step in walk), key=lambda step: step[1]):
        clock.set_ms(now_ms)
        first, second = (form.apply(office, command) for form in forms)
        assert first == second
    for office in "ab":
        first, second = (form.execute(Describe(office)) for form in forms)
        assert first == second


def test_a_function_forgets_a_call_that_failed(valkey_server: Server) -> None:
    """Its changes are in memory when a write fails. The next call must write none of them."""
    store = opened(valkey_server.url)
    assert holds(store, "a")
    keys, client = keys_of("", OFFICE), valkey_server.client()
    events = keys[OFFICE_KEY_NAMES.index("events")]
    client.rename(events, f"{events}-kept")
    client.set(events, "not a stream")
    line = encode(reserve("b", ONLINE))
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        client.fcall(OFFICE_COMMANDS.function, len(keys), *keys, str(OPENS_AT_MS), line)
    client.rename(f"{events}-kept", events)
    assert holds(store, "c")
    assert store.execute(Lookup(OFFICE, "b")) is None
    assert store.execute(Audit(OFFICE)) == []
    store.close()


def test_functions_and_scripts_work_on_one_office(valkey_server: Server) -> None:
    """A function remembers days, but not those that a script has written since."""
    stores = [opened(valkey_server.url), open_store(f"{valkey_server.url}?functions=off", CLOCK)]
    for number in range(8):
        store = stores[number // 2 % 2]  # the second hold of a function finds its own day
        assert holds(store, f"k{number}")
        assert store.apply(OFFICE, reserve(f"again{number}", ONLINE, "k0")).resumed
        assert store.execute(Audit(OFFICE)) == []
    for store in stores:
        store.close()


def test_names_of_functions_contain_the_version() -> None:
    """Processes of two versions may share a server."""
    scripts = (OFFICE_COMMANDS, OFFICE_FREEING_COMMANDS, OFFICE_GUARDED_COMMANDS)
    assert len({script.function for script in scripts}) == 3
    for script in scripts:
        assert script.function.endswith(FUNCTION_LIBRARY.version)
        assert f'function_name="{script.function}"' in FUNCTION_LIBRARY.text
