"""Spans have the right links and attributes and no personal data, and cost nothing when off."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from quota_engine.catalog import day_terms
from quota_engine.clocks import ManualClock
from quota_engine.domain.errors import InvalidRequest
from quota_engine.service.app import create_app
from quota_engine.service.http.endpoint import EndpointApp
from quota_engine.service.observability.tracing import VARIABLE, Tracing, tracing_from_environment
from quota_engine.stores.memory import MemoryStore
from tests.support.in_process_service import DAY, DAY_PATH, NIK, Client, configuration
from tests.support.servers import Server, valkey_server_binary

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
KEY = "a-key-that-is-a-secret"


@contextlib.asynccontextmanager
async def traced(backend: str = "memory://") -> AsyncIterator[tuple[Client, InMemorySpanExporter]]:
    """Yield a service whose spans are kept."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    settings = configuration(backend=backend)
    terms = day_terms(settings.catalog, "surabaya", DAY)
    assert terms is not None
    clock = ManualClock(terms.opens_at_ms)
    app = create_app(settings, clock=clock, tracing=Tracing(settings.catalog.offices, provider))
    async with app.lifespan():
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
            client = Client(http, app, clock)
            days = {"first_day": str(DAY), "last_day": str(DAY)}
            assert (await client.operate("POST", "/v1/publish", days)).status_code == 200
            exporter.clear()
            yield client, exporter
    provider.shutdown()


def named(exporter: InMemorySpanExporter, name: str) -> ReadableSpan:
    (span,) = [span for span in exporter.get_finished_spans() if span.name == name]
    return span


async def test_request_span_continues_the_callers_trace() -> None:
    async with traced() as (client, exporter):
        body = {"applicants": [NIK], "service": "new", "session": "morning"}
        headers = {"idempotency_key": KEY, "traceparent": CALLER}
        answer = await client.call("POST", f"{DAY_PATH}/reservations", body, "service", **headers)  # type: ignore[arg-type]
        assert answer.status_code == 201
        reference = answer.json()["reservation"]["reference"]
        assert (await client.step(reference, "confirm")).status_code == 200
        reserve, confirm = named(exporter, "reserve"), named(exporter, "confirm")
        assert reserve.kind is SpanKind.SERVER
        assert dict(reserve.attributes or {}) == {
            "http.request.method": "POST",
            "http.route": "/v1/offices/{office}/days/{day}/reservations",
            "http.response.status_code": 201,
            "quota_engine.office": "surabaya",
            "quota_engine.outcome": "HELD",
        }
        assert reserve.parent is not None
        assert f"{reserve.parent.trace_id:032x}-{reserve.parent.span_id:016x}" == CALLER[3:-3]
        assert confirm.parent is None
        assert (confirm.attributes or {})["quota_engine.office"] == "surabaya"
        said = "".join(span.to_json() for span in exporter.get_finished_spans())
        for secret in (NIK, KEY, reference):
            assert secret not in said


async def test_errors_mark_the_span_without_details(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown office is not repeated."""
    async with traced() as (client, exporter):

        def fail(*_: object) -> None:
            raise ZeroDivisionError(NIK)

        monkeypatch.setattr(MemoryStore, "apply", fail)
        assert (await client.reserve()).status_code == 500
        assert named(exporter, "reserve").status.status_code is StatusCode.ERROR
        assert (await client.http.get(f"/v1/offices/{NIK}")).status_code == 404
        assert named(exporter, "office").status.status_code is StatusCode.UNSET
        assert NIK not in "".join(span.to_json() for span in exporter.get_finished_spans())


@pytest.mark.store
async def test_batch_span_links_to_its_requests() -> None:
    with Server(valkey_server_binary()) as server:
        async with traced(server.url) as (client, exporter):
            assert (await client.reserve()).status_code == 201
            reserve = named(exporter, "reserve")
            store = next(span for span in exporter.get_finished_spans() if span.name == "store")
            assert dict(store.attributes or {}) == {
                "quota_engine.ledger": "office",
                "quota_engine.office": "surabaya",
                "quota_engine.access": "write",
                "quota_engine.batch_size": 1,
            }
            assert store.kind is SpanKind.CLIENT
            assert store.parent is None
            assert [link.context.span_id for link in store.links] == [reserve.context.span_id]
            assert store.start_time is not None
            assert store.end_time is not None
            assert 0 < store.end_time - store.start_time < 10e9


@pytest.mark.slow
def test_tracing_is_off_by_default() -> None:
    """OpenTelemetry is not even imported."""
    app = create_app(configuration())
    found = app.routes.find(f"{DAY_PATH}/reservations")
    assert found is not None
    assert isinstance(found[0]["POST"], EndpointApp)
    words = "import sys, quota_engine.service.server; print([m for m in sys.modules if 'opentelemetry' in m])"
    run = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout == "[]\n"


def test_invalid_variable_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracing_from_environment({}, {}) is None
    assert isinstance(tracing_from_environment({VARIABLE: "opentelemetry"}, {}), Tracing)
    with pytest.raises(InvalidRequest, match=f"{VARIABLE}: 'yes'; expected opentelemetry"):
        tracing_from_environment({VARIABLE: "yes"}, {})
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", None)
    with pytest.raises(InvalidRequest, match="is not installed"):
        tracing_from_environment({VARIABLE: "opentelemetry"}, {})
