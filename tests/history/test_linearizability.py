"""Histories of calls without events: an order of the calls explains the answers, or none does."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from quota_engine.cli.main import main
from quota_engine.fuzz.runner import run_seed
from quota_engine.history import linearizability
from quota_engine.history.calls import CallRecord
from quota_engine.history.checker import History, check
from quota_engine.history.files import HistoryError, dump, load
from quota_engine.history.linearizability import SearchTooLarge
from quota_engine.history.model import ReservationState
from tests.support.effort import seeds

OFFICE = "surabaya"
DAY = 739_000
TERMS = {
    "opens_at_ms": 10,
    "starts_at_ms": 900_000,
    "ends_at_ms": 1_000_000,
    "forget_at_ms": 2_000_000,
    "quotas": [{"name": "online", "capacity": 1}],
}
DEADLINE_MS = 60_000


class Story:
    """Calls at one office with a day of one place, with sensible values where a test gives none."""

    def __init__(self) -> None:
        self.history = History(days={OFFICE: {DAY: TERMS}})

    def call(self, began_at_ms: int, ended_at_ms: int, name: str, key: str, status: str, **fields: Any) -> CallRecord:
        if name == "reserve":
            fields = {"day": DAY, "options": (("online",),), **fields}
        call = CallRecord(name, OFFICE, key, began_at_ms=began_at_ms, ended_at_ms=ended_at_ms, status=status, **fields)
        self.history.calls.append(call)
        return call

    def findings(self) -> list[str]:
        return check(load(dump(self.history)))


@pytest.fixture
def story() -> Story:
    return Story()


def place(key: str, state: str, version: int, numbers: tuple[int, ...] = ()) -> ReservationState:
    return ReservationState(key, DAY, state, version, 1, ("online",), DEADLINE_MS, numbers)


def held(key: str) -> dict[str, Any]:
    return {"shown": place(key, "HELD", 1)}


def test_right_history_has_no_findings(story: Story) -> None:
    story.call(100, 110, "reserve", "ani", "HELD", **held("ani"))
    story.call(120, 130, "reserve", "budi", "SOLD_OUT")
    story.call(140, 150, "confirm", "ani", "CONFIRMED", shown=place("ani", "CONFIRMED", 2, (1,)))
    story.call(160, 170, "confirm", "ani", "CONFIRMED", repeats=True, shown=place("ani", "CONFIRMED", 2, (1,)))
    story.call(180, 190, "cancel", "ani", "CANCELLED")
    story.call(200, 210, "reserve", "budi", "HELD", **held("budi"))
    assert story.findings() == []


def test_answers_of_calls_at_the_same_time_may_have_any_order(story: Story) -> None:
    """The call that began last took the place first, and the one in the middle saw it before its release."""
    story.call(100, 400, "reserve", "ani", "HELD", **held("ani"))
    story.call(110, 390, "reserve", "budi", "SOLD_OUT")
    story.call(120, 380, "reserve", "citra", "HELD", **held("citra"))
    story.call(130, 370, "release", "citra", "RELEASED")
    assert story.findings() == []


def test_place_that_is_sold_twice_is_found(story: Story) -> None:
    story.call(100, 200, "reserve", "ani", "HELD", **held("ani"))
    story.call(110, 190, "reserve", "budi", "HELD", **held("budi"))
    (finding,) = story.findings()
    assert "no order of 2 calls explains their answers" in finding


def test_stale_answer_is_found(story: Story) -> None:
    """The place was free again before the call began."""
    story.call(100, 110, "reserve", "ani", "HELD", **held("ani"))
    story.call(120, 130, "release", "ani", "RELEASED")
    story.call(140, 150, "reserve", "budi", "SOLD_OUT")
    (finding,) = story.findings()
    assert "reserve budi: SOLD_OUT" in finding


def test_stale_record_is_found(story: Story) -> None:
    story.call(100, 110, "reserve", "ani", "HELD", **held("ani"))
    story.call(120, 130, "confirm", "ani", "CONFIRMED", shown=place("ani", "CONFIRMED", 2, (1,)))
    story.call(140, 150, "reserve", "ani", "HELD", repeats=True, **held("ani"))
    assert "reserve ani: HELD again" in story.findings()[0]


def test_lost_reservation_is_found(story: Story) -> None:
    story.call(100, 110, "reserve", "ani", "HELD", **held("ani"))
    story.call(120, 130, "confirm", "ani", "NOT_FOUND")
    assert "confirm ani: NOT_FOUND" in story.findings()[0]


def test_queue_number_given_twice_is_found(story: Story) -> None:
    story.history.days[OFFICE][DAY] = {**TERMS, "quotas": [{"name": "online", "capacity": 2}]}
    for at_ms, key in ((100, "ani"), (200, "budi")):
        story.call(at_ms, at_ms + 10, "reserve", key, "HELD", **held(key))
        story.call(at_ms + 20, at_ms + 30, "confirm", key, "CONFIRMED", shown=place(key, "CONFIRMED", 2, (1,)))
    assert "confirm budi: CONFIRMED" in story.findings()[0]


@pytest.mark.parametrize(
    ("status", "is_unknown", "is_right"), [("SOLD_OUT", True, True), ("HELD", True, True), ("SOLD_OUT", False, False)]
)
def test_call_without_an_answer_may_have_had_its_effect(
    story: Story, status: str, is_unknown: bool, is_right: bool
) -> None:
    story.call(100, 110, "reserve", "ani", "", is_unknown=is_unknown)
    story.call(120, 130, "reserve", "budi", status, **(held("budi") if status == "HELD" else {}))
    assert (story.findings() == []) is is_right


def test_effect_comes_not_after_the_end_of_its_call(story: Story) -> None:
    """The first reserve finds the place free, so the call without an answer had no effect before its end."""
    story.call(100, 110, "reserve", "ani", "", is_unknown=True)
    story.call(120, 130, "reserve", "budi", "HELD", **held("budi"))
    story.call(140, 150, "release", "budi", "RELEASED")
    story.call(160, 170, "reserve", "citra", "SOLD_OUT")
    assert story.findings()


def test_attempt_whose_reply_was_lost_may_have_the_effect(story: Story) -> None:
    """A repeated attempt says that an earlier one had the effect, which another call saw before."""
    story.call(100, 400, "reserve", "ani", "HELD", repeats=True, **held("ani"))
    story.call(110, 120, "reserve", "budi", "SOLD_OUT")
    assert story.findings() == []


@pytest.mark.parametrize(("at_ms", "is_right"), [(DEADLINE_MS - 20, False), (DEADLINE_MS, True)])
def test_hold_ends_at_its_deadline(story: Story, at_ms: int, is_right: bool) -> None:
    story.call(100, 110, "reserve", "ani", "HELD", **held("ani"))
    story.call(at_ms, at_ms + 10, "confirm", "ani", "HOLD_EXPIRED")
    assert (story.findings() == []) is is_right
    story.call(at_ms + 11, at_ms + 15, "reserve", "budi", "HELD", **held("budi"))
    assert (story.findings() == []) is is_right


def test_waiting_party_may_get_and_lose_an_offer(story: Story) -> None:
    """No call makes or ends an offer, so a party that waits may have had one."""
    rule = {"re_release": {"rule": "wait_list"}}
    story.history.days[OFFICE][DAY] = {**TERMS, "quotas": [{"name": "online", "capacity": 1, **rule}]}
    story.call(100, 110, "reserve", "ani", "HELD", **held("ani"))
    story.call(120, 130, "reserve", "budi", "WAITING")
    story.call(140, 150, "release", "ani", "RELEASED")
    story.call(160, 170, "confirm", "budi", "HOLD_EXPIRED")
    assert story.findings() == []
    story.call(180, 190, "cancel", "budi", "CANCELLED")
    assert "cancel budi: CANCELLED" in story.findings()[0]


def test_operators_calls_change_the_day(story: Story) -> None:
    story.call(100, 110, "set_capacity", "", "DONE", day=DAY, quota="online", capacity=2)
    story.call(120, 130, "reserve", "ani", "HELD", **held("ani"))
    story.call(120, 130, "reserve", "budi", "HELD", **held("budi"))
    story.call(140, 150, "close_day", "", "DONE", day=DAY)
    story.call(160, 170, "reserve", "citra", "DAY_CLOSED")
    story.call(160, 170, "confirm", "ani", "DAY_CLOSED")
    assert story.findings() == []
    story.call(180, 190, "open_day", "", "DONE", day=DAY)
    story.call(200, 210, "confirm", "ani", "DAY_CLOSED")
    assert "confirm ani: DAY_CLOSED" in story.findings()[0]


def test_day_that_is_not_described_has_no_capacity(story: Story) -> None:
    story.history.days.clear()
    for key in ("ani", "budi"):
        story.call(100, 110, "reserve", key, "HELD", **held(key))
    story.call(120, 130, "reserve", "citra", "SOLD_OUT")
    assert story.findings() == []
    story.call(140, 150, "release", "ani", "NOT_FOUND")
    assert "release ani: NOT_FOUND" in story.findings()[0]


def test_search_that_is_too_large_says_so(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linearizability, "STATES_MAX", 200)
    story.history.days[OFFICE][DAY] = {**TERMS, "quotas": [{"name": "online", "capacity": 19}]}
    for number in range(20):
        story.call(100, 200, "reserve", f"r{number}", "HELD", **held(f"r{number}"))
    with pytest.raises(SearchTooLarge, match="surabaya: more than 200 states"):
        story.findings()


def test_audit_command_searches_an_order(
    story: Story, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "history.jsonl"
    story.call(100, 200, "reserve", "ani", "HELD", **held("ani"))
    path.write_text("\n".join(dump(story.history)), encoding="utf-8")
    assert main(["audit", "--history", str(path)]) == 0
    assert capsys.readouterr().out == "the history: no findings\n"
    story.call(110, 190, "reserve", "budi", "HELD", **held("budi"))
    path.write_text("\n".join(dump(story.history)), encoding="utf-8")
    assert main(["audit", "--history", str(path), "--json"]) == 1
    assert "no order of 2 calls" in json.loads(capsys.readouterr().out)["findings"][0]
    monkeypatch.setattr(linearizability, "STATES_MAX", 1)
    assert main(["audit", "--history", str(path)]) == 2
    assert "too many of its calls were open at the same time" in capsys.readouterr().err


def test_description_of_a_day_needs_its_times() -> None:
    with pytest.raises(HistoryError, match="line 1"):
        load([json.dumps({"office": OFFICE, "day": DAY, "terms": {"quotas": []}})])


# --- Against all permutations ---------------------------------------------------------------------------------------

_GOALS = {"reserve": ("", "HELD"), "confirm": ("HELD", "CONFIRMED"), "release": ("HELD", "RELEASED")}
Order = Sequence[tuple[str, CallRecord]]
"""Steps: the answer of a call, an earlier attempt of it, or the end of a hold that such an attempt made."""


def is_right_order(steps: Order, capacity: int) -> bool:
    """Return True if each answer is right when the steps are taken in this order."""
    states: dict[str, str] = {}
    made_by: dict[str, CallRecord] = {}
    for kind, call in steps:
        state = states.get(call.id, "")
        if kind == "end":
            if state != "HELD" or made_by.get(call.id) is not call:
                return False
            states[call.id] = "EXPIRED"
            continue
        source, target = _GOALS[call.name]
        is_full = sum(one in ("HELD", "CONFIRMED") for one in states.values()) >= capacity
        if call.name == "reserve" and state:
            answer = f"{state} again" if state in ("HELD", "CONFIRMED") else "RESERVATION_ENDED"
        elif call.name == "reserve" and is_full:
            answer = "SOLD_OUT"
        elif state == source:
            answer = target
        elif state == target:
            answer = f"{target} again"
        else:
            answer = "WRONG_STATE" if state else "NOT_FOUND"
        wanted = call.status + " again" * call.repeats
        # A reserve may also have found a hold that its party has under another key.
        if kind == "answer" and answer != wanted and wanted != "HELD again":
            return False
        if answer == target and (kind == "attempt" or answer == wanted):
            states[call.id] = target
            made_by[call.id] = call if kind == "attempt" and call.name == "reserve" else made_by.get(call.id, call)
    return True


def orders(calls: Sequence[CallRecord]) -> Iterator[Order]:
    """Yield all orders that respect real time."""
    answers = [("answer", one) for one in calls if one.status]
    attempts = [("attempt", one) for one in calls if one.may_act and not one.must_act]
    for count in range(len(attempts) + 1):
        for chosen in itertools.combinations(attempts, count):
            holds = [("end", one) for _, one in chosen if one.name == "reserve"]
            for ends in range(len(holds) + 1):
                for ended in itertools.combinations(holds, ends):
                    yield from filter(_respects_time, itertools.permutations([*answers, *chosen, *ended]))


def _respects_time(order: Order) -> bool:
    return all(
        "end" in (first[0], second[0])
        or (first[1] is second[1] and first[0] == "attempt")
        or (first[1] is not second[1] and first[1].began_at_ms <= second[1].ended_at_ms)
        for first, second in itertools.combinations(order, 2)
    )


def draw_calls(random: Random) -> list[CallRecord]:
    calls = []
    for number in range(random.choice((2, 3, 3))):
        name = random.choice(("reserve", "reserve", "confirm", "release"))
        goal = _GOALS[name][1]
        status = random.choice((goal, goal, "SOLD_OUT" if name == "reserve" else "NOT_FOUND", ""))
        key = random.choice(("ani", "budi")) if number else "ani"
        began_at_ms = 100 + random.randrange(6)
        repeats = status == goal and random.random() < 0.3
        call = CallRecord(name, OFFICE, key, DAY if name == "reserve" else 0, status=status, repeats=repeats)
        call.options = (("online",),) if name == "reserve" else ()
        call.began_at_ms, call.ended_at_ms = began_at_ms, began_at_ms + random.randrange(1, 5)
        call.is_unknown = not status
        call.shown = place(key, "HELD", 1) if status == "HELD" and not repeats else None
        calls.append(call)
    return calls


def test_search_agrees_with_all_permutations() -> None:
    verdicts: Counter[bool] = Counter()
    for seed in seeds(300, 4_000):
        random = Random(f"permutations {seed}")
        capacity, calls = random.choice((1, 2)), draw_calls(random)
        terms: Mapping[str, Any] = {**TERMS, "quotas": [{"name": "online", "capacity": capacity}]}
        expected = any(is_right_order(order, capacity) for order in orders(calls))
        found = check(History(calls=calls, days={OFFICE: {DAY: terms}}))
        assert (found == []) is expected, (seed, capacity, [str(one) for one in calls], found)
        verdicts[expected] += 1
    assert min(verdicts.values()) >= 50, verdicts


# --- Histories of the simulator -------------------------------------------------------------------------------------


def without_events(history: History) -> History:
    """Return a history with the calls alone, and with the days that were published once.

    The times of the calls become those of the store's clock, which answers show.
    """
    days: dict[str, dict[int, Any]] = {}
    for office, events in history.events.items():
        published = [one["details"] for one in events if one["kind"] == "DayPublished"]
        counts = Counter(one["day"] for one in published)
        days[office] = {one["day"]: one["terms"] for one in published if counts[one["day"]] == 1}
        (shift_ms,) = {one["at_ms"] - one["real_ms"] for one in events}
        for call in history.calls:
            if call.office == office:
                call.began_at_ms, call.ended_at_ms = call.began_at_ms + shift_ms, call.ended_at_ms + shift_ms
    return History(calls=history.calls, days=days)


@pytest.mark.parametrize("seed", [11, 43, 75])
def test_simulated_history_without_its_events_has_no_findings(seed: int) -> None:
    """The seeds have many reserves of a few places, with faults, and no clock is set."""
    history = load(run_seed(seed, store="memory", keeps_history=True).history)
    assert history.clock_is_real
    assert not history.losses
    calls = without_events(history)
    assert len(calls.calls) >= 100
    assert check(calls) == []
    # One wrong answer is found: a place that was refused, although it was sold.
    sold = next(one for one in calls.calls if one.must_act and one.name == "reserve")
    sold.status, sold.shown = "SOLD_OUT", None
    assert check(calls)
