"""A service in this process, on the memory store unless a test names another one, with a manual clock."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import functools
import hashlib
import itertools
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest

from quota_engine.catalog import Catalog, day_terms, load_catalog
from quota_engine.clocks import ManualClock
from quota_engine.domain.identity_key import IdentityKey
from quota_engine.service.app import ServiceApp, create_app
from quota_engine.service.config.settings import ServiceConfig
from quota_engine.service.http.auth import Grant, Role
from quota_engine.service.http.endpoint import Endpoint
from quota_engine.service.http.limits import RequestLimits
from quota_engine.service.server import create_server
from quota_engine.service.transport import connections
from tests.support.lost_tail import LostTail

BACKEND = "memory://"
"""URL of the store. A module may run tests of other modules on another store."""
DAY = datetime.date(2026, 12, 7)
NIK = "3578012345678901"
OTHER = "3578012345678902"
TOKENS = {role: f"the token of the role {role}, for tests" for role in Role}
DAY_PATH = f"/v1/offices/surabaya/days/{DAY}"


def path_of(endpoint: Endpoint) -> str:
    """Return a path of the endpoint with names of objects that do not exist."""
    names = {
        "office": "surabaya", "day": DAY, "quota": "online", "reference": "surabaya~x", "draw": "dec", "number": 1,
        "file": "result.jsonl", "room": "nobodys", "ticket": "none", "consumer_group": "billing",
        "address": "surabaya",
    }  # fmt: skip
    return endpoint.path.format(**names)


def grants() -> tuple[Grant, ...]:
    return tuple(Grant(role, role, hashlib.sha256(token.encode()).hexdigest()) for role, token in TOKENS.items())


@functools.cache
def _surabaya() -> Catalog:
    return load_catalog("surabaya")


def configuration(catalog: Catalog | None = None, **changes: Any) -> ServiceConfig:
    settings = ServiceConfig(
        backend=BACKEND,
        catalog_name="surabaya",
        catalog=catalog or _surabaya(),
        identity_key=IdentityKey(b"a key for tests, and only them"),
        host="127.0.0.1",
        port=0,
        workers=1,
        publish_days=0,
        drain_ms=0,
        worker_hang_ms=0,
        staging=False,
        grants=grants(),
        limits=RequestLimits(),
    )
    return msgspec.structs.replace(settings, **changes)


class Client:
    """HTTP client of the service, with a token for each role."""

    def __init__(self, http: httpx.AsyncClient, app: ServiceApp, clock: ManualClock) -> None:
        self.http = http
        self.app = app
        self.service = app.context
        self.clock = clock
        self._keys = (f"key-{number}" for number in itertools.count())

    def lost_tail(self, address: str) -> LostTail:
        """Return a ledger of the memory store that can lose its last changes."""
        return LostTail(self.service.engine._store._memory, None, address)  # type: ignore[attr-defined]

    async def call(
        self, method: str, path: str, body: Any = None, role: Role | None = None, **headers: str
    ) -> httpx.Response:
        """Send JSON with the token of ``role``; without a token if it is ``None``."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if role is not None:
            sent["authorization"] = f"Bearer {TOKENS[role]}"
        return await self.http.request(method, path, json=body, headers=sent)

    async def reserve(
        self, *applicants: str, key: str = "", path: str = DAY_PATH, session: str = "morning", **more: Any
    ) -> httpx.Response:
        """Reserve a morning place of the service ``new``."""
        body = {"applicants": list(applicants or (NIK,)), "service": "new", "session": session, **more}
        headers = {"idempotency_key": key or next(self._keys)}
        return await self.call("POST", f"{path}/reservations", body, Role.SERVICE, **headers)

    async def step(self, reference: str, step: str, role: Role = Role.SERVICE, **body: Any) -> httpx.Response:
        """Send a step of a reservation."""
        return await self.call("POST", f"/v1/reservations/{reference}/{step}", body, role)

    async def operate(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """Send a request with an operator's token."""
        return await self.call(method, path, body, Role.OPERATOR)


@contextlib.asynccontextmanager
async def running(
    *, office: str = "surabaya", day: datetime.date = DAY, before_ms: int = 0, **changes: Any
) -> AsyncIterator[Client]:
    """Yield a client of a service at the opening of the week of ``day``, or ``before_ms`` earlier."""
    settings = configuration(**changes)
    terms = day_terms(settings.catalog, office, day)
    assert terms is not None
    clock = ManualClock(terms.opens_at_ms - before_ms)
    app = create_app(settings, clock=clock)
    async with app.lifespan():
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
            client = Client(http, app, clock)
            days = {"first_day": str(day), "last_day": str(day + datetime.timedelta(days=4))}
            assert (await client.operate("POST", "/v1/publish", days)).status_code == 200
            yield client


class Raw:
    """A raw connection to a service."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, content: bytes) -> None:
        """Write bytes, and ignore a closed connection."""
        self.writer.write(content)
        with contextlib.suppress(ConnectionError):
            await self.writer.drain()

    async def until(self, end: bytes) -> bytes:
        """Read up to and including ``end``."""
        async with asyncio.timeout(20):
            return await self.reader.readuntil(end)

    async def rest(self) -> bytes:
        """Read until the service closes the connection."""
        found = b""
        async with asyncio.timeout(20):
            with contextlib.suppress(ConnectionError):
                while some := await self.reader.read(65_536):
                    found += some
        return found

    def close(self) -> None:
        """Close the connection."""
        self.writer.close()


@contextlib.asynccontextmanager
async def listening(app: ServiceApp) -> AsyncIterator[int]:
    """Serve the application on a socket without its lifespan, and yield the port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = create_server(app)
        server.config.lifespan = "off"
        server.config.timeout_graceful_shutdown = 5
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await serving


@contextlib.asynccontextmanager
async def overloaded(client: Client, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    """Yield a client of the same service on a socket, while the service counts as at capacity.

    A connection does not pause after a refusal, because a test sends requests to all endpoints.
    """
    with monkeypatch.context() as patch:
        patch.setattr(client.app.load_shedder, "at_capacity", lambda _: True)
        patch.setattr(connections, "SHED_PAUSE_S", 0.0)
        async with (
            listening(client.app) as port,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", event_hooks=client.http.event_hooks) as http,
        ):
            yield Client(http, client.app, client.clock)


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[Raw]:
    """Yield a raw connection."""
    raw = Raw(*await asyncio.open_connection("127.0.0.1", port))
    try:
        yield raw
    finally:
        raw.close()
