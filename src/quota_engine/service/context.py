"""The service's context: what handlers and pages work with, and the service's start and stop.

Imports neither the handlers nor the pages; :mod:`quota_engine.service.app` puts them together.
"""

from __future__ import annotations

__all__ = ["ServiceContext"]

import asyncio
import copy
import logging
import math
import os
from pathlib import Path
from typing import Final, Self

from quota_engine.catalog import Catalog, ResolvedOffice, get_office
from quota_engine.clocks import SystemClock
from quota_engine.domain.errors import QuotaEngineError
from quota_engine.engine.quota_engine import AsyncQuotaEngine
from quota_engine.ports import Clock
from quota_engine.service.background.day_publisher import DayPublisher
from quota_engine.service.background.draw_publication import DrawFileCache
from quota_engine.service.background.periodic_task import PeriodicTask
from quota_engine.service.background.publication_records import PublicationRecords
from quota_engine.service.background.room_supervisor import RoomSupervisor
from quota_engine.service.catalog_overlay import CatalogChange, CatalogOverlay, apply_changes
from quota_engine.service.config.admission_settings import build_admission, rate_limit_policies
from quota_engine.service.config.settings import ServiceConfig
from quota_engine.service.http.auth import AccessControl
from quota_engine.service.http.endpoint import Endpoint
from quota_engine.service.http.limits import RequestLimits
from quota_engine.service.http.responses import ApiResponse
from quota_engine.service.http.sse import EventStreams
from quota_engine.service.observability.command_log import CommandLog
from quota_engine.service.observability.exposition import render
from quota_engine.service.observability.metrics import ServiceMetrics
from quota_engine.service.observability.store_collector import StoreCollector
from quota_engine.service.observability.tracing import TracedMetrics, Tracing, tracing_from_environment
from quota_engine.service.observability.worker_metrics import (
    DIRECTORY_VARIABLE,
    WRITE_INTERVAL_S,
    WorkerMetrics,
    hung_workers,
)
from quota_engine.service.room_response_cache import RoomResponseCache
from quota_engine.service.shared_cache import SharedCache
from quota_engine.waiting_room.releases import Releases

_logger = logging.getLogger("quota_engine.service")
AVAILABILITY_RESPONSES_MAX: Final = 256
_FOLLOW_S: Final = 5.0
"""Seconds after which a process follows a change of the catalog that another one has made."""
_READINESS_TTL_MS: Final = 1_000
"""Time for which the result of a readiness check is reused."""


class ServiceContext:
    """The engine, the catalog, the clock, the metrics and the caches of one process."""

    def __init__(self, config: ServiceConfig, clock: Clock | None = None, tracing: Tracing | None = None) -> None:
        """
        Args:
            clock: the time of the service and the engine; without one, the system's time and the store's.
            tracing: makes spans; without one, the environment decides.
        """
        self.config = config
        self.catalog: Catalog = config.catalog
        self.access = AccessControl(config.grants)
        self.limits: RequestLimits = config.limits
        self.streams = EventStreams(self.limits.streams_max, self.limits.stream_lifetime_ms)
        self.tracing = tracing or tracing_from_environment(os.environ, self.catalog.offices)
        self.metrics = (
            ServiceMetrics(self.open_streams)
            if self.tracing is None
            else TracedMetrics(self.open_streams, self.tracing)
        )
        self.publications = PublicationRecords(config.publication_folder, self.metrics.record_contradiction)
        self.draw_files = DrawFileCache(publication_folder=config.publication_folder)
        self.draining = False
        self.releases = None
        if config.waiting_rooms is not None:
            self.releases = Releases(self.catalog, config.waiting_rooms.schedule)
        self.rate_limit_policies = rate_limit_policies(config.admission)
        self.day_publisher: DayPublisher | None = None
        self.room_supervisor: RoomSupervisor | None = None
        self.now_ms = (clock or SystemClock()).now_ms
        self.room_responses = RoomResponseCache(self.now_ms)
        self.catalog_responses: SharedCache[ApiResponse] = SharedCache(len(self.catalog.offices) + 1, self.now_ms)
        self.availability_responses: SharedCache[ApiResponse] = SharedCache(AVAILABILITY_RESPONSES_MAX, self.now_ms)
        self._store_metrics: SharedCache[bytes] = SharedCache(1, self.now_ms)
        self._clock = clock
        directory = os.environ.get(DIRECTORY_VARIABLE)
        self._worker_directory = Path(directory) if directory else None
        self.catalog_overlay = CatalogOverlay(self.operator_folder)
        self._applied_changes: tuple[CatalogChange, ...] = ()
        self._engine: AsyncQuotaEngine | None = None
        self._store_collector: StoreCollector | None = None
        self._tasks: list[PeriodicTask] = []
        self.command_log = CommandLog(self.operator_folder, self.now_ms)
        self._worker_metrics = None if self._worker_directory is None else WorkerMetrics(self._worker_directory)
        self._readiness = "starting"
        self._readiness_checked_at_ms = 0
        self._readiness_lock = asyncio.Lock()

    @property
    def engine(self) -> AsyncQuotaEngine:
        """The engine, which exists after :meth:`start`."""
        assert self._engine is not None
        return self._engine

    def with_timeout(self, timeout_ms: int) -> Self:
        """See :class:`quota_engine.service.http.endpoint.EndpointContext`."""
        bounded = copy.copy(self)
        bounded._engine = self.engine.with_timeout(timeout_ms)  # noqa: SLF001 - of the copy
        return bounded

    async def start(self) -> None:
        """Open the store, publish the configured days, and start the periodic tasks.

        Raises:
            QuotaEngineError: the store cannot be opened, or the first publication or room failed.
        """
        config = self.config
        self.refresh_catalog()
        policy, keys = build_admission(config.admission, config.ticket_keys, config.identity_key, self.releases)
        engine = self._engine = await AsyncQuotaEngine.open(
            config.backend,
            identity_key=config.identity_key,
            catalog=self.catalog,
            clock=self._clock,
            admission=policy,
            observer=self.metrics,
            ticket_keys=keys,
        )
        self._store_collector = StoreCollector(engine, self.catalog, self.now_ms, self.current_room)
        if self._worker_metrics is not None:
            await self._start_task(PeriodicTask("writing metrics", self._write_metrics, WRITE_INTERVAL_S))
        if config.publish_days:
            rooms = config.waiting_rooms
            self.day_publisher = DayPublisher(
                engine,
                self.catalog,
                config.publish_days,
                self.now_ms,
                join_opens_before_ms=0 if rooms is None else rooms.schedule.join_opens_before_ms,
            )
            await self._start_task(self.day_publisher)
        if self.operator_folder is not None:
            await self._start_task(PeriodicTask("reading changes of the catalog", self._follow_changes, _FOLLOW_S))
        if self.releases is not None and config.waiting_rooms is not None:
            settings = config.waiting_rooms.settings
            self.room_supervisor = RoomSupervisor(engine, self.releases, settings, self.now_ms, self.publications)
            await self._start_task(self.room_supervisor)

    async def stop(self) -> None:
        """End streams and periodic tasks, and close the store. Requests in progress have ended before."""
        self.draining = True
        self.streams.drain()
        for task in self._tasks:
            await task.stop()
        await self.draw_files.close()
        if self._engine is not None:
            await self._engine.close()
        if self._worker_metrics is not None:
            await self._write_metrics()

    async def _start_task(self, task: PeriodicTask) -> None:
        self._tasks.append(task)
        await task.start()

    def refresh_catalog(self) -> None:
        """Work with the catalog and the operators' changes of it, if they have changed."""
        changes = self.catalog_overlay.changes()
        if changes is self._applied_changes:
            return
        self._applied_changes = changes
        self.catalog = apply_changes(self.config.catalog, changes)
        if self.day_publisher is not None:
            self.day_publisher.use(self.catalog)

    async def _follow_changes(self) -> None:
        self.refresh_catalog()

    async def _write_metrics(self) -> None:
        assert self._worker_metrics is not None
        self._worker_metrics.write(self.metrics.samples())

    async def render_metrics(self) -> bytes:
        """Return the metrics of all workers and of the store in Prometheus' text format."""
        samples = self.metrics.samples()
        if self._worker_metrics is not None:
            samples = self._worker_metrics.aggregate(samples)
        assert self._store_collector is not None
        of_store = await self._store_collector.samples()
        # The values of the store change with each collection only, and there are many of them for many offices.
        return render(samples) + self._store_metrics.get("store", (of_store,), lambda: (render(of_store), math.inf))

    async def check_readiness(self) -> str:
        """Return ``ready``, ``draining`` or ``store unavailable``. Calls the store at most once a second."""
        if self.draining:
            return "draining"
        async with self._readiness_lock:
            now_ms = self.now_ms()
            if now_ms - self._readiness_checked_at_ms >= _READINESS_TTL_MS:
                try:
                    await self.engine.list_offices()
                    self._readiness = "ready"
                except QuotaEngineError as error:
                    _logger.warning("not ready: %s", error)
                    self._readiness = "store unavailable"
                self._readiness_checked_at_ms = now_ms
        return self._readiness

    def record_response(self, endpoint: Endpoint, status: int, duration_ns: int) -> None:
        """See :class:`quota_engine.service.http.endpoint.EndpointContext`."""
        self.metrics.endpoint(endpoint.name).add(status, duration_ns)
        if self.tracing is not None:
            self.tracing.record_response(status)

    def record_rejected(self, status: int) -> None:
        """Count a response to bytes that are not a valid request."""
        self.metrics.endpoint("invalid-request").add(status, 0)

    def open_streams(self) -> int:
        """Return the number of open event streams in this process."""
        return self.streams.count

    def get_office(self, office: str) -> ResolvedOffice:
        """Return an office of the catalog.

        Raises:
            UnknownName: the catalog has no such office.
        """
        return get_office(self.catalog, office)

    @property
    def operator_folder(self) -> Path | None:
        """The folder of what operators keep. Without a setting, the workers of a machine share one until they stop."""
        return self.config.operator_folder or self._worker_directory

    def hung_workers(self, since_ms: int) -> list[int]:
        """Return when workers of this machine hung and were replaced, from ``since_ms`` on.

        All times are in milliseconds since 1970 (UTC). A process without a supervisor knows of none.
        """
        return [] if self._worker_directory is None else hung_workers(self._worker_directory, since_ms)

    def current_room(self, office: str) -> str | None:
        """Return the id of the office's running waiting room, or else of the next one; ``None`` if it has no rooms."""
        return None if self.releases is None else self.releases.current_room(office, self.now_ms())
