from __future__ import annotations

from collections.abc import Collection

from quota_engine.fuzz.runner import SeedReport
from quota_engine.fuzz.shrinking import shrink


def fake_run(
    seed: int, *, store: str = "", without: Collection[str] = (), only: Collection[int] | None = None
) -> SeedReport:
    """Fail if operations 3 and 5 happen, and replies can be lost."""
    fails = only is not None and {3, 5} <= set(only) and "reply_lost" not in without
    return SeedReport(seed, store, "commands", 0, 0, {}, ("it failed",) if fails else (), ())


def test_shrink_keeps_what_the_failure_needs() -> None:
    found = shrink(0, store="memory", run=fake_run)
    assert found.only == (3, 5)
    assert "reply_lost" not in found.without
    assert "cut" in found.without
    assert found.violations == ("it failed",)
