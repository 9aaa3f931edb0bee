"""The load test's transport without the service: its identity key."""

from __future__ import annotations

import pytest

from quota_engine.domain.errors import InvalidRequest
from quota_engine.loadtest.direct_transport import open_engine
from quota_engine.loadtest.plan import PlanError


def test_the_identity_key_is_the_text_of_the_services_settings() -> None:
    """An error names the option or variable, never the text."""
    open_engine("memory://", "MDEyMzQ1Njc4OWFiY2RlZg==", "surabaya").close()
    with pytest.raises(
        InvalidRequest, match="LOADTEST_IDENTITY_KEY: not a usable key; expected base64 of 16"
    ) as caught:
        open_engine("memory://", "0123456789abcdef!", "surabaya", "LOADTEST_IDENTITY_KEY")
    assert "0123" not in str(caught.value)
    with pytest.raises(PlanError, match="needs --backend and --identity-key"):
        open_engine("memory://", "", "surabaya")
