"""Clients of the HTTP service; they need the extra ``client``.

``with ServiceClient.open("http://localhost:8000", token="…") as client: client.reserve("surabaya", …)``
"""

from quota_engine.faces.client import AsyncServiceClient, ServiceClient, ServiceRefused

__all__ = ["AsyncServiceClient", "ServiceClient", "ServiceRefused"]
