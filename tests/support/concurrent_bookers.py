"""Bookers that use a service while it or its store is killed, and the checks that follow.

Each booker repeats a request with one key until it gets a definite outcome, and records acknowledged outcomes.
"""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable, Iterable
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from quota_engine import BackendUnavailable, Outcome, OutcomeUnknown, Status
from quota_engine.client import Retries, ServiceClient
from quota_engine.domain.outcomes import DayView
from tests.support.identities import nik

OFFICE = "surabaya"
RESPONSE_TIMEOUT_S = 60.0
"""Longest time that a booker may be without an outcome."""


class Booker(NamedTuple):
    """A booker: a unique idempotency key and a unique identity."""

    key: str
    identity: str


class BookingRecord:
    """Acknowledged outcomes of a day.

    ``confirmed`` has the queue numbers of confirmed reservations by reference. ``held`` has the references of all
    holds, and ``sold_out`` is the number of bookers that got ``SOLD_OUT``.
    """

    def __init__(self, day: datetime.date) -> None:
        self.day = day
        self.confirmed: dict[str, int] = {}
        self.held: set[str] = set()
        self.sold_out = 0


class BookerThreads(BookingRecord):
    """Threads that each run bookers one after the other. ``retries`` counts repeated requests."""

    def __init__(
        self,
        url: str,
        token: str,
        day: datetime.date,
        people: int,
        *,
        threads: int = 8,
        pause_after: int | None = None,
    ) -> None:
        """Prepare the threads; see :meth:`start`.

        Args:
            url: The address of the service.
            token: The token of the requests.
            day: The day to book.
            people: The number of bookers in all threads.
            threads: The number of threads.
            pause_after: The number of bookers that do not wait for :meth:`finish`; all by default.
        """
        super().__init__(day)
        self.retries = 0
        self.requests = 0
        self.longest_s = 0.0
        self._token = token
        self._client = self._open(url)
        self._old: list[ServiceClient] = []
        self._people = iter([Booker(f"key-{number}", nik(number)) for number in range(people)])
        self._without_pause = people if pause_after is None else pause_after
        self._may_continue = threading.Event()
        self._lock = threading.Lock()
        self._errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    @property
    def is_running(self) -> bool:
        """True while a thread is running."""
        return any(thread.is_alive() for thread in self._threads)

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def switch_to(self, url: str) -> None:
        """Send further requests to another address."""
        self._old.append(self._client)
        self._client = self._open(url)

    def wait_for_confirmed(self, confirmed: int) -> None:
        """Wait until ``confirmed`` reservations are confirmed."""
        deadline_s = time.monotonic() + RESPONSE_TIMEOUT_S
        while len(self.confirmed) < confirmed:
            assert self.is_running, (len(self.confirmed), self._errors)
            assert time.monotonic() < deadline_s, len(self.confirmed)
            time.sleep(0.005)

    def finish(self) -> None:
        """Let all bookers begin, wait for all threads, and raise the first error."""
        self._may_continue.set()
        for thread in self._threads:
            thread.join()
        self.close()
        if self._errors:
            raise self._errors[0]

    def close(self) -> None:
        """Close the connections. This also ends bookers that a failed test has left. A second call does nothing."""
        self._may_continue.set()
        for client in (self._client, *self._old):
            client.close()

    def _open(self, url: str) -> ServiceClient:
        retries = Retries(attempts_max=2, pause_ms_min=10, pause_ms_max=50)
        return ServiceClient.open(url, self._token, retries=retries)

    def _run(self) -> None:
        try:
            while True:
                with self._lock:
                    person = next(self._people, None)
                    self._without_pause -= 1
                    waits = self._without_pause < 0
                if person is None:
                    return
                if waits:
                    assert self._may_continue.wait(3 * RESPONSE_TIMEOUT_S), "the test does not end"
                self._book(person)
        except BaseException as error:
            self._errors.append(error)

    def _book(self, person: Booker) -> None:
        request = {"service": "new", "session": "morning", "idempotency_key": person.key}
        held = self._repeat(
            lambda client: client.reserve(OFFICE, self.day, person.identity, **request)  # type: ignore[arg-type]
        )
        if held.status is Status.SOLD_OUT:
            with self._lock:
                self.sold_out += 1
            return
        assert held.ok, held
        with self._lock:
            self.held.add(held.reference)
        confirmed = self._repeat(lambda client: client.confirm(held.reference))
        assert confirmed.status is Status.CONFIRMED, confirmed
        (number,) = confirmed.queue_numbers
        with self._lock:
            self.confirmed[held.reference] = number

    def _repeat(self, call: Callable[[ServiceClient], Outcome]) -> Outcome:
        began_s = time.monotonic()
        while True:
            with self._lock:
                self.requests += 1
            try:
                outcome = call(self._client)
            except (BackendUnavailable, OutcomeUnknown):
                outcome = None
            if outcome is not None and outcome.status is not Status.OVERLOADED:
                with self._lock:
                    self.longest_s = max(self.longest_s, time.monotonic() - began_s)
                return outcome
            assert time.monotonic() - began_s < RESPONSE_TIMEOUT_S, "no outcome within the timeout"
            with self._lock:
                self.retries += 1
            time.sleep(0.02)


def write_catalog(folder: Path) -> Path:
    """Write a catalog in which a morning can be booked at any time, and return its path.

    With the shipped catalog none can from ten minutes before noon on a Friday, the week's last morning, until the next
    week opens at 14:00. Here each week opens a week earlier.
    """
    shipped = (resources.files("quota_engine.catalog.data") / "surabaya.toml").read_text(encoding="utf-8")
    assert shipped.count("weeks_ahead = 1\n") == 1
    path = folder / "two_weeks_ahead.toml"
    path.write_text(shipped.replace("weeks_ahead = 1\n", "weeks_ahead = 2\n"), encoding="utf-8")
    return path


def open_day(client: ServiceClient) -> datetime.date:
    """Return a day whose morning session can be booked for at least ten more minutes.

    The tests use the real time. The service must use :func:`write_catalog`.
    """
    now = datetime.datetime.now(datetime.UTC)
    days = client.availability(OFFICE, now.date(), now.date() + datetime.timedelta(days=14))
    day = first_open_morning(days, int(now.timestamp() * 1000))
    assert day is not None, now
    return day


def first_open_morning(days: Iterable[DayView], now_ms: int) -> datetime.date | None:
    """Return the first day whose morning session can be booked for at least ten more minutes.

    Today's morning may be over while the day itself is still open.
    """
    for one in days:
        for session in one.sessions:
            if session.name == "morning" and one.opens_at_ms < now_ms < session.book_until_ms - 600_000:
                return datetime.date.fromordinal(one.day)
    return None


def set_places(client: ServiceClient, day: datetime.date, places: int) -> None:
    """Set the online capacity of a day, with enough capacity in the session."""
    for quota, capacity in (("online", places), ("morning", 10 * places)):
        assert client.set_capacity(OFFICE, day, quota, capacity).ok


def check(client: ServiceClient, crowd: BookingRecord, places: int) -> None:
    """Check that nothing was sold twice, and that no acknowledged outcome is lost."""
    (day,) = client.availability(OFFICE, crowd.day)
    online = day.quotas["online"]
    assert (online.capacity, online.overbooked) == (places, 0)
    assert online.held + online.confirmed <= places
    assert online.confirmed == len(crowd.confirmed), "a confirmation was not acknowledged, or was lost"
    assert len(set(crowd.confirmed.values())) == len(crowd.confirmed), "two reservations share a queue number"
    assert crowd.held == set(crowd.confirmed), "a hold was lost before it was confirmed"
    for reference, number in crowd.confirmed.items():
        record = client.lookup(reference)
        assert record is not None, reference
        assert (record.state, list(record.queue_numbers)) == ("CONFIRMED", [number]), record
    audit = client.audit()
    assert audit.ok, audit.findings
