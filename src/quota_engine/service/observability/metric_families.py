"""The metrics of the service: their names, help texts and labels, and one measured value of a metric."""

from __future__ import annotations

__all__ = ["BATCH_SIZE_BOUNDS", "DURATION_BOUNDS_S", "METRIC_FAMILIES", "MetricFamily", "Sample"]

from typing import Final, NamedTuple

import msgspec

DURATION_BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCH_SIZE_BOUNDS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)


class MetricFamily(NamedTuple):
    """A metric. ``kind`` is ``counter``, ``gauge`` or ``histogram``; only a histogram has bounds."""

    kind: str
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


METRIC_FAMILIES: Final = {
    "quota_engine_outcomes": MetricFamily("counter", "Outcomes of the engine, by status.", ("status",)),
    "quota_engine_draw_outcomes": MetricFamily("counter", "Outcomes of draws, by status.", ("status",)),
    "quota_engine_contradictions": MetricFamily(
        "counter", "Rooms and draws that contradict what was published of them before.", ("kind",)
    ),
    "quota_engine_http_requests": MetricFamily(
        "counter", "HTTP responses, by endpoint and HTTP status.", ("endpoint", "status")
    ),
    "quota_engine_http_request_duration_seconds": MetricFamily(
        "histogram", "Time from the request to the start of its response.", ("endpoint",), DURATION_BOUNDS_S
    ),
    "quota_engine_policy_decisions": MetricFamily(
        "counter",
        "Decisions of admission policies, enforced or in shadow mode.",
        ("policy", "decision", "reason", "enforced"),
    ),
    "quota_engine_sold_out_cache_hits": MetricFamily("counter", "SOLD_OUT outcomes from the cache, without the store."),
    "quota_engine_store_batch_size": MetricFamily(
        "histogram", "Requests in a batch to the store.", (), BATCH_SIZE_BOUNDS
    ),
    "quota_engine_store_batch_duration_seconds": MetricFamily(
        "histogram", "Time of a batch to the store and back, retries included.", ("access",), DURATION_BOUNDS_S
    ),
    "quota_engine_store_errors": MetricFamily("counter", "Batches that failed.", ("error",)),
    "quota_engine_event_streams": MetricFamily("gauge", "Open event streams."),
    "quota_engine_workers": MetricFamily("gauge", "Worker processes."),
    "quota_engine_store_up": MetricFamily("gauge", "1 if the store answered the last collection, else 0."),
    "quota_engine_holds": MetricFamily(
        "gauge", "Holds of at least this age on days open for booking.", ("office", "older_than_seconds")
    ),
    "quota_engine_wait_list_length": MetricFamily(
        "gauge", "Parties on wait lists of days open for booking.", ("office",)
    ),
    "quota_engine_overbooked_units": MetricFamily(
        "gauge", "Units taken beyond the capacity on days open for booking.", ("office",)
    ),
    "quota_engine_abandoned_holds": MetricFamily(
        "counter", "Holds that ended without a confirm, by end: released or expired.", ("office", "end")
    ),
    "quota_engine_abandoned_hold_blocks": MetricFamily(
        "counter", "Blocks of applicants after abandoned holds, new or extended.", ("office",)
    ),
    "quota_engine_room_tickets": MetricFamily("counter", "Tickets that a waiting room has issued.", ("room",)),
    "quota_engine_room_called_tickets": MetricFamily("counter", "Tickets that a waiting room has called.", ("room",)),
    "quota_engine_room_waiting_tickets": MetricFamily("gauge", "Tickets not called yet.", ("room",)),
    "quota_engine_room_rate_per_second": MetricFamily(
        "gauge", "Rate at which a waiting room calls tickets.", ("room",)
    ),
    "process_cpu_seconds": MetricFamily("counter", "User and system CPU time of the workers."),
    "process_resident_memory_bytes": MetricFamily("gauge", "Resident memory of the workers."),
    "process_virtual_memory_bytes": MetricFamily("gauge", "Virtual memory of the workers."),
    "process_open_fds": MetricFamily("gauge", "Open file descriptors of the workers."),
}
"""All metrics by name. Values of several workers are added up; gauges of workers that have ended no longer count."""


class Sample(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A value of a metric: one number, or a histogram's counts followed by its sum."""

    family: str
    labels: tuple[str, ...]
    values: tuple[float, ...]
