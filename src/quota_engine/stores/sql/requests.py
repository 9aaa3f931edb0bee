"""All requests to a SQL store besides single commands, written once for the sync and the async store."""

from __future__ import annotations

__all__ = ["FINGERPRINT_NAME", "Call", "Requests", "as_call", "command_call"]

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Final, NamedTuple, TypeVar

from quota_engine.domain import consumer_groups
from quota_engine.domain.audit import audit
from quota_engine.domain.commands import Reserve
from quota_engine.domain.consumer_groups import GROUPS_MAX, ConsumerGroup, ConsumerGroupView, Lease
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.events import Event
from quota_engine.domain.ledger import Ledger, describe
from quota_engine.domain.queries import (
    abandoned_holds,
    hold_remaining_histogram,
    list_day,
    lookup,
    view,
    wait_list_position,
)
from quota_engine.domain.reconcile import Reconciliation, correct_time, recompute, restore_events
from quota_engine.ledger_kinds import OFFICE, kind_of
from quota_engine.ports import (
    Acknowledge,
    ApplyMany,
    Audit,
    CheckIdentityKey,
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
from quota_engine.stores.call_end import CallEnd
from quota_engine.stores.sql import office_codec
from quota_engine.stores.sql.entry_codec import PART_DIGEST_BYTES, DamagedLedger, decode, encode, entry_checksum
from quota_engine.stores.sql.ledger_cache import CachedLedger
from quota_engine.stores.sql.ledger_state import LedgerState
from quota_engine.stores.sql.loading import row_of
from quota_engine.stores.sql.office_codec import ChoiceTable
from quota_engine.stores.sql.steps import LedgerRow, RoundTrip, Statement, Steps, ThreadWork
from quota_engine.stores.sql.transactions import Snapshot, Transactions

T = TypeVar("T")

FINGERPRINT_NAME: Final = "identity_key_fingerprint"
_EVENT_ENTRIES_PAGE: Final = 64
_ALL_EVENTS: Final = 2**62


class Call(NamedTuple):
    """A request that runs on a ledger's state, in a batch with other calls.

    Attributes:
        address: The ledger.
        run: Answers it from the state at a time.
        writes: True if it may change the ledger.
        creates: True if it may create the ledger.
        reserve: The command, if it is a plain reserve.
    """

    address: str
    run: Callable[[LedgerState, int], Any]
    writes: bool = False
    creates: bool = False
    reserve: Reserve | None = None


class _Audited(NamedTuple):
    """An office's ledger that was read for an audit.

    Attributes:
        ledger: The state, with the events that are kept.
        findings: The audit's findings.
        complete: True if no event was trimmed and no entry dropped, so that the events alone make the ledger.
        wrong_snapshot: True if the snapshot cannot be read, or differs from the entries.
    """

    ledger: CachedLedger
    findings: list[str]
    complete: bool
    wrong_snapshot: bool


def command_call(address: str, command: Any) -> Call:
    """Return the call that applies a command."""
    creates = type(command) in kind_of(address).creating_commands
    reserve = command if type(command) is Reserve else None
    return Call(address, lambda ledger, now_ms: ledger.apply(command, now_ms), True, creates, reserve)


def as_call(request: StoreRequest[Any]) -> Call | None:
    """Return the call of a request that a ledger's state answers, or ``None`` for any other request."""
    match request:
        case Query(address, question):
            return Call(address, lambda ledger, now_ms: ledger.ask(question, now_ms))
        case ApplyMany(office, commands) if commands:
            creates = not OFFICE.creating_commands.isdisjoint(map(type, commands))
            return Call(office, lambda ledger, now_ms: [ledger.apply(one, now_ms) for one in commands], True, creates)
        case Lookup(office, name):
            return Call(office, lambda ledger, now_ms: lookup(ledger.state, name, now_ms))
        case ReadWaitListPosition(office, name):
            return Call(office, lambda ledger, now_ms: wait_list_position(ledger.state, name, now_ms))
        case View(office, days):
            return Call(office, lambda ledger, now_ms: _views(ledger, days, now_ms))
        case ListDay(office, day):
            return Call(office, lambda ledger, now_ms: list_day(ledger.state, day, now_ms))
        case ReadHoldRemainingHistogram(office, day, bounds_ms):
            return Call(office, lambda ledger, now_ms: hold_remaining_histogram(ledger.state, day, bounds_ms, now_ms))
        case ReadAbandonedHolds(office):
            return Call(office, lambda ledger, _: abandoned_holds(ledger.state))
        case Describe(address):
            return Call(address, lambda ledger, _: ledger.kind.describe(ledger.state))
    return None


def _views(ledger: LedgerState, days: Iterable[int], now_ms: int) -> list[Any]:
    return [one for day in days if (one := view(ledger.state, day, now_ms)) is not None]


class Requests:
    """Makes the steps that carry out a request."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._loader = transactions.loader

    def execute(self, request: StoreRequest[Any], end: CallEnd | None = None) -> Steps[Any]:
        """Carry out a request that :func:`as_call` does not know; returns its result.

        Args:
            request: The request.
            end: Its end, if it has one.

        Raises:
            BackendUnavailable: Nothing was done.
            OutcomeUnknown: The request may have been carried out.
            TypeError: The store has no such request.
        """
        attempt = self._attempt(request)
        return self._transactions.retry(attempt, end, repeats=not isinstance(request, Reconcile))

    def _attempt(self, request: StoreRequest[Any]) -> Callable[[], Steps[Any]]:
        match request:
            case ApplyMany():
                return _nothing
            case ReadEvents(office, after, limit):
                return lambda: self._read_events(office, after, limit)
            case TrimEvents(office, through):
                return lambda: self._trim_events(office, through)
            case ReadConsumerGroup():
                return lambda: self._read_group(request)
            case Acknowledge(office, name, numbers):
                return lambda: self._acknowledge(office, name, numbers)
            case CreateConsumerGroup(office, name, after):
                return lambda: self._create_group(office, name, after)
            case DeleteConsumerGroup(office, name):
                return lambda: self._delete_group(office, name)
            case ListConsumerGroups(office):
                return lambda: self._list_groups(office)
            case CheckIdentityKey(fingerprint):
                return lambda: self._check_identity_key(fingerprint)
            case ListOffices():
                return self._list_offices
            case Audit(office):
                return lambda: self._audit(office)
            case Reconcile(address, events):
                return lambda: self._reconcile(address, events)
        raise TypeError(f"the store has no request {type(request).__name__}")

    # --- Events ------------------------------------------------------------------------------------------------------

    def _read_events(self, office: str, after: int, limit: int) -> Steps[list[RecordedEvent]]:
        row = yield from self._read_row(office)
        if row is None or limit < 1:
            return []
        after = max(after, row.trimmed_event_number)
        return (yield from self._events(office, row.id, after + 1, after + limit))

    def _events(self, office: str, ledger_id: int, first: int, last: int) -> Steps[list[RecordedEvent]]:
        """Return the events with these numbers, as far as they exist."""
        found: list[RecordedEvent] = []
        table, after = ChoiceTable(), first - 1
        while after < last:
            (rows,) = yield RoundTrip((Statement("read_event_entries", (ledger_id, after, _EVENT_ENTRIES_PAGE)),))
            for number, first_event, count, body, _ in rows:
                what = f"entry {number} of {office}"
                events, _ = office_codec.decode_entry(office, bytes(body), table, what)
                if len(events) != count:
                    raise DamagedLedger(f"{what} was altered: restore the database from a backup")
                found += [
                    RecordedEvent(own, event) for own, event in enumerate(events, first_event) if after < own <= last
                ]
                after = first_event + count - 1
                if after >= last:
                    break
            if len(rows) < _EVENT_ENTRIES_PAGE:
                break
        return found

    def _trim_events(self, office: str, through: int) -> Steps[int]:
        row = yield from self._lock_row(office)
        if row is None:
            return (yield from _roll_back(0))
        groups = yield from self._groups(row)
        through = min([through, row.last_event_number, *(group.acknowledged for group in groups.values())])
        trimmed = max(row.trimmed_event_number, through)
        statements = yield from self._drop_entries(row, trimmed, row.snapshot_number)
        if trimmed > row.trimmed_event_number:
            statements.append(Statement("set_trimmed", (trimmed, row.id)))
        yield RoundTrip(tuple(statements), end="commit")
        return row.last_event_number - trimmed

    def _drop_entries(self, row: LedgerRow, trimmed: int, snapshot_number: int) -> Steps[list[Statement]]:
        """Return the statements that drop what the snapshot has and no reader of events needs."""
        (rows,) = yield RoundTrip((Statement("read_event_entries", (row.id, trimmed, 1)),))
        through = min(snapshot_number, rows[0][0] - 1 if rows else row.last_number)
        if through < row.first_number:
            return []
        return [
            Statement("trim_entries", (row.id, through)),
            Statement("set_first_number", (through + 1, row.id)),
        ]

    # --- Consumer groups ---------------------------------------------------------------------------------------------

    def _groups(self, row: LedgerRow) -> Steps[dict[str, ConsumerGroup]]:
        (rows,) = yield RoundTrip((Statement("read_groups", (row.id,)),))
        first = row.trimmed_event_number + 1
        return {name: consumer_groups.drop_trimmed(_group(bytes(body)), first) for name, body in rows}

    def _lock_groups(self, office: str) -> Steps[tuple[LedgerRow | None, dict[str, ConsumerGroup]]]:
        """Begin a transaction, lock the office's row, and return it with the groups."""
        row = yield from self._lock_row(office)
        if row is None or not row.last_event_number:
            return None, {}
        return row, (yield from self._groups(row))

    def _read_group(self, request: ReadConsumerGroup) -> Steps[list[RecordedEvent]]:
        name = request.consumer_group
        row, groups = yield from self._lock_groups(request.office)
        if row is None or request.limit < 1:
            return (yield from _roll_back([]))
        first, last = row.trimmed_event_number + 1, row.last_event_number
        known = _known_group(groups, name)
        group = known or consumer_groups.new_group(0, first, last)
        now_ms = max((yield from self._transactions.read_time(row)), row.last_time_ms)
        group, ranges = consumer_groups.take(group, request.consumer, request.limit, request.min_idle_ms, now_ms, last)
        events: list[RecordedEvent] = []
        for lowest, highest in ranges:
            events += yield from self._events(request.office, row.id, lowest, highest)
        yield from _write_group(row, name, group)
        return events

    def _acknowledge(self, office: str, name: str, numbers: Sequence[int]) -> Steps[int]:
        row, groups = yield from self._lock_groups(office)
        if row is None or name not in groups:
            return (yield from _roll_back(0))
        group, count = consumer_groups.acknowledge(groups[name], consumer_groups.ranges_of(numbers))
        yield from _write_group(row, name, group)
        return count

    def _create_group(self, office: str, name: str, after: int) -> Steps[bool]:
        row, groups = yield from self._lock_groups(office)
        if row is None or _known_group(groups, name) is not None:
            return (yield from _roll_back(False))
        group = consumer_groups.new_group(after, row.trimmed_event_number + 1, row.last_event_number)
        yield from _write_group(row, name, group)
        return True

    def _delete_group(self, office: str, name: str) -> Steps[bool]:
        row, groups = yield from self._lock_groups(office)
        if row is None or name not in groups:
            return (yield from _roll_back(False))
        yield RoundTrip((Statement("delete_group", (row.id, name)),), end="commit")
        return True

    def _list_groups(self, office: str) -> Steps[list[ConsumerGroupView]]:
        row = yield from self._read_row(office)
        if row is None:
            return []
        groups = yield from self._groups(row)
        return [consumer_groups.view_of(name, group, row.last_event_number) for name, group in sorted(groups.items())]

    # --- The whole store ---------------------------------------------------------------------------------------------

    def _check_identity_key(self, fingerprint: str) -> Steps[str]:
        read = Statement("read_meta", (FINGERPRINT_NAME,))
        (rows,) = yield RoundTrip((read,))  # read first, so that a store whose disk is full can be opened
        if not rows and fingerprint:
            _, rows = yield RoundTrip((Statement("insert_meta", (FINGERPRINT_NAME, fingerprint)), read))
        return str(rows[0][0]) if rows else ""

    def _list_offices(self) -> Steps[list[str]]:
        (rows,) = yield RoundTrip((Statement("list_addresses", (OFFICE.prefix,)),))
        return sorted(address for (address,) in rows)

    # --- Audit and repair --------------------------------------------------------------------------------------------

    def _audit(self, office: str) -> Steps[list[str]]:
        row = yield from self._read_row(office)
        if row is None:
            return []
        try:
            audited = yield from self._audited(office)
        except DamagedLedger as error:
            return [f"office {office}: {error}"]
        return audited.findings

    def _audited(self, office: str) -> Steps[_Audited]:
        """Read an office's whole ledger, and audit it."""
        events: list[Event] = []
        loaded = yield from self._loader.load(office, sink=lambda _, more: events.extend(more), from_snapshot=False)
        assert loaded is not None
        ledger, row = loaded
        findings: list[str] = []
        complete = not row.trimmed_event_number and row.first_number == 1
        wrong_snapshot = False
        if row.snapshot_number and row.first_number == 1:
            expected = yield from _in_thread(partial(describe, ledger.state.state))
            problem = yield from self._compare_snapshot(office, expected)
            wrong_snapshot = bool(problem)
            findings += problem
        if not complete:
            findings += yield from self._check_chain(office, row)
            kept = yield from self._events(office, row.id, row.trimmed_event_number + 1, _ALL_EVENTS)
            events = [one.event for one in kept if one.number <= ledger.event_number]
        ledger.state.state.events = events
        findings += yield from _in_thread(partial(audit, ledger.state.state, from_events=complete))
        return _Audited(ledger, findings, complete, wrong_snapshot)

    def _compare_snapshot(self, office: str, expected: dict[str, Any]) -> Steps[list[str]]:
        """Return a finding if the state from the snapshot differs from the one that all entries lead to."""
        try:
            loaded = yield from self._loader.load(office)
        except DamagedLedger as error:
            return [f"office {office}: {error}"]
        if loaded is None or (yield from _in_thread(partial(describe, loaded[0].state.state))) == expected:
            return []
        return [f"office {office}: the snapshot differs from the entries"]

    def _check_chain(self, office: str, row: LedgerRow) -> Steps[list[str]]:
        """Return a finding for each kept entry with events whose checksum does not follow from the one before it."""
        findings: list[str] = []
        after, before = 0, None
        while True:
            (rows,) = yield RoundTrip((Statement("read_event_entries", (row.id, after, _EVENT_ENTRIES_PAGE)),))
            for older, newer in pairwise([*([before] if before else []), *rows]):
                number, first_event, count, body, checksum = newer
                expected = entry_checksum(bytes(older[4]), number, first_event, count, bytes(body))
                if number == older[0] + 1 and bytes(checksum) != expected:
                    findings.append(f"office {office}: entry {number} was altered, or the entry before it")
            if len(rows) < _EVENT_ENTRIES_PAGE:
                return findings
            before = rows[-1]
            after = before[1] + before[2] - 1

    def _reconcile(self, address: str, events: Sequence[RecordedEvent]) -> Steps[Reconciliation]:
        row = yield from self._lock_row(address)
        if kind_of(address) is not OFFICE:
            yield RoundTrip((), end="rollback")
            if events:
                raise InvalidRequest("events", "events for a ledger that has none", "an office's id, or no events")
            return Reconciliation(address, 0 if row is None else 1)
        if row is None:
            return (yield from _roll_back(Reconciliation(address, 0)))
        ledger, findings, complete, wrong_snapshot = yield from self._audited(address)
        damaged = ledger.state.state
        repaired, is_wrong = yield from _in_thread(partial(_recomputed, damaged, complete))
        numbered = [(one.number, one.event) for one in events]
        restored = restore_events(repaired, row.last_event_number, numbered)
        now_ms = yield from self._transactions.read_time(row)
        corrected_by_ms = 0 if restored else correct_time(repaired, now_ms)
        added = restored + bool(corrected_by_ms)
        statements = [Statement("raise_epoch", (row.id,))]
        if is_wrong:
            raise DamagedLedger(f"{address}: the records and counters differ: restore the database from a backup")
        if wrong_snapshot:  # all entries are kept, and make another one
            statements.append(Statement("set_snapshot", (0, row.id)))
        if added:
            new = repaired.events[-added:]
            number, first_event = row.last_number + 1, row.last_event_number + 1
            body = office_codec.encode_entry(repaired.now_ms, new, ())
            checksum = entry_checksum(row.checksum, number, first_event, added, body)
            last_event = row.last_event_number + added
            statements += [
                Statement("insert_entry", (row.id, number, first_event, added, body, checksum)),
                Statement("update_ledger", (number, last_event, repaired.now_ms, checksum, row.id)),
            ]
        yield RoundTrip(tuple(statements), end="commit")
        return Reconciliation(address, row.epoch + 1, tuple(findings), int(wrong_snapshot), restored, corrected_by_ms)

    # --- Snapshots ---------------------------------------------------------------------------------------------------

    def write_snapshot(self, snapshot: Snapshot) -> Steps[None]:
        """Write a snapshot part by part, then make it the ledger's, and drop what no reader needs any more.

        Another process may write one meanwhile. The later one wins, and the other one is deleted with its parts. Two
        processes may write one of the same number with other parts; then the parts of both are mixed, and neither is
        made the ledger's. So the parts that are stored are compared with the written ones at the end.
        """
        ledger_id, number = snapshot.id, snapshot.position.number
        parts: list[bytes] = []
        digests: list[bytes] = []
        while True:
            parts.clear()
            yield ThreadWork(lambda: parts.extend([part for part in (next(snapshot.parts, None),) if part]))
            if not parts:
                break
            statement = Statement("insert_snapshot_part", (ledger_id, number, len(digests), parts[0]))
            yield from self._transactions.retry(lambda statement=statement: _write(statement))  # type: ignore[misc]
            digests.append(parts[0][:PART_DIGEST_BYTES])
        yield from self._transactions.retry(lambda: self._publish_snapshot(snapshot, digests))

    def _publish_snapshot(self, snapshot: Snapshot, digests: list[bytes]) -> Steps[None]:
        row = yield from self._lock_row(snapshot.address)
        number = snapshot.position.number
        if row is None or row.id != snapshot.id or not row.snapshot_number < number <= row.last_number:
            yield RoundTrip((), end="rollback")
            return
        (entry, rows) = yield RoundTrip(
            (
                Statement("read_entry_checksum", (row.id, number)),
                Statement("read_snapshot_digests", (row.id, number)),
            )
        )
        # A failover may have lost the entry, and another one has its number since.
        is_lost = [bytes(checksum) for (checksum,) in entry] != [snapshot.position.checksum]
        if is_lost or [(part, bytes(digest)) for part, digest in rows] != [*enumerate(digests)]:
            yield RoundTrip((), end="rollback")
            return
        trimmed = row.trimmed_event_number if kind_of(snapshot.address) is OFFICE else row.last_event_number
        statements = yield from self._drop_entries(row, trimmed, number)
        statements += [
            Statement("set_snapshot", (number, row.id)),
            Statement("delete_snapshots", (row.id, number)),
        ]
        yield RoundTrip(tuple(statements), end="commit")
        ledger = self._transactions.cache.get(snapshot.address)
        if ledger is not None:
            ledger.unsaved_bytes = 0

    def _read_row(self, address: str) -> Steps[LedgerRow | None]:
        (rows,) = yield RoundTrip((Statement("read_ledger", (address,)),))
        return _written(row_of(rows))

    def _lock_row(self, address: str) -> Steps[LedgerRow | None]:
        (rows,) = yield RoundTrip((Statement("lock_ledger", (address,)),), begin=True)
        return _written(row_of(rows))


def _written(row: LedgerRow | None) -> LedgerRow | None:
    return row if row is not None and row.last_number else None


def _nothing() -> Steps[list[Any]]:
    yield from ()
    return []


def _roll_back(result: T) -> Steps[T]:
    yield RoundTrip((), end="rollback")
    return result


def _in_thread(work: Callable[[], T]) -> Steps[T]:
    """Run a function that takes long for a large office. Under asyncio, the event loop serves others meanwhile."""
    results: list[T] = []
    yield ThreadWork(lambda: results.append(work()))
    return results[0]


def _recomputed(damaged: Ledger, complete: bool) -> tuple[Ledger, bool]:
    """Return an office's ledger as it should be, and True if it differs."""
    repaired = recompute(damaged, from_events=complete)
    repaired.events = list(damaged.events)
    return repaired, describe(repaired) != describe(damaged)


def _write(statement: Statement) -> Steps[None]:
    yield RoundTrip((statement,))


def _group(body: bytes) -> ConsumerGroup:
    delivered, leases = decode(body, "a consumer group")
    return ConsumerGroup(delivered, tuple(Lease(*lease) for lease in leases))


def _known_group(groups: dict[str, ConsumerGroup], name: str) -> ConsumerGroup | None:
    """Return the group, or ``None`` if it does not exist and may be created.

    Raises:
        InvalidRequest: It does not exist, and the office has as many groups as it may have.
    """
    if name not in groups and len(groups) >= GROUPS_MAX:
        raise InvalidRequest(
            "consumer_group",
            f"the office has {GROUPS_MAX} groups, which is the limit",
            "an existing group; delete one first to create another",
        )
    return groups.get(name)


def _write_group(row: LedgerRow, name: str, group: ConsumerGroup) -> Steps[None]:
    leases = [(one.first, one.last, one.consumer, one.since_ms) for one in group.leases]
    body = encode(group.delivered, leases)
    yield RoundTrip((Statement("write_group", (row.id, name, body)),), end="commit")
