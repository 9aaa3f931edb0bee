"""Decode the bodies of responses into the engine's own types.

A service does not disclose applicants and the alternatives of a choice. So a record has one empty hash for each
applicant, and a choice has no options.
"""

from __future__ import annotations

__all__ = [
    "ServiceChoice",
    "ServiceTicketStatus",
    "award_of",
    "day_of",
    "draw_outcome_of",
    "draw_view_of",
    "event_of",
    "group_of",
    "outcome_of",
    "preference_of",
    "relocation_of",
    "reservation_of",
    "ticket_status_of",
]

from enum import StrEnum
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET

from quota_engine import typed_data
from quota_engine.api_schema.draws import AwardBody, DrawBody, DrawChoiceBody, DrawOutcomeBody
from quota_engine.api_schema.events import ConsumerGroupBody, EventBody
from quota_engine.api_schema.offices import DayBody
from quota_engine.api_schema.operators import RelocationBody
from quota_engine.api_schema.problems import ProblemBody
from quota_engine.api_schema.reservations import OutcomeBody, ReservationBody
from quota_engine.api_schema.tickets import TicketStatusBody
from quota_engine.domain.consumer_groups import ConsumerGroupView, Lease
from quota_engine.domain.errors import OutcomeUnknown
from quota_engine.domain.events import Event, ReservationChanged
from quota_engine.domain.lifecycle import State, Verb
from quota_engine.domain.model import Choice, Reservation, SessionTerms
from quota_engine.domain.outcomes import DayView, Outcome, QuotaView, Status
from quota_engine.draws.commands import DrawConfig
from quota_engine.draws.lottery import Preference
from quota_engine.draws.outcomes import DrawOutcome, DrawStatus
from quota_engine.draws.queries import DrawView, FrozenInputs
from quota_engine.ports import RecordedEvent
from quota_engine.waiting_room.ticket_status import TicketStatus
from quota_engine.workflows.draws import AwardReport
from quota_engine.workflows.relocation import RelocatedParty, RelocationReport, RelocationTarget

_E = TypeVar("_E", bound=StrEnum)
_EVENT: Any = Event


class ServiceChoice(Choice, frozen=True):
    """The choice of a reservation, with empty ``options``."""

    def __post_init__(self) -> None:
        """Skip the checks: the service made them."""


class ServiceTicketStatus(TicketStatus, frozen=True, gc=False):
    """Ticket status of a service.

    The service rounds waiting times up. ``as_of_ms`` is 0, because a service does not send it.

    Args:
        poll_after_ms: time until the next poll; 0 to enter now. Add a random tenth to it.
    """

    poll_after_ms: int = 0


def _status_of(kind: type[_E], text: str) -> _E:
    """Return one of the engine's statuses.

    Raises:
        OutcomeUnknown: the status is unknown here. A service of a later version may have applied the command.
    """
    try:
        return kind(text)
    except ValueError:
        raise OutcomeUnknown(f"no {kind.__name__} that is known: the service is of a later version") from None


def reservation_of(body: ReservationBody) -> Reservation:
    """Return a record with one empty hash for each applicant."""
    office, _, reservation_id = body.reference.partition("~")
    return Reservation(
        office=office,
        id=reservation_id,
        day=body.day.toordinal(),
        applicants=("",) * body.units,
        choice=ServiceChoice(body.service, body.service_unit, body.session, body.channel, body.group, ()),
        quotas=tuple(body.quotas),
        state=_status_of(State, body.state),
        version=body.version,
        created_at_ms=body.created_at_ms,
        deadline_at_ms=body.deadline_at_ms,
        queue_number=body.queue_numbers[0] if body.queue_numbers else 0,
        queue_offsets=_offsets(body.queue_numbers),
        moves=body.moves,
        forced_moves=body.forced_moves,
        extensions=body.extensions,
        wait_list_number=body.wait_list_number,
        declines=body.declines,
        paused_until_ms=body.paused_until_ms,
        undo_until_ms=body.undo_until_ms,
    )


def _offsets(numbers: list[int]) -> tuple[int, ...]:
    """Return the distances to the first queue number; nothing for consecutive numbers."""
    offsets = tuple(number - numbers[0] for number in numbers)
    return () if offsets == tuple(range(len(offsets))) else offsets


def outcome_of(body: OutcomeBody) -> Outcome:
    """Return the outcome of a command."""
    return Outcome(
        status=body.status,
        reservation=None if body.reservation is None else reservation_of(body.reservation),
        replayed=body.replayed,
        resumed=body.resumed,
        retry_at_ms=body.retry_at_ms,
        units=body.units,
        overbooked=body.overbooked,
        reason=body.reason,
        abandoned_holds_left=None if body.abandoned_holds_left is UNSET else body.abandoned_holds_left,
        blocked_until_ms=body.blocked_until_ms or 0,
        revision=body.revision or 0,
        extensions_left=body.extensions_left or 0,
    )


def day_of(body: DayBody) -> DayView:
    """Return the counters of a day."""
    return DayView(
        day=body.day.toordinal(),
        opens_at_ms=body.opens_at_ms,
        starts_at_ms=body.starts_at_ms,
        ends_at_ms=body.ends_at_ms,
        closed=body.closed,
        waiting=body.waiting,
        quotas={
            one.name: QuotaView(
                one.capacity,
                one.available,
                one.held,
                one.confirmed,
                one.cooling,
                one.parked,
                one.overbooked,
                one.withheld,
            )
            for one in body.quotas
        },
        revision=body.revision,
        sessions=tuple(SessionTerms(one.id, one.ends_at_ms, one.book_until_ms) for one in body.sessions),
    )


def event_of(body: EventBody) -> RecordedEvent:
    """Return an event. The service omits the secrets of an office's rules.

    Raises:
        OutcomeUnknown: a later version of the service wrote the event.
    """
    if body.kind == ReservationChanged.__name__ and body.reservation and body.verb:
        event: Event = ReservationChanged(body.at_ms, _status_of(Verb, body.verb), reservation_of(body.reservation))
        return RecordedEvent(body.number, event)
    details = body.details or {}
    try:
        event = typed_data.convert({"type": body.kind, "at_ms": body.at_ms, **details}, _EVENT)
    except msgspec.ValidationError:
        raise OutcomeUnknown(f"event {body.number} cannot be read: the service has a later version") from None
    return RecordedEvent(body.number, event)


def group_of(body: ConsumerGroupBody) -> ConsumerGroupView:
    """Return a consumer group."""
    leases = tuple(Lease(one.first, one.last, one.consumer, one.since_at_ms) for one in body.leases)
    return ConsumerGroupView(body.name, body.acknowledged, body.delivered, body.pending, body.lag, leases)


def ticket_status_of(body: TicketStatusBody) -> ServiceTicketStatus:
    """Return a ticket's status."""
    return ServiceTicketStatus(
        phase=body.phase,
        number=body.number,
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
        epoch=body.epoch,
        poll_after_ms=body.poll_after_ms,
    )


def preference_of(body: DrawChoiceBody) -> Preference:
    """Return one choice of an application."""
    choice = ServiceChoice(body.service, body.service_unit, body.session, body.channel, body.group, ())
    return Preference(body.office, body.day.toordinal(), choice)


def draw_outcome_of(body: DrawOutcomeBody | ProblemBody) -> DrawOutcome:
    """Return the outcome of a command to a draw."""
    if isinstance(body, ProblemBody):
        status = DrawStatus(str(body.outcome))
        return DrawOutcome(
            status, body.number or 0, body.version or 0, retry_at_ms=body.retry_at_ms or 0, epoch=body.epoch or 0
        )
    return DrawOutcome(
        body.status, body.number, body.version, body.replayed, body.retry_at_ms, (), tuple(body.tokens), body.epoch
    )


def draw_view_of(body: DrawBody) -> DrawView:
    """Return the state of a draw."""
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
        epoch=body.epoch,
        frozen_epoch=0 if frozen is None else frozen.epoch,
        revealed_epoch=body.revealed_epoch,
    )


def award_of(body: AwardBody) -> AwardReport:
    """Return the result of an award."""
    return AwardReport(
        winners=body.winners,
        references={one.number: one.reference for one in body.references},
        refusals={_status_of(Status, status): count for status, count in body.refusals.items()},
        refused=tuple((one.number, one.status) for one in body.refused),
        findings=tuple(body.findings),
    )


def relocation_of(body: RelocationBody) -> RelocationReport:
    """Return the report of a day whose people were moved."""
    return RelocationReport(
        body.office,
        body.day.toordinal(),
        Status.DONE,
        body.dry_run,
        tuple(
            RelocatedParty(
                party.reference,
                party.units,
                party.queue_number,
                party.session,
                party.status,
                RelocationTarget(party.target_office, party.target_day.toordinal()) if party.target_day else None,
                party.target_session,
                party.target_opens_at_ms,
                party.target_reference,
                party.target_queue_number,
            )
            for party in body.parties
        ),
        body.next_after,
    )
