"""A client of a separate running service for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.in_process_service import Client, running


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with running() as client:
        yield client
