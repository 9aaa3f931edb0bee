"""Where a measurement takes place: offices of its own with one open day, and the work that is to be done there."""

from __future__ import annotations

__all__ = ["Place", "WrongAnswer", "line_of"]

import datetime
import itertools
import secrets
from typing import Any, Final, TypeVar

from quota_engine.catalog import Catalog, catalog_from
from quota_engine.domain.commands import Command, Confirm
from quota_engine.domain.errors import QuotaEngineError
from quota_engine.domain.outcomes import Status
from quota_engine.faces.bench.plan import Face, Measure
from quota_engine.faces.bench.stores import Store
from quota_engine.flow import steps
from quota_engine.flow.desk import Desk
from quota_engine.flow.drivers import run, run_async
from quota_engine.ports import Request, SendMany, View

T = TypeVar("T")

_CAPACITY: Final = 10_000_000
_WANTED: Final = ("", "", "", "online", "")
_PRELOAD: Final = 10_000
"""Reservations in one request while a place is filled."""

_numbers = itertools.count(1)


class WrongAnswer(QuotaEngineError):
    """What was measured did not do what it was asked to: its speed means nothing."""


class Place:
    """Some offices with a day a week ahead, one quota, and the identity limit, idempotency and events on.

    Attributes:
        offices: their ids, which no earlier measurement had.
        day: the ordinal of the day.
        desk: makes commands of calls, for the engine and for the yardsticks alike.
        backend, async_backend: the two ways to the store.
    """

    def __init__(self, store: Store, measure: Measure) -> None:
        """Publish the offices of ``measure``, and fill them with the reservations that it wants to find."""
        self._store = store
        self._face = measure.face
        self._done = 0
        tag = secrets.token_hex(4)
        self.offices = [f"bench-{tag}-{number}" for number in range(measure.offices)]
        self.day = _next_working_day()
        catalog = _catalog(self.offices, 0 if measure.action == "refusal" else _CAPACITY)
        self.desk = Desk(secrets.token_bytes(32), catalog)
        self.backend, self.async_backend = store.backends()
        store.note_offices(self.offices)
        publish = steps.publish(self.desk, catalog, self.day, None)
        if self._face is Face.TASKS:
            store.wait(run_async(publish, self.async_backend))
        else:
            run(publish, self.backend)
        left = measure.reservations
        while left:
            count = min(left, _PRELOAD)
            self._carry_out([command for _, _, command in self.reserves(count)])
            self._done += count
            left -= count

    def reserves(self, count: int) -> list[tuple[int, tuple[str, str, str], Command]]:
        """As many reserves by people who have not come before, office by office in turn: the office's index, the
        arguments of the call (office, identity, key), and the command that it comes to.
        """
        offices, desk = self.offices, self.desk
        work: list[tuple[int, tuple[str, str, str], Command]] = []
        for index in range(count):
            number = next(_numbers)
            office = offices[index % len(offices)]
            identity, key = f"{3578_0000_0000_0000 + number}", f"k{number:021d}"
            command = desk.reserve(office, self.day, identity, _WANTED, key, False, 0)
            work.append((index % len(offices), (office, identity, key), command))
        return work

    def confirms(self, count: int) -> list[tuple[int, tuple[str], Command]]:
        """As many confirms, of holds that are made here and now: index, argument (the reference), command."""
        reserves = self.reserves(count)
        self._carry_out([command for _, _, command in reserves])
        work: list[tuple[int, tuple[str], Command]] = []
        for index, (office, _, key), _ in reserves:
            reference = f"{office}~{key}"
            _, command = self.desk.step(Confirm, reference, None, 0, False)
            work.append((index, (reference,), command))
        return work

    def check(self, measure: Measure, count: int) -> None:
        """See that ``count`` calls had the effect that they should have had.

        Raises:
            WrongAnswer: they had not.
        """
        self._done += 0 if measure.action in ("refusal", "availability") else count
        views = [view for office in self.offices for view in self._ask(View(office, (self.day,)))]
        held = sum(quota.held for view in views for quota in view.quotas.values())
        confirmed = sum(quota.confirmed for view in views for quota in view.quotas.values())
        wanted = (0, self._done) if measure.action == "confirm" else (self._done, 0)
        if len(views) != len(self.offices) or (held, confirmed) != wanted:
            raise WrongAnswer(
                f"{self._store.target.label}: {measure.name}: {held:,} held and {confirmed:,} confirmed places after "
                f"it; expected {wanted[0]:,} and {wanted[1]:,}"
            )
        if measure.action == "refusal":
            ((_, (office, _, _), command),) = self.reserves(1)
            (outcome,) = self._ask(SendMany(office, (command,)))
            if outcome.status is not Status.SOLD_OUT:
                raise WrongAnswer(f"{self._store.target.label}: {measure.name}: {outcome.status}; expected SOLD_OUT")

    def remove(self) -> None:
        """Take the offices away again."""
        self._store.remove(self.offices)

    def _ask(self, request: Request[T]) -> T:
        """By the way that is measured: a store may be another one by another way."""
        if self._face is Face.TASKS:
            return self._store.wait(self.async_backend.perform(request))
        return self.backend.perform(request)

    def _carry_out(self, commands: list[Command]) -> None:
        for index, office in enumerate(self.offices):
            mine = tuple(commands[index :: len(self.offices)])
            if mine:
                self._ask(SendMany(office, mine))


def line_of(place: Place, action: str, command: Command | None) -> str:
    """What the engine's scripts are given for a call."""
    from quota_engine.adapters.redis.codec import encode

    if action == "availability":
        return f"view\t{place.day}"
    assert command is not None
    return encode(command)


def _next_working_day() -> int:
    """A working day about a week ahead: open by the schedule, and not over, in every time zone."""
    day = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=7)
    while day.weekday() > 4:
        day += datetime.timedelta(days=1)
    return day.toordinal()


def _catalog(offices: list[str], capacity: int) -> Catalog:
    raw: dict[str, Any] = {
        "title": "benchmark",
        "services": [{"id": "passport", "name": "Passport"}],
        "channels": [{"id": "online", "name": "Online"}],
        "schedules": [{"id": "ahead", "kind": "days_ahead", "at": "00:00", "days": 300}],
        "plans": [
            {
                "id": "plan",
                "services": ["passport"],
                "hours": {"start": "08:00", "end": "16:00"},
                "schedule": "ahead",
                "allotments": [{"id": "online", "channels": ["online"], "capacity": capacity}],
            }
        ],
        "offices": [
            {"id": office, "name": "Benchmark", "time_zone": "Asia/Jakarta", "plan": "plan"} for office in offices
        ],
    }
    return catalog_from(raw, "benchmark")
