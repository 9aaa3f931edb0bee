"""Traces, for who has OpenTelemetry: a span for each request, one for each batch to the store, linked to its requests.

Off unless the variable :data:`VARIABLE` asks for it, and then nothing of this is called, or even imported: a span costs
3 µs although nobody wants it. Only the API is used here; what becomes of the spans is the business of whoever sets up
an SDK. No span has an identity, a key, a ticket or a reservation's reference in it.
"""

from __future__ import annotations

__all__ = ["VARIABLE", "TracedMetrics", "Tracing", "tracing_of"]

import importlib
import importlib.metadata
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.outcomes import Status
from quota_engine.ports import Batch
from quota_engine.service.http.endpoint import Endpoint
from quota_engine.service.observability.metrics import Metrics

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider
    from starlette.types import ASGIApp, Receive, Scope, Send

VARIABLE: Final = "QUOTA_ENGINE_TELEMETRY"
_ON: Final = "opentelemetry"
_CARRIED: Final = (b"traceparent", b"tracestate")


def tracing_of(environment: Mapping[str, str], offices: Mapping[str, object]) -> Tracing | None:
    """What traces, if it is asked for; ``offices`` are those of the catalog.

    Raises:
        InvalidRequest: it is asked for in other words, or is not installed.
    """
    wanted = environment.get(VARIABLE, "")
    if not wanted:
        return None
    if wanted != _ON:
        raise InvalidRequest(VARIABLE, repr(wanted[:40]), f"{_ON}, or nothing")
    try:
        importlib.import_module("opentelemetry.trace")
    except ImportError:
        raise InvalidRequest(
            VARIABLE, "OpenTelemetry is not installed", "pip install 'quota-engine[telemetry]'"
        ) from None
    return Tracing(offices)


class Tracing:
    """Makes the spans of one process."""

    def __init__(self, offices: Mapping[str, object], provider: TracerProvider | None = None) -> None:
        """``provider`` ``None``: the one that is set for the process."""
        from opentelemetry import propagate, trace

        self._trace = trace
        self._extract = propagate.extract
        self._offices = offices
        version = importlib.metadata.version("quota-engine")
        self._tracer = trace.get_tracer("quota_engine", version, tracer_provider=provider)

    def around(self, app: ASGIApp, endpoint: Endpoint) -> ASGIApp:
        """The same application, with a span around each of its requests. It goes on with the trace of the caller."""

        async def traced(scope: Scope, receive: Receive, send: Send) -> None:
            carrier = {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in _CARRIED}
            path = scope["path_params"]
            attributes = {"http.request.method": scope["method"], "http.route": endpoint.path}
            office = path.get("office") or path.get("reference", "").partition("~")[0]
            if office in self._offices:  # anything else is what somebody has written there
                attributes["quota_engine.office"] = office
            with self._tracer.start_as_current_span(
                endpoint.name,
                context=self._extract(carrier),
                kind=self._trace.SpanKind.SERVER,
                attributes=attributes,
                record_exception=False,
            ):
                await app(scope, receive, send)

        return traced

    def answered(self, http: int) -> None:
        """The request of the current span is answered."""
        span = self._trace.get_current_span()
        span.set_attribute("http.response.status_code", http)
        if http >= 500:
            span.set_status(self._trace.StatusCode.ERROR)

    def outcome(self, status: Status) -> None:
        """What the engine said to the request of the current span."""
        self._trace.get_current_span().set_attribute("quota_engine.outcome", str(status))

    def caller(self) -> Any:
        """Whose call it is: what a batch is linked to."""
        found = self._trace.get_current_span().get_span_context()
        return found if found.is_valid else None

    def batch(self, batch: Batch) -> None:
        """A span of its own for calls that went to the store together."""
        ended_ns = time.time_ns()
        kind, _, _ = batch.address.partition(".") if batch.address.startswith("~") else ("office", "", "")
        attributes: dict[str, Any] = {
            "quota_engine.place": kind.removeprefix("~"),
            "quota_engine.access": "read" if batch.reads else "write",
            "quota_engine.batch_size": batch.size,
        }
        if batch.address in self._offices:
            attributes["quota_engine.office"] = batch.address
        if batch.error:
            attributes["error.type"] = batch.error
        callers = {
            one.span_id: one for one in batch.callers if one is not None
        }  # a request may have several calls in it
        span = self._tracer.start_span(
            "store",
            context=self._extract({}),
            kind=self._trace.SpanKind.CLIENT,
            attributes=attributes,
            links=[self._trace.Link(caller) for caller in callers.values()],
            start_time=ended_ns - batch.duration_us * 1000,
        )
        if batch.error:
            span.set_status(self._trace.StatusCode.ERROR)
        span.end(ended_ns)


class TracedMetrics(Metrics):
    """Counts, and tells the spans."""

    def __init__(self, streams_open: Callable[[], int], tracing: Tracing) -> None:
        super().__init__(streams_open)
        self._tracing = tracing

    def outcome(self, status: Status) -> None:
        """See :meth:`Metrics.outcome`."""
        super().outcome(status)
        self._tracing.outcome(status)

    def on_enqueue(self) -> Any:
        """See :class:`quota_engine.ports.StoreObserver`."""
        return self._tracing.caller()

    def on_batch(self, batch: Batch) -> None:
        """See :meth:`Metrics.on_batch`."""
        super().on_batch(batch)
        self._tracing.batch(batch)
