"""Tests of the tutorial: its programs and commands run in order, and print what the pages show."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from tests.support.page_programs import page_runner
from tests.support.paths import DOCS

PAGES = [DOCS / "tutorial" / f"{name}.md" for name in ("first-reservation", "own-catalog", "service", "load-test")]
_OPENS_AT = datetime.time(2)
"""The opening of the tutorial's clinic, in UTC."""


@pytest.mark.slow
def test_tutorial_prints_what_its_pages_show(tmp_path: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    opening = datetime.datetime.combine(now, _OPENS_AT, datetime.UTC)
    pages = tmp_path / "pages"
    pages.mkdir()
    with page_runner(tmp_path) as runner:
        for page in PAGES:
            text = page.read_text(encoding="utf-8")
            if abs(now - opening) < datetime.timedelta(minutes=20):  # the room would open while the test runs
                text = text.replace("at = 09:00:00", "at = 15:00:00")
            copy = pages / page.name
            copy.write_text(text, encoding="utf-8")
            assert runner.run(copy) >= 3
