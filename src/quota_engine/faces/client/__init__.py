"""Clients of the HTTP service, with the engine's methods: :class:`ServiceClient` and :class:`AsyncServiceClient`."""

from quota_engine.faces.client.calls.rooms import RoomChanged
from quota_engine.faces.client.faces import (
    AsyncServiceClient,
    AsyncServiceDraw,
    AsyncServiceRoom,
    ServiceClient,
    ServiceDraw,
    ServiceRoom,
)
from quota_engine.faces.client.reading import ServiceStanding
from quota_engine.faces.client.talk import Retries, ServiceRefused

__all__ = [
    "AsyncServiceClient",
    "AsyncServiceDraw",
    "AsyncServiceRoom",
    "Retries",
    "RoomChanged",
    "ServiceClient",
    "ServiceDraw",
    "ServiceRefused",
    "ServiceRoom",
    "ServiceStanding",
]
