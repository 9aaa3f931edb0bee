"""Worker processes of a benchmark that start their work together."""

from __future__ import annotations

__all__ = ["run_workers"]

import subprocess
from collections.abc import Sequence


def run_workers(commands: Sequence[Sequence[str]]) -> int:
    """Run processes, and return the sum of the numbers that they print.

    Each process prints a line when it is ready, waits for a line, works, and prints its number.

    Args:
        commands: The command of each process.
    """
    workers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
        for command in commands
    ]
    for worker in workers:
        assert worker.stdout is not None
        worker.stdout.readline()
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    return sum(int(worker.communicate()[0]) for worker in workers)
