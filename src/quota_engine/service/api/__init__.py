"""All calls of the interface, in one table. Each module has the calls of one thing, with their handlers: a handler
turns a call into one of the engine's methods, and its answer into a body; it decides nothing.
"""

from __future__ import annotations

__all__ = ["CHAPTERS", "ENDPOINTS", "Chapter"]

from typing import Final, NamedTuple

from quota_engine.service.api.draws import DRAWS
from quota_engine.service.api.events import EVENTS
from quota_engine.service.api.health import HEALTH
from quota_engine.service.api.offices import OFFICES
from quota_engine.service.api.operators import OPERATIONS
from quota_engine.service.api.reservations import RESERVATIONS
from quota_engine.service.api.rooms import ROOMS
from quota_engine.service.http.endpoint import Endpoint


class Chapter(NamedTuple):
    """The calls of one thing: a tag of the OpenAPI document."""

    name: str
    summary: str
    endpoints: tuple[Endpoint, ...]


CHAPTERS: Final = (
    Chapter("offices", "What there is, and what is free.", OFFICES),
    Chapter("reservations", "From a hold to the day.", RESERVATIONS),
    Chapter("rooms", "Waiting rooms: tickets, turns and passes.", ROOMS),
    Chapter("draws", "Draws: applications, the draw, its files and the winners' holds.", DRAWS),
    Chapter("operations", "For operators and auditors.", OPERATIONS),
    Chapter("events", "What has happened, for those who consume it.", EVENTS),
    Chapter("health", "How the service is.", HEALTH),
)
ENDPOINTS: Final = tuple(endpoint for chapter in CHAPTERS for endpoint in chapter.endpoints)
