"""Commands as Python source: what a failed property prints can be pasted into a test. And fewer of them."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable

import msgspec

from quota_engine.domain.commands import Command

Step = tuple[int, Command]
"""The time of a command in milliseconds, and the command."""


def as_source(value: object) -> str:
    """The expression that makes ``value``. Fields that have their default are left out."""
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
    """A test that takes these steps again, with ``side_by_side.check_steps``."""
    lines = [f"            ({now_ms}, {as_source(command)})," for now_ms, command in steps]
    return "\n".join(["", "def test_replay() -> None:", "    check_steps(", "        [", *lines, "        ]", "    )"])


def shortest(steps: list[Step], fails: Callable[[list[Step]], bool]) -> list[Step]:
    """A part of the steps that still fails, and no longer does if any one step is left out."""
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
