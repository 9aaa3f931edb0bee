"""The guarantees G1 to G10 as far as the state machine alone keeps them, and accidents of other systems.

``docs/guarantees.md`` names these tests.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter
from random import Random

import msgspec
import pytest

from quota_engine.domain.audit import audit
from quota_engine.domain.commands import (
    Cancel,
    CheckIn,
    CloseDay,
    Command,
    Confirm,
    Expire,
    MarkNoShow,
    OpenDay,
    Publish,
    Release,
    ReleaseParked,
    Reschedule,
    Reserve,
    SetCapacity,
    SetRules,
)
from quota_engine.domain.event_handlers import rebuild
from quota_engine.domain.events import Event, ReservationChanged
from quota_engine.domain.ledger import Ledger, describe
from quota_engine.domain.lifecycle import State, Verb
from quota_engine.domain.model import (
    Choice,
    DayTerms,
    IdentityLimit,
    QuotaTerms,
    ReRelease,
    ReReleaseRule,
    Rules,
)
from quota_engine.domain.outcomes import DayView, Outcome, QuotaView, Status
from quota_engine.domain.queries import lookup, view
from quota_engine.domain.state_machine import apply, apply_batch
from tests.support.random_walks import choice_of, walk

OFFICE = "SBY"
DAY = 738_000
OTHER_DAY = DAY + 1
OPENS_AT_MS = 1_000
STARTS_AT_MS = 900_000
ENDS_AT_MS = 950_000
FORGET_AT_MS = 990_000
NOW_MS = 2_000
HOLD_TTL_MS = 10_000
TOTAL = choice_of(("total",))
OTHER = choice_of(("other",))
RULES = Rules(hold_ttl_ms=HOLD_TTL_MS, offer_ttl_ms=5_000, reschedules_max=5, reschedule_before_ms=0)

AT_ONCE = ReRelease(ReReleaseRule.AT_ONCE)
COOLING = ReRelease(ReReleaseRule.COOLING, cooling_ms=3_000)
WAIT_LIST = ReRelease(ReReleaseRule.WAIT_LIST)
NEXT_DRAW = ReRelease(ReReleaseRule.NEXT_DRAW)

SWEPT_PER_COMMAND_MAX = 64
EXPIRED_FOR_ONE_QUOTA_MAX = 1_000


def day_terms(*quotas: QuotaTerms) -> DayTerms:
    return DayTerms(OPENS_AT_MS, STARTS_AT_MS, ENDS_AT_MS, FORGET_AT_MS, quotas)


def an_office(capacity: int = 1, re_release: ReRelease = AT_ONCE, rules: Rules = RULES, *more: QuotaTerms) -> Ledger:
    """Return an office with two days of one quota, ``total``, and with further quotas and rules."""
    ledger = Ledger(OFFICE)
    done(ledger, SetRules(rules), 0)
    for day in (DAY, OTHER_DAY):
        done(ledger, Publish(day, day_terms(QuotaTerms("total", capacity, re_release), *more)), 0)
    return ledger


def reserve(
    id: str,  # noqa: A002  (the contract's own word)
    *applicants: str,
    day: int = DAY,
    choice: Choice = TOTAL,
    wait: bool = False,
    hold_ttl_ms: int = 0,
) -> Reserve:
    """Return a reserve. By default the applicant has the name of the id."""
    return Reserve(id, day, applicants or (id,), choice, wait, hold_ttl_ms)


def done(ledger: Ledger, command: Command, now_ms: int = NOW_MS) -> Outcome:
    """Apply a command that must succeed."""
    outcome = apply(ledger, command, now_ms)
    assert outcome.ok, (command, outcome)
    return outcome


def status(ledger: Ledger, command: Command, now_ms: int = NOW_MS) -> Status:
    return apply(ledger, command, now_ms).status


def seen(ledger: Ledger, now_ms: int = NOW_MS, day: int = DAY) -> DayView:
    found = view(ledger, day, now_ms)
    assert found is not None
    return found


def total(ledger: Ledger, now_ms: int = NOW_MS, day: int = DAY) -> QuotaView:
    return seen(ledger, now_ms, day).quotas["total"]


def is_balanced(quota: QuotaView) -> bool:
    return quota.capacity + quota.overbooked == quota.available + quota.held + quota.confirmed + quota.cooling


def expiries_in(ledger: Ledger, events_before: int) -> int:
    changes = [event for event in ledger.events[events_before:] if isinstance(event, ReservationChanged)]
    return sum(change.verb is Verb.EXPIRE for change in changes)


def state_of(ledger: Ledger, id: str, now_ms: int = NOW_MS) -> State:  # noqa: A002
    reservation = lookup(ledger, id, now_ms)
    assert reservation is not None
    return reservation.state


class TestG1NoOversell:
    def test_a_hundred_units_go_to_a_hundred_applicants(self) -> None:
        """A thousand applicants reserve in the same millisecond. All others get ``SOLD_OUT``."""
        ledger = an_office(capacity=100)
        outcomes = apply_batch(ledger, [reserve(f"a{number}") for number in range(1_000)], OPENS_AT_MS)
        assert [outcome.status for outcome in outcomes] == [Status.HELD] * 100 + [Status.SOLD_OUT] * 900
        assert total(ledger, OPENS_AT_MS) == QuotaView(
            capacity=100, available=0, held=100, confirmed=0, cooling=0, parked=0, overbooked=0
        )

    def test_a_party_gets_all_its_units_or_none(self) -> None:
        """Three applicants do not fit into two units of the morning, so the day's total stays unchanged."""
        ledger = an_office(5, AT_ONCE, RULES, QuotaTerms("morning", 2))
        both = choice_of(("total", "morning"))
        assert status(ledger, reserve("r1", "a", "b", "c", choice=both)) is Status.SOLD_OUT
        assert total(ledger).available == 5
        assert status(ledger, reserve("r2", "a", "b", choice=both)) is Status.HELD
        assert (total(ledger).held, seen(ledger).quotas["morning"].held) == (2, 2)

    def test_the_first_option_with_room_is_taken(self) -> None:
        """The priority quota is taken while it has units, then the general one. Neither replaces the other."""
        ledger = an_office(1, AT_ONCE, RULES, QuotaTerms("priority", 1))
        either = choice_of(("priority",), ("total",))
        taken = [apply(ledger, reserve(name, choice=either), NOW_MS) for name in ("a", "b", "c")]
        assert [outcome.status for outcome in taken] == [Status.HELD, Status.HELD, Status.SOLD_OUT]
        assert [outcome.reservation.quotas for outcome in taken if outcome.reservation] == [("priority",), ("total",)]

    def test_an_overbooked_quota_sells_nothing_until_it_is_cleared(self) -> None:
        """Three are confirmed and the capacity is lowered to one. Two units must return before one is available."""
        ledger = an_office(capacity=3)
        for name in ("a", "b", "c"):
            done(ledger, reserve(name))
            done(ledger, Confirm(name))
        assert done(ledger, SetCapacity(DAY, "total", 1)).overbooked == 2
        for name, overbooked_after in (("a", 1), ("b", 0)):
            done(ledger, Cancel(name))
            assert total(ledger).overbooked == overbooked_after
            assert status(ledger, reserve("d")) is Status.SOLD_OUT
        done(ledger, Cancel("c"))
        assert status(ledger, reserve("d")) is Status.HELD


class TestG2Conservation:
    @pytest.mark.parametrize("re_release", [AT_ONCE, COOLING, WAIT_LIST, NEXT_DRAW], ids=lambda rule: str(rule.rule))
    @pytest.mark.parametrize("end", ["release", "expire", "cancel"])
    def test_every_unit_returns_exactly_once(self, re_release: ReRelease, end: str) -> None:
        """Conservation holds for every end of a reservation and every re-release rule."""
        ledger = an_office(2, re_release)
        done(ledger, reserve("r1", "a", "b"))
        if end == "cancel":
            done(ledger, Confirm("r1"))
        ended_at_ms = NOW_MS + HOLD_TTL_MS if end == "expire" else NOW_MS
        steps: dict[str, list[Command]] = {
            "release": [Release("r1"), Release("r1"), Cancel("r1")],
            "expire": [Expire(DAY), Release("r1"), Confirm("r1"), Expire(DAY)],
            "cancel": [Cancel("r1"), Cancel("r1"), Release("r1")],
        }
        for command in steps[end]:
            apply(ledger, command, ended_at_ms)
            quota = total(ledger, ended_at_ms)
            assert is_balanced(quota)
            assert (quota.held, quota.confirmed, quota.available + quota.cooling) == (0, 0, 2)
        done(ledger, ReleaseParked(DAY, "total"), ended_at_ms)
        later_ms = ended_at_ms + COOLING.cooling_ms
        assert status(ledger, reserve("r2", "c", "d"), later_ms) is Status.HELD
        assert status(ledger, reserve("r3", "e"), later_ms) is Status.SOLD_OUT

    @pytest.mark.parametrize("seed", range(20))
    def test_no_unit_is_lost_when_the_events_are_cut_off(self, seed: int) -> None:
        """A crash leaves a prefix of the events. The audit of a ledger rebuilt from it finds nothing."""
        ledger = Ledger(OFFICE)
        for now_ms, command in walk(Random(seed), steps_max=30):
            apply(ledger, command, now_ms)
        for length in range(len(ledger.events) + 1):
            survived = rebuild(OFFICE, ledger.events[:length])
            assert list(audit(survived)) == [], ledger.events[:length]

    def test_a_reschedule_has_one_place_at_all_times(self) -> None:
        """It takes the new units and returns the old ones in one step, and keeps the old ones if it is refused."""
        ledger = an_office(capacity=1)
        done(ledger, reserve("r1", "a"))
        done(ledger, reserve("r2", "b", day=OTHER_DAY))
        assert status(ledger, Reschedule("r1", OTHER_DAY, TOTAL)) is Status.SOLD_OUT
        assert (total(ledger).held, total(ledger, day=OTHER_DAY).held) == (1, 1)
        done(ledger, Release("r2"))
        done(ledger, Reschedule("r1", OTHER_DAY, TOTAL))
        assert (total(ledger).held, total(ledger, day=OTHER_DAY).held) == (0, 1)


class TestG3ExactlyOnceEffect:
    def test_a_repeated_key_has_one_effect(self) -> None:
        """Fifty identical reserves make one hold and one event, and return the same record."""
        ledger = an_office(capacity=10)
        first = done(ledger, reserve("r1", "a"))
        events = len(ledger.events)
        for _ in range(50):
            assert done(ledger, reserve("r1", "a"), NOW_MS + 5) == msgspec.structs.replace(first, replayed=True)
        assert len(ledger.events) == events
        assert total(ledger).held == 1

    @pytest.mark.parametrize(
        "other",
        [
            reserve("r1", "b"),
            reserve("r1", "a", "b"),
            reserve("r1", "a", day=OTHER_DAY),
            reserve("r1", "a", choice=OTHER),
        ],
        ids=["applicant", "party", "day", "choice"],
    )
    def test_a_key_with_another_body_is_a_conflict(self, other: Reserve) -> None:
        """It changes nothing and shows no record."""
        ledger = an_office(10, AT_ONCE, RULES, QuotaTerms("other", 10))
        done(ledger, reserve("r1", "a"))
        before = describe(ledger)
        outcome = apply(ledger, other, NOW_MS)
        assert outcome.status is Status.CONFLICT
        assert outcome.reservation is None or outcome.reservation.applicants == other.applicants
        assert describe(ledger) == before

    def test_a_repeated_key_returns_the_present_state(self) -> None:
        """The answer to the reserve was lost, and the reservation has changed since."""
        ledger = an_office(capacity=5)
        done(ledger, reserve("r1", "a"))
        done(ledger, Confirm("r1"))
        assert status(ledger, reserve("r1", "a")) is Status.CONFIRMED
        done(ledger, Cancel("r1"))
        again = apply(ledger, reserve("r1", "a"), NOW_MS)
        assert (again.status, again.replayed) == (Status.RESERVATION_ENDED, True)
        assert again.reservation is not None
        assert again.reservation.state is State.CANCELLED

    def test_a_second_confirm_keeps_the_queue_number(self) -> None:
        """It is a replay and makes no new version."""
        ledger = an_office(capacity=5)
        done(ledger, reserve("r1", "a", "b"))
        first = done(ledger, Confirm("r1"))
        assert first.reservation is not None
        assert list(first.reservation.queue_numbers) == [1, 2]
        assert done(ledger, Confirm("r1"), NOW_MS + HOLD_TTL_MS) == msgspec.structs.replace(first, replayed=True)

    @pytest.mark.parametrize(
        ("refusal", "refused_at_ms"),
        [(Status.NOT_OPEN, OPENS_AT_MS - 1), (Status.SOLD_OUT, NOW_MS), (Status.DAY_CLOSED, NOW_MS)],
    )
    def test_a_refused_key_may_be_retried(self, refusal: Status, refused_at_ms: int) -> None:
        """A refusal is not remembered. The same key succeeds when its cause has ended."""
        ledger = an_office(capacity=0 if refusal is Status.SOLD_OUT else 1)
        if refusal is Status.DAY_CLOSED:
            done(ledger, CloseDay(DAY))
        assert status(ledger, reserve("r1", "a"), refused_at_ms) is refusal
        done(ledger, SetCapacity(DAY, "total", 1))
        done(ledger, OpenDay(DAY))
        outcome = done(ledger, reserve("r1", "a"))
        assert (outcome.status, outcome.replayed) == (Status.HELD, False)


class TestG4OnePlacePerIdentity:
    def test_a_hold_counts_for_the_identity_limit(self) -> None:
        """With a limit of one on all days, a hold on one day excludes every other day."""
        ledger = an_office(5, rules=msgspec.structs.replace(RULES, identity_limits=(IdentityLimit(1, 0),)))
        done(ledger, reserve("r1", "a"))
        assert status(ledger, reserve("r2", "a", day=OTHER_DAY)) is Status.IDENTITY_LIMIT
        done(ledger, Confirm("r1"))
        assert status(ledger, reserve("r2", "a", day=OTHER_DAY)) is Status.IDENTITY_LIMIT
        done(ledger, Cancel("r1"))
        assert status(ledger, reserve("r2", "a", day=OTHER_DAY)) is Status.HELD

    def test_every_member_of_a_party_counts(self) -> None:
        """An applicant in one party cannot be in another, in any position, and sees no foreign record."""
        ledger = an_office(capacity=9)
        done(ledger, reserve("r1", "a", "b"))
        for party in (("b",), ("c", "a"), ("a", "b", "c")):
            outcome = apply(ledger, reserve("r2", *party), NOW_MS)
            assert (outcome.status, outcome.reservation) == (Status.IDENTITY_LIMIT, None)

    def test_the_limit_and_the_units_are_one_step(self) -> None:
        """One batch of a hundred keys of the same applicant takes one unit."""
        ledger = an_office(capacity=100)
        outcomes = apply_batch(ledger, [reserve(f"r{number}", "a") for number in range(100)], NOW_MS)
        assert Counter((outcome.status, outcome.resumed) for outcome in outcomes) == {
            (Status.HELD, False): 1,
            (Status.HELD, True): 99,
        }
        assert total(ledger).held == 1

    def test_a_wait_list_entry_counts_for_the_identity_limit(self) -> None:
        """With a limit of one, an applicant with a place on one day cannot wait for another day."""
        ledger = an_office(1, WAIT_LIST, msgspec.structs.replace(RULES, identity_limits=(IdentityLimit(1, 0),)))
        done(ledger, reserve("r1", "a"))
        assert status(ledger, reserve("r2", "b", wait=True)) is Status.WAITING
        assert status(ledger, reserve("r3", "b", day=OTHER_DAY)) is Status.IDENTITY_LIMIT


class TestG5TimeDecides:
    def test_a_hold_ends_at_the_millisecond_of_its_deadline(self) -> None:
        """A confirm succeeds one millisecond earlier."""
        deadline_ms = NOW_MS + HOLD_TTL_MS
        for confirmed_at_ms, expected in ((deadline_ms - 1, Status.CONFIRMED), (deadline_ms, Status.HOLD_EXPIRED)):
            ledger = an_office()
            done(ledger, reserve("r1"))
            assert status(ledger, Confirm("r1"), confirmed_at_ms) is expected

    def test_units_of_an_overdue_hold_are_available_to_the_next_command(self) -> None:
        """No sweep has run. The next reserve gets the unit, and every read shows it."""
        ledger = an_office()
        done(ledger, reserve("r1"))
        deadline_ms = NOW_MS + HOLD_TTL_MS
        assert status(ledger, reserve("r2"), deadline_ms - 1) is Status.SOLD_OUT
        events = len(ledger.events)
        assert total(ledger, deadline_ms).available == 1
        assert state_of(ledger, "r1", deadline_ms) is State.EXPIRED
        assert len(ledger.events) == events
        assert status(ledger, reserve("r2"), deadline_ms) is Status.HELD

    def test_an_overdue_hold_of_another_day_does_not_count(self) -> None:
        """No command has touched its day since the deadline."""
        ledger = an_office(1, rules=msgspec.structs.replace(RULES, identity_limits=(IdentityLimit(1, 0),)))
        done(ledger, reserve("r1", "a"))
        assert status(ledger, reserve("r2", "a", day=OTHER_DAY), NOW_MS + HOLD_TTL_MS) is Status.HELD

    @pytest.mark.parametrize("quota", ["total", "other"])
    @pytest.mark.parametrize("expires_first", ["total", "other"])
    def test_fifteen_hundred_overdue_holds_hide_no_unit(self, quota: str, expires_first: str) -> None:
        """The next reserve gets a unit of either full quota, in any order of expiry."""
        ledger = an_office(750, AT_ONCE, RULES, QuotaTerms("other", 750))
        for number in range(750):
            for name in ("total", "other"):
                ttl_ms = HOLD_TTL_MS if name == expires_first else HOLD_TTL_MS + 1
                done(ledger, reserve(f"{name}{number}", choice=choice_of((name,)), hold_ttl_ms=ttl_ms))
        assert status(ledger, reserve("late", choice=choice_of((quota,)))) is Status.SOLD_OUT
        all_overdue_ms = NOW_MS + HOLD_TTL_MS + 1
        before = len(ledger.events)
        assert status(ledger, reserve("late", choice=choice_of((quota,))), all_overdue_ms) is Status.HELD
        assert expiries_in(ledger, before) <= SWEPT_PER_COMMAND_MAX + EXPIRED_FOR_ONE_QUOTA_MAX
        assert seen(ledger, all_overdue_ms).quotas[quota].available == 749
        assert list(audit(ledger)) == []

    def test_fifteen_hundred_overdue_holds_do_not_hide_the_first_option(self) -> None:
        """The first option has only units of overdue holds. It is taken before the second."""
        ledger = self.office_with_overdue_holds_behind_others()
        either = choice_of(("other",), ("spare",))
        outcome = done(ledger, reserve("late", choice=either), NOW_MS + HOLD_TTL_MS + 1)
        assert outcome.reservation is not None
        assert outcome.reservation.quotas == ("other",)

    def test_fifteen_hundred_overdue_holds_hide_no_unit_from_a_reschedule(self) -> None:
        """A reschedule takes overdue units like a reserve."""
        ledger = self.office_with_overdue_holds_behind_others()
        done(ledger, reserve("mover", choice=choice_of(("spare",)), hold_ttl_ms=2 * HOLD_TTL_MS))
        assert status(ledger, Reschedule("mover", DAY, OTHER), NOW_MS + HOLD_TTL_MS + 1) is Status.HELD

    def test_fifteen_hundred_overdue_holds_hide_no_unit_from_a_late_confirm(self) -> None:
        """A reacquiring confirm takes overdue units like a reserve."""
        ledger = self.office_with_overdue_holds_behind_others()
        late = Confirm("other749", reacquire=True)
        assert status(ledger, late, NOW_MS + HOLD_TTL_MS + 1) is Status.CONFIRMED

    @staticmethod
    def office_with_overdue_holds_behind_others() -> Ledger:
        """Fill ``other`` with holds. Those on ``total`` are overdue one millisecond earlier."""
        ledger = an_office(750, AT_ONCE, RULES, QuotaTerms("other", 750), QuotaTerms("spare", 5))
        for number in range(750):
            done(ledger, reserve(f"total{number}"))
            done(ledger, reserve(f"other{number}", choice=OTHER, hold_ttl_ms=HOLD_TTL_MS + 1))
        return ledger

    @pytest.mark.parametrize(
        ("command", "expiries_max"),
        [
            (reserve("late"), SWEPT_PER_COMMAND_MAX + EXPIRED_FOR_ONE_QUOTA_MAX),
            (reserve("late", choice=OTHER), SWEPT_PER_COMMAND_MAX),
            # The one it is about is seen to be overdue, though the sweep has not reached it.
            (Confirm("a999"), SWEPT_PER_COMMAND_MAX + 1),
            (SetCapacity(DAY, "total", 1), SWEPT_PER_COMMAND_MAX),
            (Expire(DAY, limit=10), 10),
            (Expire(DAY, limit=2_000), 2_000),
        ],
        ids=["reserve", "reserve_elsewhere", "confirm", "set_capacity", "expire_10", "expire_2000"],
    )
    def test_one_command_expires_a_bounded_number_of_holds(self, command: Command, expiries_max: int) -> None:
        """Three thousand holds are overdue. Their units cool, so no number of expiries makes room for a reserve."""
        ledger = an_office(3_000, COOLING, RULES, QuotaTerms("other", 1))
        apply_batch(ledger, [reserve(f"a{number}") for number in range(3_000)], NOW_MS)
        before = len(ledger.events)
        apply(ledger, command, NOW_MS + HOLD_TTL_MS)
        assert 0 < expiries_in(ledger, before) <= expiries_max

    def test_time_never_runs_backwards(self) -> None:
        """After the clock jumps back, an expired hold stays expired and a day stays open."""
        ledger = an_office()
        done(ledger, reserve("r1", "a"))
        deadline_ms = NOW_MS + HOLD_TTL_MS
        done(ledger, Expire(DAY), deadline_ms)
        assert status(ledger, Confirm("r1"), NOW_MS) is Status.HOLD_EXPIRED
        outcome = done(ledger, reserve("r2", "b"), NOW_MS)
        assert outcome.reservation is not None
        assert outcome.reservation.created_at_ms == deadline_ms
        assert [event.at_ms for event in ledger.events] == sorted(event.at_ms for event in ledger.events)


class TestG8Bounded:
    REFUSED = (
        ("sold out", reserve("r1", "z"), NOW_MS),
        ("sold out, waiting is no use", reserve("r1", "z", wait=True), NOW_MS),
        ("not open", reserve("r1", "z", day=OTHER_DAY), OPENS_AT_MS - 1),
        ("over", reserve("r1", "z"), ENDS_AT_MS),
        ("unknown day", reserve("r1", "z", day=1), NOW_MS),
        ("unknown quota", reserve("r1", "z", choice=OTHER), NOW_MS),
        ("party too large", reserve("r1", *"uvwxyz"), NOW_MS),
        ("identity limit", reserve("r1", "holder", "z"), NOW_MS),
        ("conflict", reserve("holder", "z"), NOW_MS),
        ("nothing to confirm", Confirm("r1"), NOW_MS),
        ("nothing to release", Release("r1"), NOW_MS),
        ("nothing to cancel", Cancel("r1"), NOW_MS),
        ("stale", Cancel("holder", expected_version=1), NOW_MS),
        ("too early", CheckIn("holder"), NOW_MS),
        ("not the owner", MarkNoShow("holder", owner="z"), NOW_MS),
        ("nowhere to go", Reschedule("holder", 1, TOTAL), NOW_MS),
    )

    @pytest.mark.parametrize(
        ("command", "now_ms"), [(command, now_ms) for _, command, now_ms in REFUSED], ids=[why for why, _, _ in REFUSED]
    )
    def test_a_refusal_changes_nothing(self, command: Command, now_ms: int) -> None:
        """It leaves no record, no event, and no change of the description."""
        ledger = an_office()
        # Confirmed, so that no time could change anything either.
        done(ledger, reserve("holder"), OPENS_AT_MS)
        done(ledger, Confirm("holder"), OPENS_AT_MS)
        if now_ms < OPENS_AT_MS:
            ledger = an_office()
        before, events = describe(ledger), len(ledger.events)
        assert not apply(ledger, command, now_ms).ok
        assert describe(ledger) == before
        assert len(ledger.events) == events
        assert lookup(ledger, "r1", now_ms) is None

    def test_the_wait_list_is_bounded(self) -> None:
        """The party after the last is refused, and nothing changes."""
        ledger = an_office(0, WAIT_LIST, msgspec.structs.replace(RULES, wait_list_max=3))
        outcomes = apply_batch(ledger, [reserve(f"a{number}", wait=True) for number in range(10)], NOW_MS)
        assert [outcome.status for outcome in outcomes] == [Status.WAITING] * 3 + [Status.WAIT_LIST_FULL] * 7
        assert seen(ledger).waiting == 3

    @pytest.mark.slow
    def test_thousands_of_refused_applicants_cost_no_memory(self) -> None:
        """Two thousand refused applicants with the longest ids do not enlarge the process."""
        ledger = an_office()
        done(ledger, reserve("holder"))
        strangers = [reserve(f"r{number:063}", f"z{number:063}") for number in range(2_000)]
        for stranger in strangers[:100]:
            apply(ledger, stranger, NOW_MS)
        gc.collect()
        tracemalloc.start()
        try:
            for stranger in strangers:
                apply(ledger, stranger, NOW_MS)
            gc.collect()
            grown_bytes, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        # One remembered id of 64 characters each would be some 200 kB.
        assert grown_bytes < 32_000


class TestG10SameEverywhere:
    @pytest.mark.parametrize("seed", range(100, 120))
    def test_a_rebuilt_ledger_behaves_like_the_original(self, seed: int) -> None:
        """At any point of a walk, every later outcome and the final state are the same."""
        steps = walk(Random(seed))
        half = len(steps) // 2
        ledger = Ledger(OFFICE)
        for now_ms, command in steps[:half]:
            apply(ledger, command, now_ms)
        again = rebuild(OFFICE, ledger.events)
        for now_ms, command in steps[half:]:
            assert apply(again, command, now_ms) == apply(ledger, command, now_ms)
        assert describe(again) == describe(ledger)

    def test_events_survive_json(self) -> None:
        ledger = Ledger(OFFICE)
        for now_ms, command in walk(Random(7)):
            apply(ledger, command, now_ms)
        events = list(ledger.events)
        read = msgspec.json.decode(msgspec.json.encode(events), type=list[Event])
        assert read == events
        assert describe(rebuild(OFFICE, read)) == describe(ledger)


class TestAccidentsOfOtherSystems:
    def test_a_sweep_keeps_a_place_that_was_just_confirmed(self) -> None:
        """ZMS listed overdue rows and deleted them by id. Here a reservation confirmed in time survives every sweep."""
        ledger = an_office()
        done(ledger, reserve("r1"))
        deadline_ms = NOW_MS + HOLD_TTL_MS
        done(ledger, Confirm("r1"), deadline_ms - 1)
        for now_ms in (deadline_ms, deadline_ms + 1, deadline_ms + 100_000):
            assert done(ledger, Expire(DAY), now_ms).units == 0
        assert state_of(ledger, "r1", deadline_ms + 100_000) is State.CONFIRMED
        assert total(ledger, deadline_ms).confirmed == 1

    def test_a_second_confirm_keeps_the_applicants(self) -> None:
        """In BC Parks a second commit replaced the name. Here the record keeps its applicants."""
        ledger = an_office()
        done(ledger, reserve("r1", "broker"))
        done(ledger, Confirm("r1"))
        before = describe(ledger)
        assert status(ledger, Confirm("r1", owner="customer")) is Status.NOT_OWNER
        assert status(ledger, reserve("r1", "customer")) is Status.CONFLICT
        assert done(ledger, Confirm("r1", owner="broker")).replayed
        assert describe(ledger) == before

    def test_a_broker_cannot_hand_a_place_over_by_cancelling(self) -> None:
        """A customer who reserves in the millisecond of the cancellation finds no unit, because it cools first."""
        ledger = an_office(1, COOLING)
        done(ledger, reserve("broker"))
        done(ledger, Confirm("broker"))
        cancelled, asked = apply_batch(ledger, [Cancel("broker"), reserve("customer")], NOW_MS)
        assert (cancelled.status, asked.status) == (Status.CANCELLED, Status.SOLD_OUT)
        assert status(ledger, reserve("passer-by"), NOW_MS + COOLING.cooling_ms) is Status.HELD

    def test_identity_is_checked_when_the_hold_is_made(self) -> None:
        """ZMS and BC Parks checked it at the confirm only, so that one applicant could hold every place."""
        ledger = an_office(10, AT_ONCE, RULES, QuotaTerms("other", 10))
        done(ledger, reserve("r1", "a"))
        assert status(ledger, reserve("r2", "a", "b")) is Status.IDENTITY_LIMIT
        assert (total(ledger).held, total(ledger).available) == (1, 9)

    def test_a_double_click_is_one_booking(self) -> None:
        """Two requests with two keys: the second resumes the hold of the first."""
        ledger = an_office(capacity=10)
        first, second = apply_batch(ledger, [reserve("tap1", "a"), reserve("tap2", "a")], NOW_MS)
        assert second == msgspec.structs.replace(first, resumed=True)
        assert lookup(ledger, "tap2", NOW_MS) is None
        assert total(ledger).held == 1

    def test_a_returning_applicant_finds_the_same_hold(self) -> None:
        """It has its remaining time, and the day is sold out by now."""
        ledger = an_office()
        first = done(ledger, reserve("before", "a"))
        after = done(ledger, reserve("after", "a"), NOW_MS + 4_000)
        assert (after.resumed, after.reservation) == (True, first.reservation)

    @pytest.mark.parametrize("way", ["release", "expire", "cancel", "raise"])
    def test_a_sold_out_quota_sells_returned_units(self, way: str) -> None:
        """In a miaosha system the sold-out flag was never cleared. Here every returned unit is sold again."""
        ledger = an_office()
        done(ledger, reserve("r1", "a"))
        for number in range(5):
            assert status(ledger, reserve("r2", f"b{number}")) is Status.SOLD_OUT
        now_ms = NOW_MS
        if way == "release":
            done(ledger, Release("r1"))
        elif way == "cancel":
            done(ledger, Confirm("r1"))
            done(ledger, Cancel("r1"))
        elif way == "raise":
            done(ledger, SetCapacity(DAY, "total", 2))
        else:
            now_ms += HOLD_TTL_MS
        assert status(ledger, reserve("r2", "b"), now_ms) is Status.HELD

    def test_a_raised_capacity_overbooks_no_applicant(self) -> None:
        """BC Parks marked all applicants as overbooked. Here existing reservations are unchanged."""
        ledger = an_office(capacity=3)
        for name in ("a", "b", "c"):
            done(ledger, reserve(name))
        done(ledger, Confirm("a"))
        records = [lookup(ledger, name, NOW_MS) for name in ("a", "b", "c")]
        assert done(ledger, SetCapacity(DAY, "total", 5)).overbooked == 0
        assert [lookup(ledger, name, NOW_MS) for name in ("a", "b", "c")] == records
        assert total(ledger) == QuotaView(
            capacity=5, available=2, held=2, confirmed=1, cooling=0, parked=0, overbooked=0
        )

    def test_the_wait_list_gets_no_unit_that_does_not_exist(self) -> None:
        """Pretix gave blocked places to the wait list. Here returned units first reduce the overbooking."""
        ledger = an_office(3, WAIT_LIST)
        for name in ("a", "b", "c"):
            done(ledger, reserve(name))
        assert status(ledger, reserve("w", wait=True)) is Status.WAITING
        assert done(ledger, SetCapacity(DAY, "total", 1)).overbooked == 2
        for name in ("a", "b"):
            done(ledger, Release(name))
            assert state_of(ledger, "w") is State.WAITING
        done(ledger, Release("c"))
        assert state_of(ledger, "w") is State.HELD
        assert total(ledger) == QuotaView(
            capacity=1, available=0, held=1, confirmed=0, cooling=0, parked=0, overbooked=0
        )

    @pytest.mark.parametrize("re_release", [COOLING, NEXT_DRAW], ids=["cooling", "next_draw"])
    def test_the_wait_list_gets_no_cooling_or_parked_unit(self, re_release: ReRelease) -> None:
        """They are offered when they become available."""
        ledger = an_office(1, re_release, RULES, QuotaTerms("listed", 0, WAIT_LIST))
        done(ledger, reserve("r1", "a"))
        assert status(ledger, reserve("w", choice=choice_of(("total",), ("listed",)), wait=True)) is Status.WAITING
        done(ledger, Release("r1"))
        assert state_of(ledger, "w") is State.WAITING
        back_at_ms = NOW_MS + COOLING.cooling_ms
        done(ledger, Expire(DAY), back_at_ms - 1)
        assert state_of(ledger, "w", back_at_ms - 1) is State.WAITING
        done(ledger, ReleaseParked(DAY, "total") if re_release is NEXT_DRAW else Expire(DAY), back_at_ms)
        assert state_of(ledger, "w", back_at_ms) is State.HELD

    def test_a_day_opens_at_its_exact_time(self) -> None:
        """BC Parks opened a room early. Here a reserve one millisecond early is refused with the opening time."""
        ledger = an_office()
        early = apply(ledger, reserve("r1", "a"), OPENS_AT_MS - 1)
        assert (early.status, early.retry_at_ms) == (Status.NOT_OPEN, OPENS_AT_MS)
        assert status(ledger, reserve("r1", "a"), OPENS_AT_MS) is Status.HELD

    def test_an_abandoned_offer_goes_to_the_next_party(self) -> None:
        """AWS Virtual Waiting Room was blocked by unused tickets. Here an expired offer goes to the next party."""
        ledger = an_office(1, WAIT_LIST)
        done(ledger, reserve("r1", "a"))
        for name in ("gone", "patient"):
            assert status(ledger, reserve(name, wait=True)) is Status.WAITING
        done(ledger, Release("r1"))
        assert (state_of(ledger, "gone"), state_of(ledger, "patient")) == (State.HELD, State.WAITING)
        offer_ends_ms = NOW_MS + RULES.offer_ttl_ms
        done(ledger, Expire(DAY), offer_ends_ms)
        assert state_of(ledger, "gone", offer_ends_ms) is State.EXPIRED
        assert state_of(ledger, "patient", offer_ends_ms) is State.HELD
