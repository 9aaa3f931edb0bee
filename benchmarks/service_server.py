"""A server process for ``benchmarks.service`` and ``benchmarks.event_streams``.

Run it with ``python -m benchmarks.service_server WHAT CORE [BACKEND]``. It writes a line of JSON when it serves, and
ends with its standard input.

``empty`` is an empty route of Starlette, on uvicorn's own protocol. ``limit`` is the minimum of any ASGI application
with JSON bodies: it parses the body and answers with the size of a reservation. ``service`` is the service on a
store, with a day that has places, a day without, and an open waiting room.
"""

from __future__ import annotations

__all__ = ["DAYS", "OFFICE", "ROOM", "TOKEN", "main"]

import asyncio
import contextlib
import datetime
import hashlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from quota_engine.catalog import load_catalog
from quota_engine.domain.identity_key import IdentityKey
from quota_engine.service.app import ServiceApp, create_app
from quota_engine.service.config.settings import ServiceConfig
from quota_engine.service.http.auth import Grant, Role
from quota_engine.service.http.limits import RequestLimits
from quota_engine.service.server import create_server, tune_garbage_collector
from quota_engine.workflows.room_config import RoomSettings

OFFICE: Final = "bench"
ROOM: Final = "bench"
TOKEN: Final = "a token for measurements"  # noqa: S105 - of a server that lives for some seconds
_TODAY: Final = datetime.datetime.now(datetime.UTC).date()
DAYS: Final = tuple(_TODAY + datetime.timedelta(days=days) for days in (7, 8))
"""One day with places for all applicants, and one without places."""
_PLACES: Final = 10_000_000
_TICKETS: Final = 100
_CATALOG: Final = """
title = "Measurements"
services = [{ id = "new", name = "New" }]
[[schedules]]
id = "early"
kind = "days_ahead"
days = 60
at = 00:00:00
zone = "UTC"
[rules]
hold_ttl_s = 900
identity_limits = [{ places_max = 1, span_days = 30 }]
[[plans]]
id = "plan"
hours = { start = 08:00:00, end = 16:00:00 }
working_weekdays = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
sessions = [
    { id = "morning", start = 08:00:00, end = 12:00:00 },
    { id = "afternoon", start = 13:00:00, end = 16:00:00 },
]
quotas = [
    { id = "morning", session = "morning", capacity = 60 },
    { id = "afternoon", session = "afternoon", capacity = 40 },
]
[[plans.allotments]]
id = "online"
channels = ["online"]
capacity = 100
[[offices]]
id = "bench"
name = "Bench"
time_zone = "UTC"
"""


def _configuration(backend: str) -> ServiceConfig:
    with TemporaryDirectory(prefix="quota-service-") as directory:
        path = Path(directory) / "bench.toml"
        path.write_text(_CATALOG)
        catalog = load_catalog(str(path))
    return ServiceConfig(
        backend=backend,
        catalog_name="bench",
        catalog=catalog,
        identity_key=IdentityKey(b"a key for measurements"),
        host="127.0.0.1",
        port=0,
        workers=1,
        publish_days=0,
        drain_ms=0,
        worker_hang_ms=0,
        staging=False,
        grants=(Grant("bench", Role.OPERATOR, hashlib.sha256(TOKEN.encode()).hexdigest()),),
        limits=RequestLimits(),
    )


async def _prepare(app: ServiceApp) -> list[str]:
    """Days, capacities, and a room that has just opened with some tickets, which it returns."""
    engine = app.context.engine
    await engine.publish(app.context.catalog, DAYS[0], DAYS[-1])
    for day, places in zip(DAYS, (_PLACES, 0), strict=True):
        for quota in ("online", "morning", "afternoon"):
            assert (await engine.set_capacity(OFFICE, day, quota, places)).ok
    room = engine.room(ROOM)
    opens_at_ms = time.time_ns() // 1_000_000 + 1_000
    await room.create(OFFICE, DAYS[0], DAYS[1], opens_at=opens_at_ms, settings=RoomSettings(per_minute_max=60))
    tickets = [(await room.join(f"3578{number:012d}")).ticket for number in range(_TICKETS)]
    while time.time_ns() // 1_000_000 < opens_at_ms + 500:
        await asyncio.sleep(0.1)
    await room.view()
    return tickets


async def _limit(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the body, and answer with the size of a reservation."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    if body:
        msgspec.json.decode(body)
    await send(_LIMIT_START)
    await send({"type": "http.response.body", "body": _LIMIT_CONTENT})


_LIMIT_CONTENT: Final = b"x" * 480
_LIMIT_START: Final[dict[str, Any]] = {
    "type": "http.response.start",
    "status": 201,
    "headers": [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(_LIMIT_CONTENT)),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        (b"x-request-id", b"0123456789abcdef"),
    ],
}


def _plain(app: Any) -> uvicorn.Server:
    """Served as fast as uvicorn can."""
    return uvicorn.Server(
        uvicorn.Config(
            app, http="httptools", loop="uvloop", ws="none", lifespan="off", access_log=False, log_level="warning",
            backlog=4096, server_header=False,
        )
    )  # fmt: skip


async def _empty(_: Request) -> Response:
    return Response()


def _server(what: str, backend: str, report: dict[str, Any]) -> uvicorn.Server:
    if what == "empty":
        return _plain(Starlette(routes=[Route("/", _empty)]))
    if what == "limit":
        return _plain(_limit)
    app = create_app(_configuration(backend))
    opened = app._starlette.router.lifespan_context  # noqa: SLF001 - the service's own life, with more in it

    @contextlib.asynccontextmanager
    async def lifespan(scope: Any) -> AsyncIterator[Any]:
        async with opened(scope) as state:
            report["tickets"] = await _prepare(app)
            yield state

    app._starlette.router.lifespan_context = lifespan  # noqa: SLF001
    tune_garbage_collector()
    return create_server(app)


def main() -> int:
    """Serve until standard input ends."""
    what, core, backend = sys.argv[1], int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "memory://"
    if core >= 0:
        os.sched_setaffinity(0, {core})
    report: dict[str, Any] = {"pid": os.getpid()}
    server = _server(what, backend, report)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        report["port"] = listener.getsockname()[1]

        def watch() -> None:
            while not server.started:
                time.sleep(0.02)
            print(json.dumps(report), flush=True)
            sys.stdin.read()
            server.should_exit = True

        threading.Thread(target=watch, daemon=True).start()
        server.run(sockets=[listener])
    return 0


if __name__ == "__main__":
    sys.exit(main())
