"""Crowds from many processes, and the end of servers and clients at the worst moment (SIGKILL).

Each client keeps its acknowledged calls, and the tests compare the store with them afterwards. Run as a program, this
file is such a client.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final, Protocol

import pytest

from quota_engine.clocks import ManualClock
from quota_engine.conformance.world import (
    DAY,
    HOLD_TTL_MS,
    OFFICE,
    ONLINE,
    OPENS_AT_MS,
    applicant,
    choice,
    published,
    reserve,
)
from quota_engine.domain.commands import Confirm, Publish, Release, Reserve, SetCapacity
from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.domain.model import DayTerms, QuotaTerms
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.ports import ApplyMany, Audit, Describe, Store, View
from quota_engine.stores.embedded import open_embedded
from quota_engine.stores.redis.factory import open_store
from tests.support.forked_clients import ForkedClients, run_forked_clients, wait_for_start
from tests.support.servers import Server, until

pytestmark = [pytest.mark.store, pytest.mark.slow]

WAIT_S: Final = 60.0
PROCESSES: Final = 6
THREADS_EACH: Final = 4
APPLICANTS: Final = 600
PLACES: Final = 300


# --- Clients in separate processes -----------------------------------------------------------------------------------


class Book:
    """The calls that were acknowledged to one process, one line each. A written line is not lost with the process."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, outcome: Outcome) -> None:
        record = outcome.reservation
        line = [outcome.status, record.id if record else "", outcome.resumed, record.queue_number if record else 0]
        os.write(self._file, json.dumps(line).encode() + b"\n")


def read_book(path: Path) -> list[tuple[Status, str, bool, int]]:
    """Status, id, whether it was another key's, and queue number of each outcome that was noted."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [(Status(status), id_, resumed, number) for status, id_, resumed, number in map(json.loads, lines)]


def book_once(backend: Store, book: Book, number: int, thread: int) -> None:
    """Ask for a third of the applicants, whom another process asks for, too; confirm two of three."""
    mine = [one for one in range(APPLICANTS) if one % 3 == number % 3 and one // 3 % THREADS_EACH == thread]
    Random(number).shuffle(mine)
    for one in mine:
        outcome = backend.apply(OFFICE, reserve(f"p{number}a{one}", ONLINE, f"a{one}"))
        book.note(outcome)
        if outcome.status is Status.HELD and not outcome.resumed and one % 5:
            book.note(backend.apply(OFFICE, Confirm(f"p{number}a{one}", applicant(f"a{one}"))))


def book_for_ever(backend: Store, book: Book, number: int, thread: int) -> None:
    """Hold, and confirm or release some, until the process is killed."""
    random, one = Random(100 * number + thread), 0
    while True:
        one += 1
        key = f"p{number}t{thread}n{one}"
        if backend.apply(OFFICE, reserve(key, ONLINE)).status is Status.HELD and random.random() < 0.8:
            book.note(backend.apply(OFFICE, random.choice((Confirm, Release))(key)))


CROWDS: Final[dict[str, Callable[[Store, Book, int, int], None]]] = {"once": book_once, "for ever": book_for_ever}


def run_client(url: str, path: str, number: str, crowd: str) -> None:
    """A process of a crowd: some threads on one store, which start when all processes are ready."""
    backend, book = open_store(url, ManualClock(OPENS_AT_MS)), Book(Path(path))
    work = CROWDS[crowd]
    threads = [
        threading.Thread(target=work, args=(backend, book, int(number), thread)) for thread in range(THREADS_EACH)
    ]
    wait_for_start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    backend.close()


class Crowd(ForkedClients):
    """Client processes, each with a book."""

    def __init__(self, url: str, directory: Path, crowd: str, processes: int = PROCESSES) -> None:
        self.books = [directory / f"book{number}" for number in range(processes)]
        clients = [(url, str(book), str(number), crowd) for number, book in enumerate(self.books)]
        super().__init__(__spec__.name, clients)


@pytest.fixture
def directory() -> Iterator[Path]:
    # Not pytest's own, whose path may be too long for a socket.
    with tempfile.TemporaryDirectory(prefix="kills-") as path:
        yield Path(path)


def set_up(url: str, places: int) -> Store:
    """Return a store with an office-day of this many places."""
    backend = open_store(url, ManualClock(OPENS_AT_MS))
    backend.execute(ApplyMany(OFFICE, (*published(), SetCapacity(DAY, "online", places))))
    return backend


def test_six_processes_sell_each_place_once(binary: Path, directory: Path) -> None:
    """24 threads in six processes, 600 applicants, each asked for twice, 300 places: exactly 300 are taken.

    Each applicant has at most one, each place has a separate queue number, and every answer was true.
    """
    with Server(binary) as server, Crowd(server.url, directory, "once") as crowd:
        backend = set_up(server.url, PLACES)
        crowd.start()
        crowd.finish(WAIT_S)
        state = backend.execute(Describe(OFFICE))
        taken = {key: one for key, one in state["reservations"].items() if one["state"] in ("HELD", "CONFIRMED")}
        assert len(taken) == len(state["reservations"]) == PLACES
        assert len({tuple(one["applicants"]) for one in taken.values()}) == PLACES
        confirmed = {key: one for key, one in taken.items() if one["state"] == "CONFIRMED"}
        assert sorted(one["queue_number"] for one in confirmed.values()) == list(range(1, len(confirmed) + 1))
        (today,) = backend.execute(View(OFFICE, (DAY,)))
        online = today.quotas["online"]
        assert (online.available, online.held + online.confirmed) == (0, PLACES)
        told = [line for book in crowd.books for line in read_book(book)]
        held = Counter(key for status, key, resumed, _ in told if status is Status.HELD and not resumed)
        assert set(held) == set(taken)
        assert set(held.values()) == {1}
        numbers = {key: number for status, key, _, number in told if status is Status.CONFIRMED and number}
        assert numbers == {key: one["queue_number"] for key, one in confirmed.items()}
        assert {status for status, *_ in told} <= {
            Status.HELD,
            Status.CONFIRMED,
            Status.IDENTITY_LIMIT,
            Status.SOLD_OUT,
        }
        assert backend.execute(Audit(OFFICE)) == []
        backend.close()


def test_killed_clients_leak_no_unit(binary: Path, directory: Path) -> None:
    """Six processes die at the same time in the middle of their calls. Their confirmed places are kept; their holds
    expire.
    """
    with Server(binary) as server, Crowd(server.url, directory, "for ever") as crowd:
        backend = set_up(server.url, 2000)
        crowd.start()
        until(lambda: min(len(read_book(book)) for book in crowd.books) >= 40, "clients at work", WAIT_S)
        crowd.kill()
        told = [line for book in crowd.books for line in read_book(book)]
        # Calls that were in transit when their senders died are applied, or not. After that nothing changes.
        until(lambda: len(server.ask("CLIENT", "LIST").splitlines()) <= 2, "no client but ours")
        state = backend.execute(Describe(OFFICE))
        assert backend.execute(Audit(OFFICE)) == []
        backend.close()
        backend = open_store(server.url, ManualClock(OPENS_AT_MS + HOLD_TTL_MS))
        (today,) = backend.execute(View(OFFICE, (DAY,)))
        confirmed = [key for key, one in state["reservations"].items() if one["state"] == "CONFIRMED"]
        assert {key for status, key, *_ in told if status is Status.CONFIRMED} <= set(confirmed)
        assert {key for status, key, *_ in told if status is Status.RELEASED}.isdisjoint(confirmed)
        online = today.quotas["online"]
        assert (online.held, online.confirmed, online.available) == (0, len(confirmed), 2000 - len(confirmed))
        late = [Reserve(f"late{one}", DAY, (applicant(f"late{one}"),), ONLINE) for one in range(online.available + 1)]
        statuses = Counter(one.status for one in backend.execute(ApplyMany(OFFICE, tuple(late))))
        assert statuses == {Status.HELD: online.available, Status.SOLD_OUT: 1}
        assert backend.execute(Audit(OFFICE)) == []
        backend.close()


# --- Servers that are killed ---------------------------------------------------------------------------------------


class Load(threading.Thread):
    """Reserves and confirms one place after the other until a call fails, and remembers the outcomes."""

    def __init__(self, backend: Store, name: str, *, places_max: int = 1_000_000) -> None:
        super().__init__(daemon=True)
        self._backend = backend
        self._name = name
        self._places_max = places_max
        self.acknowledged: list[Outcome] = []
        self.unknown: list[Reserve | Confirm] = []
        self.not_done: list[Reserve | Confirm] = []
        self.surprise: Exception | None = None

    def run(self) -> None:
        for one in range(self._places_max):
            key = f"{self._name}n{one}"
            for command in (reserve(key, ONLINE), Confirm(key)):
                try:
                    self.acknowledged.append(self._backend.apply(OFFICE, command))
                except OutcomeUnknown:
                    self.unknown.append(command)
                    return
                except BackendUnavailable:
                    self.not_done.append(command)
                    return
                except Exception as error:
                    self.surprise = error
                    return


def load(backend: Store, name: str, **options: int) -> list[Load]:
    """Eight threads at work."""
    threads = [Load(backend, f"{name}t{number}", **options) for number in range(8)]
    for thread in threads:
        thread.start()
    return threads


def acknowledged(threads: Sequence[Load]) -> dict[str, dict[str, Any]]:
    """By id, the last that was acknowledged: its state and queue number."""
    last: dict[str, dict[str, Any]] = {}
    for thread in threads:
        for outcome in thread.acknowledged:
            assert outcome.reservation is not None, outcome
            last[outcome.reservation.id] = {
                "state": outcome.reservation.state.value,
                "queue_number": outcome.reservation.queue_number,
            }
    return last


def ended(threads: Sequence[Load]) -> None:
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()
        if thread.surprise is not None:
            raise thread.surprise


def check_kept(backend: Store, threads: Sequence[Load]) -> None:
    """All acknowledged calls were applied, all refused ones were not, and repeating the rest shows their outcomes."""
    found = {
        key: {"state": str(one["state"]), "queue_number": one["queue_number"]}
        for key, one in backend.execute(Describe(OFFICE))["reservations"].items()
    }
    told = acknowledged(threads)
    unknown = {command.id: command for thread in threads for command in thread.unknown}
    lost = {key: one for key, one in told.items() if key not in unknown and found.get(key) != one}
    assert lost == {}
    for command in (command for thread in threads for command in thread.not_done):
        assert found.get(command.id) == told.get(command.id), f"{command} was said not to be done"
    assert set(found) <= {*told, *unknown}
    for key, command in unknown.items():
        outcome = backend.apply(OFFICE, command)
        wanted = Status.HELD if isinstance(command, Reserve) else Status.CONFIRMED
        was_done = key in found and (isinstance(command, Reserve) or found[key]["state"] == "CONFIRMED")
        assert (outcome.status, outcome.replayed) == (wanted, was_done)
    assert backend.execute(Audit(OFFICE)) == []


class Killable(Protocol):
    """A server that can be killed and started again."""

    url: str

    def kill(self) -> None: ...

    def start(self) -> None: ...


class Embedded:
    """The embedded server of a directory, used by another process than the store."""

    def __init__(self, directory: Path) -> None:
        self.url = f"valkey+embedded://{directory}/store?appendfsync=always"
        self._server = open_embedded(self.url)

    def kill(self) -> None:
        os.kill(self._server.pid, signal.SIGKILL)

    def start(self) -> None:
        self._server.ensure_running()

    def close(self) -> None:
        self._server.close()


@pytest.mark.parametrize("seed", range(3))
def test_fsync_always_keeps_all_acknowledged_places(binary: Path, seed: int) -> None:
    """SIGKILL of the server in mid-load, ``appendfsync always``: not one acknowledged place is lost (G6).

    Refused calls were not applied, and calls with an unknown outcome were applied or not (G7).
    """
    with Server(binary, appendfsync="always") as server:
        backend = set_up(server.url, 1_000_000)
        hasty = open_store(f"{server.url}?attempts_max=2", ManualClock(OPENS_AT_MS))
        threads = load(hasty, "k")
        wanted = Random(seed).randint(100, 400)
        until(lambda: sum(len(thread.acknowledged) for thread in threads) >= wanted, "a load")
        server.kill()
        ended(threads)
        server.start()
        check_kept(backend, threads)
        hasty.close()
        backend.close()


def test_killed_embedded_server_is_survived(directory: Path) -> None:
    """SIGKILL three times in mid-load; it is started again, calls find it, and nothing is lost or done twice."""
    embedded = Embedded(directory)
    try:
        # A busy machine starts it in seconds.
        backend = set_up(f"{embedded.url}&attempts_max=1000&call_timeout_ms=60000", 1_000_000)
        threads = load(backend, "k", places_max=150)
        for kill in range(1, 4):
            until(lambda kill=kill: sum(len(one.acknowledged) for one in threads) >= 400 * kill, "a load")  # type: ignore[misc]
            embedded.kill()
            embedded.start()
        ended(threads)
        check_kept(backend, threads)
        assert not any(thread.unknown or thread.not_done for thread in threads), "it was back within the pauses"
        (today,) = backend.execute(View(OFFICE, (DAY,)))
        assert today.quotas["online"].confirmed == 8 * 150
        backend.close()
    finally:
        embedded.close()


def test_everysec_loses_at_most_the_last_second(binary: Path) -> None:
    """SIGKILL of the server in mid-load, ``appendfsync everysec``: the ledger adds up, and only the newest may be gone.

    May be lost: what was acknowledged last, up to about a second of it if the machine stops (the server alone: what it
    had not yet given to the system). A script is in the file as a whole or not at all, so no unit is lost or made.
    """
    with Server(binary, appendfsync="everysec") as server:
        backend = set_up(server.url, 1_000_000)
        hasty = open_store(f"{server.url}?attempts_max=2", ManualClock(OPENS_AT_MS))
        threads = load(hasty, "k")
        until(lambda: sum(len(thread.acknowledged) for thread in threads) >= 1000, "a load")
        server.kill()
        ended(threads)
        hasty.close()
        check_tail(server, backend, threads)
        backend.close()


@pytest.mark.parametrize("seed", range(2))
def test_truncated_append_only_file_leaves_a_consistent_ledger(binary: Path, seed: int) -> None:
    """The machine stops, and the append-only file ends anywhere: what is left is an earlier state, script by script."""
    random = Random(seed)
    with Server(binary, appendfsync="everysec") as server:
        backend = set_up(server.url, 1_000_000)
        threads = load(backend, "k", places_max=25)
        ended(threads)
        for _ in range(4):
            server.kill()
            (path,) = (server.directory / "appendonlydir").glob("*.incr.aof")
            size = path.stat().st_size
            os.truncate(path, size - random.randint(1, size // 8))
            check_tail(server, backend, threads)
        backend.close()


def check_tail(server: Server, backend: Store, threads: Sequence[Load]) -> None:
    """Start the server: the ledger is consistent, at most the last call of each thread is lost, and work continues."""
    server.start()
    assert backend.execute(Audit(OFFICE)) == []
    found = backend.execute(Describe(OFFICE))["reservations"]
    for thread in threads:
        kept = [
            one.reservation is not None
            and one.reservation.id in found
            and found[one.reservation.id]["version"] >= one.reservation.version
            for one in thread.acknowledged
        ]
        assert kept == sorted(kept, reverse=True), "an earlier one is lost, and a later one kept"
    numbers = sorted(one["queue_number"] for one in found.values() if one["queue_number"])
    assert numbers == list(range(1, len(numbers) + 1))
    later = backend.apply(OFFICE, reserve(f"later{len(found)}", ONLINE))
    assert (later.status, later.replayed) == (Status.HELD, False)
    assert backend.execute(Audit(OFFICE)) == []


def test_purge_interrupted_by_a_restart_leaves_no_claim(binary: Path) -> None:
    """Records of a forgotten day are purged bit by bit, over a restart, too: an id that is used again has one owner.

    With the rest of an old record, its applicants would have a claim on the new one, which belongs to another party.
    """
    held, once = 1500, choice(("a",))
    terms = [DayTerms(0, end - 10, end - 5, end, (QuotaTerms("a", held),)) for end in (100, 100_000)]
    with Server(binary, appendfsync="everysec") as server:
        clock = ManualClock(0)
        backend = open_store(server.url, clock)
        backend.execute(ApplyMany(OFFICE, (Publish(1, terms[0]), Publish(2, terms[1]))))
        holds = [Reserve(f"r{one}", 1, (applicant(f"a{one}"),), once) for one in range(held)]
        backend.execute(ApplyMany(OFFICE, tuple(holds)))
        backend.execute(ApplyMany(OFFICE, tuple(Confirm(one.id) for one in holds)))
        clock.set_ms(100)
        for _ in range(10):
            assert backend.apply(OFFICE, Confirm("nobody")).status is Status.NOT_FOUND
        server.restart()
        for _ in range(3 * held // 64):
            assert backend.apply(OFFICE, Confirm("nobody")).status is Status.NOT_FOUND
        again = [Reserve(one.id, 2, (applicant(f"b{index}"),), once) for index, one in enumerate(holds[: held // 2])]
        outcomes = backend.execute(ApplyMany(OFFICE, tuple(again)))
        assert {one.status for one in outcomes} == {Status.HELD}
        assert backend.execute(Audit(OFFICE)) == []
        backend.close()


if __name__ == "__main__":
    run_forked_clients(run_client)
