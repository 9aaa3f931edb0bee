"""Snapshots of ledgers: the whole state after an entry, as sealed parts of bounded size.

:func:`snapshot_of` copies what may change, which takes a few milliseconds for 100,000 reservations because records are
immutable. Its parts are encoded one by one later, while the ledger changes. Columns hold the reservations, so that
a million of them are read by loops of the interpreter's own C code.
"""

from __future__ import annotations

__all__ = ["PART_ITEMS", "SnapshotReader", "snapshot_of"]

from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heapify
from itertools import compress, islice, repeat
from typing import Any, Final, NamedTuple

import msgspec
from msgspec.structs import replace

from quota_engine import typed_data
from quota_engine.admission.guarded_command import GuardedLedger
from quota_engine.admission.token_bucket import Buckets
from quota_engine.domain.cross_office_registry import ClaimEntry, MoveEntry, Registry
from quota_engine.domain.ledger import Day, Quota, guards_of
from quota_engine.domain.lifecycle import ACTIVE, State
from quota_engine.domain.model import DayTerms, GuardScope, QuotaTerms, Reallocation, ReRelease, Reservation, Rules
from quota_engine.domain.outcomes import AbandonedHolds
from quota_engine.domain.penalties import NoShowBlock, PenaltyRecord
from quota_engine.draws.commands import DrawConfig
from quota_engine.draws.ledger import DrawLedger
from quota_engine.draws.lottery import Preference
from quota_engine.draws.queries import FrozenInputs, StoredApplication
from quota_engine.stores.sql.entry_codec import DamagedLedger, encode, open_part, seal_part
from quota_engine.stores.sql.office_codec import PARTY_FIELDS, ChoiceTable, choice_row
from quota_engine.waiting_room.commands import RoomConfig
from quota_engine.waiting_room.machine import RoomState
from quota_engine.waiting_room.results import TicketCall

PART_ITEMS: Final = 10_000
"""Items of one part, such as reservations: about a megabyte."""

_STATE_CODES: Final = {state: code for code, state in enumerate(State)}
_STATE_NAMES: Final = tuple(str(state) for state in State)
_INTEGERS: Final = tuple(name for name in Reservation.__struct_fields__[7:] if name not in PARTY_FIELDS)
"""The fields of a record from its version to the party's, all of them integers."""
_DEFAULTED: Final = {field.name for field in msgspec.structs.fields(Reservation) if not field.required}
_REQUIRED_INTEGERS: Final = sum(name not in _DEFAULTED for name in _INTEGERS)
_DAY_COUNTERS: Final = ("departed", "last_queue_number", "last_wait_list_number", "revision")
_QUOTA_COUNTERS: Final = ("capacity", "free", "held", "confirmed", "cooling", "parked", "free_since_ms")
_Section = tuple[Any, ...]


class Position(NamedTuple):
    """The place of a snapshot in its ledger's chain of entries.

    Attributes:
        number: Number of the last entry that it contains.
        event_number: Number of the last event that it contains.
        checksum: Checksum of that entry.
    """

    number: int
    event_number: int
    checksum: bytes


def snapshot_of(state: Any, position: Position) -> Iterator[bytes]:
    """Return the parts of a snapshot. The state may change as soon as this function has returned.

    Args:
        state: The ledger's state.
        position: Its place in the chain of entries.
    """
    sections = _FREEZE[type(state)](state)
    return _sealed(sections, position)


def _sealed(sections: Iterator[_Section], position: Position) -> Iterator[bytes]:
    yield seal_part(encode("start", *position, _STATE_NAMES))
    count = 1
    for section in sections:
        yield seal_part(encode(*section))
        count += 1
    yield seal_part(encode("end", count))


def _chunks(name: str, items: Iterable[Any]) -> Iterator[_Section]:
    """Yield sections of at most ``PART_ITEMS`` items each."""
    remaining = iter(items)
    while chunk := list(islice(remaining, PART_ITEMS)):
        yield name, chunk


# --- Offices -------------------------------------------------------------------------------------------------------


def _freeze_office(ledger: GuardedLedger) -> Iterator[_Section]:
    days = ledger.days
    records = list(ledger.reservations.values())
    if ledger.forgotten_days:
        records = [record for record in records if record.day in days]
    known = ledger.reservations
    shared_claims = [
        (applicant, [one for one in ids if one in known and known[one].day in days])
        for applicant, ids in ledger.claims.items()
        if type(ids) is tuple
    ]
    head = (
        "office",
        ledger.now_ms,
        msgspec.to_builtins(ledger.rules),
        ledger.forgotten_day_max,
        msgspec.to_builtins(ledger.abandoned),
        [_day_row(day) for day in days.values()],
    )
    penalties = list(ledger.penalties.items())
    admission_ms, not_full = ledger.admission.now_ms, ledger.admission.not_full()

    def sections() -> Iterator[_Section]:
        yield head
        yield from _reservation_sections(records)
        yield from _chunks("claims", shared_claims)
        yield from _chunks(
            "penalties",
            (
                (key, one.cancelled_at_ms, one.blocked_until_ms, one.abandoned_at_ms, *_undoable(one))
                for key, one in penalties
            ),
        )
        yield from _bucket_sections(admission_ms, not_full)

    return sections()


def _undoable(penalty: PenaltyRecord) -> _Section:
    if not penalty.no_show_blocks:
        return ()
    blocks = [(one.reservation_id, one.undo_until_ms, one.until_ms) for one in penalty.no_show_blocks]
    return blocks, penalty.other_block_until_ms


def _day_row(day: Day) -> _Section:
    quotas = [
        (
            name,
            {counter: getattr(quota, counter) for counter in _QUOTA_COUNTERS},
            list(quota.cooling_due),
            msgspec.to_builtins(quota.re_release),
            msgspec.to_builtins(quota.reallocation),
            msgspec.to_builtins(quota.guard),
        )
        for name, quota in day.quotas.items()
    ]
    counters = {counter: getattr(day, counter) for counter in _DAY_COUNTERS}
    return day.number, msgspec.to_builtins(day.terms), day.closed, counters, quotas


def _reservation_sections(records: list[Reservation]) -> Iterator[_Section]:
    groups: dict[tuple[int, bool], list[Reservation]] = {}
    for record in records:
        groups.setdefault((record.day, len(record.applicants) == 1), []).append(record)
    for (day, is_single), group in groups.items():
        for start in range(0, len(group), PART_ITEMS):
            yield _columns(day, is_single, group[start : start + PART_ITEMS])


def _columns(day: int, is_single: bool, records: list[Reservation]) -> _Section:
    choices = {one: index for index, one in enumerate(dict.fromkeys(record.choice for record in records))}
    quotas = {one: index for index, one in enumerate(dict.fromkeys(record.quotas for record in records))}
    applicants = [record.applicants[0] if is_single else record.applicants for record in records]
    return (
        "reservations",
        day,
        is_single,
        [choice_row(one) for one in choices],
        list(quotas),
        [record.id for record in records],
        applicants,
        _packed([choices[record.choice] for record in records], len(choices)),
        _packed([quotas[record.quotas] for record in records], len(quotas)),
        bytes([_STATE_CODES[record.state] for record in records]),
        {name: _column([getattr(record, name) for record in records]) for name in _INTEGERS},
        [
            (index, record.former_applicants, record.queue_offsets)
            for index, record in enumerate(records)
            if record.former_applicants
        ],
    )


def _column(values: list[int]) -> list[int] | int:
    """Return the values of a column, or the one value that all records have: most counts are zero."""
    return values[0] if values.count(values[0]) == len(values) else values


def _packed(indexes: list[int], count: int) -> bytes | list[int]:
    """Return indexes as bytes if each fits into one. Both forms are iterated alike."""
    return bytes(indexes) if count <= 256 else indexes


def _cells(column: list[int] | int) -> Iterable[int]:
    """Return the values of a column of :func:`_column`."""
    return repeat(column) if isinstance(column, int) else column


def _chosen(values: Sequence[Any], indexes: Iterable[int]) -> Iterable[Any]:
    """Return the value of each index."""
    return map(values.__getitem__, indexes) if len(values) > 1 else repeat(values[0])


def _cells_of(integers: dict[str, list[int] | int]) -> list[Iterable[int]]:
    """Return the cells of the integer columns, without the last ones whose records all have the default, zero."""
    columns = [integers.get(name, 0) for name in _INTEGERS]
    while len(columns) > _REQUIRED_INTEGERS and columns[-1] == 0:
        columns.pop()
    return [_cells(column) for column in columns]


class _OfficeReader:
    """Restores an office's ledger."""

    def __init__(self, ledger: GuardedLedger, table: ChoiceTable, state_names: Sequence[str]) -> None:
        self._ledger = ledger
        self._table = table
        self._states = [State(name) for name in state_names]  # by the codes of the snapshot's version
        self._active = [state in ACTIVE for state in self._states]

    def office(
        self, now_ms: int, rules: Any, forgotten_day_max: int, abandoned: Any, days: list[Any], *_: object
    ) -> None:
        ledger = self._ledger
        ledger.now_ms, ledger.forgotten_day_max = now_ms, forgotten_day_max
        ledger.rules = typed_data.convert(rules, Rules)
        ledger.abandoned = typed_data.convert(abandoned, AbandonedHolds)
        for number, terms, closed, counters, quotas in days:
            day = Day(number, typed_data.convert(terms, DayTerms))
            day.closed = closed
            for name, count in counters.items():
                setattr(day, name, count)
            day.quotas = dict(map(_quota, quotas))
            day.guards = guards_of(day.quotas)
            ledger.days[number] = day
            ledger.next_forget_ms = min(ledger.next_forget_ms, day.terms.forget_at_ms)

    def reservations(
        self,
        day_number: int,
        is_single: bool,
        choice_rows: list[Any],
        quota_rows: list[Any],
        ids: list[str],
        applicants: list[Any],
        choice_indexes: Iterable[int],
        quota_indexes: Iterable[int],
        state_codes: bytes,
        integers: dict[str, list[int] | int],
        changed_parties: Iterable[tuple[int, list[str], list[int]]] = (),
    ) -> None:
        ledger, day = self._ledger, self._ledger.days[day_number]
        codes = set(state_codes)
        records = list(
            map(
                Reservation,
                repeat(ledger.office),
                ids,
                repeat(day_number),
                zip(applicants, strict=True) if is_single else map(tuple, applicants),
                _chosen(self._table.choices(choice_rows), choice_indexes),
                _chosen(self._table.quotas(quota_rows), quota_indexes),
                _chosen(self._states, state_codes) if len(codes) > 1 else repeat(self._states[state_codes[0]]),
                *_cells_of(integers),
            )
        )
        for index, former, offsets in changed_parties:
            party = {"former_applicants": tuple(former), "queue_offsets": tuple(offsets)}
            records[index] = replace(records[index], **party)
        ledger.reservations.update(zip(ids, records, strict=True))
        day.reservation_ids += ids
        is_active: Iterable[bool] = (
            [self._active[code] for code in state_codes] if len(codes) > 1 else repeat(self._active[state_codes[0]])
        )
        if is_single:
            ledger.claims.update(compress(zip(applicants, ids, strict=True), is_active))
        else:
            for record in compress(records, is_active):
                ledger.claims.update(zip(record.applicants, repeat(record.id)))
        if self._states.index(State.HELD) in codes:
            for record in records:
                if record.state is State.HELD:
                    day.push_due(record)
        if self._states.index(State.WAITING) in codes:
            for record in records:
                if record.state is State.WAITING:
                    day.waiting[record.id] = record.wait_list_number
                    day.wait_queues.add(record)

    def claims(self, rows: list[Any]) -> None:
        for applicant, ids in rows:
            if ids:
                self._ledger.claims[applicant] = tuple(ids) if len(ids) > 1 else ids[0]

    def penalties(self, rows: list[Any]) -> None:
        for applicant, cancelled_at_ms, blocked_until_ms, abandoned_at_ms, *undoable in rows:
            blocks, other_until_ms = undoable or ((), 0)
            self._ledger.penalties[applicant] = PenaltyRecord(
                tuple(cancelled_at_ms),
                blocked_until_ms,
                tuple(abandoned_at_ms),
                tuple(NoShowBlock(*block) for block in blocks),
                other_until_ms,
            )

    def buckets(self, now_ms: int, rows: list[Any]) -> None:
        _restore_buckets(self._ledger.admission, now_ms, rows)


def _quota(row: Sequence[Any]) -> tuple[str, Quota]:
    name, counters, cooling_due, re_release, reallocation, *later = row
    quota = Quota(
        QuotaTerms(
            name,
            0,
            typed_data.convert(re_release, ReRelease),
            typed_data.convert(reallocation, Reallocation | None),
            typed_data.convert(later[0], GuardScope | None) if later else None,
        )
    )
    for counter, value in counters.items():
        setattr(quota, counter, value)
    quota.cooling_due = [(due_at_ms, units) for due_at_ms, units in cooling_due]
    return name, quota


# --- Ledgers without events ----------------------------------------------------------------------------------------


def _bucket_sections(now_ms: int, not_full: dict[str, tuple[int, int]]) -> Iterator[_Section]:
    if not not_full:
        yield "buckets", now_ms, []
    for _, rows in _chunks("", ((name, *stored) for name, stored in not_full.items())):
        yield "buckets", now_ms, rows


def _restore_buckets(buckets: Buckets, now_ms: int, rows: list[Any]) -> None:
    by_name = buckets.not_full() | {name: (full_at_ms, early) for name, full_at_ms, early in rows}
    restored = Buckets.restore(now_ms, by_name)
    for field in Buckets.__slots__:
        if field != "buckets_max":
            setattr(buckets, field, getattr(restored, field))


def _freeze_buckets(buckets: Buckets) -> Iterator[_Section]:
    return _bucket_sections(buckets.now_ms, buckets.not_full())


_ROOM_FIELDS: Final = tuple(field for field in RoomState.__slots__ if field not in ("config", "identities"))


def _freeze_room(room: RoomState) -> Iterator[_Section]:
    fields = {field: _copied(getattr(room, field)) for field in _ROOM_FIELDS}
    head = ("room", None if room.config is None else msgspec.to_builtins(room.config), fields)
    identities = list(room.identities.items())

    def sections() -> Iterator[_Section]:
        yield head
        yield from _chunks("identities", identities)

    return sections()


def _copied(value: Any) -> Any:
    return list(value) if isinstance(value, list) else value


class _RoomReader:
    """Restores a waiting room."""

    def __init__(self, room: RoomState) -> None:
        self._room = room

    def room(self, config: Any, fields: dict[str, Any]) -> None:
        room = self._room
        room.config = typed_data.convert(config, RoomConfig | None)
        for field, value in fields.items():
            setattr(room, field, value)
        room.windows = [(number, first) for number, first in fields["windows"]]
        room.calls = [TicketCall(*call) for call in fields["calls"]]
        room.epoch_starts = [(epoch, count) for epoch, count in fields["epoch_starts"]]

    def identities(self, rows: list[Any]) -> None:
        self._room.identities.update(rows)


_DRAW_FIELDS: Final = (
    "now_ms",
    "closed",
    "seed",
    "entropy",
    "epoch",
    "frozen_epoch",
    "revealed_epoch",
    "last_number",
    "active_applicants",
    "active_applications",
)


def _freeze_draw(draw: DrawLedger) -> Iterator[_Section]:
    fields = {field: getattr(draw, field) for field in _DRAW_FIELDS}
    head = ("draw", msgspec.to_builtins(draw.config), msgspec.to_builtins(draw.frozen), fields)
    applications, numbers = list(draw.applications.values()), list(draw.assigned_numbers.items())
    preferences, offered = list(draw.preferences), list(draw.offered_days.items())

    def sections() -> Iterator[_Section]:
        yield head
        yield from _chunks("preferences", (msgspec.to_builtins(one) for one in preferences))
        yield from _chunks("assigned", numbers)
        yield from _chunks(
            "applications",
            ((one.number, one.version, one.applicants, one.preferences, one.epoch) for one in applications),
        )
        yield from _chunks("offered", ((office, day, quotas) for (office, day), quotas in offered))

    return sections()


class _DrawReader:
    """Restores a draw."""

    def __init__(self, draw: DrawLedger) -> None:
        self._draw = draw

    def draw(self, config: Any, frozen: Any, fields: dict[str, Any]) -> None:
        draw = self._draw
        draw.config = typed_data.convert(config, DrawConfig | None)
        draw.frozen = typed_data.convert(frozen, FrozenInputs | None)
        for field, value in fields.items():
            setattr(draw, field, value)

    def preferences(self, rows: list[Any]) -> None:
        for one in typed_data.convert(rows, list[Preference]):
            self._draw.preferences.append(one)
            self._draw.preference_numbers[one] = len(self._draw.preferences)

    def assigned(self, rows: list[Any]) -> None:
        self._draw.assigned_numbers.update(rows)

    def applications(self, rows: list[Any]) -> None:
        for number, version, applicants, preferences, epoch in rows:
            one = StoredApplication(number, version, tuple(applicants), tuple(preferences), epoch)
            self._draw.applications[number] = one
            self._draw.application_of.update(zip(one.applicants, repeat(number)))

    def offered(self, rows: list[Any]) -> None:
        for office, day, quotas in rows:
            self._draw.offered_days[office, day] = tuple((name, units) for name, units in quotas)


def _freeze_registry(registry: Registry) -> Iterator[_Section]:
    head = ("registry", registry.now_ms, registry.number)
    claims, moves = list(registry.claims.items()), list(registry.moves.values())

    def sections() -> Iterator[_Section]:
        yield head
        yield from _chunks("claims", ((key, *msgspec.structs.astuple(one)) for key, one in claims))
        yield from _chunks("moves", map(msgspec.structs.astuple, moves))

    return sections()


class _RegistryReader:
    """Restores a shard of the registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def registry(self, now_ms: int, number: int) -> None:
        self._registry.now_ms, self._registry.number = now_ms, number

    def claims(self, rows: list[Any]) -> None:
        registry = self._registry
        for applicant, *fields in rows:
            entry = registry.claims[applicant] = ClaimEntry(*fields)
            registry.claims_due.append((entry.forget_at_ms, applicant))
        heapify(registry.claims_due)

    def moves(self, rows: list[Any]) -> None:
        registry = self._registry
        for fields in rows:
            entry = registry.moves[fields[0]] = MoveEntry(*fields)
            registry.moves_due.append((entry.forget_at_ms, entry.source))
        heapify(registry.moves_due)


class _BucketsReader:
    """Restores the buckets of a ledger."""

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets

    def buckets(self, now_ms: int, rows: list[Any]) -> None:
        _restore_buckets(self._buckets, now_ms, rows)


_FREEZE: Final[dict[type, Callable[[Any], Iterator[_Section]]]] = {
    GuardedLedger: _freeze_office,
    RoomState: _freeze_room,
    DrawLedger: _freeze_draw,
    Registry: _freeze_registry,
    Buckets: _freeze_buckets,
}

_READERS: Final[dict[type, Callable[[Any], Any]]] = {
    RoomState: _RoomReader,
    DrawLedger: _DrawReader,
    Registry: _RegistryReader,
    Buckets: _BucketsReader,
}


class SnapshotReader:
    """Restores a state from the parts of a snapshot, in order.

    Attributes:
        position: The snapshot's place in the chain of entries, once its first part was read.
        parts: Parts that were read.
        is_complete: True once the last part was read.
    """

    def __init__(self, state: Any, what: str, table: ChoiceTable) -> None:
        """Begin with an empty state.

        Args:
            state: The new state; changed by each part.
            what: Name of the snapshot in an error.
            table: Choices that an office's ledger shares.
        """
        self.position = Position(0, 0, b"")
        self.parts = 0
        self.is_complete = False
        self._state, self._what, self._table = state, what, table
        self._reader: Any = None

    def read(self, number: int, part: bytes) -> None:
        """Read the next part.

        Raises:
            DamagedLedger: The part is missing, was altered, or cannot be read.
            BackendUnavailable: A newer version of the library wrote it.
        """
        what = f"part {number} of {self._what}"
        if number != self.parts or self.is_complete:
            raise DamagedLedger(f"part {self.parts} of {self._what} is missing: restore the database from a backup")
        name, *values = open_part(part, what)
        self.parts += 1
        try:
            if name == "start":
                *position, state_names = values
                self.position = Position(*position)
                self._reader = self._reader_of(state_names)
            elif name == "end":
                self.is_complete = values == [number]
            else:
                getattr(self._reader, name)(*values)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise DamagedLedger(f"{what} cannot be read ({error}): restore the database from a backup") from None

    def _reader_of(self, state_names: list[str]) -> Any:
        if isinstance(self._state, GuardedLedger):
            return _OfficeReader(self._state, self._table, state_names)
        return _READERS[type(self._state)](self._state)
