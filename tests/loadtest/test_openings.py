"""Tests of the bundled openings: their files are in the package, and the command explains what is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from quota_engine.cli.main import main
from quota_engine.loadtest import capacity, locustfiles, openings
from quota_engine.loadtest.openings import OPENING_PRESETS
from quota_engine.simulation.scenario import load_scenario


def locustfile_names() -> list[str]:
    """Return the names of the modules beside the bundled locustfiles."""
    return [path.stem for path in Path(locustfiles.__file__).parent.glob("*.py") if path.stem != "__init__"]


@pytest.mark.parametrize("preset", OPENING_PRESETS, ids=lambda preset: preset.name)
def test_scenario_of_a_preset_is_bundled(preset: openings.OpeningPreset) -> None:
    assert load_scenario(preset.scenario).applicants > 0


def test_locustfiles_shadow_no_standard_module() -> None:
    assert sorted(locustfile_names()) == ["locustfile_direct", "locustfile_http"]
    assert not set(locustfile_names()) & set(sys.stdlib_module_names)


@pytest.mark.slow
def test_command_imports_neither_locust_nor_the_service_for_its_help() -> None:
    code = (
        "import sys; from quota_engine.cli.main import main; main(['loadtest', 'run', '--help']); "
        "print(sorted({'locust', 'gevent', 'redis', 'starlette', 'httpx'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"


def test_missing_locust_names_the_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "quota_engine.loadtest.openings", None)
    assert main(["loadtest", "cleanup", "--host", "http://127.0.0.1:9"]) == 3
    assert "pip install 'quota-engine[loadtest]'" in capsys.readouterr().err


def test_processes_of_each_run_meet_on_a_port_of_their_own(tmp_path: Path) -> None:
    """On one port for all, processes would take part in another run."""
    options = openings.RunOptions(processes=2, out=tmp_path)
    commands = [openings._locust_command(options, OPENING_PRESETS[0], "r", "http://127.0.0.1:9") for _ in range(5)]
    ports = []
    for command in commands:
        listening, connecting = (command[command.index(f"--master-{end}") + 1] for end in ("bind-port", "port"))
        assert listening == connecting
        ports.append(listening)
        assert command[command.index("--master-bind-host") + 1] == "127.0.0.1"
    assert len(set(ports)) > 1
    alone = openings._locust_command(openings.RunOptions(out=tmp_path), OPENING_PRESETS[0], "r", "http://127.0.0.1:9")
    assert not any(word.startswith("--master") for word in alone)


@pytest.mark.parametrize(("exit_code", "report"), [(0, {"findings": []}), (1, None)])
def test_json_of_a_run_is_the_only_output(
    exit_code: int,
    report: dict[str, object] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A program in place of Locust prints a table, and writes a report or ends before it. An old report is there."""
    file = tmp_path / "loadtest-surabaya.json"
    file.write_text('{"findings": ["of an earlier run"]}', encoding="utf-8")
    write = f"pathlib.Path({str(file)!r}).write_text({json.dumps(report)!r})" if report else ""
    program = f"import pathlib, sys; print('a table'); {write}; sys.exit({exit_code})".replace("; ;", ";")
    monkeypatch.setattr(openings, "_locust_command", lambda *_: [sys.executable, "-c", program])
    options = ["--host", "http://127.0.0.1:9", "--only", "surabaya", "--keep", "--out", str(tmp_path), "--json"]
    assert main(["loadtest", "run", *options]) == exit_code
    printed = capfd.readouterr()
    assert json.loads(printed.out) == {"ok": exit_code == 0, "openings": {"surabaya": report}}
    assert "a table" in printed.err


def test_json_of_a_measurement_is_the_only_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(step_s: float, first_per_s: float, say: Callable[[str], None]) -> dict[str, float]:
        say("a rate")
        return {"first_per_s": first_per_s}

    monkeypatch.setattr(capacity, "measure", measure)
    out = tmp_path / "figures.json"
    assert main(["loadtest", "measure", "--first-per-s", "7", "--out", str(out), "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == json.loads(out.read_text(encoding="utf-8")) == {"first_per_s": 7.0}
    assert printed.err.startswith("a rate\nmeasured in ")
