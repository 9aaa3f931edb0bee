"""Random walks through a small office: few applicants, few days, small capacities, short times.

Uniformly random commands rarely interact: in a first version, 19 of 20 confirms found no hold. The walker therefore
reads the oracle and mostly chooses a command that can succeed, at a time near a deadline. Its random source is
``random.Random(seed)``, which is fast, or Hypothesis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Final, TypeVar

from msgspec.structs import replace

from quota_engine.domain.commands import (
    Cancel,
    CheckIn,
    CloseDay,
    Command,
    Confirm,
    Decline,
    Expire,
    Extend,
    MarkNoShow,
    MoveIn,
    MoveOut,
    OpenDay,
    PrepareMove,
    Publish,
    ReallocateUnused,
    Release,
    ReleaseParked,
    RemoveApplicant,
    ReplaceApplicant,
    Reschedule,
    Reserve,
    SetCapacity,
    SetRules,
    Stay,
    UndoAttendance,
    UndoMove,
)
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import (
    Choice,
    DayTerms,
    GuardScope,
    IdentityLimit,
    QuotaTerms,
    Reallocation,
    ReRelease,
    ReReleaseRule,
    Rules,
    SessionTerms,
)
from tests.support.command_source import Step
from tests.support.oracle import Oracle, Record

T = TypeVar("T")

DAYS: Final = (11, 12, 14)
QUOTAS: Final = ("total", "morning", "priority", "walkin")
ALLOTMENTS: Final = ("priority", "walkin")
"""The quotas that may be reallocated to one of the remaining quotas."""
UNKNOWN_QUOTA: Final = "nowhere"
APPLICANTS: Final = ("ana", "budi", "citra", "dewi", "eka")
STEPS_MAX: Final = 60


def choice_of(*options: tuple[str, ...], session: str = "") -> Choice:
    """Return a choice with these options."""
    return Choice(service="new", service_unit="", session=session, channel="", group="", options=options)


CHOICES: Final = (
    choice_of(("total",)),
    choice_of(("morning",)),
    choice_of(("total", "morning")),
    choice_of(("priority",), ("total",)),
    choice_of(("priority", "morning"), ("total", "morning")),
    choice_of(("walkin",), ("priority",), ("morning",)),
    choice_of(("walkin",)),
    choice_of(("walkin",), session="early"),
    choice_of(("morning",), session="early"),
    choice_of(("morning",), session="late"),
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
    """Chooses commands by the state of the oracle."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.oracle = Oracle("SBY")
        self.steps: list[Step] = []
        self.now_ms = 0
        self.abandoned_holds_window_ms = self.choose((20, 5, 60))

    def apply(self, command: Command) -> None:
        self.steps.append((self.now_ms, command))
        self.oracle.apply(command, self.now_ms)

    def walk(self, steps_max: int) -> list[Step]:
        """Return the steps: the rules and the days first, then random commands."""
        self.apply(SetRules(self.rules()))
        for day in DAYS:
            self.apply(Publish(day, self.day_terms()))
        # A walk has only some of the operators' commands, so that reservations last long enough to interact.
        at_work = self.random.sample(OPERATOR_COMMANDS, self.random.randint(0, 4))
        for _ in range(steps_max):
            self.advance_time()
            kinds = at_work if at_work and self.one_in(6) else APPLICANT_COMMANDS
            if len(self.oracle.days) < 2:
                self.apply(Publish(self.day_to_publish(), self.day_terms()))
            else:
                self.apply(self.choose(kinds)(self))
        return self.steps

    # ------------------------------------------------------------------ chances

    def one_in(self, number: int) -> bool:
        return self.random.randrange(number) == number - 1

    def choose(self, usual: Sequence[T]) -> T:
        return self.random.choice(usual)

    def day(self) -> int:
        return self.day_to_publish() if self.one_in(30) else self.choose(list(self.oracle.days))

    def day_to_publish(self) -> int:
        """Return a day that is unknown or forgotten."""
        return max(*DAYS, *self.oracle.days, self.oracle.last_forgotten_day) + self.choose((1, 1, 2, -3))

    def quota(self) -> str:
        return UNKNOWN_QUOTA if self.one_in(20) else self.choose(QUOTAS)

    def choice(self) -> Choice:
        return UNKNOWN_CHOICE if self.one_in(40) else self.choose(CHOICES)

    def party(self) -> tuple[str, ...]:
        size = self.choose((1, 1, 1, 1, 2, 2, 3, 4))
        return tuple(self.random.sample(APPLICANTS, size))

    def record(self, *states: State) -> Record | None:
        """Return a record in one of the states if there is one, sometimes one in any state."""
        records = list(self.oracle.records.values())
        wanted = [record for record in records if record.state in states]
        if not wanted or self.one_in(10):
            wanted = records
        return self.choose(wanted) if wanted else None

    def owner(self, record: Record) -> str:
        if self.one_in(12):
            return self.choose(APPLICANTS)
        return self.choose(record.applicants) if self.one_in(4) else ""

    def version(self, record: Record) -> int:
        return self.choose((0, 0, 0, 0, 0, 0, record.version, record.version, max(record.version - 1, 0)))

    # ------------------------------------------------------------------ time

    def advance_time(self) -> None:
        """Advance the time a little or not at all, often to the exact time of a change, and sometimes backwards."""
        kind = self.random.randrange(20)
        if kind < 9:
            return
        if kind < 14:
            self.now_ms += self.choose((1, 1, 2, 3, 5))
        elif kind < 18:
            ahead_ms = [ms for ms in self.oracle.moments_ms() if self.now_ms < ms < self.now_ms + 30][:3]
            if ahead_ms:
                self.now_ms = self.choose(ahead_ms) + self.choose((0, 0, -1, 1))
        elif kind == 18:
            self.now_ms += self.choose((8, 20))
        else:
            self.now_ms = max(self.now_ms - self.choose((1, 2, 10, 30)), 0)

    # ------------------------------------------------------------------ terms

    def rules(self) -> Rules:
        return Rules(
            hold_ttl_ms=self.choose((8, 3, 20, 20, 1)),
            offer_ttl_ms=self.choose((8, 3, 1)),
            extensions_max=self.choose((2, 0, 1, 3)),
            extension_ms=self.choose((3, 1, 8)),
            party_max=self.choose((4, 4, 4, 2)),
            identity_limits=self.choose(IDENTITY_LIMITS),
            no_show_block_ms=self.choose((0, 5, 40)),
            cancellations_max=self.choose((0, 1, 2)),
            cancellations_window_ms=self.choose((20, 5)),
            cancellations_block_ms=self.choose((10, 0, 30)),
            abandoned_holds_max=self.choose((0, 0, 1, 2, 3)),
            abandoned_holds_window_ms=self.abandoned_holds_window_ms,
            abandoned_holds_block_ms=self.choose((10, 0, 30)),
            reschedules_max=self.choose((2, 1, 4, 0)),
            reschedule_before_ms=self.choose((0, 10, 30)),
            wait_list_max=self.choose((5, 2, 1, 0)),
            declines_max=self.choose((1, 3, 0)),
            decline_pause_ms=self.choose((8, 3, 1, 30)),
            undo_window_ms=self.choose((20, 5, 60, 0)),
            jitter_seed=self.choose(("", "salt")),
        )

    def re_release(self) -> ReRelease:
        rule = self.choose((*ReReleaseRule, ReReleaseRule.WAIT_LIST, ReReleaseRule.WAIT_LIST))
        if rule is ReReleaseRule.WAIT_LIST:
            return ReRelease(rule, blocks_ms=self.choose((0, 0, 1, 5, 20)))
        if rule is not ReReleaseRule.COOLING:
            return ReRelease(rule)
        return ReRelease(rule, cooling_ms=self.choose((3, 8, 1, 0)), jitter_ms=self.choose((0, 4)))

    def quota_terms(self, name: str, names: Sequence[str]) -> QuotaTerms:
        receivers = [other for other in names if other not in ALLOTMENTS]
        reallocation = None
        if name in ALLOTMENTS and receivers and self.one_in(2):
            reallocation = Reallocation(to=self.choose(receivers), at_ms=self.now_ms + self.choose((60, 20, 5, 0)))
        guard = GuardScope(session=self.choose(("", "early"))) if name == "total" and self.one_in(4) else None
        return QuotaTerms(name, self.choose((1, 2, 3, 4, 0)), self.re_release(), reallocation, guard)

    def day_terms(self) -> DayTerms:
        # Mostly all quotas: with fewer, most choices are refused with UNKNOWN_QUOTA.
        names = self.random.sample(QUOTAS, self.random.randint(1, 3)) if self.one_in(15) else QUOTAS
        former = self.choose(QUOTAS) if self.one_in(15) else ""
        starts_at_ms = self.now_ms + self.choose((120, 60, 30))
        ends_at_ms = starts_at_ms + self.choose((120, 60, 15))
        return DayTerms(
            opens_at_ms=self.now_ms + self.choose((0, 0, 0, 4)),
            starts_at_ms=starts_at_ms,
            ends_at_ms=ends_at_ms,
            forget_at_ms=ends_at_ms + self.choose((60, 30, 10, 0)),
            quotas=self.renamed(tuple(self.quota_terms(name, names) for name in names), former),
            sessions=self.session_terms(ends_at_ms) if self.one_in(2) else (),
        )

    def renamed(self, quotas: tuple[QuotaTerms, ...], former: str) -> tuple[QuotaTerms, ...]:
        """Let the people of the quota ``former`` join the first remaining quota, if no unused units go to it."""
        rest = [one for one in quotas if one.name != former]
        if not former or not rest or any(one.reallocation and one.reallocation.to == former for one in rest):
            return quotas
        return (replace(rest[0], renamed_from=former), *rest[1:])

    def session_terms(self, day_ends_at_ms: int) -> tuple[SessionTerms, ...]:
        ends_at_ms = min(self.now_ms + self.choose((40, 100, 5, 0)), day_ends_at_ms)
        early = SessionTerms("early", ends_at_ms, max(0, ends_at_ms - self.choose((0, 3, 30))))
        return (early, SessionTerms("late", day_ends_at_ms, day_ends_at_ms))

    # ------------------------------------------------------------------ customers

    def reserve(self) -> Command:
        asked = [command for _, command in self.steps if isinstance(command, Reserve)]
        if asked and self.one_in(8):
            # A retry with the same key, with the same or with another body.
            again = self.choose(asked)
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
            # The same party with a new id and in any order.
            party = tuple(self.random.sample(record.applicants, record.units))
        ttl_ms = self.choose((1, 5, 30)) if self.one_in(4) else 0
        return Reserve(
            f"r{len(asked)}", self.day(), party, self.choice(), self.one_in(2), ttl_ms, self.valid_until_ms()
        )

    def valid_until_ms(self) -> int:
        """Return 0, or sometimes a time near the present."""
        return max(self.now_ms + self.choose((-1, 0, 1, 5)), 0) if self.one_in(8) else 0

    def confirm(self) -> Command:
        states = (State.EXPIRED,) if self.one_in(4) else (State.HELD,)
        record = self.record(*states)
        if record is None:
            return self.reserve()
        reacquire = self.one_in(2)
        return Confirm(record.id, self.owner(record), self.version(record), reacquire, self.valid_until_ms())

    def extend(self) -> Command:
        record = self.record(State.HELD)
        if record is None:
            return Extend("r99")
        extension = max(record.extensions + self.choose((1, 1, 1, 0, 2)), 1)
        return Extend(record.id, self.owner(record), self.version(record), extension)

    def remove_applicant(self) -> Command:
        record = self.record(State.HELD, State.CONFIRMED, State.WAITING)
        if record is None:
            return RemoveApplicant("r99", applicant="ana")
        applicant = self.choose(APPLICANTS if self.one_in(4) else (*record.applicants, *record.former_applicants))
        owner = self.choose((applicant, self.owner(record)))
        return RemoveApplicant(record.id, owner, self.version(record), applicant)

    def replace_applicant(self) -> Command:
        record = self.record(State.HELD, State.CONFIRMED, State.WAITING)
        if record is None:
            return ReplaceApplicant("r99", "ana", "budi")
        applicant = self.choose(APPLICANTS if self.one_in(4) else record.applicants)
        newcomer = self.choose([one for one in APPLICANTS if one != applicant])
        return ReplaceApplicant(record.id, applicant, newcomer, self.version(record), self.valid_until_ms())

    def release(self) -> Command:
        record = self.record(State.HELD, State.WAITING)
        return Release(record.id, self.owner(record), self.version(record)) if record else Release("r99")

    def decline(self) -> Command:
        offers = [record for record in self.oracle.records.values() if record.wait_list_number]
        offers = [record for record in offers if record.state is State.HELD] or offers
        record = self.choose(offers) if offers and not self.one_in(6) else self.record(State.HELD)
        return Decline(record.id, self.owner(record), self.version(record)) if record else Decline("r99")

    def cancel(self) -> Command:
        record = self.record(State.CONFIRMED)
        return Cancel(record.id, self.owner(record), self.version(record)) if record else Cancel("r99")

    def check_in(self) -> Command:
        record = self.record(State.CONFIRMED)
        return CheckIn(record.id, self.owner(record), self.version(record)) if record else CheckIn("r99")

    def mark_no_show(self) -> Command:
        record = self.record(State.CONFIRMED)
        return MarkNoShow(record.id, self.owner(record), self.version(record)) if record else MarkNoShow("r99")

    def undo_attendance(self) -> Command:
        record = self.record(State.ATTENDED, State.NO_SHOW)
        if record is None or (not record.undo_until_ms and not self.one_in(4)):
            return self.check_in() if self.one_in(2) else self.mark_no_show()
        return UndoAttendance(record.id, self.owner(record), self.version(record))

    def reschedule(self) -> Command:
        record = self.record(State.HELD, State.CONFIRMED)
        if record is None:
            return Reschedule("r99", self.day(), self.choice())
        day = record.day if self.one_in(3) else self.day()
        return Reschedule(record.id, day, self.choice(), self.owner(record), self.version(record))

    def prepare_move(self) -> Command:
        record = self.record(State.HELD, State.CONFIRMED)
        return PrepareMove(record.id, self.owner(record), self.version(record)) if record else PrepareMove("r99")

    def stay(self) -> Command:
        record = self.record(State.CONFIRMED)
        return Stay(record.id, self.owner(record), self.version(record)) if record else Stay("r99")

    def move_in(self) -> Command:
        asked = [command for _, command in self.steps if isinstance(command, MoveIn)]
        if asked and self.one_in(6):
            return self.choose(asked)
        deadline_ms = 0 if self.one_in(2) else self.now_ms + self.choose((8, 3, 20, 1, 0))
        return MoveIn(
            # Sometimes the id of a reservation that was not moved in.
            self.choose(list(self.oracle.records) or ["r99"]) if self.one_in(12) else f"m{len(asked)}",
            self.day(),
            self.party(),
            self.choice(),
            deadline_ms,
            self.choose((1, 1, 2)),
            self.valid_until_ms(),
            self.choose((0, 0, 1)),
            self.choose((0, 0, 1, 2)),
        )

    def move_out(self) -> Command:
        record = self.record(State.HELD, State.CONFIRMED)
        kind = UndoMove if self.one_in(3) else MoveOut
        return kind(record.id, self.owner(record), self.version(record)) if record else kind("r99")

    # ------------------------------------------------------------------ operators

    def set_capacity(self) -> Command:
        record = self.record(State.HELD, State.CONFIRMED)
        if record is None or not record.quotas or self.one_in(3):
            day = self.day()
            return SetCapacity(day, self.quota(), self.choose((2, 0, 1, 3, 5)), self.revision(day))
        # The capacity of a quota in use, mostly lowered.
        name = self.choose(record.quotas)
        capacity = self.oracle.days[record.day].quotas[name].capacity
        capacity = max(capacity + self.choose((-1, -1, -2, 0, 1, 2)), 0)
        return SetCapacity(record.day, name, capacity, self.revision(record.day))

    def revision(self, day: int) -> int:
        """Return 0, or the revision of the day or the one before."""
        known = self.oracle.days.get(day)
        return self.choose((0, 0, known.revision, max(known.revision - 1, 0))) if known else 0

    def release_parked(self) -> Command:
        day = self.day()
        return ReleaseParked(day, self.quota(), self.revision(day))

    def reallocate_unused(self) -> Command:
        day = self.day()
        quota = self.choose(ALLOTMENTS) if self.one_in(2) else self.quota()
        return ReallocateUnused(day, quota, self.revision(day))

    def close_or_open_day(self) -> Command:
        day = self.day()
        return (CloseDay if self.one_in(3) else OpenDay)(day, self.revision(day))

    def expire(self) -> Command:
        return Expire(self.day(), self.choose((100, 1, 2)))

    def publish(self) -> Command:
        return Publish(self.day_to_publish() if self.one_in(3) else self.day(), self.day_terms())

    def set_rules(self) -> Command:
        return SetRules(self.rules())


APPLICANT_COMMANDS: Final[tuple[Callable[[Walker], Command], ...]] = (
    *(Walker.reserve,) * 9,
    *(Walker.confirm,) * 6,
    *(Walker.extend,) * 3,
    *(Walker.remove_applicant,) * 2,
    *(Walker.replace_applicant,) * 2,
    *(Walker.cancel,) * 2,
    *(Walker.reschedule,) * 3,
    Walker.release,
    *(Walker.decline,) * 2,
    Walker.check_in,
    Walker.mark_no_show,
    *(Walker.undo_attendance,) * 3,
    Walker.prepare_move,
    Walker.stay,
    *(Walker.move_in,) * 2,
    *(Walker.move_out,) * 2,
)
OPERATOR_COMMANDS: Final[tuple[Callable[[Walker], Command], ...]] = (
    Walker.set_capacity,
    Walker.release_parked,
    Walker.reallocate_unused,
    Walker.close_or_open_day,
    Walker.expire,
    Walker.publish,
    Walker.set_rules,
)


def walk(random: Random, steps_max: int = STEPS_MAX) -> list[Step]:
    """Return a random walk: commands with their times."""
    return Walker(random).walk(steps_max)
