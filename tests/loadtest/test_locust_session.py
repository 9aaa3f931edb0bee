"""Tests of Locust itself, in one process, against a service in another: short openings with result and exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quota_engine.cli.main import main
from quota_engine.loadtest.openings import local_master_arguments
from quota_engine.loadtest.staging_server import StagingServer, staging_server
from quota_engine.loadtest.target_client import TargetClient
from tests.support.paths import ROOT

pytestmark = [pytest.mark.store, pytest.mark.slow]

SCENARIO = """
title = "A small opening"
applicants = 150
policy = "{policy}"
[agents]
crash_share = 0.3
[load_test]
bot_share = 0.05
kiosks = 1
[[load_test.capacity_changes]]
at_s = 0.3
quota = "online"
factor = 1.1
[limits]
error_ratio_max = 0
p99_ms_max = {p99_ms_max}
"""


def locust(
    folder: Path, here: StagingServer, *options: str, file: str = "locustfile.py"
) -> subprocess.CompletedProcess[str]:
    """Run a small opening, headless."""
    command = [
        sys.executable, "-m", "locust", "-f", str(ROOT / "loadtests" / file), "--headless", "--only-summary",
        "--loglevel", "ERROR", "--host", here.url, "--stop-timeout", "5", "--catalog", here.catalog,
        "--speed", "60", "--lead-s", "2", "--window-s", "3", "--grace-s", "10", "--users-max", "40",
        "--out", str(folder / "verdict"), *options, *(local_master_arguments() if "--processes" in options else ()),
    ]  # fmt: skip
    environment = {
        **os.environ,
        "LOADTEST_TOKEN": here.token,
        "LOADTEST_PLAIN": "1",
        "LOADTEST_BACKEND": here.backend,
        "LOADTEST_IDENTITY_KEY": here.identity_key,
    }
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def clean_up(host: str, token: str, *options: str) -> int:
    """Run ``quota-engine loadtest cleanup`` in this process and return its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOADTEST_TOKEN", token)
        return main(["loadtest", "cleanup", "--host", host, *options])


def openings(
    folder: Path, *options: str, settings: str = "", workers: int = 2
) -> Iterator[tuple[StagingServer, subprocess.CompletedProcess[str]]]:
    """Yield a small opening that people wait for, and a later one if the machine was too busy for the first."""
    busy = os.getloadavg()[0] / (os.cpu_count() or 1)
    first, later = 8 + 2 * busy, 30 + 4 * busy
    for opens_in_s in (first, later):
        with staging_server("surabaya", opens_in_s=opens_in_s, speed=60, settings=settings, workers=workers) as here:
            run = locust(folder, here, *options)
            if run.returncode == 0 and opens_in_s == first:
                found = result(folder)
                if found["was_open"] or not (settings or "NOT_OPEN" in found["measured"]["requests_by_answer"]):
                    continue
            yield here, run
            return


def result(folder: Path) -> Any:
    return json.loads((folder / "verdict.json").read_text())


def scenario(folder: Path, p99_ms_max: float = 30_000, policy: str = "immediate") -> str:
    path = folder / "small.toml"
    path.write_text(SCENARIO.format(p99_ms_max=p99_ms_max, policy=policy))
    return str(path)


def test_two_processes_replay_an_opening_and_the_cleanup_repeats(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One long test, because starting the service takes longer than all of its checks.

    Every person has an answer and nothing is sold twice. The operator's ten more places are sold too. One command
    cleans
    up, twice, and leaves other reservations alone.
    """
    options = ("--scenario", scenario(tmp_path), "--processes", "2", "--run-name", "small")
    for here, run in openings(tmp_path, *options):
        assert run.returncode == 0, run.stdout + run.stderr
        found = result(tmp_path)
        assert found["findings"] == []
        assert (found["processes"], found["was_open"]) == (2, False)
        measured = found["measured"]
        assert measured["requests_by_answer"]["NOT_OPEN"] > 0
        assert measured["requests_by_answer"]["SOLD_OUT"] > 0
        assert measured["requests_by_answer"]["DONE"] == 1  # the operator's change
        assert measured["answered"] == found["predicted"]["applicants"] > 150
        assert {name.partition("/")[0] for name in found["ends_by_role"]} >= {"citizen", "refresher", "bot", "broker"}
        figures = {one["label"]: one["measured"] for one in found["figures"]}
        assert figures["Crashed and found their hold"] > 0
        assert max(map(len, run.stdout.splitlines())) <= 80
        for suffix, words in ((".html", "Measured and predicted"), (".csv", "section,figure,unit,measured")):
            assert words in (tmp_path / f"verdict{suffix}").read_text()
        with TargetClient(here.url, here.token) as host:
            day = {"applicants": ["3578012345678901"], "service": "new", "session": "morning", "channel": "walk-in"}
            booked = [one["reservation"] for one in host.events("surabaya") if one.get("verb") == "confirm"]
            assert booked
            assert all(one["reference"].startswith("surabaya~loadtest-small-") for one in booked)
            days = [one["reservation"]["day"] for one in host.events("surabaya") if one.get("reservation")]
            path = f"/v1/offices/surabaya/days/{days[0]}/reservations"
            status, kept = host.call("POST", path, day, {"Idempotency-Key": "a-real-one"})
            assert status == 201, kept
            assert clean_up(here.url, here.token) == 0
            first = capsys.readouterr().out
            assert "0 holds released, 0 places cancelled" not in first
            assert "1 reservations are not of load tests" in first
            assert clean_up(here.url, here.token, "--json") == 0
            left = {"released": 0, "cancelled": 0, "refused": [], "others": 1}
            assert json.loads(capsys.readouterr().out) == left
            assert host.ask("GET", f"/v1/reservations/{kept['reservation']['reference']}")["state"] == "HELD"
            assert host.audit() == []


def test_a_draw_and_a_trace_on_open_days(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A draw with a limit that fails, over HTTP; then a trace with the direct transport."""
    with (
        staging_server("surabaya", opens_in_s=-60, speed=60, workers=1) as here,
        TargetClient(here.url, here.token) as host,
    ):
        path = scenario(tmp_path, p99_ms_max=0.001, policy="draw")
        run = locust(tmp_path, here, "--scenario", path, "--run-name", "lots")
        assert run.returncode == 1, run.stdout + run.stderr
        assert "FOUND   broken limit: p99_ms_max" in run.stdout
        found = result(tmp_path)
        assert [one["kind"] for one in found["findings"]] == ["broken limit"]
        figures = {one["label"]: one["measured"] for one in found["figures"]}
        assert figures["People applied"] > figures["In the published list"] > 100
        assert 100 <= figures["Won"] == figures["Winners who hold their place"] <= figures["Places on sale"]
        assert figures["Changed their application"] > 5
        assert figures["Crashed and found their application"] > 10
        assert host.audit() == []
        assert clean_up(here.url, here.token, "--run", "lots") == 0
        assert f"{figures['Won']} holds released" in capsys.readouterr().out
    # Another service: the places of the draw come back one by one, and would be sold above those of the plan.
    with staging_server("surabaya", opens_in_s=-60, speed=60, workers=1) as here:
        trace = tmp_path / "trace.csv"
        lines = [f"{index * 0.02:.2f},{3578012345670000 + index},surabaya,2026-12-07,,1" for index in range(100)]
        trace.write_text("\n".join(["time,applicant,office,day,channel,party", *lines, ""]))
        run = locust(
            tmp_path, here, "--scenario", scenario(tmp_path), "--trace", str(trace), "--speed", "2", "--wait-s", "0",
            file="locustfile_direct.py",
        )  # fmt: skip
        assert run.returncode == 0, run.stdout + run.stderr
        found = result(tmp_path)
        assert (found["predicted"]["applicants"], found["was_open"]) == (100, True)
        assert found["ends_by_role"].keys() <= {f"citizen/{end}" for end in ("booked", "refused", "abandoned")}


def test_people_reserve_through_a_waiting_room(tmp_path: Path) -> None:
    """Some people still wait at the end; kiosks need no pass."""
    room = (
        '[waiting_rooms]\noffices = ["*"]\n[waiting_rooms.settings]\nwindow_ms = 2000\nturn_ms = 4000\n'
        "per_minute_min = 600\nper_minute_max = 1200\n"
    )
    for _, run in openings(tmp_path, "--scenario", scenario(tmp_path), "--window-s", "6", settings=room, workers=1):
        assert run.returncode == 0, run.stdout + run.stderr
        found = result(tmp_path)
        measured = found["measured"]["requests_by_answer"]
        assert measured["JOINED"] > 100
        assert min(measured[name] for name in ("WAITING", "CALLED", "ADMITTED", "CONFIRMED")) > 10
        assert "NOT_ADMITTED" not in measured
        assert found["ends_by_role"]["kiosk/booked"] > 0
        assert found["ends_by_role"]["citizen/waiting"] > 0
        assert any("waiting rooms" in note for note in found["notes"])


def test_a_target_that_is_no_staging_service_is_refused(tmp_path: Path) -> None:
    """The cleanup refuses the target as well, and a target on another machine."""
    with staging_server("surabaya", opens_in_s=-60, is_staging=False, workers=1) as here:
        run = locust(tmp_path, here, "--scenario", scenario(tmp_path))
        assert run.returncode == 2
        assert "does not say that it is a staging" in run.stderr
        with TargetClient(here.url, here.token) as host:
            assert not [one for one in host.events("surabaya") if one.get("reservation")]
        assert clean_up(here.url, here.token) == 2
    assert clean_up("http://192.0.2.1:9", "x") == 2
