"""Forms that are being sent while the store fails, time passes or another tab changes the reservation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from quota_engine.domain.errors import BackendUnavailable
from tests.support.browser import PhoneBrowser
from tests.support.browser_service import BrowserService, browser_service
from tests.support.page_texts import citizen_text

pytestmark = pytest.mark.browser


def says(key: str) -> str:
    return citizen_text(key, "en")


@pytest.fixture
def service() -> Iterator[BrowserService]:
    with browser_service() as service:
        yield service


@pytest.fixture
def phone(service: BrowserService, browser: PhoneBrowser) -> Iterator[PhoneBrowser]:
    with browser.visiting(service.url) as phone:
        phone.speed_up_timers()
        yield phone


def _hold(phone: PhoneBrowser) -> None:
    """Hold a place, and tick the declaration."""
    phone.open("/?lang=en")
    phone.reserve("en")
    phone.press("#declaration")


def test_a_form_is_sent_again_if_the_store_fails_for_one_request(
    service: BrowserService, phone: PhoneBrowser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store answers again before the browser's next request. One press confirms the reservation nevertheless."""
    _hold(phone)
    engine, calls = service.client.service.engine, list[object]()
    confirm = engine.confirm

    async def fail_once(*arguments: Any, **more: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 1:
            raise BackendUnavailable("unavailable")
        return await confirm(*arguments, **more)

    monkeypatch.setattr(engine, "confirm", fail_once)
    phone.press("form[action='/reservation/confirm'] button")
    phone.wait_for_heading(says("confirmed_heading"))
    assert len(calls) == 2
