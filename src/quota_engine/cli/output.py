"""Exit codes and output that commands share."""

from __future__ import annotations

__all__ = ["BAD_FINDING", "BAD_INPUT", "DONE", "UNREACHABLE", "AsJson", "print_json", "print_note"]

import sys
from typing import Annotated, Any, Final

import msgspec
from cyclopts import Parameter

DONE: Final = 0
BAD_FINDING: Final = 1
"""The command worked, and its result is bad: an oversell, a failed verification, a regression."""
BAD_INPUT: Final = 2
UNREACHABLE: Final = 3

AsJson = Annotated[bool, Parameter(name="--json")]
"""Type of the option ``--json``."""


def print_json(value: Any) -> None:
    """Print a value as indented JSON on standard output."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def print_note(text: str) -> None:
    """Print a line on standard error, which keeps standard output to the result."""
    sys.stderr.write(f"{text}\n")
