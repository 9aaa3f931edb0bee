"""Scripts of people in a load test: generators that yield requests and waits, and receive responses.

Decisions and delays come from :mod:`quota_engine.simulation.agents`, so that people act as in the simulation.
"""

from __future__ import annotations

__all__ = ["ReceivedResponse", "Script", "UserScripts", "WaitUntil"]

import random
from collections.abc import Generator
from typing import NamedTuple

from quota_engine.loadtest.observations import ApplicationReceipt, BookedPlace, Observations
from quota_engine.loadtest.plan import LoadTestPlan
from quota_engine.loadtest.population import LoadPopulation, PersonRole, identity_of, key_of
from quota_engine.loadtest.requests import (
    ApplyRequest,
    CapacityRequest,
    EnterRequest,
    FindApplicationRequest,
    JoinRequest,
    LoadRequest,
    LoadResponse,
    ReservationRequest,
    ReserveRequest,
    TicketStatusRequest,
    WithdrawRequest,
)
from quota_engine.simulation.agents import Agents, NextAction
from quota_engine.simulation.scenario import Scenario


class WaitUntil(NamedTuple):
    """A wait until a moment, in microseconds from the opening."""

    until_us: int


class ReceivedResponse(NamedTuple):
    """A response and its moment, in microseconds from the opening. After a wait the response is empty."""

    response: LoadResponse
    at_us: int


Script = Generator[LoadRequest | WaitUntil, ReceivedResponse, str]
"""The actions of one person; returns how they ended, such as ``booked`` or ``refused``."""

_Exchange = Generator[LoadRequest | WaitUntil, ReceivedResponse, ReceivedResponse]
_ONE_S = 1_000_000
_TICKETS_MAX = 3
_CHOICES_MAX = 3
_CHANGES_EVERY, _WITHDRAWS_EVERY = 10, 20


class UserScripts:
    """Makes the scripts of one process's people and records their observations.

    No one starts a new action after the window. People whose next try would be later accept their last answer; people
    who
    still fill in a form send it at once.
    """

    def __init__(
        self,
        plan: LoadTestPlan,
        scenario: Scenario,
        participants: LoadPopulation,
        agents: Agents,
        observations: Observations,
    ) -> None:
        self._plan, self._scenario, self._participants, self._agents, self._observations = (
            plan,
            scenario,
            participants,
            agents,
            observations,
        )
        self._run = plan.options.run
        self._window_us = round(plan.options.window_s * _ONE_S)
        supply = participants.supply
        self._places = [(each.office, day_of(each.day)) for each in supply.office_days]
        self._opens_us = [(each.opens_at_ms - supply.opening_ms) * 1000 for each in supply.office_days]
        self._selections = [selection.as_arguments() for selection in participants.population.choices]
        self._attempts_max = scenario.agents.attempts_max
        self._chance = random.Random(f"load/polls/{scenario.seed}/{plan.share}").random

    def person(self, index: int, at_us: int) -> Script:
        """Return the script of a person whose first action is at ``at_us``, in microseconds from the opening."""
        if self._plan.draw:
            return (yield from self._apply_to_draw(index, at_us))
        end, at_us, reference = yield from self._book(index, at_us)
        if (
            end == "booked"
            and self._participants.roles[index] == PersonRole.BROKER
            and index % 4 == 0
            and not self._room_of(index)
        ):
            yield from self._hand_over(index, at_us, reference)
        return end

    def operator(self, office_day: int) -> Script:
        """Return the script of an operator who sets the capacities that the scenario changes on one office-day."""
        day = self._participants.supply.office_days[office_day]
        office, date = self._places[office_day]
        for change in sorted(self._scenario.load_test.capacity_changes, key=lambda each: each.at_s):
            before = day.quotas.get(change.quota)
            if before is None:
                continue
            due_us = self._opens_us[office_day] + round(change.at_s * _ONE_S)
            yield WaitUntil(due_us)
            # The plan's capacity counts the places that were left. Places sold before the test are part of the real
            # capacity.
            sold = self._plan.days[office_day].sold.get(change.quota, 0)
            capacity = round(before * change.factor)
            received = yield CapacityRequest(office, date, change.quota, capacity + sold)
            self._count_response(received.response)
            name = f"{office_day}/{change.quota}"
            self._observations.capacities[name] = max(capacity, self._observations.capacities.get(name, 0))
        return "done"

    # --- Booking -------------------------------------------------------------------------------------------------

    def _book(
        self, index: int, at_us: int
    ) -> Generator[LoadRequest | WaitUntil, ReceivedResponse, tuple[str, int, str]]:
        """Try to reserve until there is an answer that the person accepts, and fill in the form of a won hold."""
        agents, metrics, people = self._agents, self._observations.metrics, self._participants.population
        office_day = people.office_day[index]
        opens_us, has_wait_list = (
            self._opens_us[office_day],
            self._participants.supply.office_days[office_day].has_wait_list,
        )
        acted_at_us, wish_number, late = at_us, 0, 0
        answered = wait = False
        admission_pass = ""
        room = self._room_of(index)
        if room:
            acted_at_us = max(at_us, opens_us)
            admission_pass, end, now_us = yield from self._wait_for_pass(room, index, at_us)
            if end:
                if end == "refused":
                    metrics.answer_us.record(max(now_us - acted_at_us, 0))
                return self._record_end(index, end, now_us, acted_at_us), now_us, ""
        while True:
            received = yield from self._request_until_answered(
                self._reserve_request(index, wish_number, wait, admission_pass)
            )
            answer, now_us = received
            if not answer.status:
                return self._record_end(index, "gave up", now_us, acted_at_us), now_us, ""
            if answer.status == "NOT_OPEN":
                acted_at_us = now_us + agents.delay_until_open_us(index, now_us, opens_us)
                if acted_at_us > self._window_us:
                    return self._record_end(index, "refused", now_us, acted_at_us), now_us, ""
                yield WaitUntil(acted_at_us)
                continue
            if not answered:
                answered = True
                metrics.answer_us.record(now_us - acted_at_us)
            if answer.status == "SOLD_OUT":
                metrics.sold_out_us = min(now_us, metrics.sold_out_us or now_us)
                if room:  # another try would have to wait in the room again
                    return self._record_end(index, "refused", now_us, acted_at_us), now_us, ""
                following, delay_us = agents.after_refusal(index, now_us)
                if following is NextAction.ACCEPT or (following is NextAction.JOIN_WAIT_LIST and not has_wait_list):
                    return self._record_end(index, "refused", now_us, acted_at_us), now_us, ""
                wait = following is NextAction.JOIN_WAIT_LIST
                if now_us + delay_us > self._window_us:
                    return self._record_end(index, "refused", now_us, acted_at_us), now_us, ""
                yield WaitUntil(now_us + delay_us)
                wish_number += 1
                continue
            if answer.status == "WAITING":
                metrics.waited += 1
                self._record_place(index, answer, "WAITING", now_us)
                return self._record_end(index, "refused", now_us, acted_at_us), now_us, ""
            if answer.status == "CONFIRMED":
                return self._record_end(index, "booked", now_us, acted_at_us), now_us, answer.reference
            if answer.status != "HELD":
                self._observations.passes_refused += bool(admission_pass) and answer.status == "NOT_ADMITTED"
                return self._record_end(index, "refused", now_us, acted_at_us), now_us, ""
            end, now_us = yield from self._fill_in_form(index, answer, now_us, wish_number)
            if end == "late":
                late += 1
                if late < self._attempts_max and now_us < self._window_us:
                    wish_number += 1
                    yield WaitUntil(now_us + agents.reaction_us())
                    continue
                end = "abandoned"
            return self._record_end(index, end, now_us, acted_at_us), now_us, answer.reference

    def _fill_in_form(
        self, index: int, answer: LoadResponse, now_us: int, wish_number: int
    ) -> Generator[LoadRequest | WaitUntil, ReceivedResponse, tuple[str, int]]:
        """Fill in the form of a hold: send it, abandon it, or crash, log in again and find the hold.

        Returns how it ended and the moment of the last response.
        """
        agents, metrics = self._agents, self._observations.metrics
        held, held_at_us = answer, now_us
        if not answer.resumed:
            metrics.taken.add(now_us, held.units)
        self._record_place(index, held, "HELD", now_us)
        if self._participants.roles[index] in (PersonRole.CITIZEN, PersonRole.REFRESHER, PersonRole.KIOSK):
            if agents.abandons():
                return "abandoned", now_us
            away_us = agents.crash_us()
            if away_us is not None:
                yield WaitUntil(min(now_us + away_us, max(self._window_us, now_us)))
                # Half of the people come back with their old key, half with a new one. Both must find the same hold.
                number = wish_number + (500 if index % 2 else 0)
                again, now_us = yield from self._request_until_answered(
                    self._reserve_request(index, number, wait=False)
                )
                if not again.status:
                    return "gave up", now_us
                if again.reference != held.reference:
                    if now_us < held_at_us + self._hold_us(index):
                        metrics.holds_lost += 1
                    self._expired(index, held, now_us)
                    return "late", now_us
                metrics.resumed += 1
            form_us = agents.form_us()
        else:
            form_us = round(self._scenario.population.brokers.form_s * _ONE_S)
        yield WaitUntil(max(min(now_us + form_us, self._window_us), now_us))
        step = ReservationRequest("confirm", held.reference, self._identity(index))
        done, now_us = yield from self._request_until_answered(step)
        if not done.status:
            return "gave up", now_us
        if done.status != "CONFIRMED":
            self._expired(index, held, now_us)
            return "late", now_us
        metrics.confirmed += done.units
        metrics.sold.add(now_us, done.units)
        self._record_place(index, done, "CONFIRMED", now_us)
        return "booked", now_us

    def _hand_over(
        self, index: int, at_us: int, reference: str
    ) -> Generator[LoadRequest | WaitUntil, ReceivedResponse, None]:
        """Cancel a broker's place and try to reserve it for a customer, until that succeeds or the window ends."""
        brokers = self._scenario.population.brokers
        at_us += round(brokers.form_s * 3 * _ONE_S)
        if at_us > self._window_us:
            return
        yield WaitUntil(at_us)
        answer, now_us = yield from self._request_until_answered(
            ReservationRequest("cancel", reference, self._identity(index))
        )
        if answer.status != "CANCELLED":
            return
        place = self._observations.places[reference]
        place.state, place.at_us = "CANCELLED", now_us
        customer = identity_of(self._run, index, 9)
        office, day = self._places[self._participants.population.office_day[index]]
        until_us = min(self._window_us, now_us + round(brokers.give_up_s * _ONE_S))
        number = 900
        while now_us < until_us:
            yield WaitUntil(now_us + round(brokers.poll_s * _ONE_S))
            selection = self._selections[self._participants.population.choice[index]]
            press = ReserveRequest(office, day, (customer,), selection, key_of(self._run, index, number))
            answer, now_us = yield from self._request_until_answered(press)
            number += 1
            if answer.status == "HELD":
                self._record_place(index, answer, "HELD", now_us)
                done, now_us = yield from self._request_until_answered(
                    ReservationRequest("confirm", answer.reference, customer)
                )
                if done.status == "CONFIRMED":
                    self._record_place(index, done, "CONFIRMED", now_us)
                return

    def _wait_for_pass(
        self, room: str, index: int, at_us: int
    ) -> Generator[LoadRequest | WaitUntil, ReceivedResponse, tuple[str, str, int]]:
        """Join a waiting room, poll the ticket as often as the room asks, and enter when it is called.

        Returns the pass and ``""``, or ``""`` and how it ended: ``refused`` when no places are left, ``waiting`` at the
        end of
        the window. Both are empty when the room has closed, because a reserve needs no pass then.
        """
        identity, metrics = self._identity(index), self._observations.metrics
        ticket, tickets, now_us = "", 0, at_us
        request: LoadRequest = JoinRequest(room, identity)
        while True:
            answer, now_us = yield from self._request_until_answered(request)
            wait_s = answer.poll_after_s
            match answer.status:
                case "":
                    return "", "gave up", now_us
                case "ADMITTED":
                    return answer.admission_pass, "", now_us
                case "ROOM_CLOSED" | "FULL":
                    return "", "" if answer.status == "ROOM_CLOSED" else "refused", now_us
                case "JOINED":
                    ticket, tickets = answer.ticket, tickets + 1
                    request = TicketStatusRequest(room, ticket)
                case "CALLED":
                    request, wait_s = EnterRequest(room, ticket, identity), 0.0
                case "TURN_MISSED" | "TICKET_LOST":
                    if tickets >= _TICKETS_MAX:
                        return "", "refused", now_us
                    request, wait_s = JoinRequest(room, identity, ticket), 0.0
                case _ if not answer.places_left and ticket:
                    metrics.sold_out_us = min(now_us, metrics.sold_out_us or now_us)
                    return "", "refused", now_us
                case _:  # NOT_OPEN, SHUFFLING or WAITING; there is no ticket before the room opens for joining
                    request = TicketStatusRequest(room, ticket) if ticket else JoinRequest(room, identity)
                    wait_s = max(wait_s, 1.0)
            until_us = now_us + round(wait_s * (1 + self._chance() / 10) * _ONE_S)
            if until_us > self._window_us:
                return "", "waiting", now_us
            if wait_s:
                yield WaitUntil(until_us)

    def _apply_to_draw(self, index: int, at_us: int) -> Script:
        """Apply to the draw. Some people crash and look for their application, some change it, some withdraw it."""
        agents, metrics, draw = self._agents, self._observations.metrics, self._plan.draw
        opens_us = acted_at_us = max(at_us, 0)
        party, choices = self._party(index), self._choices(index)
        received = yield from self._request_until_answered(ApplyRequest(draw, party, choices))
        while received.response.status == "NOT_OPEN":
            acted_at_us = received.at_us + agents.delay_until_open_us(index, received.at_us, opens_us)
            if acted_at_us > self._window_us:
                return self._record_end(index, "refused", received.at_us, acted_at_us)
            yield WaitUntil(acted_at_us)
            received = yield from self._request_until_answered(ApplyRequest(draw, party, choices))
        answer, now_us = received
        if not answer.status:
            return self._record_end(index, "gave up", now_us, acted_at_us)
        metrics.answer_us.record(now_us - acted_at_us)
        if answer.status != "APPLIED":
            return self._record_end(index, "refused", now_us, acted_at_us)
        receipt = ApplicationReceipt(index, answer.number, answer.version, answer.tokens, choices)
        self._observations.receipts_changed += answer.number in self._observations.receipts
        self._observations.receipts[answer.number] = receipt
        away_us = agents.crash_us()
        if away_us is not None and now_us + away_us < self._window_us:
            yield WaitUntil(now_us + away_us)
            answer, now_us = yield from self._request_until_answered(FindApplicationRequest(draw, party[-1]))
            if not answer.status:
                return self._record_end(index, "gave up", now_us, acted_at_us)
            if (answer.number, answer.tokens) == (receipt.number, receipt.tokens):
                metrics.resumed += 1
            else:
                self._observations.receipts_changed += 1
        if index % _CHANGES_EVERY == 0 and len(choices) > 1:
            choices = choices[::-1]
            answer, now_us = yield from self._request_until_answered(
                ApplyRequest(draw, party, choices, receipt.version)
            )
            if answer.status == "APPLIED":
                receipt.version, receipt.choices = answer.version, choices
        if index % _WITHDRAWS_EVERY == 1:
            answer, now_us = yield from self._request_until_answered(WithdrawRequest(draw, party[0], receipt.version))
            receipt.is_withdrawn = answer.status == "WITHDRAWN"
        if not answer.status:
            return self._record_end(index, "gave up", now_us, acted_at_us)
        return self._record_end(index, "withdrawn" if receipt.is_withdrawn else "applied", now_us, acted_at_us)

    def _choices(self, index: int) -> tuple[dict[str, str], ...]:
        """Return the preferences of a person: the own booking first, then others of the same channel."""
        people = self._participants.population
        office, day = self._places[people.office_day[index]]
        first = people.choices[people.choice[index]]
        choices = [
            first,
            *(selection for selection in people.choices if selection != first and selection.channel == first.channel),
        ]
        return tuple({"office": office, "day": day, **selection.as_arguments()} for selection in choices[:_CHOICES_MAX])

    # --- Helpers -------------------------------------------------------------------------------------------------

    def _request_until_answered(self, request: LoadRequest) -> _Exchange:
        """Repeat a request until there is a response, or give up. The idempotency key stays, so it has one effect."""
        metrics, retry_s = self._observations.metrics, self._scenario.front_end.retry_after_s
        received = yield request
        for _ in range(self._attempts_max - 1):
            answer, now_us = received
            self._count_response(answer)
            if answer.status and not answer.retry_after_s:
                return received
            pause_us = self._agents.pause_us(max(answer.retry_after_s, retry_s)) + round(retry_s * 500_000)
            yield WaitUntil(now_us + pause_us)
            received = yield request
        self._count_response(received.response)
        if received.response.status and not received.response.retry_after_s:
            return received
        metrics.errors += 1
        return ReceivedResponse(received.response._replace(status=""), received.at_us)

    def _count_response(self, answer: LoadResponse) -> None:
        metrics = self._observations.metrics
        statuses = metrics.answers_by_status
        status = answer.status or "(no answer)"
        statuses[status] = statuses.get(status, 0) + 1
        if answer.lost:
            metrics.errors += 1
            self._observations.lost_by_reason[answer.lost] += 1
        elif answer.retry_after_s:
            metrics.overloaded += 1

    def _room_of(self, index: int) -> str:
        """Return the waiting room of a person's day; ``""`` if there is none, or if the person is in the office
        already.
        """
        people = self._participants.population
        if people.choices[people.choice[index]].channel != "online":
            return ""
        return self._plan.rooms.get(self._places[people.office_day[index]][0], "")

    def _reserve_request(self, index: int, number: int, wait: bool, admission_pass: str = "") -> ReserveRequest:
        people = self._participants.population
        office, day = self._places[people.office_day[index]]
        party = self._party(index)
        selection, key = self._selections[people.choice[index]], key_of(self._run, index, number)
        return ReserveRequest(office, day, party, selection, key, wait, admission_pass)

    def _party(self, index: int) -> tuple[str, ...]:
        return tuple(identity_of(self._run, index, each) for each in range(self._participants.population.party[index]))

    def _identity(self, index: int) -> str:
        return identity_of(self._run, index)

    def _hold_us(self, index: int) -> int:
        """Return the shortest time that a hold lasts by the rules of the office, in microseconds."""
        office = self._participants.supply.office_days[self._participants.population.office_day[index]].office
        return self._participants.supply.catalog.offices[office].rules.hold_ttl_ms * 1000

    def _record_place(self, index: int, answer: LoadResponse, state: str, at_us: int) -> None:
        office_day = self._participants.population.office_day[index]
        self._observations.record_place(
            BookedPlace(
                index, office_day, answer.reference, state, at_us, answer.units, answer.quotas, answer.queue_numbers
            )
        )

    def _expired(self, index: int, held: LoadResponse, at_us: int) -> None:
        metrics = self._observations.metrics
        metrics.holds_expired += 1
        metrics.taken.add(at_us, -held.units)
        self._record_place(index, held, "EXPIRED", at_us)

    def _record_end(self, index: int, end: str, now_us: int, acted_at_us: int) -> str:
        metrics = self._observations.metrics
        match end:
            case "booked":
                metrics.bookings += 1
            case "abandoned":
                metrics.abandoned += 1
            case "gave up":
                metrics.gave_up += 1
            case "applied" | "withdrawn":
                pass
            case _:
                metrics.refused += 1
        metrics.final_us.record(now_us - acted_at_us)
        metrics.last_final_us = max(metrics.last_final_us, now_us)
        self._observations.ends_by_role[f"{PersonRole(self._participants.roles[index]).name.lower()}/{end}"] += 1
        return end


def day_of(ordinal: int) -> str:
    """Return a day's ordinal as an ISO date."""
    import datetime

    return datetime.date.fromordinal(ordinal).isoformat()
