"""The browser that the tests of a module share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.browser import PhoneBrowser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PhoneBrowser]:
    """A browser for :meth:`PhoneBrowser.visiting`, in which each test is another visitor."""
    # Not at the top: most tests of pages need no browser.
    from tests.support.browser import PhoneBrowser

    with PhoneBrowser("about:blank", tmp_path_factory.mktemp("profile")) as browser:
        yield browser
