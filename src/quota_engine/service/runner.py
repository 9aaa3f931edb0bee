"""Runs the service in this process, or in several workers that share the listening socket and the store."""

from __future__ import annotations

__all__ = ["create_server", "run", "serve", "tune_garbage_collector"]

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
from quota_engine.service.app import STAGING_HEADER, ServiceApp, create_app
from quota_engine.service.config.settings import ServiceConfig
from quota_engine.service.context import ServiceContext
from quota_engine.service.heartbeat import FILE_VARIABLE, Heartbeat, HeartbeatMonitor
from quota_engine.service.observability.audit_log import LOGGER_NAME
from quota_engine.service.observability.worker_metrics import (
    DIRECTORY_VARIABLE,
    fold_ended_worker,
    has_started_worker,
    record_hung_worker,
)
from quota_engine.service.transport.connections import ConnectionConfig, HttpConnection

_SHUTDOWN_TIMEOUT_S: Final = 30
_BACKLOG: Final = 4096
_RESTART_PAUSE_S: Final = 0.5
_EXIT_DONE, _EXIT_UNREACHABLE = 0, 3


class _DrainingServer(uvicorn.Server):
    """A server that, after a stop signal, first serves on and reports that it is not ready.

    The load balancer needs that time to send new clients elsewhere.
    """

    def __init__(self, config: uvicorn.Config, context: ServiceContext) -> None:
        super().__init__(config)
        self._context = context
        self._drain_ms = context.config.drain_ms
        self._signals = 0
        heartbeat_file = os.environ.get(FILE_VARIABLE)
        self._heartbeat = Heartbeat(Path(heartbeat_file)) if heartbeat_file else None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain on the first signal, stop on the second, and stop without waiting for requests on the third."""
        self._signals += 1
        self._context.draining = True
        if self._signals == 1 and self._drain_ms and self.started:
            timer = threading.Timer(self._drain_ms / 1000, self._stop)
            timer.daemon = True
            timer.start()
        else:
            self.force_exit = self.should_exit and self._signals > 2
            self._stop()

    async def on_tick(self, counter: int) -> bool:
        """Beat, end streams while draining, and expire connections. uvicorn calls this ten times a second.

        A signal handler cannot end streams itself.
        """
        if self._heartbeat is not None:
            self._heartbeat.beat()
        if self._context.draining:
            self._context.streams.drain()
        now_s = asyncio.get_running_loop().time()
        for connection in tuple(self.server_state.connections):
            if isinstance(connection, HttpConnection) and connection.deadline_s <= now_s:
                connection.expire()
        return await super().on_tick(counter)

    def _stop(self) -> None:
        self.should_exit = True


def run(config: ServiceConfig, on_listening: Callable[[str], None]) -> int:
    """Serve until SIGINT or SIGTERM, and return the exit code. ``on_listening`` gets the URL.

    Raises:
        InvalidRequest: the address cannot be bound.
        BackendUnavailable: the first worker failed to start.
    """
    with _bound_socket(config) as listener:
        host, port = listener.getsockname()[:2]
        on_listening(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        if config.workers == 1:
            return serve(config, listener)
        with tempfile.TemporaryDirectory(prefix="quota-engine-metrics-") as metrics:
            return _WorkerPool(config, listener, metrics).run()


def serve(config: ServiceConfig, listener: socket.socket) -> int:
    """Serve in this process until SIGINT or SIGTERM, and return the exit code."""
    _configure_logging()
    server = create_server(create_app(config))
    tune_garbage_collector()
    server.run(sockets=[listener])
    return _EXIT_DONE if server.started else _EXIT_UNREACHABLE


def _configure_logging() -> None:
    """Log warnings and the audit log, unless the application that embeds the service has configured logging."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger(LOGGER_NAME).setLevel(logging.INFO)


def tune_garbage_collector() -> None:
    """Collect less often, and never what exists now.

    Requests leave no reference cycles behind, and looking for them took a twentieth of the time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def create_server(app: ServiceApp) -> uvicorn.Server:
    """Return a uvicorn server for the application, with this package's connections."""
    context = app.context
    connection_config = ConnectionConfig(context.limits, app.load_shedder, context.record_rejected)
    config = uvicorn.Config(
        app,
        http=cast("Any", partial(HttpConnection, connection_config)),
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="warning",
        backlog=_BACKLOG,
        timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT_S,
        timeout_keep_alive=75,
        server_header=False,
        headers=[STAGING_HEADER] if context.config.staging else None,
        proxy_headers=False,  # the application handles them for pages; the API needs none
    )
    return _DrainingServer(config, context)


@contextlib.contextmanager
def _bound_socket(config: ServiceConfig) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((config.host, config.port))
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or "not an address"
            address = f"{config.host[:80]}:{config.port}"
            raise InvalidRequest("host, port", f"{address}: {reason}", "an address that is free") from None
        yield listener
    finally:
        listener.close()


class _WorkerPool:
    """Keeps the configured number of workers running: replaces those that end or hang, and drains all on a signal."""

    def __init__(self, config: ServiceConfig, listener: socket.socket, metrics_directory: str) -> None:
        self._config = config
        self._listener = listener
        self._environment = {**os.environ, DIRECTORY_VARIABLE: metrics_directory}
        self._metrics_directory = Path(metrics_directory)
        self._workers: list[subprocess.Popen[bytes]] = []
        self._monitors: dict[int, HeartbeatMonitor] = {}
        self._started = 0
        self._stopping = False

    def run(self) -> int:
        """Supervise the workers until a stop signal, and return the exit code.

        Raises:
            BackendUnavailable: a worker ended before any had started.
        """
        handlers = {sig: signal.signal(sig, self._stop) for sig in (signal.SIGINT, signal.SIGTERM)}
        try:
            self._workers = [self._start() for _ in range(self._config.workers)]
            checked_s = time.monotonic()
            while not self._stopping:
                time.sleep(0.1)  # a signal ends the sleep
                now_s = time.monotonic()
                self._kill_hanging_workers(now_s - checked_s)
                checked_s = now_s
                for index, worker in enumerate(self._workers):
                    if worker.poll() is None or self._stopping:
                        continue
                    # Before any worker has opened the store, a new one would fail in the same way.
                    if worker.returncode > 0 and not has_started_worker(self._metrics_directory):
                        raise BackendUnavailable("worker failed to start; see its log output above")
                    # Later the store may be unavailable for a while, and the other workers serve on.
                    fold_ended_worker(self._metrics_directory, worker.pid)
                    del self._monitors[worker.pid]
                    sys.stderr.write(
                        f"quota-engine: worker {worker.pid} ended with code {worker.returncode}; starting another\n"
                    )
                    time.sleep(_RESTART_PAUSE_S)
                    self._workers[index] = self._start()
            return _EXIT_DONE
        finally:
            self._stop_workers()
            for sig, handler in handlers.items():
                signal.signal(sig, handler)

    def _kill_hanging_workers(self, elapsed_s: float) -> None:
        for worker in self._workers:
            if worker.poll() is None and self._monitors[worker.pid].hangs(elapsed_s):
                sys.stderr.write(
                    f"quota-engine: worker {worker.pid} has not responded for {self._config.worker_hang_ms} ms; "
                    "ending it\n"
                )
                record_hung_worker(self._metrics_directory, time.time_ns() // 1_000_000)
                worker.kill()
                worker.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        listener = self._listener.fileno()
        self._started += 1
        heartbeat_file = self._metrics_directory / f"heartbeat-{self._started}"
        worker = subprocess.Popen(
            [sys.executable, "-m", "quota_engine.service.worker"],
            stdin=subprocess.PIPE,
            pass_fds=(listener,),
            env={**self._environment, FILE_VARIABLE: str(heartbeat_file)},
            start_new_session=True,  # Ctrl+C in the terminal must reach this process only
        )
        assert worker.stdin is not None
        # The pipe stays open: a worker that reads its end knows that this process has ended.
        worker.stdin.write(pickle.dumps((listener, self._config)))
        worker.stdin.flush()
        self._monitors[worker.pid] = HeartbeatMonitor(heartbeat_file, self._config.worker_hang_ms)
        return worker

    def _stop(self, sig: int, frame: FrameType | None) -> None:
        self._stopping = True

    def _stop_workers(self) -> None:
        for worker in self._workers:
            if worker.poll() is None:
                worker.terminate()
        timeout_s = self._config.drain_ms / 1000 + _SHUTDOWN_TIMEOUT_S + 5
        for worker in self._workers:
            try:
                worker.wait(timeout_s)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
            if worker.stdin is not None:
                worker.stdin.close()
