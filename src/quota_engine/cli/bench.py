"""``quota-engine bench``: measure the engine on this machine and on a store of one's own."""

from __future__ import annotations

__all__ = ["bench"]

import contextlib
import pathlib
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
from cyclopts import Parameter

from quota_engine.cli.output_files import check_file, write_file
from quota_engine.domain.errors import InvalidRequest

if TYPE_CHECKING:
    from quota_engine.bench.compare import BenchComparison
    from quota_engine.bench.plan import BenchSettings
    from quota_engine.bench.results import BenchResult
    from quota_engine.bench.runner import Progress
    from quota_engine.bench.target_url import BenchTarget

_DONE, _BAD_FINDING = 0, 1
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
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Measure the engine here: reserve, confirm, refusal and availability, beside two yardsticks.

    The limit is what the store can do at all, by hand is what one would write without the engine. Without options: an
    embedded Valkey in a directory of its own, which is removed afterwards, and memory; less than two minutes.

    Args:
        backend: the URL of a store to load; give it again for more than one.
        preset: goals measures what the project holds the engine to (10 minutes, 2 GB), and says which goals are met.
        quick: a few seconds, for a first look.
        case: only reserve, confirm, refusal, sold-out or availability; again for more than one.
        concurrency: how many call at once; again for more than one.
        batch: how many reservations go in one batch; again for more than one.
        offices: how many offices the case with several has; again for more than one, 1 leaves it out.
        reservations: how many stand on the day already in the case with many; again for more than one, 0 leaves it out.
        rounds: how often each case is measured.
        round_ms: about how long each case takes in a round, in milliseconds.
        compare: a JSON file of an earlier run; exit code 1 if the engine is slower now.
        report: write an HTML report with plots, one file that needs no network.
        yes_really: load a store on another machine too.
        as_json: print the result as JSON, and nothing else.
    """
    from quota_engine.bench import compare as comparing
    from quota_engine.bench.plan import GOAL_URLS
    from quota_engine.bench.runner import run_bench
    from quota_engine.bench.workload import WrongOutcome

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
    old = None
    if compare is not None:
        comparing.check_rounds(settings.rounds, "this run would have")
        old = comparing.read_earlier_result(compare)
    started_s = time.perf_counter()
    try:
        with _progress() as progress:
            result = run_bench(targets, settings, progress, _tell)
    except WrongOutcome as error:
        _tell(str(error))
        return _BAD_FINDING
    took_s = time.perf_counter() - started_s
    comparison = None if old is None else comparing.compare_results(old, result)
    _write(result, comparison, as_json, report)
    _tell(f"took {took_s:.0f} s")
    return _BAD_FINDING if comparison is not None and comparison.regressions else _DONE


def _settings(quick: bool, preset: str, options: dict[str, Any]) -> BenchSettings:
    from quota_engine.bench.plan import ACTIONS, GOALS, QUICK, STANDARD

    if quick and preset:
        raise InvalidRequest("--preset", "together with --quick", "one of the two")
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
    """The stores to load. One on another machine only if that is really wanted: somebody may be working with it."""
    from quota_engine.bench.target_url import check_backend_exists, parse_target

    targets = [parse_target(url) for url in urls]
    for target in targets:
        check_backend_exists(target)
        if target.foreign_hosts and not yes_really:
            raise InvalidRequest(
                "--backend",
                f"{target.label} may be on another machine, and this command loads it as much as it can bear",
                "a store on this machine, or --yes-really as well",
            )
    labels = [target.label for target in targets]
    for label in labels:
        if labels.count(label) > 1:
            raise InvalidRequest("--backend", f"{label} more than once", "each store once")
    return targets


@contextlib.contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on standard error, if somebody is looking."""
    if not sys.stderr.isatty():
        yield lambda doing, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    # Drawn when a measurement ends, never by a thread of its own in the middle of one.
    with Bar(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as bar:
        task = bar.add_task("")

        def progress(doing: str, done: int, total: int) -> None:
            bar.update(task, description=doing, completed=done, total=total, refresh=True)

        yield progress


def _write(result: BenchResult, comparison: BenchComparison | None, as_json: bool, report: pathlib.Path | None) -> None:
    if report is not None:
        from quota_engine.bench.report import html_report

        write_file(report, html_report(result, comparison))
        _tell(f"wrote {report}")
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
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(figures), indent=2).decode() + "\n")
        return
    from rich.console import Console

    from quota_engine.bench.terminal import print_comparison, print_goals, print_result

    console = Console()
    print_result(result, console)
    if result.settings.preset:
        print_goals(goals_of(result), console)
    if comparison is not None:
        print_comparison(comparison, console)


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")
