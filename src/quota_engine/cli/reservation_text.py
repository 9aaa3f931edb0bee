"""A reservation and a refusal in words, at most 80 columns wide, and as JSON. Neither has an identity or a hash."""

from __future__ import annotations

__all__ = ["describe_refusal", "next_step", "reservation_lines", "reservation_to_builtins", "zone_of"]

import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec

from quota_engine.api_schema.reservations import WaitListPositionBody, reservation_body
from quota_engine.catalog import Catalog, extensions_left
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import Outcome, Status, WaitListPosition

_NEXT_STEPS: Final = {
    Status.OVERLOADED: "the store is overloaded: repeat the command in a few seconds",
    Status.NOT_ADMITTED: "a policy refuses it: use a service without this policy, or the store itself",
    Status.THROTTLED: "a policy asks for patience: repeat the command later",
    Status.COMMAND_EXPIRED: "the command arrived too late and changed nothing: repeat it",
    Status.MOVING: "it is being moved to another office: repeat the command in half a minute",
    Status.NOT_FOUND: "no such reservation: compare the reference, or its day is long over",
    Status.UNKNOWN_DAY: "the day is not published: choose a day that  quota-engine status  lists",
    Status.NOT_OWNER: "the owner is not in this party: compare the reference and the identity",
    Status.NOT_IN_PARTY: "this person is not in the party: compare the reference and the identity",
    Status.HOLD_EXPIRED: "the hold has ended: book a new place",
    Status.STALE: "it has changed meanwhile: look at it with  reservation show  and repeat",
    Status.WRONG_STATE: "its state does not allow this step: see  reservation show",
    Status.DAY_CLOSED: "the office has closed the day: cancel, or reschedule to another day",
    Status.DAY_OVER: "the day is over: nothing can be changed any more",
    Status.SESSION_OVER: "the session is over: choose another session with --session",
    Status.NOT_OPEN: "the day does not open before the time above: choose an open day",
    Status.TOO_LATE: "the last moment for this step has passed: cancel it instead",
    Status.MOVES_EXCEEDED: "the office allows no more moves: cancel it and book a new place",
    Status.EXTENSIONS_EXCEEDED: "the office allows no more extensions: the hold keeps its deadline",
    Status.DECLINES_EXCEEDED: "the office allows no more declines: confirm the offer, or release it",
    Status.PARTY_TOO_LARGE: "the party is larger than the office allows",
    Status.PARTY_TOO_SMALL: "nobody would be left: use  reservation cancel  instead",
    Status.BLOCKED: "the new member is blocked until the time above: choose another day or person",
    Status.IDENTITY_LIMIT: "this person has as many places as allowed: cancel the other one first",
    Status.SOLD_OUT: "no place is left there: choose another day or session",
    Status.WAIT_LIST_FULL: "no place is left there, and the wait list is full: choose another day",
}


def next_step(status: Status) -> str:
    """Return what an operator can do after a refusal."""
    return _NEXT_STEPS.get(status, "see docs/life-cycle.md for this status")


def describe_refusal(reference: str, outcome: Outcome, zone: ZoneInfo | None) -> list[str]:
    """Return the lines about a command that was refused."""
    lines = [f"{reference} is unchanged: {outcome.status}"]
    if outcome.retry_at_ms:
        lines.append(f"  not before {_moment(outcome.retry_at_ms, zone)}")
    return [*lines, f"  {next_step(outcome.status)}"]


def reservation_lines(
    record: Reservation, catalog: Catalog | None, *, position: WaitListPosition | None = None, moved_to: str = ""
) -> list[str]:
    """Return the lines about a reservation. Times are the office's if the catalog has it, else UTC."""
    zone = zone_of(record.office, catalog)
    choice = record.choice
    rows = [
        ("day", f"{datetime.date.fromordinal(record.day)}{f', {choice.session}' if choice.session else ''}"),
        ("people", str(record.units)),
    ]
    if record.queue_numbers:
        rows.append(("queue number", ", ".join(map(str, record.queue_numbers))))
    selection = {
        "service": choice.service, "unit": choice.service_unit, "channel": choice.channel, "group": choice.group,
    }  # fmt: skip
    rows += [(name, text) for name, text in selection.items() if text]
    if record.quotas:
        rows.append(("quotas", ", ".join(record.quotas)))
    if record.state is State.HELD:
        rows.append(("offer ends" if record.is_offer else "hold ends", _moment(record.deadline_at_ms, zone)))
        if catalog is not None:
            rows.append(("extensions", f"{record.extensions} used, {extensions_left(catalog, record)} left"))
    if position is not None:
        rows.append(("wait list", f"{position.ahead} parties ahead, {position.waiting} wait in all"))
    if moved_to:
        rows.append(("moved to", moved_to))
    rows += [("moves", str(record.moves)), ("version", str(record.version))]
    return [f"{record.reference}  {record.state}", *(f"  {name:<13} {text}" for name, text in rows)]


def reservation_to_builtins(
    record: Reservation, catalog: Catalog | None, *, position: WaitListPosition | None = None, moved_to: str = ""
) -> dict[str, Any]:
    """Return a reservation for JSON, with the fields of the HTTP interface."""
    body = reservation_body(record)
    if catalog is not None and record.state is State.HELD:
        body = msgspec.structs.replace(body, extensions_left=extensions_left(catalog, record))
    if position is not None:
        found = WaitListPositionBody(ahead=position.ahead, waiting=position.waiting)
        body = msgspec.structs.replace(body, wait_list_position=found)
    if moved_to:
        body = msgspec.structs.replace(body, moved_to=moved_to)
    builtins: dict[str, Any] = msgspec.to_builtins(body)
    return builtins


def zone_of(office: str, catalog: Catalog | None) -> ZoneInfo | None:
    """Return the office's time zone, or ``None`` if the catalog does not have it."""
    found = None if catalog is None else catalog.offices.get(office)
    return None if found is None else found.zone


def _moment(at_ms: int, zone: ZoneInfo | None) -> str:
    moment = datetime.datetime.fromtimestamp(at_ms / 1_000, tz=zone or datetime.UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S %Z}"
