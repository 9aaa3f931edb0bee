"""Guarded reserves: the rules one by one, and random walks against an oracle from ``docs/rules.md``."""

from __future__ import annotations

from fractions import Fraction
from random import Random

import pytest

from quota_engine.admission.guarded_reserve import (
    PASS_INDEX,
    AdmissionPass,
    GuardedLedger,
    GuardedOutcome,
    GuardedReserve,
    apply,
    describe_admission,
)
from quota_engine.admission.token_bucket import Charge, Limit, per_minute, per_second
from quota_engine.conformance.world import DAY, HOLD_TTL_MS, OFFICE, ONLINE, OPENS_AT_MS, applicant, published, reserve
from quota_engine.domain.audit import audit
from quota_engine.domain.commands import CloseDay, Command, Release, Reserve, SetCapacity
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.lifecycle import State
from quota_engine.domain.outcomes import Status
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


def charged(key: str, *names: str, leave: str = "", day: int = DAY, party: tuple[str, ...] = ()) -> GuardedReserve:
    charges = tuple(Charge(name, ONE_A_MINUTE) for name in names)
    return GuardedReserve(
        reserve(key, ONLINE, *party, day=day), charges, AdmissionPass(leave, LEASE) if leave else None
    )


def send(ledger: GuardedLedger, command: GuardedReserve, now_ms: int = NOW) -> GuardedOutcome:
    answer: GuardedOutcome = apply(ledger, command, now_ms)
    return answer


def status(ledger: GuardedLedger, command: GuardedReserve, now_ms: int = NOW) -> Status:
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
    from quota_engine.conformance.world import PRIORITY

    ledger = opened()
    apply(ledger, reserve("first", PRIORITY), NOW)
    waiting = GuardedReserve(reserve("ani", PRIORITY, wait=True), (), AdmissionPass("p1", LEASE))
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


def test_shadow_mode_refuses_nothing() -> None:
    """Refusals are reported, buckets charged and passes used up."""
    ledger = opened(capacity=9)

    def shadowed(key: str, now_ms: int = NOW) -> GuardedOutcome:
        charges = (Charge("acc", ONE_A_MINUTE, shadow=True), Charge("all", per_second(100)))
        return send(
            ledger, GuardedReserve(reserve(key, ONLINE), charges, AdmissionPass("p1", LEASE, shadow=True)), now_ms
        )

    assert (shadowed("a").outcome.status, shadowed("a").shadow_refusals) == (Status.HELD, ())
    second = shadowed("b")
    assert (second.outcome.status, second.shadow_refusals) == (Status.HELD, (PASS_INDEX, 0))
    assert shadowed("c", NOW + 60_000).shadow_refusals == (PASS_INDEX,)
    late = send(ledger, GuardedReserve(reserve("d", ONLINE), (), AdmissionPass("p2", NOW, shadow=True)))
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
        GuardedReserve(Reserve("a b", DAY, (applicant("ani"),), ONLINE)),
        GuardedReserve(reserve("ani", ONLINE), (Charge("k", per_second(1), 2),)),
        GuardedReserve(reserve("ani", ONLINE), (), AdmissionPass("", LEASE)),
        GuardedReserve(reserve("ani", ONLINE), (), AdmissionPass("p", -1)),
    ],
    ids=["reserve", "charge", "pass-id", "pass-until"],
)
def test_check_rejects_invalid_commands(command: GuardedReserve) -> None:
    with pytest.raises(InvalidRequest):
        command.check()
    charged("ani", "acc", leave="p1").check()


class GuardedOracle:
    """Oracle of guarded reserves: token fractions, used passes, and the oracle of the office."""

    def __init__(self) -> None:
        self.oracle = Oracle(OFFICE)
        self.levels: dict[str, tuple[Fraction, int]] = {}
        self.used: dict[str, int] = {}
        """Used passes, and the ends of their leases."""
        self.gate_ms = 0

    def has_reservation(self, command: Reserve, now_ms: int) -> bool:
        if self.oracle.lookup(command.id, now_ms) is not None:
            return True
        return any(self.resumes(record, command, now_ms) for record in list(self.oracle.records.values()))

    def resumes(self, record: Record, command: Reserve, now_ms: int) -> bool:
        known = self.oracle.lookup(record.id, now_ms) is not None
        if not known or record.day != command.day or record.party != frozenset(command.applicants):
            return False
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

    def objection_to(self, answer: GuardedOutcome, command: GuardedReserve, now_ms: int) -> str:
        now_ms = max(now_ms, self.oracle.clock_ms)
        if self.has_reservation(command.reserve, now_ms):
            objection = self.oracle.apply(command.reserve, now_ms).difference_from(answer.outcome)
            return objection or ("findings" if (answer.refused_by, answer.shadow_refusals) != (-1, ()) else "")
        gate_ms, shadow = max(now_ms, self.gate_ms), []
        one = command.admission_pass
        good = one is not None and self.used.get(one.id, 0) <= gate_ms < one.until_ms
        if one is not None and not good:
            if not one.shadow:
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
            return "" if expected == found and exact else f"{answer} instead of {expected}"
        for charge in enforced:
            self.take(charge, gate_ms)
        for index, charge in enumerate(command.charges):
            if charge.shadow and self.fits(charge, gate_ms):
                self.take(charge, gate_ms)
            elif charge.shadow:
                shadow.append(index)
        objection = self.oracle.apply(command.reserve, now_ms).difference_from(answer.outcome)
        if good and one is not None and answer.outcome.status in (Status.HELD, Status.WAITING):
            self.used[one.id] = one.until_ms
            self.gate_ms = gate_ms
        return objection or (
            "" if answer.shadow_refusals == tuple(shadow) else f"{answer.shadow_refusals} instead of {shadow}"
        )


@pytest.mark.parametrize("seed", range(200))
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


def _guarded(
    command: Command, limits: dict[str, Limit], random: Random, now_ms: int, uses: int
) -> GuardedReserve | None:
    if not isinstance(command, Reserve):
        return None
    charges = tuple(
        Charge(name, limits[name], random.randint(1, limits[name].burst), random.random() < 0.3)
        for name in random.sample(sorted(limits), random.randint(0, 3))
    )
    one = AdmissionPass(f"p{uses // 3}", max(0, now_ms + random.choice((0, 30, HOLD_TTL_MS))), random.random() < 0.3)
    return GuardedReserve(command, charges, one if random.random() < 0.5 else None)
