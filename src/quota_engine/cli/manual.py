"""``quota-engine manual``: the manual page of all commands, from the same texts as ``--help``."""

from __future__ import annotations

__all__ = ["manual"]

import inspect
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from quota_engine.cli.output import DONE

if TYPE_CHECKING:
    from cyclopts import App

_EXIT_STATUS: Final = (
    ("0", "Done."),
    ("1", "The command worked, and its result is bad: an oversell, a refusal, a failed verification."),
    ("2", "Bad usage or input."),
    ("3", "A store or service cannot be reached, or the time of the command is over."),
)
_ENVIRONMENT: Final = (
    ("QUOTA_ENGINE_BACKEND", "URL of the store, for commands that are given none."),
    ("QUOTA_ENGINE_CATALOG", "Catalog of the store: a file, or a built-in one."),
    ("QUOTA_ENGINE_IDENTITY_KEY", "Identity key of the store, in base64."),
    ("QUOTA_ENGINE_TOKEN", "Token for a service."),
    ("COLUMNS", "Width of tables and help."),
)


def manual() -> int:
    """Print the manual page of all commands, for ``man``.

    Example:  quota-engine manual > ~/.local/share/man/man1/quota-engine.1
    """
    from importlib.metadata import version

    from quota_engine.cli.main import COMMANDS, command_app

    app = command_app(tuple(COMMANDS))
    lines = [
        f'.TH QUOTA-ENGINE 1 "" "quota-engine {version("quota-engine")}" "User Commands"',
        ".SH NAME",
        r"quota-engine \- reserve scarce places fairly and exactly",
        ".SH SYNOPSIS",
        r".B quota\-engine",
        "COMMAND ...",
        ".SH DESCRIPTION",
        _roff(str(app.help)),
        ".SH COMMANDS",
    ]
    for name in COMMANDS:
        children = [child for child in app[name] if not child.startswith("-")]
        for child in children or [""]:
            lines += _command_lines(f"{name} {child}".strip(), app[name][child] if child else app[name])
    for title, rows in (("EXIT STATUS", _EXIT_STATUS), ("ENVIRONMENT", _ENVIRONMENT)):
        lines.append(f".SH {title}")
        for term, text in rows:
            lines += [".TP", f".B {_roff(term)}", _roff(text)]
    sys.stdout.write("\n".join(lines) + "\n")
    return DONE


def _command_lines(words: str, command: App) -> Iterator[str]:
    """Yield the lines about one command: its text, its example, its arguments and options."""
    yield f'.SS "{_roff(words)}"'
    text = inspect.getdoc(command.default_command) or ""
    for paragraph in text.partition("\nArgs:\n")[0].strip().split("\n\n"):
        yield from (".PP", _roff(" ".join(paragraph.split())))
    for argument in command.assemble_argument_collection(parse_docstring=True):
        if argument.show:
            yield from (".TP", f".B {_roff(argument.name)}", _roff(" ".join((argument.parameter.help or "").split())))


def _roff(text: str) -> str:
    """Return a text without the characters and double backticks that have a meaning in a manual page."""
    escaped = text.replace("``", "").replace("\\", r"\e").replace("-", r"\-")
    escaped = "".join(one if one.isascii() else rf"\[u{ord(one):04X}]" for one in escaped)
    return rf"\&{escaped}" if escaped.startswith((".", "'")) else escaped
