"""Clients of the HTTP service, with the engine's methods: :class:`ServiceClient` and :class:`AsyncServiceClient`."""

from quota_engine.faces.client.faces import AsyncServiceClient, ServiceClient
from quota_engine.faces.client.talk import ServiceRefused

__all__ = ["AsyncServiceClient", "ServiceClient", "ServiceRefused"]
