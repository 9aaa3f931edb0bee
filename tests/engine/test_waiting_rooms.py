"""Waiting rooms through the engine: an opening from the first ticket to the last pass, in memory and on a server."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any, TypeVar

import pytest

from quota_engine import (
    AsyncQuotaEngine,
    Chance,
    InvalidRequest,
    ManualClock,
    Outcome,
    QuotaEngine,
    RoomSettings,
    RoomStatus,
    Status,
    TicketKeys,
    TicketPhase,
    UnknownName,
    load_catalog,
)
from quota_engine.admission import room_pass
from quota_engine.admission.tickets import RoomTickets, read_pass, read_ticket_index
from quota_engine.domain.errors import BackendUnavailable
from quota_engine.ports import Query, StoreRequest
from quota_engine.stores.memory import MemoryStore
from quota_engine.waiting_room.results import RoomView
from quota_engine.waiting_room.transcript import position_of, verify
from quota_engine.workflows.request_builder import RequestBuilder
from quota_engine.workflows.room_view_cache import RoomViewCache
from tests.support.servers import Server, valkey_server_binary

T = TypeVar("T")

KEY = b"sixteen to sixty-four secret bytes"
CATALOG = load_catalog("surabaya")
FIRST_DAY, LAST_DAY = "2026-12-07", "2026-12-11"
OPENS_AT = "2026-12-04T14:00:00+07:00"
OPENS_AT_MS = ManualClock.at(OPENS_AT).now_ms()
PEOPLE = [f"3578{number:012d}" for number in range(300)]


@pytest.fixture(scope="module")
def valkey() -> Iterator[Server]:
    with Server(valkey_server_binary()) as server:
        yield server


@pytest.fixture(params=["memory", "valkey"])
def engine(request: pytest.FixtureRequest, clock: ManualClock) -> Iterator[QuotaEngine]:
    """An engine with Surabaya's week before it opens."""
    url = "memory://"
    if request.param == "valkey":
        server: Server = request.getfixturevalue("valkey")
        server.ask("FLUSHALL")
        url = server.url
    with QuotaEngine.open(url, identity_key=KEY, catalog=CATALOG, clock=clock) as engine:
        engine.publish(CATALOG, FIRST_DAY, LAST_DAY)
        yield engine


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(OPENS_AT_MS - 3_600_000)


def made(engine: QuotaEngine, name: str = "december", entropy_source: str = "", **settings: int) -> None:
    status = engine.room(name).create(
        "surabaya",
        FIRST_DAY,
        LAST_DAY,
        opens_at=OPENS_AT,
        entropy_source=entropy_source,
        settings=RoomSettings(**settings),
    )
    assert status is RoomStatus.DONE


def test_an_opening_from_the_first_ticket_to_the_last_pass(engine: QuotaEngine, clock: ManualClock) -> None:
    """Polls alone open the room, and it calls tickets in the order that the transcript proves."""
    made(engine, per_minute_max=600, per_minute_min=600, burst=10)
    room = engine.room("december")
    tickets = {person: room.join(person).ticket for person in PEOPLE}
    early = room.transcript()
    assert {room.status(ticket).phase for ticket in tickets.values()} == {TicketPhase.NOT_OPEN}
    clock.set_ms(OPENS_AT_MS)
    called: list[str] = []
    passes: dict[str, str] = {}
    for _ in range(40):
        for person, ticket in tickets.items():
            if person in passes:
                continue
            admission = room.enter(ticket, person)
            if admission.ok:
                called.append(person)
                passes[person] = admission.admission_pass
                assert admission.until_ms == clock.now_ms() + 300_000 + 900_000
        clock.advance_ms(1_000)
    assert set(called) == set(PEOPLE)
    record = room.transcript()
    assert verify(record, [early]).ok
    order = [position_of(record, read_ticket_index(tickets[person]).number) for person in called]
    assert [(position - 1) // 10 for position in order if position is not None] == [at // 10 for at in range(300)]
    assert room.enter(tickets[PEOPLE[0]], PEOPLE[0]).admission_pass == passes[PEOPLE[0]]
    keys, hashed = engine._methods.requests.ticket_keys, engine._methods.requests.owner_hash(PEOPLE[0])
    day = datetime.date.fromisoformat("2026-12-08").toordinal()
    assert len({read_pass(keys, passes[PEOPLE[0]], "surabaya", day, [hashed]).id}) == 1
    assert room.close().ok
    assert {room.status(ticket).phase for ticket in tickets.values()} == {TicketPhase.ROOM_CLOSED}
    assert verify(room.transcript(), [record]).ok


def test_the_same_person_has_the_same_ticket_everywhere(engine: QuotaEngine, clock: ManualClock) -> None:
    """After a crash of the client, and from another process: the same text."""
    made(engine)
    first = engine.room("december").join(PEOPLE[0])
    again = engine.room("december").join(PEOPLE[0])
    assert (first.ticket, again.replayed) == (again.ticket, True)
    other = QuotaEngine(engine._store, RequestBuilder(KEY, CATALOG), clock=clock)
    assert other.room("december").join(PEOPLE[0]).ticket == first.ticket


@pytest.mark.parametrize("store", ["memory", "valkey"])
def test_a_pass_is_good_for_one_reservation(store: str, clock: ManualClock, request: pytest.FixtureRequest) -> None:
    """The step of the reserve uses the pass up."""
    url = "memory://"
    if store == "valkey":
        server: Server = request.getfixturevalue("valkey")
        server.ask("FLUSHALL")
        url = server.url
    keys = TicketKeys("a", {"a": b"the secret of the tickets"})
    with QuotaEngine.open(
        url, identity_key=KEY, catalog=CATALOG, clock=clock, ticket_keys=keys, admission=room_pass(keys)
    ) as engine:
        engine.publish(CATALOG, FIRST_DAY, LAST_DAY)
        made(engine)
        room = engine.room("december")
        tickets = [room.join(person).ticket for person in PEOPLE[:3]]
        clock.set_ms(OPENS_AT_MS)
        one, other, late = (
            room.enter(ticket, person).admission_pass for ticket, person in zip(tickets, PEOPLE, strict=False)
        )

        def reserve(person: str, admission_pass: str, day: str = FIRST_DAY, key: str | None = None) -> Outcome:
            return engine.reserve(
                "surabaya",
                day,
                person,
                service="new",
                session="morning",
                idempotency_key=key,
                admission_pass=admission_pass,
            )

        assert reserve(PEOPLE[0], "").status is Status.NOT_ADMITTED
        assert reserve(PEOPLE[0], other).status is Status.NOT_ADMITTED
        assert reserve(PEOPLE[0], one, "2026-12-14").status is not Status.HELD
        held = reserve(PEOPLE[0], one, key="wish")
        assert held.status is Status.HELD
        assert reserve(PEOPLE[0], one, key="wish").replayed
        assert engine.release(held.reference).ok
        assert reserve(PEOPLE[0], one, "2026-12-08").status is Status.NOT_ADMITTED
        clock.advance_ms(300_000 + 900_000 - 1)
        assert reserve(PEOPLE[1], other).status is Status.HELD
        clock.advance_ms(1)
        assert reserve(PEOPLE[2], late).status is Status.NOT_ADMITTED


def test_a_ticket_that_missed_its_turn_is_replaced_at_the_end(engine: QuotaEngine, clock: ManualClock) -> None:
    """It admits no one, does not stop other tickets, and can be replaced once."""
    made(engine, turn_ms=5_000, window_ms=2_000)
    room = engine.room("december")
    tickets = [room.join(person).ticket for person in PEOPLE[:20]]
    clock.set_ms(OPENS_AT_MS)
    assert room.status(tickets[0]).phase is TicketPhase.CALLED
    with pytest.raises(InvalidRequest, match="CALLED"):
        room.join(PEOPLE[0], replaces_ticket=tickets[0])
    clock.advance_ms(5_000)
    lost = room.status(tickets[0])
    assert lost.phase is TicketPhase.TURN_MISSED
    assert not room.enter(tickets[0], PEOPLE[0]).ok
    with pytest.raises(InvalidRequest, match="another person"):
        room.join(PEOPLE[1], replaces_ticket=tickets[0])
    behind = room.join(PEOPLE[0], replaces_ticket=tickets[0])
    assert (read_ticket_index(behind.ticket).offset, behind.replayed) == (20, False)
    assert room.status(behind.ticket).phase is TicketPhase.SHUFFLING
    for _ in range(2):
        clock.advance_ms(1_000)
        room.status(behind.ticket)
    assert room.enter(behind.ticket, PEOPLE[0]).ok
    assert room.join(PEOPLE[0], replaces_ticket=tickets[0]).ticket == behind.ticket


def test_polls_share_one_read_of_the_store(clock: ManualClock) -> None:
    """Six thousand polls within the refresh time: one look, and what time had made due."""
    backend = Counting(MemoryStore(clock))
    engine = QuotaEngine(backend, RequestBuilder(KEY, CATALOG), clock=clock)
    engine.publish(CATALOG, FIRST_DAY, LAST_DAY)
    made(engine)
    room = engine.room("december")
    tickets = [room.join(person).ticket for person in PEOPLE]
    for now_ms in (OPENS_AT_MS - 10_000, OPENS_AT_MS, OPENS_AT_MS + 500, OPENS_AT_MS + 10_000):
        clock.set_ms(now_ms)
        backend.requests.clear()
        for _ in range(20):
            for ticket in tickets:
                room.status(ticket)
        assert backend.requests["Query"] == 1
        assert sum(backend.requests.values()) <= 4, backend.requests


def test_threads_poll_while_one_refreshes(clock: ManualClock) -> None:
    """While one thread waits for a slow store, all other threads get the last view."""
    backend = Counting(MemoryStore(clock))
    engine = QuotaEngine(backend, RequestBuilder(KEY, CATALOG), clock=clock)
    made(engine)
    room = engine.room("december")
    ticket = room.join(PEOPLE[0]).ticket
    clock.advance_ms(600)
    backend.blocked = threading.Event()
    slow = threading.Thread(target=room.status, args=(ticket,))
    slow.start()
    assert backend.reached.wait(60)
    assert room.status(ticket).as_of_ms == clock.now_ms() - 600
    backend.blocked.set()
    slow.join(60)
    assert room.status(ticket).as_of_ms == clock.now_ms()


def test_polls_survive_a_short_outage(clock: ManualClock) -> None:
    """For ten seconds, polls get the last view with its time, and the store is read twice a second."""
    backend = Counting(MemoryStore(clock))
    engine = QuotaEngine(backend, RequestBuilder(KEY, CATALOG), clock=clock)
    made(engine)
    room = engine.room("december")
    ticket = room.join(PEOPLE[0]).ticket
    seen_ms = room.status(ticket).as_of_ms
    backend.error = BackendUnavailable("away")
    backend.requests.clear()
    clock.advance_ms(1_000)
    with pytest.raises(BackendUnavailable):
        room.status(ticket)
    for _ in range(100):
        assert room.status(ticket).as_of_ms == seen_ms
    assert backend.requests["Query"] == 1
    clock.advance_ms(9_000)
    for _ in range(3):
        with pytest.raises(BackendUnavailable):
            room.status(ticket)
    backend.error = None
    assert room.status(ticket).as_of_ms == clock.now_ms()


def test_calls_follow_the_places_left(engine: QuotaEngine, clock: ManualClock) -> None:
    """Three places left: five tickets are called at first; none when no place is left."""
    for day in range(7, 12):
        engine.set_capacity("surabaya", f"2026-12-{day:02d}", "online", 3 if day == 7 else 0)
    made(engine, turn_ms=60_000, units_max=1)
    room = engine.room("december")
    tickets = [room.join(person).ticket for person in PEOPLE[:50]]
    clock.set_ms(OPENS_AT_MS)
    for _ in range(10):
        found = [room.status(ticket) for ticket in tickets]
        clock.advance_ms(1_000)
    assert Counter(one.phase for one in found) == {TicketPhase.CALLED: 5, TicketPhase.WAITING: 45}
    assert {one.places_left for one in found} == {3}
    assert {one.chance for one in found if one.phase is TicketPhase.WAITING} == {Chance.MAY_NOT_REACH}
    for person in PEOPLE[100:103]:
        assert engine.reserve("surabaya", FIRST_DAY, person, service="new", session="morning").ok
    clock.advance_ms(1_000)
    room.status(tickets[0])
    clock.advance_ms(1_000)
    assert {room.status(ticket).chance for ticket in tickets} == {Chance.NONE_LEFT}
    clock.advance_ms(60_000)
    room.status(tickets[0])
    clock.advance_ms(1_000)
    assert Counter(room.status(ticket).phase for ticket in tickets) == {
        TicketPhase.TURN_MISSED: 5,
        TicketPhase.WAITING: 45,
    }


def test_a_room_with_public_entropy_waits_for_it(engine: QuotaEngine, clock: ManualClock) -> None:
    """It opens only with what the announced source has said, and not before its time."""
    made(engine, entropy_source="the numbers of the lottery of 4 December 2026")
    room = engine.room("december")
    ticket = room.join(PEOPLE[0]).ticket
    too_early = room.open("3 5 8")
    assert (too_early.status, too_early.retry_at_ms) == (RoomStatus.NOT_OPEN, OPENS_AT_MS)
    clock.set_ms(OPENS_AT_MS + 10_000)
    assert room.status(ticket).phase is TicketPhase.SHUFFLING
    assert room.open("3 5 8").ok
    assert room.open("3 5 9").status is RoomStatus.CONFLICT
    clock.advance_ms(1_000)
    assert room.status(ticket).phase is TicketPhase.CALLED
    record = room.transcript()
    assert (record.entropy_source, record.entropy) == ("the numbers of the lottery of 4 December 2026", "3 5 8")
    assert verify(record).ok


def test_a_room_closes_by_itself(engine: QuotaEngine, clock: ManualClock) -> None:
    """After its end it admits no one, issues no ticket, and the next read reveals the seed."""
    made(engine)
    room = engine.room("december")
    joined = room.join(PEOPLE[0])
    assert joined.ok
    clock.set_ms(OPENS_AT_MS + 7_200_000 - 1)
    standing = room.status(joined.ticket)
    assert (standing.phase, standing.enter_until_ms) == (TicketPhase.CALLED, OPENS_AT_MS + 7_200_000)
    clock.advance_ms(1)
    assert room.status(joined.ticket).phase is TicketPhase.ROOM_CLOSED
    assert not room.enter(joined.ticket, PEOPLE[0]).ok
    assert not room.join(PEOPLE[1]).ok
    clock.advance_ms(1_000)
    record = room.transcript()
    assert (verify(record).tickets_checked, bool(record.closing_seed)) == (1, True)


def test_many_processes_make_one_room(engine: QuotaEngine) -> None:
    """Each asks for it when it starts; the first one's seed counts. Other terms are a conflict."""
    for _ in range(3):
        made(engine)
    before = engine.room("december").transcript().commitment
    made(engine)
    assert engine.room("december").transcript().commitment == before
    room = engine.room("december")
    assert room.create("surabaya", FIRST_DAY, opens_at=OPENS_AT) is RoomStatus.CONFLICT
    late = engine.room("late")
    assert late.create("surabaya", FIRST_DAY, opens_at=OPENS_AT_MS - 4_000_000) is RoomStatus.ROOM_CLOSED


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        ({"office": "atlantis"}, "office"),
        ({"first_day": "soon"}, "day"),
        ({"last_day": "2026-12-01"}, "last_day"),
        ({"opens_at": "2026-12-04T14:00:00"}, "opens_at"),
        ({"opens_at": "at noon"}, "opens_at"),
        ({"opens_at": 1.5}, "opens_at"),
        ({"closes_at": OPENS_AT}, "closes_at"),
        ({"channel": "fax"}, "channel"),
        ({"group": "friends"}, "group"),
        ({"entropy_source": "two\nlines"}, "entropy_source"),
        ({"settings": RoomSettings(pass_grace_ms=1_000)}, "pass_grace_ms"),
        ({"settings": RoomSettings(window_ms=0)}, "window_ms"),
        ({"settings": RoomSettings(burst=-1)}, "burst"),
        ({"settings": {"burst": 5}}, "settings"),
    ],
)
def test_what_can_never_be_right_is_refused(arguments: dict[str, Any], where: str) -> None:
    """By name, and nothing is made."""
    with QuotaEngine.open(catalog=CATALOG, clock=ManualClock(OPENS_AT_MS - 1_000)) as engine:
        room = engine.room("december")
        known: dict[str, Any] = {
            "office": "surabaya",
            "first_day": FIRST_DAY,
            "last_day": LAST_DAY,
            "opens_at": OPENS_AT,
        }
        with pytest.raises(InvalidRequest, match=where):
            room.create(**{**known, **arguments})
        with pytest.raises(UnknownName, match="no such room"):
            room.join(PEOPLE[0])


def test_an_unknown_room_costs_one_read_per_refresh() -> None:
    clock = ManualClock(OPENS_AT_MS)
    backend = Counting(MemoryStore(clock))
    room = QuotaEngine(backend, RequestBuilder(KEY, CATALOG), clock=clock).room("nowhere")
    for _ in range(10):
        with pytest.raises(UnknownName, match="no such room"):
            room.status("a ticket")
    assert backend.requests == {"Query": 1}
    for name in ("", "a b", "x" * 65, "ä", None):
        with pytest.raises(InvalidRequest):
            QuotaEngine(backend, RequestBuilder(KEY, CATALOG), clock=clock).room(name)  # type: ignore[arg-type]


def test_a_ticket_is_checked_against_an_identity(engine: QuotaEngine, clock: ManualClock) -> None:
    """Without an identity, any bearer gets the status."""
    made(engine)
    room = engine.room("december")
    ticket = room.join(PEOPLE[0]).ticket
    assert room.status(ticket).phase is room.status(ticket, identity=PEOPLE[0]).phase
    for call in (
        lambda: room.status(ticket, identity=PEOPLE[1]),
        lambda: room.enter(ticket, PEOPLE[1]),
        lambda: room.enter(ticket[:-2] + "AA", PEOPLE[0]),
        lambda: room.status(None),  # type: ignore[arg-type]
        lambda: room.status(["a ticket"]),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidRequest) as caught:
            call()
        assert PEOPLE[0] not in str(caught.value)
    made(engine, "another")
    with pytest.raises(InvalidRequest, match="another room"):
        engine.room("another").status(ticket)


def test_keys_are_changed_while_a_room_is_open(clock: ManualClock) -> None:
    """Old tickets and new ones are good on processes that have both keys, and the order stays."""
    backend = MemoryStore(clock)
    before = QuotaEngine(
        backend, RequestBuilder(KEY, CATALOG, ticket_keys=TicketKeys("a", {"a": b"the first secret"})), clock=clock
    )
    both = TicketKeys("b", {"a": b"the first secret", "b": b"the second secret"})
    after = QuotaEngine(backend, RequestBuilder(KEY, CATALOG, ticket_keys=both), clock=clock)
    made(before)
    tickets = [before.room("december").join(person).ticket for person in PEOPLE[:50]]
    new = [after.room("december").join(person).ticket for person in PEOPLE[:50]]
    assert not set(tickets) & set(new)
    clock.set_ms(OPENS_AT_MS)
    room = after.room("december")
    room.status(tickets[0])
    assert [room.status(one).position for one in tickets] == [room.status(one).position for one in new]
    clock.advance_ms(1_000)
    with pytest.raises(InvalidRequest):
        before.room("december").status(new[0])


def test_the_order_is_secret_until_the_opening(clock: ManualClock) -> None:
    """Neither the store nor the transcript contains enough to compute it."""
    backend = MemoryStore(clock)
    engine = QuotaEngine(backend, RequestBuilder(KEY, CATALOG), clock=clock)
    made(engine)
    room = engine.room("december")
    room.join(PEOPLE[0])
    view: RoomView = room.view()
    closing_seed = engine._methods.requests.ticket_keys.derive_closing_seed(
        view.config.key_id, "december", view.config.nonce
    )
    seed = hashlib.sha256(f"quota_engine room seed 1\n{closing_seed}\n".encode()).hexdigest()
    for secret in (closing_seed, seed):
        assert secret not in repr(view)
        assert secret not in repr(room.transcript())


async def test_the_async_room_is_the_same(clock: ManualClock) -> None:
    """Fifty tasks join and poll; one of them looks at the store."""
    async with await AsyncQuotaEngine.open(catalog=CATALOG, clock=clock, identity_key=KEY) as engine:
        await engine.publish(CATALOG, FIRST_DAY, LAST_DAY)
        room = engine.room("december")
        assert await room.create("surabaya", FIRST_DAY, LAST_DAY, opens_at=OPENS_AT) is RoomStatus.DONE
        tickets = [one.ticket for one in await asyncio.gather(*(room.join(person) for person in PEOPLE[:50]))]
        assert len(set(tickets)) == 50
        clock.set_ms(OPENS_AT_MS)
        found = await asyncio.gather(*(room.status(ticket) for ticket in tickets))
        assert {one.phase for one in found} == {TicketPhase.CALLED}
        admission = await room.enter(tickets[0], PEOPLE[0])
        assert admission.ok
        assert (await room.view()).called_count == 50
        assert (await room.open("nothing was announced")).status is RoomStatus.CONFLICT
        assert (await room.close()).ok
        assert verify(await room.transcript()).ok
        assert (await room.status(tickets[0], identity=PEOPLE[0])).phase is TicketPhase.ROOM_CLOSED


def test_remembered_positions_are_bounded(clock: ManualClock, monkeypatch: Any) -> None:
    monkeypatch.setattr("quota_engine.workflows.room_view_cache.KNOWN_TICKETS_MAX", 10)
    with QuotaEngine.open(catalog=CATALOG, clock=clock, identity_key=KEY) as engine:
        made(engine)
        room = engine.room("december")
        tickets = [room.join(person).ticket for person in PEOPLE[:50]]
        clock.set_ms(OPENS_AT_MS)
        first = [room.status(ticket).position for ticket in tickets]
        assert [room.status(ticket).position for ticket in tickets] == first
        assert sorted(first) == list(range(1, 51))
        assert len(room._methods.cache.snapshot()._known_tickets) <= 10


def test_tickets_polled_before_the_opening_are_verified_once(clock: ManualClock, monkeypatch: Any) -> None:
    with QuotaEngine.open(catalog=CATALOG, clock=clock, identity_key=KEY) as engine:
        made(engine)
        room = engine.room("december")
        tickets = [room.join(person).ticket for person in PEOPLE[:50]]
        assert {room.status(ticket).phase for ticket in tickets} == {TicketPhase.NOT_OPEN}
        room.join(PEOPLE[50])
        clock.set_ms(OPENS_AT_MS)
        with monkeypatch.context() as patched:
            patched.setattr(RoomTickets, "read", None)
            positions = [room.status(ticket).position for ticket in tickets]
        room._methods.cache.snapshot()._known_tickets.clear()
        assert [room.status(ticket).position for ticket in tickets] == positions
        assert len(set(positions)) == 50


def test_a_view_cache_rejects_invalid_names_and_refresh_times() -> None:
    requests = RequestBuilder(KEY, CATALOG)
    for arguments in (("a.b", lambda: 0, 500), ("a", lambda: 0, 0), ("a", lambda: 0, 10_001)):
        with pytest.raises(InvalidRequest):
            RoomViewCache(requests, *arguments)


class Counting:
    """A store that counts its calls, and that a test can block or make unavailable."""

    def __init__(self, backend: MemoryStore) -> None:
        self._backend = backend
        self.requests = Counter[str]()
        self.blocked: threading.Event | None = None
        self.reached = threading.Event()
        self.error: Exception | None = None

    def apply(self, address: str, command: Any, *, ends_at_ms: float | None = None) -> Any:
        self._count("Apply", blocks=True)
        return self._backend.apply(address, command, ends_at_ms=ends_at_ms)

    def execute(self, request: StoreRequest[T], *, ends_at_ms: float | None = None) -> T:
        self._count(type(request).__name__, blocks=isinstance(request, Query))
        return self._backend.execute(request, ends_at_ms=ends_at_ms)

    def _count(self, name: str, *, blocks: bool) -> None:
        self.requests[name] += 1
        if self.error is not None:
            raise self.error
        if self.blocked is not None and blocks:
            self.reached.set()
            assert self.blocked.wait(60)

    def close(self) -> None:
        self._backend.close()
