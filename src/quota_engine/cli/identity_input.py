"""Identities for a command, from standard input or a prompt without echo. They are in no argument and no output."""

from __future__ import annotations

__all__ = ["read_identities"]

import sys
from collections.abc import Sequence
from typing import Final

from quota_engine.domain.errors import InvalidRequest

_LINE_MAX: Final = 256


def read_identities(whose: Sequence[str]) -> list[str]:
    """Return one identity for each of ``whose``: one a line of standard input, or typed at a prompt on a terminal.

    Args:
        whose: whose identities, for prompts and errors, such as ``"the member who leaves"``.

    Raises:
        InvalidRequest: there are fewer or more lines, or one is empty, too long, or not UTF-8. It shows no identity.
    """
    if not whose:
        return []
    expected = f"{len(whose)} line{'' if len(whose) == 1 else 's'}: the identity of {', then of '.join(whose)}"
    if sys.stdin is None:
        raise InvalidRequest("standard input", "closed", expected)
    if sys.stdin.isatty():
        lines = _prompt(whose)
    else:
        try:
            lines = sys.stdin.read().splitlines()
        except UnicodeDecodeError:
            raise InvalidRequest("standard input", "not text in UTF-8", expected) from None
    lines = [line.strip() for line in lines if line.strip()]
    if len(lines) != len(whose) or any(len(line) > _LINE_MAX for line in lines):
        problem = "a line is too long" if len(lines) == len(whose) else f"{len(lines)} lines with text"
        raise InvalidRequest("standard input", problem, expected)
    return lines


def _prompt(whose: Sequence[str]) -> list[str]:
    import getpass

    try:
        return [getpass.getpass(f"Identity of {one} (not shown): ", stream=sys.stderr) for one in whose]
    except EOFError:
        return []
