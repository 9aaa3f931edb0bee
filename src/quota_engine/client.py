"""Clients of the HTTP service; they need the extra ``client``.

``with ServiceClient.open("http://localhost:8000", token="…") as client: client.reserve("surabaya", …)``
"""

try:
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
except ModuleNotFoundError as missing:
    if missing.name != "httpx":
        raise
    raise ImportError(
        "quota_engine.client needs httpx, of the extra 'client': pip install 'quota-engine[client]'", name="httpx"
    ) from missing

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
