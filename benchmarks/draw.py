"""Measure time and memory of a draw on files: ``python -m benchmarks.draw``.

The input is generated and not measured: applications of one to three people, who rank sessions of some office-days.
There are ten times as many people as places. Then ``quota-engine draw run`` and ``draw verify`` run in separate
processes. The output is their elapsed time and their peak memory.
"""

from __future__ import annotations

__all__ = ["main"]

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from quota_engine.domain.model import Choice
from quota_engine.draws.files import json_of_capacities, line_of_application
from quota_engine.draws.lottery import Application, Capacities, Preference

FIRST_DAY = 739_951
SESSIONS = ("morning", "afternoon")
TIME_S_MAX, MEMORY_MIB_MAX = 60.0, 2048.0
"""The goals for a million applications with five choices."""


def write_files(folder: Path, applications: int, choices: int) -> None:
    """Write a draw with ten times as many applicants as places."""
    random = Random(2020)
    days = [(f"office-{index % 125:03d}", FIRST_DAY + index // 125) for index in range(125 * 22)]
    units = max(2, applications * 5 // 3 // 10 // len(days))
    wishes = {
        f"{office}-{day}-{session}": Preference(
            office, day, Choice("new", "", session, "online", "", (("online", session),))
        )
        for office, day in days
        for session in SESSIONS
    }
    quotas = {"online": units, **dict.fromkeys(SESSIONS, units // 2 + 1)}
    capacities = Capacities("benchmark", dict.fromkeys(days, quotas), wishes)
    (folder / "capacities.json").write_bytes(json_of_capacities(capacities))
    (folder / "seed").write_text("5eed" * 16 + "\n")
    names = list(wishes)
    with (folder / "applications.jsonl").open("wb") as stream:
        for number in range(1, applications + 1):
            party = tuple(
                hashlib.blake2b(b"%d.%d" % (number, index), digest_size=16).hexdigest()
                for index in range(random.choice((1, 1, 3)))
            )
            stream.write(line_of_application(Application(number, party, tuple(random.sample(names, choices)))))


def measured(*words: str | Path) -> tuple[float, float, dict[str, object]]:
    """Run a command, and return its elapsed seconds, its peak memory in MiB, and its output."""
    code = "import sys; from quota_engine.cli.main import main; sys.exit(main(sys.argv[1:]))"
    started_s = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", code, "draw", *map(str, words), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    if process.returncode:
        raise SystemExit(f"draw {words[0]} ended with {process.returncode}")
    return time.perf_counter() - started_s, usage.ru_maxrss / 1024, json.loads(printed)


def main() -> None:
    """Make the files, run both commands, and say whether the goals are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--applications", type=int, default=1_000_000)
    parser.add_argument("--choices", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder, options.applications, options.choices)
        inputs = ("--capacities", folder / "capacities.json")
        applications, result = folder / "applications.jsonl", folder / "result.jsonl"
        run = measured("run", applications, *inputs, "--seed-file", folder / "seed", "--out", result)
        verify = measured("verify", result, "--applications", applications, *inputs)
        print(f"{options.applications:,} applications with {options.choices} choices; {run[2]['winners']:,} win")
        for command, (took_s, memory_mib, _) in (("draw run", run), ("draw verify", verify)):
            print(f"{command:12} {took_s:6.1f} s {memory_mib:8.0f} MiB")
        if (options.applications, options.choices) == (1_000_000, 5):
            met = run[0] <= TIME_S_MAX and run[1] <= MEMORY_MIB_MAX
            print(f"goal of draw run: {TIME_S_MAX:.0f} s and {MEMORY_MIB_MAX:.0f} MiB: {'met' if met else 'MISSED'}")


if __name__ == "__main__":
    main()
