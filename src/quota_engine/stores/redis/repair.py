"""The writes that make a stored office equal to a ledger: only where they differ.

The counterpart of ``state_decoder``, which decodes a stored office into a ledger.
"""

from __future__ import annotations

__all__ = ["Write", "writes_between"]

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from quota_engine.domain.events import Event
from quota_engine.domain.ledger import Day, Ledger, Quota, known_reservation
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import Choice, Reservation
from quota_engine.domain.offers import wait_list_due_ms
from quota_engine.stores.redis.codecs.office import text_of_applicant, text_of_choice
from quota_engine.stores.redis.codecs.office_state import (
    EVENT_NUMBERS,
    choice_index,
    text_of_event,
    text_of_penalty,
    text_of_record,
)
from quota_engine.stores.redis.codecs.office_terms import (
    text_of_guards_of_day,
    text_of_rules,
    text_of_scope,
    text_of_sessions,
)
from quota_engine.stores.redis.keys import OFFICE_KEY_NAMES

Write = tuple[str, int, str, str]
"""A command, the number of its key in the scripts (from 1), and its two arguments."""

_KEY: Final = {kind: number for number, kind in enumerate(OFFICE_KEY_NAMES, 1)}


def writes_between(
    state: list[Any], wanted: Ledger, number: int, restored: Sequence[Event], stored: Ledger
) -> list[Write]:
    """Return the writes that make a stored office equal to a ledger.

    Records of forgotten days that the purge has not reached stay as they are.

    Args:
        state: The replies of ``lua/office/reconcile.lua`` to ``begin``, each hash as a dictionary.
        wanted: The ledger.
        number: The number of the last stored event.
        restored: Events of the ledger that follow on it and are not stored yet.
        stored: The ledger that the replies decode to.
    """
    head, days, records, claims, penalties, cooling, _, updated, choices, _, due, waiting = state
    indexes = _Indexes(choices)
    known = [record for record in wanted.reservations.values() if known_reservation(wanted, record.id) is record]
    texts = {record.id: _text_of(record, indexes, records.get(record.id, ""), stored) for record in known}
    writes = [
        *_hash_writes("records", records, texts),
        *_claims(claims, wanted, set(texts)),
        *_days(days, wanted, known),
        *_penalties(penalties, updated, wanted),
        *_due(due, known, records, indexes),
        *_cooling(cooling, wanted),
        *_waiting(waiting, wanted),
        *_events(number, restored, indexes),
        *_head(head, wanted, number + len(restored)),
    ]
    return [*indexes.writes(), *writes]


def _text_of(record: Reservation, indexes: _Indexes, text: str, stored: Ledger) -> str:
    """Return the text of a record; the stored one if it says the same, which spares most of the time."""
    index = indexes.of(record.choice, record.day)
    if stored.reservations.get(record.id) == record and choice_index(text.split("\t", 5)) == index:
        return text
    return text_of_record(record, index)


class _Indexes:
    """The indexes of choices and the last day that used each one. Choices without an index get one."""

    def __init__(self, choices: dict[str, str]) -> None:
        self._known: dict[str, tuple[str, int]] = {}
        for field, value in choices.items():
            if field.startswith("="):
                index, last_day = value.split("\t")
                self._known[field[1:]] = index, int(last_day)
        self._stored = dict(self._known)
        self._count = int(choices.get("n", "0"))

    def of(self, choice: Choice, day: int) -> str:
        """Return the index of a choice, for a record on this day."""
        text = text_of_choice(choice)
        index, last_day = self._known.get(text, ("", 0))
        if not index:
            self._count += 1
            index = str(self._count)
        self._known[text] = index, max(last_day, day)
        return index

    def writes(self) -> Iterator[Write]:
        for text, (index, last_day) in self._known.items():
            if self._stored.get(text) != (index, last_day):
                yield "HSET", _KEY["choices"], index, text
                yield "HSET", _KEY["choices"], f"={text}", f"{index}\t{last_day}"
                yield "HDEL", _KEY["choices"], f"x{index}", ""
        if len(self._known) > len(self._stored):
            yield "HSET", _KEY["choices"], "n", str(self._count)


def _events(number: int, restored: Sequence[Event], indexes: _Indexes) -> Iterator[Write]:
    for own, event in enumerate(restored, number + 1):
        yield "XADD", _KEY["events"], str(own), text_of_event(event, indexes.of)


def _hash_writes(kind: str, stored: dict[str, str], wanted: dict[str, str]) -> Iterator[Write]:
    for field, text in wanted.items():
        if stored.get(field) != text:
            yield "HSET", _KEY[kind], field, text


def _head(head: dict[str, str], wanted: Ledger, number: int) -> Iterator[Write]:
    texts = {
        "now_ms": str(wanted.now_ms),
        "number": str(number),
        "rules": text_of_rules(wanted.rules),
        "forgotten_day_max": str(wanted.forgotten_day_max),
        "abandoned": ",".join(map(str, msgspec.structs.astuple(wanted.abandoned))),
    }
    defaults = {"rules": text_of_rules(Ledger("").rules), "forgotten_day_max": "0", "abandoned": "0,0,0"}
    yield from _hash_writes("head", {**defaults, **head}, texts)
    forget_at_ms = [day.terms.forget_at_ms for day in wanted.days.values()]
    if forget_at_ms and int(head.get("next_forget_ms", 0)) > min(forget_at_ms):
        yield "HSET", _KEY["head"], "next_forget_ms", str(min(forget_at_ms))


def _claims(claims: dict[str, str], wanted: Ledger, known: set[str]) -> Iterator[Write]:
    texts = {text_of_applicant(one): (ids,) if isinstance(ids, str) else ids for one, ids in wanted.claims.items()}
    for applicant in {**claims, **texts}:
        if applicant == "~":
            continue
        stored = claims.get(applicant, "").split(",") if applicant in claims else []
        ids = [one for one in texts.get(applicant, ()) if one in known]
        others = [one for one in stored if one not in known]
        if [one for one in stored if one in known] != ids:
            text = ",".join([*ids, *others])
            yield "HSET" if text else "HDEL", _KEY["claims"], applicant, text


def _days(days: dict[str, str], wanted: Ledger, known: list[Reservation]) -> Iterator[Write]:
    texts: dict[str, str] = {}
    holds_of: dict[int, list[Reservation]] = {number: [] for number in wanted.days}
    for record in known:
        if record.state is State.HELD:
            holds_of[record.day].append(record)
    for number, day in wanted.days.items():
        texts[f"t{number}"] = msgspec.json.encode(day.terms).decode()
        holds = holds_of[number]
        stored = days.get(str(number))
        if stored is None or not _is_equal(stored, wanted, day, holds):
            texts[str(number)] = _text_of_day(day, holds)
    yield from _hash_writes("days", days, texts)
    for field in days:
        if field != "~" and int(field.removeprefix("t")) not in wanted.days:
            yield "HDEL", _KEY["days"], field, ""


def _text_of_day(day: Day, holds: list[Reservation]) -> str:
    terms = day.terms
    first = (
        int(day.closed),
        day.last_queue_number,
        0,  # next_due_ms: the next command settles the day
        len(day.waiting),
        day.departed,
        day.revision,
        day.last_wait_list_number,
        terms.opens_at_ms,
        terms.starts_at_ms,
        terms.ends_at_ms,
        terms.forget_at_ms,
        text_of_sessions(terms.sessions),
        text_of_guards_of_day(day.guards),
    )
    rows = ["\t".join(map(str, first)), "\t".join(sorted({",".join(record.quotas) for record in holds}))]
    return "\n".join([*rows, *(_text_of_quota(name, quota) for name, quota in day.quotas.items())])


def _text_of_quota(name: str, quota: Quota) -> str:
    rule, reallocation = quota.re_release, quota.reallocation
    counters = (quota.capacity, quota.free, quota.held, quota.confirmed, quota.cooling, quota.parked)
    since_ms = quota.free_since_ms
    to, at_ms = (reallocation.to, reallocation.at_ms) if reallocation is not None else ("", 0)
    terms = (rule.rule, rule.cooling_ms, rule.jitter_ms, to, at_ms, rule.blocks_ms, text_of_scope(quota.guard))
    return "\t".join(map(str, (name, *counters, since_ms, *terms)))


def _is_equal(stored: str, ledger: Ledger, day: Day, holds: list[Reservation]) -> bool:
    """Return True if a stored day equals the day. Its next_due_ms may be early, and its sets of quotas too many."""
    first, sets, *quotas = stored.split("\n")
    wanted_first, wanted_sets, *wanted_quotas = _text_of_day(day, holds).split("\n")
    fields, wanted_fields = first.split("\t"), wanted_first.split("\t")
    next_due_ms, fields[2] = int(fields[2]), wanted_fields[2]
    moments_ms = [record.deadline_at_ms for record in holds]
    moments_ms += [due_ms for quota in day.quotas.values() for due_ms, _ in quota.cooling_due]
    reallocations_ms = [quota.reallocation.at_ms for quota in day.quotas.values() if quota.reallocation is not None]
    moments_ms += [at_ms for at_ms in reallocations_ms if at_ms > ledger.now_ms]
    if day.waiting:
        moments_ms.append(wait_list_due_ms(ledger, day))
    return (
        (fields, quotas) == (wanted_fields, wanted_quotas)
        and set(wanted_sets.split("\t")) - {""} <= set(sets.split("\t"))
        and all(next_due_ms <= moment_ms for moment_ms in moments_ms)
    )


def _penalties(penalties: dict[str, str], updated: list[str], wanted: Ledger) -> Iterator[Write]:
    texts = {text_of_applicant(applicant): text_of_penalty(one) for applicant, one in wanted.penalties.items()}
    yield from _hash_writes("penalties", penalties, texts)
    for applicant in penalties:
        if applicant != "~" and applicant not in texts:
            yield "HDEL", _KEY["penalties"], applicant, ""
    in_order = [applicant for applicant in updated if applicant != "~"]
    if in_order != list(texts):
        # Scores of new penalties are higher: they are event numbers, and each penalty has had an event.
        yield from (("ZADD", _KEY["updated"], str(rank), applicant) for rank, applicant in enumerate(texts, 1))
        yield from (("ZREM", _KEY["updated"], one, "") for one in in_order if one not in texts)


def _due(due: list[str], known: list[Reservation], records: dict[str, str], indexes: _Indexes) -> Iterator[Write]:
    wanted = {
        f"{one.day}/{','.join(one.quotas)}/{one.deadline_at_ms:015}/{one.id}"
        for one in known
        if one.state is State.HELD
    }
    stored = set(due)
    wanted |= {_wait_queue_member(one, indexes, stored) for one in known if one.state is State.WAITING}
    ids = {one.id for one in known}
    for member in wanted.difference(stored):
        yield "ZADD", _KEY["due"], "0", member
    for member in due:
        reservation_id = member.rpartition("/")[2]
        is_rest = reservation_id in records and reservation_id not in ids  # of a forgotten day: the purge deletes it
        if not member.startswith("~") and member not in wanted and not is_rest:
            yield "ZREM", _KEY["due"], member, ""


def _wait_queue_member(record: Reservation, indexes: _Indexes, stored: set[str]) -> str:
    """Return the member of a waiting party, which may be in either place after its pause; see ``wait_list.lua``."""
    demand = f"{indexes.of(record.choice, record.day)}:{record.units}"
    place = f"{demand}/{record.wait_list_number:015}/{record.id}"
    queued = f"w{record.day}/{place}"
    if not record.paused_until_ms or queued in stored:
        return queued
    return f"p{record.day}/{record.paused_until_ms:015}/{place}"


def _cooling(cooling: list[str], wanted: Ledger) -> Iterator[Write]:
    missing = Counter(
        (str(number), name, f"{due_ms:015}", f"{units:015}")
        for number, day in wanted.days.items()
        for name, quota in day.quotas.items()
        for due_ms, units in quota.cooling_due
    )
    for member in cooling:
        if member != "~":
            what = tuple(member.split("/")[:4])
            missing[what] -= 1  # type: ignore[index]
            if missing[what] < 0:  # type: ignore[index]
                yield "ZREM", _KEY["cooling"], member, ""
    for what, times in missing.items():
        for one in range(times):  # the reservation that returned them no longer matters
            yield "ZADD", _KEY["cooling"], "0", "/".join([*what, "repaired", str(one)])


def _waiting(waiting: list[str], wanted: Ledger) -> Iterator[Write]:
    """Yield the writes of the wait lists. ``waiting`` has members and scores alternating."""
    scores = {member: float(score) for member, score in zip(waiting[::2], waiting[1::2], strict=True)}
    ids = {one for day in wanted.days.values() for one in day.waiting}
    for day in wanted.days.values():
        first = day.number * EVENT_NUMBERS
        for reservation_id, wait_list_number in day.waiting.items():
            if scores.get(reservation_id) != first + wait_list_number:
                yield "ZADD", _KEY["waiting"], str(first + wait_list_number), reservation_id
    for reservation_id in scores:
        known = known_reservation(wanted, reservation_id)
        if known is not None and reservation_id not in ids:
            yield "ZREM", _KEY["waiting"], reservation_id, ""
