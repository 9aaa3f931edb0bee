"""The in-memory store: one ledger and one lock per address. It is the reference for all other stores."""

from __future__ import annotations

__all__ = ["AsyncMemoryStore", "MemoryStore", "open_async_store", "open_store"]

import threading
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from quota_engine.clocks import SteadyClock, SystemClock, monotonic_ms
from quota_engine.domain import consumer_groups
from quota_engine.domain.audit import audit
from quota_engine.domain.clock_check import LEAP_MS_MIN, find_leap
from quota_engine.domain.consumer_groups import GROUPS_MAX, ConsumerGroup, ConsumerGroupView
from quota_engine.domain.errors import BackendUnavailable, InvalidRequest
from quota_engine.domain.ledger import Ledger, describe
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import AbandonedHolds, DayView, Outcome, WaitListPosition
from quota_engine.domain.queries import (
    abandoned_holds,
    hold_remaining_histogram,
    list_day,
    lookup,
    view,
    wait_list_position,
)
from quota_engine.domain.reconcile import CLOCKS_DIFFER_MS, Reconciliation, correct_time, recompute, restore_events
from quota_engine.forks import call_in_child
from quota_engine.ledger_kinds import OFFICE, ROOM, kind_of
from quota_engine.ports import (
    Acknowledge,
    ApplyMany,
    Audit,
    CheckIdentityKey,
    Clock,
    CreateConsumerGroup,
    DeleteConsumerGroup,
    Describe,
    ListConsumerGroups,
    ListDay,
    ListOffices,
    Lookup,
    Query,
    ReadAbandonedHolds,
    ReadConsumerGroup,
    ReadEvents,
    ReadHoldRemainingHistogram,
    ReadWaitListPosition,
    Reconcile,
    RecordedEvent,
    StoreRequest,
    TrimEvents,
    View,
)
from quota_engine.stores.clock_alarm import report_leap

T = TypeVar("T")


class _LockedLedger:
    """The ledger of one address, its lock, and the state of its events."""

    __slots__ = ("apply", "epoch", "events_trimmed", "groups", "kind", "ledger", "lock")

    def __init__(self, address: str) -> None:
        self.kind = kind_of(address)
        self.apply = self.kind.apply
        self.ledger = self.kind.new(address)
        self.lock = threading.Lock()
        self.epoch = 0
        self.events_trimmed = 0
        self.groups: dict[str, ConsumerGroup] = {}

    @property
    def last_number(self) -> int:
        """The number of the last event; 0 if there was none."""
        return self.events_trimmed + len(self.ledger.events)


class MemoryStore:
    """A store in the memory of this process. Thread-safe. Its ledgers are lost when the object is dropped."""

    def __init__(self, clock: Clock, second_clock: Clock | None = None) -> None:
        """
        Args:
            clock: source of the time.
            second_clock: another one, which no change of the first one moves. Commands and questions at a time that
                leaps from it and from the ledger's last event are refused. ``None`` trusts the first one.
        """
        self._now_ms = clock.now_ms
        self._second_clock = second_clock
        self._ledgers: dict[str, _LockedLedger] = {}
        self._ledgers_lock = threading.Lock()
        self._key_fingerprint = ""
        call_in_child(self._after_fork)
        self._handlers: dict[type, Callable[[Any], Any]] = {
            Query: self._query,
            ApplyMany: self._apply_many,
            Lookup: self._lookup,
            ReadWaitListPosition: self._wait_list_position,
            View: self._view,
            ListDay: self._list_day,
            ReadHoldRemainingHistogram: self._hold_remaining_histogram,
            ReadAbandonedHolds: self._abandoned_holds,
            ReadEvents: self._read_events,
            TrimEvents: self._trim_events,
            ReadConsumerGroup: self._read_consumer_group,
            Acknowledge: self._acknowledge,
            CreateConsumerGroup: self._create_consumer_group,
            DeleteConsumerGroup: self._delete_consumer_group,
            ListConsumerGroups: self._list_consumer_groups,
            CheckIdentityKey: self._check_identity_key,
            ListOffices: self._list_offices,
            Audit: self._audit,
            Reconcile: self._reconcile,
            Describe: self._describe,
        }

    def apply(self, address: str, command: Any, *, ends_at_ms: float | None = None) -> Any:
        """See :meth:`quota_engine.ports.Store.apply`."""
        entry = self._ledgers.get(address) or self._get_or_create(address, command)
        lock = entry.lock
        lock.acquire()  # a with statement takes twice as long
        try:
            if ends_at_ms is not None:
                _check_end(ends_at_ms)
            # Reading the clock inside the lock keeps times in the order of the commands.
            now_ms = self._now_ms()
            if not -LEAP_MS_MIN < now_ms - entry.ledger.now_ms < LEAP_MS_MIN:
                self._check_leap(entry, now_ms)
            return entry.apply(entry.ledger, command, now_ms)
        finally:
            lock.release()

    def execute(self, request: StoreRequest[T], *, ends_at_ms: float | None = None) -> T:
        """See :meth:`quota_engine.ports.Store.execute`. This store is never unavailable, and every outcome is known."""
        if ends_at_ms is not None:
            _check_end(ends_at_ms)
        answer: T = self._handlers[type(request)](request)
        return answer

    def close(self) -> None:
        """Do nothing: there is no connection to close."""

    def _time_for(self, entry: _LockedLedger) -> int:
        """Return the time of a step on a ledger.

        Raises:
            BackendUnavailable: the clock has leapt.
        """
        now_ms = self._now_ms()
        self._check_leap(entry, now_ms)
        return now_ms

    def _check_leap(self, entry: _LockedLedger, now_ms: int) -> None:
        if self._second_clock is not None:
            refusal = find_leap(entry.ledger, now_ms, self._second_clock.now_ms())
            if refusal:
                report_leap(refusal)
                raise BackendUnavailable(refusal)

    def _after_fork(self) -> None:
        """Refuse all calls: the child has a copy, which would sell the places of the parent again."""
        self._ledgers = {}
        self._ledgers_lock = threading.Lock()
        self._now_ms = _refuse_in_child
        self._handlers = dict.fromkeys(self._handlers, _refuse_in_child)

    def _get(self, address: str) -> _LockedLedger:
        """Return the ledger of an address. An unknown address gets an empty one that is not stored."""
        return self._ledgers.get(address) or _LockedLedger(address)

    def _get_or_create(self, address: str, *commands: Any) -> _LockedLedger:
        """Return the ledger of an address, stored only if one of the commands may create a ledger of its kind."""
        entry = self._ledgers.get(address)
        if entry is None:
            entry = _LockedLedger(address)
            if entry.kind.creating_commands.isdisjoint(map(type, commands)):
                return entry
            with self._ledgers_lock:
                entry = self._ledgers.setdefault(address, entry)
        return entry

    def _query(self, request: Query) -> Any:
        entry = self._get(request.address)
        with entry.lock:
            return entry.kind.ask(entry.ledger, request.question, self._time_for(entry))

    def _apply_many(self, request: ApplyMany) -> list[Outcome]:
        entry = self._get_or_create(request.office, *request.commands)
        with entry.lock:
            now_ms = self._time_for(entry)
            return [entry.apply(entry.ledger, command, now_ms) for command in request.commands]

    def _lookup(self, request: Lookup) -> Reservation | None:
        entry = self._get(request.office)
        with entry.lock:
            return lookup(entry.ledger, request.id, self._time_for(entry))

    def _wait_list_position(self, request: ReadWaitListPosition) -> WaitListPosition | None:
        entry = self._get(request.office)
        with entry.lock:
            return wait_list_position(entry.ledger, request.id, self._time_for(entry))

    def _view(self, request: View) -> list[DayView]:
        entry = self._get(request.office)
        with entry.lock:
            now_ms = self._time_for(entry)
            views = [view(entry.ledger, day, now_ms) for day in request.days]
        return [one for one in views if one is not None]

    def _list_day(self, request: ListDay) -> list[Reservation]:
        entry = self._get(request.office)
        with entry.lock:
            return list_day(entry.ledger, request.day, self._time_for(entry))

    def _hold_remaining_histogram(self, request: ReadHoldRemainingHistogram) -> list[int]:
        entry = self._get(request.office)
        with entry.lock:
            return hold_remaining_histogram(entry.ledger, request.day, request.bounds_ms, self._time_for(entry))

    def _abandoned_holds(self, request: ReadAbandonedHolds) -> AbandonedHolds:
        entry = self._get(request.office)
        with entry.lock:
            return abandoned_holds(entry.ledger)

    def _read_events(self, request: ReadEvents) -> list[RecordedEvent]:
        entry = self._get(request.office)
        with entry.lock:
            start = max(0, request.after - entry.events_trimmed)
            events = entry.ledger.events[start : start + max(0, request.limit)]
            first = entry.events_trimmed + start + 1
        return [RecordedEvent(first + index, event) for index, event in enumerate(events)]

    def _trim_events(self, request: TrimEvents) -> int:
        entry = self._get(request.office)
        with entry.lock:
            events = entry.ledger.events
            through = min([request.through, *(group.acknowledged for group in entry.groups.values())])
            dropped = min(max(0, through - entry.events_trimmed), len(events))
            del events[:dropped]
            entry.events_trimmed += dropped
            return len(events)

    def _read_consumer_group(self, request: ReadConsumerGroup) -> list[RecordedEvent]:
        entry = self._get(request.office)
        with entry.lock:
            first, last = entry.events_trimmed + 1, entry.last_number
            if not last or request.limit < 1:
                return []
            now_ms = max(self._time_for(entry), entry.ledger.now_ms)
            group = self._group(entry, request.consumer_group) or consumer_groups.new_group(0, first, last)
            entry.groups[request.consumer_group], ranges = consumer_groups.take(
                group, request.consumer, request.limit, request.min_idle_ms, now_ms, last
            )
            numbers = [number for lowest, highest in ranges for number in range(lowest, highest + 1)]
            return [RecordedEvent(number, entry.ledger.events[number - first]) for number in numbers]

    def _acknowledge(self, request: Acknowledge) -> int:
        entry = self._get(request.office)
        with entry.lock:
            group = entry.groups.get(request.consumer_group)
            if group is None:
                return 0
            entry.groups[request.consumer_group], closed = consumer_groups.acknowledge(
                group, consumer_groups.ranges_of(request.numbers)
            )
            return closed

    def _create_consumer_group(self, request: CreateConsumerGroup) -> bool:
        entry = self._get(request.office)
        with entry.lock:
            if not entry.last_number or self._group(entry, request.consumer_group) is not None:
                return False
            group = consumer_groups.new_group(request.after, entry.events_trimmed + 1, entry.last_number)
            entry.groups[request.consumer_group] = group
            return True

    def _group(self, entry: _LockedLedger, name: str) -> ConsumerGroup | None:
        """Return the group, or ``None`` if it does not exist and may be created.

        Raises:
            InvalidRequest: it does not exist, and the office has as many groups as it may have.
        """
        group = entry.groups.get(name)
        if group is None and len(entry.groups) >= GROUPS_MAX:
            raise InvalidRequest(
                "consumer_group",
                f"the office has {GROUPS_MAX} groups",
                "an existing group; delete one to create another",
            )
        return group

    def _delete_consumer_group(self, request: DeleteConsumerGroup) -> bool:
        entry = self._get(request.office)
        with entry.lock:
            return entry.groups.pop(request.consumer_group, None) is not None

    def _list_consumer_groups(self, request: ListConsumerGroups) -> list[ConsumerGroupView]:
        entry = self._get(request.office)
        with entry.lock:
            return [
                consumer_groups.view_of(name, group, entry.last_number) for name, group in sorted(entry.groups.items())
            ]

    def _check_identity_key(self, request: CheckIdentityKey) -> str:
        with self._ledgers_lock:
            self._key_fingerprint = self._key_fingerprint or request.fingerprint
            return self._key_fingerprint

    def _list_offices(self, request: ListOffices) -> list[str]:
        return sorted(address for address in self._ledgers if not address.startswith("~"))

    def _audit(self, request: Audit) -> list[str]:
        entry = self._get(request.office)
        with entry.lock:
            return audit(entry.ledger, from_events=not entry.events_trimmed)

    def _reconcile(self, request: Reconcile) -> Reconciliation:
        entry = self._get(request.address)
        if entry.kind is not OFFICE:
            if request.events:
                raise InvalidRequest("events", "events for a ledger that has none", "an office's id, or no events")
            return self._reconcile_other(request.address)
        with entry.lock:
            if not entry.last_number:
                return Reconciliation(request.address, 0)
            findings = audit(entry.ledger, from_events=not entry.events_trimmed)
            repaired_ledger = recompute(entry.ledger, from_events=not entry.events_trimmed)
            repaired_ledger.events = list(repaired_ledger.events)  # a copy, because restore_events may fail halfway
            repaired = describe(repaired_ledger) != describe(entry.ledger)
            restored = restore_events(
                repaired_ledger, entry.last_number, [(one.number, one.event) for one in request.events]
            )
            corrected_by_ms = 0 if restored else correct_time(repaired_ledger, self._time_for(entry))
            ledger = entry.kind.new(request.address)
            for name in Ledger.__slots__:
                setattr(ledger, name, getattr(repaired_ledger, name))
            ledger.admission = entry.ledger.admission
            entry.ledger = ledger
            entry.epoch += 1
            return Reconciliation(
                request.address, entry.epoch, tuple(findings), int(repaired), restored, corrected_by_ms
            )

    def _reconcile_other(self, address: str) -> Reconciliation:
        """Bring the time of a ledger without events back, if it is later than the clock's."""
        entry = self._ledgers.get(address)
        if entry is None:
            return Reconciliation(address, 0)
        with entry.lock:
            state, now_ms = entry.ledger, self._time_for(entry)
            ahead_ms = state.now_ms - now_ms
            if ahead_ms <= CLOCKS_DIFFER_MS:
                return Reconciliation(address, 1)
            state.now_ms = now_ms
            if entry.kind is ROOM:
                state.last_step_at_ms = min(state.last_step_at_ms, now_ms)
            return Reconciliation(address, 1, time_corrected_by_ms=ahead_ms)

    def _describe(self, request: Describe) -> dict[str, Any]:
        entry = self._get(request.office)
        with entry.lock:
            return entry.kind.describe(entry.ledger)


class AsyncMemoryStore:
    """The same store for asyncio. A command takes microseconds, so it runs in the event loop."""

    def __init__(self, memory: MemoryStore) -> None:
        self._memory = memory

    async def apply(self, address: str, command: Any, *, ends_at_ms: float | None = None) -> Any:
        """See :meth:`MemoryStore.apply`."""
        if ends_at_ms is None:
            return self._memory.apply(address, command)
        return self._memory.apply(address, command, ends_at_ms=ends_at_ms)

    async def execute(self, request: StoreRequest[T], *, ends_at_ms: float | None = None) -> T:
        """See :meth:`MemoryStore.execute`."""
        if ends_at_ms is None:
            return self._memory.execute(request)
        return self._memory.execute(request, ends_at_ms=ends_at_ms)

    async def close(self) -> None:
        """See :meth:`MemoryStore.close`."""
        self._memory.close()


def _refuse_in_child(*_: object) -> NoReturn:
    raise BackendUnavailable(
        "memory:// belongs to the process that opened it, and this process is a fork of that one: open the engine "
        "after the fork, or use a store that processes share, such as valkey+embedded:///dir"
    )


def _check_end(ends_at_ms: float) -> None:
    if monotonic_ms() >= ends_at_ms:
        raise BackendUnavailable("the call's time is over, and nothing was done")


def _check_url(url: str) -> None:
    if url != "memory://":
        raise InvalidRequest("url", "text after memory://", "memory:// alone")


def open_store(url: str, clock: Clock | None) -> MemoryStore:
    """Open a new, empty store.

    Args:
        url: ``memory://``.
        clock: the source of time; ``None`` for the system's clock.

    Raises:
        InvalidRequest: the URL has anything after ``memory://``.
    """
    _check_url(url)
    return MemoryStore(clock) if clock is not None else MemoryStore(SystemClock(), SteadyClock())


async def open_async_store(url: str, clock: Clock | None) -> AsyncMemoryStore:
    """Open a new, empty store for asyncio. See :func:`open_store`."""
    return AsyncMemoryStore(open_store(url, clock))
