"""Runs the schedule of a seed, lets everything come to rest, and checks it."""

from __future__ import annotations

__all__ = ["SeedReport", "run_schedule", "run_seed"]

import asyncio
import gc
import logging
from collections import Counter
from collections.abc import Awaitable, Collection, Mapping
from functools import partial
from random import Random
from typing import Any, Final

import msgspec

from quota_engine.clocks import MARGIN_MS, monotonic_from
from quota_engine.conformance.world import DAY, NEXT_DAY, OFFICE, published
from quota_engine.domain.commands import Expire
from quota_engine.domain.errors import BackendUnavailable, InvalidRequest, OutcomeUnknown
from quota_engine.engine.bounded_store import AsyncBoundedStore
from quota_engine.fuzz.backends import (
    SimulatedMemory,
    SimulatedRedis,
    SimulatedSql,
    SimulatedStore,
    VirtualClock,
    entries_decoded_once,
)
from quota_engine.fuzz.faults import LATE_MS_MAX, NO_FAULTS, FaultSource, late_delay_ms
from quota_engine.fuzz.lua_server import LuaServer
from quota_engine.fuzz.network import Client
from quota_engine.fuzz.recording import calls_of, event_of, note_answers
from quota_engine.fuzz.reference import Reference, StepCheck
from quota_engine.fuzz.schedule import BEGINS_AT_MS, PROCESSES_MAX, Incident, Operation, Schedule, draw_schedule
from quota_engine.fuzz.seeded_random import SeededRandom
from quota_engine.fuzz.virtual_loop import VirtualLoop
from quota_engine.fuzz.visits import VISITS_BEGIN_AT_MS, VisitWorld, insist
from quota_engine.history.checker import History, Loss, check
from quota_engine.history.files import dump
from quota_engine.ledger_kinds import OFFICE as OFFICE_KIND
from quota_engine.ledger_kinds import kind_of
from quota_engine.ports import ApplyMany, RecordedEvent, StoreRequest

_log = logging.getLogger("quota_engine")
_HALF_A_YEAR_MS: Final = 182 * 86_400_000
_SETTLES_MS: Final = 1_000 + MARGIN_MS
"""The longest time for which a cancelled call may still take effect: that of an attempt of the Redis store."""
_EXPIRE_ROUNDS_MAX: Final = 40


class SeedReport(msgspec.Struct, frozen=True):
    """The result of one seed.

    Attributes:
        seed: the seed.
        store, world: as in the schedule.
        operations: commands and questions that the store carried out and the pure machine repeated.
        calls: calls of the callers.
        faults: how often each fault happened.
        violations: a sentence for each thing that should not have happened.
        lines: the calls and events as text, in order, if the history was kept.
        history: the same as lines of a history file.
    """

    seed: int
    store: str
    world: str
    operations: int
    calls: int
    faults: dict[str, int]
    violations: tuple[str, ...]
    lines: tuple[str, ...] = ()
    history: tuple[str, ...] = ()


_lua_servers: list[LuaServer] = []


def run_seed(
    seed: int,
    *,
    store: str = "",
    without: Collection[str] = (),
    only: Collection[int] | None = None,
    step_check: StepCheck | None = None,
    keeps_history: bool = False,
) -> SeedReport:
    """Run the simulation of one seed. The same arguments always have the same report.

    Args:
        seed: decides everything that happens.
        store: ``memory``, ``lua`` or ``sql``; ``""`` lets the seed choose.
        without: faults and incidents that do not happen.
        only: numbers of the operations that happen; ``None`` for all.
        step_check: another model beside the machine.
        keeps_history: True for a report with the lines of a history file.
    """
    schedule = draw_schedule(seed, store=store, without=without)
    if only is not None:
        kept = tuple(one for one in schedule.operations if one.number in only)
        schedule = msgspec.structs.replace(schedule, operations=kept)
    return run_schedule(seed, schedule, step_check, keeps_history=keeps_history)


def run_schedule(
    seed: int, schedule: Schedule, step_check: StepCheck | None = None, *, keeps_history: bool = False
) -> SeedReport:
    """Run a schedule. ``seed`` decides about what the schedule leaves open; arguments as for :func:`run_seed`."""
    was_enabled = gc.isenabled()
    gc.disable()  # a run makes many small objects that all die with it
    log_level = _log.level
    _log.setLevel(logging.CRITICAL)  # faults would fill the log
    try:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            loop = runner.get_loop()
            assert isinstance(loop, VirtualLoop)
            with monotonic_from(partial(getattr, loop, "now_s")), entries_decoded_once():
                return runner.run(_Run(loop, seed, schedule, step_check, keeps_history=keeps_history).run())
    except Exception as error:
        return SeedReport(seed, schedule.store, schedule.world, 0, 0, {}, (f"the run broke off: {error!r}",))
    finally:
        _log.setLevel(log_level)
        if was_enabled:
            gc.enable()


class _Process:
    """A process with its own clock, connections and store. It may die, and begin again with another store."""

    def __init__(self, backend: SimulatedStore, loop: VirtualLoop, epoch_ms: int) -> None:
        self._backend = backend
        self.clock = VirtualClock(loop, epoch_ms)
        self._tasks: dict[int, tuple[asyncio.Task[None], Operation]] = {}
        self.begin()

    def begin(self) -> None:
        """Begin, or begin again, with nothing in memory."""
        self.is_dead = False
        self.client = Client()
        self.store = self._backend.open(self.client, self.clock)

    def add(self, task: asyncio.Task[None], operation: Operation) -> None:
        """Note the task of an operation."""
        self._tasks[operation.number] = task, operation

    def open_tasks(self) -> list[tuple[asyncio.Task[None], Operation]]:
        """Return the tasks that have not ended, with their operations."""
        self._tasks = {number: one for number, one in self._tasks.items() if not one[0].done()}
        return list(self._tasks.values())


class _Run:
    """One run."""

    def __init__(
        self, loop: VirtualLoop, seed: int, schedule: Schedule, step_check: StepCheck | None, *, keeps_history: bool
    ) -> None:
        self._keeps_history = keeps_history
        self._loop = loop
        self._seed = seed
        self._schedule = schedule
        self._faults = FaultSource(SeededRandom(f"quota_engine fuzz faults {seed}"))
        self._reference = Reference(step_check)
        self._is_visits = schedule.world == "visits"
        self._epoch_ms = VISITS_BEGIN_AT_MS if self._is_visits else BEGINS_AT_MS
        self._backend = self._make_backend(SeededRandom(f"quota_engine fuzz store {seed}"))
        self._processes = [_Process(self._backend, loop, self._epoch_ms) for _ in range(PROCESSES_MAX)]
        self._history = History()
        self._archive: dict[str, list[dict[str, Any]]] = {}
        self._unanswered: set[int] = set()
        self._is_losing = False
        self._servers = 0
        self._visits = VisitWorld(seed, self._reference.violations) if self._is_visits else None
        self._calls = 0

    def _make_backend(self, random: Random) -> SimulatedStore:
        loop, faults, reference = self._loop, self._faults, self._reference
        match self._schedule.store:
            case "memory":
                return SimulatedMemory(loop, faults, reference, self._epoch_ms)
            case "lua":
                lua = _lua_servers.pop() if _lua_servers else LuaServer(is_fast=True)
                lua.clear()
                lua.replication_id = "a" * 40
                self._lua = lua
                backend = SimulatedRedis(loop, faults, reference, self._epoch_ms, lua, random)
                if any(one.kind == "slot_moved" for one in self._schedule.incidents):
                    backend.make_cluster(Random(f"quota_engine fuzz slot moves {self._seed}"))
                return backend
            case "sql":
                return SimulatedSql(loop, faults, reference, self._epoch_ms, random)
        raise InvalidRequest("store", self._schedule.store, "memory, lua or sql")

    async def run(self) -> SeedReport:
        """Publish, let the callers act, heal, and check."""
        if self._visits is not None:
            await self._visits.publish(self._processes[0].store)
        else:
            await self._processes[0].store.execute(ApplyMany(OFFICE, published(abandoned_holds_max=0)))
        self._faults.set_rates(self._schedule.faults)
        incidents = [self._loop.create_task(self._strike(one)) for one in self._schedule.incidents]
        last_ms = 0
        for one in self._schedule.operations:
            last_ms = max(last_ms, one.at_ms)
            self._loop.call_at(one.at_ms / 1000, self._start, one)
        await self._wait_until(last_ms)
        await self._rest(incidents)
        report = await self._check()
        await _end_tasks()
        if isinstance(self._backend, SimulatedRedis):
            _lua_servers.append(self._lua)
        return report

    async def _wait_until(self, at_ms: int) -> None:
        delay_ms = at_ms - self._loop.now_ms()
        if delay_ms > 0:
            await asyncio.sleep(delay_ms / 1000)

    # ------------------------------------------------------------------ operations

    def _start(self, operation: Operation) -> None:
        process = self._processes[operation.process]
        self._unanswered.add(operation.number)
        process.add(self._loop.create_task(self._perform(process, operation)), operation)

    async def _perform(self, process: _Process, operation: Operation) -> None:
        """Carry an operation out. An error that no caller expects is a violation."""
        try:
            if self._visits is not None:
                self._calls += await self._visits.execute(process.store, self._faults, operation)
            else:
                # A caller repeats its call a few times while the outcome is not known.
                for _ in range(1 + operation.repetitions_max):
                    if await self._call(process, operation):
                        break
        except Exception as error:
            self._reference.violations.append(f"operation {operation.number} ended with {error!r}")
        self._unanswered.discard(operation.number)

    async def _call(self, process: _Process, operation: Operation) -> bool:
        """Make one call and note it; returns False if its outcome is unknown, and the caller should repeat it."""
        self._calls += 1
        client, request, now_ms = process.client, operation.request, self._loop.now_ms
        calls = calls_of(operation.address, request, int(now_ms()) - self._backend.sold_out_ms)
        self._history.calls += calls
        answering: Awaitable[Any] = self._send(process, operation)
        if self._faults.happens("cancelled"):
            answering = task = asyncio.ensure_future(answering)
            self._loop.call_later(late_delay_ms(self._faults.random) / 1000, task.cancel)
        settles_ms, is_known = 0, True
        for call in calls:
            call.is_unknown = True
        try:
            answer = await answering
            if calls:
                note_answers(request, calls, answer)
        except (BackendUnavailable, InvalidRequest):
            pass
        except OutcomeUnknown:
            is_known = False
            # A commit in transit when the call ends is beyond the reach of a SQL store.
            settles_ms = LATE_MS_MAX if self._schedule.store == "sql" else 0
        except asyncio.CancelledError:
            current = asyncio.current_task()
            # A caller may also give up a call that came while its process was dead: that caller does not come back.
            if client.is_dead and current is not None and current.cancelling():
                for call in calls:
                    call.ended_at_ms = int(now_ms()) + _SETTLES_MS + 2 * LATE_MS_MAX
                raise
            settles_ms = _SETTLES_MS + (LATE_MS_MAX if self._schedule.store == "sql" else 0)
            is_known = False
        ended_at_ms = int(now_ms()) + settles_ms
        for call in calls:
            call.is_unknown, call.ended_at_ms = not is_known, ended_at_ms
        return is_known

    def _send(self, process: _Process, operation: Operation) -> Awaitable[Any]:
        store, request = process.store, operation.request
        if operation.timeout_ms:
            store = AsyncBoundedStore(store, self._loop.now_ms() + operation.timeout_ms)
        answering: Awaitable[Any]
        if isinstance(request, StoreRequest):
            answering = store.execute(request)
        else:
            answering = store.apply(operation.address, request)
        return answering

    # ------------------------------------------------------------------ incidents

    async def _strike(self, incident: Incident) -> None:
        """Let an incident happen at its time, and end it."""
        if incident.kind == "tail_lost" and (self._is_visits or not self._backend.loses_tails):
            return
        await self._wait_until(incident.at_ms)
        if incident.kind == "slot_moved":
            self._faults.fired["slot_moved"] += await self._backend.move_slot(incident.lasts_ms)
            return
        backend, process = self._backend, self._processes[incident.process]
        if (incident.kind == "tail_lost" and self._is_losing) or (incident.kind == "client_died" and process.is_dead):
            return  # a replica cannot be behind the one that has taken over, and a dead process cannot die
        if incident.kind != "tail_lost":
            self._faults.fired[incident.kind] += 1
        sign = 1 if incident.number % 2 else -1
        half_a_year_ms = _HALF_A_YEAR_MS if self._seed % 2 else -_HALF_A_YEAR_MS
        match incident.kind:
            case "client_died":
                await self._kill(process, incident.lasts_ms)
            case "server_restarted":
                self._servers += 1
                backend.restart()
            case "server_unreachable":
                backend.set_down(is_down=True)
                await asyncio.sleep(incident.lasts_ms / 1000)
                backend.set_down(is_down=False)
            case "failed_over":
                backend.set_down(is_down=True)
                await asyncio.sleep(min(incident.lasts_ms, 3_000) / 1000)
                self._servers += 1
                backend.fail_over()
                backend.set_down(is_down=False)
            case "tail_lost":
                self._is_losing = True
                saved, servers = backend.save(), self._servers
                await asyncio.sleep(incident.lasts_ms / 1000)
                # A copy from before the last server's epoch is refused until an operator reconciles it.
                if servers == self._servers and backend.may_lose_tail(saved):
                    self._faults.fired["tail_lost"] += 1
                    self._lose(saved)
                self._is_losing = False
            case "clock_set_forward" | "clock_set_back" | "clock_leapt":
                self._history.clock_is_real = False
                lengths = {"clock_set_forward": 3_600_000, "clock_set_back": -3_600_000}
                backend.set_clock(self._epoch_ms + lengths.get(incident.kind, half_a_year_ms))
                await asyncio.sleep(incident.lasts_ms / 1000)
                backend.set_clock(self._epoch_ms)
            case "client_clock_wrong":
                process.clock.epoch_ms = self._epoch_ms + sign * 3_600_000
                await asyncio.sleep(incident.lasts_ms / 1000)
                process.clock.epoch_ms = self._epoch_ms
            case "client_clock_leapt":
                # Never in the direction of the store's clock: then no clock would be right.
                process.clock.epoch_ms = self._epoch_ms - half_a_year_ms
                await asyncio.sleep(incident.lasts_ms / 1000)
                process.clock.epoch_ms = self._epoch_ms

    async def _kill(self, process: _Process, lasts_ms: int) -> None:
        """Kill a process between any two steps. Its callers come back with the same keys."""
        client = process.client
        client.is_dead = process.is_dead = True
        self._loop.call_later(late_delay_ms(self._faults.random) / 1000, self._backend.notice_death, client)
        orphans = process.open_tasks()
        for task, _ in orphans:
            task.cancel()
        await asyncio.sleep(lasts_ms / 1000)
        late = process.open_tasks()  # calls that came while it was dead
        for task, _ in late:
            task.cancel()
        process.begin()
        for operation in {one.number: one for _, one in (*orphans, *late)}.values():
            if operation.number in self._unanswered:
                self._start(operation)

    def _lose(self, saved: Any) -> None:
        """Lose the last changes of all ledgers."""
        now_ms = int(self._loop.now_ms())
        office = OFFICE
        self._archive.setdefault(office, [])
        self._archive_events(office, self._reference.ledger(office).events)
        self._backend.lose_tail(saved)
        kept = len(self._reference.ledger(office).events)
        self._history.losses.append(Loss(office, kept, now_ms))
        times = self._backend.event_times.get(office, [])
        del times[kept:]

    def _archive_events(self, office: str, events: list[Any]) -> None:
        known = self._history.losses[-1].number if self._history.losses else 0
        times = self._backend.event_times.get(office, [])
        for number in range(known + 1, len(events) + 1):
            real_ms = times[number - 1] if number <= len(times) else int(self._loop.now_ms())
            self._archive[office].append(event_of(RecordedEvent(number, events[number - 1]), real_ms))

    # ------------------------------------------------------------------ the end

    async def _rest(self, incidents: list[asyncio.Task[None]]) -> None:
        """Let the faults heal, and wait until nothing is in flight and no hold is overdue."""
        await asyncio.gather(*incidents)
        self._faults.set_rates(NO_FAULTS)
        for _ in range(20):
            tasks = [task for process in self._processes for task, _ in process.open_tasks()]
            if not tasks:
                break
            await asyncio.wait(tasks, timeout=30)
        await asyncio.sleep(4 * LATE_MS_MAX / 1000)
        if not self._history.clock_is_real:
            await asyncio.sleep(2 * 3_600)  # the ledgers' time does not run backwards: it waits for the clock
        if self._visits is not None:
            await self._visits.rest(self._processes[0].store)
        else:
            for day in (DAY, NEXT_DAY):
                expire = partial(self._processes[0].store.apply, OFFICE, Expire(day, 100))
                for _ in range(_EXPIRE_ROUNDS_MAX):
                    outcome = await insist(expire)
                    if not outcome.units:
                        break

    async def _check(self) -> SeedReport:
        violations = self._reference.violations
        if self._unanswered:
            violations.append(f"{len(self._unanswered)} callers have no answer: {sorted(self._unanswered)[:5]}")
        for index, process in enumerate(self._processes):
            violations += [f"process {index}: {finding}" for finding in _leftovers(process.store)]
        backend = self._backend
        for address in sorted(self._reference.ledgers):
            if not (isinstance(backend, SimulatedRedis) and backend.is_repaired(address)):
                self._reference.compare(address, await backend.describe(address))
            if kind_of(address) is OFFICE_KIND:
                violations += [f"{address}: audit: {finding}" for finding in await backend.audit(address)]
                await self._read_events(address)
        if self._visits is not None:
            violations += self._visits.findings(self._reference)
        violations += check(self._history)
        for process in self._processes:
            await process.store.close()
        faults = Counter(self._faults.fired)
        if isinstance(backend, SimulatedRedis) and backend.late:
            faults["late_copy_refused"] += backend.late
        return SeedReport(
            self._seed,
            self._schedule.store,
            self._schedule.world,
            self._reference.operations,
            self._calls,
            dict(sorted(faults.items())),
            tuple(violations),
            self._history_lines() if self._keeps_history else (),
            tuple(dump(self._history)) if self._keeps_history else (),
        )

    def _history_lines(self) -> tuple[str, ...]:
        lines = [*map(str, self._history.calls)]
        for events in self._history.events.values():
            lines += map(_text_of, events)
        return tuple(sorted(lines))

    async def _read_events(self, office: str) -> None:
        recorded = await self._backend.events(office)
        times = self._backend.event_times.get(office, [])
        kept = [loss for loss in self._history.losses if loss.office == office]
        known = kept[-1].number if kept else 0
        last = int(self._loop.now_ms())
        self._history.events[office] = [
            *self._archive.get(office, []),
            *(event_of(one, times[one.number - 1] if one.number <= len(times) else last) for one in recorded[known:]),
        ]


async def _end_tasks() -> None:
    """End the tasks of dead processes, which wait forever. The end of one may begin another."""
    while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def _leftovers(store: Any) -> list[str]:
    """Return what a store still has in its queues."""
    found = []
    calls = getattr(store, "_calls", 0)
    if calls:
        found.append(f"{calls} calls are in flight")
    for key, queue in getattr(store, "_queues", {}).items():
        if not queue.is_idle():
            found.append(f"the queue of {key} is not empty")
    return found


def _text_of(event: Mapping[str, Any]) -> str:
    record = event.get("reservation")
    what = f"{event['verb']} of {record['reference']} version {record['version']}" if record else event["kind"]
    return f"{event['real_ms']}: event {event['number']} at {event['at_ms']}: {what}"
