"""Measure waiting rooms against their goals: ``python -m benchmarks.waiting_rooms``.

- The order of a room is computed and verified on one core.
- Polls are answered in this process: with known tickets, with new ones, and with those known before the opening.
- Joins go through the batched store. In the same run, the same script (the limit) and a bare one that only writes an
  identity get prepared batches of 128, four in flight.
- The server's memory for each waiting identity is measured.
- The distribution of positions over 10,000 rooms must be uniform.

Times are elapsed time and, because machines are busy, processor time. The servers are those of
``benchmarks.server_memory``, which are started and stopped again.
"""

from __future__ import annotations

__all__ = ["main"]

import argparse
import asyncio
import binascii
import contextlib
import hashlib
import json
import math
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import msgspec
import redis
import redis.asyncio

from benchmarks.server_memory import _redis_server, _valkey_server
from quota_engine import ManualClock, QuotaEngine, RoomSettings, load_catalog
from quota_engine.admission.tickets import TicketKeys
from quota_engine.ports import Query
from quota_engine.stores.redis.factory import open_async_store, open_store
from quota_engine.stores.redis.keys import keys_of
from quota_engine.stores.redis.ledger_formats import ROOM
from quota_engine.waiting_room.commands import CreateRoom, JoinRoom, ViewRoom
from quota_engine.waiting_room.permutation import Permutation
from quota_engine.waiting_room.ticket_status import POSITION_NONE
from quota_engine.waiting_room.transcript import TranscriptWindow, digest_of, verify
from quota_engine.workflows.room_view_cache import RoomViewSnapshot
from tests.support.servers import redis_server_binary

OPENS_AT: Final = "2026-12-04T14:00:00+07:00"
FROM_BASE64URL: Final = bytes.maketrans(b"-_", b"+/")
INDEX: Final = slice(-40, -36)
"""The index in the bytes of a ticket: 36 bytes follow it."""
BATCH: Final = 128
IN_FLIGHT: Final = 4
GOALS: Final = {
    "order_and_verification_s": 20,
    "answers_a_second": 200_000,
    "joins_a_second": 100_000,
    "bytes_an_identity": 120,
}


def person(number: int) -> str:
    """Return a keyed hash."""
    return hashlib.blake2b(number.to_bytes(8, "big"), digest_size=16).hexdigest()


@contextlib.contextmanager
def opened_room(people: int) -> Iterator[tuple[QuotaEngine, list[str], ManualClock]]:
    """Open a room in memory, and yield it with its tickets."""
    clock = ManualClock.at("2026-12-04T13:00:00+07:00")
    catalog = load_catalog("surabaya")
    with QuotaEngine.open(catalog=catalog, clock=clock) as engine:
        engine.publish(catalog, "2026-12-07", "2026-12-11")
        room = engine.room("bench")
        room.create("surabaya", "2026-12-07", "2026-12-11", opens_at=OPENS_AT, settings=RoomSettings())
        tickets = [room.join(f"{3578_0000_0000_0000 + number}").ticket for number in range(people)]
        clock.set_ms(ManualClock.at(OPENS_AT).now_ms())
        room.view()
        yield engine, tickets, clock


def order(tickets: int) -> dict[str, Any]:
    """Return the seconds of one core to compute and verify all positions of a room."""
    with opened_room(1) as (engine, _, _):
        record = engine.room("bench").transcript()
    record = msgspec.structs.replace(record, windows=(TranscriptWindow(0, 1, tickets),))
    record = msgspec.structs.replace(record, digest=digest_of(record))
    started_s = time.process_time()
    found = verify(record)
    took_s = time.process_time() - started_s
    assert found.ok
    assert found.tickets_checked == tickets
    return {"tickets": tickets, "seconds": round(took_s, 2), "us_a_ticket": round(took_s / tickets * 1e6, 2)}


def answers(people: int, rounds: int) -> dict[str, Any]:
    """Return the polls a second in this process.

    - ``new``: tickets that the process has never seen.
    - ``polled_before_opening``: the first position of tickets that were polled before the opening.
    - ``seen_before``: tickets with a known position.
    - ``floor``: each ticket's bytes, signature and position, and nothing else.
    """
    times: dict[str, list[tuple[float, float]]] = {
        name: [] for name in ("new", "seen_before", "polled_before_opening", "floor")
    }
    with opened_room(people) as (engine, tickets, clock):
        room = engine.room("bench")
        room.status(tickets[0])
        snapshot = room._methods.cache.snapshot()  # noqa: SLF001 - parts of an answer are measured alone
        floor = _floor(snapshot, engine._methods.requests.ticket_keys)  # noqa: SLF001
        for _ in range(rounds):
            clock.advance_ms(1_000)
            room.view()
            for name, taken in times.items():
                if name == "new":
                    snapshot._known_tickets.clear()  # noqa: SLF001
                elif name == "polled_before_opening":
                    for ticket, known in snapshot._known_tickets.items():  # noqa: SLF001
                        snapshot._known_tickets[ticket] = msgspec.structs.replace(known, position=POSITION_NONE)  # noqa: SLF001
                answer = floor if name == "floor" else room.status
                started_s, processor_s = time.perf_counter(), time.process_time()
                for ticket in tickets:
                    answer(ticket)
                taken.append((time.perf_counter() - started_s, time.process_time() - processor_s))
    return {"tickets": people, **{name: _answers(people, taken) for name, taken in times.items()}}


def _floor(snapshot: RoomViewSnapshot, keys: TicketKeys) -> Callable[[str], int]:
    """Return a function that does only what a new ticket's position needs: a keyed hash and 24 rounds."""
    copy_signature_hash = keys.derived_keys(keys.active).signature_hash.copy
    (permutation,) = snapshot._order._permutations.values()  # noqa: SLF001

    def position(ticket: str) -> int:
        raw = binascii.a2b_base64(ticket.encode().translate(FROM_BASE64URL) + b"==")
        expected = copy_signature_hash()
        expected.update(raw[:-16])
        if expected.digest() != raw[-16:]:
            raise ValueError("not signed")
        return permutation.position(int.from_bytes(raw[INDEX], "big"))

    return position


def _answers(people: int, times: list[tuple[float, float]]) -> dict[str, float]:
    clock_s, processor_s = (statistics.median(column) for column in zip(*times, strict=True))
    return {
        "a_second": round(people / clock_s),
        "processor_us": round(processor_s / people * 1e6, 2),
        "processor_us_min": round(min(each for _, each in times) / people * 1e6, 2),
    }


class _Round(NamedTuple):
    """Times of a round: elapsed, and processor time of this process and of the server."""

    clock_s: float
    client_s: float
    server_s: float


BARE: Final = """#!lua flags=
local lines = {}
for index = 2, #ARGV do
  local applicant = string.match(ARGV[index], "^join\t([%w_-]+)\t(%d*)$")
  redis.call("HSETNX", KEYS[2], applicant, index)
  lines[index - 1] = "0"
end
return lines
"""


def joins(url: str, people: int, rounds: int, callers: int) -> dict[str, Any]:
    """Return the joins a second of the engine's store, of prepared batches, and of a bare script."""
    figures = asyncio.run(_joins(url, people, rounds, callers))
    results: dict[str, Any] = {"people_a_round": people, "callers": callers}
    for name, taken in figures.items():
        clock_s, client_s, server_s = (statistics.median(column) for column in zip(*taken, strict=True))
        results[name] = {
            "a_second": round(people / clock_s),
            "client_processor_us": round(client_s / people * 1e6, 2),
            "server_processor_us": round(server_s / people * 1e6, 2),
        }
    results["ratio_to_limit"] = round(results["engine"]["a_second"] / results["limit"]["a_second"], 2)
    limit_us, bare_us = (results[name]["server_processor_us"] for name in ("limit", "bare"))
    results["script_times_bare"] = round(limit_us / bare_us, 2)
    return results


async def _joins(url: str, people: int, rounds: int, callers: int) -> dict[str, list[_Round]]:
    backend = await open_async_store(url, None)
    client = redis.asyncio.Redis.from_url(url, decode_responses=True)
    bare_sha1 = await client.script_load(BARE)
    figures: dict[str, list[_Round]] = {"engine": [], "limit": [], "bare": []}
    try:
        for number in range(rounds + 1):  # the first is for warming up
            for name, taken in figures.items():
                place = f"~room.bench-{number}-{name}"
                await _make(backend, place)
                commands = [JoinRoom(person(one)) for one in range(people)]
                server_s = await _server_s(client)
                started_s, client_s = time.perf_counter(), time.process_time()
                if name == "engine":
                    await _called(backend, place, commands, callers)
                else:
                    sha1 = bare_sha1 if name == "bare" else ROOM.script_of(commands[0]).sha1
                    lines = [ROOM.encode(command) for command in commands]
                    started_s, client_s = time.perf_counter(), time.process_time()
                    await _prepared(client, place, lines, sha1)
                clock_s, client_s = time.perf_counter() - started_s, time.process_time() - client_s
                one = _Round(clock_s, client_s, await _server_s(client) - server_s)
                view = (await backend.execute(Query(place, ViewRoom()))).view
                assert view.tickets == (1 if name == "bare" else people + 1)
                if number:
                    taken.append(one)
                await client.unlink(*keys_of("", place, ROOM.key_names))
    finally:
        await client.aclose()
        await backend.close()
    return figures


async def _server_s(client: Any) -> float:
    info = await client.info("cpu")
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


async def _called(backend: Any, place: str, commands: list[JoinRoom], callers: int) -> None:
    left = iter(commands)

    async def caller() -> None:
        for command in left:
            await backend.apply(place, command)

    await asyncio.gather(*(caller() for _ in range(callers)))


async def _prepared(client: Any, place: str, lines: list[str], sha1: str) -> None:
    batches = iter([lines[start : start + BATCH] for start in range(0, len(lines), BATCH)])
    keys = keys_of("", place, ROOM.key_names)

    async def sender() -> None:
        for batch in batches:
            await client.evalsha(sha1, len(keys), *keys, "", *batch)

    await asyncio.gather(*(sender() for _ in range(IN_FLIGHT)))


async def _make(backend: Any, place: str) -> None:
    with opened_room(1) as (engine, _, _):
        terms = engine.room("bench").view().config
    now_ms = time.time_ns() // 1_000_000
    terms = msgspec.structs.replace(
        terms, opens_at_ms=now_ms + 600_000, closes_at_ms=now_ms + 1_200_000, forget_at_ms=now_ms + 8_000_000
    )
    assert (await backend.apply(place, CreateRoom(terms))).ok
    assert (await backend.apply(place, JoinRoom("warm"))).ok


def memory(url: str, people: int) -> dict[str, Any]:
    """Return the bytes of the server for each waiting identity, and for a hundred thousand views."""
    backend = open_store(url, None)
    client = redis.Redis.from_url(url, decode_responses=True)
    place = "~room.memory"
    keys, sha1 = keys_of("", place, ROOM.key_names), ROOM.script_of(None).sha1

    def used() -> int:
        info: Any = client.info("memory")
        return int(info["used_memory"])

    try:
        with opened_room(1) as (engine, _, _):
            terms = engine.room("bench").view().config
        now_ms = time.time_ns() // 1_000_000
        terms = msgspec.structs.replace(
            terms, opens_at_ms=now_ms + 600_000, closes_at_ms=now_ms + 1_200_000, forget_at_ms=now_ms + 8_000_000
        )
        assert backend.apply(place, CreateRoom(terms)).ok
        assert backend.apply(place, JoinRoom("warm")).ok
        before = used()
        for start in range(0, people, 1024):
            some = (ROOM.encode(JoinRoom(person(number))) for number in range(start, min(people, start + 1024)))
            client.evalsha(sha1, len(keys), *keys, "", *some)
        filled = used()
        for _ in range(1_000):
            backend.execute(Query(place, ViewRoom()))
        looked = used()
        client.unlink(*keys)
    finally:
        client.close()
        backend.close()
    return {
        "people": people,
        "bytes_an_identity": round((filled - before) / people, 1),
        "bytes_a_look": round((looked - filled) / 1_000, 1),
    }


def uniformity(rooms: int, size: int) -> dict[str, Any]:
    """Return the chi-square of the first ticket's position over many rooms. The bound is four deviations."""
    counts = Counter(Permutation(hashlib.sha256(b"room %d" % room).digest(), size).position(0) for room in range(rooms))
    expected = rooms / size
    degrees = size - 1
    bound = degrees * (1 - 2 / (9 * degrees) + 4 * math.sqrt(2 / (9 * degrees))) ** 3
    found = sum((counts[position] - expected) ** 2 / expected for position in range(size))
    return {"rooms": rooms, "tickets": size, "chi_square": round(found, 1), "bound": round(bound, 1)}


def main(arguments: list[str] | None = None) -> int:
    """Print the figures as JSON; returns 1 if positions are not uniform."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.waiting_rooms", description=__doc__)
    parser.add_argument("--tickets", type=int, default=1_000_000, help="of the order")
    parser.add_argument("--polls", type=int, default=50_000)
    parser.add_argument("--people", type=int, default=100_000, help="who join in a round, and whose memory is measured")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--callers", type=int, default=500)
    options = parser.parse_args(arguments)
    figures: dict[str, Any] = {
        "goals": GOALS,
        "order": order(options.tickets),
        "answers": answers(options.polls, options.rounds),
        "uniformity": uniformity(10_000, 100),
        "servers": {},
    }
    with contextlib.ExitStack() as undo:
        urls = {"valkey": undo.enter_context(_valkey_server())}
        binary = redis_server_binary()
        if binary:
            urls["redis"] = undo.enter_context(_redis_server(binary))
        for name, url in urls.items():
            figures["servers"][name] = {
                "memory": memory(url, options.people),
                "joins": joins(url, options.people, options.rounds, options.callers),
            }
    print(json.dumps(figures, indent=2))
    return int(figures["uniformity"]["chi_square"] > figures["uniformity"]["bound"])


if __name__ == "__main__":
    sys.exit(main())
