"""The synchronous and the asynchronous engine on the store in memory."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import inspect
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from quota_engine import (
    AsyncQuotaEngine,
    AsyncWaitingRoom,
    BackendUnavailable,
    Catalog,
    InvalidRequest,
    QuotaEngine,
    State,
    Status,
    UnknownName,
    WaitingRoom,
    WrongIdentityKey,
    load_catalog,
)
from quota_engine.catalog import catalog_from, day_terms
from quota_engine.catalog.schema import Hours
from quota_engine.clocks import ManualClock, SystemClock
from quota_engine.domain.model import Rules
from quota_engine.ports import Describe, RecordedEvent
from quota_engine.stores.memory import MemoryStore
from quota_engine.workflows.request_builder import RequestBuilder
from tests.support.catalog_samples import sample
from tests.support.identities import nik

DAY = datetime.date(2026, 12, 7)
NIK = "3578012345678901"
OTHER = "3578012345678902"
KEY = b"a key for tests, and only them"


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog("surabaya")


@pytest.fixture
def clock(catalog: Catalog) -> ManualClock:
    terms = day_terms(catalog, "surabaya", DAY)
    assert terms is not None
    return ManualClock(terms.opens_at_ms - 3_600_000)


@pytest.fixture
def engine(catalog: Catalog, clock: ManualClock) -> Iterator[QuotaEngine]:
    ids = iter(f"made-up-{number}" for number in range(10**6))
    with QuotaEngine.open(identity_key=KEY, clock=clock, id_factory=lambda: next(ids)) as engine:
        engine.publish(catalog, DAY, DAY + datetime.timedelta(days=4))
        clock.advance_ms(3_600_000)
        yield engine


def book(engine: QuotaEngine, identity: Any = NIK, **more: Any) -> Any:
    return engine.reserve("surabaya", DAY, identity, service="new", session="morning", **more)


def test_from_hold_to_attendance(engine: QuotaEngine, clock: ManualClock) -> None:
    """Reserve, confirm with a queue number, look up, check in."""
    held = book(engine)
    assert (held.status, held.reservation.state) == (Status.HELD, State.HELD)
    assert held.reference == "surabaya~made-up-0"
    confirmed = engine.confirm(held.reference, owner=NIK, expected_version=1)
    assert list(confirmed.queue_numbers) == [1]
    assert engine.lookup(held.reference) == confirmed.reservation
    clock.set_ms(engine.availability("surabaya", DAY)[0].starts_at_ms)
    assert engine.check_in(held.reference).status is Status.ATTENDED
    assert engine.mark_no_show(held.reference).status is Status.WRONG_STATE
    assert engine.undo_attendance(held.reference, expected_version=3).status is Status.CONFIRMED
    assert engine.mark_no_show(held.reference).status is Status.NO_SHOW
    clock.advance_ms(Rules().undo_window_ms)
    assert engine.undo_attendance(held.reference).status is Status.TOO_LATE
    assert engine.audit().ok


def test_a_party_with_fallback_to_the_general_places(engine: QuotaEngine) -> None:
    """Five come together in the priority group; when it is full, the next party gets general places."""
    engine.set_capacity("surabaya", DAY, "priority", 5)
    first = book(engine, [nik(one) for one in range(5)], group="priority")
    second = book(engine, [nik(5), nik(6)], group="priority")
    assert "priority" in first.reservation.quotas
    assert "online" in second.reservation.quotas
    assert engine.confirm(first.reference).queue_numbers == range(1, 6)
    assert engine.confirm(second.reference).queue_numbers == range(6, 8)


def test_extend_gives_a_hold_more_time(engine: QuotaEngine, clock: ManualClock) -> None:
    held = book(engine)
    assert (held.extensions_left, engine.extend(held.reference, 1, owner=OTHER).status) == (2, Status.NOT_OWNER)
    extended = engine.extend(held.reference, 1, owner=NIK)
    assert (extended.status, extended.extensions_left) == (Status.HELD, 1)
    assert extended.deadline_at_ms == held.deadline_at_ms + 300_000
    repeated = engine.extend(held.reference, 1)
    assert (repeated.replayed, repeated.deadline_at_ms) == (True, extended.deadline_at_ms)
    clock.set_ms(held.deadline_at_ms)
    assert engine.extend(held.reference, 2).extensions_left == 0
    assert engine.extend(held.reference, 3).status is Status.EXTENSIONS_EXCEEDED
    clock.advance_ms(600_000)
    assert engine.confirm(held.reference).status is Status.HOLD_EXPIRED


def test_an_applicant_leaves_a_party(engine: QuotaEngine) -> None:
    """The rest keep their places and numbers, and the key of the reserve still finds them."""
    held = book(engine, [NIK, OTHER, nik(1)], idempotency_key="three")
    assert engine.remove_applicant(held.reference, nik(2)).status is Status.NOT_IN_PARTY
    assert list(engine.confirm(held.reference).queue_numbers) == [1, 2, 3]
    left = engine.remove_applicant(held.reference, OTHER, owner=OTHER)
    assert (left.status, list(left.queue_numbers)) == (Status.CONFIRMED, [1, 3])
    assert engine.remove_applicant(held.reference, OTHER, owner=OTHER).replayed
    assert book(engine, [NIK, OTHER, nik(1)], idempotency_key="three").replayed
    assert engine.confirm(held.reference, owner=OTHER).status is Status.NOT_OWNER
    assert list(engine.confirm(book(engine, OTHER).reference).queue_numbers) == [4]
    assert engine.remove_applicant(held.reference, NIK).ok
    assert engine.remove_applicant(held.reference, nik(1)).status is Status.PARTY_TOO_SMALL
    assert engine.audit().ok


def test_an_operator_replaces_an_applicant(engine: QuotaEngine) -> None:
    held = book(engine, [NIK, OTHER])
    numbers = engine.confirm(held.reference).queue_numbers
    swapped = engine.replace_applicant(held.reference, OTHER, nik(1), expected_version=2)
    assert (swapped.status, swapped.queue_numbers) == (Status.CONFIRMED, numbers)
    assert engine.replace_applicant(held.reference, OTHER, nik(1), expected_version=2).replayed
    assert engine.cancel(held.reference, owner=OTHER).status is Status.NOT_OWNER
    assert book(engine, nik(1)).status is Status.IDENTITY_LIMIT
    assert book(engine, OTHER).status is Status.HELD
    shown = [getattr(one.event, "reservation", None) for one in engine.events("surabaya")]
    assert swapped.reservation in shown
    assert engine.audit().ok


def test_release_cancel_and_reschedule(engine: QuotaEngine) -> None:
    """The other ways out of a hold and of a place."""
    reference = book(engine).reference
    assert engine.release(reference, owner=OTHER).status is Status.NOT_OWNER
    assert engine.release(reference, owner=NIK).status is Status.RELEASED
    reference = book(engine).reference
    assert engine.confirm(reference).ok
    moved = engine.reschedule(reference, "2026-12-09", service="new", session="afternoon")
    assert moved.reservation is not None
    assert (moved.status, moved.reservation.day) == (Status.CONFIRMED, datetime.date(2026, 12, 9).toordinal())
    assert engine.cancel(reference).status is Status.CANCELLED


def test_a_key_finds_the_same_reservation(engine: QuotaEngine) -> None:
    """Sent again after a lost answer, the same key gives the same hold; the same person under a new key, too."""
    first = book(engine, idempotency_key="lost-answer")
    again = book(engine, idempotency_key="lost-answer")
    new_login = book(engine)
    assert again.replayed
    assert new_login.resumed
    assert first.reservation == again.reservation == new_login.reservation
    assert book(engine, OTHER, idempotency_key="lost-answer").status is Status.CONFLICT


def test_operators_change_a_day(engine: QuotaEngine) -> None:
    """Capacities, closing and opening, reallocation."""
    book(engine)
    lowered = engine.set_capacity("surabaya", DAY, "online", 0)
    assert (lowered.status, lowered.overbooked) == (Status.DONE, 1)
    assert book(engine, OTHER).status is Status.SOLD_OUT
    assert engine.set_capacity("surabaya", DAY, "online", 2).overbooked == 0
    assert engine.close_day("surabaya", DAY).ok
    assert book(engine, OTHER).status is Status.DAY_CLOSED
    assert engine.open_day("surabaya", DAY).ok
    assert engine.reallocate_unused("surabaya", DAY, "kiosk").units == 30
    assert engine.release_parked("surabaya", DAY, "online").units == 0
    assert engine.expire("surabaya", DAY).units == 0
    assert engine.audit("surabaya").ok


def test_one_offices_mistake_stops_no_other() -> None:
    """The report names the office with invalid hours; the other office and a range of years are published."""
    raw = sample()
    raw["offices"][1]["schedule"] = "friday"
    catalog = catalog_from(raw)
    # The validation of the file does not let such an office through.
    wrong = dataclasses.replace(catalog.offices["west"], hours=Hours(start=datetime.time(16), end=datetime.time(8)))
    catalog = dataclasses.replace(catalog, offices={"west": wrong, "east": catalog.offices["east"]})
    with QuotaEngine.open("memory://", catalog=catalog, clock=ManualClock.at("2026-11-20T00:00Z")) as engine:
        report = engine.publish(catalog, "2026-12-07", "2026-12-11")
        assert report.days_published == 5
        assert len(engine.availability("east", "2026-12-07", "2026-12-11")) == 5
        (problem,) = report.problems
        assert problem.startswith("west: 5 days cannot be published, the first is 2026-12-07: day: times out of order")
        with pytest.raises(InvalidRequest, match="years 1972 to 2098"):
            engine.publish(catalog, "1971-12-31", "1972-01-03")


def test_publish_of_some_offices() -> None:
    catalog = catalog_from(sample())
    with QuotaEngine.open("memory://", catalog=catalog, clock=ManualClock.at("2026-11-20T00:00Z")) as engine:
        assert engine.publish(catalog, "2026-12-07", offices=["east"]).offices == 1
        assert engine.list_offices() == ["east"]
        with pytest.raises(UnknownName, match="office"):
            engine.publish(catalog, "2026-12-07", offices=["north"])


def test_publishing_again_keeps_what_operators_set(engine: QuotaEngine, catalog: Catalog) -> None:
    """Every process publishes when it starts; that takes nothing back."""
    engine.set_capacity("surabaya", DAY, "online", 7)
    report = engine.publish(catalog, DAY, "2026-12-11")
    assert (report.offices, report.days_published, report.days_unchanged, report.days_over) == (1, 0, 5, 0)
    assert engine.availability("surabaya", DAY)[0].quotas["online"].capacity == 7
    assert engine.publish(catalog, "2026-01-05").days_over == 1
    assert (
        engine.publish(catalog, DAY + datetime.timedelta(days=5), DAY + datetime.timedelta(days=6)).days_published == 0
    )


def test_a_lookup_advances_the_wait_list(engine: QuotaEngine, clock: ManualClock) -> None:
    """The offer needs no sweep."""
    catalog = load_catalog("surabaya")
    with QuotaEngine.open(identity_key=KEY, clock=clock) as engine:
        engine.publish(catalog, DAY)
        _serve_online_by_wait_list(engine)
        engine.set_capacity("surabaya", DAY, "online", 1)
        held = book(engine)
        waiting = book(engine, OTHER, join_wait_list=True)
        assert waiting.status is Status.WAITING
        assert engine.lookup(waiting.reference) == waiting.reservation
        clock.set_ms(held.reservation.deadline_at_ms)
        offered = engine.lookup(waiting.reference)
        assert offered is not None
        assert offered.state is State.HELD


def _serve_online_by_wait_list(engine: QuotaEngine) -> None:
    from msgspec.structs import replace

    from quota_engine.domain.commands import Publish
    from quota_engine.domain.model import ReRelease, ReReleaseRule

    terms = day_terms(load_catalog("surabaya"), "surabaya", DAY)
    assert terms is not None
    quotas = tuple(replace(quota, re_release=ReRelease(ReReleaseRule.WAIT_LIST)) for quota in terms.quotas)
    engine._store.apply("surabaya", Publish(DAY.toordinal(), replace(terms, quotas=quotas)))


def test_events_are_numbered_and_trimmed(engine: QuotaEngine) -> None:
    """Consumers page through the events and drop what all have read."""
    book(engine)
    events = engine.events("surabaya")
    assert [one.number for one in events] == list(range(1, len(events) + 1))
    assert engine.events("surabaya", after=2, limit=1) == events[2:3]
    assert engine.trim_events("surabaya", 2) == len(events) - 2
    assert engine.events("surabaya") == events[2:]


def test_consumers_share_the_events(engine: QuotaEngine, clock: ManualClock) -> None:
    """An idle consumer loses its events to another, and pending events are not trimmed."""
    events = engine.events("surabaya")
    assert engine.create_consumer_group("surabaya", "mail", after=1)
    assert engine.events("surabaya", consumer_group="mail", consumer="w1", limit=2) == events[1:3]
    assert engine.events("surabaya", consumer_group="mail", consumer="w2") == events[3:]
    assert engine.acknowledge("surabaya", "mail", (one.number for one in events[3:])) == len(events) - 3
    clock.advance_ms(60_000)
    assert engine.events("surabaya", consumer_group="mail", consumer="w2", min_idle_ms=60_001) == []
    assert engine.events("surabaya", consumer_group="mail", consumer="w2") == events[1:3]
    assert engine.trim_events("surabaya", len(events)) == len(events) - 1
    (group,) = engine.list_consumer_groups("surabaya")
    assert (group.name, group.acknowledged, group.pending, group.lag) == ("mail", 1, 2, 0)
    assert [lease.consumer for lease in group.leases] == ["w2"]
    assert engine.delete_consumer_group("surabaya", "mail")
    assert engine.list_consumer_groups("surabaya") == []
    assert engine.audit().ok


BAD: list[tuple[str, Callable[[QuotaEngine], object], type[Exception], str]] = [
    ("office", lambda e: e.reserve("surabayo", DAY, NIK), UnknownName, "office: unknown office 'surabayo'"),
    ("office type", lambda e: e.reserve(["x"], DAY, NIK), InvalidRequest, "not all are strings"),  # type: ignore[arg-type]
    (
        "office set",
        lambda e: e.set_capacity("nowhere", DAY, "online", 1),
        UnknownName,
        "office: unknown office 'nowhere'",
    ),
    ("service", lambda e: book_as(e, service="visa"), UnknownName, "service: unknown service 'visa'"),
    ("session", lambda e: book_as(e, session="night"), UnknownName, "session: unknown session 'night'"),
    ("channel", lambda e: book_as(e, channel="phone"), UnknownName, "channel: unknown channel 'phone'"),
    ("group", lambda e: book_as(e, group="friends"), UnknownName, "group: unknown group 'friends'"),
    ("no session", lambda e: book_as(e, session=""), InvalidRequest, "session"),
    ("type", lambda e: book_as(e, session=3), InvalidRequest, "not all are strings"),
    ("no such date", lambda e: e.reserve("surabaya", "2026-02-30", NIK), InvalidRequest, "day: no date that exists"),
    ("date form", lambda e: e.reserve("surabaya", "20261207", NIK), InvalidRequest, "an ISO date such as 2026-12-01"),
    ("date type", lambda e: e.reserve("surabaya", 1.5, NIK), InvalidRequest, "day: a float"),  # type: ignore[arg-type]
    ("a moment", lambda e: e.close_day("surabaya", datetime.datetime(2026, 12, 7)), InvalidRequest, "day: a datetime"),  # noqa: DTZ001
    ("ordinal", lambda e: e.close_day("surabaya", -3), InvalidRequest, "day: -3"),
    ("nobody", lambda e: book(e, []), InvalidRequest, "applicants: 0 applicants"),
    ("a crowd", lambda e: book(e, [str(one) for one in range(101)]), InvalidRequest, "applicants: 101 applicants"),
    ("not a list", lambda e: book(e, {NIK}), InvalidRequest, "applicants: not a list"),
    ("number", lambda e: book(e, 3578), InvalidRequest, "applicants: not a list"),
    ("twice", lambda e: book(e, [NIK, NIK]), InvalidRequest, "applicants: one applicant twice"),
    ("control", lambda e: book(e, [NIK, "35\x0078"]), InvalidRequest, "applicants[1]: not a usable identity"),
    ("empty", lambda e: book(e, ""), InvalidRequest, "applicants: not a usable identity"),
    ("key brace", lambda e: book(e, idempotency_key="{x}"), InvalidRequest, "idempotency_key: not a valid id"),
    ("key long", lambda e: book(e, idempotency_key="x" * 65), InvalidRequest, "idempotency_key: not a valid id"),
    ("key empty", lambda e: book(e, idempotency_key=""), InvalidRequest, "idempotency_key: an empty id"),
    (
        "join_wait_list",
        lambda e: book(e, join_wait_list="yes"),
        InvalidRequest,
        "join_wait_list: a str; expected True or False",
    ),
    ("reacquire", lambda e: e.confirm("surabaya~x", reacquire=1), InvalidRequest, "reacquire: a int"),  # type: ignore[arg-type]
    ("audit", lambda e: e.audit("nowhere"), UnknownName, "office: unknown office 'nowhere'"),
    ("swapped", lambda e: e.reserve(NIK, DAY, "surabaya"), UnknownName, "unknown office name (hidden"),
    ("swapped day", lambda e: e.reserve("surabaya", int(NIK), "x"), InvalidRequest, "an integer of more than 48 bits"),
    ("catalog", lambda e: e.publish("surabaya", DAY), InvalidRequest, "catalog: a str"),  # type: ignore[arg-type]
    ("ttl", lambda e: book(e, hold_ttl_ms=-5), InvalidRequest, "hold_ttl_ms: -5"),
    (
        "bounds",
        lambda e: e.hold_remaining_histogram("surabaya", DAY, [5, 5]),
        InvalidRequest,
        "bounds_ms[1]: 5; expected an integer",
    ),
    (
        "bounds type",
        lambda e: e.hold_remaining_histogram("surabaya", DAY, 5),  # type: ignore[arg-type]
        InvalidRequest,
        "bounds_ms: not such a list",
    ),
    (
        "many bounds",
        lambda e: e.hold_remaining_histogram("surabaya", DAY, list(range(17))),
        InvalidRequest,
        "at most 16 bounds",
    ),
    ("reference", lambda e: e.confirm("surabaya"), InvalidRequest, "reference: not a reference"),
    ("reference type", lambda e: e.confirm(7), InvalidRequest, "reference: not a reference"),  # type: ignore[arg-type]
    ("reference id", lambda e: e.cancel("surabaya~{}"), InvalidRequest, "reference (its id): not a valid id"),
    ("reference office", lambda e: e.lookup("~x"), InvalidRequest, "reference (its office): an empty id"),
    ("owner", lambda e: e.confirm("surabaya~x", owner=""), InvalidRequest, "owner: not a usable identity"),
    ("version", lambda e: e.release("surabaya~x", expected_version=-1), InvalidRequest, "version: -1"),
    ("capacity", lambda e: e.set_capacity("surabaya", DAY, "online", -1), InvalidRequest, "capacity: -1"),
    ("range", lambda e: e.availability("surabaya", DAY, "2026-12-01"), InvalidRequest, "first_day, last_day: -5 days"),
    ("long range", lambda e: e.availability("surabaya", 1, 401), InvalidRequest, "401 days; expected 1 to 400"),
    ("after", lambda e: e.events("surabaya", after=-1), InvalidRequest, "after: -1"),
    ("limit", lambda e: e.events("surabaya", limit=0), InvalidRequest, "limit: 0"),
    (
        "after",
        lambda e: e.events("surabaya", 1, consumer_group="g", consumer="c"),
        InvalidRequest,
        "after: given with a group",
    ),
    ("consumer", lambda e: e.events("surabaya", consumer_group="g"), InvalidRequest, "only one of them"),
    ("group", lambda e: e.events("surabaya", consumer="c"), InvalidRequest, "only one of them"),
    (
        "group",
        lambda e: e.events("surabaya", consumer_group="a b", consumer="c"),
        InvalidRequest,
        "group: not a valid id",
    ),
    (
        "consumer",
        lambda e: e.events("surabaya", consumer_group="g", consumer="~"),
        InvalidRequest,
        "consumer: not a valid id",
    ),
    (
        "limit",
        lambda e: e.events("surabaya", consumer_group="g", consumer="c", limit=10_001),
        InvalidRequest,
        "limit: 10001",
    ),
    (
        "min_idle_ms",
        lambda e: e.events("surabaya", consumer_group="g", consumer="c", min_idle_ms=-1),
        InvalidRequest,
        "min_idle_ms: -1",
    ),
    ("numbers", lambda e: e.acknowledge("surabaya", "g", [0]), InvalidRequest, "numbers: 0"),
    ("numbers", lambda e: e.acknowledge("surabaya", "g", range(10_001)), InvalidRequest, "numbers: more than 10000"),
    ("numbers", lambda e: e.acknowledge("surabaya", "g", 7), InvalidRequest, "numbers: a int"),  # type: ignore[arg-type]
    ("group", lambda e: e.acknowledge("surabaya", "", []), InvalidRequest, "group: an empty id"),
    ("group", lambda e: e.create_consumer_group("surabaya", "a b"), InvalidRequest, "group: not a valid id"),
    ("after", lambda e: e.create_consumer_group("surabaya", "g", -1), InvalidRequest, "after: -1"),
    ("group", lambda e: e.delete_consumer_group("surabaya", "a b"), InvalidRequest, "group: not a valid id"),
    ("events", lambda e: e.reconcile("surabaya", "x"), InvalidRequest, "events: not a list of events"),  # type: ignore[arg-type]
    ("events", lambda e: e.reconcile("surabaya", e.events("surabaya") * 400), InvalidRequest, "expected at most 1000"),
    ("events", lambda e: e.reconcile("surabaya", [moved(e, 1)]), InvalidRequest, "is another event here"),
    ("events", lambda e: e.reconcile("surabaya", [moved(e, 99)]), InvalidRequest, "number 99 follows"),
    ("office", lambda e: e.reconcile("nowhere"), UnknownName, "nowhere"),
    ("office", lambda e: e.list_consumer_groups("nowhere"), UnknownName, "nowhere"),
    ("through", lambda e: e.trim_events("surabaya", -1), InvalidRequest, "through: -1"),
]


def moved(engine: QuotaEngine, number: int) -> RecordedEvent:
    """The last event under another number."""
    return RecordedEvent(number, engine.events("surabaya")[-1].event)


def book_as(engine: QuotaEngine, **more: Any) -> Any:
    return engine.reserve("surabaya", DAY, NIK, **{"service": "new", "session": "morning", **more})


@pytest.mark.parametrize(("call", "error", "message"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_input(
    engine: QuotaEngine, call: Callable[[QuotaEngine], object], error: type[Exception], message: str
) -> None:
    """A clear, typed error that says what, where and what would be right, shows no identity, and changes nothing."""
    before = engine._store.execute(Describe("surabaya"))
    with pytest.raises(error) as caught:
        call(engine)
    assert message in str(caught.value)
    assert isinstance(caught.value, InvalidRequest)
    assert NIK not in str(caught.value)
    assert engine._store.execute(Describe("surabaya")) == before


def test_outcomes_of_what_is_not_for_sale(engine: QuotaEngine, clock: ManualClock) -> None:
    """A day not released, one that is over and one unknown are answers; only a wrong call is an error."""
    opens_at_ms = clock.now_ms()
    clock.set_ms(opens_at_ms - 1)
    early = book(engine)
    assert (early.status, early.retry_at_ms) == (Status.NOT_OPEN, opens_at_ms)
    assert (
        engine.reserve("surabaya", "2026-12-06", NIK, service="renewal", session="morning").status is Status.UNKNOWN_DAY
    )
    assert engine.set_capacity("surabaya", DAY, "nothing", 1).status is Status.UNKNOWN_QUOTA
    assert book(engine, [nik(one) for one in range(6)], idempotency_key="many").status is Status.NOT_OPEN
    clock.set_ms(opens_at_ms)
    assert book(engine, [nik(one) for one in range(6)], idempotency_key="many").status is Status.PARTY_TOO_LARGE
    clock.set_ms(engine.availability("surabaya", DAY)[0].ends_at_ms)
    assert book(engine).status is Status.DAY_OVER
    assert engine.lookup("nowhere~x") is None


def test_no_identity_is_kept_or_shown(engine: QuotaEngine) -> None:
    """Nothing that the engine holds, returns or prints has an identity in clear."""
    outcome = book(engine, [NIK, OTHER])
    engine.confirm(outcome.reference, owner=NIK)
    seen = [
        repr(outcome),
        repr(engine.events("surabaya")),
        repr(engine._store.execute(Describe("surabaya"))),
        repr(vars(engine._methods.requests)),
        repr(engine._methods.requests._plans.plans),
    ]
    assert all(NIK not in text and OTHER not in text for text in seen)


def test_threads_on_one_engine(engine: QuotaEngine) -> None:
    """Sixteen threads, 400 people, 100 places: each is sold once."""
    statuses: list[Status] = []

    def press(thread: int) -> None:
        for one in range(25):
            outcome = book(engine, nik(100 * thread + one))
            statuses.append(outcome.status)
            if outcome.ok:
                assert engine.confirm(outcome.reference).ok

    threads = [threading.Thread(target=press, args=(thread,)) for thread in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (statuses.count(Status.HELD), statuses.count(Status.SOLD_OUT)) == (100, 300)
    numbers = {event.event.reservation.queue_number for event in engine.events("surabaya") if "CONFIRMED" in str(event)}  # type: ignore[union-attr]
    assert numbers == set(range(1, 101))
    assert engine.audit().ok


async def test_tasks_on_one_async_engine(catalog: Catalog, clock: ManualClock) -> None:
    """Four hundred tasks, 100 places."""
    async with await AsyncQuotaEngine.open(identity_key=KEY, clock=clock) as engine:
        await engine.publish(catalog, DAY)
        clock.advance_ms(3_600_000)

        async def press(one: int) -> Status:
            outcome = await engine.reserve("surabaya", DAY, nik(one), service="renewal", session="morning")
            if outcome.ok:
                assert (await engine.confirm(outcome.reference)).ok
            return outcome.status

        statuses = await asyncio.gather(*(press(one) for one in range(400)))
        assert (statuses.count(Status.HELD), statuses.count(Status.SOLD_OUT)) == (100, 300)
        assert (await engine.audit()).ok


def one_call_of_each_method(catalog: Catalog) -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    """Name, positional and named arguments of calls that can follow each other."""
    wanted = {"service": "renewal", "session": "morning"}
    return [
        ("reserve", ("surabaya", DAY, NIK), {**wanted}),
        (
            "reserve",
            ("surabaya", DAY, [OTHER, nik(1)]),
            {**wanted, "idempotency_key": "pair", "join_wait_list": True, "hold_ttl_ms": 99},
        ),
        ("extend", ("surabaya~made-up-0", 1), {"owner": NIK, "expected_version": 1}),
        ("confirm", ("surabaya~made-up-0",), {"owner": NIK, "expected_version": 1}),
        ("reschedule", ("surabaya~made-up-0", "2026-12-08"), {**wanted, "owner": NIK, "expected_version": 2}),
        ("recover_moves", (), {"older_than_ms": 5, "limit": 9}),
        ("find_moved", ("surabaya~made-up-0",), {}),
        ("lookup", ("surabaya~pair",), {}),
        ("wait_list_position", ("surabaya~pair",), {}),
        ("list_reservations", ("surabaya", DAY), {}),
        ("hold_remaining_histogram", ("surabaya", DAY, [99, 900_000]), {}),
        ("abandoned_holds", ("surabaya",), {}),
        ("remove_applicant", ("surabaya~pair", OTHER), {"owner": OTHER, "expected_version": 1}),
        ("replace_applicant", ("surabaya~pair", nik(1), OTHER), {"expected_version": 2}),
        ("release", ("surabaya~pair",), {}),
        ("decline", ("surabaya~pair",), {"owner": OTHER, "expected_version": 2}),
        ("cancel", ("surabaya~made-up-0",), {}),
        ("check_in", ("surabaya~made-up-0",), {}),
        ("mark_no_show", ("surabaya~pair",), {}),
        ("undo_attendance", ("surabaya~pair",), {"expected_version": 3}),
        ("availability", ("surabaya", DAY, "2026-12-11"), {}),
        ("set_capacity", ("surabaya", DAY, "online", 5), {}),
        ("close_day", ("surabaya", DAY), {}),
        ("relocate_day", ("surabaya", DAY, [("surabaya", "2026-12-08")]), {"limit": 3, "dry_run": True}),
        ("open_day", ("surabaya", DAY), {}),
        ("reallocate_unused", ("surabaya", DAY, "kiosk"), {}),
        ("release_parked", ("surabaya", DAY, "online"), {}),
        ("expire", ("surabaya", DAY), {"limit": 5}),
        ("publish", (catalog, DAY), {}),
        ("events", ("surabaya",), {"after": 1, "limit": 500}),
        ("trim_events", ("surabaya", 3), {}),
        ("create_consumer_group", ("surabaya", "mail"), {"after": 4}),
        ("events", ("surabaya",), {"limit": 3, "consumer_group": "mail", "consumer": "w1", "min_idle_ms": 7}),
        ("acknowledge", ("surabaya", "mail", [5, 6]), {}),
        ("list_consumer_groups", ("surabaya",), {}),
        ("delete_consumer_group", ("surabaya", "mail"), {}),
        ("reconcile", ("surabaya",), {}),
        ("list_offices", (), {}),
        ("audit", (), {}),
        ("audit", ("surabaya",), {}),
    ]


OBJECT_METHODS = {"draw", "room", "with_timeout"}
"""Methods that only return another object. Other tests compare their methods."""


async def test_the_async_engine_returns_the_same(engine: QuotaEngine, catalog: Catalog, clock: ManualClock) -> None:
    clock.advance_ms(-3_600_000)  # both engines publish at the same time
    ids = iter(f"made-up-{number}" for number in range(10**6))
    other = await AsyncQuotaEngine.open(identity_key=KEY, clock=clock, id_factory=lambda: next(ids))
    await other.publish(catalog, DAY, DAY + datetime.timedelta(days=4))
    clock.advance_ms(3_600_000)
    calls = one_call_of_each_method(catalog)
    for name, positional, named in calls:
        expected = getattr(engine, name)(*positional, **named)
        method: Callable[..., Awaitable[object]] = getattr(other, name)
        assert await method(*positional, **named) == expected, name
    assert {name for name, _, _ in calls} == {name for name in vars(QuotaEngine) if not name.startswith("_")} - {
        "open",
        "close",
        *OBJECT_METHODS,
    }
    await other.close()


@pytest.mark.parametrize(
    ("sync_class", "async_class"), [(QuotaEngine, AsyncQuotaEngine), (WaitingRoom, AsyncWaitingRoom)]
)
def test_the_async_classes_have_the_same_signatures(sync_class: type, async_class: type) -> None:
    """Same names, same parameters, same defaults, and a docstring each."""
    names = {name for name in vars(sync_class) if not name.startswith("_")}
    assert names == {name for name in vars(async_class) if not name.startswith("_")}
    for name in names:
        one, other = getattr(sync_class, name), getattr(async_class, name)
        if name in OBJECT_METHODS:
            assert inspect.signature(one).parameters == inspect.signature(other).parameters, name
        else:
            assert inspect.signature(one) == inspect.signature(other), name
            assert inspect.iscoroutinefunction(other)
        assert one.__doc__
        assert other.__doc__


class TestOpen:
    """Opening a store by its URL."""

    @pytest.mark.parametrize("url", ["", "memory", "mysql://x", "://", 7])
    def test_no_backend_for_it(self, url: Any) -> None:
        """An unknown scheme is refused with the known ones."""
        with pytest.raises(InvalidRequest, match="url: no backend serves it; expected one of memory://"):
            QuotaEngine.open(url, identity_key=KEY)

    def test_a_memory_url_has_no_path(self) -> None:
        with pytest.raises(InvalidRequest, match="text after memory://"):
            QuotaEngine.open("memory://here", identity_key=KEY)

    def test_only_memory_generates_an_identity_key(self) -> None:
        """Processes that share a store must share the key."""
        with pytest.raises(InvalidRequest, match="identity_key: missing"):
            QuotaEngine.open("unix:///somewhere", catalog=None)
        QuotaEngine.open().close()

    def test_publish_rejects_another_identity_key(self, catalog: Catalog, clock: ManualClock) -> None:
        """With another key, the limits would not recognize earlier applicants."""
        backend = MemoryStore(clock)
        QuotaEngine(backend, RequestBuilder(KEY, catalog)).publish(catalog, DAY)
        other = QuotaEngine(backend, RequestBuilder(b"another key for the same store", catalog))
        with pytest.raises(WrongIdentityKey, match="identity_key: not the identity key that this store was first"):
            other.publish(catalog, DAY)
        QuotaEngine(backend, RequestBuilder(KEY, catalog)).publish(catalog, DAY)
        backend._key_fingerprint = ""  # lost, but the offices have their jitter seeds
        with pytest.raises(WrongIdentityKey):
            other.publish(catalog, DAY)

    def test_a_backend_of_a_third_party(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An entry point of the group ``quota_engine.backends`` serves its scheme."""
        import importlib.metadata

        point = importlib.metadata.EntryPoint("other", "tests.engine.test_quota_engine:Other", "quota_engine.backends")
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point])
        with QuotaEngine.open("other://place", identity_key=KEY) as engine:
            assert isinstance(engine._store, MemoryStore)

    def test_a_package_that_is_missing_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without the client's package the error says what to install."""
        import builtins

        loaded = builtins.__import__

        def without_redis(name: str, *rest: Any) -> Any:
            if name.partition(".")[0] == "redis":
                raise ModuleNotFoundError("No module named 'redis'", name="redis")
            return loaded(name, *rest)

        import sys

        import quota_engine.stores

        # The failed import leaves a new package there, without the modules of the present one.
        monkeypatch.setattr(quota_engine.stores, "redis", sys.modules["quota_engine.stores.redis"], raising=False)
        for name in [name for name in sys.modules if name.startswith("quota_engine.stores.redis")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr(builtins, "__import__", without_redis)
        with pytest.raises(BackendUnavailable, match=r"pip install 'quota-engine\[redis\]'"):
            QuotaEngine.open("redis://127.0.0.1:1/0", identity_key=KEY)

    def test_a_missing_catalog_is_named(self) -> None:
        with QuotaEngine.open() as engine, pytest.raises(InvalidRequest, match="catalog: none has been given"):
            engine.reserve("surabaya", DAY, NIK)


class Other:
    """A third party's backend, which is the one in memory under another name."""

    @staticmethod
    def open_store(url: str, clock: Any) -> MemoryStore:
        assert url == "other://place"
        return MemoryStore(clock or SystemClock())


def test_the_system_clock_tells_milliseconds() -> None:
    """The default clock says what the machine says."""
    import time

    before_ms = int(time.time() * 1000)
    assert before_ms - 1 <= SystemClock().now_ms() <= before_ms + 60_000


def test_generated_keys_differ() -> None:
    """128 random bits, in characters that an id may have."""
    from quota_engine.workflows.arguments import random_id

    keys = {random_id() for _ in range(1000)}
    assert len(keys) == 1000
    assert all(len(key) == 22 for key in keys)


def test_cached_plans_are_bounded(engine: QuotaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quota_engine.workflows.catalog_plans.PLANS_MAX", 10)
    for ordinal in range(1, 50):
        engine.reserve("surabaya", ordinal, NIK, service="renewal", session="morning")
    assert len(engine._methods.requests._plans.plans) <= 10
