"""Commands as Python source, to paste a failed walk into a test, and a shrinker for walks."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable

import msgspec

from quota_engine.domain.commands import Command

Step = tuple[int, Command]
"""The time of a command in milliseconds, and the command."""


def as_source(value: object) -> str:
    """Return the expression that creates ``value``. Fields with their default value are omitted."""
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, tuple):
        inner = ", ".join(map(as_source, value))
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, msgspec.Struct):
        fields = [
            f"{field.name}={as_source(getattr(value, field.name))}"
            for field in msgspec.structs.fields(value)
            if field.default is msgspec.NODEFAULT or getattr(value, field.name) != field.default
        ]
        return f"{type(value).__name__}({', '.join(fields)})"
    return repr(value)


def format_steps(steps: Iterable[Step]) -> str:
    """Return a test that repeats these steps with ``oracle_comparison.check_steps``."""
    lines = [f"            ({now_ms}, {as_source(command)})," for now_ms, command in steps]
    return "\n".join(["", "def test_replay() -> None:", "    check_steps(", "        [", *lines, "        ]", "    )"])


def shrink(steps: list[Step], fails: Callable[[list[Step]], bool]) -> list[Step]:
    """Return a subset of the steps that fails, and that does not fail without any one of them."""
    size = max(len(steps) // 2, 1)
    while True:
        start = 0
        before = len(steps)
        while start < len(steps):
            fewer = steps[:start] + steps[start + size :]
            if fails(fewer):
                steps = fewer
            else:
                start += size
        if size == 1 and len(steps) == before:
            return steps
        size = max(size // 2, 1)
