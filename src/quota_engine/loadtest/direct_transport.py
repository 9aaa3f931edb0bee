"""Calls the library in place of the service, with the same asks: the time left is the engine's and the store's."""

from __future__ import annotations

__all__ = ["carry", "open_engine"]

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from quota_engine.catalog import load_catalog
from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.domain.outcomes import Outcome
from quota_engine.engine.quota_engine import QuotaEngine
from quota_engine.loadtest.plan import Refused
from quota_engine.loadtest.requests import Answer, Apply, Ask, Change, Find, Reserve, Step, Withdraw, lost
from quota_engine.workflows.draws import DrawChoice

_COME_BACK = frozenset({"OVERLOADED", "THROTTLED"})


def open_engine(backend: str, identity_key: str, catalog: str) -> QuotaEngine:
    """The engine on the staging's store. Raises :class:`Refused` without a store or its identity key."""
    try:
        key = base64.b64decode(identity_key, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not backend or not key:
        raise Refused("the direct transport needs --backend and --identity-key (base64), those of the staging")
    return QuotaEngine.open(backend, identity_key=key, catalog=load_catalog(catalog))


def carry(engine: QuotaEngine, ask: Ask) -> tuple[str, Answer]:
    """The name of the call for statistics, and what was heard."""
    try:
        match ask:
            case Reserve():
                wish: Mapping[str, Any] = ask.wish
                outcome = engine.reserve(
                    ask.office,
                    ask.day,
                    ask.applicants[0] if len(ask.applicants) == 1 else ask.applicants,
                    idempotency_key=ask.key,
                    join_wait_list=ask.wait,
                    admission_pass=ask.admission_pass,
                    **wish,
                )
                return "reserve", _answer(outcome)
            case Step():
                step = getattr(engine, ask.step)
                return ask.step, _answer(step(ask.reference, applicant=ask.applicant))
            case Change():
                return "set-capacity", _answer(engine.set_capacity(ask.office, ask.day, ask.quota, ask.capacity))
            case Apply() | Find() | Withdraw():
                return type(ask).__name__.lower(), _application(engine, ask)
            case _:
                raise AssertionError("whoever is at the engine needs no waiting room")
    except (BackendUnavailable, OutcomeUnknown) as error:
        return type(ask).__name__.lower(), lost(type(error).__name__)


def _application(engine: QuotaEngine, ask: Apply | Find | Withdraw) -> Answer:
    draw = engine.draw(ask.draw)
    if isinstance(ask, Find):
        found = draw.find(ask.applicant)
        if found is None:
            return Answer("NOT_FOUND")
        return Answer("FOUND", number=found.number, version=found.version, tokens=tuple(found.tokens))
    if isinstance(ask, Apply):
        outcome = draw.apply(ask.applicants, [DrawChoice(**choice) for choice in ask.choices], version=ask.version)
    else:
        outcome = draw.withdraw(ask.applicant, version=ask.version)
    status = str(outcome.status)
    return Answer(
        status,
        retry_after_s=1.0 if status in _COME_BACK else 0.0,
        number=outcome.number,
        version=outcome.version,
        tokens=tuple(outcome.tokens),
    )


def _answer(outcome: Outcome) -> Answer:
    status = str(outcome.status)
    if status in _COME_BACK:
        return Answer(status, retry_after_s=1.0)
    record = outcome.reservation
    if record is None:
        return Answer(status)
    return Answer(
        status,
        resumed=outcome.resumed,
        reference=record.reference,
        units=record.units,
        quotas=tuple(record.quotas),
        queue_numbers=tuple(record.queue_numbers),
        deadline_at_ms=record.deadline_at_ms,
    )
