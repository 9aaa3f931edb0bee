"""The command line ``quota-engine COMMAND``. It needs the extra ``cli`` (cyclopts and rich), imported when it runs."""

from __future__ import annotations

__all__ = ["COMMANDS", "command_app", "main"]

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from quota_engine.domain.errors import BackendUnavailable, JobTimeout, OutcomeUnknown, QuotaEngineError

if TYPE_CHECKING:
    from cyclopts import App

COMMANDS: Final = {
    "simulate": ("quota_engine.cli.simulate:simulate", "Simulate an opening against the real engine."),
    "bench": ("quota_engine.cli.bench:bench", "Benchmark the engine on this machine and on a store."),
    "draw": ("quota_engine.cli.draw:app", "Prepare, run and verify a draw on files."),
    "room": ("quota_engine.cli.room:app", "Verify the transcript of a waiting room, or control it."),
    "loadtest": ("quota_engine.cli.loadtest:app", "Replay openings against a staging service."),
    "serve": ("quota_engine.cli.serve:serve", "Serve bookings over HTTP."),
    "day": ("quota_engine.cli.day:app", "Close a day and move its people to other days."),
    "reservation": ("quota_engine.cli.reservation:app", "Show and change a single reservation."),
    "status": ("quota_engine.cli.status:status", "Show the counters of a store by office and day."),
    "store": ("quota_engine.cli.store:app", "Make, show and vacuum the tables of a PostgreSQL store."),
    "watch": ("quota_engine.cli.watch:watch", "Show counters, waiting rooms and draws, and refresh them."),
    "audit": ("quota_engine.cli.audit:audit", "Recompute the counters of a store, and report differences."),
    "catalog": ("quota_engine.cli.catalog:app", "Check a catalog file, compare two catalogs, and show offices."),
}
"""Each command's implementation (a function, or an app with its own commands) and its line in the overview."""

_DONE, _BAD_INPUT, _UNREACHABLE, _INTERRUPTED, _PIPE_CLOSED = 0, 2, 3, 130, 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Errors go to standard error, one line each."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words == ["--version"]:
        import importlib.metadata

        sys.stdout.write(f"quota-engine {importlib.metadata.version('quota-engine')}\n")
        return _DONE
    try:
        import cyclopts
        import rich.console
    except ImportError as error:
        _print_error(f"the command line needs {error.name}, of the extra 'cli': pip install 'quota-engine[cli]'")
        return _BAD_INPUT
    try:
        code = command_app(words)(
            words,
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
            error_console=rich.console.Console(stderr=True),
        )
        sys.stdout.flush()
    except cyclopts.CycloptsError as error:
        command = f"{words[0]} " if words and words[0] in COMMANDS else ""
        # A usage error repeats the words of the caller. One of them may be an identity, although none belongs there.
        _print_error(f"{_without_numbers(str(error))}\nTry  quota-engine {command}--help")
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
    except BrokenPipeError:
        _drop_output()  # The reader of a pipe has closed it.
        return _PIPE_CLOSED
    except OSError as error:
        if error.filename is None:  # The output cannot be written.
            _drop_output()
        _print_error(f"{error.filename or 'the output'} cannot be written: {error.strerror}")
        return _BAD_INPUT
    return code if isinstance(code, int) else _DONE


def command_app(words: Sequence[str]) -> App:
    """Return the app of the command line. ``words``: those of the call; a command that is not one is not imported."""
    from cyclopts import App, Parameter

    app = App(
        name="quota-engine",
        help="Reserve scarce places fairly and exactly when far more people than places arrive at once.",
        version_flags=(),
        default_parameter=Parameter(negative=(), show_default=False),
    )
    for name, (target, overview) in COMMANDS.items():
        # The overview has its own lines, so that it does not import the commands. A command's help is its docstring.
        app.command(target, name=name, help=None if name in words else overview)
    return app


def _without_numbers(text: str) -> str:
    """Return a text without numbers as long as an identity's, also with separators between their digits."""
    import re

    return re.sub(r"\d(?:[ .\-]?\d){7,}", "(not shown)", text)


def _drop_output() -> None:
    """Redirect standard output, so that the buffer is not written again at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_error(text: str) -> None:
    for line in text.splitlines():
        sys.stderr.write(f"quota-engine: {line}\n")
