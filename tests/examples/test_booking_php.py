"""Tests of the PHP recipes against a real service: the page with 300 people, and the room with lost responses."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import httpx
import pytest

from quota_engine import RoomStatus, State
from quota_engine.client import ServiceClient
from tests.examples.test_booking_recipes import PLACES, booked_day, forms
from tests.service.test_runner import served
from tests.support.http_crowd import count_statuses, post_all
from tests.support.paths import ROOT

EXAMPLES = ROOT / "examples"
NIK = "3578012345678901"

_NO_PHP = shutil.which("php") is None and not os.environ.get("CI")
pytestmark = [
    pytest.mark.store,
    pytest.mark.skipif(_NO_PHP, reason="no php: install Debian's packages php-cli and php-curl"),
]


TOKEN = "the token of the example, for tests"  # noqa: S105
TODAY = datetime.datetime.now(datetime.UTC).date()
WITHOUT_ROOM, WITH_ROOM = (TODAY + datetime.timedelta(days=ahead) for ahead in (2, 3))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a service whose days have been open for weeks; the test makes its rooms."""
    folder = tmp_path_factory.mktemp("php")
    plan = {
        "id": "plan",
        "schedule": "ahead",
        "working_weekdays": ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"],
        "hours": {"start": "08:00", "end": "16:00"},
        "sessions": [{"id": "morning", "start": "08:00", "end": "12:00"}],
        "quotas": [{"id": "all", "capacity": 20}],
    }
    catalog = {
        "services": [{"id": "new"}],
        "schedules": [{"id": "ahead", "kind": "days_ahead", "days": 60, "at": "00:00"}],
        "plans": [plan],
        "offices": [{"id": "surabaya", "name": "Surabaya", "time_zone": "Asia/Jakarta"}],
    }
    (folder / "catalog.json").write_text(json.dumps(catalog))
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    configuration = {
        "catalog": "catalog.json",
        "publish_days": 7,
        "waiting_rooms": {"offices": ["*"]},
        "tokens": [{"name": "all", "role": "operator", "sha256": digest}],
    }
    (folder / "service.json").write_text(json.dumps(configuration))
    with served(folder, "--config", "service.json", "--backend", "memory://") as service:
        yield service.url


@contextlib.contextmanager
def page(url: str, folder: Path, workers: int = 4) -> Iterator[int]:
    """Serve the page for a service until the block ends, and return its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    variables = {
        **os.environ,
        "PHP_CLI_SERVER_WORKERS": str(workers),
        "QUOTA_ENGINE_URL": url,
        "QUOTA_ENGINE_TOKEN": TOKEN,
    }
    command = [str(shutil.which("php")), "-S", f"127.0.0.1:{port}", str(EXAMPLES / "booking.php")]
    log = folder / "php.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=variables, stdout=output, stderr=output, start_new_session=True)
    try:
        deadline_s = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline_s, log.read_text()
            time.sleep(0.05)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # the workers do not end with the first process
        process.wait(60)


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a service with the catalog of the recipes."""
    folder = tmp_path_factory.mktemp("clinic")
    token = {"name": "page", "role": "operator", "sha256": hashlib.sha256(TOKEN.encode()).hexdigest()}
    configuration = {"catalog": str(EXAMPLES / "clinic.toml"), "tokens": [token]}
    (folder / "service.json").write_text(json.dumps(configuration), encoding="utf-8")
    with served(folder, "--config", "service.json", "--backend", "memory://") as service:
        yield service.url


@pytest.mark.slow
def test_workers_of_the_page_confirm_exactly_the_places(clinic: str, tmp_path: Path) -> None:
    with page(clinic, tmp_path) as port:
        answers = post_all(port, "/book", forms())
        winning = [form for form, answer in zip(forms(), answers, strict=True) if answer["http"] == 200]
        again = post_all(port, "/book", winning)
    winners = {answer["reference"] for answer in answers if answer["http"] == 200}
    assert set(count_statuses(answers)) == {(200, "CONFIRMED"), (409, "SOLD_OUT")}
    assert len(winners) == PLACES
    assert {answer["reference"] for answer in again} == winners  # the same keys, and no second effect
    with ServiceClient.open(clinic, TOKEN) as client:
        assert client.audit().ok
        (day,) = client.availability("clinic", booked_day())
        assert day.quotas["online"].confirmed == PLACES


def test_page_books_once_when_responses_are_lost(clinic: str, tmp_path: Path) -> None:
    day = (booked_day() + datetime.timedelta(days=1)).isoformat()
    form = {"identity": "ani", "day": day, "key": "key-of-ani"}
    with Losing(clinic) as losing, page(losing.url, tmp_path, workers=1) as port:
        first, *others = post_all(port, "/book", [form, form], at_once=1)
        refused = post_all(port, "/book", [{**form, "key": "another"}, {**form, "key": "a\r\nheader: b"}])
    assert len(losing.lost) == 2  # one response to a reserve, one to a confirm
    assert (first["http"], first["status"], first["queue_numbers"]) == (200, "CONFIRMED", [1])
    assert others == [first]
    assert [answer["http"] for answer in refused] == [409, 400]
    assert refused[0]["status"] == "IDENTITY_LIMIT"


@pytest.mark.parametrize(("status", "error"), [(503, "ServiceUnavailable"), (504, "OutcomeUnknown")])
def test_page_tells_an_unknown_outcome_from_an_unavailable_service(status: int, error: str, tmp_path: Path) -> None:
    """``Retry-After`` is longer than a page waits, so that it does not try again by itself."""
    response = f"HTTP/1.1 {status} Refused\r\nRetry-After: 60\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}"
    with socket.create_server(("127.0.0.1", 0)) as listener, page(url_of(listener), tmp_path, workers=1) as port:
        refusing = threading.Thread(target=answer_once, args=(listener, response.encode()), daemon=True)
        refusing.start()
        (answer,) = post_all(port, "/book", [{"identity": "ani", "day": "2026-12-07", "key": "key"}])
        refusing.join()
    assert answer == {"http": 503, "status": error}


def url_of(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


def answer_once(listener: socket.socket, response: bytes) -> None:
    """Read one request, and answer it."""
    with listener.accept()[0] as connection:
        head, _, body = b"".join(_until(connection, b"\r\n\r\n")).partition(b"\r\n\r\n")
        size = re.search(rb"(?i)content-length: (\d+)", head)
        while size and len(body) < int(size[1]):
            body += connection.recv(65_536)
        connection.sendall(response)


def book(url: str, day: object, nik: str = NIK, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(shutil.which("php")), str(EXAMPLES / "booking_in_room.php"), url, "surabaya", str(day)],
        input=f"{nik}\n",
        env={**os.environ, "QUOTA_ENGINE_TOKEN": token},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_php_books_a_place_once(url: str) -> None:
    """The second run with the same applicant prints the engine's refusal."""
    first = book(url, WITHOUT_ROOM)
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines()[-1] == "queue number 1"
    again = book(url, WITHOUT_ROOM)
    assert (again.returncode, again.stderr.partition(":")[0]) == (1, "IDENTITY_LIMIT")
    wrong = book(url, WITHOUT_ROOM, NIK, "no token")
    assert (wrong.returncode, wrong.stderr.partition(":")[0]) == (1, "unauthorized")
    none = book(url, TODAY + datetime.timedelta(days=200))
    assert (none.returncode, none.stderr.strip()[10:]) == (1, " is not on offer")
    assert NIK not in first.stdout + first.stderr + again.stdout + again.stderr


class Losing:
    """A proxy that loses the first response to every path that receives a body."""

    def __init__(self, url: str) -> None:
        self._to = httpx.URL(url).port or 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.url = url_of(self._listener)
        self.heads: list[str] = []
        self.lost: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        while True:
            try:
                connection = self._listener.accept()[0]
            except OSError:
                return
            with connection:
                self._carry(connection)

    def _carry(self, connection: socket.socket) -> None:
        head, _, body = b"".join(_until(connection, b"\r\n\r\n")).partition(b"\r\n\r\n")
        self.heads.append(head.decode())
        size = re.search(r"(?i)content-length: (\d+)", self.heads[-1])
        while len(body) < (int(size[1]) if size else 0):
            body += connection.recv(65_536)
        with socket.create_connection(("127.0.0.1", self._to)) as onward:
            onward.sendall(head + b"\r\nConnection: close\r\n\r\n" + body)
            answer = b"".join(_until(onward, b""))
        line = self.heads[-1].partition("\r\n")[0]
        if line.startswith("POST") and line not in self.lost:
            self.lost.append(line)  # the request had its effect, but the client gets no response
        else:
            connection.sendall(answer)


def _until(connection: socket.socket, end: bytes) -> Iterator[bytes]:
    """Read until ``end`` appears or the connection ends."""
    found = b""
    while some := connection.recv(65_536):
        yield some
        found += some
        if end and end in found:
            return


def test_php_books_through_a_waiting_room_with_lost_responses(url: str) -> None:
    """Each response is lost once: ticket, poll with an ETag, pass and place. Nothing happens twice."""
    with ServiceClient.open(url, TOKEN) as client, Losing(url) as losing:
        (day,) = client.availability("surabaya", WITH_ROOM)
        opening = datetime.datetime.fromtimestamp(day.opens_at_ms / 1000, datetime.UTC)
        room = client.room(f"surabaya-{opening:%Y%m%dT%H%M}")
        opens_in_ms = 3_000 + round(1_000 * os.getloadavg()[0])  # a busy machine starts PHP later
        opens_at_ms = time.time_ns() // 1_000_000 + opens_in_ms
        assert room.create("surabaya", WITH_ROOM, opens_at=opens_at_ms) is RoomStatus.DONE
        run = book(losing.url, WITH_ROOM)
        assert run.returncode == 0, (run.stderr, run.stdout)
        lines = run.stdout.splitlines()
        assert lines[0] == "NOT_OPEN, ahead -1, chance UNKNOWN"
        assert lines[-3].startswith("CALLED, ahead 0")
        assert lines[-2].endswith("(repeated request)")
        assert lines[-1] == "queue number 1"
        assert [line.split()[1].rpartition("/")[2] for line in losing.lost] == [
            "tickets", "enter", "reservations", "confirm",
        ]  # fmt: skip
        polls = [head for head in losing.heads if "/tickets/" in head]
        assert len(polls) > 1
        assert all('If-None-Match: "' in head for head in polls[1:])
        assert NIK not in "".join([run.stdout, run.stderr, *losing.heads])
        (record,) = client.list_reservations("surabaya", WITH_ROOM)
        assert (record.state, list(record.queue_numbers)) == (State.CONFIRMED, [1])
        assert room.view().tickets == 1
        room.close()
        late = book(url, WITH_ROOM, "3578012345678902")
        assert late.stdout.splitlines()[-1] == "queue number 2", "nobody needs a room that is over"
        assert client.audit().ok
