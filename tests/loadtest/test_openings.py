"""Tests of the bundled openings: their files are in the package, and the command explains what is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from quota_engine.cli.main import main
from quota_engine.loadtest import locustfiles, openings
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
