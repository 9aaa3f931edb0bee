"""Tests of the scheduler: open loop, rate limit, and people without an answer."""

from __future__ import annotations

from collections.abc import Generator

import gevent

from quota_engine.loadtest.observations import Observations
from quota_engine.loadtest.population import PersonRole
from quota_engine.loadtest.requests import LoadRequest, LoadResponse, ReservationRequest
from quota_engine.loadtest.scheduler import Scheduler
from quota_engine.loadtest.user_scripts import ReceivedResponse, Script, WaitUntil

ASK = ReservationRequest("confirm", "surabaya~x", "")


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def staged(rate_max: float = 1e6) -> tuple[Scheduler, Observations, Clock]:
    clock, observations = Clock(), Observations.empty(0, 0, 0)
    return Scheduler(observations, opens_at_s=0.0, rate_max_per_s=rate_max, clock_s=clock), observations, clock


def two_asks(at_us: int) -> Script:
    """Send two requests, a second apart."""

    def script() -> Generator[LoadRequest | WaitUntil, ReceivedResponse, str]:
        received = yield ASK
        yield WaitUntil(received.at_us + 1_000_000)
        yield ASK
        return "done"

    return script()


def dispatched(scheduler: Scheduler) -> None:
    """Let the scheduler dispatch once."""
    running = gevent.spawn(scheduler.dispatch)
    gevent.sleep(0.01)
    running.kill()


def test_a_script_runs_when_its_actions_are_due() -> None:
    scheduler, observations, clock = staged()
    scheduler.add_person(1, PersonRole.CITIZEN, 500_000, two_asks)
    dispatched(scheduler)
    assert scheduler.take_due(PersonRole.CITIZEN, 0) is None
    clock.now_s = 0.5
    for _ in range(2):
        dispatched(scheduler)
        due = scheduler.take_due(PersonRole.CITIZEN, 0)
        assert due is not None
        scheduler.complete(due, LoadResponse("CONFIRMED"), 1000)
        clock.now_s += 1.0
    assert scheduler.is_over
    assert observations.metrics.requests == 2
    assert observations.metrics.answers.total == 2


def test_lag_and_wait_for_a_user_are_recorded_apart() -> None:
    scheduler, observations, clock = staged()
    scheduler.add_person(1, PersonRole.CITIZEN, 0, two_asks)
    clock.now_s = 1.0
    dispatched(scheduler)
    clock.now_s = 3.0
    due = scheduler.take_due(PersonRole.CITIZEN, 0)
    assert due is not None
    assert due.due_at_us == 0
    assert (observations.lag_us.max, observations.user_wait_us.max) == (1_000_000, 2_000_000)


def test_users_serve_their_own_role_first() -> None:
    scheduler, _, _ = staged()
    for person, role in ((1, PersonRole.CITIZEN), (2, PersonRole.BOT), (3, PersonRole.CITIZEN)):
        scheduler.add_person(person, role, 0, two_asks)
    dispatched(scheduler)
    taken = [scheduler.take_due(PersonRole.BOT, 0) for _ in range(3)]
    assert [due.person for due in taken if due] == [2, 1, 3]
    assert scheduler.take_due(PersonRole.BOT, 0) is None


def test_requests_above_the_rate_limit_are_put_off() -> None:
    scheduler, _, clock = staged(rate_max=100)
    for person in range(50):
        scheduler.add_person(person, PersonRole.CITIZEN, 0, two_asks)
    dispatched(scheduler)
    assert scheduler.waiting <= 7
    clock.now_s = 0.2
    dispatched(scheduler)
    assert 20 <= scheduler.waiting <= 28


def test_close_records_people_without_an_answer() -> None:
    scheduler, observations, _ = staged()
    scheduler.add_person(1, PersonRole.CITIZEN, 0, two_asks)
    scheduler.add_person(2, PersonRole.CITIZEN, 10_000_000, two_asks)
    dispatched(scheduler)
    scheduler.close()
    assert observations.unanswered_count == 2
    assert sorted((each.person, each.waiting_for) for each in observations.unanswered) == [
        (1, "reservationrequest"),
        (2, "first action"),
    ]
