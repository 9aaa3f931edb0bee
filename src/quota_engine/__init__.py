"""Reserve scarce places, fairly and exactly, when far more people than places arrive in the same second.

``QuotaEngine`` and ``AsyncQuotaEngine`` are the way in; the README shows ten lines that reserve and confirm.
"""

from __future__ import annotations

__all__ = [
    "Admission",
    "AsyncDraw",
    "AsyncQuotaEngine",
    "AsyncRoom",
    "AsyncTokenBuckets",
    "AuditReport",
    "AwardReport",
    "BackendUnavailable",
    "Caller",
    "Catalog",
    "CatalogError",
    "Chance",
    "DayView",
    "Draw",
    "DrawChoice",
    "DrawFiles",
    "DrawOutcome",
    "DrawPhase",
    "DrawStatus",
    "DrawTerms",
    "DrawView",
    "GroupView",
    "InvalidRequest",
    "ManualClock",
    "MovesReport",
    "Outcome",
    "OutcomeUnknown",
    "Phase",
    "PublishReport",
    "QuotaEngine",
    "QuotaEngineError",
    "QuotaView",
    "Reconciliation",
    "RecordedEvent",
    "Reservation",
    "ReservationChanged",
    "Room",
    "RoomAnswer",
    "RoomRecord",
    "RoomSettings",
    "RoomStatus",
    "RoomTicket",
    "Standing",
    "State",
    "Status",
    "SystemClock",
    "Taken",
    "TicketKeys",
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
from quota_engine.admission.room import RoomAnswer, RoomStatus
from quota_engine.admission.room_record import RoomRecord
from quota_engine.admission.room_standing import Chance, Phase, Standing
from quota_engine.admission.tickets import TicketKeys
from quota_engine.catalog import Catalog, load_catalog
from quota_engine.domain.consumers import GroupView
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
from quota_engine.domain.reconcile import Reconciliation
from quota_engine.faces.buckets import AsyncTokenBuckets, TokenBuckets
from quota_engine.faces.draws import AsyncDraw, Draw
from quota_engine.faces.engine import AsyncQuotaEngine, QuotaEngine
from quota_engine.faces.rooms import AsyncRoom, Room
from quota_engine.flow.bucket_desk import Taken
from quota_engine.flow.draws import AwardReport, DrawChoice, DrawFiles
from quota_engine.flow.moves import MovesReport
from quota_engine.flow.rooms import Admission, RoomSettings, RoomTicket
from quota_engine.flow.steps import AuditReport, PublishReport
from quota_engine.ports import RecordedEvent

__version__ = importlib.metadata.version("quota-engine")
