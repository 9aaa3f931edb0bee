"""The published record: it verifies, and no lie in it does."""

from __future__ import annotations

import json

import msgspec
import pytest

from quota_engine.conformance.random_rooms import CLOSING_SEED, OPENS_AT_MS, SEED, terms
from quota_engine.domain.errors import InvalidRequest
from quota_engine.waiting_room.machine import (
    CloseRoom,
    CreateRoom,
    JoinRoom,
    OpenRoom,
    RoomState,
    ViewRoom,
    answer_query,
    apply,
)
from quota_engine.waiting_room.order import RoomOrder
from quota_engine.waiting_room.transcript import (
    RoomTranscript,
    TranscriptWindow,
    iter_positions,
    parse_transcript,
    position_of,
    transcript_of,
    verify,
)

replace = msgspec.structs.replace


def records() -> tuple[RoomTranscript, RoomTranscript, RoomTranscript]:
    """Of one room with three windows: before it opened, when it was open, and when it had closed."""
    state = RoomState()
    apply(state, CreateRoom(terms(window_ms=10_000)), OPENS_AT_MS - 600_000)
    people = iter(range(1_000))

    def join(count: int, now_ms: int) -> None:
        for _ in range(count):
            apply(state, JoinRoom(f"{next(people):032x}"), now_ms)

    def record(now_ms: int) -> RoomTranscript:
        view = answer_query(state, ViewRoom(), now_ms).view
        assert view is not None
        return transcript_of("december", view)

    join(100, OPENS_AT_MS - 1_000)
    before = record(OPENS_AT_MS - 1_000)
    apply(state, OpenRoom(SEED), OPENS_AT_MS)
    join(30, OPENS_AT_MS + 1_000)
    join(5, OPENS_AT_MS + 45_000)
    during = record(OPENS_AT_MS + 45_000)
    apply(state, CloseRoom(CLOSING_SEED), OPENS_AT_MS + 46_000)
    return before, during, record(OPENS_AT_MS + 46_000)


BEFORE, DURING, AFTER = records()


def test_a_record_tells_what_has_ended() -> None:
    """No window before the opening; those that have ended while it is open; all when it has closed."""
    assert BEFORE.windows == ()
    assert DURING.windows == (TranscriptWindow(0, 0, 100), TranscriptWindow(1, 100, 30))
    assert AFTER.windows == (*DURING.windows, TranscriptWindow(5, 130, 5))
    assert (BEFORE.seed, DURING.seed, DURING.closing_seed, AFTER.closing_seed) == ("", SEED, "", CLOSING_SEED)


def test_it_holds_no_identity() -> None:
    """Nothing in it is about anybody."""
    text = msgspec.json.encode(AFTER).decode()
    assert f"{5:032x}" not in text
    assert set(json.loads(text)) == set(RoomTranscript.__struct_fields__)


@pytest.mark.parametrize(
    ("record", "checked", "pending"),
    [(BEFORE, 0, 1), (DURING, 100, 1), (AFTER, 135, 0)],
)
def test_true_records_verify(record: RoomTranscript, checked: int, pending: int) -> None:
    """As far as they go, and they say how far that is."""
    found = verify(record)
    assert (found.ok, found.tickets_checked, len(found.pending)) == (True, checked, pending)
    assert parse_transcript(msgspec.json.encode(record)) == record
    for earlier in (BEFORE, DURING, AFTER):
        if earlier.as_of_ms <= record.as_of_ms:
            assert verify(record, earlier).ok


def test_positions_are_those_that_people_were_told() -> None:
    """What the record gives is what the room's own arithmetic gave."""
    orders = RoomOrder("december", AFTER.commitment, "", SEED, CLOSING_SEED)
    told = [orders.position(((0, 0), (1, 100), (5, 130)), 135, index) for index in range(135)]
    assert dict(iter_positions(AFTER)) == dict(enumerate(told))
    assert [position_of(AFTER, index) for index in range(135)] == told
    assert position_of(DURING, 110) is None
    with pytest.raises(InvalidRequest, match="below 130"):
        position_of(DURING, 130)


@pytest.mark.parametrize(
    ("lie", "finding"),
    [
        ({"seed": "00" * 32}, "seed does not match the commitment"),
        ({"closing_seed": "00" * 32}, "closing seed does not match the commitment"),
        ({"entropy": "made up afterwards"}, "entropy without a source"),
        ({"entropy_source": "a source that never spoke"}, "source without entropy"),
        ({"commitment": "00" * 32}, "commitment"),
        ({"windows": (TranscriptWindow(0, 0, 100), TranscriptWindow(1, 101, 30))}, "begins at ticket 101"),
        ({"windows": (TranscriptWindow(1, 0, 100), TranscriptWindow(0, 100, 30))}, "comes after"),
    ],
)
def test_lies_within_a_record_are_found(lie: dict[str, object], finding: str) -> None:
    """Each with a sentence that says what is wrong."""
    found = verify(replace(AFTER, **lie))
    assert not found.ok
    assert any(finding in one for one in found.findings), found.findings


@pytest.mark.parametrize(
    "lie",
    [
        {"room": "other"},
        {"office": "malang"},
        {"opens_at_ms": OPENS_AT_MS + 1},
        {"window_ms": 20_000},
        {"seed": ""},
        {"windows": (TranscriptWindow(0, 0, 101), TranscriptWindow(1, 101, 29))},
        {"windows": (TranscriptWindow(0, 0, 100),)},
    ],
)
def test_what_was_fixed_before_must_be_so_still(lie: dict[str, object]) -> None:
    """Who kept an earlier record notices what has been changed since."""
    assert not verify(replace(AFTER, **lie), DURING).ok


def test_another_number_of_tickets_is_another_order() -> None:
    """An operator who adds a ticket to a window afterwards changes nearly all positions that people have been told."""
    more = replace(
        AFTER, windows=(TranscriptWindow(0, 0, 101), TranscriptWindow(1, 101, 30), TranscriptWindow(5, 131, 5))
    )
    told, now = dict(iter_positions(AFTER)), dict(iter_positions(more))
    assert sum(told[index] == now[index] for index in range(100)) < 10


@pytest.mark.parametrize(
    "damage",
    [
        lambda fields: fields.pop("seed"),
        lambda fields: fields.update(extra=1),
        lambda fields: fields.update(format="another"),
        lambda fields: fields.update(construction=2),
        lambda fields: fields.update(windows=[{"window": 0, "first": 0, "tickets": -1}]),
        lambda fields: fields.update(windows=[{"window": 0, "first": 0, "tickets": 10**9}]),
        lambda fields: fields.update(opens_at_ms="soon"),
        lambda fields: fields.update(seed="short"),
        lambda fields: fields.update(room="a b"),
    ],
)
def test_what_is_no_record_is_refused(damage: object) -> None:
    """By name, and before anything is worked out."""
    fields = json.loads(msgspec.json.encode(AFTER))
    assert callable(damage)
    damage(fields)
    with pytest.raises(InvalidRequest):
        parse_transcript(json.dumps(fields).encode())
    with pytest.raises(InvalidRequest):
        parse_transcript(b"\xff not JSON")


def test_progress_is_told() -> None:
    """A long verification says how far it is."""
    seen: list[int] = []
    record = replace(DURING, windows=(TranscriptWindow(0, 0, 25_000),))
    assert verify(record, progress=seen.append).ok
    assert seen == [10_000, 20_000]
