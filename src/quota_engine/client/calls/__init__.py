"""The engine's methods as calls of the service, a module for each resource. Both clients bind them."""

from __future__ import annotations

__all__ = ["Calls", "DrawCalls", "RoomCalls"]

from quota_engine.client.calls.days import DayCalls
from quota_engine.client.calls.draws import DrawCalls
from quota_engine.client.calls.events import EventCalls
from quota_engine.client.calls.reservations import ReservationCalls
from quota_engine.client.calls.rooms import RoomCalls


class Calls(ReservationCalls, DayCalls, EventCalls):
    """All calls of a client."""
