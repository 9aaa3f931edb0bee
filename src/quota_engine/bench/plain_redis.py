"""Yardsticks on Redis and Valkey: two plain scripts, and the bare ``DECR``. They use nothing of this library.

``plain_reserve.lua`` and ``plain_confirm.lua`` say what they do and what they leave out. **By hand** sends one
``EVALSHA`` for each operation. **The limit** sends the same scripts with prepared batches.
"""

from __future__ import annotations

__all__ = ["PlainRedisWorkload"]

import hashlib
import importlib.resources
import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple

import redis

from quota_engine.bench.backends import BenchStore
from quota_engine.bench.errors import WrongOutcome
from quota_engine.bench.plain_clients import CONNECTIONS
from quota_engine.bench.plan import ApiStyle, BenchCase, Implementation
from quota_engine.domain.errors import BackendUnavailable

_CAPACITY: Final = 10_000_000
_HOLD_MS: Final = 600_000
_KEY_NAMES: Final = ("counters", "records", "identities", "deadlines", "events")
_PRELOAD: Final = 1_000
_COUNTERS: Final = ("capacity", "free", "held", "confirmed")

_numbers = itertools.count(1)


class _Script(NamedTuple):
    """Text of a script, and the digest by which a server that has run it knows it."""

    text: str
    digest: str


class PlainRedisWorkload:
    """Counters of new offices, and the operations on them by plain scripts."""

    def __init__(self, store: BenchStore, case: BenchCase) -> None:
        """Create the counters of a case, and fill them with its existing reservations."""
        self._store = store
        self._case = case
        self._done = [0] * case.offices
        self._next = 0
        self._capacity = 0 if case.action == "refusal" else _CAPACITY
        self._offices = store.new_offices(case.offices)
        namespace = store.target.namespace
        self._keys = [
            tuple(f"{{quota_engine:{namespace}:{office}}}:plain-{name}" for name in _KEY_NAMES)
            for office in self._offices
        ]
        store.register_keys([key for keys in self._keys for key in keys])
        self._clients = store.clients
        self._client: Any = store.clients.client
        self._scripts = {name: self._load(name) for name in ("plain_reserve", "plain_confirm")}
        counters: dict[Any, Any] = dict.fromkeys(_COUNTERS, self._capacity)
        if case.implementation is Implementation.DECR:
            self._create_bare_counter()
        else:
            for keys in self._keys:
                self._client.hset(keys[0], mapping=counters)
        self._reserve_now(case.reservations)

    def _load(self, name: str) -> _Script:
        """Make a script known to all primaries."""
        text = (importlib.resources.files(__package__) / f"{name}.lua").read_text("utf-8")
        # Without keys, it has nothing to do.
        self._clients.run_on_primaries(text, *([_HOLD_MS] if name == "plain_reserve" else []))
        return _Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())

    def _create_bare_counter(self) -> None:
        try:
            self._client.set(self._keys[0][0], self._capacity + 1)
            self._client.decr(self._keys[0][0])
        except redis.exceptions.NoPermissionError as error:
            raise BackendUnavailable(
                f"the benchmark compares with a bare DECR: allow +set +get +decr +unlink for its user ({error})"
            ) from None

    def prepare(self, count: int) -> tuple[Callable[[Any], Any], Sequence[Any]]:
        """Return the call to measure, and the arguments of each call for ``count`` operations."""
        case = self._case
        if case.implementation is Implementation.DECR:
            return self._decrements(count)
        if case.action == "availability":
            return self._reads(count)
        if case.action == "confirm":
            reservations = self._reserve_now(count)
            calls = self._calls(reservations, lambda part: [one for one, _ in part])
        else:
            reservations = self._new_reservations(count)
            calls = self._calls(reservations, _reserve_arguments)
            self._count(reservations if self._capacity else {})
        script = self._scripts["plain_confirm" if case.action == "confirm" else "plain_reserve"]
        if case.api_style is ApiStyle.TASKS:
            return self._in_turn(_async_runner(self._clients.async_client, script), calls, _first_key)
        return _runner(self._client, script), calls

    @property
    def reserve_digest(self) -> str:
        """Digest of the script that reserves, for ``EVALSHA``."""
        return self._scripts["plain_reserve"].digest

    def check(self) -> None:
        """Compare counters, records, deadlines and events with the number of operations.

        Raises:
            WrongOutcome: They differ.
        """
        if self._case.action == "availability":
            return
        for (counters, records, identities, deadlines, events), done in zip(self._keys, self._done, strict=True):
            client = self._client
            is_bare = self._case.implementation is Implementation.DECR
            left = int((client.get(counters) if is_bare else client.hget(counters, "free")) or 0)
            found: tuple[int, ...] = (left,)
            wanted: tuple[int, ...] = (self._capacity - done,)
            if not is_bare:
                confirmed = done if self._case.action == "confirm" else 0
                found = (
                    left,
                    client.hlen(records),
                    client.hlen(identities),
                    client.zcard(deadlines),
                    client.xlen(events),
                )
                wanted = (self._capacity - done, done, done, done - confirmed, done + confirmed)
            if found != wanted:
                raise WrongOutcome(
                    f"{self._store.target.label}: {self._case.name}: {found} after it; expected {wanted}"
                )

    def remove(self) -> None:
        """Remove the keys."""
        self._store.remove_keys([key for keys in self._keys for key in keys])

    def _new_reservations(self, count: int) -> dict[int, list[tuple[str, str]]]:
        """Return pairs of id and keyed hash of new applicants by office, round robin over the offices."""
        reservations: dict[int, list[tuple[str, str]]] = {}
        for index in range(count):
            number = next(_numbers)
            identity = hashlib.blake2b(b"%d" % number, key=b"by hand", digest_size=12).hexdigest()
            at = (self._next + index) % len(self._offices)
            reservations.setdefault(at, []).append((f"k{number:021d}", identity))
        self._next = (self._next + count) % len(self._offices)
        return reservations

    def _reserve_now(self, count: int) -> dict[int, list[tuple[str, str]]]:
        """Reserve for new applicants, unmeasured, and return them by office."""
        reservations = self._new_reservations(count)
        run = _runner(self._client, self._scripts["plain_reserve"])
        for index, mine in reservations.items():
            for start in range(0, len(mine), _PRELOAD):
                arguments = _reserve_arguments(mine[start : start + _PRELOAD])
                run((len(_KEY_NAMES), *self._keys[index], *arguments))
        self._count(reservations)
        return reservations

    def _calls(
        self,
        reservations: dict[int, list[tuple[str, str]]],
        arguments_of: Callable[[list[tuple[str, str]]], list[Any]],
    ) -> list[tuple[Any, ...]]:
        """Return arguments of ``EVALSHA`` after the digest, in batches of the case's size, round robin over offices."""
        size = self._case.batch
        longest = max(map(len, reservations.values()), default=0)
        return [
            (len(_KEY_NAMES), *self._keys[index], *arguments_of(part))
            for start in range(0, longest, size)
            for index, mine in reservations.items()
            if (part := mine[start : start + size])
        ]

    def _reads(self, count: int) -> tuple[Callable[[Any], Any], Sequence[Any]]:
        """Return reads of an office's counters, in pipelines if the case has batches."""
        is_async = self._case.api_style is ApiStyle.TASKS
        client = self._clients.async_client if is_async else self._client
        keys = [each[0] for each in itertools.islice(itertools.cycle(self._keys), count)]
        size = self._case.batch
        if size == 1:

            def read_one(key: str) -> Any:
                return client.hmget(key, _COUNTERS)

            return self._in_turn(read_one, keys, str) if is_async else (read_one, keys)

        def read(part: list[str]) -> Any:
            pipe = client.pipeline(transaction=False)
            for key in part:
                pipe.hmget(key, _COUNTERS)
            return pipe.execute()

        return read, [keys[start : start + size] for start in range(0, count, size)]

    def _in_turn(
        self, call: Callable[[Any], Awaitable[Any]], items: Sequence[Any], key_of: Callable[[Any], str]
    ) -> tuple[Callable[[Any], Awaitable[Any]], Sequence[Any]]:
        """Let calls wait for a connection, if there can be too few."""
        if self._case.concurrency <= CONNECTIONS:
            return call, items
        return self._clients.in_turn(call, items, key_of)

    def _decrements(self, count: int) -> tuple[Callable[[Any], Any], list[Any]]:
        """Return pipelines of ``DECR`` that are encoded before: all that is measured is the server and the socket."""
        from redis.connection import Connection

        self._done[0] += count
        size, key, clients = self._case.batch, self._keys[0][0], self._clients
        packed = b"".join(Connection().pack_commands([("DECR", key)]))

        async def exchange(commands: int) -> None:
            async with clients.connection_to(key) as connection:
                await connection.send_packed_command(packed * commands)
                for _ in range(commands):
                    await connection.read_response()

        return exchange, [min(size, count - start) for start in range(0, count, size)]

    def _count(self, reservations: dict[int, list[tuple[str, str]]]) -> None:
        for index, mine in reservations.items():
            self._done[index] += len(mine)


def _reserve_arguments(part: list[tuple[str, str]]) -> list[Any]:
    return [_HOLD_MS, *itertools.chain.from_iterable(part)]


def _first_key(arguments: tuple[Any, ...]) -> str:
    return str(arguments[1])


def _runner(client: Any, script: _Script) -> Callable[[tuple[Any, ...]], Any]:
    """Return a call that runs a script, and sends its text to a server that does not know it."""
    evalsha, digest = client.evalsha, script.digest

    def run(arguments: tuple[Any, ...]) -> Any:
        try:
            return evalsha(digest, *arguments)
        except redis.exceptions.NoScriptError:
            return client.eval(script.text, *arguments)

    return run


def _async_runner(client: Any, script: _Script) -> Callable[[tuple[Any, ...]], Awaitable[Any]]:
    """Return the same for asyncio."""
    evalsha, digest = client.evalsha, script.digest

    async def run(arguments: tuple[Any, ...]) -> Any:
        try:
            return await evalsha(digest, *arguments)
        except redis.exceptions.NoScriptError:
            return await client.eval(script.text, *arguments)

    return run
