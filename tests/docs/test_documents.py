"""The documents say what the code does: code blocks run, made parts are fresh, named tests exist."""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from quota_engine import ManualClock, Status
from quota_engine.admission import PolicyRequest
from quota_engine.cli import main
from quota_engine.waiting_room.transcript import iter_positions, parse_transcript
from tests.support.paths import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_of_the_readme_prints_a_result_today(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102
    *tries, last = capsys.readouterr().out.splitlines()
    assert last == "queue number 1" or not tries or tries[-1].endswith(" NOT_OPEN")
    assert all(line.split()[1] in Status.__members__ for line in tries)


@pytest.mark.slow
def test_commands_of_the_readme_make_a_wheel_that_pip_finds(tmp_path: Path) -> None:
    """The packages of the build are those of this environment, because a test has no network."""
    (commands,) = re.findall(
        r"```sh\n(python3 -m pip wheel .*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL
    )
    commands = commands.replace("python3", sys.executable).replace(" dist .", f" dist --no-build-isolation {ROOT}")
    find = f"{sys.executable} -m pip download --no-index --no-deps --dest found 'quota-engine[cli]'"
    done = subprocess.run(
        ["/bin/bash", "-euc", commands + find], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(tmp_path.glob("found/quota_engine-*.whl"))) == 1


def test_the_python_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """The code of docs/python.md, block after block, does what the page says."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)  # noqa: S102
    assert "'kiosk': 30" in capsys.readouterr().out


def test_the_admission_page_lists_the_fields_of_a_request() -> None:
    text = (ROOT / "docs" / "admission.md").read_text(encoding="utf-8")
    table = text.partition("fields of the `PolicyRequest`:\n\n")[2].partition("\n\n")[0]
    listed = [name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert listed == list(PolicyRequest.__struct_fields__)


def test_the_admission_page_runs() -> None:
    """The code of docs/admission.md, block after block, does what the page says."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "admission.md").read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/admission.md", "exec"), names)  # noqa: S102
    assert len(blocks) == 6


def test_the_payments_page_runs() -> None:
    """The code of docs/payments.md, block after block, does what the page says."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "payments.md").read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/payments.md", "exec"), names)  # noqa: S102
    assert len(blocks) == 3


def test_the_waiting_room_page_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The code of the page runs, and its independent program computes the engine's positions.

    The page shows the command line's real output, and transcripts of a real run.
    """
    page = (ROOT / "docs" / "waiting-room.md").read_text(encoding="utf-8")
    monkeypatch.chdir(ROOT)
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "docs/waiting-room.md", "exec"), names)  # noqa: S102
    assert capsys.readouterr().out == "3739\n"
    after = ROOT / "docs" / "rooms" / "surabaya-after.json"
    for number, position in itertools.islice(iter_positions(parse_transcript(after.read_bytes())), 0, None, 37):
        assert names["position"](json.loads(after.read_text(encoding="utf-8")), number) == position
    made = runpy.run_path(str(ROOT / "docs" / "rooms" / "make.py"))
    ticket = made["main"](tmp_path)
    for name in ("surabaya-before.json", "surabaya-opened.json", "surabaya-after.json"):
        assert (tmp_path / name).read_bytes() == (ROOT / "docs" / "rooms" / name).read_bytes()
    monkeypatch.chdir(tmp_path)
    (shown,) = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    earlier = ["--earlier", "surabaya-before.json", "--earlier", "surabaya-opened.json"]
    for given in ("1000", ticket):
        assert main.main(["room", "verify", "surabaya-after.json", *earlier, f"--ticket={given}"]) == 0
        assert capsys.readouterr().out == shown


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_made_from_the_code_is_fresh(page: Path) -> None:
    """Diagram and tables are what ``python docs/generate.py`` writes now."""
    text = page.read_text(encoding="utf-8")
    assert generator().replace_sections(text) == text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link and picture is there."""
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_the_tests_that_guarantees_name_exist() -> None:
    """Each guarantee names tests that would fail without it; they are there under that name."""
    text = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:tests|src)/[\w/]+\.py)(?:::(\w+))?(?:::(\w+))?`", text)
    assert len(named) >= 10
    for path, *names in named:
        source = (ROOT / path).read_text(encoding="utf-8")
        for name in filter(None, names):
            assert re.search(rf"(def|class) {name}\b", source), f"{path}::{name}"


def test_a_manual_clock_needs_an_offset() -> None:
    """A moment without its offset from UTC could be any of 24: it is refused."""
    assert ManualClock.at("1970-01-01T07:00:01+07:00").now_ms() == 1000
    with pytest.raises(ValueError, match="no offset from UTC"):
        ManualClock.at("2026-12-04T14:00:00")
