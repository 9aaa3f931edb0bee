"""Workloads of a capacity measurement: reserves at offices all over the country, or joins of waiting rooms."""

from __future__ import annotations

__all__ = ["JoinWorkload", "ReserveWorkload", "Workload"]

import datetime
import itertools
import math
import time
import urllib.parse
from collections.abc import Sequence
from random import Random
from typing import Final, Protocol

import msgspec

from quota_engine.loadtest.load_generator import CONNECTIONS, LoadGeneratorResult, generate_load
from quota_engine.loadtest.plan import LoadTestOptions, LoadTestPlan, PlanError, days_on_sale, room_of, supply_of
from quota_engine.loadtest.staging_server import StagingServer
from quota_engine.loadtest.target_client import TargetClient
from quota_engine.simulation.scenario import load_scenario
from quota_engine.simulation.supply import OfficeDay

SCENARIO: Final = "indonesia"
_MARK: Final = "loadtest-measure"


class Workload(Protocol):
    """A kind of requests to send. ``people_per_place`` is the scenario's number of applicants for each place."""

    people_per_place: float

    def run(self, due_s: Sequence[float], places: float, connections: int = CONNECTIONS) -> LoadGeneratorResult:
        """Send one request at each of the moments ``due_s``.

        Args:
            due_s: moments in seconds from the start, ascending.
            places: least number of places to have on sale, for workloads that reserve.
            connections: see :func:`quota_engine.loadtest.load_generator.generate_load`.
        """
        ...


class _Country:
    """The offices of a staging service, weighted by their places, with all their open days."""

    def __init__(self, here: StagingServer, wait_s: float) -> None:
        parts = urllib.parse.urlsplit(here.url)
        self.host, self.port = str(parts.hostname), int(parts.port or 80)
        self.head = (
            f"HTTP/1.1\r\nHost: {self.host}\r\nAuthorization: Bearer {here.token}\r\nContent-Type: application/json\r\n"
        )
        scenario = load_scenario(SCENARIO)
        sale = msgspec.structs.replace(scenario.sale, catalog=here.catalog, days=7)
        self.scenario = msgspec.structs.replace(scenario, sale=sale)
        now_ms = round(time.time() * 1000)
        with TargetClient(here.url, here.token) as host:
            self.days, is_open = days_on_sale(self.scenario, host.offices(), host.availability, now_ms, wait_s)
            ids = {day.office: room_of(day) for day in self.days} if wait_s else {}
            self.rooms = [(day.office, ids[day.office]) for day in self.days if day.office in ids]
            self.rooms = [one for one in dict.fromkeys(self.rooms) if host.call("GET", f"/v1/rooms/{one[1]}")[0] == 200]
        plan = LoadTestPlan(
            options=LoadTestOptions(), days=self.days, opens_at_ms=now_ms, opens_in_ms=0, is_open=is_open
        )
        self.office_days = supply_of(plan, self.scenario).office_days


class ReserveWorkload:
    """Reserves places on days that no earlier run has used, at offices drawn by their number of places."""

    def __init__(self, here: StagingServer) -> None:
        self._country = country = _Country(here, 0)
        self._random = Random(1)
        self._pool = [each for each in country.office_days if each.places]
        self._random.shuffle(self._pool)
        days = len({each.day for each in country.office_days})
        self.people_per_place = country.scenario.applicants * days / sum(each.places for each in self._pool)
        self._runs = itertools.count()

    def run(self, due_s: Sequence[float], places: float, connections: int = CONNECTIONS) -> LoadGeneratorResult:
        """See :meth:`Workload.run`."""
        country, run = self._country, next(self._runs)
        days = self._next_days(places)
        heads = [
            f"POST /v1/offices/{each.office}/days/{datetime.date.fromordinal(each.day)}/reservations {country.head}"
            for each in days
        ]
        chosen = self._random.choices(range(len(days)), weights=[each.places for each in days], k=len(due_s))
        bookings = country.scenario.bookings
        selections = self._random.choices(
            [f'"],"service":"{one.service}","session":"{one.session}"}}' for one in bookings],
            weights=[one.weight for one in bookings],
            k=len(due_s),
        )

        def request(number: int) -> bytes:
            body = f'{{"applicants":["00{run:04d}{number:010d}{selections[number]}'
            key = f"Idempotency-Key: {_MARK}-{run}-{number}\r\nContent-Length: {len(body)}\r\n\r\n"
            return f"{heads[chosen[number]]}{key}{body}".encode()

        return generate_load(country.host, country.port, due_s, request, connections=connections)

    def _next_days(self, places: float) -> list[OfficeDay]:
        """Return unused days with at least ``places`` places together."""
        found: list[OfficeDay] = []
        while places > 0 or not found:
            if not self._pool:
                raise PlanError("the staging has no days left to measure on: take shorter steps")
            found.append(self._pool.pop())
            places -= found[-1].places
        return found


class JoinWorkload:
    """Joins the waiting rooms of all offices, drawn by their number of places."""

    people_per_place = math.inf

    def __init__(self, here: StagingServer) -> None:
        self._country = country = _Country(here, 900)
        places: dict[str, int] = {}
        for each in country.office_days:
            places[each.office] = places.get(each.office, 0) + each.places
        if not country.rooms:
            raise PlanError("the staging has no waiting rooms")
        self._heads = [f"POST /v1/rooms/{room}/tickets {country.head}" for _, room in country.rooms]
        self._weights = [places[office] for office, _ in country.rooms]
        self._random = Random(1)
        self._runs = itertools.count()

    def run(self, due_s: Sequence[float], places: float, connections: int = CONNECTIONS) -> LoadGeneratorResult:
        """See :meth:`Workload.run`."""
        run, heads = next(self._runs), self._heads
        chosen = self._random.choices(range(len(heads)), weights=self._weights, k=len(due_s))

        def request(number: int) -> bytes:
            body = f'{{"identity":"00{run:04d}{number:010d}"}}'
            return f"{heads[chosen[number]]}Content-Length: {len(body)}\r\n\r\n{body}".encode()

        return generate_load(self._country.host, self._country.port, due_s, request, connections=connections)
