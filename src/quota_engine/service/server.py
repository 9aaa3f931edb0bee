"""The server of one process: uvicorn with this package's connections, which drains before it stops."""

from __future__ import annotations

__all__ = ["create_server", "serve", "tune_garbage_collector"]

import asyncio
import gc
import logging
import os
import socket
import sys
import threading
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final, cast

import uvicorn

from quota_engine.service.app import STAGING_HEADER, ServiceApp, create_app
from quota_engine.service.config.settings import SHUTDOWN_TIMEOUT_S, ServiceConfig
from quota_engine.service.context import ServiceContext
from quota_engine.service.heartbeat import FILE_VARIABLE, Heartbeat
from quota_engine.service.observability.audit_log import LOGGER_NAME
from quota_engine.service.transport.connections import ConnectionConfig, HttpConnection

_BACKLOG: Final = 4096
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
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
        timeout_keep_alive=75,
        server_header=False,
        headers=[STAGING_HEADER] if context.config.staging else None,
        proxy_headers=False,  # the application handles them for pages; the API needs none
    )
    return _DrainingServer(config, context)
