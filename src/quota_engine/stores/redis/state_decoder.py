"""Decodes a whole office into a ledger, so that the domain's audit and description serve every store."""

from __future__ import annotations

__all__ = ["HASH_INDEXES", "ledger_of_state"]

from heapq import heapify
from typing import Any, Final

import msgspec

from quota_engine import typed_data
from quota_engine.domain.events import ReservationChanged
from quota_engine.domain.ledger import Day, Ledger
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import DayTerms, QuotaTerms, Reallocation, ReRelease, ReReleaseRule, Reservation
from quota_engine.stores.redis.codecs.office import OfficeDecoder, abandoned_of_text, applicant_of_text
from quota_engine.stores.redis.codecs.office_state import choice_index, event_of_text, penalty_of_text
from quota_engine.stores.redis.codecs.office_terms import rules_of_text, scope_of_text

HASH_INDEXES: Final = frozenset({0, 1, 2, 3, 4, 8})
"""Indexes of the replies of ``lua/office/state.lua`` that are hashes."""

_TERMS: Final = typed_data.json_decoder(DayTerms)


def ledger_of_state(office: str, state: list[Any]) -> Ledger:
    """Return the ledger of an office.

    Args:
        office: The office.
        state: The replies of ``lua/office/state.lua``, each hash as a dictionary.
    """
    head, days, records, claims, penalties, cooling, waiting, updated, choices, events = state
    ledger = Ledger(office)
    decoder = OfficeDecoder(office)
    ledger.now_ms = int(head.get("now_ms", 0))
    if "rules" in head:
        ledger.rules = rules_of_text(head["rules"])
    if "abandoned" in head:
        ledger.abandoned = abandoned_of_text(head["abandoned"])
    ledger.forgotten_day_max = int(head.get("forgotten_day_max", 0))
    last_of: dict[str, tuple[str, Reservation]] = {}
    for text in events:
        event = event_of_text(text, decoder, choices)
        ledger.events.append(event)
        if type(event) is ReservationChanged:
            last_of[event.reservation.id] = text, event.reservation
    for number, text in days.items():
        if number.isdigit():
            day = _day(int(number), text, _TERMS.decode(days[f"t{number}"]))
            ledger.days[day.number] = day
    for reservation_id, text in records.items():
        if reservation_id != "~":
            fields = text.split("\t")
            choice = choices.get(choice_index(fields))
            if choice is None:  # the rest of a forgotten day
                continue
            # The last event of a reservation has the text of its record at its end, and so the record itself.
            last, record = last_of.get(reservation_id, ("", None))
            if record is None or not last.endswith(f"\t{reservation_id}\t{text}"):
                record = decoder.record(reservation_id, fields, decoder.choice(choice))
            ledger.reservations[reservation_id] = record
            if record.day in ledger.days:
                ledger.days[record.day].reservation_ids.append(reservation_id)
                if record.state is State.HELD:
                    ledger.days[record.day].push_due(record)
                if record.state is State.WAITING:
                    ledger.days[record.day].wait_queues.add(record)
    for applicant, ids in claims.items():
        if applicant != "~":
            claims_of = tuple(ids.split(","))
            ledger.claims[applicant_of_text(applicant)] = claims_of if len(claims_of) > 1 else claims_of[0]
    for applicant in updated:
        if applicant in penalties and applicant != "~":  # a damaged office must be readable, too
            ledger.penalties[applicant_of_text(applicant)] = penalty_of_text(penalties[applicant])
    for member in cooling:
        if member != "~":
            number, name, due_at_ms, units, _, _ = member.split("/")
            known_day = ledger.days.get(int(number))
            if known_day is not None and name in known_day.quotas:  # a damaged office may cool units of no quota
                known_day.quotas[name].cooling_due.append((int(due_at_ms), int(units)))
    for day in ledger.days.values():
        for quota in day.quotas.values():
            heapify(quota.cooling_due)
    for reservation_id in waiting:
        known = ledger.reservations.get(reservation_id)
        if known is not None and known.day in ledger.days:
            ledger.days[known.day].waiting[reservation_id] = known.wait_list_number
    return ledger


def _day(number: int, text: str, terms: DayTerms) -> Day:
    first, _, *rows = text.split("\n")
    closed, last_queue_number, _, _, departed, revision, last_wait_list_number, *_ = first.split("\t")
    quotas: list[QuotaTerms] = []
    counters: dict[str, list[int]] = {}
    for row in rows:
        name, *fields = row.split("\t")
        counters[name] = [int(field) for field in fields[:7]]
        rule, cooling_ms, jitter_ms, reallocate_to, reallocate_at_ms, blocks_ms, guard = fields[7:]
        reallocation = Reallocation(reallocate_to, int(reallocate_at_ms)) if reallocate_to else None
        re_release = ReRelease(ReReleaseRule(rule), int(cooling_ms), int(jitter_ms), int(blocks_ms))
        quotas.append(QuotaTerms(name, 0, re_release, reallocation, scope_of_text(guard)))
    day = Day(number, msgspec.structs.replace(terms, quotas=tuple(quotas)))
    day.terms = terms
    day.closed, day.departed = closed == "1", int(departed)
    day.last_queue_number = int(last_queue_number)
    day.revision, day.last_wait_list_number = int(revision), int(last_wait_list_number)
    for name, quota in day.quotas.items():
        quota.capacity, quota.free, quota.held, quota.confirmed, quota.cooling, quota.parked = counters[name][:6]
        quota.free_since_ms = counters[name][6]
    return day
