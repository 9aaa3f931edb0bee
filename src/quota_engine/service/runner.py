"""Runs the service: in this process, or in several workers that share the socket and the store."""

from __future__ import annotations

__all__ = ["run", "serve", "server_of", "settle"]

import asyncio
import contextlib
import gc
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final, cast

import uvicorn

from quota_engine.domain.errors import BackendUnavailable, InvalidRequest
from quota_engine.service.app import STAGING, Application, Service, application
from quota_engine.service.config.settings import Configuration
from quota_engine.service.observability.audit_log import LOGGER
from quota_engine.service.observability.worker_metrics import DIRECTORY, fold, has_begun
from quota_engine.service.transport.connections import Connection, Terms

_GRACE_S: Final = 30
_BACKLOG: Final = 4096
_RESTART_PAUSE_S: Final = 0.5
_DONE, _UNREACHABLE = 0, 3


class _Server(uvicorn.Server):
    """Goes on for a while after it was told to stop, not ready any more, so that nobody is sent here meanwhile."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._drain_ms = service.configuration.drain_ms
        self._told = 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains, the second stops, the third does not wait for anybody."""
        self._told += 1
        self._service.draining = True
        if self._told == 1 and self._drain_ms and self.started:
            timer = threading.Timer(self._drain_ms / 1000, self._stop)
            timer.daemon = True
            timer.start()
        else:
            self.force_exit = self.should_exit and self._told > 2
            self._stop()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: streams are told to end here, which a signal's handler can not do, and connections that
        take too long.
        """
        if self._service.draining:
            self._service.streams.drain()
        now_s = asyncio.get_running_loop().time()
        for connection in tuple(self.server_state.connections):
            if isinstance(connection, Connection) and connection.deadline_s <= now_s:
                connection.expire()
        return await super().on_tick(counter)

    def _stop(self) -> None:
        self.should_exit = True


def run(configuration: Configuration, started: Callable[[str], None]) -> int:
    """Serve until told to stop (SIGINT or SIGTERM), and return the exit code. ``started`` is told the address.

    Raises:
        InvalidRequest: the address can not be had.
    """
    with _bound(configuration) as listener:
        host, port = listener.getsockname()[:2]
        started(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        if configuration.workers == 1:
            return serve(configuration, listener)
        with tempfile.TemporaryDirectory(prefix="quota-engine-metrics-") as metrics:
            return _Workers(configuration, listener, metrics).run()


def serve(configuration: Configuration, listener: socket.socket) -> int:
    """Serve in this process."""
    _log()
    server = server_of(application(configuration))
    settle()
    server.run(sockets=[listener])
    return _DONE if server.started else _UNREACHABLE


def _log() -> None:
    """Warnings, and what operators do, with the time; unless whoever started us has set logging up already."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger(LOGGER).setLevel(logging.INFO)


def settle() -> None:
    """Let the garbage collector look less often, and not at what is here already: a request leaves no rings behind, and
    looking for some took a twentieth of the time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def server_of(app: Application) -> uvicorn.Server:
    """What serves the application, as it is to be served."""
    service = app.service
    terms = Terms(service.limits, service.refused, lambda: service.streams.count, app.turned_away)
    config = uvicorn.Config(
        app,
        http=cast("Any", partial(Connection, terms)),
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="warning",
        backlog=_BACKLOG,
        timeout_graceful_shutdown=_GRACE_S,
        timeout_keep_alive=75,
        server_header=False,
        headers=[STAGING] if service.configuration.staging else None,
        proxy_headers=False,  # only pages need them, and have them
    )
    return _Server(config, service)


@contextlib.contextmanager
def _bound(configuration: Configuration) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in configuration.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((configuration.host, configuration.port))
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or "not an address"
            where = f"{configuration.host[:80]}:{configuration.port}"
            raise InvalidRequest("host, port", f"{where}: {reason}", "an address that is free") from None
        yield listener
    finally:
        listener.close()


class _Workers:
    """Keeps as many workers running as are wanted. One that dies is replaced; told to stop, all drain."""

    def __init__(self, configuration: Configuration, listener: socket.socket, metrics: str) -> None:
        self._configuration = configuration
        self._listener = listener
        self._environment = {**os.environ, DIRECTORY: metrics}
        self._metrics = Path(metrics)
        self._workers: list[subprocess.Popen[bytes]] = []
        self._stopping = False

    def run(self) -> int:
        """Until told to stop; the exit code is that of a worker that never came up, or 0."""
        before = {sig: signal.signal(sig, self._stop) for sig in (signal.SIGINT, signal.SIGTERM)}
        try:
            self._workers = [self._start() for _ in range(self._configuration.workers)]
            while not self._stopping:
                time.sleep(0.1)  # cut short by a signal
                for index, worker in enumerate(self._workers):
                    if worker.poll() is None or self._stopping:
                        continue
                    # It has ended by itself, before any could begin: the next one would do the same.
                    if worker.returncode > 0 and not has_begun(self._metrics):
                        raise BackendUnavailable("a worker could not begin; it says above why")
                    # Once it has been there, the store is away for a while: the others serve on until it is back.
                    fold(self._metrics, worker.pid)
                    sys.stderr.write(f"quota-engine: worker {worker.pid} has ended ({worker.returncode}): a new one\n")
                    time.sleep(_RESTART_PAUSE_S)
                    self._workers[index] = self._start()
            return _DONE
        finally:
            self._end()
            for sig, handler in before.items():
                signal.signal(sig, handler)

    def _start(self) -> subprocess.Popen[bytes]:
        listener = self._listener.fileno()
        worker = subprocess.Popen(
            [sys.executable, "-m", "quota_engine.service.worker"],
            stdin=subprocess.PIPE,
            pass_fds=(listener,),
            env=self._environment,
            start_new_session=True,  # an interrupt at the terminal is for us, who tell the workers
        )
        assert worker.stdin is not None
        # It stays open: its end tells a worker that nobody looks after it any more.
        worker.stdin.write(pickle.dumps((listener, self._configuration)))
        worker.stdin.flush()
        return worker

    def _stop(self, sig: int, frame: FrameType | None) -> None:
        self._stopping = True

    def _end(self) -> None:
        for worker in self._workers:
            if worker.poll() is None:
                worker.terminate()
        patience_s = self._configuration.drain_ms / 1000 + _GRACE_S + 5
        for worker in self._workers:
            try:
                worker.wait(patience_s)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
            if worker.stdin is not None:
                worker.stdin.close()
