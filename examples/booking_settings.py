"""The shared part of the recipes: the catalog, the store's address from the environment, and answers for people.

QUOTA_ENGINE_BACKEND        URL of the store, such as redis://localhost
QUOTA_ENGINE_IDENTITY_KEY   base64 of 16 to 64 secret bytes; the same for all processes
"""

from __future__ import annotations

import functools
import os
import threading
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from quota_engine import Outcome, QuotaEngine, decode_identity_key, load_catalog

CATALOG: Final = load_catalog(Path(__file__).with_name("clinic.toml"))
OFFICE: Final = "clinic"
SERVICE: Final = "vaccine"
DAYS_AHEAD: Final = 14


def engine_options() -> dict[str, Any]:
    """Return the arguments of ``QuotaEngine.open`` and ``AsyncQuotaEngine.open``."""
    key = decode_identity_key(os.environ["QUOTA_ENGINE_IDENTITY_KEY"], "QUOTA_ENGINE_IDENTITY_KEY")
    return {"url": os.environ["QUOTA_ENGINE_BACKEND"], "identity_key": key, "catalog": CATALOG}


def open_engine() -> QuotaEngine:
    """Open an engine for the threads of this process, and publish the next days."""
    engine = QuotaEngine.open(**engine_options())
    engine.publish(CATALOG, *days_to_publish())
    return engine


_opening = threading.Lock()


def worker_engine() -> QuotaEngine:
    """Return the engine of a worker process, opened at its first call. All threads share one engine."""
    with _opening:  # otherwise each of the first threads would open its own engine
        return _opened()


@functools.cache
def _opened() -> QuotaEngine:
    return open_engine()


def days_to_publish() -> tuple[date, date]:
    """Return the first and the last day to publish. Every process may publish at its start; one must do so daily."""
    today = datetime.now(UTC).date()
    return today, today + timedelta(days=DAYS_AHEAD)


def answer(outcome: Outcome) -> tuple[int, dict[str, Any]]:
    """Return HTTP status and JSON body of an outcome. A refusal is an answer, not an error of the server."""
    if outcome.ok and outcome.reservation is not None:
        queue_numbers = list(outcome.reservation.queue_numbers)
        return 200, {"status": outcome.status, "reference": outcome.reference, "queue_numbers": queue_numbers}
    return 409, {"status": outcome.status, "retry_at_ms": outcome.retry_at_ms}
