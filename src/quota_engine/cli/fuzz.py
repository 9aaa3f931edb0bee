"""``quota-engine fuzz``: seeds of the simulation that breaks clients, network, stores and clocks."""

from __future__ import annotations

__all__ = ["fuzz"]

import pathlib
import subprocess
import sys
from typing import Annotated, Final, Literal

from cyclopts import Parameter

from quota_engine.cli.output import BAD_FINDING, BAD_INPUT, DONE, AsJson, print_json, print_note
from quota_engine.cli.output_files import write_file
from quota_engine.domain.errors import InvalidRequest

StoreOption = Literal["memory", "lua", "sql"]
_SHOWN_MAX: Final = 5
_SHRUNK_MAX: Final = 2


def fuzz(
    *,
    seeds: int = 1000,
    first: Annotated[int, Parameter(name="--from")] = 0,
    seed: int | None = None,
    minutes: float = 0,
    store: StoreOption | None = None,
    workers: int = 1,
    history: pathlib.Path | None = None,
    shrink_runs: int = 200,
    as_json: AsJson = False,
) -> int:
    """Simulate clients, network, store and failover from seeds, and check every step.

    A failing seed is printed with the commit and the smallest schedule that still fails. The extra 'fuzz' is needed.
    Exit code 0: no violation; 1: a violation; 2: bad usage.

    Example:  quota-engine fuzz --seeds 200 --store memory

    Args:
        seeds: number of seeds.
        first: the first seed.
        seed: run only this seed, and print its calls and events.
        minutes: end after this time; 0 for no end.
        store: the store of all seeds. Default: each seed chooses.
        workers: number of processes that run seeds; the number of cores is a good choice.
        history: with --seed, write its calls and events to this file, for quota-engine audit --history.
        shrink_runs: the most runs of the search for the smallest schedule of a failing seed; 0 for no search.
        as_json: print the result as JSON, and nothing else.
    """
    try:
        from quota_engine.fuzz.campaign import run_campaign
        from quota_engine.fuzz.runner import SeedReport
        from quota_engine.fuzz.shrinking import shrink
    except ImportError as error:
        print_note(f"quota-engine: the simulation needs {error.name}: pip install 'quota-engine[fuzz]'")
        return BAD_INPUT

    if history is not None and seed is None:
        raise InvalidRequest("history", "a file without --seed", "--seed as well: the file has the history of one seed")

    def show(report: SeedReport) -> None:
        if history is not None:
            write_file(history, "".join(f"{line}\n" for line in report.history))
        if seed is not None and not as_json:
            sys.stdout.writelines(f"{line}\n" for line in report.lines)

    chosen = range(first, first + seeds) if seed is None else (seed,)
    result = run_campaign(
        chosen,
        store=store or "",
        minutes=minutes,
        on_report=show,
        keeps_history=seed is not None,
        workers=workers if seed is None else 1,
    )
    failing_seeds = list(result.violations)[: _SHRUNK_MAX if shrink_runs else 0]
    smallest = {one: shrink(one, store=store or "", runs_max=shrink_runs) for one in failing_seeds}
    if as_json:
        print_json(
            {
                "seeds": result.seeds,
                "operations": result.operations,
                "calls": result.calls,
                "faults": result.faults,
                "violations": result.violations,
                "ops_per_s": result.ops_per_s,
                "processor_s": result.processor_s,
                "elapsed_s": result.elapsed_s,
                "stores": result.stores,
                "operations_of": result.operations_of,
                "ops_per_s_of": result.ops_per_s_of,
                "smallest": smallest,
                "commit": _commit(),
            }
        )
        return BAD_FINDING if result.violations else DONE
    for failing, schedule in smallest.items():
        sys.stdout.write(f"seed {failing} fails at commit {_commit()}:\n")
        sys.stdout.writelines(f"  {text}\n" for text in schedule.violations[:_SHOWN_MAX])
        sys.stdout.write(f"  it needs {len(schedule.only)} operations, and not: {', '.join(schedule.without)}\n")
        sys.stdout.writelines(f"    {text}\n" for text in schedule.operations)
    sys.stdout.write(
        f"{result.seeds} seeds, {result.operations} operations, {sum(result.faults.values())} faults of "
        f"{len(result.faults)} kinds, {len(result.violations)} seeds with violations, "
        f"{result.ops_per_s} operations a second of processor time\n"
    )
    return BAD_FINDING if result.violations else DONE


def _commit() -> str:
    """Return the commit of the source tree, or ``unknown`` outside of one."""
    folder = pathlib.Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return "unknown"
    return found.stdout.strip() or "unknown"
