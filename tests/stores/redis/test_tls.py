"""The connection to a store with TLS: an authority must have signed the server's certificate."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from quota_engine import QuotaEngine
from quota_engine.domain.errors import BackendUnavailable
from quota_engine.stores.redis.factory import open_store
from tests.support.servers import Server, redis_server_binary_or_skip

pytestmark = pytest.mark.store
PASSWORD = "a-password-that-no-error-shows"  # noqa: S105


def test_store_trusts_the_named_authority_only() -> None:
    """No error shows the password, and nothing is sent without TLS."""
    with Server(redis_server_binary_or_skip(), tls=True) as server:
        server.ask("CONFIG", "SET", "requirepass", PASSWORD)
        parts = urlsplit(server.url)
        trusted = parts._replace(netloc=f":{PASSWORD}@{parts.netloc.rpartition('@')[2]}").geturl()
        with QuotaEngine.open(trusted, identity_key=b"a key for tests, and only them") as engine:
            assert engine.audit().ok
        for url in (trusted.partition("?")[0], trusted.partition("?")[0].replace("rediss", "redis")):
            with pytest.raises(BackendUnavailable) as refused:
                open_store(f"{url}?call_timeout_ms=1000&attempts_max=1", None)
            assert PASSWORD not in str(refused.value)
            if url.startswith("rediss"):
                assert "certificate" in str(refused.value).lower()
