"""What single people do, answer by answer: a broker who hands a place over, a crash, and a turn that is missed."""

from __future__ import annotations

import msgspec

from quota_engine.loadtest.observations import Books
from quota_engine.loadtest.plan import Plan, scenario_of
from quota_engine.loadtest.population import Role, cast_of, identity_of
from quota_engine.loadtest.requests import Answer, Ask, Enter, Join, Look, Reserve, Step
from quota_engine.loadtest.user_scripts import Heard, Script, Scripts, Wait
from quota_engine.simulation.agents import Agents
from tests.support.loadtest_samples import QUOTAS, RUN, small_market, small_plan

HELD = Answer("HELD", 201, reference="surabaya~x", units=1, quotas=QUOTAS)
LEAVE = "from the room"
CONFIRMED = Answer("CONFIRMED", 200, reference="surabaya~x", units=1, quotas=QUOTAS, queue_numbers=(7,))


class Evening:
    """One person of a small opening, of a role, and all that they ask."""

    def __init__(self, role: Role, *, crash_share: float = 0.0, rooms: dict[str, str] | None = None) -> None:
        plan: Plan = msgspec.structs.replace(small_plan(window_s=7200), rooms=rooms or {})
        scenario = scenario_of(plan.options)
        traits = msgspec.structs.replace(scenario.agents, crash_share=crash_share, abandon_share=0.0)
        scenario = msgspec.structs.replace(scenario, agents=traits)
        cast = cast_of(plan, scenario, small_market(plan))
        self.person = next(index for index, each in enumerate(cast.roles) if each == role and index % 4 == 0)
        self.books = Books.empty(0, 0, 0)
        agents = Agents(traits, scenario.arrivals, cast.population)
        self._script: Script = Scripts(plan, scenario, cast, agents, self.books).person(self.person, 0)
        self.now_us = 0
        self.end = ""

    def asks(self, *answers: Answer) -> list[Ask]:
        """What is asked, one after the other, with these answers; waits are waited."""
        found: list[Ask] = []
        following: Ask | Wait = next(self._script)
        rest = list(answers)
        while True:
            if isinstance(following, Wait):
                self.now_us = max(self.now_us, following.until_us)
                heard = Heard(Answer(), self.now_us)
            else:
                found.append(following)
                self.now_us += 1000
                heard = Heard(rest.pop(0), self.now_us)
            try:
                following = self._script.send(heard)
            except StopIteration as stop:
                self.end = stop.value
                assert not rest
                return found


def test_a_broker_hands_a_place_over() -> None:
    """It is given back, and pressed for with the customer's identity until it has come back."""
    evening = Evening(Role.BROKER)
    customers = HELD._replace(reference="surabaya~y")
    asks = evening.asks(
        HELD, CONFIRMED, Answer("CANCELLED", 200), Answer("SOLD_OUT", 409), customers,
        CONFIRMED._replace(reference="surabaya~y"),
    )  # fmt: skip
    kinds = [ask.step if isinstance(ask, Step) else "reserve" for ask in asks if isinstance(ask, Step | Reserve)]
    assert kinds == ["reserve", "confirm", "cancel", "reserve", "reserve", "confirm"]
    pressed = [ask.applicants for ask in asks if isinstance(ask, Reserve)]
    assert pressed[0] == (identity_of(RUN, evening.person),)
    assert pressed[1] == pressed[2] == (identity_of(RUN, evening.person, 9),)
    assert {place.state for place in evening.books.places.values()} == {"CANCELLED", "CONFIRMED"}


def test_a_crash() -> None:
    """Who comes back gets the same hold and confirms it; another one, while the first is good, is written down."""
    evening = Evening(Role.CITIZEN, crash_share=1.0)
    asks = evening.asks(HELD, HELD._replace(resumed=True), CONFIRMED)
    assert [type(ask) for ask in asks] == [Reserve, Reserve, Step]
    assert (evening.end, evening.books.measures.resumed, evening.books.measures.holds_lost) == ("booked", 1, 0)
    evening = Evening(Role.CITIZEN, crash_share=1.0)
    other = HELD._replace(reference="surabaya~other")
    evening.asks(HELD, other, Answer("SOLD_OUT", 409))
    assert evening.books.measures.holds_lost == 1


def test_a_turn_that_is_missed() -> None:
    """Whoever comes too late takes a new ticket in place of the old one, and reserves with the pass of that."""
    evening = Evening(Role.CITIZEN, rooms={"surabaya": "room"})
    asks = evening.asks(
        Answer("JOINED", 201, ticket="a"), Answer("LAPSED", 200, ticket="a"), Answer("JOINED", 201, ticket="b"),
        Answer("CALLED", 200, ticket="b"), Answer("ADMITTED", 200, admission_pass=LEAVE), HELD, CONFIRMED,
    )  # fmt: skip
    assert [type(ask) for ask in asks] == [Join, Look, Join, Look, Enter, Reserve, Step]
    assert isinstance(asks[2], Join)
    assert asks[2].instead_of == "a"
    assert isinstance(asks[5], Reserve)
    assert asks[5].admission_pass == LEAVE
    evening = Evening(Role.CITIZEN, rooms={"surabaya": "room"})
    evening.asks(
        Answer("JOINED", 201, ticket="a"), Answer("CALLED", 200, ticket="a"),
        Answer("ADMITTED", 200, admission_pass=LEAVE), Answer("NOT_ADMITTED", 403),
    )  # fmt: skip
    assert evening.books.passes_refused == 1
