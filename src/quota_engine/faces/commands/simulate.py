"""``quota-engine simulate``: an opening, replayed against the real engine."""

from __future__ import annotations

__all__ = ["simulate"]

import contextlib
import hashlib
import itertools
import pathlib
import sys
import time
import urllib.parse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from cyclopts import Parameter

from quota_engine.domain.errors import CatalogError, InvalidRequest, Mistake
from quota_engine.faces.commands.files import check_file, write_file

if TYPE_CHECKING:
    from quota_engine.sim.scenario import Scenario
    from quota_engine.sim.simulation import Prepared, Result
    from quota_engine.sim.spike import Observer

_DONE, _BAD_FINDING = 0, 1
_DEFAULT: Final = "surabaya"
_NATIONAL: Final = "indonesia"


def simulate(
    *,
    scenario: str | None = None,
    trace: pathlib.Path | None = None,
    applicants: int | None = None,
    capacity: int | None = None,
    offices: int | None = None,
    seed: int | None = None,
    backend: str = "memory://",
    baseline: bool = False,
    report: pathlib.Path | None = None,
    picture: pathlib.Path | None = None,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Replay an opening: thousands of applicants, a few places, one second.

    The real engine answers every request, under a simulated clock. Without options: Surabaya, 5,000 applicants for
    100 places. The same scenario and seed give the same result, byte for byte.

    Args:
        scenario: a scenario file (TOML, JSON or YAML), or one that comes with the package: surabaya, indonesia.
        trace: a recorded opening in place of the arrival model: CSV with time,applicant,office,day,channel,party.
        applicants: how many applicants come.
        capacity: places of each office-day.
        offices: take only so many offices, the largest first; without --scenario, of the national catalog.
        seed: the seed of everything that is drawn.
        backend: the URL of the engine's store, a fresh one; memory:// by default.
        baseline: run the old application as well, which checks the quota first and writes it later.
        report: write an HTML report, one file that needs no network.
        picture: write the plot of places sold as SVG.
        as_json: print the result as JSON, and nothing else.
    """
    _check_options(trace, applicants, capacity, offices, seed)
    check_file(report, "--report", ".html")
    check_file(picture, "--picture", ".svg")
    file = scenario or (_DEFAULT if offices is None else _NATIONAL)
    prepared = _prepare(file, trace, applicants, capacity, offices, seed)
    started_s = time.perf_counter()
    result = _run(prepared, backend, baseline)
    took_s = time.perf_counter() - started_s
    _write_files(result, report, picture)
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(result.as_dict()), indent=2).decode() + "\n")
    else:
        from rich.console import Console

        from quota_engine.faces.report_terminal import print_result

        print_result(result, Console())
    for path in filter(None, (report, picture)):
        sys.stderr.write(f"wrote {path}\n")
    sys.stderr.write(f"took {took_s:.1f} s on the wall clock\n")
    return _DONE if result.ok else _BAD_FINDING


def _check_options(
    trace: pathlib.Path | None, applicants: int | None, capacity: int | None, offices: int | None, seed: int | None
) -> None:
    """The bounds of the scenario file hold for the options too."""
    for name, value, maximum in (
        ("--applicants", applicants, 10_000_000),
        ("--capacity", capacity, 1_000_000),
        ("--offices", offices, 10_000),
    ):
        if value is not None and not 1 <= value <= maximum:
            raise InvalidRequest(name, str(value), f"an integer from 1 to {maximum}")
    if seed is not None and not 0 <= seed < 2**63:
        raise InvalidRequest("--seed", str(seed), "an integer from 0 to 2**63 - 1")
    if trace is not None and applicants is not None:
        raise InvalidRequest("--applicants", "given together with --trace", "one of them: a trace has its applicants")


def _prepare(
    file: str,
    trace: pathlib.Path | None,
    applicants: int | None,
    capacity: int | None,
    offices: int | None,
    seed: int | None,
) -> Prepared:
    from quota_engine.sim.scenario import load_scenario
    from quota_engine.sim.simulation import prepare

    scenario = _with_options(load_scenario(file), applicants, capacity, offices, seed)
    prepared = prepare(scenario, file, trace)
    if offices is not None and prepared.market.offices < offices:
        raise CatalogError(
            (Mistake(file, "--offices", str(offices), f"at most the {prepared.market.offices} that sell places"),)
        )
    return prepared


def _with_options(
    scenario: Scenario, applicants: int | None, capacity: int | None, offices: int | None, seed: int | None
) -> Scenario:
    """The scenario with what the command line changes."""
    changes = {"offices_max": offices, "capacity": capacity}
    sale = msgspec.structs.replace(
        scenario.sale, **{name: value for name, value in changes.items() if value is not None}
    )
    top = {"applicants": applicants, "seed": seed}
    return msgspec.structs.replace(
        scenario, sale=sale, **{name: value for name, value in top.items() if value is not None}
    )


def _run(prepared: Prepared, backend: str, baseline: bool) -> Result:
    from quota_engine.adapters.clocks import ManualClock
    from quota_engine.faces.engine import QuotaEngine
    from quota_engine.sim.simulation import simulate as run_simulation

    seed = prepared.scenario.seed
    clock = ManualClock(0)
    numbers = itertools.count(1)
    # Applicants are made up, or of a trace that is here in clear: the key keeps nothing secret, and must be the same.
    key = hashlib.sha256(f"quota-engine simulate {seed}".encode()).digest()
    with (
        _progress(len(prepared.population), baseline) as (observe, observe_baseline),
        QuotaEngine.open(
            backend, identity_key=key, clock=clock, new_id=lambda: f"sim-{seed}-{next(numbers)}"
        ) as engine,
    ):
        return run_simulation(
            prepared,
            engine,
            clock,
            backend=_without_credentials(backend),
            baseline=baseline,
            observe=observe,
            observe_baseline=observe_baseline,
        )


def _without_credentials(url: str) -> str:
    """The URL as far as it may be shown: no user, no password, no query."""
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@contextlib.contextmanager
def _progress(applicants: int, baseline: bool) -> Iterator[tuple[Observer | None, Observer | None]]:
    """Bars on standard error, if somebody is looking."""
    if not sys.stderr.isatty():
        yield None, None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        runs = ["quota_engine", "old application"] if baseline else ["quota_engine"]
        tasks = [progress.add_task(name, total=applicants) for name in runs]

        def observer(task: int) -> Observer:
            def observe(finals: int, requests: int) -> None:
                progress.update(tasks[task], completed=finals)

            return observe

        yield observer(0), observer(1) if baseline else None


def _write_files(result: Result, report: pathlib.Path | None, picture: pathlib.Path | None) -> None:
    if report is None and picture is None:
        return
    from quota_engine.faces import report as rendering

    for path, render in ((report, rendering.html_report), (picture, rendering.picture)):
        if path is not None:
            write_file(path, render(result))
