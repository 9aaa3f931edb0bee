"""An operator closes a day with a plan, and its people move to other days."""

from __future__ import annotations

import datetime

import pytest

from quota_engine import InvalidRequest, QuotaEngine, RelocationTarget, Status, UnknownName
from quota_engine.clocks import ManualClock
from quota_engine.domain.events import ReservationChanged
from tests.support.daily_releases import DULL, OPENS_AT_MS, RELEASE, catalog_of

KEY = b"0123456789abcdef"
DAY_BEFORE = DULL - datetime.timedelta(days=1)


@pytest.fixture
def engine() -> QuotaEngine:
    """Two offices with three open days each, and the last day not open yet."""
    catalog = catalog_of()
    engine = QuotaEngine.open(identity_key=KEY, catalog=catalog, clock=ManualClock(OPENS_AT_MS - 1))
    engine.publish(catalog, DAY_BEFORE, RELEASE)
    return engine


def book(engine: QuotaEngine, name: str, size: int = 1, day: datetime.date = DAY_BEFORE) -> str:
    """Book a confirmed place for each member of a party; return the reference."""
    people = [f"{name}-{member}" for member in range(size)]
    held = engine.reserve("east", day, people, service="new", session="morning")
    assert engine.confirm(held.reference).ok, held.status
    return held.reference


def test_people_move_in_the_order_of_their_queue_numbers(engine: QuotaEngine) -> None:
    """The target has room for two, so the first two move, and the last keeps its place on the closed day."""
    references = [book(engine, name) for name in ("ani", "budi", "citra")]
    engine.set_capacity("east", DULL, "online", 2)
    report = engine.relocate_day("east", DAY_BEFORE, [DULL])
    assert (report.status, report.people_moved, report.people_left, report.next_after) == (Status.DONE, 2, 1, 0)
    assert [party.reference for party in report.parties] == references
    assert [party.queue_number for party in report.parties] == [1, 2, 3]
    assert [party.target_queue_number for party in report.parties] == [1, 2, 0]
    assert [party.status for party in report.parties] == [Status.CONFIRMED, Status.CONFIRMED, Status.SOLD_OUT]
    left = engine.lookup(references[2])
    assert left is not None
    assert left.day == DAY_BEFORE.toordinal()
    assert engine.availability("east", DAY_BEFORE)[0].closed


def test_each_party_leaves_an_event_moved_or_not(engine: QuotaEngine) -> None:
    """A dry run leaves none. Each run reports again who still stays."""
    moved, left = book(engine, "ani"), book(engine, "budi")
    engine.set_capacity("east", DULL, "online", 1)
    number = engine.events("east")[-1].number
    engine.relocate_day("east", DAY_BEFORE, [DULL], dry_run=True)
    assert engine.events("east", after=number) == []

    def reported() -> list[tuple[str, str]]:
        events = [one.event for one in engine.events("east", after=number)]
        return [(one.verb, one.reservation.reference) for one in events if isinstance(one, ReservationChanged)]

    engine.relocate_day("east", DAY_BEFORE, [DULL])
    assert reported() == [("reschedule", moved), ("stay", left)]
    report = engine.relocate_day("east", DAY_BEFORE, [DULL])
    assert reported() == [("reschedule", moved), ("stay", left), ("stay", left)]
    assert (report.people_moved, report.people_left) == (0, 1)
    assert engine.audit().ok


def test_a_dry_run_changes_nothing_and_says_the_same(engine: QuotaEngine) -> None:
    """Without references and queue numbers of the target, which do not exist yet."""
    for name, size in (("ani", 2), ("budi", 1), ("citra", 3)):
        book(engine, name, size)
    engine.set_capacity("east", DULL, "online", 4)
    before = engine.availability("east", DAY_BEFORE, RELEASE)
    planned = engine.relocate_day("east", DAY_BEFORE, [DULL], dry_run=True)
    assert engine.availability("east", DAY_BEFORE, RELEASE) == before
    done = engine.relocate_day("east", DAY_BEFORE, [DULL])
    assert [(one.reference, one.target, one.status) for one in planned.parties] == [
        (one.reference, one.target, one.status) for one in done.parties
    ]
    assert [party.units for party in done.parties if party.target is None] == [3]


def test_days_behind_the_closed_one_are_tried_without_a_plan(engine: QuotaEngine) -> None:
    """A day that is not open yet takes no party, and is not tried again for each of them."""
    book(engine, "ani")
    book(engine, "budi")
    engine.set_capacity("east", DULL, "online", 1)
    report = engine.relocate_day("east", DAY_BEFORE)
    assert [party.target for party in report.parties] == [RelocationTarget("east", DULL.toordinal()), None]
    assert [party.status for party in report.parties] == [Status.CONFIRMED, Status.NOT_OPEN]


def test_another_office_takes_people_too(engine: QuotaEngine) -> None:
    reference = book(engine, "ani", 2)
    report = engine.relocate_day("east", DAY_BEFORE, [("west", DULL)])
    (party,) = report.parties
    assert party.target == RelocationTarget("west", DULL.toordinal())
    assert engine.find_moved(reference) == party.target_reference
    moved = engine.lookup(party.target_reference)
    assert moved is not None
    assert (moved.state, moved.moves, moved.forced_moves) == ("CONFIRMED", 1, 1)


def test_other_sessions_are_tried_if_they_are_allowed(engine: QuotaEngine) -> None:
    """The offices of this catalog have no quota of a session, so the same session always has the room of the day."""
    book(engine, "ani")
    for other_sessions in (False, True):
        report = engine.relocate_day("east", DAY_BEFORE, [DULL], other_sessions=other_sessions, dry_run=True)
        assert report.parties[0].target_session == "morning"


def test_a_large_day_moves_in_several_calls(engine: QuotaEngine) -> None:
    """Each call looks at a bounded number of parties and says where the next one begins. A repeated call moves none."""
    for number in range(5):
        book(engine, f"n{number}")
    moved, after, calls = [], 0, 0
    while calls == 0 or after:
        report = engine.relocate_day("east", DAY_BEFORE, [DULL], after=after, limit=2)
        moved += [party.queue_number for party in report.parties]
        after, calls = report.next_after, calls + 1
    assert (moved, calls) == ([1, 2, 3, 4, 5], 3)
    again = engine.relocate_day("east", DAY_BEFORE, [DULL])
    assert again.parties == ()
    assert engine.availability("east", DULL)[0].quotas["online"].confirmed == 5
    assert engine.audit().ok


def test_people_can_change_the_day_again_afterwards(engine: QuotaEngine) -> None:
    """The move does not count toward the limit of moves or of cancellations."""
    reference = book(engine, "ani")
    engine.relocate_day("east", DAY_BEFORE, [DULL])
    record = engine.lookup(reference)
    assert record is not None
    assert (record.moves, record.forced_moves) == (1, 1)
    assert engine.open_day("east", DAY_BEFORE).units == 1


def test_an_unknown_day_is_reported(engine: QuotaEngine) -> None:
    far = DULL + datetime.timedelta(days=300)
    for dry_run in (False, True):
        report = engine.relocate_day("east", far, [DULL], dry_run=dry_run)
        assert (report.status, report.parties) == (Status.UNKNOWN_DAY, ())


@pytest.mark.parametrize(
    ("change", "error", "where"),
    [
        ({"limit": 0}, InvalidRequest, "limit"),
        ({"limit": 501}, InvalidRequest, "limit"),
        ({"after": -1}, InvalidRequest, "after"),
        ({"targets": "2026-12-10"}, InvalidRequest, "targets"),
        ({"targets": [DULL] * 61}, InvalidRequest, "targets"),
        ({"targets": [("north", DULL)]}, UnknownName, "north"),
        ({"targets": ["tomorrow"]}, InvalidRequest, "day"),
    ],
)
def test_bad_plans_change_nothing(
    engine: QuotaEngine, change: dict[str, object], error: type[Exception], where: str
) -> None:
    book(engine, "ani")
    with pytest.raises(error, match=where):
        engine.relocate_day("east", DAY_BEFORE, **change)  # type: ignore[arg-type]
    assert not engine.availability("east", DAY_BEFORE)[0].closed


def test_a_party_stays_together(engine: QuotaEngine) -> None:
    """A party of three does not take the two places that are left; the single behind it does."""
    book(engine, "trio", 3)
    book(engine, "single")
    engine.set_capacity("east", DULL, "online", 2)
    report = engine.relocate_day("east", DAY_BEFORE, [DULL])
    assert [(party.units, party.target is not None) for party in report.parties] == [(3, False), (1, True)]
