"""Bodies of answers as the engine's own objects: whoever has an engine's answer in hand sees no difference.

What a service tells nobody is missing in them: of applicants how many there are (their hashes are empty), of a choice
which quotas would have served it too.
"""

from __future__ import annotations

__all__ = [
    "ServiceTicketStatus",
    "ToldChoice",
    "award_of",
    "day_of",
    "draw_outcome_of",
    "draw_view_of",
    "event_of",
    "group_of",
    "outcome_of",
    "preference_of",
    "reservation_of",
    "ticket_status_of",
]

from enum import StrEnum
from typing import Any, TypeVar

import msgspec

from quota_engine.api_schema.draws import AwardBody, DrawBody, DrawChoiceBody, DrawOutcomeBody
from quota_engine.api_schema.events import ConsumerGroupBody, EventBody
from quota_engine.api_schema.offices import DayBody
from quota_engine.api_schema.problems import ProblemBody
from quota_engine.api_schema.reservations import OutcomeBody, ReservationBody
from quota_engine.api_schema.tickets import TicketStatusBody
from quota_engine.domain.consumer_groups import ConsumerGroupView, Lease
from quota_engine.domain.errors import OutcomeUnknown
from quota_engine.domain.events import Event, ReservationChanged
from quota_engine.domain.lifecycle import State, Verb
from quota_engine.domain.model import Choice, Reservation
from quota_engine.domain.outcomes import DayView, Outcome, QuotaView, Status
from quota_engine.draws.ledger import DrawConfig, DrawOutcome, DrawStatus, DrawView, FrozenInputs
from quota_engine.draws.lottery import Preference
from quota_engine.ports import RecordedEvent
from quota_engine.waiting_room.ticket_status import TicketStatus
from quota_engine.workflows.draws import AwardReport

_E = TypeVar("_E", bound=StrEnum)
_EVENT: Any = Event


class ToldChoice(Choice, frozen=True):
    """What was asked for, as a service tells it: ``options`` are empty."""

    def __post_init__(self) -> None:
        """It has been checked where it was made."""


class ServiceTicketStatus(TicketStatus, frozen=True, gc=False):
    """How a ticket stands, and in how many milliseconds to ask again (add a random tenth; 0: enter now).

    Waits are rounded up as the service does, and ``as_of_ms`` is 0: it does not say.
    """

    poll_after_ms: int = 0


def _word(kind: type[_E], text: str) -> _E:
    """One of the engine's words. What is not known here may have been done all the same."""
    try:
        return kind(text)
    except ValueError:
        raise OutcomeUnknown(f"no {kind.__name__} that is known: the service is of a later version") from None


def reservation_of(body: ReservationBody) -> Reservation:
    """A record, with as many empty hashes as there are applicants."""
    office, _, reservation_id = body.reference.partition("~")
    return Reservation(
        office=office,
        id=reservation_id,
        day=body.day.toordinal(),
        applicants=("",) * body.units,
        choice=ToldChoice(body.service, body.service_unit, body.session, body.channel, body.group, ()),
        quotas=tuple(body.quotas),
        state=_word(State, body.state),
        version=body.version,
        created_at_ms=body.created_at_ms,
        deadline_at_ms=body.deadline_at_ms,
        queue_number=body.queue_numbers[0] if body.queue_numbers else 0,
        moves=body.moves,
    )


def outcome_of(body: OutcomeBody) -> Outcome:
    """What a command came to."""
    return Outcome(
        status=body.status,
        reservation=None if body.reservation is None else reservation_of(body.reservation),
        replayed=body.replayed,
        resumed=body.resumed,
        retry_at_ms=body.retry_at_ms,
        units=body.units,
        overbooked=body.overbooked,
        reason=body.reason,
    )


def day_of(body: DayBody) -> DayView:
    """The counters of a day."""
    return DayView(
        day=body.day.toordinal(),
        opens_at_ms=body.opens_at_ms,
        starts_at_ms=body.starts_at_ms,
        ends_at_ms=body.ends_at_ms,
        closed=body.closed,
        waiting=body.waiting,
        quotas={
            one.name: QuotaView(
                one.capacity, one.available, one.held, one.confirmed, one.cooling, one.parked, one.overbooked
            )
            for one in body.quotas
        },
    )


def event_of(body: EventBody) -> RecordedEvent:
    """An event. What is secret of an office's rules is not in it.

    Raises:
        OutcomeUnknown: a later version of the service has made it.
    """
    if body.kind == ReservationChanged.__name__ and body.reservation and body.verb:
        event: Event = ReservationChanged(body.at_ms, _word(Verb, body.verb), reservation_of(body.reservation))
        return RecordedEvent(body.number, event)
    details = body.details or {}
    try:
        event = msgspec.convert({"type": body.kind, "at_ms": body.at_ms, **details}, _EVENT)
    except msgspec.ValidationError:
        raise OutcomeUnknown(f"event {body.number} can not be read: the service is of a later version") from None
    return RecordedEvent(body.number, event)


def group_of(body: ConsumerGroupBody) -> ConsumerGroupView:
    """A group of consumers."""
    leases = tuple(Lease(one.first, one.last, one.consumer, one.since_at_ms) for one in body.leases)
    return ConsumerGroupView(body.name, body.acknowledged, body.delivered, body.pending, body.lag, leases)


def ticket_status_of(body: TicketStatusBody) -> ServiceTicketStatus:
    """How a ticket stands."""
    return ServiceTicketStatus(
        phase=body.phase,
        position=body.position,
        ahead=body.ahead,
        tickets=body.tickets,
        places_left=body.places_left,
        chance=body.chance,
        wait_ms_min=body.wait_ms_min,
        wait_ms=body.wait_ms,
        enter_until_ms=body.called_until_at_ms,
        opens_at_ms=body.opens_at_ms,
        as_of_ms=0,
        poll_after_ms=body.poll_after_ms,
    )


def preference_of(body: DrawChoiceBody) -> Preference:
    """One of the things that somebody has applied for."""
    choice = ToldChoice(body.service, body.service_unit, body.session, body.channel, body.group, ())
    return Preference(body.office, body.day.toordinal(), choice)


def draw_outcome_of(body: DrawOutcomeBody | ProblemBody) -> DrawOutcome:
    """What a command to a draw came to."""
    if isinstance(body, ProblemBody):
        status = DrawStatus(str(body.outcome))
        return DrawOutcome(status, body.number or 0, body.version or 0, retry_at_ms=body.retry_at_ms or 0)
    return DrawOutcome(body.status, body.number, body.version, body.replayed, body.retry_at_ms, (), tuple(body.tokens))


def draw_view_of(body: DrawBody) -> DrawView:
    """A draw as it stands."""
    frozen = body.frozen
    return DrawView(
        draw=body.draw,
        phase=body.phase,
        config=DrawConfig(
            opens_at_ms=body.opens_at_ms,
            closes_at_ms=body.closes_at_ms,
            forget_at_ms=body.forget_at_ms,
            first_day=body.first_day.toordinal(),
            last_day=body.last_day.toordinal(),
            commitment=body.commitment,
            entropy_source=body.entropy_source,
            party_max=body.party_max,
            choices_max=body.choices_max,
            applications_max=body.applications_max,
        ),
        applications=body.applications,
        applicants=body.applicants,
        last_number=body.last_number,
        preferences=body.preferences,
        offered_days=body.offered_days,
        frozen=None
        if frozen is None
        else FrozenInputs(frozen.applications, frozen.applications_digest, frozen.capacities_digest),
        seed=body.seed,
        entropy=body.entropy,
    )


def award_of(body: AwardBody) -> AwardReport:
    """What became of the winners."""
    return AwardReport(
        winners=body.winners,
        references={one.number: one.reference for one in body.references},
        refusals={_word(Status, status): count for status, count in body.refusals.items()},
        refused=tuple((one.number, one.status) for one in body.refused),
        findings=tuple(body.findings),
    )
