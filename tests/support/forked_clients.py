"""Client processes that are forked from one process, so that modules are imported once and not in each of them."""

from __future__ import annotations

__all__ = ["ForkedClients", "run_forked_clients", "wait_for_start"]

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

from tests.support.paths import ROOT

_READY: Final = "here\n"
_FAILED: Final = 1


class ForkedClients:
    """Processes of a program that calls :func:`run_forked_clients`. They end with the ``with`` block in any case."""

    def __init__(self, program: str, arguments: Sequence[Sequence[str]]) -> None:
        """Start them.

        Args:
            program: The name of the module.
            arguments: The arguments of each process.
        """
        self._number = len(arguments)
        self._process = subprocess.Popen(
            [sys.executable, "-m", program, json.dumps(arguments)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # one signal ends the group
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Let them all go at once, when all are there."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        for _ in range(self._number):
            assert self._process.stdout.readline() == _READY, self._process.communicate()[1]
        self._process.stdin.write("." * self._number)
        self._process.stdin.flush()

    def finish(self, timeout_s: float) -> None:
        """Wait until all have ended by themselves, without an error."""
        _, errors = self._process.communicate(timeout=timeout_s)
        assert (self._process.returncode, errors) == (0, "")

    def kill(self) -> None:
        """SIGKILL for all."""
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()


def run_forked_clients(run: Callable[..., None]) -> None:
    """Run the function in a process for each list of arguments on the command line, and exit when all have ended."""
    clients = [_fork(run, arguments) for arguments in json.loads(sys.argv[1])]
    statuses = [os.waitpid(client, 0)[1] for client in clients]
    raise SystemExit(_FAILED if any(statuses) else 0)


def _fork(run: Callable[..., None], arguments: Sequence[str]) -> int:
    client = os.fork()
    if client:
        return client
    try:
        run(*arguments)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(_FAILED)
    os._exit(0)


def wait_for_start() -> None:
    """Report in a client that it is ready, and wait for :meth:`ForkedClients.start`."""
    os.write(1, _READY.encode())
    assert os.read(0, 1), "the process that started it has ended"
