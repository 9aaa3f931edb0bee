"""``fuzz``: seeds of the simulation from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quota_engine.cli.main import main
from quota_engine.domain.ledger import Quota


def test_seeds_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fuzz", "--seeds", "3", "--from", "7", "--store", "memory", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["seeds"] == 3
    assert result["violations"] == {}
    assert result["operations"] > 0
    assert result["ops_per_s"] > 0
    assert sum(result["faults"].values()) > 0


@pytest.mark.slow
def test_history_of_a_seed_passes_the_audit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "history.jsonl"
    assert main(["fuzz", "--seed", "1", "--store", "memory", "--history", str(path)]) == 0
    assert "event 1 at" in capsys.readouterr().out
    assert main(["audit", "--history", str(path)]) == 0
    assert main(["fuzz", "--seeds", "1", "--history", str(path)]) == 2


@pytest.mark.slow
def test_failing_seed_is_shown_with_its_smallest_schedule(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add_free = Quota.add_free

    def wrong(self: Any, units: int, now_ms: int) -> None:
        add_free(self, units - (units > 0), now_ms)

    monkeypatch.setattr(Quota, "add_free", wrong)
    assert main(["fuzz", "--seeds", "1", "--from", "1", "--store", "memory", "--shrink-runs", "6"]) == 1
    shown = capsys.readouterr().out
    assert "fails at commit" in shown
    assert "operations, and not:" in shown
