"""Puts the service together: an ASGI application over one engine."""

from __future__ import annotations

__all__ = ["STAGING", "Application", "Service", "application"]

import asyncio
import contextlib
import datetime
import logging
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Final, cast

import msgspec
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from quota_engine.catalog import Catalog, ResolvedOffice, choice_of, get_office
from quota_engine.clocks import SystemClock
from quota_engine.domain.errors import InvalidRequest, QuotaEngineError
from quota_engine.domain.outcomes import DayView
from quota_engine.engine.quota_engine import AsyncQuotaEngine
from quota_engine.ports import Clock
from quota_engine.service.api import CHAPTERS, ENDPOINTS
from quota_engine.service.api.room_response_cache import RoomLooks
from quota_engine.service.auth import Access
from quota_engine.service.background.day_publisher import DayKeeper
from quota_engine.service.background.draw_publication import PublishedDraws
from quota_engine.service.background.room_supervisor import Releases, RoomKeeper
from quota_engine.service.config.admission_settings import admission_of, rate_policies_of
from quota_engine.service.config.settings import Configuration
from quota_engine.service.http.endpoint import FULL, INCOMING, Endpoint, Exchange, Limits
from quota_engine.service.http.problems import Problem
from quota_engine.service.http.request import Incoming
from quota_engine.service.http.responses import head_of, problem_reply, refusal_reply, request_id_of, send_reply
from quota_engine.service.http.routing import Table
from quota_engine.service.http.sse import Streams
from quota_engine.service.observability.metrics import CallTally, Metrics, exposition
from quota_engine.service.observability.store_collector import Survey
from quota_engine.service.observability.tracing import TracedMetrics, Tracing, tracing_of
from quota_engine.service.observability.worker_metrics import DIRECTORY, WRITE_EVERY_S, Sharing
from quota_engine.service.openapi import document
from quota_engine.service.pages.citizen.base import Site
from quota_engine.service.pages.citizen.booking import citizen_routes
from quota_engine.service.pages.dashboard_cache import Board
from quota_engine.service.pages.operator.dashboard import operator_routes
from quota_engine.service.pages.rendering import Pages

_logger = logging.getLogger("quota_engine.service")
STAGING: Final = ("x-quota-engine-staging", "true")
"""A header that says that this is no place to book for real; load tests look for it."""
_NO_PAGES: Final = ("/v", "/health")
"""What is not there under these is said in a problem document; elsewhere, on a page."""
_READY_FOR_MS: Final = 1_000
"""How long what was found out about the store is believed."""


class Service:
    """What the handlers work with: the engine, the catalog, the counters; and how the service is."""

    def __init__(
        self, configuration: Configuration, clock: Clock | None = None, tracing: Tracing | None = None
    ) -> None:
        """``tracing`` ``None``: if the environment asks for it."""
        self.configuration = configuration
        self.catalog: Catalog = configuration.catalog
        self.access = Access(configuration.grants)
        self.limits: Limits = configuration.limits
        self.streams = Streams(self.limits.streams_max, self.limits.stream_life_ms)
        self.room_looks = RoomLooks()
        self.tracing = tracing or tracing_of(os.environ, self.catalog.offices)
        open_streams = lambda: self.streams.count  # noqa: E731
        self.metrics = Metrics(open_streams) if self.tracing is None else TracedMetrics(open_streams, self.tracing)
        directory = os.environ.get(DIRECTORY)
        self._sharing = Sharing(Path(directory)) if directory else None
        self._survey = Survey(self)
        self._writing: asyncio.Task[None] | None = None
        self.draining = False
        rooms = configuration.waiting_rooms
        self.releases = None if rooms is None else Releases(self.catalog, rooms)
        self.rate_policies = rate_policies_of(configuration.admission)
        self._keeper: RoomKeeper | None = None
        self.days: DayKeeper | None = None
        self.published_draws = PublishedDraws()
        self._engine: AsyncQuotaEngine | None = None
        self._clock = clock
        self.now_ms = (clock or SystemClock()).now_ms
        self._asked_at_ms = 0
        self._state = "starting"
        self._asking = asyncio.Lock()

    @property
    def engine(self) -> AsyncQuotaEngine:
        """The engine; there is one once the service has started."""
        assert self._engine is not None
        return self._engine

    async def start(self) -> None:
        """Open the store, and publish the days that the configuration says."""
        configuration = self.configuration
        policy, keys = admission_of(configuration, self.releases)
        self._engine = await AsyncQuotaEngine.open(
            configuration.backend,
            identity_key=bytes(configuration.identity_key),
            catalog=configuration.catalog,
            clock=self._clock,
            admission=policy,
            observer=self.metrics,
            ticket_keys=keys,
        )
        if self._sharing is not None:
            self._sharing.write(self.metrics.rows())
            self._writing = asyncio.get_running_loop().create_task(self._write_numbers(self._sharing))
        if configuration.publish_days:
            self.days = DayKeeper(self._engine, configuration.catalog, configuration.publish_days, self.now_ms)
            await self.days.start()
        if self.releases is not None:
            self._keeper = RoomKeeper(self._engine, self.releases, self.now_ms)
            await self._keeper.start()

    async def stop(self) -> None:
        """Let the calls that are under way end, and close the store."""
        self.draining = True
        self.streams.drain()
        for keeper in (self.days, self._keeper):
            if keeper is not None:
                await keeper.stop()
        await self.published_draws.close()
        if self._engine is not None:
            await self._engine.close()
        if self._sharing is not None and self._writing is not None:
            self._writing.cancel()
            self._sharing.write(self.metrics.rows())

    async def _write_numbers(self, sharing: Sharing) -> None:
        while True:
            await asyncio.sleep(WRITE_EVERY_S)
            sharing.write(self.metrics.rows())

    async def numbers(self) -> bytes:
        """What Prometheus reads: what all workers have counted, and what the store says."""
        rows = self.metrics.rows()
        if self._sharing is not None:
            rows = self._sharing.together(rows)
        return exposition((*rows, *await self._survey.rows()))

    async def readiness(self) -> str:
        """``ready``, ``draining`` or ``store unavailable``; the store is asked at most once a second."""
        if self.draining:
            return "draining"
        async with self._asking:
            now_ms = self.now_ms()
            if now_ms - self._asked_at_ms >= _READY_FOR_MS:
                try:
                    await self.engine.list_offices()
                    self._state = "ready"
                except QuotaEngineError as error:
                    _logger.warning("not ready: %s", error)
                    self._state = "store unavailable"
                self._asked_at_ms = now_ms
        return self._state

    def answered(self, endpoint: Endpoint, http: int, duration_ns: int) -> None:
        """See :class:`quota_engine.service.http.endpoint.Surroundings`."""
        self.metrics.call(endpoint.name).add(http, duration_ns)
        if self.tracing is not None:
            self.tracing.answered(http)

    def is_full(self, scope: Scope) -> bool:
        """Whether this request came while as many as may be were being answered: only our own connections know."""
        incoming = scope.get(INCOMING)
        return incoming is not None and incoming.is_one_too_many

    def refused(self, http: int) -> None:
        """Is told of each answer to what did not even become a request."""
        self.metrics.call("no-request").add(http, 0)

    def office(self, office: str) -> ResolvedOffice:
        """The office of the catalog. Raises :class:`UnknownName`."""
        return get_office(self.catalog, office)

    def room_of(self, office: str) -> str | None:
        """The id of the waiting room that people of this office should go to: that of the release that is running, or
        else of the next one; ``None`` if the office has no waiting rooms.
        """
        return None if self.releases is None else self.releases.room_of(office, self.now_ms())

    def earliest_free(self, office: str, views: Sequence[DayView], wanted: Any, units: int) -> datetime.date | None:
        """The first of the days that is open and not closed, and on which an option of what is wanted has room now."""
        self.office(office)
        names = (wanted.service, wanted.service_unit, wanted.session, wanted.group)
        options: list[tuple[str, ...]]
        try:
            choice = choice_of(
                self.catalog,
                office,
                service=wanted.service,
                service_unit=wanted.service_unit,
                session=wanted.session,
                channel=wanted.channel,
                group=wanted.group,
            )
            options = list(choice.options)
        except InvalidRequest:
            if any(names) or wanted.channel != "online":
                raise
            # Nothing particular is asked for, where there is something to choose: any quota will do.
            options = [(name,) for name in dict.fromkeys(name for one in views for name in one.quotas)]
        now_ms = self.now_ms()
        for day in views:
            if day.closed or not day.opens_at_ms <= now_ms < day.ends_at_ms:
                continue
            for option in options:
                if all(name in day.quotas and day.quotas[name].available >= units for name in option):
                    return datetime.date.fromordinal(day.day)
        return None


class Application:
    """The ASGI application: the calls of the interface by their table, and Starlette for what is not one of them."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._table = Table()
        self._giving_way: dict[ASGIApp, Endpoint] = {}
        for endpoint in ENDPOINTS:
            app: ASGIApp = Exchange(endpoint, service)
            if service.tracing is not None:
                app = service.tracing.around(app, endpoint)
            self._table.add(endpoint.method, endpoint.path, app)
            if endpoint.gives_way:
                self._giving_way[app] = endpoint
        content = msgspec.json.format(msgspec.json.encode(document(CHAPTERS)), indent=2)
        self._table.add("GET", "/openapi.json", Response(content, media_type="application/json"))
        self._table.add("GET", "/metrics", self._metrics)
        self._staging = service.configuration.staging
        self._refusal = ""
        pages = Pages(staging=self._staging)
        board = Board(lambda: service.engine, service.now_ms, service.catalog)
        missing = Site(service, pages, board).missing
        self._starlette = Starlette(
            exception_handlers={404: missing, 405: missing},
            routes=[*citizen_routes(service, pages, board), *operator_routes(service, pages, board), *pages.routes()],
            lifespan=self.lifespan,
        )
        # Whether a proxy in front speaks TLS decides about cookies. Which proxies are believed: as uvicorn has it.
        trusted = os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1")
        self._pages = cast("ASGIApp", ProxyHeadersMiddleware(cast("Any", self._starlette), trusted_hosts=trusted))

    @contextlib.asynccontextmanager
    async def lifespan(self, _: object = None) -> AsyncIterator[None]:
        """From the opening of the store to its closing."""
        try:
            await self.service.start()
        except QuotaEngineError as error:
            self._refusal = str(error)
            raise
        try:
            yield
        finally:
            await self.service.stop()

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The whole life of the process. If the store can not be had the log says that, and no more."""

        async def sent(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed" and self._refusal:
                message = {**message, "message": self._refusal}
            await send(message)

        await self._starlette(scope, receive, sent)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Carry out one request, or the whole life of the process."""
        if scope["type"] != "http":
            await self._live(scope, receive, send)
            return
        if self._staging and INCOMING not in scope:  # our own connections do it by themselves
            send = _marked(send)
        found = self._table.find(scope["path"])
        app = None
        if found is not None:
            apps, scope["path_params"] = found
            app = apps.get(scope["method"])
        if app is not None:
            await app(scope, receive, send)
            return
        if found is None and not scope["path"].startswith(_NO_PAGES):
            await self._pages(scope, receive, _counted(send, self.service.metrics.call("pages")))
            return
        send = _counted(send, self.service.metrics.call("none"))
        request_id = request_id_of(dict(scope["headers"]))
        if found is None:
            problem = Problem("no-such-address", "see /openapi.json for what there is")
        else:
            allowed = ", ".join(sorted(found[0]))
            problem = Problem("method-not-allowed", f"it takes {allowed}", headers=(("allow", allowed),))
        await send_reply(send, problem_reply(problem, request_id), request_id, is_head=scope["method"] == "HEAD")

    def turned_away(self, incoming: Incoming) -> bool:
        """Tell a request that it is one too many, if its call gives way. Returns whether it was told."""
        found = self._table.find(incoming.scope["path"])
        app = None if found is None else found[0].get(incoming.scope["method"])
        endpoint = None if app is None else self._giving_way.get(app)
        if endpoint is None:
            return False
        request_id = request_id_of(incoming.headers)
        reply = refusal_reply(FULL, self.service.now_ms, request_id)
        incoming.answer(reply.http, *head_of(reply, request_id))
        self.service.answered(endpoint, reply.http, 0)
        return True

    async def _metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = Response(await self.service.numbers(), headers={"content-type": Metrics.content_type})
        await response(scope, receive, send)


def application(
    configuration: Configuration, *, clock: Clock | None = None, tracing: Tracing | None = None
) -> Application:
    """The ASGI application. ``clock`` is the engine's and the service's; ``None``: the store's, and the system's.
    ``tracing`` makes spans; ``None``: if the environment asks for it (see ``telemetry``).
    """
    return Application(Service(configuration, clock, tracing))


def _counted(send: Send, tally: CallTally) -> Send:
    """Counts the answer when it begins."""
    began_ns = perf_counter_ns()

    async def send_counted(message: Message) -> None:
        if message["type"] == "http.response.start":
            tally.add(message["status"], perf_counter_ns() - began_ns)
        await send(message)

    return send_counted


def _marked(send: Send) -> Send:
    """Says :data:`STAGING` in every answer."""

    async def send_marked(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], tuple(part.encode() for part in STAGING)]
        await send(message)

    return send_marked
