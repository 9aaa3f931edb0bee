"""Transcripts and their verification."""

from __future__ import annotations

import datetime
import json

import msgspec
import pytest

from quota_engine.conformance.random_rooms import CLOSING_SEED, OPENS_AT_MS, SEED, terms
from quota_engine.domain.errors import InvalidRequest
from quota_engine.waiting_room.commands import CloseRoom, CreateRoom, JoinRoom, OpenRoom, ViewRoom
from quota_engine.waiting_room.machine import RoomState, answer_query, apply
from quota_engine.waiting_room.order import RoomOrder
from quota_engine.waiting_room.transcript import (
    RoomTranscript,
    TranscriptEpoch,
    TranscriptWindow,
    digest_of,
    iter_positions,
    parse_transcript,
    position_of,
    transcript_of,
    verify,
)

replace = msgspec.structs.replace


def transcripts() -> tuple[RoomTranscript, RoomTranscript, RoomTranscript]:
    """Return transcripts of one room with three windows: before the opening, while it is open, and after its close."""
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


BEFORE, DURING, AFTER = transcripts()


def signed(transcript: RoomTranscript) -> RoomTranscript:
    """Return a transcript with the digest of its contents."""
    return replace(transcript, digest=digest_of(transcript))


def test_transcript_lists_the_windows_that_have_ended() -> None:
    assert BEFORE.windows == ()
    assert DURING.windows == (TranscriptWindow(0, 1, 100), TranscriptWindow(1, 101, 30))
    assert AFTER.windows == (*DURING.windows, TranscriptWindow(5, 131, 5))
    assert (BEFORE.seed, DURING.seed, DURING.closing_seed, AFTER.closing_seed) == ("", SEED, "", CLOSING_SEED)


def test_transcript_contains_no_identity() -> None:
    text = msgspec.json.encode(AFTER).decode()
    assert f"{5:032x}" not in text
    assert set(json.loads(text)) == set(RoomTranscript.__struct_fields__)


@pytest.mark.parametrize(
    ("record", "checked", "pending"),
    [(BEFORE, 0, 1), (DURING, 100, 1), (AFTER, 135, 0)],
)
def test_true_transcripts_verify(record: RoomTranscript, checked: int, pending: int) -> None:
    """The verification states which parts are pending."""
    found = verify(record)
    assert (found.ok, found.tickets_checked, len(found.pending)) == (True, checked, pending)
    assert parse_transcript(msgspec.json.encode(record)) == record
    for earlier in (BEFORE, DURING, AFTER):
        if earlier.as_of_ms <= record.as_of_ms:
            assert verify(record, [earlier]).ok


def test_positions_match_those_of_the_room() -> None:
    orders = RoomOrder("december", AFTER.commitment, "", SEED, CLOSING_SEED)
    told = [orders.position(((0, 0), (1, 100), (5, 130)), 135, index) for index in range(135)]
    assert dict(iter_positions(AFTER)) == dict(enumerate(told, 1))
    assert [position_of(AFTER, number) for number in range(1, 136)] == told
    assert position_of(DURING, 111) is None
    for number in (0, 131):
        with pytest.raises(InvalidRequest, match="1 to"):
            position_of(DURING, number)


@pytest.mark.parametrize(
    ("lie", "finding"),
    [
        ({"seed": "00" * 32}, "seed does not match the commitment"),
        ({"closing_seed": "00" * 32}, "closing seed does not match the commitment"),
        ({"entropy": "made up afterwards"}, "entropy without a source"),
        ({"entropy_source": "a source that never spoke"}, "source without entropy"),
        ({"commitment": "00" * 32}, "commitment"),
        ({"windows": (TranscriptWindow(0, 1, 100), TranscriptWindow(1, 102, 30))}, "begins at ticket 102"),
        ({"windows": (TranscriptWindow(1, 1, 100), TranscriptWindow(0, 101, 30))}, "comes after"),
        ({"digest": "00" * 32}, "digest does not match"),
        ({"contradictions": ("entropy has changed",)}, "the publisher states: entropy has changed"),
    ],
)
def test_inconsistent_transcripts_are_found(lie: dict[str, object], finding: str) -> None:
    found = verify(replace(AFTER, **lie))
    assert not found.ok
    assert any(finding in one for one in found.findings), found.findings


def test_impossible_times_are_found() -> None:
    """Windows, the time of the transcript and the revealed seeds must fit each other."""
    gone = {"seed": "", "closing_seed": ""}
    closes_at_ms = AFTER.closes_at_ms
    for lie, finding in (
        ({"window_ms": 60_000}, "window 5 had not ended at"),
        ({"window_ms": 999}, "window_ms is 999; expected 1000 to 604800000"),
        ({"window_ms": 10_000_000}, "window 5 begins after the close"),
        ({"window_ms": 700_000_000}, "expected 1000 to 604800000"),
        ({"as_of_ms": OPENS_AT_MS - 1}, "the seed is revealed at"),
        ({"as_of_ms": OPENS_AT_MS + 9_000, "closing_seed": ""}, "window 1 had not ended at"),
        (gone, "the room opened at"),
        ({**gone, "as_of_ms": closes_at_ms}, "the closing seed is missing"),
        ({**gone, "as_of_ms": closes_at_ms, "entropy_source": "a source"}, "the closing seed is missing"),
        ({**gone, "entropy": "said", "entropy_source": "a source"}, "has entropy, but the seed is missing"),
        ({"closes_at_ms": OPENS_AT_MS + 700_000_000}, "expected at most 604800000"),
        ({"last_day": AFTER.first_day - datetime.timedelta(1)}, "the first day"),
        ({"epoch": 3, "epochs": (TranscriptEpoch(3, 9), TranscriptEpoch(2, 20))}, "do not lead to epoch 3"),
        ({"epoch": 2, "epochs": (TranscriptEpoch(3, 9),)}, "do not lead to epoch 2"),
    ):
        found = verify(signed(replace(AFTER, **lie)))
        assert any(finding in one for one in found.findings), (lie, found.findings)
        assert (found.ok, found.tickets_checked) == (False, 0)


def test_a_room_that_closed_before_its_opening_has_no_positions() -> None:
    """The closing seed is public then, and no ticket has a position."""
    record = signed(replace(AFTER, seed="", windows=(AFTER.windows[0],), as_of_ms=OPENS_AT_MS - 500))
    found = verify(record)
    assert (found.ok, found.tickets_checked) == (True, 0)
    assert found.pending == ("the room closed before its opening: it has no positions",)
    assert verify(record, [BEFORE]).ok


@pytest.mark.parametrize(
    "lie",
    [
        {"room": "other"},
        {"office": "malang"},
        {"opens_at_ms": OPENS_AT_MS + 1},
        {"window_ms": 20_000},
        {"seed": ""},
        {"windows": (TranscriptWindow(0, 1, 101), TranscriptWindow(1, 102, 29))},
        {"windows": (TranscriptWindow(0, 1, 100),)},
        {"entropy": "another text", "entropy_source": "a source"},
    ],
)
def test_changes_since_an_earlier_transcript_are_found(lie: dict[str, object]) -> None:
    assert not verify(signed(replace(AFTER, **lie)), [DURING]).ok
    assert not verify(AFTER, [replace(DURING, epoch=2)]).ok


def test_added_ticket_changes_nearly_all_positions() -> None:
    more = replace(
        AFTER, windows=(TranscriptWindow(0, 1, 101), TranscriptWindow(1, 102, 30), TranscriptWindow(5, 132, 5))
    )
    told, now = dict(iter_positions(AFTER)), dict(iter_positions(more))
    assert sum(told[number] == now[number] for number in range(1, 101)) < 10


@pytest.mark.parametrize(
    "damage",
    [
        lambda fields: fields.pop("seed"),
        lambda fields: fields.update(extra=1),
        lambda fields: fields.update(format="another"),
        lambda fields: fields.update(construction=2),
        lambda fields: fields.update(windows=[{"window": 0, "first": 1, "tickets": -1}]),
        lambda fields: fields.update(windows=[{"window": 0, "first": 1, "tickets": 10**9}]),
        lambda fields: fields.update(opens_at_ms="soon"),
        lambda fields: fields.update(seed="short"),
        lambda fields: fields.update(room="a b"),
    ],
)
def test_invalid_transcripts_are_rejected(damage: object) -> None:
    fields = json.loads(msgspec.json.encode(AFTER))
    assert callable(damage)
    damage(fields)
    with pytest.raises(InvalidRequest):
        parse_transcript(json.dumps(fields).encode())
    with pytest.raises(InvalidRequest):
        parse_transcript(b"\xff not JSON")


def test_verification_reports_progress() -> None:
    seen: list[int] = []
    record = signed(replace(DURING, windows=(TranscriptWindow(0, 1, 25_000),)))
    assert verify(record, progress=seen.append).ok
    assert seen == [10_000, 20_000]
