"""Book with Flask under gunicorn, in threads, also with --preload: the engine opens at the first request of a worker.

gunicorn --chdir examples --preload --workers 4 --threads 8 booking_flask:app
"""

from __future__ import annotations

from typing import Any

from booking_settings import OFFICE, SERVICE, answer, worker_engine
from flask import Flask, jsonify, request
from flask.typing import ResponseReturnValue

from quota_engine import BackendUnavailable, OutcomeUnknown

app = Flask(__name__)


@app.post("/book")
def book() -> ResponseReturnValue:
    """Take a place and keep it. The same key has one effect, however often the form is sent."""
    form: dict[str, Any] = request.get_json()
    engine = worker_engine()  # opens after the fork; one that was opened before works on new connections in the child
    held = engine.reserve(OFFICE, form["day"], form["identity"], service=SERVICE, idempotency_key=form["key"])
    if held.ok:
        held = engine.confirm(held.reference, owner=form["identity"])
    status, body = answer(held)
    return jsonify(body), status


@app.errorhandler(BackendUnavailable)
@app.errorhandler(OutcomeUnknown)
def unavailable(error: Exception) -> ResponseReturnValue:
    """Ask for a retry with the same key: nothing was done, or the next answer is certain."""
    return jsonify({"status": type(error).__name__}), 503, {"Retry-After": "1"}
