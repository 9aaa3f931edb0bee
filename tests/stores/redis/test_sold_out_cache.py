"""The memory of what is sold out: who is answered from it, who never is, and how soon it knows better.

Two backends of one store are two processes: they share nothing. The clock is the store's and the memory's at once, so
that the bound can be tested to the millisecond.
"""

from __future__ import annotations

import asyncio

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
    PRIORITY,
    PUBLIC,
    RULES,
    STARTS_AT_MS,
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
    SetCapacity,
    SetRules,
)
from quota_engine.domain.errors import BackendUnavailable, InvalidRequest
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.ports import ApplyMany
from quota_engine.stores.redis.async_store import AsyncRedisStore
from quota_engine.stores.redis.factory import open_async_store, open_store
from quota_engine.stores.redis.sync_store import RedisStore
from quota_engine.stores.task_batching import _KNOWN_IN_A_ROW, _KNOWN_IN_A_TURN, _TURNS_IN_AN_ITERATION
from tests.stores.redis.test_outages import RIGHTS
from tests.support.servers import Server
from tests.support.sold_out import BOUND_MS, ON, SOLD_OUT, Scene, cache_of, run_losers, settled


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
    assert 10 <= turns <= 40
    task.cancel()
    await backend.close()


async def sold_out_store(server: Server, clock: ManualClock) -> AsyncRedisStore:
    """Open a store whose cache knows that all is sold out."""
    backend = await open_async_store(server.url + ON, clock)
    await backend.execute(ApplyMany(OFFICE, (*published(), reserve("ani", ONLINE), reserve("budi", ONLINE))))
    for number in range(2):
        await backend.apply(OFFICE, reserve(f"a{number}", ONLINE))
    await settled(backend)
    return backend


async def test_many_losing_tasks_leave_the_loop_time_for_replies(valkey_server: Server) -> None:
    """Hundreds of tasks that lose get a bounded number of outcomes in one iteration of the loop, in turns.

    The reply to a refresh must not come after the cache has forgotten everything.
    """
    clock = ManualClock(OPENS_AT_MS)
    backend = await sold_out_store(valkey_server, clock)

    async def lose(name: str) -> None:
        command = reserve(name, ONLINE)
        # Not those that the name filter takes for known ones: they would wait for the server.
        if backend._sold_out_cache.get(OFFICE, command) is not None:
            assert (await backend.apply(OFFICE, command)).status is SOLD_OUT

    outcomes_max, difference_max = await run_losers(clock, lose)
    await backend.close()
    assert outcomes_max <= _TURNS_IN_AN_ITERATION * (_KNOWN_IN_A_TURN + 1) + 2 * _KNOWN_IN_A_ROW
    assert difference_max <= 2 * _KNOWN_IN_A_ROW + 2


async def test_caller_who_waited_for_its_turn_asks_the_cache_again(valkey_server: Server) -> None:
    """While it waited, the cache may have forgotten what was sold out. Other callers may have given up."""
    clock = ManualClock(OPENS_AT_MS)
    backend = await sold_out_store(valkey_server, clock)
    other = await open_async_store(valkey_server.url, clock)
    assert (await other.apply(OFFICE, SetCapacity(DAY, "online", 3))).ok
    calls = [asyncio.create_task(backend.apply(OFFICE, reserve(f"c{number}", ONLINE))) for number in range(200)]
    await asyncio.sleep(0)
    waiting = [call for call in calls if not call.done()]
    assert 1 < len(waiting) < 20
    waiting[0].cancel()
    clock.advance_ms(1_000)  # the cache knows nothing any more, and one place is free
    outcomes = await asyncio.gather(*waiting[1:])
    assert sorted(one.status for one in outcomes) == [Status.HELD] + [SOLD_OUT] * (len(outcomes) - 1)
    assert waiting[0].cancelled()
    assert {call.result().status for call in calls if call not in waiting} == {SOLD_OUT}
    await backend.close()
    await other.close()


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
        assert (cache_of(backend).offices[OFFICE].snapshot is None) == (user == "old")
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
    assert cache_of(backend).offices == {}


def test_cache_is_unused_after_the_clock_goes_back(scene: Scene) -> None:
    """Knowledge from the future is not used after the clock goes back."""
    backend = scene.set_up()
    scene.rush(backend)
    scene.clock.advance_ms(-1)
    assert scene.calls(lambda: scene.stranger(backend)) == 1
