"""The entries of offices: the events of a batch, and the changes of the admission state beside them.

Events alone rebuild an office's reservations. The admission state (token buckets and used passes) leaves no events, so
an entry has the charges and markers as well, with their times.
"""

from __future__ import annotations

__all__ = [
    "COUNTS",
    "PARTY_FIELDS",
    "AdmissionChange",
    "ChoiceTable",
    "JournaledBuckets",
    "choice_row",
    "decode_entry",
    "encode_entry",
    "replay_admission",
]

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from quota_engine import typed_data
from quota_engine.admission.token_bucket import Buckets, Charge, Limit, SlidingWindow, TakeOutcome
from quota_engine.domain.events import Event, ReservationChanged
from quota_engine.domain.lifecycle import State, Verb
from quota_engine.domain.model import Choice, Reservation
from quota_engine.stores.sql.entry_codec import DamagedLedger, decode, encode

AdmissionChange = tuple[Any, ...]
"""``("take", now_ms, charges)`` or ``("mark", name, until_ms, now_ms)``."""

PARTY_FIELDS: Final = ("former_applicants", "queue_offsets")
"""The last fields of a record, which are tuples and mostly empty: its party has changed if they are not."""

COUNTS: Final = tuple(name for name in Reservation.__struct_fields__[10:] if name not in PARTY_FIELDS)
"""The fields of a record from its queue number to :data:`PARTY_FIELDS`, all of them integers. An entry names those that
it has: a field that a later version adds is 0 in an entry of an earlier one.
"""
_STATES: Final = {str(state): state for state in State}
_VERBS: Final = {str(verb): verb for verb in Verb}


class JournaledBuckets(Buckets):
    """Buckets that keep a journal of their changes. The same changes lead other buckets to the same state."""

    __slots__ = ("journal",)

    def __init__(self) -> None:
        super().__init__()
        self.journal: list[AdmissionChange] = []

    def take(self, charges: tuple[Charge, ...], now_ms: int) -> TakeOutcome:
        """See :meth:`Buckets.take`. A refusal may set the time, which is a change."""
        before_ms = self.now_ms
        outcome = super().take(charges, now_ms)
        if outcome.refused_by < 0 or self.now_ms != before_ms:
            self.journal.append(("take", now_ms, encode_charges(charges)))
        return outcome

    def put_marker(self, name: str, until_ms: int, now_ms: int) -> None:
        """See :meth:`Buckets.put_marker`."""
        super().put_marker(name, until_ms, now_ms)
        self.journal.append(("mark", name, until_ms, now_ms))


def encode_charges(charges: Sequence[Charge]) -> list[tuple[Any, ...]]:
    """Return charges as tuples of plain values, without the flags that only an outcome depends on."""
    return [
        (one.name, one.cost, type(one.limit) is SlidingWindow, one.limit.amount, one.limit.per_ms, one.limit.burst)
        for one in charges
    ]


def decode_charges(rows: Sequence[Sequence[Any]]) -> tuple[Charge, ...]:
    """Return the charges of :func:`encode_charges`."""
    return tuple(
        Charge(name, (SlidingWindow if is_window else Limit)(amount, per_ms, burst), cost)
        for name, cost, is_window, amount, per_ms, burst in rows
    )


def replay_admission(buckets: Buckets, changes: Sequence[Sequence[Any]]) -> None:
    """Apply the changes of a journal to the buckets of another copy of the ledger."""
    for change in changes:
        if change[0] == "take":
            Buckets.take(buckets, decode_charges(change[2]), change[1])
        else:
            Buckets.put_marker(buckets, change[1], change[2], change[3])


class ChoiceTable:
    """The choices and sets of quotas of one office, each of them once in memory."""

    __slots__ = ("_choices", "_quotas")

    def __init__(self) -> None:
        self._choices: dict[Choice, Choice] = {}
        self._quotas: dict[tuple[str, ...], tuple[str, ...]] = {}

    def choices(self, rows: Sequence[Sequence[Any]]) -> list[Choice]:
        """Return stored choices."""
        return [
            self._choices.setdefault(one, one)
            for one in (Choice(*texts, tuple(map(tuple, options))) for *texts, options in rows)  # type: ignore[call-arg]
        ]

    def quotas(self, rows: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
        """Return stored sets of quotas."""
        return [self._quotas.setdefault(one, one) for one in map(tuple, rows)]


class _Indexes:
    """Gives each distinct value of an entry an index, in the order in which they come."""

    __slots__ = ("indexes",)

    def __init__(self) -> None:
        self.indexes: dict[Any, int] = {}

    def of(self, value: Any) -> int:
        index = self.indexes.get(value)
        if index is None:
            index = self.indexes[value] = len(self.indexes)
        return index


def encode_entry(base_ms: int, events: Sequence[Event], admission: Sequence[AdmissionChange]) -> bytes:
    """Return an entry.

    Args:
        base_ms: Time of the batch. Times are stored relative to it, because most of them are near it.
        events: Events of the batch, in order.
        admission: Changes of the admission state, in order.
    """
    choices, quotas = _Indexes(), _Indexes()
    last_choice, last_choice_index = None, 0  # hashing a choice costs more than the rest of a row
    rows: list[Any] = []
    for event in events:
        if type(event) is not ReservationChanged:
            rows.append(msgspec.to_builtins(event))
            continue
        record = event.reservation
        if record.choice is not last_choice:
            last_choice, last_choice_index = record.choice, choices.of(record.choice)
        rows.append(
            (
                event.verb,
                event.at_ms - base_ms,
                record.id,
                record.day,
                record.applicants,
                last_choice_index,
                quotas.of(record.quotas),
                record.state,
                record.version,
                record.created_at_ms - base_ms,
                record.deadline_at_ms - base_ms if record.deadline_at_ms else None,
                *[getattr(record, name) for name in COUNTS],
                *((record.former_applicants, record.queue_offsets) if record.former_applicants else ()),
            )
        )
    choice_rows = [choice_row(one) for one in choices.indexes]
    return encode(base_ms, COUNTS, choice_rows, list(quotas.indexes), rows, admission)


def choice_row(choice: Choice) -> tuple[Any, ...]:
    """Return a choice as plain values, for :meth:`ChoiceTable.choices`."""
    return choice.service, choice.service_unit, choice.session, choice.channel, choice.group, choice.options


def decode_entry(office: str, body: bytes, table: ChoiceTable, what: str) -> tuple[list[Event], list[Any]]:
    """Return the events of an entry, and the changes of the admission state.

    Args:
        office: The office's id.
        body: The entry.
        table: Choices that are shared with other entries.
        what: Name of the entry in an error.

    Raises:
        DamagedLedger: The entry cannot be read.
        BackendUnavailable: A newer version of the library wrote it.
    """
    try:
        base_ms, counts, choice_rows, quota_rows, rows, admission = decode(body, what)
        choices, quotas = table.choices(choice_rows), table.quotas(quota_rows)
        reorder = None if tuple(counts) == COUNTS else counts
        return [_event(office, base_ms, choices, quotas, row, reorder) for row in rows], admission
    except (ValueError, TypeError, LookupError) as error:
        raise DamagedLedger(f"{what} cannot be read ({error}): restore the database from a backup") from None


def _event(
    office: str,
    base_ms: int,
    choices: list[Choice],
    quotas: list[tuple[str, ...]],
    row: Any,
    names: Sequence[str] | None,
) -> Event:
    """Return the event of a row. ``names`` are those of its counts, or ``None`` if they are the present ones."""
    if type(row) is dict:
        event: Event = typed_data.convert(row, Event)
        return event
    verb, at_ms, key, day, applicants, choice, quota, state, version, created_ms, deadline_ms, *counts = row
    party: tuple[tuple[Any, ...], ...] = ()
    count = len(COUNTS if names is None else names)
    if len(counts) > count:
        party, counts = tuple(map(tuple, counts[count:])), counts[:count]
    if names is not None:
        stored = dict(zip(names, counts, strict=True))
        counts = [stored.get(name, 0) for name in COUNTS]
    return ReservationChanged(
        base_ms + at_ms,
        _VERBS[verb],
        Reservation(
            office,
            key,
            day,
            tuple(applicants),
            choices[choice],
            quotas[quota],
            _STATES[state],
            version,
            base_ms + created_ms,
            0 if deadline_ms is None else base_ms + deadline_ms,
            *counts,
            *party,
        ),
    )
