"""Servers that belong to a directory, and are shared by all processes that open it.

Locks (``flock``) on files in ``dir/locks`` count the users, because the kernel releases the locks of a process that
dies, however it dies:

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
"""

from __future__ import annotations

__all__ = ["SOCKET_PATH_BYTES_MAX", "DirectoryServer", "Locks", "is_free", "parse_directory", "poll"]

import abc
import atexit
import contextlib
import logging
import os
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import SplitResult, unquote

from quota_engine.domain.errors import BackendUnavailable, InvalidRequest
from quota_engine.method_binding import SyncResource

if sys.platform != "win32":
    import fcntl

SOCKET_PATH_BYTES_MAX: Final = 103 if sys.platform == "darwin" else 107
"""The length of ``sun_path`` without the zero byte at its end."""
STOP_TIMEOUT_MS: Final = 10_000
RESTARTS_MAX: Final = 5
RESTARTS_WINDOW_S: Final = 60.0
"""A server that has been started again ``RESTARTS_MAX`` times in this time is left alone until the time has passed."""
LOG_BYTES_MAX: Final = 1 << 20
LOG_TAIL_LINES: Final = 12
_POLL_S_MIN: Final = 0.002
_POLL_S_MAX: Final = 0.05

_logger = logging.getLogger("quota_engine.embedded")


class Locks(NamedTuple):
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


_open_servers: set[DirectoryServer] = set()
_passing_descriptors: set[int] = set()
"""Locked descriptors that a new server is about to inherit. A child forked at that moment must not keep them."""


class DirectoryServer(SyncResource, abc.ABC):
    """A user of the server in one directory. Safe to share between threads.

    After ``os.fork`` the child is a separate user. Use it as a context manager, or call :meth:`close`.

    Attributes:
        client_errors: Errors of the server's client.
        directory: Has the data, the log and the socket.
        socket_path: The server's socket, which stays the same after restarts.
        pid: The id of the server's process when it was last checked.
    """

    client_errors: tuple[type[Exception], ...]

    def __init__(self, directory: Path, socket_path: Path, start_timeout_ms: int, *, always: bool = False) -> None:
        """Create a user that is not open yet."""
        self.directory = directory
        self.socket_path = socket_path
        self.pid = 0
        self._always = always
        self._start_timeout_ms = start_timeout_ms
        self._busy = threading.Lock()
        self._restarted_at_s: deque[float] = deque()
        self._locks: Locks | None = None
        self._child_locks: Locks | None = None
        self._open_control()

    @property
    @abc.abstractmethod
    def _log_path(self) -> Path:
        """The server's log."""

    @property
    @abc.abstractmethod
    def _pid_path(self) -> Path:
        """The file with the id of the server's process in its first line."""

    @abc.abstractmethod
    def _answers(self) -> bool:
        """Return True if a server answers at the socket. An accepted connection is no proof: a dying server accepts,
        too.
        """

    @abc.abstractmethod
    def _probe(self) -> str | None:
        """Return ``None`` if the server is ready, ``""`` if it cannot be reached, else its state in words."""

    @abc.abstractmethod
    def _spawn(self, lock_descriptor: int, log_start: int, deadline_s: float, *, always: bool) -> None:
        """Start the server, which inherits the lock. The caller has the turn, and no server runs."""

    @abc.abstractmethod
    def _request_stop(self) -> None:
        """Ask the server to shut down in order."""

    @abc.abstractmethod
    def _open_control(self) -> None:
        """Create the client for checks and shutdown, also in a forked child."""

    @abc.abstractmethod
    def _close_control(self) -> None:
        """Close the client for checks and shutdown."""

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
            with _named_errors(self.directory, self.client_errors):
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
            errors: tuple[type[Exception], ...] = (*self.client_errors, BackendUnavailable, OSError)
            try:
                deadline = time.monotonic() + STOP_TIMEOUT_MS / 1000
                with _turn(locks, self.directory, deadline):
                    if _try_lock(locks.users, exclusive=True):
                        try:
                            self._stop(locks, deadline)
                        finally:
                            # Before `turn` is released: the next user takes a shared lock at once.
                            fcntl.flock(locks.users, fcntl.LOCK_UN)
            except errors as error:
                _logger.warning("%s: the server (process %d) keeps running: %s", self.directory, self.pid, error)
            finally:
                self._close_control()
                locks.release()

    def _open(self) -> None:
        """Become a user, and start or join the server."""
        deadline = time.monotonic() + self._start_timeout_ms / 1000
        with _named_errors(self.directory, self.client_errors):
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

    def _join(self, locks: Locks) -> None:
        """Take the users' locks. The caller holds ``turn``, so no user can find out meanwhile that it is the last."""
        for descriptor in (locks.users, *([locks.always] if self._always else [])):
            if not _try_lock(descriptor, exclusive=False):
                raise BackendUnavailable(
                    f"{self.directory}/locks: another program has locked a file there; end that program"
                )

    def _make_ready(self, locks: Locks, deadline_s: float) -> bool:
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

    def _start(self, locks: Locks, deadline_s: float) -> int | None:
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
            # No other process reads these files before `turn` is released.
            self._remove_stale_files()
            if self._log_path.exists() and self._log_path.stat().st_size > LOG_BYTES_MAX:
                self._log_path.replace(self._log_path.with_suffix(".log.1"))
            log_start = self._log_path.stat().st_size if self._log_path.exists() else 0
            # Another user may have asked for "always", which a crash of the server must not cancel.
            always = self._always or not is_free(locks.always)
            self._spawn(descriptor, log_start, deadline_s, always=always)
            return log_start
        finally:
            # The server has inherited the lock and holds it until its end.
            _passing_descriptors.discard(descriptor)
            os.close(descriptor)

    def _wait(self, locks: Locks, deadline_s: float) -> bool:
        """Wait until the server answers and has loaded its data; return False if it has ended instead."""
        for _ in poll(deadline_s):
            state = self._probe()
            if state is None:
                return True
            if not state:
                if is_free(locks.server):
                    return False
                state = f"does not answer at {self.socket_path}"
        with contextlib.suppress(OSError, IndexError):
            state = f"(process {self._pid_path.read_text().split()[0]}) {state}"
        raise BackendUnavailable(
            self._with_log(
                f"the server {state}; wait longer (start_timeout_ms), or end that process and open the directory again"
            )
        )

    def _stop(self, locks: Locks, deadline_s: float) -> None:
        """Shut the server down and wait for its end. The caller holds ``turn`` and is the last user."""
        if is_free(locks.server):
            # The server has crashed, or never started. A server that answers now belongs to another program.
            if self._is_in_place(locks) and not self._answers():
                self._remove_stale_files()
            return
        if not self._is_in_place(locks) and self.socket_path.exists():
            # A server deletes the socket at its path when it ends, and the other server owns that socket now.
            raise BackendUnavailable("its directory was removed, and another server has been started there since")
        self._request_stop()
        for _ in poll(deadline_s):
            if is_free(locks.server):
                break
            if self._is_in_place(locks):
                # A server that has just been started hears the request only when it listens.
                self._request_stop()
        else:
            raise BackendUnavailable(f"it did not end within {STOP_TIMEOUT_MS} ms")

    def _remove_stale_files(self) -> None:
        """Remove the files that a killed server has left and that would mislead the next one."""
        self.socket_path.unlink(missing_ok=True)
        self._pid_path.unlink(missing_ok=True)

    def _is_in_place(self, locks: Locks) -> bool:
        """Return True if the directory is still the one that was opened."""
        try:
            return os.path.samestat(os.fstat(locks.server), (self.directory / "locks" / "server").stat())
        except FileNotFoundError:
            return False

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
        self._open_control()
        if inherited is not None:
            inherited.close()

    def _with_log(self, problem: str, log_start: int = 0) -> str:
        """Return the problem with the last lines of the server's log."""
        lines: list[str] = []
        with contextlib.suppress(OSError), self._log_path.open("rb") as log:
            log.seek(max(log_start, self._log_path.stat().st_size - 8192))
            lines = log.read().decode(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return "\n  ".join([f"{self.directory}: {problem}", *lines])


def parse_directory(parts: SplitResult, example: str) -> Path:
    """Return the directory of a URL ``scheme:///absolute/dir``.

    Args:
        parts: The URL, taken apart.
        example: A correct URL, for errors.

    Raises:
        InvalidRequest: The URL names no absolute directory.
    """
    if parts.netloc:
        raise InvalidRequest(
            "url", "a relative path or a host's name", f"three slashes and an absolute path: {example}"
        )
    if parts.fragment:
        raise InvalidRequest("url", "has a part behind '#'", "that character in a path encoded as %23")
    path = unquote(parts.path, errors="surrogateescape")
    if "\0" in path:
        raise InvalidRequest("url", "has a zero byte in its path", example)
    directory = Path(path or "/")
    if directory.parent == directory:
        raise InvalidRequest("url", "names no directory", example)
    if ".." in directory.parts:
        raise InvalidRequest("url", "has '..' in its path", example)
    return directory


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


def _open_locks(directory: Path) -> Locks:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    with contextlib.ExitStack() as undo:
        descriptors: list[int] = []
        for name in Locks._fields:
            descriptors.append(os.open(directory / "locks" / name, flags, 0o600))
            undo.callback(os.close, descriptors[-1])
        undo.pop_all()
        return Locks(*descriptors)


def _try_lock(descriptor: int, *, exclusive: bool) -> bool:
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_free(descriptor: int) -> bool:
    """Return True if no process has the lock at this moment."""
    free = _try_lock(descriptor, exclusive=True)
    if free:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    return free


@contextlib.contextmanager
def _turn(locks: Locks, directory: Path, deadline_s: float) -> Iterator[None]:
    """Hold ``turn``: no other process starts, joins or leaves a server in this directory."""
    for _ in poll(deadline_s):
        if _try_lock(locks.turn, exclusive=True):
            break
    else:
        raise BackendUnavailable(f"{directory}: another process is still busy starting or stopping the server")
    try:
        yield
    finally:
        fcntl.flock(locks.turn, fcntl.LOCK_UN)


def poll(deadline_s: float) -> Iterator[None]:
    """Yield at once, then repeatedly with growing pauses until the deadline (``time.monotonic``)."""
    pause_s = _POLL_S_MIN
    yield
    while (left_s := deadline_s - time.monotonic()) > 0:
        time.sleep(min(pause_s, left_s))
        pause_s = min(pause_s * 1.5, _POLL_S_MAX)
        yield


@contextlib.contextmanager
def _named_errors(directory: Path, client_errors: tuple[type[Exception], ...]) -> Iterator[None]:
    """Raise errors of the file system and of the client as ``BackendUnavailable``."""
    try:
        yield
    except OSError as error:
        raise BackendUnavailable(f"{directory}: the server cannot use this directory: {error}") from error
    except client_errors as error:
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
