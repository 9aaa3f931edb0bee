"""The endpoints of the JSON API. Each module has the endpoints of one resource with their handlers.

A handler turns a request into a call of the engine, and the result into a body. It adds no rules. May import the
context, the http package and api_schema; never :mod:`quota_engine.service.app`.
"""

from __future__ import annotations

__all__ = ["API_SECTIONS", "ENDPOINTS", "ApiSection"]

from typing import Final, NamedTuple

from quota_engine.service.api.draws import DRAWS
from quota_engine.service.api.events import EVENTS
from quota_engine.service.api.health import HEALTH
from quota_engine.service.api.offices import OFFICES
from quota_engine.service.api.operators import OPERATIONS
from quota_engine.service.api.reservations import RESERVATIONS
from quota_engine.service.api.rooms import ROOMS
from quota_engine.service.http.endpoint import Endpoint


class ApiSection(NamedTuple):
    """The endpoints of one resource: a tag of the OpenAPI document."""

    name: str
    summary: str
    endpoints: tuple[Endpoint, ...]


API_SECTIONS: Final = (
    ApiSection("offices", "Offices, their services, and their availability.", OFFICES),
    ApiSection("reservations", "Reservations, from the hold to check-in.", RESERVATIONS),
    ApiSection("rooms", "Waiting rooms: tickets, turns and admission passes.", ROOMS),
    ApiSection("draws", "Draws: applications, the lottery, its files, and the winners' holds.", DRAWS),
    ApiSection("operations", "Operations for operators and auditors.", OPERATIONS),
    ApiSection("events", "Events of offices, and the consumer groups that read them.", EVENTS),
    ApiSection("health", "Health of the service.", HEALTH),
)
ENDPOINTS: Final = tuple(endpoint for section in API_SECTIONS for endpoint in section.endpoints)
