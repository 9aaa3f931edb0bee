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

from quota_engine.admission.decision_counter import VerdictTally
from quota_engine.admission.policy import Caller
from quota_engine.admission.tickets import TicketKeys
from quota_engine.catalog import Catalog, load_catalog
from quota_engine.clocks import ManualClock, SystemClock
from quota_engine.domain.consumer_groups import GroupView
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
from quota_engine.draws.ledger import DrawOutcome, DrawPhase, DrawStatus, DrawTerms, DrawView
from quota_engine.engine.draws import AsyncDraw, Draw
from quota_engine.engine.quota_engine import AsyncQuotaEngine, QuotaEngine
from quota_engine.engine.token_buckets import AsyncTokenBuckets, TokenBuckets
from quota_engine.engine.waiting_rooms import AsyncRoom, Room
from quota_engine.ports import RecordedEvent
from quota_engine.waiting_room.machine import RoomAnswer, RoomStatus
from quota_engine.waiting_room.ticket_status import Chance, Phase, Standing
from quota_engine.waiting_room.transcript import RoomRecord
from quota_engine.workflows.bucket_requests import Taken
from quota_engine.workflows.day_workflows import AuditReport, PublishReport
from quota_engine.workflows.draws import AwardReport, DrawChoice, DrawFiles
from quota_engine.workflows.office_moves import MovesReport
from quota_engine.workflows.waiting_rooms import Admission, RoomSettings, RoomTicket

__version__ = importlib.metadata.version("quota-engine")
