"""Results as text with units, for the terminal and for the HTML report."""

from __future__ import annotations

__all__ = ["RULE", "goal_cells", "headline", "machine_line", "microseconds", "percent", "rate", "times"]

from typing import Any

from quota_engine.bench.compare import RATIO_MIN
from quota_engine.bench.goals import Goal
from quota_engine.bench.results import BenchResult

RULE = (
    "Slower or faster means that the rounds do not overlap, and that the medians are more than "
    f"{round(100 * (RATIO_MIN - 1))}\u00a0% apart."
)


def microseconds(value: float) -> str:
    """Return a latency in a suitable unit: ``0.46 µs``, ``4.8 µs``, ``250 µs``, ``2.8 ms``, ``1.2 s``."""
    for unit, scale in (("µs", 1.0), ("ms", 1e3), ("s", 1e6)):
        if value < 999.5 * scale or unit == "s":
            number = value / scale
            digits = 2 if number < 0.995 else 1 if number < 99.5 else 0
            return f"{number:.{digits}f} {unit}"
    raise AssertionError


def rate(value: float) -> str:
    """Return operations a second with separators of thousands."""
    return f"{value:,.0f}"


def percent(share: float | None) -> str:
    """Return a share in percent; empty for ``None``."""
    return "" if share is None else f"{share:.0%}" if share >= 0.0995 else f"{share:.1%}"


def times(ratio: float | None) -> str:
    """Return a ratio as ``5.1×``; empty for ``None``."""
    return "" if ratio is None else f"{ratio:.2f}\u00d7" if ratio < 1.995 else f"{ratio:.1f}\u00d7"


def goal_cells(goal: Goal) -> tuple[str, str, str]:
    """Return the measured value of a goal, the wanted one, and if it is met."""
    wanted = f"{'at least' if goal.is_least else 'at most'} {goal.wanted:,.2f}".removesuffix(".00")
    measured = f"{goal.measured:,.2f}".removesuffix(".00")
    return measured, wanted, "met" if goal.is_met else "missed"


def headline(result: BenchResult) -> str:
    """Return a line that says how the run was measured."""
    settings = result.settings
    quick = ". This is a quick run; decide by a run without --quick" if settings.quick else ""
    return f"Medians of {settings.rounds} interleaved rounds of about {settings.round_ms} ms a case{quick}"


def machine_line(machine: dict[str, Any]) -> str:
    """Return a line that describes the machine."""
    servers = ", ".join(dict.fromkeys(machine["servers"].values()))
    parts = [machine["processor"], f"{machine['cores']} cores", machine["system"], f"Python {machine['python']}"]
    parts += [f"redis-py {machine['redis_py']}"] if servers and machine["redis_py"] else []
    parts += [servers] if servers else []
    return f"{', '.join(filter(None, parts))}; {_pinning(machine)}"


def _pinning(machine: dict[str, Any]) -> str:
    if machine["client_core"] is None:
        return "not pinned to cores"
    if machine["server_core"] is None:
        return f"client pinned to core {machine['client_core']}"
    return f"client pinned to core {machine['client_core']}, server to core {machine['server_core']}"
