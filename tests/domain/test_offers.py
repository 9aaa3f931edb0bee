"""The wait list: who is offered a free unit, what is withheld from others, and what it costs."""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from quota_engine.conformance.world import (
    DAY,
    HOLD_TTL_MS,
    NEXT_DAY,
    OFFICE,
    ONLINE,
    OPENS_AT_MS,
    PRIORITY,
    choice,
    published,
    reserve,
    terms,
)
from quota_engine.domain import offers
from quota_engine.domain.audit import audit
from quota_engine.domain.commands import (
    Cancel,
    CloseDay,
    Command,
    Confirm,
    Decline,
    Expire,
    MoveIn,
    Publish,
    Release,
    Reschedule,
    SetCapacity,
)
from quota_engine.domain.event_handlers import evolve, let_wait_lists_be_served
from quota_engine.domain.ledger import Ledger
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import Outcome, QuotaView, Status, WaitListPosition
from quota_engine.domain.queries import lookup, view, wait_list_position
from quota_engine.domain.state_machine import apply

MINUTE_MS = 60_000
NOW_MS = OPENS_AT_MS + 1_000
BLOCKS_MS = 120 * MINUTE_MS
PAUSE_MS = 60 * MINUTE_MS


def an_office(capacity: int = 1, blocks_ms: int = 0, **rules: object) -> Ledger:
    """Return an office whose quota ``priority`` has a wait list."""
    ledger = Ledger(OFFICE)
    setup = published(**{"wait_list_max": 10_000, **rules})
    for command in (*setup, Publish(DAY, terms(blocks_ms=blocks_ms)), SetCapacity(DAY, "priority", capacity)):
        apply(ledger, command, OPENS_AT_MS - 1)
    return ledger


def done(ledger: Ledger, command: Command, now_ms: int = NOW_MS) -> Outcome:
    outcome = apply(ledger, command, now_ms)
    assert outcome.ok, (command, outcome)
    return outcome


def wait(ledger: Ledger, key: str, *applicants: str, now_ms: int = NOW_MS) -> None:
    assert done(ledger, reserve(key, PRIORITY, *applicants, wait=True), now_ms).status is Status.WAITING


def state(ledger: Ledger, key: str, now_ms: int = NOW_MS) -> State:
    record = lookup(ledger, key, now_ms)
    assert record is not None
    return record.state


def priority(ledger: Ledger, now_ms: int = NOW_MS) -> QuotaView:
    seen = view(ledger, DAY, now_ms)
    assert seen is not None
    return seen.quotas["priority"]


def test_a_single_behind_many_couples_gets_the_place_before_a_newcomer() -> None:
    ledger = an_office()
    done(ledger, reserve("first", PRIORITY))
    for number in range(100):
        wait(ledger, f"couple{number}", f"a{number}", f"b{number}")
    wait(ledger, "single")
    done(ledger, Release("first"))
    assert apply(ledger, reserve("newcomer", PRIORITY), NOW_MS).status is Status.SOLD_OUT
    assert state(ledger, "single") is State.HELD


def test_a_family_is_served_although_singles_wait() -> None:
    """Places come back one by one. First fit gives each to a single; strict order collects them for the family."""
    for blocks_ms, expected in ((0, State.WAITING), (BLOCKS_MS, State.HELD)):
        ledger = an_office(3, blocks_ms)
        for number in range(3):
            done(ledger, reserve(f"first{number}", PRIORITY))
        wait(ledger, "family", "father", "mother", "child")
        for number in range(5):
            wait(ledger, f"single{number}")
        for number in range(3):
            done(ledger, Release(f"first{number}"), NOW_MS + number * 10 * MINUTE_MS // 10)
        assert state(ledger, "family") is expected
        assert audit(ledger) == []


def test_no_free_unit_is_withheld_longer_than_the_bound() -> None:
    """However many couples wait, a single gets the place after ``blocks_ms``, by time alone."""
    ledger = an_office(1, BLOCKS_MS)
    done(ledger, Confirm(done(ledger, reserve("first", PRIORITY)).reservation.id))  # type: ignore[union-attr]
    for number in range(100):
        wait(ledger, f"couple{number}", f"a{number}", f"b{number}")
    wait(ledger, "single")
    done(ledger, SetCapacity(DAY, "priority", 2))
    for now_ms, expected in ((NOW_MS + BLOCKS_MS - 1, State.WAITING), (NOW_MS + BLOCKS_MS, State.HELD)):
        done(ledger, Expire(DAY), now_ms)
        assert state(ledger, "single", now_ms) is expected


def test_the_view_shows_withheld_units() -> None:
    ledger = an_office(2, BLOCKS_MS)
    done(ledger, Confirm(done(ledger, reserve("first", PRIORITY)).reservation.id))  # type: ignore[union-attr]
    done(ledger, reserve("second", PRIORITY))
    assert priority(ledger, NOW_MS + HOLD_TTL_MS).withheld == 0  # the list is empty
    wait(ledger, "couple", "citra", "dewi")
    expired_ms = NOW_MS + HOLD_TTL_MS
    seen = priority(ledger, expired_ms)  # no command has expired the second hold yet
    assert (seen.available, seen.withheld, seen.bookable) == (1, 1, 0)
    done(ledger, Expire(DAY), expired_ms)
    assert priority(ledger, expired_ms) == seen
    assert priority(ledger, expired_ms + BLOCKS_MS).withheld == 0
    done(ledger, CloseDay(DAY), expired_ms)
    assert priority(ledger, expired_ms).withheld == 0


ENTERING_COMMANDS = (
    reserve("new", PRIORITY),
    MoveIn("moved", DAY, ("mia",), PRIORITY, 0, 1),
    Reschedule("elsewhere", DAY, PRIORITY),
    Confirm("expired", reacquire=True),
)


@pytest.mark.parametrize("command", ENTERING_COMMANDS, ids=lambda one: type(one).__name__)
def test_no_command_takes_what_the_wait_list_can_use(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """More offers are due than one command makes. The rest of the units stays with the list."""
    monkeypatch.setattr(offers, "OFFERS_MAX", 2)
    ledger = an_office(1)
    done(ledger, reserve("expired", PRIORITY))
    done(ledger, reserve("elsewhere", ONLINE, "eka", day=NEXT_DAY))
    done(ledger, Confirm("elsewhere"))
    later_ms = NOW_MS + HOLD_TTL_MS
    done(ledger, SetCapacity(DAY, "priority", 0))
    done(ledger, Expire(DAY), later_ms)
    for number in range(6):
        wait(ledger, f"w{number}", now_ms=later_ms)
    done(ledger, SetCapacity(DAY, "priority", 7), later_ms)  # two offers; the command under test makes two more
    assert not apply(ledger, command, later_ms).ok
    assert [state(ledger, f"w{number}", later_ms) for number in range(6)].count(State.WAITING) == 2
    assert apply(ledger, command, later_ms).ok
    assert [state(ledger, f"w{number}", later_ms) for number in range(6)].count(State.WAITING) == 0


def test_offers_that_one_command_could_not_make_follow_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offers, "OFFERS_MAX", 2)
    ledger = an_office(0)
    for number in range(5):
        wait(ledger, f"w{number}")
    done(ledger, SetCapacity(DAY, "priority", 5))
    for left in (3, 1, 0):
        assert len(ledger.days[DAY].waiting) == left
        done(ledger, Expire(DAY))


def test_a_newcomer_finds_an_overdue_hold_behind_withheld_units() -> None:
    """A backlog of overdue holds: one unit is withheld for a couple that still lacks one, the rest is not."""
    ledger = an_office(200, BLOCKS_MS)
    for number in range(199):
        done(ledger, reserve(f"h{number}", PRIORITY))
    done(ledger, reserve("last", PRIORITY, "x1"))
    done(ledger, Confirm("last"))
    done(ledger, SetCapacity(DAY, "priority", 1))
    wait(ledger, "couple", "citra", "dewi")
    done(ledger, SetCapacity(DAY, "priority", 200))
    later_ms = NOW_MS + HOLD_TTL_MS
    assert done(ledger, reserve("new", PRIORITY, "n1", "n2", "n3"), later_ms).status is Status.HELD
    assert state(ledger, "couple", later_ms) is State.HELD


def test_units_beyond_the_withheld_ones_are_reclaimed_for_a_newcomer() -> None:
    """The couple lacks the quota ``morning``, so that units of ``priority`` are withheld for it all along."""
    ledger = an_office(80, BLOCKS_MS)
    both = choice(("priority", "morning"))
    done(ledger, SetCapacity(DAY, "morning", 0))
    for number in range(80):
        done(ledger, msgspec.structs.replace(reserve(f"h{number}", PRIORITY), hold_ttl_ms=1_000 + number // 66))
    done(ledger, reserve("couple", both, "citra", "dewi", wait=True))
    assert done(ledger, Expire(DAY, 1), NOW_MS + 1_000).units == 1
    found = apply(ledger, reserve("new", PRIORITY, "n1", "n2", "n3"), NOW_MS + 1_000)
    assert found.status is Status.HELD
    assert priority(ledger, NOW_MS + 1_000).withheld == 2
    assert audit(ledger) == []


def test_two_parties_do_not_pass_one_place_to_each_other_forever() -> None:
    """The newcomer gets the place after at most one decline of each party, and a party declines three times at most."""
    ledger = an_office(0)
    wait(ledger, "ani")
    wait(ledger, "budi")
    done(ledger, SetCapacity(DAY, "priority", 1))
    now_ms, declined = NOW_MS, 0
    for _ in range(20):
        for key in ("ani", "budi"):
            if apply(ledger, Decline(key), now_ms).status is Status.WAITING and state(ledger, key) is State.WAITING:
                declined = sum(ledger.reservations[one].declines for one in ("ani", "budi"))
        if priority(ledger, now_ms).available:
            assert done(ledger, reserve(f"new{now_ms}", PRIORITY, f"n{now_ms}"), now_ms).status is Status.HELD
            done(ledger, Release(f"new{now_ms}"), now_ms)
        now_ms += PAUSE_MS
        done(ledger, Expire(DAY), now_ms)
    assert declined == 6


def test_a_declined_party_keeps_its_position() -> None:
    ledger = an_office(0)
    for key in ("ani", "budi", "citra"):
        wait(ledger, key)
    done(ledger, SetCapacity(DAY, "priority", 1))
    done(ledger, Decline("ani"))
    assert [wait_list_position(ledger, key, NOW_MS) for key in ("ani", "budi", "citra")] == [
        WaitListPosition(0, 2),
        None,
        WaitListPosition(1, 2),
    ]
    done(ledger, Release("budi"))
    assert state(ledger, "citra") is State.HELD  # ani is passed over
    done(ledger, Expire(DAY), NOW_MS + PAUSE_MS)  # the offer to citra ends, and so does the pause
    assert state(ledger, "ani", NOW_MS + PAUSE_MS) is State.HELD
    assert audit(ledger) == []


def test_a_pause_ends_by_the_time_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command without an event may be followed by one at an earlier time; the party is paused again then."""
    ledger = an_office(1)
    done(ledger, reserve("first", PRIORITY))
    for number in range(3):
        wait(ledger, f"w{number}")
    done(ledger, Release("first"))
    done(ledger, Decline("w0"))
    done(ledger, Decline("w1"))
    done(ledger, Confirm("w2"))
    done(ledger, Expire(DAY), NOW_MS + PAUSE_MS)  # both resume, and there is no unit
    done(ledger, SetCapacity(DAY, "priority", 2), NOW_MS + 1)
    assert state(ledger, "w0") is State.WAITING
    monkeypatch.setattr(offers, "RESUME_MAX", 1)
    assert apply(ledger, reserve("new", PRIORITY, "n1", "n2"), NOW_MS + PAUSE_MS).status is Status.SOLD_OUT
    assert [state(ledger, key) for key in ("w0", "w1")] == [State.HELD, State.WAITING]
    assert audit(ledger) == []


class CountingRecords(dict[str, Reservation]):
    """Records that count how often one is read."""

    reads = 0

    def __getitem__(self, key: str) -> Reservation:
        self.reads += 1
        return super().__getitem__(key)

    def get(self, key: str, default: object = None) -> Reservation | None:  # type: ignore[override]
        self.reads += 1
        return super().get(key, default)  # type: ignore[arg-type]


@pytest.mark.parametrize("blocks_ms", [0, BLOCKS_MS])
def test_the_cost_of_an_offer_does_not_grow_with_the_list(blocks_ms: int) -> None:
    reads = []
    for length in (50, 2_000):
        ledger = an_office(1, blocks_ms)
        done(ledger, reserve("first", PRIORITY))
        for number in range(length):
            wait(ledger, f"couple{number}", f"a{number}", f"b{number}")
        wait(ledger, "single")
        ledger.reservations = counting = CountingRecords(ledger.reservations)
        done(ledger, Release("first"))
        apply(ledger, reserve("newcomer", PRIORITY), NOW_MS)
        reads.append(counting.reads)
    assert reads[0] == reads[1] < 40


def test_a_random_list_leaves_no_unit_that_a_party_can_use() -> None:
    """After each command, no party on the list fits, and a newcomer could not have taken what one of them can use."""
    random = Random(7)
    ledger = an_office(6)
    keys = [f"k{number}" for number in range(60)]
    for step in range(600):
        key = random.choice(keys)
        party = [f"{key}-{one}" for one in range(random.choice((1, 1, 2, 3)))]
        command = random.choice(
            (reserve(key + str(step), PRIORITY, *party, wait=random.random() < 0.7), Release(key), Decline(key))
        )
        if not isinstance(command, Release | Decline):
            keys.append(command.id)
        apply(ledger, command, NOW_MS + step)
        free = ledger.days[DAY].quotas["priority"].free
        waiting = [ledger.reservations[one] for one in ledger.days[DAY].waiting]
        assert not [one for one in waiting if one.units <= free and one.paused_until_ms <= NOW_MS + step]
    assert audit(ledger) == []


def test_a_newcomer_gets_another_option_than_a_withheld_unit() -> None:
    ledger = an_office(0, BLOCKS_MS)
    wait(ledger, "couple", "citra", "dewi")
    done(ledger, SetCapacity(DAY, "priority", 1))
    found = done(ledger, reserve("new", choice(("priority",), ("online",))))
    assert found.reservation is not None
    assert found.reservation.quotas == ("online",)


def test_pauses_that_one_step_could_not_end_go_on_in_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = an_office(0)
    for number in range(3):
        wait(ledger, f"w{number}")
    done(ledger, SetCapacity(DAY, "priority", 1))
    for number in range(3):
        done(ledger, Decline(f"w{number}"))
    monkeypatch.setattr(offers, "RESUME_MAX", 1)
    later_ms = NOW_MS + PAUSE_MS
    done(ledger, SetCapacity(DAY, "priority", 4), later_ms)
    assert [state(ledger, f"w{number}", later_ms) for number in range(3)] == [State.HELD] * 3
    assert done(ledger, reserve("new", PRIORITY), later_ms).status is Status.HELD


def test_a_wait_list_is_served_when_its_day_opens_again() -> None:
    """The office publishes a later opening while parties wait. Time alone serves them then."""
    ledger = an_office(0)
    wait(ledger, "ani")
    later = msgspec.structs.replace(terms(), opens_at_ms=NOW_MS + MINUTE_MS)
    done(ledger, Publish(DAY, later))
    done(ledger, SetCapacity(DAY, "priority", 1))
    for now_ms, expected in ((NOW_MS + MINUTE_MS - 1, State.WAITING), (NOW_MS + MINUTE_MS, State.HELD)):
        done(ledger, Expire(DAY), now_ms)
        assert state(ledger, "ani", now_ms) is expected


def test_a_ledger_that_replays_a_decline_offers_the_place_when_the_pause_ends() -> None:
    """It has settled the day before, and the events do not say when the pause ends."""
    deciding = an_office(declines_max=3, decline_pause_ms=PAUSE_MS)
    done(deciding, reserve("first", PRIORITY))
    wait(deciding, "second")
    done(deciding, Release("first"))
    replaying = Ledger(OFFICE)
    for event in deciding.events:
        evolve(replaying, event)
    known = len(replaying.events)
    assert apply(replaying, Cancel("second"), NOW_MS).status is Status.WRONG_STATE
    assert done(deciding, Decline("second")).status is Status.WAITING
    for event in deciding.events[known:]:
        evolve(replaying, event)
    let_wait_lists_be_served(replaying)
    for ledger in (deciding, replaying):
        apply(ledger, Cancel("second"), NOW_MS + PAUSE_MS)
        assert state(ledger, "second", NOW_MS + PAUSE_MS) is State.HELD
