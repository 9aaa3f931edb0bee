"""Transport that calls the engine directly; the difference is the service's share of the time."""

from __future__ import annotations

__all__ = ["open_engine", "send"]

from collections.abc import Mapping
from typing import Any

from quota_engine.catalog import load_catalog
from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.domain.identity_key import decode_identity_key
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

_RETRY_LATER = frozenset({"OVERLOADED", "THROTTLED"})


def open_engine(backend: str, identity_key: str, catalog: str, key_source: str = "--identity-key") -> QuotaEngine:
    """Open the engine on the staging service's store.

    Args:
        backend: URL of the store.
        identity_key: the service's identity key in base64, as in its settings.
        catalog: the service's catalog, a bundled one or a file.
        key_source: the option or variable that the key came from, for errors.

    Raises:
        PlanError: the store or the key is missing.
        InvalidRequest: the key is not such a text.
        WrongIdentityKey: the service has another key.
    """
    if not backend or not identity_key:
        raise PlanError("the direct transport needs --backend and --identity-key (base64) of the staging service")
    key = decode_identity_key(identity_key, key_source)
    return QuotaEngine.open(backend, identity_key=key, catalog=load_catalog(catalog))


def send(engine: QuotaEngine, request: LoadRequest) -> tuple[str, LoadResponse]:
    """Call the engine and return the name of the call in the statistics, and the response."""
    try:
        match request:
            case ReserveRequest():
                selection: Mapping[str, Any] = request.selection
                outcome = engine.reserve(
                    request.office,
                    request.day,
                    request.applicants[0] if len(request.applicants) == 1 else request.applicants,
                    idempotency_key=request.idempotency_key,
                    join_wait_list=request.join_wait_list,
                    admission_pass=request.admission_pass,
                    **selection,
                )
                return "reserve", _response(outcome)
            case ReservationRequest():
                step = getattr(engine, request.action)
                return request.action, _response(step(request.reference, owner=request.owner))
            case CapacityRequest():
                return "set-capacity", _response(
                    engine.set_capacity(request.office, request.day, request.quota, request.capacity)
                )
            case ApplyRequest() | FindApplicationRequest() | WithdrawRequest():
                return type(request).__name__.lower(), _application(engine, request)
            case _:
                raise AssertionError("the direct transport has no waiting room")
    except (BackendUnavailable, OutcomeUnknown) as error:
        return type(request).__name__.lower(), lost_response(type(error).__name__)


def _application(engine: QuotaEngine, request: ApplyRequest | FindApplicationRequest | WithdrawRequest) -> LoadResponse:
    draw = engine.draw(request.draw)
    if isinstance(request, FindApplicationRequest):
        found = draw.find(request.applicant)
        if found is None:
            return LoadResponse("NOT_FOUND")
        return LoadResponse("FOUND", number=found.number, version=found.version, tokens=tuple(found.tokens))
    if isinstance(request, ApplyRequest):
        outcome = draw.apply(
            request.applicants,
            [DrawChoice(**choice) for choice in request.choices],
            expected_version=request.expected_version,
        )
    else:
        outcome = draw.withdraw(request.applicant, expected_version=request.expected_version)
    status = str(outcome.status)
    return LoadResponse(
        status,
        retry_after_s=1.0 if status in _RETRY_LATER else 0.0,
        number=outcome.number,
        version=outcome.version,
        tokens=tuple(outcome.tokens),
    )


def _response(outcome: Outcome) -> LoadResponse:
    status = str(outcome.status)
    if status in _RETRY_LATER:
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
