"""Load test under Locust: the master sends the plan to the workers, collects their observations and runs the checks.

In a test of one process, that process is both.
"""

from __future__ import annotations

__all__ = ["LocustSession", "add_arguments", "begin_direct", "begin_http", "options_of"]

import argparse
import dataclasses
import gc
import logging
import math
import os
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import gevent
import msgspec
from locust.env import Environment
from locust.runners import LocalRunner, MasterRunner, WorkerRunner

from quota_engine import typed_data
from quota_engine.domain.errors import QuotaEngineError
from quota_engine.loadtest.checks import EventCursor, read_before, run_checks
from quota_engine.loadtest.direct_transport import open_engine
from quota_engine.loadtest.draw_run import DrawRunResult, announce, carry_out, draw_of
from quota_engine.loadtest.observations import Observations
from quota_engine.loadtest.plan import (
    DayOnSale,
    LoadTestOptions,
    LoadTestPlan,
    PlanError,
    days_on_sale,
    room_of,
    scenario_of,
    supply_of,
)
from quota_engine.loadtest.population import PersonRole, load_population
from quota_engine.loadtest.report import write_reports
from quota_engine.loadtest.scheduler import Scheduler
from quota_engine.loadtest.target_client import TargetClient, TargetError, check_target
from quota_engine.loadtest.user_scripts import UserScripts
from quota_engine.simulation.agents import Agents
from quota_engine.simulation.metrics import series_start_s
from quota_engine.simulation.scenario import PolicyName

PLAN_MESSAGE: Final = "loadtest-plan"
OBSERVATIONS_MESSAGE: Final = "loadtest-books"
_LOOK_AHEAD_S: Final = 3
_SETTLE_S: Final = 2.0
_BAD_USE: Final = 2
_logger = logging.getLogger("quota_engine.loadtest")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the load test's options to Locust's command line."""

    def add(name: str, kind: type, default: Any, text: str, **more: Any) -> None:
        variable = "LOADTEST_" + name.upper().replace("-", "_")
        parser.add_argument(f"--{name}", type=kind, default=default, env_var=variable, help=text, **more)

    none = LoadTestOptions()
    add("scenario", str, none.scenario, "a scenario file, surabaya or indonesia")
    add("trace", str, none.trace, "a recorded opening (CSV) in place of the arrival model")
    add("catalog", str, none.catalog, "the target's catalog, if it is not the scenario's")
    add("applicants", int, none.applicants, "in place of the scenario's value")
    add("only-offices", int, none.offices, "use only the N largest offices")
    add("seed", int, none.seed, "in place of the scenario's value")
    add("speed", float, none.speed, "factor by which forms, pauses, tails and recorded times are shorter")
    add("lead-s", float, none.lead_s, "seconds before the opening at which the test starts")
    add("window-s", float, none.window_s, "seconds after the opening in which people may act")
    add("grace-s", float, none.grace_s, "seconds to wait for responses after that")
    add("wait-s", float, none.wait_s, "most seconds to wait for the next opening")
    add("users-max", int, none.users_max, "most requests at once, over all processes")
    add("rate-max-per-s", float, none.rate_max_per_s, "most requests a second, over all processes")
    add("timeout-s", float, none.timeout_s, "time limit of a request, in seconds")
    add("run-name", str, none.run, "name of this run, part of every reservation id")
    add("out", str, "build/loadtest", "path of the result files, without .html, .csv and .json")
    add("token", str, "", "an operator's token", is_secret=True, include_in_web_ui=False)
    add("backend", str, "", "direct transport: the URL of the store", include_in_web_ui=False)
    add(
        "identity-key", str, "", "direct transport: the store's identity key, base64", is_secret=True,
        include_in_web_ui=False,
    )  # fmt: skip
    add("force", int, 0, "1: accept a target that is no staging service", include_in_web_ui=False)
    add("remote", int, 0, "1: accept a target on another machine", include_in_web_ui=False)


def options_of(parsed: argparse.Namespace) -> LoadTestOptions:
    """Return the options of the load test."""
    return LoadTestOptions(
        scenario=parsed.scenario,
        trace=parsed.trace,
        catalog=parsed.catalog,
        applicants=parsed.applicants,
        offices=parsed.only_offices,
        seed=parsed.seed,
        speed=parsed.speed,
        lead_s=parsed.lead_s,
        window_s=parsed.window_s,
        grace_s=parsed.grace_s,
        wait_s=parsed.wait_s,
        users_max=parsed.users_max,
        rate_max_per_s=parsed.rate_max_per_s,
        timeout_s=parsed.timeout_s,
        run=parsed.run_name or time.strftime("%Y%m%d%H%M%S", time.gmtime()),
    )


class LocustSession:
    """State of the load test in one process; Locust reaches it as ``environment.loadtest``."""

    def __init__(self, environment: Environment, host: Any) -> None:
        self.environment = environment
        self.target = host
        self.scheduler: Scheduler | None = None
        self._plan: LoadTestPlan | None = None
        self._opens_s = math.inf
        self._observations: Observations | None = None
        self._before: EventCursor | None = None
        self._pages_last = 0
        self._sent = False
        self._judged = False
        self._seed = ""
        self._curve: list[int] = []
        self._curve_start_s = 0
        self._share_books: Observations | None = None
        self._deadline_us = 0
        self.engine: Any = None
        """The engine of the direct transport."""
        runner = environment.runner
        assert runner is not None
        if not isinstance(runner, MasterRunner):
            runner.register_message(PLAN_MESSAGE, self._begin)
        if not isinstance(runner, WorkerRunner):
            runner.register_message(OBSERVATIONS_MESSAGE, self._receive_observations)
        environment.events.test_start.add_listener(self._on_start)
        environment.events.test_stop.add_listener(self._on_stop)

    @property
    def is_master(self) -> bool:
        """True if this process plans the test and runs the checks."""
        return isinstance(self.environment.runner, MasterRunner | LocalRunner)

    # --- Master --------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Read what the target has on sale, and make the plan. Call once."""
        if self._plan is not None:
            return
        parsed = self.environment.parsed_options
        assert parsed is not None
        options = options_of(parsed)
        scenario = scenario_of(options)
        now_ms = round(time.time() * 1000)
        days, is_open = days_on_sale(scenario, self.target.offices(), self.target.availability, now_ms, options.wait_s)
        opens_at_ms = now_ms + round(options.lead_s * 1000) if is_open else min(each.opens_at_ms for each in days)
        plan = LoadTestPlan(
            options=msgspec.structs.replace(options, roles=self._roles()),
            days=days,
            opens_at_ms=opens_at_ms,
            opens_in_ms=opens_at_ms - now_ms,
            is_open=is_open,
            rooms={} if self._is_direct or scenario.policy is PolicyName.DRAW else self._rooms(days),
            draw=draw_of(options.run) if scenario.policy is PolicyName.DRAW else "",
        )
        supply = supply_of(plan, scenario)
        participants = load_population(plan, scenario, supply)
        if plan.draw:
            self._seed = secrets.token_hex(32)
            announce(self.target, plan, self._seed)
        self._before = read_before(self.target, plan)
        self._plan = plan
        self._opens_s = time.monotonic() + opens_at_ms / 1000 - time.time()
        first_s = series_start_s(min(participants.population.first_press_us))
        self._observations = Observations.empty(len(participants.population), participants.supply.capacity, first_s)
        self._curve = _arrival_curve(participants.population.first_press_us, first_s, options.window_s)
        self._curve_start_s = first_s
        _logger.info(
            "%d people for %d places of %d days, in %.1f s",
            len(participants.population), participants.supply.capacity, len(days), self._opens_s - time.monotonic(),
        )  # fmt: skip

    @property
    def _is_direct(self) -> bool:
        """True if people call the engine directly, past the service's waiting rooms."""
        return bool(self.environment.parsed_options and self.environment.parsed_options.is_direct)

    def _rooms(self, days: Sequence[DayOnSale]) -> dict[str, str]:
        """Return the ids of the target's waiting rooms for these days, by office."""
        ids = {day.office: room_of(day) for day in days}
        return {office: room for office, room in ids.items() if self.target.call("GET", f"/v1/rooms/{room}")[0] == 200}

    def _roles(self) -> tuple[str, ...]:
        """Return the roles of the user classes that were chosen."""
        return tuple(sorted({getattr(user, "role", PersonRole.CITIZEN).name for user in self.environment.user_classes}))

    def users(self) -> int | None:
        """Return the number of users for the next seconds, never fewer than before; ``None`` ends the test."""
        self.prepare()
        plan = self._plan
        assert plan is not None
        now_s = time.monotonic() - self._opens_s
        if self._pages_last >= self._shares() and self._pages_last:
            return None
        if now_s > plan.options.window_s + plan.options.grace_s + 10:
            return None
        until = math.floor(now_s) + _LOOK_AHEAD_S - self._curve_start_s
        most = max(self._curve[: max(until, 1)], default=1)
        shares = self._shares()
        return min(max(most, 2 * shares), plan.options.users_max)

    def _shares(self) -> int:
        runner = self.environment.runner
        if isinstance(runner, MasterRunner):
            return max(len(runner.worker_indexes), 1)
        return 1

    def _on_start(self, environment: Environment, **_: Any) -> None:
        if not self.is_master:
            return
        self.prepare()
        assert self._plan is not None
        runner = environment.runner
        clients = sorted(runner.clients) if isinstance(runner, MasterRunner) else [None]
        self._plan = msgspec.structs.replace(self._plan, shares=len(clients))
        for share, client in enumerate(clients):
            opens_in_ms = round((self._opens_s - time.monotonic()) * 1000)
            plan = msgspec.structs.replace(self._plan, share=share, opens_in_ms=opens_in_ms)
            assert runner is not None
            runner.send_message(PLAN_MESSAGE, {"plan": msgspec.json.encode(plan).decode()}, client)

    def _receive_observations(self, environment: Environment, msg: Any, **_: Any) -> None:
        assert self._observations is not None
        page: Mapping[str, Any] = msg.data
        self._observations.add_message(page)
        self._pages_last += bool(page.get("last"))

    def _on_stop(self, environment: Environment, **_: Any) -> None:
        if not isinstance(environment.runner, MasterRunner):
            self._send_observations()
        if not self.is_master or self._judged or self._plan is None:
            return
        self._judged = True
        assert self._observations is not None
        assert self._before is not None
        parsed = environment.parsed_options
        assert parsed is not None
        missing = self._shares() - self._pages_last
        gevent.sleep(_SETTLE_S if missing else 0)
        missing = self._shares() - self._pages_last
        draw_result: DrawRunResult | None = None
        if self._plan.draw:
            draw_result = carry_out(self.target, self._plan, self._seed)
        result = run_checks(
            self.target, self._plan, self._observations, self._before, missing=missing, draw_result=draw_result
        )
        write_reports(result, parsed.out)
        print(result.text(), flush=True)  # noqa: T201 - what the command is for
        environment.process_exit_code = 0 if result.ok else 1

    # --- Worker --------------------------------------------------------------------------------------------------

    def _begin(self, environment: Environment, msg: Any, **_: Any) -> None:
        """Schedule the people of this process's share of the plan."""
        received_s = time.monotonic()
        plan = typed_data.decode_json(msg.data["plan"], LoadTestPlan)
        scenario = scenario_of(plan.options)
        participants = load_population(plan, scenario, supply_of(plan, scenario))
        people = participants.population
        observations = Observations.empty(0, 0, series_start_s(min(people.first_press_us)))
        # Each process decides by its own random stream; arrivals are the same for all.
        agents = Agents(
            scenario.agents,
            scenario.arrivals,
            dataclasses.replace(people, seed=people.seed * 1009 + plan.share),
        )
        scripts = UserScripts(plan, scenario, participants, agents, observations)
        scheduler = Scheduler(
            observations,
            opens_at_s=received_s + plan.opens_in_ms / 1000,
            rate_max_per_s=plan.options.rate_max_per_s / plan.shares,
        )
        for index in range(plan.share, len(people), plan.shares):
            role = PersonRole(participants.roles[index])
            if role.name in plan.options.roles:
                scheduler.add_person(index, role, people.first_press_us[index], _starter(scripts, index))
        if PersonRole.OPERATOR.name in plan.options.roles and scenario.load_test.capacity_changes:
            for office_day in range(plan.share, len(plan.days), plan.shares):
                scheduler.add_person(
                    len(people) + office_day,
                    PersonRole.OPERATOR,
                    -round(plan.options.lead_s * 1e6),
                    _operator(scripts, office_day),
                )
        # These objects live as long as the process, so the garbage collector need not scan them during the test.
        gc.collect()
        gc.freeze()
        self._plan = self._plan or plan
        self.scheduler = scheduler
        self._share_books = observations
        self._deadline_us = round((plan.options.window_s + plan.options.grace_s) * 1e6)
        self._sent = False
        gevent.spawn(scheduler.dispatch)
        gevent.spawn(self._watch, scheduler)

    def _watch(self, scheduler: Scheduler) -> None:
        while not scheduler.is_over and not scheduler.closed and scheduler.now_us() < self._deadline_us:
            gevent.sleep(0.1)
        self._send_observations()

    def _send_observations(self) -> None:
        if self.scheduler is None or self._sent:
            return
        self._sent = True
        self.scheduler.close()
        runner = self.environment.runner
        assert runner is not None
        assert self._share_books is not None
        for page in self._share_books.messages():
            runner.send_message(OBSERVATIONS_MESSAGE, page)


def begin_http(environment: Environment) -> None:
    """Create the session of this process. The master checks the target first and exits if a test may not run there."""
    parsed = environment.parsed_options
    assert parsed is not None
    parsed.is_direct = getattr(parsed, "is_direct", False)
    if os.environ.get("LOADTEST_PLAIN"):
        # Locust's tables are twice as wide as a terminal, and the result repeats them.
        logging.getLogger("locust.stats_logger").setLevel(logging.WARNING)
    try:
        host = TargetClient(environment.host or "", parsed.token)
        if not isinstance(environment.runner, WorkerRunner):
            check_target(host, force=bool(parsed.force), remote=bool(parsed.remote))
        session = LocustSession(environment, host)
        if session.is_master:
            session.prepare()
    except (PlanError, TargetError, QuotaEngineError) as error:
        sys.stderr.write(f"loadtest: {error}\n")
        sys.exit(_BAD_USE)
    environment.loadtest = session  # type: ignore[attr-defined]


def begin_direct(environment: Environment) -> None:
    """Create the session, and open the engine on the target's store in processes that send requests."""
    parsed = environment.parsed_options
    assert parsed is not None
    parsed.is_direct = True
    begin_http(environment)
    if isinstance(environment.runner, MasterRunner):
        return
    try:
        catalog = parsed.catalog or scenario_of(options_of(parsed)).sale.catalog
        variable = "LOADTEST_IDENTITY_KEY"
        key_source = variable if os.environ.get(variable) == parsed.identity_key else "--identity-key"
        engine = open_engine(parsed.backend, parsed.identity_key, catalog, key_source)
    except (PlanError, QuotaEngineError) as error:
        sys.stderr.write(f"loadtest: {error}\n")
        sys.exit(_BAD_USE)
    environment.loadtest.engine = engine  # type: ignore[attr-defined]
    environment.events.quitting.add_listener(lambda **_: engine.close())


def _starter(scripts: UserScripts, index: int) -> Any:
    return lambda at_us: scripts.person(index, at_us)


def _operator(scripts: UserScripts, office_day: int) -> Any:
    return lambda at_us: scripts.operator(office_day)


def _arrival_curve(presses_us: Any, start_s: int, window_s: float) -> list[int]:
    """Return the number of first actions in each second from ``start_s`` on."""
    seconds = max(math.ceil(window_s) - start_s, 1)
    curve = [0] * seconds
    for at_us in presses_us:
        index = at_us // 1_000_000 - start_s
        if 0 <= index < seconds:
            curve[index] += 1
    return curve
