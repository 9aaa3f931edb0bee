"""The pages on privacy state the retentions of the code."""

from __future__ import annotations

import pytest

from quota_engine import RoomSettings, load_catalog
from quota_engine.service.pages.citizen import base
from quota_engine.service.pages.operator import sessions
from tests.support.paths import DOCS

_DAY_MS = 86_400_000


@pytest.mark.parametrize(
    ("name", "day", "hour"), [("privacy.md", "{} days", "{} hours"), ("id/privacy.md", "{} hari", "")]
)
def test_retentions_are_those_of_the_code(name: str, day: str, hour: str) -> None:
    text = (DOCS / name).read_text(encoding="utf-8")
    retention_days = load_catalog("surabaya").offices["surabaya"].retention_days
    for retention_ms in (retention_days * _DAY_MS, RoomSettings().retention_ms):
        assert day.format(retention_ms // _DAY_MS) in text
    assert hour.format(sessions._SESSION_MS // 3_600_000) in text
    assert base._KEPT_AFTER_DAY.days == 1
