"""Clients of the HTTP service, with the engine's methods: ServiceClient and AsyncServiceClient.

May import api_schema and what it needs; never the service. Needs the extra ``client``.
"""

try:
    from quota_engine.client.call_protocol import Retries, ServiceRefused
    from quota_engine.client.calls.rooms import RoomChanged
    from quota_engine.client.clients import (
        AsyncServiceClient,
        AsyncServiceDraw,
        AsyncServiceWaitingRoom,
        ServiceClient,
        ServiceDraw,
        ServiceWaitingRoom,
    )
    from quota_engine.client.decoding import ServiceTicketStatus
except ModuleNotFoundError as missing:
    if missing.name != "httpx":
        raise
    raise ImportError(
        "quota_engine.client needs httpx, of the extra 'client': pip install 'quota-engine[client]'", name="httpx"
    ) from missing

__all__ = [
    "AsyncServiceClient",
    "AsyncServiceDraw",
    "AsyncServiceWaitingRoom",
    "Retries",
    "RoomChanged",
    "ServiceClient",
    "ServiceDraw",
    "ServiceRefused",
    "ServiceTicketStatus",
    "ServiceWaitingRoom",
]
