"""The command line: ``quota-engine COMMAND``. It needs the extra ``cli`` (cyclopts and rich), imported when it runs."""

from __future__ import annotations

__all__ = ["COMMANDS", "main"]

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown, QuotaEngineError

if TYPE_CHECKING:
    from cyclopts import App

COMMANDS: Final = {
    "simulate": ("quota_engine.cli.simulate:simulate", "Replay an opening against the real engine."),
    "bench": ("quota_engine.cli.bench:bench", "Measure the engine on this machine and on your store."),
    "draw": ("quota_engine.cli.draw:app", "Prepare a draw, carry it out on files, and check one."),
    "room": ("quota_engine.cli.room:app", "Check the record of a waiting room, or give it orders."),
    "loadtest": ("quota_engine.cli.loadtest:app", "Replay openings against a staging service."),
    "serve": ("quota_engine.cli.serve:serve", "Serve bookings over HTTP."),
    "status": (
        "quota_engine.cli.status:status",
        "Show what a store holds, by office and day.",
    ),
    "watch": (
        "quota_engine.cli.watch:watch",
        "The same, waiting rooms and draws, of a store or service, kept up to date.",
    ),
    "audit": ("quota_engine.cli.status:audit", "Work a store's counters out again, and say what differs."),
    "catalog": ("quota_engine.cli.catalog:app", "Check a catalog file, and show what a catalog offers."),
}
"""Command to what carries it out (a function, or an app with commands of its own) and the line of the overview."""

_DONE, _BAD_INPUT, _UNREACHABLE, _INTERRUPTED, _PIPE_CLOSED = 0, 2, 3, 130, 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; errors go to standard error, in a line each."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words == ["--version"]:
        import importlib.metadata

        sys.stdout.write(f"quota-engine {importlib.metadata.version('quota-engine')}\n")
        return _DONE
    try:
        import cyclopts
        import rich.console
    except ImportError as error:
        _complain(
            f"the command line needs {error.name}, of the extra 'cli': install it with  pip install 'quota-engine[cli]'"
        )
        return _BAD_INPUT
    try:
        code = _app(words)(
            words,
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
            error_console=rich.console.Console(stderr=True),
        )
        sys.stdout.flush()
    except cyclopts.CycloptsError as error:
        command = f"{words[0]} " if words and words[0] in COMMANDS else ""
        _complain(f"{error}\nTry  quota-engine {command}--help")
        return _BAD_INPUT
    except (BackendUnavailable, OutcomeUnknown) as error:
        _complain(str(error))
        return _UNREACHABLE
    except QuotaEngineError as error:
        _complain(str(error))
        return _BAD_INPUT
    except KeyboardInterrupt:
        _complain("interrupted")
        return _INTERRUPTED
    except BrokenPipeError:
        _drop_output()  # whoever read it has had enough
        return _PIPE_CLOSED
    except OSError as error:
        if error.filename is None:  # it is the output that can not be written
            _drop_output()
        _complain(f"{error.filename or 'the output'} can not be written: {error.strerror}")
        return _BAD_INPUT
    return code if isinstance(code, int) else _DONE


def _app(words: Sequence[str]) -> App:
    from cyclopts import App, Parameter

    app = App(
        name="quota-engine",
        help="Reserve scarce places fairly and exactly when far more people than places arrive at once.",
        version_flags=(),
        default_parameter=Parameter(negative=(), show_default=False),
    )
    for name, (target, overview) in COMMANDS.items():
        # The overview has its own line for each, so that it need not import them; a command that is run says more.
        app.command(target, name=name, help=None if name in words else overview)
    return app


def _drop_output() -> None:
    """What is left in the buffer has nowhere to go, and must not be tried again at the exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(text: str) -> None:
    for line in text.splitlines():
        sys.stderr.write(f"quota-engine: {line}\n")
