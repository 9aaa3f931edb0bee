"""The composition root: puts context, endpoints, pages and the OpenAPI document together as one ASGI application."""

from __future__ import annotations

__all__ = ["STAGING_HEADER", "ServiceApp", "create_app"]

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable
from time import perf_counter_ns
from typing import Final

import msgspec
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quota_engine.domain.errors import QuotaEngineError
from quota_engine.ports import Clock
from quota_engine.service.api import API_SECTIONS, ENDPOINTS
from quota_engine.service.config.settings import ServiceConfig
from quota_engine.service.context import ServiceContext
from quota_engine.service.http.auth import office_in_path
from quota_engine.service.http.buffered_request import SCOPE_KEY
from quota_engine.service.http.endpoint import EndpointApp
from quota_engine.service.http.etag import etag_of, matches_etag
from quota_engine.service.http.forwarded_headers import ForwardedHeaders
from quota_engine.service.http.hosts import PublicOrigins
from quota_engine.service.http.load_shedding import LoadShedder
from quota_engine.service.http.problems import Problem
from quota_engine.service.http.responses import ApiResponse, problem_response, request_id_from, send_response
from quota_engine.service.http.routing import RoutingTable
from quota_engine.service.observability.exposition import CONTENT_TYPE
from quota_engine.service.observability.metrics import EndpointMetrics
from quota_engine.service.observability.tracing import Tracing
from quota_engine.service.openapi import openapi_document
from quota_engine.service.pages.api_reference import (
    REFERENCE_HEADERS,
    STYLESHEET_PATH,
    render_api_reference,
    render_stylesheet,
)
from quota_engine.service.pages.citizen.base import CitizenPages
from quota_engine.service.pages.citizen.routes import citizen_routes
from quota_engine.service.pages.dashboard_cache import DashboardCache
from quota_engine.service.pages.operator.base import OperatorPages
from quota_engine.service.pages.operator.routes import operator_routes
from quota_engine.service.pages.rendering import PageRenderer

STAGING_HEADER: Final = ("x-quota-engine-staging", "true")
"""Response header that marks a staging service. Load tests require it."""
_API_PREFIXES: Final = ("/v", "/health")
"""Unknown paths under these get a problem document; all others get a page."""


@functools.cache
def _openapi_response() -> ApiResponse:
    """Return the response with the OpenAPI document, which is made at the first request. It takes 0.1 s."""
    content = msgspec.json.format(msgspec.json.encode(openapi_document(API_SECTIONS)), indent=2)
    return ApiResponse(200, content, etag=etag_of(content))


@functools.cache
def _reference_response() -> ApiResponse:
    """Return the response with the page of the OpenAPI document, which is rendered at the first request."""
    content = render_api_reference(openapi_document(API_SECTIONS))
    return ApiResponse(200, content, REFERENCE_HEADERS, b"text/html; charset=utf-8", etag_of(content))


@functools.cache
def _stylesheet_response() -> ApiResponse:
    content = render_stylesheet()
    return ApiResponse(200, content, (), b"text/css; charset=utf-8", etag_of(content))


class ServiceApp:
    """ASGI application that routes the API's requests itself, and everything else to Starlette's pages."""

    def __init__(self, context: ServiceContext) -> None:
        self.context = context
        self.routes = RoutingTable()
        self.load_shedder = LoadShedder(context, self.routes, context.open_streams)
        self._add_endpoints()
        self._staging = context.config.staging
        self._startup_error = ""
        self._starlette = self._create_pages()
        config = context.config
        # A configured origin decides on the scheme after the headers of a proxy.
        self._pages = ForwardedHeaders(PublicOrigins(self._starlette, config.public_origins), config.trusted_proxies)

    def _add_endpoints(self) -> None:
        tracing = self.context.tracing
        for endpoint in ENDPOINTS:
            app: ASGIApp = EndpointApp(endpoint, self.context)
            if tracing is not None:
                app = tracing.wrap(app, endpoint.name, endpoint.path, office_in_path)
            self.routes.add(endpoint.method, endpoint.path, app)
            self.load_shedder.register(app, endpoint)
        self.routes.add("GET", "/openapi.json", _shared(_openapi_response))
        self.routes.add("GET", "/docs", _shared(_reference_response))
        self.routes.add("GET", STYLESHEET_PATH, _shared(_stylesheet_response))
        self.routes.add("GET", "/metrics", self._serve_metrics)

    def _create_pages(self) -> Starlette:
        context = self.context
        renderer = PageRenderer(staging=self._staging)
        cache = DashboardCache(lambda: context.engine, context.now_ms, context.catalog)
        citizens, operators = CitizenPages(context, renderer, cache), OperatorPages(context, renderer, cache)
        starlette = Starlette(
            exception_handlers={404: citizens.not_found, 405: citizens.not_found},
            routes=[*citizen_routes(citizens), *operator_routes(operators), *renderer.routes()],
            lifespan=self.lifespan,
        )
        # Starlette would redirect a path with a further slash to the host that the request names.
        starlette.router.redirect_slashes = False
        return starlette

    @contextlib.asynccontextmanager
    async def lifespan(self, _: object = None) -> AsyncIterator[None]:
        """Start the context, and stop it at the end.

        Raises:
            QuotaEngineError: the context cannot start.
        """
        try:
            await self.context.start()
        except QuotaEngineError as error:
            self._startup_error = str(error)
            raise
        try:
            yield
        finally:
            await self.context.stop()

    async def _serve_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve ASGI's lifespan. If the store cannot be opened, the log gets its error instead of a traceback."""

        async def send_short(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed" and self._startup_error:
                message = {**message, "message": self._startup_error}
            await send(message)

        await self._starlette(scope, receive, send_short)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan."""
        if scope["type"] != "http":
            await self._serve_lifespan(scope, receive, send)
            return
        if self._staging and SCOPE_KEY not in scope:  # our own connections add the header themselves
            send = _with_staging_header(send)
        route = self.routes.find(scope["path"])
        app = None
        if route is not None:
            apps, scope["path_params"] = route
            app = apps.get(scope["method"])
        if app is not None:
            await app(scope, receive, send)
            return
        metrics = self.context.metrics
        if route is None and not scope["path"].startswith(_API_PREFIXES):
            await self._pages(scope, receive, _counted(send, metrics.endpoint("pages")))
            return
        if route is None:
            problem = Problem("unknown-path", "see /openapi.json for the endpoints")
        else:
            allowed = ", ".join(sorted(route[0]))
            problem = Problem("method-not-allowed", f"allowed: {allowed}", headers=(("allow", allowed),))
        send = _counted(send, metrics.endpoint("unknown-path"))
        request_id = request_id_from(dict(scope["headers"]))
        is_head = scope["method"] == "HEAD"
        await send_response(send, problem_response(problem, request_id), request_id, is_head=is_head)

    async def _serve_metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {"content-type": CONTENT_TYPE, "cache-control": "no-store", "x-content-type-options": "nosniff"}
        response = Response(await self.context.render_metrics(), headers=headers)
        await response(scope, receive, send)


def create_app(config: ServiceConfig, *, clock: Clock | None = None, tracing: Tracing | None = None) -> ServiceApp:
    """Return the ASGI application. See :class:`ServiceContext` for ``clock`` and ``tracing``."""
    return ServiceApp(ServiceContext(config, clock, tracing))


def _shared(make_response: Callable[[], ApiResponse]) -> ASGIApp:
    """Return an application that sends the same response to all callers, or 304 to those who have it.

    Args:
        make_response: returns the response. It runs in a thread, because the first call may take long.
    """

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        headers, response = dict(scope["headers"]), await asyncio.to_thread(make_response)
        if matches_etag(response.etag, headers.get(b"if-none-match", b"")):
            response = ApiResponse(304, b"", etag=response.etag)
        await send_response(send, response, request_id_from(headers), is_head=scope["method"] == "HEAD")

    return serve


def _counted(send: Send, counts: EndpointMetrics) -> Send:
    """Count the response when it starts."""
    started_ns = perf_counter_ns()

    async def send_counted(message: Message) -> None:
        if message["type"] == "http.response.start":
            counts.add(message["status"], perf_counter_ns() - started_ns)
        await send(message)

    return send_counted


def _with_staging_header(send: Send) -> Send:
    """Add :data:`STAGING_HEADER` to the response."""

    async def send_marked(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], tuple(part.encode() for part in STAGING_HEADER)]
        await send(message)

    return send_marked
