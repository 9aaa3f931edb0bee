"""How often a call is tried, what is waited for, and what is made of answers that are none. Talks are run here step by
step, without a connection and without time; and over real ones, to services whose workers die.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from quota_engine import BackendUnavailable, InvalidRequest, Outcome, OutcomeUnknown, Status
from quota_engine.client import AsyncServiceClient, Retries, RoomChanged, ServiceClient, ServiceRefused
from quota_engine.client.call_protocol import Ask, Heard, Pause, Talk, Unheard
from quota_engine.client.calls import Calls, DrawCalls, RoomCalls
from tests.service.test_kills import serving, token
from tests.support.concurrent_bookers import Booked, check, open_day, set_places
from tests.support.in_process_service import DAY, NIK
from tests.support.servers import Server, until, valkey_server_binary

THREE = Retries(attempts_max=3, pause_ms_min=100, pause_ms_max=2_000)


def problem(http: int, kind: str, headers: dict[str, str] | None = None, **more: Any) -> Heard:
    body = {
        "type": f"urn:quota-engine:problem:{kind}",
        "title": "t",
        "status": http,
        "detail": "d",
        "instance": "i",
        **more,
    }
    return Heard(http, {"content-type": "application/problem+json", **(headers or {})}, msgspec.json.encode(body))


def page(http: int, headers: dict[str, str] | None = None) -> Heard:
    """What something else answers that stands before the service."""
    return Heard(http, {"content-type": "text/html", **(headers or {})}, b"<html>hello</html>")


HELD = Heard(201, {"content-type": "application/json"}, b'{"status": "HELD"}')
UNAVAILABLE = problem(503, "unavailable")
LOST = problem(504, "outcome-unknown")
FULL = problem(503, "overloaded", outcome="OVERLOADED")
REFUSED = Unheard("refused", sent=False)
CUT = Unheard("cut", sent=True)


def after(heard: Heard, seconds: str) -> Heard:
    """The same, with a time to come again."""
    return heard._replace(headers={**heard.headers, "retry-after": seconds})


class Said:
    """What a talk said: its requests, and its pauses in milliseconds."""

    def __init__(self) -> None:
        self.asked: list[Ask] = []
        self.pauses_ms: list[int] = []

    def run(self, talk: Talk[Any], *answers: Heard | Unheard) -> Any:
        """Carry the talk on with these answers; it may not need more."""
        left = iter(answers)
        try:
            step = next(talk)
            while True:
                if isinstance(step, Pause):
                    self.pauses_ms.append(step.duration_ms)
                    step = next(talk)
                    continue
                self.asked.append(step)
                answer = next(left)
                step = talk.throw(answer) if isinstance(answer, Unheard) else talk.send(answer)
        except StopIteration as end:
            assert next(left, None) is None, "it did not ask again"
            return end.value


def reserve() -> Talk[Outcome]:
    return Calls(THREE).reserve("surabaya", DAY, NIK)


@pytest.mark.parametrize("first", [REFUSED, CUT, UNAVAILABLE, LOST, FULL, page(502), page(503), page(504)])
def test_asked_again_with_the_same_key(first: Heard | Unheard) -> None:
    """Whatever went wrong, the same key goes out again, and finds what was done."""
    said = Said()
    assert said.run(reserve(), first, HELD).status is Status.HELD
    assert len({request.headers["idempotency-key"] for request in said.asked}) == 1
    assert said.asked[0] == said.asked[1]
    assert said.pauses_ms == [100]


def test_never_more_often_than_it_may() -> None:
    """Three tries, with pauses that double and have an end."""
    for heard in (REFUSED, UNAVAILABLE, page(502)):
        said = Said()
        with pytest.raises(BackendUnavailable):
            said.run(reserve(), heard, heard, heard)
        assert (len(said.asked), said.pauses_ms) == (3, [100, 200])
    said, many = Said(), Retries(attempts_max=6, pause_ms_min=100, pause_ms_max=400)
    with pytest.raises(BackendUnavailable):
        said.run(Calls(many).lookup("surabaya~x"), *[REFUSED] * 6)
    assert said.pauses_ms == [100, 200, 400, 400, 400]
    with pytest.raises(InvalidRequest, match="attempts_max"):
        Retries(attempts_max=0)


def test_what_is_known_when_no_answer_comes() -> None:
    """Nothing was sent: nothing was done. Something was sent: nobody knows. Looking changes nothing in any case."""
    for one in (CUT, LOST, page(504)):
        for answers in ((one, REFUSED, REFUSED), (REFUSED, UNAVAILABLE, one), (one, after(UNAVAILABLE, "60"))):
            with pytest.raises(OutcomeUnknown, match="same key"):
                Said().run(reserve(), *answers)
        with pytest.raises(BackendUnavailable):
            Said().run(Calls(THREE).lookup("surabaya~x"), one, one, one)


def test_an_error_inside_is_not_asked_again() -> None:
    """What went wrong there would go wrong again; whether it was done before is not known."""
    for heard in (problem(500, "internal"), page(500)):
        with pytest.raises(OutcomeUnknown):
            Said().run(reserve(), heard)
        with pytest.raises(BackendUnavailable):
            Said().run(Calls(THREE).lookup("surabaya~x"), heard)


def test_a_retry_after_is_waited_for_unless_it_is_long() -> None:
    """A second or two is waited for; longer is for the caller to wait, who is told what the service said."""
    said = Said()
    assert said.run(reserve(), after(FULL, "1"), after(UNAVAILABLE, "2"), HELD).ok
    assert said.pauses_ms == [1_000, 2_000]
    assert Said().run(reserve(), after(FULL, "3")).status is Status.OVERLOADED
    with pytest.raises(BackendUnavailable):
        Said().run(reserve(), after(UNAVAILABLE, "3"))
    with pytest.raises(BackendUnavailable):
        Said().run(RoomCalls(THREE, "hall").enter("ticket", NIK), after(FULL, "99999999999999999999"))
    said = Said()
    for strange in ("-1", "²", "soon", "Wed, 21 Oct 2026 07:28:00 GMT", ""):
        assert said.run(reserve(), after(FULL, strange), HELD).ok
    assert set(said.pauses_ms) == {100}


def test_a_service_that_stays_full() -> None:
    """That is an outcome, as with an engine, unless it is not known what came of an earlier try."""
    said = Said()
    assert said.run(reserve(), FULL, REFUSED, FULL) == Outcome(Status.OVERLOADED)
    assert said.pauses_ms == [100, 200]
    with pytest.raises(OutcomeUnknown):
        Said().run(reserve(), CUT, FULL, FULL)
    with pytest.raises(BackendUnavailable):
        Said().run(reserve(), FULL, FULL, REFUSED)
    with pytest.raises(BackendUnavailable):
        Said().run(Calls(THREE).list_offices(), FULL, FULL, FULL)


def test_refusals_are_final() -> None:
    """A refusal that tells when to come again is an outcome at once: nobody waits in here for an opening."""
    later = after(problem(429, "throttled", outcome="THROTTLED", retry_at_ms=7, reason="network"), "1")
    assert Said().run(reserve(), later) == Outcome(Status.THROTTLED, retry_at_ms=7, reason="network")
    said = Said().run(RoomCalls(THREE, "hall").open("7"), problem(409, "room-conflict", outcome="CONFLICT"))
    assert (said, said.ok) == (RoomChanged(said.status), False)
    assert Said().run(RoomCalls(THREE, "hall").open("7"), after(FULL, "9")).status == "OVERLOADED"
    assert Said().run(DrawCalls(THREE, "dec").close(), after(FULL, "9")).status == "OVERLOADED"


@pytest.mark.parametrize(
    "heard", [page(200), Heard(200, {}, b"\xff"), Heard(200, {}, b'{"status": "NEW WORD"}'), Heard(204, {}, b"")]
)
def test_answers_that_are_none(heard: Heard) -> None:
    """Something else answered, or a later version: never a bare decoding error."""
    with pytest.raises(OutcomeUnknown):
        Said().run(reserve(), heard)
    with pytest.raises(OutcomeUnknown):
        Said().run(DrawCalls(THREE, "dec").close(), heard)
    with pytest.raises(BackendUnavailable):
        Said().run(Calls(THREE).lookup("surabaya~x"), heard)


@pytest.mark.parametrize("heard", [page(404), page(301), problem(409, "new-word", outcome="NEW_WORD"), page(413)])
def test_refusals_that_are_not_known(heard: Heard) -> None:
    """A word of a later version is no outcome of this one, and a page in between is no service."""
    for talk in (reserve(), RoomCalls(THREE, "hall").join(NIK), DrawCalls(THREE, "dec").view()):
        with pytest.raises((ServiceRefused, OutcomeUnknown, BackendUnavailable)):
            Said().run(talk, heard)


def test_words_of_a_later_version() -> None:
    """A state or an event that is not known here is an error of the library's own."""
    record = {
        "reference": "surabaya~x", "office": "surabaya", "day": "2026-12-07", "state": "RESTING", "version": 1,
        "units": 1, "service": "", "service_unit": "", "session": "", "channel": "online", "group": "", "quotas": [],
        "created_at_ms": 1, "deadline_at_ms": 1, "queue_numbers": [], "moves": 0,
    }  # fmt: skip
    event = {"number": 7, "at_ms": 1, "kind": "DayPainted", "details": {"colour": "red"}}
    for talk, body in (
        (Calls(THREE).lookup("surabaya~x"), record),
        (Calls(THREE).confirm("surabaya~x"), {"status": "CONFIRMED", "reservation": record}),
        (Calls(THREE).events("surabaya"), {"office": "surabaya", "next_after": 7, "events": [event]}),
    ):
        with pytest.raises(OutcomeUnknown, match="later version"):
            Said().run(talk, Heard(200, {"content-type": "application/json"}, msgspec.json.encode(body)))


def test_what_would_make_another_address() -> None:
    """Nothing is sent for it."""
    for talk in (
        lambda: Calls(THREE).lookup("../audit"),
        lambda: Calls(THREE).delete_consumer_group("surabaya", ".."),
        lambda: RoomCalls(THREE, "a?b=c"),
        lambda: DrawCalls(THREE, "a/b"),
        lambda: RoomCalls(THREE, "hall").status(""),
    ):
        with pytest.raises(InvalidRequest):
            Said().run(talk())  # type: ignore[arg-type]


def test_how_a_client_is_opened() -> None:
    """What can not be right is said at once, and a token is in no error."""
    for url in ("localhost:8000", "ftp://x", "http://", "http://x:y", "", None):
        with pytest.raises(InvalidRequest, match="url"):
            ServiceClient.open(url)  # type: ignore[arg-type]
    for secret in ("a\nb", "é"):
        with pytest.raises(InvalidRequest, match="token") as error:
            ServiceClient.open("http://127.0.0.1:1", secret)
        assert secret not in str(error.value)
    with pytest.raises(InvalidRequest, match="timeout_ms"):
        ServiceClient.open("http://127.0.0.1:1", timeout_ms=0)


def test_nobody_there() -> None:
    """A port at which nobody listens: nothing was done, and it says so soon."""
    quick = Retries(attempts_max=2, pause_ms_min=1, pause_ms_max=1)
    with ServiceClient.open("http://127.0.0.1:1", retries=quick) as client, pytest.raises(BackendUnavailable):
        client.reserve("surabaya", DAY, NIK)


def test_a_service_that_does_not_answer() -> None:
    """It takes the call and says nothing: the time is up, twice, and nobody knows what has been done."""
    quick = Retries(attempts_max=2, pause_ms_min=1, pause_ms_max=1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with ServiceClient.open(url, timeout_ms=50, retries=quick) as client, pytest.raises(OutcomeUnknown):
            client.reserve("surabaya", DAY, NIK, idempotency_key="the-same")
        for _ in range(2):
            with listener.accept()[0] as connection:
                assert b"the-same" in connection.recv(65_536)


# --- Workers that die ----------------------------------------------------------------------------------------------

PEOPLE, PLACES, LANES = 100, 60, 8
"""In each of two rounds: all of the first get a place, and not all of the second."""
KILLED_AT = (30, PEOPLE + 30)


@pytest.fixture
def store() -> Iterator[Server]:
    """A store that keeps what it acknowledges."""
    with Server(valkey_server_binary(), appendfsync="always") as server:
        yield server


class People(Booked):
    """People who book, each with one call for each step: no error is caught, and nobody asks again."""

    def note(self, held: Outcome, confirmed: Outcome | None) -> None:
        """What somebody was told in the end."""
        if confirmed is None:
            assert held.status is Status.SOLD_OUT, held
            self.sold_out += 1
            return
        assert confirmed.status is Status.CONFIRMED, confirmed
        self.held.add(held.reference)
        (self.confirmed[held.reference],) = confirmed.queue_numbers


def _by_threads(url: str, secret: str, people: People, numbers: Iterator[int], kill: Callable[[int], None]) -> None:
    errors: list[BaseException] = []
    with ServiceClient.open(url, secret) as client:

        def lane() -> None:
            try:
                for number in numbers:
                    kill(number)
                    held = client.reserve("surabaya", people.day, f"thread {number}", service="new", session="morning")
                    people.note(held, client.confirm(held.reference) if held.ok else None)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=lane) for _ in range(LANES)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]


async def _by_tasks(url: str, secret: str, people: People, numbers: Iterator[int], kill: Callable[[int], None]) -> None:
    async with await AsyncServiceClient.open(url, secret) as client:

        async def lane() -> None:
            for number in numbers:
                kill(number)
                held = await client.reserve("surabaya", people.day, f"task {number}", service="new", session="morning")
                people.note(held, await client.confirm(held.reference) if held.ok else None)

        await asyncio.gather(*(lane() for _ in range(LANES)))


def test_a_worker_dies_and_nobody_notices(tmp_path: Path, store: Server) -> None:
    """One of two workers is killed among the calls, then its successor: everybody gets an answer from one call each,
    and everything adds up. First with threads, then with tasks.
    """
    with serving(tmp_path, store) as service, ServiceClient.open(service.url, token(service)) as client:
        people = People(open_day(client))
        set_places(client, people.day, 2 * PLACES)
        survivor = service.workers()[1]

        def kill(number: int) -> None:
            if number in KILLED_AT:
                (victim,) = set(service.workers()) - {survivor}
                os.kill(victim, signal.SIGKILL)

        _by_threads(service.url, token(service), people, iter(range(PEOPLE)), kill)
        assert len(people.confirmed) == PEOPLE
        until(lambda: len(service.workers()) == 2, "a second worker")
        asyncio.run(_by_tasks(service.url, token(service), people, iter(range(PEOPLE, 2 * PEOPLE)), kill))
        assert len(re.findall("has ended", " ".join(service.lines))) == 2
        assert (len(people.confirmed), people.sold_out) == (2 * PLACES, 2 * PEOPLE - 2 * PLACES)
        check(client, people, 2 * PLACES)
