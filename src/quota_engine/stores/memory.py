"""The in-memory backend: the machine under a lock, one lock and one ledger a place. The reference for all others."""

from __future__ import annotations

__all__ = ["AsyncMemoryStore", "MemoryStore", "open_async_store", "open_store"]

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from quota_engine.clocks import SystemClock
from quota_engine.domain import consumer_groups
from quota_engine.domain.audit import audit
from quota_engine.domain.consumer_groups import GROUPS_MAX, ConsumerGroup, ConsumerGroupView
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.ledger import describe
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import DayView, Outcome, WaitListPosition
from quota_engine.domain.queries import hold_remaining_histogram, list_day, lookup, view, wait_list_position
from quota_engine.domain.reconcile import Reconciliation, recompute, restore_events
from quota_engine.ledger_kinds import kind_of
from quota_engine.ports import (
    Acknowledge,
    ApplyMany,
    Audit,
    Clock,
    CreateConsumerGroup,
    DeleteConsumerGroup,
    Describe,
    ListConsumerGroups,
    ListDay,
    ListOffices,
    Lookup,
    Query,
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

T = TypeVar("T")


class _LockedLedger:
    """The ledger of one place, and its lock."""

    __slots__ = ("apply", "epoch", "events_trimmed", "groups", "kind", "ledger", "lock")

    def __init__(self, place: str) -> None:
        self.kind = kind_of(place)
        self.apply = self.kind.apply
        self.ledger = self.kind.new(place)
        self.lock = threading.Lock()
        self.epoch = 0
        self.events_trimmed = 0
        self.groups: dict[str, ConsumerGroup] = {}

    @property
    def last_number(self) -> int:
        """The number of the last event."""
        return self.events_trimmed + len(self.ledger.events)


class MemoryStore:
    """A store that lives as long as this object. Safe under threads; what it holds is lost when the process ends."""

    def __init__(self, clock: Clock) -> None:
        self._now_ms = clock.now_ms
        self._ledgers: dict[str, _LockedLedger] = {}
        self._ledgers_lock = threading.Lock()
        self._handlers: dict[type, Callable[[Any], Any]] = {
            Query: self._query,
            ApplyMany: self._apply_many,
            Lookup: self._lookup,
            ReadWaitListPosition: self._wait_list_position,
            View: self._view,
            ListDay: self._list_day,
            ReadHoldRemainingHistogram: self._hold_remaining_histogram,
            ReadEvents: self._read_events,
            TrimEvents: self._trim_events,
            ReadConsumerGroup: self._read_consumer_group,
            Acknowledge: self._acknowledge,
            CreateConsumerGroup: self._create_consumer_group,
            DeleteConsumerGroup: self._delete_consumer_group,
            ListConsumerGroups: self._list_consumer_groups,
            ListOffices: self._list_offices,
            Audit: self._audit,
            Reconcile: self._reconcile,
            Describe: self._describe,
        }

    def apply(self, address: str, command: Any) -> Any:
        """See :meth:`quota_engine.ports.Store.apply`."""
        book = self._ledgers.get(address) or self._get_or_create(address, command)
        lock = book.lock
        lock.acquire()  # what "with" would do, for half of the time
        try:
            # The clock is read inside the lock, so that the order of times is the order of the steps.
            return book.apply(book.ledger, command, self._now_ms())
        finally:
            lock.release()

    def execute(self, request: StoreRequest[T]) -> T:
        """See :meth:`quota_engine.ports.Store.execute`; this backend is never unavailable and never in doubt."""
        answer: T = self._handlers[type(request)](request)
        return answer

    def close(self) -> None:
        """Nothing to give back: the ledgers go with the object."""

    def _get(self, place: str) -> _LockedLedger:
        """The place's book; one where nothing was ever founded gets one that is not kept."""
        return self._ledgers.get(place) or _LockedLedger(place)

    def _get_or_create(self, place: str, *commands: Any) -> _LockedLedger:
        book = self._ledgers.get(place)
        if book is None:
            book = _LockedLedger(place)
            if book.kind.creating_commands.isdisjoint(map(type, commands)):
                return book
            with self._ledgers_lock:
                book = self._ledgers.setdefault(place, book)
        return book

    def _query(self, request: Query) -> Any:
        book = self._get(request.address)
        with book.lock:
            return book.kind.ask(book.ledger, request.question, self._now_ms())

    def _apply_many(self, request: ApplyMany) -> list[Outcome]:
        book = self._get_or_create(request.office, *request.commands)
        with book.lock:
            now_ms = self._now_ms()
            return [book.apply(book.ledger, command, now_ms) for command in request.commands]

    def _lookup(self, request: Lookup) -> Reservation | None:
        book = self._get(request.office)
        with book.lock:
            return lookup(book.ledger, request.id, self._now_ms())

    def _wait_list_position(self, request: ReadWaitListPosition) -> WaitListPosition | None:
        book = self._get(request.office)
        with book.lock:
            return wait_list_position(book.ledger, request.id, self._now_ms())

    def _view(self, request: View) -> list[DayView]:
        book = self._get(request.office)
        with book.lock:
            now_ms = self._now_ms()
            views = [view(book.ledger, day, now_ms) for day in request.days]
        return [one for one in views if one is not None]

    def _list_day(self, request: ListDay) -> list[Reservation]:
        book = self._get(request.office)
        with book.lock:
            return list_day(book.ledger, request.day, self._now_ms())

    def _hold_remaining_histogram(self, request: ReadHoldRemainingHistogram) -> list[int]:
        book = self._get(request.office)
        with book.lock:
            return hold_remaining_histogram(book.ledger, request.day, request.bounds_ms, self._now_ms())

    def _read_events(self, request: ReadEvents) -> list[RecordedEvent]:
        book = self._get(request.office)
        with book.lock:
            start = max(0, request.after - book.events_trimmed)
            events = book.ledger.events[start : start + max(0, request.limit)]
            first = book.events_trimmed + start + 1
        return [RecordedEvent(first + index, event) for index, event in enumerate(events)]

    def _trim_events(self, request: TrimEvents) -> int:
        book = self._get(request.office)
        with book.lock:
            events = book.ledger.events
            through = min([request.through, *(group.acknowledged for group in book.groups.values())])
            dropped = min(max(0, through - book.events_trimmed), len(events))
            del events[:dropped]
            book.events_trimmed += dropped
            return len(events)

    def _read_consumer_group(self, request: ReadConsumerGroup) -> list[RecordedEvent]:
        book = self._get(request.office)
        with book.lock:
            first, last = book.events_trimmed + 1, book.last_number
            if not last or request.limit < 1:
                return []
            now_ms = max(self._now_ms(), book.ledger.now_ms)
            group = self._group(book, request.consumer_group) or consumer_groups.new_group(0, first, last)
            book.groups[request.consumer_group], ranges = consumer_groups.take(
                group, request.consumer, request.limit, request.min_idle_ms, now_ms, last
            )
            numbers = [number for lowest, highest in ranges for number in range(lowest, highest + 1)]
            return [RecordedEvent(number, book.ledger.events[number - first]) for number in numbers]

    def _acknowledge(self, request: Acknowledge) -> int:
        book = self._get(request.office)
        with book.lock:
            group = book.groups.get(request.consumer_group)
            if group is None:
                return 0
            book.groups[request.consumer_group], closed = consumer_groups.acknowledge(
                group, consumer_groups.ranges_of(request.numbers)
            )
            return closed

    def _create_consumer_group(self, request: CreateConsumerGroup) -> bool:
        book = self._get(request.office)
        with book.lock:
            if not book.last_number or self._group(book, request.consumer_group) is not None:
                return False
            group = consumer_groups.new_group(request.after, book.events_trimmed + 1, book.last_number)
            book.groups[request.consumer_group] = group
            return True

    def _group(self, book: _LockedLedger, name: str) -> ConsumerGroup | None:
        """The group; ``None`` if it is not there and can come into being."""
        group = book.groups.get(name)
        if group is None and len(book.groups) >= GROUPS_MAX:
            raise InvalidRequest("group", f"the office has {GROUPS_MAX} groups", "one of them; or drop one first")
        return group

    def _delete_consumer_group(self, request: DeleteConsumerGroup) -> bool:
        book = self._get(request.office)
        with book.lock:
            return book.groups.pop(request.consumer_group, None) is not None

    def _list_consumer_groups(self, request: ListConsumerGroups) -> list[ConsumerGroupView]:
        book = self._get(request.office)
        with book.lock:
            return [
                consumer_groups.view_of(name, group, book.last_number) for name, group in sorted(book.groups.items())
            ]

    def _list_offices(self, request: ListOffices) -> list[str]:
        return sorted(place for place in self._ledgers if not place.startswith("~"))

    def _audit(self, request: Audit) -> list[str]:
        book = self._get(request.office)
        with book.lock:
            return audit(book.ledger, from_events=not book.events_trimmed)

    def _reconcile(self, request: Reconcile) -> Reconciliation:
        book = self._get(request.office)
        with book.lock:
            if not book.last_number:
                return Reconciliation(request.office, 0)
            findings = audit(book.ledger, from_events=not book.events_trimmed)
            mended = recompute(book.ledger, from_events=not book.events_trimmed)
            mended.events = list(mended.events)  # what they become if some of those to restore are refused is dropped
            repaired = describe(mended) != describe(book.ledger)
            restored = restore_events(mended, book.last_number, [(one.number, one.event) for one in request.events])
            book.ledger = mended
            book.epoch += 1
            return Reconciliation(request.office, book.epoch, tuple(findings), int(repaired), restored)

    def _describe(self, request: Describe) -> dict[str, Any]:
        book = self._get(request.office)
        with book.lock:
            return book.kind.describe(book.ledger)


class AsyncMemoryStore:
    """The same store for asyncio. A step takes microseconds, so it runs right here, in the event loop."""

    def __init__(self, memory: MemoryStore) -> None:
        self._memory = memory

    async def apply(self, address: str, command: Any) -> Any:
        """See :meth:`MemoryStore.apply`."""
        return self._memory.apply(address, command)

    async def execute(self, request: StoreRequest[T]) -> T:
        """See :meth:`MemoryStore.execute`."""
        return self._memory.execute(request)

    async def close(self) -> None:
        """See :meth:`MemoryStore.close`."""
        self._memory.close()


def _check_url(url: str) -> None:
    if url != "memory://":
        raise InvalidRequest("url", "more than memory://", "memory:// and nothing behind it")


def open_store(url: str, clock: Clock | None) -> MemoryStore:
    """Open ``memory://``: a new, empty store.

    Raises:
        InvalidRequest: the URL names a place; there is none to name.
    """
    _check_url(url)
    return MemoryStore(clock or SystemClock())


async def open_async_store(url: str, clock: Clock | None) -> AsyncMemoryStore:
    """Open ``memory://`` for asyncio; see :func:`open_store`."""
    return AsyncMemoryStore(open_store(url, clock))
