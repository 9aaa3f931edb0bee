"""Tests of single scripts, response by response: a hand-over, a crash, and a missed turn."""

from __future__ import annotations

import msgspec

from quota_engine.loadtest.observations import Observations
from quota_engine.loadtest.plan import LoadTestPlan, scenario_of
from quota_engine.loadtest.population import PersonRole, identity_of, load_population
from quota_engine.loadtest.requests import (
    EnterRequest,
    JoinRequest,
    LoadRequest,
    LoadResponse,
    ReservationRequest,
    ReserveRequest,
    TicketStatusRequest,
)
from quota_engine.loadtest.user_scripts import ReceivedResponse, Script, UserScripts, WaitUntil
from quota_engine.simulation.agents import Agents
from tests.support.loadtest_samples import QUOTAS, RUN, small_market, small_plan

HELD = LoadResponse("HELD", 201, reference="surabaya~x", units=1, quotas=QUOTAS)
LEAVE = "from the room"
CONFIRMED = LoadResponse("CONFIRMED", 200, reference="surabaya~x", units=1, quotas=QUOTAS, queue_numbers=(7,))


class Evening:
    """One person of a small opening, with a role, and the requests that the script sends."""

    def __init__(self, role: PersonRole, *, crash_share: float = 0.0, rooms: dict[str, str] | None = None) -> None:
        plan: LoadTestPlan = msgspec.structs.replace(small_plan(window_s=7200), rooms=rooms or {})
        scenario = scenario_of(plan.options)
        traits = msgspec.structs.replace(scenario.agents, crash_share=crash_share, abandon_share=0.0)
        scenario = msgspec.structs.replace(scenario, agents=traits)
        participants = load_population(plan, scenario, small_market(plan))
        self.person = next(index for index, each in enumerate(participants.roles) if each == role and index % 4 == 0)
        self.books = Observations.empty(0, 0, 0)
        agents = Agents(traits, scenario.arrivals, participants.population)
        self._script: Script = UserScripts(plan, scenario, participants, agents, self.books).person(self.person, 0)
        self.now_us = 0
        self.end = ""

    def asks(self, *answers: LoadResponse) -> list[LoadRequest]:
        """Return the requests that the script sends, given these responses. Waits end at once."""
        found: list[LoadRequest] = []
        following: LoadRequest | WaitUntil = next(self._script)
        rest = list(answers)
        while True:
            if isinstance(following, WaitUntil):
                self.now_us = max(self.now_us, following.until_us)
                received = ReceivedResponse(LoadResponse(), self.now_us)
            else:
                found.append(following)
                self.now_us += 1000
                received = ReceivedResponse(rest.pop(0), self.now_us)
            try:
                following = self._script.send(received)
            except StopIteration as stop:
                self.end = stop.value
                assert not rest
                return found


def test_a_broker_hands_a_place_over() -> None:
    evening = Evening(PersonRole.BROKER)
    customers = HELD._replace(reference="surabaya~y")
    requests = evening.asks(
        HELD, CONFIRMED, LoadResponse("CANCELLED", 200), LoadResponse("SOLD_OUT", 409), customers,
        CONFIRMED._replace(reference="surabaya~y"),
    )  # fmt: skip
    kinds = [
        request.action if isinstance(request, ReservationRequest) else "reserve"
        for request in requests
        if isinstance(request, ReservationRequest | ReserveRequest)
    ]
    assert kinds == ["reserve", "confirm", "cancel", "reserve", "reserve", "confirm"]
    pressed = [request.applicants for request in requests if isinstance(request, ReserveRequest)]
    assert pressed[0] == (identity_of(RUN, evening.person),)
    assert pressed[1] == pressed[2] == (identity_of(RUN, evening.person, 9),)
    assert {place.state for place in evening.books.places.values()} == {"CANCELLED", "CONFIRMED"}


def test_a_crash_must_find_the_same_hold() -> None:
    """A different hold while the first is still valid counts as lost."""
    evening = Evening(PersonRole.CITIZEN, crash_share=1.0)
    requests = evening.asks(HELD, HELD._replace(resumed=True), CONFIRMED)
    assert [type(request) for request in requests] == [ReserveRequest, ReserveRequest, ReservationRequest]
    assert (evening.end, evening.books.metrics.resumed, evening.books.metrics.holds_lost) == ("booked", 1, 0)
    evening = Evening(PersonRole.CITIZEN, crash_share=1.0)
    other = HELD._replace(reference="surabaya~other")
    evening.asks(HELD, other, LoadResponse("SOLD_OUT", 409))
    assert evening.books.metrics.holds_lost == 1


def test_a_missed_turn_takes_a_new_ticket() -> None:
    evening = Evening(PersonRole.CITIZEN, rooms={"surabaya": "room"})
    requests = evening.asks(
        LoadResponse("JOINED", 201, ticket="a"), LoadResponse("TURN_MISSED", 200, ticket="a"),
        LoadResponse("JOINED", 201, ticket="b"),
        LoadResponse("CALLED", 200, ticket="b"), LoadResponse("ADMITTED", 200, admission_pass=LEAVE), HELD, CONFIRMED,
    )  # fmt: skip
    assert [type(request) for request in requests] == [
        JoinRequest,
        TicketStatusRequest,
        JoinRequest,
        TicketStatusRequest,
        EnterRequest,
        ReserveRequest,
        ReservationRequest,
    ]
    assert isinstance(requests[2], JoinRequest)
    assert requests[2].replaces_ticket == "a"
    assert isinstance(requests[5], ReserveRequest)
    assert requests[5].admission_pass == LEAVE
    evening = Evening(PersonRole.CITIZEN, rooms={"surabaya": "room"})
    evening.asks(
        LoadResponse("JOINED", 201, ticket="a"), LoadResponse("CALLED", 200, ticket="a"),
        LoadResponse("ADMITTED", 200, admission_pass=LEAVE), LoadResponse("NOT_ADMITTED", 403),
    )  # fmt: skip
    assert evening.books.passes_refused == 1
