"""Records of publications: the first one stays, and another one is reported."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import msgspec
import pytest

from quota_engine.conformance.random_draws import DRAW, SEED, TERMS
from quota_engine.draws.queries import DrawPhase, DrawView, FrozenInputs
from quota_engine.service.background.publication_records import PublicationRecords
from quota_engine.waiting_room.transcript import RoomTranscript, parse_transcript, verify
from tests.waiting_room.test_transcript import AFTER, BEFORE, DURING, signed

replace = msgspec.structs.replace
OPEN = DrawView(DRAW, DrawPhase.OPEN, replace(TERMS, entropy_source="an index"), 3, 3, 3, 1, 0)
FROZEN = replace(OPEN, phase=DrawPhase.FROZEN, frozen=FrozenInputs(3, "a" * 64, "b" * 64), frozen_epoch=1)
REVEALED = replace(FROZEN, phase=DrawPhase.REVEALED, seed=SEED, entropy="7,123.45", revealed_epoch=1)


@pytest.fixture(params=["memory", "folder"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return None if request.param == "memory" else tmp_path / "published"


@pytest.fixture
def counted() -> list[str]:
    return []


@pytest.fixture
def records(folder: Path | None, counted: list[str]) -> PublicationRecords:
    return PublicationRecords(folder, counted.append)


def other_order() -> RoomTranscript:
    """The room after a failover that lost a ticket of window 0."""
    windows = (replace(DURING.windows[0], tickets=99), replace(DURING.windows[1], first=100))
    return signed(replace(DURING, epoch=2, windows=windows))


def test_a_room_that_goes_on_has_no_contradiction(records: PublicationRecords, counted: list[str]) -> None:
    """Each later transcript has all that the earlier one had. A part that is lost can come again."""
    closed = signed(replace(AFTER, epoch=2))
    for transcript in (BEFORE, DURING, BEFORE, signed(replace(DURING, epoch=2)), closed, DURING):
        assert records.check_room(transcript).contradictions == ()
    assert records.published_room("december") == closed
    assert counted == []


def test_another_order_is_reported_once_and_kept_beside(
    records: PublicationRecords, counted: list[str], folder: Path | None, caplog: pytest.LogCaptureFixture
) -> None:
    assert records.check_room(DURING).contradictions == ()
    with caplog.at_level(logging.ERROR, "quota_engine.service"):
        for _ in range(2):
            found = records.check_room(other_order())
            assert found.contradictions == ("windows that had ended before have changed",)
    assert counted == ["room"]
    assert caplog.messages == [
        "the room december contradicts what was published: windows that had ended before have changed"
    ]
    assert records.published_room("december") == DURING
    assert not verify(found).ok
    if folder is not None:
        second = parse_transcript((folder / "room.december.epoch-2.json").read_bytes())
        assert second.contradictions == found.contradictions
        assert verify(second, [parse_transcript((folder / "room.december.json").read_bytes())]).findings


def test_another_entropy_of_a_draw_is_reported(
    records: PublicationRecords, counted: list[str], folder: Path | None
) -> None:
    for view in (OPEN, FROZEN, REVEALED, FROZEN):
        assert records.check_draw(view) == ()
    again = replace(REVEALED, epoch=2, revealed_epoch=2)
    assert records.check_draw(again) == ()
    (found,) = records.check_draw(replace(again, entropy="7,123.46"))
    assert found == "the entropy was '7,123.45' when it was published in epoch 2, and is '7,123.46' in epoch 2"
    assert counted == ["draw"]
    published = records.published_draw(DRAW)
    assert published is not None
    assert published.entropy == "7,123.45"
    if folder is not None:
        second = json.loads((folder / f"draw.{DRAW}.epoch-2.json").read_text())
        assert second["contradictions"] == [found]


def test_another_commitment_is_reported(records: PublicationRecords, counted: list[str]) -> None:
    """The draw was lost as a whole, and is announced again with another seed."""
    records.check_draw(OPEN)
    anew = replace(OPEN, config=replace(OPEN.config, commitment="c" * 64))
    assert "the commitment was" in records.check_draw(anew)[0]
    assert counted == ["draw"]


def test_a_forgotten_draw_does_not_bind_the_next_one(records: PublicationRecords, counted: list[str]) -> None:
    records.check_draw(REVEALED)
    config = replace(OPEN.config, opens_at_ms=700, closes_at_ms=800, forget_at_ms=900, commitment="c" * 64)
    assert records.check_draw(replace(OPEN, config=config)) == ()
    assert counted == []


def test_processes_of_one_folder_share_the_first_record(tmp_path: Path, counted: list[str]) -> None:
    """A worker that has not published anything finds what another one published."""
    PublicationRecords(tmp_path, counted.append).check_draw(REVEALED)
    found = PublicationRecords(tmp_path, counted.append).check_draw(replace(REVEALED, entropy="7,123.46"))
    assert len(found) == 1
    assert sorted(path.name for path in tmp_path.glob("*.json")) == [f"draw.{DRAW}.epoch-1.json", f"draw.{DRAW}.json"]
