"""Clients of the HTTP service; they need the extra ``client``.

``with ServiceClient.open("http://localhost:8000", token="…") as client: client.reserve("surabaya", …)``
"""

from quota_engine.faces.client import (
    AsyncServiceClient,
    AsyncServiceDraw,
    AsyncServiceRoom,
    Retries,
    RoomChanged,
    ServiceClient,
    ServiceDraw,
    ServiceRefused,
    ServiceRoom,
    ServiceStanding,
)

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
