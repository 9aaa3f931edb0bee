"""``quota-engine bench``: benchmark the engine on this machine and on a store."""

from __future__ import annotations

__all__ = ["bench"]

import contextlib
import pathlib
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from quota_engine.cli.output import BAD_FINDING, DONE, AsJson, print_json, print_note
from quota_engine.cli.output_files import check_file, write_file
from quota_engine.domain.errors import InvalidRequest

if TYPE_CHECKING:
    from quota_engine.bench.compare import BenchComparison
    from quota_engine.bench.plan import BenchSettings
    from quota_engine.bench.results import BenchResult
    from quota_engine.bench.runner import Progress
    from quota_engine.bench.target_url import BenchTarget

_DEFAULT: Final = ("valkey+embedded://", "memory://")


def bench(
    *,
    backend: tuple[str, ...] = (),
    preset: Literal["", "goals"] = "",
    quick: bool = False,
    case: tuple[str, ...] = (),
    concurrency: tuple[int, ...] = (),
    batch: tuple[int, ...] = (),
    offices: tuple[int, ...] = (),
    reservations: tuple[int, ...] = (),
    rounds: int | None = None,
    round_ms: int | None = None,
    compare: pathlib.Path | None = None,
    report: pathlib.Path | None = None,
    yes_really: bool = False,
    as_json: AsJson = False,
) -> int:
    """Benchmark the engine: reserve, confirm, refusal and availability, each next to two yardsticks.

    One yardstick is the limit of the store. The other is the same work by hand, without the engine. Without options
    the targets are memory and an embedded Valkey in a temporary directory; this takes less than two minutes.

    Exit code 0: done; 1: a regression or a wrong result; 2: bad usage or input; 3: a store cannot be reached.

    Example:  quota-engine bench --quick --backend memory://

    Args:
        backend: URL of a store to load; repeat it for more.
        preset: goals measures the goals of the project, and shows which are met (10 minutes, 2 GB of memory).
        quick: measure for a few seconds, as a first look.
        case: reserve, confirm, refusal, sold-out or availability; repeat it for more. Default: all.
        concurrency: number of concurrent callers, 2 to 5,000; repeat it for more.
        batch: reservations in a batch, 2 to 1,000; repeat it for more.
        offices: offices in the case with several offices, up to 10,000; repeat it for more. 1 leaves the case out.
        reservations: reservations on the day in the case with many, up to 5,000,000; repeat it for more. 0 leaves the
            case out.
        rounds: rounds of each case, 2 to 1,000.
        round_ms: approximate duration of a case in one round, in milliseconds, 1 to 60,000.
        compare: JSON file of an earlier run to compare with.
        report: HTML report to write, one file without external resources.
        yes_really: allow a store on another machine.
        as_json: print the result as JSON, and nothing else.
    """
    from quota_engine.bench import compare as comparing
    from quota_engine.bench.errors import WrongOutcome
    from quota_engine.bench.plan import GOAL_URLS
    from quota_engine.bench.runner import run_bench

    settings = _settings(
        quick,
        preset,
        {
            "actions": case,
            "concurrency": concurrency,
            "batch": batch,
            "offices": offices,
            "reservations": reservations,
            "rounds": rounds,
            "round_ms": round_ms,
        },
    )
    targets = _targets(backend or (GOAL_URLS if preset else _DEFAULT), yes_really)
    check_file(report, "--report", ".html")
    earlier = None
    if compare is not None:
        comparing.check_rounds(settings.rounds, "this run would have")
        earlier = comparing.read_earlier_result(compare)
    started_s = time.perf_counter()
    try:
        with _progress() as progress:
            result = run_bench(targets, settings, progress, print_note)
    except WrongOutcome as error:
        print_note(str(error))
        return BAD_FINDING
    took_s = time.perf_counter() - started_s
    comparison = None if earlier is None else comparing.compare_results(earlier, result)
    _write(result, comparison, as_json, report)
    print_note(f"took {took_s:.0f} s")
    return BAD_FINDING if comparison is not None and comparison.regressions else DONE


def _settings(quick: bool, preset: str, options: dict[str, Any]) -> BenchSettings:
    from quota_engine.bench.plan import ACTIONS, GOALS, QUICK, STANDARD

    if quick and preset:
        raise InvalidRequest("--preset", "given together with --quick", "only one of them")
    for action in options["actions"]:
        if action not in ACTIONS:
            raise InvalidRequest("--case", repr(action), f"one of {', '.join(ACTIONS)}")
    for name, minimum, maximum in (
        ("concurrency", 2, 5_000),
        ("batch", 2, 1_000),
        ("offices", 1, 10_000),
        ("reservations", 0, 5_000_000),
        ("rounds", 2, 1_000),
        ("round_ms", 1, 60_000),
    ):
        given = options[name]
        for value in given if isinstance(given, tuple) else [given]:
            if value is not None and not minimum <= value <= maximum:
                expected = f"an integer from {minimum} to {maximum}"
                raise InvalidRequest(f"--{name.replace('_', '-')}", str(value), expected)
    changes = {
        name: tuple(sorted(set(value))) if isinstance(value, tuple) else value
        for name, value in options.items()
        if value not in (None, ())
    }
    return msgspec.structs.replace(QUICK if quick else GOALS if preset else STANDARD, **changes)


def _targets(urls: Sequence[str], yes_really: bool) -> list[BenchTarget]:
    """Return the stores to load. A store on another machine needs a confirmation, because others may use it."""
    from quota_engine.bench.target_url import check_backend_exists, parse_target

    targets = [parse_target(url) for url in urls]
    for target in targets:
        check_backend_exists(target)
        if target.foreign_hosts and not yes_really:
            raise InvalidRequest(
                "--backend",
                f"{target.label} may be on another machine, and this command puts full load on it",
                "a store on this machine, or --yes-really",
            )
    labels = [target.label for target in targets]
    for label in labels:
        if labels.count(label) > 1:
            raise InvalidRequest("--backend", f"{label} more than once", "each store once")
    return targets


@contextlib.contextmanager
def _progress() -> Iterator[Progress]:
    """Show a progress bar on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda task_name, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    # The bar is drawn between measurements. A refresh thread would disturb them.
    with Bar(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as bar:
        task = bar.add_task("")

        def progress(task_name: str, done: int, total: int) -> None:
            bar.update(task, description=task_name, completed=done, total=total, refresh=True)

        yield progress


def _write(result: BenchResult, comparison: BenchComparison | None, as_json: bool, report: pathlib.Path | None) -> None:
    if report is not None:
        from quota_engine.bench.report import html_report

        write_file(report, html_report(result, comparison))
        print_note(f"wrote {report}")
    from quota_engine.bench.goals import goals_of

    if as_json:
        figures = msgspec.to_builtins(result)
        if result.settings.preset:
            figures["goals"] = msgspec.to_builtins(goals_of(result))
        if comparison is not None:
            figures["comparison"] = {
                **msgspec.to_builtins(comparison),
                "regressions": len(comparison.regressions),
            }
        print_json(figures)
        return
    from rich.console import Console

    from quota_engine.bench.terminal import print_comparison, print_goals, print_result

    console = Console()
    print_result(result, console)
    if result.settings.preset:
        print_goals(goals_of(result), console)
    if comparison is not None:
        print_comparison(comparison, console)
