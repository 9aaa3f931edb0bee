"""Refreshes of the memory of what is sold out: lost events, lost outcomes, and what happens while one is in flight."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from quota_engine.clocks import ManualClock
from quota_engine.conformance.world import (
    DAY,
    HOLD_TTL_MS,
    NEXT_DAY,
    OFFICE,
    ONLINE,
    OPENS_AT_MS,
    RULES,
    choice,
    published,
    reserve,
)
from quota_engine.domain.commands import Command, Confirm, Release, Reserve, SetCapacity, SetRules
from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.fuzz.lua_server import LuaServer
from quota_engine.fuzz.lua_store import LuaStore
from quota_engine.ports import ApplyMany, ReadEvents, TrimEvents
from quota_engine.stores.redis import sold_out_cache
from quota_engine.stores.redis.factory import open_async_store, open_store
from quota_engine.stores.redis.keys import keys_of
from quota_engine.stores.redis.sold_out_cache import CacheLimits, SoldOutCache
from tests.support.lossy_proxy import LossyProxy
from tests.support.server_groups import Replicated
from tests.support.servers import Server, valkey_server_binary
from tests.support.sold_out import BOUND_MS, ON, SOLD_OUT, Scene, cache_of, settled


def test_trimmed_events_make_the_cache_read_all_names(scene: Scene) -> None:
    """If the last known event is trimmed, the cache reads all names again, and so learns the new applicants."""
    backend, other = scene.set_up(), scene.open()
    scene.rush(backend)
    for number in range(5):
        other.apply(OFFICE, SetCapacity(DAY, "online", 3 + number))
        assert other.apply(OFFICE, reserve(f"n{number}", ONLINE)).status is Status.HELD
        other.execute(TrimEvents(OFFICE, 10_000))
        scene.clock.advance_ms(BOUND_MS)
        scene.stranger(backend)
        scene.clock.advance_ms(1)
        scene.rush(backend)
        assert backend.apply(OFFICE, reserve("again", ONLINE, f"n{number}")).resumed
    # Nothing new: a trimmed stream alone costs no new reading.
    scene.clock.advance_ms(200)
    assert scene.stranger(backend).status is SOLD_OUT
    assert cache_of(backend).offices[OFFICE].snapshot is not None


def test_another_history_makes_the_cache_read_all_names(scene: Scene) -> None:
    """A server with an older state takes over and continues: known event numbers belong to other events now."""
    backend, other = scene.set_up(), scene.open()
    keys = [key for key in keys_of("", OFFICE) if scene.server.ask("EXISTS", key)]
    raw = scene.server.client(decode_responses=False)
    old: dict[str, Any] = {key: raw.dump(key) for key in keys}
    other.apply(OFFICE, SetCapacity(DAY, "online", 3))
    assert other.apply(OFFICE, reserve("lost", ONLINE)).status is Status.HELD
    scene.rush(backend)
    for key in keys:
        raw.delete(key)
        raw.restore(key, 0, old[key])
    for command in (SetCapacity(DAY, "online", 4), reserve("x", ONLINE), reserve("y", ONLINE), Confirm("y")):
        assert other.apply(OFFICE, command).ok
    scene.clock.advance_ms(BOUND_MS)
    scene.rush(backend)
    for name in "xy":
        assert scene.calls(lambda: scene.stranger(backend)) == 0
        assert backend.apply(OFFICE, reserve("again", ONLINE, name)).status in (Status.HELD, Status.IDENTITY_LIMIT)


@pytest.mark.slow
def test_failover_to_a_lagging_replica() -> None:
    """A replica without the last hold is promoted. The applicants who lost and got it both get right outcomes."""
    with Replicated(valkey_server_binary()) as group:
        scene = Scene(group.primary)
        backend = scene.set_up()
        scene.rush(backend)
        group.wait_in_step()
        (replica,) = group.replicas
        replica.ask("REPLICAOF", "NO", "ONE")  # from here on it lags permanently
        other = scene.open()
        other.apply(OFFICE, SetCapacity(DAY, "online", 3))
        assert other.apply(OFFICE, reserve("lost", ONLINE)).status is Status.HELD
        scene.clock.advance_ms(151)
        scene.rush(backend)
        promoted = open_store(replica.url, scene.clock)
        for command in (SetCapacity(DAY, "online", 4), reserve("x", ONLINE), reserve("y", ONLINE)):
            assert promoted.apply(OFFICE, command).ok
        backend._pools[None] = replica.client().connection_pool  # what a Sentinel would have said
        scene.clock.advance_ms(151)
        assert scene.stranger(backend).status is SOLD_OUT
        assert backend.apply(OFFICE, reserve("again", ONLINE, "y")).resumed
        assert backend.apply(OFFICE, reserve("lost", ONLINE)).status is SOLD_OUT
        backend.close()
        promoted.close()
        other.close()


def test_unavailable_store_ends_cached_refusals(own_server: Server) -> None:
    """Cached refusals last until the bound. Then every caller gets an error, because the store does not answer."""
    scene = Scene(own_server)
    scene.set_up()
    backend = scene.open(f"{ON}&attempts_max=1")
    scene.rush(backend)
    own_server.stop()
    scene.clock.advance_ms(BOUND_MS - 1)
    assert scene.stranger(backend).status is SOLD_OUT
    scene.clock.advance_ms(1)
    for _ in range(3):
        with pytest.raises(BackendUnavailable):
            scene.stranger(backend)
    own_server.start()
    assert backend.apply(OFFICE, reserve("ani", ONLINE)).replayed
    assert scene.stranger(backend).status is SOLD_OUT
    backend.close()


@pytest.mark.slow
@pytest.mark.parametrize("many", [False, True])
def test_unknown_outcome_counts_as_applied(own_server: Server, many: bool) -> None:
    """A release with an unknown outcome counts as applied. A hold with an unknown outcome is found by its key."""
    scene = Scene(own_server)
    first = scene.set_up()
    with LossyProxy(own_server.socket_path) as proxy:
        backend = open_store(f"{proxy.url}{ON}&attempts_max=1", scene.clock)

        def lose(command: Command) -> None:
            proxy.losses = 1
            with pytest.raises(OutcomeUnknown):
                backend.execute(ApplyMany(OFFICE, (command,))) if many else backend.apply(OFFICE, command)

        scene.rush(backend)
        lose(Release("ani"))
        assert scene.stranger(backend).status is Status.HELD
        first.apply(OFFICE, SetCapacity(DAY, "online", 3))
        lose(reserve("citra", ONLINE))
        scene.rush(backend)
        assert backend.apply(OFFICE, reserve("citra", ONLINE)).replayed
        assert backend.apply(OFFICE, reserve("again", ONLINE, "citra")).resumed
        backend.close()
    first.close()


@pytest.mark.slow
async def test_unknown_outcome_counts_as_applied_under_asyncio(own_server: Server) -> None:
    """The same, and the same for one that was given up."""
    scene = Scene(own_server)
    first = scene.set_up()
    with LossyProxy(own_server.socket_path) as proxy:
        backend = await open_async_store(f"{proxy.url}{ON}&attempts_max=1", scene.clock)

        async def rush(tag: str) -> None:
            for number in range(2):
                assert (await backend.apply(OFFICE, reserve(f"{tag}{number}", ONLINE))).status is SOLD_OUT
            await settled(backend)

        await rush("a")
        proxy.losses = 1
        with pytest.raises(OutcomeUnknown):
            await backend.apply(OFFICE, Release("ani"))
        assert (await backend.apply(OFFICE, reserve("b", ONLINE))).status is Status.HELD
        await rush("c")
        sent_before = proxy.scripts_seen
        task = asyncio.create_task(backend.apply(OFFICE, Release("budi")))
        while proxy.scripts_seen == sent_before:
            await asyncio.sleep(0)
        task.cancel()
        await settled(backend)
        assert (await backend.apply(OFFICE, reserve("d", ONLINE))).status is Status.HELD
        await backend.close()
    first.close()


# --- A refresh in flight ----------------------------------------------------------------------------------------------


class Apart:
    """A memory and the scripts without a server, so that other things can happen between question and answer."""

    def __init__(self, *commands: Command, **limits: Any) -> None:
        self.clock = ManualClock(OPENS_AT_MS)
        self.store = LuaStore(self.clock, LuaServer())
        self.cache = SoldOutCache(BOUND_MS, lambda: self.clock.now_ms() / 1000, CacheLimits(**limits))
        self._strangers = 0
        for command in (*published(), *commands, reserve("ani", ONLINE), reserve("budi", ONLINE)):
            assert self.store.apply(OFFICE, command).ok

    def send(self, command: Command) -> Outcome | None:
        """Return the store's outcome, or ``None`` if the cache answered, which it does with ``SOLD_OUT`` only."""
        if type(command) is Reserve:
            known = self.cache.get(OFFICE, command)
            if known is not None:
                assert known.status is SOLD_OUT
                return None
        outcome: Outcome = self.store.apply(OFFICE, command)
        self.cache.record_outcome(OFFICE, command, outcome)
        return outcome

    def stranger(self) -> Outcome | None:
        self._strangers += 1
        return self.send(reserve(f"s{self._strangers}", ONLINE))

    def ask(self) -> sold_out_cache.RefreshQuery:
        """Return the query that is due, as it is sent."""
        office = self.cache.due_offices.popleft()
        assert not self.cache.due_offices
        question = self.cache.begin_refresh(office)
        assert question is not None
        return question

    def look(self, question: sold_out_cache.RefreshQuery) -> list[str]:
        """Return the scripts' replies at this moment."""
        return self.store._look(OFFICE, *question.lines)

    def learn(self, question: sold_out_cache.RefreshQuery, lines: list[str]) -> None:
        """Deliver a reply. A query that follows is answered at once."""
        more: sold_out_cache.RefreshQuery | None = self.cache.apply_reply(question, lines)
        if more is not None:
            more = self.cache.apply_reply(more, self.look(more))
        assert more is None
        self.cache.end_refresh(question, is_unavailable=False)

    def rush(self) -> None:
        """Until there is a memory."""
        for _ in range(2):
            assert self.stranger() is not None
        question = self.ask()
        self.learn(question, self.look(question))
        assert self.stranger() is None


ANYWHERE: SetRules = SetRules(replace(RULES, identity_limits=(replace(RULES.identity_limits[0], span_days=0),)))
"""Publish one place for each of two days."""


def test_release_during_a_refresh() -> None:
    """A reply that is older than the release is ignored; the next one counts."""
    apart = Apart()
    apart.rush()
    apart.clock.advance_ms(200)
    assert apart.stranger() is None
    question = apart.ask()
    lines = apart.look(question)
    outcome = apart.send(Release("ani"))
    assert outcome is not None
    assert outcome.ok
    apart.learn(question, lines)
    outcome = apart.stranger()
    assert outcome is not None
    assert outcome.status is Status.HELD


@pytest.mark.parametrize("is_first", [True, False])
def test_hold_of_another_day_during_a_refresh(is_first: bool) -> None:
    """A new holder is known at once, whether a query for all names or for new events is in flight."""
    apart = Apart(ANYWHERE)
    if is_first:
        for _ in range(2):
            assert apart.stranger() is not None
    else:
        apart.rush()
        apart.clock.advance_ms(200)
        assert apart.stranger() is None
    question = apart.ask()
    assert question.is_for_all == is_first
    lines = apart.look(question)
    won = apart.send(reserve("citra", ONLINE, day=NEXT_DAY))
    assert won is not None
    assert won.status is Status.HELD
    if not is_first:
        assert apart.send(reserve("again", ONLINE, "citra")) is not None
    apart.learn(question, lines)
    assert apart.stranger() is None
    again = apart.send(reserve("again", ONLINE, "citra"))
    assert again is not None
    assert again.status is Status.IDENTITY_LIMIT


def test_unknown_reserve_during_a_refresh() -> None:
    """Applied or not, the sender's name is in doubt, so the store answers."""
    apart = Apart(ANYWHERE)
    for _ in range(2):
        assert apart.stranger() is not None
    question = apart.ask()
    lines = apart.look(question)
    lost = reserve("citra", ONLINE, day=NEXT_DAY)
    apart.store.apply(OFFICE, lost)
    apart.cache.record_unknown(OFFICE, lost)
    apart.learn(question, lines)
    assert apart.stranger() is None
    again = apart.send(reserve("again", ONLINE, "citra"))
    assert again is not None
    assert again.status is Status.IDENTITY_LIMIT


def test_reacquired_place_is_known() -> None:
    """It is taken by a confirm, not by a reserve; who took it is known here at once all the same."""
    apart = Apart(SetCapacity(DAY, "online", 3), reserve("citra", ONLINE))
    apart.clock.advance_ms(HOLD_TTL_MS)
    for name in ("x", "y"):
        assert apart.send(reserve(name, ONLINE)) is not None
    apart.store.apply(OFFICE, reserve("z", ONLINE))
    apart.rush()
    apart.store.apply(OFFICE, Release("z"))
    won = apart.send(Confirm("citra", reacquire=True))
    assert won is not None
    assert won.status is Status.CONFIRMED
    again = apart.send(reserve("again", ONLINE, "citra"))
    assert again is not None
    assert again.status is Status.IDENTITY_LIMIT
    assert apart.stranger() is None


def test_trimmed_other_history_makes_the_cache_read_all_names() -> None:
    """If the event that distinguishes two histories is trimmed, and later ones exist, all names are read again."""
    apart, other = Apart(), Apart()
    for command in (SetCapacity(DAY, "online", 3), reserve("lost", ONLINE)):
        apart.store.apply(OFFICE, command)
    apart.rush()
    number = apart.cache.offices[OFFICE].last_event_number
    for step in (SetCapacity(DAY, "online", 4), reserve("x", ONLINE), reserve("y", ONLINE), Confirm("y")):
        assert other.store.apply(OFFICE, step).ok
    assert other.store.execute(ReadEvents(OFFICE, number, 9))
    other.store.execute(TrimEvents(OFFICE, number))
    apart.store = other.store
    other.clock.advance_ms(200)
    apart.clock.advance_ms(200)
    assert apart.stranger() is None
    question = apart.ask()
    assert not question.is_for_all
    more = apart.cache.apply_reply(question, apart.look(question))
    assert more is None  # it has just read all names, and rests
    apart.cache.end_refresh(question, is_unavailable=False)
    assert apart.send(reserve("again", ONLINE, "x")) is not None
    apart.clock.advance_ms(BOUND_MS)
    apart.rush()
    again = apart.send(reserve("again", ONLINE, "x"))
    assert again is not None
    assert again.resumed


def test_unavailable_store_causes_no_storm_of_queries() -> None:
    """After a failed query no caller queries again within the bound, and none while a query is in flight."""
    apart = Apart()
    apart.rush()
    apart.clock.advance_ms(160)
    assert [apart.stranger() for _ in range(5)] == [None] * 5
    question = apart.ask()
    assert [apart.stranger() for _ in range(5)] == [None] * 5
    assert not apart.cache.due_offices
    apart.cache.end_refresh(question, is_unavailable=True)
    apart.clock.advance_ms(80)
    assert [apart.stranger() for _ in range(5)] == [None] * 5
    assert not apart.cache.due_offices
    apart.clock.advance_ms(BOUND_MS)
    apart.rush()


def test_office_dropped_during_a_refresh() -> None:
    """The reply for a dropped office is ignored, and an unknown office has no query."""
    apart = Apart(offices_max=1)
    for _ in range(2):
        assert apart.stranger() is not None
    question = apart.ask()
    lines = apart.look(question)
    apart.cache.record_outcome("elsewhere", reserve("w", ONLINE), Outcome(SOLD_OUT))
    apart.learn(question, lines)
    assert set(apart.cache.offices) == {"elsewhere"}
    assert apart.cache.begin_refresh(OFFICE) is None
    assert apart.stranger() is not None


def test_kind_dropped_during_a_refresh() -> None:
    """The number of kinds in a query is limited. Nothing is known of a kind that was dropped meanwhile."""
    apart = Apart(kinds_max=1)
    for _ in range(2):
        assert apart.stranger() is not None
    question = apart.ask()
    lines = apart.look(question)
    wanted = choice(("online", "morning"))
    assert apart.send(reserve("w", wanted)) is not None
    apart.learn(question, lines)
    assert apart.stranger() is not None
