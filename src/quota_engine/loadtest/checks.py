"""Checks of a load test: compare the responses that people got with the records of the target.

There are three sources: the test's own observations; the target's events, replayed here by other code than the
engine's; and the target's audit. Each finding has a kind, such as ``oversold`` or ``lost``.
"""

from __future__ import annotations

__all__ = [
    "CheckFinding",
    "EventCursor",
    "TargetState",
    "check_draw",
    "check_limits",
    "check_observations",
    "check_target_state",
    "read_after",
    "read_before",
    "run_checks",
]  # fmt: skip

import dataclasses
import datetime
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Protocol

import msgspec

from quota_engine.history.checker import History, check
from quota_engine.loadtest.draw_run import DrawRunResult
from quota_engine.loadtest.observations import ApplicationReceipt, BookedPlace, Observations
from quota_engine.loadtest.plan import LoadTestPlan, scenario_of, supply_of
from quota_engine.loadtest.population import key_prefix, load_population
from quota_engine.loadtest.prediction import predict
from quota_engine.loadtest.result import CheckFinding, LimitCheck, LoadTestResult
from quota_engine.simulation.metrics import Metrics, oversold_places
from quota_engine.simulation.scenario import LoadTestLimits
from quota_engine.simulation.supply import Supply

EARLIER_EVENTS_MAX: Final = 10_000
"""The most events before a test that are read, so that the history of an office can be checked from its beginning."""
_IN_FORCE: Final = frozenset({"HELD", "CONFIRMED"})
_SHOWN_MAX: Final = 5
_CUSTOMER: Final = 900
"""Requests with this number or a higher one belong to a broker's customer, who has another identity."""


class EventCursor(msgspec.Struct, frozen=True):
    """The last event number of each office at the start of the test."""

    last_events: dict[str, int]


class TargetState(msgspec.Struct, frozen=True):
    """The target's state after the test: events since the start by office, audit findings, and each day's counters.

    ``earlier_events`` are those before the start, of offices with at most :data:`EARLIER_EVENTS_MAX` of them.
    """

    events: dict[str, list[dict[str, Any]]]
    audit: list[str]
    counters: list[dict[str, dict[str, int]]]
    earlier_events: dict[str, list[dict[str, Any]]] = {}


class TargetReader(Protocol):
    """The calls of a :class:`quota_engine.loadtest.target_client.TargetClient` that the checks need."""

    def availability(self, office: str, first: datetime.date, last: datetime.date) -> list[dict[str, Any]]: ...

    def audit(self) -> list[str]: ...

    def events(self, office: str, after: int = 0) -> Iterable[dict[str, Any]]: ...

    def last_event(self, office: str) -> int: ...


def read_before(host: TargetReader, plan: LoadTestPlan) -> EventCursor:
    """Return the current last event of each of the plan's offices."""
    return EventCursor({office: host.last_event(office) for office in dict.fromkeys(each.office for each in plan.days)})


def read_after(host: TargetReader, plan: LoadTestPlan, before: EventCursor) -> TargetState:
    """Read events, counters and audit of the target after the test."""
    counters = []
    for each in plan.days:
        date = datetime.date.fromordinal(each.day)
        (view,) = [one for one in host.availability(each.office, date, date) if one["day"] == date.isoformat()]
        counters.append({quota["name"]: quota for quota in view["quotas"]})
    events = {office: list(host.events(office, after)) for office, after in before.last_events.items()}
    earlier = {
        office: [*itertools.takewhile(partial(_is_up_to, after), host.events(office))]
        for office, after in before.last_events.items()
        if after <= EARLIER_EVENTS_MAX
    }
    return TargetState(events, host.audit(), counters, earlier)


def _is_up_to(number: int, event: Mapping[str, Any]) -> bool:
    return int(event["number"]) <= number


def run_checks(
    host: TargetReader,
    plan: LoadTestPlan,
    observations: Observations,
    before: EventCursor,
    *,
    missing: int = 0,
    draw_result: DrawRunResult | None = None,
) -> LoadTestResult:
    """Run all checks on a test that has ended.

    Args:
        host: the target.
        plan: the plan of the test.
        books: the observations of all processes.
        before: the target's events at the start.
        missing: processes that did not send their observations.
        drawn: the result of the plan's draw, if it has one.
    """
    scenario = scenario_of(plan.options)
    participants = load_population(plan, scenario, supply_of(plan, scenario))
    metrics = observations.metrics
    if draw_result is not None:
        _record_winners(plan, observations, draw_result)
    view = read_after(host, plan, before)
    findings = check_observations(plan, participants.supply, observations, missing)
    findings += check_target_state(plan, participants.supply, observations, view)
    findings += [] if draw_result is None else check_draw(observations, draw_result)
    predicted = (
        predict(scenario, participants)
        if draw_result is None
        else Metrics(len(participants.population), participants.supply.capacity, 0)
    )
    limits = check_limits(
        scenario.limits, observations, people=len(participants.population), capacity=participants.supply.capacity
    )
    findings += [CheckFinding("broken limit", limit.sentence()) for limit in limits if not limit.kept]
    metrics.oversold = sum(_oversold(participants.supply, observations).values())
    return LoadTestResult(
        plan=plan,
        scenario=scenario,
        supply=participants.supply,
        observations=observations,
        predicted=predicted,
        findings=tuple(findings),
        limits=tuple(limits),
        others=_count_other_reservations(plan, observations, view),
        draw_result=draw_result,
    )


def check_observations(
    plan: LoadTestPlan, supply: Supply, observations: Observations, missing: int = 0
) -> list[CheckFinding]:
    """Check the test's own observations, without the target."""
    findings = []
    for office_day, places in _oversold(supply, observations).items():
        findings.append(CheckFinding("oversold", f"{places} places above capacity at {_named(supply, office_day)}"))
    findings += _duplicates(supply, observations)
    findings += _queue_numbers(supply, observations)
    if observations.unanswered_count:
        waiting = Counter(each.waiting_for for each in observations.unanswered)
        what = ", ".join(f"{name} ({count})" for name, count in waiting.most_common(3))
        findings.append(
            CheckFinding("unanswered", f"{observations.unanswered_count} people have no final answer; waiting: {what}")
        )
    if observations.metrics.gave_up:
        findings.append(CheckFinding("unanswered", f"{observations.metrics.gave_up} people gave up after many tries"))
    if observations.metrics.holds_lost:
        text = f"{observations.metrics.holds_lost} people came back after a crash and did not get their hold"
        findings.append(CheckFinding("lost", text))
    if observations.passes_refused:
        text = f"{observations.passes_refused} people were called by the waiting room, and their pass was not accepted"
        findings.append(CheckFinding("lost", text))
    if missing:
        findings.append(CheckFinding("unanswered", f"{missing} processes of the test have not sent their books"))
    return findings


def _oversold(supply: Supply, observations: Observations) -> dict[int, int]:
    """Return the places above capacity by office-day, counted from the responses."""
    confirmed: dict[int, Counter[str]] = defaultdict(Counter)
    for place in observations.places.values():
        if place.state == "CONFIRMED":
            for quota in place.quotas:
                confirmed[place.office_day][quota] += place.units
    found = {}
    for index, counts in confirmed.items():
        office_day = supply.office_days[index]
        quotas = {
            name: max(capacity, observations.capacities.get(f"{index}/{name}", 0))
            for name, capacity in office_day.quotas.items()
        }
        above = oversold_places(dataclasses.replace(office_day, quotas=quotas), counts)
        if above:
            found[index] = above
    return found


def _duplicates(supply: Supply, observations: Observations) -> list[CheckFinding]:
    """Find identities with two places on a day."""
    seen: dict[tuple[int, bool, int], str] = {}
    twice: list[int] = []
    for place in observations.places.values():
        if place.state not in _IN_FORCE:
            continue
        key = (place.person, _is_customers(place.reference), place.office_day)
        if seen.setdefault(key, place.reference) != place.reference:
            twice.append(place.office_day)
    if not twice:
        return []
    where = ", ".join(_named(supply, index) for index in list(dict.fromkeys(twice))[:_SHOWN_MAX])
    return [CheckFinding("duplicate", f"{len(twice)} identities have two places on a day: {where}")]


def _is_customers(reference: str) -> bool:
    number = reference.split(" ")[0].rpartition("-")[2]
    return number.isdigit() and int(number) >= _CUSTOMER


def _queue_numbers(supply: Supply, observations: Observations) -> list[CheckFinding]:
    """Find queue numbers that two people have, and places without one."""
    numbers: dict[int, Counter[int]] = defaultdict(Counter)
    without = 0
    for place in observations.places.values():
        if place.state in ("CONFIRMED", "CANCELLED"):
            numbers[place.office_day].update(place.queue_numbers)
            without += len(place.queue_numbers) != place.units
    findings = []
    for index, counts in sorted(numbers.items()):
        double = sorted(number for number, count in counts.items() if count > 1)
        if double:
            shown = ", ".join(map(str, double[:_SHOWN_MAX]))
            findings.append(CheckFinding("double number", f"queue numbers {shown} twice at {_named(supply, index)}"))
    if without:
        findings.append(CheckFinding("double number", f"{without} places without a queue number for each applicant"))
    return findings


def check_target_state(
    plan: LoadTestPlan, supply: Supply, observations: Observations, view: TargetState
) -> list[CheckFinding]:
    """Compare the target's events, counters and audit with the observations."""
    findings = [CheckFinding("audit", text) for text in view.audit[:_SHOWN_MAX]]
    if len(view.audit) > _SHOWN_MAX:
        findings.append(CheckFinding("audit", f"and {len(view.audit) - _SHOWN_MAX} more"))
    findings += _check_history(view)
    prefix = key_prefix(plan.options.run)
    known = {reference.split(" ")[0]: place for reference, place in observations.places.items()}
    last: dict[str, dict[str, Any]] = {}
    for events in view.events.values():
        for event in events:
            record = event.get("reservation")
            if record is not None:
                last[record["reference"]] = record
    findings += _compare_states(known, last)
    strays = [
        record
        for reference, record in last.items()
        if reference.partition("~")[2].startswith(prefix) and record["state"] in _IN_FORCE and reference not in known
    ]
    if strays:
        text = f"{len(strays)} places in force that no person knows, such as {strays[0]['reference']}"
        findings.append(CheckFinding("leak", text))
    findings += _replay_peaks(plan, supply, observations, view)
    for index, quotas in enumerate(view.counters):
        for name, quota in quotas.items():
            left = quota["available"] + quota["held"] + quota["confirmed"] + quota["cooling"] + quota["parked"]
            if left != quota["capacity"] + quota["overbooked"]:
                text = f"the counters of {name} at {_named(supply, index)} do not add up to its capacity"
                findings.append(CheckFinding("leak", text))
    return findings


def _check_history(view: TargetState) -> list[CheckFinding]:
    """Replay the events on the model of the rules. Offices whose first events are trimmed are left out."""
    histories = {office: [*earlier, *view.events[office]] for office, earlier in view.earlier_events.items()}
    complete = {office: events for office, events in histories.items() if events and events[0]["number"] == 1}
    found = check(History(events={office: list(events) for office, events in complete.items()}))
    return [CheckFinding("history", text) for text in found[:_SHOWN_MAX]]


def _compare_states(known: Mapping[str, BookedPlace], last: Mapping[str, Mapping[str, Any]]) -> list[CheckFinding]:
    """Compare the last state in a response with the last recorded one."""
    allowed = {
        "CONFIRMED": {"CONFIRMED"},
        "HELD": {"HELD", "EXPIRED", "CONFIRMED"},
        "CANCELLED": {"CANCELLED"},
        "EXPIRED": {"EXPIRED", "RELEASED"},
        "WAITING": {"WAITING", "HELD", "EXPIRED", "RELEASED"},
    }
    lost: list[str] = []
    other: list[str] = []
    for reference, place in known.items():
        written = last.get(reference)
        if written is None:
            lost.append(reference)
        elif written["state"] not in allowed.get(place.state, {place.state}):
            other.append(f"{reference} is {written['state']}, its applicant got {place.state}")
    findings = []
    if lost:
        text = f"{len(lost)} places from responses are in no event, such as {lost[0]}"
        findings.append(CheckFinding("lost", text))
    if other:
        findings.append(CheckFinding("lost", f"{len(other)} places differ from the last response, such as: {other[0]}"))
    return findings


def _replay_peaks(
    plan: LoadTestPlan, supply: Supply, observations: Observations, view: TargetState
) -> list[CheckFinding]:
    """Replay the events: at no moment may more units be in force than the largest capacity of the test."""
    index_of = {(each.office, datetime.date.fromordinal(each.day).isoformat()): i for i, each in enumerate(plan.days)}
    findings = []
    for events in view.events.values():
        taken: dict[tuple[int, str], int] = defaultdict(int)
        most: dict[tuple[int, str], int] = defaultdict(int)
        units: dict[str, tuple[int, tuple[str, ...], int]] = {}
        for record in (event["reservation"] for event in events if event.get("reservation")):
            index = index_of.get((record["office"], record["day"]))
            if index is None:
                continue
            before = units.pop(record["reference"], None)
            if before is not None:
                for quota in before[1]:
                    taken[before[0], quota] -= before[2]
            if record["state"] in _IN_FORCE:
                units[record["reference"]] = (index, tuple(record["quotas"]), record["units"])
                for quota in record["quotas"]:
                    taken[index, quota] += record["units"]
                    most[index, quota] = max(most[index, quota], taken[index, quota])
        for (index, quota), peak in sorted(most.items()):
            office_day = supply.office_days[index]
            capacity = max(office_day.quotas.get(quota, 0), observations.capacities.get(f"{index}/{quota}", 0))
            # Units of another quota may have been reallocated to this one.
            capacity += sum(
                office_day.quotas[name]
                for name, to in office_day.reallocation_targets.items()
                if to == quota and name != quota
            )
            if peak > capacity:
                text = f"{peak} places of {quota} in force at once at {_named(supply, index)}, {capacity} exist"
                findings.append(CheckFinding("oversold", text))
    return findings


def _count_other_reservations(plan: LoadTestPlan, observations: Observations, view: TargetState) -> int:
    """Return the number of reservations at the same offices and times that are not of this run."""
    prefix = key_prefix(plan.options.run)
    references = {
        event["reservation"]["reference"]
        for events in view.events.values()
        for event in events
        if event.get("reservation")
    }
    return sum(
        not reference.partition("~")[2].startswith(prefix) and reference not in observations.places
        for reference in references
    )


def _record_winners(plan: LoadTestPlan, observations: Observations, draw_result: DrawRunResult) -> None:
    """Add the winners' places to the observations, as their applicants learn of them."""
    index_of = {(each.office, each.day): index for index, each in enumerate(plan.days)}
    for lot in draw_result.lots:
        reference, receipt = draw_result.references.get(lot.number), observations.receipts.get(lot.number)
        if not lot.preference or reference is None or receipt is None:
            continue
        application = draw_result.applications[lot.number]
        selection = draw_result.capacities.preferences[application.choices[lot.preference - 1]]
        office_day, quotas = index_of[selection.office, selection.day], selection.choice.options[lot.option - 1]
        observations.record_place(
            BookedPlace(receipt.person, office_day, reference, "HELD", 0, application.units, quotas)
        )
        observations.metrics.bookings += 1


def check_draw(observations: Observations, draw_result: DrawRunResult) -> list[CheckFinding]:
    """Check a draw: its files agree, everyone is listed as their receipt says, and its winners have holds.

    The result is computed again from the files, by other code than the service's, with the digests from before the
    reveal.
    """
    findings = [CheckFinding("draw", text) for text in draw_result.findings[:_SHOWN_MAX]]
    if observations.receipts_changed:
        findings.append(
            CheckFinding("draw", f"{observations.receipts_changed} people got the number of another application")
        )
    wrong = [number for number, receipt in observations.receipts.items() if not _is_listed(receipt, draw_result)]
    if wrong:
        text = (
            f"{len(wrong)} applications are not in the published list as their applicants left them, such as {wrong[0]}"
        )
        findings.append(CheckFinding("draw", text))
    strangers = draw_result.applications.keys() - observations.receipts.keys()
    if strangers:
        text = f"{len(strangers)} applications in the published list are unknown, such as {min(strangers)}"
        findings.append(CheckFinding("draw", text))
    winners = {lot.number for lot in draw_result.lots if lot.preference}
    if winners != draw_result.references.keys():
        text = f"{len(winners)} have won, {len(winners & draw_result.references.keys())} of them hold a place"
        findings.append(CheckFinding("draw", f"{text}, and {draw_result.refused} were refused one"))
    return findings


def _is_listed(receipt: ApplicationReceipt, draw_result: DrawRunResult) -> bool:
    """Return True if the list has an application as its receipt says, or lacks it after a withdrawal."""
    found = draw_result.applications.get(receipt.number)
    if found is None or receipt.is_withdrawn:
        return found is None and receipt.is_withdrawn
    if sorted(found.applicants) != sorted(receipt.tokens) or len(found.choices) != len(receipt.choices):
        return False
    for name, said in zip(found.choices, receipt.choices, strict=True):
        selection = draw_result.capacities.preferences[name]
        written = {
            "office": selection.office,
            "day": datetime.date.fromordinal(selection.day).isoformat(),
            **msgspec.structs.asdict(selection.choice),
        }
        if any(written[key] != value for key, value in said.items()):
            return False
    return True


def check_limits(limits: LoadTestLimits, observations: Observations, *, people: int, capacity: int) -> list[LimitCheck]:
    """Return the scenario's limits with their measured values; limits that the scenario does not set are left out."""
    metrics = observations.metrics
    requests = max(metrics.requests, 1)
    sold_out = None if metrics.sold_out_us is None else metrics.sold_out_us / 1e6
    asked: Sequence[tuple[str, float | None, float | None, str]] = (
        ("p99_ms_max", limits.p99_ms_max, metrics.answer_us.percentile(0.99) / 1000, "ms to yes or no, 99 of 100"),
        ("max_ms_max", limits.max_ms_max, metrics.answer_us.max / 1000, "ms to yes or no, all"),
        ("error_ratio_max", limits.error_ratio_max, metrics.errors / requests, "of requests without an answer"),
        (
            "come_back_ratio_max",
            limits.come_back_ratio_max,
            metrics.overloaded / requests,
            "of requests asked to retry",
        ),
        (
            "sold_out_s_max",
            limits.sold_out_s_max if people > capacity else None,
            sold_out,
            "s until the first SOLD_OUT",
        ),
    )
    return [LimitCheck(name, limit, measured, text) for name, limit, measured, text in asked if limit is not None]


def _named(supply: Supply, index: int) -> str:
    office_day = supply.office_days[index]
    return f"{office_day.office} on {datetime.date.fromordinal(office_day.day)}"
