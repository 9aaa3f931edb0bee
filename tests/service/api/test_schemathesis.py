"""Every endpoint behaves as the OpenAPI document says, for valid and invalid requests.

schemathesis generates the requests from the served document: one for each limit, and seeded random ones. To send more
requests::

    QUOTA_ENGINE_EXAMPLES=2000 python -m pytest -n 2 tests/service/api/test_schemathesis.py
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest

from quota_engine.service.api import ENDPOINTS
from quota_engine.service.http.endpoint import Endpoint

pytestmark = pytest.mark.slow


@pytest.fixture
def generated() -> Iterator[ModuleType]:
    """The generated requests. The import takes a second, and so is not for the collection of all tests."""
    from tests.support import generated_requests

    generated_requests.STAGE.clear()
    yield generated_requests
    generated_requests.STAGE.clear()


def test_each_endpoint_is_an_operation_of_the_document(generated: ModuleType) -> None:
    assert generated.list_operations() == sorted((one.method, one.path) for one in ENDPOINTS)


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.name)
def test_every_endpoint_matches_the_document(generated: ModuleType, endpoint: Endpoint) -> None:
    """Status, media type, body and headers are as documented for every role, and invalid requests are refused."""
    generated.check_endpoint(endpoint)


def test_sequences_match_the_document(generated: ModuleType) -> None:
    generated.check_sequences()
