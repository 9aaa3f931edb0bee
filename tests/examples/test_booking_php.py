"""Tests of the PHP example against a real service, directly and through a waiting room with lost responses."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Self

import httpx
import pytest

from quota_engine import RoomStatus, State
from quota_engine.client import ServiceClient
from tests.service.test_runner import served
from tests.support.paths import ROOT

EXAMPLE = ROOT / "examples" / "booking.php"
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


def book(url: str, day: object, nik: str = NIK, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(shutil.which("php")), str(EXAMPLE), url, "surabaya", str(day)],
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
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
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
        assert room.create("surabaya", WITH_ROOM, opens_at=time.time_ns() // 1_000_000 + 3_000) is RoomStatus.DONE
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
