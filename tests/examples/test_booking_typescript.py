"""Tests of the recipe in TypeScript: the compiler checks its calls, and two processes book against a real service."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from quota_engine.client import ServiceClient
from tests.service.test_runner import Served, served
from tests.support.paths import DOCS, ROOT

RECIPE = ROOT / "examples" / "typescript"
MODULES = RECIPE / "node_modules"
TOKEN = "the token of the recipe, for tests"  # noqa: S105
PEOPLE, PLACES = 300, 50
_MISSING = (shutil.which("npm") is None or not MODULES.exists()) and not os.environ.get("CI")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(_MISSING, reason="no TypeScript: npm ci --prefix examples/typescript --ignore-scripts"),
]


@functools.cache  # the same day if midnight passes
def booked_day() -> date:
    """Return a day that is open, in the clinic's time zone as well."""
    return datetime.now(UTC).date() + timedelta(days=3)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service with the catalog of the recipes."""
    folder = tmp_path_factory.mktemp("service")
    token = {"name": "recipe", "role": "operator", "sha256": hashlib.sha256(TOKEN.encode()).hexdigest()}
    limits = {"requests_max": 4 * PEOPLE}  # two processes send all their requests at once, also on a busy machine
    configuration = {"catalog": str(ROOT / "examples" / "clinic.toml"), "tokens": [token], "limits": limits}
    (folder / "service.json").write_text(json.dumps(configuration), encoding="utf-8")
    with served(folder, "--config", "service.json", "--backend", "memory://") as service:
        yield service


@pytest.fixture(scope="module")
def recipe(service: Served, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str], str]:
    """The built recipe: its folder, the variables of its commands, and the output of the page's commands."""
    folder = tmp_path_factory.mktemp("recipe") / "typescript"
    shutil.copytree(RECIPE, folder, ignore=shutil.ignore_patterns("node_modules", "build", "service.d.ts"))
    (folder / "node_modules").symlink_to(MODULES, target_is_directory=True)
    shutil.copy(ROOT / "tests" / "support" / "wrong_calls.ts", folder)
    page = (DOCS / "recipes.md").read_text(encoding="utf-8")
    (commands,) = re.findall(r"```shell\n(npm ci .*?)```", page, re.DOTALL)
    commands = commands.replace("npm ci", ": npm ci").replace("http://127.0.0.1:8000", service.url)
    variables = {**os.environ, "QUOTA_ENGINE_TOKEN": TOKEN, "DAY": str(booked_day() + timedelta(days=1))}
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", commands],
        cwd=folder, env=variables, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, variables, done.stdout


def test_commands_of_the_page_book_a_place(recipe: tuple[Path, dict[str, str], str]) -> None:
    """The compiler also accepts none of the calls of ``wrong_calls.ts``, or the build would have failed."""
    folder, _, output = recipe
    assert output.splitlines()[-1] == "queue number 1"
    assert (folder / "build" / "wrong_calls.js").exists()
    assert (folder / "wrong_calls.ts").read_text(encoding="utf-8").count("@ts-expect-error") == 6


def test_two_processes_confirm_exactly_the_places(service: Served, recipe: tuple[Path, dict[str, str], str]) -> None:
    """Both book for the same people, with the same keys."""
    folder, variables, _ = recipe
    people = "".join(f"person-{n} key-{n}\n" for n in range(PEOPLE))
    command = ["node", "build/booking.js", service.url, "clinic", str(booked_day()), "vaccine"]
    processes = [
        subprocess.Popen(command, cwd=folder, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(people)
        process.stdin.close()
        process.stdin = None
    first, second = (process.communicate(timeout=120)[0].splitlines() for process in processes)
    assert first == second
    assert Counter(first)["SOLD_OUT"] == PEOPLE - PLACES
    assert set(first) == {"SOLD_OUT", *(f"queue number {number}" for number in range(1, PLACES + 1))}
    with ServiceClient.open(service.url, TOKEN) as client:
        assert client.audit().ok
        (day,) = client.availability("clinic", booked_day())
        assert day.quotas["online"].confirmed == PLACES


def test_recipe_is_short_and_its_lock_names_no_registry() -> None:
    assert len((RECIPE / "booking.ts").read_text(encoding="utf-8").splitlines()) < 100
    lock = json.loads((RECIPE / "package-lock.json").read_text(encoding="utf-8"))
    packages = {name: found for name, found in lock["packages"].items() if name}
    assert all(found["integrity"].startswith("sha512-") for found in packages.values())
    assert not any("resolved" in found for found in packages.values())
