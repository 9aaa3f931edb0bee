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
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Protocol

import msgspec
from cyclopts import Parameter

from quota_engine.cli.output_files import check_file, write_file
from quota_engine.domain.errors import CatalogError, InvalidRequest, ValidationIssue

if TYPE_CHECKING:
    from quota_engine.clocks import ManualClock
    from quota_engine.engine.quota_engine import QuotaEngine
    from quota_engine.simulation.event_queue import ProgressObserver
    from quota_engine.simulation.policy_comparison import PolicyComparison
    from quota_engine.simulation.scenario import Scenario
    from quota_engine.simulation.simulation import PreparedSimulation, SimulationResult

_DONE, _BAD_FINDING = 0, 1
_DEFAULT: Final = "surabaya"
_NATIONAL: Final = "indonesia"
_DEMANDS: Final = {"low": 0.5, "high": 10.0}
"""People for each place."""

PolicyName = Literal["immediate", "bucket", "fifo", "shuffle", "draw"]
ReReleaseName = Literal["immediate", "cooling", "next-draw"]
IdentityName = Literal["weak", "verified"]


class _Shown(Protocol):
    """A result as the command shows it."""

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
    policy: PolicyName | None = None,
    compare: Annotated[bool, Parameter(negative="")] = False,
    demand: str | None = None,
    re_release: ReReleaseName | None = None,
    identity: IdentityName | None = None,
    report: pathlib.Path | None = None,
    picture: pathlib.Path | None = None,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Replay an opening: thousands of applicants, a few places, one second.

    The real engine answers every request, under a simulated clock. Without options: Surabaya, 5,000 applicants for
    100 places. The same scenario and seed give the same result, byte for byte.

    With --policy, --compare, --demand, --re-release or --identity there are agents: people with good and bad networks,
    programs, and brokers who come if they expect a profit. It is told who gets the places, and what brokers make of it.

    Args:
        scenario: a scenario file (TOML, JSON or YAML), or one that comes with the package: surabaya, indonesia.
        trace: a recorded opening in place of the arrival model: CSV with time,applicant,office,day,channel,party.
        applicants: how many applicants come.
        capacity: places of each office-day.
        offices: take only so many offices, the largest first; without --scenario, of the national catalog.
        seed: the seed of everything that is drawn.
        backend: the URL of the engine's store, a fresh one; memory:// by default.
        baseline: run the old application as well, which checks the quota first and writes it later.
        policy: who may try for a place: everybody at once, so many a second by a token bucket, a first-come or a
            shuffled waiting room, or a draw.
        compare: all policies, one after the other, with the same people.
        demand: people for each place, or low (0.5) or high (10); in place of --applicants.
        re_release: where places go that are given back; next-draw with a draw, else immediate.
        identity: whether the booking service checks identities; weak, unless the scenario says so.
        report: write an HTML report, one file that needs no network.
        picture: write the plot of places sold, or of who gets them, as SVG.
        as_json: print the result as JSON, and nothing else.
    """
    _check_options(trace, applicants, capacity, offices, seed)
    people = _check_demand(demand, applicants, trace)
    check_file(report, "--report", ".html")
    check_file(picture, "--picture", ".svg")
    file = scenario or (_DEFAULT if offices is None else _NATIONAL)
    loaded = _load(file, applicants, capacity, offices, seed, policy, re_release, identity)
    asked = compare or any(option is not None for option in (policy, demand, re_release, identity))
    started_s = time.perf_counter()
    result: _Shown
    show: Callable[[], None]
    if asked or loaded.policy != "immediate":
        _check_agents(trace, baseline, compare, policy, backend)
        comparison = _run_agents(_with_demand(loaded, file, people), file, offices, backend, compare)
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
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(result.as_dict()), indent=2).decode() + "\n")
    else:
        show()
    for path in filter(None, (report, picture)):
        sys.stderr.write(f"wrote {path}\n")
    sys.stderr.write(f"took {took_s:.1f} s on the wall clock\n")
    return _DONE if result.ok else _BAD_FINDING


class _Single:
    """A comparison of one policy, whose figures stand at the top of the JSON."""

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


def _check_demand(demand: str | None, applicants: int | None, trace: pathlib.Path | None) -> float | None:
    """How many people come for each place, if that is given."""
    if demand is None:
        return None
    if applicants is not None or trace is not None:
        other = "--applicants" if applicants is not None else "--trace"
        raise InvalidRequest("--demand", f"given together with {other}", "one of them")
    expected = "low, high, or a number of people from 0.01 to 100000"
    try:
        people = _DEMANDS.get(demand) or float(demand)
    except ValueError:
        raise InvalidRequest("--demand", repr(demand), expected) from None
    if not 0.01 <= people <= 100_000:
        raise InvalidRequest("--demand", repr(demand), expected)
    return people


def _check_agents(trace: pathlib.Path | None, baseline: bool, compare: bool, policy: str | None, backend: str) -> None:
    """What does not go together with agents."""
    for given, option, why in (
        (trace is not None, "--trace", "an opening without agents: a trace has none"),
        (baseline, "--baseline", "an opening without agents: the old application knows none of these policies"),
        (compare and policy is not None, "--policy", "no --compare with it: that is all policies"),
        (compare and backend != "memory://", "--backend", "memory:// with --compare: each policy needs a fresh store"),
    ):
        if given:
            raise InvalidRequest(option, "given together with agents", why)


def _load(
    file: str,
    applicants: int | None,
    capacity: int | None,
    offices: int | None,
    seed: int | None,
    policy: PolicyName | None,
    re_release: ReReleaseName | None,
    identity: IdentityName | None,
) -> Scenario:
    """The scenario with what the command line changes."""
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
            (ValidationIssue(file, "--offices", str(offices), f"at most the {selling} that sell places"),)
        )


def _with_demand(scenario: Scenario, file: str, people: float | None) -> Scenario:
    """The scenario with so many people for each place."""
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
    """Opens fresh engines for a run: the same ids and hashes each time."""
    from quota_engine.engine.quota_engine import QuotaEngine

    # Applicants are made up, or of a trace that is here in clear: the key keeps nothing secret, and must be the same.
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
    runs = ["quota_engine", "old application"] if baseline else ["quota_engine"]
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
    """The URL as far as it may be shown: no user, no password, no query."""
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@contextlib.contextmanager
def _progress(applicants: int, runs: list[str]) -> Iterator[list[ProgressObserver | None]]:
    """Bars on standard error, if somebody is looking."""
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

    print_result(result, Console())


def _print_comparison(comparison: PolicyComparison) -> None:
    from rich.console import Console

    from quota_engine.simulation.reports.policy_comparison import print_comparison

    print_comparison(comparison, Console())


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
