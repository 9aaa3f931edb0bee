"""Staging service for the time of a test: workers on an embedded Valkey, in a temporary folder, on a free port.

It sells the week that follows the opening.
"""

from __future__ import annotations

__all__ = ["StagingServer", "opening_catalog", "staging_server"]

import base64
import contextlib
import datetime
import hashlib
import importlib.resources
import os
import pathlib
import queue
import re
import secrets
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from quota_engine.catalog import builtin_names
from quota_engine.loadtest.plan import PlanError
from quota_engine.loadtest.target_client import TargetClient, TargetError

_START_S_MAX: Final = 60.0
_STOP_S_MAX: Final = 45.0
_SERVE: Final = (sys.executable, "-c", "from quota_engine.cli.main import main; raise SystemExit(main())", "serve")


class StagingServer(msgspec.Struct, frozen=True):
    """Address, operator's token and settings of a running staging service; ``pid`` is its main process."""

    url: str
    token: str
    backend: str
    identity_key: str
    catalog: str
    opens_at_s: float
    pid: int
    directory: str


def opening_catalog(
    name: str, opens_at_s: float, speed: float = 1.0, places_share: float = 1.0
) -> tuple[dict[str, Any], datetime.date]:
    """Return a catalog file whose schedules all open at one moment, and the first day on sale.

    Args:
        name: a bundled catalog or a TOML file.
        opens_at_s: the opening, in seconds since 1970. Every office then opens the whole next week.
        speed: factor by which holds and cooling times are shorter.
        places_share: share of every capacity, at least one place: a smaller country for a smaller machine.
    """
    if name in builtin_names():
        text = importlib.resources.files("quota_engine.catalog").joinpath("data", f"{name}.toml").read_text("utf-8")
    else:
        text = pathlib.Path(name).read_text("utf-8")
    raw = tomllib.loads(text)
    moment = datetime.datetime.fromtimestamp(round(opens_at_s), datetime.UTC)
    weekdays = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
    raw["schedules"] = [
        {
            "id": schedule["id"],
            "kind": "weekly",
            "weekday": weekdays[moment.weekday()],
            "at": moment.time(),
            "zone": "UTC",
            "weeks_ahead": 1,
        }
        for schedule in raw["schedules"]
    ]
    rules = raw.get("rules", {})
    if "hold_ttl_s" in rules:
        rules["hold_ttl_s"] = max(1, round(rules["hold_ttl_s"] / speed))
    for plan in raw.get("plans", ()):
        parts = [plan, *plan.get("quotas", ()), *plan.get("allotments", ())]
        for part in parts:
            again = part.get("re_release")
            if isinstance(again, dict):
                for key in ("cooling_s", "jitter_s"):
                    if key in again:
                        again[key] = max(1, round(again[key] / speed))
    if places_share != 1.0:
        _share_places(raw, places_share)
    monday = moment.date() - datetime.timedelta(days=moment.weekday()) + datetime.timedelta(days=7)
    return raw, monday


def _share_places(raw: dict[str, Any], share: float) -> None:
    def fewer(places: int) -> int:
        return max(1, round(places * share)) if places else 0

    tables = [office["capacities"] for office in raw.get("offices", ()) if "capacities" in office]
    for plan in raw.get("plans", ()):
        tables += plan.get("capacities_by_class", {}).values()
        for part in (*plan.get("quotas", ()), *plan.get("allotments", ())):
            part["capacity"] = fewer(part["capacity"])
    for table in tables:
        for name, places in table.items():
            table[name] = fewer(places)


@contextlib.contextmanager
def staging_server(
    catalog: str = "surabaya",
    *,
    opens_in_s: float,
    speed: float = 1.0,
    workers: int = 2,
    places_share: float = 1.0,
    is_staging: bool = True,
    command: Sequence[str] = (),
    settings: str = "",
) -> Iterator[StagingServer]:
    """Start a staging service, and end it with its workers, its store and its folder afterwards.

    Args:
        catalog: a bundled catalog or a TOML file.
        opens_in_s: seconds from now to the opening; leave time for the start. Negative if it opened before.
        speed, places_share: see :func:`opening_catalog`.
        workers: worker processes.
        settings: TOML to append to the configuration.
        command: words in front of the service's command, such as ``taskset``.
        is_staging: True if each response says that this is a staging service.

    Raises:
        PlanError: the service does not start.
    """
    opens_at_s = float(round(time.time() + opens_in_s))
    raw, _ = opening_catalog(catalog, opens_at_s, speed, places_share)
    token, key = secrets.token_urlsafe(24), base64.b64encode(os.urandom(32)).decode()
    with tempfile.TemporaryDirectory(prefix="quota-engine-staging-") as name:
        directory = pathlib.Path(name)
        (directory / "catalog.json").write_bytes(msgspec.json.encode(raw))
        backend = f"valkey+embedded://{directory / 'store'}"
        days = (datetime.timedelta(weeks=2)).days + 1
        (directory / "service.toml").write_text(
            f'backend = "{backend}"\ncatalog = "catalog.json"\nidentity_key = "{key}"\nport = 0\nworkers = {workers}\n'
            f"publish_days = {days}\nstaging = {str(is_staging).lower()}\n{settings}\n"
            f'[[tokens]]\nname = "load-test"\nrole = "operator"\n'
            f'sha256 = "{hashlib.sha256(token.encode()).hexdigest()}"\n'
        )
        process = subprocess.Popen(  # noqa: S603 - our own service
            [*command, *_SERVE, "--config", str(directory / "service.toml")],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            url = _address(process)
            _wait_until_ready(process, url)
            yield StagingServer(
                url, token, backend, key, str(directory / "catalog.json"), opens_at_s, process.pid, str(directory)
            )
        finally:
            _end(process)


def _address(process: subprocess.Popen[str]) -> str:
    """Return the address that the service prints, and copy its warnings to standard error."""
    found: queue.Queue[str] = queue.Queue()
    lines: list[str] = []

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            del lines[:-50]
            match = re.search(r"serves .* at (http://\S+)", line)
            if match:
                found.put(match[1])
            elif line.startswith(("Traceback", "ERROR", "quota-engine: worker")):
                sys.stderr.write(line)
        found.put("")

    threading.Thread(target=read, daemon=True).start()
    try:
        url = found.get(timeout=_START_S_MAX)
    except queue.Empty:
        url = ""
    if not url:
        raise PlanError("the staging did not start: " + "".join(lines[-12:]).strip())
    return url


def _wait_until_ready(process: subprocess.Popen[str], url: str) -> None:
    deadline_s = time.monotonic() + _START_S_MAX
    with TargetClient(url, "", timeout_s=5) as host:
        while process.poll() is None and time.monotonic() < deadline_s:
            with contextlib.suppress(TargetError):
                if host.call("GET", "/health/ready")[0] == 200:
                    return
            time.sleep(0.05)
    raise PlanError("the staging did not become ready")


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(_STOP_S_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stderr is not None:
        process.stderr.close()
