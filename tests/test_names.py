"""Retired names stay retired, and one class name has one meaning."""

from __future__ import annotations

import pytest

from scripts.check_names import RetiredNames, check, tracked_files


@pytest.mark.slow
def test_names_are_current_and_have_one_meaning() -> None:
    findings = check(tracked_files(), RetiredNames.load())
    assert not findings, "\n" + "\n".join(map(str, findings))
