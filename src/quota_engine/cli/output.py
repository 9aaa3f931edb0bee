"""Exit codes and output that commands share."""

from __future__ import annotations

__all__ = [
    "BAD_FINDING",
    "BAD_INPUT",
    "DONE",
    "UNREACHABLE",
    "AsJson",
    "TimeoutS",
    "print_json",
    "print_note",
    "timeout_ms_of",
]

import sys
from typing import Annotated, Any, Final

import msgspec
from cyclopts import Parameter

from quota_engine.domain.validation import check_integer

DONE: Final = 0
BAD_FINDING: Final = 1
"""The command worked, and its result is bad: an oversell, a failed verification, a regression."""
BAD_INPUT: Final = 2
UNREACHABLE: Final = 3

AsJson = Annotated[bool, Parameter(name="--json")]
"""Type of the option ``--json``."""


TimeoutS = Annotated[int, Parameter(name="--timeout-s")]
"""Type of the option ``--timeout-s``: seconds of the whole command."""
_TIMEOUT_S_MAX: Final = 3_600


def timeout_ms_of(timeout_s: int) -> int:
    """Return a time of 1 to 3600 seconds in milliseconds.

    Raises:
        InvalidRequest: it is another number.
    """
    check_integer(timeout_s, "--timeout-s", 1, _TIMEOUT_S_MAX)
    return timeout_s * 1_000


def print_json(value: Any) -> None:
    """Print a value as indented JSON on standard output. An output that is not in UTF-8 gets escapes."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    if encoding.lower().replace("-", "") != "utf8":
        import json

        text = json.dumps(json.loads(text), indent=2)
    sys.stdout.write(text + "\n")


def print_note(text: str) -> None:
    """Print a line on standard error, which keeps standard output to the result."""
    sys.stderr.write(f"{text}\n")
