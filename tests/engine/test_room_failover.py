"""Waiting rooms whose store loses the last changes: a ticket that the room does not have gets no pass."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from quota_engine import ManualClock, QuotaEngine, RoomSettings, RoomStatus, Status, TicketKeys, TicketPhase
from quota_engine.admission import room_pass
from quota_engine.admission.tickets import read_ticket_index
from quota_engine.domain.epochs import AdvanceEpoch
from quota_engine.domain.errors import InvalidRequest
from quota_engine.waiting_room.transcript import position_of, verify
from quota_engine.workflows.request_builder import RequestBuilder
from tests.engine.test_waiting_rooms import CATALOG, FIRST_DAY, KEY, LAST_DAY, OPENS_AT, OPENS_AT_MS, PEOPLE
from tests.support.lost_tail import LostTail
from tests.support.servers import Server, valkey_server_binary

KNOWN, LOST, LATER = PEOPLE[:3]
KEYS = TicketKeys("a", {"a": b"the secret of the tickets"})


@pytest.fixture(scope="module")
def valkey() -> Iterator[Server]:
    with Server(valkey_server_binary()) as server:
        yield server


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(OPENS_AT_MS - 3_600_000)


@pytest.fixture(params=["memory", "valkey"])
def server(request: pytest.FixtureRequest) -> Server | None:
    if request.param == "memory":
        return None
    found: Server = request.getfixturevalue("valkey")
    found.ask("FLUSHALL")
    return found


@pytest.fixture
def engine(server: Server | None, clock: ManualClock) -> Iterator[QuotaEngine]:
    """An engine with a waiting room; its reserves need a pass."""
    url = "memory://" if server is None else server.url
    with QuotaEngine.open(
        url, identity_key=KEY, catalog=CATALOG, clock=clock, ticket_keys=KEYS, admission=room_pass(KEYS)
    ) as engine:
        engine.publish(CATALOG, FIRST_DAY, LAST_DAY)
        yield engine


def created(engine: QuotaEngine, entropy_source: str = "") -> None:
    settings = RoomSettings(per_minute_max=6_000, burst=200)
    status = engine.room("december").create(
        "surabaya", FIRST_DAY, LAST_DAY, opens_at=OPENS_AT, entropy_source=entropy_source, settings=settings
    )
    assert status is RoomStatus.DONE


def reserve(engine: QuotaEngine, person: str, admission_pass: str) -> Status:
    outcome = engine.reserve(
        "surabaya", FIRST_DAY, person, admission_pass=admission_pass, service="new", session="morning"
    )
    return outcome.status


@pytest.fixture
def tail(engine: QuotaEngine, server: Server | None) -> LostTail:
    return LostTail(engine._store, server, "~room.december")


def another_worker(engine: QuotaEngine, clock: ManualClock) -> QuotaEngine:
    """Return an engine on the same store, with no view of any room."""
    return QuotaEngine(engine._store, RequestBuilder(KEY, CATALOG, ticket_keys=KEYS), clock=clock)


def tickets_of_one_number(engine: QuotaEngine, tail: LostTail, *, advances: bool) -> tuple[str, str]:
    """Return a ticket that the room has lost, and the ticket of another applicant with the same number."""
    room = engine.room("december")
    room.join(KNOWN)
    tail.save()
    lost = room.join(LOST).ticket
    tail.fail_over(advances=advances)
    later = room.join(LATER).ticket
    assert read_ticket_index(lost).offset == read_ticket_index(later).offset == 1
    return lost, later


def test_lost_ticket_is_told_to_join_again(engine: QuotaEngine, tail: LostTail, clock: ManualClock) -> None:
    """Before the opening the applicant loses nothing: the new ticket is in the same lot as all others."""
    created(engine)
    room = engine.room("december")
    lost, later = tickets_of_one_number(engine, tail, advances=True)
    clock.advance_ms(1_000)
    assert room.status(lost).phase is TicketPhase.TICKET_LOST
    assert room.status(later).phase is TicketPhase.NOT_OPEN
    assert room.status(room.join(KNOWN).ticket).phase is TicketPhase.NOT_OPEN
    again = room.join(LOST, replaces_ticket=lost)
    assert (read_ticket_index(again.ticket), again.replayed) == ((2, 2), False)
    assert room.join(LATER).ticket == later
    clock.set_ms(OPENS_AT_MS)
    assert {room.enter(ticket, person).ok for ticket, person in ((later, LATER), (again.ticket, LOST))} == {True}
    entered = room.enter(lost, LOST)
    assert (entered.ticket_status.phase, entered.admission_pass) == (TicketPhase.TICKET_LOST, "")


def test_unnoticed_loss_gives_no_pass(engine: QuotaEngine, tail: LostTail, clock: ManualClock) -> None:
    """Without a fence the epoch stays. The engine asks the store for the applicant's ticket before it gives a pass."""
    created(engine)
    room = engine.room("december")
    lost, later = tickets_of_one_number(engine, tail, advances=False)
    clock.set_ms(OPENS_AT_MS)
    assert room.enter(later, LATER).ok
    assert room.enter(lost, LOST).ticket_status.phase is TicketPhase.TICKET_LOST
    assert read_ticket_index(room.join(LOST).ticket).offset == 2


def test_pass_of_a_lost_ticket_does_not_refuse_another(engine: QuotaEngine, tail: LostTail, clock: ManualClock) -> None:
    """The first holder of the number entered and reserved before the failover."""
    created(engine)
    room = engine.room("december")
    room.join(KNOWN)
    tail.save()
    first = room.join(LOST).ticket
    clock.set_ms(OPENS_AT_MS)
    used = room.enter(first, LOST).admission_pass
    assert reserve(engine, LOST, used) is Status.HELD
    tail.fail_over()
    clock.set_ms(OPENS_AT_MS - 1_000)
    ticket = room.join(LATER).ticket
    clock.set_ms(OPENS_AT_MS + 2_000)
    entered = room.enter(ticket, LATER)
    assert read_ticket_index(ticket).offset == read_ticket_index(first).offset
    assert reserve(engine, LATER, entered.admission_pass) is Status.HELD


def test_workers_agree_on_positions_after_a_failover(engine: QuotaEngine, tail: LostTail, clock: ManualClock) -> None:
    """A worker that remembers positions of the lost order drops them with the epoch."""
    created(engine)
    room = engine.room("december")
    kept = [room.join(person).ticket for person in PEOPLE[:40]]
    tail.save()
    for person in PEOPLE[40:60]:
        room.join(person)
    clock.set_ms(OPENS_AT_MS)
    before = [room.status(ticket).position for ticket in kept]
    tail.fail_over()
    clock.advance_ms(2_000)
    after = [room.status(ticket) for ticket in kept]
    elsewhere = another_worker(engine, clock).room("december")
    assert [elsewhere.status(ticket).position for ticket in kept] == [status.position for status in after]
    assert {status.epoch for status in after} == {2}
    assert sorted(status.position for status in after) == list(range(1, 41))
    assert before != [status.position for status in after]
    record = room.transcript()
    assert [position_of(record, number) for number in range(1, 41)] == [status.position for status in after]
    assert verify(record).ok


def test_ticket_of_a_later_epoch_refreshes_the_view(engine: QuotaEngine, tail: LostTail, clock: ManualClock) -> None:
    """Another worker has joined the applicant after the failover; this one still has its older view."""
    created(engine)
    room, other = engine.room("december"), another_worker(engine, clock).room("december")
    room.join(KNOWN)
    engine._store.apply("~room.december", AdvanceEpoch(0))
    assert room.view().epoch == 1
    other.view()
    ticket = other.join(LATER).ticket
    status = room.status(ticket)
    assert (status.phase, status.epoch) == (TicketPhase.NOT_OPEN, 2)


def test_enter_reads_the_room_after_a_failover(engine: QuotaEngine, tail: LostTail, clock: ManualClock) -> None:
    """The calls of the old view are lost. The engine opens the room again, and the pass follows from the new call."""
    created(engine, entropy_source="the national lottery")
    room = engine.room("december")
    ticket = room.join(KNOWN).ticket
    tail.save()
    clock.set_ms(OPENS_AT_MS)
    room.view()
    room.open("7 13 21")
    assert room.status(ticket).phase is TicketPhase.WAITING
    clock.advance_ms(1_000)
    assert room.status(ticket).phase is TicketPhase.CALLED
    tail.fail_over()
    called_at_ms = clock.now_ms()
    entered = room.enter(ticket, KNOWN)
    assert (entered.ok, entered.ticket_status.epoch) == (True, 2)
    assert entered.ticket_status.enter_until_ms == called_at_ms + 300_000


def test_lost_opening_is_repeated_with_its_entropy(
    engine: QuotaEngine, tail: LostTail, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker that has seen the room open allows no other text. One that has not reports nothing it cannot know."""
    created(engine, entropy_source="the national lottery")
    room = engine.room("december")
    ticket = room.join(KNOWN).ticket
    clock.set_ms(OPENS_AT_MS)
    tail.save()
    assert room.open("7 13 21").ok
    published = room.transcript()
    tail.fail_over()
    assert room.open("7 13 22").status is RoomStatus.CONFLICT
    clock.advance_ms(1_000)
    assert room.view().entropy == "7 13 21"
    assert verify(room.transcript(), [published]).ok
    assert room.status(ticket).epoch == 2


def test_another_order_after_a_failover_is_reported(
    engine: QuotaEngine, tail: LostTail, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker that has not seen the opening has to name the epoch. Another text is in the log and the verification."""
    created(engine, entropy_source="the national lottery")
    room = engine.room("december")
    room.join(KNOWN)
    clock.set_ms(OPENS_AT_MS)
    tail.save()
    assert room.open("7 13 21").ok
    published = room.transcript()
    tail.fail_over()
    other = another_worker(engine, clock).room("december")
    refused = other.open("7 13 22")
    assert (refused.status, refused.room_epoch) == (RoomStatus.EPOCH_CHANGED, 2)
    assert other.open("7 13 22", epoch=2).ok
    clock.advance_ms(1_000)
    with caplog.at_level(logging.ERROR, "quota_engine"):
        record = room.transcript()
    assert "room december, epoch 2 after 1: entropy has changed since it was revealed" in caplog.messages
    assert verify(record, [published]).findings == ("entropy has changed since it was revealed",)


def test_lost_close_is_repeated(engine: QuotaEngine, tail: LostTail, clock: ManualClock) -> None:
    """The closing seed is public, so that the order of later windows could be computed in advance."""
    created(engine)
    room = engine.room("december")
    room.join(KNOWN)
    clock.set_ms(OPENS_AT_MS)
    assert not room.view().closed_at_ms
    tail.save()
    assert room.close().ok
    tail.fail_over()
    clock.advance_ms(1_000)
    assert room.view().closed_at_ms == clock.now_ms()


def test_lost_room_is_created_with_its_commitment(engine: QuotaEngine, clock: ManualClock) -> None:
    """Another process, on a store that has lost everything, publishes the same commitment."""
    created(engine)
    commitment = engine.room("december").transcript().commitment
    with QuotaEngine.open(identity_key=KEY, catalog=CATALOG, clock=clock, ticket_keys=KEYS) as other:
        created(other)
        assert other.room("december").transcript().commitment == commitment
        other.room("january").create("surabaya", FIRST_DAY, LAST_DAY, opens_at=OPENS_AT)
        assert other.room("january").transcript().commitment != commitment


def test_ticket_in_its_turn_is_not_replaced(engine: QuotaEngine, tail: LostTail, clock: ManualClock) -> None:
    """Only a ticket that missed its turn or was lost can be replaced."""
    created(engine)
    ticket = engine.room("december").join(KNOWN).ticket
    clock.set_ms(OPENS_AT_MS)
    with pytest.raises(InvalidRequest, match="that is CALLED"):
        engine.room("december").join(KNOWN, replaces_ticket=ticket)
