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

TYPE_CHECKING = False  # type checkers take this name for true; typing itself would cost as much as all else here
if TYPE_CHECKING:
    from typing import Any, Final

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
    from quota_engine.draws.commands import DrawConfig
    from quota_engine.draws.outcomes import DrawOutcome, DrawStatus
    from quota_engine.draws.queries import DrawPhase, DrawView
    from quota_engine.engine.draws import AsyncDraw, Draw
    from quota_engine.engine.quota_engine import AsyncQuotaEngine, QuotaEngine
    from quota_engine.engine.token_buckets import AsyncTokenBuckets, TokenBuckets
    from quota_engine.engine.waiting_rooms import AsyncWaitingRoom, WaitingRoom
    from quota_engine.ports import RecordedEvent
    from quota_engine.waiting_room.results import RoomResult, RoomStatus
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

_NAMES_BY_MODULE: Final = {
    "admission.decision_counter": ("DecisionCounter",),
    "admission.policy": ("Caller",),
    "admission.tickets": ("TicketKeys",),
    "catalog": ("Catalog", "load_catalog"),
    "clocks": ("ManualClock", "SystemClock"),
    "domain.consumer_groups": ("ConsumerGroupView",),
    "domain.errors": (
        "BackendUnavailable",
        "CatalogError",
        "InvalidRequest",
        "JobTimeout",
        "OutcomeUnknown",
        "QuotaEngineError",
        "UnknownName",
        "WrongIdentityKey",
    ),
    "domain.events": ("ReservationChanged",),
    "domain.identity_key": ("decode_identity_key",),
    "domain.lifecycle": ("State",),
    "domain.model": ("Reservation",),
    "domain.outcomes": ("AbandonedHolds", "DayView", "Outcome", "QuotaView", "Status"),
    "domain.reconcile": ("Reconciliation",),
    "draws.commands": ("DrawConfig",),
    "draws.outcomes": ("DrawOutcome", "DrawStatus"),
    "draws.queries": ("DrawPhase", "DrawView"),
    "engine.draws": ("AsyncDraw", "Draw"),
    "engine.quota_engine": ("AsyncQuotaEngine", "QuotaEngine"),
    "engine.token_buckets": ("AsyncTokenBuckets", "TokenBuckets"),
    "engine.waiting_rooms": ("AsyncWaitingRoom", "WaitingRoom"),
    "ports": ("RecordedEvent",),
    "waiting_room.results": ("RoomResult", "RoomStatus"),
    "waiting_room.ticket_status": ("Chance", "TicketPhase", "TicketStatus"),
    "waiting_room.transcript": ("RoomTranscript",),
    "workflows.bucket_requests": ("LimitLevel", "TakeResult"),
    "workflows.day_workflows": ("AuditReport", "PublishReport"),
    "workflows.draws": ("AwardReport", "DrawChoice", "DrawFiles"),
    "workflows.office_moves": ("MovesReport",),
    "workflows.relocation": ("RelocatedParty", "RelocationReport", "RelocationTarget"),
    "workflows.room_config": ("RoomSettings",),
    "workflows.room_view_cache": ("EnterResult",),
    "workflows.waiting_rooms": ("JoinResult",),
}
"""Public names by the module that defines them, below ``quota_engine``.

A name is imported when it is first used: ``quota-engine --help`` needs none of them. All of them together take a
quarter of a second of processor time.
"""
_MODULES: Final = {name: module for module, names in _NAMES_BY_MODULE.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("quota-engine")
    elif name in _MODULES:
        import importlib

        value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names, imported or not."""
    return sorted({*globals(), *__all__})
