"""The simulated stores of a run: memory, the Lua of Redis and Valkey, and the SQL stores' transactions.

Each backend opens stores for processes, and applies what happened to the reference as well. It can be restarted, cut
off, set to another time, and brought back to an earlier state.
"""

from __future__ import annotations

__all__ = [
    "SimulatedMemory",
    "SimulatedRedis",
    "SimulatedSql",
    "SimulatedStore",
    "VirtualClock",
    "entries_decoded_once",
]

import abc
import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, Final

from quota_engine.clocks import monotonic_ms
from quota_engine.fuzz.faults import FaultSource
from quota_engine.fuzz.lua_server import LuaServer
from quota_engine.fuzz.lua_store import LuaStore
from quota_engine.fuzz.memory_server import MemoryServerStore
from quota_engine.fuzz.network import Client, VirtualNetwork
from quota_engine.fuzz.reference import Reference
from quota_engine.fuzz.script_server import ScriptServer
from quota_engine.fuzz.slot_moves import NODES, SlotMoves
from quota_engine.fuzz.sql_database import Run, RunRecorder, SqlDatabase, SqlSessions
from quota_engine.fuzz.virtual_loop import VirtualLoop
from quota_engine.ledger_kinds import OFFICE, kind_of
from quota_engine.ports import ApplyMany, Audit, Describe, Lookup, ReadEvents, RecordedEvent, View
from quota_engine.stores.batching import BatchLimits
from quota_engine.stores.call_end import CallEnd
from quota_engine.stores.memory import MemoryStore
from quota_engine.stores.redis.async_store import AsyncRedisStore
from quota_engine.stores.redis.codecs.buckets import buckets_of_state
from quota_engine.stores.redis.keys import BUCKET_KEY_NAMES, keys_of
from quota_engine.stores.redis.ledger_formats import format_of
from quota_engine.stores.redis.retrying_calls import Fence, RetryPolicy, Router
from quota_engine.stores.redis.routing import ClusterRouter
from quota_engine.stores.redis.scripts import (
    BUCKET_STATE,
    RECONCILE,
    TAKE_OVER_BUCKETS,
    TAKE_OVER_DRAW,
    TAKE_OVER_REGISTRY,
    TAKE_OVER_ROOM,
    Script,
)
from quota_engine.stores.redis.sold_out_cache import SoldOutCache
from quota_engine.stores.redis.store_base import QueueKey
from quota_engine.stores.sql import office_codec
from quota_engine.stores.sql.async_store import AsyncSqlStore
from quota_engine.stores.sql.requests import Call as SqlCall
from quota_engine.stores.sql.requests import command_call
from quota_engine.stores.sql.transactions import Attempts

_REPAIRS: Final = frozenset(
    one.sha1 for one in (RECONCILE, TAKE_OVER_BUCKETS, TAKE_OVER_DRAW, TAKE_OVER_REGISTRY, TAKE_OVER_ROOM)
)
_EVENTS_MAX: Final = 10**6
_COMPARED_EVERY: Final = 96
"""Commands from one comparison of a whole ledger to the next: it costs as much as some 20 scripts."""


class VirtualClock:
    """A wall clock on the virtual time.

    Attributes:
        epoch_ms: its time at the virtual time 0; setting it sets the clock.
    """

    __slots__ = ("_loop", "epoch_ms")

    def __init__(self, loop: VirtualLoop, epoch_ms: int) -> None:
        self._loop = loop
        self.epoch_ms = epoch_ms

    def now_ms(self) -> int:
        """Return the time in milliseconds since 1970."""
        return self.epoch_ms + int(self._loop.now_s * 1000)


class SimulatedStore(abc.ABC):
    """A simulated store.

    Attributes:
        reference: the pure machines beside it.
        loses_tails: True if a failover may lose the last changes.
        sold_out_ms: the time for which its clients may refuse a reserve from what they remember.
    """

    loses_tails = False
    sold_out_ms = 0

    def __init__(self, loop: VirtualLoop, faults: FaultSource, reference: Reference) -> None:
        self.loop = loop
        self.faults = faults
        self.reference = reference
        self.event_times: dict[str, list[int]] = {}
        """By office: the virtual times at which its events were written."""

    @abc.abstractmethod
    def open(self, client: Client, clock: VirtualClock) -> Any:
        """Open a store for a process with its own clock."""

    @abc.abstractmethod
    def set_clock(self, epoch_ms: int) -> None:
        """Set the store's clock."""

    @abc.abstractmethod
    def set_down(self, *, is_down: bool) -> None:
        """Cut the store off, or bring it back."""

    def notice_death(self, client: Client) -> None:  # noqa: B027 - most stores need not know
        """Learn that a process has died: its connections are gone."""

    def restart(self) -> None:  # noqa: B027 - the memory store's process lives as long as its memory
        """Restart the server. Acknowledged changes are on its disk."""

    async def move_slot(self, lasts_ms: int) -> bool:
        """Move a slot to another node of a cluster; returns False if none can move."""
        return False

    def fail_over(self) -> None:
        """Continue on another server."""
        self.restart()

    @abc.abstractmethod
    def save(self) -> Any:
        """Return a copy of the state, for :meth:`lose_tail`."""

    def may_lose_tail(self, saved: Any) -> bool:
        """Return True if processes accept a server that has only this earlier state."""
        return True

    @abc.abstractmethod
    def lose_tail(self, saved: Any) -> None:
        """Continue on a server that has only an earlier state."""

    @abc.abstractmethod
    async def describe(self, address: str) -> Any:
        """Return the whole state of a ledger."""

    @abc.abstractmethod
    async def events(self, office: str) -> list[RecordedEvent]:
        """Return the events of an office."""

    @abc.abstractmethod
    async def audit(self, office: str) -> list[str]:
        """Return the findings of an office's audit."""

    def note_events(self, office: str, last_number: int) -> None:
        """Note the time of the events up to this number."""
        times = self.event_times.get(office)
        if times is None:
            times = self.event_times[office] = []
        if last_number > len(times):
            times.extend([int(self.loop.now_ms())] * (last_number - len(times)))


class SimulatedMemory(SimulatedStore):
    """The memory store of one process, which others reach over a network."""

    def __init__(self, loop: VirtualLoop, faults: FaultSource, reference: Reference, epoch_ms: int) -> None:
        super().__init__(loop, faults, reference)
        self._clock = VirtualClock(loop, epoch_ms)
        self._memory = MemoryStore(self._clock, VirtualClock(loop, epoch_ms))
        self._is_down = False

    def open(self, client: Client, clock: VirtualClock) -> MemoryServerStore:
        """See :meth:`SimulatedStore.open`."""
        return MemoryServerStore(self.loop, self._memory, self.faults, client, lambda: self._is_down, self._applied)

    def _applied(self, address: str, command: Any, outcome: Any) -> None:
        self.reference.apply(address, command, self._clock.now_ms(), outcome)
        entry = self._memory._ledgers.get(address)  # noqa: SLF001
        if entry is not None and entry.kind is OFFICE:
            self.note_events(address, entry.last_number)

    def set_clock(self, epoch_ms: int) -> None:
        """See :meth:`SimulatedStore.set_clock`."""
        self._clock.epoch_ms = epoch_ms

    def set_down(self, *, is_down: bool) -> None:
        """See :meth:`SimulatedStore.set_down`."""
        self._is_down = is_down

    def save(self) -> None:
        """See :meth:`SimulatedStore.save`."""

    def lose_tail(self, saved: Any) -> None:
        """Do nothing: the memory store has no second server."""

    async def describe(self, address: str) -> Any:
        """See :meth:`SimulatedStore.describe`."""
        return self._memory.execute(Describe(address))

    async def events(self, office: str) -> list[RecordedEvent]:
        """See :meth:`SimulatedStore.events`."""
        return self._memory.execute(ReadEvents(office, 0, _EVENTS_MAX))

    async def audit(self, office: str) -> list[str]:
        """See :meth:`SimulatedStore.audit`."""
        return self._memory.execute(Audit(office))


class _RecordingRedisStore(AsyncRedisStore):
    """A store that reports its commands to the server's reference, by the lines in which they travel."""

    known: dict[tuple[str, str], Any]
    addresses: dict[str, str]

    def _queue_call(
        self, key: QueueKey, request: Any, line: str, end: CallEnd | None, *, watches: bool = False
    ) -> asyncio.Future[Any]:
        handle, _ = key
        self.addresses[handle.keys[0]] = handle.address
        self.known[handle.address, line] = request
        return super()._queue_call(key, request, line, end, watches=watches)

    async def execute(self, request: Any, *, ends_at_ms: float | None = None) -> Any:
        """See :meth:`AsyncRedisStore.execute`."""
        if isinstance(request, ApplyMany):
            handle = self._executor.handle(request.office)
            self.addresses[handle.keys[0]] = handle.address
            for command in request.commands:
                self.known[handle.address, handle.format.encode(command)] = command
        return await super().execute(request, ends_at_ms=ends_at_ms)


class SimulatedRedis(SimulatedStore):
    """A Redis server that runs the real scripts."""

    def __init__(
        self,
        loop: VirtualLoop,
        faults: FaultSource,
        reference: Reference,
        epoch_ms: int,
        lua: LuaServer,
        random: Random,
    ) -> None:
        super().__init__(loop, faults, reference)
        self._lua = lua
        self._server = ScriptServer(lua, self._on_script)
        self.network = VirtualNetwork(loop, self._server, faults, epoch_ms=epoch_ms, timeout_ms=1500)
        self._fence = random.choice((Fence.OFF, Fence.AUTO))
        self.loses_tails = self._fence is Fence.AUTO
        self._policy = RetryPolicy(
            attempts_max=random.randint(1, 6),
            attempt_valid_ms=random.choice((100, 1000, 1000)),
            fence=self._fence,
            functions=random.random() < 0.5,
        )
        self.network.attempt_valid_ms = self._policy.attempt_valid_ms
        self.sold_out_ms = random.choice((0, 0, 250))
        self._limits = BatchLimits(batch_max=random.choice((1, 8, 128, 128)), in_flight_max=random.choice((1, 4)))
        self.network.timeout_ms = random.choice(
            (150, 150, 1_500)
        )  # an attempt may run after the client has given it up
        self._known: dict[tuple[str, str], Any] = {}
        self._addresses: dict[str, str] = {}
        self._repaired: set[str] = set()
        self._event_keys: dict[str, str] = {}
        self._servers = 0
        self._compared_after = _COMPARED_EVERY

    def make_cluster(self, random: Random) -> None:
        """Answer as the nodes of a cluster do."""
        self.network.slots = SlotMoves(self._lua, random)

    async def move_slot(self, lasts_ms: int) -> bool:
        """See :meth:`SimulatedStore.move_slot`. The new node lacks the scripts."""
        slots = self.network.slots
        has_moved = slots is not None and await slots.move(lasts_ms)
        if has_moved:
            self._server.forget_scripts()
        return has_moved

    def open(self, client: Client, clock: VirtualClock) -> AsyncRedisStore:
        """See :meth:`SimulatedStore.open`."""
        store = _RecordingRedisStore(
            self.network.pool(client),
            router=Router() if self.network.slots is None else ClusterRouter(NODES[:2]),
            pool_to=lambda node: self.network.pool(client, node),
            policy=self._policy,
            limits=self._limits,
            sold_out_cache=SoldOutCache(self.sold_out_ms, lambda: monotonic_ms() / 1000),
            second_clock=clock,
        )
        store.known, store.addresses = self._known, self._addresses
        return store

    def _on_script(self, script: Script, keys: Sequence[str], arguments: Sequence[str], reply: list[Any]) -> None:
        """Apply what a script did to the reference as well."""
        address = self._addresses.get(keys[0]) if keys else None
        if address is None:
            return
        if script.sha1 in _REPAIRS:
            self._repaired.add(address)
            return
        ledger_format = format_of(address)
        is_question = script is ledger_format.queries
        lines = arguments[1:]
        if address in self._repaired and not is_question:
            self._adopt_after(address)
            return
        commands = [self._known.get((address, line)) for line in lines]
        if None in commands or len(reply) < len(lines):
            if not is_question and "no-writes" not in script.text.partition("\n")[0]:
                self._note(address)
            return
        decoder, now_ms = ledger_format.decoder(address), self._lua.time_ms
        for command, line in zip(commands, reply, strict=False):
            if is_question:
                self._ask(address, command, now_ms, decoder, line)
            else:
                self.reference.apply(address, command, now_ms, decoder.outcome(command, line))
        if not is_question:
            self._note(address)
            self._compared_after -= len(lines)
            if self._compared_after <= 0:
                self._compared_after = _COMPARED_EVERY
                self.reference.compare(address, LuaStore(None, self._lua).execute(Describe(address)))

    def _ask(self, address: str, question: Any, now_ms: int, decoder: Any, line: str) -> None:
        if address in self._repaired:
            return
        if kind_of(address) is not OFFICE:
            self.reference.ask(address, question, now_ms, decoder.answer(question, line))
        elif isinstance(question, Lookup | View):
            self.reference.ask_office(address, question, now_ms, decoder.answer(question, line))

    def _adopt_after(self, address: str) -> None:
        """Take over a repaired ledger, with the commands that this script has applied to it."""
        self._repaired.discard(address)
        self.reference.operations += 1
        admission: Any = None
        if kind_of(address) is OFFICE:
            scored, ticks = self._lua.run(BUCKET_STATE, keys_of("", address, BUCKET_KEY_NAMES), [])
            fields = dict(zip(ticks[::2], ticks[1::2], strict=True))
            admission = buckets_of_state(address, [scored, fields])
        self.reference.adopt(address, LuaStore(None, self._lua).read_ledger(address)[0], admission)
        self._note(address)

    def _note(self, address: str) -> None:
        if kind_of(address) is OFFICE:
            key = self._event_keys.get(address)
            if key is None:
                names = format_of(address).key_names
                key = self._event_keys[address] = keys_of("", address, names)[names.index("events")]
            number = self._lua.last_number(key)
            self.note_events(address, number)
            if address not in self._repaired:
                self.reference.compare_last_number(address, number)

    def set_clock(self, epoch_ms: int) -> None:
        """See :meth:`SimulatedStore.set_clock`."""
        self.network.set_clock(epoch_ms)

    def set_down(self, *, is_down: bool) -> None:
        """See :meth:`SimulatedStore.set_down`."""
        self.network.is_down = is_down
        if is_down:
            self.network.cut_all()

    def restart(self) -> None:
        """See :meth:`SimulatedStore.restart`."""
        self.network.cut_all()
        self._server.forget_scripts()
        self._servers += 1
        self._lua.replication_id = f"{self._servers:040x}"

    def save(self) -> Any:
        """See :meth:`SimulatedStore.save`."""
        return self._lua.save(), self.reference.save(), set(self._repaired)

    def may_lose_tail(self, saved: Any) -> bool:
        """See :meth:`SimulatedStore.may_lose_tail`. The copy must be of the epoch that the processes have seen."""
        return self._lua.epochs() == self._lua.epochs(saved[0])

    def lose_tail(self, saved: Any) -> None:
        """See :meth:`SimulatedStore.lose_tail`."""
        values, ledgers, repaired = saved
        self._lua.restore(values)
        self.reference.restore(ledgers)
        self._repaired = set(repaired)
        self.restart()

    async def describe(self, address: str) -> Any:
        """See :meth:`SimulatedStore.describe`."""
        return LuaStore(None, self._lua).execute(Describe(address))

    async def events(self, office: str) -> list[RecordedEvent]:
        """See :meth:`SimulatedStore.events`."""
        return LuaStore(None, self._lua).execute(ReadEvents(office, 0, _EVENTS_MAX))

    async def audit(self, office: str) -> list[str]:
        """See :meth:`SimulatedStore.audit`."""
        self._lua.time_ms = self.network.server_ms()
        return LuaStore(None, self._lua).execute(Audit(office))

    @property
    def late(self) -> int:
        """Copies that the server has refused because their last moment had passed."""
        return self._server.counts.get("late", 0)

    def is_repaired(self, address: str) -> bool:
        """Return True if the store has repaired a ledger and no command has come since."""
        return address in self._repaired


class _RecordingSqlStore(AsyncSqlStore):
    """A store that notes each command that it applies to its copy of a ledger."""

    recorder: RunRecorder

    async def apply(self, address: str, command: Any, *, ends_at_ms: float | None = None) -> Any:
        """See :meth:`AsyncSqlStore.apply`."""
        call, token = command_call(address, command), object()

        def run(state: Any, now_ms: int) -> Any:
            before = state.changes
            result = call.run(state, now_ms)
            self.recorder.add(Run(address, command, now_ms, result, state.changes != before, token))
            return result

        return await self._call(SqlCall(address, run, call.writes, call.creates, call.reserve), ends_at_ms)

    async def _call(self, call: SqlCall, ends_at_ms: float | None) -> Any:
        """Make a call as :meth:`AsyncSqlStore.apply` does."""
        end = self._new_end(ends_at_ms)
        if ends_at_ms is None:
            return await self._send(call, end, watches=True)
        return await self._run_until(end, self._send(call, end))

    async def execute(self, request: Any, *, ends_at_ms: float | None = None) -> Any:
        """See :meth:`AsyncSqlStore.execute`."""
        if not isinstance(request, ApplyMany) or not request.commands:
            return await super().execute(request, ends_at_ms=ends_at_ms)
        creates = not OFFICE.creating_commands.isdisjoint(map(type, request.commands))
        calls = [command_call(request.office, command) for command in request.commands]
        tokens = [object() for _ in calls]

        def run(state: Any, now_ms: int) -> Any:
            results = []
            for call, command, token in zip(calls, request.commands, tokens, strict=True):
                before = state.changes
                results.append(call.run(state, now_ms))
                self.recorder.add(Run(request.office, command, now_ms, results[-1], state.changes != before, token))
            return results

        return await self._call(SqlCall(request.office, run, True, creates), ends_at_ms)


@contextlib.contextmanager
def entries_decoded_once() -> Iterator[None]:
    """Let all processes of a run share the events of each entry that one of them has decoded. Events are immutable."""
    decode = office_codec.decode_entry
    known: dict[tuple[str, bytes], tuple[list[Any], list[Any]]] = {}

    def decode_once(office: str, body: bytes, table: Any, what: str) -> tuple[list[Any], list[Any]]:
        found = known.get((office, body))
        if found is None:
            found = known[office, body] = decode(office, body, table, what)
        return found

    office_codec.decode_entry = decode_once
    try:
        yield
    finally:
        office_codec.decode_entry = decode


class SimulatedSql(SimulatedStore):
    """A SQL database that stores share."""

    loses_tails = True

    def __init__(
        self, loop: VirtualLoop, faults: FaultSource, reference: Reference, epoch_ms: int, random: Random
    ) -> None:
        super().__init__(loop, faults, reference)
        self.database = SqlDatabase(loop, epoch_ms)
        self._attempts = Attempts(budget_ms=random.choice((500, 10_000)))
        self._limits = BatchLimits(batch_max=random.choice((1, 8, 1024, 1024)), in_flight_max=1)
        self.sold_out_ms = random.choice((0, 0, 250))
        self._transactions_max = 4 if self._limits.batch_max == 1 else 1
        self._snapshot_bytes_min = random.choice((2_000, 20_000, 80_000))
        self._epoch_ms = epoch_ms
        self._committed: set[object] = set()
        """Calls whose transaction has changed a ledger."""

    def open(self, client: Client, clock: VirtualClock) -> AsyncSqlStore:
        """See :meth:`SimulatedStore.open`."""
        recorder = RunRecorder(self._on_end)
        store = _RecordingSqlStore(
            SqlSessions(self.database, self.faults, client, recorder),
            limits=self._limits,
            attempts=self._attempts,
            sold_out_ms=self.sold_out_ms,
            second_clock=clock,
            transactions_max=self._transactions_max,
        )
        store.recorder = recorder
        store._transactions.snapshot_bytes_min = self._snapshot_bytes_min  # noqa: SLF001
        return store

    def _on_end(self, run: Run) -> None:
        if run.call in self._committed:
            # Most commands have the same effect a second time, so outcomes and states hardly show it.
            self.reference.violations.append(
                f"{run.address}: {run.command} at {run.now_ms}: applied again after its transaction was committed"
            )
        if run.changed:
            self._committed.add(run.call)
        self.reference.apply(run.address, run.command, run.now_ms, run.result)
        if kind_of(run.address) is OFFICE:
            self.note_events(run.address, len(self.reference.ledger(run.address).events))

    def set_clock(self, epoch_ms: int) -> None:
        """See :meth:`SimulatedStore.set_clock`."""
        self.database.epoch_ms = epoch_ms

    def set_down(self, *, is_down: bool) -> None:
        """See :meth:`SimulatedStore.set_down`."""
        self.database.is_down = is_down
        if is_down:
            self.database.restart()

    def notice_death(self, client: Client) -> None:
        """See :meth:`SimulatedStore.notice_death`."""
        self.database.forget(client)

    def restart(self) -> None:
        """See :meth:`SimulatedStore.restart`."""
        self.database.restart()

    def save(self) -> Any:
        """See :meth:`SimulatedStore.save`."""
        return self.database.save(), self.reference.save()

    def lose_tail(self, saved: Any) -> None:
        """See :meth:`SimulatedStore.lose_tail`."""
        tables, ledgers = saved
        self.database.restore(tables)
        self._committed.clear()  # processes repeat what the new server has lost
        self.reference.restore(ledgers)

    async def _ask(self, request: Any) -> Any:
        """Answer a request with a new store and without faults: everything comes from the tables."""
        store = AsyncSqlStore(
            SqlSessions(self.database, FaultSource(self.faults.random)),
            second_clock=VirtualClock(self.loop, self.database.epoch_ms),
        )
        return await store.execute(request)

    async def describe(self, address: str) -> Any:
        """See :meth:`SimulatedStore.describe`."""
        return await self._ask(Describe(address))

    async def events(self, office: str) -> list[RecordedEvent]:
        """See :meth:`SimulatedStore.events`."""
        return list(await self._ask(ReadEvents(office, 0, _EVENTS_MAX)))

    async def audit(self, office: str) -> list[str]:
        """See :meth:`SimulatedStore.audit`."""
        return list(await self._ask(Audit(office)))
