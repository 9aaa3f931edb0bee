"""States in memory: entries and snapshots lead another copy to the same state, for each kind of ledger."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import msgspec
import pytest

from quota_engine.admission.guarded_command import describe_admission
from quota_engine.admission.token_bucket import Charge, ResetTokens, TakeTokens, at_most, per_minute, per_second
from quota_engine.conformance import random_draws, random_rooms
from quota_engine.conformance.guarded_commands import guarded
from quota_engine.conformance.random_commands import random_commands
from quota_engine.conformance.random_registry import registry_walk
from quota_engine.conformance.world import OFFICE, OPENS_AT_MS, PRIORITY, published, reserve
from quota_engine.domain.commands import Cancel, Decline, Release
from quota_engine.domain.ledger import Day, Ledger, Quota
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import Status
from quota_engine.ledger_kinds import OFFICE as OFFICE_KIND
from quota_engine.stores.sql import snapshot_codec
from quota_engine.stores.sql.entry_codec import DamagedLedger
from quota_engine.stores.sql.ledger_state import LedgerState, new_state
from quota_engine.stores.sql.office_codec import PARTY_FIELDS
from quota_engine.stores.sql.snapshot_codec import Position

Walk = Iterator[tuple[int, Any]]


def office_walk(seed: int) -> Walk:
    """Commands of an office, two thirds of them guarded."""
    random = Random(seed)
    for command in published():
        yield OPENS_AT_MS - 3_600_000, command
    for now_ms, command in random_commands(seed, 500):
        yield now_ms, guarded(random, command, now_ms)


def bucket_walk(seed: int) -> Walk:
    random, now_ms = Random(seed), OPENS_AT_MS
    limits = (per_second(7, 3), per_minute(2), at_most(3, per_second))
    for _ in range(300):
        now_ms += random.choice((0, 1, 200, 60_000, -10))
        keys = random.sample(range(3), random.choice((1, 2)))
        yield now_ms, TakeTokens(tuple(Charge(f"k{key}", limits[key]) for key in keys))
        if random.random() < 0.1:
            yield now_ms, ResetTokens(("k1", "k2"))


def walk(kind: str, seed: int) -> tuple[str, Walk]:
    """Return an address, and commands for it with their times."""
    match kind:
        case "office":
            return OFFICE, office_walk(seed)
        case "room":
            return "~room.one", ((now_ms, command) for command, now_ms in random_rooms.walk(seed))
        case "draw":
            return f"~draw.{random_draws.DRAW}", iter(random_draws.walk(Random(seed)))
        case "registry":
            return "~n.00", iter(registry_walk(Random(seed), 300))
    return "~buckets.one", bucket_walk(seed)


def described(state: LedgerState) -> Any:
    """Return the whole state, with the admission state of an office."""
    admission = describe_admission(state.state) if state.kind is OFFICE_KIND else None
    return state.kind.describe(state.state), admission


def restored(state: LedgerState) -> LedgerState:
    """Return a copy that was made from a snapshot."""
    copy = new_state(state.address)
    reader = copy.reader()
    for number, part in enumerate(state.snapshot(Position(7, 9, b"sum"))):
        reader.read(number, part)
    assert reader.is_complete
    assert reader.position == (7, 9, b"sum")
    return copy


KINDS = ("office", "room", "draw", "registry", "buckets")


@pytest.mark.usefixtures("invariant_checks")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_entries_lead_a_copy_to_the_same_state(kind: str, seed: int) -> None:
    """A copy that replays each entry equals the original after each command, and so do copies of snapshots."""
    address, commands = walk(kind, seed)
    original, copy = new_state(address), new_state(address)
    for number, (now_ms, command) in enumerate(commands):
        outcome = original.apply(command, now_ms)
        if original.changes:
            copy.replay(original.take_entry(now_ms).body, "an entry")
        if number % 97 == 96:
            copy = restored(copy)
        if number % 5 == 0:
            assert described(copy) == described(original), (number, command, outcome)
    assert described(copy) == described(original)


@pytest.mark.parametrize("kind", KINDS)
def test_snapshots_lead_to_the_same_outcomes(kind: str) -> None:
    """Copies of a snapshot in the middle of a walk give the outcomes that the original gives."""
    address, commands = walk(kind, 5)
    original, copy = new_state(address), new_state(address)
    for number, (now_ms, command) in enumerate(commands):
        if number % 60 == 0:
            copy = restored(original)
        assert copy.apply(command, now_ms) == original.apply(command, now_ms), command


def test_a_process_that_replays_a_decline_offers_the_place_when_the_pause_ends() -> None:
    """It has settled the day before, and knew of nothing that was due at the end of the pause."""
    deciding, replaying = new_state(OFFICE), new_state(OFFICE)
    pause_ms, now_ms = 900_000, OPENS_AT_MS
    for command in (
        *published(declines_max=3, decline_pause_ms=pause_ms),
        reserve("first", PRIORITY, "p1"),
        reserve("second", PRIORITY, "p2", wait=True),
        Release("first"),
    ):
        deciding.apply(command, now_ms)
    replaying.replay(deciding.take_entry(now_ms).body, "an entry")
    replaying.apply(Cancel("second"), now_ms)
    assert deciding.apply(Decline("second"), now_ms).status is Status.WAITING
    replaying.replay(deciding.take_entry(now_ms).body, "an entry")
    for state in (deciding, replaying):
        state.apply(Cancel("second"), now_ms + pause_ms)
        assert state.state.reservations["second"].state is State.HELD


@pytest.mark.parametrize("items", [1, 3])
def test_snapshots_are_read_in_parts_of_any_size(items: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_codec, "PART_ITEMS", items)
    for kind in KINDS:
        address, commands = walk(kind, 1)
        original = new_state(address)
        for now_ms, command in commands:
            original.apply(command, now_ms)
        assert described(restored(original)) == described(original)


def test_a_snapshot_is_not_affected_by_later_changes() -> None:
    """The parts are encoded after the state has changed, and have the state of the moment when they were requested."""
    for kind in KINDS:
        address, commands = walk(kind, 2)
        timed = list(commands)
        half = len(timed) // 2
        original, expected = new_state(address), new_state(address)
        for now_ms, command in timed[:half]:
            original.apply(command, now_ms)
            expected.apply(command, now_ms)
        parts = original.snapshot(Position(1, 1, b""))
        for now_ms, command in timed[half:]:
            original.apply(command, now_ms)
        copy = new_state(address)
        reader = copy.reader()
        for number, part in enumerate(parts):
            reader.read(number, part)
        assert described(copy) == described(expected)


def test_altered_and_missing_parts_are_found() -> None:
    state = new_state(OFFICE)
    parts = list(state.snapshot(Position(1, 1, b"")))
    reader = new_state(OFFICE).reader()
    reader.read(0, parts[0])
    with pytest.raises(DamagedLedger, match="part 1 of the snapshot of conformance was altered: restore"):
        reader.read(1, parts[1][:-1] + bytes([parts[1][-1] ^ 1]))
    with pytest.raises(DamagedLedger, match="part 0 of the snapshot of conformance is missing"):
        new_state(OFFICE).reader().read(1, parts[1])


def test_a_snapshot_has_every_field_of_an_office() -> None:
    """A new field of these classes belongs into the snapshot, or into the fields that it derives."""
    derived: dict[type, set[str]] = {
        Ledger: {"office", "claims", "events", "forgotten_days", "next_forget_ms", "reservations", "days"},
        Day: {"due", "guards", "last_complete_choice", "last_valid_choice", "last_valid_until_ms", "next_due_ms"}
        | {"reservation_ids", "wait_queues", "waiting"},
        Quota: set(),
    }
    written: dict[type, set[str]] = {
        Ledger: {"abandoned", "forgotten_day_max", "now_ms", "penalties", "rules"},
        Day: {"closed", "number", "quotas", "terms", *snapshot_codec._DAY_COUNTERS},
        Quota: {"cooling_due", "guard", "re_release", "reallocation", *snapshot_codec._QUOTA_COUNTERS},
    }
    for kind, fields in written.items():
        assert set(kind.__slots__) == derived[kind] | fields, kind  # type: ignore[attr-defined]


def test_the_counts_of_a_record_are_integers() -> None:
    """Entries and snapshots store the fields after the state as integers, by their names."""
    types = {field.name: field.type for field in msgspec.structs.fields(Reservation)}
    assert list(types)[:7] == ["office", "id", "day", "applicants", "choice", "quotas", "state"]
    assert list(types)[-2:] == list(PARTY_FIELDS)
    assert {types[name] for name in list(types)[7:-2]} == {int}
