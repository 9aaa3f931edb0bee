"""Reserve scarce places, fairly and exactly, when far more people than places arrive in the same second.

``QuotaEngine`` and ``AsyncQuotaEngine`` are the way in; the README shows ten lines that reserve and confirm.
"""

from __future__ import annotations

__all__ = [
    "AbandonedHolds",
    "AsyncDraw",
    "AsyncQuotaEngine",
    "AsyncTokenBuckets",
    "AsyncWaitingRoom",
    "AuditReport",
    "AwardReport",
    "BackendUnavailable",
    "Caller",
    "Catalog",
    "CatalogError",
    "Chance",
    "ConsumerGroupView",
    "DayView",
    "DecisionCounter",
    "Draw",
    "DrawChoice",
    "DrawConfig",
    "DrawFiles",
    "DrawOutcome",
    "DrawPhase",
    "DrawStatus",
    "DrawView",
    "EnterResult",
    "InvalidRequest",
    "JobTimeout",
    "JoinResult",
    "LimitLevel",
    "ManualClock",
    "MovesReport",
    "Outcome",
    "OutcomeUnknown",
    "PublishReport",
    "QuotaEngine",
    "QuotaEngineError",
    "QuotaView",
    "Reconciliation",
    "RecordedEvent",
    "RelocatedParty",
    "RelocationReport",
    "RelocationTarget",
    "Reservation",
    "ReservationChanged",
    "RoomResult",
    "RoomSettings",
    "RoomStatus",
    "RoomTranscript",
    "State",
    "Status",
    "SystemClock",
    "TakeResult",
    "TicketKeys",
    "TicketPhase",
    "TicketStatus",
    "TokenBuckets",
    "UnknownName",
    "WaitingRoom",
    "WrongIdentityKey",
    "__version__",
    "decode_identity_key",
    "load_catalog",
]

import importlib.metadata

from quota_engine.admission.decision_counter import DecisionCounter
from quota_engine.admission.policy import Caller
from quota_engine.admission.tickets import TicketKeys
from quota_engine.catalog import Catalog, load_catalog
from quota_engine.clocks import ManualClock, SystemClock
from quota_engine.domain.consumer_groups import ConsumerGroupView
from quota_engine.domain.errors import (
    BackendUnavailable,
    CatalogError,
    InvalidRequest,
    JobTimeout,
    OutcomeUnknown,
    QuotaEngineError,
    UnknownName,
    WrongIdentityKey,
)
from quota_engine.domain.events import ReservationChanged
from quota_engine.domain.identity_key import decode_identity_key
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import AbandonedHolds, DayView, Outcome, QuotaView, Status
from quota_engine.domain.reconcile import Reconciliation
from quota_engine.draws.ledger import DrawConfig, DrawOutcome, DrawPhase, DrawStatus, DrawView
from quota_engine.engine.draws import AsyncDraw, Draw
from quota_engine.engine.quota_engine import AsyncQuotaEngine, QuotaEngine
from quota_engine.engine.token_buckets import AsyncTokenBuckets, TokenBuckets
from quota_engine.engine.waiting_rooms import AsyncWaitingRoom, WaitingRoom
from quota_engine.ports import RecordedEvent
from quota_engine.waiting_room.machine import RoomResult, RoomStatus
from quota_engine.waiting_room.ticket_status import Chance, TicketPhase, TicketStatus
from quota_engine.waiting_room.transcript import RoomTranscript
from quota_engine.workflows.bucket_requests import LimitLevel, TakeResult
from quota_engine.workflows.day_workflows import AuditReport, PublishReport
from quota_engine.workflows.draws import AwardReport, DrawChoice, DrawFiles
from quota_engine.workflows.office_moves import MovesReport
from quota_engine.workflows.relocation import RelocatedParty, RelocationReport, RelocationTarget
from quota_engine.workflows.room_config import RoomSettings
from quota_engine.workflows.room_view_cache import EnterResult
from quota_engine.workflows.waiting_rooms import JoinResult

__version__ = importlib.metadata.version("quota-engine")
