"""People who book through a service while it, or its store, is killed; and what must be true of it afterwards.

Each asks with one key until there is a definite answer, however often it is cut off, and notes what was acknowledged.
"""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from quota_engine import BackendUnavailable, Outcome, OutcomeUnknown, Status
from quota_engine.client import Retries, ServiceClient

OFFICE = "surabaya"
GIVEN_UP_S = 60.0
"""Nobody is without an answer for so long."""


class Person(NamedTuple):
    """Somebody's wish: a key and an identity that nobody else has."""

    key: str
    identity: str


class Booked:
    """What people were told who booked on a day.

    ``confirmed`` has what was acknowledged as confirmed, reference and queue number; ``held`` the references of all
    holds that were acknowledged; ``sold_out`` how many were told that.
    """

    def __init__(self, day: datetime.date) -> None:
        self.day = day
        self.confirmed: dict[str, int] = {}
        self.held: set[str] = set()
        self.sold_out = 0


class Crowd(Booked):
    """People who book, one after the other in each of some threads; ``retries`` is how often somebody asked again."""

    def __init__(self, url: str, token: str, day: datetime.date, people: int, *, threads: int = 8) -> None:
        """``people`` is how many come in all."""
        super().__init__(day)
        self.retries = 0
        self.asked = 0
        self.longest_s = 0.0
        self._token = token
        self._client = self._open(url)
        self._old: list[ServiceClient] = []
        self._people = iter([Person(f"wish-{number}", f"person {number}") for number in range(people)])
        self._lock = threading.Lock()
        self._errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    @property
    def is_at_it(self) -> bool:
        """Whether somebody is without an answer yet."""
        return any(thread.is_alive() for thread in self._threads)

    def start(self) -> None:
        """Let them come."""
        for thread in self._threads:
            thread.start()

    def move(self, url: str) -> None:
        """From now on the service is there."""
        self._old.append(self._client)
        self._client = self._open(url)

    def wait_for(self, confirmed: int) -> None:
        """Until so many are confirmed."""
        deadline_s = time.monotonic() + GIVEN_UP_S
        while len(self.confirmed) < confirmed:
            assert self.is_at_it, (len(self.confirmed), self._errors)
            assert time.monotonic() < deadline_s, len(self.confirmed)
            time.sleep(0.005)

    def finish(self) -> None:
        """Until everybody has an answer; raises what went wrong for anybody."""
        for thread in self._threads:
            thread.join()
        for client in (self._client, *self._old):
            client.close()
        if self._errors:
            raise self._errors[0]

    def _open(self, url: str) -> ServiceClient:
        retries = Retries(attempts_max=2, pause_ms_min=10, pause_ms_max=50)
        return ServiceClient.open(url, self._token, retries=retries)

    def _run(self) -> None:
        try:
            while True:
                with self._lock:
                    person = next(self._people, None)
                if person is None:
                    return
                self._book(person)
        except BaseException as error:
            self._errors.append(error)

    def _book(self, person: Person) -> None:
        wish = {"service": "new", "session": "morning", "idempotency_key": person.key}
        held = self._until_sure(
            lambda client: client.reserve(OFFICE, self.day, person.identity, **wish)  # type: ignore[arg-type]
        )
        if held.status is Status.SOLD_OUT:
            with self._lock:
                self.sold_out += 1
            return
        assert held.ok, held
        with self._lock:
            self.held.add(held.reference)
        confirmed = self._until_sure(lambda client: client.confirm(held.reference))
        assert confirmed.status is Status.CONFIRMED, confirmed
        (number,) = confirmed.queue_numbers
        with self._lock:
            self.confirmed[held.reference] = number

    def _until_sure(self, call: Callable[[ServiceClient], Outcome]) -> Outcome:
        began_s = time.monotonic()
        while True:
            with self._lock:
                self.asked += 1
            try:
                outcome = call(self._client)
            except (BackendUnavailable, OutcomeUnknown):
                outcome = None
            if outcome is not None and outcome.status is not Status.OVERLOADED:
                with self._lock:
                    self.longest_s = max(self.longest_s, time.monotonic() - began_s)
                return outcome
            assert time.monotonic() - began_s < GIVEN_UP_S, "nobody answers"
            with self._lock:
                self.retries += 1
            time.sleep(0.02)


def open_day(client: ServiceClient) -> datetime.date:
    """A day that is being sold, for a while yet."""
    now = datetime.datetime.now(datetime.UTC)
    now_ms = now.timestamp() * 1000
    days = client.availability(OFFICE, now.date(), now.date() + datetime.timedelta(days=14))
    day = next(one.day for one in days if one.opens_at_ms < now_ms < one.ends_at_ms - 600_000)
    return datetime.date.fromordinal(day)


def set_places(client: ServiceClient, day: datetime.date, places: int) -> None:
    """How many there are to be had, and room enough in the session."""
    for quota, capacity in (("online", places), ("morning", 10 * places)):
        assert client.set_capacity(OFFICE, day, quota, capacity).ok


def check(client: ServiceClient, crowd: Booked, places: int) -> None:
    """Nothing was sold twice, and nothing that was acknowledged is lost."""
    (day,) = client.availability(OFFICE, crowd.day)
    online = day.quotas["online"]
    assert (online.capacity, online.overbooked) == (places, 0)
    assert online.held + online.confirmed <= places
    assert online.confirmed == len(crowd.confirmed), "one was confirmed that nobody was told of, or lost"
    assert len(set(crowd.confirmed.values())) == len(crowd.confirmed), "a queue number was given twice"
    assert crowd.held == set(crowd.confirmed), "a hold was lost before it was confirmed"
    for reference, number in crowd.confirmed.items():
        record = client.lookup(reference)
        assert record is not None, reference
        assert (record.state, list(record.queue_numbers)) == ("CONFIRMED", [number]), record
    audit = client.audit()
    assert audit.ok, audit.findings
