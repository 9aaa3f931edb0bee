"""Guarded commands: the rules one by one, and random walks against an oracle from ``docs/rules.md``."""

from __future__ import annotations

from fractions import Fraction
from random import Random

import pytest

from quota_engine.admission.guarded_command import (
    PASS_INDEX,
    AdmissionPass,
    EnteringCommand,
    GuardedCommand,
    GuardedLedger,
    GuardedOutcome,
    apply,
    describe_admission,
    takes_new_units,
)
from quota_engine.admission.token_bucket import Charge, Limit, per_minute, per_second
from quota_engine.conformance.world import (
    DAY,
    HOLD_TTL_MS,
    OFFICE,
    ONLINE,
    OPENS_AT_MS,
    PRIORITY,
    applicant,
    published,
    reserve,
)
from quota_engine.domain.audit import audit
from quota_engine.domain.commands import CloseDay, Command, Confirm, MoveIn, Release, Reschedule, Reserve, SetCapacity
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.events import ReservationChanged
from quota_engine.domain.lifecycle import State, Verb
from quota_engine.domain.outcomes import Status
from tests.support.effort import seeds
from tests.support.oracle import Oracle, Record
from tests.support.random_walks import walk

NOW = OPENS_AT_MS
LEASE = NOW + 600_000
ONE_A_MINUTE = per_minute(1)


def opened(capacity: int = 2) -> GuardedLedger:
    ledger = GuardedLedger(OFFICE)
    for command in (*published(), SetCapacity(DAY, "online", capacity)):
        apply(ledger, command, NOW - 3_600_000)
    return ledger


def charged(key: str, *names: str, leave: str = "", day: int = DAY, party: tuple[str, ...] = ()) -> GuardedCommand:
    charges = tuple(Charge(name, ONE_A_MINUTE) for name in names)
    return GuardedCommand(
        reserve(key, ONLINE, *party, day=day), charges, AdmissionPass(leave, LEASE) if leave else None
    )


def send(ledger: GuardedLedger, command: GuardedCommand, now_ms: int = NOW) -> GuardedOutcome:
    answer: GuardedOutcome = apply(ledger, command, now_ms)
    return answer


def status(ledger: GuardedLedger, command: GuardedCommand, now_ms: int = NOW) -> Status:
    return send(ledger, command, now_ms).outcome.status


def test_charge_that_does_not_fit_throttles() -> None:
    """The outcome names the bucket and the time to retry. The refusal changes nothing."""
    ledger = opened()
    assert status(ledger, charged("ani", "acc")) is Status.HELD
    events, gate = len(ledger.events), describe_admission(ledger)
    answer = send(ledger, charged("budi", "free", "acc"))
    assert (answer.outcome.status, answer.outcome.retry_at_ms, answer.refused_by) == (
        Status.THROTTLED,
        NOW + 60_000,
        1,
    )
    assert (len(ledger.events), describe_admission(ledger)) == (events, gate)
    assert status(ledger, charged("budi", "free", "acc"), NOW + 60_000) is Status.HELD
    assert audit(ledger) == []


def test_replay_needs_no_charge_and_no_pass() -> None:
    """A repeated key and a second reserve of the same applicant find the hold with empty buckets and a used pass."""
    ledger = opened()
    assert status(ledger, charged("ani", "acc", leave="p1")) is Status.HELD
    gate = describe_admission(ledger)
    again = send(ledger, charged("ani", "acc", leave="p1")).outcome
    assert (again.status, again.replayed) == (Status.HELD, True)
    resumed = send(ledger, charged("other-key", "acc", leave="p1", party=("ani",))).outcome
    assert (resumed.status, resumed.resumed) == (Status.HELD, True)
    assert status(ledger, charged("ani", "acc", party=("budi",))) is Status.CONFLICT
    assert describe_admission(ledger) == gate


def test_pass_makes_one_reservation() -> None:
    """A used pass stays used after its reservation is released, until it expires."""
    ledger = opened()
    assert status(ledger, charged("ani", leave="p1")) is Status.HELD
    assert status(ledger, charged("budi", leave="p1")) is Status.NOT_ADMITTED
    apply(ledger, Release("ani"), NOW)
    assert status(ledger, charged("ani2", leave="p1", party=("ani",))) is Status.NOT_ADMITTED
    assert describe_admission(ledger)["buckets"] == {"/p1": (LEASE, 0)}
    assert status(ledger, charged("citra", "acc", leave="p2"), LEASE - 1) is Status.HELD
    assert status(ledger, charged("dewi", leave="p2"), LEASE) is Status.NOT_ADMITTED
    assert send(ledger, charged("dewi", "acc"), LEASE + 60_000).outcome.status is Status.HELD
    assert list(describe_admission(ledger)["buckets"]) == ["acc"]


def test_sold_out_does_not_use_the_pass() -> None:
    """The pass is still valid for another day. The charges are not returned."""
    ledger = opened(capacity=0)
    assert status(ledger, charged("ani", "acc", leave="p1")) is Status.SOLD_OUT
    assert status(ledger, charged("ani", "acc", leave="p1", day=DAY + 1)) is Status.THROTTLED
    assert status(ledger, charged("ani", leave="p1", day=DAY + 1)) is Status.HELD
    assert status(ledger, charged("budi", leave="p1", day=DAY + 1)) is Status.NOT_ADMITTED


def test_joining_the_wait_list_uses_the_pass() -> None:
    ledger = opened()
    apply(ledger, reserve("first", PRIORITY), NOW)
    waiting = GuardedCommand(reserve("ani", PRIORITY, wait=True), (), AdmissionPass("p1", LEASE))
    assert status(ledger, waiting) is Status.WAITING
    assert status(ledger, charged("budi", leave="p1")) is Status.NOT_ADMITTED


def test_store_clock_decides_when_a_pass_expires() -> None:
    """Neither an expired nor a used pass becomes valid when the clock is set back."""
    ledger = opened()
    assert status(ledger, charged("ani", leave="p1"), LEASE - 1) is Status.HELD
    assert status(ledger, charged("budi", "acc"), LEASE + 5) is Status.HELD
    assert status(ledger, charged("citra", leave="p1"), LEASE - 100) is Status.NOT_ADMITTED
    assert status(ledger, charged("citra", leave="p9"), LEASE - 100) is Status.NOT_ADMITTED


def test_pass_does_not_open_a_day_early() -> None:
    """A queue of another vendor admitted applicants before the opening."""
    ledger = opened()
    early = send(ledger, charged("ani", leave="p1"), NOW - 1).outcome
    assert (early.status, early.retry_at_ms) == (Status.NOT_OPEN, NOW)
    assert status(ledger, charged("ani", leave="p1"), NOW) is Status.HELD


def test_invalid_pass_is_refused_without_a_charge() -> None:
    ledger = opened()
    assert status(ledger, charged("ani", "acc", leave="p1"), LEASE) is Status.NOT_ADMITTED
    assert describe_admission(ledger)["buckets"] == {}


def guarded(command: EnteringCommand, leave: str = "", *names: str) -> GuardedCommand:
    charges = tuple(Charge(name, ONE_A_MINUTE) for name in names)
    return GuardedCommand(command, charges, AdmissionPass(leave, LEASE) if leave else None)


def test_reschedule_to_another_day_uses_the_pass() -> None:
    """The hold of a dull day gets no place of the release without a valid pass, and keeps its own place."""
    ledger = opened()
    assert apply(ledger, reserve("ani", ONLINE, day=DAY + 1), NOW).status is Status.HELD
    used = guarded(Reschedule("ani", DAY, ONLINE), "p1", "acc")
    assert status(ledger, used, LEASE) is Status.NOT_ADMITTED
    assert status(ledger, guarded(reserve("budi", ONLINE), "p1")) is Status.HELD
    assert status(ledger, used) is Status.NOT_ADMITTED
    assert ledger.reservations["ani"].day == DAY + 1
    assert status(ledger, guarded(Reschedule("ani", DAY, ONLINE), "p2", "acc")) is Status.HELD
    assert status(ledger, guarded(Reschedule("ani", DAY + 1, ONLINE), "", "acc")) is Status.THROTTLED
    assert audit(ledger) == []


def test_refused_or_repeated_reschedule_is_free() -> None:
    """A replay, another owner, a stale version and an ended reservation need no pass and no token."""
    ledger = opened()
    apply(ledger, reserve("ani", ONLINE, day=DAY + 1), NOW)
    move = Reschedule("ani", DAY, ONLINE)
    assert status(ledger, guarded(move, "p1", "acc")) is Status.HELD
    state = describe_admission(ledger)
    again = send(ledger, guarded(move, "p1", "acc")).outcome
    assert (again.status, again.replayed) == (Status.HELD, True)
    for command, expected in (
        (Reschedule("ani", DAY + 1, ONLINE, applicant("budi")), Status.NOT_OWNER),
        (Reschedule("ani", DAY + 1, ONLINE, "", 1), Status.STALE),
        (Reschedule("dewi", DAY + 1, ONLINE), Status.NOT_FOUND),
    ):
        assert status(ledger, guarded(command, "p1", "acc")) is expected
    assert status(ledger, guarded(Reschedule("ani", DAY + 1, ONLINE), "p1"), NOW + HOLD_TTL_MS) is Status.HOLD_EXPIRED
    assert describe_admission(ledger) == state


def test_reschedule_of_a_waiting_party_needs_a_pass() -> None:
    """Settling may serve the wait list in the same step, and would turn the entry into a hold that can be moved."""
    ledger = opened()
    apply(ledger, reserve("first", PRIORITY), NOW)
    assert apply(ledger, reserve("ani", PRIORITY, wait=True), NOW).status is Status.WAITING
    late = NOW + HOLD_TTL_MS
    assert status(ledger, guarded(Reschedule("ani", DAY + 1, ONLINE), "p1"), late) is Status.NOT_ADMITTED
    assert ledger.reservations["ani"].day == DAY


def test_reacquire_uses_the_pass_and_a_live_hold_does_not() -> None:
    ledger = opened()
    for name in ("ani", "budi"):
        apply(ledger, reserve(name, ONLINE), NOW)
    assert status(ledger, guarded(Confirm("budi", reacquire=True), "p1", "acc")) is Status.CONFIRMED
    assert describe_admission(ledger)["buckets"] == {}
    late = NOW + HOLD_TTL_MS
    expired = GuardedCommand(Confirm("ani", reacquire=True), (), AdmissionPass("p1", late + 1))
    assert status(ledger, guarded(Confirm("ani", reacquire=True), "p1"), late) is Status.NOT_ADMITTED
    assert status(ledger, guarded(Confirm("ani"), "p1"), late) is Status.HOLD_EXPIRED
    assert status(ledger, expired, late) is Status.CONFIRMED
    assert describe_admission(ledger)["buckets"] == {"/p1": (late + 1, 0)}
    assert status(ledger, charged("citra", leave="p1"), late) is Status.NOT_ADMITTED


def test_move_from_another_office_uses_the_pass() -> None:
    """A repeated move finds its place without a pass, as a recovery does."""
    ledger = opened()
    move = MoveIn("moved", DAY, (applicant("ani"),), ONLINE, 0, 1)
    assert status(ledger, guarded(move, "p1", "acc"), LEASE) is Status.NOT_ADMITTED
    assert status(ledger, guarded(move, "p1", "acc")) is Status.CONFIRMED
    again = send(ledger, guarded(move, "p1", "acc"), LEASE).outcome
    assert (again.status, again.replayed) == (Status.CONFIRMED, True)
    assert status(ledger, charged("budi", leave="p1")) is Status.NOT_ADMITTED


def test_shadow_mode_refuses_nothing() -> None:
    """Refusals are reported, buckets charged and passes used up."""
    ledger = opened(capacity=9)

    def shadowed(key: str, now_ms: int = NOW) -> GuardedOutcome:
        charges = (Charge("acc", ONE_A_MINUTE, shadow=True), Charge("all", per_second(100)))
        return send(
            ledger, GuardedCommand(reserve(key, ONLINE), charges, AdmissionPass("p1", LEASE, shadow=True)), now_ms
        )

    assert (shadowed("a").outcome.status, shadowed("a").shadow_refusals) == (Status.HELD, ())
    second = shadowed("b")
    assert (second.outcome.status, second.shadow_refusals) == (Status.HELD, (PASS_INDEX, 0))
    assert shadowed("c", NOW + 60_000).shadow_refusals == (PASS_INDEX,)
    late = send(ledger, GuardedCommand(reserve("d", ONLINE), (), AdmissionPass("p2", NOW, shadow=True)))
    assert (late.outcome.status, late.shadow_refusals) == (Status.HELD, (PASS_INDEX,))
    assert "/p2" not in describe_admission(ledger)["buckets"]


def test_other_commands_are_unchanged() -> None:
    """The description of the ledger does not contain the admission state."""
    ledger = opened()
    assert apply(ledger, CloseDay(DAY), NOW).status is Status.DONE
    assert status(ledger, charged("ani", "acc")) is Status.DAY_CLOSED


@pytest.mark.parametrize(
    "command",
    [
        GuardedCommand(Reserve("a b", DAY, (applicant("ani"),), ONLINE)),
        GuardedCommand(reserve("ani", ONLINE), (Charge("k", per_second(1), 2),)),
        GuardedCommand(reserve("ani", ONLINE), (), AdmissionPass("", LEASE)),
        GuardedCommand(reserve("ani", ONLINE), (), AdmissionPass("p", -1)),
        GuardedCommand(Release("ani")),  # type: ignore[arg-type]
    ],
    ids=["reserve", "charge", "pass-id", "pass-until", "command"],
)
def test_check_rejects_invalid_commands(command: GuardedCommand) -> None:
    with pytest.raises(InvalidRequest):
        command.check()
    charged("ani", "acc", leave="p1").check()


class GuardedOracle:
    """Oracle of guarded commands: token fractions, used passes, and the oracle of the office."""

    def __init__(self) -> None:
        self.oracle = Oracle(OFFICE)
        self.levels: dict[str, tuple[Fraction, int]] = {}
        self.used: dict[str, int] = {}
        """Used passes, and the ends of their leases."""
        self.gate_ms = 0

    def takes_nothing_new(self, command: EnteringCommand, now_ms: int) -> bool:
        """Step 1 of the rules: a repetition, or a command that its reservation refuses."""
        record = self.oracle.records.get(command.id) if self.oracle.lookup(command.id, now_ms) is not None else None
        if isinstance(command, MoveIn):
            return record is not None
        if isinstance(command, Reserve):
            others = list(self.oracle.records.values())
            return record is not None or any(self.resumes(other, command, now_ms) for other in others)
        if record is None or (command.owner and command.owner not in record.applicants):
            return True
        has_expired = record.state is State.EXPIRED or record.is_overdue(now_ms)
        if isinstance(command, Confirm):
            return not (command.reacquire and has_expired)
        if has_expired or record.state not in (State.WAITING, State.HELD, State.CONFIRMED):
            return True
        is_stale = command.expected_version not in (0, record.version) and record.state is not State.WAITING
        return is_stale or (record.day == command.day and record.choice == command.choice)

    def resumes(self, record: Record, command: Reserve, now_ms: int) -> bool:
        known = self.oracle.lookup(record.id, now_ms) is not None
        if not known or record.day != command.day or record.party != frozenset(command.applicants):
            return False
        if self.oracle.days[record.day].closed:
            return False  # the reservations of a closed day are no claims
        if record.state is State.WAITING:
            return now_ms < self.oracle.days[record.day].ends_at_ms
        return record.state is State.HELD and not record.is_overdue(now_ms)

    def fits(self, charge: Charge, now_ms: int) -> bool:
        return self.level(charge, now_ms) >= charge.cost

    def level(self, charge: Charge, now_ms: int) -> Fraction:
        burst, rate = Fraction(charge.limit.burst), Fraction(charge.limit.amount, charge.limit.per_ms)
        level, at_ms = self.levels.get(charge.name, (burst, now_ms))
        return min(burst, level + rate * (now_ms - at_ms))

    def take(self, charge: Charge, now_ms: int) -> None:
        self.levels[charge.name] = self.level(charge, now_ms) - charge.cost, now_ms
        self.gate_ms = now_ms

    def count_refusal(self, charges: tuple[Charge, ...], now_ms: int) -> None:
        for charge in charges:
            if charge.counts_refusals and self.fits(charge, now_ms):
                self.take(charge, now_ms)

    def objection_to(self, answer: GuardedOutcome, command: GuardedCommand, now_ms: int) -> str:
        self.oracle.forget_days(now_ms)
        now_ms = max(now_ms, self.oracle.clock_ms)
        if self.takes_nothing_new(command.command, now_ms):
            objection = self.oracle.apply(command.command, now_ms).difference_from(answer.outcome)
            return objection or ("findings" if (answer.refused_by, answer.shadow_refusals) != (-1, ()) else "")
        gate_ms, shadow = max(now_ms, self.gate_ms), []
        one = command.admission_pass
        good = one is not None and self.used.get(one.id, 0) <= gate_ms < one.until_ms
        if one is not None and not good:
            if not one.shadow:
                self.count_refusal(command.charges, gate_ms)
                return "" if answer.outcome.status is Status.NOT_ADMITTED else "a bad pass was good"
            shadow.append(PASS_INDEX)
        enforced = [charge for charge in command.charges if not charge.shadow]
        if not all(self.fits(charge, gate_ms) for charge in enforced):
            first = next(charge for charge in enforced if not self.fits(charge, gate_ms))
            expected = (Status.THROTTLED, command.charges.index(first), tuple(shadow))
            found = (answer.outcome.status, answer.refused_by, answer.shadow_refusals)
            retry = answer.outcome.retry_at_ms
            exact = all(self.fits(charge, retry) for charge in enforced) and not all(
                self.fits(charge, retry - 1) for charge in enforced
            )
            self.count_refusal(command.charges, gate_ms)
            return "" if expected == found and exact else f"{answer} instead of {expected}"
        for charge in enforced:
            self.take(charge, gate_ms)
        for index, charge in enumerate(command.charges):
            if charge.shadow and self.fits(charge, gate_ms):
                self.take(charge, gate_ms)
            elif charge.shadow:
                shadow.append(index)
        objection = self.oracle.apply(command.command, now_ms).difference_from(answer.outcome)
        taken = answer.outcome.status in (Status.HELD, Status.WAITING, Status.CONFIRMED)
        if good and one is not None and taken and not answer.outcome.replayed:
            self.used[one.id] = one.until_ms
            self.gate_ms = gate_ms
        return objection or (
            "" if answer.shadow_refusals == tuple(shadow) else f"{answer.shadow_refusals} instead of {shadow}"
        )


@pytest.mark.parametrize("seed", seeds(70, 200))
def test_random_walks_match_the_oracle(seed: int) -> None:
    """Walks contain used and expired passes, charges in and out of shadow mode, and replays."""
    random = Random(seed)
    limits = {name: random.choice((Limit(1, 20, 2), Limit(7, 10, 3), Limit(3, 50, 1))) for name in ("x", "y", "z")}
    oracle, ledger = GuardedOracle(), GuardedLedger(OFFICE)
    uses = 0
    for now_ms, command in walk(Random(seed)):
        guarded = _guarded(command, limits, random, now_ms, uses)
        if guarded is None:
            assert not oracle.oracle.apply(command, now_ms).difference_from(apply(ledger, command, now_ms))
            continue
        uses += 1
        answer: GuardedOutcome = apply(ledger, guarded, now_ms)
        assert not oracle.objection_to(answer, guarded, now_ms), (now_ms, guarded)


@pytest.mark.parametrize("seed", seeds(35, 100))
def test_no_other_command_takes_a_place(seed: int) -> None:
    """Only commands that can carry a pass take units or join a wait list, and only if ``takes_new_units`` returns True.

    The wait list's offers are the exception: their parties were admitted when they joined.
    """
    ledger = GuardedLedger(OFFICE)
    for now_ms, command in walk(Random(seed)):
        events, time_ms = len(ledger.events), max(now_ms, ledger.now_ms)
        is_entry = isinstance(command, EnteringCommand) and takes_new_units(ledger, command, time_ms)
        had = {record.id: record for record in ledger.reservations.values()}
        apply(ledger, command, now_ms)
        for event in ledger.events[events:]:
            if not isinstance(event, ReservationChanged) or event.verb is Verb.OFFER:
                continue
            record, before = event.reservation, had.get(event.reservation.id)
            is_counted = record.state in (State.WAITING, State.HELD, State.CONFIRMED)
            # An undone check-in or no-show had its place all the time.
            counts = (State.WAITING, State.HELD, State.CONFIRMED, State.ATTENDED, State.NO_SHOW)
            kept = before is not None and before.state in counts
            is_same = before is not None and (before.day, before.choice) == (record.day, record.choice)
            assert is_entry or not is_counted or (kept and is_same), (now_ms, command, event)


def _guarded(
    command: Command, limits: dict[str, Limit], random: Random, now_ms: int, uses: int
) -> GuardedCommand | None:
    if not isinstance(command, EnteringCommand):
        return None
    charges = tuple(
        Charge(
            name,
            limits[name],
            random.randint(1, limits[name].burst),
            random.random() < 0.3,
            random.random() < 0.3,
        )
        for name in random.sample(sorted(limits), random.randint(0, 3))
    )
    one = AdmissionPass(f"p{uses // 3}", max(0, now_ms + random.choice((0, 30, HOLD_TTL_MS))), random.random() < 0.3)
    return GuardedCommand(command, charges, one if random.random() < 0.5 else None)
