"""The openings that ``quota-engine loadtest run`` replays, each by Locust in its own process.

Locust's gevent patches the standard library when it is imported, so this module starts it as another process.
"""

from __future__ import annotations

__all__ = [
    "OPENING_PRESETS",
    "ExitCode",
    "OpeningPreset",
    "RunOptions",
    "clean_up_target",
    "local_master_arguments",
    "run_openings",
]

import enum
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final, Literal, NamedTuple, NoReturn

import msgspec

from quota_engine.loadtest.cleanup import clean_up
from quota_engine.loadtest.staging_server import StagingServer, staging_server
from quota_engine.loadtest.target_client import TargetClient, check_target

_FOLDER: Final = Path(__file__).parent
_WAITING_ROOMS: Final = (
    '[waiting_rooms]\noffices = ["*"]\n[waiting_rooms.settings]\nwindow_ms = 2000\nturn_ms = 12000\n'
    "per_minute_min = 600\nper_minute_max = 1200\n"
)
"""Settings of waiting rooms that are as quick as the people of a replay."""
_START_S: Final = 9.0
"""Time from Locust's start to its first request: it starts the service and the store, and draws the people."""
_LEAD_S: Final = 6.0
_MARGIN_S: Final = 90.0
_STANDARD_ERROR: Final = 2
_LOOPBACK: Final = "127.0.0.1"


class ExitCode(enum.IntEnum):
    """The exit code of a load test; the worst of several counts."""

    DONE = 0
    FOUND = 1
    """A check failed."""
    BAD_USE = 2


class OpeningPreset(NamedTuple):
    """An opening of ``quota-engine loadtest run``: a scenario, compressed to fit into a minute."""

    name: str
    scenario: str
    """A bundled scenario or a file."""
    applicants: int
    speed: float
    """Factor by which people act faster than in reality."""
    window_s: float
    places_share: float = 1.0
    catalog: str = ""
    """The catalog of the staging service; ``""`` for the one named like the scenario."""
    only_by_name: bool = False


OPENING_PRESETS: Final = (
    OpeningPreset("surabaya", "surabaya", 3_000, 20.0, 30.0),
    OpeningPreset("indonesia", "indonesia", 4_000, 20.0, 30.0, places_share=0.2),
    OpeningPreset(
        "draw", str(_FOLDER / "scenarios" / "draw.toml"), 3_000, 20.0, 20.0, catalog="surabaya", only_by_name=True
    ),
)


class RunOptions(msgspec.Struct, frozen=True):
    """Options of ``quota-engine loadtest run``.

    Without ``host`` each opening starts its own staging service and ends it afterwards.
    """

    host: str = ""
    token: str = ""
    only: str = ""
    """The name of one preset; ``""`` for all that are not ``only_by_name``."""
    applicants: int = 0
    """In place of the preset's own number; 0 keeps that."""
    processes: int = 1
    workers: int = 2
    """Worker processes of the staging service that is started here."""
    waiting_room: bool = False
    """True gives the staging service that is started here waiting rooms."""
    transport: Literal["http", "direct"] = "http"
    out: Path = Path("build")
    keep: bool = False
    """True keeps the bookings on ``host`` after the test."""
    force: bool = False
    remote: bool = False
    as_json: bool = False
    """True prints the reports as one JSON object on standard output, and all other lines on standard error."""
    locust_arguments: tuple[str, ...] = ()


def run_openings(options: RunOptions) -> ExitCode:
    """Replay the chosen openings, one after the other, and return the worst exit code.

    Raises:
        PlanError: the target does not sell what the scenario needs.
        TargetError: the target is no staging service, or does not answer.
    """
    worst = ExitCode.DONE
    reports: dict[str, Any] = {}
    with _terminable():
        for preset in OPENING_PRESETS:
            if options.only == preset.name or not (options.only or preset.only_by_name):
                # A report of an earlier run must not pass for one of this run.
                _report_file(options, preset).unlink(missing_ok=True)
                worst = max(worst, _run_opening(options, preset))
                if options.as_json:
                    reports[preset.name] = _report(options, preset)
    if options.as_json:
        sys.stdout.write(json.dumps({"ok": worst is ExitCode.DONE, "openings": reports}, indent=2) + "\n")
    return worst


def clean_up_target(host: str, token: str, run: str, *, force: bool, remote: bool, as_json: bool = False) -> ExitCode:
    """Release and cancel what load tests booked on ``host``, print the result, and return the exit code.

    Args:
        host: the address of the staging service.
        token: an operator's token.
        run: only the bookings of this run; ``""`` for all load tests.
        force: also on a host that does not say that it is a staging service.
        remote: allow a host on another machine.
        as_json: print the result as JSON, and not as a sentence.
    """
    with _terminable(), TargetClient(host, token) as target:
        check_target(target, force=force, remote=remote)
        report = clean_up(target, run)
    sys.stdout.write((json.dumps(report._asdict(), indent=2) if as_json else report.sentence()) + "\n")
    return ExitCode.FOUND if report.refused else ExitCode.DONE


def _report_file(options: RunOptions, preset: OpeningPreset) -> Path:
    return options.out / f"loadtest-{preset.name}.json"


def _report(options: RunOptions, preset: OpeningPreset) -> Any:
    """Return the report of an opening, or ``None`` if the load test ended before it."""
    try:
        return json.loads(_report_file(options, preset).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


@contextmanager
def _terminable() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that cleanup code ends the started processes."""

    def stop(number: int, _: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    earlier = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


def _run_opening(options: RunOptions, preset: OpeningPreset) -> ExitCode:
    run = f"{preset.name}-{time.strftime('%H%M%S', time.gmtime())}"
    if options.host:
        command = _locust_command(options, preset, run, options.host)
        code = _run_locust(options, command, _environment(options.token), preset)
        if not options.keep and code is not ExitCode.BAD_USE:
            with TargetClient(options.host, options.token) as target:
                notes = sys.stderr if options.as_json else sys.stdout
                notes.write(f"cleaned up: {clean_up(target, run).sentence()}\n")
        return code
    with staging_server(
        preset.catalog or preset.scenario,
        opens_in_s=_START_S + _LEAD_S,
        speed=preset.speed,
        workers=options.workers,
        places_share=preset.places_share,
        settings=_WAITING_ROOMS if options.waiting_room else "",
    ) as staging:
        command = [*_locust_command(options, preset, run, staging.url), "--catalog", staging.catalog]
        return _run_locust(options, command, _environment(staging.token, staging), preset)


def _locust_command(options: RunOptions, preset: OpeningPreset, run: str, url: str) -> list[str]:
    command = [
        sys.executable, "-m", "locust", "-f", str(_FOLDER / "locustfiles" / f"locustfile_{options.transport}.py"),
        "--headless", "--only-summary", "--loglevel", "ERROR", "--host", url, "--stop-timeout", "5",
        "--scenario", preset.scenario, "--applicants", str(options.applicants or preset.applicants),
        "--speed", str(preset.speed), "--lead-s", f"{_LEAD_S:g}", "--window-s", str(preset.window_s),
        "--grace-s", "15", "--run-name", run, "--out", str(options.out / f"loadtest-{preset.name}"),
    ]  # fmt: skip
    if options.processes > 1:
        command += ["--processes", str(options.processes), *local_master_arguments()]
    command += ["--force", "1"] if options.force else []
    command += ["--remote", "1"] if options.remote else []
    return [*command, *options.locust_arguments]


def local_master_arguments() -> list[str]:
    """Return Locust's arguments for a free port of this machine, on which the processes of one run meet.

    Locust's default is one port of all interfaces, where a run may get the processes of another.
    """
    with socket.create_server((_LOOPBACK, 0)) as free:
        port = str(free.getsockname()[1])
    return ["--master-bind-host", _LOOPBACK, "--master-bind-port", port, "--master-port", port]


def _environment(token: str, staging: StagingServer | None = None) -> dict[str, str]:
    environment = {**os.environ, "LOADTEST_TOKEN": token, "LOADTEST_PLAIN": "1"}
    if staging is not None:
        environment |= {"LOADTEST_BACKEND": staging.backend, "LOADTEST_IDENTITY_KEY": staging.identity_key}
    return environment


def _run_locust(
    options: RunOptions, command: Sequence[str], environment: dict[str, str], preset: OpeningPreset
) -> ExitCode:
    limit_s = 2 * _START_S + preset.window_s + _MARGIN_S
    output = _STANDARD_ERROR if options.as_json else None
    process = subprocess.Popen(command, env=environment, stdout=output)  # noqa: S603 - Locust, with our own file
    try:
        code = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        sys.stderr.write(f"Locust did not end within {limit_s:g} s and was stopped\n")
        return ExitCode.FOUND
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    return ExitCode(code) if code in set(ExitCode) else ExitCode.FOUND
