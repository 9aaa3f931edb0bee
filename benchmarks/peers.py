"""Take places with the engine and with other libraries, each on the same server: ``python -m benchmarks.peers``.

Every contender takes one unit of a capacity that is never used up, as its documents show. One caller sends the next
call after the answer; then 16 threads share the work. Rounds are interleaved, and the results are medians.
This process is pinned to one core, and the main thread of the server to another.
The contenders do not do the same: the table says what each leaves out.

Install the other libraries with ``pip install -r benchmarks/peers-requirements.txt``. One that is missing is left out,
and so is PostgreSQL without the extra ``postgresql-embedded``. ``--write`` puts table and picture into ``docs/``.
"""

from __future__ import annotations

__all__ = ["main"]

import argparse
import contextlib
import gc
import importlib
import importlib.metadata
import itertools
import json
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from quota_engine.bench.backends import BenchStore
from quota_engine.bench.engine_workload import EngineWorkload
from quota_engine.bench.host_info import describe_machine, pinned, usable_cores
from quota_engine.bench.load_drivers import run_threads
from quota_engine.bench.plain_redis import PlainRedisWorkload
from quota_engine.bench.plan import ApiStyle, BenchCase, Implementation
from quota_engine.bench.target_url import parse_target
from quota_engine.reporting.svg_bars import Bar, BarChart, BarPart, render_bars

DOCS: Final = pathlib.Path(__file__).parents[1] / "docs"
DATA: Final = DOCS / "data" / "peers.json"
PICTURE: Final = DOCS / "images" / "peers.svg"
CAPACITY: Final = 10_000_000
PLACES: Final = 20_000
"""Rows of the table with a row for each place."""
THREADS: Final = 16
CALLS_OF_THREADS_MIN: Final = 1_000
"""Fewer calls would measure the start of the threads."""
_numbers = itertools.count(1)

Call = Callable[[Any], object]


class Contender(NamedTuple):
    """One way to take a place.

    Attributes:
        name: Its name in the table.
        package: The package that it needs, or ``""``.
        leaves_out: The work of a reservation that it does not do.
        opened: Opens it; yields the call to measure, and a function that returns the arguments of ``n`` calls.
    """

    name: str
    package: str
    leaves_out: str
    opened: Callable[[BenchStore], contextlib.AbstractContextManager[tuple[Call, Callable[[int], Sequence[Any]]]]]


def identities(count: int) -> list[str]:
    """Return identities that were not used before."""
    return [f"{3578_0000_0000_0000 + next(_numbers)}" for _ in range(count)]


@contextlib.contextmanager
def _engine(store: BenchStore) -> Iterator[tuple[Call, Callable[[int], Sequence[Any]]]]:
    workload = EngineWorkload(store, BenchCase("reserve", Implementation.ENGINE, ApiStyle.THREADS, THREADS))
    call, _ = workload.prepare(1)
    yield call, lambda count: workload.prepare(count)[1]
    if not store.target.url.startswith("postgresql"):
        workload.remove()


@contextlib.contextmanager
def _by_hand(store: BenchStore) -> Iterator[tuple[Call, Callable[[int], Sequence[Any]]]]:
    workload = PlainRedisWorkload(store, BenchCase("reserve", Implementation.BY_HAND, ApiStyle.THREADS, THREADS))
    call, _ = workload.prepare(1)
    yield call, lambda count: workload.prepare(count)[1]
    workload.remove()


@contextlib.contextmanager
def _limits(store: BenchStore) -> Iterator[tuple[Call, Callable[[int], Sequence[Any]]]]:
    limits, storage, strategies = map(importlib.import_module, ("limits", "limits.storage", "limits.strategies"))
    url = _redis_url(store).replace("unix://", "redis+unix://")
    limiter = strategies.FixedWindowRateLimiter(storage.storage_from_string(url))
    item = limits.RateLimitItemPerDay(CAPACITY)
    yield lambda _: _took(limiter.hit(item, "office", "2026-12-07")), identities


@contextlib.contextmanager
def _throttled(store: BenchStore) -> Iterator[tuple[Call, Callable[[int], Sequence[Any]]]]:
    throttled = importlib.import_module("throttled")
    limiter = throttled.Throttled(
        using="fixed_window",
        quota=throttled.per_day(CAPACITY),
        store=throttled.RedisStore(server=_redis_url(store)),
    )
    yield lambda _: _took(not limiter.limit("office:2026-12-07").limited), identities


@contextlib.contextmanager
def _pyrate_limiter(store: BenchStore) -> Iterator[tuple[Call, Callable[[int], Sequence[Any]]]]:
    pyrate = importlib.import_module("pyrate_limiter")
    client = _plain_client(store)
    bucket = pyrate.RedisBucket.init([pyrate.Rate(CAPACITY, pyrate.Duration.DAY)], client, "peers-pyrate")
    limiter = pyrate.Limiter(bucket)
    yield lambda _: _took(limiter.try_acquire("office")), identities
    limiter.close()
    client.close()


@contextlib.contextmanager
def _semaphore(store: BenchStore) -> Iterator[tuple[Call, Callable[[int], Sequence[Any]]]]:
    """Acquire as the counting semaphore of the book "Redis in Action" does (6.3): a sorted set of holders by time."""
    client = _plain_client(store)

    def acquire(identity: str) -> bool:
        now_s = time.time()
        pipe = client.pipeline(True)
        pipe.zremrangebyscore("peers-semaphore", "-inf", now_s - 600)
        pipe.zadd("peers-semaphore", {identity: now_s})
        pipe.zrank("peers-semaphore", identity)
        if pipe.execute()[-1] < CAPACITY:
            return True
        client.zrem("peers-semaphore", identity)
        return False

    yield lambda identity: _took(acquire(identity)), identities
    client.delete("peers-semaphore")
    client.close()


@contextlib.contextmanager
def _postgresql_update(store: BenchStore) -> Iterator[tuple[Call, Callable[[int], Sequence[Any]]]]:
    database = store.postgresql
    database.open_pool(BenchCase("reserve", Implementation.BY_HAND, ApiStyle.THREADS, THREADS))
    schema = database.settings.schema
    database.control.execute(f'CREATE TABLE "{schema}".quota (id int PRIMARY KEY, remaining int NOT NULL)')
    database.control.execute(f'INSERT INTO "{schema}".quota VALUES (1, {CAPACITY})')  # noqa: S608 - our own names
    database.control.execute(f'CREATE TABLE "{schema}".booking (identity text PRIMARY KEY)')
    insert = f'INSERT INTO "{schema}".booking VALUES (%s) ON CONFLICT DO NOTHING'  # noqa: S608
    take = f'UPDATE "{schema}".quota SET remaining = remaining - 1 WHERE id = 1 AND remaining >= 1'  # noqa: S608

    def reserve(identity: str) -> None:
        with database.connection() as connection, connection.transaction():
            if connection.execute(insert, (identity,)).rowcount and not connection.execute(take).rowcount:
                raise RuntimeError("sold out")

    yield reserve, identities


@contextlib.contextmanager
def _postgresql_skip_locked(store: BenchStore) -> Iterator[tuple[Call, Callable[[int], Sequence[Any]]]]:
    database = store.postgresql
    database.open_pool(BenchCase("reserve", Implementation.BY_HAND, ApiStyle.THREADS, THREADS))
    schema = database.settings.schema
    database.control.execute(f'CREATE TABLE "{schema}".place (id serial PRIMARY KEY, identity text UNIQUE)')
    database.control.execute(f'CREATE INDEX ON "{schema}".place (id) WHERE identity IS NULL')
    database.control.execute(f'INSERT INTO "{schema}".place (id) SELECT generate_series(1, {PLACES})')
    take = (
        f'UPDATE "{schema}".place SET identity = %s WHERE id = (SELECT id FROM "{schema}".place'  # noqa: S608
        " WHERE identity IS NULL ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)"
    )

    def reserve(identity: str) -> None:
        with database.connection() as connection, connection.transaction():
            if not connection.execute(take, (identity,)).rowcount:
                raise RuntimeError("sold out")

    yield reserve, identities


def _took(took: object) -> None:
    """Check that a call took a place: a refusal is faster."""
    if not took:
        raise RuntimeError("a place was refused")


def _redis_url(store: BenchStore) -> str:
    settings = store.clients.client.connection_pool.connection_kwargs
    return f"unix://{settings['path']}" if "path" in settings else f"redis://{settings['host']}:{settings['port']}"


def _plain_client(store: BenchStore) -> Any:
    import redis

    return redis.Redis.from_url(_redis_url(store))


_RATE_LIMITER: Final = "identity, idempotency key, record, hold, events, places given back"
ON_VALKEY: Final = (
    Contender("quota_engine on Valkey", "", "nothing", _engine),
    Contender("redis-py and a script by hand", "", "parties, opening times, rules, expiry, wait list", _by_hand),
    Contender("limits", "limits", _RATE_LIMITER, _limits),
    Contender("throttled-py", "throttled-py", _RATE_LIMITER, _throttled),
    Contender("pyrate-limiter", "pyrate-limiter", _RATE_LIMITER, _pyrate_limiter),
    Contender(
        "semaphore recipe with redis-py",
        "",
        "idempotency key, record, events; its order follows the clients' clocks",
        _semaphore,
    ),
)
ON_POSTGRESQL: Final = (
    Contender("quota_engine on PostgreSQL", "", "nothing", _engine),
    Contender("PostgreSQL: `UPDATE … WHERE remaining >= 1`", "", "holds, rules, events, expiry", _postgresql_update),
    Contender("PostgreSQL: a row a place, `SKIP LOCKED`", "", "holds, rules, events, expiry", _postgresql_skip_locked),
)


def measure(rounds: int, round_s: float) -> list[dict[str, Any]]:
    """Return a result for each contender that is installed.

    Args:
        rounds: Rounds, after one that warms up.
        round_s: About how long a contender is measured in a round, in seconds.
    """
    results: list[dict[str, Any]] = []
    client_core, server_core = usable_cores() or (None, None)
    for url, contenders in (("valkey+embedded://", ON_VALKEY), ("postgresql+embedded://", ON_POSTGRESQL)):
        try:
            # The server starts first, because its helpers would inherit the client's core.
            with BenchStore(parse_target(url), server_core) as store, pinned(0, client_core):
                measured = _measure(store, contenders, rounds, round_s)
                results += [{**one, "server": store.server} for one in measured]
        except (ImportError, OSError, RuntimeError) as error:
            print(f"{url}: left out: {error}", file=sys.stderr)
    return results


def _measure(store: BenchStore, contenders: Sequence[Contender], rounds: int, round_s: float) -> list[dict[str, Any]]:
    with contextlib.ExitStack() as undo:
        opened = {}
        for one in contenders:
            if one.package and not _version(one.package):
                print(f"{one.name}: left out: not installed", file=sys.stderr)
                continue
            opened[one] = undo.enter_context(one.opened(store))
        counts = dict.fromkeys(opened, 50)
        lone_us: dict[Contender, list[float]] = {one: [] for one in opened}
        client_us: dict[Contender, list[float]] = {one: [] for one in opened}
        rates: dict[Contender, list[float]] = {one: [] for one in opened}
        for number in range(rounds + 1):
            for one, (call, arguments) in list(opened.items())[:: 1 if number % 2 else -1]:
                print(f"\rround {number} of {rounds}: {one.name:<50}", end="", file=sys.stderr, flush=True)
                work = arguments(counts[one])
                gc.collect()
                latencies_ns: list[int] = []
                started_s = time.process_time()
                for item in work:
                    started_ns = time.perf_counter_ns()
                    call(item)
                    latencies_ns.append(time.perf_counter_ns() - started_ns)
                processor_s = time.process_time() - started_s
                shared = max(counts[one], CALLS_OF_THREADS_MIN)
                together = run_threads(call, arguments(shared), THREADS)
                if number:
                    lone_us[one].append(statistics.median(latencies_ns) / 1000)
                    client_us[one].append(processor_s / counts[one] * 1e6)
                    rates[one].append(shared / together.took_s)
                else:
                    counts[one] = max(50, min(1_000, round(50 * round_s / (sum(latencies_ns) / 1e9))))
        print(f"\r{'':<75}\r", end="", file=sys.stderr)
    return [
        {
            "name": one.name + (f" {_version(one.package)}" if one.package else ""),
            "leaves_out": one.leaves_out,
            "lone_us": round(statistics.median(lone_us[one])),
            "client_us": round(statistics.median(client_us[one])),
            "a_second": round(statistics.median(rates[one])),
        }
        for one in opened
    ]


def _picture(results: Sequence[Mapping[str, Any]]) -> str:
    """Return a chart of the places a second with threads. Bars of different servers have different scales."""
    servers = list(dict.fromkeys(one["server"] for one in results))
    most = {server: max(one["a_second"] for one in results if one["server"] == server) for server in servers}
    bars = [
        Bar(
            f"{one['name'].replace('`', '')}: {one['a_second']:,}",
            [BarPart(servers.index(one["server"]), one["a_second"] / most[one["server"]])],
        )
        for one in results
    ]
    description = "A bar for each library: the places that it gives in a second, as a share of the most on its server."
    title = f"Places a second with {THREADS} threads; bars: share of the most on the same server"
    return render_bars(BarChart("peers", title, description, servers, bars), 900, standalone=True)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--round-ms", type=int, default=200, help="about how long each is measured in a round")
    parser.add_argument("--write", action="store_true", help="write the table and the picture of docs/performance.md")
    options = parser.parse_args()
    results = measure(options.rounds, options.round_ms / 1000)
    machine = describe_machine()
    figures = {
        **{name: machine[name] for name in ("processor", "cores", "python", "quota_engine", "redis_py", "hiredis")},
        "threads": THREADS,
        "rounds": options.rounds,
        "results": results,
    }
    print(f"{'a place from':<45}{'one caller: p50':>15}{'client':>9}{f'{THREADS} threads':>11}")
    for one in results:
        print(f"{one['name']:<50}{one['lone_us']:>8,} µs{one['client_us']:>6,} µs{one['a_second']:>10,}/s")
    if options.write:
        DATA.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        PICTURE.write_text(_picture(results) + "\n", encoding="utf-8")
        subprocess.run([sys.executable, str(DOCS / "generate.py")], check=True)  # noqa: S603 - our own program


if __name__ == "__main__":
    main()
