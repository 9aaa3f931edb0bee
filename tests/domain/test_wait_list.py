"""The queues of a wait list: the first party of each demand, and parties that are paused."""

from __future__ import annotations

from random import Random

from msgspec.structs import replace

from quota_engine.conformance.world import DAY, OFFICE, ONLINE, PRIORITY
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import Choice, Reservation
from quota_engine.domain.wait_list import WaitQueues


def party(number: int, units: int = 1, choice: Choice = PRIORITY, paused_until_ms: int = 0) -> Reservation:
    """Return a waiting party with this number on the list."""
    applicants = tuple(f"p{number}-{one}" for one in range(units))
    record = Reservation(OFFICE, f"r{number}", DAY, applicants, choice, (), State.WAITING, 1, 0, 0, 0, 0)
    return replace(record, wait_list_number=number, paused_until_ms=paused_until_ms)


def test_the_first_party_of_each_demand_comes_in_the_order_of_numbers() -> None:
    """A naive list with the same parties agrees after every change, at times that run back."""
    random = Random(5)
    queues, known, now_ms = WaitQueues(), dict[str, Reservation](), 0
    for number in range(1, 800):
        now_ms = max(0, now_ms + random.choice((0, 1, 1, 2, -3)))
        if known and random.random() < 0.4:
            gone = known.pop(random.choice(list(known)))
            queues.discard(gone)
        pause_ms = now_ms + random.choice((1, 5)) if random.random() < 0.4 else 0
        one = party(number, random.choice((1, 2)), random.choice((PRIORITY, ONLINE)), pause_ms)
        known[one.id] = one
        queues.add(one)
        while queues.resume(now_ms, 2):
            pass
        ready = [record for record in known.values() if record.paused_until_ms <= now_ms]
        expected = {
            (record.choice, record.units): record
            for record in sorted(ready, key=lambda record: -record.wait_list_number)
        }
        assert {(one.choice, one.units): one for one in queues.heads(known, now_ms)} == expected
        later = queues.next_of((PRIORITY, 1), number // 2, known, now_ms)
        behind = [one for one in ready if (one.choice, one.units) == (PRIORITY, 1)]
        numbers = [one.wait_list_number for one in behind if one.wait_list_number > number // 2]
        assert (later.wait_list_number if later else None) == min(numbers, default=None)


def test_a_demand_counts_once() -> None:
    queues = WaitQueues()
    for number in range(1, 5):
        queues.add(party(number, 1 + number % 2))
    assert len(queues) == 2
    assert (PRIORITY, 2) in queues
    assert (PRIORITY, 3) not in queues


def test_a_party_that_is_not_there_is_ignored() -> None:
    """A damaged ledger may have a waiting party that no queue has."""
    queues = WaitQueues()
    queues.add(party(1, paused_until_ms=9))
    queues.discard(party(2))
    queues.discard(party(3, paused_until_ms=9))
    assert queues.next_resume_ms() == 9
    queues.discard(party(1, paused_until_ms=9))
    assert queues.next_resume_ms() is None
