"""Reserve scarce places, fairly and exactly, when far more people than places arrive in the same second.

``QuotaEngine`` and ``AsyncQuotaEngine`` are the way in; the README shows ten lines that reserve and confirm.
"""

from __future__ import annotations

__all__ = [
    "AsyncDraw",
    "AsyncQuotaEngine",
    "AsyncTokenBuckets",
    "AuditReport",
    "AwardReport",
    "BackendUnavailable",
    "Caller",
    "Catalog",
    "CatalogError",
    "DayView",
    "Draw",
    "DrawChoice",
    "DrawFiles",
    "DrawOutcome",
    "DrawPhase",
    "DrawStatus",
    "DrawTerms",
    "DrawView",
    "InvalidRequest",
    "ManualClock",
    "Outcome",
    "OutcomeUnknown",
    "PublishReport",
    "QuotaEngine",
    "QuotaEngineError",
    "QuotaView",
    "RecordedEvent",
    "Reservation",
    "ReservationChanged",
    "State",
    "Status",
    "SystemClock",
    "Taken",
    "TokenBuckets",
    "UnknownName",
    "VerdictTally",
    "__version__",
    "load_catalog",
]

import importlib.metadata

from quota_engine.adapters.clocks import ManualClock, SystemClock
from quota_engine.adapters.observers import VerdictTally
from quota_engine.admission.draw_ledger import DrawOutcome, DrawPhase, DrawStatus, DrawTerms, DrawView
from quota_engine.admission.policy import Caller
from quota_engine.catalog import Catalog, load_catalog
from quota_engine.domain.errors import (
    BackendUnavailable,
    CatalogError,
    InvalidRequest,
    OutcomeUnknown,
    QuotaEngineError,
    UnknownName,
)
from quota_engine.domain.events import ReservationChanged
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import DayView, Outcome, QuotaView, Status
from quota_engine.faces.buckets import AsyncTokenBuckets, TokenBuckets
from quota_engine.faces.draws import AsyncDraw, Draw
from quota_engine.faces.engine import AsyncQuotaEngine, QuotaEngine
from quota_engine.flow.bucket_desk import Taken
from quota_engine.flow.draws import AwardReport, DrawChoice, DrawFiles
from quota_engine.flow.steps import AuditReport, PublishReport
from quota_engine.ports import RecordedEvent

__version__ = importlib.metadata.version("quota-engine")
