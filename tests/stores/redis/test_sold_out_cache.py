"""The memory of what is sold out: who is answered from it, who never is, and how soon it knows better.

Two backends of one store are two processes: they share nothing. The clock is the store's and the memory's at once, so
that the bound can be tested to the millisecond.
"""

from __future__ import annotations

import asyncio
import copy
import threading
from collections import deque
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from quota_engine.clocks import ManualClock
from quota_engine.conformance.random_commands import random_commands
from quota_engine.conformance.world import (
    DAY,
    HOLD_TTL_MS,
    NEXT_DAY,
    OFFICE,
    ONLINE,
    OPENS_AT_MS,
    PRIORITY,
    PUBLIC,
    RULES,
    STARTS_AT_MS,
    applicant,
    choice,
    published,
    reserve,
    terms,
)
from quota_engine.domain.commands import (
    Cancel,
    CloseDay,
    Command,
    Confirm,
    MarkNoShow,
    Publish,
    Release,
    Reschedule,
    Reserve,
    SetCapacity,
    SetRules,
)
from quota_engine.domain.errors import BackendUnavailable, InvalidRequest, OutcomeUnknown
from quota_engine.domain.ledger import Ledger
from quota_engine.domain.model import Rules
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.domain.state_machine import apply
from quota_engine.fuzz.lua_store import LuaServer, LuaStore
from quota_engine.ports import ApplyMany, ReadEvents, TrimEvents
from quota_engine.stores.memory import MemoryStore
from quota_engine.stores.redis import sold_out_cache
from quota_engine.stores.redis.async_store import AsyncRedisStore
from quota_engine.stores.redis.codecs.office import OfficeDecoder, text_of_choice
from quota_engine.stores.redis.codecs.office_state import event_of_text, names_of_event
from quota_engine.stores.redis.factory import open_async_store, open_store
from quota_engine.stores.redis.keys import OFFICE_KEY_NAMES, keys_of
from quota_engine.stores.redis.sold_out_cache import CacheLimits, SoldOutCache
from quota_engine.stores.redis.sync_store import RedisStore
from quota_engine.stores.task_batching import _KNOWN_IN_A_TURN_MAX
from tests.stores.redis.test_outages import RIGHTS
from tests.support.effort import seeds
from tests.support.lossy_proxy import LossyProxy
from tests.support.random_walks import walk
from tests.support.servers import Replicated, Server, valkey_server_binary

BOUND_MS = 250
ON = f"?sold_out_ms={BOUND_MS}"
SOLD_OUT = Status.SOLD_OUT


class Scene:
    """A store, its clock, and stores with a cache; ``machine`` gets the same commands and has no cache."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.clock = ManualClock(OPENS_AT_MS)
        self.machine = MemoryStore(self.clock)
        self.opened: list[RedisStore] = []
        self._strangers = 0

    def open(self, options: str = ON) -> RedisStore:
        """One more process."""
        self.opened.append(open_store(self.server.url + options, self.clock))
        return self.opened[-1]

    def set_up(self, *commands: Command) -> RedisStore:
        """The first process, which publishes the office, gives these commands, and sells both places on line."""
        backend = self.open()
        for command in (*published(), *commands, reserve("ani", ONLINE), reserve("budi", ONLINE)):
            self.both(backend, command)
        return backend

    def both(self, backend: RedisStore, command: Command) -> Outcome:
        """Return the outcome of the store, after comparing it with that of the state machine."""
        outcome: Outcome = backend.apply(OFFICE, command)
        assert outcome == self.machine.apply(OFFICE, command)
        return outcome

    def stranger(self, backend: RedisStore, wanted: Any = ONLINE, **more: Any) -> Outcome:
        """Reserve for an unknown applicant."""
        self._strangers += 1
        outcome: Outcome = backend.apply(OFFICE, reserve(f"s{self._strangers}", wanted, **more))
        return outcome

    def rush(self, backend: RedisStore) -> None:
        """Two who find that all is gone: from then on there is a memory of it."""
        assert [self.stranger(backend).status for _ in range(2)] == [SOLD_OUT, SOLD_OUT]
        assert self.calls(lambda: self.stranger(backend)) == 0

    def calls(self, what: Callable[[], object]) -> int:
        """Return the number of scripts that the server runs for a call."""
        before = self._scripts()
        what()
        return self._scripts() - before

    def _scripts(self) -> int:
        statistics = self.server.info("commandstats")
        return sum(statistics.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval", "fcall"))


@pytest.fixture(params=["valkey", "redis"])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """On each kind of server."""
    it = Scene(request.getfixturevalue(f"{request.param}_server"))
    yield it
    for backend in it.opened:
        backend.close()


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A Valkey of the test's own, to be stopped."""
    with Server(valkey_server_binary(), appendfsync="always") as server:
        yield server


# --- Losers ---------------------------------------------------------------------------------------------------------


def test_refused_applicants_do_not_reach_the_store(scene: Scene) -> None:
    """A thousand unknown applicants after the opening: one query to the store each 150 ms, and no other call."""
    backend = scene.set_up()
    scene.rush(backend)

    def strangers() -> None:
        for _ in range(1000):
            scene.clock.advance_ms(1)
            assert scene.stranger(backend).status is SOLD_OUT

    assert scene.calls(strangers) == 1000 // 150


def test_single_refusal_causes_no_query(scene: Scene) -> None:
    """Less than two within the bound: one call each, and no question besides."""
    backend = scene.set_up()
    for _ in range(3):
        scene.clock.advance_ms(BOUND_MS)
        assert scene.calls(lambda: scene.stranger(backend)) == 1


def test_cache_is_specific_to_day_choice_and_party(scene: Scene) -> None:
    """Knowledge about one kind of reserve is not used for another kind."""
    backend = scene.set_up()
    scene.rush(backend)
    assert scene.stranger(backend, day=NEXT_DAY).status is Status.HELD
    assert scene.stranger(backend, PRIORITY).status is Status.HELD
    assert scene.stranger(backend, PUBLIC).status is Status.HELD
    backend.apply(OFFICE, SetCapacity(DAY, "online", 3))
    for one in "pq":
        assert backend.apply(OFFICE, reserve(one, ONLINE, f"{one}1", f"{one}2")).status is SOLD_OUT
    assert scene.calls(lambda: backend.apply(OFFICE, reserve("r", ONLINE, "r1", "r2"))) == 0
    assert scene.stranger(backend).status is Status.HELD


def test_wait_list_reserves_are_not_refused_from_the_cache(scene: Scene) -> None:
    """``wait`` counts: with a wait list it is the store's to say; without one all is sold out for these, too."""
    backend = scene.set_up(reserve("citra", PRIORITY))
    for wait in (False, True):
        assert {scene.stranger(backend, wait=wait).status for _ in range(3)} == {SOLD_OUT}
        assert scene.calls(lambda: scene.stranger(backend, wait=wait)) == 0  # noqa: B023 - called here and now
    assert {scene.stranger(backend, PRIORITY).status for _ in range(3)} == {SOLD_OUT}
    assert scene.calls(lambda: scene.stranger(backend, PRIORITY)) == 0
    assert scene.stranger(backend, PRIORITY, wait=True).status is Status.WAITING
    assert scene.stranger(backend, PRIORITY, wait=True).status is Status.WAITING
    assert {scene.stranger(backend, PRIORITY, wait=True).status for _ in range(3)} == {Status.WAIT_LIST_FULL}


def test_asyncio(valkey_server: Server) -> None:
    """The same under asyncio, where a separate task queries the store and no caller waits for it."""
    clock = ManualClock(OPENS_AT_MS)
    scene = Scene(valkey_server)

    async def rush() -> None:
        backend = await open_async_store(valkey_server.url + ON, clock)
        await backend.execute(ApplyMany(OFFICE, (*published(), reserve("ani", ONLINE), reserve("budi", ONLINE))))
        lost = await asyncio.gather(*(backend.apply(OFFICE, reserve(f"a{n}", ONLINE)) for n in range(20)))
        assert {one.status for one in lost} == {SOLD_OUT}
        await settled(backend)
        before = scene._scripts()
        lost = await asyncio.gather(*(backend.apply(OFFICE, reserve(f"b{n}", ONLINE)) for n in range(500)))
        assert {one.status for one in lost} == {SOLD_OUT}
        assert scene._scripts() == before
        assert (await backend.apply(OFFICE, reserve("ani", ONLINE))).replayed
        assert (await backend.apply(OFFICE, reserve("again", ONLINE, "budi"))).resumed
        clock.advance_ms(200)  # refreshed beside the answers
        before = scene._scripts()
        assert (await backend.apply(OFFICE, reserve("c1", ONLINE))).status is SOLD_OUT
        await settled(backend)
        assert scene._scripts() == before + 1
        clock.advance_ms(200)
        assert (await backend.apply(OFFICE, reserve("c2", ONLINE))).status is SOLD_OUT
        assert (await backend.apply(OFFICE, Release("ani"))).status is Status.RELEASED
        assert (await backend.apply(OFFICE, reserve("c3", ONLINE))).status is Status.HELD
        await backend.close()
        with pytest.raises(BackendUnavailable, match="closed"):
            await backend.apply(OFFICE, reserve("c4", ONLINE))

    asyncio.run(rush())


async def settled(backend: AsyncRedisStore) -> None:
    """Wait until no task is in flight."""
    while backend._tasks:
        await asyncio.wait(backend._tasks)


async def test_cached_refusals_yield_to_other_tasks(valkey_server: Server) -> None:
    """A task that does nothing but lose does not keep the loop to itself."""
    backend = await open_async_store(valkey_server.url + ON, ManualClock(OPENS_AT_MS))
    await backend.execute(ApplyMany(OFFICE, (*published(), reserve("ani", ONLINE), reserve("budi", ONLINE))))
    for number in range(2):
        await backend.apply(OFFICE, reserve(f"a{number}", ONLINE))
    await settled(backend)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    commands = [reserve(f"b{number}", ONLINE) for number in range(1000)]
    # Not those that the name filter takes for known ones: they would wait for the server.
    refused = [command for command in commands if backend._sold_out_cache.get(OFFICE, command) is not None]
    assert len(refused) > 950
    task = asyncio.create_task(other())
    for command in refused:
        assert (await backend.apply(OFFICE, command)).status is SOLD_OUT
    assert 10 <= turns <= 20
    task.cancel()
    await backend.close()


async def test_many_losing_tasks_leave_the_loop_time_for_replies(valkey_server: Server) -> None:
    """Hundreds of tasks that lose get a bounded number of outcomes in one iteration of the loop.

    While a refresh is in flight, each gets one: the reply must not come after the cache has forgotten everything.
    """
    clock = ManualClock(OPENS_AT_MS)
    backend = await open_async_store(valkey_server.url + ON, clock)
    await backend.execute(ApplyMany(OFFICE, (*published(), reserve("ani", ONLINE), reserve("budi", ONLINE))))
    for number in range(2):
        await backend.apply(OFFICE, reserve(f"a{number}", ONLINE))
    await settled(backend)
    losers, answered = 200, 0
    iterations: list[tuple[int, bool]] = []

    async def lose(loser: int) -> None:
        nonlocal answered
        for number in range(64):
            assert (await backend.apply(OFFICE, reserve(f"b{loser}-{number}", ONLINE))).status is SOLD_OUT
            answered += 1

    async def watch() -> None:
        """Note the outcomes of each iteration, and if a refresh was in flight in all of it."""
        while True:
            before, was_refreshing = answered, bool(backend._tasks)
            await asyncio.sleep(0)
            iterations.append((answered - before, was_refreshing and bool(backend._tasks)))

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(lose(loser) for loser in range(losers)))
    clock.advance_ms(200)  # a refresh is due
    await asyncio.gather(*(lose(losers + loser) for loser in range(losers)))
    watching.cancel()
    await backend.close()
    assert max(count for count, _ in iterations) <= _KNOWN_IN_A_TURN_MAX + losers
    in_refresh = [count for count, is_refreshing in iterations if is_refreshing]
    assert in_refresh
    assert max(in_refresh) <= losers


# --- Known applicants ------------------------------------------------------------------------------------------------


def test_precedence(scene: Scene) -> None:
    """A holder, a known key in every state, a conflict, a block, a limit, a party with one of these."""
    first = scene.set_up(
        SetRules(replace(RULES, identity_limits=RULES.identity_limits[:1])),
        SetCapacity(DAY, "online", 6),
        reserve("gone", ONLINE),
        reserve("over", ONLINE),
        reserve("away", ONLINE),
        reserve("twice1", ONLINE, "twice"),
    )
    before: tuple[Command, ...] = (
        Release("gone"),
        Confirm("over"),
        Cancel("over"),
        Confirm("away"),
        Confirm("budi"),
        Confirm("twice1"),
        Cancel("twice1"),
        reserve("twice2", ONLINE, "twice"),
        Confirm("twice2"),
        Cancel("twice2"),
    )
    for command in before:
        assert scene.both(first, command).ok
    scene.clock.set_ms(STARTS_AT_MS)
    later: tuple[Command, ...] = (reserve("ani2", ONLINE), MarkNoShow("away"), SetCapacity(DAY, "online", 3))
    for command in later:
        assert scene.both(first, command).ok
    asked = [
        (reserve("ani2", ONLINE), Status.HELD),
        (reserve("new", ONLINE, "ani2"), Status.HELD),
        (reserve("new", ONLINE, "budi"), Status.IDENTITY_LIMIT),
        (reserve("ani2", PRIORITY), Status.CONFLICT),
        (reserve("ani2", ONLINE, "dewi"), Status.CONFLICT),
        (reserve("gone", ONLINE), Status.RESERVATION_ENDED),
        (reserve("over", ONLINE), Status.RESERVATION_ENDED),
        (reserve("ani", ONLINE), Status.RESERVATION_ENDED),
        (reserve("new", ONLINE, "away"), Status.BLOCKED),
        (reserve("new", ONLINE, "twice"), Status.BLOCKED),
        (reserve("new", ONLINE, "dewi", "twice"), Status.BLOCKED),
        (reserve("new", ONLINE, "dewi", "ani2"), Status.IDENTITY_LIMIT),
    ]
    second = scene.open()  # which did none of this itself
    for number in range(2):
        assert second.apply(OFFICE, reserve(f"pair{number}", ONLINE, f"p{number}", f"q{number}")).status is SOLD_OUT
    for command, status in asked:
        scene.rush(second)
        assert scene.calls(lambda: second.apply(OFFICE, reserve("pair", ONLINE, "p", "q"))) == 0
        assert scene.both(second, command).status is status


def test_reserve_with_a_deadline_goes_to_the_store(scene: Scene) -> None:
    """``LAPSED`` comes before ``SOLD_OUT``, and by the store's clock."""
    backend = scene.set_up()
    scene.rush(backend)
    late = replace(reserve("late", ONLINE), valid_until_ms=OPENS_AT_MS - 1)
    assert scene.both(backend, late).status is Status.COMMAND_EXPIRED
    assert scene.both(backend, replace(late, valid_until_ms=OPENS_AT_MS)).status is SOLD_OUT


def test_double_click_over_two_processes(scene: Scene) -> None:
    """The applicant who got the last place through one process gets it again through another, which has cached
    SOLD_OUT.
    """
    first = scene.set_up()
    second = scene.open()
    scene.rush(second)
    assert second.apply(OFFICE, reserve("click2", ONLINE, "budi")).resumed
    assert second.apply(OFFICE, reserve("budi", ONLINE)).replayed
    first.apply(OFFICE, Release("ani"))
    assert first.apply(OFFICE, reserve("citra", ONLINE)).status is Status.HELD
    # Within the bound, the second process may not know that a place became free, and who got it.
    scene.clock.advance_ms(BOUND_MS)
    assert second.apply(OFFICE, reserve("click3", ONLINE, "citra")).resumed
    scene.rush(second)
    assert second.apply(OFFICE, reserve("click4", ONLINE, "citra")).resumed


def test_new_holder_is_known_at_once(scene: Scene) -> None:
    """Through one process, an applicant with a place never gets SOLD_OUT, not even for a moment."""
    backend, other = scene.set_up(), scene.open()
    scene.rush(backend)
    other.apply(OFFICE, Release("ani"))
    backend.apply(OFFICE, SetCapacity(DAY, "draw", 7))  # so that what was known is forgotten, and the place is found
    assert scene.stranger(backend).status is Status.HELD
    scene.rush(backend)
    assert backend.apply(OFFICE, reserve("again", ONLINE, "s4")).resumed


# --- How soon a place that comes back is seen -----------------------------------------------------------------------


def test_place_released_elsewhere_is_seen_within_the_bound(scene: Scene) -> None:
    """Up to the bound after the question that found nothing, and not a millisecond longer."""
    backend, other = scene.set_up(), scene.open()
    scene.rush(backend)
    other.apply(OFFICE, Release("ani"))
    scene.clock.advance_ms(BOUND_MS // 2)
    assert scene.calls(lambda: scene.stranger(backend)) == 0
    scene.clock.advance_ms(BOUND_MS - BOUND_MS // 2)
    assert scene.stranger(backend).status is Status.HELD


@pytest.mark.parametrize("age_ms", [149, 150, 249, 250])
def test_the_bound_counts_from_before_the_question(scene: Scene, age_ms: int) -> None:
    """A refresh in flight does not extend the bound: the time of its query counts."""
    backend, other = scene.set_up(), scene.open()
    scene.rush(backend)
    other.apply(OFFICE, Release("ani"))
    scene.clock.advance_ms(age_ms)
    assert scene.stranger(backend).status is (Status.HELD if age_ms == 250 else SOLD_OUT)
    # From 150 ms on a caller queries the store, and the next one has the reply.
    assert scene.stranger(backend).status is (SOLD_OUT if age_ms == 149 else [SOLD_OUT, Status.HELD][age_ms < 250])


GIVING_BACK: list[tuple[str, tuple[Command, ...], Command]] = [
    ("release", (), Release("ani")),
    ("cancel", (Confirm("ani"),), Cancel("ani")),
    ("reschedule", (), Reschedule("ani", NEXT_DAY, ONLINE)),
    ("capacity", (), SetCapacity(DAY, "online", 3)),
]


@pytest.mark.parametrize(("before", "command"), [one[1:] for one in GIVING_BACK], ids=[one[0] for one in GIVING_BACK])
def test_place_released_here_is_seen_at_once(scene: Scene, before: tuple[Command, ...], command: Command) -> None:
    """After our own step the next one gets the place; after another process's, once the bound is over."""
    backend, other = scene.set_up(*()), scene.open()
    for one in before:
        backend.apply(OFFICE, one)
    scene.rush(backend)
    scene.rush(other)
    assert backend.apply(OFFICE, command).ok
    assert scene.stranger(backend).status is Status.HELD
    backend.apply(OFFICE, SetCapacity(DAY, "online", 9))
    scene.clock.advance_ms(BOUND_MS)
    assert scene.stranger(other).status is Status.HELD


def test_apply_many_updates_the_cache(scene: Scene) -> None:
    """``ApplyMany`` counts as well: units that it returns, and places that it gives."""
    backend = scene.set_up()
    scene.rush(backend)
    backend.execute(ApplyMany(OFFICE, (Release("ani"), reserve("citra", ONLINE))))
    scene.rush(backend)
    assert backend.apply(OFFICE, reserve("again", ONLINE, "citra")).resumed


def test_expired_hold_is_seen_without_an_event(scene: Scene) -> None:
    """A hold expires without a command, while refusals continue. The calls to the store are refreshes only: a sold-out
    flag is never left behind.
    """
    backend = scene.set_up()
    scene.clock.advance_ms(HOLD_TTL_MS - 1000)
    scene.rush(backend)
    overdue_ms = OPENS_AT_MS + HOLD_TTL_MS
    while scene.stranger(backend).status is SOLD_OUT:
        assert scene.clock.now_ms() < overdue_ms + BOUND_MS
        scene.clock.advance_ms(50)
    assert scene.clock.now_ms() >= overdue_ms


def test_sold_out_flag_is_not_left_behind(scene: Scene) -> None:
    """All places are sold out, and a process that dies returns them. After a day without calls the next applicant gets
    one.
    """
    backend, other = scene.set_up(), scene.open()
    scene.rush(backend)
    other.execute(ApplyMany(OFFICE, (Release("ani"), Release("budi"))))
    other.close()
    scene.clock.advance_ms(86_400_000)
    assert scene.stranger(backend).status is Status.HELD


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (CloseDay(DAY), Status.DAY_CLOSED),
        (Publish(DAY, replace(terms(), opens_at_ms=OPENS_AT_MS + 10_000)), Status.NOT_OPEN),
        (SetRules(replace(RULES, party_max=1)), Status.PARTY_TOO_LARGE),
    ],
)
def test_preceding_refusals_are_seen_within_the_bound(scene: Scene, command: Command, status: Status) -> None:
    """A day that is closed is not sold out any more, nor is one whose terms or rules have changed."""
    backend, other = scene.set_up(), scene.open()

    def pair(number: int, via: RedisStore) -> Outcome:
        outcome: Outcome = via.apply(OFFICE, reserve(f"p{number}", ONLINE, f"p{number}", f"q{number}"))
        return outcome

    for via in (backend, other):
        assert [pair(number, via).status for number in range(3)] == [SOLD_OUT] * 3
    other.apply(OFFICE, command)
    assert pair(3, other).status is status
    assert pair(4, backend).status is SOLD_OUT
    scene.clock.advance_ms(BOUND_MS)
    assert pair(5, backend).status is status


# --- When the thread of events is lost ------------------------------------------------------------------------------


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
    assert cache_of(backend)._offices[OFFICE].snapshot is not None


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
    number = apart.cache._offices[OFFICE].last_event_number
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
    assert set(apart.cache._offices) == {"elsewhere"}
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


# --- Against the machine --------------------------------------------------------------------------------------------


def cache_of(backend: RedisStore) -> SoldOutCache:
    return backend._sold_out_cache


class Watched:
    """A backend that notes whether an answer was its own."""

    def __init__(self, backend: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.backend = backend
        self.is_own = False
        answer = cache_of(backend).get

        def noted(office: str, command: Reserve) -> Outcome | None:
            outcome = answer(office, command)
            self.is_own = outcome is not None
            return outcome

        monkeypatch.setattr(cache_of(backend), "get", noted)

    def apply(self, office: str, command: Command) -> Outcome:
        self.is_own = False
        outcome: Outcome = self.backend.apply(office, command)
        return outcome


def crowd(seed: int, count: int) -> Iterator[tuple[int, Command]]:
    """A time step in milliseconds and a command: unknown applicants at an opening, mixed with everything that can
    happen to a ledger.
    """
    rng = Random(seed)
    wanted = (ONLINE, ONLINE, ONLINE, PUBLIC, PRIORITY)
    others = random_commands(seed, count)
    for number in range(count):
        passes_ms = rng.choice((0, 0, 0, 0, 1, 5, 20, 60, 100, 160, 260, HOLD_TTL_MS // 3 if number % 7 == 0 else 0))
        if rng.random() < 0.9:
            names = [f"x{seed}-{rng.randrange(number + 30)}" for _ in range(rng.choice((1, 1, 1, 2)))]
            party = tuple(applicant(name) for name in dict.fromkeys(names))
            day = rng.choice((DAY, DAY, DAY, NEXT_DAY))
            yield passes_ms, Reserve(f"k{number}", day, party, rng.choice(wanted), rng.random() < 0.2)
        else:
            yield passes_ms, next(others)[1]


@pytest.mark.parametrize("seed", seeds(3, 8))
def test_cached_refusals_match_the_machine_within_the_bound(
    valkey_server: Server, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Three processes, any command: an own answer was right at a moment less than the bound ago, all others are now."""
    scene = Scene(valkey_server)
    processes = [Watched(scene.open(), monkeypatch) for _ in range(3)]
    ledger = Ledger(OFFICE)
    for command in published():
        processes[0].apply(OFFICE, command)
        apply(ledger, command, OPENS_AT_MS)
    rng = Random(seed)
    moments: deque[tuple[int, Ledger]] = deque([(OPENS_AT_MS, copy.deepcopy(ledger))])
    own = 0
    for passes_ms, command in crowd(seed, 150):
        scene.clock.advance_ms(passes_ms)
        now_ms = scene.clock.now_ms()
        process = rng.choice(processes)
        outcome = process.apply(OFFICE, command)
        moments.append((now_ms, copy.deepcopy(ledger)))
        while len(moments) > 1 and moments[0][0] <= now_ms - BOUND_MS:
            moments.popleft()
        if process.is_own:
            own += 1
            at_that_time = [apply(copy.deepcopy(then), command, at_ms) for at_ms, then in moments]
            assert outcome in at_that_time, f"{outcome} for {command}, and {at_that_time} in the last {BOUND_MS} ms"
        else:
            assert outcome == apply(ledger, command, now_ms)
            moments.append((now_ms, copy.deepcopy(ledger)))
    assert own >= 10
    for backend in scene.opened:
        backend.close()


@pytest.mark.parametrize("seed", range(12, 16))
def test_one_process_never_refuses_a_holder(valkey_server: Server, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """One process knows what it did itself: an own answer is right, unless time alone gave something back."""
    scene = Scene(valkey_server)
    process = Watched(scene.open(), monkeypatch)
    ledger = Ledger(OFFICE)
    for command in published():
        process.apply(OFFICE, command)
        apply(ledger, command, OPENS_AT_MS)
    own = 0
    for passes_ms, command in crowd(seed, 200):
        scene.clock.advance_ms(passes_ms)
        now_ms = scene.clock.now_ms()
        outcome = process.apply(OFFICE, command)
        if not process.is_own:
            assert outcome == apply(ledger, command, now_ms)
            continue
        own += 1
        instead = apply(copy.deepcopy(ledger), command, now_ms)
        assert not instead.replayed
        assert not instead.resumed
        assert instead.status in (SOLD_OUT, Status.HELD)
    assert own >= 10
    scene.opened[0].close()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(25))
def test_script_and_machine_agree_on_sold_out(seed: int) -> None:
    """Whenever the cache refuses, the state machine would refuse an unknown applicant, too. It hardly ever misses a
    refusal.
    """
    clock = ManualClock(0)
    backend = LuaStore(clock, LuaServer())
    ledger = Ledger("o")
    too_careful = 0
    for now_ms, command in walk(Random(seed)):
        clock.set_ms(now_ms)
        apply(ledger, command, now_ms)
        backend.apply("o", command)
        if type(command) is not Reserve:
            continue
        strangers = tuple(f"new{one}" for one in command.applicants)
        asked = replace(command, id="new", valid_until_ms=0, applicants=strangers)
        line = f"sold_out\t{asked.day}\t{len(asked.applicants)}\t{int(asked.join_wait_list)}\t{text_of_choice(asked.choice)}"  # noqa: E501
        (word,) = backend._look("o", line)
        status = apply(copy.deepcopy(ledger), asked, now_ms).status
        assert word == "0" or status is SOLD_OUT
        too_careful += word == "0" and status is SOLD_OUT
    assert too_careful <= 2


def test_names_of_events(scene: Scene) -> None:
    """The short way of reading an event finds the same people as the long one."""
    backend = scene.open()
    commands = [command for _, command in random_commands(5, 300)]
    backend.execute(ApplyMany(OFFICE, (*published(), *commands)))
    key = dict(zip(OFFICE_KEY_NAMES, keys_of("", OFFICE), strict=True))
    choices = scene.server.ask("HGETALL", key["choices"])
    entries = scene.server.ask("XRANGE", key["events"], "-", "+")
    seen = set()
    for _, fields in entries:
        text = fields["e"]
        event: Any = event_of_text(text, OfficeDecoder(OFFICE), choices)
        record = getattr(event, "reservation", None)
        assert names_of_event(text) == (() if record is None else (record.id, *record.applicants))
        seen.add(type(event))
    assert len(seen) >= 4
    assert len(backend.execute(ReadEvents(OFFICE, 0, 10_000))) == len(entries)


def test_cache_knows_all_fields_of_reserve() -> None:
    """A new field of Reserve may affect the precedence of its outcomes: then the cache and this list must know it."""
    assert Reserve.__struct_fields__ == (
        "id",
        "day",
        "applicants",
        "choice",
        "join_wait_list",
        "hold_ttl_ms",
        "valid_until_ms",
    )


# --- Bounds ---------------------------------------------------------------------------------------------------------


def with_limits(backend: RedisStore, clock: ManualClock, **limits: Any) -> SoldOutCache:
    """Give a backend a memory with other bounds."""
    cache = SoldOutCache(BOUND_MS, lambda: clock.now_ms() / 1000, CacheLimits(**limits))
    backend._sold_out_cache = backend._executor._sold_out_cache = backend._requests._sold_out_cache = cache
    return cache


@pytest.mark.slow
def test_name_filter_has_few_false_positives() -> None:
    """The filter finds every added name, full or not, and few other names."""
    for count in (1, 1000, 50_000):
        names = sold_out_cache.NameFilter(count)
        names.add(f"in{number}" for number in range(count))
        assert not names.is_full()
        names.add(f"in{number}" for number in range(count))
        assert names.count <= count  # no name counts twice
        added = count
        while not names.is_full():
            names.add([f"in{added}"])
            added += 1
        assert added >= 2 * count

        def has(name: str, names: sold_out_cache.NameFilter = names) -> bool:
            mark = sold_out_cache._MARKS[hash(name) >> 40 & 63]
            return names.table[hash(name) & names.mask] & mark == mark

        assert all(has(f"in{number}") for number in range(added))
        assert sum(has(f"out{number}") for number in range(20_000)) <= 20_000 / 100
        assert len(names.table) <= 32 * added + sold_out_cache._SLOTS_MIN


def test_office_with_too_many_names_is_not_cached(scene: Scene) -> None:
    """An office with many names has no cache: the store answers, and is rarely queried for names."""
    backend = scene.set_up()
    cache = with_limits(backend, scene.clock, names_max=3)
    for _ in range(10):
        assert scene.stranger(backend).status is SOLD_OUT
        scene.clock.advance_ms(10)
    assert cache._offices[OFFICE].snapshot is None
    assert scene.calls(lambda: [scene.stranger(backend) for _ in range(20)]) == 20
    scene.clock.advance_ms(BOUND_MS)
    assert scene.calls(lambda: [scene.stranger(backend) for _ in range(20)]) == 21


def test_too_many_events_or_a_full_filter_read_all_names(scene: Scene) -> None:
    """When more has happened than is read as news, or the table of names is full, all names are read again."""
    backend, other = scene.set_up(), scene.open()
    cache = with_limits(backend, scene.clock, events_max=3)
    scene.rush(backend)
    other.apply(OFFICE, SetCapacity(DAY, "online", 6))
    for number in range(4):
        assert other.apply(OFFICE, reserve(f"n{number}", ONLINE)).ok
    scene.clock.advance_ms(BOUND_MS)
    scene.rush(backend)
    table = cache._offices[OFFICE].names
    for number in range(4):
        assert backend.apply(OFFICE, reserve("again", ONLINE, f"n{number}")).resumed
    assert table is not None
    table.count = len(table.table)
    scene.clock.advance_ms(BOUND_MS)
    scene.rush(backend)
    assert cache._offices[OFFICE].names is not table
    assert backend.apply(OFFICE, reserve("again", ONLINE, "n3")).resumed


def test_cache_is_bounded(valkey_server: Server) -> None:
    """The oldest go: offices, kinds of reserves in one, and names in all."""
    scene = Scene(valkey_server)
    backend = scene.set_up()
    cache = with_limits(backend, scene.clock, offices_max=2, kinds_max=2, names_total_max=1)
    for wanted in (ONLINE, choice(("online", "morning")), choice(("online", "fast"))):
        for number in range(3):
            command = reserve(f"w{wanted.options[0][-1]}{number}", wanted)
            assert backend.apply(OFFICE, command).status is SOLD_OUT
    here = cache._offices[OFFICE]
    assert here.snapshot is not None
    assert len(here.kinds) == 2
    assert set(here.snapshot[3]) == set(here.kinds)
    for office in ("second", "third"):
        backend.execute(ApplyMany(office, (*published(), SetCapacity(DAY, "online", 0))))
        for number in range(3):
            assert backend.apply(office, reserve(f"o{number}", ONLINE)).status is SOLD_OUT
    assert set(cache._offices) == {"second", "third"}
    assert cache._offices["second"].names is None
    assert cache._offices["third"].names is not None
    assert not cache.due_offices
    backend.close()


def test_threads(valkey_server: Server) -> None:
    """Eight threads and the real clock, places coming and going: nothing fails, and each thread's holder is known."""
    server_time = open_store(valkey_server.url, None)
    far = replace(terms(), opens_at_ms=0, starts_at_ms=2**42, ends_at_ms=2**42, forget_at_ms=2**42)
    server_time.execute(ApplyMany(OFFICE, (SetRules(Rules()), Publish(DAY, far))))
    problems: list[object] = []

    def press(thread: int) -> None:
        for number in range(300):
            mine = server_time.apply(OFFICE, reserve(f"t{thread}-{number}", ONLINE))
            if mine.status is Status.HELD:
                again = server_time.apply(OFFICE, reserve(f"t{thread}-{number}-2", ONLINE, f"t{thread}-{number}"))
                if not again.resumed:
                    problems.append(again)
                if number % 3 == 0:
                    server_time.apply(OFFICE, Release(f"t{thread}-{number}"))
            elif mine.status is not SOLD_OUT:
                problems.append(mine)

    threads = [threading.Thread(target=press, args=(number,)) for number in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert problems == []
    server_time.close()


# --- The switch -----------------------------------------------------------------------------------------------------


def test_switched_off_and_on(valkey_server: Server) -> None:
    """On by default with the server's clock; off with an injected clock unless the URL has the option; off with 0."""
    clock = ManualClock(OPENS_AT_MS)
    bounds = []
    for options, of_ours in (("", None), ("", clock), (ON, clock), ("?sold_out_ms=0", None)):
        backend = open_store(valkey_server.url + options, of_ours)
        bounds.append(cache_of(backend)._bound_s)
        backend.close()
    assert bounds == [0.25, 0, 0.25, 0]
    for wrong in ("-1", "x", "60001", ""):
        with pytest.raises(InvalidRequest, match="sold_out_ms"):
            open_store(f"{valkey_server.url}?sold_out_ms={wrong}", None)


def test_cache_without_hkeys_is_off(own_server: Server) -> None:
    """Those of the documents are enough; without the one that it alone needs there is no memory, and no harm."""
    scene = Scene(own_server)
    scene.set_up()
    for user, rights in (("engine", RIGHTS), ("old", RIGHTS.replace("+hkeys ", ""))):
        own_server.ask("ACL", "SETUSER", user, "reset", "on", ">secret", "~{quota_engine:*", *rights.split())
        backend = open_store(f"unix://{user}:secret@{own_server.socket_path}{ON}", scene.clock)
        assert [scene.stranger(backend).status for _ in range(10)] == [SOLD_OUT] * 10
        assert (cache_of(backend)._offices[OFFICE].snapshot is None) == (user == "old")
        backend.close()
    for backend in scene.opened:
        backend.close()


def test_switched_off_nothing_is_kept(scene: Scene) -> None:
    """Each loser is a call, and there is no memory of anything."""
    scene.set_up()
    backend = scene.open("?sold_out_ms=0")
    assert scene.calls(lambda: [scene.stranger(backend) for _ in range(50)]) == 50
    backend.close()
    with pytest.raises(BackendUnavailable):
        scene.stranger(backend)
    assert cache_of(backend)._offices == {}


def test_cache_is_unused_after_the_clock_goes_back(scene: Scene) -> None:
    """Knowledge from the future is not used after the clock goes back."""
    backend = scene.set_up()
    scene.rush(backend)
    scene.clock.advance_ms(-1)
    assert scene.calls(lambda: scene.stranger(backend)) == 1
