"""The command line ``quota-engine COMMAND``. It needs the extra ``cli`` (cyclopts and rich), imported when it runs."""

from __future__ import annotations

__all__ = ["COMMANDS", "command_app", "main"]

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Final

    from cyclopts import App, CycloptsError

# The overview and the version need no other module: they answer in little more than Python's own time.
COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "simulate": ("quota_engine.cli.simulate:simulate", "Simulate an opening against the real engine."),
    "bench": ("quota_engine.cli.bench:bench", "Benchmark the engine on this machine and on a store."),
    "draw": ("quota_engine.cli.draw:app", "Prepare, run and verify a draw on files."),
    "room": ("quota_engine.cli.room:app", "Verify the transcript of a waiting room, or control it."),
    "loadtest": ("quota_engine.cli.loadtest:app", "Replay openings against a staging service."),
    "sizing": ("quota_engine.cli.sizing:sizing", "Compute memory and cores of store and service."),
    "serve": ("quota_engine.cli.serve:serve", "Serve bookings over HTTP."),
    "init": ("quota_engine.cli.init:init", "Ask five questions, and write a catalog and a configuration."),
    "day": ("quota_engine.cli.day:app", "Close a day and move its people to other days."),
    "reservation": ("quota_engine.cli.reservation:app", "Show and change a single reservation."),
    "status": ("quota_engine.cli.status:status", "Show the counters of a store by office and day."),
    "store": (
        "quota_engine.cli.store:app",
        "Make the tables of a PostgreSQL store, and compare keys.",
    ),
    "watch": ("quota_engine.cli.watch:watch", "Show counters, waiting rooms and draws, and refresh them."),
    "audit": ("quota_engine.cli.audit:audit", "Recompute the counters of a store, and report differences."),
    "fuzz": ("quota_engine.cli.fuzz:fuzz", "Simulate faults of clients, network and stores from seeds."),
    "doctor": ("quota_engine.cli.doctor:doctor", "Find what is wrong on this machine, and how to repair it."),
    "completion": ("quota_engine.cli.completion:completion", "Print the completion script of a shell."),
    "manual": ("quota_engine.cli.manual:manual", "Print the manual page of all commands, for man."),
    "catalog": ("quota_engine.cli.catalog:app", "Check a catalog file, compare two catalogs, and show offices."),
}
"""Each command's implementation (a function, or an app with its own commands) and its line in the overview."""

_OVERVIEW_HEAD = """Usage: quota-engine COMMAND ...

Reserve scarce places fairly and exactly when far more people than places
arrive at once.

Commands:
"""
_OVERVIEW_END = """
Examples:
  quota-engine simulate                         an opening, in this process
  quota-engine serve                            the service, with a local store
  quota-engine catalog check my-catalog.toml    every error of a catalog
  quota-engine doctor                           what is wrong on this machine

"quota-engine COMMAND --help" explains a command and its options.
"""
_HELP_WORDS: Final[tuple[list[str], ...]] = ([], ["--help"], ["-h"], ["help"])
_DONE, _BAD_INPUT, _UNREACHABLE, _INTERRUPTED, _PIPE_CLOSED = 0, 2, 3, 130, 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Errors go to standard error, one line each."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    _allow_any_character()
    try:
        if words == ["--version"]:
            sys.stdout.write(f"quota-engine {_version()}\n")
            sys.stdout.flush()
            return _DONE
        if words in _HELP_WORDS:
            lines = (f"  {name:<12} {overview}\n" for name, (_, overview) in COMMANDS.items())
            sys.stdout.write(f"{_OVERVIEW_HEAD}{''.join(lines)}{_OVERVIEW_END}")
            sys.stdout.flush()
            return _DONE
        if text := _help_of_command(words):
            sys.stdout.write(text)
            sys.stdout.flush()
            return _DONE
    except OSError as error:
        return _output_failed(error)
    return _run(words)


def _help_of_command(words: list[str]) -> str:
    """Return the help that the words request; an empty text if they request none, or if it cannot be read."""
    target, _ = COMMANDS.get(words[0], ("", ""))
    is_group = target.endswith(":app")
    options = words[: words.index("--")] if "--" in words else words
    if not target or not ("--help" in options or "-h" in options or (is_group and len(words) == 1)):
        return ""
    from quota_engine.cli.help_pages import GroupHelp, read_help, render_help

    try:
        found = read_help(target, words[1:])
    except (AttributeError, LookupError, OSError, ValueError):  # such as a package without its sources
        return ""
    names = words[:1] if isinstance(found, GroupHelp) or not is_group else words[:2]
    return render_help(" ".join(["quota-engine", *names]), found)


def _run(words: list[str]) -> int:
    from quota_engine.domain.errors import BackendUnavailable, JobTimeout, OutcomeUnknown, QuotaEngineError

    try:
        import cyclopts
    except ImportError as error:
        _print_error(f"the command line needs {error.name}, of the extra 'cli': pip install 'quota-engine[cli]'")
        return _BAD_INPUT
    try:
        # Without an error console: cyclopts prints nothing, and to import rich takes as long as a short command.
        code = command_app(words)(
            words,
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
        sys.stdout.flush()
    except cyclopts.CycloptsError as error:
        command = "".join(f"{word} " for word in error.command_chain or ())
        # A usage error repeats the words of the caller. One of them may be an identity, although none belongs there.
        _print_error(f"{_without_numbers(_usage_text(error))}\nTry  quota-engine {command}--help")
        return _BAD_INPUT
    except (BackendUnavailable, JobTimeout, OutcomeUnknown) as error:
        _print_error(str(error))
        return _UNREACHABLE
    except QuotaEngineError as error:
        _print_error(str(error))
        return _BAD_INPUT
    except KeyboardInterrupt:
        _print_error("interrupted")
        return _INTERRUPTED
    except OSError as error:
        return _output_failed(error)
    return code if isinstance(code, int) else _DONE


def command_app(words: Sequence[str] = ()) -> App:
    """Return the command line with all commands.

    Args:
        words: the words of the call. The command that they name is imported for its help; no other one is.
    """
    from cyclopts import App, Parameter

    app = App(
        name="quota-engine",
        help="Reserve scarce places fairly and exactly when far more people than places arrive at once.",
        version_flags=(),
        default_parameter=Parameter(negative=(), show_default=_shown_default, converter=_convert),
    )
    for name, (target, overview) in COMMANDS.items():
        # The overview has its own lines, so that it does not import the commands. A command's help is its docstring.
        app.command(target, name=name, help=None if name in words else overview)
    return app


def _shown_default(value: Any) -> str | None:
    """Return a default as help shows it, or ``None`` for one that only means "not given"."""
    is_shown = not isinstance(value, bool) and value not in (None, "", (), 0) and str(value) != "."
    return str(value) if is_shown else None


def _convert(type_: Any, tokens: Sequence[Any]) -> Any:
    """Convert the words of an option. An integer is digits only: cyclopts would round 1.5 to 2."""
    import cyclopts

    kinds = set(_types_in(type_))
    if int in kinds and not {float, str} & kinds:
        for token in tokens:
            digits = token.value.removeprefix("-").removeprefix("+")
            if not (digits.isascii() and digits.isdigit()):
                raise ValueError(f"{token.value[:40]!r} is no integer; expected digits, such as 7")
    return cyclopts.convert(type_, tokens)


def _types_in(type_: Any) -> list[Any]:
    from typing import get_args

    return [type_, *(found for part in get_args(type_) for found in _types_in(part))]


def _version() -> str:
    """Return the version of the installed package, from the name of its metadata folder if there is one."""
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")  # noqa: PTH208 - pathlib takes longer than all else here
        except OSError:
            continue
        for name in names:
            if name.startswith("quota_engine-") and name.endswith(".dist-info"):
                return name.removeprefix("quota_engine-").removesuffix(".dist-info")
    from importlib.metadata import version

    return version("quota-engine")


def _allow_any_character() -> None:
    """Let output streams of any encoding write every character: a question mark in place of one that they lack."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None and getattr(stream, "errors", "") == "strict":
            reconfigure(errors="replace")


def _output_failed(error: OSError) -> int:
    """Report an output that cannot be written. A reader that has closed a pipe is not an error."""
    if isinstance(error, BrokenPipeError):
        _drop_output()
        return _PIPE_CLOSED
    if error.filename is None:  # The output cannot be written.
        _drop_output()
    _print_error(f"{error.filename or 'the output'} cannot be written: {error.strerror}")
    return _BAD_INPUT


def _usage_text(error: CycloptsError) -> str:
    """Return the text of a usage error in the form of all other errors: what is wrong, and what is right."""
    from cyclopts import MissingArgumentError, UnusedCliTokensError

    if isinstance(error, UnusedCliTokensError):
        given = ", ".join(repr(token[:40]) for token in error.unused_tokens or ())
        return f"{given}: more words than the command takes; expected options, or nothing"
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        return f"{error.argument.name}: missing; expected a value"
    # The library also lists the empty default among the choices.
    return str(error).replace('Choose from: "", ', "Choose from: ")


def _without_numbers(text: str) -> str:
    """Return a text without numbers as long as an identity's, also with separators between their digits."""
    import re

    return re.sub(r"\d(?:[ .\-]?\d){7,}", "(not shown)", text)


def _drop_output() -> None:
    """Redirect standard output, so that the buffer is not written again at exit."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return


def _print_error(text: str) -> None:
    for line in text.splitlines():
        sys.stderr.write(f"quota-engine: {line}\n")
