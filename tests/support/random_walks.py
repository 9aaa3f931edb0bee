"""Random walks through a small, crowded world: few applicants, few days, small capacities, short times.

Uniformly random commands never meet: in a first version nineteen of twenty confirms found no hold. So the walker has
the oracle beside it, looks at what there is, and mostly chooses a command that has a chance, at a moment that matters.
Whatever draws the numbers can drive it: ``random.Random(seed)``, which is fast, or Hypothesis, which can shrink.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Final, TypeVar

from quota_engine.domain.commands import (
    Cancel,
    CheckIn,
    CloseDay,
    Command,
    Confirm,
    Expire,
    MarkNoShow,
    MoveIn,
    MoveOut,
    OpenDay,
    PrepareMove,
    Publish,
    ReallocateUnused,
    Release,
    ReleaseParked,
    Reschedule,
    Reserve,
    SetCapacity,
    SetRules,
    UndoMove,
)
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import (
    Choice,
    DayTerms,
    IdentityLimit,
    QuotaTerms,
    Reallocation,
    ReRelease,
    ReReleaseRule,
    Rules,
)
from tests.support.command_source import Step
from tests.support.oracle import Oracle, Record

T = TypeVar("T")

DAYS: Final = (11, 12, 14)
QUOTAS: Final = ("total", "morning", "priority", "walkin")
ALLOTMENTS: Final = ("priority", "walkin")
"""The quotas that may pass on what they do not use; the others may be given it."""
UNKNOWN_QUOTA: Final = "nowhere"
APPLICANTS: Final = ("ana", "budi", "citra", "dewi", "eka")
STEPS_MAX: Final = 60


def choice_of(*options: tuple[str, ...]) -> Choice:
    """A choice that differs from others by its options only."""
    return Choice(service="new", service_unit="", session="", channel="", group="", options=options)


CHOICES: Final = (
    choice_of(("total",)),
    choice_of(("morning",)),
    choice_of(("total", "morning")),
    choice_of(("priority",), ("total",)),
    choice_of(("priority", "morning"), ("total", "morning")),
    choice_of(("walkin",), ("priority",), ("morning",)),
    choice_of(("walkin",)),
)
UNKNOWN_CHOICE: Final = choice_of(("total",), (UNKNOWN_QUOTA,))

IDENTITY_LIMITS: Final[tuple[tuple[IdentityLimit, ...], ...]] = (
    (),
    (IdentityLimit(2, 1),),
    (IdentityLimit(1, 1),),
    (IdentityLimit(1, 0),),
    (IdentityLimit(1, 2),),
    (IdentityLimit(2, 3),),
    (IdentityLimit(1, 1), IdentityLimit(2, 0)),
)


class Walker:
    """Chooses one command after the other by what the oracle knows."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.oracle = Oracle("SBY")
        self.steps: list[Step] = []
        self.now_ms = 0

    def take(self, command: Command) -> None:
        self.steps.append((self.now_ms, command))
        self.oracle.apply(command, self.now_ms)

    def walk(self, steps_max: int) -> list[Step]:
        """The rules and the days first; then whatever comes."""
        self.take(SetRules(self.rules()))
        for day in DAYS:
            self.take(Publish(day, self.day_terms()))
        # Only some operators are at work in one walk, or nothing would ever last.
        at_work = self.random.sample(OPERATORS, self.random.randint(0, 4))
        for _ in range(steps_max):
            self.let_time_pass()
            kinds = at_work if at_work and self.one_in(6) else CUSTOMERS
            if len(self.oracle.days) < 2:
                self.take(Publish(self.day_to_publish(), self.day_terms()))
            else:
                self.take(self.any_of(kinds)(self))
        return self.steps

    # ------------------------------------------------------------------ chances

    def one_in(self, number: int) -> bool:
        return self.random.randrange(number) == number - 1

    def any_of(self, usual: Sequence[T]) -> T:
        return self.random.choice(usual)

    def day(self) -> int:
        return self.day_to_publish() if self.one_in(30) else self.any_of(list(self.oracle.days))

    def day_to_publish(self) -> int:
        """A day that is not known any more, or not yet."""
        return max(*DAYS, *self.oracle.days, self.oracle.last_forgotten_day) + self.any_of((1, 1, 2, -3))

    def quota(self) -> str:
        return UNKNOWN_QUOTA if self.one_in(20) else self.any_of(QUOTAS)

    def choice(self) -> Choice:
        return UNKNOWN_CHOICE if self.one_in(40) else self.any_of(CHOICES)

    def party(self) -> tuple[str, ...]:
        size = self.any_of((1, 1, 1, 1, 2, 2, 3, 4))
        return tuple(self.random.sample(APPLICANTS, size))

    def record(self, *states: State) -> Record | None:
        """A record in one of the states, if there is one; now and then one in any state."""
        records = list(self.oracle.records.values())
        wanted = [record for record in records if record.state in states]
        if not wanted or self.one_in(10):
            wanted = records
        return self.any_of(wanted) if wanted else None

    def owner(self, record: Record) -> str:
        if self.one_in(12):
            return self.any_of(APPLICANTS)
        return self.any_of(record.applicants) if self.one_in(4) else ""

    def version(self, record: Record) -> int:
        return self.any_of((0, 0, 0, 0, 0, 0, record.version, record.version, max(record.version - 1, 0)))

    # ------------------------------------------------------------------ time

    def let_time_pass(self) -> None:
        """Mostly a little or nothing; often to the very millisecond of something; sometimes back."""
        kind = self.random.randrange(20)
        if kind < 9:
            return
        if kind < 14:
            self.now_ms += self.any_of((1, 1, 2, 3, 5))
        elif kind < 18:
            ahead_ms = [ms for ms in self.oracle.moments_ms() if self.now_ms < ms < self.now_ms + 30][:3]
            if ahead_ms:
                self.now_ms = self.any_of(ahead_ms) + self.any_of((0, 0, -1, 1))
        elif kind == 18:
            self.now_ms += self.any_of((8, 20))
        else:
            self.now_ms = max(self.now_ms - self.any_of((1, 2, 10, 30)), 0)

    # ------------------------------------------------------------------ terms

    def rules(self) -> Rules:
        return Rules(
            hold_ttl_ms=self.any_of((8, 3, 20, 20, 1)),
            offer_ttl_ms=self.any_of((8, 3, 1)),
            party_max=self.any_of((4, 4, 4, 2)),
            identity_limits=self.any_of(IDENTITY_LIMITS),
            no_show_block_ms=self.any_of((0, 5, 40)),
            cancellations_max=self.any_of((0, 1, 2)),
            cancellations_window_ms=self.any_of((20, 5)),
            cancellations_block_ms=self.any_of((10, 0, 30)),
            reschedules_max=self.any_of((2, 1, 4, 0)),
            reschedule_before_ms=self.any_of((0, 10, 30)),
            wait_list_max=self.any_of((5, 2, 1, 0)),
            jitter_seed=self.any_of(("", "salt")),
        )

    def re_release(self) -> ReRelease:
        rule = self.any_of((*ReReleaseRule, ReReleaseRule.WAIT_LIST, ReReleaseRule.WAIT_LIST))
        if rule is not ReReleaseRule.COOLING:
            return ReRelease(rule)
        return ReRelease(rule, cooling_ms=self.any_of((3, 8, 1, 0)), jitter_ms=self.any_of((0, 4)))

    def quota_terms(self, name: str, names: Sequence[str]) -> QuotaTerms:
        receivers = [other for other in names if other not in ALLOTMENTS]
        reallocation = None
        if name in ALLOTMENTS and receivers and self.one_in(2):
            reallocation = Reallocation(to=self.any_of(receivers), at_ms=self.now_ms + self.any_of((60, 20, 5, 0)))
        return QuotaTerms(name, self.any_of((1, 2, 3, 4, 0)), self.re_release(), reallocation)

    def day_terms(self) -> DayTerms:
        # Nearly always all quotas: with fewer, most choices are answered with UNKNOWN_QUOTA.
        names = self.random.sample(QUOTAS, self.random.randint(1, 3)) if self.one_in(15) else QUOTAS
        starts_at_ms = self.now_ms + self.any_of((120, 60, 30))
        ends_at_ms = starts_at_ms + self.any_of((120, 60, 15))
        return DayTerms(
            opens_at_ms=self.now_ms + self.any_of((0, 0, 0, 4)),
            starts_at_ms=starts_at_ms,
            ends_at_ms=ends_at_ms,
            forget_at_ms=ends_at_ms + self.any_of((60, 30, 10, 0)),
            quotas=tuple(self.quota_terms(name, names) for name in names),
        )

    # ------------------------------------------------------------------ customers

    def reserve(self) -> Command:
        asked = [command for _, command in self.steps if isinstance(command, Reserve)]
        if asked and self.one_in(8):
            # The answer was lost, and the same request comes again; or it does so with another body.
            again = self.any_of(asked)
            if self.one_in(2):
                return again
            party, day, choice = again.applicants[::-1], again.day, again.choice
            match self.random.randrange(4):
                case 1:
                    party = self.party()
                case 2:
                    day = self.day()
                case 3:
                    choice = self.choice()
            return Reserve(again.id, day, party, choice)
        party = self.party()
        if self.one_in(8) and (record := self.record(State.HELD, State.WAITING)):
            # The same party once more, under a new id and in any order.
            party = tuple(self.random.sample(record.applicants, record.units))
        ttl_ms = self.any_of((1, 5, 30)) if self.one_in(4) else 0
        return Reserve(
            f"r{len(asked)}", self.day(), party, self.choice(), self.one_in(2), ttl_ms, self.valid_until_ms()
        )

    def valid_until_ms(self) -> int:
        """Mostly none, else a moment about now."""
        return max(self.now_ms + self.any_of((-1, 0, 1, 5)), 0) if self.one_in(8) else 0

    def confirm(self) -> Command:
        states = (State.EXPIRED,) if self.one_in(4) else (State.HELD,)
        record = self.record(*states)
        if record is None:
            return self.reserve()
        reacquire = self.one_in(2)
        return Confirm(record.id, self.owner(record), self.version(record), reacquire, self.valid_until_ms())

    def release(self) -> Command:
        record = self.record(State.HELD, State.WAITING)
        return Release(record.id, self.owner(record), self.version(record)) if record else Release("r99")

    def cancel(self) -> Command:
        record = self.record(State.CONFIRMED)
        return Cancel(record.id, self.owner(record), self.version(record)) if record else Cancel("r99")

    def check_in(self) -> Command:
        record = self.record(State.CONFIRMED)
        return CheckIn(record.id, self.owner(record), self.version(record)) if record else CheckIn("r99")

    def mark_no_show(self) -> Command:
        record = self.record(State.CONFIRMED)
        return MarkNoShow(record.id, self.owner(record), self.version(record)) if record else MarkNoShow("r99")

    def reschedule(self) -> Command:
        record = self.record(State.HELD, State.CONFIRMED)
        if record is None:
            return Reschedule("r99", self.day(), self.choice())
        day = record.day if self.one_in(3) else self.day()
        return Reschedule(record.id, day, self.choice(), self.owner(record), self.version(record))

    def prepare_move(self) -> Command:
        record = self.record(State.HELD, State.CONFIRMED)
        return PrepareMove(record.id, self.owner(record), self.version(record)) if record else PrepareMove("r99")

    def move_in(self) -> Command:
        asked = [command for _, command in self.steps if isinstance(command, MoveIn)]
        if asked and self.one_in(6):
            return self.any_of(asked)
        deadline_ms = 0 if self.one_in(2) else self.now_ms + self.any_of((8, 3, 20, 1, 0))
        return MoveIn(
            # Now and then the id of something that came otherwise.
            self.any_of(list(self.oracle.records) or ["r99"]) if self.one_in(12) else f"m{len(asked)}",
            self.day(),
            self.party(),
            self.choice(),
            deadline_ms,
            self.any_of((1, 1, 2)),
            self.valid_until_ms(),
        )

    def move_out(self) -> Command:
        record = self.record(State.HELD, State.CONFIRMED)
        kind = UndoMove if self.one_in(3) else MoveOut
        return kind(record.id, self.owner(record), self.version(record)) if record else kind("r99")

    # ------------------------------------------------------------------ operators

    def set_capacity(self) -> Command:
        record = self.record(State.HELD, State.CONFIRMED)
        if record is None or not record.quotas or self.one_in(3):
            return SetCapacity(self.day(), self.quota(), self.any_of((2, 0, 1, 3, 5)))
        # A capacity that is in use, mostly lowered.
        name = self.any_of(record.quotas)
        capacity = self.oracle.days[record.day].quotas[name].capacity
        return SetCapacity(record.day, name, max(capacity + self.any_of((-1, -1, -2, 0, 1, 2)), 0))

    def release_parked(self) -> Command:
        return ReleaseParked(self.day(), self.quota())

    def reallocate_unused(self) -> Command:
        return ReallocateUnused(self.day(), self.any_of(ALLOTMENTS) if self.one_in(2) else self.quota())

    def close_or_open_day(self) -> Command:
        return CloseDay(self.day()) if self.one_in(3) else OpenDay(self.day())

    def expire(self) -> Command:
        return Expire(self.day(), self.any_of((100, 1, 2)))

    def publish(self) -> Command:
        return Publish(self.day_to_publish() if self.one_in(3) else self.day(), self.day_terms())

    def set_rules(self) -> Command:
        return SetRules(self.rules())


CUSTOMERS: Final[tuple[Callable[[Walker], Command], ...]] = (
    *(Walker.reserve,) * 9,
    *(Walker.confirm,) * 6,
    *(Walker.cancel,) * 2,
    *(Walker.reschedule,) * 3,
    Walker.release,
    Walker.check_in,
    Walker.mark_no_show,
    Walker.prepare_move,
    *(Walker.move_in,) * 2,
    *(Walker.move_out,) * 2,
)
OPERATORS: Final[tuple[Callable[[Walker], Command], ...]] = (
    Walker.set_capacity,
    Walker.release_parked,
    Walker.reallocate_unused,
    Walker.close_or_open_day,
    Walker.expire,
    Walker.publish,
    Walker.set_rules,
)


def walk(random: Random, steps_max: int = STEPS_MAX) -> list[Step]:
    """A list of commands with their times."""
    return Walker(random).walk(steps_max)
