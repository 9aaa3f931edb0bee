"""Measure the service through HTTP: ``python -m benchmarks.service``.

The server has one core, and the load (``wrk``, a Debian package) the other. Each case runs for some seconds in
several rounds, right after an empty route of Starlette, because machines differ and are noisy. The result is the
share of the empty route's rate, as the median of the rounds. On a busy machine, the share by the server's processor
time is more reliable. The store is in the service's process (``memory``), or a Valkey on the core of the load
(``valkey``). Every request has its own identity and key. Both stores take less than three minutes.
"""

from __future__ import annotations

__all__ = ["main", "measure", "served"]

import argparse
import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.server_memory import _valkey_server
from benchmarks.service_server import DAYS, OFFICE, ROOM, TOKEN
from quota_engine.bench.host_info import describe_machine, pinned, usable_cores

CONNECTIONS: Final = 64
GOALS: Final = {"reserve": 0.35, "sold out": 0.7, "room": 0.7, "room, 304": 0.7, "ticket": 0.7, "ticket, 304": 0.7}
"""The share of the empty route's rate."""
_NO_WRK: Final = "wrk is missing (Debian: apt-get install wrk)"
_RESERVE: Final = """
local number, round = 0, ROUND
wrk.method = "POST"
function request()
  number = number + 1
  local who = round .. string.format("%08d", number)
  return wrk.format("POST", nil, {
    ["Authorization"] = "Bearer TOKEN", ["Content-Type"] = "application/json", ["Idempotency-Key"] = "key-" .. who,
  }, '{"applicants":["' .. who .. '"],"service":"new","session":"morning"}')
end
"""
_POLL: Final = """
for name, value in pairs(HEADERS) do wrk.headers[name] = value end
"""


class _Case(NamedTuple):
    """One case: a script for wrk, the address, and the expected status."""

    name: str
    path: str
    status: int
    is_reserve: bool = False
    is_known: bool = False


def _cases(tickets: Sequence[str]) -> list[_Case]:
    room, ticket = f"/v1/rooms/{ROOM}", f"/v1/rooms/{ROOM}/tickets/{tickets[0]}"
    reserve = [f"/v1/offices/{OFFICE}/days/{day}/reservations" for day in DAYS]
    return [
        _Case("reserve", reserve[0], 201, is_reserve=True),
        _Case("sold out", reserve[1], 409, is_reserve=True),
        _Case("room", room, 200),
        _Case("room, 304", room, 304, is_known=True),
        _Case("ticket", ticket, 200),
        _Case("ticket, 304", ticket, 304, is_known=True),
    ]


@contextlib.contextmanager
def served(what: str, core: int, backend: str = "memory://") -> Iterator[dict[str, Any]]:
    """Start a server of :mod:`benchmarks.service_server`, and yield it with its first line of JSON."""
    command = [sys.executable, "-m", "benchmarks.service_server", what, str(core), backend]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise SystemExit(f"the server for {what} did not start")
            yield json.loads(line)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(60)


class _Rate(NamedTuple):
    """Answers a second, and microseconds of the server's processor for one."""

    a_second: float
    processor_us: float


def _processor_s(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class _Load:
    """Runs wrk on a core."""

    def __init__(self, core: int, seconds: int, directory: str) -> None:
        self._core = core
        self._seconds = seconds
        self._script = Path(directory) / "load.lua"
        self._runs = 0

    def rate(self, server: dict[str, Any], path: str, status: int, script: str = "") -> _Rate:
        """Measure the rate of the server. All answers must be refusals, or none, as ``status`` says."""
        self._runs += 1
        self._script.write_text(script.replace("ROUND", f'"{self._runs:08d}"').replace("TOKEN", TOKEN) or "--")
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{self._seconds}s", "-s", str(self._script)]
        if self._core >= 0:
            command = ["taskset", "-c", str(self._core), *command]
        before_s = _processor_s(server["pid"])
        run = subprocess.run(  # noqa: S603 - wrk, with what is above
            [*command, f"http://127.0.0.1:{server['port']}{path}"], capture_output=True, text=True, check=False
        )
        took_s = _processor_s(server["pid"]) - before_s
        text = run.stdout
        if run.returncode or "Socket errors" in text:
            raise SystemExit(f"wrk failed at {path}: {text}{run.stderr}")
        total = int(re.findall(r"(\d+) requests in", text)[0])
        refused = int((re.findall(r"Non-2xx or 3xx responses: (\d+)", text) or ["0"])[0])
        if refused != (0 if status < 400 else total):
            raise SystemExit(f"{refused} of {total} were refused at {path}, where each should be {status}")
        return _Rate(float(re.findall(r"Requests/sec:\s+([\d.]+)", text)[0]), took_s / total * 1e6)


def _probe(port: int, case: _Case) -> str:
    """See that the answer is the one that is meant; returns the script for wrk."""
    url = f"http://127.0.0.1:{port}{case.path}"
    if case.is_reserve:
        return _RESERVE
    headers: dict[str, str] = {}
    for _ in range(2):
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
                status, tag = answer.status, answer.headers.get("etag", "")
        except urllib.error.HTTPError as error:
            status, tag = error.code, ""
        if status == case.status:
            pairs = ", ".join(f"[{json.dumps(name)}] = {json.dumps(value)}" for name, value in headers.items())
            return _POLL.replace("HEADERS", f"{{{pairs}}}")
        headers = {"If-None-Match": tag}
    raise SystemExit(f"{case.path} answers {status}, not {case.status}")


def measure(stores: Sequence[str], only: Sequence[str], rounds: int, seconds: int) -> dict[str, Any]:
    """Return rates and shares of all cases."""
    cores = usable_cores()
    if cores is None:
        raise SystemExit("two cores are needed")
    load_core, server_core = cores
    with contextlib.ExitStack() as undo:
        directory = undo.enter_context(tempfile.TemporaryDirectory(prefix="quota-service-"))
        load = _Load(load_core, seconds, directory)
        empty = undo.enter_context(served("empty", server_core))
        limit = undo.enter_context(served("limit", server_core))
        services: dict[str, dict[str, Any]] = {}
        for store in stores:
            backend = "memory://"
            if store == "valkey":
                with pinned(0, load_core):
                    backend = undo.enter_context(_valkey_server())
            services[store] = undo.enter_context(served("service", server_core, backend))
        rates: dict[tuple[str, str], list[tuple[_Rate, _Rate]]] = {}
        for _ in range(rounds):
            for store, service in services.items():
                if store == stores[0]:
                    yardstick = load.rate(empty, "/", 200)
                    rate = load.rate(limit, "/", 201, _RESERVE)
                    rates.setdefault(("limit", "reserve"), []).append((rate, yardstick))
                for case in _cases(service["tickets"]):
                    if only and case.name not in only:
                        continue
                    script = _probe(service["port"], case)
                    if case.is_reserve and store == "valkey":
                        load.rate(service, case.path, case.status, script)  # what is remembered is there
                    yardstick = load.rate(empty, "/", 200)
                    rate = load.rate(service, case.path, case.status, script)
                    rates.setdefault((store, case.name), []).append((rate, yardstick))
    found = [
        {
            "store": store,
            "case": case,
            "a_second": round(statistics.median(rate.a_second for rate, _ in pairs)),
            "empty_route_a_second": round(statistics.median(empty.a_second for _, empty in pairs)),
            "share": round(statistics.median(rate.a_second / empty.a_second for rate, empty in pairs), 3),
            "share_least": round(min(rate.a_second / empty.a_second for rate, empty in pairs), 3),
            "share_most": round(max(rate.a_second / empty.a_second for rate, empty in pairs), 3),
            "processor_us": round(statistics.median(rate.processor_us for rate, _ in pairs), 1),
            "empty_route_processor_us": round(statistics.median(empty.processor_us for _, empty in pairs), 1),
            "share_by_processor": round(
                statistics.median(empty.processor_us / rate.processor_us for rate, empty in pairs), 3
            ),
            "goal": None if store == "limit" else GOALS[case],
        }
        for (store, case), pairs in rates.items()
    ]
    return {"machine": describe_machine(), "rounds": rounds, "seconds": seconds, "cases": found}


def _table(found: dict[str, Any]) -> str:
    lines = [
        f"{'store':8}{'case':14}{'a second':>10}{'empty route':>13}{'share':>8}{'least, most':>16}"
        f"{'µs':>8}{'by µs':>8}{'goal':>7}"
    ]
    for one in found["cases"]:
        spread = f"{one['share_least']:.2f}, {one['share_most']:.2f}"
        goal = "" if one["goal"] is None else f"{one['goal']:.2f}"
        lines.append(
            f"{one['store']:8}{one['case']:14}{one['a_second']:>10,}{one['empty_route_a_second']:>13,}"
            f"{one['share']:>8.2f}{spread:>16}"
            f"{one['processor_us']:>8.1f}{one['share_by_processor']:>8.2f}{goal:>7}"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print the figures; returns 1 if a goal is missed, 2 if wrk is missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service", description=__doc__)
    parser.add_argument("--store", action="append", choices=("memory", "valkey"), default=[])
    parser.add_argument("--case", action="append", choices=tuple(GOALS), default=[])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=1, help="of each case in a round")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if shutil.which("wrk") is None or shutil.which("taskset") is None:
        print(_NO_WRK, file=sys.stderr)
        return 2
    found = measure(options.store or ["memory", "valkey"], options.case, options.rounds, options.seconds)
    print(json.dumps(found, indent=2) if options.json else _table(found))
    return int(any(one["goal"] and one["share"] < one["goal"] for one in found["cases"]))


if __name__ == "__main__":
    sys.exit(main())
