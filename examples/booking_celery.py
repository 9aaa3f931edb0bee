"""Confirm and notify in a Celery worker: each task may run twice, and has one effect.

    celery --workdir examples -A booking_celery worker --concurrency 4

QUOTA_ENGINE_CELERY_BROKER is the URL of the broker, such as redis://localhost/1.
"""

from __future__ import annotations

import os

from booking_settings import OFFICE, SERVICE, open_engine
from celery import Celery
from celery.signals import worker_process_init, worker_process_shutdown

from quota_engine import BackendUnavailable, OutcomeUnknown, QuotaEngine

app = Celery("booking", broker=os.environ["QUOTA_ENGINE_CELERY_BROKER"])
app.conf.update(
    result_backend=os.environ["QUOTA_ENGINE_CELERY_BROKER"],
    task_acks_late=True,  # a killed worker's task runs again; its key makes the effect exactly once
    broker_connection_retry_on_startup=True,
)
_engines: list[QuotaEngine] = []


@worker_process_init.connect
def open_in_child(**_: object) -> None:
    """Open the engine in each worker process, after the fork."""
    _engines.append(open_engine())


@worker_process_shutdown.connect
def close_in_child(**_: object) -> None:
    """Close the engine of the worker process."""
    _engines.pop().close()


@app.task(autoretry_for=(BackendUnavailable, OutcomeUnknown), retry_backoff=True, max_retries=10)  # type: ignore[misc, untyped-decorator, unused-ignore]
def book(identity: str, day: str, key: str) -> str:
    """Take a place, keep it, and notify the visitor. ``key`` comes from the request that queued the task."""
    held = _engines[0].reserve(OFFICE, day, identity, service=SERVICE, idempotency_key=key)
    if not held.ok:
        return str(held.status)
    confirmed = _engines[0].confirm(held.reference, owner=identity)
    # Send the message here. With the key in its id, the mail service can drop a second copy.
    return str(confirmed.status)
