"""A booking service for an engine or a client, with public names only. A type checker checks it; a test runs it."""

from __future__ import annotations

import datetime
from typing import assert_type

from quota_engine import (
    AsyncQuotaEngine,
    AuditReport,
    AwardReport,
    ConsumerGroupView,
    DayView,
    DrawChoice,
    DrawFiles,
    DrawOutcome,
    DrawView,
    EnterResult,
    InvalidRequest,
    JoinResult,
    Outcome,
    OutcomeUnknown,
    QuotaEngine,
    RecordedEvent,
    Reservation,
    TicketStatus,
)
from quota_engine.client import (
    AsyncServiceClient,
    RoomChanged,
    ServiceClient,
    ServiceDraw,
    ServiceTicketStatus,
    ServiceWaitingRoom,
)

Places = QuotaEngine | ServiceClient
AsyncPlaces = AsyncQuotaEngine | AsyncServiceClient


def book(places: Places, office: str, day: datetime.date, nik: str, key: str) -> list[int]:
    """The queue numbers; none if there is no place. Nothing in here says which of the two it is."""
    held = assert_type(
        places.reserve(office, day, nik, service="new", session="morning", idempotency_key=key, hold_ttl_ms=60_000),
        Outcome,
    )
    if not held.ok:
        return []
    confirmed = assert_type(places.confirm(held.reference, owner=nik), Outcome)
    record = assert_type(places.lookup(held.reference), Reservation | None)
    assert record is None or record.queue_numbers == confirmed.queue_numbers
    return list(confirmed.queue_numbers)


def left(places: Places, office: str, day: datetime.date) -> int:
    """Places that are left of a quota."""
    (view,) = assert_type(places.availability(office, day), list[DayView])
    return view.quotas["online"].available


def pass_of(places: Places, room: str, ticket: str, nik: str) -> str:
    """A pass, if the ticket has its turn."""
    waiting = places.room(room)
    standing: TicketStatus = waiting.status(ticket)
    assert standing.opens_at_ms
    return assert_type(waiting.enter(ticket, nik), EnterResult).admission_pass


def consume(places: Places, office: str) -> int:
    """Acknowledge the events of one consumer of a group. Return the acknowledged number."""
    events = assert_type(places.events(office, consumer_group="mail", consumer="one", limit=100), list[RecordedEvent])
    places.acknowledge(office, "mail", (one.number for one in events))
    (group,) = assert_type(places.list_consumer_groups(office), list[ConsumerGroupView])
    return group.acknowledged


async def book_async(places: AsyncPlaces, office: str, day: datetime.date, nik: str) -> list[int]:
    """The same, awaited."""
    held = assert_type(await places.reserve(office, day, [nik], service="new", session="morning"), Outcome)
    return list((await places.confirm(held.reference)).queue_numbers) if held.ok else []


def only_a_client(client: ServiceClient) -> None:
    """Check the types of a client's methods."""
    room = assert_type(client.room("hall"), ServiceWaitingRoom)
    assert_type(room.join("ani"), JoinResult)
    assert_type(room.status("ticket"), ServiceTicketStatus)
    assert_type(room.close(), RoomChanged)
    draw = assert_type(client.draw("dec"), ServiceDraw)
    assert_type(draw.view(), DrawView | None)
    assert_type(draw.apply("ani", [DrawChoice("surabaya", "2026-12-07")]), DrawOutcome)
    assert_type(draw.files(), DrawFiles | None)
    assert_type(draw.award(), AwardReport)
    assert_type(client.earliest_available_day("surabaya", "2026-12-07"), datetime.date | None)
    assert_type(client.audit(), AuditReport)
    assert_type(client.list_offices(), list[str])


async def only_an_async_client(client: AsyncServiceClient) -> None:
    """The same, awaited."""
    assert_type(await client.audit(), AuditReport)
    assert_type(await client.room("hall").status("ticket"), ServiceTicketStatus)
    assert_type(await client.draw("dec").files(), DrawFiles | None)


def mistakes(client: ServiceClient) -> None:
    """Each is found before it runs: a comment that is not needed is an error itself."""
    client.reserve("surabaya", "2026-12-07")  # type: ignore[call-arg]
    client.reserve("surabaya", "2026-12-07", "ani", "new")  # type: ignore[call-arg]
    client.reserve("surabaya", "2026-12-07", "ani", sevice="new")  # type: ignore[call-arg]
    client.confirm("surabaya~x", expected_version="1")  # type: ignore[arg-type]
    client.publish("2026-12-07", catalog=None)  # type: ignore[call-arg]
    client.reserves("surabaya")  # type: ignore[attr-defined]
    client.audit().findings.append("")  # type: ignore[attr-defined]


def until_sure(places: Places, reference: str) -> Outcome | str:
    """The errors are those of the engine: the outcome, or what was wrong."""
    for _ in range(3):
        try:
            return places.cancel(reference)
        except OutcomeUnknown:
            continue
        except InvalidRequest as error:
            return error.where
    return "the service"
