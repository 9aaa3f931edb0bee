"""``quota-engine doctor``: what is wrong is found, and has its remedy. No output has a password."""

from __future__ import annotations

import importlib.metadata
import json
import pathlib
import time
from typing import Any

import pytest

from quota_engine import QuotaEngine
from quota_engine.cli.main import main
from tests.support.servers import Server, valkey_server_binary

KEY = b"a key for tests, and only them"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("QUOTA_ENGINE_BACKEND", raising=False)


def examine(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Return the exit code, and the checks by name."""
    code = main(["doctor", *words, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] == (code == 0)
    assert all(check["remedy"] for check in found["checks"] if check["level"] != "ok")
    return code, {check["name"]: check for check in found["checks"]}


def test_versions_and_extras_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    code, checks = examine(capsys)
    assert code == 0
    assert checks["quota-engine"]["text"] == importlib.metadata.version("quota-engine")
    assert "cyclopts" in checks["extra cli"]["text"]
    assert (checks["store"]["level"], checks["store"]["text"]) == ("note", "not given")
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.endswith("nothing is wrong\n")


def test_missing_and_old_packages_have_a_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    version = importlib.metadata.version

    def other(name: str) -> str:
        if name == "pyyaml":
            raise importlib.metadata.PackageNotFoundError(name)
        return "13.9" if name == "rich" else version(name)

    monkeypatch.setattr(importlib.metadata, "version", other)
    code, checks = examine(capsys)
    assert (code, checks["extra yaml"]["level"]) == (1, "note")
    assert checks["extra yaml"]["remedy"] == "pip install 'quota-engine[yaml]'"
    assert checks["extra cli"]["text"] == "rich 13.9 is older than 14"
    assert checks["extra cli"]["remedy"] == "pip install --upgrade 'quota-engine[cli]'"


def test_a_store_in_a_file(capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path) -> None:
    url = f"sqlite://{tmp_path}/quota.db"
    code, checks = examine(capsys, url)
    assert (code, "does not exist" in checks["store"]["text"]) == (1, True)
    assert not list(tmp_path.iterdir())
    QuotaEngine.open(url, identity_key=KEY).close()
    code, checks = examine(capsys, url)
    assert (code, checks["store"]["level"], checks["durability"]["text"]) == (0, "ok", "fsync")
    assert checks["clock"]["text"] == "the store has the clock of this machine"


def test_a_store_that_is_away_is_named_without_its_password(capsys: pytest.CaptureFixture[str]) -> None:
    code, checks = examine(capsys, "redis://user:secret@127.0.0.1:1/0?password=hidden&attempts_max=1")
    assert (code, checks["store"]["level"]) == (1, "wrong")
    assert checks["store"]["text"].startswith("redis://127.0.0.1:1/0: ")
    assert not any(word in json.dumps(checks) for word in ("secret", "hidden"))
    assert examine(capsys, "nowhere://x")[1]["store"]["remedy"] == "correct the URL, see docs/backends.md"
    assert examine(capsys, "http://127.0.0.1:1")[1]["service"]["remedy"].startswith("start the service")


@pytest.mark.store
def test_a_servers_clock_and_durability(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A difference of an hour is wrong; the shortest way there and back does not count."""
    with Server(valkey_server_binary()) as server:
        code, checks = examine(capsys, server.url)
        assert (code, checks["clock"]["level"], checks["durability"]["level"]) == (0, "ok", "note")
        assert "durability=fsync" in checks["durability"]["remedy"]
        refused = examine(capsys, f"{server.url}?durability=fsync")[1]["store"]
        assert (refused["level"], "appendfsync" in refused["text"]) == ("wrong", True)
        present_ns = time.time_ns
        monkeypatch.setattr(time, "time_ns", lambda: present_ns() - 3_600_000_000_000)
        clock = examine(capsys, server.url)[1]["clock"]
        assert (clock["level"], "ahead of this machine" in clock["text"]) == ("wrong", True)
        assert "NTP" in clock["remedy"]


def test_a_configuration_file_is_checked(capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path) -> None:
    config = tmp_path / "quota.toml"
    config.write_text('backend = "memory://"\nport = 99999\n', "utf-8")
    code, checks = examine(capsys, "--config", str(config))
    assert (code, checks["configuration"]["level"], "port" in checks["configuration"]["text"]) == (1, "wrong", True)
    config.write_text('backend = "memory://"\n', "utf-8")
    code, checks = examine(capsys, "--config", str(config))
    assert (code, checks["configuration"]["level"], checks["durability"]["level"]) == (0, "note", "note")
