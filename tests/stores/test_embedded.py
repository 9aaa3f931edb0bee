"""``valkey+embedded://``: who starts the server, who ends it, and what is there after any kind of end."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from quota_engine.domain.errors import BackendUnavailable, InvalidRequest
from quota_engine.stores import embedded
from quota_engine.stores.embedded import EmbeddedServer, open_embedded
from quota_engine.stores.embedded_directory import SOCKET_PATH_BYTES_MAX
from tests.support.servers import Server, until, valkey_server_binary

pytestmark = pytest.mark.store

# Opens the directory on request, prints the server's process id, and stays until its standard input ends.
USER = """
import sys
from quota_engine.stores.embedded import open_embedded
print("here", flush=True)
sys.stdin.readline()
server = open_embedded(sys.argv[1])
print(server.pid, flush=True)
sys.stdin.read()
"""

# Comes and goes again and again, and counts.
VISITOR = """
import sys
import redis
from quota_engine.stores.embedded import open_embedded
print("here", flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[2])):
    with open_embedded(sys.argv[1]) as server, redis.Redis.from_url(server.url) as client:
        client.incr("visits")
print("done", flush=True)
"""

# Forks; the parent leaves at once, and the child says who serves it then.
FORKER = """
import os
import sys
import redis
from quota_engine.stores.embedded import open_embedded
server = open_embedded(sys.argv[1])
left_read, left_write = os.pipe()
child = os.fork()
if child:
    server.close()
    os.write(left_write, b"x")
    os.waitpid(child, 0)
else:
    os.read(left_read, 1)
    with redis.Redis.from_url(server.url) as client:
        assert client.ping()
    server.ensure_running()
    print(server.pid, flush=True)
"""


class Other:
    """Another process, running one of the programs above."""

    def __init__(self, url: str, program: str = USER, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, url, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def tell(self, text: str = "go\n") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def hear(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line:
            raise RuntimeError(self.process.communicate()[1])
        return line

    def open(self) -> int:
        """Let it open the directory; the answer is the server's process."""
        self.tell()
        assert self.hear() == "here"
        return int(self.hear())

    def leave(self) -> None:
        """Let the process end without a call of close()."""
        _, errors = self.process.communicate(timeout=120)
        assert (self.process.returncode, errors) == (0, "")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def runs(directory: Path) -> bool:
    """Return True if a server runs on this directory: it holds the lock as long as it lives."""
    try:
        with (directory / "locks" / "server").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that was never opened. After the test no server may run in it."""
    # Short: pytest's own is too long for a socket on some systems.
    parent = Path(tempfile.mkdtemp(prefix="embedded-")).resolve()
    directory = parent / "data"
    yield directory
    left = runs(directory)
    if left:
        os.kill(int((directory / "valkey.pid").read_text()), signal.SIGKILL)
    shutil.rmtree(parent)
    assert not left, "a server was left running"


def url_of(directory: Path, options: str = "") -> str:
    return f"valkey+embedded://{quote(str(directory))}{options}"


def ask(server: EmbeddedServer, *words: str | int) -> Any:
    with redis.Redis.from_url(server.url, decode_responses=True, retry=Retry(NoBackoff(), 0)) as client:
        return client.execute_command(*words)


def setting(server: EmbeddedServer, name: str) -> str:
    (value,) = ask(server, "CONFIG", "GET", name).values()
    return str(value)


def is_busy(server: EmbeddedServer) -> bool:
    try:
        ask(server, "PING")
    except redis.ResponseError as error:
        return str(error).startswith("BUSY")
    return False


def assert_nothing_is_left(directory: Path) -> None:
    assert not runs(directory)
    assert not (directory / "valkey.sock").exists()
    assert not (directory / "valkey.pid").exists()


def test_server_starts_answers_and_ends(place: Path) -> None:
    """It serves its socket only, with the settings that it should have; closing leaves neither process nor socket."""
    server = open_embedded(url_of(place))
    assert ask(server, "PING")
    assert (server.directory, server.socket_path) == (place, place / "valkey.sock")
    wanted = {"port": "0", "appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction", "save": ""}
    assert {name: setting(server, name) for name in wanted} == wanted
    server.close()
    assert_nothing_is_left(place)
    server.close()
    with pytest.raises(BackendUnavailable, match="closed"):
        server.ensure_running()


def test_data_survives_reopening(place: Path) -> None:
    """Nothing is lost by closing."""
    for visit in range(1, 4):
        with open_embedded(url_of(place)) as server:
            assert ask(server, "INCR", "visits") == visit
    assert_nothing_is_left(place)


def test_files_are_private(place: Path) -> None:
    """Directories and socket are 0700 and files 0600 under any umask."""
    before = os.umask(0)
    try:
        with open_embedded(url_of(place)) as server:
            ask(server, "SET", "a", "1")
            modes = {
                str(path.relative_to(place)): (path.is_file(), stat.S_IMODE(path.stat().st_mode))
                for path in [place, *place.rglob("*")]
            }
    finally:
        os.umask(before)
    assert {"valkey.sock", "valkey.log", "valkey.pid", "appendonlydir", "locks/server"} <= set(modes)
    assert {name: mode for name, mode in modes.items() if mode not in ((True, 0o600), (False, 0o700))} == {}


def test_directory_names_are_arbitrary(place: Path) -> None:
    """Spaces, quotes and the like in the path reach the server and redis-py unharmed."""
    with open_embedded(url_of(place / "a b%20#?'\"\\é\n")) as server:
        assert ask(server, "PING")
        assert server.directory.name == "a b%20#?'\"\\é\n"


def test_the_second_in_one_process_joins(place: Path) -> None:
    """Both have the same server; it ends with the second close, whichever that is."""
    first, second = open_embedded(url_of(place)), open_embedded(url_of(place))
    assert first.pid == second.pid
    first.close()
    assert ask(second, "PING")
    second.close()
    assert_nothing_is_left(place)


def test_another_process_joins_and_the_last_one_stops_it(place: Path) -> None:
    """The process that started the server may leave first. The last one may end without close()."""
    with Other(url_of(place)) as other:
        with open_embedded(url_of(place)) as server:
            assert other.open() == server.pid
        assert runs(place)
        other.leave()
        assert_nothing_is_left(place)


def test_crash_of_the_starter_leaves_other_users_working(place: Path) -> None:
    """The server continues, and the last process still stops it."""
    with Other(url_of(place)) as other:
        pid = other.open()
        with open_embedded(url_of(place)) as server:
            other.kill()
            assert server.pid == pid
            assert ask(server, "PING")
        assert_nothing_is_left(place)


def test_crash_of_the_last_user_leaves_the_server_running(place: Path) -> None:
    """It continues without users. The next process that opens the directory joins it, and ends it by leaving."""
    with Other(url_of(place)) as other:
        pid = other.open()
        other.kill()
    assert runs(place)
    with open_embedded(url_of(place)) as server:
        assert server.pid == pid
    assert_nothing_is_left(place)


def test_crash_of_the_server_loses_nothing_acknowledged(place: Path) -> None:
    """With ``always``, all that was answered is there after SIGKILL, by opening again and by ``ensure_running``."""
    server = open_embedded(url_of(place, "?appendfsync=always"))
    for number in range(200):
        ask(server, "SET", f"key{number}", number)
    crashed = server.pid
    os.kill(crashed, signal.SIGKILL)
    with open_embedded(url_of(place)) as again:
        assert again.pid != crashed
        assert ask(again, "DBSIZE") == 200
        # The first process's clients continue at the same address, with all acknowledged data.
        assert setting(server, "appendfsync") == "always"
        os.kill(again.pid, signal.SIGKILL)
        server.ensure_running()
        assert ask(again, "DBSIZE") == 200
    server.close()
    assert_nothing_is_left(place)


def test_close_after_a_crash_of_the_server(place: Path) -> None:
    """There is nothing to end, and its socket is removed."""
    server = open_embedded(url_of(place))
    os.kill(server.pid, signal.SIGKILL)
    until(lambda: not runs(place), "the end of the server")
    server.close()
    assert_nothing_is_left(place)


def test_strictest_appendfsync_applies(place: Path) -> None:
    """A server that runs is turned to ``always`` by the first who asks, and not back by others."""
    with open_embedded(url_of(place)) as first:
        assert setting(first, "appendfsync") == "everysec"
        with open_embedded(url_of(place, "?appendfsync=always")):
            assert setting(first, "appendfsync") == "always"
        with open_embedded(url_of(place, "?appendfsync=everysec")):
            assert setting(first, "appendfsync") == "always"
    with open_embedded(url_of(place)) as later:
        assert setting(later, "appendfsync") == "everysec"


def test_a_socket_without_a_server(place: Path) -> None:
    """It is swept away, and a server starts."""
    place.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(place / "valkey.sock"))
    with open_embedded(url_of(place)) as server:
        assert ask(server, "PING")


def test_foreign_server_at_the_socket_is_refused(place: Path) -> None:
    """It is not joined, not replaced, and not stopped."""
    place.mkdir(mode=0o700)
    with Server(valkey_server_binary(), requirepass="secret") as foreign:
        (place / "valkey.sock").symlink_to(foreign.socket_path)
        with pytest.raises(BackendUnavailable, match="another program's server"):
            open_embedded(url_of(place))
        assert foreign.client().ping()
        foreign.ask("CONFIG", "SET", "requirepass", "")
        with pytest.raises(BackendUnavailable, match="another program's server"):
            open_embedded(url_of(place))
        assert foreign.is_running
        assert (place / "valkey.sock").exists()


def test_six_concurrent_processes_share_one_server(place: Path) -> None:
    """Exactly one server; all have it; the last to leave ends it."""
    others = [Other(url_of(place)) for _ in range(6)]
    try:
        for other in others:
            assert other.hear() == "here"
        for other in others:
            other.tell()
        pids = {other.hear() for other in others}
        assert len(pids) == 1
        assert (place / "valkey.log").read_text().count("Ready to accept connections") == 1
        for other in others:
            assert runs(place)
            other.leave()
        assert_nothing_is_left(place)
    finally:
        for other in others:
            other.kill()
            other.process.communicate()


def test_processes_open_and_close_at_random(place: Path) -> None:
    """A process that opens while the last one leaves gets a server all the same, and no visit is lost."""
    visits = 12
    others = [Other(url_of(place), VISITOR, str(visits)) for _ in range(3)]
    try:
        for other in others:
            assert other.hear() == "here"
        for other in others:
            other.tell()
        for other in others:
            assert other.hear() == "done"
    finally:
        for other in others:
            other.process.communicate(timeout=120)
    assert_nothing_is_left(place)
    with open_embedded(url_of(place)) as server:
        assert ask(server, "GET", "visits") == str(visits * len(others))


def test_open_during_the_last_close(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They wait until the old server is gone, and get a new one."""
    leaving = threading.Event()
    stop = EmbeddedServer._stop

    def stop_slowly(server: EmbeddedServer, *arguments: Any) -> None:
        leaving.set()
        time.sleep(0.1)  # long enough to be overtaken, if it could be
        stop(server, *arguments)

    monkeypatch.setattr(EmbeddedServer, "_stop", stop_slowly)
    first = open_embedded(url_of(place))
    leaver = threading.Thread(target=first.close)
    leaver.start()
    assert leaving.wait(60)
    with open_embedded(url_of(place)) as second:
        assert second.pid != first.pid
        assert ask(second, "PING")
    leaver.join()


def test_open_after_the_last_close_gave_up_its_turn(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user that has ended the server but has not yet left keeps no other user out."""
    first = open_embedded(url_of(place))
    leaving = threading.Event()
    opened = threading.Event()

    def close_slowly() -> None:
        leaving.set()
        opened.wait(60)

    monkeypatch.setattr(first._control, "close", close_slowly)
    leaver = threading.Thread(target=first.close)
    leaver.start()
    try:
        assert leaving.wait(60)
        with open_embedded(url_of(place)) as second:
            assert ask(second, "PING")
    finally:
        opened.set()
        leaver.join()


def test_turn_of_a_paused_process_times_out(place: Path) -> None:
    """A process that waits in vain for a paused start gets an error with the reason."""
    open_embedded(url_of(place)).close()
    with (place / "locks" / "turn").open("rb") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        with pytest.raises(BackendUnavailable, match="still busy starting or stopping"):
            open_embedded(url_of(place), start_timeout_ms=50)


def test_forked_child_is_a_separate_user(place: Path) -> None:
    """It has the server when its parent has left, and ends it by its own exit."""
    with Other(url_of(place), FORKER) as other:
        assert int(other.hear()) > 0
        other.leave()
    assert_nothing_is_left(place)


def test_directory_removed_while_open(place: Path) -> None:
    """Its server ends all the same."""
    server = open_embedded(url_of(place))
    with (place / "locks" / "server").open("rb") as lock:
        shutil.rmtree(place)
        server.close()
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_directory_removed_and_opened_again(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The new server is not touched; the old one cannot be ended without harm to it, and is named in a warning."""
    server = open_embedded(url_of(place))
    shutil.rmtree(place)
    with open_embedded(url_of(place)) as other:
        assert other.pid != server.pid
        server.close()
        assert f"(process {server.pid}) keeps running" in caplog.text
        os.kill(server.pid, signal.SIGKILL)
        assert ask(other, "PING")


def test_open_waits_for_loaded_data(place: Path) -> None:
    """Opening waits while the server loads; when that takes longer than it may, the error says what is going on."""
    fill = "for i = 1, 300000 do redis.call('SET', 'key' .. i, i) end"
    with open_embedded(url_of(place)) as server:
        ask(server, "EVAL", fill, 0)
    with open_embedded(url_of(place)) as server:
        assert ask(server, "DBSIZE") == 300_000
    with pytest.raises(BackendUnavailable, match=r"(?s)(is still loading|does not answer).*start_timeout_ms"):
        open_embedded(url_of(place), start_timeout_ms=60)
    assert_nothing_is_left(place)


@pytest.mark.parametrize("start_timeout_ms", [1, 3, 10])
def test_a_server_that_does_not_listen_yet_is_shut_down(place: Path, start_timeout_ms: int) -> None:
    """An opening that gives up leaves no server, even one that could not hear the first request to end."""
    with contextlib.suppress(BackendUnavailable):
        open_embedded(url_of(place), start_timeout_ms=start_timeout_ms).close()
    assert not runs(place)


def test_paused_server_is_reported(place: Path) -> None:
    """A process that tries to join gets an error with the id of the process; current users keep the server."""
    with open_embedded(url_of(place)) as server:
        os.kill(server.pid, signal.SIGSTOP)
        with pytest.raises(BackendUnavailable, match=rf"process {server.pid}\) does not answer"):
            open_embedded(url_of(place), start_timeout_ms=200)
        os.kill(server.pid, signal.SIGCONT)
        assert ask(server, "PING")


def test_busy_server_is_awaited(place: Path) -> None:
    """A process that joins waits for the end of the running script."""
    with open_embedded(url_of(place)) as server, redis.Redis.from_url(server.url) as client:
        ask(server, "CONFIG", "SET", "busy-reply-threshold", 20)
        connection = client.connection_pool.get_connection()
        connection.send_command("EVAL", "while true do end", 0)
        until(lambda: is_busy(server), "a server that is busy")
        end = threading.Timer(0.2, ask, (server, "SCRIPT", "KILL"))
        end.start()
        with open_embedded(url_of(place)) as other:
            assert ask(other, "PING")
        end.join()
        with pytest.raises(redis.ResponseError, match="killed"):
            connection.read_response()
        client.connection_pool.release(connection)


def test_unloadable_data_is_left_untouched(place: Path) -> None:
    """The error has what the server said about it; the data is left as it is."""
    with open_embedded(url_of(place)) as server:
        ask(server, "SET", "a", "1")
    (kept,) = (place / "appendonlydir").glob("*.incr.aof")
    kept.write_bytes(b"spoilt" + kept.read_bytes())
    spoilt = kept.read_bytes()
    with pytest.raises(BackendUnavailable, match=r"(?s)ended while it started.*Bad file format"):
        open_embedded(url_of(place))
    assert kept.read_bytes() == spoilt
    assert_nothing_is_left(place)


def test_old_embedded_server_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused clearly, and not left running by who started it."""
    monkeypatch.setattr(embedded, "VERSION_MIN", (99, 0))
    with pytest.raises(BackendUnavailable, match=r"too old.*99\.0 or newer"):
        open_embedded(url_of(place))
    assert_nothing_is_left(place)


def test_directory_of_another_user_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused, with the reason."""
    place.mkdir(mode=0o700)
    us = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: us + 1)
    with pytest.raises(BackendUnavailable, match=rf"another user \(uid {us}; this process has {us + 1}\)"):
        open_embedded(url_of(place))


def test_world_writable_directory_is_refused(place: Path) -> None:
    """Opening is refused, with the command that repairs it."""
    place.mkdir()
    place.chmod(0o770)
    with pytest.raises(BackendUnavailable, match="chmod go-w"):
        open_embedded(url_of(place))


def test_file_as_directory_is_refused(place: Path) -> None:
    """It is refused, and left as it is."""
    place.write_text("precious")
    for path in (place, place / "under"):
        with pytest.raises(BackendUnavailable, match=r"(File exists|Not a directory)"):
            open_embedded(url_of(path))
    assert place.read_text() == "precious"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("valkey+embedded://", "valkey+embedded:///var/lib/quota"),
        ("valkey+embedded:///", "valkey+embedded:///var/lib/quota"),
        ("valkey+embedded:", "valkey+embedded:///var/lib/quota"),
        ("valkey+embedded:/data", "valkey+embedded:///var/lib/quota"),
        ("valkey+embedded://data", "three slashes and an absolute path"),
        ("valkey+embedded://./data", "three slashes and an absolute path"),
        ("valkey+embedded://localhost/data", "three slashes and an absolute path"),
        ("valkey+embedded:///data/../../etc", "valkey+embedded:///var/lib/quota"),
        ("valkey+embedded:///da%00ta", "valkey+embedded:///var/lib/quota"),
        ("valkey+embedded:///data#1", "%23"),
        ("valkey+embedded:///data?fsync=always", "appendfsync, or none"),
        ("valkey+embedded:///data?appendfsync=no", "appendfsync=always or appendfsync=everysec"),
        ("valkey+embedded:///data?appendfsync", "appendfsync=always or appendfsync=everysec"),
        ("valkey+embedded:///data?appendfsync=always&appendfsync=everysec", "once"),
        (f"valkey+embedded:///{'d' * 120}", "a directory of at most 95 bytes"),
        ("redis:///data", "valkey+embedded:///var/lib/quota"),
        ("", "valkey+embedded:///var/lib/quota"),
    ],
)
def test_bad_urls(url: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is refused before anything is done, with what would be right."""
    monkeypatch.setattr(embedded, "SOCKET_PATH_BYTES_MAX", 107)
    with pytest.raises(InvalidRequest) as caught:
        open_embedded(url)
    assert caught.value.where == "url"
    assert expected in caught.value.expected


def test_the_longest_path_that_fits(place: Path) -> None:
    """The limit that the error names is the real one."""
    room = SOCKET_PATH_BYTES_MAX - len("/valkey.sock")
    longest = place / ("d" * (room - len(str(place)) - 1))
    with open_embedded(url_of(longest)) as server:
        assert ask(server, "PING")
    with pytest.raises(InvalidRequest, match=f"at most {room} bytes"):
        open_embedded(url_of(longest.with_name(longest.name + "d")))


def test_windows(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to do there."""
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(BackendUnavailable, match="WSL"):
        open_embedded(url_of(place))


def test_without_the_wheel(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra, and no directory was made."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendUnavailable, match=r"quota-engine\[embedded\]"):
        open_embedded(url_of(place))
    assert not place.exists()
