"""All calls of the interface, in one table. Each module has the calls of one thing, with their handlers: a handler
turns a call into one of the engine's methods, and its answer into a body; it decides nothing.
"""

from __future__ import annotations

__all__ = ["ENDPOINTS"]

from typing import Final

from quota_engine.faces.service.calls.draws import DRAWS
from quota_engine.faces.service.calls.events import EVENTS
from quota_engine.faces.service.calls.health import HEALTH
from quota_engine.faces.service.calls.offices import OFFICES
from quota_engine.faces.service.calls.operators import OPERATIONS
from quota_engine.faces.service.calls.reservations import RESERVATIONS
from quota_engine.faces.service.calls.rooms import ROOMS

ENDPOINTS: Final = (
    *OFFICES,
    *RESERVATIONS,
    *OPERATIONS,
    *ROOMS,
    *DRAWS,
    *EVENTS,
    *HEALTH,
)
