"""What the service counts, for Prometheus."""

from __future__ import annotations

__all__ = ["Metrics"]

import os

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, generate_latest, multiprocess

from quota_engine.admission import Finding
from quota_engine.domain.outcomes import Status

_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"


class Metrics:
    """The counters of one process; with several workers, all of them are read together."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        outcomes = Counter(
            "quota_engine_outcomes", "Answers of the engine, by status.", ["status"], registry=self._registry
        )
        # Bound once: looking a label up costs more than counting.
        self._outcomes = {status: outcomes.labels(str(status)).inc for status in Status}
        self._requests = Counter(
            "quota_engine_http_requests",
            "Requests, by call and HTTP status.",
            ["call", "http"],
            registry=self._registry,
        )
        self._bound: dict[tuple[str, int], Counter] = {}
        self._verdicts = Counter(
            "quota_engine_verdicts",
            "What the admission policies said: enforced, or in shadow.",
            ["policy", "decision", "reason", "enforced"],
            registry=self._registry,
        )

    def outcome(self, status: Status) -> None:
        """An answer of the engine."""
        self._outcomes[status]()

    def request(self, call: str, http: int) -> None:
        """An answer of the service."""
        bound = self._bound.get((call, http))
        if bound is None:
            bound = self._bound[call, http] = self._requests.labels(call, str(http))
        bound.inc()

    def on_verdict(self, office: str, finding: Finding) -> None:
        """What a policy said: see :class:`quota_engine.ports.Observer`."""
        verdict = finding.verdict
        self._verdicts.labels(
            finding.policy, verdict.decision, verdict.reason, "true" if finding.enforced else "false"
        ).inc()

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        if os.environ.get(_DIRECTORY):
            together = CollectorRegistry()
            multiprocess.MultiProcessCollector(together)  # type: ignore[no-untyped-call]
            return generate_latest(together)
        return generate_latest(self._registry)
