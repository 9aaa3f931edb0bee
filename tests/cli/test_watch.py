"""``watch``: at 80 columns, on a terminal and without one, once and again and again, and as JSON."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from quota_engine import ManualClock, QuotaEngine, load_catalog
from quota_engine.catalog import day_terms
from quota_engine.cli import watch
from quota_engine.cli.main import main
from quota_engine.cli.watch_sources import StoreSource, WatchSelection, WatchSnapshot
from quota_engine.domain.audit_summary import AuditSummary
from quota_engine.domain.errors import BackendUnavailable
from quota_engine.waiting_room.releases import room_id
from quota_engine.workflows.room_config import RoomSettings
from tests.support.coming_days import coming_monday
from tests.support.servers import until

pytestmark = pytest.mark.store

KEY = b"a key for tests, and only them"
DAY = coming_monday()
ROOM = "surabaya-special"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An embedded store with a day that is sold, and a waiting room that people join now."""
    folder: Path = tmp_path_factory.mktemp("store")
    url = f"valkey+embedded://{folder}"
    catalog = load_catalog("surabaya")
    terms = day_terms(catalog, "surabaya", DAY)
    assert terms is not None
    with QuotaEngine.open(url, identity_key=KEY, clock=ManualClock(terms.opens_at_ms)) as engine:
        engine.publish(catalog, DAY, DAY)
        held = engine.reserve("surabaya", DAY, f"{7:016}", service="new", session="morning")
        engine.confirm(held.reference)
    with QuotaEngine.open(url, identity_key=KEY, catalog=catalog) as engine:
        opens_at_ms = time.time_ns() // 1_000_000 + 3_600_000
        assert engine.room(ROOM).create("surabaya", DAY, opens_at=opens_at_ms) == "DONE"
        for number in range(3):
            assert engine.room(ROOM).join(f"{number:016}").ok
        yield url


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def words(store: str, *more: str) -> list[str]:
    return ["watch", store, "--first-day", str(DAY), "--days", "1", "--every-ms", "100", *more]


def test_once_prints_audit_room_and_counters(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The output fits 80 columns."""
    assert main(words(store, "--once", "--room", ROOM)) == 0
    out = capsys.readouterr().out
    assert all(len(line) <= 80 for line in out.splitlines())
    assert "no findings" in out.splitlines()[0]
    assert f"room {ROOM}  accepts joins, opens " in out
    assert "tickets 3   waiting 3   called 0" in out
    (online,) = [line.split() for line in out.splitlines() if line.split()[:1] == ["online"]]
    assert online == ["online", "100", "0", "1", "0", "99", "0"]


def test_json_prints_a_line_for_each_refresh(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(store, "--times", "2", "--json", "--audit-every-s", "0", "--room", ROOM)) == 0
    first, second = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert first["at_ms"] < second["at_ms"]
    (office,) = second["offices"]
    assert (office["office"], office["days"][0]["day"], second["audit"]) == ("surabaya", str(DAY), None)
    assert (office["rooms"][0]["phase"], office["rooms"][0]["waiting"]) == ("JOINING", 3)
    assert main(words(store, "--once", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["audit"]["ok"] is True


def test_a_terminal_gets_a_full_screen(store: str) -> None:
    """The last snapshot stays there at the end."""
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    code = "import sys; from quota_engine.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", code, *words(store, "--times", "2")]
    environment = {**os.environ, "TERM": "xterm-256color", "LINES": "12"}
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=subprocess.PIPE, env=environment) as process:
        shown = b""

        def is_shown() -> bool:
            nonlocal shown
            shown += _more_of(master)
            # The system may hand the last bytes on after the end of the process.
            return process.poll() is not None and b"online" in shown.rpartition(b"\x1b[?1049l")[2]

        until(is_shown, "the last snapshot")
        assert process.stderr is not None
        assert (process.returncode, process.stderr.read()) == (0, b"")
    os.close(slave)
    os.close(master)
    alternate, _, after = shown.rpartition(b"\x1b[?1049l")
    assert b"\x1b[?1049h" in alternate
    assert b"online" in after


def _more(terminal: int) -> bool:
    import select

    return bool(select.select([terminal], [], [], 0)[0])


def _more_of(terminal: int) -> bytes:
    return os.read(terminal, 65_536) if _more(terminal) else b""


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--room", "nix"], "--room: 'nix'; expected the id of a waiting room that the store has"),
        (["--room", "a b"], "--room"),
        (["--every-ms", "1"], "--every-ms"),
        (["--audit-every-s", "-1"], "--audit-every-s"),
        (["--office", "nix"], "--office"),
    ],
)
def test_bad_options_exit_with_2(store: str, capsys: pytest.CaptureFixture[str], more: list[str], text: str) -> None:
    assert main(words(store, "--once", *more)) == 2
    assert text in capsys.readouterr().err


def test_an_unreachable_store_exits_with_3(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 3."""
    assert main(["watch", "redis://127.0.0.1:1?attempts_max=1"]) == 3
    assert "the store cannot be used" in capsys.readouterr().err


class Evening:
    """An opening in memory under a manual clock, watched like a store."""

    def __init__(self) -> None:
        catalog = load_catalog("surabaya")
        terms = day_terms(catalog, "surabaya", DAY)
        assert terms is not None
        self.opens_at_ms = terms.opens_at_ms
        self.clock = ManualClock(self.opens_at_ms - 60_000)
        self.engine = QuotaEngine.open(clock=self.clock)
        self.engine.publish(catalog, DAY, DAY)
        self.room = self.engine.room(room_id("surabaya", self.opens_at_ms))
        self.room.create("surabaya", DAY, opens_at=self.opens_at_ms, settings=RoomSettings(per_minute_max=600))
        for number in range(2_000):
            assert self.room.join(f"{number:016}").ok
        subject = WatchSelection((), (), (), (DAY.toordinal(),))
        self.watched = StoreSource(self.engine._store, subject, self.clock.now_ms)
        self.auditor = watch._Auditor(self.watched, 300)

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.advance_ms(1_000)
            self.room.view()

    def shown(self, look: WatchSnapshot | None, problem: str = "") -> str:
        output = io.StringIO()
        Console(file=output, width=80).print(watch._content(look, self.auditor, problem))
        assert all(len(line) <= 80 for line in output.getvalue().splitlines())
        return output.getvalue()


def test_a_room_of_a_release_is_found_without_its_name() -> None:
    """The office and the opening of its days give the room's id."""
    evening = Evening()
    evening.run(70)
    snapshot = evening.watched.take_snapshot()
    (room,) = snapshot.offices[0].rooms
    assert room.called > 50
    out = evening.shown(snapshot)
    assert "audit: running" in out
    assert f"room {room.room}  open since " in out
    assert f"tickets 2,000   waiting {room.waiting:,}   called {room.called:,}" in out
    assert f"rate {room.rate_per_minute:,}/min   target {room.per_minute:,}/min (60 to 600)" in out
    evening.clock.advance_ms(7_200_000)
    assert f"room {room.room}  closed since " in evening.shown(evening.watched.take_snapshot())


def test_findings_are_listed_up_to_a_limit() -> None:
    """A failed audit is reported too."""
    evening = Evening()
    snapshot = evening.watched.take_snapshot()
    evening.auditor.result = AuditSummary(evening.clock.now_ms(), 1, tuple(f"finding {number}" for number in range(7)))
    out = evening.shown(snapshot)
    assert "7 findings" in out
    assert "finding 4" in out
    assert "and 2 more" in out
    evening.auditor.problem = "the store is away"
    assert "audit: the store is away" in evening.shown(snapshot)


def test_colors_work_on_light_and_dark_terminals() -> None:
    """Bold, dim and red are all there is to see beside the terminal's own colors; and it fits 40 rows."""
    evening = Evening()
    evening.auditor.result = AuditSummary(evening.clock.now_ms(), 1, ("a finding",))
    evening.engine.set_capacity("surabaya", DAY, "online", 0)
    output = io.StringIO()
    content = watch._content(evening.watched.take_snapshot(), evening.auditor, "the store does not answer")
    Console(file=output, width=80, force_terminal=True, color_system="standard").print(content)
    codes = {code for found in re.findall(r"\x1b\[([0-9;]*)m", output.getvalue()) for code in found.split(";")}
    assert codes == {"0", "1", "2", "31"}
    assert len(output.getvalue().splitlines()) <= 40


def test_times_are_local_and_name_their_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    at_ms = 1_765_000_000_000
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "Asia/Jakarta")
        time.tzset()
        shown = watch._time(at_ms)
    time.tzset()
    assert shown == "2025-12-06 12:46 WIB"


def test_watch_survives_an_outage_of_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last snapshot stays on the screen, below the problem."""
    evening = Evening()
    looks: list[Any] = [
        evening.watched.take_snapshot(),
        BackendUnavailable("nobody answers"),
        evening.watched.take_snapshot(),
    ]

    class Watched:
        noun = "store"

        def take_snapshot(self) -> WatchSnapshot:
            found = looks.pop(0)
            if isinstance(found, Exception):
                raise found
            assert isinstance(found, WatchSnapshot)
            return found

        def audit(self) -> AuditSummary:
            raise BackendUnavailable("nobody answers")

    monkeypatch.setattr(time, "sleep", lambda _: None)
    shown: list[str] = []
    auditor = watch._Auditor(Watched(), 0)
    watch._refresh(Watched(), auditor, lambda look, _, problem: shown.append(evening.shown(look, problem)), 3, 1_000)
    assert ["does not answer" in text for text in shown] == [False, True, False]
    assert all("online" in text for text in shown)
