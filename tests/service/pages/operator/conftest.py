"""An operator's browser for the tests of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.form_browser import OperatorBrowser
from tests.support.in_process_service import Client


@pytest.fixture
async def browser(client: Client) -> AsyncIterator[OperatorBrowser]:
    browser = OperatorBrowser(client)
    async with browser.http:
        yield browser
