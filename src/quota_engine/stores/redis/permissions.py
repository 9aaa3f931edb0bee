"""Checks a server when a store is opened: its version, the permissions of its user, its durability."""

from __future__ import annotations

__all__ = ["PERMISSIONS", "VERSIONS_MIN", "check_server"]

import contextlib
from collections.abc import Sequence
from typing import Final

from redis.exceptions import NoPermissionError

from quota_engine.domain.errors import BackendUnavailable
from quota_engine.stores.redis.retrying_calls import NO_FUNCTION, Call, Durability, Fence
from quota_engine.stores.redis.script_runner import ScriptRunner, pairs
from quota_engine.stores.redis.scripts import CHECK_PERMISSIONS, FUNCTION_LIBRARY

VERSIONS_MIN: Final = {"redis": (7, 0), "valkey": (7, 2)}
"""Older servers do not know ``#!lua`` scripts, which are refused whole or run whole."""

PERMISSIONS: Final = (
    "HGET ~ a",
    "HMGET ~ a",
    "HSET ~ a b",
    "HSETNX ~ a b",
    "HDEL ~ a",
    "HGETALL ~",
    "HEXISTS ~ a",
    "HLEN ~",
    "HINCRBY ~ a 1",
    "HSCAN ~ 0",
    "ZADD ~ 0 a",
    "ZREM ~ a",
    "ZRANGE ~ 0 -1",
    "ZRANGEBYLEX ~ - +",
    "ZRANGEBYSCORE ~ 0 1",
    "ZSCORE ~ a",
    "ZCARD ~",
    "ZCOUNT ~ 0 1",
    "XADD ~ 1-0 a b",
    "XRANGE ~ - +",
    "XTRIM ~ MAXLEN 0",
    "XLEN ~",
    "PEXPIRE ~ 1",
    "ZREMRANGEBYSCORE ~ 0 1",
    "TIME",
)
"""Every command of the scripts, tried when a store is opened. A missing permission would otherwise stop a script
halfway and leave half of a command behind. ``~`` stands for a key.
"""


def check_server(runner: ScriptRunner) -> Call[None]:
    """Check that the server is new enough, allows every command, and is as durable as the policy requires.

    Raises:
        BackendUnavailable: It is not, or it did not answer.
    """
    (reply,) = yield from runner.run_plain(("HELLO",), key=runner.offices_key)
    server = pairs(reply)
    name, version = str(server["server"]), str(server["version"])
    oldest = VERSIONS_MIN.get(name, VERSIONS_MIN["redis"])
    if tuple(int(part) for part in version.split(".")[:2]) < oldest:
        raise BackendUnavailable(f"{name} {version} is too old: use {name} {'.'.join(map(str, oldest))} or newer")
    yield from _check_permissions(runner)
    if runner.policy.functions:
        runner.uses_functions = yield from _has_functions(runner)
    if runner.policy.durability is Durability.FSYNC:
        yield from _check_fsync(runner)


def _check_permissions(runner: ScriptRunner) -> Call[None]:
    policy, key = runner.policy, runner.offices_key
    wanted = PERMISSIONS if policy.fence is Fence.OFF else (*PERMISSIONS, "INFO replication")
    trial = [one.replace(" ", "\t") for one in wanted]
    commands: list[Sequence[str | int]] = [["EVAL", CHECK_PERMISSIONS.text, 1, key, *trial]]
    if policy.replicas:
        commands.append(("WAIT", 0, 1))
    try:
        missing, *_ = yield from runner.run_plain(*commands, key=key, attempts_max=1)
    except BackendUnavailable as error:
        if isinstance(error.__cause__, NoPermissionError):
            raise
        return  # for example a busy server: the first call reports it
    if missing:
        permissions = " ".join(f"+{name.lower()}" for name in missing)
        raise BackendUnavailable(
            f"the store's user lacks the permissions {permissions}: grant them with ACL SETUSER; "
            "docs/backends.md lists all that are needed"
        )


def _has_functions(runner: ScriptRunner) -> Call[bool]:
    """Return True if the server runs the functions for this user. Sends them if it does not have them yet."""
    key = runner.offices_key
    for _ in range(2):
        try:
            yield from runner.run_plain(("FCALL", FUNCTION_LIBRARY.probe, 0), key=key, attempts_max=1)
            return True
        except BackendUnavailable as error:
            if not str(error.__cause__).startswith(NO_FUNCTION):
                return False
        with contextlib.suppress(BackendUnavailable):
            yield from runner.run_plain(("FUNCTION", "LOAD", FUNCTION_LIBRARY.text), key=key, attempts_max=1)
    return False


def _check_fsync(runner: ScriptRunner) -> Call[None]:
    queries = (("CONFIG", "GET", "appendonly"), ("CONFIG", "GET", "appendfsync"))
    replies = yield from runner.run_plain(*queries, key=runner.offices_key)
    settings = {name: value for reply in replies for name, value in pairs(reply).items()}
    if settings != {"appendonly": "yes", "appendfsync": "always"}:
        found = ", ".join(f"{name} {value}" for name, value in settings.items())
        raise BackendUnavailable(
            f"durability=fsync needs a server with appendonly yes and appendfsync always, but it has {found}: "
            "change the server's configuration, or open the store with another durability"
        )
