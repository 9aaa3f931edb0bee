"""Runs the service in this process, or in several workers that share the listening socket and the store."""

from __future__ import annotations

__all__ = ["run"]

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Final

from quota_engine.domain.errors import BackendUnavailable, InvalidRequest
from quota_engine.service.config.settings import SHUTDOWN_TIMEOUT_S, ServiceConfig
from quota_engine.service.heartbeat import FILE_VARIABLE, HeartbeatMonitor
from quota_engine.service.observability.worker_metrics import (
    DIRECTORY_VARIABLE,
    fold_ended_worker,
    has_started_worker,
    record_hung_worker,
)

_RESTART_PAUSE_S: Final = 0.5
_EXIT_DONE: Final = 0


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
            # Not at the top: a process that supervises workers needs neither uvicorn nor the application, and to import
            # them would take longer than the rest of its start.
            from quota_engine.service.server import serve

            return serve(config, listener)
        with tempfile.TemporaryDirectory(prefix="quota-engine-metrics-") as metrics:
            return _WorkerPool(config, listener, metrics).run()


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
        # The pipe stays open: a worker that reads its end knows that this process has ended. A worker that ends before
        # it has read a large configuration is replaced like any other.
        with contextlib.suppress(BrokenPipeError):
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
        timeout_s = self._config.drain_ms / 1000 + SHUTDOWN_TIMEOUT_S + 5
        for worker in self._workers:
            try:
                worker.wait(timeout_s)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
            if worker.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    worker.stdin.close()
