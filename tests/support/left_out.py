"""Pytest hooks that print how many tests a run left out, by marker. They work with and without xdist."""

from __future__ import annotations

__all__ = ["pytest_deselected", "pytest_sessionfinish", "pytest_terminal_summary", "pytest_testnodedown"]

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import pytest

_MARKERS: Final = ("store", "browser", "slow")
_OTHERS: Final = "others"
_LEFT_OUT: Final = pytest.StashKey[Counter[str]]()
_OUTPUT: Final = "left_out"


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Count tests by their first marker."""
    for item in items:
        counts = item.config.stash.setdefault(_LEFT_OUT, Counter())
        counts[next((one for one in _MARKERS if item.get_closest_marker(one)), _OTHERS)] += 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send the counts of a worker to the process that prints the summary."""
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[_OUTPUT] = dict(session.config.stash.get(_LEFT_OUT, None) or {})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the counts of a worker. Each worker collects, and so leaves out, the same tests."""
    node.config.stash[_LEFT_OUT] = Counter(getattr(node, "workeroutput", {}).get(_OUTPUT, {}))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print one line if tests were left out."""
    counts = config.stash.get(_LEFT_OUT, Counter())
    if counts:
        parts = ", ".join(f"{counts[one]} {one}" for one in (*_MARKERS, _OTHERS) if counts[one])
        terminalreporter.write_line(f"left out: {parts}; `make test` and `make test-thorough` run them")
