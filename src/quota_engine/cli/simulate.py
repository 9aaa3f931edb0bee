"""``quota-engine simulate``: an opening with simulated applicants against the real engine."""

from __future__ import annotations

__all__ = ["simulate"]

import contextlib
import hashlib
import itertools
import pathlib
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Protocol

import msgspec
from cyclopts import Parameter

from quota_engine.cli.output import BAD_FINDING, DONE, AsJson, print_json, print_note
from quota_engine.cli.output_files import check_file, write_file
from quota_engine.domain.errors import CatalogError, InvalidRequest, ValidationIssue

if TYPE_CHECKING:
    from quota_engine.clocks import ManualClock
    from quota_engine.engine.quota_engine import QuotaEngine
    from quota_engine.simulation.event_queue import ProgressObserver
    from quota_engine.simulation.policy_comparison import PolicyComparison
    from quota_engine.simulation.scenario import Scenario
    from quota_engine.simulation.simulation import PreparedSimulation, SimulationResult

_DEFAULT: Final = "surabaya"
_NATIONAL: Final = "indonesia"
_DEMANDS: Final = {"low": 0.5, "high": 10.0}
"""Applicants for each place."""

PolicyOption = Literal["immediate", "bucket", "fifo", "shuffle", "draw"]
ReReleaseOption = Literal["immediate", "cooling", "next-draw"]
IdentityOption = Literal["weak", "verified"]


class _Shown(Protocol):
    """A result that the command prints."""

    @property
    def ok(self) -> bool: ...

    def as_dict(self) -> dict[str, Any]: ...


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
    policy: PolicyOption | None = None,
    compare: Annotated[bool, Parameter(negative="")] = False,
    demand: str | None = None,
    re_release: ReReleaseOption | None = None,
    identity: IdentityOption | None = None,
    report: pathlib.Path | None = None,
    picture: pathlib.Path | None = None,
    as_json: AsJson = False,
) -> int:
    """Simulate an opening: thousands of applicants request a few places in the same second.

    The real engine answers every request, under a simulated clock. Without options: Surabaya, 5,000 applicants for 100
    places. The same scenario and seed give the same result, byte for byte.

    The options --policy, --compare, --demand, --re-release and --identity add agents: people with different networks,
    bots, and brokers who come if they expect a profit. The result shows who gets the places, and the brokers' profit.

    Exit code 0: done; 1: the engine oversold or its audit has findings; 2: bad usage or input; 3: the store cannot be
    reached.

    Example:  quota-engine simulate --applicants 20000 --compare

    Args:
        scenario: a scenario file (TOML, JSON or YAML), or a built-in scenario (surabaya, indonesia).
        trace: CSV file of a recorded opening, in place of the arrival model. Its header is
            time,applicant,office,day,channel,party.
        applicants: number of applicants, 1 to 10,000,000.
        capacity: places of each office-day, 1 to 1,000,000.
        offices: number of offices, the largest first; without --scenario those of the national catalog.
        seed: seed of all random numbers, 0 to 2**63 - 1.
        backend: URL of the engine's store, which must be empty.
        baseline: also simulate the previous application, which reads the quota first and writes it later.
        policy: who may try to reserve. immediate: all applicants; bucket: token buckets limit the rate; fifo, shuffle:
            a waiting room in order of arrival, or in random order; draw: a lottery.
        compare: simulate all policies with the same people.
        demand: applicants for each place, 0.01 to 100,000, or low (0.5) or high (10); in place of --applicants.
        re_release: when released places become available again; default: next-draw with a draw, else immediate.
        identity: how the booking service checks identities; default: as in the scenario, else weak.
        report: HTML report to write, one file without external resources.
        picture: SVG to write: the places sold, or with agents who gets them.
        as_json: print the result as JSON, and nothing else.
    """
    _check_options(trace, applicants, capacity, offices, seed)
    per_place = _check_demand(demand, applicants, trace)
    check_file(report, "--report", ".html")
    check_file(picture, "--picture", ".svg")
    file = scenario or (_DEFAULT if offices is None else _NATIONAL)
    loaded = _load(file, applicants, capacity, offices, seed, policy, re_release, identity)
    with_agents = compare or any(option is not None for option in (policy, demand, re_release, identity))
    started_s = time.perf_counter()
    result: _Shown
    show: Callable[[], None]
    if with_agents or loaded.policy != "immediate":
        _check_agents(trace, baseline, compare, policy, backend)
        comparison = _run_agents(_with_demand(loaded, file, per_place), file, offices, backend, compare)
        took_s = time.perf_counter() - started_s
        _write_comparison(comparison, report, picture)
        result, show = (comparison if compare else _Single(comparison)), partial(_print_comparison, comparison)
    else:
        prepared = _prepare(loaded, file, trace, offices)
        started_s = time.perf_counter()
        opened = _run(prepared, backend, baseline)
        took_s = time.perf_counter() - started_s
        _write_files(opened, report, picture)
        result, show = opened, partial(_print_result, opened)
    if as_json:
        print_json(result.as_dict())
    else:
        show()
    for path in filter(None, (report, picture)):
        print_note(f"wrote {path}")
    print_note(f"took {took_s:.1f} s")
    return DONE if result.ok else BAD_FINDING


class _Single:
    """A comparison of one policy, whose metrics are top-level keys of the JSON."""

    def __init__(self, comparison: PolicyComparison) -> None:
        self._comparison = comparison

    @property
    def ok(self) -> bool:
        return self._comparison.ok

    def as_dict(self) -> dict[str, Any]:
        whole = self._comparison.as_dict()
        (figures,) = whole.pop("policies")
        return {**whole, **figures}


def _check_options(
    trace: pathlib.Path | None, applicants: int | None, capacity: int | None, offices: int | None, seed: int | None
) -> None:
    """Check options against the bounds of the scenario file."""
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
        raise InvalidRequest(
            "--applicants", "given together with --trace", "only one of them; a trace has its own applicants"
        )


def _check_demand(demand: str | None, applicants: int | None, trace: pathlib.Path | None) -> float | None:
    """Return the applicants for each place, or ``None`` without ``--demand``."""
    if demand is None:
        return None
    if applicants is not None or trace is not None:
        other = "--applicants" if applicants is not None else "--trace"
        raise InvalidRequest("--demand", f"given together with {other}", "only one of them")
    expected = "low, high, or a number from 0.01 to 100000"
    try:
        people = _DEMANDS.get(demand) or float(demand)
    except ValueError:
        raise InvalidRequest("--demand", repr(demand), expected) from None
    if not 0.01 <= people <= 100_000:
        raise InvalidRequest("--demand", repr(demand), expected)
    return people


def _check_agents(trace: pathlib.Path | None, baseline: bool, compare: bool, policy: str | None, backend: str) -> None:
    """Reject options that exclude agents, or each other."""
    for given, option, expected in (
        (trace is not None, "--trace", "a scenario without agents; a trace has none"),
        (baseline, "--baseline", "a scenario without agents; the baseline has no policies"),
        (compare and policy is not None, "--policy", "only one of --policy and --compare"),
        (compare and backend != "memory://", "--backend", "memory:// with --compare; each policy needs an empty store"),
    ):
        if given:
            raise InvalidRequest(option, "given together with agents", expected)


def _load(
    file: str,
    applicants: int | None,
    capacity: int | None,
    offices: int | None,
    seed: int | None,
    policy: PolicyOption | None,
    re_release: ReReleaseOption | None,
    identity: IdentityOption | None,
) -> Scenario:
    """Return the scenario with the changes of the command line."""
    from quota_engine.simulation.population_config import IdentityCheck, ReReleasePolicy
    from quota_engine.simulation.scenario import PolicyName, load_scenario

    scenario = load_scenario(file)
    changes = {"offices_max": offices, "capacity": capacity}
    sale = msgspec.structs.replace(
        scenario.sale, **{name: value for name, value in changes.items() if value is not None}
    )
    top = {
        "applicants": applicants,
        "seed": seed,
        "policy": None if policy is None else PolicyName(policy),
        "re_release": None if re_release is None else ReReleasePolicy(re_release),
        "identity": None if identity is None else IdentityCheck(identity),
    }
    given = {name: value for name, value in top.items() if value is not None}
    return msgspec.structs.replace(scenario, sale=sale, **given)


def _prepare(scenario: Scenario, file: str, trace: pathlib.Path | None, offices: int | None) -> PreparedSimulation:
    from quota_engine.simulation.simulation import prepare

    prepared = prepare(scenario, file, trace)
    _check_offices(file, offices, prepared.supply.offices)
    return prepared


def _check_offices(file: str, offices: int | None, selling: int) -> None:
    if offices is not None and selling < offices:
        raise CatalogError(
            (
                ValidationIssue(
                    file, "--offices", str(offices), f"at most {selling}, the number of offices that sell places"
                ),
            )
        )


def _with_demand(scenario: Scenario, file: str, people: float | None) -> Scenario:
    """Return the scenario with a number of applicants for each place."""
    if people is None:
        return scenario
    from quota_engine.simulation.scenario import APPLICANTS_MAX
    from quota_engine.simulation.supply import build_supply

    applicants = max(1, round(people * build_supply(scenario, file).capacity))
    if applicants > APPLICANTS_MAX:
        raise InvalidRequest("--demand", f"{applicants} applicants", f"at most {APPLICANTS_MAX}")
    return msgspec.structs.replace(scenario, applicants=applicants)


def _run_agents(scenario: Scenario, file: str, offices: int | None, backend: str, compare: bool) -> PolicyComparison:
    from quota_engine.simulation import policy_comparison
    from quota_engine.simulation.scenario import PolicyName
    from quota_engine.simulation.supply import build_supply

    _check_offices(file, offices, build_supply(scenario, file).offices)
    policies = tuple(PolicyName) if compare else (scenario.policy,)
    with _progress(scenario.applicants, [str(policy) for policy in policies]) as observers:
        return policy_comparison.compare_policies(
            scenario,
            file,
            _opener(scenario.seed, backend),
            open_trial=_opener(scenario.seed, "memory://"),
            backend=_without_credentials(backend),
            policies=policies,
            observe=lambda policy: observers[policies.index(policy)],
        )


def _opener(seed: int, backend: str) -> Callable[[ManualClock, str], contextlib.AbstractContextManager[QuotaEngine]]:
    """Return a function that opens a new engine, with the same ids and hashes in each run."""
    from quota_engine.engine.quota_engine import QuotaEngine

    # Applicants are generated or listed in the trace, so the key protects nothing. It must be the same in each run.
    key = hashlib.sha256(f"quota-engine simulate {seed}".encode()).digest()

    def open_engine(clock: ManualClock, name: str) -> contextlib.AbstractContextManager[QuotaEngine]:
        numbers = itertools.count(1)
        return QuotaEngine.open(
            backend, identity_key=key, clock=clock, id_factory=lambda: f"sim-{name}-{next(numbers)}"
        )

    return open_engine


def _run(prepared: PreparedSimulation, backend: str, baseline: bool) -> SimulationResult:
    from quota_engine.clocks import ManualClock
    from quota_engine.simulation.simulation import simulate as run_simulation

    seed = prepared.scenario.seed
    clock = ManualClock(0)
    runs = ["quota_engine", "baseline"] if baseline else ["quota_engine"]
    with _progress(len(prepared.population), runs) as observers, _opener(seed, backend)(clock, str(seed)) as engine:
        return run_simulation(
            prepared,
            engine,
            clock,
            backend=_without_credentials(backend),
            baseline=baseline,
            observe=observers[0],
            observe_baseline=observers[-1],
        )


def _without_credentials(url: str) -> str:
    """Return the URL without user, password and query."""
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@contextlib.contextmanager
def _progress(applicants: int, runs: list[str]) -> Iterator[list[ProgressObserver | None]]:
    """Show progress bars on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        yield [None for _ in runs]
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        tasks = [progress.add_task(name, total=applicants) for name in runs]

        def observer(task: int) -> ProgressObserver:
            def observe(finals: int, requests: int) -> None:
                progress.update(tasks[task], completed=finals)

            return observe

        yield [observer(task) for task in range(len(runs))]


def _print_result(result: SimulationResult) -> None:
    from rich.console import Console

    from quota_engine.simulation.reports.terminal import print_result

    console = Console()
    print_result(result, console)
    if not result.ok:
        step = "this must never happen: report it with the output of --json"
    elif result.baseline is None:
        step = "add --baseline for the previous application, or --report opening.html for charts"
    else:
        step = "quota-engine simulate --compare  shows who gets the places under each policy"
    console.print(f"Next: {step}.", highlight=False, style="bold red" if not result.ok else "dim")


def _print_comparison(comparison: PolicyComparison) -> None:
    from rich.console import Console

    from quota_engine.simulation.reports.policy_comparison import print_comparison

    console = Console()
    print_comparison(comparison, console)
    console.print("Next: add --report policies.html for charts.", highlight=False, style="dim")


def _write_files(result: SimulationResult, report: pathlib.Path | None, picture: pathlib.Path | None) -> None:
    if report is None and picture is None:
        return
    from quota_engine.simulation.reports import opening as rendering

    for path, render in ((report, rendering.html_report), (picture, rendering.picture)):
        if path is not None:
            write_file(path, render(result))


def _write_comparison(comparison: PolicyComparison, report: pathlib.Path | None, picture: pathlib.Path | None) -> None:
    if report is None and picture is None:
        return
    from quota_engine.simulation.reports import policy_comparison as rendering

    for path, render in ((report, rendering.html_report), (picture, rendering.picture)):
        if path is not None:
            write_file(path, render(comparison))
