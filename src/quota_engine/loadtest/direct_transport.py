"""Calls the library in place of the service, with the same asks: the time left is the engine's and the store's."""

from __future__ import annotations

__all__ = ["open_engine", "send"]

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from quota_engine.catalog import load_catalog
from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.domain.outcomes import Outcome
from quota_engine.engine.quota_engine import QuotaEngine
from quota_engine.loadtest.plan import PlanError
from quota_engine.loadtest.requests import (
    ApplyRequest,
    CapacityRequest,
    FindApplicationRequest,
    LoadRequest,
    LoadResponse,
    ReservationRequest,
    ReserveRequest,
    WithdrawRequest,
    lost_response,
)
from quota_engine.workflows.draws import DrawChoice

_COME_BACK = frozenset({"OVERLOADED", "THROTTLED"})


def open_engine(backend: str, identity_key: str, catalog: str) -> QuotaEngine:
    """The engine on the staging's store. Raises :class:`Refused` without a store or its identity key."""
    try:
        key = base64.b64decode(identity_key, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not backend or not key:
        raise PlanError("the direct transport needs --backend and --identity-key (base64), those of the staging")
    return QuotaEngine.open(backend, identity_key=key, catalog=load_catalog(catalog))


def send(engine: QuotaEngine, ask: LoadRequest) -> tuple[str, LoadResponse]:
    """The name of the call for statistics, and what was heard."""
    try:
        match ask:
            case ReserveRequest():
                wish: Mapping[str, Any] = ask.selection
                outcome = engine.reserve(
                    ask.office,
                    ask.day,
                    ask.applicants[0] if len(ask.applicants) == 1 else ask.applicants,
                    idempotency_key=ask.idempotency_key,
                    join_wait_list=ask.join_wait_list,
                    admission_pass=ask.admission_pass,
                    **wish,
                )
                return "reserve", _answer(outcome)
            case ReservationRequest():
                step = getattr(engine, ask.action)
                return ask.action, _answer(step(ask.reference, applicant=ask.owner))
            case CapacityRequest():
                return "set-capacity", _answer(engine.set_capacity(ask.office, ask.day, ask.quota, ask.capacity))
            case ApplyRequest() | FindApplicationRequest() | WithdrawRequest():
                return type(ask).__name__.lower(), _application(engine, ask)
            case _:
                raise AssertionError("whoever is at the engine needs no waiting room")
    except (BackendUnavailable, OutcomeUnknown) as error:
        return type(ask).__name__.lower(), lost_response(type(error).__name__)


def _application(engine: QuotaEngine, ask: ApplyRequest | FindApplicationRequest | WithdrawRequest) -> LoadResponse:
    draw = engine.draw(ask.draw)
    if isinstance(ask, FindApplicationRequest):
        found = draw.find(ask.applicant)
        if found is None:
            return LoadResponse("NOT_FOUND")
        return LoadResponse("FOUND", number=found.number, version=found.version, tokens=tuple(found.tokens))
    if isinstance(ask, ApplyRequest):
        outcome = draw.apply(
            ask.applicants, [DrawChoice(**choice) for choice in ask.choices], expected_version=ask.expected_version
        )
    else:
        outcome = draw.withdraw(ask.applicant, expected_version=ask.expected_version)
    status = str(outcome.status)
    return LoadResponse(
        status,
        retry_after_s=1.0 if status in _COME_BACK else 0.0,
        number=outcome.number,
        version=outcome.version,
        tokens=tuple(outcome.tokens),
    )


def _answer(outcome: Outcome) -> LoadResponse:
    status = str(outcome.status)
    if status in _COME_BACK:
        return LoadResponse(status, retry_after_s=1.0)
    record = outcome.reservation
    if record is None:
        return LoadResponse(status)
    return LoadResponse(
        status,
        resumed=outcome.resumed,
        reference=record.reference,
        units=record.units,
        quotas=tuple(record.quotas),
        queue_numbers=tuple(record.queue_numbers),
        deadline_at_ms=record.deadline_at_ms,
    )
