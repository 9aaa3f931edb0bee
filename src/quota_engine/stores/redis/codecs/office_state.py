"""The codec of an office's stored state: records, events, penalties and consumer groups.

``lua/office/codec.lua`` has the same layouts.
"""

from __future__ import annotations

__all__ = [
    "EVENT_NUMBERS",
    "LETTER_OF_VERB",
    "choice_index",
    "event_of_text",
    "group_of_text",
    "names_of_event",
    "penalty_of_text",
    "text_of_event",
    "text_of_penalty",
    "text_of_record",
]

from collections.abc import Callable
from typing import Final

import msgspec

from quota_engine import typed_data
from quota_engine.domain.consumer_groups import ConsumerGroup, Lease
from quota_engine.domain.events import (
    CapacitySet,
    Cooled,
    DayClosed,
    DayForgotten,
    DayOpened,
    DayPublished,
    Event,
    ParkedReleased,
    ReservationChanged,
    RulesSet,
    TimeCorrected,
    UnitsReallocated,
)
from quota_engine.domain.lifecycle import Verb
from quota_engine.domain.model import Choice, DayTerms, Reservation
from quota_engine.domain.penalties import NoShowBlock, PenaltyRecord
from quota_engine.stores.redis.codecs.office import STATE_OF_LETTER, OfficeDecoder, applicant_of_text, text_of_party
from quota_engine.stores.redis.codecs.office_terms import rules_of_text, text_of_rules

EVENT_NUMBERS: Final = 2**31
"""Above every number of one day's wait list, whose order in the store is day * EVENT_NUMBERS + number."""

VERB_OF_LETTER: Final = {
    "R": Verb.RESERVE,
    "W": Verb.WAIT,
    "O": Verb.OFFER,
    "K": Verb.DECLINE,
    "C": Verb.CONFIRM,
    "Q": Verb.REACQUIRE,
    "D": Verb.EXTEND,
    "P": Verb.REMOVE_APPLICANT,
    "S": Verb.REPLACE_APPLICANT,
    "L": Verb.RELEASE,
    "E": Verb.EXPIRE,
    "X": Verb.CANCEL,
    "M": Verb.RESCHEDULE,
    "A": Verb.CHECK_IN,
    "N": Verb.MARK_NO_SHOW,
    "V": Verb.UNDO_ATTENDANCE,
    "Y": Verb.STAY,
    "I": Verb.MOVE_IN,
    "J": Verb.MOVE_IN_CONFIRMED,
    "U": Verb.MOVE_OUT,
    "B": Verb.UNDO_MOVE,
}
_LETTER_OF_STATE: Final = {state: letter for letter, state in STATE_OF_LETTER.items()}
LETTER_OF_VERB: Final = {verb: letter for letter, verb in VERB_OF_LETTER.items()}
_NAME_OF_EVENT: Final[dict[type, str]] = {
    CapacitySet: "capacity_set",
    DayClosed: "day_closed",
    DayOpened: "day_opened",
    DayForgotten: "day_forgotten",
    UnitsReallocated: "units_reallocated",
    Cooled: "cooled",
    ParkedReleased: "parked_released",
    TimeCorrected: "time_corrected",
}
_TERMS_DECODER: Final = typed_data.json_decoder(DayTerms)


def text_of_penalty(penalty: PenaltyRecord) -> str:
    """Return a penalty record as text; ``lua/office/penalties.lua`` describes it."""
    ends = ",".join(map(str, penalty.abandoned_at_ms))
    text = ",".join(map(str, (penalty.blocked_until_ms, *penalty.cancelled_at_ms))) + (f";{ends}" if ends else "")
    if not penalty.no_show_blocks:
        return text
    blocks = (f"{one.reservation_id},{one.undo_until_ms},{one.until_ms}" for one in penalty.no_show_blocks)
    return f"{text}{'' if ends else ';'};{penalty.other_block_until_ms},{','.join(blocks)}"


def penalty_of_text(text: str) -> PenaltyRecord:
    """Return a penalty record from its text."""
    first, ends, undoable, *_ = (*text.split(";"), "", "")
    blocked_until_ms, *cancelled_at_ms = map(int, first.split(","))
    abandoned_at_ms = tuple(map(int, ends.split(","))) if ends else ()
    other_until_ms, *rest = undoable.split(",")
    if not rest:
        return PenaltyRecord(tuple(cancelled_at_ms), blocked_until_ms, abandoned_at_ms)
    triples = zip(rest[::3], rest[1::3], rest[2::3], strict=True)
    blocks = tuple(NoShowBlock(key, int(undo_until), int(until)) for key, undo_until, until in triples)
    return PenaltyRecord(tuple(cancelled_at_ms), blocked_until_ms, abandoned_at_ms, blocks, int(other_until_ms))


def choice_index(fields: list[str]) -> str:
    """Return the index of a reservation's choice from its stored fields."""
    return fields[4].rstrip("abcdefghijklmnop")


def event_of_text(text: str, decoder: OfficeDecoder, choices: dict[str, str]) -> Event:
    """Return an event from its text. ``choices`` has the texts of choices by index."""
    kind, *fields = text.split("\t")
    if kind[0].isupper():
        reservation_id, *stored = fields
        record = decoder.record(reservation_id, stored, decoder.choice(choices[choice_index(stored)]))
        at_ms = record.created_at_ms + (int(kind[1:], 36) if len(kind) > 1 else 0)
        return ReservationChanged(at_ms, VERB_OF_LETTER[kind[0]], record)
    at_ms, fields = int(fields[0]), fields[1:]
    if kind == "rules_set":
        return RulesSet(at_ms, rules_of_text("\t".join(fields)))
    if kind == "day_published":
        return DayPublished(at_ms, int(fields[0]), _TERMS_DECODER.decode(fields[1]))
    return _EVENT[kind](at_ms, fields)


def names_of_event(text: str) -> tuple[str, ...]:
    """Return the id and the applicants of a reservation's event; nothing for any other event."""
    fields = text.split("\t")
    return (fields[1], *map(applicant_of_text, fields[7].split(","))) if fields[0][0].isupper() else ()


def _short(number: int) -> str:
    """Return a number in base 36. ``int(text, 36)`` is the inverse."""
    digits = ""
    while True:
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
        if not number:
            return digits


def text_of_record(record: Reservation, choice_index: str) -> str:
    """Return a reservation as text; ``lua/office/codec.lua`` describes it."""
    option = chr(ord("a") + record.choice.options.index(record.quotas)) if record.quotas else ""
    undo = f".{_short(record.undo_until_ms - record.created_at_ms)}" if record.undo_until_ms else ""
    fields = [
        f"{_LETTER_OF_STATE[record.state]}{record.version}{undo}",
        str(record.day),
        _short(record.created_at_ms),
        _short(record.deadline_at_ms - record.created_at_ms) if record.deadline_at_ms else "",
        f"{choice_index}{option}",
        text_of_party(record.applicants),
    ]
    numbers = (
        record.queue_number,
        record.moves,
        record.forced_moves,
        record.extensions,
        record.wait_list_number,
        record.declines,
        record.paused_until_ms,
    )
    more = [*map(str, numbers), text_of_party(record.former_applicants), ",".join(map(str, record.queue_offsets))]
    while more and more[-1] == ("0" if len(more) <= len(numbers) else ""):
        more.pop()
    return "\t".join((*fields, *more))


def text_of_event(event: Event, index_of: Callable[[Choice, int], str]) -> str:
    """Return an event as text. ``index_of`` returns the index of a choice, for a record on a day."""
    if isinstance(event, ReservationChanged):
        record = event.reservation
        later_ms = event.at_ms - record.created_at_ms
        kind = LETTER_OF_VERB[event.verb] + (_short(later_ms) if later_ms else "")
        return f"{kind}\t{record.id}\t{text_of_record(record, index_of(record.choice, record.day))}"
    if isinstance(event, RulesSet):
        return f"rules_set\t{event.at_ms}\t{text_of_rules(event.rules)}"
    if isinstance(event, DayPublished):
        return f"day_published\t{event.at_ms}\t{event.day}\t{msgspec.json.encode(event.terms).decode()}"
    values = (getattr(event, name) for name in event.__struct_fields__)
    texts = (f"{value:d}" if isinstance(value, bool) else str(value) for value in values)
    return "\t".join([_NAME_OF_EVENT[type(event)], *texts])


def group_of_text(text: str) -> ConsumerGroup:
    """Return a consumer group from its text: the highest delivered number, and a row for each lease."""
    delivered, *rows = text.split("\n")
    leases = [row.split("\t") for row in rows]
    return ConsumerGroup(
        int(delivered), tuple(Lease(int(first), int(last), name, int(since)) for first, last, name, since in leases)
    )


_EVENT: Final[dict[str, Callable[[int, list[str]], Event]]] = {
    "capacity_set": lambda at, f: CapacitySet(at, int(f[0]), f[1], int(f[2])),
    "day_closed": lambda at, f: DayClosed(at, int(f[0])),
    "day_opened": lambda at, f: DayOpened(at, int(f[0])),
    "day_forgotten": lambda at, f: DayForgotten(at, int(f[0])),
    "units_reallocated": lambda at, f: UnitsReallocated(at, int(f[0]), f[1], f[2], int(f[3]), f[4] == "1"),
    "cooled": lambda at, f: Cooled(at, int(f[0]), f[1], int(f[2]), int(f[3])),
    "parked_released": lambda at, f: ParkedReleased(at, int(f[0]), f[1], int(f[2])),
    "time_corrected": lambda at, f: TimeCorrected(at, int(f[0])),
}
