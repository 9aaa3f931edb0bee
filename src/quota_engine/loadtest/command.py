"""``python -m loadtests``: replay openings against a staging, and give back afterwards what that has booked."""

from __future__ import annotations

import argparse
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import Final, NamedTuple, NoReturn

from quota_engine.domain.errors import QuotaEngineError
from quota_engine.loadtest import capacity
from quota_engine.loadtest.cleanup import clean_up
from quota_engine.loadtest.plan import PlanError
from quota_engine.loadtest.staging_server import StagingServer, staging_server
from quota_engine.loadtest.target_client import TargetClient, TargetError, check_target

_DONE, _FOUND, _BAD_USE = 0, 1, 2
_HERE: Final = pathlib.Path(__file__).parents[3] / "loadtests"
_ROOMS: Final = (
    '[waiting_rooms]\noffices = ["*"]\n[waiting_rooms.settings]\nwindow_ms = 2000\nclaim_ms = 12000\n'
    "per_minute_min = 600\nper_minute_max = 1200\n"
)
"""Waiting rooms as quick as the people of a replay are."""
_START_S: Final = 9.0
"""How long it takes until Locust presses: the service, the store, the people."""


class OpeningPreset(NamedTuple):
    """An opening of ``make loadtest``: a scenario, and how it is made to fit into a minute."""

    name: str
    scenario: str
    applicants: int
    speed: float
    window_s: float
    places_share: float = 1.0
    catalog: str = ""
    """That of the staging that is started, if it is not called as the scenario is."""
    is_extra: bool = False
    """Only if it is asked for."""


OPENING_PRESETS: Final = (
    OpeningPreset("surabaya", "surabaya", 3_000, 20.0, 30.0),
    OpeningPreset("indonesia", "indonesia", 4_000, 20.0, 30.0, places_share=0.2),
    OpeningPreset("draw", str(_HERE / "scenarios" / "draw.toml"), 3_000, 20.0, 20.0, catalog="surabaya", is_extra=True),
)


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; returns 0, 1 if something was found, 2 for bad use."""
    parser = argparse.ArgumentParser(prog="python -m loadtests", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="replay openings: on a staging started here, or on --host")
    run.add_argument("--host", default="", help="a staging; without it one is started here, and ended afterwards")
    run.add_argument("--token", default=os.environ.get("LOADTEST_TOKEN", ""), help="an operator's token for it")
    run.add_argument(
        "--only", default="", choices=["", *(replay.name for replay in OPENING_PRESETS)], help="only this opening"
    )
    run.add_argument("--applicants", type=int, default=0, help="in place of the opening's own")
    run.add_argument("--processes", type=int, default=1, help="load processes")
    run.add_argument("--workers", type=int, default=2, help="processes of the service that is started here")
    run.add_argument("--waiting-room", action="store_true", help="the staging that is started has waiting rooms")
    run.add_argument("--transport", default="http", choices=["http", "direct"], help="direct: without the service")
    run.add_argument("--out", default="build", help="the folder for the reports")
    run.add_argument("--keep", action="store_true", help="on --host: do not give back what was booked")
    give_back = commands.add_parser("purge", help="give back what load tests have booked on a staging")
    give_back.add_argument("--host", required=True)
    give_back.add_argument("--token", default=os.environ.get("LOADTEST_TOKEN", ""))
    give_back.add_argument("--run", default="", help="only what this run has booked")
    commands.add_parser("measure", help="how many people a second the service takes, and what it does with more")
    for command in (run, give_back):
        command.add_argument("--force", action="store_true", help="on a host that does not say that it is a staging")
        command.add_argument("--remote", action="store_true", help="on another machine than this")
    options, more = parser.parse_known_args(words)
    if options.command == "measure":
        return capacity.main(more)
    signal.signal(signal.SIGTERM, _terminated)
    try:
        if options.command == "purge":
            if more:
                parser.error(f"unknown: {more[0]}")
            return _purge(options)
        return _run(options, more)
    except (PlanError, TargetError, QuotaEngineError) as error:
        sys.stderr.write(f"{error}\n")
        return _BAD_USE


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    """Told to stop: what was started is ended on the way out."""
    raise SystemExit(128 + number)


def _purge(options: argparse.Namespace) -> int:
    with TargetClient(options.host, options.token) as host:
        check_target(host, force=options.force, remote=options.remote)
        done = clean_up(host, options.run)
    sys.stdout.write(done.sentence() + "\n")
    return _FOUND if done.refused else _DONE


def _run(options: argparse.Namespace, more: Sequence[str]) -> int:
    """All openings, one after the other; the worst exit code counts."""
    worst = _DONE
    for replay in OPENING_PRESETS:
        if options.only == replay.name or not (options.only or replay.is_extra):
            worst = max(worst, _replay(options, replay, more))
    return worst


def _replay(options: argparse.Namespace, replay: OpeningPreset, more: Sequence[str]) -> int:
    run = f"{replay.name}-{time.strftime('%H%M%S', time.gmtime())}"
    if options.host:
        code = _locust(options, replay, run, options.host, options.token, more)
        if not options.keep and code in (_DONE, _FOUND):
            with TargetClient(options.host, options.token) as host:
                sys.stdout.write(f"purged: {clean_up(host, run).sentence()}\n")
        return code
    lead_s = 6.0
    with staging_server(
        replay.catalog or replay.scenario,
        opens_in_s=_START_S + lead_s,
        speed=replay.speed,
        workers=options.workers,
        places_share=replay.places_share,
        settings=_ROOMS if options.waiting_room else "",
    ) as here:
        return _locust(options, replay, run, here.url, here.token, more, here)


def _locust(
    options: argparse.Namespace,
    replay: OpeningPreset,
    run: str,
    url: str,
    token: str,
    more: Sequence[str],
    here: StagingServer | None = None,
) -> int:
    file = "direct.py" if options.transport == "direct" else "locustfile.py"
    command = [
        sys.executable, "-m", "locust", "-f", str(_HERE / file), "--headless", "--only-summary",
        "--loglevel", "ERROR", "--host", url, "--stop-timeout", "5",
        "--scenario", replay.scenario, "--applicants", str(options.applicants or replay.applicants),
        "--speed", str(replay.speed), "--lead-s", "6", "--window-s", str(replay.window_s), "--grace-s", "15",
        "--run-name", run, "--out", str(pathlib.Path(options.out) / f"loadtest-{replay.name}"),
    ]  # fmt: skip
    if options.processes > 1:
        command += ["--processes", str(options.processes)]
    command += ["--force", "1"] if options.force else []
    command += ["--remote", "1"] if options.remote else []
    environment = {**os.environ, "LOADTEST_TOKEN": token, "LOADTEST_PLAIN": "1"}
    if here is not None:
        command += ["--catalog", here.catalog]
        environment |= {"LOADTEST_BACKEND": here.backend, "LOADTEST_IDENTITY_KEY": here.identity_key}
    limit_s = 2 * _START_S + replay.window_s + 90
    process = subprocess.Popen([*command, *more], env=environment)  # noqa: S603 - Locust, with our own file
    try:
        code = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        sys.stderr.write(f"Locust did not end within {limit_s:g} s\n")
        code = _FOUND
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    return code
