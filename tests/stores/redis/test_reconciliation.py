"""Putting a ledger right: on real servers after failovers and damages, and without one for thousands of walks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from random import Random
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quota_engine.clocks import ManualClock
from quota_engine.conformance.world import DAY, published
from quota_engine.domain.audit import audit
from quota_engine.domain.commands import Confirm, SetRules
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.ledger import Ledger, describe
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import Rules
from quota_engine.domain.reconcile import recompute
from quota_engine.domain.state_machine import apply
from quota_engine.engine.store_discovery import store_factory
from quota_engine.fuzz.keyspace import Refused
from quota_engine.fuzz.lua_server import LuaServer
from quota_engine.fuzz.lua_store import LuaStore
from quota_engine.ports import (
    Audit,
    Describe,
    ListDay,
    ReadEvents,
    Reconcile,
    RecordedEvent,
    StoreRequest,
    TrimEvents,
)
from quota_engine.stores.redis import office_requests, reconciliation
from quota_engine.stores.redis.codecs.office import encode
from quota_engine.stores.redis.keys import OFFICE_KEY_NAMES
from quota_engine.stores.redis.ledger_formats import OFFICE as KIND
from quota_engine.stores.redis.office_reader import ENTRIES_MAX, OfficeReader
from quota_engine.stores.redis.repair import writes_between
from quota_engine.stores.redis.script_runner import READINGS_MAX
from quota_engine.stores.redis.scripts import OFFICE_COMMANDS, OFFICE_PARTS, OFFICE_STATE, RECONCILE, Script
from tests.support.answering import answers_during
from tests.support.command_source import Step
from tests.support.effort import examples
from tests.support.random_walks import walk
from tests.support.servers import Server

OFFICE = "SBY"
SEEDS = st.integers(0, 10**6)


@functools.lru_cache(maxsize=64)
def steps_of(seed: int, steps: int) -> tuple[Step, ...]:
    """A walk, which takes as long to make as to go."""
    return tuple(walk(Random(seed), steps))


class Walked:
    """An office on the scripts without a server, and the machine's ledger of the same walk."""

    def __init__(self, seed: int, steps: int = 60) -> None:
        self.clock = ManualClock(0)
        self.backend = LuaStore(self.clock, LuaServer(scan_max=3))
        self.ledger = Ledger(OFFICE)
        self._rest: Iterator[Step] = iter(steps_of(seed, steps + 20))
        self.go(steps)

    def go(self, steps: int = 1000) -> None:
        """Take as many steps of the walk on both; every outcome is the same."""
        for _ in range(steps):
            step = next(self._rest, None)
            if step is not None:
                self.clock.set_ms(step[0])
                assert self.backend.apply(OFFICE, step[1]) == apply(self.ledger, step[1], step[0])

    def compare(self) -> None:
        assert self.backend.execute(Describe(OFFICE)) == describe(self.ledger)
        assert self.backend.execute(Audit(OFFICE)) == []

    def value(self, kind: str) -> Any:
        """Return the value of one of the office's keys."""
        return self.backend.store._values[self.backend._keys(OFFICE)[OFFICE_KEY_NAMES.index(kind)]]


def state_of(walked: Walked) -> list[Any]:
    """Return the replies that a reconciliation reads, and leave the office as it was."""
    keys = walked.backend._keys(OFFICE)
    status, _, lease, server, *part = walked.backend.store.run(RECONCILE, keys, ["0", "begin", "t", "", "1", "0"])
    reader = OfficeReader()
    while True:
        assert status in ("GO", "OK")
        reader.add(part)
        if reader.cursor is None:
            break
        words = ["0", "read", "t", lease, server, *reader.cursor]
        status, *part = walked.backend.store.run(RECONCILE, keys, words)
    walked.backend.store.run(RECONCILE, keys, ["0", "leave", "t"])
    return reader.state()


@pytest.mark.slow
@pytest.mark.parametrize("whole", [True, False], ids=["from-events", "from-records"])
@settings(max_examples=examples(14, 40))
@given(seed=SEEDS)
def test_correct_office_is_left_alone(whole: bool, seed: int) -> None:
    """After any walk nothing is found to repair, whether the events decide or the records."""
    walked = Walked(seed)
    if not walked.ledger.events:
        return
    state = state_of(walked)
    decoded = KIND.decode_ledger(OFFICE, state[:-2])
    mended = recompute(decoded, from_events=whole)
    assert describe(mended) == describe(walked.ledger)
    assert writes_between(state, mended, len(walked.ledger.events), (), decoded) == []


# --- Damages: each changes something, if there is something of its kind, and says whether it did ---------------------


def known_ids(walked: Walked) -> list[str]:
    """Reservations of days that are not forgotten: what is left of others means nothing."""
    return [one.id for one in walked.ledger.reservations.values() if one.day in walked.ledger.days]


def change_a_counter(walked: Walked, rng: Random) -> bool:
    """Held, confirmed and free of a quota, the number of those who wait, the last queue number."""
    days: dict[str, str] = walked.value("days")
    fields = [field for field in days if field.isdigit()]
    if not fields:
        return False
    field = rng.choice(fields)
    rows = [row.split("\t") for row in days[field].split("\n")]
    row, column = rng.choice([(0, 3), *((number, rng.choice((2, 3, 4))) for number in range(2, len(rows)))])
    rows[row][column] = str(int(rows[row][column]) + rng.choice((-2, -1, 1, 5)))
    days[field] = "\n".join("\t".join(row) for row in rows)
    return True


def look_too_late(walked: Walked, rng: Random) -> bool:
    """A day that would not look for what is due, or not where it is."""
    days: dict[str, str] = walked.value("days")
    fields = [str(one.day) for one in walked.ledger.reservations.values() if one.state is State.HELD]
    fields = [field for field in fields if field in days]
    if not fields:
        return False
    field = rng.choice(fields)
    first, _, *quotas = days[field].split("\n")
    parts = first.split("\t")
    parts[2] = str(2**50)
    days[field] = "\n".join(["\t".join(parts), "", *quotas])
    return True


def lose_a_field(kind: str) -> Callable[[Walked, Random], bool]:
    """A record, a claim or a standing is gone."""

    def lose(walked: Walked, rng: Random) -> bool:
        kept = {"records": known_ids(walked), "claims": describe(walked.ledger)["claims"]}
        fields = [field for field in walked.value(kind) if field != "~" and field in kept.get(kind, {field})]
        if fields:
            del walked.value(kind)[rng.choice(fields)]
        return bool(fields)

    lose.__name__ = f"lose_one_of_the_{kind}"
    return lose


def claim_too_much(walked: Walked, rng: Random) -> bool:
    """An applicant has a claim on another applicant's reservation."""
    ids = known_ids(walked)
    if ids:
        walked.value("claims")["somebody"] = rng.choice(ids)
    return bool(ids)


def lose_a_member(kind: str) -> Callable[[Walked, Random], bool]:
    """A deadline, cooling units or a waiting reservation are missing."""

    def lose(walked: Walked, rng: Random) -> bool:
        members = [one for one in walked.value(kind).scores if not one.startswith("~")]
        if members:
            walked.value(kind).remove(rng.choice(members))
        return bool(members)

    lose.__name__ = f"lose_a_member_of_{kind}"
    return lose


def a_deadline_too_many(walked: Walked, rng: Random) -> bool:
    """A hold that does not exist is due."""
    walked.value("due").add(f"{rng.choice((11, 12))}/total/{0:015}/nobody", 0)
    return True


def units_too_many_cool(walked: Walked, rng: Random) -> bool:
    """Units that were never returned are cooling."""
    texts = walked.value("days")
    days = [field for field in texts if field.isdigit() and "total" in texts[field]]
    if not days:
        return False
    walked.value("cooling").add(f"{rng.choice(days)}/total/{1:015}/{3:015}/nobody/1", 0)
    return True


def turn_the_wait_list_round(walked: Walked, rng: Random) -> bool:
    """The last becomes the first, and of no day."""
    waiting = walked.value("waiting")
    members = [one for one in waiting.scores if one != "~"]
    for place, one in enumerate(reversed(members)):
        waiting.add(one, float(place))
    return bool(set(members) & set(known_ids(walked)))


DERIVED = [
    change_a_counter,
    look_too_late,
    claim_too_much,
    lose_a_field("claims"),
    lose_a_member("due"),
    a_deadline_too_many,
]
"""Damage that the records are enough to repair."""
DAMAGES = [
    *DERIVED,
    lose_a_field("records"),
    lose_a_field("penalties"),
    lose_a_member("cooling"),
    lose_a_member("waiting"),
    lose_a_member("updated"),
    units_too_many_cool,
    turn_the_wait_list_round,
]


def ids_of(damages: list[Callable[[Walked, Random], bool]]) -> list[str]:
    return [damage.__name__ for damage in damages]


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES, ids=ids_of(DAMAGES))
@settings(max_examples=8)
@given(seed=SEEDS)
def test_damage_is_repaired_from_the_events(damage: Callable[[Walked, Random], bool], seed: int) -> None:
    """Any change behind the engine's back is repaired, and the office continues as if it had not happened."""
    walked = Walked(seed)
    if not walked.ledger.events or not damage(walked, Random(seed)):
        return
    found = walked.backend.execute(Reconcile(OFFICE))
    assert found.repaired
    walked.compare()
    walked.go()
    walked.compare()
    assert walked.backend.execute(Reconcile(OFFICE)).repaired == 0


@pytest.mark.slow
@pytest.mark.parametrize("damage", DERIVED, ids=ids_of(DERIVED))
@settings(max_examples=8)
@given(seed=SEEDS)
def test_damage_is_repaired_from_the_records(damage: Callable[[Walked, Random], bool], seed: int) -> None:
    """If older events are trimmed, counters and indexes are computed from the records."""
    walked = Walked(seed)
    if len(walked.ledger.events) < 2:
        return
    walked.backend.execute(TrimEvents(OFFICE, len(walked.ledger.events) // 2))
    if not damage(walked, Random(seed)):
        return
    assert walked.backend.execute(Reconcile(OFFICE)).repaired
    walked.compare()


@pytest.mark.slow
@pytest.mark.parametrize("trimmed", [False, True])
@settings(max_examples=examples(10, 30))
@given(seed=SEEDS, data=st.data())
def test_lost_events_are_restored(trimmed: bool, seed: int, data: st.DataObject) -> None:
    """A store that has only the beginning of a walk, and the events of the rest: it becomes what it would be."""
    whole, part = Walked(seed), Walked(seed, data.draw(st.integers(5, 60)))
    number = len(part.ledger.events)
    if not number:
        return
    if trimmed:
        part.backend.execute(TrimEvents(OFFICE, number // 2))
    kept = whole.backend.execute(ReadEvents(OFFICE, data.draw(st.integers(0, number)), 1000))
    found = part.backend.execute(Reconcile(OFFICE, tuple(kept)))
    assert (found.repaired, found.restored) == (0, len(whole.ledger.events) - number)
    part.ledger = whole.ledger
    part.compare()
    part.clock.set_ms(whole.clock.now_ms())
    rest = part.backend.execute(ReadEvents(OFFICE, number, 1000))
    assert rest == whole.backend.execute(ReadEvents(OFFICE, number, 1000))
    part._rest = whole._rest
    part.go()
    part.compare()
    assert part.backend.execute(Reconcile(OFFICE)).repaired == 0


def test_office_is_read_in_parts() -> None:
    """The server answers others between two parts, and together the parts are the whole office."""
    walked = Walked(4)
    walked.backend.store._scan_max = 10**6
    records = walked.value("records")
    records.update({f"more{number}": records[known_ids(walked)[0]] for number in range(2 * ENTRIES_MAX)})
    sizes: list[int] = []
    run = walked.backend.store.run

    def count_entries(*arguments: Any) -> Any:
        status, *reply = run(*arguments)
        parts = reply[5::2] if status == "GO" else reply[3::2]
        sizes.append(sum(len(part) for part in parts if isinstance(part, list)))
        return [status, *reply]

    walked.backend.store.run = count_entries  # type: ignore[method-assign, assignment]
    assert state_of(walked)[2] == records
    assert len(sizes) == 4  # three parts, and leaving
    assert all(size <= 2 * ENTRIES_MAX for size in sizes)  # a field and its value


class Parts:
    """The calls of the scripts that read a large office, and a change of the office before some of them."""

    def __init__(self, walked: Walked, changes: int = 0) -> None:
        records = walked.value("records")
        records.update({f"more{number}": records[known_ids(walked)[0]] for number in range(2 * ENTRIES_MAX)})
        self.sizes: list[int] = []
        self.scripts: list[Script] = []
        self._walked, self._changes, self._run = walked, changes, walked.backend.store.run
        walked.backend.store._scan_max = 10**6
        walked.backend.store.run = self.run  # type: ignore[method-assign, assignment]

    def run(self, script: Script, keys: Sequence[str], words: Sequence[str]) -> Any:
        """Run a script. Before the second part of a reading, the office changes as often as it may."""
        if script is OFFICE_PARTS and words[1] and self._changes:
            self._changes -= 1
            line = encode(SetRules(Rules(hold_ttl_ms=1 + self._changes)))
            self._run(OFFICE_COMMANDS, keys, [str(self._walked.clock.now_ms()), line])
        reply = self._run(script, keys, words)
        if script in (OFFICE_PARTS, OFFICE_STATE):
            self.scripts.append(script)
        if script is OFFICE_PARTS:
            self.sizes.append(sum(len(part) for part in reply[4::2]))
        return reply


def test_audit_reads_an_office_in_parts() -> None:
    walked = Walked(4)
    parts = Parts(walked)
    found = walked.backend.execute(Audit(OFFICE))
    assert parts.scripts == [OFFICE_PARTS] * 3
    assert all(size <= 2 * ENTRIES_MAX for size in parts.sizes)
    assert found == audit(walked.backend.read_ledger(OFFICE)[0])
    assert found


@pytest.mark.parametrize("changes", [1, READINGS_MAX])
def test_audit_begins_again_when_the_office_changes(changes: int) -> None:
    """An office that changes in each reading is read in one script at last."""
    walked = Walked(4)
    parts = Parts(walked, changes)
    found = walked.backend.execute(Audit(OFFICE))
    rest = [OFFICE_PARTS] * 3 if changes < READINGS_MAX else [OFFICE_STATE]
    assert parts.scripts == [*[OFFICE_PARTS] * 2 * changes, *rest]
    assert found == audit(walked.backend.read_ledger(OFFICE)[0])


@pytest.mark.parametrize(
    ("long", "computed_in"),
    [
        (Audit(OFFICE), (office_requests, "audit")),
        (Reconcile(OFFICE), (reconciliation, "examine")),
    ],
    ids=["audit", "reconcile"],
)
async def test_event_loop_answers_while_an_office_is_computed(
    valkey_server: Server, long: StoreRequest[Any], computed_in: tuple[ModuleType, str]
) -> None:
    store = await store_factory(valkey_server.url).open_async_store(valkey_server.url, None)
    for command in published():
        await store.apply(OFFICE, command)
    assert await answers_during(store, long, computed_in, ListDay(OFFICE, DAY)) == [[]]
    await store.close()


def test_reading_ends_when_the_office_or_the_server_changes() -> None:
    """Parts of two states, or of two servers, would not fit together."""
    walked = Walked(4)
    run, keys = walked.backend.store.run, walked.backend._keys(OFFICE)

    def begin() -> list[str]:
        return list(run(RECONCILE, keys, ["0", "begin", "t", "", "1", "0"])[2:6])

    lease, server, part, cursor = begin()
    assert run(RECONCILE, keys, ["0", "read", "t", lease, server, part, cursor])[0] == "OK"
    walked.backend.store.replication_id = "b" * 40
    assert run(RECONCILE, keys, ["0", "read", "t", lease, server, part, cursor]) == ["TAKEN"]
    lease, server, part, cursor = begin()
    walked.go(60)  # a client without the fence
    assert run(RECONCILE, keys, ["0", "read", "t", lease, server, part, cursor]) == ["TAKEN"]


def test_events_of_another_history_are_refused() -> None:
    """Not in order, or others than the office's own: nothing is restored, and the office is as open as before."""
    walked = Walked(7)
    before = walked.backend.execute(Describe(OFFICE))
    recorded = walked.backend.execute(ReadEvents(OFFICE, 0, 1000))
    last = recorded[-1]
    for wrong, problem in (
        ((RecordedEvent(last.number + 2, last.event),), f"number {last.number + 2} follows {last.number}"),
        ((RecordedEvent(last.number, recorded[0].event),), f"number {last.number} is another event here"),
    ):
        with pytest.raises(InvalidRequest, match=problem):
            walked.backend.execute(Reconcile(OFFICE, wrong))
        assert walked.backend.execute(Describe(OFFICE)) == before
    walked.go()
    walked.compare()


class Died(Exception):
    """The client is gone."""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_interrupted_reconciliation_can_be_resumed(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before each single write, and between restoring and opening: another client comes to the same ledger."""
    monkeypatch.setattr(reconciliation, "WRITES_MAX", 1)
    whole = Walked(seed)
    kept = len(Walked(seed, 40).ledger.events)
    events = tuple(whole.backend.execute(ReadEvents(OFFICE, 0, 1000)))
    calls, is_done = 0, False
    while not is_done:
        walked, rng = Walked(seed, 40), Random(seed)
        for damage in DAMAGES:
            damage(walked, rng)
        run, left = walked.backend.store.run, iter(range(calls))

        def run_or_die(*arguments: Any, run: Any = run, left: Iterator[int] = left) -> Any:
            if next(left, None) is None:
                raise Died
            return run(*arguments)

        walked.backend.store.run = run_or_die  # type: ignore[method-assign, assignment]
        try:
            assert walked.backend.execute(Reconcile(OFFICE, events)).restored == len(events) - kept
            is_done = True
        except Died:
            calls += 1
        walked.backend.store.run = run  # type: ignore[method-assign]
        walked.clock.set_ms(walked.clock.now_ms() + reconciliation.LEASE_MS + 1000)  # and more than its records add
        walked.backend.execute(Reconcile(OFFICE, events))
        walked.ledger = whole.ledger
        walked.compare()
    assert calls > 5


def test_histories_with_the_same_epoch_are_distinguished() -> None:
    """Two servers take over an office at the same time. A client that has seen one of them does not continue with the
    other.
    """
    walked = Walked(3)
    run, keys = walked.backend.store.run, walked.backend._keys(OFFICE)
    here, ends_at_ms = "a" * 40, walked.value("head")["ends_at_ms"]

    def minding(seen: str) -> Any:
        return run(OFFICE_COMMANDS, keys, [f"{walked.clock.now_ms()}@{seen}", encode(Confirm("nobody"))])

    assert walked.backend.execute(Reconcile(OFFICE)).epoch == 1
    for seen in ("", f"1:{here}:0", f"0:{'c' * 40}:0", f"2:{here}:1"):  # the last one has seen an office that has ended
        assert minding(seen)[1] == f"1:{here}:{ends_at_ms}"
    with pytest.raises(Refused, match="BEHIND 1 2 1"):
        minding(f"2:{here}:{ends_at_ms}")
    with pytest.raises(Refused, match="FENCED 1 0 1"):
        minding(f"1:{'c' * 40}:0")
    walked.backend.store.replication_id = "b" * 40
    with pytest.raises(Refused, match="FENCED 1 0 1"):
        minding(f"1:{here}:0")
    walked.go()  # a client without the fence continues
    walked.compare()


def test_reconciliation_lease_grows_with_the_office() -> None:
    """A quarter of a millisecond a record: who reads a million of them gives no sign for long."""
    walked = Walked(4)
    run, keys = walked.backend.store.run, walked.backend._keys(OFFICE)
    records = walked.value("records")
    records.update({f"more{number}": records[known_ids(walked)[0]] for number in range(4000 - len(records))})

    def begin(token: str, now_ms: int) -> Any:
        return run(RECONCILE, keys, [str(now_ms), "begin", token, "", "1", "60000"])[0]

    assert begin("slow", 0) == "GO"
    assert begin("next", 60_999) == "BUSY"
    assert begin("next", 61_000) == "GO"
