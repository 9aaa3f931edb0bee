"""Draws whose store loses the last changes: lost receipts are recognized, and no second run stays unnoticed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from quota_engine import Draw, DrawStatus, ManualClock, QuotaEngine
from quota_engine.draws.outcomes import DrawOutcome
from quota_engine.draws.verify import contradictions
from quota_engine.workflows.request_builder import RequestBuilder
from tests.support.draw_runs import CLOSES_AT_MS, KEY, NOW_MS, SEED, announced, catalog, choice
from tests.support.lost_tail import LostTail
from tests.support.servers import Server, valkey_server_binary

S = DrawStatus
ENTROPY, OTHER = "7,123.45", "7,123.46"


@pytest.fixture(scope="module")
def valkey() -> Iterator[Server]:
    with Server(valkey_server_binary()) as server:
        yield server


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW_MS)


@pytest.fixture(params=["memory", "valkey"])
def server(request: pytest.FixtureRequest) -> Server | None:
    if request.param == "memory":
        return None
    found: Server = request.getfixturevalue("valkey")
    found.ask("FLUSHALL")
    return found


@pytest.fixture
def engine(server: Server | None, clock: ManualClock) -> Iterator[QuotaEngine]:
    url = "memory://" if server is None else server.url
    with QuotaEngine.open(url, identity_key=KEY, catalog=catalog(), clock=clock) as engine:
        yield engine


@pytest.fixture
def tail(engine: QuotaEngine, server: Server | None) -> LostTail:
    return LostTail(engine._store, server, "~draw.dec")


@pytest.fixture
def draw(engine: QuotaEngine, clock: ManualClock) -> Draw:
    """A draw with public entropy that accepts applications."""
    announced(engine, clock, entropy_source="the index of the exchange")
    return engine.draw("dec")


def check(draw: Draw, person: str, receipt: DrawOutcome) -> DrawStatus:
    checked = draw.check_receipt(person, number=receipt.number, version=receipt.version, epoch=receipt.epoch)
    return checked.status


def test_receipt_of_a_lost_application_is_lost(draw: Draw, tail: LostTail, clock: ManualClock) -> None:
    """Another applicant has its number. The one who lost it gets a status for that, and is no loser."""
    kept = draw.apply("ani", [choice("sby")])
    tail.save()
    lost = draw.apply("budi", [choice("sby")])
    tail.fail_over()
    later = draw.apply("citra", [choice("sby")])
    assert (lost.number, lost.version) == (later.number, later.version) == (2, 1)
    assert (lost.epoch, later.epoch) == (1, 2)
    assert set(lost.tokens).isdisjoint(later.tokens)
    assert [check(draw, "ani", kept), check(draw, "citra", later)] == [S.APPLIED, S.APPLIED]
    assert check(draw, "budi", lost) is S.APPLICATION_LOST
    changed = draw.apply("budi", [choice("mlg")], expected_version=1, expected_epoch=lost.epoch)
    assert changed.status is S.APPLICATION_LOST
    assert draw.withdraw("budi", expected_version=1, expected_epoch=lost.epoch).status is S.APPLICATION_LOST
    again = draw.apply("budi", [choice("sby")])
    assert (again.status, again.number, again.epoch) == (S.APPLIED, 3, 2)
    clock.set_ms(CLOSES_AT_MS)
    assert check(draw, "budi", lost) is S.APPLICATION_LOST


def test_receipt_of_a_lost_change_is_lost(draw: Draw, tail: LostTail) -> None:
    """The same applicant has the same number, with an older version, and later with the same one."""
    first = draw.apply("ani", [choice("sby")])
    tail.save()
    lost = draw.apply("ani", [choice("mlg")], expected_version=1)
    tail.fail_over()
    assert check(draw, "ani", first) is S.APPLIED
    assert check(draw, "ani", lost) is S.APPLICATION_LOST
    found = draw.find("ani")
    assert found is not None
    assert (found.version, found.epoch) == (1, 1)
    changed = draw.apply("ani", [choice("sby", session="pm")], expected_version=1, expected_epoch=1)
    assert (changed.status, changed.version, changed.epoch) == (S.APPLIED, 2, 2)
    assert check(draw, "ani", lost) is S.APPLICATION_LOST
    assert check(draw, "ani", first) is S.STALE


def test_second_run_is_not_silent(draw: Draw, tail: LostTail, clock: ManualClock, engine: QuotaEngine) -> None:
    """The run is lost. Repeating it needs the present epoch, and another text is found by everyone."""
    for person in ("ani", "budi", "citra"):
        assert draw.apply(person, [choice("sby")]).ok
    clock.set_ms(CLOSES_AT_MS)
    assert draw.close().ok
    tail.save()
    assert draw.run(SEED, ENTROPY).ok
    published = draw.files()
    tail.fail_over()
    refused = draw.run(SEED, ENTROPY)
    assert (refused.status, refused.epoch) == (S.EPOCH_CHANGED, 2)
    assert draw.run(SEED, ENTROPY, epoch=2).ok
    again = draw.files()
    assert published is not None
    assert published.head is not None
    assert again is not None
    assert again.head is not None
    assert contradictions(again.head, published.head) == []
    assert list(again.result_lines())[1:] == list(published.result_lines())[1:]
    assert (published.head.epoch, again.head.epoch) == (1, 2)
    tail.fail_over()
    assert draw.run(SEED, OTHER, epoch=2).status is S.CONFLICT  # this engine has seen the first run
    elsewhere = QuotaEngine(engine._store, RequestBuilder(KEY, catalog())).draw("dec")
    assert elsewhere.run(SEED, OTHER, epoch=2).ok  # an operator who insists
    other = elsewhere.files()
    assert other is not None
    assert other.head is not None
    assert contradictions(other.head, published.head) == [f"the entropy was {ENTROPY!r} before, and is {OTHER!r} now"]
    view = draw.view()
    assert view is not None
    assert (view.frozen_epoch, view.revealed_epoch) == (1, 2)


def test_unnoticed_loss_of_a_run_allows_no_other_text(draw: Draw, tail: LostTail, clock: ManualClock) -> None:
    """Without a fence the epoch stays. The engine that has run the draw repeats only that run."""
    assert draw.apply("ani", [choice("sby")]).ok
    clock.set_ms(CLOSES_AT_MS)
    assert draw.close().ok
    tail.save()
    assert draw.run(SEED, ENTROPY).ok
    tail.fail_over(advances=False)
    assert draw.run(SEED, OTHER).status is S.CONFLICT
    assert draw.run(SEED, ENTROPY).ok


def test_second_close_is_not_silent(draw: Draw, tail: LostTail, clock: ManualClock, engine: QuotaEngine) -> None:
    """The close and an application are lost, so the digests differ from those that were published."""
    assert draw.apply("ani", [choice("sby")]).ok
    tail.save()
    assert draw.apply("budi", [choice("sby")]).ok
    clock.set_ms(CLOSES_AT_MS)
    assert draw.close().ok
    assert draw.run(SEED, ENTROPY).ok
    published = draw.files()
    tail.fail_over()
    other = QuotaEngine(engine._store, RequestBuilder(KEY, catalog())).draw("dec")
    refused = other.close()
    assert (refused.status, refused.epoch) == (S.EPOCH_CHANGED, 2)
    assert other.close(epoch=2).ok
    assert other.run(SEED, ENTROPY).status is S.EPOCH_CHANGED
    assert other.run(SEED, ENTROPY, epoch=2).ok
    again = other.files()
    assert published is not None
    assert published.head is not None
    assert again is not None
    assert again.head is not None
    (finding,) = contradictions(again.head, published.head)
    assert "the digest of the applications" in finding
