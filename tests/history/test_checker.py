"""Histories that are wrong in one way each, and the sentence that the checker has for them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from quota_engine.cli.main import main
from quota_engine.history.calls import CallRecord
from quota_engine.history.checker import History, Loss, check
from quota_engine.history.files import HistoryError, dump, load
from quota_engine.history.model import ReservationState

OFFICE = "surabaya"
DAY = 739_000
TERMS = {
    "opens_at_ms": 10,
    "starts_at_ms": 900_000,
    "ends_at_ms": 1_000_000,
    "forget_at_ms": 2_000_000,
    "quotas": [{"name": "online", "capacity": 1, "re_release": {"rule": "at_once"}}],
}


class Story:
    """Events and calls of one office, with sensible values where a test gives none."""

    def __init__(self) -> None:
        self.history = History()
        self.add_event(10, "DayPublished", day=DAY, terms=TERMS)

    def add_event(self, at_ms: int, kind: str, **details: Any) -> None:
        events = self.history.events.setdefault(OFFICE, [])
        events.append({"number": len(events) + 1, "at_ms": at_ms, "kind": kind, "details": details})

    def step(self, at_ms: int, verb: str, name: str, state: str, version: int, **fields: Any) -> ReservationState:
        place = ReservationState(name, DAY, state, version, 1, ("online",), 60_000, ())
        place = place._replace(**fields)
        record = {**place._asdict(), "reference": f"{OFFICE}~{name}"}
        del record["id"]
        events = self.history.events.setdefault(OFFICE, [])
        events.append(
            {
                "number": len(events) + 1,
                "at_ms": at_ms,
                "kind": "ReservationChanged",
                "verb": verb,
                "reservation": record,
            }
        )
        return place

    def call(self, began_at_ms: int, ended_at_ms: int, name: str, key: str, status: str, **fields: Any) -> None:
        call = CallRecord(name, OFFICE, key, began_at_ms=began_at_ms, ended_at_ms=ended_at_ms, status=status, **fields)
        self.history.calls.append(call)

    def findings(self) -> list[str]:
        return check(load(dump(self.history)))


@pytest.fixture
def story() -> Story:
    return Story()


def reserve(story: Story, at_ms: int, name: str, **fields: Any) -> ReservationState:
    place = story.step(at_ms, "reserve", name, "HELD", 1, **fields)
    story.call(at_ms - 5, at_ms + 5, "reserve", name, "HELD", shown=place, day=DAY)
    return place


def test_correct_history_has_no_findings(story: Story) -> None:
    reserve(story, 100, "ani")
    confirmed = story.step(200, "confirm", "ani", "CONFIRMED", 2, queue_numbers=(1,))
    story.call(190, 210, "confirm", "ani", "CONFIRMED", shown=confirmed)
    story.call(300, 310, "reserve", "budi", "SOLD_OUT", day=DAY, options=(("online",),))
    assert story.findings() == []


def test_oversell_is_found(story: Story) -> None:
    reserve(story, 100, "ani")
    reserve(story, 200, "budi")
    assert "oversells online" in story.findings()[0]


def test_effect_after_the_answer_is_found(story: Story) -> None:
    story.call(100, 110, "reserve", "ani", "SOLD_OUT", day=DAY)
    story.step(150, "reserve", "ani", "HELD", 1)
    assert any("follows from no call whose answer was still open" in one for one in story.findings())


def test_success_without_an_event_is_found(story: Story) -> None:
    story.call(100, 110, "confirm", "ani", "CONFIRMED")
    assert any("it has changed nothing" in one for one in story.findings())


def test_equal_calls_at_the_same_time_get_an_event_each(story: Story) -> None:
    """The call that began last ends first, so the first event must be its own."""
    for began_at_ms, ended_at_ms in ((100, 400), (110, 200), (120, 300)):
        fields = {"day": DAY, "quota": "online", "capacity": 2}
        story.call(began_at_ms, ended_at_ms, "set_capacity", "", "DONE", **fields)
    for at_ms in (190, 290, 390):
        story.add_event(at_ms, "CapacitySet", day=DAY, quota="online", capacity=2)
    assert story.findings() == []


def test_untrue_refusal_is_found(story: Story) -> None:
    story.call(100, 110, "reserve", "ani", "SOLD_OUT", day=DAY, options=(("online",),))
    assert any("was true at no moment" in one for one in story.findings())


def test_refusal_that_was_true_for_a_moment_is_accepted(story: Story) -> None:
    reserve(story, 100, "ani")
    story.call(90, 400, "reserve", "budi", "SOLD_OUT", day=DAY, options=(("online",),))
    released = story.step(300, "release", "ani", "RELEASED", 2)
    story.call(290, 310, "release", "ani", "RELEASED", shown=released)
    assert story.findings() == []


def test_early_expiry_is_found(story: Story) -> None:
    reserve(story, 100, "ani")
    story.step(59_999, "expire", "ani", "EXPIRED", 2)
    assert "comes before the deadline" in story.findings()[0]


def test_late_confirm_is_found(story: Story) -> None:
    reserve(story, 100, "ani")
    confirmed = story.step(60_000, "confirm", "ani", "CONFIRMED", 2, queue_numbers=(1,))
    story.call(59_990, 60_010, "confirm", "ani", "CONFIRMED", shown=confirmed)
    assert "comes after the deadline" in story.findings()[0]


def _attended(story: Story, undo_until_ms: int) -> None:
    reserve(story, 100, "ani")
    confirmed = story.step(200, "confirm", "ani", "CONFIRMED", 2, queue_numbers=(1,))
    story.call(195, 205, "confirm", "ani", "CONFIRMED", shown=confirmed)
    fields: dict[str, Any] = {"queue_numbers": (1,), "undo_until_ms": undo_until_ms}
    attended = story.step(900_000, "check_in", "ani", "ATTENDED", 3, **fields)
    story.call(899_990, 900_010, "check_in", "ani", "ATTENDED", shown=attended)


def test_undone_and_repeated_check_in_has_no_findings(story: Story) -> None:
    """The two attempts of one call may both take effect, if another call undoes the first of them in between."""
    _attended(story, 900_100)
    story.history.calls[-1].ended_at_ms = 900_090
    undone = story.step(900_050, "undo_attendance", "ani", "CONFIRMED", 4, queue_numbers=(1,))
    story.call(900_045, 900_055, "undo_attendance", "ani", "CONFIRMED", shown=undone)
    story.step(900_060, "check_in", "ani", "ATTENDED", 5, queue_numbers=(1,), undo_until_ms=900_160)
    assert story.findings() == []


def test_late_undo_is_found(story: Story) -> None:
    _attended(story, 900_100)
    undone = story.step(900_100, "undo_attendance", "ani", "CONFIRMED", 4, queue_numbers=(1,))
    story.call(900_090, 900_110, "undo_attendance", "ani", "CONFIRMED", shown=undone)
    assert "comes after the undo window" in story.findings()[0]


def test_queue_number_given_twice_is_found(story: Story) -> None:
    story.history.events[OFFICE][0]["details"]["terms"] = {**TERMS, "quotas": [{"name": "online", "capacity": 2}]}
    for at_ms, name in ((100, "ani"), (200, "budi")):
        reserve(story, at_ms, name)
        confirmed = story.step(at_ms + 50, "confirm", name, "CONFIRMED", 2, queue_numbers=(1,))
        story.call(at_ms + 40, at_ms + 60, "confirm", name, "CONFIRMED", shown=confirmed)
    assert "has the queue numbers (1,) after 1" in story.findings()[0]


def test_opening_before_its_time_is_found(story: Story) -> None:
    story.history.events[OFFICE][0] |= {"at_ms": 1}  # type: ignore[operator]
    reserve(story, 9, "ani")
    assert "outside the times of the day" in story.findings()[0]


def test_missing_event_number_is_found(story: Story) -> None:
    reserve(story, 100, "ani")
    story.history.events[OFFICE][1] |= {"number": 3}  # type: ignore[operator]
    assert "follows event 1" in story.findings()[0]


def test_lost_tail_excuses_the_calls_that_it_undid(story: Story) -> None:
    reserve(story, 100, "ani")
    story.history.losses.append(Loss(OFFICE, 1, 200))
    second = story.step(300, "reserve", "budi", "HELD", 1)
    story.history.events[OFFICE][-1] |= {"number": 2}  # type: ignore[operator]
    story.call(295, 305, "reserve", "budi", "HELD", shown=second, day=DAY)
    assert story.findings() == []


def test_effect_that_is_lost_during_its_call_is_excused(story: Story) -> None:
    """The answer is about the state without it."""
    story.step(100, "reserve", "ani", "HELD", 1)
    story.history.losses.append(Loss(OFFICE, 1, 150))
    story.call(90, 300, "reserve", "ani", "UNKNOWN_QUOTA", day=DAY)
    assert story.findings() == []
    story.history.calls[0].ended_at_ms = 120
    assert "follows from no call whose answer was still open" in story.findings()[0]


def test_conflict_after_an_effect_needs_a_change_by_another_call(story: Story) -> None:
    """A repeated reserve may find that another call has replaced its applicant meanwhile."""
    story.step(100, "reserve", "ani", "HELD", 1)
    story.call(90, 300, "reserve", "ani", "CONFLICT", day=DAY)
    assert "follows from no call whose answer was still open" in story.findings()[0]
    replaced = story.step(200, "replace_applicant", "ani", "HELD", 2)
    story.call(190, 210, "replace_applicant", "ani", "HELD", shown=replaced)
    assert story.findings() == []


def test_day_that_is_closed_for_a_moment_makes_a_refusal_true(story: Story) -> None:
    """A call with several commands closes and opens it in one step; the refused one names no day."""
    reserve(story, 100, "ani")
    story.call(190, 210, "extend", "ani", "DAY_CLOSED")
    assert any("was true at no moment" in one for one in story.findings())
    for kind, name in (("DayClosed", "close_day"), ("DayOpened", "open_day")):
        story.add_event(200, kind, day=DAY)
        story.call(190, 210, name, "", "DONE", day=DAY)
    assert story.findings() == []


def test_corrected_time_may_bring_a_deadline_forward(story: Story) -> None:
    story.history.clock_is_real = False
    reserve(story, 50_000, "ani", deadline_at_ms=110_000)
    story.add_event(1_000, "TimeCorrected", from_ms=50_000)
    story.step(70_000, "expire", "ani", "EXPIRED", 2, deadline_at_ms=61_000)
    assert story.findings() == []


def test_file_that_is_no_history_is_refused() -> None:
    with pytest.raises(HistoryError, match="line 2"):
        load(['{"clock_is_real": true}', '{"calls": 1}'])


def test_audit_command_checks_a_history_file(story: Story, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "history.jsonl"
    reserve(story, 100, "ani")
    path.write_text("\n".join(dump(story.history)), encoding="utf-8")
    assert main(["audit", "--history", str(path)]) == 0
    assert capsys.readouterr().out == "the history: no findings\n"
    reserve(story, 200, "budi")
    path.write_text("\n".join(dump(story.history)), encoding="utf-8")
    assert main(["audit", "--history", str(path), "--json"]) == 1
    assert "oversells online" in json.loads(capsys.readouterr().out)["findings"][0]
    path.write_text("no history", encoding="utf-8")
    assert main(["audit", "--history", str(path)]) == 2
    assert "line 1 is no entry of a history" in capsys.readouterr().err


@pytest.mark.slow
def test_check_takes_a_time_that_grows_with_the_history() -> None:
    """Three times as many calls at different times take about three times as long, and not nine times."""

    def seconds(count: int) -> float:
        story = Story()
        for number in range(count):
            at_ms = 100 + 100 * number
            reserve(story, at_ms, f"r{number}", deadline_at_ms=at_ms + 60_000)
            released = story.step(at_ms + 50, "release", f"r{number}", "RELEASED", 2, deadline_at_ms=at_ms + 60_000)
            story.call(at_ms + 45, at_ms + 55, "release", f"r{number}", "RELEASED", shown=released)
        began_s = time.process_time()
        assert check(story.history) == []
        return time.process_time() - began_s

    # The bound is twice a linear time and two thirds of a quadratic one. A busy machine may disturb a measurement.
    assert any(seconds(3_000) < 6 * max(seconds(1_000), 0.01) for _ in range(3))
