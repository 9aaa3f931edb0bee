"""One story that an engine and the clients of a service run. All must return the same.

A recorder awaits each call, a sync one in a thread, and records its result without the fields that a service omits.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import httpx
import msgspec

from quota_engine import (
    AsyncQuotaEngine,
    Caller,
    DrawConfig,
    DrawFiles,
    ManualClock,
    QuotaEngineError,
    Reservation,
    RoomResult,
    RoomSettings,
    RoomTranscript,
    TicketStatus,
)
from quota_engine.api_schema.rooms import RoomBody, room_body
from quota_engine.catalog import catalog_from, day_terms
from quota_engine.client import AsyncServiceClient, Retries, RoomChanged, ServiceClient
from quota_engine.domain.model import Choice
from quota_engine.service.http.auth import Role
from quota_engine.waiting_room.results import RoomView
from tests.support.draw_runs import (
    CLOSES_AT_MS,
    DAY_MS,
    ENTROPY,
    HOUR_MS,
    KEY,
    MONDAY,
    NOW_MS,
    OPENS_AT_MS,
    SEED,
    TUESDAY,
    choice,
    settings,
)
from tests.support.in_process_service import TOKENS, Client, listening, running

QUICK: Final = Retries(attempts_max=3, pause_ms_min=1, pause_ms_max=2)
ROOM: Final = "hall"
OPENING: Final = NOW_MS + HOUR_MS
"""Opening of the room, and of the draw's applications."""

Log = list[tuple[str, Any]]


class Recorder:
    """Records each call of an engine, a client, a room or a draw. Returns and records an error that it raises."""

    def __init__(self, target: Any, log: Log, kind: str = "") -> None:
        self._target = target
        self._log = log
        self._kind = kind

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._target, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            found: Any
            try:
                if inspect.iscoroutinefunction(method):
                    found = await method(*args, **kwargs)
                else:
                    found = await asyncio.to_thread(method, *args, **kwargs)
            except QuotaEngineError as error:
                found = error
            self._log.append((self._kind + name, plain(found)))
            return found

        return call

    def room(self, room: str) -> Recorder:
        """Return the recorder of a room."""
        return Recorder(self._target.room(room), self._log, "room.")

    def draw(self, draw: str) -> Recorder:
        """Return the recorder of a draw."""
        return Recorder(self._target.draw(draw), self._log, "draw.")


class EngineAsClient:
    """An engine with the arguments of a client."""

    def __init__(self, engine: AsyncQuotaEngine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def publish(self, first_day: Any, last_day: Any = None) -> Any:
        """Publish the catalog of the story, as a service does."""
        return await self._engine.publish(story_catalog(), first_day, last_day)


def plain(value: Any) -> Any:
    """Return the comparable part of a result, without applicants' hashes, seeds and estimated times."""
    if isinstance(value, QuotaEngineError):
        return type(value).__name__
    if isinstance(value, RoomView):
        value = room_body(ROOM, value)
    if isinstance(value, RoomResult | RoomChanged):
        return (value.status, value.ok, value.retry_at_ms)
    if isinstance(value, RoomBody):
        return {**msgspec.to_builtins(value), "commitment": ""}
    if isinstance(value, RoomTranscript):
        return (value.room, value.office, value.tickets)
    if isinstance(value, DrawFiles):
        lines = [list(value.application_lines()), value.capacities_json, list(value.result_lines())]
        return (lines, value.findings, plain(value.record.view), value.record.applications_digest)
    if isinstance(value, Reservation):
        fields = msgspec.structs.asdict(value)
        units = {"applicants": value.units, "reference": value.reference, "numbers": list(value.queue_numbers)}
        return {name: plain(one) for name, one in fields.items() if name != "former_applicants"} | units
    if isinstance(value, Choice):
        return (value.service, value.service_unit, value.session, value.channel, value.group)
    if isinstance(value, TicketStatus):
        names = [name for name in TicketStatus.__struct_fields__ if name not in {"as_of_ms", "wait_ms", "wait_ms_min"}]
        return {name: getattr(value, name) for name in names}
    if isinstance(value, msgspec.Struct):
        fields = msgspec.structs.asdict(value)
        dropped = {"ticket", "admission_pass", "jitter_seed"}
        found = {name: plain(one) for name, one in fields.items() if name not in dropped}
        return {**found, "ok": value.ok} if hasattr(value, "ok") else found
    if isinstance(value, dict):
        return {plain(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value


# --- Engines and clients


def story_catalog() -> Any:
    """Return two offices that offer released places to the wait list."""
    return catalog_from({**settings("wait_list", 2), "rules": {"extensions_max": 1}}, "small country")


@contextlib.asynccontextmanager
async def an_engine(log: Log) -> AsyncIterator[tuple[Recorder, ManualClock]]:
    """Open an engine in memory, in the state of a service that has just started."""
    terms = day_terms(story_catalog(), "sby", MONDAY)
    assert terms is not None
    clock = ManualClock(terms.opens_at_ms)
    engine = await AsyncQuotaEngine.open("memory://", identity_key=KEY, catalog=story_catalog(), clock=clock)
    async with engine:
        await engine.publish(story_catalog(), MONDAY, MONDAY + datetime.timedelta(days=4))
        clock.set_ms(NOW_MS)
        yield Recorder(EngineAsClient(engine), log), clock


@contextlib.asynccontextmanager
async def a_service() -> AsyncIterator[Client]:
    """Run the service in this process."""
    async with running(catalog=story_catalog(), office="sby", day=MONDAY) as client:
        client.clock.set_ms(NOW_MS)
        yield client


def in_process(
    client: Client, role: Role = Role.OPERATOR, transport: httpx.AsyncBaseTransport | None = None
) -> AsyncServiceClient:
    """Return an async client that calls the service without a connection."""
    http = httpx.AsyncClient(
        transport=transport or client.http._transport,
        base_url="http://service",
        headers={"authorization": f"Bearer {TOKENS[role]}"},
    )
    return AsyncServiceClient(http, QUICK)


@contextlib.asynccontextmanager
async def a_client(kind: str, log: Log) -> AsyncIterator[tuple[Recorder, ManualClock]]:
    """Open a client of a service: ``async`` or ``sync`` over a connection, or ``in process``."""
    async with a_service() as service:
        if kind == "in process":
            yield Recorder(in_process(service), log), service.clock
            return
        async with listening(service.app) as port:
            url, token = f"http://127.0.0.1:{port}", TOKENS[Role.OPERATOR]
            if kind == "async":
                async with await AsyncServiceClient.open(url, token, retries=QUICK) as client:
                    yield Recorder(client, log), service.clock
            else:
                with ServiceClient.open(url, token, retries=QUICK) as sync_client:
                    yield Recorder(sync_client, log), service.clock


# --- The story


async def story(recorder: Recorder, clock: ManualClock) -> None:
    """Call every method at least once, with its refusals and errors."""
    await _reservations(recorder)
    await _days(recorder)
    await _events(recorder)
    await _room(recorder.room(ROOM), recorder, clock)
    await _draw(recorder, clock)
    await _the_day(recorder, clock)
    await _invalid_calls(recorder)


async def _reservations(recorder: Recorder) -> None:
    wanted = {"session": "am", "channel": "draw"}
    caller = Caller(account="a@example.org", network="198.51.100.7")
    held = await recorder.reserve(
        "sby", MONDAY, "ani", idempotency_key="wish-1", caller=caller, hold_ttl_ms=60_000, **wanted
    )
    await recorder.reserve("sby", str(MONDAY), ["ani"], idempotency_key="wish-1", hold_ttl_ms=60_000, **wanted)
    await recorder.reserve("sby", MONDAY.toordinal(), "ani", idempotency_key="wish-2", **wanted)
    await recorder.reserve("sby", MONDAY, ["ani"], idempotency_key="wish-1", session="pm", channel="draw")
    other = await recorder.reserve("sby", MONDAY, "budi", idempotency_key="wish-3", **wanted)
    await recorder.reserve("sby", MONDAY, ["citra", "dewi"], idempotency_key="wish-4", **wanted)
    waiting = await recorder.reserve("sby", MONDAY, "citra", idempotency_key="wish-5", join_wait_list=True, **wanted)
    await recorder.wait_list_position(waiting.reference)
    await recorder.wait_list_position(held.reference)
    await recorder.lookup(waiting.reference)
    await recorder.lookup("sby~nobody")
    await recorder.hold_remaining_histogram("sby", MONDAY, [30_000, 60_000, 3_600_000])
    await recorder.hold_remaining_histogram("sby", MONDAY, ())
    await recorder.abandoned_holds("sby")
    await recorder.extend(held.reference, 1, owner="budi")
    await recorder.extend(held.reference, 1, expected_version=7)
    await recorder.extend(held.reference, 1, owner="ani", expected_version=1)
    await recorder.extend(held.reference, 1)
    await recorder.extend(held.reference, 2)
    await recorder.lookup(held.reference)
    await recorder.confirm(held.reference, owner="budi")
    await recorder.confirm(held.reference, expected_version=7)
    await recorder.confirm(held.reference, owner="ani", expected_version=2)
    await recorder.confirm(held.reference)
    await recorder.release(other.reference)
    await recorder.lookup(waiting.reference)
    await recorder.release(other.reference)
    await recorder.decline(held.reference)
    await recorder.decline(waiting.reference, owner="budi")
    await recorder.decline(waiting.reference, owner="citra", expected_version=2)
    await recorder.lookup(waiting.reference)
    there = await recorder.reschedule(held.reference, TUESDAY, session="pm", channel="draw", caller=caller)
    moved = await recorder.reschedule(there.reference, MONDAY, office="mlg", session="pm", channel="draw")
    fresh = await recorder.reserve("sby", TUESDAY, "eka", idempotency_key="wish-6", **wanted)
    moved = await recorder.reschedule(fresh.reference, MONDAY, office="mlg", session="pm", channel="draw")
    assert moved.ok, moved
    await recorder.find_moved(fresh.reference)
    pair = ["gita", "hana"]
    party = await recorder.reserve("mlg", TUESDAY, pair, idempotency_key="wish-11", session="am", channel="draw")
    assert party.ok, party
    await recorder.remove_applicant(party.reference, "budi")
    await recorder.remove_applicant(party.reference, "hana", owner="budi")
    await recorder.confirm(party.reference)
    await recorder.remove_applicant(party.reference, "hana", owner="hana", expected_version=2)
    await recorder.remove_applicant(party.reference, "hana", owner="hana")
    await recorder.remove_applicant(party.reference, "gita")
    await recorder.replace_applicant(party.reference, "gita", "joko", expected_version=2)
    await recorder.replace_applicant(party.reference, "gita", "joko", expected_version=3)
    await recorder.replace_applicant(party.reference, "gita", "joko")
    await recorder.replace_applicant(party.reference, "joko", "joko")
    await recorder.lookup(party.reference)
    await recorder.cancel(party.reference)
    await recorder.find_moved(held.reference)
    await recorder.lookup(fresh.reference)
    await recorder.confirm(moved.reference, reacquire=True, caller=caller)
    await recorder.recover_moves()
    await recorder.cancel(moved.reference, owner="eka")
    await recorder.check_in(held.reference)
    await recorder.mark_no_show(held.reference)
    await recorder.undo_attendance(held.reference)
    await recorder.list_reservations("sby", MONDAY)


async def _days(recorder: Recorder) -> None:
    await recorder.list_offices()
    await recorder.availability("sby", MONDAY)
    await recorder.availability("mlg", MONDAY, TUESDAY)
    await recorder.set_capacity("sby", TUESDAY, "counter", 5)
    await recorder.set_capacity("sby", TUESDAY, "counter", 6, expected_revision=1)
    await recorder.close_day("sby", TUESDAY, expected_revision=1)
    await recorder.set_capacity("sby", TUESDAY, "drawn", 0)
    await recorder.set_capacity("sby", "2026-12-13", "drawn", 0)
    await recorder.set_capacity("sby", TUESDAY, "nothing", 1)
    await recorder.close_day("sby", TUESDAY)
    await recorder.reserve("sby", TUESDAY, "fajar", idempotency_key="wish-7", session="am", channel="counter")
    await recorder.open_day("sby", TUESDAY)
    await recorder.open_day("sby", TUESDAY, expected_revision=1)
    await recorder.reallocate_unused("sby", TUESDAY, "counter", expected_revision=1)
    await recorder.reallocate_unused("sby", TUESDAY, "counter")
    await recorder.release_parked("sby", TUESDAY, "drawn", expected_revision=1)
    await recorder.release_parked("sby", TUESDAY, "drawn")
    await recorder.relocate_day("sby", MONDAY, [TUESDAY, ("mlg", MONDAY)], other_sessions=True, dry_run=True)
    await recorder.relocate_day("sby", "2026-12-13", limit=5, after=1)
    await recorder.expire("sby", MONDAY)
    await recorder.publish(MONDAY)
    await recorder.publish(MONDAY, TUESDAY)
    await recorder.audit()
    await recorder.audit("mlg")
    await recorder.reconcile("sby")


async def _events(recorder: Recorder) -> None:
    await recorder.events("sby")
    await recorder.events("sby", 2, 3)
    await recorder.list_consumer_groups("sby")
    await recorder.create_consumer_group("sby", "mail", 4)
    await recorder.create_consumer_group("sby", "mail")
    mine = await recorder.events("sby", limit=2, consumer_group="mail", consumer="one")
    await recorder.events("sby", limit=2, consumer_group="mail", consumer="two", min_idle_ms=1_000)
    await recorder.list_consumer_groups("sby")
    await recorder.acknowledge("sby", "mail", (one.number for one in mine))
    await recorder.acknowledge("sby", "mail", [])
    await recorder.trim_events("sby", 5)
    await recorder.delete_consumer_group("sby", "mail")
    await recorder.delete_consumer_group("sby", "mail")


async def _room(room: Recorder, recorder: Recorder, clock: ManualClock) -> None:
    await room.view()
    terms: dict[str, Any] = {"opens_at": OPENING, "entropy_source": "the index", "channel": "counter"}
    settings = RoomSettings(turn_ms=60_000)
    await room.create("sby", MONDAY, TUESDAY, settings=settings, join_opens_at=NOW_MS + 1_000, **terms)
    await room.join("ani")
    clock.advance_ms(1_000)
    await room.create("sby", MONDAY, MONDAY, settings=settings, join_opens_at=NOW_MS + 1_000, **terms)
    joined = await room.join("ani")
    await room.join("ani")
    await room.view()
    await room.status(joined.ticket)
    await room.enter(joined.ticket, "ani")
    await room.open("7")
    clock.set_ms(OPENING)
    await room.open("7")
    await room.open("8")
    clock.advance_ms(1_000)
    await room.status(joined.ticket)
    entered = await room.enter(joined.ticket, "ani")
    assert entered.admission_pass, entered
    await room.enter(joined.ticket, "budi")
    await room.status("forged")
    await room.set_pace(10, 20)
    await room.set_pace(20, 10)
    clock.advance_ms(120_000)
    await room.status(joined.ticket)
    await room.enter(joined.ticket, "ani")
    again = await room.join("ani", replaces_ticket=joined.ticket)
    assert again.ticket not in {"", joined.ticket}
    await room.close()
    await room.join("budi")
    await room.set_pace(1, 2)
    await room.transcript()
    await recorder.room("nowhere").view()
    await recorder.room("nowhere").join("ani")


async def _draw(recorder: Recorder, clock: ManualClock) -> None:
    draw = recorder.draw("dec")
    commitment = await draw.commitment(SEED)
    terms = DrawConfig(
        OPENS_AT_MS + HOUR_MS,
        CLOSES_AT_MS,
        CLOSES_AT_MS + 60 * DAY_MS,
        MONDAY.toordinal(),
        TUESDAY.toordinal(),
        commitment,
        "the index",
    )
    await draw.view()
    await draw.files()
    await draw.award()
    await draw.create(terms)
    await draw.create(terms)
    await draw.apply("ani", [choice("mlg")])
    clock.set_ms(OPENS_AT_MS + HOUR_MS)
    await draw.apply(["ani", "budi"], [choice("mlg"), choice("mlg", TUESDAY, "pm")])
    applied = await draw.apply("citra", [choice("mlg")])
    await draw.apply("citra", [choice("mlg", TUESDAY)], expected_version=applied.version)
    await draw.apply("citra", [choice("mlg")], expected_version=7)
    await draw.apply("budi", [choice("mlg")])
    await draw.apply("dewi", [choice("mlg", datetime.date(2026, 12, 10))])
    await draw.apply("eka", [choice("mlg")])
    await draw.withdraw("eka", expected_version=1)
    await draw.withdraw("nobody", expected_version=1)
    await draw.withdraw("eka", expected_version=3, expected_epoch=2)
    await draw.check_receipt("citra", number=applied.number, version=applied.version + 1, epoch=applied.epoch)
    await draw.check_receipt("citra", number=applied.number, version=applied.version, epoch=applied.epoch)
    await draw.check_receipt("citra", number=applied.number, version=applied.version + 1, epoch=2)
    await draw.check_receipt("nobody", number=1, version=1, epoch=1)
    await draw.find("budi")
    await draw.find("nobody")
    await draw.view()
    await draw.close()
    clock.set_ms(CLOSES_AT_MS)
    await draw.run(SEED, ENTROPY)
    await draw.close()
    await draw.files()
    await draw.award()
    await draw.run(SEED)
    await draw.run(SEED, ENTROPY)
    await draw.files()
    awarded = await draw.award(hold_ttl_ms=600_000)
    assert (awarded.winners, awarded.ok) == (2, True), awarded
    await draw.award(skip=1)
    await draw.award(limit=1)
    await draw.award()
    await draw.view()


async def _the_day(recorder: Recorder, clock: ManualClock) -> None:
    wanted = {"session": "am", "channel": "counter"}
    come = await recorder.reserve("sby", TUESDAY, "gita", idempotency_key="wish-8", **wanted)
    await recorder.confirm(come.reference)
    gone = await recorder.reserve("sby", TUESDAY, "hadi", idempotency_key="wish-9", **wanted)
    await recorder.confirm(gone.reference)
    clock.set_ms(int(datetime.datetime(2026, 12, 8, 3, tzinfo=datetime.UTC).timestamp() * 1000))
    await recorder.check_in(come.reference)
    await recorder.undo_attendance(come.reference, owner="hadi")
    await recorder.undo_attendance(come.reference, owner="gita", expected_version=3)
    await recorder.undo_attendance(come.reference)
    await recorder.check_in(come.reference)
    await recorder.mark_no_show(gone.reference, owner="hadi")
    await recorder.lookup(gone.reference)
    clock.advance_ms(600_000)
    await recorder.undo_attendance(gone.reference, expected_version=3)
    await recorder.cancel(come.reference)
    await recorder.list_reservations("sby", TUESDAY)
    await recorder.audit()


async def _invalid_calls(recorder: Recorder) -> None:
    """Call with invalid arguments; each raises the engine's error."""
    wanted = {"session": "am", "channel": "draw"}
    for office in ("", "nix", "a/b", "..", "é"):
        await recorder.reserve(office, MONDAY, "ani", idempotency_key="key", **wanted)
        await recorder.availability(office, MONDAY)
    for day in ("", "2026-02-30", "20261207", 0, 10**9, None, datetime.datetime(2026, 12, 7, tzinfo=datetime.UTC)):
        await recorder.reserve("sby", day, "ani", idempotency_key="key", **wanted)
        await recorder.close_day("sby", day)
    for party in ([], "", ["ani", "ani"], ["x"] * 101, 5, None, [1], "\ud800"):
        await recorder.reserve("sby", MONDAY, party, idempotency_key="key", **wanted)
    for key in ("", "a b", "é", "x" * 65, "a\nb", 5):
        await recorder.reserve("sby", MONDAY, "ani", idempotency_key=key, **wanted)
    await recorder.reserve("sby", MONDAY, "ani", idempotency_key="key", join_wait_list=1, **wanted)
    await recorder.reserve("sby", MONDAY, "ani", idempotency_key="key", hold_ttl_ms=-1, **wanted)
    await recorder.reserve("sby", MONDAY, "ani", idempotency_key="key", session="noon")
    for reference in ("", "sby", "a~b~c", "sby~", "nix~a", "../audit", "."):
        await recorder.confirm(reference)
        await recorder.lookup(reference)
    await recorder.confirm("sby~a", owner="")
    await recorder.confirm("sby~a", expected_version=-1)
    for bounds_ms in ([2, 1], [1] * 17, [-1], ["1"], "1", [1.5]):
        await recorder.hold_remaining_histogram("sby", MONDAY, bounds_ms)
    for limit in (0, -1, 100_001, "7"):
        await recorder.events("sby", 0, limit)
    await recorder.events("sby", consumer_group="")
    await recorder.events("sby", consumer_group="mail")
    await recorder.acknowledge("sby", "mail", [0])
    await recorder.acknowledge("sby", "mail", range(1, 10_002))
    await recorder.audit("")
    await recorder.set_capacity("sby", MONDAY, "", 1)
    await recorder.set_capacity("sby", MONDAY, "drawn", -1)
    await recorder.draw("dec").apply("ani", ["mlg"])
    await recorder.draw("dec").apply("ani", [])
    await recorder.draw("dec").run("no seed")
