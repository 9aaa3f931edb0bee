"""Traces with OpenTelemetry: a span for each request, and one for each batch to the store, linked to its requests.

Tracing is off unless the variable :data:`VARIABLE` turns it on; then nothing here is called or imported, because a span
still takes 3 µs without a collector. Only OpenTelemetry's API is used; an SDK decides where spans go. No span has an
identity, a key, a ticket or a reservation's reference in it.
"""

from __future__ import annotations

__all__ = ["VARIABLE", "TracedMetrics", "Tracing", "tracing_from_environment"]

import importlib
import importlib.metadata
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.outcomes import Status
from quota_engine.ports import Batch
from quota_engine.service.observability.metrics import ServiceMetrics

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider
    from starlette.types import ASGIApp, Receive, Scope, Send

VARIABLE: Final = "QUOTA_ENGINE_TELEMETRY"
_ON: Final = "opentelemetry"
_TRACE_HEADERS: Final = (b"traceparent", b"tracestate")


def tracing_from_environment(environment: Mapping[str, str], offices: Mapping[str, object]) -> Tracing | None:
    """Return the tracing that the environment turns on, or ``None``.

    Args:
        offices: the catalog's offices by id; only these ids become span attributes.

    Raises:
        InvalidRequest: the variable has another value, or OpenTelemetry is not installed.
    """
    value = environment.get(VARIABLE, "")
    if not value:
        return None
    if value != _ON:
        raise InvalidRequest(VARIABLE, repr(value[:40]), f"{_ON}, or nothing")
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
        """Without a ``provider``, spans go to the one that is set for the process."""
        from opentelemetry import propagate, trace

        self._trace = trace
        self._extract = propagate.extract
        self._offices = offices
        version = importlib.metadata.version("quota-engine")
        self._tracer = trace.get_tracer("quota_engine", version, tracer_provider=provider)

    def wrap(self, app: ASGIApp, name: str, path: str, office_in_path: Callable[[Mapping[str, str]], str]) -> ASGIApp:
        """Return the application with a span around each request, as a child of the caller's span.

        Args:
            name: name of the endpoint, and of the span.
            path: path template of the endpoint.
            office_in_path: returns the office that path parameters name.
        """

        async def traced(scope: Scope, receive: Receive, send: Send) -> None:
            carrier = {
                header.decode(): value.decode("latin-1")
                for header, value in scope["headers"]
                if header in _TRACE_HEADERS
            }
            attributes = {"http.request.method": scope["method"], "http.route": path}
            office = office_in_path(scope["path_params"])
            if office in self._offices:  # any other text was typed by the caller
                attributes["quota_engine.office"] = office
            with self._tracer.start_as_current_span(
                name,
                context=self._extract(carrier),
                kind=self._trace.SpanKind.SERVER,
                attributes=attributes,
                record_exception=False,
            ):
                await app(scope, receive, send)

        return traced

    def record_response(self, status: int) -> None:
        """Add the HTTP status to the current request's span."""
        span = self._trace.get_current_span()
        span.set_attribute("http.response.status_code", status)
        if status >= 500:
            span.set_status(self._trace.StatusCode.ERROR)

    def record_outcome(self, status: Status) -> None:
        """Add the engine's outcome to the current request's span."""
        self._trace.get_current_span().set_attribute("quota_engine.outcome", str(status))

    def current_span_context(self) -> Any:
        """Return the context of the current request's span, for the link of its batch; ``None`` without a span."""
        context = self._trace.get_current_span().get_span_context()
        return context if context.is_valid else None

    def record_batch(self, batch: Batch) -> None:
        """Record a span for a batch to the store, linked to the spans of its requests."""
        ended_ns = time.time_ns()
        kind, _, _ = batch.address.partition(".") if batch.address.startswith("~") else ("office", "", "")
        attributes: dict[str, Any] = {
            "quota_engine.ledger": kind.removeprefix("~"),
            "quota_engine.access": "read" if batch.reads else "write",
            "quota_engine.batch_size": batch.size,
        }
        if batch.address in self._offices:
            attributes["quota_engine.office"] = batch.address
        if batch.error:
            attributes["error.type"] = batch.error
        # One request may have several commands in a batch; it is linked once.
        callers = {context.span_id: context for context in batch.callers if context is not None}
        span = self._tracer.start_span(
            "store",
            context=self._extract({}),
            kind=self._trace.SpanKind.CLIENT,
            attributes=attributes,
            links=[self._trace.Link(context) for context in callers.values()],
            start_time=ended_ns - batch.duration_us * 1000,
        )
        if batch.error:
            span.set_status(self._trace.StatusCode.ERROR)
        span.end(ended_ns)


class TracedMetrics(ServiceMetrics):
    """Metrics that also add outcomes and batches to spans."""

    def __init__(self, open_streams: Callable[[], int], tracing: Tracing) -> None:
        super().__init__(open_streams)
        self._tracing = tracing

    def record_outcome(self, status: Status) -> None:
        """Count the outcome, and add it to the current span."""
        super().record_outcome(status)
        self._tracing.record_outcome(status)

    def on_enqueue(self) -> Any:
        """Return the current span's context; see :class:`quota_engine.ports.StoreObserver`."""
        return self._tracing.current_span_context()

    def on_batch(self, batch: Batch) -> None:
        """Count the batch, and record its span."""
        super().on_batch(batch)
        self._tracing.record_batch(batch)
