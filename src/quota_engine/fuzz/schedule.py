"""The schedule of a run: commands of callers, visits of applicants, and incidents of servers and processes.

The schedule is drawn from the seed before the run begins. A smaller schedule is a part of it, so that
:mod:`quota_engine.fuzz.shrinking` can leave out what a failure does not need.
"""

from __future__ import annotations

__all__ = ["BEGINS_AT_MS", "PROCESSES_MAX", "Incident", "Operation", "Schedule", "draw_schedule"]

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from operator import itemgetter
from random import Random
from typing import Any, Final, NamedTuple

import msgspec
from msgspec.structs import replace

from quota_engine.admission.guarded_command import AdmissionPass, EnteringCommand, GuardedCommand
from quota_engine.admission.token_bucket import Charge, Limit, ResetTokens, TakeTokens, at_most, per_minute, per_second
from quota_engine.conformance import random_draws, random_rooms
from quota_engine.conformance.random_commands import random_commands
from quota_engine.conformance.world import DAY, NEXT_DAY, OFFICE, ONLINE, OPENS_AT_MS, reserve, terms
from quota_engine.domain.commands import (
    Cancel,
    CheckIn,
    Confirm,
    MarkNoShow,
    MoveIn,
    Release,
    Reserve,
    SetCapacity,
    UndoAttendance,
)
from quota_engine.domain.cross_office_registry import Claim, CloseMove, Drop, FindClaims, OpenMove, shards
from quota_engine.draws.commands import CreateDraw
from quota_engine.fuzz.faults import INCIDENTS, STORE_CLOCK_INCIDENTS, Faults
from quota_engine.fuzz.seeded_random import SeededRandom
from quota_engine.ports import Acknowledge, ApplyMany, Lookup, Query, ReadConsumerGroup, View
from quota_engine.waiting_room.commands import CallTickets, CreateRoom, JoinRoom, OpenRoom

BEGINS_AT_MS: Final = OPENS_AT_MS - 130_000
"""The store's clock at the beginning of a run with commands, in milliseconds since 1970."""
ROOM: Final = "~room.december"
DRAW: Final = f"~draw.{random_draws.DRAW}"
BUCKETS: Final = "~buckets.callers"
REGISTRY: Final = shards()[0]
GROUP: Final = "mail"
PROCESSES_MAX: Final = 3
_COMMANDS: Final = (60, 200, 400, 800)
_COMMANDS_OF: Final = {"memory": (300, 800, 1_200, 1_600)}
"""Commands to the office of a seed, by store."""
_PATIENCE: Final = tuple(
    (timeout_ms, repetitions_max) for timeout_ms in (0, 0, 0, 0, 0, 0, 250, 2_000) for repetitions_max in (0, 1, 3)
)
"""Time-out and repetitions of a call."""
_INCIDENTS_OF: Final = dict.fromkeys((*STORE_CLOCK_INCIDENTS, "tail_lost"), (2, 4, 6))
"""Counts of an incident in a seed, by kind: higher if few seeds have the kind, or if other incidents prevent it."""
_INCIDENT_LENGTHS_MS: Final = (50, 200, 500, 1_000, 3_000, 20_000)
_HOUR_MS: Final = 3_600_000
_DRAW_STEP_MS: Final = 60
_VISITS_MAX: Final = 14
_LATE_STEPS: Final = 24
_LOAD_SPIKE_EVERY: Final = 8
"""Seeds from one with a load spike to the next."""


class Operation(msgspec.Struct, frozen=True):
    """A call of a caller.

    Attributes:
        number: its number in the schedule.
        at_ms: its virtual time.
        process: the process that makes it.
        address: the ledger; ``""`` for a visit.
        request: a command, a request, or the seed text of a visit.
        timeout_ms: the time that the call has; 0 for the store's own.
        repetitions_max: how often the caller repeats a call whose outcome is unknown.
    """

    number: int
    at_ms: int
    process: int
    address: str
    request: Any
    timeout_ms: int = 0
    repetitions_max: int = 0


class Incident(msgspec.Struct, frozen=True):
    """A fault that hits a process or a server.

    Attributes:
        number: its number in the schedule.
        at_ms: its virtual time.
        kind: one of :data:`quota_engine.fuzz.faults.INCIDENTS`.
        process: the process that it hits.
        lasts_ms: its length.
    """

    number: int
    at_ms: int
    kind: str
    process: int
    lasts_ms: int


class Schedule(msgspec.Struct, frozen=True):
    """All that a seed decides before the run.

    Attributes:
        store: ``memory``, ``lua`` or ``sql``.
        world: ``commands`` for the commands of all kinds of ledgers, ``visits`` for applicants of three offices, or
            ``load spike`` for many reserves of a few places.
        faults: the rates of faults.
        operations: the calls, by time.
        incidents: the incidents, by time.
    """

    store: str
    world: str
    faults: Faults
    operations: tuple[Operation, ...]
    incidents: tuple[Incident, ...]


def draw_schedule(seed: int, *, store: str = "", without: Collection[str] = (), size: int = 0) -> Schedule:
    """Draw the schedule of a seed.

    Args:
        seed: decides everything.
        store: the store; ``""`` lets the seed choose.
        without: faults and incidents that do not happen.
        size: the number of commands; 0 lets the seed choose.
    """
    random: Random = SeededRandom(f"quota_engine fuzz {seed}")
    drawn = random.choice(("memory", "lua", "sql"))
    chosen = store or drawn
    world = random.choice(("commands", "commands", "visits"))
    faults = Faults.draw(random, SeededRandom(f"quota_engine fuzz late copies {seed}"), without)
    callers = _Callers.draw(random, SeededRandom(f"quota_engine fuzz one by one {seed}"), chosen)
    if seed % _LOAD_SPIKE_EVERY == 3:
        world, calls = "load spike", callers.calls_of(_load_spike(random))
    elif world == "commands":
        calls = _commands(random, seed, callers, size or random.choice(_COMMANDS_OF.get(chosen, _COMMANDS)))
    else:
        calls = _visits(random, seed)
    calls.sort(key=itemgetter(0))
    operations = tuple(Operation(number, *call) for number, call in enumerate(calls))
    incidents = [*_incidents(random, operations)]
    if world == "commands":
        operations += tuple(_late_steps(SeededRandom(f"quota_engine fuzz late steps {seed}"), operations))
    if chosen == "lua":
        incidents += _slot_moves(SeededRandom(f"quota_engine fuzz slots {seed}"), operations, len(incidents))
    return Schedule(chosen, world, faults, operations, tuple(one for one in incidents if one.kind not in without))


def _late_steps(random: Random, operations: Sequence[Operation]) -> Iterator[Operation]:
    """Draw steps of reservations whose day is over, after all else, in half of the seeds.

    A separate stream decides, so that the rest of a seed does not depend on them. Random times seldom fall on the hours
    between a day's end and the time at which it is forgotten.
    """
    requests = [one.request for one in operations]
    commands = [command for one in requests for command in (one.commands if isinstance(one, ApplyMany) else (one,))]
    ids = [one.id for one in commands if isinstance(one, Reserve)]
    if random.random() < 0.5 or not ids:
        return
    at_ms = max(operations[-1].at_ms, terms().ends_at_ms - BEGINS_AT_MS + random.choice((0, 1, 1_000)))
    for number in range(len(operations), len(operations) + _LATE_STEPS):
        command = random.choice((Cancel, Cancel, CheckIn, MarkNoShow, Release, UndoAttendance))(random.choice(ids))
        yield Operation(number, at_ms, random.randrange(PROCESSES_MAX), OFFICE, command, 0, 3)


def _slot_moves(random: Random, operations: Sequence[Operation], number: int) -> Iterator[Incident]:
    """Draw moves of slots, in one of four seeds. A separate stream decides, so that no other seed changes."""
    if random.random() < 0.75 or not operations:
        return
    for index in range(random.choice((4, 12, 40))):
        at_ms = random.choice(operations).at_ms + random.choice((0, 1, 3, 50))
        yield Incident(number + index, at_ms, "slot_moved", 0, random.choice((10, 1_000, 20_000)))


def _incidents(random: Random, operations: Sequence[Operation]) -> Iterator[Incident]:
    """Draw incidents: some seeds have none, some have many at a time.

    An incident of the store's clock takes from a run what depends on the real time, so half of the seeds have none.
    """
    if random.random() < 0.25 or not operations:
        return
    sets_clocks = random.random() < 0.5
    storm_at_ms = random.choice(operations).at_ms if random.random() < 0.3 else -1
    number = 0
    for kind in INCIDENTS:
        if random.random() < 0.4 or (kind in STORE_CLOCK_INCIDENTS and not sets_clocks):
            continue
        for _ in range(random.choice(_INCIDENTS_OF.get(kind, (1, 1, 2, 4)))):
            if storm_at_ms >= 0:
                at_ms = storm_at_ms + random.randrange(2_000)
            else:
                at_ms = random.choice(operations).at_ms + random.choice((0, 1, 3, 50))
            yield Incident(number, at_ms, kind, random.randrange(PROCESSES_MAX), random.choice(_INCIDENT_LENGTHS_MS))
            number += 1


_Call = tuple[int, int, str, Any, int, int]
"""The fields of an operation but its number."""


class _Callers(NamedTuple):
    """The behavior of the callers of a run.

    Attributes:
        random: decides.
        processes: the processes that make calls. Calls of one process share batches.
        burst: the number of commands to an office that come at the same time.
        together: the number of commands to an office in one call.
    """

    random: Random
    processes: int
    burst: int
    together: int

    @classmethod
    def draw(cls, random: Random, one_by_one: Random, store: str) -> _Callers:
        """Draw the behavior of a seed's callers. The memory store has no batches, so more of its calls are joined.

        Args:
            random: decides about processes, bursts and calls of several commands.
            one_by_one: makes some seeds send the commands one by one, which shows errors of a millisecond.
            store: the store.
        """
        together = (1, 8, 32, 64) if store == "memory" else (1, 16, 64)
        callers = cls(random, random.randint(1, PROCESSES_MAX), random.choice((1, 16, 32, 64)), random.choice(together))
        is_one_by_one = one_by_one.random() < (0.2 if store == "memory" else 0.12)
        return callers._replace(burst=1, together=1) if is_one_by_one else callers

    def calls_of(self, part: Iterable[tuple[int, str, Any]]) -> list[_Call]:
        """Draw the process, time-out and repetitions of each call of one ledger."""
        random, calls = self.random, []
        latest_ms = 0
        for at_ms, address, request in part:
            if at_ms > latest_ms:
                latest_ms = at_ms  # virtual time does not run backwards
            lot = int(random.random() * self.processes * len(_PATIENCE))
            process, patience = divmod(lot, len(_PATIENCE))
            calls.append((latest_ms, process, address, request, *_PATIENCE[patience]))
        return calls

    def joined(self, part: Iterable[tuple[int, str, Any]]) -> Iterator[tuple[int, str, Any]]:
        """Join commands to an office into bursts, and commands of a burst into calls."""
        if self.burst == self.together == 1:
            yield from part
            return
        left = iter(part)
        while burst := list(islice(left, max(self.burst, self.together))):
            at_ms = burst[0][0]
            commands: list[Any] = []
            for _, address, request in burst:
                if self.together == 1 or isinstance(request, GuardedCommand):
                    yield at_ms, address, request
                    continue
                commands.append(request)
                if len(commands) == self.together:
                    yield at_ms, address, ApplyMany(address, tuple(commands))
                    commands = []
            if commands:
                yield at_ms, address, ApplyMany(address, tuple(commands))


def _commands(random: Random, seed: int, callers: _Callers, count: int) -> list[_Call]:
    """Draw commands to ledgers of some of the kinds."""
    parts: list[Iterator[tuple[int, str, Any]]] = [callers.joined(_office_commands(random, seed, count))]
    others: tuple[Callable[[Random, int], Iterator[tuple[int, str, Any]]], ...] = (
        _room_commands,
        _draw_commands,
        _bucket_commands,
        _registry_commands,
    )
    parts += [make(random, seed) for make in others if random.random() < 0.4]
    if random.random() < 0.5:
        parts.append(_questions(random, count // 10))
    return [call for part in parts for call in callers.calls_of(part)]


def _load_spike(random: Random) -> Iterator[tuple[int, str, Any]]:
    """Draw rounds of many reserves for a quota of two units, of releases, and of late reserves.

    A client that remembers for too long that the quota is sold out refuses the late ones wrongly.
    """
    at_ms, number = OPENS_AT_MS - BEGINS_AT_MS, 0
    for _ in range(random.choice((2, 4, 8))):
        for gaps_ms, count in (((0, 0, 1, 20), random.choice((10, 40))), ((400, 2_000), random.randrange(6))):
            for _ in range(count):
                at_ms, number = at_ms + random.choice(gaps_ms), number + 1
                yield at_ms, OFFICE, reserve(f"r{number}", ONLINE, f"p{number}")
                if random.random() < 0.1:
                    yield at_ms, OFFICE, Confirm(f"r{max(0, number - random.randrange(12))}")
            at_ms += random.choice((100, 500))
            for recent in range(max(0, number - count), number + 1):  # any of them may have a place
                yield at_ms, OFFICE, random.choice((Release, Release, Cancel))(f"r{recent}")
            if random.random() < 0.3:
                yield at_ms, OFFICE, SetCapacity(DAY, "online", random.choice((0, 1, 2, 4)))
            at_ms += random.choice((1, 300))


def _office_commands(random: Random, seed: int, count: int) -> Iterator[tuple[int, str, Any]]:
    guards = random.random() < 0.3
    for now_ms, command in random_commands(seed, count, SeededRandom):
        request: Any = command
        if guards and isinstance(command, EnteringCommand) and random.random() < 0.7:
            request = _guarded(random, command, now_ms)
        yield now_ms - BEGINS_AT_MS, OFFICE, request


def _guarded(random: Random, command: Any, now_ms: int) -> GuardedCommand:
    applicants = command.applicants if isinstance(command, Reserve | MoveIn) else ()
    limits = (per_minute(30, 3), per_second(7, 2), Limit(999_983, 1000, 1), at_most(2, per_second))
    names = random.sample(("account", "network", *applicants), random.choice((0, 1, 2)))
    charges = tuple(
        Charge(name, random.choice(limits), 1, random.random() < 0.2, random.random() < 0.2) for name in names
    )
    used = AdmissionPass(
        f"p{random.randrange(40)}", now_ms + random.choice((0, 1, 60_000, _HOUR_MS)), random.random() < 0.2
    )
    return GuardedCommand(command, charges, used if random.random() < 0.7 else None)


def _room_commands(random: Random, seed: int) -> Iterator[tuple[int, str, Any]]:
    shift_ms = OPENS_AT_MS - random_rooms.OPENS_AT_MS
    own_random = SeededRandom(f"quota_engine fuzz room {seed}")
    walk = list(_room_visits(own_random) if own_random.random() < 0.5 else random_rooms.walk(seed))
    # A walk often creates its room after its opening, where it is refused. So the first one comes before all else.
    first = next((one for one, _ in walk if isinstance(one, CreateRoom)), None)
    if first is not None:
        walk.insert(0, (first, BEGINS_AT_MS - shift_ms))
    for command, now_ms in walk:
        if isinstance(command, CreateRoom):
            config = command.config
            times = ("join_opens_at_ms", "opens_at_ms", "closes_at_ms", "forget_at_ms")
            command = CreateRoom(replace(config, **{name: getattr(config, name) + shift_ms for name in times}))
        yield now_ms + shift_ms - BEGINS_AT_MS, ROOM, command
        if random.random() < 0.2:
            yield now_ms + shift_ms - BEGINS_AT_MS, ROOM, Query(ROOM, random.choice(random_rooms.QUESTIONS))


def _room_visits(random: Random) -> Iterator[tuple[Any, int]]:
    """Draw visits of a room: applicants join before and after its opening, and tickets are called until it closes.

    Some turns end before their applicant comes.
    """
    step_ms = random.choice((500, 1_000, 3_000))
    opens_at_ms = random_rooms.OPENS_AT_MS
    yield (
        CreateRoom(
            random_rooms.terms(
                join_opens_at_ms=opens_at_ms - 100_000,
                closes_at_ms=opens_at_ms + 400_000,
                tickets_max=random.choice((5, 100)),
                window_ms=random.choice((1_000, 10_000)),
                step_ms=step_ms,
                turn_ms=step_ms * random.choice((1, 4, 18)),
                pass_grace_ms=random.choice((1_000, 6_000)),
                per_minute_min=60,
                per_minute_max=6_000,
                burst=300,
            )
        ),
        opens_at_ms - 110_000,
    )
    applicants = [f"{number:032x}" for number in range(random.choice((4, 12, 40)))]
    for number, applicant in enumerate(applicants):
        yield JoinRoom(applicant), opens_at_ms - 90_000 + number * random.choice((1, 2_000))
    yield OpenRoom(random_rooms.SEED), opens_at_ms
    now_ms = opens_at_ms
    for _ in range(random.choice((10, 40))):
        now_ms += random.choice((0, step_ms, step_ms, 5 * step_ms))
        if random.random() < 0.3:
            yield JoinRoom(random.choice(applicants)), now_ms
        else:
            yield CallTickets(random.choice((60, 6_000)), random.choice((1, 5, 1_000)), random.choice((-1, 20))), now_ms


def _draw_commands(random: Random, seed: int) -> Iterator[tuple[int, str, Any]]:
    for now_ms, command in random_draws.walk(SeededRandom(f"draw {seed}")):
        request: Any = command
        if isinstance(command, CreateDraw):
            config = command.config
            times = ("opens_at_ms", "closes_at_ms", "forget_at_ms")
            request = CreateDraw(
                replace(config, **{name: BEGINS_AT_MS + getattr(config, name) * _DRAW_STEP_MS for name in times})
            )
        yield now_ms * _DRAW_STEP_MS, DRAW, request
        if random.random() < 0.2:
            yield now_ms * _DRAW_STEP_MS, DRAW, Query(DRAW, random.choice(random_draws.QUESTIONS))


def _bucket_commands(random: Random, _: int) -> Iterator[tuple[int, str, Any]]:
    limits = (per_second(7, 3), per_second(999_983, 40), per_minute(10, 2), at_most(3, per_second))
    at_ms = 0
    for _ in range(random.choice((20, 60))):
        at_ms += random.choice((0, 0, 1, 10, 150, 5_000))
        keys = random.sample(range(5), random.choice((1, 1, 2)))
        charges = tuple(Charge(f"k{key}", limits[key % 4], random.randint(1, limits[key % 4].burst)) for key in keys)
        if random.random() < 0.05:
            yield at_ms, BUCKETS, ResetTokens(tuple(charge.name for charge in charges))
        else:
            yield at_ms, BUCKETS, TakeTokens(charges, random.random() < 0.5)


def _registry_commands(random: Random, _: int) -> Iterator[tuple[int, str, Any]]:
    applicants, references = tuple(f"p{number}" for number in range(30)), ("a~1", "a~2", "b~1", "c~1")
    at_ms = 0
    for number in range(1, random.choice((30, 90))):
        at_ms += random.choice((0, 0, 1, 3, 10, 60, 2_000))
        now_ms = BEGINS_AT_MS + at_ms
        recent = max(1, number - random.randrange(1, 12) - number // 3)
        lease_ms, forget_at_ms = random.choice((1, 5, 20, 900)), now_ms + random.choice((-3, 1, 8, 40, 2_000))
        applicant, reference, other = random.choice(applicants), random.choice(references), random.choice(references)
        lot = random.randrange(11)
        request: Any
        if lot < 4:
            secondary = random.choice(("", "", other))
            request = Claim(applicant, reference, lease_ms, forget_at_ms, random.choice((0, 0, recent)), secondary)
        elif lot < 6:
            request = Drop(applicant, recent) if random.random() < 0.6 else Drop(applicant, reference=reference)
        elif lot < 8:
            request = OpenMove(reference, other, random.randint(1, 3), lease_ms, forget_at_ms)
        elif lot < 10:
            request = CloseMove(reference, other, lot == 8, random.choice((0, recent)))
        else:
            request = Query(REGISTRY, FindClaims((applicant,)))
        yield at_ms, REGISTRY, request


def _questions(random: Random, count: int) -> Iterator[tuple[int, str, Any]]:
    """Draw lookups, views, and the reads of a consumer group."""
    at_ms = OPENS_AT_MS - BEGINS_AT_MS
    for _ in range(count):
        at_ms += random.choice((0, 1, 500, 20_000))
        lot = random.random()
        if lot < 0.3:
            yield at_ms, OFFICE, Lookup(OFFICE, f"r{random.randrange(60)}")
        elif lot < 0.6:
            yield at_ms, OFFICE, View(OFFICE, (random.choice((DAY, NEXT_DAY)),))
        elif lot < 0.85:
            consumer = f"worker-{random.randrange(2)}"
            yield at_ms, OFFICE, ReadConsumerGroup(OFFICE, GROUP, consumer, random.choice((1, 5, 40)), 10_000)
        else:
            first = random.randrange(1, 60)
            yield at_ms, OFFICE, Acknowledge(OFFICE, GROUP, tuple(range(first, first + random.randrange(1, 30))))


def _visits(random: Random, seed: int) -> list[_Call]:
    """Draw visits of applicants to three offices, an operator's work, and calls that finish broken moves."""
    at_ms = 0
    calls: list[_Call] = []
    for number in range(random.randint(3, _VISITS_MAX)):
        at_ms += random.choice((0, 0, 5, 400, 3_000, 30_000))
        kind = random.choices(("visit", "operate", "recover"), (10, 3, 2))[0]
        calls.append((at_ms, random.randrange(PROCESSES_MAX), "", f"{kind} {seed} {number}", 0, 0))
    return calls
