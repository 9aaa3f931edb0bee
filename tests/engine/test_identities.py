"""Identities in every call that takes one: all spellings are one person, and one person is in a party once."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

import pytest

from quota_engine import DrawChoice, InvalidRequest, QuotaEngine, Status, load_catalog
from quota_engine.catalog import day_terms
from quota_engine.clocks import ManualClock
from quota_engine.domain.commands import MoveIn, Reserve
from quota_engine.domain.model import Choice
from quota_engine.draws.commands import DrawConfig, SubmitApplication
from quota_engine.draws.lottery import Preference
from quota_engine.draws.outcomes import DrawStatus
from quota_engine.waiting_room.results import RoomStatus
from tests.support.identities import NIK, SPELLINGS, nik
from tests.support.multi_office import DAY as NATION_DAY
from tests.support.multi_office import Nation

DAY = datetime.date(2026, 12, 7)
CATALOG = load_catalog("surabaya")
KEY = b"a key for tests, and only them"
FULL_WIDTH = SPELLINGS[5]
WANTED: dict[str, Any] = {"service": "new", "session": "morning"}
PARTY_PROBLEM = "applicants: one applicant twice; expected each applicant once"


@pytest.fixture
def clock() -> ManualClock:
    terms = day_terms(CATALOG, "surabaya", DAY)
    assert terms is not None
    return ManualClock(terms.opens_at_ms)


@pytest.fixture
def engine(clock: ManualClock) -> Iterator[QuotaEngine]:
    with QuotaEngine.open(identity_key=KEY, catalog=CATALOG, clock=clock) as engine:
        engine.publish(CATALOG, DAY, DAY + datetime.timedelta(days=1))
        yield engine


def test_all_spellings_get_one_place(engine: QuotaEngine) -> None:
    first = engine.reserve("surabaya", DAY, NIK, **WANTED)
    for spelling in SPELLINGS[1:]:
        again = engine.reserve("surabaya", DAY, spelling, **WANTED)
        assert (again.status, again.resumed, again.reference) == (Status.HELD, True, first.reference)
    assert engine.availability("surabaya", DAY)[0].quotas["online"].held == 1


@pytest.mark.parametrize("owner", SPELLINGS)
def test_the_owner_may_be_spelled_in_another_way(engine: QuotaEngine, owner: str) -> None:
    reference = engine.reserve("surabaya", DAY, NIK, **WANTED).reference
    assert engine.confirm(reference, owner=nik(1)).status is Status.NOT_OWNER
    assert engine.confirm(reference, owner=owner).status is Status.CONFIRMED
    assert engine.reschedule(reference, DAY + datetime.timedelta(days=1), owner=owner, **WANTED).ok
    assert engine.cancel(reference, owner=owner).status is Status.CANCELLED
    with pytest.raises(InvalidRequest, match="owner: not a usable identity; expected 16 digits"):
        engine.cancel(reference, owner="3578")


def test_a_person_is_in_a_party_once_in_any_spelling(engine: QuotaEngine) -> None:
    for spelling in SPELLINGS:
        with pytest.raises(InvalidRequest, match=PARTY_PROBLEM):
            engine.reserve("surabaya", DAY, [nik(1), NIK, spelling], **WANTED)
    reservation = engine.reserve("surabaya", DAY, [nik(1), FULL_WIDTH], **WANTED).reservation
    assert reservation is not None
    assert reservation.units == 2


def test_commands_refuse_a_party_with_a_hash_twice() -> None:
    """Those of the state machine and of draws, for callers that build commands themselves."""
    choice = Choice("new", "", "morning", "online", "", (("online",),))
    for make in (
        lambda: Reserve("a", 1, ("x", "y", "x"), choice),
        lambda: MoveIn("a", 1, ("x", "x"), choice, 0, 1),
        lambda: SubmitApplication(("x", "x"), (Preference("surabaya", 1, choice),)),
    ):
        with pytest.raises(InvalidRequest, match=PARTY_PROBLEM):
            make()


def test_a_room_gives_one_ticket_to_all_spellings(engine: QuotaEngine, clock: ManualClock) -> None:
    room = engine.room("december")
    now_ms = clock.now_ms()
    opens_at = now_ms + 3_600_000
    assert room.create("surabaya", DAY, join_opens_at=now_ms - 1, opens_at=opens_at) is RoomStatus.DONE
    ticket = room.join(NIK).ticket
    assert {room.join(spelling).ticket for spelling in SPELLINGS} == {ticket}
    assert not room.enter(ticket, FULL_WIDTH).ok  # its owner, whose turn has not come
    with pytest.raises(InvalidRequest, match="another person's"):
        room.enter(ticket, nik(1))
    with pytest.raises(InvalidRequest, match="identity: not a usable identity; expected 16 digits"):
        room.join("3578")


def test_a_national_claim_excludes_all_spellings() -> None:
    nation = Nation()
    first = nation.engine.reserve("east", NATION_DAY, NIK)
    for spelling in (f" {NIK}", FULL_WIDTH, SPELLINGS[6], SPELLINGS[7], SPELLINGS[8]):
        other = nation.engine.reserve("west", NATION_DAY, spelling)
        assert other.status is Status.IDENTITY_LIMIT
    assert nation.claimed(FULL_WIDTH) == first.reference


def test_a_draw_has_one_application_for_all_spellings(engine: QuotaEngine, clock: ManualClock) -> None:
    draw, choices = engine.draw("december"), [DrawChoice("surabaya", DAY, **WANTED)]
    now_ms = clock.now_ms()
    assert draw.create(
        DrawConfig(
            opens_at_ms=now_ms,
            closes_at_ms=now_ms + 3_600_000,
            forget_at_ms=now_ms + 90 * 86_400_000,
            first_day=DAY.toordinal(),
            last_day=DAY.toordinal(),
            commitment="0" * 64,
        )
    ).ok
    number = draw.apply(NIK, choices).number
    for spelling in SPELLINGS:
        found = draw.find(spelling)
        assert found is not None
        assert found.number == number
        assert draw.apply([nik(1), spelling], choices).status is DrawStatus.ALREADY_APPLIED
        with pytest.raises(InvalidRequest, match=PARTY_PROBLEM):
            draw.apply([NIK, spelling], choices)
    assert draw.withdraw(FULL_WIDTH, expected_version=1).ok


def test_a_published_catalog_brings_its_format(clock: ManualClock) -> None:
    """Without a catalog, only the rules that hold always apply."""
    with QuotaEngine.open(identity_key=KEY, clock=clock) as engine:
        assert engine._methods.requests.owner_hash("a-b") != engine._methods.requests.owner_hash("ab")
        engine.publish(CATALOG, DAY)
        with pytest.raises(InvalidRequest, match="expected 16 digits"):
            engine.reserve("surabaya", DAY, "a-b", **WANTED)
