"""Tests of ``deploy/``: the files name each other correctly, queries use existing metrics, and the service starts."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from quota_engine.service.observability.metric_families import METRIC_FAMILIES
from tests.support.paths import ROOT
from tests.support.servers import valkey_server_binary

DEPLOY = ROOT / "deploy"
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
LABELS = {
    f"{name}{suffix}": {*family.labels, *(["le"] if suffix == "_bucket" else []), "instance", "job"}
    for name, family in METRIC_FAMILIES.items()
    for suffix in SUFFIXES[family.kind]
}


def targets(dashboard: Path) -> list[tuple[str, str]]:
    """Return the query and the legend of each line of a dashboard."""
    panels = json.loads(dashboard.read_text(encoding="utf-8"))["panels"]
    return [(one["expr"], one["legendFormat"]) for panel in panels for one in panel["targets"]]


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_queries_of_dashboards_use_existing_metrics_and_labels(dashboard: Path) -> None:
    found = targets(dashboard)
    assert len(found) >= 10
    for query, legend in found:
        metrics = re.findall(r"\b(?:quota_engine|process)_\w+", query)
        assert metrics, query
        assert query.count("(") == query.count(")")
        grouped = {label for group in re.findall(r"by \((.*?)\)", query) for label in group.split(", ")}
        for metric in metrics:
            assert metric in LABELS, query
            assert grouped <= LABELS[metric], query
        assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= grouped, legend


def test_dashboards_show_every_metric_of_the_engine() -> None:
    queries = " ".join(query for dashboard in DASHBOARDS for query, _ in targets(dashboard))
    hidden = [name for name in METRIC_FAMILIES if not re.search(rf"\b{name}(?:_total|_bucket)?\b", queries)]
    assert hidden == ["quota_engine_abandoned_hold_blocks", "process_virtual_memory_bytes"]


def test_panels_have_places_and_numbers_of_their_own() -> None:
    for dashboard in DASHBOARDS:
        panels = json.loads(dashboard.read_text(encoding="utf-8"))["panels"]
        places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
        assert len(places) == len({panel["id"] for panel in panels}) == len(panels)


def test_mounted_files_and_named_services_exist() -> None:
    services = COMPOSE["services"]
    for name, service in services.items():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            exists = (DEPLOY / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
            assert exists, f"{name}: {volume}"
        assert set(service.get("depends_on", ())) <= set(services)
    assert "valkey:6379" in services["service"]["environment"]["QUOTA_ENGINE_BACKEND"]
    settings = tomllib.loads((DEPLOY / "quota.toml").read_text(encoding="utf-8"))
    scraped = yaml.safe_load((DEPLOY / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    address = f"service:{settings['port']}"
    assert scraped[0]["static_configs"][0]["targets"] == [address]
    proxy = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
    assert set(re.findall(r"proxy_pass http://([^;]+);", proxy)) == {address}
    assert proxy.count("{") == proxy.count("}")


def test_provisioned_data_source_is_that_of_the_dashboards() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasource.yaml").read_text(encoding="utf-8"))["datasources"]
    assert source["url"].removeprefix("http://").split(":")[0] in COMPOSE["services"]
    for dashboard in DASHBOARDS:
        panels = json.loads(dashboard.read_text(encoding="utf-8"))["panels"]
        assert {panel["datasource"]["uid"] for panel in panels} == {source["uid"]}
    (provider,) = yaml.safe_load((provisioning / "dashboards.yaml").read_text(encoding="utf-8"))["providers"]
    mounts = [volume.split(":")[1] for volume in COMPOSE["services"]["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounts


def test_container_copies_existing_files_and_starts_the_service() -> None:
    lines = (DEPLOY / "Containerfile").read_text(encoding="utf-8").splitlines()
    for line in lines:
        if line.startswith("COPY ") and "--from" not in line:
            *sources, _ = line.split()[1:]
            assert all((ROOT / source).exists() for source in sources), line
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    (installed,) = re.findall(r"'\.\[([\w,]+)\]'", "\n".join(lines))
    assert set(installed.split(",")) <= set(extras)
    program = [
        word for line in lines if line.startswith(("ENTRYPOINT", "CMD")) for word in json.loads(line.split(" ", 1)[1])
    ]
    assert program[:3] == ["quota-engine", "serve", "--config"]
    assert f"./quota.toml:{program[3]}:ro" in COMPOSE["services"]["service"]["volumes"]


@pytest.mark.store
@pytest.mark.slow
def test_service_starts_with_the_files_of_the_containers(tmp_path: Path) -> None:
    valkey_socket = tmp_path / "socket"
    options = ["--port", "0", "--unixsocket", str(valkey_socket), "--dir", str(tmp_path)]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    variables = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "src"),
        "QUOTA_ENGINE_BACKEND": f"unix://{valkey_socket}?durability=fsync",
        "QUOTA_ENGINE_IDENTITY_KEY": "c2l4dGVlbiByYW5kb20gYnl0ZXM=",
        "QUOTA_ENGINE_HOST": "127.0.0.1",
        "QUOTA_ENGINE_PORT": str(port),
    }
    settings = (DEPLOY / "quota.toml").read_text(encoding="utf-8")
    assert "drain_ms = 5000" in settings
    own = tmp_path / "quota.toml"
    own.write_text(settings.replace("drain_ms = 5000", "drain_ms = 0"), encoding="utf-8")
    program = [sys.executable, "-c", "import sys; from quota_engine.cli.main import main; sys.exit(main())"]
    serve = [*program, "serve", "--config", str(own)]
    with contextlib.ExitStack() as stack:
        for command in ([str(valkey_server_binary()), str(DEPLOY / "valkey.conf"), *options], serve):
            process = stack.enter_context(subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL))
            stack.callback(process.terminate)
            deadline = time.monotonic() + 60
            while not valkey_socket.exists():
                assert time.monotonic() < deadline
                time.sleep(0.02)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
                    metrics = response.read()
                if b"quota_engine_workers 2" in metrics:  # one worker may answer before the other has started
                    return
            time.sleep(0.05)
        pytest.fail("the service did not start two workers")
