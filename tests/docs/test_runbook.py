"""The runbook: its commands run in order with its own settings, and its alert rules name existing metrics."""

from __future__ import annotations

import configparser
import datetime
import hashlib
import inspect
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import redis
import yaml

from quota_engine.catalog import IssueCollector, read_raw
from quota_engine.cli.serve import serve
from quota_engine.client import ServiceClient
from quota_engine.service.config.settings import load_config
from quota_engine.service.observability.metric_families import METRIC_FAMILIES
from tests.service.test_runner import served
from tests.stores.redis.test_outages import RIGHTS
from tests.support.paths import DOCS
from tests.support.servers import redis_server_binary_or_skip, until, valkey_server_binary

pytestmark = pytest.mark.store

FILES = DOCS / "runbook"
PAGE = (DOCS / "runbook.md").read_text(encoding="utf-8")
TOKEN = "b3BlcmF0b3Igb2YgdGhpcyB0ZXN0"  # noqa: S105


class Valkey(NamedTuple):
    """A server with the settings of the runbook."""

    port: int
    folder: Path

    @property
    def url(self) -> str:
        return f"redis://engine:engine-password@127.0.0.1:{self.port}/0?durability=fsync"


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A server that runs ``valkey.conf`` and ``users.acl`` with the test's port, directory and passwords."""
    folder = tmp_path / "valkey"
    folder.mkdir()
    users = (FILES / "users.acl").read_text().replace("ENGINE-PASSWORD", "engine-password")
    (folder / "users.acl").write_text(users.replace("KEEPER-PASSWORD", "keeper-password"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--aclfile", str(folder / "users.acl")]
    with subprocess.Popen(
        [str(valkey_server_binary()), str(FILES / "valkey.conf"), *own], stdout=subprocess.PIPE
    ) as server:
        try:
            with redis.Redis(port=port, username="keeper", password="keeper-password") as keeper:  # noqa: S106
                until(lambda: keeper.ping(), "the server")
            yield Valkey(port, folder)
        finally:
            server.terminate()


OFFICES = """
services = [{{ id = "new", name = "New" }}]
[[schedules]]
id = "daily"
kind = "days_ahead"
days = 10
at = {at:%H:%M:00}
zone = "UTC"
[[plans]]
id = "p"
quotas = [{{ id = "online", capacity = 20 }}]
working_weekdays = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
[[offices]]
id = "surabaya"
name = "Surabaya"
time_zone = "UTC"
"""
"""A catalog with days that are open now, and a release in half an hour."""


def _configuration() -> str:
    """Return the page's configuration with the test's address and token, which stops without draining."""
    text = (FILES / "quota.toml").read_text()
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    changes = (("0.0.0.0", "127.0.0.1"), (f"{2:064}", digest), ("drain_ms = 10000", "drain_ms = 0"))  # noqa: S104
    for placeholder, own in changes:
        assert placeholder in text
        text = text.replace(placeholder, own)
    return text


def _write_files(folder: Path) -> None:
    """Write the files that the commands read: catalog, configuration and token."""
    now = datetime.datetime.now(datetime.UTC)
    for name in ("offices.toml", "offices.new.toml"):
        (folder / name).write_text(OFFICES.format(at=now + datetime.timedelta(minutes=30)))
    (folder / "quota.toml").write_text(_configuration())
    (folder / "operator.token").write_text(TOKEN)


def _write_tools(folder: Path) -> None:
    """Provide the programs that the commands call by name."""
    folder.mkdir()
    (folder / "valkey-cli").symlink_to(redis_server_binary_or_skip().with_name("redis-cli"))
    (folder / "python3").symlink_to(sys.executable)


def _run_blocks(folder: Path, environment: dict[str, str]) -> str:
    """Run every ``sh`` block of the page in one shell, and return its output."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 17
    script = "set -euo pipefail\n" + "".join(f"echo '--- block {n}' >&2\n{block}" for n, block in enumerate(blocks))
    done = subprocess.run(
        ["bash", "-c", script],  # noqa: S607
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,  # each command of the command line starts a Python process
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_command_of_the_page_works(tmp_path: Path, valkey: Valkey) -> None:
    folder, tools = tmp_path / "here", tmp_path / "tools"
    folder.mkdir()
    _write_files(folder)
    _write_tools(tools)
    secret = {"QUOTA_ENGINE_BACKEND": valkey.url, "QUOTA_ENGINE_IDENTITY_KEY": "YSBrZXkgZm9yIHRlc3RzIG9ubHk="}
    day = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=3)
    closed_day = day - datetime.timedelta(days=1)
    with served(folder, "--config", "quota.toml", "--workers", "1", **secret) as service:
        with ServiceClient.open(service.url, TOKEN) as client:
            (office,) = httpx.get(f"{service.url}/v1/offices", timeout=30).json()["offices"]
            opening = datetime.datetime.fromtimestamp(office["next_opening_at_ms"] / 1000, datetime.UTC)
            held = client.reserve("surabaya", day, "3578012345678901", service="new")
            assert held.ok, held
            assert client.confirm(held.reference).ok
            moved = client.reserve("surabaya", closed_day, "3578012345678902", service="new")
            assert client.confirm(moved.reference).ok, moved
        environment = {
            **os.environ, **secret, "COLUMNS": "80", "URL": service.url, "OFFICE": "surabaya", "QUOTA": "online",
            "DAY": str(day), "CLOSED_DAY": str(closed_day), "ROOM": f"surabaya-{opening:%Y%m%dT%H%M}",
            "VALKEY_HOST": "127.0.0.1", "VALKEY_PORT": str(valkey.port),
            "REDISCLI_AUTH": "keeper-password", "VALKEY_DIR": str(valkey.folder),
            "PATH": os.pathsep.join((str(tools), str(Path(sys.executable).parent), os.environ["PATH"])),
        }  # fmt: skip
        output = _run_blocks(folder, environment)
        with ServiceClient.open(service.url, TOKEN) as client:
            ended = client.lookup(held.reference)
            assert ended is not None
            assert ended.state == "CANCELLED"
            (view,) = client.availability("surabaya", day)
            assert (view.quotas["online"].capacity, view.closed) == (120, False)
            assert client.room(environment["ROOM"]).view().per_minute_max == 1_200
            assert [event.number for event in client.events("surabaya", limit=1)] == [2]
    assert output.count("no findings") == 5
    assert output.count("No contradiction so far. No position can be checked yet") == 2  # the room is empty


def test_the_settings_grant_the_least_rights_and_are_valid() -> None:
    (engine,) = [line for line in (FILES / "users.acl").read_text().splitlines() if line.startswith("user engine")]
    assert set(RIGHTS.split()) <= set(engine.split())
    secret = {"QUOTA_ENGINE_BACKEND": "redis://127.0.0.1", "QUOTA_ENGINE_IDENTITY_KEY": "YSBrZXkgZm9yIHRlc3RzIG9ubHk="}
    found = load_config(FILES / "quota.toml", secret, {"catalog": "surabaya"}, grants=())
    assert (found.workers, len(found.grants), len(found.admission)) == (4, 3, 1)
    assert read_raw(FILES / "quota.toml", IssueCollector("quota.toml"))["workers"] == 4


def test_the_unit_starts_the_service_and_waits_until_it_has_drained() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(FILES / "quota-engine.service")
    service = unit["Service"]
    program, command, option, _ = service["ExecStart"].split()
    assert (Path(program).name, command, option) == ("quota-engine", "serve", "--config")
    assert option.removeprefix("--") in inspect.signature(serve).parameters
    drain_ms = read_raw(FILES / "quota.toml", IssueCollector("quota.toml"))["drain_ms"]
    assert int(service["TimeoutStopSec"]) > drain_ms / 1000 + 35


def _rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FILES / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_the_rules_use_existing_metrics_and_match_the_page() -> None:
    """Prometheus itself adds ``up``, ``job`` and ``instance``."""
    suffixes = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    names = {
        f"{family}{suffix}": {*about.labels, *(["le"] if suffix == "_bucket" else [])}
        for family, about in METRIC_FAMILIES.items()
        for suffix in suffixes[about.kind]
    }
    for rule in _rules():
        expression = rule["expr"]
        assert expression.count("(") == expression.count(")")
        selectors = re.findall(r"\b((?:quota_engine|process)_\w+|up)\b(?:\{(.*?)\})?", expression)
        assert selectors, rule
        known: set[str] = {"job", "instance"}
        for name, matchers in selectors:
            known |= names[name] if name != "up" else set()
            for label in re.findall(r"(\w+)(?:=~|!~|!=|=)", matchers):
                assert label in names.get(name, {"job"}), (rule["alert"], label)
        for labels in re.findall(r"by \((.*?)\)", expression):
            assert set(labels.split(", ")) <= known, rule["alert"]
        for label in re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]):
            assert label in known, rule["alert"]
    table = re.findall(r"^\| ((?:[A-Z]\w+)(?:, [A-Z]\w+)*) \|", PAGE, re.MULTILINE)
    assert sorted(name for row in table for name in row.split(", ")) == sorted(rule["alert"] for rule in _rules())


def test_the_proxy_limits_bodies_and_hides_the_metrics() -> None:
    text = (FILES / "nginx.conf").read_text()
    assert text.count("{") == text.count("}")
    assert "client_max_body_size 64k" in text
    assert re.search(r"location ~ \(/stream\|/live\)\$ \{[^}]*proxy_buffering off", text)
    assert re.search(r"location = /metrics \{[^}]*return 404", text)
    assert "$proxy_add_x_forwarded_for" not in text
