"""Retries of the clients, driven without a connection, and over real ones to workers that are killed."""

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
from quota_engine.api_schema.headers import TIME_HEADER
from quota_engine.client import AsyncServiceClient, Retries, RoomChanged, ServiceClient, ServiceRefused
from quota_engine.client.call_protocol import CallFlow, Delay, HttpRequest, HttpResponse, NoResponse
from quota_engine.client.calls import Calls, DrawCalls, RoomCalls
from quota_engine.generators import drive
from tests.service.test_kills import serving, token
from tests.support.concurrent_bookers import BookingRecord, check, open_day, set_places
from tests.support.identities import nik
from tests.support.in_process_service import DAY, NIK
from tests.support.servers import Server, until, valkey_server_binary

pytestmark = pytest.mark.store

THREE = Retries(attempts_max=3, pause_ms_min=100, pause_ms_max=2_000)


def problem(http: int, kind: str, headers: dict[str, str] | None = None, **more: Any) -> HttpResponse:
    body = {
        "type": f"urn:quota-engine:problem:{kind}",
        "title": "t",
        "status": http,
        "detail": "d",
        "instance": "i",
        **more,
    }
    return HttpResponse(
        http, {"content-type": "application/problem+json", **(headers or {})}, msgspec.json.encode(body)
    )


def page(http: int, headers: dict[str, str] | None = None) -> HttpResponse:
    """Return the response of a proxy before the service."""
    return HttpResponse(http, {"content-type": "text/html", **(headers or {})}, b"<html>hello</html>")


HELD = HttpResponse(201, {"content-type": "application/json"}, b'{"status": "HELD"}')
UNAVAILABLE = problem(503, "unavailable")
LOST = problem(504, "outcome-unknown")
FULL = problem(503, "overloaded", outcome="OVERLOADED")
REFUSED = NoResponse("refused", sent=False)
CUT = NoResponse("cut", sent=True)


def after(response: HttpResponse, seconds: str) -> HttpResponse:
    """The same, with a time to come again."""
    return response._replace(headers={**response.headers, "retry-after": seconds})


class ScriptedTransport:
    """Answers a call with scripted responses, and records its requests and delays."""

    def __init__(self) -> None:
        self.requests: list[HttpRequest] = []
        self.delays_ms: list[int] = []

    def run(self, call: CallFlow[Any], *answers: HttpResponse | NoResponse) -> Any:
        """Drive ``call`` with exactly these answers and return its result."""
        left = iter(answers)

        def handle(step: HttpRequest | Delay) -> HttpResponse | None:
            if isinstance(step, Delay):
                self.delays_ms.append(step.duration_ms)
                return None
            self.requests.append(step)
            answer = next(left)
            if isinstance(answer, NoResponse):
                raise answer
            return answer

        result = drive(call, handle)
        assert next(left, None) is None, "the call ended before its last scripted answer"
        return result


def reserve() -> CallFlow[Outcome]:
    return Calls(THREE).reserve("surabaya", DAY, NIK)


@pytest.mark.parametrize("first", [REFUSED, CUT, UNAVAILABLE, LOST, FULL, page(502), page(503), page(504)])
def test_a_failed_attempt_is_repeated_with_the_same_key(first: HttpResponse | NoResponse) -> None:
    transport = ScriptedTransport()
    assert transport.run(reserve(), first, HELD).status is Status.HELD
    assert len({request.headers["idempotency-key"] for request in transport.requests}) == 1
    assert transport.requests[0] == transport.requests[1]
    assert transport.delays_ms == [100]


def test_attempts_and_pauses_are_bounded() -> None:
    """Pauses double up to their maximum."""
    for response in (REFUSED, UNAVAILABLE, page(503)):
        transport = ScriptedTransport()
        with pytest.raises(BackendUnavailable):
            transport.run(reserve(), response, response, response)
        assert (len(transport.requests), transport.delays_ms) == (3, [100, 200])
    transport, many = ScriptedTransport(), Retries(attempts_max=6, pause_ms_min=100, pause_ms_max=400)
    with pytest.raises(BackendUnavailable):
        transport.run(Calls(many).lookup("surabaya~x"), *[REFUSED] * 6)
    assert transport.delays_ms == [100, 200, 400, 400, 400]
    with pytest.raises(InvalidRequest, match="attempts_max"):
        Retries(attempts_max=0)


def test_a_missing_response_is_unknown_only_if_the_request_was_sent() -> None:
    """A read is never in doubt."""
    for one in (CUT, LOST, page(502), page(504)):
        for answers in ((one, REFUSED, REFUSED), (REFUSED, UNAVAILABLE, one), (one, after(UNAVAILABLE, "60"))):
            with pytest.raises(OutcomeUnknown, match="same key"):
                ScriptedTransport().run(reserve(), *answers)
        with pytest.raises(BackendUnavailable):
            ScriptedTransport().run(Calls(THREE).lookup("surabaya~x"), one, one, one)


def test_an_internal_error_is_not_repeated() -> None:
    """The service would fail again; the command may have taken effect."""
    for response in (problem(500, "internal"), page(500)):
        with pytest.raises(OutcomeUnknown):
            ScriptedTransport().run(reserve(), response)
        with pytest.raises(BackendUnavailable):
            ScriptedTransport().run(Calls(THREE).lookup("surabaya~x"), response)


def test_a_short_retry_after_is_waited_for() -> None:
    """A long one ends the call with the service's response."""
    transport = ScriptedTransport()
    assert transport.run(reserve(), after(FULL, "1"), after(UNAVAILABLE, "2"), HELD).ok
    assert transport.delays_ms == [1_000, 2_000]
    assert ScriptedTransport().run(reserve(), after(FULL, "3")).status is Status.OVERLOADED
    with pytest.raises(BackendUnavailable):
        ScriptedTransport().run(reserve(), after(UNAVAILABLE, "3"))
    with pytest.raises(BackendUnavailable):
        ScriptedTransport().run(RoomCalls(THREE, "hall").enter("ticket", NIK), after(FULL, "99999999999999999999"))
    transport = ScriptedTransport()
    for strange in ("-1", "²", "soon", "Wed, 21 Oct 2026 07:28:00 GMT", ""):
        assert transport.run(reserve(), after(FULL, strange), HELD).ok
    assert set(transport.delays_ms) == {100}


def test_an_overloaded_service_is_an_outcome() -> None:
    """Unless an earlier attempt may have taken effect."""
    transport = ScriptedTransport()
    assert transport.run(reserve(), FULL, REFUSED, FULL) == Outcome(Status.OVERLOADED)
    assert transport.delays_ms == [100, 200]
    with pytest.raises(OutcomeUnknown):
        ScriptedTransport().run(reserve(), CUT, FULL, FULL)
    with pytest.raises(BackendUnavailable):
        ScriptedTransport().run(reserve(), FULL, FULL, REFUSED)
    with pytest.raises(BackendUnavailable):
        ScriptedTransport().run(Calls(THREE).list_offices(), FULL, FULL, FULL)


def test_a_refusal_is_not_repeated() -> None:
    """A refusal with a later retry_at_ms is an outcome at once."""
    later = after(problem(429, "throttled", outcome="THROTTLED", retry_at_ms=7, reason="network"), "1")
    assert ScriptedTransport().run(reserve(), later) == Outcome(Status.THROTTLED, retry_at_ms=7, reason="network")
    transport = ScriptedTransport().run(
        RoomCalls(THREE, "hall").open("7"), problem(409, "room-conflict", outcome="CONFLICT")
    )
    assert (transport, transport.ok) == (RoomChanged(transport.status), False)
    assert ScriptedTransport().run(RoomCalls(THREE, "hall").open("7"), after(FULL, "9")).status == "OVERLOADED"
    assert ScriptedTransport().run(DrawCalls(THREE, "dec").close(), after(FULL, "9")).status == "OVERLOADED"


@pytest.mark.parametrize(
    "response",
    [
        page(200),
        HttpResponse(200, {}, b"\xff"),
        HttpResponse(200, {}, b'{"status": "NEW WORD"}'),
        HttpResponse(204, {}, b""),
    ],
)
def test_an_undecodable_response_is_unknown_or_unavailable(response: HttpResponse) -> None:
    """Something else answered, or a later version: never a bare decoding error."""
    with pytest.raises(OutcomeUnknown):
        ScriptedTransport().run(reserve(), response)
    with pytest.raises(OutcomeUnknown):
        ScriptedTransport().run(DrawCalls(THREE, "dec").close(), response)
    with pytest.raises(BackendUnavailable):
        ScriptedTransport().run(Calls(THREE).lookup("surabaya~x"), response)


@pytest.mark.parametrize("response", [page(404), page(301), problem(409, "new-word", outcome="NEW_WORD"), page(413)])
def test_refusals_that_are_not_known(response: HttpResponse) -> None:
    """A word of a later version is no outcome of this one, and a page in between is no service."""
    for call in (reserve(), RoomCalls(THREE, "hall").join(NIK), DrawCalls(THREE, "dec").view()):
        with pytest.raises((ServiceRefused, OutcomeUnknown, BackendUnavailable)):
            ScriptedTransport().run(call, response)


def test_words_of_a_later_version() -> None:
    """A state or an event that is not known here is an error of the library's own."""
    record = {
        "reference": "surabaya~x", "office": "surabaya", "day": "2026-12-07", "state": "RESTING", "version": 1,
        "units": 1, "service": "", "service_unit": "", "session": "", "channel": "online", "group": "", "quotas": [],
        "created_at_ms": 1, "deadline_at_ms": 1, "queue_numbers": [], "moves": 0, "forced_moves": 0,
        "extensions": 0,
    }  # fmt: skip
    event = {"number": 7, "at_ms": 1, "kind": "DayPainted", "details": {"color": "red"}}
    for call, body in (
        (Calls(THREE).lookup("surabaya~x"), record),
        (Calls(THREE).confirm("surabaya~x"), {"status": "CONFIRMED", "reservation": record}),
        (Calls(THREE).events("surabaya"), {"office": "surabaya", "next_after": 7, "events": [event]}),
    ):
        with pytest.raises(OutcomeUnknown, match="later version"):
            ScriptedTransport().run(
                call, HttpResponse(200, {"content-type": "application/json"}, msgspec.json.encode(body))
            )


def test_what_would_make_another_address() -> None:
    """Nothing is sent for it."""
    for call in (
        lambda: Calls(THREE).lookup("../audit"),
        lambda: Calls(THREE).delete_consumer_group("surabaya", ".."),
        lambda: RoomCalls(THREE, "a?b=c"),
        lambda: DrawCalls(THREE, "a/b"),
        lambda: RoomCalls(THREE, "hall").status(""),
    ):
        with pytest.raises(InvalidRequest):
            ScriptedTransport().run(call())  # type: ignore[arg-type]


def test_open_rejects_invalid_arguments() -> None:
    """No error contains the token."""
    for url in ("localhost:8000", "ftp://x", "http://", "http://x:y", "", None):
        with pytest.raises(InvalidRequest, match="url"):
            ServiceClient.open(url)  # type: ignore[arg-type]
    for secret in ("a\nb", "é"):
        with pytest.raises(InvalidRequest, match="token") as error:
            ServiceClient.open("http://127.0.0.1:1", secret)
        assert secret not in str(error.value)
    with pytest.raises(InvalidRequest, match="timeout_ms"):
        ServiceClient.open("http://127.0.0.1:1", timeout_ms=0)


def test_a_closed_port_is_unavailable() -> None:
    quick = Retries(attempts_max=2, pause_ms_min=1, pause_ms_max=1)
    with ServiceClient.open("http://127.0.0.1:1", retries=quick) as client, pytest.raises(BackendUnavailable):
        client.reserve("surabaya", DAY, NIK)


def test_a_silent_service_is_unknown_after_the_timeout() -> None:
    """Both attempts time out."""
    quick = Retries(attempts_max=2, pause_ms_min=1, pause_ms_max=1, attempt_valid_ms=300)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with ServiceClient.open(url, timeout_ms=50, retries=quick) as client:
            client._clock.take_sample({TIME_HEADER: "1764000000000"})
            with pytest.raises(OutcomeUnknown):
                client.reserve("surabaya", DAY, NIK, idempotency_key="the-same")
        for _ in range(2):
            with listener.accept()[0] as connection:
                assert b"the-same" in connection.recv(65_536)


# --- Workers that die ----------------------------------------------------------------------------------------------

PEOPLE, PLACES, CONCURRENT_CALLERS = 100, 60, 8
"""In each of two rounds: all of the first get a place, and not all of the second."""
KILLED_AT = (30, PEOPLE + 30)


@pytest.fixture
def store() -> Iterator[Server]:
    """A store that keeps what it acknowledges."""
    with Server(valkey_server_binary(), appendfsync="always") as server:
        yield server


class People(BookingRecord):
    """Applicants who book with one call for each step. They catch no error and repeat no call."""

    def note(self, held: Outcome, confirmed: Outcome | None) -> None:
        """Record the last outcomes of an applicant."""
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

        def book_in_turn() -> None:
            try:
                for number in numbers:
                    kill(number)
                    held = client.reserve("surabaya", people.day, nik(number), service="new", session="morning")
                    people.note(held, client.confirm(held.reference) if held.ok else None)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=book_in_turn) for _ in range(CONCURRENT_CALLERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]


async def _by_tasks(url: str, secret: str, people: People, numbers: Iterator[int], kill: Callable[[int], None]) -> None:
    async with await AsyncServiceClient.open(url, secret) as client:

        async def book_in_turn() -> None:
            for number in numbers:
                kill(number)
                held = await client.reserve("surabaya", people.day, nik(number), service="new", session="morning")
                people.note(held, await client.confirm(held.reference) if held.ok else None)

        await asyncio.gather(*(book_in_turn() for _ in range(CONCURRENT_CALLERS)))


def test_killed_workers_cost_no_call(tmp_path: Path, store: Server) -> None:
    """One of two workers is killed during the calls, then its successor: one call for each step is enough."""
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
        # The service looks at its workers a few times a second, so its line may come after the last call.
        until(lambda: len(re.findall("ended with code", " ".join(service.lines))) >= 2, "two reports of ended workers")
        assert len(re.findall("ended with code", " ".join(service.lines))) == 2
        assert (len(people.confirmed), people.sold_out) == (2 * PLACES, 2 * PEOPLE - 2 * PLACES)
        check(client, people, 2 * PLACES)
