"""Load shedding: above the concurrency limit, sheddable requests get 503 without reaching a handler.

The connection asks :meth:`LoadShedder.at_capacity` when a request is complete, marks the request, and refuses it here
if its endpoint is sheddable. A page reads the mark with :func:`over_limit` and shows that the service is busy.
"""

from __future__ import annotations

__all__ = ["LoadShedder", "over_limit"]

from collections.abc import Callable
from typing import Final

from starlette.types import ASGIApp, Scope

from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.service.http.buffered_request import SCOPE_KEY, BufferedRequest
from quota_engine.service.http.endpoint import Endpoint, EndpointContext
from quota_engine.service.http.responses import refusal_response, render_head, request_id_from
from quota_engine.service.http.routing import RoutingTable

_OVERLOADED: Final = Outcome(Status.OVERLOADED)


class LoadShedder:
    """Decides which requests a process refuses while it serves as many as it may, and refuses them.

    A refusal costs much less than a response, so a flood of requests passes in seconds. A stream does not count as a
    request in progress.
    """

    def __init__(self, context: EndpointContext, routes: RoutingTable, open_streams: Callable[[], int]) -> None:
        """``open_streams`` returns the number of open event streams in this process."""
        self._context = context
        self._routes = routes
        self._open_streams = open_streams
        self._sheddable: dict[ASGIApp, Endpoint] = {}

    def register(self, app: ASGIApp, endpoint: Endpoint) -> None:
        """Allow refusing the requests of ``app``, if its endpoint is sheddable."""
        if endpoint.is_sheddable:
            self._sheddable[app] = endpoint

    def at_capacity(self, running: int) -> bool:
        """Return True if ``running`` requests, streams among them, reach the concurrency limit."""
        requests_max = self._context.limits.requests_max
        return running >= requests_max and running - self._open_streams() >= requests_max

    def find_sheddable(self, request: BufferedRequest) -> Endpoint | None:
        """Return the endpoint of a request that may be refused; ``None`` for pages and endpoints that get through."""
        route = self._routes.find(request.scope["path"])
        app = None if route is None else route[0].get(request.scope["method"])
        return None if app is None else self._sheddable.get(app)

    def shed(self, request: BufferedRequest, endpoint: Endpoint) -> None:
        """Refuse the request with 503."""
        request_id = request_id_from(request.headers)
        response = refusal_response(_OVERLOADED, self._context.now_ms, request_id)
        request.respond(response.status, *render_head(response, request_id))
        request.drop_scope()
        self._context.record_response(endpoint, response.status, 0)

    async def shed_later(self, request: BufferedRequest, endpoint: Endpoint) -> None:
        """Refuse the request from a separate task, so that a long pipeline of requests does not recurse."""
        self.shed(request, endpoint)


def over_limit(scope: Scope) -> bool:
    """Return True if the request arrived while the process was at capacity. Pages then say that the service is busy."""
    request: BufferedRequest | None = scope.get(SCOPE_KEY)
    return request is not None and request.is_over_limit
